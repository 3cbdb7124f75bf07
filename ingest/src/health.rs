//! What is wrong at the moment, in words for the operator. Nothing in it means healthy.
//!
//! It steers nothing; it is told by the loop and read by `/healthz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What is wrong at the moment; clones tell the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<BTreeMap<String, Trouble>>>);

#[derive(Debug)]
struct Trouble {
    text: String,
    until: Option<Instant>,
}

impl Health {
    /// Something is wrong until it is cleared. `what` names it: `lake`, `topic racklake.event`.
    pub(crate) fn set(&self, what: &str, text: impl Into<String>) {
        self.lock().insert(what.to_owned(), Trouble { text: text.into(), until: None });
    }

    /// Something went wrong that cannot be mended, and is told for a while.
    pub(crate) fn set_for(&self, what: &str, text: impl Into<String>, time: Duration) {
        self.lock().insert(what.to_owned(), Trouble { text: text.into(), until: Some(Instant::now() + time) });
    }

    /// It is well again.
    pub(crate) fn clear(&self, what: &str) {
        self.lock().remove(what);
    }

    /// All whose name begins so are well again.
    pub(crate) fn clear_all(&self, beginning: &str) {
        self.lock().retain(|what, _| !what.starts_with(beginning));
    }

    /// One line for each thing that is wrong.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let mut troubles = self.lock();
        troubles.retain(|_, trouble| trouble.until.is_none_or(|until| until > Instant::now()));
        troubles.iter().map(|(what, trouble)| format!("{what}: {}", trouble.text)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_mended_is_told_for_a_while_and_the_rest_until_it_is_cleared() {
        let health = Health::default();
        health.set("lake", "no room");
        health.set_for("retention", "overtook", Duration::from_secs(60));
        assert_eq!(health.reasons(), ["lake: no room", "retention: overtook"]);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(health.reasons(), ["lake: no room"]);
        health.clear("lake");
        assert!(health.reasons().is_empty());
    }
}
