//! What `relay` does around a session, without sockets: server connections on a primary and on a standby, and bytes that
//! come in pieces of any size.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use pgweir::config::CurrvalPolicy;
use pgweir::link::{Again, Link, Owed, Params, Refusal, Statements};
use pgweir::session::{Context, LinkError, Next, SequenceTalk, Session, TransactionDefaults};
use pgweir::sql::catalog::Change;
use pgweir::sql::{Access, Class, Classifier, Isolation, Lexing, SessionEffect};
use pgweir::wire::frame;
use pgweir::wire::{ClientFacing, Notice, SqlState, Status};

use crate::peer::Peer;

/// Bounds of the sessions, small enough to be met.
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
    /// It has said what no server would.
    forged: bool,
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// The client said goodbye.
    Terminated,
    /// The client broke the protocol.
    Violated,
    /// The server connection was lost with what the session had on it.
    Lost,
    /// The same, in the middle of a message.
    Cut,
}

/// What the sessions share: nodes, and the connections that nobody uses.
#[derive(Debug)]
pub struct Site {
    classifier: Classifier,
    statements: Statements,
    /// What is held of a group before its place is chosen, in bytes.
    pipeline_buffer: usize,
    /// Reads go to a standby.
    standbys: bool,
    /// It refuses them now and then.
    refusing: bool,
    sequences: Arc<SequenceTalk>,
    idle: RefCell<Vec<Server>>,
}

impl Site {
    /// A site with no connection yet.
    pub fn new(pipeline_buffer: usize, standbys: bool) -> Rc<Site> {
        Rc::new(Site {
            classifier: Classifier::new(1 << 14),
            statements: Statements::new(1 << 14),
            pipeline_buffer,
            standbys,
            refusing: false,
            sequences: Arc::default(),
            idle: RefCell::default(),
        })
    }

    /// A site whose standbys refuse now and then what they are given.
    #[allow(dead_code, reason = "the fuzz targets have no use for it")]
    pub fn refusing() -> Rc<Site> {
        Rc::new(Site {
            classifier: Classifier::new(1 << 14),
            statements: Statements::new(1 << 14),
            pipeline_buffer: 1 << 16,
            standbys: true,
            refusing: true,
            sequences: Arc::default(),
            idle: RefCell::default(),
        })
    }

    fn context(&self) -> Context<'_> {
        Context {
            catalog: &pgweir::sql::catalog::TABLES,
            classifier: &self.classifier,
            statements: &self.statements,
            pipeline_buffer: self.pipeline_buffer,
            max_message: MAX_MESSAGE,
        }
    }

    fn checkout(&self, standby: bool) -> Server {
        let mut idle = self.idle.borrow_mut();
        let at = idle.iter().position(|server| server.standby == standby);
        at.map_or_else(
            || Server {
                link: Link::new(MAX_PREPARED),
                peer: Peer::new(standby).refusing(standby && self.refusing),
                standby,
                forged: false,
            },
            |at| idle.swap_remove(at),
        )
    }

    /// What does not go back clean is a bug.
    fn put_back(&self, server: Server) {
        if server.link.spent {
            // As the pool does.
            return;
        }
        assert!(server.link.reusable(), "returned: {:?}", server.link);
        let unclean = server.peer.unclean(server.link.params.len());
        if let Some(unclean) = unclean.filter(|_| !server.forged) {
            panic!("a connection is returned {unclean}");
        }
        self.idle.borrow_mut().push(server);
    }
}

/// What goes before the bytes of a client.
#[derive(Clone, Copy, PartialEq)]
enum Begin {
    No,
    Settings,
    Bare,
}

/// One client's session.
#[derive(Debug)]
pub struct Rig {
    site: Rc<Site>,
    session: Session,
    held: Option<Server>,
    input: Vec<u8>,
    draining: bool,
    /// A server has refused the session's settings for the unit in front.
    refused: bool,
    /// The unit in front goes to the primary.
    detour: bool,
    /// How often a standby has refused a unit.
    pub bounces: usize,
    /// The unit in front, which waits until its settings are there.
    placed: Option<(usize, Class)>,
    /// Everything that the client has been sent.
    pub output: Vec<u8>,
    /// Why the session is over, if it is.
    pub end: Option<End>,
}

impl Rig {
    pub fn new(site: &Rc<Site>) -> Rig {
        Rig {
            site: site.clone(),
            session: Session::new(Arc::new(Params::default()), Lexing::default(), false)
                .with_shared_listen(true)
                .with_sequences(CurrvalPolicy::Pin, &site.sequences)
                .with_deferred_begin(TransactionDefaults {
                    isolation: Some(Isolation::ReadCommitted),
                    read_only: false,
                }),
            held: None,
            input: Vec::new(),
            draining: false,
            refused: false,
            placed: None,
            detour: false,
            bounces: 0,
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
        } else if held.peer.closed {
            self.lose();
            return true;
        }
        !chunk.is_empty()
    }

    /// A server that says anything at all: `chunk` comes in its place.
    #[allow(dead_code, reason = "only the fuzz targets are hostile")]
    pub fn forge(&mut self, chunk: &[u8]) {
        if let Some(held) = &mut self.held {
            held.forged = true;
        }
        self.receive(chunk);
    }

    /// The held server vanishes; false if there is none.
    pub fn lose(&mut self) -> bool {
        let lost = self.held.is_some();
        self.server_lost();
        self.go_on();
        lost
    }

    /// The plans of the held server become stale, or it begins to refuse roles.
    #[allow(dead_code, reason = "the fuzz targets have no use for it")]
    pub fn peer(&mut self) -> Option<&mut Peer> {
        self.held.as_mut().map(|held| &mut held.peer)
    }

    fn receive(&mut self, chunk: &[u8]) {
        let Some(held) = self.held.as_mut().filter(|_| self.end.is_none()) else {
            return;
        };
        let mut out = Vec::new();
        let result = self
            .session
            .receive(&mut held.link, chunk, held.standby, &mut out);
        if let Ok(received) = &result
            && let Some(range) = received.verbatim.clone()
        {
            assert!(out.is_empty(), "either the chunk passes or the buffer does");
            out.extend_from_slice(&chunk[range]);
        }
        self.output.append(&mut out);
        match result {
            Ok(received) => {
                if received.catalog_changed == Change::Plans {
                    self.site.statements.catalog_changed();
                }
                if let Some(again) = received.again {
                    let (units, first) = held.link.replay.take();
                    let mut out = Vec::new();
                    if matches!(again, Again::Bounced(_))
                        && self.session.leave_refused(&mut held.link, &mut out)
                    {
                        held.peer.feed(&out);
                        self.draining = true;
                    }
                    match again {
                        Again::StalePlan => self.session.renew(self.site.context()),
                        Again::Bounced(refusal) => self.bounced(&refusal, &units[..first]),
                    }
                    self.input.splice(..0, units);
                }
                if let Some(rest) = received.rest {
                    self.input.splice(..0, rest);
                }
                self.release();
            }
            Err(error @ LinkError::Settings(_)) if self.placed.is_some() => {
                self.settings_refused(&error.notice());
            }
            Err(error @ LinkError::Settings(_)) if held.link.guarded => {
                let (unit, _) = self.session.take_back(&mut held.link);
                self.input.splice(..0, unit);
                self.settings_refused(&error.notice());
            }
            Err(_) => self.server_lost(),
        }
        self.go_on();
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
        let held = self.held.as_ref();
        self.input.is_empty()
            && !self.session.mid_unit()
            && held.is_none_or(|held| {
                let keeps = self.session.pin().is_some() || held.link.status != Status::Idle;
                held.link.settled() && keeps
            })
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
        let held = self.held.as_ref().map(|held| (&held.link, held.standby));
        let next = match self.placed {
            Some((len, class)) => Next::Place { len, class },
            None => {
                let context = self.site.context();
                self.session
                    .next(&self.input, held, context, &mut self.output)
            }
        };
        match next {
            Next::More => return false,
            Next::Later => {}
            Next::Place { len, class } => self.place(len, class),
            Next::Forward { len, class } => {
                self.forward(len, class, Begin::No);
            }
            Next::Listening { len, change } => {
                let unit: Vec<u8> = self.input.drain(..len).collect();
                let context = self.site.context();
                self.session
                    .listened(&unit, &change, context, &mut self.output);
            }
            Next::Refuse { len } => {
                let held = self.held.as_mut().expect("a standby is held");
                let (mut out, context) = (Vec::new(), self.site.context());
                self.session
                    .refuse_unit(&self.input[..len], &mut held.link, context, &mut out);
                held.peer.feed(&out);
                self.take(len);
            }
            Next::Release => self.release(),
            Next::Drain => self.draining = true,
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

    /// Takes the connection that a unit needs, unless the session is pinned to the one that it has, and sends the unit.
    fn place(&mut self, len: usize, class: Class) {
        let is_there =
            self.placed.take().is_some() || (self.held.is_some() && self.session.pin().is_some());
        if !is_there {
            if let Some(held) = self.held.take() {
                self.site.put_back(held);
            }
            let detour = std::mem::take(&mut self.detour);
            let standby = self.site.standbys && class.access == Access::Read && !detour;
            self.held = Some(self.site.checkout(standby));
        }
        let effect = class.session;
        let mends = matches!(effect, SessionEffect::Set | SessionEffect::DiscardAll)
            && class.statements == 1
            && self.input.first() == Some(&b'Q');
        let begin = if self.refused && mends {
            Begin::Bare
        } else {
            Begin::Settings
        };
        if self.forward(len, Some(class), begin) {
            self.refused = false;
        } else {
            self.placed = Some((len, class));
            self.draining = true;
        }
    }

    /// False if the settings must be confirmed before the unit may follow.
    fn forward(&mut self, len: usize, class: Option<Class>, begin: Begin) -> bool {
        let held = self.held.as_mut();
        let held = held.expect("nothing is forwarded without a connection");
        let mut out = Vec::new();
        let refusable = match begin {
            Begin::Settings => {
                let front = &self.input[..len];
                let unit = class.filter(|_| !self.refused).map(|class| (front, class));
                self.session.begin(&mut held.link, unit, &mut out)
            }
            Begin::Bare => {
                Session::begin_bare(&mut held.link, &mut out);
                false
            }
            Begin::No => false,
        };
        if refusable {
            held.peer.feed(&out);
            return false;
        }
        held.link.on_standby = held.standby;
        held.link.bounces = held.standby;
        let bytes: Vec<u8> = self.input.drain(..len).collect();
        let context = self.site.context();
        if self
            .session
            .forward(&bytes, class, &mut held.link, context, &mut out)
        {
            out.extend_from_slice(&bytes);
        }
        held.peer.feed(&out);
        self.own_replies();
        true
    }

    /// A standby has refused this unit: it is sent to the primary.
    fn bounced(&mut self, refusal: &Refusal, unit: &[u8]) {
        if refusal.learned {
            let context = self.site.context();
            self.session.learn_refusal(unit, usize::MAX, context);
        }
        self.detour = true;
        self.bounces += 1;
    }

    fn refuse(&mut self) {
        if !self.session.owes_refusal() {
            return;
        }
        if let Some(held) = &mut self.held {
            let mut out = Vec::new();
            self.session.refused(&mut held.link, &mut out);
            held.peer.feed(&out);
        }
        self.own_replies();
    }

    fn own_replies(&mut self) {
        if let Some(held) = &mut self.held
            && matches!(held.link.owing.front(), Some(Owed::Local(_)))
        {
            self.session.settle(&mut held.link, &mut self.output);
            self.release();
        }
    }

    /// Gives the connection back if nothing needs it any more.
    fn release(&mut self) {
        let Some(held) = &mut self.held else { return };
        let link = &mut held.link;
        if link.owing.skipping() || link.copy_in {
            self.draining = false;
        }
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
        let pinned = self.session.pin().is_some();
        if !link.doubtful && (pinned || !link.dirty) {
            let mut out = Vec::new();
            self.session.leave_at_leisure(link, &mut out);
            held.peer.feed(&out);
            if link.wiping {
                return;
            }
        }
        if link.doubtful && pinned {
            let mut out = Vec::new();
            Session::start_afresh(link, &mut out);
            held.peer.feed(&out);
        } else if link.doubtful {
            self.held = None;
        } else if pinned {
            let mut out = Vec::new();
            self.session.ask_for_pins(link, &mut out);
            held.peer.feed(&out);
        } else {
            if link.dirty {
                let mut out = Vec::new();
                Session::clean(link, None, None, &mut out);
                held.peer.feed(&out);
            } else if let Some(held) = self.held.take() {
                self.site.put_back(held);
            }
        }
    }

    fn settings_refused(&mut self, notice: &Notice) {
        self.held = None;
        self.placed = None;
        self.draining = false;
        if std::mem::replace(&mut self.refused, true) {
            self.refused = false;
            self.reject_front(notice);
        }
    }

    /// Answers the unit in front, which no server takes.
    fn reject_front(&mut self, notice: &Notice) {
        let context = self.site.context();
        let mut replies = Vec::new();
        let len = loop {
            match self.session.next(&self.input, None, context, &mut replies) {
                Next::Later => {}
                Next::Place { len, .. } => break len,
                _ => break 0,
            }
        };
        notice.put(&mut self.output);
        if self.session.fail_unit(&self.input[..len]) {
            self.session.put_ready(&mut self.output);
        }
        self.take(len);
    }

    fn server_lost(&mut self) {
        let Some(mut held) = self.held.take().filter(|_| self.end.is_none()) else {
            return;
        };
        if let Some(refusal) = held.link.replay.lost() {
            let (units, first) = self.session.take_back(&mut held.link);
            self.placed = None;
            self.draining = false;
            self.bounced(&refusal, &units[..first]);
            self.input.splice(..0, units);
            return;
        }
        let link = &held.link;
        let pinned = self.session.pin().is_some();
        let open = self.session.has_open_group();
        let dies = self.session.dies_with(link);
        self.session.lost(link);
        self.placed = None;
        self.draining = false;
        if link.mid_message() {
            self.end = Some(End::Cut);
        } else if dies || pinned {
            self.end = Some(End::Lost);
        } else {
            let owed: Vec<Owed> = link.owing.iter().collect();
            self.answer_lost(&owed, link.owing.skipping(), open);
        }
    }

    /// One error for each unit that was on its way. `told` says that the client has had one for the unit in front.
    fn answer_lost(&mut self, owed: &[Owed], mut told: bool, open: bool) {
        let notice = Notice::error(SqlState::ConnectionFailure, "the server was lost");
        for owed in owed {
            match owed {
                Owed::Injected { .. } | Owed::CopyEnd | Owed::Sync { swallow: true, .. } => {}
                Owed::Sync { .. } | Owed::Query { .. } | Owed::Call => {
                    if !std::mem::take(&mut told) {
                        notice.put(&mut self.output);
                    }
                    self.session.put_ready(&mut self.output);
                }
                _ if !told => {
                    notice.put(&mut self.output);
                    told = true;
                }
                _ => {}
            }
        }
        if open {
            if !told {
                notice.put(&mut self.output);
            }
            self.session.skip_to_sync();
        }
    }

    fn take(&mut self, len: usize) {
        assert!(len <= self.input.len(), "more than has come");
        self.input.drain(..len);
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
