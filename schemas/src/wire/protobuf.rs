//! The few pieces of protobuf's encoding that a frame is made of: varints, tags, length-delimited fields.
//!
//! Hand-written rather than generated, because values go straight between Arrow buffers and the wire: a generated
//! message would copy every column once more. `proto/frame.proto` stays the public truth; a test decodes our frames
//! with Google's own protobuf from that file alone.

use super::DecodeError;

/// Protobuf's wire types, as far as frames use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub(super) fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number << 3));
    put_varint(out, value);
}

pub(super) fn put_bytes_field(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_bytes_header(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Tag and length of a length-delimited field whose content the caller writes next.
pub(super) fn put_bytes_header(out: &mut Vec<u8>, number: u32, len: usize) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, len as u64);
}

pub(super) fn put_fixed32_field(out: &mut Vec<u8>, number: u32, value: u32) {
    put_varint(out, u64::from(number << 3 | 5));
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_fixed64_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number << 3 | 1));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Reads a varint at the front of `bytes` and moves past it.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            if i == 9 && byte > 1 {
                return Err(DecodeError::BadVarint);
            }
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    Err(if bytes.len() < 10 { DecodeError::Truncated } else { DecodeError::BadVarint })
}

/// Reads the next field of a message and moves past it; `None` at its end.
pub(super) fn take_field<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u32, Field<'a>)>, DecodeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let tag = take_varint(bytes)?;
    let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::BadTag)?;
    let field = match (number, tag & 7) {
        (0, _) => return Err(DecodeError::BadTag),
        (_, 0) => Field::Varint(take_varint(bytes)?),
        (_, 1) => Field::Fixed64(u64::from_le_bytes(take_array(bytes)?)),
        (_, 5) => Field::Fixed32(u32::from_le_bytes(take_array(bytes)?)),
        (_, 2) => {
            let len = take_varint(bytes)?;
            let len = usize::try_from(len).ok().filter(|len| *len <= bytes.len()).ok_or(DecodeError::Truncated)?;
            let (content, rest) = bytes.split_at(len);
            *bytes = rest;
            Field::Bytes(content)
        }
        _ => return Err(DecodeError::BadTag),
    };
    Ok(Some((number, field)))
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (content, rest) = bytes.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
    *bytes = rest;
    Ok(*content)
}
