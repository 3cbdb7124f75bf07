//! Messages written by each released version still decode to the values that were put in, and no column that was ever
//! released has been renamed, renumbered or removed.

use std::fmt::Write as _;
use std::path::Path;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use racklake_schemas::dictionary::type_name;
use racklake_schemas::wire::{self, FrameHeader};
use racklake_schemas::{Cell, Column, Origin, Row, Rows, Table, ValueType, catalog, tables};
use serde_json::{Value, json};

use crate::{blessing, file};

/// Where the goldens of each catalog version are; those of the last one may be written anew until it is released.
const VERSIONS: [&str; 3] = ["schemas/testdata/v1", "schemas/testdata/v2", "schemas/testdata/v3"];
const ROWS: usize = 7;

#[test]
fn golden_messages_decode_to_the_values_that_were_put_in() {
    if blessing() {
        tables::ALL.iter().filter(|table| !table.bench).for_each(|table| write_missing(table));
    }
    for table in tables::ALL.iter().filter(|table| !table.bench) {
        let paths = VERSIONS.map(|version| file(version).join(format!("{}.bin", table.name)));
        assert!(paths[VERSIONS.len() - 1].exists(), "{} has no golden; RACKLAKE_BLESS=1 writes it", table.name);
        paths.iter().filter(|path| path.exists()).for_each(|path| check(table, path));
    }
}

fn check(table: &'static Table, path: &Path) {
    let message = std::fs::read(path).unwrap();
    let expected: Value = serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).expect("JSON");
    let mut rows = Rows::new(table);
    let received = wire::decode(&message, 99, |_| &mut rows).unwrap();
    assert_eq!(expected["table"], received.header.table.name);
    assert_eq!(expected["catalog_version"], received.catalog_version);
    assert_eq!(expected["stream_id"], received.header.stream_id);
    assert_eq!(expected["seq"], received.header.seq);
    assert_eq!(expected["node"], received.header.node);
    assert_eq!(expected["rows"], received.rows.len());
    assert_eq!(received.unknown_columns, [0u32; 0]);
    let batch = rows.into_batch().unwrap();
    for (spec, array) in table.columns.iter().zip(batch.columns()) {
        let found = match spec.origin {
            Origin::Column => values_of(spec, array),
            _ => continue,
        };
        // A column that came later than the message is null in it.
        let expected = expected["columns"].get(spec.name).cloned().unwrap_or(json!(vec![Value::Null; ROWS]));
        // As text, which tells -0.0 from 0.0.
        assert_eq!(found.to_string(), expected.to_string(), "{}.{}", table.name, spec.name);
    }
    assert_eq!(values_of(&table.columns[tables::event::RECEIVED_AT], batch.column(1)), json!(vec![99; ROWS]));
    assert_eq!(batch.column(tables::event::NODE).as_string::<i32>().value(ROWS - 1), received.header.node);
    assert_eq!(batch.column(tables::event::SEQ).as_primitive::<Int64Type>().value(0), received.header.seq);
}

#[test]
fn no_table_or_column_that_was_released_has_changed() {
    let now = listing();
    for version in VERSIONS {
        let path = file(version).join("catalog.txt");
        if blessing() && !path.exists() {
            std::fs::write(&path, &now).unwrap();
        }
        let released = std::fs::read_to_string(&path).unwrap();
        let gone: Vec<&str> = released.lines().filter(|line| !now.lines().any(|other| other == *line)).collect();
        assert!(gone.is_empty(), "in {version} and no longer so in the catalog: {gone:#?}");
        assert!(released.lines().count() > 200, "the listing of {version} is not complete");
    }
}

/// What may never change: a line per table and column.
fn listing() -> String {
    let mut out = String::new();
    for table in tables::ALL.iter().filter(|table| !table.bench) {
        let key: Vec<_> = table.sort_key.iter().map(|i| table.columns[*i].name).collect();
        let _ = writeln!(out, "table {} number {} sorted by {}", table.name, table.number, key.join(","));
        for column in table.columns {
            let bit = column.bit.map_or(String::new(), |bit| format!(" bit {bit}"));
            let (id, name, kind) = (column.id, column.name, type_name(column.value_type));
            let _ = writeln!(out, "{} {id} {name} {kind}{bit}", table.name);
        }
    }
    out
}

fn write_missing(table: &'static Table) {
    let path = file(VERSIONS[VERSIONS.len() - 1]).join(format!("{}.bin", table.name));
    if path.exists() {
        return;
    }
    let header = FrameHeader {
        table,
        stream_id: "00112233445566778899aabbccddeeff".into(),
        seq: 1_234_567,
        node: "node-1.rack_2".into(),
    };
    let mut rows = Rows::new(table);
    (0..ROWS).for_each(|r| rows.push(row(table, r)));
    let batch = rows.into_wire_batch().unwrap();
    std::fs::write(&path, wire::encode(&header, &batch)).unwrap();
    let columns = table.columns.iter().enumerate().filter(|(_, spec)| spec.origin == Origin::Column);
    let lines: Vec<String> = columns
        .map(|(i, spec)| {
            let cells: Vec<Value> = (0..ROWS).map(|r| value(&final_cell(table, i, r))).collect();
            format!("    {}: {}", json!(spec.name), json!(cells))
        })
        .collect();
    let text = format!(
        "{{\n  \"table\": {}, \"catalog_version\": {},\n  \"stream_id\": {}, \"seq\": {}, \"node\": {}, \"rows\": \
         {ROWS},\n  \"columns\": {{\n{}\n  }}\n}}\n",
        json!(table.name),
        catalog::CATALOG_VERSION,
        json!(header.stream_id),
        header.seq,
        json!(header.node),
        lines.join(",\n")
    );
    std::fs::write(path.with_extension("json"), text).unwrap();
}

fn row(table: &'static Table, r: usize) -> Row {
    let mut row = Row::new(table);
    for i in 0..table.columns.len() {
        match example(table, i, r) {
            Cell::Null if table.columns[i].bit.is_some() && r.is_multiple_of(2) => row.fail(i, 1000 + r as i32),
            Cell::Null if table.columns[i].bit.is_some() => row.unsupported(i),
            cell => row.set(i, cell),
        }
    }
    row
}

/// The cell as it travels: the row itself fills in its status, code and masks.
fn final_cell(table: &'static Table, i: usize, r: usize) -> Cell {
    let row = row(table, r);
    match table.columns[i].name {
        "row_status" => row.status().into(),
        "fail_code" => row.fail_code().into(),
        "unsupported_mask" if table.is_sample => row.unsupported_mask().into(),
        "failed_mask" if table.is_sample => row.failed_mask().into(),
        "unsupported_mask_2" => row.unsupported_bits().masks()[1].into(),
        "failed_mask_2" => row.failed_bits().masks()[1].into(),
        _ => row.cell(i).clone(),
    }
}

/// Values of every shape that the wire has: constant, rising, with gaps, extreme, absent.
fn example(table: &Table, i: usize, r: usize) -> Cell {
    let spec = &table.columns[i];
    let step = r as i64;
    if spec.name == "site" {
        return "dc-1".into();
    }
    if spec.nullable && (i % 11 == 10 || i % 5 == 2 && r % 3 == 1) {
        return Cell::Null;
    }
    let shape = i % 5;
    let (low, high) = match spec.value_type {
        ValueType::I8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
        ValueType::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    };
    match spec.value_type {
        ValueType::I8 | ValueType::I32 | ValueType::I64 | ValueType::Timestamp => Cell::I64(match shape {
            0 => 42,
            1 => 5 * step - 3,
            2 => [0, 0, 120, 121, -64, -65, 63][r],
            3 => [low, high, 0, -1, high, low, 1][r],
            _ => [low / 2, 7, 7, 7, high / 3, 7, 8][r],
        }),
        ValueType::F32 if shape == 0 => Cell::F32(-0.0),
        ValueType::F32 => Cell::F32([0.1, f32::MAX, f32::MIN_POSITIVE, -1.5, 1e-45, 0.0, 3.25][r]),
        ValueType::F64 if shape == 0 => Cell::F64(-0.0),
        ValueType::F64 => Cell::F64([0.1, f64::MAX, f64::MIN_POSITIVE, -1.5, 5e-324, 0.0, 88.25][r]),
        ValueType::Text => match shape {
            0 => "GPU-6cc03d0e-0000-4000-8000-000000000001".into(),
            1 => ["a", "a", "b", "", "a", "Übertemperatur ≥ 95 °C", "b"][r].into(),
            _ => ["", "{\"slot\": 3}", "", "x", "x", "line 1\nline 2", "\u{1f525}"][r].into(),
        },
        ValueType::ListI32 => Cell::List(match r {
            0 => vec![],
            1 => vec![Some(61), Some(61), None, Some(65)],
            2 => vec![None, None],
            3 => vec![Some(i32::MIN), Some(i32::MAX), Some(0)],
            _ => vec![Some(r as i32); 12],
        }),
    }
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::I64(v) => json!(v),
        Cell::F32(v) => json!(f64::from(*v)),
        Cell::F64(v) => json!(v),
        Cell::Text(text) => json!(text),
        Cell::List(items) => json!(items),
    }
}

fn values_of(spec: &Column, array: &ArrayRef) -> Value {
    match spec.value_type {
        ValueType::I8 => primitives::<Int8Type>(array, |v| json!(v)),
        ValueType::I32 => primitives::<Int32Type>(array, |v| json!(v)),
        ValueType::I64 => primitives::<Int64Type>(array, |v| json!(v)),
        ValueType::Timestamp => primitives::<TimestampMicrosecondType>(array, |v| json!(v)),
        ValueType::F32 => primitives::<Float32Type>(array, |v| json!(f64::from(v))),
        ValueType::F64 => primitives::<Float64Type>(array, |v| json!(v)),
        ValueType::Text => json!(array.as_string::<i32>().iter().collect::<Vec<_>>()),
        ValueType::ListI32 => {
            array.as_list::<i32>().iter().map(|list| list.map(|list| values_of_items(&list))).collect()
        }
    }
}

fn values_of_items(list: &ArrayRef) -> Value {
    primitives::<Int32Type>(list, |v| json!(v))
}

fn primitives<T: ArrowPrimitiveType>(array: &ArrayRef, json: impl Fn(T::Native) -> Value) -> Value {
    let values = array.as_primitive::<T>().iter();
    values.map(|v| v.map_or(Value::Null, &json)).collect()
}
