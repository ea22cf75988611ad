//! How long a session may be in a phase: idle, in a statement, idle in a transaction; and how long its client may leave
//! unread what there is for it.
//!
//! No session has a timer of its own. Each notes when its phase began, which takes a clock reading where a timeout is set
//! and nothing where none is; one task looks at all of them in a while and wakes those that are overdue. Another looks at
//! sessions that keep their connection for what their sequences gave last, and at those with an `idle_session_timeout` of
//! their own, while there are any.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::time::MissedTickBehavior;

use super::cancel::cancel_unless_done;
use super::run::{End, Held, Relay};
use super::{Registry, Shared, Slot};
use crate::sql::PinReason;
use crate::wire::{Notice, SqlState, Status, frame};

/// How long a session that sends nothing keeps its connection for what its sequences gave last (routing.md §2.4).
const SEQUENCE_PIN: Duration = Duration::from_secs(1);

/// How often sessions are looked at that keep a connection for their sequences, or have a bound of their own, while there
/// are any.
const OWN_PACE: Duration = Duration::from_millis(100);

/// Bounds on phases; `None` is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimeouts {
    /// A client that sends nothing, outside of a transaction.
    pub client_idle: Option<Duration>,
    /// The same, by the session's own `idle_session_timeout`.
    pub idle_session: Option<Duration>,
    /// A client that sends nothing inside a transaction.
    pub idle_in_transaction: Option<Duration>,
    /// A transaction, from its first statement to its end.
    pub transaction: Option<Duration>,
    /// A statement, from its being sent to its answer.
    pub query: Option<Duration>,
    /// A client that takes nothing of what there is for it.
    pub client_write: Option<Duration>,
    /// What times are counted from.
    pub epoch: Instant,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Waiting for a server connection has a bound of its own.
    Waiting,
    Query,
    IdleInTransaction,
}

/// Which bound a session is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    ClientIdle,
    IdleSession,
    IdleInTransaction,
    Transaction,
    Query,
    ClientWrite,
}

impl Overdue {
    /// The key in `[timeouts]`, which is the metric's label, or `idle_session`.
    fn as_str(self) -> &'static str {
        match self {
            Overdue::ClientIdle => "client_idle",
            Overdue::IdleSession => "idle_session",
            Overdue::IdleInTransaction => "idle_in_transaction",
            Overdue::Transaction => "transaction",
            Overdue::Query => "query",
            Overdue::ClientWrite => "client_write",
        }
    }
}

/// What a session has noted. Milliseconds since the epoch, plus one so that 0 is never.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// The session's bounds; none until it begins, and while there are none to look for.
    pub(super) bounds: ArcSwapOption<SessionTimeouts>,
    /// The phase in the two lowest bits, since when above them.
    phase: AtomicU64,
    /// Since when the transaction is open; 0 if none is.
    transaction: AtomicU64,
    /// Since when the client has taken nothing of what there is for it; 0 if there is nothing.
    unread: AtomicU64,
    /// Since when the session has been quiet on a connection that it keeps for its sequences; 0 if it keeps none.
    pinned: AtomicU64,
}

impl Noted {
    /// Whether a connection has been kept for sequences for long enough.
    fn is_pin_over(&self, now: u64) -> bool {
        let since = self.pinned.load(Ordering::Relaxed);
        since > 0 && u128::from(now.saturating_sub(since)) >= SEQUENCE_PIN.as_millis()
    }

    /// Whether the session is beyond any of its bounds.
    fn is_overdue(&self, now: u64) -> bool {
        let bounds = self.bounds.load();
        let bounds = bounds.as_ref();
        bounds.is_some_and(|bounds| bounds.overdue(self, now).is_some())
    }

    fn phase(&self) -> (Phase, u64) {
        let noted = self.phase.load(Ordering::Relaxed);
        let phase = match noted & 3 {
            0 => Phase::Idle,
            1 => Phase::Waiting,
            2 => Phase::Query,
            _ => Phase::IdleInTransaction,
        };
        (phase, noted >> 2)
    }

    fn enter(&self, phase: Phase, now: u64) {
        let bits = match phase {
            Phase::Idle => 0,
            Phase::Waiting => 1,
            Phase::Query => 2,
            Phase::IdleInTransaction => 3,
        };
        self.phase.store(now << 2 | bits, Ordering::Relaxed);
        match phase {
            Phase::Idle | Phase::Waiting => self.transaction.store(0, Ordering::Relaxed),
            _ if self.transaction.load(Ordering::Relaxed) == 0 => {
                self.transaction.store(now, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

impl SessionTimeouts {
    /// No bounds.
    pub fn none() -> SessionTimeouts {
        SessionTimeouts {
            client_idle: None,
            idle_session: None,
            idle_in_transaction: None,
            transaction: None,
            query: None,
            client_write: None,
            epoch: Instant::now(),
        }
    }

    /// These bounds, and so many milliseconds of idleness by the session's own setting, unless they are 0; `None` if there is
    /// nothing to look for.
    pub(super) fn with_idle_limit(self: &Arc<Self>, ms: u32) -> Option<Arc<SessionTimeouts>> {
        if ms == 0 {
            return self.are_set().then(|| self.clone());
        }
        Some(Arc::new(SessionTimeouts {
            idle_session: Some(Duration::from_millis(ms.into())),
            ..**self
        }))
    }

    /// Whether a session has one of them by its own setting.
    pub(super) fn are_own(&self) -> bool {
        self.idle_session.is_some()
    }

    fn all(&self) -> impl Iterator<Item = Duration> {
        [
            self.client_idle,
            self.idle_session,
            self.idle_in_transaction,
            self.transaction,
            self.query,
            self.client_write,
        ]
        .into_iter()
        .flatten()
    }

    /// Whether there is any bound.
    pub fn are_set(&self) -> bool {
        self.all().next().is_some()
    }

    /// How often sessions are looked at: a tenth of the shortest bound, so that none is exceeded by much, and at most
    /// once a second. `None` if there is nothing to look for.
    pub fn pace(&self) -> Option<Duration> {
        let shortest = self.all().min()?;
        Some((shortest / 10).clamp(Duration::from_millis(10), Duration::from_secs(1)))
    }

    fn now(&self) -> u64 {
        since(self.epoch)
    }

    fn overdue(&self, noted: &Noted, now: u64) -> Option<Overdue> {
        let beyond = |since: u64, bound: Option<Duration>| {
            since > 0
                && bound
                    .is_some_and(|bound| u128::from(now.saturating_sub(since)) >= bound.as_millis())
        };
        let (phase, since) = noted.phase();
        let transaction = noted.transaction.load(Ordering::Relaxed);
        match phase {
            // First, because nothing can be said to such a client.
            _ if beyond(noted.unread.load(Ordering::Relaxed), self.client_write) => {
                Some(Overdue::ClientWrite)
            }
            // The shorter one is what it is told.
            Phase::Idle
                if beyond(since, self.idle_session)
                    && self
                        .client_idle
                        .is_none_or(|bound| Some(bound) > self.idle_session) =>
            {
                Some(Overdue::IdleSession)
            }
            Phase::Idle if beyond(since, self.client_idle) => Some(Overdue::ClientIdle),
            Phase::IdleInTransaction if beyond(since, self.idle_in_transaction) => {
                Some(Overdue::IdleInTransaction)
            }
            Phase::Query if beyond(since, self.query) => Some(Overdue::Query),
            _ if beyond(transaction, self.transaction) => Some(Overdue::Transaction),
            _ => None,
        }
    }
}

/// Wakes the sessions that are overdue. `any` tells the time that all bounds count by.
pub fn sweep(registry: &Registry, any: &SessionTimeouts) {
    let now = any.now();
    registry.expire(|slot| slot.noted.is_overdue(now));
}

/// Wakes the sessions that have kept a connection for their sequences for long enough, and those that are beyond a bound of
/// their own, for ever. Nobody is looked at, and no timer runs, while there are none of either kind. `epoch` is that of all
/// bounds.
pub async fn watch_own(shared: &Shared, epoch: Instant) {
    let mut ticks = tokio::time::interval(OWN_PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if sweep_own(shared, epoch) {
            ticks.tick().await;
        } else {
            shared.registry.watched().await;
        }
    }
}

/// False if there are none.
fn sweep_own(shared: &Shared, epoch: Instant) -> bool {
    let reason = PinReason::Sequence.index();
    let metrics = &shared.metrics;
    let pinned = metrics.pins.at(reason).get() != metrics.pins_ended.at(reason).get();
    let bound = shared.registry.has_own_bounds();
    if !pinned && !bound {
        return false;
    }
    let now = since(epoch);
    let is_due = |noted: &Noted| (bound && noted.is_overdue(now)) || noted.is_pin_over(now);
    shared.registry.expire(|slot| is_due(&slot.noted));
    true
}

fn since(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX >> 3) + 1
}

impl Relay {
    /// Notes the phase that the session has come to.
    #[inline]
    pub(super) fn note_phase(&mut self) {
        if self.flags.pins.has(PinReason::Sequence) || self.flags.pin_noted {
            self.note_sequence_pin();
        }
        let idle_limit = self.session.idle_limit();
        if idle_limit != self.flags.idle_limit {
            self.note_bounds();
        }
        if idle_limit > 0 || self.pools.timeouts.are_set() {
            self.note_phase_now();
        }
    }

    /// Notes the bounds that the session is under: those of its pools, and its own.
    #[cold]
    pub(super) fn note_bounds(&mut self) {
        let idle_limit = self.session.idle_limit();
        self.flags.idle_limit = idle_limit;
        let bounds = self.pools.timeouts.with_idle_limit(idle_limit);
        self.slot.bound_by(bounds);
    }

    /// Notes since when the session has been quiet on a connection that it keeps for its sequences.
    #[cold]
    fn note_sequence_pin(&mut self) {
        let is_quiet = |held: &Held| {
            held.server.link.status == Status::Idle && !held.server.link.owing.owes_client()
        };
        let counts = self.flags.pins.has(PinReason::Sequence)
            && self.held.as_ref().is_some_and(is_quiet)
            && !self.session.mid_unit();
        let since = if counts { self.pools.timeouts.now() } else { 0 };
        self.slot.noted.pinned.store(since, Ordering::Relaxed);
        self.flags.pin_noted = counts;
    }

    /// The session has sent nothing for as long as it keeps a connection for its sequences.
    fn lapse_pin(&mut self) -> Result<(), End> {
        let now = self.pools.timeouts.now();
        if self.slot.noted.is_pin_over(now) && self.session.lapse_sequence_pin() {
            self.note_pins();
            self.release()?;
        }
        Ok(())
    }

    /// Whether whole messages of a group have come, and its end has not.
    fn has_begun_group(&self) -> bool {
        let header = frame::header(&self.input, usize::MAX);
        matches!(header, Ok(Some(header)) if self.input.len() >= header.total())
    }

    fn note_phase_now(&mut self) {
        let phase = match &self.held {
            // For its client it has been running all the time.
            _ if self.detour.is_on() => Phase::Query,
            _ if self.waiting.is_some() || self.waits_to_listen() => Phase::Waiting,
            Some(held) if held.server.link.owing.owes_client() => Phase::Query,
            Some(held) if held.server.link.status != Status::Idle || self.session.mid_unit() => {
                Phase::IdleInTransaction
            }
            _ if self.session.is_in_unsent_block() => Phase::IdleInTransaction,
            // In the middle of a group: PostgreSQL counts from the ReadyForQuery of the one before.
            _ if self.has_begun_group() => Phase::Waiting,
            _ => Phase::Idle,
        };
        let slot: &Slot = &self.slot;
        let progress = std::mem::take(&mut self.flags.read_by_client);
        if self.output.is_empty() {
            slot.noted.unread.store(0, Ordering::Relaxed);
        } else if progress || slot.noted.unread.load(Ordering::Relaxed) == 0 {
            let now = self.pools.timeouts.now();
            slot.noted.unread.store(now, Ordering::Relaxed);
        }
        let (before, since) = slot.noted.phase();
        // One statement after the other may come and go between two looks.
        let ended = std::mem::take(&mut self.flags.ended);
        if std::mem::take(&mut self.flags.idle) {
            slot.noted.transaction.store(0, Ordering::Relaxed);
        }
        if before != phase || since == 0 || ended {
            slot.noted.enter(phase, self.pools.timeouts.now());
            self.flags.timed_out = false;
        }
    }

    /// The session has been woken because it is overdue, unless it has gone on in the meantime.
    pub(super) fn expire(&mut self) -> Result<(), End> {
        self.lapse_pin()?;
        let noted = &self.slot.noted;
        let timeouts = noted.bounds.load_full();
        let Some(overdue) = timeouts.and_then(|bounds| bounds.overdue(noted, bounds.now())) else {
            return Ok(());
        };
        let committing = self
            .held
            .as_ref()
            .is_some_and(|held| held.server.link.committing);
        // Too late to undo it: its client is to hear what became of it.
        if committing && matches!(overdue, Overdue::Transaction | Overdue::Query) {
            return Ok(());
        }
        let second = overdue == Overdue::Query && self.flags.timed_out;
        if !second {
            let reached = self.shared.metrics.timeouts.named(overdue.as_str());
            reached.inc();
        }
        let (state, text) = match overdue {
            // A message may have been cut off, and no further one would be read.
            Overdue::ClientWrite => {
                self.abandon();
                return Err(End::Cut);
            }
            Overdue::ClientIdle => (
                SqlState::IdleSessionTimeout,
                "client_idle_timeout: the connection has been idle for too long",
            ),
            // PostgreSQL's words, because it is PostgreSQL's setting.
            Overdue::IdleSession => (
                SqlState::IdleSessionTimeout,
                "terminating connection due to idle-session timeout",
            ),
            Overdue::IdleInTransaction => (
                SqlState::IdleInTransactionSessionTimeout,
                "idle transaction timeout",
            ),
            Overdue::Transaction => (SqlState::TransactionTimeout, "transaction timeout"),
            Overdue::Query => {
                if !second {
                    self.cancel_overdue();
                    return Ok(());
                }
                (SqlState::QueryCanceled, "query timeout")
            }
        };
        // The server is not to wait until the client has read this.
        self.abandon();
        Err(End::Told(Notice::fatal(state, text)))
    }

    /// A statement that takes too long is cancelled, and its client hears of it from the server.
    fn cancel_overdue(&mut self) {
        self.flags.timed_out = true;
        let now = self.pools.timeouts.now();
        self.slot.noted.enter(Phase::Query, now);
        if self.waiting.is_some() {
            // It has run before, and waits to run elsewhere.
            return self.cancel();
        }
        let runs = |held: &&mut Held| held.server.link.owing.owes_client();
        if self.cancelling.is_none()
            && let Some(held) = self.held.as_mut().filter(runs)
        {
            let link = &mut held.server.link;
            link.overdue = true;
            // Its end is to be seen.
            link.plain = false;
        }
        self.cancel_running(cancel_unless_done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_phase() {
        let second = Duration::from_secs(1);
        let timeouts = SessionTimeouts {
            client_idle: Some(second),
            idle_in_transaction: Some(2 * second),
            transaction: Some(5 * second),
            query: Some(3 * second),
            ..SessionTimeouts::none()
        };
        let noted = Noted::default();
        assert_eq!(timeouts.overdue(&noted, 10_000), None, "nothing noted yet");
        let check = |phase, since: u64, now: u64, expected| {
            noted.enter(phase, since);
            assert_eq!(
                timeouts.overdue(&noted, now),
                expected,
                "{phase:?} {since} {now}"
            );
        };
        check(Phase::Idle, 1, 1000, None);
        check(Phase::Idle, 1, 1001, Some(Overdue::ClientIdle));
        check(Phase::Waiting, 1, 100_000, None);
        check(Phase::Query, 1000, 3999, None);
        check(Phase::Query, 1000, 4000, Some(Overdue::Query));
        check(Phase::IdleInTransaction, 3000, 4999, None);
        check(
            Phase::IdleInTransaction,
            3000,
            5000,
            Some(Overdue::IdleInTransaction),
        );
        // The transaction began with its first statement, at 1000.
        check(Phase::Query, 5500, 6000, Some(Overdue::Transaction));
        check(Phase::Idle, 6000, 6999, None);
        check(Phase::Query, 7000, 9999, None);
        // Whatever else it does: a client that takes nothing.
        let timeouts = SessionTimeouts {
            client_write: Some(second),
            ..timeouts
        };
        noted.unread.store(7500, Ordering::Relaxed);
        assert_eq!(timeouts.overdue(&noted, 8499), None);
        assert_eq!(timeouts.overdue(&noted, 8500), Some(Overdue::ClientWrite));
        assert_eq!(timeouts.pace(), Some(Duration::from_millis(100)));
        // The session's own bound, and which of two is told.
        noted.unread.store(0, Ordering::Relaxed);
        let check = |client_idle, ms, phase, expected| {
            noted.enter(phase, 1000);
            let timeouts = Arc::new(SessionTimeouts {
                client_idle,
                ..SessionTimeouts::none()
            });
            let bounds = timeouts.with_idle_limit(ms).expect("a bound");
            assert_eq!(bounds.overdue(&noted, 1499), None);
            assert_eq!(bounds.overdue(&noted, 1500), expected);
        };
        let half = Some(second / 2);
        check(None, 500, Phase::Idle, Some(Overdue::IdleSession));
        check(Some(second), 500, Phase::Idle, Some(Overdue::IdleSession));
        check(half, 1000, Phase::Idle, Some(Overdue::ClientIdle));
        check(half, 500, Phase::Idle, Some(Overdue::ClientIdle));
        check(half, 0, Phase::Idle, Some(Overdue::ClientIdle));
        for phase in [Phase::Waiting, Phase::Query, Phase::IdleInTransaction] {
            check(half, 500, phase, None);
        }
        assert_eq!(SessionTimeouts::none().pace(), None);
    }
}
