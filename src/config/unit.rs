//! Durations and sizes as they are typed: a whole number and its unit, as in `"250ms"` and `"16MiB"`.

use std::time::Duration;

/// Reads a duration: `ms`, `s`, `min`, `h` or `d` after a whole number.
///
/// # Errors
///
/// The message for the operator.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || {
        format!(
            "expected a duration such as \"250ms\" or \"10s\" (a whole number and one of ms, s, \
             min, h, d), not {text:?}"
        )
    };
    let (number, unit) = split(text).ok_or_else(expected)?;
    let unit = DURATIONS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(expected)?;
    let millis = number
        .checked_mul(unit.1)
        .ok_or_else(|| format!("{text:?} is too large"))?;
    Ok(Duration::from_millis(millis))
}

/// Reads a size in bytes: `B`, `KiB`, `MiB` or `GiB` after a whole number.
///
/// `kB` and `MB` are refused: PostgreSQL means 1024 by them and the rest of the world 1000.
///
/// # Errors
///
/// The message for the operator.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let expected = || {
        format!(
            "expected a size such as \"64KiB\" or \"1MiB\" (a whole number and one of B, KiB, \
             MiB, GiB), not {text:?}"
        )
    };
    let (number, unit) = split(text).ok_or_else(expected)?;
    let Some((_, bytes)) = SIZES.iter().find(|(name, _)| *name == unit) else {
        return Err(match binary(unit) {
            Some(binary) => format!("{unit:?} may mean 1000 or 1024; write \"{number}{binary}\""),
            None => expected(),
        });
    };
    number
        .checked_mul(*bytes)
        .ok_or_else(|| format!("{text:?} is too large"))
}

/// Writes a duration so that [`parse_duration`] reads it: the largest unit that divides it. A rest
/// under a millisecond is lost; the file cannot express one.
pub fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    in_largest_unit(millis, &DURATIONS, "s")
}

/// Writes a size so that [`parse_size`] reads it: the largest unit that divides it.
pub(super) fn size_text(bytes: u64) -> String {
    in_largest_unit(bytes, &SIZES, "B")
}

fn in_largest_unit(amount: u64, units: &[(&str, u64)], zero: &str) -> String {
    if amount == 0 {
        return format!("0{zero}");
    }
    match units
        .iter()
        .rev()
        .find(|(_, unit)| amount.is_multiple_of(*unit))
    {
        Some((name, unit)) => format!("{}{name}", amount / unit),
        None => amount.to_string(),
    }
}

/// `"250ms"` to `(250, "ms")`. Nothing before, between or after.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

/// The unit that somebody means who types `kB` or `m`.
fn binary(unit: &str) -> Option<&'static str> {
    match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" => Some("KiB"),
        "m" | "mb" => Some("MiB"),
        "g" | "gb" => Some("GiB"),
        _ => None,
    }
}

/// Units of time in milliseconds, ascending; the names are PostgreSQL's (manual, "Parameter Names
/// and Values", config-setting.html#CONFIG-SETTING-NAMES-VALUES).
const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Units of size in bytes, ascending.
const SIZES: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, millis: u64| {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(
                parse_duration(&duration_text(duration)),
                Ok(duration),
                "{text}"
            );
        };
        check("0s", 0);
        check("1ms", 1);
        check("250ms", 250);
        check("90s", 90_000);
        check("5min", 300_000);
        check("1h", 3_600_000);
        check("1d", 86_400_000);
        assert_eq!(duration_text(Duration::from_millis(60_000)), "1min");
        assert_eq!(duration_text(Duration::from_millis(1_500)), "1500ms");
    }

    #[test]
    fn sizes() {
        let check = |text: &str, bytes: u64| {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&size_text(bytes)), Ok(bytes), "{text}");
        };
        check("0B", 0);
        check("7B", 7);
        check("16KiB", 16_384);
        check("1MiB", 1_048_576);
        check("1GiB", 1_073_741_824);
        assert_eq!(size_text(1_048_576), "1MiB");
    }

    #[test]
    fn refused_durations() {
        let check = |text: &str| {
            let expected = format!(
                "expected a duration such as \"250ms\" or \"10s\" (a whole number and one of ms, \
                 s, min, h, d), not {text:?}"
            );
            assert_eq!(parse_duration(text), Err(expected));
        };
        for text in [
            "", "5", "s", "1.5s", "-1s", "+1s", "1 s", " 1s", "1s ", "1h30min", "5m",
        ] {
            check(text);
        }
        // More digits than a u64 has.
        check("99999999999999999999s");
        assert_eq!(
            parse_duration("18446744073709551615d"),
            Err("\"18446744073709551615d\" is too large".to_owned())
        );
    }

    #[test]
    fn refused_sizes() {
        let check = |text: &str, expected: &str| {
            let fault = parse_size(text).expect_err(text);
            assert!(fault.starts_with(expected), "{text}: {fault}");
        };
        check("1MB", "\"MB\" may mean 1000 or 1024; write \"1MiB\"");
        check("64kB", "\"kB\" may mean 1000 or 1024; write \"64KiB\"");
        check("2g", "\"g\" may mean 1000 or 1024; write \"2GiB\"");
        check("1024", "expected a size such as");
        check("", "expected a size such as");
        check("1Mib", "expected a size such as");
        check(
            "18446744073709551615GiB",
            "\"18446744073709551615GiB\" is too large",
        );
    }
}
