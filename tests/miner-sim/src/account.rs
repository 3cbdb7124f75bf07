//! The account: one JSON line per answer, written before the answer is returned.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use racklake_schemas::clock::Clock;
use serde::Serialize;
use serde_json::Value;

use crate::fault::Fault;

/// The file that answers are written to.
pub(crate) struct Account {
    file: File,
}

/// One answer. `reply` is what a flawless reader gets out of it; it is null where the answer cannot be read in full.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    pub(crate) unit: &'a str,
    pub(crate) serial: &'a str,
    pub(crate) mac: &'a str,
    pub(crate) address: String,
    pub(crate) command: &'a str,
    pub(crate) call: u64,
    pub(crate) fault: Option<Fault>,
    pub(crate) reply: Option<&'a Value>,
}

#[derive(Serialize)]
struct Line<'a> {
    us: i64,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

impl Account {
    pub(crate) fn open(path: &Path) -> Result<Account> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("opening the account {}", path.display()))?;
        Ok(Account { file })
    }

    /// Appends one line with a single write(2), so that lines of several processes never interleave and a kill leaves
    /// none in half.
    pub(crate) fn write(&self, entry: &Entry<'_>) -> Result<()> {
        let mut line = serde_json::to_vec(&Line { us: Clock::now_us(), entry })?;
        line.push(b'\n');
        let written = (&self.file).write(&line).context("writing the account")?;
        anyhow::ensure!(written == line.len(), "the account took {written} of {} bytes", line.len());
        Ok(())
    }
}
