//! Positions in the WAL, as far as the room needs them: "has this standby replayed that much?".

use super::Error;

/// The position that a standby must have replayed to have everything before the insert LSN `text`.
///
/// When the last record ends exactly on a WAL page, `pg_current_wal_insert_lsn()` names the first byte
/// *behind* the next page's header, where no record has begun and none may begin for a long time; replay
/// stops at the page itself. The header is 24 bytes, and 40 at the start of a segment.
pub(super) fn replay_target(text: &str) -> Result<u64, Error> {
    let lsn = parse(text)?;
    let (segment, page) = (lsn % WAL_SEGMENT, lsn % WAL_PAGE);
    Ok(match () {
        () if segment <= LONG_HEADER => lsn - segment,
        () if page <= SHORT_HEADER => lsn - page,
        () => lsn,
    })
}

/// Reads the text form, two hexadecimal numbers and a slash: `16/B374D848`.
///
/// PostgreSQL manual, "pg_lsn Type", datatype-pg-lsn.html.
pub(super) fn parse(text: &str) -> Result<u64, Error> {
    let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
    text.split_once('/')
        .and_then(|(high, low)| Some((half(high)? << 32) | half(low)?))
        .ok_or(Error::Malformed(
            "an LSN that is not two hexadecimal numbers",
        ))
}

const WAL_PAGE: u64 = 8 * 1024;
/// What `initdb` makes unless told otherwise, and this room never tells it.
const WAL_SEGMENT: u64 = 16 * 1024 * 1024;
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, target: Option<u64>) {
        assert_eq!(replay_target(text).ok(), target, "{text}");
    }

    #[test]
    fn an_insert_position_behind_a_page_header_means_the_page() {
        for (text, target) in [
            ("0/4248018", Some(0x424_8000)),
            ("0/4248019", Some(0x424_8019)),
            ("0/4000028", Some(0x400_0000)),
            ("0/4000029", Some(0x400_0029)),
            ("16/B374D848", Some(0x16_B374_D848)),
            ("16B374D848", None),
            ("x/1", None),
        ] {
            check(text, target);
        }
    }
}
