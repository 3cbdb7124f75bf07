//! What a device measures: the calls that a sample is made of.

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::{Value, json};

use super::{
    INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, VERSION_MISMATCH, answer, answer_part, given_struct, is_other_version,
    readings, signatures, version,
};
use crate::library::{Code, Given, Place, State, library};
use crate::scenario::Fan;
use crate::unit::Unit;

readings! {
    nvmlDeviceGetTotalEnergyConsumption: c_ulonglong = |unit| Ok(unit.model.energy());
    nvmlDeviceGetPowerUsage: c_uint = |unit| Ok(unit.model.power(0));
    nvmlDeviceGetUtilizationRates: nvml::nvmlUtilization_t = |unit| {
        // A divided GPU has no utilization of its own.
        undivided(unit)?;
        let (gpu, memory) = unit.model.utilization();
        Ok(nvml::nvmlUtilization_t { gpu, memory })
    };
    nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong = |unit| Ok(unit.model.throttle_reasons(&unit.gpu));
    nvmlDeviceGetCurrentClocksEventReasons: c_ulonglong = |unit| Ok(unit.model.throttle_reasons(&unit.gpu));
    nvmlDeviceGetSupportedClocksThrottleReasons: c_ulonglong = |_unit| Ok(0x1ff);
    nvmlDeviceGetSupportedClocksEventReasons: c_ulonglong = |_unit| Ok(0x1ff);
    nvmlDeviceGetPerformanceState: nvml::nvmlPstates_t = |_unit| Ok(0);
    nvmlDeviceGetNumFans: c_uint = |unit| Ok(if unit.gpu.fan == Fan::None { 0 } else { unit.gpu.fans });
    nvmlDeviceGetBAR1MemoryInfo: nvml::nvmlBAR1Memory_t = |_unit| {
        let (total, used) = (128 << 30, 9 << 20);
        Ok(nvml::nvmlBAR1Memory_t { bar1Total: total, bar1Free: total - used, bar1Used: used })
    };
}

given_struct!(nvml::nvmlUtilization_t { gpu, memory });
given_struct!(nvml::nvmlMemory_t { total, free, used });
given_struct!(nvml::nvmlMemory_v2_t { total, reserved, free, used });
given_struct!(nvml::nvmlBAR1Memory_t { bar1Total, bar1Free, bar1Used });
given_struct!(nvml::nvmlFanSpeedInfo_t { fan, speed });

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

/// What a GPU that is divided by MIG does not support.
pub(super) fn undivided(unit: &Unit) -> Result<(), Code> {
    if unit.gpu.mig.is_empty() { Ok(()) } else { Err(NOT_SUPPORTED) }
}

/// Total, reserved and used memory of a GPU or of a MIG instance, bytes.
fn memory(state: &mut State, place: Place, reserved: u64) -> (u64, u64) {
    let unit = &mut state.units[place.unit];
    let instance = place.mig.and_then(|mig| unit.gpu.instance(mig));
    let total = instance.map_or(unit.gpu.memory_total_bytes, |mig| mig.memory_mb << 20);
    (total, unit.model.memory_used(total.saturating_sub(reserved)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo(device: nvml::nvmlDevice_t, out: *mut nvml::nvmlMemory_t) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer_part(device, "nvmlDeviceGetMemoryInfo", None, out, |state, place| {
            let (total, used) = memory(state, place, 0);
            Ok(nvml::nvmlMemory_t { total, free: total - used, used })
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: nvml::nvmlDevice_t, out: *mut nvml::nvmlMemory_v2_t) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        let is_other = is_other_version(out, 2);
        answer_part(device, "nvmlDeviceGetMemoryInfo_v2", None, out, |state, place| {
            if is_other {
                return Err(VERSION_MISMATCH);
            }
            let reserved = if place.mig.is_some() { 0 } else { 600 << 20 };
            let (total, used) = memory(state, place, reserved);
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
            if fan < unit.gpu.fans { Ok(speed) } else { Err(INVALID_ARGUMENT) }
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFanSpeed(device: nvml::nvmlDevice_t, out: *mut c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer(device, "nvmlDeviceGetFanSpeed", None, out, |state, index| {
            let unit = &mut state.units[index];
            unit.model.fan(unit.gpu.fan).ok_or(NOT_SUPPORTED)
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFanSpeedRPM(device: nvml::nvmlDevice_t, out: *mut nvml::nvmlFanSpeedInfo_t) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        let is_other = is_other_version(out, 1);
        let fan = if out.is_null() { 0 } else { (*out).fan };
        answer(device, "nvmlDeviceGetFanSpeedRPM", Some(i64::from(fan)), out, |state, index| {
            let unit = &mut state.units[index];
            if is_other {
                return Err(VERSION_MISMATCH);
            }
            let speed = unit.model.fan_rpm(unit.gpu.fan).ok_or(NOT_SUPPORTED)?;
            let version = version::<nvml::nvmlFanSpeedInfo_t>(1);
            if fan < unit.gpu.fans {
                Ok(nvml::nvmlFanSpeedInfo_t { version, fan, speed })
            } else {
                Err(INVALID_ARGUMENT)
            }
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
    let given = library().device(device, call, None, |state, index| {
        undivided(&state.units[index])?;
        Ok(EngineLoad { utilization: 0, sampling_period: 167_000 })
    });
    match given {
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

macro_rules! engines {
    ($($call:ident)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $call(
            device: nvml::nvmlDevice_t,
            utilization: *mut c_uint,
            period: *mut c_uint,
        ) -> Code {
            // SAFETY: the contract of the C function.
            unsafe { engine(device, stringify!($call), utilization, period) }
        }
    )*};
}

engines! {
    nvmlDeviceGetEncoderUtilization
    nvmlDeviceGetDecoderUtilization
    nvmlDeviceGetJpgUtilization
    nvmlDeviceGetOfaUtilization
}

signatures! {
    nvmlDeviceGetBAR1MemoryInfo
    nvmlDeviceGetClockInfo
    nvmlDeviceGetCurrentClocksEventReasons
    nvmlDeviceGetCurrentClocksThrottleReasons
    nvmlDeviceGetDecoderUtilization
    nvmlDeviceGetEncoderUtilization
    nvmlDeviceGetFanSpeed
    nvmlDeviceGetFanSpeedRPM
    nvmlDeviceGetFanSpeed_v2
    nvmlDeviceGetJpgUtilization
    nvmlDeviceGetMemoryInfo
    nvmlDeviceGetMemoryInfo_v2
    nvmlDeviceGetNumFans
    nvmlDeviceGetOfaUtilization
    nvmlDeviceGetPerformanceState
    nvmlDeviceGetPowerUsage
    nvmlDeviceGetSupportedClocksEventReasons
    nvmlDeviceGetSupportedClocksThrottleReasons
    nvmlDeviceGetTemperature
    nvmlDeviceGetTemperatureV
    nvmlDeviceGetTotalEnergyConsumption
    nvmlDeviceGetUtilizationRates
}
