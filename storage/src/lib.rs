//! The lake: one Delta table per table of the catalog, written as Parquet files and Delta commits.
//!
//! Two steps make rows visible: `LakeTable::write` puts durable data files that no reader sees, `LakeTable::commit` makes
//! them visible together with the positions they end at, in one Delta commit. It knows no Kafka: what it calls an app id
//! is a string, and a position a number. All calls block; call them from `tokio::task::spawn_blocking` of a multi-thread
//! runtime. It promises nothing about who calls: two processes may write one table, and the loser of a race is told.

mod dictionary;
mod error;
mod file;
mod lake;
mod table;

pub use error::StorageError;
pub use file::DataFile;
pub use lake::Lake;
pub use table::{Contents, LakeTable, Outcome, Span};
