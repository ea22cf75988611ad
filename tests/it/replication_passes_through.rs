//! Tools that replicate work through the proxy as they do without it: on connections of their own, on the primary.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pgweir::testbed::Cluster;

use crate::support::{Rig, program, run};

/// The tool, told to connect through the proxy.
fn tool(rig: &Rig, name: &str, arguments: &[&str]) -> Command {
    let address = rig.address();
    let mut command = program(&rig.cluster, name);
    command
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string(), "-U", "postgres", "-w"])
        .args(arguments);
    command
}

/// A directory that is gone with the test.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let unique = format!("pgweir-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of a failed test is no reason to fail another.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn has(directory: &Path, what: impl Fn(&str) -> bool) -> bool {
    std::fs::read_dir(directory)
        .unwrap()
        .any(|entry| what(&entry.unwrap().file_name().to_string_lossy()))
}

fn interrupt(child: &mut Child) {
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    child.wait().unwrap();
}

#[test]
fn tools_that_replicate_work_through_the_proxy() {
    let cluster = Cluster::builder()
        .standbys(1)
        .setting("wal_level", "logical");
    let rig = Rig::with(cluster, |_| ());
    let primary = rig.cluster.primary();
    primary
        .execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        .unwrap();

    let backup = Scratch::new("basebackup");
    run(&mut tool(
        &rig,
        "pg_basebackup",
        &[
            "-D",
            backup.path(),
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
        ],
    ));
    assert!(backup.0.join("PG_VERSION").exists() && backup.0.join("global/pg_control").exists());
    assert!(has(&backup.0.join("pg_wal"), |name| name.len() == 24));

    let archive = Scratch::new("receivewal");
    run(&mut tool(
        &rig,
        "pg_receivewal",
        &["--slot", "archive", "--create-slot"],
    ));
    let mut receiving = tool(
        &rig,
        "pg_receivewal",
        &["--slot", "archive", "-D", archive.path(), "--no-sync"],
    )
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    rig.wait("WAL to be received", || {
        primary.execute("INSERT INTO t VALUES (0)").unwrap();
        has(&archive.0, |name| name.ends_with(".partial"))
    });
    rig.wait("a segment to be complete", || {
        primary
            .execute("SELECT pg_switch_wal(); INSERT INTO t VALUES (0)")
            .unwrap();
        has(&archive.0, |name| name.len() == 24)
    });
    interrupt(&mut receiving);

    run(&mut tool(
        &rig,
        "pg_recvlogical",
        &[
            "-d",
            "postgres",
            "--slot",
            "changes",
            "--create-slot",
            "-P",
            "pgoutput",
        ],
    ));
    run(&mut tool(
        &rig,
        "pg_recvlogical",
        &["-d", "postgres", "--slot", "changes", "--drop-slot"],
    ));
    let slots =
        primary.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'changes'");
    assert_eq!(slots.unwrap(), "0");
}

/// A stream of WAL ends when the proxy stops, and does not hold it up.
#[test]
fn a_stream_does_not_hold_a_shutdown_up() {
    let mut rig = Rig::start(0, |_| ());
    let archive = Scratch::new("stream");
    let mut receiving = tool(
        &rig,
        "pg_receivewal",
        &["-D", archive.path(), "--no-sync", "--no-loop"],
    )
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    rig.wait("a stream", || {
        let streams =
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'";
        rig.cluster.primary().value(streams).unwrap() == "1"
    });
    assert_eq!(rig.shutdown(), 0);
    let mut said = String::new();
    receiving
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(!receiving.wait().unwrap().success(), "{said}");
}

/// The server's word on a login is the client's.
#[test]
fn a_refused_replication_login_says_why() {
    let rig = Rig::start(0, |_| ());
    rig.cluster
        .primary()
        .execute("CREATE ROLE plain LOGIN")
        .unwrap();
    let parameters = [
        ("user", "plain"),
        ("database", "postgres"),
        ("replication", "true"),
    ];
    let refused = pgweir::testbed::RawClient::connect(&rig.raw_address(), &parameters);
    let refused = refused.err().unwrap().to_string();
    assert!(
        refused.contains("42501") || refused.contains("28000"),
        "{refused}"
    );
}
