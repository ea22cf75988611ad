//! One node among several.

/// The candidate with the fewest outstanding requests, of which `u32::MAX` says that it must not be chosen. Each bit of
/// `candidates` stands for the node of its place. `turn` counts up from call to call, so that candidates with equal load get
/// equal shares.
pub fn least_busy(candidates: u64, outstanding: impl Fn(usize) -> u32, turn: u32) -> Option<usize> {
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
    let before = turn.checked_rem(equals.count_ones())?;
    let chosen = (0..before).fold(equals, |rest, _| without_lowest(rest));
    Some(chosen.trailing_zeros() as usize)
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
            assert_eq!(
                least_busy((1 << load.len()) - 1, |node| load[node], turn),
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
        let some = |turn| least_busy(0b1010_0100 | 1 << 63, |node| u32::from(node == 5), turn);
        assert_eq!([0, 1, 2, 3, 4].map(some), [2, 7, 63, 2, 7].map(Some));
        check(&[u32::MAX, 4], 0, Some(1));
        check(&[u32::MAX, u32::MAX], 0, None);
    }
}
