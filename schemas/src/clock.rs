//! Wall time: the one place that reads it.
//!
//! Waiting and durations go through tokio or `Instant`; only time stamps come from here. It does not promise to be
//! monotonic: an operator or NTP may step it, and rows say what it said.

use std::time::{SystemTime, UNIX_EPOCH};

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
