//! What is derived from the catalog for people and for other languages: `docs/data-dictionary.md` and
//! `proto/frame.proto`. A test fails when a committed one is stale.

use std::fmt::Write as _;

use crate::catalog::{CATALOG_VERSION, Table};
use crate::dictionary::{kind_name, type_name};
use crate::tables;

/// The text of `docs/data-dictionary.md`.
pub fn data_dictionary() -> String {
    let mut out = format!(
        "# Data dictionary\n\nEvery table and column of catalog version {CATALOG_VERSION}, generated from \
         `schemas/catalog/*.toml` (`RACKLAKE_UPDATE=1 cargo test -p racklake-schemas` writes it anew). The lake \
         carries the same as table `field_dictionary`.\n\nA null has a reason: bit *b* of `unsupported_mask` is set \
         where the device does not have the reading, bit *b* of `failed_mask` where its read failed; with neither, it \
         was not read this time. Times are UTC with microseconds. Counters rise within one `session_id`.\n"
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
                _ => String::new(),
            };
            let bit = column.bit.map_or(String::new(), |bit| bit.to_string());
            let required = if column.nullable { "" } else { ", never null" };
            let _ = writeln!(
                out,
                "| `{}` | {}{required} | {} | {} | {bit} | {range} | {} | {} | {} |",
                column.name,
                type_name(column.value_type),
                column.unit,
                kind_name(column),
                column.since,
                column.meaning,
                column.source,
            );
        }
    }
    out
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
    let _ =
        write!(out, "\n// Column ids of table {}; the comment gives the type.\nenum {camel}Column {{\n", table.name);
    let _ = writeln!(out, "  {prefix}_COLUMN_UNSPECIFIED = 0;");
    for column in table.columns.iter().filter(|c| c.origin == crate::Origin::Column) {
        let name = column.name.to_uppercase();
        let _ = writeln!(out, "  {prefix}_COLUMN_{name} = {}; // {}", column.id, type_name(column.value_type));
    }
    out.push_str("}\n");
}

const FRAME_PROTO: &str = r#"// The wire format of racklake: one Kafka message is one Frame, zstd at most by Kafka itself.
//
// Generated from the catalog; ids are never reused and columns are only ever added. To read a frame:
//  1. Refuse a `format` above the one you know. Column ids that you do not know may be passed over.
//  2. node, stream_id, seq and rows (as frame_rows) hold for every row; received_at is not on the wire.
//  3. A column that is absent is null in every row. Otherwise bit i of null_bitmap, lowest bit of the first byte
//     first, says that row i is null; without a bitmap none is.
//  4. The values of the rows that are not null, in row order, are in `values`:
//     constant: all have this one value.
//     deltas:   the first value is the first delta; each later one adds its delta to the value before it.
//               The sum runs in 64 bits and wraps. Integers, timestamps (microseconds UTC) and masks.
//     fixed32, fixed64: the raw bits of floats.
//     strings:  indices into the dictionary.
//  5. In a list column, list_lengths has one entry per row that is not null, and the items of all lists, one after
//     the other, travel in `values` by the same rules, with item_null_bitmap in the place of null_bitmap.

syntax = "proto3";

package racklake;

message Frame {
  uint32 format = 1;           // 1
  string table = 2;
  uint32 catalog_version = 3;
  string stream_id = 4;        // 32 hex digits
  int64 seq = 5;               // from 1, per stream and table
  string node = 6;
  uint32 rows = 7;             // 1 to 65536
  repeated Column columns = 8;
}

message Column {
  uint32 id = 1;               // always present and first
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
"#;
