//! From the first byte to an authenticated user.
//!
//! Exactly the bytes of each packet are read, never more: what a client sends too early stays in the kernel and is
//! never taken for something else. Before a client is authenticated, nothing larger than a startup packet or an
//! authentication message is read.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use pgwire::api::DefaultClient;
use pgwire::api::auth::mechanism::{AuthMechanismFactory, AuthState};
use pgwire::error::PgWireError;
use pgwire::messages::startup::{
    Authentication, PasswordMessageFamily, SASLInitialResponse, SASLResponse,
};

use super::auth::{Authenticator, Method, Verifier, mechanism};
use crate::auth::{Keys, recover_client_key};
use crate::net::Stream;
use crate::wire::frame::{self, HEADER, split_cstr};
use crate::wire::startup::{self, Packet, Startup, StartupError};
use crate::wire::{ClientFacing, Notice, SqlState, reply};

/// Longest message of an authentication exchange; the server's own bound (`PG_MAX_AUTH_TOKEN_LENGTH`).
const MAX_AUTH_BODY: usize = 65_535;

/// What a connection turns out to be.
#[derive(Debug)]
pub enum First {
    /// A cancel request.
    Cancel {
        /// Process id as the client was told.
        process: i32,
        /// The key.
        key: Vec<u8>,
    },
    /// A login.
    Startup(Startup),
    /// The client left without a word, as health checks do.
    Nothing,
}

/// An authenticated user.
#[derive(Debug)]
pub struct Login {
    /// The keys that the exchange revealed.
    pub keys: Option<Keys>,
}

/// A login that failed. Texts are for the client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client left, or its socket broke.
    #[error("the client left during the login")]
    Io(#[from] std::io::Error),
    /// A first packet that cannot be accepted.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// A message that does not belong in a login.
    #[error("{0}")]
    Protocol(&'static str),
    /// A wrong password, or a user that does not exist: nobody can tell which.
    #[error("password authentication failed for user \"{0}\"")]
    Password(String),
    /// The user is not in the users file.
    #[error("\"trust\" authentication failed for user \"{0}\"")]
    NotListed(String),
    /// What was asked for is not offered.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl ClientFacing for ClientError {
    fn notice(&self) -> Notice {
        let state = match self {
            ClientError::Io(_) => SqlState::ConnectionFailure,
            ClientError::Startup(StartupError::Version(_)) | ClientError::Unsupported(_) => {
                SqlState::FeatureNotSupported
            }
            ClientError::Startup(StartupError::NoUser) | ClientError::NotListed(_) => {
                SqlState::InvalidAuthorizationSpecification
            }
            ClientError::Startup(_) | ClientError::Protocol(_) => SqlState::ProtocolViolation,
            ClientError::Password(_) => SqlState::InvalidPassword,
        };
        Notice::fatal(state, self.to_string())
    }
}

/// Reads the first packets, refusing encryption, up to the one that matters.
///
/// # Errors
/// [`ClientError`].
pub async fn first_packet(stream: &mut Stream) -> Result<First, ClientError> {
    // At most one request for each kind of encryption.
    let (mut ssl, mut gss) = (true, true);
    loop {
        let Some(packet) = read_packet(stream).await? else {
            return Ok(First::Nothing);
        };
        match startup::packet(&packet)? {
            Packet::Ssl if std::mem::take(&mut ssl) => stream.write_all(b"N").await?,
            Packet::GssEnc if std::mem::take(&mut gss) => stream.write_all(b"N").await?,
            Packet::Ssl | Packet::GssEnc => {
                return Err(ClientError::Protocol("repeated encryption request"));
            }
            Packet::Cancel { process, key } => return Ok(First::Cancel { process, key }),
            Packet::Startup(startup) => return Ok(First::Startup(startup)),
        }
    }
}

/// A whole packet; `None` if the client left before its first byte.
async fn read_packet(stream: &mut Stream) -> Result<Option<Vec<u8>>, ClientError> {
    let mut packet = vec![0; 4];
    if !read_exact(stream, &mut packet).await? {
        return Ok(None);
    }
    let length = startup::length(&packet)?.ok_or(StartupError::Length)?;
    packet.resize(length, 0);
    if !read_exact(stream, &mut packet[4..]).await? {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(packet))
}

/// Fills `buffer`; false if the stream ended before its first byte.
async fn read_exact(stream: &mut Stream, buffer: &mut [u8]) -> std::io::Result<bool> {
    let mut at = 0;
    while at < buffer.len() {
        match stream.read(&mut buffer[at..]).await? {
            0 if at == 0 => return Ok(false),
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => at += n,
        }
    }
    Ok(true)
}

/// Authenticates the user of a startup packet, up to and with AuthenticationOk. The end of it is left in `out`, to be sent
/// together with what follows, be that a welcome or an error.
///
/// # Errors
/// [`ClientError`]; nothing has been said of it to the client yet.
pub async fn log_in(
    stream: &mut Stream,
    startup: &Startup,
    authenticator: &Authenticator,
    out: &mut Vec<u8>,
) -> Result<Login, ClientError> {
    if startup.needs_negotiation() {
        reply::negotiate(startup.negotiated(), startup.protocol_options.clone(), out);
    }
    let keys = match authenticator.method {
        Method::Trust if authenticator.trusts(&startup.user) => None,
        Method::Trust => return Err(ClientError::NotListed(startup.user.clone())),
        Method::Scram => {
            let verifier = authenticator.verifier(&startup.user).await;
            Some(Box::pin(scram(stream, startup, &verifier, out)).await?)
        }
    };
    reply::authentication(&Authentication::Ok, out);
    Ok(Login { keys })
}

async fn scram(
    stream: &mut Stream,
    startup: &Startup,
    verifier: &Verifier,
    out: &mut Vec<u8>,
) -> Result<Keys, ClientError> {
    let failed = |_: PgWireError| ClientError::Password(startup.user.clone());
    // The address is only for sources that look at it; ours does not.
    let client = DefaultClient::<()>::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), false);
    let mut mechanism = mechanism(verifier).create();
    let begun = mechanism.begin(&client).await.map_err(failed)?;
    put_step(begun, &startup.user, out)?;
    send(stream, out).await?;
    let first = initial_response(read_auth(stream).await?)?;
    let client_first = first.data.clone().unwrap_or_default();
    let state = mechanism
        .next(&client, PasswordMessageFamily::SASLInitialResponse(first))
        .await
        .map_err(failed)?;
    let server_first = put_step(state, &startup.user, out)?;
    send(stream, out).await?;
    let client_final = Bytes::from(read_auth(stream).await?);
    let answer = PasswordMessageFamily::SASLResponse(SASLResponse::new(client_final.clone()));
    let state = mechanism.next(&client, answer).await.map_err(failed)?;
    put_step(state, &startup.user, out)?;
    let key = recover_client_key(
        &verifier.stored_key,
        &client_first,
        &server_first,
        &client_final,
    )
    .ok_or_else(|| ClientError::Password(startup.user.clone()))?;
    Ok(Keys {
        client: key,
        server: verifier.server_key,
    })
}

/// Appends what pgwire answers, and returns the data of a SASLContinue.
fn put_step(state: AuthState, user: &str, out: &mut Vec<u8>) -> Result<Bytes, ClientError> {
    let message = match state {
        AuthState::InProgress(message) => message,
        AuthState::Ok {
            final_message: Some(message),
            ..
        } => message,
        AuthState::Ok {
            final_message: None,
            ..
        } => return Ok(Bytes::new()),
        AuthState::Failed(_) => return Err(ClientError::Password(user.to_owned())),
    };
    reply::authentication(&message, out);
    match message {
        Authentication::SASLContinue(data) => Ok(data),
        _ => Ok(Bytes::new()),
    }
}

/// Sends what has been written, which the client waits for.
async fn send(stream: &mut Stream, out: &mut Vec<u8>) -> Result<(), ClientError> {
    // Not said again if that takes too long.
    stream.write_all(&std::mem::take(out)).await?;
    Ok(())
}

/// The body of the next authentication message; nothing else is accepted now.
async fn read_auth(stream: &mut Stream) -> Result<Vec<u8>, ClientError> {
    let mut head = [0; HEADER];
    if !read_exact(stream, &mut head).await? {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    let header =
        frame::header(&head, MAX_AUTH_BODY)
            .ok()
            .flatten()
            .ok_or(ClientError::Protocol(
                "invalid message length during authentication",
            ))?;
    if header.tag != b'p' {
        return Err(ClientError::Protocol("expected an authentication message"));
    }
    let mut body = vec![0; header.body];
    if !body.is_empty() && !read_exact(stream, &mut body).await? {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(body)
}

/// Opens a SASLInitialResponse. pgwire's own decoder panics on a body that is cut short, so it never sees one.
fn initial_response(body: Vec<u8>) -> Result<SASLInitialResponse, ClientError> {
    const MALFORMED: ClientError = ClientError::Protocol("malformed SASL response");
    let (mechanism, rest) = split_cstr(&body).ok_or(MALFORMED)?;
    let (length, data) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
    let mechanism = std::str::from_utf8(mechanism).map_err(|_| MALFORMED)?;
    let data = match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => None,
        length if usize::try_from(length) == Ok(data.len()) => Some(Bytes::copy_from_slice(data)),
        _ => return Err(MALFORMED),
    };
    Ok(SASLInitialResponse::new(mechanism.to_owned(), data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sasl_bodies() {
        let check = |body: &[u8], expected: Option<Option<&[u8]>>| {
            let got = initial_response(body.to_vec())
                .ok()
                .map(|response| response.data);
            assert_eq!(
                got,
                expected.map(|data| data.map(Bytes::copy_from_slice)),
                "{body:?}"
            );
        };
        check(b"SCRAM-SHA-256\0\0\0\0\x03n,,", Some(Some(b"n,,")));
        check(b"SCRAM-SHA-256\0\xff\xff\xff\xff", Some(None));
        for bad in [
            &b""[..],
            b"SCRAM",
            b"SCRAM\0",
            b"SCRAM\0\0\0\0\x05abc",
            b"S\0\xff\xff\xff\xfe",
            b"S\0\0\0\0\x01ab",
        ] {
            check(bad, None);
        }
    }
}
