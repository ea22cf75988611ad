//! A server that keeps to the protocol, as far as replies go: it knows which ones it owes, and nothing of SQL.
//!
//! PostgreSQL manual, "Message Flow", protocol-flow.html.

use std::collections::HashSet;

use pgweir::wire::frame::{self, HEADER};

/// One server connection, seen from the server.
#[derive(Debug, Default)]
pub struct Peer {
    input: Vec<u8>,
    /// Replies on their way.
    pub output: Vec<u8>,
    names: HashSet<Vec<u8>>,
    status: Block,
    /// An error has been reported; messages are discarded up to a Sync.
    skipping: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Block {
    #[default]
    Idle,
    Open,
    Failed,
}

impl Peer {
    /// Takes what the proxy sent, and answers the messages that are whole.
    ///
    /// # Panics
    /// When the proxy sent something that is no frame, or a type that is no client's.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(header) = frame::header(rest, 1 << 24).expect("the proxy sends legal frames")
        {
            let Some(body) = rest.get(HEADER..header.total()) else {
                break;
            };
            self.message(header.tag, body);
            rest = &rest[header.total()..];
        }
        self.input = rest.to_vec();
    }

    /// Whether a message has arrived only in part.
    pub fn is_mid_message(&self) -> bool {
        !self.input.is_empty()
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if self.skipping && tag != b'S' {
            return;
        }
        match tag {
            b'Q' => self.query(body),
            b'P' => self.parse(body),
            b'B' => {
                let statement = strings(body).nth(1).unwrap_or_default();
                if self.status == Block::Failed {
                    self.error(b"25P02");
                } else if statement.is_empty() || self.names.contains(statement) {
                    self.reply(b'2', b"");
                } else {
                    self.error(b"26000");
                }
            }
            b'D' if body.first() == Some(&b'S') => {
                self.reply(b't', b"\0\0");
                self.reply(b'n', b"");
            }
            b'D' => self.reply(b'T', b"\0\0"),
            b'E' => {
                self.reply(b'D', b"\0\0");
                self.reply(b'C', b"SELECT 1\0");
            }
            b'C' => {
                if body.first() == Some(&b'S') {
                    self.names
                        .remove(strings(&body[1..]).next().unwrap_or_default());
                }
                self.reply(b'3', b"");
            }
            b'S' => {
                self.skipping = false;
                self.ready();
            }
            b'F' => {
                self.reply(b'V', &(-1i32).to_be_bytes());
                self.ready();
            }
            // Flush; and COPY messages outside of a COPY, which servers ignore.
            b'H' | b'd' | b'c' | b'f' => {}
            tag => panic!("the proxy sent a message of type {:?}", char::from(tag)),
        }
    }

    fn query(&mut self, body: &[u8]) {
        let text = strings(body).next().unwrap_or_default();
        self.names.remove(&b""[..]);
        match text {
            b"" => self.reply(b'I', b""),
            b"begin" => self.end_with(Block::Open, b"BEGIN\0"),
            b"commit" | b"rollback" => self.end_with(Block::Idle, b"ROLLBACK\0"),
            b"DISCARD ALL" => {
                self.names.clear();
                self.reply(b'C', b"DISCARD ALL\0");
            }
            b"set bad" => self.error(b"42704"),
            _ if self.status == Block::Failed => self.error(b"25P02"),
            _ => self.reply(b'C', b"SELECT 1\0"),
        }
        // After a simple Query nothing is skipped: its ReadyForQuery follows at once.
        self.skipping = false;
        self.ready();
    }

    fn end_with(&mut self, status: Block, tag: &[u8]) {
        self.status = status;
        self.reply(b'C', tag);
    }

    fn parse(&mut self, body: &[u8]) {
        let mut strings = strings(body);
        let name = strings.next().unwrap_or_default();
        let text = strings.next().unwrap_or_default();
        if text == b"bad" {
            self.error(b"42601");
        } else if !name.is_empty() && !self.names.insert(name.to_vec()) {
            self.error(b"42P05");
        } else {
            self.reply(b'1', b"");
        }
    }

    fn error(&mut self, code: &[u8]) {
        let body = [&b"SERROR\0VERROR\0C"[..], code, b"\0Mno\0\0"].concat();
        self.reply(b'E', &body);
        self.skipping = true;
        if self.status == Block::Open {
            self.status = Block::Failed;
        }
    }

    fn ready(&mut self) {
        let status: &[u8] = match self.status {
            Block::Idle => b"I",
            Block::Open => b"T",
            Block::Failed => b"E",
        };
        self.reply(b'Z', status);
    }

    fn reply(&mut self, tag: u8, body: &[u8]) {
        frame::put_header(&mut self.output, tag, body.len());
        self.output.extend_from_slice(body);
    }
}

fn strings(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == 0)
}
