//! Many cancels, fired as fast as they go, over few server connections that everybody shares: only the owner of a key ever
//! has a statement cancelled, and only one that ran while the request was on its way.
//!
//! Some thousands of them in `make test`; the million with `PGWEIR_LONG=1`, see CONTRIBUTING.md.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pgweir::config;
use pgweir::testbed::{Address, BackendKey, RawClient, request};

use crate::support::{Rig, report, value};

/// Cancels in all.
const SOME: usize = 6_000;
const MILLION: usize = 1_000_000;

/// Proxies that share the million: each waits more than it works.
const SIDE_BY_SIDE: usize = 8;

/// Clients whose statements are cancelled, and clients whose must not be. With two server connections for all of them, each
/// connection goes from one to another after nearly every statement.
const OWNERS: usize = 2;
const BYSTANDERS: usize = 3;

/// Most cancels of an owner for one statement, one after the other on connections of their own. Each number up to it has
/// its turn: after few of them the last is often still on its way when the statement has ended.
const VOLLEY: usize = 8;

/// A statement that would notice, of about as long as a few cancels take.
const STATEMENT: &str = "SELECT pg_sleep(0.001), pg_notify('nobody', '')";

#[test]
fn only_the_owner_is_hit() {
    if std::env::var_os("PGWEIR_LONG").is_none() {
        fire(SOME, 0);
        return;
    }
    std::thread::scope(|scope| {
        for number in 0..SIDE_BY_SIDE {
            scope.spawn(move || fire(MILLION / SIDE_BY_SIDE, number));
        }
    });
}

/// Fires so many over one proxy, the `number`th of those that run at the same time.
fn fire(cancels: usize, number: usize) {
    let path = format!("pgweir-it-{}-cancels-{number}", std::process::id());
    let path = std::env::temp_dir().join(path);
    let rig = Rig::start(0, |config| {
        config.databases[0].pool.size = 2;
        // Cancels by the million would use up the ports.
        config
            .listeners
            .push(config::Address::Unix(path.clone()).into());
    });
    let (fired, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let volleys = AtomicUsize::new(0);
    let (done, statements) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for n in 0..BYSTANDERS {
            let (rig, done, statements) = (&rig, &done, &statements);
            scope.spawn(move || {
                let mut client = rig.client("postgres");
                while !done.load(Ordering::Relaxed) {
                    bystand(&mut client, n);
                    statements.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let owners: Vec<_> = (0..OWNERS)
            .map(|_| {
                let (rig, path) = (&rig, path.clone());
                let (fired, volleys, hits) = (&fired, &volleys, &hits);
                scope.spawn(move || {
                    let mut client = rig.client("postgres");
                    let key = client.backend_key().unwrap().clone();
                    for turn in 0.. {
                        let number = turn % VOLLEY + 1;
                        let at_server = !(turn / VOLLEY).is_multiple_of(4);
                        let hit = volley(&mut client, &path, &key, number, at_server);
                        hits.fetch_add(usize::from(hit), Ordering::Relaxed);
                        volleys.fetch_add(1, Ordering::Relaxed);
                        if fired.fetch_add(number, Ordering::Relaxed) > cancels {
                            break;
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = owners.into_iter().map(|owner| owner.join()).collect();
        done.store(true, Ordering::Relaxed);
        for owner in ended {
            owner.unwrap();
        }
    });
    let (volleys, hits) = (volleys.into_inner(), hits.into_inner());
    let statements = statements.into_inner();
    // Nothing was tested if none arrived in time, none came late, or nobody stood by.
    assert!(hits > volleys / 20, "{hits} hits of {volleys} statements");
    assert!(statements > volleys / 4, "{statements} of {volleys}");
    let counted = |result| rig.metric("pgweir_cancel_requests_total", &[("result", result)]);
    let sent = counted("sent") as usize;
    assert!(sent > volleys / 10, "{sent} to the server of {volleys}");
    report(&format!(
        "{} cancels, {sent} of them sent on, {hits} of {volleys} statements hit, {statements} statements of others",
        fired.into_inner()
    ));
    // All of them had a session to go to.
    assert_eq!(counted("unknown") + counted("failed"), 0.0);
}

/// One statement of a client that nobody cancels, alone or in a transaction.
#[track_caller]
fn bystand(client: &mut RawClient, n: usize) {
    let statements: &[&str] = match n % 3 {
        0 => &[STATEMENT],
        1 => &["BEGIN", STATEMENT, "COMMIT"],
        _ => &["SELECT 1"],
    };
    for sql in statements {
        let answer = client.query(sql);
        assert!(
            answer.is_ok(),
            "a statement of a bystander was cancelled: {sql}: {answer:?}"
        );
    }
}

/// Cancels one statement this many times, then runs another, which must not be hit: by then each request has been taken.
/// Returns whether the first was. Most statements would be cancelled while they wait for a server connection; `at_server`
/// has one first. It goes to somebody else as soon as the statement has ended, be there a cancel on its way or not.
fn volley(
    client: &mut RawClient,
    path: &Path,
    key: &BackendKey,
    number: usize,
    at_server: bool,
) -> bool {
    let last = format!("{STATEMENT}; COMMIT");
    if at_server {
        // BEGIN alone takes no connection.
        client.query("BEGIN; SELECT 1").unwrap();
    }
    let sql = if at_server { &last } else { STATEMENT };
    client.send(&request::query(sql)).unwrap();
    for _ in 0..number {
        RawClient::cancel(&Address::Unix(path.to_owned()), key).unwrap();
    }
    let answer = client.recv_until_ready().unwrap();
    let error = answer.iter().find(|message| message.tag == b'E');
    if let Some(error) = error {
        assert_eq!(error.error().unwrap().code(), "57014");
        if at_server {
            // Nor is this hit, by a second request that was on its way when the first had worked.
            client.query("ROLLBACK").unwrap();
        }
    }
    assert_eq!(value(client, STATEMENT), "", "a cancel came late");
    error.is_some()
}
