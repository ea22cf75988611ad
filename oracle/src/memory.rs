//! What a thread allocates, and the processor time that it takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

/// The system's allocator, counting.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// A layout's size is at most isize::MAX.
#[allow(clippy::cast_possible_wrap)]
// SAFETY: all is left to the system's allocator; what is counted has no part in it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may exist for a moment.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What some work took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Processor time of this thread.
    pub time: Duration,
    /// Most bytes allocated at once, beyond what was before.
    pub heap: usize,
}

/// Does some work of this thread's and tells what it took.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let before = NOW.get();
    PEAK.set(before);
    let start = processor_time();
    let done = work();
    let time = processor_time().saturating_sub(start);
    let heap = usize::try_from(PEAK.get() - before).unwrap_or(0);
    (done, Cost { time, heap })
}

fn processor_time() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid for writes.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    assert_eq!(failed, 0, "a thread has a clock");
    Duration::new(
        u64::try_from(now.tv_sec).expect("time goes forward"),
        u32::try_from(now.tv_nsec).expect("below a second"),
    )
}

/// Most memory that this process has had in use at once since [`forget_peak`], stacks and all; Linux only.
pub fn resident_peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Makes [`resident_peak`] begin anew.
pub fn forget_peak() {
    // Where it cannot be done, the peak is that of the whole process, which is no less.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
