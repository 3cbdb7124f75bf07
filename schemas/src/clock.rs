//! Wall time: the one place that reads it.
//!
//! Waiting and durations go through tokio or `Instant`; only time stamps come from here. It does not promise to be
//! monotonic: an operator or NTP may step it, and rows say what it said.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds in one second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in one minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds in one day.
pub const DAY: i64 = 86_400 * SECOND;

/// The wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock;

impl Clock {
    /// Microseconds since 1970, UTC.
    #[allow(clippy::disallowed_methods, reason = "this is the clock that the lint points to")]
    pub fn now_us() -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_micros() as i64,
            Err(before) => -(before.duration().as_micros() as i64),
        }
    }
}

/// A step of the clock below this (µs) is not told; slewing stays far below it.
const STEP: i64 = SECOND;

/// Compares the wall clock with the monotonic one.
#[derive(Debug)]
pub struct StepWatch {
    start: Instant,
    offset: i64,
}

impl StepWatch {
    /// A watch that begins now.
    #[allow(clippy::new_without_default, reason = "it begins at a time")]
    pub fn new() -> StepWatch {
        StepWatch { start: Instant::now(), offset: Clock::now_us() }
    }

    /// By how much (µs) the wall clock has moved against the monotonic one since the last call, where that is a step of
    /// more than a second.
    pub fn step(&mut self) -> Option<i64> {
        self.step_at(Clock::now_us(), self.start.elapsed())
    }

    fn step_at(&mut self, wall_us: i64, elapsed: Duration) -> Option<i64> {
        let offset = wall_us - elapsed.as_micros() as i64;
        let step = offset - std::mem::replace(&mut self.offset, offset);
        (step.abs() > STEP).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_clock_is_seen_and_slewing_is_not() {
        let mut watch = StepWatch { start: Instant::now(), offset: 1_000_000 };
        assert_eq!(watch.step_at(2_000_400, Duration::from_secs(1)), None);
        assert_eq!(watch.step_at(9_000_400, Duration::from_secs(2)), Some(6_000_000));
        assert_eq!(watch.step_at(10_000_400, Duration::from_secs(3)), None);
        assert_eq!(watch.step_at(4_000_400, Duration::from_secs(4)), Some(-7_000_000));
    }
}
