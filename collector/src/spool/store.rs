//! The durable half of the spool: frames and the collector's account of them, in one redb file.
//!
//! One transaction carries frames in, carries acknowledged or dropped ones out, and replaces the account, so a crash
//! leaves all of it or none. Payloads have a checksum of their own: a frame that was damaged on disk is noticed when it is
//! read, not when somebody decodes it. The file does not shrink; what frames leave is used again.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::coverage::{Outcome, Told};
use crate::drops::DropRange;
use crate::edges::Baseline;
use crate::episodes::Episode;
use crate::kernel_log::Position;
use crate::route::Route;

/// Order → checksum and payload.
const FRAMES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("frames");
/// Order → [`Entry`] as JSON; read as a whole at start, so apart from the payloads.
const INDEX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("index");
/// One row: [`Account`] as JSON.
const ACCOUNT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("account");
const ACCOUNT_KEY: &str = "account";
/// Version of the layout; another one counts as damage.
const VERSION: u32 = 1;
/// Memory that redb may use for pages.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// A file up to this size is checked as a whole at start, which takes well under a second.
const CHECK_BYTES_MAX: u64 = 128 * 1024 * 1024;
const FILE: &str = "frames.redb";
/// Its presence says that the store was found damaged while it was in use.
const DAMAGED: &str = "damaged";

/// What is known about a stored frame without its payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) table: String,
    pub(crate) stream_id: String,
    pub(crate) node: String,
    pub(crate) partition: i32,
    pub(crate) seq: i64,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    /// Wall clock, µs UTC.
    pub(crate) closed_at: i64,
    pub(crate) tally: Vec<(i64, Outcome, i64)>,
}

/// What the collector must remember to go on after a kill; everything later is in the journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) version: u32,
    pub(crate) machine_id: String,
    pub(crate) node: String,
    pub(crate) stream_id: String,
    /// Number of the journal that follows this account.
    pub(crate) journal: u64,
    /// Whether the collector ended in order.
    pub(crate) ended: bool,
    pub(crate) order_next: u64,
    pub(crate) seq_last: BTreeMap<String, i64>,
    pub(crate) events: u64,
    pub(crate) episodes: u64,
    pub(crate) drops: Vec<DropRange>,
    pub(crate) coverage: Vec<Told>,
    /// Accounts of earlier versions have none.
    #[serde(default)]
    pub(crate) episodes_open: Vec<Episode>,
    /// The topics that frames go to; earlier versions knew those of the config alone.
    #[serde(default)]
    pub(crate) route: Option<Route>,
    /// How far the kernel log has been read; earlier versions read none.
    #[serde(default)]
    pub(crate) kernel_log: Option<Position>,
    /// Last values of the counters whose rises are events, by device; earlier versions watched none.
    #[serde(default)]
    pub(crate) baselines: BTreeMap<String, Baseline>,
    /// Which boot of the host it was; earlier versions did not say.
    #[serde(default)]
    pub(crate) boot_id: Option<String>,
}

impl Account {
    /// The account of a new stream.
    pub(crate) fn new(machine_id: &str, node: &str, stream_id: &str) -> Account {
        Account {
            version: VERSION,
            machine_id: machine_id.to_owned(),
            node: node.to_owned(),
            stream_id: stream_id.to_owned(),
            ended: true,
            ..Account::default()
        }
    }
}

/// One transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) frames: Vec<(u64, Entry, Arc<[u8]>)>,
    pub(crate) removed: Vec<u64>,
    pub(crate) account: Account,
}

/// Why the store could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// What is on disk is not what was written: set it aside.
    #[error("{0}")]
    Damaged(String),
    /// The system refuses: try again, or stop.
    #[error("{0}")]
    Refused(String),
}

/// What a store held when it was opened.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) account: Option<Account>,
    pub(crate) entries: Vec<(u64, Entry)>,
}

/// The file.
pub(crate) struct Store {
    folder: PathBuf,
    database: RwLock<Option<Database>>,
}

impl Store {
    /// Opens or makes the file in a folder and reads all but the payloads.
    pub(crate) fn open(folder: &Path) -> Result<(Store, Held), StoreError> {
        if folder.join(DAMAGED).exists() {
            return Err(StoreError::Damaged("it was found damaged while in use".to_owned()));
        }
        let (database, held) = guarded(|| {
            let database = open_file(folder)?;
            let held = read_held(&database)?;
            Ok((database, held))
        })?;
        Ok((Store { folder: folder.to_owned(), database: RwLock::new(Some(database)) }, held))
    }

    /// Makes a batch durable. After an error nothing of it is, and the same batch may be tried again.
    pub(crate) fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.open_again()?;
        // Payloads are read meanwhile: a backlog must not wait for every commit.
        let committed = match self.database.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(open) => guarded(|| write(open, batch)),
            None => Err(StoreError::Refused("the spool is not open".to_owned())),
        };
        if let Err(error) = &committed {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
            if matches!(error, StoreError::Damaged(_)) {
                // The next start sets it aside; if this cannot be written either, the next commit fails the same way.
                let _ = std::fs::File::create(self.folder.join(DAMAGED));
            }
        }
        committed
    }

    /// Opens the file where an error has closed it: after one of the disk redb wants that.
    fn open_again(&self) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(guarded(|| open_file(&self.folder))?);
        }
        Ok(())
    }

    /// The payload of a frame; `Damaged` where it is not what was stored.
    pub(crate) fn payload(&self, order: u64) -> Result<Arc<[u8]>, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(|| StoreError::Refused("the spool is not open".to_owned()))?;
        guarded(|| {
            let reading = database.begin_read().map_err(refused)?;
            let table = reading.open_table(FRAMES).map_err(refused)?;
            let found = table.get(order).map_err(storage)?;
            let stored = found.ok_or_else(|| StoreError::Damaged("the frame is missing in the store".to_owned()))?;
            match stored.value().split_at_checked(8) {
                Some((sum, payload)) if sum == checksum(payload).to_le_bytes() => Ok(payload.into()),
                _ => Err(StoreError::Damaged("the frame's checksum is wrong".to_owned())),
            }
        })
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// FNV-1a, 64 bits: enough to notice damage, and the same in every build.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn open_file(folder: &Path) -> Result<Database, StoreError> {
    let file = folder.join(FILE);
    let bytes = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open((1..=CHECK_BYTES_MAX).contains(&bytes));
    builder.create(&file).map_err(|error| match error {
        DatabaseError::Storage(error) => storage(error),
        DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted => StoreError::Damaged(error.to_string()),
        error => refused(error),
    })
}

fn read_held(database: &Database) -> Result<Held, StoreError> {
    // A new file gets its tables here, so that reading needs no special case.
    let writing = database.begin_write().map_err(refused)?;
    writing.open_table(FRAMES).map_err(table)?;
    writing.open_table(INDEX).map_err(table)?;
    writing.open_table(ACCOUNT).map_err(table)?;
    writing.commit().map_err(refused)?;
    let reading = database.begin_read().map_err(refused)?;
    let accounts = reading.open_table(ACCOUNT).map_err(table)?;
    let account = accounts.get(ACCOUNT_KEY).map_err(storage)?.map(|stored| parse::<Account>(stored.value()));
    let account = account.transpose()?;
    if let Some(account) = account.as_ref().filter(|account| account.version != VERSION) {
        return Err(StoreError::Damaged(format!("its layout has version {}, not {VERSION}", account.version)));
    }
    let mut entries = Vec::new();
    for row in reading.open_table(INDEX).map_err(table)?.iter().map_err(storage)? {
        let (order, entry) = row.map_err(storage)?;
        entries.push((order.value(), parse::<Entry>(entry.value())?));
    }
    if account.is_none() && !entries.is_empty() {
        return Err(StoreError::Damaged("it holds frames without an account".to_owned()));
    }
    Ok(Held { account, entries })
}

fn write(database: &Database, batch: &Batch) -> Result<(), StoreError> {
    let mut writing = database.begin_write().map_err(refused)?;
    // Opening after a kill then takes no walk through the whole file.
    writing.set_quick_repair(true);
    {
        let mut frames = writing.open_table(FRAMES).map_err(table)?;
        let mut index = writing.open_table(INDEX).map_err(table)?;
        for (order, entry, payload) in &batch.frames {
            let stored = [&checksum(payload).to_le_bytes(), payload.as_ref()].concat();
            frames.insert(order, stored.as_slice()).map_err(storage)?;
            index.insert(order, to_json(entry)?.as_slice()).map_err(storage)?;
        }
        for order in &batch.removed {
            frames.remove(order).map_err(storage)?;
            index.remove(order).map_err(storage)?;
        }
        let mut accounts = writing.open_table(ACCOUNT).map_err(table)?;
        accounts.insert(ACCOUNT_KEY, to_json(&batch.account)?.as_slice()).map_err(storage)?;
    }
    writing.commit().map_err(|error| match error {
        redb::CommitError::Storage(error) => storage(error),
        error => refused(error),
    })
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(refused)
}

fn parse<'a, T: Deserialize<'a>>(stored: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(stored).map_err(|error| StoreError::Damaged(error.to_string()))
}

fn refused(error: impl Display) -> StoreError {
    StoreError::Refused(error.to_string())
}

fn table(error: redb::TableError) -> StoreError {
    match error {
        redb::TableError::Storage(error) => storage(error),
        // The tables are ours; another shape means that the file is not.
        error => StoreError::Damaged(error.to_string()),
    }
}

fn storage(error: StorageError) -> StoreError {
    match error {
        StorageError::Corrupted(what) => StoreError::Damaged(what),
        StorageError::Io(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            StoreError::Damaged(error.to_string())
        }
        error => refused(error),
    }
}

/// redb may panic on a file that something else has written to; here that is damage like any other.
fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Damaged("redb cannot make sense of it".to_owned())))
}

/// Where frames are kept that Kafka refused for good.
const REFUSED: &str = "refused";
/// Most files kept there.
const REFUSED_MAX: usize = 256;

/// Keeps a frame that Kafka refused, for a person to look at; gives its file.
///
/// # Errors
/// When the disk does not take it, or 256 are kept already.
pub(crate) fn keep_refused(folder: &Path, name: &str, payload: &[u8]) -> anyhow::Result<PathBuf> {
    let folder = folder.join(REFUSED);
    let place = || format!("{} cannot be written", folder.display());
    std::fs::create_dir_all(&folder).with_context(place)?;
    let kept = std::fs::read_dir(&folder).with_context(place)?.count();
    anyhow::ensure!(kept < REFUSED_MAX, "{} holds {kept} frames; look at them and remove them", folder.display());
    let file = folder.join(name);
    std::fs::write(&file, payload).with_context(place)?;
    Ok(file)
}
