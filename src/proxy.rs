//! The proxy as a whole: builds every room from the configuration, accepts clients, drains, stops.

mod accept;
mod build;
mod catalogs;
mod console;
mod databases;
mod peers;
mod reload;
mod status;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use build::BuildError;
use build::Built;
pub use reload::{ReloadError, Reread};

use crate::client::Listener;
use crate::cluster::View;
use crate::config::Config;
use crate::http;
use crate::net::Address;
use crate::route::Role;

/// A running proxy.
pub struct Proxy {
    built: Arc<Built>,
    listeners: JoinSet<()>,
    sessions: watch::Sender<usize>,
    addresses: Vec<Address>,
    http: Option<(http::Handle, std::net::SocketAddr)>,
    stop: watch::Sender<bool>,
    drain_limit: Duration,
    _monitors: Vec<crate::monitor::Monitor>,
    _housekeeping: JoinSet<()>,
}

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration could not be carried out.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A socket could not be bound.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// The HTTP side could not start.
    #[error(transparent)]
    Http(#[from] http::Error),
}

impl Proxy {
    /// Binds every socket and starts to watch the clusters. Nodes need not be there. `reread` is for [`Proxy::reload`].
    ///
    /// # Errors
    /// [`StartError`]; then nothing is left behind.
    pub async fn start(config: Config, reread: Option<Reread>) -> Result<Proxy, StartError> {
        let (built, watched) = build::build(config, reread)?;
        let built = Arc::new(built);
        let settings = built.databases.settings();
        let config = &settings.config;
        let (stop, stopped) = watch::channel(false);
        let (sessions, _) = watch::channel(0);
        let mut listeners = JoinSet::new();
        let mut addresses = Vec::new();
        let tcp = build::tcp(config);
        for crate::config::Listener { address, route } in &config.listeners {
            let listener =
                Listener::bind(address, tcp)
                    .await
                    .map_err(|error| StartError::Listen {
                        address: address.to_string(),
                        error,
                    })?;
            tracing::info!(address = %listener.address(), route = route.as_str(), "listening");
            addresses.push(listener.address());
            listeners.spawn(accept::accept(
                listener,
                *route,
                built.clone(),
                sessions.clone(),
                stopped.clone(),
            ));
        }
        let http = match &config.admin.http {
            Some(address) => Some(serve_http(address, &built, stopped.clone())?),
            None => None,
        };
        let monitors = build::watch(&built, watched);
        let mut housekeeping = JoinSet::new();
        housekeeping.spawn(build::keep_house(built.clone()));
        housekeeping.spawn(build::keep_time(built.clone()));
        housekeeping.spawn(build::keep_own_time(built.clone()));
        Ok(Proxy {
            built,
            listeners,
            sessions,
            addresses,
            http,
            stop,
            drain_limit: config.timeouts.shutdown,
            _monitors: monitors,
            _housekeeping: housekeeping,
        })
    }

    /// Reads the configuration again and has it hold, as far as it can while the proxy runs. Returns the keys that wait
    /// for the next start.
    ///
    /// # Errors
    /// [`ReloadError`]; what held before holds on.
    pub fn reload(&self) -> Result<Vec<String>, ReloadError> {
        reload::reload(&self.built)
    }

    /// Where it listens, with the real ports where 0 was asked for.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Where it answers HTTP.
    pub fn http_address(&self) -> Option<std::net::SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }

    /// Waits until every cluster has a primary and all of its other nodes are read.
    pub async fn ready(&self) {
        // Views are published without a bell; a look at each is cheap.
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !self
            .built
            .clusters
            .iter()
            .all(|cluster| is_complete(&cluster.view.load()))
        {
            ticks.tick().await;
        }
    }

    /// Statements given to each node so far.
    pub fn statements(&self) -> Vec<NodeStatements> {
        let nodes = self
            .built
            .clusters
            .iter()
            .flat_map(|cluster| cluster.nodes.iter());
        let count = |node: &crate::relay::Node, role: Role| {
            let counters = self.built.shared.metrics.node(node.metric);
            counters.map_or(0, |counters| counters.statements.named(role.as_str()).get())
        };
        nodes
            .map(|node| NodeStatements {
                node: node.name.clone(),
                as_primary: count(node, Role::Primary),
                as_standby: count(node, Role::Standby),
            })
            .collect()
    }

    /// Accepts nobody any more, lets transactions finish, tells every client goodbye (57P01), and returns when all are
    /// gone or the deadline has passed. Returns the number of sessions that had to be cut off.
    pub async fn shutdown(mut self) -> usize {
        // Nobody may be listening for this any more; then there is nothing to stop.
        let _ = self.stop.send(true);
        while self.listeners.join_next().await.is_some() {}
        self.built.shared.registry.drain();
        let mut sessions = self.sessions.subscribe();
        let emptied = sessions.wait_for(|count| *count == 0);
        let left = match tokio::time::timeout(self.drain_limit, emptied).await {
            Ok(_) => 0,
            Err(_) => *self.sessions.borrow(),
        };
        if let Some((http, _)) = self.http.take() {
            http.shutdown();
        }
        left
    }
}

/// Statements given to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatements {
    /// The node's name.
    pub node: String,
    /// Chosen as the primary.
    pub as_primary: u64,
    /// Chosen as a standby.
    pub as_standby: u64,
}

/// Whether there is a primary, and every other node is read.
fn is_complete(view: &View) -> bool {
    view.primary.is_some_and(|primary| {
        view.nodes
            .iter()
            .enumerate()
            .all(|(index, node)| index == primary || node.eligible)
    })
}

/// Waits for SIGTERM or SIGINT, and returns its name.
///
/// # Errors
/// When the system does not let the process listen for signals.
pub async fn stop_signal() -> io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// SIGHUP: the configuration is to be read again. From this call on it does not end the process.
///
/// # Errors
/// When the system does not let the process listen for signals.
pub fn reload_signals() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

fn serve_http(
    address: &Address,
    built: &Arc<Built>,
    stopped: watch::Receiver<bool>,
) -> Result<(http::Handle, std::net::SocketAddr), StartError> {
    let failed = |error| StartError::Listen {
        address: address.to_string(),
        error,
    };
    let Address::Tcp(host, port) = address else {
        return Err(failed(io::ErrorKind::Unsupported.into()));
    };
    let listener = std::net::TcpListener::bind((host.as_str(), *port)).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let status = Arc::new(status::ProxyStatus::new(built.clone(), stopped));
    let handle = http::serve(listener, status)?;
    tracing::info!(address = %bound, "answering HTTP");
    Ok((handle, bound))
}
