//! One node among several.

/// The candidate with the fewest outstanding requests. `turn` counts up from call to call, so that candidates with
/// equal load get equal shares.
pub fn least_busy(
    candidates: impl Iterator<Item = usize> + Clone,
    outstanding: impl Fn(usize) -> u32,
    turn: u32,
) -> Option<usize> {
    let count = candidates.clone().count();
    let first = (turn as usize).checked_rem(count)?;
    let turned = candidates.clone().skip(first).chain(candidates.take(first));
    turned.min_by_key(|node| outstanding(*node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewest_first_then_in_turn() {
        let check = |load: &[u32], turn, expected| {
            assert_eq!(
                least_busy(0..load.len(), |node| load[node], turn),
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
    }
}
