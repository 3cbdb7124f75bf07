//! What MIG has divided a GPU into, the names of GPUs and instances, and the processes on them.

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::{Value, json};

use super::system::Handle;
use super::{
    INSUFFICIENT_SIZE, INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, answer_numbers, answer_part, answer_part_text,
    answer_unit, given_struct, signatures,
};
use crate::library::{Code, Given, Place, State, library};
use crate::scenario::Mig;

/// Most instances that a GPU can be divided into.
const INSTANCES_MAX: u32 = 7;
/// Multiprocessors of a slice.
const MULTIPROCESSORS: u32 = 16;
const NOT_FOUND: Code = nvml::nvmlReturn_enum_NVML_ERROR_NOT_FOUND;
/// What a process outside of MIG has as its instances.
const NO_INSTANCE: u32 = u32::MAX;

given_struct!(nvml::nvmlDeviceAttributes_t {
    multiprocessorCount,
    sharedCopyEngineCount,
    sharedDecoderCount,
    sharedEncoderCount,
    sharedJpegCount,
    sharedOfaCount,
    gpuInstanceSliceCount,
    computeInstanceSliceCount,
    memorySizeMB
});

/// The instance that a handle is of.
fn instance(state: &State, place: Place) -> Option<&Mig> {
    state.units[place.unit].gpu.instance(place.mig?)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(device: nvml::nvmlDevice_t, buffer: *mut c_char, length: c_uint) -> Code {
    let name = |state: &State, place: Place| {
        let name = state.units[place.unit].gpu.name.clone();
        let gigabytes = |mig: &Mig| mig.memory_mb.div_ceil(1024);
        instance(state, place).map_or(name.clone(), |mig| format!("{name} MIG {}g.{}gb", mig.slices, gigabytes(mig)))
    };
    // SAFETY: the contract of the C function.
    unsafe { answer_part_text(device, "nvmlDeviceGetName", buffer, length, name) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(device: nvml::nvmlDevice_t, buffer: *mut c_char, length: c_uint) -> Code {
    let uuid = |state: &State, place: Place| state.uuid(place).unwrap_or_default();
    // SAFETY: the contract of the C function.
    unsafe { answer_part_text(device, "nvmlDeviceGetUUID", buffer, length, uuid) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvml::nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer_numbers(device, "nvmlDeviceGetMigMode", [current, pending], |unit| {
            let is_on = !unit.gpu.mig.is_empty();
            Ok([u32::from(is_on), u32::from(unit.gpu.mig_pending.unwrap_or(is_on))])
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: nvml::nvmlDevice_t, out: *mut c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { answer_unit(device, "nvmlDeviceGetMaxMigDeviceCount", None, out, |_| Ok(INSTANCES_MAX)) }
}

/// Gives the handle of a place, or says that there is none.
///
/// # Safety
/// `out` is null or writable.
unsafe fn give_handle(
    (device, call, arg): (nvml::nvmlDevice_t, &str, Option<i64>),
    out: *mut nvml::nvmlDevice_t,
    find: impl FnOnce(&State, Place) -> Result<Place, Code>,
) -> Code {
    if out.is_null() {
        return INVALID_ARGUMENT;
    }
    let given = library().part(device, call, arg, |state, place| {
        let place = find(state, place)?;
        Ok(Handle { place, uuid: state.uuid(place).unwrap_or_default() })
    });
    match given {
        Ok(handle) => {
            // SAFETY: not null, and the caller says that it is writable.
            unsafe { out.write(handle.place.handle()) };
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvml::nvmlDevice_t,
    index: c_uint,
    out: *mut nvml::nvmlDevice_t,
) -> Code {
    let call = (device, "nvmlDeviceGetMigDeviceHandleByIndex", Some(i64::from(index)));
    let find = |state: &State, place: Place| {
        if place.mig.is_some() || index >= INSTANCES_MAX {
            return Err(INVALID_ARGUMENT);
        }
        let mig = state.units[place.unit].gpu.mig.get(index as usize).ok_or(NOT_FOUND)?;
        Ok(Place { unit: place.unit, mig: Some(mig.number()) })
    };
    // SAFETY: the contract of the C function.
    unsafe { give_handle(call, out, find) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: nvml::nvmlDevice_t,
    out: *mut nvml::nvmlDevice_t,
) -> Code {
    let call = (device, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", None);
    let find = |_: &State, place: Place| match place.mig {
        Some(_) => Ok(Place::gpu(place.unit)),
        None => Err(INVALID_ARGUMENT),
    };
    // SAFETY: the contract of the C function.
    unsafe { give_handle(call, out, find) }
}

/// Calls that give a number of an instance; about a GPU they return 2.
macro_rules! of_instances {
    ($($call:ident => |$mig:ident| $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $call(device: nvml::nvmlDevice_t, out: *mut c_uint) -> Code {
            // SAFETY: the contract of the C function.
            unsafe {
                answer_part(device, stringify!($call), None, out, |state, place| {
                    let $mig = instance(state, place).ok_or(INVALID_ARGUMENT)?;
                    Ok($value)
                })
            }
        }
    )*};
}

of_instances! {
    nvmlDeviceGetGpuInstanceId => |mig| mig.gpu_instance;
    nvmlDeviceGetComputeInstanceId => |mig| mig.compute_instance;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceIsMigDeviceHandle(device: nvml::nvmlDevice_t, out: *mut c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer_part(device, "nvmlDeviceIsMigDeviceHandle", None, out, |_, place| Ok(u32::from(place.mig.is_some())))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetAttributes_v2(
    device: nvml::nvmlDevice_t,
    out: *mut nvml::nvmlDeviceAttributes_t,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer_part(device, "nvmlDeviceGetAttributes_v2", None, out, |state, place| {
            let mig = instance(state, place).ok_or(NOT_SUPPORTED)?;
            Ok(nvml::nvmlDeviceAttributes_t {
                multiprocessorCount: mig.slices * MULTIPROCESSORS,
                sharedCopyEngineCount: mig.slices,
                sharedDecoderCount: mig.slices,
                sharedEncoderCount: 0,
                sharedJpegCount: mig.slices,
                sharedOfaCount: 0,
                gpuInstanceSliceCount: mig.slices,
                computeInstanceSliceCount: mig.slices,
                memorySizeMB: mig.memory_mb,
            })
        })
    }
}

/// How many processes there are, and whether there is room for them.
struct Processes {
    count: u32,
    fits: bool,
    instances: (u32, u32),
}

impl Given for Processes {
    fn told(&self) -> Value {
        json!({ "count": self.count, "fits": self.fits })
    }

    fn garbage() -> Processes {
        Processes { count: u32::MAX, fits: false, instances: (NO_INSTANCE, NO_INSTANCE) }
    }
}

/// Without room it says how many there are and returns 7.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvml::nvmlDevice_t,
    count: *mut c_uint,
    processes: *mut nvml::nvmlProcessInfo_t,
) -> Code {
    if count.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the contract of the C function is that it can be read.
    let room = unsafe { count.read() };
    let given = library().part(device, "nvmlDeviceGetComputeRunningProcesses_v3", None, |state, place| {
        let count = state.units[place.unit].gpu.processes;
        let instances =
            instance(state, place).map_or((NO_INSTANCE, NO_INSTANCE), |mig| (mig.gpu_instance, mig.compute_instance));
        Ok(Processes { count, fits: count == 0 || (!processes.is_null() && count <= room), instances })
    });
    let given = match given {
        Ok(given) => given,
        Err(code) => return code,
    };
    // SAFETY: not null, and the contract of the C function is that it can be written.
    unsafe { count.write(given.count) };
    if !given.fits {
        return INSUFFICIENT_SIZE;
    }
    for number in 0..given.count {
        let process = nvml::nvmlProcessInfo_t {
            pid: 40_000 + number,
            usedGpuMemory: 70 << 30,
            gpuInstanceId: given.instances.0,
            computeInstanceId: given.instances.1,
        };
        // SAFETY: there is room for so many, as the caller says and as was looked at.
        unsafe { processes.add(number as usize).write(process) };
    }
    SUCCESS
}

signatures! {
    nvmlDeviceGetAttributes_v2
    nvmlDeviceGetComputeInstanceId
    nvmlDeviceGetComputeRunningProcesses_v3
    nvmlDeviceGetDeviceHandleFromMigDeviceHandle
    nvmlDeviceGetGpuInstanceId
    nvmlDeviceGetMaxMigDeviceCount
    nvmlDeviceGetMigDeviceHandleByIndex
    nvmlDeviceGetMigMode
    nvmlDeviceGetName
    nvmlDeviceGetUUID
    nvmlDeviceIsMigDeviceHandle
}
