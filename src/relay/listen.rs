//! LISTEN without a server connection for each listener: one connection for a database and user hears for all of their
//! sessions.
//!
//! A task of its own owns that connection, outside of any pool. It follows the primary, keeps the server's list of
//! channels equal to what sessions want, and puts what it hears into their mailboxes. It is there while anybody listens.
//! What is notified while the connection is lost is lost, as it is for a client of PostgreSQL that has to connect again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::PoolSet;
use super::mailbox::{Mailbox, wait_for_room};
use super::unit::{checkout_notice, nowhere};
use crate::config::Route;
use crate::pool::CheckoutError;
use crate::server::{self, Login, Messages, Server, ServerError};
use crate::wire::Notice;
use crate::wire::backend::notified_channel;
use crate::wire::frame::put_header;
use crate::wire::frontend::put_query;

/// How often the connection's node is compared with the primary.
const WATCH: Duration = Duration::from_millis(50);

/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long the server may take for LISTEN and UNLISTEN.
const ANSWER: Duration = Duration::from_secs(10);

/// Channels in one Query.
const MAX_AT_ONCE: usize = 200;

/// Settings of the connection: the encoding of those who share it, and no end for want of statements.
const SETTINGS: [(&str, &str); 2] = [("client_encoding", "UTF8"), ("idle_session_timeout", "0")];

/// Who listens to what, for one database and user.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    book: Mutex<Book>,
    /// The book has changed.
    bell: Notify,
}

#[derive(Debug, Default)]
struct Book {
    channels: HashMap<Box<[u8]>, Channel>,
    /// There is a task.
    served: bool,
}

#[derive(Debug, Default)]
struct Channel {
    /// The connection of the moment has carried LISTEN out.
    live: bool,
    ears: Vec<Ear>,
}

#[derive(Debug)]
struct Ear {
    mailbox: Arc<Mailbox>,
    /// Its LISTEN has been confirmed before.
    joined: bool,
    /// It waits for the answer to one.
    waits: bool,
}

/// What the server is to be told next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Rest,
    /// Nobody listens any more.
    Retire,
    Tell {
        listen: Vec<Box<[u8]>>,
        unlisten: Vec<Box<[u8]>>,
    },
}

impl Listeners {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a session for a channel. True if it is heard from now on; otherwise its mailbox gets the answer.
    ///
    /// # Errors
    /// When there is no primary to listen to.
    pub(super) fn join(
        pools: &Arc<PoolSet>,
        mailbox: &Arc<Mailbox>,
        name: &[u8],
    ) -> Result<bool, Notice> {
        if pools.cluster.view.load().primary.is_none() {
            return Err(nowhere(Route::Split));
        }
        let listeners = &pools.listeners;
        let mut book = listeners.book();
        let there = book.join(mailbox, name);
        if !book.served {
            book.served = true;
            tokio::spawn(serve(pools.clone()));
        }
        drop(book);
        if !there {
            listeners.bell.notify_one();
        }
        Ok(there)
    }

    /// Takes a session out.
    pub(super) fn leave(&self, mailbox: &Arc<Mailbox>, name: &[u8]) {
        let mut book = self.book();
        if book.leave(mailbox, name) {
            drop(book);
            self.bell.notify_one();
        }
    }
}

impl Book {
    fn join(&mut self, mailbox: &Arc<Mailbox>, name: &[u8]) -> bool {
        let channel = self.channels.entry(name.into()).or_default();
        let live = channel.live;
        let known = channel
            .ears
            .iter_mut()
            .find(|ear| Arc::ptr_eq(&ear.mailbox, mailbox));
        match known {
            Some(ear) => ear.waits = !live,
            None => channel.ears.push(Ear {
                mailbox: mailbox.clone(),
                joined: live,
                waits: !live,
            }),
        }
        live
    }

    /// True if nobody is left who listens to the channel.
    fn leave(&mut self, mailbox: &Arc<Mailbox>, name: &[u8]) -> bool {
        let Some(channel) = self.channels.get_mut(name) else {
            return false;
        };
        channel
            .ears
            .retain(|ear| !Arc::ptr_eq(&ear.mailbox, mailbox));
        let empty = channel.ears.is_empty();
        if empty {
            self.channels.remove(name);
        }
        empty
    }

    /// The connection is gone: no channel is heard.
    fn darken(&mut self) {
        for channel in self.channels.values_mut() {
            channel.live = false;
        }
    }

    /// Whoever waits is told that it cannot be.
    fn fail(&mut self, notice: &Notice) {
        self.channels.retain(|_, channel| {
            channel.ears.retain_mut(|ear| {
                if std::mem::take(&mut ear.waits) {
                    ear.mailbox.answer(Err(notice.clone()));
                }
                ear.joined
            });
            !channel.ears.is_empty()
        });
    }

    /// Compares the book with what the server has, confirms what is there, and tells what is not.
    fn step(&mut self, heard: &HashSet<Box<[u8]>>) -> Step {
        if self.channels.is_empty() {
            self.served = false;
            return Step::Retire;
        }
        let mut listen = Vec::new();
        for (name, channel) in &mut self.channels {
            if channel.live {
                continue;
            }
            if heard.contains(name) {
                channel.confirm();
            } else if listen.len() < MAX_AT_ONCE {
                listen.push(name.clone());
            }
        }
        let unlisten: Vec<_> = heard
            .iter()
            .filter(|name| !self.channels.contains_key(*name))
            .take(MAX_AT_ONCE)
            .cloned()
            .collect();
        if listen.is_empty() && unlisten.is_empty() {
            return Step::Rest;
        }
        Step::Tell { listen, unlisten }
    }

    /// Puts a notification into the mailboxes of those who listen to its channel. Returns those that are full.
    fn deliver(&self, body: &[u8]) -> Vec<Arc<Mailbox>> {
        let Some(channel) = notified_channel(body).and_then(|name| self.channels.get(name)) else {
            return Vec::new();
        };
        let mut letter = Vec::with_capacity(body.len() + 5);
        put_header(&mut letter, b'A', body.len());
        letter.extend_from_slice(body);
        let letter = Bytes::from(letter);
        let mut full = Vec::new();
        for ear in &channel.ears {
            ear.mailbox.deposit(&letter);
            if ear.mailbox.is_full() {
                full.push(ear.mailbox.clone());
            }
        }
        full
    }
}

impl Channel {
    fn confirm(&mut self) {
        self.live = true;
        for ear in &mut self.ears {
            ear.joined = true;
            if std::mem::take(&mut ear.waits) {
                ear.mailbox.answer(Ok(()));
            }
        }
    }
}

/// Listens for the sessions of a database and user until none of them does.
async fn serve(pools: Arc<PoolSet>) {
    let listeners = &pools.listeners;
    let mut pause = FIRST_PAUSE;
    loop {
        listeners.book().darken();
        if listeners.book().step(&HashSet::new()) == Step::Retire {
            return;
        }
        let Some(node) = pools.cluster.view.load().primary else {
            listeners.book().fail(&nowhere(Route::Split));
            tokio::time::sleep(WATCH).await;
            continue;
        };
        let mut answered = false;
        let error = match connect(&pools, node).await {
            Ok(server) => match hear(&pools, node, server, &mut answered).await {
                Ok(Heard::Nobody) => return,
                Ok(Heard::Moved) => continue,
                Err(error) => error,
            },
            Err(error) => error,
        };
        let name = &pools.cluster.nodes[node].name;
        tracing::warn!(node = %name, database = %pools.database, user = %pools.user, %error, "listening connection lost");
        if answered {
            pause = FIRST_PAUSE;
        }
        if !answered || error.refusal().is_some() {
            let notice = checkout_notice(&CheckoutError::Server(Arc::new(error)), Route::Split);
            listeners.book().fail(&notice);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn connect(pools: &PoolSet, node: usize) -> Result<Server, ServerError> {
    let login = Login {
        user: &pools.user,
        database: &pools.database,
        credentials: &pools.credentials,
        parameters: &SETTINGS,
    };
    Box::pin(server::open(&pools.cluster.nodes[node].endpoint, &login)).await
}

/// Why a connection is not needed any more.
enum Heard {
    /// Nobody listens.
    Nobody,
    /// Another node is primary.
    Moved,
}

/// Hears on one connection for as long as it lasts. `answered` becomes true when it has carried something out.
async fn hear(
    pools: &PoolSet,
    node: usize,
    mut server: Server,
    answered: &mut bool,
) -> Result<Heard, ServerError> {
    let listeners = &pools.listeners;
    let mut messages = Messages::default();
    let mut heard: HashSet<Box<[u8]>> = HashSet::new();
    let mut told: Option<(Instant, Vec<Box<[u8]>>)> = None;
    let mut changed = true;
    let mut ticks = tokio::time::interval(WATCH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if told.is_none() && std::mem::take(&mut changed) {
            let step = listeners.book().step(&heard);
            match step {
                Step::Rest => {}
                Step::Retire => return Ok(Heard::Nobody),
                Step::Tell { listen, unlisten } => {
                    let mut query = Vec::new();
                    put_query(&statements(&listen, &unlisten), &mut query);
                    tokio::time::timeout(ANSWER, server.stream.write_all(&query))
                        .await
                        .map_err(|_| ServerError::Timeout)??;
                    heard.retain(|name| !unlisten.contains(name));
                    told = Some((Instant::now(), listen));
                }
            }
        }
        tokio::select! {
            message = messages.next(&mut server.stream) => {
                let message = message?;
                match message.tag {
                    b'A' => {
                        let full = listeners.book().deliver(&message.body);
                        wait_for_room(full).await;
                    }
                    b'Z' => {
                        *answered = true;
                        changed = true;
                        heard.extend(told.take().into_iter().flat_map(|(_, listen)| listen));
                    }
                    b'C' | b'N' | b'S' => {}
                    _ => return Err(ServerError::Protocol("an unexpected message to a listener")),
                }
            }
            () = listeners.bell.notified(), if told.is_none() => changed = true,
            _ = ticks.tick() => {
                if told.as_ref().is_some_and(|(since, _)| since.elapsed() > ANSWER) {
                    return Err(ServerError::Timeout);
                }
                // While there is no primary the old one may be only silent.
                if pools.cluster.view.load().primary.is_some_and(|primary| primary != node) {
                    return Ok(Heard::Moved);
                }
            }
        }
    }
}

/// The SQL for these channels.
fn statements(listen: &[Box<[u8]>], unlisten: &[Box<[u8]>]) -> Vec<u8> {
    let mut sql = Vec::new();
    let names = unlisten.iter().map(|name| (&b"UNLISTEN "[..], name));
    for (verb, name) in names.chain(listen.iter().map(|name| (&b"LISTEN "[..], name))) {
        sql.extend_from_slice(verb);
        sql.push(b'"');
        for byte in name.iter() {
            if *byte == b'"' {
                sql.push(b'"');
            }
            sql.push(*byte);
        }
        sql.extend_from_slice(b"\"; ");
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    fn notification(channel: &str, payload: &str) -> Vec<u8> {
        format!("\0\0\0\x07{channel}\0{payload}\0").into_bytes()
    }

    fn taken(mailbox: &Mailbox) -> String {
        let mut out = Vec::new();
        assert_eq!(mailbox.take(usize::MAX, &mut out), Ok(()));
        String::from_utf8(out)
            .expect("text")
            .chars()
            .filter(char::is_ascii_lowercase)
            .collect()
    }

    #[test]
    fn names_are_quoted() {
        let sql = statements(&[name("a"), name("b\"c;")], &[name("D")]);
        assert_eq!(
            String::from_utf8_lossy(&sql),
            "UNLISTEN \"D\"; LISTEN \"a\"; LISTEN \"b\"\"c;\"; "
        );
    }

    #[test]
    fn a_channel_is_asked_for_once_and_until_the_last_has_gone() {
        let mut book = Book {
            served: true,
            ..Book::default()
        };
        let (a, b) = (Arc::<Mailbox>::default(), Arc::<Mailbox>::default());
        let mut heard = HashSet::new();
        let tell = |listen: &[&str], unlisten: &[&str]| Step::Tell {
            listen: listen.iter().map(|text| name(text)).collect(),
            unlisten: unlisten.iter().map(|text| name(text)).collect(),
        };
        assert!(!book.join(&a, b"c"));
        assert_eq!(book.step(&heard), tell(&["c"], &[]));
        assert!(a.take_answer().is_none(), "the server has not answered");
        heard.insert(name("c"));
        assert_eq!(book.step(&heard), Step::Rest);
        assert!(matches!(a.take_answer(), Some(Ok(()))));
        assert!(book.join(&a, b"c"), "twice is once");
        assert!(book.join(&b, b"c"), "and for others at once");
        book.deliver(&notification("c", "x"));
        book.deliver(&notification("d", "y"));
        assert_eq!((taken(&a), taken(&b)), ("cx".into(), "cx".into()));
        assert!(!a.has_news());
        assert!(!book.leave(&a, b"c"));
        assert_eq!(book.step(&heard), Step::Rest);
        book.deliver(&notification("c", "z"));
        assert_eq!((taken(&a), taken(&b)), (String::new(), "cz".into()));
        // Somebody comes back before the server has been told.
        assert!(book.leave(&b, b"c"));
        assert!(!book.join(&b, b"d"));
        assert_eq!(book.step(&heard), tell(&["d"], &["c"]));
        assert!(!book.join(&a, b"c"));
        assert_eq!(book.step(&heard), tell(&["d"], &[]));
        assert!(matches!(a.take_answer(), Some(Ok(()))));
        book.leave(&a, b"c");
        book.leave(&b, b"d");
        assert_eq!(book.step(&heard), Step::Retire);
        assert!(!book.served);
    }

    #[test]
    fn who_waits_in_vain_is_told_and_who_listens_stays() {
        let mut book = Book::default();
        let (old, new) = (Arc::<Mailbox>::default(), Arc::<Mailbox>::default());
        book.join(&old, b"c");
        book.step(&HashSet::from([name("c")]));
        assert!(matches!(old.take_answer(), Some(Ok(()))));
        book.darken();
        assert!(!book.join(&new, b"c"));
        assert!(!book.join(&old, b"c"), "it says so again");
        book.fail(&nowhere(Route::Split));
        assert!(matches!(new.take_answer(), Some(Err(_))));
        assert!(matches!(old.take_answer(), Some(Err(_))));
        book.step(&HashSet::from([name("c")]));
        book.deliver(&notification("c", "x"));
        assert_eq!((taken(&old), taken(&new)), ("cx".into(), String::new()));
    }
}
