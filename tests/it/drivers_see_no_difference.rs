//! A scripted round in each driver gives the same transcript straight and through the proxy: connect, types, prepared
//! statements, pipelines, transactions, errors, cursors, COPY, large objects, cancel, notifications.

use std::path::Path;
use std::process::Command;

use pgweir::config::{Database, PoolMode};

use crate::support::{Rig, run};

#[test]
fn six_drivers_of_python_and_node() {
    let rig = Rig::start(2, |_| ());
    // One of them asks a server what it has prepared there, which would all be forgotten behind a write before.
    rig.learn("postgres");
    for (driver, least) in [
        ("psycopg", 50),
        ("psycopg2", 50),
        ("sqlalchemy", 25),
        ("asyncpg", 50),
        ("pg", 50),
        ("postgres", 45),
    ] {
        compare(&rig, driver, least, &["postgres"]);
    }
    reads_went_to_standbys(&rig);
}

#[test]
fn libpq_pgjdbc_and_tokio_postgres_in_two_pool_modes() {
    let rig = Rig::start(2, |config| {
        let any = &config.databases[0];
        let mut pool = any.pool.clone();
        pool.mode = PoolMode::Session;
        config.databases.push(Database {
            name: IN_SESSION_POOLING.to_owned(),
            cluster: any.cluster.clone(),
            max_connections: None,
            max_clients: None,
            routing: any.routing,
            dbname: Some("postgres".to_owned()),
            pool,
        });
    });
    for (driver, least) in [("libpq", 500), ("jdbc", 700), ("tokio-postgres", 250)] {
        compare(&rig, driver, least, &["postgres", IN_SESSION_POOLING]);
    }
    reads_went_to_standbys(&rig);
}

/// The proxy's name for the database `postgres` in session pooling.
const IN_SESSION_POOLING: &str = "postgres_by_session";

/// Walks a driver's round straight to the primary, then through the proxy under each of these names of the database.
/// The transcripts have more lines than `least`.
#[track_caller]
fn compare(rig: &Rig, driver: &str, least: usize, databases: &[&str]) {
    let straight = transcript(driver, &rig.cluster.primary().url("postgres"));
    assert!(straight.lines().count() > least, "{driver}: {straight}");
    for database in databases {
        let proxied = transcript(driver, &rig.url(database));
        for (number, (straight, proxied)) in straight.lines().zip(proxied.lines()).enumerate() {
            let line = number + 1;
            assert_eq!(proxied, straight, "{driver} on {database}, line {line}");
        }
        let (proxied, straight) = (proxied.lines().count(), straight.lines().count());
        assert_eq!(proxied, straight, "lines of {driver} on {database}");
    }
}

fn transcript(driver: &str, url: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/drivers");
    run(Command::new(script).args(["run", driver, url, "it_"])).0
}

#[track_caller]
fn reads_went_to_standbys(rig: &Rig) {
    let reads = rig.metric("pgweir_routed_statements_total", &[("target", "standby")]);
    assert!(reads > 0.0, "no read went to a standby");
    assert_eq!(rig.metric("pgweir_standby_refusals_total", &[]), 0.0);
}
