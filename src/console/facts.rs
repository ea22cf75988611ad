//! What the console asks of the proxy.

use std::time::Duration;

use crate::sql::{Explanation, ShapeReport};
use crate::wire::Notice;

/// The proxy as the console sees it.
pub trait Facts {
    /// Version of pgweir.
    fn version(&self) -> &str;
    /// Every node, in the order of the configuration.
    fn nodes(&self) -> Vec<NodeFact>;
    /// Statements by where they went and why, those that there were.
    fn routes(&self) -> Vec<RouteFact>;
    /// The pools that there are, by database and user.
    fn pools(&self) -> Vec<PoolFact>;
    /// The statements that took most time, at most so many.
    fn queries(&self, most: usize) -> Vec<ShapeReport>;
    /// What a statement is in each database that has clients, and where it would go now. A cluster without clients is told
    /// once, as if it had ordinary tables only.
    fn explain(&self, sql: &[u8]) -> Vec<Destination>;
    /// Applies the configuration as it is now. Returns the keys that wait for the next start.
    ///
    /// # Errors
    /// Why it is not applied.
    fn reload(&self) -> Result<Vec<String>, Notice>;
}

/// A node as it is judged now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFact {
    /// Its cluster.
    pub cluster: String,
    /// Its name.
    pub node: String,
    /// Where it is reached.
    pub address: String,
    /// What it is taken for.
    pub role: &'static str,
    /// Whether it is read as a standby.
    pub reads: bool,
    /// Its timeline, if known.
    pub timeline: Option<u32>,
    /// The primary's insert position, or a standby's replay position, if known.
    pub lsn: Option<String>,
    /// WAL that it has not replayed.
    pub lag_bytes: Option<u64>,
    /// How old its data are at most: what is held against `reads.max_lag`.
    pub lag: Option<Duration>,
    /// Replay is paused.
    pub paused: bool,
    /// Since the last answer to a probe.
    pub seen: Option<Duration>,
    /// Clients that use a connection of it, or wait for one.
    pub clients: u32,
    /// Statements that it was given as the primary, and as a standby.
    pub statements: [u64; 2],
}

/// How often a target was chosen for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteFact {
    /// `primary` or `standby`.
    pub target: &'static str,
    /// Why.
    pub reason: &'static str,
    /// How often.
    pub statements: u64,
}

/// The pools of a database and user, those of all nodes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolFact {
    /// The database.
    pub database: String,
    /// The user.
    pub user: String,
    /// Clients that do not wait for a server connection.
    pub clients: usize,
    /// Clients that do.
    pub waiting: usize,
    /// Server connections in use, or being opened.
    pub active: usize,
    /// Server connections that wait for a client.
    pub idle: usize,
    /// For how long the client waits that has waited for longest.
    pub longest_wait: Duration,
    /// The pooling mode.
    pub mode: &'static str,
}

/// Where a statement would go now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The cluster.
    pub cluster: String,
    /// The database there, whose views, functions and the like the verdict rests on.
    pub database: Option<String>,
    /// What the statement is there.
    pub explanation: Explanation,
    /// The node; `None` if none can take it.
    pub node: Option<String>,
    /// The role in which it would be taken.
    pub role: Option<&'static str>,
    /// Why it would be taken, or none.
    pub route: &'static str,
}
