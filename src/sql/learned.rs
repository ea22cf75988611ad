//! Statements that were taken for reads and are none: a standby has refused one of their shape.
//!
//! The classifier's cache says so, too, and is asked first. What is here outlives the entry there. Another database may have
//! something else by the same names.

use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// What the shapes may take, in bytes. The least recently met ones go first; they are learned again at the cost of one
/// refusal.
const MAX_BYTES: u64 = 1 << 20;

/// What an entry takes beside its key.
const ENTRY: u64 = 64;

/// The shapes, as the classifier's keys, each with the number of its database.
#[derive(Debug)]
pub(super) struct Learned(Cache<Box<[u8]>, (), ByBytes, foldhash::fast::RandomState>);

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
        Learned(Cache::with(
            4096,
            MAX_BYTES,
            ByBytes,
            hasher,
            Default::default(),
        ))
    }

    pub(super) fn insert(&self, key: &[u8], database: u64) {
        self.0.insert(within(key, database).into(), ());
    }

    pub(super) fn contains(&self, key: &[u8], database: u64) -> bool {
        !self.0.is_empty() && self.0.get(within(key, database).as_slice()).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
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
