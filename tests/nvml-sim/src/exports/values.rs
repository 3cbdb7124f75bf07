//! What each field holds.

use nvml_wrapper_sys::bindings as nvml;

use super::ecc::{BANKS, Memory, by_place, memory_errors, protected, short, with_rows};
use super::limits::{milliwatts, power_min};
use super::links::{counters, is_up, mbps, nvlink_version, traffic};
use super::{INVALID_ARGUMENT, NOT_SUPPORTED};
use crate::counters::Counter;
use crate::library::Code;
use crate::scenario::Architecture;
use crate::unit::Unit;

const UNSIGNED_INT: u32 = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
const UNSIGNED_LONG_LONG: u32 = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
const SIGNED_INT: u32 = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT;

/// A field's value and the type that it usually has.
type Field = (i64, u32);

fn int(value: u32) -> Result<Field, Code> {
    Ok((i64::from(value), UNSIGNED_INT))
}

fn long(value: u64) -> Result<Field, Code> {
    Ok((value as i64, UNSIGNED_LONG_LONG))
}

/// The number that a field has since driver 580.82; before it, the fields from 251 on were numbered otherwise. A field that
/// the driver does not know is not supported.
pub(super) fn canonical(id: u32, driver_version: &str) -> Result<u32, Code> {
    let mut parts = driver_version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    match id {
        _ if version >= (580, 82) => Ok(id),
        // Three clocks event reasons and two fields of power balancing, which later followed those of power smoothing.
        251..=255 => Ok(id + 18),
        256..=273 => Ok(id - 5),
        274.. => Err(NOT_SUPPORTED),
        _ => Ok(id),
    }
}

/// A field, by the number that it has since driver 580.82.
pub(super) fn value_of(unit: &mut Unit, id: u32, scope: u32) -> Result<Field, Code> {
    match id {
        1..=31 | 92 | 93 => memory(unit, id),
        142..=145 | 301..=307 => remaps(unit, id),
        74..=79 | 269..=271 => long(unit.model.held_back(id)),
        82 => int(unit.model.memory_celsius() as u32),
        83 => long(unit.model.energy()),
        91 => int(unit.gpu.nvlinks),
        90 if unit.gpu.nvlinks > 0 => int(unit.gpu.nvlink_mbps),
        32..=73 | 84..=90 | 96..=141 | 146..=168 | 200..=225 | 235..=250 | 289..=296 => nvlink(unit, id, scope),
        94 | 95 | 169 | 173..=183 | 197 | 198 => pcie(unit, id),
        170..=172 | 231..=234 => c2c(unit, id, scope),
        184 => int(1),
        185..=192 => power(unit, id, scope),
        193..=196 => {
            let margins = [-8, -2, 0, 0];
            Ok((margins[(id - 193) as usize], SIGNED_INT))
        }
        199 => int(1),
        226 => int(u32::from(unit.gpu.reset_required || unit.gpu.recovery_action == 1)),
        227 => int(u32::from(unit.gpu.recovery_action == 4)),
        230 => int(unit.gpu.recovery_action),
        // Power smoothing: what is left of the life of its hardware.
        258 if unit.gpu.architecture >= Architecture::Blackwell => int(97),
        _ => Err(NOT_SUPPORTED),
    }
}

/// ECC and its errors.
fn memory(unit: &Unit, id: u32) -> Result<Field, Code> {
    let flag = |flag: bool| int(u32::from(flag));
    match id {
        1 => return flag(unit.gpu.ecc[0]),
        2 => return flag(unit.gpu.ecc[1]),
        _ => protected(unit)?,
    }
    let errors = |uncorrected, aggregate, place| long(memory_errors(unit, uncorrected, aggregate, place));
    match id {
        3 => errors(false, false, Memory::All),
        4 => errors(true, false, Memory::All),
        5 => errors(false, true, Memory::All),
        6 => errors(true, true, Memory::All),
        11 => errors(false, false, Memory::Dram),
        12 => errors(true, false, Memory::Dram),
        22 => errors(false, true, Memory::Dram),
        23 => errors(true, true, Memory::Dram),
        _ => by_place(unit).and_then(|()| at_place(unit, id)),
    }
}

/// Errors of a place, and retired pages, as GPUs before Ampere have them.
fn at_place(unit: &Unit, id: u32) -> Result<Field, Code> {
    const PAIRS: [Memory; 5] = [Memory::L1, Memory::L2, Memory::Dram, Memory::Register, Memory::Texture];
    let errors = |first: u32, aggregate| {
        long(memory_errors(unit, (id - first) % 2 == 1, aggregate, PAIRS[((id - first) / 2) as usize]))
    };
    let pages = |counter| int(short(unit.counters.aggregate(counter)));
    match id {
        7..=16 => errors(7, false),
        17 => long(memory_errors(unit, true, false, Memory::Cbu)),
        18..=27 => errors(18, true),
        28 => long(memory_errors(unit, true, true, Memory::Cbu)),
        29 => pages(Counter::RetiredCorrected),
        30 => pages(Counter::RetiredUncorrected),
        31 | 92 | 93 => int(u32::from(unit.gpu.retire_pending)),
        _ => Err(NOT_SUPPORTED),
    }
}

/// Remapped rows, and remapped banks of Blackwell.
fn remaps(unit: &Unit, id: u32) -> Result<Field, Code> {
    with_rows(unit)?;
    let ever = |counter| unit.counters.aggregate(counter);
    let flag = |flag: bool| int(u32::from(flag));
    match id {
        142 => int(short(ever(Counter::RemappedCorrected))),
        143 => int(short(ever(Counter::RemappedUncorrected))),
        144 => flag(unit.gpu.remap_pending),
        145 => flag(unit.gpu.remap_failed),
        301 => int(short(ever(Counter::RemapInactiveCorrected))),
        302 => int(short(ever(Counter::RemapInactiveUncorrected))),
        _ if unit.gpu.architecture < Architecture::Blackwell => Err(NOT_SUPPORTED),
        303 => int(short(ever(Counter::BankRemapped))),
        304 => int(short(ever(Counter::BankRemapInactive))),
        305 => int(BANKS.saturating_sub(short(ever(Counter::BankRemapped)))),
        306 => int(0),
        307 => flag(unit.gpu.bank_pending),
        _ => Err(NOT_SUPPORTED),
    }
}

fn pcie(unit: &Unit, id: u32) -> Result<Field, Code> {
    const ERRORS: [Counter; 11] = [
        Counter::PcieCorrectable,
        Counter::PcieNakReceived,
        Counter::PcieReceiver,
        Counter::PcieBadTlp,
        Counter::PcieNakSent,
        Counter::PcieBadDllp,
        Counter::PcieNonFatal,
        Counter::PcieFatal,
        Counter::PcieUnsupportedRequest,
        Counter::PcieLcrc,
        Counter::PcieLane,
    ];
    let count = |counter| unit.counters.volatile(counter);
    let bytes = |rate: f64| long((unit.model.load_seconds() * rate) as u64);
    match id {
        94 => int(short(count(Counter::PcieReplay))),
        95 => int(short(count(Counter::PcieReplayRollover))),
        169 => int(short(count(Counter::PcieRecovery))),
        173..=183 => int(short(count(ERRORS[(id - 173) as usize]))),
        197 => bytes(1.1e9),
        198 => bytes(2.3e9),
        _ => Err(NOT_SUPPORTED),
    }
}

/// Power and its limits; the scope is 0 for the GPU, 1 for the module around it, 2 for its memory.
fn power(unit: &mut Unit, id: u32, scope: u32) -> Result<Field, Code> {
    if scope > 2 {
        return Err(NOT_SUPPORTED);
    }
    match id {
        185 => int(unit.model.power(scope)),
        186 => int(unit.model.power_instant(scope)),
        _ if scope > 0 => Err(NOT_SUPPORTED),
        187 => int(milliwatts(power_min(unit))),
        188 | 189 => int(milliwatts(unit.gpu.power_max_watts)),
        190 | 192 => int(milliwatts(unit.gpu.power_limit())),
        191 => long(unit.model.energy()),
        _ => Err(NOT_SUPPORTED),
    }
}

/// C2C links; the scope is the link.
fn c2c(unit: &Unit, id: u32, scope: u32) -> Result<Field, Code> {
    match (unit.gpu.c2c_links, id) {
        (0, _) => Err(NOT_SUPPORTED),
        (links, 170) => int(links),
        (links, _) if scope >= links => Err(INVALID_ARGUMENT),
        (_, 171) => int(1),
        (_, 172) => int(44_712),
        (_, 231) => int(short(unit.counters.volatile(Counter::C2cInterrupt))),
        (_, 232) => int(short(unit.counters.volatile(Counter::C2cReplay))),
        (_, 233) => int(short(unit.counters.volatile(Counter::C2cReplayB2b))),
        (_, 234) => int(0),
        _ => Err(NOT_SUPPORTED),
    }
}

/// Fields of one link each: the first of six links, the number of its other six.
const BY_LINK: [(u32, u32, Counter); 4] = [
    (32, 96, Counter::NvlinkCrcFlit),
    (39, 102, Counter::NvlinkCrcData),
    (46, 108, Counter::NvlinkReplay),
    (53, 114, Counter::NvlinkRecovery),
];

/// NVLinks; the scope is the link where the field has none of its own.
fn nvlink(unit: &Unit, id: u32, scope: u32) -> Result<Field, Code> {
    for (first, second, counter) in BY_LINK {
        match id {
            _ if (first..first + 6).contains(&id) => return count(unit, id - first, counter),
            _ if id == first + 6 => return total(unit, counter),
            _ if (second..second + 6).contains(&id) => return count(unit, id - second + 6, counter),
            _ => {}
        }
    }
    match id {
        84..=89 => counters(unit, id - 84).and_then(|_| int(mbps(unit, id - 84))),
        132..=137 => counters(unit, id - 126).and_then(|_| int(mbps(unit, id - 126))),
        148..=159 => count(unit, id - 148, Counter::NvlinkEccData),
        160 => total(unit, Counter::NvlinkEccData),
        // KiB since the driver was loaded.
        138..=141 => {
            counters(unit, scope)?;
            let headers = if id > 139 { 1.06 } else { 1.0 };
            long((traffic(unit, scope, id % 2 == 1) as f64 * headers / 1024.0) as u64)
        }
        146 => counters(unit, scope).and_then(|_| int(scope + 16)),
        147 => counters(unit, 0).and_then(|_| int(unit.gpu.nvlinks)),
        161 => count(unit, scope, Counter::NvlinkReplay),
        162 => count(unit, scope, Counter::NvlinkRecovery),
        163 => count(unit, scope, Counter::NvlinkCrcFlit),
        164 => counters(unit, scope).and_then(|_| int(mbps(unit, scope))),
        165 => counters(unit, scope).and_then(|_| int(u32::from(is_up(unit, scope)))),
        166 => counters(unit, scope).and_then(|_| int(nvlink_version())),
        167 | 200..=204 | 223..=225 => quantity(unit, id, scope),
        205..=222 | 235..=250 | 289..=295 => quality(unit, id, scope),
        296 => counters(unit, scope).and_then(|_| int(mbps(unit, scope))),
        _ => Err(NOT_SUPPORTED),
    }
}

/// What a link has carried, and how it sleeps.
fn quantity(unit: &Unit, id: u32, scope: u32) -> Result<Field, Code> {
    counters(unit, scope)?;
    match id {
        167 => int(0),
        200 => int(8191),
        201 => long(traffic(unit, scope, false) / 256),
        202 => long(traffic(unit, scope, false)),
        203 => long(traffic(unit, scope, true) / 256),
        204 => long(traffic(unit, scope, true)),
        223 => int(1),
        224 => int(0),
        225 => int(1),
        _ => Err(NOT_SUPPORTED),
    }
}

/// Errors of a link, and how many of the bits are wrong.
fn quality(unit: &Unit, id: u32, scope: u32) -> Result<Field, Code> {
    const ERRORS: [Counter; 11] = [
        Counter::NvlinkVl15Dropped,
        Counter::NvlinkMalformed,
        Counter::NvlinkOverrun,
        Counter::NvlinkReceive,
        Counter::NvlinkReceiveRemote,
        Counter::NvlinkReceiveGeneral,
        Counter::NvlinkIntegrity,
        Counter::NvlinkDiscard,
        Counter::NvlinkRecovered,
        Counter::NvlinkRecoveryFailed,
        Counter::NvlinkRecoveryEvent,
    ];
    let link = counters(unit, scope)?;
    // Four lanes' worth of bits; without traffic nothing is known of errors.
    let bits = (traffic(unit, scope, true) as f64 * 8.0).max(1.0);
    let rate = |counter| long(encoded_rate(link.volatile(counter) as f64 / bits));
    match id {
        205..=215 => count(unit, scope, ERRORS[(id - 205) as usize]),
        216 | 291 => rate(Counter::NvlinkRawLane0),
        217 | 292 => rate(Counter::NvlinkRawLane1),
        218 | 293 => long(encoded_rate(
            (link.volatile(Counter::NvlinkRawLane0) + link.volatile(Counter::NvlinkRawLane1)) as f64 / bits,
        )),
        219 => count(unit, scope, Counter::NvlinkEffective),
        220 => rate(Counter::NvlinkEffective),
        221 => count(unit, scope, Counter::NvlinkSymbol),
        222 => rate(Counter::NvlinkSymbol),
        235 => long(traffic(unit, scope, true) / 64),
        236..=250 => long(0),
        289 => count(unit, scope, Counter::NvlinkRawLane0),
        290 => count(unit, scope, Counter::NvlinkRawLane1),
        294 => long(traffic(unit, scope, false) / 128),
        295 => count(unit, scope, Counter::NvlinkPlrRetry),
        _ => Err(NOT_SUPPORTED),
    }
}

/// A bit error rate as nvml.h packs it: the exponent below ten in the low 8 bits, four bits of mantissa above them.
fn encoded_rate(rate: f64) -> u64 {
    if rate <= 0.0 {
        return 0;
    }
    let exponent = (-rate.log10()).ceil().clamp(0.0, 255.0);
    let mantissa = (rate * 10f64.powf(exponent)).round().clamp(1.0, 15.0);
    (mantissa as u64) << 8 | exponent as u64
}

fn count(unit: &Unit, link: u32, counter: Counter) -> Result<Field, Code> {
    long(counters(unit, link)?.volatile(counter))
}

fn total(unit: &Unit, counter: Counter) -> Result<Field, Code> {
    counters(unit, 0)?;
    long(unit.links.iter().map(|link| link.volatile(counter)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_from_251_on_are_numbered_as_the_driver_has_them() {
        for (driver, id, expected) in [
            ("570.124.06", 251, Ok(269)),
            ("570.124.06", 253, Ok(271)),
            ("570.124.06", 269, Ok(264)),
            ("570.124.06", 273, Ok(268)),
            ("570.124.06", 301, Err(NOT_SUPPORTED)),
            ("580.65.06", 251, Ok(269)),
            ("580.82.07", 251, Ok(251)),
            ("580.82.07", 269, Ok(269)),
            ("580.95.05", 301, Ok(301)),
            ("570.124.06", 186, Ok(186)),
        ] {
            assert_eq!(canonical(id, driver), expected, "{driver} {id}");
        }
    }

    #[test]
    fn a_bit_error_rate_is_packed() {
        assert_eq!(encoded_rate(0.0), 0);
        assert_eq!(encoded_rate(3e-9), 3 << 8 | 9);
        assert_eq!(encoded_rate(1e-12), 1 << 8 | 12);
    }
}
