//! kill -9 of the collector at random moments, also while the broker is away: what the simulated GPUs answered is in the
//! lake, but for reads in flight.

use std::path::Path;
use std::time::Duration;

use racklake_nvml_sim::Scenario;
use racklake_tests::process::Process;
use racklake_tests::site::Site;
use racklake_tests::{count_lines, python, turn_alone, wait_for};

const KILLS: usize = 8;
/// The broker is away from this kill on, and back at that one.
const OUTAGE: (usize, usize) = (2, 5);
const TABLES: [&str; 4] = ["gpu_sample", "event", "device", "coverage"];
const SCENARIO: &str =
    "account = \"gpu.jsonl\"\n[[gpu]]\ncount = 3\n[[gpu]]\nunsupported = [\"nvmlDeviceGetFanSpeed_v2\"]\n";

/// Pauses from 0 to 1.5 s that follow from a seed.
fn pauses(seed: u32) -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(u64::from(seed)), |last| {
        Some(last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .skip(1)
    .map(|state| Duration::from_millis((state >> 33) % 1500))
}

fn start(site: &Site, library: &Path) -> Process {
    let tables = format!(
        "[frames]\nage_max = \"500ms\"\n[spool]\nfsync_period = \"100ms\"\n[nvml]\nlibrary = {:?}\nperiod = \"50ms\"\n",
        library.display()
    );
    site.start_collector("node-1", "", &tables).unwrap()
}

#[test]
fn kills_of_the_collector_cost_the_reads_in_flight_and_nothing_else() {
    let _turn = turn_alone();
    let seed = std::process::id();
    println!("seed {seed}");
    let site = Site::new("killed_collector").unwrap();
    let ingest = site.start_ingest("ingest", "killed-collector").unwrap();
    TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    let library = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let library = racklake_nvml_sim::install(&library, &site.folder, "node", &scenario).unwrap();
    let account = library.with_file_name("gpu.jsonl");

    let mut collector = start(&site, &library);
    for (kill, pause) in pauses(seed).take(KILLS).enumerate() {
        if kill == OUTAGE.0 {
            site.broker.kill().unwrap();
        }
        if kill == OUTAGE.1 {
            site.broker.restart().unwrap();
        }
        let before = count_lines(&account);
        let answered = wait_for("the GPUs to be read", 60, || (count_lines(&account) > before + 500).then_some(()));
        answered.unwrap_or_else(|error| panic!("{error}\n{}", collector.tail()));
        std::thread::sleep(pause);
        collector.kill().unwrap();
        collector = start(&site, &library);
    }
    std::thread::sleep(Duration::from_secs(2));
    let status = collector.terminate(60).unwrap();
    assert!(status.success(), "{status}\n{}", collector.tail());
    site.wait_until_drained(&ingest, &TABLES, 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    let (lake, account) = (site.lake().display().to_string(), account.display().to_string());
    println!("{}", python::run("check_killed_collector.py", &[&lake, &account, &KILLS.to_string()]).unwrap());
}
