//! Every series of the process, registered once.

use std::fmt;
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use super::family::{Family, Grid};
use super::sampled::{
    self, CacheSample, ClusterSample, NodeSample, PoolSample, Sampled, Slot, none,
};
use super::series::{self, Series};

/// The label values that the process knows when it starts. A list's order gives the indices by
/// which its counters are reached: hand in the `ALL` of the enum that the label is the text of.
/// Values that come later are counted as `other`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Labels<'a> {
    /// Version of pgweir.
    pub version: &'a str,
    /// Every node as (cluster, node); its place is the index for [`Metrics::node`].
    pub nodes: &'a [(&'a str, &'a str)],
    /// States that a node may be judged to be in.
    pub roles: &'a [&'a str],
    /// Roles for which a node is chosen, first index of [`Metrics::routed`].
    pub targets: &'a [&'a str],
    /// Why it was chosen, second index of [`Metrics::routed`].
    pub reasons: &'a [&'a str],
    /// Why a statement has its class.
    pub classes: &'a [&'a str],
    /// What became of a hint.
    pub hints: &'a [&'a str],
    /// Why a probe was not answered.
    pub probe_failures: &'a [&'a str],
    /// Why a session is pinned.
    pub pins: &'a [&'a str],
    /// Why a login failed.
    pub login_failures: &'a [&'a str],
    /// Why a unit was run elsewhere.
    pub bounces: &'a [&'a str],
    /// What became of a cancel request.
    pub cancel_results: &'a [&'a str],
    /// Bounds of time that may be reached.
    pub timeouts: &'a [&'a str],
    /// SQLSTATEs that pgweir itself raises.
    pub sqlstates: &'a [&'a str],
}

/// Every counted series as a field, and a source for each group of sampled ones.
///
/// All of it can be shared and touched from any thread; counting is a relaxed atomic add. The set
/// of nodes and label values is fixed when it is made.
pub struct Metrics {
    /// Statements given to a node, by target and reason; see [`Metrics::routed`].
    pub routed_statements: Grid,
    /// Statements that would have gone elsewhere, by index in [`Labels::targets`] and in [`Labels::classes`].
    pub would_have_moved: Grid,
    /// Hints, by index in [`Labels::hints`].
    pub hints: Family,
    /// Statements refused by a standby with 25006; must stay 0.
    pub standby_refusals: IntCounter,
    /// Transactions moved from a standby to the primary.
    pub transactions_moved: IntCounter,
    /// Statements refused in transactions on standbys.
    pub transactions_refused: IntCounter,
    /// Catalogs of databases read.
    pub catalog_loads: IntCounter,
    /// Reloads that were applied.
    pub reloads: IntCounter,
    /// Reloads that were not.
    pub reload_failures: IntCounter,
    /// Catalogs of databases that could not be read.
    pub catalog_load_failures: IntCounter,
    /// Prepared statements planned anew and run unseen.
    pub stale_plans: IntCounter,
    /// Units that a standby refused and that were run elsewhere, by why.
    pub bounces: Family,
    /// Sessions pinned, by reason.
    pub pins: Family,
    /// Pins that have ended, by reason.
    pub pins_ended: Family,
    /// Time waited for a server connection, in seconds. A checkout that found one idle at once is
    /// observed as `0.0`, without reading a clock; so its count is the number of checkouts.
    pub checkout_wait: Histogram,
    /// Checkouts that reached their deadline.
    pub checkout_timeouts: IntCounter,
    /// Client connections now; see [`Metrics::client`].
    pub clients: IntGauge,
    /// Client connections accepted.
    pub client_connections: IntCounter,
    /// Client connections turned away at a limit.
    pub clients_rejected: IntCounter,
    /// Logins that failed, by reason.
    pub client_logins_failed: Family,
    /// Bytes received from clients.
    pub client_received_bytes: IntCounter,
    /// Bytes sent to clients.
    pub client_sent_bytes: IntCounter,
    /// Cancel requests, by result.
    pub cancel_requests: Family,
    /// Bounds of time that were reached, by their names.
    pub timeouts: Family,
    /// Errors raised by pgweir itself, by SQLSTATE.
    pub errors: Family,
    nodes: Box<[NodeCounters]>,
    node_source: Arc<Slot<Vec<NodeSample>>>,
    cluster_source: Arc<Slot<Vec<ClusterSample>>>,
    pool_source: Arc<Slot<Vec<PoolSample>>>,
    cache_source: Arc<Slot<CacheSample>>,
    registry: Registry,
}

/// The counters of one node.
#[derive(Debug)]
pub struct NodeCounters {
    /// Statements given to it, by index in [`Labels::targets`].
    pub statements: Family,
    /// Changes of its state.
    pub state_changes: IntCounter,
    /// Probes not answered, by reason.
    pub probe_failures: Family,
    /// Server connections opened for a pool.
    pub connects: IntCounter,
    /// Attempts to open one that failed, at TCP, TLS or login.
    pub failed_connects: IntCounter,
    /// Idle connections closed to make room for those of another pool.
    pub evictions: IntCounter,
}

impl Metrics {
    /// Registers every series. Counters of `labels` start at 0, so that Prometheus sees their
    /// first increase.
    pub fn new(labels: &Labels<'_>) -> Arc<Metrics> {
        let registry = Registry::new();
        process(&registry);
        build_info(&registry, labels.version);
        let bytes = Family::of(&registry, series::CLIENT_BYTES_TOTAL, &["received", "sent"]);
        Arc::new(Metrics {
            routed_statements: routed(&registry, labels),
            would_have_moved: Grid::new(
                &register(&registry, series::WOULD_HAVE_MOVED_TOTAL.counters()),
                labels.targets,
                labels.classes,
            ),
            hints: Family::of(&registry, series::HINTS_TOTAL, labels.hints),
            standby_refusals: counter(&registry, series::STANDBY_REFUSALS_TOTAL),
            transactions_moved: counter(&registry, series::TRANSACTIONS_MOVED_TOTAL),
            transactions_refused: counter(&registry, series::TRANSACTIONS_REFUSED_TOTAL),
            catalog_loads: counter(&registry, series::CATALOG_LOADS_TOTAL),
            catalog_load_failures: counter(&registry, series::CATALOG_LOAD_FAILURES_TOTAL),
            reloads: counter(&registry, series::RELOADS_TOTAL),
            reload_failures: counter(&registry, series::RELOAD_FAILURES_TOTAL),
            stale_plans: counter(&registry, series::STALE_PLANS_TOTAL),
            bounces: Family::of(&registry, series::BOUNCES_TOTAL, labels.bounces),
            pins: Family::of(&registry, series::PINS_TOTAL, labels.pins),
            pins_ended: Family::of(&registry, series::PINS_ENDED_TOTAL, labels.pins),
            checkout_wait: histogram(&registry, series::POOL_CHECKOUT_WAIT_SECONDS, WAITS),
            checkout_timeouts: counter(&registry, series::POOL_CHECKOUT_TIMEOUTS_TOTAL),
            clients: gauge(&registry, series::CLIENTS),
            client_connections: counter(&registry, series::CLIENT_CONNECTIONS_TOTAL),
            clients_rejected: counter(&registry, series::CLIENTS_REJECTED_TOTAL),
            client_logins_failed: Family::of(
                &registry,
                series::CLIENT_LOGINS_FAILED_TOTAL,
                labels.login_failures,
            ),
            client_received_bytes: bytes.named("received").clone(),
            client_sent_bytes: bytes.named("sent").clone(),
            cancel_requests: Family::of(
                &registry,
                series::CANCEL_REQUESTS_TOTAL,
                labels.cancel_results,
            ),
            timeouts: Family::of(&registry, series::TIMEOUTS_TOTAL, labels.timeouts),
            errors: Family::of(&registry, series::ERRORS_TOTAL, labels.sqlstates),
            nodes: node_counters(&registry, labels),
            node_source: node_source(&registry, labels.roles),
            cluster_source: source(&registry, sampled::CLUSTER_ROWS, |samples: Vec<_>| {
                sampled::clusters(&samples)
            }),
            pool_source: source(&registry, sampled::POOL_ROWS, sampled::pools),
            cache_source: source(&registry, sampled::CACHE_ROWS, sampled::caches),
            registry,
        })
    }

    /// The counter of statements given to a node, by index in [`Labels::targets`] and in
    /// [`Labels::reasons`]. An array read.
    pub fn routed(&self, target: usize, reason: usize) -> &IntCounter {
        self.routed_statements.at(target, reason)
    }

    /// The counters of a node, by index in [`Labels::nodes`]; none beyond it.
    pub fn node(&self, index: usize) -> Option<&NodeCounters> {
        self.nodes.get(index)
    }

    /// Counts a client connection as accepted, and as connected until the value is dropped.
    pub fn client(&self) -> Held {
        self.client_connections.inc();
        self.clients.inc();
        Held(self.clients.clone())
    }

    /// Sets what is asked for the nodes at each scrape, in place of an earlier source. It runs on
    /// the thread that serves HTTP.
    pub fn set_node_source(&self, source: Box<dyn Fn() -> Vec<NodeSample> + Send + Sync>) {
        self.node_source.set(source);
    }

    /// Sets what is asked for the clusters; as [`Metrics::set_node_source`].
    pub fn set_cluster_source(&self, source: Box<dyn Fn() -> Vec<ClusterSample> + Send + Sync>) {
        self.cluster_source.set(source);
    }

    /// Sets what is asked for the pools; as [`Metrics::set_node_source`]. At most
    /// [`MAX_POOLS`](super::MAX_POOLS) are shown one by one, the rest as one.
    pub fn set_pool_source(&self, source: Box<dyn Fn() -> Vec<PoolSample> + Send + Sync>) {
        self.pool_source.set(source);
    }

    /// Sets what is asked for the caches; as [`Metrics::set_node_source`].
    pub fn set_cache_source(&self, source: Box<dyn Fn() -> CacheSample + Send + Sync>) {
        self.cache_source.set(source);
    }

    /// All series in Prometheus' text format 0.0.4. Asks every source; about 0.3 ms per 1,000
    /// series, so not for a thread that serves sessions.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            // Only a family without a name or a metric is refused, and `gather` leaves those out.
            // Were it to happen, what came before it is still right.
            tracing::error!(%error, "metrics are incomplete");
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// One unit of a gauge, given back when dropped.
#[derive(Debug)]
#[must_use = "the gauge falls again when this is dropped"]
pub struct Held(IntGauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Family {
    fn of(registry: &Registry, row: Series, values: &[&str]) -> Family {
        Family::new(&register(registry, row.counters()), &[], values)
    }
}

fn routed(registry: &Registry, labels: &Labels<'_>) -> Grid {
    let all = register(registry, series::ROUTED_STATEMENTS_TOTAL.counters());
    Grid::new(&all, labels.targets, labels.reasons)
}

fn node_counters(registry: &Registry, labels: &Labels<'_>) -> Box<[NodeCounters]> {
    let statements = register(registry, series::NODE_STATEMENTS_TOTAL.counters());
    let changes = register(registry, series::NODE_STATE_CHANGES_TOTAL.counters());
    let failures = register(registry, series::NODE_PROBE_FAILURES_TOTAL.counters());
    let connects = register(registry, series::POOL_CONNECTS_TOTAL.counters());
    let evictions = register(registry, series::POOL_EVICTIONS_TOTAL.counters());
    let one = |&(cluster, node): &(&str, &str)| NodeCounters {
        statements: Family::new(&statements, &[cluster, node], labels.targets),
        state_changes: changes.with_label_values(&[cluster, node]),
        probe_failures: Family::new(&failures, &[cluster, node], labels.probe_failures),
        connects: connects.with_label_values(&[cluster, node, "ok"]),
        failed_connects: connects.with_label_values(&[cluster, node, "failed"]),
        evictions: evictions.with_label_values(&[cluster, node]),
    };
    labels.nodes.iter().map(one).collect()
}

fn node_source(registry: &Registry, roles: &[&str]) -> Arc<Slot<Vec<NodeSample>>> {
    let roles: Box<[Box<str>]> = roles.iter().map(|&role| role.into()).collect();
    source(registry, sampled::NODE_ROWS, move |samples: Vec<_>| {
        sampled::nodes(&samples, &roles)
    })
}

fn source<T, F>(registry: &Registry, rows: &[Series], families: F) -> Arc<Slot<T>>
where
    T: 'static,
    F: Fn(T) -> Vec<prometheus::proto::MetricFamily> + Send + Sync + 'static,
{
    let slot = Slot::empty();
    let collector = Sampled::new(&slot, rows, families);
    registry.register(Box::new(collector)).expect(DISTINCT);
    slot
}

/// Registers what the crate's collector reads from /proc, which only Linux has.
#[cfg(target_os = "linux")]
fn process(registry: &Registry) {
    let collector = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(collector)).expect(DISTINCT);
}

#[cfg(not(target_os = "linux"))]
fn process(_registry: &Registry) {}

fn build_info(registry: &Registry, version: &str) {
    register(registry, series::BUILD_INFO.int_gauges())
        .with_label_values(&[version])
        .set(1);
}

fn counter(registry: &Registry, row: Series) -> IntCounter {
    let counters = register(registry, row.counters());
    none(|labels| counters.with_label_values(labels))
}

fn gauge(registry: &Registry, row: Series) -> IntGauge {
    let gauges = register(registry, row.int_gauges());
    none(|labels| gauges.with_label_values(labels))
}

fn histogram(registry: &Registry, row: Series, buckets: &[f64]) -> Histogram {
    let histograms = register(registry, row.histograms(buckets));
    none(|labels| histograms.with_label_values(labels))
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry
        .register(Box::new(collector.clone()))
        .expect(DISTINCT);
    collector
}

/// Why registration in a fresh registry succeeds.
const DISTINCT: &str =
    "names in SERIES are distinct and each is registered once (test: all_series_are_rendered)";

/// Upper ends of the buckets of waits for a server connection, in seconds. The first holds those
/// who did not wait; the last is the usual `wait_timeout`.
const WAITS: &[f64] = &[
    0.0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0,
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::metrics::SERIES;

    const LABELS: Labels<'_> = Labels {
        version: "1.2.3",
        bounces: &["read_only", "lost"],
        nodes: &[("main", "pg1"), ("main", "pg2")],
        roles: &["primary", "standby", "unknown"],
        targets: &["primary", "standby"],
        reasons: &["read", "class"],
        classes: &["read"],
        hints: &["followed"],
        probe_failures: &["refused", "timed_out"],
        pins: &["listen"],
        login_failures: &["password"],
        cancel_results: &["sent", "unknown_key"],
        timeouts: &["login"],
        sqlstates: &["53300", "57P03"],
    };

    /// Every row of the table, with its kind and its help, and nothing that is not in the table.
    #[test]
    fn all_series_are_rendered() {
        let text = with_sources().render();
        let expected = SERIES.iter().filter(|row| served_here(row));
        let expected: BTreeMap<_, _> = expected
            .map(|row| (row.name, (row.kind.as_str(), row.help)))
            .collect();
        let helps = comments(&text, "# HELP ");
        let kinds = comments(&text, "# TYPE ");
        let rendered: BTreeMap<_, _> = kinds
            .iter()
            .map(|(name, kind)| (*name, (*kind, helps[name])))
            .collect();
        let rendered: BTreeMap<_, _> = rendered
            .into_iter()
            // The process collector brings help texts of its own.
            .map(|(name, (kind, help))| {
                let own = expected.get(name).map_or(help, |(_, own)| own);
                (
                    name,
                    (
                        kind,
                        if name.starts_with("process_") {
                            own
                        } else {
                            help
                        },
                    ),
                )
            })
            .collect();
        assert_eq!(rendered, expected);
    }

    /// The labels of every line are those of its row.
    #[test]
    fn lines_bear_the_labels_of_their_row() {
        let text = with_sources().render();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let is_row = |row: &&Series| {
                let rest = name.strip_prefix(row.name);
                rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
            };
            let row = SERIES
                .iter()
                .find(is_row)
                .unwrap_or_else(|| panic!("no row for {line}"));
            let expected: BTreeSet<&str> = row.labels.iter().copied().collect();
            assert_eq!(label_names(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = with_sources();
        metrics.routed(1, 0).inc_by(7);
        metrics.routed(0, 1).inc();
        metrics.pins.at(0).inc();
        metrics.errors.named("53300").inc();
        metrics.errors.named("99999").inc();
        metrics.client_sent_bytes.inc_by(1 << 40);
        metrics.checkout_wait.observe(0.0);
        metrics.checkout_wait.observe(0.002);
        let second = metrics.node(1).unwrap();
        second.state_changes.inc();
        second.probe_failures.at(1).inc();
        second.failed_connects.inc();
        assert!(metrics.node(2).is_none());
        check(
            &metrics,
            &[
                "pgweir_routed_statements_total{reason=\"read\",target=\"standby\"} 7",
                "pgweir_routed_statements_total{reason=\"class\",target=\"primary\"} 1",
                "pgweir_routed_statements_total{reason=\"read\",target=\"primary\"} 0",
                "pgweir_pins_total{reason=\"listen\"} 1",
                "pgweir_errors_total{sqlstate=\"53300\"} 1",
                "pgweir_errors_total{sqlstate=\"57P03\"} 0",
                "pgweir_errors_total{sqlstate=\"other\"} 1",
                "pgweir_client_bytes_total{direction=\"sent\"} 1099511627776",
                "pgweir_pool_checkout_wait_seconds_bucket{le=\"0\"} 1",
                "pgweir_pool_checkout_wait_seconds_bucket{le=\"0.003\"} 2",
                "pgweir_pool_checkout_wait_seconds_count 2",
                "pgweir_node_state_changes_total{cluster=\"main\",node=\"pg1\"} 0",
                "pgweir_node_state_changes_total{cluster=\"main\",node=\"pg2\"} 1",
                "pgweir_node_probe_failures_total{cluster=\"main\",node=\"pg2\",reason=\"timed_out\"} 1",
                "pgweir_pool_connects_total{cluster=\"main\",node=\"pg2\",result=\"failed\"} 1",
                "pgweir_build_info{version=\"1.2.3\"} 1",
            ],
        );
    }

    #[test]
    fn what_is_sampled_is_rendered() {
        check(
            &with_sources(),
            &[
                "pgweir_node_up{cluster=\"main\",node=\"pg2\"} 1",
                "pgweir_node_role{cluster=\"main\",node=\"pg2\",role=\"standby\"} 1",
                "pgweir_node_role{cluster=\"main\",node=\"pg2\",role=\"primary\"} 0",
                "pgweir_node_timeline{cluster=\"main\",node=\"pg2\"} 3",
                "pgweir_node_replay_lag_bytes{cluster=\"main\",node=\"pg2\"} 4096",
                "pgweir_node_replay_lag_seconds{cluster=\"main\",node=\"pg2\"} 0.25",
                "pgweir_node_outstanding_requests{cluster=\"main\",node=\"pg2\"} 5",
                "pgweir_primary_known{cluster=\"main\"} 1",
                "pgweir_primary_sample_age_seconds{cluster=\"main\"} 0.05",
                "pgweir_pool_connections{cluster=\"main\",database=\"shop\",node=\"pg2\",\
             state=\"active\",user=\"a\\\"b\"} 2",
                "pgweir_pool_size{cluster=\"main\",database=\"shop\",node=\"pg2\",user=\"a\\\"b\"} 20",
                "pgweir_prepared_statements 11",
                "pgweir_classifier_cache_hits_total 12",
                "pgweir_classifier_cache_misses_total 13",
            ],
        );
    }

    /// A gap, not a zero: a lag of 0 would be read as "up to date".
    #[test]
    fn what_is_unknown_is_absent() {
        let metrics = Metrics::new(&LABELS);
        let silent = NodeSample {
            up: false,
            role: "a role of tomorrow",
            timeline: None,
            replay_lag_bytes: None,
            replay_lag: None,
            replay_lag_estimate: None,
            sample_age: None,
            ..standby()
        };
        metrics.set_node_source(Box::new(move || vec![silent.clone()]));
        check(
            &metrics,
            &[
                "pgweir_node_up{cluster=\"main\",node=\"pg2\"} 0",
                "pgweir_node_role{cluster=\"main\",node=\"pg2\",role=\"other\"} 1",
                "pgweir_node_role{cluster=\"main\",node=\"pg2\",role=\"unknown\"} 0",
            ],
        );
        let text = metrics.render();
        let lines = || text.lines().filter(|line| !line.starts_with('#'));
        for absent in [
            "lag",
            "timeline",
            "sample_age",
            "primary_known",
            "pool_size",
        ] {
            assert!(
                !lines().any(|line| line.contains(absent)),
                "{absent} in\n{text}"
            );
        }
    }

    #[test]
    fn clients_are_counted_while_they_are_held() {
        let metrics = Metrics::new(&LABELS);
        let (one, two) = (metrics.client(), metrics.client());
        check(
            &metrics,
            &["pgweir_clients 2", "pgweir_client_connections_total 2"],
        );
        drop(one);
        check(
            &metrics,
            &["pgweir_clients 1", "pgweir_client_connections_total 2"],
        );
        drop(two);
        check(
            &metrics,
            &["pgweir_clients 0", "pgweir_client_connections_total 2"],
        );
    }

    #[test]
    fn the_same_node_twice_is_one_series() {
        let labels = Labels {
            nodes: &[("main", "pg1"), ("main", "pg1")],
            ..LABELS
        };
        let metrics = Metrics::new(&labels);
        metrics.node(0).unwrap().state_changes.inc();
        metrics.node(1).unwrap().state_changes.inc();
        check(
            &metrics,
            &["pgweir_node_state_changes_total{cluster=\"main\",node=\"pg1\"} 2"],
        );
    }

    fn with_sources() -> Arc<Metrics> {
        let metrics = Metrics::new(&LABELS);
        metrics.set_node_source(Box::new(|| vec![standby()]));
        metrics.set_cluster_source(Box::new(|| {
            vec![ClusterSample {
                cluster: "main".to_owned(),
                primary_known: true,
                primary_sample_age: Some(Duration::from_millis(50)),
            }]
        }));
        metrics.set_pool_source(Box::new(|| {
            vec![PoolSample {
                cluster: "main".to_owned(),
                node: "pg2".to_owned(),
                database: "shop".to_owned(),
                user: "a\"b".to_owned(),
                idle: 1,
                active: 2,
                size: 20,
                waiting: 0,
            }]
        }));
        metrics.set_cache_source(Box::new(|| CacheSample {
            prepared_statements: 11,
            learned_statements: 14,
            classifier_hits: 12,
            classifier_misses: 13,
        }));
        metrics
    }

    fn standby() -> NodeSample {
        NodeSample {
            cluster: "main".to_owned(),
            node: "pg2".to_owned(),
            up: true,
            role: "standby",
            eligible: true,
            timeline: Some(3),
            replay_lag_bytes: Some(4096),
            replay_lag: Some(Duration::from_millis(250)),
            replay_lag_estimate: Some(Duration::from_millis(125)),
            sample_age: Some(Duration::from_millis(20)),
            outstanding_requests: 5,
        }
    }

    fn check(metrics: &Metrics, expected: &[&str]) {
        let text = metrics.render();
        for line in expected {
            assert!(
                text.lines().any(|l| l == *line),
                "no line `{line}` in\n{text}"
            );
        }
    }

    /// The process collector reads /proc, which only Linux has.
    fn served_here(row: &Series) -> bool {
        cfg!(target_os = "linux") || !row.name.starts_with("process_")
    }

    fn comments<'a>(text: &'a str, prefix: &str) -> BTreeMap<&'a str, &'a str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        lines.map(|line| line.split_once(' ').unwrap()).collect()
    }

    fn label_names(line: &str) -> BTreeSet<&str> {
        let Some((_, labels)) = line.split_once('{') else {
            return BTreeSet::new();
        };
        let names = labels
            .split("\",")
            .filter_map(|label| label.split_once("=\""));
        names
            .map(|(name, _)| name)
            .filter(|name| *name != "le")
            .collect()
    }
}
