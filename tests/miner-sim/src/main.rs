//! `miner-sim`: simulated miners from a scenario file, until SIGINT or SIGTERM ends the process.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use racklake_miner_sim::{MinerSim, Profile, Unit};

/// Simulated miners of many makes.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Scenario file; it is followed while the miners run. Without it: one Avalon 1246.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// File that every answer is written to, as JSON lines.
    #[arg(long)]
    account: PathBuf,
    /// Where the one miner listens when there is no scenario.
    #[arg(long, conflicts_with = "scenario")]
    bind: Option<SocketAddr>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let sim = match &arguments.scenario {
        Some(path) => MinerSim::start_scenario(path, &arguments.account)?,
        None => {
            let unit = Unit { address: arguments.bind, ..Unit::new("avalon", Profile::Avalon1246) };
            MinerSim::start(vec![unit], &arguments.account)?
        }
    };
    for (name, address) in sim.names().iter().zip(sim.addresses()) {
        println!("{name} {address}");
    }
    loop {
        std::thread::park();
    }
}
