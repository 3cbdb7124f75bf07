//! The parts of a GPU's scenario: what it computes, what cools it, what happens to it and how it is divided.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counters::Counter;

/// One event of a GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xid {
    /// The XID, or whatever the event's data is.
    pub code: u64,
    /// Seconds after the library was loaded; none is at once.
    #[serde(default)]
    pub at: Option<f64>,
    /// Type of the event, a bit of `nvmlEventType`; 8 is a critical XID.
    #[serde(default = "xid_critical")]
    pub event_type: u64,
}

fn xid_critical() -> u64 {
    8
}

/// Many XIDs, one after the other: each an NVML event, and a line of the kernel log where the scenario names one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Burst {
    /// The XID.
    pub code: u64,
    /// How many.
    pub count: u32,
    /// Seconds after the library was loaded that the first one happens at.
    pub at: f64,
    /// Milliseconds from one to the next; 0 is all at once.
    pub spacing_ms: f64,
    /// Whether NVML tells them.
    pub nvml: bool,
    /// Whether the kernel log tells them.
    pub kmsg: bool,
    /// Process of the first one; each next one has the next number, so that no two lines are alike.
    pub pid: u32,
    /// What the line says after the process.
    pub text: String,
    /// MIG instance that they are about.
    pub gpu_instance: Option<u32>,
}

impl Default for Burst {
    fn default() -> Burst {
        Burst {
            code: 13,
            count: 1,
            at: 0.0,
            spacing_ms: 0.0,
            nvml: true,
            kmsg: true,
            pid: 1000,
            text: "Graphics Exception: ESR 0x504730=0x1000e".to_owned(),
            gpu_instance: None,
        }
    }
}

/// A line of the kernel log that no XID stands behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelLine {
    /// Seconds after the library was loaded.
    #[serde(default)]
    pub at: f64,
    /// What it says: `NVRM: GPU 0000:43:00.0: GPU has fallen off the bus.`
    pub text: String,
}

/// A storm of correctable errors: counters climb and calls slow down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storm {
    /// Seconds after the library was loaded that it begins at; NVML tells it then as an event of type 0x200.
    pub at: f64,
    /// How long it lasts; none is for ever.
    pub seconds: Option<f64>,
    /// Correctable errors of the memory per second.
    pub corrected_per_second: f64,
    /// How long a call takes when the storm has risen.
    pub latency_ms: u64,
    /// How long it takes to rise.
    pub rise_seconds: f64,
    /// Calls that slow down; empty is all of them. Fields of one batch are slow once.
    pub calls: Vec<String>,
}

impl Default for Storm {
    fn default() -> Storm {
        Storm {
            at: 0.0,
            seconds: None,
            corrected_per_second: 1000.0,
            latency_ms: 6000,
            rise_seconds: 10.0,
            calls: Vec::new(),
        }
    }
}

/// What is unusual about one NVLink.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// Number of the link.
    pub link: u32,
    /// Whether it is down.
    pub down: bool,
    /// Speed in Mbit/s, where not that of the others.
    pub mbps: Option<u32>,
    /// What has been counted on it already; a number that is changed later adds the difference.
    pub counters: BTreeMap<Counter, f64>,
    /// What is counted per hour.
    pub per_hour: BTreeMap<Counter, f64>,
}

/// A part of a GPU that is divided by MIG.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mig {
    /// GPU instance.
    pub gpu_instance: u32,
    /// Compute instance in it.
    pub compute_instance: u32,
    /// Slices of seven.
    pub slices: u32,
    /// Its memory.
    pub memory_mb: u64,
    /// UUID; by default it follows from that of the GPU.
    pub uuid: Option<String>,
}

impl Default for Mig {
    fn default() -> Mig {
        Mig { gpu_instance: 1, compute_instance: 0, slices: 1, memory_mb: 9728, uuid: None }
    }
}

impl Mig {
    /// Tells it from the other instances of its GPU, whichever of them there are.
    pub(crate) fn number(&self) -> usize {
        (self.gpu_instance as usize) << 8 | self.compute_instance as usize
    }
}

/// Where a GPU sits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Platform {
    /// Serial number of the chassis; at most 15 letters.
    pub chassis_serial: String,
    /// Slot of the chassis.
    pub slot: u8,
    /// Tray in the slot.
    pub tray: u8,
    /// Host on the tray.
    pub host: u8,
    /// 0: linked directly, 1: through a switch.
    pub peer_type: u8,
    /// Module on the host.
    pub module: u8,
    /// GUID on the fabric.
    pub ib_guid: [u8; 16],
}

impl Default for Platform {
    fn default() -> Platform {
        Platform {
            chassis_serial: "1820224000123".to_owned(),
            slot: 7,
            tray: 3,
            host: 1,
            peer_type: 1,
            module: 2,
            ib_guid: [0xb8, 0x3f, 0xd2, 3, 0, 7, 0x15, 0x22, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

/// How a GPU stands with the NVLink fabric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fabric {
    /// 0 not supported, 1 not started, 2 in progress, 3 completed.
    pub state: u8,
    /// Return code of the registration.
    pub status: u32,
    /// Clique.
    pub clique: u32,
    /// Cluster.
    pub cluster_uuid: [u8; 16],
    /// Bits of `NVML_GPU_FABRIC_HEALTH_MASK`; the default says that nothing is wrong.
    pub health_mask: u32,
    /// 1 healthy, 2 unhealthy, 3 limited capacity.
    pub health_summary: u8,
}

impl Default for Fabric {
    fn default() -> Fabric {
        Fabric {
            state: 3,
            status: 0,
            clique: 32766,
            cluster_uuid: [
                0x5c, 0x1d, 0x0e, 0x77, 0x3a, 0x4b, 0x4c, 0x99, 0x8e, 0x11, 0x20, 0xaf, 0x31, 0x42, 0x53, 0x64,
            ],
            health_mask: 0x1aa,
            health_summary: 1,
        }
    }
}

/// What a GPU computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Nothing.
    Idle,
    /// The same load all the time.
    Steady,
    /// Steps of a few seconds, and a checkpoint every minute.
    Training,
}

/// What kind of GPU it is, as far as that decides what NVML can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Counts errors by place, retires pages; no profiling metrics.
    Volta,
    /// One number for errors of caches and registers, remaps rows.
    Ampere,
    /// Has profiling metrics.
    Hopper,
    /// Remaps banks too, and smooths its power.
    Blackwell,
}

/// How a GPU is cooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fan {
    /// By the chassis: asking for the fan's speed is not supported.
    None,
    /// By a fan of its own, which follows the temperature.
    Auto,
    /// By a fan that stands still: it is told to turn and does not, and heat stays.
    Lost,
}
