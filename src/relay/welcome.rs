//! What a client is told when it has logged in: the settings that its sessions have.
//!
//! The first client of a database and user waits for a server connection, which also shows that the database exists
//! and lets the user in. What the server says is remembered for the clients that follow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{PoolSet, Shared};
use crate::link::Params;
use crate::pool::{Patience, Pooled};
use crate::route;
use crate::server::{self, Refusal, Reported};
use crate::session::{TransactionDefaults, is_utf8, lexing_of};
use crate::sql::{Isolation, Lexing};
use crate::wire::{ClientFacing, Notice, SqlState, reply};

/// The settings of a new session.
#[derive(Debug)]
pub struct Welcome {
    /// ParameterStatus messages, but for the one that tells of the role.
    messages: Vec<u8>,
    /// That one, of a primary and of a standby.
    roles: [Vec<u8>; 2],
    /// The startup settings that they reflect.
    pub params: Arc<Params>,
    /// How the server lexes statements with them.
    pub lexing: Lexing,
    /// Transactions are serializable by default: by the server's configuration, or the role's, or the database's.
    pub serializable: bool,
    /// What they are by default.
    pub transactions: TransactionDefaults,
    /// Its `client_encoding` is UTF-8.
    pub utf8: bool,
}

/// Why a client cannot be welcomed.
#[derive(Debug)]
pub enum Unwelcome {
    /// The proxy says so.
    Notice(Notice),
    /// A server says so; this is its ErrorResponse, made fatal.
    Refused(Vec<u8>),
}

impl From<Notice> for Unwelcome {
    fn from(notice: Notice) -> Unwelcome {
        Unwelcome::Notice(Notice {
            severity: crate::wire::Severity::Fatal,
            ..notice
        })
    }
}

/// What tells drivers whether they are on a standby.
const IN_HOT_STANDBY: &str = "in_hot_standby";

impl Welcome {
    /// The settings as they are told to a client: as those of a primary, or of a standby.
    pub fn told(&self, standby: bool) -> [&[u8]; 2] {
        [&self.messages, &self.roles[usize::from(standby)]]
    }
}

/// Bound for applying startup settings on a server.
const APPLY: Duration = Duration::from_secs(10);

/// Finds out what to tell a client with these startup settings.
///
/// # Errors
/// [`Unwelcome`]: no node can be asked now (57P03), or the server refuses the user, the database or a setting.
pub async fn welcome(
    shared: &Shared,
    pools: &PoolSet,
    params: Params,
) -> Result<Arc<Welcome>, Unwelcome> {
    if let Some(known) = pools.known_welcome(&params) {
        return Ok(known);
    }
    // Few logins come here, and all of them would keep the room for it.
    Box::pin(learn(shared, pools, params)).await
}

/// The SQL that takes a connection from one to the other.
fn difference(from: &Params, to: &Params) -> Vec<u8> {
    let mut sql = Vec::new();
    from.put_difference(to, &mut sql);
    sql
}

/// Asks a server.
async fn learn(
    shared: &Shared,
    pools: &PoolSet,
    params: Params,
) -> Result<Arc<Welcome>, Unwelcome> {
    let mut server = any_server(shared, pools).await?;
    if pools.told.load().is_none() {
        pools.told.store(Some(server.reported.clone()));
    }
    let mut reported = Reported::clone(&server.reported);
    let params = Arc::new(params);
    let mut texts: Vec<Vec<u8>> = Vec::new();
    let mut before = server.link.params.clone();
    if let Some(set_up) = server.link.set_up.as_deref()
        && before.gives_up(&params)
    {
        // RESET goes back to before the operator's SQL.
        let own = Arc::<Params>::default();
        texts.push(difference(&before, &own));
        texts.push(set_up.as_bytes().to_vec());
        before = own;
    }
    texts.push(difference(&before, &params));
    for sql in texts.iter().filter(|sql| !sql.is_empty()) {
        let changed = match server::apply(&mut server, sql, APPLY).await {
            Ok(changed) => changed,
            Err(error) => {
                // The connection has read an error: it is not in a known state.
                drop(server.into_closed());
                return Err(refused(&error));
            }
        };
        for (name, value) in changed.iter() {
            reported.set(name, value);
        }
    }
    server.link.params = params.clone();
    let level = match server::query(&mut server, "SHOW default_transaction_isolation", APPLY).await
    {
        Ok(rows) => rows.into_iter().flatten().flatten().next(),
        Err(error) => {
            drop(server.into_closed());
            return Err(refused(&error));
        }
    };
    if params.idle_limit() > 0 {
        // It is checked now, and the proxy's affair: the server would end an idle connection of the pool.
        match server::apply(&mut server, b"RESET idle_session_timeout", APPLY).await {
            Ok(_) => server.link.params = Arc::new(params.at_leisure()),
            Err(error) => {
                drop(server.into_closed());
                return Err(refused(&error));
            }
        }
    }
    drop(server);
    let mut messages = Vec::new();
    // What a session is told of its role is its listener's affair.
    for (name, value) in reported.iter().filter(|(name, _)| *name != IN_HOT_STANDBY) {
        reply::parameter_status(name, value, &mut messages);
    }
    let roles = ["off", "on"].map(|role| {
        let mut message = Vec::new();
        reply::parameter_status(IN_HOT_STANDBY, role, &mut message);
        message
    });
    let welcome = Arc::new(Welcome {
        messages,
        roles,
        params,
        lexing: lexing_of(reported.iter()),
        serializable: level.as_deref() == Some("serializable"),
        transactions: TransactionDefaults {
            isolation: level.as_deref().and_then(Isolation::named),
            read_only: reported.get("default_transaction_read_only") == Some("on"),
        },
        utf8: reported
            .get("client_encoding")
            .is_some_and(|name| is_utf8(name.as_bytes())),
    });
    pools.remember(&welcome);
    Ok(welcome)
}

/// A connection to the primary, or, while there is none, to a standby.
async fn any_server(shared: &Shared, pools: &PoolSet) -> Result<Pooled, Unwelcome> {
    let node = {
        let view = pools.cluster.view.load();
        view.primary
            .or_else(|| route::any_standby(&view, Instant::now()))
    };
    let Some(node) = node else {
        return Err(no_node().into());
    };
    match pools.pools[node].checkout(Patience::Wait).await {
        Ok(server) => Ok(server),
        Err(crate::pool::CheckoutError::Server(error)) if !error.node_is_away() => {
            Err(refused(&error))
        }
        Err(crate::pool::CheckoutError::Server(_)) => Err(no_node().into()),
        Err(error) => {
            shared.count_checkout(&error);
            Err(error.notice().into())
        }
    }
}

/// No node can be asked now. Drivers take this as a reason to try again.
pub fn no_node() -> Notice {
    Notice::fatal(SqlState::CannotConnectNow, "no server is available now")
        .hint("Try again in a moment.")
}

/// What a client is told whose server connection could not be opened or set up.
pub fn refused(error: &server::ServerError) -> Unwelcome {
    match error.refusal() {
        Some(refusal) => Unwelcome::Refused(fatal(refusal)),
        None => {
            tracing::warn!(%error, "a client was turned away because its server connection failed");
            Notice::fatal(SqlState::ConnectionFailure, "the server could not be used").into()
        }
    }
}

/// The server's own words, as the end of a login.
fn fatal(refusal: &Refusal) -> Vec<u8> {
    let mut body = Vec::with_capacity(refusal.body.len());
    let mut rest = refusal.body.as_slice();
    while let Some((&field, after)) = rest.split_first().filter(|(field, _)| **field != 0) {
        let Some((value, after)) = crate::wire::frame::split_cstr(after) else {
            break;
        };
        body.push(field);
        body.extend_from_slice(if matches!(field, b'S' | b'V') {
            b"FATAL"
        } else {
            value
        });
        body.push(0);
        rest = after;
    }
    body.push(0);
    let mut message = Vec::with_capacity(body.len() + 5);
    crate::wire::frame::put_header(&mut message, b'E', body.len());
    message.extend_from_slice(&body);
    message
}
