//! NVIDIA GPUs through NVML: finds them, and reads each on a thread of its own.
//!
//! A call into NVML may take seconds or never return, and the driver is to blame for that, so no call is made on a thread
//! that anything else waits for: one thread per GPU serves its reads, one waits for events, and discovery has its own.
//! A hung GPU keeps its thread; the others go on. Requests and replies are plain values, so that the threads can move to
//! a process of their own without a change here.

mod events;
mod gpu;
mod identity;
mod library;
mod raw;
mod sample;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use racklake_schemas::tables::GPU_SAMPLE;
use racklake_schemas::{Row, Table, fail_code, row_status};
use tokio::sync::oneshot;

use crate::config::NvmlConfig;
use crate::source::{BoxFuture, EventSink, Found, Reading, Source, SourceError};
use gpu::Gpu;
use library::Library;
use raw::Handle;

/// Deadline of the health tier: its calls are many, and some are slow.
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);
/// How long discovery waits for GPUs to say who they are; a hung one is known by its address meanwhile.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(3);
/// How long a library that no longer answers may take to be unloaded; more than one wait for events.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// The NVIDIA GPUs of this host.
pub struct NvmlSource {
    config: Mutex<NvmlConfig>,
    events: EventSink,
    loaded: Arc<Mutex<Option<Loaded>>>,
}

/// The library in use and what was found with it.
struct Loaded {
    library: Arc<Library>,
    /// PCI address and handle of each index that has told them.
    handles: BTreeMap<u32, (String, Handle)>,
    gpus: BTreeMap<String, Gpu>,
    stop_events: Arc<AtomicBool>,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.stop_events.store(true, Ordering::Relaxed);
    }
}

impl NvmlSource {
    /// A source that has touched nothing yet: a missing library or driver shows in `discover`.
    pub fn new(config: &NvmlConfig, events: EventSink) -> NvmlSource {
        NvmlSource { config: Mutex::new(config.clone()), events, loaded: Arc::default() }
    }

    /// Takes over other settings; another library is loaded when the one in use no longer answers.
    pub(crate) fn change(&self, config: &NvmlConfig) {
        *self.config() = config.clone();
    }

    fn config(&self) -> MutexGuard<'_, NvmlConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for NvmlSource {
    fn name(&self) -> &'static str {
        "nvml"
    }

    fn tiers(&self) -> &'static [&'static Table] {
        const TIERS: [&Table; 1] = [&GPU_SAMPLE];
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

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Found>, SourceError>> {
        let (config, events, loaded) = (self.config().clone(), self.events.clone(), Arc::clone(&self.loaded));
        let rack = config.rack.clone();
        Box::pin(async move {
            let gpus = list_on_a_thread(config, events, loaded).await?;
            // All are asked before any is waited for: a hung one costs the others nothing.
            let asked: Vec<_> = gpus.iter().map(Gpu::ask_identity).collect();
            let until = tokio::time::Instant::now() + IDENTITY_PATIENCE;
            let mut found = Vec::with_capacity(gpus.len());
            for (gpu, asked) in gpus.into_iter().zip(asked) {
                let identity = match asked {
                    Some(answer) => tokio::time::timeout_at(until, answer).await.ok().and_then(Result::ok),
                    None => None,
                };
                found.push(Found { address: gpu.address, rack: rack.clone(), identity });
            }
            Ok(found)
        })
    }

    fn read<'a>(&'a self, address: &'a str, _table: &'static Table) -> BoxFuture<'a, Reading> {
        let gpu = lock(&self.loaded).as_ref().and_then(|loaded| loaded.gpus.get(address).cloned());
        Box::pin(async move {
            let reading = match gpu {
                Some(gpu) => gpu.read().await,
                None => None,
            };
            reading.unwrap_or_else(unreachable)
        })
    }
}

fn lock(loaded: &Mutex<Option<Loaded>>) -> MutexGuard<'_, Option<Loaded>> {
    loaded.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lists the GPUs on a thread that nobody joins: one that hangs in the driver must not keep the collector from ending.
async fn list_on_a_thread(
    config: NvmlConfig,
    events: EventSink,
    loaded: Arc<Mutex<Option<Loaded>>>,
) -> Result<Vec<Gpu>, SourceError> {
    let (reply, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name("nvml discovery".to_owned());
    // Whoever asked may be gone, at a stop; then nobody misses the answer.
    let spawned = thread.spawn(move || drop(reply.send(list(&config, &events, &loaded))));
    spawned.map_err(|error| failure(format!("listing GPUs gets no thread: {error}"), None))?;
    answer.await.map_err(|_| failure("listing GPUs ended without an answer".to_owned(), None))?
}

/// The GPUs there are now. Loads the library at first and again whenever the one in use no longer answers, since a driver
/// that was replaced answers only to its own library. A GPU once found stays listed until then: its thread says how it is.
fn list(config: &NvmlConfig, events: &EventSink, loaded: &Mutex<Option<Loaded>>) -> Result<Vec<Gpu>, SourceError> {
    let in_use = lock(loaded).as_ref().map(|loaded| (Arc::clone(&loaded.library), loaded.handles.clone()));
    let (library, mut handles) = match in_use {
        Some((library, handles)) if library.count().is_ok() => (library, handles),
        in_use => {
            drop(in_use);
            release(loaded);
            (Arc::new(Library::load(&config.library)?), BTreeMap::new())
        }
    };
    let known = handles.len();
    library.find(&mut handles)?;
    let mut loaded = lock(loaded);
    let now = loaded.get_or_insert_with(|| Loaded {
        library: Arc::clone(&library),
        handles: BTreeMap::new(),
        gpus: BTreeMap::new(),
        stop_events: Arc::default(),
    });
    if handles.len() > known {
        for (address, handle) in handles.values() {
            let spawn = || Gpu::spawn(Arc::clone(&library), address.clone(), *handle);
            now.gpus.entry(address.clone()).or_insert_with(spawn);
        }
        now.stop_events.store(true, Ordering::Relaxed);
        now.stop_events = events::watch(&library, handles.values().cloned().collect(), events.clone());
        now.handles = handles;
    }
    Ok(now.gpus.values().cloned().collect())
}

/// Lets go of the library in use and waits a moment until it is unloaded: while it is open, the new one would only join it,
/// and an open handle keeps the old driver from being unloaded. A thread that is stuck in it keeps it open.
fn release(loaded: &Mutex<Option<Loaded>>) {
    let Some(old) = lock(loaded).take() else { return };
    let library = Arc::downgrade(&old.library);
    drop(old);
    let until = Instant::now() + RELEASE_PATIENCE;
    while library.strong_count() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    if library.strong_count() > 0 {
        tracing::warn!(
            "a call into NVML has not come back; the library stays loaded beside the one that is loaded now"
        );
    }
}

/// The reading of a GPU while no library that knows it is loaded.
fn unreachable() -> Reading {
    let mut row = Row::new(&GPU_SAMPLE);
    row.fail_all(fail_code::UNREACHABLE);
    row.set_status(row_status::UNREACHABLE);
    Reading { rows: vec![row], lifetime: vec![None], ..Reading::default() }
}

fn failure(message: String, code: Option<i64>) -> SourceError {
    SourceError { message, code }
}
