//! The whole path: what the simulated GPUs and miners answered is in the lake exactly once, cell by cell.

use std::path::{Path, PathBuf};
use std::time::Duration;

use racklake_miner_sim::{MinerSim, Profile, Unit};
use racklake_nvml_sim::Scenario;
use racklake_tests::process::Process;
use racklake_tests::site::Site;
use racklake_tests::{lake_tool, python, repository, turn};

const TABLES: [&str; 6] = ["gpu_sample", "miner_sample", "hashboard_sample", "event", "device", "coverage"];

/// The GPUs of each node: healthy ones, passively cooled ones, one whose calls fail in part, one that gets an XID.
const SCENARIOS: [&str; 2] = [
    "account = \"gpu.jsonl\"\n[[gpu]]\ncount = 6\n[[gpu]]\ncount = 2\nunsupported = [\"nvmlDeviceGetFanSpeed_v2\", \"field:82\"]\n",
    "account = \"gpu.jsonl\"\n[[gpu]]\ncount = 6\n[[gpu]]\nfail = { nvmlDeviceGetEncoderUtilization = 999 }\n\
     [[gpu]]\nthermal_resistance_drift_per_hour = 2.0\n",
];

fn install_libraries(site: &Site) -> Vec<PathBuf> {
    let library = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
    let install = |(i, text): (usize, &&str)| {
        let folder = site.folder.join(format!("nvml-{}", i + 1));
        std::fs::create_dir_all(&folder).unwrap();
        racklake_nvml_sim::install(&library, &folder, "node", &Scenario::parse(text).unwrap()).unwrap()
    };
    SCENARIOS.iter().enumerate().map(install).collect()
}

fn start_miners(account: &Path) -> MinerSim {
    let profile = |i: usize| if i.is_multiple_of(2) { Profile::Avalon1246 } else { Profile::AvalonQ };
    let units = (0..4).map(|i| Unit::new(&format!("miner-{i}"), profile(i))).collect();
    MinerSim::start(units, account).unwrap()
}

/// The lines of config that name the miners.
fn miner_tables(miners: &MinerSim) -> String {
    let miner = |address: std::net::SocketAddr| {
        format!("[[miner]]\naddress = \"{}\"\nport = {}\nmake = \"avalon\"\n", address.ip(), address.port())
    };
    miners.addresses().into_iter().map(miner).collect()
}

fn start_collectors(site: &Site, libraries: &[PathBuf], miners: &MinerSim) -> Vec<Process> {
    let miners = miner_tables(miners);
    let start = |(i, library): (usize, &PathBuf)| {
        let mut tables =
            format!("[frames]\nage_max = \"2s\"\n[nvml]\nlibrary = {:?}\nperiod = \"250ms\"\n", library.display());
        if i == 0 {
            tables.push_str(&format!("[miners]\nperiod = \"1s\"\n{miners}"));
        }
        site.start_collector(&format!("node-{}", i + 1), "rack = \"r1\"", &tables).unwrap()
    };
    libraries.iter().enumerate().map(start).collect()
}

#[test]
fn every_answer_of_the_simulators_is_in_the_lake_exactly_once() {
    let _turn = turn();
    let site = Site::new("end_to_end").unwrap();
    let ingest = site.start_ingest("ingest", "end-to-end").unwrap();
    TABLES.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    let miner_account = site.folder.join("miners.jsonl");
    let libraries = install_libraries(&site);
    let miners = start_miners(&miner_account);
    let mut collectors = start_collectors(&site, &libraries, &miners);
    std::thread::sleep(Duration::from_secs(15));
    for collector in &mut collectors {
        assert!(collector.is_running(), "{}", collector.tail());
        let status = collector.terminate(60).unwrap();
        assert!(status.success(), "{status}\n{}", collector.tail());
    }
    miners.stop();
    site.wait_until_drained(&ingest, &TABLES, 60).unwrap();
    site.stop_ingest(ingest).unwrap();

    let (code, report) = lake_tool::verify(&site).unwrap();
    assert_eq!((code, &report["answer"]), (0, &"complete".into()), "{report:#}");
    let lake = site.lake().display().to_string();
    let accounts: Vec<String> =
        libraries.iter().map(|library| library.with_file_name("gpu.jsonl").display().to_string()).collect();
    let miner_account = miner_account.display().to_string();
    let mut arguments = vec![lake.as_str(), "--gpu"];
    arguments.extend(accounts.iter().map(String::as_str));
    arguments.extend(["--miner", &miner_account]);
    println!("{}", python::run("check_lake.py", &arguments).unwrap());
    println!("{}", python::run("readers.py", &[&lake]).unwrap());
    let proto = repository().join("schemas/proto/frame.proto").display().to_string();
    println!("{}", python::run("read_topics.py", &[site.broker.bootstrap(), &site.prefix, &proto, &lake]).unwrap());
}

#[test]
fn the_recorded_replies_of_a_real_miner_reach_the_lake_as_they_are() {
    let _turn = turn();
    let site = Site::new("recorded_miner").unwrap();
    let ingest = site.start_ingest("ingest", "recorded-miner").unwrap();
    let tables = ["miner_sample", "hashboard_sample"];
    tables.iter().for_each(|table| site.wait_for_topic(&ingest, table).unwrap());
    let account = site.folder.join("miners.jsonl");
    let unit = Unit { verbatim: true, ..Unit::new("recorded", Profile::Avalon1246) };
    let miners = MinerSim::start(vec![unit], &account).unwrap();
    let sources = format!("[nvml]\nenabled = false\n[miners]\nperiod = \"500ms\"\n{}", miner_tables(&miners));
    let mut collector = site.start_collector("node-1", "", &sources).unwrap();
    racklake_tests::wait_for("a few polls", 60, || (miners.calls(0) > 12).then_some(())).unwrap();
    assert!(collector.terminate(60).unwrap().success(), "{}", collector.tail());
    site.wait_until_drained(&ingest, &tables, 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    let arguments = [site.lake().display().to_string(), account.display().to_string()];
    println!("{}", python::run("check_recorded.py", &[&arguments[0], &arguments[1]]).unwrap());
}
