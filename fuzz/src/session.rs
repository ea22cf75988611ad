//! Sequences of events: a client's messages and a server's replies, cut anywhere, in any order.

use bolero::TypeGenerator;
use pgweir::wire::frame;

use crate::rig::{Rig, Site, tags};

/// What happens next.
#[derive(Clone, Debug, TypeGenerator)]
enum Event {
    /// The client sends so many bytes of its stream.
    Client(u8),
    /// The server sends so many bytes of its replies.
    Server(u8),
}

/// What a client sends as one turn, as drivers do.
#[derive(Clone, Debug, TypeGenerator)]
enum Turn {
    Query(u8),
    Group(Vec<Step>),
}

/// A message of an extended-protocol group.
#[derive(Clone, Debug, TypeGenerator)]
enum Step {
    Parse { name: u8, text: u8 },
    Bind { name: u8 },
    DescribeStatement { name: u8 },
    DescribePortal,
    Execute,
    Close { name: u8 },
    Flush,
}

const TEXTS: &[&[u8]] = &[
    b"select 1",
    b"select a from t",
    b"update t set a = 1",
    b"begin",
    b"commit",
    b"rollback",
    b"",
    b"bad",
    b"set work_mem = '1MB'",
    b"set bad",
    b"reset all",
    b"discard all",
    b"deallocate s1",
    b"deallocate all",
    b"listen c",
    b"unlisten *",
    b"drop table t",
    b"prepare p as select 1",
    b"set local x = 1",
    b"select nextval('s')",
    b"begin read only",
    b"select pg_advisory_lock(1)",
    b"create temp table t (a int)",
    b"select 1; select 2",
];
const NAMES: &[&[u8]] = &[b"", b"s1", b"s2", b"s3", b"s4"];

fn pick<'a>(from: &[&'a [u8]], n: u8) -> &'a [u8] {
    from[usize::from(n) % from.len()]
}

fn put(out: &mut Vec<u8>, tag: u8, body: &[&[u8]]) {
    let body = body.concat();
    frame::put_header(out, tag, body.len());
    out.extend_from_slice(&body);
}

impl Turn {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Turn::Query(text) => put(out, b'Q', &[pick(TEXTS, *text), b"\0"]),
            Turn::Group(steps) => {
                for step in steps {
                    step.put(out);
                }
                put(out, b'S', &[]);
            }
        }
    }
}

impl Step {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Step::Parse { name, text } => {
                put(
                    out,
                    b'P',
                    &[pick(NAMES, *name), b"\0", pick(TEXTS, *text), b"\0\0\0"],
                );
            }
            Step::Bind { name } => put(out, b'B', &[b"\0", pick(NAMES, *name), b"\0\0\0\0\0\0\0"]),
            Step::DescribeStatement { name } => put(out, b'D', &[b"S", pick(NAMES, *name), b"\0"]),
            Step::DescribePortal => put(out, b'D', &[b"P\0"]),
            Step::Execute => put(out, b'E', &[b"\0\0\0\0\0"]),
            Step::Close { name } => put(out, b'C', &[b"S", pick(NAMES, *name), b"\0"]),
            Step::Flush => put(out, b'H', &[]),
        }
    }
}

/// A client and servers that keep to the protocol: the servers understand everything that they get, every Query and
/// every Sync is answered by one ReadyForQuery, what the client gets is whole messages, and nothing is left over.
#[test]
fn faithful() {
    bolero::check!()
        .with_type::<(Vec<Turn>, Vec<Event>)>()
        .for_each(|(turns, events)| {
            let mut stream = Vec::new();
            for turn in turns {
                turn.put(&mut stream);
            }
            let mut rig = Rig::new(&Site::new(256, true));
            let mut rest = &stream[..];
            for event in events {
                match event {
                    Event::Client(n) => {
                        let (now, later) = rest.split_at(rest.len().min(usize::from(*n)));
                        rig.client(now);
                        rest = later;
                    }
                    Event::Server(n) => {
                        rig.server(usize::from(*n));
                    }
                }
            }
            rig.client(rest);
            rig.settle();
            assert_eq!(rig.end, None, "nobody broke the protocol");
            assert!(rig.is_quiet(), "everything has been answered");
            let ready = tags(&rig.output).iter().filter(|tag| **tag == b'Z').count();
            assert_eq!(ready, turns.len(), "one ReadyForQuery for each turn");
        });
}

/// A piece of what one side says: of some sense, or of none.
#[derive(Clone, Debug, TypeGenerator)]
enum Noise {
    Turn(Turn),
    Step(Step),
    Message { tag: u8, body: Vec<u8> },
    Known { tag: u8, body: Vec<u8> },
    Bytes(Vec<u8>),
}

/// Message types of clients and of servers.
const CLIENT_TAGS: &[u8] = b"QPBDECHSFXdcf";
const SERVER_TAGS: &[u8] = b"ZECSDTtn123IsGHWdcAVN";

impl Noise {
    fn put(&self, known: &[u8], out: &mut Vec<u8>) {
        match self {
            Noise::Turn(turn) => turn.put(out),
            Noise::Step(step) => step.put(out),
            Noise::Message { tag, body } => put(out, *tag, &[body]),
            Noise::Known { tag, body } => put(out, known[usize::from(*tag) % known.len()], &[body]),
            Noise::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// What one of two sides that keep to nothing says next.
#[derive(Clone, Debug, TypeGenerator)]
enum Hostile {
    Client(Vec<Noise>),
    /// What the server owes, in so many bytes.
    Reply(u8),
    Server(Vec<Noise>),
}

/// No panic, no livelock, nothing forwarded that is no frame, and nothing to the client once a session is over.
#[test]
fn hostile() {
    bolero::check!()
        .with_type::<Vec<Hostile>>()
        .for_each(|events| {
            let mut rig = Rig::new(&Site::new(256, true));
            for event in events {
                let before = rig.output.len();
                let over = rig.end.is_some();
                play(&mut rig, event);
                assert!(!over || rig.output.len() == before, "output after the end");
            }
            rig.settle();
        });
}

fn play(rig: &mut Rig, event: &Hostile) {
    let mut bytes = Vec::new();
    match event {
        Hostile::Client(noise) => {
            for piece in noise {
                piece.put(CLIENT_TAGS, &mut bytes);
            }
            rig.client(&bytes);
        }
        Hostile::Reply(n) => {
            rig.server(usize::from(*n));
        }
        Hostile::Server(noise) => {
            for piece in noise {
                piece.put(SERVER_TAGS, &mut bytes);
            }
            rig.forge(&bytes);
        }
    }
}
