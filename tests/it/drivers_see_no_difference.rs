//! A scripted round in three drivers gives the same transcript straight and through the proxy: connect, types, prepared
//! statements, pipelines, transactions, errors, cursors, COPY, cancel.

use std::path::Path;
use std::process::Command;

use crate::support::{Rig, run};

fn transcript(driver: &str, url: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/drivers");
    run(Command::new(script).args(["run", driver, url, "it_"])).0
}

#[test]
fn six_drivers() {
    let rig = Rig::start(2, |_| ());
    for (driver, least) in [
        ("psycopg", 50),
        ("psycopg2", 50),
        ("sqlalchemy", 25),
        ("asyncpg", 50),
        ("pg", 50),
        ("postgres", 45),
    ] {
        let straight = transcript(driver, &rig.cluster.primary().url("postgres"));
        let proxied = transcript(driver, &rig.url("postgres"));
        assert!(straight.lines().count() > least, "{driver}: {straight}");
        for (number, (straight, proxied)) in straight.lines().zip(proxied.lines()).enumerate() {
            assert_eq!(straight, proxied, "{driver}, line {}", number + 1);
        }
        assert_eq!(
            straight.lines().count(),
            proxied.lines().count(),
            "{driver}"
        );
    }
    assert!(
        rig.metric("pgweir_routed_statements_total", &[("target", "standby")]) > 0.0,
        "reads went to the standbys"
    );
    assert_eq!(rig.metric("pgweir_standby_refusals_total", &[]), 0.0);
}
