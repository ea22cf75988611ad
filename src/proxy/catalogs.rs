//! The catalogs that are watched: one for each database of a cluster that has clients.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::build::credentials;
use crate::catalog::{Source, Watched, keep};
use crate::config::{Config, Monitor};
use crate::metrics::{IntCounter, Metrics};
use crate::relay::Cluster;
use crate::sql::catalog::Trust;

/// All of them, by cluster and database.
pub(super) struct Catalogs {
    clusters: HashMap<String, Manner>,
    watched: Mutex<HashMap<(String, String), Weak<Watched>>>,
    loads: IntCounter,
    failures: IntCounter,
}

/// The number of a database, which it has as long as the process lives.
fn number(key: &(String, String)) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(key)
}

/// How the catalogs of one cluster are read.
struct Manner {
    monitor: Monitor,
    ttl: Duration,
    trust: Trust,
}

impl Catalogs {
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Catalogs {
        let manner = |cluster: &crate::config::Cluster| Manner {
            monitor: cluster.monitor.clone(),
            ttl: cluster.reads.catalog_ttl,
            trust: Trust {
                declared: cluster.reads.trust_declared_volatility,
                functions: cluster.standby_functions.clone(),
                procedures: cluster.standby_procedures.clone(),
                catalogs: cluster.reads.catalogs,
            },
        };
        let clusters = config.clusters.iter();
        Catalogs {
            clusters: clusters
                .map(|cluster| (cluster.name.clone(), manner(cluster)))
                .collect(),
            watched: Mutex::default(),
            loads: metrics.catalog_loads.clone(),
            failures: metrics.catalog_load_failures.clone(),
        }
    }

    /// The catalog of a database, which is watched for as long as anybody has it.
    pub(super) fn watch(&self, cluster: &Arc<Cluster>, database: &str) -> Arc<Watched> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (cluster.name.clone(), database.to_owned());
        if let Some(known) = watched.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(Watched::new(number(&key)));
        watched.retain(|_, known| known.strong_count() > 0);
        watched.insert(key, Arc::downgrade(&new));
        if let Some(manner) = self.clusters.get(&cluster.name) {
            let cluster = cluster.clone();
            let source = Source {
                primary: Box::new(move || {
                    let node = cluster.view.load().primary?;
                    cluster.nodes.get(node).map(|node| node.endpoint.clone())
                }),
                database: database.to_owned(),
                user: manner.monitor.user.clone(),
                credentials: credentials(&manner.monitor),
                ttl: manner.ttl,
                trust: manner.trust.clone(),
                loads: self.loads.clone(),
                failures: self.failures.clone(),
            };
            tokio::spawn(keep(Arc::downgrade(&new), source));
        }
        new
    }
}
