//! Prepared statements that SQL names: PREPARE, EXECUTE, DEALLOCATE.
//!
//! SQL's text is not rewritten, so a server has such a statement by the client's own name. Before a text that may name one
//! goes to a connection, that connection is brought to what the session has: what is missing is prepared there, and
//! what another client has left by the same name is closed. All of that goes in the same flight.

use super::front::Context;
use super::{OWN_NAMES, Session};
use crate::link::{Link, Owed, Statement, StatementId};
use crate::sql::{
    self, Access, Class, Executed, PinReason, Prepared, Reason, SessionEffect, TxEffect,
    deallocate_target, mentions, prepare_target,
};
use crate::wire::{Status, frontend};

/// Most statements that a session prepares by SQL and that move with it. With more of them it keeps its connection.
const MAX_PREPARED: usize = 64;

/// The content of a Parse without a statement, which also a transaction that has failed accepts.
pub(super) const NOTHING: &[u8] = b"\0\0\0";

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
        // A transaction that has failed refuses all of it, unless it ends before.
        let is_failed = link.status == Status::Failed && !link.committing;
        if is_failed || link.owing.skipping() {
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
        if is_suspicious(class, text) {
            forget_all(link, out);
        }
        let target = match class.session {
            SessionEffect::None => return,
            SessionEffect::Prepare => prepare_target(text),
            SessionEffect::Execute => sql::executed(text).map(|executed| executed.name),
            // One that the session has goes by a stand-in.
            SessionEffect::Deallocate => {
                deallocate_target(text).filter(|name| self.prepared(name).is_none())
            }
            _ => None,
        };
        let is_unfollowed = |name: &Vec<u8>| {
            class.session == SessionEffect::Prepare
                && self.prepared(name).is_some_and(|known| !is_followed(known))
        };
        if let Some(name) = target.as_ref().filter(|name| is_unfollowed(name)) {
            Session::occupy(name, link, out);
        } else if let Some(name) = target {
            self.align_name(&name, link, out);
        } else if mentions(text, b"execute") {
            // Which one is not looked for.
            let prepared = self.cold.iter().flat_map(|cold| &cold.prepared);
            for (name, statement) in prepared {
                if statement.by_sql || mentions(text, name) {
                    self.align_name(name, link, out);
                }
            }
        }
    }

    /// Before a session's first unit on a connection: what others have left there by names of their own is taken away, as no
    /// text could be trusted not to name it.
    pub(super) fn hide_names(&self, link: &mut Link, out: &mut Vec<u8>) {
        let own = |name: &[u8], id| self.prepared(name).is_some_and(|known| known.id == id);
        let foreign = link.own_names.extract(own);
        if foreign.is_empty() {
            return;
        }
        for name in foreign {
            close(&name, link, out);
        }
        out.extend_from_slice(frontend::SYNC);
        link.owing.push(Owed::Sync {
            swallow: true,
            write: false,
            sets: 0,
        });
    }

    /// A statement is deallocated by a stand-in: what the server has by its own name goes by itself.
    pub(super) fn close_own(name: &[u8], link: &mut Link, out: &mut Vec<u8>) {
        if link.own_names.remove(name) {
            close(name, link, out);
        }
    }

    /// The same for one name.
    pub(super) fn align_name(&self, name: &[u8], link: &mut Link, out: &mut Vec<u8>) {
        let wanted = self
            .prepared(name)
            .filter(|statement| is_followed(statement));
        if wanted.map(|statement| statement.id) == link.own_names.get(name) {
            return;
        }
        if link.own_names.remove(name) {
            close(name, link, out);
        }
        let Some(statement) = wanted else { return };
        if statement.by_sql {
            run(statement.content(), link, out);
        } else {
            frontend::put_parse(name, statement.content(), out);
            link.owing.push(Owed::Own(b'1'));
        }
        link.own_names.insert(name, statement.id);
    }

    /// The class of a text that may execute what the session has prepared by a name: that of what it runs, if it can be told.
    #[inline]
    pub(super) fn executed<'a>(
        &self,
        class: Class,
        text: impl FnOnce() -> &'a [u8],
        context: Context<'_>,
    ) -> Class {
        if class.session != SessionEffect::Execute || class.reason == Reason::Refused {
            return class;
        }
        let Context {
            classifier,
            catalog,
            ..
        } = context;
        let text = text();
        let class = self.with_sequences_of(class, text);
        self.execution(text, context)
            .filter(|_| class.statements == 1)
            .map_or(class, |(executed, statement)| {
                let prepared = prepared_by(statement);
                let known = prepared.filter(|_| self.lexing.is_alike(statement.text()));
                known.map_or(class, |prepared| {
                    executed.class(class, prepared, classifier, self.lexing, catalog)
                })
            })
    }

    /// The class of an EXECUTE, with what is known of the sequences of what it runs.
    fn with_sequences_of(&self, class: Class, text: &[u8]) -> Class {
        let executed = sql::executed(text).filter(|_| class.statements == 1);
        let statement = executed.and_then(|executed| self.prepared(&executed.name));
        let sequences = statement.map_or(class.sequences, |statement| {
            class.sequences.and(statement.class.sequences)
        });
        Class { sequences, ..class }
    }

    /// An EXECUTE, and what its name stands for. What the protocol has prepared must not be a write: its parameters have types
    /// that no text tells of.
    fn execution<'a>(
        &self,
        text: &'a [u8],
        context: Context<'_>,
    ) -> Option<(Executed<'a>, &Statement)> {
        let executed = sql::executed(text)?;
        let statement = self.prepared(&executed.name)?;
        let is_known = statement.by_sql
            || (is_followed(statement)
                && self.class_of(statement, context).access != Access::Write);
        is_known.then_some((executed, &**statement))
    }

    /// The text that an EXECUTE runs.
    pub(super) fn executed_text(&self, text: &[u8], context: Context<'_>) -> Option<Vec<u8>> {
        let (executed, statement) = self.execution(text, context)?;
        Some(executed.text(prepared_by(statement)?).into_owned())
    }

    /// Has the server bear a client's name for nothing at all, so that it says itself, and when it is asked, that the name is
    /// taken. Whoever uses the name next brings what belongs there.
    pub(super) fn occupy(name: &[u8], link: &mut Link, out: &mut Vec<u8>) {
        if link.own_names.remove(name) {
            close(name, link, out);
        }
        frontend::put_parse(name, NOTHING, out);
        link.owing.push(Owed::Own(b'1'));
        link.own_names.insert(name, StatementId::NONE);
        // One of the proxy's own may have been meant.
        link.doubtful |= name.starts_with(OWN_NAMES);
    }

    /// In the middle of what binds a session to its connection: if it is not known any more what the server has prepared,
    /// it forgets all of it, and the session prepares again what it uses. Nobody else has the connection afterwards.
    pub(super) fn mend(&self, link: &mut Link, out: &mut Vec<u8>) {
        let bound = self.group.open || (link.settled() && link.status == Status::Transaction);
        let heard = !link.owing.skipping() && !link.copy_in && link.status != Status::Failed;
        if !(link.doubtful && bound && heard) {
            return;
        }
        forget_all(link, out);
        link.doubtful = false;
        link.spent = true;
        if !self.group.open {
            out.extend_from_slice(frontend::SYNC);
            link.owing.push(Owed::Sync {
                swallow: true,
                write: false,
                sets: 0,
            });
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
        let prepared = self.cold.iter().flat_map(|cold| cold.prepared.values());
        let many = prepared.filter(|statement| statement.by_sql).count() >= MAX_PREPARED;
        let name = prepare_target(text).filter(|name| !many && !name.starts_with(OWN_NAMES));
        let Some(name) = name else {
            self.pinned.pin(PinReason::Prepare);
            return;
        };
        let statement = context.statements.by_sql(text, class);
        self.cold()
            .preparing
            .push_back((name.into_boxed_slice(), Some(statement)));
        link.preparing = true;
    }

    /// A DEALLOCATE is being sent. If what it names is on its way, it is gone when that has come.
    pub(super) fn deallocating(&mut self, name: &[u8]) {
        if let Some(cold) = &mut self.cold
            && cold.preparing.iter().any(|(other, _)| **other == *name)
        {
            cold.preparing.push_back((name.into(), None));
        }
    }

    /// A PREPARE has succeeded, or a DEALLOCATE.
    pub(super) fn has_prepared(&mut self, deallocates: bool, link: &mut Link) {
        let Some(cold) = &mut self.cold else { return };
        let next = cold.preparing.front();
        if next.is_none_or(|(_, statement)| statement.is_none() != deallocates) {
            return;
        }
        match cold.preparing.pop_front() {
            Some((name, Some(statement))) => {
                if link.forgetting.is_some() {
                    // What takes it away has not been answered.
                    link.own_names.insert_aged(&name, statement.id);
                } else {
                    link.own_names.insert(&name, statement.id);
                }
                cold.prepared.insert(name, statement);
            }
            Some((name, None)) => {
                link.own_names.remove(&name);
                cold.prepared.remove(&name);
            }
            None => {}
        }
    }
}

fn prepared_by(statement: &Statement) -> Option<Prepared<'_>> {
    if statement.by_sql {
        sql::prepared(statement.text())
    } else {
        Some(Prepared::by_protocol(statement.text()))
    }
}

/// Whether SQL may execute a statement: what it does to its session is known without it. PREPARE takes none that does
/// anything, but the protocol's Parse does.
fn is_followed(statement: &Statement) -> bool {
    statement.by_sql
        || (statement.class.session == SessionEffect::None && statement.class.tx == TxEffect::None)
}

/// Whether a text may reach what the proxy has prepared for others, by names that it can guess. It is for the server to say
/// that there is nothing by such a name.
fn is_suspicious(class: Class, text: &[u8]) -> bool {
    let hidden = class.reason == Reason::UnsafeText && mentions(text, b"execute");
    hidden || (class.session != SessionEffect::None && mentions(text, OWN_NAMES))
}

/// Has the server forget every prepared statement but the unnamed one, which DEALLOCATE ALL leaves alone.
fn forget_all(link: &mut Link, out: &mut Vec<u8>) {
    // One that failed half-way has left it there.
    close(AGAIN, link, out);
    run(b"DEALLOCATE ALL\0\0\0", link, out);
    link.held.clear();
    link.own_names.clear();
}

/// Runs a statement, given as the content of a Parse, among the messages of a group.
pub(super) fn run(content: &[u8], link: &mut Link, out: &mut Vec<u8>) {
    frontend::put_parse(AGAIN, content, out);
    frontend::put_bind(AGAIN, AGAIN, out);
    frontend::put_execute(AGAIN, out);
    // By its own name: DEALLOCATE ALL takes the statement away that would else take its portal with it.
    frontend::put_close_portal(AGAIN, out);
    for reply in *b"12C3" {
        link.owing.push(Owed::Own(reply));
    }
    close(AGAIN, link, out);
}

fn close(name: &[u8], link: &mut Link, out: &mut Vec<u8>) {
    frontend::put_close_statement(name, out);
    link.owing.push(Owed::Own(b'3'));
}
