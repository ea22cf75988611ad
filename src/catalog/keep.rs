//! The task that keeps one database's catalog.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Watched;
use crate::metrics::IntCounter;
use crate::net::Address;
use crate::server::{self, Credentials, Endpoint, Login, Messages, Server, ServerError};
use crate::sql::catalog::{Catalog, Change, FINGERPRINT, QUERY, Trust};

/// Where a catalog is read, and how often.
pub struct Source {
    /// The primary, if there is one now.
    pub primary: Box<dyn Fn() -> Option<Endpoint> + Send + Sync>,
    /// The database.
    pub database: String,
    /// The monitor user.
    pub user: String,
    /// What proves the user.
    pub credentials: Credentials,
    /// How late a change is noticed that nobody tells of.
    pub ttl: Duration,
    /// What is believed of functions.
    pub trust: Trust,
    /// Counts loads that succeeded.
    pub loads: IntCounter,
    /// Counts loads that failed.
    pub failures: IntCounter,
}

/// Longest time that a load may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Loads take at most one part in so many of the time.
const SHARE: u32 = 10;

/// Least time between two loads.
const REST: Duration = Duration::from_millis(50);

/// Least time from a load to the next because of a missing name. It doubles for as long as loads find nothing new: the
/// name may be a mistake that is made often.
const FIRST_MISS: Duration = Duration::from_millis(100);

/// Pause after a load that failed: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// From this interval on, the server is first asked whether anything has changed.
const COUNTED: Duration = Duration::from_secs(2);

/// Counts are lost when a server crashes: after so many intervals everything is read all the same.
const WHOLE: u32 = 10;

/// The channel that the event trigger of `deploy/pgweir_ddl.sql` notifies.
const CHANNEL: &str = "pgweir_ddl";

const HAS_TRIGGER: &str =
    "SELECT 1 FROM pg_event_trigger WHERE evtname = 'pgweir_ddl' AND evtenabled <> 'D'";

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("there is no primary")]
    NoPrimary,
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Malformed(#[from] crate::sql::catalog::Malformed),
    #[error("the loader was stopped")]
    Stopped(#[from] tokio::task::JoinError),
}

/// Keeps a catalog until nobody has it any more.
pub async fn keep(watched: Weak<Watched>, source: Source) {
    let Some(bell) = watched.upgrade().map(|watched| watched.bell.clone()) else {
        return;
    };
    let mut patience = FIRST_MISS;
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    let mut loaded = Instant::now();
    let mut ears: Option<Ears> = None;
    // What the servers had counted before the last load, unless that cannot be told from the next.
    let mut counted = None;
    let mut whole = Instant::now();
    let mut seen = 0;
    loop {
        let started = Instant::now();
        let Some(known) = watched.upgrade() else {
            return;
        };
        let missed = known.missed.swap(false, Ordering::Relaxed);
        let changes = known.changes();
        let nobody_tells =
            !missed && known.current().is_known() && whole.elapsed() < source.ttl * WHOLE;
        let before = counted.take().filter(|_| nobody_tells && changes == seen);
        let (mut due, rest) = match load(&source, before).await {
            Ok(Loaded::Same(count)) => {
                counted = Some(count);
                loaded = started;
                (started + interval(&source), REST)
            }
            Ok(Loaded::New {
                catalog,
                is_told,
                count,
            }) => {
                source.loads.inc();
                said.clear();
                pause = FIRST_PAUSE;
                whole = started;
                counted = count.filter(|_| source.ttl >= COUNTED);
                patience = if known.current().says_the_same(&catalog) {
                    (patience * 2).min(source.ttl)
                } else {
                    FIRST_MISS
                };
                report(&source, &catalog, &known, started);
                seen = changes;
                if known.publish(catalog, changes) {
                    loaded = started;
                }
                // One that is no primary any more may live on, and has nothing to tell.
                ears = ears.filter(|ears| ears.hears_primary(&source));
                if is_told && ears.is_none() {
                    ears = Ears::open(&source).await;
                    // What was done between the load and now was told to nobody.
                    if ears.is_some() {
                        known.changed(Change::Added);
                    }
                } else if !is_told {
                    ears = None;
                }
                let took = started.elapsed();
                (started + interval(&source), (took * SHARE).max(REST))
            }
            Err(error) => {
                source.failures.inc();
                if !matches!(error, LoadError::NoPrimary) {
                    known.failed();
                }
                // While there is a primary, it may be changed behind our back.
                let is_old = loaded.elapsed() > source.ttl * 2;
                if is_old && !matches!(error, LoadError::NoPrimary) && known.current().is_known() {
                    known.changed(Change::Names);
                }
                let text = error.to_string();
                if text != said && !matches!(error, LoadError::NoPrimary) {
                    tracing::warn!(
                        database = source.database,
                        error = text,
                        "the catalog could not be read: statements with users' names go to the primary"
                    );
                    said = text;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                (Instant::now() + pause, REST)
            }
        };
        drop(known);
        let least = Instant::now() + rest;
        let mut now = changes;
        // Until it is time, somebody has changed something, or has missed something for long enough.
        loop {
            let heard = async {
                match &mut ears {
                    Some(ears) => ears.hear().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(due.max(least)) => break,
                () = bell.notified() => {}
                heard = heard => {
                    let Some(known) = watched.upgrade() else { return };
                    if heard.is_err() {
                        // It is opened again with the next load.
                        ears = None;
                    }
                    known.changed(Change::Names);
                }
            }
            let Some(known) = watched.upgrade() else {
                return;
            };
            let latest = known.changes();
            if latest != now {
                now = latest;
                due = least;
            } else if known.missed.load(Ordering::Relaxed) {
                due = due.min(started + patience);
            }
        }
    }
}

/// How long after a look the next is due. What the server counts may be a second late, so it is asked more often.
fn interval(source: &Source) -> Duration {
    if source.ttl < COUNTED {
        source.ttl
    } else {
        source.ttl / 2
    }
}

/// What a look at the database has shown.
enum Loaded {
    /// The server has counted nothing since.
    Same(String),
    /// All that there is, what the server had counted before it, and whether the event trigger is installed.
    New {
        catalog: Catalog,
        count: Option<String>,
        is_told: bool,
    },
}

/// Reads the catalog, unless the server has counted what it had `before`.
async fn load(source: &Source, before: Option<String>) -> Result<Loaded, LoadError> {
    let mut server = connect(source).await?;
    let count = server::query(&mut server, FINGERPRINT, LIMIT).await?;
    let count = count.into_iter().flatten().next().flatten();
    match (before, count) {
        (Some(before), Some(count)) if before == count => Ok(Loaded::Same(count)),
        (_, count) => read(source, server, count).await,
    }
}

async fn read(
    source: &Source,
    mut server: Server,
    count: Option<String>,
) -> Result<Loaded, LoadError> {
    let rows = server::query(&mut server, QUERY, LIMIT).await?;
    let trigger = server::query(&mut server, HAS_TRIGGER, LIMIT).await?;
    let trust = source.trust.clone();
    // A large catalog takes longer than one task may keep its thread.
    let built = tokio::task::spawn_blocking(move || Catalog::build(&rows, &trust)).await??;
    Ok(Loaded::New {
        catalog: built,
        count,
        is_told: !trigger.is_empty(),
    })
}

async fn connect(source: &Source) -> Result<Server, LoadError> {
    let endpoint = (source.primary)().ok_or(LoadError::NoPrimary)?;
    let login = Login {
        user: &source.user,
        database: &source.database,
        credentials: &source.credentials,
        parameters: &[
            ("application_name", "pgweir catalog"),
            ("search_path", "pg_catalog"),
            ("default_transaction_read_only", "on"),
            ("client_encoding", "UTF8"),
            // Compiling the query takes longer than running it.
            ("jit", "off"),
        ],
    };
    Ok(server::open(&endpoint, &login).await?)
}

fn report(source: &Source, catalog: &Catalog, known: &Watched, started: Instant) {
    if known.current().is_known() {
        return;
    }
    let (tainted, relations) = catalog.relations();
    tracing::debug!(
        database = source.database,
        relations,
        tainted,
        took = ?started.elapsed(),
        "the catalog is known"
    );
}

/// A connection that hears of changes.
struct Ears {
    address: Address,
    server: Server,
    messages: Messages,
}

impl Ears {
    async fn open(source: &Source) -> Option<Ears> {
        let address = (source.primary)()?.address;
        let mut server = connect(source).await.ok()?;
        let listen = format!("LISTEN {CHANNEL}");
        server::query(&mut server, &listen, LIMIT).await.ok()?;
        Some(Ears {
            address,
            server,
            messages: Messages::default(),
        })
    }

    fn hears_primary(&self, source: &Source) -> bool {
        (source.primary)().is_some_and(|primary| primary.address == self.address)
    }

    /// Returns when a change was told, or when no more can be heard.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    async fn hear(&mut self) -> Result<(), ServerError> {
        loop {
            if self.messages.next(&mut self.server.stream).await?.tag == b'A' {
                return Ok(());
            }
        }
    }
}
