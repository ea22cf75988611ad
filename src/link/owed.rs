//! Replies still owed, in order.
//!
//! Each message that asks for a reply leaves one entry when it is forwarded; replies take entries off the front. An
//! error takes everything up to the next Sync with it, because the server skips those messages. PostgreSQL manual,
//! "Extended Query", protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY: "When an error is detected […] the backend issues
//! ErrorResponse, then reads and discards messages until a Sync is reached".

use std::collections::VecDeque;

use super::StatementId;

/// A reply that the proxy gives in the server's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The statement is prepared on the server already.
    ParseComplete,
    /// The statement is gone for this client.
    CloseComplete,
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
        /// Which statement; `None` for one that the proxy does not track.
        id: Option<StatementId>,
    },
    /// BindComplete.
    Bind,
    /// RowDescription or NoData.
    Describe,
    /// Rows and a completion.
    Execute,
    /// CloseComplete; `swallow` if the proxy put the Close in.
    Close {
        /// Not for the client.
        swallow: bool,
    },
    /// The ReadyForQuery of a Sync.
    Sync {
        /// Not for the client.
        swallow: bool,
        /// The group contains a write.
        write: bool,
        /// Settings that it changes, of those that wait for their outcome.
        sets: u16,
    },
    /// Everything up to the ReadyForQuery of a simple Query.
    Query {
        /// It contains a write.
        write: bool,
        /// Settings that it changes.
        sets: u16,
    },
    /// Everything up to the ReadyForQuery of a function call.
    Call,
    /// Everything up to the ReadyForQuery of a Query of the proxy's own; nothing of it is for the client.
    Injected {
        /// It is DISCARD ALL.
        discard: bool,
    },
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

    /// Whether a ReadyForQuery answers this.
    pub fn ends_with_ready(self) -> bool {
        matches!(
            self,
            Owed::Sync { .. } | Owed::Query { .. } | Owed::Call | Owed::Injected { .. }
        )
    }
}

/// The queue of replies.
#[derive(Debug, Default)]
pub struct Owing {
    queue: VecDeque<Owed>,
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
        self.skipping
            || self
                .queue
                .iter()
                .any(|owed| !matches!(owed, Owed::Injected { .. }))
    }

    /// Settings that the unit in front changes; `None` while its end has not been forwarded.
    pub fn unit_sets(&self) -> Option<u16> {
        self.queue.iter().find_map(|owed| match owed {
            Owed::Query { sets, .. } | Owed::Sync { sets, .. } => Some(*sets),
            Owed::Call | Owed::Injected { .. } => Some(0),
            _ => None,
        })
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
        if self.skipping {
            if !matches!(owed, Owed::Sync { .. }) {
                return false;
            }
            self.skipping = false;
        }
        self.queue.push_back(owed);
        true
    }

    /// Takes the next reply off.
    #[inline]
    pub fn pop(&mut self) -> Option<Owed> {
        self.queue.pop_front()
    }

    /// The server reported an error: what it will skip is dropped, and given to `dropped`. Settings that dropped
    /// statements would have changed are counted with their group's Sync; those of a group whose Sync has not been
    /// forwarded yet are returned.
    pub fn fail(&mut self, mut dropped: impl FnMut(Owed)) -> u16 {
        match self.queue.front() {
            // Their ReadyForQuery follows without a Sync.
            Some(Owed::Query { .. } | Owed::Call | Owed::Injected { .. }) | None => return 0,
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
            self.queue.pop_front();
        }
        self.skipping = true;
        unset
    }

    /// COPY FROM STDIN begins inside a group: the server ignores the Syncs that it has been sent already, and the
    /// client sends another after CopyDone. PostgreSQL manual, "COPY Operations", protocol-flow.html#PROTOCOL-COPY:
    /// "the frontend must send […] Sync" afterwards, and "Flush and Sync messages received during copy-in mode are
    /// ignored".
    ///
    /// Returns the Sync that was dropped: the group is open again.
    pub fn copy_begins(&mut self) -> Option<Owed> {
        if !matches!(self.queue.front(), Some(Owed::Execute)) {
            return None;
        }
        let dropped = self
            .queue
            .iter()
            .copied()
            .find(|owed| matches!(owed, Owed::Sync { .. }));
        self.queue.retain(|owed| !matches!(owed, Owed::Sync { .. }));
        dropped
    }
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
        id: None,
    };

    fn queue(entries: &[Owed]) -> Owing {
        let mut owing = Owing::default();
        for entry in entries {
            owing.push(*entry);
        }
        owing
    }

    #[test]
    fn an_error_skips_to_the_sync() {
        let check = |before: &[Owed], after: &[Owed], skipping: bool| {
            let mut owing = queue(before);
            owing.fail(|_| ());
            assert_eq!(owing.iter().collect::<Vec<_>>(), after, "{before:?}");
            assert_eq!(owing.skipping(), skipping, "{before:?}");
        };
        check(&[PARSE, Owed::Bind, Owed::Execute, SYNC], &[SYNC], false);
        check(
            &[Owed::Bind, Owed::Execute, SYNC, PARSE, SYNC],
            &[SYNC, PARSE, SYNC],
            false,
        );
        check(&[Owed::Bind, Owed::Execute], &[], true);
        check(&[QUERY, PARSE], &[QUERY, PARSE], false);
        // The server discards a Query that follows a failed message without a Sync between.
        check(&[PARSE, QUERY], &[], true);
        check(&[SYNC, PARSE], &[SYNC, PARSE], false);
    }

    #[test]
    fn nothing_is_owed_for_what_is_skipped() {
        let mut owing = queue(&[PARSE]);
        owing.fail(|_| ());
        assert!(!owing.push(Owed::Bind));
        assert!(!owing.is_empty());
        assert!(owing.push(SYNC));
        assert_eq!(owing.pop(), Some(SYNC));
        assert!(owing.is_empty());
    }

    #[test]
    fn copy_in_ignores_earlier_syncs() {
        let mut owing = queue(&[Owed::Execute, SYNC]);
        assert_eq!(owing.copy_begins(), Some(SYNC));
        assert_eq!(owing.iter().collect::<Vec<_>>(), [Owed::Execute]);
        let mut simple = queue(&[QUERY]);
        assert_eq!(simple.copy_begins(), None);
    }
}
