//! The demo: two simulated nodes and four miners, collectors and ingest as they ship, for a minute.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use racklake_schemas::clock::Clock;
use racklake_schemas::settings;
use racklake_schemas::tables;
use racklake_storage::Lake;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::DemoArguments;
use crate::broker::{Broker, PARTITIONS};
use crate::report;
use crate::simulators::Simulators;

/// Consumer group of the demo's ingest.
const GROUP: &str = "racklake-demo";

/// Runs everything for the given time, stops it in order, and prints what is in the lake.
pub(crate) async fn run(arguments: DemoArguments) -> Result<()> {
    std::fs::create_dir_all(&arguments.lake)
        .with_context(|| format!("creating the lake {}", arguments.lake.display()))?;
    let location = std::path::absolute(&arguments.lake)?.display().to_string();
    let folder = tempfile::tempdir().context("creating a folder for the demo's state")?;
    // The embedded broker starts empty each time, so each run has topics of its own.
    let prefix = match &arguments.bootstrap_servers {
        Some(_) => "racklake".to_owned(),
        None => format!("demo-{}", Clock::now_us() / 1_000_000),
    };
    let topics: Vec<String> = topics(&prefix);
    let broker = Broker::start(arguments.bootstrap_servers.clone(), &topics)?;
    let simulators = if arguments.real { None } else { Some(Simulators::start(folder.path())?) };
    introduce(&arguments, &broker);

    let (stop_collectors, stop_ingest) = (CancellationToken::new(), CancellationToken::new());
    let ingest = tokio::spawn(racklake_ingest::run(ingest_config(&broker, &prefix, &location)?, stop_ingest.clone()));
    let mut collectors = JoinSet::new();
    for node in nodes(simulators.as_ref()) {
        let mut config = collector_config(&node, &broker, &prefix, folder.path())?;
        // The simulated library is loaded into this process; a real one may hang and has a process of its own.
        config.nvml.worker = arguments.real.then(|| PathBuf::from("/proc/self/exe"));
        collectors.spawn(racklake_collector::run(config, stop_collectors.clone()));
    }

    let lake = Lake::open(&location, &std::collections::BTreeMap::new())?;
    let ended_early = show_progress(arguments.seconds, &lake, &ingest, &mut collectors).await;
    stop_collectors.cancel();
    while let Some(ended) = collectors.join_next().await {
        ended?.context("a collector stopped with an error")?;
    }
    if !ended_early {
        broker.wait_until_drained(GROUP, &topics).await;
    }
    stop_ingest.cancel();
    ingest.await?.context("ingest stopped with an error")?;
    drop(simulators);
    report::print(&lake, &arguments.lake).await
}

/// One node of the demo and the lines of config that are its own.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) sources: String,
}

fn nodes(simulators: Option<&Simulators>) -> Vec<Node> {
    match simulators {
        Some(simulators) => simulators.nodes(),
        None => vec![Node { name: "this-machine".to_owned(), sources: String::new() }],
    }
}

fn topics(prefix: &str) -> Vec<String> {
    let tables = tables::ALL.iter().filter(|table| !table.bench).map(|table| table.name);
    tables.chain(["dead-letter"]).map(|name| format!("{prefix}.{name}")).collect()
}

fn ingest_config(broker: &Broker, prefix: &str, lake: &str) -> Result<racklake_ingest::Config> {
    let text = format!(
        "[kafka]\nbootstrap_servers = {:?}\ntopic_prefix = {prefix:?}\npartitions = {PARTITIONS}\ngroup = {GROUP:?}\n\
         topic_ids = {}\n[lake]\nlocation = {lake:?}\n[http]\nlisten = \"127.0.0.1:0\"\n",
        broker.bootstrap_servers(),
        !broker.is_embedded(),
    );
    Ok(settings::parse(&text, "config of the demo's ingest")?)
}

fn collector_config(node: &Node, broker: &Broker, prefix: &str, folder: &Path) -> Result<racklake_collector::Config> {
    let text = format!(
        "site = \"demo\"\nnode = {name:?}\nrack = \"rack-{name}\"\nstate_dir = {state:?}\n[kafka]\n\
         bootstrap_servers = {bootstrap:?}\ntopic_prefix = {prefix:?}\npartitions = {PARTITIONS}\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[frames]\nage_max = \"2s\"\n{sources}",
        name = node.name,
        state = folder.join(&node.name).display().to_string(),
        bootstrap = broker.bootstrap_servers(),
        sources = node.sources,
    );
    Ok(settings::parse(&text, "config of the demo's collector")?)
}

fn introduce(arguments: &DemoArguments, broker: &Broker) {
    let devices =
        if arguments.real { "this machine's GPUs" } else { "2 nodes of 8 simulated GPUs, 4 simulated miners" };
    let kafka = match broker {
        Broker::Embedded(_) => "an embedded broker in memory (not durable: for the demo only)".to_owned(),
        Broker::Real(address) => format!("Kafka at {address}"),
    };
    println!("collecting from {devices}");
    println!("through {kafka}");
    println!("into {}", arguments.lake.display());
}

/// Shows a bar until the time is over; true when a service ended before.
async fn show_progress(
    seconds: u64,
    lake: &Lake,
    ingest: &tokio::task::JoinHandle<Result<()>>,
    collectors: &mut JoinSet<Result<()>>,
) -> bool {
    let bar = ProgressBar::new(seconds);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} s  {msg}") {
        bar.set_style(style);
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    for _ in 0..seconds {
        tick.tick().await;
        bar.inc(1);
        bar.set_message(format!("{} rows in the lake", report::rows(lake).await));
        if ingest.is_finished() || collectors.try_join_next().is_some() {
            bar.abandon_with_message("a service stopped early");
            return true;
        }
    }
    bar.finish();
    false
}
