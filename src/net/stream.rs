//! One byte stream over TCP or a Unix socket.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::Address;

/// A connected stream.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// How a TCP connection whose other side has vanished is noticed. Unix sockets need none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Silence until the first keepalive probe; whole seconds count.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged; `None` leaves it to the kernel. Linux alone has it.
    pub user_timeout: Option<Duration>,
}

/// Probes without an answer that end a connection. They are a third of the silence apart, so that all of it takes about
/// twice the silence.
const KEEPALIVE_PROBES: u32 = 3;

/// Bytes of the scratch buffer: what one read may bring. Large enough that a short read means "the socket is empty",
/// so that no second receive is spent to learn it.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Lends the thread's read buffer to `use_it`. Connections keep no buffer of their own while nothing is left over.
/// Not to be nested.
pub fn scratch<R>(use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH_BUFFER.with_borrow_mut(|buffer| use_it(buffer))
}

impl TcpOptions {
    /// Sets them, and no delay.
    ///
    /// # Errors
    /// As the system says.
    pub fn apply(self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        let interval = self.keepalive / KEEPALIVE_PROBES;
        let keepalive = TcpKeepalive::new()
            .with_time(self.keepalive)
            // The kernel counts in seconds, and none is no interval.
            .with_interval(interval.max(Duration::from_secs(1)))
            .with_retries(KEEPALIVE_PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
        #[cfg(target_os = "linux")]
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}

impl Stream {
    /// Takes over an accepted or connected TCP socket: no delay, keepalive on.
    ///
    /// # Errors
    /// As the system says; a socket that is closed already takes no options on some.
    pub fn tcp(stream: TcpStream, options: TcpOptions) -> io::Result<Stream> {
        options.apply(&SockRef::from(&stream))?;
        Ok(Stream::Tcp(stream))
    }

    /// Reads what is there into `buffer`; `Ok(0)` is the end of the stream.
    #[inline]
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let polled = match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        };
        polled.map_ok(|()| buffer.filled().len())
    }

    /// Writes some of `bytes`.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Closes the stream so that the other side cannot write to it any more, not even once. A Unix socket is always closed
    /// like that.
    pub fn reset(self) {
        if let Stream::Tcp(stream) = self {
            // Where it fails, the stream is closed as any other.
            let _ = stream.set_zero_linger();
        }
    }

    /// Reads without waiting. While the reactor has seen nothing arrive this makes no system call.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read(buffer),
            Stream::Unix(stream) => stream.try_read(buffer),
        }
    }

    /// Forgets what has arrived and nobody will read, without waiting, up to what one read may bring: a socket closed over
    /// unread bytes is reset, and a reset takes the last words to the other side with it.
    pub fn forget_arrived(&self) {
        // Whether there was any does not matter.
        let _ = scratch(|buffer| self.try_read(buffer));
    }

    /// Reads once, waiting for bytes; `Ok(0)` is the end of the stream.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buffer)).await
    }

    /// Reads once, waiting for bytes, and appends them, but no more than `most`; `Ok(0)` is the end of the stream.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn read_into(&mut self, bytes: &mut BytesMut, most: usize) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            scratch(|buffer| {
                let room = most.min(buffer.len());
                let read = self.poll_read(cx, &mut buffer[..room]);
                read.map_ok(|n| {
                    bytes.extend_from_slice(&buffer[..n]);
                    n
                })
            })
        })
        .await
    }

    /// Writes all of `bytes`.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::future::poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

/// Connects to an address. Names are resolved at every call, so a changed DNS entry counts from the next connection.
///
/// # Errors
/// That of the last address tried. There is no deadline: callers bring theirs.
pub async fn connect(address: &Address, options: TcpOptions) -> io::Result<Stream> {
    match address {
        Address::Tcp(host, port) => {
            Stream::tcp(TcpStream::connect((host.as_str(), *port)).await?, options)
        }
        Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of a connection made with these options: keepalive time, interval and retries, and the user
    /// timeout.
    async fn kept(options: TcpOptions) -> (Duration, Duration, u32, Option<Duration>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let address = Address::Tcp("127.0.0.1".to_owned(), port);
        let stream = match connect(&address, options).await.expect("connects") {
            Stream::Tcp(stream) => stream,
            Stream::Unix(_) => panic!("TCP was asked for"),
        };
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        assert!(stream.nodelay().expect("an option"));
        (
            socket.tcp_keepalive_time().expect("an option"),
            socket.tcp_keepalive_interval().expect("an option"),
            socket.tcp_keepalive_retries().expect("an option"),
            #[cfg(target_os = "linux")]
            socket.tcp_user_timeout().expect("an option"),
            #[cfg(not(target_os = "linux"))]
            options.user_timeout,
        )
    }

    #[tokio::test]
    async fn the_kernel_has_the_options() {
        let second = Duration::from_secs(1);
        let options = |keepalive, user_timeout| TcpOptions {
            keepalive,
            user_timeout,
        };
        assert_eq!(
            kept(options(30 * second, None)).await,
            (30 * second, 10 * second, 3, None)
        );
        let timeout = Some(Duration::from_millis(1500));
        assert_eq!(
            kept(options(second, timeout)).await,
            (second, second, 3, timeout)
        );
    }

    #[tokio::test]
    async fn unix_sockets_need_none() {
        let path = std::env::temp_dir().join(format!("pgweir-stream-{}", std::process::id()));
        let listener = tokio::net::UnixListener::bind(&path).expect("a free name");
        let options = TcpOptions {
            keepalive: Duration::from_secs(1),
            user_timeout: Some(Duration::from_secs(1)),
        };
        let connected = connect(&Address::Unix(path.clone()), options).await;
        drop(listener);
        std::fs::remove_file(&path).expect("the name was there");
        assert!(matches!(connected, Ok(Stream::Unix(_))), "{connected:?}");
    }
}
