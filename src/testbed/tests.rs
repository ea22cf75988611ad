//! Promises of the room, kept on real servers.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{self, Pid, Signal};
use super::wire::{Address, ProtocolVersion, RawClient};
use super::{Cluster, Error, Mode, Node, request, wait_for};

const LIMIT: Duration = Duration::from_secs(20);

/// Every process whose parent is one of the cluster's postmasters, and those themselves.
fn processes(cluster: &Cluster) -> Vec<Pid> {
    let postmasters = cluster.nodes().iter().filter_map(Node::process_id).map(Pid);
    postmasters
        .flat_map(|pid| [vec![pid], process::children(pid).unwrap()].concat())
        .collect()
}

fn check_gone(dir: &Path, processes: &[Pid]) {
    let gone = || Ok(!dir.exists() && process::living(processes)?.is_empty());
    wait_for(gone, LIMIT, "servers and directory to go").unwrap();
}

#[test]
fn a_write_reaches_the_standby_which_can_be_promoted_and_nothing_is_left() {
    let cluster = Cluster::builder().standbys(1).start().unwrap();
    let (dir, all) = (cluster.dir().to_owned(), processes(&cluster));
    cluster
        .primary()
        .execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1), (NULL)")
        .unwrap();
    cluster.wait_caught_up().unwrap();
    let standby = cluster.standbys()[0];
    assert_eq!(
        standby.sql("SELECT n FROM t").unwrap(),
        [[Some("1".to_owned())], [None]]
    );
    assert_eq!(
        standby.execute("DELETE FROM t").unwrap_err().sqlstate(),
        Some("25006")
    );

    standby.promote().unwrap();
    assert_eq!(cluster.primary().name(), "standby1");
    standby.execute("DELETE FROM t").unwrap();
    drop(cluster);
    check_gone(&dir, &all);
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back_as_a_standby() {
    let cluster = Cluster::builder().standbys(2).start().unwrap();
    let [old, heir, other] = cluster.nodes() else {
        unreachable!("one and two are three")
    };
    old.execute("CREATE TABLE t (n int)").unwrap();
    cluster.wait_caught_up().unwrap();
    // What only the old primary has must be taken back.
    heir.stop(Mode::Fast).unwrap();
    other.stop(Mode::Fast).unwrap();
    old.execute("INSERT INTO t VALUES (1)").unwrap();
    old.kill9().unwrap();
    assert!(!old.is_running().unwrap());

    heir.start().unwrap();
    heir.promote().unwrap();
    heir.execute("INSERT INTO t VALUES (2)").unwrap();
    other.follow(heir).unwrap();
    old.rewind(heir).unwrap();
    cluster.wait_streaming(2).unwrap();
    cluster.wait_caught_up().unwrap();
    for node in cluster.nodes() {
        assert_eq!(
            node.value("SELECT string_agg(n::text, ' ') FROM t")
                .unwrap(),
            "2",
            "{}",
            node.name()
        );
    }
    // Planned this time: the standby follows while it runs, and both directions work.
    heir.stop(Mode::Fast).unwrap();
    other.promote().unwrap();
    old.follow(other).unwrap();
    heir.follow(other).unwrap();
    cluster.wait_streaming(2).unwrap();
    assert_eq!(cluster.primary().name(), "standby2");
}

#[test]
fn replay_can_be_paused_and_delayed() {
    let cluster = Cluster::builder().standbys(1).start().unwrap();
    let (primary, standby) = (cluster.primary(), cluster.standbys()[0]);
    standby.pause_replay().unwrap();
    primary.execute("CREATE TABLE t (n int)").unwrap();
    assert_eq!(standby.value("SELECT to_regclass('t')").unwrap(), "");
    standby.resume_replay().unwrap();
    cluster.wait_caught_up().unwrap();
    assert_eq!(standby.value("SELECT to_regclass('t')").unwrap(), "t");

    standby.set_apply_delay(Duration::from_millis(700)).unwrap();
    let start = Instant::now();
    primary.execute("INSERT INTO t VALUES (1)").unwrap();
    cluster.wait_caught_up().unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(600),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_frozen_server_is_silent_and_goes_on_when_thawed() {
    let cluster = Cluster::builder().start().unwrap();
    let node = cluster.primary();
    let mut client = node.connect("postgres").unwrap();
    node.freeze().unwrap();
    client.send(&request::query("SELECT 1")).unwrap();
    assert_eq!(
        client.recv_within(Duration::from_millis(200)).unwrap(),
        None
    );
    node.thaw().unwrap();
    assert_eq!(client.recv_until_ready().unwrap().len(), 4);

    node.freeze().unwrap();
    node.stop(Mode::Fast).unwrap();
    node.start().unwrap();
    node.freeze().unwrap();
    let (dir, all) = (cluster.dir().to_owned(), processes(&cluster));
    drop(cluster);
    check_gone(&dir, &all);
}

#[test]
fn hba_lines_bind_tests_but_not_the_test_bed() {
    let cluster = Cluster::builder()
        .hba("host all all 127.0.0.1/32 scram-sha-256")
        .start()
        .unwrap();
    let error = cluster.primary().connect("postgres").unwrap_err();
    assert!(
        matches!(&error, Error::Unexpected { wanted, .. } if wanted == "AuthenticationOk"),
        "{error}"
    );
    assert_eq!(cluster.primary().value("SELECT 1").unwrap(), "1");
}

#[test]
fn a_synchronous_commit_waits_for_a_standby() {
    let cluster = Cluster::builder()
        .standbys(1)
        .synchronous(true)
        .start()
        .unwrap();
    let (primary, standby) = (cluster.primary(), cluster.standbys()[0]);
    primary.execute("CREATE TABLE t (n int)").unwrap();
    standby.freeze().unwrap();
    let mut client = primary.connect("postgres").unwrap();
    client
        .send(&request::query("INSERT INTO t VALUES (1)"))
        .unwrap();
    assert_eq!(
        client.recv_within(Duration::from_millis(200)).unwrap(),
        None
    );
    standby.thaw().unwrap();
    assert_eq!(
        client.recv_until_ready().unwrap()[0].command_tag().unwrap(),
        "INSERT 0 1"
    );
}

#[test]
fn a_wrong_setting_is_reported_with_the_log() {
    let error = Cluster::builder()
        .setting("shared_buffers", "plenty")
        .start()
        .unwrap_err();
    assert!(matches!(&error, Error::Start { .. }), "{error}");
    assert!(
        error.to_string().contains("invalid value for parameter"),
        "{error}"
    );
}

#[test]
fn the_raw_client_speaks_both_protocols_copies_and_cancels() {
    let cluster = Cluster::builder()
        .setting("log_statement", "all")
        .start()
        .unwrap();
    let address = Address::Tcp(cluster.primary().address());
    let parameters = [("user", "postgres"), ("database", "postgres")];
    let mut client =
        RawClient::connect_with(&address, ProtocolVersion::V3_9999, &parameters).unwrap();
    assert_eq!(client.parameters()["client_encoding"], "UTF8");

    let pipeline = [
        request::parse("", "SELECT $1 || 'x'", &[25]),
        request::bind("", "", &[Some("a")]),
        request::describe_portal(""),
        request::execute("", 0),
        request::sync(),
    ];
    client.send(&pipeline.concat()).unwrap();
    let answer = client.recv_until_ready().unwrap();
    let tags: String = answer
        .iter()
        .map(|message| char::from(message.tag))
        .collect();
    assert_eq!(tags, "12TDCZ");
    assert_eq!(answer[2].column_names().unwrap(), ["?column?"]);
    assert_eq!(answer[3].text_row().unwrap(), [Some("ax".to_owned())]);

    client.query("CREATE TABLE c (n int)").unwrap();
    client.send(&request::query("COPY c FROM STDIN")).unwrap();
    client.expect(b'G').unwrap();
    client
        .send(&[request::copy_data("1\n2\n"), request::copy_done()].concat())
        .unwrap();
    assert_eq!(
        client.recv_until_ready().unwrap()[0].command_tag().unwrap(),
        "COPY 2"
    );
    assert_eq!(
        client.query("COPY c FROM STDIN").unwrap_err().sqlstate(),
        Some("57014")
    );

    client.send(&request::query("SELECT pg_sleep(60)")).unwrap();
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let node = cluster.primary();
    node.wait_for(|node| Ok(node.value(sleeps)? == "1"), LIMIT, "the sleep")
        .unwrap();
    RawClient::cancel(&address, client.backend_key().unwrap()).unwrap();
    let answer = client.recv_until_ready().unwrap();
    let error = answer
        .iter()
        .find(|message| message.tag == b'E')
        .unwrap()
        .error()
        .unwrap();
    assert_eq!(error.code(), "57014");
    assert!(
        node.log()
            .unwrap()
            .contains("statement: SELECT pg_sleep(60)")
    );

    client.send(&request::terminate()).unwrap();
    assert_eq!(client.recv_until_closed().unwrap(), []);
}

/// The servers of a process that dies without a chance to clean up, by each signal in turn: the last is
/// what a test runner sends when its patience ends.
#[test]
fn servers_of_a_killed_process_are_ended_and_removed() {
    for signal in [Signal::Int, Signal::Term, Signal::Kill] {
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", HOLDER, "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = told_by(BufReader::new(holder.stdout.take().unwrap()));
        process::signal(signal, &[Pid(holder.id())]).unwrap();
        let status = holder.wait().unwrap();
        assert!(status.signal().is_some(), "{status}");
        let (dir, all) = told.expect("the holder says what it holds");
        check_gone(&dir, &all);
    }
}

/// The one line that the holder prints: the directory and the processes.
fn told_by(output: impl BufRead) -> Option<(PathBuf, Vec<Pid>)> {
    let mut lines = output.lines().map_while(Result::ok);
    let line = lines.find_map(|line| Some(line.split_once(MARK)?.1.to_owned()))?;
    let mut words = line.split(' ');
    let dir = PathBuf::from(words.next()?);
    Some((
        dir,
        words.map_while(|word| word.parse().ok().map(Pid)).collect(),
    ))
}

#[test]
#[ignore = "run by servers_of_a_killed_process_are_ended_and_removed, which kills it"]
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it waits to be killed, and says where"
)]
fn holds_a_cluster_until_killed() {
    let cluster = Cluster::builder().standbys(1).start().unwrap();
    // A frozen server must be ended like any other.
    cluster.standbys()[0].freeze().unwrap();
    let found = processes(&cluster);
    assert!(cluster.dir().is_dir() && found.len() > 2, "{found:?}");
    let all: Vec<_> = found.iter().map(|pid| pid.0.to_string()).collect();
    println!("{MARK}{} {}", cluster.dir().display(), all.join(" "));
    std::thread::sleep(Duration::from_secs(120));
}

const HOLDER: &str = "testbed::tests::holds_a_cluster_until_killed";
const MARK: &str = "holding ";
