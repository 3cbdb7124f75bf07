//! Reads attributes of sysfs: small files with one value each, any of which may be absent, fail, or say nonsense.
//!
//! A read may take as long as the driver behind the file does, or never return; whoever calls decides on which thread
//! that is.

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use racklake_schemas::{Row, fail_code};
use tokio::sync::oneshot;

use crate::source::SourceError;

/// No attribute that is read is longer; sysfs itself has a page.
const BYTES_MAX: u64 = 64 * 1024;

/// Why an attribute has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no such file: the device does not have it.
    Absent,
    /// There is one, and the driver says that the device does not have it.
    Unsupported,
    /// The errno of the read, or a code of racklake.
    Failed(i32),
}

impl Trouble {
    fn of(error: &Error) -> Trouble {
        match (error.kind(), error.raw_os_error()) {
            (ErrorKind::NotFound, _) => Trouble::Absent,
            (ErrorKind::PermissionDenied, _) => Trouble::Failed(fail_code::NO_PERMISSION),
            (_, Some(libc::EOPNOTSUPP | libc::ENOSYS)) => Trouble::Unsupported,
            (_, Some(errno)) => Trouble::Failed(errno),
            (_, None) => Trouble::Failed(fail_code::UNPARSABLE),
        }
    }
}

/// What an attribute gave.
pub(crate) type Answer<T> = Result<T, Trouble>;

/// The bytes of an attribute.
pub(crate) fn bytes(path: &Path) -> Answer<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| Trouble::of(&error))
}

/// The text of an attribute, without the white space around it.
pub(crate) fn text(path: &Path) -> Answer<String> {
    let text = String::from_utf8(bytes(path)?).map_err(|_| Trouble::Failed(fail_code::UNPARSABLE))?;
    Ok(text.trim().to_owned())
}

/// The integer that an attribute holds.
pub(crate) fn integer(path: &Path) -> Answer<i64> {
    text(path)?.parse().map_err(|_| Trouble::Failed(fail_code::UNPARSABLE))
}

/// Puts an answer into a row: a value, or why there is none.
pub(crate) fn put(row: &mut Row, column: usize, answer: Answer<i64>) {
    match answer {
        Ok(value) => row.read(column, value),
        Err(Trouble::Absent | Trouble::Unsupported) => row.unsupported(column),
        Err(Trouble::Failed(code)) => row.fail(column, code),
    }
}

/// Does something on a thread that nobody joins: a file of sysfs may block for ever, and must not keep the collector from
/// ending.
///
/// # Errors
/// When there is no thread to be had, or it ended without an answer.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SourceError> {
    let failure = |message: String| SourceError { message, code: None, devices_absent: false };
    let (reply, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let spawned = thread.spawn(move || drop(reply.send(work())));
    spawned.map_err(|error| failure(format!("reading {name} gets no thread: {error}")))?;
    answer.await.map_err(|_| failure(format!("reading {name} ended without an answer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_told_apart_from_what_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("good"), "-40000\n").unwrap();
        std::fs::write(path("text"), "n/a\n").unwrap();
        std::fs::write(path("bytes"), [0xff, 0xfe]).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        assert_eq!(integer(&path("good")), Ok(-40000));
        assert_eq!(integer(&path("text")), Err(Trouble::Failed(fail_code::UNPARSABLE)));
        assert_eq!(integer(&path("bytes")), Err(Trouble::Failed(fail_code::UNPARSABLE)));
        assert_eq!(integer(&path("folder")), Err(Trouble::Failed(libc::EISDIR)));
        assert_eq!(integer(&path("nothing")), Err(Trouble::Absent));
    }
}
