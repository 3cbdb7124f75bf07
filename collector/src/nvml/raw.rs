//! NVML calls made directly: raw return codes, field values with scope, 64-bit unions, events of all types.
//!
//! The wrapper hides return codes behind variants, knows no scope, narrows 64-bit fields and drops event bits that are
//! newer than it; a row needs all of these. Everything unsafe about NVML is in this file. A missing function is code 13,
//! as NVML itself says it.

#![allow(unsafe_code, reason = "NVML is a C library")]

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    NvmlLib, nvmlDevice_t, nvmlEventData_st, nvmlEventSet_t, nvmlFieldValue_st, nvmlMemory_st, nvmlReturn_t,
    nvmlUtilization_st,
};

use super::calls::calling;

/// The device or board does not have it.
pub(super) const NOT_SUPPORTED: i32 = 3;
/// Nothing happened within the time given.
pub(super) const TIMEOUT: i32 = 10;
/// The library does not have the function.
pub(super) const FUNCTION_NOT_FOUND: i32 = 13;
/// The GPU has fallen off the bus.
pub(super) const GPU_IS_LOST: i32 = 15;
/// Codes of a library that no driver answers to any more: not initialised, driver not loaded, versions differ.
pub(super) const DRIVER_IS_GONE: [i32; 3] = [1, 9, 18];

/// What a call gave: a value, or NVML's return code.
pub(super) type Answer<T> = Result<T, i32>;

/// A device handle: valid as long as the library that gave it is loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle(nvmlDevice_t);

// SAFETY: NVML's functions may be called from any thread, and a handle is a name for a device, not memory of ours.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub(super) fn of(device: &Device<'_>) -> Handle {
        // SAFETY: the handle is only used with the library that gave it, which its users keep loaded.
        Handle(unsafe { device.handle() })
    }

    /// The wrapper's view of the device, for its simple getters.
    pub(super) fn device(self, nvml: &Nvml) -> Device<'_> {
        // SAFETY: the handle came from this library, which the reference keeps loaded.
        unsafe { Device::new(self.0, nvml) }
    }
}

/// The calls about one device.
pub(super) struct Calls<'a> {
    pub(super) lib: &'a NvmlLib,
    pub(super) device: Handle,
}

fn judge<T>(code: nvmlReturn_t, value: T) -> Answer<T> {
    if code == 0 { Ok(value) } else { Err(code as i32) }
}

/// Getters of one number through a pointer.
macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident = $function:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub(super) fn $name(&self) -> Answer<$type> {
            let function = self.lib.$function.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
            let mut value: $type = 0;
            calling(stringify!($function));
            // SAFETY: the handle is the library's own, and the pointer is to a value of the type it writes.
            let code = unsafe { function(self.device.0, &mut value) };
            judge(code, value)
        }
    )*};
}

impl Calls<'_> {
    getters! {
        /// Millijoules since the driver loaded.
        energy = nvmlDeviceGetTotalEnergyConsumption: c_ulonglong;
        /// Milliwatts.
        power = nvmlDeviceGetPowerUsage: c_uint;
        /// Milliwatts.
        power_limit = nvmlDeviceGetEnforcedPowerLimit: c_uint;
        /// Bits of nvmlClocksEventReasons.
        throttle_reasons = nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong;
        /// 0 is the highest.
        performance_state = nvmlDeviceGetPerformanceState: c_uint;
        /// Bits of nvmlEventType.
        event_types = nvmlDeviceGetSupportedEventTypes: c_ulonglong;
    }

    /// °C of the die.
    pub(super) fn temperature(&self) -> Answer<i32> {
        let function = self.lib.nvmlDeviceGetTemperature.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetTemperature");
        let mut celsius: c_uint = 0;
        // SAFETY: as in `getters`; sensor 0 is NVML_TEMPERATURE_GPU.
        let code = unsafe { function(self.device.0, 0, &mut celsius) };
        // The header has it unsigned; below zero it wraps.
        judge(code, celsius as i32)
    }

    /// Megahertz of a domain: 0 graphics, 1 SM, 2 memory, 3 video.
    pub(super) fn clock(&self, domain: u32) -> Answer<u32> {
        let function = self.lib.nvmlDeviceGetClockInfo.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetClockInfo");
        let mut megahertz = 0;
        // SAFETY: as in `getters`.
        let code = unsafe { function(self.device.0, domain, &mut megahertz) };
        judge(code, megahertz)
    }

    /// Percent of full speed of the first fan.
    pub(super) fn fan_speed(&self) -> Answer<u32> {
        let function = self.lib.nvmlDeviceGetFanSpeed_v2.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetFanSpeed_v2");
        let mut percent = 0;
        // SAFETY: as in `getters`.
        let code = unsafe { function(self.device.0, 0, &mut percent) };
        judge(code, percent)
    }

    /// Percent of the GPU and of its memory.
    pub(super) fn utilization(&self) -> Answer<(u32, u32)> {
        let function = self.lib.nvmlDeviceGetUtilizationRates.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetUtilizationRates");
        let mut rates = nvmlUtilization_st { gpu: 0, memory: 0 };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.0, &mut rates) };
        judge(code, (rates.gpu, rates.memory))
    }

    /// Percent of the video encoder.
    pub(super) fn encoder(&self) -> Answer<u32> {
        let function = self.lib.nvmlDeviceGetEncoderUtilization.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetEncoderUtilization");
        let (mut percent, mut period_us) = (0, 0);
        // SAFETY: as in `getters`.
        let code = unsafe { function(self.device.0, &mut percent, &mut period_us) };
        judge(code, percent)
    }

    /// Percent of the video decoder.
    pub(super) fn decoder(&self) -> Answer<u32> {
        let function = self.lib.nvmlDeviceGetDecoderUtilization.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetDecoderUtilization");
        let (mut percent, mut period_us) = (0, 0);
        // SAFETY: as in `getters`.
        let code = unsafe { function(self.device.0, &mut percent, &mut period_us) };
        judge(code, percent)
    }

    /// Bytes in use and installed.
    pub(super) fn memory(&self) -> Answer<(u64, u64)> {
        let function = self.lib.nvmlDeviceGetMemoryInfo.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetMemoryInfo");
        let mut memory = nvmlMemory_st { total: 0, free: 0, used: 0 };
        // SAFETY: as in `getters`, with the struct that it fills.
        let code = unsafe { function(self.device.0, &mut memory) };
        judge(code, (memory.used, memory.total))
    }

    /// Values of (field id, scope), each with its own outcome, in the order asked: a driver may answer with another id
    /// than it was asked for. One call, since fields that one driver call serves share its cost.
    pub(super) fn fields(&self, wanted: &[(u32, u32)]) -> Answer<Vec<Answer<FieldValue>>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let function = self.lib.nvmlDeviceGetFieldValues.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetFieldValues");
        let empty = |&(field, scope): &(u32, u32)| {
            // SAFETY: the struct is plain numbers and a union of numbers, for which zeros are valid.
            let mut value: nvmlFieldValue_st = unsafe { std::mem::zeroed() };
            (value.fieldId, value.scopeId) = (field, scope);
            value
        };
        let mut values: Vec<nvmlFieldValue_st> = wanted.iter().map(empty).collect();
        // SAFETY: the pointer is to as many structs as the count says.
        let code = unsafe { function(self.device.0, values.len() as c_int, values.as_mut_ptr()) };
        judge(code, ())?;
        Ok(values.iter().map(decode).collect())
    }
}

/// A field's value, wide enough for every type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum FieldValue {
    /// Any integer type.
    Integer(i64),
    /// A double.
    Float(f64),
    /// An integer that i64 does not hold, or a type that nobody knows.
    Unreadable,
}

/// The member of the union that the type names. The union is not looked at where the field's own code is an error: the
/// driver may leave anything in it.
fn decode(value: &nvmlFieldValue_st) -> Answer<FieldValue> {
    judge(value.nvmlReturn, ())?;
    // SAFETY: all members are numbers of at most 8 bytes, every bit pattern of which is valid, and zeros were there before.
    let decoded = unsafe {
        match value.valueType {
            0 => FieldValue::Float(value.value.dVal),
            1 => FieldValue::Integer(i64::from(value.value.uiVal)),
            2 | 3 => i64::try_from(value.value.ullVal).map_or(FieldValue::Unreadable, FieldValue::Integer),
            4 => FieldValue::Integer(value.value.sllVal),
            5 => FieldValue::Integer(i64::from(value.value.siVal)),
            6 => FieldValue::Integer(i64::from(value.value.usVal)),
            _ => FieldValue::Unreadable,
        }
    };
    Ok(decoded)
}

/// A set of events to wait for.
pub(super) struct EventSet<'a> {
    lib: &'a NvmlLib,
    set: nvmlEventSet_t,
}

/// One event, as the driver gave it.
pub(super) struct RawEvent {
    pub(super) device: Handle,
    pub(super) kind: u64,
    pub(super) data: u64,
    pub(super) gpu_instance: u32,
    pub(super) compute_instance: u32,
}

impl<'a> EventSet<'a> {
    pub(super) fn new(lib: &'a NvmlLib) -> Answer<EventSet<'a>> {
        let function = lib.nvmlEventSetCreate.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlEventSetCreate");
        let mut set: nvmlEventSet_t = std::ptr::null_mut();
        // SAFETY: the pointer is to a handle that the call fills in.
        let code = unsafe { function(&mut set) };
        judge(code, EventSet { lib, set })
    }

    /// Adds the events of a device, as bits.
    pub(super) fn register(&self, device: Handle, kinds: u64) -> Answer<()> {
        let function = self.lib.nvmlDeviceRegisterEvents.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceRegisterEvents");
        // SAFETY: both handles are the library's own.
        judge(unsafe { function(device.0, kinds, self.set) }, ())
    }

    /// Waits at most so many milliseconds.
    pub(super) fn wait(&self, milliseconds: u32) -> Answer<RawEvent> {
        let function = self.lib.nvmlEventSetWait_v2.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlEventSetWait_v2");
        let mut data = nvmlEventData_st {
            device: std::ptr::null_mut(),
            eventType: 0,
            eventData: 0,
            gpuInstanceId: 0,
            computeInstanceId: 0,
        };
        // SAFETY: the set is the library's own, the pointer is to the struct that it fills.
        let code = unsafe { function(self.set, &mut data, milliseconds) };
        judge(
            code,
            RawEvent {
                device: Handle(data.device),
                kind: data.eventType,
                data: data.eventData,
                gpu_instance: data.gpuInstanceId,
                compute_instance: data.computeInstanceId,
            },
        )
    }
}

impl Drop for EventSet<'_> {
    fn drop(&mut self) {
        if let (Ok(free), false) = (self.lib.nvmlEventSetFree.as_ref(), self.set.is_null()) {
            // SAFETY: the set is the library's own and not used again.
            unsafe { free(self.set) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: u32, code: u32, bits: u64) -> nvmlFieldValue_st {
        // SAFETY: plain numbers.
        let mut value: nvmlFieldValue_st = unsafe { std::mem::zeroed() };
        (value.valueType, value.nvmlReturn, value.value.ullVal) = (kind, code, bits);
        value
    }

    #[test]
    fn a_field_is_read_as_the_type_that_it_names() {
        let garbage = 0xdead_beef_0000_0000;
        assert_eq!(decode(&field(1, 0, garbage | 41)), Ok(FieldValue::Integer(41)));
        assert_eq!(decode(&field(3, 0, 123_456_789_012)), Ok(FieldValue::Integer(123_456_789_012)));
        assert_eq!(decode(&field(5, 0, garbage | 0xffff_fffe)), Ok(FieldValue::Integer(-2)));
        assert_eq!(decode(&field(6, 0, garbage | 0x1_0007)), Ok(FieldValue::Integer(7)));
        assert_eq!(decode(&field(3, 0, u64::MAX)), Ok(FieldValue::Unreadable));
        assert_eq!(decode(&field(9, 0, 1)), Ok(FieldValue::Unreadable));
    }

    #[test]
    fn the_union_of_a_failed_field_is_not_looked_at() {
        assert_eq!(decode(&field(3, 3, 0xdead_beef)), Err(NOT_SUPPORTED));
    }
}
