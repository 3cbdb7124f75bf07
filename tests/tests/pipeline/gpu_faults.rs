//! GPUs that fail in ways that other agents stay silent about, and what the lake shows of it.

use std::path::PathBuf;
use std::time::Duration;

use racklake_nvml_sim::Scenario;
use racklake_tests::process::Process;
use racklake_tests::site::{Ingest, Site};
use racklake_tests::{python, repository, turn};

const TABLES: [&str; 6] = ["gpu_sample", "gpu_health", "gpu_link_sample", "event", "device", "coverage"];

/// A site whose one node reads simulated GPUs.
struct Node {
    site: Site,
    ingest: Ingest,
    collector: Process,
}

impl Node {
    /// With these lines of config in `[nvml]`.
    fn start(name: &str, scenario: &str, nvml: &str) -> Node {
        let site = Site::new(name).unwrap();
        let ingest = site.start_ingest("ingest", &name.replace('_', "-")).unwrap();
        TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
        let library = install(&site, scenario);
        let tables = format!("[frames]\nage_max = \"500ms\"\n[nvml]\nlibrary = {:?}\n{nvml}", library.display());
        let collector = site.start_collector("node-1", "", &tables).unwrap();
        Node { site, ingest, collector }
    }

    /// After so many seconds everything is in the lake, whose place this gives.
    fn end_after(mut self, seconds: u64) -> String {
        std::thread::sleep(Duration::from_secs(seconds));
        let status = self.collector.terminate(60).unwrap();
        assert!(status.success(), "{status}\n{}", self.collector.tail());
        self.site.wait_until_drained(&self.ingest, &TABLES, 60).unwrap();
        self.site.stop_ingest(self.ingest).unwrap();
        self.site.lake().display().to_string()
    }
}

fn install(site: &Site, scenario: &str) -> PathBuf {
    let library = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
    racklake_nvml_sim::install(&library, &site.folder, "node", &Scenario::parse(scenario).unwrap()).unwrap()
}

#[test]
fn a_storm_of_corrected_errors_shows_as_slow_reads_counters_and_an_event() {
    const SCENARIO: &str = "[[gpu]]\ncount = 3\n[[gpu]]\nstorm = { at = 8.0, corrected_per_second = 5000.0, latency_ms = 6000, \
                            rise_seconds = 6.0, calls = [\"nvmlDeviceGetPowerUsage\", \"field:3\"] }\n";
    let _turn = turn();
    let node = Node::start("ecc_storm", SCENARIO, "period = \"500ms\"\nhealth_period = \"5s\"\nburst_for = \"0s\"\n");
    println!("{}", python::run("check_ecc_storm.py", &[&node.end_after(60), "6000000"]).unwrap());
}

#[test]
fn a_divided_a_lost_and_a_fanless_gpu_have_nulls_of_different_kinds() {
    const SCENARIO: &str = "[[gpu]]\npci = \"00000000:1B:00.0\"\nchange = [{ at = 6.0, lost = true }]\n\
                            [[gpu]]\npci = \"00000000:43:00.0\"\nunsupported = [\"nvmlDeviceGetFanSpeed_v2\"]\n\
                            [[gpu]]\npci = \"00000000:52:00.0\"\n\
                            mig = [{ gpu_instance = 1, slices = 3, memory_mb = 40000 }]\n";
    let _turn = turn();
    let lake = Node::start("why_null", SCENARIO, "period = \"500ms\"\nhealth_period = \"2s\"\n").end_after(15);
    let query = repository().join("docs/queries/why_null.sql").display().to_string();
    let gpus = ["0000:1b:00.0", "0000:43:00.0", "0000:52:00.0"];
    println!("{}", python::run("check_why_null.py", &[&lake, &query, gpus[0], gpus[1], gpus[2]]).unwrap());
}

#[test]
fn every_column_of_a_gpu_is_filled_by_some_simulated_gpu() {
    const SCENARIO: &str = "[[gpu]]\narchitecture = \"volta\"\n[[gpu]]\narchitecture = \"ampere\"\n\
                            [[gpu]]\narchitecture = \"hopper\"\nc2c_links = 10\n\
                            mig = [{ gpu_instance = 1, slices = 3, memory_mb = 40000 }]\n\
                            [[gpu]]\narchitecture = \"hopper\"\n[[gpu]]\narchitecture = \"blackwell\"\nc2c_links = 10\n";
    let _turn = turn();
    let lake = Node::start("every_column", SCENARIO, "period = \"500ms\"\nhealth_period = \"2s\"\n").end_after(15);
    println!("{}", python::run("check_filled.py", &[&lake]).unwrap());
}
