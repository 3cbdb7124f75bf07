//! `racklake`: everything on one machine, in one command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod broker;
mod demo;
mod report;
mod simulators;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// racklake: from the sensors of GPUs and miners to a Parquet lake.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs collectors, a broker and ingest in this process for a while and shows what is in the lake.
    Demo(DemoArguments),
    /// Calls NVML for the demo on real GPUs.
    #[command(hide = true)]
    NvmlWorker,
}

/// What `demo` can be told.
#[derive(clap::Args)]
struct DemoArguments {
    /// How long to collect.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the lake is made; what it already holds stays.
    #[arg(long, default_value = "racklake-demo")]
    lake: PathBuf,
    /// A real Kafka to use instead of the embedded broker, host:port.
    #[arg(long)]
    bootstrap_servers: Option<String>,
    /// Reads this machine's NVIDIA GPUs instead of simulated ones.
    #[arg(long)]
    real: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let command = Arguments::parse().command;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = match command {
        Command::Demo(arguments) => arguments,
        Command::NvmlWorker => return Ok(racklake_collector::nvml::run_worker()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo::run(arguments))?;
    Ok(ExitCode::SUCCESS)
}
