//! Who a GPU is: what NVML tells of its serial, UUID, model, firmware and driver.
//!
//! A text that cannot be read costs that text alone, not the GPU.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use racklake_schemas::tables::{DEVICE, device as c};
use racklake_schemas::{Row, identity};

use super::calls::calling;
use super::raw::Handle;
use crate::source::Identity;

/// The identity of a GPU.
pub(super) fn read(nvml: &Nvml, handle: Handle, address: &str) -> Identity {
    let device = handle.device(nvml);
    let mut row = Row::new(&DEVICE);
    row.set(c::DEVICE_KIND, "gpu");
    row.set(c::VENDOR, "nvidia");
    row.set(c::PCI_BUS_ID, address);
    let mut text = |column: usize, value: Result<String, NvmlError>| {
        let value = value.ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        row.set(column, value.clone());
        value
    };
    calling("nvmlDeviceGetName and what says who it is");
    text(c::MODEL, device.name());
    text(c::SERIAL, device.serial().map(|serial| identity::real_identifier(&serial).unwrap_or_default()));
    let uuid = text(c::UUID, device.uuid());
    text(c::VBIOS_VERSION, device.vbios_version());
    text(c::INFOROM_VERSION, device.info_rom_image_version());
    text(c::BOARD_PART_NUMBER, device.board_part_number());
    text(c::DRIVER_VERSION, nvml.sys_driver_version());
    text(c::NVML_VERSION, nvml.sys_nvml_version());
    text(c::ARCHITECTURE, device.architecture().map(|architecture| architecture.to_string()));
    row.set(c::PCIE_GENERATION_MAX, device.max_pcie_link_gen().ok());
    row.set(c::PCIE_WIDTH_MAX, device.max_pcie_link_width().ok());
    let total = device.memory_info().ok().and_then(|memory| i64::try_from(memory.total).ok());
    row.set(c::MEMORY_TOTAL_BYTES, total);
    Identity { device_id: uuid, row }
}
