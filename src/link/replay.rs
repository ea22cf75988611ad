//! What has been sent and may have to be sent again, and which replies the client is not shown until that is out of the
//! question.
//!
//! The units are those that are on their way, in order, without a gap: if one of them cannot be kept, none is. So what
//! is taken back is everything that the connection still owes the client, and the order of replies stays as it was.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Statement;

/// Memory that stays with a connection on which nothing is kept.
const SPARE: usize = 16 * 1024;

/// Why a unit that a standby was given is run elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounce {
    /// It writes (25006).
    ReadOnly,
    /// Something that does not work during recovery, as reading an unlogged table does not.
    Unsupported,
    /// A table, column, function, type or schema is not there: the standby may not have replayed it yet.
    Undefined,
    /// Recovery needed what the statement was using.
    Conflict,
    /// The standby is being shut down.
    Shutdown,
    /// The connection has ended.
    Lost,
}

impl Bounce {
    /// Every value.
    pub const ALL: [Bounce; 6] = [
        Bounce::ReadOnly,
        Bounce::Unsupported,
        Bounce::Undefined,
        Bounce::Conflict,
        Bounce::Shutdown,
        Bounce::Lost,
    ];

    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Bounce::ReadOnly => "read_only",
            Bounce::Unsupported => "unsupported",
            Bounce::Undefined => "undefined",
            Bounce::Conflict => "conflict",
            Bounce::Shutdown => "shutdown",
            Bounce::Lost => "lost",
        }
    }

    /// Its place in [`Bounce::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether it says something of the standby and nothing of the statement, so that another standby may take it.
    pub fn is_of_the_node(self) -> bool {
        matches!(self, Bounce::Conflict | Bounce::Shutdown | Bounce::Lost)
    }
}

/// Why units are sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// The plan of a prepared statement has become stale. Nothing was executed.
    StalePlan,
    /// A standby has refused the first of them.
    Bounced(Refusal),
}

/// How a standby has refused a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind.
    pub bounce: Bounce,
    /// It is the statement's shape that does not belong on a standby.
    pub learned: bool,
    /// The function that the server names, if it does.
    pub function: Option<String>,
}

/// The units of one server connection that may be sent again.
#[derive(Debug, Default)]
pub struct Replay {
    bytes: Vec<u8>,
    /// Of those, the bytes of units that have been answered.
    answered: usize,
    /// One of the units may leave a portal open.
    leaves_open: bool,
    units: VecDeque<Unit>,
    /// The client has seen a part of the result of the unit in front.
    shown: bool,
    /// Replies to the unit in front that the client has not been shown.
    unseen: Vec<u8>,
    /// The units are taken back: what still comes for them is for nobody.
    again: Option<Again>,
    /// The server has said why it ends the session.
    doom: Option<Bounce>,
}

#[derive(Debug)]
struct Unit {
    len: usize,
    /// It runs elsewhere if its standby refuses it.
    bounces: bool,
    /// What the session's unnamed statement was before the unit changed it.
    unnamed: Option<Option<Arc<Statement>>>,
}

impl Replay {
    /// Whether no unit is kept.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Whether one unit is kept, and no more.
    pub fn is_alone(&self) -> bool {
        self.units.len() == 1
    }

    /// Bytes that are kept.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.answered
    }

    /// Whether any unit that is kept runs elsewhere if its standby refuses it.
    pub fn may_bounce(&self) -> bool {
        self.units.iter().any(|unit| unit.bounces)
    }

    /// Whether a unit that is kept may leave a portal open.
    pub fn leaves_open(&self) -> bool {
        self.leaves_open
    }

    /// Whether the unit that is being forwarded is kept for those behind it only.
    pub fn stays_put(&self) -> bool {
        self.units.back().is_some_and(|unit| !unit.bounces)
    }

    /// Keeps a unit that is being forwarded behind those that are kept.
    pub fn keep(&mut self, bytes: &[u8], bounces: bool, leaves_open: bool) {
        if self.units.is_empty() {
            self.clear();
            self.shown = false;
            self.leaves_open = false;
        } else if self.answered > self.len() {
            self.bytes.drain(..self.answered);
            self.answered = 0;
        }
        self.leaves_open |= leaves_open;
        self.bytes.extend_from_slice(bytes);
        self.units.push_back(Unit {
            len: bytes.len(),
            bounces,
            unnamed: None,
        });
    }

    /// A unit is being forwarded that cannot be sent again, or it turns out now: then none of those before it can.
    pub fn give_up(&mut self) {
        self.units.clear();
        self.clear();
    }

    /// The unit that is being forwarded stays if it is refused.
    pub fn stay(&mut self) {
        if let Some(unit) = self.units.back_mut() {
            unit.bounces = false;
        }
    }

    /// The unit that is being forwarded gives the session another unnamed statement in place of `old`.
    pub fn replaced(&mut self, old: &Option<Arc<Statement>>) {
        if let Some(unit) = self.units.back_mut() {
            unit.unnamed.get_or_insert_with(|| old.clone());
        }
    }

    /// What the unnamed statement was before the first of the units, if they have changed it.
    pub fn unnamed_before(&mut self) -> Option<Option<Arc<Statement>>> {
        self.units.iter_mut().find_map(|unit| unit.unnamed.take())
    }

    /// The unit in front has been answered.
    pub fn answered(&mut self) {
        if let Some(unit) = self.units.pop_front() {
            self.answered += unit.len;
        }
        self.shown = false;
        if self.units.is_empty() {
            self.clear();
        }
    }

    /// Whether the client has seen nothing of the unit in front, which runs elsewhere if it is refused.
    #[inline]
    pub fn holds(&self) -> bool {
        !self.shown && self.again.is_none() && self.units.front().is_some_and(|unit| unit.bounces)
    }

    /// The bytes of the unit in front.
    pub fn front(&self) -> &[u8] {
        let len = self.units.front().map_or(0, |unit| unit.len);
        self.bytes
            .get(self.answered..self.answered + len)
            .unwrap_or_default()
    }

    /// The client sees a part of the result of the unit in front: it stays where it is.
    pub fn show(&mut self) {
        self.shown = true;
    }

    /// Replies that the client has not been shown. Who shows them, empties it.
    pub fn unseen(&mut self) -> &mut Vec<u8> {
        &mut self.unseen
    }

    /// Whether there are any.
    pub fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// All units are to be sent again, once the connection has answered them. Nothing of that is for the client.
    pub fn begin_again(&mut self, again: Again) {
        self.unseen.clear();
        self.again = Some(again);
    }

    /// Whether the connection's answers are for nobody.
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.again.is_some()
    }

    /// Why the units are sent again, when all has been answered.
    pub fn drained(&mut self) -> Option<Again> {
        self.again.take()
    }

    /// The server ends the session, for this reason.
    pub fn doomed(&mut self, why: Bounce) {
        self.doom = Some(why);
    }

    /// How the unit in front was refused if the connection ends now, provided that it may run elsewhere.
    pub fn lost(&self) -> Option<Refusal> {
        match &self.again {
            Some(Again::Bounced(refusal)) => Some(refusal.clone()),
            Some(Again::StalePlan) => None,
            None => self.holds().then(|| Refusal {
                bounce: self.doom.unwrap_or(Bounce::Lost),
                learned: false,
                function: None,
            }),
        }
    }

    /// Takes the units back: their bytes as the client sent them, and how many of those are the first unit's.
    pub fn take(&mut self) -> (Vec<u8>, usize) {
        let first = self.units.front().map_or(0, |unit| unit.len);
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..self.answered);
        *self = Replay::default();
        (bytes, first)
    }

    fn clear(&mut self) {
        self.answered = 0;
        if self.bytes.capacity() > SPARE {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_leave_in_order() {
        let mut replay = Replay::default();
        replay.keep(b"one", true, false);
        replay.keep(b"second", true, false);
        replay.answered();
        assert!(replay.holds() && replay.is_alone());
        replay.keep(b"3", false, false);
        assert_eq!(replay.len(), 7);
        assert_eq!(replay.take(), (b"second3".to_vec(), 6));
        assert!(replay.is_empty() && !replay.holds());
    }

    #[test]
    fn memory_is_given_back() {
        let mut replay = Replay::default();
        replay.keep(&[b'x'; 2 * SPARE], true, false);
        replay.answered();
        assert_eq!(replay.bytes.capacity(), 0);
        // While something is always on its way, what has been answered goes, too.
        replay.keep(&[b'x'; 100], true, false);
        for _ in 0..100 {
            replay.keep(&[b'x'; 100], true, false);
            replay.answered();
        }
        assert!(replay.bytes.capacity() < 1000);
        assert_eq!(replay.len(), 100);
    }

    #[test]
    fn what_has_been_shown_stays() {
        let mut replay = Replay::default();
        replay.keep(b"one", true, false);
        replay.show();
        assert_eq!(replay.lost(), None);
        replay.answered();
        replay.keep(b"two", true, false);
        replay.doomed(Bounce::Conflict);
        let bounce = replay.lost().map(|refusal| refusal.bounce);
        assert_eq!(bounce, Some(Bounce::Conflict));
        replay.give_up();
        assert_eq!(replay.lost(), None);
    }
}
