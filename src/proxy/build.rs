//! From configuration to rooms.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;

use super::catalogs::Catalogs;
use super::console::Admins;
use super::peers::Peering;
use crate::client::{Authenticator, Method, UserSecret, Verifier};
use crate::cluster::{Event, Judge, NodeState, Policy, View};
use crate::config::{self, Config};
use crate::link::{Bounce, Statements};
use crate::metrics::{Labels, Metrics};
use crate::monitor::{Monitor, Probe, Watched};
use crate::net::TcpOptions;
use crate::pool::{Ledger, Limits, NodeCounts, Owner, Setup, Shared as Bound};
use crate::relay::{
    self, Cluster, Mode, Node, PoolSet, Registry, SessionTimeouts, Shared, Template,
};
use crate::route::{Ground, Role};
use crate::server::{Credentials, Endpoint, Secret};
use crate::session;
use crate::sql::catalog::Change;
use crate::sql::{Classifier, HintResult, PinReason, Reason};
use crate::wire::SqlState;

/// Memory for verdicts on statements, and for the texts of prepared statements. The working set of an application is a
/// few hundred KiB; these bounds are for applications that put literals into their statements.
const CLASSIFIER_BYTES: u64 = 16 * 1024 * 1024;
const STATEMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Metric labels: timeouts, by their keys in `[timeouts]`.
const TIMEOUTS: [&str; 8] = [
    "login",
    "connect",
    "cancel",
    "client_idle",
    "idle_in_transaction",
    "transaction",
    "query",
    "client_write",
];

/// How often idle connections are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

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
    pub(super) peering: Option<Peering>,
    pub(super) admins: Admins,
}

/// The databases that clients may ask for, and the pools made for them so far.
pub(super) struct Databases {
    named: HashMap<String, Database>,
    any: Option<Database>,
    users: HashMap<String, config::User>,
    counts: Mutex<HashMap<Counted, Arc<AtomicUsize>>>,
    catalogs: Catalogs,
    pools: Mutex<HashMap<(String, String), Arc<PoolSet>>>,
}

/// Whose clients are counted.
#[derive(PartialEq, Eq, Hash)]
enum Counted {
    Database(String),
    User(String),
}

/// Places among bounded numbers of clients, for as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Arc<AtomicUsize>>);

impl Drop for Places {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A database of proxy.toml.
struct Database {
    dbname: Option<String>,
    max_connections: Option<usize>,
    max_clients: Option<usize>,
    routing: config::Routing,
    /// What its cluster has.
    reads: config::Reads,
    template: Template,
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
        let known = self.named.get(database).or(self.any.as_ref())?;
        let owner = Owner {
            name: database,
            database: known.dbname.as_deref().unwrap_or(database),
            user,
            credentials,
            told: Arc::default(),
        };
        let template = for_user(known, database, self.users.get(user));
        let catalog = self.catalogs.watch(&template.cluster, owner.database);
        let set = Arc::new(PoolSet::new(&template, owner, catalog));
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
        let mut databases = self.named.values().chain(self.any.as_ref());
        let only = databases.next().filter(|first| {
            let cluster = &first.template.cluster;
            databases.all(|other| Arc::ptr_eq(&other.template.cluster, cluster))
        });
        let known = self
            .named
            .get(database)
            .or(self.any.as_ref())
            .or(only.filter(|_| physical))?;
        let name = known.dbname.as_deref().unwrap_or(database);
        Some((known.template.cluster.clone(), name.to_owned()))
    }

    /// A client's places among those of its database and its user, where they are bounded.
    ///
    /// # Errors
    /// The name of the bound that is reached.
    pub(super) fn admit(&self, database: &str, user: &str) -> Result<Places, &'static str> {
        let known = self.named.get(database).or(self.any.as_ref());
        let of_database = known.and_then(|known| known.max_clients);
        let of_user = self.users.get(user).and_then(|user| user.max_clients);
        let mut places = Places::default();
        let bounds = [
            (
                of_database,
                Counted::Database(database.to_owned()),
                "max_db_client_connections",
            ),
            (
                of_user,
                Counted::User(user.to_owned()),
                "max_user_client_connections",
            ),
        ];
        for (most, counted, name) in bounds {
            let Some(most) = most else { continue };
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(counted).or_default().clone();
            drop(counts);
            // Given back with the others if it is one too many.
            let taken = count.fetch_add(1, Ordering::Relaxed);
            places.0.push(count);
            if taken >= most {
                return Err(name);
            }
        }
        Ok(places)
    }

    /// The bounds on sessions of every database and user.
    fn all_timeouts(&self) -> Vec<SessionTimeouts> {
        let databases = self.named.values().chain(self.any.as_ref());
        let of_databases: Vec<_> = databases.map(|known| *known.template.timeouts).collect();
        let users = self.users.values();
        let of_users = users.flat_map(|user| {
            let bounds = of_databases.iter();
            bounds.map(move |all| timeouts_for(all, user))
        });
        of_databases.iter().copied().chain(of_users).collect()
    }

    /// Takes pools out that nobody uses and that have no connection.
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
        watched.push(to_watch(
            &metrics,
            clusters.len(),
            first_node,
            cluster,
            config,
        ));
        clusters.push(Arc::new(assemble(&metrics, first_node, cluster, config)));
        first_node += cluster.nodes.len();
    }
    let catalogs = Catalogs::new(config, &metrics);
    let shared = Arc::new(Shared {
        classifier: Classifier::new(CLASSIFIER_BYTES).with_shapes(config.admin.queries),
        statements: Statements::new(STATEMENT_BYTES),
        registry: Arc::new(Registry::new(
            config.peering.as_ref().map(|peering| peering.id),
        )),
        metrics,
        pipeline_buffer: config.limits.pipeline_buffer,
        max_message: config.limits.max_message,
        cancel_timeout: config.timeouts.cancel,
    });
    let timeouts = SessionTimeouts {
        client_idle: config.timeouts.client_idle,
        idle_in_transaction: config.timeouts.idle_in_transaction,
        transaction: config.timeouts.transaction,
        query: config.timeouts.query,
        client_write: config.timeouts.client_write,
        epoch: Instant::now(),
    };
    let built = Built {
        databases: databases(config, &clusters, timeouts, catalogs),
        authenticator: authenticator(&config.auth, seed),
        shared,
        clusters,
        clients: Arc::new(Semaphore::new(config.limits.max_clients)),
        login_timeout: config.timeouts.login,
        admins: Admins::new(&config.admin.users),
        peering: config
            .peering
            .as_ref()
            .map(|peering| Peering::new(peering, tcp(config), config.timeouts.cancel)),
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
    let classes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let pins: Vec<&str> = PinReason::ALL.iter().map(|pin| pin.as_str()).collect();
    let states: Vec<&str> = SqlState::ALL.iter().map(|state| state.code()).collect();
    Metrics::new(&Labels {
        version: env!("CARGO_PKG_VERSION"),
        nodes: &nodes,
        roles: &NodeState::ALL.map(NodeState::as_str),
        targets: &Role::ALL.map(Role::as_str),
        reasons: &relay::reasons(),
        classes: &classes,
        hints: &HintResult::LABELS,
        probe_failures: &crate::monitor::FAILURES,
        pins: &pins,
        bounces: &Bounce::ALL.map(Bounce::as_str),
        login_failures: &super::accept::FAILURES,
        cancel_results: &super::peers::RESULTS,
        timeouts: &TIMEOUTS,
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
        max_connections: node.max_connections,
        endpoint: endpoint(metrics, node, config),
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
        ledger: Arc::new(Ledger::new(counters.evictions.clone())),
        connects: counters.connects.clone(),
        failed_connects: counters.failed_connects.clone(),
    }
}

/// What TCP connections get, on both sides.
pub(super) fn tcp(config: &Config) -> TcpOptions {
    TcpOptions {
        keepalive: config.timeouts.tcp_keepalive,
        user_timeout: config.timeouts.tcp_user,
    }
}

fn endpoint(metrics: &Metrics, node: &config::Node, config: &Config) -> Endpoint {
    // Databases have bounds of their own; connections outside of pools prepare nothing.
    let max_prepared = 0;
    Endpoint {
        address: node.address.clone(),
        tcp: tcp(config),
        timeout: config.timeouts.connect,
        timeouts: metrics.timeouts.named("connect").clone(),
        max_prepared,
    }
}

fn to_watch(
    metrics: &Metrics,
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
        endpoint: endpoint(metrics, node, config),
        user: monitor.user.clone(),
        database: monitor.database.clone(),
        credentials: credentials(monitor),
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

/// What proves the monitor user.
pub(super) fn credentials(monitor: &config::Monitor) -> Credentials {
    let password = monitor.password.as_ref();
    Credentials::new(password.map(|p| Secret::Password(p.expose().into())))
}

fn databases(
    config: &Config,
    clusters: &[Arc<Cluster>],
    timeouts: SessionTimeouts,
    catalogs: Catalogs,
) -> Databases {
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
        let reads = config
            .clusters
            .iter()
            .find(|known| known.name == database.cluster);
        let Some(reads) = reads.map(|known| known.reads) else {
            continue;
        };
        let known = known_database(config, database, reads, cluster.clone(), timeouts);
        if database.name == "*" {
            any = Some(known);
        } else {
            named.insert(database.name.clone(), known);
        }
    }
    let users = config.users.iter();
    Databases {
        named,
        any,
        users: users
            .map(|user| (user.name.clone(), user.clone()))
            .collect(),
        counts: Mutex::default(),
        catalogs,
        pools: Mutex::default(),
    }
}

fn known_database(
    config: &Config,
    database: &config::Database,
    reads: config::Reads,
    cluster: Arc<Cluster>,
    timeouts: SessionTimeouts,
) -> Database {
    let pool = &database.pool;
    let sql = |text: &Option<String>| text.as_deref().map(Box::from);
    Database {
        dbname: database.dbname.clone(),
        max_connections: database.max_connections,
        max_clients: database.max_clients,
        routing: database.routing,
        reads,
        template: Template {
            cluster,
            mode: mode(pool.mode),
            limits: Limits {
                size: pool.size,
                min: pool.min,
                reserve: pool.reserve,
                reserve_after: pool.reserve_after,
                wait: pool.wait_timeout,
                max_prepared: pool.max_prepared,
                idle: config.timeouts.server_idle,
                lifetime: config.timeouts.server_lifetime,
                check: config.timeouts.server_check,
            },
            bounds: Vec::new(),
            timeouts: Arc::new(timeouts),
            listen: pool.listen,
            ground: Ground::default(),
            deferred_begin: pool.deferred_begin,
            optimistic: pool.optimistic,
            setup: Arc::new(Setup {
                connect_query: sql(&pool.connect_query),
                reset_query: sql(&pool.reset_query),
                ..Setup::default()
            }),
        },
    }
}

fn mode(mode: config::PoolMode) -> Mode {
    match mode {
        config::PoolMode::Transaction => Mode::Transaction,
        config::PoolMode::Session => Mode::Session,
        config::PoolMode::Statement => Mode::Statement,
    }
}

/// How the pools of a database are made for one user, who may have other bounds than the rest.
fn for_user(known: &Database, name: &str, user: Option<&config::User>) -> Template {
    let mut template = known.template.clone();
    if let Some(most) = known.max_connections {
        template.bounds.push((Bound::Database(name.into()), most));
    }
    let routing = user.map(|user| user.routing).unwrap_or_default();
    template.ground = Ground::new(routing.or(known.routing), known.reads);
    let setup = Setup {
        parameters: session::own_settings(template.ground).into(),
        ..Setup::clone(&template.setup)
    };
    template.setup = Arc::new(setup);
    let Some(user) = user else { return template };
    if let Some(most) = user.max_connections {
        template
            .bounds
            .push((Bound::User(user.name.as_str().into()), most));
    }
    template.mode = user.mode.map_or(template.mode, mode);
    let limits = &mut template.limits;
    limits.size = user.size.unwrap_or(limits.size);
    limits.min = user.min.unwrap_or(limits.min).min(limits.size);
    limits.reserve = user.reserve.unwrap_or(limits.reserve);
    template.timeouts = Arc::new(timeouts_for(&template.timeouts, user));
    template
}

/// The bounds of one user's sessions.
fn timeouts_for(all: &SessionTimeouts, user: &config::User) -> SessionTimeouts {
    SessionTimeouts {
        client_idle: user.client_idle.or(all.client_idle),
        idle_in_transaction: user.idle_in_transaction.or(all.idle_in_transaction),
        transaction: user.transaction.or(all.transaction),
        query: user.query.or(all.query),
        ..*all
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
            built.databases.all().iter().for_each(|set| {
                set.forget_welcomes();
                // What the old primary had and nobody has replayed is gone.
                set.catalog.changed(Change::Names);
            });
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
    let timeouts = built.databases.all_timeouts();
    let paces = timeouts.iter().filter_map(SessionTimeouts::pace);
    let (Some(pace), Some(any)) = (paces.min(), timeouts.first()) else {
        return;
    };
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        relay::sweep(&built.shared.registry, any);
    }
}

/// Closes server connections that have been idle, or alive, for too long.
pub(super) async fn keep_house(built: Arc<Built>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        ticks.tick().await;
        for set in built.databases.all() {
            // The map has one, and this is another.
            let has_clients = Arc::strong_count(&set) > 2;
            for pool in &set.pools {
                pool.tidy(has_clients);
                if has_clients && pool.is_below_minimum() {
                    let pool = pool.clone();
                    tokio::spawn(async move { pool.warm().await });
                }
            }
            built.databases.forget_unused(&set);
        }
    }
}
