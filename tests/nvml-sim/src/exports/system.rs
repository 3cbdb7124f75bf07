//! Init and shutdown, versions, and the ways to a device's handle.

use std::ffi::{CStr, c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::Value;

use super::{INVALID_ARGUMENT, SUCCESS, fitting, signatures, write_text};
use crate::library::{Code, Given, Place, State, library};
use crate::scenario::{Mig, parse_pci};

/// A handle, told as the UUID of what it is of.
pub(super) struct Handle {
    pub(super) place: Place,
    pub(super) uuid: String,
}

impl Given for Handle {
    fn told(&self) -> Value {
        Value::from(self.uuid.as_str())
    }

    fn garbage() -> Handle {
        Handle { place: Place::gpu(usize::from(u16::MAX) - 1), uuid: String::new() }
    }
}

fn init(call: &str) -> Code {
    let given = library().system(call, true, None, |state| {
        state.references += 1;
        Ok(())
    });
    given.err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Code {
    init("nvmlInit_v2")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Code {
    init("nvmlInitWithFlags")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Code {
    let given = library().system("nvmlShutdown", false, None, |state| {
        state.references -= 1;
        Ok(())
    });
    given.err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: Code) -> *const c_char {
    let text: &CStr = match result {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        13 => c"Function Not Found",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        18 => c"Driver/library version mismatch",
        25 => c"Argument version mismatch",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// Answers a call about the system with text.
///
/// # Safety
/// `buffer` is null or writable for `length` bytes.
unsafe fn system_text(call: &str, buffer: *mut c_char, length: c_uint, give: impl FnOnce(&State) -> &str) -> Code {
    if buffer.is_null() {
        return INVALID_ARGUMENT;
    }
    let given = library().system(call, false, None, |state| fitting(give(state), length));
    // SAFETY: as the caller says.
    unsafe { write_text(given, buffer, length) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(buffer: *mut c_char, length: c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { system_text("nvmlSystemGetDriverVersion", buffer, length, |state| &state.scenario.driver_version) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetNVMLVersion(buffer: *mut c_char, length: c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { system_text("nvmlSystemGetNVMLVersion", buffer, length, |state| &state.scenario.nvml_version) }
}

/// Answers a call about the system with a number.
///
/// # Safety
/// `out` is null or writable.
unsafe fn system_number<T: Given>(call: &str, out: *mut T, give: impl FnOnce(&State) -> T) -> Code {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    match library().system(call, false, None, |state| Ok(give(state))) {
        Ok(number) => {
            // SAFETY: not null, and the caller says that it is writable.
            unsafe { out.write(number) };
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { system_number("nvmlSystemGetCudaDriverVersion", version, |state| state.scenario.cuda_driver_version) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { system_number("nvmlSystemGetCudaDriverVersion_v2", version, |state| state.scenario.cuda_driver_version) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { system_number("nvmlDeviceGetCount_v2", count, |state| state.units.len() as u32) }
}

/// Gives the handle of the unit that `find` finds; a lost one has none.
///
/// # Safety
/// `device` is null or writable.
unsafe fn find(
    call: &str,
    arg: Option<i64>,
    device: *mut nvml::nvmlDevice_t,
    missing: Code,
    find: impl Fn(&State) -> Option<Place>,
) -> Code {
    if device.is_null() {
        return INVALID_ARGUMENT;
    }
    // A GPU that does not answer keeps the one waiting who asks for its handle.
    let found = find(&library().state());
    if let Some(place) = found {
        library().wait_as_told(place.unit, call);
    }
    let given = library().system(call, false, arg, |state| {
        let place = find(state).ok_or(missing)?;
        let unit = state.units.get(place.unit).ok_or(missing)?;
        unit.refusal(call).map_or(Ok(()), Err)?;
        Ok(Handle { place, uuid: state.uuid(place).unwrap_or_default() })
    });
    match given {
        Ok(handle) => {
            // SAFETY: not null, and the caller says that it is writable.
            unsafe { device.write(handle.place.handle()) };
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvml::nvmlDevice_t) -> Code {
    let arg = Some(i64::from(index));
    // SAFETY: the contract of the C function.
    unsafe {
        find("nvmlDeviceGetHandleByIndex_v2", arg, device, INVALID_ARGUMENT, |_| Some(Place::gpu(index as usize)))
    }
}

/// Text of the caller's, if it is text.
///
/// # Safety
/// `text` is null or a C string.
unsafe fn given_text<'a>(text: *const c_char) -> Option<&'a str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller says that it is a C string.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvml::nvmlDevice_t) -> Code {
    // SAFETY: the contract of the C function.
    let Some(uuid) = (unsafe { given_text(uuid) }) else { return INVALID_ARGUMENT };
    let by_uuid = |state: &State| {
        state.units.iter().enumerate().find_map(|(index, unit)| {
            let of_mig = || unit.gpu.mig.iter().map(Mig::number).find(|mig| unit.mig_uuid(*mig) == uuid);
            let mig = if unit.uuid == uuid { None } else { Some(of_mig()?) };
            Some(Place { unit: index, mig })
        })
    };
    // SAFETY: the contract of the C function.
    unsafe { find("nvmlDeviceGetHandleByUUID", None, device, nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND, by_uuid) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(pci: *const c_char, device: *mut nvml::nvmlDevice_t) -> Code {
    // SAFETY: the contract of the C function.
    let Some(pci) = (unsafe { given_text(pci) }).and_then(parse_pci) else { return INVALID_ARGUMENT };
    let by_pci = |state: &State| state.units.iter().position(|unit| unit.pci == pci).map(Place::gpu);
    // SAFETY: the contract of the C function.
    unsafe {
        find("nvmlDeviceGetHandleByPciBusId_v2", None, device, nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND, by_pci)
    }
}

signatures! {
    nvmlInitWithFlags
    nvmlDeviceGetCount_v2
    nvmlDeviceGetHandleByIndex_v2
    nvmlDeviceGetHandleByPciBusId_v2
    nvmlDeviceGetHandleByUUID
    nvmlErrorString
    nvmlInit_v2
    nvmlShutdown
    nvmlSystemGetCudaDriverVersion
    nvmlSystemGetCudaDriverVersion_v2
    nvmlSystemGetDriverVersion
    nvmlSystemGetNVMLVersion
}
