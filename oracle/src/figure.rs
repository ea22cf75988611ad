//! What was found beside what is wanted.

use std::fmt;

/// A line of the table at the end.
#[derive(Clone, Debug)]
pub struct Figure {
    what: String,
    found: String,
    wanted: String,
    good: bool,
}

impl Figure {
    /// Something that has been counted or measured.
    pub fn new(
        what: impl Into<String>,
        found: impl fmt::Display,
        wanted: impl Into<String>,
        good: bool,
    ) -> Figure {
        Figure {
            what: what.into(),
            found: found.to_string(),
            wanted: wanted.into(),
            good,
        }
    }

    /// Whether what is wanted was found.
    pub fn is_good(&self) -> bool {
        self.good
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.good { "ok" } else { "NOT GOOD" };
        write!(
            f,
            "{:<76} {:>10}   wanted {:<14} {verdict}",
            self.what, self.found, self.wanted
        )
    }
}
