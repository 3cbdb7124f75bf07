//! The ways that are left to lose data: the spool's bound, a full spool disk, and a kill at that moment. What is lost is counted and named, row by
//! row; the collector goes on, says on /healthz what to do, and recovers by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use racklake_nvml_sim::Scenario;
use racklake_tests::process::Process;
use racklake_tests::site::{Ingest, PARTITIONS, Site, http_get};
use racklake_tests::{binaries, kafka, python, turn, wait_for};

const TABLES: [&str; 4] = ["gpu_sample", "event", "device", "coverage"];
const SCENARIO: &str = "account = \"gpu.jsonl\"\n[[gpu]]\ncount = 4\n";
const LIMITS: &str = "[frames]\nage_max = \"200ms\"\nbytes_max = 4096\nqueue_bytes_max = 16384\n\
                      [spool]\nbytes_max = 65536\nfsync_period = \"100ms\"\n";

/// A collector with its library's account and the address of its `/metrics`.
struct Collector {
    process: Process,
    account: PathBuf,
    http: String,
    /// Keeps the small disk, where there is one, while no collector runs.
    keeper: Option<Process>,
}

impl Collector {
    /// Starts it with its state folder; where that is a small disk, only the collector sees it.
    fn start(site: &Site, on_small_disk: bool) -> Collector {
        let library = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
        let scenario = Scenario::parse(SCENARIO).unwrap();
        let library = racklake_nvml_sim::install(&library, &site.folder, "node", &scenario).unwrap();
        let http = format!("127.0.0.1:{}", kafka::free_port().unwrap());
        let (state, config) = (state_dir(site), site.folder.join("node-1.toml"));
        std::fs::create_dir_all(&state).unwrap();
        let text = format!(
            "site = \"test\"\nnode = \"node-1\"\nstate_dir = {state:?}\n[kafka]\nbootstrap_servers = {bootstrap:?}\n\
             topic_prefix = {prefix:?}\npartitions = {PARTITIONS}\n[http]\nlisten = {http:?}\n{LIMITS}\
             [kernel_log]\nenabled = false\n[hwmon]\nenabled = false\n[amd]\nenabled = false\n[nvml]\nlibrary = {library:?}\nperiod = \"40ms\"\n",
            state = state.display().to_string(),
            bootstrap = site.broker.bootstrap(),
            prefix = site.prefix,
            library = library.display().to_string(),
        );
        std::fs::write(&config, text).unwrap();
        let keeper = on_small_disk.then(|| {
            let script = format!("mount -t tmpfs -o size=8m tmpfs {} && exec sleep 3600", state.display());
            let arguments = ["--map-root-user", "--mount", "sh", "-c", &script];
            let keeper = Process::start("keeper", Path::new("unshare"), &arguments, &site.folder).unwrap();
            let mounts = format!("/proc/{}/mounts", keeper.pid());
            let mounted =
                || std::fs::read_to_string(&mounts).ok()?.contains(&state.display().to_string()).then_some(());
            wait_for("the small disk", 30, mounted).unwrap();
            keeper
        });
        let account = library.with_file_name("gpu.jsonl");
        let process = run(site, keeper.as_ref());
        Collector { process, account, http, keeper }
    }

    /// Kills it, and starts it again on the same disk once `meanwhile` is done.
    fn kill_and_restart(&mut self, site: &Site, meanwhile: impl FnOnce()) {
        self.process.kill().unwrap();
        meanwhile();
        self.process = run(site, self.keeper.as_ref());
    }

    /// The small disk as this process sees it.
    fn disk(&self, site: &Site) -> PathBuf {
        let keeper = self.keeper.as_ref().expect("there is a small disk");
        PathBuf::from(format!("/proc/{}/root{}", keeper.pid(), state_dir(site).display()))
    }

    /// Leaves no room on the small disk; gives the file that takes it.
    fn fill_disk(&self, site: &Site) -> PathBuf {
        let ballast = self.disk(site).join("ballast");
        // dd ends with an error when the disk is full, which is what is wanted.
        Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", ballast.display())).output().unwrap();
        ballast
    }

    /// The sum of a metric over all series that have the label.
    fn metric(&self, name: &str, label: &str) -> u64 {
        let text = http_get(&self.http, "/metrics").map(|(_, text)| text).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }

    fn wait(&self, what: &str, mut reached: impl FnMut() -> bool) {
        let found = wait_for(what, 120, || reached().then_some(()));
        found.unwrap_or_else(|error| panic!("{error}\n{}", self.process.tail()));
    }

    fn wait_for_drops(&self, reason: &str) {
        let label = format!("reason=\"{reason}\"");
        self.wait("rows to be dropped", || self.metric("racklake_collector_rows_dropped_total", &label) > 300);
    }

    fn wait_for_frames(&self, more: u64) {
        let published = || self.metric("racklake_collector_frames_published_total", "table=\"gpu_sample\"");
        let before = published();
        self.wait("frames to be published", || published() > before + more);
    }

    fn health(&self) -> (u16, String) {
        http_get(&self.http, "/healthz").unwrap()
    }

    /// Ends it and ingest in order, and compares account, lake and coverage.
    fn check(mut self, site: &Site, ingest: Ingest, reason: &str, kills: usize) {
        assert!(self.process.is_running(), "{}", self.process.tail());
        let status = self.process.terminate(60).unwrap();
        assert!(status.success(), "{status}\n{}", self.process.tail());
        site.wait_until_drained(&ingest, &TABLES, 60).unwrap();
        site.stop_ingest(ingest).unwrap();
        let (lake, account) = (site.lake().display().to_string(), self.account.display().to_string());
        println!("{}", python::run("check_spool_limits.py", &[&lake, &account, reason, &kills.to_string()]).unwrap());
    }
}

/// Runs the collector of the site's config, where its small disk is if it has one.
fn run(site: &Site, keeper: Option<&Process>) -> Process {
    let program = binaries::path("racklake-collector").unwrap().display().to_string();
    let config = site.folder.join("node-1.toml").display().to_string();
    let log = [("NO_COLOR", "1")];
    let start = |program: &str, arguments: &[&str]| {
        Process::start_in("node-1", Path::new(program), arguments, &site.folder, &log).unwrap()
    };
    match keeper.map(|keeper| keeper.pid().to_string()) {
        Some(pid) => {
            let enter = ["--target", &pid, "--user", "--preserve-credentials", "--mount", "--"];
            start("nsenter", &[&enter[..], &[&program, "--config", &config]].concat())
        }
        None => start(&program, &["--config", &config]),
    }
}

fn state_dir(site: &Site) -> PathBuf {
    site.folder.join("node-1-state")
}

fn start_site(name: &str, group: &str) -> (Site, Ingest) {
    let site = Site::new(name).unwrap();
    let ingest = site.start_ingest("ingest", group).unwrap();
    TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    (site, ingest)
}

#[test]
fn what_the_bound_of_the_spool_drops_is_what_coverage_says() {
    let _turn = turn();
    let (site, ingest) = start_site("spool_bound", "spool-bound");
    let collector = Collector::start(&site, false);
    collector.wait_for_frames(5);
    site.broker.kill().unwrap();
    collector.wait_for_drops("spool_full");
    let (status, body) = collector.health();
    assert!(status == 503 && body.contains("spool.bytes_max"), "{status} {body}");
    site.broker.restart().unwrap();
    collector.wait_for_frames(40);
    collector.check(&site, ingest, "spool_full", 0);
}

#[test]
fn what_a_full_spool_disk_costs_is_what_coverage_says() {
    let _turn = turn();
    let (site, ingest) = start_site("spool_disk", "spool-disk");
    let collector = Collector::start(&site, true);
    collector.wait_for_frames(5);
    let ballast = collector.fill_disk(&site);
    collector.wait_for_drops("spool_unwritable");
    let (status, body) = collector.health();
    assert!(status == 503 && body.contains("spool: ") && body.contains("make room"), "{status} {body}");
    std::fs::remove_file(&ballast).unwrap();
    collector.wait("the spool to be written again", || !collector.health().1.contains("cannot be written"));
    collector.wait_for_frames(10);
    collector.check(&site, ingest, "spool_unwritable", 0);
}

#[test]
fn what_a_kill_while_the_spools_disk_is_full_costs_is_what_coverage_says() {
    let _turn = turn();
    let (site, ingest) = start_site("spool_disk_kill", "spool-disk-kill");
    let mut collector = Collector::start(&site, true);
    collector.wait_for_frames(5);
    let ballast = collector.fill_disk(&site);
    collector.wait("the journal to fail", || collector.health().1.contains("journal: "));
    let rows = || collector.metric("racklake_collector_rows_total", "table=\"gpu_sample\"");
    let before = rows();
    collector.wait("rows that only memory holds", || rows() > before + 50);
    collector.kill_and_restart(&site, || std::fs::remove_file(&ballast).unwrap());
    collector.wait("the collector to be back", || http_get(&collector.http, "/healthz").is_ok());
    collector.wait_for_frames(10);
    collector.check(&site, ingest, "spool_not_written", 1);
}
