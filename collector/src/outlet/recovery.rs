//! What an earlier start has left comes in: its rows are sent, and what it could not save is counted.
//!
//! A killed process leaves everything but the reads in flight. A host that went down may also have lost what its disk did
//! not have yet: all that can be known of it is what was due then, and that much at most is counted. What a disk without
//! room did not take was counted beside the journal.

use std::collections::{BTreeMap, BTreeSet};

use racklake_schemas::Table;
use racklake_schemas::clock::Clock;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Begun, Inner, Outlet};
use crate::coverage::{Coverage, Outcome, minute_of};
use crate::drops::Drops;
use crate::edges::Baselines;
use crate::episodes::Episodes;
use crate::event::{detailed, own};
use crate::place::locked;
use crate::queue::drop_reason;
use crate::schedule::Due;
use crate::spool::{Account, Count, Counted, Record, Spool};

/// How many of the ticks lost in flight an event names.
const LOST_NAMED_MAX: usize = 1000;
/// Reason in coverage of rows that a disk without room did not take.
const NOT_WRITTEN: &str = "spool_not_written";

/// What an earlier start lost.
struct Losses {
    /// Reads in flight: due time, address, table.
    in_flight: Vec<((i64, String, &'static str), Begun)>,
    /// What the disk had no room for.
    unwritten: Vec<Count>,
    /// What was due after the disk had last been waited for, where the host went down.
    host_down: Option<Vec<Due>>,
}

impl Outlet {
    /// Goes on from where an earlier start was.
    pub(super) fn recover(&self, spool: Spool) {
        let mut inner = locked(&self.inner);
        let inner = &mut *inner;
        let Spool { journal, account, frames, records, quarantined, route, unwritten, boot_id, .. } = spool;
        inner.route = route;
        let now = Instant::now();
        inner.queue.restore(frames, account.order_next, Clock::now_us(), now);
        inner.frames.go_on_after(&account.seq_last);
        inner.drops = Drops::restored(account.drops.clone(), now);
        inner.coverage = Coverage::from_list(account.coverage.clone());
        inner.episodes = Episodes::restored(account.episodes_open.clone());
        inner.kernel_log.clone_from(&account.kernel_log);
        inner.baselines = Baselines::restored(account.baselines.clone());
        (inner.numbers.events, inner.numbers.episodes) = (account.events, account.episodes);
        inner.journal = Some(journal);
        inner.unwritten = unwritten.0;
        let killed = !account.ended || !records.is_empty();
        let rebooted = account.boot_id.as_ref().is_some_and(|before| *before != boot_id);
        let host_down = (killed && rebooted).then(|| due_after_the_last_sign_of_life(&records));
        inner.account = Account { boot_id: Some(boot_id), ..account };
        if let Some(message) = quarantined {
            self.add_event(inner, own("spool_quarantined", "error", message), None);
        }
        let rows = self.replay(inner, records);
        let in_flight: Vec<_> = std::mem::take(&mut inner.begun).into_iter().collect();
        let losses = Losses { in_flight, unwritten: unwritten.1, host_down };
        self.count_losses(inner, &losses);
        if killed {
            self.tell_losses(inner, rows, &losses);
        }
        self.end_episodes(inner);
        // The rows lie in old journals, which the next transaction removes: they must be in its frames.
        let closed = inner.frames.close_all(&self.place);
        self.absorb(inner, closed);
    }

    fn count_losses(&self, inner: &mut Inner, losses: &Losses) {
        for ((due, ..), begun) in &losses.in_flight {
            inner.coverage.lost_in_flight(begun.table, minute_of(*due), 1);
        }
        for count in &losses.unwritten {
            inner.coverage.skipped(count.table, count.minute, count.rows, NOT_WRITTEN);
        }
        for due in losses.host_down.iter().flatten() {
            inner.coverage.lost_in_flight(due.table, due.minute, due.rows);
        }
    }

    fn tell_losses(&self, inner: &mut Inner, rows: usize, losses: &Losses) {
        let Losses { in_flight, unwritten, host_down } = losses;
        let ticks: Vec<_> = in_flight
            .iter()
            .take(LOST_NAMED_MAX)
            .map(|((due, address, table), _)| json!({"table": table, "address": address, "due": due}))
            .collect();
        let mut details = json!({"rows_recovered": rows, "lost_in_flight": in_flight.len(), "ticks": ticks});
        let mut message = format!(
            "the collector was killed; {rows} rows of open frames are sent now, {} reads in flight are lost",
            in_flight.len()
        );
        if !unwritten.is_empty() {
            let (all, by_table) = sums(unwritten.iter().map(|count| (count.table, count.rows)));
            details["rows_unwritten"] = by_table;
            message += &format!(", and {all} rows that its full disk had no room for");
        }
        if let Some(due) = host_down {
            let (all, by_table) = sums(due.iter().map(|due| (due.table, due.rows)));
            details["host_went_down"] = true.into();
            details["lost_at_most"] = by_table;
            message += &format!("; the host went down, and up to {all} reads that its disk did not have yet are lost");
        }
        self.add_event(inner, detailed("collector_killed", "warning", message, &details), None);
    }

    /// Closes the episodes that were open when the collector ended.
    fn end_episodes(&self, inner: &mut Inner) {
        let now = Clock::now_us();
        let rows = inner.episodes.last_rows(&mut inner.numbers, &self.place, now);
        let counted = |row| Counted { row, minute: minute_of(now), outcome: Outcome::Collected };
        if !rows.is_empty() {
            self.add(inner, rows.into_iter().map(counted).collect(), None, None);
        }
    }

    /// Does again what a journal tells; gives the number of rows.
    fn replay(&self, inner: &mut Inner, records: Vec<Record>) -> usize {
        let mut number = 0;
        for record in &records {
            if let Record::Rows { rows, .. } | Record::Carried(rows) = record {
                number += rows.len();
                rows.iter().for_each(|counted| inner.numbers.seen(&self.place, &counted.row));
            }
        }
        for record in records {
            match record {
                Record::Begun { table, due, address } => {
                    inner.begun.insert((due, address, table.name), Begun { table, unwritten: None });
                }
                Record::Skipped { table, minute, rows, reason } => inner.coverage.skipped(table, minute, rows, reason),
                Record::Rows { rows, tick, told_before } => {
                    if told_before.is_some() {
                        inner.coverage.take(told_before);
                    }
                    if let Some((tick, first)) = tick.zip(rows.first()) {
                        inner.begun.remove(&(tick.0, tick.1, first.row.table().name));
                    }
                    rows.iter().for_each(|counted| inner.drops.follow(&counted.row));
                    rows.into_iter().for_each(|counted| self.count(inner, counted));
                }
                // Keys from there on are given anew; frames that had them were not on disk.
                Record::Gone { order, .. } if order >= inner.account.order_next => {}
                Record::Gone { order, reason, waited } => self.remove_again(inner, order, reason.as_deref(), waited),
                Record::Carried(rows) => {
                    for Counted { row, minute, outcome } in rows {
                        let closed = inner.frames.push(&self.place, row, minute, outcome, Instant::now());
                        self.absorb(inner, closed);
                    }
                }
                Record::Alive { .. } => {}
            }
        }
        number
    }

    /// Takes a frame out of the line that had left it before the kill, and counts it the same.
    fn remove_again(&self, inner: &mut Inner, order: u64, reason: Option<&str>, waited: bool) {
        let Some(frame) = inner.queue.remove(order) else { return };
        match reason.and_then(drop_reason::known) {
            Some(drop_reason::REFUSED) => {
                self.count_dropped(inner, frame.table, &frame.tally, frame.rows, drop_reason::REFUSED);
            }
            Some(reason) => self.count_drop(inner, order, &frame, reason),
            None if waited => inner.coverage.spooled(frame.table, &frame.tally),
            None => {}
        }
    }
}

/// What was due after the collector had last said that it was alive, but for what the journal has of it all the same.
fn due_after_the_last_sign_of_life(records: &[Record]) -> Vec<Due> {
    let is_alive = |record: &Record| matches!(record, Record::Alive { .. });
    let Some(last) = records.iter().rposition(is_alive) else { return Vec::new() };
    let Some(Record::Alive { due, .. }) = records.get(last) else { return Vec::new() };
    let mut ticks = BTreeSet::new();
    let mut told: BTreeMap<(&str, i64), i64> = BTreeMap::new();
    for record in records.iter().skip(last + 1) {
        match record {
            Record::Begun { table, due, address } => drop(ticks.insert((table.name, *due, address))),
            Record::Rows { rows, tick: Some((due, address)), .. } => {
                ticks.extend(rows.first().map(|first| (first.row.table().name, *due, address)));
            }
            Record::Skipped { table, minute, rows, .. } => *told.entry((table.name, *minute)).or_default() += rows,
            _ => {}
        }
    }
    for (table, due, _) in ticks {
        *told.entry((table, minute_of(due))).or_default() += 1;
    }
    let left = |due: &Due| Due { rows: due.rows - told.get(&(due.table.name, due.minute)).unwrap_or(&0), ..*due };
    due.iter().map(left).filter(|due| due.rows > 0).collect()
}

/// The sum of all, and an object of the sums by table.
fn sums(counts: impl Iterator<Item = (&'static Table, i64)>) -> (i64, Value) {
    let mut by_table: BTreeMap<&str, i64> = BTreeMap::new();
    for (table, rows) in counts {
        *by_table.entry(table.name).or_default() += rows;
    }
    (by_table.values().sum(), json!(by_table))
}
