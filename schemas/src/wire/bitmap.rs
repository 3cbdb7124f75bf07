//! Null bitmaps: bit i, counted from the lowest of each byte, says that value i is null.

use arrow::array::NullBufferBuilder;
use arrow::buffer::NullBuffer;

use super::protobuf::put_bytes_header;
use crate::rows::{ColumnRows, Values};

/// Writes a bitmap as field `number`.
pub(super) fn put_null_bitmap(out: &mut Vec<u8>, number: u32, nulls: &NullBuffer) {
    let len = nulls.len();
    put_bytes_header(out, number, len.div_ceil(8));
    let end = out.len() + len.div_ceil(8);
    for valid in nulls.inner().bit_chunks().iter_padded() {
        out.extend_from_slice(&(!valid).to_le_bytes());
    }
    out.truncate(end);
    if let Some(last) = out.last_mut().filter(|_| !len.is_multiple_of(8)) {
        *last &= (1 << (len % 8)) - 1;
    }
}

/// A bitmap as it was received, of the right length and with clean spare bits.
pub(super) struct Bitmap<'a> {
    bits: &'a [u8],
    /// How many values are null.
    pub(super) nulls: usize,
}

impl<'a> Bitmap<'a> {
    /// The bitmap of `len` values; `None` where it is of another length.
    pub(super) fn new(bits: Option<&'a [u8]>, len: usize) -> Option<Bitmap<'a>> {
        let Some(bits) = bits else { return Some(Bitmap { bits: b"", nulls: 0 }) };
        let clean = len.is_multiple_of(8) || bits.last().is_some_and(|last| last >> (len % 8) == 0);
        let nulls = bits.iter().map(|byte| byte.count_ones() as usize).sum();
        (bits.len() == len.div_ceil(8) && clean).then_some(Bitmap { bits, nulls })
    }

    fn is_null(&self, i: usize) -> bool {
        self.bits[i / 8] >> (i % 8) & 1 == 1
    }

    /// Adds `len` bits to a validity.
    pub(super) fn append_validity(&self, validity: &mut NullBufferBuilder, len: usize) {
        if self.nulls == 0 {
            return validity.append_n_non_nulls(len);
        }
        for i in 0..len {
            validity.append(!self.is_null(i));
        }
    }

    /// Moves the values of the last `rows` rows, which were added without gaps, to their rows.
    pub(super) fn spread(&self, target: &mut ColumnRows, rows: usize) {
        let from = target.validity.len();
        match &mut target.values {
            Values::I8(values) => self.spread_values(values, from),
            Values::I32(values) => self.spread_values(values, from),
            Values::I64(values) => self.spread_values(values, from),
            Values::F32(values) => self.spread_values(values, from),
            Values::F64(values) => self.spread_values(values, from),
            Values::Text { ends, .. } | Values::List { ends, .. } => self.spread_ends(ends, from),
        }
        self.append_validity(&mut target.validity, rows);
    }

    /// Moves the values behind `from`, which were added without gaps, to their places.
    pub(super) fn spread_values<T: Copy + Default>(&self, values: &mut Vec<T>, from: usize) {
        if self.nulls == 0 {
            return;
        }
        let mut source = values.len();
        let mut row = source - from + self.nulls;
        values.resize(from + row, T::default());
        while row > 0 {
            row -= 1;
            values[from + row] = if self.is_null(row) {
                T::default()
            } else {
                source -= 1;
                values[source]
            };
        }
    }

    /// Like `spread_values`, but an absent value is empty: it ends where the one before it ends.
    fn spread_ends(&self, ends: &mut Vec<i32>, from: usize) {
        if self.nulls == 0 {
            return;
        }
        let mut end = from.checked_sub(1).map_or(0, |i| ends[i]);
        self.spread_values(ends, from);
        for (row, place) in ends[from..].iter_mut().enumerate() {
            if self.is_null(row) {
                *place = end;
            }
            end = *place;
        }
    }
}
