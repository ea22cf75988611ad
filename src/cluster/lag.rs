//! How old the data of a standby is, by the proxy's own clock alone.
//!
//! The primary's insert position is sampled all the time. A standby that has replayed a sample's position shows
//! everything that was committed before the sample was asked for; its lag is the age of the newest such sample
//! (routing.md §4.1). That bound holds on an idle primary, while replay is paused, with clocks that differ, and for
//! standbys that the primary does not know of.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Lsn, Position};

/// The primary's position, and when it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the question was sent: everything committed before is at or below the position.
    pub sent: Instant,
    /// The insert position, normalised.
    pub position: Position,
}

/// A standby's lag at the time of the newest sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Everything committed at least this long before the newest sample is visible. What is enforced.
    pub bound: Duration,
    /// The age of the oldest sample that is not visible yet; zero if all are. What is shown.
    pub estimate: Duration,
}

/// Samples of one primary on one timeline, oldest first; positions never decrease.
///
/// Full resolution for a minute, then one a second for ten minutes, then one every ten seconds for a day: about 11,000
/// entries at 20 a second.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    samples: VecDeque<(Instant, Lsn)>,
    since_thinned: usize,
}

const FINE: Duration = Duration::from_secs(60);
const MIDDLE: Duration = Duration::from_secs(600);
const COARSE: Duration = Duration::from_secs(24 * 3600);

/// Thinning looks at every entry, so it is not done for each new one.
const THIN_EVERY: usize = 256;

impl Ring {
    /// Adds a sample. Samples that are older than the newest one are dropped, so is one that goes back.
    pub fn push(&mut self, sent: Instant, lsn: Lsn) {
        let count = self.samples.len();
        if let Some((newest, last)) = self.samples.back()
            && (sent < *newest || lsn < *last)
        {
            return;
        }
        // Of equal positions the first and the last say it all: the last makes the lag of an idle primary small, the
        // first is where the next position's wait begins.
        if count >= 2 && self.samples[count - 1].1 == lsn && self.samples[count - 2].1 == lsn {
            self.samples[count - 1].0 = sent;
        } else {
            self.samples.push_back((sent, lsn));
        }
        self.since_thinned += 1;
        if self.since_thinned >= THIN_EVERY {
            self.since_thinned = 0;
            self.thin(sent);
        }
    }

    /// Forgets everything: another primary, or another timeline.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// The newest sample.
    pub fn newest(&self) -> Option<(Instant, Lsn)> {
        self.samples.back().copied()
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The last `count` samples, oldest first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = (Instant, Lsn)> {
        self.samples
            .range(self.samples.len().saturating_sub(count)..)
            .copied()
    }

    /// The lag of a standby that has replayed up to `replay`; `None` if it has not replayed any sample.
    pub fn lag(&self, replay: Lsn) -> Option<Lag> {
        let (newest, last) = self.newest()?;
        if last <= replay {
            // As nearly always, and there are many samples to look through.
            return Some(Lag {
                bound: Duration::ZERO,
                estimate: Duration::ZERO,
            });
        }
        let visible = self.samples.partition_point(|(_, lsn)| *lsn <= replay);
        let (fresh, _) = self.samples.get(visible.checked_sub(1)?)?;
        let estimate = self
            .samples
            .get(visible)
            .map_or(Duration::ZERO, |(sent, _)| newest - *sent);
        Some(Lag {
            bound: newest - *fresh,
            estimate,
        })
    }

    fn thin(&mut self, now: Instant) {
        let mut kept: VecDeque<(Instant, Lsn)> = VecDeque::with_capacity(self.samples.len());
        for (sent, lsn) in self.samples.drain(..) {
            let age = now - sent;
            let spacing = match age {
                age if age > COARSE => continue,
                age if age > MIDDLE => Duration::from_secs(10),
                age if age > FINE => Duration::from_secs(1),
                _ => Duration::ZERO,
            };
            if kept.back().is_none_or(|(last, _)| sent - *last >= spacing) {
                kept.push_back((sent, lsn));
            }
        }
        self.samples = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Samples as (milliseconds, position); the lag of a standby at `replay` in milliseconds.
    fn check(samples: &[(u64, u64)], replay: u64, expected: Option<(u64, u64)>) {
        let start = Instant::now();
        let mut ring = Ring::default();
        for (at, lsn) in samples {
            ring.push(start + ms(*at), Lsn(*lsn));
        }
        let got = ring.lag(Lsn(replay)).map(|lag| {
            (
                lag.bound.as_millis() as u64,
                lag.estimate.as_millis() as u64,
            )
        });
        assert_eq!(got, expected, "{samples:?} at {replay}");
    }

    #[test]
    fn lag_is_the_age_of_the_newest_visible_sample() {
        check(&[], 10, None);
        check(&[(0, 10)], 9, None);
        check(&[(0, 10)], 10, Some((0, 0)));
        check(&[(0, 10), (50, 20), (100, 30)], 30, Some((0, 0)));
        check(&[(0, 10), (50, 20), (100, 30)], 25, Some((50, 0)));
        check(
            &[(0, 10), (50, 20), (100, 30), (150, 40)],
            20,
            Some((100, 50)),
        );
    }

    #[test]
    fn an_idle_primary_has_no_lag() {
        let samples: Vec<_> = (0..100).map(|i| (i * 50, 10)).collect();
        check(&samples, 10, Some((0, 0)));
        // Paused replay is no lag while nothing newer exists, and counts from the first commit on.
        let mut written = samples.clone();
        written.extend([(5000, 20), (6000, 20)]);
        check(&written, 10, Some((1050, 1000)));
    }

    #[test]
    fn the_ring_is_bounded() {
        let start = Instant::now();
        let mut ring = Ring::default();
        for i in 0..200_000 {
            ring.push(start + ms(50 * i), Lsn(i));
        }
        assert!(
            ring.len() < 1200 + 600 + 9000 + THIN_EVERY,
            "{}",
            ring.len()
        );
        let lag = ring.lag(Lsn(100_000)).expect("a sample is visible");
        assert!(
            lag.bound >= ms(50 * 99_999) && lag.bound <= ms(50 * 99_999) + Duration::from_secs(10),
            "{lag:?}"
        );
    }

    proptest! {
        /// The bound is never below the true age: a commit that is older than it, counted from the newest sample, is
        /// visible.
        #[test]
        fn the_bound_covers_every_invisible_commit(
            steps in proptest::collection::vec((1u64..200, 0u64..50), 1..200),
            replay_share in 0.0f64..1.0,
        ) {
            let start = Instant::now();
            let (mut at, mut lsn) = (0, 0);
            let mut ring = Ring::default();
            let mut commits = Vec::new();
            for (wait, grow) in steps {
                // The commit happens in the middle of the pause, the sample after it.
                if grow > 0 {
                    lsn += grow;
                    commits.push((at + wait / 2, lsn));
                }
                at += wait;
                ring.push(start + ms(at), Lsn(lsn));
            }
            let replay = (lsn as f64 * replay_share) as u64;
            if let Some(lag) = ring.lag(Lsn(replay)) {
                for (when, lsn) in commits {
                    if lsn > replay {
                        prop_assert!(ms(at - when) <= lag.bound, "commit at {when} of {at}: {lag:?}");
                    }
                }
            }
        }
    }
}
