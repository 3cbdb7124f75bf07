//! Reads one device on a fixed grid of ticks, whatever the device does.
//!
//! Each due tick has exactly one outcome: a row, a stale row because the deadline passed, or a tick that is counted as
//! skipped because a read within its deadline was in flight. A read is never dropped and never doubled: one that comes
//! back late gives a row of its own. Devices do not wait for each other; each has a task and a place in the period.

use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::clock::Clock;
use racklake_schemas::tables::gpu_sample as common;
use racklake_schemas::{Bits, Row, fail_code, row_status};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::device_registry::{Devices, Seen};
use crate::event::own;
use crate::metrics::{Metrics, one};
use crate::outlet::Outlet;
use crate::place::DeviceLabels;
use crate::source::{EventDraft, Found, Identity, Reading, Source};
use crate::wait::until;

/// How often an identity is told again.
const DEVICE_ROW_PERIOD: Duration = Duration::from_secs(3600);
/// Two rows of a device this close (µs) are put one after another; a larger step back is the clock's and stays.
const TS_COLLISION: i64 = 1000;

/// What all samplers of a collector share.
#[derive(Clone)]
pub(crate) struct Sampling {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) metrics: Arc<Metrics>,
    /// Origin of every grid of ticks.
    pub(crate) origin: Instant,
    /// Changes when a source may list other devices.
    pub(crate) relisted: watch::Receiver<()>,
}

/// Whether discovery finds the device.
#[derive(Debug, Clone)]
pub(crate) enum Presence {
    /// It is there; `returned` says that its source could not see any device before.
    Present {
        /// As found.
        found: Found,
        /// Whether its counters may have begun anew unseen.
        returned: bool,
    },
    /// It was there.
    Gone,
}

/// Reads one device until `stop`; a read in flight then is awaited up to its deadline.
pub(crate) struct Sampler {
    source: Arc<dyn Source>,
    sampling: Sampling,
    address: String,
    labels: DeviceLabels,
    rack: Option<String>,
    /// Identity as last told, and when.
    identity: Option<(Identity, Instant)>,
    absence: Option<Absence>,
    in_flight: Option<InFlight>,
    next_due: Instant,
    /// The period that ends with `next_due`; the source may have another one by now.
    period: Duration,
    ts_last: i64,
    /// Bits that the device has never supported, for rows without values.
    unsupported: Bits,
}

/// An episode in which the device is not there.
struct Absence {
    episode: String,
    /// Whether discovery says so, or a read did.
    gone: bool,
}

struct InFlight {
    read: JoinHandle<Finished>,
    began: Instant,
    deadline: Instant,
    /// When it was due, µs UTC.
    due: i64,
    given_up: bool,
}

struct Finished {
    reading: Reading,
    ts: i64,
    read_us: i32,
}

impl Sampler {
    /// A sampler of a device that was just found.
    pub(crate) fn new(source: Arc<dyn Source>, sampling: Sampling, found: Found) -> Sampler {
        let period = source.period();
        let first = first_due(sampling.origin, period, &found.address, Instant::now());
        let nobody = DeviceLabels { device_id: String::new(), session_id: 0, rack: None };
        let mut sampler = Sampler {
            source,
            sampling,
            address: found.address.clone(),
            labels: nobody,
            rack: found.rack.clone(),
            identity: None,
            absence: None,
            in_flight: None,
            next_due: first,
            period,
            ts_last: 0,
            unsupported: Bits::default(),
        };
        // Without an identity the first read may bring one; until then there is nothing to label.
        if found.identity.is_some() {
            sampler.observe(found.identity.as_ref(), &[], false, Clock::now_us());
        }
        sampler
    }

    /// Reads on, until `stop`.
    pub(crate) async fn run(mut self, mut presence: watch::Receiver<Presence>, stop: CancellationToken) {
        loop {
            if stop.is_cancelled() && self.in_flight.as_ref().is_none_or(|read| read.given_up) {
                return;
            }
            let deadline = self.in_flight.as_ref().filter(|read| !read.given_up).map(|read| read.deadline);
            let next_due = self.next_due;
            tokio::select! {
                biased;
                finished = finish(&mut self.in_flight) => self.finished(finished),
                () = until(deadline) => self.give_up(),
                () = stop.cancelled(), if !stop.is_cancelled() => {}
                changed = presence.changed() => match changed {
                    Ok(()) => {
                        let now = presence.borrow_and_update().clone();
                        self.presence(now);
                    }
                    Err(_) => stop.cancelled().await,
                },
                () = sleep_until(next_due), if !stop.is_cancelled() => self.tick(),
            }
        }
    }

    /// One due time has come. What was due until now goes by the period in force until now.
    fn tick(&mut self) {
        let (now, period) = (Instant::now(), self.period);
        let missed = (now - self.next_due).as_nanos() / period.as_nanos().max(1);
        let served = self.next_due + period * missed as u32;
        self.period = self.source.period();
        self.next_due = served + step(period, self.period, &self.address);
        let due = Clock::now_us() - (now - served).as_micros() as i64;
        if missed > 0 {
            self.sampling.outlet.skipped(self.source.table(), due, missed as i64, "tick_skipped");
        }
        match &self.in_flight {
            None if self.absence.as_ref().is_some_and(|absence| absence.gone) => self.send_lost(due),
            None => self.begin(served, due),
            Some(read) if read.given_up => {
                let waited = read.began.elapsed();
                self.send_stale(due, waited);
            }
            Some(_) => self.sampling.outlet.skipped(self.source.table(), due, 1, "tick_skipped"),
        }
        self.tell_identity_again();
    }

    fn begin(&mut self, served: Instant, due: i64) {
        self.sampling.outlet.begun(self.source.table(), due, &self.address);
        let (source, address) = (Arc::clone(&self.source), self.address.clone());
        let began = Instant::now();
        let read = tokio::spawn(async move {
            let began = Instant::now();
            let reading = source.read(&address).await;
            Finished { reading, ts: Clock::now_us(), read_us: microseconds(began.elapsed()) }
        });
        let deadline = served + self.source.deadline();
        self.in_flight = Some(InFlight { read, began, deadline, due, given_up: false });
    }

    /// The deadline has passed: the tick gets its row now, the read goes on.
    fn give_up(&mut self) {
        let Some(read) = &mut self.in_flight else { return };
        read.given_up = true;
        let (due, waited) = (read.due, read.began.elapsed());
        self.send_stale(due, waited);
    }

    /// The read has returned.
    fn finished(&mut self, finished: Option<Finished>) {
        let Some(read) = self.in_flight.take() else { return };
        let Some(Finished { reading, ts, read_us }) = finished else {
            // The source itself failed; its tick must not be missing from the account.
            self.label();
            let message = format!("the read of {} ended without an answer; please report it", self.address);
            self.event(own("read_failed", "error", message));
            let mut row = self.row_without_values();
            row.fail_all(fail_code::UNPARSABLE);
            row.set_status(row_status::UNREACHABLE);
            return self.send(vec![row], read.due, read.given_up, Clock::now_us(), microseconds(read.began.elapsed()));
        };
        self.sampling
            .metrics
            .read_seconds
            .get_or_create(&one("source", self.source.name()))
            .observe(f64::from(read_us) / 1e6);
        self.sampling.outlet.call(self.source.table(), read.due, read_us);
        let Reading { mut rows, identity, lifetime, events } = reading;
        if rows.is_empty() {
            let mut row = self.row_without_values();
            row.fail_all(fail_code::MISSING);
            row.set_status(row_status::UNREACHABLE);
            rows.push(row);
        }
        let (status, code) = rows.first().map_or((row_status::OK, None), |row| (row.status(), row.fail_code()));
        let returned = self.follow_absence(status, code);
        if let Some(first) = rows.first().filter(|first| has_values(first)) {
            self.unsupported = first.unsupported_bits();
        }
        // A session begins no later than its first row.
        self.observe(identity.as_ref(), &lifetime, returned, ts);
        self.send(rows, read.due, read.given_up, ts, read_us);
        for event in events {
            self.event(event);
        }
    }

    /// Discovery has said something new.
    fn presence(&mut self, presence: Presence) {
        match presence {
            Presence::Gone => self.begin_absence(true, "discovery no longer finds it", None),
            Presence::Present { found, returned } => {
                self.rack = found.rack;
                let was_gone = self.absence.as_ref().is_some_and(|absence| absence.gone);
                if was_gone {
                    self.end_absence();
                }
                // A device that a read called lost returns with the next good read.
                let returned = (was_gone || returned && self.absence.is_none()) && self.is_labelled();
                if returned || found.identity.is_some() {
                    self.observe(found.identity.as_ref(), &[], returned, Clock::now_us());
                }
            }
        }
    }

    /// Begins or ends an absence by the status of a read. Says whether the device has just returned.
    fn follow_absence(&mut self, status: i8, code: Option<i32>) -> bool {
        match status {
            row_status::LOST => self.begin_absence(false, "a read says that it is lost", code),
            row_status::UNREACHABLE => self.sampling.devices.lost_sight(self.source.name(), &self.address),
            _ if self.absence.as_ref().is_some_and(|absence| !absence.gone) => {
                self.end_absence();
                return true;
            }
            _ => {}
        }
        false
    }

    fn begin_absence(&mut self, gone: bool, why: &str, code: Option<i32>) {
        self.label();
        self.sampling.devices.lost_sight(self.source.name(), &self.address);
        if let Some(absence) = &mut self.absence {
            absence.gone |= gone;
            return;
        }
        let episode = self.sampling.outlet.episode();
        let message = format!("{} at {} is lost: {why}", self.labels.device_id, self.address);
        let draft = own("device_lost", "critical", message);
        let (phase, episode_id, code) = (Some("start"), Some(episode.clone()), code.map(i64::from));
        self.event(EventDraft { phase, episode_id, code, ..draft });
        self.absence = Some(Absence { episode, gone });
    }

    fn end_absence(&mut self) {
        let Some(absence) = self.absence.take() else { return };
        let message = format!("{} at {} is back", self.labels.device_id, self.address);
        let draft = own("device_returned", "info", message);
        self.event(EventDraft { phase: Some("end"), episode_id: Some(absence.episode), ..draft });
    }

    /// Lets the registry judge what was seen, and tells the identity where it is new or has changed.
    fn observe(&mut self, identity: Option<&Identity>, lifetime: &[Option<i64>], returned: bool, ts: i64) {
        let (source, address, rack) = (self.source.name(), self.address.as_str(), self.rack.as_deref());
        let observed = self.sampling.devices.observe(Seen { source, address, rack, identity, lifetime, returned, ts });
        let renamed = observed.labels.device_id != self.labels.device_id;
        self.labels = observed.labels;
        for event in observed.events {
            self.event(event);
        }
        let known = self.identity.as_ref().map(|(known, _)| known);
        let because = match (identity, known) {
            (Some(_), None) => "start",
            (Some(read), Some(known)) if renamed || read != known => "change",
            _ => return,
        };
        if let Some(identity) = identity {
            self.sampling.outlet.device(&identity.row, &self.labels, because);
            self.identity = Some((identity.clone(), Instant::now()));
        }
    }

    fn tell_identity_again(&mut self) {
        if let Some((identity, told)) = &mut self.identity
            && told.elapsed() >= DEVICE_ROW_PERIOD
        {
            self.sampling.outlet.device(&identity.row, &self.labels, "hourly");
            *told = Instant::now();
        }
    }

    fn is_labelled(&self) -> bool {
        !self.labels.device_id.is_empty()
    }

    /// Gives the device its labels where no read has.
    fn label(&mut self) {
        if !self.is_labelled() {
            self.observe(None, &[], false, Clock::now_us());
        }
    }

    fn send_stale(&mut self, due: i64, waited: Duration) {
        self.label();
        let mut row = self.row_without_values();
        row.fail_all(fail_code::DEADLINE);
        row.set_status(row_status::STALE);
        self.send(vec![row], due, false, Clock::now_us(), microseconds(waited));
    }

    fn send_lost(&mut self, due: i64) {
        self.label();
        let mut row = self.row_without_values();
        row.fail_all(fail_code::UNREACHABLE);
        row.set_status(row_status::LOST);
        self.send(vec![row], due, false, Clock::now_us(), 0);
    }

    /// A row that knows what the device does not have.
    fn row_without_values(&self) -> Row {
        let table = self.source.table();
        let mut row = Row::new(table);
        row.unsupported_where(self.unsupported);
        row
    }

    fn send(&mut self, mut rows: Vec<Row>, due: i64, late: bool, ts: i64, read_us: i32) {
        let ts = self.after_the_last(ts);
        for row in &mut rows {
            self.sampling.outlet.place.stamp(row, ts, Some(&self.labels));
            row.set(common::READ_US, read_us);
            if late && has_values(row) {
                row.set_status(row_status::LATE);
            }
        }
        self.sampling.outlet.rows(rows, due, &self.address, late);
    }

    /// Rows of a device are told apart by ts within a frame.
    fn after_the_last(&mut self, ts: i64) -> i64 {
        let collides = (0..TS_COLLISION).contains(&(self.ts_last - ts));
        self.ts_last = if collides { self.ts_last + 1 } else { ts };
        self.ts_last
    }

    fn event(&self, mut draft: EventDraft) {
        draft.address.get_or_insert_with(|| self.address.clone());
        self.sampling.outlet.event(draft, Some(&self.labels));
    }
}

/// Whether the row holds what a read gave, rather than that there was nothing to read.
fn has_values(row: &Row) -> bool {
    matches!(row.status(), row_status::OK | row_status::PARTIAL)
}

async fn finish(in_flight: &mut Option<InFlight>) -> Option<Finished> {
    match in_flight {
        Some(read) => (&mut read.read).await.ok(),
        None => std::future::pending().await,
    }
}

fn microseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_micros()).unwrap_or(i32::MAX)
}

/// The first tick of an address at or after `now`. Each address has its own place in the period, the same at every
/// start, so that a thousand devices are not read at once.
fn first_due(origin: Instant, period: Duration, address: &str, now: Instant) -> Instant {
    let period_us = period.as_micros().max(1) as u64;
    let mut due = origin + Duration::from_micros(hash(address) % period_us);
    if due < now {
        let behind = (now - due).as_micros() as u64;
        due += Duration::from_micros(behind.div_ceil(period_us) * period_us);
    }
    due
}

/// From the tick of a device at which its period changes to the next one: never less than the shorter period, never more
/// than the longer. Devices that were spread over a shorter period are spread over the longer one.
fn step(before: Duration, period: Duration, address: &str) -> Duration {
    match period.checked_sub(before) {
        Some(longer_by) if !longer_by.is_zero() => {
            before + Duration::from_micros(hash(address) % (longer_by.as_micros() as u64 + 1))
        }
        _ => period,
    }
}

/// FNV-1a: the same at every start.
fn hash(address: &str) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    address.bytes().fold(0xcbf2_9ce4_8422_2325u64, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_between_two_periods_lies_between_them() {
        let millis = Duration::from_millis;
        for address in ["0000:9b:00.0", "0000:1b:00.0", "10.0.0.1:4028"] {
            for (before, period) in [(50, 50), (1000, 100), (100, 1000), (700, 701)] {
                let step = step(millis(before), millis(period), address);
                assert!((millis(before.min(period))..=millis(before.max(period))).contains(&step), "{step:?}");
            }
        }
        let spread: std::collections::BTreeSet<_> =
            (0..100).map(|i| step(millis(100), millis(1000), &format!("10.0.0.{i}:4028"))).collect();
        assert!(spread.len() > 90, "{spread:?}");
    }
}
