//! `gpu_bench`: what reading GPUs costs, and what one that hangs costs the others, on the shipped collector.
//!
//! The GPUs are simulated, so their library's own time is small; Kafka is real. It prints figures and judges none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::AsArray;
use arrow::datatypes::{Int8Type, TimestampMicrosecondType};
use clap::Parser;
use racklake_nvml_sim::{Scenario, install, library_path};
use racklake_schemas::clock::Clock;
use racklake_schemas::tables::{GPU_SAMPLE, gpu_sample as c};
use racklake_schemas::{Rows, row_status, wire};
use racklake_tests::process::{Process, cpu_seconds, resident_mebibytes};
use racklake_tests::site::Site;
use racklake_tests::wait_for;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

/// After the start, and before what is measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// How often the simulated library looks at its scenario; its time counts as the worker's.
const LOOK_MS: u32 = 400;
/// How long a GPU hangs; more than its hard deadline.
const HANG: Duration = Duration::from_secs(15);
/// For the rows of the last ticks to be read and sent.
const SETTLE: Duration = Duration::from_secs(3);

/// Measures the collector on simulated GPUs: CPU per sample, memory, calls, time from a hang to its event, and samples of
/// the other GPUs that were lost by it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How many GPUs.
    #[arg(long, default_value_t = 8)]
    gpus: usize,
    /// Seconds that CPU is measured over, each time.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Periods in milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "1000,100")]
    periods: Vec<u64>,
}

/// What one round gave.
#[derive(Debug, Default)]
struct Figures {
    /// Of the supervisor and of the worker.
    cpu_us_per_sample: [f64; 2],
    millicores: [f64; 2],
    rss_mebibytes: [f64; 2],
    /// Functions called, and values of fields and metrics asked for in batches.
    calls_per_gpu_second: f64,
    values_per_gpu_second: f64,
    seconds_to_event: f64,
    lost_on_others: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    for period in &arguments.periods {
        let mut rounds = Vec::new();
        for round in 0..arguments.rounds {
            let figures = measure(&arguments, *period, round)?;
            eprintln!("{period} ms, round {round}: {figures:?}");
            rounds.push(figures);
        }
        println!(
            "\n{} GPUs every {period} ms, median (lowest to highest) of {} rounds:\n",
            arguments.gpus,
            rounds.len()
        );
        print_table(&rounds);
    }
    Ok(())
}

fn print_table(rounds: &[Figures]) {
    type Of = fn(&Figures) -> f64;
    let lines: [(&str, Of); 10] = [
        ("CPU per sample, supervisor, us", |f| f.cpu_us_per_sample[0]),
        ("CPU per sample, worker with the simulated library, us", |f| f.cpu_us_per_sample[1]),
        ("supervisor, millicores", |f| f.millicores[0]),
        ("worker, millicores", |f| f.millicores[1]),
        ("supervisor, MiB resident", |f| f.rss_mebibytes[0]),
        ("worker, MiB resident", |f| f.rss_mebibytes[1]),
        ("NVML functions called per GPU and second", |f| f.calls_per_gpu_second),
        ("values of fields and metrics per GPU and second", |f| f.values_per_gpu_second),
        ("seconds from a hang to its event", |f| f.seconds_to_event),
        ("samples lost on the other GPUs", |f| f.lost_on_others),
    ];
    println!("| | median | lowest | highest |\n|---|---|---|---|");
    for (name, of) in lines {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.first().copied().unwrap_or_default(), values.last().copied().unwrap_or_default());
        println!(
            "| {name} | {:.2} | {low:.2} | {high:.2} |",
            values.get(values.len() / 2).copied().unwrap_or_default()
        );
    }
}

/// A collector on simulated GPUs.
struct Node {
    collector: Process,
    library: PathBuf,
    scenario: Scenario,
}

impl Node {
    fn start(site: &Site, name: &str, gpus: usize, period: u64, account: bool) -> Result<Node> {
        let built = library_path().context("build the simulated library: cargo build -p racklake-nvml-sim")?;
        let account = if account { "account = \"gpu.jsonl\"\n" } else { "" };
        let scenario = Scenario::parse(&format!("look_ms = {LOOK_MS}\n{account}{}", "[[gpu]]\n".repeat(gpus)))?;
        let library = install(&built, &site.folder.join(format!("{name}-nvml")), "node", &scenario)?;
        let tables = format!("[nvml]\nlibrary = {:?}\nperiod = \"{period}ms\"\n", library.display());
        let collector = site.start_collector(name, "", &tables)?;
        let node = Node { collector, library, scenario };
        wait_for("the worker to start", 30, || node.worker())?;
        std::thread::sleep(WARM_UP);
        Ok(node)
    }

    /// The process that calls NVML.
    fn worker(&self) -> Option<u32> {
        let parent = format!("PPid:\t{}", self.collector.pid());
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.find(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line == parent)
        })
    }

    fn hang(&mut self, calls: &[&str]) -> Result<()> {
        self.scenario.gpu[0].hang = calls.iter().map(|call| (*call).to_owned()).collect();
        Ok(self.scenario.apply_to(&self.library)?)
    }
}

fn measure(arguments: &Arguments, period: u64, round: usize) -> Result<Figures> {
    let site = Site::new(&format!("gpu_bench-{period}-{round}"))?;
    let ingest = site.start_ingest("ingest", "bench")?;
    site.wait_for_topic(&ingest, "gpu_sample")?;
    let mut figures = Figures::default();
    count_calls(&site, arguments.gpus, period, &mut figures)?;

    let mut node = Node::start(&site, "bench", arguments.gpus, period, false)?;
    let worker = node.worker().context("the worker has ended")?;
    let pids = [node.collector.pid(), worker];
    let before = pids.map(cpu_seconds);
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let (after, wall) = (pids.map(cpu_seconds), began.elapsed().as_secs_f64());
    let samples = wall * 1000.0 / period as f64 * arguments.gpus as f64;
    for i in 0..pids.len() {
        let used = after[i].as_ref().ok().zip(before[i].as_ref().ok()).map(|(after, before)| after - before);
        let used = used.context("a process has ended")?;
        figures.cpu_us_per_sample[i] = used * 1e6 / samples;
        figures.millicores[i] = used * 1e3 / wall;
        figures.rss_mebibytes[i] = resident_mebibytes(pids[i])?;
    }

    let from = node.collector.line_count();
    let (hung, began) = (Clock::now_us(), Instant::now());
    node.hang(&["nvmlDeviceGetPowerUsage"])?;
    wait_for("the event of the hang", 60, || node.collector.find_line(from, |line| line.contains("gpu_stalled")))?;
    figures.seconds_to_event = began.elapsed().as_secs_f64();
    std::thread::sleep(HANG.saturating_sub(began.elapsed()));
    let healed = Clock::now_us();
    node.hang(&[])?;
    std::thread::sleep(SETTLE);
    node.collector.terminate(30)?;
    figures.lost_on_others = lost(&site, arguments.gpus, period, (hung, healed))? as f64;
    site.stop_ingest(ingest)?;
    Ok(figures)
}

/// Counts what the library was asked for, in a run of its own: keeping the account costs time.
fn count_calls(site: &Site, gpus: usize, period: u64, figures: &mut Figures) -> Result<()> {
    let mut node = Node::start(site, "counted", gpus, period, true)?;
    let account = node.library.with_file_name("gpu.jsonl");
    let (before, began) = (asked(&account)?, Instant::now());
    // Whole turns of the slow tier, so that it has its share.
    std::thread::sleep(Duration::from_secs(60));
    let (after, wall) = (asked(&account)?, began.elapsed().as_secs_f64());
    let per_gpu_second = |i: usize| (after[i] - before[i]) as f64 / wall / gpus as f64;
    (figures.calls_per_gpu_second, figures.values_per_gpu_second) = (per_gpu_second(0), per_gpu_second(1));
    node.collector.terminate(30)?;
    Ok(())
}

/// Functions called, and values asked for in batches.
fn asked(account: &Path) -> Result<[usize; 2]> {
    let text = std::fs::read_to_string(account)?;
    let is_value = |line: &&str| line.contains("\"field:") || line.contains("\"gpm:");
    let values = text.lines().filter(is_value).count();
    Ok([text.lines().count() - values, values])
}

/// Samples that GPUs which did not hang should have had in that time and have not: ticks without a row that has values.
fn lost(site: &Site, gpus: usize, period: u64, (hung, healed): (i64, i64)) -> Result<i64> {
    let mut rows: BTreeMap<String, Vec<(i64, i8)>> = BTreeMap::new();
    read_rows(site, |device, ts, status| rows.entry(device).or_default().push((ts, status)))?;
    let within = |ts: i64| ts > hung && ts <= healed;
    let (mut others, mut lost) = (0, 0);
    for mut rows in rows.into_values() {
        rows.sort_unstable();
        let is_hung = rows.iter().any(|(ts, status)| within(*ts) && *status == row_status::STALE);
        let good: Vec<i64> = rows.iter().filter(|row| row.1 <= row_status::PARTIAL).map(|row| row.0).collect();
        if is_hung || !good.iter().any(|ts| within(*ts)) {
            continue;
        }
        others += 1;
        let period = period as i64 * 1000;
        let pairs = good.windows(2).filter(|pair| within(pair[1]));
        lost += pairs.map(|pair| ((pair[1] - pair[0] + period / 2) / period - 1).max(0)).sum::<i64>();
    }
    ensure!(others + 1 >= gpus, "only {others} GPUs were read while one hung");
    Ok(lost)
}

/// Device, time and status of every row of `gpu_sample` that Kafka has.
fn read_rows(site: &Site, mut take: impl FnMut(String, i64, i8)) -> Result<()> {
    let topic = site.topic("gpu_sample");
    let mut client = site.broker.client_config();
    client.set("group.id", "gpu_bench");
    let consumer: BaseConsumer = client.create()?;
    let ends = site.broker.end_offsets(&topic)?;
    let mut all = TopicPartitionList::new();
    for partition in 0..ends.len() {
        all.add_partition_offset(&topic, partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let mut left: i64 = ends.iter().sum();
    while left > 0 {
        let message = consumer.poll(Duration::from_secs(10)).context("Kafka gives no more rows")??;
        left -= 1;
        let Some(payload) = message.payload() else { continue };
        let mut rows = Rows::new(&GPU_SAMPLE);
        wire::decode(payload, 1, |_| &mut rows)?;
        let batch = rows.into_batch()?;
        let devices = batch.column(c::DEVICE_ID).as_string::<i32>();
        let times = batch.column(c::TS).as_primitive::<TimestampMicrosecondType>();
        let statuses = batch.column(c::ROW_STATUS).as_primitive::<Int8Type>();
        for row in 0..batch.num_rows() {
            take(devices.value(row).to_owned(), times.value(row), statuses.value(row));
        }
    }
    Ok(())
}
