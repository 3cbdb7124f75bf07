//! `racklake-ingest`: the service that brings frames from Kafka into the lake.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use racklake_ingest::{Config, Reload};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Brings frames from Kafka into the lake, each row exactly once.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The config file, TOML.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Validates the config, reaches Kafka and the lake, and prints what it finds.
    Check {
        /// Validate the file only.
        #[arg(long)]
        offline: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Without RUST_LOG the kernel of the lake would tell of every snapshot.
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,delta_kernel=warn".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("racklake-ingest: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(start(arguments));
    // A question to Kafka may still wait for its answer; nobody waits for it any more.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("racklake-ingest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    let file = arguments.config.ok_or_else(|| anyhow::anyhow!("--config FILE is missing"))?;
    let config = Config::load(&file)?;
    match arguments.command {
        Some(Command::Check { offline }) => {
            let report = tokio::task::spawn_blocking(move || racklake_ingest::check(&config, offline)).await??;
            print!("{report}");
            Ok(())
        }
        None => {
            let (reloads, shutdown) = (reloads_on_signal(file)?, shutdown_on_signal()?);
            racklake_ingest::run_with_reloads(config, reloads, shutdown).await
        }
    }
}

/// A token that SIGTERM and SIGINT cancel.
fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(shutdown)
}

/// The config, read again at every SIGHUP.
fn reloads_on_signal(file: PathBuf) -> anyhow::Result<mpsc::Receiver<Reload>> {
    let mut hang_up = signal(SignalKind::hangup())?;
    let (sender, reloads) = mpsc::channel(1);
    tokio::spawn(
        async move { while hang_up.recv().await.is_some() && sender.send(Config::load(&file)).await.is_ok() {} },
    );
    Ok(reloads)
}
