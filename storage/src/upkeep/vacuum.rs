//! Deletes files of a table that no version wants any more: orphans of killed writers, and files that were merged or have
//! expired, once they have been so for long enough.
//!
//! A file goes only if it is old by the store's time, not live, and was not removed from the table lately. Paths are
//! compared as the store has them: the log's are percent-encoded. What an object store hides, the half-written files of a
//! local disk, is swept on the disk itself.

use std::ops::ControlFlow;
use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use racklake_schemas::Table;

use super::SWEEP_AGE_MIN;
use crate::error::StorageError;
use crate::lake::{Lake, store_path};
use crate::log::{LOG, Log};

/// Files that were deleted, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Their paths and bytes.
    pub files: Vec<(String, u64)>,
}

impl Swept {
    /// Their bytes in all.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Lake {
    /// Deletes what no version of the table has wanted for `age`, and lists it; only lists it on a dry run. `watch` is told
    /// of each deleted file, and may have it stopped.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the age is below [`SWEEP_AGE_MIN`], or the log cannot be read.
    pub fn vacuum(
        &self,
        table: &Table,
        age: Duration,
        dry_run: bool,
        watch: &dyn Fn() -> ControlFlow<()>,
    ) -> Result<Swept, StorageError> {
        let place = self.place(table.name);
        if age < SWEEP_AGE_MIN {
            let remedy = "give two days or more: a flush may hold its files for a day before it commits them";
            return Err(StorageError::stop(&place, format!("{age:?} is too young to be swept"), remedy));
        }
        // What lies there first, then the log: a file that is committed meanwhile is live in it.
        let lying = list(self, table.name)?;
        let log = Log::load(self, table.name)?;
        let now_ms = log.store_now_ms()?;
        let before = now_ms - i64::try_from(age.as_millis()).unwrap_or(i64::MAX).min(now_ms);
        let live: std::collections::BTreeSet<Path> = log.files()?.into_iter().map(|file| file.path).collect();
        let removed = log.removed()?;
        let is_unwanted = |file: &&ObjectMeta| {
            let lately = removed.get(&file.location).is_some_and(|removed_ms| *removed_ms > before);
            file.last_modified.timestamp_millis() <= before && !live.contains(&file.location) && !lately
        };
        let mut swept = Swept::default();
        for file in lying.iter().filter(is_unwanted) {
            if !dry_run {
                if watch().is_break() {
                    return Ok(swept);
                }
                delete(self, &file.location)?;
            }
            swept.files.push((file.location.to_string(), file.size));
        }
        for (path, bytes) in half_written(self, table.name, before)? {
            if !dry_run && std::fs::remove_file(&path).is_err() {
                continue;
            }
            swept.files.push((path.display().to_string(), bytes));
        }
        Ok(swept)
    }
}

/// Deletes a file; that another was quicker is no error.
pub(super) fn delete(lake: &Lake, path: &Path) -> Result<(), StorageError> {
    match lake.wait(lake.store().delete(path)) {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(StorageError::of_store(path.as_ref(), &error)),
    }
}

/// Data files below a table.
fn list(lake: &Lake, table: &str) -> Result<Vec<ObjectMeta>, StorageError> {
    let root = store_path(lake, &lake.table_url(table)?)?;
    let log = root.clone().join(LOG);
    let listed = lake.store().list(Some(&root)).try_filter(|file| {
        futures::future::ready(!file.location.prefix_matches(&log) && file.location.as_ref().ends_with(".parquet"))
    });
    let listed = lake.wait(listed.try_collect());
    listed.map_err(|error| StorageError::of_store(&lake.place(table), &error))
}

/// Files on a local disk whose writer was killed before it gave them their name, `…#1`, and has been for long enough.
fn half_written(lake: &Lake, table: &str, before_ms: i64) -> Result<Vec<(std::path::PathBuf, u64)>, StorageError> {
    let url = lake.table_url(table)?;
    let (true, Ok(root)) = (url.scheme() == "file", url.to_file_path()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            if metadata.is_dir() {
                folders.push(path);
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_staged =
                name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            let modified = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let is_old = modified.is_some_and(|at| i64::try_from(at.as_millis()).is_ok_and(|at| at <= before_ms));
            if is_staged && is_old {
                found.push((path, metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}
