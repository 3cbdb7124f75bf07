//! Turns the rows of one flush into Parquet: sorted, one file per directory, encoded as the catalog says.
//!
//! Files sort by (device_id, sub-key, ts), so that the page index and the statistics of a row group find one device
//! quickly. It puts nothing anywhere; see `table`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, Date32Array, RecordBatch};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, partition, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding as ParquetEncoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use racklake_schemas::clock::DAY;
use racklake_schemas::{Column, Encoding, Table, ValueType};

/// Partition column that is also a column of the catalog.
pub(crate) const SITE: &str = "site";
/// Partition column of the date, UTC.
pub(crate) const DT: &str = "dt";

/// Nulls first: rows about a node itself come before its devices.
pub(crate) const SORT: SortOptions = SortOptions { descending: false, nulls_first: true };
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Devices that one row group may hold before its filter says yes too often. Sorted, an hour of one device is 3,600 rows.
const DEVICES_OF_GROUP: u64 = 4096;
/// Times that have a date which every reader can name: 1970 to the end of 9999, µs UTC.
const DATES: std::ops::Range<i64> = 0..2_932_897 * DAY;

/// One data file, not yet put anywhere.
pub(crate) struct Encoded {
    /// Value of the partition column `site`.
    pub(crate) site: String,
    /// Value of the partition column `dt`, days since 1970.
    pub(crate) day: i32,
    /// The rows as the file holds them.
    pub(crate) rows: RecordBatch,
    /// The file.
    pub(crate) bytes: Vec<u8>,
}

/// What went wrong in memory; none of it passes by waiting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("the rows are not those of the catalog: {0}")]
    Rows(String),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// Sorts the rows of a flush, splits them by (site, dt), and encodes each part. Those of `replayed` may be old.
pub(crate) fn encode(
    table: &Table,
    fresh: &[RecordBatch],
    replayed: &[RecordBatch],
) -> Result<Vec<Encoded>, EncodeError> {
    let schema = table.arrow_schema();
    let mut batches = fresh.iter().chain(replayed);
    if let Some(other) = batches.clone().find(|batch| batch.schema().fields() != schema.fields()) {
        return Err(EncodeError::Rows(format!("table {} has {:?}", table.name, other.schema())));
    }
    let rows = concat_batches(&schema, &mut batches)?;
    if rows.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let days = days(&rows, fresh.iter().map(RecordBatch::num_rows).sum())?;
    let sites = column(&rows, SITE)?;
    let directory = [Arc::clone(sites), Arc::new(days) as ArrayRef];
    let keys = directory.iter().chain(table.sort_key.iter().map(|index| rows.column(*index)));
    let keys: Vec<SortColumn> =
        keys.map(|values| SortColumn { values: Arc::clone(values), options: Some(SORT) }).collect();
    let order = lexsort_to_indices(&keys, None)?;
    let sorted = take_record_batch(&rows, &order)?;
    let directory = directory.map(|values| arrow::compute::take(&values, &order, None));
    let [sites, days] = directory;
    let (sites, days) = (sites?, days?);
    let properties = properties(table)?;
    let kept: Vec<usize> = (0..table.columns.len()).filter(|index| table.columns[*index].name != SITE).collect();
    let in_file = sorted.project(&kept)?;
    let ranges = partition(&[Arc::clone(&sites), Arc::clone(&days)])?.ranges();
    let part = |range: std::ops::Range<usize>| {
        let rows = in_file.slice(range.start, range.len());
        let bytes = parquet(&rows, properties.clone())?;
        let site = sites.as_string::<i32>().value(range.start).to_owned();
        Ok(Encoded { site, day: days.as_primitive::<arrow::datatypes::Date32Type>().value(range.start), rows, bytes })
    };
    ranges.into_iter().map(part).collect()
}

/// The columns of a Delta table: those of the catalog and `dt`. All are nullable there, because a reader can do nothing
/// with the difference and a later version may want it so.
pub(crate) fn delta_columns(table: &Table) -> SchemaRef {
    let columns = table.columns.iter().map(|column| Field::new(column.name, column.arrow_type(), true));
    Arc::new(Schema::new(columns.chain([Field::new(DT, DataType::Date32, true)]).collect::<Vec<_>>()))
}

/// A batch as the bytes of a Parquet file.
pub(crate) fn parquet(rows: &RecordBatch, properties: WriterProperties) -> Result<Vec<u8>, ParquetError> {
    // Arrow's own copy of the schema says nothing that Parquet's does not, and flushes make many small files.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), rows.schema(), options)?;
    writer.write(rows)?;
    writer.into_inner()
}

/// What all files of the lake have in common.
pub(crate) fn common_properties() -> Result<WriterPropertiesBuilder, ParquetError> {
    Ok(WriterProperties::builder()
        .set_created_by(concat!("racklake version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Page))
}

fn properties(table: &Table) -> Result<WriterProperties, ParquetError> {
    let in_file: Vec<&Column> = table.columns.iter().filter(|column| column.name != SITE).collect();
    // Every column has one leaf, a list too, so that its place is also that of its leaf.
    let place = |index: &usize| in_file.iter().position(|column| column.name == table.columns[*index].name);
    let sorting = table.sort_key.iter().filter_map(place).map(|place| SortingColumn {
        column_idx: place as i32,
        descending: SORT.descending,
        nulls_first: SORT.nulls_first,
    });
    let mut builder = common_properties()?.set_sorting_columns(Some(sorting.collect()));
    for column in in_file {
        let path = leaf(column);
        builder = match column.encoding() {
            Encoding::DeltaBinaryPacked => builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, ParquetEncoding::DELTA_BINARY_PACKED),
            Encoding::ByteStreamSplit => builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, ParquetEncoding::BYTE_STREAM_SPLIT),
            // The encoding named here is for what follows a dictionary that has grown too large.
            Encoding::Dictionary if column.value_type == ValueType::Text => {
                builder.set_column_dictionary_enabled(path, true)
            }
            Encoding::Dictionary => builder
                .set_column_dictionary_enabled(path.clone(), true)
                .set_column_encoding(path, ParquetEncoding::DELTA_BINARY_PACKED),
        };
    }
    Ok(builder.build())
}

/// What sealed files have besides: a filter that says which devices are in none of a row group's rows.
pub(crate) fn sealed_properties(table: &Table) -> Result<WriterProperties, ParquetError> {
    let properties = properties(table)?.into_builder();
    let Some(device) = table.column("device_id").map(|index| leaf(&table.columns[index])) else {
        return Ok(properties.build());
    };
    Ok(properties
        .set_column_bloom_filter_enabled(device.clone(), true)
        .set_column_bloom_filter_max_ndv(device, DEVICES_OF_GROUP)
        .set_bloom_filter_for_dictionary_encoded_chunks(true)
        .build())
}

fn leaf(column: &Column) -> ColumnPath {
    let parts: &[&str] = match column.value_type {
        ValueType::ListI32 => &[column.name, "list", "element"],
        _ => &[column.name],
    };
    ColumnPath::new(parts.iter().map(|part| (*part).to_owned()).collect())
}

/// Whether a row goes to the day of its arrival and not to that of its reading (both µs UTC): the two are more than a
/// day apart, so that a node with a wrong clock cannot make directories in the far past and future. A replayed row is old
/// by right, and believed where its time is a date at all.
pub fn is_clock_suspect(ts: i64, received_at: i64, replayed: bool) -> bool {
    match replayed {
        true => !DATES.contains(&ts),
        false => ts.saturating_sub(received_at).saturating_abs() > DAY,
    }
}

/// The date of each row, of which the first `fresh` are not replayed.
fn days(rows: &RecordBatch, fresh: usize) -> Result<Date32Array, EncodeError> {
    let time = |name| {
        let values = column(rows, name)?.as_primitive_opt::<TimestampMicrosecondType>();
        values.ok_or_else(|| EncodeError::Rows(format!("{name} is no timestamp")))
    };
    let (read, received) = (time("ts")?, time("received_at")?);
    let day = |(row, (ts, received)): (usize, (&i64, &i64))| {
        let trusted = if is_clock_suspect(*ts, *received, row >= fresh) { received } else { ts };
        trusted.div_euclid(DAY).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    };
    Ok(Date32Array::from_iter_values(read.values().iter().zip(received.values()).enumerate().map(day)))
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, EncodeError> {
    rows.column_by_name(name).ok_or_else(|| EncodeError::Rows(format!("{name} is missing")))
}
