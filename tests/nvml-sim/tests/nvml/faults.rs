//! What a GPU does wrong shows in its own row, as what it is, and nowhere else.

use std::time::Duration;

use racklake_collector::source::Source;
use racklake_schemas::tables::{GPU_HEALTH, GPU_SAMPLE};
use racklake_schemas::{fail_code, row_status};

use crate::support::{Node, PATIENCE, device_id, discovered, marked, row, value};

#[tokio::test]
async fn what_a_gpu_lacks_is_unsupported_and_what_it_refuses_has_failed() {
    let node = Node::new(
        "[[gpu]]\nfan = \"none\"\nunsupported = [\"field:82\", \"nvmlDeviceGetUtilizationRates\"]\n\
         fail = { nvmlDeviceGetPowerUsage = 4, \"field:186\" = 999, nvmlDeviceGetEncoderUtilization = 13 }\n",
    );
    let (source, _events, found) = discovered(&node).await;
    let asked = |call: &str| node.account().iter().filter(|answer| answer.call == call).count();
    // The second row knows what the first has learnt, and must look the same.
    for _ in 0..2 {
        let row = row(&source, &found[0]).await;
        let lacking = [
            "memory_temp_celsius",
            "gpu_utilization_percent",
            "memory_utilization_percent",
            "encoder_utilization_percent",
            "fan_speed_percent",
            "fans_rpm",
        ];
        assert_eq!(marked(row.unsupported_mask()), lacking);
        let failed = [
            "power_milliwatts",
            "power_instant_milliwatts",
            "module_power_instant_milliwatts",
            "memory_power_instant_milliwatts",
        ];
        assert_eq!(marked(row.failed_mask()), failed);
        assert_eq!((row.status(), row.fail_code()), (row_status::PARTIAL, Some(4)));
        assert!(value(&row, "throttle_power_nanoseconds").is_some(), "fields are judged one by one");
    }
    assert_eq!((asked("field:82:0"), asked("nvmlDeviceGetFanSpeed_v2")), (1, 1), "asked again within the hour");
    assert_eq!(asked("nvmlDeviceGetPowerUsage"), 2);
}

#[tokio::test]
async fn rubbish_is_a_failed_read_and_never_a_value() {
    let node = Node::new(
        "[[gpu]]\nambient_celsius = -30\nworkload = \"idle\"\n\
         garbage = [\"nvmlDeviceGetUtilizationRates\", \"nvmlDeviceGetTotalEnergyConsumption\", \"field:74\", \"nvmlDeviceGetName\"]\n\
         value_types = { \"field:82\" = 5, \"field:75\" = 2, \"field:76\" = 6 }\n",
    );
    let (source, _events, found) = discovered(&node).await;
    let row = row(&source, &found[0]).await;
    let failed =
        ["energy_millijoules", "gpu_utilization_percent", "memory_utilization_percent", "throttle_power_nanoseconds"];
    assert_eq!(marked(row.failed_mask()), failed);
    assert_eq!(row.fail_code(), Some(fail_code::OUT_OF_RANGE));
    // A name that is no text costs the name, not the GPU.
    assert!(device_id(&found[0]).starts_with("GPU-"));
    assert!(value(&row, "gpu_temp_celsius").unwrap() < 0, "degrees below zero are degrees");
    assert!(value(&row, "memory_temp_celsius").unwrap() < 0, "a field may be signed");
    assert_eq!(value(&row, "throttle_sync_boost_nanoseconds"), Some(0), "bytes beside the value are not looked at");
}

#[tokio::test]
async fn a_value_that_cannot_be_is_told_once_with_what_was_read() {
    let node = Node::new("[[gpu]]\ngarbage = [\"nvmlDeviceGetPowerUsage\", \"field:94\"]\n");
    let (source, _events, found) = discovered(&node).await;
    let mut told = Vec::new();
    for table in [&GPU_SAMPLE, &GPU_HEALTH, &GPU_SAMPLE, &GPU_HEALTH] {
        let reading = source.read(&found[0].address, table).await;
        let details = reading.events.into_iter().map(|event| (event.event, event.details_json.unwrap()));
        told.extend(details.map(|(event, json)| (event, serde_json::from_str::<serde_json::Value>(&json).unwrap())));
    }
    let told: Vec<_> =
        told.iter().map(|(event, json)| (*event, json["column"].as_str(), json["raw"].as_str())).collect();
    let expected = [
        ("value_implausible", Some("power_milliwatts"), Some("4294967295")),
        ("value_implausible", Some("pcie_replays"), Some("18446744073709551615")),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_hung_gpu_keeps_no_other_waiting() {
    let mut node = Node::new("[[gpu]]\n[[gpu]]\n[[gpu]]\n");
    let (source, _events, found) = discovered(&node).await;
    node.change(|scenario| scenario.gpu[1].hang = vec!["nvmlDeviceGetPowerUsage".to_owned()]);
    let hung = found.iter().find(|found| found.address == "0000:43:00.0").unwrap();
    let mut stuck = Box::pin(source.read(&hung.address, &GPU_SAMPLE));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut stuck).await.is_err(), "the hang is none");
    for gpu in found.iter().filter(|gpu| gpu.address != hung.address) {
        for _ in 0..5 {
            let read = tokio::time::timeout(Duration::from_secs(1), source.read(&gpu.address, &GPU_SAMPLE)).await;
            assert_eq!(read.expect("another GPU waits").rows[0].status(), row_status::OK);
        }
    }
    // Discovery does not wait for it either, and still knows it.
    let again = tokio::time::timeout(PATIENCE, source.discover()).await.unwrap().unwrap();
    assert_eq!(again.iter().filter(|gpu| gpu.identity.is_some()).count(), 2);
    assert_eq!(again.len(), 3);
    node.change(|scenario| scenario.gpu[1].hang.clear());
    let late = tokio::time::timeout(PATIENCE, stuck).await.expect("the call comes back");
    assert_eq!(late.rows[0].status(), row_status::OK);
}

#[tokio::test]
async fn a_lost_gpu_is_told_as_lost_and_comes_back() {
    let mut node = Node::new("[[gpu]]\n[[gpu]]\n");
    let (source, _events, found) = discovered(&node).await;
    let gone = found.iter().find(|found| found.address == "0000:43:00.0").unwrap();
    let stays = found.iter().find(|found| found.address == "0000:1b:00.0").unwrap();
    node.change(|scenario| scenario.gpu[1].lost = true);
    let lost = row(&source, gone).await;
    assert_eq!((lost.status(), lost.fail_code()), (row_status::LOST, Some(15)));
    assert_eq!(marked(lost.unsupported_mask()), [""; 0]);
    assert_eq!(marked(lost.failed_mask()), marked(i64::MAX), "nothing of it was read");
    assert_eq!(row(&source, stays).await.status(), row_status::OK);
    // It is lost, not forgotten: its rows go on saying so.
    assert_eq!(source.discover().await.unwrap().len(), 2);
    node.change(|scenario| scenario.gpu[1].lost = false);
    assert_eq!(row(&source, gone).await.status(), row_status::OK);
}

#[tokio::test]
async fn a_gpu_that_is_lost_between_two_calls_keeps_what_it_said_before() {
    let node = Node::new("[[gpu]]\nfail = { nvmlDeviceGetPowerUsage = 15 }\n");
    let (source, _events, found) = discovered(&node).await;
    let row = row(&source, &found[0]).await;
    assert_eq!((row.status(), row.fail_code()), (row_status::LOST, Some(15)));
    assert!(value(&row, "energy_millijoules").is_some() && value(&row, "gpu_temp_celsius").is_some());
    assert!(marked(row.failed_mask()).contains(&"fan_speed_percent"), "it was asked on");
}

#[tokio::test]
async fn an_xid_arrives_once() {
    let mut node = Node::new("[[gpu]]\n[[gpu]]\n");
    let (_source, mut events, _found) = discovered(&node).await;
    let xid = |code, event_type| racklake_nvml_sim::Xid { code, at: None, event_type };
    node.change(|scenario| scenario.gpu[1].xid = vec![xid(79, 8)]);
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event").unwrap();
    assert_eq!((event.event, event.source, event.code), ("xid", "nvml", Some(79)));
    assert_eq!(event.address.as_deref(), Some("0000:43:00.0"));
    assert_eq!(event.pci_bus_id, event.address);
    // A type that the wrapper does not know keeps its number, and the XID is not told again.
    node.change(|scenario| scenario.gpu[1].xid.push(xid(2, 0x8000)));
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("an event").unwrap();
    assert_eq!((event.event, event.code), ("nvml_event", Some(0x8000)));
    node.change(|scenario| scenario.driver_version = "580.95.05".to_owned());
    assert!(tokio::time::timeout(Duration::from_millis(800), events.recv()).await.is_err(), "an event came twice");
}
