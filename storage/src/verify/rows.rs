//! Turns the rows of a batch into parts of frames, and the keys of those that are not whole into hashes.
//!
//! Only the columns that say which frame and which row it is are read: the readings could be anything. A batch whose rows
//! rise strictly by their key, as those of every file that racklake writes do, has no key twice, so that nothing is
//! hashed of frames that are whole in it; whether they rise is looked at, not believed.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash as _, Hasher};

use arrow::array::{Array, ArrayRef, AsArray as _, DictionaryArray, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use racklake_schemas::Table;

use crate::error::StorageError;
use crate::verify::frames::{self, Part};

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

/// What the batch of those columns has of each frame. `number` gives the number of a stream, and learns its node.
pub(crate) fn parts(
    place: &str,
    batch: &RecordBatch,
    mut number: impl FnMut(&str, &str) -> u32,
) -> Result<Vec<Part>, StorageError> {
    let (streams, nodes) = (text(place, batch, 0)?, text(place, batch, 1)?);
    let other = |name: &str| wrong(place, name);
    let seqs = batch.column(2).as_primitive_opt::<Int64Type>().ok_or_else(|| other("seq"))?.values();
    let due = batch.column(3).as_primitive_opt::<Int32Type>().ok_or_else(|| other("frame_rows"))?.values();
    let streams_of_rows = streams.keys().values();
    let mut numbers: Vec<Option<u32>> = vec![None; streams.values().len()];
    let mut parts: Vec<Part> = Vec::new();
    let mut known: HashMap<(u32, i64, i32), usize, Mixer> = HashMap::default();
    // Rows of one frame that follow each other: their part, and where they end.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut begin = 0;
    while begin < seqs.len() {
        let (key, seq, rows_due) = (streams_of_rows[begin], seqs[begin], due[begin]);
        let mut end = begin + 1;
        while end < seqs.len() && seqs[end] == seq && streams_of_rows[end] == key && due[end] == rows_due {
            end += 1;
        }
        let stream = usize::try_from(key).ok().and_then(|key| numbers.get_mut(key));
        let stream = stream.ok_or_else(|| other("stream_id"))?;
        let stream = *stream.get_or_insert_with(|| number(value(streams, begin), value(nodes, begin)));
        let part = *known.entry((stream, seq, rows_due)).or_insert_with(|| {
            parts.push(Part { stream, seq, due: rows_due, ..Part::default() });
            parts.len() - 1
        });
        parts[part].rows += (end - begin) as u32;
        runs.push((part, end));
        begin = end;
    }
    compare_keys(place, batch, &mut parts, &runs)?;
    Ok(parts)
}

/// Gives to the parts what their keys say, where keys were read.
fn compare_keys(
    place: &str,
    batch: &RecordBatch,
    parts: &mut [Part],
    runs: &[(usize, usize)],
) -> Result<(), StorageError> {
    let columns = &batch.columns()[FRAME.len()..];
    let mut keys = columns.iter().map(|column| KeyColumn::new(place, column)).collect::<Result<Vec<_>, _>>()?;
    let rise = (1..batch.num_rows()).all(|row| order(&keys, row) == Ordering::Less);
    let is_whole = |part: &Part| i64::from(part.rows) >= i64::from(part.due);
    if keys.is_empty() || (rise && parts.iter().all(is_whole)) {
        return Ok(());
    }
    keys.iter_mut().for_each(KeyColumn::prepare);
    let mut begin = 0;
    for &(part, end) in runs {
        if !rise || !is_whole(&parts[part]) {
            parts[part].keys.extend((begin..end).map(|row| hash(&keys, row)));
        }
        begin = end;
    }
    for part in parts.iter_mut().filter(|part| is_whole(part)) {
        part.repeated = frames::repeated(&part.keys);
        part.keys = Vec::new();
    }
    Ok(())
}

/// How the key of the row before stands to that of this row.
fn order(keys: &[KeyColumn<'_>], row: usize) -> Ordering {
    let mut orders = keys.iter().map(|column| column.order(row));
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// A hash of a row's key.
fn hash(keys: &[KeyColumn<'_>], row: usize) -> u64 {
    keys.iter().fold(0, |hash, column| mixed(hash ^ column.number(row).unwrap_or(NULL)))
}

/// One column of the row key.
struct KeyColumn<'a> {
    nulls: Option<&'a NullBuffer>,
    values: KeyValues<'a>,
}

enum KeyValues<'a> {
    I32(&'a [i32]),
    I64(&'a [i64]),
    /// Texts, and hashes of the different ones once they are wanted.
    Text(&'a [i32], &'a StringArray, Vec<u64>),
}

impl<'a> KeyColumn<'a> {
    fn new(place: &str, column: &'a ArrayRef) -> Result<KeyColumn<'a>, StorageError> {
        let other = || wrong(place, "of the row key");
        let values = match column.data_type() {
            DataType::Dictionary(..) => {
                let column = column.as_dictionary_opt::<Int32Type>().ok_or_else(other)?;
                let values = column.values().as_string_opt::<i32>().ok_or_else(other)?;
                KeyValues::Text(column.keys().values(), values, Vec::new())
            }
            DataType::Int32 => KeyValues::I32(column.as_primitive::<Int32Type>().values()),
            DataType::Int64 => KeyValues::I64(column.as_primitive::<Int64Type>().values()),
            DataType::Timestamp(..) => {
                let column = column.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(other)?;
                KeyValues::I64(column.values())
            }
            _ => return Err(other()),
        };
        Ok(KeyColumn { nulls: column.nulls(), values })
    }

    /// Gets ready for `number`.
    fn prepare(&mut self) {
        if let KeyValues::Text(_, values, hashes) = &mut self.values {
            *hashes = values.iter().map(hash_of).collect();
        }
    }

    /// What stands for the value of a row; nothing where there is none.
    fn number(&self, row: usize) -> Option<u64> {
        if !self.is_valid(row) {
            return None;
        }
        match &self.values {
            KeyValues::I32(values) => Some(values[row] as u64),
            KeyValues::I64(values) => Some(values[row] as u64),
            KeyValues::Text(keys, _, hashes) => {
                usize::try_from(keys[row]).ok().and_then(|key| hashes.get(key)).copied()
            }
        }
    }

    /// How the value of the row before stands to that of this row; none comes first, as in the files.
    fn order(&self, row: usize) -> Ordering {
        match (self.is_valid(row - 1), self.is_valid(row)) {
            (true, true) => match &self.values {
                KeyValues::I32(values) => values[row - 1].cmp(&values[row]),
                KeyValues::I64(values) => values[row - 1].cmp(&values[row]),
                KeyValues::Text(keys, ..) if keys[row - 1] == keys[row] => Ordering::Equal,
                KeyValues::Text(keys, values, _) => {
                    let text = |row: usize| usize::try_from(keys[row]).ok().filter(|key| *key < values.len());
                    let text = |row| text(row).map(|key| values.value(key));
                    text(row - 1).cmp(&text(row))
                }
            },
            (before, now) => before.cmp(&now),
        }
    }

    fn is_valid(&self, row: usize) -> bool {
        self.nulls.is_none_or(|nulls| nulls.is_valid(row))
    }
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

/// Numbers of our own as keys of a map: nobody who writes a lake gains by making them collide.
type Mixer = BuildHasherDefault<MixingHasher>;

#[derive(Default)]
struct MixingHasher(u64);

impl Hasher for MixingHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_i32(&mut self, value: i32) {
        self.write_u64(value as u64);
    }

    fn write_i64(&mut self, value: i64) {
        self.write_u64(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mixed(self.0 ^ value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array};

    use super::*;

    /// A batch of one stream with the key (device, number): device, number, seq, frame_rows of each row.
    fn batch(rows: &[(Option<&str>, i64, i64, i32)]) -> RecordBatch {
        let same = |text: &str| -> ArrayRef {
            Arc::new(rows.iter().map(|_| Some(text)).collect::<DictionaryArray<Int32Type>>())
        };
        let devices = rows.iter().map(|row| row.0).collect::<DictionaryArray<Int32Type>>();
        let columns: [(&str, ArrayRef); 6] = [
            ("stream_id", same("s")),
            ("node", same("n")),
            ("seq", Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>())),
            ("frame_rows", Arc::new(rows.iter().map(|row| row.3).collect::<Int32Array>())),
            ("device_id", Arc::new(devices)),
            ("number", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    fn parts_of(rows: &[(Option<&str>, i64, i64, i32)]) -> Vec<(i64, u32, u64, usize)> {
        let parts = parts("f", &batch(rows), |_, _| 0).unwrap();
        parts.into_iter().map(|part| (part.seq, part.rows, part.repeated, part.keys.len())).collect()
    }

    #[test]
    fn rows_of_a_frame_are_one_part_wherever_they_lie_and_have_hashes_only_where_some_are_missing() {
        let rows = [(None, 1, 1, 3), (Some("a"), 1, 1, 3), (Some("a"), 2, 2, 2), (Some("b"), 0, 1, 3)];
        assert_eq!(parts_of(&rows), [(1, 3, 0, 0), (2, 1, 0, 1)]);
    }

    #[test]
    fn a_key_that_is_there_twice_is_found_whether_the_rows_rise_or_not() {
        let rows = [(Some("a"), 1, 1, 2), (Some("a"), 1, 1, 2), (Some("b"), 1, 2, 1)];
        assert_eq!(parts_of(&rows), [(1, 2, 1, 0), (2, 1, 0, 0)]);
        let falling = [(Some("b"), 1, 1, 3), (Some("a"), 1, 1, 3), (Some("b"), 1, 1, 3)];
        assert_eq!(parts_of(&falling), [(1, 3, 1, 0)]);
        let without_device = [(None, 1, 1, 2), (None, 1, 1, 2)];
        assert_eq!(parts_of(&without_device), [(1, 2, 1, 0)]);
    }

    #[test]
    fn the_same_key_in_two_frames_is_no_fault_of_either() {
        assert_eq!(parts_of(&[(Some("a"), 1, 1, 1), (Some("a"), 1, 2, 1)]), [(1, 1, 0, 0), (2, 1, 0, 0)]);
    }
}
