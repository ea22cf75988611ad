//! Statements that were taken for reads and are none: a standby has refused one of their shape.
//!
//! The classifier's cache says so, too, and is asked first. What is here outlives the entry there. Another database may have
//! something else by the same names.

use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// What the shapes may take, in bytes. The least recently met ones go first; they are learned again at the cost of one
/// refusal.
const MAX_BYTES: u64 = 1 << 20;

/// What an entry takes beside its key.
const ENTRY: u64 = 64;

/// The shapes, as the classifier's keys, each with the number of its database.
#[derive(Debug)]
pub(super) struct Learned {
    shapes: Cache<Box<[u8]>, (), ByBytes, foldhash::fast::RandomState>,
    times: AtomicU64,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Box<[u8]>, ()> for ByBytes {
    fn weight(&self, key: &Box<[u8]>, (): &()) -> u64 {
        key.len() as u64 + ENTRY
    }
}

impl Learned {
    pub(super) fn new() -> Learned {
        let hasher = foldhash::fast::RandomState::default();
        Learned {
            shapes: Cache::with(4096, MAX_BYTES, ByBytes, hasher, Default::default()),
            times: AtomicU64::new(0),
        }
    }

    pub(super) fn insert(&self, key: &[u8], database: u64) {
        self.shapes.insert(within(key, database).into(), ());
    }

    /// Something has been learned, and whoever asks from now on is to see it.
    pub(super) fn note(&self) {
        self.times.fetch_add(1, Ordering::Release);
    }

    /// How often something has been learned: what was seen before is told by it from what holds now.
    #[inline]
    pub(super) fn times(&self) -> u64 {
        self.times.load(Ordering::Acquire)
    }

    pub(super) fn contains(&self, key: &[u8], database: u64) -> bool {
        !self.shapes.is_empty() && self.shapes.get(within(key, database).as_slice()).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.shapes.len()
    }
}

fn within(key: &[u8], database: u64) -> Vec<u8> {
    [key, &database.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_bounded() {
        let learned = Learned::new();
        for i in 0..20_000 {
            learned.insert(format!("select f{i} from t where x = $").as_bytes(), 1);
        }
        assert!(learned.contains(b"select f19999 from t where x = $", 1));
        assert!(!learned.contains(b"select f19999 from t where x = $", 2));
        assert!(
            learned.len() as u64 <= MAX_BYTES / ENTRY,
            "{}",
            learned.len()
        );
        assert!(learned.len() > 1000, "{}", learned.len());
    }
}
