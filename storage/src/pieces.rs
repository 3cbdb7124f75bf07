//! Fetches parts of a data file from any store: its footer, and the column chunks that a reader wants.
//!
//! What was fetched stands for the whole file; a reader that asks for anything else is refused. Nothing is written.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, buf::Reader};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, ParquetStatisticsPolicy,
};
use parquet::file::reader::{ChunkReader, Length};

use crate::error::StorageError;
use crate::lake::Lake;

/// Read from a file's end at first: the footer, and in most files of a flush all there is.
const TAIL_BYTES: u64 = 256 * 1024;
/// What helps where a file cannot be read.
pub(crate) const DAMAGED: &str = "the file cannot be read: take it from a backup, or from the store's own versions";

/// The footer, without statistics, and the end of the file that it was read from.
pub(crate) fn footer(lake: &Lake, path: &Path, bytes: u64) -> Result<(Arc<ParquetMetaData>, Piece), StorageError> {
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

/// The given ranges of a file of so many bytes, of which `tail` is there already.
pub(crate) fn fetch(
    lake: &Lake,
    path: &Path,
    bytes: u64,
    tail: &Piece,
    ranges: Vec<Range<u64>>,
) -> Result<Pieces, StorageError> {
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

/// One part of a file.
#[derive(Clone)]
pub(crate) struct Piece {
    start: u64,
    bytes: Bytes,
}

/// Some parts of a file, as if they were the whole.
pub(crate) struct Pieces {
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
