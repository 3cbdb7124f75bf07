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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_large_file_appears_whole_and_one_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
        let files = || std::fs::read_dir(folder.path().join("t")).map_or(0, Iterator::count);
        for (bytes, is_finished) in [(2 * PART_BYTES + 17, true), (100, true), (2 * PART_BYTES, false), (100, false)] {
            let path = crate::lake::store_path(&lake, &lake.table_url("t").unwrap().join("f").unwrap()).unwrap();
            let content: Vec<u8> = (0..bytes).map(|at| (at * 7 + at / 1000) as u8).collect();
            let mut output = Output::new(&lake, path);
            content.chunks(999_983).for_each(|chunk| output.write_all(chunk).unwrap());
            let file = folder.path().join("t/f");
            assert!(!file.exists(), "{bytes}");
            if is_finished {
                assert_eq!(output.finish().unwrap(), bytes as u64);
                assert!(std::fs::read(&file).unwrap() == content, "{bytes}");
                std::fs::remove_file(file).unwrap();
            } else {
                drop(output);
            }
            assert_eq!(files(), 0, "{bytes}");
        }
    }
}
