//! The thread of one GPU: it finds out the GPU's address, and then makes all calls about it, one after another.
//!
//! The MIG instances of a GPU are read by its thread too: they are one chip, behind one driver lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use racklake_schemas::Table;
use racklake_schemas::clock::Clock;
use racklake_schemas::tables::{GPU_HEALTH, GPU_SAMPLE};

use super::Shared;
use super::library::Library;
use crate::nvml::calls::{Slot, idle};
use crate::nvml::memory::Memory;
use crate::nvml::raw::{Calls, Handle};
use crate::nvml::supervisor::NAMELESS;
use crate::nvml::{health, identity, sample, unreachable};
use crate::place::locked;
use crate::source::{Identity, Reading};

/// One read of each tier of the GPU and of each MIG instance, and one question of identity can wait; more never come.
const QUEUE_MAX: usize = 64;

enum Request {
    /// A read of the GPU, or of its MIG instance at that address.
    Read {
        id: u64,
        address: String,
        table: &'static Table,
    },
    Identify(Sender<Told>),
}

/// What a GPU says when it is asked who it is.
pub(super) struct Told {
    /// Its own address.
    pub(super) address: String,
    /// By address, of itself and of its MIG instances.
    pub(super) identities: Vec<(String, Identity)>,
}

/// The way to a GPU's thread, which ends when this is gone.
pub(super) struct Gpu {
    requests: SyncSender<Request>,
    /// It was asked who it is, and has not begun to answer.
    is_asked: Arc<AtomicBool>,
}

/// What a GPU says of itself when its thread begins: its index, and address and handle where it tells them.
pub(super) type Introduction = (u32, Option<(String, Handle)>);

impl Gpu {
    /// Has the GPU read, or its MIG instance at that address; the reading is reported. Says whether its thread takes the
    /// request.
    pub(super) fn read(&self, id: u64, address: &str, table: &'static Table) -> bool {
        self.requests.try_send(Request::Read { id, address: address.to_owned(), table }).is_ok()
    }

    /// Asks the GPU who it is; `false` when it has not even begun with what it was asked before.
    pub(super) fn ask_identity(&self, reply: &Sender<Told>) -> bool {
        !self.is_asked.swap(true, Ordering::Relaxed) && self.requests.try_send(Request::Identify(reply.clone())).is_ok()
    }
}

/// Starts the thread of the GPU of that index, which introduces itself to `told` first.
pub(super) fn spawn(shared: &Arc<Shared>, library: &Arc<Library>, index: u32, told: &Sender<Introduction>) {
    let parts = (Arc::clone(shared), Arc::clone(library), told.clone());
    let spawned = std::thread::Builder::new().name(format!("gpu {index}")).spawn(move || {
        let (shared, library, told) = parts;
        run(&shared, &library, index, &told);
    });
    if let Err(error) = spawned {
        tracing::error!("GPU {index} gets no thread and is left out: {error}");
        // Whoever waits for introductions may be gone; then nobody misses it.
        drop(told.send((index, None)));
    }
}

fn run(shared: &Shared, library: &Library, index: u32, told: &Sender<Introduction>) {
    let slot = Arc::new(Slot::default());
    slot.take_thread();
    let number = format!("{NAMELESS}{index}");
    locked(&shared.slots).insert(number.clone(), Arc::clone(&slot));
    let introduced = library.introduce(index);
    idle();
    locked(&shared.slots).remove(&number);
    let (address, handle) = match introduced {
        Ok(introduced) => introduced,
        Err(error) => {
            tracing::warn!("GPU {index} tells no PCI address and is left out: {error}");
            drop(told.send((index, None)));
            return;
        }
    };
    let (requests, inbox) = sync_channel(QUEUE_MAX);
    let is_asked = Arc::new(AtomicBool::new(false));
    locked(&shared.slots).insert(address.clone(), slot);
    locked(&shared.gpus).insert(address.clone(), Gpu { requests, is_asked: Arc::clone(&is_asked) });
    drop(told.send((index, Some((address.clone(), handle)))));
    serve(shared, library, (&address, handle), &inbox, &is_asked);
    shared.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
}

fn serve(
    shared: &Shared,
    library: &Library,
    (address, handle): (&str, Handle),
    inbox: &Receiver<Request>,
    is_asked: &AtomicBool,
) {
    // What is remembered holds memory of the library, and goes before it.
    let mut parts = BTreeMap::from([(address.to_owned(), Part { handle, memory: Memory::default() })]);
    while let Ok(request) = inbox.recv() {
        match request {
            Request::Read { id, address, table } => {
                let began = Instant::now();
                let mut reading = match parts.get_mut(&address) {
                    Some(part) => read(&library.calls(part.handle), &mut part.memory, table),
                    None => unreachable(table),
                };
                idle();
                reading.ended_at = Some(Clock::now_us());
                reading.read_us = i32::try_from(began.elapsed().as_micros()).ok();
                shared.report_reading(id, reading);
            }
            Request::Identify(reply) => {
                is_asked.store(false, Ordering::Relaxed);
                follow_instances(library, address, handle, &mut parts);
                let identify = |(address, part): (&String, &Part<'_>)| {
                    (address.clone(), identity::read(&library.nvml, &library.calls(part.handle), address))
                };
                let identities = parts.iter().map(identify).collect();
                idle();
                // Whoever asked may have given up.
                drop(reply.send(Told { address: address.to_owned(), identities }));
            }
        }
    }
}

/// The GPU, or a MIG instance of it.
struct Part<'a> {
    handle: Handle,
    memory: Memory<'a>,
}

/// Takes up MIG instances that are new, and lets go of those that are no more. Where that cannot be asked, all stay.
fn follow_instances<'a>(library: &Library, address: &str, handle: Handle, parts: &mut BTreeMap<String, Part<'a>>) {
    let Ok(there) = library.instances(address, handle) else { return };
    parts.retain(|part, _| part == address || there.contains_key(part));
    for (part, handle) in there {
        let known = parts.entry(part).or_insert_with(|| Part { handle, memory: Memory::default() });
        // An instance that was made anew in the same place has another handle, and other things that it lacks.
        if known.handle != handle {
            *known = Part { handle, memory: Memory::default() };
        }
    }
}

/// One read for a tier.
fn read<'a>(calls: &Calls<'a>, memory: &mut Memory<'a>, table: &'static Table) -> Reading {
    match table {
        table if *table == GPU_SAMPLE => sample::read(calls, memory),
        table if *table == GPU_HEALTH => health::read(calls, memory),
        table => unreachable(table),
    }
}
