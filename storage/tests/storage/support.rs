//! A lake in a temporary directory, rows for it, and a look at what lies there without the code under test.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use racklake_schemas::catalog::table;
use racklake_schemas::clock::Clock;
use racklake_schemas::{Cell, Row, Rows, Table, ValueType};
use racklake_storage::{DataFile, Lake, LakeTable, Span};
use serde_json::Value;
use tempfile::TempDir;

/// 2026-11-24 10:00:00 UTC.
pub(crate) const TEN_O_CLOCK: i64 = 1_795_514_400_000_000;
pub(crate) const SECOND: i64 = 1_000_000;

pub(crate) struct TestLake {
    directory: TempDir,
    pub(crate) lake: Lake,
}

/// A row to write: site, device, ts, received_at, seq.
#[derive(Clone, Copy)]
pub(crate) struct Reading(
    pub(crate) &'static str,
    pub(crate) &'static str,
    pub(crate) i64,
    pub(crate) i64,
    pub(crate) i64,
);

impl TestLake {
    pub(crate) fn new() -> TestLake {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().join("lake");
        let lake = Lake::open(location.to_str().unwrap(), &BTreeMap::new()).unwrap();
        TestLake { directory, lake }
    }

    pub(crate) fn table(&self, name: &str) -> LakeTable {
        self.lake.table(table(name).unwrap()).unwrap()
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join("lake").join(below)
    }

    /// The actions of every commit of a table, in order.
    pub(crate) fn log(&self, table: &str) -> Vec<Value> {
        let mut commits: Vec<PathBuf> = std::fs::read_dir(self.path(table).join("_delta_log"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
            .collect();
        commits.sort();
        let text: String = commits.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The add actions of a table, in order.
    pub(crate) fn adds(&self, table: &str) -> Vec<Value> {
        self.log(table).into_iter().filter_map(|action| action.get("add").cloned()).collect()
    }

    /// How many rows the log of a table says that it has.
    pub(crate) fn rows(&self, table: &str) -> i64 {
        let rows =
            |add: &Value| serde_json::from_str::<Value>(add["stats"].as_str().unwrap()).unwrap()["numRecords"].as_i64();
        self.adds(table).iter().map(|add| rows(add).unwrap()).sum()
    }

    /// The rows of a data file.
    pub(crate) fn read(&self, table: &str, file: &DataFile) -> RecordBatch {
        read(&self.path(table).join(file.path()))
    }
}

pub(crate) fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// A batch of a table in which every column has values of its own; where `seq` is even, what may be absent is absent
/// (but for keys, which the rows are sorted by).
pub(crate) fn batch(name: &str, readings: &[Reading]) -> RecordBatch {
    let table = table(name).unwrap();
    let mut rows = Rows::new(table);
    for reading in readings {
        rows.push(row(table, *reading));
    }
    rows.into_batch().unwrap()
}

fn row(table: &'static Table, Reading(site, device, ts, received_at, seq): Reading) -> Row {
    let mut row = Row::new(table);
    row.set_status((seq % 6) as i8);
    for (index, column) in table.columns.iter().enumerate() {
        let number = seq + index as i64;
        let is_key = table.sort_key.contains(&index) || ["device_id", "session_id"].contains(&column.name);
        if seq % 2 == 0 && column.nullable && !is_key {
            continue;
        }
        let cell = match (column.name, column.value_type) {
            ("ts", _) => Cell::I64(ts),
            ("received_at", _) => Cell::I64(received_at),
            ("seq", _) => Cell::I64(seq),
            ("site", _) => Cell::from(site),
            ("device_id", _) => Cell::from(device),
            (_, ValueType::I8) => Cell::I64(number % 100),
            (_, ValueType::I32 | ValueType::I64 | ValueType::Timestamp) => Cell::I64(number),
            (_, ValueType::F32) => Cell::F32(number as f32 / 2.0),
            (_, ValueType::F64) => Cell::F64(number as f64 / 2.0),
            (_, ValueType::Text) => Cell::Text(format!("{}-{number}", column.name)),
            (_, ValueType::ListI32) => Cell::List(vec![Some(number as i32), None]),
        };
        row.set(index, cell);
    }
    row
}

/// A reading of one device at site a, with the clocks agreeing.
pub(crate) fn reading(device: &'static str, second: i64) -> Reading {
    let ts = TEN_O_CLOCK + second * SECOND;
    Reading("a", device, ts, ts + SECOND, second + 1)
}

/// A time of the past, as files have it.
pub(crate) fn ago(age: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(Clock::now_us() as u64) - age
}

pub(crate) fn span(app_id: &str, began_at: Option<i64>, next: i64) -> Span {
    Span { app_id: app_id.to_owned(), began_at, next, domain: None }
}
