//! Keeps the lake in order in the background of ingest: seals, expires, sweeps, writes no row.
//!
//! The owner of partition 0 of a table's topic does this for the table. That two believe to own it for a while does no
//! harm: whatever is done here is refused by the lake where another was quicker. One table is worked on at a time, on one
//! thread for work that blocks; the loop neither waits for it nor knows of it. A stop interrupts it between two batches
//! of rows, and what was merged so far is thrown away.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use racklake_schemas::Table;
use racklake_schemas::clock::Clock;
use racklake_storage::{Lake, Seal, Sealed, StorageError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::{Topics, UpkeepConfig};
use crate::health::Health;
use crate::lake_tool::seal_name;
use crate::own_events::{OwnEvent, OwnEvents};

/// How often a table is looked through for what has expired or can be swept.
const SWEEP_PERIOD: Duration = Duration::from_secs(6 * 3600);
/// How long a seal that cannot be made is left alone.
const LEAVE_ALONE: Duration = Duration::from_secs(3600);

/// Which tables this process looks after: by the index of their topic.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owned(Arc<Mutex<BTreeSet<usize>>>);

/// What looks after the tables.
pub(crate) struct Upkeep {
    config: UpkeepConfig,
    lake: Lake,
    topics: Topics,
    owned: Owned,
    events: OwnEvents,
    health: Health,
    /// When a table was swept last, by the index of its topic.
    swept: BTreeMap<usize, Instant>,
    /// Seals that cannot be made, and since when.
    left: BTreeMap<String, Instant>,
}

/// What was done to a table, on a thread that blocks.
#[derive(Default)]
struct Done {
    /// Seals that found a row twice, and its key.
    repeated: Vec<(Seal, String)>,
    /// Seals that failed.
    failed: Vec<(Seal, StorageError)>,
}

impl Owned {
    /// Takes a table up, or gives it up.
    pub(crate) fn set(&self, topic: usize, is_owned: bool) {
        let mut owned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_owned {
            owned.insert(topic)
        } else {
            owned.remove(&topic)
        };
    }

    fn all(&self) -> BTreeSet<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Upkeep {
    pub(crate) fn new(
        config: UpkeepConfig,
        lake: Lake,
        topics: Topics,
        owned: Owned,
        events: OwnEvents,
        health: Health,
    ) -> Upkeep {
        Upkeep { config, lake, topics, owned, events, health, swept: BTreeMap::new(), left: BTreeMap::new() }
    }

    /// Looks after the owned tables, again and again, until it is told to stop.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        if !self.config.enabled {
            return;
        }
        while shutdown.run_until_cancelled(tokio::time::sleep(self.config.period)).await.is_some() {
            self.left.retain(|_, since| since.elapsed() < LEAVE_ALONE);
            for topic in self.owned.all() {
                if shutdown.is_cancelled() {
                    return;
                }
                self.tend(topic, &shutdown).await;
            }
        }
    }

    /// Does what is to be done for one table.
    async fn tend(&mut self, topic: usize, shutdown: &CancellationToken) {
        let Some(table) = self.topics.get(topic).map(|topic| topic.table) else { return };
        let (lake, config, left) = (self.lake.clone(), self.config.clone(), self.left.keys().cloned().collect());
        let is_due = self.swept.get(&topic).is_none_or(|swept| swept.elapsed() >= SWEEP_PERIOD);
        let stop = shutdown.clone();
        let work = move || {
            let mut done = Done::default();
            let result = seal(&lake, table, &config, &left, &stop, &mut done).and_then(|()| {
                if is_due && !stop.is_cancelled() { sweep(&lake, table, &config, &stop) } else { Ok(()) }
            });
            (done, result)
        };
        let what = format!("upkeep {}", table.name);
        let (done, result) = match tokio::task::spawn_blocking(work).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(table = table.name, %error, "upkeep ended early");
                return;
            }
        };
        self.tell(table, &done);
        match result {
            Ok(()) if self.left.keys().any(|name| name.starts_with(&format!("{} ", table.name))) => {}
            Ok(()) => self.health.clear(&what),
            Err(error) if shutdown.is_cancelled() => tracing::debug!(table = table.name, %error, "upkeep was stopped"),
            Err(error) => {
                tracing::warn!(table = table.name, %error, "upkeep failed; it is tried again");
                // What passes by itself is told by the flushes, which meet it too.
                if matches!(error, StorageError::Stop { .. }) {
                    self.health.set(&what, error.to_string());
                }
            }
        }
        if is_due {
            self.swept.insert(topic, Instant::now());
        }
        for (seal, error) in &done.failed {
            if matches!(error, StorageError::Stop { .. }) {
                self.health.set(&what, error.to_string());
                self.left.insert(seal_name(table, seal), Instant::now());
            }
        }
    }

    fn tell(&mut self, table: &'static Table, done: &Done) {
        for (seal, error) in &done.failed {
            tracing::warn!(seal = seal_name(table, seal), %error, "not sealed");
        }
        for (seal, key) in &done.repeated {
            let name = seal_name(table, seal);
            self.left.insert(name.clone(), Instant::now());
            self.events.tell(OwnEvent {
                event: "seal_row_repeated",
                severity: "error",
                message: format!("An hour is not sealed because a row of it is in the lake twice: {name}"),
                details: json!({"table": table.name, "site": seal.site(), "day": seal.day(), "hour": seal.hour(),
                    "key": key}),
            });
        }
    }
}

/// Seals what is quiet.
fn seal(
    lake: &Lake,
    table: &'static Table,
    config: &UpkeepConfig,
    left: &BTreeSet<String>,
    stop: &CancellationToken,
    done: &mut Done,
) -> Result<(), StorageError> {
    let mut opened = lake.table(table)?;
    let watch = |_| if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    for seal in opened.plan_seals(&config.rules(), Clock::now_us())? {
        let name = seal_name(table, &seal);
        if left.contains(&name) {
            continue;
        }
        if stop.is_cancelled() {
            return Ok(());
        }
        match opened.seal(&seal, &watch) {
            Ok(Sealed::Committed { version, bytes, .. }) => tracing::info!(seal = name, version, bytes, "sealed"),
            Ok(Sealed::Abandoned) => tracing::debug!(seal = name, "another has changed its files"),
            Ok(Sealed::Repeated { key }) => done.repeated.push((seal, key)),
            Err(error) => done.failed.push((seal, error)),
        }
    }
    Ok(())
}

/// Removes days that are past their age, files that no version wants, and what the log does not need.
fn sweep(
    lake: &Lake,
    table: &'static Table,
    config: &UpkeepConfig,
    stop: &CancellationToken,
) -> Result<(), StorageError> {
    let days = config.retention_of(table).as_secs() / (24 * 3600);
    let mut opened = lake.table(table)?;
    if let Some(floor) = opened.floor(i32::try_from(days).unwrap_or(i32::MAX))?
        && let Some(expired) = opened.expire(floor, &|_| ())?
    {
        let (version, files, rows) = (expired.version, expired.files, expired.rows);
        tracing::info!(table = table.name, version, files, rows, "expired");
    }
    let watch = || if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    for swept in [lake.vacuum(table, config.vacuum_age, false, &watch)?, lake.clean_log(table, config.log_age, false)?]
    {
        if !swept.files.is_empty() {
            tracing::info!(table = table.name, files = swept.files.len(), bytes = swept.bytes(), "swept");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use racklake_schemas::clock::DAY;

    use super::*;
    use crate::config::Config;
    use crate::dead_letter::DeadLetters;
    use crate::lake_tool::tests::{event_files, lake_with_event_at};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_is_sealed_by_whoever_owns_its_first_partition_and_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        lake_with_event_at(folder.path(), 1, Clock::now_us() - 2 * DAY).await;
        let mut config = Config::new("127.0.0.1:1", folder.path().display().to_string());
        config.upkeep.period = Duration::from_millis(20);
        let start = |config: &Config, owned: &Owned| {
            let lake = Lake::open(&config.lake.location, &BTreeMap::new()).unwrap();
            let (events, _outbox) = OwnEvents::new(config, DeadLetters::new(config).unwrap());
            let (topics, health) = (config.topics(), Health::default());
            let shutdown = CancellationToken::new();
            let upkeep = Upkeep::new(config.upkeep.clone(), lake, topics, owned.clone(), events, health);
            (tokio::spawn(upkeep.run(shutdown.clone())), shutdown)
        };
        let index = config.topics().iter().position(|topic| topic.table.name == "event").unwrap();
        let owned = Owned::default();
        owned.set(index, true);

        // Switched off it does nothing.
        let mut off = config.clone();
        off.upkeep.enabled = false;
        start(&off, &owned).0.await.unwrap();
        owned.set(index, false);
        let (running, shutdown) = start(&config, &owned);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(event_files(folder.path()), (1, 0), "it is not ours");
        owned.set(index, true);
        let sealed = async {
            while event_files(folder.path()).1 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), sealed).await.unwrap();
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
        assert_eq!(event_files(folder.path()), (1, 1), "what was merged waits for the vacuum");
    }
}
