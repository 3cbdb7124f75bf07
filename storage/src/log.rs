//! Reads the Delta log of a table as it is: its live files and positions, held against what lies in the store.
//!
//! `delta` opens a table to write it, and would create or change one that is not as it should be; a proof must do neither.
//! It does not tell a file that was removed by a later commit from one that no commit ever named: neither is live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use delta_kernel::{KernelError, Snapshot, SnapshotRef};
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use url::Url;

use crate::delta::judge;
use crate::error::StorageError;
use crate::lake::{Lake, store_path};

const DAMAGED: &str = "look at the table's _delta_log: it is damaged, or written by another program";
/// Folder of the log below a table.
pub(crate) const LOG: &str = "_delta_log";

/// What lies under a table's folder in the store, besides its log.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    /// Data files and their sizes, bytes.
    pub(crate) files: BTreeMap<Path, u64>,
}

/// A data file that the log names.
#[derive(Debug, Clone)]
pub(crate) struct LiveFile {
    /// Where the store has it.
    pub(crate) path: Path,
    /// Size that the log tells, bytes.
    pub(crate) bytes: u64,
    /// Rows that the log tells.
    pub(crate) rows: Option<u64>,
}

/// What one commit does to the files of a table.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Files that it adds.
    pub(crate) added: BTreeSet<Path>,
    /// Files that it removes, and when (ms since 1970).
    pub(crate) removed: BTreeMap<Path, i64>,
    /// Domains that it writes.
    pub(crate) domains: BTreeSet<String>,
}

/// A table's log at its newest version.
pub(crate) struct Log {
    lake: Lake,
    table: &'static str,
    place: String,
    root: Url,
    snapshot: SnapshotRef,
}

/// Lists what lies under a table's folder; nothing there is an empty answer.
pub(crate) fn folder(lake: &Lake, table: &str) -> Result<Folder, StorageError> {
    let root = store_path(lake, &lake.table_url(table)?)?;
    let log = root.clone().join(LOG);
    let listed = lake.store().list(Some(&root)).try_fold(Folder::default(), |mut folder, entry| {
        if !entry.location.prefix_matches(&log) && entry.location.as_ref().ends_with(".parquet") {
            folder.files.insert(entry.location, entry.size);
        }
        futures::future::ready(Ok(folder))
    });
    lake.wait(listed).map_err(|error| StorageError::of_store(&lake.place(table), &error))
}

/// Whether a table has a log at all.
pub(crate) fn has_log(lake: &Lake, table: &str) -> Result<bool, StorageError> {
    let log = store_path(lake, &lake.table_url(table)?)?.join(LOG);
    let first = lake.wait(lake.store().list(Some(&log)).try_next());
    Ok(first.map_err(|error| StorageError::of_store(&lake.place(table), &error))?.is_some())
}

impl Log {
    /// Loads the newest version.
    pub(crate) fn load(lake: &Lake, table: &'static str) -> Result<Log, StorageError> {
        let (place, root) = (lake.place(table), lake.table_url(table)?);
        let snapshot = Snapshot::builder_for(root.as_str()).build(lake.engine().kernel());
        let snapshot = snapshot.map_err(|error| judge(&place, error))?;
        Ok(Log { lake: lake.clone(), table, place, root, snapshot })
    }

    pub(crate) fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// The files that a reader of this version reads.
    pub(crate) fn files(&self) -> Result<Vec<LiveFile>, StorageError> {
        let named = || {
            let mut named = Vec::new();
            let scan = Arc::clone(&self.snapshot).scan_builder().build()?;
            for live in scan.scan_metadata(self.lake.engine().kernel())? {
                named = live?.visit_scan_files(named, |named: &mut Vec<_>, file| {
                    named.push((file.path, file.size, file.stats.map(|stats| stats.num_records)));
                })?;
            }
            Ok::<_, KernelError>(named)
        };
        let named = named().map_err(|error| judge(&self.place, error))?;
        let live = |(path, bytes, rows): (String, i64, Option<u64>)| {
            let path = self.path(&path)?;
            Ok(LiveFile { path, bytes: u64::try_from(bytes).unwrap_or_default(), rows })
        };
        named.into_iter().map(live).collect()
    }

    /// Files that the log says were removed, and when (ms since 1970). Those that were long ago are forgotten: a checkpoint
    /// keeps them for a week.
    pub(crate) fn removed(&self) -> Result<BTreeMap<Path, i64>, StorageError> {
        let mut removed = BTreeMap::new();
        let next = match self.last_checkpoint()? {
            Some(version) => {
                let bytes = self.get(&format!("{version:020}.checkpoint.parquet"))?;
                let bytes = bytes.ok_or_else(|| self.damaged(format!("checkpoint {version} is missing")))?;
                for (path, at) in removed_in_checkpoint(bytes).map_err(|cause| self.damaged(cause.to_string()))? {
                    removed.insert(self.path(&path)?, at);
                }
                version + 1
            }
            None => 0,
        };
        for version in next..=self.version() {
            let changes = Changes::of(&self.lake, self.table, version)?;
            removed.retain(|path, _| !changes.added.contains(path));
            removed.extend(changes.removed);
        }
        Ok(removed)
    }

    /// The store's own time of the newest commit, ms since 1970: it is not later than now.
    pub(crate) fn store_now_ms(&self) -> Result<i64, StorageError> {
        let path = self.of_log(&format!("{:020}.json", self.version()))?;
        let modified = self.lake.modified_ms(&path)?;
        modified.ok_or_else(|| StorageError::retry(&self.place, "the newest commit of the log is gone"))
    }

    fn last_checkpoint(&self) -> Result<Option<u64>, StorageError> {
        let Some(bytes) = self.get("_last_checkpoint")? else { return Ok(None) };
        let hint: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| self.damaged(e.to_string()))?;
        Ok(hint["version"].as_u64())
    }

    fn of_log(&self, name: &str) -> Result<Path, StorageError> {
        of_log(&self.lake, self.table, name)
    }

    fn get(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        get(&self.lake, &self.of_log(name)?)
    }

    fn path(&self, path: &str) -> Result<Path, StorageError> {
        let url = self.root.join(path).map_err(|error| self.damaged(format!("file {path}: {error}")))?;
        store_path(&self.lake, &url)
    }

    /// The position of an app id at this version.
    pub(crate) fn position(&self, app_id: &str) -> Result<Option<i64>, StorageError> {
        let position = self.snapshot.get_app_id_version(app_id, self.lake.engine().kernel());
        position.map_err(|error| judge(&self.place, error))
    }

    /// All domains at this version that are no internal ones of Delta.
    pub(crate) fn domains(&self) -> Result<BTreeMap<String, Arc<str>>, StorageError> {
        let all = self.snapshot.get_all_domain_metadata(self.lake.engine().kernel());
        let all = all.map_err(|error| judge(&self.place, error))?;
        Ok(all.iter().map(|domain| (domain.domain().to_owned(), Arc::from(domain.configuration()))).collect())
    }

    fn damaged(&self, cause: String) -> StorageError {
        StorageError::stop(&self.place, cause, DAMAGED)
    }
}

impl Changes {
    /// Reads the commit of a version.
    pub(crate) fn of(lake: &Lake, table: &str, version: u64) -> Result<Changes, StorageError> {
        let (place, root) = (lake.place(table), lake.table_url(table)?);
        let Some(bytes) = get(lake, &of_log(lake, table, &format!("{version:020}.json"))?)? else {
            return Err(StorageError::retry(&place, format!("commit {version} of the log is gone")));
        };
        let damaged = |cause: String| StorageError::stop(&place, format!("commit {version}: {cause}"), DAMAGED);
        let path = |path: &str| store_path(lake, &root.join(path).map_err(|error| damaged(error.to_string()))?);
        let mut changes = Changes::default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let action: serde_json::Value = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
            if let Some(added) = action["add"]["path"].as_str() {
                changes.added.insert(path(added)?);
            }
            if let Some(removed) = action["remove"]["path"].as_str() {
                // Without a time it may have been just now.
                let at = action["remove"]["deletionTimestamp"].as_i64().unwrap_or(i64::MAX);
                changes.removed.insert(path(removed)?, at);
            }
            if let Some(domain) = action["domainMetadata"]["domain"].as_str() {
                changes.domains.insert(domain.to_owned());
            }
        }
        Ok(changes)
    }
}

fn of_log(lake: &Lake, table: &str, name: &str) -> Result<Path, StorageError> {
    Ok(store_path(lake, &lake.table_url(table)?)?.join(LOG).join(name))
}

/// A file; nothing where there is none.
fn get(lake: &Lake, path: &Path) -> Result<Option<Bytes>, StorageError> {
    let read = async { lake.store().get(path).await?.bytes().await };
    match lake.wait(read) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(StorageError::of_store(path.as_ref(), &error)),
    }
}

/// Removed files that a checkpoint remembers, and when they were removed.
fn removed_in_checkpoint(bytes: Bytes) -> Result<Vec<(String, i64)>, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let leaves = builder.parquet_schema().columns().iter().enumerate();
    let wanted = [["remove", "path"], ["remove", "deletionTimestamp"]];
    let leaves: Vec<usize> = leaves
        .filter(|(_, column)| wanted.iter().any(|parts| column.path().parts() == parts))
        .map(|(leaf, _)| leaf)
        .collect();
    let mask = ProjectionMask::leaves(builder.parquet_schema(), leaves);
    let mut removed = Vec::new();
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let remove = batch.column_by_name("remove").and_then(|column| column.as_struct_opt());
        let paths = remove.and_then(|remove| remove.column_by_name("path")?.as_string_opt::<i32>());
        let times =
            remove.and_then(|remove| remove.column_by_name("deletionTimestamp")?.as_primitive_opt::<Int64Type>());
        let (Some(remove), Some(paths), Some(times)) = (remove, paths, times) else { continue };
        for row in (0..batch.num_rows()).filter(|row| remove.is_valid(*row) && paths.is_valid(*row)) {
            let at = if times.is_valid(row) { times.value(row) } else { i64::MAX };
            removed.push((paths.value(row).to_owned(), at));
        }
    }
    Ok(removed)
}
