//! The reader of a miner whose make is not known: it reads nothing, and says why.

use super::exchange::Trouble;
use super::reader::{Memory, Reader, Replies, Told, Wants};
use super::session::Session;
use crate::source::BoxFuture;

/// Stands in for a reader until there is one.
pub(super) struct Unidentified;

impl Unidentified {
    /// Puts into a memory of this reader what was seen when the miner was last asked who it is.
    pub(super) fn remember(memory: &mut Memory, trouble: Trouble) {
        if let Some(seen) = memory.downcast_mut::<Trouble>() {
            *seen = trouble;
        }
    }
}

impl Reader for Unidentified {
    fn make(&self) -> &'static str {
        "unidentified"
    }

    fn memory(&self) -> Memory {
        Box::new(Trouble::Unreadable)
    }

    fn ask<'a>(
        &'a self,
        _session: &'a mut Session<'_>,
        _wants: Wants,
        memory: &'a mut Memory,
    ) -> BoxFuture<'a, Replies> {
        let trouble = memory.downcast_ref::<Trouble>().copied().unwrap_or(Trouble::Unreadable);
        let mut replies = Replies::default();
        replies.add("version", Err(trouble));
        Box::pin(std::future::ready(replies))
    }

    fn read(&self, _replies: &Replies, _memory: &mut Memory) -> Told {
        Told::default()
    }
}
