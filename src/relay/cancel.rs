//! Cancel requests to servers, made the same way for a client that asks, a timeout, and a client that has left.

use std::future::Future;
use std::pin::Pin;

use super::{Node, Shared, log};
use crate::metrics::Metrics;
use crate::pool::Pooled;
use crate::server::{self, Server, ServerError};

/// A cancel request on its way; true once the server has closed its connection. While it is on its way, and for ever if it
/// ends with false, the server connection is not given to anybody else.
pub(super) type Cancelling = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Asks a node to cancel what one of its server connections runs. The outcome is counted and logged.
pub(super) fn cancel(shared: &Shared, node: &Node, server: &Server) -> Cancelling {
    let (address, tcp) = (node.endpoint.address.clone(), node.endpoint.tcp);
    let name = node.name.clone();
    let (process, key) = (server.process, server.key.clone());
    let (limit, metrics) = (shared.cancel_timeout, shared.metrics.clone());
    Box::pin(async move {
        let result = server::cancel(&address, tcp, process, &key, limit).await;
        told(&metrics, &name, result)
    })
}

/// The same for those who do not wait for the outcome: a client that has left, a timeout. A statement that is done, and
/// waits for a synchronous standby to have it, is left alone: cancelled, it would be seen by all and not be replicated.
///
/// The server alone knows what a write outside of a transaction block has come to, so it is asked, in the statement that
/// cancels. PostgreSQL manual, "Wait Events of Type IPC", monitoring-stats.html#WAIT-EVENT-IPC-TABLE.
pub(super) fn cancel_unless_done(shared: &Shared, node: &Node, server: &Pooled) -> Cancelling {
    cancel_unless_in(shared, node, server, "'syncrep'")
}

/// The same for one who asks again if nothing comes of it: a statement that may be about to wait for a standby is left alone
/// for now, too. While its commit is being written, a cancel would be kept for the wait and end that.
pub(super) fn cancel_unless_ending(shared: &Shared, node: &Node, server: &Pooled) -> Cancelling {
    cancel_unless_in(shared, node, server, "'syncrep', 'walsync', 'walwrite'")
}

/// `events` are the wait events, in small letters, as releases spell them differently.
fn cancel_unless_in(
    shared: &Shared,
    node: &Node,
    server: &Pooled,
    events: &'static str,
) -> Cancelling {
    if !server.link.may_commit() {
        return cancel(shared, node, server);
    }
    let (pool, process, limit) = (server.pool(), server.process, shared.cancel_timeout);
    let (name, metrics) = (node.name.clone(), shared.metrics.clone());
    // Whoever has the number of the process after it is younger than the connection. Clocks may differ a little.
    let age = server.opened.elapsed().mul_f64(0.99).as_secs();
    let age = age.saturating_sub(1);
    Box::pin(async move {
        let sql = format!(
            "SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity WHERE pid = {process} \
             AND backend_start <= pg_catalog.clock_timestamp() - interval '{age} s' \
             AND pg_catalog.lower(coalesce(wait_event, '')) NOT IN ({events})"
        );
        let ask = async {
            let mut aside = pool.aside().await?;
            server::query(&mut aside, &sql, limit).await.map(|_| ())
        };
        told(&metrics, &name, ask.await)
    })
}

/// Counts and logs what became of a cancel.
fn told(metrics: &Metrics, node: &str, result: Result<(), ServerError>) -> bool {
    let outcome = if result.is_ok() { "sent" } else { "failed" };
    metrics.cancel_requests.named(outcome).inc();
    if matches!(result, Err(ServerError::Timeout)) {
        metrics.timeouts.named("cancel").inc();
    }
    if let Err(error) = &result {
        log::cancel_failed(node, error);
    }
    result.is_ok()
}
