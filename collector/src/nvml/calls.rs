//! Which call into NVML each thread of the worker is in: a name and a time, noted before the call, for whoever asks why a
//! GPU does not answer.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use racklake_schemas::clock::Clock;

use crate::place::locked;

thread_local! {
    static SLOT: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
}

/// The call that a thread is in.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<(&'static str, i64)>>);

impl Slot {
    /// Notes the calls of this thread here from now on.
    pub(super) fn take_thread(self: &Arc<Slot>) {
        SLOT.set(Some(Arc::clone(self)));
    }

    /// The call that the thread is in, and since when (µs UTC).
    pub(super) fn call(&self) -> Option<(&'static str, i64)> {
        *locked(&self.0)
    }
}

/// This thread calls that function now; the thread is in it until it calls another or is [`idle`].
pub(super) fn calling(function: &'static str) {
    SLOT.with_borrow(|slot| {
        if let Some(slot) = slot {
            *locked(&slot.0) = Some((function, Clock::now_us()));
        }
    });
}

/// This thread is in no call.
pub(super) fn idle() {
    SLOT.with_borrow(|slot| {
        if let Some(slot) = slot {
            *locked(&slot.0) = None;
        }
    });
}
