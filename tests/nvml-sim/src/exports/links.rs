//! Links of a device: PCIe, NVLink, C2C.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::Value;

use super::ecc::short;
use super::identity::pci_info;
use super::{
    INVALID_ARGUMENT, NOT_SUPPORTED, VERSION_MISMATCH, answer_unit, given_struct, readings, signatures, version,
};
use crate::counters::{Counter, Counters};
use crate::library::{Code, Given};
use crate::unit::Unit;

/// Version of NVLink that Hopper has: NVLink 4.
const NVLINK_VERSION: u32 = 6;
/// Other end of every link: an NVSwitch.
const SWITCH: u32 = 2;

readings! {
    nvmlDeviceGetPcieReplayCounter: c_uint = |unit| Ok(short(unit.counters.volatile(Counter::PcieReplay)));
    nvmlDeviceGetCurrPcieLinkGeneration: c_uint = |unit| Ok(unit.gpu.pcie[0]);
    nvmlDeviceGetCurrPcieLinkWidth: c_uint = |unit| Ok(unit.gpu.pcie[1]);
    nvmlDeviceGetMaxPcieLinkGeneration: c_uint = |unit| Ok(unit.gpu.pcie_max[0]);
    nvmlDeviceGetGpuMaxPcieLinkGeneration: c_uint = |unit| Ok(unit.gpu.pcie_max[0]);
    nvmlDeviceGetMaxPcieLinkWidth: c_uint = |unit| Ok(unit.gpu.pcie_max[1]);
    nvmlDeviceGetPcieSpeed: c_uint = |unit| Ok(2500 << (unit.gpu.pcie[0].clamp(1, 6) - 1));
    nvmlDeviceGetC2cModeInfoV: nvml::nvmlC2cModeInfo_v1_t = |unit| match unit.gpu.c2c_links {
        0 => Err(NOT_SUPPORTED),
        _ => Ok(nvml::nvmlC2cModeInfo_v1_t { isC2cEnabled: 1 }),
    };
}

given_struct!(nvml::nvmlC2cModeInfo_v1_t { isC2cEnabled });

/// The counters of a link that is there.
pub(super) fn counters(unit: &Unit, link: u32) -> Result<&Counters, Code> {
    if unit.gpu.nvlinks == 0 {
        return Err(NOT_SUPPORTED);
    }
    unit.links.get(link as usize).ok_or(INVALID_ARGUMENT)
}

/// Whether a link that is there is up.
pub(super) fn is_up(unit: &Unit, link: u32) -> bool {
    !unit.gpu.link(link).is_some_and(|link| link.down)
}

/// Speed of a link, Mbit/s.
pub(super) fn mbps(unit: &Unit, link: u32) -> u32 {
    if !is_up(unit, link) {
        return 0;
    }
    unit.gpu.link(link).and_then(|link| link.mbps).unwrap_or(unit.gpu.nvlink_mbps)
}

/// Version of the links.
pub(super) fn nvlink_version() -> u32 {
    NVLINK_VERSION
}

/// Bytes that a link has carried, and in which direction.
pub(super) fn traffic(unit: &Unit, link: u32, is_received: bool) -> u64 {
    let share = f64::from(mbps(unit, link)) / f64::from(unit.gpu.nvlink_mbps.max(1));
    let rate = if is_received { 9.1e9 } else { 8.7e9 };
    (unit.model.load_seconds() * rate * share * (1.0 + 0.001 * f64::from(link))) as u64
}

/// Numbers of links, which one link gives each.
macro_rules! of_links {
    ($($call:ident = |$unit:ident, $link:ident| $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $call(device: nvml::nvmlDevice_t, $link: c_uint, out: *mut c_uint) -> Code {
            // SAFETY: the contract of the C function.
            unsafe {
                answer_unit(device, stringify!($call), Some(i64::from($link)), out, |$unit| {
                    counters($unit, $link)?;
                    Ok($value)
                })
            }
        }
    )*};
}

of_links! {
    nvmlDeviceGetNvLinkState = |unit, link| u32::from(is_up(unit, link));
    nvmlDeviceGetNvLinkVersion = |_unit, link| NVLINK_VERSION;
    nvmlDeviceGetNvLinkRemoteDeviceType = |_unit, link| SWITCH;
}

/// The argument is told as link × 10 + capability.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkCapability(
    device: nvml::nvmlDevice_t,
    link: c_uint,
    capability: c_uint,
    out: *mut c_uint,
) -> Code {
    let arg = Some(i64::from(link) * 10 + i64::from(capability));
    // SAFETY: the contract of the C function.
    unsafe {
        answer_unit(device, "nvmlDeviceGetNvLinkCapability", arg, out, |unit| {
            counters(unit, link)?;
            // All but the bridge of SLI.
            if capability < 6 { Ok(u32::from(capability != 4)) } else { Err(INVALID_ARGUMENT) }
        })
    }
}

/// The argument is told as link × 10 + counter.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: nvml::nvmlDevice_t,
    link: c_uint,
    counter: c_uint,
    out: *mut c_ulonglong,
) -> Code {
    let arg = Some(i64::from(link) * 10 + i64::from(counter));
    // SAFETY: the contract of the C function.
    unsafe {
        answer_unit(device, "nvmlDeviceGetNvLinkErrorCounter", arg, out, |unit| {
            let counter = match counter {
                0 => Counter::NvlinkReplay,
                1 => Counter::NvlinkRecovery,
                2 => Counter::NvlinkCrcFlit,
                3 => Counter::NvlinkCrcData,
                4 => Counter::NvlinkEccData,
                _ => return Err(INVALID_ARGUMENT),
            };
            Ok(counters(unit, link)?.volatile(counter))
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: nvml::nvmlDevice_t,
    link: c_uint,
    out: *mut nvml::nvmlPciInfo_t,
) -> Code {
    let arg = Some(i64::from(link));
    // SAFETY: the contract of the C function.
    unsafe {
        answer_unit(device, "nvmlDeviceGetNvLinkRemotePciInfo_v2", arg, out, |unit| {
            counters(unit, link)?;
            // Four NVSwitches; the links are spread over them.
            Ok(pci_info((0, 5 + link % 4, 0), 0x22a3_10de, 0))
        })
    }
}

/// The firmware of the links, in one of the two versions of the struct.
struct LinkInfo(u32);

impl Given for LinkInfo {
    fn told(&self) -> Value {
        Value::from(self.0)
    }

    fn garbage() -> LinkInfo {
        LinkInfo(!0)
    }
}

/// Gives whether the links are encrypted: the first number after the version, in both versions of the struct. Firmware is
/// told nobody.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetNvLinkInfo(device: nvml::nvmlDevice_t, out: *mut nvml::nvmlNvLinkInfo_t) -> Code {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the contract of the C function is that a version is there.
    let asked = unsafe { out.cast::<c_uint>().read() };
    let is_second = asked == version::<nvml::nvmlNvLinkInfo_v2_t>(2);
    let given = crate::library::library().device(device, "nvmlDeviceGetNvLinkInfo", None, |state, index| {
        if !is_second && asked != version::<nvml::nvmlNvLinkInfo_v1_t>(1) {
            return Err(VERSION_MISMATCH);
        }
        if state.units[index].gpu.nvlinks == 0 { Err(NOT_SUPPORTED) } else { Ok(LinkInfo(0)) }
    });
    match given {
        Ok(LinkInfo(encrypted)) => {
            // SAFETY: not null; the version says that the caller has a struct with this field, and in the second version
            // with the number of firmwares.
            unsafe {
                (*out).isNvleEnabled = encrypted;
                if is_second {
                    (*out).firmwareInfo.numValidEntries = 0;
                }
            }
            super::SUCCESS
        }
        Err(code) => code,
    }
}

signatures! {
    nvmlDeviceGetC2cModeInfoV
    nvmlDeviceGetCurrPcieLinkGeneration
    nvmlDeviceGetCurrPcieLinkWidth
    nvmlDeviceGetGpuMaxPcieLinkGeneration
    nvmlDeviceGetMaxPcieLinkGeneration
    nvmlDeviceGetMaxPcieLinkWidth
    nvmlDeviceGetNvLinkCapability
    nvmlDeviceGetNvLinkErrorCounter
    nvmlDeviceGetNvLinkInfo
    nvmlDeviceGetNvLinkRemoteDeviceType
    nvmlDeviceGetNvLinkRemotePciInfo_v2
    nvmlDeviceGetNvLinkState
    nvmlDeviceGetNvLinkVersion
    nvmlDeviceGetPcieReplayCounter
    nvmlDeviceGetPcieSpeed
}
