//! A row holds what the library has served, column by column.

use racklake_nvml_sim::Answer;
use racklake_schemas::tables::{DEVICE, GPU_SAMPLE};
use racklake_schemas::{Cell, Column, ValueType, row_status};

use crate::support::{Node, device_id, discovered, marked, row, value};

/// Columns with the call, argument and part of the answer that they come from.
const SOURCES: [(&str, &str, Option<i64>, &str); 37] = [
    ("energy_millijoules", "nvmlDeviceGetTotalEnergyConsumption", None, ""),
    ("gpu_temp_celsius", "nvmlDeviceGetTemperature", Some(0), ""),
    ("memory_temp_celsius", "field:82:0", None, ""),
    ("power_milliwatts", "nvmlDeviceGetPowerUsage", None, ""),
    ("power_instant_milliwatts", "field:186:0", None, ""),
    ("power_limit_milliwatts", "nvmlDeviceGetEnforcedPowerLimit", None, ""),
    ("graphics_clock_megahertz", "nvmlDeviceGetClockInfo", Some(0), ""),
    ("sm_clock_megahertz", "nvmlDeviceGetClockInfo", Some(1), ""),
    ("memory_clock_megahertz", "nvmlDeviceGetClockInfo", Some(2), ""),
    ("video_clock_megahertz", "nvmlDeviceGetClockInfo", Some(3), ""),
    ("gpu_utilization_percent", "nvmlDeviceGetUtilizationRates", None, "gpu"),
    ("memory_utilization_percent", "nvmlDeviceGetUtilizationRates", None, "memory"),
    ("encoder_utilization_percent", "nvmlDeviceGetEncoderUtilization", None, "utilization"),
    ("decoder_utilization_percent", "nvmlDeviceGetDecoderUtilization", None, "utilization"),
    ("memory_used_bytes", "nvmlDeviceGetMemoryInfo", None, "used"),
    ("memory_total_bytes", "nvmlDeviceGetMemoryInfo", None, "total"),
    ("throttle_reasons_mask", "nvmlDeviceGetCurrentClocksThrottleReasons", None, ""),
    ("performance_state", "nvmlDeviceGetPerformanceState", None, ""),
    ("fan_speed_percent", "nvmlDeviceGetFanSpeed_v2", Some(0), ""),
    ("throttle_power_nanoseconds", "field:74:0", None, ""),
    ("throttle_thermal_nanoseconds", "field:75:0", None, ""),
    ("throttle_sync_boost_nanoseconds", "field:76:0", None, ""),
    ("throttle_board_limit_nanoseconds", "field:77:0", None, ""),
    ("throttle_low_utilization_nanoseconds", "field:78:0", None, ""),
    ("throttle_reliability_nanoseconds", "field:79:0", None, ""),
    ("power_average_milliwatts", "field:185:0", None, ""),
    ("module_power_instant_milliwatts", "field:186:1", None, ""),
    ("module_power_average_milliwatts", "field:185:1", None, ""),
    ("memory_power_instant_milliwatts", "field:186:2", None, ""),
    ("memory_power_average_milliwatts", "field:185:2", None, ""),
    ("temp_margin_celsius", "nvmlDeviceGetMarginTemperature", None, "marginTemperature"),
    ("throttle_sw_thermal_nanoseconds", "field:251:0", None, ""),
    ("throttle_hw_thermal_nanoseconds", "field:252:0", None, ""),
    ("throttle_hw_power_brake_nanoseconds", "field:253:0", None, ""),
    ("jpeg_utilization_percent", "nvmlDeviceGetJpgUtilization", None, "utilization"),
    ("ofa_utilization_percent", "nvmlDeviceGetOfaUtilization", None, "utilization"),
    ("bar1_used_bytes", "nvmlDeviceGetBAR1MemoryInfo", None, "bar1Used"),
];

fn served(answers: &[Answer], call: &str, arg: Option<i64>, part: &str) -> i64 {
    let answer =
        answers.iter().find(|a| a.call == call && a.arg == arg).unwrap_or_else(|| panic!("{call} was not asked"));
    let value = if part.is_empty() { &answer.value } else { &answer.value[part] };
    value.as_i64().unwrap_or_else(|| panic!("{call} gave {value}"))
}

#[tokio::test]
async fn every_column_is_what_the_library_served() {
    let node = Node::new("[[gpu]]\ncount = 3\n");
    let (source, _events, found) = discovered(&node).await;
    let told: Vec<_> = SOURCES.iter().map(|source| source.0).collect();
    // Lists, means between two reads and what NVML says of its own reading have no single answer behind them.
    let has_answer = |c: &&Column| {
        let from_nvml = c.source.starts_with("nvmlDevice") || c.source.starts_with("field ");
        c.bit.is_some() && from_nvml && c.value_type != ValueType::ListI32
    };
    let in_catalog: Vec<_> = GPU_SAMPLE.columns.iter().filter(has_answer).map(|c| c.name).collect();
    assert_eq!(told, in_catalog, "a column of the table is not compared");
    assert_eq!(found.len(), 3);
    for gpu in &found {
        let before = node.account().len();
        let row = row(&source, gpu).await;
        // The thread that waits for events may still be asking for them.
        let is_of_events = |answer: &Answer| answer.call.contains("Event") && !answer.call.ends_with("Reasons");
        let mut answers: Vec<_> = node.account().into_iter().skip(before).collect();
        // Room for a sample of GPM is nobody's.
        answers.retain(|answer| !is_of_events(answer) && answer.device.is_some());
        let device = Some(device_id(gpu));
        assert!(answers.iter().all(|answer| answer.device == device), "another GPU was asked");
        assert_eq!(answers[0].call, SOURCES[0].1, "the energy counter is read first");
        for (name, call, arg, part) in SOURCES {
            assert_eq!(value(&row, name), Some(served(&answers, call, arg, part)), "{name}");
        }
        assert_eq!((row.status(), row.failed_mask()), (row_status::OK, 0));
        assert_eq!(marked(row.unsupported_mask()), [""; 0], "only what GPUs of another make have");
    }
}

#[tokio::test]
async fn no_two_samples_of_a_gpu_are_alike() {
    let node = Node::new("[[gpu]]\nworkload = \"idle\"\n");
    let (source, _events, found) = discovered(&node).await;
    let mut last = 0;
    for _ in 0..50 {
        let reading = racklake_collector::source::Source::read(&source, &found[0].address, &GPU_SAMPLE).await;
        let energy = value(&reading.rows[0], "energy_millijoules").unwrap();
        assert!(energy > last, "{energy} after {last}");
        assert_eq!(reading.lifetime[0], Some(energy));
        last = energy;
    }
}

#[tokio::test]
async fn a_gpu_says_who_it_is() {
    let node = Node::new("[[gpu]]\n[[gpu]]\nuuid = \"GPU-5a\"\nserial = \"1650099\"\npci = \"00000000:9B:00.0\"\n");
    let other = Node::new("");
    let (_source, _events, found) = discovered(&node).await;
    let second = found.iter().find(|found| found.address == "0000:9b:00.0").unwrap();
    let identity = second.identity.as_ref().unwrap();
    assert_eq!(identity.device_id.as_deref(), Some("GPU-5a"));
    let cell = |name: &str| identity.row.cell(DEVICE.columns.iter().position(|c| c.name == name).unwrap()).clone();
    for (name, text) in [
        ("device_kind", "gpu"),
        ("vendor", "nvidia"),
        ("model", "NVIDIA H100 80GB HBM3"),
        ("serial", "1650099"),
        ("uuid", "GPU-5a"),
        ("pci_bus_id", "0000:9b:00.0"),
        ("vbios_version", "96.00.74.00.0D"),
        ("inforom_version", "G520.0200.00.05"),
        ("board_part_number", "692-2G520-0200-000"),
        ("driver_version", "570.124.06"),
        ("nvml_version", "12.570.124.06"),
        ("architecture", "Hopper"),
    ] {
        assert_eq!(cell(name), Cell::from(text), "{name}");
    }
    let numbers = [cell("pcie_generation_max"), cell("pcie_width_max"), cell("memory_total_bytes")];
    assert_eq!(numbers, [Cell::I64(5), Cell::I64(16), Cell::I64(85_520_809_984)]);

    let (_source, _events, elsewhere) = discovered(&other).await;
    let ids: std::collections::BTreeSet<_> = found.iter().chain(&elsewhere).map(device_id).collect();
    assert_eq!(ids.len(), 10, "two copies of the library are two nodes");
}
