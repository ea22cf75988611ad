//! The proxy's logins to servers: trust, cleartext, MD5, SCRAM-SHA-256.

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use super::messages::Message;
use super::{Messages, ServerError};
use crate::auth::{ClientExchange, Keys, md5_response};
use crate::net::Stream;
use crate::wire::frame::put_header;

/// Who logs in where.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The server's user.
    pub user: &'a str,
    /// The database.
    pub database: &'a str,
    /// What proves the user.
    pub credentials: &'a Credentials,
    /// Further startup parameters.
    pub parameters: &'a [(&'a str, &'a str)],
}

/// What proves a user to servers.
#[derive(Clone)]
pub enum Secret {
    /// The password.
    Password(Arc<str>),
    /// The keys that the user's own login revealed; they fit servers with the same verifier.
    Keys(Keys),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One user's secret, and the keys derived from it: PBKDF2 runs once for a salt, not at every login.
#[derive(Debug, Default)]
pub struct Credentials {
    secret: Mutex<Option<Secret>>,
    derived: Mutex<Option<Derived>>,
}

#[derive(Clone, Debug)]
struct Derived {
    salt: Vec<u8>,
    iterations: u32,
    keys: Keys,
}

impl Credentials {
    /// Credentials of a user with this secret; with `None` only servers that trust let the user in.
    pub fn new(secret: Option<Secret>) -> Credentials {
        Credentials {
            secret: Mutex::new(secret),
            derived: Mutex::default(),
        }
    }

    /// A login has revealed keys; they are kept unless the password itself is known.
    pub fn reveal(&self, keys: Keys) {
        let mut secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*secret, Some(Secret::Password(_))) {
            *secret = Some(Secret::Keys(keys));
        }
    }

    /// Whether nothing is known yet that a login could reveal.
    pub fn wants_keys(&self) -> bool {
        self.secret
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    fn secret(&self) -> Option<Secret> {
        self.secret
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn password(&self, method: &'static str) -> Result<Arc<str>, ServerError> {
        match self.secret() {
            Some(Secret::Password(password)) => Ok(password),
            _ => Err(ServerError::NoSecret(method)),
        }
    }

    async fn keys(&self, exchange: &ClientExchange) -> Result<Keys, ServerError> {
        let password = match self.secret() {
            Some(Secret::Keys(keys)) => return Ok(keys),
            Some(Secret::Password(password)) => password,
            None => return Err(ServerError::NoSecret("a SCRAM-SHA-256 login")),
        };
        let (salt, iterations) = (exchange.salt.clone(), exchange.iterations);
        let known = self
            .derived
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(derived) = known.filter(|d| d.salt == salt && d.iterations == iterations.get())
        {
            return Ok(derived.keys);
        }
        let derive = move || {
            let keys = Keys::derive(&password, &salt, iterations);
            Derived {
                salt,
                iterations: iterations.get(),
                keys,
            }
        };
        let derived = tokio::task::spawn_blocking(derive)
            .await
            .map_err(|_| ServerError::Protocol("a challenge that could not be answered"))?;
        *self.derived.lock().unwrap_or_else(PoisonError::into_inner) = Some(derived.clone());
        Ok(derived.keys)
    }
}

/// Answers the server until AuthenticationOk.
pub(super) async fn authenticate(
    stream: &mut Stream,
    messages: &mut Messages,
    login: &Login<'_>,
) -> Result<(), ServerError> {
    let credentials = login.credentials;
    loop {
        let message = messages.next(stream).await?;
        if matches!(message.tag, b'N' | b'v') {
            continue;
        }
        let (code, body) = request(&message)?;
        match code {
            0 => return Ok(()),
            3 => send_password(stream, &credentials.password("a cleartext password")?).await?,
            5 => {
                let salt = body
                    .try_into()
                    .map_err(|_| ServerError::Protocol("a malformed MD5 salt"))?;
                let password = credentials.password("an MD5 password")?;
                send_password(stream, &md5_response(login.user, &password, salt)).await?;
            }
            10 => scram(stream, messages, body, credentials).await?,
            _ => {
                return Err(ServerError::Protocol(
                    "an authentication method that is not supported",
                ));
            }
        }
    }
}

fn request(message: &Message) -> Result<(i32, &[u8]), ServerError> {
    match message.body.split_first_chunk::<4>() {
        Some((code, body)) if message.tag == b'R' => Ok((i32::from_be_bytes(*code), body)),
        _ => Err(ServerError::Protocol(
            "something else than an authentication request",
        )),
    }
}

async fn send_password(stream: &mut Stream, text: &str) -> Result<(), ServerError> {
    let mut out = Vec::new();
    put_header(&mut out, b'p', text.len() + 1);
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    Ok(stream.write_all(&out).await?)
}

const MECHANISM: &[u8] = b"SCRAM-SHA-256";

async fn scram(
    stream: &mut Stream,
    messages: &mut Messages,
    mechanisms: &[u8],
    credentials: &Credentials,
) -> Result<(), ServerError> {
    if !mechanisms
        .split(|byte| *byte == 0)
        .any(|name| name == MECHANISM)
    {
        return Err(ServerError::Protocol("no SASL mechanism that is supported"));
    }
    let mut random = [0; 18];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| ServerError::Protocol("no random numbers to be had"))?;
    let mut exchange = ClientExchange::new(random);
    let first = exchange.first();
    let mut out = Vec::new();
    put_header(&mut out, b'p', MECHANISM.len() + 1 + 4 + first.len());
    out.extend_from_slice(MECHANISM);
    out.push(0);
    out.extend_from_slice(
        &u32::try_from(first.len())
            .expect("about 30 bytes")
            .to_be_bytes(),
    );
    out.extend_from_slice(first.as_bytes());
    stream.write_all(&out).await?;
    exchange.challenge(sasl(&messages.next(stream).await?, 11)?)?;
    let last = exchange.finish(&credentials.keys(&exchange).await?);
    out.clear();
    put_header(&mut out, b'p', last.len());
    out.extend_from_slice(last.as_bytes());
    stream.write_all(&out).await?;
    exchange.verify(sasl(&messages.next(stream).await?, 12)?)?;
    Ok(())
}

fn sasl(message: &Message, step: i32) -> Result<&[u8], ServerError> {
    match request(message)? {
        (code, body) if code == step => Ok(body),
        _ => Err(ServerError::Protocol("a SASL message out of order")),
    }
}
