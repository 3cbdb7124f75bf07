//! `probe`: one read of a device, answered for in time even where it hangs.
//!
//! `probe gpu` reads every GPU, `probe miner` one miner (`probe/miner.rs`). The reads of GPUs are made by a process apart
//! (`nvml/probe.rs`), which tells what it has line by line; what it has not told when the time is over was not read. A
//! process that hangs in the driver is told to end and not waited for.

mod miner;
mod shown;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use racklake_schemas::{Cell, Row, fail_code, row_status};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::nvml::terminate;

pub use miner::{MinerProbe, miner};
pub(crate) use miner::{Shown, credentials};

/// How long NVML may take to be loaded: where no driver keeps the GPUs awake, they are woken then.
const LOAD_MAX: Duration = Duration::from_secs(10);
/// How long the GPUs may take then: two deadlines of a read, less the time to start and to print.
const READ_MAX: Duration = Duration::from_millis(1800);

/// What the reading process tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// Nothing can be read.
    Error { message: String },
    /// How many GPUs there are.
    Gpus { count: usize },
    /// A GPU is divided into so many MIG instances, each told as a GPU of its own.
    Instances { count: usize },
    /// A GPU has told its address.
    Found { index: usize, address: String },
    /// A GPU tells none.
    Refused { index: usize, reason: String },
    /// A GPU has told who it is.
    Named { index: usize, device_id: Option<String> },
    /// A row was read.
    Read { index: usize, table: String, link: Option<u32>, status: i8, columns: Vec<Column> },
    /// All of a GPU was read.
    Done { index: usize },
}

/// A column as it was read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// How long its call took; columns of one call took it together.
    pub(crate) us: Option<u64>,
    pub(crate) outcome: Outcome,
}

/// What became of a column.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Value(Value),
    Unsupported(Option<i32>),
    Failed(Option<i32>),
    NotRead,
}

impl Outcome {
    /// What a row says of a column. `code` is the column's own, where it is known; without it that of the row is the best
    /// there is for a failed one.
    pub(crate) fn of(row: &Row, column: usize, code: Option<i32>) -> Outcome {
        match row.cell(column) {
            Cell::Null if row.has_failed(column) => Outcome::Failed(code.or(row.fail_code())),
            Cell::Null if row.is_unsupported(column) => Outcome::Unsupported(code),
            Cell::Null => Outcome::NotRead,
            Cell::I64(value) => Outcome::Value((*value).into()),
            Cell::F32(value) => Outcome::Value(f64::from(*value).into()),
            Cell::F64(value) => Outcome::Value((*value).into()),
            Cell::Text(text) => Outcome::Value(text.as_str().into()),
            Cell::List(items) => Outcome::Value(items.clone().into()),
        }
    }

    /// The column of a JSON answer; `us` is how long its call took, where it had one of its own.
    fn json(&self, us: Option<u64>) -> Value {
        match self {
            Outcome::Value(value) => match us {
                Some(us) => json!({"value": value, "us": us}),
                None => json!({"value": value}),
            },
            Outcome::Unsupported(code) => json!({"null": "unsupported", "code": code}),
            Outcome::Failed(code) => json!({"null": "failed", "code": code}),
            Outcome::NotRead => json!({"null": "not_read", "code": null}),
        }
    }

    /// The column of a table.
    fn words(&self) -> String {
        let reason = |word: &str, code: &Option<i32>| match code.map(|code| (code, fail_code::name(code))) {
            Some((_, Some(name))) => format!("{word}: {name}"),
            Some((code, None)) => format!("{word}, code {code}"),
            None => word.to_owned(),
        };
        match self {
            Outcome::Value(Value::String(text)) => text.clone(),
            Outcome::Value(value) => value.to_string(),
            Outcome::Unsupported(code) => reason("unsupported", code),
            Outcome::Failed(code) => reason("failed", code),
            Outcome::NotRead => "not read".to_owned(),
        }
    }
}

/// A GPU as far as it was read.
#[derive(Debug, Default)]
struct Gpu {
    device_id: Option<String>,
    address: Option<String>,
    is_done: bool,
    is_lost: bool,
    rows: Vec<Told>,
}

/// A row that was told.
#[derive(Debug)]
struct Told {
    table: String,
    link: Option<u32>,
    columns: Vec<Column>,
}

/// Reads every GPU once and prints it: as JSON, or as a table. The answer comes within two deadlines of a read once the
/// library is loaded.
pub fn gpus(library: &str, root: &Path, json: bool) -> ExitCode {
    match read(library, root) {
        Ok(gpus) => {
            let text = if json { shown::json(&gpus) } else { shown::table(&gpus) };
            // Whoever reads it may have seen enough (head).
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("racklake-collector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read(library: &str, root: &Path) -> Result<Vec<Gpu>> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.args(["gpu-probe", "--library", library, "--root"]).arg(root);
    // One that cannot end must hold nothing that whoever called waits for.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reader = command.spawn().context("starting the process that reads")?;
    let lines = listen(&mut reader)?;
    let gpus = gather(&lines);
    terminate(reader.id());
    gpus
}

/// The lines of the process, as they come.
fn listen(reader: &mut Child) -> Result<Receiver<Line>> {
    let output = reader.stdout.take().context("the process that reads has no output")?;
    let (sender, lines) = channel();
    let spawned = std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        for line in lines.filter_map(|line| serde_json::from_str::<Line>(&line).ok()) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    spawned.context("starting a thread")?;
    Ok(lines)
}

/// Takes lines until every GPU is done or the time is over.
fn gather(lines: &Receiver<Line>) -> Result<Vec<Gpu>> {
    let mut until = Instant::now() + LOAD_MAX;
    let mut count = None;
    let mut gpus: BTreeMap<usize, Gpu> = BTreeMap::new();
    while count.is_none_or(|count| gpus.values().filter(|gpu| gpu.is_done).count() < count) {
        let Ok(line) = lines.recv_timeout(until.saturating_duration_since(Instant::now())) else { break };
        match line {
            Line::Error { message } => anyhow::bail!(message),
            Line::Gpus { count: told } => {
                count = Some(told);
                until = Instant::now() + READ_MAX;
            }
            Line::Instances { count: told } => count = count.map(|count| count + told),
            Line::Found { index, address } => gpus.entry(index).or_default().address = Some(address),
            Line::Named { index, device_id } => gpus.entry(index).or_default().device_id = device_id,
            Line::Refused { index, .. } => {
                let gpu = gpus.entry(index).or_default();
                (gpu.is_lost, gpu.is_done) = (true, true);
            }
            Line::Read { index, table, link, status, columns } => {
                let gpu = gpus.entry(index).or_default();
                gpu.is_lost |= matches!(status, row_status::LOST | row_status::UNREACHABLE);
                gpu.rows.push(Told { table, link, columns });
            }
            Line::Done { index } => gpus.entry(index).or_default().is_done = true,
        }
    }
    let seconds = LOAD_MAX.as_secs();
    let count = count.with_context(|| format!("NVML was not loaded within {seconds} s: its driver does not answer"))?;
    let mut gpus: Vec<Gpu> = gpus.into_values().collect();
    // Those that have not even told their address.
    gpus.resize_with(count.max(gpus.len()), Gpu::default);
    Ok(gpus)
}
