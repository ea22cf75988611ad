//! Bounds that several pools of a node share: on the connections of the node, of a database there, of a user there.
//!
//! A server connection holds a place under each bound that counts for it, from before it is opened until it is closed.
//! Who finds a bound reached first has another pool's idle connection closed; if there is none, the next connection
//! that comes back to a pool with nobody waiting makes room.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Inner;
use crate::metrics::IntCounter;

/// What a bound is about, on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Shared {
    /// All connections of pools.
    Node,
    /// Those to a database, by the name that clients know.
    Database(Box<str>),
    /// Those of a user.
    User(Box<str>),
}

/// One bound.
#[derive(Debug)]
struct Cap {
    /// What the bound is. Changes while the map of bounds is locked.
    most: AtomicUsize,
    places: Arc<Semaphore>,
    /// Places that are taken and will not be there again, since the bound was lowered.
    lost: AtomicUsize,
    /// Clients that wait for a place.
    starving: AtomicUsize,
}

impl Cap {
    /// Makes the bound another one; called with the map of bounds locked. Connections beyond it stay until they are
    /// closed, and nobody takes their places.
    fn resize(&self, most: usize) {
        let before = self.most.swap(most, Ordering::Relaxed);
        let mut more = most.saturating_sub(before);
        while more > 0 && self.takes_loss() {
            more -= 1;
        }
        self.places.add_permits(more);
        let less = before.saturating_sub(most);
        let forgotten = self.places.forget_permits(less);
        self.lost.fetch_add(less - forgotten, Ordering::Relaxed);
    }

    /// One of the places that will not be there again, if there are any.
    fn takes_loss(&self) -> bool {
        let less = |lost: usize| lost.checked_sub(1);
        self.lost
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }
}

/// The bounds and the pools of one node.
#[derive(Debug)]
pub struct Ledger {
    caps: Mutex<HashMap<Shared, Arc<Cap>>>,
    pools: Mutex<Vec<Entry>>,
    evictions: IntCounter,
}

/// A pool that connections can be taken from.
#[derive(Debug)]
struct Entry {
    database: Box<str>,
    /// Its name on the node.
    on_node: Box<str>,
    user: Box<str>,
    pool: Weak<Inner>,
}

impl Entry {
    fn counts_for(&self, shared: &Shared) -> bool {
        match shared {
            Shared::Node => true,
            Shared::Database(database) => *database == self.database,
            Shared::User(user) => *user == self.user,
        }
    }
}

impl Ledger {
    /// A node without bounds or pools. `evictions` counts connections closed for other pools' sake.
    pub fn new(evictions: IntCounter) -> Ledger {
        Ledger {
            caps: Mutex::default(),
            pools: Mutex::default(),
            evictions,
        }
    }

    /// Enters a pool, so that others may take its idle connections.
    pub(super) fn enter(&self, [database, on_node, user]: [&str; 3], pool: Weak<Inner>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|entry| entry.pool.strong_count() > 0);
        pools.push(Entry {
            database: database.into(),
            on_node: on_node.into(),
            user: user.into(),
            pool,
        });
    }

    /// Closes all connections to a database of the node that nobody uses.
    pub(super) fn vacate(&self, on_node: &str) {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let all = pools.iter().filter(|entry| *entry.on_node == *on_node);
        for pool in all.filter_map(|entry| entry.pool.upgrade()) {
            pool.retain_idle(|_| false);
        }
    }

    fn cap(&self, shared: &Shared, most: usize) -> Arc<Cap> {
        let mut caps = self.caps.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Cap {
                most: AtomicUsize::new(most),
                places: Arc::new(Semaphore::new(most)),
                lost: AtomicUsize::new(0),
                starving: AtomicUsize::new(0),
            })
        };
        let cap = caps.entry(shared.clone()).or_insert_with(new).clone();
        cap.resize(most);
        cap
    }

    /// Closes the connection that has been idle for longest of those that count for a bound.
    fn evict(&self, shared: &Shared) {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = pools
            .iter()
            .filter(|entry| entry.counts_for(shared))
            .filter_map(|entry| entry.pool.upgrade())
            .filter_map(|pool| Some((idle_since(&pool)?, pool)))
            .min_by_key(|(since, _)| *since);
        drop(pools);
        if let Some((_, pool)) = oldest {
            let mut found = false;
            let closed = pool.retain_idle(|_| std::mem::replace(&mut found, true));
            self.evictions.inc_by(closed as u64);
        }
    }
}

/// Since when the connection that has been idle for longest is; `None` if none is idle.
fn idle_since(pool: &Inner) -> Option<Instant> {
    pool.line().shelf().first().map(|member| member.used)
}

/// The bounds that count for one pool.
#[derive(Debug, Default)]
pub(super) struct Caps {
    caps: Vec<(Shared, Arc<Cap>)>,
    /// Connections that have come back while somebody starved and the pool had waiters of its own.
    kept: AtomicU32,
}

/// One place under each bound of a pool, for as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Slot(Vec<(Arc<Cap>, OwnedSemaphorePermit)>);

impl Drop for Slot {
    fn drop(&mut self) {
        for (cap, place) in self.0.drain(..) {
            if cap.takes_loss() {
                place.forget();
            }
        }
    }
}

/// While others starve for a place, one connection of so many makes room although its own pool has waiters.
const SHARE: u32 = 16;

impl Caps {
    pub(super) fn new(ledger: &Ledger, bounds: &[(Shared, usize)]) -> Caps {
        let caps = bounds
            .iter()
            .map(|(shared, most)| (shared.clone(), ledger.cap(shared, *most)))
            .collect();
        Caps {
            caps,
            kept: AtomicU32::new(0),
        }
    }

    /// A place under each bound, if there is one now.
    pub(super) fn try_slot(&self) -> Option<Slot> {
        let mut slot = Slot::default();
        for (_, cap) in &self.caps {
            let place = cap.places.clone().try_acquire_owned().ok()?;
            slot.0.push((cap.clone(), place));
        }
        Some(slot)
    }

    /// A place under each bound, in the order of asking. The order of bounds is the same for all, so that no two wait for
    /// each other.
    pub(super) async fn slot(&self, ledger: &Ledger) -> Slot {
        let mut slot = Slot(Vec::with_capacity(self.caps.len()));
        for (shared, cap) in &self.caps {
            // Before the look for idle ones: what comes back after it makes room by itself.
            let _starving = Counted::new(&cap.starving);
            if cap.places.available_permits() == 0 {
                ledger.evict(shared);
            }
            if let Ok(place) = cap.places.clone().acquire_owned().await {
                slot.0.push((cap.clone(), place));
            }
        }
        slot
    }

    /// Whether a connection that has come back is to be closed, because another pool has none and may not open one.
    pub(super) fn gives_way(&self, has_waiters: bool) -> bool {
        self.caps
            .iter()
            .any(|(_, cap)| cap.starving.load(Ordering::Relaxed) > 0)
            && (!has_waiters || self.kept.fetch_add(1, Ordering::Relaxed) % SHARE == SHARE - 1)
    }
}

/// Counts one for as long as it lives.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    pub(super) fn new(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let evictions = IntCounter::new("evictions", "for the test").expect("a valid name");
        Ledger::new(evictions)
    }

    fn caps(ledger: &Ledger, most: usize) -> Caps {
        Caps::new(ledger, &[(Shared::Node, most)])
    }

    #[test]
    fn a_bound_that_is_lowered_waits_for_what_is_open() {
        let ledger = ledger();
        let before = caps(&ledger, 3);
        let mut slots: Vec<_> = (0..3)
            .map(|_| before.try_slot().expect("a place"))
            .collect();
        assert!(before.try_slot().is_none());
        let after = caps(&ledger, 1);
        slots.truncate(1);
        assert!(
            after.try_slot().is_none(),
            "the one that is left is the one"
        );
        assert!(
            before.try_slot().is_none(),
            "also of those who knew the old bound"
        );
        slots.clear();
        let one = after.try_slot().expect("a place");
        assert!(after.try_slot().is_none());
        drop(one);
        // Raised again, also while places are still to be lost.
        let held = after.try_slot().expect("a place");
        let _none = caps(&ledger, 0);
        let two = caps(&ledger, 2);
        let second = two.try_slot().expect("a place");
        assert!(two.try_slot().is_none());
        drop((held, second));
        assert_eq!([(); 3].map(|()| two.try_slot()).iter().flatten().count(), 2);
    }
}
