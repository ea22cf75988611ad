//! The oracle is PostgreSQL itself: the same scripts straight to the primary and through the proxy, and the same answers,
//! message by message.
//!
//! A script in `scripts/` begins with `== title`, or `== title {name=value; …}` with settings of the startup packet; each
//! of its lines is one flight, which is sent at once and answered
//! before the next. Messages stand between ` / `, each with its type: `Q sql`, `P name sql` (`P{23,25}` gives parameter
//! types), `B portal statement values…` (`Bb` asks for binary results), `D name` and `C name` of a statement, `Dp` and
//! `Cp` of a portal, `E portal rows`, `F oid int4:value…`, `H`, `S`, `d data`, `c`, `f reason`. `-` is the empty name. A
//! flight is over when a ReadyForQuery has come for each Query, function call and Sync; `>z2` waits for two, `>m3` for
//! three messages of any kind. Tables of a script are in the schema `o`, which is empty at its beginning.

use std::collections::BTreeMap;

use pgweir::config::{ListenPolicy, PoolMode};
use pgweir::testbed::{Message, RawClient, request};

use crate::support::Rig;

const SCRIPTS: [(&str, &str); 8] = [
    ("prepared", include_str!("scripts/prepared.txt")),
    ("named", include_str!("scripts/named.txt")),
    ("portals", include_str!("scripts/portals.txt")),
    ("flow", include_str!("scripts/flow.txt")),
    ("copy", include_str!("scripts/copy.txt")),
    ("settings", include_str!("scripts/settings.txt")),
    ("state", include_str!("scripts/state.txt")),
    ("transactions", include_str!("scripts/transactions.txt")),
];

#[test]
fn in_transaction_pooling() {
    compare(PoolMode::Transaction, 1, |_| ());
}

#[test]
fn in_session_pooling() {
    compare(PoolMode::Session, 1, |_| ());
}

/// All that needs no transaction block.
#[test]
fn in_statement_pooling() {
    compare(PoolMode::Statement, 1, |_| ());
}

/// Between any two flights another client uses the server connection, with other settings and other statements.
#[test]
fn in_transaction_pooling_with_somebody_between() {
    compare(PoolMode::Transaction, 2, |rig| {
        let mut other = rig.client_with(&[
            ("user", "postgres"),
            ("database", "postgres"),
            ("options", "-c work_mem=32MB -c search_path=pg_temp"),
        ]);
        for sql in [
            "PREPARE p AS SELECT 'not yours'",
            "EXECUTE p",
            "SET ROLE pg_monitor",
            "SET datestyle = 'SQL'",
        ] {
            other.query(sql).expect("a setting that the server takes");
        }
        let group = [
            request::parse("s", "SELECT 'not yours'", &[]),
            request::bind("", "s", &[]),
            request::execute("", 0),
            request::close_statement("s"),
            // What it leaves on the connection is nobody else's to run.
            request::parse("", "SELECT 'not yours'", &[]),
            request::sync(),
        ]
        .concat();
        for sql in ["BEGIN", "COMMIT", "SELECT 1"] {
            other.query(sql).expect("a statement that the server takes");
        }
        other.send(&group).expect("an open connection");
        other.recv_until_ready().expect("an answer");
    });
}

/// Plays all scripts both ways. `between` runs after each flight through the proxy.
fn compare(mode: PoolMode, connections: usize, between: impl Fn(&Rig)) {
    let rig = Rig::start(1, |config| {
        config.databases[0].pool.mode = mode;
        config.databases[0].pool.size = connections;
        config.databases[0].pool.max_prepared = 5;
        // A shared LISTEN hears beside the replies, not in a place of its own among them.
        config.databases[0].pool.listen = ListenPolicy::Pin;
    });
    let only = std::env::var("PGWEIR_SCRIPT").unwrap_or_default();
    let mut differ = Vec::new();
    for (file, text) in SCRIPTS {
        for script in scripts(text) {
            let title = format!("{file}: {}", script.title);
            let needs_blocks = mode == PoolMode::Statement && script.has("begin");
            if !title.contains(&only) || needs_blocks {
                continue;
            }
            clean(&rig);
            let address = rig.cluster.primary().address().into();
            let mut server = RawClient::connect(&address, &script.startup).expect("a login");
            let expected = talk(&mut server, &script.flights, || ());
            drop(server);
            clean(&rig);
            let mut client = rig.client_with(&script.startup);
            let received = talk(&mut client, &script.flights, || between(&rig));
            if received != expected {
                differ.push(difference(&title, &expected, &received));
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

fn clean(rig: &Rig) {
    rig.cluster
        .primary()
        .execute(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS o CASCADE; CREATE SCHEMA o",
        )
        .expect("a schema of its own for each script");
    rig.cluster.wait_caught_up().expect("standbys that follow");
}

fn difference(title: &str, expected: &[String], received: &[String]) -> String {
    let same = expected
        .iter()
        .zip(received)
        .take_while(|(expected, received)| expected == received)
        .count();
    let from = |answers: &[String]| answers[same.min(answers.len())..].join("\n    ");
    format!(
        "{title}, after {same} messages:\n  server\n    {}\n  proxy\n    {}",
        from(expected),
        from(received)
    )
}

struct Script<'a> {
    title: &'a str,
    startup: Vec<(&'a str, &'a str)>,
    flights: Vec<Flight>,
}

impl Script<'_> {
    fn has(&self, text: &str) -> bool {
        self.flights
            .iter()
            .any(|flight| String::from_utf8_lossy(&flight.bytes).contains(text))
    }
}

struct Flight {
    bytes: Vec<u8>,
    until: Until,
}

enum Until {
    /// So many ReadyForQuery.
    Ready(usize),
    /// So many messages.
    Messages(usize),
}

fn scripts(text: &str) -> Vec<Script<'_>> {
    let mut scripts: Vec<Script<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(title) = line.strip_prefix("== ") {
            let mut startup = vec![("user", "postgres"), ("database", "postgres")];
            let settings = title.split_once('{').map_or("", |(_, settings)| settings);
            let settings = settings.trim_end_matches('}').split("; ");
            startup.extend(settings.filter_map(|setting| setting.split_once('=')));
            scripts.push(Script {
                title,
                startup,
                flights: Vec::new(),
            });
            continue;
        }
        let (wait, messages) = line
            .strip_prefix('>')
            .and_then(|line| line.split_once(' '))
            .unwrap_or_else(|| panic!("neither a title nor a flight: {line}"));
        let messages: Vec<_> = messages.split(" / ").map(message).collect();
        let number = || wait[1..].parse().expect("a number");
        let until = match wait.chars().next() {
            Some('z') => Until::Ready(number()),
            Some('m') => Until::Messages(number()),
            _ => Until::Ready(messages.iter().filter(|m| b"QSF".contains(&m[0])).count()),
        };
        let script = scripts.last_mut().expect("a title comes first");
        script.flights.push(Flight {
            bytes: messages.concat(),
            until,
        });
    }
    scripts
}

fn message(text: &str) -> Vec<u8> {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    let name = |name| if name == "-" { "" } else { name };
    let unescaped = || rest.replace("\\n", "\n").replace("\\t", "\t");
    let types = kind.trim_start_matches(['P', '{']).trim_end_matches('}');
    match kind {
        "Q" => request::query(rest),
        "B" | "Bb" => {
            let mut words = second.split_whitespace();
            let statement = name(words.next().unwrap_or_default());
            let values: Vec<Option<&[u8]>> = words
                .map(|value| (value != "NULL").then_some(value.as_bytes()))
                .collect();
            let formats: &[i16] = if kind == "Bb" { &[1] } else { &[] };
            request::bind_with(name(first), statement, &[], &values, formats)
        }
        "D" => request::describe_statement(name(first)),
        "Dp" => request::describe_portal(name(first)),
        "C" => request::close_statement(name(first)),
        "Cp" => request::close_portal(name(first)),
        "E" => request::execute(name(first), second.parse().unwrap_or(0)),
        "F" => function_call(first, second),
        "H" => request::flush(),
        "S" => request::sync(),
        "d" => request::copy_data(unescaped()),
        "c" => request::copy_done(),
        "f" => request::copy_fail(rest),
        _ if kind.starts_with('P') => {
            let types: Vec<u32> = types
                .split(',')
                .filter_map(|oid| oid.parse().ok())
                .collect();
            request::parse(name(first), second, &types)
        }
        _ => panic!("no message is written like this: {text}"),
    }
}

/// FunctionCall with parameters and result in binary.
fn function_call(oid: &str, parameters: &str) -> Vec<u8> {
    let mut body = oid.parse::<u32>().expect("an OID").to_be_bytes().to_vec();
    let values: Vec<i32> = parameters
        .split_whitespace()
        .filter_map(|value| value.strip_prefix("int4:")?.parse().ok())
        .collect();
    body.extend([0, 1, 0, 1]);
    body.extend(u16::try_from(values.len()).expect("a few").to_be_bytes());
    for value in values {
        body.extend(4u32.to_be_bytes());
        body.extend(value.to_be_bytes());
    }
    body.extend([0, 1]);
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&b"F"[..], &length.to_be_bytes(), &body].concat()
}

/// What is heard, as text, with what must differ made alike. At the end comes one more Query: both must be in step.
fn talk(client: &mut RawClient, flights: &[Flight], between: impl Fn()) -> Vec<String> {
    let end = Flight {
        bytes: request::query("SELECT 'the end'"),
        until: Until::Ready(1),
    };
    let mut heard = Heard::default();
    for flight in flights.iter().chain([&end]) {
        client.send(&flight.bytes).expect("an open connection");
        let (mut ready, mut messages) = (0, 0);
        let mut idle = true;
        while match flight.until {
            Until::Ready(due) => ready < due,
            Until::Messages(due) => messages < due,
        } {
            match client.recv() {
                Ok(message) => {
                    ready += usize::from(message.tag == b'Z');
                    idle = message.tag == b'Z' && message.body == b"I";
                    messages += 1;
                    heard.add(&message);
                }
                Err(error) => {
                    heard.answers.push(format!("no more: {error}"));
                    return heard.answers;
                }
            }
        }
        heard.answers.push("--".to_owned());
        if idle {
            between();
        }
    }
    heard.answers
}

#[derive(Default)]
struct Heard {
    answers: Vec<String>,
    /// OIDs of tables, numbered as they come.
    oids: BTreeMap<u32, usize>,
}

/// OIDs from here on are given to what users create.
const FIRST_NORMAL_OID: u32 = 16384;

impl Heard {
    fn add(&mut self, message: &Message) {
        let text = match message.tag {
            b'E' | b'N' => {
                let fields = message.error().expect("a body of fields").fields;
                // Not where in its source the server has raised it.
                let said = fields
                    .into_iter()
                    .filter(|(kind, _)| !b"FLR".contains(kind))
                    .map(|(kind, text)| format!("{}{text}", char::from(kind)));
                format!(
                    "{}: {}",
                    char::from(message.tag),
                    said.collect::<Vec<_>>().join("|")
                )
            }
            b'T' => self.row_description(&message.body),
            // The process that notifies is another one.
            b'A' => format!("A: {}", message.body[4..].escape_ascii()),
            tag => format!("{}: {}", char::from(tag), message.body.escape_ascii()),
        };
        self.answers.push(text);
    }

    fn row_description(&mut self, body: &[u8]) -> String {
        let mut text = String::from("T:");
        let mut rest = &body[2..];
        while let Some(end) = rest.iter().position(|byte| *byte == 0) {
            let (name, after) = rest.split_at(end);
            let (facts, after) = after[1..].split_at(18);
            let table = u32::from_be_bytes([facts[0], facts[1], facts[2], facts[3]]);
            let next = self.oids.len();
            let table = if table < FIRST_NORMAL_OID {
                table.to_string()
            } else {
                format!("table {}", self.oids.entry(table).or_insert(next))
            };
            text += &format!(" {} {table} {:?}", name.escape_ascii(), &facts[4..]);
            rest = after;
        }
        text
    }
}
