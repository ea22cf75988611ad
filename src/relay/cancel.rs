//! Cancel requests to servers, made the same way for a client that asks, a timeout, and a client that has left.

use std::future::Future;
use std::pin::Pin;

use super::{Node, Shared, log};
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
        let outcome = if result.is_ok() { "sent" } else { "failed" };
        metrics.cancel_requests.named(outcome).inc();
        if matches!(result, Err(ServerError::Timeout)) {
            metrics.timeouts.named("cancel").inc();
        }
        if let Err(error) = &result {
            log::cancel_failed(&name, error);
        }
        result.is_ok()
    })
}
