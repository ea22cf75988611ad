//! Streams: TCP or Unix, with the socket options that both legs want.
//!
//! `net` knows sockets and nothing of PostgreSQL.

mod stream;

pub use stream::{Address, Stream, connect, scratch};
