//! A server that keeps to the protocol, and a little of SQL: transactions, savepoints, settings, prepared statements,
//! portals and COPY. The row of every SELECT tells which settings it ran with.
//!
//! PostgreSQL manual, "Message Flow", protocol-flow.html.

use std::collections::{BTreeMap, BTreeSet};

use pgweir::wire::frame::{self, HEADER};

/// One server connection, seen from the server.
#[derive(Debug, Default)]
pub struct Peer {
    input: Vec<u8>,
    /// Replies on their way.
    pub output: Vec<u8>,
    /// It refuses writes.
    standby: bool,
    /// It refuses reads now and then.
    refusing: bool,
    /// How many it has been given.
    reads: usize,
    /// Something of the unit's result has been sent.
    answered: bool,
    /// It refuses roles.
    pub refuses_roles: bool,
    /// It has said that it ends the session.
    pub closed: bool,
    /// Texts of the prepared statements; the unnamed one has the empty name.
    names: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Statements whose plans have become stale.
    stale: BTreeSet<Vec<u8>>,
    portals: BTreeMap<Vec<u8>, Portal>,
    settings: Settings,
    transaction: Option<Transaction>,
    /// An error has been reported; messages are discarded up to a Sync.
    skipping: bool,
    copy: Option<Copy>,
    /// What nothing but DISCARD ALL takes away.
    left: BTreeSet<&'static str>,
    /// The value of `application_name` that the client has been told.
    told: String,
}

#[derive(Clone, Debug)]
struct Portal {
    text: Vec<u8>,
    rows: usize,
    done: bool,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    session: BTreeMap<String, String>,
    local: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Transaction {
    before: Settings,
    savepoints: Vec<(String, Settings)>,
    /// It ends with its unit.
    implicit: bool,
    failed: bool,
    read_only: bool,
    /// It has what it cannot take elsewhere: it stays where it is, and its client is told what is refused there.
    tied: bool,
}

/// How the Execute or Query came that a COPY belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Copy {
    Simple,
    Extended,
}

type Failure = (&'static str, String);

/// What a statement answers.
enum Done {
    Tag(String),
    /// Rows, all alike.
    Rows(String),
    CopyIn,
}

fn fails<T>(code: &'static str, message: impl Into<String>) -> Result<T, Failure> {
    Err((code, message.into()))
}

impl Peer {
    /// A fresh connection. A standby refuses writes.
    pub fn new(standby: bool) -> Peer {
        Peer {
            standby,
            ..Peer::default()
        }
    }

    /// As a standby that lags, is in recovery's way, and is shut down at times.
    pub fn refusing(self, refusing: bool) -> Peer {
        Peer { refusing, ..self }
    }

    /// A read that the client may have from elsewhere.
    fn turns_away(&mut self, text: &[u8]) -> Result<(), Failure> {
        let is_tied = self.transaction.as_ref().is_some_and(|now| now.tied);
        if !self.refusing || self.answered || is_tied || !text.starts_with(b"select") {
            return Ok(());
        }
        self.reads += 1;
        match self.reads % 12 {
            1 => fails("42P01", "relation does not exist"),
            4 => fails("25006", "cannot do that in a read-only transaction"),
            6 => fails("40001", "canceling statement due to conflict with recovery"),
            9 => {
                if self.reads % 24 == 9 {
                    self.error("FATAL", "57P01", "terminating connection");
                }
                self.closed = true;
                fails("XX000", "nobody hears this")
            }
            _ => Ok(()),
        }
    }

    /// Takes what the proxy sent, and answers the messages that are whole.
    ///
    /// # Panics
    /// When the proxy sent something that is no frame, or a type that is no client's.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(header) = frame::header(rest, 1 << 24).expect("the proxy sends legal frames")
        {
            let Some(body) = rest.get(HEADER..header.total()) else {
                break;
            };
            if !self.closed {
                self.message(header.tag, body);
            }
            rest = &rest[header.total()..];
        }
        self.input = rest.to_vec();
    }

    /// Every statement that is prepared now will fail when it is bound: a table has been altered.
    #[allow(dead_code, reason = "the fuzz targets have no use for it")]
    pub fn make_stale(&mut self) {
        self.stale = self.names.values().cloned().collect();
    }

    /// Why the connection is not as a new client may find it; `settings` are those that the proxy knows of.
    pub fn unclean(&self, settings: usize) -> Option<String> {
        let said = [
            (!self.input.is_empty(), "in the middle of a message"),
            (!self.output.is_empty(), "with a reply on its way"),
            (self.transaction.is_some(), "in a transaction"),
            (self.skipping, "in a group that has failed"),
            (self.copy.is_some(), "in a COPY"),
            (!self.left.is_empty(), "with something left behind"),
            (
                self.settings.session.len() != settings,
                "with settings that are not known",
            ),
        ];
        let what = said.iter().find(|(is_so, _)| *is_so)?.1;
        Some(format!("{what}: {self:?}"))
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if let Some(copy) = self.copy {
            return self.copied(copy, tag, body);
        }
        if self.skipping && tag != b'S' {
            return;
        }
        let result = match tag {
            b'Q' => return self.query(body),
            b'P' => self.parse(body),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'E' => self.execute(body),
            b'C' => {
                let name = target(body);
                if body.first() == Some(&b'S') {
                    self.names.remove(name);
                } else {
                    self.portals.remove(name);
                }
                self.reply(b'3', b"");
                Ok(())
            }
            b'S' => {
                self.skipping = false;
                self.end_unit();
                return self.ready();
            }
            b'F' => return self.call(),
            // Flush; and COPY messages outside of a COPY, which servers ignore.
            b'H' | b'd' | b'c' | b'f' => Ok(()),
            tag => panic!("the proxy sent a message of type {:?}", char::from(tag)),
        };
        if let Err(failure) = result {
            self.fail(&failure);
            self.skipping = true;
        }
    }

    fn copied(&mut self, copy: Copy, tag: u8, _body: &[u8]) {
        match tag {
            b'd' | b'S' | b'H' => return,
            b'c' => self.reply(b'C', b"COPY 1\0"),
            b'f' => {
                self.fail(&("57014", "COPY from stdin failed".into()));
                self.skipping = copy == Copy::Extended;
            }
            _ => {
                self.error("FATAL", "08P01", "unexpected message during COPY");
                self.closed = true;
                return;
            }
        }
        self.copy = None;
        if copy == Copy::Simple {
            self.end_unit();
            self.ready();
        }
    }

    fn query(&mut self, body: &[u8]) {
        let text = strings(body).next().unwrap_or_default().to_vec();
        self.names.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        let statements: Vec<&[u8]> = text
            .split(|byte| *byte == b';')
            .map(<[u8]>::trim_ascii)
            .filter(|text| !text.is_empty())
            .collect();
        if statements.is_empty() {
            self.reply(b'I', b"");
        }
        // As PostgreSQL, which parses the whole before it runs any of it.
        let broken = statements.iter().find(|text| !is_sql(text));
        let mut result = match broken {
            Some(text) => syntax_error(text),
            None => Ok(()),
        };
        for text in statements {
            if result.is_err() {
                break;
            }
            result = self.run(text).map(|done| match done {
                Done::Tag(tag) => self.complete(&tag),
                Done::CopyIn => {
                    self.reply(b'G', b"\0\0\0");
                    self.copy = Some(Copy::Simple);
                }
                Done::Rows(row) => {
                    self.reply(b'T', b"\0\0");
                    let count = rows_of(text);
                    (0..count).for_each(|_| self.row(&row));
                    self.complete(&format!("SELECT {count}"));
                }
            });
        }
        if let Err(failure) = result {
            self.fail(&failure);
        }
        if self.copy.is_none() {
            // After a simple Query nothing is skipped: its ReadyForQuery follows at once.
            self.end_unit();
            self.ready();
        }
    }

    fn call(&mut self) {
        self.start();
        match self.refuses(b"select") {
            Ok(()) => self.reply(b'V', &(-1i32).to_be_bytes()),
            Err(failure) => self.fail(&failure),
        }
        self.end_unit();
        self.ready();
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut strings = strings(body);
        let name = strings.next().unwrap_or_default();
        let text = strings.next().unwrap_or_default();
        if name.is_empty() {
            self.names.remove(name);
        }
        if !text.is_empty() && !is_sql(text) {
            return syntax_error(text);
        }
        self.refuses(text)?;
        self.turns_away(text)?;
        if self.names.contains_key(name) {
            let name = String::from_utf8_lossy(name);
            return fails(
                "42P05",
                format!("prepared statement \"{name}\" already exists"),
            );
        }
        self.stale.remove(text);
        self.names.insert(name.to_vec(), text.to_vec());
        self.reply(b'1', b"");
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut strings = strings(body);
        let portal = strings.next().unwrap_or_default().to_vec();
        let text = self.prepared(strings.next().unwrap_or_default())?;
        self.refuses(&text)?;
        self.turns_away(&text)?;
        if self.stale.contains(&text) && self.returns_rows(&text) {
            return fails("0A000", "cached plan must not change result type");
        }
        self.start();
        if !portal.is_empty() && self.portals.contains_key(&portal) {
            let name = String::from_utf8_lossy(&portal);
            return fails("42P03", format!("cursor \"{name}\" already exists"));
        }
        let rows = if self.returns_rows(&text) {
            rows_of(&text)
        } else {
            0
        };
        self.tie(!portal.is_empty());
        let done = false;
        self.portals.insert(portal, Portal { text, rows, done });
        self.reply(b'2', b"");
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Failure> {
        let name = target(body);
        let is_statement = body.first() == Some(&b'S');
        let text = if is_statement {
            self.prepared(name)?
        } else {
            self.portal(name)?.text.clone()
        };
        let rows = self.returns_rows(&text);
        if rows {
            self.refuses(&text)?;
        }
        if is_statement {
            self.reply(b't', b"\0\0");
        }
        if rows {
            self.reply(b'T', b"\0\0");
        } else {
            self.reply(b'n', b"");
        }
        Ok(())
    }

    fn execute(&mut self, body: &[u8]) -> Result<(), Failure> {
        let name = strings(body).next().unwrap_or_default();
        let limit = body.get(name.len() + 1..).and_then(|n| n.try_into().ok());
        let limit = limit.map_or(0, u32::from_be_bytes) as usize;
        let portal = self.portal(name)?.clone();
        self.refuses(&portal.text)?;
        self.start();
        if portal.text.is_empty() {
            self.reply(b'I', b"");
            return Ok(());
        }
        if portal.done && portal.rows == 0 && !self.returns_rows(&portal.text) {
            return fails("55000", "portal cannot be run");
        }
        self.tie(portal.text.starts_with(b"set"));
        match self.run(&portal.text)? {
            Done::Tag(tag) => self.complete(&tag),
            Done::CopyIn => {
                self.reply(b'G', b"\0\0\0");
                self.copy = Some(Copy::Extended);
            }
            Done::Rows(row) => {
                let now = if limit == 0 {
                    portal.rows
                } else {
                    limit.min(portal.rows)
                };
                (0..now).for_each(|_| self.row(&row));
                if limit > 0 && now == limit {
                    self.reply(b's', b"");
                } else {
                    self.complete(&format!("SELECT {now}"));
                }
                if let Some(portal) = self.portals.get_mut(name) {
                    portal.rows -= now;
                }
            }
        }
        if let Some(portal) = self.portals.get_mut(name) {
            portal.done = true;
        }
        Ok(())
    }

    fn returns_rows(&self, text: &[u8]) -> bool {
        let executed = text.strip_prefix(b"execute ");
        let text = executed.map_or(Some(text), |name| self.names.get(name).map(|text| &**text));
        text.is_some_and(|text| text.starts_with(b"select") || text.starts_with(b"show"))
    }

    fn prepared(&self, name: &[u8]) -> Result<Vec<u8>, Failure> {
        match self.names.get(name) {
            Some(text) => Ok(text.clone()),
            None if name.is_empty() => fails("26000", "unnamed prepared statement does not exist"),
            None => {
                let name = String::from_utf8_lossy(name);
                fails(
                    "26000",
                    format!("prepared statement \"{name}\" does not exist"),
                )
            }
        }
    }

    fn portal(&self, name: &[u8]) -> Result<&Portal, Failure> {
        let said = String::from_utf8_lossy(name);
        let missing = || ("34000", format!("portal \"{said}\" does not exist"));
        self.portals.get(name).ok_or_else(missing)
    }

    /// A transaction that has failed refuses all but its end.
    fn refuses(&self, text: &[u8]) -> Result<(), Failure> {
        let failed = self.transaction.as_ref().is_some_and(|now| now.failed);
        let ends = [&b"rollback"[..], b"commit"];
        let text = text.to_ascii_lowercase();
        if failed && !text.is_empty() && !ends.iter().any(|end| text.starts_with(end)) {
            return fails(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            );
        }
        Ok(())
    }

    fn start(&mut self) {
        if self.transaction.is_none() {
            self.transaction = Some(Transaction {
                before: self.settings.clone(),
                savepoints: Vec::new(),
                implicit: true,
                failed: false,
                read_only: false,
                tied: false,
            });
        }
    }

    fn tie(&mut self, ties: bool) {
        if let Some(now) = &mut self.transaction {
            now.tied |= ties && !now.implicit;
        }
    }

    fn end_unit(&mut self) {
        if self.transaction.as_ref().is_some_and(|now| now.implicit) {
            self.end_transaction(true);
        }
    }

    fn end_transaction(&mut self, commit: bool) {
        if let Some(ended) = self.transaction.take()
            && (!commit || ended.failed)
        {
            self.settings = ended.before;
        }
        self.settings.local.clear();
        self.portals.clear();
    }

    fn fail(&mut self, (code, message): &Failure) {
        self.error("ERROR", code, message);
        match &mut self.transaction {
            Some(now) if !now.implicit => now.failed = true,
            _ => self.end_transaction(false),
        }
    }

    /// Runs one statement.
    fn run(&mut self, text: &[u8]) -> Result<Done, Failure> {
        self.refuses(text)?;
        self.turns_away(text)?;
        self.start();
        let text = String::from_utf8_lossy(text).to_string();
        let lower = text.to_ascii_lowercase();
        let words: Vec<&str> = lower.split_ascii_whitespace().collect();
        let tag = |tag: &str| Ok(Done::Tag(tag.into()));
        self.tie(!matches!(
            words[..],
            ["begin" | "select" | "show" | "execute" | "set", ..]
        ));
        match words[..] {
            ["begin", ..] => {
                if self.transaction.as_ref().is_some_and(|now| !now.implicit) {
                    self.notice("25001");
                } else if let Some(now) = &mut self.transaction {
                    now.implicit = false;
                    now.read_only = words.contains(&"only");
                }
                tag("BEGIN")
            }
            ["commit"] => {
                let now = self.transaction.as_ref();
                let failed = now.is_some_and(|now| now.failed);
                if now.is_some_and(|now| now.implicit) {
                    self.notice("25P01");
                }
                self.end_transaction(true);
                tag(if failed { "ROLLBACK" } else { "COMMIT" })
            }
            ["rollback"] => {
                if self.transaction.as_ref().is_some_and(|now| now.implicit) {
                    self.notice("25P01");
                }
                self.end_transaction(false);
                tag("ROLLBACK")
            }
            ["savepoint", name] => {
                let settings = self.settings.clone();
                self.block("SAVEPOINT")?.push((name.into(), settings));
                tag("SAVEPOINT")
            }
            ["release", name] => {
                let at = self.savepoint("RELEASE SAVEPOINT", name)?;
                self.block("RELEASE SAVEPOINT")?.truncate(at);
                tag("RELEASE")
            }
            ["rollback", "to", name] => {
                let at = self.savepoint("ROLLBACK TO SAVEPOINT", name)?;
                let savepoints = self.block("ROLLBACK TO SAVEPOINT")?;
                savepoints.truncate(at + 1);
                self.settings = savepoints[at].1.clone();
                if let Some(now) = &mut self.transaction {
                    now.failed = false;
                }
                tag("ROLLBACK")
            }
            ["set", _, ..] => self.set(&text, &words).map(|()| Done::Tag("SET".into())),
            ["reset", "all"] => {
                self.settings.session.retain(|name, _| name == "role");
                self.settings.local.retain(|name, _| name == "role");
                tag("RESET")
            }
            ["reset", name] => {
                self.settings.session.remove(name);
                self.settings.local.remove(name);
                tag("RESET")
            }
            ["discard", "all"] => {
                if self.transaction.as_ref().is_some_and(|now| !now.implicit) {
                    return fails("25001", "DISCARD ALL cannot run inside a transaction block");
                }
                self.settings = Settings::default();
                self.names.clear();
                self.portals.clear();
                self.left.clear();
                tag("DISCARD ALL")
            }
            ["discard", "sequences"] => tag("DISCARD SEQUENCES"),
            ["prepare", name, "as", ..] => {
                let body = &text[text.find(" as ").map_or(0, |at| at + 4)..];
                let body = body.as_bytes().to_vec();
                if self.names.contains_key(name.as_bytes()) {
                    return fails(
                        "42P05",
                        format!("prepared statement \"{name}\" already exists"),
                    );
                }
                self.stale.remove(&body);
                self.names.insert(name.into(), body);
                tag("PREPARE")
            }
            ["execute", name] => {
                let text = self.prepared(name.as_bytes())?;
                self.run(&text)
            }
            ["deallocate", "all"] => {
                // All that have names.
                self.names.retain(|name, _| name.is_empty());
                tag("DEALLOCATE ALL")
            }
            ["deallocate", name] => {
                self.prepared(name.as_bytes())?;
                self.names.remove(name.as_bytes());
                tag("DEALLOCATE")
            }
            ["copy", ..] => self.writes("COPY FROM").map(|()| Done::CopyIn),
            ["update", ..] => self.writes("UPDATE").map(|()| Done::Tag("UPDATE 1".into())),
            ["alter", ..] => {
                self.writes("ALTER TABLE")?;
                tag("ALTER TABLE")
            }
            ["create", "temp", ..] => {
                self.writes("CREATE TABLE")?;
                self.left.insert("a table");
                tag("CREATE TABLE")
            }
            ["listen", _] => {
                self.left.insert("a channel");
                tag("LISTEN")
            }
            ["select", "1/0"] => fails("22012", "division by zero"),
            ["select", what] if what.starts_with("nextval") => {
                self.writes("nextval()")?;
                Ok(Done::Rows(what.into()))
            }
            ["select", what] if what.starts_with("pg_advisory_lock") => {
                self.left.insert("a lock");
                Ok(Done::Rows(what.into()))
            }
            ["select", ..] if lower.contains("set_config(") => self.set_config(&text),
            ["select" | "show", ..] => {
                let mut now = self.settings.session.clone();
                now.extend(self.settings.local.clone());
                Ok(Done::Rows(format!("{lower} with {now:?}")))
            }
            _ => syntax_error(text.as_bytes()),
        }
    }

    fn set(&mut self, text: &str, words: &[&str]) -> Result<(), Failure> {
        let is_local = words[1] == "local";
        let words = if is_local || words[1] == "session" {
            &words[2..]
        } else {
            &words[1..]
        };
        let (name, value) = match words {
            ["role", value] | ["role", "to" | "=", value] => ("role", *value),
            ["time", "zone", value] => ("timezone", *value),
            [name, "to" | "=", value] => (*name, *value),
            _ => return syntax_error(text.as_bytes()),
        };
        self.put(name, value.trim_matches('\''), is_local)
    }

    /// `set_config('name', 'value', is_local)`.
    fn set_config(&mut self, text: &str) -> Result<Done, Failure> {
        let parts: Vec<&str> = text.split('\'').collect();
        let [_, name, _, value, end] = parts[..] else {
            return syntax_error(text.as_bytes());
        };
        self.put(name, value, end.contains("true"))?;
        Ok(Done::Rows(value.into()))
    }

    fn put(&mut self, name: &str, value: &str, is_local: bool) -> Result<(), Failure> {
        if name == "nosuch" {
            return fails("42704", "unrecognized configuration parameter");
        }
        if name == "role" && value != "none" && self.refuses_roles {
            return fails("22023", format!("role \"{value}\" does not exist"));
        }
        self.settings.local.remove(name);
        let settings = if is_local {
            &mut self.settings.local
        } else {
            &mut self.settings.session
        };
        settings.insert(name.into(), value.into());
        Ok(())
    }

    fn writes(&self, what: &str) -> Result<(), Failure> {
        if self.standby || self.transaction.as_ref().is_some_and(|now| now.read_only) {
            return fails(
                "25006",
                format!("cannot execute {what} in a read-only transaction"),
            );
        }
        Ok(())
    }

    /// The savepoints of the transaction block.
    fn block(&mut self, what: &str) -> Result<&mut Vec<(String, Settings)>, Failure> {
        match &mut self.transaction {
            Some(now) if !now.implicit => Ok(&mut now.savepoints),
            _ => fails(
                "25P01",
                format!("{what} can only be used in transaction blocks"),
            ),
        }
    }

    fn savepoint(&mut self, what: &str, name: &str) -> Result<usize, Failure> {
        let savepoints = self.block(what)?;
        match savepoints.iter().rposition(|(other, _)| other == name) {
            Some(at) => Ok(at),
            None => fails("3B001", format!("savepoint \"{name}\" does not exist")),
        }
    }

    fn ready(&mut self) {
        let settings = &self.settings;
        let now = settings.local.get("application_name");
        let now = now.or_else(|| settings.session.get("application_name"));
        let now = now.cloned().unwrap_or_default();
        if now != self.told {
            self.reply(b'S', format!("application_name\0{now}\0").as_bytes());
            self.told = now;
        }
        let status: &[u8] = match &self.transaction {
            None => b"I",
            Some(now) if now.failed => b"E",
            Some(_) => b"T",
        };
        self.reply(b'Z', status);
    }

    fn row(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("texts are short");
        let body = [&b"\0\x01"[..], &length.to_be_bytes(), text.as_bytes()].concat();
        self.reply(b'D', &body);
    }

    fn complete(&mut self, tag: &str) {
        self.reply(b'C', format!("{tag}\0").as_bytes());
    }

    fn notice(&mut self, code: &str) {
        let body = format!("SWARNING\0VWARNING\0C{code}\0Mno\0\0");
        self.reply(b'N', body.as_bytes());
    }

    fn error(&mut self, severity: &str, code: &str, message: &str) {
        let mut body = format!("S{severity}\0V{severity}\0C{code}\0M{message}\0");
        if message.starts_with("cached plan") {
            body.push_str("RRevalidateCachedQuery\0");
        }
        body.push('\0');
        self.reply(b'E', body.as_bytes());
    }

    fn reply(&mut self, tag: u8, body: &[u8]) {
        if self.closed {
            return;
        }
        match tag {
            b'D' | b'C' | b's' | b'I' => self.answered = true,
            b'Z' => self.answered = false,
            _ => {}
        }
        frame::put_header(&mut self.output, tag, body.len());
        self.output.extend_from_slice(body);
    }
}

/// The first words of what this server takes for SQL.
const VERBS: &[&str] = &[
    "begin",
    "commit",
    "rollback",
    "savepoint",
    "release",
    "set",
    "reset",
    "discard",
    "prepare",
    "execute",
    "deallocate",
    "copy",
    "update",
    "alter",
    "create",
    "listen",
    "select",
    "show",
];

fn is_sql(text: &[u8]) -> bool {
    let word: Vec<u8> = text
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic())
        .map(u8::to_ascii_lowercase)
        .collect();
    VERBS.iter().any(|verb| verb.as_bytes() == word)
}

fn rows_of(text: &[u8]) -> usize {
    if text.ends_with(b"from t") { 2 } else { 1 }
}

fn syntax_error<T>(text: &[u8]) -> Result<T, Failure> {
    let text = String::from_utf8_lossy(text);
    fails("42601", format!("syntax error at \"{text}\""))
}

/// The name in a Describe or Close.
fn target(body: &[u8]) -> &[u8] {
    strings(body.get(1..).unwrap_or_default())
        .next()
        .unwrap_or_default()
}

fn strings(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == 0)
}
