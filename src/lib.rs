//! pgweir: a proxy between applications and a PostgreSQL cluster.
//!
//! The rooms, and what each of them knows. Pure rooms turn values into values; IO rooms carry out what they say.
//! `tests/layers.rs` holds the table of who may import whom.

// ── pure rooms ──
pub mod auth;
pub mod cluster;
pub mod config;
pub mod console;
pub mod link;
pub mod route;
pub mod session;
pub mod sql;
pub mod wire;
// ── IO rooms ──
pub mod catalog;
pub mod client;
pub mod demo;
pub mod http;
pub mod metrics;
pub mod monitor;
pub mod net;
pub mod pool;
pub mod proxy;
pub mod relay;
pub mod server;
pub mod testbed;
