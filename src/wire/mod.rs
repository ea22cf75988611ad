//! PostgreSQL's protocol 3.x: bytes to values and back.
//!
//! `wire` knows layouts, lengths and bounds. It has never met a socket, a session or a node. Messages that pass through
//! the proxy are only measured ([`frame`]); the few that steer it are opened by borrowing from their bytes
//! ([`frontend`], [`backend`]); what the proxy says itself is built with pgwire's message types ([`reply`]).

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod reply;
pub mod rows;
pub mod sqlstate;
pub mod startup;

pub use frame::{FrameError, Header};
pub use reply::{ClientFacing, Notice, Severity};
pub use sqlstate::SqlState;

/// The transaction status of a ReadyForQuery message.
///
/// PostgreSQL manual, "Message Formats", protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-READYFORQUERY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// `I`: no transaction block is open.
    #[default]
    Idle,
    /// `T`: inside a transaction block.
    Transaction,
    /// `E`: inside a transaction block that has failed.
    Failed,
}

impl Status {
    /// The status for the byte that a server sent; `None` for a byte that the protocol does not know.
    pub fn from_byte(byte: u8) -> Option<Status> {
        match byte {
            b'I' => Some(Status::Idle),
            b'T' => Some(Status::Transaction),
            b'E' => Some(Status::Failed),
            _ => None,
        }
    }
}
