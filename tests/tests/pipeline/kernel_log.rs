//! XIDs of a node in the lake: each line of the kernel log once, and what NVML alone has told, whatever comes twice and
//! whenever the collector is killed.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use racklake_nvml_sim::{Burst, GpuScenario, Scenario};
use racklake_tests::process::Process;
use racklake_tests::site::Site;
use racklake_tests::{python, turn_alone, wait_for};

const TABLES: [&str; 2] = ["event", "coverage"];
const LINES: usize = 10_000;
/// Addresses of the first GPUs of the simulator, as the kernel log and as NVML write them.
const GPUS: [&str; 4] = ["0000:1b:00", "0000:43:00", "0000:52:00", "0000:61:00"];
const CODES: [u64; 5] = [13, 31, 43, 63, 94];
/// A code that only NVML tells.
const NVML_ONLY: u64 = 95;

/// A kernel log that is read from its beginning at each start, as the kernel's own is.
struct Log {
    path: PathBuf,
    seq: usize,
}

impl Log {
    fn new(site: &Site) -> Log {
        let log = Log { path: site.folder.join("kmsg"), seq: 0 };
        std::fs::write(&log.path, "").unwrap();
        log
    }

    fn line(&mut self, text: &str) -> String {
        self.seq += 1;
        format!("4,{},{},-;{text}\n SUBSYSTEM=pci\n", self.seq, uptime_us())
    }

    fn append(&self, lines: &str) {
        OpenOptions::new().append(true).open(&self.path).unwrap().write_all(lines.as_bytes()).unwrap();
    }

    /// XIDs of all GPUs in turn, each with a process id of its own, among lines that are none and the driver's other ways
    /// to complain.
    fn xids(&mut self, numbers: std::ops::Range<usize>) -> String {
        let mut text = String::new();
        for number in numbers {
            let (gpu, code) = (GPUS[number % GPUS.len()], CODES[number % CODES.len()]);
            let line = format!("NVRM: Xid (PCI:{gpu}): {code}, pid={number}, name=python3, what happened");
            text.push_str(&self.line(&line));
            match number % 1000 {
                10 => text.push_str(&self.line("usb 1-1: new high-speed USB device number 2 using xhci_hcd")),
                20 => text.push_str(&self.line(
                    "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 MC TS crumbstore MCTO (First)",
                )),
                30 => text.push_str(&self.line("NVRM: GPU at 0000:61:00.0 has fallen off the bus.")),
                _ => {}
            }
        }
        text
    }
}

fn uptime_us() -> i64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = text.split(' ').next().unwrap().parse().unwrap();
    (seconds * 1e6) as i64
}

/// What NVML tells: twins of the first lines, and a few events that the kernel log does not have.
fn scenario(twins: usize) -> Scenario {
    let gpu = |index: usize| {
        let burst = |code, count: usize| Burst { code, count: count as u32, kmsg: false, ..Burst::default() };
        let twins_of = |code: &u64| {
            let is_one = |number: &usize| number % GPUS.len() == index && CODES[number % CODES.len()] == *code;
            burst(*code, (0..twins).filter(is_one).count())
        };
        let mut bursts: Vec<Burst> = CODES.iter().map(twins_of).collect();
        bursts.push(burst(NVML_ONLY, index));
        GpuScenario { burst: if twins == 0 { Vec::new() } else { bursts }, ..GpuScenario::default() }
    };
    Scenario { gpu: (0..GPUS.len()).map(gpu).collect(), ..Scenario::default() }
}

fn start(site: &Site, library: &Path, log: &Log) -> Process {
    let tables = format!(
        "[frames]\nage_max = \"500ms\"\n[spool]\nfsync_period = \"100ms\"\n[kernel_log]\npath = {:?}\n\
         [nvml]\nlibrary = {:?}\nperiod = \"1s\"\n",
        log.path.display(),
        library.display(),
    );
    site.start_collector("node-1", "", &tables).unwrap()
}

fn install(site: &Site) -> PathBuf {
    let library = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
    racklake_nvml_sim::install(&library, &site.folder, "node", &scenario(0)).unwrap()
}

/// Waits until the collector has told that GPUs are read; what the log says from then on is about known devices.
fn wait_for_gpus(site: &Site, collector: &Process) {
    let topic = site.topic("device");
    let told = || site.broker.end_offsets(&topic).ok().filter(|ends| ends.iter().sum::<i64>() > 0).map(drop);
    wait_for("the GPUs to be found", 60, told).unwrap_or_else(|error| panic!("{error}\n{}", collector.tail()));
}

fn check(site: &Site, log: &Log, twins: usize, nvml_only: usize, kills: usize) -> String {
    let (lake, log) = (site.lake().display().to_string(), log.path.display().to_string());
    let numbers = [twins, nvml_only, kills].map(|number| number.to_string());
    python::run("check_kernel_log.py", &[&lake, &log, &numbers[0], &numbers[1], &numbers[2]]).unwrap()
}

#[test]
fn ten_thousand_lines_in_a_burst_with_twins_in_nvml_are_exactly_the_right_rows() {
    const TWINS: usize = 3000;
    let _turn = turn_alone();
    let site = Site::new("kernel_log_burst").unwrap();
    let ingest = site.start_ingest("ingest", "kernel-log-burst").unwrap();
    TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    site.wait_for_topic(&ingest, "device").unwrap();
    let library = install(&site);
    let mut log = Log::new(&site);
    let mut collector = start(&site, &library, &log);
    wait_for_gpus(&site, &collector);

    let lines = log.xids(0..LINES);
    scenario(TWINS).apply_to(&library).unwrap();
    log.append(&lines);
    // Five equal ones in one second are five.
    let mut equal = String::new();
    for _ in 0..5 {
        let line = log.line("NVRM: Xid (PCI:0000:1b:00): 45, pid=7, name=python3, Ch 00000010");
        write!(equal, "{line}").unwrap();
    }
    log.append(&equal);
    std::thread::sleep(Duration::from_secs(8));
    let status = collector.terminate(60).unwrap();
    assert!(status.success(), "{status}\n{}", collector.tail());
    site.wait_until_drained(&ingest, &TABLES, 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    // None of the first GPU, one of the second, and so on.
    println!("{}", check(&site, &log, TWINS, 6, 0));
}

#[test]
fn a_collector_that_is_killed_while_it_reads_the_log_neither_loses_nor_doubles_a_line() {
    const KILLS: usize = 5;
    let _turn = turn_alone();
    let site = Site::new("kernel_log_kills").unwrap();
    let ingest = site.start_ingest("ingest", "kernel-log-kills").unwrap();
    TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    let library = install(&site);
    let mut log = Log::new(&site);
    let mut collector = start(&site, &library, &log);
    let topic = site.topic("event");
    let told = || site.broker.end_offsets(&topic).map_or(0, |ends| ends.iter().sum::<i64>());
    for kill in 0..KILLS {
        let before = told();
        let lines = log.xids(kill * LINES / KILLS..(kill + 1) * LINES / KILLS);
        log.append(&lines);
        let begun = wait_for("lines to be told", 60, || (told() > before + 100).then_some(()));
        begun.unwrap_or_else(|error| panic!("{error}\n{}", collector.tail()));
        collector.kill().unwrap();
        collector = start(&site, &library, &log);
    }
    let all = (log.seq - log.seq / 1000) as i64;
    let told_all = wait_for("all lines to be told", 60, || (told() > all - 20).then_some(()));
    told_all.unwrap_or_else(|error| panic!("{error}\n{}", collector.tail()));
    std::thread::sleep(Duration::from_secs(3));
    let status = collector.terminate(60).unwrap();
    assert!(status.success(), "{status}\n{}", collector.tail());
    site.wait_until_drained(&ingest, &TABLES, 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    println!("{}", check(&site, &log, 0, 0, KILLS));
}
