//! pg_dump writes the same through the proxy as straight, and what pg_restore makes of it through the proxy dumps alike.

use std::path::Path;
use std::process::Command;

use pgweir::config::PoolMode;

use crate::support::{Rig, program, run};

#[test]
fn in_transaction_pooling() {
    there_and_back(PoolMode::Transaction);
}

#[test]
fn in_session_pooling() {
    there_and_back(PoolMode::Session);
}

fn there_and_back(mode: PoolMode) {
    let rig = Rig::start(1, |config| {
        config.databases[0].pool.mode = mode;
    });
    let primary = rig.cluster.primary();
    let restored = ["from_custom", "from_directory"];
    for database in ["source"].iter().chain(&restored) {
        let create = format!("CREATE DATABASE {database}");
        primary.execute(&create).expect("the primary takes it");
    }
    let psql = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", CONTENT, "-d"];
    run(program(&rig.cluster, "psql")
        .args(psql)
        .arg(primary.url("source")));

    let straight = dump(&rig, &primary.url("source"));
    for part in [
        "CREATE SEQUENCE",
        "CREATE VIEW",
        "CREATE FUNCTION",
        "lo_create",
    ] {
        assert!(straight.contains(part), "no {part}: {straight}");
    }
    assert_same(&dump(&rig, &rig.url("source")), &straight, "a dump");

    let custom = rig.cluster.dir().join("dump.custom");
    let directory = rig.cluster.dir().join("dump.directory");
    run(pg(&rig, "pg_dump", &rig.url("source"), &["-Fc", "-f"]).arg(&custom));
    run(pg(&rig, "pg_dump", &rig.url("source"), &["-Fd", "-j2", "-f"]).arg(&directory));
    for (database, path, jobs) in [
        (restored[0], &custom as &Path, "-j1"),
        (restored[1], &directory, "-j2"),
    ] {
        run(pg(&rig, "pg_restore", &rig.url(database), &["-e", jobs]).arg(path));
        assert_same(&dump(&rig, &primary.url(database)), &straight, database);
    }
    assert_eq!(rig.metric("pgweir_standby_refusals_total", &[]), 0.0);
}

/// A bit of everything that a dump has a form of its own for.
const CONTENT: &str = r#"
    CREATE SCHEMA shop;
    CREATE TYPE shop.state AS ENUM ('new', 'paid', 'sent');
    CREATE DOMAIN shop.amount AS numeric(10,2) CHECK (VALUE >= 0);
    CREATE SEQUENCE shop.number START 1000 INCREMENT 7;
    CREATE TABLE shop.customer (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, picture bytea);
    CREATE TABLE shop."order" (
        number int PRIMARY KEY DEFAULT nextval('shop.number'), customer int REFERENCES shop.customer,
        state shop.state DEFAULT 'new', price shop.amount, at timestamptz DEFAULT '2024-02-29 12:00Z', tags text[]);
    CREATE INDEX ON shop."order" (customer) WHERE state <> 'sent';
    COMMENT ON COLUMN shop."order".tags IS 'it''s a comment';
    CREATE VIEW shop.unpaid AS SELECT number, price FROM shop."order" WHERE state = 'new';
    CREATE MATERIALIZED VIEW shop.totals AS SELECT customer, sum(price) AS total FROM shop."order" GROUP BY customer;
    CREATE FUNCTION shop.double(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
    CREATE FUNCTION shop.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := '2024-03-01Z'; RETURN NEW; END $$;
    INSERT INTO shop.customer (name, picture)
        SELECT E'name\t' || n || E'\n', decode(repeat(md5(n::text), 20), 'hex') FROM generate_series(1, 2000) n;
    INSERT INTO shop."order" (customer, state, price, tags)
        SELECT n % 2000 + 1, (ARRAY['new', 'paid', 'sent'])[n % 3 + 1]::shop.state, n * 1.25, ARRAY['a"b', NULL, n::text]
        FROM generate_series(1, 5000) n;
    REFRESH MATERIALIZED VIEW shop.totals;
    CREATE TRIGGER stamp BEFORE UPDATE ON shop."order" FOR EACH ROW EXECUTE FUNCTION shop.stamp();
    SELECT lo_from_bytea(70000 + n, decode(repeat(md5(n::text), n * 200), 'hex')) FROM generate_series(1, 20) n;
    COMMENT ON LARGE OBJECT 70001 IS 'the first';
    GRANT SELECT ON LARGE OBJECT 70002 TO PUBLIC;
"#;

/// A dump as text, without the lines that bear a random key since PostgreSQL 15.14.
fn dump(rig: &Rig, url: &str) -> String {
    let (text, _) = run(&mut pg(rig, "pg_dump", url, &[]));
    let kept = text.lines().filter(|line| {
        let is_key = line.starts_with(r"\restrict ") || line.starts_with(r"\unrestrict ");
        !is_key
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// Equality, without megabytes in the message.
#[track_caller]
fn assert_same(received: &str, expected: &str, what: &str) {
    for (number, (received, expected)) in received.lines().zip(expected.lines()).enumerate() {
        assert_eq!(received, expected, "{what}, line {}", number + 1);
    }
    let (received, expected) = (received.lines().count(), expected.lines().count());
    assert_eq!(received, expected, "lines of {what}");
}

fn pg(rig: &Rig, name: &str, url: &str, arguments: &[&str]) -> Command {
    let mut command = program(&rig.cluster, name);
    command.args(["-d", url]).args(arguments);
    command
}
