//! The thread's buffer for messages that are rewritten on their way.

use std::cell::Cell;

/// What a thread keeps between uses; anything larger is given back.
const KEEP: usize = 256 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends an empty buffer. Nested use gets a fresh one.
pub(super) fn compose<R>(use_it: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = BUFFER.take();
    buffer.clear();
    let result = use_it(&mut buffer);
    if buffer.capacity() <= KEEP {
        BUFFER.set(buffer);
    }
    result
}
