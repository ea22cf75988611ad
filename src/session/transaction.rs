//! Transaction blocks that begin late, so that their first statement chooses their place (routing.md §2.3).
//!
//! ```text
//!   None ──BEGIN──▶ Unsent ──first statement──▶ Sent ──its end──▶ None
//!           ▲          │ ▲                       │
//!           └──COMMIT──┤ └──── migrated ─────────┘   from a standby to the primary, unseen
//!                      └──no server──▶ Failed ──ROLLBACK──▶ None
//! ```
//!
//! Only BEGINs whose modes every server accepts are answered here; everything else goes to a server at once, and its
//! transaction block is the server's alone, as is one among several statements or behind what is on its way.

use super::front::{Context, Frames, Next};
use super::listen::{NO_TYPES, put_complete};
use super::{Group, Session, between_units, bounce, inject};
use crate::link::{Link, Owed, Params, Statement, Value};
use crate::sql::setting::{self, Change, Parsed};
use crate::sql::{
    self, Access, Class, Control, HintedPlace, Isolation, Modes, Reason, SessionEffect, TxEffect,
    mentions,
};
use crate::wire::frame::{HEADER, put_header, split_cstr};
use crate::wire::frontend::{self, Target};
use crate::wire::{Notice, SqlState, Status, reply};

/// The session's transaction block, so far as the proxy has begun it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Block {
    /// None, or one that is its server's alone.
    #[default]
    None,
    /// The client has been told that it has begun; no server has.
    Unsent(Begun),
    /// It is on the connection that is held.
    Sent(Begun),
    /// It has failed before any of it was sent.
    Failed(Begun),
}

/// A transaction block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    modes: Modes,
    read_only: bool,
    /// `None` if it is not known.
    isolation: Option<Isolation>,
    /// It comes from a standby, which could not go on with it.
    needs_primary: bool,
    /// It has read.
    has_read: bool,
    /// The client has been given an answer of its server's.
    answered: bool,
    /// Something ties it to its connection: a cursor, a savepoint, a setting that has been reset.
    tied: bool,
    /// It may read from a standby until it does something else (routing.md §2.3.5).
    hopeful: bool,
    /// The client's own BEGIN begins it, in the group that is on its way.
    begins_itself: bool,
}

impl Begun {
    /// Whether a standby may take it.
    fn may_leave_primary(self) -> bool {
        let level = self
            .isolation
            .is_some_and(|level| level != Isolation::Serializable);
        ((self.read_only && level) || self.is_optimistic()) && !self.needs_primary
    }

    /// Whether each of its statements has a snapshot of its own.
    fn is_read_committed(self) -> bool {
        matches!(
            self.isolation,
            Some(Isolation::ReadCommitted | Isolation::ReadUncommitted)
        )
    }

    /// Whether it may write, and may read from a standby before.
    fn is_optimistic(self) -> bool {
        self.hopeful && !self.read_only && self.is_read_committed()
    }

    /// The same where it begins again. What the client has seen of it, no other standby may be behind.
    fn elsewhere(self) -> Begun {
        Begun {
            needs_primary: self.needs_primary || self.answered,
            tied: false,
            ..self
        }
    }

    /// Whether it may still move from a standby to the primary. Not with a snapshot of its own.
    fn is_movable(self) -> bool {
        (self.read_only || self.hopeful) && self.is_read_committed() && !self.tied
    }
}

/// What transactions of a session are if they do not say: its server's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionDefaults {
    /// `default_transaction_isolation`; `None` if it is not known.
    pub isolation: Option<Isolation>,
    /// `default_transaction_read_only`.
    pub read_only: bool,
}

/// Whether transactions begin late, and what they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lateness {
    defaults: Option<TransactionDefaults>,
    /// What the session's settings make of them; `None` if its transactions begin at once.
    now: Option<TransactionDefaults>,
    /// Those that may write read from standbys until they do.
    pub(super) optimistic: bool,
}

impl Lateness {
    /// The session's settings are these now. A server that is to watch how long a transaction takes, or is idle, has to
    /// know when it begins.
    pub(super) fn follow(&mut self, params: &Params) {
        let watched = ["idle_in_transaction_session_timeout", "transaction_timeout"]
            .into_iter()
            .any(|name| params.get(name).is_some_and(|value| plain(value) != "0"));
        self.now = self.defaults.filter(|_| !watched).map(|defaults| {
            let isolation = params.get("default_transaction_isolation").map(plain);
            let read_only = params.get("default_transaction_read_only").map(plain);
            TransactionDefaults {
                isolation: isolation.map_or(defaults.isolation, |name| Isolation::named(&name)),
                read_only: read_only.map_or(defaults.read_only, |value| is_on(&value)),
            }
        });
    }
}

/// A setting's value as it was given, without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::Plain(text) => text.trim().to_ascii_lowercase(),
        Value::Sql(sql) => String::from_utf8_lossy(sql)
            .trim()
            .trim_matches(['\'', '"'])
            .trim()
            .to_ascii_lowercase(),
    }
}

/// What surely means yes. PostgreSQL takes more: a transaction that is taken for one that writes loses nothing.
fn is_on(value: &str) -> bool {
    matches!(value, "on" | "true" | "yes" | "1")
}

/// Most bytes of SET that are kept, to be repeated elsewhere.
const MAX_REPEATED: usize = 4096;

/// What a server is given in place of a statement that it must not get: no statement at all, so that its transaction fails
/// as if it had refused the client's. Its log shows this text.
const REFUSED: &[u8] = b"pgweir has refused a statement of this transaction\0\0\0";

/// The command tag of SET TRANSACTION.
const SET: &[u8] = b"SET";

/// What a unit of a transaction on a standby comes to.
enum Verdict {
    Stays,
    Moves,
    Refused,
}

/// The statements of a Query behind the end of a transaction.
#[derive(Debug)]
pub(super) enum Rest {
    /// They begin at the second of these places in the text that is about to be sent, which has its end at the first.
    At(usize, usize),
    /// As a Query.
    Query(Vec<u8>),
}

/// What a message is answered with where no server is asked.
enum Answer<'a> {
    Parsed(frontend::Parse<'a>),
    Bound,
    /// A statement, and not a portal.
    Described(bool),
    Completed(&'static [u8]),
    Closed(Target<'a>),
    Ready,
    Nothing,
}

/// How far a group has been gone through without a server.
struct Reading<'a> {
    block: Block,
    /// The statement of the last Parse.
    parsed: Option<(&'a [u8], Option<Control>)>,
    /// The unnamed portal, until it is executed.
    bound: Option<Control>,
    /// A name has been prepared. Another in the same group is the server's to judge.
    named: bool,
    /// A statement has been closed: what names stand for behind it is the server's to say.
    closed: bool,
    /// All of the group can be answered.
    sure: bool,
}

impl Session {
    /// Transaction blocks begin with their first statement, where it is safe to let them.
    #[must_use]
    pub fn with_deferred_begin(mut self, defaults: TransactionDefaults) -> Session {
        self.lateness.defaults = Some(defaults);
        self.lateness.follow(&self.params);
        self
    }

    /// Transactions that may write read from standbys until they do, where nobody can tell.
    #[must_use]
    pub fn with_optimism(mut self) -> Session {
        self.lateness.optimistic = true;
        self
    }

    /// Whether the transaction that the client has begun may read from a standby and write afterwards: what the standby shows
    /// must be no older than the BEGIN.
    pub fn is_optimistic(&self) -> bool {
        matches!(self.block, Block::Unsent(begun) if begun.is_optimistic())
    }

    /// Whether the client is in a transaction block of which no server knows.
    pub fn is_in_unsent_block(&self) -> bool {
        matches!(self.block, Block::Unsent(_) | Block::Failed(_))
    }

    /// Whether the client is in a transaction block of the held connection, though its server may not have said so yet.
    pub fn is_in_sent_block(&self) -> bool {
        matches!(self.block, Block::Sent(_))
    }

    /// Whether there is a transaction block, as far as has been sent or asked for.
    pub(super) fn has_block(&self) -> bool {
        self.block != Block::None
    }

    /// Appends the ReadyForQuery that is true while nothing is owed.
    pub fn put_ready(&self, out: &mut Vec<u8>) {
        reply::ready(
            match self.block {
                Block::None => Status::Idle,
                Block::Unsent(_) | Block::Sent(_) => Status::Transaction,
                Block::Failed(_) => Status::Failed,
            },
            out,
        );
    }

    /// A unit has found no server: so has the transaction that it was to begin.
    pub(super) fn fail_block(&mut self) {
        if let Block::Unsent(begun) = self.block {
            self.block = Block::Failed(begun);
        }
    }

    /// The server connection is gone, and a block that was there with it.
    pub(super) fn lose_block(&mut self) {
        if let Block::Sent(_) = self.block {
            self.block = Block::None;
        }
    }

    /// What was sent has not been taken by the server: the block has not begun.
    pub(super) fn unsend_block(&mut self) {
        if let Block::Sent(begun) = self.block {
            self.block = match begun.begins_itself {
                // Its BEGIN is among what is sent again.
                true => Block::None,
                false => Block::Unsent(begun.elsewhere()),
            };
        }
    }

    /// A unit of the block has been answered.
    pub(super) fn answer_block(&mut self) {
        if let Block::Sent(begun) = &mut self.block {
            begun.answered = true;
            begun.begins_itself = false;
        }
    }

    /// Whether the unit that is being forwarded has the BEGIN of its block in it.
    pub(super) fn begins_itself(&self) -> bool {
        matches!(self.block, Block::Sent(begun) if begun.begins_itself)
    }

    /// A unit has ended outside of any transaction block.
    pub(super) fn end_block(&mut self) {
        if let Block::Sent(_) = self.block {
            self.block = Block::None;
            self.forget_settings();
        }
    }

    /// Its settings are done, or undone.
    fn forget_settings(&mut self) {
        if let Some(cold) = &mut self.cold {
            cold.repeat = Vec::new();
        }
    }

    fn complete(&mut self, tag: &[u8], replies: &mut Vec<u8>) {
        if tag != SET {
            self.forget_settings();
            if let Some(cold) = &mut self.cold {
                cold.settings.forget();
            }
        }
        put_complete(tag, replies);
    }

    fn begun(&self, modes: Modes, defaults: TransactionDefaults) -> Begun {
        Begun {
            modes,
            read_only: modes.read_only.unwrap_or(defaults.read_only),
            isolation: modes.isolation.or(defaults.isolation),
            needs_primary: false,
            has_read: false,
            answered: false,
            tied: false,
            hopeful: self.lateness.optimistic,
            begins_itself: false,
        }
    }

    /// What a statement about the transaction makes of a block of which no server knows, and its command tag. `None` if a
    /// server has to be asked.
    fn step(&self, block: Block, control: Control) -> Option<(Block, &'static [u8])> {
        Some(match (block, control) {
            (Block::None, Control::Begin { start, modes }) => {
                let tag: &[u8] = if start {
                    b"START TRANSACTION"
                } else {
                    b"BEGIN"
                };
                (Block::Unsent(self.begun(modes, self.lateness.now?)), tag)
            }
            (Block::Unsent(begun), Control::Set(modes)) => {
                let changed = Begun {
                    modes: begun.modes.changed(modes),
                    read_only: modes.read_only.unwrap_or(begun.read_only),
                    isolation: modes.isolation.or(begun.isolation),
                    ..begun
                };
                (Block::Unsent(changed), SET)
            }
            (Block::Unsent(begun) | Block::Failed(begun), Control::End { commit, chain }) => {
                let failed = matches!(block, Block::Failed(_));
                let tag: &[u8] = if commit && !failed {
                    b"COMMIT"
                } else {
                    b"ROLLBACK"
                };
                let next = Begun {
                    needs_primary: false,
                    has_read: false,
                    answered: false,
                    tied: false,
                    ..begun
                };
                (
                    if chain {
                        Block::Unsent(next)
                    } else {
                        Block::None
                    },
                    tag,
                )
            }
            _ => return None,
        })
    }

    /// Whether what comes may be answered without a server, as far as the connection that is held is concerned.
    fn is_free(&self, held: Option<(&Link, bool)>) -> bool {
        // A session that wants standbys only has one for whatever it does.
        held.is_none_or(|(link, _)| between_units(link))
            && self.pin().is_none()
            && !self.is_on_standbys()
    }

    /// What becomes of a Query because of the transaction block that it begins, ends or is in; `None` if that makes no
    /// difference.
    pub(super) fn query_in_block(
        &mut self,
        unit: &[u8],
        class: Class,
        held: Option<(&Link, bool)>,
        context: Context<'_>,
        replies: &mut Vec<u8>,
    ) -> Option<Next> {
        // One that asks for the primary begins there.
        let is_placed = class.hint.place == Some(HintedPlace::Primary);
        let is_late = self.lateness.now.is_some() && class.tx != TxEffect::None && !is_placed;
        if class.access == Access::Empty
            && self.block == Block::None
            && self.is_free(held)
            && whole_query(unit).is_some()
        {
            return Some(self.answer_empty(unit, replies));
        }
        if self.block == Block::None && (!is_late || !self.is_free(held)) {
            return self.on_standby(unit, class, held);
        }
        if let Block::Sent(_) = self.block {
            return self
                .ends_on_standby(unit, class, held, context)
                .or_else(|| self.on_standby(unit, class, held));
        }
        if !held.is_none_or(|(link, _)| between_units(link)) {
            return Some(Next::Drain);
        }
        let len = unit.len();
        let text = whole_query(unit);
        if class.access == Access::Empty && self.block != Block::None && text.is_some() {
            return Some(self.answer_empty(unit, replies));
        }
        if class.statements == 1
            && let Some(control) = text.and_then(sql::control)
            && let Some((block, tag)) = self.step(self.block, control)
        {
            self.block = block;
            self.unnamed = None;
            self.complete(tag, replies);
            self.put_ready(replies);
            return Some(Next::Reply { len });
        }
        let Block::Failed(begun) = self.block else {
            return None;
        };
        let first = text.and_then(|text| sql::statements(text).into_iter().next());
        if class.statements > 1
            && let Some(Control::End { commit: false, .. }) = first.and_then(sql::control)
        {
            // It begins with a ROLLBACK, which it is given something for.
            self.block = Block::Unsent(begun);
            return None;
        }
        Some(self.refuse_failed(unit, replies))
    }

    /// A Query without a statement.
    fn answer_empty(&mut self, unit: &[u8], replies: &mut Vec<u8>) -> Next {
        self.unnamed = None;
        put_header(replies, b'I', 0);
        self.put_ready(replies);
        Next::Reply { len: unit.len() }
    }

    /// The same for a group, which is answered here if all of it can be.
    pub(super) fn group_in_block(
        &mut self,
        group: &[u8],
        class: Class,
        held: Option<(&Link, bool)>,
        context: Context<'_>,
        replies: &mut Vec<u8>,
    ) -> Option<Next> {
        if let Block::Sent(_) = self.block {
            return self.on_standby(group, class, held);
        }
        let concerned = self.block != Block::None
            || held.is_none()
            || (self.lateness.now.is_some() && class.tx != TxEffect::None);
        let free = held.is_none() || self.is_free(held);
        if !concerned || !free {
            if self.block != Block::None {
                return Some(Next::Drain);
            }
            return self.on_standby(group, class, held);
        }
        let len = group.len();
        // A statement that reads or writes rows is among its own: no server, no answer.
        let is_for_server = class.access == Access::Read || class.reason == Reason::DataModifying;
        if !is_for_server && self.answer(group, context, replies) {
            return Some(Next::Reply { len });
        }
        if let Block::Failed(_) = self.block {
            return Some(self.refuse_failed(group, replies));
        }
        None
    }

    /// The same for a function call.
    pub(super) fn call_in_block(
        &mut self,
        unit: &[u8],
        class: Class,
        held: Option<(&Link, bool)>,
        replies: &mut Vec<u8>,
    ) -> Option<Next> {
        match self.block {
            Block::Failed(_) => Some(self.refuse_failed(unit, replies)),
            Block::Unsent(_) => None,
            _ => self.on_standby(unit, class, held),
        }
    }

    /// Nothing but the end of it passes in a transaction that has failed.
    fn refuse_failed(&mut self, unit: &[u8], replies: &mut Vec<u8>) -> Next {
        failed_transaction().put(replies);
        if self.fail_unit(unit) {
            self.put_ready(replies);
        }
        Next::Reply { len: unit.len() }
    }

    /// Where the first statement of a block takes it: a class that goes there.
    pub(super) fn class_in_block(
        &self,
        unit: &[u8],
        class: Class,
        held: Option<(&Link, bool)>,
        context: Context<'_>,
    ) -> Class {
        let Block::Unsent(begun) = self.block else {
            let late = class.tx == TxEffect::Begin
                && self.lateness.now.is_some()
                && self.is_free(held)
                && self.late_group(unit, context).is_some();
            return if late {
                Class {
                    access: Access::Read,
                    ..class
                }
            } else {
                class
            };
        };
        let access = match class.access {
            Access::Write | Access::Primary => return class,
            _ if !begun.may_leave_primary() || self.serializable.now => Access::Primary,
            _ if begun.is_optimistic() && !self.is_plain_read(unit, class) => Access::Primary,
            Access::Read => return class,
            // It says nothing about where the transaction belongs, and is repeated if that is elsewhere.
            Access::Neutral if is_repeatable_set(unit, class) => Access::Read,
            Access::Neutral | Access::Empty => Access::Primary,
        };
        Class {
            access,
            reason: Reason::Transaction,
            ..class
        }
    }

    /// The transaction that a group begins itself, if a standby may take all of it: it is READ ONLY, and the rest of the
    /// group reads. So pgjdbc has it, in front of the first statement.
    fn late_group(&self, unit: &[u8], context: Context<'_>) -> Option<Begun> {
        let mut begun = None;
        let mut unnamed = false;
        let mut judge = |statement: &Statement| match control_of(statement) {
            Some(Control::Begin { modes, .. }) if begun.is_none() => {
                let this = self.begun(modes, self.lateness.now?);
                begun = (this.read_only && this.may_leave_primary()).then_some(this);
                begun.map(|_| ())
            }
            _ => {
                let class = self.class_of(statement, context);
                let reads = matches!(class.access, Access::Read | Access::Empty);
                (reads && class.tx == TxEffect::None).then_some(())
            }
        };
        let mut frames = Frames(unit);
        for (header, body) in frames.by_ref() {
            match header.tag {
                b'P' => {
                    let parse = frontend::parse(body)?;
                    unnamed |= parse.name.is_empty();
                    judge(&self.intern(parse, context))?;
                }
                b'B' => {
                    let bind = frontend::bind(body)?;
                    if !(bind.statement.is_empty() && unnamed)
                        && let Some(statement) = self.bound(body)
                    {
                        judge(statement)?;
                    }
                }
                b'D' | b'E' | b'C' | b'S' | b'H' => {}
                _ => return None,
            }
        }
        begun.filter(|_| frames.0.is_empty() && !self.serializable.now)
    }

    /// A group is on its way that begins a transaction on a standby.
    pub(super) fn note_late_group(
        &mut self,
        unit: &[u8],
        class: Option<Class>,
        context: Context<'_>,
    ) {
        let late = |class: Class| class.access == Access::Read && class.tx == TxEffect::Begin;
        if self.block == Block::None
            && class.is_some_and(late)
            && let Some(begun) = self.late_group(unit, context)
        {
            self.block = Block::Sent(Begun {
                begins_itself: true,
                ..begun
            });
        }
    }

    /// Before the bytes of a block's first unit: begins it.
    pub(super) fn send_block(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        let Block::Unsent(mut begun) = self.block else {
            return;
        };
        let modes = Modes {
            read_only: match begun.is_optimistic() && link.on_standby {
                // Even if the node becomes a primary: what writes moves.
                true => Some(true),
                false => begun.modes.read_only.or(begun.read_only.then_some(true)),
            },
            ..begun.modes
        };
        let repeat = self.cold.as_ref().map_or(&[][..], |cold| &cold.repeat);
        if modes == Modes::default() && repeat.is_empty() {
            inject(b"BEGIN", link, out);
        } else {
            let mut sql = Vec::new();
            modes.put_begin(&mut sql);
            sql.extend_from_slice(repeat);
            inject(&sql, link, out);
        }
        begun.has_read = false;
        begun.answered = false;
        self.block = Block::Sent(begun);
    }

    /// What becomes of a unit of a transaction on a standby; `None` if it goes its way.
    fn on_standby(
        &mut self,
        unit: &[u8],
        class: Class,
        held: Option<(&Link, bool)>,
    ) -> Option<Next> {
        let (link, true) = held? else { return None };
        if between_units(link) || self.is_on_standbys() {
            return None;
        }
        let verdict = self.verdict(unit, class, link);
        let may_be_brought_back = link.status == Status::Failed && !link.settled();
        if may_be_brought_back && matches!(class.access, Access::Primary | Access::Write) {
            return Some(Next::Drain);
        }
        if !matches!(verdict, Verdict::Stays) && !link.settled() {
            return Some(Next::Drain);
        }
        match verdict {
            // What is before it may have to be sent again.
            Verdict::Stays
                if link.replay.may_bounce()
                    && matches!(class.access, Access::Primary | Access::Write) =>
            {
                Some(Next::Drain)
            }
            Verdict::Stays if matches!(class.access, Access::Primary | Access::Write) => {
                Some(Next::Forward {
                    len: unit.len(),
                    class: Some(class),
                })
            }
            Verdict::Stays => None,
            Verdict::Moves => Some(Next::Rehome),
            Verdict::Refused => Some(Next::Refuse { len: unit.len() }),
        }
    }

    /// Several statements, the first of which end a transaction on a standby, and before its end read at most: those run
    /// there, and the others behind the end as a Query of their own, wherever they belong.
    fn ends_on_standby(
        &mut self,
        unit: &[u8],
        class: Class,
        held: Option<(&Link, bool)>,
        context: Context<'_>,
    ) -> Option<Next> {
        let (link, true) = held? else { return None };
        let needs_primary = matches!(class.access, Access::Primary | Access::Write);
        if class.statements < 2 || !needs_primary || between_units(link) || self.is_on_standbys() {
            return None;
        }
        let text = whole_query(unit)?;
        let failed = link.status == Status::Failed;
        let statements = sql::statements(text);
        let reads = |statement: &&&[u8]| !failed && self.only_reads(statement, context);
        let before = statements.iter().take_while(reads).count();
        let end = statements.get(before)?;
        let Some(Control::End { chain: false, .. }) = sql::control(end) else {
            return None;
        };
        if !link.settled() {
            return Some(Next::Drain);
        }
        if let Some(next) = statements.get(before + 1) {
            let place = |statement: &[u8]| statement.as_ptr().addr() - text.as_ptr().addr();
            self.cold().rest = Some(Rest::At(place(end) + end.len(), place(next)));
        }
        let neutral = Class {
            access: Access::Neutral,
            tx: TxEffect::Mixed,
            session: SessionEffect::None,
            reason: Reason::Transaction,
            ..class
        };
        Some(Next::Forward {
            len: unit.len(),
            class: Some(neutral),
        })
    }

    fn only_reads(&self, statement: &[u8], context: Context<'_>) -> bool {
        let class = self.classify(statement, context);
        class.statements == 1 && class.access == Access::Read && bounce::only_reads(class)
    }

    /// Whether statements wait for the end of the transaction that was sent before them.
    pub(super) fn awaits_rest(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.rest.is_some())
    }

    /// The text that is to be sent of one that is parted behind the end of a transaction; all of any other.
    pub(super) fn part<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let Some(Rest::At(end, next)) = self.cold.as_ref().and_then(|cold| cold.rest.as_ref())
        else {
            return text;
        };
        let (front, rest) = (&text[..*end], &text[*next..]);
        let mut query = Vec::new();
        frontend::put_query(rest, &mut query);
        self.cold().rest = Some(Rest::Query(query));
        front
    }

    /// The end of the transaction has been answered: what was to follow it as a Query, unless it has `failed`.
    pub(super) fn take_rest(&mut self, failed: bool) -> Option<Vec<u8>> {
        match self.cold.as_mut()?.rest.take()? {
            Rest::Query(query) if !failed => Some(query),
            _ => None,
        }
    }

    fn verdict(&self, unit: &[u8], class: Class, link: &Link) -> Verdict {
        if let Block::Sent(begun) = self.block
            && begun.is_optimistic()
            && link.status != Status::Failed
        {
            // Nothing but reads, and its end: whatever else it does it does on the primary. After a read every server refuses
            // to change what the transaction is.
            let refused = || match whole_query(unit).and_then(sql::control) {
                Some(Control::Set(modes)) => {
                    modes.isolation.is_some() || modes.deferrable.is_some()
                }
                _ => false,
            };
            let stays = self.is_plain_read(unit, class)
                || self.only_ends(unit, class)
                || (begun.has_read && refused());
            return if stays {
                Verdict::Stays
            } else {
                Verdict::Moves
            };
        }
        if !matches!(class.access, Access::Primary | Access::Write) {
            let elsewhere = |begun: Begun| match class.access {
                // As the first statement of a block that no server knows it would have begun on the primary.
                Access::Neutral => {
                    class.tx == TxEffect::None && !begun.has_read && !is_repeatable_set(unit, class)
                }
                // What reads beside something else could not be taken back if it was refused.
                Access::Read => !bounce::only_reads(class) && !self.reads_and_ends(unit, class),
                _ => false,
            };
            return match self.block {
                Block::Sent(begun)
                    if link.status == Status::Transaction
                        && begun.is_movable()
                        && elsewhere(begun) =>
                {
                    Verdict::Moves
                }
                _ => Verdict::Stays,
            };
        }
        let Block::Sent(begun) = self.block else {
            return Verdict::Refused;
        };
        let text = whole_query(unit);
        if link.status == Status::Failed {
            // It refuses all of it, and says whether that was a statement at all.
            let is_unread = class.reason == Reason::Unparsable
                || (class.reason == Reason::Utility && class.session == SessionEffect::Unknown);
            if matches!(class.tx, TxEffect::None | TxEffect::Begin) && is_unread {
                return Verdict::Stays;
            }
            // A text that begins with ROLLBACK is given something to roll back, where all of it may run.
            let first = text.and_then(|text| sql::statements(text).into_iter().next());
            return match first.and_then(sql::control) {
                Some(Control::End {
                    commit: false,
                    chain: false,
                }) if class.statements > 1 => Verdict::Moves,
                _ => Verdict::Refused,
            };
        }
        if !begun.has_read && begun.is_movable() {
            return Verdict::Moves;
        }
        // From here on the server would refuse to change what the transaction is.
        match text
            .filter(|_| class.statements == 1)
            .and_then(sql::control)
        {
            Some(Control::Set(modes)) if modes.read_only == Some(false) => return Verdict::Refused,
            Some(Control::Set(_)) => return Verdict::Stays,
            // The server warns, and takes the modes as SET TRANSACTION would.
            Some(Control::Begin { modes, .. })
                if modes.read_only != Some(false) && modes.isolation.is_none() =>
            {
                return Verdict::Stays;
            }
            _ => {}
        }
        if begun.is_movable() && !self.changes_transaction(unit) {
            Verdict::Moves
        } else if looks_at_server(class) {
            Verdict::Stays
        } else {
            Verdict::Refused
        }
    }

    /// Whether a unit reads, leaves nothing behind on its connection, and is answered before anything else comes: nothing of a
    /// portal stays open.
    fn is_plain_read(&self, unit: &[u8], class: Class) -> bool {
        bounce::only_reads(class) && self.leaves_nothing_open(unit)
    }

    /// Whether a unit ends with its last message, and leaves no portal open.
    pub(super) fn leaves_nothing_open(&self, unit: &[u8]) -> bool {
        let mut last = 0;
        let opens_cursor = |text: &[u8]| mentions(text, b"declare");
        let plain = Frames(unit).all(|(header, body)| {
            last = header.tag;
            match header.tag {
                b'Q' => frontend::query(body).is_some_and(|text| !opens_cursor(text)),
                b'P' => frontend::parse(body).is_some_and(|parse| !opens_cursor(parse.text)),
                b'B' => {
                    let bound = self.bound(body);
                    frontend::bind(body).is_some_and(|bind| bind.portal.is_empty())
                        && bound.is_none_or(|statement| !opens_cursor(statement.text()))
                }
                // Without a limit on its rows.
                b'E' => split_cstr(body).is_some_and(|(_, most)| most == [0; 4]),
                b'D' | b'C' | b'S' => true,
                _ => false,
            }
        });
        plain && matches!(last, b'Q' | b'S')
    }

    /// Whether a unit ends its transaction and does nothing else.
    pub(super) fn only_ends(&self, unit: &[u8], class: Class) -> bool {
        let ends = |control| matches!(control, Some(Control::End { chain: false, .. }));
        let mut unnamed = false;
        class.access == Access::Neutral
            && class.statements == 1
            && Frames(unit).all(|(header, body)| match header.tag {
                b'Q' => ends(frontend::query(body).and_then(sql::control)),
                b'P' => frontend::parse(body).is_some_and(|parse| {
                    unnamed |= parse.name.is_empty();
                    ends(sql::control(parse.text))
                }),
                b'B' => frontend::bind(body).is_some_and(|bind| {
                    (bind.statement.is_empty() && unnamed)
                        || self
                            .bound(body)
                            .is_some_and(|statement| ends(sql::control(statement.text())))
                }),
                b'D' | b'E' | b'S' => true,
                _ => false,
            })
    }

    /// Whether a group reads in its block on a standby, ends it, and does nothing else: until it has ended nothing has happened
    /// that could not happen elsewhere.
    pub(super) fn reads_and_ends(&self, unit: &[u8], class: Class) -> bool {
        let mut names = Vec::new();
        let stays = |text: &[u8]| match sql::control(text) {
            Some(Control::End { chain, .. }) => !chain,
            control => control.is_none(),
        };
        class.access == Access::Read
            && class.tx == TxEffect::End
            && matches!(class.session, SessionEffect::None | SessionEffect::Execute)
            && matches!(self.block, Block::Unsent(_) | Block::Sent(_))
            && self.leaves_nothing_open(unit)
            && Frames(unit).all(|(header, body)| match header.tag {
                b'P' => frontend::parse(body).is_some_and(|parse| {
                    names.push(parse.name);
                    stays(parse.text)
                }),
                b'B' => frontend::bind(body).is_some_and(|bind| {
                    let bound = self.bound(body);
                    names.contains(&bind.statement)
                        || bound.is_some_and(|statement| stays(statement.text()))
                }),
                b'D' | b'E' | b'S' => true,
                _ => false,
            })
    }

    /// Whether a unit says anew what its transaction is.
    fn changes_transaction(&self, unit: &[u8]) -> bool {
        let changes = |text: &[u8]| {
            let statements = sql::statements(text);
            statements
                .into_iter()
                .any(|text| matches!(setting::parse(text), Parsed::Transaction))
        };
        Frames(unit).any(|(header, body)| match header.tag {
            b'Q' => frontend::query(body).is_none_or(changes),
            b'P' => frontend::parse(body).is_none_or(|parse| changes(parse.text)),
            b'B' => self
                .bound(body)
                .is_some_and(|statement| changes(statement.text())),
            _ => false,
        })
    }

    /// Ends the transaction on a standby, so that it begins again on the primary. Nobody can tell: it has only read, each
    /// time what was there at that time. The bytes are a ROLLBACK; its replies are swallowed.
    pub(super) fn leave_standby(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        if let Block::Sent(begun) = self.block {
            inject(b"ROLLBACK", link, out);
            self.block = Block::Unsent(Begun {
                needs_primary: begun.has_read,
                ..begun
            });
        }
    }

    /// Whether the block may begin again elsewhere if the unit that is being forwarded is refused: the client has seen
    /// nothing of it, or it may move.
    pub(super) fn may_begin_again(&self, unit: &[u8], class: Option<Class>, link: &Link) -> bool {
        let Block::Sent(begun) = self.block else {
            return false;
        };
        match link.status {
            Status::Failed => false,
            _ if link.owing.owes_seen() => {
                begun.is_movable() && self.may_follow_kept(unit, class, link)
            }
            Status::Idle => !begun.has_read && !begun.tied,
            Status::Transaction => {
                begun.is_movable() && class.is_some_and(|class| class.access == Access::Read)
            }
        }
    }

    /// Whether a unit of a block on a standby may be sent again with those before it that are on their way. A portal of
    /// before would be on this connection only.
    pub(super) fn may_follow_kept(&self, unit: &[u8], class: Option<Class>, link: &Link) -> bool {
        !link.replay.is_empty()
            && !link.replay.leaves_open()
            && class.is_some_and(|class| {
                self.is_plain_read(unit, class) || self.reads_and_ends(unit, class)
            })
    }

    /// Whether a unit sets what its block is given again wherever it begins again, and does nothing else.
    pub(super) fn is_repeated(&self, unit: &[u8], class: Class) -> bool {
        matches!(self.block, Block::Sent(begun) if begun.is_movable())
            && is_repeatable_set(unit, class)
    }

    /// A unit of a block has been taken back from the standby that refused it: the block ends there, to begin again
    /// elsewhere. The bytes are a ROLLBACK; its replies are swallowed. False if there is no block.
    pub fn leave_refused(&mut self, link: &mut Link, out: &mut Vec<u8>) -> bool {
        if !self.is_in_sent_block() {
            return false;
        }
        inject(b"ROLLBACK", link, out);
        if self.begins_itself() {
            // The session has nothing here any more, even if the connection is lost now.
            link.status = Status::Idle;
        }
        self.unsend_block();
        true
    }

    /// In place of a unit that a standby must not get: its transaction fails, and the client hears why in the unit's
    /// place. Nothing is owed when this is called.
    pub fn refuse_unit(
        &mut self,
        unit: &[u8],
        link: &mut Link,
        context: Context<'_>,
        out: &mut Vec<u8>,
    ) {
        let (before, rest) = unit.split_at(self.staying(unit, context));
        if !before.is_empty() && self.forward(before, None, link, context, out) {
            out.extend_from_slice(before);
        }
        let notice = if link.status == Status::Failed {
            failed_transaction()
        } else {
            self.needs_primary(rest)
        };
        put_refusal(&notice, link, out);
        let group = self.group;
        if !self.fail_unit(rest) {
            self.group.sets = group.sets;
            return;
        }
        self.group = Group::default();
        out.extend_from_slice(frontend::SYNC);
        link.owing.push(Owed::Sync {
            swallow: false,
            write: false,
            sets: group.sets,
        });
    }

    /// How much of the front of a group a standby may get.
    fn staying(&self, group: &[u8], context: Context<'_>) -> usize {
        let (mut len, mut parsed_unnamed) = (0, false);
        for (header, body) in Frames(group) {
            let frame = &group[len..len + header.total()];
            parsed_unnamed |= header.tag == b'P' && body.first() == Some(&0);
            let is_parsed = parsed_unnamed
                && header.tag == b'B'
                && frontend::bind(body).is_some_and(|bind| bind.statement.is_empty());
            if !is_parsed && !self.may_stay(frame, header, context) {
                break;
            }
            len += header.total();
        }
        len
    }

    /// The words for a statement that a transaction on a standby can neither run nor move for.
    fn needs_primary(&self, unit: &[u8]) -> Notice {
        let text = Frames(unit).find_map(|(header, body)| match header.tag {
            b'Q' => frontend::query(body).map(<[u8]>::to_vec),
            b'P' => frontend::parse(body).map(|parse| parse.text.to_vec()),
            b'B' => self.bound(body).map(|bound| bound.text().to_vec()),
            _ => None,
        });
        let word = text.as_deref().and_then(first_word);
        let what = word.unwrap_or_else(|| "this statement".to_owned());
        Notice::error(
            SqlState::ReadOnlySqlTransaction,
            format!("cannot execute {what} in a read-only transaction that runs on a standby"),
        )
        .hint(
            "It needs the primary. Declare the transaction READ WRITE, or put /* pgweir:primary */ before its first statement.",
        )
    }

    /// A statement of a sent block is on its way.
    pub(super) fn note_in_block(&mut self, class: Class, text: &[u8], alone: bool) {
        let Block::Sent(begun) = &mut self.block else {
            return;
        };
        if class.access == Access::Read && class.session != SessionEffect::Set {
            begun.has_read = true;
            begun.tied |= begun.is_movable() && mentions(text, b"declare");
        }
        if class.tx == TxEffect::End
            && let Some(Control::End { chain: true, .. }) = sql::control(text)
        {
            if alone {
                // Another transaction, of the same kind and in the same place.
                begun.has_read = false;
                begun.answered = false;
                begun.tied = false;
                self.forget_settings();
            } else {
                begun.tied = true;
            }
        }
    }

    /// Something has been sent that exists on the held connection only.
    pub(super) fn tie_block(&mut self) {
        if let Block::Sent(begun) = &mut self.block {
            begun.tied = true;
        }
    }

    /// A statement of a sent block leaves something behind in the session.
    pub(super) fn note_effect_in_block(&mut self, class: Class, text: &[u8]) {
        let Block::Sent(begun) = self.block else {
            return;
        };
        match class.session {
            // A read, if it is on a standby, and what it names is prepared wherever it is named.
            SessionEffect::Execute => {}
            SessionEffect::None | SessionEffect::Deallocate | SessionEffect::DeallocateAll => {}
            SessionEffect::Set if begun.is_movable() && can_be_repeated(text) => {
                let repeat = &mut self.cold().repeat;
                if repeat.len() + text.len() > MAX_REPEATED {
                    self.tie_block();
                } else {
                    // On a line of its own: the one before may end with a comment.
                    repeat.extend_from_slice(b"\n;");
                    repeat.extend_from_slice(text);
                }
            }
            _ => self.tie_block(),
        }
    }

    /// Answers a group that needs no server: Close of known statements, transaction control where no server has a part in
    /// it, Flush and Sync.
    ///
    /// Preparing BEGIN must not wait for a server connection: a program that serves many connections from one thread,
    /// as pgbench does, may hold all of them in transactions while it waits for that reply.
    fn answer(&mut self, group: &[u8], context: Context<'_>, replies: &mut Vec<u8>) -> bool {
        let reading = || Reading {
            block: self.block,
            parsed: None,
            bound: None,
            named: false,
            closed: false,
            sure: false,
        };
        let mut trial = reading();
        let mut frames = Frames(group);
        let known = frames.by_ref().all(|(header, body)| {
            self.answer_to(&mut trial, header.tag, body, context)
                .is_some()
        });
        // What is bound and not executed may be executed later.
        if !known || !frames.0.is_empty() || trial.bound.is_some() {
            return false;
        }
        let mut reading = Reading {
            sure: true,
            ..reading()
        };
        for (header, body) in Frames(group) {
            let answer = self.answer_to(&mut reading, header.tag, body, context);
            self.block = reading.block;
            match answer {
                Some(Answer::Parsed(parse)) => {
                    self.prepare_here(parse, context);
                    put_header(replies, b'1', 0);
                }
                Some(Answer::Bound) => put_header(replies, b'2', 0),
                Some(Answer::Described(statement)) => {
                    if statement {
                        put_header(replies, b't', 2);
                        replies.extend_from_slice(&[0, 0]);
                    }
                    put_header(replies, b'n', 0);
                }
                Some(Answer::Completed(tag)) => self.complete(tag, replies),
                Some(Answer::Closed(target)) => {
                    match target {
                        Target::Statement(b"") => self.unnamed = None,
                        Target::Statement(name) => {
                            if let Some(cold) = &mut self.cold {
                                cold.prepared.remove(name);
                            }
                        }
                        Target::Portal(_) => {}
                    }
                    put_header(replies, b'3', 0);
                }
                Some(Answer::Ready) => self.put_ready(replies),
                Some(Answer::Nothing) | None => {}
            }
        }
        true
    }

    /// One message of a group, if it can be answered without a server.
    fn answer_to<'a>(
        &self,
        reading: &mut Reading<'a>,
        tag: u8,
        body: &'a [u8],
        context: Context<'_>,
    ) -> Option<Answer<'a>> {
        let late = reading.block != Block::None || self.lateness.now.is_some();
        match tag {
            b'P' => {
                let parse = frontend::parse(body)?;
                if !parse.name.is_empty() {
                    if reading.named || reading.closed || self.prepared(parse.name).is_some() {
                        return None;
                    }
                    reading.named = true;
                }
                let statement = self.intern(parse, context);
                let control = control_of(&statement).filter(|_| late);
                let accepted = match reading.block {
                    Block::Failed(_) => matches!(control, Some(Control::End { .. })),
                    _ => {
                        control.is_some()
                            || (!parse.name.is_empty() && statement.is_always_accepted())
                    }
                };
                reading.parsed = Some((parse.name, control));
                accepted.then_some(Answer::Parsed(parse))
            }
            b'B' if late && reading.bound.is_none() => {
                let bind = frontend::bind(body)?;
                if !bind.portal.is_empty() || !is_plain_bind(body) {
                    return None;
                }
                let control = self.named_control(reading, bind.statement)?;
                let begins = matches!(control, Control::Begin { .. });
                if begins && !bind.statement.is_empty() {
                    // Whoever prepares BEGIN prepares what follows, too, and may wait for that alone, as pgbench does, while
                    // its other sessions hold all connections. This one takes its own before.
                    return None;
                }
                reading.bound = Some(control);
                Some(Answer::Bound)
            }
            b'D' if late => match frontend::target(body)? {
                Target::Statement(name) => {
                    self.named_control(reading, name)?;
                    Some(Answer::Described(true))
                }
                Target::Portal(name) => {
                    reading.bound.filter(|_| name.is_empty())?;
                    Some(Answer::Described(false))
                }
            },
            b'E' if late => {
                let (portal, _) = split_cstr(body)?;
                let control = reading.bound.take().filter(|_| portal.is_empty())?;
                let (block, tag) = self.step(reading.block, control)?;
                reading.block = block;
                Some(Answer::Completed(tag))
            }
            b'C' => {
                let target = frontend::target(body)?;
                let known = match target {
                    Target::Statement(name) => {
                        reading.closed = true;
                        self.prepared(name).is_some()
                    }
                    Target::Portal(name) => {
                        if name.is_empty() {
                            reading.bound = None;
                        }
                        false
                    }
                };
                let answered = known || reading.sure || reading.block != Block::None;
                answered.then_some(Answer::Closed(target))
            }
            b'S' => Some(Answer::Ready),
            b'H' => Some(Answer::Nothing),
            _ => None,
        }
    }

    /// What a name stands for, if it is transaction control.
    fn named_control(&self, reading: &Reading<'_>, name: &[u8]) -> Option<Control> {
        match reading.parsed {
            Some((parsed, control)) if parsed == name && !reading.closed => control,
            _ if reading.closed => None,
            _ => control_of(self.statement(name)?),
        }
    }
}

/// Puts an error in its place among the replies, by giving the server something that it refuses: it then discards what
/// follows up to the Sync, and a transaction fails.
pub(super) fn put_refusal(notice: &Notice, link: &mut Link, out: &mut Vec<u8>) {
    if !link.owing.push(Owed::Refusal) {
        // The server has failed by itself, and discards what comes.
        return;
    }
    let mut message = Vec::new();
    notice.put(&mut message);
    link.own_words = Some(message.split_off(HEADER.min(message.len())));
    // The server forgets its unnamed statement before it looks at the new one.
    link.unnamed = None;
    frontend::put_parse(b"", REFUSED, out);
}

fn failed_transaction() -> Notice {
    Notice::error(
        SqlState::InFailedSqlTransaction,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

fn control_of(statement: &Statement) -> Option<Control> {
    let concerned =
        statement.class.tx != TxEffect::None || statement.class.session == SessionEffect::Set;
    let is_placed = statement.class.hint.place == Some(HintedPlace::Primary);
    if !concerned
        || is_placed
        || statement.class.statements != 1
        || !statement.content().ends_with(NO_TYPES)
    {
        return None;
    }
    sql::control(statement.text())
}

/// Whether a Bind of a statement without parameters is as it should be.
fn is_plain_bind(body: &[u8]) -> bool {
    let count = |bytes: &[u8]| bytes.first_chunk::<2>().map(|n| u16::from_be_bytes(*n));
    let is_plain = || {
        let (_, rest) = split_cstr(body)?;
        let (_, rest) = split_cstr(rest)?;
        // One format may stand for all parameters, also for none.
        let formats = usize::from(count(rest)?);
        let rest = rest.get(2 + 2 * formats..)?;
        let parameters = count(rest)?;
        let results = rest.get(2..)?;
        let whole = results.len() == 2 + 2 * usize::from(count(results)?);
        Some(formats <= 1 && parameters == 0 && whole)
    };
    is_plain() == Some(true)
}

/// The text of a Query that is all there.
fn whole_query(unit: &[u8]) -> Option<&[u8]> {
    let (header, body) = Frames(unit).next()?;
    frontend::query(body).filter(|_| header.tag == b'Q')
}

/// Whether a statement looks at nothing but its server: catalogs, which are replicated, settings, and what functions tell of
/// it. It goes to the primary where it can; a transaction that has to stay on its standby is told of that.
fn looks_at_server(class: Class) -> bool {
    class.access == Access::Primary
        && matches!(class.reason, Reason::Catalog | Reason::Session)
        && class.session == SessionEffect::None
        && class.tx == TxEffect::None
}

/// Whether a unit is a SET that can be repeated, and nothing else.
fn is_repeatable_set(unit: &[u8], class: Class) -> bool {
    class.session == SessionEffect::Set
        && class.statements == 1
        && whole_query(unit).is_some_and(can_be_repeated)
}

/// Whether a text is a SET of one setting, which does the same wherever it is repeated.
fn can_be_repeated(text: &[u8]) -> bool {
    matches!(setting::parse(text), Parsed::Setting(setting) if matches!(setting.change, Change::Set(_)))
}

/// The first word of a text, in upper case.
fn first_word(text: &[u8]) -> Option<String> {
    let statement = *sql::statements(text).first()?;
    let word = statement
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic());
    let word: String = word
        .map(|byte| char::from(byte.to_ascii_uppercase()))
        .collect();
    (!word.is_empty()).then_some(word)
}
