//! Fixture trees in place of a host: what its sensors give, and what broken ones cost.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use racklake_schemas::tables::host_sensor_sample as c;
use racklake_schemas::{fail_code, row_status};

use super::*;
use crate::source::Identity;

/// A folder that stands for `/`.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Tree {
        let tree = Tree { folder: tempfile::tempdir().unwrap() };
        tree.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        tree
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap();
    }

    /// A chip as the kernel shows it: below its device, with links to and from it.
    fn chip(&self, number: u32, device: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.path(&format!("sys/devices/{device}/hwmon/hwmon{number}/name")).parent().unwrap().to_owned();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        symlink(self.root().join("sys/devices").join(device), folder.join("device")).unwrap();
        symlink(&folder, self.path(&format!("sys/class/hwmon/hwmon{number}"))).unwrap();
        folder
    }

    fn source(&self) -> HwmonSource {
        HwmonSource::new(&HwmonConfig { root: self.root().to_owned(), ..HwmonConfig::default() }, "n1")
    }

    async fn read(&self) -> Vec<Row> {
        let source = self.source();
        source.discover().await.unwrap();
        source.read("n1", &HOST_SENSOR_SAMPLE).await.rows
    }

    async fn identity(&self) -> Option<Identity> {
        self.source().discover().await.unwrap().into_iter().next().and_then(|found| found.identity)
    }
}

fn names(rows: &[Row]) -> Vec<&str> {
    let name = |row: &'_ Row| match row.cell(c::SENSOR) {
        Cell::Text(name) => name.clone().leak() as &str,
        _ => "",
    };
    rows.iter().map(name).collect()
}

fn of<'a>(rows: &'a [Row], name: &str) -> &'a Row {
    let place = names(rows).iter().position(|other| *other == name);
    &rows[place.unwrap_or_else(|| panic!("{name} is not in {:?}", names(rows)))]
}

fn nvme(celsius: &str) -> [(&'static str, String); 3] {
    [("name", "nvme\n".to_owned()), ("temp1_input", celsius.to_owned()), ("temp1_label", "Composite\n".to_owned())]
}

#[tokio::test]
async fn each_sensor_has_a_row_with_its_value_limits_and_alarm() {
    let tree = Tree::new();
    let files = [
        ("name", "nct6798\n"),
        ("temp1_input", "-12500\n"),
        ("temp1_max", "80000\n"),
        ("temp1_crit", "95000\n"),
        ("temp1_crit_alarm", "0\n"),
        ("temp1_max_alarm", "1\n"),
        ("temp1_fault", "0\n"),
        ("in0_input", "1816\n"),
        ("in0_min", "0\n"),
        ("fan2_input", "1450\n"),
        ("power1_average", "25000000\n"),
        ("power1_label", "PSU\n"),
        ("power1_cap", "750000000\n"),
        ("energy1_input", "123456789012\n"),
        ("curr1_input", "500\n"),
        ("humidity1_input", "45000\n"),
        ("pwm1", "120\n"),
    ];
    tree.chip(0, "platform/nct6775.656", &files);
    let rows = tree.read().await;
    let sensors = ["curr1", "energy1", "fan2", "humidity1", "in0", "PSU", "temp1"];
    let mut found = names(&rows);
    found.sort_by_key(|name| name.to_lowercase());
    assert_eq!(found, sensors.map(|name| format!("nct6798/{name}")));
    let temp = of(&rows, "nct6798/temp1");
    assert_eq!((temp.status(), temp.failed_mask()), (row_status::OK, 0));
    assert_eq!(*temp.cell(c::TEMP_MILLIDEGREES_CELSIUS), Cell::I64(-12500));
    assert_eq!((temp.cell(c::LIMIT_MAX), temp.cell(c::LIMIT_CRIT)), (&Cell::I64(80000), &Cell::I64(95000)));
    assert_eq!((temp.cell(c::ALARM), temp.cell(c::FAULT)), (&Cell::I64(1), &Cell::I64(0)));
    assert_eq!(*temp.cell(c::SENSOR_KIND), Cell::Text("temperature".to_owned()));
    // What the sensor does not have is unsupported, not failed.
    assert_ne!(temp.unsupported_mask() & (1 << 1 | 1 << 7), 0);
    let cell = |name: &str, column: usize| of(&rows, name).cell(column).clone();
    assert_eq!(cell("nct6798/in0", c::VOLTAGE_MILLIVOLTS), Cell::I64(1816));
    assert_eq!(cell("nct6798/curr1", c::CURRENT_MILLIAMPERES), Cell::I64(500));
    assert_eq!(cell("nct6798/fan2", c::FAN_REVOLUTIONS_PER_MINUTE), Cell::I64(1450));
    assert_eq!(cell("nct6798/PSU", c::POWER_MICROWATTS), Cell::I64(25_000_000));
    assert_eq!(cell("nct6798/PSU", c::LIMIT_MAX), Cell::I64(750_000_000));
    assert_eq!(cell("nct6798/energy1", c::ENERGY_MICROJOULES), Cell::I64(123_456_789_012));
    assert_eq!(cell("nct6798/humidity1", c::HUMIDITY_THOUSANDTHS_PERCENT), Cell::I64(45_000));
}

#[tokio::test]
async fn a_sensor_that_fails_costs_its_own_value_alone() {
    let tree = Tree::new();
    let files = [("name", "chip"), ("temp1_input", "n/a"), ("temp2_input", "41000"), ("temp4_input", "99999999999")];
    let folder = tree.chip(0, "platform/chip.0", &files);
    // Reading a folder fails with an errno, as a broken sensor does.
    std::fs::create_dir(folder.join("temp3_input")).unwrap();
    let rows = tree.read().await;
    let told = |name: &str| (of(&rows, name).status(), of(&rows, name).fail_code(), of(&rows, name).failed_mask());
    assert_eq!(told("chip/temp1"), (row_status::PARTIAL, Some(fail_code::UNPARSABLE), 1));
    assert_eq!(told("chip/temp2"), (row_status::OK, None, 0));
    assert_eq!(told("chip/temp3"), (row_status::PARTIAL, Some(libc::EISDIR), 1));
    assert_eq!(told("chip/temp4"), (row_status::PARTIAL, Some(fail_code::OUT_OF_RANGE), 1));
}

#[tokio::test]
async fn a_sensor_that_hangs_is_stale_and_the_others_are_read() {
    let tree = Tree::new();
    let folder = tree.chip(0, "platform/chip.0", &[("name", "chip"), ("temp1_input", "1"), ("temp3_input", "3")]);
    // A FIFO that nobody writes blocks whoever opens it.
    let made = std::process::Command::new("mkfifo").arg(folder.join("temp2_input")).status().unwrap();
    assert!(made.success());
    let source = tree.source();
    source.discover().await.unwrap();
    for _ in 0..2 {
        let rows = source.read("n1", &HOST_SENSOR_SAMPLE).await.rows;
        let statuses: Vec<i8> = rows.iter().map(Row::status).collect();
        assert_eq!(statuses, [row_status::OK, row_status::STALE, row_status::OK], "{:?}", names(&rows));
    }
    // Lets the thread go.
    std::fs::write(folder.join("temp2_input"), "2").unwrap();
}

#[tokio::test]
async fn equal_chips_are_told_apart_by_the_address_of_their_device_whatever_their_number() {
    let names_with = async |first: u32, second: u32| {
        let tree = Tree::new();
        for (number, device) in [
            (first, "pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0"),
            (second, "pci0000:00/0000:00:1b.0/0000:04:00.0/nvme/nvme1"),
        ] {
            let files = nvme(if device.contains("nvme0") { "30000" } else { "40000" });
            let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
            tree.chip(number, device, &files);
        }
        for (number, cpu) in [(first + 10, "platform/coretemp.0"), (second + 10, "platform/coretemp.1")] {
            tree.chip(number, cpu, &[("name", "coretemp"), ("temp1_input", "50000")]);
        }
        // Two disks behind one controller have its address in common.
        for (number, port) in [(first + 20, "ata1/host0"), (second + 20, "ata2/host1")] {
            let device = format!("pci0000:00/0000:00:17.0/{port}");
            tree.chip(number, &device, &[("name", "drivetemp"), ("temp1_input", "20000")]);
        }
        let rows = tree.read().await;
        let value = |row: &Row| format!("{:?}", row.cell(c::TEMP_MILLIDEGREES_CELSIUS));
        names(&rows).into_iter().map(str::to_owned).zip(rows.iter().map(value)).collect::<Vec<_>>()
    };
    let found = names_with(0, 1).await;
    let expected = [
        ("coretemp@coretemp.0/temp1", "I64(50000)"),
        ("coretemp@coretemp.1/temp1", "I64(50000)"),
        ("drivetemp@0000:00:17.0.ata1.host0/temp1", "I64(20000)"),
        ("drivetemp@0000:00:17.0.ata2.host1/temp1", "I64(20000)"),
        ("nvme@0000:03:00.0/Composite", "I64(30000)"),
        ("nvme@0000:04:00.0/Composite", "I64(40000)"),
    ];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(names_with(1, 0).await, found);
}

#[tokio::test]
async fn a_device_that_sleeps_is_not_woken_and_a_gpu_is_left_to_its_own_source() {
    let tree = Tree::new();
    tree.chip(0, "pci0000:00/0000:05:00.0", &[("name", "mlx5"), ("temp1_input", "50000")]);
    tree.write("sys/devices/pci0000:00/0000:05:00.0/power/runtime_status", "suspended\n");
    tree.chip(1, "pci0000:00/0000:06:00.0", &[("name", "amdgpu"), ("temp1_input", "60000")]);
    let rows = tree.read().await;
    assert_eq!(names(&rows), ["mlx5@0000:05:00.0/temp1"]);
    assert_eq!((rows[0].status(), rows[0].failed_mask()), (row_status::OK, 0));
    assert_eq!(*rows[0].cell(c::TEMP_MILLIDEGREES_CELSIUS), Cell::Null);
    assert_eq!(rows[0].unsupported_mask() & 1, 0, "it has a temperature; it was not read");
}

#[tokio::test]
async fn the_host_is_known_by_a_hash_of_its_machine_id() {
    let tree = Tree::new();
    assert!(tree.identity().await.is_none(), "a host without sensors is no device");
    tree.chip(0, "virtual/thermal/thermal_zone0", &[("name", "acpitz"), ("temp1_input", "27800")]);
    tree.write("sys/class/dmi/id/product_name", "PowerEdge XE9680\n");
    let identity = tree.identity().await.unwrap();
    let id = identity.device_id.unwrap();
    assert!(id.len() == "host:".len() + 16 && id.starts_with("host:") && !id.contains("0123456789abcdef"), "{id}");
    assert_eq!(*identity.row.cell(racklake_schemas::tables::device::MODEL), Cell::Text("PowerEdge XE9680".to_owned()));
    tree.write("etc/machine-id", "fedcba9876543210fedcba9876543210\n");
    assert_ne!(tree.identity().await.unwrap().device_id.unwrap(), id);
    tree.write("etc/machine-id", "uninitialized\n");
    assert_eq!(tree.identity().await.unwrap().device_id, None);
}

#[tokio::test]
async fn a_sensor_that_vanishes_is_told_as_missing() {
    let tree = Tree::new();
    let folder = tree.chip(0, "platform/chip.0", &[("name", "chip"), ("temp1_input", "1000")]);
    let source = tree.source();
    source.discover().await.unwrap();
    std::fs::remove_file(folder.join("temp1_input")).unwrap();
    source.discover().await.unwrap();
    let rows = source.read("n1", &HOST_SENSOR_SAMPLE).await.rows;
    assert_eq!((rows.len(), rows[0].fail_code()), (1, Some(fail_code::MISSING)));
}
