//! One node among several.

/// The candidate with the fewest outstanding requests. Each bit of `candidates` stands for the node of its place. `turn`
/// counts up from call to call, so that candidates with equal load get equal shares.
pub fn least_busy(candidates: u64, outstanding: impl Fn(usize) -> u32, turn: u32) -> Option<usize> {
    let first = turn.checked_rem(candidates.count_ones())?;
    let from_first = (0..first).fold(candidates, |rest, _| without_lowest(rest));
    let turned = places(from_first).chain(places(candidates & !from_first));
    turned.min_by_key(|node| outstanding(*node))
}

fn without_lowest(bits: u64) -> u64 {
    bits & bits.wrapping_sub(1)
}

/// The places of the bits that are set, lowest first.
fn places(bits: u64) -> impl Iterator<Item = usize> {
    let rests = std::iter::successors(Some(bits), |rest| Some(without_lowest(*rest)));
    rests
        .take_while(|rest| *rest != 0)
        .map(|rest| rest.trailing_zeros() as usize)
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
        assert_eq!([0, 1, 2, 3, 4].map(some), [2, 7, 7, 63, 2].map(Some));
    }
}
