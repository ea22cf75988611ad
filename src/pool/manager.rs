//! What deadpool needs to know: how a connection is made, and whether an idle one is still good.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};

use super::caps::Slot;
use super::{Limits, Owner, Setup, Told};
use crate::metrics::IntCounter;
use crate::server::{self, Credentials, Endpoint, Login, Server, ServerError};

thread_local! {
    /// Places for the connection that deadpool is to open on this thread. There is no other way to tell it, for one call.
    static PLACES: RefCell<Option<Slot>> = const { RefCell::new(None) };
}

/// Runs `poll` with places for a new connection. They are given up if it does not come to that.
pub(super) fn with_slot<R>(slot: Slot, poll: impl FnOnce() -> R) -> R {
    PLACES.set(Some(slot));
    let result = poll();
    PLACES.set(None);
    result
}

/// A server connection as its pool has it.
#[derive(Debug)]
pub struct Member {
    pub(super) server: Server,
    /// When it is closed, once it is idle.
    retires: Instant,
    /// When it was handed out last.
    pub(super) used: Instant,
    /// How long it may be idle.
    pub(super) idle: Duration,
    /// Held, not looked at.
    slot: Slot,
}

impl Member {
    fn new(server: Server, limits: Limits, slot: Slot) -> Member {
        // Connections that were opened together, as after a restart, must not all end together. Process ids are as good as
        // dice for that.
        let sooner = |limit: Duration| {
            limit - limit / 10 * (server.process.unsigned_abs() % SPREAD) / (SPREAD - 1)
        };
        Member {
            retires: server.opened + sooner(limits.lifetime),
            idle: sooner(limits.idle),
            used: server.opened,
            server,
            slot,
        }
    }

    /// Closes the connection so that the server cannot write to it any more. What is returned holds its place under the
    /// bounds that pools share.
    pub fn hang_up(self) -> impl Send + 'static {
        self.server.stream.reset();
        self.slot
    }

    /// Whether it may be used again. Without news from the socket that takes no system call. News on an idle connection are
    /// its end, or something that the server says to nobody: in both cases another connection is better.
    pub(super) fn is_fit(&self, now: Instant) -> bool {
        self.server.link.reusable()
            && !self.is_retired(now)
            && matches!(
                self.server.stream.try_read(&mut [0; 1]),
                Err(error) if error.kind() == ErrorKind::WouldBlock
            )
    }

    /// Whether its time is up.
    pub(super) fn is_retired(&self, now: Instant) -> bool {
        now >= self.retires
    }
}

/// Steps by which bounds on time are spread over their last tenth.
const SPREAD: u32 = 64;

/// Makes and checks the connections of one pool.
#[derive(Debug)]
pub struct Manager {
    endpoint: Endpoint,
    database: Box<str>,
    user: Box<str>,
    credentials: Arc<Credentials>,
    limits: Limits,
    setup: Arc<Setup>,
    told: Arc<Told>,
    connects: IntCounter,
    failed_connects: IntCounter,
}

impl Manager {
    pub(super) fn new(
        endpoint: Endpoint,
        owner: Owner<'_>,
        limits: Limits,
        setup: Arc<Setup>,
        [connects, failed_connects]: [IntCounter; 2],
    ) -> Manager {
        Manager {
            endpoint,
            database: owner.database.into(),
            user: owner.user.into(),
            credentials: owner.credentials,
            told: owner.told,
            limits,
            setup,
            connects,
            failed_connects,
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A connection like those of the pool, outside of it.
    pub(super) async fn open(&self) -> Result<Server, ServerError> {
        let own = self.setup.parameters.iter();
        let mut parameters: Vec<_> = own.map(|(name, value)| (*name, value.as_str())).collect();
        let login = Login {
            user: &self.user,
            database: &self.database,
            credentials: &self.credentials,
            parameters: &parameters,
        };
        let mut server = server::open(&self.endpoint, &login).await?;
        let told = self.told.load();
        if let Some(told) = &*told
            && let differences = told.differences(&server.reported)
            && !differences.is_empty()
        {
            // As startup parameters, so that RESET goes back to them.
            tracing::info!(
                address = %self.endpoint.address, database = %self.database, user = %self.user,
                parameters = ?differences,
                "the node's settings are not those that clients were told of: opened again with these"
            );
            parameters.extend(differences);
            let login = Login {
                user: &self.user,
                database: &self.database,
                credentials: &self.credentials,
                parameters: &parameters,
            };
            server = server::open(&self.endpoint, &login).await?;
        }
        if let Some(sql) = &self.setup.connect_query {
            let limit = self.endpoint.timeout;
            let changed = server::apply(&mut server, sql.as_bytes(), limit).await?;
            let reported = Arc::make_mut(&mut server.reported);
            for (name, value) in changed.iter() {
                reported.set(name, value);
            }
            server.link.set_up = Some(sql.clone());
        }
        Ok(server)
    }
}

impl managed::Manager for Manager {
    type Type = Box<Member>;
    type Error = Arc<ServerError>;

    async fn create(&self) -> Result<Box<Member>, Arc<ServerError>> {
        let slot = PLACES.take().expect("the only call hands places in");
        // In a box: logging in takes kilobytes of state, which every checkout would carry about for it.
        match Box::pin(self.open()).await {
            Ok(server) => {
                self.connects.inc();
                Ok(Box::new(Member::new(server, self.limits, slot)))
            }
            Err(error) => {
                self.failed_connects.inc();
                tracing::warn!(
                    address = %self.endpoint.address, database = %self.database, user = %self.user, %error,
                    "server connection not opened"
                );
                Err(Arc::new(error))
            }
        }
    }

    /// What comes back to deadpool and not to the shelf was on its way to a client that has left.
    async fn recycle(&self, member: &mut Box<Member>, _: &Metrics) -> RecycleResult<Self::Error> {
        if member.is_fit(Instant::now()) {
            Ok(())
        } else {
            Err(RecycleError::message("not to be used again"))
        }
    }
}
