//! Counts of what ingest does, for Prometheus.
//!
//! They start from zero with the process; what must survive it is in the lake.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The counts; clones count together.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Frames that were decoded.
    pub(crate) frames: Family<OfTable, Counter>,
    /// Rows in them.
    pub(crate) rows: Family<OfTable, Counter>,
    /// Bytes of the messages.
    pub(crate) bytes: Family<OfTable, Counter>,
    /// Frames dropped because they had been received before.
    pub(crate) duplicates: Family<OfTable, Counter>,
    /// Messages set aside.
    pub(crate) dead_letters: Family<OfLetter, Counter>,
    /// Columns that the catalog does not know.
    pub(crate) unknown_columns: Family<OfColumn, Counter>,
    /// Rows whose time cannot be right, filed under the day of their arrival.
    pub(crate) clock_suspect_rows: Family<OfTable, Counter>,
    /// Flushes by how they went.
    pub(crate) flushes: Family<OfFlush, Counter>,
    /// Seconds that commits took.
    pub(crate) commit_seconds: Family<OfTable, Histogram, fn() -> Histogram>,
    /// Bytes of rows in memory, flushes under way included.
    pub(crate) buffered_bytes: Gauge<i64, AtomicI64>,
    /// Records that the lake does not have yet.
    pub(crate) lag: Family<OfPartition, Gauge>,
    /// Records that Kafka's retention removed before they were read.
    pub(crate) retention_overtook: Family<OfPartition, Counter>,
    /// Consumers that were given up for a new one.
    pub(crate) renewals: Counter,
    registry: Arc<Registry>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfTable {
    pub(crate) table: &'static str,
}

/// One reason of dead letters of a table's topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfLetter {
    pub(crate) table: &'static str,
    pub(crate) reason: &'static str,
}

/// One column id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfColumn {
    pub(crate) table: &'static str,
    pub(crate) column: u32,
}

/// One way that a flush can go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfFlush {
    pub(crate) table: &'static str,
    pub(crate) outcome: &'static str,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfPartition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

fn commit_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Metrics {
    /// All counts at zero.
    pub(crate) fn new() -> Metrics {
        let mut metrics = Metrics {
            frames: Family::default(),
            rows: Family::default(),
            bytes: Family::default(),
            duplicates: Family::default(),
            dead_letters: Family::default(),
            unknown_columns: Family::default(),
            clock_suspect_rows: Family::default(),
            flushes: Family::default(),
            commit_seconds: Family::new_with_constructor(commit_buckets),
            buffered_bytes: Gauge::default(),
            lag: Family::default(),
            retention_overtook: Family::default(),
            renewals: Counter::default(),
            registry: Arc::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }

    fn register(&self) -> Registry {
        let mut all = Registry::with_prefix("racklake_ingest");
        all.register("frames", "Frames decoded", self.frames.clone());
        all.register("rows", "Rows decoded", self.rows.clone());
        all.register("message_bytes", "Bytes of the messages decoded", self.bytes.clone());
        let dropped = "Frames dropped because the lake had received them before";
        all.register("duplicate_frames", dropped, self.duplicates.clone());
        all.register("dead_letters", "Messages set aside, by reason", self.dead_letters.clone());
        all.register(
            "unknown_columns",
            "Columns that the catalog does not know, passed over",
            self.unknown_columns.clone(),
        );
        let suspect = "Rows whose time cannot be right, filed under the day of their arrival";
        all.register("clock_suspect_rows", suspect, self.clock_suspect_rows.clone());
        all.register("flushes", "Flushes, by how they went", self.flushes.clone());
        all.register("commit_seconds", "Time that a commit to the lake took", self.commit_seconds.clone());
        all.register("buffered_bytes", "Bytes of rows in memory", self.buffered_bytes.clone());
        all.register("lag_records", "Records that the lake does not have yet", self.lag.clone());
        let overtook = "Records that Kafka's retention removed before they were read";
        all.register("retention_overtook_records", overtook, self.retention_overtook.clone());
        all.register("consumer_renewals", "Consumers that were given up for a new one", self.renewals.clone());
        all
    }

    /// All counts as OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _never = text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_served_with_its_labels() {
        let metrics = Metrics::new();
        metrics.dead_letters.get_or_create(&OfLetter { table: "event", reason: "bad_tag" }).inc();
        let text = metrics.text();
        let line = "racklake_ingest_dead_letters_total{table=\"event\",reason=\"bad_tag\"} 1";
        assert!(text.lines().any(|l| l == line), "{text}");
    }
}
