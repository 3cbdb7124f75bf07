//! Collects rows into frames: one open frame per table, closed by age, bytes or rows, encoded device by device.
//!
//! Every frame gets the next seq of its table when it is closed; the spool stores both in one transaction, so a hole in
//! seq is a frame that was made and dropped. The encoded size is estimated while rows come and known when the frame is
//! closed; one that turns out too large is divided. Rows of `event`, `device` wait for nobody. It does not decide what
//! happens to a frame.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use racklake_schemas::clock::Clock;
use racklake_schemas::tables::{DEVICE, EVENT};
use racklake_schemas::wire::{self, FrameHeader};
use racklake_schemas::{Cell, Row, Rows, Table, catalog};
use tokio::time::Instant;

use crate::config::FramesConfig;
use crate::coverage::{Outcome, Tally};
use crate::place::Place;
use crate::route::Route;
use crate::spool::Counted;

/// A closed frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) table: &'static Table,
    pub(crate) stream_id: String,
    pub(crate) node: String,
    pub(crate) route: Arc<Route>,
    pub(crate) partition: i32,
    pub(crate) seq: i64,
    pub(crate) rows: usize,
    /// Length of the payload.
    pub(crate) bytes: usize,
    /// The encoded rows; `None` where only the disk has them.
    pub(crate) payload: Option<Arc<[u8]>>,
    /// Wall clock, µs UTC.
    pub(crate) closed_at: i64,
    /// Which minutes and outcomes its rows were counted under.
    pub(crate) tally: Tally,
}

/// What closing gives.
#[derive(Debug)]
pub(crate) enum Closed {
    /// A frame to publish.
    Frame(Frame),
    /// A single row that is larger than a frame may be.
    Refused {
        /// Its table.
        table: &'static Table,
        /// Its encoded size.
        bytes: usize,
        /// How it was counted.
        tally: Tally,
    },
}

/// The open frames and the numbers of the closed ones.
#[derive(Debug)]
pub(crate) struct Frames {
    limits: FramesConfig,
    open: BTreeMap<&'static str, Open>,
    seq_last: BTreeMap<&'static str, i64>,
}

#[derive(Debug)]
struct Open {
    table: &'static Table,
    rows: Vec<Counted>,
    bytes: usize,
    due: Instant,
}

impl Frames {
    /// No frame is open, and none has been closed.
    pub(crate) fn new(limits: FramesConfig) -> Frames {
        Frames { limits, open: BTreeMap::new(), seq_last: BTreeMap::new() }
    }

    /// Highest seq of each table.
    pub(crate) fn seqs_last(&self) -> BTreeMap<String, i64> {
        self.seq_last.iter().map(|(table, seq)| ((*table).to_owned(), *seq)).collect()
    }

    /// Goes on after the frames that an earlier start has numbered.
    pub(crate) fn go_on_after(&mut self, seqs_last: &BTreeMap<String, i64>) {
        let known = |(name, seq): (&String, &i64)| catalog::table(name).map(|table| (table.name, *seq));
        self.seq_last = seqs_last.iter().filter_map(known).collect();
    }

    /// Takes over other limits; a frame that is open waits no longer than they allow from now on.
    pub(crate) fn limit(&mut self, limits: FramesConfig, now: Instant) {
        let due = now + limits.age_max;
        self.open.values_mut().for_each(|open| open.due = open.due.min(due));
        self.limits = limits;
    }

    /// The rows of the open frames.
    pub(crate) fn open_rows(&self) -> Vec<Counted> {
        self.open.values().flat_map(|open| open.rows.iter().cloned()).collect()
    }

    /// Highest seq given to a frame of the table; 0 where none was.
    pub(crate) fn seq_last(&self, table: &str) -> i64 {
        self.seq_last.get(table).copied().unwrap_or(0)
    }

    /// When the next frame is old enough to be closed.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.open.values().map(|open| open.due).min()
    }

    /// Adds a row; closes the frame where it would grow too large or must not wait.
    pub(crate) fn push(&mut self, place: &Place, row: Row, minute: i64, outcome: Outcome, now: Instant) -> Vec<Closed> {
        let mut closed = Vec::new();
        let table = row.table();
        let at_once = std::ptr::eq(table, &EVENT) || std::ptr::eq(table, &DEVICE);
        let before = self.open.get(table.name).and_then(|open| open.rows.last()).map(|last| &last.row);
        let bytes = estimate(&row, before);
        if self.open.get(table.name).is_some_and(|open| open.bytes + bytes > self.limits.bytes_max) {
            closed.extend(self.close(place, table.name));
        }
        let due = now + self.limits.age_max;
        let open = self.open.entry(table.name).or_insert_with(|| Open { table, rows: Vec::new(), bytes: 0, due });
        open.rows.push(Counted { row, minute, outcome });
        open.bytes += bytes;
        if at_once || open.rows.len() >= self.limits.rows_max {
            closed.extend(self.close(place, table.name));
        }
        closed
    }

    /// Closes the frames that are old enough.
    pub(crate) fn close_due(&mut self, place: &Place, now: Instant) -> Vec<Closed> {
        let due: Vec<&str> = self.open.iter().filter(|(_, open)| open.due <= now).map(|(table, _)| *table).collect();
        due.into_iter().flat_map(|table| self.close(place, table)).collect()
    }

    /// Closes every frame.
    pub(crate) fn close_all(&mut self, place: &Place) -> Vec<Closed> {
        let all: Vec<&str> = self.open.keys().copied().collect();
        all.into_iter().flat_map(|table| self.close(place, table)).collect()
    }

    fn close(&mut self, place: &Place, table: &str) -> Vec<Closed> {
        let Some(mut open) = self.open.remove(table) else { return Vec::new() };
        open.rows.sort_by(|a, b| in_file_order(&a.row, &b.row));
        let mut closed = Vec::new();
        self.encode(place, open.table, open.rows, &mut closed);
        closed
    }

    /// Encodes rows as one frame, or as two of half the rows where one would be too large.
    fn encode(&mut self, place: &Place, table: &'static Table, counted: Vec<Counted>, closed: &mut Vec<Closed>) {
        let mut tally = Tally::default();
        let mut rows = Rows::new(table);
        for one in &counted {
            tally.add(one.minute, one.outcome);
            rows.push(one.row.clone());
        }
        let seq = self.seq_last(table.name) + 1;
        let header = FrameHeader { table, stream_id: place.stream_id.clone(), seq, node: place.node.clone() };
        let batch = match rows.into_wire_batch() {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(table = table.name, %error, "rows that cannot be put into columns are dropped");
                return closed.push(Closed::Refused { table, bytes: 0, tally });
            }
        };
        let payload = wire::encode(&header, &batch);
        if payload.len() <= self.limits.bytes_max {
            self.seq_last.insert(table.name, seq);
            return closed.push(Closed::Frame(Frame {
                table,
                stream_id: place.stream_id.clone(),
                node: place.node.clone(),
                route: Arc::clone(&place.route),
                partition: place.route.partition(&place.node),
                seq,
                rows: counted.len(),
                bytes: payload.len(),
                payload: Some(payload.into()),
                closed_at: Clock::now_us(),
                tally,
            }));
        }
        if counted.len() == 1 {
            return closed.push(Closed::Refused { table, bytes: payload.len(), tally });
        }
        let mut first = counted;
        let second = first.split_off(first.len() / 2);
        self.encode(place, table, first, closed);
        self.encode(place, table, second, closed);
    }
}

/// The order of files: by device, sub-key, time.
fn in_file_order(a: &Row, b: &Row) -> Ordering {
    let column = |&column: &usize| compare(a.cell(column), b.cell(column));
    a.table().sort_key.iter().map(column).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn compare(a: &Cell, b: &Cell) -> Ordering {
    match (a, b) {
        (Cell::Null, Cell::Null) => Ordering::Equal,
        (Cell::Null, _) => Ordering::Less,
        (_, Cell::Null) => Ordering::Greater,
        (Cell::I64(a), Cell::I64(b)) => a.cmp(b),
        (Cell::Text(a), Cell::Text(b)) => a.cmp(b),
        _ => Ordering::Equal, // keys are integers and texts
    }
}

/// About how many bytes the row adds to the frame whose last row is `before`. Rather too many: rows come in any order
/// and are encoded device by device, where neighbours are closer.
fn estimate(row: &Row, before: Option<&Row>) -> usize {
    let columns = 0..row.table().columns.len();
    columns.map(|column| cell_bytes(row.cell(column), before.map(|row| row.cell(column)))).sum()
}

fn cell_bytes(cell: &Cell, before: Option<&Cell>) -> usize {
    match cell {
        Cell::Null => 0,
        Cell::I64(value) => {
            let last = if let Some(Cell::I64(last)) = before { *last } else { 0 };
            let bits = 65 - value.wrapping_sub(last).unsigned_abs().leading_zeros() as usize;
            bits.div_ceil(7)
        }
        Cell::F32(_) => 4,
        Cell::F64(_) => 8,
        Cell::Text(_) if before == Some(cell) => 1,
        Cell::Text(text) => 4 + text.len(),
        Cell::List(items) => 2 + items.len() * 3,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use racklake_schemas::tables::{GPU_SAMPLE, event, gpu_sample};

    use super::*;
    use crate::testing::{decode, gpu_row, place, texts};

    fn frames(limits: FramesConfig) -> Frames {
        Frames::new(limits)
    }

    fn frame(closed: Vec<Closed>) -> Vec<Frame> {
        closed
            .into_iter()
            .map(|c| if let Closed::Frame(frame) = c { frame } else { panic!("refused: {c:?}") })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_is_closed_when_its_first_row_is_old_enough() {
        let mut frames = frames(FramesConfig { age_max: Duration::from_secs(10), ..FramesConfig::default() });
        let start = Instant::now();
        assert!(frames.push(&place(), gpu_row("a", 1), 0, Outcome::Collected, start).is_empty());
        frames.push(&place(), gpu_row("a", 2), 0, Outcome::Collected, start + Duration::from_secs(9));
        assert!(frames.close_due(&place(), start + Duration::from_millis(9999)).is_empty());
        assert_eq!(frames.next_due(), Some(start + Duration::from_secs(10)));
        let closed = frame(frames.close_due(&place(), start + Duration::from_secs(10)));
        assert_eq!((closed.len(), closed[0].rows, closed[0].seq), (1, 2, 1));
    }

    #[test]
    fn a_frame_is_closed_at_its_number_of_rows_and_seq_runs_on() {
        let mut frames = frames(FramesConfig { rows_max: 2, ..FramesConfig::default() });
        let push =
            |frames: &mut Frames, ts| frames.push(&place(), gpu_row("a", ts), 0, Outcome::Collected, Instant::now());
        let closed: Vec<Frame> = (1..=5).flat_map(|ts| frame(push(&mut frames, ts))).collect();
        assert_eq!(closed.iter().map(|frame| (frame.seq, frame.rows)).collect::<Vec<_>>(), [(1, 2), (2, 2)]);
        assert_eq!(frame(frames.close_all(&place()))[0].seq, 3);
    }

    #[test]
    fn no_frame_is_larger_than_the_limit() {
        let limits = FramesConfig { bytes_max: 4096, ..FramesConfig::default() };
        let mut frames = frames(limits);
        let mut closed = Vec::new();
        for ts in 0..2000 {
            closed.extend(frames.push(
                &place(),
                gpu_row(&format!("device-{}", ts % 97), ts),
                0,
                Outcome::Collected,
                Instant::now(),
            ));
        }
        closed.extend(frames.close_all(&place()));
        let closed = frame(closed);
        assert!(closed.len() > 1 && closed.iter().all(|frame| frame.bytes <= 4096));
        assert_eq!(closed.iter().map(|frame| frame.rows).sum::<usize>(), 2000);
        assert_eq!(
            closed.iter().map(|frame| frame.seq).collect::<Vec<_>>(),
            (1..=closed.len() as i64).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_row_above_the_limit_is_refused_and_takes_no_seq() {
        let mut frames = frames(FramesConfig { bytes_max: 4096, ..FramesConfig::default() });
        let mut row = Row::new(&EVENT);
        row.set(event::MESSAGE, "x".repeat(5000));
        let closed = frames.push(&place(), row, 0, Outcome::Collected, Instant::now());
        assert!(matches!(closed[..], [Closed::Refused { bytes: 5000.., .. }]), "{closed:?}");
        assert_eq!(frames.seq_last("event"), 0);
    }

    #[test]
    fn rows_lie_device_by_device() {
        let mut frames = frames(FramesConfig::default());
        for (device, ts) in [("b", 1), ("a", 1), ("b", 2), ("a", 2)] {
            frames.push(&place(), gpu_row(device, ts), 0, Outcome::Collected, Instant::now());
        }
        let batch = decode(&frame(frames.close_all(&place()))[0]);
        assert_eq!(texts(&batch, gpu_sample::DEVICE_ID), ["a", "a", "b", "b"]);
        assert_eq!(GPU_SAMPLE.name, "gpu_sample");
    }

    #[test]
    fn events_do_not_wait() {
        let mut frames = frames(FramesConfig::default());
        let mut row = crate::event::EventNumbers::default();
        let row = row.row(&place(), crate::event::own("collector_start", "info", "started"), None, 1);
        assert_eq!(frame(frames.push(&place(), row, 0, Outcome::Collected, Instant::now())).len(), 1);
    }
}
