//! Counts what was due, read, failed and dropped, by table and minute, and makes the rows of `coverage` from it.
//!
//! A due row is counted together with its outcome, so every row balances: expected = collected + failed + dropped +
//! lost_in_flight. Rows of one stream, table and minute add up; a row whose frame is dropped later moves to `dropped` in
//! a further row of the same minute, with a negative `collected`. Coverage does not count itself. Counts outlive a kill;
//! call durations of the minute do not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use racklake_schemas::clock::MINUTE;
use racklake_schemas::tables::{self, coverage};
use racklake_schemas::{Row, Table, catalog, row_status};
use serde::{Deserialize, Serialize};

use crate::clock_state::ClockState;
use crate::place::Place;

/// Durations kept per table and minute; beyond it the percentiles are of the first ones.
const CALLS_MAX: usize = 65_536;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Values were read.
    Collected,
    /// The deadline passed.
    Stale,
    /// Nothing could be read.
    Failed,
    /// Values that came after a stale row; not part of the balance.
    Late,
}

impl Outcome {
    /// The outcome that the row's status says.
    pub(crate) fn of(row: &Row) -> Outcome {
        match row.status() {
            row_status::STALE => Outcome::Stale,
            row_status::UNREACHABLE | row_status::LOST => Outcome::Failed,
            row_status::LATE => Outcome::Late,
            _ => Outcome::Collected,
        }
    }

    /// One byte for the journal.
    pub(crate) fn code(self) -> u8 {
        match self {
            Outcome::Collected => 0,
            Outcome::Stale => 1,
            Outcome::Failed => 2,
            Outcome::Late => 3,
        }
    }

    /// The outcome of a journal's byte.
    pub(crate) fn from_code(code: u8) -> Option<Outcome> {
        [Outcome::Collected, Outcome::Stale, Outcome::Failed, Outcome::Late].get(usize::from(code)).copied()
    }

    /// Label in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Collected => "collected",
            Outcome::Stale => "stale",
            Outcome::Failed => "failed",
            Outcome::Late => "late",
        }
    }
}

/// How many rows of each minute and outcome a frame carries; what has to move if it is dropped. Every frame that waits has
/// one, with an entry or two, so it is a plain list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tally(Vec<((i64, Outcome), i64)>);

impl Tally {
    /// Counts one row.
    pub(crate) fn add(&mut self, minute: i64, outcome: Outcome) {
        match self.0.iter_mut().rev().find(|(key, _)| *key == (minute, outcome)) {
            Some((_, rows)) => *rows += 1,
            None => self.0.push(((minute, outcome), 1)),
        }
    }

    /// Its counts one by one, to be stored.
    pub(crate) fn to_list(&self) -> Vec<(i64, Outcome, i64)> {
        self.0.iter().map(|&((minute, outcome), rows)| (minute, outcome, rows)).collect()
    }

    /// The tally of a stored list.
    pub(crate) fn from_list(list: &[(i64, Outcome, i64)]) -> Tally {
        Tally(list.iter().map(|&(minute, outcome, rows)| ((minute, outcome), rows)).collect())
    }
}

/// Counts of one table and minute since the last row about them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) expected: i64,
    pub(crate) collected: i64,
    pub(crate) failed: i64,
    pub(crate) stale: i64,
    pub(crate) late: i64,
    pub(crate) dropped: i64,
    pub(crate) lost_in_flight: i64,
    /// Accounts of earlier versions have none.
    #[serde(default)]
    pub(crate) spooled: i64,
    pub(crate) drop_reasons: BTreeMap<Cow<'static, str>, i64>,
    #[serde(skip)]
    calls: Vec<i32>,
    call_max: Option<i32>,
}

/// Counts of one table and minute, to be stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    table: String,
    minute: i64,
    counts: Counts,
}

/// All counts that no row has told yet.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    counts: BTreeMap<(i64, &'static str), Counts>,
}

/// Start of the minute of a time, both µs UTC.
pub(crate) fn minute_of(ts: i64) -> i64 {
    ts - ts.rem_euclid(MINUTE)
}

impl Coverage {
    /// A due row was made.
    pub(crate) fn made(&mut self, table: &'static Table, minute: i64, outcome: Outcome) {
        let Some(counts) = self.of(table, minute) else { return };
        counts.expected += i64::from(outcome != Outcome::Late);
        counts.put(outcome, 1);
    }

    /// Due rows were not made at all.
    pub(crate) fn skipped(
        &mut self,
        table: &'static Table,
        minute: i64,
        rows: i64,
        reason: impl Into<Cow<'static, str>>,
    ) {
        let Some(counts) = self.of(table, minute) else { return };
        counts.expected += rows;
        counts.dropped += rows;
        *counts.drop_reasons.entry(reason.into()).or_default() += rows;
    }

    /// Ticks that a killed collector had begun, or a host without power may have, have no row.
    pub(crate) fn lost_in_flight(&mut self, table: &'static Table, minute: i64, rows: i64) {
        let Some(counts) = self.of(table, minute) else { return };
        counts.expected += rows;
        counts.lost_in_flight += rows;
    }

    /// Rows that were made have been dropped. A late one was never expected, so it only leaves `late`.
    pub(crate) fn dropped(&mut self, table: &'static Table, tally: &Tally, reason: &'static str) {
        for &((minute, outcome), rows) in &tally.0 {
            let Some(counts) = self.of(table, minute) else { return };
            counts.put(outcome, -rows);
            if outcome != Outcome::Late {
                counts.dropped += rows;
                *counts.drop_reasons.entry(reason.into()).or_default() += rows;
            }
        }
    }

    /// Kafka has acknowledged rows that had waited; they were counted when they were made.
    pub(crate) fn spooled(&mut self, table: &'static Table, tally: &Tally) {
        for &((minute, _), rows) in &tally.0 {
            let Some(counts) = self.of(table, minute) else { return };
            counts.spooled += rows;
        }
    }

    /// A read has returned after so many microseconds.
    pub(crate) fn call(&mut self, table: &'static Table, minute: i64, read_us: i32) {
        let Some(counts) = self.of(table, minute) else { return };
        counts.call_max = counts.call_max.max(Some(read_us));
        if counts.calls.len() < CALLS_MAX {
            counts.calls.push(read_us);
        }
    }

    /// Takes the counts of the minutes before `end`, or all.
    pub(crate) fn take(&mut self, end: Option<i64>) -> BTreeMap<(i64, &'static str), Counts> {
        match end {
            None => std::mem::take(&mut self.counts),
            Some(end) => {
                let rest = self.counts.split_off(&(end, ""));
                std::mem::replace(&mut self.counts, rest)
            }
        }
    }

    /// All counts, to be stored.
    pub(crate) fn to_list(&self) -> Vec<Told> {
        let told = |(&(minute, table), counts): (&(i64, &'static str), &Counts)| Told {
            table: table.to_owned(),
            minute,
            counts: counts.clone(),
        };
        self.counts.iter().map(told).collect()
    }

    /// The counts of a stored list; those of a table that is no longer known are left out.
    pub(crate) fn from_list(list: Vec<Told>) -> Coverage {
        let known = |told: Told| catalog::table(&told.table).map(|table| ((told.minute, table.name), told.counts));
        Coverage { counts: list.into_iter().filter_map(known).collect() }
    }

    /// Whether rows have told everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn of(&mut self, table: &'static Table, minute: i64) -> Option<&mut Counts> {
        // It would never come to rest.
        (!std::ptr::eq(table, &tables::COVERAGE)).then(|| self.counts.entry((minute, table.name)).or_default())
    }
}

impl Counts {
    /// The row that tells these counts. `seq_last` is the highest seq of the table so far.
    pub(crate) fn row(
        mut self,
        place: &Place,
        table: &'static str,
        minute: i64,
        seq_last: i64,
        now: i64,
        clock: Option<ClockState>,
    ) -> Row {
        let mut row = Row::new(&tables::COVERAGE);
        place.stamp(&mut row, now, None);
        row.set(coverage::TABLE, table);
        row.set(coverage::MINUTE, minute);
        row.set(coverage::EXPECTED, self.expected);
        row.set(coverage::COLLECTED, self.collected);
        row.set(coverage::FAILED, self.failed);
        row.set(coverage::STALE, self.stale);
        row.set(coverage::LATE, self.late);
        row.set(coverage::DROPPED, self.dropped);
        row.set(coverage::LOST_IN_FLIGHT, self.lost_in_flight);
        row.set(coverage::SPOOLED, self.spooled);
        let reasons = (!self.drop_reasons.is_empty()).then(|| serde_json::json!(self.drop_reasons).to_string());
        row.set(coverage::DROP_REASONS_JSON, reasons);
        row.set(coverage::SEQ_LAST, (seq_last > 0).then_some(seq_last));
        self.calls.sort_unstable();
        row.set(coverage::CALL_P50_US, percentile(&self.calls, 50));
        row.set(coverage::CALL_P95_US, percentile(&self.calls, 95));
        row.set(coverage::CALL_MAX_US, self.call_max.map(i64::from));
        row.set(coverage::CLOCK_OFFSET_US, clock.map(|clock| clock.offset_us));
        row.set(coverage::CLOCK_SYNCED, clock.map(|clock| i8::from(clock.synced)));
        row
    }

    fn put(&mut self, outcome: Outcome, rows: i64) {
        match outcome {
            Outcome::Collected => self.collected += rows,
            Outcome::Failed => self.failed += rows,
            Outcome::Stale => {
                self.failed += rows;
                self.stale += rows;
            }
            Outcome::Late => self.late += rows,
        }
    }
}

/// Nearest-rank percentile of sorted values.
fn percentile(sorted: &[i32], percent: usize) -> Option<i64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).map(|value| i64::from(*value))
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::{GPU_SAMPLE, HASHBOARD_SAMPLE};

    use super::*;

    #[test]
    fn dropped_rows_leave_their_place_and_the_sum_still_balances() {
        let mut coverage = Coverage::default();
        let mut tally = Tally::default();
        for outcome in [Outcome::Collected, Outcome::Collected, Outcome::Stale, Outcome::Late] {
            coverage.made(&GPU_SAMPLE, 0, outcome);
            tally.add(0, outcome);
        }
        coverage.skipped(&GPU_SAMPLE, 0, 3, "tick_skipped");
        let told = coverage.take(Some(MINUTE)).remove(&(0, "gpu_sample")).unwrap();
        assert_eq!((told.expected, told.collected, told.failed, told.late, told.dropped), (6, 2, 1, 1, 3));
        coverage.dropped(&GPU_SAMPLE, &tally, "queue_full");
        let correction = coverage.take(None).remove(&(0, "gpu_sample")).unwrap();
        assert_eq!((correction.expected, correction.collected, correction.failed), (0, -2, -1));
        assert_eq!((correction.stale, correction.late, correction.dropped), (-1, -1, 3));
        assert_eq!(correction.drop_reasons, BTreeMap::from([("queue_full".into(), 3)]));
    }

    #[test]
    fn only_finished_minutes_are_taken() {
        let mut coverage = Coverage::default();
        coverage.made(&HASHBOARD_SAMPLE, 0, Outcome::Collected);
        coverage.made(&GPU_SAMPLE, MINUTE, Outcome::Collected);
        assert_eq!(coverage.take(Some(MINUTE)).into_keys().collect::<Vec<_>>(), [(0, "hashboard_sample")]);
        assert_eq!(coverage.take(None).into_keys().collect::<Vec<_>>(), [(MINUTE, "gpu_sample")]);
    }

    #[test]
    fn percentiles_are_of_the_calls_made() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!((percentile(&[7], 50), percentile(&[7], 95)), (Some(7), Some(7)));
        let calls: Vec<i32> = (1..=100).collect();
        assert_eq!((percentile(&calls, 50), percentile(&calls, 95)), (Some(50), Some(95)));
    }
}
