//! `pgweir demo`: real servers, the proxy before them, a little traffic, and what became of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::config::{
    Address, Admin, Auth, AuthMethod, Cluster as ClusterConfig, Config, Consistency, Database,
    Limits, Log, LogFormat, LogLevel, Monitor, Node as NodeConfig, Pool, Reads, Routing, Timeouts,
};
use crate::proxy::{self, NodeStatements, Proxy};
use crate::testbed::{self, Cluster, RawClient};

/// Why the demonstration could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The servers could not be made.
    #[error(transparent)]
    Servers(#[from] testbed::Error),
    /// The proxy could not be started.
    #[error(transparent)]
    Proxy(#[from] proxy::StartError),
    /// A thread, a runtime or the terminal failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The proxy found no primary, or no standby to read from.
    #[error("the proxy did not find its servers ready in {0:?}")]
    NotReady(Duration),
}

/// Where people expect a proxy, and the status beside it, if the ports are free.
const PORT: u16 = 6432;
const STATUS_PORT: u16 = 9632;

/// The database that the traffic is in.
const DATABASE: &str = "demo";

/// Sessions that write a row and read it back, and sessions that read.
const WRITERS: usize = 1;
const READERS: usize = 3;

/// Between two statements of a session: some traffic, not a benchmark.
const PACE: Duration = Duration::from_millis(20);

/// Bound for the proxy to find a primary and both standbys.
const READY: Duration = Duration::from_secs(30);

/// Runs the demonstration for `time`, or until SIGINT or SIGTERM. `say` gets what is to be printed.
///
/// # Errors
/// [`DemoError`]. Servers and their files are removed in any case.
pub fn run(
    time: Option<Duration>,
    say: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<(), DemoError> {
    say("Starting a primary and two standbys …\n")?;
    let cluster = Cluster::builder().standbys(2).start()?;
    cluster
        .primary()
        .execute(&format!("CREATE DATABASE {DATABASE}"))?;
    cluster
        .primary()
        .connect(DATABASE)?
        .query("CREATE TABLE visits (id bigserial PRIMARY KEY, at timestamptz)")?;
    cluster.wait_caught_up()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let table = runtime.block_on(show(&cluster, time, say))?;
    say(&table)?;
    say("\nRemoving the servers …\n")?;
    drop(cluster);
    Ok(())
}

async fn show(
    cluster: &Cluster,
    time: Option<Duration>,
    say: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<String, DemoError> {
    let proxy = Proxy::start(configuration(cluster), None).await?;
    tokio::time::timeout(READY, proxy.ready())
        .await
        .map_err(|_| DemoError::NotReady(READY))?;
    let address = proxy.addresses()[0].clone();
    say(&format!(
        "\n  psql \"postgres://postgres@{address}/{DATABASE}\"\n"
    ))?;
    if let Some(status) = proxy.http_address() {
        say(&format!(
            "  status: http://{status}/readyz   metrics: http://{status}/metrics\n"
        ))?;
    }
    say("  console: database pgweir at the same address; SHOW HELP lists what it answers\n")?;
    for node in cluster.nodes() {
        say(&format!("  {}: {}\n", node.name(), node.address()))?;
    }
    if time.is_none() {
        say(&failover(cluster))?;
    }
    say(&format!(
        "\nTraffic: {WRITERS} session writes rows and reads them back, {READERS} read, {} …\n",
        time.map_or("until Ctrl-C".to_owned(), |time| format!("for {time:?}"))
    ))?;
    let traffic = Traffic::start(&address)?;
    tokio::select! {
        signal = proxy::stop_signal() => { signal?; }
        () = tokio::time::sleep(time.unwrap_or(Duration::MAX)) => {}
    }
    // The proxy answers their last statements on this thread: it must not wait for them here.
    let stopped = tokio::task::spawn_blocking(move || traffic.stop()).await;
    let (errors, stale) = stopped.map_err(io::Error::other)?;
    let table = table(&proxy.statements(), errors, stale);
    proxy.shutdown().await;
    Ok(table)
}

/// What to type to see a failover.
fn failover(cluster: &Cluster) -> String {
    let (Some(primary), Some(standby)) = (
        cluster.primary().process_id(),
        cluster.standbys().first().map(|node| node.url("postgres")),
    ) else {
        return String::new();
    };
    format!(
        "\nA failover, from another terminal:\n  kill -9 {primary}\n  psql \"{standby}\" -c \"SELECT pg_promote()\"\n"
    )
}

/// The proxy as somebody would configure it for these servers.
fn configuration(cluster: &Cluster) -> Config {
    let node = |node: &testbed::Node| NodeConfig {
        name: node.name().to_owned(),
        address: Address::Tcp(node.address().ip().to_string(), node.address().port()),
        max_connections: None,
    };
    let monitor = Monitor {
        user: "postgres".to_owned(),
        password: None,
        database: "postgres".to_owned(),
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(1),
    };
    Config {
        workers: 1,
        listeners: vec![local(PORT).into()],
        clusters: vec![ClusterConfig {
            name: "demo".to_owned(),
            nodes: cluster.nodes().iter().map(node).collect(),
            monitor,
            reads: Reads {
                consistency: Consistency::Session,
                max_lag: Duration::from_secs(10),
                catalog_ttl: Duration::from_secs(60),
                trust_declared_volatility: true,
                catalogs: false,
            },
            standby_functions: Vec::new(),
            standby_procedures: Vec::new(),
        }],
        databases: vec![Database {
            name: "*".to_owned(),
            cluster: "demo".to_owned(),
            dbname: None,
            max_connections: None,
            max_clients: None,
            routing: Routing::default(),
            pool: Pool::default(),
        }],
        users: Vec::new(),
        auth: Auth {
            method: AuthMethod::Trust,
            users: None,
        },
        admin: Admin {
            users: vec!["postgres".to_owned()],
            queries: 1000,
            http: Some(local(STATUS_PORT)),
        },
        limits: Limits {
            max_clients: 1000,
            pipeline_buffer: 1 << 20,
            max_message: 1 << 30,
        },
        timeouts: Timeouts {
            shutdown: Duration::from_secs(5),
            ..Timeouts::default()
        },
        peering: None,
        log: Log {
            level: LogLevel::Warn,
            format: LogFormat::Text,
        },
    }
}

/// The port, or any other if somebody has it.
fn local(port: u16) -> Address {
    let free = std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    Address::Tcp("127.0.0.1".to_owned(), if free { port } else { 0 })
}

/// Sessions in threads of their own, as applications are.
struct Traffic {
    stop: Arc<AtomicBool>,
    errors: Arc<AtomicU64>,
    stale: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Traffic {
    fn start(address: &Address) -> io::Result<Traffic> {
        let Address::Tcp(host, port) = address else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let address: std::net::SocketAddr = format!("{host}:{port}")
            .parse()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut traffic = Traffic {
            stop: Arc::default(),
            errors: Arc::default(),
            stale: Arc::default(),
            threads: Vec::new(),
        };
        for session in 0..WRITERS + READERS {
            let (stop, errors, stale) = (
                traffic.stop.clone(),
                traffic.errors.clone(),
                traffic.stale.clone(),
            );
            let client = move || {
                while !stop.load(Ordering::Relaxed) {
                    let result = if session < WRITERS {
                        write(address, &stop, &stale)
                    } else {
                        read(address, &stop)
                    };
                    if result.is_err() {
                        errors.fetch_add(1, Ordering::Relaxed);
                        // A server may be away for a moment: not a reason to ask thousands of times.
                        pause();
                    }
                }
            };
            traffic.threads.push(
                std::thread::Builder::new()
                    .name("traffic".to_owned())
                    .spawn(client)?,
            );
        }
        Ok(traffic)
    }

    /// Ends the sessions; the statements that failed, and the reads that missed their session's write.
    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A session that panicked has shown its message already.
            let _ = thread.join();
        }
        (
            self.errors.load(Ordering::Relaxed),
            self.stale.load(Ordering::Relaxed),
        )
    }
}

fn session(address: std::net::SocketAddr) -> Result<RawClient, testbed::Error> {
    RawClient::connect(
        &address.into(),
        &[("user", "postgres"), ("database", DATABASE)],
    )
}

/// Writes a row and reads it back in the same session.
fn write(
    address: std::net::SocketAddr,
    stop: &AtomicBool,
    stale: &AtomicU64,
) -> Result<(), testbed::Error> {
    let mut client = session(address)?;
    while !stop.load(Ordering::Relaxed) {
        let rows = client.query("INSERT INTO visits (at) VALUES (now()) RETURNING id")?;
        let id = rows
            .first()
            .and_then(|row| row.first())
            .cloned()
            .flatten()
            .unwrap_or_default();
        let seen = client.query(&format!("SELECT id FROM visits WHERE id = {id}"))?;
        if seen.is_empty() {
            stale.fetch_add(1, Ordering::Relaxed);
        }
        pause();
    }
    Ok(())
}

fn read(address: std::net::SocketAddr, stop: &AtomicBool) -> Result<(), testbed::Error> {
    let mut client = session(address)?;
    while !stop.load(Ordering::Relaxed) {
        client.query("SELECT count(*), max(at) FROM visits")?;
        pause();
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "traffic has a pace; nothing waits for it"
)]
fn pause() {
    std::thread::sleep(PACE);
}

/// Statements by node and role.
fn table(nodes: &[NodeStatements], errors: u64, stale: u64) -> String {
    let mut out = format!(
        "\n{:<12} {:>12} {:>12}\n",
        "node", "as primary", "as standby"
    );
    for node in nodes {
        out += &format!(
            "{:<12} {:>12} {:>12}\n",
            node.node, node.as_primary, node.as_standby
        );
    }
    out + &format!(
        "\nstatements that failed: {errors}; reads that missed their session's write: {stale}\n"
    )
}
