//! Hints, settings, listeners and the configuration: each decides where statements go, and none takes a write to a
//! standby that is not asked for standbys alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pgweir::config::{self, Config, Consistency, Hints, Listener, PoolMode, Route, Routing};
use pgweir::testbed::{Address, Cluster, RawClient, request};

use crate::support::{LIMIT, Rig, execute, logged, script, sqlstate, value};

const LOGIN: [(&str, &str); 2] = [("user", "postgres"), ("database", "postgres")];

/// A rig with one standby, whose nodes log every statement.
fn rig(change: impl FnOnce(&mut Config)) -> Rig {
    let cluster = Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all");
    Rig::with(cluster, change)
}

/// How many statements with this text the primary has logged, and how many the standby.
fn ran(rig: &Rig, text: &str) -> (usize, usize) {
    let on = |node| logged(node, text);
    (on(rig.cluster.primary()), on(rig.cluster.standbys()[0]))
}

const PRIMARY: (usize, usize) = (1, 0);
const STANDBY: (usize, usize) = (0, 1);

/// Runs a statement, whatever comes of it, and checks where it ran. `mark` is a part of it that no other has.
#[track_caller]
fn goes(rig: &Rig, client: &mut RawClient, sql: &str, mark: &str, to: (usize, usize)) {
    assert_eq!(ran(rig, mark), (0, 0), "{mark} is a mark of its own");
    let _ = client.query(sql);
    assert_eq!(ran(rig, mark), to, "{sql}");
}

/// Objects that the tests' statements name.
fn make_objects(rig: &Rig) {
    execute(
        &mut rig.client("postgres"),
        "CREATE TABLE t (n int); CREATE SEQUENCE s; \
         CREATE VIEW hidden AS SELECT nextval('s') AS n; CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'",
    );
    rig.cluster.wait_caught_up().expect("standbys");
    rig.learn("postgres");
}

#[test]
fn hints_decide_for_one_statement() {
    let rig = rig(|_| ());
    make_objects(&rig);
    // Each from a session of its own, which has written nothing.
    let go = |sql: &str, mark: &str, to| goes(&rig, &mut rig.client("postgres"), sql, mark, to);
    go("SELECT 11", "SELECT 11", STANDBY);
    go("/* pgweir: primary */ SELECT 12", "SELECT 12", PRIMARY);
    go("SELECT f(13)", "f(13)", PRIMARY);
    go("/* pgweir: standby */ SELECT f(14)", "f(14)", STANDBY);
    let port = "-- pgweir: standby\nSELECT inet_server_port()";
    assert_eq!(
        value(&mut rig.client("postgres"), port),
        rig.cluster.standbys()[0].port().to_string()
    );
    let writes = "/* pgweir: standby */ SELECT nextval('s'), f(16)";
    go(writes, "f(16)", PRIMARY);
    let inserts = "/* pgweir: standby */ INSERT INTO t VALUES (17)";
    go(inserts, "(17)", PRIMARY);
    let locks = "/* pgweir: standby */ SELECT n, f(21) FROM hidden";
    go(locks, "f(21)", PRIMARY);
    go("SELECT f(18) /* pgweir: standby */", "f(18)", PRIMARY);
    go("/* pgweir: nearest */ SELECT f(19)", "f(19)", PRIMARY);
    let hints = |result| rig.metric("pgweir_hints_total", &[("result", result)]);
    assert_eq!(
        ["followed", "in_vain", "malformed", "forbidden"].map(hints),
        [3.0, 3.0, 1.0, 0.0]
    );
    // Prepared with its hint, and run often.
    let mut client = rig.client("postgres");
    let prepare = request::parse("p", "/* pgweir: standby */ SELECT f(20)", &[]);
    client.send(&[prepare, request::sync()].concat()).unwrap();
    client.recv_until_ready().expect("prepared");
    let run = [
        request::bind("", "p", &[]),
        request::execute("", 0),
        request::sync(),
    ];
    for _ in 0..3 {
        client.send(&run.concat()).unwrap();
        client.recv_until_ready().expect("run");
    }
    assert_eq!(ran(&rig, "f(20)"), (0, 3));
    assert_eq!(
        value(&mut client, "/* pgweir: primary */ SELECT count(*) FROM t"),
        "1"
    );
}

#[test]
fn settings_decide_for_their_session() {
    let rig = rig(|_| ());
    make_objects(&rig);
    let mut client = rig.client("postgres");
    let show = |client: &mut RawClient, expected: &str| {
        assert_eq!(value(client, "SHOW pgweir.route"), expected);
    };
    show(&mut client, "split");
    assert_eq!(value(&mut client, "SHOW pgweir.consistency"), "session");
    assert_eq!(value(&mut client, "SHOW pgweir.max_lag"), "10s");
    execute(&mut client, "SET pgweir.route = 'primary'");
    goes(&rig, &mut client, "SELECT 21", "SELECT 21", PRIMARY);
    show(&mut client, "primary");
    let hinted = "/* pgweir: standby */ SELECT 22";
    goes(&rig, &mut client, hinted, "SELECT 22", STANDBY);
    execute(&mut client, "RESET pgweir.route");
    goes(&rig, &mut client, "SELECT 23", "SELECT 23", STANDBY);
    // It goes back with its transaction, and SET LOCAL does in any case.
    for (end, sql, route) in [
        ("ROLLBACK", "SET pgweir.route TO primary_", "split"),
        ("ROLLBACK", "SET pgweir.route TO 'primary'", "split"),
        ("COMMIT", "SET LOCAL pgweir.route TO 'primary'", "split"),
        ("COMMIT", "SET pgweir.route TO 'primary'", "primary"),
    ] {
        execute(&mut client, "BEGIN");
        if sql.ends_with('_') {
            assert_eq!(sqlstate(&mut client, sql), "22023", "{sql}");
            assert_eq!(sqlstate(&mut client, "SELECT 1"), "25P02", "{sql}");
        } else {
            execute(&mut client, sql);
            show(&mut client, "primary");
        }
        execute(&mut client, end);
        show(&mut client, route);
    }
    goes(&rig, &mut client, "SELECT 24", "SELECT 24", PRIMARY);
    execute(&mut client, "DISCARD ALL");
    show(&mut client, "split");
    goes(&rig, &mut client, "SELECT 25", "SELECT 25", STANDBY);
    execute(
        &mut client,
        "SELECT set_config('pgweir.route', 'primary', false)",
    );
    goes(&rig, &mut client, "SELECT 26", "SELECT 26", PRIMARY);
    execute(&mut client, "RESET ALL");
    show(&mut client, "split");
    // Others have not noticed.
    show(&mut rig.client("postgres"), "split");
    for (parameter, text) in [
        ("pgweir.route", "primary"),
        ("options", "-c pgweir.route=primary"),
    ] {
        let mut client = rig.client_with(&[LOGIN[0], LOGIN[1], (parameter, text)]);
        show(&mut client, "primary");
        let mark = format!("SELECT 28 AS {}", parameter.replace('.', "_"));
        goes(&rig, &mut client, &mark, &mark, PRIMARY);
        execute(&mut client, "SET pgweir.route = 'standby'");
        execute(&mut client, "RESET ALL");
        show(&mut client, "primary");
    }
}

#[test]
fn values_that_do_not_exist_are_refused_in_their_place() {
    let rig = rig(|_| ());
    let mut client = rig.client("postgres");
    for (sql, code, text, hint) in [
        (
            "SET pgweir.route = 'observe'",
            "22023",
            "invalid value for parameter \"pgweir.route\": \"observe\"",
            "Available values: split, primary, standby.",
        ),
        (
            "SELECT set_config('pgweir.consistency', 'strong', false)",
            "22023",
            "invalid value for parameter \"pgweir.consistency\": \"strong\"",
            "Available values: eventual, session.",
        ),
        (
            "SET pgweir.max_lag = 5",
            "22023",
            "invalid value for parameter \"pgweir.max_lag\": \"5\"",
            "A whole number with a unit, at most 1d: ms, s, min, h or d, as in 5s.",
        ),
        (
            "SET pgweir.rout = 'primary'",
            "42704",
            "unrecognized configuration parameter \"pgweir.rout\"",
            "The proxy has pgweir.route, pgweir.consistency and pgweir.max_lag.",
        ),
    ] {
        client.send(&request::query(sql)).unwrap();
        let simple = client.recv_until_ready().expect("an answer");
        let (rows, is_set) = if sql.starts_with("SET") {
            ("", true)
        } else {
            ("T ", false)
        };
        assert_eq!(script(&simple), format!("{rows}E:{code} Z:I"));
        let error = simple.iter().find(|message| message.tag == b'E');
        let error = error.expect("an error").error().expect("fields");
        assert_eq!(error.message(), text);
        assert_eq!(error.field(b'H'), Some(hint));
        // As a server would: what stands behind it is skipped, and what stands before it is undone.
        let group = [
            request::parse("", "SET work_mem = '5MB'", &[]),
            request::bind("", "", &[]),
            request::execute("", 0),
            request::parse("", sql, &[]),
            request::bind("", "", &[]),
            request::execute("", 0),
            request::parse("", "SELECT 1", &[]),
            request::bind("", "", &[]),
            request::execute("", 0),
            request::sync(),
        ];
        client.send(&group.concat()).unwrap();
        let extended = client.recv_until_ready().expect("an answer");
        assert_eq!(script(&extended), format!("1 2 C:SET 1 2 E:{code} Z:I"));
        assert_ne!(value(&mut client, "SHOW work_mem"), "5MB");
        let several = format!("SET work_mem = '5MB'; {sql}");
        if is_set {
            assert_eq!(sqlstate(&mut client, &several), code);
            assert_ne!(value(&mut client, "SHOW work_mem"), "5MB");
        }
    }
    let login = [LOGIN[0], LOGIN[1], ("pgweir.route", "observe")];
    let refused = RawClient::connect(&rig.raw_address(), &login).map(|_| ());
    let refused = refused.expect_err("no such value");
    assert_eq!(refused.sqlstate(), Some("22023"), "{refused}");
}

#[test]
fn what_is_forbidden_is_a_comment_or_refused() {
    let rig = rig(|config| {
        config.databases[0].routing.hints = Some(Hints::Ignore);
        config.users.push(config::User {
            name: "trusted".to_owned(),
            routing: Routing {
                hints: Some(Hints::Allow),
                ..Routing::default()
            },
            ..config::User::default()
        });
    });
    make_objects(&rig);
    execute(
        &mut rig.client("postgres"),
        "CREATE ROLE trusted LOGIN; GRANT SELECT ON t TO trusted",
    );
    rig.cluster.wait_caught_up().expect("standbys");
    let mut client = rig.client("postgres");
    let primary = "/* pgweir: primary */ SELECT 31";
    goes(&rig, &mut client, primary, "SELECT 31", STANDBY);
    let standby = "/* pgweir: standby */ SELECT f(32)";
    goes(&rig, &mut client, standby, "f(32)", PRIMARY);
    let set = "SET pgweir.route = 'primary'";
    assert_eq!(sqlstate(&mut client, set), "42501");
    assert_eq!(value(&mut client, "SHOW pgweir.route"), "split");
    execute(&mut client, "RESET pgweir.route");
    let login = [LOGIN[0], LOGIN[1], ("options", "-c pgweir.route=primary")];
    let refused = RawClient::connect(&rig.raw_address(), &login).map(|_| ());
    assert_eq!(refused.expect_err("forbidden").sqlstate(), Some("42501"));
    let forbidden = [("result", "forbidden")];
    assert_eq!(rig.metric("pgweir_hints_total", &forbidden), 2.0);
    // Who is trusted may.
    let mut trusted = rig.client_with(&[("user", "trusted"), LOGIN[1]]);
    execute(&mut trusted, set);
    goes(&rig, &mut trusted, "SELECT 33", "SELECT 33", PRIMARY);
}

#[test]
fn databases_and_users_have_routes_of_their_own() {
    let rig = rig(|config| {
        let any = config.databases[0].clone();
        let named = |name: &str, route| config::Database {
            name: name.to_owned(),
            dbname: Some("postgres".to_owned()),
            routing: Routing {
                route: Some(route),
                ..Routing::default()
            },
            ..any.clone()
        };
        config.databases.push(named("shop_ro", Route::Standby));
        config.databases.push(named("shop_rw", Route::Primary));
        config.users.push(config::User {
            name: "report".to_owned(),
            routing: Routing {
                route: Some(Route::Primary),
                max_lag: Some(Duration::from_secs(3600)),
                ..Routing::default()
            },
            ..config::User::default()
        });
    });
    make_objects(&rig);
    execute(&mut rig.client("postgres"), "CREATE ROLE report LOGIN");
    rig.cluster.wait_caught_up().expect("standbys");
    let mut reader = rig.client("shop_ro");
    assert_eq!(reader.parameters()["in_hot_standby"], "on");
    assert_eq!(value(&mut reader, "SHOW pgweir.route"), "standby");
    assert_eq!(value(&mut reader, "SELECT pg_is_in_recovery()"), "t");
    goes(&rig, &mut reader, "SELECT f(41)", "f(41)", STANDBY);
    let mut writer = rig.client("shop_rw");
    assert_eq!(writer.parameters()["in_hot_standby"], "off");
    goes(&rig, &mut writer, "SELECT 42", "SELECT 42", PRIMARY);
    // A default, which a session may leave.
    execute(&mut writer, "SET pgweir.route = 'split'");
    goes(&rig, &mut writer, "SELECT 43", "SELECT 43", STANDBY);
    execute(&mut writer, "RESET pgweir.route");
    goes(&rig, &mut writer, "SELECT 44", "SELECT 44", PRIMARY);
    // A user's is nearer than the database's.
    let mut report = rig.client_with(&[("user", "report"), ("database", "shop_ro")]);
    assert_eq!(value(&mut report, "SHOW pgweir.max_lag"), "1h");
    goes(&rig, &mut report, "SELECT 45", "SELECT 45", PRIMARY);
}

/// A Unix socket for another listener.
fn socket(name: &str) -> PathBuf {
    let process = std::process::id();
    std::env::temp_dir().join(format!("pgweir-it-{process}-{name}"))
}

/// A client of a Unix socket.
fn client_at(path: &Path) -> RawClient {
    let mut client = RawClient::connect(&Address::Unix(path.to_owned()), &LOGIN).expect("login");
    client.set_timeout(LIMIT);
    client
}

fn with_listener(config: &mut Config, path: &Path, route: Route) {
    config.listeners.push(Listener {
        address: config::Address::Unix(path.to_owned()),
        route,
    });
}

#[test]
fn a_listener_of_standbys_is_a_read_only_port() {
    for mode in [PoolMode::Transaction, PoolMode::Session] {
        let path = socket("standby");
        let rig = rig(|config| {
            config.databases[0].pool.mode = mode;
            with_listener(config, &path, Route::Standby);
        });
        make_objects(&rig);
        let mut client = client_at(&path);
        assert_eq!(client.parameters()["in_hot_standby"], "on");
        assert_eq!(value(&mut client, "SELECT pg_is_in_recovery()"), "t");
        assert_eq!(value(&mut client, "SHOW transaction_read_only"), "on");
        goes(&rig, &mut client, "SELECT f(51)", "f(51)", STANDBY);
        let hinted = "/* pgweir: primary */ SELECT 52";
        goes(&rig, &mut client, hinted, "SELECT 52", STANDBY);
        for sql in [
            "INSERT INTO t SELECT 1 AS mark",
            "SELECT nextval('s') AS mark",
            "CREATE TABLE mark (n int)",
            "LISTEN mark",
            "SELECT n AS mark FROM t FOR UPDATE",
        ] {
            assert_eq!(sqlstate(&mut client, sql), "25006", "{sql}");
        }
        assert_eq!(ran(&rig, "mark").0, 0, "the primary has heard of it");
        execute(&mut client, "BEGIN");
        goes(&rig, &mut client, "SELECT 54", "SELECT 54", STANDBY);
        execute(&mut client, "COMMIT");
        execute(&mut client, "SET pgweir.route = 'primary'");
        goes(&rig, &mut client, "SELECT 55", "SELECT 55", STANDBY);
        // That the standby refuses is what was asked for, and nothing to look into.
        assert_eq!(rig.metric("pgweir_standby_refusals_total", &[]), 0.0);
        // The other listener splits.
        let mut other = rig.client("postgres");
        assert_eq!(other.parameters()["in_hot_standby"], "off");
        execute(&mut other, "INSERT INTO t VALUES (56)");
        // Without a standby there is nobody to ask.
        rig.cluster.standbys()[0].kill9().expect("kill");
        rig.wait("the standby to be missed", || {
            rig.metric("pgweir_node_up", &[]) == 1.0
        });
        let mut late = client_at(&path);
        assert_eq!(sqlstate(&mut late, "SELECT 57"), "57P03");
        assert_eq!(ran(&rig, "SELECT 57"), (0, 0));
        let mut other = rig.client("postgres");
        assert_eq!(value(&mut other, "SELECT count(*) FROM t"), "1");
    }
}

#[test]
fn listeners_of_the_primary_and_for_observing_move_nothing() {
    let (primary, observe) = (socket("primary"), socket("observe"));
    let rig = rig(|config| {
        with_listener(config, &primary, Route::Primary);
        with_listener(config, &observe, Route::Observe);
    });
    make_objects(&rig);
    let mut client = client_at(&primary);
    goes(&rig, &mut client, "SELECT 61", "SELECT 61", PRIMARY);
    execute(&mut client, "SET pgweir.route = 'standby'");
    goes(&rig, &mut client, "SELECT 62", "SELECT 62", PRIMARY);
    let moved = |reason| {
        let labels = [("target", "standby"), ("reason", reason)];
        rig.metric("pgweir_would_have_moved_total", &labels)
    };
    assert_eq!([moved("read"), moved("hint")], [0.0, 0.0]);
    let mut client = client_at(&observe);
    assert_eq!(client.parameters()["in_hot_standby"], "off");
    goes(&rig, &mut client, "SELECT 63", "SELECT 63", PRIMARY);
    let hinted = "/* pgweir: standby */ SELECT f(64)";
    goes(&rig, &mut client, hinted, "f(64)", PRIMARY);
    let hinted = "/* pgweir: primary */ SELECT 66";
    goes(&rig, &mut client, hinted, "SELECT 66", PRIMARY);
    execute(&mut client, "SET pgweir.route = 'standby'");
    goes(&rig, &mut client, "SELECT 67", "SELECT 67", PRIMARY);
    goes(&rig, &mut client, "SELECT f(65)", "f(65)", PRIMARY);
    assert_eq!([moved("read"), moved("hint")], [2.0, 1.0]);
    // What the session has written keeps its reads where they are, here as there.
    rig.cluster.standbys()[0].pause_replay().expect("pause");
    execute(&mut client, "INSERT INTO t VALUES (1)");
    assert_eq!(value(&mut client, "SELECT count(*) FROM t"), "1");
    assert_eq!(moved("read"), 2.0);
    rig.cluster.standbys()[0].resume_replay().expect("resume");
}

#[test]
fn bounds_on_age_are_those_of_the_statement_the_session_or_the_user() {
    let rig = rig(|config| {
        config.clusters[0].reads.max_lag = Duration::from_secs(3600);
        let any = config.databases[0].clone();
        config.databases.push(config::Database {
            name: "fresh".to_owned(),
            dbname: Some("postgres".to_owned()),
            routing: Routing {
                max_lag: Some(Duration::from_millis(100)),
                ..Routing::default()
            },
            ..any.clone()
        });
        config.databases.push(config::Database {
            name: "lax".to_owned(),
            dbname: Some("postgres".to_owned()),
            routing: Routing {
                consistency: Some(Consistency::Eventual),
                ..Routing::default()
            },
            ..any
        });
    });
    make_objects(&rig);
    let standby = rig.cluster.standbys()[0];
    for database in ["fresh", "lax"] {
        rig.learn(database);
    }
    standby.pause_replay().expect("pause");
    let mut writer = rig.client("postgres");
    execute(&mut writer, "INSERT INTO t VALUES (1)");
    let count = |client: &mut RawClient, hint: &str| {
        value(client, &format!("{hint} SELECT count(*) FROM t"))
    };
    // The row is not on the standby, and will not be.
    let mut other = rig.client("postgres");
    assert_eq!(count(&mut other, ""), "0");
    assert_eq!(count(&mut writer, ""), "1");
    assert_eq!(count(&mut writer, "/* pgweir: stale=1h */"), "0");
    execute(&mut writer, "SET pgweir.consistency = 'eventual'");
    assert_eq!(count(&mut writer, ""), "0");
    execute(&mut writer, "RESET pgweir.consistency");
    assert_eq!(count(&mut writer, ""), "1");
    let mut lax = rig.client("lax");
    execute(&mut lax, "INSERT INTO t VALUES (2)");
    assert_eq!(count(&mut lax, ""), "0");
    assert_eq!(value(&mut lax, "SHOW pgweir.consistency"), "eventual");
    // By now, or soon, it lags by more than 100 ms.
    let lag = || {
        let labels = [("node", standby.name())];
        rig.metric("pgweir_node_replay_lag_seconds", &labels)
    };
    rig.wait("the standby to lag", || lag() > 0.2);
    assert_eq!(count(&mut other, ""), "0");
    assert_eq!(count(&mut other, "/* pgweir: stale=100ms */"), "2");
    execute(&mut other, "SET pgweir.max_lag = '100ms'");
    assert_eq!(count(&mut other, ""), "2");
    assert_eq!(count(&mut other, "/* pgweir: stale=1h */"), "0");
    execute(&mut other, "SET pgweir.route = 'standby'");
    assert_eq!(sqlstate(&mut other, "SELECT count(*) FROM t"), "57P03");
    assert_eq!(count(&mut rig.client("fresh"), ""), "2");
    standby.resume_replay().expect("resume");
}
