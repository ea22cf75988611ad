//! Who may come in: trust, or SCRAM-SHA-256 against the users file.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use pgwire::api::auth::sasl::scram::{ScramAuth, ScramSecret};
use pgwire::api::auth::{AuthSource, LoginInfo, Password};
use pgwire::error::{PgWireError, PgWireResult};
use std::collections::HashMap;

use crate::auth::{Keys, hmac_sha256};
use crate::server::{Credentials, Secret};

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// They are believed; with a users file, only those in it.
    Trust,
    /// SCRAM-SHA-256.
    Scram,
}

/// What the users file has for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserSecret {
    /// The password; empty means that none fits.
    Plain(Arc<str>),
    /// A verifier as PostgreSQL stores it.
    Scram(Arc<Verifier>),
}

/// A SCRAM verifier: proves a password without being one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// PBKDF2 rounds.
    pub iterations: NonZeroU32,
    /// The salt.
    pub salt: Vec<u8>,
    /// SHA-256 of the client key.
    pub stored_key: [u8; 32],
    /// The server key.
    pub server_key: [u8; 32],
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// PostgreSQL's default (`scram_iterations`).
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");

#[derive(Debug)]
struct User {
    secret: UserSecret,
    /// Made from the password at the first login: PBKDF2 takes half a millisecond.
    verifier: OnceLock<Arc<Verifier>>,
    credentials: Arc<Credentials>,
}

/// Everybody who may log in.
#[derive(Debug)]
pub struct Authenticator {
    /// How clients prove who they are.
    pub method: Method,
    users: HashMap<String, Arc<User>>,
    /// There is a users file: who is not in it does not come in.
    listed_only: bool,
    /// Makes salts: the same for the same user, as long as the process lives, and for users that do not exist.
    seed: [u8; 32],
}

impl Authenticator {
    /// `users` is `None` without a users file. `seed` is random and secret.
    pub fn new(
        method: Method,
        users: Option<Vec<(String, UserSecret)>>,
        seed: [u8; 32],
    ) -> Authenticator {
        let listed_only = users.is_some();
        let user = |(name, secret): (String, UserSecret)| {
            let proof = match &secret {
                UserSecret::Plain(password) if !password.is_empty() => {
                    Some(Secret::Password(password.clone()))
                }
                _ => None,
            };
            let credentials = Arc::new(Credentials::new(proof));
            (
                name,
                Arc::new(User {
                    secret,
                    verifier: OnceLock::new(),
                    credentials,
                }),
            )
        };
        let users = users.into_iter().flatten().map(user).collect();
        Authenticator {
            method,
            users,
            listed_only,
            seed,
        }
    }

    /// What holds with another method and other users. Who has the same secret as before is the same user, with what has
    /// been learned of it.
    #[must_use]
    pub fn renewed(
        &self,
        method: Method,
        users: Option<Vec<(String, UserSecret)>>,
    ) -> Authenticator {
        let mut renewed = Authenticator::new(method, users, self.seed);
        for (name, user) in &mut renewed.users {
            if let Some(before) = self.users.get(name)
                && before.secret == user.secret
            {
                *user = before.clone();
            }
        }
        renewed
    }

    /// What proves a user to servers who is in the users file.
    pub fn listed(&self, user: &str) -> Option<Arc<Credentials>> {
        self.users.get(user).map(|user| user.credentials.clone())
    }

    /// Whether a user is let in without proof.
    pub fn trusts(&self, user: &str) -> bool {
        !self.listed_only || self.users.contains_key(user)
    }

    /// What proves the user to servers. A user who is not listed has nothing to show.
    pub fn credentials(&self, user: &str) -> Arc<Credentials> {
        self.listed(user).unwrap_or_default()
    }

    /// The verifier for a login. Users who do not exist, or have no password, get one that no password fits, so that
    /// an attacker is told nothing else of them than of the others; the salt is the same at every try.
    pub async fn verifier(&self, name: &str) -> Arc<Verifier> {
        let Some(user) = self.users.get(name).cloned() else {
            return self.nobody(name);
        };
        match &user.secret {
            UserSecret::Scram(verifier) => verifier.clone(),
            UserSecret::Plain(password) if password.is_empty() => self.nobody(name),
            UserSecret::Plain(password) => {
                if let Some(verifier) = user.verifier.get() {
                    return verifier.clone();
                }
                let (password, salt) = (password.clone(), self.salt(name));
                let derive = tokio::task::spawn_blocking(move || derive(&password, salt));
                match derive.await {
                    Ok(verifier) => user.verifier.get_or_init(|| Arc::new(verifier)).clone(),
                    Err(_) => self.nobody(name),
                }
            }
        }
    }

    fn salt(&self, name: &str) -> Vec<u8> {
        hmac_sha256(&self.seed, name.as_bytes())[..16].to_vec()
    }

    fn nobody(&self, name: &str) -> Arc<Verifier> {
        let key = |purpose: &str| hmac_sha256(&self.seed, format!("{purpose}\0{name}").as_bytes());
        Arc::new(Verifier {
            iterations: ITERATIONS,
            salt: self.salt(name),
            stored_key: key("stored"),
            server_key: key("server"),
        })
    }
}

fn derive(password: &str, salt: Vec<u8>) -> Verifier {
    let keys = Keys::derive(password, &salt, ITERATIONS);
    Verifier {
        iterations: ITERATIONS,
        stored_key: keys.stored(),
        server_key: keys.server,
        salt,
    }
}

/// The SCRAM exchange for one login, driven by pgwire.
pub(super) fn mechanism(verifier: Arc<Verifier>) -> ScramAuth {
    ScramAuth::new(Arc::new(OneVerifier(verifier)))
}

/// pgwire asks a source for the secret of whoever logs in; this one knows for one login.
#[derive(Debug)]
struct OneVerifier(Arc<Verifier>);

#[async_trait]
impl AuthSource for OneVerifier {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        Err(PgWireError::InvalidPassword(
            login.user().unwrap_or_default().to_owned(),
        ))
    }

    async fn get_scram_secret(&self, _: &LoginInfo) -> PgWireResult<(ScramSecret, Option<()>)> {
        let Verifier {
            iterations,
            salt,
            stored_key,
            server_key,
        } = &*self.0;
        let secret = ScramSecret::Verifier {
            salt: salt.clone(),
            iterations: iterations.get() as usize,
            stored_key: stored_key.to_vec(),
            server_key: server_key.to_vec(),
        };
        Ok((secret, None))
    }
}
