//! The users file, in the format of PgBouncer's `userlist.txt`.
//!
//! PgBouncer manual, "Authentication file format", config.html#authentication-file-format: two
//! fields in double quotes on each line, the user and its secret; what follows them is ignored. A
//! line that starts with `;` is a comment.
//!
//! Two differences, both on the safe side. PgBouncer stops at the first broken line and keeps what
//! it has read; here every broken line is a fault and nothing is kept. And PgBouncer lets a field
//! run over a line end; here that is a broken line, since it nearly always is a forgotten quote.

use std::collections::HashMap;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::fault::Report;
use super::{Faults, ScramVerifier, Secret, UserSecret, Users};

/// Reads a users file, given its text and the name that faults shall bear.
///
/// Of a user listed twice the last secret counts, at the place of the first, as in PgBouncer. An
/// empty secret is kept: that user exists and no password fits.
///
/// # Errors
///
/// Every broken line, MD5 secret and broken SCRAM verifier. The texts hold no secret.
pub(super) fn parse(text: &str, file: &str) -> Result<Users, Faults> {
    let report = Report::new(file, text);
    let mut users: Vec<(String, UserSecret)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        match user(line.trim_end()) {
            Ok(None) => {}
            Ok(Some((name, secret))) => match places.get(&name) {
                Some(&place) => users[place].1 = secret,
                None => {
                    places.insert(name.clone(), users.len());
                    users.push((name, secret));
                }
            },
            Err((offset, message)) => report.fault(at + offset, "", message),
        }
        at += line.len();
    }
    let faults = report.into_faults();
    if faults.is_empty() {
        Ok(Users(users))
    } else {
        Err(Faults(faults))
    }
}

/// Where in the line, and what.
type LineFault = (usize, &'static str);

/// The user of a line; `None` if it is empty or a comment.
fn user(line: &str) -> Result<Option<(String, UserSecret)>, LineFault> {
    let start = skip_space(line, 0);
    if line[start..].is_empty() || line[start..].starts_with(';') {
        return Ok(None);
    }
    let (name, end) = field(line, start)?;
    if name.expose().is_empty() {
        return Err((start, "a user needs a name"));
    }
    let start = skip_space(line, end);
    let (text, _) = field(line, start)?;
    let secret = secret(text).map_err(|message| (start, message))?;
    Ok(Some((name.expose().to_owned(), secret)))
}

fn skip_space(line: &str, from: usize) -> usize {
    let rest = &line[from..];
    from + (rest.len() - rest.trim_start().len())
}

/// A field in quotes, and where it ends. Any field may be the secret, so it is wiped like one.
fn field(line: &str, start: usize) -> Result<(Secret, usize), LineFault> {
    let Some(body) = line[start..].strip_prefix('"') else {
        return Err((
            start,
            "expected two fields in double quotes: \"user\" \"secret\"",
        ));
    };
    let mut from = 0;
    loop {
        let quote = body[from..]
            .find('"')
            .ok_or((start, "the closing quote is missing"))?
            + from;
        if !body[quote + 1..].starts_with('"') {
            let text = body[..quote].replace("\"\"", "\"");
            return Ok((Secret::new(text), start + 1 + quote + 1));
        }
        from = quote + 2;
    }
}

fn secret(text: Secret) -> Result<UserSecret, &'static str> {
    let exposed = text.expose();
    if let Some(verifier) = exposed.strip_prefix("SCRAM-SHA-256$") {
        return verifier_of(verifier).map(UserSecret::Scram).ok_or(
            "broken SCRAM verifier; expected SCRAM-SHA-256$iterations:salt$storedkey:serverkey",
        );
    }
    if is_md5(exposed) {
        return Err(
            "MD5 secrets are not supported; store the password or its SCRAM-SHA-256 \
                    verifier from pg_authid",
        );
    }
    Ok(UserSecret::Plain(text))
}

/// PostgreSQL's own test, `get_password_type` in src/backend/libpq/crypt.c: `md5` and 32 lower-case
/// hexadecimal digits. Anything else that starts with `md5` is a password.
fn is_md5(text: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.strip_prefix("md5")
        .is_some_and(|digest| digest.len() == 32 && digest.bytes().all(hex))
}

/// `iterations:salt$storedkey:serverkey`, all but the first in base64 (PostgreSQL manual,
/// "pg_authid", catalog-pg-authid.html).
fn verifier_of(text: &str) -> Option<ScramVerifier> {
    let (head, keys) = text.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    if !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
    Some(ScramVerifier {
        iterations: iterations.parse::<NonZeroU32>().ok()?,
        salt,
        stored_key: key(stored_key)?,
        server_key: key(server_key)?,
    })
}

/// A key of 32 bytes, the length of SHA-256.
fn key(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One user a line of what was read, secrets laid open.
    fn shown(users: &Users) -> String {
        let show = |(name, secret): (&str, &UserSecret)| match secret {
            UserSecret::Plain(password) => format!("{name}={}", password.expose()),
            UserSecret::Scram(verifier) => {
                let (salt, first) = (verifier.salt.len(), verifier.stored_key[0]);
                format!("{name}=scram {} {salt} {first}", verifier.iterations)
            }
        };
        users.iter().map(show).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn users_are_read() {
        let check = |text: &str, expected: &str| {
            let users = parse(text, "userlist.txt").unwrap_or_else(|faults| panic!("{faults}"));
            assert_eq!(shown(&users), expected, "{text:?}");
        };
        check("", "");
        check("\"shop\" \"pencil\"\n", "shop=pencil");
        check("\"shop\" \"pencil\"", "shop=pencil");
        check("; comment\r\n\r\n  \"a\"\t\"b\" rest ignored\r\n", "a=b");
        check("\"a\"\"b\" \"c\"\"\"\"d\"", "a\"b=c\"\"d");
        // Of a user listed twice the last secret counts.
        check("\"a\" \"1\"\n\"b\" \"2\"\n\"a\" \"3\"", "a=3\nb=2");
        check("\"a\" \"\"", "a=");
        check("\"jürgen\" \"pässword;\"", "jürgen=pässword;");
        // Not 32 digits: a password.
        check("\"a\" \"md5sum\"", "a=md5sum");
        let stored = "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let scram =
            format!("\"a\" \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${stored}:{stored}\"");
        check(&scram, "a=scram 4096 16 2");
    }

    #[test]
    fn broken_users_files() {
        let check = |text: &str, expected: &str| {
            let faults = parse(text, "u.txt").expect_err(text);
            assert_eq!(faults.to_string(), expected, "{text:?}");
        };
        let fields = "expected two fields in double quotes: \"user\" \"secret\"";
        check("shop pencil", &format!("u.txt:1:1: {fields}"));
        check("; x\n  shop", &format!("u.txt:2:3: {fields}"));
        check("\"shop\"\n\"b\" \"c\"", &format!("u.txt:1:7: {fields}"));
        check("\"shop", "u.txt:1:1: the closing quote is missing");
        check(
            "\"é\" \"pen\ncil\"",
            &format!("u.txt:1:5: the closing quote is missing\nu.txt:2:1: {fields}"),
        );
        check("\"\" \"pencil\"", "u.txt:1:1: a user needs a name");
        let md5 = "MD5 secrets are not supported; store the password or its SCRAM-SHA-256 verifier \
                   from pg_authid";
        let digest = "0123456789abcdef0123456789abcdef";
        check(
            &format!("\"a\" \"md5{digest}\""),
            &format!("u.txt:1:5: {md5}"),
        );
        let scram = "broken SCRAM verifier; expected \
                     SCRAM-SHA-256$iterations:salt$storedkey:serverkey";
        let key = "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for verifier in [
            String::new(),
            format!("0:AAAA${key}:{key}"),
            format!("+1:AAAA${key}:{key}"),
            format!("4096:${key}:{key}"),
            format!("4096:AAAA${key}:AAAA"),
            format!("4096:AAAA${key}"),
        ] {
            let line = format!("\"a\" \"SCRAM-SHA-256${verifier}\"");
            check(&line, &format!("u.txt:1:5: {scram}"));
        }
    }
}
