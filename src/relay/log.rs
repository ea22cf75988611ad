//! Lines that sessions write to the log.

use crate::link::Refusal;
use crate::server::ServerError;
use crate::sql::{Class, Explanation, Reason};

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

/// Whether somebody wants to read of each unit. All that it costs where nobody does.
#[inline]
pub(super) fn tells_units() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

/// A unit has been sent. `why` is the statement of it that decided, judged once more, and its text without literals.
pub(super) fn sent(node: &str, role: &str, class: Class, why: Option<(Explanation, String)>) {
    let (class, reason) = (class.access.as_str(), class.reason.as_str());
    let Some((explanation, statement)) = why else {
        tracing::debug!(node, role, class, reason, "sent");
        return;
    };
    let detail = if names_no_literal(explanation.class.reason) {
        explanation.detail.as_str()
    } else {
        ""
    };
    let place = explanation.place;
    let at = place.map_or_else(String::new, |at| format!("{}:{}", at.line, at.column));
    let chain = explanation.chain_text();
    tracing::debug!(
        node, role, class, reason, detail, at, chain, statement, "sent"
    );
}

/// Whether the details of such a finding are names, and not expressions, which may hold what nobody is to read in a log.
fn names_no_literal(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Function | Reason::Operator | Reason::Catalog | Reason::Locking
    )
}
