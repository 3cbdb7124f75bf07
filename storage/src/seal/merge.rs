//! Merges sorted files into one: the least row of all comes next, and rows of one key are looked at for repetitions.
//!
//! In memory are a row group of each file as it was fetched, some of its rows, and the row group that is being written.
//! That every file is sorted is found out on the way, not believed; so is that no row is there twice.

use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use racklake_schemas::Table;

use super::input::{Cursor, Input, Reading};
use crate::error::StorageError;
use crate::file::{self, SITE};

/// Rows that are decoded of all files together, about.
const DECODED_ROWS: usize = 64 * 1024;
/// Rows that are handed on at a time.
const OUT_ROWS: usize = 8 * 1024;

/// Why files were not merged.
#[derive(Debug)]
pub(crate) enum MergeError {
    /// A row is there twice: its key, for a human.
    Repeated(String),
    Storage(StorageError),
}

impl From<StorageError> for MergeError {
    fn from(error: StorageError) -> MergeError {
        MergeError::Storage(error)
    }
}

/// What the files of a table are merged by.
pub(crate) struct Order {
    schema: SchemaRef,
    sort_key: Vec<usize>,
    stream_id: usize,
    seq: usize,
    converter: RowConverter,
}

impl Order {
    pub(crate) fn new(table: &Table) -> Result<Order, StorageError> {
        let broken = |error: &dyn std::fmt::Display| {
            StorageError::stop(table.name, error, "report it: the catalog has no row key")
        };
        let fields = table.arrow_schema();
        let kept = fields.fields().iter().filter(|field| field.name() != SITE);
        let schema = Arc::new(Schema::new(kept.cloned().collect::<Vec<_>>()));
        let place = |name: &str| schema.index_of(name).map_err(|error| broken(&error));
        let sort_key = table.sort_key.iter().map(|index| place(table.columns[*index].name));
        let sort_key: Vec<usize> = sort_key.collect::<Result<_, _>>()?;
        let field = |index: &usize| SortField::new_with_options(schema.field(*index).data_type().clone(), file::SORT);
        let converter = RowConverter::new(sort_key.iter().map(field).collect()).map_err(|error| broken(&error))?;
        let (stream_id, seq) = (place("stream_id")?, place("seq")?);
        Ok(Order { schema, sort_key, stream_id, seq, converter })
    }

    /// The columns of the rows that come out.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

/// A merge that is under way.
struct Merge<'a> {
    order: &'a Order,
    reading: Reading<'a>,
    cursors: Vec<Cursor>,
    /// Indexes of cursors; each comes before the two that lie below it.
    heap: Vec<usize>,
    /// Batches that chosen rows are in.
    slots: Vec<RecordBatch>,
    /// Rows that come out next: slot and row.
    chosen: Vec<(usize, usize)>,
    /// Rows of one sort key, and that key.
    alike: Vec<(usize, usize)>,
    key: Vec<u8>,
}

/// Merges the files and hands their rows on, in order. Gives how many there were.
pub(crate) fn merge(
    order: &Order,
    inputs: Vec<Input>,
    mut emit: impl FnMut(&RecordBatch) -> Result<(), StorageError>,
) -> Result<u64, MergeError> {
    let batch_rows = (DECODED_ROWS / inputs.len().max(1)).clamp(64, OUT_ROWS);
    let (schema, sort_key, converter) = (&order.schema, order.sort_key.as_slice(), &order.converter);
    let reading = Reading { schema, sort_key, converter, batch_rows };
    let begun = inputs.into_iter().map(|input| Cursor::begin(input, &reading));
    let cursors: Vec<Cursor> = begun.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    let (heap, slots) = ((0..cursors.len()).collect(), Vec::new());
    let mut merge =
        Merge { order, reading, cursors, heap, slots, chosen: Vec::new(), alike: Vec::new(), key: Vec::new() };
    merge.renew_slots();
    for at in (0..merge.heap.len()).rev() {
        merge.sift_down(at);
    }
    merge.run(&mut emit)
}

impl Merge<'_> {
    fn run(&mut self, emit: &mut impl FnMut(&RecordBatch) -> Result<(), StorageError>) -> Result<u64, MergeError> {
        let mut rows = 0;
        while let Some(&first) = self.heap.first() {
            let key = self.cursors[first].key();
            let is_alike = !self.alike.is_empty() && key == self.key;
            if !is_alike {
                if !self.alike.is_empty() && key < self.key.as_slice() {
                    let path = self.cursors[first].path().to_string();
                    let remedy =
                        "report it, unless another program wrote the file: it stays as it is, and readers see it";
                    return Err(StorageError::stop(&path, "its rows are not in the order of their keys", remedy).into());
                }
                self.choose_alike()?;
                if self.chosen.len() >= OUT_ROWS {
                    rows += self.emit(emit)?;
                }
                self.key.clear();
                self.key.extend_from_slice(self.cursors[first].key());
            }
            let cursor = &mut self.cursors[first];
            self.alike.push((cursor.slot, cursor.row));
            self.advance(first)?;
        }
        self.choose_alike()?;
        rows += self.emit(emit)?;
        Ok(rows)
    }

    /// Takes the first cursor of the heap to its next row.
    fn advance(&mut self, first: usize) -> Result<(), StorageError> {
        let cursor = &mut self.cursors[first];
        cursor.row += 1;
        if cursor.row == cursor.batch.num_rows() {
            if cursor.refill(&self.reading)? {
                cursor.slot = self.slots.len();
                self.slots.push(cursor.batch.clone());
            } else {
                self.heap.swap_remove(0);
            }
        }
        self.sift_down(0);
        Ok(())
    }

    /// Brings rows of one sort key into the order of their frames.
    fn choose_alike(&mut self) -> Result<(), MergeError> {
        if self.alike.len() > 1 {
            let frame = |(slot, row): (usize, usize)| {
                let batch = &self.slots[slot];
                let streams = batch.column(self.order.stream_id).as_string_opt::<i32>();
                let seqs = batch.column(self.order.seq).as_primitive_opt::<Int64Type>();
                (streams.map(|streams| streams.value(row)), seqs.map(|seqs| seqs.value(row)))
            };
            self.alike.sort_by(|a, b| frame(*a).cmp(&frame(*b)));
            if let Some(pair) = self.alike.windows(2).find(|pair| frame(pair[0]) == frame(pair[1])) {
                return Err(MergeError::Repeated(self.name(pair[0])));
            }
        }
        self.chosen.append(&mut self.alike);
        Ok(())
    }

    /// Hands on what was chosen, and lets go of the batches that are done with.
    fn emit(&mut self, emit: &mut impl FnMut(&RecordBatch) -> Result<(), StorageError>) -> Result<u64, StorageError> {
        if self.chosen.is_empty() {
            return Ok(0);
        }
        let batches: Vec<&RecordBatch> = self.slots.iter().collect();
        let rows = interleave_record_batch(&batches, &self.chosen)
            .map_err(|error| StorageError::stop("merge", error, "report it: rows and catalog disagree"))?;
        self.chosen.clear();
        self.renew_slots();
        emit(&rows)?;
        Ok(rows.num_rows() as u64)
    }

    fn renew_slots(&mut self) {
        self.slots.clear();
        for index in &self.heap {
            let cursor = &mut self.cursors[*index];
            cursor.slot = self.slots.len();
            self.slots.push(cursor.batch.clone());
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for below in [2 * at + 1, 2 * at + 2] {
                if below < self.heap.len()
                    && self.cursors[self.heap[below]].order(&self.cursors[self.heap[least]]).is_lt()
                {
                    least = below;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    /// The key of a row, for a human.
    fn name(&self, (slot, row): (usize, usize)) -> String {
        let batch = &self.slots[slot];
        let columns = self.order.sort_key.iter().chain([&self.order.stream_id, &self.order.seq]);
        let value = |index: &usize| {
            let text = arrow::util::display::array_value_to_string(batch.column(*index), row).unwrap_or_default();
            format!("{} {text}", self.order.schema.field(*index).name())
        };
        columns.map(value).collect::<Vec<_>>().join(", ")
    }
}
