//! What the proxy itself says to clients: errors, and the messages of a login.
//!
//! Everything is built with pgwire's types, so no layout of a message that the proxy originates is written here twice.

use bytes::BytesMut;
use pgwire::error::ErrorInfo;
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

use super::frame::put_header;
use super::{SqlState, Status};

/// How far an error reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing ends: something that the client may want to know.
    Notice,
    /// The statement ends, the session goes on.
    Error,
    /// The session ends.
    Fatal,
}

impl Severity {
    /// The word of the `S` and `V` fields.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Notice => "NOTICE",
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        }
    }
}

/// One error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether the session survives.
    pub severity: Severity,
    /// The code that drivers act upon.
    pub state: SqlState,
    /// What happened. Free of addresses, secrets and SQL.
    pub message: String,
    /// What to do about it.
    pub hint: Option<&'static str>,
}

impl Notice {
    /// Something that is no error.
    pub fn remark(state: SqlState, message: impl Into<String>) -> Notice {
        Notice {
            severity: Severity::Notice,
            ..Notice::error(state, message)
        }
    }

    /// An error that ends the statement.
    pub fn error(state: SqlState, message: impl Into<String>) -> Notice {
        Notice {
            severity: Severity::Error,
            state,
            message: message.into(),
            hint: None,
        }
    }

    /// An error that ends the session.
    pub fn fatal(state: SqlState, message: impl Into<String>) -> Notice {
        Notice {
            severity: Severity::Fatal,
            state,
            message: message.into(),
            hint: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(self, hint: &'static str) -> Notice {
        Notice {
            hint: Some(hint),
            ..self
        }
    }

    /// Appends the ErrorResponse message, or a NoticeResponse.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut info = ErrorInfo::new(
            self.severity.as_str().to_owned(),
            self.state.code().to_owned(),
            self.message.clone(),
        );
        info.severity_nonlocalized = Some(self.severity.as_str().to_owned());
        info.hint = self.hint.map(str::to_owned);
        match self.severity {
            Severity::Notice => put(&NoticeResponse::from(info), out),
            _ => put(&ErrorResponse::from(info), out),
        }
    }
}

/// Errors of the proxy that may reach a client, and in which words.
pub trait ClientFacing {
    /// The error as the client sees it.
    fn notice(&self) -> Notice;
}

/// Appends one of pgwire's messages. Messages whose size is bounded by construction cannot fail to encode.
pub(super) fn put(message: &impl Message, out: &mut Vec<u8>) {
    let mut buf = BytesMut::with_capacity(message.message_length() + 1);
    match message.encode(&mut buf) {
        Ok(()) => out.extend_from_slice(&buf),
        // Only a message above pgwire's size bound gets here: an error text of that length has lost its reader
        // anyway, and half a message would break the stream.
        Err(error) => tracing::error!(%error, "a message of the proxy could not be encoded"),
    }
}

/// Appends an AuthenticationOk, or a step of an exchange.
pub fn authentication(message: &Authentication, out: &mut Vec<u8>) {
    put(message, out);
}

/// Appends a ParameterStatus.
pub fn parameter_status(name: &str, value: &str, out: &mut Vec<u8>) {
    put(
        &ParameterStatus::new(name.to_owned(), value.to_owned()),
        out,
    );
}

/// Appends a BackendKeyData. Keys of 4 bytes are protocol 3.0's, longer ones need 3.2.
pub fn backend_key_data(process: i32, key: &[u8], out: &mut Vec<u8>) {
    let key = match <[u8; 4]>::try_from(key) {
        Ok(short) => SecretKey::I32(i32::from_be_bytes(short)),
        Err(_) => SecretKey::Bytes(bytes::Bytes::copy_from_slice(key)),
    };
    put(&BackendKeyData::new(process, key), out);
}

/// Appends a ReadyForQuery that says "idle".
pub fn ready_idle(out: &mut Vec<u8>) {
    ready(Status::Idle, out);
}

/// Appends a ReadyForQuery, which is the answer to every BEGIN that begins late: byte by byte, without memory of its own.
pub fn ready(status: Status, out: &mut Vec<u8>) {
    let status = match status {
        Status::Idle => b'I',
        Status::Transaction => b'T',
        Status::Failed => b'E',
    };
    put_header(out, b'Z', 1);
    out.push(status);
}

/// Appends a NegotiateProtocolVersion: the newest version that we speak of what was asked for, and every `_pq_.`
/// option, since we know none.
pub fn negotiate(version: i32, options: Vec<String>, out: &mut Vec<u8>) {
    put(&NegotiateProtocolVersion::new(version, options), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::backend::error_field;
    use crate::wire::frame::header;

    #[test]
    fn an_error_carries_its_fields() {
        let mut out = Vec::new();
        Notice::fatal(SqlState::TooManyConnections, "no more connections allowed")
            .hint("wait")
            .put(&mut out);
        let head = header(&out, 1000).expect("valid").expect("whole");
        assert_eq!((head.tag, head.total()), (b'E', out.len()));
        let body = &out[5..];
        for (field, value) in [
            (b'S', "FATAL"),
            (b'V', "FATAL"),
            (b'C', "53300"),
            (b'M', "no more connections allowed"),
            (b'H', "wait"),
        ] {
            assert_eq!(
                error_field(body, field),
                Some(value.as_bytes()),
                "{}",
                char::from(field)
            );
        }
    }

    #[test]
    fn keys_of_both_protocols() {
        let mut out = Vec::new();
        backend_key_data(7, &[1, 2, 3, 4], &mut out);
        assert_eq!(out, b"K\0\0\0\x0c\0\0\0\x07\x01\x02\x03\x04");
        out.clear();
        backend_key_data(7, &[9; 32], &mut out);
        assert_eq!(out.len(), 1 + 4 + 4 + 32);
    }

    #[test]
    fn negotiation_names_version_and_options() {
        let mut out = Vec::new();
        negotiate(196_610, vec!["_pq_.x".to_owned()], &mut out);
        assert_eq!(out, b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0");
    }
}
