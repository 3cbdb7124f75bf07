//! Who a miner is, for the makes that tell it in fields of their own.

use racklake_schemas::identity::real_identifier;
use racklake_schemas::tables::{self, device};
use racklake_schemas::{Cell, Row};

use super::filler::plain;
use super::identity::mac_address;
use crate::source::Identity;

/// Makers by a word of a model's name. A machine keeps its maker whatever firmware runs on it, and so it keeps its id.
const MAKERS: [(&str, &str); 6] = [
    ("antminer", "antminer"),
    ("whatsminer", "whatsminer"),
    ("avalon", "avalon"),
    ("volcminer", "volcminer"),
    ("sealminer", "sealminer"),
    ("braiins", "braiins"),
];

/// The maker of the hardware by the model's name, or this one.
pub(super) fn maker(model: Option<&str>, otherwise: &'static str) -> &'static str {
    let model = model.unwrap_or_default().to_ascii_lowercase();
    MAKERS.iter().find(|(word, _)| model.contains(word)).map_or(otherwise, |(_, maker)| maker)
}

/// An identity: the id of serial number or else MAC, and columns of `device` with their texts.
pub(super) fn identity(
    maker: &str,
    serial: Option<&str>,
    mac: Option<&str>,
    told: &[(usize, Option<&str>)],
) -> Identity {
    let serial = serial.map(plain).and_then(|serial| real_identifier(&serial));
    let mac = mac.and_then(mac_address);
    let mut row = Row::new(&tables::DEVICE);
    row.set(device::VENDOR, maker);
    row.set(device::SERIAL, serial.clone());
    row.set(device::MAC, mac.clone());
    for &(column, text) in told {
        row.set(column, text.map(plain).filter(|text| !text.is_empty()));
    }
    Identity { device_id: serial.or(mac).map(|id| format!("{maker}:{id}")), row }
}

/// Sets a count of the device row where it is a plausible one.
pub(super) fn count(identity: &mut Identity, column: usize, count: Option<i64>) {
    let count = count.and_then(|count| i32::try_from(count).ok()).filter(|count| *count > 0);
    identity.row.set(column, count);
}

/// The cell of a row as an integer.
pub(super) fn integer_of(row: &Row, column: usize) -> Option<i64> {
    match row.cell(column) {
        Cell::I64(value) => Some(*value),
        _ => None,
    }
}
