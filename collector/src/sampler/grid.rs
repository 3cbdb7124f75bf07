//! When a device is due: a grid of ticks that is the same at every start, and the step from one period to another.

use std::time::Duration;

use tokio::time::Instant;

/// The first tick of an address at or after `now`. Each address has its own place in the period, the same at every
/// start, so that a thousand devices are not read at once.
pub(super) fn first_due(origin: Instant, period: Duration, address: &str, now: Instant) -> Instant {
    let period_us = period.as_micros().max(1) as u64;
    let mut due = origin + Duration::from_micros(hash(address) % period_us);
    if due < now {
        let behind = (now - due).as_micros() as u64;
        due += Duration::from_micros(behind.div_ceil(period_us) * period_us);
    }
    due
}

/// From the tick of a device at which its period changes to the next one: never less than the shorter period, never more
/// than the longer. Devices that were spread over a shorter period are spread over the longer one.
pub(super) fn step(before: Duration, period: Duration, address: &str) -> Duration {
    match period.checked_sub(before) {
        Some(longer_by) if !longer_by.is_zero() => {
            before + Duration::from_micros(hash(address) % (longer_by.as_micros() as u64 + 1))
        }
        _ => period,
    }
}

/// FNV-1a: the same at every start.
fn hash(address: &str) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    address.bytes().fold(0xcbf2_9ce4_8422_2325u64, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_between_two_periods_lies_between_them() {
        let millis = Duration::from_millis;
        for address in ["0000:9b:00.0", "0000:1b:00.0", "10.0.0.1:4028"] {
            for (before, period) in [(50, 50), (1000, 100), (100, 1000), (700, 701)] {
                let step = step(millis(before), millis(period), address);
                assert!((millis(before.min(period))..=millis(before.max(period))).contains(&step), "{step:?}");
            }
        }
        let spread: std::collections::BTreeSet<_> =
            (0..100).map(|i| step(millis(100), millis(1000), &format!("10.0.0.{i}:4028"))).collect();
        assert!(spread.len() > 90, "{spread:?}");
    }
}
