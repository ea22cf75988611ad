//! Streams: TCP or Unix, with the socket options that both legs want.
//!
//! `net` knows sockets and nothing of PostgreSQL.

mod stream;

pub use crate::config::Address;
pub use stream::{Stream, TcpOptions, connect, scratch};
