//! The end of a session: what becomes of the server connection that it held.

use std::time::Duration;

use super::cancel::cancel;
use super::{Node, Shared};
use crate::pool::Pooled;
use crate::server;
use crate::wire::Status;

/// Bound for cleaning a connection whose client has left.
const CLEANING: Duration = Duration::from_secs(5);

/// Gives a connection back, in a task of its own where that takes talking to the server. Whatever is not clean
/// afterwards is closed: the pool sees to that.
pub(super) fn finish(mut held: Pooled, shared: &Shared, node: &Node, keep_state: bool) {
    // A COMMIT is left to its server: cancelled while it waits for a synchronous standby, it would be done and not
    // replicated.
    if !held.link.settled() && !held.link.fatal && !held.link.committing {
        // The client has left a running statement behind: nobody will read its result.
        let cancelling = cancel(shared, node, &held);
        tokio::spawn(async move {
            // It is closed in any case.
            cancelling.await;
            drop(held.into_closed());
        });
        return;
    }
    if keep_state
        || !held.link.settled()
        || held.link.status != Status::Idle
        || !held.unsent.is_empty()
    {
        drop(held.into_closed());
        return;
    }
    if held.link.dirty {
        tokio::spawn(async move {
            match server::query(&mut held, "DISCARD ALL", CLEANING).await {
                Ok(_) => {
                    held.link.discarded();
                    drop(held);
                }
                Err(_) => drop(held.into_closed()),
            }
        });
    }
}
