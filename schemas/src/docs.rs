//! What is derived from the catalog for people and for other languages: `docs/data-dictionary.md` and
//! `proto/frame.proto`. A test fails when a committed one is stale.

use std::fmt::Write as _;

use crate::catalog::{CATALOG_VERSION, Origin, Table};
use crate::dictionary::{kind_name, type_name};
use crate::tables;

/// The text of `docs/data-dictionary.md`.
pub fn data_dictionary() -> String {
    let mut out = format!(
        "# Data dictionary\n\nEvery table and column of catalog version {CATALOG_VERSION}, generated from \
         `schemas/catalog/*.toml` (`RACKLAKE_BLESS=1 cargo test -p racklake-schemas` writes it anew). The lake \
         carries the same as table `field_dictionary`.\n\nA null has a reason: bit *b* of `unsupported_mask` is set \
         where the device does not have the reading, bit *b* of `failed_mask` where its read failed; with neither, it \
         was not read this time. Bits from 63 on are those of `unsupported_mask_2` and `failed_mask_2`, less 63. Times are UTC with microseconds. Counters rise within one `session_id`.\n"
    );
    for table in tables::ALL.iter().filter(|table| !table.bench) {
        let _ = write!(out, "\n## {}\n\n{}\n\n", table.name, table.meaning);
        let key: Vec<_> = table.sort_key.iter().map(|i| format!("`{}`", table.columns[*i].name)).collect();
        let _ = write!(out, "Sorted by {}.\n\n", key.join(", "));
        out.push_str("| column | type | unit | kind | bit | plausible | since | meaning | read from |\n");
        out.push_str("|---|---|---|---|---|---|---|---|---|\n");
        for column in table.columns {
            let range = match (column.min, column.max) {
                (Some(min), Some(max)) => format!("{min} to {max}"),
                (Some(min), None) => format!("from {min}"),
                (None, Some(max)) => format!("up to {max}"),
                (None, None) => String::new(),
            };
            let bit = column.bit.map_or(String::new(), |bit| bit.to_string());
            let required = if column.nullable { "" } else { ", never null" };
            let _ = writeln!(
                out,
                "| `{}` | `{}`{required} | {} | {} | {bit} | {range} | {} | {} | {} |",
                column.name,
                type_name(column.value_type),
                column.unit,
                kind_name(column),
                column.since,
                cell(column.meaning),
                cell(column.source),
            );
        }
    }
    out
}

/// Text inside of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// The text of `proto/frame.proto`: the messages, and an enum per table that names the column ids.
pub fn frame_proto() -> String {
    let mut out = FRAME_PROTO.to_owned();
    for table in tables::ALL.iter().filter(|table| !table.bench) {
        write_enum(&mut out, table);
    }
    out
}

fn write_enum(out: &mut String, table: &Table) {
    let camel: String =
        table.name.split('_').map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..])).collect();
    let prefix = table.name.to_uppercase();
    let _ = write!(
        out,
        "\n// Column ids of table \"{}\": type, unit, bit in the masks. {}\nenum {camel}Column {{\n",
        table.name, table.meaning
    );
    let _ = writeln!(out, "  {prefix}_COLUMN_UNSPECIFIED = 0;");
    for column in table.columns.iter().filter(|column| column.origin == Origin::Column) {
        let name = column.name.to_uppercase();
        let _ = write!(out, "  {prefix}_{name} = {}; // {}", column.id, type_name(column.value_type));
        if !column.unit.is_empty() {
            let _ = write!(out, ", {}", column.unit);
        }
        if let Some(bit) = column.bit {
            let _ = write!(out, ", bit {bit}");
        }
        if !column.nullable {
            out.push_str(", never null");
        }
        out.push('\n');
    }
    out.push_str("}\n");
}

const FRAME_PROTO: &str = r#"// The wire format of racklake: the value of one Kafka message is one Frame.
//
// A frame holds rows of one table, made on one node, column by column. This file is all that is needed to read one, in
// any language. It is generated from the catalog; a field number or column id is never used twice, and columns are only
// ever added. docs/data-dictionary.md says what each column means.
//
// To read a frame:
//  1. Refuse a `format` above 1: it means something that this file cannot know. Pass over fields and column ids that
//     are not listed here: a newer writer added them.
//  2. `node`, `stream_id` and `seq` hold for every row of the frame, and so does `rows` (column frame_rows of the lake).
//     Column received_at of the lake is not on the wire: it is when the lake's ingest decoded the frame.
//  3. `table` says which of the enums below names the column ids: the column's name is that of the enum value without the
//     table in front, in lower case (GPU_SAMPLE_ROW_STATUS is row_status of gpu_sample). A column that the frame does
//     not have is null in every row. A column comes at most once.
//  4. With N = `rows`: where `null_bitmap` is absent, no row of the column is null. Else it has N bits in ceil(N / 8)
//     bytes, and row i is null where bit i % 8 (0 is the lowest) of byte i / 8 is 1. Spare bits are 0.
//  5. Only the V rows that are not null have a value. Those travel in row order, in the arm of `values` that is set; none
//     is where V is 0:
//       constant  all V values are this one. `integer` in columns of integers and timestamps, `single` in f32 columns,
//                 `double` in f64 columns, `text` in string columns.
//       deltas    V integers: value[0] = deltas[0], value[i] = value[i - 1] + deltas[i], in 64 bits, wrapping. Used by
//                 i8, i32, i64 and timestamp (microseconds since 1970, UTC) alike.
//       fixed32   V values of an f32 column, bit for bit.
//       fixed64   V values of an f64 column, bit for bit.
//       strings   V indices into `dictionary`, from 0. The dictionary has no more entries than there are indices.
//  6. In a list<i32> column, `list_lengths` has one entry for each of the V lists, 0 for an empty one; their sum is L. The
//     L items of all lists, one list after the other, travel like a column of L rows: those that are not null in `values`
//     (constant or deltas), those that are null as bits of `item_null_bitmap`.
//
// A writer keeps to this besides, and a reader may refuse what does not: `id` is the first field of a Column; a repeated
// number is packed, in one piece; rows are 1 to 65536; what a frame decodes to stays below 64 MiB; site and node are 1 to
// 63 of a-z 0-9 . _ -, and not dots alone. Rows come in the order (device_id, time) where that makes the deltas small,
// but any order is a valid frame.
//
// The Kafka message has key = node, and the headers table, format, catalog_version, node, stream_id and seq, the numbers
// in decimal, so that a consumer can skip or deduplicate without decoding. (stream_id, table, seq) is the identity of a
// frame: the same one may come twice, and a hole in seq is a frame that is missing. A header replay = 1 says that the
// frame waited on the node's disk, so that its times may lie well before its arrival. Kafka itself compresses (zstd).

syntax = "proto3";

package racklake;

message Frame {
  uint32 format = 1;           // 1
  string table = 2;
  uint32 catalog_version = 3;  // of the writer; newer than yours: it may have columns that you do not know
  string stream_id = 4;        // 32 lower-case hex digits, random: the life of one collector's spool
  int64 seq = 5;               // 1, 2, 3, ... per stream and table
  string node = 6;             // host of the collector; a label
  uint32 rows = 7;             // 1 to 65536
  repeated Column columns = 8;
}

message Column {
  uint32 id = 1;               // from the enum of the table; always present, always first
  bytes null_bitmap = 2;
  oneof values {
    Constant constant = 3;
    Deltas deltas = 4;
    Fixed32s fixed32 = 5;
    Fixed64s fixed64 = 6;
    Strings strings = 7;
  }
  repeated uint32 list_lengths = 8;
  bytes item_null_bitmap = 9;
}

message Constant {
  oneof value {
    sint64 integer = 1;
    float single = 2;
    double double = 3;
    string text = 4;
  }
}

message Deltas {
  repeated sint64 deltas = 1;
}

message Fixed32s {
  repeated float values = 1;
}

message Fixed64s {
  repeated double values = 1;
}

message Strings {
  repeated string dictionary = 1;
  repeated uint32 indices = 2;
}

// Columns unsupported_mask and failed_mask, where a table has them, say why a value is null: bit b is that of the column
// with "bit b" below. Set in unsupported_mask: the device has no such reading. Set in failed_mask: the read failed, and
// fail_code says how. In neither: it was not read this time. A bit from 63 on is that of unsupported_mask_2 and
// failed_mask_2, less 63.
"#;
