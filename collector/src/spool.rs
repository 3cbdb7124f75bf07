//! The spool: what the collector has read and Kafka has not acknowledged, on this host's disk.
//!
//! Closed frames lie in the `store`, in one transaction with their seq and the collector's account of itself; rows of
//! open frames lie in the `journal`. The `writer` makes both durable, in groups, on a thread of its own. Together they
//! give, after any kill, everything but the reads in flight. A power loss may cost what one `fsync_period` holds.
//!
//! redb was chosen: a commit is atomic and durable when it returns, one file, no background threads, no dependencies, a
//! stable file format. A log-structured store would leave a tombstone for every frame sent.

mod journal;
pub(crate) mod row_bytes;
mod store;
mod unwritten;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use racklake_schemas::clock::Clock;
use racklake_schemas::{catalog, identity};

use crate::coverage::Tally;
use crate::frames::Frame;
use crate::route::Route;

pub(crate) use journal::{Counted, Journal, Record};
pub(crate) use store::{Account, Batch, Entry, Store, StoreError, keep_refused};
pub(crate) use unwritten::{Count, Unwritten};
pub(crate) use writer::{Bell, Writer};

/// The spool's folder within `state_dir`.
const FOLDER: &str = "spool";

/// An open spool with what earlier starts have left in it.
#[derive(Debug)]
pub(crate) struct Spool {
    pub(crate) folder: PathBuf,
    pub(crate) store: Arc<Store>,
    /// The journal of this start.
    pub(crate) journal: Journal,
    /// What the last transaction said; of a new stream where there was none, or it was another host's.
    pub(crate) account: Account,
    /// Frames that wait, by their key.
    pub(crate) frames: Vec<(u64, Frame)>,
    /// The topics that these frames, and those that come until they are gone, go to.
    pub(crate) route: Arc<Route>,
    /// What happened after the last transaction.
    pub(crate) records: Vec<Record>,
    /// Rows that a disk without room did not take, and the file that counts such; `None` where there is no room for it.
    pub(crate) unwritten: (Option<Unwritten>, Vec<Count>),
    /// Which boot of the host this is.
    pub(crate) boot_id: String,
    /// Why a damaged spool was set aside, and where it is.
    pub(crate) quarantined: Option<String>,
}

impl Spool {
    /// Opens the spool of a node on this boot of the host, or makes it; `wanted` are the topics of the config. The state folder must be locked.
    ///
    /// # Errors
    /// When the disk cannot be written or read; a spool that is damaged is set aside instead.
    pub(crate) fn open(state_dir: &Path, node: &str, boot_id: &str, wanted: &Arc<Route>) -> Result<Spool> {
        let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Spool::open_on(state_dir, node, (machine_id.trim(), boot_id), wanted)
    }

    fn open_on(state_dir: &Path, node: &str, host: (&str, &str), wanted: &Arc<Route>) -> Result<Spool> {
        let (machine_id, boot_id) = host;
        let folder = state_dir.join(FOLDER);
        let place = || format!("{} cannot be used", folder.display());
        std::fs::create_dir_all(&folder).with_context(place)?;
        let mut quarantined = None;
        let (store, held) = match Store::open(&folder) {
            Ok(opened) => opened,
            Err(StoreError::Refused(reason)) => return Err(anyhow!(reason)).with_context(place),
            Err(StoreError::Damaged(reason)) => {
                quarantined = Some(set_aside(&folder, &reason)?);
                Store::open(&folder).map_err(|error| anyhow!(error)).with_context(place)?
            }
        };
        let numbers = journal::numbers(&folder).with_context(place)?;
        let stored = held.account.as_ref();
        let number = numbers.last().copied().max(stored.map(|account| account.journal)).unwrap_or(0) + 1;
        let journal = Journal::begin(&folder, number, &[]).with_context(place)?;
        let (mut records, mut account) = (Vec::new(), Account::new(machine_id, node, &new_stream()?));
        account.journal = number;
        let stored_route = held.account.as_ref().and_then(|stored| stored.route.clone());
        let route = match stored_route.map(Arc::new).filter(|route| route != wanted && !held.entries.is_empty()) {
            Some(route) => {
                let (frames, prefix) = (held.entries.len(), &route.prefix);
                tracing::warn!(
                    frames,
                    prefix,
                    ?wanted,
                    "the config names other topics; frames go to those of before until none waits"
                );
                route
            }
            None => Arc::clone(wanted),
        };
        let mut is_new = true;
        if let Some(stored) = held.account {
            let same_host = stored.machine_id == machine_id;
            is_new = !same_host || stored.node != node;
            if same_host {
                records = read_journals(&folder, &numbers, stored.journal);
            }
            account = continued(stored, account);
        }
        if is_new {
            // The stream is there from the first row on.
            let account = Account { ended: false, ..account.clone() };
            let batch = Batch { frames: Vec::new(), removed: Vec::new(), account };
            store.commit(&batch).map_err(|error| anyhow!(error)).with_context(place)?;
        }
        let unwritten = count_unwritten(&folder, account.journal);
        let framed = |(order, entry)| Some((order, frame(entry, &route)?));
        let frames = held.entries.into_iter().filter_map(framed).collect();
        let (store, boot_id) = (Arc::new(store), boot_id.to_owned());
        Ok(Spool { folder, store, journal, account, frames, route, records, unwritten, boot_id, quarantined })
    }
}

/// The stored account, or `fresh` where it was written by another host or node.
fn continued(stored: Account, fresh: Account) -> Account {
    let same_host = stored.machine_id == fresh.machine_id;
    if same_host && stored.node == fresh.node {
        return stored;
    }
    let (old_node, node) = (&stored.node, &fresh.node);
    tracing::warn!(old_node, node, "the spool is another host's or node's; its frames are sent, a new stream begins");
    let kept = Account { order_next: stored.order_next, drops: stored.drops, route: stored.route, ..fresh };
    // Another host may still run: it reads its own journal and tells its own coverage.
    if same_host {
        let (journal, episodes_open, kernel_log) = (stored.journal, stored.episodes_open, stored.kernel_log);
        Account { journal, coverage: stored.coverage, episodes_open, kernel_log, ..kept }
    } else {
        kept
    }
}

/// Opens the file that counts what a full disk does not take. Without it the collector goes on.
fn count_unwritten(folder: &Path, base: u64) -> (Option<Unwritten>, Vec<Count>) {
    match Unwritten::open(folder, base) {
        Ok((unwritten, counts)) => (Some(unwritten), counts),
        Err(error) => {
            tracing::warn!(%error, "rows that a full disk does not take will not be counted if the collector is killed then");
            (None, Vec::new())
        }
    }
}

fn new_stream() -> Result<String> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).context("drawing a random stream id")?;
    Ok(identity::stream_id(random))
}

/// The records after the transaction that names journal `base`. Later journals begin with rows that `base` has.
fn read_journals(folder: &Path, numbers: &[u64], base: u64) -> Vec<Record> {
    let mut records = Vec::new();
    for &number in numbers.iter().filter(|number| **number >= base) {
        match journal::read(folder, number) {
            Ok(read) => {
                let fresh = read.into_iter().filter(|r| number == base || !matches!(r, Record::Carried(_)));
                records.extend(fresh);
            }
            Err(error) => tracing::error!(number, %error, "a journal cannot be read; the rows in it are lost"),
        }
    }
    records
}

/// Moves a damaged spool out of the way; says why and where to.
fn set_aside(folder: &Path, reason: &str) -> Result<String> {
    let aside = folder.with_file_name(format!("{FOLDER}.quarantined-{}", Clock::now_us()));
    std::fs::rename(folder, &aside)
        .and_then(|()| std::fs::create_dir_all(folder))
        .with_context(|| format!("setting the damaged spool {} aside", folder.display()))?;
    Ok(format!("the spool was damaged ({reason}) and is now {}; a new stream begins", aside.display()))
}

fn frame(entry: Entry, route: &Arc<Route>) -> Option<Frame> {
    let Some(table) = catalog::table(&entry.table) else {
        tracing::error!(table = entry.table, seq = entry.seq, "a frame of an unknown table stays in the spool");
        return None;
    };
    Some(Frame {
        table,
        stream_id: entry.stream_id,
        node: entry.node,
        route: Arc::clone(route),
        partition: entry.partition,
        seq: entry.seq,
        rows: entry.rows,
        bytes: entry.bytes,
        payload: None,
        closed_at: entry.closed_at,
        tally: Tally::from_list(&entry.tally),
    })
}

impl Entry {
    /// What the store keeps of a frame beside its payload.
    pub(crate) fn of(frame: &Frame) -> Entry {
        Entry {
            table: frame.table.name.to_owned(),
            stream_id: frame.stream_id.clone(),
            node: frame.node.clone(),
            partition: frame.partition,
            seq: frame.seq,
            rows: frame.rows,
            bytes: frame.bytes,
            closed_at: frame.closed_at,
            tally: frame.tally.to_list(),
        }
    }
}

#[cfg(test)]
mod tests;
