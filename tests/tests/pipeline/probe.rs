//! `racklake-collector probe gpu`: every GPU answered for in time, whatever one of them does.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use racklake_nvml_sim::{Scenario, install, library_path};
use racklake_tests::binaries;
use serde_json::Value;

/// Two deadlines of a read; what a busy machine adds to them is allowed for beside.
const TWO_DEADLINES: Duration = Duration::from_secs(2);

const SCENARIO: &str = "[[gpu]]\nunsupported = [\"nvmlDeviceGetFanSpeed_v2\"]\n\
                        [[gpu]]\nhang = [\"nvmlDeviceGetPowerUsage\"]\n\
                        [[gpu]]\nlost = true\n\
                        [[gpu]]\ngarbage = [\"nvmlDeviceGetUtilizationRates\", \"nvmlDeviceGetName\"]\n\
                        fail = { nvmlDeviceGetPowerUsage = 4 }\n\
                        [[gpu]]\nhang = [\"nvmlDeviceGetPciInfo_v3\"]\n";

fn probe(scenario: &str, arguments: &[&str]) -> (bool, String, Duration) {
    let folder = tempfile::tempdir().unwrap();
    let built = library_path().expect("cargo builds the simulated library beside the tests");
    let library = install(&built, folder.path(), "node", &Scenario::parse(scenario).unwrap()).unwrap();
    let program = binaries::path("racklake-collector").unwrap();
    let began = Instant::now();
    let output = Command::new(program).args(["probe", "gpu", "--library"]).arg(&library).args(arguments).output();
    let (output, took) = (output.unwrap(), began.elapsed());
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap(), took)
}

#[test]
fn a_probe_answers_for_every_gpu_within_two_deadlines_though_some_hang_or_are_lost() {
    let (succeeded, text, took) = probe(SCENARIO, &["--json"]);
    assert!(succeeded && took < 2 * TWO_DEADLINES, "{took:?}: {text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    let gpus = told["gpus"].as_array().unwrap();
    let statuses: Vec<&str> = gpus.iter().map(|gpu| gpu["status"].as_str().unwrap()).collect();
    let mut sorted = statuses.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["fresh", "fresh", "lost", "stale", "stale"], "{statuses:?}");

    let healthy = &gpus[0];
    assert!(healthy["device_id"].as_str().unwrap().starts_with("GPU-"));
    assert!(healthy["pci_bus_id"].as_str().unwrap().starts_with("0000:"));
    let energy = &healthy["columns"]["energy_millijoules"];
    assert!(energy["value"].as_i64().unwrap() > 0 && energy["us"].is_u64(), "{energy}");
    let fan = &healthy["columns"]["fan_speed_percent"];
    assert_eq!((&fan["null"], &fan["code"]), (&"unsupported".into(), &3.into()));
    assert!(healthy["columns"]["ecc_corrected_volatile"]["value"].is_i64(), "the slow tier is read too");

    let stale = gpus.iter().find(|gpu| gpu["status"] == "stale" && !gpu["device_id"].is_null()).unwrap();
    assert_eq!(stale["columns"]["power_milliwatts"]["null"], "not_read");
    let garbage = gpus.iter().find(|gpu| gpu["columns"]["power_milliwatts"]["code"] == 4).unwrap();
    assert_eq!(garbage["status"], "fresh");
    let load = &garbage["columns"]["gpu_utilization_percent"];
    assert_eq!((&load["null"], &load["code"]), (&"failed".into(), &1000.into()), "not the code of another column");

    let names = |gpu: &Value| gpu["columns"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let links = |name: &String| name.starts_with("link");
    let of_healthy: BTreeSet<String> = names(healthy).into_iter().filter(|name| !links(name)).collect();
    assert!(gpus.iter().all(|gpu| names(gpu).is_superset(&of_healthy)), "every GPU has every column");
}

#[test]
fn a_probe_shows_the_mig_instances_of_a_gpu_with_what_they_have_of_their_own() {
    let scenario = "[[gpu]]\n[[gpu.mig]]\ngpu_instance = 1\n[[gpu.mig]]\ngpu_instance = 5\nslices = 3\n[[gpu]]\n";
    let (succeeded, text, _) = probe(scenario, &["--json"]);
    assert!(succeeded, "{text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    let gpus = told["gpus"].as_array().unwrap();
    let word = |gpu: &Value, name: &str| gpu[name].as_str().unwrap_or_default().to_owned();
    let instances: Vec<&Value> = gpus.iter().filter(|gpu| word(gpu, "pci_bus_id").contains("/gi")).collect();
    assert_eq!((gpus.len(), instances.len()), (4, 2), "{text}");
    for instance in instances {
        assert!(word(instance, "device_id").starts_with("MIG-"), "{instance}");
        assert_eq!(word(instance, "status"), "fresh");
        assert!(instance["columns"]["memory_used_bytes"]["value"].is_i64(), "{instance}");
        assert_eq!(instance["columns"]["fan_speed_percent"]["null"], "unsupported");
    }
}

#[test]
fn a_probe_for_people_names_each_column_and_why_one_is_empty() {
    let (succeeded, text, _) = probe("[[gpu]]\nfail = { nvmlDeviceGetPowerUsage = 999 }\n", &[]);
    assert!(succeeded, "{text}");
    let line = |name: &str| text.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned();
    assert!(text.lines().next().unwrap().ends_with("fresh"), "{text}");
    assert!(line("power_milliwatts").contains("failed, code 999"), "{}", line("power_milliwatts"));
    assert!(line("gpu_temp_celsius").ends_with("us"), "{}", line("gpu_temp_celsius"));
}

#[test]
fn a_probe_without_a_driver_says_what_to_do() {
    let (succeeded, text, _) = probe("no_driver = true\n", &["--json"]);
    assert!(!succeeded && text.contains("modprobe"), "{text}");
}
