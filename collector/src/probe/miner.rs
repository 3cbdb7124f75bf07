//! `probe miner`: one miner, read once.
//!
//! A miner that cannot be read is answered for too: its state says what was seen.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use racklake_schemas::settings;
use racklake_schemas::tables::{HASHBOARD_SAMPLE, MINER_SAMPLE, device, hashboard_sample, miner_sample};
use racklake_schemas::{Cell, Row};
use serde_json::{Map, Value, json};

use super::Outcome;
use crate::config::{Credentials, CredentialsFile, Make, MinerConfig};
use crate::miner::{Look, look};

/// Most letters of a value in a table.
const SHOWN_MAX: usize = 60;

/// What is asked about a miner.
#[derive(Debug, clap::Args)]
pub struct MinerProbe {
    /// Where it is: an IP address or a name, with the port of its cgminer API where that is not 4028.
    #[arg(value_name = "ADDRESS[:PORT]")]
    address: String,
    /// Port of its web interface, where that is not the one of its make.
    #[arg(long)]
    http_port: Option<u16>,
    /// What it is (avalon, antminer, whatsminer, ...); without it that is found out.
    #[arg(long, value_parser = make_of)]
    make: Option<Make>,
    /// A file of users and passwords, as in the config.
    #[arg(long, value_name = "FILE", requires = "credentials")]
    credentials_file: Option<PathBuf>,
    /// The name of its user and password in that file.
    #[arg(long, value_name = "NAME", requires = "credentials_file")]
    credentials: Option<String>,
    /// How long one command may take.
    #[arg(long, default_value = "5s", value_parser = settings::parse_duration)]
    timeout: Duration,
    /// JSON in place of a table.
    #[arg(long)]
    json: bool,
}

/// Reads a miner once and prints it, as JSON or as a table.
///
/// # Errors
/// When an argument cannot be used. A miner that does not answer, or refuses, is no error.
pub async fn miner(wanted: &MinerProbe) -> Result<ExitCode> {
    let credentials = credentials(wanted.credentials_file.as_ref(), wanted.credentials.as_deref())?;
    let (host, port) = host_and_port(&wanted.address)?;
    let mut miner = MinerConfig { make: wanted.make, http_port: wanted.http_port, ..MinerConfig::at(host) };
    miner.port = port.unwrap_or(miner.port);
    let seen = look(&miner, credentials.as_ref(), wanted.timeout).await;
    let text = if wanted.json { json(&seen).to_string() } else { table(&seen) };
    // Whoever reads it may have seen enough (head).
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(ExitCode::SUCCESS)
}

/// A make by its name.
///
/// # Errors
/// Names those that are read.
pub(crate) fn make_of(text: &str) -> Result<Make, String> {
    let read = || Make::ALL.into_iter().filter(|make| make.is_read());
    read().find(|make| make.name() == text).ok_or_else(|| {
        let names: Vec<&str> = read().map(Make::name).collect();
        format!("{text:?} is no make that is read; give one of {}", names.join(", "))
    })
}

/// User and password of a name in a file.
///
/// # Errors
/// When the file may not be read or does not have them; nothing that it says is in the text.
pub(crate) fn credentials(file: Option<&PathBuf>, name: Option<&str>) -> Result<Option<Credentials>> {
    let (Some(file), Some(name)) = (file, name) else { return Ok(None) };
    let found = CredentialsFile::read(file)?.get(name).cloned();
    let shown = file.display();
    found.map(Some).with_context(|| format!("{shown} has no [[credentials]] with the name {name:?}; add it there"))
}

/// Host and port of `host`, `host:port`, `[address]:port` or an IPv6 address.
fn host_and_port(text: &str) -> Result<(&str, Option<u16>)> {
    let refuse = || format!("{text:?} is no address like 10.20.0.15, 10.20.0.15:4028 or [fd00::5]:4028");
    let is_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match text.rsplit_once(':').filter(|_| !is_v6) {
        Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|port| *port > 0).with_context(refuse)?)),
        None => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        bail!(refuse());
    }
    Ok((host, port))
}

/// What a miner says of itself, for those who print it: text of the firmware may be anything, so that it is printed
/// without control characters.
pub(crate) struct Shown {
    pub(crate) device_id: Option<String>,
    pub(crate) vendor: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) firmware: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Shown {
    pub(crate) fn of(seen: &Look) -> Shown {
        let identity = seen.reading.identity.as_ref();
        let said = |column: usize| identity.and_then(|identity| text(&identity.row, column));
        let row = seen.reading.rows.first();
        Shown {
            device_id: identity.and_then(|identity| identity.device_id.as_deref()).map(plain),
            vendor: said(device::VENDOR),
            model: said(device::MODEL),
            firmware: said(device::FIRMWARE_VERSION),
            state: row.and_then(|row| text(row, miner_sample::STATE)),
            reason: row.and_then(|row| text(row, miner_sample::STATE_REASON)),
        }
    }
}

fn text(row: &Row, column: usize) -> Option<String> {
    match row.cell(column) {
        Cell::Text(text) => Some(plain(text)),
        _ => None,
    }
}

/// A text without control characters, which a terminal might obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// One object: who it is, what it does, and its columns and those of its boards by name.
fn json(seen: &Look) -> Value {
    let Shown { device_id, vendor, model, firmware, state, reason } = Shown::of(seen);
    let rows = &seen.reading.rows;
    let miner = rows.iter().find(|row| std::ptr::eq(row.table(), &MINER_SAMPLE));
    let boards: Vec<Value> =
        boards(seen).map(|row| json!({"board": board(row), "columns": columns_json(row)})).collect();
    json!({
        "address": seen.address,
        "make": seen.make.map(Make::name),
        "device_id": device_id,
        "vendor": vendor,
        "model": model,
        "firmware": firmware,
        "state": state,
        "reason": reason,
        "ms": seen.took.as_millis() as u64,
        "columns": miner.map(columns_json),
        "boards": boards,
    })
}

fn columns_json(row: &Row) -> Map<String, Value> {
    measured(row).map(|(name, outcome)| (name.to_owned(), outcome.json(None))).collect()
}

/// A block for the miner and one for each board, a line for each column.
fn table(seen: &Look) -> String {
    let shown = Shown::of(seen);
    let make = seen.make.map_or("not identified", Make::name);
    let or = |text: Option<String>, other: &str| text.unwrap_or_else(|| other.to_owned());
    let (id, took) = (or(shown.device_id, "(no serial or MAC)"), seen.took.as_millis());
    let model = [shown.vendor, shown.model].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let firmware = or(shown.firmware, "firmware unknown");
    let why = shown.reason.map_or(String::new(), |reason| format!(": {reason}"));
    let mut lines = format!("{}  {make}  {id}  {model}  {firmware}\n", seen.address);
    // Writing to a String cannot fail.
    let _ = writeln!(lines, "state {}{why}  ({took} ms)", or(shown.state, "not told"));
    for row in &seen.reading.rows {
        if std::ptr::eq(row.table(), &HASHBOARD_SAMPLE) {
            let _ = writeln!(lines, "board {}", board(row).map_or("?".to_owned(), |board| board.to_string()));
        }
        for (name, outcome) in measured(row) {
            let _ = writeln!(lines, "  {name:<48} {}", short(&plain(&outcome.words())));
        }
    }
    lines.trim_end().to_owned()
}

/// The beginning of a text that is too long for a table.
fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn boards(seen: &Look) -> impl Iterator<Item = &Row> {
    seen.reading.rows.iter().filter(|row| std::ptr::eq(row.table(), &HASHBOARD_SAMPLE))
}

fn board(row: &Row) -> Option<i64> {
    match row.cell(hashboard_sample::BOARD_INDEX) {
        Cell::I64(board) => Some(*board),
        _ => None,
    }
}

/// The columns that a read fills.
fn measured(row: &Row) -> impl Iterator<Item = (&'static str, Outcome)> {
    let columns = row.table().columns.iter().enumerate().filter(|(_, spec)| spec.bit.is_some());
    columns.map(|(column, spec)| (spec.name, Outcome::of(row, column, None)))
}

#[cfg(test)]
mod tests;
