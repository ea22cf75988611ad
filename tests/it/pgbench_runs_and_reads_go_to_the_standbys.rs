//! pgbench runs through the proxy in every query mode; its reads run on the standbys, its transactions on the primary.

use std::collections::BTreeMap;

use pgweir::testbed::Cluster;

use crate::support::{Rig, logged, logged_errors, program, run};

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
    for mode in ["simple", "extended", "prepared"] {
        let before = counts(&rig);
        pgbench(&rig, &["-S", "-M", mode]);
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
        pgbench(&rig, &["-M", mode]);
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

/// Runs pgbench to its end, without a failed transaction.
fn pgbench(rig: &Rig, arguments: &[&str]) {
    let (clients, transactions) = (CLIENTS.to_string(), TRANSACTIONS.to_string());
    let mut command = program(&rig.cluster, "pgbench");
    command.args(["-n", "-c", &clients, "-j", "2", "-t", &transactions]);
    let (out, err) = run(command.args(arguments).arg(rig.url("postgres")));
    let total = CLIENTS * TRANSACTIONS;
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
