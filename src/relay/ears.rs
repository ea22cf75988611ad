//! A session that hears through the shared connection: its LISTEN and UNLISTEN, and what it is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Context;

use super::PoolSet;
use super::compose::compose;
use super::listen::Listeners;
use super::mailbox::{Mailbox, Overflowed};
use super::run::{End, Relay};
use crate::sql::Listening;
use crate::wire::{Notice, SqlState, Status};

/// Bytes of notifications that are written to a client at once.
const PORTION: usize = 64 * 1024;

/// What most sessions do not have.
pub(super) struct Ears {
    pools: Arc<PoolSet>,
    mailbox: Arc<Mailbox>,
    channels: BTreeSet<Box<[u8]>>,
    /// The channel of a LISTEN that has not been confirmed; it is at the front of the input.
    waits: Option<Box<[u8]>>,
}

impl Ears {
    fn new(pools: Arc<PoolSet>) -> Ears {
        Ears {
            pools,
            mailbox: Arc::default(),
            channels: BTreeSet::new(),
            waits: None,
        }
    }

    fn leave(&mut self, name: &[u8]) {
        self.channels.remove(name);
        self.pools.listeners.leave(&self.mailbox, name);
    }

    fn unlisten(&mut self, change: &Listening) {
        match change {
            Listening::Unlisten(name) => self.leave(name),
            _ => self.leave_all(),
        }
    }

    fn leave_all(&mut self) {
        let waits = self.waits.take();
        for name in std::mem::take(&mut self.channels).into_iter().chain(waits) {
            self.pools.listeners.leave(&self.mailbox, &name);
        }
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.leave_all();
        self.mailbox.close();
    }
}

impl Relay {
    /// Carries out a LISTEN or UNLISTEN that needs no server connection, and answers it. False if the unit has to wait.
    pub(super) fn listen(
        &mut self,
        cx: &mut Context<'_>,
        unit: &[u8],
        change: &Listening,
    ) -> Result<bool, End> {
        match change {
            Listening::Listen(name) => {
                let pools: &Arc<PoolSet> = &self.pools;
                let ears = self
                    .ears
                    .get_or_insert_with(|| Box::new(Ears::new(pools.clone())));
                ears.mailbox.waker.register(cx.waker());
                // Of an earlier one, that was cancelled.
                drop(ears.mailbox.take_answer());
                match Listeners::join(pools, &ears.mailbox, name) {
                    Ok(true) => drop(ears.channels.insert(name.clone())),
                    Ok(false) => {
                        ears.waits = Some(name.clone());
                        return Ok(false);
                    }
                    Err(notice) => {
                        self.reject(cx, unit, &notice)?;
                        self.close_ears();
                        return Ok(true);
                    }
                }
            }
            _ => {
                if let Some(ears) = &mut self.ears {
                    ears.unlisten(change);
                }
            }
        }
        let (session, shared) = (&mut self.session, &self.shared);
        let catalog = self.pools.catalog.current();
        let (client, output) = (&mut self.client, &mut self.output);
        compose(|out| {
            session.listened(unit, change, shared.context(&catalog), out);
            Relay::to_client(client, output, cx, out)
        })?;
        self.close_ears();
        Ok(true)
    }

    /// Whether the unit in front waits until the server has carried out its LISTEN.
    #[inline]
    pub(super) fn waits_to_listen(&self) -> bool {
        self.ears.as_ref().is_some_and(|ears| ears.waits.is_some())
    }

    /// Gives up a LISTEN that waits; false if there is none.
    pub(super) fn stop_listening(&mut self) -> bool {
        let Some(ears) = &mut self.ears else {
            return false;
        };
        let Some(name) = ears.waits.take() else {
            return false;
        };
        if !ears.channels.contains(&name) {
            ears.leave(&name);
        }
        true
    }

    /// A server has been told what the session does not want to hear any more.
    pub(super) fn note_unlistened(&mut self) {
        let gone = self.session.take_unlistened();
        if let Some(ears) = &mut self.ears {
            gone.iter().for_each(|change| ears.unlisten(change));
        }
        self.close_ears();
    }

    fn close_ears(&mut self) {
        if !self.session.is_listening() && !self.waits_to_listen() {
            self.ears = None;
        }
    }

    /// Has the task woken by news for a session that listens.
    #[inline]
    pub(super) fn prick_ears(&self, cx: &Context<'_>) {
        if let Some(ears) = &self.ears {
            ears.mailbox.waker.register(cx.waker());
        }
    }

    /// Looks into the mailbox. True if the unit in front can go on.
    #[inline]
    pub(super) fn poll_ears(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        match &self.ears {
            Some(ears) if ears.mailbox.has_news() => self.open_mailbox(cx),
            _ => Ok(false),
        }
    }

    fn open_mailbox(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Some(ears) = &mut self.ears else {
            return Ok(false);
        };
        let mut moved = false;
        if let Some(answer) = ears.mailbox.take_answer()
            && let Some(name) = ears.waits.take()
        {
            moved = true;
            match answer {
                Ok(()) => drop(ears.channels.insert(name)),
                Err(notice) => {
                    self.reject_front(&notice);
                    self.close_ears();
                }
            }
            self.flags.recheck = true;
        }
        while self.may_hear() {
            let Some(ears) = &self.ears else { break };
            if !ears.mailbox.has_news() {
                break;
            }
            let (client, output) = (&mut self.client, &mut self.output);
            let sent = &self.shared.metrics.client_sent_bytes;
            let taken = compose(|out| {
                let taken = ears.mailbox.take(PORTION, out);
                sent.inc_by(out.len() as u64);
                Relay::to_client(client, output, cx, out).map(|()| taken)
            })?;
            if taken == Err(Overflowed) {
                return Err(deaf());
            }
        }
        self.end_if_deaf()?;
        Ok(moved)
    }

    /// Whether notifications may be given to the client now: as PostgreSQL does, between units and not inside of a
    /// transaction. When many wait, between any two messages of a unit outside of a transaction: clients must be prepared
    /// for them at any time. PostgreSQL manual, "Asynchronous Operations", protocol-flow.html#PROTOCOL-ASYNC.
    fn may_hear(&self) -> bool {
        let is_in_block = self.session.is_in_unsent_block();
        if is_in_block || !self.output.is_empty() || self.waits_to_listen() {
            return false;
        }
        let filling = || {
            self.ears
                .as_ref()
                .is_some_and(|ears| ears.mailbox.is_filling())
        };
        match &self.held {
            None => self.waiting.is_none() || filling(),
            Some(held) => {
                let link = &held.server.link;
                link.status == Status::Idle
                    && !link.mid_message()
                    && ((!link.owing.owes_client() && !self.session.mid_unit()) || filling())
            }
        }
    }

    /// The client has not taken what it listens to. It must not believe that it has heard everything.
    fn end_if_deaf(&mut self) -> Result<(), End> {
        let Some(ears) = &self.ears else {
            return Ok(());
        };
        if ears.mailbox.take(0, &mut Vec::new()).is_ok() {
            return Ok(());
        }
        match &self.held {
            Some(held) if held.server.link.mid_message() => Err(End::Cut),
            _ => Err(deaf()),
        }
    }
}

fn deaf() -> End {
    End::Told(
        Notice::fatal(
            SqlState::InsufficientResources,
            "too many notifications wait for this session",
        )
        .hint("A session that listens must read, and keep its transactions short."),
    )
}
