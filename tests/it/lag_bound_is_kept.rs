//! `max_lag`: a standby whose replay stops while the primary writes is not read, and is again when it has caught up.

use std::time::Duration;

use pgweir::testbed::{Node, request};

use crate::support::{Rig, execute, value};

#[test]
fn a_standby_over_the_bound_leaves_the_read_set_and_comes_back() {
    let rig = Rig::start(2, |config| {
        config.clusters[0].reads.max_lag = Duration::from_millis(500)
    });
    let mut writer = rig.client("postgres");
    writer.query("CREATE TABLE t (n int)").expect("DDL");
    rig.cluster.wait_caught_up().expect("standbys");
    rig.learn("postgres");
    let (paused, other) = (rig.cluster.standbys()[0], rig.cluster.standbys()[1]);
    let reads = |node: &Node| {
        rig.metric(
            "pgweir_node_statements_total",
            &[("node", node.name()), ("role", "standby")],
        )
    };
    paused.pause_replay().expect("pause");
    let writer = std::cell::RefCell::new(writer);
    rig.wait("the paused standby to leave the read set", || {
        writer
            .borrow_mut()
            .query("INSERT INTO t VALUES (1)")
            .expect("insert");
        !rig.is_eligible(paused)
    });
    assert!(rig.is_eligible(other), "the other one keeps up");
    let (before_paused, before_other) = (reads(paused), reads(other));
    let mut reader = rig.client("postgres");
    for _ in 0..50 {
        value(&mut reader, "SELECT count(*) FROM t");
    }
    assert_eq!(
        reads(paused),
        before_paused,
        "no read goes to a standby over the bound"
    );
    assert_eq!(reads(other), before_other + 50.0);
    paused.resume_replay().expect("resume");
    rig.wait("the standby to come back", || rig.is_eligible(paused));
    let before = reads(paused);
    rig.wait("reads on it", || {
        value(&mut rig.client("postgres"), "SELECT count(*) FROM t");
        reads(paused) > before
    });
}

/// Who waits for a connection to a standby reads what is within the bound when it is its turn, not when it came.
#[test]
fn a_standby_that_falls_behind_is_not_read_by_those_who_wait_for_it() {
    let rig = Rig::start(1, |config| {
        config.clusters[0].reads.max_lag = Duration::from_millis(500);
        config.databases[0].pool.size = 1;
    });
    let mut writer = rig.client("postgres");
    writer.query("CREATE TABLE t (n int)").expect("DDL");
    rig.cluster.wait_caught_up().expect("standby");
    rig.learn("postgres");
    let standby = rig.cluster.standbys()[0];
    let mut holder = rig.client("postgres");
    execute(&mut holder, "BEGIN READ ONLY");
    assert_eq!(value(&mut holder, "SELECT count(*) FROM t"), "0");
    let mut reader = rig.client("postgres");
    reader
        .send(&request::query("SELECT count(*) FROM t"))
        .unwrap();
    rig.wait("the reader to wait for the standby's connection", || {
        rig.metric("pgweir_pool_waiting", &[]) == 1.0
    });
    standby.pause_replay().expect("pause");
    rig.wait("the standby to leave the read set", || {
        writer.query("INSERT INTO t VALUES (1)").expect("insert");
        !rig.is_eligible(standby)
    });
    let written = value(&mut writer, "SELECT count(*) FROM t");
    execute(&mut holder, "COMMIT");
    let answer = reader.recv_until_ready().unwrap();
    let row = answer.iter().find(|message| message.tag == b'D').unwrap();
    assert_eq!(row.text_row().unwrap(), [Some(written)]);
    standby.resume_replay().expect("resume");
}

#[test]
fn a_paused_standby_of_an_idle_primary_is_as_good_as_any() {
    let rig = Rig::start(1, |config| {
        config.clusters[0].reads.max_lag = Duration::from_millis(500)
    });
    rig.cluster.wait_caught_up().expect("standby");
    let standby = rig.cluster.standbys()[0];
    standby.pause_replay().expect("pause");
    // Nothing is written: what it shows is all there is. Ten bounds' worth of samples must agree.
    let probes = || rig.metric("pgweir_routed_statements_total", &[("target", "standby")]);
    let before = probes();
    let mut reader = rig.client("postgres");
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        value(&mut reader, "SELECT 1");
        assert!(rig.is_eligible(standby), "after {:?}", started.elapsed());
    }
    assert!(probes() > before);
    standby.resume_replay().expect("resume");
}

/// How often the nodes are asked: as configured while clients send something, less often while none does.
#[test]
fn nodes_are_asked_less_often_while_nobody_comes() {
    let rig = Rig::start(0, |_| ());
    let primary = rig.cluster.primary();
    let latest = "SELECT extract(epoch FROM query_start) FROM pg_stat_activity \
        WHERE application_name = 'pgweir monitor'";
    let mut before = f64::MAX;
    // Seconds between two questions; none if there was none since the last look.
    let mut pause = || {
        let asked: f64 = primary.value(latest).unwrap().parse().unwrap();
        let pause = asked - before;
        before = asked;
        pause
    };
    let mut client = rig.client("postgres");
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    // Five times the rig's interval, less what a timer may be early.
    rig.wait("the monitor to rest", || pause() > 0.4);
    rig.wait("the monitor to be awake", || {
        value(&mut client, "SELECT 1");
        (0.01..0.2).contains(&pause())
    });
}
