//! What a probe prints: JSON for programs, a table for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use racklake_schemas::catalog;
use racklake_schemas::tables::{GPU_HEALTH, GPU_SAMPLE};
use serde_json::{Map, Value, json};

use super::{Column, Gpu, Outcome, Told};

/// One object: a list of the GPUs, each with its columns by name. `us` is how long the call took.
pub(super) fn json(gpus: &[Gpu]) -> String {
    let gpu = |gpu: &Gpu| {
        let columns = named(gpu).into_iter().map(|(name, column)| {
            (name, column.map_or_else(|| Outcome::NotRead.json(None), |column| column.outcome.json(column.us)))
        });
        let columns: Map<String, Value> = columns.collect();
        json!({"device_id": gpu.device_id, "pci_bus_id": gpu.address, "status": status(gpu), "columns": columns})
    };
    json!({"gpus": gpus.iter().map(gpu).collect::<Vec<_>>()}).to_string()
}

/// A block for each GPU, a line for each column.
pub(super) fn table(gpus: &[Gpu]) -> String {
    if gpus.is_empty() {
        return "no GPU".to_owned();
    }
    let mut text = String::new();
    for gpu in gpus {
        let address = gpu.address.as_deref().unwrap_or("(tells no PCI address)");
        let id = gpu.device_id.as_deref().unwrap_or("(not identified)");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address}  {id}  {}", status(gpu));
        for (name, column) in named(gpu) {
            let us = column.and_then(|column| column.us).map_or(String::new(), |us| format!("{us} us"));
            let shown = column.map_or(&Outcome::NotRead, |column| &column.outcome).words();
            let _ = writeln!(text, "  {name:<44} {shown:>26} {us:>12}");
        }
    }
    text.trim_end().to_owned()
}

/// `fresh` where every tier was read, `lost` where the GPU says so, `stale` where it did not answer in time.
fn status(gpu: &Gpu) -> &'static str {
    match (gpu.is_lost, gpu.is_done) {
        (true, _) => "lost",
        (false, true) => "fresh",
        (false, false) => "stale",
    }
}

/// Each column of the GPU under one name: of the sample tier as it is, of the health tier with the table before it where
/// the sample tier has that name too, of a link with the link before it. Those of tiers that were not told have no column.
fn named(gpu: &Gpu) -> Vec<(String, Option<&Column>)> {
    let mut names = Vec::new();
    let mut taken = BTreeSet::new();
    for table in [&GPU_SAMPLE, &GPU_HEALTH] {
        let told = gpu.rows.iter().find(|row| row.table == table.name);
        for spec in table.columns.iter().filter(|spec| spec.bit.is_some()) {
            let column = told.and_then(|row| row.columns.iter().find(|column| column.name == spec.name));
            let is_new = taken.insert(spec.name);
            let name = if is_new { spec.name.to_owned() } else { format!("{}.{}", table.name, spec.name) };
            names.push((name, column));
        }
    }
    let rest = gpu.rows.iter().filter(|row| row.link.is_some() && catalog::table(&row.table).is_some());
    let link = |row: &Told, column: &Column| format!("link{}.{}", row.link.unwrap_or_default(), column.name);
    names.extend(rest.flat_map(|row| row.columns.iter().map(move |column| (link(row, column), Some(column)))));
    names
}
