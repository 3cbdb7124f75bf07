//! Fixture trees in place of a driver: what an AMD GPU gives, and what a sleeping, unknown or vanished one does.

use std::path::{Path, PathBuf};

use racklake_schemas::Cell;
use racklake_schemas::tables::{device, gpu_health as h, gpu_sample as c};

use super::metrics::Quantity as Q;
use super::metrics::tests::table;
use super::*;

const ADDRESS: &str = "0000:c1:00.0";

/// A folder that stands for `/`, with one GPU.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Tree {
        let tree = Tree { folder: tempfile::tempdir().unwrap() };
        for (file, text) in [
            ("vendor", "0x1002\n"),
            ("device", "0x74a1\n"),
            ("uevent", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:C1:00.0\n"),
            ("unique_id", "8C4F21D0A1B2C3D4\n"),
            ("power/runtime_status", "active\n"),
            ("gpu_busy_percent", "97\n"),
            ("mem_info_vram_total", "206141652992\n"),
            ("mem_info_vram_used", "1073741824\n"),
            ("current_link_speed", "32.0 GT/s PCIe\n"),
            ("current_link_width", "16\n"),
            ("pcie_replay_count", "3\n"),
            // Reading it would cost a second; a number in the row would show that it was read.
            ("pcie_bw", "1 1 128\n"),
            ("aer_dev_correctable", "RxErr 2\nBadTLP 1\nTOTAL_ERR_COR 3\n"),
            ("hwmon/hwmon7/name", "amdgpu\n"),
            ("hwmon/hwmon7/temp1_label", "edge\n"),
            ("hwmon/hwmon7/temp1_input", "41999\n"),
            ("hwmon/hwmon7/temp2_label", "junction\n"),
            ("hwmon/hwmon7/temp2_input", "55000\n"),
            ("hwmon/hwmon7/temp2_crit", "100000\n"),
            ("hwmon/hwmon7/freq1_label", "sclk\n"),
            ("hwmon/hwmon7/freq1_input", "2100000000\n"),
            ("hwmon/hwmon7/power1_average", "650123000\n"),
            ("hwmon/hwmon7/power1_cap", "750000000\n"),
            ("hwmon/hwmon7/fan1_input", "3200\n"),
            ("hwmon/hwmon7/pwm1", "128\n"),
            ("ras/umc_err_count", "ue: 1\nce: 40\n"),
            ("ras/gfx_err_count", "ue: 0\nce: 2\n"),
            ("ras/gpu_vram_bad_pages", "0x00000001 : 0x00001000 : R\n0x00000002 : 0x00001000 : P\n"),
        ] {
            tree.write(file, text);
        }
        tree.metrics(&table(5, &[(Q::MemoryTemp, 49), (Q::Energy, 65536), (Q::PcieRecoveries, 7)]));
        tree
    }

    fn path(&self, file: &str) -> PathBuf {
        let path = self.folder.path().join("sys/class/drm/card1/device").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    fn metrics(&self, bytes: &[u8]) {
        std::fs::write(self.path("gpu_metrics"), bytes).unwrap();
    }

    async fn source(&self) -> (AmdSource, Vec<Found>) {
        let source = AmdSource::new(&AmdConfig { root: self.folder.path().to_owned(), ..AmdConfig::default() });
        let found = source.discover().await.unwrap();
        (source, found)
    }
}

async fn sample(source: &AmdSource) -> Reading {
    source.read(ADDRESS, &GPU_SAMPLE).await
}

fn events(reading: &Reading) -> Vec<&str> {
    reading.events.iter().map(|event| event.event).collect()
}

#[tokio::test]
async fn a_gpu_is_known_by_its_unique_id_and_other_cards_are_passed_over() {
    let tree = Tree::new();
    let other = tree.folder.path().join("sys/class/drm/card0/device");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("vendor"), "0x10de\n").unwrap();
    std::fs::create_dir_all(tree.folder.path().join("sys/class/drm/card1-DP-1")).unwrap();
    let (_, found) = tree.source().await;
    let identity = found[0].identity.clone().unwrap();
    assert_eq!((found.len(), found[0].address.as_str()), (1, ADDRESS));
    assert_eq!(identity.device_id.as_deref(), Some("amd:8c4f21d0a1b2c3d4"));
    assert_eq!(*identity.row.cell(device::MODEL), Cell::Text("PCI device 1002:74a1".to_owned()));
    tree.write("unique_id", "0000000000000000\n");
    assert_eq!(tree.source().await.1[0].identity.clone().unwrap().device_id, None);
}

#[tokio::test]
async fn a_sample_has_what_hwmon_tells_and_from_the_table_what_it_lacks() {
    let tree = Tree::new();
    let (source, _) = tree.source().await;
    let reading = sample(&source).await;
    let row = &reading.rows[0];
    assert_eq!((row.status(), row.fail_code(), events(&reading).len()), (row_status::OK, None, 0));
    for (column, value) in [
        (c::GPU_TEMP_CELSIUS, 41),
        (c::JUNCTION_TEMP_CELSIUS, 55),
        (c::MEMORY_TEMP_CELSIUS, 49),
        (c::POWER_MILLIWATTS, 650_123),
        (c::POWER_LIMIT_MILLIWATTS, 750_000),
        (c::GRAPHICS_CLOCK_MEGAHERTZ, 2100),
        (c::GPU_UTILIZATION_PERCENT, 97),
        (c::MEMORY_USED_BYTES, 1 << 30),
        (c::FAN_SPEED_PERCENT, 50),
        (c::ENERGY_MILLIJOULES, 1000),
    ] {
        assert_eq!(*row.cell(column), Cell::I64(value), "{}", GPU_SAMPLE.columns[column].name);
    }
    assert_eq!(*row.cell(c::FANS_RPM), Cell::List(vec![Some(3200)]));
    assert!(row.is_unsupported(c::SM_CLOCK_MEGAHERTZ) && row.is_unsupported(c::VIDEO_CLOCK_MEGAHERTZ));
    assert_eq!(reading.lifetime, [Some(1000)]);
}

#[tokio::test]
async fn health_has_error_counts_pages_and_the_link() {
    let tree = Tree::new();
    let (source, _) = tree.source().await;
    let row = source.read(ADDRESS, &GPU_HEALTH).await.rows.remove(0);
    for (column, value) in [
        (h::ECC_UNCORRECTED_VOLATILE, 1),
        (h::ECC_CORRECTED_VOLATILE, 42),
        (h::ECC_DRAM_CORRECTED_VOLATILE, 40),
        (h::PAGES_RETIRED_UNCORRECTED, 1),
        (h::PAGE_RETIREMENT_PENDING, 1),
        (h::PCIE_GENERATION, 5),
        (h::PCIE_WIDTH, 16),
        (h::PCIE_REPLAYS, 3),
        (h::PCIE_RECOVERIES, 7),
        (h::PCIE_CORRECTABLE_ERRORS, 3),
        (h::PCIE_BAD_TLPS, 1),
        (h::TEMP_LIMIT_SLOWDOWN_CELSIUS, 100),
    ] {
        assert_eq!(*row.cell(column), Cell::I64(value), "{}", GPU_HEALTH.columns[column].name);
    }
    assert!(row.is_unsupported(h::NVLINKS) && row.is_unsupported(h::PCIE_FATAL_ERRORS));
    tree.write("ras/gfx_err_count", "not ready\n");
    let row = source.read(ADDRESS, &GPU_HEALTH).await.rows.remove(0);
    assert!(row.has_failed(h::ECC_CORRECTED_VOLATILE), "a sum without one of its parts is none");
    assert_eq!(*row.cell(h::ECC_DRAM_CORRECTED_VOLATILE), Cell::I64(40));
}

#[tokio::test]
async fn a_sleeping_gpu_is_not_read_and_told_once() {
    let tree = Tree::new();
    let (source, _) = tree.source().await;
    tree.write("power/runtime_status", "suspended\n");
    let asleep = sample(&source).await;
    assert_eq!(events(&asleep), ["gpu_suspended"]);
    let row = &asleep.rows[0];
    assert_eq!((row.status(), row.failed_mask(), row.cell(c::GPU_TEMP_CELSIUS)), (row_status::OK, 0, &Cell::Null));
    assert!(events(&sample(&source).await).is_empty());
    tree.write("power/runtime_status", "active\n");
    let awake = sample(&source).await;
    assert_eq!((events(&awake), awake.rows[0].cell(c::GPU_TEMP_CELSIUS)), (vec!["gpu_resumed"], &Cell::I64(41)));
}

#[tokio::test]
async fn an_unknown_table_is_told_once_and_hwmon_is_read_on() {
    let tree = Tree::new();
    let mut bytes = table(8, &[]);
    bytes[3] = 42;
    tree.metrics(&bytes);
    let (source, _) = tree.source().await;
    let reading = sample(&source).await;
    assert_eq!(events(&reading), ["gpu_metrics_unknown"]);
    assert!(reading.events[0].details_json.as_ref().unwrap().contains("\"content_revision\":42"));
    assert_eq!(*reading.rows[0].cell(c::JUNCTION_TEMP_CELSIUS), Cell::I64(55));
    assert!(events(&sample(&source).await).is_empty());
}

#[tokio::test]
async fn a_broken_file_costs_its_own_column() {
    let tree = Tree::new();
    tree.metrics(&[0, 0]);
    tree.write("hwmon/hwmon7/temp2_input", "n/a\n");
    let (source, _) = tree.source().await;
    let row = sample(&source).await.rows.remove(0);
    assert_eq!((row.status(), row.fail_code()), (row_status::PARTIAL, Some(fail_code::UNPARSABLE)));
    assert!(row.has_failed(c::JUNCTION_TEMP_CELSIUS) && row.has_failed(c::ENERGY_MILLIJOULES));
    assert_eq!(*row.cell(c::GPU_TEMP_CELSIUS), Cell::I64(41));
}

#[tokio::test]
async fn a_gpu_that_the_driver_no_longer_shows_is_lost() {
    let tree = Tree::new();
    let (source, _) = tree.source().await;
    std::fs::remove_dir_all(tree.path("vendor").parent().unwrap() as &Path).unwrap();
    for table in source.tiers() {
        let row = source.read(ADDRESS, table).await.rows.remove(0);
        assert_eq!((row.status(), row.fail_code()), (row_status::LOST, Some(fail_code::MISSING)), "{}", table.name);
    }
}
