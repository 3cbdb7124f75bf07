//! Field values: each one judged and told by itself.
//!
//! Where a field is refused its value is left as rubbish, as the header allows, to catch a reader that does not look at
//! the field's own return code.

use std::ffi::c_int;
use std::time::Instant;

use nvml_wrapper_sys::bindings as nvml;
use racklake_schemas::clock::Clock;
use serde_json::{Value, json};

use super::values::{canonical, value_of};
use super::{INVALID_ARGUMENT, SUCCESS, signatures};
use crate::library::{Code, Given, library};

/// Bits of a value that nobody has set.
const RUBBISH: u64 = 0xdead_beef_dead_beef;

/// A field's value as the union holds it.
struct FieldValue {
    value_type: Option<u32>,
    bits: u64,
    told: Value,
}

impl Given for FieldValue {
    fn told(&self) -> Value {
        self.told.clone()
    }

    fn garbage() -> FieldValue {
        FieldValue { value_type: None, bits: !0, told: json!(u64::MAX) }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvml::nvmlDevice_t,
    count: c_int,
    values: *mut nvml::nvmlFieldValue_t,
) -> Code {
    let count = usize::try_from(count).unwrap_or(0);
    if values.is_null() || count == 0 {
        return INVALID_ARGUMENT;
    }
    let mut began = Instant::now();
    if let Err(code) = library().admit(device, "nvmlDeviceGetFieldValues") {
        return code;
    }
    // SAFETY: not null, and the contract of the C function is that there are `count` of them.
    for field in unsafe { std::slice::from_raw_parts_mut(values, count) } {
        answer_field(device, field, began);
        // What the driver does for all of them is told of the first.
        began = Instant::now();
    }
    SUCCESS
}

fn answer_field(device: nvml::nvmlDevice_t, field: &mut nvml::nvmlFieldValue_t, began: Instant) {
    let (id, scope) = (field.fieldId, field.scopeId);
    let call = format!("field:{id}:{scope}");
    let given = library().device(device, &call, None, |state, index| {
        let unit = &mut state.units[index];
        let (value, usual) = value_of(unit, canonical(id, &state.scenario.driver_version)?, scope)?;
        let value_type = unit.value_type(&call).unwrap_or(usual);
        Ok(encode(value, value_type))
    });
    field.timestamp = Clock::now_us();
    field.latencyUsec = began.elapsed().as_micros() as i64;
    field.value.ullVal = RUBBISH;
    match given {
        Ok(FieldValue { value_type, bits, .. }) => {
            field.nvmlReturn = SUCCESS;
            field.valueType = value_type.unwrap_or(nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG);
            field.value.ullVal = bits;
        }
        Err(code) => field.nvmlReturn = code,
    }
}

/// Puts a value into the union's member of that type; the bytes beside it stay rubbish.
fn encode(value: i64, value_type: u32) -> FieldValue {
    use nvml::{
        nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE as DOUBLE,
        nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as SIGNED_INT,
        nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
        nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT as UNSIGNED_SHORT,
    };
    let (bits, told) = match value_type {
        DOUBLE => ((value as f64).to_bits(), json!(value as f64)),
        UNSIGNED_INT => (RUBBISH << 32 | u64::from(value as u32), json!(value as u32)),
        SIGNED_INT => (RUBBISH << 32 | u64::from(value as u32), json!(value as i32)),
        UNSIGNED_SHORT => (RUBBISH << 16 | u64::from(value as u16), json!(value as u16)),
        _ => (value as u64, json!(value)),
    };
    FieldValue { value_type: Some(value_type), bits, told }
}

signatures! {
    nvmlDeviceGetFieldValues
}
