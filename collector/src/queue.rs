//! Closed frames that wait for Kafka, bounded in bytes and age; what has to go is the oldest.
//!
//! A frame is handed out only once the spool has it on disk. Payloads are kept in memory up to a limit; beyond it the
//! disk alone has them. Fresh frames go before those that have waited long, so an outage that drains does not delay
//! what is read now. Frames of `event`, `device` and `coverage` are dropped last: they are small, and they tell what else
//! was dropped. A frame that comes back from a failed delivery goes to its old place.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use racklake_schemas::Table;
use racklake_schemas::tables::{COVERAGE, DEVICE, EVENT};
use tokio::time::Instant;

use crate::frames::Frame;

/// A frame that has waited this long is a replay.
const FRESH: Duration = Duration::from_secs(60);

/// A frame that Kafka has not acknowledged this long after it was on disk has waited for it; the catalog says so too.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Why a frame was dropped.
pub(crate) mod drop_reason {
    /// `spool.bytes_max` was reached.
    pub(crate) const FULL: &str = "spool_full";
    /// The frame was older than `spool.age_max`.
    pub(crate) const AGE: &str = "spool_age";
    /// The disk takes nothing, and memory is full.
    pub(crate) const UNWRITABLE: &str = "spool_unwritable";
    /// The disk gave back something else than was stored.
    pub(crate) const DAMAGED: &str = "spool_damaged";
    /// Kafka will never take it.
    pub(crate) const REFUSED: &str = "kafka_refused";
    /// A row is larger than a frame may be.
    pub(crate) const ROW: &str = "row_too_large";

    /// The reason of that name.
    pub(crate) fn known(name: &str) -> Option<&'static str> {
        [FULL, AGE, UNWRITABLE, DAMAGED, REFUSED, ROW].into_iter().find(|reason| *reason == name)
    }
}

/// How much may wait.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Bytes of frames, on disk or not.
    pub(crate) bytes_max: usize,
    /// Bytes of payloads in memory that are not on disk yet; half of it, of those that are.
    pub(crate) memory_max: usize,
    /// How old a frame may become.
    pub(crate) age_max: Duration,
    /// Whether there is a disk to wait for.
    pub(crate) spooled: bool,
}

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// In memory.
    Memory,
    /// In a transaction that has not returned.
    Writing,
    /// On disk, or it will never be.
    Disk,
}

/// A frame with its place in line.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Its key in the spool; rises with every frame.
    pub(crate) order: u64,
    pub(crate) frame: Frame,
    kept: Kept,
    since: Instant,
    /// Since when it may be handed out.
    ready_at: Option<Instant>,
    /// A delivery has failed.
    was_put_back: bool,
    /// How old it was when this process found it on disk; `None` where this process made it.
    restored_age: Option<Duration>,
}

impl Queued {
    /// Whether it has waited so long that it is no part of what is read now.
    pub(crate) fn is_replay(&self, now: Instant) -> bool {
        self.restored_age.is_some() || now.duration_since(self.since) > FRESH
    }

    /// Whether Kafka has not taken it at once.
    pub(crate) fn has_waited(&self, now: Instant) -> bool {
        let late = self.ready_at.is_some_and(|ready_at| now.duration_since(ready_at) > AT_ONCE);
        self.was_put_back || self.restored_age.is_some() || late
    }

    fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.since) + self.restored_age.unwrap_or_default()
    }
}

/// A frame that had to go.
#[derive(Debug)]
pub(crate) struct Dropped {
    pub(crate) order: u64,
    pub(crate) frame: Frame,
    pub(crate) reason: &'static str,
}

/// What one transaction has to change on disk.
pub(crate) struct Cut<'a> {
    /// Frames to store, by their key.
    pub(crate) fresh: Vec<(u64, &'a Frame)>,
    /// Keys of frames to remove.
    pub(crate) removed: Vec<u64>,
}

/// The line.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    waiting: BTreeMap<&'static str, VecDeque<Queued>>,
    waiting_bytes: usize,
    in_flight_bytes: usize,
    /// Payloads in memory whose frames are not on disk, and whose are.
    unwritten_bytes: usize,
    cached_bytes: usize,
    order_next: u64,
    removed: Vec<u64>,
}

impl Queue {
    /// An empty line.
    pub(crate) fn new(limits: Limits) -> Queue {
        Queue {
            limits,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            in_flight_bytes: 0,
            unwritten_bytes: 0,
            cached_bytes: 0,
            order_next: 0,
            removed: Vec::new(),
        }
    }

    /// Takes over other limits; what is too much goes when the next frame comes.
    pub(crate) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Puts the frames in line that an earlier start has left on disk, in their order.
    pub(crate) fn restore(&mut self, frames: Vec<(u64, Frame)>, order_next: u64, wall_us: i64, now: Instant) {
        for (order, frame) in frames {
            let age = Duration::from_micros(u64::try_from(wall_us - frame.closed_at).unwrap_or(0));
            self.waiting_bytes += frame.bytes;
            self.order_next = self.order_next.max(order + 1);
            let (ready_at, restored_age) = (Some(now), Some(age));
            let queued =
                Queued { order, frame, kept: Kept::Disk, since: now, ready_at, was_put_back: false, restored_age };
            self.waiting.entry(queued.frame.table.name).or_default().push_back(queued);
        }
        self.order_next = self.order_next.max(order_next);
    }

    /// Takes the frame with that key out of the line, as the start before this one has done.
    pub(crate) fn remove(&mut self, order: u64) -> Option<Frame> {
        let place_in = |line: &VecDeque<Queued>| line.binary_search_by_key(&order, |queued| queued.order).ok();
        let (line, place) = self.waiting.values_mut().find_map(|line| place_in(line).map(|place| (line, place)))?;
        let queued = line.remove(place)?;
        Some(self.drop_waiting(queued, drop_reason::FULL).frame)
    }

    /// Puts a frame at the end and gives the frames that had to go for it, with the reason; that is the new one itself
    /// where nothing else can go.
    #[must_use]
    pub(crate) fn push(&mut self, frame: Frame, now: Instant) -> Vec<Dropped> {
        let order = self.order_next;
        self.order_next += 1;
        self.waiting_bytes += frame.bytes;
        let (kept, ready_at) = if self.limits.spooled { (Kept::Memory, None) } else { (Kept::Disk, Some(now)) };
        let queued = Queued { order, frame, kept, since: now, ready_at, was_put_back: false, restored_age: None };
        self.count_memory(&queued, true);
        self.waiting.entry(queued.frame.table.name).or_default().push_back(queued);
        let mut dropped = Vec::new();
        while self.waiting_bytes + self.in_flight_bytes > self.limits.bytes_max {
            let Some(oldest) = self.remove_least_wanted(drop_reason::FULL, |_| true) else { break };
            dropped.push(oldest);
        }
        while self.unwritten_bytes > self.limits.memory_max {
            let may_go = |kept| kept == Kept::Memory;
            let Some(oldest) = self.remove_least_wanted(drop_reason::UNWRITABLE, may_go) else { break };
            dropped.push(oldest);
        }
        dropped
    }

    /// Removes the frames that are too old.
    #[must_use]
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Dropped> {
        let age_max = self.limits.age_max;
        let mut expired = Vec::new();
        for line in self.waiting.values_mut() {
            while line.front().is_some_and(|oldest| oldest.age(now) > age_max) {
                expired.extend(line.pop_front());
            }
        }
        expired.into_iter().map(|queued| self.drop_waiting(queued, drop_reason::AGE)).collect()
    }

    /// Takes the first frame of the tables that are `open` and counts it as in flight: the oldest fresh one, else the
    /// oldest; `None` where it is larger than `room`.
    pub(crate) fn take(&mut self, open: impl Fn(&'static Table) -> bool, room: usize, now: Instant) -> Option<Queued> {
        let mut first: Option<(bool, u64, &'static str, usize)> = None;
        for (table, line) in &self.waiting {
            let Some(oldest) = line.front().filter(|queued| open(queued.frame.table)) else { continue };
            let place = if oldest.is_replay(now) { line.partition_point(|queued| queued.is_replay(now)) } else { 0 };
            let fresh = line.get(place).filter(|queued| queued.kept == Kept::Disk).map(|queued| (queued, place));
            let Some((queued, place)) = fresh.or((oldest.kept == Kept::Disk).then_some((oldest, 0))) else { continue };
            let candidate = (queued.is_replay(now), queued.order, *table, place);
            first = Some(first.map_or(candidate, |first| first.min(candidate)));
        }
        let (_, _, table, place) = first?;
        let line = self.waiting.get_mut(table)?;
        if line.get(place)?.frame.bytes > room {
            return None;
        }
        let queued = line.remove(place)?;
        self.waiting_bytes -= queued.frame.bytes;
        self.in_flight_bytes += queued.frame.bytes;
        Some(queued)
    }

    /// A frame in flight is done with: acknowledged, or refused for good.
    pub(crate) fn settle(&mut self, queued: &Queued) {
        self.in_flight_bytes -= queued.frame.bytes;
        self.count_memory(queued, false);
        if self.limits.spooled {
            self.removed.push(queued.order);
        }
    }

    /// A frame in flight was not delivered and waits again, in its old place.
    pub(crate) fn put_back(&mut self, mut queued: Queued) {
        queued.was_put_back = true;
        self.in_flight_bytes -= queued.frame.bytes;
        self.waiting_bytes += queued.frame.bytes;
        let line = self.waiting.entry(queued.frame.table.name).or_default();
        let place = line.partition_point(|other| other.order < queued.order);
        line.insert(place, queued);
    }

    // The spool's side.

    /// Takes what has changed since the last time.
    pub(crate) fn cut(&mut self) -> Cut<'_> {
        let removed = std::mem::take(&mut self.removed);
        let mut fresh = Vec::new();
        for line in self.waiting.values_mut() {
            // Those not stored are the last of the line.
            for queued in line.iter_mut().rev().take_while(|queued| queued.kept == Kept::Memory) {
                queued.kept = Kept::Writing;
                fresh.push((queued.order, &queued.frame));
            }
        }
        fresh.sort_unstable_by_key(|(order, _)| *order);
        Cut { fresh, removed }
    }

    /// Whether there is something to cut.
    pub(crate) fn has_changed(&self) -> bool {
        let last_is_new = |line: &VecDeque<Queued>| line.back().is_some_and(|queued| queued.kept == Kept::Memory);
        !self.removed.is_empty() || self.waiting.values().any(last_is_new)
    }

    /// What was cut last is on disk.
    pub(crate) fn written(&mut self, now: Instant) {
        for line in self.waiting.values_mut() {
            let place = line.partition_point(|queued| queued.kept == Kept::Disk);
            for queued in line.iter_mut().skip(place).take_while(|queued| queued.kept == Kept::Writing) {
                queued.kept = Kept::Disk;
                queued.ready_at = Some(now);
                self.unwritten_bytes -= queued.frame.bytes;
                if self.cached_bytes + queued.frame.bytes <= self.limits.memory_max / 2 {
                    self.cached_bytes += queued.frame.bytes;
                } else {
                    queued.frame.payload = None;
                }
            }
        }
    }

    /// The key that the next frame gets.
    pub(crate) fn order_next(&self) -> u64 {
        self.order_next
    }

    // What is there.

    /// Tables that have frames waiting.
    pub(crate) fn tables(&self) -> Vec<&'static Table> {
        self.waiting.values().filter_map(|line| line.front().map(|first| first.frame.table)).collect()
    }

    /// Frames that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Whether no frame waits or is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight_bytes == 0 && self.len() == 0
    }

    /// Bytes that wait, and bytes in flight.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        (self.waiting_bytes, self.in_flight_bytes)
    }

    /// Age of the oldest frame that waits.
    pub(crate) fn oldest_age(&self, now: Instant) -> Duration {
        self.waiting.values().filter_map(|line| line.front()).map(|first| first.age(now)).max().unwrap_or_default()
    }

    fn remove_least_wanted(&mut self, reason: &'static str, may_go: impl Fn(Kept) -> bool) -> Option<Dropped> {
        let is_ledger = |table: &'static Table| [&EVENT, &DEVICE, &COVERAGE].iter().any(|t| std::ptr::eq(*t, table));
        let mut least: Option<(bool, u64, &'static str, usize)> = None;
        for (table, line) in &self.waiting {
            // In line: those on disk, those being written, those in memory.
            let place = line.partition_point(|queued| !may_go(queued.kept));
            let Some(queued) = line.get(place) else { continue };
            let candidate = (is_ledger(queued.frame.table), queued.order, *table, place);
            least = Some(least.map_or(candidate, |least| least.min(candidate)));
        }
        let (_, _, table, place) = least?;
        let queued = self.waiting.get_mut(table)?.remove(place)?;
        Some(self.drop_waiting(queued, reason))
    }

    /// Accounts for a waiting frame that is no longer in line.
    fn drop_waiting(&mut self, queued: Queued, reason: &'static str) -> Dropped {
        self.waiting_bytes -= queued.frame.bytes;
        self.count_memory(&queued, false);
        if queued.kept != Kept::Memory {
            self.removed.push(queued.order);
        }
        Dropped { order: queued.order, frame: queued.frame, reason }
    }

    fn count_memory(&mut self, queued: &Queued, added: bool) {
        let bytes = match queued.kept {
            Kept::Memory | Kept::Writing => &mut self.unwritten_bytes,
            Kept::Disk if queued.frame.payload.is_some() => &mut self.cached_bytes,
            Kept::Disk => return,
        };
        *bytes = if added { *bytes + queued.frame.bytes } else { *bytes - queued.frame.bytes };
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::{GPU_SAMPLE, MINER_SAMPLE};

    use super::*;
    use crate::testing::frame;

    fn queue(bytes_max: usize, spooled: bool) -> Queue {
        Queue::new(Limits { bytes_max, memory_max: 400, age_max: Duration::from_secs(3600), spooled })
    }

    /// Pushes a frame of 100 bytes and gives the seqs of those that went.
    fn push(queue: &mut Queue, table: &'static Table, seq: i64) -> Vec<i64> {
        queue.push(frame(table, seq), Instant::now()).iter().map(|dropped| dropped.frame.seq).collect()
    }

    fn take(queue: &mut Queue) -> Option<(&'static str, i64)> {
        let queued = queue.take(|_| true, usize::MAX, Instant::now())?;
        queue.settle(&queued);
        Some((queued.frame.table.name, queued.frame.seq))
    }

    fn cut(queue: &mut Queue) -> (Vec<u64>, Vec<u64>) {
        let Cut { fresh, removed } = queue.cut();
        (fresh.into_iter().map(|(order, _)| order).collect(), removed)
    }

    #[test]
    fn when_it_is_full_the_oldest_sample_goes_and_events_stay() {
        let mut queue = queue(300, false);
        assert!(push(&mut queue, &EVENT, 1).is_empty());
        assert!(push(&mut queue, &GPU_SAMPLE, 1).is_empty());
        assert!(push(&mut queue, &GPU_SAMPLE, 2).is_empty());
        assert_eq!(push(&mut queue, &GPU_SAMPLE, 3), [1]);
        assert_eq!(take(&mut queue), Some(("event", 1)));
        assert_eq!(take(&mut queue), Some(("gpu_sample", 2)));
    }

    #[test]
    fn frames_in_flight_count_and_come_back_to_their_place() {
        let mut queue = queue(300, false);
        (1..=3).for_each(|seq| assert!(push(&mut queue, &GPU_SAMPLE, seq).is_empty()));
        let first = queue.take(|_| true, 1000, Instant::now()).unwrap();
        let second = queue.take(|_| true, 1000, Instant::now()).unwrap();
        assert_eq!(queue.bytes(), (100, 200));
        assert!(queue.take(|_| true, 99, Instant::now()).is_none());
        assert_eq!(push(&mut queue, &GPU_SAMPLE, 4), [3]);
        queue.put_back(second);
        queue.put_back(first);
        assert_eq!((take(&mut queue), take(&mut queue)), (Some(("gpu_sample", 1)), Some(("gpu_sample", 2))));
    }

    #[test]
    fn a_table_that_waits_does_not_hold_up_others() {
        let mut queue = queue(1000, false);
        assert!(push(&mut queue, &GPU_SAMPLE, 1).is_empty());
        assert!(push(&mut queue, &MINER_SAMPLE, 1).is_empty());
        let queued = queue.take(|table| !std::ptr::eq(table, &GPU_SAMPLE), 1000, Instant::now()).unwrap();
        assert_eq!(queued.frame.table.name, "miner_sample");
    }

    #[test]
    fn a_frame_is_handed_out_once_it_is_on_disk_and_leaves_the_disk_once_it_is_settled() {
        let mut queue = queue(1000, true);
        assert!(push(&mut queue, &GPU_SAMPLE, 1).is_empty());
        assert_eq!(cut(&mut queue), (vec![0], vec![]));
        assert!(push(&mut queue, &GPU_SAMPLE, 2).is_empty());
        assert_eq!(take(&mut queue), None);
        queue.written(Instant::now());
        assert_eq!((take(&mut queue), take(&mut queue)), (Some(("gpu_sample", 1)), None));
        assert_eq!(cut(&mut queue), (vec![1], vec![0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_has_waited_once_a_delivery_failed_or_ten_seconds_have_passed_on_disk() {
        let mut queue = queue(1000, true);
        (1..=3).for_each(|seq| assert!(push(&mut queue, &GPU_SAMPLE, seq).is_empty()));
        tokio::time::sleep(Duration::from_secs(20)).await;
        cut(&mut queue);
        queue.written(Instant::now());
        let next = |queue: &mut Queue| queue.take(|_| true, 1000, Instant::now()).unwrap();
        let (first, second) = (next(&mut queue), next(&mut queue));
        assert!(!first.has_waited(Instant::now()) && !second.has_waited(Instant::now()));
        queue.put_back(first);
        assert!(next(&mut queue).has_waited(Instant::now()));
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(second.has_waited(Instant::now()));
    }

    #[test]
    fn a_frame_that_goes_while_it_is_written_is_removed_afterwards() {
        let mut queue = queue(100, true);
        assert!(push(&mut queue, &GPU_SAMPLE, 1).is_empty());
        cut(&mut queue);
        assert_eq!(push(&mut queue, &GPU_SAMPLE, 2), [1]);
        queue.written(Instant::now());
        assert_eq!(cut(&mut queue), (vec![1], vec![0]));
    }

    #[test]
    fn where_the_disk_takes_nothing_memory_is_bounded() {
        let mut queue = queue(10_000, true);
        (1..=2).for_each(|seq| assert!(push(&mut queue, &GPU_SAMPLE, seq).is_empty()));
        cut(&mut queue);
        (3..=4).for_each(|seq| assert!(push(&mut queue, &GPU_SAMPLE, seq).is_empty()));
        assert_eq!(push(&mut queue, &GPU_SAMPLE, 5), [3]);
        queue.written(Instant::now());
        assert_eq!(queue.unwritten_bytes, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn fresh_frames_go_before_a_backlog_and_old_ones_expire() {
        let mut queue = queue(10_000, false);
        (1..=2).for_each(|seq| assert!(push(&mut queue, &GPU_SAMPLE, seq).is_empty()));
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert!(push(&mut queue, &GPU_SAMPLE, 3).is_empty());
        let first = queue.take(|_| true, 1000, Instant::now()).unwrap();
        assert_eq!((first.frame.seq, first.is_replay(Instant::now())), (3, false));
        let second = queue.take(|_| true, 1000, Instant::now()).unwrap();
        assert_eq!((second.frame.seq, second.is_replay(Instant::now())), (1, true));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let expired = queue.expire(Instant::now());
        assert_eq!(
            expired.iter().map(|dropped| (dropped.frame.seq, dropped.reason)).collect::<Vec<_>>(),
            [(2, "spool_age")]
        );
    }
}
