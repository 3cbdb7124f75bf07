//! The account: one JSON line per answer, written before the answer is returned.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use racklake_schemas::clock::Clock;
use serde::Serialize;

use crate::fault::Fault;
use crate::makes::Transport;
use crate::profile::Profile;

/// The file that answers are written to.
pub(crate) struct Account {
    file: File,
}

/// One answer, or a connection that was turned away.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    pub(crate) unit: &'a str,
    pub(crate) profile: Profile,
    pub(crate) serial: &'a str,
    pub(crate) mac: &'a str,
    pub(crate) address: String,
    pub(crate) transport: Transport,
    /// Command or path; empty for a connection that was turned away.
    pub(crate) command: &'a str,
    pub(crate) parameter: &'a str,
    pub(crate) call: u64,
    pub(crate) fault: Option<Fault>,
    /// HTTP's; 0 elsewhere.
    pub(crate) status: u16,
    /// Connections to the unit at that moment, this one among them.
    pub(crate) connections: u32,
    /// Whether the connection was turned away because there were too many.
    pub(crate) turned_away: bool,
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
    /// none in half. `reply` is JSON: what a flawless reader gets out of the answer, `None` where it cannot be read in
    /// full.
    pub(crate) fn write(&self, entry: &Entry<'_>, reply: Option<&str>) -> Result<()> {
        let mut line = serde_json::to_vec(&Line { us: Clock::now_us(), entry })?;
        line.pop();
        line.extend_from_slice(b",\"reply\":");
        line.extend_from_slice(reply.unwrap_or("null").as_bytes());
        line.extend_from_slice(b"}\n");
        let written = (&self.file).write(&line).context("writing the account")?;
        anyhow::ensure!(written == line.len(), "the account took {written} of {} bytes", line.len());
        Ok(())
    }
}
