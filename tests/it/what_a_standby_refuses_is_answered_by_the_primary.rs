//! What a standby refuses, or loses, before its client has seen anything is answered by another node, in the place where its
//! answer belongs; it is learned where there is something to learn; and nothing runs twice on the primary.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pgweir::config::Config;
use pgweir::testbed::{Cluster, Node, RawClient, request};

use crate::support::{LIMIT, Rig, execute, logged, script, sqlstate, value};

/// How a statement comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Simple,
    Unnamed,
    Named,
    /// Between two others that are as good as any.
    Pipelined,
}

const FORMS: [Form; 4] = [Form::Simple, Form::Unnamed, Form::Named, Form::Pipelined];

/// What a client that has the table of one row called `one` gets for the other two of a pipeline.
const OTHER: &str = "T D:1 C:SELECT 1 Z:I";

impl Form {
    /// The statement, and all that has to be there first.
    fn send(self, client: &mut RawClient, sql: &str) {
        let run = |name: &str| {
            [
                request::bind("", name, &[]),
                request::describe_portal(""),
                request::execute("", 0),
                request::sync(),
            ]
            .concat()
        };
        let bytes = match self {
            Form::Simple => request::query(sql),
            Form::Unnamed => [request::parse("", sql, &[]), run("")].concat(),
            Form::Named => {
                let prepare = [
                    request::parse("s", sql, &[]),
                    request::describe_statement("s"),
                    request::sync(),
                    request::close_statement("s"),
                    request::parse("s", sql, &[]),
                    request::sync(),
                ];
                client.send(&prepare.concat()).unwrap();
                assert_eq!(answer(client), "1 t T Z:I", "{sql}");
                assert_eq!(answer(client), "3 1 Z:I", "{sql}");
                run("s")
            }
            Form::Pipelined => {
                let one = "SELECT a FROM one";
                [
                    request::query(one),
                    request::parse("", sql, &[]),
                    run(""),
                    request::query(one),
                ]
                .concat()
            }
        };
        client.send(&bytes).unwrap();
    }

    /// The answer, of which `row` says what comes after the description.
    fn expect(self, client: &mut RawClient, row: &str) {
        let expected = match self {
            Form::Simple => format!("T {row} C:SELECT 1 Z:I"),
            Form::Unnamed | Form::Pipelined => format!("1 2 T {row} C:SELECT 1 Z:I"),
            Form::Named => format!("2 T {row} C:SELECT 1 Z:I"),
        };
        if self == Form::Pipelined {
            assert_eq!(answer(client), OTHER);
        }
        assert_eq!(answer(client), expected, "{self:?}");
        if self == Form::Pipelined {
            assert_eq!(answer(client), OTHER);
        }
    }

    fn ask(self, client: &mut RawClient, sql: &str, row: &str) {
        self.send(client, sql);
        self.expect(client, row);
    }
}

fn answer(client: &mut RawClient) -> String {
    script(&client.recv_until_ready().expect("an answer"))
}

/// A cluster whose nodes log what they run, with a table of one row.
fn start(standbys: usize, change: impl FnOnce(&mut Config)) -> Rig {
    let logging = Cluster::builder()
        .standbys(standbys)
        .setting("log_statement", "all")
        .setting("log_line_prefix", "%m [%p] %a %e ")
        .setting("max_standby_streaming_delay", "0");
    let rig = Rig::with(logging, change);
    on_primary(&rig, "CREATE TABLE one AS SELECT 1 AS a");
    known(&rig);
    rig
}

/// Waits until what has been made is there on the standbys, and known to be harmless as far as can be told.
fn known(rig: &Rig) {
    rig.cluster.wait_caught_up().unwrap();
    rig.learn("postgres");
}

/// On the primary itself: the sessions of the proxy have not written, so that they read from standbys.
fn on_primary(rig: &Rig, sql: &str) {
    rig.cluster
        .primary()
        .execute(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn bounces(rig: &Rig, reason: &str) -> f64 {
    rig.metric("pgweir_bounces_total", &[("reason", reason)])
}

fn on_standbys(rig: &Rig, text: &str) -> usize {
    let nodes = rig.cluster.standbys();
    nodes.into_iter().map(|node| logged(node, text)).sum()
}

/// Functions that are declared to be stable and are not, each behind a view.
fn plant_liars(rig: &Rig, body: &str, names: &[&str]) {
    on_primary(rig, "CREATE TABLE notes (a int)");
    on_primary(
        rig,
        &format!(
            "CREATE FUNCTION note() RETURNS int LANGUAGE plpgsql AS $$ BEGIN {body} RETURN 7; END $$"
        ),
    );
    on_primary(
        rig,
        "CREATE FUNCTION liar() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN note(); END'",
    );
    for name in names {
        on_primary(rig, &format!("CREATE VIEW {name} AS SELECT liar() AS n"));
    }
    known(rig);
}

#[test]
fn a_planted_liar_is_found_out() {
    let rig = start(1, |_| ());
    let views = ["view_a", "view_b", "view_c", "view_d"];
    plant_liars(
        &rig,
        "RAISE NOTICE 'x'; INSERT INTO notes VALUES (1);",
        &views,
    );
    for (turn, (form, view)) in FORMS.into_iter().zip(views).enumerate() {
        let sql = format!("SELECT n FROM {view}");
        // The NOTICE before the refusal is the standby's own affair.
        let row = "N:00000 D:7";
        form.ask(&mut rig.client("postgres"), &sql, row);
        assert_eq!(bounces(&rig, "read_only"), turn as f64 + 1.0, "{form:?}");
        let refused = on_standbys(&rig, &sql);
        assert_eq!(logged(rig.cluster.primary(), &sql), 1, "{form:?}");

        // From now on everybody's goes straight to the primary, in any form.
        form.ask(&mut rig.client("postgres"), &sql, row);
        Form::Simple.ask(&mut rig.client("postgres"), &sql, row);
        assert_eq!(on_standbys(&rig, &sql), refused, "{form:?}");
        assert_eq!(bounces(&rig, "read_only"), turn as f64 + 1.0, "{form:?}");
    }
    let notes = rig.cluster.primary().value("SELECT count(*) FROM notes");
    assert_eq!(
        notes.unwrap(),
        (3 * FORMS.len()).to_string(),
        "each ran once"
    );
    assert_eq!(rig.metric("pgweir_learned_statements", &[]), 4.0);
}

/// A statement that was prepared before it was found out is known to be a write by everybody who has prepared it.
#[test]
fn who_has_prepared_a_liar_knows_it_too() {
    let rig = start(1, |_| ());
    plant_liars(&rig, "INSERT INTO notes VALUES (1);", &["view_a"]);
    let sql = "SELECT n FROM view_a";
    let mut clients = [rig.client("postgres"), rig.client("postgres")];
    for client in &mut clients {
        client
            .send(&[request::parse("s", sql, &[]), request::sync()].concat())
            .unwrap();
        assert_eq!(answer(client), "1 Z:I");
    }
    for client in &mut clients {
        for _ in 0..2 {
            let run = [
                request::bind("", "s", &[]),
                request::execute("", 0),
                request::sync(),
            ];
            client.send(&run.concat()).unwrap();
            assert_eq!(answer(client), "2 D:7 C:SELECT 1 Z:I");
            // It has written: the session reads that.
            assert_eq!(
                client.query("SELECT count(*) > 0 FROM notes").unwrap(),
                [[Some("t".to_owned())]]
            );
        }
    }
    assert_eq!(bounces(&rig, "read_only"), 1.0);
    let notes = rig.cluster.primary().value("SELECT count(*) FROM notes");
    assert_eq!(notes.unwrap(), "4");
}

#[test]
fn a_refusal_behind_rows_passes_and_is_learned() {
    let rig = start(1, |_| ());
    plant_liars(&rig, "INSERT INTO notes VALUES (1);", &["view_a"]);
    let sql = "SELECT i, CASE WHEN i = 5000 THEN (SELECT n FROM view_a) END FROM generate_series(1, 5000) i";
    assert_eq!(sqlstate(&mut rig.client("postgres"), sql), "25006");
    assert_eq!(bounces(&rig, "read_only"), 0.0);
    let rows = rig.client("postgres").query(sql).unwrap();
    assert_eq!(rows.len(), 5000);
    let notes = rig.cluster.primary().value("SELECT count(*) FROM notes");
    assert_eq!(notes.unwrap(), "1");
}

/// One that has become so when nobody looked.
#[test]
fn an_unlogged_table_is_read_on_the_primary() {
    let logging = Cluster::builder()
        .standbys(1)
        .setting("log_statement", "all")
        .start()
        .unwrap();
    for number in 0..FORMS.len() {
        let table = format!("CREATE TABLE unlogged_{number} AS SELECT 5 AS a");
        logging.primary().execute(&table).unwrap();
    }
    let table = "CREATE TABLE one AS SELECT 1 AS a";
    logging.primary().execute(table).unwrap();
    logging.wait_caught_up().unwrap();
    let rig = Rig::before(logging, |config| {
        config.clusters[0].reads.catalog_ttl = 60 * LIMIT;
    });
    rig.wait_ready();
    rig.wait("the tables to be known", || {
        execute(&mut rig.client("postgres"), "SELECT a FROM unlogged_0");
        on_standbys(&rig, "SELECT a FROM unlogged_0") > 0
    });
    for (number, form) in FORMS.into_iter().enumerate() {
        let table = format!("unlogged_{number}");
        on_primary(&rig, &format!("ALTER TABLE {table} SET UNLOGGED"));
        rig.cluster.wait_caught_up().unwrap();
        let sql = format!("SELECT a FROM {table}");
        form.ask(&mut rig.client("postgres"), &sql, "D:5");
        let refused = on_standbys(&rig, &sql);
        form.ask(&mut rig.client("postgres"), &sql, "D:5");
        assert_eq!(on_standbys(&rig, &sql), refused, "{form:?}");
    }
    assert_eq!(bounces(&rig, "unsupported"), FORMS.len() as f64);
}

#[test]
fn what_the_standby_has_not_replayed_is_read_on_the_primary() {
    let rig = start(1, |config| config.clusters[0].reads.max_lag = 60 * LIMIT);
    let standby = rig.cluster.standbys()[0];
    standby.pause_replay().unwrap();
    on_primary(&rig, "ALTER TABLE one ADD COLUMN b int DEFAULT 3");
    let sql = "SELECT b FROM one";
    for form in FORMS {
        let before = bounces(&rig, "undefined");
        form.ask(&mut rig.client("postgres"), sql, "D:3");
        assert!(bounces(&rig, "undefined") > before, "{form:?}");
    }
    // What is nowhere is refused by the primary, in its words.
    assert_eq!(
        sqlstate(&mut rig.client("postgres"), "SELECT c FROM one"),
        "42703"
    );
    standby.resume_replay().unwrap();
    rig.cluster.wait_caught_up().unwrap();
    // There is nothing to be learned from that.
    let before = (
        bounces(&rig, "undefined"),
        logged(rig.cluster.primary(), sql),
    );
    for form in FORMS {
        form.ask(&mut rig.client("postgres"), sql, "D:3");
    }
    let after = (
        bounces(&rig, "undefined"),
        logged(rig.cluster.primary(), sql),
    );
    assert_eq!(before, after);
}

/// A cluster whose standbys do not replay, and take long over [`NAP`]; the primary does not.
fn start_napping(standbys: usize) -> Rig {
    let rig = start(standbys, |config| {
        config.clusters[0].reads.max_lag = 60 * LIMIT
    });
    on_primary(&rig, "CREATE TABLE naps AS SELECT 600 AS seconds");
    known(&rig);
    for standby in rig.cluster.standbys() {
        standby.pause_replay().unwrap();
    }
    on_primary(&rig, "UPDATE naps SET seconds = 0");
    rig
}

const NAP: &str = "SELECT a FROM one WHERE pg_sleep((SELECT seconds FROM naps)) IS NOT NULL";

/// Sends it in every form.
fn nap(rig: &Rig) -> Vec<(Form, RawClient)> {
    let client = |form: Form| {
        let mut client = rig.client("postgres");
        form.send(&mut client, NAP);
        (form, client)
    };
    FORMS.into_iter().map(client).collect()
}

/// How many statements sleep on a node.
fn running(node: &Node) -> usize {
    let count = node.value(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_type = 'client backend'",
    );
    count.unwrap().parse().unwrap()
}

/// Ends the sessions of those who sleep, as a fast shutdown does.
fn terminate(node: &Node) {
    node.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
    )
    .unwrap();
}

#[test]
fn a_standby_that_is_killed_is_replaced() {
    let rig = start_napping(1);
    let clients = nap(&rig);
    let standby = rig.cluster.standbys()[0];
    rig.wait("all of them to run", || running(standby) == FORMS.len());
    standby.kill9().unwrap();
    for (form, mut client) in clients {
        form.expect(&mut client, "D:1");
        // The session goes on.
        Form::Simple.ask(&mut client, "SELECT a FROM one", "D:1");
    }
    assert_eq!(bounces(&rig, "lost"), FORMS.len() as f64);
    assert_eq!(
        logged(rig.cluster.primary(), NAP),
        FORMS.len(),
        "each ran once"
    );
}

#[test]
fn another_standby_takes_over_before_the_primary() {
    let rig = start_napping(2);
    let mut client = rig.client("postgres");
    client.send(&request::query(NAP)).unwrap();
    let standbys = rig.cluster.standbys();
    rig.wait("it to run", || {
        standbys.iter().any(|node| running(node) == 1)
    });
    let first = usize::from(running(standbys[0]) == 0);
    terminate(standbys[first]);
    rig.wait("the other standby to run it", || {
        running(standbys[1 - first]) == 1
    });
    assert_eq!(bounces(&rig, "shutdown"), 1.0);
    assert_eq!(logged(rig.cluster.primary(), NAP), 0);
    // Twice is enough.
    terminate(standbys[1 - first]);
    assert_eq!(answer(&mut client), OTHER);
    assert_eq!(bounces(&rig, "shutdown"), 2.0);
    assert_eq!(logged(rig.cluster.primary(), NAP), 1);
}

#[test]
fn a_conflict_with_recovery_is_not_the_clients() {
    let rig = start_napping(1);
    let clients = nap(&rig);
    let standby = rig.cluster.standbys()[0];
    rig.wait("all of them to run", || running(standby) == FORMS.len());
    // They look at what is taken away now.
    on_primary(&rig, "VACUUM naps");
    standby.resume_replay().unwrap();
    for (form, mut client) in clients {
        form.expect(&mut client, "D:1");
    }
    assert_eq!(bounces(&rig, "conflict"), FORMS.len() as f64);
    assert_eq!(
        logged(rig.cluster.primary(), NAP),
        FORMS.len(),
        "each ran once"
    );
}

#[test]
fn what_runs_elsewhere_is_cancelled_there() {
    let rig = start(1, |_| ());
    plant_liars(
        &rig,
        "INSERT INTO notes VALUES (1); PERFORM pg_sleep(600);",
        &["view_a", "view_b"],
    );
    let mut client = rig.client("postgres");
    client
        .send(&request::query("SELECT n FROM view_a"))
        .unwrap();
    rig.wait("the primary to run it", || {
        running(rig.cluster.primary()) == 1
    });
    let key = client.backend_key().unwrap().clone();
    RawClient::cancel(&rig.raw_address(), &key).unwrap();
    assert_eq!(answer(&mut client), "T E:57014 Z:I");

    // Who leaves takes it along.
    client
        .send(&request::query("SELECT n FROM view_b"))
        .unwrap();
    rig.wait("the primary to run it", || {
        running(rig.cluster.primary()) == 1
    });
    drop(client);
    rig.wait("the primary to run nothing", || {
        running(rig.cluster.primary()) == 0
    });
    let notes = rig.cluster.primary().value("SELECT count(*) FROM notes");
    assert_eq!(notes.unwrap(), "0");
}

/// A statement that was refused and waits to run elsewhere has been running, as its client sees it.
#[test]
fn the_query_timeout_covers_the_wait_for_the_primary() {
    let rig = start(1, |config| {
        config.databases[0].pool.size = 1;
        config.timeouts.query = Some(Duration::from_millis(500));
    });
    plant_liars(&rig, "INSERT INTO notes VALUES (1);", &["view_a"]);
    let mut other = rig.client("postgres");
    execute(&mut other, "BEGIN; SELECT 1");
    let mut client = rig.client("postgres");
    // A wait of its own would take until the pool gives up, which is more than a client's patience here.
    let (done, waits) = mpsc::sync_channel(1);
    let asking = thread::spawn(move || {
        client
            .send(&request::query("SELECT n FROM view_a"))
            .unwrap();
        let heard = answer(&mut client);
        done.send(heard).unwrap();
        client
    });
    let heard = waits.recv_timeout(LIMIT / 2).expect("the timeout ends it");
    assert_eq!(heard, "E:57014 Z:I");
    execute(&mut other, "COMMIT");
    let mut client = asking.join().unwrap();
    assert_eq!(
        client.query("SELECT count(*) FROM notes").unwrap(),
        [[Some("0".to_owned())]]
    );
}

/// A READ ONLY transaction goes on on the primary: from its first statement on whatever it is, and from any if each has a
/// snapshot of its own.
#[test]
fn a_liar_in_a_read_only_transaction_is_found_out() {
    let rig = start(1, |_| ());
    let views = ["view_a", "view_b", "view_c", "view_d"];
    plant_liars(&rig, "PERFORM pg_current_xact_id();", &views);
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    for (view, begin, reads) in [
        ("view_a", "BEGIN READ ONLY", 0),
        ("view_b", snapshot, 0),
        ("view_c", "BEGIN READ ONLY", 2),
        ("view_d", snapshot, 1),
    ] {
        let sql = format!("SELECT n FROM {view}");
        let mut client = rig.client("postgres");
        execute(&mut client, begin);
        for number in 0..reads {
            let read = format!("SELECT '{view} {number}'");
            execute(&mut client, &read);
            assert_eq!(on_standbys(&rig, &read), 1, "{read}");
        }
        if view == "view_d" {
            // The client has seen what its snapshot shows.
            assert_eq!(sqlstate(&mut client, &sql), "25006");
            assert_eq!(sqlstate(&mut client, "SELECT 1"), "25P02");
            execute(&mut client, "ROLLBACK");
            continue;
        }
        client.send(&request::query(&sql)).unwrap();
        assert_eq!(answer(&mut client), "T D:7 C:SELECT 1 Z:T", "{view}");
        assert_eq!(logged(rig.cluster.primary(), &sql), 1, "{view}");
        execute(&mut client, "COMMIT");
        // It is known from now on.
        let refused = on_standbys(&rig, &sql);
        execute(&mut client, snapshot);
        client.send(&request::query(&sql)).unwrap();
        assert_eq!(answer(&mut client), "T D:7 C:SELECT 1 Z:T", "{view}");
        execute(&mut client, "COMMIT");
        assert_eq!(on_standbys(&rig, &sql), refused, "{view}");
    }
    assert_eq!(bounces(&rig, "read_only"), 3.0);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    assert_eq!(rig.cluster.standbys()[0].value(left).unwrap(), "0");
}

/// Nobody else reads, so the session would stay with the standby that it has read from.
#[test]
fn a_session_leaves_a_standby_that_has_refused() {
    let rig = start(2, |config| config.clusters[0].reads.max_lag = 60 * LIMIT);
    for standby in rig.cluster.standbys() {
        standby.pause_replay().unwrap();
    }
    on_primary(&rig, "ALTER TABLE one ADD COLUMN b int DEFAULT 3");
    let mut client = rig.client("postgres");
    for _ in 0..4 {
        assert_eq!(value(&mut client, "SELECT b FROM one"), "3");
    }
    for standby in rig.cluster.standbys() {
        assert_eq!(logged(standby, "SELECT b FROM one"), 2);
    }
}

/// What an EXECUTE names is prepared anew on the standby, which may lack what it reads.
#[test]
fn an_execute_of_what_the_standby_has_not_replayed_runs_on_the_primary() {
    let rig = start(1, |_| ());
    let standby = rig.cluster.standbys()[0];
    let mut client = rig.client("postgres");
    standby.pause_replay().unwrap();
    // Somebody else's: this session's floor is none.
    on_primary(&rig, "CREATE TABLE fresh AS SELECT 7 AS n");
    rig.learn("postgres");
    execute(&mut client, "PREPARE p AS SELECT n FROM fresh");
    rig.wait("the table to be known", || {
        client.send(&request::query("EXECUTE p")).unwrap();
        assert_eq!(answer(&mut client), "T D:7 C:SELECT 1 Z:I");
        bounces(&rig, "undefined") > 0.0
    });
    standby.resume_replay().unwrap();
    rig.cluster.wait_caught_up().unwrap();
    execute(&mut client, "EXECUTE p");
    assert!(on_standbys(&rig, "EXECUTE p") > 1);
}

/// What an EXECUTE runs is learned, and not that it is an EXECUTE.
#[test]
fn an_execute_of_a_liar_is_learned_by_what_it_runs() {
    let rig = start(1, |_| ());
    plant_liars(&rig, "INSERT INTO notes VALUES (1);", &["view_a"]);
    let mut client = rig.client("postgres");
    execute(&mut client, "PREPARE p AS SELECT n FROM view_a");
    execute(&mut client, "PREPARE q (int) AS SELECT $1");
    for _ in 0..3 {
        assert_eq!(value(&mut client, "EXECUTE p"), "7");
    }
    assert_eq!(bounces(&rig, "read_only"), 1.0);
    assert_eq!(
        value(&mut rig.client("postgres"), "SELECT n FROM view_a"),
        "7"
    );
    assert_eq!(bounces(&rig, "read_only"), 1.0);
    let mut other = rig.client("postgres");
    execute(&mut other, "PREPARE p (int) AS SELECT $1");
    assert_eq!(value(&mut other, "EXECUTE p (5)"), "5");
    assert_eq!(on_standbys(&rig, "EXECUTE p (5)"), 1);
    let notes = rig.cluster.primary().value("SELECT count(*) FROM notes");
    assert_eq!(notes.unwrap(), "4");
}
