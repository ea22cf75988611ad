//! One node among several.

/// The candidate with the fewest outstanding requests, of which `u32::MAX` says that it must not be chosen. Each bit of
/// `candidates` stands for the node of its place. Of several, `tie` chooses: it is given theirs, and how many requests each
/// of them has.
pub fn least_busy(
    candidates: u64,
    outstanding: impl Fn(usize) -> u32,
    tie: impl FnOnce(u64, u32) -> usize,
) -> Option<usize> {
    let (mut least, mut equals) = (u32::MAX, 0u64);
    let mut rest = candidates;
    while rest != 0 {
        let others = without_lowest(rest);
        let load = outstanding(rest.trailing_zeros() as usize);
        if load < least {
            (least, equals) = (load, 0);
        }
        if load == least && load != u32::MAX {
            equals |= rest ^ others;
        }
        rest = others;
    }
    match without_lowest(equals) {
        0 if equals == 0 => None,
        0 => Some(first(equals, least)),
        _ => Some(tie(equals, least)),
    }
}

/// One of several places, of which there must be one. `turn` counts up from call to call, so that they get equal shares.
fn in_turn(places: u64, turn: u32) -> usize {
    let chosen = (0..turn % places.count_ones()).fold(places, |rest, _| without_lowest(rest));
    chosen.trailing_zeros() as usize
}

/// The first of several places.
pub fn first(places: u64, _: u32) -> usize {
    places.trailing_zeros() as usize
}

/// Reads of a session after which it chooses anew among idle standbys: one that has come back is to get its share, also of
/// sessions that are never in each other's way.
const RUN: u8 = 64;

/// The standby that a session has read from last. While it is idle, the session stays there: the server processes that it
/// has used are warm. Among busy ones, sessions take turns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Affinity {
    node: u8,
    /// Reads for which it still holds.
    left: u8,
}

impl Affinity {
    /// Chooses among standbys with as many requests each, of which there must be one. `turn` counts up from call to call;
    /// it is asked only if it decides.
    pub fn choose(self, equals: u64, requests: u32, turn: impl FnOnce() -> u32) -> usize {
        match self.left > 0 && requests == 0 && equals >> self.node & 1 == 1 {
            true => usize::from(self.node),
            false => in_turn(equals, turn()),
        }
    }

    /// The session reads from this standby.
    pub fn took(&mut self, node: usize) {
        self.left = match self.left.checked_sub(1) {
            Some(left) if usize::from(self.node) == node => left,
            _ => RUN,
        };
        // There are 64 nodes at most.
        self.node = node as u8;
    }
}

fn without_lowest(bits: u64) -> u64 {
    bits & bits.wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewest_first_then_in_turn() {
        let check = |load: &[u32], turn, expected| {
            let tie = |equals, requests| Affinity::default().choose(equals, requests, || turn);
            assert_eq!(
                least_busy((1 << load.len()) - 1, |node| load[node], tie),
                expected,
                "{load:?} turn {turn}"
            );
        };
        check(&[], 0, None);
        check(&[3, 1, 2], 0, Some(1));
        check(&[1, 1], 0, Some(0));
        check(&[1, 1], 1, Some(1));
        check(&[1, 1], 2, Some(0));
        check(&[1, 1, 0], u32::MAX, Some(2));
        let some = |turn| {
            let busy = |node| u32::from(node == 5);
            least_busy(0b1010_0100 | 1 << 63, busy, |equals, _| {
                in_turn(equals, turn)
            })
        };
        assert_eq!([0, 1, 2, 3, 4].map(some), [2, 7, 63, 2, 7].map(Some));
        check(&[u32::MAX, 4], 0, Some(1));
        check(&[u32::MAX, u32::MAX], 0, None);
    }

    #[test]
    fn a_session_stays_where_it_has_read_while_that_is_idle() {
        let mut affinity = Affinity::default();
        let mut turn = 0;
        let mut read = |load: [u32; 3]| {
            let tie = |equals, requests| {
                affinity.choose(equals, requests, || {
                    turn += 1;
                    turn
                })
            };
            let node = least_busy(0b111, |node| load[node], tie).expect("all may be read");
            affinity.took(node);
            (node, turn)
        };
        assert_eq!(read([0, 0, 0]), (1, 1));
        assert_eq!(read([0, 0, 0]), (1, 1));
        assert_eq!(read([1, 0, 0]), (1, 1));
        assert_eq!(read([0, 1, 1]), (0, 1), "less busy");
        assert_eq!(read([0, 0, 0]), (0, 1), "and it stays there");
        assert_eq!(read([1, 0, 0]), (1, 2), "one of two that are less busy");
        assert_eq!(read([1, 1, 1]), (0, 3), "busy ones take turns");
        assert_eq!(read([1, 0, 0]), (1, 4));
        for _ in 0..RUN {
            assert_eq!(read([0, 0, 0]), (1, 4));
        }
        assert_eq!(read([0, 0, 0]), (2, 5), "the others have their turn");
        assert_eq!(read([0, 0, 0]), (2, 5));
    }
}
