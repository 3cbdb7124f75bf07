//! SIGHUP: a changed config is taken over while the collector and ingest run, and no tick and no row is lost or doubled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use racklake_nvml_sim::Scenario;
use racklake_schemas::clock::Clock;
use racklake_tests::process::Process;
use racklake_tests::site::{Ingest, Site, http_get};
use racklake_tests::{python, turn, wait_for};

const TABLES: [&str; 4] = ["gpu_sample", "event", "device", "coverage"];
const SCENARIO: &str = "account = \"gpu.jsonl\"\n[[gpu]]\ncount = 4\n";
/// Periods in milliseconds, from the start on; each but the first by a reload.
const PERIODS: [u64; 11] = [200, 100, 500, 250, 1000, 150, 160, 800, 100, 300, 200];
/// Before this change a config that is not allowed is read.
const BROKEN_BEFORE: usize = 5;
/// With this change comes a key that only a restart can change.
const WITH_RACK: usize = 7;

/// A config file that changes under a running process.
struct ConfigFile {
    path: PathBuf,
    text: String,
}

impl ConfigFile {
    fn of(site: &Site, name: &str) -> ConfigFile {
        let path = site.folder.join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        ConfigFile { path, text }
    }

    fn replace(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "{from} in {}", self.text);
        self.text = self.text.replace(from, to);
        std::fs::write(&self.path, &self.text).unwrap();
    }

    fn http(&self) -> String {
        let listen = self.text.split("listen = \"").nth(1).and_then(|rest| rest.split('"').next());
        listen.unwrap().to_owned()
    }
}

/// Sends SIGHUP and gives the line of the log that answers it.
fn reload(process: &Process) -> String {
    let from = process.line_count();
    process.signal("HUP").unwrap();
    let answer = |line: &str| line.contains("the config was read again") || line.contains("stays in force");
    let found = wait_for("an answer to SIGHUP", 20, || process.find_line(from, answer));
    found.unwrap_or_else(|error| panic!("{error}\n{}", process.tail())).1
}

fn start(site: &Site) -> (Process, PathBuf) {
    let library = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let library = racklake_nvml_sim::install(&library, &site.folder, "node", &scenario).unwrap();
    let tables = format!(
        "[frames]\nage_max = \"500ms\"\n[spool]\nfsync_period = \"100ms\"\n[nvml]\nlibrary = {:?}\nperiod = \"{}ms\"\n",
        library.display(),
        PERIODS[0]
    );
    let collector = site.start_collector("node-1", "rack = \"r1\"", &tables).unwrap();
    (collector, library.with_file_name("gpu.jsonl"))
}

fn wait_for_reads(account: &Path, collector: &Process) {
    let read = || std::fs::metadata(account).is_ok_and(|account| account.len() > 10_000).then_some(());
    wait_for("the GPUs to be read", 60, read).unwrap_or_else(|error| panic!("{error}\n{}", collector.tail()));
}

fn refuse_a_broken_config(collector: &Process, config: &mut ConfigFile) {
    let good = config.text.clone();
    config.replace("[nvml]\n", "[nvml]\nperoid = \"1s\"\n");
    let told = reload(collector);
    assert!(told.contains("peroid") && told.contains("node-1.toml") && told.contains("stays in force"), "{told}");
    let (status, body) = http_get(&config.http(), "/healthz").unwrap();
    assert!(status == 503 && body.contains("config: ") && body.contains("send SIGHUP again"), "{status} {body}");
    let (_, metrics) = http_get(&config.http(), "/metrics").unwrap();
    assert!(metrics.contains("racklake_collector_config_reloads_total{result=\"refused\"} 1"), "{metrics}");
    std::thread::sleep(Duration::from_secs(2));
    config.text = good;
}

/// Another flush age; the lake tells afterwards whether anything was lost or doubled.
fn reload_ingest(site: &Site, ingest: &Ingest) {
    let mut config = ConfigFile::of(site, "ingest");
    config.replace("age_max = \"200ms\"", "age_max = \"700ms\"");
    assert!(reload(&ingest.process).contains("is in force"), "{}", ingest.process.tail());
    config.replace("age_max = \"700ms\"", "age_max = \"soon\"");
    assert!(reload(&ingest.process).contains("stays in force"), "{}", ingest.process.tail());
    assert!(http_get(&ingest.http, "/healthz").unwrap().1.contains("config: "));
    config.replace("age_max = \"soon\"", "age_max = \"300ms\"");
    assert!(reload(&ingest.process).contains("is in force"), "{}", ingest.process.tail());
}

#[test]
fn ten_reloads_lose_and_double_no_tick_and_a_broken_one_changes_nothing() {
    let _turn = turn();
    let site = Site::new("reload").unwrap();
    let ingest = site.start_ingest("ingest", "reload").unwrap();
    TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    let (mut collector, account) = start(&site);
    wait_for_reads(&account, &collector);
    let mut config = ConfigFile::of(&site, "node-1");
    let mut changes = vec![(0, PERIODS[0])];
    for (change, pair) in PERIODS.windows(2).enumerate() {
        std::thread::sleep(Duration::from_millis(2 * pair[0].max(500)));
        if change == BROKEN_BEFORE {
            refuse_a_broken_config(&collector, &mut config);
            reload_ingest(&site, &ingest);
        }
        config.replace(&format!("\nperiod = \"{}ms\"", pair[0]), &format!("\nperiod = \"{}ms\"", pair[1]));
        if change == WITH_RACK {
            config.replace("rack = \"r1\"", "rack = \"r2\"");
        }
        changes.push((Clock::now_us(), pair[1]));
        let told = reload(&collector);
        assert_eq!(told.contains("rack: restart"), change >= WITH_RACK, "{told}");
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(http_get(&config.http(), "/healthz").unwrap().0, 200);
    let status = collector.terminate(60).unwrap();
    assert!(status.success(), "{status}\n{}", collector.tail());
    site.wait_until_drained(&ingest, &TABLES, 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    let told = site.folder.join("changes.json");
    std::fs::write(&told, serde_json::to_vec(&changes).unwrap()).unwrap();
    let [lake, account, told] = [site.lake(), account, told].map(|path| path.display().to_string());
    println!("{}", python::run("check_reload.py", &[&lake, &account, &told]).unwrap());
}
