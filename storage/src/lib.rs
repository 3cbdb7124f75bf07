//! The lake: one Delta table per table of the catalog, written as Parquet files and Delta commits.
//!
//! Rows come in as batches and leave in the order of the modules: [`Lake`] finds or makes the table, `file` turns a
//! flush into sorted Parquet, [`LakeTable`] puts the files into the lake and makes them visible, together with the
//! positions of the flush, in one Delta commit; `delta` writes with delta_kernel and `log`
//! reads with it, and no other module names it. `seal` merges files of quiet hours, `upkeep` removes what is too old.
//! [`verify`] proves that what was written is there.
//!
//! A data file lies under `<lake>/<table>/_hot/site=<site>/dt=<date>/` until it is sealed, out of sight of a plain
//! `site=*/dt=*` glob and in sight of every Delta reader; a sealed one under `<lake>/<table>/site=<site>/dt=<date>/`. `site` and `dt` are partition columns: Delta keeps them in the log and the files do not
//! hold them.
//!
//! It knows no Kafka: what it calls an app id is a string, and a position a number. All calls block; make them from
//! `tokio::task::spawn_blocking` of a multi-thread runtime.

mod delta;
mod dictionary;
mod error;
mod exchange;
mod file;
mod lake;
mod log;
mod pieces;
mod seal;
mod table;
mod upkeep;
pub mod verify;

pub use delta::Contents;
pub use error::StorageError;
pub use file::is_clock_suspect;
pub use lake::Lake;
pub use seal::{Seal, SealRules, Sealed};
pub use table::{DataFile, DomainChange, LakeTable, Outcome, Span};
pub use upkeep::{Expired, ExpiringDay, SWEEP_AGE_MIN, Swept};
