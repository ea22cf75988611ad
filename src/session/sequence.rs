//! `currval` and `lastval` where sessions share server connections: nobody is told another session's values.
//!
//! A server answers both from what nextval gave last on that connection, whoever called it. So each connection knows who may
//! have called it last, and before a session asks on one that is not its own, or writes there once anybody asks at all,
//! DISCARD SEQUENCES goes first: the server then says itself that there is no value yet. PostgreSQL manual,
//! functions-sequence.html and sql-discard.html.
//!
//! That a session finds its own values again takes that it keeps its connection: from a nextval, or any write once somebody
//! has asked, up to its next unit that does not ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::front::{Frames, Next};
use super::{Session, between_units};
use crate::config::CurrvalPolicy;
use crate::link::{Link, SequenceMark};
use crate::sql::{Access, Class, PinReason, Pins, Reason, TxEffect};
use crate::wire::{Notice, SqlState, Status, backend};

/// The content of a Parse of what takes a connection's values away.
pub(super) const DISCARD_SEQUENCES: &[u8] = b"DISCARD SEQUENCES\0\0\0";

/// What a client is told besides whose values have been given back with their connection.
const GIVEN_BACK: &str = "The server connection on which this session called nextval has been given back to its pool. \
    It is kept up to the next statement that does not ask for the value, and for a second at most: see pool.currval of \
    the proxy. Use INSERT … RETURNING, or one transaction block.";

/// What the sessions of a database and user share about it.
#[derive(Debug, Default)]
pub struct SequenceTalk {
    /// One of them has asked for what nextval gave last.
    asked: AtomicBool,
    /// Sessions that have been numbered.
    sessions: AtomicU64,
}

/// What a session knows of its sequences.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    /// `None` where it does not matter: in session pooling, and if values may be anybody's.
    talk: Option<Arc<SequenceTalk>>,
    rejects: bool,
    /// The connection that bears this is the last on which the session may have called nextval.
    mark: SequenceMark,
    /// The session has written on its connection since it was placed there.
    here: bool,
    /// What it has asked for last was not on its connection any more.
    given_back: bool,
}

impl Sequences {
    /// A unit is placed.
    #[inline]
    pub(super) fn placed(&mut self) {
        self.here = false;
    }
}

impl Session {
    /// A session that shares server connections with others, under this policy.
    #[must_use]
    pub fn with_sequences(mut self, policy: CurrvalPolicy, talk: &Arc<SequenceTalk>) -> Session {
        if policy != CurrvalPolicy::Allow {
            self.sequences.rejects = policy == CurrvalPolicy::Reject;
            self.sequences.talk = Some(talk.clone());
            self.follow_sequences(talk);
        }
        self
    }

    /// The session goes on with other pools, and has nothing on a connection of its own.
    pub fn follow_sequences(&mut self, talk: &Arc<SequenceTalk>) {
        if self.sequences.talk.is_some() {
            let session = talk.sessions.fetch_add(1, Ordering::Relaxed) + 1;
            self.sequences.mark = SequenceMark::new(session);
            self.sequences.talk = Some(talk.clone());
        }
    }

    /// A statement is about to be sent. True if DISCARD SEQUENCES has to go before it.
    #[inline]
    pub(super) fn note_sequences(&mut self, class: Class, link: &mut Link) -> bool {
        let concerns = class.access == Access::Write || class.uses_sequence();
        concerns && self.sequences.talk.is_some() && self.note_sequences_of(class, link)
    }

    fn note_sequences_of(&mut self, class: Class, link: &mut Link) -> bool {
        let Sequences {
            talk: Some(talk),
            rejects,
            mark,
            here,
            given_back,
        } = &mut self.sequences
        else {
            return false;
        };
        let is_refused = link.status == Status::Failed && !link.committing;
        if link.on_standby || is_refused || link.owing.skipping() {
            return false;
        }
        let uses = class.uses_sequence();
        if uses {
            talk.asked.store(true, Ordering::Relaxed);
        }
        let matters = class.calls_nextval() || talk.asked.load(Ordering::Relaxed);
        let is_own = link.sequences.is(*mark);
        if uses {
            *given_back = !is_own && mark.is_used();
        }
        let is_foreign = if is_own {
            // In one go with its own writes, which nobody has told apart from what was there before.
            link.sequences.is_mixed() && !*here
        } else {
            !link.sequences.is_nobodys()
        };
        let discards = matters && is_foreign;
        if discards {
            link.sequences = SequenceMark::default();
        }
        if class.access == Access::Write {
            *here = true;
            if !link.sequences.is(*mark) {
                link.sequences = mark.renewed(!link.sequences.is_nobodys());
            }
            if matters && !*rejects {
                self.pinned.pin(PinReason::Sequence);
            }
        }
        discards
    }

    /// A statement has been prepared that asks, and so it will.
    #[inline]
    pub(super) fn note_prepared(&self, class: Class) {
        if class.uses_sequence()
            && let Some(talk) = &self.sequences.talk
        {
            talk.asked.store(true, Ordering::Relaxed);
        }
    }

    /// A unit of this class begins: the connection has been kept long enough, unless the unit asks for its values.
    #[inline]
    pub(super) fn end_sequence_pin(
        &mut self,
        class: Class,
        held: Option<(&Link, bool)>,
    ) -> Option<Next> {
        if !self.pins().has(PinReason::Sequence) {
            return None;
        }
        let goes_on = class.uses_sequence() || class.access == Access::Empty;
        let in_block = held.is_some_and(|(link, _)| {
            link.status != Status::Idle || link.beginning || self.is_in_sent_block()
        });
        if goes_on || in_block {
            return None;
        }
        self.pinned.end(PinReason::Sequence);
        let is_free = held.is_some_and(|(link, _)| between_units(link));
        is_free.then_some(Next::Release)
    }

    /// Whether all that the session keeps its connection for is a nextval, and nobody has ever asked what one gave.
    #[inline]
    pub fn is_pinned_in_hope(&self) -> bool {
        let asked = |talk: &Arc<SequenceTalk>| talk.asked.load(Ordering::Relaxed);
        self.pins() == Pins::NONE.with(PinReason::Sequence)
            && !self.sequences.talk.as_ref().is_some_and(asked)
    }

    /// Nobody has asked for a while. True if there was such a pin.
    pub fn lapse_sequence_pin(&mut self) -> bool {
        let was_pinned = self.pins().has(PinReason::Sequence);
        self.pinned.end(PinReason::Sequence);
        was_pinned
    }

    /// Whether a unit has to wait for what is on its way: it is known then whether it stands in a transaction block, and
    /// whether others' values have been taken away, which fails in one that has failed.
    #[inline]
    pub(super) fn waits_to_ask(&self, class: Class) -> bool {
        class.uses_sequence() && self.sequences.talk.is_some()
    }

    /// What the client is told whose unit, outside of a transaction block, asks for values that nobody keeps. What is only
    /// prepared may be executed inside of one.
    pub fn refuses_currval(&self, unit: &[u8], class: Class) -> Option<Notice> {
        let runs = || Frames(unit).any(|(header, _)| matches!(header.tag, b'Q' | b'B'));
        let is_refused = self.sequences.rejects
            && class.uses_sequence()
            && class.tx == TxEffect::None
            && class.reason != Reason::Ddl
            && !self.is_in_unsent_block()
            && runs();
        is_refused.then(|| {
            Notice::error(
                SqlState::FeatureNotSupported,
                "currval and lastval not allowed outside of a transaction block with pool.currval = reject",
            )
            .hint("Use INSERT … RETURNING, or, in transaction pooling, one transaction block with the nextval. Set pool.currval to pin for more.")
        })
    }

    /// The error of a server that has no value for the session, with a word about why.
    pub(super) fn in_words_of_sequences(&self, body: &[u8]) -> Option<Vec<u8>> {
        let field = |name| backend::error_field(body, name);
        let is_it = self.sequences.given_back
            && field(b'C') == Some(b"55000")
            && matches!(field(b'R'), Some(b"lastval" | b"currval_oid"));
        let fields = body.strip_suffix(b"\0").filter(|_| is_it)?;
        Some([fields, b"H", GIVEN_BACK.as_bytes(), b"\0\0"].concat())
    }
}
