//! Taking a connection out of a pool, and giving it back.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use deadpool::managed::{Object, PoolError, TimeoutType, Timeouts};

use super::manager::idle_only;
use super::{Manager, Opening, Pool};
use crate::server::{Server, ServerError};
use crate::wire::{ClientFacing, Notice, SqlState};

/// A connection in use. It goes back to its pool when it is dropped, if it is clean then; otherwise it is closed.
#[derive(Debug)]
pub struct Pooled {
    object: Option<Object<Manager>>,
    _outstanding: Outstanding,
}

/// Counts one client on a node for as long as it lives.
#[derive(Debug)]
struct Outstanding(Arc<AtomicU32>);

impl Outstanding {
    fn new(counter: &Arc<AtomicU32>) -> Outstanding {
        counter.fetch_add(1, Ordering::Relaxed);
        Outstanding(counter.clone())
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pooled {
    /// Takes the connection out of its pool for good: it is closed when the result is dropped, and the pool may open
    /// another.
    pub fn into_closed(mut self) -> Option<Box<Server>> {
        self.object.take().map(Object::take)
    }
}

impl std::ops::Deref for Pooled {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.object
            .as_ref()
            .expect("only into_closed takes the object, and it takes self")
    }
}

impl std::ops::DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Server {
        self.object
            .as_mut()
            .expect("only into_closed takes the object, and it takes self")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // The pool checks again when it hands the connection out; what is known to be unfit leaves at once, so that
        // its place is free.
        if let Some(object) = self.object.take()
            && (!object.link.reusable() || !object.unsent.is_empty())
        {
            drop(Object::take(object));
        }
    }
}

/// Why a client did not get a connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckoutError {
    /// None became free in time. The pool is busy; nothing is said of the node's health.
    #[error("no server connection became free in {0:?}")]
    Timeout(Duration),
    /// The node could not be used.
    #[error(transparent)]
    Server(Arc<ServerError>),
    /// The pool is being closed.
    #[error("the pool is closed")]
    Closed,
}

impl ClientFacing for CheckoutError {
    fn notice(&self) -> Notice {
        match self {
            CheckoutError::Timeout(_) => Notice::error(
                SqlState::InsufficientResources,
                "query_wait_timeout: no server connection became free",
            )
            .hint(
                "All connections of the pool are in use. Shorten transactions, or raise pool.size.",
            ),
            CheckoutError::Server(error) => match error.refusal() {
                Some(refusal) => Notice::error(
                    SqlState::ConnectionFailure,
                    format!(
                        "a server refused the login: {} ({})",
                        refusal.message, refusal.code
                    ),
                ),
                None => Notice::error(
                    SqlState::ConnectionFailure,
                    "no connection to the server could be made",
                ),
            },
            CheckoutError::Closed => {
                Notice::error(SqlState::AdminShutdown, "the pool is being closed")
            }
        }
    }
}

impl Pool {
    /// An idle connection that may be used at `now`, if there is one. Never waits.
    pub fn try_checkout(&self, now: Instant) -> Option<Pooled> {
        const NOW: Timeouts = Timeouts {
            wait: Some(Duration::ZERO),
            create: None,
            recycle: None,
        };
        let outstanding = Outstanding::new(&self.outstanding);
        let future = pin!(self.inner.timeout_get(&NOW));
        let mut cx = Context::from_waker(Waker::noop());
        match idle_only(now, || future.poll(&mut cx)) {
            Poll::Ready(Ok(object)) => Some(Pooled {
                object: Some(object),
                _outstanding: outstanding,
            }),
            // A pending future is dropped: whatever it waited for, it was not an idle connection.
            _ => None,
        }
    }

    /// A connection: an idle one, a new one, or the next that is given back, in the order of asking.
    ///
    /// # Errors
    /// [`CheckoutError`]; [`CheckoutError::Timeout`] after the pool's deadline.
    ///
    /// # Cancel safety
    /// Dropping the future gives its place in the queue up.
    pub async fn checkout(&self) -> Result<Pooled, CheckoutError> {
        let outstanding = Outstanding::new(&self.outstanding);
        let timeouts = Timeouts {
            wait: Some(self.limits.wait),
            create: None,
            recycle: None,
        };
        match self.inner.timeout_get(&timeouts).await {
            Ok(object) => Ok(Pooled {
                object: Some(object),
                _outstanding: outstanding,
            }),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                Err(CheckoutError::Timeout(self.limits.wait))
            }
            Err(PoolError::Backend(Opening::Failed(error))) => Err(CheckoutError::Server(error)),
            Err(_) => Err(CheckoutError::Closed),
        }
    }
}
