//! The thread that waits for NVML's events and passes them on.
//!
//! All types that a device supports are asked for, but for clock and P-state changes, which every row shows anyway. A
//! type that is newer than this code is passed on by its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Shared;
use super::library::Library;
use crate::kernel_log::{self, explained};
use crate::nvml::pipe::Report;
use crate::nvml::raw::{Answer, EventSet, Handle, RawEvent, TIMEOUT};
use crate::source::EventDraft;

/// nvmlEventTypeXidCriticalError.
const XID: u64 = 0x8;
/// nvmlEventTypePState and nvmlEventTypeClock.
const NOISE: u64 = 0x4 | 0x10;
/// How long one wait takes at most, and so how soon a stop is noticed.
const WAIT_MILLISECONDS: u32 = 500;
/// Pause after a wait that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// Stands for no MIG instance.
const NO_INSTANCE: u32 = u32::MAX;

/// Starts the thread; it ends soon after the returned flag is set.
pub(super) fn watch(library: &Arc<Library>, gpus: Vec<(String, Handle)>, shared: Arc<Shared>) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let (library, flag) = (Arc::clone(library), Arc::clone(&stop));
    let spawned = std::thread::Builder::new().name("nvml events".to_owned()).spawn(move || {
        if let Err(code) = run(&library, &gpus, &flag, &shared) {
            tracing::warn!("NVML gives no events (return code {code}); the kernel log has the XIDs");
        }
    });
    if let Err(error) = spawned {
        tracing::warn!("NVML events get no thread: {error}");
    }
    stop
}

fn run(library: &Library, gpus: &[(String, Handle)], stop: &AtomicBool, shared: &Shared) -> Answer<()> {
    let set = EventSet::new(library.nvml.lib())?;
    for (address, device) in gpus {
        let calls = library.calls(*device);
        let registered = calls.event_types().and_then(|kinds| set.register(*device, kinds & !NOISE));
        if let Err(code) = registered {
            tracing::warn!("GPU {address} tells no events (return code {code})");
        }
    }
    while !stop.load(Ordering::Relaxed) {
        match set.wait(WAIT_MILLISECONDS) {
            Ok(event) => {
                let address =
                    gpus.iter().find(|(_, handle)| *handle == event.device).map(|(address, _)| address.as_str());
                // Waiting for room is right here: NVML holds further events meanwhile.
                shared.report(&Report::Event(draft(&event, address)));
            }
            Err(TIMEOUT) => {}
            // One lost GPU makes the wait for all fail at once; the others' events still come.
            Err(code) => {
                tracing::debug!("waiting for NVML events gave return code {code}");
                std::thread::sleep(PAUSE);
            }
        }
    }
    Ok(())
}

fn draft(event: &RawEvent, address: Option<&str>) -> EventDraft {
    let place = address.unwrap_or("an unknown GPU");
    let code = event.data as i64;
    let (draft, mut details) = match event.kind {
        XID => {
            let message = format!("XID {code} on GPU {place}");
            (EventDraft::new("xid", "nvml", kernel_log::severity(code), message).with_code(code), explained(code))
        }
        kind => {
            let message = format!("NVML event {kind:#x} on GPU {place}");
            (EventDraft::new("nvml_event", "nvml", "warning", message).with_code(kind as i64), Map::new())
        }
    };
    let instance = |id: u32| (id != NO_INSTANCE).then_some(id);
    details.insert("type".to_owned(), json!(event.kind));
    details.insert("data".to_owned(), json!(event.data));
    details.insert("gpu_instance".to_owned(), json!(instance(event.gpu_instance)));
    details.insert("compute_instance".to_owned(), json!(instance(event.compute_instance)));
    EventDraft {
        address: address.map(str::to_owned),
        pci_bus_id: address.map(str::to_owned),
        details_json: Some(Value::Object(details).to_string()),
        ..draft
    }
}
