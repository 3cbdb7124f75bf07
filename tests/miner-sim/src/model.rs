//! An Avalon at work: the recorded replies with values that move.
//!
//! Counters rise, temperatures follow the air, the rest flickers around what was recorded. The accepted shares rise with
//! every answer to `summary`, asleep or not, and never repeat after a restart of the mining program (up to 15 restarts),
//! so that a sample can be told from all others of its unit.

pub(crate) mod noise;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use crate::body::{CLOCK_OFF, DEAD_BOARD};
use crate::fault::Fault;
use crate::profile::{Nominal, Profile};
use crate::scenario::{Settings, Unit};
use crate::text;

use noise::{draw, noise};

/// Accepted shares keep their remainder by this until the mining program restarts.
const SHARES_STEP: i64 = 16;
/// What a power supply in trouble says.
const SUPPLY_ERROR: i32 = 8;
/// Bit of ECMM and ECHU that says: too hot.
const TOO_HOT: &str = "64";

pub(crate) struct Model {
    nominal: Nominal,
    recorded: BTreeMap<&'static str, Value>,
    seed: u64,
    /// Difference of the air to 25 °C.
    warmer: f64,
    pool_url: Option<String>,
    verbatim: bool,
    reboots: u32,
    started: Instant,
    /// Polls that were answered since `started`.
    polls: i64,
    accepted: i64,
    /// Whether its uptime began with `started` rather than before the recording.
    fresh: bool,
}

/// What the machine does.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    Working,
    /// Working without a hash: just started, or without a pool.
    Waiting,
    Asleep,
    Overheated,
}

impl Work {
    fn of(fault: Option<Fault>) -> Work {
        match fault {
            Some(Fault::Idle | Fault::Curtailed) => Work::Asleep,
            Some(Fault::Starting | Fault::NoPool) => Work::Waiting,
            Some(Fault::Overheat) => Work::Overheated,
            _ => Work::Working,
        }
    }
}

impl Model {
    pub(crate) fn new(unit: &Unit) -> Result<Model> {
        let commands = Profile::COMMANDS.into_iter();
        let recorded: BTreeMap<_, _> =
            commands.map(|command| Ok((command, unit.profile.recording(command)?))).collect::<Result<_>>()?;
        let accepted = recorded["summary"]["SUMMARY"][0]["Accepted"].as_i64().unwrap_or(0);
        Ok(Model {
            nominal: unit.profile.nominal(),
            recorded,
            seed: noise::seed_of(&unit.name),
            warmer: unit.ambient_celsius - 25.0,
            pool_url: unit.pool_url.clone(),
            verbatim: unit.verbatim,
            reboots: unit.reboots,
            started: Instant::now(),
            polls: 0,
            accepted,
            fresh: unit.reboots != 0,
        })
    }

    /// The reply to a command at the unit's `call`-th question; `None` for a command that the firmware lacks.
    pub(crate) fn reply(&mut self, command: &str, settings: &Settings, call: u64) -> Option<Value> {
        let command = if command == "estats" { "stats" } else { command };
        let mut reply = self.recorded.get(command)?.clone();
        if self.verbatim {
            return Some(reply);
        }
        if settings.reboots != self.reboots {
            self.restart(settings.reboots);
        }
        let work = Work::of(settings.fault);
        self.fresh = self.reboots != 0 || settings.fault == Some(Fault::Starting);
        match command {
            "summary" => {
                self.polls += 1;
                self.accepted += SHARES_STEP * (1 + (draw(self.seed, call) % 3) as i64);
                self.count(&mut reply["SUMMARY"][0], work, call);
            }
            "devs" => self.count(&mut reply["DEVS"][0], work, call),
            "pools" => {
                self.count_pool(&mut reply["POOLS"][0]);
                if settings.fault == Some(Fault::NoPool) {
                    for pool in reply["POOLS"].as_array_mut().into_iter().flatten() {
                        pool["Status"] = json!("Dead");
                        pool["Stratum Active"] = json!(false);
                    }
                }
            }
            "version" => {
                reply["VERSION"][0]["DNA"] = json!(settings.serial);
                reply["VERSION"][0]["MAC"] = json!(settings.mac);
            }
            _ => self.tell_stats(&mut reply["STATS"], settings, work, call),
        }
        let when = reply["STATUS"][0]["When"].as_i64().unwrap_or(0);
        let off = if settings.fault == Some(Fault::WrongClock) { CLOCK_OFF } else { 0 };
        reply["STATUS"][0]["When"] = json!(when + self.seconds() - off);
        Some(reply)
    }

    fn restart(&mut self, reboots: u32) {
        let recorded = self.recorded["summary"]["SUMMARY"][0]["Accepted"].as_i64().unwrap_or(0);
        self.reboots = reboots;
        self.accepted = (recorded + i64::from(reboots)) % SHARES_STEP;
        self.polls = 0;
        self.started = Instant::now();
    }

    fn seconds(&self) -> i64 {
        self.started.elapsed().as_secs() as i64
    }

    /// A counter: what was recorded, or 0 after a restart, and what came since.
    fn counter(&self, recorded: &Value, since: i64) -> i64 {
        let begin = if self.fresh { 0 } else { recorded.as_i64().unwrap_or(0) };
        begin + since
    }

    /// Hardware errors of each board.
    fn board_errors(&self) -> Vec<i64> {
        let recorded = text::numbers(&self.recorded["stats"]["STATS"].to_string(), "MH");
        let since = |board: usize| (self.polls + self.seconds()) / (2 + board as i64);
        recorded.iter().enumerate().map(|(board, &errors)| self.counter(&json!(errors), since(board))).collect()
    }

    /// Values of `summary` and `devs`.
    fn count(&self, reply: &mut Value, work: Work, call: u64) {
        let recorded = &self.recorded["summary"]["SUMMARY"][0];
        let begin = self.counter(&recorded["Accepted"], 0);
        let difficulty = self.recorded["pools"]["POOLS"][0]["Stratum Difficulty"].as_f64().unwrap_or(0.0);
        let weighed = |name: &str, shares: i64| {
            let begin = if self.fresh { 0.0 } else { recorded[name].as_f64().unwrap_or(0.0) };
            json!(begin + shares as f64 * difficulty)
        };
        let (rejected, stale) = (self.polls / 3, self.polls / 5);
        let uptime = json!(self.counter(&recorded["Elapsed"], self.seconds()));
        let mut set = |name: &str, value: Value| {
            if let Some(place) = reply.get_mut(name) {
                *place = value;
            }
        };
        set("Accepted", json!(self.accepted));
        set("Rejected", json!(self.counter(&recorded["Rejected"], rejected)));
        set("Stale", json!(self.counter(&recorded["Stale"], stale)));
        set("Difficulty Accepted", weighed("Difficulty Accepted", self.accepted - begin));
        set("Difficulty Rejected", weighed("Difficulty Rejected", rejected));
        set("Difficulty Stale", weighed("Difficulty Stale", stale));
        set("Hardware Errors", json!(self.board_errors().iter().sum::<i64>()));
        set("Elapsed", uptime.clone());
        set("Device Elapsed", uptime);
        let mega: f64 = self.nominal.board_ghs.iter().sum::<f64>() * 1000.0;
        let windows = [("MHS 5s", 0.02), ("MHS 1m", 0.01), ("MHS 5m", 0.004), ("MHS 15m", 0.002)];
        for (n, (name, spread)) in (call * 8..).zip(windows) {
            let now = if work == Work::Working { mega * (1.0 + spread * noise(self.seed, n)) } else { 0.0 };
            set(name, json!(hundredths(now)));
        }
        set("MHS av", json!(hundredths(mega * (0.98 + 0.0005 * noise(self.seed, call)))));
    }

    fn count_pool(&self, pool: &mut Value) {
        let recorded = &self.recorded["summary"]["SUMMARY"][0];
        pool["Accepted"] = json!(self.accepted);
        pool["Rejected"] = json!(self.counter(&recorded["Rejected"], self.polls / 3));
        pool["Stale"] = json!(self.counter(&recorded["Stale"], self.polls / 5));
        if let Some(url) = &self.pool_url {
            pool["URL"] = json!(url);
        }
    }

    fn tell_stats(&self, entries: &mut Value, settings: &Settings, work: Work, call: u64) {
        let uptime = self.counter(&self.recorded["stats"]["STATS"][0]["Elapsed"], self.seconds());
        for entry in entries.as_array_mut().into_iter().flatten() {
            entry["Elapsed"] = json!(uptime);
        }
        let Some(first) = entries[0].as_object_mut() else { return };
        let mut texts: Vec<&mut String> = first
            .values_mut()
            .filter_map(|value| match value {
                Value::String(text) if text.contains('[') => Some(text),
                _ => None,
            })
            .collect();
        let chips = self.chips(&texts, work, settings, call);
        let mut set = |key: &str, value: String| texts.iter_mut().for_each(|text| text::set(text, key, &value));
        set("DNA", settings.serial.clone());
        set("Elapsed", uptime.to_string());
        self.tell_work(&mut set, work, settings, call);
        self.tell_heat(&mut set, work, call);
        match settings.fault {
            Some(Fault::NonsenseSensors) => set("Fan1", "65535".to_owned()),
            Some(Fault::FanStuck) => set("Fan1", "0".to_owned()),
            _ if settings.fan_wear(self.polls) > 0.0 => {
                let rpm = f64::from(self.nominal.fans_rpm[0]) * (1.0 - settings.fan_wear(self.polls));
                set("Fan1", format!("{rpm:.0}"));
            }
            _ => {}
        }
        for (key, value) in chips {
            set(&key, value);
        }
    }

    /// State, hashrate, power and errors.
    fn tell_work(&self, set: &mut impl FnMut(&str, String), work: Work, settings: &Settings, call: u64) {
        let Nominal { board_ghs, supply, megahertz, .. } = &self.nominal;
        let boards = board_ghs.len();
        let flicker = |n: u64, spread: f64| 1.0 + spread * noise(self.seed, call * 16 + n);
        let name = if matches!(work, Work::Working | Work::Waiting) { "In Work" } else { "In Idle" };
        set("SYSTEMSTATU", format!("Work: {name}, Hash Board: {boards} "));
        set("STATE", if name == "In Work" { "1" } else { "2" }.to_owned());
        set("SoftOFF", if work == Work::Asleep { "4" } else { "0" }.to_owned());
        let error = if work == Work::Overheated { TOO_HOT } else { "0" };
        set("ECMM", error.to_owned());
        set("ECHU", vec![error; boards].join(" "));
        let errors = self.board_errors();
        set("MH", text::list(&errors));
        set("HW", errors.iter().sum::<i64>().to_string());
        let dead = |board: usize| settings.fault == Some(Fault::DeadBoard) && board == DEAD_BOARD;
        let board_ghs: Vec<f64> =
            board_ghs.iter().enumerate().map(|(i, ghs)| if dead(i) { 0.0 } else { *ghs }).collect();
        let total: f64 = board_ghs.iter().sum();
        let now = if work == Work::Working { total * flicker(0, 0.02) } else { 0.0 };
        set("GHSspd", format!("{now:.2}"));
        set("GHSavg", format!("{:.2}", total * 0.98 * flicker(1, 0.0005)));
        set("GHSmm", format!("{:.2}", total * 1.02 * flicker(2, 0.001)));
        let board = |(i, ghs): (usize, &f64)| format!("{:.2}", ghs * 0.98 * flicker(8 + i as u64, 0.001));
        set("MGHS", board_ghs.iter().enumerate().map(board).collect::<Vec<_>>().join(" "));
        set("Freq", format!("{:.2}", megahertz * flicker(3, 0.002)));
        set("PING", (15 + draw(self.seed, call) % 60).to_string());
        let mut supply = *supply;
        if settings.fault == Some(Fault::PowerSupply) {
            supply[0] = SUPPLY_ERROR;
        }
        if work == Work::Working {
            let load = flicker(4, 0.02);
            supply[2] = (f64::from(supply[2]) * flicker(5, 0.003)) as i32;
            for watts in [3, 4, 6] {
                supply[watts] = (f64::from(supply[watts]) * load) as i32;
            }
        } else {
            (supply[2], supply[3], supply[4], supply[6]) = (4, 0, 0, 20 + (draw(self.seed, call) % 9) as i32);
        }
        set("PS", text::list(&supply));
    }

    /// Air and fans.
    fn tell_heat(&self, set: &mut impl FnMut(&str, String), work: Work, call: u64) {
        let inlet = f64::from(self.nominal.inlet_celsius) + self.warmer + 0.8 * noise(self.seed, call);
        set("Temp", format!("{inlet:.0}"));
        set("ITemp", format!("{inlet:.0}"));
        let percent = match work {
            Work::Working | Work::Waiting => (f64::from(self.nominal.fan_percent) + self.warmer.max(0.0)).min(100.0),
            Work::Asleep => 0.0,
            Work::Overheated => 100.0,
        };
        set("FanR", format!("{percent:.0}%"));
        for (i, rpm) in self.nominal.fans_rpm.iter().enumerate() {
            let rpm = f64::from(*rpm) * percent / f64::from(self.nominal.fan_percent);
            set(&format!("Fan{}", i + 1), format!("{:.0}", rpm * (1.0 + 0.01 * noise(self.seed, call * 4 + i as u64))));
        }
    }

    /// Lists with a value per chip, and what the firmware makes of them.
    fn chips(&self, texts: &[&mut String], work: Work, settings: &Settings, call: u64) -> Vec<(String, String)> {
        let fault = settings.fault;
        let lost = |board: usize| match fault {
            Some(Fault::DeadBoard) if board == DEAD_BOARD => usize::MAX,
            _ => settings.lost_chips(board, self.polls),
        };
        let numbers = |key: String| texts.iter().map(|text| text::numbers(text, &key)).find(|list| !list.is_empty());
        let moved = |recorded: &[i32], n: usize, by: f64, spread: f64| -> Vec<i32> {
            let at = |i: usize| call.wrapping_mul(1 << 16) + (n << 10) as u64 + i as u64;
            let one = |(i, &value): (usize, &i32)| f64::from(value) + by + spread * noise(self.seed, at(i));
            recorded.iter().enumerate().map(one).map(|value| value.round() as i32).collect()
        };
        let (mut told, mut hottest, mut means, mut sums) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for board in 0..self.nominal.board_ghs.len() {
            let silent = |values: &mut Vec<i32>| values.truncate(values.len().saturating_sub(lost(board)));
            let recorded = numbers(format!("PVT_T{board}")).unwrap_or_default();
            let mut temps = match work {
                Work::Working | Work::Waiting => moved(&recorded, board, self.warmer, 2.0),
                Work::Asleep => recorded, // the firmware goes on telling those of before
                Work::Overheated => moved(&recorded, board, self.warmer + 40.0, 2.0),
            };
            silent(&mut temps);
            if fault == Some(Fault::NonsenseSensors) && temps.len() > 2 {
                temps[..3].copy_from_slice(&[0, -40, 255]);
            }
            let asleep = work == Work::Asleep;
            let mean = temps.iter().sum::<i32>() / temps.len().max(1) as i32;
            hottest.push(if asleep { 0 } else { temps.iter().copied().max().unwrap_or(0) });
            means.push(if asleep { 0 } else { mean });
            let padded: Vec<String> = temps.iter().map(|temp| format!("{temp:>3}")).collect();
            told.push((format!("PVT_T{board}"), padded.join(" ")));
            let spread = if work == Work::Working { 1.0 } else { 0.0 };
            for (n, key, width) in [(4, "PVT_V", 3.0), (8, "MW", 40.0)] {
                let recorded = numbers(format!("{key}{board}")).unwrap_or_default();
                let mut values = moved(&recorded, n + board, 0.0, spread * width);
                silent(&mut values);
                if key == "MW" {
                    sums.push(values.iter().map(|&value| i64::from(value)).sum::<i64>());
                }
                told.push((format!("{key}{board}"), text::list(&values)));
            }
            if let Some(mut errors) = numbers(format!("ASICCRC{board}")) {
                let chip = (self.seed % errors.len().max(1) as u64) as usize;
                // Those that will fall silent are heard worse before.
                errors[chip] += (self.polls / 4) as i32 + 50 * lost(board).min(1000) as i32;
                told.push((format!("ASICCRC{board}"), text::list(&errors)));
            }
        }
        told.push(("MW".to_owned(), text::list(&sums)));
        told.push(("TMax".to_owned(), hottest.iter().copied().max().unwrap_or(0).to_string()));
        told.push(("TAvg".to_owned(), (means.iter().sum::<i32>() / means.len().max(1) as i32).to_string()));
        told.push(("MTmax".to_owned(), text::list(&hottest)));
        told.push(("MTavg".to_owned(), text::list(&means)));
        told
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
