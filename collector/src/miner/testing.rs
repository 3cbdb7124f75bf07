//! Recorded replies, as tests read them.

use std::path::PathBuf;

use super::json::Json;

/// The folder with the recorded replies of all makes.
pub(super) fn recordings() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/miner-sim/recordings")
}

/// A recorded reply by its path in the folder of recordings.
pub(super) fn recorded(path: &str) -> Json {
    let bytes = std::fs::read(recordings().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    Json::parse(&bytes).unwrap_or_else(|| panic!("{path} is no JSON"))
}

/// A reply from its text.
pub(super) fn json(text: &str) -> Json {
    Json::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text} is no JSON"))
}
