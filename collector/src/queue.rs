//! Closed frames that wait for Kafka, bounded in bytes; when it is full the oldest are dropped, and named.
//!
//! Frames of `event`, `device` and `coverage` go last: they are small, and they tell what else was dropped. The bytes
//! that the Kafka client holds count too. A frame that comes back from a failed delivery goes to its old place.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use racklake_schemas::Table;
use racklake_schemas::tables::{COVERAGE, DEVICE, EVENT};
use tokio::time::Instant;

use crate::frames::Frame;

/// A frame with its place in line.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) order: u64,
    pub(crate) frame: Frame,
}

/// The line.
#[derive(Debug)]
pub(crate) struct Queue {
    bytes_max: usize,
    waiting: BTreeMap<&'static str, VecDeque<Queued>>,
    waiting_bytes: usize,
    in_flight_bytes: usize,
    order_next: u64,
}

impl Queue {
    /// An empty line for so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Queue {
        Queue { bytes_max, waiting: BTreeMap::new(), waiting_bytes: 0, in_flight_bytes: 0, order_next: 0 }
    }

    /// Puts a frame at the end and gives the frames that had to go for it; that is the new one itself where nothing
    /// else can go.
    #[must_use]
    pub(crate) fn push(&mut self, frame: Frame) -> Vec<Frame> {
        let order = self.order_next;
        self.order_next += 1;
        self.waiting_bytes += frame.payload.len();
        self.waiting.entry(frame.table.name).or_default().push_back(Queued { order, frame });
        let mut dropped = Vec::new();
        while self.waiting_bytes + self.in_flight_bytes > self.bytes_max {
            let Some(oldest) = self.remove_least_wanted() else { break };
            dropped.push(oldest);
        }
        dropped
    }

    /// Takes the oldest frame of the tables that are `open` and counts it as in flight; `None` where it is larger than
    /// `room`.
    pub(crate) fn take(&mut self, open: impl Fn(&'static Table) -> bool, room: usize) -> Option<Queued> {
        let line = self
            .waiting
            .values_mut()
            .filter(|line| line.front().is_some_and(|first| open(first.frame.table)))
            .min_by_key(|line| line.front().map(|first| first.order))?;
        if line.front().is_some_and(|first| first.frame.payload.len() > room) {
            return None;
        }
        let queued = line.pop_front()?;
        self.waiting_bytes -= queued.frame.payload.len();
        self.in_flight_bytes += queued.frame.payload.len();
        Some(queued)
    }

    /// A frame in flight is done with: acknowledged, or refused for good.
    pub(crate) fn settle(&mut self, queued: &Queued) {
        self.in_flight_bytes -= queued.frame.payload.len();
    }

    /// A frame in flight was not delivered and waits again, in its old place.
    pub(crate) fn put_back(&mut self, queued: Queued) {
        self.settle(&queued);
        self.waiting_bytes += queued.frame.payload.len();
        let line = self.waiting.entry(queued.frame.table.name).or_default();
        let place = line.partition_point(|other| other.order < queued.order);
        line.insert(place, queued);
    }

    /// Tables that have frames waiting.
    pub(crate) fn tables(&self) -> Vec<&'static Table> {
        self.waiting.values().filter_map(|line| line.front().map(|first| first.frame.table)).collect()
    }

    /// Frames that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Bytes that wait, and bytes in flight.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        (self.waiting_bytes, self.in_flight_bytes)
    }

    fn remove_least_wanted(&mut self) -> Option<Frame> {
        let is_ledger = |table: &'static Table| [&EVENT, &DEVICE, &COVERAGE].iter().any(|t| std::ptr::eq(*t, table));
        let key = |line: &VecDeque<Queued>| line.front().map(|first| (is_ledger(first.frame.table), first.order));
        let line = self.waiting.values_mut().filter(|line| !line.is_empty()).min_by_key(|line| key(line))?;
        let queued = line.pop_front()?;
        self.waiting_bytes -= queued.frame.payload.len();
        Some(queued.frame)
    }
}

/// Frames of one table that were dropped one after another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DropRange {
    pub(crate) table: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) seq_first: i64,
    pub(crate) seq_last: i64,
    pub(crate) frames: i64,
    pub(crate) rows: i64,
}

/// Drops that no event has told yet; while dropping goes on they are merged and told every ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    untold: Vec<DropRange>,
    due: Option<Instant>,
}

/// How long drops are merged before an event tells them.
const MERGE: Duration = Duration::from_secs(10);

impl Drops {
    /// Notes a dropped frame.
    pub(crate) fn note(&mut self, frame: &Frame, reason: &'static str, now: Instant) {
        self.due.get_or_insert(now + MERGE);
        let (table, rows) = (frame.table.name, frame.rows as i64);
        let follows =
            |drop: &&mut DropRange| drop.table == table && drop.reason == reason && drop.seq_last + 1 == frame.seq;
        match self.untold.iter_mut().find(follows) {
            Some(drop) => {
                drop.seq_last = frame.seq;
                drop.frames += 1;
                drop.rows += rows;
            }
            None => {
                let (seq_first, seq_last) = (frame.seq, frame.seq);
                self.untold.push(DropRange { table, reason, seq_first, seq_last, frames: 1, rows });
            }
        }
    }

    /// When the drops noted so far are to be told.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes the drops to tell.
    pub(crate) fn take(&mut self) -> Vec<DropRange> {
        self.due = None;
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::{GPU_SAMPLE, MINER_SAMPLE};

    use super::*;
    use crate::coverage::Tally;

    fn frame(table: &'static Table, seq: i64) -> Frame {
        Frame { table, seq, rows: 3, payload: vec![0; 100], tally: Tally::default() }
    }

    fn take(queue: &mut Queue) -> Option<(&'static str, i64)> {
        let queued = queue.take(|_| true, usize::MAX)?;
        queue.settle(&queued);
        Some((queued.frame.table.name, queued.frame.seq))
    }

    #[test]
    fn when_it_is_full_the_oldest_sample_goes_and_events_stay() {
        let mut queue = Queue::new(300);
        assert!(queue.push(frame(&EVENT, 1)).is_empty());
        assert!(queue.push(frame(&GPU_SAMPLE, 1)).is_empty());
        assert!(queue.push(frame(&GPU_SAMPLE, 2)).is_empty());
        assert_eq!(queue.push(frame(&GPU_SAMPLE, 3)).iter().map(|f| f.seq).collect::<Vec<_>>(), [1]);
        assert_eq!(take(&mut queue), Some(("event", 1)));
        assert_eq!(take(&mut queue), Some(("gpu_sample", 2)));
    }

    #[test]
    fn frames_in_flight_count_and_come_back_to_their_place() {
        let mut queue = Queue::new(300);
        for seq in 1..=3 {
            assert!(queue.push(frame(&GPU_SAMPLE, seq)).is_empty());
        }
        let first = queue.take(|_| true, 1000).unwrap();
        let second = queue.take(|_| true, 1000).unwrap();
        assert_eq!(queue.bytes(), (100, 200));
        assert!(queue.take(|_| true, 99).is_none());
        assert_eq!(queue.push(frame(&GPU_SAMPLE, 4))[0].seq, 3);
        queue.put_back(second);
        queue.put_back(first);
        assert_eq!((take(&mut queue), take(&mut queue)), (Some(("gpu_sample", 1)), Some(("gpu_sample", 2))));
    }

    #[test]
    fn a_table_that_waits_does_not_hold_up_others() {
        let mut queue = Queue::new(1000);
        assert!(queue.push(frame(&GPU_SAMPLE, 1)).is_empty());
        assert!(queue.push(frame(&MINER_SAMPLE, 1)).is_empty());
        let queued = queue.take(|table| !std::ptr::eq(table, &GPU_SAMPLE), 1000).unwrap();
        assert_eq!(queued.frame.table.name, "miner_sample");
    }

    #[tokio::test(start_paused = true)]
    async fn drops_in_a_row_are_told_as_one() {
        let mut drops = Drops::default();
        for seq in [4, 5, 6, 9] {
            drops.note(&frame(&GPU_SAMPLE, seq), "queue_full", Instant::now());
        }
        let told: Vec<_> = drops.take().iter().map(|d| (d.seq_first, d.seq_last, d.frames, d.rows)).collect();
        assert_eq!(told, [(4, 6, 3, 9), (9, 9, 1, 3)]);
        assert!(drops.take().is_empty() && drops.due().is_none());
    }
}
