//! What happens to the GPUs by itself: XIDs and other events, told by NVML, and as lines of the kernel log by it too.
//!
//! There is no thread behind it: what is due happens with the next call, whichever that is.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::kernel_log::KernelLog;
use crate::scenario::{Burst, GpuScenario, KernelLine, Xid};
use crate::unit::Unit;

/// An XID, as a bit of `nvmlEventType`.
const XID: u64 = 8;
/// What has to be done about the GPU has changed.
const RECOVERY_ACTION: u64 = 0x8000;
/// A storm of correctable errors has begun.
const STORM: u64 = 0x200;
/// A library that goes on where one before it was does not tell what is older than this, seconds.
const MISSED: f64 = 1.0;

/// An event that has been listed and not been delivered.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) unit: usize,
    pub(crate) event_type: u64,
    pub(crate) data: u64,
    pub(crate) at: f64,
    pub(crate) gpu_instance: Option<u32>,
}

/// A line of the kernel log that has not been written.
#[derive(Debug)]
struct Line {
    at: f64,
    text: String,
}

/// What a scenario lists.
#[derive(Debug, Clone, PartialEq)]
enum Listed {
    Xid(usize, Xid),
    Burst(usize, Burst),
    Storm(usize, f64),
    RecoveryAction(usize, u32),
    Line(KernelLine),
}

/// What has been listed, and what of it nobody has been told yet.
#[derive(Debug, Default)]
pub(crate) struct Happenings {
    seen: Vec<Listed>,
    pending: VecDeque<Pending>,
    lines: VecDeque<Line>,
    log: KernelLog,
}

impl Happenings {
    /// Takes over what the GPUs' scenarios list; what is newly listed will happen once.
    pub(crate) fn follow(&mut self, units: &[Unit], log: Option<PathBuf>, lines: &[KernelLine], now: f64) {
        self.log.open(log);
        let of_units = units.iter().enumerate().flat_map(|(i, unit)| listed_by(i, &unit.gpu));
        let listed: Vec<Listed> = of_units.chain(lines.iter().cloned().map(Listed::Line)).collect();
        let mut old = std::mem::take(&mut self.seen);
        for new in &listed {
            match old.iter().position(|seen| seen == new) {
                Some(seen) => drop(old.swap_remove(seen)),
                None => self.plan(new, units, now),
            }
        }
        self.seen = listed;
        self.pending.make_contiguous().sort_by(|a, b| a.at.total_cmp(&b.at));
        self.lines.make_contiguous().sort_by(|a, b| a.at.total_cmp(&b.at));
    }

    /// Forgets what happened long before this library was there to tell it.
    pub(crate) fn forget_before(&mut self, now: f64) {
        self.pending.retain(|event| event.at >= now - MISSED);
        self.lines.retain(|line| line.at >= now - MISSED);
    }

    fn plan(&mut self, listed: &Listed, units: &[Unit], now: f64) {
        match listed {
            Listed::Storm(unit, at) => self.tell(*unit, STORM, 0, *at, None),
            Listed::RecoveryAction(unit, action) => self.tell(*unit, RECOVERY_ACTION, u64::from(*action), now, None),
            Listed::Line(line) => self.lines.push_back(Line { at: line.at, text: line.text.clone() }),
            Listed::Xid(unit, xid) => {
                let at = xid.at.unwrap_or(now);
                self.tell(*unit, xid.event_type, xid.code, at, None);
                if xid.event_type == XID && self.log.is_open() {
                    let burst =
                        Burst { code: xid.code, at, text: "told by the simulator".to_owned(), ..Burst::default() };
                    self.log_lines(&burst, &units[*unit]);
                }
            }
            Listed::Burst(unit, burst) => {
                if burst.nvml {
                    for number in 0..burst.count {
                        self.tell(*unit, XID, burst.code, burst.at_of(number), burst.gpu_instance);
                    }
                }
                if burst.kmsg && self.log.is_open() {
                    self.log_lines(burst, &units[*unit]);
                }
            }
        }
    }

    fn tell(&mut self, unit: usize, event_type: u64, data: u64, at: f64, gpu_instance: Option<u32>) {
        self.pending.push_back(Pending { unit, event_type, data, at, gpu_instance });
    }

    fn log_lines(&mut self, burst: &Burst, unit: &Unit) {
        let (domain, bus, device) = unit.pci;
        let instance = burst.gpu_instance.map(|instance| format!(" GPU-I:{instance:02}")).unwrap_or_default();
        for number in 0..burst.count {
            let (code, pid, text) = (burst.code, burst.pid.wrapping_add(number), &burst.text);
            let place = format!("PCI:{domain:04x}:{bus:02x}:{device:02x}{instance}");
            let text = format!("NVRM: Xid ({place}): {code}, pid={pid}, name=python3, {text}");
            self.lines.push_back(Line { at: burst.at_of(number), text });
        }
    }

    /// Whether lines of the kernel log are to be written, now or later.
    pub(crate) fn has_lines(&self) -> bool {
        !self.lines.is_empty() || self.log.is_waiting()
    }

    /// Writes the lines of the kernel log that have come by `now`. `since_boot` is of the machine, seconds.
    pub(crate) fn log(&mut self, now: f64, since_boot: f64) {
        while self.lines.front().is_some_and(|line| line.at <= now) {
            if let Some(line) = self.lines.pop_front() {
                self.log.push(line.text);
            }
        }
        self.log.write(since_boot);
    }

    /// Takes the next event that has happened and that a set has asked for: GPUs with the types.
    pub(crate) fn take(&mut self, registered: &[(usize, u64)], now: f64) -> Option<Pending> {
        let wanted = |event: &Pending| {
            event.at <= now
                && registered.iter().any(|(unit, types)| *unit == event.unit && types & event.event_type != 0)
        };
        let next = self.pending.iter().position(wanted)?;
        self.pending.remove(next)
    }
}

fn listed_by(unit: usize, gpu: &GpuScenario) -> Vec<Listed> {
    let xids = gpu.xid.iter().map(|xid| Listed::Xid(unit, xid.clone()));
    let bursts = gpu.burst.iter().map(|burst| Listed::Burst(unit, burst.clone()));
    let storm = gpu.storm.as_ref().map(|storm| Listed::Storm(unit, storm.at));
    let action = Some(gpu.recovery_action).filter(|action| *action != 0);
    let action = action.map(|action| Listed::RecoveryAction(unit, action));
    xids.chain(bursts).chain(storm).chain(action).collect()
}

impl Burst {
    /// Second that the XID of that number happens at.
    fn at_of(&self, number: u32) -> f64 {
        self.at + f64::from(number) * self.spacing_ms / 1000.0
    }
}
