//! The few pieces of protobuf's encoding that a frame is made of: varints, tags, length-delimited fields.
//!
//! Hand-written rather than generated, because values go straight between Arrow buffers and the wire: a generated
//! message would copy every column once more. `proto/frame.proto` stays the public truth; a test decodes our frames
//! with Google's own protobuf from that file alone.

use super::DecodeError;

/// The content of a field, by protobuf's wire type, as far as frames use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// The bit that says that a varint goes on, in each of eight bytes.
const MORE: u64 = 0x8080_8080_8080_8080;

#[inline]
pub(super) fn put_varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        return out.push(value as u8);
    }
    let mut bytes = [0; VARINT_MAX];
    let len = write_varint(&mut bytes, value);
    out.extend_from_slice(&bytes[..len]);
}

/// Most bytes of a varint.
pub(super) const VARINT_MAX: usize = 10;

/// Writes a varint to the front of `out` and says how long it is; what lies behind it is overwritten.
#[inline]
pub(super) fn write_varint(out: &mut [u8; VARINT_MAX], value: u64) -> usize {
    if value < 0x80 {
        out[0] = value as u8;
        return 1;
    }
    if value >= 1 << 56 {
        return write_long_varint(out, value);
    }
    // All groups at once.
    let len = varint_len(value);
    let word = spread(value) | (MORE & ((1 << (8 * (len - 1))) - 1));
    out[..8].copy_from_slice(&word.to_le_bytes());
    len
}

#[cold]
fn write_long_varint(out: &mut [u8; VARINT_MAX], mut value: u64) -> usize {
    let len = varint_len(value);
    for byte in &mut out[..len] {
        *byte = value as u8 | 0x80;
        value >>= 7;
    }
    out[len - 1] &= 0x7f;
    len
}

/// Reads a varint at the front of `bytes` and moves past it.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    next_varint(bytes).ok_or_else(|| bad_varint(bytes))
}

/// Why there is no varint at the front of `bytes`.
#[cold]
pub(super) fn bad_varint(bytes: &[u8]) -> DecodeError {
    if bytes.len() < VARINT_MAX { DecodeError::Truncated } else { DecodeError::BadVarint }
}

/// Like `take_varint`, without the error, which would cost more than the varint; stays where it is when there is none.
#[inline]
pub(super) fn next_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(u64::from(first));
    }
    if let Some(word) = bytes.first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let last = !word & MORE;
        if last != 0 {
            let bits = last.trailing_zeros() + 1;
            *bytes = bytes.get(bits as usize / 8..)?;
            return Some(gather(word & !MORE & (u64::MAX >> (64 - bits))));
        }
    }
    next_long_varint(bytes)
}

#[cold]
fn next_long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(VARINT_MAX) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            if i == VARINT_MAX - 1 && byte > 1 {
                return None;
            }
            *bytes = &bytes[i + 1..];
            return Some(value);
        }
    }
    None
}

/// The lower 56 bits as eight groups of 7, one per byte.
fn spread(value: u64) -> u64 {
    let x = (value & 0x00ff_ffff_f000_0000) << 4 | value & 0x0fff_ffff;
    let x = (x & 0x0fff_c000_0fff_c000) << 2 | x & 0x0000_3fff_0000_3fff;
    (x & 0x3f80_3f80_3f80_3f80) << 1 | x & 0x007f_007f_007f_007f
}

/// The inverse of `spread`, for bytes below 0x80.
fn gather(x: u64) -> u64 {
    let x = (x & 0x7f00_7f00_7f00_7f00) >> 1 | x & 0x007f_007f_007f_007f;
    let x = (x & 0x3fff_0000_3fff_0000) >> 2 | x & 0x0000_3fff_0000_3fff;
    (x & 0x0fff_ffff_0000_0000) >> 4 | x & 0x0fff_ffff
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

/// Bytes that a length-delimited field takes whose number is below 16.
pub(super) fn bytes_field_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

/// Reads the next field of a message and moves past it; `None` at its end.
#[inline]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_those_of_protobuf() {
        for (value, bytes) in [(0u64, &[0u8][..]), (127, &[0x7f]), (128, &[0x80, 1]), (300, &[0xac, 2])] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn every_length_of_varint_comes_back_whatever_follows_it() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]);
        for value in edges {
            for tail in [&b""[..], &[0xff; 9], &[0; 9]] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value));
                out.extend_from_slice(tail);
                let mut rest = &out[..];
                assert_eq!(take_varint(&mut rest), Ok(value));
                assert_eq!(rest, tail);
            }
        }
    }

    #[test]
    fn a_varint_that_ends_early_or_never_is_an_error() {
        assert_eq!(take_varint(&mut &b""[..]), Err(DecodeError::Truncated));
        assert_eq!(take_varint(&mut &[0x80; 9][..]), Err(DecodeError::Truncated));
        assert_eq!(take_varint(&mut &[0x80; 10][..]), Err(DecodeError::BadVarint));
        assert_eq!(
            take_varint(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]),
            Err(DecodeError::BadVarint)
        );
    }
}
