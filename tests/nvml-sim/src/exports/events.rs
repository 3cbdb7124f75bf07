//! Event sets: an event that the scenario lists is delivered once, to a set that has asked for it.

use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nvml;
use serde_json::{Value, json};

use super::{INVALID_ARGUMENT, SUCCESS, answer, signatures};
use crate::happenings::Pending;
use crate::library::{Code, Given, Place, library};

/// Types that the GPUs support: those of a data center GPU, newer ones included.
const SUPPORTED: u64 = 0xff9f;
/// How often a wait looks for an event, as a part of how often the scenario is looked at.
const LOOKS: u32 = 4;
/// What an event without a MIG instance says of it.
const NO_INSTANCE: c_uint = c_uint::MAX;

/// An event as it is delivered, with the index of its GPU.
struct Delivered {
    unit: usize,
    event_type: u64,
    data: u64,
    gpu_instance: Option<u32>,
}

impl Given for Delivered {
    fn told(&self) -> Value {
        json!({ "type": self.event_type, "data": self.data })
    }

    fn garbage() -> Delivered {
        Delivered { unit: 0, event_type: !0, data: !0, gpu_instance: None }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(device: nvml::nvmlDevice_t, types: *mut c_ulonglong) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { answer(device, "nvmlDeviceGetSupportedEventTypes", None, types, |_, _| Ok(SUPPORTED)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvml::nvmlEventSet_t) -> Code {
    if set.is_null() {
        return INVALID_ARGUMENT;
    }
    let given = library().system("nvmlEventSetCreate", false, None, |state| {
        state.sets_made += 1;
        state.sets.insert(state.sets_made, Vec::new());
        Ok(state.sets_made as u64)
    });
    match given {
        Ok(number) => {
            // SAFETY: not null, and the contract of the C function is that it is writable.
            unsafe { set.write(std::ptr::without_provenance_mut(number as usize)) };
            SUCCESS
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(
    device: nvml::nvmlDevice_t,
    types: c_ulonglong,
    set: nvml::nvmlEventSet_t,
) -> Code {
    let given = library().device(device, "nvmlDeviceRegisterEvents", Some(types as i64), |state, unit| {
        if types & !SUPPORTED != 0 {
            return Err(nvml::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
        }
        state.sets.get_mut(&(set as usize)).ok_or(INVALID_ARGUMENT)?.push((unit, types));
        Ok(())
    });
    given.err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvml::nvmlEventSet_t,
    data: *mut nvml::nvmlEventData_t,
    timeout_ms: c_uint,
) -> Code {
    if data.is_null() {
        return INVALID_ARGUMENT;
    }
    let until = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
    loop {
        match next_event(set as usize) {
            Ok(None) if Instant::now() >= until => return nvml::nvmlReturn_enum_NVML_ERROR_TIMEOUT,
            Ok(None) => {
                let look = library().state().look() / LOOKS;
                std::thread::sleep(look.min(until.saturating_duration_since(Instant::now())));
            }
            Ok(Some(event)) => {
                let event = nvml::nvmlEventData_t {
                    device: Place::gpu(event.unit).handle(),
                    eventType: event.event_type,
                    eventData: event.data,
                    gpuInstanceId: event.gpu_instance.unwrap_or(NO_INSTANCE),
                    computeInstanceId: event.gpu_instance.map_or(NO_INSTANCE, |_| 0),
                };
                // SAFETY: not null, and the contract of the C function is that it is writable.
                unsafe { data.write(event) };
                return SUCCESS;
            }
            Err(code) => return code,
        }
    }
}

fn next_event(set: usize) -> Result<Option<Delivered>, Code> {
    library().wait_for_system("nvmlEventSetWait_v2");
    let mut state = library().state();
    if let Some(code) = state.refusal(false) {
        return Err(code);
    }
    if !state.sets.contains_key(&set) {
        return Err(INVALID_ARGUMENT);
    }
    let Some(event) = state.take_event(set) else { return Ok(None) };
    let uuid = state.units.get(event.unit).map(|unit| unit.uuid.clone());
    let Pending { unit, event_type, data, gpu_instance, .. } = event;
    let event = Delivered { unit, event_type, data, gpu_instance };
    state.tell(uuid.as_deref(), "nvmlEventSetWait_v2", None, Ok(event)).map(Some)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(set: nvml::nvmlEventSet_t) -> Code {
    let given = library().system("nvmlEventSetFree", false, None, |state| {
        state.sets.remove(&(set as usize)).map(|_| ()).ok_or(INVALID_ARGUMENT)
    });
    given.err().unwrap_or(SUCCESS)
}

signatures! {
    nvmlEventSetCreate
    nvmlEventSetFree
    nvmlDeviceGetSupportedEventTypes
    nvmlDeviceRegisterEvents
    nvmlEventSetWait_v2
}
