//! Sessions on the wire: one task per client, which owns both sockets while it holds a server connection.
//!
//! `relay` moves bytes and carries out what `session` says: check out, forward, release, cancel. It decides nothing about
//! statements. No channel, no second task and no lock stands between the two sockets.

mod answer;
mod bounce;
mod calls;
mod cancel;
mod cluster;
mod compose;
mod ears;
mod finish;
pub mod key;
mod listen;
mod log;
mod mailbox;
mod pins;
mod place;
mod pools;
mod registry;
mod replication;
mod run;
mod timeouts;
mod unit;
mod welcome;

use std::sync::Arc;
use std::time::Duration;

pub use cluster::{Cluster, Node};
pub use pools::{Mode, PoolSet, Template};
pub use registry::{NoRandomness, Registry, Seat, Slot};
pub use replication::Replication;
pub use run::Relay;
pub use timeouts::{SessionTimeouts, sweep, watch_own};
pub use unit::{need, reasons};
pub use welcome::{Unwelcome, Welcome, no_node, refused, welcome};

use crate::link::Statements;
use crate::metrics::Metrics;
use crate::pool::CheckoutError;
use crate::session::Context;
use crate::sql::Classifier;
use crate::sql::catalog::Catalog;

/// What all sessions of the process share.
#[derive(Debug)]
pub struct Shared {
    /// Statement text to class.
    pub classifier: Classifier,
    /// Prepared statements by content.
    pub statements: Statements,
    /// Who is connected; cancel requests and the shutdown go through it.
    pub registry: Arc<Registry>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Bytes of a group that are held before its place is chosen.
    pub pipeline_buffer: usize,
    /// Largest message of a client.
    pub max_message: usize,
    /// How long a cancel request to a server may take.
    pub cancel_timeout: Duration,
}

impl Shared {
    /// Counts a checkout that failed, if its bound was reached.
    pub fn count_checkout(&self, error: &CheckoutError) {
        if matches!(error, CheckoutError::Timeout(_)) {
            self.metrics.checkout_timeouts.inc();
        }
    }

    fn context<'a>(&'a self, catalog: &'a Catalog) -> Context<'a> {
        Context {
            catalog,
            classifier: &self.classifier,
            statements: &self.statements,
            pipeline_buffer: self.pipeline_buffer,
            max_message: self.max_message,
        }
    }
}
