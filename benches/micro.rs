//! What the proxy's own code costs for each message, without sockets: the part of a transaction that is ours.
//!
//! `cargo bench --bench micro`, with a part of a name to run less. The budget for all of it together is 2 to 3 µs for
//! each transaction; `make bench` measures the whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pgweir::cluster::{Lsn, NodeState, Position, Sample, Timeline, View};
use pgweir::link::{Link, Params, Statements};
use pgweir::route::{Decision, Floor, Need, Policy, decide};
use pgweir::session::{Context, Next, Session};
use pgweir::sql::{Call, Class, Classifier, Lexing};
use pgweir::wire::frame::put_header;

fn main() {
    divan::main();
}

// ── sql ──

/// A statement, and what the table calls it.
struct Statement(&'static str, &'static str);

impl std::fmt::Display for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Statements of pgbench's scripts and of an ORM.
const OLTP: &[Statement] = &[
    Statement("begin", "BEGIN"),
    Statement("commit", "COMMIT"),
    Statement("set", "SET work_mem = '16MB'"),
    Statement(
        "select",
        "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;",
    ),
    Statement(
        "update",
        "UPDATE pgbench_accounts SET abalance = abalance + -42 WHERE aid = 4711;",
    ),
    Statement(
        "insert",
        "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) \
         VALUES (1, 2, 3, 4, CURRENT_TIMESTAMP);",
    ),
    Statement(
        "orm_select",
        "SELECT \"orders\".* FROM \"orders\" \
         INNER JOIN \"customers\" ON \"customers\".\"id\" = \"orders\".\"customer_id\" \
         WHERE \"customers\".\"email\" = 'a@example.com' AND \"orders\".\"state\" IN ('open', 'paid') \
         ORDER BY \"orders\".\"created_at\" DESC LIMIT 20 OFFSET 0",
    ),
];

const CACHE: u64 = 4 << 20;

fn classify(classifier: &Classifier, Statement(_, text): &Statement) -> Class {
    classifier.classify(
        black_box(*text).as_bytes(),
        Lexing::default(),
        &pgweir::sql::catalog::TABLES,
    )
}

/// The shape has been seen before, as nearly always.
#[divan::bench(args = OLTP)]
fn classify_seen(bencher: Bencher, statement: &Statement) {
    let classifier = Classifier::new(CACHE);
    classify(&classifier, statement);
    bencher.bench_local(|| classify(&classifier, statement));
}

/// The same, and it is counted by its shape.
#[divan::bench(args = OLTP)]
fn classify_counted(bencher: Bencher, statement: &Statement) {
    let classifier = Classifier::new(CACHE).with_shapes(1000);
    let call = Call {
        standby: true,
        nanoseconds: 50_000,
        bytes: 100,
    };
    bencher.bench_local(|| {
        let class = classify(&classifier, statement);
        classifier.shapes().count(class.shape, black_box(call));
    });
}

/// The shape is new: what starts like a read is parsed.
#[divan::bench(args = OLTP)]
fn classify_new(bencher: Bencher, statement: &Statement) {
    bencher
        .with_inputs(|| Classifier::new(1 << 16))
        .bench_local_refs(|classifier| classify(classifier, statement));
}

// ── session ──

/// What sessions share.
struct Shared {
    classifier: Classifier,
    statements: Statements,
}

impl Shared {
    fn new() -> Shared {
        Shared {
            classifier: Classifier::new(CACHE),
            statements: Statements::new(CACHE),
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            catalog: &pgweir::sql::catalog::TABLES,
            classifier: &self.classifier,
            statements: &self.statements,
            pipeline_buffer: 1 << 20,
            max_message: 1 << 30,
        }
    }
}

fn message(tag: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut bytes = Vec::new();
    put_header(&mut bytes, tag, body.len());
    bytes.extend_from_slice(&body);
    bytes
}

fn session() -> Session {
    Session::new(Arc::new(Params::default()), Lexing::default(), false)
}

/// One unit of a client: judged, forwarded, answered. Ends where it began.
struct Transaction {
    request: Vec<u8>,
    reply: Vec<u8>,
}

const SELECT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;\0";
const SELECT_PARAMETER: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0";

/// One row of an integer, its completion, and the end.
fn result(front: &[u8]) -> Vec<u8> {
    let description = b"\0\x01abalance\0\0\0\x40\0\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
    [
        front,
        &message(b'T', &[description]),
        &message(b'D', &[b"\0\x01\0\0\0\x010"]),
        &message(b'C', &[b"SELECT 1\0"]),
        &message(b'Z', &[b"I"]),
    ]
    .concat()
}

impl Transaction {
    /// `pgbench -M simple`.
    fn simple() -> Transaction {
        Transaction {
            request: message(b'Q', &[SELECT]),
            reply: result(b""),
        }
    }

    /// `pgbench -M extended`: Parse of the unnamed statement, Bind, Describe, Execute, Sync.
    fn extended() -> Transaction {
        Transaction {
            request: [
                message(b'P', &[b"\0", SELECT_PARAMETER, b"\0\0"]),
                Self::bound(b""),
            ]
            .concat(),
            reply: result(b"1\0\0\0\x042\0\0\0\x04"),
        }
    }

    /// `pgbench -M prepared`, after its first transaction: Bind, Describe, Execute, Sync.
    fn prepared() -> Transaction {
        Transaction {
            request: Self::bound(b"P_0"),
            reply: result(b"2\0\0\0\x04"),
        }
    }

    fn bound(name: &[u8]) -> Vec<u8> {
        [
            message(b'B', &[b"\0", name, b"\0\0\0\0\x01\0\0\0\x044711\0\0"]),
            message(b'D', &[b"P\0"]),
            message(b'E', &[b"\0\0\0\0\0"]),
            message(b'S', &[]),
        ]
        .concat()
    }

    /// The Parse of [`Transaction::prepared`]'s statement.
    fn prepare() -> Transaction {
        Transaction {
            request: [
                message(b'P', &[b"P_0\0", SELECT_PARAMETER, b"\0\0"]),
                message(b'S', &[]),
            ]
            .concat(),
            reply: [message(b'1', &[]), message(b'Z', &[b"I"])].concat(),
        }
    }

    fn run(&self, session: &mut Session, link: &mut Link, shared: &Shared, out: &mut Vec<u8>) {
        out.clear();
        let context = shared.context();
        match session.next(black_box(&self.request), None, context, out) {
            Next::Place { len, class } => {
                session.begin(link, Some((&self.request[..len], class)), out);
                session.forward(&self.request[..len], Some(class), link, context, out);
            }
            other => panic!("a whole unit can be placed, not {other:?}"),
        }
        out.clear();
        session
            .receive(link, black_box(&self.reply), false, out)
            .expect("the reply is what is owed");
        assert!(link.reusable(), "the unit is over");
    }
}

fn bench_transaction(bencher: Bencher, transaction: &Transaction, before: Option<&Transaction>) {
    let shared = Shared::new();
    let (mut session, mut link, mut out) = (session(), Link::new(200), Vec::new());
    if let Some(before) = before {
        before.run(&mut session, &mut link, &shared, &mut out);
    }
    bencher.bench_local(|| transaction.run(&mut session, &mut link, &shared, &mut out));
}

#[divan::bench]
fn transaction_simple(bencher: Bencher) {
    bench_transaction(bencher, &Transaction::simple(), None);
}

#[divan::bench]
fn transaction_extended(bencher: Bencher) {
    bench_transaction(bencher, &Transaction::extended(), None);
}

#[divan::bench]
fn transaction_prepared(bencher: Bencher) {
    bench_transaction(
        bencher,
        &Transaction::prepared(),
        Some(&Transaction::prepare()),
    );
}

/// A chunk of a large result, as one read brings it: nothing but headers is looked at. The argument is the length of a
/// row.
#[divan::bench(args = [16, 100, 1000])]
fn rows_of_64_kib(bencher: Bencher, row: usize) {
    const CHUNK: usize = 64 * 1024;
    let one = message(b'D', &[&vec![0; row]]);
    let chunk: Vec<u8> = one.iter().copied().cycle().take(CHUNK).collect();
    let whole = CHUNK / one.len() * one.len();
    let shared = Shared::new();
    let (mut session, mut link, mut out) = (session(), Link::new(200), Vec::new());
    let query = Transaction::simple();
    match session.next(&query.request, None, shared.context(), &mut out) {
        Next::Place { len, class } => {
            session.forward(
                &query.request[..len],
                Some(class),
                &mut link,
                shared.context(),
                &mut out,
            );
        }
        other => panic!("a whole Query can be placed, not {other:?}"),
    }
    bencher.counter(BytesCount::new(whole)).bench_local(|| {
        let received = session
            .receive(&mut link, black_box(&chunk[..whole]), false, &mut out)
            .expect("rows are owed");
        assert_eq!(received.verbatim, Some(0..whole), "rows are not copied");
    });
}

// ── route ──

/// A primary and two standbys that have replayed everything.
fn view(now: Instant) -> View {
    let mut view = View::empty(3);
    let position = Position {
        timeline: Timeline(1),
        lsn: Lsn(1 << 30),
    };
    for (at, node) in view.nodes.iter_mut().enumerate() {
        node.state = if at == 0 {
            NodeState::Primary
        } else {
            NodeState::Standby
        };
        node.eligible = at > 0;
        node.position = Some(position);
        node.seen = Some(now);
    }
    view.primary = Some(0);
    view.timeline = Some(position.timeline);
    view.samples = Box::new([Sample {
        sent: now,
        position,
    }]);
    view.silence_after = Duration::from_secs(3600);
    view
}

fn bench_decide(bencher: Bencher, need: Need, floor: impl Fn(Instant) -> Floor) {
    let now = Instant::now();
    let view = view(now);
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        let mut floor = floor(now);
        let policy = black_box(Policy::default());
        let decision = decide(need, policy, &mut floor, black_box(&view), now, |_| 3, turn);
        assert!(
            matches!(decision, Decision::Node { .. }),
            "every node is up"
        );
        decision
    });
}

#[divan::bench]
fn decide_read(bencher: Bencher) {
    bench_decide(bencher, Need::Standby, |_| Floor::default());
}

/// The first read after a write: its floor is looked up among the samples.
#[divan::bench]
fn decide_read_after_write(bencher: Bencher) {
    bench_decide(bencher, Need::Standby, |now| {
        let mut floor = Floor::default();
        floor.wrote(now);
        floor
    });
}

#[divan::bench]
fn decide_write(bencher: Bencher) {
    bench_decide(bencher, Need::Primary, |_| Floor::default());
}
