//! From configuration to rooms.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use super::Reread;
use super::catalogs::Catalogs;
use super::console::Admins;
use super::databases::{Databases, Settings};
use super::peers::Peering;
use crate::client::{Authenticator, Method, UserSecret, Verifier};
use crate::cluster::{Event, Judge, NodeState, Policy, View};
use crate::config::{self, Config};
use crate::link::{Bounce, Statements};
use crate::metrics::{Labels, Metrics};
use crate::monitor::{Monitor, Probe, Watched};
use crate::net::TcpOptions;
use crate::pool::{Ledger, Limits, NodeCounts, Setup, Shared as Bound};
use crate::relay::{self, Cluster, Mode, Node, Registry, SessionTimeouts, Shared, Template};
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

/// Metric labels: timeouts, by their keys in `[timeouts]`; `idle_session` is a setting of sessions.
const TIMEOUTS: [&str; 9] = [
    "login",
    "connect",
    "cancel",
    "client_idle",
    "idle_in_transaction",
    "transaction",
    "query",
    "client_write",
    "idle_session",
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
    pub(super) databases: Databases,
    pub(super) peering: Option<Peering>,
    pub(super) admins: Admins,
    /// Reads the configuration again; `None` if it comes from nowhere that it could be read again from.
    pub(super) reread: Option<Reread>,
    /// Rung when other settings hold.
    pub(super) renewed: Notify,
}

/// A database of proxy.toml.
pub(super) struct Database {
    pub(super) dbname: Option<String>,
    max_connections: Option<usize>,
    pub(super) max_clients: Option<usize>,
    routing: config::Routing,
    /// What its cluster has.
    reads: config::Reads,
    pub(super) template: Template,
}

/// What the monitor of one cluster needs.
pub(super) struct ToWatch {
    cluster: usize,
    first_node: usize,
    judge: Judge,
    probes: Vec<Probe>,
    interval: Duration,
    rest: Duration,
}

/// Builds the rooms. Nothing talks to anybody yet.
pub(super) fn build(
    config: Config,
    reread: Option<Reread>,
) -> Result<(Built, Vec<ToWatch>), BuildError> {
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| BuildError::NoRandomness)?;
    let metrics = metrics(&config);
    let mut clusters = Vec::new();
    let mut watched = Vec::new();
    let mut first_node = 0;
    for cluster in &config.clusters {
        watched.push(to_watch(
            &metrics,
            clusters.len(),
            first_node,
            cluster,
            &config,
        ));
        clusters.push(Arc::new(assemble(&metrics, first_node, cluster, &config)));
        first_node += cluster.nodes.len();
    }
    let catalogs = Catalogs::new(&config, &metrics);
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
    let epoch = Instant::now();
    let peering = config
        .peering
        .as_ref()
        .map(|peering| Peering::new(peering, tcp(&config), config.timeouts.cancel));
    let databases = databases(&config, &clusters, epoch);
    let authenticator = Authenticator::new(method(&config.auth), users(&config.auth), seed);
    let settings = Settings::new(config, authenticator, databases);
    let built = Built {
        databases: Databases::new(settings, catalogs, epoch),
        shared,
        clusters,
        admins: Admins::default(),
        peering,
        reread,
        renewed: Notify::new(),
    };
    Ok((built, watched))
}

/// What a proxy that runs is to go on with.
pub(super) fn settings(built: &Built, config: Config) -> Settings {
    let databases = databases(&config, &built.clusters, built.databases.epoch);
    let before = built.databases.settings();
    let authenticator = before
        .authenticator
        .renewed(method(&config.auth), users(&config.auth));
    Settings::new(config, authenticator, databases)
}

fn session_timeouts(timeouts: &config::Timeouts, epoch: Instant) -> SessionTimeouts {
    SessionTimeouts {
        client_idle: timeouts.client_idle,
        idle_session: None,
        idle_in_transaction: timeouts.idle_in_transaction,
        transaction: timeouts.transaction,
        query: timeouts.query,
        client_write: timeouts.client_write,
        epoch,
    }
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
        rest: rest(policy, cluster, config),
    }
}

/// How often nodes are asked while clients are quiet. The first that comes is served by what was heard last, so that is not
/// to be older than a part of what a node may be silent, and of what a standby may be late for anybody.
fn rest(policy: Policy, cluster: &config::Cluster, config: &Config) -> Duration {
    let of_databases = config.databases.iter().map(|database| database.routing);
    let of_users = config.users.iter().map(|user| user.routing);
    let bounds = of_databases.chain(of_users).filter_map(|own| own.max_lag);
    let max_lag = bounds.chain([policy.max_lag]).min().unwrap_or_default();
    let interval = cluster.monitor.interval;
    (interval * 5)
        .min(policy.silence_after / 4)
        .min(max_lag / 4)
        .max(interval)
}

/// What proves the monitor user.
pub(super) fn credentials(monitor: &config::Monitor) -> Credentials {
    let password = monitor.password.as_ref();
    Credentials::new(password.map(|p| Secret::Password(p.expose().into())))
}

fn databases(
    config: &Config,
    clusters: &[Arc<Cluster>],
    epoch: Instant,
) -> Vec<(String, Database)> {
    let timeouts = session_timeouts(&config.timeouts, epoch);
    let mut databases = Vec::new();
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
        databases.push((database.name.clone(), known));
    }
    databases
}

fn known_database(
    config: &Config,
    database: &config::Database,
    reads: config::Reads,
    cluster: Arc<Cluster>,
    timeouts: SessionTimeouts,
) -> Database {
    let pool = &database.pool;
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
            currval: pool.currval,
            setup: Arc::new(Setup {
                connect_query: pool.connect_query.as_deref().map(Arc::from),
                reset_query: pool.reset_query.as_deref().map(Box::from),
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
pub(super) fn for_user(known: &Database, name: &str, user: Option<&config::User>) -> Template {
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
    template.currval = user.currval.unwrap_or(template.currval);
    template.timeouts = Arc::new(timeouts_for(&template.timeouts, user));
    template
}

/// The bounds of one user's sessions.
pub(super) fn timeouts_for(all: &SessionTimeouts, user: &config::User) -> SessionTimeouts {
    SessionTimeouts {
        client_idle: user.client_idle.or(all.client_idle),
        idle_in_transaction: user.idle_in_transaction.or(all.idle_in_transaction),
        transaction: user.transaction.or(all.transaction),
        query: user.query.or(all.query),
        ..*all
    }
}

fn method(auth: &config::Auth) -> Method {
    match auth.method {
        config::AuthMethod::Trust => Method::Trust,
        config::AuthMethod::ScramSha256 => Method::Scram,
    }
}

fn users(auth: &config::Auth) -> Option<Vec<(String, UserSecret)>> {
    let secret = |secret: &config::UserSecret| match secret {
        config::UserSecret::Plain(password) => UserSecret::Plain(password.expose().into()),
        config::UserSecret::Scram(verifier) => UserSecret::Scram(Arc::new(Verifier {
            iterations: verifier.iterations,
            salt: verifier.salt.clone(),
            stored_key: verifier.stored_key,
            server_key: verifier.server_key,
        })),
    };
    auth.users.as_ref().map(|users| {
        users
            .iter()
            .map(|(name, user)| (name.to_owned(), secret(user)))
            .collect()
    })
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
    let traffic = cluster.traffic.clone();
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
            built.databases.everywhere().iter().for_each(|set| {
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
        rest: watched.rest,
        traffic,
        publish: Box::new(publish),
        probes: watched.probes,
    };
    crate::monitor::watch(watched, built.shared.metrics.clone())
}

/// Looks for sessions that are beyond their timeouts, for as long as the proxy runs.
pub(super) async fn keep_time(built: Arc<Built>) {
    loop {
        // Before the look at the settings, so that none is missed.
        let renewed = built.renewed.notified();
        let timeouts = built.databases.all_timeouts();
        let paces = timeouts.iter().filter_map(SessionTimeouts::pace);
        let (Some(pace), Some(any)) = (paces.min(), timeouts.first()) else {
            renewed.await;
            continue;
        };
        tokio::select! {
            () = renewed => {}
            () = sweep_every(pace, &built, any) => {}
        }
    }
}

async fn sweep_every(pace: Duration, built: &Built, any: &SessionTimeouts) {
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        relay::sweep(&built.shared.registry, any);
    }
}

/// Looks for sessions that have kept a connection for their sequences for long enough, and for those that are beyond a bound
/// of their own.
pub(super) async fn keep_own_time(built: Arc<Built>) {
    relay::watch_own(&built.shared, built.databases.epoch).await;
}

/// Closes server connections that have been idle, or alive, for too long.
pub(super) async fn keep_house(built: Arc<Built>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        ticks.tick().await;
        built.databases.tidy();
    }
}
