//! What a proof says: per table and stream what is there, what is missing and why, and what is there twice.
//!
//! Plain data with a verdict; how it is printed is the caller's.

use std::fmt;

/// The answer of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every frame that anything knows of is there, whole, once.
    Complete,
    /// Something is missing or there twice.
    Incomplete,
    /// Something could not be read, so that nothing can be said.
    Unknown,
}

/// Everything that a proof has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The tables that have a folder, or that coverage speaks of.
    pub tables: Vec<TableReport>,
    /// Why the lake as a whole could not be read.
    pub doubts: Vec<String>,
}

/// What was found in one table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TableReport {
    /// Name of the table.
    pub table: String,
    /// Version that was read; `None` where there is no readable log.
    pub version: Option<u64>,
    /// Rows in the files that were read.
    pub rows: u64,
    /// Live files.
    pub files: u64,
    /// The streams, by node and stream.
    pub streams: Vec<StreamReport>,
    /// Live files that are not in the store.
    pub files_missing: Vec<String>,
    /// Live files that are not what the log says of them.
    pub files_altered: Vec<AlteredFile>,
    /// Files below the table that were merged into others or have expired, and wait to be swept.
    pub files_removed: u64,
    /// Files below the table that no version has named, as far as its log goes back, and their bytes. By themselves they are no fault: a killed process leaves some.
    pub orphans: Vec<(String, u64)>,
    /// What could not be read, and why.
    pub doubts: Vec<String>,
}

/// A file that is not what the log says of it.
#[derive(Debug, PartialEq, Eq)]
pub struct AlteredFile {
    /// Which file.
    pub path: String,
    /// Rows that the log tells.
    pub rows_told: u64,
    /// Rows that it has.
    pub rows: u64,
    /// Bytes that the log tells.
    pub bytes_told: u64,
    /// Bytes that it has.
    pub bytes: u64,
}

/// What was found of one stream in one table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// The node that its rows name; empty where no row is there.
    pub node: String,
    /// The stream.
    pub stream_id: String,
    /// Rows.
    pub rows: u64,
    /// Frames that have a row.
    pub frames: u64,
    /// First frame that has a row.
    pub seq_first: Option<i64>,
    /// Last frame that has a row.
    pub seq_last: Option<i64>,
    /// Last frame that anything knows of: a row, coverage, the received set or an uncommitted file.
    pub seq_known: i64,
    /// Frames without a row.
    pub gaps: Vec<Gap>,
    /// Frames with fewer rows than they had: frame, rows, rows due.
    pub short: Vec<(i64, u32, u32)>,
    /// Frames with rows too many, or with one row more than once: frame, such rows.
    pub doubled: Vec<(i64, u64)>,
    /// Frames whose rows do not agree on how many there are, or say what cannot be.
    pub contradictory: Vec<i64>,
}

/// Frames that have no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// First of them.
    pub seq_first: i64,
    /// Last of them.
    pub seq_last: i64,
    /// Why.
    pub reason: Reason,
}

/// Why a frame has no row; where several are true, the first counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Their day was removed for its age: no fault.
    Expired,
    /// Ingest has recorded it as received: the lake has lost it.
    Lost,
    /// The collector dropped it and said so, with its own word for why.
    Dropped(String),
    /// It is a dead letter, with the reason there.
    DeadLetter(String),
    /// Its rows are in a file that is not live: not committed yet, or their commit is lost.
    Uncommitted,
    /// Nothing says why.
    Unexplained,
}

impl Report {
    /// The answer.
    pub fn verdict(&self) -> Verdict {
        let doubts = !self.doubts.is_empty() || self.tables.iter().any(|table| !table.doubts.is_empty());
        match (doubts, self.tables.iter().any(TableReport::is_faulty)) {
            (true, _) => Verdict::Unknown,
            (false, true) => Verdict::Incomplete,
            (false, false) => Verdict::Complete,
        }
    }
}

impl TableReport {
    /// Whether something is missing or there twice.
    pub fn is_faulty(&self) -> bool {
        let files = !self.files_missing.is_empty() || !self.files_altered.is_empty();
        files || self.streams.iter().any(StreamReport::is_faulty)
    }
}

impl StreamReport {
    /// Whether something is missing or there twice.
    pub fn is_faulty(&self) -> bool {
        let missing = self.gaps.iter().any(|gap| gap.reason != Reason::Expired) || !self.short.is_empty();
        missing || !self.doubled.is_empty() || !self.contradictory.is_empty()
    }
}

impl Gap {
    /// How many frames.
    pub fn frames(&self) -> u64 {
        (self.seq_last - self.seq_first + 1).unsigned_abs()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Expired => f.write_str("expired"),
            Reason::Dropped(why) => write!(f, "dropped by the collector: {why}"),
            Reason::DeadLetter(why) => write!(f, "dead letter: {why}"),
            Reason::Uncommitted => f.write_str("in a file that no commit names"),
            Reason::Lost => f.write_str("received, and gone from the lake"),
            Reason::Unexplained => f.write_str("unexplained"),
        }
    }
}
