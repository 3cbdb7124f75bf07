//! Texts: one constant, or a dictionary and indices into it.

use std::collections::HashMap;

use arrow::array::StringArray;

use super::{Parts, Scratch, arm};
use crate::catalog::Column;
use crate::identity::is_label;
use crate::wire::DecodeError;
use crate::wire::protobuf::{
    Field, bytes_field_len, put_bytes_field, put_bytes_header, put_varint, take_field, take_varint,
};

pub(super) fn encode(texts: &StringArray, out: &mut Vec<u8>, scratch: &mut Scratch) {
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
        put_bytes_header(out, arm::CONSTANT, bytes_field_len(only.len()));
        return put_bytes_field(out, 4, only.as_bytes());
    }
    if dictionary.is_empty() {
        return;
    }
    let dictionary_len: usize = dictionary.iter().map(|text| bytes_field_len(text.len())).sum();
    put_bytes_header(out, arm::STRINGS, dictionary_len + bytes_field_len(scratch.bytes.len()));
    for text in dictionary {
        put_bytes_field(out, 1, text.as_bytes());
    }
    put_bytes_field(out, 2, &scratch.bytes);
}

/// Adds `present` texts, whose bytes are taken from `room` before any is copied.
pub(super) fn decode(
    parts: &Parts<'_>,
    spec: &Column,
    present: usize,
    ends: &mut Vec<i32>,
    bytes: &mut Vec<u8>,
    room: &mut usize,
) -> Result<(), DecodeError> {
    match parts.arm {
        None => parts.check(present == 0),
        Some((arm::CONSTANT, arm)) => {
            let (4, Field::Bytes(text)) = parts.only_field(arm)? else { return Err(DecodeError::BadValue(parts.id)) };
            let text = text_of(spec, text)?;
            take_room(room, text.len().checked_mul(present), spec)?;
            push_repeated(ends, bytes, text, present);
            Ok(())
        }
        Some((arm::STRINGS, arm)) => {
            let Strings { dictionary, indices } = Strings::read(parts, spec, present, arm)?;
            let text = |indices: &mut &[u8]| {
                let index = usize::try_from(take_varint(indices)?).ok();
                index.and_then(|i| dictionary.get(i)).ok_or(DecodeError::BadValue(spec.id))
            };
            let mut rest = indices;
            let mut total = 0usize;
            for _ in 0..present {
                total = total.saturating_add(text(&mut rest)?.len());
            }
            parts.check(rest.is_empty())?;
            take_room(room, Some(total), spec)?;
            bytes.reserve(total);
            ends.reserve(present);
            let mut rest = indices;
            for _ in 0..present {
                bytes.extend_from_slice(text(&mut rest)?.as_bytes());
                ends.push(bytes.len() as i32);
            }
            Ok(())
        }
        Some(_) => Err(DecodeError::BadValue(parts.id)),
    }
}

/// Adds the same text `n` times.
pub(in crate::wire) fn push_repeated(ends: &mut Vec<i32>, bytes: &mut Vec<u8>, text: &str, n: usize) {
    bytes.reserve(text.len() * n);
    ends.reserve(n);
    for _ in 0..n {
        bytes.extend_from_slice(text.as_bytes());
        ends.push(bytes.len() as i32);
    }
}

fn take_room(room: &mut usize, total: Option<usize>, spec: &Column) -> Result<(), DecodeError> {
    let left = total.and_then(|total| room.checked_sub(total));
    *room = left.ok_or_else(|| DecodeError::TooLarge(format!("more than {room} bytes of {}", spec.name)))?;
    Ok(())
}

struct Strings<'a> {
    dictionary: Vec<&'a str>,
    indices: &'a [u8],
}

impl<'a> Strings<'a> {
    fn read(parts: &Parts<'_>, spec: &Column, present: usize, mut arm: &'a [u8]) -> Result<Strings<'a>, DecodeError> {
        let mut strings = Strings { dictionary: Vec::new(), indices: b"" };
        while let Some((number, field)) = take_field(&mut arm)? {
            match (number, field) {
                (1, Field::Bytes(text)) => {
                    parts.check(strings.dictionary.len() < present)?;
                    strings.dictionary.push(text_of(spec, text)?);
                }
                (2, Field::Bytes(packed)) => strings.indices = packed,
                _ => return Err(DecodeError::BadValue(parts.id)),
            }
        }
        parts.check(strings.indices.len() >= present)?;
        Ok(strings)
    }
}

fn text_of<'a>(spec: &Column, bytes: &'a [u8]) -> Result<&'a str, DecodeError> {
    // A site names a directory of the lake, so it may not be any text.
    let allowed = |text: &&str| spec.name != "site" || is_label(text);
    std::str::from_utf8(bytes).ok().filter(allowed).ok_or(DecodeError::BadValue(spec.id))
}
