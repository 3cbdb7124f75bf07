//! What the simulated GPUs are and do: the scenario, a TOML file beside the library.
//!
//! Every key has a default, so an empty file is eight healthy GPUs in training. Seconds are counted from the moment that
//! the library was loaded, or from `began_us`.

mod change;
mod gpu;
mod parts;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use gpu::GpuScenario;
pub use parts::{Architecture, Burst, Fabric, Fan, KernelLine, Link, Mig, Platform, Storm, Workload, Xid};

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
    /// How often the scenario file is looked at, and four times as often whether an event has happened, in milliseconds.
    /// Looking costs the worker's time, so a bench looks less often.
    pub look_ms: u64,
    /// File that every answer is written to, relative to the library's folder; none is no account.
    pub account: Option<String>,
    /// Whether the driver is not loaded: every call returns 9.
    pub no_driver: bool,
    /// Whether NVML may not talk to the driver: the init calls return 4.
    pub no_permission: bool,
    /// Calls about the system that return a code: `nvmlInit_v2 = 18`.
    pub fail: BTreeMap<String, u32>,
    /// Calls about the system that do not come back while they are listed: `nvmlInit_v2`, `nvmlDeviceGetCount_v2`,
    /// `nvmlEventSetWait_v2`.
    pub hang: Vec<String>,
    /// Wall time, µs UTC, that seconds are counted from: a library that is loaded again then goes on where the one
    /// before it was.
    pub began_us: Option<i64>,
    /// File or FIFO, relative to the library's folder, that XIDs are written to as lines of the kernel log.
    pub kmsg: Option<String>,
    /// Other lines of the kernel log; one that is newly listed happens once.
    pub line: Vec<KernelLine>,
    /// Changes of these keys, each with the second `at` that it is from.
    pub change: Vec<toml::Table>,
    /// The GPUs, in the order of their indexes.
    pub gpu: Vec<GpuScenario>,
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
        self.at(f64::INFINITY)?;
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
            look_ms: 20,
            account: None,
            no_driver: false,
            no_permission: false,
            fail: BTreeMap::new(),
            hang: Vec::new(),
            began_us: None,
            kmsg: None,
            line: Vec::new(),
            change: Vec::new(),
            gpu: vec![GpuScenario { count: 8, ..GpuScenario::default() }],
        }
    }
}

/// Whether a list of a scenario names a call; `field:82` names `field:82:0` too, and `*` names every one.
pub(crate) fn names(entry: &str, call: &str) -> bool {
    entry == "*" || call.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
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
