//! One node's answer to one probe, or its silence.

use std::time::Instant;

use super::{Lsn, Timeline};

/// What a node said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// The cluster's identity; all copies share it.
    pub system_id: u64,
    /// Start of the server process, in µs of its own clock. Only ever compared for equality.
    pub started: i64,
    /// The timeline: of a primary, the one that it writes; of a standby, the newest that it is known to follow, which
    /// takes rights that not every monitor user has.
    pub timeline: Option<Timeline>,
    /// A primary's insert position, normalised.
    pub insert: Option<Lsn>,
    /// A primary's flush position.
    pub flush: Option<Lsn>,
    /// A standby's replay position.
    pub replay: Option<Lsn>,
    /// A standby's receive position.
    pub receive: Option<Lsn>,
    /// Replay is paused on the standby.
    pub paused: bool,
}

/// Why a node did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nobody listens at the address, or the connection was closed: the process is gone.
    Gone,
    /// No answer in time: the node, or the way to it, is slow or cut.
    TimedOut,
    /// The server is starting up or shutting down (57P03).
    Starting,
    /// The server answers, but not to the monitor user: a matter of configuration.
    Rejected(String),
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Silence::Gone => "nobody listens, or the connection was closed",
            Silence::TimedOut => "no answer in time",
            Silence::Starting => "the server is starting up or shutting down",
            Silence::Rejected(why) => why,
        })
    }
}

/// One probe's outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Which node, by its place in the configuration.
    pub node: usize,
    /// When the question was sent. What the answer says was true at this time or later.
    pub sent: Instant,
    /// When the answer came, or was given up.
    pub received: Instant,
    /// The outcome.
    pub result: Result<Answer, Silence>,
}
