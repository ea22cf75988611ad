//! Frontend messages as bytes, for [`RawClient::send`](super::RawClient::send).
//!
//! Each function makes one whole message; a pipeline is their concatenation. Nothing is checked: a test
//! may want a name with a zero byte in it, and gets it. PostgreSQL manual, "Message Formats",
//! protocol-message-formats.html.

use super::wire::{BackendKey, ProtocolVersion};

/// StartupMessage with these parameters, such as `("user", "postgres")`.
pub fn startup(version: ProtocolVersion, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.0.to_be_bytes().to_vec();
    for (name, value) in parameters {
        text(&mut body, name);
        text(&mut body, value);
    }
    body.push(0);
    untagged(&body)
}

/// SSLRequest. The answer is one byte, no message: [`RawClient::recv_byte`](super::RawClient::recv_byte).
pub fn ssl_request() -> Vec<u8> {
    untagged(&80_877_103_u32.to_be_bytes())
}

/// GSSENCRequest. The answer is one byte, no message.
pub fn gssenc_request() -> Vec<u8> {
    untagged(&80_877_104_u32.to_be_bytes())
}

/// CancelRequest for the session with this key.
pub fn cancel_request(key: &BackendKey) -> Vec<u8> {
    let mut body = 80_877_102_u32.to_be_bytes().to_vec();
    body.extend(key.process_id.to_be_bytes());
    body.extend(&key.secret);
    untagged(&body)
}

/// Query: one string of statements by the simple protocol. Bytes, for SQL that is not UTF-8.
pub fn query(sql: impl AsRef<[u8]>) -> Vec<u8> {
    tagged(b'Q', |body| text(body, sql))
}

/// Parse; `parameter_types` are type OIDs, 0 or absent where the server shall infer.
pub fn parse(name: &str, sql: impl AsRef<[u8]>, parameter_types: &[u32]) -> Vec<u8> {
    tagged(b'P', |body| {
        text(body, name);
        text(body, sql);
        count(body, parameter_types.len());
        body.extend(parameter_types.iter().flat_map(|oid| oid.to_be_bytes()));
    })
}

/// Bind with parameters in text form, `None` for NULL, asking for results in text form.
pub fn bind(portal: &str, statement: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    let parameters: Vec<_> = parameters.iter().map(|p| p.map(str::as_bytes)).collect();
    bind_with(portal, statement, &[], &parameters, &[])
}

/// Bind with everything: format codes (0 text, 1 binary; none means all text, one means that for all)
/// of the parameters and of the results.
pub fn bind_with(
    portal: &str,
    statement: &str,
    parameter_formats: &[i16],
    parameters: &[Option<&[u8]>],
    result_formats: &[i16],
) -> Vec<u8> {
    tagged(b'B', |body| {
        text(body, portal);
        text(body, statement);
        formats(body, parameter_formats);
        count(body, parameters.len());
        for parameter in parameters {
            value(body, *parameter);
        }
        formats(body, result_formats);
    })
}

/// Describe of a prepared statement.
pub fn describe_statement(name: &str) -> Vec<u8> {
    named(b'D', b'S', name)
}

/// Describe of a portal.
pub fn describe_portal(name: &str) -> Vec<u8> {
    named(b'D', b'P', name)
}

/// Execute; `max_rows` 0 means all.
pub fn execute(portal: &str, max_rows: u32) -> Vec<u8> {
    tagged(b'E', |body| {
        text(body, portal);
        body.extend(max_rows.to_be_bytes());
    })
}

/// Close of a prepared statement.
pub fn close_statement(name: &str) -> Vec<u8> {
    named(b'C', b'S', name)
}

/// Close of a portal.
pub fn close_portal(name: &str) -> Vec<u8> {
    named(b'C', b'P', name)
}

/// Sync.
pub fn sync() -> Vec<u8> {
    tagged(b'S', |_| ())
}

/// Flush.
pub fn flush() -> Vec<u8> {
    tagged(b'H', |_| ())
}

/// CopyData.
pub fn copy_data(data: impl AsRef<[u8]>) -> Vec<u8> {
    tagged(b'd', |body| body.extend(data.as_ref()))
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    tagged(b'c', |_| ())
}

/// CopyFail with the reason the server shall report.
pub fn copy_fail(reason: &str) -> Vec<u8> {
    tagged(b'f', |body| text(body, reason))
}

/// PasswordMessage: the answer to a request for a cleartext or MD5 password.
pub fn password(answer: &str) -> Vec<u8> {
    tagged(b'p', |body| text(body, answer))
}

/// SASLInitialResponse with the mechanism chosen and its first message.
pub fn sasl_initial(mechanism: &str, first: &[u8]) -> Vec<u8> {
    tagged(b'p', |body| {
        text(body, mechanism);
        value(body, Some(first));
    })
}

/// SASLResponse.
pub fn sasl_response(data: &[u8]) -> Vec<u8> {
    tagged(b'p', |body| body.extend(data))
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    tagged(b'X', |_| ())
}

/// Any message, also one that does not exist: tag, right length, and what `fill` writes.
pub fn tagged(tag: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    fill(&mut body);
    let mut message = vec![tag];
    message.extend(untagged(&body));
    message
}

/// A packet without a tag, as those before authentication are: length and body.
pub fn untagged(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("no test sends four gibibytes");
    let mut packet = length.to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

fn named(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    tagged(tag, |body| {
        body.push(kind);
        text(body, name);
    })
}

fn text(body: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    body.extend(text.as_ref());
    body.push(0);
}

/// The protocol counts with 16 bits; libpq sends up to 65535 parameters that way.
fn count(body: &mut Vec<u8>, items: usize) {
    let items = u16::try_from(items).expect("no test sends more items than the protocol can count");
    body.extend(items.to_be_bytes());
}

fn formats(body: &mut Vec<u8>, codes: &[i16]) {
    count(body, codes.len());
    body.extend(codes.iter().flat_map(|code| code.to_be_bytes()));
}

fn value(body: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(bytes) = value else {
        return body.extend((-1_i32).to_be_bytes());
    };
    let length = i32::try_from(bytes.len()).expect("no test sends two gibibytes");
    body.extend(length.to_be_bytes());
    body.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &[u8], expected: &[u8]) {
        assert_eq!(message, expected, "{:?}", String::from_utf8_lossy(message));
    }

    #[test]
    fn messages_are_laid_out_as_in_the_manual() {
        let key = BackendKey {
            process_id: 258,
            secret: vec![9; 4],
        };
        for (message, expected) in [
            (query("SELECT 1"), &b"Q\0\0\0\x0dSELECT 1\0"[..]),
            (parse("s", "q", &[23]), b"P\0\0\0\x0es\0q\0\0\x01\0\0\0\x17"),
            (
                bind("", "s", &[Some("7"), None]),
                b"B\0\0\0\x16\0s\0\0\0\0\x02\0\0\0\x017\xff\xff\xff\xff\0\0",
            ),
            (describe_portal(""), b"D\0\0\0\x06P\0"),
            (describe_statement("s"), b"D\0\0\0\x07Ss\0"),
            (execute("", 5), b"E\0\0\0\x09\0\0\0\0\x05"),
            (close_statement("s"), b"C\0\0\0\x07Ss\0"),
            (close_portal("p"), b"C\0\0\0\x07Pp\0"),
            (sync(), b"S\0\0\0\x04"),
            (flush(), b"H\0\0\0\x04"),
            (copy_data("a"), b"d\0\0\0\x05a"),
            (copy_done(), b"c\0\0\0\x04"),
            (copy_fail("no"), b"f\0\0\0\x07no\0"),
            (password("pw"), b"p\0\0\0\x07pw\0"),
            (sasl_initial("M", b"n"), b"p\0\0\0\x0bM\0\0\0\0\x01n"),
            (sasl_response(b"n"), b"p\0\0\0\x05n"),
            (terminate(), b"X\0\0\0\x04"),
            (ssl_request(), b"\0\0\0\x08\x04\xd2\x16\x2f"),
            (gssenc_request(), b"\0\0\0\x08\x04\xd2\x16\x30"),
            (
                cancel_request(&key),
                b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\x01\x02\x09\x09\x09\x09",
            ),
            (
                startup(ProtocolVersion::V3_2, &[("user", "u")]),
                b"\0\0\0\x10\0\x03\0\x02user\0u\0\0",
            ),
        ] {
            check(&message, expected);
        }
    }
}
