//! Seals quiet hours: merges what was flushed into few large sorted files, where a plain `site=*/dt=*` glob finds them.
//!
//! `plan` decides which files are merged, `merge` reads them through `input` and hands rows to `output`; what comes of it
//! takes the place of its inputs in one commit, which readers cannot tell from no commit: it brings the same rows. That
//! commit is made only on a version in which every input is still live; if one is not, another has merged or removed it,
//! and what was merged here is thrown away. Rows are never removed, and no row that is there twice is hidden: such a seal
//! stops. A kill leaves files that no commit names, and the next seal begins anew.

mod input;
mod merge;
mod output;
mod plan;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use racklake_schemas::clock::{Clock, DAY};
use uuid::Uuid;

use crate::delta::{Change, file_meta, partition_values};
use crate::error::StorageError;
use crate::exchange::Exchanged;
use crate::file;
use crate::lake::store_path;
use crate::log::Log;
use crate::table::LakeTable;
use input::Input;
use merge::{MergeError, Order, merge};
use output::Output;
pub use plan::{Seal, SealRules};

/// A merged file is thrown away instead of committed when it is older (µs): a vacuum may be about to take it.
const AGE_MAX: i64 = DAY;

/// How a seal ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// The rows are in one file now.
    Committed {
        /// Version of the table.
        version: u64,
        /// Path of the file, as the log names it.
        path: String,
        /// Its size.
        bytes: u64,
        /// Its rows, which are those of the inputs.
        rows: u64,
    },
    /// An input is not live any more: another has merged or removed it. Nothing was changed.
    Abandoned,
    /// A row is there twice. Nothing was changed, and the inputs stay as they are.
    Repeated {
        /// The row's key.
        key: String,
    },
}

/// A merged file that no commit names yet.
struct Merged {
    path: String,
    at: Path,
    bytes: u64,
    rows: u64,
    written_at: i64,
    add: RecordBatch,
}

impl LakeTable {
    /// What is to be sealed at `now_us` (µs UTC), oldest first. Looks at the newest version.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the table is damaged or holds what no racklake wrote.
    pub fn plan_seals(&mut self, rules: &SealRules, now_us: i64) -> Result<Vec<Seal>, StorageError> {
        self.refresh()?;
        Ok(plan::plan(self.delta.live()?, rules, now_us))
    }

    /// Merges files into one and commits that. `watch` is told of rows as they are merged, and may have it stopped; that is
    /// an error to try again. Others may commit meanwhile.
    ///
    /// # Errors
    /// Retry and NoRoom as the store says; Stop, when an input cannot be read or its rows are in no order. The inputs stay
    /// as they are, and the same can be tried again.
    pub fn seal(&mut self, seal: &Seal, watch: &dyn Fn(u64) -> ControlFlow<()>) -> Result<Sealed, StorageError> {
        let merged = match self.merge(seal, watch) {
            Ok(merged) => merged,
            Err(MergeError::Repeated(key)) => return Ok(Sealed::Repeated { key }),
            // Another may have merged the inputs, and a vacuum removed them.
            Err(MergeError::Storage(error)) => {
                self.refresh()?;
                let is_stale = !self.has_all(&seal.inputs.iter().map(|file| file.path.clone()).collect())?;
                return if is_stale { Ok(Sealed::Abandoned) } else { Err(error) };
            }
        };
        let told = seal.rows();
        if merged.rows != told {
            let cause = format!("its {} files have {} rows, and the log says {told}", seal.files(), merged.rows);
            self.throw_away(&merged);
            let place = format!("{} {}", self.place, seal.site);
            return Err(StorageError::stop(&place, cause, "run racklake-lake verify: a file is not what it was"));
        }
        self.commit_merged(seal, merged)
    }

    fn merge(&self, seal: &Seal, watch: &dyn Fn(u64) -> ControlFlow<()>) -> Result<Merged, MergeError> {
        let order = Order::new(self.table)?;
        let open = |file: &crate::delta::Live| Input::open(&self.lake, self.path_of(&file.path)?, file.bytes);
        let inputs = seal.inputs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let directory = self.delta.directory(partition_values(&seal.site, seal.day))?;
        let url = directory.url("", &format!("{}.parquet", Uuid::new_v4()));
        let (at, path, place) = (store_path(&self.lake, &url)?, directory.path(&url)?, url.path().to_owned());
        let failed = |error: parquet::errors::ParquetError| StorageError::of_store(&place, &error);
        let options = ArrowWriterOptions::new().with_properties(file::sealed_properties(self.table).map_err(failed)?);
        let output = Output::new(&self.lake, at.clone());
        let schema = order.schema().clone();
        let mut writer = ArrowWriter::try_new_with_options(output, schema, options.with_skip_arrow_metadata(true))
            .map_err(failed)?;
        let mut bounds = directory.bounds();
        let rows = merge(&order, inputs, |batch| {
            bounds.merge(batch)?;
            writer.write(batch).map_err(failed)?;
            match watch(batch.num_rows() as u64) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(StorageError::retry(&place, "the merge was stopped")),
            }
        })?;
        let bytes = writer.into_inner().map_err(failed)?.finish()?;
        let written_at = Clock::now_us();
        let add = bounds.add(file_meta(url, written_at / 1000, bytes))?;
        Ok(Merged { path, at, bytes, rows, written_at, add })
    }

    /// Puts the merged file in the place of its inputs, or throws it away.
    fn commit_merged(&mut self, seal: &Seal, merged: Merged) -> Result<Sealed, StorageError> {
        let gone: BTreeSet<String> = seal.inputs.iter().map(|file| file.path.clone()).collect();
        let adds = [merged.add.clone()];
        let change = Change { gone: &gone, adds: &adds, changes_rows: false, domain: None };
        let is_young = || Clock::now_us() - merged.written_at <= AGE_MAX;
        self.refresh()?;
        match self.exchange(&change, Some(&merged.at), &is_young)? {
            Exchanged::Committed => {
                let version = self.version();
                Ok(Sealed::Committed { version, path: merged.path, bytes: merged.bytes, rows: merged.rows })
            }
            Exchanged::Stale { was_tried } => {
                if !was_tried || !self.was_named(&merged) {
                    self.throw_away(&merged);
                }
                Ok(Sealed::Abandoned)
            }
        }
    }

    /// Whether the log names the file as one that was removed, so that it was live for a while and a reader may still want
    /// it; or whether that cannot be told.
    fn was_named(&self, merged: &Merged) -> bool {
        let removed = Log::load(&self.lake, self.table.name).and_then(|log| log.removed());
        removed.map_or(true, |removed| removed.contains_key(&merged.at))
    }

    /// Removes a file that no commit has named. A vacuum would do so later.
    fn throw_away(&self, merged: &Merged) {
        if let Err(error) = self.lake.wait(self.lake.store().delete(&merged.at)) {
            tracing::debug!(%error, path = merged.path, "a file that is not wanted stays behind");
        }
    }

    /// Whether all of these files are live in this version.
    fn has_all(&self, paths: &BTreeSet<String>) -> Result<bool, StorageError> {
        let live = self.delta.live()?;
        Ok(live.iter().filter(|file| paths.contains(&file.path)).count() == paths.len())
    }

    /// Where the store has a file that the log names.
    pub(crate) fn path_of(&self, path: &str) -> Result<Path, StorageError> {
        let url = self.lake.table_url(self.table.name)?.join(path);
        let url = url.map_err(|error| StorageError::stop(&self.place, error, "the log names what is no path"))?;
        store_path(&self.lake, &url)
    }
}
