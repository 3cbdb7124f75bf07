//! The account: every answer of the library, one JSON line each, written before the answer is given.
//!
//! A line is one write(2) to a file opened for appending: lines of several copies of the library do not mix, and a
//! process that is killed leaves whole lines only. Waiting for an event that does not come is no answer and not told.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use racklake_schemas::clock::Clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// When, µs UTC.
    pub us: i64,
    /// UUID of the device; none for a call about the system.
    pub device: Option<String>,
    /// The function as in nvml.h, or `field:<id>:<scope>`.
    pub call: String,
    /// The call's number where it has one: clock type, sensor, fan, index.
    pub arg: Option<i64>,
    /// Number of the call in this copy of the library, from 1.
    pub n: u64,
    /// Thread that asked.
    pub thread: i64,
    /// The return code.
    pub rc: u32,
    /// The value; null where there is none.
    pub value: Value,
}

/// Reads an account.
///
/// # Errors
/// When the file cannot be read, or a line is no answer.
pub fn read_account(path: &Path) -> io::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for (i, line) in BufReader::new(File::open(path)?).lines().enumerate() {
        let answer = serde_json::from_str(&line?).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}:{}: {error}", path.display(), i + 1))
        })?;
        answers.push(answer);
    }
    Ok(answers)
}

/// Where answers are written.
#[derive(Debug, Default)]
pub(crate) struct Account {
    file: Option<File>,
    calls: u64,
}

impl Account {
    /// Writes to that file from now on, or nowhere.
    pub(crate) fn open(&mut self, path: Option<&Path>) -> io::Result<()> {
        self.file = None;
        if let Some(path) = path {
            self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        Ok(())
    }

    /// Tells one answer.
    pub(crate) fn tell(
        &mut self,
        device: Option<&str>,
        call: &str,
        arg: Option<i64>,
        rc: u32,
        value: Value,
    ) -> io::Result<()> {
        self.calls += 1;
        let Some(file) = &mut self.file else { return Ok(()) };
        let answer = Answer {
            us: Clock::now_us(),
            device: device.map(str::to_owned),
            call: call.to_owned(),
            arg,
            n: self.calls,
            thread: thread_id(),
            rc,
            value,
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        let written = file.write(&line)?;
        if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

#[allow(unsafe_code, reason = "libc's gettid has no safe form")]
fn thread_id() -> i64 {
    // SAFETY: gettid takes nothing and cannot fail.
    i64::from(unsafe { libc::gettid() })
}
