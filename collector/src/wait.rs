//! Waiting for a time that may not be set.

use tokio::time::{Instant, sleep_until};

/// Waits until `time`; for ever where there is none.
pub(crate) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
