//! Lists of integers: a length per list, and the items of all of them one after the other, as integers travel.

use arrow::array::{Array, AsArray, ListArray, NullBufferBuilder};
use arrow::datatypes::Int32Type;

use super::{Parts, Scratch, integers};
use crate::wire::DecodeError;
use crate::wire::bitmap::{Bitmap, put_null_bitmap};
use crate::wire::protobuf::{put_bytes_field, put_varint, take_varint};

pub(super) fn encode(lists: &ListArray, out: &mut Vec<u8>, scratch: &mut Scratch) {
    let items = lists.values().as_primitive::<Int32Type>();
    let mut lengths = Vec::new();
    let mut nulls = NullBufferBuilder::new(0);
    scratch.ints.clear();
    for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
        let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
        put_varint(&mut lengths, range.len() as u64);
        for i in range {
            nulls.append(items.is_valid(i));
            if items.is_valid(i) {
                scratch.ints.push(i64::from(items.value(i)));
            }
        }
    }
    integers::put(&scratch.ints, out, &mut scratch.bytes);
    put_bytes_field(out, 8, &lengths);
    if let Some(nulls) = nulls.finish() {
        put_null_bitmap(out, 9, &nulls);
    }
}

/// Adds `present` lists, whose bytes are taken from `room` before any item is stored.
pub(super) fn decode(
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
    // Below 2^31, since there are at most 64 Ki lists of at most `room` / 4 items.
    let most = *room / 4;
    let mut total = 0usize;
    ends.reserve(present);
    for _ in 0..present {
        let length = take_varint(&mut lengths)?;
        let fits = usize::try_from(length).ok().and_then(|n| total.checked_add(n)).filter(|sum| *sum <= most);
        total = fits.ok_or_else(|| DecodeError::TooLarge(format!("lists of more than {most} items")))?;
        ends.push((before + total) as i32);
    }
    parts.check(lengths.is_empty())?;
    let bytes = total * 4 + total.div_ceil(8);
    *room = room.checked_sub(bytes).ok_or_else(|| DecodeError::TooLarge(format!("lists of {total} items")))?;
    let nulls = Bitmap::new(parts.item_null_bitmap, total).ok_or(DecodeError::ColumnLength(parts.id))?;
    integers::decode(parts, total - nulls.nulls, items, |v| v as i32)?;
    nulls.spread_values(items, before);
    nulls.append_validity(item_validity, total);
    Ok(())
}
