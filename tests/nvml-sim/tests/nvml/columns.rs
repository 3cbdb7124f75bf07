//! Every column of the four tables about GPUs is filled by some GPU of these nodes: none is only on paper.

use std::collections::BTreeSet;
use std::time::Duration;

use racklake_collector::nvml::NvmlSource;
use racklake_collector::source::{Found, Source};
use racklake_schemas::tables::{DEVICE, GPU_HEALTH, GPU_LINK_SAMPLE, GPU_SAMPLE};
use racklake_schemas::{Cell, Column, Row, Table, row_status};

use crate::support::{Node, PATIENCE, discovered};

/// GPUs of every kind, in a fabric and in a superchip, with fans and instances.
const NODES: [&str; 2] = [
    "[[gpu]]\narchitecture = \"volta\"\nname = \"Tesla V100-PCIE-32GB\"\nnvlinks = 2\n\
     [[gpu]]\narchitecture = \"ampere\"\nname = \"NVIDIA A100\"\nnvlinks = 12\nmig = [{ gpu_instance = 3 }]\n",
    "driver_version = \"580.95.05\"\n[[gpu]]\nc2c_links = 5\nfans = 2\n\
     [[gpu]]\narchitecture = \"blackwell\"\nname = \"NVIDIA B200\"\n",
];

/// Whether a column comes from NVML, by what the catalog says.
fn is_of_nvml(column: &Column) -> bool {
    let source = column.source;
    source.starts_with("nvml")
        || source.starts_with("field ")
        || source.starts_with("GPM ")
        || source.contains("link_state")
}

fn note(filled: &mut BTreeSet<String>, row: &Row) {
    let columns = row.table().columns.iter().enumerate();
    let there = columns.filter(|(index, _)| *row.cell(*index) != Cell::Null);
    filled.extend(there.map(|(_, column)| format!("{}.{}", row.table().name, column.name)));
}

async fn rows(source: &NvmlSource, gpu: &Found, table: &'static Table) -> Vec<Row> {
    tokio::time::timeout(PATIENCE, source.read(&gpu.address, table)).await.expect("the GPU answers").rows
}

#[tokio::test]
async fn every_column_about_gpus_is_filled_by_some_gpu() {
    let mut filled = BTreeSet::new();
    for text in NODES {
        let node = Node::new(text);
        let (source, _events, found) = discovered(&node).await;
        for gpu in &found {
            note(&mut filled, &gpu.identity.as_ref().unwrap().row);
            for table in [&GPU_SAMPLE, &GPU_HEALTH, &GPU_SAMPLE] {
                let rows = rows(&source, gpu, table).await;
                assert_eq!(rows[0].fail_code(), None, "{} of {}: {:?}", table.name, gpu.address, rows[0]);
                rows.iter().for_each(|row| note(&mut filled, row));
                // Two samples of GPM are a tenth of a second apart at least.
                tokio::time::sleep(Duration::from_millis(120)).await;
            }
        }
    }
    let mut empty = Vec::new();
    for table in [&GPU_SAMPLE, &GPU_HEALTH, &GPU_LINK_SAMPLE, &DEVICE] {
        let names = table.columns.iter().filter(|column| is_of_nvml(column)).map(|column| column.name);
        empty.extend(names.map(|name| format!("{}.{name}", table.name)).filter(|name| !filled.contains(name)));
    }
    assert_eq!(empty, [""; 0], "no GPU has filled these");
}

#[tokio::test]
async fn a_gpu_has_a_row_for_each_of_its_links() {
    let node = Node::new("[[gpu]]\nnvlinks = 4\n");
    let (source, _events, found) = discovered(&node).await;
    let rows = rows(&source, &found[0], &GPU_HEALTH).await;
    let number = |row: &Row, name: &str| match row.cell(row.table().column(name).unwrap()) {
        Cell::I64(value) => Some(*value),
        _ => None,
    };
    let links: Vec<_> = rows[1..].iter().map(|row| (row.table().name, number(row, "link"))).collect();
    assert_eq!(links, [0, 1, 2, 3].map(|link| ("gpu_link_sample", Some(link))));
    assert_eq!((number(&rows[0], "nvlinks"), number(&rows[0], "nvlinks_active")), (Some(4), Some(4)));
}

#[tokio::test]
async fn a_mig_instance_is_a_device_of_its_own_and_lacks_what_only_the_whole_gpu_has() {
    let mut node = Node::new("[[gpu]]\nmig = [{ gpu_instance = 3 }, { gpu_instance = 5 }]\n");
    let (source, _events, found) = discovered(&node).await;
    let addresses: Vec<_> = found.iter().map(|found| found.address.as_str()).collect();
    assert_eq!(addresses, ["0000:1b:00.0", "0000:1b:00.0/gi3/ci0", "0000:1b:00.0/gi5/ci0"]);
    let identity = found[1].identity.as_ref().unwrap();
    let cell = |name: &str| identity.row.cell(DEVICE.column(name).unwrap()).clone();
    assert!(identity.device_id.as_deref().unwrap().starts_with("MIG-"));
    let parent = found[0].identity.as_ref().unwrap().device_id.clone();
    assert_eq!(
        (cell("device_kind"), cell("mig_parent"), cell("gpu_instance")),
        ("mig".into(), parent.into(), 3.into())
    );
    assert_eq!(cell("pci_bus_id"), "0000:1b:00.0".into());
    let first = rows(&source, &found[1], &GPU_SAMPLE).await.remove(0);
    let memory = first.table().column("memory_used_bytes").unwrap();
    let power = first.table().column("power_milliwatts").unwrap();
    assert_ne!(*first.cell(memory), Cell::Null);
    assert!(first.is_unsupported(power) && !first.has_failed(power));
    assert_eq!((first.status(), first.fail_code()), (row_status::OK, None));
    // One that is gone is listed no more, and the other stays.
    node.change(|scenario| drop(scenario.gpu[0].mig.remove(0)));
    let left: Vec<_> = source.discover().await.unwrap().into_iter().map(|found| found.address).collect();
    assert_eq!(left, ["0000:1b:00.0", "0000:1b:00.0/gi5/ci0"]);
    assert_eq!(rows(&source, &found[1], &GPU_SAMPLE).await[0].status(), row_status::UNREACHABLE);
}

#[tokio::test]
async fn throttle_times_have_their_fields_before_and_after_they_were_renumbered() {
    for driver in ["570.124.06", "580.95.05"] {
        let node = Node::new(&format!("driver_version = \"{driver}\"\n[[gpu]]\n"));
        let (source, _events, found) = discovered(&node).await;
        let row = rows(&source, &found[0], &GPU_SAMPLE).await.remove(0);
        let answers = node.account();
        for (number, name) in [
            (0, "throttle_sw_thermal_nanoseconds"),
            (1, "throttle_hw_thermal_nanoseconds"),
            (2, "throttle_hw_power_brake_nanoseconds"),
        ] {
            let first = if driver < "580.82" { 251 } else { 269 };
            let call = format!("field:{}:0", first + number);
            let served = answers.iter().rfind(|answer| answer.call == call).and_then(|answer| answer.value.as_i64());
            assert_eq!(
                Some(row.cell(GPU_SAMPLE.column(name).unwrap()).clone()),
                served.map(Cell::from),
                "{driver} {name}"
            );
        }
    }
}
