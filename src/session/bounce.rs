//! A standby's refusal that the client does not see: its statement runs elsewhere.
//!
//! A unit of reads is kept while it is on its way to a standby, and what comes before the first
//! row or completion is held back. If the standby refuses the unit before that, it is taken back, with those behind it:
//! nothing that lasts can have happened on a standby. What still comes for them is dropped, and `relay` sends them again.
//! In a transaction that is so for its first unit, of which the client has seen nothing, and for any as long as the
//! transaction may move.

use super::front::{Context, Frames};
use super::{NameChange, Session};
use crate::link::{Bounce, Link, Owed, Refusal, Statement};
use crate::sql::{Access, Class, SessionEffect, TxEffect};
use crate::wire::{Status, backend, frontend};

impl Session {
    /// Whether a unit may run elsewhere if its standby refuses it, as far as its class tells.
    pub(super) fn may_bounce(
        &self,
        unit: &[u8],
        class: Option<Class>,
        link: &Link,
        context: Context<'_>,
    ) -> bool {
        link.bounces
            && class.is_some_and(|class| {
                only_reads(class)
                    || (class.tx == TxEffect::Begin && self.begins_itself())
                    || self.reads_and_ends(unit, class)
            })
            && (match self.is_in_sent_block() {
                false => link.status == Status::Idle,
                true => self.may_begin_again(unit, class, link),
            })
            && !self.group.open
            && !link.copy_in
            && self.pins().is_empty()
            && unit.len() + link.replay.len() <= context.pipeline_buffer
    }

    /// A statement of the unit that is being forwarded does more than reading: once may be all that it may run.
    pub(super) fn bounces_no_more(link: &mut Link) {
        if link.replay.is_alone() && (link.guarded || link.replans) {
            link.replay.stay();
        } else {
            link.replay.give_up();
        }
    }

    /// The units on their way are taken back: what they have done to the client's names for statements has not happened.
    pub(super) fn undo_units(&mut self, link: &mut Link) {
        self.undo_names(usize::MAX);
        if let Some(cold) = &mut self.cold {
            for (name, change) in std::mem::take(&mut cold.confirmed).into_iter().rev() {
                match change {
                    NameChange::Defined => cold.prepared.remove(&name),
                    NameChange::Closed(statement) => cold.prepared.insert(name, statement),
                };
            }
        }
        self.unnamed_changes.forget();
        if let Some(unnamed) = link.replay.unnamed_before() {
            self.unnamed = unnamed;
        }
    }

    /// A standby has refused this unit, and it is its shape that does not belong there: the statements that may be to
    /// blame are writes from now on. Those are the ones that were bound for the first of the last `unanswered` Executes, which
    /// may be more than there are.
    pub fn learn_refusal(&self, unit: &[u8], unanswered: usize, context: Context<'_>) {
        let executes = Frames(unit)
            .filter(|(header, _)| header.tag == b'E')
            .count();
        let mut answered = executes.saturating_sub(unanswered);
        let learn_text = |text: &[u8]| {
            let executed = self.executed_text(text, context);
            let text = executed.as_deref().unwrap_or(text);
            context.classifier.learn(text, self.lexing, context.catalog);
        };
        let learn = |statement: &Statement| {
            if statement.class.session != SessionEffect::Execute {
                statement.learn();
            }
            learn_text(statement.text());
        };
        let (mut parsed, mut is_blamed) = (Vec::new(), false);
        for (header, body) in Frames(unit) {
            match header.tag {
                b'Q' => {
                    if let Some(text) = frontend::query(body) {
                        learn_text(text);
                    }
                }
                b'P' => {
                    if let Some(parse) = frontend::parse(body) {
                        parsed.push((parse.name, self.intern(parse, context)));
                    }
                }
                b'B' => {
                    let name = frontend::bind(body).map(|bind| bind.statement);
                    let own = parsed.iter().rev().find(|(own, _)| Some(*own) == name);
                    if let Some(statement) = own.map(|(_, own)| own).or_else(|| self.bound(body)) {
                        if answered > 0 || statement.class.tx != TxEffect::None {
                            // Its own BEGIN is no read, and its answer is no result.
                            continue;
                        }
                        learn(statement);
                    }
                    is_blamed = answered == 0;
                }
                b'E' if is_blamed => return,
                b'E' => answered = answered.saturating_sub(1),
                _ => {}
            }
        }
    }
}

/// Whether a class says that nothing but reading is done.
pub(super) fn only_reads(class: Class) -> bool {
    matches!(class.access, Access::Read | Access::Empty)
        && class.tx == TxEffect::None
        && matches!(class.session, SessionEffect::None | SessionEffect::Execute)
}

/// What an error of a standby says of where its statement may run; `None` if it would be the same anywhere. `front` is what
/// was owed.
///
/// The codes decide. The text, which may be in any language, says at most whether there is something to be learned, but
/// for internal errors, which PostgreSQL never translates.
pub(super) fn refusal(body: &[u8], front: Option<Owed>) -> Option<Refusal> {
    let (bounce, learned) = match backend::error_field(body, b'C')? {
        b"25006" => (Bounce::ReadOnly, true),
        // A plan that has become stale is so everywhere.
        b"0A000" if backend::error_field(body, b'R') == Some(b"RevalidateCachedQuery") => {
            return None;
        }
        b"0A000" | b"55000" => (Bounce::Unsupported, tells_of_recovery(body)),
        b"XX000" if tells_of_recovery(body) => (Bounce::Unsupported, true),
        b"42P01" | b"42703" | b"42883" | b"42704" | b"3F000" => (Bounce::Undefined, false),
        // The server has lost a statement that the proxy has prepared.
        b"26000" if matches!(front, Some(Owed::Bind { id: Some(_), .. })) => {
            (Bounce::Undefined, false)
        }
        // On a standby a deadlock is one with recovery, too.
        b"40001" | b"40P01" => (Bounce::Conflict, false),
        b"57P01" | b"57P02" | b"57P03" => (Bounce::Shutdown, false),
        _ => return None,
    };
    Some(Refusal {
        bounce,
        learned,
        function: backend::error_field(body, b'W').and_then(function_in),
    })
}

/// Why a server ends the session, by its last error.
pub(super) fn doom(body: &[u8]) -> Bounce {
    refusal(body, None)
        .map(|refusal| refusal.bounce)
        .filter(|bounce| bounce.is_of_the_node())
        .unwrap_or(Bounce::Lost)
}

fn tells_of_recovery(body: &[u8]) -> bool {
    let text = backend::error_field(body, b'M').unwrap_or_default();
    let says = |what: &[u8]| memchr::memmem::find(text, what).is_some();
    // The routine that refuses to read unlogged tables: its name is the same in every language.
    let routine = backend::error_field(body, b'R');
    says(b"recovery") || says(b"hot standby") || routine == Some(b"get_relation_info")
}

/// The innermost function that an error's CONTEXT names, as `PL/pgSQL function f(integer) line 3 at SQL statement` and
/// `SQL function "f" statement 1` do.
fn function_in(context: &[u8]) -> Option<String> {
    let context = std::str::from_utf8(context).ok()?;
    context
        .lines()
        // It quotes the statement's text, in which anything may stand.
        .filter(|line| !line.starts_with("SQL statement"))
        .find_map(|line| {
            let (_, name) = line.split_once("function ")?;
            let name = match name.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?.0,
                None => &name[..=name.find(')')?],
            };
            Some(name.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_say_something_of_the_node() {
        let check = |body: &[u8], expected: Option<(Bounce, bool)>| {
            let found = refusal(body, None).map(|refusal| (refusal.bounce, refusal.learned));
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(body));
        };
        check(b"C25006\0Mx\0\0", Some((Bounce::ReadOnly, true)));
        check(b"C0A000\0Mx\0\0", Some((Bounce::Unsupported, false)));
        check(
            b"C0A000\0Mcannot access temporary or unlogged relations during recovery\0\0",
            Some((Bounce::Unsupported, true)),
        );
        check(
            b"C0A000\0Mbeim Wiederherstellen\0Rget_relation_info\0\0",
            Some((Bounce::Unsupported, true)),
        );
        check(b"C0A000\0Mx\0RRevalidateCachedQuery\0\0", None);
        check(
            b"C55000\0Mrecovery is in progress\0\0",
            Some((Bounce::Unsupported, true)),
        );
        check(
            b"CXX000\0Mcannot assign TransactionIds during recovery\0\0",
            Some((Bounce::Unsupported, true)),
        );
        check(b"CXX000\0Mx\0\0", None);
        check(b"C42P01\0\0", Some((Bounce::Undefined, false)));
        check(b"C26000\0\0", None);
        check(b"C40001\0\0", Some((Bounce::Conflict, false)));
        check(b"C22012\0\0", None);
        check(b"C57014\0\0", None);
        check(b"C57P04\0\0", None);
        let own = Owed::Bind {
            id: Some(statement_id()),
            name: 0,
        };
        let lost = refusal(b"C26000\0\0", Some(own)).map(|refusal| refusal.bounce);
        assert_eq!(lost, Some(Bounce::Undefined));
        assert_eq!(doom(b"C57P01\0\0"), Bounce::Shutdown);
        assert_eq!(doom(b"C25006\0\0"), Bounce::Lost);
    }

    fn statement_id() -> crate::link::StatementId {
        let statements = crate::link::Statements::new(1 << 16);
        let class = Class::plain(Access::Read, crate::sql::Reason::Read);
        statements.unshared(b"select 1\0\0\0", class).id
    }

    #[test]
    fn functions_in_a_context() {
        let check = |context: &str, expected: Option<&str>| {
            assert_eq!(
                function_in(context.as_bytes()).as_deref(),
                expected,
                "{context}"
            );
        };
        check(
            "SQL statement \"select function x()\"\nPL/pgSQL function public.liar(integer) line 3 at SQL statement",
            Some("public.liar(integer)"),
        );
        check("SQL function \"liar\" statement 1", Some("liar"));
        check("SQL function \"liar\" during inlining", Some("liar"));
        check("PL/pgSQL-Funktion liar() Zeile 3", None);
        check("function ", None);
        check("", None);
    }
}
