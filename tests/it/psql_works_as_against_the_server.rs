//! What psql shows is the same straight to the server and through the proxy.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pgweir::testbed::Node;

use crate::support::{Rig, program, run};

#[test]
fn psql_works_as_against_the_server() {
    let rig = Rig::start(1, |_| ());
    let primary = rig.cluster.primary();
    primary
        .execute(
            "CREATE TABLE film (id int PRIMARY KEY, title text NOT NULL, made date); \
             CREATE INDEX film_title ON film (title); CREATE VIEW old_film AS SELECT * FROM film WHERE made < '1950-01-01'; \
             INSERT INTO film VALUES (1, 'Metropolis', '1927-01-10'), (2, E'tab\\there', NULL); \
             CREATE TABLE copied (LIKE film)",
        )
        .unwrap();
    rig.cluster.wait_caught_up().unwrap();
    let straight = primary.url("postgres");
    for script in SCRIPTS {
        let expected = psql(&rig, &straight, script);
        let received = psql(&rig, &rig.url("postgres"), script);
        assert_eq!(received, expected, "{script}");
        assert!(
            !expected.0.is_empty() || !expected.1.is_empty(),
            "{script} shows nothing"
        );
    }
    copies_travel_both_ways(&rig);
    control_c_cancels(&rig, primary);
}

/// Fed to psql as they stand. None changes what the next one sees.
const SCRIPTS: [&str; 12] = [
    r"\d",
    r"\d film",
    r"\d+ old_film",
    r"\l",
    r"\conninfo_is_not_compared_but_this_error_is",
    "SELECT * FROM film ORDER BY id;",
    "SELECT 1; SELECT title FROM film WHERE id = 1 \\; SELECT 2;",
    "SELECT * FROM film WHERE idd = 1;",
    "SELECT 'ä' AS umlaut,\n  nosuch\n  FROM film;",
    "\\set VERBOSITY verbose\nINSERT INTO film VALUES (1, 'again');",
    "\\x on\nBEGIN; DELETE FROM film; SELECT count(*) FROM film; ROLLBACK; SELECT count(*) FROM film;",
    "DO $$ BEGIN RAISE NOTICE 'heard'; END $$;\n\\copy film TO STDOUT\nSELECT 'after';",
];

fn psql_command(rig: &Rig, url: &str) -> Command {
    let mut command = program(&rig.cluster, "psql");
    command.args(["-X", "-d", url]);
    command
}

/// Both outputs of psql for a script on its standard input.
fn psql(rig: &Rig, url: &str, script: &str) -> (String, String) {
    let input = rig.cluster.dir().join("script.sql");
    std::fs::write(&input, script).expect("the cluster's directory takes a file");
    let file = std::fs::File::open(&input).expect("the file was just written");
    run(psql_command(rig, url).args(["-a"]).stdin(file))
}

/// A file goes in through the proxy and comes out as it was.
fn copies_travel_both_ways(rig: &Rig) {
    let (source, target) = (
        rig.cluster.dir().join("in.csv"),
        rig.cluster.dir().join("out.csv"),
    );
    let lines: String = (1..=20_000)
        .map(|n| format!("{n},film number {n},2001-02-03\n"))
        .collect();
    std::fs::write(&source, &lines).expect("the cluster's directory takes a file");
    let url = rig.url("postgres");
    let command = |text: String| run(psql_command(rig, &url).args(["-c", &text])).0;
    let copied = command(format!(r"\copy copied FROM '{}' CSV", source.display()));
    assert_eq!(copied, "COPY 20000\n");
    let count = rig
        .cluster
        .primary()
        .value("SELECT count(*) FROM copied")
        .expect("the primary answers");
    assert_eq!(count, "20000");
    let copied = command(format!(
        r"\copy (SELECT * FROM copied ORDER BY id) TO '{}' CSV",
        target.display()
    ));
    assert_eq!(copied, "COPY 20000\n");
    assert!(
        std::fs::read_to_string(&target).expect("psql wrote it") == lines,
        "the copy came out changed"
    );
}

/// SIGINT makes psql send a CancelRequest: a read on a standby ends by it, and so does a statement in a transaction.
fn control_c_cancels(rig: &Rig, primary: &Node) {
    let standby = rig.cluster.standbys()[0];
    for (node, sql) in [
        (standby, "select pg_sleep(60)"),
        (primary, "begin; select pg_sleep(60)"),
    ] {
        let expected = cancelled(rig, node, &node.url("postgres"), sql);
        let received = cancelled(rig, node, &rig.url("postgres"), sql);
        assert_eq!(received, expected, "{sql}");
        assert_eq!(received.0, Some(1), "{sql}: {received:?}");
    }
}

/// The end of a psql that is sent SIGINT while its statement sleeps on this node: exit code and both outputs.
fn cancelled(rig: &Rig, node: &Node, url: &str, sql: &str) -> (Option<i32>, String, String) {
    let mut command = psql_command(rig, url);
    command
        .args(["-c", sql])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("psql starts");
    let sleeping = || node.value(SLEEPERS).expect("the node answers") != "0";
    rig.wait("psql to sleep", sleeping);
    let started = Instant::now();
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let output = child.wait_with_output().expect("psql ends");
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{sql} slept on"
    );
    rig.wait("the sleep to end", || !sleeping());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("psql writes UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

const SLEEPERS: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%pg_sleep(60)%'";
