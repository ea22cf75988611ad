//! What `relay` does around a session, without sockets: two server connections, one on the primary and one on a standby,
//! and bytes that come in pieces of any size.

use std::sync::Arc;

use pgweir::link::{Link, Params, Statements};
use pgweir::session::{Context, Next, Session};
use pgweir::sql::{Access, Class, Classifier, Lexing};
use pgweir::wire::Status;
use pgweir::wire::frame;

use crate::peer::Peer;

/// Bounds of the sessions, small enough to be met.
const PIPELINE_BUFFER: usize = 256;
const MAX_MESSAGE: usize = 4096;
const MAX_PREPARED: usize = 2;

/// Turns without progress that mean a livelock.
const PATIENCE: usize = 10_000;

/// A server connection of the pool.
#[derive(Debug)]
struct Server {
    link: Link,
    peer: Peer,
    standby: bool,
}

impl Server {
    fn new(standby: bool) -> Server {
        Server {
            link: Link::new(MAX_PREPARED),
            peer: Peer::default(),
            standby,
        }
    }
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// The client said goodbye.
    Terminated,
    /// The client broke the protocol.
    Violated,
    /// The server connection was given up.
    LinkFailed,
}

/// One client's session and its servers.
pub struct Rig {
    classifier: Classifier,
    statements: Statements,
    session: Session,
    held: Option<Server>,
    idle: Vec<Server>,
    input: Vec<u8>,
    draining: bool,
    /// The unit in front, which waits until its settings are there.
    placed: Option<(usize, Class)>,
    /// Everything that the client has been sent.
    pub output: Vec<u8>,
    /// Why the session is over, if it is.
    pub end: Option<End>,
}

impl Rig {
    pub fn new() -> Rig {
        Rig {
            classifier: Classifier::new(1 << 14),
            statements: Statements::new(1 << 14),
            session: Session::new(Arc::new(Params::default()), Lexing::default(), false),
            held: None,
            idle: Vec::new(),
            input: Vec::new(),
            draining: false,
            placed: None,
            output: Vec::new(),
            end: None,
        }
    }

    /// Bytes of the client have come.
    pub fn client(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.go_on();
    }

    /// At most `most` bytes of the held server have come; false if it has none.
    pub fn server(&mut self, most: usize) -> bool {
        let Some(held) = &mut self.held else {
            return false;
        };
        let most = most.clamp(1, 64 * 1024).min(held.peer.output.len());
        let chunk: Vec<u8> = held.peer.output.drain(..most).collect();
        if !chunk.is_empty() {
            self.receive(&chunk);
        }
        !chunk.is_empty()
    }

    /// A server that says anything at all: `chunk` comes in its place.
    pub fn receive(&mut self, chunk: &[u8]) {
        let Some(held) = self.held.as_mut().filter(|_| self.end.is_none()) else {
            return;
        };
        let mut out = Vec::new();
        match self
            .session
            .receive(&mut held.link, chunk, held.standby, &mut out)
        {
            Ok(received) => {
                if let Some(range) = received.verbatim {
                    assert!(out.is_empty(), "either the chunk passes or the buffer does");
                    out.extend_from_slice(&chunk[range]);
                }
                self.output.append(&mut out);
                self.release();
                self.go_on();
            }
            Err(_) => {
                let _ = self.session.lost(&held.link);
                assert!(!self.session.mid_unit() || self.session.pin().is_none());
                self.output.append(&mut out);
                self.held = None;
                self.end = Some(End::LinkFailed);
            }
        }
    }

    /// Lets everything that is on its way arrive.
    pub fn settle(&mut self) {
        let mut turns = 0;
        while self.end.is_none() && self.server(usize::MAX) {
            turns += 1;
            assert!(turns < PATIENCE, "the servers are answered for ever");
        }
    }

    /// Whether the session waits for nothing: no input, no reply, no connection that it need not keep.
    pub fn is_quiet(&self) -> bool {
        self.input.is_empty()
            && !self.session.mid_unit()
            && self.held.as_ref().is_none_or(|held| held.link.settled())
    }

    fn go_on(&mut self) {
        let mut turns = 0;
        while self.end.is_none() && !self.draining && self.step() {
            turns += 1;
            assert!(turns < PATIENCE, "the session goes round without end");
        }
    }

    /// One decision of the session; false if it waits.
    fn step(&mut self) -> bool {
        let context = Context {
            classifier: &self.classifier,
            statements: &self.statements,
            pipeline_buffer: PIPELINE_BUFFER,
            max_message: MAX_MESSAGE,
        };
        let held = self.held.as_ref().map(|held| (&held.link, held.standby));
        let placed = self.placed.take();
        let next = match placed {
            Some((len, class)) => Next::Place { len, class },
            None => self
                .session
                .next(&self.input, held, context, &mut self.output),
        };
        match next {
            Next::More => return false,
            Next::Place { len, class } => {
                if placed.is_none() {
                    self.place(matches!(class.access, Access::Read));
                }
                self.forward(len, Some(class), true);
            }
            Next::Forward { len, class } => self.forward(len, class, false),
            Next::Drain => {
                self.draining = true;
                self.release();
                return !self.draining;
            }
            Next::Rehome => {
                let held = self.held.as_mut().expect("only a held connection is left");
                let mut out = Vec::new();
                self.session.rehome(&mut held.link, &mut out);
                held.peer.feed(&out);
                self.draining = true;
            }
            Next::Skip { len } | Next::Reply { len } => {
                self.refuse();
                self.take(len);
            }
            Next::Terminate => self.end = Some(End::Terminated),
            Next::Violation(_) => self.end = Some(End::Violated),
        }
        true
    }

    /// Takes the connection that a unit needs, unless the session is pinned to the one that it has.
    fn place(&mut self, standby: bool) {
        if self.held.is_some() && self.session.pin().is_some() {
            return;
        }
        self.idle.extend(self.held.take());
        let at = self
            .idle
            .iter()
            .position(|server| server.standby == standby);
        let server = at.map_or_else(|| Server::new(standby), |at| self.idle.swap_remove(at));
        assert!(server.link.reusable(), "{:?}", server.link);
        self.held = Some(server);
    }

    fn forward(&mut self, len: usize, class: Option<Class>, begin: bool) {
        let context = Context {
            classifier: &self.classifier,
            statements: &self.statements,
            pipeline_buffer: PIPELINE_BUFFER,
            max_message: MAX_MESSAGE,
        };
        let held = self
            .held
            .as_mut()
            .expect("nothing is forwarded without a connection");
        let mut out = Vec::new();
        let front = &self.input[..len];
        let unit = class.map(|class| (front, class));
        if begin && self.session.begin(&mut held.link, unit, &mut out) {
            held.peer.feed(&out);
            self.placed = class.map(|class| (len, class));
            self.draining = true;
            return;
        }
        let bytes: Vec<u8> = self.input.drain(..len).collect();
        if self
            .session
            .forward(&bytes, class, &mut held.link, context, &mut out)
        {
            out.extend_from_slice(&bytes);
        }
        held.peer.feed(&out);
        self.own_replies();
    }

    fn refuse(&mut self) {
        if !self.session.owes_refusal() {
            return;
        }
        if let Some(held) = &mut self.held {
            self.session.refused(&mut held.link);
        }
        self.own_replies();
    }

    fn own_replies(&mut self) {
        if let Some(held) = &mut self.held {
            self.session.settle(&mut held.link, &mut self.output);
            self.release();
        }
    }

    /// Gives the connection back if nothing needs it any more.
    fn release(&mut self) {
        let Some(held) = &mut self.held else { return };
        let link = &mut held.link;
        if !link.settled() {
            return;
        }
        self.draining = false;
        if link.status != Status::Idle
            || self.session.mid_unit()
            || link.copy_in
            || self.placed.is_some()
        {
            return;
        }
        if link.doubtful {
            self.held = None;
        } else if self.session.pin().is_none() {
            if link.dirty {
                let mut out = Vec::new();
                Session::clean(link, None, None, &mut out);
                held.peer.feed(&out);
            } else {
                assert!(
                    !held.peer.is_mid_message(),
                    "a connection is returned in the middle of a message"
                );
                self.idle.extend(self.held.take());
            }
        }
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        assert!(len <= self.input.len(), "more than has come");
        self.input.drain(..len).collect()
    }
}

/// The types of the messages in a stream.
///
/// # Panics
/// When it is not made of whole messages.
pub fn tags(stream: &[u8]) -> Vec<u8> {
    let mut tags = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let header = frame::header(rest, usize::MAX)
            .expect("clients are sent legal lengths")
            .expect("clients are sent whole headers");
        tags.push(header.tag);
        rest = rest
            .get(header.total()..)
            .expect("clients are sent whole messages");
    }
    tags
}
