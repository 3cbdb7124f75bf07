//! NVML that does not come back: one GPU whose calls hang, an init that hangs, a worker that is killed. The other GPUs are
//! read on, what happens is told, and nobody has to start anything again.

use std::path::PathBuf;
use std::time::Duration;

use racklake_nvml_sim::Scenario;
use racklake_schemas::clock::Clock;
use racklake_tests::process::Process;
use racklake_tests::site::{Ingest, Site, http_get};
use racklake_tests::{python, turn, wait_for};
use serde_json::{Value, json};

const TABLES: [&str; 4] = ["gpu_sample", "event", "device", "coverage"];
/// Between two reads of a GPU, in milliseconds.
const PERIOD: u64 = 500;
/// When a read that has not come back is told, in milliseconds.
const HARD_DEADLINE: u64 = 2000;

/// A collector with simulated GPUs of its own.
struct Node {
    name: &'static str,
    collector: Process,
    library: PathBuf,
    scenario: Scenario,
    http: String,
}

impl Node {
    fn start(site: &Site, name: &'static str, change: impl FnOnce(&mut Scenario)) -> Node {
        let built = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
        let folder = site.folder.join(format!("{name}-nvml"));
        std::fs::create_dir_all(&folder).unwrap();
        let mut scenario = Scenario::parse("account = \"gpu.jsonl\"\n[[gpu]]\n[[gpu]]\n[[gpu]]\n[[gpu]]\n").unwrap();
        scenario.seed = name.bytes().map(u32::from).sum();
        change(&mut scenario);
        let library = racklake_nvml_sim::install(&built, &folder, "node", &scenario).unwrap();
        let tables = format!(
            "[frames]\nage_max = \"500ms\"\n[nvml]\nlibrary = {:?}\nperiod = \"{PERIOD}ms\"\ndeadline = \"{PERIOD}ms\"\n\
             hard_deadline = \"{HARD_DEADLINE}ms\"\n",
            library.display()
        );
        let collector = site.start_collector(name, "", &tables).unwrap();
        let config = std::fs::read_to_string(site.folder.join(format!("{name}.toml"))).unwrap();
        let http = config.split("listen = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
        Node { name, collector, library, scenario, http }
    }

    fn change(&mut self, change: impl FnOnce(&mut Scenario)) {
        change(&mut self.scenario);
        self.scenario.apply_to(&self.library).unwrap();
    }

    fn account(&self) -> PathBuf {
        self.library.with_file_name("gpu.jsonl")
    }

    fn wait<T>(&self, what: &str, seconds: u64, check: impl FnMut() -> Option<T>) -> T {
        wait_for(what, seconds, check).unwrap_or_else(|error| panic!("{error}\n{}", self.collector.tail()))
    }

    /// Waits until `/healthz` says `word`, and gives all that it says.
    fn wait_for_health(&self, code: u16, word: &str) -> String {
        self.wait(&format!("/healthz to say {code} {word}"), 60, || {
            let (status, body) = http_get(&self.http, "/healthz").ok()?;
            (status == code && body.contains(word)).then_some(body)
        })
    }

    /// Waits until GPUs have been read for so long.
    fn wait_for_reads(&self, reads: usize) {
        let served = || std::fs::read_to_string(self.account()).unwrap_or_default().matches("TotalEnergy").count();
        let from = served();
        self.wait("the GPUs to be read", 60, || (served() >= from + reads).then_some(()));
    }

    fn wait_for_log(&self, from: usize, word: &str, seconds: u64) {
        self.wait(&format!("{word} in the log"), seconds, || {
            self.collector.find_line(from, |line| line.contains(word))
        });
    }

    /// The process that calls NVML.
    fn worker(&self) -> Option<u32> {
        self.collector.child("nvml-worker")
    }

    fn kill_worker(&self) {
        self.wait("a worker", 30, || self.collector.kill_child("nvml-worker").unwrap().then_some(()));
    }

    fn stop(&mut self) {
        let status = self.collector.terminate(60).unwrap();
        assert!(status.success(), "{status}\n{}", self.collector.tail());
    }
}

/// Ends ingest and has the lake compared with what the nodes served.
fn prove(site: &Site, ingest: Ingest, nodes: &[(&Node, Value)]) {
    site.wait_until_drained(&ingest, &TABLES, 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    let told: Vec<Value> = nodes
        .iter()
        .map(|(node, told)| {
            let mut told = told.clone();
            told["node"] = json!(node.name);
            told["account"] = json!(node.account().display().to_string());
            told
        })
        .collect();
    let file = site.folder.join("told.json");
    std::fs::write(&file, serde_json::to_vec(&told).unwrap()).unwrap();
    let [lake, file] = [site.lake(), file].map(|path| path.display().to_string());
    println!("{}", python::run("check_hung_gpu.py", &[&lake, &file]).unwrap());
}

fn site(name: &str) -> (Site, Ingest) {
    let site = Site::new(name).unwrap();
    let ingest = site.start_ingest("ingest", name).unwrap();
    TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    (site, ingest)
}

fn calls(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_gpu_that_hangs_is_told_within_two_deadlines_and_costs_the_others_nothing() {
    let _turn = turn();
    let (site, ingest) = site("hung_gpu");
    let mut running = Node::start(&site, "running", |_| {});
    let mut at_start = Node::start(&site, "at-start", |scenario| {
        scenario.gpu[1].hang = calls(&["nvmlDeviceGetName", "nvmlDeviceGetTotalEnergyConsumption"]);
    });
    let mut nameless = Node::start(&site, "nameless", |scenario| {
        scenario.gpu[1].hang = calls(&["nvmlDeviceGetPciInfo_v3"]);
    });
    running.wait_for_reads(40);
    let began = Clock::now_us();
    running.change(|scenario| scenario.gpu[1].hang = calls(&["nvmlDeviceGetPowerUsage"]));
    let said = running.wait_for_health(503, "nvmlDeviceGetPowerUsage");
    assert!(said.contains("0000:43:00.0"), "{said}");
    assert!(at_start.wait_for_health(503, "has not come back").contains("0000:43:00.0"));
    nameless.wait_for_health(503, "nvmlDeviceGetPciInfo_v3");
    std::thread::sleep(Duration::from_secs(4));
    let heal = |scenario: &mut Scenario| scenario.gpu[1].hang.clear();
    for node in [&mut running, &mut at_start, &mut nameless] {
        node.change(heal);
        node.wait_for_health(200, "ok");
    }
    // A GPU that has told its address at last is read.
    nameless.wait_for_reads(30);
    std::thread::sleep(Duration::from_secs(2));
    [&mut running, &mut at_start, &mut nameless].into_iter().for_each(Node::stop);
    let hung = |call: &str, began: Option<i64>| {
        json!({"stalls": 1, "worker_ends": 0, "hung": "0000:43:00.0", "call": call, "began": began,
            "patience": 2 * HARD_DEADLINE * 1000, "period": PERIOD * 1000})
    };
    let nodes = [
        (&running, hung("nvmlDeviceGetPowerUsage", Some(began))),
        (&at_start, hung("nvmlDeviceGetName", None)),
        (&nameless, hung("nvmlDeviceGetPciInfo_v3", None)),
    ];
    prove(&site, ingest, &nodes);
}

#[test]
fn a_worker_that_is_killed_costs_rows_that_say_so_and_no_tick() {
    const KILLS: usize = 4;
    let _turn = turn();
    let (site, ingest) = site("killed_worker");
    // GPUs that take their time, so that kills meet one while it is read.
    let mut node = Node::start(&site, "node-1", |scenario| scenario.gpu.iter_mut().for_each(|gpu| gpu.latency_ms = 8));
    for _ in 0..KILLS {
        node.wait_for_reads(24);
        let from = node.collector.line_count();
        node.kill_worker();
        node.wait_for_log(from, "nvml_worker_ended", 20);
    }
    node.wait_for_reads(24);
    node.wait_for_health(200, "ok");
    node.stop();
    prove(&site, ingest, &[(&node, json!({"stalls": 0, "worker_ends": KILLS, "cut_off": 1, "period": PERIOD * 1000}))]);
}

#[test]
fn nvml_that_hangs_in_its_init_is_told_replaced_and_used_when_it_heals() {
    let _turn = turn();
    let (site, ingest) = site("hung_init");
    let mut node = Node::start(&site, "node-1", |scenario| scenario.hang = calls(&["nvmlInit_v2"]));
    let said = node.wait_for_health(503, "nvmlInit_v2");
    assert!(said.contains("source nvml"), "{said}");
    node.wait_for_log(0, "nvml_worker_ended", 60);
    node.change(|scenario| scenario.hang.clear());
    node.wait_for_reads(24);
    node.wait_for_health(200, "ok");
    node.stop();
    prove(&site, ingest, &[(&node, json!({"stalls": 0, "worker_ends": 1, "period": PERIOD * 1000}))]);
}

#[test]
fn a_worker_whose_gpus_all_hang_is_replaced_even_where_nothing_can_end_it() {
    let _turn = turn();
    let (site, ingest) = site("all_hung");
    let mut node = Node::start(&site, "node-1", |_| {});
    node.wait_for_reads(24);
    let stuck = node.worker().unwrap();
    // As a call in the driver would hold it: no signal ends it while this lives.
    let holder = python::start("hold_process.py", &[&stuck.to_string()]).unwrap();
    node.change(|scenario| scenario.gpu.iter_mut().for_each(|gpu| gpu.hang = calls(&["nvmlDeviceGetPowerUsage"])));
    node.wait_for_log(0, "nvml_worker_ended", 90);
    node.wait_for_log(0, "nvml_worker_orphaned", 60);
    node.change(|scenario| scenario.gpu.iter_mut().for_each(|gpu| gpu.hang.clear()));
    node.wait_for_health(200, "ok");
    node.wait_for_reads(24);
    assert!(std::path::Path::new(&format!("/proc/{stuck}")).exists(), "it has ended all the same");
    drop(holder);
    node.wait("the orphan to end", 30, || (!std::path::Path::new(&format!("/proc/{stuck}")).exists()).then_some(()));
    node.stop();
    let told = json!({"all_hung": true, "orphaned": 1, "worker_ends": 1, "period": PERIOD * 1000});
    prove(&site, ingest, &[(&node, told)]);
}

#[test]
fn nvml_that_is_let_go_is_not_loaded_and_every_tick_is_accounted_for() {
    let _turn = turn();
    let (site, ingest) = site("released");
    let mut node = Node::start(&site, "node-1", |_| {});
    node.wait_for_reads(24);
    let command = |more: &[&str]| {
        let config = site.folder.join("node-1.toml").display().to_string();
        let program = racklake_tests::binaries::path("racklake-collector").unwrap();
        let output = std::process::Command::new(program).args(["release", "--config", &config]).args(more).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    command(&["--for", "5m"]);
    assert_eq!(node.worker(), None, "NVML is loaded still");
    node.wait_for_health(200, "let go");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(node.worker(), None);
    command(&["--resume"]);
    node.wait_for_reads(24);
    // Nobody resumes this one.
    command(&["--for", "4s"]);
    assert_eq!(node.worker(), None, "NVML is loaded still");
    node.wait_for_reads(24);
    node.stop();
    prove(&site, ingest, &[(&node, json!({"stalls": 0, "worker_ends": 0, "released": 2, "period": PERIOD * 1000}))]);
}
