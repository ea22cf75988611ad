//! Of the reads that an application in SQLAlchemy makes outside of transactions that may write, nine in ten run on
//! standbys, and every page of it shows what it shows straight at the primary.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgweir::testbed::{Cluster, Node, RawClient, request};

use crate::support::{Rig, logged_errors, report, run};

/// Of the reads outside of read-write transactions, so many in a hundred must have run on the standbys.
const SHARE: usize = 90;

/// Below this, a share says little.
const LEAST: usize = 2_000;

#[test]
fn reads_of_an_orm_go_to_the_standbys() {
    // What ran where, and in which kind of transaction, is taken from the nodes' logs.
    let logging = Cluster::builder()
        .standbys(2)
        .setting("log_statement", "all")
        .setting("log_line_prefix", "%m [%p] %u %e ");
    let rig = Rig::with(logging, |config| {
        config.admin.users = vec!["postgres".to_owned()];
        // As without a line of configuration: it is for how long a session's reads stay behind what it wrote.
        config.clusters[0].monitor.interval = Duration::from_millis(50);
    });
    let primary = rig.cluster.primary();
    for statement in ["CREATE ROLE shop LOGIN", "CREATE DATABASE shop OWNER shop"] {
        primary.execute(statement).unwrap();
    }
    let [straight, proxied] = [primary.url("shop"), rig.url("shop")].map(|url| of_shop(&url));
    shop(&straight, "create");
    rig.cluster.wait_caught_up().unwrap();
    rig.learn("shop");

    let expected = shop(&straight, "walk");
    let before: Vec<usize> = rig.cluster.nodes().iter().map(length).collect();
    let shown = shop(&proxied, "walk");
    for (shown, expected) in shown.lines().zip(expected.lines()) {
        assert_eq!(shown, expected);
    }
    assert_eq!(shown.lines().count(), expected.lines().count());
    shop(&proxied, "trade");

    let nodes = rig.cluster.nodes().iter().zip(before);
    let tallies: Vec<Tally> = nodes.map(|(node, from)| Tally::of(node, from)).collect();
    let [on_primary, on_standbys @ ..] = tallies.as_slice() else {
        panic!("a cluster has a primary");
    };
    let there: usize = on_standbys.iter().map(|tally| tally.outside.len()).sum();
    let here = on_primary.outside.len();
    let total = here + there;
    report(&format!(
        "{there} of {total} reads outside of read-write transactions on standbys; {} reads in read-write transactions",
        on_primary.inside
    ));
    let unmoved = unmoved(&rig, &on_primary.outside);
    for ((reason, detail), (count, example)) in &unmoved {
        report(&format!("{count} × {reason} {detail}: {example}"));
    }
    let held_back = rig.metric(
        "pgweir_routed_statements_total",
        &[("target", "primary"), ("reason", "read_your_writes")],
    );
    report(&format!(
        "{held_back} units stayed behind what their session had written"
    ));
    assert!(total >= LEAST, "{total} reads");
    assert!(there * 100 >= total * SHARE, "{there} of {total}");
    // Nothing but reads was there, and both standbys had their part.
    for (tally, node) in on_standbys.iter().zip(rig.cluster.standbys()) {
        assert_eq!((tally.inside, &tally.others), (0, &Vec::new()));
        assert_eq!(logged_errors(node, "25006"), 0, "{}", node.name());
        assert!(tally.outside.len() * 5 >= there, "{}", node.name());
    }
    // What stays on the primary in a session that has not written: catalogs, and settings that tell who is primary.
    let reasons: BTreeSet<&str> = unmoved.keys().map(|(reason, _)| reason.as_str()).collect();
    assert!(
        reasons.is_subset(&BTreeSet::from(["catalog", "session", "read"])),
        "{reasons:?}"
    );
    assert!(!reasons.contains("read") || held_back > 0.0);
    assert!(on_primary.inside > 0 && !on_primary.others.is_empty());
    assert_eq!(rig.metric("pgweir_standby_refusals_total", &[]), 0.0);
}

/// The same URL for the shop's own user, by which the logs tell its statements from others.
fn of_shop(url: &str) -> String {
    url.replace("//postgres@", "//shop@")
}

fn shop(url: &str, verb: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/drivers");
    run(Command::new(script).args(["run", "shop", url, verb])).0
}

fn length(node: &Node) -> usize {
    node.log().expect("a node has a log").len()
}

/// What the shop had a node run.
#[derive(Default)]
struct Tally {
    /// Reads in no transaction, or in one that is read-only.
    outside: Vec<String>,
    /// Reads in transactions that may write.
    inside: usize,
    /// What is neither a read, nor about a transaction, a cursor or a setting.
    others: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Block {
    ReadOnly,
    ReadWrite,
}

impl Tally {
    /// Of what a node's log has behind this place.
    fn of(node: &Node, from: usize) -> Tally {
        let log = node.log().expect("a node has a log");
        let mut tally = Tally::default();
        // By server process: the proxy gives a connection to nobody else while a transaction is open.
        let mut blocks: HashMap<String, Block> = HashMap::new();
        for (process, statement) in statements(&log[from..]) {
            let words = statement.to_ascii_uppercase();
            let starts = |all: &[&str]| all.iter().any(|word| words.starts_with(word));
            let block = blocks.get(&process).copied();
            if starts(&["BEGIN", "START TRANSACTION"]) {
                let block = if words.contains("READ ONLY") {
                    Block::ReadOnly
                } else {
                    Block::ReadWrite
                };
                blocks.insert(process, block);
            } else if starts(&["COMMIT", "ROLLBACK"]) && !starts(&["ROLLBACK TO"]) {
                blocks.remove(&process);
            } else if is_read(&words) {
                match block {
                    Some(Block::ReadWrite) => tally.inside += 1,
                    Some(Block::ReadOnly) | None => tally.outside.push(statement),
                }
            } else if !starts(&["FETCH", "CLOSE", "SET", "RESET", "DISCARD", "DEALLOCATE"]) {
                tally.others.push(statement);
            }
        }
        tally
    }
}

fn is_read(words: &str) -> bool {
    let asks = ["SELECT", "WITH", "VALUES", "TABLE", "SHOW", "DECLARE"];
    asks.iter().any(|word| words.starts_with(word))
        && !words.contains(" FOR SHARE")
        && !words.contains(" FOR UPDATE")
}

/// The shop's statements in a log, each with the server process that ran it. Further lines of one begin with a tab.
fn statements(log: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in log.lines() {
        if let Some(more) = line.strip_prefix('\t') {
            if let (true, Some((_, text))) = (open, found.last_mut()) {
                text.push('\n');
                text.push_str(more);
            }
            continue;
        }
        let statement = statement(line);
        open = statement.is_some();
        found.extend(statement.map(|(process, text)| (process.to_owned(), text.to_owned())));
    }
    found
}

fn statement(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(" [")?;
    let (process, rest) = rest.split_once("] shop ")?;
    let (_, said) = rest.split_once(" LOG:  ")?;
    let text = match said.strip_prefix("statement: ") {
        Some(text) => text,
        None => said.strip_prefix("execute ")?.split_once(": ")?.1,
    };
    Some((process, text.trim_start()))
}

/// How many reads did not reach a standby, by the console's words for why, with an example of each. A reason of `read` is
/// one that would go there in a session that has not written.
fn unmoved(rig: &Rig, statements: &[String]) -> BTreeMap<(String, String), (usize, String)> {
    // The console speaks of databases that have clients.
    let _client = rig.client("shop");
    let mut console = rig.client("pgweir");
    let mut known: HashMap<&str, (String, String)> = HashMap::new();
    let mut counts = BTreeMap::new();
    for statement in statements {
        let why = known
            .entry(statement)
            .or_insert_with(|| explain(&mut console, statement));
        let example = || statement.split_whitespace().collect::<Vec<_>>().join(" ");
        counts
            .entry(why.clone())
            .or_insert_with(|| (0, example()))
            .0 += 1;
    }
    counts
}

/// Reason and detail of EXPLAIN ROUTE, for the shop's database.
fn explain(console: &mut RawClient, statement: &str) -> (String, String) {
    let sql = format!("EXPLAIN ROUTE {statement}");
    console.send(&request::query(sql)).unwrap();
    let messages = console.recv_until_ready().unwrap();
    let columns = messages[0].column_names().unwrap();
    let at = |name: &str| columns.iter().position(|column| column == name).unwrap();
    let mut rows = messages
        .iter()
        .filter(|message| message.tag == b'D')
        .map(|message| message.text_row().unwrap());
    let row = rows
        .find(|row| row[at("database")].as_deref() == Some("shop"))
        .unwrap();
    let of = |name: &str| row[at(name)].clone().unwrap_or_default();
    (of("reason"), of("detail"))
}
