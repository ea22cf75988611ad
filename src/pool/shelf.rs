//! The connections of a pool that nobody uses.

use std::sync::Mutex;

use deadpool::managed::Object;

use super::manager::Member;
use super::{Manager, lock};

/// Connections that nobody uses, as deadpool has handed them out: its own way to an idle one is a future that reads the
/// clock for its statistics, which weighs on every transaction.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Vec<Object<Manager>>>);

impl Shelf {
    /// Puts a connection back.
    pub(super) fn put(&self, object: Object<Manager>) {
        lock(&self.0).push(object);
    }

    /// The connection that was put back last: its caches are warm, and the others can age out.
    pub(super) fn take(&self) -> Option<Object<Manager>> {
        lock(&self.0).pop()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// Closes those that are not to stay, and tells how many. The one that has been idle for longest is asked about first.
    pub(super) fn retain(&self, mut stays: impl FnMut(&Member) -> bool) -> usize {
        let leaving: Vec<_> = lock(&self.0)
            .extract_if(.., |object| !stays(object))
            .collect();
        // Not while the lock is held: closing is a system call.
        let count = leaving.len();
        leaving
            .into_iter()
            .for_each(|object| drop(Object::take(object)));
        count
    }
}
