//! From configuration to rooms.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;

use crate::client::{Authenticator, Method, UserSecret, Verifier};
use crate::cluster::{Event, Judge, NodeState, Policy, View};
use crate::config::{self, Config};
use crate::link::Statements;
use crate::metrics::{Labels, Metrics};
use crate::monitor::{Monitor, Probe, Watched};
use crate::pool::{Limits, NodeCounts};
use crate::relay::{self, Cluster, Mode, Node, PoolSet, Registry, SessionTimeouts, Shared};
use crate::route::Role;
use crate::server::{Credentials, Endpoint, Secret};
use crate::sql::{Classifier, PinReason};
use crate::wire::SqlState;

/// Memory for verdicts on statements, and for the texts of prepared statements. The working set of an application is a
/// few hundred KiB; these bounds are for applications that put literals into their statements.
const CLASSIFIER_BYTES: u64 = 16 * 1024 * 1024;
const STATEMENT_BYTES: u64 = 64 * 1024 * 1024;

/// How long a cancel request to a server may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// How often idle connections are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Why the configuration could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The system has no random numbers to give.
    #[error("the system's random number generator failed")]
    NoRandomness,
}

/// Everything that lives as long as the proxy.
pub(super) struct Built {
    pub(super) shared: Arc<Shared>,
    pub(super) clusters: Vec<Arc<Cluster>>,
    pub(super) authenticator: Authenticator,
    pub(super) databases: Databases,
    /// A permit for each client that may be connected.
    pub(super) clients: Arc<Semaphore>,
    pub(super) login_timeout: Duration,
}

/// The databases that clients may ask for, and the pools made for them so far.
pub(super) struct Databases {
    named: HashMap<String, Arc<Template>>,
    any: Option<Arc<Template>>,
    pools: Mutex<HashMap<(String, String), Arc<PoolSet>>>,
}

struct Template {
    cluster: Arc<Cluster>,
    dbname: Option<String>,
    mode: Mode,
    listen: config::ListenPolicy,
    limits: Limits,
}

impl Databases {
    /// The pools for a database and user, made at the first login. `None` for a database that is not configured.
    pub(super) fn pools(
        &self,
        database: &str,
        user: &str,
        credentials: Arc<Credentials>,
    ) -> Option<Arc<PoolSet>> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (database.to_owned(), user.to_owned());
        if let Some(known) = pools.get(&key) {
            return Some(known.clone());
        }
        let template = self.named.get(database).or(self.any.as_ref())?;
        let set = Arc::new(PoolSet::new(
            database,
            template.dbname.as_deref().unwrap_or(database),
            user,
            template.cluster.clone(),
            template.mode,
            template.listen,
            template.limits,
            credentials,
        ));
        pools.insert(key, set.clone());
        Some(set)
    }

    /// The cluster of a database, and the database's name there. Physical replication is not about any database: where
    /// the name is not configured, and there is one cluster only, it is that one.
    pub(super) fn for_replication(
        &self,
        database: &str,
        physical: bool,
    ) -> Option<(Arc<Cluster>, String)> {
        let mut templates = self.named.values().chain(self.any.as_ref());
        let only = templates
            .next()
            .filter(|first| templates.all(|other| Arc::ptr_eq(&other.cluster, &first.cluster)));
        let template = self
            .named
            .get(database)
            .or(self.any.as_ref())
            .or(only.filter(|_| physical))?;
        let name = template.dbname.as_deref().unwrap_or(database);
        Some((template.cluster.clone(), name.to_owned()))
    }

    /// Takes pools out that were made for a login which then failed.
    pub(super) fn forget_unused(&self, set: &Arc<PoolSet>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // Ours, and the map's: nobody else uses it, and it has no connection.
        if Arc::strong_count(set) == 2 && set.pools.iter().all(|pool| pool.status().size == 0) {
            pools.remove(&(set.name.clone(), set.user.clone()));
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<PoolSet>> {
        self.pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }
}

/// What the monitor of one cluster needs.
pub(super) struct ToWatch {
    cluster: usize,
    first_node: usize,
    judge: Judge,
    probes: Vec<Probe>,
    interval: Duration,
}

/// Builds the rooms. Nothing talks to anybody yet.
pub(super) fn build(config: &Config) -> Result<(Built, Vec<ToWatch>), BuildError> {
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| BuildError::NoRandomness)?;
    let metrics = metrics(config);
    let mut clusters = Vec::new();
    let mut watched = Vec::new();
    let mut first_node = 0;
    for cluster in &config.clusters {
        watched.push(to_watch(clusters.len(), first_node, cluster, config));
        clusters.push(Arc::new(assemble(&metrics, first_node, cluster, config)));
        first_node += cluster.nodes.len();
    }
    let shared = Arc::new(Shared {
        classifier: Classifier::new(CLASSIFIER_BYTES),
        statements: Statements::new(STATEMENT_BYTES),
        registry: Arc::new(Registry::default()),
        metrics,
        pipeline_buffer: config.limits.pipeline_buffer,
        max_message: config.limits.max_message,
        cancel_timeout: CANCEL_TIMEOUT,
        timeouts: SessionTimeouts {
            client_idle: config.timeouts.client_idle,
            idle_in_transaction: config.timeouts.idle_in_transaction,
            transaction: config.timeouts.transaction,
            query: config.timeouts.query,
            epoch: Instant::now(),
        },
    });
    let built = Built {
        databases: databases(config, &clusters),
        authenticator: authenticator(&config.auth, seed),
        shared,
        clusters,
        clients: Arc::new(Semaphore::new(config.limits.max_clients)),
        login_timeout: config.timeouts.login,
    };
    Ok((built, watched))
}

fn metrics(config: &Config) -> Arc<Metrics> {
    let nodes: Vec<(&str, &str)> = config
        .clusters
        .iter()
        .flat_map(|cluster| {
            cluster
                .nodes
                .iter()
                .map(|node| (cluster.name.as_str(), node.name.as_str()))
        })
        .collect();
    let pins: Vec<&str> = PinReason::ALL.iter().map(|pin| pin.as_str()).collect();
    let states: Vec<&str> = SqlState::ALL.iter().map(|state| state.code()).collect();
    Metrics::new(&Labels {
        version: env!("CARGO_PKG_VERSION"),
        nodes: &nodes,
        roles: &NodeState::ALL.map(NodeState::as_str),
        targets: &Role::ALL.map(Role::as_str),
        reasons: &relay::reasons(),
        probe_failures: &crate::monitor::FAILURES,
        pins: &pins,
        login_failures: &super::accept::FAILURES,
        cancel_results: &["sent", "failed", "unknown"],
        sqlstates: &states,
    })
}

fn assemble(
    metrics: &Metrics,
    first_node: usize,
    cluster: &config::Cluster,
    config: &Config,
) -> Cluster {
    let nodes = cluster.nodes.iter().enumerate().map(|(index, node)| Node {
        name: node.name.clone(),
        metric: first_node + index,
        endpoint: endpoint(node, config),
        counts: counts(metrics, first_node + index),
    });
    Cluster::new(
        &cluster.name,
        nodes.collect(),
        View::empty(cluster.nodes.len()),
    )
}

fn counts(metrics: &Metrics, node: usize) -> NodeCounts {
    let counters = metrics
        .node(node)
        .expect("the metrics were made for the same nodes");
    NodeCounts {
        outstanding: Arc::default(),
        connects: counters.connects.clone(),
        failed_connects: counters.failed_connects.clone(),
    }
}

fn endpoint(node: &config::Node, config: &Config) -> Endpoint {
    // Databases have bounds of their own; connections outside of pools prepare nothing.
    let max_prepared = 0;
    Endpoint {
        address: node.address.clone(),
        timeout: config.timeouts.connect,
        max_prepared,
    }
}

fn to_watch(
    index: usize,
    first_node: usize,
    cluster: &config::Cluster,
    config: &Config,
) -> ToWatch {
    let monitor = &cluster.monitor;
    let policy = Policy {
        max_lag: cluster.reads.max_lag,
        // A node is given three chances, and not less than a second: a busy machine is no dead one.
        silence_after: (monitor.interval * 3)
            .max(Duration::from_secs(1))
            .max(monitor.timeout),
    };
    let probe = |node: &config::Node| Probe {
        endpoint: endpoint(node, config),
        user: monitor.user.clone(),
        database: monitor.database.clone(),
        credentials: Credentials::new(
            monitor
                .password
                .as_ref()
                .map(|p| Secret::Password(p.expose().into())),
        ),
        timeout: monitor.timeout,
    };
    ToWatch {
        cluster: index,
        first_node,
        judge: Judge::new(cluster.nodes.len(), policy),
        probes: cluster.nodes.iter().map(probe).collect(),
        interval: monitor.interval,
    }
}

fn databases(config: &Config, clusters: &[Arc<Cluster>]) -> Databases {
    let mut named = HashMap::new();
    let mut any = None;
    for database in &config.databases {
        let Some(cluster) = clusters
            .iter()
            .find(|cluster| cluster.name == database.cluster)
        else {
            // Config has checked the name.
            continue;
        };
        let template = Arc::new(Template {
            cluster: cluster.clone(),
            dbname: database.dbname.clone(),
            mode: match database.pool.mode {
                config::PoolMode::Transaction => Mode::Transaction,
                config::PoolMode::Session => Mode::Session,
                config::PoolMode::Statement => Mode::Statement,
            },
            listen: database.pool.listen,
            limits: Limits {
                size: database.pool.size,
                wait: database.pool.wait_timeout,
                max_prepared: database.pool.max_prepared,
                idle: config.timeouts.server_idle,
                lifetime: config.timeouts.server_lifetime,
            },
        });
        if database.name == "*" {
            any = Some(template);
        } else {
            named.insert(database.name.clone(), template);
        }
    }
    Databases {
        named,
        any,
        pools: Mutex::default(),
    }
}

fn authenticator(auth: &config::Auth, seed: [u8; 32]) -> Authenticator {
    let method = match auth.method {
        config::AuthMethod::Trust => Method::Trust,
        config::AuthMethod::ScramSha256 => Method::Scram,
    };
    let secret = |secret: &config::UserSecret| match secret {
        config::UserSecret::Plain(password) => UserSecret::Plain(password.expose().into()),
        config::UserSecret::Scram(verifier) => UserSecret::Scram(Verifier {
            iterations: verifier.iterations,
            salt: verifier.salt.clone(),
            stored_key: verifier.stored_key,
            server_key: verifier.server_key,
        }),
    };
    let users = auth.users.as_ref().map(|users| {
        users
            .iter()
            .map(|(name, user)| (name.to_owned(), secret(user)))
            .collect()
    });
    Authenticator::new(method, users, seed)
}

/// Starts to watch every cluster.
pub(super) fn watch(built: &Arc<Built>, watched: Vec<ToWatch>) -> Vec<Monitor> {
    watched
        .into_iter()
        .map(|watched| watch_one(built, watched))
        .collect()
}

fn watch_one(built: &Arc<Built>, watched: ToWatch) -> Monitor {
    let cluster = built.clusters[watched.cluster].clone();
    let names = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let name = cluster.name.clone();
    let (first_node, weak, metrics) = (
        watched.first_node,
        Arc::downgrade(built),
        built.shared.metrics.clone(),
    );
    let publish = move |view: View, events: &[Event]| {
        for event in events {
            if let Event::State { node, .. } = event
                && let Some(counters) = metrics.node(first_node + node)
            {
                counters.state_changes.inc();
            }
        }
        let new_primary = events
            .iter()
            .any(|event| matches!(event, Event::PrimaryAccepted { .. }));
        cluster.view.store(Arc::new(view));
        if new_primary && let Some(built) = weak.upgrade() {
            built
                .databases
                .all()
                .iter()
                .for_each(|set| set.forget_welcomes());
        }
    };
    let watched = Watched {
        name,
        nodes: names,
        first_node,
        judge: watched.judge,
        interval: watched.interval,
        publish: Box::new(publish),
        probes: watched.probes,
    };
    crate::monitor::watch(watched, built.shared.metrics.clone())
}

/// Looks for sessions that are beyond their timeouts, for as long as the proxy runs.
pub(super) async fn keep_time(built: Arc<Built>) {
    let timeouts = built.shared.timeouts;
    let Some(pace) = timeouts.pace() else { return };
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        timeouts.sweep(&built.shared.registry);
    }
}

/// Closes server connections that have been idle, or alive, for too long.
pub(super) async fn keep_house(built: Arc<Built>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        ticks.tick().await;
        for set in built.databases.all() {
            set.pools.iter().for_each(crate::pool::Pool::tidy);
        }
    }
}
