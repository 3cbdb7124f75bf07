//! Field values: many numbers in one call, each with a scope, an outcome, a time and a latency of its own.

use std::ffi::c_int;

use nvml_wrapper_sys::bindings::nvmlFieldValue_st;

use super::{Answer, Calls, FUNCTION_NOT_FOUND, calling, judge};

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nvml) struct Field {
    /// Number of the field, as drivers from 580.82 on have it.
    pub(in crate::nvml) id: u32,
    /// What part of the device: a power domain, a link.
    pub(in crate::nvml) scope: u32,
}

/// The answer to one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::nvml) struct FieldAnswer {
    pub(in crate::nvml) value: Answer<FieldValue>,
    /// When NVML read it, µs UTC; 0 where it does not say.
    pub(in crate::nvml) timestamp: i64,
    /// How long that took within NVML, µs.
    pub(in crate::nvml) latency_us: i64,
}

/// A field's value, as the type that it names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::nvml) enum FieldValue {
    Unsigned32(u32),
    Unsigned64(u64),
    Signed(i64),
    Float(f64),
    /// Of a type that nobody knows: the type and the bits.
    Unknown(u32, u64),
}

impl Calls<'_> {
    /// The values of those fields, in the order asked: a driver may answer with another id than it was asked for. One
    /// call, since fields that one driver call serves share its cost.
    pub(in crate::nvml) fn fields(&self, wanted: &[Field]) -> Answer<Vec<FieldAnswer>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let function = self.lib.nvmlDeviceGetFieldValues.as_ref().map_err(|_| FUNCTION_NOT_FOUND)?;
        calling("nvmlDeviceGetFieldValues");
        let empty = |field: &Field| {
            // SAFETY: the struct is plain numbers and a union of numbers, for which zeros are valid.
            let mut value: nvmlFieldValue_st = unsafe { std::mem::zeroed() };
            (value.fieldId, value.scopeId) = (number_of(field.id, self.renumbered), field.scope);
            value
        };
        let mut values: Vec<nvmlFieldValue_st> = wanted.iter().map(empty).collect();
        // SAFETY: the pointer is to as many structs as the count says.
        let code = unsafe { function(self.device.device, values.len() as c_int, values.as_mut_ptr()) };
        judge(code, ())?;
        Ok(values.iter().map(decode).collect())
    }
}

/// The number that the driver knows a field by: before version 580.82 those from 251 to 273 stood in another order.
fn number_of(id: u32, renumbered: bool) -> u32 {
    match id {
        251..=268 if !renumbered => id + 5,
        269..=273 if !renumbered => id - 18,
        _ => id,
    }
}

fn decode(value: &nvmlFieldValue_st) -> FieldAnswer {
    FieldAnswer { value: union_of(value), timestamp: value.timestamp, latency_us: value.latencyUsec }
}

/// The member of the union that the type names. The union is not looked at where the field's own code is an error: the
/// driver may leave anything in it.
fn union_of(value: &nvmlFieldValue_st) -> Answer<FieldValue> {
    judge(value.nvmlReturn, ())?;
    // SAFETY: all members are numbers of at most 8 bytes, every bit pattern of which is valid, and zeros were there before.
    let decoded = unsafe {
        match value.valueType {
            0 => FieldValue::Float(value.value.dVal),
            1 => FieldValue::Unsigned32(value.value.uiVal),
            2 | 3 => FieldValue::Unsigned64(value.value.ullVal),
            4 => FieldValue::Signed(value.value.sllVal),
            5 => FieldValue::Signed(i64::from(value.value.siVal)),
            6 => FieldValue::Unsigned32(u32::from(value.value.usVal)),
            other => FieldValue::Unknown(other, value.value.ullVal),
        }
    };
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::super::NOT_SUPPORTED;
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
        assert_eq!(union_of(&field(0, 0, 2.5f64.to_bits())), Ok(FieldValue::Float(2.5)));
        assert_eq!(union_of(&field(1, 0, garbage | 41)), Ok(FieldValue::Unsigned32(41)));
        assert_eq!(union_of(&field(3, 0, 123_456_789_012)), Ok(FieldValue::Unsigned64(123_456_789_012)));
        assert_eq!(union_of(&field(5, 0, garbage | 0xffff_fffe)), Ok(FieldValue::Signed(-2)));
        assert_eq!(union_of(&field(6, 0, garbage | 0x1_0007)), Ok(FieldValue::Unsigned32(7)));
        assert_eq!(union_of(&field(9, 0, 1)), Ok(FieldValue::Unknown(9, 1)));
    }

    #[test]
    fn the_union_of_a_failed_field_is_not_looked_at() {
        assert_eq!(union_of(&field(3, 3, 0xdead_beef)), Err(NOT_SUPPORTED));
    }

    #[test]
    fn fields_have_their_older_numbers_before_driver_580_82() {
        let older: Vec<u32> = [250, 251, 258, 268, 269, 271, 273, 274].map(|id| number_of(id, false)).to_vec();
        assert_eq!(older, [250, 256, 263, 273, 251, 253, 255, 274]);
        assert_eq!([251, 269].map(|id| number_of(id, true)), [251, 269]);
    }
}
