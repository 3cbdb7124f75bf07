//! The one door to delta_kernel: create a table, load it, add files, positions and domains in one commit, checkpoint.
//!
//! The kernel writes a commit as a file that must not exist yet, so of two writers of one version one is told of a
//! conflict; it makes no logical check beyond that. Whether a commit may be made is decided in `table`. After any error
//! of a commit its outcome is unknown until the table has been refreshed.

mod live;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::TryFromArrow as _;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::expressions::Scalar;
use delta_kernel::schema::{StructField, StructType};
use delta_kernel::snapshot::CheckpointWriteResult;
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::data_layout::DataLayout;
use delta_kernel::transaction::{CommitResult, Transaction, UpdateTableOperation, WriteState};
use delta_kernel::{FileMeta, KernelError, Snapshot, SnapshotRef};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::parquet::DataFileMetadata;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder, build_add_file_metadata};
use object_store::ObjectStore;
use tokio::runtime::Handle;
use url::Url;

use crate::error::StorageError;
use crate::table::Span;
pub(crate) use live::{Change, Found, Live};

/// A checkpoint is written after this many commits.
const CHECKPOINT_COMMITS: u64 = 100;
const WRITER: &str = concat!("racklake/", env!("CARGO_PKG_VERSION"));
/// It would let positions expire.
const RETENTION: &str = "delta.setTransactionRetentionDuration";
const NOT_OURS: &str = "give racklake a table of its own";

/// What reads and writes the Delta logs of one lake. Clones share it.
#[derive(Clone)]
pub(crate) struct Engine {
    kernel: Arc<DefaultEngine<TokioMultiThreadExecutor>>,
}

/// What a table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Committed rows.
    pub rows: u64,
    /// Data files.
    pub files: u64,
    /// Bytes of the data files.
    pub bytes: u64,
}

/// What a table must look like.
pub(crate) struct Shape {
    /// Its columns, partition columns too.
    pub(crate) columns: SchemaRef,
    /// Its partition columns.
    pub(crate) partitions: &'static [&'static str],
    /// Columns whose minimum and maximum each add action carries.
    pub(crate) stats: Vec<&'static str>,
}

/// A table at one version.
pub(crate) struct DeltaTable {
    engine: Engine,
    place: String,
    snapshot: SnapshotRef,
}

/// Outcome of trying to write one version of the log.
pub(crate) enum Attempt {
    /// It is ours.
    Committed,
    /// Somebody else has written that version.
    Conflicted,
}

/// Tells where a file of one directory goes, and describes it once it is there.
pub(crate) struct Directory<'a> {
    table: &'a DeltaTable,
    context: delta_kernel::transaction::BoundWriteContext,
}

impl Engine {
    /// The executor is the multi-threaded one: with the default one a checkpoint never ends.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, runtime: Handle) -> Engine {
        let executor = Arc::new(TokioMultiThreadExecutor::new(runtime));
        Engine { kernel: Arc::new(DefaultEngineBuilder::new(store).with_task_executor(executor).build()) }
    }

    /// The kernel's own interface, for reading a log as it is.
    pub(crate) fn kernel(&self) -> &dyn delta_kernel::Engine {
        self.kernel.as_ref()
    }
}

impl DeltaTable {
    /// Opens the table, and creates it where it is missing; losing that race to another creator is fine.
    pub(crate) fn open(engine: &Engine, root: &Url, place: &str, shape: &Shape) -> Result<DeltaTable, StorageError> {
        let judged = |error| judge(place, error);
        let wanted = StructType::try_from_arrow(shape.columns.as_ref())
            .map_err(|error| StorageError::stop(place, error, "report it: the catalog does not fit Delta"))?;
        create(engine, root, &wanted, shape).map_err(judged)?;
        let snapshot = Snapshot::builder_for(root.as_str()).build(engine.kernel.as_ref()).map_err(judged)?;
        let mut table = DeltaTable { engine: engine.clone(), place: place.to_owned(), snapshot };
        while let Some(missing) = table.missing(&wanted)? {
            table.add_columns(missing)?;
        }
        table.check(&wanted, shape)?;
        Ok(table)
    }

    /// Loads the newest version.
    pub(crate) fn refresh(&mut self) -> Result<(), StorageError> {
        let newest = Snapshot::builder_from(Arc::clone(&self.snapshot)).build(self.engine.kernel.as_ref());
        let newest = newest.map_err(|error| self.judge(error))?;
        // A version that is refused is not taken over, or the next commit could be built on it.
        self.check_retention(&newest)?;
        self.snapshot = newest;
        Ok(())
    }

    pub(crate) fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// The position of an app id at this version.
    pub(crate) fn position(&self, app_id: &str) -> Result<Option<i64>, StorageError> {
        self.snapshot.get_app_id_version(app_id, self.engine.kernel.as_ref()).map_err(|error| self.judge(error))
    }

    /// All domains at this version that are no internal ones of Delta.
    pub(crate) fn domains(&self) -> Result<BTreeMap<String, Arc<str>>, StorageError> {
        let all = self.snapshot.get_all_domain_metadata(self.engine.kernel.as_ref()).map_err(|e| self.judge(e))?;
        Ok(all.iter().map(|domain| (domain.domain().to_owned(), Arc::from(domain.configuration()))).collect())
    }

    /// The directory of the given partition values.
    pub(crate) fn directory(&self, values: HashMap<String, Scalar>) -> Result<Directory<'_>, StorageError> {
        let mut builder = self.write_state()?.write_context_builder();
        if !values.is_empty() {
            builder = builder.with_partition_values(values);
        }
        let context = builder.build().map_err(|error| self.judge(error))?;
        Ok(Directory { table: self, context })
    }

    /// Tries once to commit files, positions and domains on top of this version.
    pub(crate) fn append(&mut self, adds: &[&RecordBatch], spans: &[Span]) -> Result<Attempt, StorageError> {
        let snapshot = Arc::clone(&self.snapshot);
        let mut builder = snapshot.update_table(UpdateTableOperation::StreamingUpdate, WRITER, true);
        if !adds.is_empty() {
            builder = builder.with_blind_append();
        }
        for span in spans {
            builder = builder.with_transaction_id(span.app_id.as_str(), span.next);
            if let Some(change) = &span.domain {
                builder = builder.with_domain_metadata(change.name.as_str(), &*change.now);
            }
        }
        let built = builder.build(self.engine.kernel.as_ref(), Box::new(FileSystemCommitter::new()));
        let mut transaction = built.map_err(|error| self.judge(error))?;
        for add in adds {
            transaction.add_files(Box::new(ArrowEngineData::new((*add).clone())));
        }
        self.commit(transaction)
    }

    /// Tries once to put one file in the place of all others.
    pub(crate) fn replace(&mut self, add: &RecordBatch) -> Result<Attempt, StorageError> {
        let engine = Arc::clone(&self.engine.kernel);
        let build = || {
            let snapshot = Arc::clone(&self.snapshot);
            let mut transaction = snapshot
                .update_table(UpdateTableOperation::Write, WRITER, true)
                .build(engine.as_ref(), Box::new(FileSystemCommitter::new()))?;
            let scan = Arc::clone(&self.snapshot).scan_builder().build()?;
            for live in scan.scan_metadata(engine.as_ref())? {
                transaction.remove_files(live?.scan_files);
            }
            transaction.add_files(Box::new(ArrowEngineData::new(add.clone())));
            Ok(transaction)
        };
        let transaction = build().map_err(|error| self.judge(error))?;
        self.commit(transaction)
    }

    /// How many rows and files the version has, and their bytes.
    pub(crate) fn contents(&self) -> Result<Contents, StorageError> {
        let count = || {
            let mut contents = Contents::default();
            let scan = Arc::clone(&self.snapshot).scan_builder().build()?;
            for live in scan.scan_metadata(self.engine.kernel.as_ref())? {
                contents = live?.visit_scan_files(contents, |contents: &mut Contents, file| {
                    contents.files += 1;
                    contents.bytes += u64::try_from(file.size).unwrap_or_default();
                    contents.rows += file.stats.map_or(0, |stats| stats.num_records);
                })?;
            }
            Ok(contents)
        };
        count().map_err(|error| self.judge(error))
    }

    /// All rows of the table, for small tables.
    pub(crate) fn rows(&self) -> Result<Vec<RecordBatch>, StorageError> {
        let read = || {
            let scan = Arc::clone(&self.snapshot).scan_builder().build()?;
            let engine: Arc<dyn delta_kernel::Engine> = self.engine.kernel.clone();
            let batch = |data| Ok(ArrowEngineData::try_from_engine_data(data?)?.record_batch().clone());
            scan.execute(engine)?.map(batch).collect::<Result<_, KernelError>>()
        };
        read().map_err(|error| self.judge(error))
    }

    /// Writes a checkpoint where one is due. Nothing depends on it but the time that the next opening takes, so a failed
    /// one is only logged.
    pub(crate) fn checkpoint_if_due(&mut self) {
        if !self.version().is_multiple_of(CHECKPOINT_COMMITS) {
            return;
        }
        if let Err(error) = self.checkpoint() {
            tracing::warn!(%error, version = self.version(), "no checkpoint; commits go on");
        }
    }

    /// Writes a checkpoint of this version; says whether there was none yet.
    pub(crate) fn checkpoint(&mut self) -> Result<bool, StorageError> {
        let written = self.snapshot.checkpoint(self.engine.kernel.as_ref(), None);
        let (result, snapshot) = written.map_err(|error| self.judge(error))?;
        self.snapshot = snapshot;
        Ok(!matches!(result, CheckpointWriteResult::AlreadyExists))
    }

    fn commit(&mut self, transaction: Transaction) -> Result<Attempt, StorageError> {
        match transaction.commit(self.engine.kernel.as_ref()) {
            Ok(CommitResult::Committed(committed)) => {
                match committed.post_commit_snapshot() {
                    Some(snapshot) => self.snapshot = Arc::clone(snapshot),
                    None => self.refresh()?,
                }
                Ok(Attempt::Committed)
            }
            Ok(CommitResult::Conflicted(_)) => Ok(Attempt::Conflicted),
            Ok(CommitResult::Retryable(retryable)) => Err(self.judge(retryable.error)),
            Err(error) => Err(self.judge(error)),
        }
    }

    fn write_state(&self) -> Result<Arc<WriteState>, StorageError> {
        let build = || self.update(UpdateTableOperation::Write)?.write_state();
        build().map_err(|error| self.judge(error))
    }

    fn update(&self, operation: UpdateTableOperation) -> Result<Transaction, KernelError> {
        let builder = Arc::clone(&self.snapshot).update_table(operation, WRITER, true);
        builder.build(self.engine.kernel.as_ref(), Box::new(FileSystemCommitter::new()))
    }

    /// The wanted columns that the table has not, or nothing.
    fn missing(&self, wanted: &StructType) -> Result<Option<Vec<StructField>>, StorageError> {
        let has = self.snapshot.schema();
        let mut missing = Vec::new();
        for field in wanted.fields() {
            match has.field(field.name()) {
                None => missing.push(field.clone()),
                Some(present) if present.data_type() == field.data_type() => {}
                Some(present) => {
                    let (name, is, must) = (field.name(), present.data_type(), field.data_type());
                    return Err(self.stop(format!("column {name} is {is} in the table and {must} in the catalog")));
                }
            }
        }
        Ok(if missing.is_empty() { None } else { Some(missing) })
    }

    fn add_columns(&mut self, columns: Vec<StructField>) -> Result<(), StorageError> {
        let names: Vec<_> = columns.iter().map(|column| column.name().clone()).collect();
        let mut builder = Arc::clone(&self.snapshot).update_table(UpdateTableOperation::AlterTable, WRITER, false);
        for column in columns {
            builder = builder.add_column(column);
        }
        let built = builder.build(self.engine.kernel.as_ref(), Box::new(FileSystemCommitter::new()));
        let transaction = built.map_err(|error| self.judge(error))?;
        match self.commit(transaction)? {
            Attempt::Committed => tracing::info!(table = self.place, ?names, "columns added"),
            Attempt::Conflicted => self.refresh()?,
        }
        Ok(())
    }

    /// Refuses a table that our files would not fit, or that would lose positions.
    fn check(&self, wanted: &StructType, shape: &Shape) -> Result<(), StorageError> {
        self.check_retention(&self.snapshot)?;
        let transaction = self.update(UpdateTableOperation::Write).map_err(|error| self.judge(error))?;
        if transaction.logical_partition_columns() != shape.partitions {
            let (is, must) = (transaction.logical_partition_columns(), shape.partitions);
            return Err(self.stop(format!("the table is partitioned by {is:?} instead of {must:?}")));
        }
        let directory = self.directory(shape.partitions.iter().map(|name| null(wanted, name)).collect())?;
        let in_file = directory.context.physical_data_schema();
        let is_partition = |name: &str| shape.partitions.contains(&name);
        match wanted.fields().find(|field| in_file.field(field.name()).is_some() == is_partition(field.name())) {
            Some(field) => Err(self.stop(format!("files of the table hold column {} in another way", field.name()))),
            None => Ok(()),
        }
    }

    fn check_retention(&self, snapshot: &Snapshot) -> Result<(), StorageError> {
        let properties = snapshot.table_properties();
        let set = properties.set_transaction_retention_duration.is_some();
        if set || properties.unknown_properties.contains_key(RETENTION) {
            let cause =
                format!("the table has {RETENTION}, which would drop the positions that make rows exactly once");
            let remedy = format!("unset it: ALTER TABLE ... UNSET TBLPROPERTIES ('{RETENTION}')");
            return Err(StorageError::stop(&self.place, cause, &remedy));
        }
        Ok(())
    }

    fn judge(&self, error: KernelError) -> StorageError {
        judge(&self.place, error)
    }

    fn stop(&self, cause: String) -> StorageError {
        StorageError::stop(&self.place, cause, NOT_OURS)
    }
}

impl Directory<'_> {
    /// URL of a file of that name, below the folder `below` of the table. Percent-encoded: decode it once for the store.
    pub(crate) fn url(&self, below: &str, name: &str) -> Url {
        let mut url = self.context.table_root_dir().clone();
        let directory = self.context.write_dir();
        let values = directory.path().strip_prefix(url.path()).unwrap_or_default().to_owned();
        let path = format!("{}{below}{values}{name}", url.path());
        url.set_path(&path);
        url
    }

    /// Path of a file as the log names it: relative to the table, percent-encoded.
    pub(crate) fn path(&self, url: &Url) -> Result<String, StorageError> {
        self.context.resolve_file_path(url).map_err(|error| self.table.judge(error))
    }

    /// The add action of a file.
    pub(crate) fn add(&self, file: FileMeta, rows: &RecordBatch) -> Result<RecordBatch, StorageError> {
        let mut bounds = self.bounds();
        bounds.merge(rows)?;
        bounds.add(file)
    }

    /// Statistics of a file that is written batch by batch.
    pub(crate) fn bounds(&self) -> Bounds<'_> {
        let schema = self.context.physical_data_schema();
        Bounds { directory: self, stats: FileStatsAccumulator::new(self.context.stats_columns(), schema) }
    }
}

/// Gathers the statistics that the log keeps of one file.
pub(crate) struct Bounds<'a> {
    directory: &'a Directory<'a>,
    stats: FileStatsAccumulator,
}

impl Bounds<'_> {
    /// Adds the next rows of the file.
    pub(crate) fn merge(&mut self, rows: &RecordBatch) -> Result<(), StorageError> {
        self.stats.merge(rows).map_err(|error| self.directory.table.judge(error))
    }

    /// The add action of the file.
    pub(crate) fn add(self, file: FileMeta) -> Result<RecordBatch, StorageError> {
        let describe = || {
            let stats = self.stats.finish()?.ok_or_else(|| KernelError::generic("a file without statistics"))?;
            let add = build_add_file_metadata(DataFileMetadata::new(file, stats), &self.directory.context)?;
            Ok(ArrowEngineData::try_from_engine_data(add)?.record_batch().clone())
        };
        describe().map_err(|error| self.directory.table.judge(error))
    }
}

/// Partition values of one directory of a catalog table.
pub(crate) fn partition_values(site: &str, day: i32) -> HashMap<String, Scalar> {
    let site = (crate::file::SITE.to_owned(), Scalar::from(site.to_owned()));
    HashMap::from([site, (crate::file::DT.to_owned(), Scalar::Date(day))])
}

/// Size and age of a file, for its add action.
pub(crate) fn file_meta(url: Url, modified_ms: i64, bytes: u64) -> FileMeta {
    FileMeta::new(url, modified_ms, bytes)
}

fn null(schema: &StructType, name: &str) -> (String, Scalar) {
    let kind = schema.field(name).map(|field| field.data_type().clone());
    (name.to_owned(), kind.map_or(Scalar::from(String::new()), Scalar::Null))
}

/// Creates the table unless there is one.
fn create(engine: &Engine, root: &Url, columns: &StructType, shape: &Shape) -> Result<(), KernelError> {
    let kernel = engine.kernel.as_ref();
    let mut builder = create_table(root.as_str(), Arc::new(columns.clone()), WRITER, false).with_table_properties([
        ("delta.feature.domainMetadata", "supported".to_owned()),
        ("delta.checkpointInterval", CHECKPOINT_COMMITS.to_string()),
        ("delta.dataSkippingStatsColumns", shape.stats.join(",")),
    ]);
    if !shape.partitions.is_empty() {
        builder = builder.with_data_layout(DataLayout::partitioned(shape.partitions.iter().copied()));
    }
    match builder.build(kernel, Box::new(FileSystemCommitter::new())) {
        Ok(transaction) => match transaction.commit(kernel)? {
            CommitResult::Committed(_) | CommitResult::Conflicted(_) => Ok(()),
            CommitResult::Retryable(retryable) => Err(retryable.error),
        },
        Err(KernelError::TableAlreadyExistsAtPath(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Judges an error of the kernel by what lies inside it; the kernel does not chain its sources.
pub(crate) fn judge(place: &str, error: KernelError) -> StorageError {
    match error.without_backtrace() {
        KernelError::ObjectStore(inner) => StorageError::of_store(place, inner),
        KernelError::IOError(inner) => StorageError::of_store(place, inner),
        KernelError::GenericError { source } => StorageError::of_store(place, source.as_ref()),
        KernelError::Parquet(inner) if has_source(inner) => StorageError::of_store(place, inner),
        KernelError::Arrow(inner) if has_source(inner) => StorageError::of_store(place, inner),
        KernelError::Reqwest(inner) => StorageError::retry(place, inner),
        inner @ (KernelError::JoinFailure(_) | KernelError::Cancelled) => StorageError::retry(place, inner),
        inner @ (KernelError::Unsupported(_) | KernelError::InvalidProtocol(_)) => {
            StorageError::stop(place, inner, NOT_OURS)
        }
        inner => StorageError::stop(
            place,
            inner,
            "look at the table's _delta_log: it is damaged, or written by another program",
        ),
    }
}

fn has_source(error: &dyn std::error::Error) -> bool {
    error.source().is_some()
}
