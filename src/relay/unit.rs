//! Where a unit goes: the decision of `route`, counted and put into words.

use std::time::Instant;

use super::{Cluster, Shared};
use crate::config::Route;
use crate::pool::{Checkout, CheckoutError};
use crate::route::{self, Decision, Floor, Need, Policy, Role, RouteReason};
use crate::session::Session;
use crate::sql::{Access, Class, HintResult, Reason};
use crate::wire::{ClientFacing, Notice, SqlState};

/// The unit at the front of the input, which has been judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) len: usize,
    pub(super) class: Class,
}

/// A unit that waits for its server connection.
pub(super) struct Waiting {
    pub(super) node: usize,
    pub(super) standby: bool,
    /// Nodes that could not be used for this unit.
    pub(super) avoid: u64,
    pub(super) unit: Unit,
    /// The client has been told that it waits.
    pub(super) told: bool,
    pub(super) checkout: Checkout,
}

/// Which kind of node a class needs.
pub fn need(class: Class) -> Need {
    match class.access {
        Access::Read => Need::Standby,
        Access::Neutral | Access::Empty => Need::Any,
        Access::Primary | Access::Write => Need::Primary,
    }
}

/// Chooses a node, without the nodes in `avoid`, and counts the statement.
pub(super) fn choose(
    shared: &Shared,
    cluster: &Cluster,
    class: Class,
    session: &mut Session,
    avoid: u64,
    now: Instant,
) -> Result<(usize, bool), Notice> {
    count_hint(shared, class);
    let policy = session.policy(class);
    let view = cluster.view.load();
    let outstanding = |node: usize| {
        if avoid >> node & 1 == 1 {
            u32::MAX
        } else {
            cluster.outstanding(node)
        }
    };
    let (need, affinity) = (need(class), session.affinity);
    let tie = |equals, requests| affinity.choose(equals, requests, || cluster.turn());
    let floor = &mut session.floor;
    let decide = |policy: Policy, floor: &mut Floor| {
        route::decide(need, policy, floor, &view, now, outstanding, tie)
    };
    let mut decision = decide(policy, floor);
    if policy.route == Route::Observe
        && let Decision::Node {
            role: Role::Standby,
            ..
        } = decision
    {
        let moved = &shared.metrics.would_have_moved;
        moved.at(Role::Standby as usize, class.reason.index()).inc();
        let stay = Policy {
            route: Route::Primary,
            ..policy
        };
        decision = decide(stay, floor);
    }
    match decision {
        Decision::Node { node, role, reason } if avoid >> node & 1 == 0 => {
            let standby = role == Role::Standby;
            if standby {
                session.affinity.took(node);
            }
            count(shared, cluster, node, standby, reason_index(class, reason));
            Ok((node, standby))
        }
        _ => Err(nowhere(policy.route)),
    }
}

/// Whether a node that was chosen some time ago may still take the unit, in the same role.
pub(super) fn still_fits(cluster: &Cluster, waiting: &Waiting, session: &mut Session) -> bool {
    let class = waiting.unit.class;
    let policy = session.policy(class);
    let view = cluster.view.load();
    if !waiting.standby {
        // It has given a connection: that nobody has heard of it for a while is no reason to refuse the unit.
        return view.primary.is_none_or(|node| node == waiting.node);
    }
    let alone = |node: usize| if node == waiting.node { 0 } else { u32::MAX };
    let (need, floor) = (need(class), &mut session.floor);
    let now = Instant::now();
    matches!(
        route::decide(need, policy, floor, &view, now, alone, route::first),
        Decision::Node { node, role: Role::Standby, .. } if node == waiting.node
    )
}

/// Counts what has become of a statement's hint.
fn count_hint(shared: &Shared, class: Class) {
    let Some(result) = class.hint.result.index() else {
        return;
    };
    shared.metrics.hints.at(result).inc();
    if class.hint.result == HintResult::Malformed {
        tracing::debug!("a hint was not understood, and ignored");
    }
}

/// Counts a statement that goes to a node.
fn count(shared: &Shared, cluster: &Cluster, node: usize, standby: bool, reason: usize) {
    let target = usize::from(standby);
    shared.metrics.routed(target, reason).inc();
    if let Some(counters) = shared.metrics.node(cluster.nodes[node].metric) {
        counters.statements.at(target).inc();
    }
}

/// Counts a statement that goes to the connection that its session holds anyway.
pub(super) fn count_held(
    shared: &Shared,
    cluster: &Cluster,
    class: Class,
    node: usize,
    standby: bool,
) {
    let reason = if standby && class.access == Access::Read {
        RouteReason::Standby
    } else {
        RouteReason::Class
    };
    count(shared, cluster, node, standby, reason_index(class, reason));
}

/// Metric labels: the reasons of statements, then the reasons of routing.
pub fn reasons() -> Vec<&'static str> {
    Reason::ALL
        .iter()
        .map(|r| r.as_str())
        .chain(route::RouteReason::ALL.iter().map(|r| r.as_str()))
        .collect()
}

fn reason_index(class: Class, reason: route::RouteReason) -> usize {
    if reason == route::RouteReason::Class {
        class.reason.index()
    } else {
        Reason::ALL.len() + reason.index()
    }
}

/// What a client is told when its unit found no server connection.
pub(super) fn checkout_notice(error: &CheckoutError, route: Route) -> Notice {
    match error {
        CheckoutError::Server(server) if server.node_is_away() => nowhere(route),
        error => error.notice(),
    }
}

pub(super) fn nowhere(route: Route) -> Notice {
    if route == Route::Standby {
        return Notice::error(
            SqlState::CannotConnectNow,
            "no standby can take this statement now",
        )
        .hint(
            "None is within the bound on lag and shows what the session has written, and the route is standby. Try again.",
        );
    }
    Notice::error(
        SqlState::CannotConnectNow,
        "no server can take this statement now",
    )
    .hint("There is no primary at the moment. Try again.")
}
