//! Counters with labels, resolved once so that the hot path never looks up text.

use prometheus::{IntCounter, IntCounterVec};

/// The label value for whatever was not named at the start. It bounds the number of series: a
/// value that nobody announced is counted, but never makes a series of its own.
pub(super) const OTHER: &str = "other";

/// Counters that differ in one label, by position in the list given at the start.
#[derive(Debug)]
pub struct Family {
    values: Box<[Box<str>]>,
    counters: Box<[IntCounter]>,
    other: IntCounter,
}

impl Family {
    /// One counter for each of `values`. `before` are the values of the labels that stand before
    /// the one that varies.
    pub(super) fn new(all: &IntCounterVec, before: &[&str], values: &[&str]) -> Family {
        let child = |value: &str| {
            let labels: Vec<&str> = before.iter().copied().chain([value]).collect();
            all.with_label_values(&labels)
        };
        Family {
            values: values.iter().map(|&v| v.into()).collect(),
            counters: values.iter().map(|v| child(v)).collect(),
            other: child(OTHER),
        }
    }

    /// The counter of the value at `index` in the list given at the start; beyond it, the one
    /// labelled `other`. An array read.
    pub fn at(&self, index: usize) -> &IntCounter {
        self.counters.get(index).unwrap_or(&self.other)
    }

    /// The counter of `value`; of one not named at the start, the one labelled `other`. A linear
    /// search, for places where text is all there is and speed does not matter.
    pub fn named(&self, value: &str) -> &IntCounter {
        self.values
            .iter()
            .position(|v| **v == *value)
            .map_or(&self.other, |index| self.at(index))
    }
}

/// Counters that differ in two labels, by position in the two lists given at the start.
#[derive(Debug)]
pub struct Grid {
    columns: usize,
    cells: Box<[IntCounter]>,
    other: IntCounter,
}

impl Grid {
    /// One counter for each pair of `rows` and `columns`.
    pub(super) fn new(all: &IntCounterVec, rows: &[&str], columns: &[&str]) -> Grid {
        let pairs = rows
            .iter()
            .flat_map(|row| columns.iter().map(move |column| [*row, *column]));
        Grid {
            columns: columns.len(),
            cells: pairs.map(|pair| all.with_label_values(&pair)).collect(),
            other: all.with_label_values(&[OTHER, OTHER]),
        }
    }

    /// The counter at `row` and `column`; beyond either list, the one labelled `other` twice. An
    /// array read.
    pub fn at(&self, row: usize, column: usize) -> &IntCounter {
        // Without the first test a column too far would count in the next row; a row too far ends
        // beyond the cells unless it is so large that the sum wraps.
        if column >= self.columns {
            return &self.other;
        }
        let cell = row
            .checked_mul(self.columns)
            .and_then(|start| start.checked_add(column));
        cell.and_then(|cell| self.cells.get(cell))
            .unwrap_or(&self.other)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[test]
    fn a_family_counts_what_it_does_not_know_as_other() {
        let all = counters(&["node", "reason"]);
        let family = Family::new(&all, &["pg1"], &["refused", "closed"]);
        family.at(0).inc();
        family.named("closed").inc_by(2);
        family.at(2).inc_by(4);
        family.named("never heard of").inc_by(8);
        let cases = [("refused", 1), ("closed", 2), ("other", 12)];
        for (reason, count) in cases {
            check(&all, &["pg1", reason], count);
        }
    }

    #[test]
    fn a_grid_counts_each_pair_apart() {
        let all = counters(&["target", "reason"]);
        let grid = Grid::new(&all, &["primary", "standby"], &["read", "class", "lag"]);
        let cases = [
            (0, 0, ["primary", "read"]),
            (0, 2, ["primary", "lag"]),
            (1, 0, ["standby", "read"]),
            (1, 2, ["standby", "lag"]),
            (0, 3, ["other", "other"]),
            (2, 0, ["other", "other"]),
            (usize::MAX, 2, ["other", "other"]),
            (1, usize::MAX, ["other", "other"]),
        ];
        for (row, column, labels) in cases {
            let before = all.with_label_values(&labels).get();
            grid.at(row, column).inc();
            check(&all, &labels, before + 1);
        }
    }

    fn counters(labels: &[&str]) -> IntCounterVec {
        IntCounterVec::new(Opts::new("series", "For the test."), labels).unwrap()
    }

    fn check(all: &IntCounterVec, labels: &[&str], count: u64) {
        assert_eq!(all.with_label_values(labels).get(), count, "{labels:?}");
    }
}
