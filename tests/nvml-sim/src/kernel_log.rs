//! Writes lines in the form of `/dev/kmsg` to a file or FIFO that stands for it.
//!
//! Sequence numbers go on from the last line of the file, or, for a FIFO, from the file `<name>.seq` beside it. A FIFO that
//! nobody reads, or that is full, gets its lines later: a kernel keeps them too.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// More than two of the longest lines.
const TAIL_BYTES: u64 = 8192;
/// Priority of the kernel's warnings.
const WARNING: u32 = 4;

/// A kernel log that is written to.
#[derive(Debug, Default)]
pub(crate) struct KernelLog {
    path: Option<PathBuf>,
    waiting: VecDeque<String>,
}

impl KernelLog {
    /// Writes there from now on, or nowhere.
    pub(crate) fn open(&mut self, path: Option<PathBuf>) {
        self.path = path;
    }

    /// Whether there is one.
    pub(crate) fn is_open(&self) -> bool {
        self.path.is_some()
    }

    /// Whether there are lines that could not be written yet.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Keeps a line to be written.
    pub(crate) fn push(&mut self, text: String) {
        self.waiting.push_back(text);
    }

    /// Writes what can be written, one record with each write(2).
    pub(crate) fn write(&mut self, since_boot: f64) {
        let Some(path) = self.path.as_deref().filter(|_| !self.waiting.is_empty()) else { return };
        let opened = OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path);
        let Ok(mut log) = opened else { return };
        let counted = log.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()).then(|| numbers_of(path));
        let mut seq = match &counted {
            Some(counted) => {
                std::fs::read_to_string(counted).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
            }
            None => next_number(path),
        };
        let us = (since_boot * 1e6) as u64;
        while let Some(text) = self.waiting.front() {
            let record = format!("{WARNING},{seq},{us},-;{text}\n SUBSYSTEM=pci\n");
            if log.write(record.as_bytes()).is_ok_and(|written| written == record.len()) {
                self.waiting.pop_front();
                seq += 1;
            } else {
                break;
            }
        }
        if let Some(counted) = counted {
            // A number that cannot be kept is given again: the reader then passes the line over, and the test sees it.
            drop(std::fs::write(counted, seq.to_string()));
        }
    }
}

/// The file that a FIFO's next number is in.
fn numbers_of(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".seq");
    PathBuf::from(path)
}

/// The number that follows the last record of a file.
fn next_number(path: &Path) -> u64 {
    let tail = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = tail().unwrap_or_default();
    let number = |line: &str| line.split(',').nth(1)?.parse::<u64>().ok().filter(|_| line.contains(';'));
    String::from_utf8_lossy(&tail).lines().rev().find_map(number).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_from_the_last_record_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        std::fs::write(&path, "6,41,1,-;usb 1-1: new device\n SUBSYSTEM=usb\n").unwrap();
        for text in ["NVRM: a", "NVRM: b"] {
            let mut log = KernelLog::default();
            log.open(Some(path.clone()));
            log.push(text.to_owned());
            log.write(2.5);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.ends_with("4,42,2500000,-;NVRM: a\n SUBSYSTEM=pci\n4,43,2500000,-;NVRM: b\n SUBSYSTEM=pci\n"),
            "{text}"
        );
    }
}
