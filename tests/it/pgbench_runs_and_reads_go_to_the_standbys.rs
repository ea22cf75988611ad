//! pgbench runs through the proxy in every query mode; its reads run on the standbys, its transactions on the primary.

use std::collections::BTreeMap;

use pgweir::testbed::{Cluster, RawClient};

use crate::support::{Rig, execute, logged, logged_errors, program, run, value};

/// Of the reads, so many in a hundred must have run on the standbys.
const SHARE: usize = 95;
const CLIENTS: usize = 32;
const TRANSACTIONS: usize = 25;

#[test]
fn pgbench_runs_and_reads_go_to_the_standbys() {
    // What ran where is counted in the nodes' logs.
    let logging = Cluster::builder()
        .standbys(2)
        .setting("log_statement", "all")
        .setting("log_line_prefix", "%m [%p] %a %e ");
    let rig = Rig::with(logging, |config| config.databases[0].pool.size = 10);
    let url = rig.url("postgres");
    run(program(&rig.cluster, "pgbench").args(["-i", "-s", "4", "-q", &url]));
    rig.cluster.wait_caught_up().unwrap();
    rig.learn("postgres");
    for mode in ["simple", "extended", "prepared"] {
        let before = counts(&rig);
        pgbench(&rig, CLIENTS, &["-S", "-M", mode]);
        let read = growth(&before, &counts(&rig), "SELECT abalance");
        let total = CLIENTS * TRANSACTIONS;
        assert_eq!(read.iter().sum::<usize>(), total, "{mode}: {read:?}");
        let [_, standby1, standby2] = read;
        assert!(
            (standby1 + standby2) * 100 >= total * SHARE,
            "{mode}: {read:?}"
        );
        // An even share would be a half; a standby that is left out would have none.
        assert!(standby1.min(standby2) * 5 >= total, "{mode}: {read:?}");

        let before = counts(&rig);
        pgbench(&rig, CLIENTS, &["-M", mode]);
        let after = counts(&rig);
        for statement in STATEMENTS {
            assert_eq!(
                growth(&before, &after, statement),
                [total, 0, 0],
                "{mode}: {statement}"
            );
        }
    }
    for node in rig.cluster.nodes() {
        assert_eq!(
            logged_errors(node, "25006"),
            0,
            "{} refused a write",
            node.name()
        );
    }
    assert_eq!(rig.metric("pgweir_standby_refusals_total", &[]), 0.0);
}

/// A session that nobody is in the way of reads from one standby, and leaves it as soon as that is busy.
#[test]
fn a_session_stays_on_its_standby_while_that_is_idle() {
    let rig = Rig::start(2, |_| ());
    rig.learn("postgres");
    // Which says where it runs, and would be the primary's otherwise.
    let port =
        |client: &mut RawClient| value(client, "-- pgweir: standby\nSELECT inet_server_port()");
    let mut client = rig.client("postgres");
    let its_own = port(&mut client);
    for _ in 0..40 {
        let nodes: Vec<bool> = rig
            .cluster
            .nodes()
            .iter()
            .map(|node| rig.is_eligible(node))
            .collect();
        assert_eq!(port(&mut client), its_own, "{nodes:?} may be read");
    }
    let mut holder = rig.client("postgres");
    // It chooses anew about every 64 reads.
    rig.wait("it has its turn on the same standby", || {
        port(&mut holder) == its_own
    });
    execute(&mut holder, "BEGIN READ ONLY");
    execute(&mut holder, "SELECT 1");
    let other = port(&mut client);
    assert_ne!(other, its_own);
    execute(&mut holder, "COMMIT");
    assert_eq!(port(&mut client), other, "and it stays there");
}

/// pgbench sends what stands in a pipeline without waiting, with a Sync at its end.
#[test]
fn pipelines_of_pgbench() {
    const PIPELINING: usize = 8;
    // Fewer connections than clients: they take turns, a pipeline at a time.
    let rig = Rig::start(1, |config| config.databases[0].pool.size = 4);
    run(program(&rig.cluster, "pgbench").args(["-i", "-q", &rig.url("postgres")]));
    rig.cluster.wait_caught_up().unwrap();
    rig.learn("postgres");
    let [writes, reads] = [("writes.sql", WRITES), ("reads.sql", READS)].map(|(name, text)| {
        let path = rig.cluster.dir().join(name);
        std::fs::write(&path, text).expect("the cluster's directory takes a file");
        path.into_os_string().into_string().expect("it is UTF-8")
    });
    let on_standby = || rig.metric("pgweir_routed_statements_total", &[("target", "standby")]);
    for (turn, mode) in ["extended", "prepared"].into_iter().enumerate() {
        pgbench(&rig, PIPELINING, &["-M", mode, "-f", &writes]);
        // Each pipeline is one transaction: all of it is there, once.
        let written = rig.cluster.primary().value(
            "SELECT count(*) || ' ' || (sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts)) \
             || ' ' || (sum(delta) = (SELECT sum(bbalance) FROM pgbench_branches)) FROM pgbench_history",
        );
        let expected = format!("{} true true", (turn + 1) * PIPELINING * TRANSACTIONS);
        assert_eq!(written.expect("the primary answers"), expected, "{mode}");

        // These clients have not written, so they need not see the newest.
        let before = on_standby();
        pgbench(&rig, PIPELINING, &["-M", mode, "-f", &reads]);
        assert!(on_standby() > before, "{mode}: no read on the standby");
    }
    assert_eq!(rig.metric("pgweir_standby_refusals_total", &[]), 0.0);
}

/// A pipeline that writes, and one that reads what it wrote.
const WRITES: &str = r"\set aid random(1, 100000)
\set delta random(-5000, 5000)
\startpipeline
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = 1;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :aid, :delta, CURRENT_TIMESTAMP);
\endpipeline
\startpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
SELECT bbalance FROM pgbench_branches WHERE bid = 1;
\endpipeline
";

const READS: &str = r"\set aid random(1, 100000)
\startpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
SELECT bbalance FROM pgbench_branches WHERE bid = 1;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid + 1;
\endpipeline
";

/// Runs pgbench to its end, without a failed transaction.
fn pgbench(rig: &Rig, clients: usize, arguments: &[&str]) {
    let total = clients * TRANSACTIONS;
    let (clients, transactions) = (clients.to_string(), TRANSACTIONS.to_string());
    let mut command = program(&rig.cluster, "pgbench");
    command.args(["-n", "-c", &clients, "-j", "2", "-t", &transactions]);
    let (out, err) = run(command.args(arguments).arg(rig.url("postgres")));
    let processed = format!("number of transactions actually processed: {total}/{total}");
    assert!(out.contains(&processed), "{arguments:?}: {out}\n{err}");
    let failed = out
        .lines()
        .find(|line| line.starts_with("number of failed transactions"));
    assert!(
        failed.is_none_or(|line| line.contains(": 0 ")),
        "{arguments:?}: {out}"
    );
}

/// Each of them is in a transaction of pgbench's TPC-B script once.
const STATEMENTS: [&str; 3] = [
    "UPDATE pgbench_branches",
    "INSERT INTO pgbench_history",
    "SELECT abalance",
];

type Counts = BTreeMap<&'static str, [usize; 3]>;

/// How often primary, standby1 and standby2 have run each of the statements by now.
fn counts(rig: &Rig) -> Counts {
    let nodes = rig.cluster.nodes();
    let count = |text| [0, 1, 2].map(|node| logged(&nodes[node], text));
    STATEMENTS.map(|text| (text, count(text))).into()
}

fn growth(before: &Counts, after: &Counts, statement: &str) -> [usize; 3] {
    [0, 1, 2].map(|node| after[statement][node] - before[statement][node])
}
