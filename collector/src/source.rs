//! The one trait that every kind of sensor implements, and what a read gives.
//!
//! A source reads; it keeps no schedule, knows no frame and no Kafka, and names no session. `read` is asynchronous so
//! that a source may block a thread of its own, speak to a child process, or wait for a socket. The sampler never calls
//! `read` again for a tier of a device whose last read has not returned, and it never drops a read that is late.
//!
//! A source may read its devices in tiers: each has a table, a period and a deadline of its own. A source whose devices
//! bear one call at a time queues the reads of their tiers itself.

use std::pin::Pin;
use std::time::Duration;

use racklake_schemas::{Row, Table};
use tokio::sync::mpsc;

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A kind of sensor: all GPUs of this host, or miners of one make.
pub trait Source: Send + Sync + 'static {
    /// Name in the config, in metrics and in the `source` column of events: `nvml`, `miner`.
    fn name(&self) -> &'static str;

    /// The table of each tier, the one that is read most often first; coverage expects one row of it per device and tick.
    fn tiers(&self) -> &'static [&'static Table];

    /// How often a device is read for a tier. May change; it is asked at every tick.
    fn period(&self, table: &'static Table) -> Duration;

    /// A read that takes longer gives a stale row for every tick that is due meanwhile. May change, as the period may.
    fn deadline(&self, table: &'static Table) -> Duration;

    /// A device whose read has not come back so long after it was due is called stalled, in an event and in `/healthz`.
    /// `None`: reads of this source always come back. May change.
    fn hard_deadline(&self) -> Option<Duration> {
        None
    }

    /// The call that a device, or with `None` discovery, has not come back from, where the source knows.
    fn call_in_progress(&self, _address: Option<&str>) -> Option<Call> {
        None
    }

    /// How a device is read after an event; `None`: as always. May change.
    fn burst(&self) -> Option<BurstSettings> {
        None
    }

    /// Comes back when there may be other devices than were discovered; never, where the source does not know.
    fn relisted(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Why nothing is to be read for now, as a reason in `coverage`; devices are then neither asked nor lost.
    fn pause(&self) -> Option<&'static str> {
        None
    }

    /// Whether the config lists the devices: one that is no longer listed is then not wanted any more. Otherwise it is
    /// lost.
    fn is_listed_by_config(&self) -> bool {
        false
    }

    /// The devices that are there now. Called at start and then once a minute; where it fails, those of before stay.
    fn discover(&self) -> BoxFuture<'_, Result<Vec<Found>, SourceError>>;

    /// Reads the device at that address once for a tier. It always gives a row: what failed is in its masks.
    fn read<'a>(&'a self, address: &'a str, table: &'static Table) -> BoxFuture<'a, Reading>;
}

/// How a source wants to be read after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BurstSettings {
    /// How often.
    pub period: Duration,
    /// For how long after the last event; zero is not at all.
    pub length: Duration,
}

/// A call into a driver that has begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Name of the function.
    pub name: String,
    /// When it began, µs UTC.
    pub since: i64,
}

/// A device that a source has found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it is: PCI address `0000:9b:00.0`, or `ip:port`. Stays the same while the device stays in its place.
    pub address: String,
    /// Rack label of the device, where the config gives one of its own.
    pub rack: Option<String>,
    /// Who it is, where that could be read now.
    pub identity: Option<Identity>,
}

/// Who a device says it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The id that serial, UUID or MAC give; `None` where all are absent or placeholders.
    pub device_id: Option<String>,
    /// A row of `device` with the value columns filled in; the caller adds ts, ids, site, rack and session.
    pub row: Row,
}

/// What one read gave.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Reading {
    /// The row of the tier's table first, then rows of others (hash boards). Value columns, masks and status are
    /// set by the source; ts, ids, site, rack, session and read_us by the sampler.
    pub rows: Vec<Row>,
    /// Identity, where this read brought it.
    pub identity: Option<Identity>,
    /// Lifetime counters and uptimes, always in the same order; one below its last value begins a new session.
    pub lifetime: Vec<Option<i64>>,
    /// What happened; the sampler adds device and session.
    pub events: Vec<EventDraft>,
    /// When it ended, µs UTC, where the source knows better than whoever asked.
    pub ended_at: Option<i64>,
    /// How long it took, in µs, likewise.
    pub read_us: Option<i32>,
}

/// An event on its way; the receiver adds event_id, stream and site.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDraft {
    /// What happened, a name that docs/events.md lists.
    pub event: &'static str,
    /// `nvml`, `miner`, `kmsg` or `collector`.
    pub source: &'static str,
    /// `info`, `warning`, `error` or `critical`.
    pub severity: &'static str,
    /// When, µs UTC; 0 means now.
    pub ts: i64,
    /// Address of the device that it is about, as in [`Found`]; `None` for the node.
    pub address: Option<String>,
    /// The source's own code: an XID, an nvmlReturn_t, a miner's error code.
    pub code: Option<i64>,
    /// `start` or `end` of an episode.
    pub phase: Option<&'static str>,
    /// Joins the rows of an episode.
    pub episode_id: Option<String>,
    /// PCI address, where one is known.
    pub pci_bus_id: Option<String>,
    /// One sentence for a human.
    pub message: String,
    /// What else is known, a JSON object.
    pub details_json: Option<String>,
}

impl EventDraft {
    /// An event with the parts that every event has.
    pub fn new(
        event: &'static str,
        source: &'static str,
        severity: &'static str,
        message: impl Into<String>,
    ) -> EventDraft {
        EventDraft {
            event,
            source,
            severity,
            ts: 0,
            address: None,
            code: None,
            phase: None,
            episode_id: None,
            pci_bus_id: None,
            message: message.into(),
            details_json: None,
        }
    }

    /// The same event about the device at that address.
    #[must_use]
    pub fn about(mut self, address: &str) -> EventDraft {
        self.address = Some(address.to_owned());
        self
    }

    /// The same event with the source's code.
    #[must_use]
    pub fn with_code(mut self, code: i64) -> EventDraft {
        self.code = Some(code);
        self
    }
}

/// Where sources put events that belong to no read (an XID from NVML's event set). Bounded; what does not fit is counted
/// by whoever sends.
pub type EventSink = mpsc::Sender<EventDraft>;

/// Why a source cannot be used now; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What is wrong, where, and what to do about it.
    pub message: String,
    /// The source's own code, if it gave one.
    pub code: Option<i64>,
    /// Whether the devices are out of reach of everybody, so that their counters may begin anew meanwhile.
    pub devices_absent: bool,
}
