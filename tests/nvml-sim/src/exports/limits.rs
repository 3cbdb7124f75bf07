//! What a device may: limits of power, thresholds of temperature, highest clocks.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings as nvml;

use super::{
    INVALID_ARGUMENT, NOT_SUPPORTED, answer_numbers, answer_unit, given_struct, readings, signatures, version,
    versioned_readings,
};
use crate::library::Code;
use crate::model::{CLOCK_MAX, CLOCK_MEMORY, CLOCK_VIDEO_MAX};
use crate::unit::Unit;

given_struct!(nvml::nvmlMarginTemperature_t { marginTemperature });

readings! {
    nvmlDeviceGetEnforcedPowerLimit: c_uint = |unit| Ok(milliwatts(unit.gpu.power_limit()));
    nvmlDeviceGetPowerManagementLimit: c_uint = |unit| Ok(milliwatts(unit.gpu.power_limit()));
    nvmlDeviceGetPowerManagementDefaultLimit: c_uint = |unit| Ok(milliwatts(unit.gpu.power_max_watts));
}

versioned_readings! {
    nvmlDeviceGetMarginTemperature: nvml::nvmlMarginTemperature_t, 1 = |unit| Ok(nvml::nvmlMarginTemperature_t {
        version: version::<nvml::nvmlMarginTemperature_t>(1),
        marginTemperature: unit.gpu.slowdown_celsius as i32 - unit.model.celsius(),
    });
}

/// Watts as NVML tells them.
pub(super) fn milliwatts(watts: f64) -> u32 {
    (watts * 1000.0) as u32
}

/// The lowest limit that can be set, watts.
pub(super) fn power_min(unit: &Unit) -> f64 {
    unit.gpu.power_max_watts * 0.3
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPowerManagementLimitConstraints(
    device: nvml::nvmlDevice_t,
    min: *mut c_uint,
    max: *mut c_uint,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer_numbers(device, "nvmlDeviceGetPowerManagementLimitConstraints", [min, max], |unit| {
            Ok([milliwatts(power_min(unit)), milliwatts(unit.gpu.power_max_watts)])
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: nvml::nvmlDevice_t,
    threshold: c_uint,
    out: *mut c_uint,
) -> Code {
    let arg = Some(i64::from(threshold));
    // SAFETY: the contract of the C function.
    unsafe {
        answer_unit(device, "nvmlDeviceGetTemperatureThreshold", arg, out, |unit| {
            let slowdown = unit.gpu.slowdown_celsius as i32;
            match threshold {
                0 => Ok((slowdown + 5) as u32),
                1 => Ok(slowdown as u32),
                2 => Ok(95),
                3 => Ok((slowdown - 2) as u32),
                4..=7 => Err(NOT_SUPPORTED),
                _ => Err(INVALID_ARGUMENT),
            }
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(device: nvml::nvmlDevice_t, clock: c_uint, out: *mut c_uint) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer_unit(device, "nvmlDeviceGetMaxClockInfo", Some(i64::from(clock)), out, |_| match clock {
            0 | 1 => Ok(CLOCK_MAX as u32),
            2 => Ok(CLOCK_MEMORY),
            3 => Ok(CLOCK_VIDEO_MAX as u32),
            _ => Err(INVALID_ARGUMENT),
        })
    }
}

signatures! {
    nvmlDeviceGetEnforcedPowerLimit
    nvmlDeviceGetMarginTemperature
    nvmlDeviceGetMaxClockInfo
    nvmlDeviceGetPowerManagementDefaultLimit
    nvmlDeviceGetPowerManagementLimit
    nvmlDeviceGetPowerManagementLimitConstraints
    nvmlDeviceGetTemperatureThreshold
}
