//! Rows of one flush -> sorted Parquet data files, durable and not yet visible.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding as ParquetEncoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use racklake_schemas::clock::DAY;
use racklake_schemas::tables::gpu_sample::{RECEIVED_AT, SITE, TS};
use racklake_schemas::{Encoding, Table, ValueType};

/// Rows per row group: small enough that one device of a sorted file is a few of them.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// A data file that is written and durable, and that no reader sees before it is committed.
#[derive(Debug, Clone)]
pub struct DataFile {
    pub(crate) url: url::Url,
    pub(crate) bytes: u64,
    pub(crate) written_ms: i64,
    pub(crate) stats: arrow::array::StructArray,
    pub(crate) directory: Directory,
    rows: usize,
}

impl DataFile {
    pub(crate) fn new(
        url: url::Url,
        bytes: u64,
        written_ms: i64,
        stats: arrow::array::StructArray,
        directory: Directory,
        rows: usize,
    ) -> DataFile {
        DataFile { url, bytes, written_ms, stats, directory, rows }
    }

    /// How many rows it holds.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        self.url.path()
    }
}

/// The directory of the lake that a row belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Directory {
    pub(crate) site: String,
    /// Days since 1970, UTC.
    pub(crate) dt: i32,
}

/// One file to be: its directory, and its rows without the columns that the directory says.
pub(crate) struct Part {
    pub(crate) directory: Directory,
    pub(crate) batch: RecordBatch,
}

/// The schema of a data file: the catalog's columns without `site`, which is a directory level.
pub(crate) fn file_schema(table: &Table) -> SchemaRef {
    let columns = table.columns.iter().enumerate().filter(|(index, _)| *index != SITE);
    let fields = columns.map(|(_, column)| Field::new(column.name, column.arrow_type(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Sorts the rows by the table's key and divides them by directory.
pub(crate) fn divide(table: &Table, batches: &[RecordBatch]) -> Result<Vec<Part>, ArrowError> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let all = concat_batches(&first.schema(), batches)?;
    let key = |index: &usize| SortColumn { values: Arc::clone(all.column(*index)), options: None };
    let order = lexsort_to_indices(&table.sort_key.iter().map(key).collect::<Vec<_>>(), None)?;

    let (ts, received_at) = (times(&all, TS)?, times(&all, RECEIVED_AT)?);
    let sites = all.column(SITE).as_string_opt::<i32>().ok_or_else(|| wrong("site"))?;
    let mut rows_of: BTreeMap<Directory, Vec<u32>> = BTreeMap::new();
    for &row in order.values() {
        let at = row as usize;
        let directory = Directory { site: sites.value(at).to_owned(), dt: directory_day(ts[at], received_at[at]) };
        rows_of.entry(directory).or_default().push(row);
    }
    let schema = file_schema(table);
    let part = |(directory, rows): (Directory, Vec<u32>)| {
        let mut columns = take_record_batch(&all, &UInt32Array::from(rows))?.columns().to_vec();
        columns.remove(SITE);
        Ok(Part { directory, batch: RecordBatch::try_new(Arc::clone(&schema), columns)? })
    };
    rows_of.into_iter().map(part).collect()
}

/// The day of event time, unless the node's clock was more than a day off: then the day of arrival, so that a wrong
/// clock cannot scatter rows over directories that retention has closed.
fn directory_day(ts: i64, received_at: i64) -> i32 {
    let trusted = ts.abs_diff(received_at) <= DAY.unsigned_abs();
    (if trusted { ts } else { received_at }).div_euclid(DAY) as i32
}

fn times(batch: &RecordBatch, index: usize) -> Result<arrow::buffer::ScalarBuffer<i64>, ArrowError> {
    let column = batch.column(index).as_primitive_opt::<TimestampMicrosecondType>();
    column.map(|times| times.values().clone()).ok_or_else(|| wrong(batch.schema_ref().field(index).name()))
}

fn wrong(column: &str) -> ArrowError {
    ArrowError::SchemaError(format!("column {column} is not of the catalog's type"))
}

/// The bytes of a Parquet file with the rows of one part.
pub(crate) fn to_parquet(table: &Table, batch: &RecordBatch) -> Result<Vec<u8>, parquet::errors::ParquetError> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties(table)?))?;
    writer.write(batch)?;
    writer.into_inner()
}

/// zstd level 1, the catalog's encodings, statistics per page: the settings that measured best for such rows.
fn properties(table: &Table) -> Result<WriterProperties, parquet::errors::ParquetError> {
    let schema = file_schema(table);
    let sorted_by = |index: &usize| {
        let place = schema.index_of(table.columns[*index].name).ok()?;
        // Columns before the first list have the same place among Parquet's leaves.
        Some(SortingColumn { column_idx: i32::try_from(place).ok()?, descending: false, nulls_first: true })
    };
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("racklake ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(table.sort_key.iter().filter_map(sorted_by).collect()))
        .set_dictionary_enabled(false);
    for (index, column) in table.columns.iter().enumerate() {
        if index == SITE {
            continue;
        }
        let path = match column.value_type {
            ValueType::ListI32 => ColumnPath::from(vec![column.name.into(), "list".into(), "element".into()]),
            _ => ColumnPath::from(column.name),
        };
        builder = match column.encoding() {
            Encoding::Dictionary => builder.set_column_dictionary_enabled(path, true),
            Encoding::DeltaBinaryPacked => builder.set_column_encoding(path, ParquetEncoding::DELTA_BINARY_PACKED),
            Encoding::ByteStreamSplit => builder.set_column_encoding(path, ParquetEncoding::BYTE_STREAM_SPLIT),
        };
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_a_day_off_does_not_choose_the_directory() {
        let now = 20_000 * DAY + 5;
        assert_eq!(directory_day(now - DAY, now), 19_999);
        assert_eq!(directory_day(now - DAY - 1, now), 20_000);
        assert_eq!(directory_day(now + 2 * DAY, now), 20_000);
        assert_eq!(directory_day(-1, -1), -1);
    }
}
