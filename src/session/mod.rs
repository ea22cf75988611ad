//! One client's life as a state machine: which bytes may leave for which server, and what the replies mean.
//!
//! `session` sees bytes, classes and links. It has never met a socket, a pool or a clock; `relay` carries out what it
//! says. A turn looks like this:
//!
//! ```text
//!   client bytes ──▶ next() ──▶ More      wait for more bytes
//!                          ├──▶ Place     a unit begins: choose a node, check out, begin(), forward()
//!                          ├──▶ Forward   goes to the connection that is held: forward()
//!                          ├──▶ Drain     wait until the held connection owes nothing, then ask again
//!                          ├──▶ Skip, Reply, Terminate, Violation
//!   server bytes ──▶ receive() ──▶ bytes for the client, and whether the unit wrote, failed, or lost its server
//! ```
//!
//! A *unit* is what is judged as a whole before its first byte leaves: one simple Query, or an extended-protocol group
//! up to its Sync or Flush. Once a group is placed it stays where it is up to its Sync.

mod back;
mod bounce;
mod explain;
mod forward;
mod front;
mod listen;
mod named;
mod pins;
mod sequence;
mod settings;
mod steer;
#[cfg(test)]
mod tests;
mod transaction;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

pub use back::{LinkError, OVERDUE, Received};
pub use front::{Context, MOST_NEW, Next};
pub use listen::is_utf8;
pub use sequence::SequenceTalk;
pub use steer::{check_startup, own_settings};
pub use transaction::TransactionDefaults;

use crate::link::{Link, Owed, Owing, Params, Statement};
use crate::route::{Affinity, Floor};
use crate::sql::{Class, Lexing, PinReason, Pins};
use crate::wire::{Status, frame, frontend};
use listen::{Hearing, Sharing};
use pins::Pinned;
use sequence::Sequences;
use settings::Settings;
use steer::Steering;
use transaction::{Block, Lateness, Rest};

/// What the proxy knows of one client's session.
#[derive(Debug)]
pub struct Session {
    /// The settings that every statement of the client runs with.
    params: Arc<Params>,
    /// The newest position that reads must reflect.
    pub floor: Floor,
    /// The standby that it stays with.
    pub affinity: Affinity,
    /// Why the session must keep its server connection.
    pinned: Pinned,
    /// What currval and lastval may tell it.
    sequences: Sequences,
    /// Whether LISTEN is the proxy's affair.
    sharing: Sharing,
    /// How the server lexes this session's statements.
    lexing: Lexing,
    /// Reads are serializable transactions: no standby takes them.
    serializable: Serializable,
    steering: Steering,
    /// For how many milliseconds it may idle outside of a transaction, by its own setting; 0 if there is no bound.
    idle_limit: u32,
    /// Whether transaction blocks begin with their first statement.
    lateness: Lateness,
    block: Block,
    /// The unnamed prepared statement.
    unnamed: Option<Arc<Statement>>,
    /// What it was before each change that has not been answered.
    unnamed_changes: UnnamedChanges,
    group: Group,
    stream: Stream,
    cold: Option<Box<Cold>>,
}

/// Whether transactions are serializable unless they say otherwise.
#[derive(Clone, Copy, Debug)]
struct Serializable {
    now: bool,
    /// In a session that has not changed it.
    default: bool,
}

/// The extended-protocol group that has begun on the held server connection.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Messages have been forwarded, their Sync has not.
    open: bool,
    /// It contains a write.
    write: bool,
    /// An Execute has been forwarded.
    executed: bool,
    /// How many.
    executions: u8,
    /// An error of the proxy's own: what follows is dropped up to the Sync.
    discard: bool,
    /// Settings that its statements change.
    sets: u32,
}

/// The rest of a message that is too large to be held.
#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    left: usize,
    /// Nobody wants it.
    drop: bool,
}

/// What the names begin with that the proxy gives to prepared statements on servers.
const OWN_NAMES: &[u8] = b"pgw_";

/// A client's names for prepared statements.
type Names = HashMap<Box<[u8]>, Arc<Statement>, foldhash::fast::RandomState>;

/// What the client's unnamed statement was before each of its changes that are on their way, in the order of what is owed
/// for them ([`Owing::next`]): those that the server skips have not happened.
#[derive(Debug, Default)]
struct UnnamedChanges {
    /// The last.
    at: u64,
    before: Option<Arc<Statement>>,
    /// Those before it; only in pipelines there are any.
    earlier: VecDeque<(u64, Option<Arc<Statement>>)>,
}

impl UnnamedChanges {
    /// What will be owed next changes it.
    #[inline]
    fn note(&mut self, before: Option<Arc<Statement>>, owing: &Owing) {
        let at = std::mem::replace(&mut self.at, owing.next());
        let older = std::mem::replace(&mut self.before, before);
        if at > owing.taken() && !owing.is_empty() {
            self.keep(at, older, owing);
        } else if !self.earlier.is_empty() {
            self.earlier = VecDeque::new();
        }
    }

    #[cold]
    fn keep(&mut self, at: u64, before: Option<Arc<Statement>>, owing: &Owing) {
        while self
            .earlier
            .front()
            .is_some_and(|(at, _)| *at <= owing.taken())
        {
            self.earlier.pop_front();
        }
        self.earlier.push_back((at, before));
    }

    /// Nothing is on its way, or nothing of it counts any more.
    #[inline]
    fn forget(&mut self) {
        self.at = 0;
        if !self.earlier.is_empty() {
            self.earlier = VecDeque::new();
        }
    }

    /// The message with this number has `failed`, and with it those up to the `last` have been skipped. What the unnamed
    /// statement is now, if that has changed with it.
    fn undo(&mut self, failed: u64, last: u64) -> Option<Option<Arc<Statement>>> {
        let mut changes = std::mem::take(&mut self.earlier);
        if self.at > 0 {
            changes.push_back((self.at, self.before.take()));
        }
        self.at = 0;
        let mut now = None;
        for (at, before) in changes {
            if at < failed {
                continue;
            }
            if at <= last {
                // Whoever fails to change it has taken it away.
                now.get_or_insert(before.filter(|_| at > failed));
                continue;
            }
            if self.at > 0 {
                self.earlier.push_back((self.at, self.before.take()));
            }
            self.at = at;
            self.before = now.take().unwrap_or(before);
        }
        now
    }
}

/// What happens to a name.
#[derive(Debug)]
enum NameChange {
    Defined,
    /// It was the name of this.
    Closed(Arc<Statement>),
}

/// A name, and what it is to stand for.
type Preparing = (Box<[u8]>, Option<Arc<Statement>>);

/// A portal whose statement changes the session when it is executed.
#[derive(Debug)]
struct Portal {
    name: Box<[u8]>,
    statement: Arc<Statement>,
    /// It deallocates by a stand-in what the session has by this name.
    takes: Option<Box<[u8]>>,
}

/// State that most sessions do not have.
#[derive(Debug, Default)]
struct Cold {
    /// The client's named statements.
    prepared: Names,
    /// Names whose Parse or Close has not been answered yet, in order. What an error skips is undone.
    unconfirmed: VecDeque<(Box<[u8]>, NameChange)>,
    /// Those that have been answered, of a unit that may still be taken back.
    confirmed: Vec<(Box<[u8]>, NameChange)>,
    /// What a DEALLOCATE or DISCARD ALL that has not been done yet is taking away.
    taken: Names,
    /// After a RESET: the values of the startup packet follow with the next unit, and may be news.
    restate: bool,
    /// What the client was told last of the settings of its startup packet, where that was something else.
    told: HashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState>,
    /// The unit that comes is sent again, with statements that are planned anew.
    renewed: bool,
    /// PREPAREs on their way, and a DEALLOCATE of what one of them prepares, which has none.
    preparing: VecDeque<Preparing>,
    /// Portals whose statements change the session when they are executed.
    portals: Vec<Portal>,
    /// The SETs of a transaction that may move, each behind a semicolon.
    repeat: Vec<u8>,
    /// Statements that wait for the end of a transaction.
    rest: Option<Rest>,
    /// What is heard through the shared connection; boxed, because few sessions listen.
    hearing: Option<Box<Hearing>>,
    settings: Settings,
    /// What is known of a long group that is not complete.
    surveyed: Option<front::Surveyed>,
}

impl Cold {
    /// Whether nothing of it waits for what a server says.
    fn is_quiet(&self) -> bool {
        self.unconfirmed.is_empty()
            && self.confirmed.is_empty()
            && self.taken.is_empty()
            && self.preparing.is_empty()
            && self.portals.is_empty()
            && self.repeat.is_empty()
            && self.rest.is_none()
            && self.hearing.is_none()
            && !self.renewed
            && !self.restate
            && self.settings.are_quiet()
    }
}

impl Session {
    /// A session with the settings of its startup packet, which are also what RESET goes back to. `serializable` tells the
    /// server's default for transactions.
    pub fn new(params: Arc<Params>, lexing: Lexing, serializable: bool) -> Session {
        let serializable = Serializable {
            now: params.serializable(serializable),
            default: serializable,
        };
        let cold = (!params.is_empty()).then(|| {
            Box::new(Cold {
                settings: Settings::new(params.clone()),
                ..Cold::default()
            })
        });
        Session {
            serializable,
            idle_limit: params.idle_limit(),
            params,
            floor: Floor::default(),
            affinity: Affinity::default(),
            pinned: Pinned::default(),
            sequences: Sequences::default(),
            sharing: Sharing::default(),
            steering: Steering::default(),
            lexing,
            lateness: Lateness::default(),
            block: Block::None,
            unnamed: None,
            unnamed_changes: UnnamedChanges::default(),
            group: Group::default(),
            stream: Stream::default(),
            cold,
        }
    }

    /// Why the session must keep its server connection, the first reason; `None` if it need not.
    pub fn pin(&self) -> Option<PinReason> {
        self.pins().iter().next()
    }

    /// Whether anything of the session is lost with its server connection. What its sequences gave last is not worth the
    /// session's end: it is then not defined yet, as in a new one.
    pub fn is_bound(&self) -> bool {
        self.pins() != Pins::NONE && self.pins() != Pins::NONE.with(PinReason::Sequence)
    }

    /// Whether a message or a group has been forwarded in part, so that the connection cannot be changed.
    pub fn mid_unit(&self) -> bool {
        self.group.open || self.stream.left > 0
    }

    /// Whether a message has been forwarded in part.
    pub fn mid_message(&self) -> bool {
        self.stream.left > 0
    }

    /// Whether a group has been forwarded without its Sync, and has not been failed by the proxy.
    pub fn has_open_group(&self) -> bool {
        self.group.open && !self.group.discard
    }

    /// Before the first byte of a unit: brings the session's settings to the connection, in the same flight. True if the
    /// unit must wait until they are there, because the server may refuse them, and the unit must not run without them.
    ///
    /// A `unit` that ends no transaction need not wait: the settings go in a transaction of their own, and where that
    /// fails it stays open, so that the server refuses the unit, too. Then [`Session::take_back`] has it.
    pub fn begin(
        &mut self,
        link: &mut Link,
        unit: Option<(&[u8], Class)>,
        out: &mut Vec<u8>,
    ) -> bool {
        self.sequences.placed();
        self.unnamed_changes.forget();
        if !link.own_names.is_empty() {
            self.hide_names(link, out);
        }
        if Arc::ptr_eq(&self.params, &link.params) {
            return false;
        }
        let set_up = link.set_up.is_some() && link.params.gives_up(&self.params);
        if set_up {
            set_up_again(link, out);
        }
        let mut sql = Vec::new();
        let refusable = link.params.put_difference(&self.params, &mut sql);
        if !sql.is_ascii() {
            // The server converts a text as a whole, by the encoding of the moment at which it comes.
            let mut encoding = Vec::new();
            link.params.put_encoding(&self.params, &mut encoding);
            inject(&encoding, link, out);
        }
        link.params = self.params.clone();
        if set_up {
            // Whatever the operator's SQL is, it stands in nobody's transaction.
            inject(&sql, link, out);
            return true;
        }
        if !(refusable && unit.is_some_and(|(unit, class)| front::is_refused_with(unit, class))) {
            inject(&sql, link, out);
            return refusable;
        }
        inject(&[b"BEGIN;", &sql[..], b"\n;COMMIT"].concat(), link, out);
        link.guarded = true;
        false
    }

    /// The connection is lost with the units on their way, which are sent again: the settings of the one that was sent with
    /// them have been refused, and so was the unit; or it was a standby's, and the client has seen nothing. Returns their
    /// bytes as the client sent them, and how many are the first unit's.
    pub fn take_back(&mut self, link: &mut Link) -> (Vec<u8>, usize) {
        self.unsend_block();
        self.lost(link);
        self.stream.drop = false;
        self.undo_units(link);
        link.replay.take()
    }

    /// Instead of [`Session::begin`], for a statement that mends settings which the server refuses: takes the connection to
    /// its own, so that nobody else's are in force.
    pub fn begin_bare(link: &mut Link, out: &mut Vec<u8>) {
        if !link.params.is_empty() {
            set_up_again(link, out);
        }
    }

    /// Between units of a session that keeps its connection, when it is not known what the server has prepared: the server
    /// forgets all of it, and the session prepares again what it uses. Nobody else has the connection afterwards.
    pub fn start_afresh(link: &mut Link, out: &mut Vec<u8>) {
        inject(b"DEALLOCATE ALL", link, out);
        link.held.clear();
        link.own_names.clear();
        link.doubtful = false;
        link.spent = true;
    }

    /// After the last reply of a unit: takes away what it left behind. The bytes are DISCARD ALL, with the operator's own
    /// SQL before and behind it; the replies are swallowed.
    pub fn clean(link: &mut Link, before: Option<&str>, behind: Option<&str>, out: &mut Vec<u8>) {
        inject(before.unwrap_or_default().as_bytes(), link, out);
        frontend::put_query(b"DISCARD ALL", out);
        link.owing.push(Owed::Injected { discard: true });
        inject(behind.unwrap_or_default().as_bytes(), link, out);
    }

    /// After the last reply of a unit: takes the session's `idle_session_timeout` from the connection, if it is there. The
    /// proxy counts that time, for clients: a connection idles in its pool, or while its session reads elsewhere, and its
    /// server would end it just when it is used again. [`Session::begin`] brings the setting back. The reply is swallowed.
    #[inline]
    pub fn leave_at_leisure(&self, link: &mut Link, out: &mut Vec<u8>) {
        if !Arc::ptr_eq(&self.params, &link.params) || self.idle_limit > 0 {
            take_idle_limit(link, out);
        }
    }

    /// After the last reply of a unit: takes away what functions may have left behind, and nothing else. Where that is more
    /// than can be told apart, the connection is dirty instead. The replies are swallowed, but for news of settings.
    pub fn wipe(link: &mut Link, out: &mut Vec<u8>) {
        let stains = std::mem::take(&mut link.stains);
        let mut sql = Vec::new();
        for (reason, cure) in CURES {
            if stains.has(*reason) {
                if !sql.is_empty() {
                    sql.push(b';');
                }
                sql.extend_from_slice(cure.as_bytes());
            }
        }
        let settings = stains.has(PinReason::Settings);
        if settings {
            // The client's own are there as before when it is over.
            Params::default().put_difference(&link.params, &mut sql);
        }
        if (settings && link.set_up.is_some()) || !sql.is_ascii() {
            link.dirty = true;
            return;
        }
        if stains.has(PinReason::Prepare) {
            link.held.clear();
            link.own_names.clear();
        }
        link.wiping = !sql.is_empty();
        inject(&sql, link, out);
    }

    /// The server connection is gone, with everything that it had. Returns whether a write may have been in flight.
    pub fn lost(&mut self, link: &Link) -> bool {
        let wrote = link.wrote
            || self.group.write
            || link.owing.iter().any(|owed| {
                matches!(
                    owed,
                    Owed::Query { write: true, .. } | Owed::Sync { write: true, .. } | Owed::Call
                )
            });
        // A group that the proxy has failed already stays failed up to its Sync.
        let discard = self.group.discard;
        self.group = Group {
            open: discard,
            discard,
            ..Group::default()
        };
        self.lose_block();
        self.stream.drop = true;
        self.pinned.clear();
        self.undo_names(usize::MAX);
        self.remember_taken();
        let unsent = self.is_in_unsent_block();
        if let Some(cold) = &mut self.cold {
            if unsent {
                cold.settings.take_back();
            } else {
                cold.settings.forget();
            }
            cold.preparing.clear();
            cold.portals.clear();
            cold.rest = None;
            if let Some(hearing) = &mut cold.hearing {
                hearing.forget_noted();
            }
        }
        wrote
    }

    /// After [`Session::lost`] inside a group whose Sync has not come: its remaining messages are dropped up to it.
    pub fn skip_to_sync(&mut self) {
        self.group = Group {
            open: true,
            discard: true,
            ..Group::default()
        };
    }

    /// A unit that no server could be found for: its messages are dropped. Returns whether its ReadyForQuery is due now;
    /// otherwise it is when the Sync comes.
    pub fn fail_unit(&mut self, unit: &[u8]) -> bool {
        self.fail_block();
        if is_unnamed_first(unit) {
            // A server forgets it before it finds fault with the message.
            self.unnamed = None;
        }
        let mut rest = unit;
        let mut last = None;
        while let Ok(Some(header)) = frame::header(rest, usize::MAX) {
            let here = header.total().min(rest.len());
            self.stream = Stream {
                left: header.total() - here,
                drop: true,
            };
            last = Some(header.tag);
            rest = &rest[here..];
        }
        // A Query or a call behind other messages is skipped with them.
        let ends = match last {
            Some(b'S') => true,
            Some(tag @ (b'Q' | b'F')) => unit.first() == Some(&tag),
            _ => false,
        };
        if !ends {
            self.skip_to_sync();
        }
        ends
    }

    /// The oldest changes of names have not happened.
    fn undo_names(&mut self, count: usize) {
        let Some(cold) = &mut self.cold else { return };
        let count = count.min(cold.unconfirmed.len());
        for (name, change) in cold.unconfirmed.drain(..count).rev() {
            match change {
                // Taken away on its way, or defined again behind that: the latest goes first.
                NameChange::Defined => match cold.prepared.remove(&name) {
                    None => cold.taken.remove(&name),
                    defined => defined,
                },
                NameChange::Closed(statement) => cold.prepared.insert(name, statement),
            };
        }
    }

    /// DEALLOCATE or DISCARD ALL has not happened.
    fn remember_taken(&mut self) {
        let Some(cold) = &mut self.cold else { return };
        for (name, statement) in cold.taken.drain() {
            cold.prepared.entry(name).or_insert(statement);
        }
    }

    fn set_params(&mut self, params: Arc<Params>) {
        self.serializable.now = params.serializable(self.serializable.default);
        self.steering.follow(&params);
        self.lateness.follow(&params);
        self.idle_limit = params.idle_limit();
        self.params = params;
    }

    /// For how many milliseconds the client may idle outside of a transaction, by the session's own `idle_session_timeout`; 0 if
    /// there is no bound.
    #[inline]
    pub fn idle_limit(&self) -> u32 {
        self.idle_limit
    }

    fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// The statement of this name; the empty one is the unnamed statement's.
    fn statement(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.prepared(name)
        }
    }

    fn prepared(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.cold.as_ref()?.prepared.get(name)
    }
}

/// How a server with these ParameterStatus values lexes statements.
pub fn lexing_of<'a>(reported: impl IntoIterator<Item = (&'a str, &'a str)>) -> Lexing {
    let mut lexing = Lexing::default();
    for (name, value) in reported {
        match name {
            "standard_conforming_strings" => lexing.standard_conforming_strings = value == "on",
            "client_encoding" => {
                lexing.safe_encoding = back::safe_encoding(value.as_bytes());
                lexing.utf8 = is_utf8(value.as_bytes());
            }
            _ => {}
        }
    }
    lexing
}

/// What takes away what functions have left behind.
const CURES: &[(PinReason, &str)] = &[
    (
        PinReason::AdvisoryLock,
        "SELECT pg_catalog.pg_advisory_unlock_all()",
    ),
    (PinReason::Listen, "UNLISTEN *"),
    (PinReason::HoldCursor, "CLOSE ALL"),
    (PinReason::TemporaryObject, "DISCARD TEMP"),
    (PinReason::Prepare, "DEALLOCATE ALL"),
    (
        PinReason::Settings,
        "SET SESSION AUTHORIZATION DEFAULT;RESET ALL",
    ),
];

/// A Query of the proxy's own, if there is anything in it.
fn inject(sql: &[u8], link: &mut Link, out: &mut Vec<u8>) {
    if sql.is_empty() {
        return;
    }
    frontend::put_query(sql, out);
    link.owing.push(Owed::Injected { discard: false });
    // A simple Query destroys the unnamed statement.
    link.unnamed = None;
}

/// Takes a connection to what it was when the operator's SQL had made it ready: RESET goes back to before that.
#[cold]
fn set_up_again(link: &mut Link, out: &mut Vec<u8>) {
    let own = Arc::<Params>::default();
    let mut sql = Vec::new();
    link.params.put_difference(&own, &mut sql);
    inject(&sql, link, out);
    link.params = own;
    let set_up = link.set_up.clone();
    inject(set_up.as_deref().unwrap_or_default().as_bytes(), link, out);
}

#[cold]
fn take_idle_limit(link: &mut Link, out: &mut Vec<u8>) {
    if link.params.idle_limit() > 0 {
        // Whatever role is in force.
        inject(b"RESET idle_session_timeout", link, out);
        link.params = Arc::new(link.params.at_leisure());
        link.wiping = true;
    }
}

/// Whether a connection is between units: everything answered, no transaction open.
fn between_units(link: &Link) -> bool {
    link.settled() && link.status == Status::Idle
}

/// Whether the first message of a unit is a Parse of the unnamed statement, or a Query, which destroys it.
fn is_unnamed_first(unit: &[u8]) -> bool {
    match unit.first() {
        Some(b'P') => unit.get(frame::HEADER) == Some(&0),
        Some(tag) => *tag == b'Q',
        None => false,
    }
}
