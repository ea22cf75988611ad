//! Positions in the write-ahead log.
//!
//! PostgreSQL manual, "pg_lsn Type", datatype-pg-lsn.html, and "WAL Internals", wal-internals.html.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log. Only positions of one timeline can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// A timeline: it begins when a standby is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u32);

/// A position on its timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The timeline.
    pub timeline: Timeline,
    /// The byte position.
    pub lsn: Lsn,
}

/// WAL pages have this size unless PostgreSQL was built otherwise (`wal_block_size`).
const PAGE: u64 = 8192;
/// Header of an ordinary WAL page.
const SHORT_HEADER: u64 = 24;
/// Header of the first page of a segment.
const LONG_HEADER: u64 = 40;
/// The smallest segment (`wal_segment_size` is 1 MiB to 1 GiB). Every segment starts at a multiple of its size, and so
/// at a multiple of this.
const SMALLEST_SEGMENT: u64 = 1 << 20;

impl Lsn {
    /// Takes the page header off that `pg_current_wal_insert_lsn()` adds when the last record ended exactly on a page
    /// boundary: no standby replays up to there before somebody writes again.
    ///
    /// Rounding down to the page never loses a commit, whatever the offset meant. A record that ends within the first
    /// bytes of a page began on the page before it; replay positions are ends of records, so a standby whose position
    /// has reached the page has replayed that record. For the same reason the segment size need not be known.
    #[must_use]
    pub fn normalised(self) -> Lsn {
        let offset = self.0 % PAGE;
        let long = self.0 % SMALLEST_SEGMENT <= LONG_HEADER;
        if offset <= SHORT_HEADER || long {
            Lsn(self.0 - offset)
        } else {
            self
        }
    }

    /// Bytes from `earlier` to this; 0 if this is not later.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// Text that is not an LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an LSN")]
pub struct ParseLsnError;

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Lsn, ParseLsnError> {
        let half = |part: &str| {
            let hex =
                (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex.then(|| u64::from_str_radix(part, 16).ok())
                .flatten()
                .ok_or(ParseLsnError)
        };
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

/// The timeline of a WAL file name as `pg_walfile_name()` gives it: its first eight hexadecimal digits.
pub fn timeline_of_wal_file(name: &str) -> Option<Timeline> {
    u32::from_str_radix(name.get(..8)?, 16).ok().map(Timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        for (text, lsn) in [
            ("0/0", 0),
            ("0/4248018", 0x424_8018),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/ffffffff", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Lsn(lsn)), "{text}");
            assert_eq!(Lsn(lsn).to_string(), text.to_uppercase());
        }
        for bad in ["", "0", "/", "0/", "0/123456789", "x/1", "0/+1", "0/1/2"] {
            assert_eq!(bad.parse::<Lsn>(), Err(ParseLsnError), "{bad}");
        }
    }

    #[test]
    fn page_headers_are_taken_off() {
        let check =
            |lsn: u64, expected: u64| assert_eq!(Lsn(lsn).normalised(), Lsn(expected), "{lsn:#x}");
        // The case that was measured: insert 0/4248018 while replay stopped at 0/4248000.
        check(0x424_8018, 0x424_8000);
        check(0x424_8000, 0x424_8000);
        check(0x424_8019, 0x424_8019);
        check(0x500_0028, 0x500_0000);
        check(0x500_0029, 0x500_0029);
        check(0x424_8028, 0x424_8028);
    }

    #[test]
    fn wal_files_name_their_timeline() {
        assert_eq!(
            timeline_of_wal_file("0000000200000000000000A3"),
            Some(Timeline(2))
        );
        assert_eq!(timeline_of_wal_file("000"), None);
    }
}
