//! Tests of what leaves the crate: the wire format, its golden messages, and the files derived from the catalog.
//!
//! `RACKLAKE_BLESS=1` writes derived files anew, and golden messages of tables that have none yet. It never touches a
//! golden message that exists: those are what collectors in the field have sent.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod bench60;
mod derived;
mod golden;
mod hostile;
mod random;

use std::path::{Path, PathBuf};

/// A file of the repository, by its path from its root.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// Whether files are to be written rather than checked.
pub(crate) fn blessing() -> bool {
    std::env::var_os("RACKLAKE_BLESS").is_some_and(|value| value == "1")
}
