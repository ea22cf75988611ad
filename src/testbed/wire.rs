//! A raw client of the protocol: what it sends is what the caller wrote, what it receives is shown as it
//! came. It blocks, and never for longer than its timeout.
//!
//! PostgreSQL manual, "Frontend/Backend Protocol", protocol.html.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Error, ServerError, request};

/// The rows of an answer, every value in text form, `None` for NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// Where a server or a proxy listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp(SocketAddr),
    /// The path of the socket file itself, such as `/tmp/.s.PGSQL.5432`.
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// The protocol version of a StartupMessage: major in the upper 16 bits, minor in the lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolVersion(pub u32);

impl ProtocolVersion {
    /// 3.0, what every server speaks.
    pub const V3_0: Self = Self(3 << 16);
    /// 3.2, with cancel keys of up to 256 bytes.
    pub const V3_2: Self = Self(3 << 16 | 2);
    /// 3.9999, which no server will ever speak: libpq asks for it to see that minor versions are negotiated.
    pub const V3_9999: Self = Self(3 << 16 | 9999);
}

/// What a CancelRequest must show: BackendKeyData.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendKey {
    /// The server process, or whatever number a proxy gave out in its place.
    pub process_id: u32,
    /// 4 bytes in protocol 3.0, 4 to 256 in 3.2.
    pub secret: Vec<u8>,
}

/// One connection. It is closed when dropped, without a Terminate.
#[derive(Debug)]
pub struct RawClient {
    stream: Stream,
    inbox: Vec<u8>,
    timeout: Duration,
    parameters: BTreeMap<String, String>,
    key: Option<BackendKey>,
}

impl RawClient {
    /// Connects and sends nothing: for tests of the first packets.
    ///
    /// # Errors
    /// [`Error::Socket`] when nobody listens there.
    pub fn open(address: &Address) -> Result<Self, Error> {
        let stream = Stream::connect(address)?;
        let (inbox, parameters) = (Vec::new(), BTreeMap::new());
        Ok(Self {
            stream,
            inbox,
            timeout: DEFAULT_TIMEOUT,
            parameters,
            key: None,
        })
    }

    /// Connects by protocol 3.0 and logs in without a password, up to the first ReadyForQuery.
    ///
    /// # Errors
    /// [`Error::Server`] when the login is refused; [`Error::Unexpected`] when a password is asked for.
    pub fn connect(address: &Address, parameters: &[(&str, &str)]) -> Result<Self, Error> {
        Self::connect_with(address, ProtocolVersion::V3_0, parameters)
    }

    /// Like [`connect`](Self::connect), by a protocol version of choice.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub fn connect_with(
        address: &Address,
        version: ProtocolVersion,
        parameters: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let mut client = Self::open(address)?;
        client.send(&request::startup(version, parameters))?;
        client.finish_login()?;
        Ok(client)
    }

    /// Receives the end of a login, from AuthenticationOk to ReadyForQuery, and returns what came.
    ///
    /// # Errors
    /// [`Error::Server`] when the login is refused; [`Error::Unexpected`] when a password is asked for.
    pub fn finish_login(&mut self) -> Result<Vec<Message>, Error> {
        let mut received = Vec::new();
        loop {
            let message = self.recv()?;
            match message.tag {
                b'E' => return Err(Error::Server(Box::new(message.error()?))),
                b'R' if message.authentication()? != AUTHENTICATION_OK => {
                    return Err(message.unexpected("AuthenticationOk"));
                }
                b'Z' => {
                    received.push(message);
                    return Ok(received);
                }
                _ => received.push(message),
            }
        }
    }

    /// Sets how long sending or receiving may take before it is an error; ten seconds at first.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The parameters reported by ParameterStatus so far, each with its latest value.
    pub fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// The key received in BackendKeyData.
    pub fn backend_key(&self) -> Option<&BackendKey> {
        self.key.as_ref()
    }

    /// Sends these bytes, whatever they are.
    ///
    /// # Errors
    /// [`Error::Socket`], also when the other side takes nothing for the length of the timeout.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.set_write_timeout(self.timeout)?;
        Ok(self.stream.write_all(bytes)?)
    }

    /// Closes the sending half: the other side reads an end, and can still answer.
    ///
    /// # Errors
    /// [`Error::Socket`] when the connection is gone already.
    pub fn shutdown_write(&mut self) -> Result<(), Error> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Closes the connection as the kernel does for a process that is killed with bytes unread: by a reset, of which the
    /// other side hears at once, and loses what it had not read.
    ///
    /// # Errors
    /// [`Error::Socket`] when the connection is gone already.
    pub fn reset(self) -> Result<(), Error> {
        if let Stream::Tcp(stream) = &self.stream {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// The next message.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end of the connection; [`Error::Timeout`] when nothing whole came in time;
    /// [`Error::Malformed`] for a length that no message can have.
    pub fn recv(&mut self) -> Result<Message, Error> {
        let limit = self.timeout;
        let silence = || Error::Timeout {
            what: "a message".to_owned(),
            limit,
        };
        self.recv_within(limit)?.ok_or_else(silence)
    }

    /// The next message if it comes within `limit`, else `None`; what came of a message is kept.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Malformed`], [`Error::Socket`].
    pub fn recv_within(&mut self, limit: Duration) -> Result<Option<Message>, Error> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(message) = take_message(&mut self.inbox)? {
                self.note(&message)?;
                return Ok(Some(message));
            }
            if !self.fill(deadline)? {
                return Ok(None);
            }
        }
    }

    /// One byte that is no message: the answer to SSLRequest.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn recv_byte(&mut self) -> Result<u8, Error> {
        let deadline = Instant::now() + self.timeout;
        while self.inbox.is_empty() {
            if !self.fill(deadline)? {
                return Err(Error::Timeout {
                    what: "a byte".to_owned(),
                    limit: self.timeout,
                });
            }
        }
        Ok(self.inbox.remove(0))
    }

    /// All messages up to and including the next ReadyForQuery, ErrorResponses among them.
    ///
    /// # Errors
    /// As for [`recv`](Self::recv).
    pub fn recv_until_ready(&mut self) -> Result<Vec<Message>, Error> {
        let mut received = Vec::new();
        while received
            .last()
            .is_none_or(|message: &Message| message.tag != b'Z')
        {
            received.push(self.recv()?);
        }
        Ok(received)
    }

    /// The next message, which must have this tag.
    ///
    /// # Errors
    /// [`Error::Server`] for an ErrorResponse in its place, [`Error::Unexpected`] for any other; and as
    /// for [`recv`](Self::recv).
    pub fn expect(&mut self, tag: u8) -> Result<Message, Error> {
        let message = self.recv()?;
        match message.tag {
            received if received == tag => Ok(message),
            b'E' => Err(Error::Server(Box::new(message.error()?))),
            _ => Err(message.unexpected(&format!("tag {:?}", char::from(tag)))),
        }
    }

    /// Receives until the other side closes, and returns what came before, such as a FATAL error.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it stays open.
    pub fn recv_until_closed(&mut self) -> Result<Vec<Message>, Error> {
        let mut received = Vec::new();
        loop {
            match self.recv() {
                Ok(message) => received.push(message),
                Err(Error::Closed) => return Ok(received),
                Err(Error::Socket(e)) if e.kind() == ErrorKind::ConnectionReset => {
                    return Ok(received);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Runs statements by the simple protocol and returns the rows of all of them.
    ///
    /// # Errors
    /// [`Error::Server`] for the first ErrorResponse, once the server is ready again; and as for
    /// [`recv`](Self::recv).
    pub fn query(&mut self, sql: &str) -> Result<Rows, Error> {
        self.send(&request::query(sql))?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let message = self.recv()?;
            match message.tag {
                b'D' => rows.push(message.text_row()?),
                b'E' => failure = failure.or(Some(message.error()?)),
                b'G' => self.send(&request::copy_fail("no data"))?,
                b'Z' => break,
                _ => {}
            }
            // After a FATAL error no ReadyForQuery comes.
            if let Some(fatal) = failure.take_if(|error| error.severity() != "ERROR") {
                return Err(Error::Server(Box::new(fatal)));
            }
        }
        failure.map_or(Ok(rows), |error| Err(Error::Server(Box::new(error))))
    }

    /// Asks, on a connection of its own, that the running query of the session with `key` be cancelled,
    /// and waits until the other side has closed that connection.
    ///
    /// # Errors
    /// As for [`open`](Self::open) and [`recv_until_closed`](Self::recv_until_closed).
    pub fn cancel(address: &Address, key: &BackendKey) -> Result<(), Error> {
        let mut client = Self::open(address)?;
        client.send(&request::cancel_request(key))?;
        client.recv_until_closed().map(drop)
    }

    fn note(&mut self, message: &Message) -> Result<(), Error> {
        match message.tag {
            b'S' => {
                let (name, value) = message.parameter()?;
                self.parameters.insert(name, value);
            }
            b'K' => self.key = Some(message.backend_key()?),
            _ => {}
        }
        Ok(())
    }

    /// Reads once; `false` when the deadline passed first.
    fn fill(&mut self, deadline: Instant) -> Result<bool, Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.stream.set_read_timeout(left)?;
        let mut chunk = [0; READ_SIZE];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Error::Closed),
            Ok(count) => {
                self.inbox.extend(&chunk[..count]);
                Ok(true)
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(e.into()),
        }
    }
}

/// One backend message: the tag and what follows the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The first byte, such as `b'Z'`.
    pub tag: u8,
    /// The rest, without tag and length.
    pub body: Vec<u8>,
}

impl Message {
    /// ErrorResponse or NoticeResponse: its fields.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the body does not end where its layout says; so for the others too.
    pub fn error(&self) -> Result<ServerError, Error> {
        let mut body = Body(&self.body);
        let mut fields = Vec::new();
        loop {
            match body.byte()? {
                0 => break,
                kind => fields.push((kind, body.text()?)),
            }
        }
        body.end()?;
        Ok(ServerError { fields })
    }

    /// DataRow: its values as sent, `None` for NULL.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn row(&self) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut body = Body(&self.body);
        let columns = body.u16()?;
        let row = (0..columns)
            .map(|_| body.value())
            .collect::<Result<_, _>>()?;
        body.end()?;
        Ok(row)
    }

    /// DataRow in text form.
    ///
    /// # Errors
    /// [`Error::Malformed`], also for values that are not UTF-8.
    pub fn text_row(&self) -> Result<Vec<Option<String>>, Error> {
        let text = |value: Option<Vec<u8>>| value.map(utf8).transpose();
        self.row()?.into_iter().map(text).collect()
    }

    /// RowDescription: the names of the columns.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn column_names(&self) -> Result<Vec<String>, Error> {
        let mut body = Body(&self.body);
        let columns = body.u16()?;
        // Behind the name: table OID, column number, type OID, length, modifier, format.
        let name = |_| body.text().and_then(|name| body.take(18).map(|_| name));
        let names = (0..columns).map(name).collect::<Result<_, _>>()?;
        body.end()?;
        Ok(names)
    }

    /// CommandComplete: its text, such as `INSERT 0 1`.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn command_tag(&self) -> Result<String, Error> {
        let mut body = Body(&self.body);
        let text = body.text()?;
        body.end()?;
        Ok(text)
    }

    /// ReadyForQuery: `b'I'` idle, `b'T'` in a transaction, `b'E'` in a failed one.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn transaction_status(&self) -> Result<u8, Error> {
        let mut body = Body(&self.body);
        let status = body.byte()?;
        body.end()?;
        Ok(status)
    }

    /// ParameterStatus: name and value.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn parameter(&self) -> Result<(String, String), Error> {
        let mut body = Body(&self.body);
        let pair = (body.text()?, body.text()?);
        body.end()?;
        Ok(pair)
    }

    /// BackendKeyData, with a secret of any length.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn backend_key(&self) -> Result<BackendKey, Error> {
        let mut body = Body(&self.body);
        let process_id = body.u32()?;
        Ok(BackendKey {
            process_id,
            secret: body.0.to_vec(),
        })
    }

    /// Authentication: which kind; 0 is Ok, 3 cleartext, 5 MD5, 10 to 12 SASL.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn authentication(&self) -> Result<u32, Error> {
        Body(&self.body).u32()
    }

    fn unexpected(&self, wanted: &str) -> Error {
        Error::Unexpected {
            wanted: wanted.to_owned(),
            received: format!("{self:?}"),
        }
    }
}

/// `Z "I"`: the tag, and the body as text with its other bytes escaped.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} \"{}\"",
            char::from(self.tag),
            self.body.escape_ascii()
        )
    }
}

/// Takes one whole message off the front of the bytes received.
fn take_message(inbox: &mut Vec<u8>) -> Result<Option<Message>, Error> {
    let Some(&[tag, a, b, c, d]) = inbox.first_chunk() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    if !(4..=MAX_LENGTH).contains(&length) {
        return Err(Error::Malformed("a length that no message has"));
    }
    let end = 1 + length as usize;
    if inbox.len() < end {
        return Ok(None);
    }
    let body = inbox[5..end].to_vec();
    inbox.drain(..end);
    Ok(Some(Message { tag, body }))
}

fn utf8(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| Error::Malformed("text that is not UTF-8"))
}

/// What is still to be read of a body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let short = Error::Malformed("a body that ends too early");
        let (taken, rest) = self.0.split_at_checked(count).ok_or(short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self
            .take(N)?
            .try_into()
            .expect("take gives as many bytes as asked"))
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    /// A length and that many bytes; -1 is NULL.
    fn value(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.array().map(i32::from_be_bytes)? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length);
                let length = length.map_err(|_| Error::Malformed("a value of negative length"))?;
                Ok(Some(self.take(length)?.to_vec()))
            }
        }
    }

    fn text(&mut self) -> Result<String, Error> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let text = self.take(end.ok_or(Error::Malformed("a text without its end"))?)?;
        self.take(1)?;
        utf8(text.to_vec())
    }

    fn end(&self) -> Result<(), Error> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Error::Malformed("a body with something behind its end")),
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, DEFAULT_TIMEOUT)?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix),
        }
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

/// Longer than any step of a test takes on a busy machine, shorter than a test runner's patience.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_SIZE: usize = 16 * 1024;
const AUTHENTICATION_OK: u32 = 0;

/// A server's own bound on a row is one gibibyte; a test that gets a quarter of it has met garbage.
const MAX_LENGTH: u32 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Message {
        Message {
            tag,
            body: body.to_vec(),
        }
    }

    fn check(received: &[u8], whole: Option<Message>, left: usize) {
        let mut inbox = received.to_vec();
        assert_eq!(take_message(&mut inbox).unwrap(), whole, "{received:?}");
        assert_eq!(inbox.len(), left, "{received:?}");
    }

    #[test]
    fn a_message_is_taken_when_it_is_whole() {
        check(b"", None, 0);
        check(b"Z\0\0\0", None, 4);
        check(b"Z\0\0\0\x05", None, 5);
        check(b"Z\0\0\0\x05I", Some(message(b'Z', b"I")), 0);
        check(b"1\0\0\0\x042\0", Some(message(b'1', b"")), 2);
    }

    #[test]
    fn an_impossible_length_is_malformed() {
        for received in [b"Z\0\0\0\x03", b"Z\xff\xff\xff\xff"] {
            let error = take_message(&mut received.to_vec()).unwrap_err();
            assert!(matches!(error, Error::Malformed(_)), "{error}");
        }
    }

    #[test]
    fn an_error_response_is_read_by_its_fields() {
        let error = message(b'E', b"SFEHLER\0VERROR\0C42P01\0Mno such table\0\0")
            .error()
            .unwrap();
        assert_eq!(error.to_string(), "ERROR 42P01: no such table");
        assert_eq!(
            (error.field(b'S'), error.field(b'H')),
            (Some("FEHLER"), None)
        );
    }

    #[test]
    fn a_row_keeps_null_and_the_empty_text_apart() {
        let row = message(b'D', b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\0")
            .text_row()
            .unwrap();
        assert_eq!(row, [Some("a".to_owned()), None, Some(String::new())]);
    }

    #[test]
    fn a_key_may_be_long() {
        let key = message(b'K', &[&[0, 0, 0, 7][..], &[1; 32]].concat())
            .backend_key()
            .unwrap();
        assert_eq!(
            key,
            BackendKey {
                process_id: 7,
                secret: vec![1; 32]
            }
        );
    }

    #[test]
    fn bodies_that_break_their_layout_are_malformed() {
        for result in [
            message(b'E', b"SERROR\0").error().map(drop),
            message(b'E', b"SERROR").error().map(drop),
            message(b'D', b"\0\x01\0\0\0\x02a").row().map(drop),
            message(b'D', b"\0\x01\xff\xff\xff\xfe").row().map(drop),
            message(b'D', b"\0\0x").row().map(drop),
            message(b'D', b"\0\x01\0\0\0\x01\xff").text_row().map(drop),
            message(b'T', b"\0\x01a\0\0").column_names().map(drop),
            message(b'Z', b"").transaction_status().map(drop),
        ] {
            assert!(matches!(result, Err(Error::Malformed(_))), "{result:?}");
        }
    }

    #[test]
    fn messages_print_as_text() {
        assert_eq!(
            format!("{:?}", message(b'C', b"SELECT 1\0")),
            r#"C "SELECT 1\x00""#
        );
    }
}
