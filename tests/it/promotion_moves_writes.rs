//! A standby that is promoted gets the writes, without a restart of the proxy and without a word to idle clients.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pgweir::testbed::{Mode, RawClient};

use crate::support::{Rig, execute, sqlstate, value};

#[test]
fn writes_move_reads_go_on_and_idle_clients_stay() {
    let rig = Rig::start(2, |_| ());
    let mut writer = rig.client("postgres");
    writer.query("CREATE TABLE t (n int)").expect("DDL");
    writer.query("INSERT INTO t VALUES (1)").expect("insert");
    let mut idle = rig.client("postgres");
    idle.query("SET application_name = 'idle one'")
        .expect("a setting to keep");
    rig.cluster.wait_caught_up().expect("standbys");
    rig.learn("postgres");
    let (first, second) = (rig.cluster.standbys()[0], rig.cluster.standbys()[1]);
    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut client = rig.client("postgres");
            while !done.load(Ordering::Relaxed) {
                assert_eq!(
                    value(&mut client, "SELECT count(*) >= 1 FROM t"),
                    "t",
                    "after {reads:?} reads"
                );
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        rig.cluster
            .primary()
            .stop(Mode::Fast)
            .expect("stop the primary");
        rig.wait("the proxy to see that the primary is gone", || {
            rig.metric("pgweir_primary_known", &[]) == 0.0
        });
        assert_eq!(sqlstate(&mut writer, "INSERT INTO t VALUES (2)"), "57P03");
        let before = reads.load(Ordering::Relaxed);
        rig.wait("reads to go on without a primary", || {
            reader.is_finished() || reads.load(Ordering::Relaxed) > before + 100
        });
        first.promote().expect("promote");
        rig.wait("the proxy to see the new primary", || {
            rig.metric("pgweir_primary_known", &[]) == 1.0
        });
        writer
            .query("INSERT INTO t VALUES (3)")
            .expect("the same session writes to the new primary");
        assert_eq!(
            value(&mut writer, "SELECT count(*) FROM t WHERE n = 3"),
            "1",
            "and reads its write"
        );
        done.store(true, Ordering::Relaxed);
        reader.join().expect("no read failed");
    });
    assert_eq!(
        first
            .value("SELECT count(*) FROM t WHERE n = 3")
            .expect("ask the new primary"),
        "1"
    );
    assert_eq!(
        value(&mut idle, "SHOW application_name"),
        "idle one",
        "an idle client noticed nothing"
    );
    second.follow(first).expect("the other standby follows");
    rig.wait("the standby to be read again", || rig.is_eligible(second));
}

#[test]
fn an_old_primary_that_comes_back_gets_no_write() {
    let rig = Rig::start(1, |_| ());
    let mut client = rig.client("postgres");
    client.query("CREATE TABLE t (n int)").expect("DDL");
    rig.cluster.wait_caught_up().expect("standby");
    let (old, new) = (&rig.cluster.nodes()[0], &rig.cluster.nodes()[1]);
    old.stop(Mode::Immediate).expect("stop");
    new.promote().expect("promote");
    rig.wait("the new primary", || {
        rig.metric(
            "pgweir_node_role",
            &[("node", new.name()), ("role", "primary")],
        ) == 1.0
    });
    old.start().expect("the old primary comes back as one");
    rig.wait("it to be fenced", || {
        rig.metric(
            "pgweir_node_role",
            &[("node", old.name()), ("role", "fenced")],
        ) == 1.0
    });
    for n in 0..20 {
        client
            .query(&format!("INSERT INTO t VALUES ({n})"))
            .expect("insert");
    }
    assert_eq!(
        old.value("SELECT count(*) FROM t")
            .expect("ask the old one"),
        "0"
    );
    assert_eq!(
        new.value("SELECT count(*) FROM t")
            .expect("ask the new one"),
        "20"
    );
}

#[test]
fn a_primary_that_restarts_is_the_primary_again() {
    let rig = Rig::start(1, |_| ());
    let mut client = rig.client("postgres");
    client.query("CREATE TABLE t (n int)").expect("DDL");
    rig.cluster
        .primary()
        .restart(Mode::Immediate)
        .expect("restart");
    let client = std::cell::RefCell::new(client);
    rig.wait("writes to succeed", || {
        client
            .borrow_mut()
            .query("INSERT INTO t VALUES (1)")
            .is_ok()
    });
}

#[test]
fn what_is_lost_with_a_server_is_told_precisely() {
    let rig = Rig::start(1, |_| ());
    let mut admin = rig.cluster.primary().connect("postgres").expect("straight");
    admin.query("CREATE TABLE t (n int)").expect("DDL");
    admin
        .query(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW WHEN (new.n = 0) EXECUTE FUNCTION slow()",
        )
        .expect("DDL");
    let terminate = |what: &str| {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '{what}%'"
        );
        rig.wait(what, || {
            let mut admin = rig.cluster.primary().connect("postgres").expect("straight");
            value(&mut admin, &sql) == "1"
        });
    };
    let lost = |client: &mut RawClient| {
        let messages = client
            .recv_until_ready()
            .expect("an answer, and the session stays");
        let error = messages
            .iter()
            .find(|message| message.tag == b'E')
            .expect("an error");
        error.error().expect("fields").code().to_owned()
    };
    let send = |client: &mut RawClient, sql: &str| {
        client
            .send(&pgweir::testbed::request::query(sql))
            .expect("send");
    };
    let mut client = rig.client("postgres");
    client.query("INSERT INTO t VALUES (1)").expect("a row");
    send(
        &mut client,
        "UPDATE t SET n = n WHERE pg_sleep(60) IS NOT NULL",
    );
    terminate("UPDATE t SET n = n WHERE pg_sleep(60) IS NOT");
    assert_eq!(
        lost(&mut client),
        "08007",
        "a write may have been carried out"
    );
    client.query("BEGIN").expect("begin");
    client.query("INSERT INTO t VALUES (0)").expect("insert");
    send(&mut client, "COMMIT");
    terminate("COMMIT");
    assert_eq!(
        lost(&mut client),
        "08007",
        "so may a transaction whose COMMIT was sent"
    );
    assert_eq!(value(&mut client, "SELECT 1"), "1", "the session goes on");
}

/// An administrator or a firewall may end it, and its node is well: the node is asked on another before anything is said of
/// it.
#[test]
fn a_monitors_connection_that_ends_costs_nothing() {
    const ENDS: usize = 5;
    const MONITOR: &str = "application_name = 'pgweir monitor'";
    let rig = Rig::start(1, |_| ());
    let mut client = rig.client("postgres");
    execute(&mut client, "CREATE TABLE t (n int)");
    let count = |name: &str| rig.metric(name, &[]);
    let figures = || {
        [
            count("pgweir_node_state_changes_total"),
            count("pgweir_node_probe_failures_total"),
        ]
    };
    let before = figures();
    for _ in 0..ENDS {
        for node in rig.cluster.nodes() {
            let mut admin = node.connect("postgres").expect("straight");
            let asked = format!("SELECT max(pid) FROM pg_stat_activity WHERE {MONITOR}");
            let pid = value(&mut admin, &asked);
            execute(&mut admin, &format!("SELECT pg_terminate_backend({pid})"));
            // The new one has asked, which takes its name from the statement.
            let again = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE {MONITOR} AND pid <> {pid} AND query LIKE 'EXECUTE%'"
            );
            rig.wait("another connection of the monitor", || {
                value(&mut admin, &again) == "1"
            });
        }
        execute(&mut client, "INSERT INTO t VALUES (1)");
    }
    assert_eq!(figures(), before, "state changes and probes without answer");
}
