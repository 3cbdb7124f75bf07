//! Dropped frames until an event names them.
//!
//! While dropping goes on, what follows one another is merged, so that a long outage gives few events. The spool keeps
//! the drops that are not told yet, in the transaction that removes their frames.

use std::time::Duration;

use racklake_schemas::tables::{self, event};
use racklake_schemas::{Cell, Row};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::frames::Frame;

/// Frames of one table that were dropped one after another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DropRange {
    pub(crate) table: String,
    pub(crate) stream_id: String,
    pub(crate) reason: String,
    pub(crate) seq_first: i64,
    pub(crate) seq_last: i64,
    pub(crate) frames: i64,
    pub(crate) rows: i64,
}

/// Drops that no event has told yet; while dropping goes on they are merged and told every ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    untold: Vec<DropRange>,
    due: Option<Instant>,
}

/// How long drops are merged before an event tells them.
const MERGE: Duration = Duration::from_secs(10);

impl Drops {
    /// Drops that an earlier start has not told.
    pub(crate) fn restored(untold: Vec<DropRange>, now: Instant) -> Drops {
        let due = (!untold.is_empty()).then_some(now);
        Drops { untold, due }
    }

    /// The drops that no event has told yet.
    pub(crate) fn untold(&self) -> &[DropRange] {
        &self.untold
    }

    /// Notes a dropped frame.
    pub(crate) fn note(&mut self, frame: &Frame, reason: &'static str, now: Instant) {
        self.due.get_or_insert(now + MERGE);
        let (table, stream_id, rows) = (frame.table.name, &frame.stream_id, frame.rows as i64);
        let same = |drop: &DropRange| drop.table == table && drop.reason == reason && drop.stream_id == *stream_id;
        let follows = |drop: &&mut DropRange| same(drop) && drop.seq_last + 1 == frame.seq;
        match self.untold.iter_mut().find(follows) {
            Some(drop) => {
                drop.seq_last = frame.seq;
                drop.frames += 1;
                drop.rows += rows;
            }
            None => {
                self.untold.push(DropRange {
                    table: table.to_owned(),
                    stream_id: stream_id.clone(),
                    reason: reason.to_owned(),
                    seq_first: frame.seq,
                    seq_last: frame.seq,
                    frames: 1,
                    rows,
                });
            }
        }
    }

    /// Follows an event row that an earlier start has made: what it tells needs no telling again.
    pub(crate) fn follow(&mut self, row: &Row) {
        let text = |column| match row.cell(column) {
            Cell::Text(text) => Some(text.as_str()),
            _ => None,
        };
        if !std::ptr::eq(row.table(), &tables::EVENT) || text(event::EVENT) != Some("frames_dropped") {
            return;
        }
        let details = text(event::DETAILS_JSON).and_then(|json| serde_json::from_str::<DropRange>(json).ok());
        self.untold.retain(|drop| Some(drop) != details.as_ref());
    }

    /// When the drops noted so far are to be told.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Takes the drops to tell.
    pub(crate) fn take(&mut self) -> Vec<DropRange> {
        self.due = None;
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::GPU_SAMPLE;

    use super::*;
    use crate::testing::frame;

    #[tokio::test(start_paused = true)]
    async fn drops_in_a_row_are_told_as_one() {
        let mut drops = Drops::default();
        for seq in [4, 5, 6, 9] {
            drops.note(&frame(&GPU_SAMPLE, seq), "spool_full", Instant::now());
        }
        let told: Vec<_> = drops.take().iter().map(|d| (d.seq_first, d.seq_last, d.frames, d.rows)).collect();
        assert_eq!(told, [(4, 6, 3, 9), (9, 9, 1, 3)]);
        assert!(drops.take().is_empty() && drops.due().is_none());
    }
}
