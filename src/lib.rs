pub mod auth;
pub mod net;
pub mod wire;
