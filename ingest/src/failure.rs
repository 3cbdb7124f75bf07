//! Failures by what the caller does about them.

use racklake_storage::StorageError;

/// A failure, named by what the caller does. The text says what happened, with its cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Do the same again after a while.
    #[error("{0}")]
    Retry(String),
    /// There is no room in the lake: fetch nothing until there is.
    #[error("{0}")]
    NoRoom(String),
    /// Nothing here can help: end the process with this message.
    #[error("{0}")]
    Stop(String),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Failure {
        let text = error.to_string();
        match error {
            StorageError::Retry { .. } => Failure::Retry(text),
            StorageError::NoRoom { .. } => Failure::NoRoom(text),
            StorageError::Stop { .. } => Failure::Stop(text),
        }
    }
}

/// How long to wait before try number `attempt`, from 1: 0.25 s, doubled each time, 10 s at most.
pub(crate) fn back_off(attempt: u32) -> std::time::Duration {
    let doublings = attempt.saturating_sub(1).min(6);
    std::time::Duration::from_millis(250 << doublings).min(std::time::Duration::from_secs(10))
}
