//! Statements that their first words decide. Everything that starts like a read is left to the parser.

use super::class::{Access, Class, PinReason, Reason, SessionEffect, TxEffect};
use super::lexer::continues_word;

/// What the first words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All there is to say.
    Class(Class),
    /// It may be a read: parse it.
    Parse,
}

const fn primary(reason: Reason) -> Class {
    Class::plain(Access::Primary, reason)
}

const fn write(reason: Reason) -> Class {
    Class::plain(Access::Write, reason)
}

const NEUTRAL: Class = Class::plain(Access::Neutral, Reason::Session);
const CONTROL: Class = Class::plain(Access::Neutral, Reason::Transaction);

/// Judges one statement by its normalised text, the rows of routing.md §2.2 in the order of the manual's chapters.
pub(super) fn judge(statement: &[u8]) -> Verdict {
    let mut words = Words(statement);
    let first = words.next();
    if let b"select" | b"with" | b"values" | b"table" | b"(" | b"explain" = first {
        return Verdict::Parse;
    }
    let second = words.next();
    let class = match first {
        b"insert" | b"update" | b"delete" | b"merge" => write(Reason::DataModifying),
        b"copy" if copies_out(Words(statement)) => return Verdict::Parse,
        b"copy" => write(Reason::Copy),
        b"begin" | b"start" => Class {
            tx: TxEffect::Begin,
            ..primary(Reason::Transaction)
        },
        b"commit" | b"rollback" if second == b"prepared" => write(Reason::Transaction),
        b"rollback" | b"abort" if is_to_savepoint(second, words.next()) => {
            CONTROL.with(SessionEffect::Savepoint)
        }
        b"commit" | b"end" | b"rollback" | b"abort" => Class {
            tx: TxEffect::End,
            ..CONTROL
        },
        b"savepoint" | b"release" => CONTROL.with(SessionEffect::Savepoint),
        b"prepare" if second == b"transaction" => Class {
            tx: TxEffect::End,
            ..write(Reason::Transaction)
        },
        b"prepare" => primary(Reason::Session).with(SessionEffect::Prepare),
        b"execute" => write(Reason::Session).with(SessionEffect::Execute),
        b"deallocate" => deallocate(second, words.next()),
        b"set" => set(second, words.next()),
        b"reset" => reset(second),
        b"show" => primary(Reason::Session),
        b"discard" if second == b"all" => NEUTRAL.with(SessionEffect::DiscardAll),
        b"discard" | b"unlisten" | b"fetch" | b"move" | b"close" => NEUTRAL,
        b"listen" => write(Reason::Session).with(SessionEffect::Pin(PinReason::Listen)),
        b"declare" if holds(Words(statement)) => {
            write(Reason::Session).with(SessionEffect::Pin(PinReason::HoldCursor))
        }
        // It is what its query is.
        b"declare" => return Verdict::Parse,
        b"load" => primary(Reason::Session).with(SessionEffect::Pin(PinReason::Load)),
        b"lock" => write(Reason::Locking),
        b"do" | b"call" => write(Reason::Function).with(SessionEffect::Unknown),
        b"create" if is_temporary(Words(statement)) => {
            write(Reason::Ddl).with(SessionEffect::Pin(PinReason::TemporaryObject))
        }
        b"create" | b"alter" | b"drop" | b"comment" | b"grant" | b"revoke" | b"truncate"
        | b"reindex" | b"cluster" | b"refresh" | b"security" | b"import" | b"reassign" => {
            write(Reason::Ddl)
        }
        b"vacuum" | b"analyze" | b"analyse" | b"notify" | b"checkpoint" => write(Reason::Utility),
        // Not a command that we know: PostgreSQL may, or says that it does not.
        _ => write(Reason::Utility).with(SessionEffect::Unknown),
    };
    Verdict::Class(class)
}

/// ROLLBACK [WORK | TRANSACTION] TO …
fn is_to_savepoint(second: &[u8], third: &[u8]) -> bool {
    second == b"to" || (matches!(second, b"work" | b"transaction") && third == b"to")
}

fn deallocate(second: &[u8], third: &[u8]) -> Class {
    let name = if second == b"prepare" && !third.is_empty() {
        third
    } else {
        second
    };
    NEUTRAL.with(if name == b"all" {
        SessionEffect::DeallocateAll
    } else {
        SessionEffect::Deallocate
    })
}

/// SET in its many forms. Characteristics of transactions go to the primary; so do settings that decide where a
/// transaction may run.
fn set(second: &[u8], third: &[u8]) -> Class {
    let name = if matches!(second, b"session" | b"local") {
        third
    } else {
        second
    };
    match name {
        b"constraints" => primary(Reason::Session),
        // What random() returns from here on only this connection knows, as behind setseed.
        b"seed" => primary(Reason::Session).with(SessionEffect::Pin(PinReason::Settings)),
        b"transaction" | b"characteristics" => primary(Reason::Session).with(SessionEffect::Set),
        name if name.starts_with(b"default_transaction_") || name.starts_with(b"transaction_") => {
            primary(Reason::Session).with(SessionEffect::Set)
        }
        _ => NEUTRAL.with(SessionEffect::Set),
    }
}

fn reset(second: &[u8]) -> Class {
    if second == b"seed" {
        return set(second, b"");
    }
    if second.starts_with(b"default_transaction_") {
        return primary(Reason::Session).with(SessionEffect::Set);
    }
    NEUTRAL.with(SessionEffect::Set)
}

fn holds(words: Words<'_>) -> bool {
    has_pair(words, b"with", b"hold")
}

/// COPY … TO STDOUT, as far as two words tell. The parser knows.
fn copies_out(words: Words<'_>) -> bool {
    has_pair(words, b"to", b"stdout")
}

/// Whether two words follow each other anywhere.
fn has_pair(mut words: Words<'_>, first: &[u8], second: &[u8]) -> bool {
    let mut before: &[u8] = b"";
    loop {
        match words.next() {
            b"" => return false,
            word if word == second && before == first => return true,
            word => before = word,
        }
    }
}

/// CREATE [OR REPLACE] [GLOBAL | LOCAL] { TEMP | TEMPORARY } …
fn is_temporary(mut words: Words<'_>) -> bool {
    words.next();
    loop {
        match words.next() {
            b"or" | b"replace" | b"global" | b"local" => {}
            word => return matches!(word, b"temp" | b"temporary"),
        }
    }
}

/// Words of a normalised statement; anything else is a word of one byte. Ends with empty words.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn next(&mut self) -> &'a [u8] {
        let text = self.0.trim_ascii_start();
        let word = text.iter().take_while(|b| continues_word(**b)).count();
        let length = if word == 0 { text.len().min(1) } else { word };
        if text.first() == Some(&b';') {
            self.0 = b"";
            return b"";
        }
        let (word, rest) = text.split_at(length);
        self.0 = rest;
        word
    }
}
