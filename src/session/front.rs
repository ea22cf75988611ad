//! Client bytes: what may leave, where it belongs, and how it is written for a particular server connection.

use std::sync::Arc;

use super::back::mixed_pipeline;
use super::forward::MAX_REPLAY;
use super::transaction::put_refusal;
use super::{Group, Session, between_units, bounce};
use crate::config::Route;
use crate::link::{Link, Local, Owed, Statement, Statements};
use crate::sql::catalog::Catalog;
use crate::sql::{
    Access, Class, Classifier, Lexing, Listening, Reason, SessionEffect, ShapeId, TxEffect,
    parsed_here,
};
use crate::wire::frame::{self, HEADER, Header};
use crate::wire::frontend::{self, Target};
use crate::wire::{ClientFacing, Notice, SqlState, Status};

/// What all sessions share.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Statement text to class.
    pub classifier: &'a Classifier,
    /// What the session's database has.
    pub catalog: &'a Catalog,
    /// Prepared statements by content.
    pub statements: &'a Statements,
    /// What is held of a group before its place is chosen, in bytes.
    pub pipeline_buffer: usize,
    /// Largest message of a client, in bytes.
    pub max_message: usize,
}

/// What to do with the front of the client's bytes. `len` counts bytes of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until more bytes have come.
    More,
    /// It takes long to judge: go on after others have had their turn.
    Later,
    /// A unit begins: it needs a server connection.
    Place {
        /// Bytes to forward once it is there.
        len: usize,
        /// What the unit does.
        class: Class,
    },
    /// Goes to the connection that is held.
    Forward {
        /// Bytes to forward.
        len: usize,
        /// What they do, if it was found out already.
        class: Option<Class>,
    },
    /// A channel is to be heard, or not any more, by way of the shared connection: do that, then
    /// [`Session::listened`].
    Listening {
        /// Bytes of the unit that asks for it.
        len: usize,
        /// What it asks for.
        change: Listening,
    },
    /// The held connection is not needed any more: give it back, ask again.
    Release,
    /// The held connection is the wrong one: wait until it owes nothing, give it back, ask again.
    Drain,
    /// The group has executed nothing yet and must move, or the transaction must: end it where it is, then as
    /// [`Next::Drain`].
    Rehome,
    /// A standby must not get the unit, and its transaction cannot move: [`Session::refuse_unit`], then drop the bytes.
    Refuse {
        /// Bytes to drop.
        len: usize,
    },
    /// Drop the bytes.
    Skip {
        /// Bytes to drop.
        len: usize,
    },
    /// Drop the bytes; the reply has been written.
    Reply {
        /// Bytes to drop.
        len: usize,
    },
    /// The client says goodbye.
    Terminate,
    /// The client broke the protocol: tell it and close.
    Violation(Violation),
}

/// A breach of the protocol by the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A length that cannot be right.
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
    /// A message type that clients do not send.
    #[error("invalid frontend message type {0}")]
    Type(u8),
}

impl ClientFacing for Violation {
    fn notice(&self) -> Notice {
        Notice::fatal(SqlState::ProtocolViolation, self.to_string())
    }
}

pub(super) const OPAQUE: Class = class(Access::Write, Reason::Unparsable, SessionEffect::Unknown);
pub(super) const FUNCTION_CALL: Class =
    class(Access::Write, Reason::Function, SessionEffect::Unknown);
const NOTHING: Class = class(Access::Empty, Reason::Empty, SessionEffect::None);

const fn class(access: Access, reason: Reason, session: SessionEffect) -> Class {
    Class::plain(access, reason).with(session)
}

impl Session {
    /// Judges the front of the client's bytes. `held` is the connection that the session has, and whether its node is a
    /// standby.
    pub fn next(
        &mut self,
        input: &[u8],
        held: Option<(&Link, bool)>,
        context: Context<'_>,
        replies: &mut Vec<u8>,
    ) -> Next {
        if input.is_empty() {
            return Next::More;
        }
        // It is of the group that is in front, as long as nothing else is done.
        let surveyed = match &mut self.cold {
            Some(cold) => cold.surveyed.take(),
            None => None,
        };
        if self.stream.left > 0 {
            let len = self.stream.left.min(input.len());
            if !self.stream.drop {
                let more = match held {
                    Some((link, _)) if takes_copy_data(link) => {
                        copy_data(&input[len..], context.max_message).0
                    }
                    _ => 0,
                };
                return Next::Forward {
                    len: len + more,
                    class: None,
                };
            }
            self.stream.left -= len;
            return Next::Skip { len };
        }
        let header = match frame::header(input, context.max_message) {
            Ok(Some(header)) => header,
            Ok(None) => return Next::More,
            Err(error) => return Next::Violation(error.into()),
        };
        if self.group.discard {
            return self.discard(input, header, held.is_some(), replies);
        }
        match held {
            Some((link, _)) if header.tag == b'd' && takes_copy_data(link) => Next::Forward {
                len: copy_data(input, context.max_message).0,
                class: None,
            },
            Some((link, standby)) if self.group.open || link.copy_in => {
                self.next_open(input, header, link, standby, context)
            }
            _ => self.next_unit(input, header, surveyed, held, context, replies),
        }
    }

    /// A unit begins.
    fn next_unit(
        &mut self,
        input: &[u8],
        header: Header,
        surveyed: Option<Surveyed>,
        held: Option<(&Link, bool)>,
        context: Context<'_>,
        replies: &mut Vec<u8>,
    ) -> Next {
        if self.awaits_rest() && held.is_some_and(|(link, _)| !link.settled()) {
            return Next::Drain;
        }
        if held.is_some_and(|(link, _)| link.owing.may_be_skipping())
            && matches!(header.tag, b'Q' | b'F' | b'P' | b'B' | b'D' | b'E' | b'C')
        {
            // A Sync of the proxy's own among it would end what the server skips.
            return Next::Drain;
        }
        match header.tag {
            b'Q' => match whole_or_preview(input, header, context.pipeline_buffer) {
                Some(len) => {
                    let class = self.classify_query(&input[..len], header, context);
                    if held.is_none() && self.goes_its_way(class) {
                        return Next::Place { len, class };
                    }
                    if self.names_open(class, held) && held.is_some_and(|(link, _)| !link.settled())
                    {
                        return Next::Drain;
                    }
                    if let Some(next) = self.end_sequence_pin(class, held) {
                        return next;
                    }
                    let unit = &input[..len];
                    self.next_listening(unit, class, held)
                        .or_else(|| self.query_in_block(unit, class, held, context, replies))
                        .unwrap_or_else(|| self.place(unit, class, held, context))
                }
                None => Next::More,
            },
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => {
                match self.survey(input, surveyed, held, context) {
                    Survey::Incomplete(surveyed) => {
                        let next = match surveyed.new {
                            MOST_NEW.. => Next::Later,
                            _ => Next::More,
                        };
                        if surveyed.len >= LONG_GROUP || next == Next::Later {
                            self.cold().surveyed = Some(surveyed);
                        }
                        next
                    }
                    Survey::Broken(violation) => Next::Violation(violation),
                    // What the name stands for is known when what is on its way has been answered.
                    Survey::Group { repeats: true, .. }
                        if held.is_some_and(|(link, _)| !link.settled()) =>
                    {
                        Next::Drain
                    }
                    Survey::Group { len, class, .. } => {
                        if held.is_none() && self.goes_its_way(class) {
                            return Next::Place { len, class };
                        }
                        if let Some(next) = self.end_sequence_pin(class, held) {
                            return next;
                        }
                        let unit = &input[..len];
                        self.next_listening(unit, class, held)
                            .or_else(|| self.group_in_block(unit, class, held, context, replies))
                            .unwrap_or_else(|| self.place(unit, class, held, context))
                    }
                }
            }
            b'F' => {
                if let Some(next) = self.end_sequence_pin(FUNCTION_CALL, held) {
                    return next;
                }
                let unit = &input[..input.len().min(header.total())];
                self.call_in_block(unit, FUNCTION_CALL, held, replies)
                    .unwrap_or_else(|| self.place(unit, FUNCTION_CALL, held, context))
            }
            b'd' | b'c' | b'f' => self.next_copy(input, header, held),
            b'X' => Next::Terminate,
            tag => Next::Violation(Violation::Type(tag)),
        }
    }

    /// Whether nothing but its class says where a unit goes.
    #[inline]
    fn goes_its_way(&self, class: Class) -> bool {
        self.is_plain(class) && !self.serializable.now
    }

    /// Where a unit of this class goes.
    fn place(
        &self,
        unit: &[u8],
        class: Class,
        held: Option<(&Link, bool)>,
        context: Context<'_>,
    ) -> Next {
        // Only what does nothing but read can be taken back from a standby that refuses it.
        let beside = class.access == Access::Read
            && !bounce::only_reads(class)
            && !self.reads_and_ends(unit, class);
        let mut class = self.class_in_block(unit, class, held, context);
        if beside || (self.serializable.now && class.access == Access::Read) {
            class = Class {
                access: Access::Primary,
                reason: Reason::Transaction,
                ..class
            };
        }
        if self.waits_to_ask(class) && held.is_some_and(|(link, _)| !link.settled()) {
            return Next::Drain;
        }
        if let Some((link, _)) = held
            && link.status == Status::Idle
            && !link.settled()
            && !link.owing.owes_client()
            && !Arc::ptr_eq(&self.params, &link.params)
        {
            // Behind the proxy's own question it would run without the settings that go before a unit.
            return Next::Drain;
        }
        if let Some((link, true)) = held
            && self.is_in_sent_block()
            && link.replay.may_bounce()
            && !self.may_follow_kept(unit, Some(class), link)
        {
            // What is before it could not be taken back any more.
            return Next::Drain;
        }
        if let Some((link, true)) = held
            && link.committing
            && link.replay.is_empty()
            && !link.settled()
            && class.access == Access::Read
        {
            // Outside of the transaction that is ending it may run elsewhere, unless something before it cannot.
            return Next::Drain;
        }
        place_class(unit.len(), class, held)
    }

    /// CopyData outside of a COPY that is known to have begun: it belongs to one that is about to begin, or to one
    /// that has failed, and then everybody ignores it. PostgreSQL manual, protocol-flow.html#PROTOCOL-COPY.
    fn next_copy(&mut self, input: &[u8], header: Header, held: Option<(&Link, bool)>) -> Next {
        let len = input.len().min(header.total());
        if held.is_some_and(|(link, _)| !between_units(link)) {
            return Next::Forward { len, class: None };
        }
        self.stream = super::Stream {
            left: header.total() - len,
            drop: true,
        };
        Next::Skip { len }
    }

    /// Inside a group whose place is fixed, or a COPY.
    fn next_open(
        &mut self,
        input: &[u8],
        header: Header,
        link: &Link,
        standby: bool,
        context: Context<'_>,
    ) -> Next {
        if link.copy_in && matches!(header.tag, b'S' | b'H') {
            // The server ignores both while it waits for CopyData.
            return if input.len() < header.total() {
                Next::More
            } else {
                Next::Skip {
                    len: header.total(),
                }
            };
        }
        let (mut len, mut parses) = (0, 0);
        while let Some(header) = match frame::header(&input[len..], context.max_message) {
            Ok(header) => header,
            Err(error) if len == 0 => return Next::Violation(error.into()),
            Err(_) => None,
        } {
            if link.copy_in && matches!(header.tag, b'S' | b'H') {
                break;
            }
            let frame = &input[len..];
            let Some(take) = forwardable(frame, header, context.pipeline_buffer) else {
                break;
            };
            // In a COPY the server finds fault with all that is not of it.
            let is_open = !link.copy_in && link.owing.owes_end();
            if is_open && self.hangs(&frame[..take], header, link, context) {
                break;
            }
            if standby && !link.owing.skipping() && !self.may_stay(&frame[..take], header, context)
            {
                return match (len, self.group.executed) {
                    // Whether the group has failed where it is must be known first.
                    (0, false) if !link.owing.is_empty() => Next::More,
                    (0, false) => Next::Rehome,
                    (0, true) => self.refuse(),
                    _ => Next::Forward { len, class: None },
                };
            }
            match header.tag {
                b'X' if len == 0 => return Next::Terminate,
                b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' | b'Q' | b'F' | b'd' | b'c'
                | b'f' => len += take,
                tag if len == 0 => return Next::Violation(Violation::Type(tag)),
                _ => break,
            }
            parses += u64::from(header.tag == b'P');
            if parses >= MOST_NEW {
                // Each is judged when it is forwarded, if not before.
                break;
            }
            // A group ends with its Sync, or with a Query; a message in part is the last that can leave.
            if matches!(header.tag, b'S' | b'Q' | b'F' | b'c' | b'f') || take < header.total() {
                break;
            }
        }
        if len == 0 {
            Next::More
        } else {
            Next::Forward { len, class: None }
        }
    }

    /// Whether what a message of an open group means hangs on a group before it.
    fn hangs(&self, frame: &[u8], header: Header, link: &Link, context: Context<'_>) -> bool {
        let body = &frame[HEADER..];
        let held = Some((link, false));
        match header.tag {
            b'P' => frontend::parse(body).is_some_and(|parse| {
                let name = parse.name;
                let statement = self.intern(parse, context);
                let is_open = self.is_unconfirmed(name) || is_on_its_way(&statement, held);
                (is_open && !name.is_empty()) || self.names_open(statement.class, held)
            }),
            b'B' => frontend::bind(body).is_some_and(|bind| {
                let bound = self.statement(bind.statement);
                self.is_open(bind.statement, held)
                    || hangs_on_unnamed(bind.statement, held)
                    || bound.is_some_and(|bound| self.names_open(bound.class, held))
            }),
            b'Q' => self.names_open(self.classify_query(frame, header, context), held),
            b'D' | b'C' => matches!(
                frontend::target(body),
                Some(Target::Statement(name)) if self.is_open(name, held)
                    || (header.tag == b'D' && self.describes_later(name, held))
            ),
            _ => false,
        }
    }

    /// Whether a message of an open group on a standby may follow the others there.
    pub(super) fn may_stay(&self, frame: &[u8], header: Header, context: Context<'_>) -> bool {
        let body = &frame[HEADER..];
        let class = match header.tag {
            b'Q' => self.classify_query(frame, header, context),
            b'P' => match frontend::parse(body) {
                Some(parse) => self.class_of(&self.intern(parse, context), context),
                None => OPAQUE,
            },
            b'B' => self
                .bound(body)
                .map_or(NOTHING, |statement| self.class_of(statement, context)),
            b'F' => FUNCTION_CALL,
            _ => NOTHING,
        };
        !matches!(class.access, Access::Primary | Access::Write)
            || self.policy(class).route == Route::Standby
    }

    /// A write in a group that has read from a standby already: it can neither run there nor move.
    fn refuse(&mut self) -> Next {
        self.group.discard = true;
        Next::Skip { len: 0 }
    }

    /// Drops messages up to the Sync of a group that the proxy has failed itself.
    fn discard(&mut self, input: &[u8], header: Header, held: bool, replies: &mut Vec<u8>) -> Next {
        if header.tag == b'X' {
            return Next::Terminate;
        }
        if header.tag == b'S' {
            if input.len() < header.total() {
                return Next::More;
            }
            self.group.discard = false;
            if held {
                return Next::Forward {
                    len: header.total(),
                    class: None,
                };
            }
            self.group = Group::default();
            self.put_ready(replies);
            return Next::Reply {
                len: header.total(),
            };
        }
        let len = input.len().min(header.total());
        self.stream = super::Stream {
            left: header.total() - len,
            drop: true,
        };
        Next::Skip { len }
    }

    /// Ends a group that has executed nothing where it is, so that it can go on elsewhere, or a transaction that has only
    /// read. The bytes are a Sync or a ROLLBACK; the replies are swallowed.
    pub fn rehome(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        if !self.group.open {
            self.leave_standby(link, out);
            return;
        }
        self.group = Group::default();
        out.extend_from_slice(frontend::SYNC);
        link.owing.push(Owed::Sync {
            swallow: true,
            write: false,
            sets: 0,
        });
    }

    /// Whether the proxy has failed the open group itself and must still say so.
    pub fn owes_refusal(&self) -> bool {
        self.group.discard && self.group.executed
    }

    /// The refusal is owed in its place among the replies. A transaction block fails with it: the bytes are something for
    /// the server to refuse.
    pub fn refused(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        self.group.executed = false;
        if self.is_in_sent_block() {
            put_refusal(&mixed_pipeline(), link, out);
        } else {
            link.owing.push(Owed::Local(Local::MixedPipeline));
        }
    }

    pub(super) fn classify_query(
        &self,
        frame: &[u8],
        header: Header,
        context: Context<'_>,
    ) -> Class {
        let class = match frontend::query(&frame[HEADER..]) {
            _ if frame.len() < header.total() => begun(self.classify(&frame[HEADER..], context)),
            Some(text) => self.classify(text, context),
            None => OPAQUE,
        };
        let text = || frontend::query(&frame[HEADER..]).unwrap_or_default();
        self.steered(self.executed(class, text, context))
    }

    pub(super) fn intern(
        &self,
        parse: frontend::Parse<'_>,
        context: Context<'_>,
    ) -> Arc<Statement> {
        // A text that this session's server lexes in another way must not share a verdict with the others.
        let is_shared = Lexing {
            utf8: self.lexing.utf8 || parse.text.is_ascii(),
            ..self.lexing
        } == Lexing::default();
        if is_shared {
            // Programs parse again what they have just parsed, and each Parse is looked at here and when it is sent.
            if let Some(unnamed) = &self.unnamed
                && unnamed.content() == parse.content
                && context.statements.is_current(unnamed)
            {
                return unnamed.clone();
            }
            let classify = || self.classify(parse.text, context);
            return context.statements.intern(parse.content, classify);
        }
        let class = self.classify(parse.text, context);
        context.statements.unshared(parse.content, class)
    }

    pub(super) fn classify(&self, text: &[u8], context: Context<'_>) -> Class {
        let Context {
            classifier,
            catalog,
            ..
        } = context;
        classifier.classify(text, self.lexing, catalog)
    }

    /// A Parse that is answered here: the session has the statement, and no server yet.
    pub(super) fn prepare_here(&mut self, parse: frontend::Parse<'_>, context: Context<'_>) {
        let statement = self.intern(parse, context);
        if parse.name.is_empty() {
            self.unnamed = Some(statement);
        } else {
            self.cold().prepared.insert(parse.name.into(), statement);
        }
    }

    /// What a prepared statement does, by what the catalog is now and by its hint.
    pub(super) fn class_of(&self, statement: &Statement, context: Context<'_>) -> Class {
        let class = statement.class_under(context.catalog.epoch(), || {
            let class = self.classify(statement.text(), context);
            // The check of a domain, or the input function of a type, is run for a parameter.
            let mut types = statement.parameter_types();
            if class.access == Access::Read && !types.all(|id| context.catalog.takes_parameter(id))
            {
                return Class {
                    access: Access::Write,
                    reason: Reason::Type,
                    ..class
                };
            }
            class
        });
        // Prepared when backslashes were something else: what servers make of it now is not known.
        let class = if self.lexing.is_alike(statement.text()) {
            class
        } else {
            Class {
                access: Access::Write,
                reason: Reason::UnsafeText,
                ..class
            }
        };
        self.steered(self.executed(class, || statement.text(), context))
    }

    /// The statement that a Bind body names, if the session knows it.
    pub(super) fn bound(&self, body: &[u8]) -> Option<&Arc<Statement>> {
        self.statement(frontend::bind(body)?.statement)
    }

    /// Reads a group up to its Sync or Flush and merges the classes of its statements. Goes on from what is `surveyed`, if
    /// that still holds.
    fn survey(
        &self,
        input: &[u8],
        surveyed: Option<Surveyed>,
        held: Option<(&Link, bool)>,
        context: Context<'_>,
    ) -> Survey {
        let basis = Basis {
            verdicts: context.classifier.basis(context.catalog),
            lexing: self.lexing,
            taken: held.map(|(link, _)| link.owing.taken()),
        };
        let parsed = parsed_here();
        let known = surveyed.filter(|known| known.basis == basis && known.len <= input.len());
        let (mut len, mut merged) = known.map_or((0, NOTHING), |known| (known.len, known.merged));
        let (mut parsed_unnamed, mut repeats) = known.map_or((false, false), |known| {
            (known.parsed_unnamed, known.repeats)
        });
        let group = |len, class, repeats| Survey::Group {
            len,
            class,
            repeats,
        };
        loop {
            let frame = &input[len..];
            let header = match frame::header(frame, context.max_message) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => return Survey::Broken(error.into()),
            };
            let Some(take) = forwardable(frame, header, context.pipeline_buffer) else {
                break;
            };
            let body = &frame[HEADER..take];
            let class = match header.tag {
                b'P' if len > 0 && parsed_here() - parsed >= MOST_NEW => break,
                b'P' => match frontend::parse(body) {
                    Some(parse) => {
                        parsed_unnamed |= parse.name.is_empty();
                        let statement = self.intern(parse, context);
                        repeats |= self.is_unconfirmed(parse.name)
                            || (!parse.name.is_empty() && is_on_its_way(&statement, held));
                        Some(self.class_of(&statement, context))
                    }
                    None => Some(OPAQUE),
                },
                b'B' => match frontend::bind(body) {
                    Some(bind) if bind.statement.is_empty() && parsed_unnamed => None,
                    Some(bind) => {
                        repeats |= self.is_open(bind.statement, held)
                            || hangs_on_unnamed(bind.statement, held);
                        let statement = self.statement(bind.statement);
                        statement.map(|statement| self.class_of(statement, context))
                    }
                    None => Some(OPAQUE),
                },
                b'D' | b'C' => {
                    if let Some(Target::Statement(name)) = frontend::target(body) {
                        repeats |= self.is_open(name, held);
                        if header.tag == b'D' && !(name.is_empty() && parsed_unnamed) {
                            repeats |= self.describes_later(name, held);
                        }
                    }
                    None
                }
                b'Q' => Some(self.classify_query(&frame[..take], header, context)),
                b'F' => Some(FUNCTION_CALL),
                b'E' | b'S' | b'H' => None,
                // Terminate ends the group without a Sync; anything else is looked at when it is at the front.
                _ if len > 0 => return group(len, merged, repeats),
                tag => return Survey::Broken(Violation::Type(tag)),
            };
            // Most messages have no class of their own.
            if let Some(class) = class {
                repeats |= self.names_open(class, held);
                merged = merge(merged, class);
            }
            len += take;
            if matches!(header.tag, b'S' | b'H' | b'Q' | b'F') {
                return group(len, merged, repeats);
            }
            if take < header.total() {
                return group(len, merge(merged, overflow()), repeats);
            }
        }
        let new = parsed_here() - parsed;
        if input.len() < context.pipeline_buffer || len == 0 || new >= MOST_NEW {
            return Survey::Incomplete(Surveyed {
                len,
                merged,
                parsed_unnamed,
                repeats,
                new,
                basis,
            });
        }
        group(len, merge(merged, overflow()), repeats)
    }

    /// Whether a Parse or Close of this name is on its way.
    fn is_unconfirmed(&self, name: &[u8]) -> bool {
        self.cold
            .as_ref()
            .is_some_and(|cold| cold.unconfirmed.iter().any(|(other, _)| **other == *name))
    }

    /// Whether what a name stands for, or whether the connection has it, hangs on a group that has not been answered: if
    /// that fails, it will not have happened.
    fn is_open(&self, name: &[u8], held: Option<(&Link, bool)>) -> bool {
        let is_on_its_way = |statement: &Arc<Statement>| is_on_its_way(statement, held);
        self.is_unconfirmed(name)
            || (held.is_some() && self.prepared(name).is_some_and(is_on_its_way))
    }

    /// Whether what a Describe of a statement comes to is known when what is on its way has been answered.
    fn describes_later(&self, name: &[u8], held: Option<(&Link, bool)>) -> bool {
        hangs_on_unnamed(name, held)
            || held.is_some_and(|(link, _)| self.may_be_described_here(name, link))
    }

    /// The same for what SQL may name.
    fn names_open(&self, class: Class, held: Option<(&Link, bool)>) -> bool {
        let names = matches!(
            class.session,
            SessionEffect::Prepare
                | SessionEffect::Execute
                | SessionEffect::Deallocate
                | SessionEffect::DeallocateAll
                | SessionEffect::DiscardAll
                | SessionEffect::SetSeveral
        );
        let cold = self.cold.as_ref();
        names
            && (cold.is_some_and(|cold| !cold.unconfirmed.is_empty())
                || held.is_some_and(|(link, _)| {
                    // Whether it is still so is known when what is on its way has been answered.
                    link.owing.is_naming() || link.status == Status::Failed
                }))
    }
}

/// Texts without a verdict that are judged before others get their turn; each takes the parser, some 30 µs.
pub const MOST_NEW: u64 = 32;

/// So many bytes of a group that is not complete are not looked at again when more come.
pub(super) const LONG_GROUP: usize = 4096;

/// What is known of the group in front, of which not all has come or been judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surveyed {
    /// Of so many bytes.
    len: usize,
    merged: Class,
    parsed_unnamed: bool,
    repeats: bool,
    /// How many texts were parsed the last time.
    new: u64,
    basis: Basis,
}

/// What it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Basis {
    verdicts: crate::sql::Basis,
    lexing: Lexing,
    /// What has been answered by then, on the connection that is held: names hang on it.
    taken: Option<u64>,
}

enum Survey {
    /// Its end has not been found.
    Incomplete(Surveyed),
    Group {
        len: usize,
        class: Class,
        /// It names a statement whose Parse or Close is on its way, in a group that may fail.
        repeats: bool,
    },
    Broken(Violation),
}

/// Whether a Parse of the statement has not been answered, or a Close that may be the statement's own.
fn is_on_its_way(statement: &Statement, held: Option<(&Link, bool)>) -> bool {
    held.is_some_and(|(link, _)| {
        link.owing.is_parsing(statement.id)
            || (link.owing.is_making_room() && !link.held.contains(statement.id))
    })
}

/// Whether the unnamed statement is meant, and what it is on the connection hangs on what has not been answered: what the
/// server skips leaves there what another client had.
fn hangs_on_unnamed(name: &[u8], held: Option<(&Link, bool)>) -> bool {
    name.is_empty() && held.is_some_and(|(link, _)| link.owing.is_changing_unnamed())
}

/// The class of a text of which only the beginning has been seen: the rest may do anything.
fn begun(class: Class) -> Class {
    let session = match class.session {
        pin @ SessionEffect::Pin(_) => pin,
        _ => SessionEffect::Unknown,
    };
    Class {
        access: Access::Write,
        reason: Reason::TooLong,
        ..class.with(session)
    }
}

/// Groups that do not fit the buffer are placed before they are known.
fn overflow() -> Class {
    class(Access::Write, Reason::TooLong, SessionEffect::None)
}

/// The place of two statements that go together.
fn merge(a: Class, b: Class) -> Class {
    let rank = |class: Class| match class.access {
        Access::Empty => 0,
        Access::Neutral => 1,
        Access::Read => 2,
        Access::Primary => 3,
        Access::Write => 4,
    };
    let tx = match (a.tx, b.tx) {
        (TxEffect::None, tx) | (tx, TxEffect::None) => tx,
        _ => TxEffect::Mixed,
    };
    let session = match (a.session, b.session) {
        (SessionEffect::None, session) | (session, SessionEffect::None) => session,
        (SessionEffect::Execute, SessionEffect::Execute) => SessionEffect::Execute,
        _ => SessionEffect::Unknown,
    };
    let hint = match (a.access, b.access) {
        (Access::Empty, _) => b.hint,
        (_, Access::Empty) => a.hint,
        _ => a.hint.beside(b.hint),
    };
    let (stronger, weaker) = if rank(b) > rank(a) { (b, a) } else { (a, b) };
    let shape = match stronger.shape {
        // As of a BEGIN in one group with the statement behind it.
        ShapeId::NONE => weaker.shape,
        shape => shape,
    };
    Class {
        tx,
        session,
        hint,
        shape,
        sequences: a.sequences.and(b.sequences),
        ..stronger
    }
}

/// Whether a server in a transaction that has failed refuses all of a unit: it is whole, and ends no transaction.
pub(super) fn is_refused_with(unit: &[u8], class: Class) -> bool {
    let known = !matches!(
        class.reason,
        Reason::Unparsable | Reason::UnsafeText | Reason::TooLong | Reason::TooManyStatements
    );
    if !known || unit.len() > MAX_REPLAY || !matches!(class.tx, TxEffect::None | TxEffect::Begin) {
        return false;
    }
    let mut frames = Frames(unit);
    let last = frames.by_ref().last();
    frames.0.is_empty() && last.is_some_and(|(header, _)| matches!(header.tag, b'Q' | b'S'))
}

fn place_class(len: usize, class: Class, held: Option<(&Link, bool)>) -> Next {
    match held {
        Some((link, _)) if between_units(link) => Next::Place { len, class },
        // What runs behind DISCARD ALL would run without the session's settings and statements; and whether a client's own
        // statement of that kind takes names away is known when it has been answered.
        Some((link, _))
            if !link.settled()
                && (link.owing.is_cleaning()
                    || link.forgetting.is_some()
                    || link.resetting
                    || link.wiping
                    || link.preparing
                    || link.steering
                    || link.guarded
                    || link.replay.is_draining()
                    || link.doubtful) =>
        {
            Next::Drain
        }
        Some((link, true))
            if !link.settled() && matches!(class.access, Access::Primary | Access::Write) =>
        {
            Next::Drain
        }
        // It must not be sent twice, as what is before it may have to be.
        Some((link, true)) if link.replay.may_bounce() && !bounce::only_reads(class) => Next::Drain,
        Some(_) => Next::Forward {
            len,
            class: Some(class),
        },
        None => Next::Place { len, class },
    }
}

/// Whether the server reads the data of a COPY, and nothing of what was sent before is kept: the data then passes with no
/// more than a look at where its messages end.
pub(super) fn takes_copy_data(link: &Link) -> bool {
    link.copy_in && link.replay.is_empty() && !link.doubtful
}

/// How many bytes at the front are CopyData, and how many more the last of these messages has. Stops where anything else
/// begins, or what cannot be told yet, or is too large.
pub(super) fn copy_data(bytes: &[u8], max_message: usize) -> (usize, usize) {
    let mut at = 0;
    while let Some([b'd', length @ ..]) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER>) {
        let length = u32::from_be_bytes(*length) as usize;
        if length < size_of::<u32>() || length - size_of::<u32>() > max_message {
            break;
        }
        let end = at + 1 + length;
        if end > bytes.len() {
            return (bytes.len(), end - bytes.len());
        }
        at = end;
    }
    (at, 0)
}

/// Bytes of a Query that are enough to judge it: all of it, or more than are held of a unit.
fn whole_or_preview(input: &[u8], header: Header, buffer: usize) -> Option<usize> {
    let len = input.len().min(header.total());
    (len == header.total() || len >= buffer).then_some(len)
}

/// Bytes of a message in a group that can be forwarded now; `None` if too little of it has arrived.
fn forwardable(frame: &[u8], header: Header, buffer: usize) -> Option<usize> {
    let len = frame.len().min(header.total());
    if len == header.total() {
        return Some(len);
    }
    match header.tag {
        b'Q' => whole_or_preview(frame, header, buffer),
        // Parameters may be large: the names are enough once the buffer is full.
        b'B' if len >= buffer => frontend::bind(&frame[HEADER..len]).map(|_| len),
        b'd' | b'f' | b'F' => Some(len),
        _ => None,
    }
}

/// Whole messages, one after the other.
pub(super) struct Frames<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = (Header, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = frame::header(self.0, usize::MAX).ok()??;
        let frame = self.0.get(..header.total())?;
        self.0 = &self.0[header.total()..];
        Some((header, &frame[HEADER..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_data_of_a_copy_ends() {
        let check = |bytes: &[u8], expected: (usize, usize)| {
            assert_eq!(copy_data(bytes, 100), expected, "{}", bytes.escape_ascii());
        };
        check(b"", (0, 0));
        check(b"d\0\0\0", (0, 0));
        check(b"d\0\0\0\x04", (5, 0));
        check(b"d\0\0\0\x06ab", (7, 0));
        check(b"d\0\0\0\x06a", (6, 1));
        check(b"d\0\0\0\x06abd\0\0\0\x05", (12, 1));
        // Less than a header, another message, and lengths that cannot be.
        check(b"d\0\0\0\x06abd\0", (7, 0));
        check(b"d\0\0\0\x06abc\0\0\0\x04", (7, 0));
        check(b"d\0\0\0\x06abd\0\0\0\x03", (7, 0));
        check(b"d\0\0\0\x06abd\0\0\x01\0", (7, 0));
        check(b"c\0\0\0\x04", (0, 0));
    }
}
