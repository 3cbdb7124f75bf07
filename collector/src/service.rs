//! Puts the parts of a collector together, runs them, and ends them in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use racklake_schemas::clock::Clock;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::amd::AmdSource;
use crate::config::Config;
use crate::device_registry::Devices;
use crate::event::{detailed, own};
use crate::health::Health;
use crate::housekeeping::Housekeeping;
use crate::hwmon::HwmonSource;
use crate::kernel_log::{KernelLog, Shared};
use crate::metrics::Metrics;
use crate::miner::{Finds, MinerSource, run_search};
use crate::nvml::NvmlSource;
use crate::outlet::Outlet;
use crate::place::Place;
use crate::publisher::Publisher;
use crate::release::Release;
use crate::reload::{Reload, Reloading};
use crate::route::Route;
use crate::sampler::Sampling;
use crate::source::{EventDraft, EventSink, Source};
use crate::spool::{Bell, Spool, Writer};
use crate::state::StateFolder;
use crate::{discovery, http};

/// Events of sources that may wait to be taken.
const SOURCE_EVENTS_MAX: usize = 1024;
/// Samplers end with the deadline of their last read; more than this is not waited for.
const SAMPLERS_END: Duration = Duration::from_secs(30);

/// Runs a collector until `shutdown`, then sends what it holds, for ten seconds at most; the rest stays in the spool.
///
/// # Errors
/// When it cannot start: a setting that is not allowed, a state folder that cannot be written or is in use, an address
/// for HTTP that is taken. Once it runs, nothing ends it but `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<()> {
    let (_nobody, reloads) = mpsc::channel(1);
    run_with_reloads(config, reloads, shutdown).await
}

/// The same; takes over what `reloads` brings of a changed config.
///
/// # Errors
/// As for [`run`]; a config that comes later and is not allowed is told and changes nothing.
pub async fn run_with_reloads(
    config: Config,
    reloads: mpsc::Receiver<Reload>,
    shutdown: CancellationToken,
) -> Result<()> {
    config.validate()?;
    let (folder, loaded) = StateFolder::open(&config.state_dir)?;
    let listener = http::bind(config.http.listen).await?;
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
    let boot_id = boot_id()?;
    let (outlet, spool) = open_spool(&config, &boot_id, &metrics, &health)?;
    let queue_bytes_max = config.frames.queue_bytes_max;
    let publisher = (Arc::clone(&outlet), Arc::clone(&health), Arc::clone(&metrics));
    let publisher = Publisher::new(&config.kafka, publisher.0, publisher.1, publisher.2, queue_bytes_max)?;
    tell_start(&outlet, &config, &boot_id);
    if let Some(damage) = loaded.damage {
        outlet.event(own("state_damaged", "warning", damage), None);
    }
    let devices = Arc::new(Devices::new(&config.node, boot_id.clone(), loaded.devices));

    let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
    let publishing = tokio::spawn(publisher.run(drain.clone()));
    let mut beside = JoinSet::new();
    let address = listener.local_addr().context("http.listen")?;
    tracing::info!(%address, "serving /metrics and /healthz");
    beside.spawn(serve_http(listener, Arc::clone(&metrics), Arc::clone(&health), stop.clone()));
    let housekeeping = Housekeeping::new(Arc::clone(&outlet), Arc::clone(&devices), Arc::clone(&health), folder);
    beside.spawn(housekeeping.run(stop.clone()));
    beside.spawn({
        let (outlet, stop) = (Arc::clone(&outlet), stop.clone());
        async move { outlet.run_timers(stop).await }
    });
    let (sink, events) = mpsc::channel(SOURCE_EVENTS_MAX);
    let told = Shared::new(&outlet, &devices, &health, &metrics);
    let log = config.kernel_log_path().map(|path| (path.to_owned(), boot_id));
    let forwarding = tokio::spawn(forward_events(events, told, log, drain.clone()));

    let (relisted, listening) = watch::channel(());
    let sampling = Sampling {
        outlet: Arc::clone(&outlet),
        devices,
        metrics: Arc::clone(&metrics),
        health: Arc::clone(&health),
        origin: Instant::now(),
        relisted: listening,
    };
    let Started { mut sampled, nvml, amd, hwmon, miners } =
        start_sources(&config, sink, &sampling, (&mut beside, &stop), &shutdown);
    let reloading =
        Reloading { config, outlet: Arc::clone(&outlet), nvml, amd, hwmon, miners, health, metrics, relisted };
    beside.spawn(reloading.run(reloads, stop.clone()));
    shutdown.cancelled().await;

    // In order: no more reads, no more events, then everything that is held goes out.
    let ended = tokio::time::timeout(SAMPLERS_END, async { while sampled.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!("a source does not end; its reads in flight are given up");
        sampled.abort_all();
    }
    drain.cancel();
    forwarding.await.context("forwarding events")?;
    outlet.event(own("collector_stop", "info", "the collector stops"), None);
    outlet.tell_everything();
    let left = publishing.await.context("publishing")?;
    if left > 0 {
        tracing::warn!(frames = left, "Kafka did not take everything in time; the next start sends what is left");
    }
    spool.end().await;
    stop.cancel();
    while beside.join_next().await.is_some() {}
    Ok(())
}

/// The thread that writes the spool.
struct SpoolThread {
    bell: Arc<Bell>,
    thread: std::thread::JoinHandle<()>,
}

impl SpoolThread {
    /// Has what is left written, and waits for it.
    async fn end(self) {
        self.bell.end();
        let ended = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::error!("the thread of the spool did not end in order");
        }
    }
}

/// Opens the spool and the door in front of it, and starts to write.
fn open_spool(
    config: &Config,
    boot_id: &str,
    metrics: &Arc<Metrics>,
    health: &Arc<Health>,
) -> Result<(Arc<Outlet>, SpoolThread)> {
    let spool = Spool::open(&config.state_dir, &config.node, boot_id, &Arc::new(Route::new(&config.kafka)))?;
    let (folder, store) = (spool.folder.clone(), Arc::clone(&spool.store));
    let (place, bell) = (Place::new(config, &spool.account.stream_id), Arc::new(Bell::default()));
    let limits = (&config.frames, &config.spool);
    let outlet = Outlet::with_spool(place, limits, spool, Arc::clone(&bell), Arc::clone(metrics), Arc::clone(health));
    let outlet = Arc::new(outlet);
    let writer =
        Writer { folder, store, outlet: Arc::clone(&outlet), health: Arc::clone(health), bell: Arc::clone(&bell) };
    let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || writer.run());
    Ok((outlet, SpoolThread { bell, thread: thread.context("starting the thread of the spool")? }))
}

/// Samplers of all sources, and the sources, whose settings may change.
struct Started {
    sampled: JoinSet<()>,
    nvml: Option<Arc<NvmlSource>>,
    amd: Option<Arc<AmdSource>>,
    hwmon: Option<Arc<HwmonSource>>,
    /// Miners may be listed later, so there is always a source for them.
    miners: Arc<MinerSource>,
}

fn start_sources(
    config: &Config,
    sink: EventSink,
    sampling: &Sampling,
    (beside, beside_stop): (&mut JoinSet<()>, &CancellationToken),
    stop: &CancellationToken,
) -> Started {
    let nvml = config.nvml.enabled.then(|| Arc::new(NvmlSource::new(&config.nvml, sink.clone())));
    if let Some(nvml) = &nvml {
        nvml.tell_health(Arc::clone(&sampling.health));
        let (outlet, health) = (Arc::clone(&sampling.outlet), Arc::clone(&sampling.health));
        let release = Release::new(&config.state_dir, Arc::clone(nvml), outlet, health);
        beside.spawn(release.run(beside_stop.clone()));
    }
    let amd = config.amd.enabled.then(|| Arc::new(AmdSource::new(&config.amd)));
    let hwmon = config.hwmon.enabled.then(|| Arc::new(HwmonSource::new(&config.hwmon, &config.node)));
    let finds = Finds::open(Some(&config.state_dir));
    let miners = Arc::new(MinerSource::with_finds(&config.miners(), finds));
    beside.spawn(run_search(Arc::clone(&miners), sink, beside_stop.clone()));
    let sources: [Option<Arc<dyn Source>>; 4] = [
        nvml.clone().map(|nvml| nvml as _),
        amd.clone().map(|amd| amd as _),
        hwmon.clone().map(|hwmon| hwmon as _),
        Some(Arc::clone(&miners) as _),
    ];
    let mut sampled = JoinSet::new();
    for source in sources.into_iter().flatten() {
        sampled.spawn(discovery::run(source, sampling.clone(), stop.clone()));
    }
    Started { sampled, nvml, amd, hwmon, miners }
}

/// The sources that the config asks for.
pub(crate) fn sources(config: &Config, sink: &EventSink) -> Vec<Arc<dyn Source>> {
    let mut sources: Vec<Arc<dyn Source>> = Vec::new();
    if config.nvml.enabled {
        sources.push(Arc::new(NvmlSource::new(&config.nvml, sink.clone())));
    }
    if config.amd.enabled {
        sources.push(Arc::new(AmdSource::new(&config.amd)));
    }
    if config.hwmon.enabled {
        sources.push(Arc::new(HwmonSource::new(&config.hwmon, &config.node)));
    }
    let miners = config.miners();
    if !miners.miners.is_empty() || !miners.ranges.is_empty() {
        // Miners of ranges are those that were found so far; nothing is searched or saved.
        let finds = Finds::open(Some(&config.state_dir));
        sources.push(Arc::new(MinerSource::with_finds(&miners, finds)));
    }
    sources
}

fn tell_start(outlet: &Outlet, config: &Config, boot_id: &str) {
    let details = json!({"version": env!("CARGO_PKG_VERSION"), "boot_id": boot_id, "nvml": config.nvml.enabled,
        "miners": config.miners().miners.len()});
    let message = concat!("collector ", env!("CARGO_PKG_VERSION"), " has started");
    outlet.event(detailed("collector_start", "info", message, &details), None);
}

async fn serve_http(
    listener: tokio::net::TcpListener,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: CancellationToken,
) {
    if let Err(error) = http::serve(listener, metrics, health, stop).await {
        tracing::error!("{error:#}");
    }
}

/// Takes events that belong to no read, and those of the kernel log, until `stop` and then what is there.
async fn forward_events(
    mut events: mpsc::Receiver<EventDraft>,
    shared: Shared,
    log: Option<(PathBuf, String)>,
    stop: CancellationToken,
) {
    let merger = Arc::clone(&shared.merger);
    let mut beside = JoinSet::new();
    let reads_log = log.is_some();
    if let Some((path, boot_id)) = log {
        beside.spawn(KernelLog::new(&path, &boot_id, shared).run(stop.clone()));
        let (merger, stop) = (Arc::clone(&merger), stop.clone());
        beside.spawn(async move { merger.run(stop).await });
    }
    let take = |draft: EventDraft| if reads_log { merger.nvml(draft) } else { merger.send(draft) };
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = events.recv() => match event {
                Some(draft) => take(draft),
                None => break stop.cancelled().await,
            },
        }
    }
    while let Ok(draft) = events.try_recv() {
        take(draft);
    }
    // Lines that are there already may be twins of what still waits.
    while beside.join_next().await.is_some() {}
    merger.end();
}

/// Which boot of the host this is; counters of its devices began with it.
fn boot_id() -> Result<String> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    match std::fs::read_to_string(FILE) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(error) => {
            tracing::warn!(%error, "{FILE} cannot be read; every start counts as a new boot");
            Ok(format!("unknown-{}", Clock::now_us()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use racklake_schemas::settings;
    use racklake_schemas::{Rows, tables, wire};
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::Message as _;
    use rdkafka::mocking::MockCluster;
    use rdkafka::{ClientConfig, Offset, TopicPartitionList};

    use super::*;

    /// Texts of a column in all frames of a topic, until one of them is `last`.
    fn texts_until(bootstrap: &str, topic: &str, column: usize, last: &str) -> Vec<String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", "test");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut all = TopicPartitionList::new();
        (0..4).for_each(|partition| all.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
        consumer.assign(&all).unwrap();
        let mut found = Vec::new();
        while !found.iter().any(|text| text == last) {
            let message = consumer.poll(Duration::from_secs(20)).unwrap().unwrap().detach();
            let mut rows = Rows::new(&tables::EVENT);
            wire::decode(message.payload().unwrap(), 1, |_| &mut rows).unwrap();
            found.extend(crate::testing::texts(&rows.into_batch().unwrap(), column));
        }
        found
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_without_its_library_says_so_and_sends_everything_before_it_ends() {
        let cluster = MockCluster::new(1).unwrap();
        for table in ["event", "coverage"] {
            cluster.create_topic(&format!("racklake.{table}"), 4, 1).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let bootstrap = cluster.bootstrap_servers();
        let text = format!(
            "site = \"s\"\nnode = \"n\"\nstate_dir = {:?}\n[kafka]\nbootstrap_servers = {bootstrap:?}\npartitions = 4\n\
             [http]\nlisten = \"127.0.0.1:0\"\n[kernel_log]\nenabled = false\n[hwmon]\nenabled = false\n[amd]\nenabled = false\n[nvml]\nlibrary = \"/nowhere/libnvidia-ml.so.1\"\n",
            folder.path().join("state").display().to_string(),
        );
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(settings::parse(&text, "c.toml").unwrap(), shutdown.clone()));
        let column = tables::event::EVENT;
        let wait = |last: &'static str| {
            let bootstrap = bootstrap.clone();
            tokio::task::spawn_blocking(move || texts_until(&bootstrap, "racklake.event", column, last))
        };
        wait("source_failed").await.unwrap();
        shutdown.cancel();
        running.await.unwrap().unwrap();
        let told: BTreeSet<String> = wait("collector_stop").await.unwrap().into_iter().collect();
        assert_eq!(told, ["collector_start", "collector_stop", "source_failed"].map(str::to_owned).into());
    }
}
