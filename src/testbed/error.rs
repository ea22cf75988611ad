//! What can go wrong in the room.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// A failure of the test bed: of the machine it runs on, of a server, or of a connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine has no usable PostgreSQL. The text says where it was sought and how to install it.
    #[error("no PostgreSQL server programs in {searched}\n{advice}")]
    NotInstalled {
        /// The places looked at.
        searched: String,
        /// How to install PostgreSQL here.
        advice: &'static str,
    },
    /// The PostgreSQL found is older than the room can drive.
    #[error("{bin} holds PostgreSQL {major}; the test bed needs {oldest} or newer")]
    TooOld {
        /// The directory of programs found.
        bin: PathBuf,
        /// Its major version.
        major: u32,
        /// The oldest major version that will do.
        oldest: u32,
    },
    /// We are root, which the servers refuse to be, and the account to run them under is missing.
    #[error(
        "running as root needs a user `{0}` to run the servers as; create it, or run as a plain user"
    )]
    NoAccount(&'static str),
    /// The caller asked for something the room cannot build.
    #[error("{0}")]
    BadRequest(String),
    /// A file or directory of the cluster could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A process could not be started, waited for or signalled.
    #[error("cannot {action}: {source}")]
    Process {
        /// What was tried.
        action: String,
        /// Why not.
        source: io::Error,
    },
    /// One of PostgreSQL's programs ended badly.
    #[error("{program} failed, {status}:\n{output}")]
    Program {
        /// Its name, such as `pg_basebackup`.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        output: String,
    },
    /// A server ended while it was starting.
    #[error("{node} did not start; the end of its log:\n{log}")]
    Start {
        /// The node's name.
        node: String,
        /// The last lines of its log.
        log: String,
    },
    /// The operation needs a running server.
    #[error("{0} is not running")]
    NotRunning(String),
    /// Something awaited did not come true in time.
    #[error("waited {limit:?} in vain for {what}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The other side closed the connection.
    #[error("the connection was closed by the other side")]
    Closed,
    /// The bytes received are no PostgreSQL message.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A message came that the caller did not ask for.
    #[error("expected {wanted}, received {received}")]
    Unexpected {
        /// What should have come.
        wanted: String,
        /// What came.
        received: String,
    },
    /// The server answered with an ErrorResponse.
    #[error("{0}")]
    Server(Box<ServerError>),
}

impl Error {
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    pub(super) fn process(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Process { action, source }
    }

    /// The SQLSTATE, if this is an ErrorResponse of the server.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(error.code()),
            _ => None,
        }
    }
}

/// An ErrorResponse or NoticeResponse, field by field.
///
/// PostgreSQL manual, "Error and Notice Message Fields", protocol-error-fields.html.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// Each field's type byte and text, in the order received.
    pub fields: Vec<(u8, String)>,
}

impl ServerError {
    /// The text of the field with this type byte, such as `b'H'` for the hint.
    pub fn field(&self, kind: u8) -> Option<&str> {
        self.fields
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, text)| text.as_str())
    }

    /// ERROR, FATAL or PANIC, never translated (field `V`).
    pub fn severity(&self) -> &str {
        self.field(b'V').unwrap_or_default()
    }

    /// The SQLSTATE, five characters (field `C`).
    pub fn code(&self) -> &str {
        self.field(b'C').unwrap_or_default()
    }

    /// The message for people (field `M`).
    pub fn message(&self) -> &str {
        self.field(b'M').unwrap_or_default()
    }
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.severity(), self.code(), self.message())
    }
}
