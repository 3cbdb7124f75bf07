//! Simulated miners as a client sees them.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use racklake_miner_sim::{Fault, MinerSim, Profile, Unit};
use serde_json::Value;

/// The bytes that a command is answered with within half a second, and whether the miner then closed.
fn ask(address: SocketAddr, command: &str) -> (Vec<u8>, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.write_all(format!("{{\"command\":\"{command}\"}}").as_bytes()).unwrap();
    let (mut bytes, mut part) = (Vec::new(), [0; 65536]);
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end && bytes.len() < 1 << 20 {
        match stream.read(&mut part) {
            Ok(0) => return (bytes, true),
            Ok(read) => bytes.extend_from_slice(&part[..read]),
            Err(_) => {}
        }
    }
    (bytes, false)
}

fn reply(address: SocketAddr, command: &str) -> Value {
    let (bytes, closed) = ask(address, command);
    assert!(closed);
    serde_json::from_slice(bytes.strip_suffix(b"\0").unwrap()).unwrap()
}

fn start(folder: &Path, units: Vec<Unit>) -> MinerSim {
    MinerSim::start(units, &folder.join("account")).unwrap()
}

fn account(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("account")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_answer_is_in_the_account_and_no_two_samples_are_alike() {
    let folder = tempfile::tempdir().unwrap();
    let units = vec![Unit::new("a", Profile::Avalon1246), Unit::new("b", Profile::AvalonQ)];
    let sim = start(folder.path(), units);
    let mut told = Vec::new();
    for _ in 0..3 {
        for address in sim.addresses() {
            told.extend(["version", "summary", "stats", "pools"].map(|command| reply(address, command)));
        }
    }
    let lines = account(folder.path());
    let written: Vec<&Value> = lines.iter().map(|line| &line["reply"]).collect();
    assert_eq!(written, told.iter().collect::<Vec<_>>());
    for unit in ["a", "b"] {
        let own: Vec<&Value> = lines.iter().filter(|line| line["unit"] == unit).collect();
        assert_eq!(
            own.iter().map(|line| line["call"].as_u64().unwrap()).collect::<Vec<_>>(),
            (1..=12).collect::<Vec<_>>()
        );
        let accepted =
            own.iter().filter_map(|line| line["reply"]["SUMMARY"][0]["Accepted"].as_i64()).collect::<Vec<_>>();
        assert!(accepted.len() == 3 && accepted.is_sorted_by(|a, b| a < b), "{accepted:?}");
        let version = &own[0]["reply"]["VERSION"][0];
        assert_eq!((&version["DNA"], &version["MAC"]), (&own[0]["serial"], &own[0]["mac"]));
    }
    assert_ne!(lines[0]["serial"], lines[4]["serial"]);
    assert_ne!(lines[0]["mac"], lines[4]["mac"]);
}

#[test]
fn a_working_unit_moves_and_a_verbatim_one_says_what_was_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let verbatim = Unit { verbatim: true, ..Unit::new("v", Profile::Avalon1246) };
    let sim = start(folder.path(), vec![Unit::new("a", Profile::AvalonQ), verbatim]);
    let [moving, still] = sim.addresses()[..] else { panic!("two units") };
    let first = reply(moving, "stats");
    let text = first["STATS"][0]["MM ID0:Summary"].as_str().unwrap();
    assert!(text.contains("Work: In Work") && !text.contains("GHSspd[0.00]") && !text.contains("TMax[0]"), "{text}");
    assert_ne!(first["STATS"][0]["HBinfo"], reply(moving, "stats")["STATS"][0]["HBinfo"]);
    let recorded: Value = serde_json::from_str(include_str!("../recordings/avalon_1246/stats.json")).unwrap();
    assert_eq!(reply(still, "stats"), recorded);
}

#[test]
fn a_restart_and_another_machine_begin_the_counters_again() {
    let folder = tempfile::tempdir().unwrap();
    let sim = start(folder.path(), vec![Unit::new("a", Profile::Avalon1246)]);
    let address = sim.addresses()[0];
    let before = reply(address, "summary")["SUMMARY"][0].clone();
    sim.reboot(0);
    let after = reply(address, "summary")["SUMMARY"][0].clone();
    for counter in ["Accepted", "Elapsed", "Hardware Errors", "Difficulty Accepted"] {
        assert!(after[counter].as_f64() < before[counter].as_f64(), "{counter}");
    }
    sim.replace(0, "0201000012345678", "02:00:00:00:00:07");
    assert_eq!(reply(address, "version")["VERSION"][0]["DNA"], "0201000012345678");
}

#[test]
fn faults_of_the_answer_are_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let sim = start(folder.path(), vec![Unit::new("a", Profile::Avalon1246)]);
    let address = sim.addresses()[0];
    let is_json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes.strip_suffix(b"\0").unwrap_or(bytes)).is_ok();
    // Fault, least and most bytes, whether the miner closes, whether a strict reader can read it.
    for (fault, bytes, closes, strict) in [
        (Fault::Hang, 0..=0, false, false),
        (Fault::Empty, 0..=0, true, false),
        (Fault::SlowDrip, 1..=40, false, false),
        (Fault::HalfJson, 100..=1000, true, false),
        (Fault::Stall, 100..=1000, false, false),
        (Fault::Garbage, 10..=100, true, false),
        (Fault::Endless, 1 << 20..=1 << 21, false, false),
        (Fault::NoNul, 300..=2000, false, true),
        (Fault::RawNewline, 300..=2000, true, false),
        (Fault::Nan, 300..=2000, true, false),
        (Fault::TextAfterEnd, 300..=2000, true, false),
        (Fault::AccessDenied, 50..=200, true, true),
        (Fault::Http401, 50..=200, true, false),
    ] {
        sim.set_fault(0, Some(fault), &["summary"]);
        let (answer, closed) = ask(address, "summary");
        assert!(bytes.contains(&answer.len()), "{fault:?}: {} bytes", answer.len());
        assert_eq!((closed, is_json(&answer)), (closes, strict), "{fault:?}");
        assert!(is_json(&ask(address, "pools").0), "{fault:?} struck another command");
    }
    sim.set_fault(0, Some(Fault::RefuseConnection), &[]);
    assert!(TcpStream::connect(address).is_err());
    sim.set_fault(0, None, &[]);
    reply(address, "summary");
}

#[test]
fn a_changed_scenario_file_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scenario.toml");
    std::fs::write(&path, "[[unit]]\nname = \"a\"\ncount = 2\nprofile = \"avalon_q\"\n").unwrap();
    let sim = MinerSim::start_scenario(&path, &folder.path().join("account")).unwrap();
    assert_eq!(sim.names(), ["a-0", "a-1"]);
    let address = sim.addresses()[1];
    reply(address, "summary");
    std::fs::write(&path, "[[unit]]\nname = \"a-1\"\nprofile = \"avalon_q\"\nfault = \"empty\"\n").unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while !ask(address, "summary").0.is_empty() {
        assert!(Instant::now() < end, "the change was not noticed");
    }
}
