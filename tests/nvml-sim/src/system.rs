//! Exports about the library and the driver.

use std::ffi::{c_char, c_int, c_uint};

use serde_json::Value;

use crate::code;
use crate::state::{node, put_text};

/// Starts the library.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> u32 {
    nvmlInitWithFlags(0)
}

/// Starts the library.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> u32 {
    if node().scenario.no_driver { code::DRIVER_NOT_LOADED } else { code::SUCCESS }
}

/// Ends the library.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> u32 {
    code::SUCCESS
}

/// Words for a return code.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: u32) -> *const c_char {
    let text = match result {
        code::SUCCESS => c"The operation was successful",
        code::NOT_SUPPORTED => c"Feature not supported",
        code::GPU_IS_LOST => c"GPU is lost",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// Version of the driver.
///
/// # Safety
/// `version` must hold `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> u32 {
    let mut node = node();
    if node.scenario.no_driver {
        return code::DRIVER_NOT_LOADED;
    }
    let text = node.scenario.driver_version.clone();
    node.tell(None, "nvmlSystemGetDriverVersion", None, code::SUCCESS, Value::from(text.as_str()));
    // SAFETY: passed on from the caller.
    unsafe { put_text(&text, version, length) }
}

/// Version of the library.
///
/// # Safety
/// `version` must hold `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> u32 {
    let mut node = node();
    let text = format!("12.{}", node.scenario.driver_version);
    node.tell(None, "nvmlSystemGetNVMLVersion", None, code::SUCCESS, Value::from(text.as_str()));
    // SAFETY: passed on from the caller.
    unsafe { put_text(&text, version, length) }
}

/// Highest CUDA version of the driver.
///
/// # Safety
/// `version` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> u32 {
    // SAFETY: valid where it is not null.
    unsafe { version.as_mut() }.map_or(code::INVALID_ARGUMENT, |version| {
        *version = 12_080;
        code::SUCCESS
    })
}

/// How many GPUs there are.
///
/// # Safety
/// `count` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> u32 {
    // SAFETY: valid where it is not null.
    let Some(count) = (unsafe { count.as_mut() }) else { return code::INVALID_ARGUMENT };
    let mut node = node();
    let devices = node.devices.len() as c_uint;
    node.tell(None, "nvmlDeviceGetCount_v2", None, code::SUCCESS, Value::from(devices));
    *count = devices;
    code::SUCCESS
}

/// Frees a GPM sample; nobody gets one here, and the wrapper wants the symbol.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpmSampleFree(_sample: *mut std::ffi::c_void) -> u32 {
    code::SUCCESS
}
