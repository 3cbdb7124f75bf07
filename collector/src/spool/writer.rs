//! The one thread that waits for the disk: it makes closed frames and the journal durable, in groups.
//!
//! Whatever was closed since the last time goes into one transaction, at once where the last one is long enough ago. A
//! transaction that fails is tried again until it succeeds; meanwhile frames wait in memory, which is bounded.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::event::own;
use crate::health::Health;
use crate::outlet::Outlet;
use crate::place::locked;
use crate::spool::journal;
use crate::spool::store::{Batch, Store, StoreError};

/// Pause after a transaction that failed.
const BACK_OFF: Duration = Duration::from_secs(1);
/// How often a failing transaction is tried at the end.
const LAST_TRIES: u32 = 3;

/// Wakes the writer.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<Rung>,
    rings: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    work: bool,
    end: bool,
}

impl Bell {
    /// There is something to write.
    pub(crate) fn ring(&self) {
        locked(&self.state).work = true;
        self.rings.notify_all();
    }

    /// Write what is there and end.
    pub(crate) fn end(&self) {
        locked(&self.state).end = true;
        self.rings.notify_all();
    }

    /// Waits for work or the end, at most so long. Says whether it is the end.
    fn wait(&self, longest: Duration) -> bool {
        self.wait_while(longest, |rung| !rung.work && !rung.end)
    }

    /// Waits for the end, at most so long. Says whether it is the end.
    fn wait_for_end(&self, longest: Duration) -> bool {
        self.wait_while(longest, |rung| !rung.end)
    }

    fn wait_while(&self, longest: Duration, idle: impl Fn(&Rung) -> bool) -> bool {
        let state = locked(&self.state);
        let (state, _) =
            self.rings.wait_timeout_while(state, longest, |rung| idle(rung)).unwrap_or_else(PoisonError::into_inner);
        state.end
    }

    fn clear(&self) {
        locked(&self.state).work = false;
    }
}

/// The writer of one spool.
pub(crate) struct Writer {
    pub(crate) folder: PathBuf,
    pub(crate) store: Arc<Store>,
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) health: Arc<Health>,
    pub(crate) bell: Arc<Bell>,
}

impl Writer {
    /// Writes until the bell says that it is the end, and then what is left.
    pub(crate) fn run(self) {
        let mut written: Option<Instant> = None;
        let (mut failing, mut slowest) = (false, Duration::ZERO);
        loop {
            let fsync_period = self.outlet.fsync_period();
            let mut end = self.bell.wait(fsync_period);
            let rest = written.map(|at| fsync_period.saturating_sub(at.elapsed())).unwrap_or_default();
            end = end || self.bell.wait_for_end(rest);
            self.bell.clear();
            let began = Instant::now();
            // The next one begins a period after this one has ended, at the latest.
            self.write(end, fsync_period + slowest * 2, &mut failing);
            slowest = began.elapsed().max(slowest * 7 / 8);
            written = Some(Instant::now());
            if end {
                return;
            }
        }
    }

    /// Writes what is there; the disk will have been waited for again after `next` at the latest.
    fn write(&self, end: bool, next: Duration, failing: &mut bool) {
        let batch = match self.outlet.cut(end, next) {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                self.outlet.alive(next);
                if let Some(Err(error)) = self.outlet.journal_file().map(|file| file.sync_data()) {
                    self.fails(failing, &error.to_string());
                }
                return;
            }
            Err(error) => return self.fails(failing, &error.to_string()),
        };
        let mut tries = 0;
        tracing::debug!(frames = batch.frames.len(), removed = batch.removed.len(), "spooling");
        while let Err(error) = self.commit(&batch) {
            self.fails(failing, &error.to_string());
            tries += 1;
            let end = self.bell.wait_for_end(BACK_OFF);
            if end && tries >= LAST_TRIES {
                tracing::error!(%error, "the spool takes nothing at the end; what it did not take is lost");
                return;
            }
        }
        tracing::debug!(frames = batch.frames.len(), "spooled");
        self.outlet.written();
        if std::mem::replace(failing, false) {
            self.health.works("spool");
        }
        if let Err(error) = journal::remove_before(&self.folder, batch.account.journal) {
            tracing::warn!(%error, "journals that are no longer needed cannot be removed");
        }
    }

    /// The rows that the account counts as carried must be as durable as the account.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let refused = |error: std::io::Error| StoreError::Refused(error.to_string());
        if let Some(file) = self.outlet.journal_file() {
            file.sync_data().map_err(refused)?;
            std::fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(refused)?;
        }
        self.store.commit(batch)
    }

    fn fails(&self, failing: &mut bool, reason: &str) {
        self.outlet.sync_unwritten();
        let folder = self.folder.display();
        self.health
            .fails("spool", &format!("{folder} cannot be written: {reason}; make room there, or have it writable"));
        if !std::mem::replace(failing, true) {
            let message = format!("the spool in {folder} cannot be written: {reason}");
            self.outlet.event(own("spool_not_written", "error", message), None);
        }
    }
}
