//! From an accepted socket to a running session.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::build::Built;
use super::console::{self, ConsoleSession};
use super::databases::{Place, Settings};
use super::peers;
use crate::client::{Arriving, ClientError, First, Listener, Peer, first_packet, log_in};
use crate::config::Route;
use crate::console::is_console;
use crate::link::{Params, Value};
use crate::metrics::Held;
use crate::net::Stream;
use crate::pool::{Patience, Pooled};
use crate::relay::{self, Cluster, Mode, PoolSet, Relay, Replication, Seat, Shared, Unwelcome};
use crate::server::{self, Credentials, Server};
use crate::session::{Session, check_startup};
use crate::wire::startup::{self, Startup, V3_2};
use crate::wire::{ClientFacing, Notice, SqlState, reply};

/// Metric labels: why a login failed.
pub(super) const FAILURES: [&str; 6] = [
    "gone",
    "timeout",
    "protocol",
    "password",
    "refused",
    "unavailable",
];

/// Pause after accept failed, as it does while file descriptors are short: trying at once would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of a cancel key. 3.0 has room for 4; 32 is what PostgreSQL 18 sends in 3.2.
const KEY_3_0: usize = 4;
const KEY_3_2: usize = 32;

/// Accepts clients until told to stop.
pub(super) async fn accept(
    listener: Listener,
    route: Route,
    built: Arc<Built>,
    sessions: watch::Sender<usize>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let guard = SessionGuard::new(&sessions);
                tokio::spawn(Attendance::new(stream, peer, route, built.clone(), guard));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One connection, from its first byte to its last. There are as many as clients, most of them idle: an async function
/// would keep room for each stage beside the others.
struct Attendance {
    stage: Stage,
    _counted: (Held, SessionGuard),
}

#[allow(
    clippy::large_enum_variant,
    reason = "nearly every connection comes to the large one, which would only be boxed for the others' sake"
)]
enum Stage {
    /// Boxed, so that its memory is given back when the session begins.
    Login(Boxed<Option<(Serving, Permits)>>),
    Serving {
        serving: Serving,
        _permits: Permits,
    },
}

impl Attendance {
    fn new(
        stream: Stream,
        peer: Peer,
        route: Route,
        built: Arc<Built>,
        guard: SessionGuard,
    ) -> Attendance {
        Attendance {
            _counted: (built.shared.metrics.client(), guard),
            stage: Stage::Login(Box::pin(serve(stream, peer, route, built))),
        }
    }
}

impl Future for Attendance {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.stage = match &mut self.stage {
                Stage::Login(login) => match ready!(login.as_mut().poll(cx)) {
                    Some((serving, _permits)) => Stage::Serving { serving, _permits },
                    None => return Poll::Ready(()),
                },
                Stage::Serving { serving, .. } => {
                    return match serving {
                        Serving::Session(relay) => Pin::new(relay).poll(cx),
                        Serving::Other(serving) => serving.as_mut().poll(cx),
                    };
                }
            };
        }
    }
}

/// Counts one connection.
struct SessionGuard(watch::Sender<usize>);

impl SessionGuard {
    fn new(sessions: &watch::Sender<usize>) -> SessionGuard {
        // Nobody waits for there to be more.
        sessions.send_if_modified(|count| {
            *count += 1;
            false
        });
        SessionGuard(sessions.clone())
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.0.send_if_modified(|count| {
            *count -= 1;
            *count == 0
        });
    }
}

/// What follows a login.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every client has the large one, which would only be boxed for the others' sake"
)]
enum Serving {
    Session(Relay),
    /// A replication connection, or the console.
    Other(Boxed<()>),
}

/// A login that ends here. The reason is for the metric.
enum Refusal {
    Notice(&'static str, Notice),
    Relayed(Vec<u8>),
    Silent(&'static str),
}

impl From<Unwelcome> for Refusal {
    fn from(unwelcome: Unwelcome) -> Refusal {
        match unwelcome {
            Unwelcome::Notice(notice) => Refusal::Notice("unavailable", notice),
            Unwelcome::Refused(message) => Refusal::Relayed(message),
        }
    }
}

async fn serve(
    stream: Stream,
    peer: Peer,
    route: Route,
    built: Arc<Built>,
) -> Option<(Serving, Permits)> {
    let settings = built.databases.settings();
    let limit = settings.config.timeouts.login;
    // What the client has not been told yet of what it has been asked for or promised.
    let mut said = Vec::new();
    let mut client = Arriving::new(stream);
    let greeting = greet(&mut client, &mut said, route, &built, &settings);
    let result = match timeout(limit, greeting).await {
        Ok(result) => result,
        Err(_) => {
            built.shared.metrics.timeouts.named("login").inc();
            let text = "client_login_timeout: the login took too long";
            let notice = Notice::fatal(SqlState::ProtocolViolation, text);
            Err(Refusal::Notice("timeout", notice))
        }
    };
    let refusal = match result {
        Ok(Greeted::Admitted(admitted)) => return Some(admitted.begin(client, peer, &built)),
        Ok(Greeted::Nothing) => return None,
        Ok(Greeted::Cancel { process, key }) => {
            // The connection closes when it is done: that is how its client knows.
            Box::pin(peers::cancel(&built, process, &key)).await;
            return None;
        }
        Err(refusal) => refusal,
    };
    let (label, message) = match refusal {
        Refusal::Silent(label) => (label, Vec::new()),
        Refusal::Relayed(message) => ("refused", [said, message].concat()),
        Refusal::Notice(label, notice) => {
            tracing::info!(%peer, reason = %notice.message, "login refused");
            built.shared.metrics.errors.named(notice.state.code()).inc();
            notice.put(&mut said);
            (label, said)
        }
    };
    built.shared.metrics.client_logins_failed.named(label).inc();
    client.forget_arrived();
    // Whether the client still reads is its own affair.
    let _ = timeout(Duration::from_secs(1), client.write_all(&message)).await;
    None
}

/// A client's places under the bounds on clients, for as long as this lives.
type Permits = (Place, [Place; 2]);

/// What a connection has turned out to be.
enum Greeted {
    /// The client has left.
    Nothing,
    Cancel {
        process: i32,
        key: Vec<u8>,
    },
    Admitted(Admitted),
}

/// A client that may begin.
struct Admitted {
    slot: Seat,
    permits: Permits,
    to: AdmittedTo,
}

enum AdmittedTo {
    Session {
        pools: Arc<PoolSet>,
        session: Box<Session>,
        home: Option<(Pooled, usize)>,
    },
    Replication {
        server: Box<Server>,
        cluster: Arc<Cluster>,
        node: usize,
    },
    Console {
        user: String,
    },
}

impl Admitted {
    fn begin(self, client: Arriving, peer: Peer, built: &Arc<Built>) -> (Serving, Permits) {
        let shared = built.shared.clone();
        let client = client.into_parts();
        let serving = match self.to {
            AdmittedTo::Session {
                pools,
                session,
                home,
            } => Serving::Session(Relay::new(shared, pools, self.slot, client, *session, home)),
            AdmittedTo::Replication {
                server,
                cluster,
                node,
            } => {
                let replication =
                    Replication::new(shared, self.slot, client, server, cluster, node);
                Serving::Other(Box::pin(replication.run()))
            }
            AdmittedTo::Console { user } => {
                let console = ConsoleSession::new(client, self.slot, user, peer, built.clone());
                Serving::Other(Box::pin(console.run()))
            }
        };
        (serving, self.permits)
    }
}

async fn greet(
    client: &mut Arriving,
    said: &mut Vec<u8>,
    route: Route,
    built: &Built,
    settings: &Settings,
) -> Result<Greeted, Refusal> {
    let startup = match first_packet(client).await.map_err(failed)? {
        First::Nothing => return Ok(Greeted::Nothing),
        First::Cancel { process, key } => return Ok(Greeted::Cancel { process, key }),
        First::Startup(startup) => startup,
    };
    // Counted after the first packet, so that cancel requests get through a full house.
    let to_console = is_console(&startup.database);
    let place = built.databases.admit_any(to_console).map_err(|bound| {
        built.shared.metrics.clients_rejected.inc();
        let text = format!("no more connections allowed ({bound})");
        let notice = Notice::fatal(SqlState::TooManyConnections, text);
        Refusal::Notice("refused", notice)
    })?;
    if to_console {
        return Box::pin(administer(client, said, built, settings, startup, place)).await;
    }
    let replication = replication(&startup);
    let params = startup_params(&startup).map_err(|notice| Refusal::Notice("protocol", notice))?;
    let authenticator = &settings.authenticator;
    let credentials = log_in(client, &startup, authenticator, said)
        .await
        .map_err(failed)?;
    let places = built
        .databases
        .admit(&startup.database, &startup.user)
        .map_err(|bound| {
            built.shared.metrics.clients_rejected.inc();
            let text = format!("client connections exceeded ({bound})");
            let notice = Notice::fatal(SqlState::TooManyConnections, text);
            Refusal::Notice("refused", notice)
        })?;
    let permits = (place, places);
    if let Some(value) = replication {
        let replicated = replicate(built, &startup, value, &credentials, permits, said);
        let replicated = Box::pin(replicated).await?;
        send_welcome(client, said).await?;
        return Ok(Greeted::Admitted(replicated));
    }
    let Some(pools) = built.databases.pools(&startup.database, &startup.user) else {
        return Err(no_database(&startup));
    };
    let ground = pools.ground.of_listener(route);
    check_startup(&params, ground).map_err(|notice| Refusal::Notice("refused", notice))?;
    let welcome = match relay::welcome(&built.shared, &pools, params).await {
        Ok(welcome) => welcome,
        Err(unwelcome) => {
            return Err(unwelcome.into());
        }
    };
    let mut session = Session::new(welcome.params.clone(), welcome.lexing, welcome.serializable)
        .with_ground(ground);
    if pools.shares_listen {
        session = session.with_shared_listen(welcome.utf8);
    }
    if pools.defers_begin {
        session = session.with_deferred_begin(welcome.transactions);
    }
    if pools.is_optimistic {
        session = session.with_optimism();
    }
    session = session.with_sequences(pools.currval, &pools.sequences);
    let home = match session.is_on_standbys() {
        true => None,
        false if pools.mode != Mode::Session => None,
        false => Box::pin(home(&built.shared, &pools)).await,
    };
    let process = home.as_ref().map(|(server, _)| server.process);
    let slot = enter(built, &startup, process)?;
    let told = welcome.told(session.is_on_standbys());
    put_welcome(&told, &slot, said);
    send_welcome(client, said).await?;
    Ok(Greeted::Admitted(Admitted {
        slot,
        permits,
        to: AdmittedTo::Session {
            pools,
            session: Box::new(session),
            home,
        },
    }))
}

/// The console: whatever settings its client asks for, they are of no server.
async fn administer(
    client: &mut Arriving,
    said: &mut Vec<u8>,
    built: &Built,
    settings: &Settings,
    startup: Startup,
    place: Place,
) -> Result<Greeted, Refusal> {
    log_in(client, &startup, &settings.authenticator, said)
        .await
        .map_err(failed)?;
    let admitted = console::admit(&settings.config.admin, &startup.user);
    admitted.map_err(|notice| Refusal::Notice("refused", notice))?;
    let slot = enter(built, &startup, None)?;
    put_welcome(&[&console::welcome()], &slot, said);
    send_welcome(client, said).await?;
    Ok(Greeted::Admitted(Admitted {
        slot,
        permits: (place, Default::default()),
        to: AdmittedTo::Console { user: startup.user },
    }))
}

fn no_database(startup: &Startup) -> Refusal {
    let text = format!("database \"{}\" does not exist", startup.database);
    Refusal::Notice("refused", Notice::fatal(SqlState::InvalidCatalogName, text))
}

/// A place in the registry, with a cancel key as long as the client's protocol has room for.
fn enter(built: &Built, startup: &Startup, process: Option<i32>) -> Result<Seat, Refusal> {
    let key_length = if startup.negotiated() >= V3_2 {
        KEY_3_2
    } else {
        KEY_3_0
    };
    built
        .shared
        .registry
        .enter(process, key_length)
        .map_err(|error| {
            Refusal::Notice(
                "unavailable",
                Notice::fatal(SqlState::InternalError, error.to_string()),
            )
        })
}

/// Bytes of BackendKeyData, with the longest key, and of ReadyForQuery.
const END: usize = 9 + KEY_3_2 + 6;

/// The end of a login.
fn put_welcome(settings: &[&[u8]], slot: &Seat, out: &mut Vec<u8>) {
    out.reserve(settings.iter().map(|part| part.len()).sum::<usize>() + END);
    for part in settings {
        out.extend_from_slice(part);
    }
    reply::backend_key_data(slot.process, &slot.key, out);
    reply::ready_idle(out);
}

/// All that the client has not been told of its login goes at once, and is not said again if that takes too long.
async fn send_welcome(client: &mut Arriving, said: &mut Vec<u8>) -> Result<(), Refusal> {
    client
        .write_all(&std::mem::take(said))
        .await
        .map_err(|_| Refusal::Silent("gone"))
}

/// A replication connection: a walsender on the primary, for this client alone.
async fn replicate(
    built: &Built,
    startup: &Startup,
    value: &str,
    credentials: &Credentials,
    permits: Permits,
    said: &mut Vec<u8>,
) -> Result<Admitted, Refusal> {
    let physical = !value.eq_ignore_ascii_case("database");
    let Some((cluster, database)) = built.databases.for_replication(&startup.database, physical)
    else {
        return Err(no_database(startup));
    };
    let Some(primary) = cluster.view.load().primary else {
        return Err(Refusal::Notice("unavailable", relay::no_node()));
    };
    let node = &cluster.nodes[primary];
    let parameters: Vec<(&str, &str)> = startup
        .parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let login = server::Login {
        user: &startup.user,
        database: &database,
        credentials,
        parameters: &parameters,
    };
    let server = match server::open(&node.endpoint, &login).await {
        Ok(server) => server,
        Err(error) if error.node_is_away() => {
            return Err(Refusal::Notice("unavailable", relay::no_node()));
        }
        Err(error) => return Err(relay::refused(&error).into()),
    };
    let mut settings = Vec::new();
    for (name, value) in server.reported.iter() {
        reply::parameter_status(name, value, &mut settings);
    }
    let slot = enter(built, startup, Some(server.process))?;
    put_welcome(&[&settings], &slot, said);
    Ok(Admitted {
        slot,
        permits,
        to: AdmittedTo::Replication {
            server: Box::new(server),
            node: primary,
            cluster,
        },
    })
}

/// The value of the `replication` parameter, unless it says no.
fn replication(startup: &Startup) -> Option<&str> {
    let (_, value) = startup
        .parameters
        .iter()
        .find(|(name, _)| name == "replication")?;
    (!is_off(value)).then_some(value)
}

/// Session pooling: the session's connection on the primary. If there is none now, the session gets one with its first
/// statement.
async fn home(shared: &Shared, pools: &PoolSet) -> Option<(Pooled, usize)> {
    let node = pools.cluster.view.load().primary?;
    match pools.pools[node].checkout(Patience::Wait).await {
        Ok(server) => Some((server, node)),
        Err(error) => {
            shared.count_checkout(&error);
            None
        }
    }
}

fn failed(error: ClientError) -> Refusal {
    let label = match error {
        ClientError::Io(_) => return Refusal::Silent("gone"),
        ClientError::Password(_) | ClientError::NotListed(_) => "password",
        _ => "protocol",
    };
    Refusal::Notice(label, error.notice())
}

/// The settings that a startup packet asks for. Names that cannot be settings are the server's to refuse, but they are
/// never put into SQL.
fn startup_params(startup: &Startup) -> Result<Params, Notice> {
    let unsupported = |name: &str| {
        Notice::fatal(
            SqlState::ProtocolViolation,
            format!("unsupported startup parameter: {name}"),
        )
    };
    let mut params = Params::default();
    for (name, value) in &startup.parameters {
        let settings = match name.as_str() {
            "options" => startup::options(value)
                .map_err(|text| Notice::fatal(SqlState::ProtocolViolation, text))?,
            "replication" => continue,
            _ => vec![(name.clone(), value.clone())],
        };
        for (name, value) in settings {
            let name = name.to_ascii_lowercase();
            if !Params::trackable(&name) {
                return Err(unsupported(&name));
            }
            params.set(&name, Value::Plain(value.as_str().into()));
        }
    }
    Ok(params)
}

/// Spellings of "no" that PostgreSQL takes for a boolean.
fn is_off(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "" | "0" | "off" | "false" | "no" | "f" | "n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_login_takes_few_kibibytes() {
        let login = takes(serve);
        assert!(login <= 4096, "a login takes {login} bytes");
    }

    #[test]
    fn a_session_takes_less_than_a_kibibyte() {
        let task = size_of::<Attendance>();
        assert!(task <= 1024, "the task of a session takes {task} bytes");
    }
}
