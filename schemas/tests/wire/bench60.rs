//! The bench generator gives what its figures are measured against.

use std::io::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int32Type, Int64Type, TimestampMicrosecondType};
use racklake_schemas::bench60::{DEVICES, Node, VALUES};
use racklake_schemas::tables::bench60::{CONSTANT_00, RATIO_0, TS};
use racklake_schemas::{ValueType, tables};

const NODES: u64 = 10;
const TICKS: usize = 600;

#[test]
fn raw_columns_take_5_80_bytes_a_value_and_0_84_with_zstd() {
    let batches = fleet(60);
    let columns = raw_columns(&batches);
    let values = (NODES as usize * DEVICES * TICKS * VALUES) as f64;
    let raw = columns.iter().map(Vec::len).sum::<usize>() as f64 / values;
    assert!((raw - 5.80).abs() < 0.005, "{raw:.3} bytes per value");
    let sizes: Vec<usize> = columns.iter().map(|column| compressed(column)).collect();
    let all = compressed(&columns.concat()) as f64 / values;
    let report: String = tables::BENCH60.columns[CONSTANT_00..]
        .iter()
        .zip(&sizes[3..])
        .map(|(column, size)| format!("{} {:.2}, ", column.name, *size as f64 / values * VALUES as f64))
        .collect();
    println!("{all:.3} bytes per value; of each column: {report}");
    assert!((all - 0.84).abs() < 0.05, "{all:.3} bytes per value; bytes per reading of each column: {report}");
}

#[test]
fn the_same_seed_gives_the_same_rows_and_another_does_not() {
    assert_eq!(Node::new(1, 2).next(3).into_wire_batch().unwrap(), Node::new(1, 2).next(3).into_wire_batch().unwrap());
    assert_ne!(Node::new(1, 2).next(3).into_wire_batch().unwrap(), Node::new(2, 2).next(3).into_wire_batch().unwrap());
}

#[test]
fn every_ratio_is_null_about_15_times_in_10_000() {
    let batches = fleet(3);
    let nulls: usize = (0..8).map(|i| batches.iter().map(|b| b.column(RATIO_0 + i).null_count()).sum::<usize>()).sum();
    let share = nulls as f64 / (8 * NODES as usize * DEVICES * TICKS) as f64;
    assert!((0.0010..0.0020).contains(&share), "{share}");
}

fn fleet(seed: u64) -> Vec<RecordBatch> {
    (0..NODES).map(|n| Node::new(seed, n).next(TICKS).into_wire_batch().unwrap()).collect()
}

/// Time, node and device as numbers, and the 60 readings, each column as it lies in memory, a null as 0.
fn raw_columns(batches: &[RecordBatch]) -> Vec<Vec<u8>> {
    let mut columns = vec![Vec::new(); 3 + VALUES];
    for (node, batch) in batches.iter().enumerate() {
        append(&mut columns[0], batch.column(TS), ValueType::Timestamp);
        for row in 0..batch.num_rows() {
            columns[1].extend((node as i32).to_le_bytes());
            columns[2].extend(((row / TICKS) as i32).to_le_bytes());
        }
        for i in 0..VALUES {
            let spec = &tables::BENCH60.columns[CONSTANT_00 + i];
            append(&mut columns[3 + i], batch.column(CONSTANT_00 + i), spec.value_type);
        }
    }
    columns
}

fn append(out: &mut Vec<u8>, array: &ArrayRef, value_type: ValueType) {
    match value_type {
        ValueType::I32 => {
            array.as_primitive::<Int32Type>().iter().for_each(|v| out.extend(v.unwrap_or(0).to_le_bytes()));
        }
        ValueType::I64 => {
            array.as_primitive::<Int64Type>().iter().for_each(|v| out.extend(v.unwrap_or(0).to_le_bytes()));
        }
        ValueType::F32 => {
            array.as_primitive::<Float32Type>().iter().for_each(|v| out.extend(v.unwrap_or(0.0).to_le_bytes()));
        }
        ValueType::Timestamp => {
            let values = array.as_primitive::<TimestampMicrosecondType>();
            values.iter().for_each(|v| out.extend(v.unwrap_or(0).to_le_bytes()));
        }
        other => panic!("no readings of type {other:?} in bench60"),
    }
}

/// Size with zstd-1 in blocks of 1 MiB.
fn compressed(bytes: &[u8]) -> usize {
    let block = |block: &[u8]| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.write_all(block).unwrap();
        encoder.finish().unwrap().len()
    };
    bytes.chunks(1 << 20).map(block).sum()
}
