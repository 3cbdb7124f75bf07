//! Turns catalog/*.toml into the static tables of the crate; a catalog that contradicts itself does not compile.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFile {
    table: String,
    number: u32,
    meaning: String,
    #[serde(default)]
    sample: bool,
    #[serde(default)]
    device: bool,
    #[serde(default)]
    bench: bool,
    #[serde(default)]
    sub_key: Vec<String>,
    column: Vec<ColumnEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommonFile {
    column: Vec<ColumnEntry>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct ColumnEntry {
    id: u32,
    name: String,
    r#type: String,
    #[serde(default)]
    unit: String,
    kind: String,
    class: String,
    #[serde(default = "yes")]
    nullable: bool,
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    on: Option<String>,
    #[serde(default)]
    bit: Option<u8>,
    #[serde(default)]
    min: Option<i64>,
    #[serde(default)]
    max: Option<i64>,
    since: u32,
    source: String,
    meaning: String,
}

fn yes() -> bool {
    true
}

fn main() {
    if let Err(problem) = generate() {
        panic!("catalog: {problem}");
    }
}

fn generate() -> Result<(), String> {
    println!("cargo::rerun-if-changed=catalog");
    println!("cargo::rerun-if-changed=build.rs");
    let common: CommonFile = read(Path::new("catalog/common.toml"))?;
    let mut tables = BTreeMap::new();
    let mut paths: Vec<PathBuf> = std::fs::read_dir("catalog")
        .map_err(|e| e.to_string())?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "toml") && !p.ends_with("common.toml"))
        .collect();
    paths.sort();
    for path in paths {
        let file: TableFile = read(&path)?;
        if path.file_stem().and_then(|s| s.to_str()) != Some(&file.table) {
            return Err(format!("{}: the file is not named after its table", path.display()));
        }
        if let Some(other) = tables.insert(file.number, file) {
            return Err(format!("{}: table number {} is taken", path.display(), other.number));
        }
    }
    let mut out = String::new();
    for table in tables.values() {
        write_table(&mut out, &common, table).map_err(|e| format!("{}: {e}", table.table))?;
    }
    let statics: Vec<String> = tables.values().map(|t| format!("&{}", t.table.to_uppercase())).collect();
    let _ = writeln!(
        out,
        "/// Every table of the catalog, by number.\npub static ALL: &[&Table] = &[{}];",
        statics.join(", ")
    );
    let target = Path::new(&std::env::var("OUT_DIR").map_err(|e| e.to_string())?).join("tables.rs");
    std::fs::write(target, out).map_err(|e| e.to_string())
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Bits that one mask holds, so that it stays a positive number.
const MASK_BITS: u8 = 63;

fn is_wide(table: &TableFile) -> bool {
    table.column.iter().any(|column| column.bit.is_some_and(|bit| bit >= MASK_BITS))
}

fn columns_of(common: &CommonFile, table: &TableFile) -> Vec<ColumnEntry> {
    let wanted = |column: &&ColumnEntry| match column.on.as_deref() {
        None => true,
        Some("device") => table.sample || table.device,
        Some("sample") => table.sample,
        Some("wide") => table.sample && is_wide(table),
        Some(other) => panic!("common column {}: unknown on = \"{other}\"", column.name),
    };
    common.column.iter().filter(wanted).chain(&table.column).cloned().collect()
}

fn check(columns: &[ColumnEntry], own: &[ColumnEntry]) -> Result<(), String> {
    for (i, column) in columns.iter().enumerate() {
        for other in &columns[..i] {
            if other.id == column.id || other.name == column.name {
                return Err(format!("columns {} and {} share an id or a name", other.name, column.name));
            }
            if column.bit.is_some() && other.bit == column.bit {
                return Err(format!("columns {} and {} share bit {:?}", other.name, column.name, column.bit));
            }
        }
        if column.bit.is_some_and(|bit| bit >= 2 * MASK_BITS) {
            return Err(format!("column {}: bits past {} need a third pair of masks", column.name, 2 * MASK_BITS - 1));
        }
    }
    match own.iter().find(|column| column.id < 32) {
        Some(column) => Err(format!("column {}: ids 1-31 are kept for common.toml", column.name)),
        None => Ok(()),
    }
}

fn write_table(out: &mut String, common: &CommonFile, table: &TableFile) -> Result<(), String> {
    let columns = columns_of(common, table);
    check(&columns, &table.column)?;
    let index = |name: &str| columns.iter().position(|c| c.name == name).ok_or_else(|| format!("no column {name}"));
    let mut sort_key = vec![index("device_id")?];
    for name in &table.sub_key {
        sort_key.push(index(name)?);
    }
    sort_key.push(index("ts")?);
    let upper = table.table.to_uppercase();
    let _ = writeln!(
        out,
        "/// {meaning}\npub static {upper}: Table = Table {{ name: {name:?}, number: {number}, meaning: {meaning:?}, \
         sort_key: &{sort_key:?}, is_sample: {sample}, is_wide: {wide}, bench: {bench}, columns: &[",
        meaning = table.meaning,
        name = table.table,
        number = table.number,
        sample = table.sample,
        wide = is_wide(table),
        bench = table.bench,
    );
    for column in &columns {
        write_column(out, column)?;
    }
    let _ = writeln!(out, "] }};\n/// Indexes into the columns of [`{upper}`].\npub mod {} {{", table.table);
    for (i, column) in columns.iter().enumerate() {
        let _ = writeln!(out, "/// {}\npub const {}: usize = {i};", column.meaning, column.name.to_uppercase());
    }
    let _ = writeln!(out, "}}");
    Ok(())
}

fn write_column(out: &mut String, c: &ColumnEntry) -> Result<(), String> {
    let variant = |what: &str, value: &str, known: &[(&str, &'static str)]| {
        let found = known.iter().find(|(name, _)| *name == value).map(|(_, variant)| *variant);
        found.ok_or_else(|| format!("column {}: unknown {what} {value:?}", c.name))
    };
    let value_type = variant(
        "type",
        &c.r#type,
        &[
            ("i8", "I8"),
            ("i32", "I32"),
            ("i64", "I64"),
            ("f32", "F32"),
            ("f64", "F64"),
            ("string", "Text"),
            ("timestamp", "Timestamp"),
            ("list_i32", "ListI32"),
        ],
    )?;
    let kind = variant(
        "kind",
        &c.kind,
        &[
            ("identity", "Identity"),
            ("gauge", "Gauge"),
            ("counter", "Counter"),
            ("state", "State"),
            ("bitmask", "Bitmask"),
            ("text", "Text"),
        ],
    )?;
    let class = variant(
        "class",
        &c.class,
        &[
            ("time", "Time"),
            ("key", "Key"),
            ("noisy", "Noisy"),
            ("counter", "Counter"),
            ("temperature", "Temperature"),
            ("clock", "Clock"),
            ("utilization", "Utilization"),
            ("mask", "Mask"),
            ("slow", "Slow"),
            ("constant", "Constant"),
            ("ratio", "Ratio"),
            ("text", "Text"),
            ("list", "List"),
        ],
    )?;
    let origin = variant(
        "origin",
        c.origin.as_deref().unwrap_or("column"),
        &[("column", "Column"), ("frame", "FrameHeader"), ("ingest", "Ingest")],
    )?;
    let _ = writeln!(
        out,
        "Column {{ id: {}, name: {:?}, value_type: ValueType::{value_type}, unit: {:?}, kind: Kind::{kind}, \
         class: Class::{class}, bit: {:?}, nullable: {}, origin: Origin::{origin}, min: {:?}, max: {:?}, \
         since: {}, source: {:?}, meaning: {:?} }},",
        c.id, c.name, c.unit, c.bit, c.nullable, c.min, c.max, c.since, c.source, c.meaning,
    );
    Ok(())
}
