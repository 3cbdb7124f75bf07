//! The values of one column on the wire: `encode` and `decode` face to face.
//!
//! Only present values travel. Integers are one constant or a chain of zig-zag differences that runs through the whole
//! column; floats are one constant or their raw bits; texts are one constant or a dictionary and indexes. The items of
//! lists are flattened and travel like integers.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, NullBufferBuilder};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, TimestampMicrosecondType};

use super::DecodeError;
use super::protobuf::{
    Field, put_bytes_field, put_bytes_header, put_fixed32_field, put_fixed64_field, put_varint, put_varint_field,
    take_field, take_varint, unzigzag, varint_len, zigzag,
};
use crate::catalog::{Column, ValueType};
use crate::identity::is_label;
use crate::rows::{ColumnRows, Values};

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
        ValueType::I8 => encode_ints(array.as_primitive::<Int8Type>().values(), nulls, out, scratch),
        ValueType::I32 => encode_ints(array.as_primitive::<Int32Type>().values(), nulls, out, scratch),
        ValueType::I64 => encode_ints(array.as_primitive::<Int64Type>().values(), nulls, out, scratch),
        ValueType::Timestamp => {
            encode_ints(array.as_primitive::<TimestampMicrosecondType>().values(), nulls, out, scratch);
        }
        ValueType::F32 => {
            let values = array.as_primitive::<Float32Type>().values();
            let bits = present(values, nulls).map(f32::to_bits);
            encode_floats(bits, out, scratch, |out, bits| put_fixed32_field(out, 2, bits), 5, u32::to_le_bytes);
        }
        ValueType::F64 => {
            let values = array.as_primitive::<Float64Type>().values();
            let bits = present(values, nulls).map(f64::to_bits);
            encode_floats(bits, out, scratch, |out, bits| put_fixed64_field(out, 3, bits), 6, u64::to_le_bytes);
        }
        ValueType::Text => encode_texts(array, out, scratch),
        ValueType::ListI32 => encode_lists(array, out, scratch),
    }
}

/// Adds the values of one `Column` message to `target`. `room` is what its texts and lists may still take.
pub(super) fn decode(
    spec: &Column,
    bytes: &[u8],
    rows: usize,
    target: &mut ColumnRows,
    room: &mut usize,
) -> Result<(), DecodeError> {
    let parts = Parts::read(spec.id, bytes)?;
    let nulls = Bitmap::new(parts.null_bitmap, rows).ok_or(DecodeError::ColumnLength(spec.id))?;
    let present = rows - nulls.ones;
    if present < rows && !spec.nullable {
        return Err(DecodeError::MissingValue(spec.id));
    }
    match &mut target.values {
        Values::I8(out) => decode_ints(&parts, present, out, |v| v as i8)?,
        Values::I32(out) => decode_ints(&parts, present, out, |v| v as i32)?,
        Values::I64(out) => decode_ints(&parts, present, out, |v| v)?,
        Values::F32(out) => decode_f32s(&parts, present, out)?,
        Values::F64(out) => decode_f64s(&parts, present, out)?,
        Values::Text { ends, bytes } => decode_texts(&parts, spec, present, ends, bytes, room)?,
        Values::List { ends, items, item_validity } => {
            decode_lists(&parts, present, ends, items, item_validity, room)?;
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
                (1, Field::Varint(_)) => {}
                (2, Field::Bytes(v)) => parts.null_bitmap = Some(v),
                (3..=7, Field::Bytes(v)) => {
                    if parts.arm.replace((number, v)).is_some() {
                        return Err(DecodeError::ColumnTwice(id));
                    }
                }
                (8, Field::Bytes(v)) => parts.list_lengths = v,
                (9, Field::Bytes(v)) => parts.item_null_bitmap = Some(v),
                (1..=9, _) => return Err(DecodeError::BadTag),
                _ => {}
            }
        }
        Ok(parts)
    }

    /// The one length-delimited field 1 of an arm's small message.
    fn packed(&self, mut arm: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        match take_field(&mut arm)? {
            Some((1, Field::Bytes(packed))) if arm.is_empty() => Ok(packed),
            _ => Err(DecodeError::BadValue(self.id)),
        }
    }

    fn constant(&self, mut arm: &'a [u8]) -> Result<(u32, Field<'a>), DecodeError> {
        take_field(&mut arm)?.filter(|_| arm.is_empty()).ok_or(DecodeError::BadValue(self.id))
    }

    fn check(&self, ok: bool) -> Result<(), DecodeError> {
        if ok { Ok(()) } else { Err(DecodeError::ColumnLength(self.id)) }
    }
}

// Integers.

fn encode_ints<T: Copy + PartialEq + Into<i64>>(
    values: &[T],
    nulls: Option<&NullBuffer>,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
) {
    let Some(nulls) = nulls else { return put_ints(values, out, &mut scratch.bytes) };
    scratch.ints.clear();
    scratch.ints.extend(nulls.valid_indices().map(|i| values[i].into()));
    put_ints(&scratch.ints, out, &mut scratch.bytes);
}

fn put_ints<T: Copy + PartialEq + Into<i64>>(values: &[T], out: &mut Vec<u8>, packed: &mut Vec<u8>) {
    let Some((&first, rest)) = values.split_first() else { return };
    if rest.iter().all(|v| *v == first) {
        let value = zigzag(first.into());
        put_bytes_header(out, 3, 1 + varint_len(value));
        return put_varint_field(out, 1, value);
    }
    packed.clear();
    let mut last = 0i64;
    for &value in values {
        let value = value.into();
        put_varint(packed, zigzag(value.wrapping_sub(last)));
        last = value;
    }
    put_packed(out, 4, packed);
}

fn decode_ints<T: Copy + Into<i64>>(
    parts: &Parts<'_>,
    present: usize,
    out: &mut Vec<T>,
    narrow: impl Fn(i64) -> T,
) -> Result<(), DecodeError> {
    match parts.arm {
        None => parts.check(present == 0),
        Some((3, arm)) => {
            let (1, Field::Varint(value)) = parts.constant(arm)? else { return Err(DecodeError::BadValue(parts.id)) };
            let value = unzigzag(value);
            let narrowed = narrow(value);
            if narrowed.into() != value {
                return Err(DecodeError::BadValue(parts.id));
            }
            out.resize(out.len() + present, narrowed);
            Ok(())
        }
        Some((4, arm)) => {
            let mut packed = parts.packed(arm)?;
            parts.check(present <= packed.len())?;
            out.reserve(present);
            let mut value = 0i64;
            let mut lost = false;
            for _ in 0..present {
                let delta = match packed.split_first() {
                    Some((&byte, rest)) if byte < 0x80 => {
                        packed = rest;
                        u64::from(byte)
                    }
                    _ => take_varint(&mut packed)?,
                };
                value = value.wrapping_add(unzigzag(delta));
                let narrowed = narrow(value);
                lost |= narrowed.into() != value;
                out.push(narrowed);
            }
            parts.check(packed.is_empty())?;
            if lost { Err(DecodeError::BadValue(parts.id)) } else { Ok(()) }
        }
        Some(_) => Err(DecodeError::BadValue(parts.id)),
    }
}

// Floats.

fn present<'a, T: Copy>(values: &'a [T], nulls: Option<&'a NullBuffer>) -> impl Iterator<Item = T> + Clone + 'a {
    values.iter().enumerate().filter(move |(i, _)| nulls.is_none_or(|nulls| nulls.is_valid(*i))).map(|(_, v)| *v)
}

fn encode_floats<B: Copy + PartialEq, const N: usize>(
    bits: impl Iterator<Item = B> + Clone,
    out: &mut Vec<u8>,
    scratch: &mut Scratch,
    put_constant: impl Fn(&mut Vec<u8>, B),
    arm: u32,
    to_bytes: impl Fn(B) -> [u8; N],
) {
    let Some(first) = bits.clone().next() else { return };
    if bits.clone().all(|b| b == first) {
        put_bytes_header(out, 3, 1 + N);
        return put_constant(out, first);
    }
    scratch.bytes.clear();
    for b in bits {
        scratch.bytes.extend_from_slice(&to_bytes(b));
    }
    put_packed(out, arm, &scratch.bytes);
}

fn decode_f32s(parts: &Parts<'_>, present: usize, out: &mut Vec<f32>) -> Result<(), DecodeError> {
    match parts.arm {
        None => parts.check(present == 0),
        Some((3, arm)) => {
            let (2, Field::Fixed32(bits)) = parts.constant(arm)? else { return Err(DecodeError::BadValue(parts.id)) };
            out.resize(out.len() + present, f32::from_bits(bits));
            Ok(())
        }
        Some((5, arm)) => {
            let (values, rest) = parts.packed(arm)?.as_chunks::<4>();
            parts.check(rest.is_empty() && values.len() == present)?;
            out.extend(values.iter().map(|bytes| f32::from_bits(u32::from_le_bytes(*bytes))));
            Ok(())
        }
        Some(_) => Err(DecodeError::BadValue(parts.id)),
    }
}

fn decode_f64s(parts: &Parts<'_>, present: usize, out: &mut Vec<f64>) -> Result<(), DecodeError> {
    match parts.arm {
        None => parts.check(present == 0),
        Some((3, arm)) => {
            let (3, Field::Fixed64(bits)) = parts.constant(arm)? else { return Err(DecodeError::BadValue(parts.id)) };
            out.resize(out.len() + present, f64::from_bits(bits));
            Ok(())
        }
        Some((6, arm)) => {
            let (values, rest) = parts.packed(arm)?.as_chunks::<8>();
            parts.check(rest.is_empty() && values.len() == present)?;
            out.extend(values.iter().map(|bytes| f64::from_bits(u64::from_le_bytes(*bytes))));
            Ok(())
        }
        Some(_) => Err(DecodeError::BadValue(parts.id)),
    }
}

// Texts.

fn encode_texts(array: &ArrayRef, out: &mut Vec<u8>, scratch: &mut Scratch) {
    let texts = array.as_string::<i32>();
    let mut dictionary: Vec<&str> = Vec::new();
    let mut index_of: HashMap<&str, u32> = HashMap::new();
    scratch.bytes.clear();
    let mut last: Option<(&str, u32)> = None;
    for text in texts.iter().flatten() {
        // Rows come device by device, so most texts repeat the one before.
        let index = match last {
            Some((before, index)) if before == text => index,
            _ => *index_of.entry(text).or_insert_with(|| {
                dictionary.push(text);
                dictionary.len() as u32 - 1
            }),
        };
        put_varint(&mut scratch.bytes, u64::from(index));
        last = Some((text, index));
    }
    if let [only] = dictionary[..] {
        put_bytes_header(out, 3, 1 + varint_len(only.len() as u64) + only.len());
        return put_bytes_field(out, 4, only.as_bytes());
    }
    if dictionary.is_empty() {
        return;
    }
    let field_len = |len: usize| 1 + varint_len(len as u64) + len;
    let len = dictionary.iter().map(|text| field_len(text.len())).sum::<usize>() + field_len(scratch.bytes.len());
    put_bytes_header(out, 7, len);
    for text in dictionary {
        put_bytes_field(out, 1, text.as_bytes());
    }
    put_bytes_field(out, 2, &scratch.bytes);
}

fn decode_texts(
    parts: &Parts<'_>,
    spec: &Column,
    present: usize,
    ends: &mut Vec<i32>,
    bytes: &mut Vec<u8>,
    room: &mut usize,
) -> Result<(), DecodeError> {
    let bad = || DecodeError::BadValue(parts.id);
    let mut dictionary: Vec<&str> = Vec::new();
    let mut indexes: &[u8] = b"";
    match parts.arm {
        None => return parts.check(present == 0),
        Some((3, arm)) => {
            let (4, Field::Bytes(text)) = parts.constant(arm)? else { return Err(bad()) };
            dictionary.push(std::str::from_utf8(text).map_err(|_| bad())?);
        }
        Some((7, mut arm)) => {
            while let Some((number, field)) = take_field(&mut arm)? {
                match (number, field) {
                    (1, Field::Bytes(text)) => dictionary.push(std::str::from_utf8(text).map_err(|_| bad())?),
                    (2, Field::Bytes(packed)) => indexes = packed,
                    _ => return Err(bad()),
                }
            }
            parts.check(indexes.len() >= present)?;
        }
        Some(_) => return Err(bad()),
    }
    // A site names a directory of the lake, so it may not be any text.
    if spec.name == "site" && !dictionary.iter().all(|site| is_label(site)) {
        return Err(bad());
    }
    let constant = matches!(parts.arm, Some((3, _)));
    for _ in 0..present {
        let index = if constant { 0 } else { take_varint(&mut indexes)? };
        let text = usize::try_from(index).ok().and_then(|i| dictionary.get(i)).ok_or_else(bad)?;
        *room = room.checked_sub(text.len()).ok_or_else(|| DecodeError::TooLarge(format!("{} of text", spec.name)))?;
        bytes.extend_from_slice(text.as_bytes());
        ends.push(bytes.len() as i32);
    }
    parts.check(constant || indexes.is_empty())
}

// Lists.

fn encode_lists(array: &ArrayRef, out: &mut Vec<u8>, scratch: &mut Scratch) {
    let lists = array.as_list::<i32>();
    let items = lists.values().as_primitive::<Int32Type>();
    let mut lengths = Vec::new();
    let mut nulls = NullBufferBuilder::new(0);
    scratch.ints.clear();
    for row in 0..lists.len() {
        if lists.is_null(row) {
            continue;
        }
        let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
        put_varint(&mut lengths, range.len() as u64);
        for i in range {
            nulls.append(items.is_valid(i));
            if items.is_valid(i) {
                scratch.ints.push(i64::from(items.value(i)));
            }
        }
    }
    put_ints(&scratch.ints, out, &mut scratch.bytes);
    put_bytes_field(out, 8, &lengths);
    if let Some(nulls) = nulls.finish() {
        put_null_bitmap(out, 9, &nulls);
    }
}

fn decode_lists(
    parts: &Parts<'_>,
    present: usize,
    ends: &mut Vec<i32>,
    items: &mut Vec<i32>,
    item_validity: &mut NullBufferBuilder,
    room: &mut usize,
) -> Result<(), DecodeError> {
    let mut lengths = parts.list_lengths;
    parts.check(lengths.len() >= present)?;
    let before = items.len();
    let mut total = 0usize;
    for _ in 0..present {
        let length = take_varint(&mut lengths)?;
        let too_large = || DecodeError::TooLarge(format!("a list of {length} items"));
        let bytes = usize::try_from(length).ok().and_then(|n| n.checked_mul(4)).ok_or_else(too_large)?;
        *room = room.checked_sub(bytes).ok_or_else(too_large)?;
        total += bytes / 4;
        ends.push((before + total) as i32);
    }
    parts.check(lengths.is_empty())?;
    let nulls = Bitmap::new(parts.item_null_bitmap, total).ok_or(DecodeError::ColumnLength(parts.id))?;
    decode_ints(parts, total - nulls.ones, items, |v| v as i32)?;
    nulls.spread_values(items, before);
    nulls.append_validity(item_validity, total);
    Ok(())
}

// Bitmaps: bit i, counted from the lowest of each byte, says that value i is null.

fn put_null_bitmap(out: &mut Vec<u8>, number: u32, nulls: &NullBuffer) {
    let len = nulls.len();
    put_bytes_header(out, number, len.div_ceil(8));
    for first in (0..len).step_by(8) {
        let set = (first..len.min(first + 8)).filter(|i| nulls.is_null(*i));
        out.push(set.fold(0, |byte, i| byte | 1 << (i - first)));
    }
}

fn put_packed(out: &mut Vec<u8>, arm: u32, packed: &[u8]) {
    put_bytes_header(out, arm, 1 + varint_len(packed.len() as u64) + packed.len());
    put_bytes_field(out, 1, packed);
}

struct Bitmap<'a> {
    bits: &'a [u8],
    ones: usize,
}

impl<'a> Bitmap<'a> {
    /// The bitmap of `len` values; `None` where it is of another length.
    fn new(bits: Option<&'a [u8]>, len: usize) -> Option<Bitmap<'a>> {
        let Some(bits) = bits else { return Some(Bitmap { bits: b"", ones: 0 }) };
        let spare = bits.len() * 8 - len.min(bits.len() * 8);
        let clean = bits.last().is_none_or(|last| spare == 0 || last >> (8 - spare.min(8)) == 0);
        let ones = bits.iter().map(|byte| byte.count_ones() as usize).sum();
        (bits.len() == len.div_ceil(8) && clean).then_some(Bitmap { bits, ones })
    }

    fn is_null(&self, i: usize) -> bool {
        self.bits[i / 8] >> (i % 8) & 1 == 1
    }

    fn append_validity(&self, validity: &mut NullBufferBuilder, len: usize) {
        if self.ones == 0 {
            return validity.append_n_non_nulls(len);
        }
        for i in 0..len {
            validity.append(!self.is_null(i));
        }
    }

    /// Moves the last `len` values, which were added without gaps, to their rows.
    fn spread(&self, target: &mut ColumnRows, rows: usize) {
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

    fn spread_values<T: Copy + Default>(&self, values: &mut Vec<T>, from: usize) {
        if self.ones == 0 {
            return;
        }
        let mut source = values.len();
        let mut row = source - from + self.ones;
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
        if self.ones == 0 {
            return;
        }
        let before = from.checked_sub(1).map_or(0, |i| ends[i]);
        self.spread_values(ends, from);
        let mut end = before;
        for row in 0..ends.len() - from {
            if self.is_null(row) {
                ends[from + row] = end;
            }
            end = ends[from + row];
        }
    }
}
