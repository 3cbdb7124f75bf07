//! NVIDIA GPUs through NVML, which is loaded by a worker apart from the collector.
//!
//! The `worker` calls NVML, on a thread per GPU; the `supervisor` starts it, asks it over a `pipe` and replaces it. A hung
//! GPU keeps its thread of the worker, a hung worker is replaced, and nothing else of the collector waits for either. Where
//! the config names no program for the worker, as in tests and in the demo, its threads are the collector's own.

mod calls;
mod filler;
mod health;
mod identity;
mod links;
mod memory;
mod pipe;
mod probe;
mod raw;
mod sample;
mod signals;
mod supervisor;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use racklake_schemas::tables::{GPU_HEALTH, GPU_SAMPLE};
use racklake_schemas::{Row, Table, fail_code, row_status};

use crate::config::NvmlConfig;
use crate::health::Health;
use crate::place::locked;
use crate::source::{BoxFuture, BurstSettings, Call, EventSink, Found, Reading, Source, SourceError};
pub use probe::run_probe;
pub(crate) use signals::terminate;
use supervisor::{Host, Supervisor};
use worker::DISCOVERY;
pub use worker::run_worker;

/// Deadline of the health tier: its calls are many, and some are slow.
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);

/// The NVIDIA GPUs of this host.
pub struct NvmlSource {
    config: Mutex<NvmlConfig>,
    supervisor: Arc<Supervisor>,
}

impl Drop for NvmlSource {
    fn drop(&mut self) {
        self.supervisor.end();
    }
}

impl NvmlSource {
    /// A source that has touched nothing yet: a missing library or driver shows in `discover`.
    pub fn new(config: &NvmlConfig, events: EventSink) -> NvmlSource {
        let host = config.worker.clone().map_or(Host::Threads, Host::Process);
        let supervisor = Supervisor::new(host, events);
        supervisor.limit(config.hard_deadline);
        NvmlSource { config: Mutex::new(config.clone()), supervisor }
    }

    /// Takes over other settings; another library is loaded by the next worker.
    pub(crate) fn change(&self, config: &NvmlConfig) {
        self.supervisor.limit(config.hard_deadline);
        *self.config() = config.clone();
    }

    /// Has NVML unloaded, until `resume`.
    pub(crate) fn release(&self) {
        self.supervisor.release();
    }

    /// Has NVML loaded again.
    pub(crate) fn resume(&self) {
        self.supervisor.resume();
    }

    /// Whether NVML is not loaded.
    pub(crate) fn is_let_go(&self) -> bool {
        self.supervisor.is_let_go()
    }

    /// Tells `/healthz` what is no device's trouble.
    pub(crate) fn tell_health(&self, health: Arc<Health>) {
        self.supervisor.tell_health(health);
    }

    fn config(&self) -> MutexGuard<'_, NvmlConfig> {
        locked(&self.config)
    }
}

impl Source for NvmlSource {
    fn name(&self) -> &'static str {
        "nvml"
    }

    fn tiers(&self) -> &'static [&'static Table] {
        const TIERS: [&Table; 2] = [&GPU_SAMPLE, &GPU_HEALTH];
        &TIERS
    }

    fn period(&self, table: &'static Table) -> Duration {
        if *table == GPU_SAMPLE { self.config().period } else { self.config().health_period }
    }

    fn deadline(&self, table: &'static Table) -> Duration {
        if *table == GPU_SAMPLE { self.config().deadline } else { HEALTH_DEADLINE.max(self.config().deadline) }
    }

    fn hard_deadline(&self) -> Option<Duration> {
        Some(self.config().hard_deadline)
    }

    fn burst(&self) -> Option<BurstSettings> {
        let config = self.config();
        Some(BurstSettings { period: config.burst_period, length: config.burst_for })
    }

    fn call_in_progress(&self, address: Option<&str>) -> Option<Call> {
        self.supervisor.call_in_progress(address.unwrap_or(DISCOVERY))
    }

    fn pause(&self) -> Option<&'static str> {
        self.supervisor.is_released().then_some("released")
    }

    fn relisted(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.supervisor.relisted())
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Found>, SourceError>> {
        let NvmlConfig { library, rack, .. } = self.config().clone();
        Box::pin(async move {
            let found = self.supervisor.discover(&library).await?;
            Ok(found.into_iter().map(|found| Found { rack: rack.clone(), ..found }).collect())
        })
    }

    fn read<'a>(&'a self, address: &'a str, table: &'static Table) -> BoxFuture<'a, Reading> {
        Box::pin(self.supervisor.read(address, table))
    }
}

/// The reading of a GPU while no library that knows it is loaded.
fn unreachable(table: &'static Table) -> Reading {
    let mut row = Row::new(table);
    row.fail_all(fail_code::UNREACHABLE);
    row.set_status(row_status::UNREACHABLE);
    Reading { rows: vec![row], lifetime: vec![None], ..Reading::default() }
}
