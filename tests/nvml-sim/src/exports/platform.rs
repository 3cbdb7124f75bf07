//! Where a device sits, and how it stands with the NVLink fabric.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as nvml;
use serde_json::{Value, json};

use super::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, VERSION_MISMATCH, readings, signatures, version};
use crate::library::{Code, Given, library};
use crate::scenario::{Fabric, Platform};

readings! {
    nvmlDeviceGetModuleId: c_uint = |unit| Ok(u32::from(unit.gpu.platform.module));
}

impl Given for Platform {
    fn told(&self) -> Value {
        json!(self)
    }

    fn garbage() -> Platform {
        Platform { chassis_serial: "\u{fffd}\u{fffd}".to_owned(), slot: !0, tray: !0, ..Platform::default() }
    }
}

impl Given for Fabric {
    fn told(&self) -> Value {
        json!(self)
    }

    fn garbage() -> Fabric {
        Fabric { state: !0, status: !0, clique: !0, cluster_uuid: [!0; 16], health_mask: !0, health_summary: !0 }
    }
}

/// The version that a struct of the caller's says, if there is one.
///
/// # Safety
/// `out` is null or points to a struct that begins with its version.
unsafe fn version_of<T>(out: *const T) -> Option<u32> {
    // SAFETY: not null, and the caller says that a version is there.
    if out.is_null() { None } else { Some(unsafe { out.cast::<c_uint>().read() }) }
}

/// Both versions of the struct have the same layout; the second one gave the bytes other names.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPlatformInfo(device: nvml::nvmlDevice_t, out: *mut nvml::nvmlPlatformInfo_t) -> Code {
    // SAFETY: the contract of the C function.
    let Some(asked) = (unsafe { version_of(out) }) else { return INVALID_ARGUMENT };
    let versions = [version::<nvml::nvmlPlatformInfo_v1_t>(1), version::<nvml::nvmlPlatformInfo_v2_t>(2)];
    let given = library().device(device, "nvmlDeviceGetPlatformInfo", None, |state, index| {
        if versions.contains(&asked) { Ok(state.units[index].gpu.platform.clone()) } else { Err(VERSION_MISMATCH) }
    });
    match given {
        Ok(platform) => {
            let mut serial = [0; 16];
            for (byte, letter) in serial.iter_mut().take(15).zip(platform.chassis_serial.bytes()) {
                *byte = letter;
            }
            let info = nvml::nvmlPlatformInfo_t {
                version: asked,
                ibGuid: platform.ib_guid,
                chassisSerialNumber: serial,
                slotNumber: platform.slot,
                trayIndex: platform.tray,
                hostId: platform.host,
                peerType: platform.peer_type,
                moduleId: platform.module,
            };
            // SAFETY: not null, and the contract of the C function is that it is writable.
            unsafe { out.write(info) };
            SUCCESS
        }
        Err(code) => code,
    }
}

/// Writes a struct field by field over zeroes: the state is one byte, but NVIDIA's own Python binding reads the padding
/// after it as well.
macro_rules! write_zeroed {
    ($out:expr, { $($field:ident: $value:expr),* $(,)? }) => {{
        $out.write_bytes(0, 1);
        $((*$out).$field = $value;)*
    }};
}

fn fabric_of(device: nvml::nvmlDevice_t, call: &str, is_known: bool) -> Result<Fabric, Code> {
    library().device(device, call, None, |state, index| {
        if !is_known {
            return Err(VERSION_MISMATCH);
        }
        let fabric = state.units[index].gpu.fabric.clone();
        if fabric.state == 0 { Err(NOT_SUPPORTED) } else { Ok(fabric) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo(
    device: nvml::nvmlDevice_t,
    out: *mut nvml::nvmlGpuFabricInfo_t,
) -> Code {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    match fabric_of(device, "nvmlDeviceGetGpuFabricInfo", true) {
        Ok(fabric) => {
            // SAFETY: not null, and the contract of the C function is that it is writable.
            unsafe {
                write_zeroed!(out, {
                    clusterUuid: fabric.cluster_uuid,
                    status: fabric.status,
                    cliqueId: fabric.clique,
                    state: fabric.state,
                });
            }
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: nvml::nvmlDevice_t,
    out: *mut nvml::nvmlGpuFabricInfoV_t,
) -> Code {
    // SAFETY: the contract of the C function.
    let Some(asked) = (unsafe { version_of(out) }) else { return INVALID_ARGUMENT };
    let is_third = asked == version::<nvml::nvmlGpuFabricInfo_v3_t>(3);
    let is_known = is_third || asked == version::<nvml::nvmlGpuFabricInfo_v2_t>(2);
    match fabric_of(device, "nvmlDeviceGetGpuFabricInfoV", is_known) {
        Ok(fabric) => {
            // SAFETY: not null; the version says which of the two structs the caller has, and the third version is the
            // second one with a summary after it.
            unsafe {
                let second = out.cast::<nvml::nvmlGpuFabricInfo_v2_t>();
                write_zeroed!(second, {
                    version: asked,
                    clusterUuid: fabric.cluster_uuid,
                    status: fabric.status,
                    cliqueId: fabric.clique,
                    state: fabric.state,
                    healthMask: fabric.health_mask,
                });
                if is_third {
                    (*out).healthSummary = fabric.health_summary;
                }
            }
            SUCCESS
        }
        Err(code) => code,
    }
}

signatures! {
    nvmlDeviceGetGpuFabricInfo
    nvmlDeviceGetGpuFabricInfoV
    nvmlDeviceGetModuleId
    nvmlDeviceGetPlatformInfo
}
