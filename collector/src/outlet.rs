//! The one door through which rows leave the samplers: they are counted, framed and put in line for Kafka here.
//!
//! Everything behind the door is plain data under one lock, so that a row, its count and the frame that carries it never
//! disagree. It waits for nothing and writes to no disk: what does not fit is dropped, counted and named.

use std::sync::{Arc, Mutex};

use racklake_schemas::clock::Clock;
use racklake_schemas::tables::device;
use racklake_schemas::{Row, Table};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock_state;
use crate::config::FramesConfig;
use crate::coverage::{Coverage, Outcome, Tally, minute_of};
use crate::event::{EventNumbers, detailed};
use crate::frames::{Closed, Frame, Frames};
use crate::health::Health;
use crate::metrics::{Metrics, one, two};
use crate::place::{DeviceLabels, Place, locked};
use crate::queue::{Drops, Queue, Queued};
use crate::source::EventDraft;

/// The door, shared by all tasks of one collector.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) place: Place,
    inner: Mutex<Inner>,
    /// Something new has a due time.
    timers: Notify,
    /// Frames wait for the publisher.
    ready: Notify,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
}

#[derive(Debug)]
struct Inner {
    frames: Frames,
    queue: Queue,
    drops: Drops,
    coverage: Coverage,
    numbers: EventNumbers,
}

impl Outlet {
    /// A door behind which nothing is yet.
    pub(crate) fn new(place: Place, limits: FramesConfig, metrics: Arc<Metrics>, health: Arc<Health>) -> Outlet {
        let inner = Inner {
            queue: Queue::new(limits.queue_bytes_max),
            frames: Frames::new(limits),
            drops: Drops::default(),
            coverage: Coverage::default(),
            numbers: EventNumbers::default(),
        };
        Outlet { place, inner: Mutex::new(inner), timers: Notify::new(), ready: Notify::new(), metrics, health }
    }

    /// Takes rows that are due at `due` (µs UTC). `late` ones came after a stale row and are not part of the balance.
    pub(crate) fn rows(&self, rows: Vec<Row>, due: i64, late: bool) {
        let mut inner = locked(&self.inner);
        for row in rows {
            let outcome = if late { Outcome::Late } else { Outcome::of(&row) };
            self.add(&mut inner, row, due, outcome);
        }
        drop(inner);
        self.timers.notify_one();
    }

    /// Counts due rows that are not made.
    pub(crate) fn skipped(&self, table: &'static Table, due: i64, rows: i64, reason: &'static str) {
        locked(&self.inner).coverage.skipped(table, minute_of(due), rows, reason);
        self.metrics.ticks_skipped.get_or_create(&one("table", table.name)).inc_by(rows as u64);
    }

    /// Counts how long a read took.
    pub(crate) fn call(&self, table: &'static Table, due: i64, read_us: i32) {
        locked(&self.inner).coverage.call(table, minute_of(due), read_us);
    }

    /// Takes the identity of a device as a row of `device`.
    pub(crate) fn device(&self, identity: &Row, labels: &DeviceLabels, because: &'static str) {
        let now = Clock::now_us();
        let mut row = identity.clone();
        row.set(device::OBSERVED_BECAUSE, because);
        self.place.stamp(&mut row, now, Some(labels));
        self.rows(vec![row], now, false);
    }

    /// Takes an event, of a device where one is given.
    pub(crate) fn event(&self, draft: EventDraft, device: Option<&DeviceLabels>) {
        self.add_event(&mut locked(&self.inner), draft, device);
        self.timers.notify_one();
    }

    /// A new id that joins the rows of an episode.
    pub(crate) fn episode(&self) -> String {
        locked(&self.inner).numbers.episode(&self.place)
    }

    /// Closes frames and tells drops when they are due, until `stop`.
    pub(crate) async fn run_timers(&self, stop: CancellationToken) {
        loop {
            let next = self.next_due();
            let due = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.timers.notified() => {}
                () = due => self.close_due(),
            }
        }
    }

    /// Makes coverage rows of the minutes before `end`, or of all.
    pub(crate) fn tell_coverage(&self, end: Option<i64>) {
        let now = Clock::now_us();
        let clock = clock_state::read();
        let mut inner = locked(&self.inner);
        for ((minute, table), counts) in inner.coverage.take(end) {
            let seq_last = inner.frames.seq_last(table);
            let row = counts.row(&self.place, table, minute, seq_last, now, clock);
            self.add(&mut inner, row, now, Outcome::Collected);
        }
        drop(inner);
        self.timers.notify_one();
    }

    /// Closes every frame and tells everything that is counted, until nothing new comes of it: telling may itself push
    /// frames out of a full queue.
    pub(crate) fn tell_everything(&self) {
        for _ in 0..16 {
            let mut inner = locked(&self.inner);
            let closed = inner.frames.close_all(&self.place);
            self.absorb(&mut inner, closed);
            self.tell_drops(&mut inner);
            if inner.coverage.is_empty() && inner.frames.next_due().is_none() {
                return;
            }
            drop(inner);
            self.tell_coverage(None);
        }
    }

    // The publisher's side.

    /// Waits until frames may be waiting.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Takes the oldest frame of the tables that are `open`, where it fits into `room` bytes.
    pub(crate) fn take(&self, open: impl Fn(&'static Table) -> bool, room: usize) -> Option<Queued> {
        let mut inner = locked(&self.inner);
        let taken = inner.queue.take(open, room);
        self.show(&inner.queue);
        taken
    }

    /// Kafka has acknowledged a frame.
    pub(crate) fn published(&self, queued: &Queued) {
        let mut inner = locked(&self.inner);
        inner.queue.settle(queued);
        self.show(&inner.queue);
        let table = one("table", queued.frame.table.name);
        self.metrics.frames_published.get_or_create(&table).inc();
        self.metrics.bytes_published.get_or_create(&table).inc_by(queued.frame.payload.len() as u64);
    }

    /// A frame was not delivered and waits again.
    pub(crate) fn put_back(&self, queued: Queued) {
        let mut inner = locked(&self.inner);
        inner.queue.put_back(queued);
        self.show(&inner.queue);
    }

    /// Kafka will never take a frame.
    pub(crate) fn refused(&self, queued: &Queued, reason: &str) {
        let frame = &queued.frame;
        let table = frame.table.name;
        self.metrics.frames_refused.get_or_create(&two(("table", table), ("reason", reason))).inc();
        let details = json!({"table": table, "stream_id": self.place.stream_id, "seq": frame.seq, "rows": frame.rows,
            "bytes": frame.payload.len(), "reason": reason});
        let message = format!("Kafka refuses frame {} of {table} for good: {reason}", frame.seq);
        let mut inner = locked(&self.inner);
        inner.queue.settle(queued);
        self.count_dropped(&mut inner, frame.table, &frame.tally, frame.rows, "kafka_refused");
        self.add_event(&mut inner, detailed("frame_refused", "error", message, &details), None);
    }

    /// Tables that have frames waiting.
    pub(crate) fn waiting_tables(&self) -> Vec<&'static Table> {
        locked(&self.inner).queue.tables()
    }

    /// Frames that wait.
    pub(crate) fn waiting(&self) -> usize {
        locked(&self.inner).queue.len()
    }

    // Behind the door.

    fn next_due(&self) -> Option<Instant> {
        let inner = locked(&self.inner);
        inner.frames.next_due().into_iter().chain(inner.drops.due()).min()
    }

    fn close_due(&self) {
        let now = Instant::now();
        let mut inner = locked(&self.inner);
        let closed = inner.frames.close_due(&self.place, now);
        self.absorb(&mut inner, closed);
        if inner.drops.due().is_some_and(|due| due <= now) {
            self.tell_drops(&mut inner);
        }
    }

    fn add(&self, inner: &mut Inner, row: Row, due: i64, outcome: Outcome) {
        let (table, minute) = (row.table(), minute_of(due));
        inner.coverage.made(table, minute, outcome);
        self.metrics.rows.get_or_create(&two(("table", table.name), ("outcome", outcome.name()))).inc();
        let closed = inner.frames.push(&self.place, row, minute, outcome, Instant::now());
        self.absorb(inner, closed);
    }

    fn add_event(&self, inner: &mut Inner, draft: EventDraft, device: Option<&DeviceLabels>) {
        let now = Clock::now_us();
        let (event, message) = (draft.event, draft.message.as_str());
        let device_id = device.map(|device| device.device_id.as_str());
        match draft.severity {
            "critical" | "error" => tracing::error!(event, device_id, "{message}"),
            "warning" => tracing::warn!(event, device_id, "{message}"),
            _ => tracing::info!(event, device_id, "{message}"),
        }
        self.metrics.events.get_or_create(&one("event", event)).inc();
        let row = inner.numbers.row(&self.place, draft, device, now);
        self.add(inner, row, now, Outcome::Collected);
    }

    /// Puts closed frames in line and counts what had to go.
    fn absorb(&self, inner: &mut Inner, closed: Vec<Closed>) {
        for closed in closed {
            match closed {
                Closed::Frame(frame) => {
                    for dropped in inner.queue.push(frame) {
                        self.count_drop(inner, &dropped);
                    }
                    self.show(&inner.queue);
                    self.ready.notify_one();
                }
                Closed::Refused { table, bytes, tally } => {
                    self.count_dropped(inner, table, &tally, 1, "row_too_large");
                    let details = json!({"table": table.name, "bytes": bytes});
                    let message = format!("a row of {} takes {bytes} bytes, more than frames.bytes_max", table.name);
                    self.add_event(inner, detailed("row_refused", "error", message, &details), None);
                }
            }
        }
    }

    fn count_drop(&self, inner: &mut Inner, frame: &Frame) {
        const REASON: &str = "queue_full";
        inner.drops.note(frame, REASON, Instant::now());
        self.count_dropped(inner, frame.table, &frame.tally, frame.rows, REASON);
        self.health.dropped();
    }

    fn count_dropped(
        &self,
        inner: &mut Inner,
        table: &'static Table,
        tally: &Tally,
        rows: usize,
        reason: &'static str,
    ) {
        inner.coverage.dropped(table, tally, reason);
        let labels = two(("table", table.name), ("reason", reason));
        self.metrics.rows_dropped.get_or_create(&labels).inc_by(rows as u64);
    }

    fn tell_drops(&self, inner: &mut Inner) {
        for drop in inner.drops.take() {
            let details = json!({"table": drop.table, "stream_id": self.place.stream_id, "seq_first": drop.seq_first,
                "seq_last": drop.seq_last, "frames": drop.frames, "rows": drop.rows, "reason": drop.reason});
            let message = format!(
                "{} frames of {} with {} rows were dropped: {}",
                drop.frames, drop.table, drop.rows, drop.reason
            );
            self.add_event(inner, detailed("frames_dropped", "error", message, &details), None);
        }
    }

    fn show(&self, queue: &Queue) {
        let (waiting, in_flight) = queue.bytes();
        self.metrics.queue_bytes.set(waiting as i64);
        self.metrics.queue_frames.set(queue.len() as i64);
        self.metrics.in_flight_bytes.set(in_flight as i64);
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::{event, gpu_sample};

    use super::*;
    use crate::testing::{Account, gpu_row, outlet};

    fn full_queue() -> Arc<Outlet> {
        let limits = FramesConfig { rows_max: 20, queue_bytes_max: 40_000, ..FramesConfig::default() };
        let outlet = outlet(limits);
        for ts in 1..=1000 {
            outlet.rows(vec![gpu_row(&format!("{ts:0>100}"), ts)], 0, false);
        }
        outlet
    }

    #[test]
    fn what_a_full_queue_drops_is_counted_and_named() {
        let outlet = full_queue();
        outlet.tell_everything();
        let account = Account::of(&outlet);
        let kept = account.rows("gpu_sample") as i64;
        assert!(kept > 0 && kept < 1000, "{kept}");
        let sum = account.coverage("gpu_sample");
        assert_eq!((sum.expected, sum.collected, sum.failed, sum.dropped), (1000, kept, 0, 1000 - kept));
        let named = account.texts("event", event::DETAILS_JSON).into_iter().map(|details| {
            let details: serde_json::Value = serde_json::from_str(&details).unwrap();
            assert_eq!((&details["table"], &details["reason"]), (&json!("gpu_sample"), &json!("queue_full")));
            (details["seq_first"].as_i64().unwrap(), details["seq_last"].as_i64().unwrap())
        });
        let named: Vec<i64> = named.flat_map(|(first, last)| first..=last).collect();
        let missing: Vec<i64> = (1..=50).filter(|seq| !account.seqs("gpu_sample").contains(seq)).collect();
        assert_eq!(named, missing);
    }

    #[test]
    fn a_refused_frame_is_counted_and_named() {
        let outlet = outlet(FramesConfig { rows_max: 2, ..FramesConfig::default() });
        outlet.rows(vec![gpu_row("a", 1), gpu_row("a", 2)], 0, false);
        let queued = outlet.take(|_| true, usize::MAX).unwrap();
        outlet.refused(&queued, "MSG_SIZE_TOO_LARGE");
        outlet.tell_everything();
        let account = Account::of(&outlet);
        let sum = account.coverage("gpu_sample");
        assert_eq!((sum.expected, sum.collected, sum.dropped), (2, 0, 2));
        assert_eq!(account.texts("event", event::EVENT), ["frame_refused"]);
    }

    #[tokio::test(start_paused = true)]
    async fn old_frames_are_closed_by_the_timer() {
        let outlet = outlet(FramesConfig::default());
        let stop = CancellationToken::new();
        let timers = tokio::spawn({
            let (outlet, stop) = (Arc::clone(&outlet), stop.clone());
            async move { outlet.run_timers(stop).await }
        });
        outlet.rows(vec![gpu_row("a", 1)], 0, false);
        tokio::time::sleep(std::time::Duration::from_millis(9_900)).await;
        assert_eq!(outlet.waiting(), 0);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(outlet.waiting(), 1);
        stop.cancel();
        timers.await.unwrap();
        assert_eq!(Account::of(&outlet).texts("gpu_sample", gpu_sample::DEVICE_ID), ["a"]);
    }
}
