//! One column on the wire: what all types share, and which file knows the values of which type.
//!
//! Only present values travel; a bitmap says which rows have none. `encode` and `decode` stand face to face here and in
//! each of the files below.

mod floats;
mod integers;
mod lists;
mod texts;

pub(super) use texts::push_repeated;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, TimestampMicrosecondType};

use super::DecodeError;
use super::bitmap::{Bitmap, put_null_bitmap};
use super::protobuf::{Field, bytes_field_len, put_bytes_field, put_bytes_header, put_varint_field, take_field};
use crate::catalog::{Column, ValueType};
use crate::rows::{ColumnRows, Values};

/// Field numbers of the arms of a `Column` message.
mod arm {
    pub(super) const CONSTANT: u32 = 3;
    pub(super) const DELTAS: u32 = 4;
    pub(super) const FIXED32: u32 = 5;
    pub(super) const FIXED64: u32 = 6;
    pub(super) const STRINGS: u32 = 7;
}

/// Buffers that are used again from column to column.
#[derive(Default)]
pub(super) struct Scratch {
    ints: Vec<i64>,
    bytes: Vec<u8>,
}

/// Writes the fields of one `Column` message.
pub(super) fn encode(spec: &Column, array: &ArrayRef, out: &mut Vec<u8>, scratch: &mut Scratch) {
    put_varint_field(out, 1, u64::from(spec.id));
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    if let Some(nulls) = nulls {
        put_null_bitmap(out, 2, nulls);
    }
    match spec.value_type {
        ValueType::I8 => integers::encode(array.as_primitive::<Int8Type>().values(), nulls, out, scratch),
        ValueType::I32 => integers::encode(array.as_primitive::<Int32Type>().values(), nulls, out, scratch),
        ValueType::I64 => integers::encode(array.as_primitive::<Int64Type>().values(), nulls, out, scratch),
        ValueType::Timestamp => {
            integers::encode(array.as_primitive::<TimestampMicrosecondType>().values(), nulls, out, scratch);
        }
        ValueType::F32 => floats::encode(array.as_primitive::<Float32Type>().values(), nulls, out, scratch),
        ValueType::F64 => floats::encode(array.as_primitive::<Float64Type>().values(), nulls, out, scratch),
        ValueType::Text => texts::encode(array.as_string(), out, scratch),
        ValueType::ListI32 => lists::encode(array.as_list(), out, scratch),
    }
}

/// Adds the values of one `Column` message to `target`. `room` is the bytes that texts and lists may still take.
pub(super) fn decode(
    spec: &Column,
    bytes: &[u8],
    rows: usize,
    target: &mut ColumnRows,
    room: &mut usize,
) -> Result<(), DecodeError> {
    let parts = Parts::read(spec.id, bytes)?;
    let nulls = Bitmap::new(parts.null_bitmap, rows).ok_or(DecodeError::ColumnLength(spec.id))?;
    let present = rows - nulls.nulls;
    if present < rows && !spec.nullable {
        return Err(DecodeError::MissingValue(spec.id));
    }
    match &mut target.values {
        Values::I8(out) => integers::decode(&parts, present, out, |v| v as i8)?,
        Values::I32(out) => integers::decode(&parts, present, out, |v| v as i32)?,
        Values::I64(out) => integers::decode(&parts, present, out, |v| v)?,
        Values::F32(out) => floats::decode(&parts, present, out)?,
        Values::F64(out) => floats::decode(&parts, present, out)?,
        Values::Text { ends, bytes } => texts::decode(&parts, spec, present, ends, bytes, room)?,
        Values::List { ends, items, item_validity } => {
            lists::decode(&parts, present, ends, items, item_validity, room)?;
        }
    }
    nulls.spread(target, rows);
    Ok(())
}

/// The id of a `Column` message, which is its first field.
pub(super) fn id(mut bytes: &[u8]) -> Result<u32, DecodeError> {
    match take_field(&mut bytes)? {
        Some((1, Field::Varint(id))) => u32::try_from(id).map_err(|_| DecodeError::BadHeader("column id")),
        _ => Err(DecodeError::BadHeader("column id")),
    }
}

fn put_packed(out: &mut Vec<u8>, arm: u32, packed: &[u8]) {
    put_bytes_header(out, arm, bytes_field_len(packed.len()));
    put_bytes_field(out, 1, packed);
}

/// The fields of a `Column` message, not yet interpreted.
struct Parts<'a> {
    id: u32,
    null_bitmap: Option<&'a [u8]>,
    arm: Option<(u32, &'a [u8])>,
    list_lengths: &'a [u8],
    item_null_bitmap: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn read(id: u32, mut bytes: &'a [u8]) -> Result<Parts<'a>, DecodeError> {
        let mut parts = Parts { id, null_bitmap: None, arm: None, list_lengths: b"", item_null_bitmap: None };
        while let Some((number, field)) = take_field(&mut bytes)? {
            match (number, field) {
                (1, Field::Varint(again)) if again == u64::from(id) => {}
                (2, Field::Bytes(v)) => parts.null_bitmap = Some(v),
                (arm::CONSTANT..=arm::STRINGS, Field::Bytes(v)) if parts.arm.is_none() => parts.arm = Some((number, v)),
                (8, Field::Bytes(v)) => parts.list_lengths = v,
                (9, Field::Bytes(v)) => parts.item_null_bitmap = Some(v),
                (1..=9, _) => return Err(DecodeError::BadTag),
                _ => {} // added by a newer writer
            }
        }
        Ok(parts)
    }

    /// The one field of an arm's small message.
    fn only_field(&self, mut arm: &'a [u8]) -> Result<(u32, Field<'a>), DecodeError> {
        take_field(&mut arm)?.filter(|_| arm.is_empty()).ok_or(DecodeError::BadValue(self.id))
    }

    /// The packed numbers that are all of an arm.
    fn packed(&self, arm: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        match self.only_field(arm)? {
            (1, Field::Bytes(packed)) => Ok(packed),
            _ => Err(DecodeError::BadValue(self.id)),
        }
    }

    /// Says that the number of values fits the rows, or not.
    fn check(&self, fits: bool) -> Result<(), DecodeError> {
        if fits { Ok(()) } else { Err(DecodeError::ColumnLength(self.id)) }
    }
}

/// Whether all values are the first one.
fn all_equal<T: Copy + PartialEq>(values: &[T], first: T) -> bool {
    // In blocks without an early end, which the compiler turns into wide comparisons.
    values.chunks(32).all(|block| block.iter().fold(true, |equal, v| equal & (*v == first)))
}
