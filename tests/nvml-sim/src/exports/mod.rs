//! The functions that the library exports, by theme, and what they share.
//!
//! Every function checks its pointers, buffer lengths and struct versions as the header of NVML asks, takes the way of
//! [`Library`](crate::library::Library), and writes its value last.

#![allow(unsafe_code, reason = "this is a C library: its callers hand it pointers")]

mod device;
mod events;
mod fields;
mod identity;
mod system;

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::{Value, json};

use crate::library::{Code, Given, State, library};

pub(crate) const SUCCESS: Code = nvml::nvmlReturn_enum_NVML_SUCCESS;
pub(crate) const INVALID_ARGUMENT: Code = nvml::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
pub(crate) const INSUFFICIENT_SIZE: Code = nvml::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
pub(crate) const VERSION_MISMATCH: Code = nvml::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
pub(crate) const NOT_SUPPORTED: Code = nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;

/// Text that is given into a buffer of the caller's.
pub(crate) struct Text(Vec<u8>);

impl Given for Text {
    fn told(&self) -> Value {
        Value::from(String::from_utf8_lossy(&self.0))
    }

    fn garbage() -> Text {
        Text(vec![0xff, 0xfe, b'!'])
    }
}

/// Nothing but success.
impl Given for () {
    fn told(&self) -> Value {
        Value::Null
    }

    fn garbage() {}
}

macro_rules! given_numbers {
    ($($number:ty),*) => {$(
        impl Given for $number {
            fn told(&self) -> Value {
                json!(self)
            }

            fn garbage() -> $number {
                !0
            }
        }
    )*};
}

given_numbers!(u32, i32, u64);

/// What a struct of the caller's must say as its version.
pub(crate) const fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
}

/// Answers a call about a device into `out`.
///
/// # Safety
/// `out` is null or writable.
unsafe fn answer<T: Given>(
    device: nvml::nvmlDevice_t,
    call: &str,
    arg: Option<i64>,
    out: *mut T,
    give: impl FnOnce(&mut State, usize) -> Result<T, Code>,
) -> Code {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    match library().device(device, call, arg, give) {
        Ok(value) => {
            // SAFETY: not null, and the caller says that it is writable.
            unsafe { out.write(value) };
            SUCCESS
        }
        Err(code) => code,
    }
}

/// Text that fits into a buffer of `length` bytes.
fn fitting(text: &str, length: c_uint) -> Result<Text, Code> {
    if text.len() < length as usize { Ok(Text(text.as_bytes().to_vec())) } else { Err(INSUFFICIENT_SIZE) }
}

/// Writes an answer that is text, with its NUL.
///
/// # Safety
/// `buffer` is writable for `length` bytes.
unsafe fn write_text(given: Result<Text, Code>, buffer: *mut c_char, length: c_uint) -> Code {
    match given {
        Ok(Text(bytes)) if bytes.len() < length as usize => {
            // SAFETY: the bytes and the NUL fit into what the caller says is writable.
            unsafe {
                buffer.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len());
                buffer.add(bytes.len()).write(0);
            }
            SUCCESS
        }
        Ok(_) => INSUFFICIENT_SIZE,
        Err(code) => code,
    }
}

/// Answers a call about a device with text.
///
/// # Safety
/// `buffer` is null or writable for `length` bytes.
unsafe fn answer_text(
    device: nvml::nvmlDevice_t,
    call: &str,
    buffer: *mut c_char,
    length: c_uint,
    give: impl FnOnce(&State, usize) -> String,
) -> Code {
    if buffer.is_null() {
        return INVALID_ARGUMENT;
    }
    let given = library().device(device, call, None, |state, unit| fitting(&give(state, unit), length));
    // SAFETY: as the caller says.
    unsafe { write_text(given, buffer, length) }
}
