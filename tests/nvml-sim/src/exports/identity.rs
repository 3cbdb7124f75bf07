//! Who a device is: names, numbers, addresses, versions.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::Value;

use super::{INVALID_ARGUMENT, answer, answer_numbers, answer_text, c_text, readings, signatures};
use crate::library::{Code, Given, State};
use crate::scenario::Architecture;
use crate::unit::Unit;

/// What nvml.h wants as room for the version of the GSP firmware.
const GSP_VERSION_BYTES: c_uint = 64;

macro_rules! texts {
    ($($call:ident($unit:ident) => $text:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $call(device: nvml::nvmlDevice_t, buffer: *mut c_char, length: c_uint) -> Code {
            let give = |$unit: &Unit| -> String { $text };
            // SAFETY: the contract of the C function.
            unsafe {
                answer_text(device, stringify!($call), buffer, length, |state, index| give(&state.units[index]))
            }
        }
    )*};
}

texts! {
    nvmlDeviceGetSerial(unit) => unit.serial.clone();
    nvmlDeviceGetBoardPartNumber(_unit) => "692-2G520-0200-000".to_owned();
    nvmlDeviceGetVbiosVersion(_unit) => "96.00.74.00.0D".to_owned();
    nvmlDeviceGetInforomImageVersion(_unit) => "G520.0200.00.05".to_owned();
}

macro_rules! numbers {
    ($($call:ident => $number:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $call(device: nvml::nvmlDevice_t, out: *mut c_uint) -> Code {
            // SAFETY: the contract of the C function.
            unsafe { answer(device, stringify!($call), None, out, |_, _| Ok($number)) }
        }
    )*};
}

numbers! {
    nvmlDeviceGetBrand => nvml::nvmlBrandType_enum_NVML_BRAND_NVIDIA;
    nvmlDeviceGetMultiGpuBoard => 0;
    nvmlDeviceGetNumGpuCores => 16896;
    nvmlDeviceGetMemoryBusWidth => 5120;
    nvmlDeviceGetPowerSource => 0;
    nvmlDeviceGetComputeMode => 0;
}

readings! {
    nvmlDeviceGetArchitecture: c_uint = |unit| Ok(match unit.gpu.architecture {
        Architecture::Volta => nvml::NVML_DEVICE_ARCH_VOLTA,
        Architecture::Ampere => nvml::NVML_DEVICE_ARCH_AMPERE,
        Architecture::Hopper => nvml::NVML_DEVICE_ARCH_HOPPER,
        Architecture::Blackwell => nvml::NVML_DEVICE_ARCH_BLACKWELL,
    });
    nvmlDeviceGetPersistenceMode: c_uint = |unit| Ok(u32::from(unit.gpu.persistence));
    nvmlDeviceGetBoardId: c_uint = |unit| Ok(unit.pci.0 << 16 | unit.pci.1 << 8);
}

/// Calls that give the number of a GPU.
macro_rules! indexes {
    ($($call:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $call(device: nvml::nvmlDevice_t, out: *mut c_uint) -> Code {
            // SAFETY: the contract of the C function.
            unsafe { answer(device, stringify!($call), None, out, |_, index| Ok(index as u32)) }
        }
    )*};
}

indexes! {
    nvmlDeviceGetIndex
    nvmlDeviceGetMinorNumber
    nvmlDeviceGetNumaNodeId
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: nvml::nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> Code {
    let outs = [major.cast::<c_uint>(), minor.cast::<c_uint>()];
    // SAFETY: the contract of the C function.
    unsafe { answer_numbers(device, "nvmlDeviceGetCudaComputeCapability", outs, |_| Ok([9, 0])) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGspFirmwareMode(
    device: nvml::nvmlDevice_t,
    enabled: *mut c_uint,
    default: *mut c_uint,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { answer_numbers(device, "nvmlDeviceGetGspFirmwareMode", [enabled, default], |_| Ok([1, 1])) }
}

/// The buffer has no length of its own; nvml.h wants 64 bytes. GSP firmware has the version of its driver.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGspFirmwareVersion(device: nvml::nvmlDevice_t, buffer: *mut c_char) -> Code {
    let version = |state: &State, _: usize| state.scenario.driver_version.clone();
    // SAFETY: the contract of the C function.
    unsafe { answer_text(device, "nvmlDeviceGetGspFirmwareVersion", buffer, GSP_VERSION_BYTES, version) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetInforomVersion(
    device: nvml::nvmlDevice_t,
    object: c_uint,
    buffer: *mut c_char,
    length: c_uint,
) -> Code {
    if object > 3 {
        return INVALID_ARGUMENT;
    }
    let version = |_: &State, _: usize| ["2.1", "7.16", "5.0", "1.0"][object as usize].to_owned();
    // SAFETY: the contract of the C function.
    unsafe { answer_text(device, "nvmlDeviceGetInforomVersion", buffer, length, version) }
}

/// A PCI device of these numbers.
pub(super) fn pci_info((domain, bus, device): (u32, u32, u32), id: u32, subsystem: u32) -> nvml::nvmlPciInfo_t {
    let bus_id = format!("{domain:08X}:{bus:02X}:{device:02X}.0");
    nvml::nvmlPciInfo_t {
        busIdLegacy: c_text(&bus_id[4..]),
        domain,
        bus,
        device,
        pciDeviceId: id,
        pciSubSystemId: subsystem,
        busId: c_text(&bus_id),
    }
}

impl Given for nvml::nvmlPciInfo_t {
    fn told(&self) -> Value {
        let bytes: Vec<u8> = self.busId.iter().map(|c| *c as u8).take_while(|b| *b != 0).collect();
        Value::from(String::from_utf8_lossy(&bytes))
    }

    fn garbage() -> nvml::nvmlPciInfo_t {
        let mut bus_id = [0; 32];
        bus_id[0] = -1;
        nvml::nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: !0,
            bus: !0,
            device: !0,
            pciDeviceId: !0,
            pciSubSystemId: !0,
            busId: bus_id,
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: nvml::nvmlDevice_t, pci: *mut nvml::nvmlPciInfo_t) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer(device, "nvmlDeviceGetPciInfo_v3", None, pci, |state, index| {
            Ok(pci_info(state.units[index].pci, 0x2330_10de, 0x16c1_10de))
        })
    }
}

signatures! {
    nvmlDeviceGetArchitecture
    nvmlDeviceGetBoardId
    nvmlDeviceGetBoardPartNumber
    nvmlDeviceGetBrand
    nvmlDeviceGetComputeMode
    nvmlDeviceGetCudaComputeCapability
    nvmlDeviceGetGspFirmwareMode
    nvmlDeviceGetGspFirmwareVersion
    nvmlDeviceGetIndex
    nvmlDeviceGetInforomImageVersion
    nvmlDeviceGetInforomVersion
    nvmlDeviceGetMemoryBusWidth
    nvmlDeviceGetMinorNumber
    nvmlDeviceGetMultiGpuBoard
    nvmlDeviceGetNumGpuCores
    nvmlDeviceGetNumaNodeId
    nvmlDeviceGetPciInfo_v3
    nvmlDeviceGetPersistenceMode
    nvmlDeviceGetPowerSource
    nvmlDeviceGetSerial
    nvmlDeviceGetVbiosVersion
}
