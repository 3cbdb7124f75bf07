//! Units and the TOML file that describes them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::fault::Fault;
use crate::model::noise;
use crate::profile::Profile;

/// A scenario file: `[[unit]]` tables.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The units.
    #[serde(default)]
    pub unit: Vec<Unit>,
}

/// One simulated miner, or `count` of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Unique name; serial number and MAC are derived from it where they are not given.
    pub name: String,
    /// Which machine.
    #[serde(default)]
    pub profile: Profile,
    /// Where to listen. Without it: 127.0.0.1 and a free port.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// Serial number (`DNA`).
    #[serde(default)]
    pub serial: Option<String>,
    /// MAC address.
    #[serde(default)]
    pub mac: Option<String>,
    /// URL of the first pool; with credentials in it, it shows whether they leak.
    #[serde(default)]
    pub pool_url: Option<String>,
    /// Temperature of the air around it.
    #[serde(default = "default_ambient")]
    pub ambient_celsius: f64,
    /// Serve the recording byte for byte; nothing moves.
    #[serde(default)]
    pub verbatim: bool,
    /// What is wrong with it.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Commands that a fault of the answer is limited to; empty means all.
    #[serde(default)]
    pub fault_commands: Vec<String>,
    /// Raise it, and the mining program restarts.
    #[serde(default)]
    pub reboots: u32,
    /// Where the web interface listens. Without it: 80 where the miner itself has its usual port 4028, else a free port.
    #[serde(default)]
    pub http_port: Option<u16>,
    /// User of the web interface.
    #[serde(default = "default_login")]
    pub user: String,
    /// Its password.
    #[serde(default = "default_login")]
    pub password: String,
    /// Connections at once that it takes; 0 is any number. One more is closed at once, and told in the account.
    #[serde(default)]
    pub connections_max: u32,
    /// Error codes that the firmware raises, where it has such.
    #[serde(default)]
    pub errors: Vec<u32>,
    /// Chips of each board that do not answer.
    #[serde(default)]
    pub chips_lost: Vec<u32>,
    /// How many chips of each board fall silent per poll, after those.
    #[serde(default)]
    pub chips_lost_per_poll: Vec<f64>,
    /// How much the first fan slows per poll, in percent of its speed.
    #[serde(default)]
    pub fan_wear_percent_per_poll: f64,
    /// Make this many units, `<name>-0` and on. A given port stays, the last part of the IP address counts up.
    #[serde(default = "default_count")]
    pub count: u32,
}

fn default_ambient() -> f64 {
    25.0
}

fn default_login() -> String {
    "root".to_owned()
}

fn default_count() -> u32 {
    1
}

impl Unit {
    /// A healthy unit on 127.0.0.1 with a free port.
    pub fn new(name: &str, profile: Profile) -> Unit {
        Unit {
            name: name.to_owned(),
            profile,
            address: None,
            serial: None,
            mac: None,
            pool_url: None,
            ambient_celsius: default_ambient(),
            verbatim: false,
            fault: None,
            fault_commands: Vec::new(),
            reboots: 0,
            http_port: None,
            user: default_login(),
            password: default_login(),
            connections_max: 0,
            errors: Vec::new(),
            chips_lost: Vec::new(),
            chips_lost_per_poll: Vec::new(),
            fan_wear_percent_per_poll: 0.0,
            count: 1,
        }
    }

    /// The `i`-th of `count` units.
    fn nth(&self, i: u32) -> Unit {
        let mut unit = Unit { name: format!("{}-{i}", self.name), count: 1, ..self.clone() };
        unit.serial = self.serial.as_ref().map(|serial| format!("{serial}{i:02x}"));
        unit.mac = None;
        if let Some(address) = &mut unit.address
            && let IpAddr::V4(ip) = address.ip()
        {
            address.set_ip(IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits().wrapping_add(i))));
        }
        unit
    }
}

impl Scenario {
    /// Reads a scenario file.
    pub fn load(path: &Path) -> Result<Scenario> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Scenario::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Reads the text of a scenario file.
    pub fn parse(text: &str) -> Result<Scenario> {
        Ok(toml::from_str(text)?)
    }

    /// The units, with counts multiplied out.
    pub fn into_units(self) -> Result<Vec<Unit>> {
        let mut units: Vec<Unit> = Vec::new();
        for unit in self.unit {
            match unit.count {
                1 => units.push(unit),
                count => units.extend((0..count).map(|i| unit.nth(i))),
            }
        }
        let mut names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
        names.sort_unstable();
        ensure!(names.windows(2).all(|pair| pair[0] != pair[1]), "two units have one name");
        Ok(units)
    }
}

/// What can change while a unit runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) serial: String,
    pub(crate) mac: String,
    pub(crate) fault: Option<Fault>,
    pub(crate) fault_commands: Vec<String>,
    pub(crate) reboots: u32,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) connections_max: u32,
    pub(crate) errors: Vec<u32>,
    pub(crate) chips_lost: Vec<u32>,
    chips_lost_per_poll: Vec<f64>,
    fan_wear_percent_per_poll: f64,
}

impl Settings {
    pub(crate) fn of(unit: &Unit) -> Settings {
        let seed = noise::seed_of(&unit.name);
        // 8 bytes as in the recorded DNA; the MAC is a locally administered one.
        let serial = unit.serial.clone().unwrap_or_else(|| format!("02010000{:08x}", (seed >> 32) as u32));
        let mac = unit.mac.clone().unwrap_or_else(|| {
            let b = seed.to_le_bytes();
            format!("02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4])
        });
        Settings {
            serial,
            mac,
            fault: unit.fault,
            fault_commands: unit.fault_commands.clone(),
            reboots: unit.reboots,
            user: unit.user.clone(),
            password: unit.password.clone(),
            connections_max: unit.connections_max,
            errors: unit.errors.clone(),
            chips_lost: unit.chips_lost.clone(),
            chips_lost_per_poll: unit.chips_lost_per_poll.clone(),
            fan_wear_percent_per_poll: unit.fan_wear_percent_per_poll,
        }
    }

    /// Chips of a board that do not answer after so many polls.
    pub(crate) fn lost_chips(&self, board: usize, polls: i64) -> usize {
        let at_first = self.chips_lost.get(board).copied().unwrap_or(0);
        let since = self.chips_lost_per_poll.get(board).map_or(0.0, |per_poll| per_poll * polls as f64);
        at_first as usize + since.max(0.0) as usize
    }

    /// What the first fan has lost of its speed after so many polls, from 0 to 1.
    pub(crate) fn fan_wear(&self, polls: i64) -> f64 {
        (self.fan_wear_percent_per_poll * polls as f64 / 100.0).clamp(0.0, 1.0)
    }

    /// The fault that strikes this command.
    pub(crate) fn fault_of(&self, command: &str) -> Option<Fault> {
        let everywhere = self.fault_commands.is_empty();
        self.fault.filter(|fault| {
            fault.is_of_the_machine() || everywhere || self.fault_commands.iter().any(|name| name == command)
        })
    }
}
