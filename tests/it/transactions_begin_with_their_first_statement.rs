//! A transaction block begins with its first statement: `BEGIN` alone asks no server, and a READ ONLY transaction that
//! begins with a read runs on a standby for as long as it can.

use std::time::{Duration, Instant};

use pgweir::config::{Pool, PoolMode};
use pgweir::testbed::{Cluster, Message, Mode, RawClient, request};

use crate::support::{LIMIT, Rig, execute, logged, logged_errors, script, sqlstate, value};

/// A primary and a standby that log every statement.
fn rig(mode: PoolMode) -> Rig {
    rig_with(|pool| pool.mode = mode)
}

fn rig_with(change: impl FnOnce(&mut Pool)) -> Rig {
    let cluster = Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all");
    let rig = Rig::with(cluster, |config| change(&mut config.databases[0].pool));
    rig.cluster
        .primary()
        .execute("CREATE TABLE t AS SELECT 1 AS n; CREATE SEQUENCE s")
        .unwrap();
    rig.cluster.wait_caught_up().unwrap();
    rig.learn("postgres");
    rig
}

#[track_caller]
fn answers(client: &mut RawClient, message: &[u8]) -> String {
    client.send(message).unwrap();
    script(&client.recv_until_ready().unwrap())
}

/// Whether the client is served by a standby now. The statement itself may run there.
fn is_on_standby(rig: &Rig, client: &mut RawClient) -> bool {
    static ASKED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = ASKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let text = format!("SELECT n, 'asked {number}' FROM t");
    execute(client, &text);
    let there = logged(rig.cluster.standbys()[0], &text);
    assert_eq!(there + logged(rig.cluster.primary(), &text), 1, "{text}");
    there == 1
}

#[test]
fn a_begin_waits_for_nobody() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let mut holder = rig.client("postgres");
    execute(&mut holder, "BEGIN");
    execute(&mut holder, "CREATE TABLE t (n int)");
    // The only connection is taken.
    let mut client = rig.client("postgres");
    assert_eq!(
        answers(&mut client, &request::query("BEGIN")),
        "C:BEGIN Z:T"
    );
    assert_eq!(
        answers(&mut client, &request::query("COMMIT")),
        "C:COMMIT Z:I"
    );
    let group = [
        request::parse("", "START TRANSACTION", &[]),
        request::bind("", "", &[]),
        request::execute("", 0),
        request::sync(),
    ]
    .concat();
    assert_eq!(answers(&mut client, &group), "1 2 C:START TRANSACTION Z:T");
    client.send(&request::query("SELECT 1")).unwrap();
    assert!(
        client
            .recv_within(Duration::from_millis(100))
            .unwrap()
            .is_none(),
        "the first statement needs the connection"
    );
    execute(&mut holder, "COMMIT");
    let said = script(&client.recv_until_ready().unwrap());
    assert_eq!(said, "T D:1 C:SELECT 1 Z:T");
    execute(&mut client, "ROLLBACK");
}

#[test]
fn off_means_at_once() {
    let cluster = Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all");
    let rig = Rig::with(cluster, |config| {
        config.databases[0].pool.deferred_begin = false;
    });
    let mut client = rig.client("postgres");
    execute(&mut client, "BEGIN READ ONLY");
    assert_eq!(logged(rig.cluster.primary(), "BEGIN READ ONLY"), 1);
    execute(&mut client, "SELECT 4711");
    execute(&mut client, "COMMIT");
    assert_eq!(logged(rig.cluster.standbys()[0], "SELECT 4711"), 0);
    assert_eq!(logged(rig.cluster.primary(), "SELECT 4711"), 1);
}

fn reads_run_on_the_standby(mode: PoolMode) {
    let rig = rig(mode);
    let (primary, standby) = (rig.cluster.primary(), &rig.cluster.standbys()[0]);
    let mut client = rig.client("postgres");
    // Declared by BEGIN, by SET TRANSACTION, by the session.
    for begin in [
        "BEGIN READ ONLY",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "START TRANSACTION READ ONLY, NOT DEFERRABLE",
    ] {
        execute(&mut client, begin);
        assert!(is_on_standby(&rig, &mut client), "{begin}");
        assert!(is_on_standby(&rig, &mut client), "{begin}");
        execute(&mut client, "COMMIT AND CHAIN");
        assert!(is_on_standby(&rig, &mut client), "{begin}");
        execute(&mut client, "COMMIT");
    }
    execute(&mut client, "BEGIN");
    execute(&mut client, "SET TRANSACTION READ ONLY");
    assert!(is_on_standby(&rig, &mut client));
    execute(&mut client, "ROLLBACK");
    for begin in [
        "BEGIN",
        "BEGIN READ WRITE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
    ] {
        execute(&mut client, begin);
        assert!(!is_on_standby(&rig, &mut client), "{begin}");
        execute(&mut client, "COMMIT");
    }
    // What the session has as its default, and what its role has.
    execute(&mut client, "SET default_transaction_read_only = on");
    execute(&mut client, "BEGIN");
    assert!(is_on_standby(&rig, &mut client));
    execute(&mut client, "COMMIT");
    execute(&mut client, "BEGIN READ WRITE");
    assert!(!is_on_standby(&rig, &mut client));
    execute(&mut client, "COMMIT");
    drop(client);
    primary
        .execute("CREATE ROLE reader LOGIN; GRANT SELECT ON t TO reader; ALTER ROLE reader SET default_transaction_read_only = on")
        .unwrap();
    rig.cluster.wait_caught_up().unwrap();
    let mut reader = rig.client_with(&[("user", "reader"), ("database", "postgres")]);
    execute(&mut reader, "BEGIN");
    assert!(is_on_standby(&rig, &mut reader));
    execute(&mut reader, "COMMIT");
    assert_eq!(logged(standby, "SERIALIZABLE"), 0);
    assert_eq!(logged(standby, "READ WRITE"), 0);
}

#[test]
fn reads_run_on_the_standby_in_transaction_pooling() {
    reads_run_on_the_standby(PoolMode::Transaction);
}

#[test]
fn reads_run_on_the_standby_in_session_pooling() {
    reads_run_on_the_standby(PoolMode::Session);
}

#[test]
fn a_transaction_moves_unseen_for_what_needs_the_primary() {
    let rig = rig(PoolMode::Transaction);
    let (primary, standby) = (rig.cluster.primary(), &rig.cluster.standbys()[0]);
    let mut client = rig.client("postgres");
    execute(&mut client, "BEGIN READ ONLY");
    execute(&mut client, "SET LOCAL work_mem = '3MB'");
    assert!(is_on_standby(&rig, &mut client));
    // A primary takes it, a standby does not.
    assert_eq!(
        value(&mut client, "SELECT pg_current_xact_id() > '0'::xid8"),
        "t"
    );
    assert_eq!(value(&mut client, "SHOW work_mem"), "3MB");
    assert_eq!(value(&mut client, "SHOW transaction_read_only"), "on");
    assert!(!is_on_standby(&rig, &mut client));
    assert_eq!(sqlstate(&mut client, "INSERT INTO t VALUES (2)"), "25006");
    execute(&mut client, "COMMIT");
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "1");
    for text in ["pg_current_xact_id", "SHOW", "INSERT"] {
        assert_eq!(logged(standby, text), 0, "{text}");
        assert!(logged(primary, text) > 0, "{text}");
    }
    assert_eq!(rig.metric("pgweir_transactions_moved_total", &[]), 1.0);
    assert_eq!(rig.metric("pgweir_transactions_refused_total", &[]), 0.0);
    // Nothing of it is left on the standby.
    assert_eq!(
        standby
            .value("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'")
            .unwrap(),
        "0"
    );
}

#[test]
fn a_transaction_that_cannot_move_says_so() {
    let rig = rig(PoolMode::Transaction);
    let standby = &rig.cluster.standbys()[0];
    let mut client = rig.client("postgres");
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    for statement in ["INSERT INTO t VALUES (2)", "SELECT nextval('s')"] {
        execute(&mut client, begin);
        assert!(is_on_standby(&rig, &mut client));
        client.send(&request::query(statement)).unwrap();
        let said = client.recv_until_ready().unwrap();
        assert_eq!(script(&said), "E:25006 Z:E", "{statement}");
        let error = said[0].error().unwrap();
        let word = statement.split(' ').next().unwrap();
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(sqlstate(&mut client, "SELECT 1"), "25P02");
        assert_eq!(sqlstate(&mut client, statement), "25P02");
        assert_eq!(
            answers(&mut client, &request::query("COMMIT")),
            "C:ROLLBACK Z:I"
        );
        assert_eq!(logged(standby, statement), 0);
    }
    // A savepoint brings it back, in the same place.
    execute(&mut client, "BEGIN READ ONLY");
    assert!(is_on_standby(&rig, &mut client));
    execute(&mut client, "SAVEPOINT a");
    assert_eq!(sqlstate(&mut client, "SELECT nextval('s')"), "25006");
    execute(&mut client, "ROLLBACK TO a");
    assert!(is_on_standby(&rig, &mut client));
    execute(&mut client, "COMMIT");
    // In the middle of a group: what comes before it has been answered.
    execute(&mut client, begin);
    let group = [
        request::parse("", "SELECT n FROM t", &[]),
        request::bind("", "", &[]),
        request::execute("", 0),
        request::parse("", "DELETE FROM t", &[]),
        request::bind("", "", &[]),
        request::execute("", 0),
        request::sync(),
    ]
    .concat();
    execute(&mut client, "SELECT n FROM t");
    assert_eq!(
        answers(&mut client, &group),
        "1 2 D:1 C:SELECT 1 E:25006 Z:E"
    );
    execute(&mut client, "ROLLBACK");
    assert_eq!(logged(standby, "DELETE"), 0);
}

#[test]
fn a_session_reads_its_own_writes_in_read_only_transactions() {
    let rig = rig(PoolMode::Transaction);
    let standby = &rig.cluster.standbys()[0];
    standby.pause_replay().unwrap();
    let mut client = rig.client("postgres");
    execute(&mut client, "INSERT INTO t VALUES (2)");
    for begin in [
        "BEGIN READ ONLY",
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    ] {
        execute(&mut client, begin);
        assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "2");
        execute(&mut client, "COMMIT");
    }
    standby.resume_replay().unwrap();
    rig.wait("the standby to be read again", || {
        execute(&mut client, "BEGIN READ ONLY");
        assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "2");
        let there = is_on_standby(&rig, &mut client);
        execute(&mut client, "COMMIT");
        there
    });
}

#[test]
fn a_transaction_that_finds_no_server_has_failed() {
    let rig = rig(PoolMode::Transaction);
    let mut client = rig.client("postgres");
    execute(&mut client, "BEGIN");
    rig.cluster.primary().stop(Mode::Fast).unwrap();
    rig.wait("the proxy to notice", || {
        rig.metric("pgweir_primary_known", &[]) == 0.0
    });
    assert_eq!(
        answers(&mut client, &request::query("SELECT 1")),
        "E:57P03 Z:E"
    );
    assert_eq!(
        answers(&mut client, &request::query("SELECT 1")),
        "E:25P02 Z:E"
    );
    assert_eq!(
        answers(&mut client, &request::query("COMMIT")),
        "C:ROLLBACK Z:I"
    );
    // A read-only one has a standby.
    execute(&mut client, "BEGIN READ ONLY");
    assert_eq!(value(&mut client, "SELECT n FROM t"), "1");
    execute(&mut client, "COMMIT");
}

#[test]
fn a_transaction_that_is_idle_before_it_has_begun_is_ended() {
    const BOUND: Duration = Duration::from_millis(500);
    let rig = Rig::start(0, |config| {
        config.timeouts.idle_in_transaction = Some(BOUND);
    });
    let mut client = rig.client("postgres");
    let since = Instant::now();
    execute(&mut client, "BEGIN");
    let said: Vec<Message> = client.recv_until_closed().unwrap();
    let error = said.last().unwrap().error().unwrap();
    assert_eq!(error.code(), "25P03");
    assert!(since.elapsed() >= BOUND * 9 / 10);
    assert!(since.elapsed() < LIMIT);
    // A server that watches by the session's own setting is told of BEGIN at once.
    let mut client = rig.client("postgres");
    execute(
        &mut client,
        "SET idle_in_transaction_session_timeout = '100ms'",
    );
    execute(&mut client, "BEGIN");
    let said = client.recv_until_closed().unwrap();
    assert_eq!(said.last().unwrap().error().unwrap().code(), "25P03");
}

/// With others in one Query, of a transaction that cannot move.
#[test]
fn the_end_of_a_transaction_may_stand_among_others() {
    let rig = rig(PoolMode::Transaction);
    let (primary, standby) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let ask = |text: &str, expected: &str| {
        // One that has not written.
        let mut client = rig.client("postgres");
        execute(&mut client, begin);
        assert!(is_on_standby(&rig, &mut client), "{text}");
        let said = answers(&mut client, &request::query(text));
        assert_eq!(said, expected, "{text}");
        execute(&mut client, "ROLLBACK");
    };
    ask(
        "SELECT n + 10 FROM t; COMMIT",
        "T D:11 C:SELECT 1 C:COMMIT Z:I",
    );
    ask("COMMIT; BEGIN", "C:COMMIT C:BEGIN Z:T");
    ask(
        "ROLLBACK; INSERT INTO t VALUES (2); DELETE FROM t WHERE n = 2",
        "C:ROLLBACK C:INSERT 0 1 C:DELETE 1 Z:I",
    );
    ask(
        "SELECT 5; COMMIT; BEGIN; SELECT nextval('s')",
        "T D:5 C:SELECT 1 C:COMMIT C:BEGIN T D:1 C:SELECT 1 Z:T",
    );
    ask(
        "SELECT 1 / 0; COMMIT; INSERT INTO t VALUES (3)",
        "E:22012 Z:E",
    );
    assert_eq!(primary.value("SELECT count(*) FROM t").unwrap(), "1");
    for text in ["INSERT", "DELETE", "nextval"] {
        assert_eq!(logged(standby, text), 0, "{text}");
    }
    assert_eq!(logged(primary, "VALUES (3)"), 0);
    assert_eq!(rig.metric("pgweir_transactions_moved_total", &[]), 0.0);
    assert_eq!(rig.metric("pgweir_transactions_refused_total", &[]), 0.0);
}

#[test]
fn a_cursor_reads_where_its_transaction_does() {
    let rig = rig(PoolMode::Transaction);
    let standby = rig.cluster.standbys()[0];
    let mut client = rig.client("postgres");
    execute(&mut client, "BEGIN READ ONLY");
    let declare = "DECLARE c SCROLL CURSOR FOR SELECT n + 20 FROM t";
    execute(&mut client, declare);
    assert_eq!(value(&mut client, "FETCH c"), "21");
    assert_eq!(logged(standby, declare), 1);
    assert!(is_on_standby(&rig, &mut client));
    execute(&mut client, "CLOSE c");
    execute(&mut client, "COMMIT");
    // What the cursor runs may need the primary.
    execute(&mut client, "BEGIN READ ONLY");
    execute(
        &mut client,
        "DECLARE c CURSOR FOR SELECT relname FROM pg_class",
    );
    assert!(!is_on_standby(&rig, &mut client));
    execute(&mut client, "COMMIT");
    execute(&mut client, "BEGIN READ ONLY");
    let locks = "DECLARE c CURSOR FOR SELECT n FROM t FOR UPDATE";
    assert_eq!(sqlstate(&mut client, locks), "25006");
    execute(&mut client, "ROLLBACK");
    assert_eq!(logged(standby, "FOR UPDATE"), 0);
}

/// A primary and a standby, where transactions that may write may begin on the standby.
fn optimistic() -> Rig {
    rig_with(|pool| pool.optimistic = true)
}

/// BEGIN, and the proxy has asked the primary where it is since then.
fn begin_and_be_sampled(rig: &Rig, client: &mut RawClient, begin: &str) {
    execute(client, begin);
    let asked = || logged(rig.cluster.primary(), "EXECUTE pgweir_state");
    let before = asked();
    // One may have been on its way; and the standby is asked as often.
    rig.wait("the primary to be asked", || asked() >= before + 3);
}

#[test]
fn an_optimistic_transaction_reads_from_a_standby_and_writes_on_the_primary() {
    let rig = optimistic();
    let (primary, standby) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    let mut client = rig.client("postgres");
    for (begin, write) in [
        ("BEGIN", "INSERT INTO t VALUES (2)"),
        ("BEGIN READ WRITE", "UPDATE t SET n = n + 1 WHERE n > 1"),
        (
            "START TRANSACTION ISOLATION LEVEL READ COMMITTED",
            "DELETE FROM t WHERE n > 1",
        ),
    ] {
        begin_and_be_sampled(&rig, &mut client, begin);
        assert!(is_on_standby(&rig, &mut client), "{begin}");
        assert!(is_on_standby(&rig, &mut client), "{begin}");
        execute(&mut client, write);
        assert!(!is_on_standby(&rig, &mut client), "{begin}");
        execute(&mut client, "COMMIT");
        assert_eq!(logged(standby, write), 0, "{write}");
        assert_eq!(logged(primary, write), 1, "{write}");
    }
    assert_eq!(primary.value("SELECT sum(n) FROM t").unwrap(), "1");
    // It says what it is, whatever the standby would say; and what follows is carried by no other connection.
    for statement in [
        "SHOW transaction_read_only",
        "SELECT nextval('s')",
        "SAVEPOINT a",
        "SET LOCAL work_mem = '3MB'",
    ] {
        begin_and_be_sampled(&rig, &mut client, "BEGIN");
        assert!(is_on_standby(&rig, &mut client), "{statement}");
        if statement.starts_with("SHOW") {
            assert_eq!(value(&mut client, statement), "off");
        } else {
            execute(&mut client, statement);
        }
        assert!(!is_on_standby(&rig, &mut client), "{statement}");
        execute(&mut client, "ROLLBACK");
        assert_eq!(logged(standby, statement), 0, "{statement}");
    }
    // With one snapshot nothing may be read elsewhere.
    for begin in [
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
    ] {
        begin_and_be_sampled(&rig, &mut client, begin);
        assert!(!is_on_standby(&rig, &mut client), "{begin}");
        execute(&mut client, "COMMIT");
    }
    assert_eq!(logged_errors(standby, "25006"), 0);
}

/// What others have committed before its BEGIN is there, whoever they are and wherever it reads.
#[test]
fn an_optimistic_transaction_reads_nothing_older_than_its_begin() {
    let rig = optimistic();
    let (primary, standby) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    let mut client = rig.client("postgres");
    standby.pause_replay().unwrap();
    primary.execute("INSERT INTO t VALUES (2)").unwrap();
    begin_and_be_sampled(&rig, &mut client, "BEGIN");
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "2");
    assert!(!is_on_standby(&rig, &mut client));
    execute(&mut client, "COMMIT");
    // At once: nobody can know yet.
    execute(&mut client, "BEGIN");
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "2");
    execute(&mut client, "COMMIT");
    standby.resume_replay().unwrap();
    rig.wait("the standby to be read again", || {
        begin_and_be_sampled(&rig, &mut client, "BEGIN");
        assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "2");
        let there = is_on_standby(&rig, &mut client);
        execute(&mut client, "COMMIT");
        there
    });
}
