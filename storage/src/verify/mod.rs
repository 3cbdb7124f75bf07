//! Proves a lake complete, or says what is missing and what is there twice.
//!
//! The proof is in the row files: every row says which frame it is of and how many rows that frame had. `columns` reads
//! those columns alone, `rows` makes parts of frames of them, `frames` counts; `witness` knows what should be there besides, and
//! `report` is the answer. Nothing is written, and nothing is believed that a writer recorded about its own work.
//!
//! What it cannot see: a last frame that neither coverage nor a received set nor a file knows of.

pub(crate) mod columns;
mod frames;
mod report;
pub(crate) mod rows;
mod table;
mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use racklake_schemas::{Table, catalog, tables};

use crate::error::StorageError;
use crate::lake::Lake;
use crate::log::{Log, has_log};
pub use report::{AlteredFile, Gap, Reason, Report, StreamReport, TableReport, Verdict};
use table::Input;
pub use witness::Testimony;
use witness::Witness;

/// How a lake is to be proven.
pub struct Question<'a> {
    /// Whether row keys are compared too: finds a row that is there twice in the place of another.
    pub keys: bool,
    /// Files that are read at a time.
    pub threads: usize,
    /// What the caller knows of frames.
    pub testimony: Vec<Testimony>,
    /// Told after every piece of work.
    pub watch: &'a (dyn Fn(Progress) + Sync),
}

/// How far a proof is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Rows that have been read.
    pub rows: u64,
    /// Rows that the logs tell of.
    pub rows_all: u64,
}

/// Counts rows for whoever watches.
struct Watched<'a> {
    watch: &'a (dyn Fn(Progress) + Sync),
    rows: AtomicU64,
    rows_all: u64,
}

impl Watched<'_> {
    fn add(&self, rows: u64) {
        let rows = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        (self.watch)(Progress { rows, rows_all: self.rows_all });
    }
}

/// Proves the lake. It blocks, and works on threads of its own.
pub fn verify(lake: &Lake, question: Question<'_>) -> Report {
    let mut report = Report::default();
    // What tells of frames is looked at before the frames, or a lake that is written meanwhile would seem to lack some.
    let order = [&tables::COVERAGE, &tables::EVENT].into_iter();
    let others = tables::ALL.iter().copied().filter(|table| *table != &tables::COVERAGE && *table != &tables::EVENT);
    let mut inputs = Vec::new();
    for table in order.chain(others) {
        match Input::load(lake, table) {
            Ok(Some(input)) => inputs.push(input),
            Ok(None) => {}
            Err(error) => report.tables.push(doubtful(table.name, &error)),
        }
    }
    if inputs.is_empty() && report.tables.is_empty() {
        report.doubts.push(format!("{}: there is no table of a lake here", lake.location()));
        return report;
    }
    let mut witness = Witness::default();
    let mut doubts = Vec::new();
    for input in &inputs {
        input.tell_expired(&mut witness);
        doubts.extend(input.testify(lake, &mut witness).into_iter().map(|error| error.to_string()));
    }
    question.testimony.into_iter().for_each(|testimony| witness.hear(testimony));
    let rows_all = inputs.iter().map(Input::rows_told).sum();
    let watched = Watched { watch: question.watch, rows: AtomicU64::new(0), rows_all };
    for input in inputs {
        report.tables.push(input.prove(lake, question.keys, question.threads.max(1), &mut witness, &watched));
    }
    let mut absent = witness.tables();
    absent.retain(|name| report.tables.iter().all(|table| table.table != *name));
    report.tables.extend(absent.into_iter().map(|name| table::without_rows(name, &witness)));
    // An unreadable file of coverage or event is a doubt of its table already.
    report
        .doubts
        .extend(doubts.into_iter().filter(|doubt| !report.tables.iter().any(|table| table.doubts.contains(doubt))));
    report.tables.sort_by_key(|table| position(&table.table));
    report
}

/// Positions of app ids in a table as its log has them; nothing where the table is not there.
///
/// # Errors
/// Retry as the store says; Stop, when the log is damaged.
pub fn positions(lake: &Lake, table: &Table, app_ids: &[String]) -> Result<Option<Vec<Option<i64>>>, StorageError> {
    if !has_log(lake, table.name)? {
        return Ok(None);
    }
    let log = Log::load(lake, table.name)?;
    app_ids.iter().map(|app_id| log.position(app_id)).collect::<Result<_, _>>().map(Some)
}

/// Domains of a table whose names begin so, as its log has them; none where the table is not there.
///
/// # Errors
/// Retry as the store says; Stop, when the log is damaged.
pub fn domains(lake: &Lake, table: &Table, prefix: &str) -> Result<BTreeMap<String, Arc<str>>, StorageError> {
    if !has_log(lake, table.name)? {
        return Ok(BTreeMap::new());
    }
    let mut domains = Log::load(lake, table.name)?.domains()?;
    domains.retain(|name, _| name.starts_with(prefix));
    Ok(domains)
}

fn doubtful(table: &str, error: &StorageError) -> TableReport {
    TableReport { table: table.to_owned(), doubts: vec![error.to_string()], ..TableReport::default() }
}

/// Tables are told in the order of the catalog.
fn position(name: &str) -> Option<usize> {
    let table = catalog::table(name)?;
    tables::ALL.iter().position(|other| *other == table)
}
