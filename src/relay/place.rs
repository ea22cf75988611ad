//! Finding a server connection for a unit.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::pools::Mode;
use super::run::{Begin, End, Held, Relay};
use super::unit::{self, Unit, Waiting};
use crate::pool::{ALL_IN_USE, CheckoutError, Patience};
use crate::sql::catalog::Catalog;
use crate::sql::{Class, Reason, SessionEffect};
use crate::wire::{Notice, Severity, SqlState};

/// A choice of a node that is as old is looked at again before it is used: it waited for longer than nodes are usually
/// asked how they are.
const OLD_CHOICE: Duration = Duration::from_millis(100);

impl Relay {
    /// Finds a server connection for a unit and sends it. False if the unit has to wait; a unit that no node can take
    /// has been answered.
    pub(super) fn place(
        &mut self,
        cx: &mut Context<'_>,
        unit: &[u8],
        class: Class,
        catalog: &Catalog,
    ) -> Result<bool, End> {
        if self.held.is_some() && self.cancelling.is_some() {
            // Not the next statement: the cancel was for the one before.
            return Ok(false);
        }
        if self.must_not_begin(Some(class)) {
            self.reject(cx, unit, &no_transactions(Severity::Error))?;
            return Ok(true);
        }
        if let Some(notice) = self.session.refuses_currval(unit, class) {
            self.reject(cx, unit, &notice)?;
            return Ok(true);
        }
        let mut placed = Unit {
            len: unit.len(),
            class,
        };
        let has_connection =
            self.placed.take().is_some() || (self.held.is_some() && self.session.pin().is_some());
        if !has_connection {
            let avoid = self.detoured(&mut placed.class);
            match self.obtain(placed, avoid) {
                Ok(true) => {}
                Ok(false) => {
                    self.flags.recheck = true;
                    return Ok(false);
                }
                Err(notice) => {
                    self.reject(cx, unit, &notice)?;
                    return Ok(true);
                }
            }
        }
        let class = placed.class;
        // What mends the session's settings must not depend on them.
        let mends = matches!(
            class.session,
            SessionEffect::Set | SessionEffect::DiscardAll
        ) && class.statements == 1
            && unit.first() == Some(&b'Q');
        let begin = if self.flags.refused && mends {
            Begin::Bare
        } else {
            Begin::Settings
        };
        if self.forward(cx, unit, Some(class), begin, catalog)? {
            self.flags.refused = false;
            return Ok(true);
        }
        self.placed = Some(placed);
        self.flags.draining_link = true;
        Ok(false)
    }

    /// The session's settings were refused before anything of the unit was sent: another connection may take them, whose
    /// own are not in the way. If it does not, the client hears why.
    pub(super) fn settings_refused(&mut self, notice: &Notice) {
        self.held = None;
        self.placed = None;
        self.flags.draining_link = false;
        self.flags.recheck = true;
        if std::mem::replace(&mut self.flags.refused, true) {
            self.flags.refused = false;
            self.reject_front(notice);
        }
    }

    /// Chooses a node for a unit, without those in `avoid`, and takes a connection to it: true if it is there, false if
    /// the session has to wait for it.
    pub(super) fn obtain(&mut self, unit: Unit, avoid: u64) -> Result<bool, Notice> {
        let now = Instant::now();
        self.calls.note_time(now);
        if unit.class.reason == Reason::UnknownName {
            self.pools.catalog.missed();
        }
        let (node, standby) = unit::choose(
            &self.shared,
            &self.pools.cluster,
            unit.class,
            &mut self.session,
            avoid,
            now,
        )?;
        // Session pooling: the connection that the session keeps.
        let home = self.held.take().map(Box::new).or_else(|| self.home.take());
        match home {
            Some(home) if home.node == node => {
                self.held = Some(*home);
                return Ok(true);
            }
            // Borrow a standby, then go home. A home that is not on the primary any more is given up.
            home => self.home = home.filter(|_| standby && self.pools.mode == Mode::Session),
        }
        if let Some(server) = self.pools.pools[node].try_checkout(now) {
            self.held = Some(Held {
                server,
                node,
                standby,
            });
            return Ok(true);
        }
        let patience = if standby {
            Patience::Leave
        } else {
            Patience::Wait
        };
        let checkout = self.pools.pools[node].wait(patience, now);
        let waiting = Waiting {
            node,
            standby,
            avoid,
            unit,
            told: false,
            checkout,
        };
        self.waiting = match self.waited.take() {
            Some(mut place) => {
                *place = waiting;
                Some(place)
            }
            None => Some(Box::new(waiting)),
        };
        Ok(false)
    }

    #[inline]
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        match &self.waiting {
            Some(_) => self.poll_checkout(cx),
            None => Ok(false),
        }
    }

    #[inline(never)]
    fn poll_checkout(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Some(waiting) = &mut self.waiting else {
            return Ok(false);
        };
        let Poll::Ready(result) = waiting.checkout.poll(cx) else {
            let tell = !waiting.told && waiting.checkout.is_long();
            if tell {
                waiting.told = true;
                self.say(&queued());
            }
            return Ok(tell);
        };
        let Some(waiting) = self.waiting.take() else {
            return Ok(false);
        };
        // What a client waits for a connection is not its statement's time.
        let now = match &result {
            Ok(server) => {
                self.calls.note_time(server.since());
                server.since()
            }
            Err(_) => {
                self.calls.forget_time();
                Instant::now()
            }
        };
        let waited = now.saturating_duration_since(waiting.checkout.since());
        let metric = &self.shared.metrics.checkout_wait;
        metric.observe(waited.as_secs_f64());
        self.flags.recheck = true;
        match result {
            Ok(server)
                if waited >= OLD_CHOICE
                    && !unit::still_fits(&self.pools.cluster, &waiting, &mut self.session) =>
            {
                drop(server);
                self.choose_again(&waiting);
                return Ok(true);
            }
            Ok(server) => {
                self.held = Some(Held {
                    server,
                    node: waiting.node,
                    standby: waiting.standby,
                });
                self.placed = Some(waiting.unit);
            }
            Err(error) => {
                self.checkout_failed(&waiting, &error);
                return Ok(true);
            }
        }
        self.waited = Some(waiting);
        // At once: the rest of the round then asks the sockets for what comes of it, and there need not be another.
        self.recheck(cx)?;
        Ok(self.waiting.is_some() || self.slot.draining())
    }

    /// The node that was chosen is not what it was when the unit began to wait for it.
    #[cold]
    fn choose_again(&mut self, old: &Waiting) {
        match self.obtain(old.unit, old.avoid) {
            Ok(there) => self.placed = there.then_some(old.unit),
            Err(notice) => self.reject_front(&notice),
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.told = old.told;
        }
    }

    /// Nothing has been sent, so another node may take the unit.
    pub(super) fn checkout_failed(&mut self, waiting: &Waiting, error: &CheckoutError) {
        self.shared.count_checkout(error);
        let avoid = waiting.avoid | 1 << waiting.node;
        // Nothing has been sent, so whatever keeps a standby from taking it, another node may.
        if matches!(error, CheckoutError::Server(_))
            && waiting.standby
            && let Ok(there) = self.obtain(waiting.unit, avoid)
        {
            self.placed = there.then_some(waiting.unit);
            return;
        }
        let route = self.session.policy(waiting.unit.class).route;
        self.reject_front(&unit::checkout_notice(error, route));
    }
}

/// What a client hears that waits for long.
fn queued() -> Notice {
    let text = "no server connection is free, the client is being queued";
    Notice::remark(SqlState::InsufficientResources, text).hint(ALL_IN_USE)
}

/// What a client of statement pooling is told that asks for a transaction block.
pub(super) fn no_transactions(severity: Severity) -> Notice {
    Notice {
        severity,
        ..Notice::error(
            SqlState::FeatureNotSupported,
            "transaction blocks not allowed in statement pooling mode",
        )
        .hint("Several statements in one Query are one transaction. Set pool.mode to transaction for more.")
    }
}
