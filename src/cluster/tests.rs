//! Scripted observations in virtual time, and what the judge makes of them.

use std::time::{Duration, Instant};

use super::*;

const SYSTEM: u64 = 7;
const MAX_LAG: Duration = Duration::from_secs(10);
const SILENCE_AFTER: Duration = Duration::from_secs(2);

/// A judge and its clock, in milliseconds.
struct Script {
    judge: Judge,
    start: Instant,
    now: u64,
    events: Vec<Event>,
}

impl Script {
    fn new(nodes: usize) -> Script {
        let policy = Policy {
            max_lag: MAX_LAG,
            silence_after: SILENCE_AFTER,
        };
        Script {
            judge: Judge::new(nodes, policy),
            start: Instant::now(),
            now: 0,
            events: Vec::new(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn wait(&mut self, ms: u64) -> &mut Script {
        self.now += ms;
        self
    }

    fn hear(&mut self, node: usize, result: Result<Answer, Silence>) -> &mut Script {
        let (sent, received) = (self.at(self.now), self.at(self.now + 1));
        self.now += 1;
        self.events.extend(self.judge.observe(Observation {
            node,
            sent,
            received,
            result,
        }));
        self
    }

    /// A node says that it is writable.
    fn writable(&mut self, node: usize, timeline: u32, insert: u64) -> &mut Script {
        self.hear(node, Ok(writable(timeline, insert)))
    }

    /// A node says that it is in recovery.
    fn standby(&mut self, node: usize, timeline: u32, replay: u64) -> &mut Script {
        self.hear(node, Ok(standby(timeline, replay)))
    }

    fn silent(&mut self, node: usize, silence: Silence) -> &mut Script {
        self.hear(node, Err(silence))
    }

    /// Checks who is primary, and the state of every node; an asterisk marks those that may be read.
    #[track_caller]
    fn check(&mut self, primary: Option<usize>, states: &str) -> &mut Script {
        let view = self.judge.view();
        let seen: Vec<_> = view
            .nodes
            .iter()
            .map(|node| {
                format!(
                    "{}{}",
                    node.state.as_str(),
                    if node.eligible { "*" } else { "" }
                )
            })
            .collect();
        assert_eq!(
            (view.primary, seen.join(" ").as_str()),
            (primary, states),
            "{:?}",
            self.events
        );
        self
    }

    fn incarnation(&self) -> u64 {
        self.judge.view().incarnation
    }

    /// A cluster of a primary (0) and two standbys (1, 2) at position 100 on timeline 1.
    fn steady() -> Script {
        let mut script = Script::new(3);
        script
            .writable(0, 1, 100)
            .standby(1, 1, 100)
            .standby(2, 1, 100)
            .writable(0, 1, 100)
            .standby(1, 1, 100)
            .standby(2, 1, 100)
            .check(Some(0), "primary standby* standby*");
        script.events.clear();
        script
    }
}

fn writable(timeline: u32, insert: u64) -> Answer {
    Answer {
        in_recovery: false,
        system_id: SYSTEM,
        started: 1,
        timeline: Some(Timeline(timeline)),
        insert: Some(Lsn(insert)),
        flush: Some(Lsn(insert)),
        replay: None,
        receive: None,
        paused: false,
    }
}

fn standby(timeline: u32, replay: u64) -> Answer {
    Answer {
        in_recovery: true,
        insert: None,
        flush: None,
        replay: Some(Lsn(replay)),
        receive: Some(Lsn(replay)),
        ..writable(timeline, 0)
    }
}

fn foreign(answer: Answer) -> Answer {
    Answer {
        system_id: SYSTEM + 1,
        ..answer
    }
}

// ── first start ──────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_first_primary_waits_until_every_node_was_asked() {
    let mut script = Script::new(2);
    script
        .writable(0, 1, 100)
        .check(None, "writable unknown")
        .standby(1, 1, 100)
        .check(Some(0), "primary standby");
    // The primary has not been sampled since it was accepted.
    script
        .writable(0, 1, 100)
        .standby(1, 1, 100)
        .check(Some(0), "primary standby*");
}

#[test]
fn a_silent_node_delays_the_first_primary_for_a_bounded_time() {
    let mut script = Script::new(2);
    script.writable(0, 1, 100).check(None, "writable unknown");
    script
        .wait(1900)
        .writable(0, 1, 100)
        .check(None, "writable unknown");
    script
        .wait(200)
        .writable(0, 1, 100)
        .check(Some(0), "primary unknown");
    // A node that nobody listens at has been asked.
    let mut script = Script::new(2);
    script
        .silent(1, Silence::Gone)
        .writable(0, 1, 100)
        .check(Some(0), "primary down");
}

#[test]
fn several_writable_nodes_at_the_first_start() {
    let mut script = Script::new(2);
    script
        .writable(0, 1, 500)
        .writable(1, 2, 100)
        .check(Some(1), "fenced primary");
    let mut script = Script::new(2);
    script
        .writable(0, 2, 500)
        .writable(1, 2, 100)
        .check(None, "writable writable");
    assert!(script.events.contains(&Event::Split { nodes: vec![0, 1] }));
}

// ── lag ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_idle_primary_has_no_lag() {
    let mut script = Script::steady();
    for _ in 0..100 {
        script
            .wait(500)
            .writable(0, 1, 100)
            .standby(1, 1, 100)
            .standby(2, 1, 100);
    }
    script.check(Some(0), "primary standby* standby*");
    assert_eq!(script.judge.view().nodes[1].lag, Some(Duration::ZERO));
}

#[test]
fn paused_replay_is_lag_only_while_somebody_writes() {
    let mut script = Script::steady();
    for _ in 0..60 {
        script.wait(500).writable(0, 1, 100).standby(1, 1, 100);
        script.standby(2, 1, 100);
    }
    script.check(Some(0), "primary standby* standby*");
    for step in 1..=30 {
        let lsn = 100 + step;
        script.wait(500).writable(0, 1, lsn).standby(1, 1, lsn);
        script.standby(2, 1, 100);
    }
    script.check(Some(0), "primary standby* standby");
    assert_eq!(script.judge.view().nodes[2].lag_bytes, Some(30));
}

#[test]
fn a_record_that_ends_on_a_page_boundary_is_no_lag() {
    // The standby never replays the page's header before somebody writes again.
    let mut script = Script::new(2);
    for _ in 0..3 {
        let insert = Lsn(0x424_8018).normalised().0;
        script.writable(0, 1, insert).standby(1, 1, 0x424_8000);
    }
    script.check(Some(0), "primary standby*");
    assert_eq!(script.judge.view().nodes[1].lag_bytes, Some(0));
}

#[test]
fn a_standby_is_left_and_read_again_with_hysteresis() {
    // The primary writes at 1 a second; lag in seconds is what the standby has not replayed.
    let check = |lags: &[u64], expected: &str| {
        let mut script = Script::new(2);
        script.writable(0, 1, 0).standby(1, 1, 0);
        for second in 1..=100 {
            script.wait(999).writable(0, 1, second);
        }
        script.standby(1, 1, 100);
        script.check(Some(0), "primary standby*");
        let mut seen = String::new();
        for (second, lag) in (101..).zip(lags) {
            script.wait(990).writable(0, 1, second);
            script.standby(1, 1, second - lag);
            let eligible = script.judge.view().nodes[1].eligible;
            seen.push(if eligible { '*' } else { '-' });
        }
        assert_eq!(seen, expected, "{lags:?}");
    };
    check(&[9, 9, 9], "***");
    // Twice in a row above the bound, or once above twice the bound.
    check(&[12, 9, 12, 9], "****");
    check(&[12, 12, 12], "*--");
    check(&[30], "-");
    // Back after three in a row well below it.
    check(&[30, 1, 1, 1], "---*");
    check(&[30, 9, 9, 9, 9], "-----");
    check(&[30, 1, 1, 9, 1, 1, 1], "------*");
}

// ── failures of the primary ──────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_promotion_is_accepted_after_two_answers() {
    let mut script = Script::steady();
    let before = script.incarnation();
    script
        .silent(0, Silence::Gone)
        .check(None, "down standby* standby*")
        .writable(1, 2, 150)
        .check(None, "down writable standby*")
        .writable(1, 2, 150)
        .check(Some(1), "down primary standby*");
    assert!(script.incarnation() > before);
    let timeline = Timeline(2);
    assert!(script.events.contains(&Event::PrimaryLost { node: 0 }));
    assert!(
        script
            .events
            .contains(&Event::PrimaryAccepted { node: 1, timeline })
    );
    // A high position on the old timeline says nothing. The standby is read again once it follows the new one.
    for _ in 0..5 {
        script
            .standby(2, 1, 1_000_000)
            .check(Some(1), "down primary standby");
    }
    script
        .standby(2, 2, 160)
        .standby(2, 2, 160)
        .standby(2, 2, 160)
        .check(Some(1), "down primary standby*");
}

#[test]
fn a_claim_that_is_interrupted_starts_again() {
    let mut script = Script::steady();
    script
        .silent(0, Silence::Gone)
        .writable(1, 2, 150)
        .silent(1, Silence::TimedOut)
        .writable(1, 2, 150)
        .check(None, "down writable standby*")
        .writable(1, 2, 150)
        .check(Some(1), "down primary standby*");
}

#[test]
fn a_newer_timeline_takes_the_writes_from_a_primary_that_still_answers() {
    let mut script = Script::steady();
    script
        .writable(1, 2, 150)
        .check(None, "writable writable standby*")
        .writable(1, 2, 150)
        .check(Some(1), "fenced primary standby*")
        .writable(0, 1, 200)
        .check(Some(1), "fenced primary standby*");
}

#[test]
fn an_old_primary_that_returns_is_fenced() {
    let mut script = Script::steady();
    script
        .silent(0, Silence::Gone)
        .writable(1, 2, 150)
        .writable(1, 2, 150)
        .wait(60_000)
        .silent(2, Silence::TimedOut)
        .writable(1, 2, 150)
        .writable(0, 1, 900)
        .writable(0, 1, 900)
        .writable(0, 1, 900)
        .check(Some(1), "fenced primary down");
    // It comes back as a standby of the new one.
    script
        .standby(0, 2, 150)
        .check(Some(1), "standby* primary down");
    // The new primary's loss does not make the old one primary.
    let mut script = Script::steady();
    script
        .writable(1, 2, 150)
        .writable(1, 2, 150)
        .silent(1, Silence::Gone)
        .writable(0, 1, 900)
        .writable(0, 1, 900)
        .check(None, "fenced down standby*");
}

#[test]
fn a_restart_on_the_same_timeline_changes_nothing() {
    let mut script = Script::steady();
    let before = script.incarnation();
    script
        .silent(0, Silence::Gone)
        .check(None, "down standby* standby*")
        .silent(0, Silence::Starting)
        .check(None, "starting standby* standby*")
        .writable(0, 1, 100)
        .check(Some(0), "primary standby* standby*");
    assert_eq!(script.incarnation(), before);
}

#[test]
fn wal_that_a_crash_has_lost_is_noticed() {
    let mut script = Script::steady();
    let before = script.incarnation();
    script
        .writable(0, 1, 500)
        .silent(0, Silence::Gone)
        .writable(0, 1, 400);
    assert!(script.incarnation() > before);
    let view = script.judge.view();
    assert_eq!(view.primary, Some(0));
    assert!(
        view.samples
            .iter()
            .all(|sample| sample.position.lsn <= Lsn(400))
    );
}

#[test]
fn without_a_primary_standbys_are_read_with_the_lag_that_they_had() {
    let mut script = Script::steady();
    script.silent(0, Silence::Gone);
    for _ in 0..100 {
        script.wait(500).silent(0, Silence::Gone);
        script.standby(1, 1, 100).standby(2, 1, 100);
    }
    script.check(None, "down standby* standby*");
    assert_eq!(script.judge.view().nodes[1].lag, Some(Duration::ZERO));
}

// ── contradictions ───────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn nodes_that_nothing_orders_are_a_split() {
    // Another node writes on the accepted timeline.
    let mut script = Script::steady();
    script
        .writable(1, 1, 150)
        .check(None, "writable writable standby*");
    assert!(script.events.contains(&Event::Split { nodes: vec![0, 1] }));
    // It is one event, not one for each answer, and it ends when the other one steps back.
    script.writable(1, 1, 150).writable(0, 1, 150);
    let splits = script
        .events
        .iter()
        .filter(|e| matches!(e, Event::Split { .. }));
    assert_eq!(splits.count(), 1);
    script
        .standby(1, 1, 150)
        .writable(0, 1, 160)
        .check(Some(0), "primary standby* standby*");
    // Two standbys were promoted from the same timeline.
    let mut script = Script::steady();
    script
        .silent(0, Silence::Gone)
        .writable(1, 2, 150)
        .writable(2, 2, 160)
        .writable(1, 2, 150)
        .writable(2, 2, 160)
        .check(None, "down writable writable");
    assert!(script.events.contains(&Event::Split { nodes: vec![1, 2] }));
}

#[test]
fn a_node_of_another_cluster_is_quarantined() {
    let mut script = Script::steady();
    script
        .hear(1, Ok(foreign(writable(9, 9999))))
        .hear(1, Ok(foreign(writable(9, 9999))))
        .check(Some(0), "primary quarantined standby*")
        .hear(1, Ok(foreign(standby(1, 100))))
        .check(Some(0), "primary quarantined standby*")
        .standby(1, 1, 100)
        .check(Some(0), "primary standby* standby*");
    // It answers first, and the majority outvotes it.
    let mut script = Script::new(3);
    script
        .hear(0, Ok(foreign(writable(9, 9999))))
        .check(None, "writable unknown unknown")
        .writable(1, 1, 100)
        .standby(2, 1, 100)
        .check(Some(1), "quarantined primary standby");
}

// ── silence ──────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_timeout_is_weaker_than_a_closed_door() {
    let mut script = Script::steady();
    script
        .silent(1, Silence::TimedOut)
        .check(Some(0), "primary standby* standby*")
        .silent(1, Silence::Gone)
        .check(Some(0), "primary down standby*");
    let mut script = Script::steady();
    script
        .silent(0, Silence::TimedOut)
        .check(Some(0), "primary standby* standby*")
        .wait(2100)
        .standby(1, 1, 100)
        .standby(2, 1, 100)
        .silent(0, Silence::TimedOut)
        .check(None, "down standby* standby*");
}

/// The proxy's process stood still, or its machine: nobody was asked, so nobody was silent.
#[test]
fn a_standstill_of_the_proxy_speaks_against_nobody() {
    let mut script = Script::steady();
    script
        .wait(30_000)
        .standby(1, 1, 100)
        .check(Some(0), "primary standby* standby*")
        .silent(0, Silence::TimedOut)
        .check(None, "down standby* standby*");
}

#[test]
fn a_node_that_starts_is_not_down() {
    let mut script = Script::steady();
    script
        .silent(1, Silence::Starting)
        .check(Some(0), "primary starting standby*")
        .silent(2, Silence::Rejected("no such user".to_owned()))
        .check(Some(0), "primary starting down")
        .standby(1, 1, 100)
        .check(Some(0), "primary standby* down");
}

#[test]
fn a_standby_without_a_timeline_is_trusted_until_the_first_failover() {
    let unknown = |replay| Answer {
        timeline: None,
        ..standby(0, replay)
    };
    let mut script = Script::new(2);
    script
        .writable(0, 1, 100)
        .hear(1, Ok(unknown(100)))
        .writable(0, 1, 100)
        .hear(1, Ok(unknown(100)))
        .check(Some(0), "primary standby*")
        .writable(0, 2, 200)
        .writable(0, 2, 200)
        .hear(1, Ok(unknown(1000)))
        .check(Some(0), "primary standby");
}
