//! The `field_dictionary` table: the catalog as rows of the lake, replaced as a whole when it changes.

use std::sync::Arc;

use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::transaction::UpdateTableOperation;
use url::Url;

use crate::error::StorageError;
use crate::table::{Delta, Door};

/// Name of the table.
pub(crate) const NAME: &str = "field_dictionary";
/// Tries against other processes that write it at the same start.
const TRIES: usize = 20;

/// Writes the catalog where the table holds something else; true when it was written.
pub(crate) fn write(door: &Arc<Door>, root: Url) -> Result<bool, StorageError> {
    let batch = racklake_schemas::dictionary::batch();
    let batch = batch.map_err(|error| StorageError::stop(NAME, format!("the catalog is no table: {error}")))?;
    let mut delta = Delta::open(door, root, &batch.schema(), &[])?;
    for _ in 0..TRIES {
        let held = delta.read()?;
        if held.len() == 1 && held[0].columns() == batch.columns() {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        let written = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None)
            .and_then(|mut writer| writer.write(&batch).and_then(|()| writer.close()));
        written.map_err(|error| delta.not_ours(&error))?;
        let add = delta.write_plain(&batch, bytes)?;
        if replace(&mut delta, add)? {
            return Ok(true);
        }
        delta.refresh()?;
    }
    Err(StorageError::Retry { place: NAME.to_owned(), cause: "other processes write it too".to_owned() })
}

/// Removes all files and adds one, in one commit; false when another commit came first.
fn replace(delta: &mut Delta, add: Box<dyn delta_kernel::EngineData>) -> Result<bool, StorageError> {
    let snapshot = Arc::clone(&delta.snapshot);
    let builder = Arc::clone(&snapshot).update_table(UpdateTableOperation::Write, "racklake", true);
    let mut transaction =
        builder.build(delta.engine(), Box::new(FileSystemCommitter::new())).map_err(|error| delta.failed(error))?;
    let scan = snapshot.scan_builder().build().map_err(|error| delta.failed(error))?;
    for metadata in scan.scan_metadata(delta.engine()).map_err(|error| delta.failed(error))? {
        transaction.remove_files(metadata.map_err(|error| delta.failed(error))?.scan_files);
    }
    transaction.add_files(add);
    let result = transaction.commit(delta.engine()).map_err(|error| delta.failed(error))?;
    delta.take(result)
}
