//! Server connections: connect, log in, learn what the server reports, ask small questions.
//!
//! `server` knows one connection to one node. Which node, and for whom, is decided elsewhere.

mod cancel;
mod connect;
mod login;
mod messages;
mod query;

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

pub use cancel::cancel;
pub use connect::{Endpoint, open};
pub use login::{Credentials, Login, Secret};
pub use messages::Messages;
pub use query::{Rows, apply, query};

use crate::link::Link;
use crate::net::Stream;
use crate::wire::SqlState;

/// A server connection, logged in and between statements when it is made.
#[derive(Debug)]
pub struct Server {
    /// Its socket.
    pub stream: Stream,
    /// What the protocol says of it.
    pub link: Link,
    /// Bytes for the server that the socket has not taken yet.
    pub unsent: BytesMut,
    /// Process id of the server process, for cancel requests.
    pub process: i32,
    /// Key for cancel requests.
    pub key: Vec<u8>,
    /// What the server reported when it let us in.
    pub reported: Arc<Reported>,
    /// When it was opened.
    pub opened: Instant,
}

/// ParameterStatus values in the order in which the server sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported(Vec<(String, String)>);

impl Reported {
    /// Notes a value.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// A value by its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Settings of a session in which another connection differs from this one, with the values of this one. What a server
    /// is, as its version, and who the session is are no such settings.
    pub fn differences<'a>(&'a self, other: &Reported) -> Vec<(&'a str, &'a str)> {
        let differs = |(name, value): &(&str, &str)| {
            SETTABLE.contains(name) && other.get(name).is_some_and(|other| other != *value)
        };
        self.iter().filter(differs).collect()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Reported settings that a startup packet can change. PostgreSQL manual, "Asynchronous Operations",
/// protocol-flow.html#PROTOCOL-ASYNC.
const SETTABLE: [&str; 7] = [
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
    "default_transaction_read_only",
    "search_path",
];

/// Why a node could not be used. Texts are for logs; what a client may see is [`ServerError::refusal`].
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address could not be reached.
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    /// Connect and login took longer than `timeouts.connect`, or a query longer than its deadline.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Io(#[from] std::io::Error),
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server said no, in its own words.
    #[error("the server refused: {} ({})", .0.message, .0.code)]
    Refused(Refusal),
    /// The server broke the protocol.
    #[error("protocol violation by the server: {0}")]
    Protocol(&'static str),
    /// The server wants a password, or a method, that the proxy does not have.
    #[error("the server asks for {0}, and there is no secret for it")]
    NoSecret(&'static str),
    /// The server's side of a SCRAM exchange is wrong.
    #[error(transparent)]
    Scram(#[from] crate::auth::ScramError),
}

/// An ErrorResponse of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE; empty if the server sent none.
    pub code: String,
    /// The message text.
    pub message: String,
    /// The whole body, to be passed on.
    pub body: Vec<u8>,
}

impl ServerError {
    /// The server's own refusal, when that is what happened.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            ServerError::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether another node might do better: the node is away, starting or stopping. A refusal of the login is
    /// nothing that another node would see otherwise.
    pub fn node_is_away(&self) -> bool {
        match self {
            ServerError::Connect(_)
            | ServerError::Timeout
            | ServerError::Io(_)
            | ServerError::Closed => true,
            ServerError::Refused(refusal) => {
                refusal.code.starts_with("57P")
                    || refusal.code == SqlState::TooManyConnections.code()
            }
            _ => false,
        }
    }
}
