//! Rows of the bench-only table `bench60`: synthetic devices whose values behave, and compress, like those of GPU nodes.
//!
//! Benches of every stage use this one generator, so that their figures can be set side by side; a test holds its raw
//! columns to 5.80 bytes per value and 0.84 with zstd-1. The same seed gives the same rows on every machine. It says
//! nothing about how fast a real device can be read.

use crate::row::Row;
use crate::rows::Rows;
use crate::tables::BENCH60;
use crate::tables::bench60::{
    CLOCK_0, CONSTANT_00, COUNTER_0, DEVICE_ID, GAUGE_0, MASK, RACK, RATIO_0, SESSION_ID, SITE, SLOW_0, TEMP_0, TS,
    UTILIZATION_0,
};

/// Devices of a node.
pub const DEVICES: usize = 8;
/// Readings in a row; time and identity come on top.
pub const VALUES: usize = 60;

/// Time of the first tick, µs UTC: 2026-01-01.
const START: i64 = 1_767_225_600_000_000;
const CONSTANTS: usize = 32;
/// One node in so many is idle.
const IDLE_EVERY: u64 = 5;

/// One synthetic node; each call of `next` goes on where the last one ended.
#[derive(Debug)]
pub struct Node {
    number: u64,
    devices: Vec<Device>,
    tick: i64,
}

#[derive(Debug)]
struct Device {
    id: String,
    idle: bool,
    random: Random,
    /// What the device is asked to do, 0 to 1, and what it does.
    target: f64,
    load: f64,
    constants: [i32; CONSTANTS],
    temps: [i32; 3],
    clocks: [i32; 3],
    mask: i64,
    slow: [i32; 2],
    counters: [i64; 4],
}

impl Node {
    /// Node `number` of the fleet that `seed` stands for; numbers 4, 9, 14, … are idle.
    pub fn new(seed: u64, number: u64) -> Node {
        let idle = number % IDLE_EVERY == IDLE_EVERY - 1;
        let device = |i: u64| Device::new(Random(seed ^ (number * 64 + i).wrapping_mul(0xd6e8_feb8_6659_fd93)), idle);
        Node { number, devices: (0..DEVICES as u64).map(device).collect(), tick: 0 }
    }

    /// The node's name.
    pub fn name(&self) -> String {
        format!("bench-node-{:05}", self.number)
    }

    /// The next `ticks` ticks, one a second, of every device: all of the first device, then all of the second.
    pub fn next(&mut self, ticks: usize) -> Rows {
        let mut rows = Rows::new(&BENCH60);
        let rack = format!("rack-{:03}", self.number / 4);
        for device in &mut self.devices {
            for tick in self.tick..self.tick + ticks as i64 {
                let mut row = Row::new(&BENCH60);
                row.set(SITE, "bench");
                row.set(RACK, rack.as_str());
                row.set(DEVICE_ID, device.id.as_str());
                row.set(SESSION_ID, START - 1);
                row.set(TS, START + tick * 1_000_000 + 1000 * device.random.below(3));
                device.read(&mut row);
                rows.push(row);
            }
        }
        self.tick += ticks as i64;
        rows
    }
}

impl Device {
    fn new(mut random: Random, idle: bool) -> Device {
        let (a, b) = (random.next(), random.next());
        let id = format!(
            "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        );
        let mut constants = [0; CONSTANTS];
        // Limits, versions and sizes are the same all over a fleet.
        constants.iter_mut().enumerate().for_each(|(i, value)| *value = (i as i32 % 6) * 1000 * i as i32);
        Device {
            id,
            idle,
            target: 0.7,
            load: 0.7,
            constants,
            temps: [45, 52, 60],
            clocks: [1980, 1980, 2619],
            mask: 0,
            slow: [30, 64],
            counters: [0; 4].map(|_: i64| random.below(1 << 34)),
            random,
        }
    }

    fn read(&mut self, row: &mut Row) {
        self.work();
        let random = &mut self.random;
        for (i, value) in self.constants.iter_mut().enumerate() {
            if i % 5 == 0 && random.once_in(5000) {
                *value ^= 1;
            }
            row.read(CONSTANT_00 + i, *value);
        }
        let warmth = (self.load * 25.0) as i32;
        for (i, temp) in self.temps.iter_mut().enumerate() {
            if random.once_in(12) {
                *temp += (40 + 8 * i as i32 + warmth - *temp).signum();
            }
            row.read(TEMP_0 + i, *temp);
        }
        for (i, clock) in self.clocks.iter_mut().enumerate() {
            if !self.idle && random.once_in(12) {
                *clock = 1980 - 15 * random.below(8) as i32;
            }
            row.read(CLOCK_0 + i, *clock);
        }
        for i in 0..2 {
            let spread = if self.idle { 0.0 } else { 2.0 };
            let percent = self.load * (90.0 - 40.0 * i as f64) + random.around() * spread;
            row.read(UTILIZATION_0 + i, percent as i32);
        }
        if !self.idle && random.once_in(1000) {
            self.mask ^= 1 << (2 + random.below(3));
        }
        row.read(MASK, self.mask);
        for (i, value) in self.slow.iter_mut().enumerate() {
            if random.once_in(60) {
                *value += (30 + 30 * i as i32 + random.below(9) as i32 - *value).signum();
            }
            row.read(SLOW_0 + i, *value);
        }
        self.read_noise(row);
    }

    /// The 16 readings that hold nine tenths of what remains after compression.
    fn read_noise(&mut self, row: &mut Row) {
        let random = &mut self.random;
        let noise = if self.idle { 0.1 } else { 1.0 };
        let mut power = 0;
        for i in 0..4 {
            let level = 80_000.0 + 400_000.0 * self.load / (i + 1) as f64;
            let value = (level + random.around() * noise * GAUGE_NOISE) as i32;
            if i == 0 {
                power = i64::from(value);
            }
            row.read(GAUGE_0 + i, value);
        }
        for (i, counter) in self.counters.iter_mut().enumerate() {
            *counter += match i {
                0 => power,
                _ if self.idle => random.below(200),
                _ => (self.load * COUNTER_STEP * i as f64) as i64 + random.below(COUNTER_NOISE),
            };
            row.read(COUNTER_0 + i, *counter);
        }
        for i in 0..8 {
            if random.once_in(667) {
                row.fail(RATIO_0 + i, -1);
            } else if self.idle {
                row.read(RATIO_0 + i, 0.0f32);
            } else {
                let ratio = self.load * (1.0 - 0.09 * i as f64) + random.around() * 0.05;
                row.read(RATIO_0 + i, ratio.clamp(0.0, 1.0) as f32);
            }
        }
    }

    fn work(&mut self) {
        if self.idle {
            self.load = 0.0;
            return;
        }
        if self.random.once_in(300) {
            self.target = 0.3 + 0.7 * self.random.unit();
        }
        self.load += (self.target - self.load) * 0.2;
    }
}

/// Spread of a noisy gauge.
const GAUGE_NOISE: f64 = 1500.0;
/// Growth of a counter per tick at full load, and its noise.
const COUNTER_STEP: f64 = 100_000.0;
const COUNTER_NOISE: u64 = 1 << 13;

/// SplitMix64: small, and the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `limit` - 1; `limit` is small beside 2^64, so that the bias does not show.
    fn below(&mut self, limit: u64) -> i64 {
        (self.next() % limit) as i64
    }

    fn once_in(&mut self, ticks: u64) -> bool {
        self.next().is_multiple_of(ticks)
    }

    /// 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// -1 to 1, mostly near 0.
    fn around(&mut self) -> f64 {
        self.unit() - self.unit()
    }
}
