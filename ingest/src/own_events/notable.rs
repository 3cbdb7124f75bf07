//! What of a message is worth an event, and how often the same is told.
//!
//! What is remembered is bounded; where more nodes or column sets come than fit, `/metrics` still counts them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::time::Duration;

use racklake_schemas::Rows;
use racklake_schemas::tables::gpu_sample::{RECEIVED_AT, TS};
use racklake_schemas::wire::Received;
use racklake_storage::is_clock_suspect;
use serde_json::json;
use tokio::time::Instant;

use super::OwnEvent;

/// Nodes, and sets of columns, that are remembered.
const REMEMBERED: usize = 10_000;
/// How often a node's clock is told of at most.
const SUSPECT_PERIOD: Duration = Duration::from_secs(3600);
/// Ids of columns that an event names.
const IDS: usize = 64;
const DAY_SECONDS: f64 = 86_400.0;

/// Rows of which the lake files each by the day of its arrival, because its own time cannot be right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Suspects {
    /// How many.
    pub(crate) rows: u64,
    /// `ts` minus `received_at` where they differ most, µs.
    pub(crate) worst_us: i64,
}

impl Suspects {
    /// Those among some rows of a table.
    pub(crate) fn among(rows: &Rows, range: Range<usize>, replayed: bool) -> Suspects {
        let mut found = Suspects::default();
        let times = rows.integers(TS, range.clone()).iter().zip(rows.integers(RECEIVED_AT, range));
        for (ts, received_at) in times.filter(|(ts, received_at)| is_clock_suspect(**ts, **received_at, replayed)) {
            found.add(Suspects { rows: 1, worst_us: ts.saturating_sub(*received_at) });
        }
        found
    }

    fn add(&mut self, more: Suspects) {
        self.rows += more.rows;
        if more.worst_us.saturating_abs() > self.worst_us.saturating_abs() {
            self.worst_us = more.worst_us;
        }
    }
}

/// What has been told, and what is still to be.
#[derive(Debug, Default)]
pub(crate) struct Notable {
    clocks: HashMap<String, Clock>,
    columns: HashSet<(String, &'static str, u64)>,
}

/// A node whose clock was told of.
#[derive(Debug)]
struct Clock {
    /// When it may be told of again.
    due: Instant,
    /// Since then.
    suspects: Suspects,
    rows_by_table: BTreeMap<&'static str, u64>,
}

impl Notable {
    /// An event about rows whose times cannot be right, unless the node was told of within the hour.
    pub(crate) fn suspects(&mut self, of: &Received, suspects: Suspects, now: Instant) -> Option<OwnEvent> {
        let node = &of.header.node;
        if suspects.rows == 0 || (self.clocks.len() >= REMEMBERED && !self.clocks.contains_key(node)) {
            return None;
        }
        let new = || Clock { due: now, suspects: Suspects::default(), rows_by_table: BTreeMap::new() };
        let clock = self.clocks.entry(node.clone()).or_insert_with(new);
        clock.suspects.add(suspects);
        *clock.rows_by_table.entry(of.header.table.name).or_default() += suspects.rows;
        clock.event(node, now)
    }

    /// Events about what has come since a node was told of, an hour ago. Nodes whose clocks are right again are forgotten.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<OwnEvent> {
        let mut events = Vec::new();
        self.clocks.retain(|node, clock| {
            let event = clock.event(node, now);
            let keep = event.is_some() || clock.due > now;
            events.extend(event);
            keep
        });
        events
    }

    /// An event about columns that are unknown here, once for each set of them of a node and table.
    pub(crate) fn columns(&mut self, of: &Received) -> Option<OwnEvent> {
        let mut ids = of.unknown_columns.clone();
        if ids.is_empty() || self.columns.len() >= REMEMBERED {
            return None;
        }
        ids.sort_unstable();
        ids.dedup();
        let mut hasher = DefaultHasher::new();
        ids.hash(&mut hasher);
        let (node, table) = (&of.header.node, of.header.table.name);
        if !self.columns.insert((node.clone(), table, hasher.finish())) {
            return None;
        }
        let count = ids.len();
        ids.truncate(IDS);
        let version = of.catalog_version;
        Some(OwnEvent {
            event: "columns_unknown",
            severity: "warning",
            message: format!(
                "node {node} sends {count} columns of {table} that this ingest does not know (catalog version {version}); \
                 their values are not kept: upgrade ingest"
            ),
            details: json!({"table": table, "node": node, "ids": ids, "columns": count, "catalog_version": version}),
        })
    }
}

impl Clock {
    fn event(&mut self, node: &str, now: Instant) -> Option<OwnEvent> {
        if self.suspects.rows == 0 || self.due > now {
            return None;
        }
        self.due = now + SUSPECT_PERIOD;
        let Suspects { rows, worst_us } = std::mem::take(&mut self.suspects);
        let tables = std::mem::take(&mut self.rows_by_table);
        let days = worst_us as f64 / 1e6 / DAY_SECONDS;
        Some(OwnEvent {
            event: "clock_suspect",
            severity: "warning",
            message: format!(
                "{rows} rows of node {node} have times up to {days:+.1} days away from their arrival and did not wait in \
                 its spool; they are filed under the day of their arrival: look at the node's clock"
            ),
            details: json!({"node": node, "rows": rows, "worst_difference_us": worst_us, "tables": tables}),
        })
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::clock::DAY;
    use racklake_schemas::wire::FrameHeader;
    use racklake_schemas::{Row, tables};

    use super::*;

    fn received(node: &str, unknown_columns: &[u32]) -> Received {
        let stream_id = "0123456789abcdef0123456789abcdef".to_owned();
        Received {
            header: FrameHeader { table: &tables::GPU_SAMPLE, stream_id, seq: 1, node: node.to_owned() },
            catalog_version: 9,
            rows: 0..1,
            unknown_columns: unknown_columns.to_vec(),
        }
    }

    #[test]
    fn rows_more_than_a_day_away_from_their_arrival_are_suspect_unless_they_are_replayed() {
        let mut rows = Rows::new(&tables::GPU_SAMPLE);
        for difference in [-9 * DAY, 0, DAY, -DAY - 1, 3 * DAY] {
            let mut row = Row::new(&tables::GPU_SAMPLE);
            row.set(TS, 100 * DAY + difference);
            row.set(RECEIVED_AT, 100 * DAY);
            rows.push(row);
        }
        assert_eq!(Suspects::among(&rows, 0..5, false), Suspects { rows: 3, worst_us: -9 * DAY });
        assert_eq!(Suspects::among(&rows, 1..5, false), Suspects { rows: 2, worst_us: 3 * DAY });
        assert_eq!(Suspects::among(&rows, 0..5, true), Suspects::default());
    }

    #[test]
    fn a_node_is_told_of_at_once_and_then_once_an_hour_with_all_that_came_meanwhile() {
        let (mut notable, begin) = (Notable::default(), Instant::now());
        let rows = |rows, worst_us| Suspects { rows, worst_us };
        let minutes = |minutes: u64| begin + Duration::from_secs(minutes * 60);
        let first = notable.suspects(&received("n1", &[]), rows(8, 5 * DAY), begin).unwrap();
        assert_eq!(first.details["rows"], 8);
        assert_eq!(notable.suspects(&received("n1", &[]), rows(8, -6 * DAY), minutes(1)), None);
        assert_eq!(notable.suspects(&received("n1", &[]), rows(2, 4 * DAY), minutes(59)), None);
        assert!(notable.suspects(&received("n2", &[]), rows(1, 2 * DAY), minutes(59)).is_some(), "another node");
        assert_eq!(notable.due(minutes(59)), []);
        let wanted = json!({"node": "n1", "rows": 10, "worst_difference_us": -6 * DAY, "tables": {"gpu_sample": 10}});
        let told: Vec<_> = notable.due(minutes(61)).into_iter().map(|event| event.details).collect();
        assert_eq!(told, [wanted]);
        assert_eq!(notable.due(minutes(600)), []);
        assert!(notable.clocks.is_empty(), "what is right again is forgotten");
    }

    #[test]
    fn unknown_columns_are_told_once_for_each_set() {
        let mut notable = Notable::default();
        let event = notable.columns(&received("n1", &[900, 800])).unwrap();
        let wanted =
            json!({"table": "gpu_sample", "node": "n1", "ids": [800, 900], "columns": 2, "catalog_version": 9});
        assert_eq!(event.details, wanted);
        assert_eq!(notable.columns(&received("n1", &[800, 900])), None);
        assert_eq!(notable.columns(&received("n1", &[])), None);
        assert!(notable.columns(&received("n1", &[800])).is_some());
        assert!(notable.columns(&received("n2", &[800, 900])).is_some());
    }
}
