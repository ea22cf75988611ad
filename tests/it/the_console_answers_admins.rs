//! The console: what it shows is what happened, to those who may see it, in both protocols, and with the cluster away.

use pgweir::testbed::{Error, Message, RawClient, request};

use crate::support::{Rig, execute, program, run, script, sqlstate, value};

fn with_admin() -> Rig {
    Rig::start(1, |config| config.admin.users = vec!["postgres".to_owned()])
}

/// The rows of a result as the console names its columns.
struct Shown {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Shown {
    #[track_caller]
    fn of(console: &mut RawClient, sql: &str) -> Shown {
        console.send(&request::query(sql)).unwrap();
        Shown::from(&console.recv_until_ready().unwrap())
    }

    #[track_caller]
    fn from(messages: &[Message]) -> Shown {
        let description = messages.iter().find(|message| message.tag == b'T');
        let description = description.unwrap_or_else(|| panic!("{}", script(messages)));
        let rows = messages.iter().filter(|message| message.tag == b'D');
        Shown {
            columns: description.column_names().unwrap(),
            rows: rows.map(|row| row.text_row().unwrap()).collect(),
        }
    }

    /// A value of the first row in which another column has this value.
    #[track_caller]
    fn get(&self, of: (&str, &str), column: &str) -> String {
        let at = |name: &str| {
            let at = self.columns.iter().position(|column| column == name);
            at.unwrap_or_else(|| panic!("no column {name} in {:?}", self.columns))
        };
        let (key, wanted) = (at(of.0), at(column));
        let row = self
            .rows
            .iter()
            .find(|row| row[key].as_deref() == Some(of.1));
        let row = row.unwrap_or_else(|| panic!("no {of:?} in {:?}", self.rows));
        row[wanted].clone().unwrap_or("NULL".to_owned())
    }

    #[track_caller]
    fn number(&self, of: (&str, &str), column: &str) -> f64 {
        self.get(of, column).parse().expect("a number")
    }
}

#[test]
fn only_admins_come_in() {
    let rig = with_admin();
    for database in ["pgweir", "pgbouncer"] {
        let refused = RawClient::connect(
            &rig.raw_address(),
            &[("user", "somebody"), ("database", database)],
        );
        match refused {
            Err(Error::Server(error)) => {
                assert_eq!(error.code(), "28000");
                assert_eq!(error.field(b'M'), Some("not allowed"));
                assert_eq!(error.field(b'S'), Some("FATAL"));
            }
            other => panic!("{other:?}"),
        }
        let mut console = rig.client(database);
        assert!(value(&mut console, "SHOW VERSION").starts_with("pgweir "));
    }
    assert_eq!(
        rig.metric(
            "pgweir_client_logins_failed_total",
            &[("reason", "refused")]
        ),
        2.0
    );
    let nobody = rig.beside(|_| ());
    let refused = RawClient::connect(
        &nobody.raw_address(),
        &[("user", "postgres"), ("database", "pgweir")],
    );
    assert!(matches!(refused, Err(Error::Server(error)) if error.code() == "28000"));
}

#[test]
fn it_answers_psql_and_drivers() {
    let rig = with_admin();
    let url = rig.url("pgweir");
    let psql = |arguments: &[&str]| {
        let mut command = program(&rig.cluster, "psql");
        run(command.args(["-X", "-d", &url]).args(arguments))
    };
    let (out, _) = psql(&["-At", "-c", "SHOW NODES"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].starts_with("main|primary|127.0.0.1:"), "{out}");
    assert!(lines[1].contains("|standby|t|1|"), "{out}");
    let (_, err) = psql(&["-c", "SHOW HELP"]);
    assert!(
        err.contains("Console usage") && err.contains("EXPLAIN ROUTE <sql>"),
        "{err}"
    );
    let (out, _) = psql(&["-Atc", "SHOW VERSION; SHOW VERSION"]);
    assert_eq!(out.lines().count(), 2, "{out}");
    // As psycopg 3 and asyncpg ask: described first, then with results as binary.
    let mut console = rig.client("pgweir");
    let ask = [
        request::parse("q", "SHOW NODES", &[]),
        request::describe_statement("q"),
        request::sync(),
    ];
    console.send(&ask.concat()).unwrap();
    assert_eq!(script(&console.recv_until_ready().unwrap()), "1 t T Z:I");
    let fetch = [
        request::bind_with("", "q", &[], &[], &[1]),
        request::execute("", 0),
        request::sync(),
    ];
    console.send(&fetch.concat()).unwrap();
    let messages = console.recv_until_ready().unwrap();
    let tags: Vec<u8> = messages.iter().map(|message| message.tag).collect();
    assert_eq!(tags, b"2DDCZ");
    let row = messages[1].row().unwrap();
    assert_eq!(row[1].as_deref(), Some(&b"primary"[..]));
    assert_eq!(
        row[5].as_deref(),
        Some(&1_i64.to_be_bytes()[..]),
        "the timeline"
    );
    // An unknown command is an error, and the session goes on.
    assert_eq!(sqlstate(&mut console, "SELECT 1"), "08P01");
    assert_eq!(console.query("RELOAD").unwrap().len(), 0);
    assert_eq!(rig.metric("pgweir_reloads_total", &[]), 1.0);
    assert_eq!(value(&mut console, "SHOW transaction_read_only"), "off");
    // Nothing of this went to a server.
    let statements = rig.metric("pgweir_routed_statements_total", &[]);
    assert_eq!(statements, 0.0);
}

#[test]
fn explain_route_agrees_with_where_statements_go() {
    let rig = with_admin();
    let primary = rig.cluster.primary();
    primary
        .execute(
            "CREATE TABLE t (a int); CREATE SEQUENCE s; INSERT INTO t VALUES (1); \
             CREATE VIEW v AS SELECT nextval('s') AS n; CREATE VIEW w AS SELECT n + 1 AS m FROM v; \
             CREATE FUNCTION bad() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1'",
        )
        .unwrap();
    rig.cluster.wait_caught_up().unwrap();
    rig.learn("postgres");
    let mut console = rig.client("pgweir");
    let cases = [
        ("SELECT a FROM t", "read", None),
        (
            "SELECT a FROM t\n WHERE a > 0 FOR UPDATE",
            "locking",
            Some("2:14"),
        ),
        ("SELECT bad()", "function", Some("1:8")),
        (
            "SELECT relname FROM pg_class LIMIT 1",
            "catalog",
            Some("1:21"),
        ),
        ("INSERT INTO t VALUES (2)", "data_modifying", Some("1:1")),
        (
            "SELECT 1; INSERT INTO t VALUES (3)",
            "data_modifying",
            Some("1:11"),
        ),
    ];
    for (sql, reason, at) in cases {
        // A session of its own: what it has written does not matter to the next.
        let mut client = rig.client("postgres");
        let before = targets(&rig);
        execute(&mut client, sql);
        let after = targets(&rig);
        let went = match (after.0 - before.0, after.1 - before.1) {
            (1.0, 0.0) => "primary",
            (0.0, 1.0) => "standby",
            other => panic!("{sql}: {other:?}"),
        };
        let shown = Shown::of(&mut console, &format!("EXPLAIN ROUTE {sql}"));
        let main = ("cluster", "main");
        assert_eq!(shown.get(main, "target"), went, "{sql}");
        assert_eq!(shown.get(main, "reason"), reason, "{sql}");
        let place = format!("{}:{}", shown.get(main, "line"), shown.get(main, "column"));
        assert_eq!(place, at.unwrap_or("NULL:NULL"), "{sql}");
    }
    // What the text does not say itself: by way of what.
    let main = ("cluster", "main");
    let shown = Shown::of(&mut console, "EXPLAIN ROUTE SELECT 1 FROM t, w");
    assert_eq!(shown.get(main, "target"), "primary");
    assert_eq!(shown.get(main, "column"), "18");
    let chain = shown.get(main, "chain");
    let links: Vec<&str> = chain.split(" -> ").collect();
    let ends = |link: &str, name: &str| link.split(' ').any(|word| word.ends_with(name));
    assert!(
        links.len() == 3 && ends(links[0], "w") && ends(links[1], "v") && ends(links[2], "nextval"),
        "{chain}"
    );
    let shown = Shown::of(&mut console, "EXPLAIN ROUTE SELECT bad()");
    assert_eq!(shown.get(main, "detail"), "function bad");
    assert_eq!(shown.get(main, "excerpt"), "SELECT bad()\n       ^");
    assert_eq!(shown.get(main, "route"), "class");
    assert_eq!(shown.get(main, "node"), primary.name());
}

/// Statements given to the primary, and to standbys.
fn targets(rig: &Rig) -> (f64, f64) {
    let to = |target| rig.metric("pgweir_routed_statements_total", &[("target", target)]);
    (to("primary"), to("standby"))
}

#[test]
fn queries_are_counted_by_their_shape() {
    let rig = with_admin();
    rig.cluster
        .primary()
        .execute("CREATE TABLE t (a int)")
        .unwrap();
    rig.cluster.wait_caught_up().unwrap();
    rig.learn("postgres");
    let mut client = rig.client("postgres");
    for n in 0..3 {
        execute(
            &mut client,
            &format!("SELECT count(*) FROM t WHERE a = {n}"),
        );
    }
    execute(&mut client, "SELECT pg_sleep(0.2)");
    // In a transaction, and pipelined in several units at once.
    execute(&mut client, "BEGIN");
    execute(&mut client, "INSERT INTO t VALUES (1)");
    execute(&mut client, "insert into t values (22)");
    execute(&mut client, "COMMIT");
    let prepare = [
        request::parse("p", "UPDATE t SET a = $1", &[23]),
        request::sync(),
    ];
    client.send(&prepare.concat()).unwrap();
    client.recv_until_ready().unwrap();
    let unit = [
        request::bind("", "p", &[Some("5")]),
        request::execute("", 0),
        request::sync(),
    ];
    client.send(&unit.concat().repeat(5)).unwrap();
    for _ in 0..5 {
        client.recv_until_ready().unwrap();
    }
    let mut console = rig.client("pgweir");
    let shown = Shown::of(&mut console, "SHOW QUERIES");
    let read = ("query", "select count(*) from t where a = ?");
    assert_eq!(shown.number(read, "calls"), 3.0);
    assert_eq!(shown.number(read, "on_standby"), 3.0);
    assert_eq!(shown.number(read, "on_primary"), 0.0);
    assert!(shown.number(read, "bytes") > 100.0);
    assert_eq!(shown.get(read, "class"), "read");
    let insert = ("query", "insert into t values (?)");
    assert_eq!(shown.number(insert, "calls"), 2.0);
    assert_eq!(shown.number(insert, "on_primary"), 2.0);
    assert_eq!(shown.get(insert, "reason"), "data_modifying");
    let update = ("query", "update t set a = $1");
    // Its Parse was a unit of its own.
    assert_eq!(shown.number(update, "calls"), 6.0);
    let sleep = ("query", "select pg_sleep(?)");
    let total = shown.number(sleep, "total_ms");
    assert!((200.0..5_000.0).contains(&total), "{total}");
    assert_eq!(shown.number(sleep, "mean_ms"), total);
    // What took longest is at the top. Transaction control is nobody's query.
    assert_eq!(shown.rows[0][1].as_deref(), Some(sleep.1));
    let texts: Vec<_> = shown
        .rows
        .iter()
        .filter_map(|row| row[1].as_deref())
        .collect();
    assert!(
        !texts.contains(&"begin") && !texts.contains(&"commit"),
        "{texts:?}"
    );
    let pools = Shown::of(&mut console, "SHOW POOLS");
    assert_eq!(pools.get(("database", "postgres"), "cl_active"), "1");
    assert_eq!(
        pools.get(("database", "postgres"), "pool_mode"),
        "transaction"
    );
    assert_eq!(pools.get(("database", "pgbouncer"), "cl_active"), "1");
    let routes = Shown::of(&mut console, "SHOW ROUTES");
    assert_eq!(
        routes.number(("reason", "data_modifying"), "statements"),
        8.0
    );
}

#[test]
fn nothing_is_counted_when_it_is_switched_off() {
    let rig = Rig::start(0, |config| {
        config.admin.users = vec!["postgres".to_owned()];
        config.admin.queries = 0;
    });
    execute(&mut rig.client("postgres"), "SELECT 1");
    let shown = Shown::of(&mut rig.client("pgweir"), "SHOW QUERIES");
    assert_eq!(shown.rows, Vec::<Vec<Option<String>>>::new());
}

#[test]
fn who_waits_is_shown() {
    let rig = Rig::start(0, |config| {
        config.admin.users = vec!["postgres".to_owned()];
        config.databases[0].pool.size = 1;
    });
    let mut holder = rig.client("postgres");
    execute(&mut holder, "BEGIN; SELECT 1");
    let mut waiter = rig.client("postgres");
    waiter.send(&request::query("SELECT 1")).unwrap();
    let mut console = rig.client("pgweir");
    let main = ("database", "postgres");
    rig.wait("the queue to be shown", || {
        let shown = Shown::of(&mut console, "SHOW POOLS");
        shown.get(main, "cl_waiting") == "1"
            && shown.get(main, "cl_active") == "1"
            && shown.get(main, "sv_active") == "1"
            && shown.number(main, "maxwait") >= 1.0
    });
    execute(&mut holder, "COMMIT");
    waiter.recv_until_ready().unwrap();
    let shown = Shown::of(&mut console, "SHOW POOLS");
    assert_eq!(shown.get(main, "cl_waiting"), "0");
    assert_eq!(shown.get(main, "sv_idle"), "1");
    let wait = (shown.get(main, "maxwait"), shown.get(main, "maxwait_us"));
    assert_eq!(wait, ("0".to_owned(), "0".to_owned()));
}

#[test]
fn it_answers_while_the_cluster_is_down_and_ends_with_the_proxy() {
    let mut rig = with_admin();
    for node in rig.cluster.nodes() {
        node.kill9().unwrap();
    }
    let mut console = rig.client("pgweir");
    rig.wait("the console to know", || {
        let shown = Shown::of(&mut console, "SHOW NODES");
        shown.get(("node", "primary"), "role") == "down"
            && shown.get(("node", "standby1"), "role") == "down"
    });
    let shown = Shown::of(&mut console, "EXPLAIN ROUTE select 1");
    assert_eq!(shown.get(("cluster", "main"), "node"), "NULL");
    rig.begin_shutdown();
    let last = console.recv_until_closed().unwrap();
    assert_eq!(last[0].error().unwrap().code(), "57P01");
    assert_eq!(rig.shutdown(), 0);
}
