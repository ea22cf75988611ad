//! The floor of `make bench`: one thread, one epoll, a server connection for each client, and bytes copied between them.
//!
//! It knows no protocol and pools nothing, so what a proxy costs above it is what its knowledge costs.
//! `relay PORT SERVER_PORT` listens and connects on 127.0.0.1.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

/// What is read at once; the same as pgweir reads.
const BUFFER: usize = 64 * 1024;

const LISTENER: Token = Token(usize::MAX - 1);

fn main() -> io::Result<()> {
    let ports: Vec<u16> = std::env::args()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect();
    let &[port, server_port] = ports.as_slice() else {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "usage: relay PORT SERVER_PORT",
        ));
    };
    Relay::new(port, server_port)?.run()
}

struct Relay {
    poll: Poll,
    listener: TcpListener,
    server_port: u16,
    /// By half of the token; its last bit says which end.
    pairs: Vec<Option<Pair>>,
    buffer: Vec<u8>,
}

impl Relay {
    fn new(port: u16, server_port: u16) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port).into())?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            server_port,
            pairs: Vec::new(),
            buffer: vec![0; BUFFER],
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    token => {
                        self.carry(token.0 / 2, token.0 % 2, event);
                    }
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let free = self.pairs.iter().position(Option::is_none);
            let place = free.unwrap_or(self.pairs.len());
            let pair = Pair::open(client, self.server_port, self.poll.registry(), place)?;
            match free {
                Some(place) => self.pairs[place] = Some(pair),
                None => self.pairs.push(Some(pair)),
            }
        }
    }

    /// An event may be one of an earlier pair in the same place: then nothing is there to be moved.
    fn carry(&mut self, place: usize, end: usize, event: &Event) {
        let Some(pair) = &mut self.pairs[place] else {
            return;
        };
        if pair.carry(end, event, &mut self.buffer).is_err() || pair.over() {
            self.pairs[place] = None;
        }
    }
}

/// A client and its server connection, in this order.
struct Pair {
    ends: [End; 2],
}

struct End {
    socket: TcpStream,
    /// What the other end has said and this socket had no room for.
    unsent: Vec<u8>,
    /// It has said all that it will.
    finished: bool,
}

impl Pair {
    fn open(
        client: TcpStream,
        server_port: u16,
        registry: &Registry,
        place: usize,
    ) -> io::Result<Self> {
        // On loopback this is done at once.
        let server = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server_port))?;
        server.set_nonblocking(true)?;
        let mut ends = [client, TcpStream::from_std(server)].map(|socket| End {
            socket,
            unsent: Vec::new(),
            finished: false,
        });
        for (side, end) in ends.iter_mut().enumerate() {
            end.socket.set_nodelay(true)?;
            let token = Token(place * 2 + side);
            registry.register(
                &mut end.socket,
                token,
                Interest::READABLE | Interest::WRITABLE,
            )?;
        }
        Ok(Self { ends })
    }

    fn carry(&mut self, end: usize, event: &Event, buffer: &mut [u8]) -> io::Result<()> {
        // The other end was not read while this one had no room.
        if self.flush(end)? {
            self.copy(1 - end, true, buffer)?;
        }
        if event.is_readable() || event.is_read_closed() {
            self.copy(end, event.is_read_closed(), buffer)?;
        }
        Ok(())
    }

    /// Reads what one end says and writes it to the other one, until there is nothing, or no room. A short read is the
    /// last one, as more bytes are another event; `closed` reads on to the end.
    fn copy(&mut self, from: usize, closed: bool, buffer: &mut [u8]) -> io::Result<()> {
        let to = 1 - from;
        while !self.ends[from].finished && self.ends[to].unsent.is_empty() {
            let count = match self.ends[from].socket.read(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if count == 0 {
                self.ends[from].finished = true;
                return self.ends[to].socket.shutdown(Shutdown::Write);
            }
            self.ends[to].send(&buffer[..count])?;
            if count < buffer.len() && !closed {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends what waits for one end; whether that was something and all of it has gone.
    fn flush(&mut self, end: usize) -> io::Result<bool> {
        let end = &mut self.ends[end];
        if end.unsent.is_empty() {
            return Ok(false);
        }
        let unsent = std::mem::take(&mut end.unsent);
        end.send(&unsent)?;
        Ok(end.unsent.is_empty())
    }

    fn over(&self) -> bool {
        self.ends.iter().all(|end| end.finished)
    }
}

impl End {
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.extend_from_slice(bytes);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
