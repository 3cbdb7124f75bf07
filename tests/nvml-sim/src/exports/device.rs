//! What a device measures: the calls that a sample is made of.

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::{Value, json};

use super::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, VERSION_MISMATCH, answer, version};
use crate::library::{Code, Given, library};

macro_rules! readings {
    ($($call:ident: $number:ty = |$unit:ident| $value:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $call(device: nvml::nvmlDevice_t, out: *mut $number) -> Code {
            // SAFETY: the contract of the C function.
            unsafe {
                answer(device, stringify!($call), None, out, |state, index| {
                    let $unit = &mut state.units[index];
                    Ok($value)
                })
            }
        }
    )*};
}

readings! {
    nvmlDeviceGetTotalEnergyConsumption: c_ulonglong = |unit| unit.model.energy();
    nvmlDeviceGetPowerUsage: c_uint = |unit| unit.model.power();
    nvmlDeviceGetEnforcedPowerLimit: c_uint = |unit| (unit.gpu.power_max_watts * 1000.0) as u32;
    nvmlDeviceGetUtilizationRates: nvml::nvmlUtilization_t = |unit| {
        let (gpu, memory) = unit.model.utilization();
        nvml::nvmlUtilization_t { gpu, memory }
    };
    nvmlDeviceGetMemoryInfo: nvml::nvmlMemory_t = |unit| {
        let total = unit.gpu.memory_total_bytes;
        let used = unit.model.memory_used(total);
        nvml::nvmlMemory_t { total, free: total - used, used }
    };
    nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong = |unit| unit.model.throttle_reasons();
    nvmlDeviceGetCurrentClocksEventReasons: c_ulonglong = |unit| unit.model.throttle_reasons();
    nvmlDeviceGetPerformanceState: nvml::nvmlPstates_t = |_unit| 0;
    nvmlDeviceGetNumFans: c_uint = |unit| u32::from(unit.gpu.fan != crate::scenario::Fan::None);
}

impl Given for nvml::nvmlUtilization_t {
    fn told(&self) -> Value {
        json!({ "gpu": self.gpu, "memory": self.memory })
    }

    fn garbage() -> nvml::nvmlUtilization_t {
        nvml::nvmlUtilization_t { gpu: !0, memory: !0 }
    }
}

impl Given for nvml::nvmlMemory_t {
    fn told(&self) -> Value {
        json!({ "total": self.total, "free": self.free, "used": self.used })
    }

    fn garbage() -> nvml::nvmlMemory_t {
        nvml::nvmlMemory_t { total: !0, free: !0, used: !0 }
    }
}

impl Given for nvml::nvmlMemory_v2_t {
    fn told(&self) -> Value {
        json!({ "total": self.total, "reserved": self.reserved, "free": self.free, "used": self.used })
    }

    fn garbage() -> nvml::nvmlMemory_v2_t {
        nvml::nvmlMemory_v2_t {
            version: version::<nvml::nvmlMemory_v2_t>(2),
            total: !0,
            reserved: !0,
            free: !0,
            used: !0,
        }
    }
}

impl Given for nvml::nvmlTemperature_t {
    fn told(&self) -> Value {
        json!(self.temperature)
    }

    fn garbage() -> nvml::nvmlTemperature_t {
        nvml::nvmlTemperature_t {
            version: version::<nvml::nvmlTemperature_t>(1),
            sensorType: 0,
            temperature: c_int::MIN,
        }
    }
}

/// A struct of the caller's whose version says that it is not the one that is written here.
///
/// # Safety
/// `out` is null or points to a struct that begins with its version.
unsafe fn is_other_version<T>(out: *const T, number: u32) -> bool {
    // SAFETY: not null, and the caller says that a version is there.
    !out.is_null() && unsafe { out.cast::<c_uint>().read() } != version::<T>(number)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvml::nvmlDevice_t,
    memory: *mut nvml::nvmlMemory_v2_t,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        let is_other = is_other_version(memory, 2);
        answer(device, "nvmlDeviceGetMemoryInfo_v2", None, memory, |state, index| {
            if is_other {
                return Err(VERSION_MISMATCH);
            }
            let unit = &mut state.units[index];
            let (total, reserved) = (unit.gpu.memory_total_bytes, 600 << 20);
            let used = unit.model.memory_used(total.saturating_sub(reserved));
            let free = total.saturating_sub(reserved + used);
            Ok(nvml::nvmlMemory_v2_t { version: version::<nvml::nvmlMemory_v2_t>(2), total, reserved, free, used })
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperature(device: nvml::nvmlDevice_t, sensor: c_uint, out: *mut c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer(device, "nvmlDeviceGetTemperature", Some(i64::from(sensor)), out, |state, index| match sensor {
            // The header has it unsigned; below zero it wraps.
            0 => Ok(state.units[index].model.celsius() as u32),
            _ => Err(INVALID_ARGUMENT),
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperatureV(device: nvml::nvmlDevice_t, out: *mut nvml::nvmlTemperature_t) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        let is_other = is_other_version(out, 1);
        let sensor = if out.is_null() { 0 } else { (*out).sensorType };
        answer(device, "nvmlDeviceGetTemperatureV", Some(i64::from(sensor)), out, |state, index| match sensor {
            _ if is_other => Err(VERSION_MISMATCH),
            0 => Ok(nvml::nvmlTemperature_t {
                version: version::<nvml::nvmlTemperature_t>(1),
                sensorType: 0,
                temperature: state.units[index].model.celsius(),
            }),
            _ => Err(INVALID_ARGUMENT),
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetClockInfo(device: nvml::nvmlDevice_t, clock: c_uint, out: *mut c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer(device, "nvmlDeviceGetClockInfo", Some(i64::from(clock)), out, |state, index| {
            state.units[index].model.clock(clock).ok_or(INVALID_ARGUMENT)
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFanSpeed_v2(device: nvml::nvmlDevice_t, fan: c_uint, out: *mut c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer(device, "nvmlDeviceGetFanSpeed_v2", Some(i64::from(fan)), out, |state, index| {
            let unit = &mut state.units[index];
            let speed = unit.model.fan(unit.gpu.fan).ok_or(NOT_SUPPORTED)?;
            if fan == 0 { Ok(speed) } else { Err(INVALID_ARGUMENT) }
        })
    }
}

/// Load of a video engine and the period that it is of.
struct EngineLoad {
    utilization: u32,
    sampling_period: u32,
}

impl Given for EngineLoad {
    fn told(&self) -> Value {
        json!({ "utilization": self.utilization, "sampling_period": self.sampling_period })
    }

    fn garbage() -> EngineLoad {
        EngineLoad { utilization: !0, sampling_period: !0 }
    }
}

/// Answers for a video engine, which training does not use.
///
/// # Safety
/// Both pointers are null or writable.
unsafe fn engine(device: nvml::nvmlDevice_t, call: &str, utilization: *mut c_uint, period: *mut c_uint) -> Code {
    if utilization.is_null() || period.is_null() {
        return INVALID_ARGUMENT;
    }
    match library().device(device, call, None, |_, _| Ok(EngineLoad { utilization: 0, sampling_period: 167_000 })) {
        Ok(load) => {
            // SAFETY: not null, and the caller says that they are writable.
            unsafe {
                utilization.write(load.utilization);
                period.write(load.sampling_period);
            }
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEncoderUtilization(
    device: nvml::nvmlDevice_t,
    utilization: *mut c_uint,
    period: *mut c_uint,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { engine(device, "nvmlDeviceGetEncoderUtilization", utilization, period) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetDecoderUtilization(
    device: nvml::nvmlDevice_t,
    utilization: *mut c_uint,
    period: *mut c_uint,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { engine(device, "nvmlDeviceGetDecoderUtilization", utilization, period) }
}
