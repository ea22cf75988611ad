//! Pools of server connections: one per node, database and user, made by deadpool.
//!
//! A pool knows how to make a connection and whether an idle one may be used again. It does not know what a statement
//! is. Nothing above the size is ever opened; waiters are served in the order in which they came; connections are
//! opened in parallel.

mod checkout;
mod manager;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use deadpool::managed::{self, PoolConfig, QueueMode, Timeouts};

pub use checkout::{CheckoutError, Pooled};
pub use manager::{Manager, Opening};

use crate::metrics::IntCounter;
use crate::server::{Credentials, Endpoint};

/// How large a pool is and how long its connections live.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most server connections.
    pub size: usize,
    /// Most prepared statements that a connection holds.
    pub max_prepared: usize,
    /// How long a client waits for one.
    pub wait: Duration,
    /// Connections that nobody has used for so long are closed.
    pub idle: Duration,
    /// Connections older than this are closed when they come back.
    pub lifetime: Duration,
}

/// What all pools of a node count together.
#[derive(Clone, Debug)]
pub struct NodeCounts {
    /// Clients that use a connection of the node, or wait for one.
    pub outstanding: Arc<AtomicU32>,
    /// Connections opened.
    pub connects: IntCounter,
    /// Attempts that failed.
    pub failed_connects: IntCounter,
}

/// The pool of one node for one database and user.
#[derive(Debug)]
pub struct Pool {
    inner: managed::Pool<Manager>,
    limits: Limits,
    /// Clients that use a connection of this pool's node, or wait for one, over all pools of the node.
    outstanding: Arc<AtomicU32>,
}

impl Pool {
    /// An empty pool.
    pub fn new(
        endpoint: Endpoint,
        database: &str,
        user: &str,
        credentials: Arc<Credentials>,
        limits: Limits,
        node: NodeCounts,
    ) -> Pool {
        let NodeCounts {
            outstanding,
            connects,
            failed_connects,
        } = node;
        let manager = Manager::new(
            endpoint,
            database,
            user,
            credentials,
            limits,
            [connects, failed_connects],
        );
        let config = PoolConfig {
            max_size: limits.size,
            // No deadline here: checkout() brings its own, and a connect is bounded by its endpoint.
            timeouts: Timeouts::default(),
            // The connection that was used last is the one whose caches are warm, and the others can age out.
            queue_mode: QueueMode::Lifo,
        };
        let inner = managed::Pool::builder(manager)
            .config(config)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .expect("a runtime is given, which is all that building can fail for");
        Pool {
            inner,
            limits,
            outstanding,
        }
    }

    /// The node's address and the bound for connecting to it.
    pub fn endpoint(&self) -> &Endpoint {
        self.inner.manager().endpoint()
    }

    /// Connections open, connections idle, and clients that wait.
    pub fn status(&self) -> Status {
        let status = self.inner.status();
        Status {
            size: status.size,
            idle: status.available,
            waiting: status.waiting,
            max: status.max_size,
        }
    }

    /// Closes connections that have been idle for too long, or live for too long.
    pub fn tidy(&self) {
        let limits = self.limits;
        self.inner.retain(|server, metrics| {
            metrics.last_used() < limits.idle && server.opened.elapsed() < limits.lifetime
        });
    }
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
    /// The limit.
    pub max: usize,
}
