//! Who a Whatsminer says it is.

use racklake_schemas::Row;
use racklake_schemas::identity::real_identifier;
use racklake_schemas::tables::{self, device};

use super::super::exchange::section;
use super::super::filler::plain;
use super::super::identity::mac_address;
use super::super::json::Json;
use super::super::reader::Replies;
use super::parts::{DEVICE, Parts, message};
use crate::source::Identity;

/// The commands of the cgminer port that are about the identity.
pub(super) const COMMANDS: [&str; 3] = ["get_version", "get_miner_info", "devdetails"];

/// A part of what `get.device.info` says.
fn framed<'a>(replies: &'a Replies, part: &str) -> Option<&'a Json> {
    message(replies.ok(DEVICE)?)?.get(part)
}

fn told<'a>(replies: &'a Replies, command: &str) -> Option<&'a Json> {
    message(replies.ok(command)?)
}

fn text<'a>(json: Option<&'a Json>, names: &[&str]) -> Option<&'a str> {
    names
        .iter()
        .find_map(|name| json?.text_of(name))
        .map(|text| text.trim_matches(['\'', ' ']))
        .filter(|t| !t.is_empty())
}

/// The model: `M60S_VK40`.
pub(super) fn model(replies: &Replies) -> Option<&str> {
    let details = replies.ok("devdetails").and_then(|reply| section(reply, "DEVDETAILS").ok()?.first());
    text(framed(replies, "miner"), &["type"])
        .or_else(|| text(details, &["Model"]))
        .or_else(|| text(told(replies, "get_version"), &["miner_type"]))
}

/// The version of the interface on the cgminer port: 1 of `whatsminer v1.4.0`.
pub(super) fn interface(replies: &Replies) -> Option<u32> {
    let version = text(told(replies, "get_version"), &["api_ver"])?;
    let digits = version.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    digits.split('.').next()?.parse().ok()
}

/// The date in the firmware's version: 20251209 of `20251209.16.Rel2`.
pub(super) fn firmware_date(replies: &Replies) -> Option<u32> {
    text(told(replies, "get_version"), &["fw_ver"])?.split('.').next()?.parse().ok()
}

/// A text that is another one for another machine.
pub(super) fn mark(replies: &Replies, parts: &Parts<'_>) -> Option<String> {
    let serial = text(parts.device.json, &["miner-sn"]).map(plain).and_then(|serial| real_identifier(&serial));
    let network = text(framed(replies, "network"), &["mac"]);
    serial.or_else(|| network.or_else(|| parts.summary.text("MAC", "")).and_then(mac_address))
}

/// Whether a liquid cools the model: the second digit of its number is 3, 6 or 9.
pub(super) fn is_liquid_cooled(model: &str) -> bool {
    let digits: Vec<char> = model.trim_start_matches(['M', 'm']).chars().take(2).collect();
    matches!(digits.as_slice(), [first, '3' | '6' | '9'] if first.is_ascii_digit())
}

/// The identity, as far as it is told.
pub(super) fn identity(replies: &Replies, parts: &Parts<'_>, boards: usize) -> Identity {
    let version = told(replies, "get_version");
    let info = told(replies, "get_miner_info");
    let (machine, network) = (framed(replies, "miner"), framed(replies, "network"));
    let (system, psu) = (framed(replies, "system"), parts.psu.json);
    let summary = |name: &str| text(parts.summary.json, &[name]);
    let serial = text(machine, &["miner-sn"]).or_else(|| text(info, &["minersn"]));
    let serial = serial.map(plain).and_then(|serial| real_identifier(&serial));
    let mac = text(network, &["mac"]).or_else(|| text(info, &["mac"])).or_else(|| summary("MAC"));
    let mac = mac.and_then(mac_address);
    let firmware = text(system, &["fwversion"])
        .or_else(|| text(version, &["fw_ver"]))
        .or_else(|| summary("Firmware Version"))
        .or_else(|| text(parts.status.json, &["FirmwareVersion", "Firmware Version"]));
    let control_board = text(system, &["platform"])
        .or_else(|| text(version, &["platform"]))
        .or_else(|| summary("CB Platform"))
        .or_else(|| text(parts.summary.json, &["CB Version"]));
    let model = model(replies).map(plain);
    // All machines whose name begins with M compute SHA-256.
    let algorithm = model.as_deref().filter(|model| model.starts_with('M')).map(|_| "sha256");
    let mut row = Row::new(&tables::DEVICE);
    let mut set = |column: usize, value: Option<&str>| row.set(column, value.map(plain));
    set(device::VENDOR, Some("whatsminer"));
    set(device::MODEL, model.as_deref());
    set(device::SERIAL, serial.as_deref());
    set(device::MAC, mac.as_deref());
    set(device::FIRMWARE_VERSION, firmware);
    set(device::API_VERSION, text(system, &["api"]).or_else(|| text(version, &["api_ver"])));
    set(device::HOSTNAME, text(network, &["hostname"]).or_else(|| text(info, &["hostname"])));
    set(device::CONTROL_BOARD, control_board);
    set(device::HARDWARE_TYPE, text(machine, &["hash-board"]));
    set(device::ALGORITHM, algorithm);
    set(device::PSU_MODEL, text(psu, &["model", "name"]));
    set(device::PSU_SERIAL, text(psu, &["serial_no", "sn"]).or_else(|| text(info, &["powersn"])));
    set(device::PSU_FIRMWARE_VERSION, text(psu, &["sw_version", "fw_version", "swversion"]));
    row.set(device::BOARDS_EXPECTED, i32::try_from(boards).ok().filter(|boards| *boards > 0));
    Identity { device_id: serial.or(mac).map(|id| format!("whatsminer:{id}")), row }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_model_says_what_cools_it() {
        for (model, liquid) in [
            ("M30S++_VG40", false),
            ("M50S_VK20", false),
            ("M60S_VK40", false),
            ("M31S", false),
            ("M53S_VH30", true),
            ("M56S_VH30", true),
            ("M33S_VG30", true),
            ("M63_VL30", true),
            ("M66", true),
            ("M79_VM", true),
            ("M7BS_VM30", false),
            ("", false),
            ("M", false),
        ] {
            assert_eq!(is_liquid_cooled(model), liquid, "{model}");
        }
    }
}
