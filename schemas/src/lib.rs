//! What racklake's tables are, and how their rows travel: catalog, rows, wire format, identities.
//!
//! This crate knows no Kafka, no Parquet and no sensor; everything else knows it.
//!
//! # Glossary
//!
//! | Term | Means here |
//! |---|---|
//! | site, rack | where; labels from the config |
//! | node | one host; runs one collector |
//! | device | one accelerator the node can address: a GPU (NVML UUID) or a miner (serial) |
//! | board, chip | a PCB inside a device; one die on a board, by position |
//! | sensor | a named quantity with a unit: a column of a table |
//! | reading | one value of one sensor of one device at one instant: a [`Cell`] |
//! | sample | all readings of one device from one poll: a row of a wide table |
//! | event | something that happened |
//! | tick | one due time of a sampling schedule |
//! | session | counter epoch of one device |
//! | frame | one Kafka message: rows of one node and one table |
//! | stream, seq | life of one spool; running number of frames per table in it |
//! | buffer | rows in memory of ingest that wait to be written |
//! | batch | an Arrow `RecordBatch` |
//! | publish | hand a frame to Kafka and see it acknowledged |
//! | commit | make data files visible and durable, with their offsets, by one Delta commit |
//! | progress | next offset per partition, read from the Delta log |
//! | seal | merge and sort the files of a quiet hour |
//! | coverage | what was expected, collected, failed, dropped |
//! | dead letter | a frame kept aside because it cannot be decoded |
//! | dropped | lost on purpose under overload, always counted |

pub mod bench60;
pub mod catalog;
pub mod clock;
pub mod dictionary;
pub mod docs;
pub mod identity;
pub mod row;
pub mod rows;
pub mod settings;
pub mod wire;

pub use catalog::{Class, Column, Encoding, Kind, Origin, Table, ValueType};
pub use row::{Bits, Cell, Row, fail_code, row_status};
pub use rows::Rows;

/// The tables of the catalog, generated from `catalog/*.toml`.
pub mod tables {
    use crate::catalog::{Class, Column, Kind, Origin, Table, ValueType};

    include!(concat!(env!("OUT_DIR"), "/tables.rs"));
}
