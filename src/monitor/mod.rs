//! Asks every node, all the time, on a connection of its own; less often while no client sends anything.
//!
//! `monitor` carries questions and answers; what they mean is `cluster`'s. One task for each node, one judge for each
//! cluster.

mod poll;
mod probe;
mod traffic;

pub use poll::{FAILURES, Monitor, Watched, watch};
pub use probe::Probe;
pub use traffic::Traffic;
