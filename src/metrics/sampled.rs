//! Series whose values exist as state elsewhere: asked for at each scrape, through a source that
//! the process sets when it has built that state.
//!
//! Each scrape starts from nothing, so a pool that is gone leaves no series behind, and a value
//! that is not known leaves a gap instead of a number that would be believed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec};

use super::family::OTHER;
use super::series::{self, Series};

/// Most pools that are shown one by one. Four series each make 4,000, about 1.5 ms of a scrape;
/// the pools beyond are added up under the database `…other`, so that a client that invents
/// user names cannot fill Prometheus.
pub const MAX_POOLS: usize = 1000;

/// What stands for the names of the pools beyond [`MAX_POOLS`]. No PostgreSQL name is refused for
/// its letters, but nobody types this one.
const OTHER_POOLS: &str = "…other";

/// One node as it is judged now.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSample {
    /// Name of the cluster in proxy.toml.
    pub cluster: String,
    /// Name of the node in proxy.toml.
    pub node: String,
    /// Whether the last probe was answered.
    pub up: bool,
    /// Text of the state the node is judged to be in; one of [`Labels::roles`](super::Labels::roles).
    pub role: &'static str,
    /// Whether it may be given reads as a standby.
    pub eligible: bool,
    /// Timeline, if known.
    pub timeline: Option<u32>,
    /// WAL of the primary not yet replayed, in bytes, if known.
    pub replay_lag_bytes: Option<u64>,
    /// Upper bound of how old the data are, if known: the one held against `max_lag`.
    pub replay_lag: Option<Duration>,
    /// Best guess of how old the data are, if known.
    pub replay_lag_estimate: Option<Duration>,
    /// Time since the last answer, by the clock of the source at the moment it is asked.
    pub sample_age: Option<Duration>,
    /// Requests given to the node and not yet answered.
    pub outstanding_requests: u64,
}

/// One cluster as it is judged now.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSample {
    /// Name of the cluster in proxy.toml.
    pub cluster: String,
    /// Whether there is an accepted primary.
    pub primary_known: bool,
    /// Time since the newest WAL position of the primary, by the clock of the source.
    pub primary_sample_age: Option<Duration>,
}

/// One pool now. Samples with the same four names are added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSample {
    /// Name of the cluster in proxy.toml.
    pub cluster: String,
    /// Name of the node in proxy.toml.
    pub node: String,
    /// Database on the node.
    pub database: String,
    /// User on the node.
    pub user: String,
    /// Server connections that wait for a client.
    pub idle: u64,
    /// Server connections that serve a client.
    pub active: u64,
    /// Most server connections there may be.
    pub size: u64,
    /// Clients that wait.
    pub waiting: u64,
}

/// The caches now. Hits and misses count from the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSample {
    /// Distinct prepared statements known.
    pub prepared_statements: u64,
    /// Shapes that have been learned to be no reads.
    pub learned_statements: u64,
    /// Statements whose class was remembered.
    pub classifier_hits: u64,
    /// Statements that had to be parsed.
    pub classifier_misses: u64,
}

/// A place for the function that is asked at each scrape. Empty until the process has built what
/// the function reads; until then its series are absent.
pub(super) struct Slot<T>(RwLock<Option<Source<T>>>);

type Source<T> = Arc<dyn Fn() -> T + Send + Sync>;

impl<T> Slot<T> {
    pub(super) fn empty() -> Arc<Slot<T>> {
        Arc::new(Slot(RwLock::new(None)))
    }

    /// Sets the source, in place of an earlier one.
    pub(super) fn set(&self, source: Box<dyn Fn() -> T + Send + Sync>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::from(source));
    }

    /// Asks the source. It runs without the lock: it may take its time, and it may set another.
    fn ask(&self) -> Option<T> {
        let source = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        source.map(|ask| ask())
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

/// Ties a [`Slot`] to the registry: `families` makes a sample into the series of `rows`.
pub(super) struct Sampled<T, F> {
    slot: Arc<Slot<T>>,
    descriptions: Vec<Desc>,
    families: F,
}

impl<T, F: Fn(T) -> Vec<MetricFamily>> Sampled<T, F> {
    pub(super) fn new(slot: &Arc<Slot<T>>, rows: &[Series], families: F) -> Sampled<T, F> {
        let descriptions = rows.iter().map(describe).collect();
        Sampled {
            slot: Arc::clone(slot),
            descriptions,
            families,
        }
    }
}

impl<T, F> Collector for Sampled<T, F>
where
    F: Fn(T) -> Vec<MetricFamily> + Send + Sync,
{
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.slot.ask().map(&self.families).unwrap_or_default()
    }
}

fn describe(row: &Series) -> Desc {
    let labels = row.labels.iter().map(|&label| label.to_owned()).collect();
    Desc::new(
        row.name.to_owned(),
        row.help.to_owned(),
        labels,
        HashMap::new(),
    )
    .expect("SERIES holds valid names (test: every_row_keeps_the_conventions)")
}

/// The rows that [`nodes`] fills.
pub(super) const NODE_ROWS: &[Series] = &[
    series::NODE_UP,
    series::NODE_ROLE,
    series::NODE_ELIGIBLE,
    series::NODE_TIMELINE,
    series::NODE_REPLAY_LAG_BYTES,
    series::NODE_REPLAY_LAG_SECONDS,
    series::NODE_REPLAY_LAG_ESTIMATE_SECONDS,
    series::NODE_SAMPLE_AGE_SECONDS,
    series::NODE_OUTSTANDING_REQUESTS,
];

/// The series of all nodes. `roles` are the states that get a 0 when a node is not in them.
pub(super) fn nodes(samples: &[NodeSample], roles: &[Box<str>]) -> Vec<MetricFamily> {
    let rows: [GaugeVec; 9] = [
        each_node(series::NODE_UP, samples, |s| Some(flag(s.up))),
        node_roles(samples, roles),
        each_node(series::NODE_ELIGIBLE, samples, |s| Some(flag(s.eligible))),
        each_node(series::NODE_TIMELINE, samples, |s| {
            s.timeline.map(f64::from)
        }),
        each_node(series::NODE_REPLAY_LAG_BYTES, samples, |s| {
            s.replay_lag_bytes.map(number)
        }),
        each_node(series::NODE_REPLAY_LAG_SECONDS, samples, |s| {
            seconds(s.replay_lag)
        }),
        each_node(series::NODE_REPLAY_LAG_ESTIMATE_SECONDS, samples, |s| {
            seconds(s.replay_lag_estimate)
        }),
        each_node(series::NODE_SAMPLE_AGE_SECONDS, samples, |s| {
            seconds(s.sample_age)
        }),
        each_node(series::NODE_OUTSTANDING_REQUESTS, samples, |s| {
            Some(number(s.outstanding_requests))
        }),
    ];
    rows.iter().flat_map(Collector::collect).collect()
}

fn each_node(
    row: Series,
    samples: &[NodeSample],
    value: impl Fn(&NodeSample) -> Option<f64>,
) -> GaugeVec {
    let gauges = row.gauges();
    for sample in samples {
        if let Some(value) = value(sample) {
            gauges
                .with_label_values(&[&sample.cluster, &sample.node])
                .set(value);
        }
    }
    gauges
}

fn node_roles(samples: &[NodeSample], roles: &[Box<str>]) -> GaugeVec {
    let gauges = series::NODE_ROLE.gauges();
    for NodeSample {
        cluster,
        node,
        role,
        ..
    } in samples
    {
        for listed in roles {
            let is = flag(**listed == **role);
            gauges
                .with_label_values(&[cluster.as_str(), node, listed])
                .set(is);
        }
        if !roles.iter().any(|listed| **listed == **role) {
            gauges
                .with_label_values(&[cluster.as_str(), node, OTHER])
                .set(1.0);
        }
    }
    gauges
}

/// The rows that [`clusters`] fills.
pub(super) const CLUSTER_ROWS: &[Series] =
    &[series::PRIMARY_KNOWN, series::PRIMARY_SAMPLE_AGE_SECONDS];

/// The series of all clusters.
pub(super) fn clusters(samples: &[ClusterSample]) -> Vec<MetricFamily> {
    let (known, age) = (
        series::PRIMARY_KNOWN.gauges(),
        series::PRIMARY_SAMPLE_AGE_SECONDS.gauges(),
    );
    for sample in samples {
        known
            .with_label_values(&[&sample.cluster])
            .set(flag(sample.primary_known));
        if let Some(value) = seconds(sample.primary_sample_age) {
            age.with_label_values(&[&sample.cluster]).set(value);
        }
    }
    [known, age].iter().flat_map(Collector::collect).collect()
}

/// The rows that [`pools`] fills.
pub(super) const POOL_ROWS: &[Series] = &[
    series::POOL_CONNECTIONS,
    series::POOL_SIZE,
    series::POOL_WAITING,
];

/// The series of all pools, at most [`MAX_POOLS`] by name.
pub(super) fn pools(samples: Vec<PoolSample>) -> Vec<MetricFamily> {
    let [connections, size, waiting] = [
        series::POOL_CONNECTIONS.gauges(),
        series::POOL_SIZE.gauges(),
        series::POOL_WAITING.gauges(),
    ];
    for pool in bounded(samples, MAX_POOLS) {
        let PoolSample {
            cluster,
            node,
            database,
            user,
            ..
        } = &pool;
        let names = [cluster.as_str(), node, database, user];
        let [cluster, node, database, user] = names;
        let state = |state| connections.with_label_values(&[cluster, node, database, user, state]);
        state("idle").set(number(pool.idle));
        state("active").set(number(pool.active));
        size.with_label_values(&names).set(number(pool.size));
        waiting.with_label_values(&names).set(number(pool.waiting));
    }
    [connections, size, waiting]
        .iter()
        .flat_map(Collector::collect)
        .collect()
}

/// The pools by name, equal names added up; those beyond `max` added up as one more. The order of
/// the names decides who is beyond, so that the same pools are shown at every scrape.
fn bounded(samples: Vec<PoolSample>, max: usize) -> impl Iterator<Item = PoolSample> {
    let mut named = BTreeMap::<[String; 4], PoolSample>::new();
    for mut sample in samples {
        let key = [
            &mut sample.cluster,
            &mut sample.node,
            &mut sample.database,
            &mut sample.user,
        ]
        .map(std::mem::take);
        add(named.entry(key).or_default(), &sample);
    }
    let mut rest = None;
    for (_, sample) in named.iter().skip(max) {
        add(rest.get_or_insert_default(), sample);
    }
    let rest = rest.map(|sample| ([OTHER_POOLS; 4].map(String::from), sample));
    named
        .into_iter()
        .take(max)
        .chain(rest)
        .map(|([cluster, node, database, user], sample)| PoolSample {
            cluster,
            node,
            database,
            user,
            ..sample
        })
}

fn add(sum: &mut PoolSample, sample: &PoolSample) {
    sum.idle += sample.idle;
    sum.active += sample.active;
    sum.size += sample.size;
    sum.waiting += sample.waiting;
}

/// The rows that [`caches`] fills.
pub(super) const CACHE_ROWS: &[Series] = &[
    series::PREPARED_STATEMENTS,
    series::LEARNED_STATEMENTS,
    series::CLASSIFIER_CACHE_HITS_TOTAL,
    series::CLASSIFIER_CACHE_MISSES_TOTAL,
];

/// The series of the caches.
pub(super) fn caches(sample: CacheSample) -> Vec<MetricFamily> {
    let statements = series::PREPARED_STATEMENTS.gauges();
    none(|labels| statements.with_label_values(labels)).set(number(sample.prepared_statements));
    let count = |row: Series, value| -> IntCounterVec {
        let counters = row.counters();
        none(|labels| counters.with_label_values(labels)).inc_by(value);
        counters
    };
    let learned = series::LEARNED_STATEMENTS.gauges();
    none(|labels| learned.with_label_values(labels)).set(number(sample.learned_statements));
    let mut families = statements.collect();
    families.extend(learned.collect());
    families.extend(count(series::CLASSIFIER_CACHE_HITS_TOTAL, sample.classifier_hits).collect());
    families.extend(
        count(
            series::CLASSIFIER_CACHE_MISSES_TOTAL,
            sample.classifier_misses,
        )
        .collect(),
    );
    families
}

/// Calls `child` with no label values, of the one type that an empty list needs.
pub(super) fn none<M>(child: impl FnOnce(&[&str]) -> M) -> M {
    child(&[])
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

/// Prometheus has nothing but doubles: above 2^53 (8 PiB of lag) the last digits are rounded.
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_bounded_and_added_up() {
        check(&[], 2, &[]);
        check(&["a"], 2, &[("a", 1)]);
        check(&["b", "a"], 2, &[("a", 1), ("b", 1)]);
        check(&["a", "b", "a"], 2, &[("a", 2), ("b", 1)]);
        check(
            &["d", "b", "a", "c"],
            2,
            &[("a", 1), ("b", 1), ("…other", 2)],
        );
        check(&["a", "b"], 0, &[("…other", 2)]);
    }

    fn check(users: &[&str], max: usize, expected: &[(&str, u64)]) {
        let samples = users.iter().map(|user| PoolSample {
            user: (*user).to_owned(),
            active: 1,
            ..PoolSample::default()
        });
        let shown: Vec<_> = bounded(samples.collect(), max)
            .map(|pool| (pool.user, pool.active))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(user, n)| ((*user).to_owned(), *n))
            .collect();
        assert_eq!(shown, expected, "{users:?} shown at most {max}");
    }
}
