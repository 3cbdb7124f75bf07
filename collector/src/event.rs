//! Turns what happened into rows of `event`, each with an id of its own.
//!
//! It decides nothing: whoever saw it has chosen name, severity and words.

use racklake_schemas::tables::{self, event};
use racklake_schemas::{Cell, Row};

use crate::place::{DeviceLabels, Place};
use crate::source::EventDraft;

/// Gives events and episodes their numbers within the stream.
#[derive(Debug, Default)]
pub(crate) struct EventNumbers {
    pub(crate) events: u64,
    pub(crate) episodes: u64,
}

impl EventNumbers {
    /// Numbers that an earlier start has given to a row are not given again.
    pub(crate) fn seen(&mut self, place: &Place, row: &Row) {
        let number = |column: usize, mark: &str| match row.cell(column) {
            Cell::Text(id) => id.strip_prefix(&place.stream_id)?.strip_prefix(mark)?.parse().ok(),
            _ => None,
        };
        if std::ptr::eq(row.table(), &tables::EVENT) {
            self.events = self.events.max(number(event::EVENT_ID, "-").unwrap_or(0));
            self.episodes = self.episodes.max(number(event::EPISODE_ID, "-e").unwrap_or(0));
        }
    }

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Names of events in the sources under a folder: the first argument of whatever makes one.
    fn names(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                names(&entry, found);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&entry).unwrap();
                for maker in ["own(", "detailed(", "EventDraft::new("] {
                    let arguments = text.split(maker).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
                    found.extend(arguments.filter_map(|rest| rest.split_once('"')).map(|(name, _)| name.to_owned()));
                }
            }
        }
    }

    #[test]
    fn every_event_is_in_the_list() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = BTreeSet::new();
        names(&root.join("src"), &mut found);
        found.retain(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        let list = std::fs::read_to_string(root.join("../docs/events.md")).unwrap();
        let missing: Vec<_> = found.iter().filter(|name| !list.contains(&format!("| `{name}` |"))).collect();
        assert!(found.len() > 10 && missing.is_empty(), "add to docs/events.md: {missing:?}");
    }
}
