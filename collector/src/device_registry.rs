//! Who is at which address, and which session its counters are in.
//!
//! An id that was given to an address stays until a different UUID, serial or MAC is read there; where no identity can
//! be read the remembered one is used, and an address that was never identified has an id made of the address. A session
//! is the epoch of a device's counters: differences are valid within one. It reads no sensor and writes no file.

use std::collections::BTreeMap;
use std::sync::Mutex;

use racklake_schemas::identity::real_identifier;
use racklake_schemas::tables::device;
use racklake_schemas::{Cell, Row};
use serde_json::json;

use crate::event::detailed;
use crate::place::{DeviceLabels, locked};
use crate::source::{EventDraft, Identity};
use crate::state::Remembered;

type Key = (String, String);

/// The source whose devices are NVIDIA GPUs.
const GPUS: &str = "nvml";
/// The source whose devices are AMD GPUs.
const AMD_GPUS: &str = "amd";
/// The source whose one device is this host.
const HOST: &str = "hwmon";

/// All devices, by source and address.
#[derive(Debug)]
pub(crate) struct Devices {
    node: String,
    boot_id: String,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<Key, Entry>,
    /// An id or a session is not saved yet.
    identity_unsaved: bool,
    /// A counter is not saved yet.
    counters_unsaved: bool,
    /// When the kernel log said last that NVIDIA's driver was loaded, µs UTC; 0 where it has not.
    driver_loaded: i64,
}

#[derive(Debug, Default)]
struct Entry {
    remembered: Remembered,
    rack: Option<String>,
    /// Its identity was read in this run, and it has answered since.
    confirmed: bool,
}

/// What a read or a discovery saw at an address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) source: &'static str,
    pub(crate) address: &'a str,
    pub(crate) rack: Option<&'a str>,
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) lifetime: &'a [Option<i64>],
    /// Whether the device was absent until now.
    pub(crate) returned: bool,
    /// When, µs UTC.
    pub(crate) ts: i64,
}

/// What the registry makes of it.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) labels: DeviceLabels,
    pub(crate) events: Vec<EventDraft>,
}

/// The parts of an identity that can be compared.
#[derive(Debug, Clone, Default)]
struct Parts {
    uuid: Option<String>,
    serial: Option<String>,
    mac: Option<String>,
}

impl Devices {
    /// A registry that remembers what an earlier start saved.
    pub(crate) fn new(node: &str, boot_id: String, remembered: Vec<Remembered>) -> Devices {
        let entries = remembered.into_iter().map(|remembered| {
            let key = (remembered.source.clone(), remembered.address.clone());
            (key, Entry { remembered, ..Entry::default() })
        });
        let inner = Inner { entries: entries.collect(), ..Inner::default() };
        Devices { node: node.to_owned(), boot_id, inner: Mutex::new(inner) }
    }

    /// Takes what was seen and says how rows about it are labelled from now on.
    pub(crate) fn observe(&self, seen: Seen<'_>) -> Observed {
        let mut inner = locked(&self.inner);
        let key = (seen.source.to_owned(), seen.address.to_owned());
        inner.entries.entry(key.clone()).or_insert_with(|| self.stranger(&key));
        let mut events = Vec::new();
        if let Some((id, identity)) = seen.identity.and_then(|identity| Some((identity.device_id.as_ref()?, identity)))
        {
            self.identify(&mut inner, &key, id, &Parts::of(&identity.row), &mut events);
        }
        let Inner { entries, identity_unsaved, counters_unsaved, driver_loaded } = &mut *inner;
        let entry = entries.entry(key).or_default();
        entry.rack = seen.rack.map(str::to_owned);
        let (began, counted) = self.follow_session(&mut entry.remembered, seen, *driver_loaded, &mut events);
        *identity_unsaved |= began || !events.is_empty();
        *counters_unsaved |= counted;
        Observed { labels: labels(entry), events }
    }

    /// A device that is unreachable or lost no longer proves that it holds its id.
    pub(crate) fn lost_sight(&self, source: &str, address: &str) {
        let mut inner = locked(&self.inner);
        if let Some(entry) = inner.entries.get_mut(&(source.to_owned(), address.to_owned())) {
            entry.confirmed = false;
        }
    }

    /// The labels of the device at an address.
    pub(crate) fn lookup(&self, address: &str) -> Option<DeviceLabels> {
        let inner = locked(&self.inner);
        inner.entries.iter().find(|((_, place), _)| place == address).map(|(_, entry)| labels(entry))
    }

    /// The labels of the GPU at a PCI address that may lack the function: `0000:9b:00`.
    pub(crate) fn lookup_pci(&self, address: &str) -> Option<DeviceLabels> {
        let inner = locked(&self.inner);
        let is_there = |place: &str| place.strip_prefix(address).is_some_and(|f| f.is_empty() || f.starts_with('.'));
        let found = inner.entries.iter().find(|((source, place), _)| source == GPUS && is_there(place));
        found.map(|(_, entry)| labels(entry))
    }

    /// Whether any GPU is known.
    pub(crate) fn has_gpus(&self) -> bool {
        locked(&self.inner).entries.keys().any(|(source, _)| source == GPUS)
    }

    /// NVIDIA's driver was loaded at `ts` (µs UTC): counters of GPUs that were seen before it have begun anew.
    pub(crate) fn driver_loaded(&self, ts: i64) {
        let mut inner = locked(&self.inner);
        inner.driver_loaded = inner.driver_loaded.max(ts);
    }

    /// What to save, where anything has changed; changes of counters alone count only `with_counters`.
    pub(crate) fn unsaved(&self, with_counters: bool) -> Option<Vec<Remembered>> {
        let mut inner = locked(&self.inner);
        let wanted = inner.identity_unsaved || with_counters && inner.counters_unsaved;
        if !wanted {
            return None;
        }
        (inner.identity_unsaved, inner.counters_unsaved) = (false, false);
        Some(inner.entries.values().map(|entry| entry.remembered.clone()).collect())
    }

    /// Saving failed; what was taken is unsaved again.
    pub(crate) fn not_saved(&self) {
        locked(&self.inner).identity_unsaved = true;
    }

    fn stranger(&self, (source, address): &Key) -> Entry {
        let remembered = Remembered {
            source: source.clone(),
            address: address.clone(),
            device_id: self.id_of_address(source, address),
            ..Remembered::default()
        };
        Entry { remembered, ..Entry::default() }
    }

    fn id_of_address(&self, source: &str, address: &str) -> String {
        match source {
            GPUS | AMD_GPUS => format!("pci:{}:{address}", self.node),
            HOST => format!("host:{}", self.node),
            _ => format!("addr:{address}"),
        }
    }

    /// Compares what was read with what is remembered, and gives the address another id where it must have one.
    fn identify(&self, inner: &mut Inner, key: &Key, id: &str, parts: &Parts, events: &mut Vec<EventDraft>) {
        let Some(entry) = inner.entries.get_mut(key) else { return };
        entry.confirmed = true;
        let before = &mut entry.remembered;
        if before.identified && !parts.differ_from(before) {
            parts.add_to(before);
            return;
        }
        let old = before.device_id.clone();
        let (was_identified, was_seen) = (before.identified, before.session_id != 0);
        let address = key.1.as_str();
        if was_identified {
            *before = self.stranger(key).remembered;
        }
        let taken = self.take_id(inner, key, id, events);
        let details = json!({"address": address, "device_id_before": old, "device_id": taken});
        if was_identified {
            let message = format!("another device is at {address}: {taken}, before it was {old}");
            events.push(detailed("device_replaced", "warning", message, &details).about(address));
        } else if was_seen {
            let message = format!("the device at {address}, {old} until now, is {taken}");
            events.push(detailed("device_identified", "info", message, &details).about(address));
        }
        if let Some(entry) = inner.entries.get_mut(key) {
            entry.remembered.device_id = taken;
            entry.remembered.identified = true;
            parts.replace_in(&mut entry.remembered);
        }
    }

    /// The id that the address gets: the one that was read, unless another address holds it.
    fn take_id(&self, inner: &mut Inner, key: &Key, id: &str, events: &mut Vec<EventDraft>) -> String {
        let holds = |(other, entry): &(&Key, &mut Entry)| {
            *other != key && entry.remembered.identified && entry.remembered.device_id == id
        };
        let Some((holder_key, holder)) = inner.entries.iter_mut().find(holds) else { return id.to_owned() };
        let (address, other) = (key.1.as_str(), holder_key.1.clone());
        let details = json!({"device_id": id, "address": address, "address_before": other});
        if holder.confirmed {
            let taken = format!("{id}#{address}");
            let message = format!("{address} and {other} both say that they are {id}; {address} is called {taken}");
            events.push(detailed("device_id_conflict", "error", message, &details).about(address));
            return taken;
        }
        let moved = std::mem::replace(&mut holder.remembered, self.stranger(holder_key).remembered);
        let message = format!("{id} has moved from {other} to {address}");
        events.push(detailed("device_moved", "info", message, &details).about(address));
        // Its counters go on where they were, unless they say otherwise.
        if let Some(entry) = inner.entries.get_mut(key) {
            entry.remembered.session_id = moved.session_id;
            entry.remembered.boot_id = moved.boot_id;
            entry.remembered.lifetime = moved.lifetime;
        }
        id.to_owned()
    }

    /// Begins a new session where the counters have begun anew. Says whether one began and whether counters moved.
    fn follow_session(
        &self,
        device: &mut Remembered,
        seen: Seen<'_>,
        driver_loaded: i64,
        events: &mut Vec<EventDraft>,
    ) -> (bool, bool) {
        let fell = device
            .lifetime
            .iter()
            .zip(seen.lifetime)
            .any(|(last, now)| matches!((last, now), (Some(l), Some(n)) if n < l));
        let reason = match () {
            () if device.session_id == 0 => "first seen",
            () if device.boot_id != self.boot_id => "host restarted",
            () if seen.returned => "device returned",
            () if seen.source == GPUS && device.session_id < driver_loaded => "driver loaded",
            () if fell => "counters fell",
            () => {
                let moved = !seen.lifetime.is_empty();
                merge(&mut device.lifetime, seen.lifetime);
                return (false, moved);
            }
        };
        let before = device.session_id;
        // A read may have ended before the line about the driver was read.
        let loaded = if seen.source == GPUS { driver_loaded } else { 0 };
        device.session_id = seen.ts.max(before + 1).max(loaded);
        device.boot_id.clone_from(&self.boot_id);
        device.lifetime = seen.lifetime.to_vec();
        if before != 0 {
            let details = json!({"reason": reason, "session_id_before": before});
            let message = format!("the counters of {} begin anew: {reason}", device.device_id);
            events.push(detailed("session_started", "info", message, &details).about(&device.address));
        }
        (true, false)
    }
}

impl Parts {
    fn of(row: &Row) -> Parts {
        let text = |column: usize| match row.cell(column) {
            Cell::Text(text) => real_identifier(text),
            _ => None,
        };
        Parts { uuid: text(device::UUID), serial: text(device::SERIAL), mac: text(device::MAC) }
    }

    /// The strongest part that both have decides; where they share none, nothing different was read.
    fn differ_from(&self, device: &Remembered) -> bool {
        let pairs = [(&self.uuid, &device.uuid), (&self.serial, &device.serial), (&self.mac, &device.mac)];
        let both = |(a, b): (&Option<String>, &Option<String>)| a.as_ref().zip(b.as_ref()).map(|(a, b)| a != b);
        pairs.into_iter().find_map(both).unwrap_or(false)
    }

    fn add_to(&self, device: &mut Remembered) {
        for (read, known) in
            [(&self.uuid, &mut device.uuid), (&self.serial, &mut device.serial), (&self.mac, &mut device.mac)]
        {
            if read.is_some() {
                known.clone_from(read);
            }
        }
    }

    fn replace_in(&self, device: &mut Remembered) {
        let Parts { uuid, serial, mac } = self.clone();
        (device.uuid, device.serial, device.mac) = (uuid, serial, mac);
    }
}

fn labels(entry: &Entry) -> DeviceLabels {
    let Remembered { device_id, session_id, .. } = &entry.remembered;
    DeviceLabels { device_id: device_id.clone(), session_id: *session_id, rack: entry.rack.clone() }
}

/// Keeps the last value that was read of each counter.
fn merge(last: &mut Vec<Option<i64>>, now: &[Option<i64>]) {
    last.resize(last.len().max(now.len()), None);
    for (last, now) in last.iter_mut().zip(now) {
        *last = now.or(*last);
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::DEVICE;

    use super::*;

    fn miner(serial: Option<&str>, mac: Option<&str>) -> Identity {
        let mut row = Row::new(&DEVICE);
        row.set(device::SERIAL, serial);
        row.set(device::MAC, mac);
        let id = serial.and_then(real_identifier).or(mac.and_then(real_identifier));
        Identity { device_id: id.map(|id| format!("avalon:{id}")), row }
    }

    fn seen<'a>(address: &'a str, identity: Option<&'a Identity>) -> Seen<'a> {
        Seen { source: "miner", address, rack: None, identity, lifetime: &[], returned: false, ts: 100 }
    }

    fn devices(remembered: Vec<Remembered>) -> Devices {
        Devices::new("n1", "boot-1".to_owned(), remembered)
    }

    fn id(devices: &Devices, address: &str, identity: Option<&Identity>) -> (String, Vec<&'static str>) {
        let observed = devices.observe(seen(address, identity));
        (observed.labels.device_id, observed.events.iter().map(|event| event.event).collect())
    }

    fn told(id: &str, events: &[&'static str]) -> (String, Vec<&'static str>) {
        (id.to_owned(), events.to_vec())
    }

    #[test]
    fn an_id_stays_until_another_serial_or_mac_is_read() {
        let devices = devices(Vec::new());
        let (mac, mac_and_serial) =
            (miner(None, Some("00:1a:2b:3c:4d:5e")), miner(Some("S77"), Some("00:1a:2b:3c:4d:5e")));
        assert_eq!(id(&devices, "10.0.0.1:4028", Some(&mac)), told("avalon:00:1a:2b:3c:4d:5e", &[]));
        assert_eq!(id(&devices, "10.0.0.1:4028", None), told("avalon:00:1a:2b:3c:4d:5e", &[]));
        assert_eq!(id(&devices, "10.0.0.1:4028", Some(&mac_and_serial)), told("avalon:00:1a:2b:3c:4d:5e", &[]));
        let other = miner(Some("S88"), Some("00:1a:2b:3c:4d:5e"));
        assert_eq!(id(&devices, "10.0.0.1:4028", Some(&other)), told("avalon:S88", &["device_replaced"]));
    }

    #[test]
    fn an_address_that_was_never_identified_is_its_own_id() {
        let devices = devices(Vec::new());
        assert_eq!(
            id(&devices, "10.0.0.1:4028", Some(&miner(Some("00000000"), None))),
            told("addr:10.0.0.1:4028", &[])
        );
        let gpu = devices.observe(Seen { source: "nvml", ..seen("0000:9b:00.0", None) });
        assert_eq!(gpu.labels.device_id, "pci:n1:0000:9b:00.0");
        assert_eq!(
            id(&devices, "10.0.0.1:4028", Some(&miner(Some("S1"), None))),
            told("avalon:S1", &["device_identified"])
        );
    }

    #[test]
    fn the_second_of_two_with_one_id_is_told_apart() {
        let devices = devices(Vec::new());
        let identity = miner(Some("S1"), None);
        assert_eq!(id(&devices, "a:1", Some(&identity)), told("avalon:S1", &[]));
        assert_eq!(id(&devices, "b:1", Some(&identity)), told("avalon:S1#b:1", &["device_id_conflict"]));
        assert_eq!(id(&devices, "b:1", Some(&identity)), told("avalon:S1#b:1", &[]));
    }

    #[test]
    fn a_device_that_moves_takes_its_id_and_session_along() {
        let devices = devices(Vec::new());
        let identity = miner(Some("S1"), None);
        let session = devices.observe(seen("a:1", Some(&identity))).labels.session_id;
        devices.lost_sight("miner", "a:1");
        let moved = devices.observe(Seen { ts: 900, ..seen("b:1", Some(&identity)) });
        assert_eq!((moved.labels.device_id.as_str(), moved.labels.session_id), ("avalon:S1", session));
        assert_eq!(id(&devices, "a:1", None).0, "addr:a:1");
    }

    #[test]
    fn what_was_remembered_is_used_where_nothing_can_be_read() {
        let first = devices(Vec::new());
        id(&first, "a:1", Some(&miner(Some("S1"), None)));
        let second = devices(first.unsaved(false).unwrap());
        assert_eq!(id(&second, "a:1", None), told("avalon:S1", &[]));
        assert!(second.unsaved(false).is_none());
    }

    #[test]
    fn a_session_ends_when_counters_fall_the_host_restarts_or_the_device_returns() {
        let first = devices(Vec::new());
        let at = |devices: &Devices, ts, lifetime: &[Option<i64>], returned| {
            let observed = devices.observe(Seen { ts, lifetime, returned, ..seen("a:1", None) });
            observed.labels.session_id
        };
        assert_eq!(at(&first, 100, &[Some(5), Some(5)], false), 100);
        assert_eq!(at(&first, 200, &[None, Some(5)], false), 100);
        assert_eq!(at(&first, 300, &[Some(4), Some(6)], false), 300, "below the last value that was read");
        assert_eq!(at(&first, 400, &[], true), 400);
        assert_eq!(at(&first, 400, &[], true), 401, "sessions are told apart within one microsecond");
        let saved = first.unsaved(true).unwrap();
        let same_boot = Devices::new("n1", "boot-1".to_owned(), saved.clone());
        assert_eq!(at(&same_boot, 500, &[], false), 401);
        let next_boot = Devices::new("n1", "boot-2".to_owned(), saved);
        assert_eq!(at(&next_boot, 500, &[], false), 500);
    }
}
