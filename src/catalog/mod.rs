//! What each database's own objects may do, kept up to date from its primary.
//!
//! One task for each database that has clients loads its catalog, again after every change that a session has made or that
//! the optional event trigger tells of, after a failover, when statements name what it lacks, and when its time is
//! over. Sessions read it without a lock. From a change until the next load nothing is known, and everything with a
//! user's name goes to the primary (routing.md §2.5).

mod keep;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;

pub use keep::{Source, keep};

use crate::sql::catalog::{Catalog, Change};

/// The catalog of one database, as sessions see it.
#[derive(Debug)]
pub struct Watched {
    database: u64,
    current: ArcSwap<Catalog>,
    /// What has changed so far. A load that began before the last change is not to be trusted.
    changes: Mutex<u64>,
    /// A statement has named something that the catalog lacks.
    missed: AtomicBool,
    bell: Arc<Notify>,
}

impl Watched {
    /// Of the database of this number, which nothing is known of yet.
    pub fn new(database: u64) -> Watched {
        Watched {
            database,
            current: ArcSwap::from_pointee(Catalog::unknown().of(database)),
            changes: Mutex::default(),
            missed: AtomicBool::new(false),
            bell: Arc::default(),
        }
    }

    /// What is known now.
    pub fn current(&self) -> Guard<Arc<Catalog>> {
        self.current.load()
    }

    /// The database has changed: until it has been loaded again, what may mean something else is not known.
    pub fn changed(&self, change: Change) {
        if change == Change::None {
            return;
        }
        let mut changes = self.lock();
        *changes += 1;
        if change > Change::Added {
            let known = self.current.load();
            let unknown = Catalog::unknown().of(self.database).behind(&known);
            self.current.store(Arc::new(unknown));
        }
        drop(changes);
        self.bell.notify_one();
    }

    /// It could not be loaded.
    fn failed(&self) {
        let _changes = self.lock();
        if let Some(unreadable) = self.current.load().unreadable() {
            self.current.store(Arc::new(unreadable));
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it has changed so far.
    fn changes(&self) -> u64 {
        *self.lock()
    }

    /// A statement has named something that the catalog lacks: it may be new.
    pub fn missed(&self) {
        if !self.missed.swap(true, Ordering::Relaxed) {
            self.bell.notify_one();
        }
    }

    /// Takes what was loaded after `changes`. False if more has changed since.
    fn publish(&self, catalog: Catalog, changes: u64) -> bool {
        let now = self.lock();
        if *now != changes {
            return false;
        }
        if !self.current.load().says_the_same(&catalog) {
            self.current.store(Arc::new(catalog.of(self.database)));
        }
        true
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::catalog::Trust;

    fn empty() -> Catalog {
        let rows: [Vec<Option<String>>; 0] = [];
        Catalog::build(&rows, &Trust::default()).expect("no rows")
    }

    #[test]
    fn a_load_that_a_change_overtook_is_not_trusted() {
        let watched = Watched::new(1);
        assert!(!watched.current().is_known());
        let before = watched.changes();
        assert!(watched.publish(empty(), before));
        assert!(watched.current().is_known());
        let epoch = watched.current().epoch();
        assert!(watched.publish(empty(), before));
        assert_eq!(watched.current().epoch(), epoch, "it says the same");
        watched.changed(Change::None);
        assert!(watched.current().is_known());
        watched.changed(Change::Added);
        assert!(watched.current().is_known(), "what is new is missing");
        assert!(!watched.publish(empty(), before), "it was overtaken");
        let now = watched.changes();
        assert!(watched.publish(empty(), now));
        watched.changed(Change::Names);
        assert!(!watched.current().is_known());
    }
}
