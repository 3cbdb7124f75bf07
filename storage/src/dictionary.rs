//! Keeps the `field_dictionary` table equal to the catalog, so that the lake explains its own columns.
//!
//! The table is replaced as a whole in one commit. An older racklake that starts later replaces it with its own.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use racklake_schemas::clock::Clock;
use racklake_schemas::dictionary;
use uuid::Uuid;

use crate::delta::{Attempt, DeltaTable, Shape, file_meta};
use crate::error::StorageError;
use crate::file;
use crate::lake::Lake;

const NAME: &str = "field_dictionary";
const CONFLICTS_MAX: u32 = 10;

/// Writes the dictionary when it differs from the catalog; says whether it did.
pub(crate) fn write(lake: &Lake) -> Result<bool, StorageError> {
    let place = lake.place(NAME);
    let broken =
        |error: &dyn std::error::Error| StorageError::stop(&place, error, "report it: the catalog is no table");
    let wanted = dictionary::batch().map_err(|error| broken(&error))?;
    let shape = Shape { columns: wanted.schema(), partitions: &[], stats: vec!["table", "column"] };
    let mut table = DeltaTable::open(lake.engine(), &lake.table_root(NAME)?, &place, &shape)?;
    if holds(&table, &wanted)? {
        return Ok(false);
    }
    let properties = file::common_properties().map_err(|error| broken(&error))?.build();
    let bytes = file::parquet(&wanted, properties).map_err(|error| broken(&error))?;
    let directory = table.directory(Default::default())?;
    let url = directory.url("", &format!("{}.parquet", Uuid::new_v4()));
    let add = directory.add(file_meta(url.clone(), Clock::now_us() / 1000, bytes.len() as u64), &wanted)?;
    lake.wait(lake.put(&url, bytes))?;
    for _ in 0..CONFLICTS_MAX {
        match table.replace(&add)? {
            Attempt::Committed => return Ok(true),
            Attempt::Conflicted => table.refresh()?,
        }
        if holds(&table, &wanted)? {
            return Ok(false);
        }
    }
    Err(StorageError::retry(&place, "other writers were quicker"))
}

/// Whether the table's rows are the wanted ones; columns that only the table has do not count.
fn holds(table: &DeltaTable, wanted: &RecordBatch) -> Result<bool, StorageError> {
    let batches = table.rows()?;
    let Some(first) = batches.first() else { return Ok(wanted.num_rows() == 0) };
    let Ok(rows) = concat_batches(&first.schema(), &batches) else { return Ok(false) };
    let schema = wanted.schema();
    let same = |(field, column)| rows.column_by_name(arrow::datatypes::Field::name(field)) == Some(column);
    Ok(schema.fields().iter().map(AsRef::as_ref).zip(wanted.columns()).all(same))
}
