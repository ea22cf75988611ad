//! What the proxy tells over HTTP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::build::Built;
use crate::cluster::{NodeState, View};
use crate::http::Status;
use crate::metrics::{CacheSample, ClusterSample, NodeSample, PoolSample};
use crate::relay::{Cluster, PoolSet};
use crate::route;

/// The proxy as the HTTP side sees it.
pub(super) struct ProxyStatus {
    built: Arc<Built>,
    stopped: watch::Receiver<bool>,
}

impl ProxyStatus {
    /// Connects the scrape-time series to what they show.
    pub(super) fn new(built: Arc<Built>, stopped: watch::Receiver<bool>) -> ProxyStatus {
        let metrics = &built.shared.metrics;
        let source = built.clone();
        metrics.set_node_source(Box::new(move || {
            source.clusters.iter().flat_map(|c| nodes(c)).collect()
        }));
        let source = built.clone();
        metrics.set_cluster_source(Box::new(move || {
            source.clusters.iter().map(|c| cluster(c)).collect()
        }));
        let source = built.clone();
        metrics.set_pool_source(Box::new(move || {
            let sets = source.databases.everywhere();
            summed(sets.iter().flat_map(|set| pools(set)))
        }));
        let shared = built.shared.clone();
        metrics.set_cache_source(Box::new(move || CacheSample {
            prepared_statements: shared.statements.len() as u64,
            learned_statements: shared.classifier.learned() as u64,
            classifier_hits: shared.classifier.hits(),
            classifier_misses: shared.classifier.misses(),
        }));
        ProxyStatus { built, stopped }
    }

    fn every(&self, good: impl Fn(&View) -> bool, what: &str) -> Result<(), String> {
        let bad: Vec<&str> = self
            .built
            .clusters
            .iter()
            .filter(|cluster| !good(&cluster.view.load()))
            .map(|cluster| cluster.name.as_str())
            .collect();
        if bad.is_empty() {
            Ok(())
        } else {
            Err(format!("{what} in cluster {}", bad.join(", ")))
        }
    }
}

impl Status for ProxyStatus {
    fn metrics(&self) -> String {
        self.built.shared.metrics.render()
    }

    fn ready(&self) -> Result<(), String> {
        let now = Instant::now();
        self.every(
            |view| view.primary.is_some_and(|node| view.is_fresh(node, now)),
            "no primary is known",
        )
    }

    fn ready_for_reads(&self) -> Result<(), String> {
        let now = Instant::now();
        let readable = |view: &View| {
            view.primary.is_some_and(|node| view.is_fresh(node, now))
                || route::any_standby(view, now).is_some()
        };
        self.every(readable, "no node takes reads")
    }

    fn draining(&self) -> bool {
        *self.stopped.borrow()
    }
}

fn nodes(cluster: &Cluster) -> Vec<NodeSample> {
    let view = cluster.view.load();
    let now = Instant::now();
    let sample = |(index, node): (usize, &crate::relay::Node)| {
        let seen = &view.nodes[index];
        NodeSample {
            cluster: cluster.name.clone(),
            node: node.name.clone(),
            up: !matches!(seen.state, NodeState::Unknown | NodeState::Down),
            role: seen.state.as_str(),
            eligible: seen.eligible,
            timeline: seen.position.map(|position| position.timeline.0),
            replay_lag_bytes: seen.lag_bytes,
            replay_lag: seen.lag,
            replay_lag_estimate: seen.lag_estimate,
            sample_age: seen.seen.map(|seen| now.saturating_duration_since(seen)),
            outstanding_requests: u64::from(cluster.outstanding(index)),
        }
    };
    cluster.nodes.iter().enumerate().map(sample).collect()
}

fn cluster(cluster: &Cluster) -> ClusterSample {
    let view = cluster.view.load();
    let now = Instant::now();
    ClusterSample {
        cluster: cluster.name.clone(),
        primary_known: view.primary.is_some(),
        primary_sample_age: view
            .samples
            .last()
            .map(|sample| now.saturating_duration_since(sample.sent)),
    }
}

/// One sample for each pool by name: what a reload has replaced, and its clients still have, counts with what new clients
/// get, which comes first and tells the size.
fn summed(samples: impl Iterator<Item = PoolSample>) -> Vec<PoolSample> {
    let mut sums: Vec<PoolSample> = Vec::new();
    let mut places = HashMap::new();
    for sample in samples {
        let name = (
            sample.cluster.clone(),
            sample.node.clone(),
            sample.database.clone(),
            sample.user.clone(),
        );
        let at = *places.entry(name).or_insert(sums.len());
        match sums.get_mut(at) {
            Some(sum) => {
                sum.idle += sample.idle;
                sum.active += sample.active;
                sum.waiting += sample.waiting;
            }
            None => sums.push(sample),
        }
    }
    sums
}

fn pools(set: &PoolSet) -> Vec<PoolSample> {
    let sample = |(pool, node): (&crate::pool::Pool, &crate::relay::Node)| {
        let status = pool.status();
        PoolSample {
            cluster: set.cluster.name.clone(),
            node: node.name.clone(),
            database: set.name.clone(),
            user: set.user.clone(),
            idle: status.idle as u64,
            active: status.size.saturating_sub(status.idle) as u64,
            size: status.max as u64,
            waiting: status.waiting as u64,
        }
    };
    set.pools
        .iter()
        .zip(&set.cluster.nodes)
        .map(sample)
        .collect()
}
