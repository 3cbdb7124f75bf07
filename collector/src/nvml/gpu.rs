//! The thread of one GPU: it makes all calls about that GPU, one after another, and answers requests.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::identity;
use super::library::Library;
use super::memory::Memory;
use super::raw::Handle;
use super::sample;
use crate::source::{Identity, Reading};

enum Request {
    Read(oneshot::Sender<Reading>),
    Identify(oneshot::Sender<Identity>),
}

/// The way to a GPU's thread, which ends when the last copy of this is gone.
#[derive(Clone)]
pub(super) struct Gpu {
    pub(super) address: String,
    requests: mpsc::Sender<Request>,
}

impl Gpu {
    /// Starts the thread.
    pub(super) fn spawn(library: Arc<Library>, address: String, handle: Handle) -> Gpu {
        // One read and one question of identity can wait; more never come.
        let (requests, inbox) = mpsc::channel(2);
        let place = address.clone();
        let spawned = std::thread::Builder::new()
            .name(format!("gpu {address}"))
            .spawn(move || serve(&library, &place, handle, inbox));
        if let Err(error) = spawned {
            tracing::error!("GPU {address} gets no thread and is told as unreachable: {error}");
        }
        Gpu { address, requests }
    }

    /// Reads the GPU; `None` when its thread is gone. Takes as long as the GPU does.
    pub(super) async fn read(&self) -> Option<Reading> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Read(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Asks the GPU who it is; `None` when it has not even begun with what it was asked before.
    pub(super) fn ask_identity(&self) -> Option<oneshot::Receiver<Identity>> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request::Identify(reply)).ok()?;
        Some(answer)
    }
}

fn serve(library: &Library, address: &str, handle: Handle, mut inbox: mpsc::Receiver<Request>) {
    let calls = library.calls(handle);
    let mut memory = Memory::default();
    while let Some(request) = inbox.blocking_recv() {
        // Whoever asked may be gone, at a stop; then nobody misses the answer.
        match request {
            Request::Identify(reply) if reply.is_closed() => {}
            Request::Read(reply) => drop(reply.send(sample::read(&calls, &mut memory))),
            Request::Identify(reply) => drop(reply.send(identity::read(&library.nvml, &calls, address))),
        }
    }
}
