//! The catalog: every table and column that racklake knows, as static data generated from `catalog/*.toml`.
//!
//! Columns are only ever added; an id, a name, a bit and a type never change. From this one description come the
//! Arrow schema, the Parquet encodings, the columns of the wire format, the bits of the two masks, the data
//! dictionary and the `field_dictionary` table.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::tables;

/// Version of the whole catalog: the highest `since` in it. Travels in every frame.
pub const CATALOG_VERSION: u32 = 3;

/// One table: a Kafka topic, a wire table and a Delta table.
#[derive(Debug)]
pub struct Table {
    /// Name, also of the Delta table, and of the topic behind its prefix.
    pub name: &'static str,
    /// Number, never reused.
    pub number: u32,
    /// What one row is, and how often.
    pub meaning: &'static str,
    /// The columns, common ones first; a column's place here is its index everywhere in the code.
    pub columns: &'static [Column],
    /// Indexes of the columns that files are sorted by: device_id, sub-key, ts.
    pub sort_key: &'static [usize],
    /// Whether its rows are samples, with masks and a row status.
    pub is_sample: bool,
    /// Whether it has more readings than one pair of masks has bits, and so a second pair.
    pub is_wide: bool,
    /// Whether it exists for benches only.
    pub bench: bool,
}

/// One column of a table.
#[derive(Debug)]
pub struct Column {
    /// Number on the wire, never reused.
    pub id: u32,
    /// Name, unit last.
    pub name: &'static str,
    /// Type of a value.
    pub value_type: ValueType,
    /// Unit, or empty.
    pub unit: &'static str,
    /// What sort of quantity it is.
    pub kind: Kind,
    /// How its values behave over time, which decides the encoding.
    pub class: Class,
    /// Its bit in `unsupported_mask` and `failed_mask`; from 63 on that of the second pair of masks, counted on.
    pub bit: Option<u8>,
    /// Whether a value may be absent.
    pub nullable: bool,
    /// Where the value is filled in.
    pub origin: Origin,
    /// Lowest plausible reading; below it the read failed.
    pub min: Option<i64>,
    /// Highest plausible reading; above it the read failed.
    pub max: Option<i64>,
    /// Catalog version that brought it.
    pub since: u32,
    /// Which call, field id, command or setting it comes from.
    pub source: &'static str,
    /// What it says.
    pub meaning: &'static str,
}

/// Type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// 8-bit signed integer.
    I8,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// 32-bit float, only where the source is one.
    F32,
    /// 64-bit float.
    F64,
    /// UTF-8 text.
    Text,
    /// Microseconds since 1970, UTC.
    Timestamp,
    /// List of nullable 32-bit integers; position is the index of a chip.
    ListI32,
}

/// What sort of quantity a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Says which row this is.
    Identity,
    /// A level that goes up and down.
    Gauge,
    /// Only rises within one session of the device.
    Counter,
    /// One of a few values.
    State,
    /// Bits of somebody's coding.
    Bitmask,
    /// Words for a human.
    Text,
}

/// How values behave over time; decides the Parquet encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the meaning")]
pub enum Class {
    Time,
    Key,
    Noisy,
    Counter,
    Temperature,
    Clock,
    Utilization,
    Mask,
    Slow,
    Constant,
    Ratio,
    Text,
    List,
}

/// Parquet encoding of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Integers as bit-packed differences.
    DeltaBinaryPacked,
    /// Floats with their bytes transposed.
    ByteStreamSplit,
    /// A dictionary of the values and bit-packed indexes.
    Dictionary,
}

/// Where a value is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It travels as a column of the frame.
    Column,
    /// It is one value for the whole frame and travels in its header.
    FrameHeader,
    /// Ingest sets it when it decodes the frame.
    Ingest,
}

/// The table of that name.
pub fn table(name: &str) -> Option<&'static Table> {
    tables::ALL.iter().copied().find(|table| table.name == name)
}

impl Table {
    /// Index of the column of that name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The Arrow schema: all columns in catalog order.
    pub fn arrow_schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|column| Field::new(column.name, column.arrow_type(), column.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Bytes that one row takes in memory, without the texts and lists it points to.
    pub fn row_width(&self) -> usize {
        self.columns.iter().map(Column::width).sum()
    }
}

impl Column {
    /// The Arrow type of a value.
    pub fn arrow_type(&self) -> DataType {
        match self.value_type {
            ValueType::I8 => DataType::Int8,
            ValueType::I32 => DataType::Int32,
            ValueType::I64 => DataType::Int64,
            ValueType::F32 => DataType::Float32,
            ValueType::F64 => DataType::Float64,
            ValueType::Text => DataType::Utf8,
            ValueType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ValueType::ListI32 => DataType::List(list_item()),
        }
    }

    /// The Parquet encoding, by type and class of value. Measured for 60-column rows: a dictionary wins on size for
    /// utilization, bit masks and values that seldom change; deltas and transposed bytes everywhere else.
    pub fn encoding(&self) -> Encoding {
        match (self.value_type, self.class) {
            (ValueType::Text, _) => Encoding::Dictionary,
            (ValueType::F32 | ValueType::F64, _) => Encoding::ByteStreamSplit,
            (_, Class::Utilization | Class::Mask | Class::Slow) => Encoding::Dictionary,
            _ => Encoding::DeltaBinaryPacked,
        }
    }

    fn width(&self) -> usize {
        match self.value_type {
            ValueType::I8 => 1,
            ValueType::I32 | ValueType::F32 | ValueType::Text | ValueType::ListI32 => 4,
            ValueType::I64 | ValueType::F64 | ValueType::Timestamp => 8,
        }
    }
}

/// The item field of the list type.
pub(crate) fn list_item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Int32, true))
}
