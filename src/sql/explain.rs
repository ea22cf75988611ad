//! What a verdict rests on, for people: the construct that decided, where it stands, and by way of what.

use std::fmt;

use super::class::{Access, Class, Reason};
use super::keyword::{self, Verdict};
use super::lexer::Lexed;
use super::walk::Finding;

/// A class and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict.
    pub class: Class,
    /// The name or construct that decided, or what the parser says; empty if the reason says it all.
    pub detail: String,
    /// Where in the text it stands. `None` for what has no place of its own, such as a text that is too long, and for
    /// reads, which nothing decides against.
    pub place: Option<Place>,
    /// How what the text names comes to be what it is, link by link: a view, a function in it, what that calls. Empty
    /// where the text itself says it.
    pub chain: Vec<String>,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// What the parser's side of the room has to say of a verdict.
#[derive(Debug, Default)]
pub(super) struct Basis {
    detail: String,
    place: Option<Place>,
    /// The place is where what was parsed ends: what decided comes next.
    behind: bool,
    chain: Vec<String>,
}

impl Basis {
    /// Something that is said of the text as a whole. The parser ends its errors with their place.
    pub(super) fn said(text: &str) -> Basis {
        Basis {
            detail: text.to_owned(),
            place: place_in_error(text),
            ..Basis::default()
        }
    }

    /// An operator that is not known to be harmless, which is a part of the text.
    pub(super) fn operator(text: &[u8], operator: &[u8]) -> Basis {
        let at = operator.as_ptr().addr().wrapping_sub(text.as_ptr().addr());
        Basis {
            detail: format!("operator {}", String::from_utf8_lossy(operator)),
            place: Some(Place::of(text, at)),
            ..Basis::default()
        }
    }

    /// Something in the tree.
    pub(super) fn found(finding: Finding) -> Basis {
        // The parser tells nothing of where locking clauses stand, but they are the last of their query.
        let behind = finding.reason == Reason::Locking;
        let place = finding.span.and_then(|span| {
            let location = if behind { span.end } else { span.start };
            Place::new(location.line, location.column)
        });
        Basis {
            detail: finding.what,
            place,
            behind,
            chain: finding.chain,
        }
    }
}

impl Explanation {
    pub(super) fn new(class: Class, basis: Basis, text: &[u8], lexed: &Lexed) -> Explanation {
        let place = match basis.place {
            Some(place) if basis.behind => Some(place.next_word(text)),
            Some(place) => Some(place),
            None => decisive(class, text, lexed),
        };
        Explanation {
            class,
            detail: basis.detail,
            place,
            chain: basis.chain,
        }
    }

    /// Where such a statement goes, in a word.
    pub fn target(&self) -> &'static str {
        match self.class.access {
            Access::Read => "standby",
            Access::Primary | Access::Write => "primary",
            Access::Neutral => "current place",
            Access::Empty => "nowhere",
        }
    }

    /// The links of the chain in one line; empty if there is none.
    pub fn chain_text(&self) -> String {
        self.chain.join(" -> ")
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (access, reason) = (self.class.access.as_str(), self.class.reason.as_str());
        write!(f, "{} ({access}, {reason}", self.target())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        f.write_str(")")
    }
}

impl Place {
    fn new(line: u64, column: u64) -> Option<Place> {
        let number = |number: u64| usize::try_from(number).ok().filter(|number| *number > 0);
        Some(Place {
            line: number(line)?,
            column: number(column)?,
        })
    }

    /// Of a byte of a text.
    fn of(text: &[u8], at: usize) -> Place {
        let before = text.get(..at).unwrap_or(text);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
        Place {
            line,
            column: String::from_utf8_lossy(&before[start..]).chars().count() + 1,
        }
    }

    /// The first character from here on that is no space, also on a later line.
    fn next_word(self, text: &[u8]) -> Place {
        let text = String::from_utf8_lossy(text);
        let mut at = self;
        for line in text.split('\n').skip(self.line - 1) {
            let rest = line.chars().skip(at.column - 1);
            if let Some(space) = rest.into_iter().position(|c| !c.is_whitespace()) {
                at.column += space;
                return at;
            }
            at = Place {
                line: at.line + 1,
                column: 1,
            };
        }
        self
    }

    /// The line of the text that the place is in, and below it a caret that points there.
    pub fn excerpt(self, text: &str) -> String {
        let line = text.split('\n').nth(self.line - 1).unwrap_or_default();
        let characters: Vec<char> = line.trim_end().chars().collect();
        let at = (self.column - 1).min(characters.len());
        let from = at.saturating_sub(EXCERPT_BEFORE);
        let to = characters.len().min(at + EXCERPT_BEHIND);
        let (before, after) = (
            if from > 0 { "…" } else { "" },
            if to < characters.len() { "…" } else { "" },
        );
        // Tabs stay where they are, so that the caret is below its character whatever their width.
        let indent: String = characters[from..at]
            .iter()
            .map(|c| if *c == '\t' { '\t' } else { ' ' })
            .collect();
        let shown: String = characters[from..to].iter().collect();
        let pad = if before.is_empty() { "" } else { " " };
        format!("{before}{shown}{after}\n{pad}{indent}^")
    }
}

/// Characters of a line that are shown before and behind what a caret points at: a statement may be one line of
/// thousands.
const EXCERPT_BEFORE: usize = 60;
const EXCERPT_BEHIND: usize = 60;

/// The statement whose first words decided.
fn decisive(class: Class, text: &[u8], lexed: &Lexed) -> Option<Place> {
    let decided = |start: &u32| match keyword::judge(&lexed.key[*start as usize..]) {
        Verdict::Class(of_it) if class.reason == Reason::SeveralStatements => {
            of_it.access != Access::Read
        }
        Verdict::Class(of_it) => of_it.reason == class.reason,
        Verdict::Parse => false,
    };
    let which = lexed.starts.iter().position(decided)?;
    let (start, _) = lexed.spans.get(which)?;
    Some(Place::of(text, *start as usize))
}

/// "… at Line: 1, Column: 8", as sqlparser has it.
fn place_in_error(text: &str) -> Option<Place> {
    let (_, place) = text.rsplit_once("Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Place::new(line.parse().ok()?, column.trim_end().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::catalog::TABLES;
    use crate::sql::{Classifier, Lexing};

    fn explain(text: &str) -> Explanation {
        Classifier::new(1 << 20).explain(text.as_bytes(), Lexing::default(), &TABLES)
    }

    #[test]
    fn what_decided_has_a_place() {
        let check = |text: &str, word: Option<&str>| {
            let place = word.map(|word| {
                let at = text.find(word).expect("the word is in the text");
                Place::of(text.as_bytes(), at)
            });
            let explanation = explain(text);
            assert_eq!(explanation.place, place, "{text}: {explanation}");
        };
        check("select 1", None);
        check("", None);
        check("select nextval('s')", Some("nextval"));
        check("select a,\n  ä, nextval('s')", Some("nextval"));
        check("select (select\n\t max(f(x)) from t)", Some("f(x)"));
        check("select * from t, dblink('x') as d", Some("dblink"));
        check("select * from pg_class", Some("pg_class"));
        check(
            "select * from a join pg_catalog.pg_class on true",
            Some("pg_catalog"),
        );
        check("select 1 + 'x'::mytype", Some("'x'"));
        check(
            "select * from t where a = 1\n for update",
            Some("for update"),
        );
        check("select * from t limit 3 for share of t", Some("for share"));
        check("select * into x from t", Some("x from"));
        check(
            "with w as (insert into t values (1) returning a) select * from w",
            Some("insert"),
        );
        check("insert into t values (1)", Some("insert"));
        check("select 1; select 2;\n  /* c */ drop table t", Some("drop"));
        check("select 1; begin; select 2", Some("begin"));
        check("  begin", Some("begin"));
        check("select 1 + ) from t", Some(") from"));
    }

    #[test]
    fn a_caret_points_at_the_place() {
        let check = |text: &str, line: usize, column: usize, expected: &str| {
            assert_eq!(Place { line, column }.excerpt(text), expected, "{text:?}");
        };
        check("select f()", 1, 8, "select f()\n       ^");
        check("select\n\tä, f()\nfrom t", 2, 5, "\tä, f()\n\t   ^");
        check("ab", 1, 3, "ab\n  ^");
        check("ab", 7, 9, "\n^");
        let long = format!("{}f(){}", "x".repeat(100), "y".repeat(100));
        let (shown, caret) = ("x".repeat(60), " ".repeat(61));
        let expected = format!("…{shown}f(){}…\n{caret}^", "y".repeat(57));
        check(&long, 1, 101, &expected);
    }

    #[test]
    fn a_chain_is_one_line() {
        let links = ["view v", "function f", "nextval"];
        let explanation = Explanation {
            chain: links.map(str::to_owned).to_vec(),
            ..explain("select * from v")
        };
        assert_eq!(explanation.chain_text(), "view v -> function f -> nextval");
    }
}
