//! The getters behind `device`: where a GPU is and what it is made of.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{
    nvmlDeviceAttributes_st, nvmlPciInfo_st, nvmlPlatformInfo_v1_t, nvmlPlatformInfo_v2_t,
};
use racklake_schemas::{fail_code, identity};

use super::{Answer, Calls, FUNCTION_NOT_FOUND, calling, getters, judge, newest, text_of, version_of};

/// PCI address and ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::nvml) struct Pci {
    /// Lower case `0000:9b:00.0`.
    pub(in crate::nvml) address: String,
    /// Vendor in the lower half, device in the upper one.
    pub(in crate::nvml) device: u32,
    /// As above, of the subsystem.
    pub(in crate::nvml) subsystem: u32,
}

/// Where a GPU is in its rack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::nvml) struct Platform {
    pub(in crate::nvml) chassis_serial: Option<String>,
    pub(in crate::nvml) slot: u8,
    pub(in crate::nvml) tray: u8,
    pub(in crate::nvml) host: u8,
    pub(in crate::nvml) peer_type: u8,
    pub(in crate::nvml) module: u8,
}

impl Calls<'_> {
    getters! {
        /// Place of the module on its base board.
        module_id = nvmlDeviceGetModuleId: c_uint;
        /// One id for all GPUs of a board.
        board_id = nvmlDeviceGetBoardId: c_uint;
        /// NVML's number of the brand.
        brand = nvmlDeviceGetBrand: c_uint;
        /// The n of /dev/nvidian.
        minor_number = nvmlDeviceGetMinorNumber: c_uint;
    }

    /// The address and ids on PCI. An address that is no text is made of its numbers.
    pub(in crate::nvml) fn pci(&self) -> Answer<Pci> {
        let function = self.lib.nvmlDeviceGetPciInfo_v3.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetPciInfo_v3");
        // SAFETY: the struct is plain numbers and bytes, for which zeros are valid.
        let mut pci: nvmlPciInfo_st = unsafe { std::mem::zeroed() };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.device, &mut pci) };
        judge(code, ())?;
        Ok(Pci { address: address_of(&pci), device: pci.pciDeviceId, subsystem: pci.pciSubSystemId })
    }

    /// The NVML UUID; `None` where it is empty.
    pub(in crate::nvml) fn uuid(&self) -> Answer<Option<String>> {
        let function = self.lib.nvmlDeviceGetUUID.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetUUID");
        let mut bytes = [0u8; 96];
        // SAFETY: as in `getters`, with as much room as the length says.
        let code = unsafe { function(self.device.device, bytes.as_mut_ptr().cast(), bytes.len() as c_uint) };
        judge(code, ())?;
        text_of(&bytes)
    }

    /// Version of the GPU system processor's firmware.
    pub(in crate::nvml) fn gsp_firmware_version(&self) -> Answer<Option<String>> {
        let function = self.lib.nvmlDeviceGetGspFirmwareVersion.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetGspFirmwareVersion");
        // The header asks for 64 bytes.
        let mut bytes = [0u8; 96];
        // SAFETY: as in `getters`, with at least the room that the header asks for.
        let code = unsafe { function(self.device.device, bytes.as_mut_ptr().cast()) };
        judge(code, ())?;
        text_of(&bytes)
    }

    /// Where the GPU is in its rack.
    pub(in crate::nvml) fn platform(&self) -> Answer<Platform> {
        newest(
            &mut 0,
            &[&|| self.platform_of(version_of::<nvmlPlatformInfo_v2_t>(2)), &|| {
                self.platform_of(version_of::<nvmlPlatformInfo_v1_t>(1))
            }],
        )
    }

    /// Version 1 has a GUID where version 2 has the serial number, and the rest under other names in the same places.
    fn platform_of(&self, version: c_uint) -> Answer<Platform> {
        let function = self.lib.nvmlDeviceGetPlatformInfo.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetPlatformInfo");
        // SAFETY: the struct is plain numbers and bytes, for which zeros are valid.
        let mut info: nvmlPlatformInfo_v2_t = unsafe { std::mem::zeroed() };
        info.version = version;
        // SAFETY: as in `getters`, with a struct as large as its version names.
        let code = unsafe { function(self.device.device, &mut info) };
        judge(code, ())?;
        Ok(Platform {
            chassis_serial: serial_of(&info.chassisSerialNumber),
            slot: info.slotNumber,
            tray: info.trayIndex,
            host: info.hostId,
            peer_type: info.peerType,
            module: info.moduleId,
        })
    }

    /// Streaming multiprocessors of a MIG instance.
    pub(in crate::nvml) fn multiprocessors(&self) -> Answer<u32> {
        let function = self.lib.nvmlDeviceGetAttributes_v2.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetAttributes_v2");
        // SAFETY: the struct is plain numbers, for which zeros are valid.
        let mut attributes: nvmlDeviceAttributes_st = unsafe { std::mem::zeroed() };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.device, &mut attributes) };
        judge(code, attributes.multiprocessorCount)
    }
}

/// A serial number, or the hexadecimal digits of a GUID; none where all bytes are zero.
fn serial_of(bytes: &[u8]) -> Option<String> {
    let text = text_of(bytes).ok().flatten().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
    let digits = || bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if bytes.iter().all(|byte| *byte == 0) { None } else { Some(text.unwrap_or_else(digits)) }
}

/// The address as text, or made of its numbers where the text cannot be read.
pub(super) fn address_of(pci: &nvmlPciInfo_st) -> String {
    let text = text_of(&pci.busId.map(|byte| byte as u8)).and_then(|text| text.ok_or(fail_code::MISSING));
    let numbers = || format!("{:08x}:{:02x}:{:02x}.0", pci.domain, pci.bus, pci.device);
    identity::pci_bus_id(&text.ok().filter(|text| text.is_ascii()).unwrap_or_else(numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_no_text_is_made_of_its_numbers() {
        // SAFETY: plain numbers and bytes.
        let mut pci: nvmlPciInfo_st = unsafe { std::mem::zeroed() };
        (pci.domain, pci.bus, pci.device) = (0, 0x9b, 1);
        assert_eq!(address_of(&pci), "0000:9b:01.0");
        pci.busId[0] = -1;
        assert_eq!(address_of(&pci), "0000:9b:01.0");
        for (place, byte) in pci.busId.iter_mut().zip(b"00000001:3B:00.0\0") {
            *place = *byte as _;
        }
        assert_eq!(address_of(&pci), "0001:3b:00.0");
    }

    #[test]
    fn a_serial_number_is_text_and_a_guid_is_digits() {
        assert_eq!(serial_of(b"1820221030058\0\0\0"), Some("1820221030058".to_owned()));
        assert_eq!(serial_of(&[0xa0, 1]), Some("a001".to_owned()));
        assert_eq!(serial_of(&[0; 16]), None);
        assert_eq!(version_of::<nvmlPlatformInfo_v2_t>(2), 0x0200_002c);
        assert_eq!(size_of::<nvmlPlatformInfo_v1_t>(), size_of::<nvmlPlatformInfo_v2_t>());
    }
}
