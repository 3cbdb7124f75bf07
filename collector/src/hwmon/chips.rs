//! Finds the chips of hwmon and their sensors, and gives each sensor a name that is the same at every boot.
//!
//! The number of `hwmonN` depends on the order in which drivers were loaded, so it is part of no name: a chip is called by
//! its driver's name and the bus address of its device, `nvme@0000:03:00.0`; one that sits on no bus by its driver's
//! name alone, as long as that is the only one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::sysfs;

/// Chips of this driver are GPUs, which another source reads, and which a read would wake.
const GPU_DRIVER: &str = "amdgpu";
/// Longest label that is kept.
const LABEL_MAX: usize = 64;

/// What a sensor measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Temperature,
    Voltage,
    Current,
    Power,
    Energy,
    Fan,
    Humidity,
}

impl Kind {
    /// All kinds, with the name of their attributes and the one in the lake.
    pub(super) const ALL: [(Kind, &'static str, &'static str); 7] = [
        (Kind::Temperature, "temp", "temperature"),
        (Kind::Voltage, "in", "voltage"),
        (Kind::Current, "curr", "current"),
        (Kind::Power, "power", "power"),
        (Kind::Energy, "energy", "energy"),
        (Kind::Fan, "fan", "fan"),
        (Kind::Humidity, "humidity", "humidity"),
    ];

    /// Name in the lake.
    pub(super) fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(.., name)| name)
    }
}

/// One sensor of one chip.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sensor {
    /// `chip/label`, unique on this host.
    pub(super) name: String,
    /// Name of the chip's driver.
    pub(super) chip: String,
    pub(super) label: String,
    pub(super) kind: Kind,
    /// Folder of the attributes.
    pub(super) folder: PathBuf,
    /// What the names of its attributes begin with: `temp1`.
    pub(super) attribute: String,
    /// The attributes that there are, without that beginning: `input`, `max`, `crit_alarm`.
    pub(super) has: BTreeSet<String>,
}

/// A chip on its way to a name.
struct Chip {
    driver: String,
    /// Bus address of its device.
    address: Option<String>,
    /// Path of its device, for chips that share the rest.
    place: String,
    folder: PathBuf,
}

/// All sensors under a root, in the order of their names. A chip without a name, or one that cannot be listed, is left out.
pub(super) fn find(root: &Path) -> Vec<Sensor> {
    let Ok(entries) = std::fs::read_dir(root.join("sys/class/hwmon")) else { return Vec::new() };
    let mut chips: Vec<Chip> = entries.filter_map(|entry| Chip::of(&entry.ok()?.path())).collect();
    chips.sort_by(|a, b| a.place.cmp(&b.place));
    let mut sensors = Vec::new();
    for (chip, name) in chips.iter().zip(names(&chips)) {
        sensors.extend(sensors_of(chip, &name));
    }
    sensors.sort_by(|a: &Sensor, b| a.name.cmp(&b.name));
    sensors
}

impl Chip {
    fn of(folder: &Path) -> Option<Chip> {
        let driver = sysfs::text(&folder.join("name")).or_else(|_| sysfs::text(&folder.join("device/name"))).ok()?;
        if driver.is_empty() || driver == GPU_DRIVER {
            return None;
        }
        // A class device without a device of its own lies in its parent's folder.
        let device = folder.join("device").canonicalize();
        let device =
            device.or_else(|_| folder.canonicalize().map(|real| real.parent().map_or(real.clone(), Path::to_owned)));
        let place = device.unwrap_or_else(|_| folder.to_owned());
        let names: Vec<&str> = place.components().filter_map(name_of).collect();
        let address = names.iter().rev().find(|name| is_address(name)).map(|name| (*name).to_owned());
        Some(Chip { driver: clean(&driver), address, place: names.join("/"), folder: folder.to_owned() })
    }
}

fn name_of(component: Component<'_>) -> Option<&str> {
    match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    }
}

/// Whether a name is an address on PCI (`0000:03:00.0`) or I2C (`6-0048`), which stay the same between boots.
fn is_address(name: &str) -> bool {
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let pci = |name: &str| {
        let (rest, function) = name.rsplit_once('.')?;
        let mut parts = rest.rsplitn(3, ':');
        let (device, bus, domain) = (parts.next()?, parts.next()?, parts.next()?);
        Some(digits(device, 2) && digits(bus, 2) && domain.len() >= 4 && digits(function, 1))
    };
    let i2c = |name: &str| {
        let (bus, address) = name.split_once('-')?;
        Some(!bus.is_empty() && bus.bytes().all(|b| b.is_ascii_digit()) && digits(address, 4))
    };
    pci(name).or_else(|| i2c(name)).unwrap_or(false)
}

/// The names of chips, in their order. Those that share driver and address are told apart by the path of their device.
fn names(chips: &[Chip]) -> Vec<String> {
    let short = |chip: &Chip| match &chip.address {
        Some(address) => format!("{}@{address}", chip.driver),
        None => chip.driver.clone(),
    };
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    chips.iter().for_each(|chip| *count.entry(short(chip)).or_default() += 1);
    let long = |chip: &Chip| {
        let after = chip.address.as_deref().and_then(|address| chip.place.split_once(&format!("{address}/")));
        let last = chip.place.rsplit('/').next().unwrap_or_default();
        match (&chip.address, after) {
            (Some(address), Some((_, rest))) => format!("{}@{address}.{}", chip.driver, rest.replace('/', ".")),
            _ => format!("{}@{last}", chip.driver),
        }
    };
    let name = |chip: &Chip| if count[&short(chip)] > 1 { long(chip) } else { short(chip) };
    let mut names: Vec<String> = chips.iter().map(name).collect();
    tell_apart(&mut names);
    names
}

/// Numbers the second and further of equal names, in their order.
fn tell_apart(names: &mut [String]) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        let number = seen.entry(name.clone()).or_default();
        *number += 1;
        if *number > 1 {
            *name = format!("{name}#{number}");
        }
    }
}

fn sensors_of(chip: &Chip, name: &str) -> Vec<Sensor> {
    let mut folder = chip.folder.clone();
    let mut found = attributes(&folder);
    if found.is_empty() {
        // Drivers of old put their attributes into the device's folder.
        folder.push("device");
        found = attributes(&folder);
    }
    let attribute = |(kind, number): (Kind, u32)| {
        let prefix = Kind::ALL.iter().find(|(other, ..)| *other == kind).map_or("", |(_, prefix, _)| prefix);
        format!("{prefix}{number}")
    };
    let label = |attribute: &str| {
        let label = sysfs::text(&folder.join(format!("{attribute}_label"))).ok().map(|label| clean(&label));
        label.filter(|label| !label.is_empty()).unwrap_or_else(|| attribute.to_owned())
    };
    let mut labels: BTreeMap<String, usize> = BTreeMap::new();
    let measured = found.into_iter().filter(|(_, has)| has.contains("input") || has.contains("average"));
    let sensors: Vec<_> = measured.map(|(key, has)| (key.0, attribute(key), label(&attribute(key)), has)).collect();
    sensors.iter().for_each(|(_, _, label, _)| *labels.entry(label.clone()).or_default() += 1);
    let sensor = |(kind, attribute, label, has): (Kind, String, String, BTreeSet<String>)| {
        let shared = labels[&label] > 1 && label != attribute;
        let shown = if shared { format!("{label} ({attribute})") } else { label.clone() };
        let name = format!("{name}/{shown}");
        Sensor { name, chip: chip.driver.clone(), label, kind, folder: folder.clone(), attribute, has }
    };
    sensors.into_iter().map(sensor).collect()
}

/// The attributes in a folder, by sensor.
fn attributes(folder: &Path) -> BTreeMap<(Kind, u32), BTreeSet<String>> {
    let mut found: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Some((key, suffix)) = parse(&entry.file_name()) {
            found.entry(key).or_default().insert(suffix);
        }
    }
    found
}

/// Kind, number and suffix of an attribute: `temp1_crit_alarm`.
fn parse(name: &OsStr) -> Option<((Kind, u32), String)> {
    let (head, suffix) = name.to_str()?.split_once('_')?;
    let kind = |&(kind, prefix, _): &(Kind, &str, &str)| {
        let number = head.strip_prefix(prefix)?;
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if is_number { Some((kind, number.parse().ok()?)) } else { None }
    };
    Some((Kind::ALL.iter().find_map(kind)?, suffix.to_owned()))
}

/// A name without what would hide in a table.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '/' { ' ' } else { c }).take(LABEL_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_buses_are_known_from_other_names() {
        for address in ["0000:03:00.0", "10000:e1:00.0", "6-0048"] {
            assert!(is_address(address), "{address}");
        }
        for other in ["nvme0", "coretemp.0", "0:0:0:0", "hwmon3", "thermal_zone0", "PNP0C0A:00", "i2c-6"] {
            assert!(!is_address(other), "{other}");
        }
    }

    #[test]
    fn attributes_are_parsed_by_kind_and_number() {
        let parsed = |name: &str| parse(OsStr::new(name));
        assert_eq!(parsed("in0_input"), Some(((Kind::Voltage, 0), "input".to_owned())));
        assert_eq!(parsed("temp12_crit_alarm"), Some(((Kind::Temperature, 12), "crit_alarm".to_owned())));
        for other in ["pwm1_enable", "intrusion0_alarm", "temp_input", "temp1", "update_interval", "in+1_input"] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }
}
