//! The export that answers many field ids at once, each with a code, a type and a union of its own.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlFieldValue_st};
use serde_json::Value;

use crate::account;
use crate::code;
use crate::state::{Device, answer};

/// Value types.
const UNSIGNED_INT: u32 = 1;
const UNSIGNED_LONG_LONG: u32 = 3;

/// What a failed field leaves in its union, to catch a reader that does not look at the code.
const GARBAGE: u64 = 0xdead_beef_dead_beef;

/// Type and value of a field. The board draws a little more than the GPU alone.
fn read(device: &mut Device, field: u32, scope: u32) -> Result<((u32, u64), Value), u32> {
    let (kind, value) = match (field, scope) {
        (74..=79, 0) => (UNSIGNED_LONG_LONG, device.model.throttle_nanoseconds(field)),
        (82, 0) => (UNSIGNED_INT, u64::from(device.model.memory_temp())),
        (83, 0) => (UNSIGNED_LONG_LONG, device.model.energy()),
        (186, 0) => (UNSIGNED_INT, u64::from(device.model.milliwatts())),
        (186, 1) => (UNSIGNED_INT, u64::from(device.model.milliwatts()) + 40_000),
        _ => return Err(code::NOT_SUPPORTED),
    };
    Ok(((kind, value), Value::from(value)))
}

/// Values of fields; what is wrong with one of them is in its own return code.
///
/// # Safety
/// `values` must hold `count` structs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_st,
) -> u32 {
    if values.is_null() || count < 1 {
        return code::INVALID_ARGUMENT;
    }
    // SAFETY: the caller says that there are so many.
    for slot in unsafe { std::slice::from_raw_parts_mut(values, count as usize) } {
        let (field, scope) = (slot.fieldId, slot.scopeId);
        slot.timestamp = account::now_us();
        slot.latencyUsec = 1;
        let call = format!("field:{field}:{scope}");
        match answer(device, &call, None, |device| read(device, field, scope)) {
            Ok((kind, value)) => {
                slot.nvmlReturn = code::SUCCESS;
                slot.valueType = kind;
                slot.value.ullVal = if kind == UNSIGNED_INT { GARBAGE & !0xffff_ffff | value } else { value };
            }
            Err(code::INVALID_ARGUMENT) => return code::INVALID_ARGUMENT,
            Err(rc) => {
                slot.nvmlReturn = rc;
                slot.value.ullVal = GARBAGE;
            }
        }
    }
    code::SUCCESS
}
