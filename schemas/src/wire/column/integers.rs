//! Integers and timestamps: one constant, or zig-zag differences that run through the whole column.

use arrow::buffer::NullBuffer;

use super::{Parts, Scratch, all_equal, arm, put_packed};
use crate::wire::DecodeError;
use crate::wire::protobuf::{
    Field, VARINT_MAX, bad_varint, next_varint, put_bytes_header, put_varint_field, unzigzag, varint_len, write_varint,
    zigzag,
};

pub(super) fn encode<T: Copy + PartialEq + Into<i64>>(
    values: &[T],
    nulls: Option<&NullBuffer>,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) {
    let Some(nulls) = nulls else { return put(values, out, &mut scratch.bytes) };
    scratch.ints.clear();
    scratch.ints.extend(nulls.valid_indices().map(|i| values[i].into()));
    put(&scratch.ints, out, &mut scratch.bytes);
}

/// Writes values of which none is absent; `packed` is a buffer to use.
pub(super) fn put<T: Copy + PartialEq + Into<i64>>(values: &[T], out: &mut Vec<u8>, packed: &mut Vec<u8>) {
    let Some(&first) = values.first() else { return };
    if all_equal(values, first) {
        let value = zigzag(first.into());
        put_bytes_header(out, arm::CONSTANT, 1 + varint_len(value));
        return put_varint_field(out, 1, value);
    }
    packed.resize(values.len() * VARINT_MAX, 0);
    let (mut last, mut len) = (0i64, 0);
    for &value in values {
        let value = value.into();
        let Some(rest) = packed[len..].first_chunk_mut() else { break };
        len += write_varint(rest, zigzag(value.wrapping_sub(last)));
        last = value;
    }
    put_packed(out, arm::DELTAS, &packed[..len]);
}

/// Adds `present` values to `out`. `narrow` casts to its type; a value that this changes is an error.
pub(super) fn decode<T: Copy + Into<i64>>(
    parts: &Parts<'_>,
    present: usize,
    out: &mut Vec<T>,
    narrow: impl Fn(i64) -> T,
) -> Result<(), DecodeError> {
    match parts.arm {
        None => parts.check(present == 0),
        Some((arm::CONSTANT, arm)) => {
            let (1, Field::Varint(value)) = parts.only_field(arm)? else {
                return Err(DecodeError::BadValue(parts.id));
            };
            let value = unzigzag(value);
            let narrowed = narrow(value);
            if narrowed.into() != value {
                return Err(DecodeError::BadValue(parts.id));
            }
            out.resize(out.len() + present, narrowed);
            Ok(())
        }
        Some((arm::DELTAS, arm)) => {
            let mut packed = parts.packed(arm)?;
            parts.check(present <= packed.len())?;
            let (mut value, mut changed, mut broken) = (0i64, false, false);
            // An iterator of known length, so that the values are stored without a check each.
            out.extend((0..present).map(|_| {
                match next_varint(&mut packed) {
                    Some(delta) => value = value.wrapping_add(unzigzag(delta)),
                    None => broken = true,
                }
                let narrowed = narrow(value);
                changed |= narrowed.into() != value;
                narrowed
            }));
            match (broken, changed) {
                (true, _) => Err(bad_varint(packed)),
                (_, true) => Err(DecodeError::BadValue(parts.id)),
                _ => parts.check(packed.is_empty()),
            }
        }
        Some(_) => Err(DecodeError::BadValue(parts.id)),
    }
}
