//! Where a statement goes: a class, a session's floor and a view make a decision.
//!
//! `route` is arithmetic over a [`View`](crate::cluster::View). It has never met a socket, and knows of a statement only
//! what kind of node it needs.

mod balance;
mod consistency;
mod decide;
mod policy;
#[cfg(test)]
mod tests;

pub use balance::{Affinity, first, least_busy};
pub use consistency::Floor;
pub use decide::{Decision, Need, Role, RouteReason, any_standby, decide};
pub use policy::{Ground, Policy};
