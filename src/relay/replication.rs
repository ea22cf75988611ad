//! Replication connections: one client, one connection to the primary that nobody else has, and every byte as it is.
//!
//! PostgreSQL manual, "Streaming Replication Protocol", protocol-replication.html. What runs there is not looked at: a
//! walsender speaks of positions and slots, not of transactions, so it can neither be pooled nor moved.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};

use super::cancel::{self, Cancelling};
use super::{Cluster, Seat, Shared};
use crate::net::{Stream, scratch};
use crate::server::Server;

/// Bytes that one side may be ahead of the other.
const MAX_AHEAD: usize = 64 * 1024;

/// A client's replication connection.
pub struct Replication {
    shared: Arc<Shared>,
    slot: Seat,
    client: Stream,
    server: Box<Server>,
    cluster: Arc<Cluster>,
    /// The node that the server connection is to.
    node: usize,
    to_client: BytesMut,
    to_server: BytesMut,
    cancelling: Option<Cancelling>,
}

/// One side has ended.
struct Ended;

impl Replication {
    /// A client that has logged in, and its connection to the primary.
    pub fn new(
        shared: Arc<Shared>,
        slot: Seat,
        (client, to_server): (Stream, BytesMut),
        server: Box<Server>,
        cluster: Arc<Cluster>,
        node: usize,
    ) -> Replication {
        shared
            .metrics
            .client_received_bytes
            .inc_by(to_server.len() as u64);
        Replication {
            shared,
            slot,
            client,
            server,
            cluster,
            node,
            to_client: BytesMut::new(),
            to_server,
            cancelling: None,
        }
    }

    /// Passes bytes on until one side ends, or the proxy stops.
    pub async fn run(mut self) {
        std::future::poll_fn(|cx| self.turn(cx)).await;
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.slot.waker.register(cx.waker());
        // A stream of WAL has no end to wait for.
        if self.slot.draining() {
            return Poll::Ready(());
        }
        self.cancel(cx);
        let sent = &self.shared.metrics.client_sent_bytes;
        let received = &self.shared.metrics.client_received_bytes;
        let down = pump(
            cx,
            &mut self.server.stream,
            &mut self.to_client,
            &mut self.client,
            |n| sent.inc_by(n),
        );
        let up = pump(
            cx,
            &mut self.client,
            &mut self.to_server,
            &mut self.server.stream,
            |n| received.inc_by(n),
        );
        match (down, up) {
            (Ok(()), Ok(())) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// A cancel request goes to the walsender, as to any other server process.
    fn cancel(&mut self, cx: &mut Context<'_>) {
        if self.slot.take_cancel() && self.cancelling.is_none() {
            let node = &self.cluster.nodes[self.node];
            self.cancelling = Some(cancel::cancel(&self.shared, node, &self.server));
        }
        if let Some(cancelling) = &mut self.cancelling
            && cancelling.as_mut().poll(cx).is_ready()
        {
            self.cancelling = None;
        }
    }
}

/// Moves what can be moved in one direction. `ahead` is what `to` has not taken yet.
fn pump(
    cx: &mut Context<'_>,
    from: &mut Stream,
    ahead: &mut BytesMut,
    to: &mut Stream,
    count: impl Fn(u64),
) -> Result<(), Ended> {
    loop {
        write(cx, ahead, to)?;
        if ahead.len() >= MAX_AHEAD {
            return Ok(());
        }
        let read = scratch(|buffer| {
            let room = MAX_AHEAD.min(buffer.len());
            let read = progress(from.poll_read(cx, &mut buffer[..room]))?;
            ahead.extend_from_slice(&buffer[..read.unwrap_or(0)]);
            Ok(read)
        });
        match read {
            Ok(Some(n)) => count(n as u64),
            Ok(None) => return Ok(()),
            Err(ended) => {
                // What has come before the end is still passed on, as far as the other side takes it at once.
                write(cx, ahead, to)?;
                return Err(ended);
            }
        }
    }
}

/// Writes what `to` takes now.
fn write(cx: &mut Context<'_>, ahead: &mut BytesMut, to: &mut Stream) -> Result<(), Ended> {
    while !ahead.is_empty() {
        match progress(to.poll_write(cx, ahead))? {
            Some(n) => ahead.advance(n),
            None => break,
        }
    }
    Ok(())
}

/// How many bytes have moved; `None` while the socket has to be waited for.
fn progress(polled: Poll<io::Result<usize>>) -> Result<Option<usize>, Ended> {
    match polled {
        Poll::Pending => Ok(None),
        Poll::Ready(Ok(n)) if n > 0 => Ok(Some(n)),
        Poll::Ready(_) => Err(Ended),
    }
}
