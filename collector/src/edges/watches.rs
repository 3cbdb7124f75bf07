//! What is watched: which columns tell which states and rises, how grave they are, and how long a state may flicker.

use racklake_schemas::clock::SECOND;
use racklake_schemas::tables::{GPU_SAMPLE, gpu_sample};
use racklake_schemas::{Cell, Row, Table};
use serde_json::{Map, Value, json};

use super::baseline::Baseline;
use super::counted;

/// A state that an episode is made of, as one row shows it.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// Name of the event.
    pub(super) event: &'static str,
    /// Which of its kind: a bit, a link.
    pub(super) which: i64,
    /// Severity of the start; an end is info.
    pub(super) severity: &'static str,
    /// Whether it is so.
    pub(super) so: bool,
    /// How long (µs) no row must show it until it has ended.
    pub(super) hold: i64,
    pub(super) code: Option<i64>,
    /// In words.
    pub(super) what: String,
    pub(super) details: Map<String, Value>,
}

/// Counters that have risen since the row before.
#[derive(Debug)]
pub(super) struct Rise {
    pub(super) event: &'static str,
    pub(super) severity: &'static str,
    pub(super) what: &'static str,
    /// Name, value before, value now.
    counters: Vec<(&'static str, i64, i64)>,
    /// Rises no further apart than this (µs) are one episode.
    pub(super) held_together: Option<i64>,
}

impl Rise {
    pub(super) fn details(&self) -> Map<String, Value> {
        counted(&self.counters)
    }

    /// The episode that a rise is part of.
    pub(super) fn as_state(&self, hold: i64) -> Judged {
        let (event, severity, what) = (self.event, self.severity, self.what.to_owned());
        let so = !self.counters.is_empty();
        Judged { event, which: 0, severity, so, hold, code: None, what, details: self.details() }
    }
}

/// Why clocks are held back: bit of NVML's clocks event reasons, name, severity, how long it may flicker, words.
const THROTTLE_REASONS: [(i64, &str, &str, i64, &str); 5] = [
    (0x8, "hw_slowdown", "warning", 10 * SECOND, "hardware slowdown"),
    (0x40, "hw_thermal", "warning", 10 * SECOND, "hardware thermal slowdown"),
    (0x80, "hw_power_brake", "warning", 10 * SECOND, "power brake of the system"),
    (0x20, "sw_thermal", "warning", 10 * SECOND, "software thermal slowdown"),
    // A busy GPU meets its limit every few seconds; that is how it should be.
    (0x4, "power_cap", "info", 60 * SECOND, "power limit"),
];

/// Whether rows of a table are looked at.
pub(super) fn is_watched(table: &'static Table) -> bool {
    std::ptr::eq(table, &GPU_SAMPLE)
}

/// Columns of a table whose last values are remembered.
pub(super) fn counters(_table: &'static Table) -> &'static [usize] {
    &[]
}

/// The link that a row shows as active.
pub(super) fn active_link(_row: &Row) -> Option<i64> {
    None
}

/// The states that a row says something about.
pub(super) fn states(row: &Row, _last: &Baseline) -> Vec<Judged> {
    if std::ptr::eq(row.table(), &GPU_SAMPLE) { throttles(row) } else { Vec::new() }
}

/// The counters of a row that are higher than before, and those that could be and are told as episodes.
pub(super) fn rises(_row: &Row, _last: &Baseline) -> Vec<Rise> {
    Vec::new()
}

fn throttles(row: &Row) -> Vec<Judged> {
    let Some(mask) = number(row, gpu_sample::THROTTLE_REASONS_MASK) else { return Vec::new() };
    let judged = |(bit, name, severity, hold, words): (i64, &str, &'static str, i64, &str)| Judged {
        event: "throttled",
        which: bit,
        severity,
        so: mask & bit != 0,
        hold,
        code: Some(bit),
        what: format!("clocks are held back: {words}"),
        details: Map::from_iter([("throttle_reason".to_owned(), json!(name))]),
    };
    THROTTLE_REASONS.into_iter().map(judged).collect()
}

fn number(row: &Row, column: usize) -> Option<i64> {
    match row.cell(column) {
        Cell::I64(value) => Some(*value),
        _ => None,
    }
}
