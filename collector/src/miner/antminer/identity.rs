//! Who an Antminer says it is: `version` over the cgminer port, `get_system_info.cgi` over the web.

use racklake_schemas::Row;
use racklake_schemas::identity::real_identifier;
use racklake_schemas::tables::{self, device};

use super::super::exchange::section;
use super::super::filler::plain;
use super::super::identity::mac_address;
use super::super::json::Json;
use super::super::reader::Replies;
use super::model;
use super::stats::Stats;
use super::web;
use crate::source::Identity;

/// What is known of the machine beside the replies that are about its identity.
pub(super) struct Beside<'a> {
    pub(super) stats: Option<Stats<'a>>,
    /// Boards of the model and chips of one of them; 0 is not known.
    pub(super) boards: usize,
    pub(super) chips: usize,
}

/// The model that the replies tell.
pub(super) fn model<'a>(replies: &'a Replies, stats: Option<&Stats<'a>>) -> Option<&'a str> {
    version(replies)
        .and_then(|version| version.text_of("Type"))
        .or_else(|| stats?.model)
        .or_else(|| replies.ok(web::SYSTEM)?.text_of("minertype"))
        .or_else(|| replies.ok(web::SUMMARY)?.get("INFO")?.text_of("type"))
}

fn version(replies: &Replies) -> Option<&Json> {
    section(replies.ok("version")?, "VERSION").ok()?.first()
}

/// The identity, as far as it is told.
pub(super) fn identity(replies: &Replies, beside: &Beside<'_>) -> Identity {
    let version = version(replies);
    let system = replies.ok(web::SYSTEM);
    let text = |json: Option<&Json>, name: &str| {
        json.and_then(|json| json.text_of(name)).map(plain).filter(|text| !text.is_empty())
    };
    let serial = text(system, "serinum").or_else(|| text(system, "serial_no")).and_then(|text| real_identifier(&text));
    let mac = text(system, "macaddr").and_then(|mac| mac_address(&mac));
    let model = model(replies, beside.stats.as_ref()).map(plain);
    let told = text(system, "Algorithm").map(|name| name.to_ascii_lowercase());
    let algorithm = model.as_deref().and_then(model::algorithm).map(str::to_owned).or(told);
    let info = replies.ok(web::SUMMARY).and_then(|reply| reply.get("INFO"));
    let firmware = text(system, "system_filesystem_version")
        .or_else(|| text(version, "CompileTime"))
        .or_else(|| text(info, "CompileTime"));
    let count = |number: usize| i32::try_from(number).ok().filter(|number| *number > 0);
    let fans = beside.stats.and_then(|stats| stats.number("fan_num", "fan_num"));
    let mut row = Row::new(&tables::DEVICE);
    row.set(device::VENDOR, "antminer");
    row.set(device::MODEL, model);
    row.set(device::SERIAL, serial.clone());
    row.set(device::MAC, mac.clone());
    row.set(device::FIRMWARE_VERSION, firmware);
    row.set(device::HARDWARE_TYPE, text(version, "Miner").or_else(|| text(info, "miner_version")));
    row.set(device::API_VERSION, text(version, "API"));
    row.set(device::HOSTNAME, text(system, "hostname"));
    row.set(device::ALGORITHM, algorithm);
    row.set(device::BOARDS_EXPECTED, count(beside.boards));
    row.set(device::CHIPS_EXPECTED, count(beside.boards * beside.chips));
    row.set(
        device::FANS_EXPECTED,
        fans.and_then(|fans| i32::try_from(fans).ok()).filter(|fans| (1..=64).contains(fans)),
    );
    Identity { device_id: serial.or(mac).map(|id| format!("antminer:{id}")), row }
}
