//! The files of one version with what the log says of their rows, and the commit that puts some in the place of others.
//!
//! Files go only if every one of them is live in the version that the commit is built on: a stale list of removals,
//! replayed on a newer version, would double the rows that its additions hold. `exchange` sees to that.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray as _, RecordBatch, StringArray};
use arrow::compute::kernels::cast_utils::Parser as _;
use arrow::datatypes::{Date32Type, Int64Type, TimestampMicrosecondType};
use delta_kernel::KernelError;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::transaction::UpdateTableOperation;
use std::sync::Arc;

use super::{Attempt, DeltaTable, WRITER};
use crate::error::StorageError;
use crate::file::{DT, SITE};

/// The log cuts times down to milliseconds, so a maximum may be this much (µs) too low.
const CUT_US: i64 = 999;
const NOT_OURS: &str = "give racklake a table of its own: the log names files as no racklake does";

/// A file that a reader of this version reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Live {
    /// Path as the log has it: relative to the table, percent-encoded.
    pub(crate) path: String,
    /// Size, bytes.
    pub(crate) bytes: u64,
    /// Rows, as the log tells.
    pub(crate) rows: u64,
    /// Partition value `site`.
    pub(crate) site: String,
    /// Partition value `dt`, days since 1970.
    pub(crate) day: i32,
    /// Earliest and latest time of reading, µs UTC; the latest is at most a millisecond too late. `None` where the log
    /// does not tell them.
    pub(crate) read: Option<(i64, i64)>,
    /// Latest arrival, µs UTC, likewise; where the log does not tell it, when the file was written.
    pub(crate) received: i64,
}

/// What a commit does to the files of a table.
pub(crate) struct Change<'a> {
    /// Files that go, by their paths in the log.
    pub(crate) gone: &'a BTreeSet<String>,
    /// Add actions of those that come.
    pub(crate) adds: &'a [RecordBatch],
    /// Whether readers find other rows afterwards.
    pub(crate) changes_rows: bool,
    /// A domain that is written in the same commit: name and text.
    pub(crate) domain: Option<(&'a str, &'a str)>,
}

/// The log's rows of files that are to go, all of them live in one version.
pub(crate) struct Found {
    /// That version.
    pub(crate) version: u64,
    rows: Vec<(RecordBatch, Vec<bool>)>,
}

impl DeltaTable {
    /// The files of this version.
    pub(crate) fn live(&self) -> Result<Vec<Live>, StorageError> {
        let mut files = Vec::new();
        for (batch, selected) in self.scan_files()? {
            let rows = FileRows::new(&batch).ok_or_else(|| self.strange("its files are listed in another way"))?;
            for row in (0..batch.num_rows()).filter(|row| is_selected(&selected, *row)) {
                files.push(rows.file(row).map_err(|cause| self.strange(&cause))?);
            }
        }
        Ok(files)
    }

    /// Finds files in this version; nothing where one of them is not live.
    pub(crate) fn find(&self, paths: &BTreeSet<String>) -> Result<Option<Found>, StorageError> {
        let mut rows = Vec::new();
        let mut found = 0;
        for (batch, selected) in self.scan_files()? {
            let files = FileRows::new(&batch).ok_or_else(|| self.strange("its files are listed in another way"))?;
            let is_meant = |row| is_selected(&selected, row) && paths.contains(files.paths.value(row));
            // As long as the batch: rows behind a selection's end count as selected.
            let chosen: Vec<bool> = (0..batch.num_rows()).map(is_meant).collect();
            let count = chosen.iter().filter(|chosen| **chosen).count();
            if count > 0 {
                found += count;
                rows.push((batch, chosen));
            }
        }
        Ok((found == paths.len()).then(|| Found { version: self.version(), rows }))
    }

    /// Tries once to let files go and others come, on top of this version, in which the files were found.
    pub(crate) fn exchange(&mut self, found: &Found, change: &Change<'_>) -> Result<Attempt, StorageError> {
        if found.version != self.version() {
            return Ok(Attempt::Conflicted);
        }
        let operation = if change.changes_rows { UpdateTableOperation::Delete } else { UpdateTableOperation::Optimize };
        let build = || {
            let snapshot = Arc::clone(&self.snapshot);
            let mut builder = snapshot.update_table(operation, WRITER, change.changes_rows);
            if let Some((name, text)) = change.domain {
                builder = builder.with_domain_metadata(name, text);
            }
            let mut transaction = builder.build(self.engine.kernel.as_ref(), Box::new(FileSystemCommitter::new()))?;
            for (batch, chosen) in &found.rows {
                let batch = Box::new(ArrowEngineData::new(batch.clone()));
                transaction.remove_files(FilteredEngineData::try_new(batch, chosen.clone())?);
            }
            for add in change.adds {
                transaction.add_files(Box::new(ArrowEngineData::new(add.clone())));
            }
            Ok(transaction)
        };
        let transaction = build().map_err(|error| self.judge(error))?;
        self.commit(transaction)
    }

    /// The rows that a scan gives, one for each file, and which of them are meant.
    fn scan_files(&self) -> Result<Vec<(RecordBatch, Vec<bool>)>, StorageError> {
        let scan = || {
            let scan = Arc::clone(&self.snapshot).scan_builder().build()?;
            let batches = scan.scan_metadata(self.engine.kernel.as_ref())?.map(|live| {
                let (data, selected) = live?.scan_files.into_parts();
                Ok((ArrowEngineData::try_from_engine_data(data)?.record_batch().clone(), selected))
            });
            batches.collect::<Result<Vec<_>, KernelError>>()
        };
        scan().map_err(|error| self.judge(error))
    }

    fn strange(&self, cause: &str) -> StorageError {
        StorageError::stop(&self.place, cause, NOT_OURS)
    }
}

fn is_selected(selected: &[bool], row: usize) -> bool {
    selected.get(row).copied().unwrap_or(true)
}

/// The columns of a scan's rows.
struct FileRows<'a> {
    paths: &'a StringArray,
    sizes: &'a [i64],
    modified: &'a arrow::array::Int64Array,
    stats: &'a StringArray,
    deletions: &'a dyn Array,
    partitions: &'a arrow::array::MapArray,
}

impl<'a> FileRows<'a> {
    fn new(batch: &'a RecordBatch) -> Option<FileRows<'a>> {
        let text = |name| batch.column_by_name(name)?.as_string_opt::<i32>();
        let constants = batch.column_by_name("fileConstantValues")?.as_struct_opt()?;
        Some(FileRows {
            paths: text("path")?,
            sizes: batch.column_by_name("size")?.as_primitive_opt::<Int64Type>()?.values(),
            modified: batch.column_by_name("modificationTime")?.as_primitive_opt::<Int64Type>()?,
            stats: text("stats")?,
            deletions: batch.column_by_name("deletionVector")?.as_ref(),
            partitions: constants.column_by_name("partitionValues")?.as_map_opt()?,
        })
    }

    fn file(&self, row: usize) -> Result<Live, String> {
        let path = self.paths.value(row);
        if self.deletions.is_valid(row) {
            return Err(format!("file {path} has rows that are deleted by a vector"));
        }
        let site = self.partition(row, SITE).ok_or_else(|| format!("file {path} is of no site"))?;
        let day = self.partition(row, DT).and_then(|dt| Date32Type::parse(&dt));
        let stats = Some(self.stats).filter(|stats| stats.is_valid(row)).map(|stats| stats.value(row));
        let stats: serde_json::Value = stats.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let time = |bound: &str, column: &str| TimestampMicrosecondType::parse(stats[bound][column].as_str()?);
        let read = time("minValues", "ts").zip(time("maxValues", "ts").map(|latest| latest + CUT_US));
        let written = if self.modified.is_valid(row) { self.modified.value(row) * 1000 } else { i64::MAX };
        Ok(Live {
            path: path.to_owned(),
            bytes: u64::try_from(self.sizes[row]).unwrap_or_default(),
            rows: stats["numRecords"]
                .as_u64()
                .ok_or_else(|| format!("file {path} does not say how many rows it has"))?,
            site,
            day: day.ok_or_else(|| format!("file {path} is of no date"))?,
            read,
            received: time("maxValues", "received_at").map_or(written, |latest| latest + CUT_US),
        })
    }

    fn partition(&self, row: usize, name: &str) -> Option<String> {
        let entries = self.partitions.value(row);
        let (keys, values) = (entries.column(0).as_string_opt::<i32>()?, entries.column(1).as_string_opt::<i32>()?);
        let place = keys.iter().position(|key| key == Some(name))?;
        values.is_valid(place).then(|| values.value(place).to_owned())
    }
}
