//! The untagged first packets of a connection.
//!
//! PostgreSQL manual, "Start-up", protocol-flow.html#PROTOCOL-FLOW-START-UP, and
//! protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-STARTUPMESSAGE. Nothing here has been authenticated, so
//! everything is bounded.

use super::frame::split_cstr;

/// Largest startup packet, the server's own bound (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_PACKET: usize = 10_000;

/// Protocol 3.0.
pub const V3_0: i32 = 3 << 16;
/// Protocol 3.2, with cancel keys of variable length. There is no 3.1.
pub const V3_2: i32 = (3 << 16) | 2;

const CANCEL: i32 = (1234 << 16) | 5678;
const SSL: i32 = (1234 << 16) | 5679;
const GSSENC: i32 = (1234 << 16) | 5680;

/// One of the packets that may open a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The client asks for TLS.
    Ssl,
    /// The client asks for GSSAPI encryption.
    GssEnc,
    /// The client asks to cancel what another connection runs.
    Cancel {
        /// Process id as BackendKeyData told it.
        process: i32,
        /// The key, 4 to 256 bytes.
        key: Vec<u8>,
    },
    /// The client logs in.
    Startup(Startup),
}

/// A StartupMessage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// The version that the client asked for: major in the high half, minor in the low.
    pub version: i32,
    /// The user; never empty.
    pub user: String,
    /// The database; the user's name if the client named none.
    pub database: String,
    /// All other parameters in order, names as typed, `options` among them.
    pub parameters: Vec<(String, String)>,
    /// Names of the `_pq_.` protocol options that the client asked for.
    pub protocol_options: Vec<String>,
}

impl Startup {
    /// The version to speak: the newest that both sides know. 3.1 was never released, so it becomes 3.0.
    pub fn negotiated(&self) -> i32 {
        if self.version >= V3_2 { V3_2 } else { V3_0 }
    }

    /// Whether the client must be told the negotiated version.
    ///
    /// PostgreSQL manual, protocol-overview.html: the server answers NegotiateProtocolVersion if it "does not support
    /// the minor version requested by the client" or the client asked for unknown `_pq_.` options.
    pub fn needs_negotiation(&self) -> bool {
        self.version != self.negotiated() || !self.protocol_options.is_empty()
    }
}

/// A first packet that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length is not one that a client would send.
    #[error("invalid length of startup packet")]
    Length,
    /// A layout that does not match the manual.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// Text that is not UTF-8. PostgreSQL takes any bytes; a name that no database or user has here loses nothing.
    #[error("startup packet contains text that is not UTF-8")]
    Text,
    /// A protocol of another major version.
    #[error("unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", .0 >> 16, .0 & 0xffff)]
    Version(i32),
    /// No user was named.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
}

/// Bytes that the packet at the front of `buf` needs in all; `None` while its length has not arrived.
///
/// # Errors
/// [`StartupError::Length`] outside of 8 to [`MAX_PACKET`].
pub fn length(buf: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some(length) = buf.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if (8..=MAX_PACKET).contains(&length) {
        Ok(Some(length))
    } else {
        Err(StartupError::Length)
    }
}

/// Opens one whole packet, its length included.
///
/// # Errors
/// [`StartupError`], each with the text for the client.
pub fn packet(packet: &[u8]) -> Result<Packet, StartupError> {
    let (code, body) = packet
        .get(4..)
        .and_then(|rest| rest.split_first_chunk::<4>())
        .ok_or(StartupError::Length)?;
    match i32::from_be_bytes(*code) {
        SSL if body.is_empty() => Ok(Packet::Ssl),
        GSSENC if body.is_empty() => Ok(Packet::GssEnc),
        CANCEL => cancel(body),
        version if version >> 16 == 3 => startup(version, body).map(Packet::Startup),
        SSL | GSSENC => Err(StartupError::Length),
        version => Err(StartupError::Version(version)),
    }
}

fn cancel(body: &[u8]) -> Result<Packet, StartupError> {
    let (process, key) = body.split_first_chunk::<4>().ok_or(StartupError::Length)?;
    if !(4..=256).contains(&key.len()) {
        return Err(StartupError::Length);
    }
    Ok(Packet::Cancel {
        process: i32::from_be_bytes(*process),
        key: key.to_vec(),
    })
}

fn startup(version: i32, body: &[u8]) -> Result<Startup, StartupError> {
    let mut startup = Startup {
        version,
        ..Startup::default()
    };
    let mut database = None;
    let mut rest = body;
    loop {
        let (name, after) = split_cstr(rest).ok_or(StartupError::Layout)?;
        if name.is_empty() {
            if !after.is_empty() {
                return Err(StartupError::Layout);
            }
            break;
        }
        let (value, after) = split_cstr(after).ok_or(StartupError::Layout)?;
        rest = after;
        let (name, value) = (text(name)?, text(value)?);
        match name.as_str() {
            "user" => startup.user = value,
            "database" => database = Some(value),
            _ if name.starts_with("_pq_.") => startup.protocol_options.push(name),
            _ => startup.parameters.push((name, value)),
        }
    }
    if startup.user.is_empty() {
        return Err(StartupError::NoUser);
    }
    startup.database = database
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| startup.user.clone());
    Ok(startup)
}

fn text(bytes: &[u8]) -> Result<String, StartupError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| StartupError::Text)
}

/// Appends a StartupMessage of protocol 3.0, as the proxy sends it to servers.
pub fn put_startup(parameters: &[(&str, &str)], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&V3_0.to_be_bytes());
    for (name, value) in parameters {
        for text in [name, value] {
            out.extend_from_slice(text.as_bytes());
            out.push(0);
        }
    }
    out.push(0);
    let length = u32::try_from(out.len() - start)
        .expect("names of a startup packet came from bounded packets");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a CancelRequest.
pub fn put_cancel(process: i32, key: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(12 + key.len()).expect("keys have at most 256 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&CANCEL.to_be_bytes());
    out.extend_from_slice(&process.to_be_bytes());
    out.extend_from_slice(key);
}

/// Splits the value of the `options` parameter into settings: `-c name=value`, `-cname=value` and `--name=value`,
/// with backslash escapes, as PostgreSQL's `pg_split_opts` and command line do.
///
/// # Errors
/// The text for the client, when anything else is asked for.
pub fn options(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut settings = Vec::new();
    let mut words = words(text).into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("--")
                .or_else(|| word.strip_prefix("-c"))
                .map(str::to_owned)
        };
        let Some((name, value)) = setting
            .as_deref()
            .and_then(|setting| setting.split_once('='))
        else {
            return Err("unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed"
                .to_owned());
        };
        settings.push((name.trim().replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c.is_ascii_whitespace() {
            words.extend(word.take());
        } else {
            let literal = if c == '\\' { chars.next() } else { Some(c) };
            word.get_or_insert_default().extend(literal);
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(code: i32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(8 + body.len() as u32).to_be_bytes());
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn packets() {
        let check = |code, body: &[u8], expected: Result<Packet, StartupError>| {
            assert_eq!(
                packet(&with_length(code, body)),
                expected,
                "{code} {body:?}"
            );
        };
        check(SSL, b"", Ok(Packet::Ssl));
        check(GSSENC, b"", Ok(Packet::GssEnc));
        check(SSL, b"x", Err(StartupError::Length));
        check(
            CANCEL,
            b"\0\0\0\x07abcd",
            Ok(Packet::Cancel {
                process: 7,
                key: b"abcd".to_vec(),
            }),
        );
        check(CANCEL, b"\0\0\0\x07abc", Err(StartupError::Length));
        check(2 << 16, b"", Err(StartupError::Version(2 << 16)));
        check(V3_0, b"user\0a\0", Err(StartupError::Layout));
        check(V3_0, b"user\0a\0\0x", Err(StartupError::Layout));
        check(V3_0, b"user\0a", Err(StartupError::Layout));
        check(V3_0, b"\0", Err(StartupError::NoUser));
        check(V3_0, b"user\0\xff\0\0", Err(StartupError::Text));
        let startup = Startup {
            version: V3_0,
            user: "a".into(),
            database: "a".into(),
            ..Startup::default()
        };
        check(V3_0, b"user\0a\0\0", Ok(Packet::Startup(startup.clone())));
        let full = Startup {
            database: "d".into(),
            parameters: vec![("application_name".into(), "x".into())],
            protocol_options: vec!["_pq_.y".into()],
            ..startup
        };
        let body = b"user\0a\0database\0d\0application_name\0x\0_pq_.y\x001\0\0";
        check(V3_0, body, Ok(Packet::Startup(full)));
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(length(b"\0\0\0"), Ok(None));
        assert_eq!(length(b"\0\0\0\x08"), Ok(Some(8)));
        for bad in [b"\0\0\0\x07", b"\0\0\x27\x11", b"\xff\xff\xff\xff", b"GET "] {
            assert_eq!(length(bad), Err(StartupError::Length));
        }
    }

    #[test]
    fn versions_are_negotiated_down() {
        for (asked, spoken, told) in [
            (0, 0, false),
            (1, 0, true),
            (2, 2, false),
            (3, 2, true),
            (9999, 2, true),
        ] {
            let startup = Startup {
                version: (3 << 16) | asked,
                ..Startup::default()
            };
            assert_eq!(startup.negotiated() & 0xffff, spoken, "3.{asked}");
            assert_eq!(startup.needs_negotiation(), told, "3.{asked}");
        }
    }

    #[test]
    fn option_words() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            let expected: Vec<_> = expected
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect();
            assert_eq!(options(text), Ok(expected), "{text}");
        };
        check("", &[]);
        check("-c a=b", &[("a", "b")]);
        check(
            "-ca=b --search-path=x,y",
            &[("a", "b"), ("search_path", "x,y")],
        );
        check("-c a=b\\ c  -c d=\\\\", &[("a", "b c"), ("d", "\\")]);
        for bad in ["-B 10", "-c", "-c a", "x"] {
            assert!(options(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn written_startup_is_read_back() {
        let mut out = Vec::new();
        put_startup(&[("user", "a"), ("database", "d")], &mut out);
        assert_eq!(length(&out), Ok(Some(out.len())));
        let Ok(Packet::Startup(startup)) = packet(&out) else {
            panic!("a startup packet")
        };
        assert_eq!(
            (startup.user.as_str(), startup.database.as_str()),
            ("a", "d")
        );
    }
}
