//! Asks every node, all the time, on a connection of its own.
//!
//! `monitor` carries questions and answers; what they mean is `cluster`'s. One task for each node, one judge for each
//! cluster.

mod poll;
mod probe;

pub use poll::{FAILURES, Monitor, Watched, watch};
pub use probe::Probe;
