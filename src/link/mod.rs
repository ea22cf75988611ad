//! One server connection as the protocol sees it: which replies it owes, which statements and settings it holds.
//!
//! A [`Link`] stays with its server connection while clients come and go, so that the next client pays only for the
//! difference between what it needs and what is already there. `link` has never met a socket: bytes go through it on
//! their way, in `session`.

mod held;
mod owed;
mod params;
mod replay;
mod statements;

use std::sync::Arc;

pub use held::{Held, OwnNames};
pub use owed::{CopyIn, Local, Owed, Owing, name_tag};
pub use params::{IDLE_SESSION_TIMEOUT, Params, Value};
pub use replay::{Again, Bounce, Refusal, Replay};
pub use statements::{Statement, StatementId, Statements, put_name};

use crate::sql::Pins;
use crate::sql::catalog::Change;
use crate::wire::Status;

/// Protocol state of one server connection.
#[derive(Debug, Default)]
pub struct Link {
    /// Replies that the server, or the proxy in its place, still owes the client.
    pub owing: Owing,
    /// Transaction status of the last ReadyForQuery.
    pub status: Status,
    /// Bytes of a body that are still to come: they pass, or are swallowed, unread.
    pub body: Body,
    /// The front of a message of which too little has arrived to act on it; at most a header and 2 KiB.
    pub partial: Vec<u8>,
    /// The server waits for CopyData.
    pub copy_in: bool,
    /// Settings that differ from the connection's own defaults.
    pub params: Arc<Params>,
    /// Prepared statements that the server has, by the proxy's names.
    pub held: Held,
    /// Prepared statements that the server has by clients' own names.
    pub own_names: OwnNames,
    /// What the unnamed prepared statement is, if the proxy knows.
    pub unnamed: Option<StatementId>,
    /// Something was left behind that is not tracked (a setting, a lock, a statement): clean before anyone else.
    pub dirty: bool,
    /// What functions that nobody has looked into may have left behind: it is taken away before anyone else.
    pub stains: Pins,
    /// It is being taken away, or a setting that nobody may leave on it. Nothing is sent behind that.
    pub wiping: bool,
    /// A statement that takes prepared statements away was forwarded at this moment of `held`, and has not been done yet.
    /// Nothing is sent behind its unit.
    pub forgetting: Option<u64>,
    /// A RESET was forwarded that takes the connection to its own default, and the session to another. Nothing is sent
    /// behind its unit.
    pub resetting: bool,
    /// The operator's SQL that has made the connection ready, if there is any: what takes settings back undoes that, too.
    pub set_up: Option<Arc<str>>,
    /// The units in progress as the client sent them, if they may have to be sent again. They stay with the connection, so
    /// that their memory is that of connections, not of clients.
    pub replay: Replay,
    /// Its node is a standby: what it refuses runs elsewhere.
    pub bounces: bool,
    /// The node was a standby when the unit in progress was sent.
    pub on_standby: bool,
    /// One unit is on its way, on a connection that owed nothing before, and all that it does is read: if it is answered as
    /// reads are, there is nothing to note.
    pub plain: bool,
    /// The unit in progress may be sent again on this connection after its Bind has failed.
    pub replans: bool,
    /// It follows settings that the server may refuse, and is refused with them. Nothing is sent behind it.
    pub guarded: bool,
    /// The error that bringing a statement to the connection ended with: what the client's own message failed for.
    pub unsaid: Option<Vec<u8>>,
    /// A statement was forwarded that may change how others are routed. Nothing is sent behind its unit.
    pub steering: bool,
    /// The proxy's own error, for the place of one that the server is made to raise.
    pub own_words: Option<Vec<u8>>,
    /// A PREPARE was forwarded. Nothing is sent behind its unit.
    pub preparing: bool,
    /// What the server has is not known: the connection must not be used again.
    pub doubtful: bool,
    /// It is for the session that has it, and for nobody else after it.
    pub spent: bool,
    /// The unit in progress has failed.
    pub failed: bool,
    /// It has failed while the server waited for CopyData.
    pub copy_failed: bool,
    /// What has been forwarded and not answered may change the catalog.
    pub changes_catalog: Change,
    /// The transaction in progress may have changed the catalog.
    pub catalog_open: Change,
    /// The end of a transaction block is among what has been forwarded and not answered.
    pub committing: bool,
    /// What may begin a transaction block is among what has been forwarded and not answered.
    pub beginning: bool,
    /// The transaction in progress contains a write.
    pub wrote: bool,
    /// The server said that it ends the session; nothing but the end of the stream is expected.
    pub fatal: bool,
    /// It did so because the session has been idle for too long.
    pub idled_out: bool,
    /// What runs is being cancelled because it takes longer than the proxy lets it.
    pub overdue: bool,
    /// Why the server refused one of the proxy's own statements.
    pub refusal: Option<String>,
    /// Whose are the values that currval and lastval tell of here.
    pub sequences: SequenceMark,
}

/// Who may have called nextval last on a connection: a session, by its number, and how often it had come to another
/// connection for that. A connection that bears what the session does has its last values.
#[derive(Clone, Copy, Debug, Default)]
pub struct SequenceMark {
    session: u64,
    turn: u32,
    /// What others had called before it is still there.
    mixed: bool,
}

impl SequenceMark {
    /// That of somebody who is no session: what a connection has that was to lose its values, and may not have.
    pub const UNKNOWN: SequenceMark = SequenceMark {
        session: u64::MAX,
        turn: 1,
        mixed: false,
    };

    /// That of a session which has called nothing. Sessions count from 1.
    pub fn new(session: u64) -> SequenceMark {
        SequenceMark {
            session,
            ..SequenceMark::default()
        }
    }

    /// Whether both are the same turn of the same session.
    #[inline]
    pub fn is(self, other: SequenceMark) -> bool {
        self.session == other.session && self.turn == other.turn && self.is_used()
    }

    /// Whether nobody has called it.
    pub fn is_nobodys(self) -> bool {
        self.session == 0
    }

    /// Whether the session has come to any connection for it.
    pub fn is_used(self) -> bool {
        self.turn > 0
    }

    /// Whether values of others may be among them.
    pub fn is_mixed(self) -> bool {
        self.mixed
    }

    /// The session comes to another connection: what that bears.
    pub fn renewed(&mut self, mixed: bool) -> SequenceMark {
        // It begins at 1 again only after more connections than a session lives to see.
        self.turn = self.turn.checked_add(1).unwrap_or(1);
        SequenceMark { mixed, ..*self }
    }
}

/// The rest of a message whose header has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Bytes still to come.
    pub left: usize,
    /// They are not for the client.
    pub swallow: bool,
}

impl Link {
    /// A fresh connection that may hold `max_prepared` statements.
    pub fn new(max_prepared: usize) -> Link {
        Link {
            held: Held::new(max_prepared),
            ..Link::default()
        }
    }

    /// Whether everything that was forwarded has been answered, in full.
    pub fn settled(&self) -> bool {
        self.owing.is_empty() && self.body.left == 0 && self.partial.is_empty()
    }

    /// Whether the server has a prepared statement, and will have it when the next message gets there. It counts as used.
    #[inline]
    pub fn has(&mut self, id: StatementId) -> bool {
        match self.forgetting {
            Some(moment) => self.held.touch_after(id, moment),
            None => self.held.touch(id),
        }
    }

    /// Whether the connection may go back to its pool: settled, outside of any transaction, and clean.
    pub fn reusable(&self) -> bool {
        self.settled()
            && self.status == Status::Idle
            && !self.dirty
            && self.stains.is_empty()
            && !self.copy_in
            && !self.fatal
            && !self.doubtful
            && !self.spent
    }

    /// Whether what the server runs may be committing, though nobody has said COMMIT: a write outside of a transaction
    /// block, or a group whose Sync has not come, in which a procedure may commit.
    pub fn may_commit(&self) -> bool {
        let writes = |owed| {
            matches!(
                owed,
                Owed::Query { write: true, .. } | Owed::Sync { write: true, .. } | Owed::Call
            )
        };
        self.status == Status::Idle && (!self.owing.owes_end() || self.owing.iter().any(writes))
    }

    /// Whether a message has been forwarded to the client only in part, so that nothing else can be said to it.
    pub fn mid_message(&self) -> bool {
        // What is held back ends with the latest message.
        self.body.left > 0 && !self.body.swallow && !self.replay.has_unseen()
    }

    /// Everything that DISCARD ALL takes away has been taken away.
    pub fn discarded(&mut self) {
        self.held.clear();
        self.own_names.clear();
        self.unnamed = None;
        self.params = Arc::default();
        self.dirty = false;
        self.stains = Pins::NONE;
        self.sequences = SequenceMark::default();
    }
}
