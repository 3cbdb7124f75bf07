//! Who the host is, so that its sensors have a device: an id made of the machine id, and what its firmware says of it.

use std::path::Path;

use racklake_schemas::tables::{DEVICE, device as c};
use racklake_schemas::{Row, identity};
use sha2::{Digest, Sha256};

use crate::source::Identity;
use crate::sysfs;

/// What is hashed before the machine id, so that the result is of no use to other software that hashes it.
const PURPOSE: &[u8] = b"racklake host ";

/// The identity of the host under a root. Without a machine id it has no id, only a description.
pub(super) fn read(root: &Path) -> Identity {
    let mut row = Row::new(&DEVICE);
    row.set(c::DEVICE_KIND, "host");
    let firmware = |name: &str| {
        let text = sysfs::text(&root.join("sys/class/dmi/id").join(name)).ok()?;
        Some(text).filter(|text| !text.is_empty())
    };
    row.set(c::VENDOR, firmware("sys_vendor"));
    row.set(c::MODEL, firmware("product_name"));
    // Readable by root alone on most hosts.
    row.set(c::SERIAL, firmware("product_serial").and_then(|serial| identity::real_identifier(&serial)));
    row.set(c::BOARD_PART_NUMBER, firmware("board_name"));
    row.set(c::FIRMWARE_VERSION, firmware("bios_version"));
    Identity { device_id: id(root), row }
}

/// `host:` and 16 hex digits. The machine id itself is confidential, as its manual says, and leaves the host nowhere.
fn id(root: &Path) -> Option<String> {
    let machine = sysfs::text(&root.join("etc/machine-id")).ok()?;
    let is_one = machine.len() == 32 && machine.bytes().all(|b| b.is_ascii_hexdigit());
    is_one.then(|| {
        let hash = Sha256::new().chain_update(PURPOSE).chain_update(machine.to_ascii_lowercase()).finalize();
        let digits: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("host:{digits}")
    })
}
