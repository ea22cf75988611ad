//! Who waits for a connection of a pool, and the connections that nobody uses.
//!
//! One lock is around both: a connection that comes back goes straight to the client that has waited for longest, which is
//! woken once, or to the shelf if nobody waits. A client that waits has an entry here, in memory that is used again, and no
//! timer: what becomes of those who wait for long is found by a sweep, which runs only while somebody waits
//! (`checkout.rs`).
//!
//! As many clients are admitted as the pool may have connections; the others are queued. Who is admitted uses a connection,
//! or is given one, or looks for one: opens it, or waits until it may. What comes back goes to those who look first, since
//! they have come first.
//!
//! That nobody waits in vain, and nobody is passed by, follows from three facts that hold whenever the lock is free:
//! while anybody is queued nobody else can be admitted; while anybody is queued or looks, nothing is on the shelf; and no
//! more is on the shelf than clients could be admitted.

use std::task::Waker;
use std::time::{Duration, Instant};

/// The line of one pool, and its shelf.
#[derive(Debug)]
pub(super) struct Line<T> {
    /// Connections that nobody uses, as deadpool has handed them out: its own way to an idle one is a future that reads the
    /// clock for its statistics, and its own queue wakes who waits before it knows whether there is anything to be had.
    shelf: Vec<T>,
    /// How many more clients can be admitted.
    free: usize,
    /// Connections of the reserve that have been lent: so many more than the pool's size can be admitted.
    lent: usize,
    entries: Vec<Entry<T>>,
    /// Entries that nobody has.
    vacant: Vec<u32>,
    /// Those who have been admitted and have nothing yet, in the order in which they came.
    admitted: List,
    /// Those who have not, in the same order.
    queued: List,
    /// The number of the next client.
    next: u64,
    /// Somebody has come since the last sweep.
    visited: bool,
    /// A task sweeps.
    swept: bool,
}

/// Which entry is a client's.
pub(super) type Key = u32;

/// The end of a list.
const NONE: Key = Key::MAX;

/// One client in the line.
#[derive(Debug)]
struct Entry<T> {
    state: State<T>,
    /// Its task; none while it has been woken and has not come to see why.
    waker: Option<Waker>,
    since: Instant,
    number: u64,
    /// How many of the alarms it has heard.
    heard: usize,
    before: Key,
    after: Key,
}

#[derive(Debug)]
enum State<T> {
    Vacant,
    /// It has to wait.
    Queued,
    /// It opens a connection, as soon as it may.
    Looking,
    /// It wants nothing of what comes back now.
    Busy(Work),
    /// This is for it.
    Given(T),
}

/// What an admitted client does that wants nothing else meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Asks a connection whether it still works.
    Asking,
    /// Opens one, which its deadline does not count.
    Connecting,
}

/// Whether a connection can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    /// It can.
    Good,
    /// It has to be asked first.
    Doubtful,
    /// It is to be closed.
    Unfit,
}

/// What a client in the line is to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<T> {
    /// Use this; it is not in the line any more.
    Take(T),
    /// Ask this one whether it still works.
    Ask(T),
    /// Close this one, and see again.
    Close(T),
    /// Look for one, or go on with what it does.
    Look,
    /// Wait until it is woken.
    Wait,
    /// It has waited for too long.
    Over,
}

/// What happens to who waits for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The reserve is opened.
    Reserve,
    /// Its task is woken, so that it can say so.
    Notice,
    /// Its wait is over.
    Deadline,
}

/// When which alarm is due, the first one first.
#[derive(Clone, Debug)]
pub(super) struct Alarms {
    times: Vec<(Duration, Alarm)>,
    /// Connections that the reserve has.
    reserve: usize,
}

/// What is to be done when the lock is free again: wake tasks, which may be several for a reserve, and close a connection.
#[derive(Debug)]
#[must_use]
pub(super) struct After<T> {
    /// To be woken: who has been given a connection, and who has been admitted.
    pub(super) wake: [Option<Waker>; 2],
    /// To be closed.
    pub(super) close: Option<T>,
}

impl<T> Default for After<T> {
    fn default() -> After<T> {
        After {
            wake: [None, None],
            close: None,
        }
    }
}

impl<T> After<T> {
    /// Wakes who has something to do, and returns what is to be closed.
    pub(super) fn wake(self) -> Option<T> {
        self.wake.into_iter().flatten().for_each(Waker::wake);
        self.close
    }
}

impl Alarms {
    pub(super) fn new(
        notice: Duration,
        deadline: Duration,
        reserve: usize,
        after: Duration,
    ) -> Alarms {
        let mut times = vec![(notice, Alarm::Notice), (deadline, Alarm::Deadline)];
        if reserve > 0 {
            times.push((after, Alarm::Reserve));
        }
        times.sort_by_key(|(time, _)| *time);
        Alarms { times, reserve }
    }

    /// How long nobody hears anything who comes now.
    fn quiet(&self) -> Duration {
        self.times.first().map_or(Duration::MAX, |(time, _)| *time)
    }

    /// How far two sweeps are apart at least: by so much may be late who comes right after another.
    fn pace(&self) -> Duration {
        (self.quiet() / 10).clamp(Duration::from_millis(1), Duration::from_millis(10))
    }

    /// Whether who has heard so many has heard this one.
    fn is_past(&self, heard: usize, alarm: Alarm) -> bool {
        self.times[..heard].iter().any(|(_, past)| *past == alarm)
    }
}

impl<T> Line<T> {
    /// A line that admits so many.
    pub(super) fn new(size: usize) -> Line<T> {
        Line {
            shelf: Vec::new(),
            free: size,
            lent: 0,
            entries: Vec::new(),
            vacant: Vec::new(),
            admitted: List::EMPTY,
            queued: List::EMPTY,
            next: 0,
            visited: false,
            swept: false,
        }
    }

    /// How many more clients could be admitted now.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Connections of the reserve that have been lent.
    pub(super) fn lent(&self) -> usize {
        self.lent
    }

    /// Connections that nobody uses, those that have been idle for longest first.
    pub(super) fn shelf(&mut self) -> &mut Vec<T> {
        &mut self.shelf
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.admitted.len + self.queued.len
    }

    /// Since when who has waited for longest does.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let of = |list: &List| self.entries.get(list.first as usize).map(|e| e.since);
        of(&self.admitted).into_iter().chain(of(&self.queued)).min()
    }

    /// Takes a connection from the shelf for somebody who does not wait: the one that was put there last. Its caches are
    /// warm, and the others can age out. What comes with `false` is to be closed, and another try may succeed.
    pub(super) fn take(&mut self, check: impl FnOnce(&T) -> Fitness) -> Option<(T, bool)> {
        if self.free == 0 {
            return None;
        }
        let fit = match check(self.shelf.last()?) {
            Fitness::Good => true,
            Fitness::Unfit => false,
            Fitness::Doubtful => return None,
        };
        self.free -= usize::from(fit);
        Some((self.shelf.pop()?, fit))
    }

    /// Admits somebody who is not in the line and wants nothing of what there is: what it brings is given back by
    /// [`Line::give_back`].
    pub(super) fn admit_aside(&mut self) -> bool {
        let admits = self.free > 0;
        self.free -= usize::from(admits);
        admits
    }

    /// Enters a client, which has to see its [`Line::turn`].
    pub(super) fn join(&mut self, now: Instant) -> Key {
        self.visited = true;
        let number = self.next;
        self.next += 1;
        let entry = Entry {
            state: State::Queued,
            waker: None,
            since: now,
            number,
            heard: 0,
            before: NONE,
            after: NONE,
        };
        let key = match self.vacant.pop() {
            Some(key) => {
                self.entries[key as usize] = entry;
                key
            }
            None => {
                let key = Key::try_from(self.entries.len()).unwrap_or(NONE);
                self.entries.push(entry);
                key
            }
        };
        if self.free > 0 {
            self.free -= 1;
            self.look(key);
        } else {
            self.queued.push(&mut self.entries, key);
        }
        key
    }

    /// What a client is to do. It is woken when that changes.
    pub(super) fn turn(
        &mut self,
        key: Key,
        waker: &Waker,
        alarms: &Alarms,
        check: impl FnOnce(&T) -> Fitness,
    ) -> Turn<T> {
        let entry = &mut self.entries[key as usize];
        if let State::Given(_) = &entry.state
            && let State::Given(object) = std::mem::replace(&mut entry.state, State::Vacant)
        {
            return match check(&object) {
                Fitness::Good => {
                    self.vacate(key);
                    Turn::Take(object)
                }
                Fitness::Doubtful => {
                    entry.state = State::Busy(Work::Asking);
                    self.admitted.insert(&mut self.entries, key);
                    Turn::Ask(object)
                }
                Fitness::Unfit => {
                    self.look(key);
                    Turn::Close(object)
                }
            };
        }
        let counts = !matches!(entry.state, State::Busy(Work::Connecting));
        if counts && alarms.is_past(entry.heard, Alarm::Deadline) {
            return Turn::Over;
        }
        if !entry.waker.as_ref().is_some_and(|own| own.will_wake(waker)) {
            entry.waker = Some(waker.clone());
        }
        match entry.state {
            State::Queued => Turn::Wait,
            _ => Turn::Look,
        }
    }

    /// Whether a client is to be told that it waits for long.
    pub(super) fn is_long(&self, key: Key, alarms: &Alarms) -> bool {
        let entry = self.entries.get(key as usize);
        entry.is_some_and(|entry| alarms.is_past(entry.heard, Alarm::Notice))
    }

    /// Who looks begins to connect. False if it has been given a connection in the meantime.
    pub(super) fn connects(&mut self, key: Key) -> bool {
        let entry = &mut self.entries[key as usize];
        let looks = matches!(entry.state, State::Looking);
        if looks {
            entry.state = State::Busy(Work::Connecting);
        }
        looks
    }

    /// Who was busy has nothing, and looks again.
    pub(super) fn looks_again(&mut self, key: Key) {
        self.admitted.unlink(&mut self.entries, key);
        self.look(key);
    }

    /// Who was busy has a connection now, and is not in the line any more.
    pub(super) fn served(&mut self, key: Key) {
        self.admitted.unlink(&mut self.entries, key);
        self.vacate(key);
    }

    /// A client leaves the line. What it was given goes to the next.
    pub(super) fn leave(&mut self, key: Key, gives_way: impl FnOnce(bool) -> bool) -> After<T> {
        let entry = &mut self.entries[key as usize];
        let state = std::mem::replace(&mut entry.state, State::Vacant);
        match state {
            State::Vacant => return After::default(),
            State::Queued => self.queued.unlink(&mut self.entries, key),
            State::Looking | State::Busy(_) => self.admitted.unlink(&mut self.entries, key),
            State::Given(_) => {}
        }
        let is_queued = matches!(state, State::Queued);
        self.vacate(key);
        match state {
            State::Given(object) => self.give_back(Some(object), gives_way),
            _ if is_queued => After::default(),
            _ => self.give_back(None, gives_way),
        }
    }

    /// Somebody who was admitted is through, with a connection for others or without. `gives_way` says whether another
    /// pool needs it more; it is told whether anybody waits, and asked with the lock held: who begins to starve after this
    /// finds the connection where it is then.
    pub(super) fn give_back(
        &mut self,
        object: Option<T>,
        gives_way: impl FnOnce(bool) -> bool,
    ) -> After<T> {
        let mut after = After::default();
        let crowded = self.waiting() > 0;
        if self.lent > 0 && !crowded {
            // The reserve is back to what it was before, because nobody waits any more.
            let unused = (self.lent - 1).min(self.free - self.shelf.len());
            self.free -= unused;
            self.lent -= 1 + unused;
            after.close = object;
            return after;
        }
        let Some(object) = object else {
            after.wake[1] = self.admit_next();
            return after;
        };
        if gives_way(crowded) {
            after.close = Some(object);
            after.wake[1] = self.admit_next();
        } else if let Some(key) = self.first_looking() {
            self.admitted.unlink(&mut self.entries, key);
            after.wake[0] = self.give(key, object);
            after.wake[1] = self.admit_next();
        } else if let Some(key) = self.queued.pop(&mut self.entries) {
            after.wake[0] = self.give(key, object);
        } else {
            self.shelve(object);
        }
        after
    }

    /// Whether what comes back now goes to the shelf, unless another pool needs it more.
    #[inline]
    pub(super) fn is_calm(&self) -> bool {
        self.lent == 0 && self.waiting() == 0
    }

    /// What [`Line::give_back`] does with a connection while it is calm.
    #[inline]
    pub(super) fn shelve(&mut self, object: T) {
        self.shelf.push(object);
        self.free += 1;
    }

    /// Who looks, and has come first.
    fn first_looking(&self) -> Option<Key> {
        let mut key = self.admitted.first;
        // As many as the pool may have connections, at most.
        while let Some(entry) = self.entries.get(key as usize) {
            if matches!(entry.state, State::Looking) {
                return Some(key);
            }
            key = entry.after;
        }
        None
    }

    fn give(&mut self, key: Key, object: T) -> Option<Waker> {
        let entry = &mut self.entries[key as usize];
        entry.state = State::Given(object);
        entry.waker.take()
    }

    /// One more can be admitted: who is first in the queue is.
    fn admit_next(&mut self) -> Option<Waker> {
        let Some(key) = self.queued.pop(&mut self.entries) else {
            self.free += 1;
            return None;
        };
        self.look(key);
        self.entries[key as usize].waker.take()
    }

    /// Who has been admitted, and is in no list, gets what is on the shelf, or looks.
    fn look(&mut self, key: Key) {
        match self.shelf.pop() {
            Some(object) => self.entries[key as usize].state = State::Given(object),
            None => {
                self.entries[key as usize].state = State::Looking;
                self.admitted.insert(&mut self.entries, key);
            }
        }
    }

    /// Forgets an entry that is in no list.
    fn vacate(&mut self, key: Key) {
        let entry = &mut self.entries[key as usize];
        entry.state = State::Vacant;
        entry.waker = None;
        self.vacant.push(key);
    }

    /// Whether a task has to begin to sweep. It is said once, until a sweep has said that it was the last.
    pub(super) fn starts_sweeping(&mut self) -> bool {
        self.waiting() > 0 && !std::mem::replace(&mut self.swept, true)
    }

    /// Finds out who hears which alarm. Returns when to look again, or that this was the last sweep, since nobody waits
    /// and nobody has come for a while; and whom to wake.
    pub(super) fn sweep(&mut self, now: Instant, alarms: &Alarms) -> (Option<Instant>, Vec<Waker>) {
        let mut wake = Vec::new();
        let came = std::mem::take(&mut self.visited);
        if !came && self.waiting() == 0 {
            self.swept = false;
            if self.vacant.len() == self.entries.len() {
                // The memory of the crowd goes back.
                (self.entries, self.vacant) = (Vec::new(), Vec::new());
            }
            return (None, wake);
        }
        // Who comes after this sweep hears nothing earlier.
        let mut due = now + alarms.quiet();
        let mut reserves = 0;
        for mut key in [self.admitted.first, self.queued.first] {
            while let Some(entry) = self.entries.get_mut(key as usize) {
                let passed = now.saturating_duration_since(entry.since);
                let rest = &alarms.times[entry.heard..];
                let new = rest.iter().take_while(|(time, _)| *time <= passed);
                for (_, alarm) in new {
                    entry.heard += 1;
                    match alarm {
                        Alarm::Reserve => reserves += 1,
                        Alarm::Notice | Alarm::Deadline => wake.extend(entry.waker.take()),
                    }
                }
                if let Some((time, _)) = alarms.times.get(entry.heard) {
                    due = due.min(entry.since + *time);
                }
                if entry.heard == 0 {
                    // Those behind it have come later.
                    break;
                }
                key = entry.after;
            }
        }
        for _ in 0..reserves {
            // Who has been admitted already, and cannot connect, has no use for it.
            if self.lent < alarms.reserve && self.queued.len > 0 {
                self.lent += 1;
                wake.extend(self.admit_next());
            }
        }
        (Some(due.max(now + alarms.pace())), wake)
    }
}

/// Some of the entries, in an order.
#[derive(Clone, Copy, Debug)]
struct List {
    first: Key,
    last: Key,
    len: usize,
}

impl List {
    const EMPTY: List = List {
        first: NONE,
        last: NONE,
        len: 0,
    };

    /// Behind all others.
    fn push<T>(&mut self, entries: &mut [Entry<T>], key: Key) {
        self.put_behind(entries, key, self.last);
    }

    /// Where its number belongs, which is at the end, or not far from it.
    fn insert<T>(&mut self, entries: &mut [Entry<T>], key: Key) {
        let number = entries[key as usize].number;
        let mut before = self.last;
        while let Some(entry) = entries.get(before as usize)
            && entry.number > number
        {
            before = entry.before;
        }
        self.put_behind(entries, key, before);
    }

    fn put_behind<T>(&mut self, entries: &mut [Entry<T>], key: Key, before: Key) {
        let after = match entries.get_mut(before as usize) {
            Some(entry) => std::mem::replace(&mut entry.after, key),
            None => std::mem::replace(&mut self.first, key),
        };
        match entries.get_mut(after as usize) {
            Some(entry) => entry.before = key,
            None => self.last = key,
        }
        let entry = &mut entries[key as usize];
        (entry.before, entry.after) = (before, after);
        self.len += 1;
    }

    fn unlink<T>(&mut self, entries: &mut [Entry<T>], key: Key) {
        let Entry { before, after, .. } = entries[key as usize];
        match entries.get_mut(before as usize) {
            Some(entry) => entry.after = after,
            None => self.first = after,
        }
        match entries.get_mut(after as usize) {
            Some(entry) => entry.before = before,
            None => self.last = before,
        }
        self.len -= 1;
    }

    /// Takes the first one out.
    fn pop<T>(&mut self, entries: &mut [Entry<T>]) -> Option<Key> {
        let key = (self.first != NONE).then_some(self.first)?;
        self.unlink(entries, key);
        Some(key)
    }
}
