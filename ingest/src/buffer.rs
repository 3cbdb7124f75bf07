//! Rows of one table that wait to be written, partition by partition, each with the offsets that they cover and the set
//! of frames received.
//!
//! A part's span begins where the flush before it ended, so that spans of one partition join without gap or overlap
//! whatever happens to a flush; so does its received set. A part that is given up takes rows and set with it; Kafka still
//! has the frames, and the lake the set that goes with its position. The buffer sets
//! no limit of its own: it says what it holds.

use std::collections::{BTreeMap, VecDeque};

use racklake_schemas::{Rows, Table};
use racklake_storage::Span;
use rdkafka::message::OwnedMessage;
use tokio::time::Instant;

use crate::received::{self, ReceivedSet};

/// Rows of one table.
#[derive(Debug)]
pub(crate) struct Buffer {
    table: &'static Table,
    topic: String,
    parts: BTreeMap<i32, Part>,
    /// When the oldest thing that is not yet committed came in.
    since: Option<Instant>,
}

/// What a partition has in the buffer.
#[derive(Debug)]
pub(crate) struct Part {
    /// Name of the partition's position in the lake.
    pub(crate) app_id: String,
    /// The assignment that its frames carry.
    pub(crate) epoch: u64,
    /// Whether fetching is paused.
    pub(crate) paused: bool,
    /// Offset of a message that is on its way to the dead-letter topic; the span ends before it.
    pub(crate) letter: Option<i64>,
    /// What came after that message.
    pub(crate) held: VecDeque<OwnedMessage>,
    /// Next offset that the lake does not have, as far as is known here.
    pub(crate) committed: Option<i64>,
    began_at: Option<i64>,
    next: Option<i64>,
    rows: Rows,
    /// Rows of frames that are marked as replayed, which the lake files by the day of their reading, however old.
    replayed: Rows,
    bytes: usize,
    /// What has been received up to `next`.
    received: ReceivedSet,
}

/// A part on its way into the lake.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The partition.
    pub(crate) partition: i32,
    /// The assignment that it was read under.
    pub(crate) epoch: u64,
    /// The offsets that it covers, and what they change in the received set.
    pub(crate) span: Span,
    /// Its rows, perhaps none.
    pub(crate) rows: Rows,
    /// Its rows of frames that are marked as replayed, perhaps none.
    pub(crate) replayed: Rows,
}

impl Buffer {
    /// A buffer without partitions.
    pub(crate) fn new(table: &'static Table, topic: String) -> Buffer {
        Buffer { table, topic, parts: BTreeMap::new(), since: None }
    }

    /// Begins a partition: the lake has everything before `began_at`, or nothing of it, and in the same version the
    /// set. What was there of it is given up.
    pub(crate) fn begin(
        &mut self,
        partition: i32,
        app_id: String,
        epoch: u64,
        began_at: Option<i64>,
        received: ReceivedSet,
    ) {
        let part = Part {
            app_id,
            epoch,
            paused: false,
            letter: None,
            held: VecDeque::new(),
            committed: began_at,
            began_at,
            next: began_at,
            rows: Rows::new(self.table),
            replayed: Rows::new(self.table),
            bytes: 0,
            received,
        };
        self.parts.insert(partition, part);
    }

    /// Gives a partition up, rows and all.
    pub(crate) fn give_up(&mut self, partition: i32) {
        self.parts.remove(&partition);
        if !self.has_progress() {
            self.since = None;
        }
    }

    /// Gives all partitions up.
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.since = None;
    }

    /// A partition that is being read.
    pub(crate) fn part(&self, partition: i32) -> Option<&Part> {
        self.parts.get(&partition)
    }

    /// A partition that is being read.
    pub(crate) fn part_mut(&mut self, partition: i32) -> Option<&mut Part> {
        self.parts.get_mut(&partition)
    }

    /// The partitions that are being read.
    pub(crate) fn parts_mut(&mut self) -> impl Iterator<Item = (i32, &mut Part)> {
        self.parts.iter_mut().map(|(partition, part)| (*partition, part))
    }

    /// Adds what `fill` adds to the partition's rows (those that are `replayed`, or the others) and received set, and moves
    /// the span past `offset`, unless `fill` fails.
    ///
    /// # Errors
    /// Those of `fill`, which must then have added nothing. `None` where the partition is not being read.
    pub(crate) fn add<T, E>(
        &mut self,
        partition: i32,
        offset: i64,
        replayed: bool,
        fill: impl FnOnce(&mut Rows, &mut ReceivedSet) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let part = self.parts.get_mut(&partition)?;
        let rows = if replayed { &mut part.replayed } else { &mut part.rows };
        let filled = fill(rows, &mut part.received);
        if filled.is_ok() {
            part.next = Some(offset + 1);
            part.bytes = part.rows.bytes() + part.replayed.bytes();
            self.since.get_or_insert_with(Instant::now);
        }
        Some(filled)
    }

    /// Moves a partition's span past a message that gives no rows; `record` tells the received set.
    pub(crate) fn pass(&mut self, partition: i32, offset: i64, record: impl FnOnce(&mut ReceivedSet)) {
        let no_rows = |_: &mut Rows, received: &mut ReceivedSet| {
            record(received);
            Ok::<(), std::convert::Infallible>(())
        };
        let _not_read = self.add(partition, offset, false, no_rows);
    }

    /// Takes all parts that have gone on; what comes next begins where they end.
    pub(crate) fn take(&mut self) -> Vec<Taken> {
        let mut taken = Vec::new();
        for (partition, part) in &mut self.parts {
            let Some(next) = part.next.filter(|_| part.has_progress()) else { continue };
            let rows = std::mem::replace(&mut part.rows, Rows::new(self.table));
            let replayed = std::mem::replace(&mut part.replayed, Rows::new(self.table));
            let domain = part.received.take_change(received::domain_name(&self.topic, *partition));
            let span = Span { app_id: part.app_id.clone(), began_at: part.began_at, next, domain: Some(domain) };
            taken.push(Taken { partition: *partition, epoch: part.epoch, span, rows, replayed });
            part.began_at = Some(next);
            part.bytes = 0;
        }
        self.since = None;
        taken
    }

    /// Whether there is anything to commit, if only a position.
    pub(crate) fn has_progress(&self) -> bool {
        self.parts.values().any(Part::has_progress)
    }

    /// When the oldest thing in it came in.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// How many rows.
    pub(crate) fn rows(&self) -> usize {
        self.parts.values().map(|part| part.rows.len() + part.replayed.len()).sum()
    }

    /// Bytes of memory that the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.values().map(|part| part.bytes).sum()
    }
}

impl Part {
    /// Whether a message has been taken already, or is below where the part began.
    pub(crate) fn has(&self, offset: i64) -> bool {
        self.next.is_some_and(|next| offset < next)
    }

    fn has_progress(&self) -> bool {
        self.next != self.began_at
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::{Row, tables};

    use super::*;
    use crate::received::{Admission, FrameId};

    const AGE_MAX: std::time::Duration = std::time::Duration::from_secs(86_400);

    fn frame(seq: i64) -> FrameId {
        FrameId::new("0123456789abcdef0123456789abcdef", seq).unwrap()
    }

    /// The highest seq that the set of a part has, when its flush begins and when it ends.
    fn change(taken: &Taken) -> [Option<i64>; 2] {
        let change = taken.span.domain.clone().unwrap();
        assert_eq!(change.name, "racklake.received.t.0");
        [change.was, Some(change.now)].map(|text| {
            let set = ReceivedSet::restore(text).unwrap();
            set.streams().flat_map(|(_, stream)| stream.received()).map(|(_, last)| *last).max()
        })
    }

    fn reading(parts: &[(i32, Option<i64>)]) -> Buffer {
        let mut buffer = Buffer::new(&tables::COVERAGE, "t".to_owned());
        for (partition, began_at) in parts {
            buffer.begin(*partition, format!("t/id/{partition}"), 1, *began_at, ReceivedSet::default());
        }
        buffer
    }

    fn add(buffer: &mut Buffer, partition: i32, offset: i64) {
        let one_row = |rows: &mut Rows, received: &mut ReceivedSet| {
            rows.push(Row::new(&tables::COVERAGE));
            received.add(frame(offset + 1), 0, AGE_MAX);
            Ok::<(), ()>(())
        };
        buffer.add(partition, offset, offset % 2 == 1, one_row).unwrap().unwrap();
    }

    fn spans(taken: &[Taken]) -> Vec<(i32, Option<i64>, i64, usize)> {
        taken
            .iter()
            .map(|part| (part.partition, part.span.began_at, part.span.next, part.rows.len() + part.replayed.len()))
            .collect()
    }

    #[test]
    fn spans_of_a_partition_join_from_flush_to_flush() {
        let mut buffer = reading(&[(0, None), (1, Some(40))]);
        add(&mut buffer, 0, 3);
        add(&mut buffer, 0, 4);
        add(&mut buffer, 1, 40);
        assert_eq!(spans(&buffer.take()), [(0, None, 5, 2), (1, Some(40), 41, 1)]);
        assert!(!buffer.has_progress() && buffer.rows() == 0 && buffer.bytes() == 0 && buffer.since().is_none());
        add(&mut buffer, 1, 41);
        assert_eq!(spans(&buffer.take()), [(1, Some(41), 42, 1)]);
    }

    #[test]
    fn rows_of_replayed_frames_stay_apart() {
        let mut buffer = reading(&[(0, None)]);
        (0..5).for_each(|offset| add(&mut buffer, 0, offset));
        assert_eq!(buffer.rows(), 5);
        let taken = buffer.take();
        assert_eq!((taken[0].rows.len(), taken[0].replayed.len()), (3, 2));
        assert!(buffer.rows() == 0 && buffer.bytes() == 0);
    }

    #[test]
    fn a_partition_given_up_takes_its_rows_along_and_leaves_the_others() {
        let mut buffer = reading(&[(0, Some(0)), (1, Some(0))]);
        add(&mut buffer, 0, 0);
        add(&mut buffer, 1, 0);
        buffer.give_up(0);
        assert_eq!(spans(&buffer.take()), [(1, Some(0), 1, 1)]);
    }

    #[test]
    fn the_received_set_travels_with_the_rows_from_flush_to_flush() {
        let mut buffer = reading(&[(0, Some(0))]);
        add(&mut buffer, 0, 0);
        assert_eq!(change(&buffer.take()[0]), [None, Some(1)]);
        add(&mut buffer, 0, 1);
        assert_eq!(change(&buffer.take()[0]), [Some(1), Some(2)]);
    }

    #[test]
    fn a_partition_begun_anew_has_the_set_of_the_lake_and_nothing_of_a_flush_that_was_thrown_away() {
        let mut buffer = reading(&[(0, Some(0))]);
        add(&mut buffer, 0, 0);
        let committed = buffer.take().remove(0).span.domain.unwrap().now;
        add(&mut buffer, 0, 1);
        let _thrown_away = buffer.take();
        add(&mut buffer, 0, 2);
        let of_lake = ReceivedSet::restore(Some(committed)).unwrap();
        buffer.begin(0, "t/id/0".to_owned(), 2, Some(1), of_lake);
        let judged = buffer.add(0, 1, false, |_, received| {
            let judged = [1, 2, 3].map(|seq| received.judge(frame(seq)));
            received.add(frame(2), 0, AGE_MAX);
            Ok::<_, ()>(judged)
        });
        assert_eq!(judged, Some(Ok([Admission::Duplicate, Admission::New, Admission::New])));
        assert_eq!(change(&buffer.take()[0]), [Some(1), Some(2)]);
    }

    #[test]
    fn a_position_moves_without_rows_past_a_dead_letter() {
        let mut buffer = reading(&[(0, Some(7))]);
        assert!(buffer.add(0, 7, false, |_, _| Err::<(), _>("not a frame")).unwrap().is_err());
        assert!(!buffer.has_progress());
        buffer.pass(0, 7, |received| received.add_letter(None, 0, AGE_MAX));
        assert_eq!(spans(&buffer.take()), [(0, Some(7), 8, 0)]);
    }

    #[test]
    fn records_that_retention_removed_are_covered_by_the_span() {
        let mut buffer = reading(&[(0, Some(7))]);
        assert!(buffer.part(0).unwrap().has(6) && !buffer.part(0).unwrap().has(7));
        add(&mut buffer, 0, 30);
        assert_eq!(spans(&buffer.take()), [(0, Some(7), 31, 1)]);
    }
}
