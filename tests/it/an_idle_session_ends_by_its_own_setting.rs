//! `idle_session_timeout` is the session's, in every pool mode: who sets it is ended by it, as by the server, and nobody
//! else; no server connection is.

use std::time::{Duration, Instant};

use pgweir::config::PoolMode;
use pgweir::testbed::{RawClient, ServerError, request};

use crate::support::{LIMIT, Rig, execute, value};

const BOUND: Duration = Duration::from_millis(500);

const LOGIN: [(&str, &str); 2] = [("user", "postgres"), ("database", "postgres")];

type Parameters = &'static [(&'static str, &'static str)];

/// Ways of saying so: in the startup packet, then by SQL.
const WAYS: [(Parameters, &[&str]); 9] = [
    (&[("idle_session_timeout", "500")], &[]),
    (&[("options", "-c idle_session_timeout=0.5s")], &[]),
    (
        &[("idle_session_timeout", "500ms")],
        &["SET idle_session_timeout = 0", "RESET ALL"],
    ),
    (&[], &["SET idle_session_timeout = 500"]),
    (&[], &["SET SESSION idle_session_timeout TO \"500 ms\""]),
    (
        &[],
        &["SELECT set_config('idle_session_timeout', '500000us', false)"],
    ),
    (
        &[],
        &["BEGIN; SET LOCAL idle_session_timeout = 0; SET idle_session_timeout = '.5s'; COMMIT"],
    ),
    (
        &[],
        &[
            "SET idle_session_timeout = '1h'",
            "SET idle_session_timeout = 5e2",
        ],
    ),
    // The proxy cannot tell how long this is, and leaves it to the server.
    (&[], &["SET idle_session_timeout = E'500ms'"]),
];

/// What leaves a session without a bound, or has none yet.
const OTHERS: [&[&str]; 6] = [
    &[],
    &["BEGIN; SET idle_session_timeout = '500ms'; ROLLBACK"],
    &["BEGIN; SET LOCAL idle_session_timeout = '500ms'; COMMIT"],
    &[
        "SET idle_session_timeout = '500ms'",
        "RESET idle_session_timeout",
    ],
    &[
        "SET idle_session_timeout = '500ms'",
        "SET idle_session_timeout = 0",
    ],
    &["SET idle_session_timeout = '500ms'", "DISCARD ALL"],
];

fn rig(mode: PoolMode, standbys: usize) -> Rig {
    Rig::start(standbys, |config| {
        config.databases[0].pool.mode = mode;
    })
}

/// A client that has said so, of the proxy or of the server itself.
fn client(address: &pgweir::testbed::Address, login: &[(&str, &str)], sql: &[&str]) -> RawClient {
    let mut client = RawClient::connect(address, &[&LOGIN, login].concat()).unwrap();
    client.set_timeout(LIMIT);
    sql.iter().for_each(|sql| execute(&mut client, sql));
    client
}

/// Severity, code and text of the last that a client hears.
fn goodbye(client: &mut RawClient) -> [Option<String>; 4] {
    let said = client.recv_until_closed().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    let ServerError { fields } = said[0].error().unwrap();
    [b'S', b'V', b'C', b'M'].map(|kind| {
        let field = fields.iter().find(|(field, _)| *field == kind);
        field.map(|(_, text)| text.clone())
    })
}

#[test]
fn an_idle_session_ends_by_its_own_setting() {
    for mode in [
        PoolMode::Transaction,
        PoolMode::Session,
        PoolMode::Statement,
    ] {
        let rig = rig(mode, 0);
        let straight = rig.cluster.primary().address().into();
        let mut others: Vec<_> = OTHERS
            .iter()
            .map(|sql| client(&rig.raw_address(), &[], sql))
            .collect();
        for (login, sql) in WAYS {
            if mode == PoolMode::Statement && sql.iter().any(|sql| sql.starts_with("BEGIN")) {
                continue;
            }
            let mut client = client(&rig.raw_address(), login, sql);
            let mut model = self::client(&straight, login, sql);
            for client in [&mut client, &mut model] {
                assert_eq!(
                    value(client, "SHOW idle_session_timeout"),
                    "500ms",
                    "{sql:?}"
                );
            }
            let since = Instant::now();
            let expected = goodbye(&mut model);
            assert_eq!(expected[2].as_deref(), Some("57P05"));
            assert_eq!(goodbye(&mut client), expected, "{mode:?} {login:?} {sql:?}");
            assert!(since.elapsed() >= BOUND * 9 / 10, "{:?}", since.elapsed());
        }
        for (client, sql) in others.iter_mut().zip(OTHERS) {
            assert_eq!(
                value(client, "SHOW idle_session_timeout"),
                "0",
                "{mode:?} {sql:?}"
            );
        }
        let ended = rig.metric("pgweir_timeouts_total", &[("timeout", "idle_session")]);
        assert!(ended >= 7.0, "{ended}");
    }
}

/// What keeps a session from being idle does so here, too.
#[test]
fn who_is_not_idle_stays() {
    for mode in [PoolMode::Transaction, PoolMode::Session] {
        let rig = rig(mode, 0);
        let set = ["SET idle_session_timeout = '500ms'"];
        let new = || client(&rig.raw_address(), &[], &set);
        let [mut running, mut in_transaction, mut begun, mut busy] = [new(), new(), new(), new()];
        running
            .send(&request::query("SELECT pg_sleep(1.5)"))
            .unwrap();
        execute(&mut in_transaction, "BEGIN; SELECT 1");
        execute(&mut begun, "BEGIN");
        let since = Instant::now();
        while since.elapsed() < BOUND * 2 {
            assert!(busy.recv_within(BOUND / 10).unwrap().is_none());
            execute(&mut busy, "SELECT 1");
        }
        assert_eq!(running.recv_until_ready().unwrap().len(), 4);
        for client in [&mut in_transaction, &mut begun] {
            execute(client, "COMMIT");
        }
        // From its end on, it is.
        for client in [&mut running, &mut in_transaction, &mut begun, &mut busy] {
            assert_eq!(goodbye(client)[2].as_deref(), Some("57P05"), "{mode:?}");
        }
    }
}

/// The setting goes with its session, and the connection stays: in its pool, and while its session reads elsewhere.
#[test]
fn no_server_connection_ends_for_it() {
    const PROCESS: &str = "SELECT pg_backend_pid() FROM pg_class LIMIT 1";
    let quick = ["SET idle_session_timeout = '500ms'"];
    for mode in [PoolMode::Transaction, PoolMode::Statement] {
        let rig = Rig::start(0, |config| {
            config.databases[0].pool.mode = mode;
            config.databases[0].pool.size = 1;
        });
        // Its login asks a server whether the setting is good.
        let mut quiet = client(
            &rig.raw_address(),
            &[("idle_session_timeout", "500ms")],
            &[],
        );
        let mut plain = rig.client("postgres");
        let process = value(&mut plain, PROCESS);
        let mut client = client(&rig.raw_address(), &[], &quick);
        assert_eq!(value(&mut client, PROCESS), process, "there is one");
        assert_eq!(value(&mut client, "SHOW idle_session_timeout"), "500ms");
        goodbye(&mut client);
        goodbye(&mut quiet);
        assert!(plain.recv_within(BOUND * 2).unwrap().is_none());
        assert_eq!(value(&mut plain, PROCESS), process, "{mode:?}");
        assert_eq!(value(&mut plain, "SHOW idle_session_timeout"), "0");
    }
    let rig = rig(PoolMode::Session, 1);
    execute(
        &mut rig.client("postgres"),
        "CREATE TABLE t AS SELECT 1 AS a",
    );
    rig.learn("postgres");
    rig.cluster.wait_caught_up().unwrap();
    let mut client = client(&rig.raw_address(), &[], &quick);
    let home = value(&mut client, PROCESS);
    let reads = || rig.metric("pgweir_routed_statements_total", &[("target", "standby")]);
    let before = reads();
    let since = Instant::now();
    while since.elapsed() < BOUND * 3 {
        assert!(client.recv_within(BOUND / 10).unwrap().is_none());
        execute(&mut client, "SELECT a FROM t");
    }
    assert!(reads() >= before + 5.0, "it reads on the standby");
    assert_eq!(value(&mut client, PROCESS), home, "its connection is there");
    goodbye(&mut client);
}
