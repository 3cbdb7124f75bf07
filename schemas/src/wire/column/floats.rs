//! Floats of 32 and 64 bits: one constant, or their raw bits.

use arrow::buffer::NullBuffer;

use super::{Parts, Scratch, arm, put_packed};
use crate::wire::DecodeError;
use crate::wire::protobuf::{Field, put_bytes_header, put_fixed32_field, put_fixed64_field};

/// What differs between the two widths.
pub(super) trait Float: Copy {
    type Bytes: AsRef<[u8]> + PartialEq;
    /// The arm that holds the raw bits.
    const ARM: u32;
    fn bytes(self) -> Self::Bytes;
    /// Field of `Constant`.
    fn put_constant(self, out: &mut Vec<u8>);
    fn constant(field: (u32, Field<'_>)) -> Option<Self>;
    /// Adds the values of raw bits, unless those are no whole number of values or another one than `present`.
    fn extend(out: &mut Vec<Self>, packed: &[u8], present: usize) -> bool;
}

pub(super) fn encode<F: Float>(values: &[F], nulls: Option<&NullBuffer>, out: &mut Vec<u8>, scratch: &mut Scratch) {
    let Some(nulls) = nulls else { return put(values, out, &mut scratch.bytes) };
    let present: Vec<F> = nulls.valid_indices().map(|i| values[i]).collect();
    put(&present, out, &mut scratch.bytes);
}

fn put<F: Float>(values: &[F], out: &mut Vec<u8>, packed: &mut Vec<u8>) {
    let Some(first) = values.first() else { return };
    // Bit by bit: -0.0 is not 0.0, and a NaN is itself.
    if values.iter().all(|v| v.bytes() == first.bytes()) {
        put_bytes_header(out, arm::CONSTANT, 1 + first.bytes().as_ref().len());
        return first.put_constant(out);
    }
    packed.clear();
    packed.reserve(size_of_val(values));
    for value in values {
        packed.extend_from_slice(value.bytes().as_ref());
    }
    put_packed(out, F::ARM, packed);
}

pub(super) fn decode<F: Float>(parts: &Parts<'_>, present: usize, out: &mut Vec<F>) -> Result<(), DecodeError> {
    match parts.arm {
        None => parts.check(present == 0),
        Some((arm::CONSTANT, arm)) => {
            let value = F::constant(parts.only_field(arm)?).ok_or(DecodeError::BadValue(parts.id))?;
            out.resize(out.len() + present, value);
            Ok(())
        }
        Some((number, arm)) if number == F::ARM => parts.check(F::extend(out, parts.packed(arm)?, present)),
        Some(_) => Err(DecodeError::BadValue(parts.id)),
    }
}

impl Float for f32 {
    type Bytes = [u8; 4];
    const ARM: u32 = arm::FIXED32;

    fn bytes(self) -> [u8; 4] {
        self.to_bits().to_le_bytes()
    }

    fn put_constant(self, out: &mut Vec<u8>) {
        put_fixed32_field(out, 2, self.to_bits());
    }

    fn constant(field: (u32, Field<'_>)) -> Option<f32> {
        if let (2, Field::Fixed32(bits)) = field { Some(f32::from_bits(bits)) } else { None }
    }

    fn extend(out: &mut Vec<f32>, packed: &[u8], present: usize) -> bool {
        let (values, rest) = packed.as_chunks::<4>();
        let fits = rest.is_empty() && values.len() == present;
        if fits {
            out.extend(values.iter().map(|bytes| f32::from_bits(u32::from_le_bytes(*bytes))));
        }
        fits
    }
}

impl Float for f64 {
    type Bytes = [u8; 8];
    const ARM: u32 = arm::FIXED64;

    fn bytes(self) -> [u8; 8] {
        self.to_bits().to_le_bytes()
    }

    fn put_constant(self, out: &mut Vec<u8>) {
        put_fixed64_field(out, 3, self.to_bits());
    }

    fn constant(field: (u32, Field<'_>)) -> Option<f64> {
        if let (3, Field::Fixed64(bits)) = field { Some(f64::from_bits(bits)) } else { None }
    }

    fn extend(out: &mut Vec<f64>, packed: &[u8], present: usize) -> bool {
        let (values, rest) = packed.as_chunks::<8>();
        let fits = rest.is_empty() && values.len() == present;
        if fits {
            out.extend(values.iter().map(|bytes| f64::from_bits(u64::from_le_bytes(*bytes))));
        }
        fits
    }
}
