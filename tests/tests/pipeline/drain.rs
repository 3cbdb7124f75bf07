//! A long outage: what was spooled meanwhile is delivered completely, and what is read during that does not wait for it.
//!
//! `RACKLAKE_DRAIN_FRAMES=100000` runs it at full length; the figures are printed.

use std::time::{Duration, Instant};

use racklake_nvml_sim::Scenario;
use racklake_schemas::clock::Clock;
use racklake_tests::process::Process;
use racklake_tests::site::{Site, http_get};
use racklake_tests::{lake_tool, python, turn_alone, wait_for};

const TABLES: [&str; 4] = ["gpu_sample", "event", "device", "coverage"];
/// Frames that are to be spooled.
const FRAMES: u64 = 5_000;
/// The outage lasts longer than a frame counts as fresh, so that most of the backlog is older than that.
const AWAY: Duration = Duration::from_secs(70);
/// The backlog counts as drained when no more frames wait: those of a second or two.
const REST: u64 = 500;

/// The numbers of `/metrics` that tell how the backlog goes down.
#[derive(Debug, Default)]
struct Progress {
    waiting: u64,
    published: u64,
    bytes: u64,
}

fn progress(http: &str) -> Option<Progress> {
    let (_, text) = http_get(http, "/metrics").ok()?;
    let sum = |name: &str| {
        let lines = text.lines().filter(|line| line.starts_with(&format!("racklake_collector_{name}")));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    };
    Some(Progress {
        waiting: sum("spool_frames"),
        published: sum("frames_published_total"),
        bytes: sum("published_bytes_total"),
    })
}

/// Peak of the resident memory in KiB since it was last reset.
fn peak_rss(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn reset_peak_rss(process: &Process) {
    std::fs::write(format!("/proc/{}/clear_refs", process.pid()), "5").unwrap();
}

/// One frame per row; every row is sampled from simulated GPUs.
fn start(site: &Site) -> (Process, String) {
    let library = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
    let scenario = Scenario::parse("[[gpu]]\ncount = 16\n").unwrap();
    let library = racklake_nvml_sim::install(&library, &site.folder, "node", &scenario).unwrap();
    let tables = format!("[frames]\nrows_max = 1\n[nvml]\nlibrary = {:?}\nperiod = \"50ms\"\n", library.display());
    let collector = site.start_collector("node-1", "", &tables).unwrap();
    let config = std::fs::read_to_string(site.folder.join("node-1.toml")).unwrap();
    let http = config.split("listen = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    (collector, http)
}

#[test]
fn a_long_outage_is_delivered_completely_and_fresh_rows_do_not_wait_for_it() {
    let _turn = turn_alone();
    let wanted = std::env::var("RACKLAKE_DRAIN_FRAMES").map_or(FRAMES, |frames| frames.parse().unwrap());
    let site = Site::new("drain").unwrap();
    let ingest = site.start_ingest("ingest", "drain").unwrap();
    TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    let (mut collector, http) = start(&site);
    let tail = |error: anyhow::Error, collector: &Process| -> ! { panic!("{error}\n{}", collector.tail()) };
    let some = || progress(&http).filter(|now| now.published > 100);
    wait_for("frames to be published", 60, some).map(drop).unwrap_or_else(|error| tail(error, &collector));

    let away = Instant::now();
    site.broker.kill().unwrap();
    let before = wait_for("frames to be spooled", 60 + wanted / 20, || {
        std::thread::sleep(Duration::from_millis(200));
        progress(&http).filter(|now| now.waiting >= wanted && away.elapsed() >= AWAY)
    });
    let before = before.unwrap_or_else(|error| tail(error, &collector));
    let (away, rss_before) = (away.elapsed(), peak_rss(&collector));
    site.broker.restart().unwrap();
    reset_peak_rss(&collector);
    let first = wait_for("the first frame", 60, || progress(&http).filter(|now| now.published > before.published));
    let first = first.unwrap_or_else(|error| tail(error, &collector));
    let (begin, begin_us) = (Instant::now(), Clock::now_us());
    let drained = wait_for("the spool to drain", 60 + wanted / 50, || {
        std::thread::sleep(Duration::from_millis(100));
        progress(&http).filter(|now| now.waiting < REST)
    });
    let drained = drained.unwrap_or_else(|error| tail(error, &collector));
    let (took, end_us) = (begin.elapsed().as_secs_f64(), Clock::now_us());
    let (frames, bytes) = (drained.published - first.published, drained.bytes - first.bytes);
    println!(
        "{} frames were spooled in {:.0} s; drained in {took:.1} s: {frames} frames with {:.1} MB, {:.0} frames/s, {:.2} MB/s; \
         peak memory {:.0} MB while draining, {:.0} MB before",
        before.waiting,
        away.as_secs_f64(),
        bytes as f64 / 1e6,
        frames as f64 / took,
        bytes as f64 / 1e6 / took,
        peak_rss(&collector) as f64 / 1024.0,
        rss_before as f64 / 1024.0,
    );

    assert!(collector.terminate(60).unwrap().success(), "{}", collector.tail());
    site.wait_until_drained(&ingest, &TABLES, 60 + wanted / 50).unwrap();
    site.stop_ingest(ingest).unwrap();
    let (code, report) = lake_tool::verify(&site).unwrap();
    assert_eq!((code, &report["answer"]), (0, &"complete".into()), "{report:#}");
    let arguments = [site.lake().display().to_string(), begin_us.to_string(), end_us.to_string(), wanted.to_string()];
    println!("{}", python::run("check_drain.py", &arguments.each_ref().map(String::as_str)).unwrap());
}
