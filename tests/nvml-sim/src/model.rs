//! How one GPU gets warm: load gives power, power gives temperature, temperature takes clocks away.
//!
//! Everything is a function of the time since the library was loaded, and of noise that follows from the seed. The
//! temperature follows power with a time constant of 24 s.

use std::f64::consts::TAU;

use crate::scenario::{Fan, GpuScenario, Workload};

/// Time constant of the temperature, seconds.
const THERMAL_SECONDS: f64 = 24.0;
/// Power is told as a mean over this many seconds.
const POWER_MEAN_SECONDS: f64 = 1.0;
/// The hottest that a die gets before it would switch itself off.
const TEMPERATURE_MAX: f64 = 120.0;
/// Clocks of an H100, megahertz.
pub(crate) const CLOCK_MAX: f64 = 1980.0;
const CLOCK_IDLE: f64 = 345.0;
pub(crate) const CLOCK_MEMORY: u32 = 2619;
pub(crate) const CLOCK_VIDEO_MAX: f64 = 1545.0;
/// How much warmer it gets per watt when the fan stands still.
const WITHOUT_FAN: f64 = 3.0;

/// The physical state of a GPU.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Own seed, so that equal GPUs are not alike.
    seed: u64,
    draws: u64,
    /// Seconds after loading that the state is of.
    at: f64,
    load: f64,
    /// Share of the clocks that heat leaves.
    slowdown: f64,
    power_watts: f64,
    power_mean_watts: f64,
    celsius: f64,
    energy_millijoules: f64,
    energy_told: u64,
    energy_resets: u32,
    held_by_power_ns: f64,
    held_by_heat_ns: f64,
    held_by_hard_heat_ns: f64,
    held_by_brake_ns: f64,
    idle_ns: f64,
    /// Whether power wants more than its limit, or the power supply less.
    is_capped: bool,
    is_braked: bool,
    /// Seconds of full load, from which traffic follows; begins where no earlier process can have read it.
    load_seconds: f64,
}

impl Model {
    /// A GPU that has been idle until `at`. `uptime` is that of the machine: the energy counter starts where no
    /// earlier process can have read it, so that a restarted reader never sees a value again.
    pub(crate) fn new(gpu: &GpuScenario, seed: u64, at: f64, uptime: f64) -> Model {
        let warmer = gpu.power_idle_watts * gpu.thermal_resistance;
        Model {
            seed,
            draws: 0,
            at,
            load: 0.0,
            slowdown: 1.0,
            power_watts: gpu.power_idle_watts,
            power_mean_watts: gpu.power_idle_watts,
            celsius: gpu.ambient_celsius + warmer,
            energy_millijoules: uptime * 1000.0 * (gpu.power_max_watts * 1.5).max(1.0),
            energy_told: 0,
            energy_resets: gpu.energy_resets,
            held_by_power_ns: 0.0,
            held_by_heat_ns: 0.0,
            held_by_hard_heat_ns: 0.0,
            held_by_brake_ns: 0.0,
            idle_ns: 0.0,
            is_capped: false,
            is_braked: false,
            load_seconds: uptime,
        }
    }

    /// Lives on to `at`.
    pub(crate) fn advance(&mut self, gpu: &GpuScenario, at: f64) {
        if gpu.energy_resets > self.energy_resets {
            (self.energy_millijoules, self.energy_told) = (0.0, 0);
        }
        self.energy_resets = gpu.energy_resets;
        let step = ((at - self.at) / 1000.0).max(0.05);
        while self.at < at {
            let seconds = step.min(at - self.at);
            self.at = if seconds < step { at } else { self.at + seconds };
            self.live(gpu, seconds);
        }
    }

    fn live(&mut self, gpu: &GpuScenario, seconds: f64) {
        let unlike = 1.0 + 0.04 * unit(self.seed);
        let still = if gpu.fan == Fan::Lost { WITHOUT_FAN } else { 1.0 };
        let drift = gpu.thermal_resistance_drift_per_hour * self.at / 3600.0;
        let resistance = (gpu.thermal_resistance * unlike + drift) * still;
        self.load = self.load_at(gpu.workload);
        self.slowdown = (1.0 - (self.celsius - gpu.slowdown_celsius) / 10.0).clamp(0.3, 1.0);
        let range = (gpu.power_max_watts - gpu.power_idle_watts).max(1.0);
        let wanted = gpu.power_idle_watts + range * self.load * self.slowdown;
        let brake = if gpu.power_brake { 0.5 } else { 1.0 };
        let limit = (gpu.power_limit() * brake).max(gpu.power_idle_watts);
        self.power_watts = wanted.min(limit);
        self.is_capped = wanted > gpu.power_limit();
        self.is_braked = gpu.power_brake;
        // Power goes with the clock here, so what the limit takes away the clock loses.
        self.slowdown = self.slowdown.min((limit - gpu.power_idle_watts) / range / self.load.max(0.01)).max(0.1);
        let share = (seconds / POWER_MEAN_SECONDS).min(1.0);
        self.power_mean_watts += (self.power_watts - self.power_mean_watts) * share;
        let target = gpu.ambient_celsius + resistance * self.power_watts;
        self.celsius += (target - self.celsius) * (1.0 - (-seconds / THERMAL_SECONDS).exp());
        self.celsius = self.celsius.min(TEMPERATURE_MAX);
        self.energy_millijoules += self.power_watts * seconds * 1000.0;
        let nanoseconds = seconds * 1e9;
        self.held_by_power_ns += if self.is_held_by_power() { nanoseconds } else { 0.0 };
        self.held_by_heat_ns += if self.is_held_by_heat(gpu) { nanoseconds } else { 0.0 };
        self.held_by_hard_heat_ns += if self.is_held_hard(gpu) { nanoseconds } else { 0.0 };
        self.held_by_brake_ns += if self.is_braked { nanoseconds } else { 0.0 };
        self.load_seconds += self.load * seconds;
        self.idle_ns += if self.load < 0.1 { nanoseconds } else { 0.0 };
    }

    fn load_at(&self, workload: Workload) -> f64 {
        match workload {
            Workload::Idle => 0.0,
            Workload::Steady => 0.85,
            // A checkpoint is written during the last seconds of every minute.
            Workload::Training if self.at % 60.0 > 55.0 => 0.25,
            Workload::Training => 0.9 + 0.08 * (TAU * (self.at / 3.1 + unit(self.seed))).sin(),
        }
    }

    fn is_held_by_power(&self) -> bool {
        self.is_capped || self.load * self.slowdown > 0.95
    }

    fn is_held_by_heat(&self, gpu: &GpuScenario) -> bool {
        self.celsius > gpu.slowdown_celsius
    }

    fn is_held_hard(&self, gpu: &GpuScenario) -> bool {
        self.celsius > gpu.slowdown_celsius + 4.0
    }

    /// Forgets what the driver counts since it was loaded.
    pub(crate) fn reset(&mut self) {
        self.held_by_power_ns = 0.0;
        self.held_by_heat_ns = 0.0;
        self.held_by_hard_heat_ns = 0.0;
        self.held_by_brake_ns = 0.0;
        self.idle_ns = 0.0;
        self.load_seconds = 0.0;
    }

    /// Share of full load.
    pub(crate) fn load(&self) -> f64 {
        self.load
    }

    /// Seconds of full load since the driver was loaded.
    pub(crate) fn load_seconds(&self) -> f64 {
        self.load_seconds
    }

    /// Second that the state is of.
    pub(crate) fn at(&self) -> f64 {
        self.at
    }

    /// The energy counter; higher with every call.
    pub(crate) fn energy(&mut self) -> u64 {
        self.energy_told = (self.energy_millijoules as u64).max(self.energy_told + 1);
        self.energy_told
    }

    /// Mean power, milliwatts, of the same scopes as the power now.
    pub(crate) fn power(&mut self, scope: u32) -> u32 {
        (self.power_mean_watts * share_of(scope) * 1000.0 + 900.0 * self.noise()).max(0.0) as u32
    }

    /// Power now, milliwatts: of the GPU (0), of the module around it (1), of the memory (2).
    pub(crate) fn power_instant(&mut self, scope: u32) -> u32 {
        (self.power_watts * share_of(scope) * 1000.0 + 6000.0 * self.noise()).max(0.0) as u32
    }

    /// Temperature of the die.
    pub(crate) fn celsius(&mut self) -> i32 {
        (self.celsius + 0.4 * self.noise()).round() as i32
    }

    /// Temperature of the memory.
    pub(crate) fn memory_celsius(&mut self) -> i32 {
        (self.celsius + 5.0 + 4.0 * self.load + 0.6 * self.noise()).round() as i32
    }

    /// Clock of a type (0 graphics, 1 SM, 2 memory, 3 video), megahertz; none for another type.
    pub(crate) fn clock(&mut self, clock: u32) -> Option<u32> {
        let share = if self.load < 0.05 { 0.0 } else { self.slowdown };
        let scaled = |max: f64| (CLOCK_IDLE + (max - CLOCK_IDLE) * share) as u32 / 15 * 15;
        match clock {
            0 | 1 => Some(scaled(CLOCK_MAX)),
            2 => Some(CLOCK_MEMORY),
            3 => Some(scaled(CLOCK_VIDEO_MAX)),
            _ => None,
        }
    }

    /// Utilization of GPU and memory, percent.
    pub(crate) fn utilization(&mut self) -> (u32, u32) {
        if self.load == 0.0 {
            return (0, 0);
        }
        let noise = self.noise();
        let percent = |share: f64, spread: f64| (100.0 * share + spread * noise).clamp(0.0, 100.0) as u32;
        (percent(self.load * 1.08, 2.0), percent(self.load * 0.55, 4.0))
    }

    /// Used memory, bytes.
    pub(crate) fn memory_used(&mut self, total: u64) -> u64 {
        let share = if self.load == 0.0 { 0.006 } else { 0.91 + 0.004 * self.noise() };
        const PAGE: u64 = 2 * 1024 * 1024;
        (total as f64 * share) as u64 / PAGE * PAGE
    }

    /// Why the clocks are not higher.
    pub(crate) fn throttle_reasons(&self, gpu: &GpuScenario) -> u64 {
        let mut reasons = 0;
        if self.load < 0.05 {
            reasons |= 0x1; // idle
        }
        if self.is_held_by_power() {
            reasons |= 0x4; // software power cap
        }
        if self.is_held_by_heat(gpu) {
            reasons |= 0x20; // software thermal slowdown
        }
        if self.is_held_hard(gpu) {
            reasons |= 0x8 | 0x40; // hardware slowdown, thermal
        }
        if self.is_braked {
            reasons |= 0x8 | 0x80; // hardware slowdown, power brake
        }
        reasons
    }

    /// Nanoseconds held back, for fields 74 to 79, and for 269 to 271 as driver 580.82 numbers them.
    pub(crate) fn held_back(&self, field: u32) -> u64 {
        match field {
            74 => self.held_by_power_ns as u64,
            75 | 269 => self.held_by_heat_ns as u64,
            78 => self.idle_ns as u64,
            270 => self.held_by_hard_heat_ns as u64,
            271 => self.held_by_brake_ns as u64,
            _ => 0,
        }
    }

    /// Speed of the fan, percent; none without a fan.
    pub(crate) fn fan(&mut self, fan: Fan) -> Option<u32> {
        match fan {
            Fan::None => None,
            // What is told is what the fan was asked for.
            Fan::Lost => Some(100),
            Fan::Auto => Some((30.0 + 1.4 * (self.celsius - 40.0)).clamp(30.0, 100.0) as u32),
        }
    }

    /// Speed of the fan, rounds per minute.
    pub(crate) fn fan_rpm(&mut self, fan: Fan) -> Option<u32> {
        if fan == Fan::Lost { Some(0) } else { self.fan(fan).map(|percent| percent * 42) }
    }

    /// A number from -1 to 1.
    fn noise(&mut self) -> f64 {
        self.draws += 1;
        unit(mix(self.seed ^ self.draws))
    }
}

/// Power of a scope as a share of the GPU's.
fn share_of(scope: u32) -> f64 {
    match scope {
        1 => 1.12,
        2 => 0.19,
        _ => 1.0,
    }
}

/// Spreads the bits of a number (the finalizer of SplitMix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From -1 to 1.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady() -> GpuScenario {
        GpuScenario { workload: Workload::Steady, ..GpuScenario::default() }
    }

    #[test]
    fn temperature_follows_power_with_a_time_constant_of_24_seconds() {
        let gpu = steady();
        let mut model = Model::new(&gpu, 7, 0.0, 0.0);
        let start = model.celsius;
        model.advance(&gpu, 24.0);
        let after_one = model.celsius;
        model.advance(&gpu, 600.0);
        let share = (after_one - start) / (model.celsius - start);
        assert!((share - 0.632).abs() < 0.02, "{share}");
    }

    #[test]
    fn a_cooling_fault_ends_in_thermal_throttling() {
        let gpu = GpuScenario { thermal_resistance_drift_per_hour: 3.0, ..steady() };
        let mut model = Model::new(&gpu, 7, 0.0, 0.0);
        model.advance(&gpu, 20.0);
        let (early, clock) = (model.celsius(), model.clock(0));
        model.advance(&gpu, 180.0);
        assert!(model.celsius() > early + 15 && model.celsius() < 120);
        assert_ne!(model.throttle_reasons(&gpu) & 0x20, 0);
        assert!(model.held_back(75) > 0 && model.clock(0) < clock);
    }

    #[test]
    fn a_fan_that_stands_still_and_a_lower_limit_take_clocks_away() {
        let gpu = GpuScenario { power_limit_watts: Some(300.0), ..steady() };
        let mut model = Model::new(&gpu, 7, 0.0, 0.0);
        model.advance(&gpu, 10.0);
        assert_eq!(model.throttle_reasons(&gpu), 0x4);
        assert!(model.held_back(74) > 0 && model.power(0) < 310_000 && model.clock(0) < Some(1200));
        let still = GpuScenario { fan: Fan::Lost, ..steady() };
        model.advance(&still, 200.0);
        assert_eq!(model.throttle_reasons(&still) & 0x68, 0x68);
        assert_eq!((model.fan(Fan::Lost), model.fan_rpm(Fan::Lost)), (Some(100), Some(0)));
        let braked = GpuScenario { power_brake: true, ..steady() };
        model.advance(&braked, 400.0);
        assert!(model.throttle_reasons(&braked) & 0x80 != 0 && model.held_back(271) > 0);
    }

    #[test]
    fn the_energy_counter_rises_with_every_call_and_integrates_power() {
        let gpu = steady();
        let mut model = Model::new(&gpu, 7, 0.0, 100.0);
        let first = model.energy();
        assert_eq!(model.energy(), first + 1);
        model.advance(&gpu, 10.0);
        let joules = (model.energy() - first) as f64 / 1000.0;
        assert!((joules - 6058.0).abs() < 10.0, "{joules}");
    }
}
