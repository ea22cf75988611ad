//! Floors and decisions over views that are written by hand.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::cluster::{Lsn, NodeState, NodeView, Position, Readable, Sample, Timeline, View};
use crate::config::{Consistency, Reads, Route, Routing};
use crate::sql::Classifier;
use crate::sql::catalog::TABLES;

/// A view of samples as (milliseconds, timeline, position), with a primary that is node 0.
fn view(start: Instant, samples: &[(u64, u32, u64)], incarnation: u64) -> View {
    View {
        primary: Some(0),
        incarnation,
        samples: samples
            .iter()
            .map(|(at, timeline, lsn)| Sample {
                sent: start + Duration::from_millis(*at),
                position: position(*timeline, *lsn),
            })
            .collect(),
        silence_after: Duration::from_secs(2),
        ..View::empty(1)
    }
}

fn position(timeline: u32, lsn: u64) -> Position {
    Position {
        timeline: Timeline(timeline),
        lsn: Lsn(lsn),
    }
}

fn node(state: NodeState, position: Option<Position>) -> NodeView {
    NodeView {
        state,
        eligible: state == NodeState::Standby,
        position,
        ..View::empty(1).nodes[0].clone()
    }
}

fn standby(timeline: u32, lsn: u64) -> NodeView {
    node(NodeState::Standby, Some(position(timeline, lsn)))
}

/// The lowest position on timeline 1 that satisfies a session that wrote at a time; `None` if none is known to.
fn check_floor(wrote: u64, samples: &[(u64, u32, u64)], expected: Option<u64>) {
    let start = Instant::now();
    let mut floor = Floor::default();
    floor.wrote(start + Duration::from_millis(wrote));
    let resolved = floor.resolve(&view(start, samples, 1));
    assert_eq!(
        resolved,
        expected.is_some(),
        "write at {wrote}: {samples:?}"
    );
    let lowest = (0..1000).find(|lsn| floor.satisfied_by(&standby(1, *lsn)));
    assert_eq!(lowest, expected, "write at {wrote}: {samples:?}");
}

#[test]
fn a_write_is_covered_by_the_first_sample_asked_for_after_it() {
    check_floor(10, &[], None);
    // One that was asked for before may have missed it.
    check_floor(10, &[(5, 1, 100)], None);
    check_floor(10, &[(9, 1, 100)], None);
    check_floor(10, &[(10, 1, 100)], Some(100));
    check_floor(10, &[(5, 1, 100), (15, 1, 200), (20, 1, 300)], Some(200));
    check_floor(10, &[(15, 1, 0)], Some(0));
}

#[test]
fn a_session_that_has_not_written_reads_anywhere() {
    let start = Instant::now();
    let mut floor = Floor::default();
    assert!(floor.is_none());
    assert!(floor.resolve(&View::empty(1)));
    for node in [standby(1, 0), standby(9, 0), node(NodeState::Standby, None)] {
        assert!(floor.satisfied_by(&node));
    }
    floor.wrote(start);
    assert!(!floor.is_none());
    assert!(
        !floor.satisfied_by(&standby(1, u64::MAX)),
        "its position is not known yet"
    );
}

#[test]
fn a_later_write_raises_the_floor() {
    let start = Instant::now();
    let samples = [(10, 1, 100), (20, 1, 200), (30, 1, 300)];
    let mut floor = Floor::default();
    floor.wrote(start + Duration::from_millis(5));
    assert!(floor.resolve(&view(start, &samples[..1], 1)));
    floor.wrote(start + Duration::from_millis(25));
    assert!(!floor.resolve(&view(start, &samples[..2], 1)));
    assert!(!floor.satisfied_by(&standby(1, 1000)));
    assert!(floor.resolve(&view(start, &samples, 1)));
    assert!(!floor.satisfied_by(&standby(1, 299)));
    assert!(floor.satisfied_by(&standby(1, 300)));
}

#[test]
fn positions_of_another_timeline_say_nothing() {
    let start = Instant::now();
    let mut floor = Floor::default();
    floor.wrote(start);
    assert!(floor.resolve(&view(start, &[(10, 2, 100)], 1)));
    assert!(floor.satisfied_by(&standby(2, 100)));
    assert!(!floor.satisfied_by(&standby(1, 1_000_000)));
    assert!(!floor.satisfied_by(&standby(3, 1_000_000)));
    assert!(!floor.satisfied_by(&node(NodeState::Standby, None)));
}

#[test]
fn a_new_incarnation_moves_the_floor_to_its_first_sample() {
    let start = Instant::now();
    let mut floor = Floor::default();
    floor.wrote(start);
    assert!(floor.resolve(&view(start, &[(10, 1, 500)], 1)));
    // Without a sample of the new primary nothing is known.
    assert!(!floor.resolve(&view(start, &[], 2)));
    // While there is no primary the old position holds.
    let lost = View {
        primary: None,
        ..view(start, &[], 2)
    };
    assert!(floor.resolve(&lost));
    assert!(floor.satisfied_by(&standby(1, 500)));
    assert!(floor.resolve(&view(start, &[(90, 2, 450), (95, 2, 600)], 2)));
    assert!(floor.satisfied_by(&standby(2, 450)));
    assert!(!floor.satisfied_by(&standby(2, 449)));
    assert!(!floor.satisfied_by(&standby(1, 500)));
}

// ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────

/// One node of a view: its state, and how many requests it has.
#[derive(Clone, Copy, Debug)]
struct Is(NodeState, bool, u32);

const PRIMARY: Is = Is(NodeState::Primary, false, 0);
const STANDBY: Is = Is(NodeState::Standby, true, 0);
const BUSY: Is = Is(NodeState::Standby, true, 9);
const LAGGING: Is = Is(NodeState::Standby, false, 0);
const DOWN: Is = Is(NodeState::Down, false, 0);
/// A standby that has been tried in vain.
const AVOIDED: Is = Is(NodeState::Standby, true, u32::MAX);

fn check_decision(
    need: Need,
    policy: Policy,
    nodes: &[Is],
    floor: Option<u64>,
    expected: Result<(usize, RouteReason), RouteReason>,
) {
    let now = Instant::now();
    let mut view = view(now, &[(10, 1, 100)], 1);
    view.nodes = nodes
        .iter()
        .map(|Is(state, eligible, _)| NodeView {
            eligible: *eligible,
            lag: (*state == NodeState::Standby).then_some(if *eligible {
                Duration::ZERO
            } else {
                Duration::from_secs(20)
            }),
            seen: (*state != NodeState::Down).then_some(now),
            ..node(*state, Some(position(1, 100)))
        })
        .collect();
    view.primary = nodes.iter().position(|node| node.0 == NodeState::Primary);
    let mut session = Floor::default();
    if let Some(at) = floor {
        session.wrote(now + Duration::from_millis(at));
    }
    let outstanding = |node: usize| nodes[node].2;
    let decision = decide(need, policy, &mut session, &view, now, outstanding, first);
    let got = match decision {
        Decision::Node { node, role, reason } => {
            let standby = view.nodes[node].state == NodeState::Standby;
            assert_eq!(role == Role::Standby, standby, "{nodes:?}");
            Ok((node, reason))
        }
        Decision::Nowhere { reason } => Err(reason),
    };
    assert_eq!(
        got, expected,
        "{need:?} of {nodes:?} with floor {floor:?}, {policy:?}"
    );
}

#[test]
fn decisions() {
    use RouteReason::{Class, Lag, NoPlace, NoStandby, ReadYourWrites, Standby};
    let split = Policy::default();
    let check = |need, nodes: &[Is], expected| check_decision(need, split, nodes, None, expected);
    check(Need::Standby, &[PRIMARY, STANDBY], Ok((1, Standby)));
    check(Need::Standby, &[PRIMARY, BUSY, STANDBY], Ok((2, Standby)));
    check(Need::Standby, &[PRIMARY, AVOIDED, BUSY], Ok((2, Standby)));
    check(Need::Standby, &[PRIMARY, LAGGING], Ok((0, Lag)));
    check(Need::Standby, &[PRIMARY, DOWN], Ok((0, NoStandby)));
    check(Need::Standby, &[PRIMARY], Ok((0, NoStandby)));
    check(Need::Standby, &[DOWN, STANDBY], Ok((1, Standby)));
    check(Need::Standby, &[DOWN, LAGGING], Err(Lag));
    check(Need::Standby, &[DOWN, DOWN], Err(NoStandby));
    check(Need::Primary, &[PRIMARY, STANDBY], Ok((0, Class)));
    check(Need::Primary, &[DOWN, STANDBY], Err(Class));
    check(Need::Any, &[PRIMARY, STANDBY], Ok((0, NoPlace)));
    check(Need::Any, &[DOWN, STANDBY], Ok((1, NoPlace)));
    check(Need::Any, &[DOWN, LAGGING], Err(NoPlace));
    // The sample of these views was asked for at 10 ms, and the standbys have replayed it.
    let after = |wrote, nodes: &[Is], expected| {
        check_decision(Need::Standby, split, nodes, Some(wrote), expected);
    };
    after(5, &[PRIMARY, STANDBY], Ok((1, Standby)));
    after(15, &[PRIMARY, STANDBY], Ok((0, ReadYourWrites)));
    after(15, &[DOWN, STANDBY], Err(ReadYourWrites));
    after(15, &[PRIMARY, LAGGING], Ok((0, Lag)));
}

#[test]
fn routes() {
    use RouteReason::{Class, Lag, NoStandby, ReadYourWrites, Standby};
    let route = |route| Policy {
        route,
        ..Policy::default()
    };
    let primary = |need, nodes: &[Is], expected| {
        check_decision(need, route(Route::Primary), nodes, None, expected);
    };
    primary(
        Need::Standby,
        &[PRIMARY, STANDBY],
        Ok((0, RouteReason::Route)),
    );
    primary(Need::Any, &[PRIMARY, STANDBY], Ok((0, RouteReason::Route)));
    primary(Need::Primary, &[PRIMARY, STANDBY], Ok((0, Class)));
    primary(Need::Standby, &[DOWN, STANDBY], Err(RouteReason::Route));
    // Never the primary, whatever the statement is.
    let standby = |need, nodes: &[Is], wrote, expected| {
        check_decision(need, route(Route::Standby), nodes, wrote, expected);
    };
    standby(Need::Standby, &[PRIMARY, STANDBY], None, Ok((1, Standby)));
    standby(
        Need::Primary,
        &[PRIMARY, STANDBY],
        None,
        Ok((1, RouteReason::Route)),
    );
    standby(
        Need::Any,
        &[PRIMARY, STANDBY],
        None,
        Ok((1, RouteReason::Route)),
    );
    standby(Need::Standby, &[PRIMARY], None, Err(NoStandby));
    standby(Need::Primary, &[PRIMARY, LAGGING], None, Err(Lag));
    standby(
        Need::Standby,
        &[PRIMARY, STANDBY],
        Some(15),
        Err(ReadYourWrites),
    );
    standby(
        Need::Standby,
        &[PRIMARY, STANDBY],
        Some(5),
        Ok((1, Standby)),
    );
    let observe = |need, expected| {
        check_decision(
            need,
            route(Route::Observe),
            &[PRIMARY, STANDBY],
            None,
            expected,
        );
    };
    observe(Need::Standby, Ok((1, Standby)));
    observe(Need::Primary, Ok((0, Class)));
}

#[test]
fn bounds_of_a_session() {
    use RouteReason::{Lag, ReadYourWrites, Standby};
    let read = |policy, nodes: &[Is], wrote, expected| {
        check_decision(Need::Standby, policy, nodes, wrote, expected);
    };
    let eventual = Policy {
        consistency: Consistency::Eventual,
        ..Policy::default()
    };
    read(eventual, &[PRIMARY, STANDBY], Some(15), Ok((1, Standby)));
    read(eventual, &[PRIMARY, LAGGING], Some(15), Ok((0, Lag)));
    // Standbys that lag do so by 20 seconds.
    let within = |seconds| Policy {
        max_lag: Some(Duration::from_secs(seconds)),
        ..Policy::default()
    };
    read(within(30), &[PRIMARY, LAGGING], None, Ok((1, Standby)));
    read(within(20), &[PRIMARY, LAGGING], None, Ok((1, Standby)));
    read(within(19), &[PRIMARY, LAGGING], None, Ok((0, Lag)));
    read(within(0), &[PRIMARY, STANDBY], None, Ok((1, Standby)));
    read(
        within(30),
        &[PRIMARY, LAGGING],
        Some(15),
        Ok((0, ReadYourWrites)),
    );
    read(
        within(30),
        &[PRIMARY, DOWN],
        None,
        Ok((0, RouteReason::NoStandby)),
    );
}

#[test]
fn hints_are_nearer_than_anything_else() {
    let check = |route, hint: &str, statement: &str, expected: Route| {
        let text = format!("/* pgweir: {hint} */ {statement}");
        let class = Classifier::new(1 << 16).classify(text.as_bytes(), Default::default(), &TABLES);
        let policy = Policy {
            route,
            ..Policy::default()
        };
        let policy = policy.for_statement(class.hinted());
        assert_eq!(
            policy.route, expected,
            "{text} where the route is {route:?}"
        );
        policy
    };
    check(Route::Split, "primary", "select 1", Route::Primary);
    check(Route::Standby, "primary", "select 1", Route::Primary);
    check(Route::Observe, "primary", "select 1", Route::Observe);
    check(Route::Primary, "standby", "select 1", Route::Split);
    check(
        Route::Primary,
        "standby",
        "insert into t values (1)",
        Route::Primary,
    );
    check(Route::Split, "standby", "select f(1)", Route::Split);
    check(Route::Split, "nonsense", "select 1", Route::Split);
    let stale = check(Route::Split, "stale=5s", "select 1", Route::Split);
    assert_eq!(stale.consistency, Consistency::Eventual);
    assert_eq!(stale.max_lag, Some(Duration::from_secs(5)));
}

#[test]
fn a_listener_that_does_not_split_decides() {
    let reads = Reads {
        consistency: Consistency::Session,
        max_lag: Duration::from_secs(10),
        catalog_ttl: Duration::from_secs(60),
        trust_declared_volatility: true,
        catalogs: false,
    };
    let check = |configured, listener, route, fixed| {
        let routing = Routing {
            route: configured,
            ..Routing::default()
        };
        let ground = Ground::new(routing, reads).of_listener(listener);
        assert_eq!(
            (ground.policy.route, ground.fixed),
            (route, fixed),
            "{configured:?} behind {listener:?}"
        );
    };
    let all = [Route::Primary, Route::Standby, Route::Observe];
    check(None, Route::Split, Route::Split, None);
    check(Some(Route::Standby), Route::Split, Route::Standby, None);
    check(
        Some(Route::Observe),
        Route::Split,
        Route::Observe,
        Some(Route::Observe),
    );
    for listener in all {
        check(None, listener, listener, Some(listener));
        for configured in all {
            check(Some(configured), listener, listener, Some(listener));
        }
    }
}

#[test]
fn nodes_that_have_not_answered_lately_get_nothing() {
    let now = Instant::now();
    let mut view = view(now, &[], 1);
    let seen = Some(now);
    view.nodes = [
        NodeView {
            seen,
            ..node(NodeState::Primary, None)
        },
        NodeView {
            seen,
            ..standby(1, 100)
        },
    ]
    .into();
    for (later, expected) in [(1999, Some(1)), (2001, None)] {
        let then = now + Duration::from_millis(later);
        assert_eq!(any_standby(&view, then), expected, "{later} ms later");
        let (policy, mut floor) = (Policy::default(), Floor::default());
        let decision = decide(Need::Primary, policy, &mut floor, &view, then, |_| 0, first);
        assert_eq!(
            matches!(decision, Decision::Node { .. }),
            expected.is_some(),
            "{later} ms later"
        );
    }
}

proptest! {
    /// Whatever the samples: a node that satisfies a session that wrote at a time has replayed one that was asked for at
    /// that time or later.
    #[test]
    fn a_node_that_satisfies_the_floor_shows_the_write(
        steps in proptest::collection::vec((1u64..20, 0u64..30), 0..80),
        wrote in proptest::collection::vec(0u64..600, 1..4),
        replay in 0u64..1500,
        incarnations in (1u64..3, 1u64..3),
    ) {
        let start = Instant::now();
        let (mut at, mut lsn, mut samples) = (0, 0, Vec::new());
        for (wait, grow) in steps {
            at += wait;
            lsn += grow;
            samples.push((at, 1, lsn));
        }
        let mut floor = Floor::default();
        for (turn, wrote) in wrote.iter().enumerate() {
            floor.wrote(start + Duration::from_millis(*wrote));
            let incarnation = if turn == 0 { incarnations.0 } else { incarnations.1 };
            let resolved = floor.resolve(&view(start, &samples, incarnation));
            let shows = resolved && floor.satisfied_by(&standby(1, replay));
            let covered = samples.iter().any(|(sent, _, lsn)| sent >= wrote && *lsn <= replay);
            prop_assert!(!shows || covered, "write at {wrote}, replay {replay}: {samples:?}");
        }
    }

    /// What standbys have in common is a shorter way to the same place.
    #[test]
    fn what_standbys_have_in_common_decides_as_each_of_them_does(
        nodes in proptest::collection::vec(
            (0u8..4, proptest::option::weighted(0.95, 0u64..3000), proptest::option::weighted(0.95, (1u32..3, 0u64..4)), 0u32..4),
            0..9,
        ),
        wrote in proptest::option::of(0u64..30),
        eventual in any::<bool>(),
        max_lag in proptest::option::weighted(0.1, 0u64..20),
        now in 0u64..6000,
        last in 0usize..9,
        turn in any::<u32>(),
    ) {
        let start = Instant::now();
        let then = |ms: u64| start + Duration::from_millis(ms);
        let mut view = view(start, &[(10, 1, 1), (20, 1, 2), (25, 1, 3)], 1);
        let loads: Vec<u32> = nodes.iter().map(|node| if node.3 == 3 { u32::MAX } else { node.3 }).collect();
        let shown = nodes.iter().map(|(state, seen, at, _)| NodeView {
            // Of four, three are standbys that may be read.
            eligible: *state > 0,
            seen: seen.map(then),
            lag: Some(Duration::from_millis(u64::from(*state) * 5)),
            ..node(NodeState::Standby, at.map(|(timeline, lsn)| position(timeline, lsn)))
        });
        view.nodes = shown.collect();
        view.primary = None;
        let mut floor = Floor::default();
        if let Some(wrote) = wrote {
            floor.wrote(then(wrote));
        }
        let policy = Policy {
            consistency: if eventual { Consistency::Eventual } else { Consistency::Session },
            max_lag: max_lag.map(Duration::from_millis),
            ..Policy::default()
        };
        let mut affinity = Affinity::default();
        if last < 8 {
            affinity.took(last);
        }
        let decided = |view: &View| {
            let mut floor = floor;
            let tie = |equals, requests| affinity.choose(equals, requests, || turn);
            decide(Need::Standby, policy, &mut floor, view, then(now), |place| loads[place], tie)
        };
        let each = decided(&view);
        view.readable = Readable::of(&view.nodes, view.silence_after);
        prop_assert_eq!(decided(&view), each);
    }
}
