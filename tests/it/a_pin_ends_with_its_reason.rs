//! A session keeps its server connection for as long as there is a reason on it, and no longer.

use pgweir::testbed::{RawClient, request};

use crate::support::{Rig, execute, extended, value};

/// One server connection, so that a pin is felt by everybody else. LISTEN is shared unless a test says otherwise.
fn rig() -> Rig {
    Rig::start(0, |config| config.databases[0].pool.size = 1)
}

/// How many sessions are pinned for a reason.
fn pinned(rig: &Rig, reason: &str) -> f64 {
    let labels = [("reason", reason)];
    rig.metric("pgweir_pins_total", &labels) - rig.metric("pgweir_pins_ended_total", &labels)
}

/// What the client sends next follows the question, so that it has been answered by then.
#[track_caller]
fn stays(rig: &Rig, client: &mut RawClient, reason: &str, what: &str) {
    assert_eq!(value(client, "SELECT 1"), "1");
    assert_eq!(value(client, "SELECT 2"), "2");
    assert_eq!(pinned(rig, reason), 1.0, "{what}");
}

#[track_caller]
fn ends(rig: &Rig, reason: &str, what: &str) {
    rig.wait(&format!("the pin to end after {what}"), || {
        pinned(rig, reason) == 0.0
    });
    // And somebody else gets the connection, without a trace of the first.
    let mut other = rig.client("postgres");
    for (sql, expected) in [
        ("SELECT count(*) FROM pg_listening_channels()", "0"),
        (
            "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
            "0",
        ),
        (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            "0",
        ),
        ("SELECT count(*) FROM pg_cursors WHERE is_holdable", "0"),
        (
            "SELECT count(*) FROM pg_prepared_statements WHERE from_sql",
            "0",
        ),
    ] {
        assert_eq!(value(&mut other, sql), expected, "{what}: {sql}");
    }
}

#[test]
fn temporary_objects() {
    let rig = rig();
    let reason = "temporary_object";
    let mut client = rig.client("postgres");
    for (what, before, last) in [
        (
            "DROP TABLE",
            vec!["CREATE TEMP TABLE t (n int)"],
            "DROP TABLE t",
        ),
        (
            "the last of two",
            vec![
                "CREATE TEMP TABLE t (n serial primary key, b text)",
                "CREATE TEMP VIEW v AS SELECT n FROM t",
                "DROP VIEW v",
            ],
            "DROP TABLE t",
        ),
        (
            "DISCARD TEMP",
            vec!["CREATE TEMP TABLE t (n int)"],
            "DISCARD TEMP",
        ),
        (
            "DISCARD ALL",
            vec!["CREATE TEMP TABLE t (n int)"],
            "DISCARD ALL",
        ),
        (
            "a temporary sequence",
            vec!["CREATE TEMP SEQUENCE s"],
            "DROP SEQUENCE s",
        ),
        (
            "a temporary function",
            vec!["CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
            "DROP FUNCTION pg_temp.f()",
        ),
        (
            "a temporary type",
            vec!["CREATE TYPE pg_temp.e AS ENUM ('a')"],
            "DROP TYPE pg_temp.e",
        ),
        (
            "a DROP in DO",
            vec!["CREATE TEMP TABLE t (n int)"],
            "DO $$ BEGIN EXECUTE 'DRO' || 'P TABLE t'; END $$",
        ),
        (
            "a DROP that is committed",
            vec![
                "CREATE TEMP TABLE t (n int)",
                "BEGIN",
                "DROP TABLE t",
                "ROLLBACK",
                "BEGIN",
                "DROP TABLE t",
            ],
            "COMMIT",
        ),
    ] {
        for (index, sql) in before.iter().enumerate() {
            execute(&mut client, sql);
            if matches!(index, 0 | 3) {
                stays(&rig, &mut client, reason, what);
            }
        }
        execute(&mut client, last);
        ends(&rig, reason, what);
    }
}

#[test]
fn what_ends_with_its_transaction_or_never_came_to_be() {
    let rig = rig();
    let reason = "temporary_object";
    let mut client = rig.client("postgres");
    for (what, statements) in [
        (
            "ON COMMIT DROP",
            &[
                "BEGIN",
                "CREATE TEMP TABLE t (n int) ON COMMIT DROP",
                "COMMIT",
            ][..],
        ),
        (
            "ROLLBACK",
            &["BEGIN", "CREATE TEMP TABLE t (n int)", "ROLLBACK"],
        ),
        (
            "a single statement",
            &["CREATE TEMP TABLE t (n int) ON COMMIT DROP"],
        ),
    ] {
        for sql in statements {
            execute(&mut client, sql);
        }
        ends(&rig, reason, what);
    }
    client
        .query("CREATE TEMP TABLE t (n nosuchtype)")
        .expect_err("there is no such type");
    ends(&rig, reason, "a statement that failed");
    client
        .query("DECLARE x CURSOR WITH HOLD FOR SELECT nosuch")
        .expect_err("there is no such column");
    ends(&rig, "hold_cursor", "a cursor that failed");
}

#[test]
fn advisory_locks_end_with_the_last_unlock() {
    let rig = rig();
    let reason = "advisory_lock";
    let mut client = rig.client("postgres");
    // The server counts: this one is held twice, and then another.
    for sql in [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_lock_shared(2, 3)",
        "SELECT pg_advisory_unlock(1)",
        "SELECT pg_advisory_unlock(1)",
    ] {
        extended(&mut client, sql);
        stays(&rig, &mut client, reason, sql);
    }
    extended(&mut client, "SELECT pg_advisory_unlock_shared(2, 3)");
    ends(&rig, reason, "the last unlock");
    execute(
        &mut client,
        "SELECT pg_advisory_lock(n) FROM generate_series(1, 20) n",
    );
    stays(&rig, &mut client, reason, "many locks");
    execute(&mut client, "SELECT pg_advisory_unlock_all()");
    ends(&rig, reason, "pg_advisory_unlock_all");
    let primary = rig.cluster.primary();
    let mut holder = primary.connect("postgres").expect("a connection");
    execute(&mut holder, "SELECT pg_advisory_lock(7)");
    assert_eq!(value(&mut client, "SELECT pg_try_advisory_lock(7)"), "f");
    ends(&rig, reason, "a lock that was not to be had");
}

#[test]
fn cursors_statements_and_channels() {
    let rig = Rig::start(0, |config| {
        config.databases[0].pool.size = 1;
    });
    let mut client = rig.client("postgres");
    execute(
        &mut client,
        "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 9)",
    );
    assert_eq!(value(&mut client, "FETCH 1 FROM c"), "1");
    stays(&rig, &mut client, "hold_cursor", "FETCH");
    execute(&mut client, "CLOSE c");
    ends(&rig, "hold_cursor", "CLOSE");
    // Alone it would move with the session.
    execute(&mut client, "SELECT 1; PREPARE s AS SELECT 1");
    execute(&mut client, "SELECT 1; PREPARE r AS SELECT 2");
    assert_eq!(value(&mut client, "EXECUTE r"), "2");
    execute(&mut client, "DEALLOCATE s");
    stays(&rig, &mut client, "prepare", "one of two");
    execute(&mut client, "DEALLOCATE ALL");
    ends(&rig, "prepare", "DEALLOCATE ALL");
    // In a transaction block LISTEN is the server's own.
    for last in ["UNLISTEN c", "UNLISTEN *"] {
        for sql in ["BEGIN", "LISTEN c", "COMMIT"] {
            execute(&mut client, sql);
        }
        stays(&rig, &mut client, "listen", "LISTEN");
        execute(&mut client, last);
        ends(&rig, "listen", last);
    }
}

/// One reason of several may end, and what cannot end before the session does not.
#[test]
fn the_last_reason_decides() {
    let rig = rig();
    let mut client = rig.client("postgres");
    execute(&mut client, "CREATE TEMP TABLE t (n int)");
    execute(&mut client, "SELECT pg_advisory_lock(1)");
    stays(&rig, &mut client, "advisory_lock", "a lock");
    execute(&mut client, "DROP TABLE t");
    rig.wait("the table's pin to end", || {
        pinned(&rig, "temporary_object") == 0.0
    });
    assert_eq!(pinned(&rig, "advisory_lock"), 1.0);
    execute(&mut client, "SELECT pg_advisory_unlock(1)");
    ends(&rig, "advisory_lock", "both");
    execute(&mut client, "LOAD 'plpgsql'");
    execute(&mut client, "CREATE TEMP TABLE t (n int)");
    execute(&mut client, "DROP TABLE t");
    rig.wait("the table's pin to end again", || {
        pinned(&rig, "temporary_object") == 0.0
    });
    assert_eq!(pinned(&rig, "load"), 1.0, "a library stays loaded");
    drop(client);
    ends(&rig, "load", "the session's end");
}

/// The client's settings, whatever they are, neither mislead the question nor are changed by it.
#[test]
fn settings_of_the_client_do_not_mislead_the_question() {
    let rig = rig();
    let mut client = rig.client("postgres");
    for sql in [
        "CREATE SCHEMA trap",
        "CREATE FUNCTION trap.pg_my_temp_schema() RETURNS oid LANGUAGE sql AS 'SELECT 0::oid'",
        "CREATE VIEW trap.pg_depend AS SELECT NULL::oid AS refclassid, NULL::oid AS refobjid WHERE false",
        "CREATE FUNCTION trap.never(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false'",
        "CREATE OPERATOR trap.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap.never)",
        "CREATE ROLE nobody",
        "SET search_path = trap, pg_catalog",
        "SET ROLE nobody",
        "SET default_transaction_isolation = 'serializable'",
        "CREATE TEMP TABLE t (n int)",
    ] {
        execute(&mut client, sql);
    }
    stays(
        &rig,
        &mut client,
        "temporary_object",
        "a search_path that hides the catalog",
    );
    execute(&mut client, "INSERT INTO t VALUES (1)");
    assert_eq!(value(&mut client, "SELECT current_user FROM t"), "nobody");
    execute(&mut client, "DROP TABLE t");
    ends(&rig, "temporary_object", "DROP TABLE");
    assert_eq!(value(&mut client, "SHOW search_path"), "trap, pg_catalog");
}

/// Units that follow one another without a pause: none waits for a question, none loses its connection.
#[test]
fn a_busy_session_keeps_what_it_has() {
    let rig = rig();
    let mut client = rig.client("postgres");
    let turn = [
        "CREATE TEMP TABLE t (n int)",
        "INSERT INTO t VALUES (1)",
        "SELECT n FROM t",
        "DROP TABLE t",
        "SELECT pg_advisory_lock(5)",
        "SELECT pg_advisory_unlock(5)",
    ];
    let flight: Vec<u8> = turn.iter().flat_map(request::query).collect();
    for _ in 0..100 {
        client.send(&flight).expect("an open connection");
        for sql in turn {
            let answer = client.recv_until_ready().expect("an answer");
            assert!(
                answer.iter().all(|message| message.tag != b'E'),
                "{sql}: {answer:?}"
            );
        }
        for sql in turn {
            execute(&mut client, sql);
        }
    }
    ends(&rig, "temporary_object", "many turns");
    ends(&rig, "advisory_lock", "many turns");
}

/// Connections of dblink's, and the origin of what is replicated: nobody can list them, and nothing takes them away.
#[test]
fn what_functions_leave_on_a_connection_stays_with_its_session() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 2);
    let primary = rig.cluster.primary();
    primary.execute("CREATE EXTENSION dblink").unwrap();
    primary
        .execute("SELECT pg_replication_origin_create('o')")
        .unwrap();
    rig.learn("postgres");
    let connect = format!(
        "SELECT dblink_connect('c', 'host=127.0.0.1 port={} user=postgres dbname=postgres')",
        primary.port()
    );
    let setup = "SELECT pg_replication_origin_session_setup('o')".to_owned();
    let through = "SELECT n FROM dblink('c', 'SELECT 7') AS d (n int)";
    let is_set = "SELECT pg_replication_origin_session_is_setup()";
    for (begin, ask, expected) in [(connect, through, "7"), (setup, is_set, "t")] {
        let mut client = rig.client("postgres");
        execute(&mut client, &begin);
        assert_eq!(pinned(&rig, "function"), 1.0, "{begin}");
        // Others come and go meanwhile.
        let mut others = [rig.client("postgres"), rig.client("postgres")];
        for other in &mut others {
            let is_free = value(other, "SELECT pg_replication_origin_session_is_setup()");
            assert_eq!(is_free, "f", "{begin}");
        }
        assert_eq!(value(&mut client, ask), expected, "{begin}");
        // DISCARD ALL ends the pin, and cannot end the rest: nobody else gets the connection.
        let process = value(&mut client, "SELECT pg_backend_pid()");
        execute(&mut client, "DISCARD ALL");
        rig.wait("the pin to end", || pinned(&rig, "function") == 0.0);
        for _ in 0..2 {
            let now = value(&mut client, "SELECT pg_backend_pid()");
            assert_ne!(now, process, "{begin}");
        }
    }
}
