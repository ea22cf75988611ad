//! The HTTP side: metrics for Prometheus, health for load balancers and orchestrators.
//!
//! It runs on a thread and a runtime of its own, so that a slow scrape never delays a session and
//! a busy proxy still answers its health checks. It does not know what it shows: all of it comes
//! through [`Status`].
//!
//! | path | answers |
//! |---|---|
//! | `/metrics` | every series, in Prometheus' text format 0.0.4 |
//! | `/livez` | 200 while the process runs |
//! | `/readyz` | 200 if writes have somewhere to go, else 503 and why not |
//! | `/readyz/read` | 200 if reads have somewhere to go, else 503 and why not |
//! | `/` | this list |
//!
//! There is no TLS and no password: nothing here is secret, and nothing can be changed. Still,
//! bind it to an address that only the operators reach.

mod route;
mod serve;

pub use route::Status;
pub use serve::{Error, Handle, serve};
