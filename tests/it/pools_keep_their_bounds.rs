//! Sizes, reserves, minima, and bounds that pools share: what is asked for is kept, and who waits is served.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pgweir::config::{Config, PoolMode, User};
use pgweir::testbed::{Cluster, RawClient, request};

use crate::support::{LIMIT, Rig, execute, run, value};

/// Users with pools of their own, so that tests can count their connections.
const USERS: &str = "CREATE ROLE one LOGIN; CREATE ROLE two LOGIN";

fn rig(change: impl FnOnce(&mut Config)) -> Rig {
    let rig = Rig::start(0, change);
    rig.cluster.primary().execute(USERS).unwrap();
    rig
}

fn client(rig: &Rig, user: &str, database: &str) -> RawClient {
    rig.client_with(&[("user", user), ("database", database)])
}

/// Server connections of the two users.
fn connections(rig: &Rig) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('one', 'two')";
    rig.cluster.primary().value(sql).unwrap().parse().unwrap()
}

fn waiting(rig: &Rig) -> f64 {
    rig.metric("pgweir_pool_waiting", &[])
}

/// Sends a statement that has to wait, and returns when it does.
fn queue(rig: &Rig, client: &mut RawClient, sql: &str) {
    let before = waiting(rig);
    client.send(&request::query(sql)).unwrap();
    rig.wait("the client to wait", || waiting(rig) > before);
}

fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        ..User::default()
    }
}

/// What keeps a database from being dropped, renamed or copied is nobody's connection.
#[test]
fn idle_connections_are_in_nobodys_way() {
    let rig = rig(|_| {});
    let mut admin = client(&rig, "postgres", "postgres");
    let mut execute = |sql: &str| {
        let begun = Instant::now();
        admin
            .query(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        // The server waits for five seconds for others to leave, and does not have to.
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{sql}: {:?}",
            begun.elapsed()
        );
    };
    let visit = |database: &str| {
        let mut client = client(&rig, "postgres", database);
        assert_eq!(value(&mut client, "SELECT 1"), "1");
    };
    execute("CREATE DATABASE a");
    visit("a");
    visit("template1");
    execute("CREATE DATABASE \"B\"");
    execute("CREATE DATABASE c TEMPLATE a");
    visit("a");
    execute("ALTER DATABASE a RENAME TO d");
    visit("B");
    visit("c");
    visit("d");
    for database in ["\"B\"", "IF EXISTS c", "d"] {
        execute(&format!("DROP DATABASE {database}"));
    }
}

#[test]
fn an_idle_connection_of_another_pool_makes_room() {
    let rig = rig(|config| config.clusters[0].nodes[0].max_connections = Some(2));
    let mut ones = [
        client(&rig, "one", "postgres"),
        client(&rig, "one", "postgres"),
    ];
    for one in &mut ones {
        one.query("BEGIN; SELECT 1").unwrap();
    }
    assert_eq!(connections(&rig), 2);
    for one in &mut ones {
        one.query("COMMIT").unwrap();
    }
    let mut two = client(&rig, "two", "template1");
    assert_eq!(value(&mut two, "SELECT current_user"), "two");
    assert!(connections(&rig) <= 2);
    assert_eq!(rig.metric("pgweir_pool_evictions_total", &[]), 1.0);
    for one in &mut ones {
        assert_eq!(value(one, "SELECT current_user"), "one");
    }
}

#[test]
fn a_connection_in_use_makes_room_when_it_comes_back() {
    let rig = rig(|config| {
        config.users = vec![User {
            max_connections: Some(1),
            ..user("one")
        }];
    });
    let mut first = client(&rig, "one", "postgres");
    // The other database has said what it tells clients, and its connection makes room again.
    let mut second = client(&rig, "one", "template1");
    first.query("BEGIN; SELECT 1").unwrap();
    queue(&rig, &mut second, "SELECT current_database()");
    first.query("COMMIT").unwrap();
    assert_eq!(second.recv_until_ready().unwrap().len(), 4);
    assert!(connections(&rig) <= 1);
}

#[test]
fn a_busy_pool_does_not_starve_another() {
    let rig = rig(|config| config.databases[0].max_connections = Some(1));
    let mut two = client(&rig, "two", "postgres");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut one = client(&rig, "one", "postgres");
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(value(&mut one, "SELECT current_user"), "one");
                }
            });
        }
        rig.wait("the pool to be busy", || waiting(&rig) >= 2.0);
        for _ in 0..5 {
            assert_eq!(value(&mut two, "SELECT current_user"), "two");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_reserve_is_for_those_who_have_waited() {
    const AFTER: Duration = Duration::from_millis(400);
    let rig = rig(|config| {
        let pool = &mut config.databases[0].pool;
        (pool.size, pool.reserve, pool.reserve_after) = (1, 1, AFTER);
    });
    let mut clients = [(); 3].map(|()| client(&rig, "one", "postgres"));
    let [first, second, third] = &mut clients;
    first.query("BEGIN; SELECT 1").unwrap();
    let since = Instant::now();
    second.query("BEGIN; SELECT 1").unwrap();
    assert!(since.elapsed() >= AFTER, "{:?}", since.elapsed());
    assert_eq!(connections(&rig), 2);
    queue(&rig, third, "SELECT 1");
    assert!(
        third.recv_within(AFTER * 2).unwrap().is_none(),
        "the reserve has an end"
    );
    first.query("COMMIT").unwrap();
    third.recv_until_ready().unwrap();
    second.query("COMMIT").unwrap();
    first.query("SELECT 1").unwrap();
    rig.wait("the reserve to be closed", || connections(&rig) == 1);
}

#[test]
fn who_waits_is_told_and_served_in_order() {
    let rig = rig(|config| config.databases[0].pool.size = 1);
    rig.cluster
        .primary()
        .execute(
            "CREATE TABLE turns (turn serial, who int); GRANT ALL ON turns, turns_turn_seq TO one",
        )
        .unwrap();
    let mut holder = client(&rig, "one", "postgres");
    let mut waiters = [(); 5].map(|()| client(&rig, "one", "postgres"));
    holder.query("BEGIN; SELECT 1").unwrap();
    for (number, waiter) in waiters.iter_mut().enumerate() {
        queue(
            &rig,
            waiter,
            &format!("INSERT INTO turns (who) VALUES ({number})"),
        );
    }
    let notice = waiters[0].recv().unwrap();
    assert_eq!(notice.tag, b'N');
    holder.query("COMMIT").unwrap();
    for (number, waiter) in waiters.iter_mut().enumerate() {
        let answer = waiter.recv_until_ready().unwrap();
        let notices = answer.iter().filter(|message| message.tag == b'N').count();
        // The first has read its own; the later ones may have waited less long.
        assert!(notices <= usize::from(number > 0), "{answer:?}");
    }
    let order = "SELECT string_agg(who::text, ' ' ORDER BY turn) FROM turns";
    assert_eq!(value(&mut holder, order), "0 1 2 3 4");
}

#[test]
fn a_minimum_is_kept_while_there_are_clients() {
    let rig = rig(|config| {
        config.databases[0].pool.min = 3;
        config.timeouts.server_idle = Duration::from_secs(1);
    });
    let mut clients = [(); 5].map(|()| client(&rig, "one", "postgres"));
    rig.wait("the minimum", || connections(&rig) == 3);
    for one in &mut clients {
        one.query("BEGIN; SELECT 1").unwrap();
    }
    assert_eq!(connections(&rig), 5);
    for one in &mut clients {
        one.query("COMMIT").unwrap();
    }
    rig.wait("the rest to be closed", || connections(&rig) <= 3);
    // The next look of the housekeeping takes none of them.
    let before = rig.metric("pgweir_pool_connects_total", &[]);
    assert!(
        clients[0]
            .recv_within(Duration::from_secs(3))
            .unwrap()
            .is_none()
    );
    assert_eq!(connections(&rig), 3);
    assert_eq!(rig.metric("pgweir_pool_connects_total", &[]), before);
    // Those that an administrator ends are neither counted nor missed for long.
    let ended =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'one'";
    assert_eq!(rig.cluster.primary().value(ended).unwrap(), "3");
    rig.wait("three others", || {
        let opened = rig.metric("pgweir_pool_connects_total", &[]) - before;
        let idle = [("user", "one"), ("state", "idle")];
        opened == 3.0
            && connections(&rig) == 3
            && rig.metric("pgweir_pool_connections", &idle) == 3.0
    });
    drop(clients);
    rig.wait("an empty pool", || connections(&rig) == 0);
    rig.wait("no trace of it", || {
        rig.metric("pgweir_pool_size", &[("user", "one")]) == 0.0
    });
}

#[test]
fn the_operators_sql_makes_connections_ready() {
    let rig = rig(|config| {
        let pool = &mut config.databases[0].pool;
        pool.size = 1;
        pool.connect_query = Some("SET my.origin = 'made'; SET work_mem = '7MB'".to_owned());
        pool.reset_query = Some("INSERT INTO resets DEFAULT VALUES".to_owned());
    });
    let primary = rig.cluster.primary();
    let table = "CREATE TABLE resets (at timestamptz DEFAULT now()); GRANT ALL ON resets TO one";
    primary.execute(table).unwrap();
    let mut one = client(&rig, "one", "postgres");
    let state = "SELECT current_setting('my.origin', true), current_setting('work_mem')";
    let see = |client: &mut RawClient| {
        let rows = client.query(state).unwrap();
        let row = rows.first().unwrap();
        let column = |at: usize| row[at].clone().unwrap_or_default();
        format!("{} {}", column(0), column(1))
    };
    assert_eq!(see(&mut one), "made 7MB");
    for undo in [
        "DISCARD ALL",
        "RESET ALL",
        "RESET work_mem",
        "DO $$ BEGIN END $$",
    ] {
        one.query(undo).unwrap();
        assert_eq!(
            see(&mut client(&rig, "one", "postgres")),
            "made 7MB",
            "after {undo}"
        );
    }
    let resets = primary.value("SELECT count(*) FROM resets").unwrap();
    assert_eq!(resets, "4", "each of them was cleaned");
}

/// What a client sets is taken back without what the operator has set, whoever comes behind it, and in whatever way it was
/// set.
#[test]
fn what_the_operators_sql_sets_outlives_every_client() {
    for mode in [PoolMode::Transaction, PoolMode::Statement] {
        let rig = rig(|config| {
            let pool = &mut config.databases[0].pool;
            (pool.size, pool.mode) = (1, mode);
            pool.connect_query = Some(
                "SET work_mem = '33MB'; SET search_path = pg_catalog; SET TimeZone = 'Asia/Tokyo'; SET my.origin = 'made'; \
                 SET ROLE two"
                    .to_owned(),
            );
        });
        let primary = rig.cluster.primary();
        primary.execute("GRANT two TO one").unwrap();
        let state = "SELECT concat_ws(' ', current_setting('work_mem'), current_setting('search_path'), \
                     current_setting('TimeZone'), current_setting('my.origin'), current_user)";
        let made = "33MB pg_catalog Asia/Tokyo made two";
        let mut bystander = client(&rig, "one", "postgres");
        assert_eq!(value(&mut bystander, state), made);
        for set in [
            "SET work_mem = '1MB'",
            "SET search_path = public",
            "SET TIME ZONE 'Etc/UTC'",
            "SET my.origin = 'mine'",
            "SET ROLE one",
            "SELECT set_config('work_mem', '2MB', false)",
        ] {
            let mut owner = client(&rig, "one", "postgres");
            execute(&mut owner, set);
            let own = value(&mut owner, state);
            assert_ne!(own, made, "after {set}");
            for _ in 0..2 {
                assert_eq!(value(&mut bystander, state), made, "after {set}");
                assert_eq!(value(&mut owner, state), own, "after {set}");
            }
            // Who logs in is told what is so.
            let mut other = client(&rig, "one", "postgres");
            assert_eq!(other.parameters()["TimeZone"], "Asia/Tokyo", "{set}");
            assert_eq!(value(&mut other, state), made, "after {set}");
        }
        let options = [
            ("user", "one"),
            ("database", "postgres"),
            ("options", "-c work_mem=3MB"),
        ];
        let mut startup = RawClient::connect(&rig.raw_address(), &options).unwrap();
        assert_eq!(value(&mut startup, "SHOW work_mem"), "3MB");
        assert_eq!(value(&mut bystander, state), made);
    }
}

#[test]
fn a_connect_query_that_fails_is_no_secret() {
    let rig = rig(|config| {
        config.databases[0].pool.connect_query = Some("SELECT nonsense".to_owned());
    });
    let parameters = [("user", "one"), ("database", "postgres")];
    let error = RawClient::connect(&rig.raw_address(), &parameters)
        .err()
        .unwrap();
    assert!(error.to_string().contains("nonsense"), "{error}");
}

#[test]
fn clients_are_bounded_by_database_and_by_user() {
    let rig = rig(|config| {
        config.databases[0].max_clients = Some(2);
        config.users = vec![User {
            max_clients: Some(1),
            ..user("two")
        }];
    });
    let refused = |user: &str, database: &str, why: &str| {
        let parameters = [("user", user), ("database", database)];
        let error = RawClient::connect(&rig.raw_address(), &parameters)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("53300") && error.contains(why), "{error}");
    };
    let one = client(&rig, "one", "postgres");
    let two = client(&rig, "two", "postgres");
    refused("one", "postgres", "max_db_client_connections");
    refused("two", "template1", "max_user_client_connections");
    // In "*" each name counts by itself.
    let other = client(&rig, "one", "template1");
    drop(two);
    rig.wait("a place", || {
        RawClient::connect(
            &rig.raw_address(),
            &[("user", "two"), ("database", "template1")],
        )
        .is_ok()
    });
    drop((one, other));
}

#[test]
fn a_full_node_is_waited_for() {
    let cluster = Cluster::builder().setting("max_connections", "8");
    let rig = Rig::with(cluster, |config| config.databases[0].pool.size = 20);
    rig.cluster.primary().execute(USERS).unwrap();
    // Three places are for superusers, and the monitor's is one.
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut one = client(&rig, "one", "postgres");
                for _ in 0..5 {
                    let sql = "SELECT current_user FROM pg_sleep(0.02)";
                    assert_eq!(value(&mut one, sql), "one");
                }
            });
        }
    });
    let failed = rig.metric("pgweir_pool_connects_total", &[("result", "failed")]);
    assert!((1.0..60.0).contains(&failed), "{failed}");
    assert_eq!(rig.metric("pgweir_primary_known", &[]), 1.0);
}

#[test]
fn refused_logins_do_not_hammer_the_node() {
    let cluster = Cluster::builder().hba("host all one 127.0.0.1/32 reject");
    let rig = Rig::with(cluster, |_| ());
    rig.cluster.primary().execute(USERS).unwrap();
    let parameters = [("user", "one"), ("database", "postgres")];
    for _ in 0..30 {
        let error = RawClient::connect(&rig.raw_address(), &parameters)
            .err()
            .unwrap();
        assert!(error.to_string().contains("pg_hba.conf rejects"), "{error}");
    }
    let failed = rig.metric("pgweir_pool_connects_total", &[("result", "failed")]);
    assert!(failed < 15.0, "{failed} attempts for 30 clients");
}

#[test]
fn a_dead_idle_connection_is_found_before_it_is_used() {
    let rig = rig(|config| {
        config.timeouts.server_check = Duration::ZERO;
        config.timeouts.connect = Duration::from_millis(500);
    });
    let mut one = client(&rig, "one", "postgres");
    let frozen = value(&mut one, "SELECT pg_backend_pid()");
    run(Command::new("kill").args(["-STOP", &frozen]));
    let since = Instant::now();
    let next = value(&mut one, "SELECT pg_backend_pid()");
    let took = since.elapsed();
    run(Command::new("kill").args(["-CONT", &frozen]));
    assert_ne!(next, frozen);
    assert!(took < LIMIT / 2, "{took:?}");
}

/// The answer to the question whether an idle connection still works is nobody else's to read.
#[test]
fn who_leaves_during_the_check_leaves_no_answer_behind() {
    let rig = rig(|config| {
        config.databases[0].pool.size = 1;
        config.timeouts.server_check = Duration::ZERO;
    });
    let mut one = client(&rig, "one", "postgres");
    let backend = value(&mut one, "SELECT pg_backend_pid()");
    run(Command::new("kill").args(["-STOP", &backend]));
    queue(&rig, &mut one, "SELECT 'for one'");
    drop(one);
    rig.wait("the client to be gone", || waiting(&rig) == 0.0);
    run(Command::new("kill").args(["-CONT", &backend]));
    for turn in 0..3 {
        let mut next = client(&rig, "one", "postgres");
        let sql = format!("SELECT 'for {turn}'");
        assert_eq!(value(&mut next, &sql), format!("for {turn}"));
    }
}

#[test]
fn a_user_may_have_pools_of_another_kind() {
    let rig = rig(|config| {
        config.users = vec![User {
            mode: Some(PoolMode::Session),
            size: Some(1),
            ..user("two")
        }];
    });
    let mut two = client(&rig, "two", "postgres");
    let process = two.backend_key().unwrap().process_id.to_string();
    assert_eq!(value(&mut two, "SELECT pg_backend_pid()"), process);
    let mut one = client(&rig, "one", "postgres");
    one.query("BEGIN; SELECT 1").unwrap();
    let mut more = client(&rig, "one", "postgres");
    assert_eq!(value(&mut more, "SELECT current_user"), "one");
}
