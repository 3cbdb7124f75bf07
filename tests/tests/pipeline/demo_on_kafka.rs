//! What a new user tries: the demo on a real Kafka that is stopped and started again meanwhile, and then `verify`.

use std::process::Command;
use std::time::Duration;

use racklake_tests::process::Process;
use racklake_tests::site::Site;
use racklake_tests::{binaries, turn_alone, wait_for};

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
