//! What has to be done from time to time: coverage of finished minutes, saving what must be remembered, watching the
//! clock.
//!
//! None of it is urgent; a second late is on time.

use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::clock::{Clock, SECOND, StepWatch};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::coverage::minute_of;
use crate::device_registry::Devices;
use crate::event::{detailed, own};
use crate::health::Health;
use crate::outlet::Outlet;
use crate::state::StateFolder;

/// A minute is told this long (µs) after its end, so that most reads that were due in it have returned.
const COVERAGE_GRACE: i64 = 3 * SECOND;
/// Ids and sessions are saved this many seconds after a change at most, counters this many.
const SAVE_IDENTITIES: u64 = 2;
const SAVE_COUNTERS: u64 = 30;

/// The one who does it.
pub(crate) struct Housekeeping {
    outlet: Arc<Outlet>,
    devices: Arc<Devices>,
    health: Arc<Health>,
    folder: Arc<StateFolder>,
    save_failed: bool,
}

impl Housekeeping {
    pub(crate) fn new(
        outlet: Arc<Outlet>,
        devices: Arc<Devices>,
        health: Arc<Health>,
        folder: StateFolder,
    ) -> Housekeeping {
        Housekeeping { outlet, devices, health, folder: Arc::new(folder), save_failed: false }
    }

    /// Keeps house until `stop`, and saves once more then.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        every_second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut minute = minute_of(Clock::now_us());
        let mut clock = StepWatch::new();
        for second in 0u64.. {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = every_second.tick() => {}
            }
            let finished = minute_of(Clock::now_us() - COVERAGE_GRACE);
            if finished != minute {
                minute = finished;
                self.outlet.tell_coverage(Some(finished));
            }
            if let Some(step_us) = clock.step() {
                let message = format!("the wall clock has stepped by {:.3} s", step_us as f64 / 1e6);
                self.outlet.event(detailed("clock_stepped", "warning", message, &json!({"step_us": step_us})), None);
            }
            if second.is_multiple_of(SAVE_IDENTITIES) {
                self.save(second.is_multiple_of(SAVE_COUNTERS)).await;
            }
        }
        self.save(true).await;
    }

    async fn save(&mut self, with_counters: bool) {
        let Some(devices) = self.devices.unsaved(with_counters) else { return };
        let folder = Arc::clone(&self.folder);
        let saved = tokio::task::spawn_blocking(move || folder.save(&devices)).await;
        match saved.map_err(anyhow::Error::from).and_then(|result| result) {
            Ok(()) => {
                self.health.works("state_dir");
                self.save_failed = false;
            }
            Err(error) => {
                self.devices.not_saved();
                let reason = format!("{error:#}");
                self.health.fails("state_dir", &reason);
                if !std::mem::replace(&mut self.save_failed, true) {
                    self.outlet.event(own("state_not_saved", "error", reason), None);
                }
            }
        }
    }
}
