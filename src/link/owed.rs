//! Replies still owed, in order.
//!
//! Each message that asks for a reply leaves one entry when it is forwarded; replies take entries off the front. An
//! error takes everything up to the next Sync with it, because the server skips those messages. PostgreSQL manual,
//! "Extended Query", protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY: "When an error is detected […] the backend issues
//! ErrorResponse, then reads and discards messages until a Sync is reached".

use std::collections::VecDeque;

use super::StatementId;
use crate::sql::Pins;

/// A reply that the proxy gives in the server's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The statement is prepared on the server already.
    ParseComplete,
    /// The statement is gone for this client.
    CloseComplete,
    /// The statement has no parameters, and returns no rows.
    NoData,
    /// A write in a pipeline that has already read from a standby.
    MixedPipeline,
}

/// One reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// ParseComplete; `swallow` if the proxy put the Parse in.
    Parse {
        /// Not for the client.
        swallow: bool,
        /// It gives a name of the client's.
        named: bool,
        /// It is of the unnamed statement.
        unnamed: bool,
        /// Which statement; `None` for one that the proxy does not track.
        id: Option<StatementId>,
    },
    /// BindComplete.
    Bind {
        /// Of which statement, if the proxy knows.
        id: Option<StatementId>,
        /// The client's name for it, as [`name_tag`] has it: an error may have to say it.
        name: u32,
    },
    /// RowDescription or NoData.
    Describe,
    /// Rows and a completion.
    Execute,
    /// CloseComplete; `swallow` if the proxy put the Close in.
    Close {
        /// Not for the client.
        swallow: bool,
        /// It is of the unnamed statement.
        unnamed: bool,
    },
    /// The ReadyForQuery of a Sync.
    Sync {
        /// Not for the client.
        swallow: bool,
        /// The group contains a write.
        write: bool,
        /// Settings that it changes, of those that wait for their outcome.
        sets: u32,
    },
    /// Everything up to the ReadyForQuery of a simple Query.
    Query {
        /// It contains a write.
        write: bool,
        /// Settings that it changes.
        sets: u32,
    },
    /// Everything up to the ReadyForQuery of a function call.
    Call,
    /// Everything up to the ReadyForQuery of a Query of the proxy's own; nothing of it is for the client.
    Injected {
        /// It is DISCARD ALL.
        discard: bool,
    },
    /// The reply to a message that the proxy has put in, which ends with this type. Not for the client.
    Own(u8),
    /// Everything up to the ReadyForQuery of the question which of these pins are left; nothing of it is for the client.
    Probe(Pins),
    /// An error that the proxy has the server raise, for which it has words of its own.
    Refusal,
    /// No reply: the client has ended a COPY here that has not begun yet.
    CopyEnd,
    /// A reply of the proxy.
    Local(Local),
}

impl Owed {
    /// Whether a change of a client's name for a statement hangs on this.
    pub fn changes_name(self) -> bool {
        matches!(
            self,
            Owed::Parse { named: true, .. }
                | Owed::Local(Local::ParseComplete | Local::CloseComplete)
        )
    }

    fn parses(self) -> bool {
        matches!(
            self,
            Owed::Parse {
                id: Some(_),
                unnamed: false,
                ..
            }
        )
    }

    fn makes_room(self) -> bool {
        matches!(
            self,
            Owed::Close {
                swallow: true,
                unnamed: false
            }
        )
    }

    /// Whether the unnamed statement is another one behind this, unless the server skips it. A simple Query destroys it.
    pub fn changes_unnamed(self) -> bool {
        matches!(
            self,
            Owed::Parse { unnamed: true, .. }
                | Owed::Close { unnamed: true, .. }
                | Owed::Query { .. }
        )
    }

    fn is_of_a_name(self) -> bool {
        matches!(self, Owed::Own(_))
    }

    /// Whether a ReadyForQuery answers this.
    pub fn ends_with_ready(self) -> bool {
        matches!(
            self,
            Owed::Sync { .. }
                | Owed::Query { .. }
                | Owed::Call
                | Owed::Injected { .. }
                | Owed::Probe(_)
        )
    }

    /// Whether it is for a Query of the proxy's own.
    pub fn is_own(self) -> bool {
        matches!(self, Owed::Injected { .. } | Owed::Probe(_))
    }
}

/// The queue of replies.
#[derive(Debug, Default)]
pub struct Owing {
    queue: VecDeque<Owed>,
    /// Of those, the ends of units.
    ends: usize,
    /// Of those, Parses of statements that the connection is to have.
    parses: usize,
    /// Of those, Closes that make room for them.
    closes: usize,
    /// How many have left the queue.
    taken: u64,
    /// The same when the last has left that changes the unnamed statement unless the server skips it.
    open_until: u64,
    /// The same when the last Query or call has left that stands behind other messages of its group, or behind such a one.
    doubt_until: u64,
    /// Of those, what brings statements to the connection by clients' own names.
    owns: usize,
    /// The server discards messages until a Sync that has not been forwarded yet.
    skipping: bool,
}

impl Owing {
    /// Whether nothing is owed. While the server skips to a Sync it owes that Sync's ReadyForQuery.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.skipping
    }

    /// Whether the server discards what it gets until a Sync.
    pub fn skipping(&self) -> bool {
        self.skipping
    }

    /// The next reply.
    #[inline]
    pub fn front(&self) -> Option<Owed> {
        self.queue.front().copied()
    }

    /// How many entries wait; for bounds.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether the connection is being cleaned.
    pub fn is_cleaning(&self) -> bool {
        matches!(self.queue.front(), Some(Owed::Injected { discard: true }))
    }

    /// Whether anything but the proxy's own statements is owed.
    pub fn owes_client(&self) -> bool {
        self.skipping || self.queue.iter().any(|owed| !owed.is_own())
    }

    /// Whether anything is owed that the client is to see.
    pub fn owes_seen(&self) -> bool {
        let is_seen = |owed: &Owed| {
            let is_hidden = matches!(owed, Owed::Own(_) | Owed::Sync { swallow: true, .. });
            !owed.is_own() && !is_hidden
        };
        self.skipping || self.queue.iter().any(is_seen)
    }

    /// Settings that the unit in front changes; `None` while its end has not been forwarded. Looks at each entry of the
    /// unit.
    pub fn unit_sets(&self) -> Option<u32> {
        if self.ends == 0 {
            return None;
        }
        self.queue.iter().find_map(|owed| match owed {
            Owed::Query { sets, .. } | Owed::Sync { sets, .. } => Some(*sets),
            Owed::Call | Owed::Injected { .. } | Owed::Probe(_) => Some(0),
            _ => None,
        })
    }

    /// Whether the end of a unit has been forwarded and not been answered.
    pub fn owes_end(&self) -> bool {
        self.ends > 0
    }

    /// Whether a unit of the client's that has been forwarded whole has not been answered.
    pub fn owes_units(&self) -> bool {
        let is_unit = |owed: &Owed| {
            matches!(
                owed,
                Owed::Query { .. } | Owed::Call | Owed::Sync { swallow: false, .. }
            )
        };
        self.queue.iter().any(is_unit)
    }

    /// Whether a client's unit is in front, with nothing of a client's behind it: if it is cancelled, nothing else of the
    /// client's runs. Behind a statement of the proxy's own, a BEGIN or a SET, it would run without that. Looks at each
    /// entry.
    pub fn is_last_unit(&self) -> bool {
        let end = self.queue.iter().position(|owed| owed.ends_with_ready());
        let unit = end.map_or(self.queue.len(), |end| end + 1);
        self.queue.iter().take(unit).all(|owed| !owed.is_own())
            && self.queue.iter().skip(unit).all(|owed| owed.is_own())
    }

    /// Whether a Parse of this statement has not been answered. Looks at each entry up to the last such Parse.
    pub fn is_parsing(&self, id: StatementId) -> bool {
        self.queue
            .iter()
            .filter(|owed| owed.parses())
            .take(self.parses)
            .any(|owed| matches!(owed, Owed::Parse { id: Some(other), .. } if *other == id))
    }

    /// Whether a Close that makes room for a statement has not been answered.
    pub fn is_making_room(&self) -> bool {
        self.closes > 0
    }

    /// Whether it hangs on what has not been answered what the unnamed statement is.
    pub fn is_changing_unnamed(&self) -> bool {
        !self.queue.is_empty() && self.open_until > self.taken
    }

    /// How many have left the queue.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// How many will have left it with the next that is pushed.
    pub fn next(&self) -> u64 {
        self.taken + self.queue.len() as u64 + 1
    }

    /// Whether the server may skip whatever comes before the next Sync: a Query ends its group only if nothing has failed
    /// before it.
    pub fn may_be_skipping(&self) -> bool {
        !self.queue.is_empty() && self.doubt_until > self.taken
    }

    /// Whether a statement that is being brought to the connection by a client's own name has not been answered.
    pub fn is_naming(&self) -> bool {
        self.owns > 0
    }

    /// Whether the unit in front is the proxy's own.
    pub fn is_unseen(&self) -> bool {
        let end = self.queue.iter().find(|owed| owed.ends_with_ready());
        matches!(end, Some(Owed::Sync { swallow: true, .. }))
    }

    /// How many Executes of the unit in front have not been answered in full.
    pub fn executes(&self) -> usize {
        self.queue
            .iter()
            .take_while(|owed| !owed.ends_with_ready())
            .filter(|owed| matches!(owed, Owed::Execute))
            .count()
    }

    /// Every entry, in order.
    pub fn iter(&self) -> impl Iterator<Item = Owed> {
        self.queue.iter().copied()
    }

    /// Notes a forwarded message. Returns false if the server will skip it.
    #[inline]
    pub fn push(&mut self, owed: Owed) -> bool {
        if self.queue.is_empty() && owed == Owed::CopyEnd {
            // No COPY can begin any more: the server ignores it.
            return false;
        }
        if self.skipping {
            if !matches!(owed, Owed::Sync { .. }) {
                return false;
            }
            self.skipping = false;
        }
        self.ends += usize::from(owed.ends_with_ready());
        self.parses += usize::from(owed.parses());
        self.closes += usize::from(owed.makes_room());
        self.owns += usize::from(owed.is_of_a_name());
        // The first of a group fails or succeeds; what is behind it may be skipped.
        let is_first = self.queue.back().is_none_or(|last| last.ends_with_ready());
        let tick = self.next();
        if owed.changes_unnamed() && !is_first {
            self.open_until = tick;
        }
        match owed {
            Owed::Query { .. } | Owed::Call if !is_first || self.may_be_skipping() => {
                self.doubt_until = tick;
            }
            Owed::Sync { .. } => self.doubt_until = 0,
            _ => {}
        }
        self.queue.push_back(owed);
        true
    }

    /// Takes the next reply off.
    #[inline]
    pub fn pop(&mut self) -> Option<Owed> {
        let owed = self.queue.pop_front();
        self.ends -= usize::from(owed.is_some_and(Owed::ends_with_ready));
        self.parses -= usize::from(owed.is_some_and(Owed::parses));
        self.closes -= usize::from(owed.is_some_and(Owed::makes_room));
        self.owns -= usize::from(owed.is_some_and(Owed::is_of_a_name));
        self.taken += u64::from(owed.is_some());
        self.skip_copy_ends();
        owed
    }

    /// All that was owed has been answered.
    pub fn answered(&mut self) {
        self.taken += self.queue.len() as u64;
        self.queue.clear();
        (self.ends, self.parses, self.closes, self.owns) = (0, 0, 0, 0);
    }

    /// The server reported an error: what it will skip is dropped, and given to `dropped`. Settings that dropped
    /// statements would have changed are counted with their group's Sync; those of a group whose Sync has not been
    /// forwarded yet are returned.
    pub fn fail(&mut self, mut dropped: impl FnMut(Owed)) -> u32 {
        match self.queue.front() {
            // Their ReadyForQuery follows without a Sync.
            Some(Owed::Query { .. } | Owed::Call | Owed::Injected { .. } | Owed::Probe(_))
            | None => return 0,
            // An error after the last reply of a group, at its commit: the ReadyForQuery follows.
            Some(Owed::Sync { .. }) => return 0,
            Some(_) => {}
        }
        let mut unset = 0;
        while let Some(owed) = self.queue.front_mut() {
            match owed {
                Owed::Sync { sets, .. } => {
                    *sets += unset;
                    return 0;
                }
                Owed::Query { sets, .. } => unset += *sets,
                _ => {}
            }
            dropped(*owed);
            self.ends -= usize::from(owed.ends_with_ready());
            self.parses -= usize::from(owed.parses());
            self.closes -= usize::from(owed.makes_room());
            self.owns -= usize::from(owed.is_of_a_name());
            self.taken += 1;
            self.queue.pop_front();
        }
        self.skipping = true;
        unset
    }

    /// COPY FROM STDIN begins: the server reads what the client has sent behind it as a part of it, up to CopyDone or
    /// CopyFail. Syncs on the way are ignored. PostgreSQL manual, "COPY Operations", protocol-flow.html#PROTOCOL-COPY:
    /// "Flush and Sync messages received during copy-in mode are ignored".
    pub fn copy_begins(&mut self) -> CopyIn {
        let mut copy = CopyIn::default();
        // The front is what runs: an Execute, or a Query whose own ReadyForQuery comes after the COPY.
        const NEXT: usize = 1;
        while let Some(owed) = self.queue.get(NEXT).copied() {
            match owed {
                Owed::CopyEnd => {
                    self.pass(NEXT);
                    copy.ended = true;
                    break;
                }
                Owed::Sync { write, sets, .. } => {
                    self.ends -= 1;
                    self.pass(NEXT);
                    copy.synced = true;
                    copy.write |= write;
                    copy.sets += sets;
                }
                // The server ends the connection when it gets there.
                _ => break,
            }
        }
        if copy.synced
            && let Some(Owed::Sync { write, sets, .. }) = self
                .queue
                .iter_mut()
                .skip(1)
                .find(|owed| owed.ends_with_ready())
        {
            *write |= copy.write;
            *sets += copy.sets;
            copy.synced = false;
        }
        copy
    }

    /// Drops the ends of COPYs that never began, once it is their turn.
    fn skip_copy_ends(&mut self) {
        while let Some(Owed::CopyEnd) = self.queue.front() {
            self.pass(0);
        }
    }

    /// Takes one out that gets no reply. It counts as taken, so that what is behind it keeps its number.
    fn pass(&mut self, place: usize) {
        self.queue.remove(place);
        self.taken += 1;
    }
}

/// Tells the names of one statement apart, of which a session has few: FNV-1a.
pub fn name_tag(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |tag, byte| {
        (tag ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

/// What [`Owing::copy_begins`] finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyIn {
    /// The client has ended it already.
    pub ended: bool,
    /// The group's Sync was ignored and no other has been sent: the group is open again.
    pub synced: bool,
    /// What that Sync knew: the group contains a write.
    pub write: bool,
    /// Settings that the group changes.
    pub sets: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Owed = Owed::Sync {
        swallow: false,
        write: false,
        sets: 0,
    };
    const QUERY: Owed = Owed::Query {
        write: false,
        sets: 0,
    };
    const PARSE: Owed = Owed::Parse {
        swallow: false,
        named: false,
        unnamed: false,
        id: None,
    };

    const BIND: Owed = Owed::Bind { id: None, name: 0 };

    fn queue(entries: &[Owed]) -> Owing {
        let mut owing = Owing::default();
        for entry in entries {
            owing.push(*entry);
        }
        owing
    }

    #[test]
    fn the_last_unit_has_nothing_behind_it() {
        let own = Owed::Injected { discard: false };
        let last = |entries: &[Owed]| queue(entries).is_last_unit();
        assert!(last(&[]) && last(&[QUERY]) && last(&[PARSE, BIND, Owed::Execute, SYNC]));
        assert!(last(&[PARSE, BIND, Owed::Execute]), "without its end");
        assert!(last(&[QUERY, own]) && last(&[PARSE, SYNC, own]));
        assert!(!last(&[own, QUERY]), "without its BEGIN");
        assert!(!last(&[own, PARSE, SYNC]) && !last(&[own, own, QUERY]));
        for more in [QUERY, PARSE, SYNC, Owed::CopyEnd] {
            assert!(!last(&[QUERY, more]), "{more:?}");
            assert!(!last(&[PARSE, SYNC, own, more]), "{more:?}");
        }
    }

    #[test]
    fn an_error_skips_to_the_sync() {
        let check = |before: &[Owed], after: &[Owed], skipping: bool| {
            let mut owing = queue(before);
            owing.fail(|_| ());
            assert_eq!(owing.iter().collect::<Vec<_>>(), after, "{before:?}");
            assert_eq!(owing.skipping(), skipping, "{before:?}");
        };
        check(&[PARSE, BIND, Owed::Execute, SYNC], &[SYNC], false);
        check(
            &[BIND, Owed::Execute, SYNC, PARSE, SYNC],
            &[SYNC, PARSE, SYNC],
            false,
        );
        check(&[BIND, Owed::Execute], &[], true);
        check(&[QUERY, PARSE], &[QUERY, PARSE], false);
        // The server discards a Query that follows a failed message without a Sync between.
        check(&[PARSE, QUERY], &[], true);
        check(&[SYNC, PARSE], &[SYNC, PARSE], false);
    }

    #[test]
    fn nothing_is_owed_for_what_is_skipped() {
        let mut owing = queue(&[PARSE]);
        owing.fail(|_| ());
        assert!(!owing.push(BIND));
        assert!(!owing.is_empty());
        assert!(owing.push(SYNC));
        assert_eq!(owing.pop(), Some(SYNC));
        assert!(owing.is_empty());
    }

    #[test]
    fn copy_in_ignores_earlier_syncs() {
        let ended = CopyIn {
            ended: true,
            ..CopyIn::default()
        };
        let open = CopyIn {
            synced: true,
            ..CopyIn::default()
        };
        let check = |before: &[Owed], expected: CopyIn, after: &[Owed]| {
            let mut owing = queue(before);
            assert_eq!(owing.copy_begins(), expected, "{before:?}");
            assert_eq!(owing.iter().collect::<Vec<_>>(), after, "{before:?}");
        };
        check(&[Owed::Execute, SYNC], open, &[Owed::Execute]);
        check(&[Owed::Execute, Owed::CopyEnd], ended, &[Owed::Execute]);
        check(
            &[Owed::Execute, SYNC, Owed::CopyEnd, SYNC, QUERY],
            ended,
            &[Owed::Execute, SYNC, QUERY],
        );
        check(
            &[Owed::Execute, Owed::CopyEnd, SYNC],
            ended,
            &[Owed::Execute, SYNC],
        );
        check(&[QUERY], CopyIn::default(), &[QUERY]);
        check(
            &[QUERY, Owed::CopyEnd, Owed::CopyEnd, QUERY],
            ended,
            &[QUERY, Owed::CopyEnd, QUERY],
        );
        check(&[QUERY, QUERY], CopyIn::default(), &[QUERY, QUERY]);
    }

    #[test]
    fn what_a_copy_takes_moves_no_number() {
        for before in [
            &[Owed::Execute, Owed::CopyEnd, SYNC][..],
            &[Owed::Execute, SYNC, SYNC, Owed::CopyEnd, SYNC],
            &[QUERY, Owed::CopyEnd, Owed::CopyEnd, Owed::CopyEnd],
        ] {
            let mut owing = queue(before);
            let number = owing.next();
            owing.push(PARSE);
            owing.copy_begins();
            while owing.pop().is_some_and(|owed| owed != PARSE) {}
            assert_eq!((owing.len(), owing.taken()), (0, number), "{before:?}");
        }
    }

    #[test]
    fn the_end_of_a_copy_that_never_began_is_owed_nothing() {
        let mut owing = queue(&[Owed::CopyEnd, QUERY, Owed::CopyEnd]);
        assert_eq!(owing.len(), 2);
        assert_eq!(owing.pop(), Some(QUERY));
        assert!(owing.is_empty());
    }
}
