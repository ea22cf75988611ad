//! Prepared statements that SQL names: PREPARE, EXECUTE, DEALLOCATE.
//!
//! SQL's text is not rewritten, so a server has such a statement by the client's own name. Before a text that may name one
//! goes to a connection, that connection is brought to what the session has: what is missing is prepared there, and
//! what another client has left by the same name is closed. All of that goes in the same flight.

use super::front::Context;
use super::{OWN_NAMES, Session};
use crate::link::{Link, Owed};
use crate::sql::{
    self, Class, PinReason, SessionEffect, deallocate_target, execute_target, prepare_target,
};
use crate::wire::{Status, frontend};

/// Statement and portal by which a PREPARE is run again.
const AGAIN: &[u8] = b"pgw_again";

impl Session {
    /// Brings a connection to what the session has of the statements that a text may name. The messages belong to a group
    /// that is open.
    pub(super) fn align_names(
        &self,
        class: Class,
        text: &[u8],
        link: &mut Link,
        out: &mut Vec<u8>,
    ) {
        // A transaction that has failed refuses all of it.
        if link.status == Status::Failed || link.owing.skipping() {
            return;
        }
        if class.session == SessionEffect::SetSeveral {
            for name in sql::statements(text)
                .into_iter()
                .filter_map(deallocate_target)
            {
                self.align_name(&name, link, out);
            }
            return;
        }
        let target = match class.session {
            SessionEffect::Prepare => prepare_target(text),
            SessionEffect::Execute => execute_target(text),
            // One that the session has goes by a stand-in.
            SessionEffect::Deallocate => {
                deallocate_target(text).filter(|name| self.prepared(name).is_none())
            }
            _ => return,
        };
        if let Some(name) = target {
            self.align_name(&name, link, out);
            return;
        }
        if class.session != SessionEffect::Execute {
            return;
        }
        // Which one is not looked for.
        let others: Vec<Box<[u8]>> = link.own_names.iter().map(Box::from).collect();
        for name in others {
            self.align_name(&name, link, out);
        }
        let prepared = self.cold.iter().flat_map(|cold| &cold.prepared);
        for (name, _) in prepared.filter(|(_, statement)| statement.by_sql) {
            self.align_name(name, link, out);
        }
    }

    /// The same for one name.
    pub(super) fn align_name(&self, name: &[u8], link: &mut Link, out: &mut Vec<u8>) {
        let wanted = self.prepared(name);
        if wanted.map(|statement| statement.id) == link.own_names.get(name) {
            if name.starts_with(OWN_NAMES) && wanted.is_none() {
                // The proxy's own, which another client may use: nobody runs it by SQL.
                close(name, link, out);
                link.doubtful = true;
            }
            return;
        }
        if link.own_names.remove(name) {
            close(name, link, out);
        }
        let Some(statement) = wanted else { return };
        if statement.by_sql {
            frontend::put_parse(AGAIN, statement.content(), out);
            frontend::put_bind(AGAIN, AGAIN, out);
            frontend::put_execute(AGAIN, out);
            for reply in *b"12C" {
                link.owing.push(Owed::Own(reply));
            }
            close(AGAIN, link, out);
        } else {
            frontend::put_parse(name, statement.content(), out);
            link.owing.push(Owed::Own(b'1'));
        }
        if let Some(evicted) = link.own_names.insert(name, statement.id) {
            close(&evicted, link, out);
        }
    }

    /// A PREPARE is being sent. What cannot be followed keeps its connection.
    pub(super) fn preparing(
        &mut self,
        class: Class,
        text: &[u8],
        link: &mut Link,
        context: Context<'_>,
    ) {
        let Some(name) = prepare_target(text) else {
            self.pinned.pin(PinReason::Prepare);
            return;
        };
        let statement = context.statements.by_sql(text, class);
        self.cold()
            .preparing
            .push_back((name.into_boxed_slice(), statement));
        link.preparing = true;
    }

    /// A PREPARE has succeeded.
    pub(super) fn has_prepared(&mut self, link: &mut Link) {
        if let Some(cold) = &mut self.cold
            && let Some((name, statement)) = cold.preparing.pop_front()
        {
            // One name too many is closed when the connection is cleaned.
            link.dirty |= link.own_names.insert(&name, statement.id).is_some();
            cold.prepared.insert(name, statement);
        }
    }
}

fn close(name: &[u8], link: &mut Link, out: &mut Vec<u8>) {
    frontend::put_close_statement(name, out);
    link.owing.push(Owed::Own(b'3'));
}
