//! The server: one thread, few connections, everything bounded.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::route::{Status, answer};

/// Most connections at once. A Prometheus pair, a load balancer's checks and an operator's browser
/// need a handful; those beyond wait in the listener's queue.
const MAX_CONNECTIONS: usize = 64;

/// Longest wait for the header of a request, the idle time of a kept-alive connection included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest life of a connection. It bounds how long a peer that reads nothing can hold a place;
/// one that keeps asking is told to come again after its current answer.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// Longest wait for answers under way, when the connection's life or the server's ends.
const GRACE: Duration = Duration::from_secs(1);

/// Most bytes of a connection's buffer, hence of a request's header; hyper wants at least 8 KiB. A
/// longer header is answered with 431.
const MAX_HEADER: usize = 16 * 1024;

/// Pause after accept failed, as it does while file descriptors are short: the listener stays
/// readable then, and trying at once would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the HTTP side could not start. The system is short of something, or the listener is not one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener cannot be used without blocking.
    #[error("the HTTP listener cannot be used: {0}")]
    Listener(#[source] io::Error),
    /// There is no event loop to be had.
    #[error("no runtime for HTTP: {0}")]
    Runtime(#[source] io::Error),
    /// There is no thread to be had.
    #[error("no thread for HTTP: {0}")]
    Thread(#[source] io::Error),
}

/// The running HTTP side. When dropped it is told to stop, but not waited for.
#[derive(Debug)]
#[must_use = "the HTTP side stops when this is dropped"]
pub struct Handle {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// Tells it to stop: no new connections, and those that exist end after their current answer.
    /// Call it last of all, so that `/readyz` speaks to the end of the drain.
    pub fn shutdown(&self) {
        self.stop.send_replace(true);
    }

    /// Tells it to stop and waits for its thread: at most a little over a second, plus what a call
    /// of [`Status`] under way takes. It blocks the calling thread.
    pub fn join(self) {
        self.shutdown();
        // An Err is a panic of the thread, which the panic hook has told of already.
        let _ = self.thread.join();
    }
}

/// Serves HTTP on `listener`, from a new thread with a runtime of its own.
///
/// # Errors
///
/// [`Error`], when the system gives no thread or no event loop.
pub fn serve(
    listener: TcpListener,
    status: Arc<dyn Status + Send + Sync>,
) -> Result<Handle, Error> {
    listener.set_nonblocking(true).map_err(Error::Listener)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let listener = adopt(&runtime, listener).map_err(Error::Listener)?;
    let (stop, stopped) = watch::channel(false);
    let run = move || runtime.block_on(accept(listener, status, stopped));
    let thread = thread::Builder::new()
        .name("http".to_owned())
        .spawn(run)
        .map_err(Error::Thread)?;
    Ok(Handle { stop, thread })
}

/// A listener of tokio belongs to the runtime that is entered when it is made.
fn adopt(runtime: &Runtime, listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    let _entered = runtime.enter();
    tokio::net::TcpListener::from_std(listener)
}

async fn accept(
    listener: tokio::net::TcpListener,
    status: Arc<dyn Status + Send + Sync>,
    mut stopped: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = stopped.clone();
    let accepting = async {
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (status, stopped) = (Arc::clone(&status), connections.clone());
                    tokio::spawn(async move {
                        connection(stream, status, stopped).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "HTTP connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop(&mut stopped) => {}
    }
    // All places free means that no connection is left. What lasts longer ends with the runtime.
    let _ = timeout(GRACE, places.acquire_many(MAX_CONNECTIONS as u32)).await;
}

/// One connection, until it ends, its life ends, or the server's.
async fn connection(
    stream: TcpStream,
    status: Arc<dyn Status + Send + Sync>,
    mut stopped: watch::Receiver<bool>,
) {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let response = answer(request.method(), request.uri().path(), &*status);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // The peer's faults (silence, nonsense, a reset) end the connection and concern nobody else.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION_LIFE) => {}
        () = stop(&mut stopped) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}

/// Waits for the word to stop; a [`Handle`] that is gone says so too.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const OK: &str = "HTTP/1.1 200 OK";
    const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable";
    const NOT_FOUND: &str = "HTTP/1.1 404 Not Found";
    const NOT_ALLOWED: &str = "HTTP/1.1 405 Method Not Allowed";

    #[test]
    fn each_route_answers() {
        let (address, _handle) = start(Fake::default());
        let cases: [(&str, &str, &[&str], &str); 12] = [
            (
                "GET /livez",
                OK,
                &["content-type: text/plain; charset=utf-8"],
                "ok\n",
            ),
            ("GET /readyz", OK, &["cache-control: no-store"], "ok\n"),
            (
                "GET /readyz/read",
                UNAVAILABLE,
                &[],
                "main: no standby within max_lag\n",
            ),
            (
                "GET /metrics",
                OK,
                &[
                    "content-type: text/plain; version=0.0.4; charset=utf-8",
                    "content-length: 4",
                ],
                "m 1\n",
            ),
            ("GET /metrics?name=x", OK, &[], "m 1\n"),
            ("HEAD /metrics", OK, &["content-length: 4"], ""),
            ("HEAD /livez", OK, &["content-length: 3"], ""),
            ("GET /", OK, &[], "pgweir\n"),
            ("GET /metrics/", NOT_FOUND, &[], "not found\n"),
            ("POST /nothing", NOT_FOUND, &[], "not found\n"),
            (
                "POST /metrics",
                NOT_ALLOWED,
                &["allow: GET, HEAD"],
                "only GET and HEAD\n",
            ),
            (
                "DELETE /livez",
                NOT_ALLOWED,
                &["allow: GET, HEAD"],
                "only GET and HEAD\n",
            ),
        ];
        for (request, status, headers, body) in cases {
            check(address, request, status, headers, body);
        }
    }

    #[test]
    fn draining_is_alive_but_not_ready() {
        let (address, _handle) = start(Fake {
            draining: AtomicBool::new(true),
        });
        let cases = [
            ("GET /livez", OK, "ok\n"),
            ("GET /readyz", UNAVAILABLE, "draining\n"),
            ("GET /readyz/read", UNAVAILABLE, "draining\n"),
            ("GET /metrics", OK, "m 1\n"),
        ];
        for (request, status, body) in cases {
            check(address, request, status, &[], body);
        }
    }

    #[test]
    fn a_connection_is_kept_alive() {
        let (address, _handle) = start(Fake::default());
        let mut stream = connect(address);
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut first = vec![0; 4096];
        let read = stream.read(&mut first).unwrap();
        assert!(
            first[..read].ends_with(b"ok\n"),
            "{}",
            String::from_utf8_lossy(&first[..read])
        );
        let second = exchange(
            stream,
            "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        );
        assert!(
            second.starts_with(OK) && second.ends_with("m 1\n"),
            "{second}"
        );
    }

    #[test]
    fn long_headers_and_nonsense_are_refused() {
        let (address, _handle) = start(Fake::default());
        let long = format!("GET /livez HTTP/1.1\r\nx: {}", "y".repeat(2 * MAX_HEADER));
        let cases = [
            (
                long.as_str(),
                "HTTP/1.1 431 Request Header Fields Too Large",
            ),
            ("not http at all\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ];
        for (request, status) in cases {
            let response = exchange(connect(address), request);
            assert!(response.starts_with(status), "{response}");
        }
    }

    /// Those beyond the bound wait, and are served when a place is free.
    #[test]
    fn connections_are_bounded() {
        let (address, _handle) = start(Fake::default());
        let mut holders: Vec<_> = (0..MAX_CONNECTIONS).map(|_| connect(address)).collect();
        // Each has been accepted once it has answered; it stays open, and keeps its place.
        for holder in &mut holders {
            holder
                .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
                .unwrap();
            assert_ne!(holder.read(&mut [0; 4096]).unwrap(), 0);
        }
        let mut waiting = connect(address);
        waiting
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        waiting
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let early = waiting.read(&mut [0; 4096]).map_err(|error| error.kind());
        assert!(matches!(
            early,
            Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        ));
        holders.pop();
        waiting.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_ne!(waiting.read(&mut [0; 4096]).unwrap(), 0);
    }

    /// The slow client's ten seconds pass on tokio's paused clock.
    #[test]
    fn a_silent_client_is_closed_after_the_header_timeout() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let (_stop, stopped) = watch::channel(false);
            let began = tokio::time::Instant::now();
            connection(accepted, Arc::new(Fake::default()), stopped).await;
            let lasted = began.elapsed();
            assert!(
                lasted >= HEADER_TIMEOUT && lasted < CONNECTION_LIFE,
                "{lasted:?}"
            );
            drop(silent);
        });
    }

    #[test]
    fn it_stops_when_told_though_a_client_stays() {
        let (address, handle) = start(Fake::default());
        let mut idle = connect(address);
        idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        assert_ne!(idle.read(&mut [0; 4096]).unwrap(), 0);
        handle.join();
        assert_eq!(
            idle.read(&mut [0; 1]).unwrap(),
            0,
            "the idle connection is closed"
        );
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
    }

    #[derive(Default)]
    struct Fake {
        draining: AtomicBool,
    }

    impl Status for Fake {
        fn metrics(&self) -> String {
            "m 1\n".to_owned()
        }

        fn ready(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready_for_reads(&self) -> Result<(), String> {
            Err("main: no standby within max_lag".to_owned())
        }

        fn draining(&self) -> bool {
            self.draining.load(Ordering::Relaxed)
        }
    }

    /// How long a test waits for an answer before it fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn start(fake: Fake) -> (SocketAddr, Handle) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (address, serve(listener, Arc::new(fake)).unwrap())
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The whole response; the server closes after it.
    fn exchange(mut stream: TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = Vec::new();
        // A server that closes with our bytes unread resets; what it said before has arrived.
        let _ = stream.read_to_end(&mut response);
        String::from_utf8(response).unwrap()
    }

    fn check(address: SocketAddr, line: &str, status: &str, headers: &[&str], body: &str) {
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let response = exchange(connect(address), &request);
        let (head, rest) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.lines().next(), Some(status), "{line}");
        for header in headers {
            assert!(
                head.lines().any(|l| l == *header),
                "{line}: no `{header}` in\n{head}"
            );
        }
        // Long bodies are compared by their beginning, and an empty one must be empty.
        assert!(
            rest.starts_with(body) && rest.is_empty() == body.is_empty(),
            "{line}: {rest}"
        );
    }
}
