//! What an event of the kernel log looks like as a row: its severity, and its details with NVIDIA's advice.

use serde_json::{Map, Value, json};

use super::catalogue;
use super::line::{GpuEvent, Kind};
use super::position::{Position, SOURCE};
use crate::source::EventDraft;

/// The row of an event that was logged at a position, at `ts` (µs UTC; 0 means now).
pub(super) fn draft(event: &GpuEvent, at: &Position, ts: i64) -> EventDraft {
    let details = details(event, at);
    EventDraft {
        ts,
        code: event.code,
        pci_bus_id: event.pci_bus_id.clone(),
        details_json: Some(Value::Object(details).to_string()),
        ..EventDraft::new(event.kind.name(), SOURCE, severity(event), event.message.clone())
    }
}

/// `info`, `warning`, `error` or `critical`.
pub(super) fn severity(event: &GpuEvent) -> &'static str {
    match (event.kind, event.code, event.fatal) {
        (Kind::FellOffTheBus, ..) | (Kind::SwitchXid, _, Some(true)) => "critical",
        // An NVLink 5 error that calls itself harmless is less than its workflow.
        (Kind::Xid, Some(144..=150), Some(false)) | (Kind::SwitchXid, _, Some(false)) => "warning",
        (Kind::Xid, Some(code), _) => catalogue::severity(code),
        (Kind::Xid, None, _) => "error",
        (Kind::SwitchXid, _, None) | (Kind::DriverLoaded, ..) => "info",
    }
}

/// What the catalogue says of an XID, as members of an event's details.
pub(crate) fn explained(code: i64) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("catalogue".to_owned(), json!(catalogue::VERSION));
    if let Some(explanation) = catalogue::find(code) {
        members.insert("mnemonic".to_owned(), json!(explanation.mnemonic));
        members.insert("meaning".to_owned(), json!(explanation.meaning));
        members.insert("action".to_owned(), json!(explanation.action));
        members.insert("investigatory_action".to_owned(), json!(explanation.investigatory_action));
    }
    members
}

fn details(event: &GpuEvent, at: &Position) -> Map<String, Value> {
    let mut members = match (event.kind, event.code) {
        (Kind::Xid, Some(code)) => explained(code),
        _ => Map::new(),
    };
    let registers = (!event.registers.is_empty()).then_some(&event.registers);
    let action = event.recovery_action;
    for (name, value) in [
        ("boot_id", json!(at.boot_id)),
        ("seq", json!(at.seq)),
        ("sub_code", json!(event.sub_code)),
        ("pid", json!(event.pid)),
        ("process", json!(event.process)),
        ("unit", json!(event.unit)),
        ("fatal", json!(event.fatal)),
        ("link", json!(event.link)),
        ("channel", json!(event.channel)),
        ("fault_address", json!(event.fault_address)),
        ("recovery_action_before", json!(action.map(|(before, _)| before))),
        ("recovery_action", json!(action.map(|(_, now)| now))),
        ("registers", json!(registers)),
        ("gpu_instance", json!(event.gpu_instance)),
        ("compute_instance", json!(event.compute_instance)),
        ("switch", json!(event.switch)),
        ("driver_version", json!(event.driver_version)),
        ("text", json!(event.text)),
    ] {
        if !value.is_null() {
            members.insert(name.to_owned(), value);
        }
    }
    members
}
