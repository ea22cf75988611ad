//! What a statement that has succeeded does to the catalog.

use super::super::class::{Access, Class, Reason, SessionEffect};
use super::super::classify::statements;

/// What is not as it was before, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that matters to verdicts or plans.
    #[default]
    None,
    /// There are names that there were not.
    Added,
    /// A name may mean something else: another overload, another schema, a policy.
    Names,
    /// And what was prepared may return something else.
    Plans,
}

/// What the statements of a text change, as far as their words tell.
pub fn change(class: Class, text: &[u8]) -> Change {
    if class.access != Access::Write {
        return Change::None;
    }
    match class.session {
        // DO and CALL may do anything.
        SessionEffect::Unknown => Change::Plans,
        _ if class.statements == 1
            && !matches!(
                class.reason,
                Reason::Ddl | Reason::Function | Reason::Transaction
            ) =>
        {
            Change::None
        }
        _ => {
            let changes = statements(text).into_iter().map(of_one);
            changes.max().unwrap_or_default()
        }
    }
}

fn of_one(statement: &[u8]) -> Change {
    let text =
        String::from_utf8_lossy(&statement[..statement.len().min(HEAD)]).to_ascii_lowercase();
    let mut words = text
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty());
    match words.next() {
        Some("alter" | "drop" | "do" | "call") => Change::Plans,
        Some("import") => Change::Names,
        // Whatever has been prepared, by whichever session.
        Some("commit") if words.next() == Some("prepared") => Change::Plans,
        Some("create") => created(words),
        _ => Change::None,
    }
}

/// The words that tell what is created stand at a statement's beginning.
const HEAD: usize = 256;

fn created<'a>(words: impl Iterator<Item = &'a str>) -> Change {
    for word in words {
        return match word {
            "global" | "local" | "unique" | "constraint" | "event" | "trusted" | "procedural" => {
                continue;
            }
            // CREATE OR REPLACE
            "or" => Change::Plans,
            // Its session's own.
            "temp" | "temporary" => Change::None,
            "table" | "sequence" | "schema" | "materialized" => Change::Added,
            "index" | "database" | "role" | "user" | "group" | "tablespace" | "subscription"
            | "publication" | "statistics" | "trigger" | "language" | "collation"
            | "conversion" => Change::None,
            _ => Change::Names,
        };
    }
    Change::Names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Classifier;
    use crate::sql::catalog::TABLES;

    #[test]
    fn changes() {
        let classifier = Classifier::new(1 << 20);
        for (text, expected) in [
            ("select 1", Change::None),
            ("insert into t values (1)", Change::None),
            ("select f()", Change::None),
            ("truncate t", Change::None),
            ("grant select on t to u", Change::None),
            ("create index on t (a)", Change::None),
            ("create unique index concurrently i on t (a)", Change::None),
            ("create temp table t (a int)", Change::None),
            ("create local temporary view v as select 1", Change::None),
            ("create role r", Change::None),
            ("create table t (a int)", Change::Added),
            ("/* new */ create schema s", Change::Added),
            ("create table t (); create table u ()", Change::Added),
            ("create unlogged table t (a int)", Change::Names),
            ("create view v as select 1", Change::Names),
            ("create function f() returns int return 1", Change::Names),
            ("create policy p on t using (true)", Change::Names),
            (
                "CREATE OPERATOR === (function = f, leftarg = int)",
                Change::Names,
            ),
            ("create extension hstore", Change::Names),
            (
                "import foreign schema s from server r into t",
                Change::Names,
            ),
            (
                "create or replace function f() returns int return 2",
                Change::Plans,
            ),
            ("alter table t add b int", Change::Plans),
            ("drop function f", Change::Plans),
            (
                "begin; create table t (); drop view v; commit",
                Change::Plans,
            ),
            ("do $$ begin perform 1; end $$", Change::Plans),
            (
                "do $$ begin alter table t set logged; end $$",
                Change::Plans,
            ),
            ("call p()", Change::Plans),
            ("commit prepared 'x'", Change::Plans),
            ("rollback prepared 'x'", Change::None),
            ("prepare transaction 'x'", Change::None),
            ("commit", Change::None),
        ] {
            let class = classifier.classify(text.as_bytes(), Default::default(), &TABLES);
            assert_eq!(change(class, text.as_bytes()), expected, "{text}");
        }
    }
}
