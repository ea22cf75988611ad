//! `currval` and `lastval` tell a session of its own sequences, or that there is nothing to tell: never of another's, though
//! sessions share server connections.

use std::time::{Duration, Instant};

use pgweir::config::{CurrvalPolicy, PoolMode, User};
use pgweir::testbed::{Message, RawClient, request};

use crate::support::{Rig, execute, script, value};

/// Beyond a second, with some for the machine.
const LAPSE: Duration = Duration::from_secs(1);

const LASTVAL: &str = "SELECT lastval()";
const CURRVAL: &str = "SELECT currval('t_id_seq')";
const INSERT: &str = "INSERT INTO t (note) VALUES ('x') RETURNING id";
const MADE: &str = "CREATE TABLE t (id serial, note text); CREATE SEQUENCE s; CREATE TABLE u (a int); \
    INSERT INTO u VALUES (1)";

fn rig(standbys: usize, size: usize, policy: CurrvalPolicy) -> Rig {
    let rig = Rig::start(standbys, |config| {
        config.databases[0].pool.size = size;
        config.databases[0].pool.currval = policy;
    });
    rig.cluster.primary().execute(MADE).expect("the tables");
    rig.learn("postgres");
    rig
}

fn pinned(rig: &Rig) -> f64 {
    let labels = [("reason", "sequence")];
    rig.metric("pgweir_pins_total", &labels) - rig.metric("pgweir_pins_ended_total", &labels)
}

#[derive(Clone, Copy, Debug)]
enum By {
    Query,
    /// One group, as psycopg has it.
    Group,
    /// Prepared and described first, then executed, as asyncpg has it.
    Steps,
}

const WAYS: [By; 3] = [By::Query, By::Group, By::Steps];

/// The first value, or the SQLSTATE and the hint.
type Answer = Result<String, (String, Option<String>)>;

fn answer(messages: &[Message]) -> Answer {
    for message in messages {
        match message.tag {
            b'D' => {
                let row = message.text_row().expect("a row");
                return Ok(row[0].clone().unwrap_or_default());
            }
            b'E' => {
                let error = message.error().expect("fields");
                let hint = error.field(b'H').map(str::to_owned);
                return Err((error.code().to_owned(), hint));
            }
            _ => {}
        }
    }
    Ok(String::new())
}

fn send(client: &mut RawClient, parts: &[Vec<u8>]) -> Answer {
    client.send(&parts.concat()).expect("an open connection");
    answer(&client.recv_until_ready().expect("an answer"))
}

fn ask(client: &mut RawClient, by: By, sql: &str) -> Answer {
    let (parse, sync) = (request::parse("", sql, &[]), request::sync());
    let run = [
        request::bind("", "", &[]),
        request::describe_portal(""),
        request::execute("", 0),
        sync.clone(),
    ]
    .concat();
    match by {
        By::Query => send(client, &[request::query(sql)]),
        By::Group => send(client, &[parse, run]),
        By::Steps => {
            send(client, &[parse, request::describe_statement(""), sync])?;
            send(client, &[run])
        }
    }
}

#[track_caller]
fn gets(client: &mut RawClient, by: By, sql: &str) -> String {
    ask(client, by, sql).unwrap_or_else(|error| panic!("{by:?} {sql}: {error:?}"))
}

#[track_caller]
fn code(client: &mut RawClient, sql: &str) -> String {
    match ask(client, By::Query, sql) {
        Ok(value) => panic!("{sql}: {value}"),
        Err((code, _)) => code,
    }
}

/// Somebody has asked, so that from now on writes are followed.
fn asked(rig: &Rig) {
    assert_eq!(code(&mut rig.client("postgres"), LASTVAL), "55000");
}

#[test]
fn two_clients_alternate_on_two_connections() {
    let rig = rig(0, 2, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    asked(&rig);
    for by in WAYS {
        for _ in 0..5 {
            let (of_a, of_b) = (gets(&mut a, by, INSERT), gets(&mut b, by, INSERT));
            assert_ne!(of_a, of_b);
            for look in [LASTVAL, CURRVAL] {
                assert_eq!(gets(&mut a, by, look), of_a, "{by:?}");
                assert_eq!(gets(&mut b, by, look), of_b, "{by:?}");
            }
            assert_eq!(pinned(&rig), 2.0);
            // What does not ask ends it.
            execute(&mut a, "SELECT 1");
            execute(&mut b, "SELECT 1");
            assert_eq!(pinned(&rig), 0.0);
        }
    }
}

#[test]
fn two_clients_alternate_on_one_connection() {
    let rig = rig(0, 1, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    asked(&rig);
    for by in WAYS {
        for _ in 0..5 {
            for client in [&mut a, &mut b] {
                let own = gets(client, by, INSERT);
                assert_eq!(gets(client, by, LASTVAL), own, "{by:?}");
                assert_eq!(gets(client, by, CURRVAL), own, "{by:?}");
                execute(client, "SELECT 1");
            }
        }
        // The other one waits for the first, not for ever, and the first hears why it has nothing.
        gets(&mut a, by, INSERT);
        gets(&mut b, by, INSERT);
        execute(&mut b, "SELECT 1");
        for look in [LASTVAL, CURRVAL] {
            let (code, hint) = ask(&mut a, by, look).expect_err("it has been given back");
            assert_eq!(code, "55000", "{by:?} {look}");
            if look == LASTVAL {
                let hint = hint.expect("why");
                assert!(
                    hint.contains("given back") && hint.contains("pool.currval"),
                    "{hint}"
                );
            }
        }
    }
}

#[test]
fn who_has_written_nothing_hears_what_the_server_says() {
    let rig = rig(0, 1, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    gets(&mut a, By::Query, INSERT);
    let mut straight = rig.cluster.primary().connect("postgres").expect("a server");
    for by in WAYS {
        for look in [
            LASTVAL,
            CURRVAL,
            "INSERT INTO u VALUES (currval('t_id_seq'))",
        ] {
            let told = ask(&mut b, by, look);
            assert_eq!(told, ask(&mut straight, by, look), "{by:?} {look}");
            assert_eq!(told, Err(("55000".to_owned(), None)));
        }
    }
}

#[test]
fn a_nextval_is_remembered_before_anybody_has_asked() {
    for size in [1, 2] {
        let rig = rig(0, size, CurrvalPolicy::Pin);
        let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
        for by in WAYS {
            let theirs = gets(&mut b, by, INSERT);
            let own = gets(&mut a, by, "SELECT nextval('s')");
            assert_eq!(gets(&mut a, by, LASTVAL), own, "{by:?}");
            assert_eq!(gets(&mut a, by, "SELECT currval('s')"), own, "{by:?}");
            // Nothing of theirs is on the connection.
            let other = ask(&mut a, by, CURRVAL);
            assert_eq!(other, Err(("55000".to_owned(), None)), "{by:?} {theirs}");
            let own = gets(&mut a, by, "SELECT nextval('s')");
            assert_eq!(gets(&mut a, by, "SELECT currval('s'), 1"), own);
            execute(&mut a, "SELECT 1");
            execute(&mut b, "SELECT 1");
        }
    }
}

#[test]
fn a_nextval_keeps_no_connection_that_others_need() {
    let rig = rig(0, 4, CurrvalPolicy::Pin);
    let mut clients: Vec<_> = (0..4).map(|_| rig.client("postgres")).collect();
    let (mut patient, since) = (rig.client("postgres"), Instant::now());
    for client in &mut clients {
        gets(client, By::Query, "SELECT nextval('s')");
    }
    gets(&mut patient, By::Query, INSERT);
    // Half of them, until somebody has asked: then it is known what they are kept for.
    assert!(
        since.elapsed() >= LAPSE || pinned(&rig) == 2.0,
        "{}",
        pinned(&rig)
    );
    let (first, others) = clients.split_first_mut().expect("four clients");
    let own = gets(first, By::Query, "SELECT nextval('s')");
    assert_eq!(gets(first, By::Query, LASTVAL), own);
    let since = Instant::now();
    for client in others.iter_mut().take(2) {
        let own = gets(client, By::Query, "SELECT nextval('s')");
        assert_eq!(gets(client, By::Query, LASTVAL), own);
    }
    assert!(
        since.elapsed() >= LAPSE || pinned(&rig) == 3.0,
        "{}",
        pinned(&rig)
    );
}

#[test]
fn a_write_that_calls_nothing_brings_nobody_elses_value() {
    let rig = rig(0, 1, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    let update = "UPDATE u SET a = a + 1";
    // Before and after somebody has asked.
    for turn in 0..3 {
        for by in WAYS {
            gets(&mut b, by, INSERT);
            execute(&mut b, "SELECT 1");
            gets(&mut a, by, update);
            let told = ask(&mut a, by, LASTVAL).map_err(|(code, _)| code);
            assert_eq!(told, Err("55000".to_owned()), "{turn} {by:?}");
            execute(&mut a, "SELECT 1");
        }
    }
    // Also in one text, and in one pipeline.
    gets(&mut b, By::Query, INSERT);
    execute(&mut b, "SELECT 1");
    assert_eq!(
        code(&mut a, "SELECT currval('t_id_seq'), nextval('s')"),
        "55000"
    );
    execute(&mut a, "SELECT 1");
    gets(&mut b, By::Query, INSERT);
    execute(&mut b, "SELECT 1");
    assert_eq!(code(&mut a, &format!("{update}; {LASTVAL}")), "55000");
    execute(&mut a, "SELECT 1");
    gets(&mut b, By::Query, INSERT);
    execute(&mut b, "SELECT 1");
    let flight = [request::query(update), request::query(LASTVAL)];
    assert_eq!(send(&mut a, &flight), Ok(String::new()));
    let second = answer(&a.recv_until_ready().expect("an answer"));
    assert_eq!(second.map_err(|(code, _)| code), Err("55000".to_owned()));
}

#[test]
fn a_pipeline_finds_its_own() {
    let rig = rig(0, 1, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    asked(&rig);
    for _ in 0..3 {
        gets(&mut b, By::Query, INSERT);
        execute(&mut b, "SELECT 1");
        let run = |sql: &str| {
            [
                request::parse("", sql, &[]),
                request::bind("", "", &[]),
                request::execute("", 0),
            ]
            .concat()
        };
        let flight = [run(INSERT), run(LASTVAL), run(CURRVAL), request::sync()];
        a.send(&flight.concat()).expect("an open connection");
        let rows: Vec<_> = a
            .recv_until_ready()
            .expect("an answer")
            .iter()
            .filter(|message| message.tag == b'D')
            .map(|message| message.text_row().expect("a row"))
            .collect();
        assert!(
            rows.len() == 3 && rows[0] == rows[1] && rows[1] == rows[2],
            "{rows:?}"
        );
        assert_eq!(
            gets(&mut a, By::Query, LASTVAL),
            rows[0][0].clone().expect("a value")
        );
        execute(&mut a, "SELECT 1");
    }
}

/// What was to take another's values away has failed with what was before it: they are taken away again.
#[test]
fn a_pipeline_that_fails_brings_nobody_elses_value() {
    let rig = rig(0, 1, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    asked(&rig);
    for by in WAYS {
        gets(&mut b, by, INSERT);
        execute(&mut b, "SELECT 1");
        execute(&mut a, "BEGIN");
        assert_eq!(gets(&mut a, by, "SELECT count(*) > 0 FROM pg_class"), "t");
        let flight = [
            request::query("SELECT 1 / 0 FROM pg_class"),
            request::query(LASTVAL),
            request::parse("", LASTVAL, &[]),
            request::bind("", "", &[]),
            request::execute("", 0),
            request::sync(),
            request::query("ROLLBACK"),
            request::query(LASTVAL),
        ];
        a.send(&flight.concat()).expect("an open connection");
        for expected in ["22012", "25P02", "25P02", "", "55000"] {
            let told = answer(&a.recv_until_ready().expect("an answer"));
            match told {
                Ok(value) => assert_eq!(value, expected, "{by:?}"),
                Err((code, _)) => assert_eq!(code, expected, "{by:?}"),
            }
        }
        let told = ask(&mut a, by, LASTVAL).map_err(|(code, _)| code);
        assert_eq!(told, Err("55000".to_owned()), "{by:?}");
        execute(&mut a, "SELECT 1");
        // Among messages that stand before a Query without a Sync.
        gets(&mut b, by, INSERT);
        execute(&mut b, "SELECT 1");
        let flight = [
            request::parse("", "SELECT 7 FROM pg_class LIMIT 1", &[]),
            request::bind("", "", &[]),
            request::execute("", 0),
            request::query(LASTVAL),
        ];
        a.send(&flight.concat()).expect("an open connection");
        let told = a.recv_until_ready().expect("an answer");
        assert_eq!(script(&told), "1 2 D:7 C:SELECT 1 T E:55000 Z:I", "{by:?}");
        execute(&mut a, "SELECT 1");
    }
}

#[test]
fn transaction_blocks_keep_it_behind_their_commit() {
    let rig = rig(0, 1, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    // The very first that asks, in the block of its own nextval.
    gets(&mut b, By::Query, INSERT);
    execute(&mut a, "BEGIN");
    let own = gets(&mut a, By::Query, INSERT);
    assert_eq!(gets(&mut a, By::Query, LASTVAL), own);
    execute(&mut a, "COMMIT");
    execute(&mut a, "SELECT 1");
    for by in WAYS {
        gets(&mut b, by, INSERT);
        execute(&mut b, "SELECT 1");
        // Another's is not the block's, and it fails as it does on a server.
        execute(&mut a, "BEGIN");
        assert_eq!(gets(&mut a, by, "SELECT 7 FROM t FOR UPDATE LIMIT 1"), "7");
        assert_eq!(
            ask(&mut a, by, LASTVAL).map_err(|(code, _)| code),
            Err("55000".to_owned())
        );
        assert_eq!(code(&mut a, "SELECT 1"), "25P02");
        execute(&mut a, "ROLLBACK");
        execute(&mut a, "BEGIN");
        let own = gets(&mut a, by, INSERT);
        execute(&mut a, "SELECT 1");
        assert_eq!(gets(&mut a, by, CURRVAL), own);
        execute(&mut a, "COMMIT");
        assert_eq!(gets(&mut a, by, LASTVAL), own, "{by:?}");
        execute(&mut a, "BEGIN");
        let own = gets(&mut a, by, INSERT);
        execute(&mut a, "ROLLBACK");
        assert_eq!(
            gets(&mut a, by, LASTVAL),
            own,
            "{by:?}: sequences are not rolled back"
        );
        execute(&mut a, "SELECT 1");
        assert_eq!(pinned(&rig), 0.0);
    }
}

#[test]
fn prepared_statements_ask_when_they_are_executed() {
    let rig = rig(0, 2, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    execute(&mut a, "PREPARE p AS SELECT lastval()");
    for sql in [LASTVAL, INSERT] {
        let name = if sql == INSERT { "i" } else { "l" };
        send(&mut a, &[request::parse(name, sql, &[]), request::sync()]).expect("a statement");
    }
    let mut run = |name: &str| {
        let bind = request::bind("", name, &[]);
        send(&mut a, &[bind, request::execute("", 0), request::sync()])
    };
    asked(&rig);
    for _ in 0..3 {
        let own = run("i").expect("a row");
        gets(&mut b, By::Query, INSERT);
        assert_eq!(run("l"), Ok(own));
    }
    for _ in 0..3 {
        let own = gets(&mut a, By::Query, INSERT);
        gets(&mut b, By::Query, INSERT);
        assert_eq!(gets(&mut a, By::Query, "EXECUTE p"), own);
        assert_eq!(gets(&mut a, By::Group, "EXECUTE p"), own);
    }
}

#[test]
fn a_pin_lapses_and_its_session_lives_on() {
    let rig = rig(1, 1, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    asked(&rig);
    let own = gets(&mut a, By::Query, INSERT);
    let since = Instant::now();
    assert_eq!(pinned(&rig), 1.0);
    // Nobody sends anything, and whoever waits has its turn.
    gets(&mut b, By::Query, "UPDATE u SET a = 0");
    assert!(since.elapsed() >= LAPSE, "{:?}", since.elapsed());
    assert_eq!(code(&mut a, LASTVAL), "55000");
    assert_ne!(gets(&mut a, By::Query, INSERT), own);
    rig.wait("the pins to lapse", || pinned(&rig) == 0.0);
    // Each question makes it last.
    let own = gets(&mut a, By::Query, INSERT);
    let since = Instant::now();
    while since.elapsed() < LAPSE + LAPSE {
        assert_eq!(gets(&mut a, By::Query, LASTVAL), own);
    }
}

#[test]
fn reads_go_to_standbys_meanwhile() {
    let rig = rig(1, 1, CurrvalPolicy::Pin);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    asked(&rig);
    let own = gets(&mut a, By::Query, INSERT);
    assert_eq!(gets(&mut a, By::Query, LASTVAL), own);
    assert_eq!(pinned(&rig), 1.0);
    let on_standbys = || rig.metric("pgweir_routed_statements_total", &[("target", "standby")]);
    let before = on_standbys();
    rig.wait("its reads to go to the standby", || {
        assert_eq!(gets(&mut a, By::Query, "SELECT count(*) > 0 FROM t"), "t");
        assert_eq!(pinned(&rig), 0.0);
        on_standbys() > before
    });
    // The connection is free at once.
    let since = Instant::now();
    gets(&mut b, By::Query, INSERT);
    assert!(since.elapsed() < LAPSE, "{:?}", since.elapsed());
}

#[test]
fn who_leaves_or_loses_its_server_takes_nothing_along() {
    let rig = rig(0, 1, CurrvalPolicy::Pin);
    let mut a = rig.client("postgres");
    asked(&rig);
    let pid = value(&mut a, "SELECT pg_backend_pid()");
    gets(&mut a, By::Query, INSERT);
    assert_eq!(pinned(&rig), 1.0);
    a.send(&request::terminate()).expect("an open connection");
    drop(a);
    let mut b = rig.client("postgres");
    assert_eq!(code(&mut b, LASTVAL), "55000");
    assert_eq!(
        value(&mut b, "SELECT pg_backend_pid()"),
        pid,
        "it is used again"
    );
    gets(&mut b, By::Query, INSERT);
    let terminate = format!("SELECT pg_terminate_backend({pid})");
    rig.cluster.primary().execute(&terminate).expect("a signal");
    // Its own is gone with the connection, and no more than that.
    rig.wait("the pin to end", || pinned(&rig) == 0.0);
    assert_eq!(code(&mut b, LASTVAL), "55000");
    let own = gets(&mut b, By::Query, INSERT);
    assert_eq!(gets(&mut b, By::Query, LASTVAL), own);
}

#[test]
fn rejected_outside_of_transaction_blocks() {
    let rig = rig(0, 1, CurrvalPolicy::Reject);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    for by in WAYS {
        for look in [
            LASTVAL,
            "SELECT lastval() FROM t",
            "INSERT INTO u VALUES (lastval())",
        ] {
            let (code, hint) = ask(&mut a, by, look).expect_err("refused");
            assert_eq!(code, "0A000", "{by:?} {look}");
            assert!(hint.is_some_and(|hint| hint.contains("pool.currval")));
        }
        gets(&mut b, by, INSERT);
        execute(&mut a, "BEGIN");
        assert_eq!(
            ask(&mut a, by, LASTVAL).map_err(|(code, _)| code),
            Err("55000".to_owned()),
            "another's"
        );
        execute(&mut a, "ROLLBACK");
        execute(&mut a, "BEGIN");
        let own = gets(&mut a, by, INSERT);
        assert_eq!(gets(&mut a, by, LASTVAL), own);
        execute(&mut a, "COMMIT");
        gets(&mut a, by, "SELECT nextval('s')");
        assert_eq!(code(&mut a, CURRVAL), "0A000");
    }
    // Behind what is on its way, and prepared outside for a block.
    let flight = [request::query(INSERT), request::query(LASTVAL)];
    send(&mut a, &flight).expect("a row");
    let second = answer(&a.recv_until_ready().expect("an answer"));
    assert_eq!(second.map_err(|(code, _)| code), Err("0A000".to_owned()));
    send(
        &mut a,
        &[request::parse("l", LASTVAL, &[]), request::sync()],
    )
    .expect("a statement");
    execute(&mut a, "BEGIN");
    let own = gets(&mut a, By::Query, INSERT);
    let run = [
        request::bind("", "l", &[]),
        request::execute("", 0),
        request::sync(),
    ];
    assert_eq!(send(&mut a, &run), Ok(own));
    execute(&mut a, "COMMIT");
    assert_eq!(
        rig.metric("pgweir_pins_total", &[("reason", "sequence")]),
        0.0
    );
    // A column of that name is no call.
    execute(&mut a, "CREATE TABLE m (lastval int, currval int)");
    execute(&mut a, "INSERT INTO m (lastval, currval) VALUES (1, 2)");
    assert_eq!(value(&mut a, "SELECT max(lastval) FROM m"), "1");
}

#[test]
fn allowed_they_tell_of_whatever_connection_they_come_to() {
    let rig = rig(0, 1, CurrvalPolicy::Allow);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    let of_a = gets(&mut a, By::Query, INSERT);
    assert_eq!(gets(&mut b, By::Query, LASTVAL), of_a);
    gets(&mut a, By::Query, "SELECT nextval('s')");
    assert_eq!(
        rig.metric("pgweir_pins_total", &[("reason", "sequence")]),
        0.0
    );
}

#[test]
fn a_user_may_have_another_policy_and_sessions_of_their_own_need_none() {
    let rig = Rig::start(0, |config| {
        config.databases[0].pool.size = 2;
        config.users = vec![
            User {
                name: "strict".to_owned(),
                currval: Some(CurrvalPolicy::Reject),
                ..User::default()
            },
            User {
                name: "steady".to_owned(),
                mode: Some(PoolMode::Session),
                ..User::default()
            },
        ];
    });
    let primary = rig.cluster.primary();
    primary
        .execute(&format!("{MADE}; CREATE ROLE strict LOGIN; CREATE ROLE steady LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC"))
        .expect("the tables");
    let as_user = |user| rig.client_with(&[("user", user), ("database", "postgres")]);
    assert_eq!(code(&mut as_user("strict"), LASTVAL), "0A000");
    let (mut a, mut b) = (as_user("steady"), as_user("steady"));
    let (of_a, of_b) = (
        gets(&mut a, By::Query, INSERT),
        gets(&mut b, By::Query, INSERT),
    );
    execute(&mut a, "SELECT 1");
    rig.wait("more than a second", {
        let since = Instant::now();
        move || since.elapsed() > LAPSE + LAPSE / 2
    });
    assert_eq!(gets(&mut a, By::Query, LASTVAL), of_a);
    assert_eq!(gets(&mut b, By::Query, LASTVAL), of_b);
    assert_eq!(
        rig.metric("pgweir_pins_total", &[("reason", "sequence")]),
        0.0
    );
}
