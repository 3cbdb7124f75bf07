//! Proves one table: its live files are read side by side, their frames counted, and every frame without a row named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use object_store::path::Path;
use racklake_schemas::{Table, tables};

use crate::error::StorageError;
use crate::lake::Lake;
use crate::log::{Folder, LiveFile, Log, folder, has_log};
use crate::upkeep::{EXPIRED, ExpiredFrames};
use crate::verify::frames::{Account, Frames};
use crate::verify::report::{AlteredFile, Reason, StreamReport, TableReport};
use crate::verify::witness::{Testimony, Witness};
use crate::verify::{Watched, columns, rows};

/// A table to prove: what its log names, and what its folder holds.
pub(crate) struct Input {
    table: &'static Table,
    version: u64,
    live: Vec<LiveFile>,
    /// Files that the log says were removed: merged into others, or expired.
    removed: BTreeSet<Path>,
    expired: ExpiredFrames,
    folder: Folder,
}

/// What reading files has found.
#[derive(Default)]
struct Findings {
    rows: u64,
    altered: Vec<AlteredFile>,
    doubts: Vec<String>,
}

impl Input {
    /// Loads log and folder of a table; nothing where the folder is empty.
    pub(crate) fn load(lake: &Lake, table: &'static Table) -> Result<Option<Input>, StorageError> {
        if !has_log(lake, table.name)? {
            return match folder(lake, table.name)?.files.is_empty() {
                true => Ok(None),
                false => Err(StorageError::stop(
                    &lake.place(table.name),
                    "there are data files and no log",
                    "bring its _delta_log back",
                )),
            };
        }
        // Log first: a file that is committed meanwhile must not be taken for one that is missing.
        let log = Log::load(lake, table.name)?;
        let mut live = log.files()?;
        live.sort_by(|a, b| a.path.cmp(&b.path));
        let expired = ExpiredFrames::read(log.domains()?.get(EXPIRED).map(AsRef::as_ref)).map_err(|error| {
            StorageError::stop(&lake.place(table.name), error, "report it: the domain racklake.expired is damaged")
        })?;
        let removed = log.removed().unwrap_or_else(|error| {
            // They are then looked at as orphans, which takes longer and finds the same.
            tracing::debug!(%error, "removed files are not known");
            BTreeMap::new()
        });
        let removed = removed.into_keys().collect();
        Ok(Some(Input { table, version: log.version(), live, removed, expired, folder: folder(lake, table.name)? }))
    }

    /// Rows that the log tells of.
    pub(crate) fn rows_told(&self) -> u64 {
        self.live.iter().filter_map(|file| file.rows).sum()
    }

    /// Tells which frames have lost rows to age.
    pub(crate) fn tell_expired(&self, witness: &mut Witness) {
        for (stream_id, ranges) in &self.expired.frames {
            for (seq_first, seq_last) in ranges {
                witness.hear(Testimony {
                    table: self.table.name.to_owned(),
                    stream_id: stream_id.clone(),
                    seq_first: *seq_first,
                    seq_last: *seq_last,
                    reason: Reason::Expired,
                });
            }
        }
    }

    /// Tells what the table's rows know of other frames; gives what could not be read.
    pub(crate) fn testify(&self, lake: &Lake, witness: &mut Witness) -> Vec<StorageError> {
        let mut errors = Vec::new();
        for file in &self.live {
            let Some(bytes) = self.folder.files.get(&file.path) else { continue };
            let read = match self.table {
                table if table == &tables::COVERAGE => witness.read_coverage(lake, file, *bytes),
                table if table == &tables::EVENT => witness.read_events(lake, file, *bytes),
                _ => return errors,
            };
            errors.extend(read.err());
        }
        errors
    }

    /// Reads all rows and says what is there, missing and doubled.
    pub(crate) fn prove(
        self,
        lake: &Lake,
        keys: bool,
        threads: usize,
        witness: &mut Witness,
        watched: &Watched<'_>,
    ) -> TableReport {
        let frames = Mutex::new(Frames::default());
        let findings = self.read_live(lake, keys, threads, &frames, watched);
        let mut frames = frames.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_live = |path: &Path| self.live.binary_search_by(|file| file.path.cmp(path)).is_ok();
        let is_orphan = |path: &Path| !is_live(path) && !self.removed.contains(path);
        let orphans: Vec<_> = self.folder.files.iter().filter(|(path, _)| is_orphan(path)).collect();
        let removed = self.folder.files.keys().filter(|path| !is_live(path) && self.removed.contains(path)).count();
        for (path, bytes) in &orphans {
            self.read_orphan(lake, path, **bytes, &mut frames, witness);
        }
        let missing = self.live.iter().filter(|file| !self.folder.files.contains_key(&file.path));
        TableReport {
            table: self.table.name.to_owned(),
            version: Some(self.version),
            rows: findings.rows,
            files: self.live.len() as u64,
            files_removed: removed as u64,
            streams: streams(self.table.name, frames.accounts(), witness, &self.expired),
            files_missing: missing.map(|file| file.path.to_string()).collect(),
            files_altered: findings.altered,
            orphans: orphans.into_iter().map(|(path, bytes)| (path.to_string(), *bytes)).collect(),
            doubts: findings.doubts,
        }
    }

    /// Threads take one file after the other.
    fn read_live(
        &self,
        lake: &Lake,
        keys: bool,
        threads: usize,
        frames: &Mutex<Frames>,
        watched: &Watched<'_>,
    ) -> Findings {
        let findings = Mutex::new(Findings::default());
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(file) = self.live.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Some(bytes) = self.folder.files.get(&file.path) else { continue };
                let read = self.read_file(lake, file, *bytes, keys, frames, watched);
                let mut findings = locked(&findings);
                match read {
                    Ok(rows) => {
                        findings.rows += rows;
                        findings.altered.extend(altered(file, rows, *bytes));
                    }
                    Err(error) => findings.doubts.push(error.to_string()),
                }
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(self.live.len())).map(|_| scope.spawn(work)).collect();
            work();
            let ended = others.into_iter().map(|thread| thread.join());
            if ended.filter(|ended| ended.is_err()).count() > 0 {
                locked(&findings).doubts.push(format!("{}: a reader ended before its files", self.table.name));
            }
        });
        findings.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_file(
        &self,
        lake: &Lake,
        file: &LiveFile,
        bytes: u64,
        keys: bool,
        frames: &Mutex<Frames>,
        watched: &Watched<'_>,
    ) -> Result<u64, StorageError> {
        let place = file.path.as_ref();
        columns::read(lake, &file.path, bytes, &rows::columns(self.table, keys), |batch| {
            let parts = rows::parts(place, batch, |id, node| locked(frames).stream(id, node))?;
            locked(frames).count(parts);
            watched.add(batch.num_rows() as u64);
            Ok(())
        })
    }

    /// Looks whether a file that is not live holds frames that no live file has. One that cannot be read says nothing: a
    /// killed process may have left half of it.
    fn read_orphan(&self, lake: &Lake, path: &Path, bytes: u64, frames: &mut Frames, witness: &mut Witness) {
        let mut found = Vec::new();
        let read = columns::read(lake, path, bytes, &rows::columns(self.table, false), |batch| {
            let mut names = Vec::new();
            let parts = rows::parts(path.as_ref(), batch, |id, _| {
                names.push(id.to_owned());
                names.len() as u32 - 1
            })?;
            let named = parts.iter().filter_map(|part| Some((names.get(part.stream as usize)?, part.seq)));
            found
                .extend(named.filter(|(id, seq)| *seq > 0 && !frames.has(id, *seq)).map(|(id, seq)| (id.clone(), seq)));
            Ok(())
        });
        if let Err(error) = read {
            tracing::debug!(%error, "a file that no commit names cannot be read");
        }
        found.sort_unstable();
        found.dedup();
        for frames in found.chunk_by(|a, b| a.0 == b.0 && a.1 + 1 == b.1) {
            let [(stream_id, seq_first), ..] = frames else { continue };
            witness.hear(Testimony {
                table: self.table.name.to_owned(),
                stream_id: stream_id.clone(),
                seq_first: *seq_first,
                seq_last: seq_first + frames.len() as i64 - 1,
                reason: Reason::Uncommitted,
            });
        }
    }
}

/// What is to be said of a table that has no rows, and of which something else knows frames.
pub(crate) fn without_rows(table: &str, witness: &Witness) -> TableReport {
    let streams = streams(table, Vec::new(), witness, &ExpiredFrames::default());
    TableReport { table: table.to_owned(), streams, ..TableReport::default() }
}

/// Adds to the accounts of the rows what the witness knows, and why frames are missing.
fn streams(table: &str, accounts: Vec<Account>, witness: &Witness, expired: &ExpiredFrames) -> Vec<StreamReport> {
    let mut accounts = accounts;
    let present: BTreeSet<&str> = accounts.iter().map(|account| account.stream_id.as_str()).collect();
    let absent = witness.streams(table).filter(|(id, _)| !present.contains(id));
    let absent: Vec<_> = absent
        .map(|(id, node)| Account { stream_id: id.to_owned(), node: node.to_owned(), ..Account::default() })
        .collect();
    accounts.extend(absent);
    let report = |account: Account| {
        let last = account.bounds.map_or(0, |(_, last)| last);
        let seq_known = last.max(witness.seq_last(table, &account.stream_id));
        let mut missing = account.missing;
        if seq_known > last {
            missing.push((last + 1, seq_known));
        }
        // The rest of its rows was of a day that is gone.
        let short = account.short.into_iter().filter(|(seq, ..)| !expired.has(&account.stream_id, *seq)).collect();
        StreamReport {
            gaps: witness.explain(table, &account.stream_id, missing),
            node: account.node,
            stream_id: account.stream_id,
            rows: account.rows,
            frames: account.frames,
            seq_first: account.bounds.map(|(first, _)| first),
            seq_last: account.bounds.map(|(_, last)| last),
            seq_known,
            short,
            doubled: account.doubled,
            contradictory: account.contradictory,
        }
    };
    let mut streams: Vec<StreamReport> = accounts.into_iter().map(report).collect();
    streams.sort_by(|a, b| (&a.node, &a.stream_id).cmp(&(&b.node, &b.stream_id)));
    streams
}

fn altered(file: &LiveFile, rows: u64, bytes: u64) -> Option<AlteredFile> {
    let rows_told = file.rows.unwrap_or(rows);
    (rows_told != rows || file.bytes != bytes).then(|| AlteredFile {
        path: file.path.to_string(),
        rows_told,
        rows,
        bytes_told: file.bytes,
        bytes,
    })
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
