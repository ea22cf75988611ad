//! A cancel request ends what its client runs, or nothing: never what another client runs on the same server connection.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pgweir::testbed::{ProtocolVersion, RawClient, request};

use crate::support::{Rig, sqlstate, value};

/// Cancels sent for a client while others run statements on the same connections.
const TRIES: usize = 1000;

#[test]
fn it_never_hits_another_client() {
    let rig = Rig::start(1, |config| config.databases[0].pool.size = 2);
    let done = AtomicBool::new(false);
    let statements = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = rig.client("postgres");
                while !done.load(Ordering::Relaxed) {
                    // On the primary, as the other client's statement: a function that is not known to be harmless.
                    let answer = client.query("SELECT pg_sleep(0.002), pg_notify('nobody', '')");
                    assert!(
                        answer.is_ok(),
                        "a statement of another client was cancelled: {answer:?}"
                    );
                    statements.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut client = rig.client("postgres");
        let key = client.backend_key().expect("a key").clone();
        let mut hit = 0;
        // The others are to run all the time: on a busy machine that takes more tries.
        let enough = || statements.load(Ordering::Relaxed) > TRIES / 4;
        for n in (0..TRIES * 20).take_while(|n| *n < TRIES || !enough()) {
            let sql = format!(
                "SELECT pg_sleep({}), pg_notify('nobody', '')",
                if n % 2 == 0 { "0.004" } else { "0" }
            );
            client.send(&request::query(&sql)).expect("send");
            RawClient::cancel(&rig.raw_address(), &key).expect("cancel");
            let messages = client.recv_until_ready().expect("an answer");
            if let Some(error) = messages.iter().find(|message| message.tag == b'E') {
                assert_eq!(error.error().expect("fields").code(), "57014");
                hit += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(hit > 0, "no cancel arrived in time: nothing was tested");
    });
    assert!(
        statements.load(Ordering::Relaxed) > TRIES / 4,
        "the others ran all the time"
    );
}

#[test]
fn it_ends_a_statement_that_runs() {
    let rig = Rig::start(1, |_| ());
    for version in [ProtocolVersion::V3_0, ProtocolVersion::V3_2] {
        let parameters = [("user", "postgres"), ("database", "postgres")];
        let mut client =
            RawClient::connect_with(&rig.raw_address(), version, &parameters).expect("login");
        client.set_timeout(Duration::from_secs(30));
        let key = client.backend_key().expect("a key").clone();
        for sql in [
            "SELECT pg_sleep(60)",
            "SELECT pg_sleep(60), pg_notify('nobody', '')",
        ] {
            client.send(&request::query(sql)).expect("send");
            rig.wait("the statement to run", || {
                rig.cluster.nodes().iter().any(|node| {
                    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(60)%'";
                    node.value(running).is_ok_and(|count| count == "1")
                })
            });
            RawClient::cancel(&rig.raw_address(), &key).expect("cancel");
            let messages = client.recv_until_ready().expect("an answer");
            let error = messages
                .iter()
                .find(|message| message.tag == b'E')
                .expect("an error");
            assert_eq!(error.error().expect("fields").code(), "57014", "{sql}");
        }
        assert_eq!(value(&mut client, "SELECT 1"), "1");
    }
}

#[test]
fn it_ends_a_statement_that_waits_for_a_connection() {
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let mut holder = rig.client("postgres");
    holder.query("BEGIN; SELECT 1").expect("begin");
    let mut waiter = rig.client("postgres");
    let key = waiter.backend_key().expect("a key").clone();
    waiter.send(&request::query("SELECT 1")).expect("send");
    rig.wait("it to wait", || {
        rig.metric("pgweir_pool_waiting", &[]) == 1.0
    });
    RawClient::cancel(&rig.raw_address(), &key).expect("cancel");
    let messages = waiter.recv_until_ready().expect("an answer");
    assert_eq!(messages[0].error().expect("an error").code(), "57014");
    holder.query("COMMIT").expect("commit");
    assert_eq!(value(&mut waiter, "SELECT 2"), "2");
}

#[test]
fn a_wrong_key_hits_nobody() {
    let rig = Rig::start(0, |_| ());
    let mut client = rig.client("postgres");
    let mut key = client.backend_key().expect("a key").clone();
    key.secret[0] ^= 1;
    client
        .send(&request::query("SELECT pg_sleep(0.3)"))
        .expect("send");
    RawClient::cancel(&rig.raw_address(), &key).expect("it is taken without a word");
    let messages = client.recv_until_ready().expect("an answer");
    assert!(messages.iter().all(|message| message.tag != b'E'));
    assert_eq!(sqlstate(&mut client, "SELECT 1/0"), "22012");
}
