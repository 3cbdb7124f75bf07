//! Writes one file of unknown length as it comes: in parts, so that no more than one of them is in memory.
//!
//! Until it is finished nothing lies under its name. What is left of one that was not finished is for the store to forget,
//! and on a disk for the vacuum to sweep.

use std::io::Write;

use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload};

use crate::error::StorageError;
use crate::lake::Lake;

/// Bytes of one part; stores take 10,000 of them.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// A file that is being written.
pub(crate) struct Output {
    lake: Lake,
    path: Path,
    part: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    bytes: u64,
}

impl Output {
    /// Begins a file; nothing is written yet.
    pub(crate) fn new(lake: &Lake, path: Path) -> Output {
        Output { lake: lake.clone(), path, part: Vec::new(), upload: None, bytes: 0 }
    }

    /// Ends the file, durably, and tells how many bytes it has.
    pub(crate) fn finish(mut self) -> Result<u64, StorageError> {
        let finished = match self.upload.is_some() {
            true => self.put_part().and_then(|()| match self.upload.take() {
                Some(mut upload) => self.lake.wait(upload.complete()).map(|_| ()),
                None => Ok(()),
            }),
            false => {
                let whole = PutPayload::from(std::mem::take(&mut self.part));
                self.lake.wait(self.lake.store().put(&self.path, whole)).map(|_| ())
            }
        };
        finished.map_err(|error| StorageError::of_store(self.path.as_ref(), &error))?;
        Ok(self.bytes)
    }

    fn put_part(&mut self) -> Result<(), object_store::Error> {
        let part = PutPayload::from(std::mem::take(&mut self.part));
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => self.upload.insert(self.lake.wait(self.lake.store().put_multipart(&self.path))?),
        };
        self.lake.wait(upload.put_part(part))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.part.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        if self.part.len() >= PART_BYTES {
            self.put_part().map_err(std::io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        if let Err(error) = self.lake.wait(upload.abort()) {
            tracing::debug!(%error, path = %self.path, "what was written of a file stays behind");
        }
    }
}
