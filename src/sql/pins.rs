//! Sets of reasons for which a session keeps its server connection, and the words that may end one.

use super::class::PinReason;

/// Some of the reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pins(u16);

const _: () = assert!(PinReason::ALL.len() <= 16, "a reason has a bit");

impl Pins {
    /// No reason.
    pub const NONE: Pins = Pins(0);

    /// Those that a server can be asked about, in the order of [`PinReason::ALL`]: what they stand for can be listed, and may
    /// go before the session does.
    pub const MAY_END: Pins = Pins::NONE
        .with(PinReason::TemporaryObject)
        .with(PinReason::Listen)
        .with(PinReason::HoldCursor)
        .with(PinReason::AdvisoryLock)
        .with(PinReason::Prepare);

    /// The same with one more.
    #[must_use]
    pub const fn with(self, reason: PinReason) -> Pins {
        Pins(self.0 | 1 << reason.index())
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Pins) -> Pins {
        Pins(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Pins) -> Pins {
        Pins(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a reason is among them.
    pub const fn has(self, reason: PinReason) -> bool {
        self.0 >> reason.index() & 1 == 1
    }

    /// Each of them, in the order of [`PinReason::ALL`].
    pub fn iter(self) -> impl Iterator<Item = PinReason> {
        PinReason::ALL
            .iter()
            .copied()
            .filter(move |reason| self.has(*reason))
    }
}

/// Words of statements that may take away what a session is pinned for. `unlock` stands in names of functions.
const ENDING: [&[u8]; 6] = [
    b"drop",
    b"discard",
    b"unlisten",
    b"close",
    b"deallocate",
    b"unlock",
];

/// Whether a text may end a pin. One that only looks as if it did costs a question to the server.
pub fn may_end_pin(text: &[u8]) -> bool {
    ENDING.iter().any(|word| mentions(text, word))
}

/// Whether these letters stand anywhere in a text, in whatever case. No letters stand nowhere.
pub fn mentions(text: &[u8], word: &[u8]) -> bool {
    let Some(first) = word.first() else {
        return false;
    };
    let (lower, upper) = (first.to_ascii_lowercase(), first.to_ascii_uppercase());
    memchr::memchr2_iter(lower, upper, text).any(|at| {
        text.get(at..at + word.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_reasons() {
        let pins = Pins::NONE.with(PinReason::Load).with(PinReason::Listen);
        assert!(pins.has(PinReason::Load) && !pins.has(PinReason::Prepare));
        let endable: Vec<_> = pins
            .without(Pins::NONE.with(PinReason::Load))
            .iter()
            .collect();
        assert_eq!(endable, [PinReason::Listen]);
        assert!(pins.without(pins).is_empty());
        let never = PinReason::ALL
            .iter()
            .filter(|reason| !Pins::MAY_END.has(**reason));
        assert_eq!(
            never.collect::<Vec<_>>(),
            [
                &PinReason::Load,
                &PinReason::Settings,
                &PinReason::Function,
                &PinReason::Sequence
            ]
        );
    }

    #[test]
    fn words_that_end_pins() {
        for (text, expected) in [
            ("drop table t", true),
            ("Select PG_Advisory_Unlock_All()", true),
            ("do $$ begin execute 'Drop table t'; end $$", true),
            ("UNLISTEN *", true),
            ("deallocate all", true),
            ("discard temp", true),
            ("close c", true),
            ("select 1", false),
            ("insert into t values ('dro')", false),
            ("", false),
        ] {
            assert_eq!(may_end_pin(text.as_bytes()), expected, "{text}");
        }
    }
}
