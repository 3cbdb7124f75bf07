//! How many rows only memory holds because the disk takes no more: a file of fixed size, made while there was room.
//!
//! A full disk still takes what overwrites blocks that it has given away, so these counts outlive a kill where the rows
//! cannot. Each slot is one table and minute, written with one small write(2) before the row is counted anywhere. A file
//! system that copies on write, or a disk that is read-only, may refuse even that; then the counts are in memory alone.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use racklake_schemas::Table;

use crate::spool::row_bytes::{In, Out};
use crate::spool::store::checksum;

const FILE: &str = "unwritten";
/// Bytes of a slot: checksum, journal, minute, rows, table.
const SLOT: usize = 64;
/// Room for ten tables over more than six hours; what comes then is counted in the minute of the last slot of all.
const SLOTS: usize = 4096;

/// What a slot counts: rows of a table and minute that the journal of a number did not take.
type Key = (u64, &'static str, i64);

/// The counts and their file.
#[derive(Debug)]
pub(crate) struct Unwritten {
    file: File,
    slots: BTreeMap<Key, (usize, i64)>,
    used: usize,
}

/// Rows of one table and minute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Count {
    pub(crate) journal: u64,
    pub(crate) table: &'static Table,
    pub(crate) minute: i64,
    pub(crate) rows: i64,
}

impl Unwritten {
    /// Opens the file in a folder, or makes it; gives what an earlier start has counted for the journals from `base` on.
    /// What was counted for earlier ones has been written since.
    ///
    /// # Errors
    /// When the disk has no room for it, or cannot be read or written.
    pub(crate) fn open(folder: &Path, base: u64) -> io::Result<(Unwritten, Vec<Count>)> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let mut bytes = vec![0; SLOTS * SLOT];
        let length = file.metadata()?.len();
        let counts = if length == bytes.len() as u64 {
            file.read_exact_at(&mut bytes, 0)?;
            bytes.chunks_exact(SLOT).filter_map(read_slot).filter(|count| count.journal >= base && count.rows > 0)
        } else {
            // Zeros are written, not left out: only blocks that are there can be written to later.
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            return Ok((Unwritten { file, slots: BTreeMap::new(), used: 0 }, Vec::new()));
        };
        let counts: Vec<Count> = counts.collect();
        let mut unwritten = Unwritten { file, slots: BTreeMap::new(), used: 0 };
        // They stay until a transaction has them; new ones come behind.
        for count in &counts {
            unwritten.add(count.journal, count.table, count.minute, count.rows)?;
        }
        Ok((unwritten, counts))
    }

    /// Counts rows that the journal of that number did not take; fewer than none takes back.
    ///
    /// # Errors
    /// When the disk does not take even that; the count is kept in memory.
    pub(crate) fn add(&mut self, journal: u64, table: &'static Table, minute: i64, rows: i64) -> io::Result<()> {
        let key = (journal, table.name, minute);
        if !self.slots.contains_key(&key) && self.used < SLOTS {
            self.slots.insert(key, (self.used, 0));
            self.used += 1;
        }
        let last = || self.slots.iter().max_by_key(|(_, (slot, _))| *slot).map(|(key, _)| *key);
        let key = if self.slots.contains_key(&key) { key } else { last().unwrap_or(key) };
        let Some((slot, counted)) = self.slots.get_mut(&key) else { return Ok(()) };
        *counted += rows;
        let mut body = Out::default();
        body.i64(key.0 as i64);
        body.i64(key.2);
        body.i64(*counted);
        body.text(key.1);
        body.0.resize(SLOT - 8, 0);
        let written = [&checksum(&body.0).to_le_bytes(), body.0.as_slice()].concat();
        self.file.write_all_at(&written, (*slot * SLOT) as u64)
    }

    /// The journals before `base` have been written: their slots may be used again.
    pub(crate) fn forget_before(&mut self, base: u64) {
        self.slots.retain(|(journal, ..), _| *journal >= base);
        // Slots are given in order, so they start anew once all are free.
        if self.slots.is_empty() {
            self.used = 0;
        }
    }

    /// Waits until the disk has the counts.
    ///
    /// # Errors
    /// When it does not take them.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn read_slot(slot: &[u8]) -> Option<Count> {
    let (sum, body) = slot.split_first_chunk::<8>()?;
    if *sum != checksum(body).to_le_bytes() {
        return None;
    }
    let mut body = In(body);
    let (journal, minute, rows) = (body.i64()? as u64, body.i64()?, body.i64()?);
    Some(Count { journal, table: body.table()?, minute, rows })
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::{GPU_SAMPLE, MINER_SAMPLE};

    use super::*;

    #[test]
    fn counts_are_there_after_a_kill_until_their_journal_has_been_written() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, none) = Unwritten::open(folder.path(), 0).unwrap();
        assert_eq!(none, []);
        first.add(7, &GPU_SAMPLE, 60, 2).unwrap();
        first.add(7, &MINER_SAMPLE, 60, 1).unwrap();
        first.add(7, &GPU_SAMPLE, 60, 3).unwrap();
        first.add(7, &MINER_SAMPLE, 60, -1).unwrap();
        drop(first);
        let count = |journal, rows| Count { journal, table: &GPU_SAMPLE, minute: 60, rows };
        let (mut second, counts) = Unwritten::open(folder.path(), 7).unwrap();
        assert_eq!(counts, [count(7, 5)]);
        second.add(8, &GPU_SAMPLE, 60, 1).unwrap();
        drop(second);
        let (third, counts) = Unwritten::open(folder.path(), 7).unwrap();
        assert_eq!(counts, [count(7, 5), count(8, 1)]);
        drop(third);
        assert_eq!(Unwritten::open(folder.path(), 8).unwrap().1, [count(8, 1)]);
        assert_eq!(Unwritten::open(folder.path(), 9).unwrap().1, []);
    }

    #[test]
    fn more_than_the_file_has_room_for_is_counted_in_its_last_slot() {
        let folder = tempfile::tempdir().unwrap();
        let (mut unwritten, _) = Unwritten::open(folder.path(), 0).unwrap();
        let rows = SLOTS as i64 + 10;
        (0..rows).for_each(|minute| unwritten.add(1, &GPU_SAMPLE, minute, 1).unwrap());
        let (_, counts) = Unwritten::open(folder.path(), 0).unwrap();
        assert_eq!((counts.len(), counts.iter().map(|count| count.rows).sum::<i64>()), (SLOTS, rows));
        unwritten.forget_before(2);
        unwritten.add(2, &GPU_SAMPLE, 0, 1).unwrap();
        let (_, counts) = Unwritten::open(folder.path(), 2).unwrap();
        assert_eq!(counts.len(), 1);
    }
}
