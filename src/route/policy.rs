//! How a session's statements are routed, and what may change that.

use std::time::Duration;

use crate::cluster::{NodeState, NodeView};
use crate::config::{Consistency, Hints, Reads, Route, Routing};
use crate::sql::{Access, Class, HintedPlace};

/// How statements are routed at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which kind of node they go to.
    pub route: Route,
    /// What a read must show.
    pub consistency: Consistency,
    /// The most that a standby may lag, if otherwise than its cluster has it.
    pub max_lag: Option<Duration>,
}

impl Policy {
    /// The same for one statement, whose hint has been followed: that is nearer than anything else.
    #[must_use]
    pub fn for_statement(mut self, class: Class) -> Policy {
        let hint = class.hint;
        if hint.is_none() {
            return self;
        }
        match hint.place {
            Some(HintedPlace::Primary) if self.route != Route::Observe => {
                self.route = Route::Primary
            }
            Some(HintedPlace::Standby)
                if self.route == Route::Primary && class.access == Access::Read =>
            {
                self.route = Route::Split
            }
            _ => {}
        }
        if let Some(millis) = hint.stale {
            self.consistency = Consistency::Eventual;
            self.max_lag = Some(Duration::from_millis(millis.into()));
        }
        self
    }

    /// Whether a standby is fresh enough, whatever the session has written.
    pub(super) fn admits(self, node: &NodeView) -> bool {
        match self.max_lag {
            None => node.eligible,
            Some(bound) => {
                node.state == NodeState::Standby && node.lag.is_some_and(|lag| lag <= bound)
            }
        }
    }
}

/// What holds for sessions of one database and user, before any of them says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// How their statements are routed.
    pub policy: Policy,
    /// The bound on lag of the cluster, for those who ask.
    pub max_lag: Duration,
    /// Whether they may say otherwise.
    pub hints: Hints,
    /// What no session and no hint changes: the route of a listener that does not split, or `observe`, wherever it stands.
    pub fixed: Option<Route>,
}

impl Ground {
    /// What the configuration says: `routing` where it says something, the cluster's `reads` where it does not.
    pub fn new(routing: Routing, reads: Reads) -> Ground {
        let route = routing.route.unwrap_or_default();
        Ground {
            policy: Policy {
                route,
                consistency: routing.consistency.unwrap_or(reads.consistency),
                max_lag: routing.max_lag,
            },
            max_lag: routing.max_lag.unwrap_or(reads.max_lag),
            hints: routing.hints.unwrap_or_default(),
            fixed: (route == Route::Observe).then_some(route),
        }
    }

    /// The same for clients of a listener with this route.
    #[must_use]
    pub fn of_listener(self, route: Route) -> Ground {
        let fixed = (route != Route::Split).then_some(route).or(self.fixed);
        Ground {
            policy: Policy {
                route: fixed.unwrap_or(self.policy.route),
                ..self.policy
            },
            fixed,
            ..self
        }
    }
}
