//! Real, throw-away PostgreSQL clusters: one primary and its standbys on loopback, made with `initdb`
//! and `pg_basebackup`, and a raw protocol client to talk to them (or to a proxy before them).
//!
//! ```no_run
//! use pgweir::testbed::Cluster;
//!
//! let cluster = Cluster::builder().standbys(2).setting("log_statement", "all").start()?;
//! cluster.primary().execute("CREATE TABLE t (n int)")?;
//! cluster.wait_caught_up()?;
//! cluster.standbys()[0].promote()?;
//! # Ok::<(), pgweir::testbed::Error>(())
//! ```
//!
//! **Nothing is left behind.** Dropping the [`Cluster`] ends the servers and removes their directory. If
//! this process dies first, by whatever signal, guardians do it instead: see the module `guardian` for
//! how.
//!
//! **Who may connect.** The servers listen on 127.0.0.1 only, and unless [`Builder::hba`] says otherwise
//! they trust every local user, as superuser too. The room is for tests and demonstrations on a
//! machine whose users trust each other.
//!
//! The room blocks: processes and sockets of the standard library, no runtime. It imports no other room,
//! so that what it says of a server owes nothing to the code under test. It does not know TLS.

mod account;
mod cluster;
mod error;
mod guardian;
mod install;
mod lsn;
mod node;
mod process;
pub mod request;
mod site;
mod wait;
pub mod wire;

#[cfg(test)]
mod tests;

pub use cluster::{Builder, Cluster};
pub use error::{Error, ServerError};
pub use node::{Mode, Node};
pub use wait::wait_for;
pub use wire::{Address, BackendKey, Message, ProtocolVersion, RawClient, Rows};
