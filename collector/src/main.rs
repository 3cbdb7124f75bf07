//! `racklake-collector`: reads the arguments and runs the collector until it is told to stop.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use racklake_collector::kernel_log::decode;
use racklake_collector::nvml::{run_probe, run_worker};
use racklake_collector::{Config, Reload, check, discover, probe, release, run_with_reloads};
use racklake_schemas::settings;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Reads GPU and miner sensors of this host and publishes them to Kafka.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The config file.
    #[arg(long, required = true)]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Validates a config and prints what would be collected from what; ends with 1 where something is wrong.
    Check {
        /// The config file.
        #[arg(long)]
        config: PathBuf,
        /// Looks at the file only, not at devices and Kafka.
        #[arg(long)]
        offline: bool,
    },
    /// Has the running collector unload NVML, so that the driver can be upgraded; ends when it has. It loads NVML again by
    /// itself once the driver was unloaded and is back.
    Release {
        /// The config file of the running collector.
        #[arg(long)]
        config: PathBuf,
        /// NVML is loaded again after so long at the latest.
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = settings::parse_duration)]
        length: Duration,
        /// Has NVML loaded again now.
        #[arg(long, conflicts_with = "length")]
        resume: bool,
    },
    /// Calls NVML for the collector that started it.
    #[command(hide = true)]
    NvmlWorker,
    /// Reads something once and prints what it says.
    Probe {
        #[command(subcommand)]
        what: Probed,
    },
    /// Searches ranges of addresses for miners and prints [[miner]] tables for the config file.
    Discover(discover::Discover),
    /// Reads GPUs for the probe that started it.
    #[command(hide = true)]
    GpuProbe {
        #[arg(long)]
        library: String,
        #[arg(long)]
        root: PathBuf,
    },
    /// Explains the GPU errors in a kernel log (XIDs, SXids, GPUs that fell off the bus), one line each.
    Xid {
        /// Text of dmesg or journalctl, or the format of /dev/kmsg; - is standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// One JSON object per line; what a line does not say is null.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum Probed {
    /// Every GPU and every tier, once: each column with its value, or why there is none, and how long its call took.
    Gpu {
        /// The NVML library: a name for the loader's path, or a file.
        #[arg(long, default_value = "libnvidia-ml.so.1")]
        library: String,
        /// Below which folder sys/class/drm is, for AMD GPUs.
        #[arg(long, default_value = "/")]
        root: PathBuf,
        /// JSON in place of a table.
        #[arg(long)]
        json: bool,
    },
    /// One miner, once: what it is, what it does, each column and board with its value, or why there is none.
    Miner(probe::MinerProbe),
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    if matches!(arguments.command, Some(Command::NvmlWorker)) {
        return run_worker();
    }
    if let Some(Command::GpuProbe { library, root }) = &arguments.command {
        return run_probe(library, root);
    }
    if let Some(Command::Probe { what: Probed::Gpu { library, root, json } }) = &arguments.command {
        return probe::gpus(library, root, *json);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("racklake-collector: no threads to run on: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(start(arguments));
    // A read or a question to Kafka may still wait for its answer; nobody waits for it any more.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("racklake-collector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(arguments: Arguments) -> Result<ExitCode> {
    match (arguments.command, arguments.config) {
        (Some(Command::Check { config, offline }), _) => {
            let findings = check::check(&load(&config)?, offline).await;
            print!("{findings}");
            Ok(if findings.problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        (Some(Command::Release { config, resume: true, .. }), _) => {
            let was_let_go = release::resume(&Config::load(&config)?.state_dir)?;
            println!("{}", if was_let_go { "NVML is loaded again" } else { "NVML was not let go" });
            Ok(ExitCode::SUCCESS)
        }
        (Some(Command::Release { config, length, .. }), _) => {
            release::release(&Config::load(&config)?.state_dir, length)?;
            println!(
                "NVML is unloaded; it is loaded again when the driver was unloaded and is back, with release --resume, or \
                 after {length:?}"
            );
            Ok(ExitCode::SUCCESS)
        }
        (Some(Command::Probe { what: Probed::Miner(wanted) }), _) => probe::miner(&wanted).await,
        (Some(Command::Discover(wanted)), _) => {
            discover::discover(&wanted).await?;
            Ok(ExitCode::SUCCESS)
        }
        // They ran before there was a runtime.
        (Some(Command::NvmlWorker | Command::GpuProbe { .. } | Command::Probe { .. }), _) => Ok(ExitCode::FAILURE),
        (Some(Command::Xid { file, json }), _) => {
            let (name, mut output) = (file.display(), std::io::stdout().lock());
            let decoded = match file.to_str() {
                Some("-") => decode(std::io::stdin().lock(), &mut output, json),
                _ => File::open(&file).and_then(|log| decode(BufReader::new(log), &mut output, json)),
            };
            decoded.with_context(|| format!("{name}: cannot be read as a kernel log"))?;
            Ok(ExitCode::SUCCESS)
        }
        (None, Some(config)) => {
            let shutdown = CancellationToken::new();
            let loaded = load(&config)?;
            let reloads = follow_signals(config, shutdown.clone())?;
            run_with_reloads(loaded, reloads, shutdown).await?;
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => anyhow::bail!("give --config FILE"),
    }
}

/// The config of a file. NVML is loaded by a process of this program; the link is to the file that runs, even where
/// another one has taken its place since.
fn load(file: &Path) -> Reload {
    let mut config = Config::load(file)?;
    config.nvml.worker = Some(PathBuf::from("/proc/self/exe"));
    Ok(config)
}

/// SIGTERM and SIGINT stop the collector in order; at SIGHUP the file is read again.
fn follow_signals(file: PathBuf, shutdown: CancellationToken) -> Result<mpsc::Receiver<Reload>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    let (sender, reloads) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    });
    // Apart, so that a reload that waits to be taken over does not hold up the end.
    tokio::spawn(async move { while hang_up.recv().await.is_some() && sender.send(load(&file)).await.is_ok() {} });
    Ok(reloads)
}
