//! Sockets that clients connect to.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::net::{Address, Stream, TcpOptions};

/// Connections that the kernel keeps for us until they are accepted. Deep, because a restarted application opens all of
/// its connections at once; the kernel cuts it to its own bound.
const BACKLOG: i32 = 4096;

/// One bound socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP, and what accepted sockets get.
    Tcp(TcpListener, TcpOptions),
    /// A Unix socket, removed again when the listener is dropped.
    Unix(UnixListener, SocketFile),
}

/// Who has connected, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a Unix socket.
    Unix,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// The file of a Unix socket.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it; there is nobody to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds an address. A name that resolves to several addresses is bound at the first that can be.
    ///
    /// # Errors
    /// As the system says, with the address in use or not there among the reasons.
    pub async fn bind(address: &Address, options: TcpOptions) -> io::Result<Listener> {
        match address {
            Address::Unix(path) => bind_unix(path),
            Address::Tcp(host, port) => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in tokio::net::lookup_host((host.as_str(), *port)).await? {
                    match bind_tcp(address, options) {
                        Ok(listener) => return Ok(Listener::Tcp(listener, options)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> Address {
        match self {
            Listener::Tcp(listener, _) => match listener.local_addr() {
                Ok(address) => Address::Tcp(address.ip().to_string(), address.port()),
                Err(_) => Address::Tcp(String::from("?"), 0),
            },
            Listener::Unix(_, file) => Address::Unix(file.0.clone()),
        }
    }

    /// The next client.
    ///
    /// # Errors
    /// Errors of the socket, which do not end it: too many open files, or a client that has left already.
    ///
    /// # Cancel safety
    /// No client is lost when the future is dropped.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Listener::Tcp(listener, options) => {
                let (stream, address) = listener.accept().await?;
                let stream = match ACCEPTED_INHERIT {
                    true => Stream::Tcp(stream),
                    false => Stream::tcp(stream, *options)?,
                };
                Ok((stream, Peer::Tcp(address)))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }
}

/// Whether accepted sockets have the options of the one that listens, as on Linux, which makes them as copies of it: that
/// saves five system calls for each client.
const ACCEPTED_INHERIT: bool = cfg!(target_os = "linux");

fn bind_tcp(address: SocketAddr, options: TcpOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the connections of the process before it.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if ACCEPTED_INHERIT {
        options.apply(&socket)?;
    }
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    // A file that nobody listens on is left over from a process that was killed.
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    Ok(Listener::Unix(listener, SocketFile(path.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;
    use crate::net::connect;

    #[tokio::test]
    async fn accepted_sockets_have_the_options() {
        let options = TcpOptions {
            keepalive: Duration::from_secs(30),
            user_timeout: Some(Duration::from_millis(1500)),
        };
        let any = Address::Tcp("127.0.0.1".to_owned(), 0);
        let listener = Listener::bind(&any, options).await.expect("a free port");
        let plain = TcpOptions {
            keepalive: Duration::from_secs(1),
            user_timeout: None,
        };
        let address = listener.address();
        let (accepted, connected) = tokio::join!(listener.accept(), connect(&address, plain));
        let _connected = connected.expect("connects");
        let (Stream::Tcp(stream), _) = accepted.expect("a client") else {
            panic!("TCP was asked for");
        };
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().expect("an option"));
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(
            socket.tcp_keepalive_time().expect("an option"),
            options.keepalive
        );
        assert_eq!(
            socket.tcp_keepalive_interval().expect("an option"),
            Duration::from_secs(10)
        );
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), 3);
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_user_timeout().expect("an option"),
            options.user_timeout
        );
    }
}
