//! The text of a received set: base64 of a few varints per stream, written and read face to face.
//!
//! It is written in every commit of its partition, so the common stream (nothing missing, nothing doubled) takes its id
//! and some four bytes. Layout, all numbers LEB128 varints:
//!
//! ```text
//! version = 1, day, unnamed letters, number of streams, then per stream, by rising id:
//!   id (16 bytes), (day - day seen) << 4 | flags,
//!   [CLOSED: closed_to] [DUPLICATES: count] [LETTERS: count, intervals above 0]
//!   WHOLE: length of the one interval that begins at closed_to + 1; otherwise intervals above closed_to
//! intervals above N: how many, then of each: numbers left out before it, its length - 1
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::intervals::Intervals;
use super::{ReceivedSet, Stream};

const VERSION: u64 = 1;
const CLOSED: u64 = 1;
const DUPLICATES: u64 = 2;
const LETTERS: u64 = 4;
const WHOLE: u64 = 8;
/// Bits of the flags.
const FLAGS: u32 = 4;
const ENDS: &str = "it ends too early";
const RANGE: &str = "a number in it is out of range";

/// The text of the set.
pub(super) fn encode(set: &ReceivedSet) -> String {
    let mut out = Vec::with_capacity(16 + set.streams.len() * 22 + set.intervals * 2);
    put(&mut out, VERSION);
    put(&mut out, set.day as u64);
    put(&mut out, set.unnamed_letters);
    put(&mut out, set.streams.len() as u64);
    for (id, stream) in &set.streams {
        out.extend_from_slice(id);
        put_stream(&mut out, set.day, stream);
    }
    STANDARD_NO_PAD.encode(out)
}

/// The set of a text, without its base.
pub(super) fn decode(text: &str) -> Result<ReceivedSet, String> {
    let bytes = STANDARD_NO_PAD.decode(text).map_err(|error| format!("it is no base64: {error}"))?;
    let mut rest = bytes.as_slice();
    match take(&mut rest)? {
        VERSION => {}
        version => return Err(format!("version {version} is not known here; upgrade ingest first")),
    }
    let mut set = ReceivedSet { day: take_i64(&mut rest)?, unnamed_letters: take(&mut rest)?, ..Default::default() };
    for _ in 0..take(&mut rest)? {
        let (id, after) = rest.split_first_chunk::<16>().ok_or(ENDS)?;
        rest = after;
        let stream = take_stream(&mut rest, set.day)?;
        set.intervals += stream.received.len() + stream.letters.len();
        if set.streams.last_key_value().is_some_and(|(last, _)| last >= id) {
            return Err("its streams are not in order".to_owned());
        }
        set.streams.insert(*id, stream);
    }
    if rest.is_empty() { Ok(set) } else { Err("there is more after its end".to_owned()) }
}

fn put_stream(out: &mut Vec<u8>, day: i64, stream: &Stream) {
    let flag = |is: bool, flag: u64| if is { flag } else { 0 };
    let whole = match stream.received.spans() {
        [(first, last)] if first - 1 == stream.closed_to => Some(last - stream.closed_to),
        _ => None,
    };
    let flags = flag(stream.closed_to > 0, CLOSED)
        | flag(stream.duplicates > 0, DUPLICATES)
        | flag(stream.dead_letters > 0, LETTERS)
        | flag(whole.is_some(), WHOLE);
    put(out, (day.saturating_sub(stream.seen).max(0) as u64) << FLAGS | flags);
    if flags & CLOSED != 0 {
        put(out, stream.closed_to as u64);
    }
    if flags & DUPLICATES != 0 {
        put(out, stream.duplicates);
    }
    if flags & LETTERS != 0 {
        put(out, stream.dead_letters);
        put_intervals(out, 0, &stream.letters);
    }
    match whole {
        Some(length) => put(out, length as u64),
        None => put_intervals(out, stream.closed_to, &stream.received),
    }
}

fn take_stream(rest: &mut &[u8], day: i64) -> Result<Stream, String> {
    let tag = take(rest)?;
    let seen = day.checked_sub_unsigned(tag >> FLAGS).ok_or(RANGE)?;
    let mut stream = Stream { seen, ..Default::default() };
    if tag & CLOSED != 0 {
        stream.closed_to = take_i64(rest)?;
    }
    if tag & DUPLICATES != 0 {
        stream.duplicates = take(rest)?;
    }
    if tag & LETTERS != 0 {
        stream.dead_letters = Some(take(rest)?).filter(|count| *count > 0).ok_or(RANGE)?;
        stream.letters = take_intervals(rest, 0)?;
    }
    if tag & WHOLE == 0 {
        stream.received = take_intervals(rest, stream.closed_to)?;
    } else {
        let last = stream.closed_to.checked_add(take_i64(rest)?).ok_or(RANGE)?;
        if !stream.received.push(stream.closed_to + 1, last) {
            return Err(RANGE.to_owned());
        }
    }
    Ok(stream)
}

fn put_intervals(out: &mut Vec<u8>, above: i64, intervals: &Intervals) {
    put(out, intervals.len() as u64);
    let mut end = above;
    for (first, last) in intervals.spans() {
        put(out, (first - end - 1) as u64);
        put(out, (last - first) as u64);
        end = *last;
    }
}

fn take_intervals(rest: &mut &[u8], above: i64) -> Result<Intervals, String> {
    let mut intervals = Intervals::default();
    let mut end = above;
    for _ in 0..take(rest)? {
        let first = end.checked_add(take_i64(rest)?).and_then(|end| end.checked_add(1)).ok_or(RANGE)?;
        end = first.checked_add(take_i64(rest)?).ok_or(RANGE)?;
        if !intervals.push(first, end) {
            return Err("its intervals touch".to_owned());
        }
    }
    Ok(intervals)
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(ENDS)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(RANGE.to_owned());
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(RANGE.to_owned())
}

fn take_i64(rest: &mut &[u8]) -> Result<i64, String> {
    i64::try_from(take(rest)?).map_err(|_| RANGE.to_owned())
}
