//! Edges in what the rows of a device say, as events: a state that begins and ends, a counter that has risen.
//!
//! They are read off finished rows, so no event says what the tables do not. A value that is absent is no edge, whatever
//! the reason; counters are compared within one session. `watches` knows the columns, this file knows time: a state
//! begins with the first row that shows it, and has ended when no row has shown it for a while, so that one that flickers
//! is one episode. What a counter was last is kept with the spool (`baseline`), so that what rose during a restart is told.

mod baseline;
#[cfg(test)]
mod tests;
mod watches;

use std::collections::BTreeMap;

use racklake_schemas::clock::SECOND;
use racklake_schemas::tables::{GPU_SAMPLE, device, gpu_sample, gpu_sample as common};
use racklake_schemas::{Cell, Row, row_status};
use serde_json::{Value, json};

use crate::event::own;
use crate::outlet::Outlet;
use crate::source::EventDraft;
use watches::{Judged, Rise, number};

pub(crate) use baseline::{Baseline, Baselines};

/// A GPU that works at least so much is busy.
const BUSY_PERCENT: i64 = 50;

/// The edges of one device, which may change its identity.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    device_id: String,
    open: BTreeMap<Key, Open>,
    last: Baseline,
    known: Known,
}

/// What else a row is judged by.
#[derive(Debug, Default)]
struct Known {
    pcie_width_max: Option<i64>,
    pcie_generation_max: Option<i64>,
    /// Since when all samples have shown a busy GPU, µs UTC.
    busy_since: Option<i64>,
}

/// Name of the event, and which of its kind: a reason, a link, a code.
type Key = (&'static str, i64);

/// A state that has begun.
#[derive(Debug)]
struct Open {
    episode_id: String,
    state: Judged,
    /// Times of its first and its last row, µs UTC.
    began: i64,
    seen: i64,
    /// Time of the first row without it.
    gone: Option<i64>,
    rows: u64,
}

impl Edges {
    /// Takes a row as it will be sent; gives what it tells. The door says what an earlier start has seen.
    pub(crate) fn observe(&mut self, row: &Row, outlet: &Outlet) -> Vec<EventDraft> {
        if !watches::is_watched(row.table()) || row.status() == row_status::STALE {
            return Vec::new();
        }
        let (Cell::Text(device_id), Cell::I64(ts)) = (row.cell(common::DEVICE_ID), row.cell(common::TS)) else {
            return Vec::new();
        };
        let mut drafts = Vec::new();
        if *device_id != self.device_id {
            drafts.extend(self.close_all(*ts, "device_replaced"));
            self.device_id.clone_from(device_id);
            self.last = outlet.baseline(device_id);
            self.known.busy_since = None;
        }
        self.last.begin(row);
        self.known.follow(row, *ts);
        drafts.extend(watches::rises(row, &self.last).iter().map(|rise| self.risen(rise)));
        for state in watches::states(row, *ts, &self.known, &self.last) {
            drafts.extend(self.step(state, *ts, outlet));
        }
        self.last.follow(row);
        drafts
    }

    /// The identity of the device has been told: what its PCIe link can do at best.
    pub(crate) fn identified(&mut self, identity: &Row) {
        self.known.pcie_width_max = number(identity, device::PCIE_WIDTH_MAX);
        self.known.pcie_generation_max = number(identity, device::PCIE_GENERATION_MAX);
    }

    fn step(&mut self, state: Judged, ts: i64, outlet: &Outlet) -> Vec<EventDraft> {
        let key = (state.event, state.which);
        let mut drafts = Vec::new();
        // Another code is another state: the one of before ends with it.
        if state.so && self.open.get(&key).is_some_and(|open| open.state.code != state.code) {
            drafts.extend(self.open.remove(&key).map(|open| self.end(&open, ts, None)));
        }
        match (self.open.get_mut(&key), state.so) {
            (Some(open), true) => open.go_on(state, ts),
            (Some(open), false) => {
                // A clock that was set back begins the wait anew.
                let gone = open.gone.filter(|gone| *gone <= ts).unwrap_or(ts);
                open.gone = Some(gone);
                if ts - gone >= open.state.hold {
                    drafts.extend(self.open.remove(&key).map(|open| self.end(&open, gone, None)));
                }
            }
            (None, true) => {
                let open = Open { episode_id: outlet.episode(), state, began: ts, seen: ts, gone: None, rows: 1 };
                drafts.push(self.start(&open));
                self.open.insert(key, open);
            }
            (None, false) => {}
        }
        drafts
    }

    fn close_all(&mut self, ts: i64, reason: &str) -> Vec<EventDraft> {
        std::mem::take(&mut self.open).into_values().map(|open| self.end(&open, ts, Some(reason))).collect()
    }

    fn start(&self, open: &Open) -> EventDraft {
        let state = &open.state;
        let message = format!("{}: {}", self.device_id, state.what);
        EventDraft {
            ts: open.began,
            code: state.code,
            phase: Some("start"),
            episode_id: Some(open.episode_id.clone()),
            details_json: Some(Value::Object(state.details.clone()).to_string()),
            ..own(state.event, state.severity, message)
        }
    }

    /// The end of an episode at `ts`, which is when it ended, not when that was certain.
    fn end(&self, open: &Open, ts: i64, reason: Option<&str>) -> EventDraft {
        let state = &open.state;
        let mut details = state.details.clone();
        details.insert("seconds".to_owned(), json!((ts - open.began).max(0) as f64 / SECOND as f64));
        details.insert("rows".to_owned(), json!(open.rows));
        if let Some(reason) = reason {
            details.insert("reason".to_owned(), json!(reason));
        }
        let message = format!("{}: no longer: {}", self.device_id, state.what);
        EventDraft {
            ts,
            code: state.code,
            phase: Some("end"),
            episode_id: Some(open.episode_id.clone()),
            details_json: Some(Value::Object(details).to_string()),
            ..own(state.event, "info", message)
        }
    }

    fn risen(&self, rise: &Rise) -> EventDraft {
        let message = format!("{}: {}", self.device_id, rise.what);
        let details = Some(Value::Object(rise.details.clone()).to_string());
        EventDraft { details_json: details, ..own(rise.event, rise.severity, message) }
    }
}

impl Open {
    /// It is still so, or again.
    fn go_on(&mut self, state: Judged, ts: i64) {
        (self.seen, self.gone, self.rows) = (ts, None, self.rows + 1);
        // Counters tell from what they were at the start to what they are now.
        for (name, value) in state.details {
            match (self.state.details.get_mut(&name), value) {
                (Some(Value::Object(held)), Value::Object(now)) => {
                    held.extend(now.into_iter().filter(|(part, _)| part != "before"));
                }
                (Some(_), _) => {}
                (None, value) => drop(self.state.details.insert(name, value)),
            }
        }
    }
}

impl Known {
    fn follow(&mut self, row: &Row, ts: i64) {
        if std::ptr::eq(row.table(), &GPU_SAMPLE) {
            let is_busy =
                number(row, gpu_sample::GPU_UTILIZATION_PERCENT).is_some_and(|percent| percent >= BUSY_PERCENT);
            self.busy_since = is_busy.then(|| self.busy_since.filter(|since| *since <= ts).unwrap_or(ts));
        }
    }
}
