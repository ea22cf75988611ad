//! What statements come to: each unit's time and bytes, counted by the shape of its statement when it has been answered.
//!
//! A unit's time is from its being sent, or from the end of the one before it in a pipeline, to its ReadyForQuery. Where
//! the clock has been read to place the unit, that reading is its beginning.

use std::collections::VecDeque;
use std::time::Instant;

use super::run::Relay;
use crate::session::Received;
use crate::sql::{Call, Class, ShapeId};

/// Units that have been sent and not been answered, by the shapes of their statements.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The one that the server is at; none if nothing is on its way, or nothing is counted.
    front: Option<ShapeId>,
    /// Those behind it, of clients that pipeline. No more than the server connection owes replies for.
    rest: VecDeque<ShapeId>,
    /// When the front one began.
    since: Option<Instant>,
    /// Bytes that the client was sent since then.
    bytes: u64,
}

impl Calls {
    /// The clock has been read for the unit that is about to be sent.
    #[inline]
    pub(super) fn note_time(&mut self, now: Instant) {
        if self.front.is_none() {
            self.since = Some(now);
        }
    }

    pub(super) fn forget_time(&mut self) {
        if self.front.is_none() {
            self.since = None;
        }
    }

    #[inline]
    pub(super) fn note_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn sent(&mut self, shape: ShapeId) {
        if self.front.is_some() {
            self.rest.push_back(shape);
            return;
        }
        self.front = Some(shape);
        self.bytes = 0;
        if shape != ShapeId::NONE && self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    /// Takes the oldest unit out, which has been answered: its shape and what it came to.
    fn ended(&mut self, standby: bool) -> Option<(ShapeId, Call)> {
        let shape = self.front.take()?;
        let since = self.since.take();
        let bytes = std::mem::take(&mut self.bytes);
        let next = self.rest.pop_front();
        if self.rest.is_empty() && self.rest.capacity() > 0 {
            // Its memory goes back: few clients pipeline, and those that are idle have no use for it.
            self.rest = VecDeque::new();
        }
        if shape == ShapeId::NONE && next.is_none() {
            return Some((shape, Call::default()));
        }
        let now = Instant::now();
        self.front = next;
        self.since = next.map(|_| now);
        let passed = since.map_or(0, |since| now.saturating_duration_since(since).as_nanos());
        let call = Call {
            standby,
            nanoseconds: u64::try_from(passed).unwrap_or(u64::MAX),
            bytes,
        };
        Some((shape, call))
    }
}

impl Relay {
    /// A unit has been sent. `first` says that nothing else is owed to the client: what is noted of units that have not
    /// been answered is of such that never will be.
    #[inline]
    pub(super) fn note_call(&mut self, class: Class, first: bool) {
        if !self.shared.classifier.shapes().counts() {
            return;
        }
        if first && self.calls.front.is_some() {
            self.calls = Calls::default();
        }
        self.calls.sent(class.shape);
    }

    /// Units have been answered, or refused by a standby.
    #[inline]
    pub(super) fn count_calls(&mut self, received: &Received, standby: bool) {
        let shapes = self.shared.classifier.shapes();
        if received.refused
            && let Some(shape) = self.calls.front
        {
            shapes.count_bounce(shape);
        }
        for _ in 0..received.units {
            self.count_call(standby);
        }
    }

    /// A unit has been answered.
    #[inline]
    pub(super) fn count_call(&mut self, standby: bool) {
        if let Some((shape, call)) = self.calls.ended(standby) {
            self.shared.classifier.shapes().count(shape, call);
        }
    }
}
