//! A cluster with a proxy before it, and the few questions that several tests ask of them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pgweir::config::{
    self, Admin, Auth, AuthMethod, Config, Consistency, Database, Limits, Log, LogFormat, LogLevel,
    Monitor, Pool, Reads, Routing, Timeouts,
};
use pgweir::proxy::{Proxy, Reread};
use pgweir::testbed::{Address, Builder, Cluster, Message, Node, RawClient, request, wait_for};
use tokio::sync::oneshot;

/// The longest that a test waits for something that must come true.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A cluster and a proxy before it. Dropping it stops the proxy, then the cluster.
pub struct Rig {
    proxy: RunningProxy,
    pub cluster: Cluster,
}

impl Rig {
    /// A cluster with this many standbys, and a proxy whose configuration `change` may alter. All nodes are in use when
    /// it returns.
    pub fn start(standbys: usize, change: impl FnOnce(&mut Config)) -> Rig {
        Rig::with(Cluster::builder().standbys(standbys), change)
    }

    /// Like [`Rig::start`], over a cluster of any kind.
    pub fn with(cluster: Builder, change: impl FnOnce(&mut Config)) -> Rig {
        let cluster = cluster.start().unwrap_or_else(|error| panic!("{error}"));
        let rig = Rig::before(cluster, change);
        rig.wait_ready();
        rig
    }

    /// A second proxy before the same cluster. Waits for nothing.
    pub fn beside(&self, change: impl FnOnce(&mut Config)) -> RunningProxy {
        let mut config = config_for(&self.cluster);
        change(&mut config);
        RunningProxy::start(config)
    }

    /// A proxy before a cluster that need not run. Waits for nothing.
    pub fn before(cluster: Cluster, change: impl FnOnce(&mut Config)) -> Rig {
        let mut config = config_for(&cluster);
        change(&mut config);
        Rig {
            proxy: RunningProxy::start(config),
            cluster,
        }
    }

    /// Waits until writes have a primary and every standby of the cluster is read.
    pub fn wait_ready(&self) {
        let standbys = self.cluster.standbys();
        self.wait("the proxy to know its nodes", || {
            self.metric("pgweir_primary_known", &[]) == 1.0
                && standbys.iter().all(|node| self.is_eligible(node))
        });
    }

    /// Changes what a reload finds.
    pub fn edit(&self, change: impl FnOnce(&mut Config)) {
        let mut file = self.proxy.file.lock().expect("nobody panics");
        change(file.as_mut().expect("a configuration without faults"));
    }

    /// Has a reload find faults.
    pub fn spoil(&self, faults: &str) {
        *self.proxy.file.lock().expect("nobody panics") = Err(faults.to_owned());
    }

    /// Has the proxy know what a database has now. Whatever is done past the proxy is seen by the second load from here,
    /// which cannot have begun before it.
    pub fn learn(&self, database: &str) {
        let _client = self.client(database);
        let before = self.metric("pgweir_catalog_loads_total", &[]);
        self.wait("the catalog to be loaded", || {
            self.metric("pgweir_catalog_loads_total", &[]) >= before + 2.0
        });
    }

    /// Waits for what must come true.
    #[track_caller]
    pub fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        wait_for(|| Ok(condition()), LIMIT, what).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Where the proxy listens on TCP.
    pub fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    /// Where the proxy listens on TCP, as the raw client wants it.
    pub fn raw_address(&self) -> Address {
        self.proxy.address.into()
    }

    /// Like `Node::url`, of the proxy.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@{}/{database}", self.address())
    }

    /// A client of the proxy, logged in as `postgres`.
    #[track_caller]
    pub fn client(&self, database: &str) -> RawClient {
        self.client_with(&[("user", "postgres"), ("database", database)])
    }

    /// A client of the proxy with these startup parameters.
    #[track_caller]
    pub fn client_with(&self, parameters: &[(&str, &str)]) -> RawClient {
        match RawClient::connect(&self.raw_address(), parameters) {
            Ok(mut client) => {
                client.set_timeout(LIMIT);
                client
            }
            Err(error) => panic!("login through the proxy: {error}"),
        }
    }

    /// Stops the proxy as SIGTERM does, and returns how many sessions were cut off.
    pub fn shutdown(&mut self) -> usize {
        self.proxy.stop()
    }

    /// Has the proxy begin to stop, and does not wait for its end.
    pub fn begin_shutdown(&mut self) {
        self.proxy.begin_stop();
    }

    /// Whether the proxy sends reads to this node.
    pub fn is_eligible(&self, node: &Node) -> bool {
        self.metric("pgweir_node_eligible", &[("node", node.name())]) == 1.0
    }

    /// The sum of the series of this name that bear these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.proxy.metric(name, labels)
    }
}

impl RunningProxy {
    /// Where it listens on TCP, as the raw client wants it.
    pub fn raw_address(&self) -> Address {
        self.address.into()
    }

    /// The sum of the series of this name that bear these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.get("/metrics");
        let wanted: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        let series = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
            let fits = found == name && wanted.iter().all(|label| found_labels.contains(label));
            fits.then(|| value.parse::<f64>().expect("a series has a number"))
        });
        series.sum()
    }

    /// The body of one page of the proxy's HTTP side.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).expect("the proxy answers HTTP");
        stream
            .set_read_timeout(Some(LIMIT))
            .expect("a socket takes a timeout");
        let request = format!("GET {path} HTTP/1.1\r\nHost: pgweir\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .expect("the proxy reads HTTP");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the proxy answers HTTP");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        body.to_owned()
    }
}

/// The configuration of the tests: trust, pools of ten, one database of every name, and monitoring fast enough that
/// tests need not wait for it.
pub fn config_for(cluster: &Cluster) -> Config {
    let node = |node: &Node| config::Node {
        name: node.name().to_owned(),
        address: config::Address::Tcp("127.0.0.1".to_owned(), node.port()),
        max_connections: None,
    };
    let loopback = config::Address::Tcp("127.0.0.1".to_owned(), 0);
    Config {
        workers: 1,
        listeners: vec![loopback.clone().into()],
        clusters: vec![config::Cluster {
            name: "main".to_owned(),
            nodes: cluster.nodes().iter().map(node).collect(),
            monitor: Monitor {
                user: "postgres".to_owned(),
                password: None,
                database: "postgres".to_owned(),
                interval: Duration::from_millis(100),
                // A busy machine that lets a server stand still for a second or two is not what is tested.
                timeout: Duration::from_secs(5),
            },
            reads: Reads {
                consistency: Consistency::Session,
                max_lag: Duration::from_secs(10),
                // Little work, and what is done past the proxy is soon known.
                catalog_ttl: Duration::from_millis(100),
                trust_declared_volatility: true,
                catalogs: false,
            },
            standby_functions: Vec::new(),
            standby_procedures: Vec::new(),
        }],
        databases: vec![Database {
            name: "*".to_owned(),
            cluster: "main".to_owned(),
            dbname: None,
            max_connections: None,
            max_clients: None,
            routing: Routing::default(),
            pool: Pool {
                size: 10,
                wait_timeout: LIMIT,
                max_prepared: 100,
                ..Pool::default()
            },
        }],
        users: Vec::new(),
        auth: Auth {
            method: AuthMethod::Trust,
            users: None,
        },
        admin: Admin {
            users: Vec::new(),
            http: Some(loopback),
            queries: 1000,
        },
        limits: Limits {
            max_clients: 3000,
            pipeline_buffer: 64 << 10,
            max_message: 1 << 30,
        },
        timeouts: Timeouts {
            login: Duration::from_secs(10),
            shutdown: Duration::from_secs(2),
            ..Timeouts::default()
        },
        peering: None,
        log: Log {
            level: LogLevel::Warn,
            format: LogFormat::Text,
        },
    }
}

/// A proxy on a thread and a runtime of its own.
pub struct RunningProxy {
    pub address: SocketAddr,
    /// What a reload finds.
    file: Arc<Mutex<Result<Config, String>>>,
    http: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<usize>>,
}

impl RunningProxy {
    fn start(config: Config) -> RunningProxy {
        let (report, started) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let file = Arc::new(Mutex::new(Ok(config.clone())));
        let again = file.clone();
        let reread: Reread = Box::new(move || again.lock().expect("nobody panics").clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("the system gives a runtime")
                .block_on(async move {
                    let proxy = Proxy::start(config, Some(reread))
                        .await
                        .unwrap_or_else(|error| panic!("{error}"));
                    let http = proxy
                        .http_address()
                        .expect("the configuration asks for HTTP");
                    report
                        .send((tcp(&proxy), http))
                        .expect("start waits for the report");
                    // An error means that the rig is gone, which is a reason to stop, too.
                    let _ = stopped.await;
                    proxy.shutdown().await
                })
        });
        let (address, http) = started.recv().expect("the proxy starts");
        RunningProxy {
            address,
            file,
            http,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).expect("the proxy's thread waits for it");
        }
    }

    fn stop(&mut self) -> usize {
        self.begin_stop();
        let thread = self.thread.take().expect("a proxy is stopped once");
        thread.join().expect("the proxy's thread does not panic")
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        let ended = thread.join();
        assert!(
            ended.is_ok() || thread::panicking(),
            "the proxy's thread panicked"
        );
    }
}

/// The first TCP address that a proxy listens on.
fn tcp(proxy: &Proxy) -> SocketAddr {
    let address = proxy.addresses().iter().find_map(|address| match address {
        config::Address::Tcp(host, port) => format!("{host}:{port}").parse().ok(),
        config::Address::Unix(_) => None,
    });
    address.expect("the configuration has a TCP listener")
}

/// A client program of PostgreSQL, of the same version as the cluster.
pub fn program(cluster: &Cluster, name: &str) -> Command {
    let bin = cluster.nodes().iter().find_map(|node| {
        node.value("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
            .ok()
    });
    let path = PathBuf::from(bin.expect("a node runs")).join(name);
    assert!(
        path.is_file(),
        "{} is missing; on Debian: apt-get install postgresql-client",
        path.display()
    );
    let mut command = Command::new(path);
    // Whoever runs the tests may have settings of their own.
    for (variable, _) in std::env::vars_os() {
        if variable.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(variable);
        }
    }
    command.env("LC_ALL", "C");
    command
}

/// Runs a command to its end, and returns what it wrote to both of its outputs.
#[track_caller]
pub fn run(command: &mut Command) -> (String, String) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}\n{err}",
        output.status
    );
    (out, err)
}

/// How many statements with this text a node has logged, by either protocol (`log_statement = all`).
pub fn logged(node: &Node, text: &str) -> usize {
    let log = node.log().expect("a node has a log");
    let is_statement =
        |line: &&str| line.contains("LOG:  statement: ") || line.contains("LOG:  execute ");
    log.lines()
        .filter(is_statement)
        .filter(|line| line.contains(text))
        .count()
}

/// How many lines with this SQLSTATE a node has logged.
pub fn logged_errors(node: &Node, sqlstate: &str) -> usize {
    let (log, mark) = (
        node.log().expect("a node has a log"),
        format!(" {sqlstate} "),
    );
    let is_error = |line: &&str| line.contains(&mark) && !line.contains("LOG:  ");
    log.lines().filter(is_error).count()
}

/// Runs a statement that must succeed.
#[track_caller]
pub fn execute(client: &mut RawClient, sql: &str) {
    client
        .query(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Runs a statement that must succeed by the extended protocol.
#[track_caller]
pub fn extended(client: &mut RawClient, sql: &str) {
    let bytes = [
        request::parse("", sql, &[]),
        request::bind("", "", &[]),
        request::execute("", 0),
        request::sync(),
    ]
    .concat();
    client.send(&bytes).expect("an open connection");
    let answer = client.recv_until_ready().expect("an answer");
    assert!(
        answer.iter().all(|message| message.tag != b'E'),
        "{sql}: {answer:?}"
    );
}

/// The single value that a statement returns.
#[track_caller]
pub fn value(client: &mut RawClient, sql: &str) -> String {
    let rows = client
        .query(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let first = rows.into_iter().flatten().next();
    first
        .unwrap_or_else(|| panic!("{sql}: no row"))
        .unwrap_or_default()
}

/// The SQLSTATE that a statement fails with.
#[track_caller]
pub fn sqlstate(client: &mut RawClient, sql: &str) -> String {
    match client.query(sql) {
        Ok(rows) => panic!("{sql}: succeeded with {rows:?}"),
        Err(error) => error
            .sqlstate()
            .unwrap_or_else(|| panic!("{sql}: {error}"))
            .to_owned(),
    }
}

/// Shows a figure that is of interest beside the verdict, with `cargo nextest run --no-capture`.
#[expect(
    clippy::print_stderr,
    reason = "the test runner keeps it until somebody asks"
)]
pub fn report(figure: &str) {
    eprintln!("{figure}");
}

/// Messages as one line: each tag, and of errors the code, of completions the text, of rows the values.
pub fn script(messages: &[Message]) -> String {
    let word = |message: &Message| match message.tag {
        b'E' | b'N' => format!(
            "{}:{}",
            char::from(message.tag),
            message.error().expect("fields").code()
        ),
        b'C' => format!("C:{}", message.command_tag().expect("a tag")),
        b'Z' => format!(
            "Z:{}",
            char::from(message.transaction_status().expect("a status"))
        ),
        b'D' => {
            let row = message.text_row().expect("a row");
            let values: Vec<String> = row
                .into_iter()
                .map(|value| value.unwrap_or("NULL".to_owned()))
                .collect();
            format!("D:{}", values.join(","))
        }
        tag => char::from(tag).to_string(),
    };
    messages.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A proxy.toml for the cluster, with the proxy on this port.
pub fn config_text(cluster: &Cluster, port: u16) -> String {
    let node = |node: &Node| {
        format!(
            "{{ name = \"{}\", address = \"{}\" }}",
            node.name(),
            node.address()
        )
    };
    let nodes: Vec<String> = cluster.nodes().iter().map(node).collect();
    format!(
        "[[listener]]\naddress = \"127.0.0.1:{port}\"\n\n[cluster.main]\nnodes = [{}]\n\
         monitor = {{ user = \"postgres\", database = \"postgres\" }}\n\n[database.\"*\"]\n\n[auth]\nmethod = \"trust\"\n",
        nodes.join(", ")
    )
}
