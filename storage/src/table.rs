//! One Delta table: the only place that names delta_kernel, and the one function that makes rows visible.
//!
//! The kernel replays the log, writes commits and checkpoints; it resolves no conflict. The rule here does: a flush is
//! committed only on a snapshot that holds exactly the positions that the flush began at, and after any doubtful answer
//! the positions alone say whether it went through.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType as ArrowType, Field, Schema};
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::TryIntoKernel;
use delta_kernel::expressions::Scalar;
use delta_kernel::schema::{StructField, StructType};
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::transaction::{CommitResult, UpdateTableOperation, WriteState};
use delta_kernel::{Engine, FileMeta, KernelError, Snapshot, SnapshotRef};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::parquet::DataFileMetadata;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder, build_add_file_metadata};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use racklake_schemas::Table;
use racklake_schemas::clock::Clock;
use url::Url;

use crate::error::StorageError;
use crate::file::{self, DataFile, Directory, Part};

/// Who wrote a commit, for its `commitInfo`.
const ENGINE: &str = concat!("racklake/", env!("CARGO_PKG_VERSION"));
/// Files of quiet hours leave this directory when they are sealed; a plain glob over `site=*` does not see it.
const HOT: &str = "_hot";
/// A checkpoint after so many commits.
const CHECKPOINT_EVERY: u64 = 100;
/// Conflicts are somebody else's progress, so there may be many; errors are not.
const CONFLICTS_MAX: usize = 1000;
const ERRORS_MAX: usize = 3;

/// The store, and the kernel's engine on it.
pub(crate) struct Door {
    store: Arc<dyn ObjectStore>,
    engine: DefaultEngine<TokioMultiThreadExecutor>,
    runtime: tokio::runtime::Handle,
}

impl Door {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, runtime: tokio::runtime::Handle) -> Door {
        // The kernel's default executor hangs in a checkpoint.
        let executor = Arc::new(TokioMultiThreadExecutor::new(runtime.clone()));
        let engine = DefaultEngineBuilder::new(Arc::clone(&store)).with_task_executor(executor).build();
        Door { store, engine, runtime }
    }

    /// Waits for the store, from whatever thread.
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| self.runtime.block_on(work))
    }

    /// Stores bytes at a URL; durable when it returns.
    fn put(&self, url: &Url, bytes: Vec<u8>) -> Result<(), StorageError> {
        let place = || url.path().to_owned();
        let path = Path::from_url_path(url.path()).map_err(|error| StorageError::stop(place(), error.to_string()))?;
        let put = self.wait(self.store.put(&path, PutPayload::from(bytes)));
        put.map(|_| ()).map_err(|error| StorageError::of_store(&place(), &error))
    }

    fn get(&self, url: &Url) -> Result<bytes::Bytes, StorageError> {
        let place = || url.path().to_owned();
        let path = Path::from_url_path(url.path()).map_err(|error| StorageError::stop(place(), error.to_string()))?;
        let got = self.wait(async { self.store.get(&path).await?.bytes().await });
        got.map_err(|error| StorageError::of_store(&place(), &error))
    }

    /// Whether a table has no log yet.
    fn is_missing(&self, root: &Url) -> Result<bool, StorageError> {
        let place = || root.path().to_owned();
        let log = Path::from_url_path(format!("{}_delta_log", root.path()))
            .map_err(|error| StorageError::stop(place(), error.to_string()))?;
        let first = self.wait(async { self.store.list(Some(&log)).next().await });
        match first {
            None => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(error)) => Err(StorageError::of_store(&place(), &error)),
        }
    }
}

/// Where a partition's rows of one flush begin and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Whose position it is.
    pub app_id: String,
    /// The position that the flush began at; `None` where there was none.
    pub began_at: Option<i64>,
    /// The position after the flush: the next offset to read.
    pub next: i64,
}

/// How a commit ended, when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The rows are visible and durable, and the positions stand at the spans' ends.
    Committed {
        /// The table's version that holds them, or a later one.
        version: u64,
    },
    /// Nothing was committed: these app ids' positions are not where the flush began.
    Moved(Vec<String>),
}

/// What a table holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Committed rows.
    pub rows: u64,
    /// Data files.
    pub files: u64,
    /// Bytes of the data files.
    pub bytes: u64,
}

/// An open table of the lake. One flush at a time uses it.
pub struct LakeTable {
    table: &'static Table,
    delta: Delta,
    write_state: Arc<WriteState>,
}

impl LakeTable {
    pub(crate) fn open(door: &Arc<Door>, root: Url, table: &'static Table) -> Result<LakeTable, StorageError> {
        let mut fields: Vec<Field> =
            table.columns.iter().map(|column| Field::new(column.name, column.arrow_type(), true)).collect();
        fields.push(Field::new("dt", ArrowType::Date32, true));
        let schema = Schema::new(fields);
        let delta = Delta::open(door, root, &schema, &["site", "dt"])?;
        let write_state = delta.write_state()?;
        Ok(LakeTable { table, delta, write_state })
    }

    /// Reads what others have committed since.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn refresh(&mut self) -> Result<(), StorageError> {
        self.delta.refresh()
    }

    /// The version of the table as it was last read or committed.
    pub fn version(&self) -> u64 {
        self.delta.snapshot.version()
    }

    /// The position of an app id: the next offset, as of `version`.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn position(&self, app_id: &str) -> Result<Option<i64>, StorageError> {
        self.delta.position(app_id)
    }

    /// Writes the rows of one flush as data files: sorted by the table's key, one file per site and day, durable when it
    /// returns. No reader sees them before they are committed; a file that never is stays an orphan.
    ///
    /// # Errors
    /// `NoRoom` or `Retry` of the store; `Stop` where the rows are not of this table.
    pub fn write(&self, batches: &[RecordBatch]) -> Result<Vec<DataFile>, StorageError> {
        let parts = file::divide(self.table, batches).map_err(|error| self.delta.not_ours(&error))?;
        parts.into_iter().map(|part| self.write_part(part)).collect()
    }

    fn write_part(&self, part: Part) -> Result<DataFile, StorageError> {
        let Part { directory, batch } = part;
        let bytes = file::to_parquet(self.table, &batch).map_err(|error| self.delta.not_ours(&error))?;
        let context = self.write_context(&directory)?;
        let mut stats = FileStatsAccumulator::new(context.stats_columns(), context.physical_data_schema());
        stats.merge(&batch).map_err(|error| self.delta.failed(error))?;
        let stats = stats.finish().map_err(|error| self.delta.failed(error))?;
        let stats = stats.ok_or_else(|| StorageError::stop(self.delta.root.path(), "a file without statistics"))?;
        let day = arrow::temporal_conversions::date32_to_datetime(directory.dt)
            .map_or_else(|| directory.dt.to_string(), |day| day.format("%Y-%m-%d").to_string());
        let name = format!("{HOT}/site={}/dt={day}/{}.parquet", directory.site, uuid::Uuid::new_v4());
        let url = self.delta.root.join(&name).map_err(|error| self.delta.not_ours(&error))?;
        let size = bytes.len() as u64;
        self.delta.door.put(&url, bytes)?;
        Ok(DataFile::new(url, size, Clock::now_us() / 1000, stats, directory, batch.num_rows()))
    }

    fn write_context(
        &self,
        directory: &Directory,
    ) -> Result<delta_kernel::transaction::BoundWriteContext, StorageError> {
        let values = HashMap::from([
            ("site".to_owned(), Scalar::from(directory.site.as_str())),
            ("dt".to_owned(), Scalar::Date(directory.dt)),
        ]);
        let builder = self.write_state.write_context_builder().with_partition_values(values);
        builder.build().map_err(|error| self.delta.failed(error))
    }

    /// Makes files visible together with the new positions, in one Delta commit; without files the positions alone move.
    /// Nothing is committed unless every position stands exactly where the flush began: a writer that was replaced and
    /// does not know it would otherwise commit rows that its successor has committed already.
    ///
    /// # Errors
    /// Any [`StorageError`]; the same call may be made again, since the positions tell whether it went through.
    pub fn commit(&mut self, files: &[DataFile], spans: &[Span]) -> Result<Outcome, StorageError> {
        let (mut conflicts, mut errors) = (0, 0);
        loop {
            match self.stand(spans)? {
                Stand::Done => return Ok(Outcome::Committed { version: self.version() }),
                Stand::Moved(apps) => return Ok(Outcome::Moved(apps)),
                Stand::Ready => {}
            }
            let problem = match self.try_commit(files, spans) {
                Ok(true) => return Ok(Outcome::Committed { version: self.version() }),
                Ok(false) => {
                    conflicts += 1;
                    let place = self.delta.root.path().to_owned();
                    StorageError::Retry { place, cause: format!("{conflicts} commits of others came first") }
                }
                Err(error) => {
                    errors += 1;
                    error
                }
            };
            if errors >= ERRORS_MAX || conflicts >= CONFLICTS_MAX || matches!(problem, StorageError::NoRoom { .. }) {
                return Err(problem);
            }
            std::thread::sleep(Duration::from_millis(if errors > 0 { 100 << errors } else { conflicts as u64 % 7 }));
            // Whatever happened, only what the log says now counts.
            self.refresh()?;
        }
    }

    /// How the stored positions compare with those of a flush.
    fn stand(&self, spans: &[Span]) -> Result<Stand, StorageError> {
        let mut moved = Vec::new();
        let mut done = 0;
        for span in spans {
            let position = self.position(&span.app_id)?;
            if position == Some(span.next) && span.began_at != Some(span.next) {
                done += 1;
            }
            if position != span.began_at {
                moved.push(span.app_id.clone());
            }
        }
        Ok(match moved.is_empty() {
            true => Stand::Ready,
            false if done == spans.len() => Stand::Done,
            false => Stand::Moved(moved),
        })
    }

    /// One try on the snapshot in hand; false when another commit took the version.
    fn try_commit(&mut self, files: &[DataFile], spans: &[Span]) -> Result<bool, StorageError> {
        let mut adds = Vec::with_capacity(files.len());
        for file in files {
            let meta = FileMeta::new(file.url.clone(), file.written_ms, file.bytes);
            let data = DataFileMetadata::new(meta, file.stats.clone());
            let context = self.write_context(&file.directory)?;
            adds.push(build_add_file_metadata(data, &context).map_err(|error| self.delta.failed(error))?);
        }
        let snapshot = Arc::clone(&self.delta.snapshot);
        let mut builder = snapshot.update_table(UpdateTableOperation::StreamingUpdate, ENGINE, true);
        if !adds.is_empty() {
            builder = builder.with_blind_append(); // the kernel refuses the word for positions alone
        }
        let mut transaction = builder
            .build(&self.delta.door.engine, Box::new(FileSystemCommitter::new()))
            .map_err(|error| self.delta.failed(error))?;
        for span in spans {
            transaction = transaction.with_transaction_id(span.app_id.clone(), span.next);
        }
        for add in adds {
            transaction.add_files(add);
        }
        let result = transaction.commit(&self.delta.door.engine).map_err(|error| self.delta.failed(error))?;
        self.delta.take(result)
    }

    /// Rows, files and bytes of the version in hand.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn contents(&self) -> Result<Contents, StorageError> {
        let files = self.delta.files()?;
        Ok(files.iter().fold(Contents::default(), |all, file| Contents {
            rows: all.rows + file.rows,
            files: all.files + 1,
            bytes: all.bytes + file.bytes,
        }))
    }

    /// All rows of the version in hand, file by file, without `site` and `dt`. For small tables.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn read(&self) -> Result<Vec<RecordBatch>, StorageError> {
        self.delta.read()
    }
}

enum Stand {
    Ready,
    Done,
    Moved(Vec<String>),
}

/// A live file of a table.
pub(crate) struct LiveFile {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
}

/// The log of one table, whatever its columns are.
pub(crate) struct Delta {
    pub(crate) door: Arc<Door>,
    pub(crate) root: Url,
    pub(crate) snapshot: SnapshotRef,
}

impl Delta {
    /// Opens a table, creating it where it is missing and adding the columns that it lacks.
    pub(crate) fn open(
        door: &Arc<Door>,
        root: Url,
        schema: &Schema,
        partitioned_by: &[&str],
    ) -> Result<Delta, StorageError> {
        let failed = |error| kernel_error(&root, error);
        let kernel_schema: StructType = schema
            .try_into_kernel()
            .map_err(|e: arrow::error::ArrowError| StorageError::stop(root.path(), format!("no Delta schema: {e}")))?;
        if door.is_missing(&root)? {
            make_directory(&root)?;
            let mut builder = create_table(root.as_str(), Arc::new(kernel_schema.clone()), ENGINE, false)
                .with_table_properties([
                    ("delta.checkpointInterval", CHECKPOINT_EVERY.to_string().as_str()),
                    ("delta.dataSkippingStatsColumns", &skipping_columns(schema)),
                    ("delta.feature.domainMetadata", "supported"),
                ]);
            if !partitioned_by.is_empty() {
                builder = builder.with_data_layout(DataLayout::partitioned(partitioned_by.iter().copied()));
            }
            let created = builder.build(&door.engine, Box::new(FileSystemCommitter::new()));
            // Another process may create it in the same moment; what counts is that it is there afterwards.
            if let Err(error) = created.and_then(|transaction| transaction.commit(&door.engine))
                && door.is_missing(&root)?
            {
                return Err(failed(error));
            }
        }
        let snapshot = Snapshot::builder_for(root.as_str()).build(&door.engine).map_err(failed)?;
        let mut delta = Delta { door: Arc::clone(door), root, snapshot };
        delta.refuse_foreign_properties()?;
        delta.add_missing_columns(&kernel_schema)?;
        Ok(delta)
    }

    /// A table that forgets positions cannot be written exactly once.
    fn refuse_foreign_properties(&self) -> Result<(), StorageError> {
        match self.snapshot.table_properties().set_transaction_retention_duration {
            None => Ok(()),
            Some(_) => Err(StorageError::stop(
                self.root.path(),
                "the table property delta.setTransactionRetentionDuration is set; it makes readers forget Kafka \
                 positions, so rows would be read twice. Unset it: ALTER TABLE … UNSET TBLPROPERTIES",
            )),
        }
    }

    fn add_missing_columns(&mut self, wanted: &StructType) -> Result<(), StorageError> {
        for _ in 0..CONFLICTS_MAX {
            let have = self.snapshot.schema();
            let missing: Vec<StructField> =
                wanted.fields().filter(|field| have.field(field.name()).is_none()).cloned().collect();
            if missing.is_empty() {
                return Ok(());
            }
            let builder = Arc::clone(&self.snapshot).update_table(UpdateTableOperation::AlterTable, ENGINE, false);
            let builder = missing.into_iter().fold(builder, |builder, field| builder.add_column(field));
            let transaction = builder.build(&self.door.engine, Box::new(FileSystemCommitter::new()));
            let result = transaction.and_then(|transaction| transaction.commit(&self.door.engine));
            let result = result.map_err(|error| self.failed(error))?;
            if !self.take(result)? {
                self.refresh()?;
            }
        }
        Err(StorageError::stop(self.root.path(), "other writers left no moment to add the new columns"))
    }

    fn write_state(&self) -> Result<Arc<WriteState>, StorageError> {
        let builder = Arc::clone(&self.snapshot).update_table(UpdateTableOperation::StreamingUpdate, ENGINE, true);
        let transaction = builder.build(&self.door.engine, Box::new(FileSystemCommitter::new()));
        transaction.and_then(|transaction| transaction.write_state()).map_err(|error| self.failed(error))
    }

    pub(crate) fn refresh(&mut self) -> Result<(), StorageError> {
        let newer = Snapshot::builder_from(Arc::clone(&self.snapshot)).build(&self.door.engine);
        self.snapshot = newer.map_err(|error| self.failed(error))?;
        Ok(())
    }

    fn position(&self, app_id: &str) -> Result<Option<i64>, StorageError> {
        self.snapshot.get_app_id_version(app_id, &self.door.engine).map_err(|error| self.failed(error))
    }

    /// Takes over what a commit gave; false for a conflict.
    pub(crate) fn take(&mut self, result: CommitResult) -> Result<bool, StorageError> {
        let committed = match result {
            CommitResult::Committed(committed) => committed,
            CommitResult::Conflicted(_) => return Ok(false),
            CommitResult::Retryable(retryable) => return Err(self.failed(retryable.error)),
        };
        match committed.post_commit_snapshot() {
            Some(snapshot) => self.snapshot = Arc::clone(snapshot),
            None => self.refresh()?,
        }
        if committed.commit_version() % CHECKPOINT_EVERY == 0 && committed.commit_version() > 0 {
            self.checkpoint();
        }
        Ok(true)
    }

    /// Readers open a table faster from a checkpoint; without one they are slower, not wrong.
    fn checkpoint(&mut self) {
        match self.snapshot.checkpoint(&self.door.engine, None) {
            Ok((_, snapshot)) => self.snapshot = snapshot,
            Err(error) => tracing::warn!(table = self.root.path(), "no checkpoint was written: {error}"),
        }
    }

    pub(crate) fn files(&self) -> Result<Vec<LiveFile>, StorageError> {
        let scan = Arc::clone(&self.snapshot).scan_builder().build().map_err(|error| self.failed(error))?;
        let mut found = Vec::new();
        for metadata in scan.scan_metadata(&self.door.engine).map_err(|error| self.failed(error))? {
            let metadata = metadata.map_err(|error| self.failed(error))?;
            found = metadata
                .visit_scan_files(found, |found: &mut Vec<LiveFile>, file| {
                    let rows = file.stats.map_or(0, |stats| stats.num_records);
                    found.push(LiveFile { path: file.path, bytes: file.size.max(0) as u64, rows });
                })
                .map_err(|error| self.failed(error))?;
        }
        Ok(found)
    }

    pub(crate) fn read(&self) -> Result<Vec<RecordBatch>, StorageError> {
        let mut batches = Vec::new();
        for live in self.files()? {
            let url = self.root.join(&live.path).map_err(|error| self.not_ours(&error))?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(self.door.get(&url)?).and_then(|b| b.build());
            for batch in reader.map_err(|error| self.not_ours(&error))? {
                batches.push(batch.map_err(|error| self.not_ours(&error))?);
            }
        }
        Ok(batches)
    }

    pub(crate) fn failed(&self, error: KernelError) -> StorageError {
        kernel_error(&self.root, error)
    }

    pub(crate) fn not_ours(&self, error: &dyn std::error::Error) -> StorageError {
        StorageError::stop(self.root.path(), error.to_string())
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &self.door.engine
    }

    /// Puts a batch as a file of an unpartitioned table and gives its add action.
    pub(crate) fn write_plain(
        &self,
        batch: &RecordBatch,
        bytes: Vec<u8>,
    ) -> Result<Box<dyn delta_kernel::EngineData>, StorageError> {
        let context = self.write_state()?.write_context_builder().build().map_err(|error| self.failed(error))?;
        let name = format!("{}.parquet", uuid::Uuid::new_v4());
        let url = self.root.join(&name).map_err(|error| self.not_ours(&error))?;
        let meta = FileMeta::new(url.clone(), Clock::now_us() / 1000, bytes.len() as u64);
        self.door.put(&url, bytes)?;
        let mut stats = FileStatsAccumulator::new(context.stats_columns(), context.physical_data_schema());
        stats.merge(batch).map_err(|error| self.failed(error))?;
        let stats = stats.finish().map_err(|error| self.failed(error))?;
        let stats = stats.ok_or_else(|| StorageError::stop(self.root.path(), "a file without statistics"))?;
        build_add_file_metadata(DataFileMetadata::new(meta, stats), &context).map_err(|error| self.failed(error))
    }
}

/// The kernel wants the directory of a local table to be there; an object store has none.
fn make_directory(root: &Url) -> Result<(), StorageError> {
    match root.to_file_path() {
        Ok(path) if root.scheme() == "file" => {
            std::fs::create_dir_all(&path).map_err(|error| StorageError::of_store(&path.display().to_string(), &error))
        }
        _ => Ok(()),
    }
}

/// Statistics in the log for the columns that queries narrow by; more would only make it longer.
fn skipping_columns(schema: &Schema) -> String {
    let wanted = ["ts", "device_id", "table", "column"];
    let found = wanted.into_iter().filter(|name| schema.field_with_name(name).is_ok());
    found.collect::<Vec<_>>().join(",")
}

/// The kernel's errors by what the caller does: those of the store may pass, the others need an operator.
fn kernel_error(root: &Url, error: KernelError) -> StorageError {
    let mut beneath = &error;
    while let KernelError::Backtraced { source, .. } = beneath {
        beneath = source;
    }
    match beneath {
        KernelError::ObjectStore(error) => StorageError::of_store(root.path(), error),
        KernelError::IOError(error) => StorageError::of_store(root.path(), error),
        KernelError::Reqwest(error) => StorageError::of_store(root.path(), error),
        _ => match StorageError::of_store(root.path(), &error) {
            StorageError::Retry { place, cause } => StorageError::Stop { place, cause },
            no_room => no_room,
        },
    }
}
