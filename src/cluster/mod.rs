//! Who is primary, and how far behind each standby is.
//!
//! `cluster` turns answers of nodes into a picture. It has never met a socket or a clock: what a node said, and when it
//! was asked, is passed in.

mod judge;
mod lag;
mod lsn;
mod observation;
#[cfg(test)]
mod tests;
mod view;

pub use judge::{Event, Judge, Policy};
pub use lag::{Lag, Ring, Sample};
pub use lsn::{Lsn, ParseLsnError, Position, Timeline, timeline_of_wal_file};
pub use observation::{Answer, Observation, Silence};
pub use view::{NodeState, NodeView, Readable, View};
