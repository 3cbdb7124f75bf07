//! Exports of event sets: an XID that the scenario lists anew is delivered once, to the first set that asks for it.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_st, nvmlEventSet_t};
use serde_json::json;

use crate::code;
use crate::state::{answer, handle_of, node};

/// nvmlEventTypeXidCriticalError.
const XID_CRITICAL: u64 = 8;
/// What the simulated driver supports: ECC errors, XIDs and some newer bits.
const SUPPORTED: u64 = 0x1 | 0x2 | XID_CRITICAL | 0x8000;
/// Instance ids of a GPU without MIG.
const NO_INSTANCE: u32 = u32::MAX;

/// Sets by handle: which devices are registered for which events.
static SETS: Mutex<BTreeMap<usize, BTreeMap<usize, u64>>> = Mutex::new(BTreeMap::new());

fn sets() -> MutexGuard<'static, BTreeMap<usize, BTreeMap<usize, u64>>> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes an empty set.
///
/// # Safety
/// `set` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> u32 {
    // SAFETY: valid where it is not null.
    let Some(set) = (unsafe { set.as_mut() }) else { return code::INVALID_ARGUMENT };
    let mut sets = sets();
    let handle = sets.last_key_value().map_or(1, |(last, _)| last + 1);
    sets.insert(handle, BTreeMap::new());
    *set = std::ptr::without_provenance_mut(handle);
    code::SUCCESS
}

/// Ends a set.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> u32 {
    sets().remove(&set.addr()).map_or(code::INVALID_ARGUMENT, |_| code::SUCCESS)
}

/// The events that a device can tell.
///
/// # Safety
/// `types` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, types: *mut c_ulonglong) -> u32 {
    // SAFETY: valid where it is not null.
    let Some(types) = (unsafe { types.as_mut() }) else { return code::INVALID_ARGUMENT };
    match answer(device, "nvmlDeviceGetSupportedEventTypes", None, |_| Ok((SUPPORTED, SUPPORTED.into()))) {
        Ok(supported) => {
            *types = supported;
            code::SUCCESS
        }
        Err(rc) => rc,
    }
}

/// Adds a device to a set.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(device: nvmlDevice_t, types: c_ulonglong, set: nvmlEventSet_t) -> u32 {
    if types & !SUPPORTED != 0 {
        return code::NOT_SUPPORTED;
    }
    let Some(index) = device.addr().checked_sub(1) else { return code::INVALID_ARGUMENT };
    match sets().get_mut(&set.addr()) {
        Some(devices) => {
            *devices.entry(index).or_default() |= types;
            code::SUCCESS
        }
        None => code::INVALID_ARGUMENT,
    }
}

/// Waits for an event of the set, at most so many milliseconds.
///
/// # Safety
/// `data` must be valid or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(set: nvmlEventSet_t, data: *mut nvmlEventData_st, timeout: c_uint) -> u32 {
    // SAFETY: valid where it is not null.
    let Some(data) = (unsafe { data.as_mut() }) else { return code::INVALID_ARGUMENT };
    let start = Instant::now();
    loop {
        let Some(devices) = sets().get(&set.addr()).cloned() else { return code::INVALID_ARGUMENT };
        if let Some((index, xid)) = next_xid(&devices) {
            data.device = handle_of(index as u32);
            data.eventType = XID_CRITICAL;
            data.eventData = xid;
            data.gpuInstanceId = NO_INSTANCE;
            data.computeInstanceId = NO_INSTANCE;
            return code::SUCCESS;
        }
        if start.elapsed() >= Duration::from_millis(u64::from(timeout)) {
            return code::TIMEOUT;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn next_xid(registered: &BTreeMap<usize, u64>) -> Option<(usize, u64)> {
    let mut node = node();
    let wanted = |index: usize| registered.get(&index).is_some_and(|types| types & XID_CRITICAL != 0);
    let index = (0..node.devices.len()).find(|&index| {
        let device = &node.devices[index];
        wanted(index) && device.gpu.xid.len() > device.xids_told
    })?;
    let device = &mut node.devices[index];
    let xid = device.gpu.xid[device.xids_told];
    device.xids_told += 1;
    let uuid = device.uuid();
    node.tell(Some(uuid), "nvmlEventSetWait_v2", None, code::SUCCESS, json!({ "type": XID_CRITICAL, "data": xid }));
    Some((index, xid))
}
