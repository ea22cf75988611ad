//! Settings of a session that differ from its connection's defaults, and the SQL that carries them over.

use std::collections::BTreeMap;

use crate::sql::setting;

/// How a setting's value was given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// A plain string, as startup parameters are.
    Plain(Box<str>),
    /// SQL as typed after `SET name TO`; a server has accepted it before.
    Sql(Box<[u8]>),
}

/// Settings by their name, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Params(BTreeMap<Box<str>, Value>);

impl Params {
    /// Every setting at the connection's default.
    pub const fn none() -> Params {
        Params(BTreeMap::new())
    }

    /// Whether every setting is at the connection's default.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// SET SESSION AUTHORIZATION resets the role, so it goes first.
    pub const IDENTITY: [&str; 2] = ["session_authorization", "role"];

    /// Whether a setting decides who the session is.
    pub fn is_identity(name: &str) -> bool {
        Params::IDENTITY.contains(&name)
    }

    /// How many settings there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Sets a value.
    pub fn set(&mut self, name: &str, value: Value) {
        if name == Params::IDENTITY[0] {
            self.0.remove(Params::IDENTITY[1]);
        }
        self.0.insert(name.into(), value);
    }

    /// Puts a setting back to the connection's default.
    pub fn unset(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Puts a setting back to what `defaults` has for it, or to the connection's default.
    pub fn reset(&mut self, name: &str, defaults: &Params) {
        match defaults.0.get(name) {
            Some(value) => self.set(name, value.clone()),
            None => {
                self.0.remove(name);
                if name == Params::IDENTITY[0] {
                    self.0.remove(Params::IDENTITY[1]);
                }
            }
        }
    }

    /// Every setting with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Whether transactions are serializable unless they say otherwise, which no standby allows; `default` is the
    /// server's own. What is not written plainly may be anything. PostgreSQL manual, hot-standby.html#HOT-STANDBY-CAVEATS.
    pub fn serializable(&self, default: bool) -> bool {
        let other = |text: &[u8]| {
            let bare = match text.trim_ascii() {
                [b'\'', bare @ .., b'\''] | [b'"', bare @ .., b'"'] => bare,
                bare => bare,
            };
            let levels: [&[u8]; 3] = [b"read committed", b"read uncommitted", b"repeatable read"];
            levels.iter().any(|level| bare.eq_ignore_ascii_case(level))
        };
        match self.0.get("default_transaction_isolation") {
            Some(Value::Plain(text)) => !other(text.as_bytes()),
            Some(Value::Sql(sql)) => !other(sql),
            None => default,
        }
    }

    /// For how many milliseconds the session may idle outside of a transaction, by its own setting; 0 if there is no bound.
    pub fn idle_limit(&self) -> u32 {
        match self.0.get(IDLE_SESSION_TIMEOUT) {
            Some(Value::Plain(text)) => setting::milliseconds(text).unwrap_or(0),
            Some(Value::Sql(sql)) => setting::constant_ms(sql).unwrap_or(0),
            None => 0,
        }
    }

    /// The same settings for a connection that nobody uses now, which no server is to end for that.
    #[must_use]
    pub fn at_leisure(&self) -> Params {
        let mut params = self.clone();
        params.unset(IDLE_SESSION_TIMEOUT);
        params
    }

    /// Whether the setting may be tracked: its name can be written unquoted.
    pub fn trackable(name: &str) -> bool {
        !name.is_empty()
            && name.len() <= 127
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'$'))
            && !name.as_bytes()[0].is_ascii_digit()
    }

    /// Whether `wanted` lacks a setting that is here, which goes back to the connection's default.
    pub fn gives_up(&self, wanted: &Params) -> bool {
        self.0.keys().any(|name| !wanted.0.contains_key(name))
    }

    /// Appends the SQL that takes a connection from `self` to `wanted`; nothing if they are the same. True if a server may
    /// refuse it, though it has accepted each of the settings before.
    ///
    /// Settings change with the connection's own rights: another role goes first and comes last.
    pub fn put_difference(&self, wanted: &Params, out: &mut Vec<u8>) -> bool {
        if self == wanted {
            return false;
        }
        // What bounds the time of statements bounds that of these, too.
        let mut refusable = self.0.contains_key("statement_timeout");
        let is_identity = Params::is_identity;
        for name in Params::IDENTITY
            .iter()
            .rev()
            .filter(|name| self.0.contains_key(**name))
        {
            statement(out, &[b"RESET ", name.as_bytes()]);
        }
        let gone = |name: &&str| !is_identity(name) && !wanted.0.contains_key(*name);
        for name in self.0.keys().map(|name| &**name).filter(gone) {
            statement(out, &[b"RESET ", name.as_bytes()]);
        }
        for (name, value) in wanted.0.iter().filter(|(name, _)| !is_identity(name)) {
            if self.0.get(name) != Some(value) {
                refusable |= !always_accepted(name);
                put_set(name, value, out);
            }
        }
        for name in Params::IDENTITY {
            if let Some(value) = wanted.0.get(name) {
                refusable = true;
                put_set(name, value, out);
            }
        }
        refusable
    }

    /// Statements that set all of it, one for each setting. None of them is a query, so that a transaction may still be told
    /// what it is, where that can be helped.
    pub fn sets(&self) -> impl Iterator<Item = Vec<u8>> {
        let identity = self.0.iter().filter(|(name, _)| Params::is_identity(name));
        let others = self.0.iter().filter(|(name, _)| !Params::is_identity(name));
        // The other way round than by their names.
        others.chain(identity.rev()).map(|(name, value)| {
            let mut sql = Vec::new();
            match value {
                Value::Plain(text) if !QUOTED_LISTS.contains(&&**name) => {
                    let value = quoted(text);
                    statement(&mut sql, &[b"SET ", name.as_bytes(), b" TO ", &value]);
                }
                value => put_set(name, value, &mut sql),
            }
            sql
        })
    }

    /// Appends the part of the difference that decides how the text of the rest is read.
    pub fn put_encoding(&self, wanted: &Params, out: &mut Vec<u8>) {
        const ENCODING: &str = "client_encoding";
        match wanted.0.get(ENCODING) {
            Some(value) => put_set(ENCODING, value, out),
            None if self.0.contains_key(ENCODING) => {
                statement(out, &[b"RESET ", ENCODING.as_bytes()])
            }
            None => {}
        }
    }
}

/// What bounds the time that a session idles outside of a transaction. PostgreSQL manual,
/// runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT.
pub const IDLE_SESSION_TIMEOUT: &str = "idle_session_timeout";

/// Settings whose check looks at nothing but the value: what one server has accepted, every other does. The rest may
/// name a role, a tablespace or anything else that is gone by now.
const ALWAYS_ACCEPTED: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    IDLE_SESSION_TIMEOUT,
    "intervalstyle",
    "jit",
    "lock_timeout",
    "maintenance_work_mem",
    "plan_cache_mode",
    "random_page_cost",
    "row_security",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "synchronous_commit",
    "timezone",
    "work_mem",
];

/// Settings that are lists of names: as one string, SET takes the list for one name.
const QUOTED_LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "temp_tablespaces",
];

fn always_accepted(name: &str) -> bool {
    // Servers take any value of the proxy's own.
    ALWAYS_ACCEPTED.contains(&name) || name.starts_with("enable_") || name.starts_with("pgweir.")
}

fn put_set(name: &str, value: &Value, out: &mut Vec<u8>) {
    match value {
        // set_config takes the string as a startup packet would: `SET search_path TO 'a,b'` would be one schema.
        Value::Plain(text) => statement(
            out,
            &[
                b"SELECT pg_catalog.set_config('",
                name.as_bytes(),
                b"', ",
                &quoted(text),
                b", false)",
            ],
        ),
        // Only this form takes INTERVAL and LOCAL.
        Value::Sql(sql) if name == "timezone" => statement(out, &[b"SET TIME ZONE ", sql]),
        Value::Sql(sql) => statement(out, &[b"SET ", name.as_bytes(), b" TO ", sql]),
    }
}

fn statement(out: &mut Vec<u8>, parts: &[&[u8]]) {
    if !out.is_empty() {
        // On a line of its own: a value may end with a comment.
        out.extend_from_slice(b"\n;");
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A string constant that every setting of `standard_conforming_strings` reads alike. PostgreSQL manual,
/// "String Constants with C-Style Escapes", sql-syntax-lexical.html#SQL-SYNTAX-STRINGS-ESCAPE.
fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 4);
    out.extend_from_slice(if text.contains('\\') { b" E'" } else { b"'" });
    for byte in text.bytes() {
        if matches!(byte, b'\'' | b'\\') {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(entries: &[(&str, Value)]) -> Params {
        let mut params = Params::default();
        for (name, value) in entries {
            params.set(name, value.clone());
        }
        params
    }

    fn plain(text: &str) -> Value {
        Value::Plain(text.into())
    }

    fn sql(text: &str) -> Value {
        Value::Sql(text.as_bytes().into())
    }

    #[test]
    fn differences() {
        let check = |from: &[(&str, Value)], to: &[(&str, Value)], expected: &str| {
            let mut out = Vec::new();
            params(from).put_difference(&params(to), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(&[], &[], "");
        check(&[("a", plain("x"))], &[("a", plain("x"))], "");
        check(&[("a", plain("x"))], &[], "RESET a");
        check(
            &[],
            &[("a", plain("it's"))],
            "SELECT pg_catalog.set_config('a', 'it''s', false)",
        );
        check(
            &[],
            &[("a", plain("\\'"))],
            "SELECT pg_catalog.set_config('a',  E'\\\\''', false)",
        );
        check(
            &[("b", sql("1"))],
            &[("a", sql("x, y"))],
            "RESET b\n;SET a TO x, y",
        );
        check(&[], &[("timezone", sql("LOCAL"))], "SET TIME ZONE LOCAL");
        check(
            &[("role", sql("r"))],
            &[("session_authorization", sql("u")), ("role", sql("r"))],
            "RESET role\n;SET session_authorization TO u\n;SET role TO r",
        );
    }

    #[test]
    fn statements_that_set_all_of_it() {
        let all = params(&[
            ("work_mem", plain("1MB")),
            ("search_path", plain("a, b")),
            ("session_authorization", plain("u")),
            ("role", plain("r")),
            ("datestyle", sql("iso, dmy")),
        ]);
        let sets: Vec<_> = all
            .sets()
            .map(|sql| String::from_utf8_lossy(&sql).into_owned())
            .collect();
        assert_eq!(
            sets,
            [
                "SET datestyle TO iso, dmy",
                "SELECT pg_catalog.set_config('search_path', 'a, b', false)",
                "SET work_mem TO '1MB'",
                "SET session_authorization TO 'u'",
                "SET role TO 'r'",
            ]
        );
    }

    #[test]
    fn what_may_be_refused() {
        let refusable = |from: &[(&str, Value)], to: &[(&str, Value)]| {
            params(from).put_difference(&params(to), &mut Vec::new())
        };
        assert!(!refusable(&[], &[("search_path", sql("a"))]));
        assert!(!refusable(&[("role", sql("r"))], &[]));
        assert!(refusable(&[], &[("role", sql("r"))]));
        assert!(refusable(&[], &[("default_tablespace", sql("t"))]));
        assert!(refusable(&[("statement_timeout", sql("1"))], &[]));
    }

    #[test]
    fn how_long_the_session_may_idle() {
        let limit = |value: Value| params(&[(IDLE_SESSION_TIMEOUT, value)]).idle_limit();
        assert_eq!(limit(plain("1min")), 60_000);
        assert_eq!(limit(sql("'2s'")), 2000);
        assert_eq!(limit(sql("0")), 0);
        assert_eq!(limit(plain("soon")), 0);
        assert_eq!(Params::default().idle_limit(), 0);
        let both = params(&[("a", plain("x")), (IDLE_SESSION_TIMEOUT, plain("1s"))]);
        assert_eq!(both.at_leisure(), params(&[("a", plain("x"))]));
    }

    #[test]
    fn what_is_serializable_or_may_be() {
        let says =
            |value: Value| params(&[("default_transaction_isolation", value)]).serializable(false);
        for text in ["read committed", "Repeatable Read"] {
            assert!(!says(plain(text)), "{text}");
        }
        for text in ["'read committed'", " \"READ UNCOMMITTED\" "] {
            assert!(!says(sql(text)), "{text}");
        }
        assert!(says(plain("serializable")));
        for text in [
            "'SERIALIZABLE'",
            "serializable",
            "E'serializabl\\x65'",
            "'read committed",
        ] {
            assert!(says(sql(text)), "{text}");
        }
        assert!(Params::default().serializable(true) && !Params::default().serializable(false));
    }

    #[test]
    fn reset_goes_back_to_the_startup_value() {
        let defaults = params(&[("a", plain("x"))]);
        let mut now = params(&[("a", sql("y")), ("b", sql("z"))]);
        now.reset("a", &defaults);
        now.reset("b", &defaults);
        assert_eq!(now, defaults);
    }

    #[test]
    fn names() {
        for (name, good) in [
            ("work_mem", true),
            ("my.setting", true),
            ("", false),
            ("a b", false),
            ("1a", false),
            ("a;b", false),
        ] {
            assert_eq!(Params::trackable(name), good, "{name}");
        }
    }
}
