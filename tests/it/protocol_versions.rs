//! The first packets, the versions of the protocol, and the end of a session.

use std::time::Duration;

use pgweir::config;
use pgweir::testbed::{Address, ProtocolVersion, RawClient, request};

use crate::support::{LIMIT, Rig, script, value};

const LOGIN: [(&str, &str); 2] = [("user", "postgres"), ("database", "postgres")];

/// Logs in with any startup packet; returns the tags and the version that the proxy negotiated.
fn login(
    rig: &Rig,
    version: ProtocolVersion,
    parameters: &[(&str, &str)],
) -> (RawClient, Option<Vec<u8>>) {
    let mut client = RawClient::open(&rig.raw_address()).expect("connect");
    client.set_timeout(LIMIT);
    client
        .send(&request::startup(version, parameters))
        .expect("send");
    let messages = client.finish_login().expect("login");
    let negotiated = messages
        .iter()
        .find(|message| message.tag == b'v')
        .map(|message| message.body.clone());
    (client, negotiated)
}

#[test]
fn versions_are_negotiated_and_keys_fit_them() {
    let rig = Rig::start(0, |_| ());
    let (mut client, negotiated) = login(&rig, ProtocolVersion::V3_0, &LOGIN);
    assert_eq!(negotiated, None);
    assert_eq!(client.backend_key().expect("a key").secret.len(), 4);
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    let (client, negotiated) = login(&rig, ProtocolVersion::V3_2, &LOGIN);
    assert_eq!(negotiated, None);
    assert_eq!(client.backend_key().expect("a key").secret.len(), 32);
    // libpq asks for a version that nobody will ever speak, to see that it is negotiated.
    let (client, negotiated) = login(&rig, ProtocolVersion::V3_9999, &LOGIN);
    assert_eq!(negotiated.as_deref(), Some(&b"\0\x03\0\x02\0\0\0\0"[..]));
    assert_eq!(client.backend_key().expect("a key").secret.len(), 32);
    let options = [LOGIN[0], LOGIN[1], ("_pq_.one", "1"), ("_pq_.two", "2")];
    let (mut client, negotiated) = login(&rig, ProtocolVersion::V3_0, &options);
    let expected = b"\0\x03\0\0\0\0\0\x02_pq_.one\0_pq_.two\0";
    assert_eq!(negotiated.as_deref(), Some(&expected[..]));
    assert_eq!(client.backend_key().expect("a key").secret.len(), 4);
    assert_eq!(value(&mut client, "SELECT 1"), "1");
}

#[test]
fn the_client_is_told_what_a_primary_would_tell() {
    let rig = Rig::start(1, |_| ());
    let client = rig.client_with(&[
        LOGIN[0],
        LOGIN[1],
        ("application_name", "it"),
        ("options", "-c TimeZone=Asia/Tokyo"),
    ]);
    let told = |name: &str| client.parameters().get(name).map(String::as_str);
    assert_eq!(told("in_hot_standby"), Some("off"));
    assert_eq!(told("application_name"), Some("it"));
    assert_eq!(told("TimeZone"), Some("Asia/Tokyo"));
    assert_eq!(told("server_encoding"), Some("UTF8"));
    let refused = RawClient::connect(
        &rig.raw_address(),
        &[LOGIN[0], LOGIN[1], ("TimeZone", "Nowhere")],
    );
    assert_eq!(
        refused
            .err()
            .and_then(|error| error.sqlstate().map(str::to_owned))
            .as_deref(),
        Some("22023")
    );
}

#[test]
fn encryption_is_refused_politely_and_once() {
    let rig = Rig::start(0, |_| ());
    for asked in [request::ssl_request(), request::gssenc_request()] {
        let mut client = RawClient::open(&rig.raw_address()).expect("connect");
        client.send(&asked).expect("send");
        assert_eq!(client.recv_byte().expect("an answer"), b'N');
        client
            .send(&request::startup(ProtocolVersion::V3_0, &LOGIN))
            .expect("send");
        client.finish_login().expect("login goes on in clear");
        let mut client = RawClient::open(&rig.raw_address()).expect("connect");
        client.send(&asked).expect("send");
        assert_eq!(client.recv_byte().expect("an answer"), b'N');
        client.send(&asked).expect("send");
        let messages = client.recv_until_closed().expect("an error, then the end");
        assert_eq!(messages[0].error().expect("fields").code(), "08P01");
    }
}

#[test]
fn a_unix_socket_serves_as_well() {
    let directory = std::env::temp_dir().join(format!("pgweir-it-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join(".s.PGSQL.6432");
    let rig = Rig::start(0, |config| {
        config
            .listeners
            .push(config::Address::Unix(path.clone()).into())
    });
    let mut client = RawClient::connect(&Address::Unix(path.clone()), &LOGIN).expect("login");
    assert_eq!(value(&mut client, "SELECT 1"), "1");
    drop(rig);
    assert!(!path.exists(), "the socket file goes with the proxy");
    std::fs::remove_dir(&directory).expect("it is empty");
}

#[test]
fn shutdown_finishes_transactions_then_says_goodbye() {
    let mut rig = Rig::start(0, |config| config.timeouts.shutdown = LIMIT);
    let mut idle = rig.client("postgres");
    let mut busy = rig.client("postgres");
    busy.query("CREATE TABLE t (n int)").expect("DDL");
    busy.query("BEGIN").expect("begin");
    busy.query("INSERT INTO t VALUES (1)").expect("insert");
    let address = rig.raw_address();
    rig.begin_shutdown();
    let messages = idle.recv_until_closed().expect("goodbye");
    assert_eq!(script(&messages), "E:57P01");
    busy.query("INSERT INTO t VALUES (2)")
        .expect("the transaction goes on");
    busy.query("COMMIT").expect("and commits");
    let messages = busy.recv_until_closed().expect("goodbye");
    assert_eq!(script(&messages), "E:57P01");
    assert!(
        RawClient::connect(&address, &LOGIN).is_err(),
        "nobody is let in any more"
    );
    assert_eq!(rig.shutdown(), 0, "no session was cut off");
    assert_eq!(
        rig.cluster
            .primary()
            .value("SELECT count(*) FROM t")
            .expect("ask"),
        "2"
    );
}

#[test]
fn shutdown_has_a_deadline() {
    let mut rig = Rig::start(0, |config| {
        config.timeouts.shutdown = Duration::from_millis(200)
    });
    let mut busy = rig.client("postgres");
    busy.query("BEGIN").expect("begin");
    assert_eq!(
        rig.shutdown(),
        1,
        "the session that would not end was cut off"
    );
}
