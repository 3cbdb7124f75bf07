//! A machine at work in physical terms, whatever its make: each make tells the same in its own words.
//!
//! Temperatures follow the air and the load, counters rise, chips fall silent where the scenario wants it and take
//! their share of the hashrate with them. Accepted shares rise with every answer that tells them and never repeat after
//! a restart (up to 15 restarts), so that a sample can be told from all others of its unit.

use std::time::Instant;

use racklake_schemas::clock::Clock;

use crate::fault::Fault;
use crate::model::noise::{draw, noise, seed_of};
use crate::scenario::{Settings, Unit};

/// Accepted shares keep their remainder by this until the mining program restarts.
const SHARES_STEP: i64 = 16;
/// How far a wrong clock is off, in seconds.
pub(crate) const CLOCK_OFF: i64 = 10 * 365 * 86_400;
/// The board that a dead board is.
pub(crate) const DEAD_BOARD: usize = 1;

/// How a machine is built, at full work and 25 °C around.
pub(crate) struct Build {
    pub(crate) boards: usize,
    /// Chips of a board.
    pub(crate) chips: usize,
    /// Hashrate of a board in GH/s.
    pub(crate) board_ghs: f64,
    pub(crate) megahertz: f64,
    /// At the wall.
    pub(crate) watts: f64,
    /// What a board gets.
    pub(crate) volts: f64,
    pub(crate) fans_rpm: [f64; 4],
    pub(crate) chip_celsius: f64,
    pub(crate) pcb_celsius: f64,
    pub(crate) inlet_celsius: f64,
    /// Difficulty of a share.
    pub(crate) difficulty: f64,
    /// Accepted shares and uptime of the recording, which a unit goes on from until it restarts.
    pub(crate) accepted: i64,
    pub(crate) uptime: i64,
    pub(crate) pool_url: &'static str,
}

/// What the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Working,
    Starting,
    /// Told to sleep by hand.
    Asleep,
    /// Told to sleep by the site's curtailment.
    Curtailed,
    /// Stopped by heat.
    Overheated,
    /// Nothing to work on: no pool answers.
    NoPool,
}

impl Work {
    fn of(fault: Option<Fault>) -> Work {
        match fault {
            Some(Fault::Idle) => Work::Asleep,
            Some(Fault::Curtailed) => Work::Curtailed,
            Some(Fault::Overheat) => Work::Overheated,
            Some(Fault::Starting) => Work::Starting,
            Some(Fault::NoPool) => Work::NoPool,
            _ => Work::Working,
        }
    }
}

/// A machine.
pub(crate) struct Body {
    build: &'static Build,
    seed: u64,
    warmer: f64,
    pool_url: Option<String>,
    reboots: u32,
    started: Instant,
    polls: i64,
    accepted: i64,
}

/// One board at one moment.
pub(crate) struct Board {
    /// Whether it hashes at all.
    pub(crate) alive: bool,
    /// By position: whether the chip answers.
    pub(crate) chips: Vec<bool>,
    /// Hashrate in GH/s that its chips give at work, without noise.
    pub(crate) ghs: f64,
    pub(crate) hardware_errors: i64,
    pub(crate) chip_celsius: f64,
    pub(crate) pcb_celsius: f64,
    pub(crate) volts: f64,
    pub(crate) megahertz: f64,
}

impl Board {
    /// Chips that answer.
    pub(crate) fn found(&self) -> usize {
        self.chips.iter().filter(|ok| **ok).count()
    }
}

/// A machine at one moment.
pub(crate) struct Moment {
    pub(crate) build: &'static Build,
    pub(crate) serial: String,
    pub(crate) mac: String,
    pub(crate) work: Work,
    pub(crate) fault: Option<Fault>,
    pub(crate) uptime: i64,
    /// Seconds UTC by the machine's own clock.
    pub(crate) clock: i64,
    pub(crate) accepted: i64,
    pub(crate) rejected: i64,
    pub(crate) stale: i64,
    pub(crate) boards: Vec<Board>,
    pub(crate) fans_rpm: Vec<i64>,
    pub(crate) fan_percent: i64,
    pub(crate) watts: f64,
    pub(crate) inlet_celsius: f64,
    pub(crate) errors: Vec<u32>,
    pub(crate) pool_url: String,
    pub(crate) polls: i64,
    seed: u64,
    call: u64,
}

impl Moment {
    /// Around 1, another one for every answer and `n`.
    pub(crate) fn flicker(&self, n: u64, spread: f64) -> f64 {
        1.0 + spread * noise(self.seed, self.call.wrapping_mul(4096) + n)
    }

    /// Hashrate of all boards in GH/s over a window that flickers by `spread`.
    pub(crate) fn ghs(&self, n: u64, spread: f64) -> f64 {
        if self.hashes() {
            self.boards.iter().map(|board| board.ghs).sum::<f64>() * self.flicker(n, spread)
        } else {
            0.0
        }
    }

    /// Hashrate of one board in GH/s.
    pub(crate) fn board_ghs(&self, board: usize, n: u64, spread: f64) -> f64 {
        let n = n + 16 * (board as u64 + 1);
        if self.hashes() { self.boards[board].ghs * self.flicker(n, spread) } else { 0.0 }
    }

    /// Whether it hashes now.
    pub(crate) fn hashes(&self) -> bool {
        self.work == Work::Working
    }

    /// Whether a pool answers.
    pub(crate) fn has_pool(&self) -> bool {
        self.work != Work::NoPool
    }

    /// Hardware errors of all boards.
    pub(crate) fn hardware_errors(&self) -> i64 {
        self.boards.iter().map(|board| board.hardware_errors).sum()
    }

    /// The hottest chip of a board.
    pub(crate) fn chip_max(&self, board: usize) -> f64 {
        self.boards[board].chip_celsius + 6.0 + 2.0 * (self.flicker(900 + board as u64, 1.0) - 1.0)
    }
}

impl Body {
    pub(crate) fn new(unit: &Unit, build: &'static Build) -> Body {
        Body {
            build,
            seed: seed_of(&unit.name),
            warmer: unit.ambient_celsius - 25.0,
            pool_url: unit.pool_url.clone(),
            reboots: unit.reboots,
            started: Instant::now(),
            polls: 0,
            accepted: build.accepted,
        }
    }

    /// The machine at the unit's `call`-th answer; `counts` where that answer tells the accepted shares.
    pub(crate) fn moment(&mut self, settings: &Settings, call: u64, counts: bool) -> Moment {
        if settings.reboots != self.reboots {
            self.reboots = settings.reboots;
            self.accepted = (self.build.accepted + i64::from(settings.reboots)) % SHARES_STEP;
            self.polls = 0;
            self.started = Instant::now();
        }
        if counts {
            self.polls += 1;
            self.accepted += SHARES_STEP * (1 + (draw(self.seed, call) % 3) as i64);
        }
        let work = Work::of(settings.fault);
        let seconds = self.started.elapsed().as_secs() as i64;
        let fresh = self.reboots != 0 || work == Work::Starting;
        let clock = Clock::now_us() / 1_000_000;
        let boards: Vec<Board> = (0..self.build.boards).map(|i| self.board(i, work, settings, call)).collect();
        let share = boards.iter().map(|board| board.ghs).sum::<f64>() / (self.build.board_ghs * boards.len() as f64);
        let load = if work == Work::Working { share * (1.0 + 0.02 * noise(self.seed, call)) } else { 0.02 };
        Moment {
            build: self.build,
            serial: settings.serial.clone(),
            mac: settings.mac.clone(),
            work,
            fault: settings.fault,
            uptime: if fresh { seconds } else { self.build.uptime + seconds },
            clock: if settings.fault == Some(Fault::WrongClock) { clock - CLOCK_OFF } else { clock },
            accepted: self.accepted,
            rejected: self.polls / 3,
            stale: self.polls / 5,
            fans_rpm: self.fans(work, settings, call),
            fan_percent: self.fan_percent(work),
            watts: self.build.watts * load,
            inlet_celsius: self.build.inlet_celsius + self.warmer + 0.8 * noise(self.seed, call),
            errors: settings.errors.clone(),
            pool_url: self.pool_url.clone().unwrap_or_else(|| self.build.pool_url.to_owned()),
            polls: self.polls,
            boards,
            seed: self.seed,
            call,
        }
    }

    fn board(&self, index: usize, work: Work, settings: &Settings, call: u64) -> Board {
        let alive = !(settings.fault == Some(Fault::DeadBoard) && index == DEAD_BOARD);
        let count = self.build.chips;
        let lost = if alive { settings.lost_chips(index, self.polls).min(count) } else { count };
        let mut chips = vec![true; count];
        // Which ones is the unit's own, and the same ones stay lost.
        let first = draw(self.seed, index as u64) as usize;
        (0..lost).for_each(|i| chips[(first % count + i * 7) % count] = false);
        if lost > 0 && count.is_multiple_of(7) {
            // 7 divides the count: take them in a row instead.
            chips = (0..count).map(|i| (i + count - first % count) % count >= lost).collect();
        }
        let working = work == Work::Working && alive;
        let heat = match work {
            Work::Working => self.warmer,
            Work::Overheated => self.warmer + 40.0,
            _ => -30.0,
        };
        let n = call.wrapping_mul(64) + index as u64;
        Board {
            alive,
            ghs: self.build.board_ghs * (count - lost) as f64 / count as f64 * (1.0 + 0.01 * index as f64),
            hardware_errors: (self.polls + lost as i64 * 40) / (1 + index as i64),
            chip_celsius: self.build.chip_celsius + heat + 1.5 * noise(self.seed, n + 8),
            pcb_celsius: self.build.pcb_celsius + heat / 2.0 + noise(self.seed, n + 16),
            volts: if working { self.build.volts * (1.0 + 0.002 * noise(self.seed, n + 24)) } else { 0.0 },
            megahertz: self.build.megahertz,
            chips,
        }
    }

    fn fan_percent(&self, work: Work) -> i64 {
        match work {
            Work::Working | Work::Starting => (70.0 + self.warmer.max(0.0)).min(100.0) as i64,
            Work::Overheated => 100,
            _ => 10,
        }
    }

    fn fans(&self, work: Work, settings: &Settings, call: u64) -> Vec<i64> {
        let share = self.fan_percent(work) as f64 / 70.0;
        let one = |(i, rpm): (usize, &f64)| {
            let worn = if i == 0 { 1.0 - settings.fan_wear(self.polls) } else { 1.0 };
            let stuck = if settings.fault == Some(Fault::FanStuck) && i == 0 { 0.0 } else { 1.0 };
            let noise = 1.0 + 0.01 * noise(self.seed, call.wrapping_mul(4) + i as u64);
            (rpm * share * worn * stuck * noise) as i64
        };
        let mut fans: Vec<i64> = self.build.fans_rpm.iter().enumerate().map(one).collect();
        if settings.fault == Some(Fault::NonsenseSensors) {
            fans[0] = 65_535;
        }
        fans
    }
}
