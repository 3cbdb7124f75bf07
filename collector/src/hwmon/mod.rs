//! Sensors of the host through the kernel's hwmon: temperatures, voltages, fans, power, one row for each.
//!
//! One read is a round through all sensors on a thread beside; a sensor whose driver hangs costs itself alone (`crew`).
//! Sensors are looked for once a minute. It reads below a root path, so that a tree of files can stand in for a host.

mod chips;
mod crew;
mod host;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use racklake_schemas::tables::HOST_SENSOR_SAMPLE;
use racklake_schemas::{Cell, Row, Table};

use crate::config::HwmonConfig;
use crate::place::locked;
use crate::source::{BoxFuture, Found, Reading, Source, SourceError};
use crate::sysfs;
use chips::{Kind, Sensor};
use crew::{Crew, Job};
use reading::Limits;

/// How long one sensor may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a round may take; sensors that were not reached by then are stale.
const ROUND_MAX: Duration = Duration::from_secs(5);

/// The sensors of this host.
pub struct HwmonSource {
    config: Mutex<HwmonConfig>,
    /// Address of the one device: the node's name.
    node: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    sensors: Mutex<Vec<Sensor>>,
    limits: Mutex<BTreeMap<String, Limits>>,
    crew: Crew,
}

impl HwmonSource {
    /// A source that has touched nothing yet. `node` is the host's name, which stands for its id where it has no other.
    pub fn new(config: &HwmonConfig, node: &str) -> HwmonSource {
        HwmonSource { config: Mutex::new(config.clone()), node: node.to_owned(), state: Arc::default() }
    }

    /// Takes over another period.
    pub(crate) fn change(&self, config: &HwmonConfig) {
        locked(&self.config).period = config.period;
    }

    fn root(&self) -> PathBuf {
        locked(&self.config).root.clone()
    }
}

impl Source for HwmonSource {
    fn name(&self) -> &'static str {
        "hwmon"
    }

    fn tiers(&self) -> &'static [&'static Table] {
        const TIERS: [&Table; 1] = [&HOST_SENSOR_SAMPLE];
        &TIERS
    }

    fn period(&self, _table: &'static Table) -> Duration {
        locked(&self.config).period
    }

    fn deadline(&self, _table: &'static Table) -> Duration {
        // A round ends before it, so that every stale row says of which sensor it is.
        2 * ROUND_MAX
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Found>, SourceError>> {
        let (root, state, address) = (self.root(), Arc::clone(&self.state), self.node.clone());
        Box::pin(async move {
            let searched = sysfs::on_a_thread("hwmon", move || {
                let sensors = chips::find(&root);
                let mut known = locked(&state.sensors);
                // One that was there is read on: that it no longer answers is worth a row.
                let gone = known.extract_if(.., |old| !sensors.iter().any(|new| new.name == old.name));
                let gone: Vec<Sensor> = gone.collect();
                *known = sensors;
                known.extend(gone);
                known.sort_by(|a, b| a.name.cmp(&b.name));
                (!known.is_empty()).then(|| host::read(&root))
            });
            let identity = searched.await?;
            Ok(identity.map(|identity| Found { address, rack: None, identity: Some(identity) }).into_iter().collect())
        })
    }

    fn read<'a>(&'a self, _address: &'a str, _table: &'static Table) -> BoxFuture<'a, Reading> {
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            let rows = sysfs::on_a_thread("hwmon", move || state.round()).await.unwrap_or_else(|error| {
                tracing::error!("{error}");
                Vec::new()
            });
            let lifetime = rows.iter().filter_map(energy).collect();
            Reading { rows, lifetime, ..Reading::default() }
        })
    }
}

impl State {
    /// Reads every sensor once.
    fn round(&self) -> Vec<Row> {
        let sensors = locked(&self.sensors).clone();
        let mut limits = locked(&self.limits).clone();
        let jobs = sensors.iter().map(|sensor| {
            let (name, sensor, known) = (sensor.name.clone(), sensor.clone(), limits.remove(&sensor.name));
            let job: Job<(Row, Option<Limits>)> = (name, Box::new(move || reading::read(&sensor, known)));
            job
        });
        let mut done = self.crew.work(jobs.collect(), PATIENCE, ROUND_MAX);
        let row = |sensor: &Sensor| match done.remove(&sensor.name) {
            Some((row, limits)) => {
                if let Some(limits) = limits {
                    locked(&self.limits).insert(sensor.name.clone(), limits);
                }
                row
            }
            None => reading::stale_row(sensor),
        };
        sensors.iter().map(row).collect()
    }
}

/// The counter of a row that is about energy; its fall is a new session.
fn energy(row: &Row) -> Option<Option<i64>> {
    let is_counter = matches!(row.cell(racklake_schemas::tables::host_sensor_sample::SENSOR_KIND),
        Cell::Text(kind) if kind == Kind::Energy.name());
    is_counter.then(|| match row.cell(reading::column_of(Kind::Energy)) {
        Cell::I64(value) => Some(*value),
        _ => None,
    })
}
