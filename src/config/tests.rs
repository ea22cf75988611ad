//! Files and what becomes of them.

use std::time::Duration;

use super::keys::{KEYS, Needed};
use super::*;

/// The files and variables that the tests refer to.
struct Fixed;

impl Sources for Fixed {
    fn read(&self, path: &str) -> Result<String, String> {
        match path {
            "userlist.txt" => Ok("\"shop\" \"pencil\"\n".to_owned()),
            "broken.txt" => Ok("\n\"a\" x\nb\n".to_owned()),
            "password" => Ok("from file\n".to_owned()),
            "crlf" => Ok("from file\r\n".to_owned()),
            "empty" => Ok("\n".to_owned()),
            _ => Err("No such file or directory (os error 2)".to_owned()),
        }
    }

    fn env(&self, name: &str) -> Option<String> {
        match name {
            "SECRET" => Some("from env".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }
}

fn parse(text: &str) -> Config {
    Config::parse(text, "proxy.toml", &Fixed).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
}

/// The least that serves, less what the test itself says.
const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:6432\"\n";
const CLUSTER: &str = "[cluster.main]\nnodes = [{ address = \"pg1:5432\" }]\n";
const DATABASE: &str = "[database.\"*\"]\n";
const AUTH: &str = "[auth]\nmethod = \"trust\"\n";

fn smallest() -> String {
    [LISTENER, CLUSTER, DATABASE, AUTH].concat()
}

/// Checks the faults of a text that is followed by a whole file, so that the lines are those of
/// the text.
fn check_before(text: &str, expected: &[&str]) {
    check_faults(&format!("{text}\n{}", smallest()), expected);
}

#[track_caller]
fn check_faults(text: &str, expected: &[&str]) {
    let faults = Config::parse(text, "proxy.toml", &Fixed).expect_err(text);
    assert_eq!(faults.to_string(), expected.join("\n"), "\n{text}");
}

#[test]
fn the_smallest_file_has_the_defaults() {
    let config = parse(&smallest());
    assert_eq!(config.workers, 1);
    assert_eq!(
        config.listeners,
        [Address::Tcp("127.0.0.1".into(), 6432).into()]
    );
    let cluster = &config.clusters[0];
    assert_eq!(cluster.name, "main");
    let address = Address::Tcp("pg1".into(), 5432);
    assert_eq!(
        cluster.nodes,
        [Node {
            name: "pg1:5432".into(),
            address,
            max_connections: None,
        }]
    );
    assert_eq!(
        (cluster.monitor.user.as_str(), &*cluster.monitor.database),
        ("pgweir", "postgres")
    );
    assert!(cluster.monitor.password.is_none());
    assert_eq!(cluster.monitor.interval, Duration::from_millis(50));
    assert_eq!(cluster.monitor.timeout, Duration::from_secs(1));
    assert_eq!(
        cluster.reads,
        Reads {
            consistency: Consistency::Session,
            max_lag: Duration::from_secs(10),
            catalog_ttl: Duration::from_secs(60),
            trust_declared_volatility: true,
            catalogs: false,
        }
    );
    let pool = Pool {
        mode: PoolMode::Transaction,
        size: 20,
        min: 0,
        reserve: 0,
        reserve_after: Duration::from_secs(5),
        wait_timeout: Duration::from_secs(30),
        max_prepared: 200,
        connect_query: None,
        reset_query: None,
        listen: ListenPolicy::Shared,
        deferred_begin: true,
        optimistic: false,
        currval: CurrvalPolicy::Pin,
    };
    assert_eq!(pool, Pool::default());
    let any = Database {
        name: "*".into(),
        cluster: "main".into(),
        dbname: None,
        max_connections: None,
        max_clients: None,
        routing: Routing {
            hints: Some(Hints::Allow),
            ..Routing::default()
        },
        pool,
    };
    assert_eq!(config.databases, [any]);
    assert_eq!(config.auth.method, AuthMethod::Trust);
    assert!(config.auth.users.is_none());
    let admin = Admin {
        users: Vec::new(),
        http: None,
        queries: 1000,
    };
    assert_eq!(config.admin, admin);
    let limits = Limits {
        max_clients: 10_000,
        pipeline_buffer: 1 << 20,
        max_message: 1 << 30,
    };
    assert_eq!(config.limits, limits);
    let timeouts = Timeouts {
        login: Duration::from_secs(60),
        connect: Duration::from_secs(5),
        cancel: Duration::from_secs(10),
        shutdown: Duration::from_secs(30),
        server_idle: Duration::from_secs(600),
        server_lifetime: Duration::from_secs(3_600),
        server_check: Duration::from_secs(30),
        client_idle: None,
        idle_in_transaction: None,
        transaction: None,
        query: None,
        client_write: None,
        tcp_keepalive: Duration::from_secs(30),
        tcp_user: None,
    };
    assert_eq!(config.timeouts, timeouts);
    assert_eq!(timeouts, Timeouts::default());
    assert_eq!(config.peering, None);
    assert_eq!(
        config.log,
        Log {
            level: LogLevel::Info,
            format: LogFormat::Text
        }
    );
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        process.workers = 0x10
        listener = [{ address = "unix:/run/pgweir" }, { address = "[::]:0" }, { address = "[::]:0" }]
        [cluster.b]
        nodes = [{ address = "unix:/run/.s.PGSQL.5432" }, { name = "two", address = "pg2:5432" }]
        reads.max_lag = "0s"
        [cluster.a]
        nodes = [{ address = "pg1:5432" }]
        [cluster.a.monitor]
        user = "watch"
        password = "typed"
        database = "watched"
        interval = "1ms"
        timeout = "1min"
        [database.shop_ro]
        cluster = "b"
        dbname = "shop"
        [database.shop]
        cluster = "a"
        pool = { mode = "session", size = 10_000, wait_timeout = "1ms", max_prepared = 1, listen = "pin" }
        [auth]
        users_file = "userlist.txt"
        [admin]
        users = ["ops", "o'hara"]
        http = "127.0.0.1:9632"
        queries = 0
        [limits]
        max_clients = 1
        pipeline_buffer = "16KiB"
        max_message = "1MiB"
        [timeouts]
        login = "1s"
        connect = "10ms"
        shutdown = "0s"
        server_idle = "1d"
        server_lifetime = "30d"
        cancel = "10ms"
        client_write = "100ms"
        tcp_keepalive = "2h"
        tcp_user = "7d"
        [peering]
        id = 16383
        peers = [{ id = 1, address = "unix:/run/a" }, { id = 2, address = "10.0.0.2:6432" }]
        [log]
        level = "trace"
        format = "json"
        "#,
    );
    assert_eq!(config.workers, 16);
    assert_eq!(config.listeners.len(), 3);
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        names(
            config
                .clusters
                .iter()
                .map(|cluster| &cluster.name)
                .collect()
        ),
        "b a"
    );
    assert_eq!(
        names(config.databases.iter().map(|base| &base.name).collect()),
        "shop_ro shop"
    );
    assert_eq!(config.clusters[0].nodes[0].name, "unix:/run/.s.PGSQL.5432");
    assert_eq!(config.clusters[0].reads.max_lag, Duration::ZERO);
    let monitor = &config.clusters[1].monitor;
    assert_eq!(
        (monitor.user.as_str(), monitor.database.as_str()),
        ("watch", "watched")
    );
    assert_eq!(monitor.password.as_ref().map(Secret::expose), Some("typed"));
    assert_eq!(monitor.interval, Duration::from_millis(1));
    assert_eq!(monitor.timeout, Duration::from_secs(60));
    assert_eq!(config.databases[0].dbname.as_deref(), Some("shop"));
    let pool = Pool {
        mode: PoolMode::Session,
        size: 10_000,
        wait_timeout: Duration::from_millis(1),
        max_prepared: 1,
        listen: ListenPolicy::Pin,
        ..Pool::default()
    };
    assert_eq!(config.databases[1].pool, pool);
    assert_eq!(config.auth.method, AuthMethod::ScramSha256);
    assert_eq!(
        config.auth.users.as_ref().map(|users| users.0.len()),
        Some(1)
    );
    assert_eq!(
        config.admin.http,
        Some(Address::Tcp("127.0.0.1".into(), 9632))
    );
    assert_eq!(config.admin.users, ["ops", "o'hara"]);
    assert_eq!(config.admin.queries, 0);
    let limits = Limits {
        max_clients: 1,
        pipeline_buffer: 16 << 10,
        max_message: 1 << 20,
    };
    assert_eq!(config.limits, limits);
    assert_eq!(config.timeouts.shutdown, Duration::ZERO);
    assert_eq!(
        config.timeouts.server_lifetime,
        Duration::from_secs(30 * 86_400)
    );
    let peer = |id, address: &str| Peer {
        id: PeerId(id),
        address: address.parse().expect("an address"),
    };
    let peering = Peering {
        id: PeerId(16_383),
        peers: vec![peer(1, "unix:/run/a"), peer(2, "10.0.0.2:6432")],
    };
    assert_eq!(config.peering, Some(peering));
    assert_eq!(config.timeouts.cancel, Duration::from_millis(10));
    assert_eq!(
        config.timeouts.client_write,
        Some(Duration::from_millis(100))
    );
    assert_eq!(config.timeouts.tcp_keepalive, Duration::from_secs(7_200));
    assert_eq!(
        config.timeouts.tcp_user,
        Some(Duration::from_secs(7 * 86_400))
    );
    assert_eq!(
        config.log,
        Log {
            level: LogLevel::Trace,
            format: LogFormat::Json
        }
    );
}

#[test]
fn secrets_do_not_print() {
    let cluster = format!("{CLUSTER}monitor.password = \"typed\"\n");
    let auth = "[auth]\nusers_file = \"userlist.txt\"\n";
    let shown = format!(
        "{:?}",
        parse(&[LISTENER, &cluster, DATABASE, auth].concat())
    );
    assert!(
        !shown.contains("typed") && !shown.contains("pencil"),
        "{shown}"
    );
}

#[test]
fn passwords_come_from_one_place() {
    let check = |key: &str, expected: &str| {
        let cluster = format!("{CLUSTER}monitor.{key}\n");
        let config = parse(&[LISTENER, &cluster, DATABASE, AUTH].concat());
        let password = config.clusters[0]
            .monitor
            .password
            .as_ref()
            .map(Secret::expose);
        assert_eq!(password, Some(expected), "{key}");
    };
    check("password = \" typed \"", " typed ");
    check("password_file = \"password\"", "from file");
    check("password_file = \"crlf\"", "from file");
    check("password_env = \"SECRET\"", "from env");
    let check = |keys: &str, expected: &str| {
        let cluster = format!("[cluster.main]\nmonitor = {{ {keys} }}\n");
        let nodes = "nodes = [{ address = \"pg1:5432\" }]\n";
        let text = [&cluster, nodes, LISTENER, DATABASE, AUTH].concat();
        check_faults(&text, &[&format!("proxy.toml:2:{expected}")]);
    };
    check(
        "password_file = \"gone\"",
        "29: cluster.main.monitor.password_file: cannot read \"gone\": No such file or directory \
         (os error 2)",
    );
    check(
        "password_file = \"empty\"",
        "29: cluster.main.monitor.password_file: the file is empty",
    );
    check(
        "password_env = \"GONE\"",
        "28: cluster.main.monitor.password_env: the environment variable \"GONE\" is not set, or \
         empty",
    );
    check(
        "password_env = \"EMPTY\"",
        "28: cluster.main.monitor.password_env: the environment variable \"EMPTY\" is not set, or \
         empty",
    );
    check(
        "password = \"a\", password_env = \"SECRET\"",
        "44: cluster.main.monitor.password_env: password is given as well; only one of them may \
         be",
    );
    check(
        "password = 12345",
        "24: cluster.main.monitor.password: expected a string, not an integer",
    );
}

#[test]
fn unknown_keys() {
    let check = check_before;
    check(
        "logs.level = \"info\"",
        &["proxy.toml:1:1: logs: unknown key; did you mean \"log\"?"],
    );
    check(
        "[process]\nthreads = 4",
        &["proxy.toml:2:1: process.threads: unknown key; known here: workers"],
    );
    check(
        "[limits]\ninterval = \"1s\"",
        &[
            "proxy.toml:2:1: limits.interval: unknown key; \"interval\" belongs to \
           cluster.<name>.monitor",
        ],
    );
    check(
        "[limits]\nmax_client = 5\n  \"max message\" = \"1MiB\"",
        &[
            "proxy.toml:2:1: limits.max_client: unknown key; did you mean \"max_clients\"?",
            "proxy.toml:3:3: limits.\"max message\": unknown key; did you mean \"max_message\"?",
        ],
    );
    check(
        "[database.\"a b\"]\npool = { sise = 5 }",
        &["proxy.toml:2:10: database.\"a b\".pool.sise: unknown key; did you mean \"size\"?"],
    );
    check(
        "pgbouncer = {}",
        &[
            "proxy.toml:1:1: pgbouncer: unknown key; known at the top of the file: process, \
           listener, cluster, database, user, auth, admin, limits, timeouts, peering, log",
        ],
    );
}

#[test]
fn values_of_the_wrong_kind() {
    let check = check_before;
    check(
        "[process]\nworkers = \"4\"",
        &["proxy.toml:2:11: process.workers: expected an integer such as 1, not a string"],
    );
    check(
        "[process]\nworkers = 0",
        &["proxy.toml:2:11: process.workers: must be from 1 to 256, not 0"],
    );
    check(
        "[process]\nworkers = -1",
        &["proxy.toml:2:11: process.workers: must be from 1 to 256, not -1"],
    );
    check(
        "[process]\nworkers = 99999999999999999999",
        &["proxy.toml:2:11: process.workers: must be from 1 to 256"],
    );
    check(
        "[timeouts]\nlogin = 60",
        &["proxy.toml:2:9: timeouts.login: a duration needs quotes and a unit, as in \"1min\""],
    );
    check(
        "[timeouts]\nlogin = \"60\"\nconnect = \"1h\"",
        &[
            "proxy.toml:2:9: timeouts.login: expected a duration such as \"250ms\" or \"10s\" (a \
             whole number and one of ms, s, min, h, d), not \"60\"",
            "proxy.toml:3:11: timeouts.connect: must be from \"10ms\" to \"5min\", not \"1h\"",
        ],
    );
    check(
        "[limits]\nmax_message = 1073741824\npipeline_buffer = \"1MB\"",
        &[
            "proxy.toml:2:15: limits.max_message: a size needs quotes and a unit, as in \"1GiB\"",
            "proxy.toml:3:19: limits.pipeline_buffer: \"MB\" may mean 1000 or 1024; write \"1MiB\"",
        ],
    );
    check(
        "[limits]\nmax_message = \"2GiB\"",
        &["proxy.toml:2:15: limits.max_message: must be from \"16KiB\" to \"1GiB\", not \"2GiB\""],
    );
    check(
        "[log]\nlevel = \"inof\"\nformat = true",
        &[
            "proxy.toml:2:9: log.level: expected \"error\", \"warn\", \"info\", \"debug\" or \
             \"trace\", not \"inof\"; did you mean \"info\"?",
            "proxy.toml:3:10: log.format: expected \"text\" or \"json\", not a boolean",
        ],
    );
    check(
        "[database.a.pool]\nmode = \"statements\"",
        &[
            "proxy.toml:2:8: database.a.pool.mode: expected \"transaction\", \"session\" or \
             \"statement\", not \"statements\"; did you mean \"statement\"?",
        ],
    );
    check(
        "limits = 5",
        &["proxy.toml:1:10: limits: expected a table, not an integer"],
    );
    check(
        "[admin]\nhttp = \"unix:/run/http\"",
        &["proxy.toml:2:8: admin.http: HTTP is answered over TCP only"],
    );
    check(
        "[admin]\nusers = \"ops\"\nqueries = -1",
        &[
            "proxy.toml:2:9: admin.users: expected an array of strings, not a string",
            "proxy.toml:3:11: admin.queries: must be from 0 to 60000, not -1",
        ],
    );
    check(
        "[admin]\nusers = [\"ops\", \"\"]",
        &["proxy.toml:2:9: admin.users: must not be empty"],
    );
    check(
        "[admin]\nhttp = 9632",
        &[
            "proxy.toml:2:8: admin.http: expected a string such as \"127.0.0.1:5432\", not an \
           integer",
        ],
    );
}

#[test]
fn routing_of_listeners_databases_and_users() {
    let config = parse(
        r#"
        [[listener]]
        address = "127.0.0.1:6432"
        [[listener]]
        address = "127.0.0.1:6433"
        route = "standby"
        [cluster.main]
        nodes = [{ address = "pg1:5432" }]
        reads = { consistency = "eventual", max_lag = "5s" }
        [database.shop]
        [database.shop_ro]
        dbname = "shop"
        route = "standby"
        hints = "ignore"
        reads = { consistency = "session", max_lag = "1min" }
        [user.report]
        route = "observe"
        reads.max_lag = "1h"
        [auth]
        method = "trust"
        "#,
    );
    let plain_reads = parse(&smallest()).clusters[0].reads;
    let routes: Vec<Route> = config.listeners.iter().map(|one| one.route).collect();
    assert_eq!(routes, [Route::Split, Route::Standby]);
    assert_eq!(
        config.clusters[0].reads,
        Reads {
            consistency: Consistency::Eventual,
            max_lag: Duration::from_secs(5),
            ..plain_reads
        }
    );
    let plain = Routing {
        hints: Some(Hints::Allow),
        ..Routing::default()
    };
    assert_eq!(config.databases[0].routing, plain);
    let readers = Routing {
        route: Some(Route::Standby),
        consistency: Some(Consistency::Session),
        max_lag: Some(Duration::from_secs(60)),
        hints: Some(Hints::Ignore),
    };
    assert_eq!(config.databases[1].routing, readers);
    let report = Routing {
        route: Some(Route::Observe),
        max_lag: Some(Duration::from_secs(3600)),
        ..Routing::default()
    };
    assert_eq!(config.users[0].routing, report);
    assert_eq!(
        report.or(readers),
        Routing {
            consistency: Some(Consistency::Session),
            hints: Some(Hints::Ignore),
            ..report
        }
    );
    check_before(
        "[database.a]\nroute = \"master\"\nhints = \"deny\"\nreads.consistency = \"strong\"\nreads.max_lag = \"2d\"\n",
        &[
            "proxy.toml:2:9: database.a.route: expected \"split\", \"primary\", \"standby\" or \"observe\", \
             not \"master\"",
            "proxy.toml:3:9: database.a.hints: expected \"allow\" or \"ignore\", not \"deny\"",
            "proxy.toml:4:21: database.a.reads.consistency: expected \"eventual\" or \"session\", not \"strong\"",
            "proxy.toml:5:17: database.a.reads.max_lag: must be from \"0s\" to \"1d\", not \"2d\"",
        ],
    );
    for (names, word) in Route::NAMES.map(|(name, route)| (name, route.as_str())) {
        assert_eq!(names, word);
    }
    for (names, word) in Consistency::NAMES.map(|(name, one)| (name, one.as_str())) {
        assert_eq!(names, word);
    }
}

#[test]
fn listeners_clusters_and_nodes() {
    let check = check_faults;
    check(
        "",
        &[
            "proxy.toml:1:1: cluster: at least one is needed: [cluster.main] with nodes",
            "proxy.toml:1:1: database: at least one is needed: [database.\"*\"] serves any name",
            "proxy.toml:1:1: auth.users_file: is needed for method \"scram-sha-256\"",
            "proxy.toml:1:1: listener: at least one is needed: [[listener]] with an address",
        ],
    );
    check(
        &["listener = 1\ncluster = 2\ndatabase = 3\n", AUTH].concat(),
        &[
            "proxy.toml:1:12: listener: expected an array of tables, not an integer",
            "proxy.toml:2:11: cluster: expected a table, not an integer",
            "proxy.toml:3:12: database: expected a table, not an integer",
        ],
    );
    check(
        &[
            "[[listener]]\n",
            LISTENER,
            LISTENER,
            CLUSTER,
            DATABASE,
            AUTH,
        ]
        .concat(),
        &[
            "proxy.toml:1:1: listener[0].address: is missing",
            "proxy.toml:5:11: listener[2].address: listener[1] has the same address",
        ],
    );
    check(
        &[
            "[cluster.main]\nreads.max_lags = \"1s\"\n",
            LISTENER,
            DATABASE,
            AUTH,
        ]
        .concat(),
        &[
            "proxy.toml:1:1: cluster.main.nodes: at least one is needed: nodes = [ { address = \
             \"host:5432\" } ]",
            "proxy.toml:2:7: cluster.main.reads.max_lags: unknown key; did you mean \"max_lag\"?",
        ],
    );
    let cluster =
        |nodes: &str| format!("[cluster.main]\nnodes = [\n{nodes}\n]\n{LISTENER}{DATABASE}{AUTH}");
    check(
        &cluster(
            "{ name = \"a\", address = \"pg1:5432\" },\n{ name = \"a\", address = \"pg2:5432\" },\n\
             { name = \"c\", address = \"pg1:5432\" },\n{ name = \"d\" },\n\
             { address = \"pg3\" },\n{ address = \"pg4:0\" },\n\"pg5:5432\",\n\
             { name = \"\", address = \"*:5432\" }",
        ),
        &[
            "proxy.toml:4:10: cluster.main.nodes[1].name: nodes[0] has the same name",
            "proxy.toml:5:25: cluster.main.nodes[2].address: nodes[0] has the same address",
            "proxy.toml:6:1: cluster.main.nodes[3].address: is missing",
            "proxy.toml:7:13: cluster.main.nodes[4].address: has no port; write \"pg3:5432\"",
            "proxy.toml:8:13: cluster.main.nodes[5].address: port 0 cannot be connected to",
            "proxy.toml:9:1: cluster.main.nodes[6]: expected a table, not a string",
            "proxy.toml:10:10: cluster.main.nodes[7].name: must not be empty",
            "proxy.toml:10:24: cluster.main.nodes[7].address: \"*\" is no address; write \
             \"0.0.0.0\" or \"[::]\" for every interface",
        ],
    );
    let node = |number: usize| format!("{{ address = \"pg{number}:5432\" }}");
    let nodes = |number: usize| (0..number).map(node).collect::<Vec<_>>().join(",\n");
    assert_eq!(parse(&cluster(&nodes(64))).clusters[0].nodes.len(), 64);
    check(
        &cluster(&nodes(66)),
        &["proxy.toml:67:1: cluster.main.nodes[64]: a cluster may have 64 nodes; this one has 66"],
    );
}

#[test]
fn databases_name_their_cluster() {
    let two = format!("{CLUSTER}[cluster.other]\nnodes = [{{ address = \"pg2:5432\" }}]\n");
    let check = |database: &str, expected: &[&str]| {
        check_faults(&[database, "\n", LISTENER, &two, AUTH].concat(), expected);
    };
    check(
        "[database.a]\n[database.b]\ncluster = \"mian\"\n[database.c]\ncluster = \"x\"",
        &[
            "proxy.toml:1:1: database.a.cluster: is needed; one of main, other",
            "proxy.toml:3:11: database.b.cluster: no cluster \"mian\"; did you mean \"main\"?",
            "proxy.toml:5:11: database.c.cluster: no cluster \"x\"; there are: main, other",
        ],
    );
    check(
        "[database.\"*\"]\ncluster = \"main\"\ndbname = \"shop\"",
        &[
            "proxy.toml:3:10: database.\"*\".dbname: is not for \"*\", where each name stands for \
           itself; name the database",
        ],
    );
    check(
        "[database.a]\ncluster = 1",
        &["proxy.toml:2:11: database.a.cluster: expected a string, not an integer"],
    );
    let long = "x".repeat(64);
    check(
        &format!("[database.\"\"]\ncluster = \"main\"\n[database.{long}]\ncluster = \"main\""),
        &[
            "proxy.toml:1:11: database: a name must not be empty",
            "proxy.toml:3:11: database: a name may have 63 bytes; this one has 64",
        ],
    );
}

#[test]
fn peers_have_numbers_of_their_own() {
    let peers = |peers: &str| format!("[peering]\nid = 1\npeers = [{peers}]\n");
    let check = |text: &str, expected: &[&str]| check_before(text, expected);
    check(
        "[peering]\npeers = [{ id = 2, address = \"b:6432\" }]",
        &["proxy.toml:1:1: peering.id: is needed with peers"],
    );
    check(
        "[peering]\nid = 16384",
        &["proxy.toml:2:6: peering.id: must be from 1 to 16383, not 16384"],
    );
    check(
        &peers("{ id = 0, address = \"b:0\" }, { id = 2 }"),
        &[
            "proxy.toml:3:17: peering.peers[0].id: must be from 1 to 16383, not 0",
            "proxy.toml:3:30: peering.peers[0].address: port 0 cannot be connected to",
            "proxy.toml:3:39: peering.peers[1].address: is missing",
        ],
    );
    check(
        &peers("{ id = 1, address = \"a:1\" }"),
        &["proxy.toml:3:17: peering.peers[0].id: is this process's own; list the others only"],
    );
    check(
        &peers("{ id = 2, address = \"b:1\" }, { id = 2, address = \"c:1\" }"),
        &["proxy.toml:3:46: peering.peers[1].id: peers[0] has the same id"],
    );
    check(
        &peers("{ id = 2, address = \"b:1\" }, { id = 3, address = \"b:1\" }"),
        &["proxy.toml:3:59: peering.peers[1].address: peers[0] has the same address"],
    );
    let alone = parse(&format!("{}[peering]\nid = 5\n", smallest()));
    assert_eq!(alone.peering.map(|peering| peering.id), Some(PeerId(5)));
}

#[test]
fn databases_are_found_by_name() {
    let databases = "[database.shop]\ndbname = \"one\"\n";
    let with_any = parse(&[LISTENER, CLUSTER, databases, DATABASE, AUTH].concat());
    let without = parse(&[LISTENER, CLUSTER, databases, AUTH].concat());
    let check = |config: &Config, name: &str, expected: Option<&str>| {
        let found = config.database(name).map(|database| database.name.as_str());
        assert_eq!(found, expected, "{name}");
    };
    check(&with_any, "shop", Some("shop"));
    check(&with_any, "Shop", Some("*"));
    check(&with_any, "other", Some("*"));
    check(&without, "shop", Some("shop"));
    check(&without, "other", None);
}

#[test]
fn users_files() {
    let check = |auth: &str, expected: &[&str]| {
        check_faults(
            &[auth, "\n", LISTENER, CLUSTER, DATABASE].concat(),
            expected,
        );
    };
    check(
        "[auth]",
        &["proxy.toml:1:1: auth.users_file: is needed for method \"scram-sha-256\""],
    );
    check(
        "[auth]\nmethod = \"md5\"\nusers_file = \"gone\"",
        &[
            "proxy.toml:2:10: auth.method: expected \"scram-sha-256\" or \"trust\", not \"md5\"",
            "proxy.toml:3:14: auth.users_file: cannot read \"gone\": No such file or directory \
             (os error 2)",
        ],
    );
    let fields = "expected two fields in double quotes: \"user\" \"secret\"";
    check(
        "[auth]\nusers_file = \"broken.txt\"\nuser = 1",
        &[
            "proxy.toml:3:1: auth.user: unknown key; \"user\" belongs to cluster.<name>.monitor",
            &format!("broken.txt:2:5: {fields}"),
            &format!("broken.txt:3:1: {fields}"),
        ],
    );
}

#[test]
fn text_that_is_not_toml() {
    let check = |text: &str, expected: &str| check_faults(text, &[expected]);
    check(
        "[log]\nlevel = 'info",
        "proxy.toml:2:14: not TOML: invalid literal string, expected `'`",
    );
    check("[log]\n[log]\n", "proxy.toml:2:2: not TOML: duplicate key");
    check(
        "[[listener]\n",
        "proxy.toml:1:12: not TOML: unclosed array table, expected `]`",
    );
    check(
        "[log]\nlevel = \"info\"\nlevel = \"warn\"",
        "proxy.toml:3:1: not TOML: duplicate key",
    );
}

#[test]
fn syntax_faults_hold_no_secret() {
    for value in [
        "s3cret",
        "\"s3cret",
        "'s3cret",
        "\"\\s3cret\"",
        "\"s3cret\" s3cret",
        "[s3cret",
    ] {
        let text = format!("{CLUSTER}monitor.password = {value}\n");
        let faults = Config::parse(&text, "proxy.toml", &Fixed)
            .expect_err(value)
            .to_string();
        assert!(
            faults.starts_with("proxy.toml:3:") && !faults.contains("s3cret"),
            "{faults}"
        );
    }
}

#[test]
fn the_example_has_every_key_with_its_default() {
    let example = include_str!("../../proxy.toml");
    for key in KEYS {
        let name = key
            .path()
            .rsplit_once('.')
            .map_or(key.path(), |(_, name)| name);
        let shown = |line: &&str| {
            let line = line.trim_start_matches(['#', ' ', '{']);
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(" = "))
        };
        // Keys of nodes stand in inline tables.
        let line = example
            .lines()
            .filter(shown)
            // The same name may stand elsewhere without a default.
            .min_by_key(|line| line.starts_with('#'))
            .or_else(|| example.lines().find(|l| l.contains(name)));
        assert!(line.is_some(), "{} is not in proxy.toml", key.path());
        let absent = line.is_some_and(|line| line.starts_with('#'));
        // A process that is alone has no peers: the whole table is commented out.
        let needed = key.needed() == Needed::Yes && !key.path().starts_with("peering.");
        let may_be = !needed && key.default_text().is_none();
        assert!(
            !absent || may_be,
            "{} is commented out in proxy.toml",
            key.path()
        );
    }
    let nodes = "{ name = \"pg1\", address = \"10.0.0.1:5432\" }, \
                 { name = \"pg2\", address = \"10.0.0.2:5432\" }";
    let cluster = format!("[cluster.main]\nnodes = [ {nodes} ]\n");
    let auth = "[auth]\nusers_file = \"userlist.txt\"\n";
    let defaults = parse(&[LISTENER, &cluster, DATABASE, auth].concat());
    // Config cannot be compared, lest secrets are; its Debug text holds all else.
    assert_eq!(format!("{:#?}", parse(example)), format!("{defaults:#?}"));
}

#[test]
fn the_reference_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    if std::env::var_os("PGWEIR_REGENERATE").is_some() {
        std::fs::write(path, reference()).expect("docs/configuration.md can be written");
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == reference(),
        "docs/configuration.md is out of date; run: PGWEIR_REGENERATE=1 cargo test config"
    );
}

#[test]
fn every_key_is_in_the_reference_once() {
    let page = reference();
    for key in KEYS {
        let header = format!("\n### `{}`\n", key.path());
        assert_eq!(page.matches(&header).count(), 1, "{}", key.path());
        assert!(
            key.does().ends_with('.'),
            "{} is explained in whole sentences",
            key.path()
        );
    }
}

#[test]
fn the_introduction_shows_a_file_that_works() {
    let page = reference();
    let file = page
        .split("```")
        .nth(1)
        .and_then(|block| block.strip_prefix("toml\n"));
    parse(file.expect("the introduction has an example"));
}
