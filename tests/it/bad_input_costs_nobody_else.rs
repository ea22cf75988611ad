//! Bad input gets a clear error, and costs nobody else anything.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pgweir::auth::{ClientExchange, Keys};
use pgweir::config::{AuthMethod, Secret, UserSecret, Users};
use pgweir::testbed::{Address, Cluster, Mode, ProtocolVersion, RawClient, request};

use crate::support::{Rig, program, script, sqlstate, value};

/// The SQLSTATE that a login fails with.
fn refused(rig: &Rig, user: &str, database: &str) -> String {
    match RawClient::connect(
        &rig.raw_address(),
        &[("user", user), ("database", database)],
    ) {
        Ok(_) => panic!("{user} was let into {database}"),
        Err(error) => error
            .sqlstate()
            .unwrap_or_else(|| panic!("{error}"))
            .to_owned(),
    }
}

#[test]
fn logins_that_cannot_be() {
    let rig = Rig::start(0, |config| {
        let postgres = (
            "postgres".to_owned(),
            UserSecret::Plain(Secret::new(String::new())),
        );
        config.auth.users = Some(Users(vec![postgres]));
        config.databases[0].name = "shop".to_owned();
        config.databases[0].dbname = Some("postgres".to_owned());
        let mut other = config.databases[0].clone();
        other.name = "broken".to_owned();
        other.dbname = Some("nowhere".to_owned());
        config.databases.push(other);
    });
    assert_eq!(refused(&rig, "nobody", "shop"), "28000");
    assert_eq!(
        refused(&rig, "postgres", "unknown"),
        "3D000",
        "not configured"
    );
    assert_eq!(
        refused(&rig, "postgres", "broken"),
        "3D000",
        "configured, and not on the server"
    );
    assert_eq!(
        value(&mut rig.client("shop"), "SELECT current_database()"),
        "postgres"
    );
}

#[test]
fn wrong_passwords_and_unknown_users_look_alike() {
    let rig = Rig::start(0, |config| {
        config.auth.method = AuthMethod::ScramSha256;
        let postgres = (
            "postgres".to_owned(),
            UserSecret::Plain(Secret::new("right".to_owned())),
        );
        config.auth.users = Some(Users(vec![postgres]));
    });
    let login = |user: &str, password: &str| {
        let address = rig.address();
        let mut psql = program(&rig.cluster, "psql");
        psql.env("PGPASSWORD", password)
            .args(["-XAt", "-c", "SELECT 'in'"]);
        psql.arg(format!("postgresql://{user}@{address}/postgres"));
        let output = psql.output().expect("psql runs");
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(login("postgres", "right").0, "in\n");
    for (user, password) in [("postgres", "wrong"), ("nobody", "right")] {
        let (out, err) = login(user, password);
        assert_eq!(out, "");
        assert!(
            err.contains(&format!(
                "password authentication failed for user \"{user}\""
            )),
            "{err}"
        );
    }
    assert_eq!(login("postgres", "right").0, "in\n", "and once more");
}

#[test]
fn first_packets_that_nobody_sends() {
    let rig = Rig::start(0, |_| ());
    let mut witness = rig.client("postgres");
    let oversized = [&20_000u32.to_be_bytes()[..], &[0; 100]].concat();
    let half = request::startup(ProtocolVersion::V3_0, &[("user", "postgres")]);
    for (what, bytes, answered) in [
        ("garbage", &b"GET / HTTP/1.1\r\n\r\n"[..], true),
        ("a length of 0", &[0, 0, 0, 0, 0, 0, 0, 0], true),
        ("a length of 7", &[0, 0, 0, 7, 0, 0, 0], true),
        ("an oversized packet", &oversized, true),
        ("protocol 2", &[0, 0, 0, 8, 0, 2, 0, 0], true),
        ("half a packet", &half[..half.len() - 3], false),
        ("nothing", b"", false),
    ] {
        let mut stream = TcpStream::connect(rig.address()).expect("connect");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("timeout");
        stream.write_all(bytes).expect("write");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("shutdown");
        let mut answer = Vec::new();
        // Not a reset, which could overtake the answer.
        let read = stream.read_to_end(&mut answer);
        read.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(
            answer.first() == Some(&b'E'),
            answered,
            "{what}: {answer:?}"
        );
        assert_eq!(value(&mut witness, "SELECT 1"), "1", "after {what}");
    }
}

/// What a client sends ahead of its turn is looked at when that has come, as by the server, and in pieces of any size.
#[test]
fn what_comes_ahead_of_its_turn() {
    let rig = Rig::start(0, |config| {
        config.admin.users = vec!["postgres".to_owned()];
    });
    let server = Address::from(rig.cluster.primary().address());
    let login = |database: &str, more: &[(&str, &str)]| {
        let user = [("user", "postgres"), ("database", database)];
        request::startup(ProtocolVersion::V3_0, &[&user, more].concat())
    };
    // What follows the login.
    let told = |address: &Address, pieces: &[&[u8]]| {
        let mut client = RawClient::open(address).expect("connect");
        for piece in pieces {
            client.send(piece).expect("send");
        }
        client.finish_login().expect("in");
        script(&client.recv_until_closed().expect("answers, then the end"))
    };
    let check = |bytes: &[u8], expected: &str, both: bool| {
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        for pieces in [&[bytes][..], &bytewise] {
            assert_eq!(told(&rig.raw_address(), pieces), expected);
            if both {
                assert_eq!(told(&server, pieces), expected, "by the server");
            }
        }
    };
    let asks = [request::query("SELECT 7"), request::terminate()].concat();
    let plain = login("postgres", &[]);
    check(
        &[plain.clone(), asks.clone()].concat(),
        "T D:7 C:SELECT 1 Z:I",
        true,
    );
    let walsender = login("postgres", &[("replication", "database")]);
    check(&[walsender, asks].concat(), "T D:7 C:SELECT 1 Z:I", true);
    let shows = [request::query("SHOW VERSION"), request::terminate()].concat();
    let version = concat!("T D:pgweir ", env!("CARGO_PKG_VERSION"), " C:SHOW Z:I");
    check(&[login("pgweir", &[]), shows].concat(), version, false);
    // But nothing ahead of the answer about encryption, whoever put it there.
    let refused = |address: &Address, request: &[u8], error: &str| {
        let mut client = RawClient::open(address).expect("connect");
        client.send(&[request, &plain].concat()).expect("send");
        assert_eq!(client.recv_byte().expect("an answer"), b'N');
        let messages = client.recv_until_closed().expect("an error, then the end");
        let told = messages.first().expect("an error").error().expect("fields");
        let said = (told.severity(), told.code(), told.message());
        assert_eq!(said, ("FATAL", "08P01", error));
    };
    let early = "received unencrypted data after SSL request";
    refused(&rig.raw_address(), &request::ssl_request(), early);
    refused(&server, &request::ssl_request(), early);
    // A server that was built with GSSAPI does not say no to this.
    let early = "received unencrypted data after GSSAPI encryption request";
    refused(&rig.raw_address(), &request::gssenc_request(), early);
}

/// The same for clients who prove themselves: nothing of theirs runs before they have.
#[test]
fn what_comes_ahead_of_a_proof() {
    let rig = Rig::start(0, |config| {
        config.auth.method = AuthMethod::ScramSha256;
        let password = UserSecret::Plain(Secret::new("right".to_owned()));
        config.auth.users = Some(Users(vec![("postgres".to_owned(), password)]));
    });
    let user = [("user", "postgres"), ("database", "postgres")];
    let startup = request::startup(ProtocolVersion::V3_0, &user);
    let asks = [request::query("SELECT 7"), request::terminate()].concat();
    let send = |client: &mut RawClient, bytes: &[u8], piece: usize| {
        for piece in bytes.chunks(piece) {
            client.send(piece).expect("send");
        }
    };
    for piece in [usize::MAX, 1] {
        let mut client = RawClient::open(&rig.raw_address()).expect("connect");
        let mut exchange = ClientExchange::new([7; 18]);
        let first = request::sasl_initial("SCRAM-SHA-256", exchange.first().as_bytes());
        // There is but one mechanism to be asked for.
        send(&mut client, &[startup.clone(), first].concat(), piece);
        client.expect(b'R').expect("mechanisms");
        let challenge = client.expect(b'R').expect("a challenge");
        let challenged = exchange.challenge(&challenge.body[4..]);
        challenged.expect("a salt");
        let keys = Keys::derive("right", &exchange.salt, exchange.iterations);
        let proof = request::sasl_response(exchange.finish(&keys).as_bytes());
        send(&mut client, &[proof, asks.clone()].concat(), piece);
        client.expect(b'R').expect("the server's proof");
        client.finish_login().expect("in");
        let told = client.recv_until_closed().expect("answers, then the end");
        assert_eq!(script(&told), "T D:7 C:SELECT 1 Z:I");
    }
    let mut client = RawClient::open(&rig.raw_address()).expect("connect");
    let early = request::query("CREATE TABLE early (n int)");
    send(&mut client, &[startup, early].concat(), usize::MAX);
    client.expect(b'R').expect("mechanisms");
    let told = client.recv_until_closed().expect("an error, then the end");
    assert_eq!(script(&told), "E:08P01");
    let made = rig
        .cluster
        .primary()
        .value("SELECT to_regclass('early') IS NULL");
    assert_eq!(made.expect("an answer"), "t");
}

/// More than one receive brings, which the socket still has when the login is over.
#[test]
fn much_that_comes_ahead_keeps_its_order() {
    const ASKED: usize = 2000;
    let rig = Rig::start(0, |_| ());
    let user = [("user", "postgres"), ("database", "postgres")];
    let mut bytes = request::startup(ProtocolVersion::V3_0, &user);
    for number in 0..ASKED {
        bytes.extend(request::query(format!("SELECT {number}")));
    }
    bytes.extend(request::terminate());
    let mut client = RawClient::open(&rig.raw_address()).expect("connect");
    client.send(&bytes).expect("send");
    client.finish_login().expect("in");
    let told = script(&client.recv_until_closed().expect("answers"));
    let expected: Vec<String> = (0..ASKED)
        .map(|number| format!("T D:{number} C:SELECT 1 Z:I"))
        .collect();
    assert_eq!(told, expected.join(" "));
}

#[test]
fn messages_that_nobody_sends() {
    let rig = Rig::start(0, |_| ());
    let mut witness = rig.client("postgres");
    for bytes in [
        &b"Q\0\0\0\x03"[..],
        b"Q\0\0\0\0",
        b"Q\xff\xff\xff\xff",
        b"z\0\0\0\x04",
        b"\0\0\0\0\0\0",
    ] {
        let mut client = rig.client("postgres");
        client.send(bytes).expect("send");
        let messages = client.recv_until_closed().expect("an error, then the end");
        let error = messages.first().expect("an error").error().expect("fields");
        assert_eq!(
            (error.code(), error.severity()),
            ("08P01", "FATAL"),
            "{bytes:?}"
        );
        assert_eq!(value(&mut witness, "SELECT 1"), "1");
    }
    // A text that the protocol's layout does not allow: PostgreSQL says so, and the session lives.
    let mut client = rig.client("postgres");
    client.send(b"Q\0\0\0\x0cselect 1").expect("send");
    let messages = client.recv_until_ready().expect("an error");
    assert_eq!(messages[0].error().expect("fields").code(), "08P01");
    assert_eq!(value(&mut client, "SELECT 1"), "1");
}

#[test]
fn a_client_that_vanishes_takes_its_transaction_with_it() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    rig.client("postgres")
        .query("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
        .expect("DDL");
    let mut vanishing = rig.client("postgres");
    vanishing.query("BEGIN; UPDATE t SET n = 2; CREATE TEMP TABLE mine (n int); SET search_path = pg_catalog").expect("work");
    drop(vanishing);
    let mut next = rig.client("postgres");
    assert_eq!(
        value(&mut next, "SELECT n FROM t FOR UPDATE"),
        "1",
        "rolled back, and the lock is gone"
    );
    assert_eq!(
        value(&mut next, "SHOW search_path"),
        "\"$user\", public",
        "and no setting is left"
    );
    assert_eq!(
        sqlstate(&mut next, "SELECT * FROM mine FOR UPDATE"),
        "42P01",
        "and no table"
    );
    // In the middle of a statement: it is cancelled, not left to run.
    let mut vanishing = rig.client("postgres");
    vanishing
        .send(&request::query(
            "UPDATE t SET n = 3 WHERE pg_sleep(600) IS NOT NULL",
        ))
        .expect("send");
    rig.wait("it to run", || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'UPDATE t SET n = 3%'";
        rig.cluster.primary().value(running).is_ok_and(|count| count == "1")
    });
    drop(vanishing);
    assert_eq!(value(&mut next, "UPDATE t SET n = 4 RETURNING n"), "4");
}

#[test]
fn whatever_a_client_leaves_unfinished_is_gone() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let primary = rig.cluster.primary();
    primary
        .execute(
            "CREATE TABLE seat (id int PRIMARY KEY, taken int); INSERT INTO seat VALUES (1, 0)",
        )
        .unwrap();
    for (what, sent) in [
        (
            "in a transaction",
            request::query("BEGIN; UPDATE seat SET taken = taken + 1; SET LOCAL work_mem = '9MB'"),
        ),
        (
            "in a failed transaction",
            request::query("BEGIN; UPDATE seat SET taken = 7; SELECT 1/0"),
        ),
        (
            "in a statement",
            request::query(
                "UPDATE seat SET taken = 8 WHERE pg_sleep(60) IS NULL; SELECT pg_sleep(60)",
            ),
        ),
        (
            "in COPY FROM",
            [
                request::query("COPY seat FROM STDIN"),
                request::copy_data("2\t2\n"),
            ]
            .concat(),
        ),
        (
            "in COPY TO",
            request::query(
                "COPY (SELECT repeat('x', 10000) FROM generate_series(1, 20000)) TO STDOUT",
            ),
        ),
        (
            "in a group",
            [
                request::parse("", "UPDATE seat SET taken = 9", &[]),
                request::bind("", "", &[]),
                request::execute("", 0),
                request::flush(),
            ]
            .concat(),
        ),
        (
            "in a group that waits",
            [
                request::parse("", "UPDATE seat SET taken = 9", &[]),
                request::bind("", "", &[]),
            ]
            .concat(),
        ),
        (
            "in a message",
            request::query("UPDATE seat SET taken = 9")[..20].to_vec(),
        ),
        (
            "in a large message",
            [&b"Q\0\x01\0\0"[..], b"SELECT 'x"].concat(),
        ),
        (
            "in a failed group",
            [request::parse("", "SELECT nosuch", &[]), request::flush()].concat(),
        ),
        (
            "after LISTEN and a temporary table",
            request::query("LISTEN news; CREATE TEMP TABLE mine (n int); SET work_mem = '9MB'"),
        ),
        (
            "after an advisory lock",
            request::query("SELECT pg_advisory_lock(7)"),
        ),
    ] {
        for goodbye in [false, true] {
            // The server, too, carries on with a statement whose client has said goodbye.
            if goodbye && (what == "in a statement" || what.ends_with("message")) {
                continue;
            }
            let mut client = rig.client("postgres");
            client.send(&sent).unwrap();
            // What answers at all has reached the server; the rest is lost on the way, as it may be.
            client.recv_within(Duration::from_millis(100)).unwrap();
            if goodbye {
                client.send(&request::terminate()).unwrap();
            }
            drop(client);
            nothing_is_left(&rig, what);
        }
    }
    assert_eq!(
        primary
            .value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            .unwrap(),
        "0"
    );
}

fn nothing_is_left(rig: &Rig, what: &str) {
    let mut next = rig.client("postgres");
    next.query("UPDATE seat SET taken = taken WHERE id = 1")
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    for (sql, expected) in [
        ("SELECT taken FROM seat", "0"),
        ("SELECT count(*) FROM seat", "1"),
        ("SHOW work_mem", "4MB"),
        ("SELECT count(*) FROM pg_listening_channels()", "0"),
        ("SELECT to_regclass('mine') IS NULL", "t"),
        (
            "SELECT pg_try_advisory_lock(7) AND pg_advisory_unlock(7)",
            "t",
        ),
    ] {
        assert_eq!(value(&mut next, sql), expected, "{what}: {sql}");
    }
}

#[test]
fn a_full_pool_says_so_and_recovers() {
    let rig = Rig::start(0, |config| {
        config.databases[0].pool.size = 1;
        config.databases[0].pool.wait_timeout = Duration::from_millis(200);
    });
    let mut holder = rig.client("postgres");
    holder.query("BEGIN; SELECT 1").expect("begin");
    let mut waiter = rig.client("postgres");
    assert_eq!(sqlstate(&mut waiter, "SELECT 1"), "53000");
    assert_eq!(
        sqlstate(&mut waiter, "SELECT 1"),
        "53000",
        "the session stays"
    );
    holder.query("COMMIT").expect("commit");
    assert_eq!(value(&mut waiter, "SELECT 1"), "1");
    assert_eq!(
        rig.metric("pgweir_primary_known", &[]),
        1.0,
        "a full pool says nothing of the node"
    );
}

#[test]
fn too_many_clients_are_told() {
    let rig = Rig::start(0, |config| {
        config.limits.max_clients = 2;
        config.admin.users = vec!["postgres".to_owned()];
    });
    let first = rig.client("postgres");
    let _second = rig.client("postgres");
    assert_eq!(refused(&rig, "postgres", "postgres"), "53300");
    // A full house can be looked at, by a few.
    let mut admins = Vec::new();
    for _ in 0..16 {
        admins.push(rig.client("pgweir"));
    }
    admins[0].query("SHOW POOLS").expect("pools");
    assert_eq!(refused(&rig, "postgres", "pgweir"), "53300");
    drop(admins);
    assert_eq!(refused(&rig, "postgres", "postgres"), "53300");
    drop(first);
    rig.wait("the place to be free", || {
        RawClient::connect(
            &rig.raw_address(),
            &[("user", "postgres"), ("database", "postgres")],
        )
        .is_ok()
    });
}

#[test]
fn no_node_at_start() {
    let cluster = Cluster::builder().start().expect("a cluster");
    cluster.primary().stop(Mode::Fast).expect("stop");
    let rig = Rig::before(cluster, |_| ());
    rig.wait("the proxy to have asked", || {
        rig.metric("pgweir_node_probe_failures_total", &[]) > 0.0
    });
    assert_eq!(refused(&rig, "postgres", "postgres"), "57P03");
    rig.cluster.primary().start().expect("start");
    rig.wait_ready();
    assert_eq!(value(&mut rig.client("postgres"), "SELECT 1"), "1");
}
