//! NVML calls made directly: raw return codes, field values with scope, 64-bit unions, structs of every version.
//!
//! The wrapper hides return codes behind variants, knows no scope, narrows 64-bit fields and drops event bits that are
//! newer than it; a row needs all of these. Everything unsafe about NVML is in this module. A missing function is code
//! 13, as NVML itself says it. `nvmlDeviceGetPcieThroughput` is not here on purpose: it measures for 20 ms.

#![allow(unsafe_code, reason = "NVML is a C library")]

mod events;
mod fields;
mod gauges;
mod gpm;
mod health;
mod identity;
mod links;
mod mig;
mod newer;

use std::ffi::c_uint;

use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{NvmlLib, nvmlDevice_t, nvmlReturn_t};

use super::calls::calling;

pub(super) use events::{EventSet, RawEvent};
pub(super) use fields::{Field, FieldAnswer, FieldValue};
pub(super) use gpm::GpmSample;
pub(super) use identity::Platform;
pub(super) use newer::Newer;

/// An argument is wrong; of a field, a link or a location also that the driver does not know it.
pub(super) const INVALID_ARGUMENT: i32 = 2;
/// The device or board does not have it.
pub(super) const NOT_SUPPORTED: i32 = 3;
/// Nothing is there under that number.
pub(super) const NOT_FOUND: i32 = 6;
/// The list is longer than the room for it.
const INSUFFICIENT_SIZE: i32 = 7;
/// Nothing happened within the time given.
pub(super) const TIMEOUT: i32 = 10;
/// The library does not have the function.
pub(super) const FUNCTION_NOT_FOUND: i32 = 13;
/// The InfoROM cannot be read.
pub(super) const CORRUPTED_INFOROM: i32 = 14;
/// The GPU has fallen off the bus.
pub(super) const GPU_IS_LOST: i32 = 15;
/// The library knows the struct in other versions only.
const VERSION_MISMATCH: i32 = 25;
/// Codes of a library that no driver answers to any more: not initialised, driver not loaded, versions differ.
pub(super) const DRIVER_IS_GONE: [i32; 3] = [1, 9, 18];

/// What a call gave: a value, or NVML's return code.
pub(super) type Answer<T> = Result<T, i32>;

/// A device handle: valid as long as the library that gave it is loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle {
    device: nvmlDevice_t,
    /// What a MIG instance is a part of.
    instance: Option<Instance>,
}

/// Where a MIG instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instance {
    parent: nvmlDevice_t,
    gpu: u32,
    compute: u32,
}

// SAFETY: NVML's functions may be called from any thread, and a handle is a name for a device, not memory of ours.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl PartialEq for Handle {
    fn eq(&self, other: &Handle) -> bool {
        self.device == other.device
    }
}

impl Eq for Handle {}

impl Handle {
    pub(super) fn of(device: &Device<'_>) -> Handle {
        // SAFETY: the handle is only used with the library that gave it, which its users keep loaded.
        Handle::whole(unsafe { device.handle() })
    }

    /// A whole GPU.
    fn whole(device: nvmlDevice_t) -> Handle {
        Handle { device, instance: None }
    }

    /// The wrapper's view of the device, for its simple getters.
    pub(super) fn device(self, nvml: &Nvml) -> Device<'_> {
        // SAFETY: the handle came from this library, which the reference keeps loaded.
        unsafe { Device::new(self.device, nvml) }
    }

    /// The GPU that a MIG instance is a part of, and the ids of its GPU and compute instance.
    pub(super) fn mig(self) -> Option<(Handle, u32, u32)> {
        self.instance.map(|instance| (Handle::whole(instance.parent), instance.gpu, instance.compute))
    }
}

/// The calls about one device.
#[derive(Clone, Copy)]
pub(super) struct Calls<'a> {
    pub(super) lib: &'a NvmlLib,
    /// Functions that are newer than the bindings.
    pub(super) newer: &'a Newer,
    pub(super) device: Handle,
    /// Whether the driver numbers its fields from 251 on as version 580.82 does.
    pub(super) renumbered: bool,
}

fn judge<T>(code: nvmlReturn_t, value: T) -> Answer<T> {
    if code == 0 { Ok(value) } else { Err(code as i32) }
}

/// The version word of a struct: its size and the number of its version.
const fn version_of<T>(version: c_uint) -> c_uint {
    size_of::<T>() as c_uint | version << 24
}

/// The answer of the first version of a struct that the library knows, newest first; `known` remembers which, from 0. An
/// older library may also call a newer version a wrong argument.
fn newest<T>(known: &mut usize, versions: &[&dyn Fn() -> Answer<T>]) -> Answer<T> {
    let mut answer = Err(FUNCTION_NOT_FOUND);
    for (index, call) in versions.iter().enumerate().skip(*known) {
        answer = call();
        if !matches!(answer, Err(VERSION_MISMATCH | FUNCTION_NOT_FOUND | INVALID_ARGUMENT)) {
            *known = index;
            break;
        }
    }
    answer
}

/// Text up to the first NUL; code 1001 where it is not UTF-8. Blanks around it and nothing but blanks are no text.
fn text_of(bytes: &[u8]) -> Answer<Option<String>> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| racklake_schemas::fail_code::UNPARSABLE)?;
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// Getters of one number through a pointer.
macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident = $function:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub(in crate::nvml) fn $name(&self) -> super::Answer<$type> {
            let function = self.lib.$function.as_ref().map_err(|_| super::FUNCTION_NOT_FOUND)?;
            super::calling(stringify!($function));
            let mut value: $type = 0;
            // SAFETY: the handle is the library's own, and the pointer is to a value of the type it writes.
            let code = unsafe { function(self.device.device, &mut value) };
            super::judge(code, value)
        }
    )*};
}

/// Getters of two numbers through pointers.
macro_rules! pairs {
    ($($(#[$doc:meta])* $name:ident = $function:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub(in crate::nvml) fn $name(&self) -> super::Answer<[$type; 2]> {
            let function = self.lib.$function.as_ref().map_err(|_| super::FUNCTION_NOT_FOUND)?;
            super::calling(stringify!($function));
            let mut values: [$type; 2] = [0; 2];
            let [first, second] = &mut values;
            // SAFETY: as in `getters`, for two values.
            let code = unsafe { function(self.device.device, first, second) };
            super::judge(code, values)
        }
    )*};
}

/// Getters of one number that is chosen by another.
macro_rules! indexed {
    ($($(#[$doc:meta])* $name:ident = $function:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub(in crate::nvml) fn $name(&self, which: u32) -> super::Answer<$type> {
            let function = self.lib.$function.as_ref().map_err(|_| super::FUNCTION_NOT_FOUND)?;
            super::calling(stringify!($function));
            let mut value: $type = 0;
            // SAFETY: as in `getters`.
            let code = unsafe { function(self.device.device, which, &mut value) };
            super::judge(code, value)
        }
    )*};
}

use {getters, indexed, pairs};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_the_library_knows_is_remembered() {
        let (new, old) = (|| Err(VERSION_MISMATCH), || Ok(7));
        let mut known = 0;
        assert_eq!((newest(&mut known, &[&new, &old]), known), (Ok(7), 1));
        let never = || -> Answer<i32> { panic!("a version that is known to be none was tried again") };
        assert_eq!(newest(&mut known, &[&never, &old]), Ok(7));
        // An error of the device says nothing against the version.
        let lost = || -> Answer<i32> { Err(GPU_IS_LOST) };
        let mut known = 0;
        assert_eq!((newest(&mut known, &[&lost, &old]), known), (Err(GPU_IS_LOST), 0));
        assert_eq!(newest(&mut 0, &[&new]), Err(VERSION_MISMATCH));
    }

    #[test]
    fn text_ends_at_its_nul_and_must_be_utf_8() {
        assert_eq!(text_of(b" H100 \0rest"), Ok(Some("H100".to_owned())));
        assert_eq!(text_of(b"no end"), Ok(Some("no end".to_owned())));
        assert_eq!(text_of(b" \0"), Ok(None));
        assert_eq!(text_of(b"\xff\xfe\0"), Err(1001));
    }
}
