//! Reads one sorted file of a merge: a row group is fetched at a time and decoded a batch at a time.
//!
//! It gives rows as the catalog has them now: a column that the file does not have yet is absent in all of its rows.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows};
use object_store::path::Path;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

use crate::error::StorageError;
use crate::lake::Lake;
use crate::pieces::{DAMAGED, Piece, fetch, footer};

const NOT_OURS: &str = "the file is not of this table, or of a newer racklake: update this one";

/// A file, and how far it has been read.
pub(crate) struct Input {
    lake: Lake,
    path: Path,
    bytes: u64,
    metadata: ArrowReaderMetadata,
    tail: Piece,
    group: usize,
    reader: Option<ParquetRecordBatchReader>,
}

/// Where a merge stands in one file.
pub(crate) struct Cursor {
    input: Input,
    /// Rows that are decoded.
    pub(crate) batch: RecordBatch,
    /// Their keys, in the order of the files.
    keys: Rows,
    /// The next of them.
    pub(crate) row: usize,
    /// The place of the batch among those that chosen rows are in.
    pub(crate) slot: usize,
}

/// What all files of a merge are read as.
pub(crate) struct Reading<'a> {
    /// The columns of a row.
    pub(crate) schema: &'a SchemaRef,
    /// Indexes of those that the files are sorted by.
    pub(crate) sort_key: &'a [usize],
    /// Brings keys into a form that can be compared.
    pub(crate) converter: &'a RowConverter,
    /// Rows that are decoded at a time.
    pub(crate) batch_rows: usize,
}

impl Input {
    /// Opens a file of so many bytes.
    pub(crate) fn open(lake: &Lake, path: Path, bytes: u64) -> Result<Input, StorageError> {
        let (metadata, tail) = footer(lake, &path, bytes)?;
        let metadata = ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new());
        let metadata = metadata.map_err(|error| StorageError::stop(path.as_ref(), error, DAMAGED))?;
        Ok(Input { lake: lake.clone(), path, bytes, metadata, tail, group: 0, reader: None })
    }

    /// The next rows; nothing at the end.
    fn next(&mut self, reading: &Reading<'_>) -> Result<Option<RecordBatch>, StorageError> {
        loop {
            if let Some(reader) = &mut self.reader {
                match reader.next() {
                    Some(batch) => {
                        let batch = batch.map_err(|error| StorageError::stop(self.path.as_ref(), error, DAMAGED))?;
                        return self.shaped(&batch, reading.schema).map(Some);
                    }
                    None => self.reader = None,
                }
            }
            let groups = self.metadata.metadata().row_groups();
            let Some(group) = groups.get(self.group) else { return Ok(None) };
            let ranges = group.columns().iter().map(|column| column.byte_range());
            let ranges = ranges.map(|(start, length)| start..start + length).collect();
            let pieces = fetch(&self.lake, &self.path, self.bytes, &self.tail, ranges)?;
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(pieces, self.metadata.clone())
                .with_row_groups(vec![self.group])
                .with_batch_size(reading.batch_rows)
                .build();
            let damaged = |error: ParquetError| StorageError::stop(self.path.as_ref(), error, DAMAGED);
            self.reader = Some(reader.map_err(damaged)?);
            self.group += 1;
        }
    }

    fn shaped(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, StorageError> {
        let wrong = |cause: String| StorageError::stop(self.path.as_ref(), cause, NOT_OURS);
        // A column that the catalog does not have would be lost.
        if let Some(other) = batch.schema_ref().fields().iter().find(|field| schema.index_of(field.name()).is_err()) {
            return Err(wrong(format!("it has a column {}, which the catalog does not have", other.name())));
        }
        let column = |field: &Arc<arrow::datatypes::Field>| -> Result<ArrayRef, StorageError> {
            match batch.column_by_name(field.name()) {
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
                Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
                Some(column) => arrow::compute::cast(column, field.data_type())
                    .ok()
                    .filter(|cast| cast.null_count() == column.null_count())
                    .ok_or_else(|| wrong(format!("column {} is of {}", field.name(), column.data_type()))),
            }
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
        RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| wrong(error.to_string()))
    }
}

impl Cursor {
    /// At the first row of a file; nothing where it has none.
    pub(crate) fn begin(mut input: Input, reading: &Reading<'_>) -> Result<Option<Cursor>, StorageError> {
        let Some(batch) = input.next(reading)? else { return Ok(None) };
        let keys = keys(&input, &batch, reading)?;
        let mut cursor = Cursor { input, batch, keys, row: 0, slot: 0 };
        let is_there = cursor.batch.num_rows() > 0 || cursor.refill(reading)?;
        Ok(is_there.then_some(cursor))
    }

    /// The key of the next row.
    pub(crate) fn key(&self) -> &[u8] {
        self.keys.row(self.row).data()
    }

    /// Decodes more rows; says whether there are any.
    pub(crate) fn refill(&mut self, reading: &Reading<'_>) -> Result<bool, StorageError> {
        while let Some(batch) = self.input.next(reading)? {
            if batch.num_rows() > 0 {
                self.keys = keys(&self.input, &batch, reading)?;
                (self.batch, self.row) = (batch, 0);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How the next row stands to that of another file.
    pub(crate) fn order(&self, other: &Cursor) -> Ordering {
        self.key().cmp(other.key())
    }

    /// The file's path in the store.
    pub(crate) fn path(&self) -> &Path {
        &self.input.path
    }
}

fn keys(input: &Input, batch: &RecordBatch, reading: &Reading<'_>) -> Result<Rows, StorageError> {
    let columns: Vec<ArrayRef> = reading.sort_key.iter().map(|index| Arc::clone(batch.column(*index))).collect();
    let rows = reading.converter.convert_columns(&columns);
    rows.map_err(|error| StorageError::stop(input.path.as_ref(), error, NOT_OURS))
}
