//! Long pipelines, large parameters and large rows pass in both directions at the same time, and the memory of the proxy
//! stays what it was: the program runs as a process of its own, whose memory the system tells.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::thread;

use pgweir::testbed::{Cluster, ProtocolVersion, RawClient, request, wait_for};

use crate::support::{LIMIT, Rig, config_text, execute, report, run, value};

const STATEMENTS: usize = 10_000;
const LARGE: usize = 20_000;

/// Some reads and writes of the proxy, and what its allocator keeps.
const GROWTH: u64 = 64 << 10;

/// The program, before a cluster of its own.
struct Program {
    process: Child,
    address: SocketAddr,
    config: std::path::PathBuf,
    _cluster: Cluster,
}

impl Program {
    fn start(name: &str) -> Program {
        let cluster = Cluster::builder()
            .start()
            .unwrap_or_else(|error| panic!("{error}"));
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let file = format!("pgweir-it-{}-{name}.toml", std::process::id());
        let config = std::env::temp_dir().join(file);
        std::fs::write(&config, config_text(&cluster, port)).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_pgweir"))
            .arg("run")
            .arg(&config)
            .spawn();
        let program = Program {
            process: process.expect("the program runs"),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            config,
            _cluster: cluster,
        };
        let answers = || {
            Ok(program
                .try_client()
                .is_ok_and(|mut client| client.query("SELECT 1").is_ok()))
        };
        wait_for(answers, LIMIT, "the proxy to answer").unwrap();
        program
    }

    fn try_client(&self) -> Result<RawClient, pgweir::testbed::Error> {
        RawClient::connect(&self.address.into(), &LOGIN)
    }

    /// Resident memory in kilobytes: now, and the most that it ever was.
    fn memory(&self) -> (u64, u64) {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("Linux tells the memory of a process");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number
                .and_then(|number| number.parse().ok())
                .expect("kilobytes")
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Does `work`, during which memory may grow by so many kilobytes.
    #[track_caller]
    fn within(&self, kilobytes: u64, what: &str, work: impl FnOnce()) {
        let (before, _) = self.memory();
        work();
        let (_, most) = self.memory();
        let growth = most.saturating_sub(before);
        report(&format!("{what}: memory grew by {growth} kB"));
        assert!(growth < kilobytes, "{what}: {before} kB grew to {most} kB");
        // Others are served as before.
        assert_eq!(value(&mut self.try_client().unwrap(), "SELECT 1"), "1");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // If it has ended by itself, the test has failed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

const LOGIN: [(&str, &str); 2] = [("user", "postgres"), ("database", "postgres")];

/// A client whose two directions are independent, and which keeps nothing of what it reads.
struct Client {
    read: BufReader<TcpStream>,
    write: TcpStream,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        let mut write = TcpStream::connect(address).unwrap();
        // Longer than any of the tests; a pipeline that is stuck ends it.
        write.set_read_timeout(Some(LIMIT)).unwrap();
        write.set_write_timeout(Some(LIMIT)).unwrap();
        write.set_nodelay(true).unwrap();
        write
            .write_all(&request::startup(ProtocolVersion::V3_0, &LOGIN))
            .unwrap();
        let read = BufReader::new(write.try_clone().unwrap());
        let mut client = Client { read, write };
        while client.next().0 != b'Z' {}
        client
    }

    /// The tag of the next message, and the beginning of its body.
    fn next(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 5];
        self.read.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let body = u64::from(length) - 4;
        let kept = body.min(64);
        let mut start = Vec::new();
        (&mut self.read).take(kept).read_to_end(&mut start).unwrap();
        let rest = body - kept;
        let passed = std::io::copy(&mut (&mut self.read).take(rest), &mut std::io::sink());
        assert_eq!(passed.unwrap(), rest, "cut off");
        if header[0] == b'E' {
            panic!("{}", String::from_utf8_lossy(&start));
        }
        (header[0], start)
    }

    /// Reads the answers to all statements, each of which has one row that begins with its number; `syncs` of them end
    /// with a ReadyForQuery.
    fn reads_all(&mut self, syncs: usize) {
        let (mut rows, mut ready) = (0, 0);
        while ready < syncs {
            match self.next() {
                (b'D', body) => {
                    // Behind the number of columns and the length of the first.
                    let text = String::from_utf8_lossy(&body[6..]).into_owned();
                    let number = text.split(' ').next().unwrap();
                    assert_eq!(number, rows.to_string(), "out of order");
                    rows += 1;
                }
                (b'Z', _) => ready += 1,
                _ => {}
            }
        }
        assert_eq!(rows, STATEMENTS);
    }
}

/// One Parse, then all statements; each with a Sync of its own, or one for all.
fn pipeline(sql: &str, parameter: impl Fn(usize) -> usize, syncs: Syncs) -> Vec<u8> {
    let mut bytes = request::parse("s", sql, &[]);
    for number in 0..STATEMENTS {
        let large = "x".repeat(parameter(number));
        let number = number.to_string();
        bytes.extend(request::bind("", "s", &[Some(&number), Some(&large)]));
        bytes.extend(request::execute("", 0));
        if syncs == Syncs::Each {
            bytes.extend(request::sync());
        }
    }
    if syncs == Syncs::One {
        bytes.extend(request::sync());
    }
    bytes
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syncs {
    Each,
    One,
}

impl Syncs {
    fn count(self) -> usize {
        match self {
            Syncs::Each => STATEMENTS,
            Syncs::One => 1,
        }
    }
}

const ECHO: &str = "SELECT $1::text || ' ' || $2::text";
const LENGTH: &str = "SELECT $1::text || ' ' || length($2::text)";
const REPEAT: &str = "SELECT $1::text || ' ' || $2::text || repeat('x', 20000)";

/// All of it is written before anything is read: as far as sockets hold what is not read, this works without the proxy.
#[test]
fn written_before_anything_is_read() {
    let program = Program::start("written");
    let some_large = |number: usize| if number.is_multiple_of(10) { LARGE } else { 10 };
    for (what, sql, parameter) in [
        (
            "large parameters",
            LENGTH,
            &some_large as &dyn Fn(usize) -> usize,
        ),
        ("large results", REPEAT, &|_| 0),
    ] {
        for syncs in [Syncs::Each, Syncs::One] {
            let bytes = pipeline(sql, parameter, syncs);
            program.within(GROWTH, &format!("{what}, Sync for {syncs:?}"), || {
                let mut client = Client::connect(program.address);
                client.write.write_all(&bytes).unwrap();
                client.reads_all(syncs.count());
            });
        }
    }
}

/// Large parameters and large results, together more than anybody holds: both directions move.
#[test]
fn written_while_it_is_read() {
    let program = Program::start("duplex");
    for syncs in [Syncs::Each, Syncs::One] {
        let bytes = pipeline(ECHO, |_| LARGE, syncs);
        program.within(
            GROWTH,
            &format!("{} MB each way, Sync for {syncs:?}", bytes.len() >> 20),
            || {
                let mut client = Client::connect(program.address);
                let mut write = client.write.try_clone().unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| write.write_all(&bytes).unwrap());
                    client.reads_all(syncs.count());
                });
            },
        );
    }
}

#[test]
fn a_row_larger_than_memory_should_hold() {
    const SIZE: usize = 320 << 20;
    let program = Program::start("row");
    program.within(GROWTH, "a row of 320 MB", || {
        let mut client = Client::connect(program.address);
        let sql = format!("SELECT repeat('x', {SIZE})");
        client.write.write_all(&request::query(sql)).unwrap();
        let mut row = 0;
        loop {
            // Bodies are counted by `next`, which asserts that they are whole.
            match client.next() {
                (b'D', body) => {
                    let length = [body[2], body[3], body[4], body[5]];
                    row = usize::try_from(u32::from_be_bytes(length)).unwrap();
                }
                (b'Z', _) => break,
                _ => {}
            }
        }
        assert_eq!(row, SIZE);
    });
}

/// And one in the other direction.
#[test]
fn a_parameter_larger_than_memory_should_hold() {
    const SIZE: usize = 320 << 20;
    let program = Program::start("parameter");
    let large = "x".repeat(SIZE);
    let group = [
        request::parse("", "SELECT length($1::text)", &[]),
        request::bind("", "", &[Some(&large)]),
        request::execute("", 0),
        request::sync(),
    ];
    program.within(GROWTH, "a parameter of 320 MB", || {
        let mut client = Client::connect(program.address);
        client.write.write_all(&group.concat()).unwrap();
        let mut row = Vec::new();
        loop {
            match client.next() {
                (b'D', body) => row = body[6..].to_vec(),
                (b'Z', _) => break,
                _ => {}
            }
        }
        assert_eq!(row, SIZE.to_string().as_bytes());
    });
}

/// Memory follows what has come, not what is announced.
#[test]
fn announced_bytes_cost_nothing() {
    // Fewer than the pool has connections: a message that is passed on while it comes takes one.
    const CLIENTS: usize = 15;
    let program = Program::start("announced");
    let announced = ((1u32 << 30) - 5).to_be_bytes();
    for tag in [b'Q', b'P', b'B', b'd', b'p', b'F', b'X'] {
        let what = format!("{CLIENTS} messages {:?} of 1 GB", char::from(tag));
        program.within(16 << 10, &what, || {
            let clients: Vec<Client> = (0..CLIENTS)
                .map(|_| {
                    let mut client = Client::connect(program.address);
                    client.write.write_all(&[tag]).unwrap();
                    client.write.write_all(&announced).unwrap();
                    client
                })
                .collect();
            // What has been sent has been looked at when a client that came later is served.
            value(&mut program.try_client().unwrap(), "SELECT 1");
            drop(clients);
        });
    }
}

/// A server that takes nothing for a while: what the client has sent last waits in the proxy, and neither side says anything
/// that would bring it to mind. Where that begins depends on buffers of the system, so the place is searched for.
#[test]
fn what_is_sent_last_gets_to_a_server_that_was_slow() {
    /// More than all buffers hold.
    const MOST: usize = 40 << 20;
    /// Less than the proxy reads at once.
    const NEAR: usize = 8 << 10;
    /// Looks in a row that find nothing new read.
    const STILL: usize = 8;
    let rig = Rig::start(0, |config| config.databases[0].pool.size = 1);
    let mut client = rig.client("postgres");
    execute(&mut client, "CREATE TABLE sink (line text)");
    rig.learn("postgres");
    let backend = value(&mut client, "SELECT pg_backend_pid()");
    let signal = |name: &str| run(Command::new("kill").args([name, &backend]));
    let received = || {
        let labels = [("direction", "received")];
        rig.metric("pgweir_client_bytes_total", &labels) as usize
    };
    let line = request::copy_data([b'x'; 1000]);
    let copy = |bytes: usize| [line.repeat(bytes / line.len()), request::copy_done()].concat();
    let bind = |bytes: usize| {
        let flight = [
            request::bind("", "", &[Some(&"x".repeat(bytes))]),
            request::execute("", 0),
            request::sync(),
        ];
        flight.concat()
    };
    for (begin, answer, flight) in [
        (
            request::query("COPY sink FROM STDIN"),
            b'G',
            &copy as &dyn Fn(usize) -> Vec<u8>,
        ),
        (
            [
                request::parse("", "SELECT length($1::text)", &[]),
                request::flush(),
            ]
            .concat(),
            b'1',
            &bind,
        ),
    ] {
        let (mut taken, mut too_much) = (0, MOST);
        while too_much - taken > NEAR {
            let bytes = taken.midpoint(too_much);
            let flight = flight(bytes);
            client.send(&begin).unwrap();
            client.expect(answer).unwrap();
            signal("-STOP");
            let until = received() + flight.len();
            let is_taken = thread::scope(|scope| {
                let sender = &mut client;
                scope.spawn(move || sender.send(&flight).unwrap());
                let (mut seen, mut same) = (0, 0);
                rig.wait("the proxy to read what it can", || {
                    let now = received();
                    same = if now == std::mem::replace(&mut seen, now) {
                        same + 1
                    } else {
                        0
                    };
                    now == until || same == STILL
                });
                let is_taken = received() == until;
                signal("-CONT");
                is_taken
            });
            let answer = client.recv_until_ready().unwrap();
            assert!(answer.iter().all(|message| message.tag != b'E'), "{bytes}");
            *(if is_taken { &mut taken } else { &mut too_much }) = bytes;
        }
        assert!(taken > 0 && too_much < MOST, "{taken} {too_much}");
    }
}
