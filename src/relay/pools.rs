//! The pools of one database and user: one for each node of the cluster.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use std::collections::HashMap;

use super::listen::Listeners;
use super::{Cluster, SessionTimeouts, Welcome};
use crate::catalog::Watched;
use crate::config::{CurrvalPolicy, ListenPolicy};
use crate::link::Params;
use crate::pool::{self, Limits, Owner, Pool, Setup, Told};
use crate::route::Ground;
use crate::server::{Credentials, Endpoint};
use crate::session::SequenceTalk;

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

impl Mode {
    /// The word for it in SHOW, which is that of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Transaction => "transaction",
            Mode::Session => "session",
            Mode::Statement => "statement",
        }
    }
}

/// How the pools of a database and user are made.
#[derive(Clone, Debug)]
pub struct Template {
    /// The cluster that the database is on.
    pub cluster: Arc<Cluster>,
    /// The pooling mode.
    pub mode: Mode,
    /// Bounds of each pool.
    pub limits: Limits,
    /// Bounds that it shares with other pools of its node.
    pub bounds: Vec<(pool::Shared, usize)>,
    /// What makes a connection ready.
    pub setup: Arc<Setup>,
    /// What LISTEN does to a session.
    pub listen: ListenPolicy,
    /// How statements are routed.
    pub ground: Ground,
    /// BEGIN waits for the first statement.
    pub deferred_begin: bool,
    /// Transactions that may write read from standbys until they do something else.
    pub optimistic: bool,
    /// What becomes of currval and lastval.
    pub currval: CurrvalPolicy,
    /// How long its sessions may be in a phase.
    pub timeouts: Arc<SessionTimeouts>,
}

impl Template {
    /// Whether sessions of pools that were made like `other` can go on with pools made like this, and not notice.
    pub fn fits(&self, other: &Template) -> bool {
        // All fields, so that none is forgotten.
        let Template {
            cluster,
            mode,
            limits: _,
            bounds: _,
            setup,
            listen,
            ground,
            deferred_begin,
            optimistic,
            currval,
            timeouts: _,
        } = self;
        Arc::ptr_eq(cluster, &other.cluster)
            && *mode == other.mode
            && *setup == other.setup
            && *listen == other.listen
            && *ground == other.ground
            && *deferred_begin == other.deferred_begin
            && *optimistic == other.optimistic
            && *currval == other.currval
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        self.fits(other)
            && self.limits == other.limits
            && self.bounds == other.bounds
            && self.timeouts == other.timeouts
    }
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
    /// How long sessions may be in a phase.
    pub timeouts: Arc<SessionTimeouts>,
    /// How statements of its sessions are routed, unless they or their listener say otherwise.
    pub ground: Ground,
    /// What the database has.
    pub catalog: Arc<Watched>,
    /// LISTEN needs no server connection of its session's own.
    pub shares_listen: bool,
    /// BEGIN waits for the first statement of its transaction.
    pub defers_begin: bool,
    /// Transactions that may write read from standbys until they do something else.
    pub is_optimistic: bool,
    /// What becomes of currval and lastval: anything, where sessions have connections of their own.
    pub currval: CurrvalPolicy,
    /// What sessions know of each other's sequences.
    pub sequences: Arc<SequenceTalk>,
    pub(super) listeners: Listeners,
    /// Sessions that there are.
    pub(super) sessions: AtomicUsize,
    /// One pool for each node, in the cluster's order.
    pub pools: Box<[Pool]>,
    /// What proves the user to servers.
    pub credentials: Arc<Credentials>,
    /// What the primary reported when its first client was welcomed.
    pub(super) told: Arc<Told>,
    welcomes: Mutex<HashMap<Arc<Params>, Arc<Welcome>>>,
    /// What takes its place, since it was configured anew.
    successor: OnceLock<Arc<PoolSet>>,
}

/// Most sets of startup settings that are remembered for one database and user. Clients of one kind send the same.
const MAX_WELCOMES: usize = 256;

impl PoolSet {
    /// Empty pools.
    pub fn new(template: &Template, owner: Owner<'_>, catalog: Arc<Watched>) -> PoolSet {
        let cluster = template.cluster.clone();
        let pool = |node: &super::Node| {
            let endpoint = Endpoint {
                max_prepared: template.limits.max_prepared,
                ..node.endpoint.clone()
            };
            let node_bound = node.max_connections.map(|most| (pool::Shared::Node, most));
            let bounds: Vec<_> = template.bounds.iter().cloned().chain(node_bound).collect();
            Pool::new(
                endpoint,
                owner.clone(),
                template.limits,
                template.setup.clone(),
                node.counts.clone(),
                &bounds,
            )
        };
        PoolSet {
            name: owner.name.to_owned(),
            database: owner.database.to_owned(),
            user: owner.user.to_owned(),
            pools: cluster.nodes.iter().map(pool).collect(),
            cluster,
            mode: template.mode,
            timeouts: template.timeouts.clone(),
            ground: template.ground,
            catalog,
            credentials: owner.credentials,
            shares_listen: template.listen == ListenPolicy::Shared
                && template.mode != Mode::Session,
            defers_begin: template.deferred_begin && template.mode != Mode::Statement,
            is_optimistic: template.optimistic,
            currval: match template.mode {
                Mode::Session => CurrvalPolicy::Allow,
                Mode::Transaction | Mode::Statement => template.currval,
            },
            sequences: Arc::default(),
            listeners: Listeners::default(),
            sessions: AtomicUsize::new(0),
            told: owner.told,
            welcomes: Mutex::default(),
            successor: OnceLock::new(),
        }
    }

    /// What its clients have been told, for a set that takes its place.
    pub fn told(&self) -> Arc<Told> {
        self.told.clone()
    }

    /// Has sessions go on with another set, each at its next quiet moment. Once; the other has to fit, so
    /// that its sessions do not notice.
    pub fn succeed(&self, successor: Arc<PoolSet>) {
        // It is configured anew once: from then on it is not found any more.
        let _ = self.successor.set(successor);
    }

    /// The set that has taken its place.
    #[inline]
    pub fn successor(&self) -> Option<&Arc<PoolSet>> {
        self.successor.get()
    }

    /// How many clients it has.
    pub fn clients(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
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

    /// Forgets what clients were told: the primary has changed, and its settings may differ. Those who are there keep
    /// theirs.
    pub fn forget_welcomes(&self) {
        self.welcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
