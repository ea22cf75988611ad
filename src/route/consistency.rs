//! Read your writes: the position that a session's reads must reflect.
//!
//! A write costs nothing here but a note of the time at which it completed. The first read after it takes a sample of
//! the primary that was asked for later than that (routing.md §3.2 B): the sample covers the write, because the
//! insert position only grows. From then on a standby may serve the session once it has replayed the sample.

use std::time::Instant;

use crate::cluster::{NodeView, Position, View};

/// A session's floor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// A write completed at this time, and its position is not known yet.
    dirty: Option<Instant>,
    position: Option<Position>,
    incarnation: u64,
}

impl Floor {
    /// A write of the session completed at `at`: its ReadyForQuery had been received by then.
    pub fn wrote(&mut self, at: Instant) {
        self.dirty = Some(at);
    }

    /// Whether the session has not written at all.
    pub fn is_none(&self) -> bool {
        self.dirty.is_none() && self.position.is_none()
    }

    /// Takes a sample for what has been written, if there is one. False while there is none: no standby can be known
    /// to show the write.
    pub fn resolve(&mut self, view: &View) -> bool {
        if self.is_none() {
            return true;
        }
        if self.position.is_some() && self.incarnation != view.incarnation && view.primary.is_some()
        {
            // Another primary, or another timeline: how much of the old one it has cannot be told from positions. Any
            // sample of the new primary covers everything that it has of ours (routing.md §3.5).
            let Some(oldest) = view.samples.first() else {
                return false;
            };
            self.position = Some(oldest.position);
            self.incarnation = view.incarnation;
        }
        let Some(written) = self.dirty else {
            return true;
        };
        let covering = view.samples.partition_point(|sample| sample.sent < written);
        let Some(sample) = view.samples.get(covering) else {
            return false;
        };
        self.position = Some(sample.position);
        self.incarnation = view.incarnation;
        self.dirty = None;
        true
    }

    /// Whether a node shows everything that the session has written. [`Floor::resolve`] comes first.
    pub fn satisfied_by(&self, node: &NodeView) -> bool {
        self.satisfied_at(node.position)
    }

    /// The same of a node that is there, or further.
    pub fn satisfied_at(&self, position: Option<Position>) -> bool {
        match (self.dirty, self.position, position) {
            (Some(_), ..) => false,
            (None, None, _) => true,
            // Without the history of timelines only positions of one timeline can be compared.
            (None, Some(floor), Some(at)) => floor.timeline == at.timeline && floor.lsn <= at.lsn,
            (None, Some(_), None) => false,
        }
    }
}
