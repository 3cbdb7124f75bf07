//! The open-frame journal: what happened since the last transaction of the store, in the order it happened.
//!
//! Every record is one write(2), made before the row is counted anywhere, so that a killed process loses nothing that it
//! was told; the disk is waited for by the spool's own thread. A journal is followed by the next when a transaction is
//! cut: that one begins with the rows of the frames that are still open, marked as carried. Reading stops at the first
//! record that is not whole, which is the one that the kill interrupted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use racklake_schemas::{Row, Table};

use crate::coverage::Outcome;
use crate::schedule::Due;
use crate::spool::row_bytes::{In, Out};
use crate::spool::store::checksum;

/// Length and checksum in front of each record.
const HEAD: usize = 12;

/// A row with the minute and outcome that it is counted under.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Counted {
    pub(crate) row: Row,
    pub(crate) minute: i64,
    pub(crate) outcome: Outcome,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    /// A read was begun.
    Begun {
        /// Which table its rows are of.
        table: &'static Table,
        /// When it was due, µs UTC.
        due: i64,
        /// Which device.
        address: String,
    },
    /// Due rows were not made.
    Skipped { table: &'static Table, minute: i64, rows: i64, reason: String },
    /// Rows were made.
    Rows {
        rows: Vec<Counted>,
        /// The tick that they are the outcome of: due time and address.
        tick: Option<(i64, String)>,
        /// They tell the coverage of the minutes before this one; `i64::MAX` is all of it.
        told_before: Option<i64>,
    },
    /// A frame has left the line: acknowledged, or dropped for a reason.
    Gone {
        /// Its key in the store.
        order: u64,
        /// Why it was dropped.
        reason: Option<String>,
        /// Whether Kafka did not take it at once.
        waited: bool,
    },
    /// Rows that an earlier journal has, and the account has counted, of a frame that is still open.
    Carried(Vec<Counted>),
    /// The collector is alive, and will have said so again before `until`, µs UTC, with what was due by then.
    Alive { until: i64, due: Vec<Due> },
}

/// The journal that is written to.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    number: u64,
    file: Arc<File>,
    bytes: u64,
}

impl Journal {
    /// Begins the journal of that number with `first`.
    pub(crate) fn begin(folder: &Path, number: u64, first: &[Record]) -> io::Result<Journal> {
        let path = path(folder, number);
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
        let mut journal = Journal { folder: folder.to_owned(), number, file: Arc::new(file), bytes: 0 };
        match journal.append(first) {
            Ok(()) => Ok(journal),
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next journal, which begins with `first`; this one stays on disk until it is removed.
    pub(crate) fn next(&self, first: &[Record]) -> io::Result<Journal> {
        Journal::begin(&self.folder, self.number + 1, first)
    }

    /// Writes records, all or none.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            let body = encode(record);
            bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&checksum(&body).to_le_bytes());
            bytes.extend_from_slice(&body);
        }
        match (&*self.file).write_all(&bytes) {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Part of a record would hide all that follow.
                let whole = self.file.set_len(self.bytes);
                let back = io::Seek::seek(&mut &*self.file, io::SeekFrom::Start(self.bytes));
                whole.and(back).and(Err(error))
            }
        }
    }

    /// The file, to be made durable elsewhere.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

/// Numbers of the journals in a folder, in order.
pub(crate) fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix("journal-")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The whole records of a journal.
pub(crate) fn read(folder: &Path, number: u64) -> io::Result<Vec<Record>> {
    let bytes = std::fs::read(path(folder, number))?;
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while let Some((head, tail)) = rest.split_at_checked(HEAD) {
        let mut head = In(head);
        let (Some(length), Some(sum)) = (head.u32(), head.i64()) else { break };
        let Some((body, tail)) = tail.split_at_checked(length as usize) else { break };
        if checksum(body) != sum as u64 {
            break;
        }
        let Some(record) = decode(&mut In(body)) else { break };
        records.push(record);
        rest = tail;
    }
    if !rest.is_empty() {
        tracing::info!(number, bytes = rest.len(), "the journal ends in a record that is not whole");
    }
    Ok(records)
}

/// Removes the journals before `number`.
pub(crate) fn remove_before(folder: &Path, number: u64) -> io::Result<()> {
    numbers(folder)?.into_iter().filter(|old| *old < number).try_for_each(|old| std::fs::remove_file(path(folder, old)))
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("journal-{number}"))
}

fn encode(record: &Record) -> Vec<u8> {
    let mut out = Out::default();
    match record {
        Record::Begun { table, due, address } => {
            out.byte(1);
            out.text(table.name);
            out.i64(*due);
            out.text(address);
        }
        Record::Skipped { table, minute, rows, reason } => {
            out.byte(2);
            out.text(table.name);
            out.i64(*minute);
            out.i64(*rows);
            out.text(reason);
        }
        Record::Rows { rows, tick, told_before } => {
            out.byte(3);
            let (due, address) = tick.as_ref().map_or((i64::MIN, ""), |(due, address)| (*due, address.as_str()));
            out.i64(due);
            out.text(address);
            out.i64(told_before.unwrap_or(i64::MIN));
            encode_rows(&mut out, rows);
        }
        Record::Carried(rows) => {
            out.byte(4);
            encode_rows(&mut out, rows);
        }
        Record::Gone { order, reason, waited } => {
            out.byte(5);
            out.i64(*order as i64);
            out.text(reason.as_deref().unwrap_or_default());
            out.byte(u8::from(*waited));
        }
        Record::Alive { until, due } => {
            out.byte(6);
            out.i64(*until);
            out.u32(due.len() as u32);
            for Due { table, minute, rows } in due {
                out.text(table.name);
                out.i64(*minute);
                out.i64(*rows);
            }
        }
    }
    out.0
}

fn decode(body: &mut In<'_>) -> Option<Record> {
    let known = |value: i64| (value != i64::MIN).then_some(value);
    Some(match body.byte()? {
        1 => Record::Begun { table: body.table()?, due: body.i64()?, address: body.text()? },
        2 => Record::Skipped { table: body.table()?, minute: body.i64()?, rows: body.i64()?, reason: body.text()? },
        3 => {
            let (due, address, told_before) = (body.i64()?, body.text()?, body.i64()?);
            let tick = known(due).map(|due| (due, address));
            Record::Rows { tick, told_before: known(told_before), rows: decode_rows(body)? }
        }
        4 => Record::Carried(decode_rows(body)?),
        5 => {
            let (order, reason, waited) = (body.i64()? as u64, body.text()?, body.byte()? == 1);
            Record::Gone { order, reason: Some(reason).filter(|reason| !reason.is_empty()), waited }
        }
        6 => {
            let (until, length) = (body.i64()?, body.u32()?);
            let mut due = || Some(Due { table: body.table()?, minute: body.i64()?, rows: body.i64()? });
            Record::Alive { until, due: (0..length).map(|_| due()).collect::<Option<_>>()? }
        }
        _ => return None,
    })
}

fn encode_rows(out: &mut Out, rows: &[Counted]) {
    out.u32(rows.len() as u32);
    for counted in rows {
        out.i64(counted.minute);
        out.byte(counted.outcome.code());
        out.row(&counted.row);
    }
}

fn decode_rows(body: &mut In<'_>) -> Option<Vec<Counted>> {
    let length = body.u32()?;
    (0..length)
        .map(|_| {
            let (minute, outcome) = (body.i64()?, Outcome::from_code(body.byte()?)?);
            Some(Counted { row: body.row()?, minute, outcome })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::GPU_SAMPLE;

    use super::*;
    use crate::testing::gpu_row;

    #[test]
    fn a_journal_is_read_up_to_the_record_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let rows = vec![Counted { row: gpu_row("a", 1), minute: 60, outcome: Outcome::Stale }];
        let begun = Record::Begun { table: &GPU_SAMPLE, due: 5, address: "0000:9b:00.0".to_owned() };
        let reason = "tick_skipped".to_owned();
        let skipped = Record::Skipped { table: &GPU_SAMPLE, minute: 60, rows: 2, reason };
        let made =
            Record::Rows { rows: rows.clone(), tick: Some((5, "0000:9b:00.0".to_owned())), told_before: Some(60) };
        let mut journal = Journal::begin(folder.path(), 4, &[Record::Carried(rows)]).unwrap();
        journal.append(std::slice::from_ref(&begun)).unwrap();
        journal.append(std::slice::from_ref(&skipped)).unwrap();
        let gone = Record::Gone { order: 7, reason: Some("spool_full".to_owned()), waited: true };
        journal.append(std::slice::from_ref(&gone)).unwrap();
        let alive = Record::Alive { until: 9, due: vec![Due { table: &GPU_SAMPLE, minute: 60, rows: 8 }] };
        journal.append(std::slice::from_ref(&alive)).unwrap();
        journal.append(std::slice::from_ref(&made)).unwrap();
        let whole = read(folder.path(), 4).unwrap();
        assert_eq!(whole[1..], [begun, skipped, gone, alive, made]);
        let length = journal.file().metadata().unwrap().len();
        journal.file().set_len(length - 1).unwrap();
        assert_eq!(read(folder.path(), 4).unwrap(), whole[..5]);
        assert_eq!(numbers(folder.path()).unwrap(), [4]);
    }
}
