//! Logins as exchanges: message in, message out.
//!
//! `auth` knows SCRAM-SHA-256 (RFC 5802, RFC 7677), MD5 and the keys they are made of. It has never met a socket, a
//! clock or a random generator: nonces and salts are passed in. PostgreSQL manual, "SASL Authentication",
//! sasl-authentication.html.

mod scram;

pub use scram::{ClientExchange, Keys, ScramError, recover_client_key};

use aws_lc_rs::{digest, hmac};

/// The MD5 answer to a server's challenge: `md5(md5(password + user) + salt)` in hex, after the word "md5".
///
/// PostgreSQL manual, protocol-flow.html#PROTOCOL-FLOW-START-UP, AuthenticationMD5Password.
pub fn md5_response(user: &str, password: &str, salt: [u8; 4]) -> String {
    pgwire::api::auth::md5pass::hash_md5_password(user, password, &salt)
}

/// HMAC-SHA-256.
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

/// SHA-256.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, data)
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_as_postgresql_computes_it() {
        // SELECT 'md5' || md5(md5('secret' || 'alice') || E'\\x01020304'::bytea) with the salt's bytes appended.
        let answer = md5_response("alice", "secret", [1, 2, 3, 4]);
        assert_eq!(answer.len(), 35);
        assert!(answer.starts_with("md5"));
        assert_ne!(answer, md5_response("alice", "secret", [1, 2, 3, 5]));
    }
}
