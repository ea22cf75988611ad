//! The session against a model, by generated sequences of events: what clients send, cut anywhere, in any order with what
//! servers reply.
//!
//! The model is a server that a client has for itself. Whatever is sent through the proxy, beside another client that uses
//! the same server connections, must be answered byte for byte as that server answers it: no reply lost, added or out of
//! order, after an error nothing up to the Sync, and every statement with its own session's settings. The fuzz targets in
//! `fuzz/` use the same rig for longer runs.

mod peer;
mod rig;

use peer::Peer;
use pgweir::wire::frame;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use rig::{End, Rig, Site, tags};

/// What a client sends as one turn, as drivers do.
#[derive(Clone, Debug)]
enum Turn {
    Query(&'static str),
    Group(Vec<Step>),
    /// COPY in the extended protocol, as libpq sends it: with a Sync before its data and one behind.
    Copy {
        synced: bool,
        fails: bool,
    },
    Call,
}

/// A message of an extended-protocol group, or several that belong together.
#[derive(Clone, Debug)]
enum Step {
    Parse(&'static str, &'static str),
    Bind(&'static str, &'static str),
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, u8),
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    /// Bind, Describe, Execute of a statement.
    Run(&'static str),
    /// Parse, Bind, Describe, Execute of the unnamed statement.
    Once(&'static str),
    Query(&'static str),
    Flush,
}

/// What groups are like.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    /// Sent up to their Sync.
    Whole,
    /// With Flush between their messages.
    Flushed,
    /// Also with a Query among them, and with a Sync before a COPY's data: how many replies there are then depends on what
    /// fails.
    Any,
}

/// What happens next, to one of two clients.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many bytes of the client's stream come.
    Client(usize),
    /// So many bytes of the server's replies come.
    Server(usize),
}

/// What goes wrong on the held server.
#[derive(Clone, Copy, Debug)]
enum Accident {
    Event(Event),
    Lost,
    /// A table is altered.
    Altered,
    /// A role is dropped.
    Dropped,
}

const TEXTS: &[&str] = &[
    "select 1",
    "select 2",
    "select a from t",
    "update t",
    "select nextval('s')",
    "",
    "bad",
    "select 1/0",
    "show work_mem",
    "select 1; select 2",
    "select 1; bad",
    "select 1; select 1/0",
    "update t; select 1/0; update t",
];

const TRANSACTIONS: &[&str] = &[
    "begin",
    "begin read only",
    "commit",
    "rollback",
    "savepoint a",
    "savepoint b",
    "rollback to a",
    "rollback to b",
    "release a",
    "begin; update t",
    "begin; update t; commit",
    "begin; select 1/0",
];

const SETTINGS: &[&str] = &[
    "set work_mem = '1MB'",
    "set work_mem to '2MB'",
    "set session lock_timeout = '1s'",
    "set local work_mem = '3MB'",
    "set application_name = 'a'",
    "set application_name = 'b'",
    "set nosuch = 1",
    "set role r",
    "set role none",
    "set idle_session_timeout = '1s'",
    "reset work_mem",
    "reset role",
    "reset all",
    "select set_config('work_mem', '4MB', false)",
    "select set_config('work_mem', '5MB', true)",
    "set work_mem = '6MB'; select 1/0",
    "set work_mem = '7MB'; set lock_timeout = '2s'",
];

const NAMED: &[&str] = &[
    "prepare p as select 1",
    "prepare p as select 2",
    "prepare q as update t",
    "execute p",
    "execute q",
    "deallocate p",
    "deallocate q",
    "deallocate s1",
    "deallocate all",
];

/// Only as a Query of their own.
const WHOLE: &[&str] = &[
    "discard all",
    "copy t from stdin",
    "create temp table x (a int)",
    "listen c",
    "select pg_advisory_lock(1)",
    "alter table t add b int",
];

const STATEMENTS: &[&str] = &["", "s1", "s2", "s3", "s4"];
const PORTALS: &[&str] = &["", "c1"];

/// A text that is one statement.
fn single() -> impl Strategy<Value = &'static str> {
    let several = |text: &&'static str| !text.contains(';');
    prop_oneof![
        3 => select(TEXTS).prop_filter("one statement", several),
        2 => select(TRANSACTIONS).prop_filter("one statement", several),
        2 => select(SETTINGS).prop_filter("one statement", several),
        1 => select(NAMED),
    ]
}

fn query() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        3 => select(TEXTS),
        3 => select(TRANSACTIONS),
        3 => select(SETTINGS),
        2 => select(NAMED),
        1 => select(WHOLE),
    ]
}

fn step(flow: Flow) -> impl Strategy<Value = Step> {
    let name = || select(STATEMENTS);
    let portal = || select(PORTALS);
    prop_oneof![
        3 => (name(), single()).prop_map(|(name, text)| Step::Parse(name, text)),
        2 => (portal(), name()).prop_map(|(portal, name)| Step::Bind(portal, name)),
        1 => name().prop_map(Step::DescribeStatement),
        1 => portal().prop_map(Step::DescribePortal),
        2 => (portal(), 0..3u8).prop_map(|(portal, rows)| Step::Execute(portal, rows)),
        1 => name().prop_map(Step::CloseStatement),
        4 => name().prop_map(Step::Run),
        4 => single().prop_map(Step::Once),
        2 => match flow {
            Flow::Whole => portal().prop_map(Step::ClosePortal).boxed(),
            Flow::Flushed => Just(Step::Flush).boxed(),
            Flow::Any => prop_oneof![Just(Step::Flush), select(TEXTS).prop_map(Step::Query)].boxed(),
        },
    ]
}

fn turn(flow: Flow) -> impl Strategy<Value = Turn> {
    prop_oneof![
        5 => query().prop_map(Turn::Query),
        5 => vec(step(flow), 0..6).prop_map(Turn::Group),
        1 => any::<(bool, bool)>().prop_map(move |(synced, fails)| {
            let synced = synced && flow != Flow::Flushed;
            Turn::Copy { synced, fails }
        }),
        1 => Just(Turn::Call),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let some = || prop_oneof![1..12usize, 12..200usize];
    prop_oneof![
        some().prop_map(Event::Client),
        some().prop_map(Event::Server)
    ]
}

fn put(out: &mut Vec<u8>, tag: u8, body: &[&[u8]]) {
    let body = body.concat();
    frame::put_header(out, tag, body.len());
    out.extend_from_slice(&body);
}

fn put_query(text: &str, out: &mut Vec<u8>) {
    put(out, b'Q', &[text.as_bytes(), b"\0"]);
    if text.starts_with("copy") {
        put(out, b'd', &[b"1\n"]);
        put(out, b'c', &[]);
    }
}

impl Turn {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Turn::Query(text) => put_query(text, out),
            Turn::Group(steps) => {
                steps.iter().for_each(|step| step.put(out));
                put(out, b'S', &[]);
            }
            Turn::Copy { synced, fails } => {
                Step::Once("copy t from stdin").put(out);
                if *synced {
                    put(out, b'S', &[]);
                }
                put(out, b'd', &[b"1\n"]);
                match fails {
                    true => put(out, b'f', &[b"no\0"]),
                    false => put(out, b'c', &[]),
                }
                put(out, b'S', &[]);
                // Nothing else runs it, without data.
                Turn::Group(vec![Step::Parse("", "select 1")]).put(out);
            }
            Turn::Call => put(out, b'F', &[&[0; 10]]),
        }
    }
}

impl Step {
    fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Step::Parse(name, text) => put(
                out,
                b'P',
                &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"],
            ),
            Step::Bind(portal, name) => put(
                out,
                b'B',
                &[portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"],
            ),
            Step::DescribeStatement(name) => put(out, b'D', &[b"S", name.as_bytes(), b"\0"]),
            Step::DescribePortal(name) => put(out, b'D', &[b"P", name.as_bytes(), b"\0"]),
            Step::Execute(name, rows) => {
                put(out, b'E', &[name.as_bytes(), b"\0\0\0\0", &[rows]]);
            }
            Step::CloseStatement(name) => put(out, b'C', &[b"S", name.as_bytes(), b"\0"]),
            Step::ClosePortal(name) => put(out, b'C', &[b"P", name.as_bytes(), b"\0"]),
            Step::Run(name) => {
                Step::Bind("", name).put(out);
                Step::DescribePortal("").put(out);
                Step::Execute("", 0).put(out);
            }
            Step::Once(text) => {
                Step::Parse("", text).put(out);
                Step::Run("").put(out);
            }
            Step::Query(text) => put_query(text, out),
            Step::Flush => put(out, b'H', &[]),
        }
    }
}

/// What a client that begins transactions by the extended protocol does not do: go back to the unnamed portal by which it
/// has, behind a Flush, in a later group, or behind anything else of the same. The proxy has answered for it, and no server has that portal. Nor does any ask,
/// in a transaction that has failed, what an EXECUTE in a statement of the protocol's returns: where no connection has that
/// statement, only a server could have told before.
fn without_leftovers(turns: Vec<Turn>) -> Vec<Turn> {
    let begins = |step: &Step| matches!(step, Step::Parse(_, text) | Step::Once(text) if text.starts_with("begin"));
    let executes = |step: &Step| match *step {
        Step::Parse(name, text) if text.starts_with("execute") => Some(name),
        _ => None,
    };
    let executing: Vec<&str> = turns
        .iter()
        .flat_map(|turn| match turn {
            Turn::Group(steps) => &steps[..],
            _ => &[],
        })
        .filter_map(executes)
        .collect();
    let mut begun = false;
    let mut clean = |turn| {
        let Turn::Group(steps) = turn else {
            return turn;
        };
        let mut is_bound = false;
        let mut kept = Vec::new();
        for step in steps {
            begun |= begins(&step);
            is_bound |= matches!(step, Step::Bind("", _) | Step::Run(_) | Step::Once(_));
            // A group that does not fit the buffer may be parted anywhere.
            is_bound &= !matches!(step, Step::Flush) && !begins(&step);
            let goes_back = matches!(step, Step::DescribePortal("") | Step::Execute("", _));
            let asks = matches!(step, Step::DescribeStatement(name) if executing.contains(&name));
            if !(begun && (asks || (goes_back && !is_bound))) {
                kept.push(step);
            }
        }
        Turn::Group(kept)
    };
    turns.into_iter().map(&mut clean).collect()
}

/// One client, what it has still to send, and what a server of its own would answer.
struct Client {
    rig: Rig,
    rest: Vec<u8>,
    expected: Vec<u8>,
}

impl Client {
    fn new(site: &std::rc::Rc<Site>, turns: &[Turn]) -> Client {
        let mut rest = Vec::new();
        turns.iter().for_each(|turn| turn.put(&mut rest));
        let mut model = Peer::default();
        model.feed(&rest);
        Client {
            rig: Rig::new(site),
            rest,
            expected: model.output,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Client(n) => {
                let now: Vec<u8> = self.rest.drain(..n.min(self.rest.len())).collect();
                self.rig.client(&now);
            }
            Event::Server(n) => {
                self.rig.server(n);
            }
        }
    }

    fn finish(&mut self) {
        self.happen(Event::Client(usize::MAX));
        self.rig.settle();
    }
}

/// A stream of messages, for people.
fn spell(stream: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = stream;
    while let Ok(Some(header)) = frame::header(rest, usize::MAX) {
        let end = header.total().min(rest.len());
        let body = rest[frame::HEADER..end].escape_ascii();
        out += &format!("\n  {} {body}", char::from(header.tag));
        rest = &rest[end..];
    }
    out
}

/// How many units have been answered.
fn count(stream: &[u8]) -> usize {
    tags(stream).iter().filter(|tag| **tag == b'Z').count()
}

/// In an error of the proxy's own.
const STANDBY: &[u8] = b"that runs on a standby";
/// A ReadyForQuery without its status.
const READY: &[u8] = b"Z\0\0\0\x05";

fn faithful(clients: [&[Turn]; 2], events: &[(bool, Event)], site: &std::rc::Rc<Site>) {
    let mut clients = clients.map(|turns| Client::new(site, turns));
    for (who, event) in events {
        clients[usize::from(*who)].happen(*event);
    }
    for client in &mut clients {
        client.finish();
        let (got, expected) = (&client.rig.output, &client.expected);
        // A transaction on a standby that can neither run a statement nor move for it fails, where one server would go on:
        // from there on only the replies are counted.
        let same = memchr::memmem::find(got, STANDBY).map_or(got.len(), |at| {
            let ready = memchr::memmem::rfind(&got[..at], READY);
            ready.map_or(0, |at| at + READY.len() + 1)
        });
        assert!(
            got.get(..same) == expected.get(..same)
                && count(got) == count(expected)
                && (same < got.len() || got.len() == expected.len()),
            "got{}\nexpected{}",
            spell(got),
            spell(expected)
        );
        assert_eq!(client.rig.end, None, "nobody broke the protocol");
        assert!(
            client.rig.is_quiet(),
            "not everything has been answered: {:?}",
            client.rig
        );
    }
}

/// The standbys of [`Site::refusing`] do refuse, and vanish.
#[test]
fn refusals_are_met() {
    let site = Site::refusing();
    let turns = [Turn::Group(vec![Step::Once("select 1")])];
    let ask = |_| {
        let mut client = Client::new(&site, &turns);
        client.finish();
        assert_eq!(spell(&client.rig.output), spell(&client.expected));
        client.rig.bounces
    };
    // The second is a write, and from then on the statement is known for one.
    assert_eq!((0..12).map(ask).sum::<usize>(), 2);
}

/// Groups and pipelines that begin, set and end transactions on standbys which refuse their reads.
#[test]
fn refusals_in_pipelines() {
    let queries = |texts: &[&'static str]| texts.iter().map(|text| Turn::Query(text)).collect();
    let group = |steps: &[Step]| Turn::Group(steps.to_vec());
    let begin = Step::Once("begin read only");
    let cases: Vec<Vec<Turn>> = vec![
        queries(&["begin read only", "set work_mem = '1MB'", "select 1/0"]),
        queries(&[
            "begin read only",
            "set work_mem = '1MB'",
            "select 1",
            "select 2",
        ]),
        queries(&[
            "begin read only",
            "select 1",
            "select 2",
            "select a from t",
            "commit",
        ]),
        vec![group(&[Step::Once("select 1"), begin.clone()])],
        vec![group(&[
            begin.clone(),
            Step::Once("select 1"),
            Step::Once("select 2"),
        ])],
        vec![group(&[
            Step::Parse("s1", "begin read only"),
            Step::Parse("s1", "select 1"),
        ])],
        vec![group(&[begin.clone(), Step::Execute("", 0)])],
        vec![
            group(&[Step::Once(""), begin.clone()]),
            group(&[Step::Once("commit"), Step::CloseStatement("s1")]),
            Turn::Query("select 1"),
        ],
        vec![
            group(&[Step::Parse("s1", "begin read only"), Step::ClosePortal("")]),
            Turn::Query("select 1"),
        ],
        vec![
            group(&[
                Step::Run("s1"),
                Step::Parse("s1", "begin read only"),
                Step::Run("s1"),
            ]),
            group(&[Step::Once("select 1")]),
            Turn::Query("begin"),
        ],
        vec![
            group(&[Step::Parse("s3", "begin read only"), Step::Run("s3")]),
            Turn::Query("commit"),
            group(&[Step::Parse("s1", "select 1")]),
        ],
        vec![
            group(&[begin.clone(), Step::Bind("", "s1")]),
            group(&[Step::Once("bad"), Step::Once("begin")]),
        ],
        vec![
            group(&[Step::Parse("s1", "begin read only"), Step::Run("s1")]),
            Turn::Query("savepoint a"),
            Turn::Query("select 1"),
        ],
        vec![
            group(&[Step::Parse("s1", "begin read only"), Step::Run("s1")]),
            group(&[Step::Once("select 1"), Step::Parse("s1", "savepoint a")]),
        ],
        vec![
            Turn::Query("begin read only"),
            Turn::Query("set work_mem = '1MB'"),
            group(&[Step::Once("select 1"), Step::Once("commit")]),
            Turn::Query("select 1"),
        ],
        vec![
            Turn::Query("begin read only"),
            group(&[
                Step::Parse("s1", "select 1"),
                Step::Run("s1"),
                Step::Once("commit"),
                Step::Run("s1"),
            ]),
            group(&[Step::Run("s1"), Step::Once("commit")]),
        ],
    ];
    for turns in &cases {
        // From its first answer on, a standby refuses one in three.
        let site = Site::refusing();
        for _ in 0..12 {
            faithful([turns, &[]], &[], &site);
        }
        // Each of its refusals, met by somebody else's connection.
        let turns = [&turns[..], &queries(&["prepare p as select 1", "rollback"])].concat();
        faithful([&turns, &turns], &[], &Site::refusing());
    }
}

/// What long runs of the cases below have found.
#[test]
fn what_was_found() {
    let group = |steps: &[Step]| Turn::Group(steps.to_vec());
    let copy = Turn::Copy {
        synced: false,
        fails: false,
    };
    let set = || Step::Once("set work_mem = '1MB'");
    let read_only = [
        group(&[
            Step::Parse("s4", ""),
            Step::Once("begin read only"),
            Step::Bind("c1", "s4"),
        ]),
        Turn::Query("select 1/0"),
    ];
    faithful([&[], &read_only], &[], &Site::refusing());
    let skipped = [
        Turn::Query("prepare p as select 1"),
        group(&[
            Step::Bind("", "s1"),
            Step::Query("select 1/0"),
            Step::Query("select nextval('s')"),
        ]),
    ];
    faithful(
        [std::slice::from_ref(&copy), &skipped],
        &[],
        &Site::new(64, false),
    );
    let ended = [
        group(&[
            Step::Parse("s1", "select 1"),
            Step::CloseStatement("s1"),
            Step::Once("select 1"),
        ]),
        copy.clone(),
        group(&[set(), Step::Run("s1"), set(), Step::Once("commit")]),
        group(&[set(), Step::Once("commit")]),
    ];
    let events = [
        Event::Client(188),
        Event::Client(65),
        Event::Client(186),
        Event::Server(104),
        Event::Server(8),
        Event::Server(9),
        Event::Client(1),
    ];
    let events = events.map(|event| (false, event));
    faithful([&ended, &[]], &events, &Site::new(64, false));
    let copied = [
        group(&[
            Step::Parse("s4", "select a from t"),
            Step::Parse("s4", "select 1"),
            Step::Parse("s4", "savepoint a"),
        ]),
        Turn::Query("begin; update t; commit"),
        copy.clone(),
    ];
    let events = [
        Event::Client(37),
        Event::Client(125),
        Event::Server(6),
        Event::Server(7),
        Event::Server(7),
        Event::Server(57),
        Event::Client(1),
    ];
    let events = events.map(|event| (false, event));
    faithful([&copied, &[]], &events, &Site::new(4096, true));
    let skipped = [
        Turn::Copy {
            synced: true,
            fails: false,
        },
        group(&[Step::Run("s2"), Step::Once("select 1")]),
        group(&[Step::Run("")]),
    ];
    faithful([&[], &skipped], &[], &Site::new(4096, true));
    let brought = [
        group(&[Step::Parse("", "select 1"), Step::Once("commit")]),
        copy,
        group(&[Step::Bind("", ""), Step::Bind("", "")]),
    ];
    let site = Site::refusing();
    for _ in 0..12 {
        faithful([&brought, &[]], &[], &site);
    }
}

/// Some seconds' worth of cases, the same each time; PROPTEST_CASES asks for so many others.
fn config() -> ProptestConfig {
    let said = std::env::var("PROPTEST_CASES").ok();
    let said: Option<u32> = said.and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: said.unwrap_or(300),
        rng_seed: match said {
            Some(_) => RngSeed::Random,
            None => RngSeed::Fixed(3),
        },
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Reads go to standbys.
    #[test]
    fn as_one_server(
        one in vec(turn(Flow::Whole), 0..8),
        two in vec(turn(Flow::Whole), 0..8),
        events in vec((any::<bool>(), event()), 0..60),
    ) {
        let (one, two) = (without_leftovers(one), without_leftovers(two));
        faithful([&one, &two], &events, &Site::new(4096, true));
    }

    /// Standbys refuse what they are given, or vanish: nobody hears of it.
    #[test]
    fn standbys_refuse(
        one in vec(turn(Flow::Whole), 0..8),
        two in vec(turn(Flow::Whole), 0..8),
        events in vec((any::<bool>(), event()), 0..60),
    ) {
        let (one, two) = (without_leftovers(one), without_leftovers(two));
        faithful([&one, &two], &events, &Site::refusing());
    }

    /// Groups are cut by Flush, are sent before they are whole, and have a Query inside.
    #[test]
    fn in_pieces(
        one in vec(turn(Flow::Any), 0..8),
        two in vec(turn(Flow::Any), 0..8),
        events in vec((any::<bool>(), event()), 0..60),
    ) {
        let (one, two) = (without_leftovers(one), without_leftovers(two));
        faithful([&one, &two], &events, &Site::new(64, false));
    }

    /// Servers vanish, plans become stale, roles are dropped. A session either ends, where it had something on that
    /// server, or every Query and every Sync has its ReadyForQuery.
    #[test]
    fn accidents(
        one in vec(turn(Flow::Flushed), 0..8),
        two in vec(turn(Flow::Flushed), 0..8),
        events in vec((any::<bool>(), prop_oneof![
            8 => event().prop_map(Accident::Event),
            1 => Just(Accident::Lost),
            1 => Just(Accident::Altered),
            1 => Just(Accident::Dropped),
        ]), 0..60),
        standbys in any::<bool>(),
    ) {
        let site = Site::new(if standbys { 4096 } else { 64 }, standbys);
        let mut clients = [&one, &two].map(|turns| Client::new(&site, turns));
        for (who, event) in events {
            let client = &mut clients[usize::from(who)];
            match event {
                Accident::Event(event) => client.happen(event),
                Accident::Lost => { client.rig.lose(); }
                Accident::Altered => client.rig.peer().into_iter().for_each(Peer::make_stale),
                Accident::Dropped => client.rig.peer().into_iter().for_each(|peer| peer.refuses_roles = true),
            }
        }
        for client in &mut clients {
            client.finish();
            match client.rig.end {
                Some(End::Cut) => {}
                Some(End::Lost) => prop_assert!(count(&client.rig.output) <= count(&client.expected)),
                Some(end) => prop_assert!(false, "the session has {end:?}"),
                None => {
                    prop_assert_eq!(count(&client.rig.output), count(&client.expected), "{}", spell(&client.rig.output));
                    prop_assert!(client.rig.is_quiet(), "everything has been answered");
                }
            }
        }
    }
}
