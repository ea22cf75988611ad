//! What was recorded, and whether what was counted may stand beside it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// By how much a count may be above the recorded one, in percent. Runs differ by some tenths of a percent, and now
/// and then by two.
pub const TOLERANCE: u64 = 3;

/// `benches/instructions.toml`.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
pub struct Record {
    /// What has a say in the counts beside our own code. Under others they are no measure.
    pub made_with: Tools,
    /// Instructions of one transaction, by case.
    pub instructions: BTreeMap<String, u64>,
}

/// What makes the instructions that are counted.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
pub struct Tools {
    /// As `rustc --version` says.
    pub rustc: String,
    /// The C library's version: memory comes from its allocator.
    pub libc: String,
    /// As `valgrind --version` says.
    pub valgrind: String,
    /// The processor's architecture.
    pub arch: String,
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tools {
            rustc,
            libc,
            valgrind,
            arch,
        } = self;
        write!(f, "{rustc}, C library {libc}, {valgrind}, {arch}")
    }
}

/// What a count is beside the recorded one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The same, but for this many percent.
    Same(f64),
    /// Higher by more than [`TOLERANCE`].
    Worse(f64),
    /// Lower by more than [`TOLERANCE`]: what was gained could be lost again unseen.
    Better(f64),
    /// There is nothing to compare it with.
    New,
}

impl Record {
    /// Judges what was counted for one case.
    pub fn judge(&self, case: &str, count: u64) -> Verdict {
        let Some(recorded) = self.instructions.get(case) else {
            return Verdict::New;
        };
        #[expect(clippy::cast_precision_loss, reason = "counts are some ten thousand")]
        let percent = (count as f64 / *recorded as f64 - 1.0) * 100.0;
        if count * 100 > recorded * (100 + TOLERANCE) {
            Verdict::Worse(percent)
        } else if count * 100 < recorded * (100 - TOLERANCE) {
            Verdict::Better(percent)
        } else {
            Verdict::Same(percent)
        }
    }
}

impl Verdict {
    /// Whether the change must not go in like this.
    pub fn fails(self) -> bool {
        matches!(self, Verdict::Worse(_) | Verdict::New)
    }

    /// Whether it ought to be recorded.
    pub fn is_better(self) -> bool {
        matches!(self, Verdict::Better(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Same(percent) => write!(f, "{percent:+.2} %"),
            Verdict::Worse(percent) => write!(f, "{percent:+.2} %, WORSE"),
            Verdict::Better(percent) => write!(f, "{percent:+.2} %, better"),
            Verdict::New => write!(f, "NOT RECORDED"),
        }
    }
}
