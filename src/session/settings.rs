//! Settings that statements change, from the moment they are sent until their transaction has ended.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::link::{Link, Params, Value};
use crate::sql::Savepoint;
use crate::sql::setting::{Change, Scope, Setting};
use crate::wire::Status;

/// One change that a SET or RESET asks for.
#[derive(Clone, Debug)]
enum Pending {
    Set(Box<str>, Value),
    Reset(Box<str>),
    ResetAll,
    /// Where ROLLBACK TO this name goes back to.
    Savepoint(Vec<u8>),
    RollBackTo(Vec<u8>),
}

/// The changes whose outcome is open.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// What RESET goes back to.
    defaults: Arc<Params>,
    /// Sent, not answered.
    sent: VecDeque<Pending>,
    /// Succeeded inside a transaction that is still open.
    in_transaction: Vec<Pending>,
}

impl Settings {
    pub(super) fn new(defaults: Arc<Params>) -> Settings {
        Settings {
            defaults,
            ..Settings::default()
        }
    }

    /// Notes a SET or RESET that is being sent. False if it cannot be tracked.
    pub(super) fn send(&mut self, setting: &Setting<'_>) -> Option<u16> {
        if setting.scope == Scope::Local {
            // Ends with its transaction, on the connection that runs it.
            return Some(0);
        }
        let name = || Params::trackable(&setting.name).then(|| setting.name.as_str().into());
        let pending = match &setting.change {
            Change::All => Pending::ResetAll,
            Change::Default => Pending::Reset(name()?),
            Change::Set(sql) => Pending::Set(name()?, Value::Sql((*sql).into())),
            Change::Several(changes) => {
                let set = |(name, sql): &(&str, &str)| {
                    Pending::Set((*name).into(), Value::Sql(sql.as_bytes().into()))
                };
                self.sent.extend(changes.iter().map(set));
                return u16::try_from(changes.len()).ok();
            }
        };
        self.sent.push_back(pending);
        Some(1)
    }

    /// Notes a SAVEPOINT, or a ROLLBACK TO one, that is being sent.
    pub(super) fn send_savepoint(&mut self, savepoint: Savepoint) -> u16 {
        self.sent.push_back(match savepoint {
            Savepoint::Define(name) => Pending::Savepoint(name),
            Savepoint::RollBack(name) => Pending::RollBackTo(name),
        });
        1
    }

    /// A statement inside a transaction has succeeded.
    fn succeeded(&mut self, pending: Pending) {
        let Pending::RollBackTo(name) = pending else {
            self.in_transaction.push(pending);
            return;
        };
        let is_it =
            |pending: &Pending| matches!(pending, Pending::Savepoint(other) if *other == name);
        // The savepoint itself stays.
        let keep = self
            .in_transaction
            .iter()
            .rposition(is_it)
            .map_or(0, |at| at + 1);
        self.in_transaction.truncate(keep);
    }

    /// A unit with `count` changes was answered; `link` has the status and whether it failed. If settings have changed,
    /// returns those of the session and those that the connection has now. They differ after a RESET: the connection goes
    /// back to its own defaults, the session to those of its startup packet.
    pub(super) fn answered(
        &mut self,
        count: u16,
        link: &Link,
        params: &Arc<Params>,
    ) -> Option<(Arc<Params>, Arc<Params>)> {
        for _ in 0..count {
            if let Some(pending) = self.sent.pop_front().filter(|_| !link.failed) {
                self.succeeded(pending);
            }
        }
        if link.status != Status::Idle || self.in_transaction.is_empty() {
            return None;
        }
        let mut ended = std::mem::take(&mut self.in_transaction);
        ended.retain(|pending| !matches!(pending, Pending::Savepoint(_)));
        if link.rolled_back || ended.is_empty() {
            return None;
        }
        let session = Arc::new(changed(params, &ended, &self.defaults));
        let resets = ended
            .iter()
            .any(|pending| !matches!(pending, Pending::Set(..)));
        let connection = if resets && !self.defaults.is_empty() {
            Arc::new(changed(&link.params, &ended, &Params::default()))
        } else {
            session.clone()
        };
        Some((session, connection))
    }

    /// Whether changes wait for the end of their transaction.
    pub(super) fn are_open(&self) -> bool {
        !self.in_transaction.is_empty()
    }

    pub(super) fn defaults(&self) -> Arc<Params> {
        self.defaults.clone()
    }

    /// The connection is gone: what was open will not happen.
    pub(super) fn forget(&mut self) {
        self.sent.clear();
        self.in_transaction.clear();
    }
}

/// The settings after these changes, where RESET goes back to `defaults`.
fn changed(params: &Params, changes: &[Pending], defaults: &Params) -> Params {
    let mut params = params.clone();
    for change in changes {
        match change {
            Pending::Set(name, value) => params.set(name, value.clone()),
            Pending::Reset(name) => params.reset(name, defaults),
            Pending::ResetAll => params = reset_all(&params, defaults),
            Pending::Savepoint(_) | Pending::RollBackTo(_) => {}
        }
    }
    params
}

/// RESET ALL leaves the identity alone. PostgreSQL manual, sql-reset.html.
fn reset_all(params: &Params, defaults: &Params) -> Params {
    let mut reset = defaults.clone();
    for identity in ["role", "session_authorization"] {
        if let Some(value) = params.get(identity) {
            reset.set(identity, value.clone());
        }
    }
    reset
}
