//! Reads the Delta log of a table as it is: its live files and positions, held against what lies in the store.
//!
//! `delta` opens a table to write it, and would create or change one that is not as it should be; a proof must do neither.
//! It does not tell a file that was removed by a later commit from one that no commit ever named: neither is live.

use std::collections::BTreeMap;
use std::sync::Arc;

use delta_kernel::{KernelError, Snapshot, SnapshotRef};
use futures::TryStreamExt as _;
use object_store::path::Path;
use url::Url;

use crate::delta::judge;
use crate::error::StorageError;
use crate::lake::Lake;

/// Folder of the log below a table.
const LOG: &str = "_delta_log";

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

/// A table's log at its newest version.
pub(crate) struct Log {
    lake: Lake,
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
    pub(crate) fn load(lake: &Lake, table: &str) -> Result<Log, StorageError> {
        let (place, root) = (lake.place(table), lake.table_url(table)?);
        let snapshot = Snapshot::builder_for(root.as_str()).build(lake.engine().kernel());
        let snapshot = snapshot.map_err(|error| judge(&place, error))?;
        Ok(Log { lake: lake.clone(), place, root, snapshot })
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
            let url = self.root.join(&path).map_err(|error| self.damaged(format!("file {path}: {error}")))?;
            let path = store_path(&self.lake, &url)?;
            Ok(LiveFile { path, bytes: u64::try_from(bytes).unwrap_or_default(), rows })
        };
        named.into_iter().map(live).collect()
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
        StorageError::stop(&self.place, cause, "look at the table's _delta_log: it names what is no path")
    }
}

fn store_path(lake: &Lake, url: &Url) -> Result<Path, StorageError> {
    Path::from_url_path(url.path()).map_err(|error| StorageError::of_store(lake.location(), &error))
}
