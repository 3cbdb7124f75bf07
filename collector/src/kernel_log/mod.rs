//! The kernel log: what NVIDIA's driver says there about GPUs and NVSwitches, as rows of `event`.
//!
//! It works while NVML hangs, since reading it does not touch the driver, and it tells what NVML does not: a GPU that fell
//! off the bus, the process that did it, registers. One row per line, sent at once. Where a start begins is in `position`;
//! records that the kernel overwrote before they were read are counted and told.

mod catalogue;
mod decode;
mod line;
mod merger;
mod position;
mod reader;
mod record;
mod rows;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::clock::{Clock, SECOND};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::device_registry::Devices;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::outlet::Outlet;
use crate::source::EventDraft;
use line::{Kind, Parser};
use merger::Merger;
use position::SOURCE;
use reader::{Got, Reader};
use record::Record;

pub use decode::decode;

pub(crate) use catalogue::severity;
pub(crate) use position::Position;
pub(crate) use rows::explained;

/// Part of the collector that `/healthz` names while the log cannot be read.
const PART: &str = "kernel_log";
/// At the very first start GPUs are not known yet; lines about them wait so long.
const DEVICES_PATIENCE: Duration = Duration::from_secs(5);
/// Pauses before the log is opened again: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Reads after which other tasks have their turn.
const READS_MAX: usize = 64;

/// The one who reads the log and tells what is in it.
#[derive(Debug)]
pub(crate) struct KernelLog {
    path: PathBuf,
    boot_id: String,
    shared: Shared,
    parser: Parser,
    /// Sequence number of the last line read in this boot.
    last: Option<i64>,
    /// When all that was there had been read last; what comes now was logged later.
    caught_up: Option<Instant>,
    overrun: bool,
    /// The episode of a log that cannot be read.
    failure: Option<String>,
}

/// What the reader shares with the rest of the collector.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) merger: Arc<Merger>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Shared {
    /// What both share, with a merger of its own.
    pub(crate) fn new(
        outlet: &Arc<Outlet>,
        devices: &Arc<Devices>,
        health: &Arc<Health>,
        metrics: &Arc<Metrics>,
    ) -> Shared {
        let (outlet, devices, metrics) = (Arc::clone(outlet), Arc::clone(devices), Arc::clone(metrics));
        let merger = Arc::new(Merger::new(Arc::clone(&outlet), Arc::clone(&devices), Arc::clone(&metrics)));
        Shared { outlet, merger, devices, health: Arc::clone(health), metrics }
    }
}

impl KernelLog {
    /// A reader that goes on after the last line that an earlier start told of this boot.
    pub(crate) fn new(path: &Path, boot_id: &str, shared: Shared) -> KernelLog {
        let position = shared.outlet.kernel_log_position().filter(|position| position.boot_id == boot_id);
        KernelLog {
            path: path.to_owned(),
            boot_id: boot_id.to_owned(),
            shared,
            parser: Parser::default(),
            last: position.map(|position| position.seq),
            caught_up: None,
            overrun: false,
            failure: None,
        }
    }

    /// Reads until `stop`, and then what is there.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut back_off = BACK_OFF.0;
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.wait_for_devices() => {}
        }
        loop {
            let error = match Reader::open(&self.path) {
                Ok(mut reader) => match self.follow(&mut reader, &stop, &mut back_off).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.shared.merger.lines_wait(false);
            self.fails(&reader::remedy(&self.path, &error), error.raw_os_error());
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(back_off) => {}
            }
            back_off = (back_off * 2).min(BACK_OFF.1);
        }
    }

    async fn wait_for_devices(&self) {
        let period = Duration::from_millis(100);
        for _ in 0..DEVICES_PATIENCE.as_millis() / period.as_millis() {
            if self.shared.devices.has_gpus() {
                return;
            }
            sleep(period).await;
        }
    }

    /// Reads an open log until `stop`.
    async fn follow(
        &mut self,
        reader: &mut Reader,
        stop: &CancellationToken,
        back_off: &mut Duration,
    ) -> std::io::Result<()> {
        for reads in 1.. {
            let got = reader.read()?;
            self.works();
            *back_off = BACK_OFF.0;
            match got {
                Got::Lines(lines) => {
                    self.shared.merger.lines_wait(true);
                    lines.iter().for_each(|line| self.take(line));
                }
                Got::Overrun => self.overrun = true,
                Got::Nothing => {
                    self.caught_up = Some(Instant::now());
                    self.shared.merger.lines_wait(false);
                    if stop.is_cancelled() {
                        break;
                    }
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = reader.more() => {}
                    }
                }
            }
            if reads % READS_MAX == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Takes a line of the log's own format; lines that are no record are properties of the one before.
    fn take(&mut self, line: &str) {
        let Some(record) = record::parse(line) else { return };
        if self.last.is_some_and(|last| record.seq <= last) {
            return;
        }
        self.tell_gap(record.seq);
        let at = Position { boot_id: self.boot_id.clone(), seq: record.seq };
        for line in record.text.lines() {
            self.tell(line, &record, &at);
        }
        self.last = Some(record.seq);
        self.shared.outlet.kernel_log_read(at);
    }

    fn tell(&mut self, line: &str, record: &Record, at: &Position) {
        let Some(event) = self.parser.parse(line) else { return };
        let (now, age) = (Clock::now_us(), self.age(record));
        let ts = now - age.as_micros() as i64;
        if event.kind == Kind::DriverLoaded {
            self.shared.devices.driver_loaded(ts);
        }
        self.shared.merger.line(rows::draft(&event, at, ts), age);
    }

    /// How long ago a record was logged. The kernel's clock for that runs a little off the others, which matters where it
    /// has run for weeks; but a record is no older than the last look that did not find it.
    fn age(&self, record: &Record) -> Duration {
        let uptime = uptime_us().unwrap_or(record.since_boot_us);
        let reckoned = Duration::from_micros(u64::try_from(uptime - record.since_boot_us).unwrap_or(0));
        self.caught_up.map_or(reckoned, |at| reckoned.min(at.elapsed()))
    }

    /// Tells lines that were overwritten before the line `seq` could be read.
    fn tell_gap(&mut self, seq: i64) {
        let overrun = std::mem::take(&mut self.overrun);
        let first = match self.last {
            Some(last) if seq > last + 1 => Some(last + 1),
            // How much was overwritten before the first line is not known.
            None if overrun => None,
            _ => return,
        };
        let lines = first.map(|first| seq - first);
        self.shared.metrics.kernel_log_lines_lost.inc_by(lines.unwrap_or(0) as u64);
        let many = lines.map_or_else(|| "lines".to_owned(), |lines| format!("{lines} lines"));
        let message = format!("{many} of the kernel log were overwritten before they were read");
        let details = json!({"boot_id": self.boot_id, "seq": seq - 1, "seq_first": first, "lines": lines});
        let draft = EventDraft::new("kernel_log_gap", SOURCE, "warning", message);
        self.shared.outlet.event(EventDraft { details_json: Some(details.to_string()), ..draft }, None);
    }

    fn fails(&mut self, message: &str, code: Option<i32>) {
        self.shared.health.note(PART, message);
        if self.failure.is_some() {
            return;
        }
        let episode = self.shared.outlet.episode();
        self.failure = Some(episode.clone());
        let draft = EventDraft::new("kernel_log_failed", SOURCE, "warning", message);
        let code = code.map(i64::from);
        self.shared.outlet.event(EventDraft { code, phase: Some("start"), episode_id: Some(episode), ..draft }, None);
    }

    fn works(&mut self) {
        let Some(episode) = self.failure.take() else { return };
        self.shared.health.unnote(PART);
        let message = format!("{} is read again", self.path.display());
        let draft = EventDraft::new("kernel_log_recovered", SOURCE, "info", message);
        self.shared.outlet.event(EventDraft { phase: Some("end"), episode_id: Some(episode), ..draft }, None);
    }
}

/// Whether the log can be read now; if not, why, and what to do about it.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    reader::open(path).map(drop).map_err(|error| reader::remedy(path, &error))
}

/// Microseconds since boot, as the kernel counts them; to 10 ms.
fn uptime_us() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some((seconds * SECOND as f64) as i64)
}

#[cfg(test)]
mod tests;
