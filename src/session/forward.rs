//! Client bytes as they are written for a particular server connection: names of prepared statements become the
//! connection's own, what it lacks is put in front, and everything else goes as it is.

use std::borrow::Cow;
use std::sync::Arc;

use super::front::{Context, FUNCTION_CALL, Frames, copy_data, takes_copy_data};
use super::listen::NO_TYPES;
use super::named::{self, NOTHING};
use super::sequence::DISCARD_SEQUENCES;
use super::settings::MAX_SETTINGS;
use super::transaction::put_refusal;
use super::{Cold, Group, NameChange, OWN_NAMES, Portal, Session, Stream, bounce, inject, steer};
use crate::link::{Link, Local, Owed, Params, Statement, StatementId, name_tag, put_name};
use crate::sql::catalog::change;
use crate::sql::{
    self, Access, Class, PinReason, Reason, SessionEffect, TxEffect, deallocate_target, mentions,
    savepoint, setting,
};
use crate::wire::frame::{self, HEADER, Header};
use crate::wire::frontend::{self, Target};
use crate::wire::{Notice, SqlState, Status};

/// Largest unit that is kept to be sent again.
pub(super) const MAX_REPLAY: usize = 16 * 1024;

/// Name of the throw-away statement that stands in for one that a client deallocates by SQL.
const STAND_IN: &[u8] = b"pgw_deallocated";
/// Name of the statement that deallocates it, among the messages of a group.
const DEALLOCATING: &[u8] = b"pgw_deallocating";

impl Session {
    /// Writes `bytes`, which [`Session::next`] has measured, for the connection. Returns true if they can go as they
    /// are, behind what `out` has then.
    pub fn forward(
        &mut self,
        bytes: &[u8],
        class: Option<Class>,
        link: &mut Link,
        context: Context<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        link.plain = false;
        let plain = class.filter(|class| is_plain_ground(link) && self.is_plain(*class));
        if let Some(class) = plain {
            if is_one_query(bytes) {
                self.forward_plain_query(bytes, class, link, context);
                return true;
            }
            if let Some(run) = Run::of(bytes)
                && let Some(verbatim) =
                    self.forward_plain_run(&run, bytes, class, link, context, out)
            {
                return verbatim;
            }
        }
        let streamed = self.stream.left.min(bytes.len());
        if streamed > 0 && streamed == bytes.len() {
            self.stream.left -= streamed;
            return true;
        }
        if streamed > 0 || (takes_copy_data(link) && bytes.first() == Some(&b'd')) {
            // Behind the rest of a message nothing but such data is forwarded with it.
            self.stream.left = copy_data(&bytes[streamed..], usize::MAX).1;
            link.replans = false;
            return true;
        }
        if link.doubtful && !may_be_of_a_copy(bytes) {
            self.mend(link, out);
        }
        if link.status == Status::Transaction && !self.group.open && link.settled() {
            self.restore(link, out);
        }
        self.send_block(link, out);
        self.note_late_group(bytes, class, context);
        link.replans = link.status == Status::Idle
            && !self.is_in_sent_block()
            && !link.owing.owes_client()
            && self.may_be_sent_again(bytes);
        let bounces = self.keep(bytes, class, link, context);
        let mut writer = Writer {
            bytes,
            sent: 0,
            out,
            rewritten: false,
        };
        let (mut at, mut last) = (0, None);
        while let Ok(Some(header)) = frame::header(&bytes[at..], usize::MAX) {
            let take = header.total().min(bytes.len() - at);
            let body = at + HEADER..at + take;
            // The class of a group is not that of a Query at its end.
            let own = class.filter(|_| at == 0);
            self.forward_one(header, body, own, link, context, &mut writer);
            at += take;
            last = Some(header.tag);
            self.stream = Stream {
                left: header.total() - take,
                drop: false,
            };
        }
        // A Query behind other messages is skipped with them, and then the unit has no end.
        let is_whole = last == Some(b'S') || (last == Some(b'Q') && bytes.first() == last.as_ref());
        if bounces && !(is_whole && self.stream.left == 0) {
            Session::bounces_no_more(link);
        }
        writer.finish()
    }

    /// Whether a unit of this class reads, does nothing else that concerns its session or its connection, and finds the
    /// session outside of any transaction and waiting for nothing.
    #[inline]
    pub(super) fn is_plain(&self, class: Class) -> bool {
        let reads = class.access == Access::Read
            && class.tx == TxEffect::None
            && class.session == SessionEffect::None
            && class.reason != Reason::Ddl
            && !class.uses_sequence();
        reads
            && self.stream.left == 0
            && !self.group.open
            && !self.has_block()
            && self.pins().is_empty()
            && self.cold.as_deref().is_none_or(Cold::is_quiet)
    }

    /// [`Session::forward`] for a Query that only reads, on plain ground: what is left of it then.
    fn forward_plain_query(
        &mut self,
        bytes: &[u8],
        class: Class,
        link: &mut Link,
        context: Context<'_>,
    ) {
        link.plain = true;
        link.replans = false;
        if self.may_bounce(bytes, Some(class), link, context) {
            link.replay.keep(bytes, true, false);
        }
        if self.unnamed.is_some() {
            self.set_unnamed(None, link);
        }
        link.unnamed = None;
        link.owing.push(Owed::Query {
            write: false,
            sets: 0,
        });
    }

    /// The same for a group that runs one statement, if the connection has that, or it is the unnamed one and comes with the
    /// group. `None` for any other, and then nothing has been done.
    fn forward_plain_run(
        &mut self,
        run: &Run<'_>,
        bytes: &[u8],
        class: Class,
        link: &mut Link,
        context: Context<'_>,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let statement = match run.parse {
            Some(parse) => self.intern(parse, context),
            None => self.statement(run.statement)?.clone(),
        };
        let id = statement.id;
        let is_there = match run.statement {
            b"" => run.parse.is_some() || link.unnamed == Some(id),
            _ => !statement.by_sql && link.has(id),
        };
        if !is_there {
            return None;
        }
        link.plain = true;
        link.replans = run.describes && self.may_be_sent_again(bytes);
        let bounces = self.may_bounce(bytes, Some(class), link, context);
        if bounces || link.replans {
            link.replay.keep(bytes, bounces, false);
        }
        if run.parse.is_some() {
            self.note_prepared(statement.class);
            self.set_unnamed(Some(statement), link);
            link.owing.push(Owed::Parse {
                swallow: false,
                named: false,
                unnamed: true,
                id: Some(id),
            });
        }
        link.owing.push(Owed::Bind {
            id: Some(id),
            name: name_tag(run.statement),
        });
        if run.describes {
            link.owing.push(Owed::Describe);
        }
        link.owing.push(Owed::Execute);
        link.owing.push(Owed::Sync {
            swallow: false,
            write: false,
            sets: 0,
        });
        if run.statement.is_empty() {
            return Some(true);
        }
        let put_own = |out: &mut Vec<u8>| put_name(id, out);
        put_renamed(run.bind, b"\0", run.statement, put_own, out);
        out.extend_from_slice(&bytes[HEADER + 1 + run.statement.len()..]);
        Some(false)
    }

    /// Keeps the bytes if they may have to be sent again. True if that may be on another connection.
    fn keep(
        &mut self,
        bytes: &[u8],
        class: Option<Class>,
        link: &mut Link,
        context: Context<'_>,
    ) -> bool {
        if !link.replay.is_empty() && link.guarded {
            // The data of a COPY, which is kept.
            return false;
        }
        if link.replay.is_empty()
            && let Some(cold) = &mut self.cold
        {
            cold.confirmed.clear();
        }
        // What is on its way must be kept, too, or its order would be lost.
        let is_next = !link.replay.is_empty() || !link.owing.owes_seen();
        let bounces = is_next && self.may_bounce(bytes, class, link, context);
        let follows = is_next && !bounces && self.follows_kept(bytes, class, link, context);
        if is_next && (bounces || follows || link.replans || link.guarded) {
            let leaves_open = self.is_in_sent_block() && !self.leaves_nothing_open(bytes);
            link.replay.keep(bytes, bounces, leaves_open);
        } else if !link.replay.is_empty() {
            link.replay.give_up();
        }
        bounces
    }

    /// Whether a unit of a block on a standby is kept only for those around it, which may run elsewhere.
    fn follows_kept(
        &self,
        unit: &[u8],
        class: Option<Class>,
        link: &Link,
        context: Context<'_>,
    ) -> bool {
        link.bounces
            && self.is_in_sent_block()
            && !self.group.open
            && unit.len() + link.replay.len() <= context.pipeline_buffer
            && (class.is_some_and(|class| self.only_ends(unit, class))
                || (link.status != Status::Failed
                    && (self.may_follow_kept(unit, class, link)
                        || class.is_some_and(|class| self.is_repeated(unit, class)))))
    }

    /// A statement of the unit that is being forwarded turns out to be of this class.
    fn judged(&self, class: Class, link: &mut Link) {
        let is_kept = match class.tx {
            TxEffect::Begin => self.begins_itself(),
            TxEffect::End => self.is_in_sent_block(),
            _ => {
                class.session == SessionEffect::Set
                    && self.is_in_sent_block()
                    && link.replay.stays_put()
            }
        };
        if !bounce::only_reads(class) && !is_kept {
            Session::bounces_no_more(link);
        }
    }

    /// Whether these bytes are a group that runs one prepared statement and asks for the description of its rows, as libpq
    /// has it. If its plan has become stale, it can be planned anew without the client noticing.
    fn may_be_sent_again(&mut self, bytes: &[u8]) -> bool {
        if bytes.first() != Some(&b'B') || bytes.len() > MAX_REPLAY || self.group.open {
            return false;
        }
        let mut at = 0;
        for tag in *b"BDES" {
            match frame::header(&bytes[at..], usize::MAX) {
                Ok(Some(header)) if header.tag == tag => at += header.total(),
                _ => return false,
            }
        }
        let again = self
            .cold
            .as_mut()
            .is_some_and(|cold| std::mem::take(&mut cold.renewed));
        at == bytes.len() && !again
    }

    /// A statement whose plan has become stale is another one from now on, wherever the session names it.
    pub fn renew(&mut self, context: Context<'_>) {
        let Some(cold) = &mut self.cold else { return };
        cold.renewed = true;
        let names = cold.prepared.values_mut();
        for statement in names
            .chain(&mut self.unnamed)
            .filter(|known| known.is_retired())
        {
            let class = statement.class;
            *statement = context.statements.intern(statement.content(), || class);
        }
    }

    /// What was reset in the transaction's last unit goes back to the session's own defaults.
    fn restore(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        if let Some(cold) = &mut self.cold {
            let mut sql = Vec::new();
            cold.settings.restore(&mut sql);
            inject(&sql, link, out);
        }
    }

    fn forward_one(
        &mut self,
        header: Header,
        body: std::ops::Range<usize>,
        class: Option<Class>,
        link: &mut Link,
        context: Context<'_>,
        writer: &mut Writer<'_>,
    ) {
        let at = body.start - HEADER;
        let bytes = writer.bytes;
        if link.owing.skipping()
            && matches!(header.tag, b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'F')
        {
            // The server discards it: it has no effect and no reply, whatever it names.
            self.group.open = true;
            return;
        }
        match header.tag {
            b'Q' => {
                let class = class
                    .unwrap_or_else(|| self.classify_query(&bytes[at..body.end], header, context));
                self.forward_query(body, class, link, context, writer);
            }
            b'P' => self.forward_parse(header, body, link, context, writer),
            b'B' => self.forward_bind(header, body, link, context, writer),
            b'D' => {
                self.group.open = true;
                if let Some(Target::Statement(name)) = frontend::target(&bytes[body.clone()]) {
                    if self.is_described_here(name, link) {
                        writer.replace(at, |_| ());
                        writer.sent = body.end;
                        link.owing.push(Owed::Local(Local::NoData));
                        return;
                    }
                    self.name_for(at, header, 1, name, body.end, link, writer);
                }
                link.owing.push(Owed::Describe);
            }
            b'C' => self.forward_close(header, body, link, writer),
            b'E' => {
                self.group.open = true;
                self.group.executed = true;
                self.group.executions = self.group.executions.saturating_add(1);
                let end = body.end;
                if link.status != Status::Failed
                    && let Some(name) = self.taken_by(&bytes[body.clone()])
                {
                    if self.prepared(&name).is_none() {
                        writer.replace(at, |out| put_refusal(&no_such(&name), link, out));
                        writer.sent = end;
                        return;
                    }
                    if link.own_names.get(&name).is_some() {
                        // It has come to the connection since the portal was bound.
                        writer.replace(at, |out| Session::close_own(&name, link, out));
                    }
                }
                let behind = self.executing(&bytes[body], link, context);
                link.owing.push(Owed::Execute);
                if !behind.is_empty() {
                    writer.replace(end, |out| {
                        for sql in behind.sets() {
                            named::run(&[&sql[..], NO_TYPES].concat(), link, out);
                        }
                    });
                }
            }
            b'S' => {
                let Group { write, sets, .. } = std::mem::take(&mut self.group);
                link.owing.push(Owed::Sync {
                    swallow: false,
                    write,
                    sets,
                });
            }
            b'F' => {
                let alone = !self.group.open;
                self.group = Group::default();
                if self.note_sequences(FUNCTION_CALL, link) {
                    discard_sequences(at, alone, link, writer);
                }
                link.dirty = true;
                link.owing.push(Owed::Call);
            }
            b'c' | b'f' if !std::mem::take(&mut link.copy_in) => {
                link.owing.push(Owed::CopyEnd);
            }
            // Flush and CopyData ask for no reply of their own.
            _ => {}
        }
    }

    fn forward_query(
        &mut self,
        body: std::ops::Range<usize>,
        class: Class,
        link: &mut Link,
        context: Context<'_>,
        writer: &mut Writer<'_>,
    ) {
        let write = class.access == Access::Write || self.group.write;
        let whole = frontend::query(&writer.bytes[body.clone()]).unwrap_or_default();
        let text = self.part(whole);
        if text.len() < whole.len() {
            writer.replace(body.start - HEADER, |out| frontend::put_query(text, out));
            writer.sent = body.end;
        }
        link.changes_catalog = link.changes_catalog.max(change(class, text));
        let alone = !self.group.open && link.settled();
        self.note_in_block(class, text, alone);
        link.committing |= match class.tx {
            TxEffect::End => true,
            TxEffect::Mixed => ends_transaction(text),
            TxEffect::Begin | TxEffect::None => false,
        };
        link.beginning |= may_begin(class);
        stain(class, link, context);
        let mut sets = self.group.sets;
        if !self.group.open && class.session != SessionEffect::None {
            self.align_names_apart(class, text, link, body.start - HEADER, writer);
        }
        if self.note_sequences(class, link) {
            discard_sequences(body.start - HEADER, !self.group.open, link, writer);
        }
        if let Some(sql) = self.stand_in(class, text) {
            writer.replace(body.start - HEADER, |out| frontend::put_query(&sql, out));
            writer.sent = body.end;
        }
        if class.session == SessionEffect::Deallocate {
            // In a failed transaction the server refuses it as it is.
            if let Some(name) = self
                .deallocates(text)
                .filter(|_| link.status != Status::Failed)
            {
                self.take(&name, link);
                writer.replace(body.start - HEADER, |out| {
                    Session::close_own(&name, link, out);
                    put_own_parse(STAND_IN, NOTHING, link, out);
                    out.extend_from_slice(frontend::SYNC);
                    frontend::put_query(&[b"DEALLOCATE ", STAND_IN].concat(), out);
                });
                writer.sent = body.end;
                link.owing.push(Owed::Sync {
                    swallow: true,
                    write: false,
                    sets: 0,
                });
            } else {
                self.effect(class, text, link, context);
            }
        } else {
            sets += self.effect(class, text, link, context);
        }
        self.judged(class, link);
        self.group = Group::default();
        self.set_unnamed(None, link);
        link.owing.push(Owed::Query { write, sets });
    }

    /// [`Session::align_names`] as a group of its own.
    fn align_names_apart(
        &self,
        class: Class,
        text: &[u8],
        link: &mut Link,
        at: usize,
        writer: &mut Writer<'_>,
    ) {
        let before = link.owing.len();
        let mut own = Vec::new();
        self.align_names(class, text, link, &mut own);
        if link.owing.len() > before {
            own.extend_from_slice(frontend::SYNC);
            writer.replace(at, |out| out.extend_from_slice(&own));
            link.owing.push(Owed::Sync {
                swallow: true,
                write: false,
                sets: 0,
            });
        }
    }

    /// [`Session::align_names`] inside a group, before the message at `at`.
    fn align_names_here(
        &self,
        statement: &Statement,
        link: &mut Link,
        at: usize,
        writer: &mut Writer<'_>,
    ) {
        if statement.class.session == SessionEffect::None {
            return;
        }
        let mut own = Vec::new();
        self.align_names(statement.class, statement.text(), link, &mut own);
        if !own.is_empty() {
            writer.replace(at, |out| out.extend_from_slice(&own));
        }
    }

    fn forward_parse(
        &mut self,
        header: Header,
        body: std::ops::Range<usize>,
        link: &mut Link,
        context: Context<'_>,
        writer: &mut Writer<'_>,
    ) {
        self.group.open = true;
        let at = body.start - HEADER;
        let Some(parse) = frontend::parse(&writer.bytes[body.clone()]) else {
            link.dirty = true;
            link.owing.push(Owed::Parse {
                swallow: false,
                named: false,
                unnamed: false,
                id: None,
            });
            return;
        };
        let statement = self.intern(parse, context);
        let id = statement.id;
        self.note_in_block(statement.class, statement.text(), false);
        self.note_prepared(statement.class);
        self.align_names_here(&statement, link, at, writer);
        if parse.name.is_empty() {
            if let Cow::Owned(content) = self.content_of(&statement) {
                writer.replace(at, |out| frontend::put_parse(b"", &content, out));
                writer.sent = body.end;
            }
            self.set_unnamed(Some(statement), link);
            link.owing.push(Owed::Parse {
                swallow: false,
                named: false,
                unnamed: true,
                id: Some(id),
            });
            return;
        }
        if self.prepared(parse.name).is_some() {
            // The client has the name already. PostgreSQL words that error best, and knows what comes before it.
            writer.replace(at, |out| Session::occupy(parse.name, link, out));
            link.owing.push(Owed::Parse {
                swallow: false,
                named: false,
                unnamed: false,
                id: None,
            });
            return;
        }
        let name: Box<[u8]> = parse.name.into();
        let content = self.content_of(&statement);
        if link.has(id) && link.status != Status::Failed && !self.may_have_failed(link) {
            writer.replace(at, |_| ());
            link.owing.push(Owed::Local(Local::ParseComplete));
        } else {
            writer.replace(at, |out| {
                if link.held.remove(id) || link.doubtful {
                    // The server is to refuse the Parse, unless the transaction ends before it.
                    put_close(id, link, out);
                }
                make_room(link, id, out);
                put_parse_as(id, &content, out);
            });
            link.owing.push(Owed::Parse {
                swallow: false,
                named: true,
                unnamed: false,
                id: Some(id),
            });
        }
        drop(content);
        let cold = self.cold();
        cold.prepared.insert(name.clone(), statement);
        cold.unconfirmed.push_back((name, NameChange::Defined));
        writer.sent = at + header.total();
    }

    /// Whether a transaction may have failed in a unit that has not been answered, which only the server can tell.
    fn may_have_failed(&self, link: &Link) -> bool {
        let in_block = link.status != Status::Idle || self.is_in_sent_block() || link.beginning;
        in_block && link.owing.owes_end() && link.owing.owes_units()
    }

    fn forward_bind(
        &mut self,
        header: Header,
        body: std::ops::Range<usize>,
        link: &mut Link,
        context: Context<'_>,
        writer: &mut Writer<'_>,
    ) {
        self.group.open = true;
        let at = body.start - HEADER;
        let bytes = writer.bytes;
        let Some(bind) = frontend::bind(&bytes[body.clone()]) else {
            link.dirty = true;
            link.owing.push(Owed::Bind { id: None, name: 0 });
            return;
        };
        if !bind.portal.is_empty() {
            self.tie_block();
        }
        let name = name_tag(bind.statement);
        let mut id = None;
        if let Some(statement) = self.statement(bind.statement).cloned() {
            id = Some(statement.id);
            let class = self.class_of(&statement, context);
            self.note_in_block(class, statement.text(), false);
            self.group.write |= class.access == Access::Write;
            self.judged(class, link);
            let change = change(statement.class, statement.text());
            link.changes_catalog = link.changes_catalog.max(change);
            link.committing |= statement.class.tx == TxEffect::End;
            link.beginning |= may_begin(statement.class);
            stain(class, link, context);
            if self.note_sequences(class, link) {
                discard_sequences(at, false, link, writer);
            }
            if statement.class.session == SessionEffect::Deallocate
                && let Some(target) = self
                    .deallocates(statement.text())
                    .filter(|_| link.status != Status::Failed || link.committing)
            {
                // It has the name until it is executed: a portal may be bound again, or be replaced.
                self.note_portal(bind.portal, &statement, Some(&target));
                let front = &bytes[at + HEADER..at + HEADER + bind.portal.len() + 1];
                // One for each name: other portals may be bound before this one is executed.
                let stand_in = format!("pgw_deallocated_{:08x}", name_tag(&target)).into_bytes();
                let deallocate = [b"DEALLOCATE ", &stand_in[..], b"\0\0\0"].concat();
                writer.replace(at, |out| {
                    Session::close_own(&target, link, out);
                    // In a transaction it may be there from one that failed.
                    put_own_close(&stand_in, link, out);
                    put_own_parse(&stand_in, NOTHING, link, out);
                    put_own_close(DEALLOCATING, link, out);
                    put_own_parse(DEALLOCATING, &deallocate, link, out);
                    let put_other = |out: &mut Vec<u8>| out.extend_from_slice(DEALLOCATING);
                    put_renamed(header, front, bind.statement, put_other, out);
                });
                writer.sent = at + HEADER + front.len() + bind.statement.len();
                link.owing.push(Owed::Bind { id, name });
                return;
            }
            self.note_portal(bind.portal, &statement, None);
        }
        self.name_for(
            at,
            header,
            bind.portal.len() + 1,
            bind.statement,
            body.end,
            link,
            writer,
        );
        link.owing.push(Owed::Bind { id, name });
    }

    /// Makes sure that the connection has the statement that a Bind or Describe names, and writes the name that it
    /// has there. `before` counts the body's bytes before the name, `end` is where the message ends in this chunk.
    #[allow(
        clippy::too_many_arguments,
        reason = "one message's layout, spelled out"
    )]
    fn name_for(
        &mut self,
        at: usize,
        header: Header,
        before: usize,
        name: &[u8],
        end: usize,
        link: &mut Link,
        writer: &mut Writer<'_>,
    ) {
        if let Some(statement) = self.statement(name) {
            self.align_names_here(statement, link, at, writer);
        }
        if name.is_empty() {
            match self.unnamed.clone() {
                Some(statement) if link.unnamed != Some(statement.id) => {
                    let content = self.content_of(&statement);
                    writer.replace(at, |out| frontend::put_parse(b"", &content, out));
                    link.unnamed = Some(statement.id);
                    let id = Some(statement.id);
                    link.owing.push(Owed::Parse {
                        swallow: true,
                        named: false,
                        unnamed: true,
                        id,
                    });
                }
                // Another client's is still there: it is not this one's to run.
                None if link.unnamed.take().is_some() => {
                    writer.replace(at, |out| frontend::put_close_statement(b"", out));
                    link.owing.push(Owed::Close {
                        swallow: true,
                        unnamed: true,
                    });
                }
                _ => {}
            }
            return;
        }
        let Some(statement) = self.prepared(name).cloned() else {
            // An unknown name goes as it is: no server has it, and PostgreSQL says so with the client's own name. Only
            // other clients' must not be found, and the proxy's own.
            if link.own_names.get(name).is_some() {
                writer.replace(at, |out| self.align_name(name, link, out));
            }
            if name.starts_with(OWN_NAMES) {
                let front = &writer.bytes[at + HEADER..at + HEADER + before];
                writer.replace(at, |out| {
                    let put_other = |out: &mut Vec<u8>| {
                        out.extend_from_slice(name);
                        out.push(b'?');
                    };
                    put_renamed(header, front, name, put_other, out);
                });
                writer.sent = at + HEADER + before + name.len();
            }
            return;
        };
        if statement.by_sql {
            if link.own_names.get(name) != Some(statement.id) {
                writer.replace(at, |out| self.align_name(name, link, out));
            }
            return;
        }
        let bytes = writer.bytes;
        writer.replace(at, |out| {
            if !link.has(statement.id) {
                if link.doubtful {
                    // A Close may have been skipped.
                    put_close(statement.id, link, out);
                }
                make_room(link, statement.id, out);
                put_parse_as(statement.id, &self.content_of(&statement), out);
                let owed = Owed::Parse {
                    swallow: true,
                    named: false,
                    unnamed: false,
                    id: Some(statement.id),
                };
                if !link.owing.push(owed) {
                    link.held.remove(statement.id);
                }
            }
            let front = &bytes[at + HEADER..at + HEADER + before];
            put_renamed(header, front, name, |out| put_name(statement.id, out), out);
        });
        writer.sent = at + HEADER + before + name.len();
        debug_assert!(writer.sent <= end);
    }

    /// Whether the connection lacks a statement, and whether it could be prepared there is known when what is on its way has
    /// been answered.
    pub(super) fn may_be_described_here(&self, name: &[u8], link: &Link) -> bool {
        !link.committing
            && self.may_have_failed(link)
            && self.statement(name).is_some_and(|statement| match name {
                b"" => link.unnamed != Some(statement.id),
                _ => !statement.by_sql && !link.held.contains(statement.id),
            })
    }

    /// Whether a server would describe a statement where none can be prepared: in a transaction that has failed, on a
    /// connection that lacks it. PostgreSQL describes there what returns no rows.
    fn is_described_here(&self, name: &[u8], link: &mut Link) -> bool {
        if link.status != Status::Failed || link.committing {
            return false;
        }
        let Some(statement) = self.statement(name) else {
            return false;
        };
        let has_it = match name {
            // What it prepares may return rows.
            _ if statement.by_sql => return false,
            b"" => link.unnamed == Some(statement.id),
            _ => link.has(statement.id),
        };
        !has_it && surely_returns_nothing(statement)
    }

    fn forward_close(
        &mut self,
        header: Header,
        body: std::ops::Range<usize>,
        link: &mut Link,
        writer: &mut Writer<'_>,
    ) {
        self.group.open = true;
        let at = body.start - HEADER;
        let target = frontend::target(&writer.bytes[body]);
        let unnamed = target == Some(Target::Statement(b""));
        match target {
            Some(Target::Statement(b"")) => self.set_unnamed(None, link),
            Some(Target::Statement(name)) if self.prepared(name).is_some() => {
                let cold = self.cold();
                if let Some(statement) = cold.prepared.remove(name) {
                    let change = NameChange::Closed(statement);
                    cold.unconfirmed.push_back((name.into(), change));
                }
                writer.replace(at, |_| ());
                writer.sent = at + header.total();
                link.owing.push(Owed::Local(Local::CloseComplete));
                return;
            }
            // Not the proxy's own, which another client may use: closing what one does not have is no error.
            Some(Target::Statement(name)) if name.starts_with(OWN_NAMES) => {
                writer.replace(at, |out| {
                    frontend::put_close_statement(&[name, b"?"].concat(), out);
                });
                writer.sent = at + header.total();
            }
            _ => {}
        }
        link.owing.push(Owed::Close {
            swallow: false,
            unnamed,
        });
    }

    /// The message that is about to be noted among what is owed gives the client another unnamed statement, unless the
    /// server skips it.
    fn set_unnamed(&mut self, statement: Option<Arc<Statement>>, link: &mut Link) {
        if link.owing.skipping() {
            return;
        }
        link.unnamed = statement.as_ref().map(|statement| statement.id);
        let before = std::mem::replace(&mut self.unnamed, statement);
        link.replay.replaced(&before);
        self.unnamed_changes.note(before, &link.owing);
    }

    /// What a server is given for a statement that it lacks.
    fn content_of<'a>(&self, statement: &'a Statement) -> Cow<'a, [u8]> {
        if let Some(sql) = self.stand_in(statement.class, statement.text()) {
            return Cow::Owned([&sql[..], b"\0\0\0"].concat());
        }
        Cow::Borrowed(statement.content())
    }

    /// The known statement that a DEALLOCATE names.
    fn deallocates(&self, text: &[u8]) -> Option<Vec<u8>> {
        deallocate_target(text).filter(|name| self.prepared(name).is_some())
    }

    /// Takes a name away; if the server does not do it in the end, the client has it again.
    fn take(&mut self, name: &[u8], link: &mut Link) {
        let cold = self.cold();
        cold.taken.extend(cold.prepared.remove_entry(name));
        link.forgetting.get_or_insert(0);
    }

    /// A portal has been bound: what its statement does to the session happens when it is executed.
    fn note_portal(&mut self, portal: &[u8], statement: &Arc<Statement>, takes: Option<&[u8]>) {
        let changes = statement.class.session != SessionEffect::None
            || self.may_end_pin(statement.class, statement.text())
            || self.may_unlisten(statement.text());
        if !changes
            && self
                .cold
                .as_ref()
                .is_none_or(|cold| cold.portals.is_empty())
        {
            return;
        }
        let portals = &mut self.cold().portals;
        portals.retain(|other| *other.name != *portal);
        if changes {
            portals.push(Portal {
                name: portal.into(),
                statement: statement.clone(),
                takes: takes.map(Into::into),
            });
        }
    }

    /// An Execute is being sent. Returns the settings that follow it: RESET goes back to the connection's own default, and
    /// what stands behind it in the group is to run with the session's.
    fn executing(&mut self, body: &[u8], link: &mut Link, context: Context<'_>) -> Params {
        let none = Params::default();
        let Some(cold) = self.cold.as_ref().filter(|cold| !cold.portals.is_empty()) else {
            return none;
        };
        let Some((portal, _)) = frame::split_cstr(body) else {
            return none;
        };
        let noted = cold.portals.iter().find(|other| *other.name == *portal);
        let Some(noted) = noted else { return none };
        if let Some(taken) = noted.takes.clone() {
            self.forget_portal(portal);
            self.take(&taken, link);
            return none;
        }
        let statement = noted.statement.clone();
        let was_resetting = link.resetting;
        let sets = self.effect(statement.class, statement.text(), link, context);
        self.group.sets += sets;
        if matches!(
            statement.class.session,
            SessionEffect::Deallocate | SessionEffect::DeallocateAll | SessionEffect::DiscardAll
        ) {
            self.forget_portal(portal);
        }
        if sets == 0 || link.resetting == was_resetting {
            return none;
        }
        link.resetting = was_resetting;
        self.cold().settings.restore_behind()
    }

    /// The statement that an Execute is to take away.
    fn taken_by(&self, body: &[u8]) -> Option<Box<[u8]>> {
        let mut noted = self.cold.as_ref()?.portals.iter();
        let (portal, _) = frame::split_cstr(body)?;
        let noted = noted.find(|noted| *noted.name == *portal)?;
        noted.takes.clone()
    }

    /// A portal that fails when it is executed once more.
    fn forget_portal(&mut self, portal: &[u8]) {
        let portals = &mut self.cold().portals;
        portals.retain(|other| *other.name != *portal);
    }

    /// One SET or RESET. What cannot be tracked keeps its connection.
    fn set(&mut self, text: &[u8], link: &mut Link) -> u32 {
        let full = self.params.len() >= MAX_SETTINGS;
        let cold = self.cold();
        if full || cold.settings.are_too_many() {
            self.pinned.pin(PinReason::Settings);
            return 0;
        }
        let parsed = setting::parse(text);
        link.resetting |= cold.settings.parts(&parsed);
        let sent = cold.settings.send(&parsed);
        if sent.is_none() {
            self.pinned.pin(PinReason::Settings);
        }
        sent.unwrap_or(0)
    }

    /// A set_config for the session. Its command tag is that of any SELECT, so that it must be the first to answer.
    fn set_config(&mut self, text: &[u8]) -> u32 {
        let full = self.params.len() >= MAX_SETTINGS || self.group.executions > 1;
        let cold = self.cold();
        let sent = sql::set_config(text)
            .filter(|_| !full && !cold.settings.are_too_many())
            .and_then(|(name, value)| cold.settings.send_config(&name, &value));
        if sent.is_none() {
            self.pinned.pin(PinReason::Settings);
        }
        sent.unwrap_or(0)
    }

    fn savepoint(&mut self, text: &[u8]) -> u32 {
        savepoint(text).map_or(0, |savepoint| {
            self.cold().settings.send_savepoint(savepoint);
            1
        })
    }

    /// What a statement leaves behind in its session. Returns how many settings it changes.
    fn effect(&mut self, class: Class, text: &[u8], link: &mut Link, context: Context<'_>) -> u32 {
        if self.may_end_pin(class, text) {
            self.pinned.may_end();
        }
        self.note_unlisten(text);
        steer::note(self, class, text, link);
        self.note_effect_in_block(class, text);
        match class.session {
            SessionEffect::None | SessionEffect::Execute => 0,
            SessionEffect::Prepare => {
                self.preparing(class, text, link, context);
                0
            }
            SessionEffect::Deallocate => {
                if let Some(name) = deallocate_target(text) {
                    self.deallocating(&name);
                }
                // If the name is one of the proxy's own, the connection is about to lose another client's statement.
                link.doubtful |=
                    deallocate_target(text).is_some_and(|name| name.starts_with(OWN_NAMES));
                0
            }
            SessionEffect::Set => self.set(text, link),
            SessionEffect::SetConfig => self.set_config(text),
            SessionEffect::SetSeveral => sql::statements(text)
                .into_iter()
                .map(|text| match first_word(text).as_str() {
                    "set" | "reset" => self.set(text, link),
                    "deallocate" => {
                        if let Some(name) = self.deallocates(text) {
                            // By its own name, under which it has been brought there.
                            self.take(&name, link);
                        }
                        0
                    }
                    "savepoint" | "release" | "rollback" | "abort" => self.savepoint(text),
                    _ => 0,
                })
                .sum(),
            SessionEffect::Savepoint => self.savepoint(text),
            SessionEffect::DiscardAll | SessionEffect::DeallocateAll => {
                let cold = self.cold();
                let names = std::mem::take(&mut cold.prepared);
                cold.taken.extend(names);
                link.forgetting = Some(link.held.now());
                link.own_names.age();
                0
            }
            SessionEffect::Pin(reason) => {
                self.pinned.pin(reason);
                // Not even DISCARD ALL takes that away.
                link.spent |= reason == PinReason::Function;
                0
            }
            SessionEffect::Unknown => {
                link.dirty = true;
                if first_word(text) == "set" {
                    // Whatever it sets, it is there as long as the session.
                    self.pinned.pin(PinReason::Settings);
                }
                0
            }
        }
    }
}

/// PostgreSQL's error for a statement that is not there.
fn no_such(name: &[u8]) -> Notice {
    let name = String::from_utf8_lossy(name);
    Notice::error(
        SqlState::InvalidSqlStatementName,
        format!("prepared statement \"{name}\" does not exist"),
    )
}

/// Whether a connection owes nothing and is outside of any transaction, so that a unit that only reads finds nothing that it
/// could concern.
fn is_plain_ground(link: &Link) -> bool {
    link.settled() && link.status == Status::Idle && link.replay.is_empty() && !link.doubtful
}

/// Whether these bytes are one Query, the whole of it.
fn is_one_query(bytes: &[u8]) -> bool {
    matches!(frame::header(bytes, usize::MAX), Ok(Some(header)) if header.tag == b'Q' && header.total() == bytes.len())
}

/// A group that runs one statement in the unnamed portal, and nothing else.
struct Run<'a> {
    /// It is the unnamed one, and this is it.
    parse: Option<frontend::Parse<'a>>,
    /// Its name.
    statement: &'a [u8],
    /// The Bind's; if it names the statement, that is where the group begins.
    bind: Header,
    /// The client asks for the description of its rows.
    describes: bool,
}

impl Run<'_> {
    fn of(bytes: &[u8]) -> Option<Run<'_>> {
        let mut frames = Frames(bytes);
        let mut next = frames.next()?;
        let mut parse = None;
        if next.0.tag == b'P' {
            parse = Some(frontend::parse(next.1).filter(|parse| parse.name.is_empty())?);
            next = frames.next()?;
        }
        let (bind, body) = next;
        let names = frontend::bind(body).filter(|names| {
            bind.tag == b'B'
                && names.portal.is_empty()
                && (parse.is_none() || names.statement.is_empty())
        })?;
        next = frames.next()?;
        let describes = next.0.tag == b'D';
        if describes {
            if next.1 != b"P\0" {
                return None;
            }
            next = frames.next()?;
        }
        let (execute, body) = next;
        if execute.tag != b'E' || body.len() != EXECUTE_UNNAMED || body[0] != 0 {
            return None;
        }
        let (sync, body) = frames.next()?;
        let ends = sync.tag == b'S' && body.is_empty() && frames.0.is_empty();
        ends.then_some(Run {
            parse,
            statement: names.statement,
            bind,
            describes,
        })
    }
}

/// Length of an Execute of the unnamed portal: its name and the limit of rows.
const EXECUTE_UNNAMED: usize = 1 + 4;

/// Takes away what others' sequences have left, before the message at `at`: in a group of its own if that stands `alone`.
#[cold]
fn discard_sequences(at: usize, alone: bool, link: &mut Link, writer: &mut Writer<'_>) {
    writer.replace(at, |out| {
        named::run(DISCARD_SEQUENCES, link, out);
        if alone {
            out.extend_from_slice(frontend::SYNC);
            link.owing.push(Owed::Sync {
                swallow: true,
                write: false,
                sets: 0,
            });
        }
    });
}

/// A statement may run functions of which nobody knows what they leave behind: in what it calls, or in triggers.
fn stain(class: Class, link: &mut Link, context: Context<'_>) {
    if class.access == Access::Write {
        link.stains = link.stains.and(context.catalog.leaves());
    }
}

/// Whether a text may begin a transaction block, as far as it has been read.
fn may_begin(class: Class) -> bool {
    let unread = matches!(
        class.reason,
        Reason::UnsafeText | Reason::TooLong | Reason::TooManyStatements
    );
    unread || matches!(class.tx, TxEffect::Begin | TxEffect::Mixed)
}

/// Whether one of several statements ends a transaction.
fn ends_transaction(text: &[u8]) -> bool {
    sql::statements(text).into_iter().any(|statement| {
        let first = first_word(statement);
        // PREPARE of a statement is taken for one of a transaction: that costs a cancel, the other way a commit.
        matches!(
            first.as_str(),
            "commit" | "end" | "rollback" | "abort" | "prepare"
        )
    })
}

/// The first word of a statement, in lower case.
fn first_word(statement: &[u8]) -> String {
    let word = statement
        .iter()
        .take_while(|byte| byte.is_ascii_alphabetic());
    word.map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect()
}

/// Whether messages may all belong to a COPY, into which nothing else may be sent, though its server has not said yet that
/// it has begun.
fn may_be_of_a_copy(bytes: &[u8]) -> bool {
    let is_of_one = |tag: u8| matches!(tag, b'd' | b'c' | b'f' | b'S' | b'H');
    // A message may be there in part.
    bytes.first().is_some_and(|tag| is_of_one(*tag))
        && Frames(bytes).all(|(header, _)| is_of_one(header.tag))
}

/// Whether a statement has neither parameters nor rows; only a few words are known.
fn surely_returns_nothing(statement: &Statement) -> bool {
    const WORDS: &[&str] = &[
        "abort",
        "alter",
        "begin",
        "commit",
        "create",
        "deallocate",
        "delete",
        "discard",
        "drop",
        "end",
        "insert",
        "listen",
        "lock",
        "notify",
        "prepare",
        "release",
        "reset",
        "rollback",
        "savepoint",
        "set",
        "start",
        "truncate",
        "unlisten",
        "update",
    ];
    let text = statement.text();
    statement.content().ends_with(NO_TYPES)
        && !text.contains(&b'$')
        && !mentions(text, b"returning")
        && WORDS.contains(&first_word(text).as_str())
}

fn make_room(link: &mut Link, id: StatementId, out: &mut Vec<u8>) {
    if let Some(evicted) = link.held.insert(id) {
        put_close(evicted, link, out);
    }
}

fn own_name(id: StatementId) -> Vec<u8> {
    let mut name = Vec::with_capacity(24);
    put_name(id, &mut name);
    name
}

fn put_close(id: StatementId, link: &mut Link, out: &mut Vec<u8>) {
    put_own_close(&own_name(id), link, out);
}

fn put_parse_as(id: StatementId, content: &[u8], out: &mut Vec<u8>) {
    frontend::put_parse(&own_name(id), content, out);
}

/// A Close of the proxy's own.
fn put_own_close(name: &[u8], link: &mut Link, out: &mut Vec<u8>) {
    frontend::put_close_statement(name, out);
    link.owing.push(Owed::Close {
        swallow: true,
        unnamed: false,
    });
}

/// A Parse of the proxy's own, of a statement that is not for long.
fn put_own_parse(name: &[u8], content: &[u8], link: &mut Link, out: &mut Vec<u8>) {
    frontend::put_parse(name, content, out);
    link.owing.push(Owed::Parse {
        swallow: true,
        named: false,
        unnamed: false,
        id: None,
    });
}

/// The front of a message that names a statement behind `front` of its body, with another name.
fn put_renamed(
    header: Header,
    front: &[u8],
    name: &[u8],
    put_other: impl FnOnce(&mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    let start = out.len();
    frame::put_header(out, header.tag, 0);
    out.extend_from_slice(front);
    put_other(out);
    let other = out.len() - start - HEADER - front.len();
    let length = u32::try_from(header.body - name.len() + other + 4).unwrap_or(u32::MAX);
    out[start + 1..start + HEADER].copy_from_slice(&length.to_be_bytes());
}

/// Copies only from the first byte that changes.
struct Writer<'a> {
    bytes: &'a [u8],
    sent: usize,
    out: &'a mut Vec<u8>,
    rewritten: bool,
}

impl Writer<'_> {
    /// Writes something else from `at` on; the caller moves `sent` past what it stands for.
    fn replace(&mut self, at: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.rewritten = true;
        self.out.extend_from_slice(&self.bytes[self.sent..at]);
        self.sent = at;
        write(self.out);
    }

    fn finish(self) -> bool {
        if self.rewritten {
            self.out.extend_from_slice(&self.bytes[self.sent..]);
        }
        !self.rewritten
    }
}
