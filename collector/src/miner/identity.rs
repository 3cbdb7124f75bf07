//! Who a miner says it is, from its reply to `version`.

use racklake_schemas::Row;
use racklake_schemas::identity::real_identifier;
use racklake_schemas::tables::{self, device};

use super::filler::plain;
use super::json::Json;
use crate::source::Identity;

/// What is known beside the reply.
pub(super) struct Beside<'a> {
    /// Name in front of the id.
    pub(super) make: &'a str,
    /// Serial number in `stats`.
    pub(super) dna: Option<&'a str>,
    /// Chips of the whole miner.
    pub(super) chips: Option<i64>,
}

/// The identity of a miner. Without a reply it has what `stats` tells, the serial number.
pub(super) fn identity(version: Option<&Json>, beside: &Beside<'_>) -> Identity {
    let told =
        |name: &str| version.and_then(|version| version.text_of(name)).map(plain).filter(|text| !text.is_empty());
    let serial = told("DNA").and_then(|dna| real_identifier(&dna));
    let serial = serial.or_else(|| beside.dna.map(plain).and_then(|dna| real_identifier(&dna)));
    let mac = told("MAC").and_then(|mac| mac_address(&mac));
    let hardware = told("HWTYPE");
    // `MM3v2_X3` is a controller of 3 boards.
    let boards = hardware.as_deref().and_then(|name| name.rsplit_once("_X")?.1.parse::<i32>().ok());
    let mut row = Row::new(&tables::DEVICE);
    row.set(device::VENDOR, beside.make);
    // All Avalons hash that.
    row.set(device::ALGORITHM, "sha256");
    row.set(device::MODEL, told("PROD").or_else(|| told("MODEL")));
    row.set(device::SERIAL, serial.clone());
    row.set(device::MAC, mac.clone());
    row.set(device::FIRMWARE_VERSION, told("LVERSION").or_else(|| told("CGVERSION")));
    row.set(device::HARDWARE_TYPE, hardware);
    row.set(device::BOARDS_EXPECTED, boards.filter(|boards| (1..=64).contains(boards)));
    row.set(
        device::CHIPS_EXPECTED,
        beside.chips.and_then(|chips| i32::try_from(chips).ok()).filter(|chips| *chips > 0),
    );
    Identity { device_id: serial.or(mac).map(|id| format!("{}:{id}", beside.make)), row }
}

/// A MAC address in lower case with colons, unless it is none or a placeholder.
pub(super) fn mac_address(text: &str) -> Option<String> {
    let digits: String =
        text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).map(|c| c.to_ascii_lowercase()).collect();
    if digits.len() != 12 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let pairs: Vec<&str> = (0..12).step_by(2).map(|at| &digits[at..at + 2]).collect();
    real_identifier(&pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use racklake_schemas::Cell;

    use super::*;

    fn id(version: &str, dna: Option<&str>) -> Option<String> {
        let version = Json::parse(version.as_bytes());
        identity(version.as_ref(), &Beside { make: "avalon", dna, chips: None }).device_id
    }

    #[test]
    fn a_miner_is_its_serial_or_else_its_mac() {
        let both = r#"{"DNA":"02010000cbd2fd6d","MAC":"B4-A2-EB-3E-11-9C"}"#;
        assert_eq!(id(both, None).as_deref(), Some("avalon:02010000cbd2fd6d"));
        let mac = r#"{"DNA":"01234567890123456789012345678901","MAC":"b4a2eb3e119c"}"#;
        assert_eq!(id(mac, None).as_deref(), Some("avalon:b4:a2:eb:3e:11:9c"));
        assert_eq!(id(mac, Some("02010000cbd2fd6d")).as_deref(), Some("avalon:02010000cbd2fd6d"));
        let placeholders = r#"{"DNA":"0000000000000000","MAC":"AA:BB:CC:DD:EE:FF"}"#;
        assert_eq!(id(placeholders, Some("<DELETED>")), None);
        for mac in ["", "b4:a2", "zz:a2:eb:3e:11:9c", "é4:a2:eb:3e:11:9"] {
            assert_eq!(id(&format!(r#"{{"MAC":"{mac}"}}"#), None), None, "{mac}");
        }
    }

    #[test]
    fn the_device_row_has_what_the_recorded_reply_says() {
        let reply = include_bytes!("../../../tests/miner-sim/recordings/avalon_q/version.json");
        let reply = Json::parse(reply).unwrap();
        let version = &reply.get("VERSION").unwrap().items()[0];
        let beside = Beside { make: "avalon", dna: None, chips: Some(160) };
        let identity = identity(Some(version), &beside);
        assert_eq!(identity.device_id, None, "serial and MAC are placeholders");
        for (column, cell) in [
            (device::VENDOR, Cell::from("avalon")),
            (device::MODEL, Cell::from("Avalon Q")),
            (device::SERIAL, Cell::Null),
            (device::MAC, Cell::Null),
            (device::FIRMWARE_VERSION, Cell::from("25052801_14a19a2")),
            (device::HARDWARE_TYPE, Cell::from("Q_MM1v1_X1")),
            (device::BOARDS_EXPECTED, Cell::from(1)),
            (device::CHIPS_EXPECTED, Cell::from(160)),
        ] {
            assert_eq!(*identity.row.cell(column), cell);
        }
    }
}
