//! What passes between the door and the spool: what an earlier start has left comes in, what is new goes to the disk.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use racklake_schemas::clock::Clock;
use racklake_schemas::tables::EVENT;
use serde_json::json;
use tokio::time::Instant;

use super::{Inner, Outlet};
use crate::config::{FramesConfig, SpoolConfig};
use crate::coverage::{Coverage, Outcome, minute_of};
use crate::drops::Drops;
use crate::episodes::Episodes;
use crate::event::{detailed, own};
use crate::frames::Frame;
use crate::health::Health;
use crate::kernel_log::Position;
use crate::metrics::Metrics;
use crate::place::{Place, locked};
use crate::queue::{Cut, Limits, Queued, drop_reason};
use crate::route::Route;
use crate::spool::{Account, Batch, Bell, Counted, Entry, Record, Spool, Store, StoreError, keep_refused};

/// The spool as the door sees it.
#[derive(Debug)]
pub(super) struct Spooling {
    store: Arc<Store>,
    folder: std::path::PathBuf,
    bell: Arc<Bell>,
    fsync_period: Mutex<Duration>,
}

/// How many of the ticks lost in flight an event names.
const LOST_NAMED_MAX: usize = 1000;

fn queue_limits(frames: &FramesConfig, config: &SpoolConfig) -> Limits {
    Limits { bytes_max: config.bytes_max, memory_max: frames.queue_bytes_max, age_max: config.age_max, spooled: true }
}

impl Outlet {
    /// A door in front of a spool. What an earlier start has left goes on from where it was.
    pub(crate) fn with_spool(
        place: Place,
        limits: (&FramesConfig, &SpoolConfig),
        spool: Spool,
        bell: Arc<Bell>,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Outlet {
        let (frames, config) = limits;
        let limits = queue_limits(frames, config);
        let mut outlet = Outlet::with_limits(place, frames.clone(), limits, metrics, health);
        let (store, folder) = (Arc::clone(&spool.store), spool.folder.clone());
        outlet.spooling = Some(Spooling { store, folder, bell, fsync_period: Mutex::new(config.fsync_period) });
        outlet.recover(spool);
        outlet
    }

    /// Takes over other limits.
    pub(crate) fn limit(&self, frames: &FramesConfig, config: &SpoolConfig) {
        let mut inner = locked(&self.inner);
        inner.frames.limit(frames.clone(), Instant::now());
        inner.queue.limit(queue_limits(frames, config));
        drop(inner);
        if let Some(spooling) = &self.spooling {
            *locked(&spooling.fsync_period) = config.fsync_period;
        }
        self.timers.notify_one();
    }

    /// How far the kernel log had been read when the last row from it was made, or later.
    pub(crate) fn kernel_log_position(&self) -> Option<Position> {
        locked(&self.inner).kernel_log.clone()
    }

    /// The kernel log has been read up to a line that has no row; that is kept with the next transaction.
    pub(crate) fn kernel_log_read(&self, position: Position) {
        Position::advance(&mut locked(&self.inner).kernel_log, position);
    }

    /// Counts an event that has no row because the kernel log told the same.
    pub(crate) fn twin_dropped(&self) {
        const REASON: &str = "in_kernel_log";
        let mut inner = locked(&self.inner);
        let minute = minute_of(Clock::now_us());
        self.journal(&mut inner, Record::Skipped { table: &EVENT, minute, rows: 1, reason: REASON.to_owned() });
        inner.coverage.skipped(&EVENT, minute, 1, REASON);
    }

    /// The longest that anything may wait for the disk.
    pub(crate) fn fsync_period(&self) -> Duration {
        self.spooling.as_ref().map_or(Duration::ZERO, |spooling| *locked(&spooling.fsync_period))
    }

    fn recover(&self, spool: Spool) {
        let mut inner = locked(&self.inner);
        let inner = &mut *inner;
        let Spool { journal, account, frames, records, quarantined, route, .. } = spool;
        inner.route = route;
        let now = Instant::now();
        inner.queue.restore(frames, account.order_next, Clock::now_us(), now);
        inner.frames.go_on_after(&account.seq_last);
        inner.drops = Drops::restored(account.drops.clone(), now);
        inner.coverage = Coverage::from_list(account.coverage.clone());
        inner.episodes = Episodes::restored(account.episodes_open.clone());
        inner.kernel_log.clone_from(&account.kernel_log);
        (inner.numbers.events, inner.numbers.episodes) = (account.events, account.episodes);
        inner.journal = Some(journal);
        let killed = !account.ended || !records.is_empty();
        inner.account = account;
        if let Some(message) = quarantined {
            self.add_event(inner, own("spool_quarantined", "error", message), None);
        }
        let rows = self.replay(inner, records);
        let lost: Vec<_> = std::mem::take(&mut inner.begun).into_iter().collect();
        for ((due, ..), table) in &lost {
            inner.coverage.lost_in_flight(table, minute_of(*due));
        }
        if killed {
            let named: Vec<_> = lost.iter().take(LOST_NAMED_MAX).collect();
            let ticks: Vec<_> = named
                .iter()
                .map(|((due, address, _), table)| json!({"table": table.name, "address": address, "due": due}))
                .collect();
            let details = json!({"rows_recovered": rows, "lost_in_flight": lost.len(), "ticks": ticks});
            let message = format!(
                "the collector was killed; {rows} rows of open frames are sent now, {} reads in flight are lost",
                lost.len()
            );
            self.add_event(inner, detailed("collector_killed", "warning", message, &details), None);
        }
        self.end_episodes(inner);
        // The rows lie in old journals, which the next transaction removes: they must be in its frames.
        let closed = inner.frames.close_all(&self.place);
        self.absorb(inner, closed);
    }

    /// Gives a frame its topics. Those that the config names are adopted once nothing waits for others.
    pub(super) fn direct(&self, inner: &mut Inner, frame: &mut Frame) {
        if inner.route != self.place.route && inner.queue.is_empty() {
            let (before, now) = (&inner.route, &self.place.route);
            tracing::info!(
                ?before,
                ?now,
                "nothing waits for the topics of before; frames go to those of the config now"
            );
            inner.route = Arc::clone(&self.place.route);
        }
        frame.route = Arc::clone(&inner.route);
        frame.partition = inner.route.partition(&frame.node);
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
                    inner.begun.insert((due, address, table.name), table);
                }
                Record::Skipped { table, minute, rows, reason } => inner.coverage.skipped(table, minute, rows, reason),
                Record::Rows { rows, tick, told_before } => {
                    if told_before.is_some() {
                        inner.coverage.take(told_before);
                    }
                    if let Some(((due, address), first)) = tick.zip(rows.first()) {
                        inner.begun.remove(&(due, address, first.row.table().name));
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

    /// Writes to the journal; without one, or where the disk refuses, the record is in memory alone.
    pub(super) fn journal(&self, inner: &mut Inner, record: Record) {
        let Some(journal) = &mut inner.journal else { return };
        let failed = match journal.append(&[record]) {
            Ok(()) => false,
            Err(error) => {
                let remedy = "make room in state_dir, or have it writable";
                self.health.fails("journal", &format!("it cannot be written: {error}; {remedy}"));
                if !inner.journal_failed {
                    tracing::error!(%error, "the journal cannot be written; a kill now loses the rows of open frames");
                }
                true
            }
        };
        if std::mem::replace(&mut inner.journal_failed, failed) && !failed {
            self.health.works("journal");
        }
    }

    /// What has to be made durable now; `None` where nothing has changed. `end` also says that this is the last time.
    ///
    /// # Errors
    /// When the next journal cannot be begun; nothing is cut then.
    pub(crate) fn cut(&self, end: bool) -> io::Result<Option<Batch>> {
        let mut inner = locked(&self.inner);
        let inner = &mut *inner;
        let now = Instant::now();
        for dropped in inner.queue.expire(now) {
            self.count_drop(inner, dropped.order, &dropped.frame, dropped.reason);
        }
        self.metrics.spool_oldest_seconds.set(inner.queue.oldest_age(now).as_secs() as i64);
        self.show(&inner.queue);
        if !end && !inner.queue.has_changed() {
            return Ok(None);
        }
        let open = inner.frames.open_rows();
        let carried = (!open.is_empty()).then_some(Record::Carried(open));
        let begun = inner.begun.iter().map(|((due, address, _), table)| {
            let (due, address) = (*due, address.clone());
            Record::Begun { table, due, address }
        });
        let first: Vec<Record> = carried.into_iter().chain(begun).collect();
        let Some(journal) = &mut inner.journal else { return Ok(None) };
        *journal = journal.next(&first)?;
        inner.account = Account {
            journal: journal.number(),
            ended: end,
            order_next: inner.queue.order_next(),
            seq_last: inner.frames.seqs_last(),
            events: inner.numbers.events,
            episodes: inner.numbers.episodes,
            drops: inner.drops.untold().to_vec(),
            coverage: inner.coverage.to_list(),
            episodes_open: inner.episodes.to_list(),
            route: Some(Route::clone(&inner.route)),
            kernel_log: inner.kernel_log.clone(),
            ..inner.account.clone()
        };
        let Cut { fresh, removed } = inner.queue.cut();
        let stored =
            |(order, frame): (u64, &Frame)| Some((order, Entry::of(frame), Arc::clone(frame.payload.as_ref()?)));
        let frames = fresh.into_iter().filter_map(stored).collect();
        Ok(Some(Batch { frames, removed, account: inner.account.clone() }))
    }

    /// What was cut last is durable: its frames may be published.
    pub(crate) fn written(&self) {
        locked(&self.inner).queue.written(Instant::now());
        self.ready.notify_one();
    }

    /// The file of the journal, where there is one.
    pub(crate) fn journal_file(&self) -> Option<Arc<File>> {
        locked(&self.inner).journal.as_ref().map(|journal| journal.file())
    }

    /// The payload of a frame, from memory or from the disk.
    ///
    /// # Errors
    /// When the disk does not give it, or gives something else.
    pub(crate) fn payload(&self, queued: &Queued) -> Result<Arc<[u8]>, StoreError> {
        match (&queued.frame.payload, &self.spooling) {
            (Some(payload), _) => Ok(Arc::clone(payload)),
            (None, Some(spooling)) => spooling.store.payload(queued.order),
            (None, None) => Err(StoreError::Damaged("the frame is nowhere".to_owned())),
        }
    }

    /// The disk gave back something else than was stored.
    pub(crate) fn damaged(&self, queued: &Queued) {
        let mut inner = locked(&self.inner);
        inner.queue.settle(queued);
        self.count_drop(&mut inner, queued.order, &queued.frame, drop_reason::DAMAGED);
        self.show(&inner.queue);
        drop(inner);
        self.timers.notify_one();
        self.wake_spool();
    }

    /// Keeps a frame that Kafka refused beside the spool; says where, or why not.
    pub(super) fn keep_refused(&self, queued: &Queued) -> Option<String> {
        let spooling = self.spooling.as_ref()?;
        let frame = &queued.frame;
        let name = format!("{}.{}.{}", frame.table.name, frame.stream_id, frame.seq);
        let payload = self.payload(queued).map_err(anyhow::Error::from);
        match payload.and_then(|payload| keep_refused(&spooling.folder, &name, &payload)) {
            Ok(file) => Some(file.display().to_string()),
            Err(error) => {
                tracing::error!("a refused frame is not kept: {error:#}");
                None
            }
        }
    }

    /// Something waits for the disk.
    pub(super) fn wake_spool(&self) {
        if let Some(spooling) = &self.spooling {
            spooling.bell.ring();
        }
    }
}
