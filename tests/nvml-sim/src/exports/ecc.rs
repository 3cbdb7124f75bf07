//! Errors of the memory and what was done about them: ECC counters, remapped rows, retired pages, repairs.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;

use super::{
    INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, answer_numbers, answer_unit, given_struct, readings, signatures, version,
    versioned_readings,
};
use crate::counters::Counter;
use crate::library::{Code, Given, library};
use crate::scenario::Architecture;
use crate::unit::Unit;

/// Active and waiting remaps, as nvml.h has them since 13.1; the bindings do not know them.
#[repr(C)]
struct RemappedRowsV2 {
    corrected_active: c_uint,
    corrected_inactive: c_uint,
    uncorrected_active: c_uint,
    uncorrected_inactive: c_uint,
    pending: c_uint,
    failure_occurred: c_uint,
}

/// Whether memory is beyond repair, as nvml.h has it since 13.1.
#[repr(C)]
struct UnrepairableMemory {
    version: c_uint,
    unrepairable_memory: c_uint,
}

given_struct!(RemappedRowsV2 {
    corrected_active,
    corrected_inactive,
    uncorrected_active,
    uncorrected_inactive,
    pending,
    failure_occurred
});
given_struct!(UnrepairableMemory { unrepairable_memory });
given_struct!(nvml::nvmlRowRemapperHistogramValues_t { max, high, partial, low, none });
given_struct!(nvml::nvmlEccErrorCounts_t { l1Cache, l2Cache, deviceMemory, registerFile });
given_struct!(nvml::nvmlRepairStatus_t { bChannelRepairPending, bTpcRepairPending });
given_struct!(nvml::nvmlEccSramErrorStatus_t {
    aggregateUncParity,
    aggregateUncSecDed,
    aggregateCor,
    volatileUncParity,
    volatileUncSecDed,
    volatileCor,
    aggregateUncBucketL2,
    aggregateUncBucketSm,
    aggregateUncBucketPcie,
    aggregateUncBucketMcu,
    aggregateUncBucketOther,
    bThresholdExceeded
});

/// Banks of the memory that can have remapped rows.
pub(super) const BANKS: u32 = 640;

/// A count that fits into an `unsigned int`.
pub(super) fn short(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Errors of a kind (0 corrected, 1 uncorrected) since the driver was loaded (0) or ever (1), at a place.
pub(super) fn memory_errors(unit: &Unit, uncorrected: bool, aggregate: bool, place: Memory) -> u64 {
    let count = |counter| if aggregate { unit.counters.aggregate(counter) } else { unit.counters.volatile(counter) };
    let of = |corrected, uncorrected_one| count(if uncorrected { uncorrected_one } else { corrected });
    let sram = || {
        if uncorrected {
            count(Counter::SramParity) + count(Counter::SramSecded)
        } else {
            count(Counter::SramCorrected)
        }
    };
    match place {
        Memory::Dram => of(Counter::DramCorrected, Counter::DramUncorrected),
        Memory::Sram => sram(),
        Memory::L1 => of(Counter::L1Corrected, Counter::L1Uncorrected),
        Memory::L2 => of(Counter::L2Corrected, Counter::L2Uncorrected),
        Memory::Register => of(Counter::RegisterCorrected, Counter::RegisterUncorrected),
        Memory::Texture => of(Counter::TextureCorrected, Counter::TextureUncorrected),
        Memory::Cbu if uncorrected => count(Counter::CbuUncorrected),
        Memory::Cbu => 0,
        Memory::All => PLACES.iter().map(|place| memory_errors(unit, uncorrected, aggregate, *place)).sum(),
    }
}

/// Every place that has errors of its own.
const PLACES: [Memory; 7] =
    [Memory::Dram, Memory::Sram, Memory::L1, Memory::L2, Memory::Register, Memory::Texture, Memory::Cbu];

/// Where an error can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    Dram,
    Sram,
    L1,
    L2,
    Register,
    Texture,
    Cbu,
    All,
}

/// What only a GPU that counts errors by place, and retires pages, supports.
pub(super) fn by_place(unit: &Unit) -> Result<(), Code> {
    if unit.gpu.architecture == Architecture::Volta { Ok(()) } else { Err(NOT_SUPPORTED) }
}

/// What only a GPU that remaps rows supports.
pub(super) fn with_rows(unit: &Unit) -> Result<(), Code> {
    protected(unit)?;
    if unit.gpu.architecture == Architecture::Volta { Err(NOT_SUPPORTED) } else { Ok(()) }
}

/// What a GPU whose ECC is off does not support.
pub(super) fn protected(unit: &Unit) -> Result<(), Code> {
    if unit.gpu.ecc[0] { Ok(()) } else { Err(NOT_SUPPORTED) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEccMode(
    device: nvml::nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer_numbers(device, "nvmlDeviceGetEccMode", [current, pending], |unit| Ok(unit.gpu.ecc.map(u32::from)))
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvml::nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    out: *mut c_ulonglong,
) -> Code {
    let arg = Some(i64::from(kind * 10 + counter));
    // SAFETY: the contract of the C function.
    unsafe {
        answer_unit(device, "nvmlDeviceGetTotalEccErrors", arg, out, |unit| {
            protected(unit)?;
            if kind > 1 || counter > 1 {
                return Err(INVALID_ARGUMENT);
            }
            Ok(memory_errors(unit, kind == 1, counter == 1, Memory::All))
        })
    }
}

/// The argument is told as the digits kind, counter, location.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryErrorCounter(
    device: nvml::nvmlDevice_t,
    kind: c_uint,
    counter: c_uint,
    location: c_uint,
    out: *mut c_ulonglong,
) -> Code {
    let arg = Some(i64::from(kind * 100 + counter * 10 + location));
    // SAFETY: the contract of the C function.
    unsafe {
        answer_unit(device, "nvmlDeviceGetMemoryErrorCounter", arg, out, |unit| {
            protected(unit)?;
            let place = match location {
                _ if kind > 1 || counter > 1 || location > 7 => return Err(INVALID_ARGUMENT),
                2 => Memory::Dram,
                7 => with_rows(unit).map(|()| Memory::Sram)?,
                // Since Ampere there is one number for caches and registers.
                0 => by_place(unit).map(|()| Memory::L1)?,
                1 => by_place(unit).map(|()| Memory::L2)?,
                3 => by_place(unit).map(|()| Memory::Register)?,
                4 => by_place(unit).map(|()| Memory::Texture)?,
                6 => by_place(unit).map(|()| Memory::Cbu)?,
                _ => return Err(NOT_SUPPORTED),
            };
            Ok(memory_errors(unit, kind == 1, counter == 1, place))
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetDetailedEccErrors(
    device: nvml::nvmlDevice_t,
    _kind: c_uint,
    _counter: c_uint,
    out: *mut nvml::nvmlEccErrorCounts_t,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { answer_unit(device, "nvmlDeviceGetDetailedEccErrors", None, out, |_| Err(NOT_SUPPORTED)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvml::nvmlDevice_t,
    corrected: *mut c_uint,
    uncorrected: *mut c_uint,
    pending: *mut c_uint,
    failure: *mut c_uint,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe {
        answer_numbers(device, "nvmlDeviceGetRemappedRows", [corrected, uncorrected, pending, failure], |unit| {
            with_rows(unit)?;
            let rows = |counter| short(unit.counters.aggregate(counter));
            let (corrected, uncorrected) = (rows(Counter::RemappedCorrected), rows(Counter::RemappedUncorrected));
            Ok([corrected, uncorrected, u32::from(unit.gpu.remap_pending), u32::from(unit.gpu.remap_failed)])
        })
    }
}

readings! {
    nvmlDeviceGetRemappedRows_v2: RemappedRowsV2 = |unit| {
        with_rows(unit)?;
        let rows = |counter| short(unit.counters.aggregate(counter));
        Ok(RemappedRowsV2 {
            corrected_active: rows(Counter::RemappedCorrected),
            corrected_inactive: rows(Counter::RemapInactiveCorrected),
            uncorrected_active: rows(Counter::RemappedUncorrected),
            uncorrected_inactive: rows(Counter::RemapInactiveUncorrected),
            pending: u32::from(unit.gpu.remap_pending),
            failure_occurred: u32::from(unit.gpu.remap_failed),
        })
    };
    nvmlDeviceGetRowRemapperHistogram: nvml::nvmlRowRemapperHistogramValues_t = |unit| {
        with_rows(unit)?;
        let rows = unit.counters.aggregate(Counter::RemappedCorrected)
            + unit.counters.aggregate(Counter::RemappedUncorrected);
        let full = u32::from(unit.gpu.remap_failed);
        let used = short(rows).min(BANKS - full);
        Ok(nvml::nvmlRowRemapperHistogramValues_t {
            max: BANKS - full - used,
            high: used,
            partial: 0,
            low: 0,
            none: full,
        })
    };
    nvmlDeviceGetRetiredPagesPendingStatus: c_uint = |unit| {
        by_place(unit)?;
        Ok(u32::from(unit.gpu.retire_pending))
    };
    nvmlDeviceGetBBXTimeData_v1: c_uint = |unit| Ok(unit.gpu.time_run_seconds);
    nvmlDeviceGetInforomConfigurationChecksum: c_uint = |unit| match unit.gpu.inforom_corrupted {
        true => Err(nvml::nvmlReturn_enum_NVML_ERROR_CORRUPTED_INFOROM),
        false => Ok(0x5a17_c0de),
    };
}

versioned_readings! {
    nvmlDeviceGetRepairStatus: nvml::nvmlRepairStatus_t, 1 = |unit| Ok(nvml::nvmlRepairStatus_t {
        version: version::<nvml::nvmlRepairStatus_t>(1),
        bChannelRepairPending: u32::from(unit.gpu.repair_pending[0]),
        bTpcRepairPending: u32::from(unit.gpu.repair_pending[1]),
    });
    nvmlDeviceGetUnrepairableMemoryFlag_v1: UnrepairableMemory, 1 = |unit| Ok(UnrepairableMemory {
        version: version::<UnrepairableMemory>(1),
        unrepairable_memory: u32::from(unit.gpu.unrepairable_memory),
    });
    nvmlDeviceGetSramEccErrorStatus: nvml::nvmlEccSramErrorStatus_t, 1 = |unit| {
        with_rows(unit)?;
        let (ever, now) = (|counter| unit.counters.aggregate(counter), |counter| unit.counters.volatile(counter));
        let uncorrected = ever(Counter::SramParity) + ever(Counter::SramSecded);
        Ok(nvml::nvmlEccSramErrorStatus_t {
            version: version::<nvml::nvmlEccSramErrorStatus_t>(1),
            aggregateUncParity: ever(Counter::SramParity),
            aggregateUncSecDed: ever(Counter::SramSecded),
            aggregateCor: ever(Counter::SramCorrected),
            volatileUncParity: now(Counter::SramParity),
            volatileUncSecDed: now(Counter::SramSecded),
            volatileCor: now(Counter::SramCorrected),
            // Most of them in the SMs, which are most of the die.
            aggregateUncBucketL2: uncorrected / 4,
            aggregateUncBucketSm: uncorrected - uncorrected / 4,
            aggregateUncBucketPcie: 0,
            aggregateUncBucketMcu: 0,
            aggregateUncBucketOther: 0,
            bThresholdExceeded: u32::from(unit.gpu.sram_threshold_exceeded),
        })
    };
}

/// Addresses of retired pages, and when, seconds UTC; or only how many there are.
struct Pages {
    count: u32,
    addresses: Vec<u64>,
}

impl Given for Pages {
    fn told(&self) -> serde_json::Value {
        serde_json::json!({ "count": self.count, "addresses": self.addresses })
    }

    fn garbage() -> Pages {
        Pages { count: u32::MAX, addresses: Vec::new() }
    }
}

/// Answers for the retired pages of a cause. Without room it says how many there are and returns 7.
///
/// # Safety
/// `count` is null or writable; the arrays are null or writable for `*count` numbers.
unsafe fn retired_pages(
    (device, call, cause): (nvml::nvmlDevice_t, &str, c_uint),
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
    times: Option<*mut c_ulonglong>,
) -> Code {
    if count.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller says that it is writable.
    let room = unsafe { count.read() } as usize;
    let has_arrays = !addresses.is_null() && times.is_none_or(|times| !times.is_null());
    let given = library().device(device, call, Some(i64::from(cause)), |state, index| {
        let counter = match cause {
            0 => Counter::RetiredCorrected,
            1 => Counter::RetiredUncorrected,
            _ => return Err(INVALID_ARGUMENT),
        };
        by_place(&state.units[index])?;
        let pages = short(state.units[index].counters.aggregate(counter));
        let fits = has_arrays && pages as usize <= room;
        let address = |page: u32| (u64::from(cause) << 32 | u64::from(page)) << 16;
        Ok(Pages { count: pages, addresses: if fits { (0..pages).map(address).collect() } else { Vec::new() } })
    });
    let pages = match given {
        Ok(pages) => pages,
        Err(code) => return code,
    };
    // SAFETY: as before; what is written fits into the arrays, since it was made only where it does.
    unsafe {
        count.write(pages.count);
        for (page, address) in pages.addresses.iter().enumerate() {
            addresses.add(page).write(*address);
            if let Some(times) = times {
                times.add(page).write(1_700_000_000 + page as u64);
            }
        }
    }
    if pages.addresses.len() == pages.count as usize { SUCCESS } else { super::INSUFFICIENT_SIZE }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRetiredPages(
    device: nvml::nvmlDevice_t,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { retired_pages((device, "nvmlDeviceGetRetiredPages", cause), count, addresses, None) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRetiredPages_v2(
    device: nvml::nvmlDevice_t,
    cause: c_uint,
    count: *mut c_uint,
    addresses: *mut c_ulonglong,
    times: *mut c_ulonglong,
) -> Code {
    // SAFETY: the contract of the C function.
    unsafe { retired_pages((device, "nvmlDeviceGetRetiredPages_v2", cause), count, addresses, Some(times)) }
}

signatures! {
    nvmlDeviceGetDetailedEccErrors
    nvmlDeviceGetEccMode
    nvmlDeviceGetInforomConfigurationChecksum
    nvmlDeviceGetMemoryErrorCounter
    nvmlDeviceGetRemappedRows
    nvmlDeviceGetRepairStatus
    nvmlDeviceGetRetiredPages
    nvmlDeviceGetRetiredPagesPendingStatus
    nvmlDeviceGetRetiredPages_v2
    nvmlDeviceGetRowRemapperHistogram
    nvmlDeviceGetSramEccErrorStatus
    nvmlDeviceGetTotalEccErrors
}
