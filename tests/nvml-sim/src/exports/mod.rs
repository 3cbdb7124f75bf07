//! The functions that the library exports, by theme, and what they share.
//!
//! Every function checks its pointers, buffer lengths and struct versions as the header of NVML asks, takes the way of
//! [`Library`](crate::library::Library), and writes its value last.

#![allow(unsafe_code, reason = "this is a C library: its callers hand it pointers")]

mod device;
mod ecc;
mod events;
mod fields;
mod gpm;
mod identity;
mod limits;
mod links;
mod mig;
mod platform;
mod system;
mod values;

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::{Value, json};

pub(crate) use gpm::GpmSample;

use crate::library::{Code, Given, Place, State, library};
use crate::unit::Unit;

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

/// Several numbers that a call gives at once.
pub(crate) struct Numbers<const N: usize>([u32; N]);

impl<const N: usize> Given for Numbers<N> {
    fn told(&self) -> Value {
        Value::from(self.0.to_vec())
    }

    fn garbage() -> Numbers<N> {
        Numbers([!0; N])
    }
}

/// What a struct of numbers is told as: an object of its fields. Its rubbish has all bits set.
macro_rules! given_struct {
    ($type:ty { $($field:ident),* }) => {
        impl $crate::library::Given for $type {
            fn told(&self) -> serde_json::Value {
                let mut told = serde_json::Map::new();
                $(told.insert(stringify!($field).to_owned(), serde_json::json!(self.$field));)*
                told.into()
            }

            fn garbage() -> $type {
                let mut garbage = std::mem::MaybeUninit::<$type>::uninit();
                // SAFETY: the struct is of numbers alone, which may have any bits.
                unsafe {
                    garbage.as_mut_ptr().cast::<u8>().write_bytes(0xff, size_of::<$type>());
                    garbage.assume_init()
                }
            }
        }
    };
}
use given_struct;

/// Calls that give one number or struct, from what the GPU is like.
macro_rules! readings {
    ($($call:ident: $number:ty = |$unit:ident| $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $call(device: nvml::nvmlDevice_t, out: *mut $number) -> Code {
            // SAFETY: the contract of the C function.
            unsafe { $crate::exports::answer_unit(device, stringify!($call), None, out, |$unit| $value) }
        }
    )*};
}
use readings;

/// Calls that give a struct of one version, from what the GPU is like.
macro_rules! versioned_readings {
    ($($call:ident: $number:ty, $version:literal = |$unit:ident| $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $call(device: nvml::nvmlDevice_t, out: *mut $number) -> Code {
            // SAFETY: the contract of the C function.
            unsafe {
                let is_other = $crate::exports::is_other_version(out, $version);
                $crate::exports::answer_unit(device, stringify!($call), None, out, |$unit| {
                    if is_other { Err($crate::exports::VERSION_MISMATCH) } else { $value }
                })
            }
        }
    )*};
}
use versioned_readings;

/// Functions that must have the types that nvml.h gives them; the compiler compares them with the bindings'.
macro_rules! signatures {
    ($($call:ident)*) => {
        const _: fn(&mut nvml::NvmlLib) = |lib| {
            $(lib.$call = Ok($call);)*
        };
    };
}
use signatures;

/// A struct of the caller's whose version says that it is not the one that is written here.
///
/// # Safety
/// `out` is null or points to a struct that begins with its version.
unsafe fn is_other_version<T>(out: *const T, number: u32) -> bool {
    // SAFETY: not null, and the caller says that a version is there.
    !out.is_null() && unsafe { out.cast::<c_uint>().read() } != version::<T>(number)
}

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
    let of_gpu = |state: &mut State, place: Place| match place.mig {
        Some(_) => Err(NOT_SUPPORTED),
        None => give(state, place.unit),
    };
    // SAFETY: as the caller says.
    unsafe { answer_part(device, call, arg, out, of_gpu) }
}

/// Answers a call about a GPU or a MIG instance into `out`.
///
/// # Safety
/// `out` is null or writable.
unsafe fn answer_part<T: Given>(
    device: nvml::nvmlDevice_t,
    call: &str,
    arg: Option<i64>,
    out: *mut T,
    give: impl FnOnce(&mut State, Place) -> Result<T, Code>,
) -> Code {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    match library().part(device, call, arg, give) {
        Ok(value) => {
            // SAFETY: not null, and the caller says that it is writable.
            unsafe { out.write(value) };
            SUCCESS
        }
        Err(code) => code,
    }
}

/// Answers a call about a GPU into `out`, from what it is like.
///
/// # Safety
/// `out` is null or writable.
unsafe fn answer_unit<T: Given>(
    device: nvml::nvmlDevice_t,
    call: &str,
    arg: Option<i64>,
    out: *mut T,
    give: impl FnOnce(&mut Unit) -> Result<T, Code>,
) -> Code {
    // SAFETY: as the caller says.
    unsafe { answer(device, call, arg, out, |state, index| give(&mut state.units[index])) }
}

/// Answers a call about a GPU into several numbers.
///
/// # Safety
/// Every one of `outs` is null or writable.
unsafe fn answer_numbers<const N: usize>(
    device: nvml::nvmlDevice_t,
    call: &str,
    outs: [*mut c_uint; N],
    give: impl FnOnce(&mut Unit) -> Result<[u32; N], Code>,
) -> Code {
    if outs.iter().any(|out| out.is_null()) {
        return INVALID_ARGUMENT;
    }
    match library().device(device, call, None, |state, index| give(&mut state.units[index]).map(Numbers)) {
        Ok(Numbers(numbers)) => {
            for (out, number) in outs.into_iter().zip(numbers) {
                // SAFETY: not null, and the caller says that they are writable.
                unsafe { out.write(number) };
            }
            SUCCESS
        }
        Err(code) => code,
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

/// Answers a call about a GPU with text.
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

/// Answers a call about a GPU or a MIG instance with text.
///
/// # Safety
/// `buffer` is null or writable for `length` bytes.
unsafe fn answer_part_text(
    device: nvml::nvmlDevice_t,
    call: &str,
    buffer: *mut c_char,
    length: c_uint,
    give: impl FnOnce(&State, Place) -> String,
) -> Code {
    if buffer.is_null() {
        return INVALID_ARGUMENT;
    }
    let given = library().part(device, call, None, |state, place| fitting(&give(state, place), length));
    // SAFETY: as the caller says.
    unsafe { write_text(given, buffer, length) }
}
