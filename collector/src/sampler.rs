//! Reads one device on fixed grids of ticks, whatever the device does: one grid, a lane, for each tier of its source.
//!
//! Each due tick has exactly one outcome: a row, a stale row because the deadline passed, or a tick that is counted as
//! skipped because a read within its deadline was in flight, or because the source has paused. A read is never dropped and
//! never doubled: one that comes back late gives a row of its own. Devices do not wait for each other; each has a task and
//! a place in the period. Lanes do not wait for each other here; a source that makes one call at a time queues them.

mod grid;
mod lane;

use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::clock::Clock;
use racklake_schemas::tables::gpu_sample as common;
use racklake_schemas::{Row, fail_code, row_status};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::burst::Burst;
use crate::device_registry::{Devices, Seen};
use crate::edges::Edges;
use crate::event::own;
use crate::health::Health;
use crate::metrics::{Metrics, one};
use crate::outlet::Outlet;
use crate::place::DeviceLabels;
use crate::source::{EventDraft, Found, Identity, Reading, Source};
use crate::wait::until;
use lane::{Finished, Lane, finish, has_values, microseconds};

/// How often an identity is told again.
const DEVICE_ROW_PERIOD: Duration = Duration::from_secs(3600);
/// What is read seldom is read at once after an event, but no more often than this.
const SELDOM_APART: Duration = Duration::from_secs(10);

/// What all samplers of a collector share.
#[derive(Clone)]
pub(crate) struct Sampling {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Arc<Health>,
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
    /// Episode in which the device does not answer at all.
    stall: Option<String>,
    /// One for each tier.
    lanes: Vec<Lane>,
    edges: Edges,
    burst: Burst,
    /// Rings when something has happened to the device.
    bell: Arc<Notify>,
}

/// An episode in which the device is not there.
struct Absence {
    episode: String,
    /// Whether discovery says so, or a read did.
    gone: bool,
}

impl Sampler {
    /// A sampler of a device that was just found.
    pub(crate) fn new(source: Arc<dyn Source>, sampling: Sampling, found: Found) -> Sampler {
        let lane = |table| Lane::new(table, source.as_ref(), sampling.origin, &found.address);
        let lanes = source.tiers().iter().copied().map(lane).collect();
        let nobody = DeviceLabels { device_id: String::new(), session_id: 0, rack: None };
        let mut sampler = Sampler {
            source,
            sampling,
            address: found.address.clone(),
            labels: nobody,
            rack: found.rack.clone(),
            identity: None,
            absence: None,
            stall: None,
            lanes,
            edges: Edges::default(),
            burst: Burst::default(),
            bell: Arc::default(),
        };
        // Without an identity the first read may bring one; until then there is nothing to label.
        if found.identity.is_some() {
            sampler.observe(found.identity.as_ref(), &[], false, Clock::now_us());
        }
        sampler
    }

    /// Reads on, until `stop`.
    pub(crate) async fn run(mut self, mut presence: watch::Receiver<Presence>, stop: CancellationToken) {
        while !(stop.is_cancelled() && self.lanes.iter().all(Lane::is_over)) {
            let deadline = self.lanes.iter().filter_map(Lane::next_deadline).min();
            let due = self.lanes.iter().map(|lane| lane.next_due).min();
            let bell = Arc::clone(&self.bell);
            tokio::select! {
                biased;
                (lane, finished) = finish(&mut self.lanes) => self.finished(lane, finished),
                () = until(deadline) => self.look_at_deadlines(),
                () = stop.cancelled(), if !stop.is_cancelled() => {}
                changed = presence.changed() => match changed {
                    Ok(()) => {
                        let now = presence.borrow_and_update().clone();
                        self.presence(now);
                    }
                    Err(_) => stop.cancelled().await,
                },
                () = bell.notified() => self.look_closer(),
                () = until(due), if !stop.is_cancelled() => self.look_at_ticks(),
            }
        }
        self.sampling.health.works(&self.part());
    }

    fn look_at_ticks(&mut self) {
        let now = Instant::now();
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].next_due <= now {
                self.tick(lane);
            }
        }
        self.tell_identity_again();
    }

    /// One due time of a lane has come.
    fn tick(&mut self, lane: usize) {
        let number = lane;
        let next = self.period(number);
        let lane = &mut self.lanes[number];
        let (outlet, table) = (&self.sampling.outlet, lane.table);
        let tick = lane.take_tick(next, &self.address);
        outlet.scheduled(table, &self.address, tick.next, tick.period);
        if tick.missed > 0 {
            outlet.skipped(table, tick.due, tick.missed, "tick_skipped");
        }
        match &lane.in_flight {
            None if self.absence.as_ref().is_some_and(|absence| absence.gone) => self.send_lost(number, tick.due),
            None => match self.source.pause() {
                Some(reason) => outlet.skipped(table, tick.due, 1, reason),
                None => {
                    outlet.begun(table, tick.due, &self.address);
                    lane.begin(&self.source, &self.address, &tick);
                }
            },
            Some(read) if read.given_up => {
                let waited = read.began.elapsed();
                self.send_stale(number, tick.due, waited);
            }
            Some(_) => outlet.skipped(table, tick.due, 1, "tick_skipped"),
        }
    }

    /// The period of a lane from now on. In a burst the first is shorter, unless the device does not answer.
    fn period(&self, lane: usize) -> Duration {
        let Lane { table, in_flight, .. } = &self.lanes[lane];
        let period = self.source.period(table);
        let answers = in_flight.as_ref().is_none_or(|read| !read.given_up) && self.absence.is_none();
        match self.source.burst() {
            Some(settings) if lane == 0 && answers && self.burst.is_on(Instant::now()) => period.min(settings.period),
            _ => period,
        }
    }

    /// Something has happened to the device: it is read more often for a while, and what is read seldom is read now.
    fn look_closer(&mut self) {
        let Some(settings) = self.source.burst() else { return };
        let now = Instant::now();
        let begins = self.burst.rung(settings, now);
        if !self.burst.is_on(now) {
            return;
        }
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            match number {
                0 if begins => lane.hurry(now + settings.period),
                0 => {}
                _ => lane.put_between(now, SELDOM_APART),
            }
        }
    }

    fn look_at_deadlines(&mut self) {
        let now = Instant::now();
        for lane in 0..self.lanes.len() {
            if let Some((due, waited)) = self.lanes[lane].gives_up(now) {
                self.send_stale(lane, due, waited);
            }
            if let Some(due) = self.lanes[lane].stalls(now) {
                self.begin_stall(lane, due);
            }
        }
    }

    /// A read has returned.
    fn finished(&mut self, lane: usize, finished: Option<Finished>) {
        let table = self.lanes[lane].table;
        let Some(read) = self.lanes[lane].in_flight.take() else { return };
        let Some(Finished { reading, ts, read_us }) = finished else {
            // The source itself failed; its tick must not be missing from the account.
            self.label();
            let message = format!("the read of {} ended without an answer; please report it", self.address);
            self.event(own("read_failed", "error", message));
            let mut row = self.lanes[lane].row_without_values();
            row.fail_all(fail_code::UNPARSABLE);
            row.set_status(row_status::UNREACHABLE);
            let read_us = microseconds(read.began.elapsed());
            return self.send(lane, vec![row], read.due, read.given_up, Clock::now_us(), read_us);
        };
        self.sampling
            .metrics
            .read_seconds
            .get_or_create(&one("source", self.source.name()))
            .observe(f64::from(read_us) / 1e6);
        self.sampling.outlet.call(table, read.due, read_us);
        let Reading { mut rows, identity, lifetime, events, .. } = reading;
        if rows.is_empty() {
            let mut row = self.lanes[lane].row_without_values();
            row.fail_all(fail_code::MISSING);
            row.set_status(row_status::UNREACHABLE);
            rows.push(row);
        }
        let (status, code) = rows.first().map_or((row_status::OK, None), |row| (row.status(), row.fail_code()));
        if status != row_status::UNREACHABLE {
            self.end_stall("answers again");
        }
        let returned = self.follow_absence(status, code);
        self.lanes[lane].learn(&rows);
        // A session begins no later than its first row.
        self.observe(identity.as_ref(), &lifetime, returned, ts);
        self.send(lane, rows, read.due, read.given_up, ts, read_us);
        for event in events {
            self.event(event);
        }
    }

    /// What `/healthz` calls the device.
    fn part(&self) -> String {
        format!("{} device {}", self.source.name(), self.address)
    }

    /// A read has not come back long after its deadline. The device is asked nothing more until it has.
    fn begin_stall(&mut self, lane: usize, due: i64) {
        if self.stall.is_some() {
            return;
        }
        self.label();
        let call = self.source.call_in_progress(Some(&self.address));
        let (name, since) = call.map_or((None, None), |call| (Some(call.name), Some(call.since)));
        let what = name.as_deref().unwrap_or("a call");
        let waited = Duration::from_micros((Clock::now_us() - since.unwrap_or(due)).max(0) as u64);
        let (who, seconds) = (&self.labels.device_id, waited.as_secs());
        let message = format!("{who} at {} is stalled: {what} has not come back for {seconds} s", self.address);
        self.sampling.health.stalls(&self.part(), &format!("{who} has not come back from {what}"), waited);
        let tier = self.lanes[lane].table.name;
        let details = json!({"call": name, "call_since_us": since, "read_due_us": due, "tier": tier});
        let episode = self.sampling.outlet.episode();
        let draft = EventDraft {
            phase: Some("start"),
            episode_id: Some(episode.clone()),
            details_json: Some(details.to_string()),
            ..EventDraft::new("gpu_stalled", self.source.name(), "critical", message)
        };
        self.event(draft);
        self.stall = Some(episode);
    }

    fn end_stall(&mut self, how: &str) {
        let Some(episode) = self.stall.take() else { return };
        self.sampling.health.works(&self.part());
        let message = format!("{} at {} {how}", self.labels.device_id, self.address);
        let draft = EventDraft::new("gpu_stalled", self.source.name(), "info", message);
        self.event(EventDraft { phase: Some("end"), episode_id: Some(episode), ..draft });
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
        if gone {
            self.end_stall("is no longer found");
        }
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
        if renamed {
            self.bell = self.sampling.outlet.bells.of(&self.labels.device_id);
        }
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
            self.edges.identified(&identity.row);
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

    fn send_stale(&mut self, lane: usize, due: i64, waited: Duration) {
        self.label();
        let mut row = self.lanes[lane].row_without_values();
        row.fail_all(fail_code::DEADLINE);
        row.set_status(row_status::STALE);
        self.send(lane, vec![row], due, false, Clock::now_us(), microseconds(waited));
    }

    fn send_lost(&mut self, lane: usize, due: i64) {
        self.label();
        let mut row = self.lanes[lane].row_without_values();
        row.fail_all(fail_code::UNREACHABLE);
        row.set_status(row_status::LOST);
        self.send(lane, vec![row], due, false, Clock::now_us(), 0);
    }

    fn send(&mut self, lane: usize, mut rows: Vec<Row>, due: i64, late: bool, ts: i64, read_us: i32) {
        let ts = self.lanes[lane].after_the_last(ts);
        for row in &mut rows {
            self.sampling.outlet.place.stamp(row, ts, Some(&self.labels));
            row.set(common::READ_US, read_us);
            if late && has_values(row) {
                row.set_status(row_status::LATE);
            }
        }
        let mut told: Vec<_> = rows.iter().flat_map(|row| self.edges.observe(row, &self.sampling.outlet)).collect();
        told.iter_mut().for_each(|draft| draft.address = Some(self.address.clone()));
        self.sampling.outlet.rows_and_events(rows, (told, Some(&self.labels)), due, &self.address, late);
    }

    fn event(&self, mut draft: EventDraft) {
        draft.address.get_or_insert_with(|| self.address.clone());
        self.sampling.outlet.event(draft, Some(&self.labels));
    }
}
