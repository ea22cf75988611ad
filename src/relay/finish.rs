//! The end of a session: what becomes of the server connection that it held.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::cancel::{cancel, cancel_unless_done, cancel_unless_ending};
use super::run::Held;
use super::{Cluster, Shared};
use crate::net::Stream;
use crate::pool::{Pooled, Setup};
use crate::server::{self, ServerError};
use crate::wire::Status;
use crate::wire::frontend::TERMINATE;

/// Bound for cleaning a connection whose client has left.
const CLEANING: Duration = Duration::from_secs(5);

/// How long what has been cancelled may take to end before it is cancelled again, twice as long each time: a server process
/// ignores a cancel that comes before it has begun with what it has been sent.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// What has not ended then goes on although it has been hit.
const LONGEST_PAUSE: Duration = Duration::from_millis(1600);
/// The same of a write outside of a transaction block, which may wait for a synchronous standby, and is asked about on a
/// connection of its own each time.
const LONGEST_PAUSE_OF_WRITES: Duration = Duration::from_millis(800);
/// The same where nothing is heard of the end. The server says so in its log when it is cancelled for nothing.
const PAUSES_UNSEEN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// How its client has left a connection.
#[derive(Clone, Copy)]
pub(super) struct Leaving {
    /// Something of the session is on it that only the end of the connection takes away.
    pub keeps_state: bool,
    /// In the middle of a message.
    pub mid_message: bool,
}

/// Gives a connection back, in a task of its own where that takes talking to the server. Whatever is not clean
/// afterwards is closed: the pool sees to that.
pub(super) fn finish(held: Held, shared: &Arc<Shared>, cluster: &Arc<Cluster>, leaving: Leaving) {
    let Held {
        mut server, node, ..
    } = held;
    let link = &server.link;
    // A COMMIT is left to its server: cancelled while it waits for a synchronous standby, it would be done and not
    // replicated.
    if !link.settled() && !link.fatal && !link.committing {
        // The client has left a running statement behind: nobody will read its result.
        let (shared, cluster) = (shared.clone(), cluster.clone());
        if !leaving.mid_message && server.unsent.is_empty() && link.owing.is_last_unit() {
            tokio::spawn(async move { end_last(server, &shared, &cluster, node).await });
        } else {
            tokio::spawn(async move { cut_off(server, &shared, &cluster, node).await });
        }
        return;
    }
    if leaving.keeps_state
        || !link.settled()
        || link.status != Status::Idle
        || !server.unsent.is_empty()
    {
        drop(server.into_closed());
        return;
    }
    if link.dirty || !link.stains.is_empty() {
        tokio::spawn(async move {
            match clean(&mut server).await {
                Ok(()) => drop(server),
                Err(_) => drop(server.into_closed()),
            }
        });
    }
}

/// Cancels what runs on a connection, behind which the server has nothing more to run, until the connection has ended.
async fn end_last(mut held: Pooled, shared: &Shared, cluster: &Cluster, node: usize) {
    if !says_terminate(&mut held.stream).await {
        return cut_off(held, shared, cluster, node).await;
    }
    // Its place is somebody else's then, whatever becomes of it.
    let _ = timeout(CLEANING, end(&mut held, shared, cluster, node)).await;
    drop(held.into_closed().map(|member| member.hang_up()));
}

async fn end(held: &mut Pooled, shared: &Shared, cluster: &Cluster, node: usize) {
    let longest = if held.link.may_commit() {
        LONGEST_PAUSE_OF_WRITES
    } else {
        LONGEST_PAUSE
    };
    let mut pause = FIRST_PAUSE;
    while pause <= longest {
        cancel_unless_ending(shared, &cluster.nodes[node], held).await;
        if timeout(pause, read_to_end(&mut held.stream)).await.is_ok() {
            return;
        }
        pause *= 2;
    }
}

/// Cancels what runs on a connection of which the server may have more than that, or only a part of a message. Its error
/// after the cancel cannot be written any more, and so it ends instead of going on.
async fn cut_off(held: Pooled, shared: &Shared, cluster: &Cluster, node: usize) {
    let node = &cluster.nodes[node];
    let cancelling = cancel_unless_done(shared, node, &held);
    // Nobody else could be hit: the key is that of the process. Where a statement of its own cancels, it is not asked for.
    let again = (!held.link.may_commit())
        .then(|| PAUSES_UNSEEN.map(|pause| (pause, cancel(shared, node, &held))));
    let slot = held.into_closed().map(|member| member.hang_up());
    cancelling.await;
    drop(slot);
    for (pause, cancelling) in again.into_iter().flatten() {
        sleep(pause).await;
        cancelling.await;
    }
}

/// Sends Terminate, which ends the server process when what it runs has ended. False if the socket takes nothing now.
async fn says_terminate(stream: &mut Stream) -> bool {
    let sent = poll_fn(|cx| Poll::Ready(stream.poll_write(cx, TERMINATE))).await;
    matches!(sent, Poll::Ready(Ok(n)) if n == TERMINATE.len())
}

/// Reads and forgets what comes until the server has closed its side.
async fn read_to_end(stream: &mut Stream) -> io::Result<()> {
    let mut nobody = [0; 4096];
    while stream.read(&mut nobody).await? > 0 {}
    Ok(())
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
