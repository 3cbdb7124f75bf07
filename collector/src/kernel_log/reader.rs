//! Reads lines from `/dev/kmsg`, or from a FIFO or file that stands for it, without ever blocking a thread.
//!
//! The device gives one record per read(2) and says EPIPE where records were overwritten before they were read. A FIFO
//! gives what is there. A plain file is read to its end and asked again. What is not a line, or too long for one, is
//! passed over.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

/// Larger than any record of the kernel, which refuses to give part of one.
const BUFFER_BYTES: usize = 64 * 1024;
/// How often a file is asked for more, or a FIFO that nobody writes to.
const FILE_PERIOD: Duration = Duration::from_millis(200);
/// The log is asked again after so long even where the kernel tells nothing.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// An open kernel log.
#[derive(Debug)]
pub(super) struct Reader {
    input: Input,
    buffer: Vec<u8>,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// The line in `partial` is too long and is passed over up to its end.
    too_long: bool,
    at_end: bool,
}

#[derive(Debug)]
enum Input {
    /// The kernel tells when there is more.
    Told(AsyncFd<File>),
    /// It does not: a plain file.
    Asked(File),
    /// What a test has the kernel answer.
    #[cfg(test)]
    Scripted(std::collections::VecDeque<io::Result<String>>),
}

/// What one read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// Whole lines, maybe none.
    Lines(Vec<String>),
    /// Records were overwritten before they were read.
    Overrun,
    /// Nothing more now.
    Nothing,
}

impl Reader {
    /// Opens the log at its oldest record.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn open(path: &Path) -> io::Result<Reader> {
        Ok(Reader::of(open(path)?))
    }

    /// A log that is open, such that reading it never waits.
    pub(super) fn of(file: File) -> Reader {
        let (buffer, partial) = (vec![0; BUFFER_BYTES], Vec::new());
        Reader { input: input(file), buffer, partial, too_long: false, at_end: false }
    }

    /// A log whose reads give what a test says.
    #[cfg(test)]
    pub(super) fn scripted(answers: Vec<io::Result<String>>) -> Reader {
        let input = Input::Scripted(answers.into());
        Reader { input, buffer: vec![0; BUFFER_BYTES], partial: Vec::new(), too_long: false, at_end: false }
    }

    /// Reads once.
    ///
    /// # Errors
    /// When the log cannot be read on; it has to be opened again.
    pub(super) fn read(&mut self) -> io::Result<Got> {
        let got = match &mut self.input {
            Input::Told(file) => file.get_ref().read(&mut self.buffer),
            Input::Asked(file) => file.read(&mut self.buffer),
            #[cfg(test)]
            Input::Scripted(answers) => match answers.pop_front() {
                Some(answer) => answer.and_then(|text| text.as_bytes().read(&mut self.buffer)),
                None => Err(ErrorKind::WouldBlock.into()),
            },
        };
        self.at_end = matches!(got, Ok(0));
        match got {
            Ok(0) => Ok(Got::Nothing),
            Ok(bytes) => Ok(Got::Lines(self.lines(bytes))),
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => Ok(Got::Overrun),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Got::Nothing),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Got::Lines(Vec::new())),
            Err(error) => Err(error),
        }
    }

    /// Waits until there may be more.
    pub(super) async fn more(&self) {
        match &self.input {
            Input::Told(file) if !self.at_end => {
                // Cleared before the next read, so that what comes after that read is told again.
                if let Ok(Ok(mut ready)) = timeout(WAIT_MAX, file.readable()).await {
                    ready.clear_ready();
                }
            }
            _ => sleep(FILE_PERIOD).await,
        }
    }

    fn lines(&mut self, bytes: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = &self.buffer[..bytes];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(&rest[..end]);
            if !std::mem::take(&mut self.too_long) && self.partial.len() <= BUFFER_BYTES {
                lines.push(String::from_utf8_lossy(&self.partial).into_owned());
            }
            self.partial.clear();
            rest = &rest[end + 1..];
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > BUFFER_BYTES {
            self.partial.clear();
            self.too_long = true;
        }
        lines
    }
}

/// A plain file cannot be waited for, so the kernel refuses to tell when there is more.
#[allow(unsafe_code, reason = "tokio has no safe way to wait for a device")]
fn input(file: File) -> Input {
    // SAFETY: a File owns its descriptor and always gives the same one; it lives as long as the AsyncFd that it is in.
    match unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) } {
        Ok(file) => Input::Told(file),
        Err(refused) => Input::Asked(refused.into_parts().0),
    }
}

/// Opens a log such that reading it never waits.
///
/// # Errors
/// When the system refuses.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Why a log cannot be read, and what to do about it.
pub(super) fn remedy(path: &Path, error: &io::Error) -> String {
    let what = match error.kind() {
        ErrorKind::NotFound => {
            "give the container this device, or set [kernel_log] path; [kernel_log] enabled = false does without it"
        }
        ErrorKind::PermissionDenied => {
            "give the collector CAP_SYSLOG and read access to it (a container also needs the device); \
             [kernel_log] enabled = false does without it"
        }
        _ => "it is tried again; [kernel_log] enabled = false does without it",
    };
    format!("{} cannot be read: {error}; XIDs come from NVML alone meanwhile: {what}", path.display())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(reader: &mut Reader) -> Vec<String> {
        let mut all = Vec::new();
        while let Got::Lines(lines) = reader.read().unwrap() {
            all.extend(lines);
        }
        all
    }

    #[tokio::test]
    async fn a_file_is_read_to_its_end_and_on_when_it_grows() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"one\ntw").unwrap();
        let mut reader = Reader::open(file.path()).unwrap();
        assert_eq!(lines(&mut reader), ["one"]);
        file.write_all(b"o\nthree\xff\n").unwrap();
        reader.more().await;
        assert_eq!(lines(&mut reader), ["two", "three\u{fffd}"]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![b'x'; 3 * BUFFER_BYTES]).unwrap();
        file.write_all(b"\nshort\n").unwrap();
        assert_eq!(lines(&mut Reader::open(file.path()).unwrap()), ["short"]);
    }

    #[tokio::test]
    async fn a_fifo_is_waited_for_and_survives_its_writers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.read().unwrap(), Got::Nothing);
        for round in ["first", "second"] {
            let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
            let wait = tokio::spawn(async move {
                let mut got = Vec::new();
                while got.is_empty() {
                    reader.more().await;
                    got = lines(&mut reader);
                }
                (reader, got)
            });
            writeln!(writer, "{round}").unwrap();
            let (back, got) = wait.await.unwrap();
            assert_eq!(got, [round]);
            reader = back;
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_with_a_remedy() {
        let refused = remedy(Path::new("/dev/kmsg"), &io::Error::from_raw_os_error(libc::EPERM));
        assert!(refused.contains("/dev/kmsg") && refused.contains("CAP_SYSLOG"), "{refused}");
    }
}
