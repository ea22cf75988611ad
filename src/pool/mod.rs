//! Pools of server connections: one per node, database and user.
//!
//! deadpool makes the connections, counts them and owns them to their end. In front of it stands a line of our own
//! (`line.rs`): as many clients are let in as the pool may have connections, in the order in which they came, so that
//! nothing above the size is ever opened. A client that has waited long may be let in on the reserve. Who is let in takes the
//! connection that was used last from the shelf, where those lie that nobody uses, or opens one, all in parallel; bounds that
//! pools share are in [`Ledger`]. What comes back goes straight to who has waited for longest.
//!
//! A pool knows how to make a connection and whether an idle one may be used again. It does not know what a statement
//! is.

mod caps;
mod checkout;
mod line;
mod manager;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use deadpool::managed::{self, Object, PoolConfig, Timeouts};

use caps::Caps;
pub use caps::{Ledger, Shared};
use checkout::Trouble;
pub use checkout::{ALL_IN_USE, Checkout, CheckoutError, NOTICE_AFTER, Patience, Pooled};
use line::{Alarms, Line};
pub use manager::{Manager, Member};

use crate::metrics::IntCounter;
use crate::server::{Credentials, Endpoint, Reported, Server, ServerError};

/// How large a pool is and how long its connections live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most server connections.
    pub size: usize,
    /// Connections that are kept open while there are clients.
    pub min: usize,
    /// Connections beyond the size for clients that wait for long.
    pub reserve: usize,
    /// How long a client waits before it may have one of those.
    pub reserve_after: Duration,
    /// Most prepared statements that a connection holds.
    pub max_prepared: usize,
    /// How long a client waits for a connection.
    pub wait: Duration,
    /// Connections that nobody has used for so long are closed.
    pub idle: Duration,
    /// Connections older than this are closed when they come back.
    pub lifetime: Duration,
    /// Connections that nobody has used for so long are asked whether they still work before they are used.
    pub check: Duration,
}

/// What makes a connection ready, of the operator's and of the proxy's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// Run on a new connection, and again whenever DISCARD ALL has undone it.
    pub connect_query: Option<Arc<str>>,
    /// Run before DISCARD ALL when a connection is cleaned.
    pub reset_query: Option<Box<str>>,
    /// Settings of the proxy's own, with which every connection logs in.
    pub parameters: Arc<[(&'static str, String)]>,
}

/// What clients of a database and user have been told of their settings, on whichever node they are: every server
/// connection has to agree. Nothing at first.
pub type Told = ArcSwapOption<Reported>;

/// What all pools of a node share.
#[derive(Clone, Debug)]
pub struct NodeCounts {
    /// Clients that use a connection of the node, or wait for one.
    pub outstanding: Arc<AtomicU32>,
    /// Bounds over several pools.
    pub ledger: Arc<Ledger>,
    /// Connections opened.
    pub connects: IntCounter,
    /// Attempts that failed.
    pub failed_connects: IntCounter,
}

/// Whose connections a pool has.
#[derive(Clone, Debug)]
pub struct Owner<'a> {
    /// The database as clients know it.
    pub name: &'a str,
    /// The database on the node.
    pub database: &'a str,
    /// The user.
    pub user: &'a str,
    /// What proves the user.
    pub credentials: Arc<Credentials>,
    /// What its clients have been told.
    pub told: Arc<Told>,
}

/// The pool of one node for one database and user.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    members: managed::Pool<Manager>,
    /// Those of them that nobody uses, and who waits.
    line: Mutex<Line<Object<Manager>>>,
    /// What happens to who waits for long.
    alarms: Alarms,
    limits: Limits,
    setup: Arc<Setup>,
    caps: Caps,
    ledger: Arc<Ledger>,
    troubled: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
    /// Clients that use a connection of this pool's node, or wait for one, over all pools of the node.
    outstanding: Arc<AtomicU32>,
}

/// Permits that deadpool has beyond what is ever used at once, so that nobody queues there.
const SLACK: usize = 4;

impl Pool {
    /// An empty pool under these bounds.
    pub fn new(
        endpoint: Endpoint,
        owner: Owner<'_>,
        limits: Limits,
        setup: Arc<Setup>,
        node: NodeCounts,
        bounds: &[(Shared, usize)],
    ) -> Pool {
        let NodeCounts {
            outstanding,
            ledger,
            connects,
            failed_connects,
        } = node;
        let names = [owner.name, owner.database, owner.user];
        let manager = Manager::new(
            endpoint,
            owner,
            limits,
            setup.clone(),
            [connects, failed_connects],
        );
        let config = PoolConfig {
            max_size: limits.size + limits.reserve + SLACK,
            // No deadline here: checkout() brings its own, and a connect is bounded by its endpoint.
            timeouts: Timeouts::default(),
            ..PoolConfig::default()
        };
        let members = managed::Pool::builder(manager)
            .config(config)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .expect("a runtime is given, which is all that building can fail for");
        let pool = Arc::new(Inner {
            members,
            line: Mutex::new(Line::new(limits.size)),
            alarms: Alarms::new(
                NOTICE_AFTER,
                limits.wait,
                limits.reserve,
                limits.reserve_after,
            ),
            limits,
            setup,
            caps: Caps::new(&ledger, bounds),
            ledger,
            troubled: AtomicBool::new(false),
            trouble: Mutex::default(),
            outstanding,
        });
        pool.ledger.enter(names, Arc::downgrade(&pool));
        Pool(pool)
    }

    /// The node's address and the bound for connecting to it.
    pub fn endpoint(&self) -> &Endpoint {
        self.0.members.manager().endpoint()
    }

    /// Opens a connection beside those of the pool, which is not counted: to do something about one of them.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn aside(&self) -> Result<Server, ServerError> {
        self.0.members.manager().open().await
    }

    /// Connections open, connections idle, and clients that wait.
    pub fn status(&self) -> Status {
        let size = self.0.members.status().size;
        let mut line = self.0.line();
        Status {
            size,
            idle: line.shelf().len(),
            waiting: line.waiting(),
            max: self.0.limits.size + line.lent(),
        }
    }

    /// Whether half of its connections could still be had: nobody waits then.
    pub fn has_room(&self) -> bool {
        self.0.line().free() * 2 >= self.0.limits.size
    }

    /// Since when the client waits that has waited for longest.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.0.line().waiting_since()
    }

    /// Closes all connections that nobody uses.
    pub fn close_idle(&self) {
        self.0.retain_idle(|_| false);
    }

    /// Closes all connections to a database of this node that nobody uses, whichever pool has them. The database goes by its
    /// name on the node.
    pub fn vacate(&self, database: &str) {
        self.0.ledger.vacate(database);
    }

    /// Closes connections that live for too long, and those that have been idle for too long but for the pool's minimum
    /// while it `has_clients`.
    pub fn tidy(&self, has_clients: bool) {
        let now = Instant::now();
        let keep = if has_clients { self.0.limits.min } else { 0 };
        let mut size = self.0.members.status().size;
        self.0.retain_idle(|member| {
            let idle = now.saturating_duration_since(member.used) >= member.idle;
            // One that its server has ended does not work for anybody, and holds the place of one that does.
            let stays = member.is_fit(now) && (!idle || size <= keep);
            size -= usize::from(!stays);
            stays
        });
    }
}

impl Inner {
    fn line(&self) -> MutexGuard<'_, Line<Object<Manager>>> {
        lock(&self.line)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pool's figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Open connections.
    pub size: usize,
    /// Of those, not in use.
    pub idle: usize,
    /// Clients that wait.
    pub waiting: usize,
    /// The limit, with what has been lent of the reserve.
    pub max: usize,
}
