//! Clients until they are logged in: listeners, the first packets, authentication.
//!
//! `client` knows who may come in. What a session then does is `relay`'s.

mod auth;
mod handshake;
mod listener;

pub use auth::{Authenticator, Method, UserSecret, Verifier};
pub use handshake::{Arriving, ClientError, First, first_packet, log_in};
pub use listener::{Listener, Peer};
