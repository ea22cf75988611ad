//! RELOAD: what can hold at once holds at once, what cannot is named, and a configuration with faults changes nothing.

use std::time::Duration;

use pgweir::config::{AuthMethod, Config, Database, PoolMode, Secret, User, UserSecret, Users};
use pgweir::testbed::{RawClient, request};

use crate::support::{Rig, extended, program, script, sqlstate, value};

fn rig(change: impl FnOnce(&mut Config)) -> Rig {
    Rig::start(0, |config| {
        config.admin.users = vec!["postgres".to_owned()];
        change(config);
    })
}

/// Changes the file and has it read; returns what the console says.
fn reload(rig: &Rig, change: impl FnOnce(&mut Config)) -> String {
    rig.edit(change);
    say_reload(rig)
}

fn say_reload(rig: &Rig) -> String {
    let mut console = rig.client("pgweir");
    console.send(&request::query("RELOAD")).unwrap();
    let messages = console.recv_until_ready().unwrap();
    let said = messages
        .iter()
        .filter(|message| matches!(message.tag, b'E' | b'N'));
    let said = said.map(|message| message.error().unwrap().message().to_owned());
    let said: Vec<_> = said.chain([script(&messages)]).collect();
    said.join("; ")
}

const DONE: &str = "C:RELOAD Z:I";

/// Server connections for clients.
fn connections(rig: &Rig) -> String {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'";
    rig.cluster.primary().value(sql).unwrap()
}

fn counted(rig: &Rig) -> RawClient {
    rig.client_with(&[
        ("user", "postgres"),
        ("database", "postgres"),
        ("application_name", "counted"),
    ])
}

/// The SQLSTATE with which a login is refused.
#[track_caller]
fn refusal(rig: &Rig, parameters: &[(&str, &str)]) -> String {
    match RawClient::connect(&rig.raw_address(), parameters) {
        Ok(_) => panic!("{parameters:?}: let in"),
        Err(error) => error
            .sqlstate()
            .unwrap_or_else(|| panic!("{error}"))
            .to_owned(),
    }
}

#[test]
fn pools_grow_and_shrink_under_their_clients() {
    let rig = rig(|config| config.databases[0].pool.size = 1);
    let mut clients: Vec<_> = (0..3).map(|_| counted(&rig)).collect();
    let [a, b, c] = &mut clients[..] else {
        panic!("three")
    };
    // State that goes along.
    a.query("SET work_mem = '3MB'").unwrap();
    extended(b, "SELECT 1");
    a.query("BEGIN; SELECT 1").unwrap();
    assert_eq!(
        reload(&rig, |config| config.databases[0].pool.size = 2),
        DONE
    );
    b.query("BEGIN; SELECT 1").unwrap();
    c.query("BEGIN; SELECT 1").unwrap();
    for client in [&mut *a, &mut *b, &mut *c] {
        client.query("COMMIT").unwrap();
    }
    assert_eq!(value(a, "SHOW work_mem"), "3MB");
    assert_eq!(
        reload(&rig, |config| config.databases[0].pool.size = 1),
        DONE
    );
    a.query("BEGIN; SELECT 1").unwrap();
    // All that was open before is closed.
    rig.wait("one server connection", || connections(&rig) == "1");
    let waiting = || rig.metric("pgweir_pool_waiting", &[]);
    b.send(&request::query("SELECT 2")).unwrap();
    rig.wait("the client to wait", || waiting() == 1.0);
    a.query("COMMIT").unwrap();
    b.recv_until_ready().unwrap();
    assert_eq!(value(a, "SHOW work_mem"), "3MB");
    assert_eq!(rig.metric("pgweir_reloads_total", &[]), 2.0);
}

#[test]
fn bounds_on_time_hold_for_those_who_are_there() {
    let rig = rig(|_| ());
    let mut idle = rig.client("postgres");
    idle.query("SELECT 1").unwrap();
    let mut open = rig.client("postgres");
    open.query("SELECT 1").unwrap();
    let bound = Some(Duration::from_millis(200));
    let user = User {
        name: "postgres".to_owned(),
        idle_in_transaction: bound,
        ..User::default()
    };
    assert_eq!(reload(&rig, |config| config.users = vec![user]), DONE);
    open.query("BEGIN; SELECT 1").unwrap();
    let messages = open.recv_until_closed().unwrap();
    assert_eq!(messages[0].error().unwrap().code(), "25P03");
    assert_eq!(value(&mut idle, "SELECT 1"), "1");
    // The console is not among them.
    assert_eq!(
        reload(&rig, |config| config.users[0].client_idle = bound),
        DONE
    );
    let messages = idle.recv_until_closed().unwrap();
    assert_eq!(messages[0].error().unwrap().code(), "57P05");
    assert_eq!(reload(&rig, |config| config.users.clear()), DONE);
    let mut free = rig.client("postgres");
    free.query("BEGIN; SELECT 1").unwrap();
    assert_eq!(value(&mut free, "SELECT pg_sleep(0.5)::text || 'x'"), "x");
    free.query("COMMIT").unwrap();
}

#[test]
fn passwords_are_those_of_the_file() {
    let users = |password: &str| {
        let secret = UserSecret::Plain(Secret::new(password.to_owned()));
        Some(Users(vec![("postgres".to_owned(), secret)]))
    };
    let rig = rig(|config| {
        config.auth.method = AuthMethod::ScramSha256;
        config.auth.users = users("first");
    });
    let psql = |password: &str, database: &str, sql: &str| {
        let mut psql = program(&rig.cluster, "psql");
        psql.env("PGPASSWORD", password).args(["-XAt", "-c", sql]);
        psql.arg(format!(
            "postgresql://postgres@{}/{database}",
            rig.address()
        ));
        let output = psql.output().expect("psql runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    };
    assert_eq!(psql("first", "postgres", "SELECT 'in'"), "in\n");
    rig.edit(|config| config.auth.users = users("second"));
    assert_eq!(psql("first", "pgweir", "RELOAD"), "RELOAD\n");
    assert_eq!(psql("second", "postgres", "SELECT 'in'"), "in\n");
    let refused = psql("first", "postgres", "SELECT 'in'");
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
}

#[test]
fn users_come_and_go() {
    let users = |names: &[&str]| {
        let secret = || UserSecret::Plain(Secret::new("secret".to_owned()));
        let user = |name: &&str| ((*name).to_owned(), secret());
        Some(Users(names.iter().map(user).collect()))
    };
    let rig = rig(|config| config.auth.users = users(&["postgres"]));
    rig.cluster
        .primary()
        .execute("CREATE ROLE late LOGIN")
        .unwrap();
    let late = [("user", "late"), ("database", "postgres")];
    assert_eq!(refusal(&rig, &late), "28000");
    assert_eq!(
        reload(&rig, |config| config.auth.users =
            users(&["postgres", "late"])),
        DONE
    );
    let mut client = rig.client_with(&late);
    assert_eq!(value(&mut client, "SELECT current_user"), "late");
    assert_eq!(
        reload(&rig, |config| config.auth.users = users(&["postgres"])),
        DONE
    );
    assert_eq!(refusal(&rig, &late), "28000");
    // Who is in stays in.
    assert_eq!(value(&mut client, "SELECT current_user"), "late");
    // Administrators as well.
    assert_eq!(reload(&rig, |config| config.admin.users.clear()), DONE);
    assert_eq!(
        refusal(&rig, &[("user", "postgres"), ("database", "pgweir")]),
        "28000"
    );
}

#[test]
fn databases_come_and_go() {
    let rig = rig(|_| ());
    let named = |config: &Config, name: &str, dbname: Option<&str>| Database {
        name: name.to_owned(),
        dbname: dbname.map(str::to_owned),
        ..config.databases[0].clone()
    };
    let mut early = rig.client("template1");
    assert_eq!(value(&mut early, "SELECT current_database()"), "template1");
    let change = |config: &mut Config| {
        let other = named(config, "other", Some("template1"));
        let own = named(config, "postgres", None);
        config.databases = vec![other, own];
    };
    assert_eq!(reload(&rig, change), DONE);
    let mut other = rig.client("other");
    assert_eq!(value(&mut other, "SELECT current_database()"), "template1");
    let parameters = [("user", "postgres"), ("database", "template1")];
    assert_eq!(refusal(&rig, &parameters), "3D000");
    assert_eq!(value(&mut early, "SELECT current_database()"), "template1");
    // The same name for another database: for those who come now.
    let change = |config: &mut Config| config.databases[0].dbname = Some("postgres".to_owned());
    assert_eq!(reload(&rig, change), DONE);
    assert_eq!(value(&mut other, "SELECT current_database()"), "template1");
    let mut new = rig.client("other");
    assert_eq!(value(&mut new, "SELECT current_database()"), "postgres");
}

#[test]
fn another_pool_mode_is_for_new_clients() {
    let rig = rig(|_| ());
    let mut before = rig.client("postgres");
    before.query("SELECT 1").unwrap();
    let change = |config: &mut Config| config.databases[0].pool.mode = PoolMode::Statement;
    assert_eq!(reload(&rig, change), DONE);
    before.query("BEGIN; SELECT 1").unwrap();
    before.query("COMMIT").unwrap();
    let mut after = rig.client("postgres");
    assert_eq!(sqlstate(&mut after, "BEGIN"), "0A000");
}

/// Nothing is begun that could only be ended with the session: also behind another statement, and by who keeps a connection.
#[test]
fn statement_pooling_begins_nothing() {
    let rig = rig(|config| config.databases[0].pool.mode = PoolMode::Statement);
    let begin = request::query("BEGIN");
    let by_messages = [
        request::parse("", "BEGIN", &[]),
        request::bind("", "", &[]),
        request::execute("", 0),
        request::sync(),
    ]
    .concat();
    let mut client = rig.client("postgres");
    for pinned in [false, true] {
        if pinned {
            let sql = "CREATE TEMP TABLE kept (n int)";
            client.query(sql).unwrap();
        }
        for begin in [&begin, &by_messages] {
            for before in [0, 3] {
                let selects = request::query("SELECT 1").repeat(before);
                client
                    .send(&[&selects[..], begin, &request::query("SELECT 2")].concat())
                    .unwrap();
                for _ in 0..before {
                    let answer = client.recv_until_ready().unwrap();
                    assert!(answer.iter().all(|message| message.tag != b'E'));
                }
                let answer = client.recv_until_ready().unwrap();
                let error = answer
                    .iter()
                    .find(|message| message.tag == b'E')
                    .expect("an error");
                assert_eq!(error.error().unwrap().code(), "0A000");
                let answer = client.recv_until_ready().unwrap();
                assert!(answer.iter().any(|message| message.tag == b'D'));
            }
        }
    }
    assert_eq!(value(&mut client, "SELECT count(*) FROM kept"), "0");
}

/// What clients still have of pools that new clients do not get is shown with those.
#[test]
fn pools_that_are_replaced_are_shown_while_they_are_used() {
    let rig = rig(|_| ());
    let mut before = rig.client("postgres");
    before.query("BEGIN; SELECT 1").unwrap();
    let change = |config: &mut Config| config.databases[0].pool.mode = PoolMode::Statement;
    assert_eq!(reload(&rig, change), DONE);
    let shown = || {
        let mut console = rig.client("pgweir");
        console.send(&request::query("SHOW POOLS")).unwrap();
        let messages = console.recv_until_ready().unwrap();
        let columns = messages[0].column_names().unwrap();
        let wanted = ["cl_active", "sv_active", "pool_mode"];
        let places = wanted.map(|name| columns.iter().position(|column| column == name).unwrap());
        let rows = messages.iter().filter(|message| message.tag == b'D');
        let rows = rows.map(|row| row.text_row().unwrap());
        let of_it = rows.filter(|row| row[0].as_deref() == Some("postgres"));
        let told = of_it.map(|row| places.map(|at| row[at].clone().unwrap()).join(" "));
        told.collect::<Vec<_>>()
    };
    let active = || rig.metric("pgweir_pool_connections", &[("state", "active")]);
    assert_eq!(shown(), ["1 1 statement"]);
    assert_eq!(active(), 1.0);
    let mut after = rig.client("postgres");
    after.query("SELECT 1").unwrap();
    assert_eq!(shown(), ["2 1 statement"]);
    assert_eq!(active(), 1.0);
    before.query("COMMIT").unwrap();
    rig.wait("the connection to be given back", || active() == 0.0);
    drop(before);
    rig.wait("the old pools to be forgotten", || {
        shown() == ["1 0 statement"]
    });
}

#[test]
fn bounds_on_clients_and_connections_are_those_of_now() {
    let rig = rig(|_| ());
    let _one = rig.client("postgres");
    let _two = counted(&rig);
    let change = |config: &mut Config| {
        config.databases[0].max_clients = Some(2);
        config.databases[0].max_connections = Some(1);
    };
    assert_eq!(reload(&rig, change), DONE);
    let parameters = |database| [("user", "postgres"), ("database", database)];
    assert_eq!(refusal(&rig, &parameters("postgres")), "53300");
    assert_eq!(reload(&rig, |config| config.limits.max_clients = 2), DONE);
    assert_eq!(refusal(&rig, &parameters("template1")), "53300");
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    let rig = rig(|config| config.databases[0].pool.size = 1);
    let mut client = rig.client("postgres");
    client.query("SELECT 1").unwrap();
    let said = reload(&rig, |config| {
        config.workers = 3;
        config.clusters[0].nodes.clear();
        config.timeouts.shutdown = Duration::from_secs(77);
    });
    let keys = "counts from the next start: process.workers, cluster.main, timeouts.shutdown";
    assert_eq!(said, format!("{keys}; N:00000 {DONE}"));
    assert_eq!(value(&mut client, "SELECT 2"), "2");
    rig.spoil("proxy.toml:7:1: that is no key");
    let said = say_reload(&rig);
    assert_eq!(
        said,
        "RELOAD failed: proxy.toml:7:1: that is no key; E:F0000 Z:I"
    );
    assert_eq!(value(&mut client, "SELECT 3"), "3");
    assert_eq!(rig.metric("pgweir_reload_failures_total", &[]), 1.0);
}
