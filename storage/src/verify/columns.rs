//! Reads a few columns of a data file, one row group at a time: only their bytes are fetched, on any store.
//!
//! Text comes as dictionary arrays, as it lies in the file, so that a value repeated for an hour is looked at once. Errors
//! say that the file cannot be read, never what it should hold.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_schema};
use parquet::errors::ParquetError;

use crate::error::StorageError;
use crate::lake::Lake;
use crate::pieces::{DAMAGED, fetch, footer};

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
