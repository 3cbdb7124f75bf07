//! Who a device is: names, numbers, addresses, versions.

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::Value;

use super::{answer, answer_text};
use crate::library::{Code, Given};
use crate::unit::Unit;

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
    nvmlDeviceGetName(unit) => unit.gpu.name.clone();
    nvmlDeviceGetUUID(unit) => unit.uuid.clone();
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
    nvmlDeviceGetArchitecture => nvml::NVML_DEVICE_ARCH_HOPPER;
    nvmlDeviceGetMaxPcieLinkGeneration => 5;
    nvmlDeviceGetMaxPcieLinkWidth => 16;
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
            let unit = &state.units[index];
            let (domain, bus, device) = unit.pci;
            let bus_id = unit.pci_bus_id();
            Ok(nvml::nvmlPciInfo_t {
                busIdLegacy: c_text(&bus_id[4..]),
                domain,
                bus,
                device,
                pciDeviceId: 0x2330_10de,
                pciSubSystemId: 0x16c1_10de,
                busId: c_text(&bus_id),
            })
        })
    }
}

/// Text in a buffer of its struct, cut where it is too long.
fn c_text<const N: usize>(text: &str) -> [c_char; N] {
    let mut buffer = [0; N];
    for (c, byte) in buffer.iter_mut().take(N - 1).zip(text.bytes()) {
        *c = byte as c_char;
    }
    buffer
}
