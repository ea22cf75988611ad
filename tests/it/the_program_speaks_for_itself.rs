//! The commands: demo, run, check, explain; their output and their exit codes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};

use pgweir::testbed::{Cluster, RawClient};

use crate::support::{LIMIT, config_text, value};

fn pgweir(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgweir"));
    command.args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = pgweir(arguments).output().expect("the program runs");
    (status.code(), text(&stdout), text(&stderr))
}

/// A file that is removed with the test.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, content: &str) -> File {
        let path = std::env::temp_dir().join(format!("pgweir-it-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("a file");
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success());
}

#[test]
fn demo_serves_for_its_time_and_shows_where_statements_went() {
    let mut demo = pgweir(&["demo", "--for", "5s"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let mut url = None;
    let mut status = false;
    for line in lines.by_ref().map_while(Result::ok) {
        status |= line.contains("status: http://127.0.0.1:");
        if let Some((_, rest)) = line.split_once("psql \"postgres://postgres@") {
            url = Some(rest.trim_end_matches('"').to_owned());
        }
        if line.starts_with("Traffic") {
            break;
        }
    }
    let url = url.expect("a connection string");
    assert!(status, "a status URL");
    let (address, database) = url.split_once('/').expect("an address and a database");
    let address = address.parse::<std::net::SocketAddr>().expect("an address");
    let mut client = RawClient::connect(
        &address.into(),
        &[("user", "postgres"), ("database", database)],
    )
    .expect("login");
    assert_eq!(value(&mut client, "SELECT count(*) >= 0 FROM visits"), "t");
    drop(client);
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(demo.wait().expect("it ends").success());
    let counts = |node: &str| -> (u64, u64) {
        let line = rest
            .iter()
            .find(|line| line.starts_with(&format!("{node} ")))
            .expect("a line for each node");
        let numbers: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .map(|n| n.parse().expect("a count"))
            .collect();
        (numbers[0], numbers[1])
    };
    assert!(
        counts("primary").0 > 0 && counts("primary").1 == 0,
        "{rest:?}"
    );
    for standby in ["standby1", "standby2"] {
        assert!(counts(standby).0 == 0 && counts(standby).1 > 0, "{rest:?}");
    }
    let good = "statements that failed: 0; reads that missed their session's write: 0";
    assert!(rest.iter().any(|line| line.contains(good)), "{rest:?}");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port()
}

/// A client of a proxy that is just starting.
fn first_client(port: u16) -> RawClient {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut client = None;
    pgweir::testbed::wait_for(
        || {
            client = RawClient::connect(
                &address.into(),
                &[("user", "postgres"), ("database", "postgres")],
            )
            .ok();
            Ok(client.is_some())
        },
        LIMIT,
        "the proxy to answer",
    )
    .expect("it answers");
    client.expect("connected")
}

#[test]
fn run_answers_and_ends_in_order() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let port = free_port();
    let file = File::new("run.toml", &config_text(&cluster, port));
    let mut proxy = pgweir(&["run", file.path()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut client = first_client(port);
    client.query("BEGIN").expect("begin");
    signal(&proxy, "-TERM");
    client.query("COMMIT").expect("a transaction is finished");
    let last = client.recv_until_closed().expect("goodbye");
    assert_eq!(last[0].error().expect("fields").code(), "57P01");
    assert_eq!(proxy.wait().expect("it ends").code(), Some(0));
    let mut log = String::new();
    proxy
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut log)
        .expect("text");
    assert!(
        log.contains("listening") && log.contains("stopped"),
        "{log}"
    );
}

#[test]
fn a_hangup_reads_the_file_again() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let port = free_port();
    let text = config_text(&cluster, port);
    let file = File::new("reload.toml", &text);
    let mut proxy = pgweir(&["run", file.path()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(proxy.stderr.take().expect("piped")).lines();
    let mut client = first_client(port);
    let mut told = |text: &str, proxy: &Child, line: &str| {
        std::fs::write(file.path(), text).expect("the file");
        signal(proxy, "-HUP");
        let said = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|said| said.contains(line));
        said.unwrap_or_else(|| panic!("it does not say {line:?}"))
    };
    let faulty = format!("{text}[log]\nlevle = \"info\"\n");
    let spoilt = told(&faulty, &proxy, "configuration not reloaded");
    assert!(spoilt.contains("levle"), "{spoilt}");
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    let named = text.replace(
        "[database.\"*\"]",
        "[database.other]\ndbname = \"template1\"",
    );
    told(&named, &proxy, "configuration reloaded");
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port)).into();
    let parameters = |database| [("user", "postgres"), ("database", database)];
    let mut other = RawClient::connect(&address, &parameters("other")).expect("it is there now");
    assert_eq!(value(&mut other, "SELECT current_database()"), "template1");
    let refused = RawClient::connect(&address, &parameters("postgres"));
    let refused = refused.expect_err("it is there no more");
    assert_eq!(refused.sqlstate(), Some("3D000"));
    signal(&proxy, "-TERM");
    assert_eq!(proxy.wait().expect("it ends").code(), Some(0));
}

#[test]
fn the_debug_log_says_where_each_unit_went_and_why() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let port = free_port();
    let text = format!("{}[log]\nlevel = \"debug\"\n", config_text(&cluster, port));
    let file = File::new("debug.toml", &text);
    let mut proxy = pgweir(&["run", file.path()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut client = first_client(port);
    client
        .query("SELECT 1,\n pg_backend_pid() WHERE 'secret' = 'secret'")
        .expect("it runs");
    client.query("CREATE TABLE t (a int)").expect("it runs");
    drop(client);
    signal(&proxy, "-TERM");
    assert_eq!(proxy.wait().expect("it ends").code(), Some(0));
    let mut log = String::new();
    let mut stderr = proxy.stderr.take().expect("piped");
    stderr.read_to_string(&mut log).expect("text");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("sent ")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(!log.contains("Parsing sql"), "the parser's own log: {log}");
    for part in [
        "DEBUG",
        "node=\"primary\"",
        "role=\"primary\"",
        "class=\"primary\"",
        "reason=\"catalog\"",
        "detail=\"function pg_backend_pid\"",
        "at=\"2:2\"",
        "select ?, pg_backend_pid() where ? = ?",
    ] {
        assert!(lines[0].contains(part), "{part} in {}", lines[0]);
    }
    assert!(lines[1].contains("reason=\"ddl\""), "{}", lines[1]);
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn check_names_every_fault() {
    let bad = File::new(
        "bad.toml",
        "[[listener]]\nadress = \"127.0.0.1:6432\"\n[cluster.main]\nnodes = [{ address = \"10.0.0.1:5432\" }]\n\
         reads = { max_lags = \"10s\" }\n[database.\"*\"]\npool = { size = 0 }\n[auth]\nmethod = \"trust\"\n",
    );
    let (code, _, err) = output(&["check", bad.path()]);
    assert_eq!(code, Some(2));
    for fault in [
        ":2:1: ",
        "did you mean \"address\"?",
        ":5:11: ",
        "did you mean \"max_lag\"?",
        "must be from 1 to 10000, not 0",
    ] {
        assert!(err.contains(fault), "{fault} in {err}");
    }
    let good = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/good.toml");
    let (code, out, err) = output(&["check", good.to_str().expect("a plain path")]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(output(&["run", "/nowhere/proxy.toml"]).0, Some(2));
    assert_eq!(output(&["--nonsense"]).0, Some(2));
}

#[test]
fn explain_says_where_and_why() {
    let (code, out, _) = output(&[
        "explain",
        "select 1",
        "select nextval('s')",
        "insert into t values (1)",
        "begin",
    ]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines,
        [
            "standby (read, read)  select 1",
            "primary (write, function: function nextval)  select nextval('s')",
            "    1:8: select nextval('s')",
            "                ^",
            "primary (write, data_modifying)  insert into t values (1)",
            "    1:1: insert into t values (1)",
            "         ^",
            "primary (primary, transaction)  begin",
            "    1:1: begin",
            "         ^",
        ]
    );
}
