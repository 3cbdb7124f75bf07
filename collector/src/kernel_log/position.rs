//! How far the kernel log has been read: the boot and the sequence number of its last line.
//!
//! A row of `event` that comes from the kernel log has both in its details. They are read off as the row passes the door,
//! kept in the account of the spool and found again in the journal after a kill, so that position and row are one: a line
//! is neither lost nor told twice.

use racklake_schemas::tables::{self, event};
use racklake_schemas::{Cell, Row};
use serde::{Deserialize, Serialize};

/// Name in the column `source` of events from the kernel log.
pub(crate) const SOURCE: &str = "kmsg";

/// A line of the kernel log: everything up to it has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Sequence numbers begin anew with each boot.
    pub(crate) boot_id: String,
    pub(crate) seq: i64,
}

impl Position {
    /// Where a row is from; `None` where it is not from the kernel log.
    pub(crate) fn of(row: &Row) -> Option<Position> {
        if !std::ptr::eq(row.table(), &tables::EVENT) {
            return None;
        }
        match (row.cell(event::SOURCE), row.cell(event::DETAILS_JSON)) {
            (Cell::Text(source), Cell::Text(details)) if source.as_str() == SOURCE => {
                serde_json::from_str(details.as_str()).ok()
            }
            _ => None,
        }
    }

    /// The later of two; another boot is always later.
    pub(crate) fn advance(last: &mut Option<Position>, next: Position) {
        match last {
            Some(last) if last.boot_id == next.boot_id => last.seq = last.seq.max(next.seq),
            _ => *last = Some(next),
        }
    }
}
