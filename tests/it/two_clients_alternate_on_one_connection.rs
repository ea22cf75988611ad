//! Two clients that differ in all that a session can differ in take turns on one server connection: each gets its own
//! answers, and no turn costs a round trip more than without the other.
//!
//! The connection passes through a relay that counts: how often somebody speaks after the server has, and the messages.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use pgweir::config;
use pgweir::testbed::{Cluster, Message, RawClient, request};

use crate::support::Rig;

/// Turns of `make test`: some seconds.
const TURNS: usize = 20_000;

/// With `PGWEIR_LONG=1`.
const LONG: usize = 100_000;

/// Turns until every statement is prepared and every plan made.
const WARM_UP: usize = 60;

const DATABASE: &str = "shop";

/// What has gone to the server on connections to the database of the clients.
#[derive(Debug, Default)]
struct Counts {
    /// How often bytes have come that the server had not answered yet, after it had said something.
    rounds: AtomicU64,
    messages: AtomicU64,
    connections: AtomicU64,
}

impl Counts {
    fn now(&self) -> (u64, u64) {
        let (rounds, messages) = (&self.rounds, &self.messages);
        (
            rounds.load(Ordering::SeqCst),
            messages.load(Ordering::SeqCst),
        )
    }
}

/// Relays each connection to `server` on two threads, which end with it.
fn relay(server: SocketAddr) -> (SocketAddr, Arc<Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(Counts::default());
    let shared = counts.clone();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(server) else {
                continue;
            };
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            let answered = Arc::new(AtomicBool::new(true));
            let back = (
                server.try_clone().unwrap(),
                client.try_clone().unwrap(),
                answered.clone(),
            );
            let counts = shared.clone();
            thread::spawn(move || forth(client, server, &answered, &counts));
            thread::spawn(move || {
                let (server, client, answered) = back;
                // Noted before it is passed on: what it brings about comes later.
                pass(server, client, |_| answered.store(true, Ordering::SeqCst));
            });
        }
    });
    (address, counts)
}

/// The way to the server.
fn forth(client: TcpStream, server: TcpStream, answered: &AtomicBool, counts: &Counts) {
    let mut frames = Frames::default();
    let mut counted = None;
    pass(client, server, |bytes| {
        let counted = *counted.get_or_insert_with(|| {
            let names = |name: &str| {
                bytes
                    .windows(name.len())
                    .any(|there| there == name.as_bytes())
            };
            // The catalog is read beside the clients' connections.
            let counted = names(DATABASE) && !names("pgweir catalog");
            counts
                .connections
                .fetch_add(u64::from(counted), Ordering::SeqCst);
            counted
        });
        let messages = frames.count(bytes);
        if counted {
            counts.messages.fetch_add(messages, Ordering::SeqCst);
            let round = answered.swap(false, Ordering::SeqCst);
            counts.rounds.fetch_add(u64::from(round), Ordering::SeqCst);
        }
    });
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        note(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Whoever has gone already needs no goodbye.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Counts the messages of a stream that begins with a startup packet, which has no tag.
#[derive(Default)]
struct Frames {
    started: bool,
    header: Vec<u8>,
    left: usize,
}

impl Frames {
    fn count(&mut self, bytes: &[u8]) -> u64 {
        let mut messages = 0;
        for byte in bytes {
            if self.left > 0 {
                self.left -= 1;
                continue;
            }
            self.header.push(*byte);
            let tag = usize::from(self.started);
            if self.header.len() == tag + 4 {
                let length = u32::from_be_bytes(self.header[tag..].try_into().unwrap());
                self.left = usize::try_from(length).unwrap() - 4;
                self.header.clear();
                self.started = true;
                messages += 1;
            }
        }
        messages
    }
}

/// One of the two.
struct Player {
    client: RawClient,
    /// What each of its answers must begin with.
    mark: String,
}

/// What a player asks in a turn, the number of its messages among it.
struct Turn {
    flight: Vec<u8>,
    messages: u64,
}

impl Player {
    /// The statements of both have the same names, and one has the same text, too.
    fn new(rig: &Rig, name: &str, settings: &[&str], mark: &str) -> Player {
        let mut client = rig.client(DATABASE);
        for sql in settings {
            client.query(sql).unwrap();
        }
        let own = format!("SELECT '{name}', {FACTS}, $1::text");
        let flight = [
            request::parse("own", own, &[]),
            request::parse(
                "common",
                format!("SELECT owner, {FACTS}, $1::text FROM house"),
                &[],
            ),
            request::sync(),
        ];
        client.send(&flight.concat()).unwrap();
        client.recv_until_ready().unwrap();
        Player {
            client,
            mark: mark.to_owned(),
        }
    }

    fn plays(&mut self, turn: usize) -> u64 {
        let number = turn.to_string();
        let run = |name: &str| Turn {
            flight: [
                request::bind("", name, &[Some(&number)]),
                request::execute("", 0),
                request::sync(),
            ]
            .concat(),
            messages: 3,
        };
        let Turn { flight, messages } = match turn / 2 % 3 {
            0 => run("own"),
            1 => run("common"),
            _ => Turn {
                flight: request::query(format!("SELECT owner, {FACTS}, '{number}' FROM house")),
                messages: 1,
            },
        };
        self.client.send(&flight).unwrap();
        let answer = self.client.recv_until_ready().unwrap();
        let rows: Vec<&Message> = answer
            .iter()
            .filter(|message| message.tag == b'D')
            .collect();
        assert_eq!(rows.len(), 1, "turn {turn}: {answer:?}");
        let row = rows[0].text_row().unwrap();
        let words: Vec<String> = row.into_iter().map(Option::unwrap).collect();
        assert_eq!(
            words.join(" "),
            format!("{} {number}", self.mark),
            "turn {turn}"
        );
        messages
    }
}

/// What a session is, as its statements see it.
const FACTS: &str = "current_user, current_setting('work_mem'), current_setting('TimeZone'), current_schemas(false)";

struct Play {
    rig: Rig,
    counts: Arc<Counts>,
    players: [Player; 2],
}

impl Play {
    fn new(roles: [Option<&str>; 2]) -> Play {
        let cluster = Cluster::builder()
            .start()
            .unwrap_or_else(|error| panic!("{error}"));
        let primary = cluster.primary();
        primary.execute("CREATE DATABASE shop").unwrap();
        primary
            .execute("CREATE ROLE anna; CREATE ROLE bert")
            .unwrap();
        let mut owner = primary.connect(DATABASE).unwrap();
        for name in ["anna", "bert"] {
            let house = format!(
                "CREATE SCHEMA {name}_home; CREATE TABLE {name}_home.house AS SELECT '{name}' AS owner; \
                 GRANT ALL ON SCHEMA {name}_home TO public; GRANT ALL ON {name}_home.house TO public"
            );
            owner.query(&house).unwrap();
        }
        let (address, counts) = relay(primary.address());
        let rig = Rig::before(cluster, |config| {
            config.databases[0].pool.size = 1;
            config.clusters[0].nodes[0].address =
                config::Address::Tcp("127.0.0.1".to_owned(), address.port());
        });
        rig.wait_ready();
        // Before the catalog is known, a function may leave anything behind: what it may have left is cleared in a round trip.
        rig.learn(DATABASE);
        let player = |name: &str, role: Option<&str>, work_mem: &str, zone: &str| {
            let settings = [
                format!("SET work_mem = '{work_mem}'"),
                format!("SET TIME ZONE '{zone}'"),
                format!("SET search_path = {name}_home"),
                format!("SET application_name = '{name}'"),
                format!("SET ROLE {}", role.unwrap_or_default()),
            ];
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            // The role comes last.
            let settings = &settings[..settings.len() - usize::from(role.is_none())];
            let user = role.unwrap_or("postgres");
            let mark = format!("{name} {user} {work_mem} {zone} {{{name}_home}}");
            Player::new(&rig, name, settings, &mark)
        };
        let players = [
            player("anna", roles[0], "5MB", "Europe/Rome"),
            player("bert", roles[1], "6MB", "Asia/Tokyo"),
        ];
        Play {
            rig,
            counts,
            players,
        }
    }

    /// So many turns; round trips and messages beside the players' own.
    fn turns(&mut self, count: usize) -> (u64, u64) {
        for turn in 0..WARM_UP {
            self.players[turn % 2].plays(turn);
        }
        let (rounds, messages) = self.counts.now();
        let own: u64 = (0..count)
            .map(|turn| self.players[turn % 2].plays(turn))
            .sum();
        let (rounds_now, messages_now) = self.counts.now();
        assert_eq!(self.counts.connections.load(Ordering::SeqCst), 1);
        assert_eq!(self.rig.metric("pgweir_pins_total", &[]), 0.0);
        (
            rounds_now - rounds - count as u64,
            messages_now - messages - own,
        )
    }
}

fn turns() -> usize {
    match std::env::var_os("PGWEIR_LONG") {
        Some(_) => LONG,
        None => TURNS,
    }
}

#[test]
fn settings_names_and_paths_cost_no_round_trip() {
    let mut play = Play::new([None, None]);
    let turns = turns();
    let extra = play.turns(turns);
    // One message a turn carries the settings, in the flight of the statement.
    assert_eq!(extra, (0, turns as u64), "round trips and messages more");
}

/// A server may refuse a role that it has taken before, and no statement is to run without its session's role: it travels
/// with the statement all the same, in a transaction that takes the statement with it if it fails.
#[test]
fn roles_cost_no_round_trip() {
    let mut play = Play::new([Some("anna"), Some("bert")]);
    let turns = turns() / 10;
    let extra = play.turns(turns);
    let count = turns as u64;
    assert_eq!(extra, (0, count), "round trips and messages more");
}
