//! Why a session keeps its server connection, and for how long.
//!
//! A pin begins when a statement is sent that may leave something on its connection. Its end is measured, never guessed:
//! once everything has been answered, the server itself is asked what is left. That happens behind the ReadyForQuery of
//! a unit that may have changed the answer, and nobody waits for it: what the client sends in the meantime follows on the
//! same connection.

use super::Session;
use crate::link::{Link, Owed};
use crate::sql::{Class, PinReason, Pins, SessionEffect, may_end_pin};
use crate::wire::{backend, frontend};

/// The reasons of one session, and what is known of their end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pinned {
    reasons: Pins,
    /// Reasons that have come since the server was asked: its answer says nothing of them.
    fresh: Pins,
    /// Something has been sent since the last question that may have ended one.
    due: bool,
    /// A question is on its way.
    asking: bool,
}

impl Pinned {
    pub(super) fn reasons(self) -> Pins {
        self.reasons
    }

    /// One more reason. It may be gone with its transaction, or never have come to be, so the server is asked at the next
    /// quiet moment.
    pub(super) fn pin(&mut self, reason: PinReason) {
        self.due |= Pins::MAY_END.has(reason) && (self.asking || !self.reasons.has(reason));
        self.reasons = self.reasons.with(reason);
        self.fresh = self.fresh.with(reason);
    }

    /// A statement is sent that may end one.
    pub(super) fn may_end(&mut self) {
        self.due |= !self.askable().is_empty();
    }

    /// A reason is gone, and no server had to be asked.
    pub(super) fn end(&mut self, reason: PinReason) {
        self.reasons = self.reasons.without(Pins::NONE.with(reason));
    }

    /// Whether any of them can end before the session.
    pub(super) fn askable(self) -> Pins {
        Pins::MAY_END.without(Pins::MAY_END.without(self.reasons))
    }

    fn ask(&mut self) -> Option<Pins> {
        let asked = self.askable();
        if !std::mem::take(&mut self.due) || asked.is_empty() {
            return None;
        }
        self.asking = true;
        self.fresh = Pins::NONE;
        Some(asked)
    }

    fn answered(&mut self, asked: Pins, left: Pins) {
        let ended = asked.without(left).without(self.fresh);
        self.reasons = self.reasons.without(ended);
    }

    /// The answer is complete, or there is none: then everything stays as it is.
    pub(super) fn asked(&mut self) {
        self.asking = false;
    }

    /// Nothing is left.
    pub(super) fn clear(&mut self) {
        *self = Pinned::default();
    }
}

impl Session {
    /// Why the session must keep its server connection, every reason.
    pub fn pins(&self) -> Pins {
        self.pinned.reasons()
    }

    /// Between units of a pinned session: asks the server which pins are left, if one of them may have ended. The bytes
    /// are a Query of the proxy's own, whose reply is swallowed.
    pub fn ask_for_pins(&mut self, link: &mut Link, out: &mut Vec<u8>) -> bool {
        let Some(asked) = self.pinned.ask() else {
            return false;
        };
        frontend::put_query(question(asked).as_bytes(), out);
        link.owing.push(Owed::Probe(asked));
        link.unnamed = None;
        true
    }

    /// The row that answers the question.
    pub(super) fn pins_left(&mut self, asked: Pins, row: &[u8]) {
        let Some(columns) = backend::columns(row) else {
            return;
        };
        let mut left = asked;
        for (reason, column) in asked.iter().zip(columns) {
            if column == Some(b"f") {
                left = left.without(Pins::NONE.with(reason));
            }
        }
        self.pinned.answered(asked, left);
    }

    /// Whether a statement may end one of the session's pins. What a procedure does cannot be seen.
    pub(super) fn may_end_pin(&self, class: Class, text: &[u8]) -> bool {
        !self.pinned.askable().is_empty()
            && (class.session == SessionEffect::Unknown || text.is_empty() || may_end_pin(text))
    }
}

/// One boolean for each reason: whether anything is left. Every name says its schema, so that no search_path of the client
/// can lead elsewhere, and between transactions all advisory locks are the session's.
fn question(asked: Pins) -> String {
    let parts: Vec<String> = asked
        .iter()
        .map(|reason| format!("EXISTS (SELECT FROM pg_catalog.{})", source(reason)))
        .collect();
    format!("SELECT {}", parts.join(", "))
}

fn source(reason: PinReason) -> &'static str {
    match reason {
        // Every object in a schema depends on it, whatever catalog it is in; there is an index for that. 2615 is
        // pg_namespace: its place in pg_class is fixed.
        PinReason::TemporaryObject => {
            "pg_depend WHERE refclassid OPERATOR(pg_catalog.=) '2615'::pg_catalog.oid \
             AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()"
        }
        PinReason::Listen => "pg_listening_channels()",
        PinReason::HoldCursor => "pg_cursors WHERE is_holdable",
        PinReason::AdvisoryLock => {
            "pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'::pg_catalog.text \
             AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
        }
        // The proxy's own come by the protocol.
        PinReason::Prepare => "pg_prepared_statements WHERE from_sql",
        // Not asked for: these stay. One row is enough to say so.
        PinReason::Load | PinReason::Settings | PinReason::Function | PinReason::Sequence => {
            "pg_database"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: Pins = Pins::NONE.with(PinReason::Listen);

    #[test]
    fn an_answer_counts_for_what_was_there_when_it_was_asked_for() {
        let mut pinned = Pinned::default();
        pinned.may_end();
        assert_eq!(pinned.ask(), None, "nothing to ask for");
        pinned.pin(PinReason::Listen);
        pinned.pin(PinReason::Load);
        assert_eq!(pinned.ask(), Some(LISTEN));
        assert_eq!(pinned.ask(), None, "asked already");
        // A LISTEN that was sent behind the question.
        pinned.pin(PinReason::Listen);
        pinned.answered(LISTEN, Pins::NONE);
        pinned.asked();
        assert!(pinned.reasons().has(PinReason::Listen));
        assert_eq!(pinned.ask(), Some(LISTEN), "and it may fail");
        pinned.answered(LISTEN, Pins::NONE);
        pinned.asked();
        assert_eq!(
            pinned.reasons().iter().collect::<Vec<_>>(),
            [PinReason::Load]
        );
        pinned.may_end();
        assert_eq!(pinned.ask(), None, "what is left does not end");
    }

    #[test]
    fn a_second_reason_of_a_kind_asks_nothing_new() {
        let mut pinned = Pinned::default();
        pinned.pin(PinReason::Listen);
        assert!(pinned.ask().is_some());
        pinned.answered(LISTEN, LISTEN);
        pinned.asked();
        pinned.pin(PinReason::Listen);
        assert_eq!(pinned.ask(), None);
        pinned.may_end();
        assert!(pinned.ask().is_some());
    }

    #[test]
    fn every_name_in_a_question_has_its_schema() {
        let question = question(Pins::MAY_END);
        for name in ["pg_depend", "pg_my_temp_schema", "pg_locks", "pg_cursors"] {
            assert!(
                question.contains(&format!("pg_catalog.{name}")),
                "{question}"
            );
        }
        assert!(!question.contains(" = "), "{question}");
    }
}
