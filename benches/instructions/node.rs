//! A node that always says the same. It talks to sockets from threads of its own, whose instructions are not counted.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pgweir::sql::catalog::{FINGERPRINT, QUERY};
use pgweir::wire::frame::{HEADER, MAX_SERVER_BODY, header};

use crate::transactions::{catalog_rows, done, message, result};

/// Starts a primary, or a standby that has replayed all that the primary has. It runs as long as the process.
pub fn start(standby: bool) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            // Who leaves has nothing more to ask.
            thread::spawn(move || Connection::new(stream, standby).serve());
        }
    });
    Ok(address)
}

/// From now on nodes take their time to say how they are: what the proxy's monitor does with it is not to be counted.
pub fn hush() {
    HUSHED.store(true, Ordering::Relaxed);
}

static HUSHED: AtomicBool = AtomicBool::new(false);

struct Connection {
    stream: TcpStream,
    standby: bool,
    /// Transaction status, as ReadyForQuery has it.
    status: u8,
    out: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream, standby: bool) -> Connection {
        Connection {
            stream,
            standby,
            status: b'I',
            out: Vec::new(),
        }
    }

    fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.login()?;
        let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let n = self.stream.read(&mut chunk)?;
            if n == 0 {
                return Ok(());
            }
            input.extend_from_slice(&chunk[..n]);
            let mut at = 0;
            while let Ok(Some(header)) = header(&input[at..], MAX_SERVER_BODY)
                && let Some(message) = input.get(at..at + header.total())
            {
                self.answer(header.tag, &message[HEADER..]);
                at += header.total();
            }
            input.drain(..at);
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
    }

    /// Lets in whoever comes.
    fn login(&mut self) -> io::Result<()> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - length.len()];
        self.stream.read_exact(&mut startup)?;
        self.put(b'R', &[&[0; 4]]);
        for (name, value) in [
            ("server_version", "15.0"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
            ("default_transaction_read_only", "off"),
            ("in_hot_standby", if self.standby { "on" } else { "off" }),
        ] {
            self.put(b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
        }
        self.put(b'K', &[&[0; 8]]);
        self.put(b'Z', &[b"I"]);
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn answer(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'Q' => self.query(std::str::from_utf8(&body[..body.len() - 1]).expect("a text")),
            b'P' => self.put(b'1', &[]),
            b'B' => self.put(b'2', &[]),
            b'D' => {}
            b'E' => {
                // With the description that was asked for before, and without the end, which is for Sync.
                let result = result(b"", b"I");
                self.out.extend_from_slice(&result[..result.len() - 6]);
            }
            b'S' => self.put(b'Z', &[b"I"]),
            b'X' => {}
            other => panic!("a node knows no {:?}", char::from(other)),
        }
    }

    fn query(&mut self, text: &str) {
        let lsn = |standby: bool| {
            if self.standby == standby {
                "0/3000060"
            } else {
                ""
            }
        };
        let rows = match text {
            _ if text.starts_with("PREPARE") => return self.done(b"PREPARE", b'I'),
            _ if text.starts_with("BEGIN") => return self.done(b"BEGIN", b'T'),
            // What a session leaves behind is taken away.
            _ if text.ends_with("RESET ALL") => return self.done(b"RESET", b'I'),
            "COMMIT" => return self.done(b"COMMIT", b'I'),
            _ if text.starts_with("UPDATE") => return self.done(b"UPDATE 1", self.status),
            _ if text.starts_with("SELECT abalance") => {
                return self.out.extend_from_slice(&result(b"", &[self.status]));
            }
            QUERY => catalog_rows().into_iter().map(Vec::from).collect(),
            FINGERPRINT => vec![vec!["1".to_owned()]],
            "SHOW default_transaction_isolation" => vec![vec!["read committed".to_owned()]],
            _ if text.contains("pg_event_trigger") => Vec::new(),
            _ if text.contains("pg_control_system") => vec![vec!["1".to_owned(), "1".to_owned()]],
            // What the monitor has prepared.
            _ if text.starts_with("EXECUTE") => {
                while HUSHED.load(Ordering::Relaxed) {
                    thread::park();
                }
                let (role, file, timeline) = match self.standby {
                    true => ("t", "", "1"),
                    false => ("f", "000000010000000000000003", ""),
                };
                let paused = if self.standby { "f" } else { "" };
                let (primary, standby) = (lsn(false), lsn(true));
                let state = [
                    role, primary, primary, file, standby, standby, paused, timeline,
                ];
                vec![state.map(str::to_owned).into()]
            }
            other => panic!("a node cannot answer {other:?}"),
        };
        self.rows(&rows);
    }

    /// Rows of text; an empty one is NULL.
    fn rows(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            let count = u16::try_from(row.len()).expect("few columns");
            let mut body = count.to_be_bytes().to_vec();
            for value in row {
                let length = i32::try_from(value.len()).expect("short values");
                let length = if length == 0 { -1 } else { length };
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(value.as_bytes());
            }
            self.put(b'D', &[&body]);
        }
        self.done(b"SELECT", b'I');
    }

    fn done(&mut self, tag: &[u8], status: u8) {
        self.status = status;
        self.out.extend_from_slice(&done(tag, &[status]));
    }

    fn put(&mut self, tag: u8, body: &[&[u8]]) {
        self.out.extend_from_slice(&message(tag, body));
    }
}
