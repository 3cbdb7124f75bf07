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
use std::time::Duration;

use racklake_schemas::tables::GPU_SAMPLE;
use racklake_schemas::{Row, Table, row_status};

use crate::config::NvmlConfig;
use crate::source::{BoxFuture, EventSink, Found, Reading, Source, SourceError};
use gpu::Gpu;
use library::Library;

/// The NVIDIA GPUs of this host.
pub struct NvmlSource {
    config: NvmlConfig,
    events: EventSink,
    loaded: Arc<Mutex<Option<Loaded>>>,
}

/// The library in use and what was found with it.
struct Loaded {
    library: Arc<Library>,
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
        NvmlSource { config: config.clone(), events, loaded: Arc::default() }
    }
}

impl Source for NvmlSource {
    fn name(&self) -> &'static str {
        "nvml"
    }

    fn table(&self) -> &'static Table {
        &GPU_SAMPLE
    }

    fn period(&self) -> Duration {
        self.config.period
    }

    fn deadline(&self) -> Duration {
        self.config.deadline
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Found>, SourceError>> {
        let (config, events, loaded) = (self.config.clone(), self.events.clone(), Arc::clone(&self.loaded));
        Box::pin(async move {
            let listing = tokio::task::spawn_blocking(move || list(&config, &events, &loaded));
            let gpus = listing.await.map_err(|error| failure(format!("listing GPUs ended: {error}"), None))??;
            let mut found = Vec::with_capacity(gpus.len());
            for gpu in gpus {
                found.push(Found {
                    address: gpu.address.clone(),
                    rack: self.config.rack.clone(),
                    identity: gpu.identity().await,
                });
            }
            Ok(found)
        })
    }

    fn read<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Reading> {
        let gpu = lock(&self.loaded).as_ref().and_then(|loaded| loaded.gpus.get(address).cloned());
        Box::pin(async move {
            let reading = match gpu {
                Some(gpu) => gpu.read().await,
                None => None,
            };
            reading.unwrap_or_else(lost)
        })
    }
}

fn lock(loaded: &Mutex<Option<Loaded>>) -> MutexGuard<'_, Option<Loaded>> {
    loaded.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The GPUs there are now. Loads the library at first and again whenever the one in use no longer answers, since a driver
/// that was replaced answers only to its own library.
fn list(config: &NvmlConfig, events: &EventSink, loaded: &Mutex<Option<Loaded>>) -> Result<Vec<Gpu>, SourceError> {
    let in_use = lock(loaded).as_ref().map(|loaded| Arc::clone(&loaded.library));
    if in_use.is_none_or(|library| library.count().is_err()) {
        // The old one goes first: an open handle would keep its driver from being unloaded.
        drop(lock(loaded).take());
        let library = Arc::new(Library::load(&config.library)?);
        let handles = library.handles()?;
        let stop_events = events::watch(&library, &handles, events.clone());
        let spawn = |(address, handle)| (String::clone(&address), Gpu::spawn(Arc::clone(&library), address, handle));
        let gpus = handles.into_iter().map(spawn).collect();
        *lock(loaded) = Some(Loaded { library, gpus, stop_events });
    }
    Ok(lock(loaded).as_ref().map(|loaded| loaded.gpus.values().cloned().collect()).unwrap_or_default())
}

/// The reading of a GPU that is not there.
fn lost() -> Reading {
    let mut row = Row::new(&GPU_SAMPLE);
    row.fail_all(raw::GPU_IS_LOST);
    row.set_status(row_status::LOST);
    Reading { rows: vec![row], identity: None, lifetime: vec![None], events: Vec::new() }
}

fn failure(message: String, code: Option<i64>) -> SourceError {
    SourceError { message, code }
}
