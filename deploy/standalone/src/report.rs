//! What the demo prints at its end: rows per table, bytes per value, the hottest device, joules per terahash, and queries
//! to try.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, Int32Type, Int64Type};
use racklake_schemas::tables::{self, gpu_sample, miner_sample};
use racklake_schemas::{Table, catalog};
use racklake_storage::Lake;

/// Hashrates that the efficiency is taken from, the first that a miner tells.
const RATES: [usize; 5] = [
    miner_sample::HASHRATE_1M_HASHES_PER_SECOND,
    miner_sample::HASHRATE_5M_HASHES_PER_SECOND,
    miner_sample::HASHRATE_5S_HASHES_PER_SECOND,
    miner_sample::HASHRATE_HASHES_PER_SECOND,
    miner_sample::HASHRATE_AVERAGE_HASHES_PER_SECOND,
];

/// Rows of all tables that are committed now; 0 where the lake cannot be read.
pub(crate) async fn rows(lake: &Lake) -> u64 {
    let lake = lake.clone();
    let counting = tokio::task::spawn_blocking(move || {
        let tables = tables::ALL.iter().filter(|table| !table.bench);
        tables.filter_map(|table| lake.table(table).ok()?.contents().ok()).map(|contents| contents.rows).sum()
    });
    counting.await.unwrap_or(0)
}

/// Prints the report.
pub(crate) async fn print(lake: &Lake, folder: &Path) -> Result<()> {
    let lake = lake.clone();
    let text = tokio::task::spawn_blocking(move || summary(&lake)).await.context("reading the lake")??;
    println!("\n{text}\nQueries for DuckDB (pip install duckdb duckdb-extension-delta; INSTALL delta; LOAD delta):\n");
    println!("{}", queries(folder));
    Ok(())
}

fn summary(lake: &Lake) -> Result<String> {
    let mut text = format!("{:<18} {:>8} {:>6} {:>12} {:>12}\n", "table", "rows", "files", "bytes", "bytes/value");
    for table in tables::ALL.iter().copied().filter(|table| !table.bench) {
        let opened = lake.table(table)?;
        let contents = opened.contents()?;
        let values = opened.read()?.iter().map(values).sum::<u64>();
        let per_value =
            if values == 0 { "-".to_owned() } else { format!("{:.2}", contents.bytes as f64 / values as f64) };
        text.push_str(&format!(
            "{:<18} {:>8} {:>6} {:>12} {per_value:>12}\n",
            table.name, contents.rows, contents.files, contents.bytes
        ));
    }
    let sensors = [
        (&tables::GPU_SAMPLE, gpu_sample::GPU_TEMP_CELSIUS, gpu_sample::DEVICE_ID),
        (&tables::MINER_SAMPLE, miner_sample::CHIP_TEMP_MAX_CELSIUS, miner_sample::DEVICE_ID),
    ];
    for (table, column, device) in sensors {
        if let Some((celsius, id)) = hottest(&lake.table(table)?.read()?, table, column, device) {
            text.push_str(&format!("\nhottest in {}: {id} at {celsius} °C", table.name));
        }
    }
    text.push('\n');
    for (device, joules) in efficiencies(&lake.table(&tables::MINER_SAMPLE)?.read()?) {
        text.push_str(&format!("\n{device}: {joules:.1} joules per terahash"));
    }
    text.push('\n');
    Ok(text)
}

/// Miner -> joules per terahash, as `docs/queries/j_per_th.sql` has them, over all samples of miners that mined.
fn efficiencies(batches: &[RecordBatch]) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for batch in batches {
        let name = |index: usize| tables::MINER_SAMPLE.columns[index].name;
        let texts = |index: usize| batch.column_by_name(name(index))?.as_string_opt::<i32>();
        let (Some(ids), Some(states)) = (texts(miner_sample::DEVICE_ID), texts(miner_sample::STATE)) else { continue };
        for row in (0..batch.num_rows()).filter(|row| states.is_valid(*row) && states.value(*row) == "mining") {
            let power = [miner_sample::POWER_MILLIWATTS, miner_sample::POWER_ESTIMATED_MILLIWATTS];
            let milliwatts = power.into_iter().find_map(|column| cell::<Int32Type>(batch, name(column), row));
            let rate = RATES.into_iter().find_map(|column| cell::<Int64Type>(batch, name(column), row));
            let (Some(milliwatts @ 1..), Some(rate @ 1..)) = (milliwatts, rate) else { continue };
            let sum = sums.entry(ids.value(row).to_owned()).or_default();
            *sum = (sum.0 + f64::from(milliwatts), sum.1 + rate as f64);
        }
    }
    sums.into_iter().map(|(id, (milliwatts, rate))| (id, milliwatts * 1e9 / rate)).collect()
}

/// The value of a row; `None` where it is null or the column is not there.
fn cell<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str, row: usize) -> Option<T::Native> {
    let values = batch.column_by_name(name)?.as_primitive_opt::<T>()?;
    values.is_valid(row).then(|| values.value(row))
}

/// Present values of a batch, keys included.
fn values(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(|column| (column.len() - column.null_count()) as u64).sum()
}

fn hottest(batches: &[RecordBatch], table: &Table, column: usize, device: usize) -> Option<(i32, String)> {
    let name = |index: usize| table.columns[index].name;
    let of_batch = |batch: &RecordBatch| {
        let temps = batch.column_by_name(name(column))?.as_primitive_opt::<Int32Type>()?.clone();
        let ids = batch.column_by_name(name(device))?.as_string_opt::<i32>()?.clone();
        let row = (0..temps.len()).filter(|row| temps.is_valid(*row)).max_by_key(|row| temps.value(*row))?;
        Some((temps.value(row), ids.value(row).to_owned()))
    };
    batches.iter().filter_map(of_batch).max()
}

/// Questions to a lake in DuckDB's SQL.
fn queries(folder: &Path) -> String {
    let table = |name: &str| {
        debug_assert!(catalog::table(name).is_some());
        format!("delta_scan('{}')", folder.join(name).display())
    };
    format!(
        "-- which GPUs run hotter for the power they draw? a rising ratio is a cooling fault\n\
         SELECT device_id, round(avg(gpu_temp_celsius / (power_milliwatts / 1000.0)), 4) AS celsius_per_watt\n\
         FROM {gpu} GROUP BY device_id ORDER BY 2 DESC LIMIT 5;\n\n\
         -- and docs/queries/j_per_th.sql: how many joules each miner uses per terahash, per hour\n\n\
         -- what happened?\n\
         SELECT ts, node, event, message FROM {event} ORDER BY ts LIMIT 20;",
        gpu = table("gpu_sample"),
        event = table("event"),
    )
}
