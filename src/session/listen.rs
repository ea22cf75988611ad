//! LISTEN and UNLISTEN that the proxy carries out itself, for sessions that keep no server connection.
//!
//! Only what stands alone and outside of a transaction is taken up, so that there is nothing to roll back; everything
//! else goes to the server as it is, and pins. What takes channels away there takes them away here once its transaction
//! is over.

use std::collections::BTreeSet;

use super::front::{Frames, Next};
use super::{Session, between_units};
use crate::link::Link;
use crate::sql::{self, Class, Listening, PinReason, Reason, SessionEffect, mentions};
use crate::wire::frame::{put_header, split_cstr};
use crate::wire::frontend::{self, Target};
use crate::wire::{backend, reply};

/// Most channels that a session hears through the shared connection. Further ones pin it.
const MAX_CHANNELS: usize = 1000;

/// Whether the session may hear through the shared connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sharing {
    /// The pool's policy and mode allow it.
    allowed: bool,
    /// `client_encoding` is UTF8, as on the shared connection.
    utf8: bool,
}

impl Sharing {
    /// The client's encoding is another one now.
    pub(super) fn encoding(&mut self, name: &[u8]) {
        self.utf8 = is_utf8(name);
    }
}

/// What a session hears through the shared connection.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    pub(super) channels: BTreeSet<Box<[u8]>>,
    /// What statements on their way take from them, unless they are rolled back.
    noted: Vec<Listening>,
    /// What has been taken from them, for `relay`.
    gone: Vec<Listening>,
}

impl Hearing {
    fn change(&mut self, change: &Listening) {
        match change {
            Listening::Listen(name) => drop(self.channels.insert(name.clone())),
            Listening::Unlisten(name) => drop(self.channels.remove(name)),
            Listening::UnlistenAll => self.channels.clear(),
        }
    }

    /// All channels are being taken away.
    pub(super) fn note_all(&mut self) {
        self.noted.push(Listening::UnlistenAll);
    }

    /// What has been noted is rolled back. If that is only so in part, the session hears more than it wants, and not less.
    pub(super) fn forget_noted(&mut self) {
        self.noted.clear();
    }

    /// Everything has been answered, outside of a transaction. True if channels are gone.
    pub(super) fn carry_out(&mut self, failed: bool) -> bool {
        let noted = std::mem::take(&mut self.noted);
        if failed || noted.is_empty() {
            return false;
        }
        noted.iter().for_each(|change| self.change(change));
        self.gone.extend(noted);
        true
    }
}

/// Whether the value of `client_encoding`, as a server reports it, is UTF-8.
pub fn is_utf8(encoding: &[u8]) -> bool {
    encoding.eq_ignore_ascii_case(b"UTF8")
}

impl Session {
    /// The session's LISTEN is shared with others', in so far as it can be. `utf8` tells whether its encoding is UTF-8.
    #[must_use]
    pub fn with_shared_listen(mut self, utf8: bool) -> Session {
        self.sharing = Sharing {
            allowed: true,
            utf8,
        };
        self
    }

    /// Whether it hears any channel through the shared connection.
    pub fn is_listening(&self) -> bool {
        self.hearing()
            .is_some_and(|hearing| !hearing.channels.is_empty())
    }

    fn hearing(&self) -> Option<&Hearing> {
        self.cold.as_ref()?.hearing.as_deref()
    }

    pub(super) fn hearing_mut(&mut self) -> Option<&mut Hearing> {
        self.cold.as_mut()?.hearing.as_deref_mut()
    }

    /// What is to be done with a unit that asks for nothing but a channel; `None` if it is for a server.
    pub(super) fn next_listening(
        &self,
        unit: &[u8],
        class: Class,
        held: Option<(&Link, bool)>,
    ) -> Option<Next> {
        let listens = class.session == SessionEffect::Pin(PinReason::Listen);
        if !self.sharing.allowed
            || self.is_on_standbys()
            || self.is_in_unsent_block()
            || !(listens || (class.reason == Reason::Session && self.is_listening()))
            || self.pins().has(PinReason::Listen)
        {
            return None;
        }
        let change = self.asked_for(unit)?;
        if matches!(change, Listening::Listen(_)) && !self.may_share_another() {
            return None;
        }
        match held {
            // Whether a transaction is open then is known when what is on its way has been answered.
            Some((link, _)) if !link.settled() => Some(Next::Drain),
            Some((link, _)) if !between_units(link) => None,
            _ => Some(Next::Listening {
                len: unit.len(),
                change,
            }),
        }
    }

    fn may_share_another(&self) -> bool {
        let channels = self.hearing().map_or(0, |hearing| hearing.channels.len());
        self.sharing.utf8 && channels < MAX_CHANNELS
    }

    /// The channel that a Query, or a group that runs one statement, asks for.
    fn asked_for(&self, unit: &[u8]) -> Option<Listening> {
        if unit.first() == Some(&b'Q') {
            let (_, body) = Frames(unit).next()?;
            return sql::listening(frontend::query(body)?);
        }
        self.asked_for_by_group(unit)
    }

    /// Parse if need be, Bind, Describe if wanted, Execute, Sync, of a statement without parameters.
    fn asked_for_by_group(&self, unit: &[u8]) -> Option<Listening> {
        let mut parsed: Option<(&[u8], Listening)> = None;
        let mut bound: Option<(&[u8], Listening)> = None;
        let mut executed = false;
        for (header, body) in Frames(unit) {
            let named = |name: &[u8]| match &parsed {
                Some((known, change)) if *known == name => Some(change.clone()),
                _ => self.known_listening(name),
            };
            match header.tag {
                b'P' if parsed.is_none() && bound.is_none() => {
                    let parse = frontend::parse(body)?;
                    let taken = !parse.name.is_empty() && self.prepared(parse.name).is_some();
                    if taken || !parse.content.ends_with(NO_TYPES) {
                        return None;
                    }
                    parsed = Some((parse.name, sql::listening(parse.text)?));
                }
                b'B' if bound.is_none() => {
                    let bind = frontend::bind(body)?;
                    if !is_without_parameters(body) {
                        return None;
                    }
                    bound = Some((bind.portal, named(bind.statement)?));
                }
                b'D' => match frontend::target(body)? {
                    Target::Statement(name) => drop(named(name)?),
                    Target::Portal(name) => {
                        bound.as_ref().filter(|(portal, _)| *portal == name)?;
                    }
                },
                b'E' if !executed => {
                    let (portal, _) = split_cstr(body)?;
                    bound.as_ref().filter(|(bound, _)| *bound == portal)?;
                    executed = true;
                }
                b'S' if executed => return bound.map(|(_, change)| change),
                _ => return None,
            }
        }
        None
    }

    fn known_listening(&self, name: &[u8]) -> Option<Listening> {
        let statement = self.statement(name)?;
        let content = statement.content();
        sql::listening(statement.text()).filter(|_| content.ends_with(NO_TYPES))
    }

    /// What [`Next::Listening`] asked for has been done: writes the replies of its unit.
    pub fn listened(
        &mut self,
        unit: &[u8],
        change: &Listening,
        context: super::Context<'_>,
        replies: &mut Vec<u8>,
    ) {
        self.cold().hearing.get_or_insert_default().change(change);
        for (header, body) in Frames(unit) {
            match header.tag {
                b'Q' => {
                    // A simple Query destroys the unnamed statement.
                    self.unnamed = None;
                    put_complete(change.tag(), replies);
                    reply::ready_idle(replies);
                }
                b'P' => {
                    if let Some(parse) = frontend::parse(body) {
                        self.prepare_here(parse, context);
                    }
                    put_header(replies, b'1', 0);
                }
                b'B' => put_header(replies, b'2', 0),
                b'D' => {
                    if matches!(frontend::target(body), Some(Target::Statement(_))) {
                        put_header(replies, b't', 2);
                        replies.extend_from_slice(&[0, 0]);
                    }
                    put_header(replies, b'n', 0);
                }
                b'E' => put_complete(change.tag(), replies),
                b'S' => reply::ready_idle(replies),
                _ => {}
            }
        }
    }

    /// Whether a statement that goes to a server takes channels away.
    pub(super) fn may_unlisten(&self, text: &[u8]) -> bool {
        self.is_listening() && mentions(text, b"unlisten")
    }

    /// Notes what a statement takes away, if its transaction is committed.
    pub(super) fn note_unlisten(&mut self, text: &[u8]) {
        if !self.may_unlisten(text) {
            return;
        }
        let changes = sql::statements(text).into_iter().filter_map(sql::listening);
        let gone = changes.filter(|change| !matches!(change, Listening::Listen(_)));
        if let Some(hearing) = self.hearing_mut() {
            hearing.noted.extend(gone);
        }
    }

    /// Takes out which channels the session does not hear any more, because a server was told so.
    pub fn take_unlistened(&mut self) -> Vec<Listening> {
        self.hearing_mut()
            .map(|hearing| std::mem::take(&mut hearing.gone))
            .unwrap_or_default()
    }

    /// Whether a notification that came on the session's own connection comes by the shared one, too.
    pub(super) fn hears(&self, notification: &[u8]) -> bool {
        self.hearing().is_some_and(|hearing| {
            backend::notified_channel(notification)
                .is_some_and(|channel| hearing.channels.contains(channel))
        })
    }
}

/// The end of a Parse without parameter types.
pub(super) const NO_TYPES: &[u8] = b"\0\0\0";

/// Whether a Bind has no parameters: their count stands behind the names and the parameters' formats.
fn is_without_parameters(body: &[u8]) -> bool {
    let count = |bytes: &[u8]| bytes.first_chunk::<2>().map(|n| u16::from_be_bytes(*n));
    let values = || {
        let (_, rest) = split_cstr(body)?;
        let (_, rest) = split_cstr(rest)?;
        let formats = usize::from(count(rest)?);
        count(rest.get(2 + 2 * formats..)?)
    };
    values() == Some(0)
}

/// Appends a CommandComplete.
pub(super) fn put_complete(tag: &[u8], out: &mut Vec<u8>) {
    put_header(out, b'C', tag.len() + 1);
    out.extend_from_slice(tag);
    out.push(0);
}
