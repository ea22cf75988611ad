//! The end of a session: what becomes of the server connection that it held.

use std::time::Duration;

use super::cancel::cancel_unless_done;
use super::{Node, Shared};
use crate::pool::{Pooled, Setup};
use crate::server::{self, ServerError};
use crate::wire::Status;

/// Bound for cleaning a connection whose client has left.
const CLEANING: Duration = Duration::from_secs(5);

/// Gives a connection back, in a task of its own where that takes talking to the server. Whatever is not clean
/// afterwards is closed: the pool sees to that.
pub(super) fn finish(mut held: Pooled, shared: &Shared, node: &Node, keep_state: bool) {
    // A COMMIT is left to its server: cancelled while it waits for a synchronous standby, it would be done and not
    // replicated.
    if !held.link.settled() && !held.link.fatal && !held.link.committing {
        // The client has left a running statement behind: nobody will read its result. The server may have more of a
        // pipeline already. Its error after the cancel cannot be written any more, and so it ends instead of going on.
        let cancelling = cancel_unless_done(shared, node, &held);
        let slot = held.into_closed().map(|member| member.hang_up());
        tokio::spawn(async move {
            cancelling.await;
            drop(slot);
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
    if held.link.dirty || !held.link.stains.is_empty() {
        tokio::spawn(async move {
            match clean(&mut held).await {
                Ok(()) => drop(held),
                Err(_) => drop(held.into_closed()),
            }
        });
    }
}

/// DISCARD ALL, with the operator's own SQL before and behind it.
async fn clean(held: &mut Pooled) -> Result<(), ServerError> {
    let Setup {
        reset_query,
        connect_query,
        ..
    } = held.setup().clone();
    if let Some(sql) = reset_query {
        server::query(held, &sql, CLEANING).await?;
    }
    server::query(held, "DISCARD ALL", CLEANING).await?;
    held.link.discarded();
    if let Some(sql) = connect_query {
        server::query(held, &sql, CLEANING).await?;
    }
    Ok(())
}
