//! From the first byte to an authenticated user.
//!
//! One receive brings a packet, or several: what a client sends ahead of its turn is kept, to be looked at when that has
//! come. Ahead of an answer about encryption nothing may come, since somebody else may have put it there. Before a client is
//! authenticated, no more is kept than its startup packet or authentication message and what one receive brings beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use pgwire::api::DefaultClient;
use pgwire::api::auth::mechanism::{AuthMechanismFactory, AuthState};
use pgwire::error::PgWireError;
use pgwire::messages::startup::{
    Authentication, PasswordMessageFamily, SASLInitialResponse, SASLResponse,
};

use super::auth::{Authenticator, Method, Verifier, mechanism};
use crate::auth::{Keys, recover_client_key};
use crate::net::Stream;
use crate::server::Credentials;
use crate::wire::frame::{self, HEADER, split_cstr};
use crate::wire::startup::{self, Packet, Startup, StartupError};
use crate::wire::{ClientFacing, Notice, SqlState, reply};

/// Longest message of an authentication exchange; the server's own bound (`PG_MAX_AUTH_TOKEN_LENGTH`).
const MAX_AUTH_BODY: usize = 65_535;

/// Most that one receive brings of a client that is not logged in. PostgreSQL has as much room (`PQ_RECV_BUFFER_SIZE`).
const RECEIVE: usize = 8192;

/// A client that is not logged in yet.
#[derive(Debug)]
pub struct Arriving {
    stream: Stream,
    /// What it has sent and nobody has looked at.
    ahead: BytesMut,
}

impl Arriving {
    /// A client that has just been accepted.
    pub fn new(stream: Stream) -> Arriving {
        Arriving {
            stream,
            ahead: BytesMut::new(),
        }
    }

    /// Its socket, and what it has sent ahead of the end of its login.
    pub fn into_parts(self) -> (Stream, BytesMut) {
        let ahead = match self.ahead.is_empty() {
            true => BytesMut::new(),
            // In memory of its own, which the login's would be kept for.
            false => BytesMut::from(&self.ahead[..]),
        };
        (self.stream, ahead)
    }

    /// Forgets what the client has sent and nobody will look at, so that the socket can be closed without a reset.
    pub fn forget_arrived(&self) {
        self.stream.forget_arrived();
    }

    /// Sends all of `bytes` to the client.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// What the client says next, which `length` measures as soon as its length has arrived; `None` if it has left
    /// instead.
    async fn next(
        &mut self,
        length: impl Fn(&[u8]) -> Result<Option<usize>, ClientError>,
    ) -> Result<Option<BytesMut>, ClientError> {
        loop {
            if let Some(length) = length(&self.ahead)?
                && length <= self.ahead.len()
            {
                return Ok(Some(self.ahead.split_to(length)));
            }
            match self.stream.read_into(&mut self.ahead, RECEIVE).await? {
                0 if self.ahead.is_empty() => return Ok(None),
                0 => return Err(left()),
                _ => {}
            }
        }
    }
}

/// A client that has left in the middle of what it had to say.
fn left() -> ClientError {
    std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()
}

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
pub async fn first_packet(client: &mut Arriving) -> Result<First, ClientError> {
    // At most one request for each kind of encryption.
    let (mut ssl, mut gss) = (true, true);
    loop {
        let length = |ahead: &[u8]| Ok(startup::length(ahead)?);
        let Some(packet) = client.next(length).await? else {
            return Ok(First::Nothing);
        };
        let early = match startup::packet(&packet)? {
            Packet::Ssl if std::mem::take(&mut ssl) => {
                "received unencrypted data after SSL request"
            }
            Packet::GssEnc if std::mem::take(&mut gss) => {
                "received unencrypted data after GSSAPI encryption request"
            }
            Packet::Ssl | Packet::GssEnc => {
                return Err(ClientError::Protocol("repeated encryption request"));
            }
            Packet::Cancel { process, key } => return Ok(First::Cancel { process, key }),
            Packet::Startup(startup) => return Ok(First::Startup(startup)),
        };
        client.write_all(b"N").await?;
        if !client.ahead.is_empty() {
            return Err(ClientError::Protocol(early));
        }
    }
}

/// Authenticates the user of a startup packet, up to and with AuthenticationOk. The end of it is left in `out`, to be sent
/// together with what follows, be that a welcome or an error. Returns what proves the user to servers.
///
/// # Errors
/// [`ClientError`]; nothing has been said of it to the client yet.
pub async fn log_in(
    client: &mut Arriving,
    startup: &Startup,
    authenticator: &Authenticator,
    out: &mut Vec<u8>,
) -> Result<Arc<Credentials>, ClientError> {
    if startup.needs_negotiation() {
        reply::negotiate(startup.negotiated(), startup.protocol_options.clone(), out);
    }
    let credentials = authenticator.credentials(&startup.user);
    match authenticator.method {
        Method::Trust if authenticator.trusts(&startup.user) => {}
        Method::Trust => return Err(ClientError::NotListed(startup.user.clone())),
        Method::Scram => {
            let verifier = authenticator.verifier(&startup.user).await;
            Box::pin(scram(client, startup, verifier, &credentials, out)).await?;
        }
    }
    reply::authentication(&Authentication::Ok, out);
    Ok(credentials)
}

async fn scram(
    arriving: &mut Arriving,
    startup: &Startup,
    verifier: Arc<Verifier>,
    credentials: &Credentials,
    out: &mut Vec<u8>,
) -> Result<(), ClientError> {
    let failed = |_: PgWireError| ClientError::Password(startup.user.clone());
    // The address is only for sources that look at it; ours does not.
    let client = DefaultClient::<()>::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), false);
    let mut mechanism = mechanism(verifier.clone()).create();
    let begun = mechanism.begin(&client).await.map_err(failed)?;
    put_step(begun, &startup.user, out)?;
    send(arriving, out).await?;
    let first = initial_response(&read_auth(arriving).await?)?;
    let client_first = first.data.clone().unwrap_or_default();
    let state = mechanism
        .next(&client, PasswordMessageFamily::SASLInitialResponse(first))
        .await
        .map_err(failed)?;
    let server_first = put_step(state, &startup.user, out)?;
    send(arriving, out).await?;
    let client_final = read_auth(arriving).await?;
    let answer = PasswordMessageFamily::SASLResponse(SASLResponse::new(client_final.clone()));
    let state = mechanism.next(&client, answer).await.map_err(failed)?;
    put_step(state, &startup.user, out)?;
    if !credentials.wants_keys() {
        return Ok(());
    }
    let key = recover_client_key(
        &verifier.stored_key,
        &client_first,
        &server_first,
        &client_final,
    )
    .ok_or_else(|| ClientError::Password(startup.user.clone()))?;
    credentials.reveal(Keys {
        client: key,
        server: verifier.server_key,
    });
    Ok(())
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
async fn send(client: &mut Arriving, out: &mut Vec<u8>) -> Result<(), ClientError> {
    // Not said again if that takes too long.
    client.write_all(&std::mem::take(out)).await?;
    Ok(())
}

/// The body of the next authentication message; nothing else is accepted now.
async fn read_auth(client: &mut Arriving) -> Result<Bytes, ClientError> {
    let length = |ahead: &[u8]| {
        let invalid = ClientError::Protocol("invalid message length during authentication");
        match frame::header(ahead, MAX_AUTH_BODY).map_err(|_| invalid)? {
            Some(header) if header.tag != b'p' => {
                Err(ClientError::Protocol("expected an authentication message"))
            }
            header => Ok(header.map(|header| header.total())),
        }
    };
    let mut message = client.next(length).await?.ok_or_else(left)?;
    message.advance(HEADER);
    Ok(message.freeze())
}

/// Opens a SASLInitialResponse. pgwire's own decoder panics on a body that is cut short, so it never sees one.
fn initial_response(body: &Bytes) -> Result<SASLInitialResponse, ClientError> {
    const MALFORMED: ClientError = ClientError::Protocol("malformed SASL response");
    let (mechanism, rest) = split_cstr(body).ok_or(MALFORMED)?;
    let (length, data) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
    let mechanism = std::str::from_utf8(mechanism).map_err(|_| MALFORMED)?;
    let data = match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => None,
        length if usize::try_from(length) == Ok(data.len()) => Some(body.slice_ref(data)),
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
            let got = initial_response(&Bytes::copy_from_slice(body))
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
