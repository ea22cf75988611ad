//! Settings that statements change, from the moment they are sent until their transaction has ended.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::link::{IDLE_SESSION_TIMEOUT, Link, Params, Value};
use crate::sql::Savepoint;
use crate::sql::setting::{Change, Parsed, Scope, Setting, constant_ms};
use crate::wire::Status;

/// Tags of the statements that leave entries, and of those that settle them.
const TAGS: [&[u8]; 8] = [
    b"SET\0",
    b"RESET\0",
    b"SAVEPOINT\0",
    b"RELEASE\0",
    b"ROLLBACK\0",
    b"COMMIT\0",
    b"PREPARE TRANSACTION\0",
    b"SELECT 1\0",
];

/// Most settings that are followed. A session that makes more of them keeps its server connection.
pub(super) const MAX_SETTINGS: usize = 256;

/// One change that a SET or RESET asks for.
#[derive(Clone, Debug)]
enum Pending {
    Set(Box<str>, Value),
    /// The same by set_config, which has a tag of its own.
    Config(Box<str>, Box<str>),
    Several(Vec<(&'static str, &'static str)>),
    Reset(Box<str>, Restored),
    ResetAll(Restored),
    /// Ends with its transaction, on the connection that runs it.
    Nothing,
    /// Where ROLLBACK TO this name goes back to.
    Savepoint(Vec<u8>),
    RollBackTo(Vec<u8>),
    Release(Vec<u8>),
}

impl Pending {
    /// Whether it belongs to a SET or RESET.
    fn is_change(&self) -> bool {
        !matches!(
            self,
            Pending::Savepoint(_)
                | Pending::RollBackTo(_)
                | Pending::Release(_)
                | Pending::Config(..)
        )
    }

    /// The one setting that it changes. The identity is left out, because one part of it may change the other.
    fn name(&self) -> Option<&str> {
        match self {
            Pending::Set(name, _) | Pending::Reset(name, _) if !Params::is_identity(name) => {
                Some(name)
            }
            _ => None,
        }
    }
}

/// Whether the connection has been given the value of the session's startup packet after a RESET, which goes back to the
/// connection's own default.
type Restored = bool;

/// The changes whose outcome is open.
///
/// Every statement that may change settings leaves an entry when it is sent, and the command tags of the replies say
/// which of them have taken effect, and which transaction ends settle them.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// What RESET goes back to.
    defaults: Arc<Params>,
    /// Sent, not answered.
    sent: VecDeque<Pending>,
    /// Entries of the unit in progress that have been answered.
    answered: u32,
    /// Entries of the unit in progress, once its end has been sent.
    in_unit: Option<u32>,
    /// Succeeded inside a transaction that is still open.
    in_transaction: Vec<Pending>,
}

/// The settings of the session and those of its connection. They differ after a RESET: the connection goes back to its
/// own defaults, the session to those of its startup packet.
pub(super) struct Settled {
    pub(super) session: Arc<Params>,
    pub(super) connection: Arc<Params>,
}

impl Settings {
    pub(super) fn new(defaults: Arc<Params>) -> Settings {
        Settings {
            defaults,
            ..Settings::default()
        }
    }

    /// Notes a SET or RESET that is being sent. Returns how many entries it leaves; `None` if it cannot be followed.
    pub(super) fn send(&mut self, parsed: &Parsed<'_>) -> Option<u32> {
        let pending = match parsed {
            Parsed::Constraints => return Some(0),
            Parsed::Transaction => Pending::Nothing,
            Parsed::Setting(setting) => pending(setting)?,
            Parsed::Unknown => return None,
        };
        self.sent.push_back(pending);
        Some(1)
    }

    /// Notes a set_config that is being sent. Returns how many entries it leaves; `None` if it cannot be followed.
    pub(super) fn send_config(&mut self, name: &str, value: &str) -> Option<u32> {
        if !Params::trackable(name) {
            return None;
        }
        self.sent
            .push_back(Pending::Config(name.into(), value.into()));
        Some(1)
    }

    /// Notes a statement about a savepoint that is being sent.
    pub(super) fn send_savepoint(&mut self, savepoint: Savepoint) {
        self.sent.push_back(match savepoint {
            Savepoint::Define(name) => Pending::Savepoint(name),
            Savepoint::RollBack(name) => Pending::RollBackTo(name),
            Savepoint::Release(name) => Pending::Release(name),
        });
    }

    /// Whether a RESET takes the session to another value than its connection.
    pub(super) fn parts(&self, parsed: &Parsed<'_>) -> bool {
        let Parsed::Setting(setting) = parsed else {
            return false;
        };
        match setting.change {
            Change::All => !self.defaults.is_empty(),
            Change::Default => self.defaults.get(&setting.name).is_some(),
            _ => false,
        }
    }

    /// What brings back the values of the startup packet behind the RESET that was noted last, of which the session has been
    /// told nothing yet: then both are where RESET takes the session.
    pub(super) fn restore_behind(&mut self) -> Params {
        let mut wanted = Params::default();
        match self.sent.back_mut() {
            Some(Pending::Reset(name, restored)) => {
                *restored = true;
                wanted.reset(name, &self.defaults);
            }
            Some(Pending::ResetAll(restored)) => {
                *restored = true;
                wanted = (*self.defaults).clone();
                Params::IDENTITY.iter().for_each(|name| wanted.unset(name));
            }
            _ => {}
        }
        wanted
    }

    /// Whether no change is open.
    pub(super) fn are_quiet(&self) -> bool {
        self.sent.is_empty() && self.in_transaction.is_empty()
    }

    /// Whether so many changes are open that following them costs too much.
    pub(super) fn are_too_many(&self) -> bool {
        self.in_transaction.len() >= MAX_SETTINGS
    }

    /// Whether a command tag is of interest.
    pub(super) fn want(&self, tag: &[u8]) -> bool {
        let open = !self.sent.is_empty() || !self.in_transaction.is_empty();
        open && TAGS.contains(&tag)
    }

    /// Entries of the unit in progress; `count` is asked once for each unit whose end has been sent.
    pub(super) fn in_unit(&mut self, open: u32, count: impl FnOnce() -> Option<u32>) -> u32 {
        self.in_unit = self.in_unit.or_else(count);
        self.in_unit.unwrap_or(open)
    }

    /// The unit in progress has got another end.
    pub(super) fn unit_changed(&mut self) {
        self.in_unit = None;
    }

    /// A command of a unit with `count` entries has completed.
    pub(super) fn completed(
        &mut self,
        tag: &[u8],
        count: u32,
        session: &Arc<Params>,
        connection: &Arc<Params>,
    ) -> Option<Settled> {
        match tag {
            b"SET\0" | b"RESET\0" => {
                if let Some(done) = self.answer(count, Pending::is_change) {
                    self.succeeded(done);
                }
            }
            b"SELECT 1\0" => {
                let done = self.answer(count, |next| matches!(next, Pending::Config(..)));
                if let Some(Pending::Config(name, value)) = done {
                    self.succeeded(Pending::Set(name, Value::Plain(value)));
                }
            }
            b"SAVEPOINT\0" => {
                let done = self.answer(count, |next| matches!(next, Pending::Savepoint(_)));
                self.in_transaction.extend(done);
            }
            b"RELEASE\0" => {
                let done = self.answer(count, |next| matches!(next, Pending::Release(_)));
                if let Some(Pending::Release(name)) = done {
                    self.release(&name);
                }
            }
            b"ROLLBACK\0" => {
                match self.answer(count, |next| matches!(next, Pending::RollBackTo(_))) {
                    Some(Pending::RollBackTo(name)) => self.roll_back_to(&name),
                    _ => self.in_transaction.clear(),
                }
            }
            b"COMMIT\0" | b"PREPARE TRANSACTION\0" => return self.settle(session, connection),
            _ => {}
        }
        None
    }

    /// Takes the next entry, if the unit has one left and it is of the kind that the tag tells.
    fn answer(&mut self, count: u32, fits: impl Fn(&Pending) -> bool) -> Option<Pending> {
        if self.answered >= count || !self.sent.front().is_some_and(fits) {
            return None;
        }
        self.answered += 1;
        self.sent.pop_front()
    }

    /// A change has succeeded. One of the same setting that no savepoint can bring back has had its day, so that a long
    /// transaction does not pile them up.
    fn succeeded(&mut self, change: Pending) {
        let since = self
            .in_transaction
            .iter()
            .rposition(|pending| matches!(pending, Pending::Savepoint(_)))
            .map_or(0, |at| at + 1);
        if let Some(name) = change.name()
            && let Some(before) = self.in_transaction[since..]
                .iter()
                .position(|pending| pending.name() == Some(name))
        {
            self.in_transaction.remove(since + before);
        }
        if !matches!(change, Pending::Nothing) {
            self.in_transaction.push(change);
        }
    }

    /// Where the newest savepoint of this name stands. All after it go with it.
    fn savepoint(&self, name: &[u8]) -> Option<usize> {
        self.in_transaction
            .iter()
            .rposition(|pending| matches!(pending, Pending::Savepoint(other) if other == name))
    }

    fn roll_back_to(&mut self, name: &[u8]) {
        // The savepoint itself stays.
        let keep = self.savepoint(name).map_or(0, |at| at + 1);
        self.in_transaction.truncate(keep);
    }

    fn release(&mut self, name: &[u8]) {
        let Some(from) = self.savepoint(name) else {
            return;
        };
        let after = self.in_transaction.split_off(from);
        for pending in after {
            if !matches!(pending, Pending::Savepoint(_)) {
                self.succeeded(pending);
            }
        }
    }

    /// A unit with `count` entries has ended. Those without a tag of their own had no effect; outside of a transaction
    /// block the rest is settled, or undone by the unit's failure.
    pub(super) fn unit_ended(
        &mut self,
        count: u32,
        link: &Link,
        session: &Arc<Params>,
    ) -> Option<Settled> {
        self.in_unit = None;
        for _ in std::mem::take(&mut self.answered)..count {
            self.sent.pop_front();
        }
        if link.status != Status::Idle {
            return None;
        }
        if link.failed {
            self.in_transaction.clear();
        }
        self.settle(session, &link.params)
    }

    fn settle(&mut self, session: &Arc<Params>, connection: &Arc<Params>) -> Option<Settled> {
        let mut ended = std::mem::take(&mut self.in_transaction);
        ended.retain(Pending::is_change);
        if ended.is_empty() {
            return None;
        }
        let resets = ended
            .iter()
            .any(|pending| matches!(pending, Pending::Reset(..) | Pending::ResetAll(_)));
        let alike = Arc::ptr_eq(session, connection) && (!resets || self.defaults.is_empty());
        let connection = (!alike).then(|| {
            Arc::new(changed(connection, &ended, |restored| match restored {
                true => &self.defaults,
                false => &NO_PARAMS,
            }))
        });
        let session = Arc::new(changed(session, &ended, |_| &self.defaults));
        let connection = connection.unwrap_or_else(|| session.clone());
        Some(Settled {
            session,
            connection,
        })
    }

    /// Inside a transaction, before its next unit: the SQL that brings back the values of the startup packet for what has
    /// been reset. PostgreSQL undoes it where it undoes the RESET.
    pub(super) fn restore(&mut self, out: &mut Vec<u8>) {
        if self.defaults.is_empty() {
            return;
        }
        let mut wanted = Params::default();
        for pending in &mut self.in_transaction {
            match pending {
                Pending::Reset(name, restored) if !*restored => {
                    *restored = true;
                    wanted.reset(name, &self.defaults);
                }
                Pending::ResetAll(restored) if !*restored => {
                    *restored = true;
                    wanted = reset_all(&Params::default(), &self.defaults);
                }
                Pending::Set(name, _) => wanted.unset(name),
                _ => {}
            }
        }
        Params::default().put_difference(&wanted, out);
    }

    /// Whether the startup packet has a value for a setting, whose name is as the server reports it.
    pub(super) fn has_default(&self, name: &[u8]) -> bool {
        !self.defaults.is_empty()
            && std::str::from_utf8(name)
                .is_ok_and(|name| self.defaults.get(&name.to_ascii_lowercase()).is_some())
    }

    pub(super) fn defaults(&self) -> Arc<Params> {
        self.defaults.clone()
    }

    /// The connection is gone: what was open will not happen.
    pub(super) fn forget(&mut self) {
        self.take_back();
        self.in_transaction.clear();
    }

    /// What was on its way will not happen, and what the transaction has done by then is repeated elsewhere.
    pub(super) fn take_back(&mut self) {
        self.sent.clear();
        self.answered = 0;
        self.in_unit = None;
    }
}

/// A connection's own defaults.
static NO_PARAMS: Params = Params::none();

/// The change that a statement asks for; `None` if it cannot be followed.
fn pending(setting: &Setting<'_>) -> Option<Pending> {
    if setting.scope == Scope::Local {
        return Some(Pending::Nothing);
    }
    let name = || Params::trackable(&setting.name).then(|| setting.name.as_str().into());
    Some(match &setting.change {
        Change::All => Pending::ResetAll(false),
        Change::Default => Pending::Reset(name()?, false),
        // The proxy has to know how long it is: as the server's affair it is that of a connection of the session's own.
        Change::Set(sql) if setting.name == IDLE_SESSION_TIMEOUT && constant_ms(sql).is_none() => {
            return None;
        }
        // Other text is in the encoding of the moment, which may be another one when it is carried over.
        Change::Set(sql) if sql.is_ascii() => Pending::Set(name()?, Value::Sql((*sql).into())),
        Change::Set(_) => return None,
        Change::Several(changes) => Pending::Several(changes.clone()),
    })
}

/// The settings after these changes, where RESET goes back to what `defaults` says.
fn changed<'a>(
    params: &Params,
    changes: &[Pending],
    defaults: impl Fn(Restored) -> &'a Params,
) -> Params {
    let mut params = params.clone();
    for change in changes {
        match change {
            Pending::Set(name, value) => params.set(name, value.clone()),
            Pending::Reset(name, restored) => params.reset(name, defaults(*restored)),
            Pending::ResetAll(restored) => params = reset_all(&params, defaults(*restored)),
            Pending::Several(changes) => {
                for (name, sql) in changes {
                    params.set(name, Value::Sql(sql.as_bytes().into()));
                }
            }
            Pending::Nothing
            | Pending::Config(..)
            | Pending::Savepoint(_)
            | Pending::RollBackTo(_)
            | Pending::Release(_) => {}
        }
    }
    params
}

/// RESET ALL leaves the identity alone. PostgreSQL manual, sql-reset.html.
fn reset_all(params: &Params, defaults: &Params) -> Params {
    let mut reset = defaults.clone();
    for identity in Params::IDENTITY {
        if let Some(value) = params.get(identity) {
            reset.set(identity, value.clone());
        }
    }
    reset
}
