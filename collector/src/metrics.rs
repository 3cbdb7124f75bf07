//! What the collector counts about itself, for Prometheus.
//!
//! One set per collector, so that two in one process do not mix. What reaches the lake is in `coverage`; these are for
//! watching the collector while it runs.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// One label.
pub(crate) type One = [(&'static str, String); 1];
/// Two labels.
pub(crate) type Two = [(&'static str, String); 2];

/// Counters and gauges of one collector.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) rows: Family<Two, Counter>,
    pub(crate) ticks_skipped: Family<One, Counter>,
    pub(crate) rows_dropped: Family<Two, Counter>,
    pub(crate) frames_published: Family<One, Counter>,
    pub(crate) bytes_published: Family<One, Counter>,
    pub(crate) frames_refused: Family<Two, Counter>,
    pub(crate) deliveries_failed: Family<One, Counter>,
    pub(crate) events: Family<One, Counter>,
    pub(crate) discoveries_failed: Family<One, Counter>,
    pub(crate) reloads: Family<One, Counter>,
    pub(crate) kernel_log_lines_lost: Counter,
    pub(crate) nvml_events_merged: Counter,
    pub(crate) devices: Family<Two, Gauge>,
    pub(crate) read_seconds: Family<One, Histogram, fn() -> Histogram>,
    pub(crate) spool_bytes: Gauge,
    pub(crate) spool_frames: Gauge,
    pub(crate) spool_oldest_seconds: Gauge,
    pub(crate) in_flight_bytes: Gauge,
}

/// The label set of one label.
pub(crate) fn one(name: &'static str, value: &str) -> One {
    [(name, value.to_owned())]
}

/// The label set of two labels.
pub(crate) fn two(first: (&'static str, &str), second: (&'static str, &str)) -> Two {
    [(first.0, first.1.to_owned()), (second.0, second.1.to_owned())]
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Metrics {
        let read_buckets: fn() -> Histogram =
            || Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0]);
        let mut metrics = Metrics {
            registry: Registry::with_prefix("racklake_collector"),
            rows: Family::default(),
            ticks_skipped: Family::default(),
            rows_dropped: Family::default(),
            frames_published: Family::default(),
            bytes_published: Family::default(),
            frames_refused: Family::default(),
            deliveries_failed: Family::default(),
            events: Family::default(),
            discoveries_failed: Family::default(),
            reloads: Family::default(),
            kernel_log_lines_lost: Counter::default(),
            nvml_events_merged: Counter::default(),
            devices: Family::default(),
            read_seconds: Family::new_with_constructor(read_buckets),
            spool_bytes: Gauge::default(),
            spool_frames: Gauge::default(),
            spool_oldest_seconds: Gauge::default(),
            in_flight_bytes: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("rows", "Rows made, by table and outcome", self.rows.clone());
        r.register("ticks_skipped", "Due reads not begun because one was in flight", self.ticks_skipped.clone());
        r.register("rows_dropped", "Rows dropped, by table and reason", self.rows_dropped.clone());
        r.register("frames_published", "Frames that Kafka acknowledged", self.frames_published.clone());
        r.register("published_bytes", "Bytes of frames that Kafka acknowledged", self.bytes_published.clone());
        r.register("frames_refused", "Frames that Kafka will never take", self.frames_refused.clone());
        r.register("deliveries_failed", "Deliveries that failed and are tried again", self.deliveries_failed.clone());
        r.register("events", "Events, by name", self.events.clone());
        r.register("discoveries_failed", "Discoveries that failed, by source", self.discoveries_failed.clone());
        r.register("config_reloads", "Configs read again, by what became of them", self.reloads.clone());
        let lost = "Lines of the kernel log that were overwritten before they were read";
        r.register("kernel_log_lines_lost", lost, self.kernel_log_lines_lost.clone());
        let merged = "XIDs of NVML that have no row because the kernel log told the same";
        r.register("nvml_events_merged", merged, self.nvml_events_merged.clone());
        r.register("devices", "Devices, by source and whether they are there", self.devices.clone());
        r.register("read_seconds", "How long reads take", self.read_seconds.clone());
        r.register("spool_bytes", "Bytes of frames that wait for Kafka", self.spool_bytes.clone());
        r.register("spool_frames", "Frames that wait for Kafka", self.spool_frames.clone());
        r.register("spool_oldest_seconds", "Age of the oldest frame that waits", self.spool_oldest_seconds.clone());
        r.register("in_flight_bytes", "Bytes handed to the Kafka client", self.in_flight_bytes.clone());
    }

    /// The OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
