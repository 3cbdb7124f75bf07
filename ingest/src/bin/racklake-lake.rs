//! `racklake-lake`: proves a lake complete, lists what was set aside on the way into it, and keeps it in order.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use racklake_ingest::lake_tool::{Answer, Arguments};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn,delta_kernel=error,librdkafka=error".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let answer = match tokio::runtime::Runtime::new() {
        Ok(runtime) => {
            let answer = runtime.block_on(racklake_ingest::lake_tool::run(arguments));
            runtime.shutdown_background();
            answer
        }
        Err(error) => Err(error.into()),
    };
    match answer {
        Ok(answer) => ExitCode::from(answer.exit_code()),
        Err(error) => {
            eprintln!("racklake-lake: {error:#}");
            ExitCode::from(Answer::Unknown.exit_code())
        }
    }
}
