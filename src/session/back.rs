//! Server bytes: what passes to the client, what the proxy keeps for itself, and what it means.

use std::ops::Range;

use super::bounce;
use super::settings::Settled;
use super::{NameChange, Session, steer};
use crate::link::{
    Again, Body, CopyIn, Link, Local, Owed, Refusal, Replay, SequenceMark, Statement, StatementId,
    name_tag, put_name,
};
use crate::sql::catalog::Change;
use crate::wire::backend::{self, PREFIX};
use crate::wire::frame::{self, HEADER, Header};
use crate::wire::{ClientFacing, FrameError, Notice, SqlState, Status};

/// What came of a chunk of server bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// These bytes of the chunk go to the client as they are; if `None`, what goes is in the output buffer.
    pub verbatim: Option<Range<usize>>,
    /// A unit has ended, with a ReadyForQuery for the client.
    pub ended: bool,
    /// How many of the client's have.
    pub units: u32,
    /// One of them left no transaction open.
    pub idle: bool,
    /// A transaction that may have written has ended.
    pub wrote: bool,
    /// A standby refused a statement (25006): the router was wrong.
    pub refused: bool,
    /// The catalog may have changed: tables, views, functions.
    pub catalog_changed: Change,
    /// What the connection was given is to be sent again: [`Link::replay`] has it.
    pub again: Option<Again>,
    /// A standby has refused this unit when the client had seen a part of its result, so that it could not run elsewhere; and
    /// how many of its Executes had not been answered.
    pub learned: Option<(Refusal, Vec<u8>, usize)>,
    /// A transaction has ended, and this Query, which stood behind it in one with it, follows.
    pub rest: Option<Vec<u8>>,
    /// Channels are gone: [`Session::take_unlistened`].
    pub unlistened: bool,
    /// A cancel request has hit something else than what the client runs.
    pub missed: bool,
}

/// A server that cannot be understood, or one of the proxy's own statements that failed. The connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A length that cannot be right.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A reply that nothing was owed for.
    #[error("unexpected message of type {tag:?} from the server", tag = char::from(*.0))]
    Unexpected(u8),
    /// The session's settings were refused when they were carried over to another connection.
    #[error("a server refused the session's settings: {0}")]
    Settings(String),
}

impl ClientFacing for LinkError {
    fn notice(&self) -> Notice {
        match self {
            LinkError::Settings(_) => {
                Notice::error(SqlState::InvalidParameterValue, self.to_string()).hint(
                    "The session made these settings on another server connection. RESET them, or connect again.",
                )
            }
            error => Notice::error(SqlState::ConnectionFailure, error.to_string()),
        }
    }
}

/// PostgreSQL's words for a statement that takes too long, and whose bound it is.
pub const OVERDUE: [&str; 2] = [
    "canceling statement due to statement timeout",
    "The bound is timeouts.query of the proxy.",
];

/// Whether these bytes are results of reads and the end of their unit, in whole messages.
#[inline]
fn is_plain_answer(chunk: &[u8]) -> bool {
    let Some(mut rest) = chunk.strip_suffix(READY_IDLE) else {
        return false;
    };
    while let Ok(Some(header)) = frame::header(rest, frame::MAX_SERVER_BODY) {
        let is_known = match header.tag {
            b'D' | b'T' | b'1' | b'2' | b'n' => true,
            // Other tags may tell of changes to the session.
            b'C' => rest[HEADER..].starts_with(b"SELECT "),
            _ => false,
        };
        let Some(next) = rest.get(header.total()..).filter(|_| is_known) else {
            return false;
        };
        rest = next;
    }
    rest.is_empty()
}

const DISCARD_ALL: &[u8] = b"DISCARD ALL\0";
const DEALLOCATE: &[u8] = b"DEALLOCATE\0";
/// Tags of the statements that take prepared statements away.
const FORGETTING: [&[u8]; 3] = [DISCARD_ALL, b"DEALLOCATE ALL\0", DEALLOCATE];

/// The end of a unit outside of any transaction.
const READY_IDLE: &[u8] = b"Z\0\0\0\x05I";

impl Session {
    /// Whether a chunk of server bytes is the whole answer to a read that is alone on its way, as reads are answered: then
    /// it passes as it is, the unit has ended, and there is nothing else to it. Otherwise it is for [`Session::receive`],
    /// which looks for the same first: this spares those who ask what they would make of its result.
    #[inline]
    pub fn answers_plainly(&mut self, link: &mut Link, chunk: &[u8]) -> bool {
        let is_plain = std::mem::take(&mut link.plain) && is_plain_answer(chunk);
        if is_plain {
            link.owing.answered();
            if !link.replay.is_empty() {
                link.replay.answered();
            }
        }
        is_plain
    }

    /// Reads a chunk of server bytes. Either the chunk, or part of it, passes as it is, or `out` gets what the client is
    /// to see. `standby` tells the role of the server's node.
    ///
    /// # Errors
    /// [`LinkError`]: the server connection must be closed. What `out` has by then is still for the client.
    pub fn receive(
        &mut self,
        link: &mut Link,
        chunk: &[u8],
        standby: bool,
        out: &mut Vec<u8>,
    ) -> Result<Received, LinkError> {
        if self.answers_plainly(link, chunk) {
            return Ok(Received {
                verbatim: Some(0..chunk.len()),
                ended: true,
                units: 1,
                idle: true,
                ..Received::default()
            });
        }
        if link.partial.is_empty() {
            return self.read(link, chunk, standby, out);
        }
        let mut joined = std::mem::take(&mut link.partial);
        joined.extend_from_slice(chunk);
        let mut received = self.read(link, &joined, standby, out)?;
        if let Some(range) = received.verbatim.take() {
            out.extend_from_slice(&joined[range]);
        }
        Ok(received)
    }

    fn read(
        &mut self,
        link: &mut Link,
        chunk: &[u8],
        standby: bool,
        out: &mut Vec<u8>,
    ) -> Result<Received, LinkError> {
        let mut pass = Pass {
            chunk,
            from: 0,
            out,
            spliced: false,
            held: None,
        };
        if holds(link) {
            pass.hold(0);
        } else if link.replay.has_unseen() {
            pass.hold(0);
            pass.show(link.replay.unseen());
        }
        let mut received = Received::default();
        let mut at = pass_body(link, &mut pass);
        self.settle_at(link, &mut pass, at);
        while at < chunk.len() {
            let rest = &chunk[at..];
            let header = match frame::header(rest, frame::MAX_SERVER_BODY) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(error) => {
                    pass.fail(at);
                    return Err(error.into());
                }
            };
            if pass.held.is_none() && passes(header, link) {
                let here = end_of(header, at).min(chunk.len());
                link.body.left = end_of(header, at) - here;
                link.body.swallow = false;
                at = here;
                continue;
            }
            let wanted = wanted(header, link);
            let Some(body) = rest.get(HEADER..HEADER + wanted) else {
                break;
            };
            let refused = link.owing.front().filter(|_| header.tag == b'E');
            let in_own_place = header.tag == b'E' && link.owing.front() == Some(Owed::Refusal);
            let verdict = match self.message(link, header, body, standby, &mut received) {
                Ok(verdict) => verdict,
                Err(error) => {
                    pass.fail(at);
                    return Err(error);
                }
            };
            let verdict = self.held_back(link, header, body, verdict, &mut pass, at);
            let end = end_of(header, at);
            let here = end.min(chunk.len());
            link.body = Body {
                left: end - here,
                swallow: verdict == Verdict::Swallow,
            };
            if verdict == Verdict::Swallow {
                pass.skip(at, here);
            } else if header.tag == b'E'
                && body.len() == header.body
                && let Some(error) = self.worded(link, body, in_own_place, refused)
            {
                pass.skip(at, here);
                frame::put_header(pass.out, b'E', error.len());
                pass.out.extend_from_slice(&error);
            }
            at = here;
            if header.tag == b'Z' {
                if verdict == Verdict::Pass {
                    link.replay.answered();
                }
                if pass.held.is_none() && holds(link) {
                    pass.hold(at);
                }
            }
            self.settle_at(link, &mut pass, at);
        }
        if at < chunk.len() {
            link.partial.extend_from_slice(&chunk[at..]);
        }
        if pass.held(at) + link.replay.unseen().len() > MAX_UNSEEN {
            self.show(link, &mut pass);
        }
        received.verbatim = pass.finish(at, link.replay.unseen());
        Ok(received)
    }

    /// An error in other words than the server's, where it has them.
    #[cold]
    fn worded(
        &self,
        link: &mut Link,
        body: &[u8],
        in_own_place: bool,
        refused: Option<Owed>,
    ) -> Option<Vec<u8>> {
        refusal_of(link, in_own_place && !link.fatal)
            .or_else(|| said_instead(link, body))
            .or_else(|| steer::in_words(body))
            .or_else(|| self.in_own_words(body, refused))
            .or_else(|| self.in_words_of_sequences(body))
            .or_else(|| in_words_of_timeout(link, body))
    }

    /// What comes before the first of a result is held back while the unit may run elsewhere. The message at `at` ends that:
    /// its result has begun, or it has been refused.
    #[inline]
    fn held_back(
        &mut self,
        link: &mut Link,
        header: Header,
        body: &[u8],
        verdict: Verdict,
        pass: &mut Pass<'_>,
        at: usize,
    ) -> Verdict {
        if link.replay.is_draining() {
            pass.drop_held(at);
            return Verdict::Swallow;
        }
        if pass.held.is_some() && verdict == Verdict::Pass && begins_result(header.tag, body) {
            self.show(link, pass);
        }
        if matches!(header.tag, b'S' | b'A') && pass.held.is_some() && verdict == Verdict::Pass {
            // News of its own, whatever becomes of the unit.
            if !pass.overtake(at, header.total()) {
                self.show(link, pass);
            }
        }
        verdict
    }

    /// What was held back is for the client, and so is what follows: the unit stays where it is.
    #[inline(never)]
    fn show(&mut self, link: &mut Link, pass: &mut Pass<'_>) {
        link.replay.show();
        pass.show(link.replay.unseen());
        if let Some(cold) = &mut self.cold {
            cold.confirmed.clear();
        }
    }

    /// Gives the replies of the proxy's own whose turn has come. Not in the middle of a message: then they follow its end.
    pub fn settle(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        if link.body.left > 0 {
            return;
        }
        let holds = link.replay.holds();
        let mut unseen = std::mem::take(link.replay.unseen());
        self.give_local(link, &mut unseen);
        if holds {
            *link.replay.unseen() = unseen;
        } else {
            out.append(&mut unseen);
        }
    }

    #[inline(never)]
    fn give_local(&mut self, link: &mut Link, out: &mut Vec<u8>) {
        let before = out.len();
        while let Some(Owed::Local(local)) = link.owing.front() {
            link.owing.pop();
            match local {
                Local::ParseComplete => {
                    self.confirm(&link.replay);
                    out.extend_from_slice(b"1\0\0\0\x04");
                }
                Local::CloseComplete => {
                    self.confirm(&link.replay);
                    out.extend_from_slice(b"3\0\0\0\x04");
                }
                Local::NoData => {
                    frame::put_header(out, b't', 2);
                    out.extend_from_slice(&[0, 0]);
                    frame::put_header(out, b'n', 0);
                }
                Local::MixedPipeline => mixed_pipeline().put(out),
            }
        }
        if link.replay.is_draining() {
            out.truncate(before);
        }
    }

    #[inline]
    fn settle_at(&mut self, link: &mut Link, pass: &mut Pass<'_>, at: usize) {
        if link.body.left == 0 && matches!(link.owing.front(), Some(Owed::Local(_))) {
            pass.cut(at);
            self.give_local(link, pass.out);
        }
    }

    /// One message of which the steering part has arrived.
    fn message(
        &mut self,
        link: &mut Link,
        header: Header,
        body: &[u8],
        standby: bool,
        received: &mut Received,
    ) -> Result<Verdict, LinkError> {
        let front = link.owing.front();
        if let Some(Owed::Own(last)) = front
            && header.tag != b'E'
        {
            if header.tag == last {
                link.owing.pop();
            }
            return Ok(Verdict::Swallow);
        }
        let injected = front.is_some_and(Owed::is_own);
        match header.tag {
            // Rows and copied data are most of what there is.
            b'D' => {
                if let Some(Owed::Probe(asked)) = front {
                    self.pins_left(asked, body);
                }
            }
            b'd' => {}
            b'Z' => return self.ready(link, body, received),
            b'E' => return Ok(self.error(link, body, standby, injected, received)),
            b'C' => {
                if !injected {
                    self.completed(link, body);
                }
                pop_if(link, |owed| owed == Owed::Execute);
            }
            b's' | b'I' => {
                if header.tag == b's' {
                    // The rest is fetched from here.
                    self.tie_block();
                }
                // Its rows up to the limit are there, and so is what they changed.
                self.completed(link, b"SELECT 1\0");
                pop_if(link, |owed| owed == Owed::Execute);
            }
            b'T' | b'n' => pop_if(link, |owed| owed == Owed::Describe),
            b'1' => return self.parse_complete(link),
            b'2' => pop_if(link, |owed| matches!(owed, Owed::Bind { .. })),
            b'3' => {
                let swallow = matches!(link.owing.front(), Some(Owed::Close { swallow: true, .. }));
                pop_if(link, |owed| matches!(owed, Owed::Close { .. }));
                return Ok(if swallow {
                    Verdict::Swallow
                } else {
                    Verdict::Pass
                });
            }
            b'S' => {
                // The question about pins changes no setting: what comes beside its answer is news to the client, too.
                let injected = matches!(front, Some(Owed::Injected { .. })) && !link.wiping;
                return Ok(self.parameter(body, injected, link.resetting));
            }
            // Whatever is going on: it is for whoever listens.
            b'A' if self.hears(body) => return Ok(Verdict::Swallow),
            b'A' => return Ok(Verdict::Pass),
            b'G' => {
                let CopyIn {
                    ended,
                    synced,
                    write,
                    sets,
                } = link.owing.copy_begins();
                link.copy_in = !ended;
                if let Some(cold) = &mut self.cold {
                    cold.settings.unit_changed();
                }
                if synced {
                    self.group.open = true;
                    self.group.write |= write;
                    self.group.sets += sets;
                }
            }
            b't' | b'N' | b'H' | b'c' | b'V' | b'W' => {}
            tag => return Err(LinkError::Unexpected(tag)),
        }
        Ok(if injected {
            Verdict::Swallow
        } else {
            Verdict::Pass
        })
    }

    fn parse_complete(&mut self, link: &mut Link) -> Result<Verdict, LinkError> {
        let Some(Owed::Parse { swallow, named, .. }) = link.owing.front() else {
            return Err(LinkError::Unexpected(b'1'));
        };
        link.owing.pop();
        if named {
            self.confirm(&link.replay);
        }
        Ok(if swallow {
            Verdict::Swallow
        } else {
            Verdict::Pass
        })
    }

    /// The oldest change of a name has been answered.
    fn confirm(&mut self, replay: &Replay) {
        let Some(cold) = &mut self.cold else { return };
        let Some(change) = cold.unconfirmed.pop_front() else {
            return;
        };
        if let (name, NameChange::Defined) = &change
            && let Some(statement) = cold.prepared.get(name)
        {
            statement.accept();
        }
        if replay.holds() {
            cold.confirmed.push(change);
        }
    }

    // Neither this nor the rest of what comes once in a result is to weigh on the loop over all messages.
    #[inline(never)]
    fn ready(
        &mut self,
        link: &mut Link,
        body: &[u8],
        received: &mut Received,
    ) -> Result<Verdict, LinkError> {
        let status = body
            .first()
            .and_then(|byte| Status::from_byte(*byte))
            .ok_or(LinkError::Unexpected(b'Z'))?;
        let owed = loop {
            match link.owing.pop() {
                Some(owed) if owed.ends_with_ready() => break owed,
                // A portal that ended without a completion of its own, as after an error at commit.
                Some(_) => {}
                None => return Err(LinkError::Unexpected(b'Z')),
            }
        };
        link.copy_in = false;
        let verdict = match owed {
            Owed::Injected { discard } => {
                if let Some(refusal) = link.refusal.take() {
                    link.doubtful = true;
                    return Err(LinkError::Settings(refusal));
                }
                if discard {
                    link.discarded();
                }
                let wiped = std::mem::take(&mut link.wiping);
                link.guarded &= matches!(link.owing.front(), Some(Owed::Injected { .. }));
                link.status = status;
                if let Some(cold) = self.cold.as_mut().filter(|_| !discard && !wiped) {
                    cold.restate = false;
                }
                return Ok(Verdict::Swallow);
            }
            Owed::Probe(_) => {
                link.refusal = None;
                link.status = status;
                self.pinned.asked();
                return Ok(Verdict::Swallow);
            }
            Owed::Sync { swallow: true, .. } => Verdict::Swallow,
            Owed::Query { .. } if self.awaits_rest() => {
                received.rest = self.take_rest(link.failed);
                match received.rest {
                    Some(_) => Verdict::Swallow,
                    None => Verdict::Pass,
                }
            }
            _ => Verdict::Pass,
        };
        let draining = link.replay.is_draining();
        let (write, sets) = match owed {
            Owed::Query { write, sets } | Owed::Sync { write, sets, .. } => (write, sets),
            Owed::Call => (true, 0),
            _ => (false, 0),
        };
        let before = std::mem::replace(&mut link.status, status);
        link.committing &= !link.owing.is_empty();
        link.beginning &= !link.owing.is_empty();
        if draining && link.owing.is_empty() {
            received.again = link.replay.drained();
        }
        // What is sent again has not ended.
        received.ended |= !draining && verdict == Verdict::Pass;
        received.idle |= !draining && status == Status::Idle;
        // The proxy's own groups go before what begins a block.
        let is_own = before == Status::Idle && matches!(owed, Owed::Sync { swallow: true, .. });
        if !draining && status == Status::Idle && !is_own {
            self.end_block();
        }
        let mut changed = if link.failed {
            Change::None
        } else {
            link.changes_catalog
        };
        if link.owing.is_empty() {
            link.changes_catalog = Change::None;
        }
        // At once for the session itself, and for the others when they see it.
        if status == Status::Idle {
            changed = changed.max(std::mem::take(&mut link.catalog_open));
        } else {
            link.catalog_open = link.catalog_open.max(changed);
        }
        received.catalog_changed = received.catalog_changed.max(changed);
        link.wrote |= write;
        if status == Status::Idle && std::mem::take(&mut link.wrote) {
            received.wrote = true;
        }
        if link.owing.is_empty() && std::mem::take(&mut link.resetting) {
            self.cold().restate = true;
        }
        link.steering &= !link.owing.is_empty();
        if link.owing.is_empty()
            && std::mem::take(&mut link.preparing)
            && let Some(cold) = &mut self.cold
        {
            cold.preparing.clear();
        }
        if link.owing.is_empty() && link.forgetting.take().is_some() {
            // It has not been done: the server still has what the proxy took it to have lost.
            link.doubtful = true;
            self.remember_taken();
        }
        self.unit_ended(link, sets, is_own);
        received.unlistened |= self.unlisten_at_rest(link);
        if verdict == Verdict::Pass {
            if !draining {
                self.answer_block();
            }
            link.unsaid = None;
            received.units += 1;
            link.own_words = None;
            link.overdue = false;
        }
        link.failed = false;
        link.copy_failed = false;
        Ok(if draining { Verdict::Swallow } else { verdict })
    }

    /// What has been said of channels in a transaction counts when it is over. True if any are gone.
    fn unlisten_at_rest(&mut self, link: &Link) -> bool {
        link.status == Status::Idle
            && link.owing.is_empty()
            && self
                .hearing_mut()
                .is_some_and(|hearing| hearing.carry_out(link.failed))
    }

    fn unit_ended(&mut self, link: &mut Link, sets: u32, is_own: bool) {
        let Some(cold) = &mut self.cold else { return };
        // Not those of a group behind it, whose Execute may still come.
        if link.status == Status::Idle && link.owing.is_empty() && !self.group.open {
            cold.portals.clear();
        }
        if is_own {
            // A transaction that has moved goes on behind it, and what it has set is still open.
            return;
        }
        if let Some(settled) = cold.settings.unit_ended(sets, link, &self.params) {
            self.settle_settings(link, settled);
        }
    }

    fn settle_settings(&mut self, link: &mut Link, settled: Settled) {
        self.set_params(settled.session);
        link.params = settled.connection;
    }

    #[cold]
    fn error(
        &mut self,
        link: &mut Link,
        body: &[u8],
        standby: bool,
        injected: bool,
        received: &mut Received,
    ) -> Verdict {
        if injected {
            // The client's cancel request has hit the proxy's question instead of the statement behind it.
            received.missed |= matches!(link.owing.front(), Some(Owed::Probe(_)))
                && link.owing.owes_client()
                && backend::error_field(body, b'C') == Some(b"57014");
            link.refusal.get_or_insert_with(|| refusal(body));
            return Verdict::Swallow;
        }
        let unseen = link.owing.is_unseen();
        let front = link.owing.front();
        // What an EXECUTE names is not there because the server has refused the PREPARE that was put before it.
        let said = link
            .unsaid
            .as_deref()
            .filter(|_| follows_from_unsaid(body))
            .unwrap_or(body);
        let mut refusal = (standby && !unseen && !link.replay.is_draining())
            .then(|| bounce::refusal(said, front))
            .flatten();
        if !link.replay.holds()
            && let Some(refusal) = refusal.take().filter(|refusal| refusal.learned)
        {
            let unit = link.replay.front().to_vec();
            received.learned = Some((refusal, unit, link.owing.executes()));
        }
        link.failed = true;
        link.copy_failed |= std::mem::take(&mut link.copy_in);
        received.refused |= standby && backend::error_field(body, b'C') == Some(b"25006");
        if backend::is_fatal(body) {
            link.fatal = true;
            let code = backend::error_field(body, b'C');
            link.idled_out = link.owing.is_empty() && code == Some(b"57P05");
            link.replay.doomed(bounce::doom(body));
            // A session that has nothing on this connection outlives it: `relay` words the error then.
            if link.copy_failed {
                // The client has sent what does not belong there: as with the server, this is the end of its session.
                link.status = Status::Failed;
                link.committing = false;
            } else if !self.is_bound() && !self.dies_with(link) {
                return Verdict::Swallow;
            }
        }
        if let Some(Owed::Bind { id: Some(id), .. }) = link.owing.front()
            && backend::error_field(body, b'R') == Some(b"RevalidateCachedQuery")
        {
            self.retire(id);
            // All that is owed is the rest of this group, and none of it has been answered.
            if link.replans && link.owing.len() == UNANSWERED && !link.replay.is_draining() {
                link.replay.begin_again(Again::StalePlan);
                self.cold();
            }
        }
        let failed = link.owing.taken() + 1;
        let failed_parse = match link.owing.front() {
            Some(Owed::Parse {
                unnamed: true, id, ..
            }) => id,
            _ => None,
        };
        let mut changes_unnamed = false;
        let mut skipped_names = 0;
        let (held, doubtful) = (&mut link.held, &mut link.doubtful);
        let sequences = &mut link.sequences;
        let unset = link.owing.fail(|owed| {
            skipped_names += usize::from(owed.changes_name());
            changes_unnamed |= owed.changes_unnamed();
            match owed {
                Owed::Parse { unnamed: true, .. } => {}
                Owed::Parse { id: Some(id), .. } => _ = held.remove(id),
                // The statement that was to make room is still there, or one that was to be there is not.
                Owed::Close {
                    swallow: true,
                    unnamed: false,
                }
                | Owed::Own(_) => {
                    *doubtful = true;
                    // It may have been to take others' values away.
                    *sequences = SequenceMark::UNKNOWN;
                }
                _ => {}
            }
        });
        self.undo_names(skipped_names);
        self.group.sets += unset;
        if changes_unnamed {
            // The server may still have another client's.
            link.unnamed = Some(StatementId::NONE);
            let now = self.unnamed_changes.undo(failed, link.owing.taken());
            if let Some(now) = now {
                self.unnamed = now;
            } else if refusal.is_none()
                && failed_parse.is_some()
                && failed_parse == self.unnamed.as_ref().map(|statement| statement.id)
            {
                // It was being brought to the connection again.
                self.unnamed = None;
            }
        }
        self.group.open |= link.owing.skipping();
        if let Some(refusal) = refusal.filter(|_| !link.fatal) {
            // The server does not have what the proxy took it to have.
            link.doubtful |= backend::error_field(body, b'C') == Some(b"26000");
            link.replay.begin_again(Again::Bounced(refusal));
            self.undo_units(link);
        }
        let whole = body.len() < MAX_NAMING_ERROR;
        if unseen && whole && matches!(front, Some(Owed::Own(_))) {
            link.unsaid = Some(body.to_vec());
        }
        if (unseen || link.replay.is_draining()) && !link.fatal {
            Verdict::Swallow
        } else {
            Verdict::Pass
        }
    }

    /// Whether the session ends with its connection: it is in a transaction block there that is not about to end, and cannot
    /// begin again elsewhere; or it has been idle on it for longer than its server lets it.
    pub fn dies_with(&self, link: &Link) -> bool {
        let in_block = match link.status {
            Status::Idle => self.is_in_sent_block(),
            // It is being left.
            _ => !self.is_in_unsent_block(),
        };
        link.idled_out || (in_block && !link.committing && link.replay.lost().is_none())
    }

    /// "cached plan must not change result type": wherever the statement has been planned it will fail.
    fn retire(&self, id: StatementId) {
        let named = self.cold.iter().flat_map(|cold| cold.prepared.values());
        let mut known = named.chain(&self.unnamed);
        if let Some(statement) = known.find(|statement| statement.id == id) {
            statement.retire();
        }
    }

    /// An error that names a statement by the name that it has on servers, with the client's name in its place: of several,
    /// that of the Bind that was `refused`.
    fn in_own_words(&self, body: &[u8], refused: Option<Owed>) -> Option<Vec<u8>> {
        let at = memchr::memmem::find(body, b"\"pgw_")?;
        let (before, rest) = body.split_at(at + 1);
        let (on_server, after) = rest.split_at(rest.iter().position(|byte| *byte == b'"')?);
        let cold = self.cold.as_ref()?;
        // A name that has been given up behind the message is still among these: nobody has confirmed it.
        let closed = cold
            .unconfirmed
            .iter()
            .filter_map(|(name, change)| match change {
                NameChange::Closed(statement) => Some((name, statement)),
                NameChange::Defined => None,
            });
        let mut own = cold.prepared.iter().chain(closed).chain(&cold.taken);
        let mut out = Vec::with_capacity(24);
        let mut is_it = |statement: &Statement| {
            out.clear();
            put_name(statement.id, &mut out);
            out == on_server
        };
        let said = |name: &[u8]| matches!(refused, Some(Owed::Bind { name: tag, .. }) if tag == name_tag(name));
        let mut found = None;
        for (name, statement) in own.by_ref() {
            if is_it(statement) && (found.is_none() || said(name)) {
                found = Some(name);
            }
        }
        Some([before, found?, after].concat())
    }

    /// A command has completed: some tags tell of changes to the session.
    fn completed(&mut self, link: &mut Link, tag: &[u8]) {
        if let Some(cold) = &mut self.cold
            && cold.settings.want(tag)
        {
            let owing = &link.owing;
            let count = cold.settings.in_unit(self.group.sets, || owing.unit_sets());
            let settled = cold
                .settings
                .completed(tag, count, &self.params, &link.params);
            if let Some(settled) = settled {
                self.settle_settings(link, settled);
            }
        }
        // It may have taken back what the operator's SQL had set.
        link.dirty |= link.set_up.is_some() && tag == b"RESET\0";
        if tag == b"PREPARE\0" || tag == DEALLOCATE {
            self.has_prepared(tag == DEALLOCATE, link);
        }
        if tag == b"ROLLBACK\0"
            && let Some(hearing) = self.hearing_mut()
        {
            hearing.forget_noted();
        }
        if FORGETTING.contains(&tag) {
            self.forgotten(link, tag != DEALLOCATE);
        }
        if tag == DISCARD_ALL {
            link.params = Default::default();
            // What comes behind it in its group may leave something again: then both stay as they are.
            if link.owing.executes() <= 1 {
                link.dirty = false;
                self.pinned.clear();
            }
            link.dirty |= link.set_up.is_some();
            if let Some(cold) = &mut self.cold {
                if let Some(hearing) = &mut cold.hearing {
                    hearing.note_all();
                }
                let defaults = cold.settings.defaults();
                link.resetting = !defaults.is_empty();
                self.set_params(defaults);
            }
        }
    }

    /// A statement that takes prepared statements away has done so: one of them, or all.
    fn forgotten(&mut self, link: &mut Link, all: bool) {
        match link.forgetting.take() {
            // That is of what takes all of them away behind it.
            Some(moment) if !all && moment > 0 => link.forgetting = Some(moment),
            Some(moment) if all => {
                link.held.clear_before(moment);
                link.own_names.clear_aged();
            }
            // It was one of several in a Query.
            None if all => {
                link.held.clear();
                link.own_names.clear();
                link.doubtful |= link.owing.len() > 1;
                if let Some(cold) = &mut self.cold {
                    cold.prepared.clear();
                }
            }
            _ => {}
        }
        if let Some(cold) = &mut self.cold {
            if all {
                // What had been prepared before it, and was not known yet when it was sent.
                cold.prepared.retain(|_, statement| !statement.by_sql);
            }
            for (name, _) in cold.taken.drain() {
                link.own_names.remove(&name);
            }
        }
    }

    /// ParameterStatus: the client hears of settings that it has changed itself, and never which role a node has. A RESET
    /// takes the connection to its own default, where the session goes back to its startup packet: for these settings
    /// the client hears of what the proxy brings back, if that is news.
    #[cold]
    fn parameter(&mut self, body: &[u8], injected: bool, resetting: bool) -> Verdict {
        let Some((name, value)) = backend::parameter(body) else {
            return if injected {
                Verdict::Swallow
            } else {
                Verdict::Pass
            };
        };
        if name == b"in_hot_standby" {
            return Verdict::Swallow;
        }
        let mut own = None;
        if let Some(cold) = &mut self.cold
            && cold.settings.has_default(name)
        {
            own = Some((cold.restate, &mut cold.told));
        }
        match own {
            None if injected => return Verdict::Swallow,
            None => {}
            Some(_) if resetting && !injected => return Verdict::Swallow,
            Some((restate, told)) => {
                let known = told.get(name).map(|told| **told == *value);
                // Without an entry the client knows the value of its startup packet.
                if injected && !(restate && known == Some(false)) {
                    return Verdict::Swallow;
                }
                told.insert(name.into(), value.into());
            }
        }
        self.learn(name, value);
        Verdict::Pass
    }

    /// Settings that change how statements are lexed.
    fn learn(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"standard_conforming_strings" => {
                self.lexing.standard_conforming_strings = value == b"on"
            }
            b"client_encoding" => {
                self.lexing.safe_encoding = safe_encoding(value);
                self.lexing.utf8 = super::is_utf8(value);
                self.sharing.encoding(value);
            }
            _ => {}
        }
    }
}

/// Encodings in which no byte of a multibyte character looks like ASCII (routing.md §2.5).
pub(super) fn safe_encoding(name: &[u8]) -> bool {
    let name = name.to_ascii_uppercase();
    name == b"UTF8"
        || name == b"SQL_ASCII"
        || name == b"UNICODE"
        || name.starts_with(b"LATIN")
        || name.starts_with(b"WIN")
        || name.starts_with(b"ISO_8859")
        || name.starts_with(b"KOI8")
}

/// The server's words and code, as far as they have been read.
fn refusal(body: &[u8]) -> String {
    let field = |field| {
        let value = backend::error_field(body, field).unwrap_or(b"?");
        String::from_utf8_lossy(value).into_owned()
    };
    format!("{} ({})", field(b'M'), field(b'C'))
}

/// The proxy's own error, in place of the one that it has had the server raise.
fn refusal_of(link: &mut Link, in_own_place: bool) -> Option<Vec<u8>> {
    link.own_words.take_if(|_| in_own_place)
}

/// The server's error for a statement that the proxy has had cancelled: nobody has asked for that.
fn in_words_of_timeout(link: &Link, body: &[u8]) -> Option<Vec<u8>> {
    const BY_USER: &[u8] = b"\0Mcanceling statement due to user request\0";
    if !link.overdue || backend::error_field(body, b'C') != Some(b"57014") {
        return None;
    }
    // In another language the server's words stay.
    let at = memchr::memmem::find(body, BY_USER)?;
    let after = body[at + BY_USER.len()..].strip_suffix(b"\0")?;
    let [text, hint] = OVERDUE;
    Some(
        [
            &body[..at],
            b"\0M",
            text.as_bytes(),
            b"\0",
            after,
            b"H",
            hint.as_bytes(),
            b"\0\0",
        ]
        .concat(),
    )
}

/// A statement that the client has prepared could not be prepared again, and so it does not exist, or its transaction has
/// failed: the client hears why.
fn said_instead(link: &mut Link, body: &[u8]) -> Option<Vec<u8>> {
    let why = link.unsaid.take()?;
    follows_from_unsaid(body).then_some(why)
}

fn follows_from_unsaid(body: &[u8]) -> bool {
    matches!(backend::error_field(body, b'C'), Some(b"26000" | b"25P02"))
}

/// The error for a write in a pipeline that has read from a standby before a Flush.
pub(super) fn mixed_pipeline() -> Notice {
    Notice::error(
        SqlState::FeatureNotSupported,
        "pipeline mixes reads that ran on a standby with a statement that needs the primary",
    )
    .hint("Send a Sync between them, or do not Flush before the write.")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Swallow,
}

/// Errors up to this length are read in whole: they may name a statement by the name that the proxy gave it.
const MAX_NAMING_ERROR: usize = 2048;

/// Most bytes of replies that are held back while a unit may run elsewhere: more than the description of a table with
/// the most columns that one may have, but for the longest names.
const MAX_UNSEEN: usize = 64 * 1024;

/// Whether this message is the first of a result, or ends the unit without one. An error that passes does, too. That a
/// transaction has begun is no result: it may begin again elsewhere.
#[inline]
fn begins_result(tag: u8, body: &[u8]) -> bool {
    match tag {
        b'C' => !matches!(body, b"BEGIN\0" | b"START TRANSACTION\0"),
        tag => matches!(
            tag,
            b'D' | b'Z' | b'E' | b'I' | b's' | b'H' | b'G' | b'd' | b'W'
        ),
    }
}

/// Whether what comes next belongs to a unit that may run elsewhere, and not to what the proxy has put before it.
#[inline]
fn holds(link: &Link) -> bool {
    link.replay.holds() && !link.owing.front().is_some_and(Owed::is_own)
}

/// Bind, Describe, Execute, Sync.
const UNANSWERED: usize = 4;

/// Whether it is a row, or copied data, of the client's statement: of most of what there is, nothing but its length
/// matters.
#[inline]
fn passes(header: Header, link: &Link) -> bool {
    matches!(header.tag, b'D' | b'd')
        && matches!(link.owing.front(), Some(Owed::Query { .. } | Owed::Execute))
        && !link.replay.is_draining()
}

/// Where a message that begins here ends.
#[inline]
fn end_of(header: Header, at: usize) -> usize {
    at.saturating_add(header.total())
}

/// How much of a body is needed before the message can be acted on.
#[inline]
fn wanted(header: Header, link: &Link) -> usize {
    match header.tag {
        b'D' if matches!(link.owing.front(), Some(Owed::Probe(_))) => header.body.min(PREFIX),
        b'Z' | b'C' | b'S' | b'A' => header.body.min(PREFIX),
        b'E' => header.body.min(MAX_NAMING_ERROR),
        _ => 0,
    }
}

fn pop_if(link: &mut Link, fits: impl FnOnce(Owed) -> bool) {
    if link.owing.front().is_some_and(fits) {
        link.owing.pop();
    }
}

/// The rest of a message that began in an earlier chunk.
fn pass_body(link: &mut Link, pass: &mut Pass<'_>) -> usize {
    let here = link.body.left.min(pass.chunk.len());
    link.body.left -= here;
    if link.body.swallow && here > 0 {
        pass.skip(0, here);
    }
    here
}

/// Copies only from the first byte that does not pass.
struct Pass<'a> {
    chunk: &'a [u8],
    from: usize,
    out: &'a mut Vec<u8>,
    spliced: bool,
    /// From here on it is not for the client yet.
    held: Option<Mark>,
}

/// A place in what goes to the client.
#[derive(Clone, Copy, Debug)]
enum Mark {
    /// In the chunk, of which nothing has been copied from there.
    Chunk(usize),
    /// In the output.
    Out(usize),
}

impl Pass<'_> {
    /// What comes from here on is held back.
    fn hold(&mut self, at: usize) {
        self.held = Some(Mark::Chunk(at));
    }

    /// How much is held back, if everything before `at` has been dealt with.
    fn held(&self, at: usize) -> usize {
        match self.held {
            None => 0,
            Some(Mark::Chunk(mark)) => at - mark,
            Some(Mark::Out(mark)) => self.out.len() - mark + at - self.from,
        }
    }

    /// What was held back is for the client, that of earlier chunks first.
    fn show(&mut self, unseen: &mut Vec<u8>) {
        let held = self.held.take();
        if unseen.is_empty() {
            return;
        }
        match held {
            Some(Mark::Out(mark)) => _ = self.out.splice(mark..mark, unseen.drain(..)),
            Some(Mark::Chunk(mark)) => {
                self.cut(mark);
                self.out.append(unseen);
            }
            None => {}
        }
        *unseen = Vec::new();
    }

    /// The message at `at` is for the client before what is held back. False if the chunk does not have all of it.
    #[cold]
    fn overtake(&mut self, at: usize, len: usize) -> bool {
        let Some(message) = self.chunk.get(at..at.saturating_add(len)) else {
            return false;
        };
        self.cut(at);
        if let Some(Mark::Out(mark)) = &mut self.held {
            self.out.splice(*mark..*mark, message.iter().copied());
            *mark += len;
            self.from = at + len;
        }
        true
    }

    /// What was held back before `at` is for nobody.
    #[cold]
    fn drop_held(&mut self, at: usize) {
        match self.held.take() {
            Some(Mark::Chunk(mark)) => self.cut(mark),
            Some(Mark::Out(mark)) => self.out.truncate(mark),
            None => return,
        }
        self.from = at;
    }

    /// Nothing more can be read; what is held back is for nobody.
    fn fail(&mut self, at: usize) {
        self.drop_held(at);
        self.cut(at);
    }

    /// Everything before `at` has been dealt with.
    fn cut(&mut self, at: usize) {
        self.spliced = true;
        if let Some(Mark::Chunk(mark)) = self.held {
            self.held = Some(Mark::Out(self.out.len() + mark - self.from));
        }
        self.out.extend_from_slice(&self.chunk[self.from..at]);
        self.from = at;
    }

    fn skip(&mut self, at: usize, end: usize) {
        self.cut(at);
        self.from = end;
    }

    /// Everything has been dealt with. What is held back goes to `unseen`.
    fn finish(mut self, end: usize, unseen: &mut Vec<u8>) -> Option<Range<usize>> {
        if !self.spliced {
            let Some(Mark::Chunk(mark)) = self.held else {
                return Some(self.from..end);
            };
            unseen.extend_from_slice(&self.chunk[mark..end]);
            return Some(self.from..mark);
        }
        self.cut(end);
        if let Some(Mark::Out(mark)) = self.held {
            unseen.extend_from_slice(&self.out[mark..]);
            self.out.truncate(mark);
        }
        None
    }
}
