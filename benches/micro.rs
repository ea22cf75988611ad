//! What the proxy's own code costs for each message, without sockets: the part of a transaction that is ours.
//!
//! `cargo bench --bench micro`, with a part of a name to run less. The budget for all of it together is 2 to 3 µs for
//! each transaction; `make bench` measures the whole.

mod transactions;

use std::time::{Duration, Instant};

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pgweir::cluster::{Lsn, NodeState, Position, Readable, Sample, Timeline, View};
use pgweir::link::Link;
use pgweir::metrics::{Labels, Metrics};
use pgweir::route::{Affinity, Decision, Floor, Need, Policy, decide};
use pgweir::sql::catalog::Catalog;
use pgweir::sql::{Call, Class, Classifier, Lexing};
use pgweir::wire::frame::{MAX_SERVER_BODY, header};
use transactions::{CACHE, Pair, SHAPES, Shared, Transaction, catalog, message};

/// The table shows what each line allocates, if it does.
#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}

// ── wire ──

/// Messages as one read brings them.
struct Read(&'static str, Vec<u8>);

impl std::fmt::Display for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

fn reads() -> impl Iterator<Item = Read> {
    let (request, reply) = Transaction::extended().0.remove(0);
    let rows = message(b'D', &[&[0; 100]]).repeat(600);
    [("request", request), ("reply", reply), ("600_rows", rows)]
        .into_iter()
        .map(|(name, bytes)| Read(name, bytes))
}

/// From header to header, which is all that is looked at of most messages.
#[divan::bench(args = reads())]
fn frames(bencher: Bencher, Read(_, bytes): &Read) {
    bencher
        .counter(BytesCount::of_slice(bytes))
        .bench_local(|| {
            let (mut at, mut tags) = (0, 0u32);
            while let Ok(Some(header)) = header(&black_box(bytes)[at..], MAX_SERVER_BODY) {
                at += header.total();
                tags += u32::from(header.tag);
            }
            assert_eq!(at, bytes.len(), "whole messages");
            tags
        });
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

fn classify(classifier: &Classifier, catalog: &Catalog, Statement(_, text): &Statement) -> Class {
    classifier.classify(black_box(*text).as_bytes(), Lexing::default(), catalog)
}

/// The shape has been seen before, as nearly always.
#[divan::bench(args = OLTP)]
fn classify_seen(bencher: Bencher, statement: &Statement) {
    let (classifier, catalog) = (Classifier::new(CACHE).with_shapes(SHAPES), catalog());
    classify(&classifier, &catalog, statement);
    bencher.bench_local(|| classify(&classifier, &catalog, statement));
}

/// The same with another number in it, as clients send it that write their literals.
#[divan::bench]
fn classify_alike(bencher: Bencher) {
    let (classifier, catalog) = (Classifier::new(CACHE).with_shapes(SHAPES), catalog());
    let select = |aid: u32| format!("SELECT abalance FROM pgbench_accounts WHERE aid = {aid};");
    let texts: Vec<String> = (1..=100).map(|n| select(n * 4711)).collect();
    let classify = |text: &String| {
        classifier.classify(black_box(text).as_bytes(), Lexing::default(), &catalog)
    };
    let _: Vec<Class> = texts.iter().map(classify).collect();
    let mut turn = texts.iter().cycle();
    bencher.bench_local(|| turn.next().map(classify));
}

/// The same, and it is counted by its shape.
#[divan::bench(args = OLTP)]
fn classify_counted(bencher: Bencher, statement: &Statement) {
    let (classifier, catalog) = (Classifier::new(CACHE).with_shapes(SHAPES), catalog());
    let call = Call {
        standby: true,
        nanoseconds: 50_000,
        bytes: 100,
    };
    bencher.bench_local(|| {
        let class = classify(&classifier, &catalog, statement);
        classifier.shapes().count(class.shape, black_box(call));
    });
}

/// The shape is new: what starts like a read is parsed.
#[divan::bench(args = OLTP)]
fn classify_new(bencher: Bencher, statement: &Statement) {
    let catalog = catalog();
    bencher
        .with_inputs(|| Classifier::new(1 << 16).with_shapes(16))
        .bench_local_refs(|classifier| classify(classifier, &catalog, statement));
}

/// A Parse whose content has been seen before, by the catalog as it is.
#[divan::bench]
fn parse_seen(bencher: Bencher) {
    const CONTENT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0\0\0";
    let shared = Shared::new();
    let classify = || {
        let text = &CONTENT[..CONTENT.len() - 3];
        let Shared {
            classifier,
            catalog,
            ..
        } = &shared;
        classifier.classify(text, Lexing::default(), catalog)
    };
    let epoch = shared.catalog.epoch();
    bencher.bench_local(|| {
        let statement = shared.statements.intern(black_box(CONTENT), classify);
        statement.class_under(black_box(epoch), classify)
    });
}

// ── session ──

fn bench_transaction(bencher: Bencher, transaction: &Transaction, before: Option<&Transaction>) {
    let (shared, mut pair) = (Shared::new(), Pair::new());
    if let Some(before) = before {
        before.run(&mut pair, &shared);
    }
    transaction.run(&mut pair, &shared);
    bencher.bench_local(|| transaction.run(&mut pair, &shared));
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

/// BEGIN, UPDATE, SELECT, COMMIT.
#[divan::bench]
fn transaction_block(bencher: Bencher) {
    bench_transaction(bencher, &Transaction::block(), None);
}

/// One Bind, Describe, Execute and Sync on their way to a server connection, which is asked for the first time.
fn bench_bind(bencher: Bencher, is_held: bool) {
    let shared = Shared::new();
    let bound = Transaction::prepared().0.remove(0).0;
    let prepared = || {
        let mut pair = Pair::new();
        Transaction::prepare().run(&mut pair, &shared);
        if !is_held {
            pair.link = Link::new(200);
        }
        pair
    };
    bencher
        .with_inputs(prepared)
        .bench_local_refs(|pair| pair.send(&shared, &bound));
}

/// The statement's name becomes the one that it has there.
#[divan::bench]
fn bind_renamed(bencher: Bencher) {
    bench_bind(bencher, true);
}

/// The statement is unknown there: its Parse goes in front.
#[divan::bench]
fn bind_elsewhere(bencher: Bencher) {
    bench_bind(bencher, false);
}

/// A chunk of a large result, as one read brings it: nothing but headers is looked at. The argument is the length of a
/// row.
#[divan::bench(args = [16, 100, 1000])]
fn rows_of_64_kib(bencher: Bencher, row: usize) {
    const CHUNK: usize = 64 * 1024;
    let one = message(b'D', &[&vec![0; row]]);
    let chunk: Vec<u8> = one.iter().copied().cycle().take(CHUNK).collect();
    let whole = CHUNK / one.len() * one.len();
    let (shared, mut pair) = (Shared::new(), Pair::new());
    pair.send(&shared, &Transaction::simple().0[0].0);
    let Pair { session, link, out } = &mut pair;
    bencher.counter(BytesCount::new(whole)).bench_local(|| {
        let received = session
            .receive(link, black_box(&chunk[..whole]), true, out)
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
    view.readable = Readable::of(&view.nodes, view.silence_after);
    view
}

fn bench_decide(bencher: Bencher, need: Need, floor: impl Fn(Instant) -> Floor) {
    let now = Instant::now();
    let view = view(now);
    let mut affinity = Affinity::default();
    affinity.took(1);
    bencher.bench_local(|| {
        let mut floor = floor(now);
        let policy = black_box(Policy::default());
        let tie = |equals, requests| black_box(affinity).choose(equals, requests, || 0);
        let decision = decide(need, policy, &mut floor, black_box(&view), now, |_| 0, tie);
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

// ── metrics ──

/// All that one transaction counts.
#[divan::bench]
fn count_transaction(bencher: Bencher) {
    let metrics = Metrics::new(&Labels {
        version: "0",
        nodes: &[("main", "pg1"), ("main", "pg2"), ("main", "pg3")],
        roles: &["primary", "standby"],
        targets: &["primary", "standby"],
        reasons: &["read", "class"],
        classes: &[],
        hints: &[],
        probe_failures: &[],
        pins: &[],
        login_failures: &[],
        bounces: &[],
        cancel_results: &[],
        timeouts: &[],
        sqlstates: &[],
    });
    bencher.bench_local(|| {
        let (target, node) = black_box((1, 2));
        metrics.client_received_bytes.inc_by(black_box(62));
        metrics.routed(target, black_box(0)).inc();
        if let Some(counters) = metrics.node(node) {
            counters.statements.at(target).inc();
        }
        metrics.client_sent_bytes.inc_by(black_box(78));
    });
}
