//! The demo's devices: a simulated NVML library per node, and miners on loopback.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use racklake_miner_sim::{MinerSim, Profile, Unit};

use crate::demo::Node;

/// Scenario of a node; the second one's GPU 5 cools worse from minute to minute.
const HEALTHY: &str = "[[gpu]]\ncount = 8\n";
const ONE_SLOW_COOLING_FAULT: &str =
    "[[gpu]]\ncount = 5\n[[gpu]]\nthermal_resistance_drift_per_hour = 3.0\n[[gpu]]\ncount = 2\n";

/// Running simulators; the miners stop when this is dropped.
pub(crate) struct Simulators {
    libraries: Vec<PathBuf>,
    miners: MinerSim,
}

impl Simulators {
    /// Installs a copy of the library per node into `folder` and starts the miners.
    pub(crate) fn start(folder: &Path) -> Result<Simulators> {
        let library = racklake_nvml_sim::library_path()
            .context("the simulated NVML library is not beside this program; run it with `cargo run --bin racklake`")?;
        let install = |(i, text): (usize, &str)| {
            let scenario = racklake_nvml_sim::Scenario::parse(text)?;
            let path = racklake_nvml_sim::install(&library, folder, &format!("gpu-node-{}", i + 1), &scenario)?;
            anyhow::Ok(path)
        };
        let libraries =
            [HEALTHY, ONE_SLOW_COOLING_FAULT].into_iter().enumerate().map(install).collect::<Result<_>>()?;
        let profile = |i: usize| if i.is_multiple_of(2) { Profile::Avalon1246 } else { Profile::AvalonQ };
        let units = (0..4).map(|i| Unit::new(&format!("miner-{}", i + 1), profile(i))).collect();
        let miners = MinerSim::start(units, &folder.join("miners.jsonl"))?;
        Ok(Simulators { libraries, miners })
    }

    /// The nodes and their sources; the first one is also the gateway of the miners.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = Vec::new();
        for (i, library) in self.libraries.iter().enumerate() {
            let mut sources = format!(
                "[kernel_log]\nenabled = false\n[hwmon]\nenabled = false\n[amd]\nenabled = false\n[nvml]\nlibrary = {:?}\n",
                library.display().to_string()
            );
            if i == 0 {
                sources.push_str("[miners]\nperiod = \"5s\"\n");
                for address in self.miners.addresses() {
                    let (ip, port) = (address.ip().to_string(), address.port());
                    sources.push_str(&format!("[[miner]]\naddress = {ip:?}\nport = {port}\nmake = \"avalon\"\n"));
                }
            }
            nodes.push(Node { name: format!("gpu-node-{}", i + 1), sources });
        }
        nodes
    }
}
