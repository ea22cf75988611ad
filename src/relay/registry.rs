//! Who is connected: the way for a cancel request, or the shutdown, to reach the task of one session.
//!
//! A cancel request is not sent to a server from here: the session's own task does it, because only that task knows
//! what the client runs at this moment, and keeps the server connection to itself until the cancel has arrived.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atomic_waker::AtomicWaker;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use hashbrown::HashMap;
use subtle::ConstantTimeEq;
use tokio::sync::Notify;

use super::timeouts::{Noted, SessionTimeouts};
use super::{key, log};
use crate::config::PeerId;

const CANCEL: u8 = 1;
const DRAIN: u8 = 2;
const EXPIRED: u8 = 4;

/// Requests with a wrong key that a session bears; after them it takes none. Where 18 bits of its key are random, and its
/// process id is known, all that guessing can win is a chance of 1 in 256 to cancel its statement. Who guesses can thus
/// keep its own client from cancelling, which is the lesser harm.
pub(super) const MAX_WRONG_KEYS: u16 = 1024;

/// One session's mailbox. There are as many as clients, and a common allocator has room for 104 bytes beside the session's
/// task, which is aligned to 128.
#[derive(Debug)]
pub struct Slot {
    /// The process id that the client was told.
    pub process: i32,
    /// The key that the client was told.
    pub key: Box<[u8]>,
    flags: AtomicU8,
    /// Cancel requests with a wrong key.
    wrong_keys: AtomicU16,
    /// The session's task.
    pub waker: AtomicWaker,
    /// What the session is doing, for timeouts.
    pub(super) noted: Noted,
}

impl Slot {
    fn raise(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::Release);
        self.waker.wake();
    }

    /// Takes a cancel request out, if one has come.
    #[inline]
    pub fn take_cancel(&self) -> bool {
        self.flags.load(Ordering::Acquire) & CANCEL != 0
            && self.flags.fetch_and(!CANCEL, Ordering::AcqRel) & CANCEL != 0
    }

    /// Takes the news out that the session is overdue.
    #[inline]
    pub fn take_expired(&self) -> bool {
        self.flags.load(Ordering::Acquire) & EXPIRED != 0
            && self.flags.fetch_and(!EXPIRED, Ordering::AcqRel) & EXPIRED != 0
    }

    /// Whether the session is to end at the next quiet moment.
    #[inline]
    pub fn draining(&self) -> bool {
        self.flags.load(Ordering::Acquire) & DRAIN != 0
    }
}

/// A session's place in the registry; it is taken out when this is dropped.
#[derive(Debug)]
pub struct Seat {
    registry: Arc<Registry>,
    slot: Arc<Slot>,
}

impl std::ops::Deref for Seat {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl Seat {
    /// From now on the session is under these bounds; `None` if there are none to look for.
    pub(super) fn bound_by(&self, bounds: Option<Arc<SessionTimeouts>>) {
        let own = |bounds: &Option<Arc<SessionTimeouts>>| {
            bounds.as_ref().is_some_and(|bounds| bounds.are_own())
        };
        let is = own(&bounds);
        let was = own(&self.slot.noted.bounds.swap(bounds));
        let counted = &self.registry.own_bounds;
        match (was, is) {
            (false, true) => {
                counted.fetch_add(1, Ordering::Relaxed);
                self.registry.to_be_watched();
            }
            (true, false) => _ = counted.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.bound_by(None);
        self.registry.slots().remove(&self.slot.process);
    }
}

/// All sessions of the process.
#[derive(Debug, Default)]
pub struct Registry {
    /// The process among its peers, if it has any: its keys bear the number.
    id: Option<PeerId>,
    slots: Mutex<HashMap<i32, Arc<Slot>, foldhash::fast::RandomState>>,
    random: Mutex<Stock>,
    draining: AtomicBool,
    /// Sessions with a bound that they have set themselves.
    own_bounds: AtomicUsize,
    /// There is a session again that somebody has to look at.
    watch: Notify,
}

impl Registry {
    /// An empty one, of a process with this number.
    pub fn new(id: Option<PeerId>) -> Registry {
        Registry {
            id,
            ..Registry::default()
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<i32, Arc<Slot>, foldhash::fast::RandomState>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a session. `process` is wanted if it is free; `key_length` is 4 in protocol 3.0 and up to 256 in 3.2.
    ///
    /// # Errors
    /// When the system has no random numbers: a key that can be guessed is no key.
    pub fn enter(
        self: &Arc<Self>,
        process: Option<i32>,
        key_length: usize,
    ) -> Result<Seat, NoRandomness> {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = vec![0; key_length].into_boxed_slice();
        random.fill(&mut key)?;
        if let Some(id) = self.id {
            key::stamp(&mut key, id);
        }
        let mut slots = self.slots();
        let process = match process.filter(|process| *process > 0 && !slots.contains_key(process)) {
            Some(process) => process,
            None => free_process(&slots, &mut random)?,
        };
        drop(random);
        let flags = AtomicU8::new(if self.draining.load(Ordering::Acquire) {
            DRAIN
        } else {
            0
        });
        let slot = Arc::new(Slot {
            process,
            key,
            flags,
            wrong_keys: AtomicU16::new(0),
            waker: AtomicWaker::new(),
            noted: Noted::default(),
        });
        slots.insert(process, slot.clone());
        drop(slots);
        Ok(Seat {
            registry: self.clone(),
            slot,
        })
    }

    /// A cancel request has come. Returns whether it was for anybody; the peer is never told.
    pub fn cancel(&self, process: i32, key: &[u8]) -> bool {
        let Some(slot) = self.slots().get(&process).cloned() else {
            return false;
        };
        if slot.wrong_keys.load(Ordering::Relaxed) >= MAX_WRONG_KEYS {
            return false;
        }
        let fits = bool::from(slot.key.ct_eq(key));
        if fits {
            slot.raise(CANCEL);
        } else if slot.wrong_keys.fetch_add(1, Ordering::Relaxed) + 1 == MAX_WRONG_KEYS {
            log::keys_guessed(process);
        }
        fits
    }

    /// Tells every session, also those to come, to end at the next quiet moment.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        for slot in self.slots().values() {
            slot.raise(DRAIN);
        }
    }

    /// Wakes every session, to look around.
    pub fn wake_all(&self) {
        for slot in self.slots().values() {
            slot.waker.wake();
        }
    }

    /// Wakes the sessions that are overdue.
    pub(super) fn expire(&self, is_overdue: impl Fn(&Slot) -> bool) {
        for slot in self.slots().values().filter(|slot| is_overdue(slot)) {
            slot.raise(EXPIRED);
        }
    }

    /// A session has got a bound of its own, or keeps a connection for its sequences.
    pub(super) fn to_be_watched(&self) {
        self.watch.notify_one();
    }

    /// Ends when there is one, or has been since it ended last.
    pub(super) async fn watched(&self) {
        self.watch.notified().await;
    }

    /// Whether any session has a bound that it has set itself.
    pub(super) fn has_own_bounds(&self) -> bool {
        self.own_bounds.load(Ordering::Relaxed) > 0
    }

    /// Sessions connected.
    pub fn len(&self) -> usize {
        self.slots().len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The operating system gave no random numbers.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandomness;

/// Random bytes for the next keys: a small request costs the generator nearly as much as this many.
#[derive(Debug)]
struct Stock {
    bytes: [u8; 512],
    /// How many of them are left, at the front.
    left: usize,
}

impl Default for Stock {
    fn default() -> Stock {
        Stock {
            bytes: [0; 512],
            left: 0,
        }
    }
}

impl Stock {
    /// Fills `buffer` with bytes that nobody else gets, and of which nothing stays here.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), NoRandomness> {
        let mut rest = buffer;
        while !rest.is_empty() {
            if self.left == 0 {
                let random = SystemRandom::new();
                random.fill(&mut self.bytes).map_err(|_| NoRandomness)?;
                self.left = self.bytes.len();
            }
            let count = rest.len().min(self.left);
            let taken = &mut self.bytes[self.left - count..self.left];
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(taken);
            taken.fill(0);
            self.left -= count;
            rest = later;
        }
        Ok(())
    }
}

fn free_process(
    slots: &HashMap<i32, Arc<Slot>, foldhash::fast::RandomState>,
    random: &mut Stock,
) -> Result<i32, NoRandomness> {
    loop {
        let mut bytes = [0; 4];
        random.fill(&mut bytes)?;
        // Positive, because clients print it, and pg_basebackup refuses others.
        let process = i32::from_be_bytes(bytes) & i32::MAX;
        if process != 0 && !slots.contains_key(&process) {
            return Ok(process);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_fits_beside_its_task() {
        let counts = 2 * size_of::<usize>();
        assert!(counts + size_of::<Slot>() <= 104, "{}", size_of::<Slot>());
    }

    #[test]
    fn random_bytes_are_given_once() {
        let mut stock = Stock::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let mut key = [0; 32];
            stock.fill(&mut key).expect("random numbers");
            assert!(seen.insert(key));
            assert!(stock.bytes[stock.left..].iter().all(|byte| *byte == 0));
        }
        let mut long = [0; 1300];
        stock.fill(&mut long).expect("random numbers");
        assert!(
            long.chunks(100)
                .all(|part| part.iter().any(|byte| *byte != 0))
        );
    }

    #[test]
    fn a_cancel_needs_the_key() {
        let registry = Arc::new(Registry::default());
        let slot = registry.enter(None, 4).expect("random numbers");
        assert!(!registry.cancel(
            slot.process,
            &[slot.key[0] ^ 1, slot.key[1], slot.key[2], slot.key[3]]
        ));
        assert!(!registry.cancel(slot.process, &slot.key[..3]));
        assert!(!slot.take_cancel());
        assert!(registry.cancel(slot.process, &slot.key));
        assert!(slot.take_cancel());
        assert!(!slot.take_cancel(), "it is taken once");
        let (process, key) = (slot.process, slot.key.clone());
        drop(slot);
        assert!(!registry.cancel(process, &key));
    }

    #[test]
    fn keys_bear_the_number_of_the_process() {
        let registry = Arc::new(Registry::new(Some(PeerId(300))));
        for length in [4, 32] {
            let a = registry.enter(None, length).expect("random numbers");
            let b = registry.enter(None, length).expect("random numbers");
            assert_eq!(key::issuer(&a.key), PeerId(300));
            assert!(registry.cancel(a.process, &a.key));
            assert!(a.take_cancel() && !b.take_cancel());
            assert!(!registry.cancel(key::forwarded(a.process), &a.key));
        }
    }

    #[test]
    fn a_key_is_not_guessed() {
        let registry = Arc::new(Registry::default());
        let slot = registry.enter(Some(77), 4).expect("random numbers");
        let key = u32::from_be_bytes(slot.key[..].try_into().expect("four bytes"));
        let guess = |n: u32| registry.cancel(77, &key.wrapping_add(n).to_be_bytes());
        for n in 1..u32::from(MAX_WRONG_KEYS) {
            assert!(!guess(n));
        }
        assert!(guess(0), "one more would be one too many");
        assert!(!guess(1) && !guess(0));
        let other = registry.enter(Some(78), 4).expect("random numbers");
        assert!(registry.cancel(78, &other.key));
    }

    #[test]
    fn process_ids_are_distinct_and_wishes_are_kept_if_free() {
        let registry = Arc::new(Registry::default());
        let a = registry.enter(Some(77), 32).expect("random numbers");
        let b = registry.enter(Some(77), 32).expect("random numbers");
        assert_eq!(a.process, 77);
        assert_ne!(b.process, 77);
        assert!(b.process > 0);
        assert_eq!(registry.len(), 2);
    }

    #[test]
    fn bounds_of_sessions_own_are_counted() {
        let registry = Arc::new(Registry::default());
        let bounds = Arc::new(SessionTimeouts::none());
        let a = registry.enter(None, 4).expect("random numbers");
        let b = registry.enter(None, 4).expect("random numbers");
        assert!(bounds.with_idle_limit(0).is_none());
        a.bound_by(bounds.with_idle_limit(5));
        b.bound_by(bounds.with_idle_limit(5));
        a.bound_by(bounds.with_idle_limit(7));
        a.bound_by(None);
        assert!(registry.has_own_bounds());
        drop(b);
        assert!(!registry.has_own_bounds());
    }

    #[test]
    fn late_sessions_drain_too() {
        let registry = Arc::new(Registry::default());
        let early = registry.enter(None, 4).expect("random numbers");
        registry.drain();
        assert!(early.draining());
        assert!(registry.enter(None, 4).expect("random numbers").draining());
    }
}
