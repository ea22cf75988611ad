//! LISTEN and UNLISTEN of one channel, as far as they can be carried out without asking a server what they mean.

use super::classify::statements;
use super::setting::Scanner;

/// Longest channel name: PostgreSQL cuts longer ones off (`NAMEDATALEN`, less its terminator).
const MAX_NAME: usize = 63;

/// What a statement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listening {
    /// LISTEN.
    Listen(Box<[u8]>),
    /// UNLISTEN of one channel.
    Unlisten(Box<[u8]>),
    /// `UNLISTEN *`.
    UnlistenAll,
}

impl Listening {
    /// The tag of its CommandComplete.
    pub fn tag(&self) -> &'static [u8] {
        match self {
            Listening::Listen(_) => b"LISTEN",
            _ => b"UNLISTEN",
        }
    }
}

/// Opens a text that is one LISTEN or UNLISTEN and nothing else. `None` for any other, and for what only the server can
/// judge: names that are too long or not ASCII, keywords in the place of a name, broken syntax.
pub fn listening(text: &[u8]) -> Option<Listening> {
    if !text.is_ascii() {
        return None;
    }
    let [statement] = statements(text)[..] else {
        return None;
    };
    let mut scanner = Scanner {
        text: statement,
        at: 0,
    };
    let verb = scanner.word()?;
    if verb == "unlisten" && scanner.rest().first() == Some(&b'*') {
        scanner.at += 1;
        return scanner.is_at_end().then_some(Listening::UnlistenAll);
    }
    let quoted = scanner.rest().first() == Some(&b'"');
    let name = scanner.identifier()?;
    let may_name = quoted || is_name(&name);
    if !scanner.is_at_end() || !may_name || !(1..=MAX_NAME).contains(&name.len()) {
        return None;
    }
    match verb.as_str() {
        "listen" => Some(Listening::Listen(name.into())),
        "unlisten" => Some(Listening::Unlisten(name.into())),
        _ => None,
    }
}

/// Whether an unquoted word may be a channel's name.
fn is_name(word: &[u8]) -> bool {
    word.first()
        .is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
        && std::str::from_utf8(word).is_ok_and(|word| KEYWORDS.binary_search(&word).is_err())
}

/// Words that name nothing without quotes: reserved ones, and those that may be functions or types only. PostgreSQL
/// manual, "SQL Key Words", sql-keywords-appendix.html; the union of the versions 14 to 18. `SELECT word FROM
/// pg_get_keywords() WHERE catcode IN ('R', 'T') ORDER BY word COLLATE "C"`.
const KEYWORDS: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood() {
        let listen = |name: &str| Some(Listening::Listen(name.as_bytes().into()));
        let unlisten = |name: &str| Some(Listening::Unlisten(name.as_bytes().into()));
        let long = format!("LISTEN {}", "a".repeat(63));
        let too_long = format!("LISTEN {}", "a".repeat(64));
        for (text, expected) in [
            ("LISTEN c", listen("c")),
            ("listen News_1;", listen("news_1")),
            ("LISTEN \"News \"\"1\"\"\"", listen("News \"1\"")),
            ("listen \"select\"", listen("select")),
            ("/* a */ LISTEN -- b\n c ; -- d", listen("c")),
            ("listen \"*\"", listen("*")),
            (long.as_str(), listen(&"a".repeat(63))),
            ("UNLISTEN c", unlisten("c")),
            ("unlisten *", Some(Listening::UnlistenAll)),
            ("unlisten * ;", Some(Listening::UnlistenAll)),
            (too_long.as_str(), None),
            ("LISTEN select", None),
            ("LISTEN user", None),
            ("LISTEN \"\"", None),
            ("LISTEN 1", None),
            ("LISTEN $1", None),
            ("LISTEN a.b", None),
            ("LISTEN a, b", None),
            ("LISTEN *", None),
            ("LISTEN", None),
            ("UNLISTEN", None),
            ("LISTEN a; LISTEN b", None),
            ("LISTEN ä", None),
            ("LISTEN U&\"d\\0061t\"", None),
            ("NOTIFY c", None),
            ("select 1", None),
            ("", None),
        ] {
            assert_eq!(listening(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted());
    }
}
