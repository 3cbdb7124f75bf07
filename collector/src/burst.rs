//! A closer look: after an event a device is read more often for a while.
//!
//! Whoever tells an event of a device rings its bell, wherever the event comes from, and the device's sampler hears it. One
//! event follows another on a device that fails, so a burst goes on from event to event, but never for longer than five
//! times its length; then the device has as long a rest as the burst took.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::place::locked;
use crate::source::{BurstSettings, EventDraft};

/// A burst that goes on from event to event lasts this many times its length at most.
const LENGTHS_MAX: u32 = 5;

/// Events that a burst follows; of an episode, its start.
const BEGUN_BY: [&str; 13] = [
    "xid",
    "gpu_fell_off_the_bus",
    "nvml_event",
    "throttled",
    "ecc_uncorrected",
    "ecc_corrected",
    "sram_threshold_exceeded",
    "rows_remapped",
    "remap_pending",
    "remap_failed",
    "remap_rows_used_up",
    "pages_retired",
    "recovery_action",
];
/// Episodes whose end a burst follows: the device is back.
const BEGUN_BY_END: [&str; 2] = ["device_returned", "gpu_stalled"];

/// Whether a device is to be looked at more closely after this event. What only informs does not count: a GPU at its power
/// limit is no reason.
pub(crate) fn calls_for_a_burst(draft: &EventDraft) -> bool {
    match draft.phase {
        Some("end") => BEGUN_BY_END.contains(&draft.event),
        _ => BEGUN_BY.contains(&draft.event) && (draft.severity != "info" || draft.phase.is_none()),
    }
}

/// One bell per device that is sampled.
#[derive(Debug, Default)]
pub(crate) struct Bells(Mutex<BTreeMap<String, Arc<Notify>>>);

impl Bells {
    /// The bell of a device.
    pub(crate) fn of(&self, device_id: &str) -> Arc<Notify> {
        let mut bells = locked(&self.0);
        // Bells that nobody hears any more.
        bells.retain(|_, bell| Arc::strong_count(bell) > 1);
        Arc::clone(bells.entry(device_id.to_owned()).or_default())
    }

    /// Something has happened to a device; a sampler that is busy hears it afterwards.
    pub(crate) fn ring(&self, device_id: &str) {
        if let Some(bell) = locked(&self.0).get(device_id) {
            bell.notify_one();
        }
    }
}

/// The bursts of one device.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    /// Beginning and end of the last one.
    last: Option<(Instant, Instant)>,
}

impl Burst {
    /// An event has come. Says whether a burst has begun with it.
    pub(crate) fn rung(&mut self, settings: BurstSettings, now: Instant) -> bool {
        let was_on = self.is_on(now);
        let began = match self.last {
            Some((began, until)) if now < until + (until - began) => began,
            _ => now,
        };
        let until = (now + settings.length).min(began + settings.length * LENGTHS_MAX);
        self.last = Some((began, until));
        !was_on && self.is_on(now)
    }

    /// Whether the device is in a burst.
    pub(crate) fn is_on(&self, now: Instant) -> bool {
        self.last.is_some_and(|(_, until)| now < until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::own;

    const MINUTE: BurstSettings = BurstSettings { period: Duration::from_millis(100), length: Duration::from_secs(60) };

    fn seconds_on(rings: impl Fn(u64) -> bool, seconds: u64) -> u64 {
        let (start, mut burst) = (Instant::now(), Burst::default());
        let at = |second| start + Duration::from_secs(second);
        let on = |burst: &mut Burst, second: u64| {
            if rings(second) {
                burst.rung(MINUTE, at(second));
            }
            burst.is_on(at(second))
        };
        (0..seconds).filter(|second| on(&mut burst, *second)).count() as u64
    }

    #[test]
    fn a_burst_lasts_its_length_after_the_last_event() {
        assert_eq!(seconds_on(|second| second == 0, 1000), 60);
        assert_eq!(seconds_on(|second| [0, 30, 59].contains(&second), 1000), 119);
        // Long after it is another one.
        assert_eq!(seconds_on(|second| [0, 500].contains(&second), 1000), 120);
    }

    #[test]
    fn a_device_that_never_stops_failing_is_in_bursts_half_of_the_time_at_most() {
        assert_eq!(seconds_on(|_| true, 600), 300);
        assert_eq!(seconds_on(|_| true, 6000), 3000);
        let often = seconds_on(|second| second % 61 == 0, 6000);
        assert!((2500..=3300).contains(&often), "{often}");
    }

    #[test]
    fn a_length_of_zero_is_no_burst() {
        let settings = BurstSettings { length: Duration::ZERO, ..MINUTE };
        let (now, mut burst) = (Instant::now(), Burst::default());
        assert!(!burst.rung(settings, now) && !burst.is_on(now));
    }

    #[test]
    fn what_only_informs_begins_no_burst() {
        let phase = |event, severity, phase| EventDraft { phase, ..own(event, severity, "") };
        assert!(calls_for_a_burst(&phase("throttled", "warning", Some("start"))));
        assert!(!calls_for_a_burst(&phase("throttled", "info", Some("start"))));
        assert!(!calls_for_a_burst(&phase("throttled", "info", Some("end"))));
        assert!(calls_for_a_burst(&phase("device_returned", "info", Some("end"))));
        assert!(!calls_for_a_burst(&phase("device_lost", "critical", Some("start"))));
        assert!(!calls_for_a_burst(&phase("collector_start", "info", None)));
    }

    #[tokio::test]
    async fn a_bell_that_nobody_has_is_silent_and_one_that_rang_before_is_heard() {
        let bells = Bells::default();
        bells.ring("a");
        let bell = bells.of("a");
        bells.ring("a");
        bells.ring("b");
        bell.notified().await;
        drop(bell);
        bells.of("b");
        assert_eq!(locked(&bells.0).len(), 1);
    }
}
