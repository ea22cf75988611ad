//! Bounds on clients: who is over one is told why, and holds nobody else up.

use std::time::{Duration, Instant};

use pgweir::config::Timeouts;
use pgweir::testbed::{Cluster, RawClient, request};

use crate::support::{Rig, value};

const BOUND: Duration = Duration::from_millis(500);

fn rig(change: impl FnOnce(&mut Timeouts)) -> Rig {
    Rig::start(0, |config| {
        config.databases[0].pool.size = 1;
        change(&mut config.timeouts);
    })
}

/// The client hears this SQLSTATE, not before the bound, and its connection is closed.
#[track_caller]
fn is_told_goodbye(client: &mut RawClient, since: Instant, sqlstate: &str) {
    let said = client.recv_until_closed().unwrap();
    let error = said.last().unwrap().error().unwrap().to_string();
    assert!(error.contains(sqlstate), "{error}");
    assert!(since.elapsed() >= BOUND * 9 / 10, "{:?}", since.elapsed());
}

#[test]
fn an_idle_client_is_told_goodbye() {
    let rig = rig(|timeouts| timeouts.client_idle = Some(BOUND));
    let (mut idle, mut busy) = (rig.client("postgres"), rig.client("postgres"));
    let mut in_transaction = rig.client("postgres");
    idle.query("SELECT 1").unwrap();
    let since = Instant::now();
    in_transaction.query("BEGIN").unwrap();
    // In the queue behind that transaction: this is not idleness, and neither is what the transaction does.
    busy.send(&request::query("SELECT 2")).unwrap();
    is_told_goodbye(&mut idle, since, "57P05");
    assert_eq!(value(&mut in_transaction, "SELECT 3"), "3");
    in_transaction.query("COMMIT").unwrap();
    assert_eq!(busy.recv_until_ready().unwrap().len(), 4);
    assert_eq!(
        rig.metric("pgweir_errors_total", &[("sqlstate", "57P05")]),
        1.0
    );
}

#[test]
fn an_idle_transaction_is_undone() {
    let rig = rig(|timeouts| timeouts.idle_in_transaction = Some(BOUND));
    rig.client("postgres")
        .query("CREATE TABLE seat AS SELECT 0 AS taken")
        .unwrap();
    let (mut idle, mut next) = (rig.client("postgres"), rig.client("postgres"));
    idle.query("BEGIN").unwrap();
    idle.query("UPDATE seat SET taken = 1").unwrap();
    let since = Instant::now();
    // Waits for the only server connection, and is not idle meanwhile.
    next.send(&request::query(
        "UPDATE seat SET taken = taken + 10 RETURNING taken",
    ))
    .unwrap();
    is_told_goodbye(&mut idle, since, "25P03");
    let answer = next.recv_until_ready().unwrap();
    let row = answer.iter().find(|message| message.tag == b'D').unwrap();
    assert_eq!(row.text_row().unwrap(), [Some("10".to_owned())]);
    // Nobody minds an idle client outside of a transaction.
    assert!(next.recv_within(BOUND * 2).unwrap().is_none());
    // A group without its Sync is a transaction, too.
    let mut group = rig.client("postgres");
    let messages = [
        request::parse("", "UPDATE seat SET taken = 3", &[]),
        request::bind("", "", &[]),
        request::execute("", 0),
        request::flush(),
    ];
    group.send(&messages.concat()).unwrap();
    let since = Instant::now();
    is_told_goodbye(&mut group, since, "25P03");
    assert_eq!(value(&mut next, "SELECT taken FROM seat"), "10");
}

#[test]
fn a_transaction_that_takes_too_long_is_undone() {
    let rig = rig(|timeouts| timeouts.transaction = Some(BOUND));
    rig.client("postgres")
        .query("CREATE TABLE t (n int)")
        .unwrap();
    let mut client = rig.client("postgres");
    let since = Instant::now();
    client.query("BEGIN").unwrap();
    let said = loop {
        // Never idle for long, and no statement takes long.
        match client.query("INSERT INTO t VALUES (1)") {
            Ok(_) => assert!(since.elapsed() < BOUND * 40, "for ever"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(said.contains("25P04"), "{said}");
    let mut next = rig.client("postgres");
    assert_eq!(value(&mut next, "SELECT count(*) FROM t"), "0");
    // One after the other, each short, may take as long as they like.
    let since = Instant::now();
    while since.elapsed() < BOUND * 2 {
        next.query("INSERT INTO t VALUES (1)").unwrap();
    }
}

#[test]
fn a_statement_that_takes_too_long_is_cancelled() {
    let rig = rig(|timeouts| {
        timeouts.query = Some(BOUND);
        timeouts.transaction = Some(BOUND * 60);
    });
    let mut client = rig.client("postgres");
    // Many short ones in one pipeline are no long one.
    let sleep = request::query("SELECT pg_sleep(0.05)");
    client.send(&sleep.repeat(30)).unwrap();
    for _ in 0..30 {
        let answer = client.recv_until_ready().unwrap();
        assert_eq!(answer.len(), 4, "{answer:?}");
    }
    let since = Instant::now();
    let error = client.query("SELECT pg_sleep(60)").unwrap_err().to_string();
    assert!(error.contains("57014"), "{error}");
    assert!(since.elapsed() >= BOUND * 9 / 10 && since.elapsed() < BOUND * 40);
    assert_eq!(value(&mut client, "SELECT 1"), "1", "the session stays");
    // One that does not mind being cancelled ends with its client.
    let stubborn = "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$";
    let since = Instant::now();
    client.send(&request::query(stubborn)).unwrap();
    is_told_goodbye(&mut client, since, "57014");
    assert_eq!(value(&mut rig.client("postgres"), "SELECT 2"), "2");
}

/// A COMMIT that waits for a synchronous standby: cancelled, it would be done and not replicated. Neither a timeout nor the
/// death of its client ends the wait.
#[test]
fn a_commit_is_never_cancelled() {
    let cluster = Cluster::builder().standbys(1).synchronous(true);
    let rig = Rig::with(cluster, |config| {
        config.databases[0].pool.size = 2;
        config.timeouts.query = Some(BOUND);
        config.timeouts.transaction = Some(BOUND);
    });
    let (primary, standby) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    primary.execute("CREATE TABLE t (n int)").unwrap();
    rig.cluster.wait_caught_up().unwrap();
    let (mut client, mut dying) = (rig.client("postgres"), rig.client("postgres"));
    standby.freeze().unwrap();
    for client in [&mut client, &mut dying] {
        client.query("BEGIN").unwrap();
        client.query("INSERT INTO t VALUES (1)").unwrap();
        client.send(&request::query("COMMIT")).unwrap();
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    rig.wait("both to wait for the standby", || {
        primary.value(waiting).unwrap() == "2"
    });
    drop(dying);
    assert!(client.recv_within(BOUND * 4).unwrap().is_none());
    assert_eq!(primary.value(waiting).unwrap(), "2");
    standby.thaw().unwrap();
    let answer = client.recv_until_ready().unwrap();
    assert_eq!(answer[0].tag, b'C', "{answer:?}");
    assert!(
        !primary
            .log()
            .unwrap()
            .contains("canceling wait for synchronous")
    );
    assert_eq!(primary.value("SELECT count(*) FROM t").unwrap(), "2");
}
