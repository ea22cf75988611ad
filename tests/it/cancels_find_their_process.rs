//! Two processes behind one address: a cancel request that reaches the wrong one is forwarded to the right one, once.

use std::time::Duration;

use pgweir::config::{self, Config, Peer, PeerId, Peering, PoolMode};
use pgweir::testbed::{BackendKey, ProtocolVersion, RawClient, request};

use crate::support::{LIMIT, Rig, RunningProxy, sqlstate, value};

/// A socket file of one test; the listener removes it.
fn socket(name: &str) -> config::Address {
    let name = format!("pgweir-it-{}-{name}", std::process::id());
    config::Address::Unix(std::env::temp_dir().join(name))
}

fn peering(id: u16, peer: u16, address: config::Address) -> Peering {
    Peering {
        id: PeerId(id),
        peers: vec![Peer {
            id: PeerId(peer),
            address,
        }],
    }
}

/// Processes 1 and 2. The first knows the second by `name_of_second` and its Unix socket, the second knows the first by
/// `name_of_first` and its port.
fn pair(
    name: &str,
    name_of_first: u16,
    name_of_second: u16,
    change: impl Fn(&mut Config),
) -> (Rig, RunningProxy) {
    let path = socket(name);
    let first = Rig::start(0, |config| {
        change(config);
        config.peering = Some(peering(1, name_of_second, path.clone()));
    });
    let address = first.address();
    let second = first.beside(|config| {
        change(config);
        config.listeners.push(path.clone().into());
        let address = config::Address::Tcp(address.ip().to_string(), address.port());
        config.peering = Some(peering(2, name_of_first, address));
    });
    first.wait("the second proxy to know its primary", || {
        second.metric("pgweir_primary_known", &[]) == 1.0
    });
    (first, second)
}

fn counted(proxy: &RunningProxy, result: &str) -> f64 {
    proxy.metric("pgweir_cancel_requests_total", &[("result", result)])
}

/// Logs in at one process, and cancels a statement by way of the other.
#[track_caller]
fn is_cancelled_by_way_of(
    rig: &Rig,
    at: &pgweir::testbed::Address,
    by_way_of: &pgweir::testbed::Address,
    version: ProtocolVersion,
) {
    let parameters = [("user", "postgres"), ("database", "postgres")];
    let mut client = RawClient::connect_with(at, version, &parameters).unwrap();
    client.set_timeout(LIMIT);
    let key = client.backend_key().unwrap().clone();
    assert!(i32::try_from(key.process_id).is_ok(), "a positive number");
    client.send(&request::query("SELECT pg_sleep(60)")).unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'";
    rig.wait("the statement to run", || {
        rig.cluster.primary().value(running).unwrap() == "1"
    });
    RawClient::cancel(by_way_of, &key).unwrap();
    let answer = client.recv_until_ready().unwrap();
    let error = answer.iter().find(|message| message.tag == b'E').unwrap();
    assert_eq!(error.error().unwrap().code(), "57014");
    assert_eq!(value(&mut client, "SELECT 1"), "1");
}

#[test]
fn by_way_of_the_other() {
    for mode in [PoolMode::Transaction, PoolMode::Session] {
        let name = format!("pair-{mode:?}");
        let (rig, second) = pair(&name, 1, 2, |config| config.databases[0].pool.mode = mode);
        let (one, two) = (rig.raw_address(), second.raw_address());
        for version in [ProtocolVersion::V3_0, ProtocolVersion::V3_2] {
            is_cancelled_by_way_of(&rig, &one, &two, version);
            is_cancelled_by_way_of(&rig, &two, &one, version);
            is_cancelled_by_way_of(&rig, &one, &one, version);
        }
        let of_first =
            |result: &str| rig.metric("pgweir_cancel_requests_total", &[("result", result)]);
        assert_eq!((of_first("forwarded"), of_first("sent")), (2.0, 4.0));
        assert_eq!(
            (counted(&second, "forwarded"), counted(&second, "sent")),
            (2.0, 2.0)
        );
        assert_eq!(of_first("unknown") + counted(&second, "unknown"), 0.0);
    }
}

/// In session pooling the process id stays that of the server process.
#[test]
fn the_process_id_is_still_the_servers() {
    let (rig, _second) = pair("process", 1, 2, |config| {
        config.databases[0].pool.mode = PoolMode::Session;
    });
    let mut client = rig.client("postgres");
    let process = client.backend_key().unwrap().process_id.to_string();
    assert_eq!(value(&mut client, "SELECT pg_backend_pid()"), process);
}

/// Each has the other under number 3, which nobody has: what is for 3 could go round for ever.
#[test]
fn wrong_numbers_make_no_circle() {
    let (rig, second) = pair("circle", 3, 3, |_| ());
    let nobody = BackendKey {
        process_id: 77,
        secret: vec![0, 3 << 2, 1, 2],
    };
    RawClient::cancel(&rig.raw_address(), &nobody).unwrap();
    let of_first = |result: &str| rig.metric("pgweir_cancel_requests_total", &[("result", result)]);
    assert_eq!((of_first("forwarded"), of_first("unknown")), (1.0, 0.0));
    assert_eq!(
        (counted(&second, "forwarded"), counted(&second, "unknown")),
        (0.0, 1.0)
    );
    // A number that is nobody's is dropped where it comes.
    let nobody = BackendKey {
        process_id: 77,
        secret: vec![0, 4 << 2, 1, 2],
    };
    RawClient::cancel(&second.raw_address(), &nobody).unwrap();
    assert_eq!(counted(&second, "unknown"), 2.0);
    assert_eq!((of_first("forwarded"), of_first("unknown")), (1.0, 0.0));
}

/// A peer that is away, or takes connections and does nothing, holds up no login, and no request for longer than
/// `timeouts.cancel`; those that are too many are dropped.
#[test]
fn a_dead_peer_is_in_nobodys_way() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let rig = Rig::start(0, |config| {
        // All of them are to be there before the first is given up, on a busy machine, too.
        config.timeouts.cancel = Duration::from_secs(8);
        let address = config::Address::Tcp("127.0.0.1".to_owned(), port);
        config.peering = Some(peering(1, 2, address));
    });
    let of = |result: &str| rig.metric("pgweir_cancel_requests_total", &[("result", result)]);
    let request = request::cancel_request(&BackendKey {
        process_id: 77,
        secret: vec![0, 2 << 2, 1, 2],
    });
    let mut waiting = Vec::new();
    for _ in 0..70 {
        let mut client = RawClient::open(&rig.raw_address()).unwrap();
        client.send(&request).unwrap();
        waiting.push(client);
    }
    rig.wait("those beyond the bound to be dropped", || {
        of("dropped") == 6.0
    });
    let mut client = rig.client("postgres");
    assert_eq!(sqlstate(&mut client, "SELECT 1/0"), "22012");
    assert_eq!(of("failed"), 0.0);
    for _ in 0..32 {
        drop(silent.accept().unwrap());
    }
    for client in &mut waiting {
        client.set_timeout(LIMIT);
        client.recv_until_closed().unwrap();
    }
    assert_eq!((of("forwarded"), of("failed")), (32.0, 32.0));
    let reached = rig.metric("pgweir_timeouts_total", &[("timeout", "cancel")]);
    assert_eq!(reached, 32.0);
}
