//! What the simulated GPUs are and do: the scenario, a TOML file beside the library.
//!
//! Every key has a default, so an empty file is eight healthy GPUs in training.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The content of a scenario file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Version of the driver.
    pub driver_version: String,
    /// Version of the NVML library.
    pub nvml_version: String,
    /// CUDA version that the driver supports, 1000 × major + 10 × minor.
    pub cuda_driver_version: i32,
    /// Identities and noise follow from it.
    pub seed: u32,
    /// File that every answer is written to, relative to the library's folder; none is no account.
    pub account: Option<String>,
    /// Whether the driver is not loaded: every call returns 9.
    pub no_driver: bool,
    /// Whether NVML may not talk to the driver: the init calls return 4.
    pub no_permission: bool,
    /// The GPUs, in the order of their indexes.
    pub gpu: Vec<GpuScenario>,
}

/// One GPU, or `count` equal ones. Calls are named as in nvml.h; field values are `field:<id>`, for every scope, or
/// `field:<id>:<scope>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GpuScenario {
    /// How many.
    pub count: u32,
    /// Model.
    pub name: String,
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
    /// Power under full load, and the enforced limit.
    pub power_max_watts: f64,
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
    /// Whether it has a fan.
    pub fan: Fan,
    /// Calls that return 3, not supported.
    pub unsupported: Vec<String>,
    /// Calls that return a code.
    pub fail: BTreeMap<String, u32>,
    /// Whether it has fallen off the bus: every call returns 15.
    pub lost: bool,
    /// Calls that do not come back while they are listed, or for `hang_ms`.
    pub hang: Vec<String>,
    /// How long a hanging call lasts; none is as long as it is listed.
    pub hang_ms: Option<u64>,
    /// How long every call takes.
    pub latency_ms: u64,
    /// Calls whose value is rubbish: all bits set, or text that is no UTF-8.
    pub garbage: Vec<String>,
    /// Value types (`nvmlValueType_t`) that fields are given in, where not the usual one.
    pub value_types: BTreeMap<String, u32>,
    /// How often the energy counter has been reset; a higher number resets it.
    pub energy_resets: u32,
    /// Events; one that is newly listed happens once.
    pub xid: Vec<Xid>,
}

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

/// How a GPU is cooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fan {
    /// By the chassis: asking for the fan's speed is not supported.
    None,
    /// By one fan of its own, which follows the temperature.
    Auto,
}

/// Why a text is no scenario.
#[derive(Debug)]
pub struct ScenarioError(String);

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScenarioError {}

impl Scenario {
    /// Reads the text of a scenario file.
    ///
    /// # Errors
    /// When it is no TOML, has an unknown key, or contradicts itself.
    pub fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = toml::from_str(text).map_err(|e| ScenarioError(format!("scenario: {e}")))?;
        scenario.validate()?;
        Ok(scenario)
    }

    /// The text of a scenario file.
    ///
    /// # Errors
    /// When a number does not fit into TOML.
    pub fn to_toml(&self) -> Result<String, ScenarioError> {
        toml::to_string(self).map_err(|e| ScenarioError(format!("scenario: {e}")))
    }

    /// The GPUs one by one.
    pub(crate) fn gpus(&self) -> impl Iterator<Item = &GpuScenario> {
        self.gpu.iter().flat_map(|gpu| std::iter::repeat_n(gpu, gpu.count as usize))
    }

    fn validate(&self) -> Result<(), ScenarioError> {
        let refuse = |text: &str| Err(ScenarioError(format!("scenario: {text}")));
        if self.gpus().count() > 1024 {
            return refuse("gpu: more than 1024 GPUs");
        }
        for gpu in &self.gpu {
            let named = gpu.uuid.is_some() || gpu.serial.is_some() || gpu.pci.is_some();
            if gpu.count != 1 && named {
                return refuse("gpu: uuid, serial and pci are for a GPU of count 1");
            }
            if gpu.pci.as_deref().is_some_and(|pci| parse_pci(pci).is_none()) {
                return refuse("gpu.pci: is no address like 00000000:1B:00.0");
            }
            if gpu.value_types.values().any(|value_type| *value_type > 6) {
                return refuse("gpu.value_types: a type is 0 to 6");
            }
        }
        Ok(())
    }
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            driver_version: "570.124.06".to_owned(),
            nvml_version: "12.570.124.06".to_owned(),
            cuda_driver_version: 12_080,
            seed: 1,
            account: None,
            no_driver: false,
            no_permission: false,
            gpu: vec![GpuScenario { count: 8, ..GpuScenario::default() }],
        }
    }
}

impl Default for GpuScenario {
    fn default() -> GpuScenario {
        GpuScenario {
            count: 1,
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            uuid: None,
            serial: None,
            pci: None,
            workload: Workload::Training,
            power_idle_watts: 72.0,
            power_max_watts: 700.0,
            thermal_resistance: 0.065,
            thermal_resistance_drift_per_hour: 0.0,
            ambient_celsius: 28.0,
            slowdown_celsius: 87.0,
            memory_total_bytes: 85_520_809_984,
            fan: Fan::Auto,
            unsupported: Vec::new(),
            fail: BTreeMap::new(),
            lost: false,
            hang: Vec::new(),
            hang_ms: None,
            latency_ms: 0,
            garbage: Vec::new(),
            value_types: BTreeMap::new(),
            energy_resets: 0,
            xid: Vec::new(),
        }
    }
}

fn xid_critical() -> u64 {
    8
}

/// Whether a list of a scenario names a call; `field:82` names `field:82:0` too.
pub(crate) fn names(entry: &str, call: &str) -> bool {
    call.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// Domain, bus and device of a PCI address, with or without its function.
pub(crate) fn parse_pci(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(':');
    let hex = |part: Option<&str>| u32::from_str_radix(part?, 16).ok();
    let (domain, bus) = (hex(parts.next())?, hex(parts.next())?);
    let device = parts.next()?.split('.').next();
    let device = hex(device)?;
    parts.next().is_none().then_some((domain, bus, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_survives_its_file() {
        let mut scenario = Scenario { account: Some("a.jsonl".to_owned()), ..Scenario::default() };
        scenario.gpu[0].fail.insert("nvmlDeviceGetPowerUsage".to_owned(), 999);
        scenario
            .gpu
            .push(GpuScenario { xid: vec![Xid { code: 79, at: None, event_type: 8 }], ..GpuScenario::default() });
        assert_eq!(Scenario::parse(&scenario.to_toml().unwrap()).unwrap(), scenario);
        assert_eq!(Scenario::parse("").unwrap(), Scenario::default());
    }

    #[test]
    fn mistakes_are_refused() {
        for text in [
            "wrokload = 1",
            "[[gpu]]\nworkload = \"mining\"",
            "[[gpu]]\ncount = 2\nuuid = \"a\"",
            "[[gpu]]\npci = \"9b\"",
        ] {
            assert!(Scenario::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_field_is_named_with_and_without_its_scope() {
        assert!(names("field:82", "field:82:0") && names("field:82:0", "field:82:0"));
        assert!(!names("field:8", "field:82:0") && !names("field:82:1", "field:82:0"));
    }
}
