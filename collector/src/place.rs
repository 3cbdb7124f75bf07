//! Where this collector is and which stream it writes: the columns that are the same in all of its rows.
//!
//! It does not know devices; it writes the labels of one where it is given them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use racklake_schemas::Row;
use racklake_schemas::tables::gpu_sample as common;
use racklake_schemas::tables::{COVERAGE, DEVICE};

use crate::config::Config;
use crate::route::Route;

/// Labels of this collector and its stream.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) site: String,
    pub(crate) node: String,
    pub(crate) rack: Option<String>,
    /// The stream of the spool.
    pub(crate) stream_id: String,
    /// The topics that the config names; frames may go to others until the spool is empty.
    pub(crate) route: Arc<Route>,
}

/// What a row says about its device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeviceLabels {
    pub(crate) device_id: String,
    pub(crate) session_id: i64,
    pub(crate) rack: Option<String>,
}

impl Place {
    /// The place that the config names, with the stream of the spool.
    pub(crate) fn new(config: &Config, stream_id: &str) -> Place {
        Place {
            site: config.site.clone(),
            node: config.node.clone(),
            rack: config.rack.clone(),
            stream_id: stream_id.to_owned(),
            route: Arc::new(Route::new(&config.kafka)),
        }
    }

    /// Writes the common columns; node, stream, seq and frame_rows travel in the frame's header.
    pub(crate) fn stamp(&self, row: &mut Row, ts: i64, device: Option<&DeviceLabels>) {
        row.set(common::TS, ts);
        row.set(common::SITE, self.site.as_str());
        let rack = device.and_then(|device| device.rack.as_deref()).or(self.rack.as_deref());
        row.set(common::RACK, rack);
        if let Some(device) = device {
            row.set(common::DEVICE_ID, device.device_id.as_str());
            if !std::ptr::eq(row.table(), &COVERAGE) {
                row.set(common::SESSION_ID, device.session_id);
            }
        }
        if std::ptr::eq(row.table(), &DEVICE) {
            row.set(racklake_schemas::tables::device::OBSERVED_AT, ts);
        }
    }
}

/// Locks a mutex; one that a panicking thread held is used as it is, since every holder leaves it consistent.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
