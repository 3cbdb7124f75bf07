//! Who a GPU or a MIG instance is: what NVML tells of its serial, UUID, model, firmware, driver and place.
//!
//! A text that cannot be read costs that text alone, not the GPU.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use racklake_schemas::tables::{DEVICE, device as c};
use racklake_schemas::{Cell, Row, identity};

use super::calls::calling;
use super::raw::{Calls, Platform};
use crate::source::Identity;

/// NVML's brands, by their number.
const BRANDS: [&str; 20] = [
    "unknown",
    "quadro",
    "tesla",
    "nvs",
    "grid",
    "geforce",
    "titan",
    "nvidia vapps",
    "nvidia vpc",
    "nvidia vcs",
    "nvidia vws",
    "nvidia cloud gaming",
    "quadro rtx",
    "nvidia rtx",
    "nvidia",
    "geforce rtx",
    "titan rtx",
    "nvidia dla",
    "nvidia vgamedev",
    "nvidia npu",
];

/// The identity of a GPU, or of the MIG instance at that address.
pub(super) fn read(nvml: &Nvml, calls: &Calls<'_>, address: &str) -> Identity {
    let device = calls.device.device(nvml);
    let mut row = Row::new(&DEVICE);
    row.set(c::VENDOR, "nvidia");
    let mut text = |column: usize, value: Result<String, NvmlError>| {
        let value = value.ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        row.set(column, value.clone());
        value
    };
    calling("nvmlDeviceGetName");
    text(c::MODEL, device.name());
    calling("nvmlDeviceGetUUID");
    let uuid = text(c::UUID, device.uuid());
    calling("nvmlSystemGetDriverVersion");
    text(c::DRIVER_VERSION, nvml.sys_driver_version());
    calling("nvmlSystemGetNVMLVersion");
    text(c::NVML_VERSION, nvml.sys_nvml_version());
    calling("nvmlDeviceGetArchitecture");
    text(c::ARCHITECTURE, device.architecture().map(|architecture| architecture.to_string()));
    calling("nvmlDeviceGetMemoryInfo");
    let total = device.memory_info().ok().and_then(|memory| i64::try_from(memory.total).ok());
    row.set(c::MEMORY_TOTAL_BYTES, total);
    match calls.device.mig() {
        Some(_) => instance(&mut row, calls, address),
        None => whole(&mut row, nvml, calls, address),
    }
    Identity { device_id: uuid, row }
}

/// What an instance has for itself; the rest is in the row of the GPU that it is a part of.
fn instance(row: &mut Row, calls: &Calls<'_>, address: &str) {
    row.set(c::DEVICE_KIND, "mig");
    row.set(c::PCI_BUS_ID, address.split('/').next());
    if let Some((device, gpu, compute)) = calls.device.mig() {
        let parent = Calls { device, ..*calls };
        row.set(c::MIG_PARENT, parent.uuid().ok().flatten());
        row.set(c::GPU_INSTANCE, gpu);
        row.set(c::COMPUTE_INSTANCE, compute);
    }
    row.set(c::MULTIPROCESSORS, calls.multiprocessors().ok());
}

fn whole(row: &mut Row, nvml: &Nvml, calls: &Calls<'_>, address: &str) {
    let device = calls.device.device(nvml);
    row.set(c::DEVICE_KIND, "gpu");
    row.set(c::PCI_BUS_ID, address);
    let mut text = |column: usize, value: Option<String>| {
        row.set(column, value.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()));
    };
    calling("nvmlDeviceGetSerial");
    text(c::SERIAL, device.serial().ok().and_then(|serial| identity::real_identifier(&serial)));
    calling("nvmlDeviceGetVbiosVersion");
    text(c::VBIOS_VERSION, device.vbios_version().ok());
    calling("nvmlDeviceGetInforomImageVersion");
    text(c::INFOROM_VERSION, device.info_rom_image_version().ok());
    calling("nvmlDeviceGetBoardPartNumber");
    text(c::BOARD_PART_NUMBER, device.board_part_number().ok());
    text(c::GSP_FIRMWARE_VERSION, calls.gsp_firmware_version().ok().flatten());
    calling("nvmlDeviceGetMaxPcieLinkGeneration");
    row.set(c::PCIE_GENERATION_MAX, device.max_pcie_link_gen().ok());
    calling("nvmlDeviceGetMaxPcieLinkWidth");
    row.set(c::PCIE_WIDTH_MAX, device.max_pcie_link_width().ok());
    let number = |answer: Result<u32, i32>| answer.ok().filter(|value| *value != u32::MAX);
    row.set(c::BOARD_ID, number(calls.board_id()));
    row.set(c::MINOR_NUMBER, number(calls.minor_number()));
    row.set(c::BRAND, number(calls.brand()).and_then(|brand| BRANDS.get(brand as usize).copied()));
    if let Ok(pci) = calls.pci() {
        row.set(c::PCI_DEVICE_ID, pci_id(pci.device));
        row.set(c::PCI_SUBSYSTEM_ID, pci_id(pci.subsystem));
    }
    let platform = calls.platform().ok();
    place(row, platform.as_ref(), number(calls.module_id()));
    if let Ok(fabric) = calls.fabric(&mut 0) {
        row.set(c::FABRIC_CLUSTER_UUID, uuid_of(fabric.cluster_uuid));
        let clique = Some(fabric.clique).filter(|clique| *clique != u32::MAX);
        // Without a cluster the clique is a zero that means nothing.
        row.set(c::FABRIC_CLIQUE, uuid_of(fabric.cluster_uuid).and(clique));
    }
}

fn place(row: &mut Row, platform: Option<&Platform>, module: Option<u32>) {
    // All ones stand for no value.
    let number = |value: u8| Some(i32::from(value)).filter(|_| value != u8::MAX);
    if let Some(platform) = platform {
        row.set(c::CHASSIS_SERIAL, platform.chassis_serial.clone());
        row.set(c::SLOT_NUMBER, number(platform.slot));
        row.set(c::TRAY_INDEX, number(platform.tray));
        row.set(c::HOST_ID, number(platform.host));
        row.set(c::PEER_TYPE, number(platform.peer_type));
        row.set(c::MODULE_ID, number(platform.module));
    }
    if *row.cell(c::MODULE_ID) == Cell::Null {
        row.set(c::MODULE_ID, module);
    }
}

/// `10de:2330` of a number with the vendor in its lower half; none of zero.
fn pci_id(number: u32) -> Option<String> {
    (number != 0 && number != u32::MAX).then(|| format!("{:04x}:{:04x}", number & 0xffff, number >> 16))
}

/// A UUID as text; none of zeros.
fn uuid_of(bytes: [u8; 16]) -> Option<String> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    bytes.iter().any(|byte| *byte != 0).then(|| parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_they_are_known_elsewhere() {
        assert_eq!(pci_id(0x2330_10de).as_deref(), Some("10de:2330"));
        assert_eq!((pci_id(0), uuid_of([0; 16])), (None, None));
        let bytes = std::array::from_fn(|place| place as u8);
        assert_eq!(uuid_of(bytes).as_deref(), Some("00010203-0405-0607-0809-0a0b0c0d0e0f"));
    }

    #[test]
    fn a_place_is_as_the_platform_says_and_all_ones_are_none() {
        let mut row = Row::new(&DEVICE);
        let platform = Platform {
            chassis_serial: Some("1820221030058".to_owned()),
            slot: 12,
            tray: u8::MAX,
            host: 1,
            peer_type: 1,
            module: u8::MAX,
        };
        place(&mut row, Some(&platform), Some(3));
        let columns = [c::CHASSIS_SERIAL, c::SLOT_NUMBER, c::TRAY_INDEX, c::HOST_ID, c::MODULE_ID];
        let cells = columns.map(|column| row.cell(column).clone());
        assert_eq!(cells, ["1820221030058".into(), 12.into(), Cell::Null, 1.into(), 3.into()]);
    }
}
