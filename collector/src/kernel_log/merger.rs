//! Brings together what the kernel log and NVML tell of the same XID.
//!
//! A line of the kernel log is a row at once. An event of NVML waits for its twin: a line of the same GPU and code, within
//! five seconds, that is no other event's twin. It is dropped and counted where there is one, and else a row. Five lines
//! and five events are five rows.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use racklake_schemas::clock::Clock;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::device_registry::Devices;
use crate::metrics::Metrics;
use crate::outlet::Outlet;
use crate::place::locked;
use crate::source::EventDraft;
use crate::wait::until;

/// How long an event of NVML waits for its line.
const WAIT: Duration = Duration::from_secs(2);
/// How long it waits where lines of the log have not been read yet, among which its own may be.
const WAIT_FOR_LINES: Duration = Duration::from_secs(30);
/// A line and an event that lie further apart are two things.
const WINDOW: Duration = Duration::from_secs(5);
/// Events of NVML that come this close together have waited in NVML for their turn: each may be as old as the first.
const RUN_GAP: Duration = Duration::from_millis(500);
/// But not older than this.
const RUN_MAX: Duration = Duration::from_secs(60);
/// Lines and events that are held. Beyond it further lines are no twins, and the oldest events become rows.
const HELD_MAX: usize = 65_536;

/// GPU (without the function of its PCI address) and code.
type Key = (String, i64);

/// Where events of NVML and lines of the kernel log meet.
#[derive(Debug)]
pub(crate) struct Merger {
    outlet: Arc<Outlet>,
    devices: Arc<Devices>,
    metrics: Arc<Metrics>,
    twins: Mutex<Twins>,
    waiting: Notify,
    /// Whether there are lines that have not been read.
    lines_wait: AtomicBool,
}

impl Merger {
    pub(crate) fn new(outlet: Arc<Outlet>, devices: Arc<Devices>, metrics: Arc<Metrics>) -> Merger {
        Merger {
            outlet,
            devices,
            metrics,
            twins: Mutex::default(),
            waiting: Notify::new(),
            lines_wait: AtomicBool::new(false),
        }
    }

    /// Takes a line of the kernel log, which was logged so long ago.
    pub(crate) fn line(&self, draft: EventDraft, age: Duration) {
        let key = key(&draft).filter(|_| draft.event == "xid" && age <= WINDOW);
        self.send(draft);
        let now = Instant::now();
        if let Some((key, logged)) = key.zip(now.checked_sub(age)) {
            let had_twin = locked(&self.twins).line(key, logged, now);
            self.count(had_twin);
        }
    }

    /// Takes an event of NVML.
    pub(crate) fn nvml(&self, mut draft: EventDraft) {
        let Some(key) = key(&draft).filter(|_| draft.event == "xid") else { return self.send(draft) };
        if draft.ts == 0 {
            draft.ts = Clock::now_us();
        }
        let (had_twin, pushed_out) = locked(&self.twins).event(key, draft, Instant::now());
        self.count(had_twin);
        pushed_out.into_iter().for_each(|draft| self.send(draft));
        self.waiting.notify_one();
    }

    /// Makes rows of events that have waited, until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        loop {
            // Their own lines may be among those that wait to be read.
            let longer = if self.lines_wait.load(Ordering::Relaxed) { WAIT_FOR_LINES - WAIT } else { Duration::ZERO };
            let next = locked(&self.twins).next_due().map(|next| next + longer);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.waiting.notified() => {}
                () = until(next) => self.send_due(Instant::now() - longer),
            }
        }
    }

    /// Says whether there may be lines that have not been read.
    pub(crate) fn lines_wait(&self, there_are: bool) {
        if self.lines_wait.swap(there_are, Ordering::Relaxed) != there_are {
            self.waiting.notify_one();
        }
    }

    /// Makes rows of all events that wait.
    pub(crate) fn end(&self) {
        self.send_due(Instant::now() + WAIT);
    }

    fn send_due(&self, now: Instant) {
        let due = locked(&self.twins).take_due(now);
        due.into_iter().for_each(|draft| self.send(draft));
    }

    /// Makes a row of an event at once.
    pub(crate) fn send(&self, draft: EventDraft) {
        let by_address = draft.address.as_deref().and_then(|address| self.devices.lookup(address));
        let device =
            by_address.or_else(|| draft.pci_bus_id.as_deref().and_then(|address| self.devices.lookup_pci(address)));
        self.outlet.event(draft, device.as_ref());
    }

    fn count(&self, had_twin: bool) {
        if had_twin {
            self.outlet.twin_dropped();
            self.metrics.nvml_events_merged.inc();
        }
    }
}

fn key(draft: &EventDraft) -> Option<Key> {
    let address = draft.pci_bus_id.as_deref().or(draft.address.as_deref())?;
    let place = address.split_once('.').map_or(address, |(place, _function)| place);
    Some((place.to_owned(), draft.code?))
}

/// Lines without an event and events without a line, oldest first.
#[derive(Debug, Default)]
struct Twins {
    lines: HashMap<Key, VecDeque<Instant>>,
    lines_held: usize,
    /// Number, and when it happened at the earliest and at the latest.
    events: HashMap<Key, VecDeque<(u64, Instant, Instant)>>,
    /// The events themselves in the order in which they came, by number; `None` where the twin has come.
    waiting: VecDeque<Option<(Instant, Key, EventDraft)>>,
    /// Number of the first in `waiting`.
    first: u64,
    /// First and last event of those that come without a pause.
    run: Option<(Instant, Instant)>,
}

impl Twins {
    /// Takes a line; says whether it is the twin of an event that waited.
    fn line(&mut self, key: Key, logged: Instant, now: Instant) -> bool {
        if let Some(events) = self.events.get_mut(&key)
            && let Some(at) = events.iter().position(|(_, since, came)| is_near(*since, *came, logged))
            && let Some((number, ..)) = events.remove(at)
        {
            if events.is_empty() {
                self.events.remove(&key);
            }
            if let Some(waiting) = self.waiting.get_mut((number - self.first) as usize) {
                *waiting = None;
            }
            return true;
        }
        if self.lines_held >= HELD_MAX {
            self.forget_lines(now);
        }
        if self.lines_held < HELD_MAX {
            self.lines.entry(key).or_default().push_back(logged);
            self.lines_held += 1;
        }
        false
    }

    /// Takes an event; says whether its twin is here, and which event has to go where too many wait.
    fn event(&mut self, key: Key, draft: EventDraft, now: Instant) -> (bool, Option<EventDraft>) {
        let since = self.since(now).unwrap_or(now);
        self.run = Some((since, now));
        if let Some(lines) = self.lines.get_mut(&key) {
            let old = lines.iter().take_while(|logged| !is_near(since, now, **logged)).count();
            lines.drain(..old);
            let found = lines.pop_front().is_some();
            self.lines_held -= old + usize::from(found);
            if lines.is_empty() {
                self.lines.remove(&key);
            }
            if found {
                return (true, None);
            }
        }
        let pushed_out = if self.waiting.len() >= HELD_MAX { self.pop() } else { None };
        let number = self.first + self.waiting.len() as u64;
        self.events.entry(key.clone()).or_default().push_back((number, since, now));
        self.waiting.push_back(Some((now, key, draft)));
        (false, pushed_out)
    }

    fn next_due(&mut self) -> Option<Instant> {
        self.pass_over_twins();
        self.waiting.front()?.as_ref().map(|(came, ..)| *came + WAIT)
    }

    fn take_due(&mut self, now: Instant) -> Vec<EventDraft> {
        let mut due = Vec::new();
        while self.next_due().is_some_and(|next| next <= now) {
            due.extend(self.pop());
        }
        self.forget_lines(now);
        due
    }

    fn pass_over_twins(&mut self) {
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
    }

    /// The oldest event that waits, which is the oldest of its key.
    fn pop(&mut self) -> Option<EventDraft> {
        self.pass_over_twins();
        let (_, key, draft) = self.waiting.pop_front()??;
        self.first += 1;
        if let Some(events) = self.events.get_mut(&key) {
            events.pop_front();
            if events.is_empty() {
                self.events.remove(&key);
            }
        }
        Some(draft)
    }

    /// When an event that comes now happened at the earliest, where it follows others without a pause.
    fn since(&self, now: Instant) -> Option<Instant> {
        let (first, _) = self.run.filter(|(_, last)| now <= *last + RUN_GAP)?;
        Some(now.checked_sub(RUN_MAX).map_or(first, |earliest| first.max(earliest)))
    }

    /// Forgets lines that are too old for any event to come.
    fn forget_lines(&mut self, now: Instant) {
        let mut held = 0;
        let since = self.since(now).unwrap_or(now);
        self.lines.retain(|_, lines| {
            lines.retain(|logged| is_near(since, now, *logged));
            held += lines.len();
            !lines.is_empty()
        });
        self.lines_held = held;
    }
}

/// Whether a line lies near to an event that happened between `since` and `came`.
fn is_near(since: Instant, came: Instant, logged: Instant) -> bool {
    logged + WINDOW >= since && logged <= came + WINDOW
}

#[cfg(test)]
mod tests;
