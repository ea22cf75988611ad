//! Prepared statements belong to the client that prepared them, whichever server connection it gets; and groups of
//! messages, COPY and large results go through as they are.

use std::process::Command;

use pgweir::testbed::{Message, RawClient, request};

use crate::support::{Rig, run, value};

/// What is sent before each wait for ReadyForQuery. The answers straight from the server and through the proxy must be
/// the same, byte for byte.
fn conversations() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let parse = |name: &str, sql: &str| request::parse(name, sql, &[]);
    let (sync, run) = (request::sync, |name: &str| {
        [request::bind("", name, &[]), request::execute("", 0)].concat()
    });
    let group = |messages: &[Vec<u8>]| [&messages.concat()[..], &sync()].concat();
    let query = |sql: &str| request::query(sql);
    vec![
        (
            "prepare, then execute twice",
            vec![
                group(&[parse("s", "SELECT 1")]),
                group(&[run("s")]),
                group(&[run("s"), run("s")]),
            ],
        ),
        (
            "all in one group",
            vec![group(&[
                parse("s", "SELECT 1"),
                request::describe_statement("s"),
                run("s"),
                request::close_statement("s"),
            ])],
        ),
        (
            "the name is taken",
            vec![
                group(&[parse("s", "SELECT 1")]),
                group(&[parse("s", "SELECT 2")]),
                group(&[run("s")]),
            ],
        ),
        (
            "the name is taken within the group",
            vec![
                group(&[parse("s", "SELECT 1"), parse("s", "SELECT 2")]),
                group(&[run("s")]),
            ],
        ),
        (
            "the same text again",
            vec![
                group(&[parse("s", "SELECT 1")]),
                group(&[parse("s", "SELECT 1")]),
                group(&[parse("t", "SELECT 1"), run("t")]),
            ],
        ),
        (
            "close, then prepare another",
            vec![
                group(&[parse("s", "SELECT 1")]),
                group(&[request::close_statement("s"), parse("s", "SELECT 'two'")]),
                group(&[run("s")]),
            ],
        ),
        (
            "close what is not there",
            vec![group(&[
                request::close_statement("none"),
                request::close_portal("none"),
            ])],
        ),
        (
            "after close",
            vec![
                group(&[parse("s", "SELECT 1"), request::close_statement("s")]),
                group(&[run("s")]),
                query("SELECT 3"),
            ],
        ),
        (
            "never prepared",
            vec![
                group(&[run("none")]),
                group(&[request::describe_statement("none")]),
                group(&[request::execute("none", 0)]),
                query("SELECT 3"),
            ],
        ),
        (
            "a Parse that fails",
            vec![
                group(&[parse("s", "SELECT nosuch")]),
                group(&[run("s")]),
                group(&[parse("s", "SELECT 1"), run("s")]),
            ],
        ),
        (
            "an error inside a pipeline",
            vec![
                [
                    group(&[parse("s", "SELECT 1"), run("s")]),
                    group(&[
                        parse("", "SELECT 1/0"),
                        run(""),
                        parse("t", "SELECT 2"),
                        run("t"),
                    ]),
                ]
                .concat(),
                group(&[run("s")]),
                group(&[run("t")]),
            ],
        ),
        (
            "a Parse that fails, and another by its name at once",
            vec![
                [
                    group(&[parse("s", "SELECT nosuch")]),
                    group(&[parse("s", "SELECT 1")]),
                    group(&[run("s")]),
                ]
                .concat(),
            ],
        ),
        (
            "a Close that an error skips",
            vec![
                group(&[parse("s", "SELECT 1")]),
                group(&[
                    parse("", "SELECT 1/0"),
                    run(""),
                    request::close_statement("s"),
                ]),
                group(&[run("s")]),
                group(&[
                    request::close_statement("s"),
                    parse("", "SELECT 1/0"),
                    run(""),
                ]),
                group(&[run("s")]),
            ],
        ),
        (
            "three groups at once",
            vec![
                [
                    group(&[parse("", "SELECT 1"), run("")]),
                    group(&[parse("", "SELECT 1/0"), run("")]),
                    group(&[parse("", "SELECT 3"), run("")]),
                ]
                .concat(),
                sync(),
                sync(),
            ],
        ),
        (
            "a transaction around errors",
            vec![
                query("BEGIN"),
                group(&[parse("s", "SELECT 1/0"), run("s")]),
                group(&[parse("t", "SELECT 1"), run("t")]),
                query("ROLLBACK"),
                group(&[run("s")]),
                group(&[run("t")]),
            ],
        ),
        (
            "prepared in a transaction that is rolled back",
            vec![
                query("BEGIN"),
                group(&[parse("s", "SELECT 1")]),
                query("ROLLBACK"),
                group(&[run("s")]),
            ],
        ),
        (
            "PREPARE and EXECUTE",
            vec![
                query("PREPARE q (int) AS SELECT $1 + 1"),
                query("EXECUTE q (4)"),
                group(&[
                    request::bind("", "q", &[Some("7")]),
                    request::execute("", 0),
                ]),
                query("DEALLOCATE q"),
                query("EXECUTE q (4)"),
            ],
        ),
        (
            "DEALLOCATE ALL",
            vec![
                group(&[parse("s", "SELECT 1")]),
                group(&[parse("t", "SELECT 2")]),
                query("DEALLOCATE ALL"),
                group(&[run("s")]),
                group(&[parse("t", "SELECT 'new'"), run("t")]),
            ],
        ),
        (
            "DEALLOCATE in the middle of a pipeline",
            vec![
                group(&[parse("s", "SELECT 1")]),
                [
                    query("DEALLOCATE s"),
                    group(&[parse("s", "SELECT 'new'"), run("s")]),
                    group(&[parse("", "DEALLOCATE s"), run("")]),
                    group(&[run("s")]),
                ]
                .concat(),
            ],
        ),
        (
            "DEALLOCATE that is bound and not executed",
            vec![
                group(&[parse("s", "SELECT 1")]),
                group(&[parse("", "DEALLOCATE s"), request::bind("", "", &[])]),
                group(&[run("s")]),
            ],
        ),
        (
            "DEALLOCATE ALL, and names behind it in the same group",
            vec![
                group(&[parse("s", "SELECT 1"), parse("t", "SELECT 2")]),
                group(&[
                    parse("", "DEALLOCATE ALL"),
                    run(""),
                    parse("s", "SELECT 'new'"),
                    run("s"),
                ]),
                group(&[run("s")]),
                group(&[run("t")]),
            ],
        ),
        (
            "DISCARD ALL that fails",
            vec![
                group(&[parse("s", "SELECT 1")]),
                query("BEGIN"),
                [query("DISCARD ALL"), group(&[run("s")])].concat(),
                query("ROLLBACK"),
                group(&[run("s")]),
            ],
        ),
        (
            "DISCARD ALL in the middle of a pipeline",
            vec![
                group(&[parse("s", "SELECT 1")]),
                [
                    query("DISCARD ALL"),
                    group(&[run("s")]),
                    group(&[parse("s", "SELECT 'new'"), run("s")]),
                ]
                .concat(),
            ],
        ),
        (
            "DEALLOCATE of what is not there",
            vec![query("DEALLOCATE none"), query("SELECT 1")],
        ),
        (
            "DISCARD ALL",
            vec![
                group(&[parse("s", "SELECT 1")]),
                query("DISCARD ALL"),
                group(&[run("s")]),
                group(&[parse("s", "SELECT 'new'"), run("s")]),
            ],
        ),
        (
            "portals in parts",
            vec![
                group(&[
                    parse("s", "SELECT generate_series(1, 5)"),
                    request::bind("p", "s", &[]),
                    request::execute("p", 2),
                    request::execute("p", 2),
                    request::execute("p", 2),
                ]),
                group(&[request::execute("p", 1)]),
            ],
        ),
        (
            "the unnamed statement",
            vec![
                group(&[parse("", "SELECT 1")]),
                group(&[run("")]),
                query("SELECT 2"),
                group(&[run("")]),
            ],
        ),
        (
            "empty statements",
            vec![
                query(""),
                query(";"),
                group(&[parse("", ""), run("")]),
                query("-- nothing"),
            ],
        ),
        (
            "several in one Query",
            vec![
                query("SELECT 1; SELECT 1/0; SELECT 3"),
                query("SELECT 1; BEGIN; SELECT 2"),
                query("COMMIT; SELECT 4"),
            ],
        ),
        (
            "COPY TO",
            vec![
                query("COPY (SELECT generate_series(1, 3)) TO STDOUT"),
                group(&[
                    parse("", "COPY (SELECT generate_series(1, 3)) TO STDOUT"),
                    run(""),
                ]),
                query("SELECT 1"),
            ],
        ),
        (
            "COPY FROM",
            vec![
                query("CREATE TEMP TABLE c (n int)"),
                [
                    query("COPY c FROM STDIN"),
                    request::copy_data("1\n2\n"),
                    request::copy_done(),
                ]
                .concat(),
                [
                    query("COPY c FROM STDIN"),
                    request::copy_data("3\n"),
                    request::copy_fail("no more"),
                ]
                .concat(),
                query("SELECT n + 0 FROM c"),
            ],
        ),
        (
            "COPY FROM by the extended protocol",
            vec![
                query("CREATE TEMP TABLE c (n int)"),
                [
                    parse("", "COPY c FROM STDIN"),
                    run(""),
                    request::copy_data("1\n2\n"),
                    request::copy_done(),
                    sync(),
                ]
                .concat(),
                query("SELECT n + 0 FROM c"),
            ],
        ),
        (
            "COPY FROM with wrong data",
            vec![
                query("CREATE TEMP TABLE c (n int)"),
                [
                    query("COPY c FROM STDIN"),
                    request::copy_data("x\n"),
                    request::copy_done(),
                ]
                .concat(),
                query("SELECT count(*) FROM c"),
            ],
        ),
        (
            "binary and parameters",
            vec![group(&[
                request::parse("s", "SELECT $1::int, $2::text", &[23, 25]),
                request::bind_with("", "s", &[1, 0], &[Some(&[0, 0, 0, 9]), None], &[1]),
                request::execute("", 0),
            ])],
        ),
    ]
}

#[test]
fn conversations_are_the_same_as_with_the_server() {
    let rig = Rig::start(1, |config| config.databases[0].pool.size = 1);
    let mut differ = Vec::new();
    for (name, sent) in conversations() {
        let expected = talk(
            &mut rig.cluster.primary().connect("postgres").unwrap(),
            &sent,
        );
        let received = talk(&mut rig.client("postgres"), &sent);
        if received != expected {
            differ.push(format!(
                "{name}:\n  server {expected:?}\n  proxy  {received:?}"
            ));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// The answers, as text. Where in its source an error was raised is left out: the proxy has another source.
fn talk(client: &mut RawClient, sent: &[Vec<u8>]) -> Vec<String> {
    let text = |message: Message| match message.tag {
        b'E' | b'N' => {
            let fields = message.error().expect("a body of fields").fields;
            let said = fields
                .into_iter()
                .filter(|(kind, _)| !b"FLR".contains(kind));
            said.map(|(kind, text)| format!("{}{text}", char::from(kind)))
                .collect::<Vec<_>>()
                .join("|")
        }
        _ => format!("{message:?}"),
    };
    let mut answers = Vec::new();
    for bytes in sent {
        client.send(bytes).expect("an open connection");
        // One ReadyForQuery for each Query and each Sync.
        let due = ready_due(bytes);
        for _ in 0..due {
            let received = client.recv_until_ready().expect("an answer to each");
            answers.extend(received.into_iter().map(text));
        }
    }
    answers
}

fn ready_due(mut bytes: &[u8]) -> usize {
    let mut due = 0;
    while let [tag, a, b, c, d, ..] = bytes {
        due += usize::from(b"QS".contains(tag));
        bytes = &bytes[1 + u32::from_be_bytes([*a, *b, *c, *d]) as usize..];
    }
    due
}

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

/// Of this process, in which the proxy runs.
fn resident_kilobytes() -> usize {
    let (out, _) =
        run(Command::new("ps").args(["-o", "rss=", "-p", &std::process::id().to_string()]));
    out.trim().parse().expect("ps prints a number")
}
