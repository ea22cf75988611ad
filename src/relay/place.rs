//! Finding a server connection for a unit.

use std::task::{Context, Poll};
use std::time::Instant;

use super::pools::Mode;
use super::run::{End, Held, Relay};
use super::unit::{self, Waiting};
use crate::pool::CheckoutError;
use crate::sql::Class;
use crate::wire::Notice;

impl Relay {
    /// Finds a server connection for a unit and sends it. False if the unit has to wait; a unit that no node can take
    /// has been answered.
    pub(super) fn place(
        &mut self,
        cx: &mut Context<'_>,
        unit: &[u8],
        class: Class,
    ) -> Result<bool, End> {
        if self.held.is_some() && self.cancelling.is_some() {
            // Not the next statement: the cancel was for the one before.
            return Ok(false);
        }
        let has_connection = std::mem::take(&mut self.flags.placed)
            || (self.held.is_some() && self.session.pin().is_some());
        if !has_connection {
            match self.obtain(class, 0) {
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
        self.forward(cx, unit, Some(class), true)?;
        Ok(true)
    }

    /// Chooses a node for a unit, without those in `avoid`, and takes a connection to it: true if it is there, false if
    /// the session has to wait for it.
    pub(super) fn obtain(&mut self, class: Class, avoid: u64) -> Result<bool, Notice> {
        let now = Instant::now();
        let floor = &mut self.session.floor;
        let (node, standby) =
            unit::choose(&self.shared, &self.pools.cluster, class, floor, avoid, now)?;
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
        if let Some(server) = self.pools.pools[node].try_checkout() {
            self.held = Some(Held {
                server,
                node,
                standby,
            });
            return Ok(true);
        }
        let pools = self.pools.clone();
        let checkout = Box::pin(async move { pools.pools[node].checkout().await });
        self.waiting = Some(Box::new(Waiting {
            node,
            standby,
            avoid,
            class,
            since: now,
            checkout,
        }));
        Ok(false)
    }

    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Some(waiting) = &mut self.waiting else {
            return Ok(false);
        };
        let Poll::Ready(result) = waiting.checkout.as_mut().poll(cx) else {
            return Ok(false);
        };
        let Some(waiting) = self.waiting.take() else {
            return Ok(false);
        };
        self.shared
            .metrics
            .checkout_wait
            .observe(waiting.since.elapsed().as_secs_f64());
        self.flags.recheck = true;
        match result {
            Ok(server) => {
                self.held = Some(Held {
                    server,
                    node: waiting.node,
                    standby: waiting.standby,
                });
                self.flags.placed = true;
            }
            Err(error) => self.checkout_failed(&waiting, &error),
        }
        Ok(true)
    }

    /// Nothing has been sent, so another node may take the unit.
    pub(super) fn checkout_failed(&mut self, waiting: &Waiting, error: &CheckoutError) {
        if matches!(error, CheckoutError::Timeout(_)) {
            self.shared.metrics.checkout_timeouts.inc();
        }
        let avoid = waiting.avoid | 1 << waiting.node;
        if let CheckoutError::Server(server) = error
            && server.node_is_away()
            && waiting.standby
            && let Ok(there) = self.obtain(waiting.class, avoid)
        {
            self.flags.placed = there;
            return;
        }
        self.reject_front(&unit::checkout_notice(error));
    }
}
