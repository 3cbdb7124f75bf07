//! `miner_bench`: what reading thousands of miners costs, and what those that hang cost the others, on the shipped
//! collector.
//!
//! The miners are one listener for all addresses of a range, with the recorded replies of an Avalon 1246, so that they
//! cost little; Kafka is real. It prints figures and judges none.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int8Type, Int32Type, TimestampMicrosecondType};
use clap::Parser;
use racklake_schemas::tables::{MINER_SAMPLE, miner_sample as c};
use racklake_schemas::{Rows, row_status, wire};
use racklake_tests::process::{cpu_seconds, resident_mebibytes};
use racklake_tests::site::Site;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The recorded machine's serial number; each simulated one has one made of its address.
const SERIAL: &str = "02010000cbd2fd6d";
/// For the rows of the last polls to be sent.
const SETTLE: Duration = Duration::from_secs(12);

/// Measures the collector on simulated miners: CPU per poll, memory, how late polls begin, and how long they take.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How many miners.
    #[arg(long, default_value_t = 10_000)]
    miners: u32,
    /// How many of them accept a connection and say nothing.
    #[arg(long, default_value_t = 0)]
    hung: u32,
    /// How often each is read, in seconds.
    #[arg(long, default_value_t = 30)]
    period: u64,
    /// How many periods are measured, after one that is not.
    #[arg(long, default_value_t = 3)]
    periods: u32,
    /// Connections at once.
    #[arg(long, default_value_t = 256)]
    connections: u32,
}

/// One row: when its poll began, µs UTC, how long it took, µs, and its status.
struct Poll {
    began: i64,
    took: i64,
    status: i8,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let farm = Arc::new(Farm::new(arguments.hung)?);
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let port = listener.local_addr()?.port();
    runtime.spawn(Arc::clone(&farm).run(listener));

    let site = Site::new(&format!("miner_bench-{}-{}", arguments.miners, arguments.hung))?;
    // It makes the topics, and is not measured.
    let ingest = site.start_ingest("ingest", "bench")?;
    for table in ["miner_sample", "hashboard_sample", "event", "device", "coverage"] {
        site.wait_for_topic(&ingest, table)?;
    }
    site.stop_ingest(ingest)?;
    let tables = config(&arguments, port);
    let mut collector = site.start_collector("bench", "", &tables)?;
    let period = Duration::from_secs(arguments.period);
    std::thread::sleep(period + Duration::from_secs(5));
    let pid = collector.pid();
    let (cpu, polls, began) = (cpu_seconds(pid)?, farm.polls.load(Ordering::Relaxed), Instant::now());
    std::thread::sleep(period * arguments.periods);
    let (cpu, polls) = (cpu_seconds(pid)? - cpu, farm.polls.load(Ordering::Relaxed) - polls);
    let wall = began.elapsed().as_secs_f64();
    let resident = resident_mebibytes(pid)?;
    std::thread::sleep(SETTLE);
    collector.terminate(60)?;
    let rows = read_rows(&site)?;
    report(&arguments, &rows);
    println!("| polls begun in {wall:.0} s | {polls} |");
    println!("| CPU, millicores | {:.0} |", cpu * 1e3 / wall);
    println!("| CPU seconds per 1000 polls | {:.2} |", cpu * 1e3 / polls.max(1) as f64);
    println!("| MiB resident | {resident:.0} |");
    println!("| connections at once, at most | {} |", farm.open_max.load(Ordering::Relaxed));
    Ok(())
}

fn config(arguments: &Arguments, port: u16) -> String {
    let mut tables =
        format!("[miners]\nperiod = \"{}s\"\nconnections_max = {}\n", arguments.period, arguments.connections);
    for number in 0..arguments.miners {
        let address = address_of(number);
        tables.push_str(&format!("[[miner]]\naddress = \"{address}\"\nport = {port}\nmake = \"avalon\"\n"));
    }
    tables
}

/// 127.1.0.1 and up.
fn address_of(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number)
}

fn report(arguments: &Arguments, rows: &BTreeMap<String, Vec<Poll>>) {
    let period = arguments.period as i64 * 1_000_000;
    let (mut late, mut took, mut unreachable, mut stale) = (Vec::new(), Vec::new(), 0, 0);
    for polls in rows.values() {
        // A miner's place in the period is that of its most punctual poll.
        let place = |poll: &Poll, number: usize| poll.began - number as i64 * period;
        let grid = polls.iter().enumerate().map(|(number, poll)| place(poll, number)).min().unwrap_or_default();
        for (number, poll) in polls.iter().enumerate() {
            match poll.status {
                row_status::OK | row_status::PARTIAL => {
                    late.push(place(poll, number) - grid);
                    took.push(poll.took);
                }
                row_status::UNREACHABLE => unreachable += 1,
                _ => stale += 1,
            }
        }
    }
    late.sort_unstable();
    took.sort_unstable();
    let at = |values: &[i64], part: f64| {
        let index = (values.len() as f64 * part) as usize;
        values.get(index.min(values.len().saturating_sub(1))).copied().unwrap_or_default() as f64 / 1e3
    };
    println!("\n{} miners every {} s, {} hung:\n", arguments.miners, arguments.period, arguments.hung);
    println!("| | |\n|---|---|");
    println!("| miners with rows | {} |", rows.len());
    println!("| polls answered, unreachable, neither | {}, {unreachable}, {stale} |", late.len());
    println!("| late, p50 / p99 / most, ms | {:.1} / {:.1} / {:.1} |", at(&late, 0.5), at(&late, 0.99), at(&late, 1.0));
    println!(
        "| an answered poll takes, p50 / p99 / most, ms | {:.1} / {:.1} / {:.1} |",
        at(&took, 0.5),
        at(&took, 0.99),
        at(&took, 1.0)
    );
}

/// All miners, behind one listener.
struct Farm {
    hung: u32,
    replies: BTreeMap<&'static str, String>,
    polls: AtomicU64,
    open: AtomicU64,
    open_max: AtomicU64,
}

impl Farm {
    fn new(hung: u32) -> Result<Farm> {
        let folder = racklake_tests::repository().join("tests/miner-sim/recordings/avalon_1246");
        let mut replies = BTreeMap::new();
        for (command, file) in [
            ("summary", "adapted/summary.json"),
            ("stats", "stats.json"),
            ("pools", "adapted/pools.json"),
            ("version", "adapted/version.json"),
        ] {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            replies.insert(command, text);
        }
        let (polls, open, open_max) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Farm { hung, replies, polls, open, open_max })
    }

    async fn run(self: Arc<Farm>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let farm = Arc::clone(&self);
            tokio::spawn(async move {
                let open = farm.open.fetch_add(1, Ordering::Relaxed) + 1;
                farm.open_max.fetch_max(open, Ordering::Relaxed);
                farm.answer(stream).await;
                farm.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    async fn answer(&self, mut stream: TcpStream) {
        let Ok(IpAddr::V4(address)) = stream.local_addr().map(|address| address.ip()) else { return };
        let number = u32::from(address) - u32::from(address_of(0));
        let mut request = [0; 256];
        let Ok(length) = stream.read(&mut request).await else { return };
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        if number < self.hung {
            while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
            return;
        }
        let Some((command, reply)) = self.replies.iter().find(|(name, _)| request.contains(**name)) else { return };
        if *command == "summary" {
            self.polls.fetch_add(1, Ordering::Relaxed);
        }
        let reply = reply.replace(SERIAL, &format!("02010000{number:08x}"));
        let _ = stream.write_all(reply.as_bytes()).await;
        let _ = stream.write_all(&[0]).await;
    }
}

/// The polls of every miner that Kafka has rows of, in order.
fn read_rows(site: &Site) -> Result<BTreeMap<String, Vec<Poll>>> {
    let topic = site.topic("miner_sample");
    let mut client = site.broker.client_config();
    client.set("group.id", "miner_bench");
    let consumer: BaseConsumer = client.create()?;
    let ends = site.broker.end_offsets(&topic)?;
    let mut all = TopicPartitionList::new();
    for partition in 0..ends.len() {
        all.add_partition_offset(&topic, partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let mut left: i64 = ends.iter().sum();
    let mut found: BTreeMap<String, Vec<Poll>> = BTreeMap::new();
    while left > 0 {
        let message = consumer.poll(Duration::from_secs(10)).context("Kafka gives no more rows")??;
        left -= 1;
        let Some(payload) = message.payload() else { continue };
        let mut rows = Rows::new(&MINER_SAMPLE);
        wire::decode(payload, 1, |_| &mut rows)?;
        let batch = rows.into_batch()?;
        let devices = batch.column(c::DEVICE_ID).as_string::<i32>();
        let times = batch.column(c::TS).as_primitive::<TimestampMicrosecondType>();
        let lengths = batch.column(c::READ_US).as_primitive::<Int32Type>();
        let statuses = batch.column(c::ROW_STATUS).as_primitive::<Int8Type>();
        for row in 0..batch.num_rows() {
            let took = i64::from(if lengths.is_null(row) { 0 } else { lengths.value(row) });
            let poll = Poll { began: times.value(row) - took, took, status: statuses.value(row) };
            found.entry(devices.value(row).to_owned()).or_default().push(poll);
        }
    }
    for polls in found.values_mut() {
        polls.sort_by_key(|poll| poll.began);
    }
    Ok(found)
}
