//! The NVML worker: the only place that loads NVML, mostly a process of its own.
//!
//! A call into NVML may take seconds or never return, and the driver is to blame for that. So no call is made on a thread
//! that anything else waits for: one thread per GPU serves its reads, one waits for events, one lists the GPUs, and the one
//! that takes orders calls nothing. A hung GPU keeps its thread; the others go on. The worker ends when the collector
//! closes the pipe, and keeps nothing that a successor would need.

mod events;
mod gpu;
mod library;
mod listing;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use racklake_schemas::clock::Clock;

use super::calls::Slot;
use super::pipe::{self, Hello, Order, Report};
use super::{signals, unreachable};
use crate::place::locked;
use crate::source::{Call, Reading};
use gpu::Gpu;
pub(super) use library::Library;
pub(super) use listing::DISCOVERY;

/// How often the calls in progress are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A call that takes longer is told to the collector.
const SLOW: i64 = 900_000;
/// How long the library may take to be unloaded at the end; more than one wait for events.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);
/// Discoveries that may wait; the collector has one under way.
const DISCOVERIES_MAX: usize = 4;

/// What the threads of a worker share.
pub(super) struct Shared {
    stream: UnixStream,
    /// One frame at a time.
    writing: Mutex<()>,
    /// GPUs that have told their address.
    gpus: Mutex<BTreeMap<String, Gpu>>,
    /// Where each thread that calls NVML notes its calls, by what it is about.
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
}

impl Shared {
    /// Sends a report; a collector that is gone misses nothing.
    fn report(&self, report: &Report) {
        let body = report.encode();
        let _one = locked(&self.writing);
        if let Err(error) = pipe::send(&self.stream, &body) {
            tracing::debug!("the collector takes no report: {error}");
        }
    }

    /// Sends a reading, or that there is none where it is too long to be sent.
    fn report_reading(&self, id: u64, reading: Reading) {
        let report = Report::Reading { id, reading };
        if report.encode().len() <= pipe::FRAME_MAX {
            return self.report(&report);
        }
        tracing::error!("a reading takes more than {} bytes; please report it", pipe::FRAME_MAX);
        self.report(&Report::Reading { id, reading: Reading::default() });
    }
}

/// Runs the worker of the process that started this one, whose orders come on standard input.
pub fn run_worker() -> ExitCode {
    signals::end_with_parent();
    let stream = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let ended = stream.and_then(serve);
    if let Err(error) = &ended {
        eprintln!("racklake-collector nvml-worker: {error}; it is started by the collector, not by hand");
    }
    // Threads may be in the library still; it must not be taken down beneath them.
    signals::exit_now(i32::from(ended.is_err()))
}

/// Serves the collector at the other end until it closes.
///
/// # Errors
/// When the other end is no collector of this build, or breaks the pipe.
pub(super) fn serve(stream: UnixStream) -> io::Result<()> {
    let reader = stream.try_clone()?;
    let shared =
        Arc::new(Shared { stream, writing: Mutex::default(), gpus: Mutex::default(), slots: Mutex::default() });
    shared.report(&Report::Hello(Hello::own()));
    let Some(first) = pipe::receive(&reader)? else { return Ok(()) };
    let objection = match Order::decode(&first) {
        Some(Order::Hello(hello)) => hello.objection(),
        _ => Some("the other end does not say hello".to_owned()),
    };
    if let Some(objection) = objection {
        return Err(io::Error::other(objection));
    }
    let (discoveries, inbox) = sync_channel(DISCOVERIES_MAX);
    let listing = listing::Listing::new(Arc::clone(&shared));
    let library = listing.library();
    spawn("nvml discovery", move || listing.run(&inbox))?;
    let watched = Arc::downgrade(&shared);
    spawn("nvml calls", move || {
        let mut told = BTreeMap::new();
        while let Some(shared) = watched.upgrade() {
            tell_slow_calls(&shared, &mut told);
            drop(shared);
            std::thread::sleep(LOOK);
        }
    })?;
    let served = take_orders(&reader, &shared, &discoveries);
    drop(discoveries);
    locked(&shared.gpus).clear();
    // Where the worker is no process of its own, the next one would only join the library while it is open.
    let until = Instant::now() + RELEASE_PATIENCE;
    while locked(&library).strong_count() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    served
}

fn take_orders(reader: &UnixStream, shared: &Arc<Shared>, discoveries: &SyncSender<(u64, String)>) -> io::Result<()> {
    while let Some(body) = pipe::receive(reader)? {
        match Order::decode(&body) {
            Some(Order::Discover { id, library }) => {
                if discoveries.try_send((id, library)).is_err() {
                    tracing::warn!("discovery {id} waits behind one that does not return");
                }
            }
            Some(Order::Read { id, address, table }) => {
                // A MIG instance is read by the thread of its GPU, whose address its own begins with.
                let gpu = address.split('/').next().unwrap_or(&address);
                let asked = locked(&shared.gpus).get(gpu).is_some_and(|gpu| gpu.read(id, &address, table));
                if !asked {
                    shared.report_reading(id, unreachable(table));
                }
            }
            Some(Order::Hello(_)) | None => return Err(io::Error::other("an order that nobody knows")),
        }
    }
    Ok(())
}

/// Tells which calls have taken long, once each, and when they are over.
fn tell_slow_calls(shared: &Shared, told: &mut BTreeMap<String, (&'static str, i64)>) {
    let now = Clock::now_us();
    let slots: Vec<_> = locked(&shared.slots).iter().map(|(subject, slot)| (subject.clone(), slot.call())).collect();
    let over = told.extract_if(.., |subject, _| slots.iter().all(|(other, _)| other != subject));
    for (subject, _) in over {
        shared.report(&Report::Call { subject, call: None });
    }
    for (subject, call) in slots {
        let slow = call.filter(|(_, since)| now - since > SLOW);
        if slow.as_ref() == told.get(&subject) {
            continue;
        }
        match slow {
            Some(slow) => drop(told.insert(subject.clone(), slow)),
            None => drop(told.remove(&subject)),
        }
        let call = slow.map(|(name, since)| Call { name: name.to_owned(), since });
        shared.report(&Report::Call { subject, call });
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}
