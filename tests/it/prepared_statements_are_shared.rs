//! Prepared statements belong to the client that prepared them, whichever server connection it gets; and groups of
//! messages, COPY and large results go through as they are.

use std::process::Command;

use pgweir::testbed::{Cluster, RawClient, request};

use crate::support::{Rig, execute, logged, run, value};

/// Each message alone, its answer awaited by Flush before the next is sent.
#[test]
fn flush_brings_each_answer() {
    let rig = Rig::start(1, |_| ());
    let mut client = rig.client("postgres");
    for _ in 0..2 {
        for (message, tags) in [
            (request::parse("s", "SELECT $1::int", &[]), &b"1"[..]),
            (request::describe_statement("s"), b"tT"),
            (request::bind("p", "s", &[Some("6")]), b"2"),
            (request::describe_portal("p"), b"T"),
            (request::execute("p", 0), b"DC"),
            (request::close_portal("p"), b"3"),
            (request::close_statement("s"), b"3"),
        ] {
            client.send(&[message, request::flush()].concat()).unwrap();
            for tag in tags {
                client.expect(*tag).unwrap();
            }
        }
        client.send(&request::sync()).unwrap();
        client.expect(b'Z').unwrap();
    }
}

#[test]
fn names_are_the_clients_own() {
    let rig = Rig::start(1, |config| config.databases[0].pool.size = 1);
    let mut clients: Vec<RawClient> = (0..5).map(|_| rig.client("postgres")).collect();
    let ask = |client: &mut RawClient, messages: &[Vec<u8>]| {
        client
            .send(&[&messages.concat()[..], &request::sync()].concat())
            .unwrap();
        let answer = client.recv_until_ready().unwrap();
        let row = answer
            .iter()
            .find(|message| message.tag == b'D')
            .map(|row| row.text_row().unwrap());
        row.map_or(format!("{answer:?}"), |row| {
            row[0].clone().unwrap_or_default()
        })
    };
    let run = || [request::bind("", "s", &[]), request::execute("", 0)].concat();
    for (number, client) in clients.iter_mut().enumerate() {
        client
            .send(
                &[
                    request::parse("s", format!("SELECT {number}"), &[]),
                    request::sync(),
                ]
                .concat(),
            )
            .unwrap();
        client.recv_until_ready().unwrap();
    }
    for _ in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(ask(client, &[run()]), number.to_string());
        }
    }
    assert_eq!(rig.metric("pgweir_prepared_statements", &[]), 5.0);
    // One client's Close is no other's.
    ask(&mut clients[0], &[request::close_statement("s")]);
    assert!(ask(&mut clients[0], &[run()]).contains("26000"));
    assert_eq!(ask(&mut clients[1], &[run()]), "1");
    clients[1].query("DEALLOCATE ALL").unwrap();
    assert!(ask(&mut clients[1], &[run()]).contains("26000"));
    assert_eq!(ask(&mut clients[2], &[run()]), "2");
    clients[2].query("DISCARD ALL").unwrap();
    assert!(ask(&mut clients[2], &[run()]).contains("26000"));
    assert_eq!(ask(&mut clients[3], &[run()]), "3");
    // Another's table changes under a statement that many share.
    clients[0]
        .query("CREATE TABLE shifting AS SELECT 1 AS a")
        .unwrap();
    let first = [request::parse("s", "SELECT a FROM shifting", &[]), run()];
    assert_eq!(ask(&mut clients[0], &first), "1");
    clients[3].query("UPDATE shifting SET a = 2").unwrap();
    rig.cluster.wait_caught_up().unwrap();
    let again = [
        request::close_statement("s"),
        request::parse("s", "SELECT a FROM shifting", &[]),
        run(),
    ];
    assert_eq!(ask(&mut clients[0], &again), "2");
}

/// A table changes under a statement: as with the server its clients are told, and the same text prepared again works,
/// on every server connection that has planned it.
#[test]
fn a_statement_whose_result_has_changed_is_planned_anew() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 3);
    rig.learn("postgres");
    rig.client("postgres")
        .query("CREATE TABLE shifting AS SELECT 1 AS a")
        .unwrap();
    let run = [request::bind("", "s", &[]), request::execute("", 0)].concat();
    let parse = request::parse("s", "SELECT * FROM shifting FOR SHARE", &[]);
    let mut clients: Vec<RawClient> = (0..3).map(|_| rig.client("postgres")).collect();
    let ask = |client: &mut RawClient, messages: &[&[u8]]| {
        let group = [&messages.concat()[..], &request::sync()].concat();
        client.send(&group).unwrap();
        let answer = client.recv_until_ready().unwrap();
        answer.iter().map(|message| message.tag).collect::<Vec<_>>()
    };
    // Each in a transaction, so that all three server connections plan it.
    for client in &mut clients {
        client.query("BEGIN").unwrap();
        assert_eq!(ask(client, &[&parse, &run]), b"12DCZ");
    }
    for client in &mut clients {
        client.query("COMMIT").unwrap();
    }
    rig.cluster
        .primary()
        .execute("ALTER TABLE shifting ADD b int")
        .unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&mut clients[0], &[&run]), b"EZ", "it is told");
    }
    let again = [request::close_statement("s"), parse.clone()].concat();
    for client in &mut clients {
        client.query("BEGIN").unwrap();
        assert_eq!(ask(client, &[&again, &run]), b"312DCZ");
    }
    for client in &mut clients {
        client.query("COMMIT").unwrap();
        assert_eq!(ask(client, &[&run]), b"2DCZ", "and so it stays");
    }
}

/// The same for a client that asks for the description of each result, as libpq does: it need not notice.
#[test]
fn a_stale_plan_is_replaced_unseen_where_the_result_is_described() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    // Until the catalog is known, a function that a write calls may have prepared something: all of it is forgotten.
    rig.learn("postgres");
    let mut client = rig.client("postgres");
    client
        .query("CREATE TABLE shifting AS SELECT 1 AS a")
        .unwrap();
    let parse = request::parse("s", "SELECT * FROM shifting FOR SHARE", &[]);
    client.send(&[parse, request::sync()].concat()).unwrap();
    client.recv_until_ready().unwrap();
    let run = [
        request::bind("", "s", &[]),
        request::describe_portal(""),
        request::execute("", 0),
        request::sync(),
    ]
    .concat();
    let columns = |client: &mut RawClient, groups: usize| {
        client.send(&run.repeat(groups)).unwrap();
        let mut columns = Vec::new();
        for _ in 0..groups {
            let answer = client.recv_until_ready().unwrap();
            let description = answer.iter().find(|message| message.tag == b'T');
            columns.push(description.map(|found| found.column_names().unwrap().join(" ")));
        }
        columns
    };
    let seen = |text: &str| Some(text.to_owned());
    assert_eq!(columns(&mut client, 1), [seen("a")]);
    let change = |sql: &str| rig.cluster.primary().execute(sql).unwrap();
    change("ALTER TABLE shifting ADD b int");
    assert_eq!(columns(&mut client, 1), [seen("a b")]);
    assert_eq!(columns(&mut client, 2), [seen("a b"), seen("a b")]);
    change("ALTER TABLE shifting ADD c int");
    assert_eq!(columns(&mut client, 1), [seen("a b c")]);
    assert_eq!(rig.metric("pgweir_stale_plans_total", &[]), 2.0);
    // Something follows at once, whose answer would come first: the client hears of it.
    change("ALTER TABLE shifting ADD d int");
    assert_eq!(columns(&mut client, 2), [None, None]);
    // Inside a transaction it has failed.
    change("ALTER TABLE shifting ADD e int");
    client.query("BEGIN").unwrap();
    assert_eq!(columns(&mut client, 1), [None]);
    client.query("ROLLBACK").unwrap();
    // Also where its BEGIN has not been answered yet.
    let flight = [
        request::query("BEGIN"),
        run.clone(),
        request::query("ROLLBACK"),
    ];
    client.send(&flight.concat()).unwrap();
    client.recv_until_ready().unwrap();
    let error = client.recv_until_ready().unwrap()[0]
        .error()
        .unwrap()
        .to_string();
    assert!(error.contains("0A000"), "{error}");
    client.recv_until_ready().unwrap();
    assert_eq!(columns(&mut client, 1), [seen("a b c d e")]);
    assert_eq!(rig.metric("pgweir_stale_plans_total", &[]), 3.0);
}

/// What a statement of the protocol does to its session would not be followed if SQL executed it.
#[test]
fn sql_executes_no_statement_that_changes_the_session() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    for (number, text) in [
        "SET ROLE pg_monitor",
        "LISTEN c",
        "COMMIT",
        "SET work_mem = '9MB'",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("z{number}");
        let group = [request::parse(&name, text, &[]), request::sync()];
        a.send(&group.concat()).unwrap();
        a.recv_until_ready().unwrap();
        for sql in [format!("EXECUTE {name}"), format!("EXPLAIN EXECUTE {name}")] {
            let error = a.query(&sql).unwrap_err().to_string();
            assert!(error.contains("26000"), "{text}: {error}");
        }
        assert_eq!(value(&mut b, "SELECT current_user"), "postgres", "{text}");
        assert_eq!(value(&mut b, "SHOW work_mem"), "4MB", "{text}");
    }
}

/// An unnamed statement that fails says nothing of a named one with the same text.
#[test]
fn an_unnamed_parse_that_fails_takes_no_name_away() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let (mut a, mut b) = (rig.client("postgres"), rig.client("postgres"));
    let text = "SELECT 7 AS x";
    a.send(&[request::parse("p", text, &[]), request::sync()].concat())
        .unwrap();
    a.recv_until_ready().unwrap();
    b.query("BEGIN").unwrap();
    b.query("SELECT 1/0").unwrap_err();
    b.send(&[request::parse("", text, &[]), request::sync()].concat())
        .unwrap();
    b.recv_until_ready().unwrap();
    b.query("ROLLBACK").unwrap();
    let run = [
        request::bind("", "p", &[]),
        request::execute("", 0),
        request::sync(),
    ];
    a.send(&run.concat()).unwrap();
    let tags: Vec<u8> = a
        .recv_until_ready()
        .unwrap()
        .iter()
        .map(|m| m.tag)
        .collect();
    assert_eq!(tags, b"2DCZ");
}

/// More statements than a server connection may hold: the oldest go, and come back when they are used.
#[test]
fn more_statements_than_a_server_connection_holds() {
    let rig = Rig::start(0, |config| {
        config.databases[0].pool.size = 1;
        config.databases[0].pool.max_prepared = 5;
    });
    let mut client = rig.client("postgres");
    let group = |messages: Vec<u8>| [messages, request::sync()].concat();
    for number in 0..20 {
        client
            .send(&group(request::parse(
                &format!("s{number}"),
                format!("SELECT {number}"),
                &[],
            )))
            .unwrap();
        client.recv_until_ready().unwrap();
    }
    for number in (0..20).rev().chain(0..20) {
        let name = format!("s{number}");
        client
            .send(&group(
                [request::bind("", &name, &[]), request::execute("", 0)].concat(),
            ))
            .unwrap();
        let answer = client.recv_until_ready().unwrap();
        let row = answer.iter().find(|message| message.tag == b'D').unwrap();
        assert_eq!(row.text_row().unwrap(), [Some(number.to_string())]);
    }
    client.query("BEGIN").unwrap();
    let held: usize = value(&mut client, "SELECT count(*) FROM pg_prepared_statements")
        .parse()
        .unwrap();
    assert!(held <= 5, "{held} statements on the server connection");
}

#[test]
fn a_large_result_streams_in_bounded_memory() {
    const ROWS: usize = 200_000;
    let rig = Rig::start(1, |_| ());
    let sql = format!("SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})");
    let mut client = rig.client("postgres");
    let before = resident_kilobytes();
    let mut most = before;
    for extended in [false, true] {
        let group = [
            request::parse("", &sql, &[]),
            request::bind("", "", &[]),
            request::execute("", 0),
            request::sync(),
        ];
        client
            .send(&if extended {
                group.concat()
            } else {
                request::query(&sql)
            })
            .unwrap();
        let mut rows = 0;
        loop {
            let message = client.recv().unwrap();
            match message.tag {
                b'D' => rows += 1,
                b'Z' => break,
                b'E' => panic!("{}", message.error().unwrap()),
                _ => {}
            }
            if rows % 20_000 == 1 {
                // Asking takes a while, in which the client reads nothing: that must not pile up in the proxy.
                most = most.max(resident_kilobytes());
            }
        }
        assert_eq!(rows, ROWS);
    }
    assert!(
        most < before + 50 * 1024,
        "memory grew from {before} kB to {most} kB"
    );
}

/// A goodbye that comes with a statement is heard after the statement's answer has been read.
#[test]
fn a_goodbye_cuts_no_answer_off() {
    let rig = Rig::start(0, |_| ());
    // Below, about and above what the sockets on the way hold while the client does not read.
    for rows in [1, 500, 1500, 2500, 3500, 5000] {
        let mut client = rig.client("postgres");
        let sql = format!("SELECT repeat('x', 1000) FROM generate_series(1, {rows})");
        client
            .send(&[request::query(&sql), request::terminate()].concat())
            .unwrap();
        // The proxy has had its goodbye when it answers another client that came after.
        rig.client("postgres").query("SELECT 1").unwrap();
        let answer = client.recv_until_ready().unwrap();
        let received = answer.iter().filter(|message| message.tag == b'D').count();
        assert_eq!(received, rows);
        client.recv_until_closed().unwrap();
    }
}

/// A pipeline whose statements change settings takes time in proportion to its length.
#[test]
fn settings_in_a_long_pipeline() {
    const STATEMENTS: usize = 20_000;
    let rig = Rig::start(0, |_| ());
    let mut client = rig.client("postgres");
    let statement = [request::bind("", "s", &[]), request::execute("", 0)].concat();
    let mut group = request::parse("s", "SET work_mem = '5MB'", &[]);
    for _ in 0..STATEMENTS {
        group.extend_from_slice(&statement);
    }
    group.extend_from_slice(&request::sync());
    client.send(&group).unwrap();
    let answer = client.recv_until_ready().unwrap();
    assert_eq!(answer.len(), 1 + 2 * STATEMENTS + 1);
    assert_eq!(value(&mut client, "SHOW work_mem"), "5MB");
}

/// Of this process, in which the proxy runs.
fn resident_kilobytes() -> usize {
    let (out, _) =
        run(Command::new("ps").args(["-o", "rss=", "-p", &std::process::id().to_string()]));
    out.trim().parse().expect("ps prints a number")
}

/// What functions may leave is not known where their texts cannot be read, and will not be: README says what that means.
/// Nobody's statements are given up for it.
#[test]
fn they_stay_where_the_catalog_cannot_be_read() {
    let builder = Cluster::builder().setting("log_statement", "all");
    let cluster = builder.start().unwrap();
    for sql in [
        "CREATE ROLE watcher LOGIN IN ROLE pg_monitor",
        "CREATE DATABASE closed",
        "REVOKE CONNECT ON DATABASE closed FROM public",
    ] {
        cluster.primary().execute(sql).unwrap();
    }
    let rig = Rig::before(cluster, |config| {
        config.databases[0].pool.size = 1;
        config.clusters[0].monitor.user = "watcher".to_owned();
    });
    rig.wait_ready();
    let failures = || rig.metric("pgweir_catalog_load_failures_total", &[]);
    let before = failures();
    let mut owner = rig.client("closed");
    rig.wait("a load that fails", || failures() > before);
    execute(&mut owner, "CREATE TABLE t (n int)");
    let forgotten = || logged(rig.cluster.primary(), "DEALLOCATE ALL");
    let before = forgotten();
    let mut other = rig.client("closed");
    for _ in 0..3 {
        // With one connection, what is behind one statement comes before the next.
        execute(&mut owner, "INSERT INTO t VALUES (1)");
        execute(&mut other, "INSERT INTO t VALUES (2)");
    }
    assert_eq!(forgotten(), before);
}
