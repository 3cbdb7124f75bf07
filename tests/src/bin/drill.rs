//! `drill`: kills and hinders racklake's services for as long as wanted, and proves that the lake has everything once.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use racklake_tests::drill::{self, Options};

/// Fault drill on the shipped binaries and a real Apache Kafka. Exit code 0 only when `racklake-lake verify` and an
/// independent check of the lake against what the simulated devices served both find nothing lost and nothing doubled,
/// and every state was hit by a kill.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// All choices follow from it; printed, so that a drill can be run again.
    #[arg(long)]
    seed: Option<u64>,
    /// The longest that kills go on.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// End after so many kills, when every state has been hit.
    #[arg(long)]
    kills: Option<usize>,
    /// Where the lake, the accounts and the logs are left; by default a folder of the tests, which is emptied first.
    #[arg(long)]
    lake: Option<PathBuf>,
    /// Also reach the spool's bound and fill its disk, which loses rows that coverage must then count.
    #[arg(long)]
    lossy: bool,
    /// Simulated nodes, each with two GPUs and two miners.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| u64::from(std::process::id()));
    if arguments.seed.is_none() {
        // Passed on below, so that the seed is the same on the other side.
        println!("seed {seed}");
    }
    drill::disks::in_namespace(&["--seed", &seed.to_string()])?;
    let folder = arguments.lake.unwrap_or_else(|| {
        let folder = racklake_tests::cache().join("runs/drill");
        let _ = std::fs::remove_dir_all(&folder);
        folder
    });
    let Arguments { minutes, kills, lossy, nodes, .. } = arguments;
    let summary = drill::run(Options { seed, minutes, kills, folder: folder.clone(), lossy, nodes })?;
    println!("{:#}", summary.record);
    for problem in &summary.problems {
        eprintln!("{problem}");
    }
    println!("lake, accounts and logs: {}", folder.display());
    Ok(if summary.is_proof() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
