//! Machines that can be simulated: their recorded replies, and what they do when they are at work.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Profile {
    /// Avalon 1246, three boards of 120 chips; `stats` is a real capture of one at work.
    #[default]
    #[serde(rename = "avalon_1246")]
    Avalon1246,
    /// Avalon Q, one board of 160 chips; captured asleep, its work is modelled.
    #[serde(rename = "avalon_q")]
    AvalonQ,
    /// Antminer S19 Pro with the maker's firmware of 2020: three boards of 114 chips.
    #[serde(rename = "antminer_s19_pro")]
    AntminerS19Pro,
    /// Whatsminer M30S+ with version 2 of the interface: three boards of 135 chips.
    #[serde(rename = "whatsminer_v2")]
    WhatsminerV2,
    /// Whatsminer M60S with version 3 of the interface: three boards of 75 chips.
    #[serde(rename = "whatsminer_v3")]
    WhatsminerV3,
    /// Antminer S19 XP with Braiins OS+ 25.11: three boards of 110 chips.
    #[serde(rename = "braiins")]
    Braiins,
    /// Antminer S19k Pro with LuxOS: three boards of 77 chips.
    #[serde(rename = "luxos")]
    Luxos,
    /// Antminer S19 XP with ePIC's firmware, of whose three boards two are enabled.
    #[serde(rename = "epic")]
    Epic,
}

/// Values at full work and 25 °C around; those of the Avalon 1246 are its recorded ones.
pub(crate) struct Nominal {
    pub(crate) board_ghs: &'static [f64],
    pub(crate) fans_rpm: [i32; 4],
    pub(crate) fan_percent: i32,
    pub(crate) inlet_celsius: i32,
    /// `PS`: error, input, output in 0.01 V, A, W, wanted output in 0.01 V, W at the wall.
    pub(crate) supply: [i32; 7],
    pub(crate) megahertz: f64,
}

impl Profile {
    /// All machines.
    pub const ALL: [Profile; 8] = [
        Profile::Avalon1246,
        Profile::AvalonQ,
        Profile::AntminerS19Pro,
        Profile::WhatsminerV2,
        Profile::WhatsminerV3,
        Profile::Braiins,
        Profile::Luxos,
        Profile::Epic,
    ];

    /// Avalon's commands that have a recorded reply of their own.
    pub(crate) const COMMANDS: [&str; 5] = ["summary", "stats", "pools", "devs", "version"];

    /// Avalon's recorded reply to a command.
    pub(crate) fn recording(self, command: &str) -> Result<Value> {
        macro_rules! recorded {
            ($path:literal) => {
                include_str!(concat!("../recordings/", $path, ".json"))
            };
        }
        let text = match (self, command) {
            (Profile::Avalon1246, "summary") => recorded!("avalon_1246/adapted/summary"),
            (Profile::Avalon1246, "stats") => recorded!("avalon_1246/stats"),
            (Profile::Avalon1246, "pools") => recorded!("avalon_1246/adapted/pools"),
            (Profile::Avalon1246, "devs") => recorded!("avalon_1246/adapted/devs"),
            (Profile::Avalon1246, "version") => recorded!("avalon_1246/adapted/version"),
            (Profile::AvalonQ, "summary") => recorded!("avalon_q/summary"),
            (Profile::AvalonQ, "stats") => recorded!("avalon_q/stats"),
            (Profile::AvalonQ, "pools") => recorded!("avalon_q/pools"),
            (Profile::AvalonQ, "devs") => recorded!("avalon_q/devs"),
            (Profile::AvalonQ, "version") => recorded!("avalon_q/version"),
            _ => anyhow::bail!("there is no recording of {command}"),
        };
        serde_json::from_str(text).with_context(|| format!("recording of {command}"))
    }

    /// Avalon's values.
    pub(crate) fn nominal(self) -> Nominal {
        match self {
            Profile::Avalon1246 => Nominal {
                board_ghs: &[26907.01, 26025.06, 26724.56],
                fans_rpm: [5344, 5392, 5349, 5309],
                fan_percent: 72,
                inlet_celsius: 30,
                supply: [0, 1214, 1316, 242, 3189, 1320, 3504],
                megahertz: 502.41,
            },
            _ => Nominal {
                board_ghs: &[54210.3],
                fans_rpm: [2710, 2698, 2731, 2704],
                fan_percent: 45,
                inlet_celsius: 26,
                supply: [0, 1221, 2240, 34, 762, 2245, 829],
                megahertz: 282.86,
            },
        }
    }
}
