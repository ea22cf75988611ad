//! What deadpool needs to know: how a connection is made, and whether an idle one is still good.

use std::cell::Cell;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};

use super::Limits;
use crate::metrics::IntCounter;
use crate::server::{self, Credentials, Endpoint, Login, Server, ServerError};

thread_local! {
    /// Set while a checkout may only take what is idle: the time at which it does. deadpool asks for a new connection when
    /// none is idle; there is no other way to tell it not to, for one call.
    static IDLE_ONLY: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `poll` with the rule that only idle connections may be handed out.
pub(super) fn idle_only<R>(now: Instant, poll: impl FnOnce() -> R) -> R {
    IDLE_ONLY.set(Some(now));
    let result = poll();
    IDLE_ONLY.set(None);
    result
}

/// Why a connection could not be made.
#[derive(Clone, Debug)]
pub enum Opening {
    /// Only an idle connection was wanted.
    NotNow,
    /// The node could not be used.
    Failed(Arc<ServerError>),
}

/// Makes and checks the connections of one pool.
#[derive(Debug)]
pub struct Manager {
    endpoint: Endpoint,
    database: Box<str>,
    user: Box<str>,
    credentials: Arc<Credentials>,
    limits: Limits,
    connects: IntCounter,
    failed_connects: IntCounter,
}

impl Manager {
    pub(super) fn new(
        endpoint: Endpoint,
        database: &str,
        user: &str,
        credentials: Arc<Credentials>,
        limits: Limits,
        [connects, failed_connects]: [IntCounter; 2],
    ) -> Manager {
        Manager {
            endpoint,
            database: database.into(),
            user: user.into(),
            credentials,
            limits,
            connects,
            failed_connects,
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl managed::Manager for Manager {
    type Type = Box<Server>;
    type Error = Opening;

    async fn create(&self) -> Result<Box<Server>, Opening> {
        if IDLE_ONLY.get().is_some() {
            return Err(Opening::NotNow);
        }
        let login = Login {
            user: &self.user,
            database: &self.database,
            credentials: &self.credentials,
            parameters: &[],
        };
        // In a box: logging in takes kilobytes of state, which every checkout would carry about for it.
        match Box::pin(server::open(&self.endpoint, &login)).await {
            Ok(server) => {
                self.connects.inc();
                Ok(Box::new(server))
            }
            Err(error) => {
                self.failed_connects.inc();
                tracing::warn!(
                    address = %self.endpoint.address, database = %self.database, user = %self.user, %error,
                    "server connection not opened"
                );
                Err(Opening::Failed(Arc::new(error)))
            }
        }
    }

    async fn recycle(&self, server: &mut Box<Server>, _: &Metrics) -> RecycleResult<Opening> {
        let now = IDLE_ONLY.get().unwrap_or_else(Instant::now);
        let age = now.saturating_duration_since(server.opened);
        if !server.link.reusable() || age >= self.limits.lifetime {
            return Err(RecycleError::message("not to be used again"));
        }
        // Without news from the socket this is no system call. News on an idle connection are its end, or something
        // that the server says to nobody: in both cases another connection is better.
        match server.stream.try_read(&mut [0; 1]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            _ => Err(RecycleError::message(
                "closed by the server, or no longer idle",
            )),
        }
    }
}
