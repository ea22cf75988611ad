//! EXECUTE as what it runs: the statement that a PREPARE has given a name, with the values that it gets here.
//!
//! PostgreSQL manual, "PREPARE", sql-prepare.html; "EXECUTE", sql-execute.html. The values are expressions and run, too,
//! and what converts them to the types of the parameters. A form that is not known stays a write.

use std::borrow::Cow;

use super::catalog::Catalog;
use super::class::{Access, Class, SessionEffect, TxEffect};
use super::classify::{Classifier, Lexing};
use super::setting::{NAMEDATALEN, Scanner};

/// An EXECUTE that is all of a text, but for an EXPLAIN before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed<'a> {
    /// The name, as the server folds it.
    pub name: Vec<u8>,
    /// EXPLAIN with its options, or nothing.
    before: &'a [u8],
    /// The values in their parentheses, or nothing.
    values: &'a [u8],
}

/// What a name has been prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared<'a> {
    /// The types of its parameters as PREPARE has them, without the parentheses.
    types: &'a [u8],
    query: &'a [u8],
}

/// Opens an EXECUTE or an EXPLAIN of one; `None` for anything else, also for one inside of another statement.
pub fn executed(text: &[u8]) -> Option<Executed<'_>> {
    let mut scanner = Scanner { text, at: 0 };
    let mut before: &[u8] = b"";
    let mut word = scanner.word()?;
    if word == "explain" {
        if scanner.rest().first() == Some(&b'(') {
            scanner.at += parenthesis(scanner.rest())?;
            word = scanner.word()?;
        } else {
            word = scanner.word()?;
            while matches!(word.as_str(), "analyze" | "analyse" | "verbose") {
                word = scanner.word()?;
            }
        }
        before = &text[..scanner.at - word.len()];
    }
    if word != "execute" {
        return None;
    }
    // The server cuts longer names off.
    let name = scanner
        .identifier()
        .filter(|name| name.len() < NAMEDATALEN)?;
    let values = scanner.rest();
    matches!(values.first(), None | Some(b'(' | b';')).then_some(Executed {
        name,
        before,
        values: if values.starts_with(b"(") {
            values
        } else {
            b""
        },
    })
}

/// Opens a PREPARE.
pub fn prepared(text: &[u8]) -> Option<Prepared<'_>> {
    let mut scanner = Scanner { text, at: 0 };
    if scanner.word()? != "prepare" {
        return None;
    }
    scanner.identifier()?;
    let mut types: &[u8] = b"";
    let rest = scanner.rest();
    if rest.first() == Some(&b'(') {
        let length = parenthesis(rest)?;
        types = &rest[1..length - 1];
        scanner.at += length;
    }
    if scanner.word()? != "as" {
        return None;
    }
    Some(Prepared {
        types,
        query: scanner.rest(),
    })
}

/// A CALL that is all of a text.
pub(super) struct Call<'a> {
    /// Empty if none is named.
    pub(super) schema: String,
    pub(super) name: String,
    /// What it is given, without the parentheses.
    pub(super) values: &'a [u8],
}

/// Opens a CALL.
pub(super) fn call(text: &[u8]) -> Option<Call<'_>> {
    let mut scanner = Scanner { text, at: 0 };
    if scanner.word()? != "call" {
        return None;
    }
    let mut name = String::from_utf8(scanner.identifier()?).ok()?;
    let mut schema = String::new();
    if scanner.rest().first() == Some(&b'.') {
        scanner.at += 1;
        schema = name;
        name = String::from_utf8(scanner.identifier()?).ok()?;
    }
    let rest = scanner.rest().trim_ascii_end();
    let rest = rest.strip_suffix(b";").unwrap_or(rest).trim_ascii_end();
    // With a comment behind it, it stays a write.
    let values = rest.strip_prefix(b"(")?.strip_suffix(b")")?.trim_ascii();
    Some(Call {
        schema,
        name,
        values,
    })
}

/// The length of what stands in parentheses, with them. `None` for what holds strings or comments: neither types nor options
/// have to.
fn parenthesis(text: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted) = (0usize, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(at + 1),
            b')' => depth = depth.checked_sub(1)?,
            b'\'' | b'-' | b'/' | b'$' => return None,
            _ => {}
        }
    }
    None
}

impl<'a> Prepared<'a> {
    /// What the protocol's Parse has prepared. The types of its parameters are for the caller to look at.
    pub fn by_protocol(query: &'a [u8]) -> Prepared<'a> {
        Prepared { types: b"", query }
    }

    /// The types of its parameters, as a query that names them all and does nothing else.
    fn types_named(&self) -> Vec<u8> {
        let mut query = b"SELECT NULL::".to_vec();
        let (mut depth, mut quoted) = (0usize, false);
        for byte in self.types {
            query.push(*byte);
            match byte {
                b'"' => quoted = !quoted,
                b'(' if !quoted => depth += 1,
                b')' if !quoted => depth = depth.saturating_sub(1),
                b',' if !quoted && depth == 0 => query.extend_from_slice(b"NULL::"),
                _ => {}
            }
        }
        query
    }
}

impl Executed<'_> {
    /// The text that runs, which is the name's with the same EXPLAIN before it.
    pub fn text<'a>(&self, prepared: Prepared<'a>) -> Cow<'a, [u8]> {
        if self.before.is_empty() {
            return Cow::Borrowed(prepared.query);
        }
        Cow::Owned([self.before, prepared.query].concat())
    }

    /// The class of an EXECUTE, if what it runs is known: that of the query, unless a value is no plain read. `own` is its
    /// class as long as nothing is known.
    pub fn class(
        &self,
        own: Class,
        prepared: Prepared<'_>,
        classifier: &Classifier,
        lexing: Lexing,
        catalog: &Catalog,
    ) -> Class {
        let judge = |text: &[u8]| {
            let class = classifier.classify(text, lexing, catalog);
            let alone = class.statements == 1
                && class.session == SessionEffect::None
                && class.tx == TxEffect::None;
            alone.then_some(class)
        };
        let reads = |text: &[u8]| judge(text).is_some_and(|class| class.access == Access::Read);
        let Some(class) = judge(&self.text(prepared)) else {
            return own;
        };
        let is_known = matches!(class.access, Access::Read | Access::Primary);
        // A value becomes one of the parameter's type, whichever that is.
        let may_convert = || self.values.is_empty() || catalog.casts().is_none();
        let values = || self.values.is_empty() || reads(&[b"VALUES ", self.values].concat());
        let types = || prepared.types.is_empty() || reads(&prepared.types_named());
        if !(is_known && may_convert() && values() && types()) {
            return own;
        }
        Class {
            access: class.access,
            reason: class.reason,
            ..own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Reason;
    use crate::sql::catalog::TABLES;

    fn check(prepare: &str, execute: &str, expected: (Access, Reason)) {
        let classifier = Classifier::new(1 << 20);
        let own = classifier.classify(execute.as_bytes(), Lexing::default(), &TABLES);
        assert_eq!(own.access, Access::Write, "{execute}");
        let executed = executed(execute.as_bytes()).expect(execute);
        assert_eq!(executed.name, b"p", "{execute}");
        let prepared = prepared(prepare.as_bytes()).expect(prepare);
        let class = executed.class(own, prepared, &classifier, Lexing::default(), &TABLES);
        assert_eq!(
            (class.access, class.reason),
            expected,
            "{prepare}; {execute}"
        );
        assert_eq!(class.session, SessionEffect::Execute, "{execute}");
    }

    #[test]
    fn an_execute_is_what_it_runs() {
        let read = (Access::Read, Reason::Read);
        check("PREPARE p AS SELECT 1", "EXECUTE p", read);
        check("prepare \"p\" as select 1;", "execute /* one */ P;", read);
        check("PREPARE p AS VALUES (1)", "EXECUTE p -- so", read);
        let one = "PREPARE p (int, numeric(10, 2)) AS SELECT $1 + $2";
        check(one, "EXECUTE p (1, 2)", read);
        check(one, "EXECUTE p(1 + length('a)b'), /* ) */ 2);", read);
        check("PREPARE p AS TABLE t", "EXPLAIN EXECUTE p", read);
        check(
            "PREPARE p AS TABLE t",
            "EXPLAIN ANALYZE VERBOSE EXECUTE p",
            read,
        );
        check(
            "PREPARE p AS TABLE t",
            "EXPLAIN (COSTS off, ANALYZE) EXECUTE p",
            read,
        );
        let catalog = (Access::Primary, Reason::Catalog);
        check("PREPARE p AS SELECT 1 FROM pg_class", "EXECUTE p", catalog);
        let insert = "PREPARE p AS INSERT INTO w VALUES (1)";
        let planned = (Access::Primary, Reason::DataModifying);
        check(insert, "EXPLAIN EXECUTE p", planned);
    }

    #[test]
    fn what_may_write_stays_a_write() {
        let session = (Access::Write, Reason::Session);
        let insert = "PREPARE p AS INSERT INTO w VALUES (1)";
        check(insert, "EXECUTE p", session);
        check("PREPARE p AS SELECT nextval('s')", "EXECUTE p", session);
        check("PREPARE p AS SELECT 1 FOR UPDATE", "EXECUTE p", session);
        let one = "PREPARE p (int) AS SELECT $1";
        check(one, "EXECUTE p (nextval('s'))", session);
        check(one, "EXECUTE p (1), (nextval('s'))", session);
        check(one, "EXECUTE p ((SELECT a FROM t FOR UPDATE))", session);
        check("PREPARE p (mine) AS SELECT $1", "EXECUTE p (1)", session);
        check(
            "PREPARE p (int, mine) AS SELECT $1",
            "EXECUTE p (1, 2)",
            session,
        );
        let unknown = (Access::Write, Reason::UnknownConstruct);
        check(insert, "EXPLAIN ANALYZE EXECUTE p", unknown);
        check(insert, "EXPLAIN (ANALYZE) EXECUTE p", unknown);
    }

    #[test]
    fn forms_that_are_not_known() {
        for text in [
            "CREATE TABLE t AS EXECUTE p",
            "EXECUTE p + 1",
            "EXECUTE",
            "EXPLAIN (COSTS 'off') EXECUTE p",
            "EXPLAIN CREATE TABLE t AS EXECUTE p",
            "SELECT 1",
            "",
        ] {
            assert_eq!(executed(text.as_bytes()), None, "{text}");
        }
        let long = format!("EXECUTE {}", "x".repeat(NAMEDATALEN));
        assert_eq!(executed(long.as_bytes()), None);
        for text in [
            "PREPARE p",
            "PREPARE p ('a') AS SELECT 1",
            "PREPARE p (int SELECT 1",
            "PREPARE TRANSACTION 'x'",
            "SELECT 1",
        ] {
            assert_eq!(prepared(text.as_bytes()), None, "{text}");
        }
    }
}
