//! Each session has its own settings, though all of them share one server connection.

use pgweir::config::PoolMode;
use pgweir::testbed::{RawClient, request};

use crate::support::{Rig, value};

const LOGIN: [(&str, &str); 2] = [("user", "postgres"), ("database", "postgres")];

/// Name and value of every setting that the tests touch.
const SETTINGS: &str = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings \
    WHERE name IN ('work_mem', 'search_path', 'statement_timeout', 'TimeZone', 'application_name', 'DateStyle')";

#[test]
fn sessions_keep_their_settings() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let mut plain = rig.client("postgres");
    let initial = value(&mut plain, SETTINGS);
    let mut named = client(&rig, &[("application_name", "named"), ("work_mem", "5MB")]);
    let mut options = client(
        &rig,
        &[(
            "options",
            r"-c work_mem=6MB --search-path=a,\ b -c TimeZone=Europe/Rome",
        )],
    );
    let mut setter = rig.client("postgres");
    for sql in [
        "SET work_mem = '7MB'",
        "SET TIME ZONE 'Asia/Tokyo'",
        "SET search_path TO one, public",
    ] {
        setter.query(sql).unwrap();
    }
    for round in 0..3 {
        for (client, expected) in [
            (&mut plain, vec![]),
            (&mut named, vec!["application_name=named", "work_mem=5120"]),
            (
                &mut options,
                vec!["work_mem=6144", "search_path=a, b", "TimeZone=Europe/Rome"],
            ),
            (
                &mut setter,
                vec![
                    "work_mem=7168",
                    "search_path=one, public",
                    "TimeZone=Asia/Tokyo",
                ],
            ),
        ] {
            let seen = value(client, SETTINGS);
            for setting in &expected {
                assert!(
                    seen.contains(setting),
                    "round {round}: {setting} is not in {seen}"
                );
            }
            assert!(
                !expected.is_empty() || seen == initial,
                "round {round}: {seen}, not {initial}"
            );
        }
    }
    drop((named, options, setter));
    let mut next = rig.client("postgres");
    assert_eq!(
        value(&mut next, SETTINGS),
        initial,
        "settings of those who left are still there"
    );
    assert_eq!(value(&mut plain, SETTINGS), initial);
}

#[test]
fn a_seed_is_its_sessions_own() {
    let rig = Rig::start(1, |_| {});
    let primary = rig.cluster.primary();
    let numbers = |client: &mut RawClient, sql: &str| -> Vec<String> {
        client.query(sql).unwrap();
        rig.cluster.wait_caught_up().unwrap();
        (0..3).map(|_| value(client, "SELECT random()")).collect()
    };
    let mut straight = primary.connect("postgres").unwrap();
    let expected = numbers(&mut straight, "SET seed = 0.5");
    let mut other = rig.client("postgres");
    for sql in [
        "SELECT setseed(0.5)",
        "SET seed = 0.5",
        "SET SESSION \"Seed\" TO 0.5",
        "SET extra_float_digits = 1; SET seed = 0.5",
        "SELECT set_config('seed', '0.5', false)",
        "BEGIN; SET LOCAL seed = 0.5; COMMIT",
    ] {
        let mut client = rig.client("postgres");
        let pins = || rig.metric("pgweir_pins_total", &[("reason", "settings")]);
        let before = pins();
        assert_eq!(numbers(&mut client, sql), expected, "{sql}");
        assert_eq!(pins(), before + 1.0, "{sql}");
        value(&mut other, "SELECT random()");
    }
}

/// One client's way through statements that set and take back: script, and `work_mem` afterwards.
const WAY: [(&str, &str); 20] = [
    ("SELECT 1", "5MB"),
    ("SET work_mem = '6MB'", "6MB"),
    ("SET SESSION work_mem TO 7168", "7MB"),
    ("RESET work_mem", "5MB"),
    ("SET work_mem = '6MB'", "6MB"),
    ("SET work_mem TO DEFAULT", "5MB"),
    ("BEGIN; SET work_mem = '8MB'; ROLLBACK", "5MB"),
    ("BEGIN; SET work_mem = '8MB'; COMMIT", "8MB"),
    ("BEGIN; SET LOCAL work_mem = '9MB'; COMMIT", "8MB"),
    ("SET LOCAL work_mem = '9MB'", "8MB"),
    (
        "BEGIN; SAVEPOINT s; SET work_mem = '10MB'; RELEASE s; COMMIT",
        "10MB",
    ),
    ("BEGIN; SET work_mem = '11MB'; SELECT 1/0; ROLLBACK", "10MB"),
    ("SET work_mem = 'much'", "10MB"),
    ("SELECT set_config('work_mem', '12MB', true)", "10MB"),
    ("RESET ALL", "5MB"),
    ("SET work_mem = '6MB'; SET work_mem = '7MB'", "7MB"),
    (
        "BEGIN; SET work_mem = '8MB'; COMMIT AND CHAIN; SET work_mem = '9MB'; ROLLBACK",
        "8MB",
    ),
    (
        "SET work_mem TO DEFAULT -- that of the startup packet",
        "5MB",
    ),
    ("SET work_mem = '6MB' /* not for long */", "6MB"),
    ("DISCARD ALL", "5MB"),
];

#[test]
fn settings_follow_transactions() {
    check(1, &WAY, |client, script| {
        for sql in script.split("; ") {
            // Some of them fail, as they should.
            let _ = client.query(sql);
        }
    });
}

#[test]
fn settings_of_several_statements_in_one_query() {
    let ways = WAY.iter().filter(|(script, _)| !script.contains("1/0"));
    let ways: Vec<_> = ways
        .copied()
        .chain([
            ("SET work_mem = '6MB'; SELECT 1/0", "5MB"),
            ("SET work_mem = '6MB'; SET DateStyle = 'German'", "6MB"),
            (
                "BEGIN; SET work_mem = '8MB'; COMMIT; SET work_mem = '9MB'; SELECT 1/0",
                "8MB",
            ),
        ])
        .collect();
    check(1, &ways, |client, script| drop(client.query(script)));
}

#[test]
fn settings_of_set_config_and_of_savepoints() {
    let ways = [
        ("SELECT set_config('work_mem', '12MB', false)", "12MB"),
        (
            "BEGIN; SET work_mem = '9MB'; SAVEPOINT s; SET work_mem = '10MB'; ROLLBACK TO s; COMMIT",
            "9MB",
        ),
        (
            "BEGIN; SAVEPOINT s; SET work_mem = '10MB'; ROLLBACK TO s; SET work_mem = '11MB'; COMMIT",
            "11MB",
        ),
    ];
    // set_config keeps its connection; the other client needs one as well.
    check(2, &ways, |client, script| {
        for sql in script.split("; ") {
            client.query(sql).unwrap();
        }
    });
}

/// Walks the way; after each step another client uses the same few connections, and has the server's default.
fn check(connections: usize, way: &[(&str, &str)], step: impl Fn(&mut RawClient, &str)) {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = connections);
    let mut client = client(&rig, &[("options", "-c work_mem=5MB")]);
    let mut other = rig.client("postgres");
    let mut wrong = Vec::new();
    for (script, expected) in way {
        step(&mut client, script);
        let seen = [
            value(&mut client, "SHOW work_mem"),
            value(&mut other, "SHOW work_mem"),
            value(&mut client, "SELECT current_setting('work_mem')"),
        ];
        if seen != [expected, "4MB", expected] {
            wrong.push(format!(
                "after {script}: {seen:?}, not {expected} and 4MB of the other"
            ));
            // The next step shall begin where it expects to.
            client
                .query(&format!("SET work_mem = '{expected}'"))
                .expect("a setting that the server takes");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn settings_by_the_extended_protocol_and_at_the_standbys() {
    let rig = Rig::start(1, |config| config.databases[0].pool.size = 1);
    let (mut client, mut other) = (rig.client("postgres"), rig.client("postgres"));
    for sql in ["SET work_mem = '6MB'", "SET search_path = 'a b', public"] {
        let group = [
            request::parse("", sql, &[]),
            request::bind("", "", &[]),
            request::execute("", 0),
            request::sync(),
        ];
        client.send(&group.concat()).unwrap();
        client.recv_until_ready().unwrap();
    }
    // The first read goes to the standby; the transaction cannot.
    for sql in ["SHOW work_mem", "SELECT current_setting('work_mem')"] {
        assert_eq!(value(&mut client, sql), "6MB", "{sql}");
        assert_eq!(value(&mut other, sql), "4MB", "{sql}");
        client.query("BEGIN").unwrap();
        assert_eq!(value(&mut client, sql), "6MB", "{sql} in a transaction");
        client.query("COMMIT").unwrap();
    }
    assert_eq!(value(&mut client, "SHOW search_path"), "\"a b\", public");
}

#[test]
fn roles_and_reported_settings_are_the_sessions_own() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    rig.cluster.primary().execute("CREATE ROLE helper").unwrap();
    let (mut client, mut other) = (rig.client("postgres"), rig.client("postgres"));
    for sql in [
        "SET ROLE helper",
        "SET application_name = 'mine'",
        "SET DateStyle = 'German'",
    ] {
        client.query(sql).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(value(&mut client, "SELECT current_user"), "helper");
        assert_eq!(value(&mut client, "SELECT date '2001-02-03'"), "03.02.2001");
        assert_eq!(value(&mut other, "SELECT current_user"), "postgres");
        assert_eq!(value(&mut other, "SELECT date '2001-02-03'"), "2001-02-03");
    }
    for (client, name, style) in [(&client, "mine", "German, DMY"), (&other, "", "ISO, MDY")] {
        assert_eq!(client.parameters()["application_name"], name);
        assert_eq!(client.parameters()["DateStyle"], style);
    }
    client.query("RESET ROLE").unwrap();
    assert_eq!(value(&mut client, "SELECT current_user"), "postgres");
}

/// A statement runs with its session's role, or it does not run.
#[test]
fn a_role_that_is_gone_is_not_replaced_by_another() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let primary = rig.cluster.primary();
    primary.execute("CREATE ROLE helper").unwrap();
    let (mut client, mut other) = (rig.client("postgres"), rig.client("postgres"));
    client.query("SET ROLE helper").unwrap();
    assert_eq!(value(&mut other, "SELECT current_user"), "postgres");
    primary.execute("DROP ROLE helper").unwrap();
    for sql in ["SELECT current_user", "CREATE TABLE by_nobody (n int)"] {
        let refused = client.query(sql).unwrap_err().to_string();
        assert!(refused.contains("22023"), "{sql}: {refused}");
        assert!(refused.contains("role \"helper\""), "{sql}: {refused}");
    }
    assert_eq!(
        value(&mut other, "SELECT to_regclass('by_nobody') IS NULL"),
        "t"
    );
    client.query("RESET ROLE").unwrap();
    assert_eq!(value(&mut client, "SELECT current_user"), "postgres");
}

/// The second of two Queries goes to another server connection, which must take the role first.
#[test]
fn a_role_follows_its_session_in_the_middle_of_a_pipeline() {
    let rig = Rig::start(1, |config| config.databases[0].pool.size = 1);
    let primary = rig.cluster.primary();
    primary.execute("CREATE ROLE helper").unwrap();
    rig.cluster.wait_caught_up().unwrap();
    let (mut client, mut other) = (rig.client("postgres"), rig.client("postgres"));
    client.query("SET ROLE helper").unwrap();
    for round in 0..5 {
        for sql in ["SELECT 1", "SELECT txid_current() IS NOT NULL"] {
            other.query(sql).unwrap();
        }
        let flight = [
            request::query("SELECT 1"),
            request::query("SELECT current_user, txid_current() IS NOT NULL"),
        ];
        client.send(&flight.concat()).unwrap();
        client.recv_until_ready().unwrap();
        let answer = client.recv_until_ready().unwrap();
        let row = answer.iter().find(|message| message.tag == b'D').unwrap();
        let expected = ["helper", "t"].map(|text| Some(text.to_owned()));
        assert_eq!(row.text_row().unwrap(), expected, "round {round}");
    }
}

/// Statements of a client whose role is gone run with nobody else's.
#[test]
fn nobody_elses_role_stands_in_for_one_that_is_gone() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 2);
    let primary = rig.cluster.primary();
    primary
        .execute("CREATE ROLE helper; CREATE ROLE another")
        .unwrap();
    let mut client = rig.client("postgres");
    client.query("SET ROLE helper").unwrap();
    primary.execute("DROP ROLE helper").unwrap();
    let mut others = [rig.client("postgres"), rig.client("postgres")];
    for other in &mut others {
        other.query("BEGIN").unwrap();
        other.query("SET ROLE another").unwrap();
        other.query("SET search_path = elsewhere").unwrap();
    }
    for other in &mut others {
        other.query("COMMIT").unwrap();
    }
    let run = |sql: &str| {
        [
            request::parse("", sql, &[]),
            request::bind("", "", &[]),
            request::execute("", 0),
        ]
        .concat()
    };
    let group = [
        run("SET default_transaction_read_only = off"),
        run("SHOW role"),
        run("SHOW search_path"),
        request::sync(),
    ];
    client.send(&group.concat()).unwrap();
    let answer = client.recv_until_ready().unwrap();
    let tags: Vec<u8> = answer.iter().map(|message| message.tag).collect();
    assert_eq!(tags, b"EZ", "{answer:?}");
    client
        .query("SET search_path = mine; RESET role")
        .unwrap_err();
    client.query("RESET role").unwrap();
    assert_eq!(value(&mut client, "SHOW search_path"), "\"$user\", public");
    assert_eq!(value(&mut client, "SELECT current_user"), "postgres");
}

/// What bounds the time of one client's statements does not stand in the way of another's settings.
#[test]
fn a_short_statement_timeout_is_its_owners_own() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let (mut hasty, mut other) = (rig.client("postgres"), rig.client("postgres"));
    for round in 0..20 {
        hasty.query("SET statement_timeout = 1").unwrap();
        assert_eq!(value(&mut other, "SHOW statement_timeout"), "0", "{round}");
        assert_eq!(value(&mut other, "SELECT 1"), "1", "{round}");
    }
}

#[test]
fn what_cannot_be_moved_keeps_its_server_connection() {
    let rig = Rig::start(1, |config| config.databases[0].pool.size = 2);
    let (mut owner, mut other) = (rig.client("postgres"), rig.client("postgres"));
    owner.query("CREATE TEMP TABLE mine (n int)").unwrap();
    for n in 1..=3 {
        owner
            .query(&format!("INSERT INTO mine VALUES ({n})"))
            .unwrap();
        assert_eq!(value(&mut other, "SELECT to_regclass('mine') IS NULL"), "t");
        assert_eq!(
            value(&mut owner, "SELECT count(*) FROM mine"),
            n.to_string()
        );
    }
    assert_eq!(rig.metric("pgweir_pins_total", &[]), 1.0);
    drop(owner);
    // Both connections of the pool are looked at, at the same time.
    let mut third = rig.client("postgres");
    for client in [&mut other, &mut third] {
        client
            .query("BEGIN; LOCK TABLE pg_class IN ACCESS SHARE MODE")
            .unwrap();
        assert_eq!(value(client, "SELECT to_regclass('mine') IS NULL"), "t");
    }
}

#[test]
fn session_pooling_keeps_the_server_process() {
    let rig = Rig::start(1, |config| {
        config.databases[0].pool.mode = PoolMode::Session
    });
    let mut clients: Vec<RawClient> = (0..3).map(|_| rig.client("postgres")).collect();
    for round in 0..3 {
        for client in &mut clients {
            let told = client.backend_key().unwrap().process_id.to_string();
            assert_eq!(
                value(client, "SELECT pg_backend_pid()"),
                told,
                "round {round}"
            );
            client.query("SELECT 1").unwrap();
            client.query("BEGIN").unwrap();
            assert_eq!(
                value(client, "SELECT pg_backend_pid()"),
                told,
                "round {round}, in a transaction"
            );
            client.query("COMMIT").unwrap();
        }
    }
    clients[0]
        .query("SET work_mem = '9MB'; CREATE TEMP TABLE mine (n int); PREPARE p AS SELECT 1")
        .unwrap();
    clients[0].query("EXECUTE p").unwrap();
    clients.clear();
    let mut next = rig.client("postgres");
    assert_eq!(value(&mut next, "SHOW work_mem"), "4MB");
    assert_eq!(value(&mut next, "SELECT to_regclass('mine') IS NULL"), "t");
}

#[test]
fn statement_pooling_refuses_transaction_blocks() {
    let rig = Rig::start(1, |config| {
        config.databases[0].pool.mode = PoolMode::Statement;
        config.databases[0].pool.size = 1;
    });
    let mut client = rig.client("postgres");
    for sql in ["BEGIN", "start transaction read only"] {
        let refused = client.query(sql).unwrap_err().to_string();
        assert!(refused.contains("0A000"), "{sql}: {refused}");
        assert_eq!(value(&mut client, "SELECT 1"), "1");
    }
    // What is one transaction in itself is none to the pool.
    client
        .query("BEGIN; CREATE TABLE t (n int); COMMIT; INSERT INTO t VALUES (1)")
        .unwrap();
    // A block that is begun among others and left open ends the session, and is undone.
    let mut second = rig.client("postgres");
    second
        .send(&request::query("SELECT 1; BEGIN; DELETE FROM t"))
        .unwrap();
    let answer = second.recv_until_closed().unwrap();
    let said = answer.last().unwrap().error().unwrap().to_string();
    assert!(said.contains("0A000"), "{said}");
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "1");
}

fn client(rig: &Rig, parameters: &[(&str, &str)]) -> RawClient {
    rig.client_with(&[&LOGIN, parameters].concat())
}

/// Nodes may be configured differently; a session has what the primary has, wherever its statements run.
#[test]
fn nodes_with_other_settings_are_brought_into_line() {
    let rig = Rig::start(1, |_| ());
    let standby = rig.cluster.standbys()[0];
    standby.set("timezone", "Asia/Tokyo").unwrap();
    standby.set("datestyle", "German").unwrap();
    standby.reload().unwrap();
    let shown = |client: &mut RawClient| {
        value(
            client,
            "SELECT timestamptz '2001-02-03 04:05:06+00' || ' ' || interval '1 day'",
        )
    };
    let mut straight = rig.cluster.primary().connect("postgres").unwrap();
    let expected = shown(&mut straight);
    assert_ne!(shown(&mut standby.connect("postgres").unwrap()), expected);
    let mut client = rig.client("postgres");
    let reads = || rig.metric("pgweir_node_statements_total", &[("role", "standby")]);
    let before = reads();
    assert_eq!(shown(&mut client), expected);
    assert!(reads() > before, "it ran on the standby");
    for statement in [
        "SET timezone = 'UTC'",
        "RESET timezone",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        client.query(statement).unwrap();
        straight.query(statement).unwrap();
        assert_eq!(
            shown(&mut client),
            shown(&mut straight),
            "after {statement}"
        );
    }
    assert_eq!(
        client.parameters().get("TimeZone"),
        straight.parameters().get("TimeZone")
    );
}
