//! The messages of servers that the proxy must open. All functions borrow from a message body.

use super::frame::split_cstr;

/// Bytes of a body that are enough to steer by: ReadyForQuery's status, a command tag, the name of a parameter, the
/// severity and SQLSTATE of an error. PostgreSQL sends `S`, `V` and `C` as the first fields of an error, and the
/// longest localised severity word has about 20 bytes.
pub const PREFIX: usize = 128;

/// The value of one field of an ErrorResponse or NoticeResponse body; `None` if it is missing, or cut off.
///
/// PostgreSQL manual, "Error and Notice Message Fields", protocol-error-fields.html.
pub fn error_field(body: &[u8], field: u8) -> Option<&[u8]> {
    let mut rest = body;
    loop {
        let (&code, after) = rest.split_first()?;
        if code == 0 {
            return None;
        }
        let (value, after) = split_cstr(after)?;
        if code == field {
            return Some(value);
        }
        rest = after;
    }
}

/// Whether the severity of an ErrorResponse ends the session.
pub fn is_fatal(body: &[u8]) -> bool {
    // The `V` field is never localised; servers before 9.6 send only `S`.
    let severity = error_field(body, b'V').or_else(|| error_field(body, b'S'));
    matches!(severity, Some(b"FATAL" | b"PANIC"))
}

/// Name and value of a ParameterStatus body; `None` if it is cut off.
pub fn parameter(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = split_cstr(body)?;
    let (value, _) = split_cstr(rest)?;
    Some((name, value))
}

/// Process id and key of a BackendKeyData body.
pub fn key_data(body: &[u8]) -> Option<(i32, &[u8])> {
    let (process, key) = body.split_first_chunk::<4>()?;
    // 4 bytes in protocol 3.0, up to 256 in 3.2.
    (4..=256)
        .contains(&key.len())
        .then_some((i32::from_be_bytes(*process), key))
}

/// The channel of a NotificationResponse body; `None` if it is cut off.
pub fn notified_channel(body: &[u8]) -> Option<&[u8]> {
    let (_, rest) = body.split_first_chunk::<4>()?;
    split_cstr(rest).map(|(channel, _)| channel)
}

/// The columns of a DataRow body, in text format; `None` for the whole if the body is malformed.
pub fn columns(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                values.push(Some(after.get(..length)?));
                rest = &after[length..];
            }
            Err(_) => {
                values.push(None);
                rest = after;
            }
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_an_error() {
        let body = b"SFEHLER\0VFATAL\0C57P01\0Mbye\0\0";
        assert_eq!(error_field(body, b'C'), Some(&b"57P01"[..]));
        assert_eq!(error_field(body, b'H'), None);
        assert!(is_fatal(body));
        assert!(is_fatal(b"SPANIC\0\0"));
        assert!(!is_fatal(b"SERROR\0VERROR\0C42P01\0"));
        for cut in 0..body.len() {
            let _ = error_field(&body[..cut], b'M');
        }
    }

    #[test]
    fn rows() {
        assert_eq!(
            columns(b"\0\x02\0\0\0\x01t\xff\xff\xff\xff"),
            Some(vec![Some(&b"t"[..]), None])
        );
        assert_eq!(columns(b"\0\x01\0\0\0\x05t"), None);
        assert_eq!(columns(b"\0"), None);
    }

    #[test]
    fn notifications() {
        let body = b"\0\0\0\x07news\0payload\0";
        assert_eq!(notified_channel(body), Some(&b"news"[..]));
        assert_eq!(notified_channel(&body[..8]), None);
    }

    #[test]
    fn keys() {
        assert_eq!(key_data(b"\0\0\0\x07abcd"), Some((7, &b"abcd"[..])));
        assert_eq!(key_data(b"\0\0\0\x07"), None);
    }
}
