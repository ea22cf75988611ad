//! Who is connected: the way for a cancel request, or the shutdown, to reach the task of one session.
//!
//! A cancel request is not sent to a server from here: the session's own task does it, because only that task knows
//! what the client runs at this moment, and keeps the server connection to itself until the cancel has arrived.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atomic_waker::AtomicWaker;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use hashbrown::HashMap;
use subtle::ConstantTimeEq;

use super::timeouts::Noted;

const CANCEL: u8 = 1;
const DRAIN: u8 = 2;
const EXPIRED: u8 = 4;

/// One session's mailbox.
#[derive(Debug)]
pub struct Slot {
    /// The process id that the client was told.
    pub process: i32,
    /// The key that the client was told.
    pub key: Box<[u8]>,
    flags: AtomicU8,
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

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.slots().remove(&self.slot.process);
    }
}

/// All sessions of the process.
#[derive(Debug, Default)]
pub struct Registry {
    slots: Mutex<HashMap<i32, Arc<Slot>, foldhash::fast::RandomState>>,
    draining: AtomicBool,
}

impl Registry {
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
        let random = SystemRandom::new();
        let mut key = vec![0; key_length].into_boxed_slice();
        random.fill(&mut key).map_err(|_| NoRandomness)?;
        let mut slots = self.slots();
        let process = match process.filter(|process| *process > 0 && !slots.contains_key(process)) {
            Some(process) => process,
            None => free_process(&slots, &random)?,
        };
        let flags = AtomicU8::new(if self.draining.load(Ordering::Acquire) {
            DRAIN
        } else {
            0
        });
        let slot = Arc::new(Slot {
            process,
            key,
            flags,
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
        let fits = bool::from(slot.key.ct_eq(key));
        if fits {
            slot.raise(CANCEL);
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

    /// Wakes the sessions that are overdue.
    pub(super) fn expire(&self, is_overdue: impl Fn(&Slot) -> bool) {
        for slot in self.slots().values().filter(|slot| is_overdue(slot)) {
            slot.raise(EXPIRED);
        }
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

fn free_process(
    slots: &HashMap<i32, Arc<Slot>, foldhash::fast::RandomState>,
    random: &SystemRandom,
) -> Result<i32, NoRandomness> {
    loop {
        let mut bytes = [0; 4];
        random.fill(&mut bytes).map_err(|_| NoRandomness)?;
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
    fn late_sessions_drain_too() {
        let registry = Arc::new(Registry::default());
        let early = registry.enter(None, 4).expect("random numbers");
        registry.drain();
        assert!(early.draining());
        assert!(registry.enter(None, 4).expect("random numbers").draining());
    }
}
