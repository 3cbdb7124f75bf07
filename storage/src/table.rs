//! One table of the lake: writes the files of a flush, and commits them together with its positions.
//!
//! A commit is made only if the version it is built on holds exactly the positions that the flush began at. Equality,
//! never "not behind": a writer that was cut off and comes back with a longer span would double the overlap. A version
//! of the log can be written once, so two writers that have both looked cannot both commit. Whatever goes wrong, the
//! positions in the table are the truth. A domain (a text that the table keeps under a name) goes with a position: it is
//! written only in the commit that moves it, and only over the text that the flush began with.
//!
//! It does not promise that files which were never committed go away: no reader sees them, and a vacuum removes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::{StreamExt as _, TryStreamExt as _};
use racklake_schemas::catalog::Kind;
use racklake_schemas::clock::Clock;
use racklake_schemas::{Table, ValueType};
use uuid::Uuid;

use crate::delta::{Attempt, Contents, DeltaTable, Shape, file_meta, partition_values};
use crate::error::StorageError;
use crate::file::{self, Encoded};
use crate::lake::Lake;

/// Files of a flush lie below it until their hour is sealed.
pub(crate) const HOT: &str = "_hot/";
/// Files of one flush that are put at a time.
const PUTS_AT_A_TIME: usize = 8;
/// Lost races for a version until a commit gives up for now.
const CONFLICTS_MAX: u32 = 100;
/// Errors of unknown outcome until a commit gives up for now.
const FAILURES_MAX: u32 = 3;

/// A Delta table of the lake at one version. One owner at a time.
pub struct LakeTable {
    pub(crate) lake: Lake,
    pub(crate) table: &'static Table,
    pub(crate) place: String,
    pub(crate) delta: DeltaTable,
    /// What has been looked up at the delta table's version.
    known: Mutex<Known>,
}

/// What has been looked up at one version.
#[derive(Default)]
struct Known {
    /// Positions, one by one.
    positions: BTreeMap<String, Option<i64>>,
    /// All domains, read at once when the first is asked for.
    domains: Option<BTreeMap<String, Arc<str>>>,
}

/// How far a flush moves the position of one app id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Whose position.
    pub app_id: String,
    /// Position that the flush began at; `None` where there was none.
    pub began_at: Option<i64>,
    /// Position after the flush; above `began_at`.
    pub next: i64,
    /// What changes with the position, if anything.
    pub domain: Option<DomainChange>,
}

/// How a flush changes one domain of the table: its text is replaced whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainChange {
    /// Name of the domain; not `delta.…`, and named by no other span of the commit.
    pub name: String,
    /// The text that the flush began with; `None` where there was none. Any other text in the table refuses the commit,
    /// as another position does.
    pub was: Option<Arc<str>>,
    /// The text after the flush.
    pub now: Arc<str>,
}

/// A data file that is durable in the lake and in no version of the table yet.
#[derive(Debug, Clone)]
pub struct DataFile {
    path: String,
    bytes: u64,
    rows: u64,
    /// Its add action: path, partition values, size, statistics.
    add: RecordBatch,
}

/// How a commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Files and positions are in this version, or an earlier try had brought them in before it.
    Committed {
        /// Version of the table.
        version: u64,
    },
    /// Nothing was committed, because somebody else has moved these app ids or changed their domains.
    Moved(Vec<String>),
}

/// Where the table stands, seen from a flush.
enum Standing {
    /// Every position and domain is as the flush found it.
    Began,
    /// Every position and domain is as the flush leaves it.
    Done,
    /// These are not as the flush found them.
    Moved(Vec<String>),
}

impl LakeTable {
    pub(crate) fn open(lake: Lake, table: &'static Table) -> Result<LakeTable, StorageError> {
        let place = lake.place(table.name);
        let shape = Shape {
            columns: file::delta_columns(table),
            partitions: &[file::SITE, file::DT],
            stats: stats_columns(table),
        };
        let delta = DeltaTable::open(lake.engine(), &lake.table_root(table.name)?, &place, &shape)?;
        Ok(LakeTable { lake, table, place, delta, known: Mutex::default() })
    }

    /// Loads the newest version.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the table is damaged or may not be written any more.
    pub fn refresh(&mut self) -> Result<(), StorageError> {
        *self.known() = Known::default();
        self.delta.refresh()
    }

    /// The version that this is.
    pub fn version(&self) -> u64 {
        self.delta.version()
    }

    /// Position of an app id at this version: the next offset to read.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the table is damaged.
    pub fn position(&self, app_id: &str) -> Result<Option<i64>, StorageError> {
        if let Some(position) = self.known().positions.get(app_id) {
            return Ok(*position);
        }
        let position = self.delta.position(app_id)?;
        self.known().positions.insert(app_id.to_owned(), position);
        Ok(position)
    }

    /// Text of a domain at this version, which is the one that [`LakeTable::position`] looks at too.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the table is damaged.
    pub fn domain(&self, name: &str) -> Result<Option<Arc<str>>, StorageError> {
        self.with_domains(|domains| domains.get(name).cloned())
    }

    /// All domains at this version whose names begin so, in the order of their names.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the table is damaged.
    pub fn domains(&self, prefix: &str) -> Result<Vec<(String, Arc<str>)>, StorageError> {
        let begins = |(name, _): &(&String, &Arc<str>)| name.starts_with(prefix);
        self.with_domains(|domains| {
            domains.iter().filter(begins).map(|(name, text)| (name.clone(), Arc::clone(text))).collect()
        })
    }

    fn with_domains<T>(&self, look: impl FnOnce(&BTreeMap<String, Arc<str>>) -> T) -> Result<T, StorageError> {
        if let Some(domains) = &self.known().domains {
            return Ok(look(domains));
        }
        let read = self.delta.domains()?;
        Ok(look(self.known().domains.insert(read)))
    }

    /// Writes a checkpoint of the newest version; says whether there was none yet.
    ///
    /// # Errors
    /// Retry and NoRoom as the store says; Stop, when the table is damaged.
    pub fn checkpoint(&mut self) -> Result<bool, StorageError> {
        self.refresh()?;
        self.delta.checkpoint()
    }

    /// How many rows and files this version has, and their bytes.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the table is damaged.
    pub fn contents(&self) -> Result<Contents, StorageError> {
        self.delta.contents()
    }

    /// All rows of this version in memory, partition columns too: for small tables.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the table is damaged.
    pub fn read(&self) -> Result<Vec<RecordBatch>, StorageError> {
        self.delta.rows()
    }

    /// Writes the rows of one flush: sorted, one file per site and date. The files are durable when it returns, and no
    /// reader sees them yet. The date is that of the reading; for a row of `fresh` that is more than a day away from its
    /// arrival, that of the arrival ([`is_clock_suspect`](crate::is_clock_suspect)). Those of `replayed` are old by right.
    ///
    /// # Errors
    /// Retry and NoRoom as the store says; files that were put before the error stay behind, unseen.
    pub fn write(&self, fresh: &[RecordBatch], replayed: &[RecordBatch]) -> Result<Vec<DataFile>, StorageError> {
        let encoded = file::encode(self.table, fresh, replayed)
            .map_err(|error| StorageError::stop(&self.place, error, "report it: rows and catalog disagree"))?;
        let puts = encoded.into_iter().map(|encoded| self.put(encoded)).collect::<Result<Vec<_>, _>>()?;
        self.lake.wait(futures::stream::iter(puts).buffered(PUTS_AT_A_TIME).try_collect())
    }

    /// Makes files visible together with the new positions and domains, in one Delta commit. Without files the positions
    /// alone are committed, with their domains. When an error comes back, the same call can be made again: what was committed is recognised.
    ///
    /// # Errors
    /// Retry, when others were quicker too often or the outcome cannot be told yet; NoRoom as the store says; Stop, when
    /// the spans make no sense or the table may not be written any more.
    pub fn commit(&mut self, files: &[DataFile], spans: &[Span]) -> Result<Outcome, StorageError> {
        self.check(files, spans)?;
        if spans.is_empty() {
            return Ok(Outcome::Committed { version: self.version() });
        }
        let adds: Vec<&RecordBatch> = files.iter().map(|file| &file.add).collect();
        let mut tries = Tries::default();
        let mut newest = false;
        loop {
            match self.standing(spans)? {
                Standing::Done => return Ok(Outcome::Committed { version: self.version() }),
                Standing::Moved(app_ids) if newest => return Ok(Outcome::Moved(app_ids)),
                Standing::Moved(_) => {}
                Standing::Began => {
                    tries.may_go_on(&self.place)?;
                    match self.delta.append(&adds, spans) {
                        Ok(Attempt::Committed) => return Ok(self.committed(spans)),
                        Ok(Attempt::Conflicted) => {
                            tries.conflicts += 1;
                            let conflicts = tries.conflicts;
                            tracing::debug!(table = self.table.name, conflicts, "another writer was quicker; again");
                        }
                        Err(error) => tries.failures.push(error),
                    }
                    self.lake.wait(async { tokio::time::sleep(tries.pause()).await });
                }
            }
            self.refresh()?;
            newest = true;
        }
    }

    fn committed(&mut self, spans: &[Span]) -> Outcome {
        let version = self.version();
        let moved = spans.iter().map(|span| (span.app_id.clone(), Some(span.next)));
        // Nothing else is in the version that we have written, so what was known before still holds.
        let mut known = self.known();
        known.positions.extend(moved);
        if let Some(domains) = &mut known.domains {
            let changes = spans.iter().filter_map(|span| span.domain.as_ref());
            domains.extend(changes.map(|change| (change.name.clone(), Arc::clone(&change.now))));
        }
        drop(known);
        self.delta.checkpoint_if_due();
        Outcome::Committed { version }
    }

    fn standing(&self, spans: &[Span]) -> Result<Standing, StorageError> {
        let mut done = true;
        let mut moved = Vec::new();
        for span in spans {
            let position = self.position(&span.app_id)?;
            let (mut began, mut ended) = (position == span.began_at, position == Some(span.next));
            if let Some(change) = &span.domain {
                let text = self.domain(&change.name)?;
                began &= text == change.was;
                ended &= text.as_ref() == Some(&change.now);
            }
            done &= ended;
            if !began {
                moved.push(span.app_id.clone());
            }
        }
        Ok(match (done, moved.is_empty()) {
            (true, _) => Standing::Done,
            (false, true) => Standing::Began,
            (false, false) => Standing::Moved(moved),
        })
    }

    fn check(&self, files: &[DataFile], spans: &[Span]) -> Result<(), StorageError> {
        let stop = |cause: String| Err(StorageError::stop(&self.place, cause, "report it: a flush is wrongly made"));
        if spans.is_empty() && !files.is_empty() {
            return stop(format!("{} files come without positions", files.len()));
        }
        match spans.iter().find(|span| span.began_at.is_some_and(|began_at| began_at >= span.next)) {
            Some(span) => stop(format!("{} moves from {:?} to {}", span.app_id, span.began_at, span.next)),
            None => Ok(()),
        }
    }

    /// Describes one file, and makes the future that puts it.
    fn put(
        &self,
        encoded: Encoded,
    ) -> Result<impl Future<Output = Result<DataFile, StorageError>> + use<'_>, StorageError> {
        let directory = self.delta.directory(partition_values(&encoded.site, encoded.day))?;
        let url = directory.url(HOT, &format!("{}.parquet", Uuid::new_v4()));
        let (bytes, rows) = (encoded.bytes.len() as u64, encoded.rows.num_rows() as u64);
        let meta = file_meta(url.clone(), Clock::now_us() / 1000, bytes);
        let file = DataFile { path: directory.path(&url)?, bytes, rows, add: directory.add(meta, &encoded.rows)? };
        Ok(async move { self.lake.put(&url, encoded.bytes).await.map(|()| file) })
    }

    /// For a version that was written without [`LakeTable::commit`].
    pub(crate) fn forget_known(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for LakeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LakeTable({} at version {})", self.place, self.version())
    }
}

impl DataFile {
    /// Path relative to the table, as the Delta log names it (percent-encoded).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

/// What one commit has tried.
#[derive(Default)]
pub(crate) struct Tries {
    /// Lost races for a version.
    pub(crate) conflicts: u32,
    /// Errors after which nobody can tell yet whether it was made.
    pub(crate) failures: Vec<StorageError>,
}

impl Tries {
    /// Whether it is worth another try, now that the table says that no earlier one went through.
    pub(crate) fn may_go_on(&mut self, place: &str) -> Result<(), StorageError> {
        let spent = self.failures.len() as u32 >= FAILURES_MAX;
        if spent || !self.failures.last().is_none_or(|error| matches!(error, StorageError::Retry { .. })) {
            return self.failures.pop().map_or(Ok(()), Err);
        }
        if self.conflicts >= CONFLICTS_MAX {
            let cause = format!("other writers were quicker {CONFLICTS_MAX} times");
            return Err(StorageError::retry(place, cause));
        }
        Ok(())
    }

    /// Whether there has been one.
    pub(crate) fn were_made(&self) -> bool {
        self.conflicts > 0 || !self.failures.is_empty()
    }

    /// Longer from try to try, and not the same for two writers.
    pub(crate) fn pause(&self) -> Duration {
        let longest_ms = match self.failures.len() {
            0 => 4 << self.conflicts.min(6),
            failures => 100 << failures.min(4),
        };
        Duration::from_millis(1 + Uuid::new_v4().as_u128() as u64 % longest_ms)
    }
}

/// Minimum and maximum are kept of what says which row this is; a reading's are in the files' own statistics.
fn stats_columns(table: &Table) -> Vec<&'static str> {
    let says_which = |column: &&racklake_schemas::Column| {
        column.kind == Kind::Identity && column.value_type != ValueType::ListI32 && column.name != file::SITE
    };
    table.columns.iter().filter(says_which).map(|column| column.name).collect()
}
