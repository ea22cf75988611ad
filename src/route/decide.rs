//! The decision.

use std::time::Instant;

use super::{Floor, Policy, first, least_busy};
use crate::cluster::{NodeView, View};
use crate::config::{Consistency, Route};

/// Which kind of node a unit needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A read: a standby will do.
    Standby,
    /// The primary.
    Primary,
    /// No place of its own, like SET or an empty query.
    Any,
}

/// The role in which a node was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes everything.
    Primary,
    /// Takes reads.
    Standby,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 2] = [Role::Primary, Role::Standby];

    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Standby => "standby",
        }
    }
}

/// Why a node was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteReason {
    /// A read, on a standby.
    Standby,
    /// The statement needs the primary; its class says why.
    Class,
    /// A statement without a place of its own.
    NoPlace,
    /// A read, and no standby is up and follows the primary.
    NoStandby,
    /// A read, and every standby lags too much.
    Lag,
    /// A read, and no standby is known to show what the session has written.
    ReadYourWrites,
    /// The route of its listener, its database, its user or its session.
    Route,
}

impl RouteReason {
    /// Every reason.
    pub const ALL: [RouteReason; 7] = [
        RouteReason::Standby,
        RouteReason::Class,
        RouteReason::NoPlace,
        RouteReason::NoStandby,
        RouteReason::Lag,
        RouteReason::ReadYourWrites,
        RouteReason::Route,
    ];

    /// The word for metrics, logs and SHOW.
    pub fn as_str(self) -> &'static str {
        match self {
            RouteReason::Standby => "standby",
            RouteReason::Class => "class",
            RouteReason::NoPlace => "no_place",
            RouteReason::NoStandby => "no_standby",
            RouteReason::Lag => "lag",
            RouteReason::ReadYourWrites => "read_your_writes",
            RouteReason::Route => "route",
        }
    }

    /// Its place in [`RouteReason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Where a unit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To this node.
    Node {
        /// Its place in the view.
        node: usize,
        /// In which role.
        role: Role,
        /// Why.
        reason: RouteReason,
    },
    /// Nowhere: there is no primary, and a standby will not do.
    Nowhere {
        /// Why a standby will not do.
        reason: RouteReason,
    },
}

/// Chooses a node. `outstanding` is the load of a node, and `u32::MAX` for one that must not be chosen; `tie` chooses
/// among standbys of equal load, given as the bits of their places and that load. Allocates nothing.
///
/// [`Route::Observe`] decides as `Split` does: where that goes is for the caller to count, and not to do.
pub fn decide(
    need: Need,
    policy: Policy,
    floor: &mut Floor,
    view: &View,
    now: Instant,
    outstanding: impl Fn(usize) -> u32,
    tie: impl FnOnce(u64, u32) -> usize,
) -> Decision {
    let by_route = match need {
        Need::Primary => RouteReason::Class,
        Need::Standby | Need::Any => RouteReason::Route,
    };
    match (policy.route, need) {
        (Route::Primary, _) => primary(view, now, &outstanding, by_route),
        (Route::Standby, need) => match shown(policy, floor, view, now, &outstanding, tie) {
            Some(node) => on_standby(
                node,
                match need {
                    Need::Standby => RouteReason::Standby,
                    Need::Primary | Need::Any => RouteReason::Route,
                },
            ),
            None => Decision::Nowhere {
                reason: why_not(policy, view, now),
            },
        },
        (_, Need::Primary) => primary(view, now, &outstanding, RouteReason::Class),
        (_, Need::Any) => match primary(view, now, &outstanding, RouteReason::NoPlace) {
            Decision::Nowhere { reason } => {
                match standby(view, now, &outstanding, tie, |node| node.eligible) {
                    Some(node) => on_standby(node, reason),
                    None => Decision::Nowhere { reason },
                }
            }
            decision => decision,
        },
        (_, Need::Standby) => match shown(policy, floor, view, now, &outstanding, tie) {
            Some(node) => on_standby(node, RouteReason::Standby),
            None => primary(view, now, &outstanding, why_not(policy, view, now)),
        },
    }
}

fn on_standby(node: usize, reason: RouteReason) -> Decision {
    Decision::Node {
        node,
        role: Role::Standby,
        reason,
    }
}

/// A standby that shows what the policy asks for.
fn shown(
    policy: Policy,
    floor: &mut Floor,
    view: &View,
    now: Instant,
    outstanding: &impl Fn(usize) -> u32,
    tie: impl FnOnce(u64, u32) -> usize,
) -> Option<usize> {
    let any = policy.consistency == Consistency::Eventual;
    let resolved = any || floor.resolve(view);
    if let Some(all) = &view.readable
        && policy.max_lag.is_none()
        && all.fresh_until.is_some_and(|until| now <= until)
        && (any || floor.satisfied_at(all.position))
    {
        return least_busy(all.places, outstanding, tie);
    }
    standby(view, now, outstanding, tie, |node| {
        policy.admits(node) && resolved && (any || floor.satisfied_by(node))
    })
}

/// A standby that may be read, whatever anybody has written.
pub fn any_standby(view: &View, now: Instant) -> Option<usize> {
    standby(view, now, &|_| 0, first, |node| node.eligible)
}

fn standby(
    view: &View,
    now: Instant,
    outstanding: &impl Fn(usize) -> u32,
    tie: impl FnOnce(u64, u32) -> usize,
    serves: impl Fn(&NodeView) -> bool,
) -> Option<usize> {
    let mut candidates = 0;
    for (place, node) in view.nodes.iter().enumerate() {
        if serves(node) && view.is_fresh(place, now) {
            candidates |= 1 << place;
        }
    }
    least_busy(candidates, outstanding, tie)
}

fn primary(
    view: &View,
    now: Instant,
    outstanding: &impl Fn(usize) -> u32,
    reason: RouteReason,
) -> Decision {
    match view.primary {
        Some(node) if view.is_fresh(node, now) && outstanding(node) != u32::MAX => Decision::Node {
            node,
            role: Role::Primary,
            reason,
        },
        _ => Decision::Nowhere { reason },
    }
}

/// Why no standby takes a read.
fn why_not(policy: Policy, view: &View, now: Instant) -> RouteReason {
    let mut reason = RouteReason::NoStandby;
    for (index, node) in view.nodes.iter().enumerate() {
        if policy.admits(node) && view.is_fresh(index, now) {
            return RouteReason::ReadYourWrites;
        }
        if node.lag.is_some() {
            reason = RouteReason::Lag;
        }
    }
    reason
}
