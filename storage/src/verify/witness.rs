//! What else than the rows themselves knows of frames: coverage, events, and what the caller brings along.
//!
//! Coverage says how far a table's frames went, so that a last one that is missing shows; events say which frames the
//! collector dropped. Neither proves that a frame is there.

use std::collections::BTreeMap;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::Int64Type;

use crate::error::StorageError;
use crate::lake::Lake;
use crate::log::LiveFile;
use crate::verify::report::{Gap, Reason};
use crate::verify::{columns, rows};

/// Frames of one stream and table, and what is said of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testimony {
    /// Name of the table.
    pub table: String,
    /// The stream.
    pub stream_id: String,
    /// First of the frames.
    pub seq_first: i64,
    /// Last of the frames.
    pub seq_last: i64,
    /// Why a row may be missing. [`Reason::Lost`] says that the frames were received.
    pub reason: Reason,
}

/// All that is known of frames besides their rows.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// By table and stream.
    known: BTreeMap<(String, String), Known>,
}

#[derive(Debug, Default)]
struct Known {
    node: String,
    seq_last: i64,
    claims: Vec<(i64, i64, Reason)>,
}

impl Witness {
    /// Believes a testimony. Frames that are said to be somewhere count as known, so their absence shows.
    pub(crate) fn hear(&mut self, testimony: Testimony) {
        let known = self.known.entry((testimony.table, testimony.stream_id)).or_default();
        known.seq_last = known.seq_last.max(testimony.seq_last);
        known.claims.push((testimony.seq_first, testimony.seq_last, testimony.reason));
    }

    /// Reads a file of `coverage`.
    pub(crate) fn read_coverage(&mut self, lake: &Lake, file: &LiveFile, bytes: u64) -> Result<(), StorageError> {
        let place = file.path.as_ref();
        let names = ["stream_id", "node", "table", "seq_last"];
        columns::read(lake, &file.path, bytes, &names, |batch| {
            let text = |column| rows::text(place, batch, column);
            let (streams, nodes, tables) = (text(0)?, text(1)?, text(2)?);
            let last = batch.column(3).as_primitive_opt::<Int64Type>();
            let last = last.ok_or_else(|| rows::wrong(place, "seq_last"))?;
            // Most rows repeat what is known; only what is higher is looked up.
            let mut highest: BTreeMap<(Option<usize>, Option<usize>), (i64, usize)> = BTreeMap::new();
            for row in (0..batch.num_rows()).filter(|row| last.is_valid(*row)) {
                let seen = highest.entry((tables.key(row), streams.key(row))).or_insert((0, row));
                if last.value(row) > seen.0 {
                    *seen = (last.value(row), row);
                }
            }
            for (seq_last, row) in highest.into_values() {
                let key = (rows::value(tables, row).to_owned(), rows::value(streams, row).to_owned());
                let known = self.known.entry(key).or_default();
                known.seq_last = known.seq_last.max(seq_last);
                known.node = rows::value(nodes, row).to_owned();
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Reads a file of `event`: frames that were dropped, or refused by Kafka for good.
    pub(crate) fn read_events(&mut self, lake: &Lake, file: &LiveFile, bytes: u64) -> Result<(), StorageError> {
        let place = file.path.as_ref();
        columns::read(lake, &file.path, bytes, &["event", "details_json"], |batch| {
            let (events, details) = (rows::text(place, batch, 0)?, rows::text(place, batch, 1)?);
            for row in 0..batch.num_rows() {
                let event = rows::value(events, row);
                if event == "frames_dropped" || event == "frame_refused" {
                    let details = rows::value(details, row);
                    let dropped = dropped(details).ok_or_else(|| {
                        let cause = format!("an event {event} says {details:?}, which names no frames");
                        StorageError::stop(place, cause, "report it: collector and proof disagree")
                    })?;
                    self.hear(dropped);
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Names of the tables that something is known of.
    pub(crate) fn tables(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.known.keys().map(|(table, _)| table.as_str()).collect();
        names.dedup();
        names
    }

    /// Streams of a table that something is known of, and their node.
    pub(crate) fn streams(&self, table: &str) -> impl Iterator<Item = (&str, &str)> {
        let of_table = self.known.iter().filter(move |((of, _), _)| of == table);
        of_table.map(|((_, stream), known)| (stream.as_str(), known.node.as_str()))
    }

    /// Last frame of a stream that is known; 0 where none is.
    pub(crate) fn seq_last(&self, table: &str, stream_id: &str) -> i64 {
        self.known.get(&(table.to_owned(), stream_id.to_owned())).map_or(0, |known| known.seq_last)
    }

    /// Why these frames, in rising order, are missing.
    pub(crate) fn explain(&self, table: &str, stream_id: &str, missing: Vec<(i64, i64)>) -> Vec<Gap> {
        let known = self.known.get(&(table.to_owned(), stream_id.to_owned()));
        let mut claims = known.map(|known| known.claims.clone()).unwrap_or_default();
        // A reason that says more goes first: that is their order.
        claims.sort_by(|a, b| (&a.2, a.0).cmp(&(&b.2, b.0)));
        let mut gaps = Vec::new();
        let mut rest = missing;
        for class in claims.chunk_by(|a, b| a.2 == b.2) {
            rest = take(&rest, &joined(class), &mut gaps);
        }
        gaps.extend(rest.into_iter().map(|(first, last)| gap(first, last, Reason::Unexplained)));
        gaps.sort_by_key(|gap| gap.seq_first);
        gaps
    }
}

/// Claims of one reason, in rising order, without overlap.
fn joined(claims: &[(i64, i64, Reason)]) -> Vec<(i64, i64, Reason)> {
    let mut joined: Vec<(i64, i64, Reason)> = Vec::new();
    for (first, last, reason) in claims {
        match joined.last_mut() {
            Some(before) if *first <= before.1 => before.1 = before.1.max(*last),
            _ => joined.push((*first, *last, reason.clone())),
        }
    }
    joined
}

/// Takes out of ranges what claims cover; gives what is left. Both rise and do not overlap.
fn take(ranges: &[(i64, i64)], claims: &[(i64, i64, Reason)], gaps: &mut Vec<Gap>) -> Vec<(i64, i64)> {
    let mut left = Vec::new();
    let mut claims = claims.iter().peekable();
    for &(first, last) in ranges {
        let mut begin = first;
        while let Some((claim_first, claim_last, reason)) = claims.peek() {
            if *claim_first > last {
                break;
            }
            let (from, to) = ((*claim_first).max(begin), (*claim_last).min(last));
            if from <= to {
                if begin < from {
                    left.push((begin, from - 1));
                }
                gaps.push(gap(from, to, reason.clone()));
                begin = to + 1;
            }
            if *claim_last > last {
                break;
            }
            claims.next();
        }
        if begin <= last {
            left.push((begin, last));
        }
    }
    left
}

fn gap(seq_first: i64, seq_last: i64, reason: Reason) -> Gap {
    Gap { seq_first, seq_last, reason }
}

/// The frames that an event names.
fn dropped(details: &str) -> Option<Testimony> {
    let details: serde_json::Value = serde_json::from_str(details).ok()?;
    let text = |key: &str| details.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let number = |key: &str| details.get(key).and_then(serde_json::Value::as_i64);
    Some(Testimony {
        table: text("table")?,
        stream_id: text("stream_id")?,
        seq_first: number("seq_first").or_else(|| number("seq"))?,
        seq_last: number("seq_last").or_else(|| number("seq"))?,
        reason: Reason::Dropped(text("reason").unwrap_or_else(|| "no reason told".to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_frame_gets_the_reason_that_says_most() {
        let mut witness = Witness::default();
        let mut hear = |seq_first, seq_last, reason| {
            let (table, stream_id) = ("t".to_owned(), "s".to_owned());
            witness.hear(Testimony { table, stream_id, seq_first, seq_last, reason });
        };
        let full = || Reason::Dropped("queue_full".to_owned());
        hear(3, 4, full());
        hear(8, 20, full());
        hear(1, 2, Reason::Lost);
        hear(5, 8, Reason::Lost);
        let gaps = witness.explain("t", "s", vec![(2, 9), (12, 12), (21, 22)]);
        let wanted = [
            gap(2, 2, Reason::Lost),
            gap(3, 4, full()),
            gap(5, 8, Reason::Lost),
            gap(9, 9, full()),
            gap(12, 12, full()),
            gap(21, 22, Reason::Unexplained),
        ];
        assert_eq!(gaps, wanted);
        assert_eq!(witness.seq_last("t", "s"), 20);
    }
}
