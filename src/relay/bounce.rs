//! Units that a standby has refused before their client saw anything: they run elsewhere.
//!
//! A refusal that says something of the statement goes to the primary. One that says something of the standby goes to
//! another standby, and after that to the primary. What runs on the primary stays there.

use super::log;
use super::run::{Held, Relay};
use crate::link::{Again, Refusal};
use crate::route::Affinity;
use crate::sql::{Access, Class, Reason};

/// How often a unit is sent again; the last time to the primary.
const MAX_RETRIES: u8 = 2;

/// The way of a unit that has been refused, until it is answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Detour {
    /// How often it has been sent in vain.
    refusals: u8,
    /// It is at the front of the input, and no place has been chosen for it yet.
    due: bool,
    /// Nodes that have refused it.
    avoid: u64,
    /// Where it has to go, if standbys will not do.
    access: Option<Access>,
}

impl Detour {
    /// Whether a unit is on one.
    pub(super) fn is_on(self) -> bool {
        self.refusals > 0
    }
}

impl Relay {
    /// The held connection has answered everything, and what it was given is sent again.
    pub(super) fn send_again(&mut self, again: &Again) {
        let Some(held) = &mut self.held else { return };
        let (units, first) = held.server.link.replay.take();
        match again {
            // Nothing was executed.
            Again::StalePlan => {
                self.shared.metrics.stale_plans.inc();
                let catalog = self.pools.catalog.current();
                self.session.renew(self.shared.context(&catalog));
                self.put_back(&units);
            }
            Again::Bounced(refusal) => {
                let (node, server) = (held.node, &mut *held.server);
                let mut out = Vec::new();
                if self.session.leave_refused(&mut server.link, &mut out) {
                    server.unsent.extend_from_slice(&out);
                    self.flags.draining_link = true;
                }
                self.bounce(node, &units, first, refusal);
            }
        }
    }

    /// How a connection that is lost has refused what it was given, if that may run elsewhere. A node that has become the
    /// primary may have carried it out.
    pub(super) fn may_run_elsewhere(&self, held: &Held) -> Option<Refusal> {
        let primary = self.pools.cluster.view.load().primary;
        let refusal = held.server.link.replay.lost();
        refusal.filter(|_| held.standby && primary != Some(held.node))
    }

    /// Sends units again that have been taken back from a standby, the first of which was refused.
    pub(super) fn bounce(&mut self, node: usize, units: &[u8], first: usize, refusal: &Refusal) {
        let bounce = refusal.bounce;
        self.shared.metrics.bounces.at(bounce.index()).inc();
        if refusal.learned {
            log::learned(&self.pools.cluster.nodes[node].name, refusal);
            let catalog = self.pools.catalog.current();
            let context = self.shared.context(&catalog);
            self.session
                .learn_refusal(&units[..first], usize::MAX, context);
        }
        let refusals = self.detour.refusals + 1;
        self.detour = Detour {
            refusals,
            due: true,
            avoid: self.detour.avoid | 1 << node,
            access: if refusal.learned {
                Some(Access::Write)
            } else if bounce.is_of_the_node() && refusals < MAX_RETRIES {
                None
            } else {
                Some(Access::Primary)
            },
        };
        // The next read may be refused there as well.
        self.session.affinity = Affinity::default();
        self.put_back(units);
        if std::mem::take(&mut self.flags.cancelled) {
            // What the standby was asked to cancel had failed already; for the client it was still running.
            self.reject_front(&self.cancelled());
        }
    }

    /// The client has had a part of the result, and then the refusal: the next time it goes to the primary.
    pub(super) fn learn(&self, refusal: &Refusal, unit: &[u8], unanswered: usize) {
        let Some(held) = &self.held else { return };
        log::learned(&self.pools.cluster.nodes[held.node].name, refusal);
        let catalog = self.pools.catalog.current();
        let context = self.shared.context(&catalog);
        self.session.learn_refusal(unit, unanswered, context);
    }

    /// A place is about to be chosen for a unit of this class, which is changed to what is known better of it. Returns the
    /// nodes that must not be chosen.
    pub(super) fn detoured(&mut self, class: &mut Class) -> u64 {
        if !std::mem::take(&mut self.detour.due) {
            self.detour = Detour::default();
            return 0;
        }
        if let Some(access) = self.detour.access
            && class.access == Access::Read
        {
            class.access = access;
            class.reason = Reason::Refused;
        }
        // The primary may be one of them by now.
        match self.detour.access {
            Some(_) => 0,
            None => self.detour.avoid,
        }
    }
}
