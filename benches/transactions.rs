//! Transactions as clients send them, brought through `session` as `relay` does it, without sockets: for the benches, and
//! for the test that counts allocations.

use std::hint::black_box;
use std::sync::Arc;

use pgweir::link::{Link, Params, Statements};
use pgweir::session::{Context, Next, Session, TransactionDefaults};
use pgweir::sql::catalog::{Catalog, Trust};
use pgweir::sql::{Access, Call, Class, Classifier, Isolation, Lexing};
use pgweir::wire::frame::put_header;
use pgweir::wire::{Status, frontend};

/// What verdicts may take.
pub const CACHE: u64 = 4 << 20;

/// Shapes of statements that are told apart, as by default.
pub const SHAPES: usize = 1000;

/// The catalog of a database with pgbench's tables, an ORM's and many others beside them.
pub fn catalog() -> Catalog {
    let rows: Vec<_> = catalog_rows()
        .into_iter()
        .map(|row| row.map(Some))
        .collect();
    Catalog::build(&rows, &Trust::default()).expect("rows of a catalog")
}

/// The same as the server tells it.
pub fn catalog_rows() -> Vec<[String; 5]> {
    let mut rows: Vec<[String; 5]> = Vec::new();
    let mut add = |kind: &str, detail: &str, name: &str, schema: &str| {
        let id = if schema == "pg_catalog" {
            0
        } else {
            20_000 + rows.len()
        };
        rows.push([kind, detail, &id.to_string(), name, schema].map(str::to_owned));
    };
    for table in ["accounts", "branches", "tellers", "history"] {
        add("r", "rp", &format!("pgbench_{table}"), "public");
    }
    for table in ["orders", "customers"] {
        add("r", "rp", table, "public");
    }
    for n in 0..500 {
        add("r", "rp", &format!("table_{n}"), "app");
        add("r", "vp", &format!("view_{n}"), "app");
        add("f", "vuf-", &format!("function_{n}"), "app");
        add("t", "e", &format!("type_{n}"), "app");
    }
    for operator in ["=", "<", ">", "+", "-", "||", "->>", "@>"] {
        add("O", "-", operator, "pg_catalog");
    }
    rows
}

/// What sessions share.
pub struct Shared {
    pub classifier: Classifier,
    pub statements: Statements,
    pub catalog: Catalog,
}

impl Shared {
    pub fn new() -> Shared {
        Shared {
            classifier: Classifier::new(CACHE).with_shapes(SHAPES),
            statements: Statements::new(CACHE),
            catalog: catalog(),
        }
    }

    pub fn context(&self) -> Context<'_> {
        Context {
            catalog: &self.catalog,
            classifier: &self.classifier,
            statements: &self.statements,
            pipeline_buffer: 1 << 20,
            max_message: 1 << 30,
        }
    }
}

/// One client and the server connection that it is given each time.
pub struct Pair {
    pub session: Session,
    pub link: Link,
    pub out: Vec<u8>,
}

impl Pair {
    pub fn new() -> Pair {
        let defaults = TransactionDefaults {
            isolation: Some(Isolation::ReadCommitted),
            read_only: false,
        };
        let params = Arc::new(Params::default());
        Pair {
            session: Session::new(params, Lexing::default(), false).with_deferred_begin(defaults),
            link: Link::new(200),
            out: Vec::new(),
        }
    }

    /// Judges and forwards one unit of the client. Its class, unless no server has to be asked.
    pub fn send(&mut self, shared: &Shared, request: &[u8]) -> Option<Class> {
        let Pair { session, link, out } = self;
        let context = shared.context();
        out.clear();
        let held = (link.status != Status::Idle).then_some((&*link, false));
        match session.next(black_box(request), held, context, out) {
            Next::Place { len, class } => {
                black_box(session.policy(class));
                out.clear();
                link.bounces = class.access == Access::Read;
                session.begin(link, Some((&request[..len], class)), out);
                session.forward(&request[..len], Some(class), link, context, out);
                Some(class)
            }
            Next::Forward { len, class } => {
                session.forward(&request[..len], class, link, context, out);
                class
            }
            Next::Reply { .. } => None,
            other => panic!("a whole unit goes its way, not {other:?}"),
        }
    }

    /// The server's answer to it.
    pub fn receive(&mut self, shared: &Shared, class: Class, reply: &[u8]) {
        let Pair { session, link, out } = self;
        out.clear();
        let received = session
            .receive(link, black_box(reply), link.bounces, out)
            .expect("the reply is what is owed");
        assert!(received.ended && link.settled(), "the unit is over");
        let call = Call {
            standby: link.bounces,
            nanoseconds: 50_000,
            bytes: reply.len() as u64,
        };
        shared.classifier.shapes().count(class.shape, call);
    }
}

/// What a client sends, a unit at a time, and what the server answers. Ends where it began.
pub struct Transaction(pub Vec<(Vec<u8>, Vec<u8>)>);

const SELECT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;";
const SELECT_PARAMETER: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1;";
const UPDATE: &str = "UPDATE pgbench_accounts SET abalance = abalance + -42 WHERE aid = 4711;";

impl Transaction {
    /// `pgbench -M simple`.
    pub fn simple() -> Transaction {
        Transaction(vec![(query(SELECT), result(b"", b"I"))])
    }

    /// `pgbench -M extended`: Parse of the unnamed statement, Bind, Describe, Execute, Sync.
    pub fn extended() -> Transaction {
        let request = [parse("", SELECT_PARAMETER), bound("")].concat();
        Transaction(vec![(request, result(b"1\0\0\0\x042\0\0\0\x04", b"I"))])
    }

    /// `pgbench -M prepared`, after [`Transaction::prepare`]: Bind, Describe, Execute, Sync.
    pub fn prepared() -> Transaction {
        Transaction(vec![(bound("P_0"), result(b"2\0\0\0\x04", b"I"))])
    }

    /// The Parse of [`Transaction::prepared`]'s statement.
    pub fn prepare() -> Transaction {
        let request = [parse("P_0", SELECT_PARAMETER), message(b'S', &[])].concat();
        let reply = [message(b'1', &[]), message(b'Z', &[b"I"])].concat();
        Transaction(vec![(request, reply)])
    }

    /// A block of simple Queries, which begins with its first statement.
    pub fn block() -> Transaction {
        let begun = [done(b"BEGIN", b"T"), done(b"UPDATE 1", b"T")].concat();
        Transaction(vec![
            (query("BEGIN"), Vec::new()),
            (query(UPDATE), begun),
            (query(SELECT), result(b"", b"T")),
            (query("COMMIT"), done(b"COMMIT", b"I")),
        ])
    }

    pub fn run(&self, pair: &mut Pair, shared: &Shared) {
        for (request, reply) in &self.0 {
            if let Some(class) = pair.send(shared, request) {
                pair.receive(shared, class, reply);
            }
        }
        assert!(pair.link.reusable(), "the transaction is over");
    }
}

pub fn message(tag: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut bytes = Vec::new();
    put_header(&mut bytes, tag, body.len());
    bytes.extend_from_slice(&body);
    bytes
}

/// The end of a statement that returns nothing.
pub fn done(tag: &[u8], status: &[u8]) -> Vec<u8> {
    [message(b'C', &[tag, b"\0"]), message(b'Z', &[status])].concat()
}

fn query(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    frontend::put_query(text.as_bytes(), &mut bytes);
    bytes
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"])
}

fn bound(name: &str) -> Vec<u8> {
    [
        message(
            b'B',
            &[b"\0", name.as_bytes(), b"\0\0\0\0\x01\0\0\0\x044711\0\0"],
        ),
        message(b'D', &[b"P\0"]),
        message(b'E', &[b"\0\0\0\0\0"]),
        message(b'S', &[]),
    ]
    .concat()
}

/// One row of an integer, its completion, and the end.
pub fn result(front: &[u8], status: &[u8]) -> Vec<u8> {
    let description = b"\0\x01abalance\0\0\0\x40\0\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
    [
        front,
        &message(b'T', &[description]),
        &message(b'D', &[b"\0\x01\0\0\0\x010"]),
        &message(b'C', &[b"SELECT 1\0"]),
        &message(b'Z', &[status]),
    ]
    .concat()
}
