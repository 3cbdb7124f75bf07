//! The test harness: a real Apache Kafka, the shipped binaries as processes, simulators, and the Python checks.
//!
//! Nothing here is skipped when a part is missing: the harness says in one sentence what to install, and the test fails.

pub mod binaries;
pub mod drill;
pub mod farm;
pub mod fault_proxy;
pub mod kafka;
pub mod lake_tool;
pub mod object_store;
pub mod process;
pub mod python;
pub mod sender;
pub mod site;

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// Where downloaded jars and the Python environment stay, outside of what a clean build removes.
pub fn cache() -> PathBuf {
    repository().join("tests/.cache")
}

static TURNS: RwLock<()> = RwLock::new(());

/// Waits for this test's turn beside others: tests that start processes and leave the shared broker alone. Most of their
/// time they wait for something to happen.
pub fn turn() -> RwLockReadGuard<'static, ()> {
    TURNS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for this test's turn alone: a test that kills the shared broker, or that needs all cores to itself.
pub fn turn_alone() -> RwLockWriteGuard<'static, ()> {
    TURNS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `check` until it gives a value, every 20 ms, at most `seconds` long.
///
/// # Errors
/// When the time is over; the text says what was waited for.
pub fn wait_for<T>(what: &str, seconds: u64, mut check: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = std::time::Instant::now();
    loop {
        if let Some(found) = check() {
            return Ok(found);
        }
        anyhow::ensure!(start.elapsed().as_secs() < seconds, "waited {seconds} s in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// How many lines a file has; none where it is not there. The simulators' accounts have one per answer.
pub fn count_lines(file: &Path) -> usize {
    std::fs::read(file).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count())
}
