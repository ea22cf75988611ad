//! Two scripted ends: what a client and a server say, and what each of them hears.
//!
//! A test is a transcript. `client:` and `server:` speak; `primary:`, `standby:` and `told:` are what must have been
//! heard since, no more and no less. Messages are written with their type byte: `Q text`, `P name text`, `B name`,
//! `D name`, `E`, `C name`, `H`, `S`, `d data`, `c`, `f`, `X` of clients; `1`, `2`, `3`, `T`, `D`, `n`, `G`, `C tag`,
//! `E code`, `F code` (a FATAL error), `S name value` and `Z status` of servers. `-` is the empty name, ` / ` stands
//! between messages.

use proptest::prelude::*;

use super::front::Violation;
use super::*;
use crate::config::{Hints, Route};
use crate::link::{Again, Refusal, Statements, Value};
use crate::route::Ground;
use crate::sql::catalog::Change;
use crate::sql::{Access, Class, Classifier, Pins};
use crate::wire::frame::{put_header, split_cstr};
use crate::wire::{Notice, SqlState, backend};

const PIPELINE_BUFFER: usize = 256;
const MAX_MESSAGE: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Primary,
    Standby,
}

/// Drives a session and its links as `relay` does.
struct Script {
    session: Session,
    classifier: Classifier,
    statements: Statements,
    links: [Link; 2],
    held: Option<Node>,
    /// No server can be found for new units.
    down: bool,
    draining: bool,
    /// The unit in front waits until the settings are there.
    placed: bool,
    input: Vec<u8>,
    sent: [Vec<u8>; 2],
    told: Vec<u8>,
    wrote: bool,
    refused: bool,
    /// How a standby has refused a unit that ran elsewhere.
    bounced: Option<Refusal>,
    /// The unit in front goes to the primary.
    detour: bool,
    /// What a standby refuses runs elsewhere.
    bouncing: bool,
    missed: bool,
    /// How often plans were made void.
    catalog_changes: usize,
    ended: Option<Next>,
    broken: Option<LinkError>,
    max_prepared: usize,
}

impl Script {
    fn new() -> Script {
        Script::with(Params::default(), 100)
    }

    fn with(params: Params, max_prepared: usize) -> Script {
        Script {
            session: Session::new(Arc::new(params), Lexing::default(), false),
            classifier: Classifier::new(1 << 20),
            statements: Statements::new(1 << 20),
            links: [Link::new(max_prepared), Link::new(max_prepared)],
            held: None,
            down: false,
            draining: false,
            placed: false,
            input: Vec::new(),
            sent: Default::default(),
            told: Vec::new(),
            wrote: false,
            refused: false,
            bounced: None,
            detour: false,
            bouncing: false,
            missed: false,
            catalog_changes: 0,
            ended: None,
            broken: None,
            max_prepared,
        }
    }

    fn client(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.pump();
    }

    fn server(&mut self, bytes: &[u8]) {
        let Some(node) = self.held else {
            panic!("a server speaks that nobody holds: {}", show(bytes, SERVER))
        };
        let mut out = Vec::new();
        let link = &mut self.links[node as usize];
        match self
            .session
            .receive(link, bytes, node == Node::Standby, &mut out)
        {
            Ok(received) => {
                match received.verbatim {
                    Some(range) => self.told.extend_from_slice(&bytes[range]),
                    None => self.told.extend_from_slice(&out),
                }
                self.wrote |= received.wrote;
                self.refused |= received.refused;
                if let Some(again) = received.again {
                    let (units, first) = link.replay.take();
                    if matches!(again, Again::Bounced(_)) {
                        let out = &mut self.sent[node as usize];
                        self.draining |= self.session.leave_refused(link, out);
                    }
                    self.sent_again(again, units, first);
                }
                if let Some(rest) = received.rest {
                    self.input.splice(0..0, rest);
                }
                if let Some((_, unit, unanswered)) = received.learned {
                    let context = context(&self.classifier, &self.statements);
                    self.session.learn_refusal(&unit, unanswered, context);
                }
                self.missed |= received.missed;
                self.catalog_changes += usize::from(received.catalog_changed != Change::None);
            }
            Err(error) => {
                self.told.extend_from_slice(&out);
                self.broken = Some(error);
                let link = &mut self.links[node as usize];
                if link.guarded {
                    let (unit, _) = self.session.take_back(link);
                    self.input.splice(0..0, unit);
                }
                self.lost();
                return;
            }
        }
        self.release();
        self.pump();
    }

    /// The held connection is done with units that run elsewhere.
    fn sent_again(&mut self, again: Again, units: Vec<u8>, first: usize) {
        let Again::Bounced(refusal) = again else {
            panic!("no server of these scripts refuses a plan");
        };
        if refusal.learned {
            let context = context(&self.classifier, &self.statements);
            self.session
                .learn_refusal(&units[..first], usize::MAX, context);
        }
        self.input.splice(0..0, units);
        self.bounced = Some(refusal);
        self.detour = true;
    }

    /// The held server vanishes, and what it was doing runs elsewhere.
    fn vanished(&mut self) {
        let node = self.held.take().expect("a server vanishes that was held");
        let link = &mut self.links[node as usize];
        let refusal = link.replay.lost().expect("the client has seen nothing");
        let (units, first) = self.session.take_back(link);
        self.links[node as usize] = Link::new(self.max_prepared);
        self.draining = false;
        self.sent_again(Again::Bounced(refusal), units, first);
        self.pump();
    }

    /// The held server vanishes. Returns what [`Session::lost`] says.
    fn lost(&mut self) -> bool {
        let Some(node) = self.held.take() else {
            return false;
        };
        let open = self.session.has_open_group();
        let wrote = self.session.lost(&self.links[node as usize]);
        self.links[node as usize] = Link::new(self.max_prepared);
        self.draining = false;
        self.placed = false;
        if open {
            self.session.skip_to_sync();
        }
        wrote
    }

    fn release(&mut self) {
        let Some(node) = self.held else { return };
        let link = &mut self.links[node as usize];
        if !link.settled() {
            return;
        }
        self.draining = false;
        if link.status != Status::Idle || self.session.mid_unit() || link.copy_in {
            return;
        }
        let pinned = self.session.pin().is_some();
        if !self.placed && !link.doubtful && (pinned || !link.dirty) {
            let out = &mut self.sent[node as usize];
            self.session.leave_at_leisure(link, out);
            if link.wiping {
                return;
            }
        }
        if self.placed {
            // Settings are there now: the unit follows.
        } else if self.session.pin().is_some() {
            let out = &mut self.sent[node as usize];
            self.session.ask_for_pins(link, out);
        } else if link.doubtful || (link.spent && !link.dirty) {
            *link = Link::new(self.max_prepared);
            self.held = None;
        } else if link.dirty {
            Session::clean(link, None, None, &mut self.sent[node as usize]);
        } else if !link.stains.is_empty() {
            Session::wipe(link, &mut self.sent[node as usize]);
            self.release();
        } else {
            assert!(link.reusable() || link.fatal, "{link:?}");
            self.held = None;
        }
    }

    fn pump(&mut self) {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while self.ended.is_none() && !self.draining {
            let rest = &input[at..];
            let held = self
                .held
                .map(|node| (&self.links[node as usize], node == Node::Standby));
            let context = Context {
                catalog: &crate::sql::catalog::TABLES,
                classifier: &self.classifier,
                statements: &self.statements,
                pipeline_buffer: PIPELINE_BUFFER,
                max_message: MAX_MESSAGE,
            };
            match self.session.next(rest, held, context, &mut self.told) {
                Next::More => break,
                Next::Later => {}
                Next::Place { len, class } => {
                    if self.place(&rest[..len], class) {
                        at += len;
                    }
                }
                Next::Forward { len, class } => {
                    assert!(len > 0, "nothing moves");
                    self.forward(&rest[..len], class, false);
                    at += len;
                }
                Next::Skip { len } | Next::Reply { len } => {
                    let before = (self.session.owes_refusal(), len);
                    if before.0
                        && let Some(node) = self.held
                    {
                        let out = &mut self.sent[node as usize];
                        self.session.refused(&mut self.links[node as usize], out);
                        self.settle();
                    }
                    assert_ne!(before, (false, 0), "nothing moves");
                    at += len;
                }
                Next::Listening { len, change } => {
                    self.session
                        .listened(&rest[..len], &change, context, &mut self.told);
                    at += len;
                }
                Next::Refuse { len } => {
                    let node = self.held.expect("a standby is held");
                    let (link, out) = (
                        &mut self.links[node as usize],
                        &mut self.sent[node as usize],
                    );
                    self.session.refuse_unit(&rest[..len], link, context, out);
                    at += len;
                }
                Next::Drain => self.draining = true,
                Next::Rehome => {
                    let node = self
                        .held
                        .expect("a group is only rehomed from a connection");
                    let out = &mut self.sent[node as usize];
                    self.session.rehome(&mut self.links[node as usize], out);
                    self.draining = true;
                }
                end => self.ended = Some(end),
            }
        }
        self.input = input[at..].to_vec();
    }

    fn place(&mut self, unit: &[u8], class: Class) -> bool {
        if self.down {
            Notice::error(SqlState::CannotConnectNow, "down").put(&mut self.told);
            if self.session.fail_unit(unit) {
                self.session.put_ready(&mut self.told);
            }
            return true;
        }
        let placed = std::mem::take(&mut self.placed);
        if !placed && (self.session.pin().is_none() || self.held.is_none()) {
            let detour = std::mem::take(&mut self.detour);
            self.held = Some(match (self.session.policy(class).route, class.access) {
                (Route::Standby, _) => Node::Standby,
                (Route::Split, Access::Read) if !detour => Node::Standby,
                _ => Node::Primary,
            });
        }
        self.placed = !self.forward(unit, Some(class), true);
        self.draining = self.placed;
        !self.placed
    }

    fn forward(&mut self, bytes: &[u8], class: Option<Class>, begin: bool) -> bool {
        let node = self.held.expect("bytes are forwarded to a held connection");
        let link = &mut self.links[node as usize];
        let mut out = Vec::new();
        let unit = class.map(|class| (bytes, class));
        if begin && self.session.begin(link, unit, &mut out) {
            self.sent[node as usize].extend_from_slice(&out);
            return false;
        }
        link.on_standby = node == Node::Standby;
        link.bounces = link.on_standby && self.bouncing;
        let context = context(&self.classifier, &self.statements);
        if self.session.forward(bytes, class, link, context, &mut out) {
            out.extend_from_slice(bytes);
        }
        self.sent[node as usize].extend_from_slice(&out);
        self.settle();
        true
    }

    fn settle(&mut self) {
        if let Some(node) = self.held {
            let link = &mut self.links[node as usize];
            if matches!(link.owing.front(), Some(Owed::Local(_))) {
                self.session.settle(link, &mut self.told);
                self.release();
            }
        }
    }

    /// Plays a transcript.
    fn play(&mut self, transcript: &str) -> &mut Script {
        let lines = transcript.lines().map(str::trim).filter(|l| !l.is_empty());
        for line in lines {
            let (who, what) = line.split_once(':').expect("every line says who speaks");
            let what = what.trim();
            if matches!(who, "client" | "server" | "lost" | "vanished" | "down") {
                self.everything_was_expected(line);
            }
            match who {
                "client" => self.client(&write(what, CLIENT)),
                "server" => self.server(&write(what, SERVER)),
                "lost" => {
                    let in_doubt = self.lost();
                    assert_eq!(in_doubt, what == "in doubt", "{line}");
                }
                "vanished" => self.vanished(),
                "bounced" => {
                    let bounced = self.bounced.take().map(|refusal| refusal.bounce.as_str());
                    assert_eq!(bounced, Some(what), "{line}\n{transcript}");
                }
                "down" => self.down = what == "yes",
                "primary" | "standby" => {
                    let sent = std::mem::take(&mut self.sent[usize::from(who == "standby")]);
                    assert_eq!(show(&sent, CLIENT), what, "what {who} heard\n{transcript}");
                }
                "told" => {
                    let told = std::mem::take(&mut self.told);
                    assert_eq!(
                        show(&told, SERVER),
                        what,
                        "what the client heard\n{transcript}"
                    );
                }
                "held" => {
                    let held = match self.held {
                        Some(Node::Primary) => "primary",
                        Some(Node::Standby) => "standby",
                        None => "nothing",
                    };
                    assert_eq!(held, what, "what is held\n{transcript}");
                }
                "wrote" => {
                    let wrote = std::mem::take(&mut self.wrote);
                    assert_eq!(wrote, what == "yes", "{line}\n{transcript}");
                }
                _ => panic!("nobody is called {who}"),
            }
        }
        self.everything_was_expected("the end");
        self
    }

    fn everything_was_expected(&self, before: &str) {
        let heard = [
            show(&self.sent[0], CLIENT),
            show(&self.sent[1], CLIENT),
            show(&self.told, SERVER),
        ];
        assert_eq!(
            heard,
            ["", "", ""],
            "heard by primary, standby, client before {before:?}"
        );
    }
}

const CLIENT: bool = true;
const SERVER: bool = false;

fn play(transcript: &str) {
    Script::new().play(transcript);
}

fn context<'a>(classifier: &'a Classifier, statements: &'a Statements) -> Context<'a> {
    Context {
        catalog: &crate::sql::catalog::TABLES,
        classifier,
        statements,
        pipeline_buffer: PIPELINE_BUFFER,
        max_message: MAX_MESSAGE,
    }
}

/// Messages to bytes.
fn write(text: &str, client: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for message in text.split(" / ").filter(|m| !m.is_empty()) {
        let (tag, rest) = message.split_at(1);
        let rest = rest.trim_start();
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        let name = if first == "-" { "" } else { first };
        let body = match (client, tag) {
            (CLIENT, "Q") => format!("{rest}\0"),
            (CLIENT, "P") => format!("{name}\0{}\0\0\0", if second == "-" { "" } else { second }),
            (CLIENT, "B") => format!("\0{name}\0\0\0\0\0\0\0"),
            (CLIENT, "D" | "C") => format!("S{name}\0"),
            (CLIENT, "E") => "\0\0\0\0\0".to_owned(),
            (CLIENT, "d" | "f") | (SERVER, "d") => rest.to_owned(),
            (SERVER, "C") => format!("{rest}\0"),
            (SERVER, "Z") => rest.to_owned(),
            (SERVER, "E") => format!("SERROR\0VERROR\0C{first}\0Mx{second}\0\0"),
            (SERVER, "F") => format!("SFATAL\0VFATAL\0C{rest}\0Mx\0\0"),
            (SERVER, "S") => format!("{first}\0{second}\0"),
            (SERVER, "T") => "\0\0".to_owned(),
            (SERVER, "D") => format!("\0\x01\0\0\0{}{rest}", char::from(rest.len() as u8)),
            _ => String::new(),
        };
        let tag = if (client, tag) == (SERVER, "F") {
            b'E'
        } else {
            tag.as_bytes()[0]
        };
        put_header(&mut out, tag, body.len());
        out.extend_from_slice(body.as_bytes());
    }
    out
}

/// Bytes to messages; the inverse of [`write`].
fn show(bytes: &[u8], client: bool) -> String {
    let (mut rest, mut shown) = (bytes, Vec::new());
    while let Ok(Some(header)) = frame::header(rest, usize::MAX) {
        let end = header.total().min(rest.len());
        let body = &rest[frame::HEADER..end];
        rest = &rest[end..];
        let tag = char::from(header.tag);
        let name = |bytes| match split_cstr(bytes) {
            Some((b"", _)) => "-".to_owned(),
            Some((name, _)) => String::from_utf8_lossy(name).into_owned(),
            None => "?".to_owned(),
        };
        let text = |bytes| {
            String::from_utf8_lossy(bytes)
                .trim_end_matches('\0')
                // Transcripts have lines of their own.
                .replace('\n', "⏎")
        };
        shown.push(match (client, tag) {
            (CLIENT, 'Q') | (SERVER, 'C' | 'Z') | (_, 'd') => format!("{tag} {}", text(body)),
            (CLIENT, 'f') if !body.is_empty() => format!("{tag} {}", text(body)),
            (CLIENT, 'P') => {
                let (_, after) = split_cstr(body).expect("a Parse has a name");
                format!("P {} {}", name(body), name(after))
            }
            (CLIENT, 'B') => {
                let (_, after) = split_cstr(body).expect("a Bind has a portal");
                format!("B {}", name(after))
            }
            (CLIENT, 'D' | 'C') => format!("{tag} {}", name(&body[1..])),
            (SERVER, 'E') => {
                let code = backend::error_field(body, b'C').unwrap_or_default();
                let tag = if backend::is_fatal(body) { 'F' } else { 'E' };
                format!("{tag} {}", text(code))
            }
            (SERVER, 'S') => {
                let (name, value) = backend::parameter(body).expect("it is whole");
                format!("S {} {}", text(name), text(value))
            }
            (SERVER, 'D') => format!("D {}", text(&body[6..])),
            _ => tag.to_string(),
        });
    }
    assert!(rest.is_empty(), "a part of a message: {rest:?}");
    shown.join(" / ")
}

// ── simple queries ───────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_read_goes_to_a_standby_and_a_write_to_the_primary() {
    play(
        "client: Q select 1
         standby: Q select 1
         held: standby
         server: T / D 1 / C SELECT 1 / Z I
         told: T / D 1 / C SELECT 1 / Z I
         held: nothing
         wrote: no
         client: Q insert into t values (1)
         primary: Q insert into t values (1)
         server: C INSERT 0 1 / Z I
         told: C INSERT 0 1 / Z I
         held: nothing
         wrote: yes",
    );
}

#[test]
fn a_transaction_keeps_its_connection() {
    play(
        "client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         held: primary
         client: Q select 1
         primary: Q select 1
         server: T / C SELECT 0 / Z T
         told: T / C SELECT 0 / Z T
         client: Q insert into t values (1)
         primary: Q insert into t values (1)
         server: C INSERT 0 1 / Z T
         told: C INSERT 0 1 / Z T
         wrote: no
         client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         wrote: yes
         held: nothing",
    );
}

#[test]
fn several_statements_in_one_query_go_together() {
    play(
        "client: Q select 1; select 2
         standby: Q select 1; select 2
         server: T / C SELECT 1 / T / C SELECT 1 / Z I
         told: T / C SELECT 1 / T / C SELECT 1 / Z I
         client: Q select 1; insert into t values (1)
         primary: Q select 1; insert into t values (1)
         server: T / C SELECT 1 / E 23505 / Z I
         told: T / C SELECT 1 / E 23505 / Z I
         wrote: yes
         held: nothing",
    );
}

#[test]
fn queries_in_a_pipeline_keep_their_order() {
    play(
        "client: Q select 1 / Q select 2
         standby: Q select 1 / Q select 2
         server: T / C SELECT 1 / Z I / T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I / T / C SELECT 1 / Z I
         held: nothing",
    );
    // The write has to wait until the standby has answered.
    play(
        "client: Q select 1 / Q delete from t
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         primary: Q delete from t
         server: C DELETE 1 / Z I
         told: C DELETE 1 / Z I",
    );
}

#[test]
fn a_session_ends() {
    for (text, expected) in [
        (&b"X\0\0\0\x04"[..], Next::Terminate),
        (b"y\0\0\0\x04", Next::Violation(Violation::Type(b'y'))),
        (
            b"Q\0\0\0\x03",
            Next::Violation(Violation::Frame(frame::FrameError::Short {
                tag: b'Q',
                length: 3,
            })),
        ),
        (
            b"Q\x7f\0\0\0",
            Next::Violation(Violation::Frame(frame::FrameError::Long {
                tag: b'Q',
                body: 0x7eff_fffc,
                max: MAX_MESSAGE,
            })),
        ),
    ] {
        let mut script = Script::new();
        script.client(text);
        assert_eq!(script.ended, Some(expected.clone()), "{text:?}");
        let mut grouped = Script::new();
        grouped.client(&write("P - select 1 / H", CLIENT));
        grouped.client(text);
        assert_eq!(grouped.ended, Some(expected), "in a group: {text:?}");
    }
}

// ── the extended protocol ────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_unnamed_statement_passes_untouched() {
    play(
        "client: P - select 1 / B - / D - / E / S
         standby: P - select 1 / B - / D - / E / S
         server: 1 / 2 / T / D 1 / C SELECT 1 / Z I
         told: 1 / 2 / T / D 1 / C SELECT 1 / Z I
         held: nothing
         client: P - delete from t / B - / E / S
         primary: P - delete from t / B - / E / S
         server: 1 / 2 / C DELETE 3 / Z I
         told: 1 / 2 / C DELETE 3 / Z I
         wrote: yes",
    );
}

#[test]
fn the_unnamed_statement_follows_its_session() {
    // Another client has used the standby meanwhile, with a statement of its own.
    let mut script = Script::new();
    script.play(
        "client: P - select 1 / D - / S
         standby: P - select 1 / D - / S
         server: 1 / t / T / Z I
         told: 1 / t / T / Z I",
    );
    let other = script.statements.intern(b"select 9\0\0\0", || OTHER);
    script.links[1].unnamed = Some(other.id);
    script.play(
        "client: B - / E / S
         standby: P - select 1 / B - / E / S
         server: 1 / 2 / D 1 / C SELECT 1 / Z I
         told: 2 / D 1 / C SELECT 1 / Z I
         client: B - / E / S
         standby: B - / E / S
         server: 2 / C SELECT 1 / Z I
         told: 2 / C SELECT 1 / Z I",
    );
    // A simple Query destroys it, as PostgreSQL does.
    script.play(
        "client: Q select 2
         standby: Q select 2
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: B - / E / S
         primary: B - / E / S
         server: E 26000 / Z I
         told: E 26000 / Z I",
    );
}

#[test]
fn the_unnamed_statement_of_another_client_is_not_run() {
    let mut script = Script::new();
    let other = script.statements.intern(b"delete from t\0\0\0", || OTHER);
    script.links[0].unnamed = Some(other.id);
    script.play(
        "client: B - / E / S
         primary: C - / B - / E / S
         server: 3 / E 26000 / Z I
         told: E 26000 / Z I
         held: nothing",
    );
}

#[test]
fn a_named_statement_has_one_name_on_every_server() {
    play(
        "client: P s1 select 1 / B s1 / D s1 / E / S
         standby: P pgw_1 select 1 / B pgw_1 / D pgw_1 / E / S
         server: 1 / 2 / T / D 1 / C SELECT 1 / Z I
         told: 1 / 2 / T / D 1 / C SELECT 1 / Z I
         client: B s1 / E / S
         standby: B pgw_1 / E / S
         server: 2 / D 1 / C SELECT 1 / Z I
         told: 2 / D 1 / C SELECT 1 / Z I
         client: C s1 / S
         told: 3 / Z I",
    );
}

#[test]
fn a_named_statement_is_prepared_where_it_is_needed() {
    play(
        "client: P s1 select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: D s1 / B s1 / E / S
         primary: P pgw_1 select 1 / D pgw_1 / B pgw_1 / E / S
         server: 1 / t / T / 2 / C SELECT 1 / Z T
         told: t / T / 2 / C SELECT 1 / Z T
         client: B s1 / E / S
         primary: B pgw_1 / E / S
         server: 2 / C SELECT 1 / Z T
         told: 2 / C SELECT 1 / Z T",
    );
}

#[test]
fn a_statement_that_the_server_has_is_not_prepared_again() {
    // Two names for the same text, as two clients have.
    play(
        "client: P s1 select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: P s2 select 1 / D s2 / S
         standby: D pgw_1 / S
         told: 1
         server: t / T / Z I
         told: t / T / Z I
         held: nothing",
    );
    // In the middle of other replies it waits for its turn.
    play(
        "client: P s1 select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: P - select 2 / P s2 select 1 / B s2 / C s1 / E / S
         standby: P - select 2 / B pgw_1 / E / S
         server: 1 / 2 / C SELECT 1 / Z I
         told: 1 / 1 / 2 / 3 / C SELECT 1 / Z I",
    );
}

#[test]
fn the_oldest_statement_makes_room() {
    let mut script = Script::with(Params::default(), 2);
    script.play(
        "client: P a select 1 / P b select 2 / S
         standby: P pgw_1 select 1 / P pgw_2 select 2 / S
         server: 1 / 1 / Z I
         told: 1 / 1 / Z I
         client: P c select 3 / B a / E / S
         standby: C pgw_1 / P pgw_3 select 3 / C pgw_2 / P pgw_1 select 1 / B pgw_1 / E / S
         server: 3 / 1 / 3 / 1 / 2 / C SELECT 1 / Z I
         told: 1 / 2 / C SELECT 1 / Z I
         held: nothing",
    );
    assert_eq!(script.links[1].held.len(), 2);
}

#[test]
fn postgresql_words_what_is_wrong_with_a_name() {
    play(
        "client: P s1 select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: P s1 select 2 / S
         standby: P s1 - / P s1 select 2 / S
         server: 1 / E 42P05 / Z I
         told: E 42P05 / Z I
         held: nothing
         client: B nobody / E / S
         primary: B nobody / E / S
         server: E 26000 / Z I
         told: E 26000 / Z I
         client: B s1 / E / S
         standby: C s1 / S / B pgw_1 / E / S
         server: 3 / Z I / 2 / C SELECT 1 / Z I
         told: 2 / C SELECT 1 / Z I",
    );
}

/// What comes before a name that is taken comes first: a transaction that has failed, a mistake in the text.
#[test]
fn a_name_that_is_taken_is_refused_by_the_server() {
    play(
        "client: P s1 select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: P s1 select 2 / S
         primary: P s1 - / P s1 select 2 / S
         server: 1 / E 42P05 / Z E
         told: E 42P05 / Z E
         client: P s1 select 2 / S
         primary: C s1 / P s1 - / P s1 select 2 / S
         server: 3 / 1 / E 25P02 / Z E
         told: E 25P02 / Z E
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         held: nothing",
    );
}

/// Whether the transaction has failed by then is the server's to say.
#[test]
fn a_statement_that_the_server_has_is_prepared_again_where_the_transaction_may_have_failed() {
    play(
        "client: P a select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: P b select 1 / S
         primary: P pgw_1 select 1 / S
         server: 1 / Z T
         told: 1 / Z T
         client: P c select 1 / S
         told: 1
         primary: S
         server: Z T
         told: Z T
         client: Q select bad / P d select 1 / S
         primary: Q select bad / C pgw_1 / P pgw_1 select 1 / S
         server: E 42703 / Z E / 3 / E 25P02 / Z E
         told: E 42703 / Z E / E 25P02 / Z E
         client: B d / S
         primary: B d / S
         server: E 26000 / Z E
         told: E 26000 / Z E",
    );
}

/// A Close that makes room is skipped with its group: then the server has what the proxy took for closed, and the session
/// cannot leave the connection.
#[test]
fn what_the_server_has_is_forgotten_where_it_is_not_known() {
    let mut script = Script::with(Params::default(), 2);
    script.play(
        "client: P a select 1 / P b select 2 / S
         standby: P pgw_1 select 1 / P pgw_2 select 2 / S
         server: 1 / 1 / Z I
         told: 1 / 1 / Z I
         client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: B a / B b / S
         primary: P pgw_1 select 1 / B pgw_1 / P pgw_2 select 2 / B pgw_2 / S
         server: 1 / 2 / 1 / 2 / Z T
         told: 2 / 2 / Z T
         client: Q savepoint x
         primary: Q savepoint x
         server: C SAVEPOINT / Z T
         told: C SAVEPOINT / Z T
         client: B nobody / P c select 3 / S
         primary: B nobody / C pgw_1 / P pgw_3 select 3 / S
         server: E 26000 / Z E
         told: E 26000 / Z E
         client: Q rollback to x
         primary: Q rollback to x
         server: C ROLLBACK / Z T
         told: C ROLLBACK / Z T
         client: B a / S
         primary: C pgw_again / P pgw_again DEALLOCATE ALL / B pgw_again / E / C pgw_again / C pgw_again / S / P pgw_1 select 1 / B pgw_1 / S
         server: 3 / 1 / 2 / C DEALLOCATE ALL / 3 / 3 / Z T / 1 / 2 / Z T
         told: 2 / Z T",
    );
    assert!(script.links[0].spent, "nobody else has the connection");
    script.play(
        "client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         held: nothing",
    );
}

#[test]
fn an_error_skips_to_the_sync() {
    play(
        "client: P a select 1 / P b bad / P c select 3 / B c / E / S / P d select 4 / S
         primary: P pgw_1 select 1 / P pgw_2 bad / P pgw_3 select 3 / B pgw_3 / E / S / P pgw_4 select 4 / S
         server: 1 / E 42601 / Z I / 1 / Z I
         told: 1 / E 42601 / Z I / 1 / Z I
         held: nothing
         client: P b select 2 / P c select 5 / B a / B d / S
         standby: P pgw_5 select 2 / P pgw_6 select 5 / P pgw_1 select 1 / B pgw_1 / P pgw_4 select 4 / B pgw_4 / S
         server: 1 / 1 / 1 / 2 / 1 / 2 / Z I
         told: 1 / 1 / 2 / 2 / Z I",
    );
}

#[test]
fn a_name_that_is_on_its_way_is_not_used_by_the_next_group() {
    // The group that gives it may fail before.
    play(
        "client: B nobody / P s1 select 1 / S / B s1 / E / S
         standby: B nobody / P pgw_1 select 1 / S
         server: E 26000 / Z I
         told: E 26000 / Z I
         primary: B s1 / E / S
         server: E 26000 / Z I
         told: E 26000 / Z I
         held: nothing",
    );
}

#[test]
fn a_statement_that_is_on_its_way_is_not_used_by_the_next_group() {
    play(
        "client: P s1 select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: Q update t
         primary: Q update t
         server: C UPDATE 1 / Z I
         told: C UPDATE 1 / Z I
         client: P - update t / B nobody / B s1 / S / B s1 / P - update t / S
         primary: P - update t / B nobody / P pgw_1 select 1 / B pgw_1 / S
         server: 1 / E 26000 / Z I
         told: 1 / E 26000 / Z I
         primary: P pgw_1 select 1 / B pgw_1 / P - update t / S
         server: 1 / 2 / 1 / Z I
         told: 2 / 1 / Z I
         held: nothing",
    );
}

#[test]
fn a_setting_whose_execute_comes_late_is_followed() {
    // Between its Bind and its Execute the group before it ends.
    play(
        "client: P - select 1 / B - / E / S / P - set work_mem = '1MB' / B - / H
         standby: P - select 1 / B - / E / S / P - set work_mem = '1MB' / B - / H
         server: 1 / 2 / C SELECT 1 / Z I / 1 / 2
         told: 1 / 2 / C SELECT 1 / Z I / 1 / 2
         client: E / S
         standby: E / S
         server: C SET / Z I
         told: C SET / Z I
         held: nothing
         client: Q select 2
         standby: Q select 2
         server: C SELECT 1 / Z I
         told: C SELECT 1 / Z I
         client: Q update t
         primary: Q SET work_mem TO '1MB' / Q update t
         server: C SET / Z I / C UPDATE 1 / Z I
         told: C UPDATE 1 / Z I",
    );
}

#[test]
fn an_unnamed_parse_that_is_skipped_takes_no_name_away() {
    play(
        "client: P s1 select 1 / B nobody / P - select 1 / S
         standby: P pgw_1 select 1 / B nobody / P - select 1 / S
         server: 1 / E 26000 / Z I
         told: 1 / E 26000 / Z I
         client: B s1 / E / S
         standby: B pgw_1 / E / S
         server: 2 / C SELECT 1 / Z I
         told: 2 / C SELECT 1 / Z I
         held: nothing",
    );
}

#[test]
fn what_is_skipped_leaves_nothing_behind() {
    let mut script = Script::new();
    script.play(
        "client: P a select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: B a / B - / H
         standby: B pgw_1 / B - / H
         server: 2 / E 26000
         told: 2 / E 26000
         client: P b select 1 / P - select 2 / C a / Q set x = 1 / B b / S
         standby: P b select 1 / P - select 2 / C a / Q set x = 1 / B b / S
         server: Z I
         told: Z I
         held: nothing
         client: P b select 3 / B a / S
         standby: P pgw_2 select 3 / B pgw_1 / S
         server: 1 / 2 / Z I
         told: 1 / 2 / Z I",
    );
    assert_eq!(script.session.params, Arc::default());
    assert_eq!(script.session.unnamed.as_ref().map(|s| s.id), None);
}

#[test]
fn an_eviction_that_is_skipped_makes_the_connection_doubtful() {
    let mut script = Script::with(Params::default(), 1);
    script.play(
        "client: P a select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: B nobody / P b select 2 / S
         standby: B nobody / C pgw_1 / P pgw_2 select 2 / S
         server: E 26000
         told: E 26000",
    );
    assert!(script.links[1].doubtful);
}

#[test]
fn a_flush_asks_for_replies_in_the_middle_of_a_group() {
    play(
        "client: P - select 1 / D - / H
         standby: P - select 1 / D - / H
         server: 1 / t / T
         told: 1 / t / T
         held: standby
         client: B - / E / S
         standby: B - / E / S
         server: 2 / D 1 / C SELECT 1 / Z I
         told: 2 / D 1 / C SELECT 1 / Z I
         held: nothing",
    );
}

#[test]
fn a_group_that_has_executed_nothing_moves_for_a_write() {
    play(
        "client: P a select 1 / D a / H
         standby: P pgw_1 select 1 / D pgw_1 / H
         server: 1 / t / T
         told: 1 / t / T
         client: P b delete from t / B b / E / B a / S
         standby: S
         server: Z I
         primary: P pgw_2 delete from t / B pgw_2 / E / P pgw_1 select 1 / B pgw_1 / S
         server: 1 / 2 / C DELETE 1 / 1 / 2 / Z I
         told: 1 / 2 / C DELETE 1 / 2 / Z I
         wrote: yes
         held: nothing",
    );
}

#[test]
fn a_group_that_has_failed_does_not_move() {
    play(
        "client: P a select 1 / D a / H
         standby: P pgw_1 select 1 / D pgw_1 / H
         client: P b delete from t / B b / E / S
         server: E 42P01
         told: E 42P01
         standby: P b delete from t / B b / E / S
         server: Z I
         told: Z I
         wrote: no
         held: nothing",
    );
}

#[test]
fn a_group_that_has_read_from_a_standby_cannot_write() {
    play(
        "client: P - select 1 / B - / E / H
         standby: P - select 1 / B - / E / H
         server: 1 / 2 / C SELECT 1
         told: 1 / 2 / C SELECT 1
         client: P - delete from t / B - / E
         told: E 0A000
         client: Q delete from t / S
         standby: S
         server: Z I
         told: Z I
         wrote: no
         held: nothing
         client: Q select 1
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I",
    );
    // The refusal waits for the replies before it.
    play(
        "client: P - select 1 / B - / E / H / P - delete from t / S
         standby: P - select 1 / B - / E / H / S
         server: 1 / 2 / C SELECT 1 / Z I
         told: 1 / 2 / C SELECT 1 / E 0A000 / Z I",
    );
}

#[test]
fn groups_in_a_pipeline() {
    play(
        "client: P - select 1 / B - / E / S / P - select 2 / B - / E / S / P - delete from t / B - / E / S
         standby: P - select 1 / B - / E / S / P - select 2 / B - / E / S
         server: 1 / 2 / C SELECT 1 / Z I
         told: 1 / 2 / C SELECT 1 / Z I
         server: 1 / 2 / E 22012 / Z I
         told: 1 / 2 / E 22012 / Z I
         primary: P - delete from t / B - / E / S
         server: 1 / 2 / C DELETE 0 / Z I
         told: 1 / 2 / C DELETE 0 / Z I
         held: nothing",
    );
}

#[test]
fn a_query_ends_a_group() {
    let mut script = Script::new();
    script.play(
        "client: P a delete from t / B a / Q set work_mem = '4MB'
         primary: P pgw_1 delete from t / B pgw_1 / Q set work_mem = '4MB'
         server: 1 / 2 / C SET / Z I
         told: 1 / 2 / C SET / Z I
         wrote: yes
         held: nothing",
    );
    assert_eq!(tracked(&script, "work_mem"), Some("'4MB'"));
}

#[test]
fn some_groups_need_no_server() {
    play(
        "client: S
         told: Z I
         client: P b begin / S
         primary: P pgw_1 begin / S
         server: 1 / Z I
         told: 1 / Z I
         client: C b / S
         told: 3 / Z I
         client: P b begin / S
         told: 1 / Z I
         client: B b / E / S
         primary: B pgw_1 / E / S
         server: 2 / C BEGIN / Z T
         told: 2 / C BEGIN / Z T
         held: primary",
    );
}

#[test]
fn transaction_control_by_the_extended_protocol() {
    play(
        "client: P - begin / B - / E / S
         primary: P - begin / B - / E / S
         server: 1 / 2 / C BEGIN / Z T
         told: 1 / 2 / C BEGIN / Z T
         client: P - select 1 / B - / E / S
         primary: P - select 1 / B - / E / S
         server: 1 / 2 / E 22012 / Z E
         told: 1 / 2 / E 22012 / Z E
         held: primary
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         held: nothing",
    );
}

#[test]
fn an_error_at_commit_follows_the_last_reply() {
    play(
        "client: P - insert into t values (1) / B - / E / S
         primary: P - insert into t values (1) / B - / E / S
         server: 1 / 2 / C INSERT 0 1 / E 23503 / Z I
         told: 1 / 2 / C INSERT 0 1 / E 23503 / Z I
         held: nothing",
    );
}

#[test]
fn a_portal_in_pieces() {
    play(
        "client: P - select 1 / B - / E / H
         standby: P - select 1 / B - / E / H
         server: 1 / 2 / D 1 / s
         told: 1 / 2 / D 1 / s
         client: E / S
         standby: E / S
         server: D 2 / C SELECT 1 / Z I
         told: D 2 / C SELECT 1 / Z I
         held: nothing
         client: P - - / B - / E / S
         primary: P - - / B - / E / S
         server: 1 / 2 / I / Z I
         told: 1 / 2 / I / Z I",
    );
}

// ── COPY ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn copy_in_by_a_simple_query() {
    play(
        "client: Q copy t from stdin
         primary: Q copy t from stdin
         server: G
         told: G
         client: d 1 / d 2 / S / H / c
         primary: d 1 / d 2 / c
         server: C COPY 2 / Z I
         told: C COPY 2 / Z I
         wrote: yes
         held: nothing",
    );
    // All at once, without waiting for the server.
    play(
        "client: Q copy t from stdin / d 1 / c / Q select 1
         primary: Q copy t from stdin / d 1 / c / Q select 1
         server: G / C COPY 1 / Z I / T / C SELECT 1 / Z I
         told: G / C COPY 1 / Z I / T / C SELECT 1 / Z I
         held: nothing",
    );
}

#[test]
fn copy_in_by_a_group() {
    // The Sync before the data is ignored by the server, the one after it counts.
    play(
        "client: P - copy t from stdin / B - / D - / E / S
         primary: P - copy t from stdin / B - / D - / E / S
         server: 1 / 2 / n / G
         told: 1 / 2 / n / G
         held: primary
         client: d 1 / c / S
         primary: d 1 / c / S
         server: C COPY 1 / Z I
         told: C COPY 1 / Z I
         wrote: yes
         held: nothing",
    );
    play(
        "client: P - copy t from stdin / B - / E / H
         primary: P - copy t from stdin / B - / E / H
         server: 1 / 2 / G
         told: 1 / 2 / G
         client: d 1 / c / S
         primary: d 1 / c / S
         server: C COPY 1 / Z I
         told: C COPY 1 / Z I
         wrote: yes
         held: nothing",
    );
}

#[test]
fn copy_in_that_fails() {
    // The client gives up.
    play(
        "client: Q copy t from stdin
         primary: Q copy t from stdin
         server: G
         told: G
         client: d 1 / f why
         primary: d 1 / f why
         server: E 57014 / Z I
         told: E 57014 / Z I
         held: nothing",
    );
    // The server gives up, and the client has not heard of it: what it still sends is ignored.
    play(
        "client: Q copy t from stdin
         primary: Q copy t from stdin
         server: G
         told: G
         client: d x
         primary: d x
         server: E 22P02 / Z I
         told: E 22P02 / Z I
         held: nothing
         client: d y / d z / c
         held: nothing
         client: Q select 1
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I",
    );
    // In a group the server skips to the Sync, with or without a CopyDone before it.
    for rest in ["S", "c / S", "d y / f why / S"] {
        play(&format!(
            "client: P - copy t from stdin / B - / E / H
             primary: P - copy t from stdin / B - / E / H
             server: 1 / 2 / G
             told: 1 / 2 / G
             client: d x
             primary: d x
             server: E 22P02
             told: E 22P02
             client: {rest}
             primary: {rest}
             server: Z I
             told: Z I
             held: nothing"
        ));
    }
}

#[test]
fn copied_data_after_a_failure_in_a_transaction_does_no_harm() {
    play(
        "client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: d late / c
         primary: d late / c
         client: P - copy t from stdin / B - / E / S
         primary: P - copy t from stdin / B - / E / S
         server: 1 / 2 / G
         told: 1 / 2 / G
         client: d 1 / c / S
         primary: d 1 / c / S
         server: C COPY 1 / Z T
         told: C COPY 1 / Z T
         client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         wrote: yes
         held: nothing",
    );
}

#[test]
fn copy_out_passes() {
    play(
        "client: Q copy t to stdout
         standby: Q copy t to stdout
         server: H / d 1 / d 2 / c / C COPY 2 / Z I
         told: H / d 1 / d 2 / c / C COPY 2 / Z I
         held: nothing",
    );
}

/// A class for statements of clients that the script does not play.
const OTHER: Class = Class::plain(Access::Write, crate::sql::Reason::DataModifying);

/// The value that the session has for a setting, as it was typed.
fn tracked<'a>(script: &'a Script, name: &str) -> Option<&'a str> {
    match script.session.params.get(name)? {
        Value::Plain(text) => Some(text),
        Value::Sql(sql) => std::str::from_utf8(sql).ok(),
    }
}

// ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn settings_follow_the_session() {
    let mut script = Script::new();
    script.play(
        "client: Q set work_mem = '4MB'
         primary: Q set work_mem = '4MB'
         server: C SET / Z I
         told: C SET / Z I
         held: nothing
         client: Q select 1
         standby: Q SET work_mem TO '4MB' / Q select 1
         server: C SET / Z I / T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         held: nothing
         client: Q select 1
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: Q reset work_mem
         primary: Q reset work_mem
         server: C RESET / Z I
         told: C RESET / Z I
         client: P - select 1 / B - / E / S
         standby: Q RESET work_mem / P - select 1 / B - / E / S
         server: C RESET / Z I / 1 / 2 / C SELECT 1 / Z I
         told: 1 / 2 / C SELECT 1 / Z I",
    );
}

#[test]
fn settings_of_the_startup_packet_are_what_reset_goes_back_to() {
    let mut params = Params::default();
    params.set("work_mem", Value::Plain("8MB".into()));
    let mut script = Script::with(params, 100);
    script.play(
        "client: Q set work_mem = '4MB'
         primary: Q SELECT pg_catalog.set_config('work_mem', '8MB', false) / Q set work_mem = '4MB'
         server: T / D x / C SELECT 1 / Z I / C SET / Z I
         told: C SET / Z I",
    );
    assert_eq!(tracked(&script, "work_mem"), Some("'4MB'"));
    // The first finds the connection at the client's value; it leaves the connection at the connection's own default, so
    // the next statement brings the startup packet's value.
    let brought = "Q SELECT pg_catalog.set_config('work_mem', '8MB', false) / ";
    for (before, answer, reset) in [
        ("", "", "reset work_mem"),
        (
            brought,
            "T / D x / C SELECT 1 / Z I / ",
            "set work_mem to default",
        ),
        (brought, "T / D x / C SELECT 1 / Z I / ", "reset all"),
    ] {
        script.play(&format!(
            "client: Q {reset}
             primary: {before}Q {reset}
             server: {answer}C RESET / Z I
             told: C RESET / Z I"
        ));
        assert_eq!(tracked(&script, "work_mem"), Some("8MB"), "{reset}");
    }
}

/// What a session has for `x` after some statements, each with the reply of the server.
fn check_setting(statements: &[(&str, &str)], expected: Option<&str>) {
    let mut script = Script::new();
    for (statement, reply) in statements {
        script.client(&write(&format!("Q {statement}"), CLIENT));
        script.server(&write(reply, SERVER));
    }
    assert_eq!(tracked(&script, "x"), expected, "{statements:?}");
    assert_eq!(script.held, None, "{statements:?}");
}

#[test]
fn settings_live_and_die_with_their_transaction() {
    let begin = ("begin", "C BEGIN / Z T");
    let set = ("set x = 1", "C SET / Z T");
    check_setting(&[("set x = 1", "C SET / Z I")], Some("1"));
    check_setting(&[("set x = 1", "E 22023 / Z I")], None);
    check_setting(&[begin, set, ("commit", "C COMMIT / Z I")], Some("1"));
    check_setting(&[begin, set, ("rollback", "C ROLLBACK / Z I")], None);
    // COMMIT of a failed transaction says ROLLBACK.
    check_setting(
        &[
            begin,
            set,
            ("select 1/0", "E 22012 / Z E"),
            ("commit", "C ROLLBACK / Z I"),
        ],
        None,
    );
    check_setting(
        &[
            begin,
            ("set local x = 1", "C SET / Z T"),
            ("commit", "C COMMIT / Z I"),
        ],
        None,
    );
    check_setting(
        &[
            begin,
            set,
            ("set x = 2", "C SET / Z T"),
            ("reset x", "C RESET / Z T"),
            ("set x = 3", "C SET / Z T"),
            ("end", "C COMMIT / Z I"),
        ],
        Some("3"),
    );
    check_setting(
        &[
            ("set x = 1", "C SET / Z I"),
            begin,
            ("set x = 2", "C SET / Z T"),
            ("abort", "C ROLLBACK / Z I"),
        ],
        Some("1"),
    );
}

#[test]
fn settings_by_the_extended_protocol() {
    let mut script = Script::new();
    script.play(
        "client: P - set x = 1 / B - / E / S / P - set y = 2 / B - / E / S / P - set z = 3 / B - / E / S
         primary: P - set x = 1 / B - / E / S / P - set y = 2 / B - / E / S / P - set z = 3 / B - / E / S
         server: 1 / 2 / C SET / Z I / 1 / 2 / E 42704 / Z I / 1 / 2 / C SET / Z I
         told: 1 / 2 / C SET / Z I / 1 / 2 / E 42704 / Z I / 1 / 2 / C SET / Z I
         held: nothing",
    );
    let settings = ["x", "y", "z"].map(|name| tracked(&script, name));
    assert_eq!(settings, [Some("1"), None, Some("3")]);
}

#[test]
fn a_connection_that_cannot_be_tracked_is_cleaned() {
    play(
        "client: Q select set_config('x', '1', true)
         primary: Q select set_config('x', '1', true)
         server: T / D 1 / C SELECT 1 / Z I
         told: T / D 1 / C SELECT 1 / Z I
         primary: Q DISCARD ALL
         held: primary
         server: S x 0 / C DISCARD ALL / Z I
         held: nothing",
    );
}

#[test]
fn discard_all_takes_everything() {
    let mut script = Script::new();
    script.play(
        "client: P s1 select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: Q set x = 1
         primary: Q set x = 1
         server: C SET / Z I
         told: C SET / Z I
         client: Q listen c
         primary: Q listen c
         server: C LISTEN / Z I
         told: C LISTEN / Z I
         primary: Q SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels())
         server: T / D t / C SELECT 1 / Z I
         held: primary
         client: Q discard all
         primary: Q discard all
         server: C DISCARD ALL / Z I
         told: C DISCARD ALL / Z I
         held: nothing
         client: B s1 / E / S
         primary: B s1 / E / S
         server: E 26000 / Z I
         told: E 26000 / Z I",
    );
    assert_eq!(script.session.pin(), None);
    assert_eq!(tracked(&script, "x"), None);
    assert!(script.links[0].held.is_empty());
}

#[test]
fn deallocate() {
    let prepared = "client: P s1 select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I";
    let unknown = "client: B s1 / S
         primary: B s1 / S
         server: E 26000 / Z I
         told: E 26000 / Z I";
    for script in [
        "client: Q deallocate all
         primary: Q deallocate all
         server: C DEALLOCATE ALL / Z I
         told: C DEALLOCATE ALL / Z I",
        "client: Q deallocate s1
         primary: P pgw_deallocated - / S / Q DEALLOCATE pgw_deallocated
         server: 1 / Z I / C DEALLOCATE / Z I
         told: C DEALLOCATE / Z I",
        "client: P - deallocate s1 / B - / E / S
         primary: P - deallocate s1 / C pgw_deallocated_0851b8c9 / P pgw_deallocated_0851b8c9 - / C pgw_deallocating / P pgw_deallocating DEALLOCATE pgw_deallocated_0851b8c9 / B pgw_deallocating / E / S
         server: 1 / 3 / 1 / 3 / 1 / 2 / C DEALLOCATE / Z I
         told: 1 / 2 / C DEALLOCATE / Z I",
    ] {
        play(&format!("{prepared}\n{script}\n{unknown}"));
    }
    // Bound again before it is executed.
    let dance = "C pgw_deallocated_0851b8c9 / P pgw_deallocated_0851b8c9 - / C pgw_deallocating / P pgw_deallocating DEALLOCATE pgw_deallocated_0851b8c9 / B pgw_deallocating";
    play(&format!(
        "{prepared}
         client: P s4 deallocate s1 / S
         primary: P pgw_2 deallocate s1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: B s4 / B s4 / E / S
         primary: {dance} / {dance} / E / S
         server: 3 / 1 / 3 / 1 / 2 / 3 / 1 / 3 / 1 / 2 / C DEALLOCATE / Z I
         told: 2 / 2 / C DEALLOCATE / Z I
         {unknown}"
    ));
    // Gone by then.
    play(&format!(
        "{prepared}
         client: P s4 deallocate s1 / S
         primary: P pgw_2 deallocate s1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: B s4 / C s1 / E / D s4 / S
         primary: {dance} / P - pgweir has refused a statement of this transaction / D pgw_2 / S
         server: 3 / 1 / 3 / 1 / 2 / E 42601 / Z I
         told: 2 / 3 / E 26000 / Z I"
    ));
    // Bound, and not executed: nothing has happened.
    play(&format!(
        "{prepared}
         client: P s1x deallocate s1x / B s1x / B s1x / S
         primary: P pgw_2 deallocate s1x / C pgw_deallocated_c9a5bea3 / P pgw_deallocated_c9a5bea3 - / C pgw_deallocating / P pgw_deallocating DEALLOCATE pgw_deallocated_c9a5bea3 / B pgw_deallocating / C pgw_deallocated_c9a5bea3 / P pgw_deallocated_c9a5bea3 - / C pgw_deallocating / P pgw_deallocating DEALLOCATE pgw_deallocated_c9a5bea3 / B pgw_deallocating / S
         server: 1 / 3 / 1 / 3 / 1 / 2 / 3 / 1 / 3 / 1 / 2 / Z I
         told: 1 / 2 / 2 / Z I
         held: nothing
         client: B s1 / E / S
         standby: B pgw_1 / E / S"
    ));
    play(
        "client: Q deallocate nobody
         primary: Q deallocate nobody
         server: E 26000 / Z I
         told: E 26000 / Z I
         held: nothing",
    );
    // PostgreSQL refuses it in a failed transaction, once.
    play(&format!(
        "{prepared}
         client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q bad
         primary: Q bad
         server: E 42601 / Z E
         told: E 42601 / Z E
         client: Q deallocate s1
         primary: Q deallocate s1
         server: E 25P02 / Z E
         told: E 25P02 / Z E"
    ));
}

#[test]
fn parameter_status() {
    let mut script = Script::new();
    script.play(
        "client: Q set standard_conforming_strings = off
         primary: Q set standard_conforming_strings = off
         server: C SET / S standard_conforming_strings off / Z I
         told: C SET / S standard_conforming_strings off / Z I
         client: Q select 1
         standby: Q SET standard_conforming_strings TO off / Q select 1
         server: C SET / S standard_conforming_strings off / Z I / T / S in_hot_standby on / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I",
    );
    assert!(!script.session.lexing.standard_conforming_strings);
    // What the server lexes in another way than we do is for the primary.
    script.play(
        "client: Q select '\\'
         primary: Q select '\\'
         server: E 42601 / Z I
         told: E 42601 / Z I
         primary: Q DISCARD ALL
         server: C DISCARD ALL / Z I
         held: nothing",
    );
}

#[test]
fn a_pin_keeps_the_connection() {
    play(
        "client: Q listen c
         primary: Q listen c
         server: C LISTEN / Z I
         told: C LISTEN / Z I
         primary: Q SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels())
         server: T / D t / C SELECT 1 / Z I
         held: primary
         server: A
         told: A
         client: Q select 1
         primary: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         held: primary",
    );
}

const LISTENING: &str = "Q SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels())";
const LOCKED: &str = "Q SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'::pg_catalog.text AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

fn listener() -> Script {
    let mut script = Script::new();
    script.session = script.session.with_shared_listen(true);
    script
}

/// What the session hears by way of the shared connection.
fn channels(script: &Script) -> Vec<String> {
    let cold = script.session.cold.iter();
    cold.filter_map(|cold| cold.hearing.as_ref())
        .flat_map(|hearing| &hearing.channels)
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

#[test]
fn a_listen_that_stands_alone_needs_no_server() {
    let mut script = listener();
    script.play(
        "client: Q listen a
         told: C LISTEN / Z I
         client: P - LISTEN \"B\" / B - / D - / E / S
         told: 1 / 2 / t / n / C LISTEN / Z I
         client: P s listen c / S
         primary: P pgw_2 listen c / S
         server: 1 / Z I
         told: 1 / Z I
         client: B s / E / S
         told: 2 / C LISTEN / Z I
         client: P u unlisten a / B u / E / S
         told: 1 / 2 / C UNLISTEN / Z I
         held: nothing
         client: D u / S
         primary: P pgw_3 unlisten a / D pgw_3 / S
         server: 1 / t / n / Z I
         told: t / n / Z I
         held: nothing",
    );
    assert_eq!(channels(&script), ["B", "c"]);
    script.play(
        "client: Q unlisten *
         told: C UNLISTEN / Z I
         client: Q unlisten *
         primary: Q unlisten *
         server: C UNLISTEN / Z I
         told: C UNLISTEN / Z I
         held: nothing",
    );
    assert!(channels(&script).is_empty());
}

/// Everything else is for the server, and pins.
#[test]
fn a_listen_among_others_is_the_servers() {
    for unit in [
        "Q listen a; select 1",
        "Q listen select",
        "Q listen ä",
        "P - listen a / B - / E / E / S",
        "P - listen a / B - / P - listen b / E / S",
        "P - listen a / B - / E / H",
        "P - select 1 / B - / E / P - listen a / B - / E / S",
    ] {
        let mut script = listener();
        script.client(&write(unit, CLIENT));
        assert_eq!(script.held, Some(Node::Primary), "{unit}");
        assert!(script.session.pin().is_some(), "{unit}");
        assert!(channels(&script).is_empty(), "{unit}");
    }
    let mut script = Script::new();
    script.session = script.session.with_shared_listen(false);
    script.client(&write("Q listen a", CLIENT));
    assert!(script.session.pin().is_some(), "another encoding");
}

/// Whether a transaction is open is known when what was sent before has been answered.
#[test]
fn a_listen_waits_for_what_was_sent_before() {
    let mut script = listener();
    script.play(
        "client: Q select 1 / Q listen a / Q begin / Q listen b / Q rollback
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I / C LISTEN / Z I
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         primary: Q listen b / Q rollback
         server: C LISTEN / Z T / C ROLLBACK / Z I
         told: C LISTEN / Z T / C ROLLBACK / Z I
         primary: QUESTION"
            .replace("QUESTION", LISTENING)
            .as_str(),
    );
    assert_eq!(channels(&script), ["a"]);
}

/// An UNLISTEN that is sent to a server takes the shared channel away when its transaction is committed.
#[test]
fn an_unlisten_in_a_transaction_counts_when_it_is_committed() {
    let check = |units: &str, answers: &str, expected: &[&str]| {
        let mut script = listener();
        script.client(&write("Q listen a / Q listen b", CLIENT));
        for (unit, answer) in units.split(" | ").zip(answers.split(" | ")) {
            script.client(&write(unit, CLIENT));
            script.server(&write(answer, SERVER));
        }
        assert_eq!(channels(&script), expected, "{units}");
        let gone = script.session.take_unlistened().len();
        assert_eq!(gone > 0, expected.len() < 2, "{units}");
    };
    check(
        "Q begin | Q unlisten a | Q commit",
        "C BEGIN / Z T | C UNLISTEN / Z T | C COMMIT / Z I",
        &["b"],
    );
    check(
        "Q begin | P - unlisten a / B - / E / S | Q commit",
        "C BEGIN / Z T | 1 / 2 / C UNLISTEN / Z T | C COMMIT / Z I",
        &["b"],
    );
    check(
        "Q begin | Q unlisten * | Q rollback",
        "C BEGIN / Z T | C UNLISTEN / Z T | C ROLLBACK / Z I",
        &["a", "b"],
    );
    check(
        "Q unlisten a; select 1",
        "C UNLISTEN / C SELECT 1 / Z I",
        &["b"],
    );
    check("Q unlisten a; bad", "E 42601 / Z I", &["a", "b"]);
    check("Q discard all", "C DISCARD ALL / Z I", &[]);
}

/// The server is asked behind the client's ReadyForQuery, when something may have changed, and its answer is not the
/// client's.
#[test]
fn a_pin_ends_when_the_server_says_so() {
    play(&format!(
        "client: Q listen c
         primary: Q listen c
         server: C LISTEN / Z I
         told: C LISTEN / Z I
         primary: {LISTENING}
         server: T / D t / C SELECT 1 / Z I
         held: primary
         client: Q select 1
         primary: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: Q unlisten c
         primary: Q unlisten c
         server: C UNLISTEN / Z I
         told: C UNLISTEN / Z I
         primary: {LISTENING}
         server: T / D f / C SELECT 1 / Z I
         held: nothing"
    ));
}

/// What comes while the question is on its way follows on the same connection, and is answered as ever.
#[test]
fn nobody_waits_for_the_end_of_a_pin() {
    play(&format!(
        "client: P - select pg_advisory_lock(1) / B - / E / S
         primary: P - select pg_advisory_lock(1) / B - / E / S
         server: 1 / 2 / D 1 / C SELECT 1 / Z I
         told: 1 / 2 / D 1 / C SELECT 1 / Z I
         primary: {LOCKED}
         server: T / D t / C SELECT 1 / Z I
         client: P - select pg_advisory_unlock(1) / B - / E / S
         primary: P - select pg_advisory_unlock(1) / B - / E / S
         server: 1 / 2 / D t / C SELECT 1 / Z I
         told: 1 / 2 / D t / C SELECT 1 / Z I
         primary: {LOCKED}
         client: B - / E / S
         primary: P - select pg_advisory_unlock(1) / B - / E / S
         server: T / D f / C SELECT 1 / A / Z I
         told: A
         server: 1 / 2 / D f / C SELECT 1 / Z I
         told: 2 / D f / C SELECT 1 / Z I
         held: nothing"
    ));
}

/// The answer tells of the moment at which the question came: a lock that was asked for behind it is not in it.
#[test]
fn an_answer_that_is_older_than_a_pin_does_not_end_it() {
    play(&format!(
        "client: Q select pg_try_advisory_lock(1)
         primary: Q select pg_try_advisory_lock(1)
         server: T / D f / C SELECT 1 / Z I
         told: T / D f / C SELECT 1 / Z I
         primary: {LOCKED}
         client: Q select pg_advisory_lock(2)
         primary: Q select pg_advisory_lock(2)
         server: T / D f / C SELECT 1 / Z I
         held: primary
         server: T / D 1 / C SELECT 1 / Z I
         told: T / D 1 / C SELECT 1 / Z I
         primary: {LOCKED}
         server: T / D t / C SELECT 1 / Z I
         held: primary"
    ));
}

#[test]
fn a_question_that_fails_leaves_the_pin() {
    let mut script = Script::new();
    script.play(&format!(
        "client: Q listen c
         primary: Q listen c
         server: C LISTEN / Z I
         told: C LISTEN / Z I
         primary: {LISTENING}
         server: E 57014 / Z I
         held: primary
         client: Q unlisten c
         primary: Q unlisten c
         server: C UNLISTEN / Z I
         told: C UNLISTEN / Z I
         primary: {LISTENING}
         client: Q select 1
         primary: Q select 1"
    ));
    assert!(!script.missed);
    // A cancel request was for the statement behind the question.
    script.play(
        "server: E 57014 / Z I
         held: primary",
    );
    assert!(script.missed);
}

/// Nothing is asked inside a transaction, and nothing of sessions whose pins do not end.
#[test]
fn questions_wait_for_the_end_of_the_transaction() {
    play(&format!(
        "client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q listen c
         primary: Q listen c
         server: C LISTEN / Z T
         told: C LISTEN / Z T
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         primary: {LISTENING}
         server: T / D f / C SELECT 1 / Z I
         held: nothing
         client: Q load 'x'
         primary: Q load 'x'
         server: C LOAD / Z I
         told: C LOAD / Z I
         client: Q drop table t
         primary: Q drop table t
         server: C DROP TABLE / Z I
         told: C DROP TABLE / Z I
         held: primary"
    ));
}

// ── idleness ─────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn no_connection_idles_with_its_sessions_bound() {
    let mut script = Script::new();
    script.play(
        "client: Q set idle_session_timeout = '1s'
         primary: Q set idle_session_timeout = '1s'
         server: C SET / Z I
         told: C SET / Z I
         primary: Q RESET idle_session_timeout
         held: primary
         client: Q select 1
         server: C RESET / Z I
         standby: Q SET idle_session_timeout TO '1s' / Q select 1
         server: C SET / Z I / T / C SELECT 0 / Z I
         told: T / C SELECT 0 / Z I
         standby: Q RESET idle_session_timeout
         server: C RESET / Z I
         held: nothing",
    );
    assert_eq!(script.session.idle_limit(), 1000);
    // Not inside of a transaction, and what is undone there has not been.
    script.play(
        "client: Q begin
         primary: Q SET idle_session_timeout TO '1s' / Q begin
         server: C SET / Z I / C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q set idle_session_timeout = 0
         primary: Q set idle_session_timeout = 0
         server: C SET / Z T
         told: C SET / Z T",
    );
    assert_eq!(script.session.idle_limit(), 1000);
    script.play(
        "client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         primary: Q RESET idle_session_timeout
         server: C RESET / Z I
         held: nothing
         client: Q set idle_session_timeout = 0
         primary: Q SET idle_session_timeout TO '1s' / Q set idle_session_timeout = 0
         server: C SET / Z I / C SET / Z I
         told: C SET / Z I
         held: nothing",
    );
    assert_eq!(script.session.idle_limit(), 0);
    // What cannot be told is the server's to count, on a connection of the session's own.
    script.play(
        "client: Q set idle_session_timeout = E'1s'
         primary: Q set idle_session_timeout = E'1s'
         server: C SET / Z I
         told: C SET / Z I
         held: primary
         server: F 57P05
         told: F 57P05",
    );
}

/// What the server is asked about pins goes between a unit and its settings.
#[test]
fn a_bound_comes_back_behind_a_question() {
    play(&format!(
        "client: Q select pg_advisory_lock(1)
         primary: Q select pg_advisory_lock(1)
         client: Q set idle_session_timeout = '1s'
         primary: Q set idle_session_timeout = '1s'
         server: T / C SELECT 1 / Z I / C SET / Z I
         told: T / C SELECT 1 / Z I / C SET / Z I
         primary: Q RESET idle_session_timeout
         server: C RESET / Z I
         primary: {LOCKED}
         client: Q show idle_session_timeout
         server: T / D t / C SELECT 1 / Z I
         primary: Q SET idle_session_timeout TO '1s' / Q show idle_session_timeout"
    ));
}

/// The setting is taken away between a RESET and what follows it: the client hears of the values of its startup packet all
/// the same.
#[test]
fn a_bound_taken_away_hides_no_news() {
    let mut params = Params::default();
    for (name, value) in [("idle_session_timeout", "1s"), ("application_name", "a")] {
        params.set(name, Value::Plain(value.into()));
    }
    Script::with(params, 100).play(
        "client: Q set application_name = b
         primary: Q SELECT pg_catalog.set_config('application_name', 'a', false)⏎;SELECT pg_catalog.set_config('idle_session_timeout', '1s', false) / Q set application_name = b
         server: C SELECT 1 / C SELECT 1 / Z I / S application_name b / C SET / Z I
         told: S application_name b / C SET / Z I
         primary: Q RESET idle_session_timeout
         server: C RESET / Z I
         held: nothing
         client: Q reset application_name
         primary: Q SELECT pg_catalog.set_config('idle_session_timeout', '1s', false) / Q reset application_name
         server: C SELECT 1 / Z I / S application_name x / C RESET / Z I
         told: C RESET / Z I
         primary: Q RESET idle_session_timeout
         server: C RESET / Z I
         held: nothing
         client: Q update t
         primary: Q SELECT pg_catalog.set_config('application_name', 'a', false)⏎;SELECT pg_catalog.set_config('idle_session_timeout', '1s', false) / Q update t
         server: S application_name a / C SELECT 1 / C SELECT 1 / Z I / C UPDATE 0 / Z I
         told: S application_name a / C UPDATE 0 / Z I
         primary: Q RESET idle_session_timeout",
    );
}

// ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_fatal_error_between_units_is_not_the_clients() {
    play(
        "client: Q select 1
         standby: Q select 1
         server: F 57P01
         lost: no",
    );
    // In a transaction it is.
    play(
        "client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         server: F 57P01
         told: F 57P01
         lost: no",
    );
}

#[test]
fn a_server_that_ends_an_idle_session_is_heard() {
    let mut script = Script::new();
    script.play(
        "client: Q select 1
         standby: Q select 1
         server: T / D 1 / C SELECT 1
         told: T / D 1 / C SELECT 1",
    );
    // As the relay does while it keeps a connection: nothing is owed, and no transaction is open.
    let link = &mut script.links[1];
    let mut out = Vec::new();
    let mut hear = |session: &mut Session, bytes: &[u8]| {
        out.clear();
        let received = session.receive(link, bytes, true, &mut out);
        let passed = received.expect("a message").verbatim;
        (
            passed.is_some_and(|range| !range.is_empty()),
            session.dies_with(link),
        )
    };
    let session = &mut script.session;
    assert_eq!(hear(session, &write("Z I", SERVER)), (true, false));
    assert_eq!(hear(session, &write("F 57P05", SERVER)), (true, true));
    // Any other end of an idle connection is nobody's.
    script.links[1] = Link::default();
    let (link, session) = (&mut script.links[1], &mut script.session);
    let received = session.receive(link, &write("F 57P01", SERVER), true, &mut out);
    assert!(received.is_ok() && !session.dies_with(link) && out.is_empty());
}

/// PostgreSQL describes there what returns no rows; this server cannot be given it.
#[test]
fn a_statement_that_the_server_lacks_in_a_failed_transaction() {
    let prepared = "client: P s1 savepoint a / P s2 select 1 / P s3 update t set a = 1 returning a / S
         primary: P pgw_1 savepoint a / P pgw_2 select 1 / P pgw_3 update t set a = 1 returning a / S
         server: 1 / 1 / 1 / Z I
         told: 1 / 1 / 1 / Z I";
    let failed = "client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q bad
         primary: Q bad
         server: E 42601 / Z E
         told: E 42601 / Z E";
    let mut script = Script::new();
    script.play(prepared);
    script.links[0] = Link::new(100);
    script.play(failed).pump();
    script.play(
        "client: D s1 / D s1 / S
         primary: S
         told: t / n / t / n
         server: Z E
         told: Z E
         client: D s2 / S
         primary: P pgw_2 select 1 / D pgw_2 / S
         server: E 25P02 / Z E
         told: E 25P02 / Z E
         client: D s3 / D s1 / S
         primary: P pgw_3 update t set a = 1 returning a / D pgw_3 / S
         server: E 25P02 / Z E
         told: E 25P02 / Z E
         client: B s1 / D s1 / S
         primary: P pgw_1 savepoint a / B pgw_1 / D pgw_1 / S
         server: E 25P02 / Z E
         told: E 25P02 / Z E",
    );
    // Whether the transaction has failed is known when what is on its way has been answered.
    let mut script = Script::new();
    script.play(prepared);
    script.links[0] = Link::new(100);
    script.play(
        "client: Q begin; select 1/0 / D s1 / S
         primary: Q begin; select 1/0
         server: E 22012 / Z E
         told: E 22012 / Z E / t / n
         primary: S
         server: Z E
         told: Z E",
    );
    // The server answers for what it has, and for what it may have again.
    play(&format!(
        "{prepared}\n{failed}\nclient: D s1 / S\nprimary: D pgw_1 / S"
    ));
    let mut script = Script::new();
    script.play(prepared);
    script.links[0] = Link::new(100);
    script.play(failed).pump();
    script.play(
        "client: Q rollback
         primary: Q rollback
         client: D s1 / S
         primary: P pgw_1 savepoint a / D pgw_1 / S",
    );
}

/// Nobody has asked for the cancel that `timeouts.query` sends.
#[test]
fn a_statement_that_took_too_long_is_told_so() {
    let body = |text: &str| format!("SERROR\0VERROR\0C57014\0M{text}\0Fpostgres.c\0\0");
    let said = |overdue: bool, body: String| {
        let mut script = Script::new();
        script.play("client: Q select 1\nstandby: Q select 1");
        script.links[1].overdue = overdue;
        let mut message = Vec::new();
        put_header(&mut message, b'E', body.len());
        message.extend_from_slice(body.as_bytes());
        script.server(&message);
        let told = std::mem::take(&mut script.told);
        script.play("server: Z I\ntold: Z I\nheld: nothing");
        assert!(!script.links[1].overdue);
        String::from_utf8_lossy(&told[5..]).into_owned()
    };
    let by_user = "canceling statement due to user request";
    let [text, hint] = OVERDUE;
    assert_eq!(said(false, body(by_user)), body(by_user));
    assert_eq!(
        said(true, body(by_user)),
        format!(
            "{}H{hint}\0\0",
            body(text).trim_end_matches('\0').to_owned() + "\0"
        )
    );
    let other = "canceling statement due to lock timeout";
    assert_eq!(said(true, body(other)), body(other));
}

#[test]
fn whether_a_lost_server_may_have_written() {
    for (transcript, lost) in [
        ("client: Q select 1\nstandby: Q select 1", "no"),
        (
            "client: Q delete from t\nprimary: Q delete from t",
            "in doubt",
        ),
        (
            "client: P - delete from t / B - / E / S\nprimary: P - delete from t / B - / E / S",
            "in doubt",
        ),
        (
            "client: P - select 1 / B - / E / S\nstandby: P - select 1 / B - / E / S",
            "no",
        ),
        ("client: F\nprimary: F", "in doubt"),
    ] {
        play(&format!("{transcript}\nlost: {lost}"));
    }
}

#[test]
fn what_was_not_confirmed_is_forgotten_with_its_server() {
    play(
        "client: P a select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: P b select 2 / B b / E / S
         standby: P pgw_2 select 2 / B pgw_2 / E / S
         lost: no
         client: P b select 3 / B a / E / S
         standby: P pgw_3 select 3 / P pgw_1 select 1 / B pgw_1 / E / S
         server: 1 / 1 / 2 / C SELECT 1 / Z I
         told: 1 / 2 / C SELECT 1 / Z I",
    );
}

#[test]
fn a_group_that_lost_its_server_ends_with_its_sync() {
    play(
        "client: P - delete from t / B - / E / H
         primary: P - delete from t / B - / E / H
         server: 1 / 2 / C DELETE 1
         told: 1 / 2 / C DELETE 1
         lost: in doubt
         client: B - / E / Q delete from t / S
         told: Z I
         client: Q select 1
         standby: Q select 1",
    );
    // So does one that the proxy has refused.
    play(
        "client: P - select 1 / B - / E / H / P - delete from t
         standby: P - select 1 / B - / E / H
         server: 1 / 2 / C SELECT 1
         told: 1 / 2 / C SELECT 1 / E 0A000
         lost: no
         client: B - / E / S
         told: Z I
         held: nothing",
    );
}

#[test]
fn units_that_no_server_takes() {
    play(
        "down: yes
         client: Q select 1
         told: E 57P03 / Z I
         client: P - delete from t / B - / E / S
         told: E 57P03 / Z I
         client: P - select 1 / H
         told: E 57P03
         client: B - / E / S
         told: Z I
         down: no
         client: Q select 1
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I",
    );
}

#[test]
fn servers_that_cannot_be_understood() {
    for (bytes, expected) in [
        (&b"Z\0\0\0\x03"[..], None),
        (b"Z\0\0\0\x05?", Some(LinkError::Unexpected(b'Z'))),
        (b"R\0\0\0\x04", Some(LinkError::Unexpected(b'R'))),
        (b"1\0\0\0\x04", Some(LinkError::Unexpected(b'1'))),
    ] {
        let mut script = Script::new();
        script.client(&write("Q select 1", CLIENT));
        script.server(bytes);
        match expected {
            Some(expected) => assert_eq!(script.broken, Some(expected), "{bytes:?}"),
            None => assert!(
                matches!(script.broken, Some(LinkError::Frame(_))),
                "{bytes:?}"
            ),
        }
        assert_eq!(script.told, b"", "{bytes:?}");
    }
    let mut script = Script::new();
    let mut params = Params::default();
    params.set("x", Value::Plain("1".into()));
    script.session = Session::new(Arc::new(params), Lexing::default(), false);
    script.client(&write("Q select 1", CLIENT));
    script.server(&write("E 22023 / Z I", SERVER));
    let refusal = LinkError::Settings("x (22023)".to_owned());
    assert_eq!(script.broken, Some(refusal));
}

// ── large messages ───────────────────────────────────────────────────────────────────────────────────────────────

/// A message whose front arrives first; what has left after each part.
fn check_streamed(front: &[u8], message: &[u8], cut: usize) {
    let mut script = Script::new();
    script.client(front);
    script.client(&message[..cut]);
    let early = script.sent[0].len();
    assert!(
        early > front.len() / 2,
        "the front leaves before the rest has come"
    );
    script.client(&message[cut..]);
    let mut whole = front.to_vec();
    whole.extend_from_slice(message);
    assert!(script.sent[0] == whole, "the message arrives whole");
}

#[test]
fn large_messages_are_streamed() {
    let query = write(
        &format!("Q insert into t values ('{}')", "x".repeat(40_000)),
        CLIENT,
    );
    check_streamed(b"", &query, 20_000);
    let mut bind = Vec::new();
    put_header(&mut bind, b'B', 40_000);
    bind.resize(40_005, 0);
    check_streamed(&write("P - delete from t", CLIENT), &bind, 20_000);
    let data = write(&format!("d {}", "x".repeat(40_000)), CLIENT);
    check_streamed(&write("Q copy t from stdin", CLIENT), &data, 10);
}

#[test]
fn a_streamed_query_may_leave_anything_behind() {
    let text = format!(
        "insert into t values ('{}'); set role admin",
        "x".repeat(1000)
    );
    let query = write(&format!("Q {text}"), CLIENT);
    let mut script = Script::new();
    script.client(&query[..500]);
    script.client(&query[500..]);
    assert!(script.links[0].dirty);
    let text = format!(
        "insert into t values (1); {}; set role admin",
        " ".repeat(1000)
    );
    let query = write(&format!("Q {text}"), CLIENT);
    let mut script = Script::new();
    script.client(&query[..500]);
    script.client(&query[500..]);
    assert!(script.links[0].dirty);
    let text = format!("set x = 1; {}; delete from t", " ".repeat(1000));
    let query = write(&format!("Q {text}"), CLIENT);
    let mut script = Script::new();
    script.client(&query[..500]);
    script.client(&query[500..]);
    script.server(&write("C SET / C DELETE 1 / Z I", SERVER));
    assert!(script.wrote, "what has not been seen may write");
}

#[test]
fn messages_are_streamed_again_after_some_were_dropped() {
    let query = write(
        &format!("Q insert into t values ('{}')", "x".repeat(1000)),
        CLIENT,
    );
    for dropped in ["d stray / c", "Q select 1"] {
        let mut script = Script::new();
        script.down = true;
        script.client(&write(dropped, CLIENT));
        script.down = false;
        script.client(&query[..500]);
        script.client(&query[500..]);
        assert!(script.sent[0] == query, "after {dropped}");
    }
}

#[test]
fn the_rest_of_a_message_is_dropped_with_its_server() {
    let query = write(
        &format!("Q insert into t values ('{}')", "x".repeat(1000)),
        CLIENT,
    );
    let mut script = Script::new();
    script.client(&query[..500]);
    assert!(script.lost());
    script.sent = Default::default();
    script.client(&query[500..]);
    script.play("client: Q select 1\nstandby: Q select 1");
}

// ── properties ───────────────────────────────────────────────────────────────────────────────────────────────────

/// Splits at positions that are counted round.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.dedup();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// What the client and the servers heard in a few units, with both streams cut anywhere.
fn heard(units: &[(&str, &str)], cuts: &[usize]) -> [Vec<u8>; 3] {
    let mut script = Script::new();
    for name in ["a select 1", "b delete from t"] {
        script.client(&write(&format!("P {name} / S"), CLIENT));
        script.server(&write("1 / Z I", SERVER));
    }
    for (client, server) in units {
        for piece in pieces(&write(client, CLIENT), cuts) {
            script.client(piece);
        }
        for piece in pieces(&write(server, SERVER), cuts) {
            script.server(piece);
        }
        assert_eq!(script.held, None, "after {client}");
    }
    let [primary, standby] = script.sent;
    [primary, standby, script.told]
}

/// Units that every server answers in the same way, wherever their bytes are cut.
const UNITS: &[(&str, &str)] = &[
    ("Q select 1", "T / D 1 / C SELECT 1 / Z I"),
    ("Q delete from t", "N / C DELETE 5 / Z I"),
    (
        "P - select 2 / B - / D - / E / S",
        "1 / 2 / T / D 1 / D 2 / C SELECT 2 / Z I",
    ),
    ("P - delete from t / B - / E / S", "1 / 2 / E 23503 / Z I"),
    ("B a / D a / E / S", "2 / t / T / D 1 / C SELECT 1 / Z I"),
    ("B b / E / S", "2 / C DELETE 1 / Z I"),
    ("Q copy t from stdin / d 1 / d 2 / c", "G / C COPY 2 / Z I"),
    ("Q copy t to stdout", "H / d 1 / d 2 / c / C COPY 2 / Z I"),
    ("Q select bad", "E 42703 / Z I"),
];

proptest! {
    #[test]
    fn streams_may_be_cut_anywhere(
        order in proptest::collection::vec(0..UNITS.len(), 1..6),
        cuts in proptest::collection::vec(0usize..10_000, 0..40),
    ) {
        let units: Vec<_> = order.iter().map(|unit| UNITS[*unit]).collect();
        prop_assert_eq!(heard(&units, &cuts), heard(&units, &[]));
    }

    #[test]
    fn random_bytes_do_not_panic(
        events in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..60)), 1..30),
    ) {
        let mut script = Script::new();
        for (client, bytes) in events {
            if client {
                script.client(&bytes);
            } else if script.held.is_some() {
                script.server(&bytes);
            }
        }
    }

    /// Messages that are well formed, in an order that nobody would send them in.
    #[test]
    fn random_messages_do_not_panic(events in proptest::collection::vec((0..CHAOS.len(), any::<bool>()), 1..60)) {
        let mut script = Script::new();
        for (event, lost) in events {
            let (client, text) = CHAOS[event];
            if client {
                script.client(&write(text, CLIENT));
            } else if script.held.is_some() {
                if lost && text == "Z I" {
                    script.lost();
                } else {
                    script.server(&write(text, SERVER));
                }
            }
        }
    }
}

#[rustfmt::skip]
const CHAOS: &[(bool, &str)] = &[
    (CLIENT, "Q select 1"), (CLIENT, "Q delete from t"), (CLIENT, "Q set x = 1"), (CLIENT, "Q begin"),
    (CLIENT, "Q discard all"), (CLIENT, "Q deallocate a"), (CLIENT, "Q copy t from stdin"), (CLIENT, "P a select 1"),
    (CLIENT, "P - select 2"), (CLIENT, "P b delete from t"), (CLIENT, "B a"), (CLIENT, "B b"), (CLIENT, "B -"),
    (CLIENT, "D a"), (CLIENT, "C a"), (CLIENT, "C -"), (CLIENT, "E"), (CLIENT, "H"), (CLIENT, "S"), (CLIENT, "S"),
    (CLIENT, "F"), (CLIENT, "d 1"), (CLIENT, "c"), (CLIENT, "f"), (SERVER, "1"), (SERVER, "2"), (SERVER, "3"),
    (SERVER, "T"), (SERVER, "D 1"), (SERVER, "C SELECT 1"), (SERVER, "C ROLLBACK"), (SERVER, "C DISCARD ALL"),
    (SERVER, "E 42601"), (SERVER, "F 57P01"), (SERVER, "G"), (SERVER, "S x 1"), (SERVER, "Z I"), (SERVER, "Z I"),
    (SERVER, "Z T"), (SERVER, "Z E"),
];

#[test]
fn what_a_savepoint_takes_back_is_not_carried_over() {
    let mut script = Script::new();
    for (statement, reply) in [
        ("begin", "C BEGIN / Z T"),
        ("set x = 1", "C SET / Z T"),
        ("savepoint s", "C SAVEPOINT / Z T"),
        ("set x = 2", "C SET / Z T"),
        ("rollback to s", "C ROLLBACK / Z T"),
        ("commit", "C COMMIT / Z I"),
    ] {
        script.client(&write(&format!("Q {statement}"), CLIENT));
        script.server(&write(reply, SERVER));
    }
    assert_eq!(tracked(&script, "x"), Some("1"));
}

/// DDL makes plans void for its session when it is done, and for the others when it is committed: not with every statement
/// between.
#[test]
fn plans_are_void_after_ddl_and_after_its_transaction() {
    let mut script = Script::new();
    for (statement, reply, changes) in [
        ("alter table t add c int", "C ALTER TABLE / Z I", 1),
        ("select 1", "C SELECT 1 / Z I", 1),
        ("begin", "C BEGIN / Z T", 1),
        ("alter table t drop c", "C ALTER TABLE / Z T", 2),
        ("select 2", "C SELECT 1 / Z T", 2),
        ("update t set a = 1", "C UPDATE 1 / Z T", 2),
        ("commit", "C COMMIT / Z I", 3),
        ("update t set a = 2", "C UPDATE 1 / Z I", 3),
    ] {
        script.client(&write(&format!("Q {statement}"), CLIENT));
        script.server(&write(reply, SERVER));
        assert_eq!(script.catalog_changes, changes, "{statement}");
    }
}

/// COMMIT AND CHAIN settles what the transaction has set, though the next one is rolled back.
#[test]
fn settings_are_settled_by_every_commit() {
    let mut script = Script::new();
    for (statement, reply) in [
        ("begin", "C BEGIN / Z T"),
        ("set x = 1", "C SET / Z T"),
        ("commit and chain", "C COMMIT / Z T"),
        ("set y = 1", "C SET / Z T"),
        ("rollback", "C ROLLBACK / Z I"),
    ] {
        script.client(&write(&format!("Q {statement}"), CLIENT));
        script.server(&write(reply, SERVER));
    }
    assert_eq!(script.held, None);
    assert_eq!(tracked(&script, "x"), Some("1"));
    assert_eq!(tracked(&script, "y"), None);
}

/// What was set before a COMMIT stays when a later statement of the same unit fails, and what came after it does not.
#[test]
fn a_failure_undoes_no_settings_that_were_committed_before_it() {
    let check = |client: &str, server: &str, x: Option<&str>, y: Option<&str>| {
        let mut script = Script::new();
        script.client(&write(client, CLIENT));
        script.server(&write(server, SERVER));
        assert_eq!(script.held, None, "{client}");
        assert_eq!(tracked(&script, "x"), x, "{client}");
        assert_eq!(tracked(&script, "y"), y, "{client}");
    };
    check(
        "Q begin; set x = 1; commit; set y = 1; delete from t",
        "C BEGIN / C SET / C COMMIT / C SET / E 23503 / Z I",
        Some("1"),
        None,
    );
    check(
        "P - set x = 1 / B - / E / P - commit / B - / E / P - delete from t / B - / E / S",
        "1 / 2 / C SET / 1 / 2 / C COMMIT / 1 / 2 / E 23503 / Z I",
        Some("1"),
        None,
    );
    check(
        "Q begin; set x = 1; rollback; set y = 1",
        "C BEGIN / C SET / C ROLLBACK / C SET / Z I",
        None,
        Some("1"),
    );
    check(
        "Q begin; set x = 1; savepoint s; set x = 2; set y = 2; rollback to s; commit",
        "C BEGIN / C SET / C SAVEPOINT / C SET / C SET / C ROLLBACK / C COMMIT / Z I",
        Some("1"),
        None,
    );
    check(
        "Q begin; set transaction read only; set local y = 1; set x = 1; commit",
        "C BEGIN / C SET / C SET / C SET / C COMMIT / Z I",
        Some("1"),
        None,
    );
    check(
        "Q set x = 1; delete from t",
        "C SET / E 23503 / Z I",
        None,
        None,
    );
}

#[test]
fn a_setting_that_is_bound_and_not_executed_changes_nothing() {
    let mut script = Script::new();
    script.client(&write("P - set x = 1 / B - / S", CLIENT));
    script.server(&write("1 / 2 / Z I", SERVER));
    assert_eq!(tracked(&script, "x"), None);
    assert_eq!(script.held, None);
}

#[test]
fn settings_in_another_encoding_than_ascii_keep_their_connection() {
    play(
        "client: Q set x = 'ä'
         primary: Q set x = 'ä'
         server: C SET / Z I
         told: C SET / Z I
         held: primary",
    );
}

/// What follows DISCARD ALL waits for it: it would run without the session's settings and statements, and what it leaves
/// behind must not count as discarded.
#[test]
fn what_follows_discard_all_waits_for_it() {
    play(
        "client: Q discard all / Q listen c
         primary: Q discard all
         server: C DISCARD ALL / Z I
         told: C DISCARD ALL / Z I
         primary: Q listen c
         server: C LISTEN / Z I
         told: C LISTEN / Z I
         primary: Q SELECT EXISTS (SELECT FROM pg_catalog.pg_listening_channels())
         held: primary",
    );
}

/// Statements that take names away and fail take none; the connection is given up, because the proxy has let go of what
/// it knew of it.
#[test]
fn names_come_back_when_what_takes_them_away_fails() {
    play(
        "client: P a select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q discard all / B a / E / S
         primary: Q discard all
         server: E 25001 / Z E
         told: E 25001 / Z E
         primary: C pgw_1 / P pgw_1 select 1 / B pgw_1 / E / S
         server: 3 / E 25P02 / Z E
         told: E 25P02 / Z E
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         held: nothing
         client: B a / E / S
         standby: B pgw_1 / E / S
         server: 2 / C SELECT 1 / Z I
         told: 2 / C SELECT 1 / Z I",
    );
}

#[test]
fn a_close_that_is_skipped_closes_nothing() {
    play(
        "client: P a select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: P - select x / B - / E / C a / S
         standby: P - select x / B - / E / S
         server: E 42703 / Z I
         told: E 42703 / Z I
         client: B a / E / S
         standby: B pgw_1 / E / S
         server: 2 / C SELECT 1 / Z I
         told: 2 / C SELECT 1 / Z I",
    );
}

/// Whether a name is free is not known while its Parse is on its way.
#[test]
fn a_name_that_is_on_its_way_is_not_prepared_again_before_its_answer() {
    play(
        "client: P a select bad / S / P a select 1 / S
         standby: P pgw_1 select bad / S
         server: E 42703 / Z I
         told: E 42703 / Z I
         standby: P pgw_2 select 1 / S
         server: 1 / Z I
         told: 1 / Z I",
    );
}

/// A role is in force, or the unit does not run.
#[test]
fn a_unit_is_refused_with_its_settings() {
    let mut script = Script::new();
    script.play(
        "client: Q set role u
         primary: Q set role u
         server: C SET / Z I
         told: C SET / Z I
         client: Q select 1 / Q select 2
         standby: Q BEGIN;SET role TO u⏎;COMMIT / Q select 1
         server: C BEGIN / C SET / C COMMIT / Z I / T / C SELECT 1 / Z I
         standby: Q select 2
         told: T / C SELECT 1 / Z I
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         held: nothing",
    );
    script.links = [Link::new(100), Link::new(100)];
    script.client(&write("P s select 1 / B s / E / S / Q select 2", CLIENT));
    script.server(&write("C BEGIN / E 22023 / Z E / E 25P02", SERVER));
    let refusal = LinkError::Settings("x (22023)".to_owned());
    assert_eq!(script.broken, Some(refusal));
    assert_eq!(
        show(&script.sent[1], CLIENT),
        "Q BEGIN;SET role TO u⏎;COMMIT / P pgw_1 select 1 / B pgw_1 / E / S"
    );
    assert_eq!(
        show(&script.input, CLIENT),
        "P s select 1 / B s / E / S / Q select 2"
    );
    assert!(
        script.session.prepared(b"s").is_none(),
        "it has not happened"
    );
}

/// Where what follows might end the failed transaction, and run without the settings.
#[test]
fn a_unit_waits_for_settings_that_may_be_refused() {
    for unit in [
        "Q rollback",
        "Q begin; select 1; commit",
        "P - rollback / B - / E / S",
        "Q select $",
    ] {
        let mut script = Script::new();
        script.play(
            "client: Q set role u
             primary: Q set role u
             server: C SET / Z I
             told: C SET / Z I",
        );
        script.links = [Link::new(100), Link::new(100)];
        script.client(&write(unit, CLIENT));
        let sent = script.sent.concat();
        assert_eq!(show(&sent, CLIENT), "Q SET role TO u", "{unit}");
    }
}

/// What a client has set at its start is what RESET goes back to, also for what follows at once; and the client hears of
/// it.
#[test]
fn what_follows_a_reset_has_the_settings_of_the_startup_packet() {
    let mut params = Params::default();
    params.set("datestyle", Value::Plain("German".into()));
    let mut script = Script::with(params, 100);
    script.play(
        "client: Q set datestyle = sql
         primary: Q SELECT pg_catalog.set_config('datestyle', 'German', false) / Q set datestyle = sql
         server: T / D 1 / C SELECT 1 / S DateStyle German / Z I / C SET / S DateStyle SQL / Z I
         told: C SET / S DateStyle SQL / Z I
         client: Q reset datestyle / Q select 1
         primary: Q reset datestyle
         server: C RESET / S DateStyle ISO / Z I
         told: C RESET / Z I
         standby: Q SELECT pg_catalog.set_config('datestyle', 'German', false) / Q select 1
         server: T / D 1 / C SELECT 1 / S DateStyle German / Z I
         told: S DateStyle German
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         held: nothing
         client: Q reset all
         primary: Q SELECT pg_catalog.set_config('datestyle', 'German', false) / Q reset all
         server: T / D 1 / C SELECT 1 / S DateStyle German / Z I / C RESET / S DateStyle ISO / Z I
         told: C RESET / Z I
         held: nothing",
    );
}

/// In a group it follows the RESET at once.
#[test]
fn what_follows_a_reset_in_its_group_has_the_settings_of_the_startup_packet() {
    let mut params = Params::default();
    params.set("datestyle", Value::Plain("German".into()));
    let mut script = Script::with(params, 100);
    script.play(
        "client: Q set datestyle = sql
         primary: Q SELECT pg_catalog.set_config('datestyle', 'German', false) / Q set datestyle = sql
         server: T / D 1 / C SELECT 1 / S DateStyle German / Z I / C SET / S DateStyle SQL / Z I
         told: C SET / S DateStyle SQL / Z I
         held: nothing
         client: P - reset datestyle / B - / E / P - select 1 / B - / E / S
         primary: P - reset datestyle / B - / E / P pgw_again SET datestyle TO 'German' / B pgw_again / E / C pgw_again / C pgw_again / P - select 1 / B - / E / S
         server: 1 / 2 / C RESET / 1 / 2 / C SET / 3 / 3 / 1 / 2 / C SELECT 1 / S DateStyle German / Z I
         told: 1 / 2 / C RESET / 1 / 2 / C SELECT 1 / S DateStyle German / Z I
         held: nothing
         client: Q select 2
         standby: Q SELECT pg_catalog.set_config('datestyle', 'German', false) / Q select 2
         server: T / D 1 / C SELECT 1 / S DateStyle German / Z I / T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         held: nothing
         client: Q update t set a = 1
         primary: Q update t set a = 1
         server: C UPDATE 1 / Z I
         told: C UPDATE 1 / Z I
         held: nothing",
    );
}

/// What functions leave behind is taken away, and nothing of the session's; of a setting that is another now, the client
/// hears.
#[test]
fn what_functions_leave_behind_is_taken_away() {
    let mut script = Script::new();
    script.play(
        "client: Q set work_mem = '1MB'
         primary: Q set work_mem = '1MB'
         server: C SET / Z I
         told: C SET / Z I
         held: nothing
         client: Q insert into t values (1)
         primary: Q insert into t values (1)",
    );
    script.links[0].stains = Pins::NONE
        .with(PinReason::Settings)
        .with(PinReason::AdvisoryLock);
    script.play(
        "server: C INSERT 0 1 / S DateStyle SQL / Z I
         told: C INSERT 0 1 / S DateStyle SQL / Z I
         primary: Q SELECT pg_catalog.pg_advisory_unlock_all();SET SESSION AUTHORIZATION DEFAULT;RESET ALL⏎;SET work_mem TO '1MB'
         held: primary
         client: Q select 1
         server: T / D 1 / C SELECT 1 / C SET / C RESET / C SET / S DateStyle ISO / Z I
         told: S DateStyle ISO
         standby: Q SET work_mem TO '1MB' / Q select 1
         server: C SET / Z I / T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         held: nothing
         client: Q insert into t values (2)
         primary: Q insert into t values (2)
         server: C INSERT 0 1 / Z I
         told: C INSERT 0 1 / Z I
         held: nothing",
    );
}

/// What functions prepare has any name, and so all go.
#[test]
fn statements_that_functions_prepare_go_with_all_others() {
    let mut script = Script::new();
    script.play(
        "client: P a insert into t values (1) / B a / E / S
         primary: P pgw_1 insert into t values (1) / B pgw_1 / E / S",
    );
    script.links[0].stains = Pins::NONE.with(PinReason::Prepare);
    script.play(
        "server: 1 / 2 / C INSERT 0 1 / Z I
         told: 1 / 2 / C INSERT 0 1 / Z I
         primary: Q DEALLOCATE ALL
         server: C DEALLOCATE ALL / Z I
         held: nothing
         client: B a / E / S
         primary: P pgw_1 insert into t values (1) / B pgw_1 / E / S
         server: 1 / 2 / C INSERT 0 1 / Z I
         told: 2 / C INSERT 0 1 / Z I
         held: nothing",
    );
}

/// A group that fails before its DEALLOCATE takes nothing away, whatever it was to prepare behind it.
#[test]
fn a_name_stays_where_what_was_to_take_it_is_skipped() {
    play(
        "client: P a select 1 / P - bad / P - deallocate all / B - / E / P a select 1 / S
         primary: P pgw_1 select 1 / P - bad / P - deallocate all / B - / E / C pgw_1 / P pgw_1 select 1 / S
         server: 1 / E 42601 / Z I
         told: 1 / E 42601 / Z I
         client: B a / S
         standby: P pgw_1 select 1 / B pgw_1 / S
         server: 1 / 2 / Z I
         told: 2 / Z I",
    );
}

/// What stands behind a DEALLOCATE ALL in its group is not what it takes away.
#[test]
fn a_name_stays_that_comes_behind_what_takes_all() {
    play(
        "client: P - deallocate all / B - / E / P a select 1 / P a select 2 / S
         primary: P - deallocate all / B - / E / P pgw_2 select 1 / P a - / P a select 2 / S
         server: 1 / 2 / C DEALLOCATE ALL / 1 / 1 / E 42P05 / Z I
         told: 1 / 2 / C DEALLOCATE ALL / 1 / E 42P05 / Z I
         client: P - update t / B - / E / C a / B a / S
         primary: C a / S / P - update t / B - / E / B a / S",
    );
}

/// The session has what a transaction could not be brought, because it had failed.
#[test]
fn a_prepared_name_survives_a_transaction_that_fails_on_its_way() {
    let mut script = Script::new();
    script.play(
        "client: Q prepare p as update t set a = 1
         primary: Q prepare p as update t set a = 1
         server: C PREPARE / Z I
         told: C PREPARE / Z I
         held: nothing",
    );
    script.links[0] = Link::new(100);
    script.play(
        "client: Q begin / Q select bad / Q prepare p as select 2 / Q rollback / Q execute p
         primary: Q begin / Q select bad / P pgw_again prepare p as update t set a = 1 / B pgw_again / E / C pgw_again / C pgw_again / S / Q prepare p as select 2
         server: C BEGIN / Z T / E 42703 / Z E / E 25P02 / Z E / E 25P02 / Z E
         told: C BEGIN / Z T / E 42703 / Z E / E 25P02 / Z E
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         primary: P pgw_again prepare p as update t set a = 1 / B pgw_again / E / C pgw_again / C pgw_again / S / Q execute p
         server: 1 / 2 / C PREPARE / 3 / 3 / Z I / C UPDATE 1 / Z I
         told: C UPDATE 1 / Z I
         held: nothing",
    );
    // Nor is it decided before the transaction's end has been heard of.
    script.links = [Link::new(100), Link::new(100)];
    script.play(
        "client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q select bad
         primary: Q select bad
         server: E 42703 / Z E
         told: E 42703 / Z E
         client: Q rollback / Q execute p
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         primary: P pgw_again prepare p as update t set a = 1 / B pgw_again / E / C pgw_again / C pgw_again / S / Q execute p
         server: 1 / 2 / C PREPARE / 3 / 3 / Z I / C UPDATE 1 / Z I
         told: C UPDATE 1 / Z I",
    );
}

/// What a group prepares and deallocates is gone, though neither was known when the other was sent.
#[test]
fn prepare_and_deallocate_in_one_group() {
    for (away, tag) in [
        ("deallocate p", "DEALLOCATE"),
        ("deallocate all", "DEALLOCATE ALL"),
    ] {
        play(&format!(
            "client: P - prepare p as select 1 / B - / E / P - {away} / B - / E / S
             primary: P - prepare p as select 1 / B - / E / P - {away} / B - / E / S
             server: 1 / 2 / C PREPARE / 1 / 2 / C {tag} / Z I
             told: 1 / 2 / C PREPARE / 1 / 2 / C {tag} / Z I
             held: nothing
             client: Q prepare p as select 2
             primary: Q prepare p as select 2
             server: C PREPARE / Z I
             told: C PREPARE / Z I"
        ));
    }
}

#[test]
fn settings_that_are_no_settings_of_the_session() {
    let check = |client: &str, server: &str, pinned: bool, expected: &[(&str, &str)]| {
        let mut script = Script::new();
        for (client, server) in client.split("; ").zip(server.split("; ")) {
            script.client(&write(&format!("Q {client}").replace(" + ", "; "), CLIENT));
            script.server(&write(server, SERVER));
        }
        assert_eq!(script.session.pin().is_some(), pinned, "{client}");
        let mut wanted = Params::default();
        for (name, value) in expected {
            wanted.set(name, Value::Sql(value.as_bytes().into()));
        }
        assert_eq!(*script.session.params, wanted, "{client}");
    };
    check(
        "begin; set transaction_read_only = off; commit",
        "C BEGIN / Z T; C SET / Z T; C COMMIT / Z I",
        false,
        &[],
    );
    check(
        "set constraints all deferred + set x = 1",
        "C SET CONSTRAINTS / C SET / Z I",
        false,
        &[("x", "1")],
    );
    check("set x is what", "C SET / Z I", true, &[]);
    check(
        "set role a; set session authorization b",
        "C SET / Z I; C SET / Z I",
        false,
        &[("session_authorization", "b")],
    );
    check(
        "begin; savepoint a; set x = 1; savepoint a; set x = 2; release a; rollback to a; commit",
        "C BEGIN / Z T; C SAVEPOINT / Z T; C SET / Z T; C SAVEPOINT / Z T; C SET / Z T; C RELEASE / Z T; C ROLLBACK / Z T; C COMMIT / Z I",
        false,
        &[],
    );
    check(
        "begin; savepoint a; set x = 1; release a; commit",
        "C BEGIN / Z T; C SAVEPOINT / Z T; C SET / Z T; C RELEASE / Z T; C COMMIT / Z I",
        false,
        &[("x", "1")],
    );
}

/// The end of a COPY that is sent with its beginning, while the proxy is still busy with something of its own.
#[test]
fn copy_in_sent_at_once_behind_settings() {
    let mut params = Params::default();
    params.set("work_mem", Value::Plain("1".into()));
    let mut script = Script::with(params, 100);
    script.play(
        "client: P - copy t from stdin / B - / E / S / d 1 / c / S
         primary: Q SELECT pg_catalog.set_config('work_mem', '1', false) / P - copy t from stdin / B - / E / S / d 1 / c / S
         server: T / D 1 / C SELECT 1 / Z I / 1 / 2 / G / C COPY 1 / Z I
         told: 1 / 2 / G / C COPY 1 / Z I
         held: nothing",
    );
}

/// A message that does not belong into a COPY is the end of the session, in the server's words.
#[test]
fn what_does_not_belong_into_a_copy_ends_the_session() {
    let mut script = Script::new();
    script.play(
        "client: Q copy t from stdin / d 1 / Q select 1
         primary: Q copy t from stdin / d 1 / Q select 1
         server: G / E 08P01 / F 08P01
         told: G / E 08P01 / F 08P01",
    );
    let link = &script.links[Node::Primary as usize];
    assert!(link.fatal && link.status != Status::Idle && !link.committing);
}

/// A reply of the proxy's own does not stand in the middle of one of the server's.
#[test]
fn own_replies_wait_for_the_end_of_a_message() {
    let mut script = Script::new();
    script.play(
        "client: P a select 1 / S
         standby: P pgw_1 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: D a / H
         primary: P pgw_1 select 1 / D pgw_1 / H",
    );
    let described = write("1 / t / T", SERVER);
    let (front, end) = described.split_at(described.len() - 1);
    script.server(front);
    script.client(&write("C a", CLIENT));
    script.server(end);
    script.play(
        "told: t / T / 3
         client: S
         primary: S
         server: Z I
         told: Z I",
    );
}

// ── the session's own routing ────────────────────────────────────────────────────────────────────────────────────

/// Plays a transcript for a session with this configuration.
fn play_on(ground: Ground, transcript: &str) {
    let mut script = Script::new();
    script.session = script.session.with_ground(ground);
    script.play(transcript);
}

#[test]
fn a_route_is_followed_as_soon_as_it_has_been_set() {
    play(
        "client: Q SET pgweir.route = 'primary'
         primary: Q SET pgweir.route = 'primary'
         server: C SET / Z I
         told: C SET / Z I
         client: Q select 1
         primary: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: Q SET pgweir.route TO standby
         primary: Q SET pgweir.route TO standby
         server: C SET / Z I
         told: C SET / Z I
         client: Q delete from t
         standby: Q SET pgweir.route TO standby / Q delete from t
         server: C SET / Z I / E 25006 / Z I
         told: E 25006 / Z I
         client: Q RESET pgweir.route
         standby: Q RESET pgweir.route
         server: C RESET / Z I
         told: C RESET / Z I
         client: Q delete from t
         primary: Q RESET pgweir.route / Q delete from t
         server: C RESET / Z I / C DELETE 1 / Z I
         told: C DELETE 1 / Z I",
    );
}

#[test]
fn what_is_sent_behind_a_new_route_waits_for_it() {
    play(
        "client: Q SET pgweir.route = 'standby' / Q select 1
         primary: Q SET pgweir.route = 'standby'
         server: C SET / Z I
         told: C SET / Z I
         standby: Q SET pgweir.route TO 'standby' / Q select 1
         server: C SET / Z I / T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: P - SET pgweir.route = 'primary' / B - / E / S / Q select 1
         standby: P - SET pgweir.route = 'primary' / B - / E / S
         server: 1 / 2 / C SET / Z I
         told: 1 / 2 / C SET / Z I
         primary: Q SET pgweir.route TO 'primary' / Q select 1
         server: C SET / Z I / T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: Q RESET ALL / Q select 1
         primary: Q RESET ALL
         server: C RESET / Z I
         told: C RESET / Z I
         standby: Q RESET pgweir.route / Q select 1
         server: C RESET / Z I / T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I",
    );
}

#[test]
fn a_route_goes_with_its_transaction() {
    play(
        "client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q SET pgweir.route = 'primary'
         primary: Q SET pgweir.route = 'primary'
         server: C SET / Z T
         told: C SET / Z T
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         client: Q select 1
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: Q begin; SET pgweir.route = 'primary'; commit
         primary: Q begin; SET pgweir.route = 'primary'; commit
         server: C BEGIN / C SET / C COMMIT / Z I
         told: C BEGIN / C SET / C COMMIT / Z I
         client: Q select 1
         primary: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: Q DISCARD ALL
         primary: Q DISCARD ALL
         server: C DISCARD ALL / Z I
         told: C DISCARD ALL / Z I
         client: Q select 1
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I",
    );
}

const BAD: &str = "pgweir refuses the value pgweir.route=nowhere";

#[test]
fn a_bad_value_fails_where_the_server_would_refuse_it() {
    let transcript = "client: Q begin
         primary: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q SET pgweir.route = 'nowhere'
         primary: Q SET bytea_output TO '<bad>'
         server: E 22023 \"<bad>\" / Z E
         told: E 22023 / Z E
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         client: P s SET pgweir.route = 'nowhere' / B s / E / P - delete from t / B - / E / S
         primary: P pgw_1 SET bytea_output TO '<bad>' / B pgw_1 / E / P - delete from t / B - / E / S
         server: 1 / 2 / E 22023 \"<bad>\" / Z I
         told: 1 / 2 / E 22023 / Z I
         client: B s / E / S
         primary: B pgw_1 / E / S
         server: 2 / E 22023 \"<bad>\" / Z I
         told: 2 / E 22023 / Z I
         client: Q SET pgweir.rout = 'primary'
         primary: Q SET bytea_output TO 'pgweir refuses the name pgweir.rout=primary'
         server: E 22023 \"pgweir refuses the name pgweir.rout=primary\" / Z I
         told: E 42704 / Z I
         client: Q select 1
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I";
    play(&transcript.replace("<bad>", BAD));
}

#[test]
fn hints_decide_for_their_statement_alone() {
    play(
        "client: Q /* pgweir: primary */ select 1
         primary: Q /* pgweir: primary */ select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: Q /* pgweir: standby */ select f(1)
         standby: Q /* pgweir: standby */ select f(1)
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         wrote: no
         client: Q /* pgweir: standby */ select nextval('s')
         primary: Q /* pgweir: standby */ select nextval('s')
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         wrote: yes
         client: P a /* pgweir: standby */ select f(2) / S
         standby: P pgw_1 /* pgweir: standby */ select f(2) / S
         server: 1 / Z I
         told: 1 / Z I
         client: B a / E / S
         standby: B pgw_1 / E / S
         server: 2 / C SELECT 1 / Z I
         told: 2 / C SELECT 1 / Z I
         wrote: no
         client: B a / E / P - delete from t / B - / E / S
         primary: P pgw_1 /* pgweir: standby */ select f(2) / B pgw_1 / E / P - delete from t / B - / E / S
         server: 1 / 2 / C SELECT 1 / 1 / 2 / C DELETE 1 / Z I
         told: 2 / C SELECT 1 / 1 / 2 / C DELETE 1 / Z I
         wrote: yes",
    );
}

#[test]
fn where_hints_are_ignored_they_are_comments() {
    let ground = Ground {
        hints: Hints::Ignore,
        ..Ground::default()
    };
    let transcript = "client: Q /* pgweir: primary */ select 1
         standby: Q /* pgweir: primary */ select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: Q /* pgweir: standby */ select f(1)
         primary: Q /* pgweir: standby */ select f(1)
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I
         client: Q SET pgweir.route = 'primary'
         primary: Q SET bytea_output TO '<no>'
         server: E 22023 \"<no>\" / Z I
         told: E 42501 / Z I";
    let no = "pgweir refuses the setting pgweir.route=primary";
    play_on(ground, &transcript.replace("<no>", no));
}

#[test]
fn a_listener_of_standbys_sends_everything_there() {
    let ground = Ground::default().of_listener(Route::Standby);
    play_on(
        ground,
        "client: Q /* pgweir: primary */ insert into t values (1)
         standby: Q /* pgweir: primary */ insert into t values (1)
         server: E 25006 / Z I
         told: E 25006 / Z I
         client: Q begin
         standby: Q begin
         server: C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q commit
         standby: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         client: P - select 1 / B - / E / H
         standby: P - select 1 / B - / E / H
         server: 1 / 2 / C SELECT 1
         told: 1 / 2 / C SELECT 1
         client: P - delete from t / B - / E / S
         standby: P - delete from t / B - / E / S
         server: 1 / 2 / E 25006 / Z I
         told: 1 / 2 / E 25006 / Z I
         client: Q SET pgweir.route = 'primary'
         standby: Q SET pgweir.route = 'primary'
         server: C SET / Z I
         told: C SET / Z I
         client: Q select 1
         standby: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I",
    );
}

/// A session whose transactions begin late.
fn late(read_only: bool) -> Script {
    late_with(Params::default(), read_only)
}

fn late_with(params: Params, read_only: bool) -> Script {
    let mut script = Script::with(params, 100);
    let params = script.session.params.clone();
    script.session =
        Session::new(params, Lexing::default(), false).with_deferred_begin(TransactionDefaults {
            isolation: Some(crate::sql::Isolation::ReadCommitted),
            read_only,
        });
    script
}

#[test]
fn a_begin_is_sent_with_the_first_statement() {
    late(false).play(
        "client: Q begin
         told: C BEGIN / Z T
         held: nothing
         client: Q select 1
         primary: Q BEGIN / Q select 1
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         held: nothing
         client: Q START TRANSACTION ISOLATION LEVEL REPEATABLE READ, NOT DEFERRABLE
         told: C START TRANSACTION / Z T
         client: P - insert into t values (1) / B - / E / S
         primary: Q BEGIN ISOLATION LEVEL REPEATABLE READ NOT DEFERRABLE / P - insert into t values (1) / B - / E / S
         server: C BEGIN / Z T / 1 / 2 / C INSERT 0 1 / Z T
         told: 1 / 2 / C INSERT 0 1 / Z T
         wrote: no
         client: P - commit / B - / E / S
         primary: P - commit / B - / E / S
         server: 1 / 2 / C COMMIT / Z I
         told: 1 / 2 / C COMMIT / Z I
         wrote: yes
         held: nothing",
    );
}

#[test]
fn a_transaction_without_a_statement_needs_no_server() {
    late(false).play(
        "client: Q begin / Q commit
         told: C BEGIN / Z T / C COMMIT / Z I
         client: Q begin / Q rollback and chain / Q set transaction read only / Q ; / Q end
         told: C BEGIN / Z T / C ROLLBACK / Z T / C SET / Z T / I / Z T / C COMMIT / Z I
         client: P - begin / B - / D - / E / S / P c commit / B c / E / S
         told: 1 / 2 / t / n / C BEGIN / Z T / 1 / 2 / C COMMIT / Z I
         client: P - begin / B - / E / P - rollback / B - / E / S
         told: 1 / 2 / C BEGIN / 1 / 2 / C ROLLBACK / Z I
         client: P b begin / D b / H / S
         told: 1 / t / n / Z I
         client: P - begin / B - / E / H
         told: 1 / 2 / C BEGIN
         client: S / C c / S
         told: Z T / 3 / Z T
         client: B c / E / S
         primary: Q BEGIN / B c / E / S
         server: C BEGIN / Z T / E 26000 / Z E
         told: E 26000 / Z E
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         held: nothing",
    );
}

#[test]
fn what_a_server_has_to_judge_goes_to_one() {
    // A BEGIN that it may refuse, one in a transaction, one among others, one behind what is on its way.
    late(false).play(
        "client: Q begin isolation level nonsense
         primary: Q begin isolation level nonsense
         server: E 42601 / Z I
         told: E 42601 / Z I
         client: Q commit
         primary: Q commit
         server: N / C COMMIT / Z I
         told: N / C COMMIT / Z I
         client: Q begin / Q begin
         told: C BEGIN / Z T
         primary: Q BEGIN / Q begin
         server: C BEGIN / Z T / N / C BEGIN / Z T
         told: N / C BEGIN / Z T
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         client: Q begin; insert into t values (1)
         primary: Q begin; insert into t values (1)
         server: C BEGIN / C INSERT 0 1 / Z T
         told: C BEGIN / C INSERT 0 1 / Z T
         client: Q commit / Q begin
         primary: Q commit / Q begin
         server: C COMMIT / Z I / C BEGIN / Z T
         told: C COMMIT / Z I / C BEGIN / Z T
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I
         client: P - begin / B - / E / P - select 1 / B - / E / S
         primary: P - begin / B - / E / P - select 1 / B - / E / S
         server: 1 / 2 / C BEGIN / 1 / 2 / D 1 / C SELECT 1 / Z T
         told: 1 / 2 / C BEGIN / 1 / 2 / D 1 / C SELECT 1 / Z T
         client: Q prepare transaction 'x'
         primary: Q prepare transaction 'x'
         server: C PREPARE TRANSACTION / Z I
         told: C PREPARE TRANSACTION / Z I
         wrote: yes
         client: Q begin / Q prepare transaction 'x'
         told: C BEGIN / Z T
         primary: Q BEGIN / Q prepare transaction 'x'
         server: C BEGIN / Z T / C PREPARE TRANSACTION / Z I
         told: C PREPARE TRANSACTION / Z I
         wrote: yes
         held: nothing",
    );
}

#[test]
fn a_session_that_has_its_server_watch_begins_at_once() {
    let mut params = Params::default();
    params.set(
        "idle_in_transaction_session_timeout",
        Value::Plain("1s".into()),
    );
    late_with(params, false).play(
        "client: Q begin
         primary: Q SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', '1s', false) / Q begin
         server: C SELECT 1 / Z I / C BEGIN / Z T
         told: C BEGIN / Z T
         client: Q rollback
         primary: Q rollback
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I",
    );
}

#[test]
fn a_read_only_transaction_is_placed_by_its_first_statement() {
    let check = |begin: &str, modes: &str, statement: &str, node: &str, read_only: bool| {
        let begun = if begin.starts_with("begin") {
            "C BEGIN / Z T"
        } else {
            "C BEGIN / Z T / C SET / Z T"
        };
        let begin = begin.replace("b; ", "begin / Q ");
        late(read_only).play(&format!(
            "client: Q {begin}
             told: {begun}
             client: Q {statement}
             {node}: Q BEGIN{modes} / Q {statement}"
        ));
    };
    check(
        "begin read only",
        " READ ONLY",
        "select 1",
        "standby",
        false,
    );
    check("begin", " READ ONLY", "select 1", "standby", true);
    check(
        "b; set transaction read only",
        " READ ONLY",
        "select 1",
        "standby",
        false,
    );
    check(
        "begin read only",
        " READ ONLY",
        "insert into t values (1)",
        "primary",
        false,
    );
    check(
        "begin read only",
        " READ ONLY",
        "select nextval('s')",
        "primary",
        false,
    );
    check(
        "begin read only",
        " READ ONLY",
        "savepoint a",
        "primary",
        false,
    );
    check(
        "begin read only",
        " READ ONLY",
        "set local work_mem = '1MB'",
        "standby",
        false,
    );
    check("begin", "", "set local work_mem = '1MB'", "primary", false);
    check("begin", "", "select 1", "primary", false);
    check(
        "begin read write",
        " READ WRITE",
        "select 1",
        "primary",
        true,
    );
    check(
        "b; set transaction read write",
        " READ WRITE",
        "select 1",
        "primary",
        true,
    );
    let repeatable = " ISOLATION LEVEL REPEATABLE READ READ ONLY";
    check(
        "begin isolation level repeatable read read only",
        repeatable,
        "select 1",
        "standby",
        false,
    );
    let level = " ISOLATION LEVEL REPEATABLE READ";
    check(
        "begin isolation level repeatable read",
        level,
        "select 1",
        "primary",
        false,
    );
    let serializable = " ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE";
    check(
        "begin isolation level serializable, read only, deferrable",
        serializable,
        "select 1",
        "primary",
        false,
    );
}

#[test]
fn transactions_of_a_session_that_is_serializable_or_read_only() {
    let mut script = late(false);
    script.play(
        "client: Q set session characteristics as transaction isolation level serializable
         primary: Q set session characteristics as transaction isolation level serializable
         server: C SET / Z I
         told: C SET / Z I
         client: Q begin read only
         told: C BEGIN / Z T
         client: Q select 1
         primary: Q BEGIN READ ONLY / Q select 1
         server: C BEGIN / Z T / T / C SELECT 0 / Z T
         told: T / C SELECT 0 / Z T
         client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I",
    );
    let mut params = Params::default();
    params.set("default_transaction_read_only", Value::Plain("on".into()));
    late_with(params, false).play(
        "client: Q begin
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q SELECT pg_catalog.set_config('default_transaction_read_only', 'on', false) / Q BEGIN READ ONLY / Q select 1",
    );
}

#[test]
fn a_transaction_that_has_only_read_moves_for_what_needs_the_primary() {
    late(false).play(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q set local work_mem = '1MB' -- more
         standby: Q BEGIN READ ONLY / Q set local work_mem = '1MB' -- more
         server: C BEGIN / Z T / C SET / Z T
         told: C SET / Z T
         client: Q select 1
         standby: Q select 1
         server: T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: Q set search_path = a
         standby: Q set search_path = a
         server: C SET / Z T
         told: C SET / Z T
         client: Q show work_mem
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN READ ONLY⏎;set local work_mem = '1MB' -- more⏎;set search_path = a / Q show work_mem
         server: C BEGIN / C SET / C SET / Z T / T / D 1 / C SHOW / Z T
         told: T / D 1 / C SHOW / Z T
         client: Q select 1
         primary: Q select 1
         server: T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         held: nothing
         client: Q select 2
         standby: Q SET search_path TO a / Q select 2",
    );
}

/// What the proxy puts before a block's beginning has an end of its own, which is not the block's.
#[test]
fn what_is_put_before_a_transaction_does_not_end_it() {
    let mut script = late(false);
    // Somebody else's name is on the connection.
    let id = crate::link::StatementId::NONE;
    script.links[1].own_names.insert(b"theirs", id);
    script.play(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q select 1
         standby: C theirs / S / Q BEGIN READ ONLY / Q select 1
         server: 3 / Z I / C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: Q create table t (n int)
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN READ ONLY / Q create table t (n int)",
    );
}

#[test]
fn a_transaction_waits_for_its_replies_before_it_moves() {
    late(false).play(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q select 1 / P - insert into t values (1) / B - / E / S
         standby: Q BEGIN READ ONLY / Q select 1
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN READ ONLY / P - insert into t values (1) / B - / E / S
         server: C BEGIN / Z T / 1 / 2 / E 25006 / Z E
         told: 1 / 2 / E 25006 / Z E
         client: Q commit
         primary: Q commit
         server: C ROLLBACK / Z I
         told: C ROLLBACK / Z I",
    );
}

#[test]
fn a_transaction_that_cannot_move_fails() {
    let refused = "P - pgweir has refused a statement of this transaction";
    let check = |begin: &str, modes: &str, ties: &str| {
        let mut script = late(false);
        script.play(&format!(
            "client: Q {begin}
             told: C BEGIN / Z T
             client: Q select 1
             standby: Q BEGIN{modes} / Q select 1
             server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
             told: T / D 1 / C SELECT 1 / Z T
             {ties}
             client: Q select f()
             standby: {refused} / S
             server: E 42601 / Z E
             told: E 25006 / Z E
             client: P - insert into t values (1) / B - / E / S
             standby: {refused} / S
             server: E 42601 / Z E
             told: E 25P02 / Z E
             client: Q selec
             standby: Q selec
             server: E 42601 / Z E
             told: E 42601 / Z E
             client: Q rollback
             standby: Q rollback
             server: C ROLLBACK / Z I
             told: C ROLLBACK / Z I
             standby: Q DISCARD ALL
             server: C DISCARD ALL / Z I
             held: nothing"
        ));
    };
    let tie = |statement: &str, tag: &str| {
        format!(
            "client: Q {statement}
             standby: Q {statement}
             server: C {tag} / Z T
             told: C {tag} / Z T"
        )
    };
    check(
        "begin read only",
        " READ ONLY",
        &tie("savepoint a", "SAVEPOINT"),
    );
    check(
        "begin read only",
        " READ ONLY",
        &tie("reset work_mem", "RESET"),
    );
    check(
        "begin isolation level repeatable read read only",
        " ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "held: standby",
    );
    // A portal that has more rows, and one that may have.
    check(
        "begin read only",
        " READ ONLY",
        "client: P - select 2 / B - / E / S
         standby: P - select 2 / B - / E / S
         server: 1 / 2 / D 1 / s / Z T
         told: 1 / 2 / D 1 / s / Z T",
    );
}

#[test]
fn a_savepoint_brings_a_refused_transaction_back() {
    let refused = "P - pgweir has refused a statement of this transaction";
    late(false).play(&format!(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q BEGIN READ ONLY / Q select 1
         server: C BEGIN / Z T / T / C SELECT 0 / Z T
         told: T / C SELECT 0 / Z T
         client: Q savepoint a
         standby: Q savepoint a
         server: C SAVEPOINT / Z T
         told: C SAVEPOINT / Z T
         client: P - select 2 / B - / E / P - select f() / B - / E / H
         standby: P - select 2 / B - / E / {refused}
         server: 1 / 2 / D 1 / C SELECT 1 / E 42601
         told: 1 / 2 / D 1 / C SELECT 1 / E 25006
         client: P - select 3 / S
         standby: S
         server: Z E
         told: Z E
         client: Q rollback to a
         standby: Q rollback to a
         server: C ROLLBACK / Z T
         told: C ROLLBACK / Z T
         client: Q select 2
         standby: Q select 2
         server: T / C SELECT 0 / Z T
         told: T / C SELECT 0 / Z T
         client: Q commit
         standby: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         held: nothing"
    ));
}

#[test]
fn a_transaction_says_anew_what_it_is() {
    // On a standby, before it has read: it moves.
    late(false).play(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q set local work_mem = '1MB'
         standby: Q BEGIN READ ONLY / Q set local work_mem = '1MB'
         server: C BEGIN / Z T / C SET / Z T
         told: C SET / Z T
         client: Q set transaction read write
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         told: C SET / Z T
         client: Q insert into t values (1)
         primary: Q BEGIN READ WRITE⏎;set local work_mem = '1MB' / Q insert into t values (1)",
    );
    // After it has read: the server says that it is too late, or has nothing against it. READ WRITE needs another place.
    let refused = "P - pgweir has refused a statement of this transaction";
    late(false).play(&format!(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q BEGIN READ ONLY / Q select 1
         server: C BEGIN / Z T / T / C SELECT 0 / Z T
         told: T / C SELECT 0 / Z T
         client: Q set transaction read only
         standby: Q set transaction read only
         server: C SET / Z T
         told: C SET / Z T
         client: Q set transaction read write
         standby: {refused} / S
         server: E 42601 / Z E
         told: E 25006 / Z E"
    ));
}

#[test]
fn a_chained_transaction_keeps_place_and_kind() {
    late(false).play(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q savepoint a
         primary: Q BEGIN READ ONLY / Q savepoint a
         server: C BEGIN / Z T / C SAVEPOINT / Z T
         told: C SAVEPOINT / Z T
         client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         client: Q begin read only
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q BEGIN READ ONLY / Q select 1
         server: C BEGIN / Z T / T / C SELECT 0 / Z T
         told: T / C SELECT 0 / Z T
         client: Q set local work_mem = '1MB'
         standby: Q set local work_mem = '1MB'
         server: C SET / Z T
         told: C SET / Z T
         client: Q savepoint a
         standby: Q savepoint a
         server: C SAVEPOINT / Z T
         told: C SAVEPOINT / Z T
         client: Q commit and chain
         standby: Q commit and chain
         server: C COMMIT / Z T
         told: C COMMIT / Z T
         held: standby
         client: Q show work_mem
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN READ ONLY / Q show work_mem",
    );
}

#[test]
fn a_transaction_that_finds_no_server_has_failed() {
    late(false).play(
        "client: Q begin
         told: C BEGIN / Z T
         down: yes
         client: Q select 1
         told: E 57P03 / Z E
         down: no
         client: Q select 1
         told: E 25P02 / Z E
         client: P - select 1 / B - / E / S
         told: E 25P02 / Z E
         client: P - select 1 / H
         told: E 25P02
         client: B - / S / F
         told: Z E / E 25P02 / Z E
         client: P - commit / B - / E / S
         told: 1 / 2 / C ROLLBACK / Z I
         held: nothing
         client: Q select 1
         standby: Q select 1",
    );
}

#[test]
fn a_transaction_whose_server_is_lost_with_its_first_statement() {
    let mut script = late(false);
    script.play(
        "client: Q begin
         told: C BEGIN / Z T
         client: Q select 1
         primary: Q BEGIN / Q select 1",
    );
    assert!(
        script.session.dies_with(&script.links[0]),
        "the client is in a transaction, though its server has not said so"
    );
    script.play("lost: no");
    // While it moves nothing hangs on the connection that it leaves, and its settings go with it.
    let mut script = late(false);
    script.play(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q BEGIN READ ONLY / Q select 1
         server: C BEGIN / Z T / T / C SELECT 0 / Z T
         told: T / C SELECT 0 / Z T
         client: Q set search_path = a
         standby: Q set search_path = a
         server: C SET / Z T
         told: C SET / Z T
         client: Q show work_mem
         standby: Q ROLLBACK",
    );
    assert!(!script.session.dies_with(&script.links[1]));
    script.play("lost: no").pump();
    script.play(
        "primary: Q BEGIN READ ONLY⏎;set search_path = a / Q show work_mem
         server: C BEGIN / C SET / Z T / T / C SHOW / Z T
         told: T / C SHOW / Z T
         client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I",
    );
    assert!(tracked(&script, "search_path").is_some());
}

#[test]
fn settings_that_are_refused_leave_the_transaction_unsent() {
    let mut params = Params::default();
    params.set("role", Value::Plain("r".into()));
    let setting = "SELECT pg_catalog.set_config('role', 'r', false)";
    let mut script = late_with(params, false);
    script.play(&format!(
        "client: Q begin
         told: C BEGIN / Z T
         client: Q select 1
         primary: Q BEGIN;{setting}⏎;COMMIT / Q BEGIN / Q select 1
         server: C BEGIN / E 22023 / Z E"
    ));
    script.pump();
    script.play(&format!(
        "primary: Q BEGIN;{setting}⏎;COMMIT / Q BEGIN / Q select 1
         server: C BEGIN / C SELECT 1 / C COMMIT / Z I / C BEGIN / Z T / T / C SELECT 0 / Z T
         told: T / C SELECT 0 / Z T"
    ));
}

#[test]
fn a_group_that_begins_read_only_and_reads_goes_to_a_standby() {
    // As pgjdbc has it.
    late(false).play(
        "client: P - begin read only / B - / E / P - select 1 / B - / D - / E / S
         standby: P - begin read only / B - / E / P - select 1 / B - / D - / E / S
         server: 1 / 2 / C BEGIN / 1 / 2 / T / D 1 / C SELECT 1 / Z T
         told: 1 / 2 / C BEGIN / 1 / 2 / T / D 1 / C SELECT 1 / Z T
         client: P - show work_mem / B - / E / S
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN READ ONLY / P - show work_mem / B - / E / S
         server: C BEGIN / Z T / 1 / 2 / D 1 / C SHOW / Z T
         told: 1 / 2 / D 1 / C SHOW / Z T
         client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         client: P - begin read only / B - / E / P - show work_mem / B - / E / S
         primary: P - begin read only / B - / E / P - show work_mem / B - / E / S",
    );
}

/// A BEGIN that was prepared has taken its connection before anything else came.
#[test]
fn what_would_tie_an_empty_transaction_to_a_standby_begins_it_on_the_primary() {
    let begun = "client: P b begin read only / S
         told: 1 / Z I
         client: B b / E / S
         standby: P pgw_1 begin read only / B pgw_1 / E / S
         server: 1 / 2 / C BEGIN / Z T
         told: 2 / C BEGIN / Z T";
    let moves = "standby: Q ROLLBACK
         server: C ROLLBACK / Z I";
    late(false).play(&format!(
        "{begun}
         client: Q savepoint a
         {moves}
         primary: Q BEGIN READ ONLY / Q savepoint a"
    ));
    late(false).play(&format!(
        "{begun}
         client: P - select 1 / B - / E / P s savepoint a / S
         {moves}
         primary: Q BEGIN READ ONLY / P - select 1 / B - / E / P pgw_3 savepoint a / S"
    ));
    // What can be repeated elsewhere, and what may be taken back.
    late(false).play(&format!(
        "{begun}
         client: Q set work_mem = '1MB'
         standby: Q set work_mem = '1MB'
         server: C SET / Z T
         told: C SET / Z T
         client: P - select 1 / B - / E / P - commit / B - / E / S
         standby: P - select 1 / B - / E / P - commit / B - / E / S"
    ));
}

#[test]
fn a_mixed_pipeline_fails_its_transaction() {
    let refused = "P - pgweir has refused a statement of this transaction";
    late(false).play(&format!(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: P - select 1 / B - / E / H
         standby: Q BEGIN READ ONLY / P - select 1 / B - / E / H
         server: C BEGIN / Z T / 1 / 2 / D 1 / C SELECT 1
         told: 1 / 2 / D 1 / C SELECT 1
         client: P - show work_mem / B - / E / S
         standby: {refused} / S
         server: E 42601 / Z E
         told: E 0A000 / Z E"
    ));
}

// ── what a standby refuses ───────────────────────────────────────────────────────────────────────────────────────────

/// Plays a transcript in which what a standby refuses runs elsewhere.
fn bounce(transcript: &str) -> Script {
    let mut script = Script::new();
    script.bouncing = true;
    script.play(transcript);
    script
}

/// Of a pipeline that has been answered in part, what was refused is to blame, and nothing else.
#[test]
fn what_was_answered_is_not_to_blame() {
    let script = bounce(
        "client: P - select 1 / B - / E / P - select a from v / B - / E / P - select 2 / B - / E / S
         standby: P - select 1 / B - / E / P - select a from v / B - / E / P - select 2 / B - / E / S
         server: 1 / 2 / D 1 / C SELECT 1 / 1 / 2 / E 25006 / Z I
         told: 1 / 2 / D 1 / C SELECT 1 / 1 / 2 / E 25006 / Z I
         client: Q select 1
         standby: Q select 1
         server: T / C SELECT 0 / Z I
         told: T / C SELECT 0 / Z I
         client: Q select 2
         standby: Q select 2
         server: T / C SELECT 0 / Z I
         told: T / C SELECT 0 / Z I
         client: Q select a from v
         primary: Q select a from v",
    );
    assert_eq!(script.classifier.learned(), 1);
}

#[test]
fn what_a_standby_refuses_runs_on_the_primary() {
    let script = bounce(
        "client: Q select a from v
         standby: Q select a from v
         server: T
         server: E 25006 / Z I
         bounced: read_only
         primary: Q select a from v
         held: primary
         server: T / D 1 / C SELECT 1 / Z I
         told: T / D 1 / C SELECT 1 / Z I
         wrote: yes
         client: Q select a from v
         primary: Q select a from v
         server: T / D 1 / C SELECT 1 / Z I
         told: T / D 1 / C SELECT 1 / Z I
         wrote: yes",
    );
    assert_eq!(script.classifier.learned(), 1);
    bounce(
        "client: P - select a from v / B - / D - / E / S
         standby: P - select a from v / B - / D - / E / S
         server: 1 / 2 / T
         server: E 25006 / Z I
         bounced: read_only
         primary: P - select a from v / B - / D - / E / S
         server: 1 / 2 / T / D 1 / C SELECT 1 / Z I
         told: 1 / 2 / T / D 1 / C SELECT 1 / Z I
         wrote: yes",
    );
}

#[test]
fn what_is_not_there_yet_is_not_learned() {
    bounce(
        "client: P s select a from t / D s / S
         standby: P pgw_1 select a from t / D pgw_1 / S
         server: E 42P01 / Z I
         bounced: undefined
         primary: P pgw_1 select a from t / D pgw_1 / S
         server: 1 / t / T / Z I
         told: 1 / t / T / Z I
         client: B s / E / S
         standby: P pgw_1 select a from t / B pgw_1 / E / S
         server: 1 / 2 / C SELECT 0 / Z I
         told: 2 / C SELECT 0 / Z I",
    );
}

/// The client's name was given, or taken, by an answer that it has not seen.
#[test]
fn names_are_given_again() {
    let script = bounce(
        "client: P s select a from v / B s / E / S
         standby: P pgw_1 select a from v / B pgw_1 / E / S
         server: 1 / 2
         server: E 25006 / Z I
         bounced: read_only
         primary: P pgw_1 select a from v / B pgw_1 / E / S
         server: 1 / 2 / C SELECT 0 / Z I
         told: 1 / 2 / C SELECT 0 / Z I
         wrote: yes
         client: P t select 1 / S
         standby: P pgw_2 select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: C t / P t select b from v / B t / E / S
         standby: P pgw_3 select b from v / B pgw_3 / E / S
         server: 1 / 2
         server: E 42P01 / Z I
         bounced: undefined
         primary: P pgw_3 select b from v / B pgw_3 / E / S
         told: 3
         server: 1 / 2 / C SELECT 0 / Z I
         told: 1 / 2 / C SELECT 0 / Z I",
    );
    let text = script.session.prepared(b"t").map(|known| known.text());
    assert_eq!(text, Some(&b"select b from v"[..]));
}

/// The unnamed statement of the unit behind is not the one that the unit in front runs.
#[test]
fn the_unnamed_statement_is_the_one_of_its_time() {
    bounce(
        "client: P - select 1 / S
         standby: P - select 1 / S
         server: 1 / Z I
         told: 1 / Z I
         client: B - / E / S / P - select 2 / S / B - / E / S
         standby: B - / E / S / P - select 2 / S / B - / E / S
         server: 2 / E 40001 / Z I / 1 / Z I / 2 / C SELECT 2 / Z I
         bounced: conflict
         primary: P - select 1 / B - / E / S / P - select 2 / S / B - / E / S
         server: 1 / 2 / C SELECT 1 / Z I / 1 / Z I / 2 / C SELECT 2 / Z I
         told: 2 / C SELECT 1 / Z I / 1 / Z I / 2 / C SELECT 2 / Z I",
    );
}

#[test]
fn what_has_been_shown_stays() {
    bounce(
        "client: Q select a from v
         standby: Q select a from v
         server: T / D 1
         told: T / D 1
         server: E 25006 / Z I
         told: E 25006 / Z I
         client: Q select a from v
         primary: Q select a from v
         server: T / D 1 / C SELECT 1 / Z I
         told: T / D 1 / C SELECT 1 / Z I
         wrote: yes",
    );
    // Of two statements the first has been answered; copied data; an error that is the same anywhere.
    for (unit, replies) in [
        ("Q select 1; select 2", "T / C SELECT 1 / E 40001 / Z I"),
        ("Q select 1", "H / E 40001 / Z I"),
        ("Q select 1", "T / E 22012 / Z I"),
        ("Q select 1", "I / Z I"),
    ] {
        bounce(&format!(
            "client: {unit}
             standby: {unit}
             server: {replies}
             told: {replies}
             held: nothing"
        ));
    }
}

/// What is behind a refused unit has not been answered either; its order stays.
#[test]
fn a_pipeline_keeps_its_order() {
    bounce(
        "client: Q select 1 / P s select a from v / B s / E / S / Q select 3
         standby: Q select 1 / P pgw_1 select a from v / B pgw_1 / E / S / Q select 3
         server: T / D 1 / C SELECT 1 / Z I / 1 / 2
         told: T / D 1 / C SELECT 1 / Z I
         client: Q select 4
         standby: Q select 4
         server: E 42P01 / Z I / T / D 3
         client: Q insert into t
         server: C SELECT 1 / Z I / T / D 4 / C SELECT 1 / Z I
         bounced: undefined
         primary: P pgw_1 select a from v / B pgw_1 / E / S / Q select 3 / Q select 4 / Q insert into t
         server: 1 / 2 / C SELECT 0 / Z I / T / D 3 / C SELECT 1 / Z I
         told: 1 / 2 / C SELECT 0 / Z I / T / D 3 / C SELECT 1 / Z I
         server: T / D 4 / C SELECT 1 / Z I / C INSERT 0 1 / Z I
         told: T / D 4 / C SELECT 1 / Z I / C INSERT 0 1 / Z I
         wrote: yes",
    );
}

#[test]
fn a_standby_that_vanishes_before_its_first_row() {
    bounce(
        "client: P s select 1 / B s / D s / E / S
         standby: P pgw_1 select 1 / B pgw_1 / D pgw_1 / E / S
         server: 1 / 2 / T
         vanished:
         bounced: lost
         primary: P pgw_1 select 1 / B pgw_1 / D pgw_1 / E / S
         server: 1 / 2 / T / D 1 / C SELECT 1 / Z I
         told: 1 / 2 / T / D 1 / C SELECT 1 / Z I",
    );
    bounce(
        "client: Q select 1
         standby: Q select 1
         server: T / F 57P01
         vanished:
         bounced: shutdown
         primary: Q select 1
         server: T / C SELECT 1 / Z I
         told: T / C SELECT 1 / Z I",
    );
}

/// What is news whatever becomes of a unit is not held back with it.
#[test]
fn parameters_do_not_wait_for_a_row() {
    bounce(
        "client: Q select 1
         standby: Q select 1
         server: T / S TimeZone UTC / S in_hot_standby on
         told: S TimeZone UTC
         server: D 1 / C SELECT 1 / Z I
         told: T / D 1 / C SELECT 1 / Z I",
    );
}

/// A unit that is not kept, because it does not fit or asks for an answer by Flush, leaves those before it where they are.
#[test]
fn what_is_not_kept_does_not_move() {
    let long = format!("Q select '{}'", "x".repeat(PIPELINE_BUFFER));
    for behind in [&long[..], "P - select 2 / B - / E / H"] {
        let mut script = Script::new();
        script.bouncing = true;
        script.play(
            "client: Q select 1
             standby: Q select 1
             server: T",
        );
        script.client(&write(behind, CLIENT));
        script.sent = Default::default();
        script.server(&write("E 40001 / Z I", SERVER));
        assert_eq!(show(&script.told, SERVER), "T / E 40001 / Z I", "{behind}");
    }
}

/// Names that a group changes and uses are the server's to judge: every message of it is answered, and nothing is done that
/// the server would not do.
#[test]
fn a_group_that_changes_a_name_and_uses_it_goes_to_the_server() {
    for group in [
        "P a begin / B a / E / P a end / S",
        "C b / B b / E / S",
        "C b / D b / S",
        "C b / P b begin / S",
    ] {
        let mut script = late(false);
        script.play(
            "client: P b begin / S
             told: 1 / Z I",
        );
        script.client(&write(group, CLIENT));
        // But for a Close, which any server would answer so.
        let told = show(&script.told, SERVER);
        assert!(matches!(&*told, "" | "3"), "{group}: {told}");
        assert!(script.held.is_some(), "{group}: it has a server");
    }
}

/// The portal that a Close names is gone when Execute comes to it.
#[test]
fn a_portal_that_was_closed_is_not_executed() {
    let mut script = late(false);
    script.play(
        "client: Q begin
         told: C BEGIN / Z T
         client: P - commit / S
         told: 1 / Z T",
    );
    let mut group = write("B -", CLIENT);
    put_header(&mut group, b'C', 2);
    group.extend_from_slice(b"P\0");
    group.extend_from_slice(&write("E / S", CLIENT));
    script.client(&group);
    assert_eq!(show(&script.told, SERVER), "", "the COMMIT is not done");
    assert!(script.held.is_some());
}

/// A program that prepares its statements, and waits for that alone, may hold all connections by its other sessions: one
/// whose BEGIN is prepared has its own before anything else is.
#[test]
fn a_prepared_begin_takes_a_connection() {
    let mut script = late(false);
    script.play(
        "client: P b begin / S
         told: 1 / Z I
         held: nothing",
    );
    script.client(&write("B b / E / S", CLIENT));
    assert_eq!(show(&script.told, SERVER), "");
    assert_eq!(script.held, Some(Node::Primary));
}

// ── the first unit of a READ ONLY transaction, and the last ──────────────────────────────────────────────────────────

fn late_bounce(transcript: &str) -> Script {
    let mut script = late(false);
    script.bouncing = true;
    script.play(transcript);
    script
}

#[test]
fn a_transaction_begins_again_where_its_first_statement_can_run() {
    let script = late_bounce(
        "client: Q begin isolation level repeatable read, read only
         told: C BEGIN / Z T
         client: Q select a from v
         standby: Q BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY / Q select a from v
         server: C BEGIN / Z T / T / E 25006 / Z E
         bounced: read_only
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY / Q select a from v
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: Q select 1
         primary: Q select 1
         server: T / C SELECT 0 / Z T
         told: T / C SELECT 0 / Z T
         client: Q commit
         primary: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / Z I
         held: nothing",
    );
    assert_eq!(script.classifier.learned(), 1);
    late_bounce(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: P - select a from v / B - / D - / E / S
         standby: Q BEGIN READ ONLY / P - select a from v / B - / D - / E / S
         vanished:
         bounced: lost
         primary: Q BEGIN READ ONLY / P - select a from v / B - / D - / E / S
         server: C BEGIN / Z T / 1 / 2 / T / C SELECT 0 / Z T
         told: 1 / 2 / T / C SELECT 0 / Z T",
    );
}

#[test]
fn a_transaction_of_one_snapshot_that_its_client_has_seen_stays() {
    late_bounce(
        "client: Q begin isolation level repeatable read read only
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY / Q select 1
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: Q select a from v
         standby: Q select a from v
         server: E 25006 / Z E
         told: E 25006 / Z E",
    );
}

#[test]
fn what_is_behind_a_refused_statement_on_its_way_moves_with_it() {
    late_bounce(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q select a from v / Q select 1
         standby: Q BEGIN READ ONLY / Q select a from v / Q select 1
         server: C BEGIN / Z T / E 25006 / Z E / E 25P02 / Z E
         bounced: read_only
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN READ ONLY / Q select a from v / Q select 1
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T / T / C SELECT 0 / Z T
         told: T / D 1 / C SELECT 1 / Z T / T / C SELECT 0 / Z T",
    );
}

#[test]
fn a_transaction_that_stays_shows_what_it_is() {
    let begin = "client: Q begin isolation level repeatable read read only
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY / Q select 1
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T";
    let check = |then: &str| _ = late(false).play(begin).play(then);
    for text in [
        "show transaction isolation level",
        "show all",
        "select current_setting('work_mem')",
        "select 1 from pg_class",
    ] {
        check(&format!(
            "client: Q {text}
             standby: Q {text}
             server: T / D 1 / C SELECT 1 / Z T
             told: T / D 1 / C SELECT 1 / Z T"
        ));
    }
    check(
        "client: P - show transaction_isolation / B - / D - / E / S
         standby: P - show transaction_isolation / B - / D - / E / S
         server: 1 / 2 / T / D 1 / C SHOW / Z T
         told: 1 / 2 / T / D 1 / C SHOW / Z T",
    );
    for text in [
        "select f()",
        "select nextval('s')",
        "select pg_advisory_lock(1)",
    ] {
        check(&format!(
            "client: Q {text}
             standby: P - pgweir has refused a statement of this transaction / S
             server: E 42601 / Z E
             told: E 25006 / Z E"
        ));
    }
}

#[test]
fn a_transaction_that_may_move_goes_on_where_its_statement_can_run() {
    let begun = "client: Q begin read only
         told: C BEGIN / Z T
         client: Q set local work_mem = '1MB'
         standby: Q BEGIN READ ONLY / Q set local work_mem = '1MB'
         server: C BEGIN / Z T / C SET / Z T
         told: C SET / Z T
         client: Q select 1
         standby: Q select 1
         server: T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: Q select a from v
         standby: Q select a from v";
    let again = "primary: Q BEGIN READ ONLY⏎;set local work_mem = '1MB' / Q select a from v
         server: C BEGIN / C SET / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: Q select 1
         primary: Q select 1
         server: T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T";
    let play = |then: &str| {
        let mut script = late(false);
        script.bouncing = true;
        script.play(&format!("{begun}\n{then}"));
    };
    let moved = |how: &str| play(&format!("{how}\n{again}"));
    moved(
        "server: T / E 40001 / Z E
         bounced: conflict
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I",
    );
    moved(
        "server: T / E 25006 / Z E
         bounced: read_only
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I",
    );
    moved("vanished:\nbounced: lost");
    // A row has been shown.
    play(
        "server: T / D 1 / E 40001 / Z E
         told: T / D 1 / E 40001 / Z E",
    );
    // What ties it to its connection would be lost.
    late_bounce(
        "client: Q begin read only
         told: C BEGIN / Z T
         client: Q declare c cursor for select 1
         standby: Q BEGIN READ ONLY / Q declare c cursor for select 1
         server: C BEGIN / Z T / C DECLARE CURSOR / Z T
         told: C DECLARE CURSOR / Z T
         client: Q select a from v
         standby: Q select a from v
         server: E 25006 / Z E
         told: E 25006 / Z E",
    );
}

#[test]
fn the_end_of_a_transaction_on_a_standby_may_stand_among_others() {
    let begin = "client: Q begin isolation level repeatable read read only
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY / Q select 1
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T";
    let check = |then: &str| _ = late(false).play(begin).play(then);
    check(
        "client: Q select 2; commit
         standby: Q select 2; commit
         server: T / D 2 / C SELECT 1 / C COMMIT / Z I
         told: T / D 2 / C SELECT 1 / C COMMIT / Z I
         wrote: no
         held: nothing",
    );
    check(
        "client: Q commit; begin
         standby: Q commit
         server: C COMMIT / Z I
         told: C COMMIT / C BEGIN / Z T
         held: nothing
         client: Q insert into t values (1)
         primary: Q BEGIN / Q insert into t values (1)
         server: C BEGIN / Z T / C INSERT 0 1 / Z T
         told: C INSERT 0 1 / Z T",
    );
    check(
        "client: Q select 2; rollback; insert into t values (1); select 3 / Q select 4
         standby: Q select 2; rollback
         server: T / D 2 / C SELECT 1 / C ROLLBACK / Z I
         told: T / D 2 / C SELECT 1 / C ROLLBACK
         primary: Q insert into t values (1); select 3 / Q select 4
         server: C INSERT 0 1 / T / D 3 / C SELECT 1 / Z I
         told: C INSERT 0 1 / T / D 3 / C SELECT 1 / Z I
         wrote: yes
         server: T / D 4 / C SELECT 1 / Z I
         told: T / D 4 / C SELECT 1 / Z I",
    );
    // What fails before the end takes all of it along.
    check(
        "client: Q select 2; commit; begin
         standby: Q select 2; commit
         server: E 22012 / Z E
         told: E 22012 / Z E
         client: Q commit; begin
         standby: Q commit
         server: C ROLLBACK / Z I
         told: C ROLLBACK / C BEGIN / Z T
         held: nothing",
    );
    for cannot in [
        "select nextval('s'); commit",
        "commit and chain; select 1",
        "select 2; show work_mem; commit",
    ] {
        check(&format!(
            "client: Q {cannot}
             standby: P - pgweir has refused a statement of this transaction / S
             server: E 42601 / Z E
             told: E 25006 / Z E"
        ));
    }
    let mut script = late(false);
    script.play(begin);
    script.play("client: Q commit; begin\nstandby: Q commit");
    assert!(!script.lost());
    assert!(!script.session.awaits_rest());
}

// ── EXECUTE ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_execute_goes_where_its_statement_does() {
    play(
        "client: Q prepare p (int) as select $1
         primary: Q prepare p (int) as select $1
         server: C PREPARE / Z I
         told: C PREPARE / Z I
         client: Q execute p (1)
         standby: P pgw_again prepare p (int) as select $1 / B pgw_again / E / C pgw_again / C pgw_again / S / Q execute p (1)
         server: 1 / 2 / C PREPARE / 3 / 3 / Z I / T / D 1 / C SELECT 1 / Z I
         told: T / D 1 / C SELECT 1 / Z I
         client: P - explain execute p (1) / B - / E / S
         standby: P - explain execute p (1) / B - / E / S
         server: 1 / 2 / T / D 1 / C EXPLAIN / Z I
         told: 1 / 2 / T / D 1 / C EXPLAIN / Z I
         client: Q execute p (nextval('s'))
         primary: Q execute p (nextval('s'))
         server: T / D 1 / C SELECT 1 / Z I
         told: T / D 1 / C SELECT 1 / Z I
         wrote: yes",
    );
}

// ── optimistic transactions ──────────────────────────────────────────────────────────────────────────────────────────

fn optimistic(transcript: &str) {
    let mut script = late(false);
    script.session.lateness.optimistic = true;
    script.bouncing = true;
    script.play(transcript);
}

#[test]
fn an_optimistic_transaction_reads_from_a_standby_until_it_does_anything_else() {
    let reads = "client: Q begin
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q BEGIN READ ONLY / Q select 1
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: P s select a from t / B s / E / S
         standby: P pgw_1 select a from t / B pgw_1 / E / S
         server: 1 / 2 / C SELECT 0 / Z T
         told: 1 / 2 / C SELECT 0 / Z T";
    for (statement, tag) in [
        ("insert into t values (1)", "INSERT 0 1"),
        ("savepoint a", "SAVEPOINT"),
        ("set local work_mem = '1MB'", "SET"),
        ("declare c cursor for select 1", "DECLARE CURSOR"),
        ("select nextval('s')", "SELECT 1"),
        ("show transaction_read_only", "SHOW"),
        ("select 1 from pg_class", "SELECT 1"),
    ] {
        optimistic(&format!(
            "{reads}
             client: Q {statement}
             standby: Q ROLLBACK
             server: C ROLLBACK / Z I
             primary: Q BEGIN / Q {statement}
             server: C BEGIN / Z T / C {tag} / Z T
             told: C {tag} / Z T
             client: Q select 1
             primary: Q select 1
             server: T / D 1 / C SELECT 1 / Z T
             told: T / D 1 / C SELECT 1 / Z T
             client: Q commit
             primary: Q commit
             server: C COMMIT / Z I
             told: C COMMIT / Z I
             held: nothing"
        ));
    }
    optimistic(&format!(
        "{reads}
         client: P - insert into t values (1) / B - / E / S
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN / P - insert into t values (1) / B - / E / S
         server: C BEGIN / Z T / 1 / 2 / C INSERT 0 1 / Z T
         told: 1 / 2 / C INSERT 0 1 / Z T"
    ));
    for end in ["commit", "rollback"] {
        let tag = end.to_uppercase();
        optimistic(&format!(
            "{reads}
             client: Q {end}
             standby: Q {end}
             server: C {tag} / Z I
             told: C {tag} / Z I
             wrote: no
             held: nothing"
        ));
        optimistic(&format!(
            "{reads}
             client: P - {end} / B - / E / S
             standby: P - {end} / B - / E / S
             server: 1 / 2 / C {tag} / Z I
             told: 1 / 2 / C {tag} / Z I
             held: nothing"
        ));
    }
    // What says what the transaction is, or what the next one is, can be answered on the way.
    for (statement, tag) in [
        ("set transaction read write", "SET"),
        ("commit and chain", "COMMIT"),
    ] {
        optimistic(&format!(
            "{reads}
             client: Q {statement}
             standby: Q ROLLBACK
             server: C ROLLBACK / Z I
             told: C {tag} / Z T
             held: nothing"
        ));
    }
    // What a standby refuses it moves for, too: it may write.
    optimistic(&format!(
        "{reads}
         client: Q select a from v
         standby: Q select a from v
         server: T / E 25006 / Z E
         bounced: read_only
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN / Q select a from v
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T"
    ));
    // Too late on any server.
    optimistic(&format!(
        "{reads}
         client: Q set transaction isolation level serializable
         standby: Q set transaction isolation level serializable
         server: E 25001 / Z E
         told: E 25001 / Z E"
    ));
}

#[test]
fn what_no_optimistic_transaction_begins_with() {
    for (begin, first) in [
        ("BEGIN", "insert into t values (1)"),
        ("BEGIN", "set local work_mem = '1MB'"),
        ("BEGIN", "savepoint a"),
        ("BEGIN", "declare c cursor for select 1"),
        ("BEGIN", "select 1; select nextval('s')"),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", "select 1"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "select 1"),
    ] {
        optimistic(&format!(
            "client: Q {begin}
             told: C BEGIN / Z T
             client: Q {first}
             primary: Q {begin} / Q {first}"
        ));
    }
    // A cursor by the protocol: a portal with a name, or one that is left open.
    optimistic(
        "client: Q begin
         told: C BEGIN / Z T
         client: P - select 1 / B - / E / H
         primary: Q BEGIN / P - select 1 / B - / E / H",
    );
    // Explicitly so, and on a standby nevertheless: it is told otherwise there.
    optimistic(
        "client: Q begin isolation level read committed read write
         told: C BEGIN / Z T
         client: Q select 1
         standby: Q BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY / Q select 1
         server: C BEGIN / Z T / T / D 1 / C SELECT 1 / Z T
         told: T / D 1 / C SELECT 1 / Z T
         client: Q delete from t
         standby: Q ROLLBACK
         server: C ROLLBACK / Z I
         primary: Q BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE / Q delete from t",
    );
    let mut script = late(false);
    script.session.lateness.optimistic = true;
    script.play("client: Q begin\ntold: C BEGIN / Z T");
    assert!(script.session.is_optimistic());
    let class = Class::plain(Access::Read, crate::sql::Reason::Read);
    let policy = script.session.policy(class);
    assert_eq!(policy.consistency, crate::config::Consistency::Session);
}

/// A group of as many statements without a verdict.
fn long_group(statements: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for number in 0..statements {
        out.extend(write(
            &format!("P - select a{number} from t / B - / E"),
            CLIENT,
        ));
    }
    out
}

/// However it comes, each text is looked at once, and by portions if there are many.
#[test]
fn a_long_group_is_judged_once() {
    const STATEMENTS: usize = 200;
    let unfinished = long_group(STATEMENTS);
    let group = [&unfinished[..], &write("S", CLIENT)].concat();
    assert!(unfinished.len() > 2 * front::LONG_GROUP);
    for piece in [group.len(), 1000, 7] {
        let (classifier, statements) = (Classifier::new(1 << 20), Statements::new(1 << 20));
        let context = Context {
            pipeline_buffer: 1 << 20,
            ..context(&classifier, &statements)
        };
        // Whose server lexes in another way, asks for the verdict on a text each time that it is looked at.
        let lexing = Lexing {
            standard_conforming_strings: false,
            ..Lexing::default()
        };
        let mut session = Session::new(Arc::default(), lexing, false);
        let (mut len, mut later, mut replies) = (piece, 0, Vec::new());
        let class = loop {
            match session.next(&group[..len], None, context, &mut replies) {
                Next::More => len = (len + piece).min(group.len()),
                Next::Later => later += 1,
                Next::Place { len, class } => {
                    assert_eq!(len, group.len());
                    break class;
                }
                next => panic!("{next:?}"),
            }
        };
        assert_eq!(class.access, Access::Read);
        assert_eq!(classifier.misses(), STATEMENTS as u64);
        if piece == group.len() {
            assert_eq!(later, STATEMENTS as u64 / front::MOST_NEW);
        }
        // It is asked for twice each time; only the beginning of the group has been looked at again.
        let again = front::LONG_GROUP / piece * front::LONG_GROUP / 40;
        let most = (STATEMENTS + 2 * again) as u64;
        assert!(classifier.hits() <= most, "{}", classifier.hits());
    }
}

/// A refusal has changed what a text is taken for.
#[test]
fn what_is_known_of_a_group_holds_as_long_as_nothing_is_learned() {
    let (classifier, statements) = (Classifier::new(1 << 20), Statements::new(1 << 20));
    let context = Context {
        pipeline_buffer: 1 << 20,
        ..context(&classifier, &statements)
    };
    let group = [long_group(200), write("S", CLIENT)].concat();
    let mut session = Script::new().session;
    let mut next = |input| session.next(input, None, context, &mut Vec::new());
    while next(&group[..group.len() / 2]) != Next::More {}
    let classify = || panic!("it is known");
    statements
        .intern(b"select a1 from t\0\0\0", classify)
        .learn();
    classifier.learn(b"select a1 from t", Lexing::default(), context.catalog);
    let mut whole = next(&group);
    while whole == Next::Later {
        whole = next(&group);
    }
    let Next::Place { class, .. } = whole else {
        panic!("{whole:?}");
    };
    assert_eq!(class.access, Access::Write);
}
