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

/// One GPU of each kind, one divided, and one whose calls fail in part. The driver is one that has the newest fields.
const ALL_KINDS: &str = r#"
driver_version = "580.95.05"
[[gpu]]
architecture = "volta"
[[gpu]]
architecture = "ampere"
fail = { nvmlDeviceGetEncoderUtilization = 999, nvmlDeviceGetPersistenceMode = 999, nvmlDeviceGetNvLinkVersion = 999 }
[[gpu]]
architecture = "hopper"
c2c_links = 10
mig = [{ gpu_instance = 1, slices = 3, memory_mb = 40000 }]
[[gpu]]
architecture = "hopper"
[[gpu]]
architecture = "blackwell"
c2c_links = 10
"#;

#[test]
fn every_column_of_a_gpu_is_filled_by_some_simulated_gpu() {
    let _turn = turn();
    let lake = Node::start("every_column", ALL_KINDS, "rack = \"r1\"\nperiod = \"500ms\"\nhealth_period = \"2s\"\n");
    println!("{}", python::run("check_filled.py", &[&lake.end_after(15)]).unwrap());
}

/// One GPU goes wrong in every way that rows show, and is well again; the other is well all the time.
const ILL_AND_WELL: &str = r#"
[[gpu]]
pci = "00000000:1B:00.0"
workload = "idle"
[[gpu.change]]
at = 10.0
power_brake = true
remap_pending = true
remap_failed = true
sram_threshold_exceeded = true
retire_pending = true
repair_pending = [true, false]
recovery_action = 1
pcie = [5, 8]
link = [{ link = 3, down = true }]
counters = { dram_corrected = 5.0, dram_uncorrected = 1.0, remapped_uncorrected = 1.0 }
[[gpu.change]]
at = 25.0
power_brake = false
remap_pending = false
remap_failed = false
sram_threshold_exceeded = false
retire_pending = false
repair_pending = [false, false]
recovery_action = 0
pcie = [5, 16]
link = []
[[gpu]]
pci = "00000000:43:00.0"
workload = "idle"
"#;

#[test]
fn what_changes_before_a_gpu_fails_is_told_and_looked_at_closely() {
    let _turn = turn();
    let nvml = "period = \"1s\"\nhealth_period = \"3s\"\nburst_for = \"5s\"\n";
    let lake = Node::start("edges", ILL_AND_WELL, nvml).end_after(45);
    println!("{}", python::run("check_edges.py", &[&lake, "0000:1b:00.0"]).unwrap());
}
