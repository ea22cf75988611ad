//! The messages of clients that the proxy must open. All types borrow from a message body.
//!
//! PostgreSQL manual, "Message Formats", protocol-message-formats.html. A body that does not fit its layout gives
//! `None`: the caller forwards it untouched to the primary, so that PostgreSQL words the error.

use super::frame::{put_header, split_cstr};

/// The text of a Query, without its terminator. `None` unless the first zero is also the last byte: what is routed
/// must be all that the server runs.
#[inline]
pub fn query(body: &[u8]) -> Option<&[u8]> {
    match split_cstr(body)? {
        (text, []) => Some(text),
        _ => None,
    }
}

/// A Parse message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Name of the prepared statement; empty for the unnamed one.
    pub name: &'a [u8],
    /// The statement text, without its terminator.
    pub text: &'a [u8],
    /// Everything after the name: text, number of parameter types, their OIDs. Two Parse messages with the same
    /// content prepare the same statement.
    pub content: &'a [u8],
}

/// Opens a Parse body.
pub fn parse(body: &[u8]) -> Option<Parse<'_>> {
    let (name, content) = split_cstr(body)?;
    let (text, types) = split_cstr(content)?;
    let (count, oids) = types.split_first_chunk::<2>()?;
    (oids.len() == 4 * usize::from(u16::from_be_bytes(*count))).then_some(Parse {
        name,
        text,
        content,
    })
}

/// The names of a Bind message; the parameters stay unopened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal to create; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The prepared statement to bind.
    pub statement: &'a [u8],
}

/// Opens the front of a Bind body, which may be incomplete after its two names.
pub fn bind(body: &[u8]) -> Option<Bind<'_>> {
    let (portal, rest) = split_cstr(body)?;
    let (statement, _) = split_cstr(rest)?;
    Some(Bind { portal, statement })
}

/// All of a Bind message but the values of its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The portal and the statement.
    pub names: Bind<'a>,
    /// How many parameters there are.
    pub parameters: usize,
    /// Formats of the result columns: none for text, one for all of them, or one for each.
    pub results: Vec<i16>,
}

/// Opens a whole Bind body.
pub fn binding(body: &[u8]) -> Option<Binding<'_>> {
    let names = bind(body)?;
    let rest = body.get(names.portal.len() + names.statement.len() + 2..)?;
    let (_, rest) = numbers(rest)?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    let parameters = usize::from(u16::from_be_bytes(*count));
    for _ in 0..parameters {
        let (length, after) = rest.split_first_chunk::<4>()?;
        // -1 is NULL, without a value.
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        rest = after.get(length..)?;
    }
    let (results, rest) = numbers(rest)?;
    rest.is_empty().then_some(Binding {
        names,
        parameters,
        results,
    })
}

/// A count, and as many numbers.
fn numbers(bytes: &[u8]) -> Option<(Vec<i16>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    let (numbers, rest) = rest.split_at_checked(2 * usize::from(u16::from_be_bytes(*count)))?;
    let (pairs, _) = numbers.as_chunks::<2>();
    Some((
        pairs.iter().map(|pair| i16::from_be_bytes(*pair)).collect(),
        rest,
    ))
}

/// Opens an Execute body: the portal, and the most rows to return, 0 for all.
pub fn execute(body: &[u8]) -> Option<(&[u8], usize)> {
    let (portal, rest) = split_cstr(body)?;
    let most = i32::from_be_bytes(rest.try_into().ok()?);
    Some((portal, usize::try_from(most).unwrap_or(0)))
}

/// What a Describe or Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement by its name.
    Statement(&'a [u8]),
    /// A portal by its name.
    Portal(&'a [u8]),
}

/// Opens a Describe or Close body.
pub fn target(body: &[u8]) -> Option<Target<'_>> {
    let (&kind, rest) = body.split_first()?;
    let (name, []) = split_cstr(rest)? else {
        return None;
    };
    match kind {
        b'S' => Some(Target::Statement(name)),
        b'P' => Some(Target::Portal(name)),
        _ => None,
    }
}

/// Appends a Query message.
pub fn put_query(text: &[u8], out: &mut Vec<u8>) {
    put_header(out, b'Q', text.len() + 1);
    out.extend_from_slice(text);
    out.push(0);
}

/// Appends a Parse message for `name` with the content of another Parse.
pub fn put_parse(name: &[u8], content: &[u8], out: &mut Vec<u8>) {
    put_header(out, b'P', name.len() + 1 + content.len());
    out.extend_from_slice(name);
    out.push(0);
    out.extend_from_slice(content);
}

/// Appends a Close of the statement `name`.
pub fn put_close_statement(name: &[u8], out: &mut Vec<u8>) {
    put_close(b'S', name, out);
}

/// Appends a Close of the portal `name`.
pub fn put_close_portal(name: &[u8], out: &mut Vec<u8>) {
    put_close(b'P', name, out);
}

fn put_close(kind: u8, name: &[u8], out: &mut Vec<u8>) {
    put_header(out, b'C', name.len() + 2);
    out.push(kind);
    out.extend_from_slice(name);
    out.push(0);
}

/// Appends a Bind of a statement that takes no parameters, with results as text.
pub fn put_bind(portal: &[u8], statement: &[u8], out: &mut Vec<u8>) {
    put_header(out, b'B', portal.len() + statement.len() + 8);
    out.extend_from_slice(portal);
    out.push(0);
    out.extend_from_slice(statement);
    out.extend_from_slice(&[0; 7]);
}

/// Appends an Execute of a portal to its end.
pub fn put_execute(portal: &[u8], out: &mut Vec<u8>) {
    put_header(out, b'E', portal.len() + 5);
    out.extend_from_slice(portal);
    out.extend_from_slice(&[0; 5]);
}

/// A Sync message.
pub const SYNC: &[u8] = b"S\0\0\0\x04";

/// Terminate.
pub const TERMINATE: &[u8] = b"X\0\0\0\x04";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_all_of_its_body() {
        assert_eq!(query(b"select 1\0"), Some(&b"select 1"[..]));
        assert_eq!(query(b"\0"), Some(&b""[..]));
        assert_eq!(query(b"select 1"), None);
        assert_eq!(query(b"select 1\0; drop table t\0"), None);
        assert_eq!(query(b""), None);
    }

    #[test]
    fn parse_counts_its_types() {
        let body = b"s1\0select $1\0\0\x01\0\0\0\x17";
        let content = &body[3..];
        assert_eq!(
            parse(body),
            Some(Parse {
                name: b"s1",
                text: b"select $1",
                content
            })
        );
        for cut in 0..body.len() {
            assert_eq!(parse(&body[..cut]), None, "cut at {cut}");
        }
        assert_eq!(parse(b"s1\0select 1\0\0\0x"), None);
    }

    #[test]
    fn names() {
        assert_eq!(
            bind(b"p\0s\0\0\0"),
            Some(Bind {
                portal: b"p",
                statement: b"s"
            })
        );
        assert_eq!(bind(b"p\0s"), None);
        assert_eq!(target(b"Ss\0"), Some(Target::Statement(b"s")));
        assert_eq!(target(b"P\0"), Some(Target::Portal(b"")));
        for bad in [&b""[..], b"S", b"Xs\0", b"Ss\0x"] {
            assert_eq!(target(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn bindings() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x02\0\x01\0\0";
        let binding = binding(body).expect("whole");
        assert_eq!(binding.names.statement, b"s");
        assert_eq!((binding.parameters, &binding.results[..]), (2, &[1, 0][..]));
        for cut in 0..body.len() {
            assert_eq!(super::binding(&body[..cut]), None, "cut at {cut}");
        }
        assert_eq!(super::binding(&[&body[..], b"x"].concat()), None);
        assert_eq!(execute(b"p\0\0\0\0\x05"), Some((&b"p"[..], 5)));
        assert_eq!(execute(b"\0\xff\xff\xff\xff"), Some((&b""[..], 0)));
        assert_eq!(execute(b"\0\0\0\0"), None);
    }

    #[test]
    fn written_messages_are_read_back() {
        let mut out = Vec::new();
        put_parse(b"pgw_1", b"select 1\0\0\0", &mut out);
        assert_eq!(parse(&out[5..]).map(|p| p.name), Some(&b"pgw_1"[..]));
        out.clear();
        put_query(b"reset all", &mut out);
        assert_eq!(query(&out[5..]), Some(&b"reset all"[..]));
        out.clear();
        put_close_statement(b"pgw_1", &mut out);
        assert_eq!(target(&out[5..]), Some(Target::Statement(b"pgw_1")));
        out.clear();
        put_bind(b"p", b"s", &mut out);
        assert_eq!(out, b"B\0\0\0\x0ep\0s\0\0\0\0\0\0\0");
        assert_eq!(bind(&out[5..]).map(|bind| bind.statement), Some(&b"s"[..]));
        out.clear();
        put_execute(b"p", &mut out);
        assert_eq!(out, b"E\0\0\0\x0ap\0\0\0\0\0");
    }
}
