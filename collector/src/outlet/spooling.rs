//! What passes from the door to the spool: what is new goes to the disk, or is counted there.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use racklake_schemas::Table;
use racklake_schemas::clock::Clock;
use racklake_schemas::tables::{COVERAGE, EVENT};
use tokio::time::Instant;

use super::{Begun, Inner, Outlet};
use crate::config::{FramesConfig, SpoolConfig};
use crate::coverage::{Outcome, minute_of};
use crate::edges::Baseline;
use crate::frames::Frame;
use crate::health::Health;
use crate::kernel_log::Position;
use crate::metrics::Metrics;
use crate::place::{Place, locked};
use crate::queue::{Cut, Limits, Queued, drop_reason};
use crate::route::Route;
use crate::spool::{
    Account, Batch, Bell, Counted, Entry, Journal, Record, Spool, Store, StoreError, Unwritten, keep_refused,
};

/// The spool as the door sees it.
#[derive(Debug)]
pub(super) struct Spooling {
    store: Arc<Store>,
    folder: std::path::PathBuf,
    bell: Arc<Bell>,
    fsync_period: Mutex<Duration>,
}

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

    /// What the watched counters of a device were last, as far as is known.
    pub(crate) fn baseline(&self, device_id: &str) -> Baseline {
        locked(&self.inner).baselines.of(device_id)
    }

    /// Counts an event that has no row because the kernel log told the same.
    pub(crate) fn twin_dropped(&self) {
        const REASON: &str = "in_kernel_log";
        let mut inner = locked(&self.inner);
        let minute = minute_of(Clock::now_us());
        self.journal_skipped(&mut inner, &EVENT, minute, 1, REASON);
        inner.coverage.skipped(&EVENT, minute, 1, REASON);
    }

    /// The longest that anything may wait for the disk.
    pub(crate) fn fsync_period(&self) -> Duration {
        self.spooling.as_ref().map_or(Duration::ZERO, |spooling| *locked(&spooling.fsync_period))
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

    /// Writes to the journal, and says whether it is there. After a record that the disk refuses nothing is written until
    /// the next journal begins, so that what is on disk is a beginning of what happened. Without a spool all is well.
    pub(super) fn journal(&self, inner: &mut Inner, record: Record) -> bool {
        let Some(journal) = inner.journal.as_mut().filter(|_| !inner.journal_failed) else {
            return inner.journal.is_none();
        };
        let appended = journal.append(&[record]);
        if let Err(error) = &appended {
            inner.journal_failed = true;
            let remedy = "make room in state_dir, or have it writable";
            self.health.fails("journal", &format!("it cannot be written: {error}; {remedy}"));
            tracing::error!(%error, "the journal cannot be written; a kill now loses the rows that are read from here on");
        }
        appended.is_ok()
    }

    /// Tells the journal of due rows that are not made.
    pub(super) fn journal_skipped(
        &self,
        inner: &mut Inner,
        table: &'static Table,
        minute: i64,
        rows: i64,
        reason: &str,
    ) {
        let on_disk = self.journal(inner, Record::Skipped { table, minute, rows, reason: reason.to_owned() });
        if let Some(number) = inner.journal.as_ref().map(Journal::number).filter(|_| !on_disk) {
            self.count_unwritten(inner, number, table, minute, rows);
        }
    }

    /// Counts rows that the journal did not take where a kill does not reach them; fewer than none takes back.
    pub(super) fn count_unwritten(
        &self,
        inner: &mut Inner,
        journal: u64,
        table: &'static Table,
        minute: i64,
        rows: i64,
    ) {
        let Some(unwritten) = inner.unwritten.as_mut().filter(|_| rows != 0 && !std::ptr::eq(table, &COVERAGE)) else {
            return;
        };
        if let Err(error) = unwritten.add(journal, table, minute, rows) {
            tracing::debug!(%error, "a row that is not on disk cannot even be counted there");
        }
    }

    /// Counts the rows that the journal did not take. A read that is known to have begun is counted already.
    pub(super) fn count_rows_unwritten(&self, inner: &mut Inner, rows: &[Counted], known: bool) {
        let Some(number) = inner.journal.as_ref().map(Journal::number) else { return };
        // The first row is the one that the read is known by.
        for counted in rows.iter().skip(usize::from(known)).filter(|counted| counted.outcome != Outcome::Late) {
            self.count_unwritten(inner, number, counted.row.table(), counted.minute, 1);
        }
    }

    /// The next tick of a device is due at `next` (µs UTC), further ones follow by the period.
    pub(crate) fn scheduled(&self, table: &'static Table, address: &str, next: i64, period: Duration) {
        locked(&self.inner).schedule.note(table, address, next, period);
    }

    /// Says in the journal that the collector is alive, and will have said so again after `for_` at the latest.
    pub(crate) fn alive(&self, for_: Duration) {
        let mut inner = locked(&self.inner);
        let alive = alive(&mut inner, for_);
        self.journal(&mut inner, alive);
    }

    /// Waits until the disk has the counts of what it has no room for.
    pub(crate) fn sync_unwritten(&self) {
        if let Some(Err(error)) = locked(&self.inner).unwritten.as_ref().map(Unwritten::sync) {
            tracing::debug!(%error, "the counts of rows that are not on disk are not durable");
        }
    }

    /// What has to be made durable now; `None` where nothing has changed. `end` also says that this is the last time; the
    /// next journal says that the collector is alive for `for_`.
    ///
    /// # Errors
    /// When the next journal cannot be begun; nothing is cut then.
    pub(crate) fn cut(&self, end: bool, for_: Duration) -> io::Result<Option<Batch>> {
        let mut inner = locked(&self.inner);
        let inner = &mut *inner;
        let now = Instant::now();
        for dropped in inner.queue.expire(now) {
            self.count_drop(inner, dropped.order, &dropped.frame, dropped.reason);
        }
        self.metrics.spool_oldest_seconds.set(inner.queue.oldest_age(now).as_secs() as i64);
        self.show(&inner.queue);
        if !end && !inner.queue.has_changed() && !inner.journal_failed {
            return Ok(None);
        }
        let open = inner.frames.open_rows();
        let carried = (!open.is_empty()).then_some(Record::Carried(open));
        let begun = inner.begun.iter().map(|((due, address, _), begun)| {
            let (table, due, address) = (begun.table, *due, address.clone());
            Record::Begun { table, due, address }
        });
        let mut first: Vec<Record> = carried.into_iter().chain(begun).collect();
        if !end {
            first.push(alive(inner, for_));
        }
        let Some(journal) = &mut inner.journal else { return Ok(None) };
        *journal = journal.next(&first)?;
        let number = journal.number();
        self.journal_works(inner);
        inner.account = Account {
            journal: number,
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
            baselines: inner.baselines.to_map(),
            ..inner.account.clone()
        };
        let Cut { fresh, removed } = inner.queue.cut();
        let stored =
            |(order, frame): (u64, &Frame)| Some((order, Entry::of(frame), Arc::clone(frame.payload.as_ref()?)));
        let frames = fresh.into_iter().filter_map(stored).collect();
        Ok(Some(Batch { frames, removed, account: inner.account.clone() }))
    }

    /// The next journal has begun, with every read that is in flight.
    fn journal_works(&self, inner: &mut Inner) {
        let unwritten = |(key, begun): (&(i64, _, _), &mut Begun)| Some((key.0, begun.table, begun.unwritten.take()?));
        let now_written: Vec<_> = inner.begun.iter_mut().filter_map(unwritten).collect();
        for (due, table, number) in now_written {
            self.count_unwritten(inner, number, table, minute_of(due), -1);
        }
        if std::mem::take(&mut inner.journal_failed) {
            self.health.works("journal");
        }
    }

    /// What was cut last is durable: its frames may be published.
    pub(crate) fn written(&self) {
        let mut inner = locked(&self.inner);
        inner.queue.written(Instant::now());
        let base = inner.account.journal;
        if let Some(unwritten) = &mut inner.unwritten {
            unwritten.forget_before(base);
        }
        drop(inner);
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

/// What says that the collector is alive, and what is due before it will have said so again.
fn alive(inner: &mut Inner, for_: Duration) -> Record {
    let now = Clock::now_us();
    let until = now + i64::try_from(for_.as_micros()).unwrap_or(0);
    Record::Alive { until, due: inner.schedule.due(now, until) }
}
