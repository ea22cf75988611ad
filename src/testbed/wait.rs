//! Waiting for something to come true, never for longer than a bound.

use std::thread;
use std::time::{Duration, Instant};

use super::Error;

/// Asks `condition` again and again until it answers `true`; `what` names it in the error.
///
/// The condition is asked at least twice, the last time at or after the limit, so a slow machine cannot
/// make a condition that holds look as if it did not.
///
/// # Errors
/// [`Error::Timeout`] when `limit` has passed; whatever the condition itself fails with.
#[expect(
    clippy::disallowed_methods,
    reason = "another process is waited for, and it rings no bell"
)]
pub fn wait_for(
    mut condition: impl FnMut() -> Result<bool, Error>,
    limit: Duration,
    what: &str,
) -> Result<(), Error> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if condition()? {
            return Ok(());
        }
        thread::sleep(INTERVAL.min(limit));
    }
    match condition()? {
        true => Ok(()),
        false => Err(Error::Timeout {
            what: what.to_owned(),
            limit,
        }),
    }
}

/// Short beside the tens of milliseconds that a server needs to start or to fork, long beside the cost
/// of asking.
const INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut asked = 0;
        let condition = || {
            asked += 1;
            Ok(asked == 3)
        };
        wait_for(condition, Duration::from_secs(10), "the third question").unwrap();
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_condition_that_stays_false_is_named_in_the_error() {
        let error = wait_for(|| Ok(false), Duration::from_millis(15), "a miracle").unwrap_err();
        assert_eq!(error.to_string(), "waited 15ms in vain for a miracle");
    }
}
