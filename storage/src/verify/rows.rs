//! Turns the rows of a data file into runs of frames, and their keys into hashes.
//!
//! Only the columns that say which frame and which row it is are read: the readings could be anything.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use arrow::array::{Array, AsArray as _, DictionaryArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use racklake_schemas::Table;

use crate::error::StorageError;
use crate::verify::frames::Run;

/// Columns that say which frame a row is of.
const FRAME: [&str; 4] = ["stream_id", "node", "seq", "frame_rows"];
/// Stands for a null in a key.
const NULL: u64 = 0x9e37_79b9_7f4a_7c15;
const NOT_OURS: &str = "the file is not of this table";

/// The columns to read of a table's files; with those of the row key behind, where keys are wanted.
pub(crate) fn columns(table: &Table, keys: bool) -> Vec<&'static str> {
    let key = table.sort_key.iter().filter(|_| keys).map(|index| table.columns[*index].name);
    FRAME.into_iter().chain(key).collect()
}

/// The runs of a batch of those columns. `number` gives the number of a stream, and learns its node.
pub(crate) fn runs(
    place: &str,
    batch: &RecordBatch,
    mut number: impl FnMut(&str, &str) -> u32,
) -> Result<Vec<Run>, StorageError> {
    let (streams, nodes) = (text(place, batch, 0)?, text(place, batch, 1)?);
    let other = |name: &str| wrong(place, name);
    let seqs = batch.column(2).as_primitive_opt::<Int64Type>().ok_or_else(|| other("seq"))?.values();
    let due = batch.column(3).as_primitive_opt::<Int32Type>().ok_or_else(|| other("frame_rows"))?.values();
    let keys = streams.keys().values();
    let mut numbers: Vec<Option<u32>> = vec![None; streams.values().len()];
    let mut runs: Vec<Run> = Vec::new();
    let mut begin = 0;
    while begin < keys.len() {
        let (key, seq, rows_due) = (keys[begin], seqs[begin], due[begin]);
        let mut end = begin + 1;
        while end < keys.len() && seqs[end] == seq && keys[end] == key && due[end] == rows_due {
            end += 1;
        }
        let known = usize::try_from(key).ok().and_then(|key| numbers.get_mut(key));
        let known = known.ok_or_else(|| other("stream_id"))?;
        let stream = *known.get_or_insert_with(|| number(value(streams, begin), value(nodes, begin)));
        runs.push(Run { stream, seq, due: rows_due, rows: (end - begin) as u32 });
        begin = end;
    }
    Ok(runs)
}

/// A hash of each row's key; empty where the keys were not read.
pub(crate) fn keys(place: &str, batch: &RecordBatch) -> Result<Vec<u64>, StorageError> {
    let parts = &batch.columns()[FRAME.len()..];
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let mut hashes = vec![0u64; batch.num_rows()];
    let mix = |hash: &mut u64, valid: bool, value: u64| *hash = mixed(*hash ^ if valid { value } else { NULL });
    for (index, part) in parts.iter().enumerate() {
        let nulls = part.nulls();
        let valid = |row: usize| nulls.is_none_or(|nulls| nulls.is_valid(row));
        match part.data_type() {
            DataType::Dictionary(..) => {
                let part = text(place, batch, FRAME.len() + index)?;
                let values = part.values().as_string_opt::<i32>().ok_or_else(|| wrong(place, "a key"))?;
                let values: Vec<u64> = values.iter().map(hash_of).collect();
                for (row, hash) in hashes.iter_mut().enumerate() {
                    let key = usize::try_from(part.keys().values()[row]).unwrap_or_default();
                    mix(hash, valid(row), values.get(key).copied().unwrap_or(NULL));
                }
            }
            DataType::Int32 => {
                let part = part.as_primitive::<Int32Type>().values();
                hashes.iter_mut().enumerate().for_each(|(row, hash)| mix(hash, valid(row), part[row] as u64));
            }
            DataType::Int64 => {
                let part = part.as_primitive::<Int64Type>().values();
                hashes.iter_mut().enumerate().for_each(|(row, hash)| mix(hash, valid(row), part[row] as u64));
            }
            DataType::Timestamp(..) => {
                let part = part.as_primitive_opt::<TimestampMicrosecondType>();
                let part = part.ok_or_else(|| wrong(place, "a time"))?.values();
                hashes.iter_mut().enumerate().for_each(|(row, hash)| mix(hash, valid(row), part[row] as u64));
            }
            other => return Err(wrong(place, &format!("a key of type {other}"))),
        }
    }
    Ok(hashes)
}

/// A column of text, as [`columns::read`](super::columns::read) gives it.
pub(crate) fn text<'a>(
    place: &str,
    batch: &'a RecordBatch,
    column: usize,
) -> Result<&'a DictionaryArray<Int32Type>, StorageError> {
    let found = batch.column(column).as_dictionary_opt::<Int32Type>();
    found.ok_or_else(|| wrong(place, batch.schema_ref().field(column).name()))
}

/// The text of a row; empty where there is none.
pub(crate) fn value(column: &DictionaryArray<Int32Type>, row: usize) -> &str {
    let values = column.values().as_string_opt::<i32>();
    match (values, column.key(row)) {
        (Some(values), Some(key)) => values.value(key),
        _ => "",
    }
}

pub(crate) fn wrong(place: &str, column: &str) -> StorageError {
    StorageError::stop(place, format!("column {column} is of another type than the catalog says"), NOT_OURS)
}

fn hash_of(text: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Spreads every bit of a value over all of the result (the finalizer of splitmix64).
fn mixed(mut value: u64) -> u64 {
    value = value.wrapping_add(NULL);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
