//! Whether anybody needs to know how the nodes are: without clients they are asked less often.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Clients that send nothing for so long are quiet.
const QUIET: Duration = Duration::from_secs(1);
/// How often it is looked whether they have sent anything: the first that sends afterwards writes what all workers read.
const PACE: Duration = Duration::from_millis(250);

/// Something has come since the last look.
const FLOWS: u8 = 0;
/// Nothing has.
const STILL: u8 = 1;
/// Nothing has for a while, and whoever comes next is to say so.
const RESTS: u8 = 2;

/// What the clients of a cluster do: sessions note it, the monitor looks at it.
#[derive(Debug, Default)]
pub struct Traffic {
    state: AtomicU8,
    came: Notify,
}

impl Traffic {
    /// A client has sent something. One load, unless it is the first after a look.
    #[inline]
    pub fn note(&self) {
        if self.state.load(Ordering::Relaxed) != FLOWS {
            self.flows();
        }
    }

    #[cold]
    fn flows(&self) {
        if self.state.swap(FLOWS, Ordering::AcqRel) == RESTS {
            self.came.notify_waiters();
        }
    }

    /// Whether anything has come since the last look.
    fn look(&self) -> bool {
        let seen = self
            .state
            .compare_exchange(FLOWS, STILL, Ordering::AcqRel, Ordering::Relaxed);
        seen.is_ok()
    }

    /// Has the next that comes say so. False if it has just come.
    fn rest(&self) -> bool {
        let seen = self
            .state
            .compare_exchange(STILL, RESTS, Ordering::AcqRel, Ordering::Relaxed);
        matches!(seen, Ok(_) | Err(RESTS))
    }

    /// Ends when a client comes while the monitor rests. What comes after the call counts, polled or not.
    pub(super) fn came(&self) -> Notified<'_> {
        self.came.notified()
    }
}

/// The monitor's side: since when they have been quiet.
#[derive(Debug)]
pub(super) struct Quiet {
    looked: Instant,
    flowed: Instant,
}

impl Quiet {
    /// Clients may be coming.
    pub(super) fn new(now: Instant) -> Quiet {
        Quiet {
            looked: now,
            flowed: now,
        }
    }

    /// Whether nobody has sent anything for a while, by now: then whoever does ends [`Traffic::came`].
    pub(super) fn is(&mut self, traffic: &Traffic, now: Instant) -> bool {
        if now >= self.looked + PACE {
            self.looked = now;
            if traffic.look() {
                self.flowed = now;
            }
        }
        now >= self.flowed + QUIET && traffic.rest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_while_it_rests_is_heard() {
        let (traffic, start) = (Traffic::default(), Instant::now());
        let mut quiet = Quiet::new(start);
        let ms = Duration::from_millis;
        for at in [0, 250, 500, 1_000, 1_249] {
            assert!(!quiet.is(&traffic, start + ms(at)), "{at} ms");
        }
        assert!(
            quiet.is(&traffic, start + ms(1_250)),
            "since the first look"
        );
        assert!(quiet.is(&traffic, start + ms(9_000)));
        let came = traffic.came();
        traffic.note();
        came.await;
        assert!(!quiet.is(&traffic, start + ms(9_001)), "not looked yet");
        assert!(!quiet.is(&traffic, start + ms(9_250)));
        traffic.note();
        assert!(!quiet.is(&traffic, start + ms(10_249)));
        assert!(!quiet.is(&traffic, start + ms(10_260)), "it came before");
        assert!(!quiet.is(&traffic, start + ms(11_248)));
        assert!(quiet.is(&traffic, start + ms(11_249)));
    }
}
