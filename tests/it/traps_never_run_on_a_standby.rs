//! What only the catalog can tell: objects that hide a write, a lock or a place of their own behind an innocent name.
//!
//! Each of them is used through the proxy in both protocols. No statement that names one is in a standby's log, no client sees
//! 25006, and what is innocent beside them is read on a standby.

use pgweir::testbed::{Node, RawClient, request};

use crate::corpus::OBJECTS;
use crate::support::{Rig, execute, extended, logged, logged_errors, value};

/// Statements that must not be in a standby's log, each with what marks it there.
const TRAPS: &[&str] = &[
    "SELECT bad()",
    "SELECT a FROM t WHERE a = bad()",
    "SELECT mixed(1)",
    "SELECT public.mixed(1)",
    "SELECT t.ofrow FROM t",
    "SELECT (t).ofrow FROM t",
    "SELECT lower(b) FROM t",
    "SELECT x FROM v_volatile",
    "SELECT x FROM public.v_volatile",
    "SELECT m FROM v_nested",
    "WITH w AS (SELECT m FROM v_nested) SELECT m FROM w",
    "WITH v_nested AS (SELECT m FROM v_nested) SELECT m FROM v_nested",
    "SELECT EXISTS (SELECT FROM v_nextval)",
    "TABLE v_nextval",
    "SELECT count(pid) FROM v_catalog",
    "SELECT a FROM r_bad",
    "SELECT 5::d_bad",
    "SELECT CAST(5 AS public.d_bad)",
    "SELECT 6::d_over",
    "SELECT '(1,2)'::c_bad",
    "SELECT ARRAY[7]::d_bad[]",
    "SELECT g_bad(a) FROM t",
    "SELECT g_bad(a) OVER () FROM t",
    "SELECT 1 <+> 2",
    "SELECT a FROM u",
    "SELECT a FROM parts",
    "SELECT last_value FROM sq",
    "SELECT takes(5)",
    "SELECT ceil(t) FROM t",
    "SELECT substring(t, 1) FROM t",
    "SELECT u FROM t, unnest(t) AS u",
    "SELECT by_default()",
    "SELECT json_populate_record(row_of_holder(), '{\"a\": 5}')",
    "SELECT jsonb_populate_record(n.x, '{\"a\": 5}') FROM nested AS n",
    "SELECT one FROM v_columns",
    "SELECT one FROM json_to_record('{\"a\": 5}') AS x (a d_bad), (SELECT 1 AS one) AS y",
    "SELECT jsonb_populate_record(h, '{\"a\": 5}') FROM holder AS h",
    "COPY (SELECT bad()) TO STDOUT",
    "COPY (WITH i AS (INSERT INTO log VALUES (9) RETURNING a) SELECT a FROM i) TO STDOUT",
    "COPY u TO STDOUT",
    "EXPLAIN SELECT bad()",
    "EXPLAIN ANALYZE SELECT x FROM v_volatile",
    "SELECT a FROM t FOR SHARE",
    "SELECT a FROM (SELECT a FROM t FOR UPDATE) AS l",
    "SELECT pg_advisory_xact_lock(1)",
];

/// Statements that a standby may run.
const INNOCENT: &[&str] = &[
    "SELECT good(1)",
    "SELECT fixed(2)",
    "SELECT public.good(a) FROM t",
    "SELECT hidden.good2(3)",
    "SELECT good2 FROM hidden.good2(4)",
    "SELECT t.goodofrow FROM t",
    "SELECT t.b, (t).a FROM t",
    "SELECT x FROM v_good",
    "SELECT x FROM m_good",
    "SELECT a FROM r_good",
    "SELECT 5::d_good",
    "SELECT 'one'::e_good",
    "SELECT '(1,one)'::c_good",
    "SELECT to_cast(1)",
    "SELECT g_good(a) FROM t",
    "SELECT 2 <*> 3",
    "SELECT a FROM sound",
    "SELECT upper(b) FROM t",
    "WITH w AS (SELECT a FROM t) SELECT a FROM w",
    "COPY t TO STDOUT",
    "COPY (SELECT good(a) FROM t) TO STDOUT",
    "EXPLAIN SELECT x FROM v_good",
];

fn rig() -> Rig {
    let cluster = pgweir::testbed::Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all");
    let rig = Rig::with(cluster, |_| ());
    let primary = rig.cluster.primary();
    primary.execute(OBJECTS).expect("the objects");
    rig.cluster.wait_caught_up().expect("the standby");
    rig.learn("postgres");
    rig
}

/// A parameter of a domain is checked when it is bound.
#[test]
fn parameters_are_values_of_their_types() {
    let rig = rig();
    let standby = rig.cluster.standbys()[0];
    for (domain, on_standby) in [("d_bad", 0), ("d_good", 1)] {
        let id = format!("SELECT '{domain}'::regtype::oid");
        let id = rig.cluster.primary().value(&id).expect("an OID");
        // Another session each time: what has written reads on the primary for a moment.
        let mut client = rig.client("postgres");
        let text = format!("SELECT $1 -- {domain}");
        let bytes = [
            request::parse("", &text, &[id.parse().expect("an OID")]),
            request::bind("", "", &[Some("5")]),
            request::execute("", 0),
            request::sync(),
        ];
        client.send(&bytes.concat()).expect("an open connection");
        while client.recv().expect("an answer").tag != b'Z' {}
        assert_eq!(logged(standby, &text), on_standby, "{domain}");
    }
}

/// How often a standby has been given each statement.
fn counts(node: &Node, statements: &[&str]) -> Vec<usize> {
    // The log has the whole text behind the mark.
    statements.iter().map(|text| logged(node, text)).collect()
}

#[test]
fn what_hides_a_write_goes_to_the_primary() {
    let rig = rig();
    let standby = rig.cluster.standbys()[0];
    let mut client = rig.client("postgres");
    for text in TRAPS {
        execute(&mut client, text);
        extended(&mut client, text);
    }
    let on_standby: Vec<_> = TRAPS
        .iter()
        .zip(counts(standby, TRAPS))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert!(on_standby.is_empty(), "{on_standby:?}");
    assert_eq!(logged_errors(standby, "25006"), 0);
    assert_eq!(rig.metric("pgweir_standby_refusals_total", &[]), 0.0);
}

#[test]
fn what_is_innocent_is_read_on_a_standby() {
    let rig = rig();
    let standby = rig.cluster.standbys()[0];
    let mut client = rig.client("postgres");
    for text in INNOCENT {
        execute(&mut client, text);
        extended(&mut client, text);
    }
    let elsewhere: Vec<_> = INNOCENT
        .iter()
        .zip(counts(standby, INNOCENT))
        .filter(|(_, count)| *count < 2)
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

/// Somebody turns a good function into a volatile one through the proxy: whoever calls it next, in whichever way, does so
/// on the primary.
#[test]
fn what_ddl_makes_of_a_function_is_known_at_once() {
    let rig = rig();
    let standby = rig.cluster.standbys()[0];
    let (mut owner, mut other) = (rig.client("postgres"), rig.client("postgres"));
    let prepared = [request::parse("p", "SELECT good(70)", &[]), request::sync()].concat();
    other.send(&prepared).expect("an open connection");
    while other.recv().expect("an answer").tag != b'Z' {}
    let bound = |client: &mut RawClient| {
        let bytes = [
            request::bind("", "p", &[]),
            request::execute("", 0),
            request::sync(),
        ];
        client.send(&bytes.concat()).expect("an open connection");
        loop {
            let message = client.recv().expect("an answer");
            assert_ne!(message.tag, b'E', "{message:?}");
            if message.tag == b'Z' {
                return;
            }
        }
    };
    bound(&mut other);
    assert_eq!(value(&mut other, "SELECT good(71)"), "71");
    assert_eq!(logged(standby, "SELECT good(7"), 2, "it is good so far");
    execute(
        &mut owner,
        "CREATE OR REPLACE FUNCTION good(int) RETURNS int VOLATILE LANGUAGE sql \
         AS 'INSERT INTO log VALUES ($1) RETURNING a'",
    );
    assert_eq!(value(&mut other, "SELECT good(71)"), "71");
    bound(&mut other);
    extended(&mut other, "SELECT good(72)");
    assert_eq!(logged(standby, "SELECT good(7"), 2, "and bad at once");
    let written = "SELECT count(*) FROM log WHERE a BETWEEN 70 AND 72";
    assert_eq!(rig.cluster.primary().value(written).expect("a count"), "3");
    // And back.
    execute(
        &mut owner,
        "CREATE OR REPLACE FUNCTION good(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT $1'",
    );
    rig.cluster.wait_caught_up().expect("the standby");
    rig.wait("it to be good again", || {
        assert_eq!(value(&mut other, "SELECT good(73)"), "73");
        logged(standby, "SELECT good(73)") > 0
    });
}

/// The same past the proxy: after `catalog_ttl`.
#[test]
fn what_is_done_past_the_proxy_is_known_after_a_while() {
    let rig = rig();
    let standby = rig.cluster.standbys()[0];
    let mut client = rig.client("postgres");
    assert_eq!(value(&mut client, "SELECT good(80)"), "80");
    assert_eq!(logged(standby, "SELECT good(80)"), 1);
    let primary = rig.cluster.primary();
    primary
        .execute("ALTER FUNCTION good(int) VOLATILE")
        .expect("DDL");
    rig.learn("postgres");
    assert_eq!(value(&mut client, "SELECT good(81)"), "81");
    assert_eq!(logged(standby, "SELECT good(81)"), 0);
    // A table that is new is read where it is, and soon on standbys.
    primary.execute("CREATE TABLE fresh (a int)").expect("DDL");
    rig.cluster.wait_caught_up().expect("the standby");
    rig.wait("the new table to be read on the standby", || {
        execute(&mut client, "SELECT a FROM fresh");
        logged(standby, "SELECT a FROM fresh") > 0
    });
}

/// The same where the server is asked first whether it has counted any change.
#[test]
fn what_is_counted_is_read_again() {
    let cluster = pgweir::testbed::Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all");
    let rig = Rig::with(cluster, |config| {
        config.clusters[0].reads.catalog_ttl = std::time::Duration::from_secs(2);
    });
    let (primary, standby) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    primary.execute(OBJECTS).expect("the objects");
    rig.cluster.wait_caught_up().expect("the standby");
    let mut client = rig.client("postgres");
    let mut is_read = |text: &str| {
        let before = logged(standby, text);
        execute(&mut client, text);
        logged(standby, text) > before
    };
    rig.wait("the catalog to be known", || is_read("SELECT good(60)"));
    let counts = || logged(primary, "pg_stat_get_tuples_inserted");
    let before = counts();
    rig.wait("the server to be asked what it has counted", || {
        counts() >= before + 3
    });
    let (loads, asked) = (rig.metric("pgweir_catalog_loads_total", &[]), counts());
    rig.wait("two more questions", || counts() >= asked + 2);
    assert_eq!(
        rig.metric("pgweir_catalog_loads_total", &[]),
        loads,
        "nothing has changed"
    );
    primary
        .execute("ALTER FUNCTION good(int) VOLATILE")
        .expect("DDL");
    rig.wait("the change to be known", || !is_read("SELECT good(61)"));
}

/// With the event trigger, also what is done past the proxy is known at once.
#[test]
fn the_event_trigger_tells_of_ddl() {
    let cluster = pgweir::testbed::Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all");
    let rig = Rig::with(cluster, |config| {
        config.clusters[0].reads.catalog_ttl = std::time::Duration::from_secs(3600);
    });
    let (primary, standby) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    primary.execute(OBJECTS).expect("the objects");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/pgweir_ddl.sql");
    let script = std::fs::read_to_string(script).expect("the script");
    let lines = script.lines().filter(|line| !line.starts_with("--"));
    let script = lines.collect::<Vec<_>>().join("\n");
    primary.execute(&script).expect("the script");
    primary.execute(&script).expect("the script, once more");
    rig.cluster.wait_caught_up().expect("the standby");
    let mut client = rig.client("postgres");
    let listening = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN pgweir_ddl'";
        primary.value(sql).expect("a count") == "1"
    };
    rig.wait("the proxy to listen", listening);
    rig.wait("the catalog to be known", || {
        execute(&mut client, "SELECT good(90)");
        logged(standby, "SELECT good(90)") > 0
    });
    let mut ear = primary.connect("postgres").expect("a connection");
    execute(&mut ear, "LISTEN pgweir_ddl");
    for (ddl, told) in [
        ("CREATE TEMP TABLE private (a int); DROP TABLE private", 0),
        ("CREATE INDEX ON t (b)", 0),
        ("DROP VIEW v_good", 1),
        ("ALTER FUNCTION good(int) VOLATILE", 1),
    ] {
        primary.execute(ddl).expect(ddl);
        ear.send(&request::query("SELECT 1"))
            .expect("an open connection");
        let mut heard = 0;
        loop {
            match ear.recv().expect("an answer").tag {
                b'A' => heard += 1,
                b'Z' => break,
                _ => {}
            }
        }
        assert_eq!(heard, told, "{ddl}");
    }
    rig.wait("the proxy to have heard", || {
        let before = logged(standby, "SELECT good(91)");
        execute(&mut client, "SELECT good(91)");
        logged(standby, "SELECT good(91)") == before
    });
    // The old primary lives on after a failover: the new one is listened to.
    standby.promote().expect("a promotion");
    rig.wait("the proxy to listen to the new primary", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN pgweir_ddl'";
        standby.value(sql).expect("a count") == "1"
    });
}

/// An administrator vouches for procedures, and has catalogs read on standbys.
#[test]
fn procedures_and_catalogs_are_configured() {
    let cluster = pgweir::testbed::Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all");
    let rig = Rig::with(cluster, |config| {
        config.clusters[0].reads.catalogs = true;
        config.clusters[0].standby_procedures = vec!["report".to_owned(), "lies".to_owned()];
    });
    let (primary, standby) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    for sql in [
        "CREATE TABLE t AS SELECT 1 AS n",
        "CREATE PROCEDURE report(a int, INOUT n bigint) LANGUAGE plpgsql AS $$ BEGIN SELECT count(*) + a FROM t INTO n; COMMIT; END $$",
        "CREATE PROCEDURE lies(INOUT n int) LANGUAGE plpgsql AS $$ BEGIN COMMIT; DELETE FROM t; END $$",
        "CREATE PROCEDURE writes() LANGUAGE sql AS 'DELETE FROM t'",
    ] {
        primary.execute(sql).expect(sql);
    }
    rig.cluster.wait_caught_up().expect("the standby");
    rig.learn("postgres");
    let mut client = rig.client("postgres");
    let is_on_standby = |text: &str| (logged(standby, text), logged(primary, text)) == (1, 0);
    assert_eq!(value(&mut client, "CALL report(1, NULL)"), "2");
    assert!(is_on_standby("CALL report(1, NULL)"));
    let visible = "SELECT count(*) FROM pg_class WHERE relname = 't' AND pg_table_is_visible(oid)";
    assert_eq!(value(&mut client, visible), "1");
    assert!(is_on_standby(visible));
    assert_eq!(
        value(&mut client, "SELECT count(*) > 0 FROM pg_stat_replication"),
        "t"
    );
    assert_eq!(logged(standby, "pg_stat_replication"), 0);
    // Its own DDL a session sees at once, wherever it looks.
    execute(&mut client, "CREATE TABLE u AS SELECT 2 AS n");
    let own = "SELECT count(*) FROM pg_class WHERE relname = 'u'";
    assert_eq!(value(&mut client, own), "1");
    // One that writes all the same does so on the primary.
    assert_eq!(value(&mut rig.client("postgres"), "CALL lies(5)"), "5");
    assert_eq!(primary.value("SELECT count(*) FROM t").unwrap(), "0");
    execute(&mut client, "CALL writes()");
    assert_eq!(logged(standby, "CALL writes()"), 0);
}

/// An administrator vouches for a function that is declared volatile, and trusts no declaration.
#[test]
fn trust_is_configured() {
    let cluster = pgweir::testbed::Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all");
    let rig = Rig::with(cluster, |config| {
        config.clusters[0].reads.trust_declared_volatility = false;
        config.clusters[0].standby_functions = vec!["estimate".to_owned()];
    });
    let (primary, standby) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    primary.execute(OBJECTS).expect("the objects");
    let estimate = "CREATE FUNCTION estimate() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1'";
    primary.execute(estimate).expect("a function");
    rig.cluster.wait_caught_up().expect("the standby");
    rig.learn("postgres");
    let mut client = rig.client("postgres");
    assert_eq!(value(&mut client, "SELECT estimate()"), "1");
    assert_eq!(value(&mut client, "SELECT good(1)"), "1");
    assert_eq!(logged(standby, "SELECT estimate()"), 1);
    assert_eq!(logged(standby, "SELECT good(1)"), 0);
}
