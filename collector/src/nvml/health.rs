//! One slow read of one GPU, every minute: the calls behind `gpu_health`, then a row of `gpu_link_sample` for each link.

use std::time::Instant;

use racklake_schemas::fail_code;
use racklake_schemas::tables::{GPU_HEALTH, gpu_health as c};

use super::filler::{Filler, LACKING_BY_NAME};
use super::links;
use super::memory::Memory;
use super::raw::{Answer, CORRUPTED_INFOROM, Calls, Field, FieldAnswer, FieldValue, NOT_SUPPORTED};
use super::sample::integer;
use crate::source::Reading;

/// State of the fabric in which the rest of what it says means something.
const FABRIC_COMPLETED: u8 = 3;

/// Columns that one field each gives, with its number; the scope is the whole GPU.
const FIELDS: [(usize, u32); 60] = [
    (c::ECC_CORRECTED_VOLATILE, 3),
    (c::ECC_UNCORRECTED_VOLATILE, 4),
    (c::ECC_CORRECTED_AGGREGATE, 5),
    (c::ECC_UNCORRECTED_AGGREGATE, 6),
    (c::ECC_L1_CORRECTED_VOLATILE, 7),
    (c::ECC_L1_UNCORRECTED_VOLATILE, 8),
    (c::ECC_L2_CORRECTED_VOLATILE, 9),
    (c::ECC_L2_UNCORRECTED_VOLATILE, 10),
    (c::ECC_DRAM_CORRECTED_VOLATILE, 11),
    (c::ECC_DRAM_UNCORRECTED_VOLATILE, 12),
    (c::ECC_REGISTER_CORRECTED_VOLATILE, 13),
    (c::ECC_REGISTER_UNCORRECTED_VOLATILE, 14),
    (c::ECC_TEXTURE_CORRECTED_VOLATILE, 15),
    (c::ECC_TEXTURE_UNCORRECTED_VOLATILE, 16),
    (c::ECC_CBU_UNCORRECTED_VOLATILE, 17),
    (c::ECC_L1_CORRECTED_AGGREGATE, 18),
    (c::ECC_L1_UNCORRECTED_AGGREGATE, 19),
    (c::ECC_L2_CORRECTED_AGGREGATE, 20),
    (c::ECC_L2_UNCORRECTED_AGGREGATE, 21),
    (c::ECC_DRAM_CORRECTED_AGGREGATE, 22),
    (c::ECC_DRAM_UNCORRECTED_AGGREGATE, 23),
    (c::ECC_REGISTER_CORRECTED_AGGREGATE, 24),
    (c::ECC_REGISTER_UNCORRECTED_AGGREGATE, 25),
    (c::ECC_TEXTURE_CORRECTED_AGGREGATE, 26),
    (c::ECC_TEXTURE_UNCORRECTED_AGGREGATE, 27),
    (c::ECC_CBU_UNCORRECTED_AGGREGATE, 28),
    (c::PAGES_RETIRED_CORRECTED, 29),
    (c::PAGES_RETIRED_UNCORRECTED, 30),
    (c::PAGE_RETIREMENT_PENDING, 31),
    (c::NVLINK_CRC_FLIT_ERRORS, 38),
    (c::NVLINK_CRC_DATA_ERRORS, 45),
    (c::NVLINK_REPLAYS, 52),
    (c::NVLINK_RECOVERIES, 59),
    (c::NVLINKS, 91),
    (c::PCIE_REPLAYS, 94),
    (c::PCIE_REPLAY_ROLLOVERS, 95),
    (c::NVLINK_ECC_DATA_ERRORS, 160),
    (c::PCIE_RECOVERIES, 169),
    (c::C2C_LINKS, 170),
    (c::PCIE_CORRECTABLE_ERRORS, 173),
    (c::PCIE_NAKS_RECEIVED, 174),
    (c::PCIE_RECEIVER_ERRORS, 175),
    (c::PCIE_BAD_TLPS, 176),
    (c::PCIE_NAKS_SENT, 177),
    (c::PCIE_BAD_DLLPS, 178),
    (c::PCIE_NON_FATAL_ERRORS, 179),
    (c::PCIE_FATAL_ERRORS, 180),
    (c::PCIE_UNSUPPORTED_REQUESTS, 181),
    (c::PCIE_LCRC_ERRORS, 182),
    (c::PCIE_LANE_ERRORS, 183),
    (c::TEMP_MARGIN_SHUTDOWN_CELSIUS, 193),
    (c::TEMP_MARGIN_SLOWDOWN_CELSIUS, 194),
    (c::TEMP_MARGIN_MEMORY_MAX_CELSIUS, 195),
    (c::TEMP_MARGIN_GPU_MAX_CELSIUS, 196),
    (c::PCIE_TX_BYTES, 197),
    (c::PCIE_RX_BYTES, 198),
    (c::RECOVERY_ACTION, 230),
    (c::POWER_SMOOTHING_LIFETIME_PERCENT, 258),
    (c::BANKS_REMAPPED, 303),
    (c::BANK_REMAP_PENDING, 307),
];

/// Reads every column once, and every link.
pub(super) fn read<'a>(calls: &Calls<'a>, memory: &mut Memory<'a>) -> Reading {
    memory.age();
    let mut filler = Filler::new(&GPU_HEALTH, None, LACKING_BY_NAME, memory);
    filler.fields(calls, &FIELDS.map(|(column, id)| (column, Field { id, scope: 0 })));
    errors(&mut filler, calls);
    repairs(&mut filler, calls);
    chip_to_chip(&mut filler, calls);
    limits(&mut filler, calls);
    modes(&mut filler, calls);
    fabric(&mut filler, calls);
    let count = integer(&filler.row, c::NVLINKS).and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
    let mut links = Vec::new();
    for link in 0..count {
        if filler.ended.is_some() {
            break;
        }
        let found = links::read(calls, filler.memory, link);
        filler.ended = found.ended;
        filler.events.extend(found.events);
        links.push(found.row);
    }
    links::count_active(&mut filler, &links, count);
    let (row, events) = filler.finish(c::FIELDS_LATENCY_US, c::FIELDS_READ_AT);
    // The first three are those of the fast tier; places in the list are shared.
    let lifetime = vec![None, None, None, integer(&row, c::PCIE_REPLAYS)];
    let rows = std::iter::once(row).chain(links).collect();
    Reading { rows, lifetime, events, ..Reading::default() }
}

fn errors(filler: &mut Filler<'_, '_>, calls: &Calls<'_>) {
    let sram = [
        (c::ECC_SRAM_CORRECTED_VOLATILE, 0, 0),
        (c::ECC_SRAM_UNCORRECTED_VOLATILE, 1, 0),
        (c::ECC_SRAM_CORRECTED_AGGREGATE, 0, 1),
        (c::ECC_SRAM_UNCORRECTED_AGGREGATE, 1, 1),
    ];
    for (column, kind, life) in sram {
        filler.one(column, || calls.sram_ecc_errors(kind, life));
    }
    let by_unit = [
        c::SRAM_PARITY_UNCORRECTED_VOLATILE,
        c::SRAM_SECDED_UNCORRECTED_VOLATILE,
        c::SRAM_PARITY_UNCORRECTED_AGGREGATE,
        c::SRAM_SECDED_UNCORRECTED_AGGREGATE,
        c::SRAM_L2_UNCORRECTED_AGGREGATE,
        c::SRAM_SM_UNCORRECTED_AGGREGATE,
        c::SRAM_PCIE_UNCORRECTED_AGGREGATE,
        c::SRAM_MCU_UNCORRECTED_AGGREGATE,
        c::SRAM_OTHER_UNCORRECTED_AGGREGATE,
        c::SRAM_THRESHOLD_EXCEEDED,
    ];
    filler.many(by_unit, || {
        let errors = calls.sram_errors()?;
        let ([a, b, d, e], [l2, sm, pcie, mcu, other]) = (errors.uncorrected, errors.places);
        Ok([a, b, d, e, l2, sm, pcie, mcu, other, u64::from(errors.threshold_exceeded)])
    });
}

fn repairs(filler: &mut Filler<'_, '_>, calls: &Calls<'_>) {
    let remaps = [c::ROWS_REMAPPED_CORRECTED, c::ROWS_REMAPPED_UNCORRECTED, c::ROW_REMAP_PENDING, c::ROW_REMAP_FAILED];
    let inactive = [c::ROWS_REMAPPED_CORRECTED_INACTIVE, c::ROWS_REMAPPED_UNCORRECTED_INACTIVE];
    let mut version = filler.memory.remaps_version;
    let mut answer = None;
    filler.many(remaps, || {
        let remaps = calls.remaps(&mut version);
        answer = Some(remaps);
        remaps.map(|remaps| [remaps.corrected, remaps.uncorrected, remaps.pending, remaps.failed])
    });
    filler.memory.remaps_version = version;
    // Read with the others; a library that does not tell them lacks them.
    let answer = answer.map_or(Err(NOT_SUPPORTED), |answer| answer.and_then(|r| r.inactive.ok_or(NOT_SUPPORTED)));
    filler.many(inactive, || answer);
    let banks =
        [c::REMAP_BANKS_MAX, c::REMAP_BANKS_HIGH, c::REMAP_BANKS_PARTIAL, c::REMAP_BANKS_LOW, c::REMAP_BANKS_NONE];
    filler.many(banks, || calls.remap_histogram());
    filler.many([c::CHANNEL_REPAIR_PENDING, c::TPC_REPAIR_PENDING], || calls.repairs());
    filler.one(c::MEMORY_UNREPAIRABLE, || calls.memory_unrepairable());
    filler.one(c::BBX_RUN_SECONDS, || calls.run_seconds());
    if filler.asks_for(c::INFOROM_CHECKSUM) && filler.asks_for(c::INFOROM_CORRUPTED) {
        let began = Instant::now();
        let checksum = calls.inforom_checksum();
        filler.timed(&[c::INFOROM_CHECKSUM, c::INFOROM_CORRUPTED], began);
        filler.take(c::INFOROM_CHECKSUM, checksum);
        let corrupted = match checksum {
            Err(CORRUPTED_INFOROM) => Ok(1u32),
            other => other.map(|_| 0),
        };
        filler.take(c::INFOROM_CORRUPTED, corrupted);
    }
}

/// The links between the chips of a superchip, added up: a link's scope is its number.
fn chip_to_chip(filler: &mut Filler<'_, '_>, calls: &Calls<'_>) {
    const SUMS: [(usize, u32); 4] = [
        (c::C2C_LINKS_ACTIVE, 171),
        (c::C2C_INTERRUPTS, 231),
        (c::C2C_REPLAYS, 232),
        (c::C2C_REPLAYS_BACK_TO_BACK, 233),
    ];
    let links = integer(&filler.row, c::C2C_LINKS).and_then(|links| u32::try_from(links).ok()).unwrap_or(0);
    for (column, id) in SUMS {
        if links == 0 && filler.ended.is_none() && !filler.row.has_failed(c::C2C_LINKS) {
            filler.row.unsupported(column);
        }
        if links == 0 || !filler.asks_for(column) {
            continue;
        }
        let wanted: Vec<Field> = (0..links).map(|scope| Field { id, scope }).collect();
        let answers = calls.fields(&wanted);
        answers.iter().flatten().for_each(|answer| filler.took(answer));
        filler.take(column, answers.and_then(|answers| sum_of(&answers)));
    }
}

/// The sum of fields, or why one of them has no value.
fn sum_of(answers: &[FieldAnswer]) -> Answer<i64> {
    answers.iter().try_fold(0i64, |sum, answer| {
        let value = match answer.value? {
            FieldValue::Unsigned32(u32::MAX) => None,
            FieldValue::Unsigned32(value) => Some(i64::from(value)),
            FieldValue::Unsigned64(value) => i64::try_from(value).ok(),
            FieldValue::Signed(value) => Some(value),
            FieldValue::Float(_) | FieldValue::Unknown(..) => return Err(fail_code::UNPARSABLE),
        };
        value.and_then(|value| sum.checked_add(value)).ok_or(fail_code::OUT_OF_RANGE)
    })
}

fn limits(filler: &mut Filler<'_, '_>, calls: &Calls<'_>) {
    let thresholds = [
        c::TEMP_LIMIT_SHUTDOWN_CELSIUS,
        c::TEMP_LIMIT_SLOWDOWN_CELSIUS,
        c::TEMP_LIMIT_MEMORY_MAX_CELSIUS,
        c::TEMP_LIMIT_GPU_MAX_CELSIUS,
    ];
    for (which, column) in (0..).zip(thresholds) {
        filler.one(column, || calls.temperature_threshold(which));
    }
    filler.one(c::POWER_LIMIT_DEFAULT_MILLIWATTS, || calls.power_limit_default());
    filler.many([c::POWER_LIMIT_MIN_MILLIWATTS, c::POWER_LIMIT_MAX_MILLIWATTS], || calls.power_limit_range());
    filler.one(c::POWER_LIMIT_REQUESTED_MILLIWATTS, || calls.power_limit_requested());
    let clocks = [
        c::GRAPHICS_CLOCK_MAX_MEGAHERTZ,
        c::SM_CLOCK_MAX_MEGAHERTZ,
        c::MEMORY_CLOCK_MAX_MEGAHERTZ,
        c::VIDEO_CLOCK_MAX_MEGAHERTZ,
    ];
    for (domain, column) in (0..).zip(clocks) {
        filler.one(column, || calls.clock_max(domain));
    }
    filler.one(c::BAR1_TOTAL_BYTES, || calls.bar1().map(|[_, total]| total));
    filler.one(c::PCIE_GENERATION, || calls.pcie_generation());
    filler.one(c::PCIE_WIDTH, || calls.pcie_width());
}

fn modes(filler: &mut Filler<'_, '_>, calls: &Calls<'_>) {
    filler.many([c::ECC_MODE, c::ECC_MODE_PENDING], || calls.ecc_mode());
    filler.many([c::MIG_MODE, c::MIG_MODE_PENDING], || calls.mig_mode());
    filler.one(c::PERSISTENCE_MODE, || calls.persistence_mode());
    filler.one(c::COMPUTE_PROCESSES, || calls.compute_processes());
}

fn fabric(filler: &mut Filler<'_, '_>, calls: &Calls<'_>) {
    let rest = [c::FABRIC_STATUS, c::FABRIC_CLIQUE, c::FABRIC_HEALTH_MASK, c::FABRIC_HEALTH_SUMMARY];
    let (mut version, began) = (filler.memory.fabric_version, Instant::now());
    let mut answer = None;
    filler.one(c::FABRIC_STATE, || {
        let fabric = calls.fabric(&mut version);
        answer = Some(fabric);
        fabric.map(|fabric| u32::from(fabric.state))
    });
    filler.memory.fabric_version = version;
    filler.timed(&rest, began);
    match answer {
        Some(Ok(fabric)) if fabric.state == FABRIC_COMPLETED => {
            let lacks = Err(NOT_SUPPORTED);
            filler.take(c::FABRIC_STATUS, Ok(fabric.status));
            filler.take(c::FABRIC_CLIQUE, Ok(fabric.clique));
            filler.take(c::FABRIC_HEALTH_MASK, fabric.health_mask.map_or(lacks, Ok));
            filler.take(c::FABRIC_HEALTH_SUMMARY, fabric.health_summary.map_or(lacks, |word| Ok(u32::from(word))));
        }
        // Not registered yet: the rest means nothing, and is not read.
        Some(Ok(fabric)) if fabric.state != 0 => {}
        Some(Err(code)) => rest.into_iter().for_each(|column| filler.refuse(column, code, LACKING_BY_NAME)),
        Some(Ok(_)) => rest.into_iter().for_each(|column| filler.row.unsupported(column)),
        None if filler.ended.is_none() => rest.into_iter().for_each(|column| filler.row.unsupported(column)),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::Table;
    use racklake_schemas::tables::{GPU_LINK_SAMPLE, GPU_SAMPLE};

    use super::super::{links, sample};
    use super::*;

    /// Numbers of the fields that the catalog names as sources of a table, by column.
    fn named(table: &'static Table) -> Vec<(&'static str, u32)> {
        let number = |source: &str| source.strip_prefix("field ")?.split(' ').next()?.parse().ok();
        let columns = table.columns.iter().filter(|column| column.bit.is_some());
        columns.filter_map(|column| Some((column.name, number(column.source)?))).collect()
    }

    #[test]
    fn links_are_added_up_only_if_all_of_them_have_a_value() {
        let answer = |value| FieldAnswer { value, timestamp: 1, latency_us: 1 };
        let sum = |values: [Answer<FieldValue>; 2]| sum_of(&values.map(answer));
        assert_eq!(sum([Ok(FieldValue::Unsigned32(3)), Ok(FieldValue::Unsigned64(4))]), Ok(7));
        assert_eq!(sum([Ok(FieldValue::Unsigned32(3)), Err(999)]), Err(999));
        assert_eq!(sum([Ok(FieldValue::Unsigned32(3)), Ok(FieldValue::Unsigned32(u32::MAX))]), Err(1000));
    }

    #[test]
    fn every_field_that_the_catalog_names_is_the_one_that_is_asked_for() {
        let sums = [(c::C2C_LINKS_ACTIVE, 171), (c::C2C_INTERRUPTS, 231), (c::C2C_REPLAYS, 232)];
        let rest = [(c::C2C_REPLAYS_BACK_TO_BACK, 233)];
        let of_health: Vec<(usize, u32)> = FIELDS.into_iter().chain(sums).chain(rest).collect();
        let asked = [
            (&GPU_SAMPLE, sample::field_numbers()),
            (&GPU_HEALTH, of_health),
            (&GPU_LINK_SAMPLE, links::field_numbers()),
        ];
        for (table, asked) in asked {
            let mut asked: Vec<_> = asked.into_iter().map(|(column, id)| (table.columns[column].name, id)).collect();
            let mut named = named(table);
            asked.sort_unstable();
            named.sort_unstable();
            assert_eq!(asked, named, "{}", table.name);
        }
    }
}
