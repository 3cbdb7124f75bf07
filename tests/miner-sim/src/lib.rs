//! Simulated miners of many makes that answer as their firmwares do, from recorded replies whose values move.
//!
//! Tests that need a miner get real sockets with a real firmware's replies behind them, with the ways in which such
//! sockets fail, and with an account of what was said, so that the lake can be compared with it row by row.
//! It does not promise the physics of a miner: temperatures, hashrates and errors move plausibly, no more.

mod account;
mod body;
mod connection;
mod fault;
mod http;
mod machine;
mod makes;
mod model;
mod profile;
mod scenario;
mod server;
mod spoil;
mod template;
mod text;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;

pub use fault::Fault;
pub use profile::Profile;
pub use scenario::{Scenario, Unit};

use account::Account;
use scenario::Settings;
use server::Server;

/// How soon a changed scenario file is noticed.
const SCENARIO_CHECK: Duration = Duration::from_millis(50);

/// So many units need no more open files than processes usually may have.
const FILES_ENOUGH: usize = 200;
/// Two ports and some connections for each of 10,000 units.
const FILES_MAX: u32 = 65_536;

/// Running miners; they stop when this is dropped.
pub struct MinerSim {
    runtime: Option<Runtime>,
    servers: Vec<Arc<Server>>,
}

impl MinerSim {
    /// Starts the units, each on its own address, and appends every answer to the account.
    pub fn start(units: Vec<Unit>, account_path: &Path) -> Result<MinerSim> {
        if units.len() > FILES_ENOUGH {
            raise_file_limit();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("miner-sim")
            .enable_all()
            .build()
            .context("starting the runtime of the miners")?;
        let account = Arc::new(Account::open(account_path)?);
        let mut servers = Vec::with_capacity(units.len());
        for unit in units {
            let server = runtime.block_on_anywhere(Server::bind(unit, Arc::clone(&account)))?;
            for port in 0..server.ports.len() {
                runtime.spawn(Arc::clone(&server).run(port));
            }
            servers.push(server);
        }
        Ok(MinerSim { runtime: Some(runtime), servers })
    }

    /// Starts the units of a scenario file and follows its changes: faults, reboots and replaced identities. Units
    /// that come or go in a running scenario are not followed.
    pub fn start_scenario(scenario_path: &Path, account_path: &Path) -> Result<MinerSim> {
        let sim = MinerSim::start(Scenario::load(scenario_path)?.into_units()?, account_path)?;
        if let Some(runtime) = &sim.runtime {
            runtime.spawn(follow(scenario_path.to_owned(), sim.servers.clone()));
        }
        Ok(sim)
    }

    /// Where the units listen, in their order.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.ports[0].address).collect()
    }

    /// Where the units' web interfaces listen; `None` for a unit without one.
    pub fn web_addresses(&self) -> Vec<Option<SocketAddr>> {
        self.servers.iter().map(|server| server.ports.get(1).map(|port| port.address)).collect()
    }

    /// Names of the units, in their order.
    pub fn names(&self) -> Vec<&str> {
        self.servers.iter().map(|server| server.name.as_str()).collect()
    }

    /// How many commands a unit was asked, answered or not.
    pub fn calls(&self, unit: usize) -> u64 {
        self.servers[unit].calls()
    }

    /// Gives a unit a fault, or heals it, and waits until it has it. `commands` limits a fault of the answer to some
    /// commands; empty means all.
    pub fn set_fault(&self, unit: usize, fault: Option<Fault>, commands: &[&str]) {
        self.servers[unit].change(|settings| {
            settings.fault = fault;
            settings.fault_commands = commands.iter().map(|&command| command.to_owned()).collect();
        });
        // The next connection of the caller finds the ports as it was told.
        for _ in 0..2000 {
            if self.servers[unit].is_settled() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Restarts the mining program of a unit: uptime and counters begin again.
    pub fn reboot(&self, unit: usize) {
        self.servers[unit].change(|settings| settings.reboots += 1);
    }

    /// Makes some chips of each board fall silent; those not named answer again.
    pub fn set_chips_lost(&self, unit: usize, chips: &[u32]) {
        self.servers[unit].change(|settings| settings.chips_lost = chips.to_vec());
    }

    /// Makes the firmware raise these error codes and no others.
    pub fn set_errors(&self, unit: usize, codes: &[u32]) {
        self.servers[unit].change(|settings| settings.errors = codes.to_vec());
    }

    /// Puts another machine in the place of a unit: other serial number and MAC, fresh counters.
    pub fn replace(&self, unit: usize, serial: &str, mac: &str) {
        self.servers[unit].change(|settings| {
            settings.serial = serial.to_owned();
            settings.mac = mac.to_owned();
            settings.reboots += 1;
        });
    }

    /// Stops the units; connections in progress are cut.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for MinerSim {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // unlike a plain drop, allowed within a caller's own runtime
        }
    }
}

/// Lets this process have as many open files as a farm needs; without the right to, fewer units can be started.
fn raise_file_limit() {
    let own = std::process::id().to_string();
    let limit = format!("--nofile={FILES_MAX}:{FILES_MAX}");
    match std::process::Command::new("prlimit").args(["--pid", &own, &limit]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => eprintln!("miner-sim: open files: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => eprintln!("miner-sim: open files: prlimit: {error}"),
    }
}

/// Waiting for a task of this runtime also from within another one, where `block_on` panics.
trait BlockOnAnywhere {
    fn block_on_anywhere<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static)
    -> Result<T>;
}

impl BlockOnAnywhere for Runtime {
    fn block_on_anywhere<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = std::sync::mpsc::channel();
        self.spawn(async move {
            let _ = send.send(work.await);
        });
        receive.recv().context("a miner died while it started")?
    }
}

/// Re-reads the scenario file when it changes and tells the units. A file that cannot be read changes nothing: an
/// editor may be in the middle of writing it.
async fn follow(path: std::path::PathBuf, servers: Vec<Arc<Server>>) {
    let mut seen = std::fs::read(&path).unwrap_or_default();
    loop {
        tokio::time::sleep(SCENARIO_CHECK).await;
        let Ok(bytes) = std::fs::read(&path) else { continue };
        if bytes == seen {
            continue;
        }
        let units = std::str::from_utf8(&bytes)
            .map_err(anyhow::Error::from)
            .and_then(Scenario::parse)
            .and_then(Scenario::into_units);
        match units {
            Ok(units) => apply(&units, &servers),
            Err(error) => eprintln!("miner-sim: {}: {error:#}; keeping the last scenario", path.display()),
        }
        seen = bytes;
    }
}

fn apply(units: &[Unit], servers: &[Arc<Server>]) {
    for server in servers {
        if let Some(unit) = units.iter().find(|unit| unit.name == server.name) {
            let wanted = Settings::of(unit);
            server.change(|settings| *settings = wanted);
        }
    }
}
