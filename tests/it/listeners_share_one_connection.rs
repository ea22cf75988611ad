//! Sessions that LISTEN keep no server connection: one hears for all of a database and user.

use std::time::Duration;

use pgweir::config::{ListenPolicy, PoolMode};
use pgweir::testbed::{Message, Mode, Node, RawClient, request};

use crate::support::{LIMIT, Rig, execute, script, sqlstate, value};

/// Connections of PostgreSQL that have run LISTEN or UNLISTEN last: those that the proxy listens on.
fn listening(node: &Node) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%LISTEN \"%' \
               AND pid <> pg_backend_pid()";
    let count = node.value(sql).ok();
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The channel and the payload of the next message, which must be a notification.
#[track_caller]
fn heard(client: &mut RawClient) -> (String, String) {
    let message = client
        .recv_within(LIMIT)
        .expect("an open connection")
        .expect("a notification");
    notification(&message)
}

#[track_caller]
fn notification(message: &Message) -> (String, String) {
    assert_eq!(char::from(message.tag), 'A', "{message:?}");
    let mut fields = message.body[4..].split(|byte| *byte == 0);
    let mut text = || String::from_utf8(fields.next().expect("a field").to_vec()).expect("text");
    (text(), text())
}

/// Whether the client hears a channel: it listens to `always`, too, which is notified with it.
#[track_caller]
fn hears(rig: &Rig, client: &mut RawClient, channel: &str, expected: bool) {
    let primary = rig.cluster.primary();
    primary
        .execute(&format!("NOTIFY \"{channel}\", 'now'; NOTIFY always"))
        .expect("NOTIFY");
    let (first, _) = heard(client);
    if expected {
        // Two connections need not agree on the order.
        let mut both = [first, heard(client).0];
        both.sort_by_key(|name| name == "always");
        assert_eq!(both, [channel, "always"]);
    } else {
        assert_eq!(first, "always", "{channel} is not heard");
    }
}

#[test]
fn two_hundred_listeners_hold_one_server_connection() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 2);
    let primary = rig.cluster.primary();
    let mut clients: Vec<RawClient> = (0..200).map(|_| rig.client("postgres")).collect();
    for client in &mut clients {
        execute(client, "LISTEN news");
        execute(client, "LISTEN news");
    }
    assert_eq!(listening(primary), 1);
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                       AND pid <> pg_backend_pid()";
    let count: usize = primary.value(connections).unwrap().parse().unwrap();
    assert!(
        count <= 4,
        "{count}: the monitor's, a pool of two and the listener"
    );
    primary.execute("NOTIFY news, 'hello'").expect("NOTIFY");
    for client in &mut clients {
        assert_eq!(heard(client), ("news".to_owned(), "hello".to_owned()));
    }
    assert_eq!(rig.metric("pgweir_pins_total", &[]), 0.0);
    // Another user has a connection of its own.
    primary.execute("CREATE ROLE other LOGIN").expect("a role");
    let mut other = rig.client_with(&[("user", "other"), ("database", "postgres")]);
    execute(&mut other, "LISTEN news");
    assert_eq!(listening(primary), 2);
    // The last one but one to go leaves it, the last one takes it along.
    let mut last = clients.pop().expect("a client");
    drop((clients, other));
    rig.wait("the other user's connection to go", || {
        listening(primary) == 1
    });
    primary.execute("NOTIFY news, 'still'").expect("NOTIFY");
    assert_eq!(heard(&mut last), ("news".to_owned(), "still".to_owned()));
    drop(last);
    rig.wait("the listening connection to go", || listening(primary) == 0);
}

#[test]
fn the_extended_protocol_as_drivers_speak_it() {
    let rig = Rig::start(0, |_| ());
    let mut client = rig.client("postgres");
    execute(&mut client, "LISTEN always");
    let mut check = |messages: &[Vec<u8>], expected: &str| {
        client.send(&messages.concat()).expect("an open connection");
        let answer = client.recv_until_ready().expect("an answer");
        assert_eq!(script(&answer), expected);
    };
    let (bind, execute, sync) = (
        request::bind("", "", &[]),
        request::execute("", 0),
        request::sync(),
    );
    // As libpq's PQexecParams.
    check(
        &[
            request::parse("", "LISTEN a", &[]),
            bind.clone(),
            request::describe_portal(""),
            execute.clone(),
            sync.clone(),
        ],
        "1 2 n C:LISTEN Z:I",
    );
    // Prepared first.
    check(
        &[
            request::parse("s", "LISTEN b", &[]),
            request::describe_statement("s"),
            sync.clone(),
        ],
        "1 t n Z:I",
    );
    let named = [request::bind("", "s", &[]), execute.clone(), sync.clone()];
    check(&named, "2 C:LISTEN Z:I");
    check(&named, "2 C:LISTEN Z:I");
    // The statement is there for the server, too.
    check(&[request::describe_statement("s"), sync.clone()], "t n Z:I");
    check(
        &[
            request::parse("u", "UNLISTEN b", &[]),
            request::bind("p", "u", &[]),
            request::execute("p", 1),
            sync.clone(),
        ],
        "1 2 C:UNLISTEN Z:I",
    );
    check(
        &[request::bind("", "u", &[]), execute.clone(), sync.clone()],
        "2 C:UNLISTEN Z:I",
    );
    // What is wrong is worded by the server.
    check(
        &[
            request::parse("u", "LISTEN c", &[]),
            request::bind("", "u", &[]),
            execute,
            sync,
        ],
        "E:42P05 Z:I",
    );
    assert_eq!(sqlstate(&mut client, "LISTEN 1"), "42601");
    hears(&rig, &mut client, "a", true);
    hears(&rig, &mut client, "b", false);
    hears(&rig, &mut client, "c", false);
    assert_eq!(
        rig.metric("pgweir_pins_total", &[("reason", "listen")]),
        1.0
    );
    rig.wait("the pin of what failed to end", || {
        rig.metric("pgweir_pins_ended_total", &[("reason", "listen")]) == 1.0
    });
}

/// The proxy takes up what PostgreSQL accepts, and nothing else.
#[test]
fn names_are_those_that_the_server_accepts() {
    let rig = Rig::start(0, |_| ());
    let primary = rig.cluster.primary();
    let mut direct = primary.connect("postgres").expect("a connection");
    let mut client = rig.client("postgres");
    let words = primary
        .sql("SELECT word FROM pg_get_keywords()")
        .expect("keywords");
    let words: Vec<String> = words.into_iter().flatten().flatten().collect();
    assert!(words.len() > 400, "{}", words.len());
    for word in words {
        let sql = format!("LISTEN {word}");
        let code = |client: &mut RawClient| {
            let result = client.query(&sql);
            result
                .err()
                .map(|error| error.sqlstate().map(str::to_owned))
        };
        assert_eq!(code(&mut client), code(&mut direct), "{sql}");
    }
    execute(&mut client, "UNLISTEN *");
    execute(&mut client, "LISTEN always");
    execute(&mut client, "LISTEN Folded");
    execute(&mut client, "listen \"Quo\"\"ted\" ; -- news");
    hears(&rig, &mut client, "folded", true);
    hears(&rig, &mut client, "Folded", false);
    rig.cluster
        .primary()
        .execute("NOTIFY \"Quo\"\"ted\"")
        .expect("NOTIFY");
    assert_eq!(heard(&mut client).0, "Quo\"ted");
}

#[test]
fn a_channel_is_heard_until_unlisten() {
    let rig = Rig::start(0, |_| ());
    let mut client = rig.client("postgres");
    let mut other = rig.client("postgres");
    for sql in ["LISTEN always", "LISTEN a"] {
        execute(&mut client, sql);
        execute(&mut other, sql);
    }
    for (statements, expected) in [
        (&["UNLISTEN nobody"][..], true),
        (&["UNLISTEN a"], false),
        (&["LISTEN a"], true),
        (&["UNLISTEN *", "LISTEN always"], false),
        (&["LISTEN a", "BEGIN", "UNLISTEN a", "ROLLBACK"], true),
        (&["BEGIN", "UNLISTEN a", "COMMIT"], false),
        (&["LISTEN a", "SELECT 1; UNLISTEN a"], false),
        (&["LISTEN a", "DISCARD ALL", "LISTEN always"], false),
        (&["LISTEN a", "RESET ALL"], true),
        // A session that listens on its own connection, too, hears it once.
        (&["BEGIN", "LISTEN a", "COMMIT"], true),
        (&["UNLISTEN a"], false),
        (&["BEGIN", "LISTEN a", "COMMIT"], true),
        (&["UNLISTEN *", "LISTEN always"], false),
    ] {
        for sql in statements {
            execute(&mut client, sql);
        }
        hears(&rig, &mut client, "a", expected);
        assert_eq!(
            heard(&mut other).0,
            "a",
            "{statements:?}: others still listen"
        );
        assert_eq!(heard(&mut other).0, "always");
    }
}

/// Between units and outside of transactions, as the server does it; also to the session that notifies.
#[test]
fn notifications_come_between_units() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let mut client = rig.client("postgres");
    execute(&mut client, "LISTEN c");
    execute(&mut client, "NOTIFY c, 'own'");
    assert_eq!(heard(&mut client), ("c".to_owned(), "own".to_owned()));
    for (begin, end) in [("BEGIN", "COMMIT"), ("BEGIN", "ROLLBACK")] {
        execute(&mut client, begin);
        rig.cluster
            .primary()
            .execute("NOTIFY c, 'inside'")
            .expect("NOTIFY");
        client
            .send(&request::query("SELECT pg_sleep(0.2)"))
            .unwrap();
        let answer = client.recv_until_ready().expect("an answer");
        assert_eq!(script(&answer), "T D: C:SELECT 1 Z:T");
        client.send(&request::query(end)).unwrap();
        let answer = client.recv_until_ready().expect("an answer");
        assert_eq!(script(&answer), format!("C:{end} Z:I"));
        assert_eq!(heard(&mut client), ("c".to_owned(), "inside".to_owned()));
    }
    // LISTEN among other messages: answered in its turn, by its transaction's rules.
    let flight = [
        "SELECT 1", "LISTEN d", "BEGIN", "LISTEN e", "COMMIT", "SELECT 2",
    ]
    .map(request::query)
    .concat();
    client.send(&flight).unwrap();
    let answers: Vec<String> = (0..6)
        .map(|_| script(&client.recv_until_ready().expect("an answer")))
        .collect();
    assert_eq!(
        answers,
        [
            "T D:1 C:SELECT 1 Z:I",
            "C:LISTEN Z:I",
            "C:BEGIN Z:T",
            "C:LISTEN Z:T",
            "C:COMMIT Z:I",
            "T D:2 C:SELECT 1 Z:I"
        ]
    );
    assert_eq!(
        rig.metric("pgweir_pins_total", &[("reason", "listen")]),
        1.0
    );
    rig.cluster.primary().execute("NOTIFY d; NOTIFY e").unwrap();
    let mut both = [heard(&mut client).0, heard(&mut client).0];
    both.sort();
    assert_eq!(both, ["d", "e"], "one by each connection");
}

/// Nothing that is committed after the answer to LISTEN is missed.
#[test]
fn what_is_committed_after_the_answer_is_heard() {
    let rig = Rig::start(0, |_| ());
    let mut notifier = rig.cluster.primary().connect("postgres").unwrap();
    let mut client = rig.client("postgres");
    for round in 0..50 {
        execute(&mut client, &format!("LISTEN c{round}"));
        execute(&mut notifier, &format!("NOTIFY c{round}, 'x'"));
        assert_eq!(heard(&mut client).0, format!("c{round}"));
        if round % 3 == 0 {
            execute(&mut client, "UNLISTEN *");
        }
    }
}

/// A LISTEN that waits for its server is cancelled as any statement that waits.
#[test]
fn a_listen_that_waits_can_be_cancelled() {
    let rig = Rig::start(0, |config| {
        // Long enough for the node to be silent and still the primary.
        config.clusters[0].monitor.timeout = LIMIT;
    });
    let primary = rig.cluster.primary();
    let mut client = rig.client("postgres");
    execute(&mut client, "LISTEN a");
    primary.freeze().expect("freeze");
    client.send(&request::query("LISTEN b")).unwrap();
    assert_eq!(
        client.recv_within(Duration::from_millis(200)).unwrap(),
        None,
        "the server has not carried it out"
    );
    let key = client.backend_key().expect("a key").clone();
    RawClient::cancel(&rig.raw_address(), &key).expect("a cancel request");
    let answer = client.recv_until_ready().expect("an answer");
    assert_eq!(script(&answer), "E:57014 Z:I");
    primary.thaw().expect("thaw");
    execute(&mut client, "LISTEN c");
    primary.execute("NOTIFY b; NOTIFY a; NOTIFY c").unwrap();
    assert_eq!(heard(&mut client).0, "a", "b was cancelled");
    assert_eq!(heard(&mut client).0, "c");
}

/// A session that listens is idle: a shutdown does not wait for it.
#[test]
fn a_shutdown_tells_listeners_goodbye() {
    let mut rig = Rig::start(0, |_| ());
    let mut client = rig.client("postgres");
    execute(&mut client, "LISTEN a");
    assert_eq!(rig.shutdown(), 0, "nobody had to be cut off");
    let messages = client.recv_until_closed().expect("an orderly end");
    assert_eq!(script(&messages), "E:57P01");
    rig.cluster
        .primary()
        .wait_for(
            |node| Ok(listening(node) == 0),
            LIMIT,
            "the listening connection to go, too",
        )
        .unwrap();
}

#[test]
fn listeners_follow_the_primary() {
    let rig = Rig::start(1, |_| ());
    let mut client = rig.client("postgres");
    execute(&mut client, "LISTEN a");
    execute(&mut client, "LISTEN b");
    let old = rig.cluster.primary();
    // The server connection alone is lost first.
    let ended = old
        .value(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE query LIKE '%LISTEN \"%' AND pid <> pg_backend_pid()",
        )
        .unwrap();
    assert_eq!(ended, "1");
    rig.wait("another listening connection", || listening(old) == 1);
    old.execute("NOTIFY a, 'again'").unwrap();
    assert_eq!(heard(&mut client), ("a".to_owned(), "again".to_owned()));
    rig.cluster.wait_caught_up().expect("the standby");
    let new = rig.cluster.standbys()[0];
    old.stop(Mode::Fast).expect("stop the primary");
    rig.wait("the proxy to see that the primary is gone", || {
        rig.metric("pgweir_primary_known", &[]) == 0.0
    });
    let mut late = rig.client("postgres");
    assert_eq!(sqlstate(&mut late, "LISTEN c"), "57P03");
    assert_eq!(sqlstate(&mut client, "LISTEN c"), "57P03");
    new.promote().expect("promote");
    rig.wait("the proxy to listen on the new primary", || {
        listening(new) == 1
    });
    new.execute("NOTIFY b, 'new'; NOTIFY c").unwrap();
    assert_eq!(heard(&mut client), ("b".to_owned(), "new".to_owned()));
    execute(&mut late, "LISTEN c");
    new.execute("NOTIFY c, 'late'").unwrap();
    assert_eq!(heard(&mut late), ("c".to_owned(), "late".to_owned()));
    new.execute("NOTIFY a").unwrap();
    assert_eq!(
        heard(&mut client).0,
        "a",
        "and nothing of c, which was refused"
    );
}

/// A switchover after which the old primary's connections are still there.
#[test]
fn listeners_leave_a_primary_that_is_none_any_more() {
    let rig = Rig::start(1, |_| ());
    let mut client = rig.client("postgres");
    execute(&mut client, "LISTEN a");
    let (old, new) = (rig.cluster.primary(), rig.cluster.standbys()[0]);
    new.promote().expect("promote");
    rig.wait("the proxy to listen on the new primary", || {
        listening(new) == 1
    });
    rig.wait("the connection to the old one to go", || {
        listening(old) == 0
    });
    old.execute("NOTIFY a, 'old'").unwrap();
    new.execute("NOTIFY a, 'new'").unwrap();
    assert_eq!(heard(&mut client), ("a".to_owned(), "new".to_owned()));
}

#[test]
fn a_listener_that_does_not_read_is_ended_and_the_others_hear_everything() {
    const MANY: usize = 6000;
    let rig = Rig::start(0, |_| ());
    let mut deaf = rig.client("postgres");
    let mut client = rig.client("postgres");
    let mut busy = rig.client("postgres");
    for client in [&mut deaf, &mut client, &mut busy] {
        execute(client, "LISTEN c");
    }
    execute(&mut busy, "BEGIN");
    let reader = std::thread::spawn(move || {
        for number in 0..MANY {
            let (_, payload) = heard(&mut client);
            assert_eq!(payload.trim_end_matches('x'), number.to_string());
        }
        client
    });
    rig.cluster
        .primary()
        .execute(&format!(
            "SELECT pg_notify('c', rpad(n::text, 7000, 'x')) FROM generate_series(0, {}) n",
            MANY - 1
        ))
        .expect("NOTIFY");
    rig.wait("two sessions to be ended", || {
        rig.metric("pgweir_errors_total", &[("sqlstate", "53000")]) == 2.0
    });
    // Whole messages up to the end, none left out, and then the reason.
    let messages = deaf.recv_until_closed().expect("an orderly end");
    let (last, before) = messages.split_last().expect("a reason");
    assert_eq!(last.error().expect("an error").code(), "53000");
    for (number, message) in before.iter().enumerate() {
        let (_, payload) = notification(message);
        assert_eq!(payload.trim_end_matches('x'), number.to_string());
    }
    assert!(before.len() < MANY, "{}", before.len());
    // Nor does a transaction keep the others from hearing.
    let messages = busy.recv_until_closed().expect("an orderly end");
    assert_eq!(script(&messages), "E:53000");
    let mut client = reader.join().expect("the reader hears everything");
    execute(&mut client, "UNLISTEN *");
    rig.wait("the listening connection to go", || {
        listening(rig.cluster.primary()) == 0
    });
}

#[test]
fn by_policy_a_listener_keeps_its_connection() {
    for (mode, policy) in [
        (PoolMode::Transaction, ListenPolicy::Pin),
        (PoolMode::Session, ListenPolicy::Shared),
    ] {
        let rig = Rig::start(0, |config| {
            config.databases[0].pool.mode = mode;
            config.databases[0].pool.listen = policy;
        });
        let mut client = rig.client("postgres");
        execute(&mut client, "LISTEN c");
        assert_eq!(listening(rig.cluster.primary()), 0);
        assert_eq!(value(&mut client, "SELECT pg_listening_channels()"), "c");
        rig.cluster.primary().execute("NOTIFY c").unwrap();
        assert_eq!(heard(&mut client).0, "c");
    }
}

#[test]
fn statement_pooling_shares_and_another_encoding_does_not() {
    let rig = Rig::start(0, |config| {
        config.databases[0].pool.mode = PoolMode::Statement;
    });
    let mut client = rig.client("postgres");
    execute(&mut client, "LISTEN always");
    assert_eq!(rig.metric("pgweir_pins_total", &[]), 0.0);
    hears(&rig, &mut client, "c", false);
    let mut latin = rig.client_with(&[
        ("user", "postgres"),
        ("database", "postgres"),
        ("client_encoding", "LATIN1"),
    ]);
    execute(&mut latin, "LISTEN c");
    assert_eq!(
        rig.metric("pgweir_pins_total", &[("reason", "listen")]),
        1.0
    );
    rig.cluster.primary().execute("NOTIFY c, 'ä'").unwrap();
    let message = latin
        .recv_within(Duration::from_secs(10))
        .unwrap()
        .expect("a notification");
    assert!(message.body.ends_with(b"c\0\xe4\0"), "{message:?}");
}
