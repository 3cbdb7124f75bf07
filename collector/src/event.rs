//! Turns what happened into rows of `event`, each with an id of its own.
//!
//! It decides nothing: whoever saw it has chosen name, severity and words.

use racklake_schemas::Row;
use racklake_schemas::tables::{self, event};

use crate::place::{DeviceLabels, Place};
use crate::source::EventDraft;

/// Gives events and episodes their numbers within the stream.
#[derive(Debug, Default)]
pub(crate) struct EventNumbers {
    events: u64,
    episodes: u64,
}

impl EventNumbers {
    /// The row of an event; `now` is its time where the draft has none.
    pub(crate) fn row(&mut self, place: &Place, draft: EventDraft, device: Option<&DeviceLabels>, now: i64) -> Row {
        self.events += 1;
        let mut row = Row::new(&tables::EVENT);
        place.stamp(&mut row, if draft.ts == 0 { now } else { draft.ts }, device);
        row.set(event::EVENT_ID, format!("{}-{}", place.stream_id, self.events));
        row.set(event::EVENT, draft.event);
        row.set(event::SOURCE, draft.source);
        row.set(event::SEVERITY, draft.severity);
        row.set(event::CODE, draft.code);
        row.set(event::PHASE, draft.phase);
        row.set(event::EPISODE_ID, draft.episode_id);
        // A GPU's address is its PCI address, 0000:9b:00.0; a miner's is host:port.
        let address = draft.address.filter(|address| !address.starts_with('[') && address.matches(':').count() == 2);
        row.set(event::PCI_BUS_ID, draft.pci_bus_id.or(address));
        row.set(event::MESSAGE, draft.message);
        row.set(event::DETAILS_JSON, draft.details_json);
        row
    }

    /// A new id that joins the rows of an episode.
    pub(crate) fn episode(&mut self, place: &Place) -> String {
        self.episodes += 1;
        format!("{}-e{}", place.stream_id, self.episodes)
    }
}

/// An event of the collector itself.
pub(crate) fn own(name: &'static str, severity: &'static str, message: impl Into<String>) -> EventDraft {
    EventDraft::new(name, "collector", severity, message)
}

/// An event of the collector itself, with details.
pub(crate) fn detailed(
    name: &'static str,
    severity: &'static str,
    message: impl Into<String>,
    details: &serde_json::Value,
) -> EventDraft {
    EventDraft { details_json: Some(details.to_string()), ..own(name, severity, message) }
}
