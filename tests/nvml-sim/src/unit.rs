//! One simulated GPU: who it is and what state it is in.

use std::path::Path;

use crate::model::{Model, mix};
use crate::scenario::{GpuScenario, Scenario, names, parse_pci};

/// PCI buses of the GPUs of an eight-GPU board.
const BUSES: [u32; 8] = [0x1b, 0x43, 0x52, 0x61, 0x9d, 0xc3, 0xd1, 0xdf];

/// A GPU.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) gpu: GpuScenario,
    pub(crate) uuid: String,
    pub(crate) serial: String,
    /// Domain, bus and device.
    pub(crate) pci: (u32, u32, u32),
    pub(crate) model: Model,
}

impl Unit {
    /// The GPU of that index, as it is when the library meets it first.
    pub(crate) fn new(gpu: &GpuScenario, seed: u64, index: usize, at: f64, uptime: f64) -> Unit {
        let seed = mix(seed ^ mix(index as u64));
        let mut unit = Unit {
            gpu: gpu.clone(),
            uuid: String::new(),
            serial: String::new(),
            pci: (0, 0, 0),
            model: Model::new(gpu, seed, at, uptime),
        };
        unit.follow(gpu, seed, index);
        unit
    }

    /// Takes over what a new scenario says; the physical state stays.
    pub(crate) fn update(&mut self, gpu: &GpuScenario, seed: u64, index: usize) {
        self.follow(gpu, mix(seed ^ mix(index as u64)), index);
    }

    fn follow(&mut self, gpu: &GpuScenario, seed: u64, index: usize) {
        let (a, b) = (mix(seed ^ 1), mix(seed ^ 2));
        let uuid = || {
            format!(
                "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                a >> 32,
                (a >> 16) & 0xffff,
                a & 0xffff,
                b >> 48,
                b & 0xffff_ffff_ffff
            )
        };
        self.uuid = gpu.uuid.clone().unwrap_or_else(uuid);
        self.serial = gpu.serial.clone().unwrap_or_else(|| format!("165{:010}", mix(seed ^ 3) % 10_000_000_000));
        let place = ((index / BUSES.len()) as u32, BUSES[index % BUSES.len()], 0);
        self.pci = gpu.pci.as_deref().and_then(parse_pci).unwrap_or(place);
        self.gpu = gpu.clone();
    }

    /// The PCI address as NVML writes it.
    pub(crate) fn pci_bus_id(&self) -> String {
        let (domain, bus, device) = self.pci;
        format!("{domain:08X}:{bus:02X}:{device:02X}.0")
    }

    /// The code that a call is answered with instead of a value, if any.
    pub(crate) fn refusal(&self, call: &str) -> Option<u32> {
        if self.gpu.lost {
            return Some(15);
        }
        if let Some((_, code)) = self.gpu.fail.iter().find(|(entry, _)| names(entry, call)) {
            return Some(*code);
        }
        self.gpu.unsupported.iter().any(|entry| names(entry, call)).then_some(3)
    }

    /// Whether a call gives rubbish.
    pub(crate) fn is_garbage(&self, call: &str) -> bool {
        self.gpu.garbage.iter().any(|entry| names(entry, call))
    }

    /// Whether a call does not come back.
    pub(crate) fn hangs(&self, call: &str) -> bool {
        self.gpu.hang.iter().any(|entry| names(entry, call))
    }
}

/// What all identities and all noise of one copy of the library follow from.
pub(crate) fn seed_of(scenario: &Scenario, library: &Path) -> u64 {
    // FNV-1a of the path: two copies of the library are two nodes.
    let hash = library
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    mix(hash ^ u64::from(scenario.seed))
}
