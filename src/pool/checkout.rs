//! Taking a connection out of a pool, and giving it back.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use deadpool::managed::{Object, PoolError, Timeouts};
use tokio::time::{sleep_until, timeout_at};

use super::caps::{Counted, Slot};
use super::manager::{Member, with_slot};
use super::{Inner, Manager, Pool, lock};
use crate::server::{self, Server, ServerError};
use crate::wire::{ClientFacing, Notice, SqlState};

/// A connection in use. It goes back to its pool when it is dropped, if it is clean then; otherwise it is closed.
#[derive(Debug)]
pub struct Pooled {
    object: Option<Object<Manager>>,
    place: Place,
}

/// Counts one client on a node for as long as it lives.
#[derive(Debug)]
struct Place(Arc<Inner>);

impl Place {
    fn new(pool: &Arc<Inner>) -> Place {
        pool.outstanding.fetch_add(1, Ordering::Relaxed);
        Place(pool.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client that waits, as long as this lives.
struct Waiter<'a> {
    pool: &'a Inner,
    since: (Instant, u64),
}

impl Waiter<'_> {
    fn new(pool: &Inner, now: Instant) -> Waiter<'_> {
        pool.waiting.fetch_add(1, Ordering::Relaxed);
        let mut queue = lock(&pool.queue);
        queue.next += 1;
        let since = (now, queue.next);
        queue.since.insert(since);
        Waiter { pool, since }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.pool.waiting.fetch_sub(1, Ordering::Relaxed);
        lock(&self.pool.queue).since.remove(&self.since);
    }
}

impl Pooled {
    fn new(mut object: Object<Manager>, now: Instant, place: Place) -> Pooled {
        object.used = now;
        Pooled {
            object: Some(object),
            place,
        }
    }

    /// Takes the connection out of its pool for good: it is closed when the result is dropped, and the pool may open
    /// another.
    pub fn into_closed(mut self) -> Option<Box<Member>> {
        self.object.take().map(Object::take)
    }

    /// The pool that it belongs to.
    pub fn pool(&self) -> Pool {
        Pool(self.place.0.clone())
    }

    /// What cleans the connection, besides DISCARD ALL.
    pub fn setup(&self) -> &super::Setup {
        &self.place.0.setup
    }
}

impl std::ops::Deref for Pooled {
    type Target = Server;

    fn deref(&self) -> &Server {
        let member = self.object.as_ref();
        &member
            .expect("only into_closed takes the object, and it takes self")
            .server
    }
}

impl std::ops::DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Server {
        let member = self.object.as_mut();
        &mut member
            .expect("only into_closed takes the object, and it takes self")
            .server
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let pool = &*self.place.0;
        let surplus = pool.take_reserve_back();
        if let Some(object) = self.object.take() {
            // The pool checks again when it hands the connection out; what is known to be unfit leaves at once, so that
            // its place is free.
            let fit = object.server.link.reusable() && object.server.unsent.is_empty();
            if fit && !surplus {
                pool.shelf.put(object);
                // Asked when it can be seen to be idle: who begins to starve after this finds it there.
                if pool.caps.gives_way(pool.has_waiters()) {
                    drop(pool.shelf.take().map(Object::take));
                }
            } else {
                drop(Object::take(object));
            }
        }
        if !surplus {
            pool.admission.add_permits(1);
        }
        pool.tell_lookers();
    }
}

/// A connection that has been asked something. It is closed if nobody waits for its answer any more.
struct Asked(Option<Object<Manager>>);

impl Drop for Asked {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

/// Why a client did not get a connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckoutError {
    /// None became free in time. The pool is busy; nothing is said of the node's health.
    #[error("no server connection became free in {0:?}")]
    Timeout(Duration),
    /// The node could not be used.
    #[error(transparent)]
    Server(Arc<ServerError>),
    /// The pool is being closed.
    #[error("the pool is closed")]
    Closed,
}

impl ClientFacing for CheckoutError {
    fn notice(&self) -> Notice {
        match self {
            CheckoutError::Timeout(_) => Notice::error(
                SqlState::InsufficientResources,
                "query_wait_timeout: no server connection became free",
            )
            .hint(ALL_IN_USE),
            CheckoutError::Server(error) => match error.refusal() {
                Some(refusal) => Notice::error(
                    SqlState::ConnectionFailure,
                    format!(
                        "a server refused the login: {} ({})",
                        refusal.message, refusal.code
                    ),
                ),
                None => Notice::error(
                    SqlState::ConnectionFailure,
                    "no connection to the server could be made",
                ),
            },
            CheckoutError::Closed => {
                Notice::error(SqlState::AdminShutdown, "the pool is being closed")
            }
        }
    }
}

/// What to do when the node has no room for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Wait: no other node can do it.
    Wait,
    /// Say so, unless connections of this very pool will become free.
    Leave,
}

/// What who waits for a connection, or has waited in vain, can do about it.
pub const ALL_IN_USE: &str = "All connections that it may have are in use. Shorten transactions, or raise pool.size, or whichever max_connections has been reached.";

/// A client that waits for so long is told that it does.
pub const NOTICE_AFTER: Duration = Duration::from_secs(5);

/// How long a pool keeps from connecting after a failure: at first, and at most. It doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The last attempts to connect have failed.
#[derive(Debug)]
pub(super) struct Trouble {
    until: Instant,
    pause: Duration,
    error: Arc<ServerError>,
}

/// Never waits for deadpool's own permits: there are more than connections.
const AT_ONCE: Timeouts = Timeouts {
    wait: Some(Duration::ZERO),
    create: None,
    recycle: None,
};

impl Pool {
    /// An idle connection that may be used at `now`, if there is one. Never waits.
    pub fn try_checkout(&self, now: Instant) -> Option<Pooled> {
        let admitted = self.0.admission.try_acquire().ok()?;
        let object = self.0.idle(now)?;
        if self.0.is_stale(&object, now) {
            // It must be asked first.
            self.0.shelf.put(object);
            return None;
        }
        admitted.forget();
        Some(Pooled::new(object, now, Place::new(&self.0)))
    }

    /// A connection: an idle one, a new one, or the next that is given back, in the order of asking. Who waits until
    /// [`NOTICE_AFTER`] has its task woken then.
    ///
    /// # Errors
    /// [`CheckoutError`]; [`CheckoutError::Timeout`] after the pool's deadline, which does not count the time that
    /// connecting takes.
    ///
    /// # Cancel safety
    /// Dropping the future gives its place in the queue up.
    pub async fn checkout(&self, patience: Patience) -> Result<Pooled, CheckoutError> {
        let pool = &self.0;
        let limits = pool.limits;
        let connecting = AtomicBool::new(false);
        let mut find = pin!(pool.find(patience, &connecting));
        let start = tokio::time::Instant::now();
        let (place, waiter) = (Place::new(pool), Waiter::new(pool, start.into_std()));
        let reserve = (limits.reserve > 0).then_some(limits.reserve_after);
        let alarms = [reserve, Some(NOTICE_AFTER), Some(limits.wait)];
        let next = |passed: Duration| {
            let times = alarms.iter().flatten().filter(|time| **time > passed);
            times.min().copied()
        };
        let mut due = next(Duration::ZERO);
        let mut over = false;
        let mut alarm = pin!(sleep_until(start + due.unwrap_or(limits.wait)));
        let found = std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(found) = find.as_mut().poll(cx) {
                    return Poll::Ready(found);
                }
                if over && !connecting.load(Ordering::Relaxed) {
                    return Poll::Ready(Err(CheckoutError::Timeout(limits.wait)));
                }
                let Some(passed) = due else {
                    return Poll::Pending;
                };
                std::task::ready!(alarm.as_mut().poll(cx));
                over |= passed >= limits.wait;
                if reserve == Some(passed) {
                    pool.lend_reserve();
                }
                due = next(passed);
                if let Some(due) = due {
                    alarm.as_mut().reset(start + due);
                }
            }
        })
        .await;
        drop(waiter);
        found.map(|object| Pooled::new(object, Instant::now(), place))
    }

    /// Whether it has fewer connections than it keeps.
    pub fn is_below_minimum(&self) -> bool {
        let limits = &self.0.limits;
        limits.min > 0 && self.0.members.status().size < limits.min.min(limits.size)
    }

    /// Opens a connection if there are fewer than the pool keeps, and room for it.
    pub async fn warm(&self) {
        let pool = &self.0;
        if !self.is_below_minimum() || pool.trouble().is_some() {
            return;
        }
        let Ok(admitted) = pool.admission.try_acquire() else {
            return;
        };
        let Some(slot) = pool.caps.try_slot() else {
            return;
        };
        if let Ok(object) = pool.open(slot).await {
            pool.shelf.put(object);
        }
        drop(admitted);
        pool.tell_lookers();
    }
}

impl Inner {
    /// An idle connection, the one that was used last.
    fn idle(&self, now: Instant) -> Option<Object<Manager>> {
        loop {
            let object = self.shelf.take()?;
            if object.is_fit(now) {
                return Some(object);
            }
            drop(Object::take(object));
        }
    }

    /// Whether it has been idle for so long that it must be asked before it is used.
    fn is_stale(&self, member: &Member, now: Instant) -> bool {
        now.saturating_duration_since(member.used) >= self.limits.check
    }

    async fn find(
        &self,
        patience: Patience,
        connecting: &AtomicBool,
    ) -> Result<Object<Manager>, CheckoutError> {
        let Ok(admitted) = self.admission.acquire().await else {
            return Err(CheckoutError::Closed);
        };
        let mut looker = None;
        loop {
            let mut returned = pin!(self.returned.notified());
            if looker.is_some() {
                // Before the look, so that nothing comes back unseen between it and the wait.
                returned.as_mut().enable();
            }
            let now = Instant::now();
            if let Some(object) = self.idle(now) {
                // Boxed, as whatever is rare here: clients wait with room for it, and most of them for a moment only.
                let object = match self.is_stale(&object, now) {
                    true => Box::pin(self.asked(object)).await,
                    false => Some(object),
                };
                if let Some(object) = object {
                    admitted.forget();
                    return Ok(object);
                }
                continue;
            }
            let slot = match (self.trouble(), self.caps.try_slot()) {
                (Some((until, error)), _) => {
                    if !self.is_worth_waiting(&error, patience) {
                        return Err(CheckoutError::Server(error));
                    }
                    if looker.is_none() {
                        looker = Some(Counted::new(&self.lookers));
                        continue;
                    }
                    // Whichever is first: another try, or a connection that comes back.
                    let _ = Box::pin(timeout_at(until.into(), returned)).await;
                    continue;
                }
                (None, Some(slot)) => slot,
                (None, None) if looker.is_none() => {
                    looker = Some(Counted::new(&self.lookers));
                    continue;
                }
                (None, None) => tokio::select! {
                    slot = self.caps.slot(&self.ledger) => slot,
                    () = returned.as_mut() => continue,
                },
            };
            connecting.store(true, Ordering::Relaxed);
            let opened = Box::pin(self.open(slot)).await;
            connecting.store(false, Ordering::Relaxed);
            match opened {
                Ok(object) => {
                    admitted.forget();
                    return Ok(object);
                }
                Err(CheckoutError::Server(error)) if self.is_worth_waiting(&error, patience) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The node has no room for more connections, but there are some that will become free, or nowhere else to go.
    fn is_worth_waiting(&self, error: &ServerError, patience: Patience) -> bool {
        let full = error
            .refusal()
            .is_some_and(|refusal| refusal.code == SqlState::TooManyConnections.code());
        full && (patience == Patience::Wait || self.members.status().size > 0)
    }

    /// Opens a connection.
    async fn open(&self, slot: Slot) -> Result<Object<Manager>, CheckoutError> {
        let mut future = pin!(self.members.timeout_get(&AT_ONCE));
        let mut slot = Some(slot);
        let opened = std::future::poll_fn(|cx| match slot.take() {
            // What is handed in is taken in the first round, or not at all.
            Some(slot) => with_slot(slot, || future.as_mut().poll(cx)),
            None => future.as_mut().poll(cx),
        });
        match opened.await {
            Ok(object) => {
                self.note_success();
                Ok(object)
            }
            Err(PoolError::Backend(error)) => {
                self.note_failure(&error);
                Err(CheckoutError::Server(error))
            }
            Err(_) => Err(CheckoutError::Closed),
        }
    }

    /// A connection that has been idle for long is asked whether it still works. If not, neither do those that have been
    /// idle for longer.
    async fn asked(&self, object: Object<Manager>) -> Option<Object<Manager>> {
        let limit = self.members.manager().endpoint().timeout;
        let mut asked = Asked(Some(object));
        let server = &mut asked.0.as_mut()?.server;
        match server::query(server, "", limit).await {
            Ok(_) => {
                // A simple Query destroys the unnamed statement.
                server.link.unnamed = None;
                asked.0.take()
            }
            Err(error) => {
                tracing::info!(%error, "an idle server connection was dead");
                drop(asked);
                let now = Instant::now();
                self.shelf.retain(|member| !self.is_stale(member, now));
                None
            }
        }
    }

    fn trouble(&self) -> Option<(Instant, Arc<ServerError>)> {
        if !self.troubled.load(Ordering::Relaxed) {
            return None;
        }
        let now = Instant::now();
        let trouble = super::lock(&self.trouble);
        let trouble = trouble.as_ref().filter(|trouble| trouble.until > now)?;
        Some((trouble.until, trouble.error.clone()))
    }

    fn note_success(&self) {
        if self.troubled.swap(false, Ordering::Relaxed) {
            *super::lock(&self.trouble) = None;
        }
    }

    /// Those who connected at the same time count as one failure.
    fn note_failure(&self, error: &Arc<ServerError>) {
        let now = Instant::now();
        let mut trouble = super::lock(&self.trouble);
        let pause = match &*trouble {
            Some(before) if before.until > now => before.pause,
            Some(before) => (before.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        *trouble = Some(Trouble {
            until: now + pause,
            pause,
            error: error.clone(),
        });
        self.troubled.store(true, Ordering::Relaxed);
    }

    fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    fn tell_lookers(&self) {
        if self.lookers.load(Ordering::Relaxed) > 0 {
            self.returned.notify_one();
        }
    }

    /// One more connection than the pool's size, for a client that has waited long enough.
    fn lend_reserve(&self) {
        let more = |lent| (lent < self.limits.reserve).then_some(lent + 1);
        let lent = self
            .lent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if lent.is_ok() {
            self.admission.add_permits(1);
        }
    }

    /// Whether the reserve is back to what it was before, because nobody waits any more.
    fn take_reserve_back(&self) -> bool {
        self.lent.load(Ordering::Relaxed) > 0
            && !self.has_waiters()
            && self
                .lent
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lent| {
                    lent.checked_sub(1)
                })
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of what a method of a pool returns.
    fn size<'a, F>(_: impl Fn(&'a Pool, Patience) -> F) -> usize {
        size_of::<F>()
    }

    /// What glibc keeps ready for each thread ends at 1,032 bytes: beyond, each wait would be a visit to its heap.
    #[test]
    fn who_waits_takes_little() {
        let waiting = size(Pool::checkout);
        assert!(
            waiting <= 1000,
            "who waits for a connection takes {waiting} bytes"
        );
    }
}
