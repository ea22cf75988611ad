//! Taking a connection out of a pool, and giving it back.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use deadpool::managed::{Object, PoolError, Timeouts};
use tokio::time::sleep_until;

use super::caps::Slot;
use super::line::{After, Fitness, Key, Turn};
use super::manager::{Member, with_slot};
use super::{Inner, Manager, Pool};
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

    /// When it was handed out.
    pub fn since(&self) -> Instant {
        let member = self.object.as_ref();
        member
            .expect("only into_closed takes the object, and it takes self")
            .used
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
        // The pool checks again when it hands the connection out; what is known to be unfit leaves at once, so that its
        // place is free.
        let is_fit = |object: &Object<Manager>| {
            object.server.link.reusable() && object.server.unsent.is_empty()
        };
        match self.object.take() {
            Some(object) if is_fit(&object) => {
                let mut line = pool.line();
                if line.is_calm() && !pool.caps.gives_way(false) {
                    return line.shelve(object);
                }
                drop(line);
                pool.give_back(Some(object));
            }
            unfit => {
                unfit.into_iter().for_each(close);
                pool.give_back(None);
            }
        }
    }
}

/// Closes a connection, which its pool does not count any more.
pub(super) fn close(object: Object<Manager>) {
    drop(Object::take(object));
}

/// Somebody who may have a connection and is not in the line, as long as this lives; what it has got is given back then.
struct Aside<'a> {
    pool: &'a Inner,
    object: Option<Object<Manager>>,
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.pool.give_back(self.object.take());
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

/// A client that wants a connection, and what it does to get one. Dropped, it gives its place in the line up, and what it
/// has been given goes to the next.
pub struct Checkout {
    /// Until it has a connection, which takes this.
    place: Option<Place>,
    patience: Patience,
    since: Instant,
    /// Its place in the line, from the first poll.
    key: Option<Key>,
    /// What it does once it has been admitted and nothing was there. Boxed, as whatever is rare here: most of those who wait
    /// do so until a connection comes back.
    look: Option<Look>,
    is_long: bool,
}

/// Ends with a connection, or with nothing where there is something to see in the line.
type Look = Pin<Box<dyn Future<Output = Result<Option<Object<Manager>>, CheckoutError>> + Send>>;

impl Pool {
    /// An idle connection that may be used at `now`, if there is one. Never waits.
    pub fn try_checkout(&self, now: Instant) -> Option<Pooled> {
        loop {
            let taken = self.0.line().take(|object| self.0.fitness(object, now));
            match taken? {
                (object, true) => return Some(Pooled::new(object, now, Place::new(&self.0))),
                (unfit, false) => close(unfit),
            }
        }
    }

    /// A connection: an idle one, a new one, or the next that is given back, in the order of asking.
    ///
    /// # Errors
    /// [`CheckoutError`]; [`CheckoutError::Timeout`] after the pool's deadline, which does not count the time that
    /// connecting takes.
    ///
    /// # Cancel safety
    /// Dropping the future gives its place in the queue up.
    pub async fn checkout(&self, patience: Patience) -> Result<Pooled, CheckoutError> {
        let mut checkout = self.wait(patience, Instant::now());
        std::future::poll_fn(|cx| checkout.poll(cx)).await
    }

    /// The same for somebody who polls it, and has come at `now`. Its task is woken when it has waited for
    /// [`NOTICE_AFTER`].
    pub fn wait(&self, patience: Patience, now: Instant) -> Checkout {
        Checkout {
            place: Some(Place::new(&self.0)),
            patience,
            since: now,
            key: None,
            look: None,
            is_long: false,
        }
    }

    /// Whether it has fewer connections than it keeps.
    pub fn is_below_minimum(&self) -> bool {
        let limits = &self.0.limits;
        limits.min > 0 && self.0.members.status().size < limits.min.min(limits.size)
    }

    /// Opens a connection if there are fewer than the pool keeps, and room for it.
    pub async fn warm(&self) {
        let pool = &self.0;
        if !self.is_below_minimum() || pool.trouble().is_some() || !pool.line().admit_aside() {
            return;
        }
        let mut aside = Aside { pool, object: None };
        if let Some(slot) = pool.caps.try_slot() {
            aside.object = pool.open(slot).await.ok();
        }
    }
}

impl Checkout {
    /// Since when it waits.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether it had waited for [`NOTICE_AFTER`] when it was polled last.
    pub fn is_long(&self) -> bool {
        self.is_long
    }

    /// See [`Pool::checkout`]. Once it is ready it has left the line, and stays pending.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Pooled, CheckoutError>> {
        let found = std::task::ready!(self.poll_line(cx));
        if found.is_err() {
            self.leave();
        }
        let place = self.place.take();
        Poll::Ready(found.and_then(|(object, now)| {
            let place = place.ok_or(CheckoutError::Closed)?;
            Ok(Pooled::new(object, now, place))
        }))
    }

    /// A connection that may be used, and when that was seen.
    fn poll_line(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Object<Manager>, Instant), CheckoutError>> {
        let Some(Place(pool)) = &self.place else {
            return Poll::Pending;
        };
        // Who has just come has just read the clock.
        let mut now = match self.key {
            Some(_) => Instant::now(),
            None => self.since,
        };
        loop {
            let mut line = pool.line();
            let key = *self.key.get_or_insert_with(|| line.join(now));
            let check = |object: &Object<Manager>| pool.fitness(object, now);
            let turn = line.turn(key, cx.waker(), &pool.alarms, check);
            self.is_long = line.is_long(key, &pool.alarms);
            let sweeps = line.starts_sweeping();
            drop(line);
            if sweeps {
                tokio::spawn(keep_watch(Arc::downgrade(pool)));
            }
            match turn {
                Turn::Take(object) => {
                    (self.key, self.look) = (None, None);
                    return Poll::Ready(Ok((object, now)));
                }
                Turn::Wait => return Poll::Pending,
                Turn::Over => return Poll::Ready(Err(CheckoutError::Timeout(pool.limits.wait))),
                Turn::Close(object) => {
                    self.look = None;
                    close(object);
                    continue;
                }
                Turn::Ask(object) => self.look = Some(Box::pin(ask(pool.clone(), key, object))),
                Turn::Look => {}
            }
            let patience = self.patience;
            let doing = self
                .look
                .get_or_insert_with(|| Box::pin(look(pool.clone(), key, patience)));
            let found = std::task::ready!(doing.as_mut().poll(cx));
            self.look = None;
            now = Instant::now();
            if let Some(object) = found? {
                pool.line().served(key);
                self.key = None;
                return Poll::Ready(Ok((object, now)));
            }
        }
    }

    fn leave(&mut self) {
        let Some((key, Place(pool))) = self.key.take().zip(self.place.as_ref()) else {
            return;
        };
        // What it does holds a connection, or a place for one, which is to be free when the next is admitted.
        self.look = None;
        let after = pool
            .line()
            .leave(key, |crowded| pool.caps.gives_way(crowded));
        pool.settle(after);
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Opens a connection for who has been admitted, as soon as that can be done. What is given to it meanwhile makes an end of
/// this.
async fn look(
    pool: Arc<Inner>,
    key: Key,
    patience: Patience,
) -> Result<Option<Object<Manager>>, CheckoutError> {
    let slot = loop {
        match (pool.trouble(), pool.caps.try_slot()) {
            (Some((_, error)), _) if !pool.is_worth_waiting(&error, patience) => {
                return Err(CheckoutError::Server(error));
            }
            (Some((until, _)), slot) => {
                drop(slot);
                sleep_until(until.into()).await;
            }
            (None, Some(slot)) => break slot,
            (None, None) => break pool.caps.slot(&pool.ledger).await,
        }
    };
    if !pool.line().connects(key) {
        return Ok(None);
    }
    match pool.open(slot).await {
        Ok(object) => Ok(Some(object)),
        Err(CheckoutError::Server(error)) if pool.is_worth_waiting(&error, patience) => {
            pool.line().looks_again(key);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Asks a connection for who was to have it. If it does not work, there may be others.
async fn ask(
    pool: Arc<Inner>,
    key: Key,
    object: Object<Manager>,
) -> Result<Option<Object<Manager>>, CheckoutError> {
    let object = pool.asked(object).await;
    if object.is_none() {
        pool.line().looks_again(key);
    }
    Ok(object)
}

/// Looks after those who wait for long, as long as anybody waits.
async fn keep_watch(pool: Weak<Inner>) {
    while let Some(pool_now) = pool.upgrade() {
        let (next, wake) = pool_now.line().sweep(Instant::now(), &pool_now.alarms);
        drop(pool_now);
        wake.into_iter().for_each(std::task::Waker::wake);
        let Some(next) = next else { return };
        sleep_until(next.into()).await;
    }
}

impl Inner {
    /// Whether it may be used.
    fn fitness(&self, member: &Member, now: Instant) -> Fitness {
        if !member.is_fit(now) {
            Fitness::Unfit
        } else if self.is_stale(member, now) {
            Fitness::Doubtful
        } else {
            Fitness::Good
        }
    }

    /// Somebody is through, with a connection for the next or without.
    fn give_back(&self, object: Option<Object<Manager>>) {
        let after = self
            .line()
            .give_back(object, |crowded| self.caps.gives_way(crowded));
        self.settle(after);
    }

    fn settle(&self, after: After<Object<Manager>>) {
        after.wake().into_iter().for_each(close);
    }

    /// Closes idle connections that are not to stay, and tells how many. The one that has been idle for longest is asked
    /// about first.
    pub(super) fn retain_idle(&self, mut stays: impl FnMut(&Member) -> bool) -> usize {
        let mut line = self.line();
        let leaving = line.shelf().extract_if(.., |object| !stays(object));
        let leaving: Vec<_> = leaving.collect();
        // Closing is a system call.
        drop(line);
        let count = leaving.len();
        leaving.into_iter().for_each(close);
        count
    }

    /// Whether it has been idle for so long that it must be asked before it is used.
    fn is_stale(&self, member: &Member, now: Instant) -> bool {
        now.saturating_duration_since(member.used) >= self.limits.check
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
                self.retain_idle(|member| !self.is_stale(member, now));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is part of what a session that waits keeps.
    #[test]
    fn who_waits_takes_little() {
        let waiting = size_of::<Checkout>();
        assert!(
            waiting <= 64,
            "who waits for a connection takes {waiting} bytes"
        );
    }
}
