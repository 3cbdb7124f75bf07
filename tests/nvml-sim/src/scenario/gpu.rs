//! What the scenario says of one GPU.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::parts::{Architecture, Burst, Fabric, Fan, Link, Mig, Platform, Storm, Workload, Xid};
use crate::counters::Counter;

/// One GPU, or `count` equal ones. Calls are named as in nvml.h; field values are `field:<id>`, for every scope, or
/// `field:<id>:<scope>`; profiling metrics are `gpm:<id>`; `*` is every call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GpuScenario {
    /// How many.
    pub count: u32,
    /// Model.
    pub name: String,
    /// What kind of GPU it is.
    pub architecture: Architecture,
    /// UUID; by default it follows from seed, index and the library's path.
    pub uuid: Option<String>,
    /// Serial number; by default it follows from seed, index and the library's path.
    pub serial: Option<String>,
    /// PCI address like `00000000:1B:00.0`; by default it follows from the index.
    pub pci: Option<String>,
    /// What it computes.
    pub workload: Workload,
    /// Power without work.
    pub power_idle_watts: f64,
    /// Power under full load, and the highest limit that can be set.
    pub power_max_watts: f64,
    /// The enforced limit, where it is lower: clocks give way to it.
    pub power_limit_watts: Option<f64>,
    /// Whether the power supply asks for less (hardware power brake).
    pub power_brake: bool,
    /// How much warmer than the air it is per watt, in kelvin.
    pub thermal_resistance: f64,
    /// A slow cooling fault: how much the thermal resistance rises per hour since the library was loaded.
    pub thermal_resistance_drift_per_hour: f64,
    /// Temperature of the air.
    pub ambient_celsius: f64,
    /// Temperature above which it slows itself down.
    pub slowdown_celsius: f64,
    /// Installed memory.
    pub memory_total_bytes: u64,
    /// Whether it has a fan, and whether that turns.
    pub fan: Fan,
    /// How many fans, where it has any.
    pub fans: u32,
    /// Calls that return 3, not supported.
    pub unsupported: Vec<String>,
    /// Calls that return a code.
    pub fail: BTreeMap<String, u32>,
    /// Whether it has fallen off the bus: every call returns 15.
    pub lost: bool,
    /// Whether it needs a reset: every call about it returns 16.
    pub reset_required: bool,
    /// Calls that do not come back while they are listed, or for `hang_ms`.
    pub hang: Vec<String>,
    /// How long a hanging call lasts; none is as long as it is listed.
    pub hang_ms: Option<u64>,
    /// How long every call takes; fields of one batch once.
    pub latency_ms: u64,
    /// How long calls take in addition, µs.
    pub call_latency_us: BTreeMap<String, u64>,
    /// Calls whose value is rubbish: all bits set, or text that is no UTF-8.
    pub garbage: Vec<String>,
    /// Value types (`nvmlValueType_t`) that fields are given in, where not the usual one.
    pub value_types: BTreeMap<String, u32>,
    /// How often the energy counter has been reset; a higher number resets it.
    pub energy_resets: u32,
    /// How often the driver was loaded again for this GPU: a higher number resets what it counts since then.
    pub counter_resets: u32,
    /// What has been counted already; a number that is changed later adds the difference.
    pub counters: BTreeMap<Counter, f64>,
    /// What is counted per hour.
    pub per_hour: BTreeMap<Counter, f64>,
    /// A storm of correctable errors.
    pub storm: Option<Storm>,
    /// Whether ECC is on now, and after the next reset.
    pub ecc: [bool; 2],
    /// Whether a remap of a row waits for a reset.
    pub remap_pending: bool,
    /// Whether a row could not be remapped.
    pub remap_failed: bool,
    /// Whether pages wait to be retired.
    pub retire_pending: bool,
    /// Whether a channel and a TPC wait for their repair.
    pub repair_pending: [bool; 2],
    /// Whether caches had more uncorrected errors than they may.
    pub sram_threshold_exceeded: bool,
    /// Whether a remap of a bank waits for a reset.
    pub bank_pending: bool,
    /// Whether the checksum of the InfoROM is wrong: asking for it returns 14.
    pub inforom_corrupted: bool,
    /// How long it has run in its life, seconds.
    pub time_run_seconds: u32,
    /// Whether memory is defect beyond repair.
    pub unrepairable_memory: bool,
    /// What has to be done: 0 nothing, 1 reset, 2 reboot, 3 drain peers, 4 drain and reset.
    pub recovery_action: u32,
    /// Generation and width of the PCIe link now.
    pub pcie: [u32; 2],
    /// Generation and width that the PCIe link can have.
    pub pcie_max: [u32; 2],
    /// How many NVLinks it has.
    pub nvlinks: u32,
    /// Speed of an NVLink in Mbit/s.
    pub nvlink_mbps: u32,
    /// Links that are not like the others.
    pub link: Vec<Link>,
    /// How many C2C links it has; 0 is not supported.
    pub c2c_links: u32,
    /// The instances that MIG has divided it into; none is MIG switched off.
    pub mig: Vec<Mig>,
    /// Whether MIG is on after the next reset, where that is not as now.
    pub mig_pending: Option<bool>,
    /// Processes that compute.
    pub processes: u32,
    /// Whether the driver stays loaded without a client.
    pub persistence: bool,
    /// Where it sits.
    pub platform: Platform,
    /// How it stands with the NVLink fabric.
    pub fabric: Fabric,
    /// Recording of a real GPU (see the crate's documentation), relative to the library's folder.
    pub profile: Option<String>,
    /// Events; one that is newly listed happens once.
    pub xid: Vec<Xid>,
    /// Many events; a burst that is newly listed happens once.
    pub burst: Vec<Burst>,
    /// Changes of these keys, each with the second `at` that it is from.
    pub change: Vec<toml::Table>,
}

impl Default for GpuScenario {
    fn default() -> GpuScenario {
        GpuScenario {
            count: 1,
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            architecture: Architecture::Hopper,
            uuid: None,
            serial: None,
            pci: None,
            workload: Workload::Training,
            power_idle_watts: 72.0,
            power_max_watts: 700.0,
            power_limit_watts: None,
            power_brake: false,
            thermal_resistance: 0.065,
            thermal_resistance_drift_per_hour: 0.0,
            ambient_celsius: 28.0,
            slowdown_celsius: 87.0,
            memory_total_bytes: 85_520_809_984,
            fan: Fan::Auto,
            fans: 1,
            unsupported: Vec::new(),
            fail: BTreeMap::new(),
            lost: false,
            reset_required: false,
            hang: Vec::new(),
            hang_ms: None,
            latency_ms: 0,
            call_latency_us: BTreeMap::new(),
            garbage: Vec::new(),
            value_types: BTreeMap::new(),
            energy_resets: 0,
            counter_resets: 0,
            counters: BTreeMap::new(),
            per_hour: BTreeMap::new(),
            storm: None,
            ecc: [true, true],
            remap_pending: false,
            remap_failed: false,
            retire_pending: false,
            repair_pending: [false, false],
            sram_threshold_exceeded: false,
            bank_pending: false,
            inforom_corrupted: false,
            time_run_seconds: 31_536_000,
            unrepairable_memory: false,
            recovery_action: 0,
            pcie: [5, 16],
            pcie_max: [5, 16],
            nvlinks: 18,
            nvlink_mbps: 26_562,
            link: Vec::new(),
            c2c_links: 0,
            mig: Vec::new(),
            mig_pending: None,
            processes: 1,
            persistence: true,
            platform: Platform::default(),
            fabric: Fabric::default(),
            profile: None,
            xid: Vec::new(),
            burst: Vec::new(),
            change: Vec::new(),
        }
    }
}

impl GpuScenario {
    /// What is unusual about a link.
    pub(crate) fn link(&self, number: u32) -> Option<&Link> {
        self.link.iter().find(|link| link.link == number)
    }

    /// The MIG instance of that number.
    pub(crate) fn instance(&self, number: usize) -> Option<&Mig> {
        self.mig.iter().find(|mig| mig.number() == number)
    }

    /// The limit that is enforced, watts.
    pub(crate) fn power_limit(&self) -> f64 {
        self.power_limit_watts.unwrap_or(self.power_max_watts).min(self.power_max_watts)
    }

    /// How much of a storm there is `now`, from 0 to 1.
    pub(crate) fn storm_share(&self, now: f64) -> f64 {
        let Some(storm) = &self.storm else { return 0.0 };
        let since = now - storm.at;
        if since < 0.0 || storm.seconds.is_some_and(|seconds| since > seconds) {
            return 0.0;
        }
        if storm.rise_seconds > 0.0 { (since / storm.rise_seconds).min(1.0) } else { 1.0 }
    }
}
