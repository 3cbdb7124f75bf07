//! Episodes that are open: their start was told, their end was not.
//!
//! They are read off the event rows as these pass the door, kept in the account of the spool, and found again in the
//! journal after a kill. Whoever begins an episode ends it; those that a restart has cut off are closed here.

use std::collections::BTreeMap;

use racklake_schemas::tables::{self, event};
use racklake_schemas::{Cell, Row};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::event::EventNumbers;
use crate::place::{DeviceLabels, Place};
use crate::source::EventDraft;

/// An open episode: what its last row needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Episode {
    episode_id: String,
    event: String,
    source: String,
    device_id: Option<String>,
    session_id: Option<i64>,
    rack: Option<String>,
    pci_bus_id: Option<String>,
}

/// Stands where a draft wants a name that is known to this version.
const NAMED_BELOW: &str = "";

/// All open episodes, by id.
#[derive(Debug, Default)]
pub(crate) struct Episodes(BTreeMap<String, Episode>);

impl Episodes {
    /// Those that an earlier start has kept.
    pub(crate) fn restored(list: Vec<Episode>) -> Episodes {
        Episodes(list.into_iter().map(|episode| (episode.episode_id.clone(), episode)).collect())
    }

    /// All of them, to be stored.
    pub(crate) fn to_list(&self) -> Vec<Episode> {
        self.0.values().cloned().collect()
    }

    /// Follows a row that has been made.
    pub(crate) fn follow(&mut self, row: &Row) {
        if !std::ptr::eq(row.table(), &tables::EVENT) {
            return;
        }
        let Some(episode_id) = text(row, event::EPISODE_ID) else { return };
        match text(row, event::PHASE).as_deref() {
            Some("start") => {
                self.0.entry(episode_id.clone()).or_insert_with(|| Episode::of(row, episode_id));
            }
            Some("end") => drop(self.0.remove(&episode_id)),
            _ => {}
        }
    }

    /// The rows that close all episodes because the collector has started anew; following them empties this.
    pub(crate) fn last_rows(&self, numbers: &mut EventNumbers, place: &Place, now: i64) -> Vec<Row> {
        self.0.values().map(|episode| episode.last_row(numbers, place, now)).collect()
    }
}

impl Episode {
    fn of(row: &Row, episode_id: String) -> Episode {
        let session_id = match row.cell(event::SESSION_ID) {
            Cell::I64(session_id) => Some(*session_id),
            _ => None,
        };
        Episode {
            episode_id,
            event: text(row, event::EVENT).unwrap_or_default(),
            source: text(row, event::SOURCE).unwrap_or_default(),
            device_id: text(row, event::DEVICE_ID),
            session_id,
            rack: text(row, event::RACK),
            pci_bus_id: text(row, event::PCI_BUS_ID),
        }
    }

    fn last_row(&self, numbers: &mut EventNumbers, place: &Place, now: i64) -> Row {
        let (name, who) = (&self.event, self.device_id.as_deref().unwrap_or(&self.source));
        let message = format!("{name} of {who} was open when the collector ended; what is so now is told anew");
        let device = self.device_id.as_ref().map(|device_id| DeviceLabels {
            device_id: device_id.clone(),
            session_id: self.session_id.unwrap_or_default(),
            rack: self.rack.clone(),
        });
        let draft = EventDraft {
            phase: Some("end"),
            episode_id: Some(self.episode_id.clone()),
            pci_bus_id: self.pci_bus_id.clone(),
            details_json: Some(json!({"reason": "collector_restart"}).to_string()),
            ..EventDraft::new(NAMED_BELOW, "collector", "info", message)
        };
        let mut row = numbers.row(place, draft, device.as_ref(), now);
        // The names are those of the first row, which another version may have written.
        row.set(event::EVENT, self.event.as_str());
        row.set(event::SOURCE, self.source.as_str());
        row
    }
}

fn text(row: &Row, column: usize) -> Option<String> {
    match row.cell(column) {
        Cell::Text(text) => Some(text.to_string()),
        _ => None,
    }
}
