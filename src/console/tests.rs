//! Conversations with the console, over facts that are made up.

use std::time::Duration;

use super::*;
use crate::sql::catalog::TABLES;
use crate::sql::{Classifier, Lexing, ShapeReport};
use crate::wire::frame::{self, split_cstr};
use crate::wire::{Notice, SqlState, backend};

struct Planted;

impl Facts for Planted {
    fn version(&self) -> &str {
        "1.2.3"
    }

    fn nodes(&self) -> Vec<NodeFact> {
        let primary = NodeFact {
            cluster: "main".to_owned(),
            node: "pg1".to_owned(),
            role: "primary",
            timeline: Some(7),
            lag: Some(Duration::from_micros(1500)),
            ..NodeFact::default()
        };
        let standby = NodeFact {
            node: "pg2".to_owned(),
            role: "standby",
            ..NodeFact::default()
        };
        vec![primary, standby]
    }

    fn routes(&self) -> Vec<RouteFact> {
        Vec::new()
    }

    fn pools(&self) -> Vec<PoolFact> {
        vec![PoolFact {
            database: "shop".to_owned(),
            user: "app".to_owned(),
            clients: 3,
            waiting: 1,
            active: 2,
            idle: 5,
            longest_wait: Duration::from_millis(2500),
            mode: "transaction",
        }]
    }

    fn queries(&self, _: usize) -> Vec<ShapeReport> {
        Vec::new()
    }

    fn explain(&self, sql: &[u8]) -> Vec<Destination> {
        let classifier = Classifier::new(1 << 16);
        vec![Destination {
            cluster: "main".to_owned(),
            database: Some("shop".to_owned()),
            explanation: classifier.explain(sql, Lexing::default(), &TABLES),
            node: None,
            role: None,
            route: "class",
        }]
    }

    fn reload(&self) -> Result<Vec<String>, Notice> {
        Err(Notice::error(SqlState::FeatureNotSupported, "not now"))
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_header(&mut out, tag, body.len());
    out.extend_from_slice(body);
    out
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str, parameters: u8) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0\0").into_bytes();
    body.push(parameters);
    body.extend(std::iter::repeat_n(&b"\0\0\0\x017"[..], parameters.into()).flatten());
    body.extend(b"\0\0");
    message(b'B', &body)
}

fn execute(portal: &str, most: u8) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0, 0, 0, 0, most]].concat())
}

const SYNC: &[u8] = b"S\0\0\0\x04";

/// All answers to some messages, each in a word: of errors the code, of completions the tag, of rows their values.
fn talk(console: &mut Console, input: &[u8]) -> (Vec<String>, Turn) {
    let (mut out, mut at) = (Vec::new(), 0);
    let last = loop {
        match console.turn(&input[at..], &Planted, &mut out) {
            Turn::Done(len) => at += len,
            last => break last,
        }
    };
    (words(&out), last)
}

fn words(mut out: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    while let Ok(Some(header)) = frame::header(out, usize::MAX) {
        let body = &out[frame::HEADER..header.total()];
        let field = |field| {
            let value = backend::error_field(body, field).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        words.push(match header.tag {
            b'E' => format!("E:{} {}", field(b'C'), field(b'M')),
            b'N' => format!("N:{}", field(b'M')),
            b'C' => {
                let (tag, _) = split_cstr(body).expect("a tag");
                format!("C:{}", String::from_utf8_lossy(tag))
            }
            b'D' => format!("D:{}", values(&body[2..])),
            tag => char::from(tag).to_string(),
        });
        out = &out[header.total()..];
    }
    assert!(out.is_empty(), "half a message");
    words
}

fn values(mut row: &[u8]) -> String {
    let mut values = Vec::new();
    while let Some((length, rest)) = row.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length));
        let (value, rest) = rest.split_at(length.unwrap_or(0));
        values.push(match length {
            Ok(_) => String::from_utf8_lossy(value).into_owned(),
            Err(_) => "NULL".to_owned(),
        });
        row = rest;
    }
    values.join(",")
}

#[track_caller]
fn check(input: &[&[u8]], expected: &[&str]) {
    let (words, last) = talk(&mut Console::default(), &input.concat());
    assert_eq!(words, expected);
    assert_eq!(last, Turn::More);
}

#[test]
fn simple_queries() {
    let nodes = [
        "T",
        "D:main,pg1,,primary,f,7,NULL,NULL,1.5,f,NULL,0,0,0",
        "D:,pg2,,standby,f,NULL,NULL,NULL,NULL,f,NULL,0,0,0",
        "C:SHOW",
        "Z",
    ];
    for text in [
        "SHOW NODES",
        "show nodes;",
        "  Show\n\tNodes ; ",
        "/* psql */ SHOW NODES",
        "-- c\nSELECT nodes",
    ] {
        check(&[&query(text)], &nodes);
    }
    check(
        &[&query("show version; SHOW datestyle")],
        &["T", "D:pgweir 1.2.3", "C:SHOW", "T", "D:ISO", "C:SHOW", "Z"],
    );
    check(&[&query("")], &["I", "Z"]);
    check(&[&query(" -- nothing")], &["I", "Z"]);
    check(&[&query("RELOAD")], &["E:0A000 not now", "Z"]);
    check(
        &[&query("SHOW pools")],
        &[
            "T",
            "D:shop,app,3,1,0,0,2,0,0,5,0,0,0,2,500000,transaction,NULL",
            "C:SHOW",
            "Z",
        ],
    );
    let (words, _) = talk(&mut Console::default(), &query("show help"));
    assert!(
        words[0].starts_with("N:Console usage\n\tSHOW HELP\n"),
        "{words:?}"
    );
    assert!(words[0].contains("\n\tEXPLAIN ROUTE <sql>\n"), "{words:?}");
    assert_eq!(words[1..], ["C:SHOW", "Z"]);
}

#[test]
fn pools_have_the_columns_of_pgbouncer() {
    let mut out = Vec::new();
    Console::default().turn(&query("SHOW POOLS"), &Planted, &mut out);
    let header = frame::header(&out, 10_000).expect("valid").expect("whole");
    let mut body = &out[frame::HEADER..header.total()];
    let count = u16::from_be_bytes([body[0], body[1]]);
    body = &body[2..];
    let mut columns = Vec::new();
    while let Some((name, rest)) = split_cstr(body).filter(|(name, _)| !name.is_empty()) {
        let oid = u32::from_be_bytes([rest[6], rest[7], rest[8], rest[9]]);
        let kind = match oid {
            23 => "i",
            25 => "s",
            other => panic!("no column has the type {other}"),
        };
        columns.push(format!("{}:{kind}", String::from_utf8_lossy(name)));
        body = &rest[18..];
    }
    assert_eq!(usize::from(count), columns.len());
    assert_eq!(
        columns.join(" "),
        "database:s user:s cl_active:i cl_waiting:i cl_active_cancel_req:i cl_waiting_cancel_req:i \
         sv_active:i sv_active_cancel:i sv_being_canceled:i sv_idle:i sv_used:i sv_tested:i sv_login:i \
         maxwait:i maxwait_us:i pool_mode:s load_balance_hosts:s"
    );
}

#[test]
fn what_is_not_a_command() {
    let wrong = |text: &str, message: &str| {
        check(&[&query(text)], &[&format!("E:08P01 {message}"), "Z"]);
    };
    for text in [
        "SELECT 1",
        "SHOW",
        "SHOW NODE",
        "SHOW NODES now",
        "SHOWNODES",
        "EXPLAIN ROUTE",
        "EXPLAIN select 1",
        "RELOAD it",
        "BEGIN",
        "drop table t",
    ] {
        wrong(text, &format!("invalid command '{text}', use SHOW HELP;"));
    }
    wrong("SET max_client_conn = 5", "SET failed");
    wrong("SET datestyle", "SET failed");
    // What came before it has been answered.
    check(
        &[&query("SHOW version; nonsense; SHOW version")],
        &[
            "T",
            "D:pgweir 1.2.3",
            "C:SHOW",
            "E:08P01 invalid command 'nonsense', use SHOW HELP;",
            "Z",
        ],
    );
    let text = "x".repeat(1000);
    let (words, _) = talk(&mut Console::default(), &query(&text));
    assert!(words[0].len() < 200, "{words:?}");
    check(
        &[&message(b'Q', b"\xff\0")],
        &["E:08P01 the console takes UTF-8 only", "Z"],
    );
    check(
        &[&message(b'Q', b"a\0b\0")],
        &["E:08P01 malformed message", "Z"],
    );
}

#[test]
fn what_drivers_set_is_ignored_aloud() {
    for text in [
        "SET extra_float_digits = 3",
        "SET client_encoding TO 'UTF8'",
        "set application_name='x'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    ] {
        check(&[&query(text)], &["N:SET ignored", "C:SET", "Z"]);
    }
    for (text, value) in [
        ("SHOW transaction_read_only", "off"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "read committed"),
        ("show standard_conforming_strings", "on"),
    ] {
        check(
            &[&query(text)],
            &["T", &format!("D:{value}"), "C:SHOW", "Z"],
        );
    }
}

#[test]
fn extended_queries() {
    let describe = message(b'D', b"P\0");
    check(
        &[
            &parse("", "SHOW VERSION"),
            &bind("", "", 0),
            &describe,
            &execute("", 0),
            SYNC,
        ],
        &["1", "2", "T", "D:pgweir 1.2.3", "C:SHOW", "Z"],
    );
    // A named statement lasts, and is described before it is bound.
    let named = [
        &parse("s", "show nodes")[..],
        &message(b'D', b"Ss\0"),
        SYNC,
        &bind("p", "s", 0),
        &execute("p", 1),
        &execute("p", 1),
        &execute("p", 1),
        SYNC,
        &bind("p", "s", 0),
        SYNC,
        &execute("p", 0),
        SYNC,
        &message(b'C', b"Ss\0"),
        &bind("", "s", 0),
        SYNC,
    ];
    let (words, _) = talk(&mut Console::default(), &named.concat());
    let rows: Vec<&str> = words
        .iter()
        .map(|word| word.split(',').next().unwrap_or(word))
        .collect();
    assert_eq!(
        rows,
        [
            "1",
            "t",
            "T",
            "Z",
            "2",
            "D:main",
            "s",
            "D:",
            "s",
            "C:SHOW",
            "Z",
            "2",
            "Z",
            "E:34000 portal \"p\" does not exist",
            "Z",
            "3",
            "E:26000 prepared statement \"s\" does not exist",
            "Z"
        ]
    );
    // After an error nothing is answered up to the Sync.
    check(
        &[
            &parse("", "nonsense"),
            &bind("", "", 0),
            &execute("", 0),
            SYNC,
            &query("SHOW version"),
        ],
        &[
            "E:08P01 invalid command 'nonsense', use SHOW HELP;",
            "Z",
            "T",
            "D:pgweir 1.2.3",
            "C:SHOW",
            "Z",
        ],
    );
    check(
        &[&parse("s", "RELOAD"), &parse("s", "RELOAD"), SYNC],
        &["1", "E:42P05 prepared statement \"s\" already exists", "Z"],
    );
    check(
        &[
            &parse("", ""),
            &bind("", "", 0),
            &message(b'D', b"P\0"),
            &execute("", 0),
            SYNC,
        ],
        &["1", "2", "n", "I", "Z"],
    );
}

#[test]
fn the_statement_to_explain_may_have_parameters() {
    let text = "EXPLAIN ROUTE select nextval($2) from t where a = $1";
    check(
        &[
            &parse("", text),
            &message(b'D', b"S\0"),
            &bind("", "", 2),
            &execute("", 0),
            SYNC,
        ],
        &[
            "1",
            "t",
            "T",
            "2",
            "D:main,shop,NULL,NULL,class,write,function,function nextval,1,8,\
             select nextval($2) from t where a = $1\n       ^,NULL",
            "C:EXPLAIN",
            "Z",
        ],
    );
    check(
        &[&parse("", text), &bind("", "", 1), SYNC],
        &[
            "1",
            "E:08P01 bind message supplies 1 parameters, but the statement requires 2",
            "Z",
        ],
    );
}

#[test]
fn names_are_bounded() {
    let all: Vec<u8> = (0..257)
        .flat_map(|n| parse(&format!("s{n}"), "SHOW NODES"))
        .collect();
    let (words, _) = talk(&mut Console::default(), &all);
    assert_eq!(words.iter().filter(|word| *word == "1").count(), 256);
    assert_eq!(words[256], "E:53000 too many prepared statements");
}

#[test]
fn ends() {
    let last = |input: &[u8]| talk(&mut Console::default(), input);
    assert_eq!(last(b"X\0\0\0\x04"), (vec![], Turn::End));
    let (words, turn) = last(b"Q\x10\0\0\0");
    assert_eq!(turn, Turn::End);
    assert!(words[0].starts_with("E:08P01 "), "{words:?}");
    let (words, turn) = last(&message(b'p', b""));
    assert_eq!(turn, Turn::End);
    assert_eq!(words, ["E:08P01 invalid frontend message type 112"]);
    // A message in part.
    assert_eq!(last(&query("SHOW NODES")[..7]), (vec![], Turn::More));
    let (words, _) = last(&message(b'F', b""));
    assert_eq!(words, ["E:0A000 the console has no functions", "Z"]);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(input in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let mut out = Vec::new();
        let mut at = 0;
        let mut console = Console::default();
        while let Turn::Done(len) = console.turn(&input[at..], &Planted, &mut out) {
            at += len;
        }
    }

    #[test]
    fn any_bodies_are_survived(tag in 0..6_usize, body in proptest::collection::vec(0..4_u8, 0..30)) {
        let input = message(b"QPBDEC"[tag], &body);
        let mut out = Vec::new();
        let turn = Console::default().turn(&input, &Planted, &mut out);
        proptest::prop_assert_eq!(turn, Turn::Done(input.len()));
    }
}
