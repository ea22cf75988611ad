//! Frames, and the packets of clients that have not logged in.

use pgweir::wire::frame::{self, HEADER};
use pgweir::wire::startup::{self, MAX_PACKET, Packet};
use pgweir::wire::{backend, frontend};

/// Bound on bodies; small, so that random lengths fall on both sides of it.
const MAX_BODY: usize = 1 << 20;

#[test]
fn frame() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let mut rest = bytes;
        while let Ok(Some(header)) = frame::header(rest, MAX_BODY) {
            assert!(header.body <= MAX_BODY);
            let body = &rest[HEADER..header.total().min(rest.len())];
            open(body);
            rest = &rest[header.total().min(rest.len())..];
        }
    });
}

/// Every function that borrows from a body gets it, cut off or not.
fn open(body: &[u8]) {
    let _ = frontend::query(body);
    let _ = frontend::parse(body);
    let _ = frontend::bind(body);
    let _ = frontend::target(body);
    let _ = backend::error_field(body, b'C');
    let _ = backend::is_fatal(body);
    let _ = backend::parameter(body);
    let _ = backend::key_data(body);
    let _ = backend::columns(body);
}

#[test]
fn header_round_trip() {
    bolero::check!()
        .with_type::<(u8, u16)>()
        .for_each(|&(tag, body)| {
            let mut bytes = Vec::new();
            frame::put_header(&mut bytes, tag, body.into());
            let header = frame::header(&bytes, MAX_BODY)
                .expect("the length is legal")
                .expect("the header is whole");
            assert_eq!((header.tag, header.body), (tag, body.into()));
            for cut in 0..HEADER {
                assert_eq!(frame::header(&bytes[..cut], MAX_BODY), Ok(None));
            }
        });
}

#[test]
fn startup() {
    bolero::check!()
        .with_type::<(u8, Vec<u8>)>()
        .for_each(|(kind, body)| {
            let bytes = packet(*kind, body);
            if let Ok(Some(length)) = startup::length(&bytes) {
                assert!((8..=MAX_PACKET).contains(&length));
            }
            if let Ok(Packet::Startup(startup)) = startup::packet(&bytes) {
                assert!(!startup.user.is_empty() && !startup.database.is_empty());
                assert!([startup::V3_0, startup::V3_2].contains(&startup.negotiated()));
                for (_, value) in &startup.parameters {
                    let _ = startup::options(value);
                }
            }
            let _ = startup::packet(body);
            let _ = startup::options(&String::from_utf8_lossy(body));
        });
}

/// A packet with a code that means something, mostly; random bytes alone would hardly ever find one.
fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let code: i32 = match kind % 8 {
        0 => (1234 << 16) | 5678,
        1 => (1234 << 16) | 5679,
        2 => (1234 << 16) | 5680,
        3 => startup::V3_2,
        4 => (3 << 16) | 9999,
        5 => 2 << 16,
        _ => startup::V3_0,
    };
    let length = u32::try_from(8 + body.len()).expect("inputs are short");
    let mut bytes = [length.to_be_bytes(), code.to_be_bytes()].concat();
    if kind % 8 >= 6 {
        bytes.extend_from_slice(b"user\0me\0");
    }
    bytes.extend_from_slice(body);
    bytes
}
