//! Hints in the comments before a statement: `/* pgweir: primary */`, `/* pgweir: standby, stale=5s */`.
//!
//! Only comments before the first word of a text count (routing.md §2.5): what programs append to statements for
//! tracing is never looked at. A text that does not begin with a comment costs one comparison.

use super::class::{Access, Class, Reason, SessionEffect, TxEffect};
use super::lexer::{comment, continues_word, is_space};

/// The node that a hint asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HintedPlace {
    /// `primary`.
    Primary,
    /// `standby`.
    Standby,
}

/// What became of a hint, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HintResult {
    /// There is none, or it has not been looked at.
    #[default]
    None,
    /// It was followed, or nothing else would have been done.
    Followed,
    /// The statement must not go where the hint would have it, or its listener decides.
    InVain,
    /// Hints are ignored in this database, or of this user.
    Forbidden,
    /// It, or a part of it, was not understood.
    Malformed,
}

impl HintResult {
    /// The words for the metrics, by [`HintResult::index`].
    pub const LABELS: [&'static str; 4] = ["followed", "in_vain", "forbidden", "malformed"];

    /// Its place in `LABELS`; `None` if there is nothing to count.
    pub const fn index(self) -> Option<usize> {
        match self {
            HintResult::None => None,
            HintResult::Followed => Some(0),
            HintResult::InVain => Some(1),
            HintResult::Forbidden => Some(2),
            HintResult::Malformed => Some(3),
        }
    }
}

/// What the comments before a text ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hint {
    /// Where it is to run.
    pub place: Option<HintedPlace>,
    /// The most that a standby may lag for it, in milliseconds. What the session has written need not be there.
    pub stale: Option<u32>,
    /// A part of it was not understood.
    pub malformed: bool,
    /// What became of it.
    pub result: HintResult,
}

impl Hint {
    /// No hint.
    pub const NONE: Hint = Hint {
        place: None,
        stale: None,
        malformed: false,
        result: HintResult::None,
    };

    /// Whether there is nothing to look at.
    #[inline]
    pub fn is_none(self) -> bool {
        self.place.is_none() && self.stale.is_none() && !self.malformed
    }

    /// The hint of two statements that go to one place together: what only one of them asks for does not hold for both,
    /// but for the primary, which is good enough for either.
    #[must_use]
    pub fn beside(self, other: Hint) -> Hint {
        let place = match (self.place, other.place) {
            (Some(HintedPlace::Primary), _) | (_, Some(HintedPlace::Primary)) => {
                Some(HintedPlace::Primary)
            }
            (Some(HintedPlace::Standby), Some(HintedPlace::Standby)) => Some(HintedPlace::Standby),
            _ => None,
        };
        let result = match self.result {
            HintResult::None => other.result,
            result => result,
        };
        Hint {
            place,
            stale: self
                .stale
                .zip(other.stale)
                .map(|(one, other)| one.min(other)),
            malformed: self.malformed || other.malformed,
            result,
        }
    }
}

impl Class {
    /// The class with its hint followed, as far as it may be. `primary` always is. `standby` makes a read of what is none
    /// only because something in it is not known; what is known to write, to lock or to leave something in its session
    /// stays what it is.
    #[must_use]
    pub fn hinted(mut self) -> Class {
        self.hint.result = match self.hint.place {
            Some(HintedPlace::Primary) => {
                if !matches!(self.access, Access::Primary | Access::Write) {
                    self.access = Access::Primary;
                    self.reason = Reason::Hint;
                }
                HintResult::Followed
            }
            Some(HintedPlace::Standby) if self.may_be_raised() => {
                self.access = Access::Read;
                self.reason = Reason::Hint;
                HintResult::Followed
            }
            _ if self.hint.malformed => HintResult::Malformed,
            _ if self.access == Access::Read => HintResult::Followed,
            _ => HintResult::InVain,
        };
        self
    }

    fn may_be_raised(self) -> bool {
        self.uncertain && self.session == SessionEffect::None && self.tx == TxEffect::None
    }
}

/// The hint before a text.
pub(super) fn leading(text: &[u8]) -> Hint {
    let mut hint = Hint::NONE;
    if !may_begin_comment(text) {
        return hint;
    }
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if is_space(*byte) {
            at += 1;
            continue;
        }
        // One that does not end is the server's to complain of.
        let Ok(Some(end)) = comment(text, at) else {
            break;
        };
        read(&text[at..end], &mut hint);
        at = end;
    }
    hint
}

#[inline]
fn may_begin_comment(text: &[u8]) -> bool {
    text.first()
        .is_some_and(|byte| matches!(byte, b'/' | b'-') || is_space(*byte))
}

/// One comment, with what marks its ends.
fn read(comment: &[u8], hint: &mut Hint) {
    let inner = comment[2..].strip_suffix(b"*/").unwrap_or(&comment[2..]);
    let inner = inner.trim_ascii();
    let Some((mark, asked)) = inner.split_at_checked(MARK.len()) else {
        return;
    };
    if !mark.eq_ignore_ascii_case(MARK) {
        return;
    }
    for part in asked.split(|byte| *byte == b',') {
        let part = part.trim_ascii().to_ascii_lowercase();
        match part.as_slice() {
            b"primary" => hint.place = Some(HintedPlace::Primary),
            // Of two that contradict each other, the safe one.
            b"standby" => hint.place = hint.place.or(Some(HintedPlace::Standby)),
            part => match stale(part) {
                Some(bound) => hint.stale = Some(hint.stale.map_or(bound, |b| b.min(bound))),
                None => hint.malformed = true,
            },
        }
    }
}

const MARK: &[u8] = b"pgweir:";

/// `stale=5s`, in milliseconds: a whole number with a unit, as in proxy.toml.
fn stale(part: &[u8]) -> Option<u32> {
    let value = part.strip_prefix(b"stale")?.trim_ascii_start();
    let value = value.strip_prefix(b"=")?.trim_ascii_start();
    let digits = value
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (number, unit) = value.split_at(digits);
    let scale: u32 = match unit {
        b"ms" => 1,
        b"s" => 1_000,
        b"min" => 60_000,
        b"h" => 3_600_000,
        b"d" => 86_400_000,
        _ => return None,
    };
    let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
    number.checked_mul(scale)
}

/// Whether a normalised text has a word that no hint takes to a standby: functions that do something there, and say
/// nothing of it, those that leave something in the session, and those that tell an application where it is. Wherever
/// they stand and whatever they are there, a column perhaps: then the hint is in vain, which is no harm.
pub(super) fn names_what_stays(key: &[u8]) -> bool {
    key.split(|byte| !continues_word(*byte))
        .filter(|word| word.len() >= 4)
        .any(stays)
}

fn stays(word: &[u8]) -> bool {
    STAY.contains(&word)
        || STAY_BEGINNINGS.iter().any(|begin| word.starts_with(begin))
        || memchr::memmem::find(word, b"replication_slot").is_some()
}

/// routing.md §2.5, the explicit bad list.
const STAY: [&[u8]; 27] = [
    b"nextval",
    b"setval",
    b"currval",
    b"lastval",
    b"set_config",
    b"setseed",
    b"pg_notify",
    b"loread",
    b"lowrite",
    b"pg_export_snapshot",
    b"pg_terminate_backend",
    b"pg_cancel_backend",
    b"pg_reload_conf",
    b"pg_promote",
    b"pg_switch_wal",
    b"pg_create_restore_point",
    b"pg_start_backup",
    b"pg_stop_backup",
    b"pg_stat_clear_snapshot",
    b"pg_stat_statements_reset",
    b"pg_is_in_recovery",
    b"pg_is_wal_replay_paused",
    b"pg_import_system_collations",
    b"pg_nextoid",
    b"ts_stat",
    b"ts_rewrite",
    b"pg_temp",
];

/// The same for families of them.
const STAY_BEGINNINGS: [&[u8]; 19] = [
    b"pg_advisory_",
    b"pg_try_advisory_",
    b"lo_",
    b"pg_rotate_logfile",
    b"pg_wal_replay_",
    b"pg_backup_",
    b"pg_logical_",
    b"pg_replication_",
    b"pg_stat_reset",
    b"pg_log_",
    b"pg_last_",
    b"pg_file_",
    b"pg_set_",
    b"pg_clear_",
    b"pg_restore_",
    b"pg_temp_",
    b"query_to_xml",
    b"cursor_to_xml",
    b"dblink",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, place: Option<HintedPlace>, stale: Option<u32>, malformed: bool) {
        let expected = Hint {
            place,
            stale,
            malformed,
            ..Hint::NONE
        };
        assert_eq!(leading(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn hints_stand_before_the_first_word() {
        use HintedPlace::{Primary, Standby};
        check("select 1", None, None, false);
        check("/* pgweir: primary */ select 1", Some(Primary), None, false);
        check("/*pgweir:standby*/select 1", Some(Standby), None, false);
        check(" \n/* PgWeir: STANDBY */", Some(Standby), None, false);
        check("-- pgweir: primary\nselect 1", Some(Primary), None, false);
        check(
            "/* app */ /* pgweir: standby, stale = 5s */ select 1",
            Some(Standby),
            Some(5_000),
            false,
        );
        check(
            "/* pgweir: stale=2min */ /* pgweir: stale=500ms */ select 1",
            None,
            Some(500),
            false,
        );
        check("/* pgweir: stale=0s */ select 1", None, Some(0), false);
        check(
            "/* pgweir: standby, primary */ select 1",
            Some(Primary),
            None,
            false,
        );
        check(
            "/* pgweir: primary, standby */ select 1",
            Some(Primary),
            None,
            false,
        );
        // Behind it, or in it, they are comments.
        check("select 1 /* pgweir: primary */", None, None, false);
        check("select /* pgweir: primary */ 1", None, None, false);
        check("select '/* pgweir: primary */'", None, None, false);
        check("; /* pgweir: primary */ select 1", None, None, false);
        check("/* about pgweir: primary */ select 1", None, None, false);
        check("/* pgweir */ select 1", None, None, false);
        check("/* /* pgweir: primary */ */ select 1", None, None, false);
        check("/* pgweir: primary", None, None, false);
        check("/", None, None, false);
        check("-", None, None, false);
        check("--", None, None, false);
    }

    #[test]
    fn what_is_not_understood_is_told_apart() {
        check("/* pgweir: */ select 1", None, None, true);
        check("/* pgweir: master */ select 1", None, None, true);
        check("/* pgweir: stale */ select 1", None, None, true);
        check("/* pgweir: stale=5 */ select 1", None, None, true);
        check("/* pgweir: stale=-5s */ select 1", None, None, true);
        check("/* pgweir: stale=5000000d */ select 1", None, None, true);
        check(
            "/* pgweir: primary, nearest */ select 1",
            Some(HintedPlace::Primary),
            None,
            true,
        );
    }

    #[test]
    fn words_that_stay() {
        let check = |key: &str, expected| {
            assert_eq!(names_what_stays(key.as_bytes()), expected, "{key}");
        };
        check("select f(a, nextval(\u{2}))", true);
        check("select \"nextval\"(\u{2})", true);
        check("select pg_catalog.pg_try_advisory_lock_shared(\u{1})", true);
        check("select pg_drop_replication_slot(\u{2})", true);
        check("select dblink_exec(\u{2})", true);
        check("select pg_is_in_recovery()", true);
        check("select pg_last_wal_replay_lsn()", true);
        check("select my_nextval(a)", false);
        check("select inet_server_port(), pg_backend_pid()", false);
    }

    #[test]
    fn hints_of_two_statements() {
        let hint = |text: &str| leading(text.as_bytes());
        let both = |a: &str, b: &str| hint(a).beside(hint(b));
        let standby = hint("/* pgweir: standby, stale=5s */");
        assert_eq!(standby.beside(standby), standby);
        assert_eq!(
            both("/* pgweir: standby, stale=5s */", "select 1"),
            Hint::NONE
        );
        assert_eq!(
            both("/* pgweir: stale=5s */", "/* pgweir: stale=2s */").stale,
            Some(2_000)
        );
        assert_eq!(
            both("select 1", "/* pgweir: primary */").place,
            Some(HintedPlace::Primary)
        );
    }

    proptest! {
        #[test]
        fn any_comment_is_survived(inner in "[ -~\\n*/-]{0,60}") {
            leading(format!("/* pgweir:{inner}*/ select 1").as_bytes());
            leading(format!("--{inner}").as_bytes());
            leading(inner.as_bytes());
        }
    }
}
