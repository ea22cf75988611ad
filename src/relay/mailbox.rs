//! What a session hears through the shared connection, until its task takes it out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::wire::Notice;

/// Bytes of notifications that wait for one session. When so many do, the connection is not read for a while: what comes
/// then waits in PostgreSQL's own queue.
const MAX_UNDELIVERED: usize = 1024 * 1024;

/// How long a session with a full mailbox holds the others up, before it is ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one session hears.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// The session's task.
    pub(super) waker: AtomicWaker,
    /// Something is inside.
    news: AtomicBool,
    /// There is room again.
    room: Notify,
    inbox: Mutex<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    /// Whole messages.
    letters: VecDeque<Bytes>,
    bytes: usize,
    overflowed: bool,
    /// What became of the LISTEN that the session waits for.
    answer: Option<Result<(), Notice>>,
}

/// More has come than is kept for a session that does not take it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflowed;

impl Mailbox {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in.
    pub(super) fn deposit(&self, letter: &Bytes) {
        let mut inbox = self.inbox();
        if inbox.overflowed {
            return;
        }
        inbox.bytes += letter.len();
        inbox.letters.push_back(letter.clone());
        self.ring(inbox);
    }

    /// Whether there is more inside than should be.
    pub(super) fn is_full(&self) -> bool {
        self.inbox().bytes > MAX_UNDELIVERED
    }

    /// Waits until half of it is empty.
    async fn has_room(&self) {
        while self.is_filling() {
            self.room.notified().await;
        }
    }

    /// Nothing is kept any more: the session has heard too little to go on.
    fn overflow(&self) {
        let mut inbox = self.inbox();
        inbox.overflowed = true;
        inbox.letters = VecDeque::new();
        inbox.bytes = 0;
        self.ring(inbox);
    }

    /// The session does not look into it any more.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox();
        inbox.letters = VecDeque::new();
        inbox.bytes = 0;
        drop(inbox);
        self.room.notify_one();
    }

    /// Puts in what became of the LISTEN that the session waits for.
    pub(super) fn answer(&self, answer: Result<(), Notice>) {
        let mut inbox = self.inbox();
        inbox.answer = Some(answer);
        self.ring(inbox);
    }

    fn ring(&self, inbox: MutexGuard<'_, Inbox>) {
        self.news.store(true, Ordering::Release);
        drop(inbox);
        self.waker.wake();
    }

    /// Whether there is anything inside.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// Whether so much is inside that it should be taken out soon.
    pub(super) fn is_filling(&self) -> bool {
        self.inbox().bytes > MAX_UNDELIVERED / 2
    }

    /// Takes the answer out.
    pub(super) fn take_answer(&self) -> Option<Result<(), Notice>> {
        let mut inbox = self.inbox();
        let answer = inbox.answer.take();
        self.note_rest(&inbox);
        answer
    }

    /// Takes messages out, of about this many bytes.
    ///
    /// # Errors
    /// [`Overflowed`]: some are lost, so the session must not go on as if it had heard everything.
    pub(super) fn take(&self, about: usize, out: &mut Vec<u8>) -> Result<(), Overflowed> {
        let mut inbox = self.inbox();
        if inbox.overflowed {
            return Err(Overflowed);
        }
        while out.len() < about
            && let Some(letter) = inbox.letters.pop_front()
        {
            inbox.bytes -= letter.len();
            out.extend_from_slice(&letter);
        }
        self.note_rest(&inbox);
        if inbox.bytes <= MAX_UNDELIVERED / 2 {
            self.room.notify_one();
        }
        Ok(())
    }

    fn note_rest(&self, inbox: &Inbox) {
        let empty = inbox.letters.is_empty() && inbox.answer.is_none() && !inbox.overflowed;
        self.news.store(!empty, Ordering::Release);
    }
}

/// Gives those who are behind time to read. Whoever has not read by then is ended.
pub(super) async fn wait_for_room(full: Vec<Arc<Mailbox>>) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for mailbox in full {
        let waited = tokio::time::timeout_at(deadline, mailbox.has_room()).await;
        if waited.is_err() {
            mailbox.overflow();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_emptied_in_portions() {
        let mailbox = Mailbox::default();
        let letter = Bytes::from(vec![b'x'; 1000]);
        for _ in 0..MAX_UNDELIVERED / 1000 {
            mailbox.deposit(&letter);
        }
        assert!(mailbox.is_filling());
        let mut out = Vec::new();
        assert_eq!(mailbox.take(2500, &mut out), Ok(()));
        assert_eq!(out.len(), 3000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_mailbox_is_waited_for_and_then_given_up() {
        let mailbox = Arc::<Mailbox>::default();
        let letter = Bytes::from(vec![b'x'; MAX_UNDELIVERED]);
        let fill = |mailbox: &Mailbox| {
            assert!(!mailbox.is_full());
            mailbox.deposit(&letter);
            mailbox.deposit(&letter);
            assert!(mailbox.is_full());
        };
        fill(&mailbox);
        let reader = mailbox.clone();
        let (waited, out) = tokio::join!(
            async {
                let since = tokio::time::Instant::now();
                wait_for_room(vec![mailbox.clone()]).await;
                since.elapsed()
            },
            async {
                tokio::time::sleep(PATIENCE / 2).await;
                let mut out = Vec::new();
                reader.take(usize::MAX, &mut out).map(|()| out.len())
            }
        );
        assert_eq!(out, Ok(2 * MAX_UNDELIVERED), "nothing is lost");
        assert!(waited >= PATIENCE / 2 && waited < PATIENCE, "{waited:?}");
        fill(&mailbox);
        wait_for_room(vec![mailbox.clone()]).await;
        assert!(mailbox.has_news());
        assert_eq!(mailbox.take(1, &mut Vec::new()), Err(Overflowed));
        mailbox.deposit(&letter);
        assert_eq!(
            mailbox.take(1, &mut Vec::new()),
            Err(Overflowed),
            "for good"
        );
        // Nobody waits for a session that has gone.
        let gone = Arc::<Mailbox>::default();
        fill(&gone);
        gone.close();
        let since = tokio::time::Instant::now();
        wait_for_room(vec![gone]).await;
        assert_eq!(since.elapsed(), Duration::ZERO);
    }
}
