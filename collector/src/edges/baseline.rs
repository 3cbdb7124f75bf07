//! What the watched counters of a device were last: what the next row is compared with.
//!
//! The door follows the rows that pass it, keeps this in the account of the spool and finds it again in the journal after
//! a kill. A row and the events that it tells pass together, so nothing is told twice and nothing is left out.

use std::collections::{BTreeMap, BTreeSet};

use racklake_schemas::tables::gpu_sample as common;
use racklake_schemas::{Cell, Row};
use serde::{Deserialize, Serialize};

use super::watches;

/// Devices that are remembered at most; more than a host ever has, so that replaced ones do not pile up for ever.
const DEVICES_MAX: usize = 4096;

/// Last values of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    session_id: i64,
    /// By column of `gpu_health`.
    counters: BTreeMap<String, i64>,
    /// Links that have been up, in any session: a wire does not go away with a driver.
    #[serde(default)]
    links: BTreeSet<i64>,
}

impl Baseline {
    /// A row that is about to be judged: counters of another session say nothing about it.
    pub(super) fn begin(&mut self, row: &Row) {
        if let Cell::I64(session_id) = row.cell(common::SESSION_ID)
            && *session_id != self.session_id
        {
            self.session_id = *session_id;
            self.counters.clear();
        }
    }

    /// Remembers what a row says.
    pub(super) fn follow(&mut self, row: &Row) {
        self.begin(row);
        for column in watches::counters(row.table()) {
            if let Cell::I64(value) = row.cell(*column) {
                self.counters.insert(row.table().columns[*column].name.to_owned(), *value);
            }
        }
        if let Some(link) = watches::link_up(row) {
            self.links.insert(link);
        }
    }

    /// The last value of a counter, under the `session_id` of the last row.
    pub(super) fn counter(&self, name: &str) -> Option<i64> {
        self.counters.get(name).copied()
    }

    /// Whether a link has ever been up.
    pub(super) fn was_up(&self, link: i64) -> bool {
        self.links.contains(&link)
    }
}

/// Last values of all devices.
#[derive(Debug, Default)]
pub(crate) struct Baselines(BTreeMap<String, Baseline>);

impl Baselines {
    /// Those that an earlier start has kept.
    pub(crate) fn restored(kept: BTreeMap<String, Baseline>) -> Baselines {
        Baselines(kept)
    }

    /// All of them, to be stored.
    pub(crate) fn to_map(&self) -> BTreeMap<String, Baseline> {
        self.0.clone()
    }

    /// Those of a device; empty where nothing is known.
    pub(crate) fn of(&self, device_id: &str) -> Baseline {
        self.0.get(device_id).cloned().unwrap_or_default()
    }

    /// Follows a row that passes the door.
    pub(crate) fn follow(&mut self, row: &Row) {
        if watches::counters(row.table()).is_empty() && watches::link_up(row).is_none() {
            return;
        }
        let Cell::Text(device_id) = row.cell(common::DEVICE_ID) else { return };
        if let Some(baseline) = self.0.get_mut(device_id) {
            baseline.follow(row);
        } else if self.0.len() < DEVICES_MAX {
            self.0.entry(device_id.clone()).or_default().follow(row);
        }
    }
}
