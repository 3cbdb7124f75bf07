//! One AMD GPU as the driver shows it in sysfs: where its files are, and who it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use racklake_schemas::tables::{DEVICE, device as c};
use racklake_schemas::{Row, identity};

use crate::source::Identity;
use crate::sysfs::{self, Answer, Trouble};

/// AMD's number as a PCI vendor.
const AMD: &str = "0x1002";

/// A GPU.
#[derive(Debug, Clone)]
pub(super) struct Card {
    /// PCI address, `0000:03:00.0`.
    pub(super) address: String,
    /// The folder of its PCI device.
    folder: PathBuf,
    /// The folder of its hwmon, where it has one.
    hwmon: Option<PathBuf>,
    /// What hwmon calls its attributes: `junction` is `temp2`.
    labels: BTreeMap<String, String>,
}

/// The AMD GPUs under a root, in the order of their addresses. Other makes, and outputs of a card, are passed over.
pub(super) fn find(root: &Path) -> Vec<Card> {
    let entries = std::fs::read_dir(root.join("sys/class/drm")).into_iter().flatten().flatten();
    let is_card = |name: &str| {
        let number = name.strip_prefix("card");
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let cards = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_card));
    let mut cards: Vec<Card> = cards.filter_map(|entry| Card::of(&entry.path().join("device"))).collect();
    cards.sort_by(|a, b| a.address.cmp(&b.address));
    cards.dedup_by(|a, b| a.address == b.address);
    cards
}

impl Card {
    fn of(folder: &Path) -> Option<Card> {
        if sysfs::text(&folder.join("vendor")).ok()? != AMD {
            return None;
        }
        let told = sysfs::text(&folder.join("uevent")).ok();
        let slot = told.as_deref().and_then(|told| told.lines().find_map(|line| line.strip_prefix("PCI_SLOT_NAME=")));
        let real = folder.canonicalize().ok();
        let place = real.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        let address = identity::pci_bus_id(slot.or(place)?);
        let hwmon = first_folder(&folder.join("hwmon"));
        let labels = hwmon.as_deref().map(labels_in).unwrap_or_default();
        Some(Card { address, folder: folder.to_owned(), hwmon, labels })
    }

    /// Whether the driver still shows it.
    pub(super) fn is_there(&self) -> bool {
        sysfs::text(&self.folder.join("vendor")).is_ok_and(|vendor| vendor == AMD)
    }

    /// Whether the kernel has put it to sleep. A read would wake it, and cost seconds of false peaks.
    pub(super) fn is_suspended(&self) -> bool {
        sysfs::text(&self.folder.join("power/runtime_status")).is_ok_and(|status| status == "suspended")
    }

    /// The path of an attribute of its PCI device.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// An integer of its PCI device.
    pub(super) fn integer(&self, name: &str) -> Answer<i64> {
        sysfs::integer(&self.path(name))
    }

    /// An integer of its hwmon.
    pub(super) fn hwmon(&self, name: &str) -> Answer<i64> {
        sysfs::integer(&self.hwmon.as_ref().ok_or(Trouble::Absent)?.join(name))
    }

    /// An integer of what hwmon calls so: `labelled("junction", "crit")`.
    pub(super) fn labelled(&self, label: &str, suffix: &str) -> Answer<i64> {
        let attribute = self.labels.get(label).ok_or(Trouble::Absent)?;
        self.hwmon(&format!("{attribute}_{suffix}"))
    }

    /// Who it is.
    pub(super) fn identity(&self, root: &Path) -> Identity {
        let mut row = Row::new(&DEVICE);
        row.set(c::DEVICE_KIND, "gpu");
        row.set(c::VENDOR, "amd");
        row.set(c::PCI_BUS_ID, self.address.as_str());
        let text = |name: &str| sysfs::text(&self.path(name)).ok().filter(|text| !text.is_empty());
        let number = || Some(format!("PCI device 1002:{}", text("device")?.strip_prefix("0x")?));
        row.set(c::MODEL, text("product_name").or_else(number));
        row.set(c::SERIAL, text("serial_number").and_then(|serial| identity::real_identifier(&serial)));
        row.set(c::BOARD_PART_NUMBER, text("product_number"));
        row.set(c::VBIOS_VERSION, text("vbios_version"));
        row.set(c::DRIVER_VERSION, sysfs::text(&root.join("sys/module/amdgpu/version")).ok());
        let unique = text("unique_id").and_then(|id| identity::real_identifier(&id.to_ascii_lowercase()));
        row.set(c::UUID, unique.as_deref());
        if !self.is_suspended() {
            row.set(c::PCIE_GENERATION_MAX, pcie_generation(&self.path("max_link_speed")).ok());
            row.set(c::PCIE_WIDTH_MAX, self.integer("max_link_width").ok().filter(|width| (1..=32).contains(width)));
            row.set(c::MEMORY_TOTAL_BYTES, self.integer("mem_info_vram_total").ok());
        }
        Identity { device_id: unique.map(|id| format!("amd:{id}")), row }
    }
}

/// The generation of a link whose speed a file tells as `16.0 GT/s PCIe`.
pub(super) fn pcie_generation(path: &Path) -> Answer<i64> {
    let text = sysfs::text(path)?;
    let speeds = ["2.5", "5.0", "8.0", "16.0", "32.0", "64.0"];
    let is_it = |speed: &str| {
        let rest = text.strip_prefix(speed).or_else(|| text.strip_prefix(speed.trim_end_matches(".0")));
        rest.is_some_and(|rest| rest.trim_start().starts_with("GT/s"))
    };
    let place = speeds.iter().position(|speed| is_it(speed));
    place.map(|place| place as i64 + 1).ok_or(Trouble::Failed(racklake_schemas::fail_code::UNPARSABLE))
}

fn first_folder(path: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    folders.filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"hwmon"))).min()
}

/// The attribute of each label.
fn labels_in(hwmon: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(hwmon).into_iter().flatten().flatten();
    let label = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let attribute = name.strip_suffix("_label")?;
        Some((sysfs::text(&entry.path()).ok()?, attribute.to_owned()))
    };
    entries.filter_map(label).collect()
}
