//! Keeps a table from growing without end: days that are past their age expire, files that no version names are swept, and
//! so are parts of the log that a checkpoint has made superfluous.
//!
//! Ages of files are told by the store: its own time of the newest commit stands for now, so a host whose clock is wrong
//! removes nothing too early. Nothing here removes a row but [`LakeTable::expire`](crate::LakeTable::expire), and that
//! says in the same commit which frames it has taken. Every deletion can be repeated, so a kill at any moment is harmless.

mod clean;
mod expire;
mod expired;
mod vacuum;

use std::time::Duration;

pub use expire::{Expired, ExpiringDay};
pub(crate) use expired::ExpiredFrames;
pub use vacuum::Swept;

/// Domain that says what has expired.
pub(crate) const EXPIRED: &str = "racklake.expired";
/// Nothing younger is ever swept: a flush may hold its files for a day before it commits them.
pub const SWEEP_AGE_MIN: Duration = Duration::from_secs(2 * 24 * 3600);
