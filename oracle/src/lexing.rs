//! PostgreSQL's scanner beside pgweir's lexer: the same statements in a text, beginning with the same words.

use crate::sql::catalog::TABLES;
use crate::sql::{self, Access, Classifier, Lexing, Reason};
use pg_query::protobuf::Token;

use crate::compare::line;
use crate::figure::Figure;
use crate::truth;

/// What came of it.
#[derive(Debug, Default)]
pub struct Lexings {
    texts: u64,
    scanned: u64,
    not_lexed: u64,
    parsed: u64,
    wrong: Vec<String>,
}

/// Most disagreements that are printed.
const SHOWN: usize = 20;

impl Lexings {
    /// Asks both of a text.
    pub fn add(&mut self, text: &[u8]) {
        self.texts += 1;
        self.without_a_safe_encoding(text);
        let Ok(text) = std::str::from_utf8(text) else {
            return;
        };
        self.with_escapes(text);
        let Some(theirs) = scanned(text) else {
            return;
        };
        self.scanned += 1;
        let ours = lexed(text);
        if ours.is_empty() && !theirs.is_empty() {
            // Not lexed to its end: then it must not be taken for anything but a write.
            self.not_lexed += 1;
            let access = classify(text.as_bytes(), Lexing::default());
            if access.0 != Access::Write {
                self.wrong(text, &format!("not lexed, but {access:?}"));
            }
            return;
        }
        if ours != theirs {
            self.wrong(
                text,
                &format!("statements at {ours:?}, for PostgreSQL at {theirs:?}"),
            );
            return;
        }
        self.parser(text, ours.len());
    }

    /// The parser may see less statements than there are semicolons: in bodies of functions and rules.
    fn parser(&mut self, text: &str, count: usize) {
        let lower = text.to_ascii_lowercase();
        if lower.contains("atomic") || lower.contains("rule") {
            return;
        }
        if let Some(statements) = truth::statements(text) {
            self.parsed += 1;
            if statements.len() != count {
                self.wrong(
                    text,
                    &format!("{count} statements, parsed are {}", statements.len()),
                );
            }
        }
    }

    /// With backslash escapes in plain strings, what is not told as unsafe must mean the same.
    fn with_escapes(&mut self, text: &str) {
        let lexing = Lexing {
            standard_conforming_strings: false,
            ..Lexing::default()
        };
        let (access, reason) = classify(text.as_bytes(), lexing);
        if reason == Reason::UnsafeText && access == Access::Write {
            return;
        }
        let (plain, escaped) = (
            truth::statements(text),
            truth::statements_with_escapes(text),
        );
        if plain != escaped {
            self.wrong(
                text,
                &format!("{access:?} without standard-conforming strings"),
            );
        }
    }

    fn without_a_safe_encoding(&mut self, text: &[u8]) {
        let lexing = Lexing {
            safe_encoding: false,
            ..Lexing::default()
        };
        if !text.is_ascii() && classify(text, lexing).0 != Access::Write {
            self.wrong(
                &String::from_utf8_lossy(text),
                "not ASCII in an unsafe encoding",
            );
        }
    }

    fn wrong(&mut self, text: &str, why: &str) {
        self.wrong
            .push(format!("{why}\n    {:?}", line(text.as_bytes(), 1000)));
    }

    /// Whether all agree.
    pub fn disagreements(&self) -> Figure {
        let count = self.wrong.len();
        Figure::new("lexing: disagreements", count, "0", count == 0)
    }
}

impl std::fmt::Display for Lexings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "Lexing, over all texts above and cut ones")?;
        writeln!(f, "  texts                        {:>9}", self.texts)?;
        writeln!(f, "  scanned by PostgreSQL        {:>9}", self.scanned)?;
        writeln!(f, "  of these not lexed: writes   {:>9}", self.not_lexed)?;
        writeln!(f, "  statements counted by both   {:>9}", self.parsed)?;
        writeln!(f, "  disagreements                {:>9}", self.wrong.len())?;
        for wrong in self.wrong.iter().take(SHOWN) {
            writeln!(f, "  WRONG: {wrong}")?;
        }
        Ok(())
    }
}

fn classify(text: &[u8], lexing: Lexing) -> (Access, Reason) {
    thread_local! {
        static CLASSIFIER: Classifier = Classifier::new(1 << 12);
    }
    let class = CLASSIFIER.with(|classifier| classifier.classify(text, lexing, &TABLES));
    (class.access, class.reason)
}

/// Where each statement begins, and where its semicolon stands, as PostgreSQL's scanner sees it; `None` for what it
/// refuses.
fn scanned(text: &str) -> Option<Vec<(usize, usize)>> {
    let mut found = Vec::new();
    // pg_query makes a slice of a null pointer where there is no token.
    if text.bytes().all(|byte| b" \t\n\r\x0b\x0c".contains(&byte)) {
        return Some(found);
    }
    let mut start = None;
    for token in pg_query::scan_tokens(text).ok()? {
        let at = usize::try_from(token.start).ok()?;
        match Token::try_from(token.token).ok()? {
            Token::SqlComment | Token::CComment => {}
            Token::Ascii59 => found.extend(start.take().map(|start| (start, at))),
            _ => {
                start.get_or_insert(at);
            }
        }
    }
    found.extend(start.map(|start| (start, text.len())));
    Some(found)
}

fn lexed(text: &str) -> Vec<(usize, usize)> {
    let base = text.as_ptr() as usize;
    sql::statements(text.as_bytes())
        .iter()
        .map(|statement| {
            let start = statement.as_ptr() as usize - base;
            (start, start + statement.len())
        })
        .collect()
}
