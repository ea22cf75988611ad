//! The console: a database without a server, in which an operator asks the proxy about itself.
//!
//! `console` is pure: bytes of a client in, bytes for it out, and what it tells is asked of [`Facts`], which the proxy
//! implements. Nothing of it goes to a node, a pool or another session, so it answers also while there is no cluster. It
//! has never met a socket, a clock or a configuration.
//!
//! Both protocols are spoken, simple and extended, with results as text or binary: whatever runs a query against
//! PostgreSQL can run SHOW here. Commands, and what PgBouncer has of them, are a table: [`COMMANDS`].

mod command;
mod facts;
mod session;
mod show;
#[cfg(test)]
mod tests;

pub use command::{COMMANDS, Command};
pub use facts::{Destination, Facts, NodeFact, PoolFact, RouteFact};
pub use session::{Console, MAX_MESSAGE, Turn};

use crate::wire::reply;

/// Names of the database: its own, and the one that tools for PgBouncer ask for.
pub const DATABASES: [&str; 2] = ["pgweir", "pgbouncer"];

/// Whether a database is the console.
pub fn is_console(database: &str) -> bool {
    DATABASES.contains(&database)
}

/// Appends what a client is told at login: that it speaks to PgBouncer's console or its like, which tools know by the
/// version, and what drivers ask of any server.
pub fn put_welcome(version: &str, out: &mut Vec<u8>) {
    let version = format!("{version}/bouncer");
    for (name, value) in [
        ("server_version", version.as_str()),
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "GMT"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "on"),
        ("in_hot_standby", "off"),
        ("default_transaction_read_only", "off"),
    ] {
        reply::parameter_status(name, value, out);
    }
}
