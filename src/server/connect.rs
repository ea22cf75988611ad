//! Connect and log in within one deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::login::{Login, authenticate};
use super::{Messages, Reported, Server, ServerError};
use crate::link::Link;
use crate::metrics::IntCounter;
use crate::net::{self, Address, TcpOptions};
use crate::wire::backend::{key_data, parameter};
use crate::wire::startup::put_startup;

/// A node as connections are made to it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// What TCP connections to it get.
    pub tcp: TcpOptions,
    /// Bound for connect and login together.
    pub timeout: Duration,
    /// Counts those who reached it.
    pub timeouts: IntCounter,
    /// Prepared statements that a connection may hold.
    pub max_prepared: usize,
}

/// Opens a connection and logs in.
///
/// # Errors
/// [`ServerError`]; [`ServerError::Timeout`] after the endpoint's bound.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn open(endpoint: &Endpoint, login: &Login<'_>) -> Result<Server, ServerError> {
    match timeout(endpoint.timeout, handshake(endpoint, login)).await {
        Ok(result) => result,
        Err(_) => {
            endpoint.timeouts.inc();
            Err(ServerError::Timeout)
        }
    }
}

async fn handshake(endpoint: &Endpoint, login: &Login<'_>) -> Result<Server, ServerError> {
    let mut stream = net::connect(&endpoint.address, endpoint.tcp)
        .await
        .map_err(ServerError::Connect)?;
    let mut startup = Vec::new();
    let mut parameters = vec![("user", login.user), ("database", login.database)];
    parameters.extend_from_slice(login.parameters);
    put_startup(&parameters, &mut startup);
    stream.write_all(&startup).await?;
    let mut messages = Messages::default();
    authenticate(&mut stream, &mut messages, login).await?;
    let mut reported = Reported::default();
    let (mut process, mut key) = (0, Vec::new());
    loop {
        let message = messages.next(&mut stream).await?;
        match message.tag {
            b'S' => {
                let (name, value) = parameter(&message.body)
                    .ok_or(ServerError::Protocol("a malformed ParameterStatus"))?;
                reported.set(
                    &String::from_utf8_lossy(name),
                    &String::from_utf8_lossy(value),
                );
            }
            b'K' => {
                let (id, secret) = key_data(&message.body)
                    .ok_or(ServerError::Protocol("a malformed BackendKeyData"))?;
                (process, key) = (id, secret.to_vec());
            }
            b'Z' => break,
            b'N' | b'v' => {}
            _ => {
                return Err(ServerError::Protocol(
                    "an unexpected message before ReadyForQuery",
                ));
            }
        }
    }
    if !messages.is_empty() {
        return Err(ServerError::Protocol("bytes after ReadyForQuery"));
    }
    Ok(Server {
        stream,
        link: Link::new(endpoint.max_prepared),
        unsent: Default::default(),
        process,
        key,
        reported: Arc::new(reported),
        opened: Instant::now(),
    })
}
