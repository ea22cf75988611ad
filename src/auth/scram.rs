//! SCRAM-SHA-256 from the client's side, as the proxy logs in to servers, and what a client's login reveals.
//!
//! pgwire has the server's side, which `client` drives. Its client side knows passwords only and derives the keys at
//! every login (PBKDF2, about half a millisecond); here a login can also use keys, cached or revealed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::num::NonZeroU32;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{hmac_sha256, sha256};

/// Most PBKDF2 rounds that a server may ask for. The work is ours, and servers are not trusted with it without bound:
/// PostgreSQL's default is 4096, and 1,000,000 keeps a core busy for about a tenth of a second.
const MAX_ITERATIONS: u32 = 1_000_000;

/// Longest nonce taken from a server; PostgreSQL's have 24 characters beside ours.
const MAX_NONCE: usize = 512;

/// The two keys that stand for a password with one salt and one iteration count.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    /// Proves the client to the server.
    pub client: [u8; 32],
    /// Proves the server to the client; unknown when only the client's proof was seen and no verifier is at hand.
    pub server: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// The keys of a password. Costs `iterations` rounds of PBKDF2: not for the thread that serves clients.
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Keys {
        let salted = pgwire::api::auth::sasl::scram::gen_salted_password(
            password,
            salt,
            iterations.get() as usize,
        );
        Keys {
            client: hmac_sha256(&salted, b"Client Key"),
            server: hmac_sha256(&salted, b"Server Key"),
        }
    }

    /// The key that verifiers store: SHA-256 of the client key.
    pub fn stored(&self) -> [u8; 32] {
        sha256(&self.client)
    }
}

/// Why an exchange with a server failed. The server, or somebody in its place, caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message that does not follow RFC 5802, or a nonce that is not ours.
    #[error("the server sent a malformed SCRAM message")]
    Malformed,
    /// An iteration count that would keep the proxy busy.
    #[error("the server asks for more than {MAX_ITERATIONS} iterations")]
    Iterations,
    /// The server does not know the password's keys.
    #[error("the server's SCRAM signature is wrong: it does not know the password")]
    Signature,
}

/// One login to a server: `first` goes out, `challenge` reads the server's first answer, `finish` makes the proof,
/// `verify` checks the server's.
#[derive(Debug)]
pub struct ClientExchange {
    nonce: String,
    server_first: String,
    combined_nonce: String,
    /// Salt that the server named.
    pub salt: Vec<u8>,
    /// Iterations that the server named.
    pub iterations: NonZeroU32,
    server_signature: [u8; 32],
}

impl ClientExchange {
    /// Starts with a fresh random nonce; 18 random bytes are what PostgreSQL uses.
    pub fn new(random: [u8; 18]) -> ClientExchange {
        ClientExchange {
            nonce: STANDARD.encode(random),
            server_first: String::new(),
            combined_nonce: String::new(),
            salt: Vec::new(),
            iterations: NonZeroU32::MIN,
            server_signature: [0; 32],
        }
    }

    fn first_bare(&self) -> String {
        // PostgreSQL ignores the user name here and takes the startup packet's.
        format!("n=,r={}", self.nonce)
    }

    /// The client-first message: no channel binding.
    pub fn first(&self) -> String {
        format!("n,,{}", self.first_bare())
    }

    /// Reads the server-first message: salt and iterations are known afterwards.
    ///
    /// # Errors
    /// [`ScramError`] when the message is malformed or asks for too much.
    pub fn challenge(&mut self, server_first: &[u8]) -> Result<(), ScramError> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramError::Malformed)?;
        let mut parts = text.split(',');
        let mut part = |name: &str| {
            parts
                .next()
                .and_then(|part| part.strip_prefix(name))
                .ok_or(ScramError::Malformed)
        };
        let (nonce, salt, iterations) = (part("r=")?, part("s=")?, part("i=")?);
        if !nonce.starts_with(&self.nonce)
            || nonce.len() == self.nonce.len()
            || nonce.len() > MAX_NONCE
        {
            return Err(ScramError::Malformed);
        }
        self.iterations = iterations.parse().map_err(|_| ScramError::Malformed)?;
        if self.iterations.get() > MAX_ITERATIONS {
            return Err(ScramError::Iterations);
        }
        self.salt = STANDARD.decode(salt).map_err(|_| ScramError::Malformed)?;
        self.combined_nonce = nonce.to_owned();
        self.server_first = text.to_owned();
        Ok(())
    }

    /// The client-final message, with the proof.
    pub fn finish(&mut self, keys: &Keys) -> String {
        let without_proof = format!("c=biws,r={}", self.combined_nonce);
        let message = format!(
            "{},{},{without_proof}",
            self.first_bare(),
            self.server_first
        );
        let signature = hmac_sha256(&keys.stored(), message.as_bytes());
        self.server_signature = hmac_sha256(&keys.server, message.as_bytes());
        format!(
            "{without_proof},p={}",
            STANDARD.encode(xor(&keys.client, &signature))
        )
    }

    /// Checks the server-final message.
    ///
    /// # Errors
    /// [`ScramError::Signature`] when the peer does not know the password's keys.
    pub fn verify(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let text = std::str::from_utf8(server_final).map_err(|_| ScramError::Malformed)?;
        let value = text
            .split(',')
            .next()
            .and_then(|part| part.strip_prefix("v="))
            .ok_or(ScramError::Malformed)?;
        let signature = STANDARD.decode(value).map_err(|_| ScramError::Malformed)?;
        if bool::from(signature.ct_eq(&self.server_signature)) {
            Ok(())
        } else {
            Err(ScramError::Signature)
        }
    }
}

/// The client key that a successful login has revealed: the proof is the key XOR a signature that whoever holds the
/// verifier can compute. With it the proxy logs in to servers that have the same verifier, without the password.
///
/// The arguments are the messages of the exchange as they went over the wire; `None` if they do not belong together.
pub fn recover_client_key(
    stored_key: &[u8; 32],
    client_first: &[u8],
    server_first: &[u8],
    client_final: &[u8],
) -> Option<[u8; 32]> {
    let client_first = std::str::from_utf8(client_first).ok()?;
    // The GS2 header is "n,," or "y,,", or "p=…,,".
    let bare = client_first.splitn(3, ',').nth(2)?;
    let client_final = std::str::from_utf8(client_final).ok()?;
    let (without_proof, proof) = client_final.rsplit_once(",p=")?;
    let proof: [u8; 32] = STANDARD.decode(proof).ok()?.try_into().ok()?;
    let message = format!(
        "{bare},{},{without_proof}",
        std::str::from_utf8(server_first).ok()?
    );
    let key = xor(&proof, &hmac_sha256(stored_key, message.as_bytes()));
    bool::from(sha256(&key).ct_eq(stored_key)).then_some(key)
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 7677, section 3, which names a user and has a fixed nonce.
    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn rfc_keys() -> Keys {
        let salt = STANDARD.decode(SALT).expect("base64");
        Keys::derive("pencil", &salt, NonZeroU32::new(4096).expect("positive"))
    }

    #[test]
    fn the_rfc_exchange_reveals_its_client_key() {
        let keys = rfc_keys();
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let got = recover_client_key(
            &keys.stored(),
            first,
            SERVER_FIRST.as_bytes(),
            CLIENT_FINAL.as_bytes(),
        );
        assert_eq!(got, Some(keys.client));
        let other = recover_client_key(
            &[0; 32],
            first,
            SERVER_FIRST.as_bytes(),
            CLIENT_FINAL.as_bytes(),
        );
        assert_eq!(other, None);
    }

    #[test]
    fn an_exchange_with_a_server_that_knows_the_keys() {
        let keys = rfc_keys();
        let mut exchange = ClientExchange::new([7; 18]);
        let first = exchange.first();
        let server_first = format!("r={}srv,s={SALT},i=4096", exchange.nonce);
        exchange
            .challenge(server_first.as_bytes())
            .expect("a good challenge");
        let last = exchange.finish(&keys);
        let key = recover_client_key(
            &keys.stored(),
            first.as_bytes(),
            server_first.as_bytes(),
            last.as_bytes(),
        );
        assert_eq!(
            key,
            Some(keys.client),
            "the proof is the one that a server would accept"
        );
        let message = format!(
            "{},{server_first},{}",
            &first[3..],
            last.rsplit_once(",p=").expect("proof").0
        );
        let signature = STANDARD.encode(hmac_sha256(&keys.server, message.as_bytes()));
        assert_eq!(exchange.verify(format!("v={signature}").as_bytes()), Ok(()));
        let wrong = STANDARD.encode([0; 32]);
        assert_eq!(
            exchange.verify(format!("v={wrong}").as_bytes()),
            Err(ScramError::Signature)
        );
        assert_eq!(
            exchange.verify(b"e=other-error"),
            Err(ScramError::Malformed)
        );
    }

    #[test]
    fn hostile_challenges() {
        let check = |build: fn(&str) -> String, expected| {
            let mut exchange = ClientExchange::new([7; 18]);
            let text = build(&exchange.nonce.clone());
            assert_eq!(exchange.challenge(text.as_bytes()), expected, "{text}");
        };
        check(
            |n| format!("r={n},s={SALT},i=4096"),
            Err(ScramError::Malformed),
        );
        check(
            |_| format!("r=other,s={SALT},i=4096"),
            Err(ScramError::Malformed),
        );
        check(
            |n| format!("r={n}x,s={SALT},i=0"),
            Err(ScramError::Malformed),
        );
        check(
            |n| format!("r={n}x,s={SALT},i=2000000000"),
            Err(ScramError::Iterations),
        );
        check(
            |n| format!("r={n}{},s={SALT},i=4096", "x".repeat(1000)),
            Err(ScramError::Malformed),
        );
        check(
            |n| format!("r={n}x,s=***,i=4096"),
            Err(ScramError::Malformed),
        );
        check(|_| String::new(), Err(ScramError::Malformed));
    }
}
