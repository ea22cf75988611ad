//! The task of one client.
//!
//! [`Relay::turn`] is called whenever one of the two sockets, or something that the session waits for, has news. It goes
//! round until nothing moves: server bytes to the client, client bytes to the server, in both directions
//! independently, so that neither side can block the other. Bytes are read into the thread's buffer and written from
//! there; what a socket does not take is kept, and then its other side is not read any more.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};

use super::bounce::Detour;
use super::calls::Calls;
use super::cancel::{self, Cancelling};
use super::compose::compose;
use super::ears::Ears;
use super::finish::{Leaving, finish};
use super::log;
use super::place::no_transactions;
use super::pools::Mode;
use super::unit::{self, Unit, Waiting};
use super::{Node, PoolSet, Seat, Shared};
use crate::cluster::NodeState;
use crate::link::Owed;
use crate::net::{Stream, scratch};
use crate::pool::{Pool, Pooled, Setup};
use crate::route::Role;
use crate::session::{LinkError, MOST_NEW, Next, OVERDUE, Session};
use crate::sql::catalog::{Catalog, Change};
use crate::sql::{self, Class, Pins, Reason, TxEffect};
use crate::wire::frame::HEADER;
use crate::wire::{ClientFacing, Notice, Severity, SqlState, Status, frontend};

/// Replies of the proxy's own that a client may leave unread before its messages are no longer read.
const MAX_OUTPUT: usize = 64 * 1024;

/// What is read of a client, beyond its unit, while it waits for a server connection: it is read at all so that its end is
/// noticed, and it leaves the queue.
const MAX_AHEAD: usize = 64 * 1024;

/// Units of one client that are dealt with before others have their turn: some 10 µs each.
const MOST_UNITS: u8 = 64;

/// How long a client may take to read its last message.
const LINGER: Duration = Duration::from_secs(5);

/// A server connection in use.
pub(super) struct Held {
    pub(super) server: Pooled,
    pub(super) node: usize,
    /// The node was a standby when the connection was taken.
    pub(super) standby: bool,
}

type Timer = Pin<Box<tokio::time::Sleep>>;

/// One client and, while it needs one, its server connection. It is a future, which is the session to its end: an
/// async function would hold it twice, as what it was given and as what it runs on.
pub struct Relay {
    pub(super) shared: Arc<Shared>,
    pub(super) pools: Present,
    pub(super) slot: Seat,
    pub(super) client: Stream,
    pub(super) session: Session,
    pub(super) held: Option<Held>,
    /// Session pooling: the connection on the primary, while a read uses one on a standby.
    pub(super) home: Option<Box<Held>>,
    /// Client bytes that cannot be dealt with yet.
    pub(super) input: BytesMut,
    /// Bytes that the client has not taken yet.
    pub(super) output: BytesMut,
    pub(super) waiting: Option<Box<Waiting>>,
    /// Where it waited the last time: who waits once does so again, as long as there are more clients than connections.
    pub(super) waited: Option<Box<Waiting>>,
    /// `held` was taken for this unit, which has not been sent yet.
    pub(super) placed: Option<Unit>,
    /// What the session hears by LISTEN.
    pub(super) ears: Option<Box<Ears>>,
    pub(super) cancelling: Option<Cancelling>,
    pub(super) ending: Option<Timer>,
    /// The units that are on their way, to be counted.
    pub(super) calls: Calls,
    /// The unit in front has been refused by a standby.
    pub(super) detour: Detour,
    pub(super) flags: Flags,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// The client's bytes wait until `held` owes nothing.
    pub(super) draining_link: bool,
    /// The client has said goodbye; what it sent before is still carried out.
    pub(super) goodbye: bool,
    /// The input has not been looked at since something changed.
    pub(super) recheck: bool,
    /// Others have their turn before the rest of the input.
    pub(super) yields: bool,
    /// How many units have been dealt with in this turn.
    pub(super) units: u8,
    /// How many texts the thread had parsed before it.
    pub(super) parsed: u64,
    /// A write to the server has failed, and it is heard what it has said before that.
    pub(super) cut: bool,
    /// A server has refused the session's settings for the unit at the front of the input.
    pub(super) refused: bool,
    /// The statement that runs has been cancelled because it takes too long.
    pub(super) timed_out: bool,
    /// The client has taken some of its output since the phase was noted.
    pub(super) read_by_client: bool,
    /// A statement has ended since the phase was noted.
    pub(super) ended: bool,
    /// A transaction has ended since the phase was noted.
    pub(super) idle: bool,
    /// What runs has been cancelled.
    pub(super) cancelled: bool,
    /// Another cancel follows the one that is on its way.
    pub(super) cancel_again: bool,
    /// The pins that have been counted.
    pub(super) pins: Pins,
    /// Since when its connection has been kept for its sequences has been noted.
    pub(super) pin_noted: bool,
    /// The session's own bound on idleness that is watched; 0 if there is none.
    pub(super) idle_limit: u32,
}

/// What goes before the bytes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Nothing: they belong to what is there.
    No,
    /// The session's settings.
    Settings,
    /// No settings but the connection's own.
    Bare,
}

/// The session is over.
pub(super) enum End {
    /// The client has left, or cannot be written to.
    Gone,
    /// The client is told why, then closed.
    Told(Notice),
    /// The client has been told why.
    Said,
    /// Nothing can be said to the client any more: a message has been cut off.
    Cut,
}

/// The pools that a session uses, which count it as long as it does.
pub(super) struct Present(Arc<PoolSet>);

impl std::ops::Deref for Present {
    type Target = Arc<PoolSet>;

    #[inline]
    fn deref(&self) -> &Arc<PoolSet> {
        &self.0
    }
}

impl Present {
    fn new(pools: &Arc<PoolSet>) -> Present {
        pools.sessions.fetch_add(1, Ordering::Relaxed);
        Present(pools.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Relay {
    /// A session that has logged in. `client` is its socket and what it has sent already; `home` is its connection on the
    /// primary, in session pooling.
    pub fn new(
        shared: Arc<Shared>,
        pools: Arc<PoolSet>,
        slot: Seat,
        (client, input): (Stream, BytesMut),
        session: Session,
        home: Option<(Pooled, usize)>,
    ) -> Relay {
        let idle_limit = session.idle_limit();
        slot.bound_by(pools.timeouts.with_idle_limit(idle_limit));
        if !input.is_empty() {
            shared
                .metrics
                .client_received_bytes
                .inc_by(input.len() as u64);
            pools.cluster.traffic.note();
        }
        Relay {
            shared,
            pools: Present::new(&pools),
            slot,
            client,
            session,
            held: home.map(|(server, node)| Held {
                server,
                node,
                standby: false,
            }),
            home: None,
            input,
            output: BytesMut::new(),
            waiting: None,
            waited: None,
            placed: None,
            ears: None,
            cancelling: None,
            ending: None,
            calls: Calls::default(),
            detour: Detour::default(),
            flags: Flags {
                idle_limit,
                recheck: true,
                ..Flags::default()
            },
        }
    }

    /// What becomes of the server connections when the client has gone, or has to go.
    pub(super) fn abandon(&mut self) {
        self.ears = None;
        self.note_pins_ended(self.flags.pins);
        self.flags.pins = Pins::NONE;
        // A group whose Sync has not come is a transaction that only the end of its connection rolls back.
        let leaving = Leaving {
            keeps_state: self.session.is_bound() || self.session.mid_unit(),
            mid_message: self.session.mid_message(),
        };
        let cancelling = self.cancelling.is_some();
        for mut held in self
            .held
            .take()
            .into_iter()
            .chain(self.home.take().map(|home| *home))
        {
            // In session pooling whatever the client did is still on the connection.
            held.server.link.dirty |= self.pools.mode == Mode::Session;
            held.server.link.doubtful |= cancelling;
            finish(held, &self.shared, &self.pools.cluster, leaving);
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ending.is_some() {
            return self.linger(cx);
        }
        self.slot.waker.register(cx.waker());
        if self.pools.successor().is_some() {
            self.follow();
        }
        self.prick_ears(cx);
        (self.flags.yields, self.flags.units) = (false, 0);
        self.flags.parsed = sql::parsed_here();
        loop {
            match self.step(cx) {
                Ok(_) if self.flags.yields => {
                    self.note_phase();
                    // It is woken behind the tasks that are ready, and behind a look at the sockets of all.
                    let _ = pin!(tokio::task::yield_now()).poll(cx);
                    return Poll::Pending;
                }
                Ok(true) => {}
                Ok(false) => {
                    self.note_phase();
                    return Poll::Pending;
                }
                Err(End::Gone | End::Cut) => return Poll::Ready(()),
                Err(end @ (End::Told(_) | End::Said)) => {
                    if let End::Told(notice) = &end {
                        self.tell(notice);
                    }
                    // Nobody is to wait for it, and it waits for nobody.
                    self.ears = None;
                    self.waiting = None;
                    self.ending = Some(Box::pin(tokio::time::sleep(LINGER)));
                    return self.linger(cx);
                }
            }
        }
    }

    /// Goes on with the pools that were configured in place of its own, if nothing of the session is with those.
    fn follow(&mut self) {
        let is_free = self.is_quiet()
            && self.is_at_rest()
            && self.home.is_none()
            && self.placed.is_none()
            && self.cancelling.is_none()
            && self.ears.is_none();
        if !is_free {
            return;
        }
        while let Some(next) = self.pools.successor().cloned() {
            self.pools = Present::new(&next);
        }
        self.session.follow_sequences(&self.pools.sequences);
        self.note_bounds();
    }

    /// Writes what the client is still to read, for a bounded time.
    pub(super) fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timer) = &mut self.ending
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(());
        }
        match self.flush_client(cx) {
            Ok(_) if !self.output.is_empty() => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// One round; true if there may be more to do, or a socket must be asked again so that it wakes the task.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut again = self.signals()?;
        again |= self.poll_waiting(cx)?;
        again |= self.poll_cancelling(cx)?;
        again |= self.flush_client(cx)?;
        let served = self.pump_server(cx)?;
        again |= self.poll_ears(cx)?;
        again |= self.pump_client(cx)?;
        Ok(again || (served && !self.is_at_rest()))
    }

    /// Whether nothing but news from the client can move the session.
    fn is_at_rest(&self) -> bool {
        self.held.is_none()
            && self.waiting.is_none()
            && self.output.is_empty()
            && !self.slot.draining()
    }

    // ── signals ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn signals(&mut self) -> Result<bool, End> {
        if self.slot.take_cancel() {
            self.cancel();
            return Ok(true);
        }
        if self.slot.take_expired() {
            self.expire()?;
            return Ok(true);
        }
        if self.slot.draining() && self.is_quiet() {
            return Err(End::Told(shutting_down()));
        }
        Ok(false)
    }

    /// Whether the session is between transactions, with nothing on its way.
    fn is_quiet(&self) -> bool {
        self.waiting.is_none()
            && self.input.is_empty()
            && !self.session.mid_unit()
            && !self.session.is_in_unsent_block()
            && self.held.as_ref().is_none_or(|held| {
                held.server.link.status == Status::Idle && !held.server.link.owing.owes_client()
            })
    }

    /// A cancel request has come: for a statement that waits, for one that runs, or too late.
    pub(super) fn cancel(&mut self) {
        if self.waiting.take().is_some() || self.stop_listening() {
            self.reject_front(&self.cancelled());
            return;
        }
        self.cancel_running(|shared, node, server| cancel::cancel(shared, node, server));
    }

    /// What a client hears whose statement has been cancelled before a server could say so.
    pub(super) fn cancelled(&self) -> Notice {
        let error = |text| Notice::error(SqlState::QueryCanceled, text);
        if self.flags.timed_out {
            let [text, hint] = OVERDUE;
            return error(text).hint(hint);
        }
        error("canceling statement due to user request")
    }

    /// Has what runs cancelled, in this way, unless that is being done or nothing runs.
    pub(super) fn cancel_running(&mut self, how: fn(&Shared, &Node, &Pooled) -> Cancelling) {
        let Some(held) = &self.held else { return };
        if self.cancelling.is_some() || !held.server.link.owing.owes_client() {
            return;
        }
        let node = &self.pools.cluster.nodes[held.node];
        self.flags.cancelled = true;
        self.cancelling = Some(how(&self.shared, node, &held.server));
    }

    /// A cancel is still on its way, and what it was for has ended: also in a transaction the next statement waits until it
    /// has arrived, or it would be the one that is hit.
    fn awaits_cancel(&self) -> bool {
        self.cancelling.is_some()
            && self
                .held
                .as_ref()
                .is_some_and(|held| !held.server.link.owing.owes_client())
    }

    /// While a cancel is on its way the server connection is not given to anybody else.
    #[inline]
    fn poll_cancelling(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        match &self.cancelling {
            Some(_) => self.poll_cancel(cx),
            None => Ok(false),
        }
    }

    #[cold]
    fn poll_cancel(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Some(cancelling) = &mut self.cancelling else {
            return Ok(false);
        };
        let Poll::Ready(delivered) = cancelling.as_mut().poll(cx) else {
            return Ok(false);
        };
        self.cancelling = None;
        self.flags.recheck = true;
        let again = std::mem::take(&mut self.flags.cancel_again);
        if let Some(held) = &mut self.held {
            held.server.link.doubtful |= !delivered;
        }
        if again {
            self.cancel();
        }
        self.release()?;
        Ok(true)
    }

    // ── server to client ─────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn flush_client(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.output.is_empty() {
            match self.client.poll_write(cx, &self.output) {
                Poll::Ready(Ok(n)) if n > 0 => self.output.advance(n),
                Poll::Ready(_) => return Err(End::Gone),
                Poll::Pending => {
                    self.flags.read_by_client |= moved;
                    return Ok(moved);
                }
            }
            moved = true;
        }
        if moved {
            self.flags.read_by_client = true;
            // The memory goes back, too.
            self.output = BytesMut::new();
        }
        Ok(moved)
    }

    /// Sends to the client now what its socket takes, and keeps the rest.
    pub(super) fn to_client(
        client: &mut Stream,
        output: &mut BytesMut,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Result<(), End> {
        let mut rest = bytes;
        if output.is_empty() {
            while !rest.is_empty() {
                match client.poll_write(cx, rest) {
                    Poll::Ready(Ok(n)) if n > 0 => rest = &rest[n..],
                    Poll::Ready(_) => return Err(End::Gone),
                    Poll::Pending => break,
                }
            }
        }
        output.extend_from_slice(rest);
        Ok(())
    }

    fn pump_server(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Some(held) = &mut self.held else {
            return Ok(false);
        };
        let (mut moved, mut is_broken) = (false, false);
        while !held.server.unsent.is_empty() {
            let server = &mut *held.server;
            match server.stream.poll_write(cx, &server.unsent) {
                Poll::Ready(Ok(n)) if n > 0 => server.unsent.advance(n),
                Poll::Ready(_) => {
                    // It may have said why before it went.
                    is_broken = true;
                    break;
                }
                Poll::Pending => break,
            }
            moved = true;
            if server.unsent.is_empty() {
                server.unsent = BytesMut::new();
                // What waited behind it may be the last that the client sends, and nothing else would bring it to mind: in the
                // middle of a COPY, or of a large parameter, no server says anything.
                self.flags.recheck = true;
            }
        }
        if !self.output.is_empty() {
            return match is_broken {
                // Its connection is not kept for a client that does not read.
                true => self.server_lost("write failed").map(|()| true),
                false => Ok(moved),
            };
        }
        scratch(|buffer| {
            let Some(held) = &mut self.held else {
                return Ok(moved);
            };
            let read = held.server.stream.poll_read(cx, buffer);
            let was_cut = std::mem::replace(&mut self.flags.cut, is_broken);
            match read {
                // Nobody has looked at the socket since.
                Poll::Pending if is_broken && !was_cut => {
                    self.flags.yields = true;
                    Ok(true)
                }
                Poll::Pending if is_broken => self.server_lost("write failed").map(|()| true),
                Poll::Pending => Ok(moved),
                Poll::Ready(Ok(n)) if n > 0 => self.received(cx, &buffer[..n]).map(|()| true),
                Poll::Ready(Ok(_)) => self.server_lost("closed by the server").map(|()| true),
                Poll::Ready(Err(error)) => self.server_lost(&error.to_string()).map(|()| true),
            }
        })
    }

    fn received(&mut self, cx: &mut Context<'_>, chunk: &[u8]) -> Result<(), End> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let (client, output, session) = (&mut self.client, &mut self.output, &mut self.session);
        // What is refused to a session that wants standbys only is no mistake of the router's.
        let standby = held.standby && !session.is_on_standbys();
        let link = &mut held.server.link;
        let sent = &self.shared.metrics.client_sent_bytes;
        let calls = &mut self.calls;
        if session.answers_plainly(link, chunk) {
            sent.inc_by(chunk.len() as u64);
            calls.note_bytes(chunk.len());
            Relay::to_client(client, output, cx, chunk)?;
            self.flags.recheck |= !self.input.is_empty();
            self.flags.ended = true;
            self.flags.idle = true;
            self.flags.cancelled = false;
            self.detour = Detour::default();
            self.count_call(standby);
            return self.release();
        }
        let result = compose(|out| {
            let result = session.receive(link, chunk, standby, out);
            let bytes = match &result {
                Ok(received) => received
                    .verbatim
                    .clone()
                    .map_or(out.as_slice(), |range| &chunk[range]),
                Err(_) => out.as_slice(),
            };
            sent.inc_by(bytes.len() as u64);
            calls.note_bytes(bytes.len());
            Relay::to_client(client, output, cx, bytes).map(|()| result)
        })?;
        match result {
            Ok(received) => {
                self.flags.recheck |= !self.input.is_empty();
                self.flags.ended |= received.ended;
                self.flags.idle |= received.idle;
                self.count_calls(&received, standby);
                if received.wrote && !self.was_refused_by_role() {
                    self.session.floor.wrote(Instant::now());
                }
                self.note_pins();
                self.flags.cancelled &= !received.ended;
                if received.unlistened {
                    self.note_unlistened();
                }
                if received.missed && self.flags.cancelled {
                    self.cancel_again();
                }
                if received.refused {
                    self.shared.metrics.standby_refusals.inc();
                }
                if received.catalog_changed != Change::None {
                    self.catalog_changed(received.catalog_changed);
                }
                if let Some((refusal, unit, unanswered)) = &received.learned {
                    self.learn(refusal, unit, *unanswered);
                }
                if received.ended {
                    self.detour = Detour::default();
                }
                if let Some(again) = received.again {
                    self.send_again(&again);
                }
                if let Some(rest) = received.rest {
                    self.put_back(&rest);
                }
                self.release()
            }
            Err(error @ LinkError::Settings(_)) if self.placed.is_some() => {
                self.settings_refused(&error.notice());
                Ok(())
            }
            Err(error @ LinkError::Settings(_)) if link.guarded => {
                let (unit, _) = self.session.take_back(link);
                self.put_back(&unit);
                self.settings_refused(&error.notice());
                Ok(())
            }
            Err(error) => self.server_lost(&error.to_string()),
        }
    }

    /// Whether what a session of standbys has sent as a write cannot have been one: its node is still a standby.
    fn was_refused_by_role(&self) -> bool {
        let held = self.held.as_ref().filter(|held| held.standby);
        held.is_some_and(|held| {
            let view = self.pools.cluster.view.load();
            self.session.is_on_standbys() && view.nodes[held.node].state == NodeState::Standby
        })
    }

    /// A unit has changed what the database has.
    fn catalog_changed(&self, change: Change) {
        if change == Change::Plans {
            self.shared.statements.catalog_changed();
        }
        self.pools.catalog.changed(change);
    }

    /// A unit that was sent is at the front of the input again.
    pub(super) fn put_back(&mut self, unit: &[u8]) {
        let mut input = BytesMut::from(unit);
        input.extend_from_slice(&self.input);
        self.input = input;
        self.flags.recheck = true;
    }

    /// Gives the server connection back if nothing needs it any more.
    pub(super) fn release(&mut self) -> Result<(), End> {
        self.give_up_hope();
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let link = &mut held.server.link;
        if link.owing.skipping() || link.copy_in {
            // What the server waits for is the Sync, or the end of a COPY, and it is among what waits here.
            self.flags.draining_link = false;
            self.flags.recheck = true;
        }
        if !link.settled() {
            return Ok(());
        }
        self.flags.draining_link = false;
        self.flags.recheck = true;
        if link.status != Status::Idle && self.pools.mode == Mode::Statement {
            // It was begun among other statements.
            self.held = None;
            return Err(End::Told(no_transactions(Severity::Fatal)));
        }
        if link.status != Status::Idle || self.session.mid_unit() || link.copy_in {
            return Ok(());
        }
        if self.cancelling.is_some() || self.placed.is_some() {
            return Ok(());
        }
        let pinned = self.session.pin().is_some();
        let stays = pinned || (self.pools.mode == Mode::Session && !held.standby);
        if link.doubtful && !stays {
            self.held = None;
            return Ok(());
        }
        if link.doubtful {
            let mut out = Vec::new();
            Session::start_afresh(link, &mut out);
            held.server.unsent.extend_from_slice(&out);
            return Ok(());
        }
        if stays || !link.dirty {
            let server = &mut *held.server;
            let mut out = Vec::new();
            self.session.leave_at_leisure(&mut server.link, &mut out);
            if server.link.wiping {
                server.unsent.extend_from_slice(&out);
                return Ok(());
            }
        }
        let link = &mut held.server.link;
        if stays {
            if pinned {
                self.ask_for_pins();
            }
            return Ok(());
        }
        if !link.dirty && !link.stains.is_empty() {
            let server = &mut *held.server;
            let mut out = Vec::new();
            Session::wipe(&mut server.link, &mut out);
            server.unsent.extend_from_slice(&out);
            if server.link.wiping {
                return Ok(());
            }
        }
        let link = &mut held.server.link;
        if link.dirty {
            let Setup {
                connect_query,
                reset_query,
                ..
            } = held.server.setup().clone();
            let server = &mut *held.server;
            let mut out = Vec::new();
            let (before, behind) = (reset_query.as_deref(), connect_query.as_deref());
            Session::clean(&mut server.link, before, behind, &mut out);
            server.unsent.extend_from_slice(&out);
            return Ok(());
        }
        self.held = self.home.take().map(|home| *home);
        Ok(())
    }

    // ── client to server ─────────────────────────────────────────────────────────────────────────────────────────

    /// Looks at the input again where something has changed; true if that has moved something.
    #[inline]
    pub(super) fn recheck(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if !self.flags.recheck || self.flags.draining_link || self.flags.yields {
            return Ok(false);
        }
        self.flags.recheck = false;
        if self.input.is_empty() || self.waiting.is_some() {
            return Ok(false);
        }
        Ok(self.process_input(cx)? || self.waiting.is_some())
    }

    fn pump_client(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let moved = self.recheck(cx)?;
        if self.flags.yields {
            // What is there already comes first.
            return Ok(moved);
        }
        if self.flags.goodbye {
            return match &self.held {
                // What waits for more from the client waits in vain: it is undone.
                Some(held) if held.server.link.copy_in || self.session.mid_unit() => Err(End::Gone),
                Some(held) if !held.server.link.settled() => Ok(moved),
                _ if self.waiting.is_some() || !self.input.is_empty() => Ok(moved),
                _ => Err(End::Said),
            };
        }
        let is_full = |waiting: &Waiting| self.input.len() >= waiting.unit.len + MAX_AHEAD;
        // It is read on all the same: a client that leaves now must be noticed.
        let ahead = self.placed.map_or(0, |unit| unit.len) + MAX_AHEAD;
        let is_draining =
            self.flags.draining_link && (self.input.is_empty() || self.input.len() >= ahead);
        let blocked = self.waiting.as_deref().is_some_and(is_full)
            || self.waits_to_listen()
            || self.awaits_cancel()
            || is_draining
            || self.output.len() > MAX_OUTPUT
            || self
                .held
                .as_ref()
                .is_some_and(|held| !held.server.unsent.is_empty());
        if blocked {
            return Ok(moved);
        }
        let read = scratch(|buffer| {
            let n = match self.client.poll_read(cx, buffer) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(_)) => return Err(End::Gone),
            };
            if n == 0 {
                return Err(End::Gone);
            }
            self.shared.metrics.client_received_bytes.inc_by(n as u64);
            self.pools.cluster.traffic.note();
            if self.input.is_empty() {
                let used = self.process(cx, &buffer[..n])?;
                self.input.extend_from_slice(&buffer[used..n]);
                return Ok(Poll::Ready(false));
            }
            self.input.extend_from_slice(&buffer[..n]);
            Ok(Poll::Ready(true))
        })?;
        match read {
            Poll::Pending => Ok(moved),
            Poll::Ready(more) => {
                if more && self.waiting.is_none() && !self.flags.draining_link {
                    self.process_input(cx)?;
                }
                Ok(true)
            }
        }
    }

    fn process_input(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut input = std::mem::take(&mut self.input);
        let used = self.process(cx, &input)?;
        input.advance(used);
        self.input = if input.is_empty() {
            BytesMut::new()
        } else {
            input
        };
        Ok(used > 0)
    }

    /// Deals with as much of the client's bytes as can be, and as belongs into one turn; returns how many.
    fn process(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<usize, End> {
        let mut at = 0;
        loop {
            if self.awaits_cancel() {
                return Ok(at);
            }
            let rest = &bytes[at..];
            if rest.is_empty() {
                return Ok(at);
            }
            if self.is_turn_over() {
                self.put_off();
                return Ok(at);
            }
            self.flags.units += 1;
            // One for the unit: what it was judged by is what it is written by.
            let catalog = self.pools.catalog.current();
            let next = match self.placed {
                Some(Unit { len, class }) => Next::Place { len, class },
                None => {
                    let held = self.held.as_ref();
                    let link = held.map(|held| (&held.server.link, held.standby));
                    let context = self.shared.context(&catalog);
                    let (session, client, output) =
                        (&mut self.session, &mut self.client, &mut self.output);
                    compose(|replies| {
                        let next = session.next(rest, link, context, replies);
                        if !replies.is_empty() {
                            Relay::to_client(client, output, cx, replies)?;
                        }
                        Ok(next)
                    })?
                }
            };
            match next {
                Next::More => return Ok(at),
                Next::Later => {
                    self.put_off();
                    return Ok(at);
                }
                Next::Place { len, class } => {
                    if !self.place(cx, &rest[..len], class, &catalog)? {
                        return Ok(at);
                    }
                    at += len;
                }
                Next::Forward { len, class } if self.must_not_begin(class) => {
                    if self
                        .held
                        .as_ref()
                        .is_some_and(|held| !held.server.link.settled())
                    {
                        // Its answer comes behind those that are on their way.
                        self.flags.draining_link = true;
                        return Ok(at);
                    }
                    self.reject(cx, &rest[..len], &no_transactions(Severity::Error))?;
                    at += len;
                }
                Next::Forward { len, class } => {
                    self.forward(cx, &rest[..len], class, Begin::No, &catalog)?;
                    at += len;
                }
                Next::Listening { len, change } => {
                    if !self.listen(cx, &rest[..len], &change)? {
                        return Ok(at);
                    }
                    at += len;
                }
                Next::Release => {
                    self.note_pins();
                    self.release()?;
                }
                Next::Drain => {
                    self.flags.draining_link = true;
                    return Ok(at);
                }
                Next::Rehome => {
                    self.rehome();
                    return Ok(at);
                }
                Next::Refuse { len } => {
                    self.refuse_unit(&rest[..len]);
                    at += len;
                }
                Next::Skip { len } => {
                    self.refuse(cx)?;
                    at += len;
                }
                Next::Reply { len } => {
                    if self.session.is_optimistic() {
                        self.session.floor.wrote(Instant::now());
                    }
                    self.flags.ended = true;
                    self.flags.idle |= !self.session.is_in_unsent_block();
                    at += len;
                }
                Next::Terminate => {
                    self.flags.goodbye = true;
                    return Ok(bytes.len());
                }
                Next::Violation(violation) => return Err(End::Told(violation.notice())),
            }
            if self.flags.draining_link
                || self
                    .held
                    .as_ref()
                    .is_some_and(|held| !held.server.unsent.is_empty())
            {
                return Ok(at);
            }
        }
    }

    /// Whether others are to have their turn before the next unit.
    #[inline]
    fn is_turn_over(&self) -> bool {
        self.flags.units >= MOST_UNITS || sql::parsed_here() - self.flags.parsed >= MOST_NEW
    }

    #[cold]
    fn put_off(&mut self) {
        self.flags.recheck = true;
        self.flags.yields = true;
    }

    /// Whether a unit begins a transaction where there are to be none.
    #[inline]
    pub(super) fn must_not_begin(&self, class: Option<Class>) -> bool {
        self.pools.mode == Mode::Statement && class.is_some_and(|class| class.tx == TxEffect::Begin)
    }

    /// Sends bytes to the held connection, settings first if a unit begins. False if those must be confirmed before the
    /// unit may follow.
    pub(super) fn forward(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        class: Option<Class>,
        begin: Begin,
        catalog: &Catalog,
    ) -> Result<bool, End> {
        let Some(held) = &mut self.held else {
            return Ok(true);
        };
        let unit = bytes;
        if class.is_some_and(|class| class.reason == Reason::Ddl) {
            vacate(unit, &self.pools.pools[held.node]);
        }
        let shared = &*self.shared;
        if let Some(class) = class.filter(|_| begin == Begin::No) {
            unit::count_held(shared, &self.pools.cluster, class, held.node, held.standby);
        }
        let session = &mut self.session;
        // Once refused, they must be confirmed first.
        let refused = self.flags.refused;
        let server = &mut *held.server;
        let nothing_before = !server.link.owing.owes_client();
        server.link.on_standby = held.standby;
        // What is refused to a session that wants standbys only is its client's affair.
        server.link.bounces = held.standby && !session.is_on_standbys();
        let sent = compose(|out| {
            let refusable = match begin {
                Begin::Settings => {
                    let unit = class.filter(|_| !refused).map(|class| (bytes, class));
                    session.begin(&mut server.link, unit, out)
                }
                Begin::Bare => {
                    Session::begin_bare(&mut server.link, out);
                    false
                }
                Begin::No => false,
            };
            if refusable {
                server.unsent.extend_from_slice(out);
                return false;
            }
            let verbatim =
                session.forward(bytes, class, &mut server.link, shared.context(catalog), out);
            let bytes = if verbatim && out.is_empty() {
                bytes
            } else {
                if verbatim {
                    out.extend_from_slice(bytes);
                }
                out
            };
            send(&mut server.stream, &mut server.unsent, cx, bytes);
            true
        });
        self.note_pins();
        if let Some(class) = class.filter(|_| sent) {
            self.note_call(class, nothing_before);
            if log::tells_units() {
                self.log_sent(unit, class, catalog);
            }
        }
        self.settle(cx).map(|()| sent)
    }

    /// Tells the log where a unit went, and why.
    #[cold]
    fn log_sent(&self, unit: &[u8], class: Class, catalog: &Catalog) {
        let Some(held) = &self.held else { return };
        let node = &self.pools.cluster.nodes[held.node].name;
        let role = if held.standby {
            Role::Standby
        } else {
            Role::Primary
        };
        let context = self.shared.context(catalog);
        let why = self.session.explain(unit, class, context);
        log::sent(node, role.as_str(), class, why);
    }

    /// Gives replies of the proxy's own whose turn has come already.
    fn settle(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        if !matches!(held.server.link.owing.front(), Some(Owed::Local(_))) {
            return Ok(());
        }
        let (session, client, output) = (&mut self.session, &mut self.client, &mut self.output);
        let link = &mut held.server.link;
        compose(|out| {
            session.settle(link, out);
            Relay::to_client(client, output, cx, out)
        })?;
        self.release()
    }

    /// Ends a group where it is, because it has to go on elsewhere.
    fn rehome(&mut self) {
        let Some(held) = &mut self.held else { return };
        let server = &mut *held.server;
        let mut out = Vec::new();
        self.session.rehome(&mut server.link, &mut out);
        if self.session.is_in_unsent_block() {
            self.shared.metrics.transactions_moved.inc();
        }
        server.unsent.extend_from_slice(&out);
        self.flags.draining_link = true;
    }

    /// The session has refused a message of the open group: the error takes its place among the replies.
    fn refuse(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if !self.session.owes_refusal() {
            return Ok(());
        }
        if let Some(held) = &mut self.held {
            let server = &mut *held.server;
            let mut out = Vec::new();
            self.session.refused(&mut server.link, &mut out);
            server.unsent.extend_from_slice(&out);
        }
        self.settle(cx)
    }

    /// The session has refused a unit of a transaction on a standby, which fails with it.
    fn refuse_unit(&mut self, unit: &[u8]) {
        let Some(held) = &mut self.held else { return };
        let server = &mut *held.server;
        let mut out = Vec::new();
        self.shared.metrics.transactions_refused.inc();
        let catalog = self.pools.catalog.current();
        let context = self.shared.context(&catalog);
        self.session
            .refuse_unit(unit, &mut server.link, context, &mut out);
        server.unsent.extend_from_slice(&out);
    }
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.turn(cx));
        self.abandon();
        Poll::Ready(())
    }
}

/// What a client hears that is to leave.
#[cold]
fn shutting_down() -> Notice {
    Notice::fatal(
        SqlState::AdminShutdown,
        "terminating connection due to administrator command",
    )
    .hint("The proxy is shutting down. Connect again.")
}

/// Closes idle connections that would be in the way of a unit: nobody may be connected to a database that it drops, renames
/// or copies. The server waits for some seconds for those who leave.
#[cold]
fn vacate(unit: &[u8], pool: &Pool) {
    let Some((tag, body)) = unit.first().zip(unit.get(HEADER..)) else {
        return;
    };
    let text = match tag {
        b'Q' => frontend::query(body),
        b'P' => frontend::parse(body).map(|parse| parse.text),
        _ => None,
    };
    if let Some(database) = text.and_then(sql::vacated) {
        pool.vacate(&database);
    }
}

/// Sends what the socket takes, and keeps the rest. A socket that takes nothing any more is met again when the rest is sent.
fn send(stream: &mut Stream, unsent: &mut BytesMut, cx: &mut Context<'_>, bytes: &[u8]) {
    let mut rest = bytes;
    if unsent.is_empty() {
        while !rest.is_empty() {
            match stream.poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => rest = &rest[n..],
                _ => break,
            }
        }
    }
    unsent.extend_from_slice(rest);
}
