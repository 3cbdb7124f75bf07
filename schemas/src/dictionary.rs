//! The catalog as rows: content of the lake's `field_dictionary` table.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;

use crate::catalog::{Column, Table, ValueType};
use crate::tables;

/// One row per column of every table: `table, column, id, type, unit, kind, bit, nullable, min, max, since, source,
/// meaning`.
///
/// # Errors
/// Never for a catalog that compiles; Arrow's signature says that it could.
pub fn batch() -> Result<RecordBatch, ArrowError> {
    let rows: Vec<(&Table, &Column)> = tables::ALL
        .iter()
        .filter(|table| !table.bench)
        .flat_map(|table| table.columns.iter().map(move |column| (*table, column)))
        .collect();
    let text = |f: fn(&(&Table, &Column)) -> &'static str| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(f(row))).collect::<StringArray>())
    };
    let long = |f: fn(&Column) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, column)| f(column)).collect::<Int64Array>())
    };
    let int = |f: fn(&Column) -> Option<i32>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, column)| f(column)).collect::<Int32Array>())
    };
    let nullable: ArrayRef = Arc::new(rows.iter().map(|(_, c)| Some(c.nullable)).collect::<BooleanArray>());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("table", text(|(table, _)| table.name)),
        ("column", text(|(_, column)| column.name)),
        ("id", int(|column| Some(column.id as i32))),
        ("type", text(|(_, column)| type_name(column.value_type))),
        ("unit", text(|(_, column)| column.unit)),
        ("kind", text(|(_, column)| kind_name(column))),
        ("bit", int(|column| column.bit.map(i32::from))),
        ("nullable", nullable),
        ("min", long(|column| column.min)),
        ("max", long(|column| column.max)),
        ("since", int(|column| Some(column.since as i32))),
        ("source", text(|(_, column)| column.source)),
        ("meaning", text(|(_, column)| column.meaning)),
    ];
    let field = |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone() as DataType, true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect())
}

/// The type as people and `frame.proto` name it.
pub fn type_name(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::I8 => "i8",
        ValueType::I32 => "i32",
        ValueType::I64 => "i64",
        ValueType::F32 => "f32",
        ValueType::F64 => "f64",
        ValueType::Text => "string",
        ValueType::Timestamp => "timestamp",
        ValueType::ListI32 => "list<i32>",
    }
}

/// The kind, lower case.
pub(crate) fn kind_name(column: &Column) -> &'static str {
    use crate::catalog::Kind;
    match column.kind {
        Kind::Identity => "identity",
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::State => "state",
        Kind::Bitmask => "bitmask",
        Kind::Text => "text",
    }
}
