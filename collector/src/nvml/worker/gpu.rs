//! The thread of one GPU: it finds out the GPU's address, and then makes all calls about it, one after another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use racklake_schemas::Table;
use racklake_schemas::clock::Clock;
use racklake_schemas::tables::GPU_SAMPLE;

use super::Shared;
use super::library::Library;
use crate::nvml::calls::{Slot, idle};
use crate::nvml::raw::{Calls, Handle};
use crate::nvml::sample::{self, Memory};
use crate::nvml::supervisor::NAMELESS;
use crate::nvml::{identity, unreachable};
use crate::place::locked;
use crate::source::{Identity, Reading};

/// One read of each tier and one question of identity can wait; more never come.
const QUEUE_MAX: usize = 4;

enum Request {
    Read(u64, &'static Table),
    Identify(Sender<(String, Identity)>),
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
    /// Has the GPU read; the reading is reported. Says whether its thread takes the request.
    pub(super) fn read(&self, id: u64, table: &'static Table) -> bool {
        self.requests.try_send(Request::Read(id, table)).is_ok()
    }

    /// Asks the GPU who it is; `false` when it has not even begun with what it was asked before.
    pub(super) fn ask_identity(&self, reply: &Sender<(String, Identity)>) -> bool {
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
    let calls = Calls { lib: library.nvml.lib(), device: handle };
    let mut memory = Memory::default();
    while let Ok(request) = inbox.recv() {
        match request {
            Request::Read(id, table) => {
                let began = Instant::now();
                let mut reading = read(&calls, &mut memory, table);
                idle();
                reading.ended_at = Some(Clock::now_us());
                reading.read_us = i32::try_from(began.elapsed().as_micros()).ok();
                shared.report_reading(id, reading);
            }
            Request::Identify(reply) => {
                is_asked.store(false, Ordering::Relaxed);
                let identity = identity::read(&library.nvml, handle, address);
                idle();
                // Whoever asked may have given up.
                drop(reply.send((address.to_owned(), identity)));
            }
        }
    }
}

/// One read for a tier.
fn read(calls: &Calls<'_>, memory: &mut Memory, table: &'static Table) -> Reading {
    if *table == GPU_SAMPLE { sample::read(calls, memory) } else { unreachable(table) }
}
