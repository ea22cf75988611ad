//! Addresses as they are typed: `host:port`, `[::1]:port` or `unix:/path/of/socket`.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use super::Address;

/// Why a text is no address. The operator's mistake, always.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No port, as in `10.0.0.1`. Carries the text.
    #[error("has no port; write \"{0}:5432\"")]
    NoPort(String),
    /// The port is not a number from 0 to 65535. Carries the port as typed.
    #[error("{0:?} is no port; a port is a number from 0 to 65535")]
    BadPort(String),
    /// The host is empty, or holds characters that no host name has. Carries the host as typed.
    #[error("{0:?} is no host name and no IP address")]
    BadHost(String),
    /// `*`, which other programs read as every interface.
    #[error("\"*\" is no address; write \"0.0.0.0\" or \"[::]\" for every interface")]
    Star,
    /// An IPv6 address without brackets, whose last part cannot be told from a port.
    #[error("an IPv6 address needs brackets, as in \"[::1]:5432\"")]
    NoBrackets,
    /// A Unix socket whose path does not start at `/`.
    #[error(
        "the path of a Unix socket must be absolute, as in \"unix:/run/postgresql/.s.PGSQL.5432\""
    )]
    Relative,
    /// A path that the kernel has no room for. Carries its length in bytes.
    #[error("the path of a Unix socket may have {MAX_UNIX_PATH} bytes; this one has {0}")]
    TooLong(usize),
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `host:port`, `[ipv6]:port` or `unix:/path`, the inverse of `Display`.
    ///
    /// Nothing is looked up: a host name is taken as it is. Port 0 is read, since a listener may
    /// leave the choice to the system; who connects must refuse it.
    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => bracketed(text, rest)?,
            None => named(text)?,
        };
        // `parse` would take "+5432".
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let number = port.parse().ok().filter(|_| digits);
        let port = number.ok_or_else(|| AddressError::BadPort(port.to_owned()))?;
        Ok(Address::Tcp(host.to_owned(), port))
    }
}

fn unix(path: &str) -> Result<Address, AddressError> {
    if !path.starts_with('/') {
        return Err(AddressError::Relative);
    }
    if path.len() > MAX_UNIX_PATH {
        return Err(AddressError::TooLong(path.len()));
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

/// Host and port of `[host]:port`; `rest` is what follows the bracket.
fn bracketed<'t>(text: &str, rest: &'t str) -> Result<(&'t str, &'t str), AddressError> {
    let (host, rest) = rest.split_once(']').ok_or(AddressError::NoBrackets)?;
    // A link-local address may name its interface: fe80::1%eth0 (RFC 4007, section 11).
    let plain = host.split_once('%').map_or(host, |(plain, _)| plain);
    if plain.parse::<Ipv6Addr>().is_err() {
        return Err(AddressError::BadHost(host.to_owned()));
    }
    let port = rest
        .strip_prefix(':')
        .ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
    Ok((host, port))
}

/// Host and port of `host:port`.
fn named(text: &str) -> Result<(&str, &str), AddressError> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(match text {
            "*" => AddressError::Star,
            _ if is_host(text) => AddressError::NoPort(text.to_owned()),
            _ => AddressError::BadHost(text.to_owned()),
        });
    };
    match host {
        "*" => Err(AddressError::Star),
        _ if host.contains(':') => Err(AddressError::NoBrackets),
        _ if !is_host(host) => Err(AddressError::BadHost(host.to_owned())),
        _ => Ok((host, port)),
    }
}

/// Letters, digits, dots and hyphens (RFC 1123, section 2.1), and the underscore that container
/// networks use.
fn is_host(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(fits)
}

/// Longest host name in bytes (RFC 1035, section 2.3.4, less the length octets).
const MAX_HOST: usize = 253;

/// Longest path of a Unix socket in bytes: `sun_path` has 108 on Linux, one of them the final NUL.
const MAX_UNIX_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_printing() {
        let check = |text: &str, expected: Address| {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string(), text);
        };
        check("127.0.0.1:6432", Address::Tcp("127.0.0.1".into(), 6432));
        check(
            "db-1.example.com:5432",
            Address::Tcp("db-1.example.com".into(), 5432),
        );
        check("pg_1:5432", Address::Tcp("pg_1".into(), 5432));
        check("localhost:0", Address::Tcp("localhost".into(), 0));
        check("[::1]:65535", Address::Tcp("::1".into(), 65535));
        check(
            "[fe80::1%eth0]:5432",
            Address::Tcp("fe80::1%eth0".into(), 5432),
        );
        check(
            "unix:/run/.s.PGSQL.5432",
            Address::Unix("/run/.s.PGSQL.5432".into()),
        );
    }

    #[test]
    fn refused_addresses() {
        let check = |text: &str, expected: AddressError| {
            assert_eq!(text.parse::<Address>(), Err(expected), "{text}");
        };
        check("10.0.0.1", AddressError::NoPort("10.0.0.1".into()));
        check("[::1]", AddressError::NoPort("[::1]".into()));
        check("[::1]5432", AddressError::NoPort("[::1]5432".into()));
        check("pg1:", AddressError::BadPort("".into()));
        check("pg1:+5432", AddressError::BadPort("+5432".into()));
        check("pg1:65536", AddressError::BadPort("65536".into()));
        check("pg1:five", AddressError::BadPort("five".into()));
        check(":5432", AddressError::BadHost("".into()));
        check("", AddressError::BadHost("".into()));
        check("pg 1:5432", AddressError::BadHost("pg 1".into()));
        check(
            "/run/postgresql",
            AddressError::BadHost("/run/postgresql".into()),
        );
        check("user@pg1:5432", AddressError::BadHost("user@pg1".into()));
        check("[pg1]:5432", AddressError::BadHost("pg1".into()));
        check("[::1:5432", AddressError::NoBrackets);
        check("::1:5432", AddressError::NoBrackets);
        check("*:6432", AddressError::Star);
        check("*", AddressError::Star);
        check("unix:run/pg", AddressError::Relative);
        check("unix:", AddressError::Relative);
        check(
            &format!("unix:/{}", "a".repeat(107)),
            AddressError::TooLong(108),
        );
    }
}
