//! Lines that sessions write to the log.

use crate::link::Refusal;
use crate::server::ServerError;

/// A server connection ended while a client used it.
pub(super) fn server_lost(node: &str, cause: &str) {
    tracing::warn!(node, cause, "server connection lost");
}

/// A standby has refused what was taken for a read.
pub(super) fn learned(node: &str, refusal: &Refusal) {
    let reason = refusal.bounce.as_str();
    let function = refusal.function.as_deref();
    tracing::warn!(
        node,
        reason,
        function,
        "a standby has refused a statement that was taken for a read; statements of its shape go to the primary from now on"
    );
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
