//! Cancel keys: what a client shows to have its statement cancelled, and which process has told it.
//!
//! A cancel request comes on a connection of its own, which behind an address shared by several processes may reach any
//! of them. So with peering a key begins with the number of the process that made it:
//!
//! ```text
//!   3.0    4 bytes   | 14 bits: number | 18 bits: random  |
//!   3.2   32 bytes   | 14 bits: number | 242 bits: random |
//! ```
//!
//! In transaction pooling 31 random bits of the process id are to be guessed, too. In session pooling the process id is
//! the server's and no secret, and 18 bits would be guessed in seconds, were it not for the registry's bound on wrong
//! keys.
//!
//! The process id is positive, so its sign is free to say that a request has been forwarded already: whoever gets such a
//! request delivers it or drops it. Processes that have each other's numbers wrong therefore cannot send one in circles.

use crate::config::PeerId;

/// Bits of the number, which fill the key from its front: what is left of a 3.0 key are 18.
const NUMBER_BITS: u32 = 14;
const _: () = assert!(
    PeerId::MOST < 1 << NUMBER_BITS,
    "every number fits into its bits"
);

/// The bits of the first two bytes that stay random.
const RANDOM: u16 = (1 << (u16::BITS - NUMBER_BITS)) - 1;

/// Writes the number of the process into a key.
pub(super) fn stamp(key: &mut [u8], id: PeerId) {
    if let Some(front) = key.first_chunk_mut::<2>() {
        let random = u16::from_be_bytes(*front) & RANDOM;
        *front = (id.0 << (u16::BITS - NUMBER_BITS) | random).to_be_bytes();
    }
}

/// The number of the process that a key claims to be from. 0 is nobody's.
pub fn issuer(key: &[u8]) -> PeerId {
    let front = key.first_chunk::<2>().copied().unwrap_or_default();
    PeerId(u16::from_be_bytes(front) >> (u16::BITS - NUMBER_BITS))
}

/// The process id of a request that is forwarded.
pub fn forwarded(process: i32) -> i32 {
    process | i32::MIN
}

/// Whether a request with this process id has been forwarded, and the process id as the client was told.
pub fn was_forwarded(process: i32) -> (bool, i32) {
    (process < 0, process & i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_takes_14_bits() {
        let check = |id: u16, random: [u8; 4], expected: [u8; 4]| {
            let mut key = random;
            stamp(&mut key, PeerId(id));
            assert_eq!(key, expected, "{id}");
            assert_eq!(issuer(&key), PeerId(id), "{id}");
        };
        check(1, [0; 4], [0, 4, 0, 0]);
        check(1, [0xff; 4], [0, 7, 0xff, 0xff]);
        check(16_383, [0; 4], [0xff, 0xfc, 0, 0]);
        check(16_383, [0xff; 4], [0xff; 4]);
        check(0x1234, [0x55; 4], [0x48, 0xd1, 0x55, 0x55]);
    }

    #[test]
    fn a_long_key_keeps_what_is_behind_the_number() {
        let mut key = [0xaa; 32];
        stamp(&mut key, PeerId(7));
        assert_eq!(issuer(&key), PeerId(7));
        assert_eq!(key[2..], [0xaa; 30]);
    }

    #[test]
    fn a_request_is_marked_once() {
        for process in [1, 77, i32::MAX] {
            assert_eq!(was_forwarded(process), (false, process));
            assert_eq!(was_forwarded(forwarded(process)), (true, process));
            assert_eq!(forwarded(forwarded(process)), forwarded(process));
        }
    }
}
