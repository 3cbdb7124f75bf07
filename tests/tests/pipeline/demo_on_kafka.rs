//! What a new user tries: the demo on a real Kafka that is stopped and started again meanwhile, then `verify`; and the demo
//! on the GPUs of the machine.

use std::process::Command;
use std::time::Duration;

use racklake_tests::process::Process;
use racklake_tests::site::Site;
use racklake_tests::{binaries, turn, turn_alone, wait_for};

#[test]
fn the_demo_outlives_a_kafka_that_is_away_and_its_lake_is_complete() {
    let _turn = turn_alone();
    let site = Site::new("demo_on_kafka").unwrap();
    let lake = site.lake().display().to_string();
    let demo = binaries::path("racklake").unwrap();
    let arguments = ["demo", "--seconds", "30", "--lake", &lake, "--bootstrap-servers", site.broker.bootstrap()];
    let mut demo = Process::start("demo", &demo, &arguments, &site.folder).unwrap();
    let committed = || std::fs::read_dir(site.lake().join("gpu_sample/_delta_log")).ok()?.nth(1);
    wait_for("the first rows", 60, committed).map(drop).unwrap_or_else(|error| panic!("{error}\n{}", demo.tail()));
    site.broker.kill().unwrap();
    std::thread::sleep(Duration::from_secs(8));
    site.broker.restart().unwrap();
    let status = demo.wait(180).unwrap();
    assert!(status.success(), "{status}\n{}", demo.tail());
    println!("{}", demo.tail());

    let mut verify = Command::new(binaries::path("racklake-lake").unwrap());
    let told = verify.args(["verify", &lake]).output().unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    println!("{text}");
    assert!(told.status.success() && text.contains("complete: every frame is there, whole, once"), "{text}");
}

#[test]
fn the_demo_on_the_gpus_of_the_machine_reads_the_library_that_the_loader_finds() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let built = racklake_nvml_sim::library_path().expect("cargo builds the simulated library beside the tests");
    // Nobody names it: it lies where the loader looks for a driver's.
    std::fs::copy(built, folder.path().join("libnvidia-ml.so.1")).unwrap();
    let lake = folder.path().join("lake").display().to_string();
    let mut demo = Command::new(binaries::path("racklake").unwrap());
    demo.args(["demo", "--real", "--seconds", "5", "--lake", &lake]).env("LD_LIBRARY_PATH", folder.path());
    let output = demo.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let rows = text.lines().find_map(|line| line.strip_prefix("gpu_sample ")?.split_whitespace().next()?.parse().ok());
    assert!(rows.is_some_and(|rows: u32| rows >= 8), "{text}");
    assert!(text.contains("hottest in gpu_sample: GPU-"), "{text}");
}
