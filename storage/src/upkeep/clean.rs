//! Deletes the part of a log that a checkpoint has made superfluous, once that checkpoint is old enough.
//!
//! The newest version is read from the newest checkpoint and what follows it, which stay; so do all versions that are
//! younger than the age. Commits go in rising order, so that what is left is always the end of the log without a hole.

use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use racklake_schemas::Table;

use super::vacuum::{Swept, delete};
use crate::error::StorageError;
use crate::lake::{Lake, store_path};
use crate::log::{LOG, Log};

/// A file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    version: u64,
    is_checkpoint: bool,
}

impl Lake {
    /// Deletes commits and checkpoints before the newest checkpoint that is older than `age`, and lists them; only lists
    /// them on a dry run.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the log cannot be read.
    pub fn clean_log(&self, table: &Table, age: Duration, dry_run: bool) -> Result<Swept, StorageError> {
        let now_ms = Log::load(self, table.name)?.store_now_ms()?;
        let before = now_ms - i64::try_from(age.as_millis()).unwrap_or(i64::MAX).min(now_ms);
        let folder = store_path(self, &self.table_url(table.name)?)?.join(LOG);
        let listed: Result<Vec<ObjectMeta>, _> = self.wait(self.store().list(Some(&folder)).try_collect());
        let mut listed = listed.map_err(|error| StorageError::of_store(&self.place(table.name), &error))?;
        listed.sort_by(|a, b| a.location.cmp(&b.location));
        let old = listed.into_iter().filter(|file| file.last_modified.timestamp_millis() <= before);
        let old: Vec<(Entry, ObjectMeta)> =
            old.filter_map(|file| Some((entry(file.location.filename()?)?, file))).collect();
        let checkpoint = old.iter().filter(|(entry, _)| entry.is_checkpoint).map(|(entry, _)| entry.version).max();
        let Some(checkpoint) = checkpoint else { return Ok(Swept::default()) };
        let gone = old.into_iter().filter(|(entry, _)| entry.version < checkpoint);
        let mut swept = Swept::default();
        for (_, file) in gone {
            if !dry_run {
                delete(self, &file.location)?;
            }
            swept.files.push((file.location.to_string(), file.size));
        }
        Ok(swept)
    }

    /// Whether the lake has this table.
    ///
    /// # Errors
    /// Retry as the store says.
    pub fn has(&self, table: &Table) -> Result<bool, StorageError> {
        crate::log::has_log(self, table.name)
    }

    /// Time of the store when it took a file, ms since 1970; nothing where it has none.
    pub(crate) fn modified_ms(&self, path: &object_store::path::Path) -> Result<Option<i64>, StorageError> {
        match self.wait(self.store().head(path)) {
            Ok(file) => Ok(Some(file.last_modified.timestamp_millis())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StorageError::of_store(path.as_ref(), &error)),
        }
    }
}

/// What a file of the log is by its name; nothing for one that this does not know, which stays.
fn entry(name: &str) -> Option<Entry> {
    let (version, rest) = name.split_once('.')?;
    let is_version = version.len() == 20 && version.bytes().all(|b| b.is_ascii_digit());
    let version = version.parse().ok().filter(|_| is_version)?;
    match rest {
        "json" | "crc" => Some(Entry { version, is_checkpoint: false }),
        "checkpoint.parquet" => Some(Entry { version, is_checkpoint: true }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_known_are_of_the_log() {
        let known = |name, is_checkpoint| assert_eq!(entry(name), Some(Entry { version: 7, is_checkpoint }), "{name}");
        known("00000000000000000007.json", false);
        known("00000000000000000007.crc", false);
        known("00000000000000000007.checkpoint.parquet", true);
        for name in ["_last_checkpoint", "7.json", "00000000000000000007.0001.checkpoint.parquet", "a.json"] {
            assert_eq!(entry(name), None, "{name}");
        }
    }
}
