//! Reads a few columns of a data file, one row group at a time: only their bytes are fetched, on any store.
//!
//! Text comes as dictionary arrays, as it lies in the file, so that a value repeated for an hour is looked at once. Errors
//! say that the file cannot be read, never what it should hold.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::{Buf as _, Bytes, buf::Reader};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};
use parquet::file::reader::{ChunkReader, Length};

use crate::error::StorageError;
use crate::lake::Lake;

/// Read from a file's end at first: the footer, and in most files of a flush all there is.
const TAIL_BYTES: u64 = 256 * 1024;
const DAMAGED: &str = "the file cannot be read: take it from a backup, or from the store's own versions";

/// Calls `visit` with the named columns of each row group, in the order of the names, and tells how many rows there are.
pub(crate) fn read(
    lake: &Lake,
    path: &Path,
    bytes: u64,
    names: &[&str],
    mut visit: impl FnMut(&RecordBatch) -> Result<(), StorageError>,
) -> Result<u64, StorageError> {
    let damaged = |error: ParquetError| StorageError::stop(path.as_ref(), error, DAMAGED);
    let (metadata, tail) = footer(lake, path, bytes)?;
    let descriptor = metadata.file_metadata().schema_descr();
    let mut leaves = Vec::with_capacity(names.len());
    for name in names {
        let leaf = descriptor.columns().iter().position(|column| column.path().parts() == [*name]);
        leaves
            .push(leaf.ok_or_else(|| StorageError::stop(path.as_ref(), format!("it has no column {name}"), DAMAGED))?);
    }
    let mask = ProjectionMask::leaves(descriptor, leaves.iter().copied());
    let schema = parquet_to_arrow_schema(descriptor, None).map_err(damaged)?;
    let options = ArrowReaderOptions::new().with_schema(Arc::new(with_dictionaries(&schema, names)));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options).map_err(damaged)?;
    let mut rows = 0;
    for (index, group) in metadata.metadata().row_groups().iter().enumerate() {
        let ranges: Vec<_> = leaves.iter().map(|leaf| group.column(*leaf).byte_range()).collect();
        let pieces = fetch(lake, path, bytes, &tail, ranges.iter().map(|(start, len)| *start..start + len).collect())?;
        let group_rows = usize::try_from(group.num_rows()).unwrap_or_default();
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(pieces, metadata.clone())
            .with_row_groups(vec![index])
            .with_projection(mask.clone())
            .with_batch_size(group_rows.max(1))
            .build()
            .map_err(damaged)?;
        for batch in reader {
            let batch = batch.map_err(|error| StorageError::stop(path.as_ref(), error, DAMAGED))?;
            let places = names.iter().map(|name| batch.schema_ref().index_of(name)).collect::<Result<Vec<_>, _>>();
            let ordered = places.and_then(|places| batch.project(&places));
            let ordered = ordered.map_err(|error| StorageError::stop(path.as_ref(), error, DAMAGED))?;
            rows += ordered.num_rows() as u64;
            visit(&ordered)?;
        }
    }
    Ok(rows)
}

/// The footer, without statistics, and the end of the file that it was read from.
fn footer(lake: &Lake, path: &Path, bytes: u64) -> Result<(Arc<ParquetMetaData>, Piece), StorageError> {
    let options = ParquetMetaDataOptions::new()
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let mut wanted = TAIL_BYTES.min(bytes);
    loop {
        let tail = Piece { start: bytes - wanted, bytes: get(lake, path, bytes - wanted..bytes)? };
        let mut reader = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Skip)
            .with_metadata_options(Some(options.clone()));
        match reader.try_parse_sized(&tail.bytes, bytes).and_then(|()| reader.finish()) {
            Ok(metadata) => return Ok((Arc::new(metadata), tail)),
            Err(ParquetError::NeedMoreData(more)) if (wanted + 1..=bytes).contains(&(more as u64)) => {
                wanted = more as u64;
            }
            Err(error) => return Err(StorageError::stop(path.as_ref(), error, DAMAGED)),
        }
    }
}

/// The same columns, those of text among the named as dictionaries.
fn with_dictionaries(schema: &Schema, names: &[&str]) -> Schema {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 if names.contains(&field.name().as_str()) => {
            Arc::new(field.as_ref().clone().with_data_type(dictionary.clone()))
        }
        _ => Arc::clone(field),
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

fn fetch(lake: &Lake, path: &Path, bytes: u64, tail: &Piece, ranges: Vec<Range<u64>>) -> Result<Pieces, StorageError> {
    if ranges.iter().all(|range| range.start >= tail.start && range.end <= bytes) {
        return Ok(Pieces { file_bytes: bytes, pieces: [tail.clone()].into() });
    }
    if let Some(range) = ranges.iter().find(|range| range.end > bytes) {
        return Err(StorageError::stop(path.as_ref(), format!("it ends before byte {}", range.end), DAMAGED));
    }
    let fetched = lake.wait(lake.store().get_ranges(path, &ranges));
    let fetched = fetched.map_err(|error| StorageError::of_store(path.as_ref(), &error))?;
    let pieces = ranges.iter().zip(fetched).map(|(range, bytes)| Piece { start: range.start, bytes });
    Ok(Pieces { file_bytes: bytes, pieces: pieces.collect() })
}

fn get(lake: &Lake, path: &Path, range: Range<u64>) -> Result<Bytes, StorageError> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let got = lake.wait(lake.store().get_range(path, range));
    got.map_err(|error| StorageError::of_store(path.as_ref(), &error))
}

#[derive(Clone)]
struct Piece {
    start: u64,
    bytes: Bytes,
}

/// Some parts of a file, as if they were the whole.
struct Pieces {
    file_bytes: u64,
    pieces: Vec<Piece>,
}

impl Pieces {
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let holds = |piece: &&Piece| (piece.start..piece.start + piece.bytes.len() as u64).contains(&start);
        let piece = self.pieces.iter().find(holds);
        let piece =
            piece.ok_or_else(|| ParquetError::EOF(format!("a page at byte {start} lies outside its column")))?;
        Ok(piece.bytes.slice((start - piece.start) as usize..))
    }
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.file_bytes
    }
}

impl ChunkReader for Pieces {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        match bytes.len() >= length {
            true => Ok(bytes.slice(..length)),
            false => Err(ParquetError::EOF(format!("a page at byte {start} ends outside its column"))),
        }
    }
}
