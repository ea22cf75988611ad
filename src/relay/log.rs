//! Lines that sessions write to the log.

use crate::server::ServerError;

/// A server connection ended while a client used it.
pub(super) fn server_lost(node: &str, cause: &str) {
    tracing::warn!(node, cause, "server connection lost");
}

/// Somebody tries keys for a session.
pub(super) fn keys_guessed(process: i32) {
    tracing::warn!(
        process,
        "too many cancel requests with a wrong key; the session takes none any more"
    );
}

/// A cancel request did not reach its server.
pub(super) fn cancel_failed(node: &str, error: &ServerError) {
    tracing::warn!(node, %error, "cancel request not delivered");
}
