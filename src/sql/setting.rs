//! SET and RESET as changes of one setting, and the name in DEALLOCATE.
//!
//! PostgreSQL manual, "SET", sql-set.html. Values are kept as typed: a server has accepted the text and will accept it
//! again.

use super::lexer::{comment, continues_word, is_space};

/// For how long a setting changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// For the session.
    Session,
    /// For the transaction.
    Local,
}

/// To what a setting changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// To this value, as SQL.
    Set(&'a [u8]),
    /// To its default.
    Default,
    /// RESET ALL.
    All,
    /// Several settings at once, each to a value as SQL: what SET SESSION CHARACTERISTICS AS TRANSACTION stands for.
    Several(Vec<(&'static str, &'static str)>),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// For how long.
    pub scope: Scope,
    /// The setting, in lower case; empty for RESET ALL and for several settings.
    pub name: String,
    /// To what.
    pub change: Change<'a>,
}

/// What a SET or RESET is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// One setting, or several.
    Setting(Setting<'a>),
    /// SET TRANSACTION, or the same by the names of settings: it ends with its transaction.
    Transaction,
    /// SET CONSTRAINTS: so does this, and its command tag is one of its own.
    Constraints,
    /// A form that is not known.
    Unknown,
}

/// Settings of the transaction in progress, which look like settings of the session.
const OF_TRANSACTION: [&str; 3] = [
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
];

/// Opens one SET or RESET.
pub fn parse(text: &[u8]) -> Parsed<'_> {
    let mut scanner = Scanner { text, at: 0 };
    let parsed = match scanner.word().as_deref() {
        Some("set") => parse_set(&mut scanner),
        Some("reset") => parse_reset(&mut scanner).map(Parsed::Setting),
        _ => None,
    };
    match parsed {
        Some(Parsed::Setting(setting)) if OF_TRANSACTION.contains(&setting.name.as_str()) => {
            Parsed::Transaction
        }
        Some(parsed) => parsed,
        None => Parsed::Unknown,
    }
}

fn parse_set<'a>(scanner: &mut Scanner<'a>) -> Option<Parsed<'a>> {
    let mut scope = Scope::Session;
    let mut name = scanner.name()?;
    if matches!(name.as_str(), "session" | "local") && !scanner.is_assignment() {
        if name == "local" {
            scope = Scope::Local;
        }
        // SET SESSION AUTHORIZATION, and SET SESSION SESSION AUTHORIZATION: the word may stand twice.
        name = scanner.name()?;
        if name == "session" && !scanner.is_assignment() {
            name = scanner.name()?;
        }
    }
    let setting = match name.as_str() {
        "transaction" if !scanner.is_assignment() => return Some(Parsed::Transaction),
        "constraints" if !scanner.is_assignment() => return Some(Parsed::Constraints),
        "characteristics" if !scanner.is_assignment() => characteristics(scanner),
        "time" if !scanner.is_assignment() => {
            scanner.keyword("zone")?;
            scanner.value(scope, "timezone")
        }
        "xml" if !scanner.is_assignment() => {
            scanner.keyword("option")?;
            scanner.value(scope, "xmloption")
        }
        "names" if !scanner.is_assignment() => scanner.value_or_default(scope, "client_encoding"),
        "schema" if !scanner.is_assignment() => scanner.value(scope, "search_path"),
        "role" if !scanner.is_assignment() => scanner.value(scope, "role"),
        "authorization" if !scanner.is_assignment() => {
            scanner.value(scope, "session_authorization")
        }
        _ if scanner.assignment() => scanner.value(scope, &name),
        _ => None,
    };
    setting.map(Parsed::Setting)
}

/// SET SESSION CHARACTERISTICS AS TRANSACTION … changes the defaults of the session's transactions.
fn characteristics<'a>(scanner: &mut Scanner<'a>) -> Option<Setting<'a>> {
    scanner.keyword("as")?;
    scanner.keyword("transaction")?;
    let mut changes = Vec::new();
    while !scanner.is_at_end() {
        let change = match scanner.word()?.as_str() {
            "read" => match scanner.word()?.as_str() {
                "only" => ("default_transaction_read_only", "on"),
                "write" => ("default_transaction_read_only", "off"),
                _ => return None,
            },
            "deferrable" => ("default_transaction_deferrable", "on"),
            "not" => {
                scanner.keyword("deferrable")?;
                ("default_transaction_deferrable", "off")
            }
            "isolation" => {
                scanner.keyword("level")?;
                ("default_transaction_isolation", isolation_level(scanner)?)
            }
            _ => return None,
        };
        changes.push(change);
        if scanner.rest().first() == Some(&b',') {
            scanner.at += 1;
        }
    }
    (!changes.is_empty()).then(|| Setting {
        scope: Scope::Session,
        name: String::new(),
        change: Change::Several(changes),
    })
}

fn isolation_level(scanner: &mut Scanner<'_>) -> Option<&'static str> {
    match scanner.word()?.as_str() {
        "serializable" => Some("'serializable'"),
        "repeatable" => scanner.keyword("read").map(|()| "'repeatable read'"),
        "read" => match scanner.word()?.as_str() {
            "committed" => Some("'read committed'"),
            "uncommitted" => Some("'read uncommitted'"),
            _ => None,
        },
        _ => None,
    }
}

fn parse_reset<'a>(scanner: &mut Scanner<'a>) -> Option<Setting<'a>> {
    let name = scanner.name()?;
    let (name, change) = match name.as_str() {
        "all" => (String::new(), Change::All),
        "time" => {
            scanner.keyword("zone")?;
            ("timezone".to_owned(), Change::Default)
        }
        "session" => {
            scanner.keyword("authorization")?;
            ("session_authorization".to_owned(), Change::Default)
        }
        _ => (name, Change::Default),
    };
    scanner.is_at_end().then_some(Setting {
        scope: Scope::Session,
        name,
        change,
    })
}

/// The name, in lower case, and the value of `SELECT set_config('…', '…', false)`; `None` for anything else.
pub fn set_config(text: &[u8]) -> Option<(String, String)> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.keyword("select")?;
    let mut function = scanner.word()?;
    if function == "pg_catalog" {
        scanner.symbol(b'.')?;
        function = scanner.word()?;
    }
    if function != "set_config" {
        return None;
    }
    scanner.symbol(b'(')?;
    let name = scanner.string()?;
    scanner.symbol(b',')?;
    let value = scanner.string()?;
    scanner.symbol(b',')?;
    scanner.keyword("false")?;
    scanner.symbol(b')')?;
    let name = name.to_ascii_lowercase();
    // The schema of temporary objects is another one on each connection, and so is what random() returns.
    let followed = scanner.is_at_end()
        && name != "seed"
        && !OF_TRANSACTION.contains(&name.as_str())
        && !(name == "search_path" && value.to_ascii_lowercase().contains("pg_temp"));
    followed.then_some((name, value))
}

/// The value of `SET name TO …`, if it is one plain string, word or number. Its words are in lower case, unless in quotes.
pub fn constant(sql: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text: sql, at: 0 };
    let value = match scanner.rest().first()? {
        b'\'' => scanner.string()?,
        b'"' => String::from_utf8(scanner.identifier()?).ok()?,
        _ => {
            let rest = scanner.rest();
            let is_part = |byte: &u8| continues_word(*byte) || *byte == b'.';
            let length = rest.iter().take_while(|byte| is_part(byte)).count();
            scanner.at += length;
            let word = std::str::from_utf8(&rest[..length]).ok()?;
            (!word.is_empty()).then(|| word.to_ascii_lowercase())?
        }
    };
    scanner.is_at_end().then_some(value)
}

/// The milliseconds of `SET name TO …` for a setting that is a time in them: 0 where no server takes it, `None` if the
/// text does not tell.
pub fn constant_ms(sql: &[u8]) -> Option<u32> {
    let value = constant(sql)?;
    let is_number = value.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_quoted = matches!(sql.trim_ascii_start().first(), Some(b'\'' | b'"'));
    if is_quoted || !is_number {
        return Some(milliseconds(&value).unwrap_or(0));
    }
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        // The lexer's number, for which a zero in front means nothing.
        return Some(value.parse().ok().filter(|ms| *ms <= MOST_MS).unwrap_or(0));
    }
    let is_decimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e');
    let decimal = value.bytes().all(is_decimal);
    decimal.then(|| milliseconds(&value).unwrap_or(0))
}

/// A string as the value of a setting that is a time in milliseconds; `None` if no server takes it. PostgreSQL manual,
/// "Parameter Names and Values", config-setting.html#CONFIG-SETTING-NAMES-VALUES.
pub fn milliseconds(text: &str) -> Option<u32> {
    // A unit, its milliseconds, and those of the next smaller unit, to which fractions are rounded.
    const UNITS: [(&str, f64, f64); 7] = [
        ("", 1.0, 0.0),
        ("d", 86_400_000.0, 3_600_000.0),
        ("h", 3_600_000.0, 60_000.0),
        ("min", 60_000.0, 1_000.0),
        ("s", 1_000.0, 1.0),
        ("ms", 1.0, 0.001),
        ("us", 0.001, 0.0),
    ];
    let text = text.trim_matches(is_c_space);
    let (number, rest) = number(text)?;
    let unit = rest.trim_start_matches(is_c_space);
    let (_, scale, smaller) = UNITS.into_iter().find(|(name, ..)| *name == unit)?;
    let mut value = number * scale;
    if smaller > 0.0 {
        value = (value / smaller).round_ties_even() * smaller;
    }
    let value = value.round_ties_even();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is within the bounds of the type"
    )]
    (0.0..=f64::from(MOST_MS))
        .contains(&value)
        .then_some(value as u32)
}

/// The largest value of a setting that is a time.
const MOST_MS: u32 = i32::MAX as u32;

/// What C takes for space.
fn is_c_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// The number that a text begins with, as C reads it, and what stands behind it.
fn number(text: &str) -> Option<(f64, &str)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let (radix, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => (16, &unsigned[2..]),
        [b'0', ..] => (8, unsigned),
        _ => (10, unsigned),
    };
    let end = |text: &str, radix| {
        let other = |c: char| !c.is_digit(radix);
        text.find(other).unwrap_or(text.len())
    };
    let after = &digits[end(digits, radix)..];
    if !after.starts_with(['.', 'e', 'E']) || radix == 16 {
        let value = u64::from_str_radix(&digits[..digits.len() - after.len()], radix).ok()?;
        #[allow(clippy::cast_precision_loss, reason = "what is so large is refused")]
        return Some((sign * value as f64, after));
    }
    // With a fraction or an exponent it is decimal.
    let whole = end(unsigned, 10);
    let fraction = unsigned[whole..]
        .strip_prefix('.')
        .map_or(0, |rest| 1 + end(rest, 10));
    let mut length = whole + fraction;
    let exponent = unsigned[length..].strip_prefix(['e', 'E']).map(|rest| {
        let signed = usize::from(rest.starts_with(['+', '-']));
        (signed, end(&rest[signed..], 10))
    });
    if let Some((signed, digits)) = exponent.filter(|(_, digits)| *digits > 0) {
        length += 1 + signed + digits;
    }
    let value: f64 = unsigned[..length].parse().ok()?;
    Some((sign * value, &unsigned[length..]))
}

/// The statement that `DEALLOCATE [PREPARE]` names, as the server folds the name. `None` for DEALLOCATE ALL.
pub fn deallocate_target(text: &[u8]) -> Option<Vec<u8>> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.keyword("deallocate")?;
    let mut name = scanner.identifier()?;
    if name.eq(b"prepare") && !scanner.is_at_end() {
        name = scanner.identifier()?;
    }
    (scanner.is_at_end() && name != b"all").then_some(name)
}

/// The name that a PREPARE gives, as the server folds it.
pub fn prepare_target(text: &[u8]) -> Option<Vec<u8>> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.keyword("prepare")?;
    // The server cuts longer names off. PostgreSQL manual, sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS.
    scanner.identifier().filter(|name| name.len() < NAMEDATALEN)
}

/// So long is no name; the server cuts it off.
pub(super) const NAMEDATALEN: usize = 64;

/// A statement about a savepoint, with its name as the server folds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Savepoint {
    /// SAVEPOINT.
    Define(Vec<u8>),
    /// ROLLBACK TO.
    RollBack(Vec<u8>),
    /// RELEASE.
    Release(Vec<u8>),
}

/// Opens a SAVEPOINT, `RELEASE [SAVEPOINT]` or `ROLLBACK [WORK | TRANSACTION] TO [SAVEPOINT]`; `None` for anything else.
pub fn savepoint(text: &[u8]) -> Option<Savepoint> {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.word()?.as_str() {
        "savepoint" => scanner.identifier().map(Savepoint::Define),
        "release" => scanner.savepoint_name().map(Savepoint::Release),
        _ => {
            while scanner.word()? != "to" {}
            scanner.savepoint_name().map(Savepoint::RollBack)
        }
    }
}

pub(super) struct Scanner<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Scanner<'a> {
    fn skip_space(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            match comment(self.text, self.at) {
                Ok(Some(end)) => self.at = end,
                _ if is_space(*byte) => self.at += 1,
                _ => return,
            }
        }
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.skip_space();
        &self.text[self.at..]
    }

    /// A word in lower case.
    pub(super) fn word(&mut self) -> Option<String> {
        let rest = self.rest();
        let length = rest.iter().take_while(|b| continues_word(**b)).count();
        self.at += length;
        let word = std::str::from_utf8(&rest[..length])
            .ok()?
            .to_ascii_lowercase();
        (!word.is_empty()).then_some(word)
    }

    fn keyword(&mut self, expected: &str) -> Option<()> {
        (self.word()? == expected).then_some(())
    }

    fn symbol(&mut self, expected: u8) -> Option<()> {
        let found = self.rest().first() == Some(&expected);
        self.at += usize::from(found);
        found.then_some(())
    }

    /// A plain string of ASCII without backslashes, which every setting reads alike.
    fn string(&mut self) -> Option<String> {
        self.symbol(b'\'')?;
        let mut string = String::new();
        loop {
            match (*self.text.get(self.at)?, self.text.get(self.at + 1)) {
                (b'\'', Some(b'\'')) => {
                    string.push('\'');
                    self.at += 2;
                }
                (b'\'', _) => {
                    self.at += 1;
                    return Some(string);
                }
                (byte, _) if byte.is_ascii() && byte != b'\\' => {
                    string.push(char::from(byte));
                    self.at += 1;
                }
                _ => return None,
            }
        }
    }

    /// A word, or a quoted name without its quotes.
    pub(super) fn identifier(&mut self) -> Option<Vec<u8>> {
        let rest = self.rest();
        if rest.first() != Some(&b'"') {
            return self.word().map(String::into_bytes);
        }
        let mut name = Vec::new();
        let mut at = 1;
        loop {
            match (rest.get(at)?, rest.get(at + 1)) {
                (b'"', Some(b'"')) => {
                    name.push(b'"');
                    at += 2;
                }
                (b'"', _) => break,
                (byte, _) => {
                    name.push(*byte);
                    at += 1;
                }
            }
        }
        self.at += at + 1;
        Some(name)
    }

    /// `[SAVEPOINT] name`.
    fn savepoint_name(&mut self) -> Option<Vec<u8>> {
        let name = self.identifier()?;
        if name == b"savepoint" && !self.is_at_end() {
            return self.identifier();
        }
        Some(name)
    }

    /// The name of a setting: words with dots between them. Names of settings ignore case, quoted or not.
    fn name(&mut self) -> Option<String> {
        let mut name = String::from_utf8(self.identifier()?)
            .ok()?
            .to_ascii_lowercase();
        while self.rest().first() == Some(&b'.') {
            self.at += 1;
            name.push('.');
            name.push_str(
                &String::from_utf8(self.identifier()?)
                    .ok()?
                    .to_ascii_lowercase(),
            );
        }
        Some(name)
    }

    fn is_assignment(&mut self) -> bool {
        let before = self.at;
        let assignment = self.assignment();
        self.at = before;
        assignment
    }

    fn assignment(&mut self) -> bool {
        if self.rest().first() == Some(&b'=') {
            self.at += 1;
            return true;
        }
        self.word().as_deref() == Some("to")
    }

    fn value(&mut self, scope: Scope, name: &str) -> Option<Setting<'a>> {
        let value = trimmed(self.rest());
        if value.is_empty() {
            return None;
        }
        let before = self.at;
        let is_default = self.keyword("default").is_some() && self.is_at_end();
        self.at = before;
        let change = if is_default {
            Change::Default
        } else {
            Change::Set(value)
        };
        Some(Setting {
            scope,
            name: name.to_owned(),
            change,
        })
    }

    /// SET NAMES alone is SET NAMES DEFAULT.
    fn value_or_default(&mut self, scope: Scope, name: &str) -> Option<Setting<'a>> {
        if !self.is_at_end() {
            return self.value(scope, name);
        }
        Some(Setting {
            scope,
            name: name.to_owned(),
            change: Change::Default,
        })
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        trimmed(self.rest()).is_empty()
    }
}

/// Without the semicolon and white space at the end. A comment there stays with the value, where it does no harm: block
/// comments are closed, and a line comment is only kept if its line end is.
fn trimmed(text: &[u8]) -> &[u8] {
    let mut text = text.trim_ascii();
    while let Some(rest) = text.strip_suffix(b";") {
        text = rest.trim_ascii_end();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let check = |text: &str, expected: Option<(Scope, &str, Change<'_>)>| {
            let got = parse(text.as_bytes());
            let got = match &got {
                Parsed::Setting(setting) => {
                    Some((setting.scope, setting.name.as_str(), setting.change.clone()))
                }
                _ => None,
            };
            assert_eq!(got, expected, "{text}");
        };
        let session =
            |name, value: &'static str| Some((Scope::Session, name, Change::Set(value.as_bytes())));
        check("SET work_mem = '4MB'", session("work_mem", "'4MB'"));
        check(
            "set Search_Path to \"$user\", public ;",
            session("search_path", "\"$user\", public"),
        );
        check("SET SESSION a.b TO 1", session("a.b", "1"));
        check(
            "SET LOCAL x=1",
            Some((Scope::Local, "x", Change::Set(b"1"))),
        );
        check("/* c */ set -- d\n x = on", session("x", "on"));
        check("SET TIME ZONE 'UTC'", session("timezone", "'UTC'"));
        check("SET TIME ZONE LOCAL", session("timezone", "LOCAL"));
        check(
            "SET timezone TO DEFAULT",
            Some((Scope::Session, "timezone", Change::Default)),
        );
        check("SET NAMES 'utf8'", session("client_encoding", "'utf8'"));
        check("SET SCHEMA 's'", session("search_path", "'s'"));
        check("SET ROLE admin", session("role", "admin"));
        check("SET role = admin", session("role", "admin"));
        check(
            "SET SESSION AUTHORIZATION joe",
            session("session_authorization", "joe"),
        );
        check(
            "RESET work_mem",
            Some((Scope::Session, "work_mem", Change::Default)),
        );
        check("RESET ALL;", Some((Scope::Session, "", Change::All)));
        check(
            "RESET SESSION AUTHORIZATION",
            Some((Scope::Session, "session_authorization", Change::Default)),
        );
        check(
            "RESET TIME ZONE",
            Some((Scope::Session, "timezone", Change::Default)),
        );
        check(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            Some((
                Scope::Session,
                "",
                Change::Several(vec![
                    ("default_transaction_isolation", "'repeatable read'"),
                    ("default_transaction_read_only", "on"),
                ]),
            )),
        );
        check(
            "SET SESSION CHARACTERISTICS AS TRANSACTION DEFERRABLE NOT DEFERRABLE",
            Some((
                Scope::Session,
                "",
                Change::Several(vec![
                    ("default_transaction_deferrable", "on"),
                    ("default_transaction_deferrable", "off"),
                ]),
            )),
        );
        check("SET XML OPTION DOCUMENT", session("xmloption", "DOCUMENT"));
        check(
            "SET SESSION SESSION AUTHORIZATION joe",
            session("session_authorization", "joe"),
        );
        check(
            "SET NAMES",
            Some((Scope::Session, "client_encoding", Change::Default)),
        );
    }

    #[test]
    fn what_is_no_setting_of_the_session() {
        for (text, expected) in [
            ("SET TRANSACTION READ ONLY", Parsed::Transaction),
            ("SET LOCAL TRANSACTION READ ONLY", Parsed::Transaction),
            ("SET transaction_read_only = off", Parsed::Transaction),
            (
                "SET SESSION transaction_isolation TO 'serializable'",
                Parsed::Transaction,
            ),
            ("RESET transaction_isolation", Parsed::Transaction),
            ("SET CONSTRAINTS ALL DEFERRED", Parsed::Constraints),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION",
                Parsed::Unknown,
            ),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION FAST",
                Parsed::Unknown,
            ),
            ("SET x", Parsed::Unknown),
            ("SET x =", Parsed::Unknown),
            ("SELECT 1", Parsed::Unknown),
            ("", Parsed::Unknown),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn whole_set_configs() {
        let set = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        for (text, expected) in [
            (
                "select set_config('a.B', 'it''s', false)",
                set("a.b", "it's"),
            ),
            (
                "SELECT pg_catalog.set_config ( 'x' , '' , FALSE ) ;",
                set("x", ""),
            ),
            ("select set_config('a', 'b', true)", None),
            ("select set_config('search_path', 'pg_temp', false)", None),
            ("select set_config('a', 'b', false), 1", None),
            ("select set_config('a', 'b', false) from t", None),
            ("select set_config('a', $1, false)", None),
            ("select set_config('a', 'b' 'c', false)", None),
            ("select set_config('a', E'b', false)", None),
            ("select set_config('a', 'b\\', false)", None),
            ("select my.set_config('a', 'b', false)", None),
            ("select set_config('a', 'b', false", None),
        ] {
            assert_eq!(set_config(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn times_as_settings_have_them() {
        for (text, expected) in [
            ("0", Some(0)),
            (" 1500 ", Some(1500)),
            ("1s", Some(1000)),
            ("1.5 s", Some(1500)),
            (".5s", Some(500)),
            ("1e3", Some(1000)),
            ("1E+1s", Some(10_000)),
            ("+2 min", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("1d", Some(86_400_000)),
            ("24d", Some(2_073_600_000)),
            ("25d", None),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", None),
            ("1500us", Some(2)),
            ("499us", Some(0)),
            ("0.5", Some(0)),
            ("1.00005min", Some(60_000)),
            ("0x10", Some(16)),
            ("0xes", Some(14_000)),
            ("010s", Some(8000)),
            ("010.5s", Some(10_500)),
            ("08", None),
            ("-1", None),
            ("-0", Some(0)),
            ("1S", None),
            ("1sec", None),
            ("1 s s", None),
            ("1e", None),
            ("s", None),
            ("", None),
            ("inf", None),
            ("0x", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text:?}");
        }
        for (sql, expected) in [
            ("1000", Some(1000)),
            ("010", Some(10)),
            ("'010'", Some(8)),
            ("'1 min' -- as typed", Some(60_000)),
            ("\"1s\"", Some(1000)),
            ("1.5e3", Some(1500)),
            ("'soon'", Some(0)),
            ("never", Some(0)),
            ("3000000000", Some(0)),
            ("0x10", None),
            ("1_000", None),
            ("+5", None),
            ("E'1s'", None),
            ("'1s', '2s'", None),
        ] {
            assert_eq!(constant_ms(sql.as_bytes()), expected, "{sql}");
        }
    }

    #[test]
    fn savepoints() {
        let name = |text: &str| text.as_bytes().to_vec();
        for (text, expected) in [
            ("SAVEPOINT Foo", Some(Savepoint::Define(name("foo")))),
            (
                "rollback to \"Foo\";",
                Some(Savepoint::RollBack(name("Foo"))),
            ),
            (
                "ROLLBACK WORK TO SAVEPOINT a",
                Some(Savepoint::RollBack(name("a"))),
            ),
            (
                "ROLLBACK TO savepoint",
                Some(Savepoint::RollBack(name("savepoint"))),
            ),
            ("RELEASE a", Some(Savepoint::Release(name("a")))),
            ("release savepoint a;", Some(Savepoint::Release(name("a")))),
            ("ROLLBACK", None),
            ("", None),
        ] {
            assert_eq!(savepoint(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn prepared_names() {
        let name = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(
            prepare_target(b"PREPARE Foo (int) AS SELECT $1"),
            name("foo")
        );
        assert_eq!(
            prepare_target(b"/* x */ prepare \"A b\" as select 1"),
            name("A b")
        );
        assert_eq!(prepare_target(b"PREPARE"), None);
        let long = format!("PREPARE {} AS SELECT 1", "x".repeat(64));
        assert_eq!(prepare_target(long.as_bytes()), None);
    }

    #[test]
    fn deallocated_names() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                deallocate_target(text.as_bytes()),
                expected.map(|name| name.as_bytes().to_vec()),
                "{text}"
            );
        };
        check("DEALLOCATE Foo", Some("foo"));
        check("deallocate prepare \"Foo\";", Some("Foo"));
        check("DEALLOCATE \"a\"\"b\"", Some("a\"b"));
        check("DEALLOCATE prepare", Some("prepare"));
        check("DEALLOCATE ALL", None);
        check("DEALLOCATE PREPARE ALL", None);
        check("DEALLOCATE a b", None);
        check("SELECT 1", None);
    }

    #[test]
    fn constants() {
        let check = |sql: &str, expected: Option<&str>| {
            assert_eq!(constant(sql.as_bytes()).as_deref(), expected, "{sql}");
        };
        check("'it''s'", Some("it's"));
        check("Primary", Some("primary"));
        check("\"Primary\"", Some("Primary"));
        check(" 1.5 -- so", Some("1.5"));
        check("'a' /* b */;", Some("a"));
        check("'a', 'b'", None);
        check("a b", None);
        check("E'a'", None);
        check("-1", None);
        check("", None);
    }
}
