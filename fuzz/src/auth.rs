//! Messages of a SCRAM exchange, from a server that is not to be trusted.

use std::num::NonZeroU32;

use pgweir::auth::{ClientExchange, Keys, recover_client_key};

#[test]
fn challenge() {
    bolero::check!()
        .with_type::<(bool, Vec<u8>, Vec<u8>)>()
        .for_each(|(echo, first, last)| {
            let mut exchange = ClientExchange::new([7; 18]);
            // With our nonce in front the later fields are reached.
            let mut message = Vec::new();
            if *echo {
                let nonce = exchange.first();
                let nonce = nonce
                    .strip_prefix("n,,n=,")
                    .expect("the layout of RFC 5802");
                message.extend_from_slice(nonce.as_bytes());
            }
            message.extend_from_slice(first);
            if exchange.challenge(&message).is_ok() {
                assert!(exchange.iterations.get() <= 1_000_000);
            }
            // The server does not know these keys, so no answer of it can be right.
            let keys = Keys {
                client: [1; 32],
                server: [2; 32],
            };
            let _ = exchange.finish(&keys);
            assert!(exchange.verify(last).is_err());
        });
}

#[test]
fn recovery_of_a_key() {
    let keys = Keys::derive("secret", b"salt", NonZeroU32::MIN);
    let stored = keys.stored();
    bolero::check!()
        .with_type::<(Vec<u8>, Vec<u8>, Vec<u8>)>()
        .for_each(|(client_first, server_first, client_final)| {
            assert_eq!(
                recover_client_key(&stored, client_first, server_first, client_final),
                None
            );
        });
}
