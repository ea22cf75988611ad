//! Bounds on clients: who is over one is told why, and holds nobody else up.

use std::time::{Duration, Instant};

use pgweir::config::Timeouts;
use pgweir::testbed::{Cluster, RawClient, request};

use crate::support::{Rig, sqlstate, value};

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

/// How often a bound was reached.
fn reached(rig: &Rig, timeout: &str) -> f64 {
    rig.metric("pgweir_timeouts_total", &[("timeout", timeout)])
}

#[test]
fn an_idle_client_is_told_goodbye() {
    let rig = rig(|timeouts| timeouts.client_idle = Some(BOUND));
    let (mut idle, mut busy) = (rig.client("postgres"), rig.client("postgres"));
    let mut in_transaction = rig.client("postgres");
    idle.query("SELECT 1").unwrap();
    let since = Instant::now();
    in_transaction.query("BEGIN; SELECT 1").unwrap();
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
    assert_eq!(reached(&rig, "client_idle"), 1.0);
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
    assert_eq!(reached(&rig, "idle_in_transaction"), 1.0);
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
    assert_eq!(reached(&rig, "transaction"), 1.0);
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
    assert!(error.contains("due to statement timeout"), "{error}");
    assert!(since.elapsed() >= BOUND * 9 / 10 && since.elapsed() < BOUND * 40);
    assert_eq!(value(&mut client, "SELECT 1"), "1", "the session stays");
    assert_eq!(reached(&rig, "query"), 1.0);
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

/// A result that no socket buffer holds: about 100 MB.
const ENDLESS: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)";

#[test]
fn a_client_that_reads_nothing_gives_its_connection_back() {
    let rig = rig(|timeouts| timeouts.client_write = Some(BOUND));
    let (mut deaf, mut next) = (rig.client("postgres"), rig.client("postgres"));
    let since = Instant::now();
    deaf.send(&request::query(ENDLESS)).unwrap();
    rig.wait("the result to be on its way", || {
        rig.metric("pgweir_client_bytes_total", &[("direction", "sent")]) > 100_000.0
    });
    // The only server connection is the other's.
    assert_eq!(value(&mut next, "SELECT 1"), "1");
    assert!(since.elapsed() >= BOUND * 9 / 10, "{:?}", since.elapsed());
    assert_eq!(reached(&rig, "client_write"), 1.0);
    let node = rig.cluster.primary();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series(1, 100000)' AND state = 'active'";
    rig.wait("its statement to end", || {
        node.value(running).unwrap() == "0"
    });
    // What it finds later is what had left before, cut off.
    let found = loop {
        match deaf.recv() {
            Ok(message) if message.tag == b'T' || message.tag == b'D' => {}
            other => break other,
        }
    };
    assert!(found.is_err(), "{found:?}");
    // Nobody minds a client that is idle, or one that waits for a statement.
    assert!(next.recv_within(BOUND * 2).unwrap().is_none());
    assert_eq!(value(&mut next, "SELECT pg_sleep(1), 'slept'"), "");
    assert_eq!(reached(&rig, "client_write"), 1.0);
}

#[test]
fn a_client_that_reads_slowly_reads_to_the_end() {
    // Socket buffers hold some megabytes, so it takes a few rows until the proxy sees that the client reads.
    let bound = Duration::from_secs(2);
    let rig = rig(|timeouts| timeouts.client_write = Some(bound));
    let (mut slow, mut idle) = (rig.client("postgres"), rig.client("postgres"));
    let since = Instant::now();
    slow.send(&request::query(
        "SELECT repeat('x', 1000000) FROM generate_series(1, 30)",
    ))
    .unwrap();
    let mut rows = 0;
    loop {
        let message = slow.recv().unwrap();
        match message.tag {
            b'D' => rows += 1,
            b'Z' => break,
            _ => {}
        }
        // Nobody has anything to say to an idle client, so this takes its time.
        assert!(idle.recv_within(bound / 12).unwrap().is_none());
    }
    assert_eq!(rows, 30);
    assert!(since.elapsed() > bound * 2, "{:?}", since.elapsed());
    assert_eq!(reached(&rig, "client_write"), 0.0);
}

#[test]
fn a_login_that_takes_too_long_is_counted() {
    let rig = rig(|timeouts| timeouts.login = BOUND);
    let mut silent = RawClient::open(&rig.raw_address()).unwrap();
    is_told_goodbye(&mut silent, Instant::now(), "08P01");
    assert_eq!(reached(&rig, "login"), 1.0);
}

#[test]
fn a_wait_that_takes_too_long_is_counted() {
    let rig = Rig::start(0, |config| {
        config.databases[0].pool.size = 1;
        config.databases[0].pool.wait_timeout = BOUND;
    });
    let counted = || rig.metric("pgweir_pool_checkout_timeouts_total", &[]);
    let (mut holder, mut waiter) = (rig.client("postgres"), rig.client("postgres"));
    holder.query("BEGIN; SELECT 1").unwrap();
    assert_eq!(sqlstate(&mut waiter, "SELECT 1"), "53000");
    assert_eq!(counted(), 1.0);
    // A login whose settings no client has had before asks a server for what it reports.
    let parameters = [("user", "postgres"), ("work_mem", "1234kB")];
    let error = RawClient::connect(&rig.raw_address(), &parameters).unwrap_err();
    assert_eq!(error.sqlstate(), Some("53000"), "{error}");
    assert_eq!(counted(), 2.0);
}

/// A node that takes connections and says nothing.
#[test]
fn a_node_that_says_nothing_is_given_up() {
    let rig = rig(|timeouts| {
        timeouts.connect = BOUND;
        timeouts.cancel = BOUND;
    });
    let mut client = rig.client("postgres");
    let key = client.backend_key().unwrap().clone();
    client.send(&request::query("SELECT pg_sleep(60)")).unwrap();
    rig.wait("it to run", || {
        rig.metric("pgweir_pool_connections", &[("state", "active")]) == 1.0
    });
    rig.cluster.primary().freeze().unwrap();
    RawClient::cancel(&rig.raw_address(), &key).unwrap();
    rig.wait("the cancel to be given up", || {
        reached(&rig, "cancel") == 1.0
            && rig.metric("pgweir_cancel_requests_total", &[("result", "failed")]) == 1.0
    });
    // The monitor connects again and again.
    rig.wait("a connect to be given up", || {
        reached(&rig, "connect") > 0.0
    });
    rig.cluster.primary().thaw().unwrap();
}

/// The kernel's keepalive timers of the connections of a port, in seconds: /proc/net/tcp has a line for each socket, with
/// the addresses, and the kind of its timer (2 is keepalive) and its rest.
fn keepalive_timers(local: bool, port: u16) -> Vec<f64> {
    let page = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (mark, field) = (format!(":{port:04X}"), if local { 1 } else { 2 });
    let lines = page
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rest = |fields: Vec<&str>| {
        let (kind, rest) = fields[5].split_once(':')?;
        // Established ones, not the listener.
        let fits = fields[field].ends_with(&mark) && fields[3] == "01" && kind == "02";
        fits.then(|| u64::from_str_radix(rest, 16).unwrap() as f64 / 100.0)
    };
    lines.skip(1).filter_map(rest).collect()
}

#[test]
fn both_sides_are_kept_alive_as_configured() {
    let keepalive = Duration::from_secs(600);
    let rig = rig(|timeouts| timeouts.tcp_keepalive = keepalive);
    let mut client = rig.client("postgres");
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    let node = rig.cluster.primary().port();
    let fit = |timers: Vec<f64>| {
        let near = |rest: &f64| (300.0..=600.0).contains(rest);
        !timers.is_empty() && timers.iter().all(near)
    };
    // Just after a byte was sent the timer is another.
    rig.wait("the timers of both sides", || {
        fit(keepalive_timers(true, rig.address().port())) && fit(keepalive_timers(false, node))
    });
}
