//! A farm: simulated miners of many makes, the config that names them, and a record of what was done to them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use racklake_miner_sim::{Fault, MinerSim, Profile, Unit};
use racklake_schemas::clock::Clock;
use serde_json::json;

use crate::site::Site;

/// A machine and the name of its make in the config.
pub type Make = (Profile, &'static str);

/// Makes that a farm is mixed of.
pub const MAKES: [Make; 6] = [
    (Profile::Avalon1246, "avalon"),
    (Profile::AntminerS19Pro, "antminer"),
    (Profile::WhatsminerV2, "whatsminer"),
    (Profile::Luxos, "luxos"),
    (Profile::Braiins, "braiins"),
    (Profile::Epic, "epic"),
];

/// cgminer's port, and one for the web that needs no rights.
const RPC_PORT: u16 = 4028;
const WEB_PORT: u16 = 8080;

/// Running miners, each at an address of its own.
pub struct Farm {
    /// The miners.
    pub sim: MinerSim,
    /// The account of their answers.
    pub account: PathBuf,
    makes: Vec<Make>,
    changes: Vec<serde_json::Value>,
}

impl Farm {
    /// Starts `count` miners of the makes in turn at 127.`net`.0.1 and on; none takes more than two connections at once.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start(folder: &Path, net: u8, count: usize, makes: &[Make]) -> Result<Farm> {
        let account = folder.join("miners.jsonl");
        let of_unit: Vec<Make> = makes.iter().copied().cycle().take(count).collect();
        let unit = |(i, (profile, make)): (usize, &Make)| Unit {
            address: Some(([127, net, (i / 250) as u8, (i % 250) as u8 + 1], RPC_PORT).into()),
            http_port: Some(WEB_PORT),
            connections_max: 2,
            ..Unit::new(&format!("{make}-{i}"), *profile)
        };
        let units = of_unit.iter().enumerate().map(unit).collect();
        Ok(Farm { sim: MinerSim::start(units, &account)?, account, makes: of_unit, changes: Vec::new() })
    }

    /// The lines of config that name the miners, and their password in a file of its own.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn config(&self, site: &Site, period: Duration, timeout: Duration) -> Result<String> {
        let file = site.folder.join("credentials.toml");
        std::fs::write(&file, "[[credentials]]\nname = \"farm\"\nuser = \"root\"\npassword = \"root\"\n")?;
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        let mut text = format!(
            "[nvml]\nenabled = false\n[miners]\nperiod = \"{}ms\"\ntimeout = \"{}ms\"\ncredentials_file = {file:?}\n",
            period.as_millis(),
            timeout.as_millis(),
        );
        for (address, (profile, make)) in self.sim.addresses().into_iter().zip(&self.makes) {
            writeln!(text, "[[miner]]\naddress = \"{}\"\nmake = \"{make}\"", address.ip())?;
            if matches!(profile, Profile::AntminerS19Pro | Profile::Braiins) {
                writeln!(text, "http_port = {WEB_PORT}\ncredentials = \"farm\"")?;
            }
        }
        Ok(text)
    }

    /// The make of a unit, as the config names it.
    pub fn make(&self, unit: usize) -> &'static str {
        self.makes[unit].1
    }

    /// Gives a unit a fault or heals it, and notes what its state and reason must be from then on.
    pub fn change(&mut self, unit: usize, fault: Option<Fault>, state: &str, reasons: &[Option<&str>]) {
        let before = Clock::now_us();
        self.sim.set_fault(unit, fault, &[]);
        self.changes.push(json!({
            "unit": self.sim.names()[unit], "fault": fault, "before_us": before, "us": Clock::now_us(),
            "state": state, "reasons": reasons,
        }));
    }

    /// Writes down what was done; gives the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_changes(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join("changes.json");
        std::fs::write(&path, serde_json::to_vec(&self.changes)?).context("writing what was done to the miners")?;
        Ok(path)
    }
}
