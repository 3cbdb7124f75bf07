//! Any rows of any table come back from the wire bit for bit, in the place where they are added.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, TimestampMicrosecondType};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use racklake_schemas::wire::{self, FrameHeader};
use racklake_schemas::{Cell, Column, Origin, Row, Rows, Table, ValueType, tables};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn rows_come_back_as_they_were(rows in any_rows(), seq in 1..=i64::MAX, received_at: i64) {
        let table = rows[0].table();
        let header = header(table, seq);
        let frame = frame(&header, &rows);
        let mut received = Rows::new(table);
        for place in [0..rows.len(), rows.len()..2 * rows.len()] {
            let found = wire::decode(&frame, received_at, |_| &mut received).unwrap();
            prop_assert_eq!(&found.header, &header);
            prop_assert_eq!(found.rows, place);
            prop_assert_eq!(found.unknown_columns, Vec::<u32>::new());
        }
        let batch = received.into_batch().unwrap();
        for (i, spec) in table.columns.iter().enumerate() {
            for r in 0..batch.num_rows() {
                let sent = &rows[r % rows.len()];
                let expected = match spec.name {
                    "received_at" => Cell::I64(received_at),
                    "node" => Cell::Text(header.node.clone()),
                    "stream_id" => Cell::Text(header.stream_id.clone()),
                    "seq" => Cell::I64(seq),
                    "frame_rows" => Cell::I64(rows.len() as i64),
                    _ => sent_cell(sent, i),
                };
                let found = cell_at(spec, batch.column(i), r);
                prop_assert!(same(&found, &expected), "{} row {r}: {found:?}, not {expected:?}", spec.name);
            }
        }
        let again = wire::encode(&header, &batch.slice(rows.len(), rows.len()));
        prop_assert!(again == frame, "what was decoded encodes to other bytes");
    }
}

pub(crate) fn header(table: &'static Table, seq: i64) -> FrameHeader {
    FrameHeader { table, stream_id: "0123456789abcdef0123456789abcdef".into(), seq, node: "node-7".into() }
}

pub(crate) fn frame(header: &FrameHeader, rows: &[Row]) -> Vec<u8> {
    wire::encode(header, &wire_batch(header.table, rows))
}

fn wire_batch(table: &'static Table, rows: &[Row]) -> RecordBatch {
    let mut all = Rows::new(table);
    rows.iter().cloned().for_each(|row| all.push(row));
    all.into_wire_batch().unwrap()
}

/// Rows of any table.
pub(crate) fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    (proptest::sample::select(tables::ALL), 1usize..24).prop_flat_map(|(table, len)| {
        let columns: Vec<_> = table.columns.iter().map(|spec| any_column(spec, len)).collect();
        let failures = vec(option::of((0..table.columns.len(), any::<i32>())), len);
        (columns, failures, vec(any::<i8>(), len)).prop_map(move |(columns, failures, statuses)| {
            let row = |r: usize| {
                let mut row = Row::new(table);
                columns.iter().enumerate().for_each(|(i, cells)| row.set(i, cells[r].clone()));
                match failures[r] {
                    Some((i, code)) if table.columns[i].bit.is_some() && code % 2 == 0 => row.fail(i, code),
                    Some((i, _)) if table.columns[i].bit.is_some() => row.unsupported(i),
                    _ => row.set_status(statuses[r]),
                }
                row
            };
            (0..len).map(row).collect()
        })
    })
}

/// The cells of one column: all of one value, of any values, or absent.
fn any_column(spec: &'static Column, len: usize) -> BoxedStrategy<Vec<Cell>> {
    if spec.name == "site" {
        return vec(Just(Cell::from("hall-2")), len).boxed();
    }
    let value = any_value(spec.value_type);
    let constant = value.clone().prop_map(move |cell| vec![cell; len]);
    if !spec.nullable {
        return prop_oneof![constant, vec(value, len)].boxed();
    }
    let gaps = vec(prop_oneof![value.clone(), Just(Cell::Null)], len);
    prop_oneof![constant, vec(value, len), gaps, Just(vec![Cell::Null; len])].boxed()
}

fn any_value(value_type: ValueType) -> BoxedStrategy<Cell> {
    let ints =
        |low: i64, high: i64| prop_oneof![Just(low), Just(high), -2i64..3, low..=high].prop_map(Cell::I64).boxed();
    match value_type {
        ValueType::I8 => ints(i64::from(i8::MIN), i64::from(i8::MAX)),
        ValueType::I32 => ints(i64::from(i32::MIN), i64::from(i32::MAX)),
        ValueType::I64 | ValueType::Timestamp => ints(i64::MIN, i64::MAX),
        // Any bits: infinities, both zeros, and NaNs with their payload.
        ValueType::F32 => any::<u32>().prop_map(|bits| Cell::F32(f32::from_bits(bits))).boxed(),
        ValueType::F64 => any::<u64>().prop_map(|bits| Cell::F64(f64::from_bits(bits))).boxed(),
        ValueType::Text => prop_oneof!["", "[ab]", "\\PC{0,12}"].prop_map(Cell::Text).boxed(),
        ValueType::ListI32 => vec(option::of(prop_oneof![any::<i32>(), 60..64]), 0..6).prop_map(Cell::List).boxed(),
    }
}

/// The cell as it travels: a sample's row fills in its status, code and masks.
fn sent_cell(row: &Row, i: usize) -> Cell {
    match row.table().columns[i].name {
        "row_status" if row.table().is_sample => row.status().into(),
        "fail_code" if row.table().is_sample => row.fail_code().into(),
        "unsupported_mask" if row.table().is_sample => row.unsupported_mask().into(),
        "failed_mask" if row.table().is_sample => row.failed_mask().into(),
        "unsupported_mask_2" => row.unsupported_bits().masks()[1].into(),
        "failed_mask_2" => row.failed_bits().masks()[1].into(),
        _ => row.cell(i).clone(),
    }
}

fn cell_at(spec: &Column, array: &ArrayRef, r: usize) -> Cell {
    if array.is_null(r) {
        return Cell::Null;
    }
    match spec.value_type {
        ValueType::I8 => array.as_primitive::<Int8Type>().value(r).into(),
        ValueType::I32 => array.as_primitive::<Int32Type>().value(r).into(),
        ValueType::I64 => array.as_primitive::<Int64Type>().value(r).into(),
        ValueType::Timestamp => array.as_primitive::<TimestampMicrosecondType>().value(r).into(),
        ValueType::F32 => array.as_primitive::<Float32Type>().value(r).into(),
        ValueType::F64 => array.as_primitive::<Float64Type>().value(r).into(),
        ValueType::Text => array.as_string::<i32>().value(r).into(),
        ValueType::ListI32 => Cell::List(array.as_list::<i32>().value(r).as_primitive::<Int32Type>().iter().collect()),
    }
}

/// Equality bit for bit, which tells one NaN from another and -0.0 from 0.0.
fn same(a: &Cell, b: &Cell) -> bool {
    match (a, b) {
        (Cell::F32(a), Cell::F32(b)) => a.to_bits() == b.to_bits(),
        (Cell::F64(a), Cell::F64(b)) => a.to_bits() == b.to_bits(),
        _ => a == b,
    }
}

/// Columns of a table that travel.
pub(crate) fn travelling(table: &'static Table) -> Vec<&'static Column> {
    table.columns.iter().filter(|column| column.origin == Origin::Column).collect()
}
