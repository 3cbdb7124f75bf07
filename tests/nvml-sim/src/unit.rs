//! One simulated GPU: who it is and what state it is in.

use std::path::Path;

use crate::counters::{Counter, Counters};
use crate::model::{Model, mix};
use crate::profile::Profile;
use crate::scenario::{GpuScenario, Scenario, Storm, names, parse_pci};

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
    pub(crate) counters: Counters,
    /// Counters of each link.
    pub(crate) links: Vec<Counters>,
    /// What a real GPU of this model answered.
    profile: Profile,
    counter_resets: u32,
    seed: u64,
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
            counters: Counters::default(),
            links: Vec::new(),
            profile: Profile::default(),
            counter_resets: gpu.counter_resets,
            seed,
        };
        unit.follow(gpu, seed, index);
        unit
    }

    /// Lives on to the second `now`.
    pub(crate) fn advance(&mut self, now: f64) {
        let seconds = (now - self.model.at()).max(0.0);
        if let Some(storm) = &self.gpu.storm {
            let share = self.gpu.storm_share(now);
            self.counters.add(Counter::DramCorrected, storm.corrected_per_second * share * seconds);
        }
        self.counters.advance(&self.gpu.per_hour, seconds);
        for link in &self.gpu.link {
            if let Some(counters) = self.links.get_mut(link.link as usize) {
                counters.advance(&link.per_hour, seconds);
            }
        }
        self.model.advance(&self.gpu, now);
    }

    /// Forgets what a driver forgets when it is loaded again.
    pub(crate) fn reset(&mut self) {
        self.model.reset();
        self.counters.reset();
        self.links.iter_mut().for_each(Counters::reset);
    }

    /// UUID of a MIG instance.
    pub(crate) fn mig_uuid(&self, number: usize) -> String {
        let given = self.gpu.instance(number).and_then(|mig| mig.uuid.clone());
        given.unwrap_or_else(|| {
            format!("MIG-{}", uuid_text(mix(self.seed ^ 4), mix(self.seed ^ 5 ^ ((number as u64) << 8))))
        })
    }

    /// Takes over what a new scenario says; the physical state stays.
    pub(crate) fn update(&mut self, gpu: &GpuScenario, seed: u64, index: usize) {
        self.follow(gpu, mix(seed ^ mix(index as u64)), index);
    }

    fn follow(&mut self, gpu: &GpuScenario, seed: u64, index: usize) {
        let uuid = || format!("GPU-{}", uuid_text(mix(seed ^ 1), mix(seed ^ 2)));
        self.seed = seed;
        self.uuid = gpu.uuid.clone().unwrap_or_else(uuid);
        self.serial = gpu.serial.clone().unwrap_or_else(|| format!("165{:010}", mix(seed ^ 3) % 10_000_000_000));
        let place = ((index / BUSES.len()) as u32, BUSES[index % BUSES.len()], 0);
        self.pci = gpu.pci.as_deref().and_then(parse_pci).unwrap_or(place);
        self.gpu = gpu.clone();
        self.counters.plant(&gpu.counters);
        self.links.resize_with(gpu.nvlinks as usize, Counters::default);
        for (number, counters) in self.links.iter_mut().enumerate() {
            match gpu.link(number as u32) {
                Some(link) => counters.plant(&link.counters),
                None => counters.plant(&Default::default()),
            }
        }
        if gpu.counter_resets > self.counter_resets {
            self.reset();
        }
        self.counter_resets = gpu.counter_resets;
    }

    /// Answers from now on as a recorded GPU does, where the scenario says nothing else.
    pub(crate) fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
    }

    /// The code that a call is answered with instead of a value, if any.
    pub(crate) fn refusal(&self, call: &str) -> Option<u32> {
        if self.gpu.lost {
            return Some(15);
        }
        if self.gpu.reset_required {
            return Some(16);
        }
        if let Some((_, code)) = self.gpu.fail.iter().find(|(entry, _)| names(entry, call)) {
            return Some(*code);
        }
        let lacks = self.gpu.unsupported.iter().any(|entry| names(entry, call));
        if lacks { Some(3) } else { self.profile.refusal(call) }
    }

    /// How long a call takes, µs, at the second that `now` gives.
    pub(crate) fn latency_us(&self, call: &str, now: impl Fn() -> f64) -> u64 {
        let own = self.gpu.call_latency_us.iter().find(|(entry, _)| names(entry, call));
        let own = own.map(|(_, latency)| *latency).or_else(|| self.profile.latency_us(call)).unwrap_or(0);
        if self.gpu.latency_ms == 0 && self.gpu.storm.is_none() {
            return own;
        }
        // What all calls wait for, a batch of fields waits for once.
        let is_part = call.starts_with("field:") || call.starts_with("gpm:");
        let all = if is_part { 0 } else { self.gpu.latency_ms * 1000 };
        let is_slow = |storm: &&Storm| match storm.calls.is_empty() {
            true => !is_part,
            false => storm.calls.iter().any(|entry| names(entry, call)),
        };
        let storm = self.gpu.storm.as_ref().filter(is_slow);
        own + all + storm.map_or(0, |storm| (storm.latency_ms as f64 * 1000.0 * self.gpu.storm_share(now())) as u64)
    }

    /// The type that a field is given in, where it is not the usual one.
    pub(crate) fn value_type(&self, call: &str) -> Option<u32> {
        let given = self.gpu.value_types.iter().find(|(entry, _)| names(entry, call));
        given.map(|(_, value_type)| *value_type).or_else(|| self.profile.value_type(call))
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

/// A UUID of these bits.
fn uuid_text(a: u64, b: u64) -> String {
    let (low, middle) = ((a >> 16) & 0xffff, a & 0xffff);
    format!("{:08x}-{low:04x}-{middle:04x}-{:04x}-{:012x}", a >> 32, b >> 48, b & 0xffff_ffff_ffff)
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
