//! Rows of one table held column by column: what a collector fills row by row and ingest frame by frame.
//!
//! It keeps no order of its own; whoever needs one sorts the batch. It does not limit itself: `bytes()` says what it
//! holds, and the caller flushes in time, at the latest at `wire::ROWS_BYTES_MAX`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, ListArray, NullBufferBuilder, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;

use crate::catalog::{Table, ValueType, list_item};
use crate::row::{Cell, Row};

/// Rows of one table, column by column.
#[derive(Debug)]
pub struct Rows {
    table: &'static Table,
    len: usize,
    pub(crate) columns: Vec<ColumnRows>,
}

/// The values of one column; an absent one has a placeholder in `values` and a cleared bit in `validity`.
#[derive(Debug)]
pub(crate) struct ColumnRows {
    pub(crate) values: Values,
    pub(crate) validity: NullBufferBuilder,
}

#[derive(Debug)]
pub(crate) enum Values {
    I8(Vec<i8>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Text { ends: Vec<i32>, bytes: Vec<u8> },
    List { ends: Vec<i32>, items: Vec<i32>, item_validity: NullBufferBuilder },
}

impl Rows {
    /// No rows yet.
    pub fn new(table: &'static Table) -> Rows {
        let columns = table.columns.iter().map(|column| ColumnRows::new(column.value_type)).collect();
        Rows { table, len: 0, columns }
    }

    /// The table that the rows belong to.
    pub fn table(&self) -> &'static Table {
        self.table
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that the values take.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.values.bytes() + self.len.div_ceil(8)).sum()
    }

    /// The values of a column of 64-bit integers or times in these rows, zero where there is none; nothing of other columns.
    pub fn integers(&self, column: usize, rows: std::ops::Range<usize>) -> &[i64] {
        match self.columns.get(column).map(|column| &column.values) {
            Some(Values::I64(values)) => values.get(rows).unwrap_or_default(),
            _ => &[],
        }
    }

    /// Adds one row. A cell of another type than its column's, or a text or list past 2 GiB, is stored as absent:
    /// `Row::read` has already judged it.
    pub fn push(&mut self, row: Row) {
        debug_assert!(std::ptr::eq(row.table(), self.table), "a row of another table");
        for (column, cell) in self.columns.iter_mut().zip(row.into_cells()) {
            column.push(cell);
        }
        self.len += 1;
    }

    /// Says that every column has been extended to `len` rows.
    pub(crate) fn set_len(&mut self, len: usize) {
        debug_assert!(self.columns.iter().all(|column| column.len() == len));
        self.len = len;
    }

    /// Throws away what columns hold past the rows that were completed.
    pub(crate) fn roll_back(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.len);
        }
    }

    /// The rows as a batch to encode: in catalog order, with the columns that the frame's header or ingest fill in left
    /// empty.
    ///
    /// # Errors
    /// Never for rows made with `push`; Arrow's signature says that it could.
    pub fn into_wire_batch(self) -> Result<RecordBatch, ArrowError> {
        let fields = self.table.columns.iter().map(|column| Field::new(column.name, column.arrow_type(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let arrays = self.columns.into_iter().zip(self.table.columns).map(|(rows, c)| rows.into_array(c.value_type));
        RecordBatch::try_new(schema, arrays.collect::<Result<Vec<_>, _>>()?)
    }

    /// The rows as a batch in catalog order.
    ///
    /// # Errors
    /// When a column that must have a value has none.
    pub fn into_batch(self) -> Result<RecordBatch, ArrowError> {
        let schema = self.table.arrow_schema();
        let arrays = self.columns.into_iter().zip(self.table.columns).map(|(rows, c)| rows.into_array(c.value_type));
        RecordBatch::try_new(schema, arrays.collect::<Result<Vec<_>, _>>()?)
    }
}

impl ColumnRows {
    fn new(value_type: ValueType) -> ColumnRows {
        let values = match value_type {
            ValueType::I8 => Values::I8(Vec::new()),
            ValueType::I32 => Values::I32(Vec::new()),
            ValueType::I64 | ValueType::Timestamp => Values::I64(Vec::new()),
            ValueType::F32 => Values::F32(Vec::new()),
            ValueType::F64 => Values::F64(Vec::new()),
            ValueType::Text => Values::Text { ends: Vec::new(), bytes: Vec::new() },
            ValueType::ListI32 => {
                Values::List { ends: Vec::new(), items: Vec::new(), item_validity: NullBufferBuilder::new(0) }
            }
        };
        ColumnRows { values, validity: NullBufferBuilder::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.validity.len()
    }

    fn push(&mut self, cell: Cell) {
        let taken = match (&mut self.values, cell) {
            (Values::I8(values), Cell::I64(v)) => i8::try_from(v).map(|v| values.push(v)).is_ok(),
            (Values::I32(values), Cell::I64(v)) => i32::try_from(v).map(|v| values.push(v)).is_ok(),
            (Values::I64(values), Cell::I64(v)) => {
                values.push(v);
                true
            }
            (Values::F32(values), Cell::F32(v)) => {
                values.push(v);
                true
            }
            (Values::F64(values), Cell::F64(v)) => {
                values.push(v);
                true
            }
            (Values::Text { ends, bytes }, Cell::Text(text)) if fits(bytes.len(), text.len()) => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len() as i32);
                true
            }
            (Values::List { ends, items, item_validity }, Cell::List(list)) if fits(items.len(), list.len()) => {
                for item in list {
                    items.push(item.unwrap_or_default());
                    item_validity.append(item.is_some());
                }
                ends.push(items.len() as i32);
                true
            }
            _ => false,
        };
        self.validity.append(taken);
        if !taken {
            self.values.pad(1);
        }
    }

    /// Adds `n` absent values.
    pub(crate) fn push_nulls(&mut self, n: usize) {
        self.validity.append_n_nulls(n);
        self.values.pad(n);
    }

    fn truncate(&mut self, len: usize) {
        self.validity.truncate(len);
        match &mut self.values {
            Values::I8(v) => v.truncate(len),
            Values::I32(v) => v.truncate(len),
            Values::I64(v) => v.truncate(len),
            Values::F32(v) => v.truncate(len),
            Values::F64(v) => v.truncate(len),
            Values::Text { ends, bytes } => {
                ends.truncate(len);
                bytes.truncate(last_end(ends));
            }
            Values::List { ends, items, item_validity } => {
                ends.truncate(len);
                items.truncate(last_end(ends));
                item_validity.truncate(last_end(ends));
            }
        }
    }

    fn into_array(mut self, value_type: ValueType) -> Result<ArrayRef, ArrowError> {
        let nulls = self.validity.finish();
        Ok(match self.values {
            Values::I8(v) => Arc::new(Int8Array::try_new(v.into(), nulls)?),
            Values::I32(v) => Arc::new(Int32Array::try_new(v.into(), nulls)?),
            Values::I64(v) if value_type == ValueType::Timestamp => {
                Arc::new(TimestampMicrosecondArray::try_new(v.into(), nulls)?.with_timezone("UTC"))
            }
            Values::I64(v) => Arc::new(Int64Array::try_new(v.into(), nulls)?),
            Values::F32(v) => Arc::new(Float32Array::try_new(v.into(), nulls)?),
            Values::F64(v) => Arc::new(Float64Array::try_new(v.into(), nulls)?),
            Values::Text { ends, bytes } => {
                Arc::new(StringArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?)
            }
            Values::List { ends, items, mut item_validity } => {
                let items = Int32Array::try_new(items.into(), item_validity.finish())?;
                Arc::new(ListArray::try_new(list_item(), offsets(ends), Arc::new(items), nulls)?)
            }
        })
    }
}

impl Values {
    fn pad(&mut self, n: usize) {
        match self {
            Values::I8(v) => v.resize(v.len() + n, 0),
            Values::I32(v) => v.resize(v.len() + n, 0),
            Values::I64(v) => v.resize(v.len() + n, 0),
            Values::F32(v) => v.resize(v.len() + n, 0.0),
            Values::F64(v) => v.resize(v.len() + n, 0.0),
            Values::Text { ends, .. } | Values::List { ends, .. } => ends.resize(ends.len() + n, last_end(ends) as i32),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Values::I8(v) => v.len(),
            Values::I32(v) => v.len() * 4,
            Values::I64(v) => v.len() * 8,
            Values::F32(v) => v.len() * 4,
            Values::F64(v) => v.len() * 8,
            Values::Text { ends, bytes } => ends.len() * 4 + bytes.len(),
            Values::List { ends, items, .. } => (ends.len() + items.len()) * 4 + items.len().div_ceil(8),
        }
    }
}

/// Whether an end still fits Arrow's 32-bit offsets.
fn fits(len: usize, more: usize) -> bool {
    i32::try_from(len.saturating_add(more)).is_ok()
}

fn last_end(ends: &[i32]) -> usize {
    ends.last().copied().unwrap_or(0) as usize
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let mut all = Vec::with_capacity(ends.len() + 1);
    all.push(0);
    all.extend(ends);
    OffsetBuffer::new(ScalarBuffer::from(all))
}
