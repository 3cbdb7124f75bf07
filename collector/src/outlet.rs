//! The one door through which rows leave the samplers: they are journalled, counted, framed and put in line here.
//!
//! Everything behind the door is plain data under one lock, so that a row, its count and the frame that carries it never
//! disagree. It waits for no disk: the journal is written, not synced, and the spool's thread does the rest. What does
//! not fit is dropped, counted and named.

mod recovery;
mod spooling;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use racklake_schemas::clock::Clock;
use racklake_schemas::tables::device;
use racklake_schemas::{Row, Table};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::burst::{Bells, calls_for_a_burst};
use crate::clock_state;
use crate::config::FramesConfig;
use crate::coverage::{Counts, Coverage, Outcome, Tally, minute_of};
use crate::drops::Drops;
use crate::edges::Baselines;
use crate::episodes::Episodes;
use crate::event::{EventNumbers, detailed};
use crate::frames::{Closed, Frame, Frames};
use crate::health::Health;
use crate::kernel_log::Position;
use crate::metrics::{Metrics, one, two};
use crate::place::{DeviceLabels, Place, locked};
use crate::queue::{Limits, Queue, Queued, drop_reason};
use crate::route::Route;
use crate::schedule::Schedule;
use crate::source::EventDraft;
use crate::spool::{Account, Counted, Journal, Record, Unwritten};
use crate::wait::until;
use spooling::Spooling;

/// The door, shared by all tasks of one collector.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) place: Place,
    /// Tell samplers that something has happened to their device.
    pub(crate) bells: Bells,
    inner: Mutex<Inner>,
    /// Something new has a due time.
    timers: Notify,
    /// Frames wait for the publisher.
    ready: Notify,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    spooling: Option<Spooling>,
}

#[derive(Debug)]
struct Inner {
    /// The topics that frames are closed for.
    route: Arc<Route>,
    frames: Frames,
    queue: Queue,
    drops: Drops,
    coverage: Coverage,
    numbers: EventNumbers,
    episodes: Episodes,
    /// How far the kernel log has been read.
    kernel_log: Option<Position>,
    baselines: Baselines,
    /// Reads that have begun and have no row: due time, address, table.
    begun: BTreeMap<(i64, String, &'static str), Begun>,
    schedule: Schedule,
    journal: Option<Journal>,
    journal_failed: bool,
    unwritten: Option<Unwritten>,
    /// As of the last transaction.
    account: Account,
}

/// A read in flight.
#[derive(Debug)]
struct Begun {
    table: &'static Table,
    /// The journal that did not take it, and in whose stead it was counted as unwritten.
    unwritten: Option<u64>,
}

impl Outlet {
    /// A door without a spool: frames wait in memory, and end with the process.
    #[cfg(test)]
    pub(crate) fn new(place: Place, limits: FramesConfig, metrics: Arc<Metrics>, health: Arc<Health>) -> Outlet {
        let bytes_max = limits.queue_bytes_max;
        let age_max = std::time::Duration::from_secs(24 * 3600);
        let queue = Limits { bytes_max, memory_max: bytes_max, age_max, spooled: false };
        Outlet::with_limits(place, limits, queue, metrics, health)
    }

    fn with_limits(
        place: Place,
        frames: FramesConfig,
        queue: Limits,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Outlet {
        let inner = Inner {
            route: Arc::clone(&place.route),
            queue: Queue::new(queue),
            frames: Frames::new(frames),
            drops: Drops::default(),
            coverage: Coverage::default(),
            numbers: EventNumbers::default(),
            episodes: Episodes::default(),
            kernel_log: None,
            baselines: Baselines::default(),
            begun: BTreeMap::new(),
            schedule: Schedule::default(),
            journal: None,
            journal_failed: false,
            unwritten: None,
            account: Account::default(),
        };
        let (timers, ready) = (Notify::new(), Notify::new());
        let bells = Bells::default();
        Outlet { place, bells, inner: Mutex::new(inner), timers, ready, metrics, health, spooling: None }
    }

    /// A read has begun that is due at `due` (µs UTC) at an address; its rows follow.
    pub(crate) fn begun(&self, table: &'static Table, due: i64, address: &str) {
        tracing::debug!(table = table.name, address, "sampling");
        let mut inner = locked(&self.inner);
        let inner = &mut *inner;
        let on_disk = self.journal(inner, Record::Begun { table, due, address: address.to_owned() });
        let unwritten = inner.journal.as_ref().map(Journal::number).filter(|_| !on_disk);
        if let Some(number) = unwritten {
            self.count_unwritten(inner, number, table, minute_of(due), 1);
        }
        inner.begun.insert((due, address.to_owned(), table.name), Begun { table, unwritten });
    }

    /// Takes the rows of the tick that was due at `due` (µs UTC) at an address. `late` ones came after a stale row, which
    /// was the outcome of their tick, and are not part of the balance.
    #[cfg(test)]
    pub(crate) fn rows(&self, rows: Vec<Row>, due: i64, address: &str, late: bool) {
        self.rows_and_events(rows, (Vec::new(), None), due, address, late);
    }

    /// The same with what these rows tell about their device. Rows and events are journalled as one.
    pub(crate) fn rows_and_events(
        &self,
        rows: Vec<Row>,
        (told, device): (Vec<EventDraft>, Option<&DeviceLabels>),
        due: i64,
        address: &str,
        late: bool,
    ) {
        let mut inner = locked(&self.inner);
        let counted = |row: Row| {
            let outcome = if late { Outcome::Late } else { Outcome::of(&row) };
            Counted { row, minute: minute_of(due), outcome }
        };
        let tick = (!late).then(|| (due, address.to_owned()));
        let mut all: Vec<Counted> = rows.into_iter().map(counted).collect();
        all.extend(told.into_iter().map(|draft| self.event_row(&mut inner, draft, device)));
        self.add(&mut inner, all, tick, None);
        self.timers.notify_one();
    }

    /// Counts due rows that are not made.
    pub(crate) fn skipped(&self, table: &'static Table, due: i64, rows: i64, reason: &'static str) {
        let mut inner = locked(&self.inner);
        let minute = minute_of(due);
        self.journal_skipped(&mut inner, table, minute, rows, reason);
        inner.coverage.skipped(table, minute, rows, reason);
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
        let counted = Counted { row, minute: minute_of(now), outcome: Outcome::Collected };
        self.add(&mut locked(&self.inner), vec![counted], None, None);
        self.timers.notify_one();
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
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.timers.notified() => {}
                () = until(next) => self.close_due(),
            }
        }
    }

    /// Makes coverage rows of the minutes before `end`, or of all.
    pub(crate) fn tell_coverage(&self, end: Option<i64>) {
        let now = Clock::now_us();
        let clock = clock_state::read();
        let mut inner = locked(&self.inner);
        let told = inner.coverage.take(end);
        let row = |((minute, table), counts): ((i64, &'static str), Counts)| {
            let row = counts.row(&self.place, table, minute, inner.frames.seq_last(table), now, clock);
            Counted { row, minute: minute_of(now), outcome: Outcome::Collected }
        };
        let rows: Vec<Counted> = told.into_iter().map(row).collect();
        if !rows.is_empty() {
            self.add(&mut inner, rows, None, end.or(Some(i64::MAX)));
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
        let taken = inner.queue.take(open, room, Instant::now());
        self.show(&inner.queue);
        taken
    }

    /// Kafka has acknowledged a frame.
    pub(crate) fn published(&self, queued: &Queued) {
        let mut inner = locked(&self.inner);
        let waited = queued.has_waited(Instant::now());
        self.journal(&mut inner, Record::Gone { order: queued.order, reason: None, waited });
        inner.queue.settle(queued);
        if waited {
            inner.coverage.spooled(queued.frame.table, &queued.frame.tally);
        }
        self.show(&inner.queue);
        let table = one("table", queued.frame.table.name);
        self.metrics.frames_published.get_or_create(&table).inc();
        self.metrics.bytes_published.get_or_create(&table).inc_by(queued.frame.bytes as u64);
        self.wake_spool();
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
        let kept = self.keep_refused(queued);
        let details = json!({"table": table, "stream_id": frame.stream_id, "seq": frame.seq, "rows": frame.rows,
            "bytes": frame.bytes, "reason": reason, "file": kept});
        let message = format!("Kafka refuses frame {} of {table} for good: {reason}", frame.seq);
        let mut inner = locked(&self.inner);
        let dropped = Some(drop_reason::REFUSED.to_owned());
        self.journal(&mut inner, Record::Gone { order: queued.order, reason: dropped, waited: true });
        inner.queue.settle(queued);
        self.count_dropped(&mut inner, frame.table, &frame.tally, frame.rows, drop_reason::REFUSED);
        self.add_event(&mut inner, detailed("frame_refused", "error", message, &details), None);
    }

    /// The topics that frames go to now.
    pub(crate) fn route(&self) -> Arc<Route> {
        Arc::clone(&locked(&self.inner).route)
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

    /// Journals rows and counts them. They are the outcome of `tick`, or tell the coverage before a minute.
    fn add(&self, inner: &mut Inner, rows: Vec<Counted>, tick: Option<(i64, String)>, told_before: Option<i64>) {
        let tick_of = |(due, address): &(i64, String)| Some((*due, address.clone(), rows.first()?.row.table().name));
        let begun = tick.as_ref().and_then(tick_of).and_then(|tick| inner.begun.remove(&tick));
        if inner.journal.is_some() && !self.journal(inner, Record::Rows { rows: rows.clone(), tick, told_before }) {
            self.count_rows_unwritten(inner, &rows, begun.is_some());
        }
        rows.into_iter().for_each(|counted| self.count(inner, counted));
    }

    fn count(&self, inner: &mut Inner, counted: Counted) {
        let Counted { row, minute, outcome } = counted;
        let table = row.table();
        inner.coverage.made(table, minute, outcome);
        inner.episodes.follow(&row);
        inner.baselines.follow(&row);
        if let Some(position) = Position::of(&row) {
            Position::advance(&mut inner.kernel_log, position);
        }
        self.metrics.rows.get_or_create(&two(("table", table.name), ("outcome", outcome.name()))).inc();
        let closed = inner.frames.push(&self.place, row, minute, outcome, Instant::now());
        self.absorb(inner, closed);
    }

    fn add_event(&self, inner: &mut Inner, draft: EventDraft, device: Option<&DeviceLabels>) {
        let counted = self.event_row(inner, draft, device);
        self.add(inner, vec![counted], None, None);
    }

    /// Makes the row of an event and tells whom it concerns.
    fn event_row(&self, inner: &mut Inner, draft: EventDraft, device: Option<&DeviceLabels>) -> Counted {
        let now = Clock::now_us();
        let (event, message) = (draft.event, draft.message.as_str());
        let device_id = device.map(|device| device.device_id.as_str());
        match draft.severity {
            "critical" | "error" => tracing::error!(event, device_id, "{message}"),
            "warning" => tracing::warn!(event, device_id, "{message}"),
            _ => tracing::info!(event, device_id, "{message}"),
        }
        self.metrics.events.get_or_create(&one("event", event)).inc();
        if let Some(device_id) = device_id.filter(|_| calls_for_a_burst(&draft)) {
            self.bells.ring(device_id);
        }
        let row = inner.numbers.row(&self.place, draft, device, now);
        Counted { row, minute: minute_of(now), outcome: Outcome::Collected }
    }

    /// Puts closed frames in line and counts what had to go.
    fn absorb(&self, inner: &mut Inner, closed: Vec<Closed>) {
        for closed in closed {
            match closed {
                Closed::Frame(mut frame) => {
                    self.direct(inner, &mut frame);
                    for dropped in inner.queue.push(frame, Instant::now()) {
                        self.count_drop(inner, dropped.order, &dropped.frame, dropped.reason);
                    }
                    self.show(&inner.queue);
                    self.ready.notify_one();
                    self.wake_spool();
                }
                Closed::Refused { table, bytes, tally } => {
                    self.count_dropped(inner, table, &tally, 1, drop_reason::ROW);
                    let details = json!({"table": table.name, "bytes": bytes});
                    let message = format!("a row of {} takes {bytes} bytes, more than frames.bytes_max", table.name);
                    self.add_event(inner, detailed("row_refused", "error", message, &details), None);
                }
            }
        }
    }

    fn count_drop(&self, inner: &mut Inner, order: u64, frame: &Frame, reason: &'static str) {
        self.journal(inner, Record::Gone { order, reason: Some(reason.to_owned()), waited: true });
        inner.drops.note(frame, reason, Instant::now());
        self.count_dropped(inner, frame.table, &frame.tally, frame.rows, reason);
        self.health.dropped(reason);
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
            let details = json!({"table": drop.table, "stream_id": drop.stream_id, "seq_first": drop.seq_first,
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
        self.metrics.spool_bytes.set(waiting as i64);
        self.metrics.spool_frames.set(queue.len() as i64);
        self.metrics.in_flight_bytes.set(in_flight as i64);
    }
}

#[cfg(test)]
mod tests;
