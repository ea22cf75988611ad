//! What the proxy itself answers: units that found no server connection, and those whose server was lost.

use std::task::Context;
use std::time::Instant;

use bytes::Buf;

use super::bounce::Detour;
use super::log;
use super::run::{End, Relay};
use crate::link::Owed;
use crate::session::Next;
use crate::wire::{Notice, SqlState, Status};

impl Relay {
    pub(super) fn tell(&mut self, notice: &Notice) {
        self.shared.metrics.errors.named(notice.state.code()).inc();
        self.say(notice);
    }

    /// The same for what is no error.
    pub(super) fn say(&mut self, notice: &Notice) {
        let mut out = Vec::new();
        notice.put(&mut out);
        self.output.extend_from_slice(&out);
    }

    /// Answers a unit that found no server connection.
    pub(super) fn reject(
        &mut self,
        cx: &mut Context<'_>,
        unit: &[u8],
        notice: &Notice,
    ) -> Result<(), End> {
        self.detour = Detour::default();
        self.tell(notice);
        if self.session.fail_unit(unit) {
            self.ready();
        }
        self.flush_client(cx).map(|_| ())
    }

    /// The same for a unit at the front of the input, which is then dropped.
    pub(super) fn reject_front(&mut self, notice: &Notice) {
        let input = std::mem::take(&mut self.input);
        let mut replies = Vec::new();
        let catalog = self.pools.catalog.current();
        let context = self.shared.context(&catalog);
        let len = loop {
            match self.session.next(&input, None, context, &mut replies) {
                Next::Later => {}
                Next::Place { len, .. } | Next::Listening { len, .. } => break len,
                _ => break 0,
            }
        };
        self.detour = Detour::default();
        self.tell(notice);
        if self.session.fail_unit(&input[..len]) {
            self.ready();
        }
        self.input = input;
        self.input.advance(len);
        self.flags.recheck = true;
    }

    pub(super) fn ready(&mut self) {
        let mut out = Vec::new();
        self.session.put_ready(&mut out);
        self.output.extend_from_slice(&out);
    }

    /// The server connection is gone. What was asked of it is answered, where that can be done honestly.
    #[cold]
    pub(super) fn server_lost(&mut self, cause: &str) -> Result<(), End> {
        let Some(mut held) = self.held.take() else {
            return Ok(());
        };
        if let Some(refusal) = self.may_run_elsewhere(&held) {
            let node = &self.pools.cluster.nodes[held.node].name;
            log::server_lost(node, cause);
            self.placed = None;
            self.cancelling = None;
            let (units, first) = self.session.take_back(&mut held.server.link);
            self.flags.draining_link = false;
            self.bounce(held.node, &units, first, &refusal);
            return Ok(());
        }
        let node = &self.pools.cluster.nodes[held.node].name;
        let link = &held.server.link;
        let pinned = self.session.is_bound();
        let open = self.session.has_open_group();
        let dies = self.session.dies_with(link);
        let wrote = self.session.lost(link);
        self.placed = None;
        self.flags.draining_link = false;
        self.flags.recheck = true;
        self.cancelling = None;
        if !link.settled() || link.status != Status::Idle || pinned {
            log::server_lost(node, cause);
        }
        if wrote {
            self.session.floor.wrote(Instant::now());
        }
        self.note_pins();
        if link.mid_message() {
            return Err(End::Cut);
        }
        if dies || pinned {
            if link.fatal {
                // The server has said why.
                return Err(End::Said);
            }
            let what = if pinned {
                "the session's server connection"
            } else {
                "the transaction's server connection"
            };
            return Err(End::Told(Notice::fatal(
                SqlState::ConnectionFailure,
                format!("{what} was lost"),
            )));
        }
        let owed: Vec<Owed> = link.owing.iter().collect();
        let told = link.owing.skipping();
        drop(held);
        self.answer_lost(&owed, told, open, wrote);
        Ok(())
    }

    /// One error for each unit that was on its way, none for the proxy's own. `told` says that the client has had an error
    /// for the unit in front, `open` that the last group's Sync has not come.
    pub(super) fn answer_lost(&mut self, owed: &[Owed], mut told: bool, open: bool, wrote: bool) {
        let notice = lost_notice(wrote);
        for owed in owed {
            match owed {
                Owed::Injected { .. }
                | Owed::Probe(_)
                | Owed::CopyEnd
                | Owed::Sync { swallow: true, .. } => {
                    continue;
                }
                Owed::Sync { .. } | Owed::Query { .. } | Owed::Call => {
                    if !std::mem::take(&mut told) {
                        self.tell(&notice);
                    }
                    self.ready();
                }
                _ if !told => {
                    self.tell(&notice);
                    told = true;
                }
                _ => {}
            }
        }
        if open {
            // What the group did without a Sync is undone, and its Sync must not sound like success.
            if !told {
                self.tell(&notice);
            }
            self.session.skip_to_sync();
        }
    }
}

/// What a client is told of a statement that was on its way when its server vanished.
fn lost_notice(wrote: bool) -> Notice {
    if wrote {
        return Notice::error(
            SqlState::TransactionResolutionUnknown,
            "the server was lost before it confirmed the statement",
        )
        .hint("It may have been carried out. It is not sent again; find out before you do.");
    }
    Notice::error(
        SqlState::ConnectionFailure,
        "the server was lost while it ran the statement",
    )
    .hint("The statement changes nothing. It can be sent again.")
}
