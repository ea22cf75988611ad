//! The pools of one database and user: one for each node of the cluster.

use std::sync::{Arc, Mutex, PoisonError};

use std::collections::HashMap;

use super::listen::Listeners;
use super::{Cluster, Welcome};
use crate::config::ListenPolicy;
use crate::link::Params;
use crate::pool::{Limits, Pool};
use crate::server::{Credentials, Endpoint};

/// When a server connection goes back to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// After each transaction.
    Transaction,
    /// When the client leaves.
    Session,
    /// After each statement.
    Statement,
}

/// Everything that sessions of one database and user share.
#[derive(Debug)]
pub struct PoolSet {
    /// The database's name as clients know it.
    pub name: String,
    /// The database's name on the cluster.
    pub database: String,
    /// The user.
    pub user: String,
    /// The cluster that it is on.
    pub cluster: Arc<Cluster>,
    /// The pooling mode.
    pub mode: Mode,
    /// LISTEN needs no server connection of its session's own.
    pub shares_listen: bool,
    pub(super) listeners: Listeners,
    /// One pool for each node, in the cluster's order.
    pub pools: Box<[Pool]>,
    /// What proves the user to servers.
    pub credentials: Arc<Credentials>,
    welcomes: Mutex<HashMap<Arc<Params>, Arc<Welcome>>>,
}

/// Most sets of startup settings that are remembered for one database and user. Clients of one kind send the same.
const MAX_WELCOMES: usize = 256;

impl PoolSet {
    /// Empty pools.
    #[allow(clippy::too_many_arguments, reason = "what makes a pool, each once")]
    pub fn new(
        name: &str,
        database: &str,
        user: &str,
        cluster: Arc<Cluster>,
        mode: Mode,
        listen: ListenPolicy,
        limits: Limits,
        credentials: Arc<Credentials>,
    ) -> PoolSet {
        let pool = |node: &super::Node| {
            let endpoint = Endpoint {
                max_prepared: limits.max_prepared,
                ..node.endpoint.clone()
            };
            Pool::new(
                endpoint,
                database,
                user,
                credentials.clone(),
                limits,
                node.counts.clone(),
            )
        };
        PoolSet {
            name: name.to_owned(),
            database: database.to_owned(),
            user: user.to_owned(),
            pools: cluster.nodes.iter().map(pool).collect(),
            cluster,
            mode,
            shares_listen: listen == ListenPolicy::Shared && mode != Mode::Session,
            listeners: Listeners::default(),
            credentials,
            welcomes: Mutex::default(),
        }
    }

    /// What clients with these settings were told before.
    pub(super) fn known_welcome(&self, params: &Params) -> Option<Arc<Welcome>> {
        self.welcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(params)
            .cloned()
    }

    pub(super) fn remember(&self, welcome: &Arc<Welcome>) {
        let mut welcomes = self.welcomes.lock().unwrap_or_else(PoisonError::into_inner);
        if welcomes.len() >= MAX_WELCOMES {
            welcomes.clear();
        }
        welcomes.insert(welcome.params.clone(), welcome.clone());
    }

    /// Forgets what clients were told: the primary has changed, and its settings may differ.
    pub fn forget_welcomes(&self) {
        self.welcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
