//! `racklake-collector`: reads the arguments and runs the collector until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use racklake_collector::{Config, check, run};
use tokio::signal::unix::{SignalKind, signal};
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match start(Arguments::parse()).await {
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
            let findings = check::check(&Config::load(&config)?, offline).await;
            print!("{findings}");
            Ok(if findings.problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        (None, Some(config)) => {
            let shutdown = CancellationToken::new();
            stop_on_signals(shutdown.clone())?;
            run(Config::load(&config)?, shutdown).await?;
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => anyhow::bail!("give --config FILE"),
    }
}

/// SIGTERM and SIGINT stop the collector in order.
fn stop_on_signals(shutdown: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => tracing::warn!("SIGHUP changes nothing yet; restart to read the config again"),
            }
        }
        shutdown.cancel();
    });
    Ok(())
}
