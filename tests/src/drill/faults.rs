//! Faults that go on beside the kills: the network, the disks, the clocks, and ingest processes that come and go.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use racklake_nvml_sim::GpuScenario;

use super::chance::Chance;
use super::disks::Disk;
use super::{Drill, locked};
use crate::fault_proxy::{FaultProxy, Mode, Way};

/// How often each fault has been made.
#[derive(Debug, Default)]
pub struct Made(Mutex<BTreeMap<&'static str, usize>>);

impl Made {
    fn count(&self, fault: &'static str) {
        *locked(&self.0).entry(fault).or_default() += 1;
    }

    /// All of them, by name.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        locked(&self.0).clone()
    }
}

type Fault = fn(&Drill, &mut Chance) -> Result<()>;

/// The first call of a read: one that hangs there has served nothing that a kill could cut off.
const FIRST_CALL: &str = "nvmlDeviceGetTotalEnergyConsumption";

/// Faults that lose nothing.
const FAULTS: [(&str, Fault); 15] = [
    ("collector network cut", |drill, chance| network(&drill.proxies[0], Mode::Cut, chance)),
    ("collector network reset", |drill, chance| network(&drill.proxies[0], Mode::Reset, chance)),
    ("collector network slow", |drill, chance| network(&drill.proxies[0], slow(), chance)),
    ("collector network silent", |drill, chance| network(&drill.proxies[0], Mode::Blackhole(Way::Both), chance)),
    ("acknowledgements lost", |drill, chance| network(&drill.proxies[0], Mode::DropReplies, chance)),
    ("ingest network cut", |drill, chance| network(&drill.proxies[1], Mode::Cut, chance)),
    ("ingest network reset", |drill, chance| network(&drill.proxies[1], Mode::Reset, chance)),
    ("ingest network slow", |drill, chance| network(&drill.proxies[1], slow(), chance)),
    ("lake disk full", |drill, chance| full(&drill.disks.lake, chance)),
    ("lake disk read-only", lake_read_only),
    ("clock jump", clock_jump),
    ("GPU hung", |drill, chance| gpu(drill, chance, |gpu| gpu.hang = vec![FIRST_CALL.to_owned()])),
    ("GPU lost", |drill, chance| gpu(drill, chance, |gpu| gpu.lost = true)),
    ("ingest added and removed", guest),
    ("ingest stopped past its session", zombie),
];

/// Faults of the broker, during which it is nobody else's to kill.
const BROKER_FAULTS: [(&str, Fault); 2] = [("broker away", broker_away), ("broker disk full", broker_full)];

/// Faults that may lose rows, which coverage then counts.
const LOSSY_FAULTS: [(&str, Fault); 1] = [("spool disk full", spool_full)];

/// Makes faults until the end.
pub(crate) fn run(drill: &Drill, mut chance: Chance) -> Result<()> {
    let mut faults: Vec<_> = FAULTS.iter().chain(&BROKER_FAULTS).collect();
    if drill.options.lossy {
        faults.extend(&LOSSY_FAULTS);
    }
    drill.pause(chance.pause(5000, 10_000));
    // All of them in an order of chance, and again, so that also a short drill has met as many as it can.
    // Later they come less often: a service that is always hindered is seldom in the middle of something.
    let (mut left, mut rounds) = (Vec::new(), 0);
    while !drill.tally.is_over() {
        if left.is_empty() {
            left = faults.clone();
            rounds += 1;
        }
        let (name, fault) = *chance.pick(&left);
        left.retain(|(other, _)| other != name);
        fault(drill, &mut chance).with_context(|| format!("fault: {name}"))?;
        drill.made.count(name);
        drill.pause(if rounds == 1 { chance.pause(2000, 6000) } else { chance.pause(10_000, 30_000) });
    }
    Ok(())
}

fn slow() -> Mode {
    Mode::Delay(Duration::from_millis(300))
}

fn network(proxy: &FaultProxy, mode: Mode, chance: &mut Chance) -> Result<()> {
    proxy.set(mode);
    std::thread::sleep(chance.pause(500, 3500));
    proxy.set(Mode::Pass);
    Ok(())
}

fn full(disk: &Disk, chance: &mut Chance) -> Result<()> {
    disk.fill()?;
    std::thread::sleep(chance.pause(500, 4000));
    disk.heal()
}

fn lake_read_only(drill: &Drill, chance: &mut Chance) -> Result<()> {
    let protected = drill.disks.lake.protect();
    std::thread::sleep(chance.pause(500, 3000));
    drill.disks.lake.heal()?;
    ensure!(protected, "the lake's disk could not be made read-only");
    Ok(())
}

/// The collector may be killed meanwhile: what it could not write is counted beside its journal.
fn spool_full(drill: &Drill, chance: &mut Chance) -> Result<()> {
    full(chance.pick(&drill.fleet.spools), chance)
}

/// Changes one of the simulated GPUs for a while.
fn gpu(drill: &Drill, chance: &mut Chance, change: fn(&mut GpuScenario)) -> Result<()> {
    let (library, scenario) = chance.pick(&drill.fleet.gpus);
    let mut changed = scenario.clone();
    let number = *chance.pick(&(0..changed.gpu.len()).collect::<Vec<_>>());
    change(&mut changed.gpu[number]);
    changed.apply_to(library)?;
    std::thread::sleep(chance.pause(1000, 6000));
    Ok(scenario.apply_to(library)?)
}

/// Sets one of the clocks, by less than a day or by more, and back again.
fn clock_jump(drill: &Drill, chance: &mut Chance) -> Result<()> {
    let file = chance.pick(&drill.fleet.clocks).clone();
    let offset = *chance.pick(&["-1.5h", "-3", "+3", "+2h", "-2d", "+2d"]);
    for offset in [offset, "+0"] {
        // Renamed into place: the library reads it at every look at the clock.
        let new = file.with_extension("new");
        std::fs::write(&new, offset)?;
        std::fs::rename(&new, &file)?;
        std::thread::sleep(chance.pause(1000, 4000));
    }
    Ok(())
}

/// A guest joins the group, and leaves in order.
fn guest(drill: &Drill, chance: &mut Chance) -> Result<()> {
    let service = &drill.fleet.guest;
    service.start(&mut service.hold())?;
    std::thread::sleep(chance.pause(3000, 8000));
    let mut slot = service.hold();
    let process = slot.as_mut().context("the guest does not run")?;
    let status = process.terminate(120)?;
    ensure!(status.success(), "the guest ended with {status}\n{}", process.tail());
    Ok(())
}

/// An ingest process stands still until its partitions are given to others, and goes on as if nothing had been.
fn zombie(drill: &Drill, chance: &mut Chance) -> Result<()> {
    let service = chance.pick(&drill.fleet.ingests);
    let slot = service.hold();
    let process = slot.as_ref().context("ingest does not run")?;
    process.signal("STOP")?;
    std::thread::sleep(chance.pause(7000, 10_000));
    process.signal("CONT")?;
    std::thread::sleep(chance.pause(1000, 2000));
    Ok(())
}

fn broker_away(drill: &Drill, chance: &mut Chance) -> Result<()> {
    let _turn = locked(&drill.broker_turn);
    drill.broker.kill()?;
    std::thread::sleep(chance.pause(3000, 15_000));
    drill.broker.restart()
}

/// A broker whose disk is full ends itself; it comes back when there is room.
fn broker_full(drill: &Drill, chance: &mut Chance) -> Result<()> {
    let _turn = locked(&drill.broker_turn);
    drill.disks.broker.fill()?;
    std::thread::sleep(chance.pause(1000, 4000));
    drill.disks.broker.heal()?;
    drill.broker.kill()?;
    drill.broker.restart()
}
