//! The next message of a buffer: its type and its length, never its body.
//!
//! PostgreSQL manual, "Messaging Overview", protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS: "The first byte of a
//! message identifies the message type, and the next four bytes specify the length of the rest of the message (this
//! length count includes itself, but not the message-type byte)."

/// Bytes of a message before its body: the type and the length.
pub const HEADER: usize = 5;

/// Largest body that a server may announce. The protocol's length is a signed 32-bit number, so nothing larger is
/// legal; bodies are streamed and never held, so the bound costs no memory.
pub const MAX_SERVER_BODY: usize = i32::MAX as usize;

/// Type and body length of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message type.
    pub tag: u8,
    /// Bytes that follow the header.
    pub body: usize,
}

impl Header {
    /// Bytes of the whole message, header included.
    pub fn total(self) -> usize {
        HEADER + self.body
    }
}

/// A header that no well-behaved peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length does not even cover itself. The peer is broken or hostile: the stream cannot be read on.
    #[error("message of type {tag:?} has an invalid length of {length}", tag = char::from(*.tag))]
    Short {
        /// The message type.
        tag: u8,
        /// The announced length.
        length: u32,
    },
    /// The body is larger than the bound that applies to this peer.
    #[error("message of type {tag:?} announces {body} bytes; the limit is {max}", tag = char::from(*.tag))]
    Long {
        /// The message type.
        tag: u8,
        /// The announced body length.
        body: usize,
        /// The bound.
        max: usize,
    },
}

/// Reads the header at the start of `buf`; `None` while fewer than [`HEADER`] bytes have arrived.
///
/// # Errors
/// [`FrameError`] when the length is below 4, or the body longer than `max_body`.
#[inline]
pub fn header(buf: &[u8], max_body: usize) -> Result<Option<Header>, FrameError> {
    let Some((&[tag, a, b, c, d], _)) = buf.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    let Some(body) = (length as usize).checked_sub(4) else {
        return Err(FrameError::Short { tag, length });
    };
    if body > max_body {
        return Err(FrameError::Long {
            tag,
            body,
            max: max_body,
        });
    }
    Ok(Some(Header { tag, body }))
}

/// Appends a header for a body of `body` bytes.
///
/// # Panics
/// When the body would not fit the protocol's 32-bit length; callers build bodies from messages that did fit.
pub fn put_header(out: &mut Vec<u8>, tag: u8, body: usize) {
    let length =
        u32::try_from(body + 4).expect("bodies come from messages whose length fitted 32 bits");
    out.push(tag);
    out.extend_from_slice(&length.to_be_bytes());
}

/// Splits the zero-terminated string off the front of `bytes`: the string without its terminator, and what follows.
/// `None` if there is no terminator.
#[inline]
pub fn split_cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // Most of them are names that are not given.
    let end = match bytes.first()? {
        0 => 0,
        _ => memchr::memchr(0, bytes)?,
    };
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let check = |bytes: &[u8], expected| assert_eq!(header(bytes, 100), expected, "{bytes:?}");
        check(b"", Ok(None));
        check(b"Q\0\0\0", Ok(None));
        check(b"S\0\0\0\x04", Ok(Some(Header { tag: b'S', body: 0 })));
        check(
            b"Q\0\0\0\x07ab\0rest",
            Ok(Some(Header { tag: b'Q', body: 3 })),
        );
        check(
            b"Q\0\0\0\x03",
            Err(FrameError::Short {
                tag: b'Q',
                length: 3,
            }),
        );
        check(
            b"Q\0\0\0\0",
            Err(FrameError::Short {
                tag: b'Q',
                length: 0,
            }),
        );
        check(
            b"Q\0\0\0\x69",
            Err(FrameError::Long {
                tag: b'Q',
                body: 101,
                max: 100,
            }),
        );
        let huge = Err(FrameError::Long {
            tag: b'd',
            body: 0xffff_fffb,
            max: 100,
        });
        check(b"d\xff\xff\xff\xff", huge);
    }

    #[test]
    fn strings_end_at_their_zero() {
        assert_eq!(split_cstr(b"ab\0cd"), Some((&b"ab"[..], &b"cd"[..])));
        assert_eq!(split_cstr(b"\0"), Some((&b""[..], &b""[..])));
        assert_eq!(split_cstr(b"ab"), None);
    }

    #[test]
    fn put_then_read() {
        let mut out = Vec::new();
        put_header(&mut out, b'P', 300);
        assert_eq!(
            header(&out, 1000),
            Ok(Some(Header {
                tag: b'P',
                body: 300
            }))
        );
    }
}
