//! Whole messages from a server, for logins and small questions. The hot path never comes here.

use bytes::{Buf, BytesMut};

use super::{Refusal, ServerError};
use crate::net::Stream;
use crate::wire::backend::error_field;
use crate::wire::frame::{self, HEADER};

/// Longest message of a login or a small answer. Servers are not trusted with more.
const MAX_BODY: usize = 1024 * 1024;

/// Reads messages one by one.
#[derive(Debug, Default)]
pub struct Messages {
    buffer: BytesMut,
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Its type.
    pub tag: u8,
    /// Its body.
    pub body: BytesMut,
}

impl Messages {
    /// The next message; an ErrorResponse is returned as [`ServerError::Refused`].
    ///
    /// # Cancel safety
    /// A dropped future loses no bytes.
    pub async fn next(&mut self, stream: &mut Stream) -> Result<Message, ServerError> {
        loop {
            if let Some(message) = self.take()? {
                if message.tag == b'E' {
                    return Err(ServerError::Refused(refusal(&message.body)));
                }
                return Ok(message);
            }
            if stream.read_into(&mut self.buffer, usize::MAX).await? == 0 {
                return Err(ServerError::Closed);
            }
        }
    }

    /// Whether bytes have arrived that nobody asked for.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn take(&mut self) -> Result<Option<Message>, ServerError> {
        let header = frame::header(&self.buffer, MAX_BODY)
            .map_err(|_| ServerError::Protocol("a message of an impossible length"))?;
        let Some(header) = header.filter(|header| self.buffer.len() >= header.total()) else {
            return Ok(None);
        };
        let mut body = self.buffer.split_to(header.total());
        body.advance(HEADER);
        Ok(Some(Message {
            tag: header.tag,
            body,
        }))
    }
}

fn refusal(body: &[u8]) -> Refusal {
    let text =
        |field| String::from_utf8_lossy(error_field(body, field).unwrap_or_default()).into_owned();
    Refusal {
        code: text(b'C'),
        message: text(b'M'),
        body: body.to_vec(),
    }
}
