//! The proxy logs in to servers with what the users file has, or with what the client's own login has revealed.

use std::num::NonZeroU32;

use pgweir::config::{AuthMethod, ScramVerifier, Secret, UserSecret, Users};
use pgweir::testbed::Cluster;

use crate::support::{Rig, program, run};

/// A cluster whose users must prove themselves by `method`, the monitor's excepted.
fn cluster(method: &str, encryption: &str) -> Cluster {
    let cluster = Cluster::builder()
        .standbys(1)
        .hba("host postgres postgres 127.0.0.1/32 trust")
        .hba(&format!("host all alice 127.0.0.1/32 {method}"))
        .start()
        .unwrap_or_else(|error| panic!("{error}"));
    let primary = cluster.primary();
    primary
        .execute(&format!(
            "SET password_encryption = '{encryption}'; CREATE ROLE alice LOGIN PASSWORD 'secret'"
        ))
        .expect("a role");
    cluster.wait_caught_up().expect("standby");
    cluster
}

fn log_in(rig: &Rig) -> String {
    let mut psql = program(&rig.cluster, "psql");
    psql.env("PGPASSWORD", "secret")
        .args(["-XAt", "-c", "SELECT current_user", "-c", "SELECT 1"]);
    psql.arg(format!("postgresql://alice@{}/postgres", rig.address()));
    run(&mut psql).0
}

fn users(secret: UserSecret) -> Option<Users> {
    Some(Users(vec![
        ("alice".to_owned(), secret),
        (
            "postgres".to_owned(),
            UserSecret::Plain(Secret::new(String::new())),
        ),
    ]))
}

#[test]
fn with_a_password_by_every_method() {
    for (method, encryption) in [
        ("scram-sha-256", "scram-sha-256"),
        ("md5", "md5"),
        ("password", "scram-sha-256"),
    ] {
        let rig = Rig::before(cluster(method, encryption), |config| {
            config.auth.method = AuthMethod::ScramSha256;
            config.auth.users = users(UserSecret::Plain(Secret::new("secret".to_owned())));
        });
        rig.wait_ready();
        assert_eq!(log_in(&rig), "alice\n1\n", "{method}");
    }
}

#[test]
fn with_the_keys_that_the_clients_login_reveals() {
    let cluster = cluster("scram-sha-256", "scram-sha-256");
    let stored = cluster
        .primary()
        .value("SELECT rolpassword FROM pg_authid WHERE rolname = 'alice'")
        .expect("a verifier");
    let rig = Rig::before(cluster, |config| {
        config.auth.method = AuthMethod::ScramSha256;
        config.auth.users = users(UserSecret::Scram(verifier(&stored)));
    });
    rig.wait_ready();
    assert_eq!(
        log_in(&rig),
        "alice\n1\n",
        "no password is known to the proxy"
    );
}

/// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, as `pg_authid` has it.
fn verifier(text: &str) -> ScramVerifier {
    let parts: Vec<&str> = text.split(['$', ':']).collect();
    let ["SCRAM-SHA-256", iterations, salt, stored, server] = parts[..] else {
        panic!("{text}")
    };
    let key = |text| <[u8; 32]>::try_from(decode(text)).expect("32 bytes");
    ScramVerifier {
        iterations: iterations.parse::<NonZeroU32>().expect("a number"),
        salt: decode(salt),
        stored_key: key(stored),
        server_key: key(server),
    }
}

/// Base64, by hand: a test needs no crate for it.
fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter(|byte| *byte != b'=') {
        let digit = ALPHABET
            .iter()
            .position(|letter| *letter == digit)
            .expect("base64");
        bits = bits << 6 | u32::try_from(digit).expect("below 64");
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
