//! NVIDIA's own Python binding reads the simulated library, so that the simulator is not only right by its own measure.

use racklake_nvml_sim::{Scenario, install, library_path};
use racklake_tests::python;

/// A GPU with everything different from the default, one that MIG divides and that has no fan, one of an old kind.
const SCENARIO: &str = r#"
account = "account.jsonl"
[[gpu]]
value_types = { "field:82" = 5 }
xid = [{ code = 79 }]
power_limit_watts = 500
counters = { dram_corrected = 41, dram_uncorrected = 2, sram_corrected = 3, sram_parity = 5, sram_secded = 7, remapped_corrected = 11, remapped_uncorrected = 13, remap_inactive_uncorrected = 17, pcie_replay = 19, pcie_fatal = 23 }
remap_pending = true
repair_pending = [true, false]
sram_threshold_exceeded = true
unrepairable_memory = true
time_run_seconds = 123456
recovery_action = 4
pcie = [4, 8]
processes = 2
platform = { chassis_serial = "1820224000999", slot = 9, tray = 4, host = 2, peer_type = 1, module = 6 }
fabric = { state = 3, clique = 77, health_mask = 0x1a9, health_summary = 2 }
link = [{ link = 3, counters = { nvlink_replay = 29, nvlink_crc_flit = 31 } }, { link = 9, down = true }]
[[gpu]]
fan = "none"
mig = [{ gpu_instance = 7, compute_instance = 0, slices = 1, memory_mb = 9728 }, { gpu_instance = 9, compute_instance = 1, slices = 3, memory_mb = 40192 }]
[[gpu]]
architecture = "volta"
counters = { retired_uncorrected = 2, l1_corrected = 37 }
"#;

#[test]
fn nvidias_own_binding_reads_what_the_simulated_library_serves() {
    let folder = tempfile::tempdir().unwrap();
    let built = library_path().expect("cargo builds the simulated library beside the tests");
    let library = install(&built, folder.path(), "node", &Scenario::parse(SCENARIO).unwrap()).unwrap();
    let account = folder.path().join("account.jsonl");
    let arguments = [library.display().to_string(), account.display().to_string()];
    println!("{}", python::run("read_nvml.py", &arguments.each_ref().map(String::as_str)).unwrap());
}
