//! What is watched: which columns tell which states and rises, how grave they are, and how long a state may flicker.

use racklake_schemas::clock::{MINUTE, SECOND};
use racklake_schemas::tables::{GPU_HEALTH, GPU_LINK_SAMPLE, GPU_SAMPLE, gpu_health as h, gpu_link_sample, gpu_sample};
use racklake_schemas::{Cell, Row, Table};
use serde_json::{Map, Value, json};

use super::Known;
use super::baseline::Baseline;

/// A state that an episode is made of, as one row shows it.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// Name of the event.
    pub(super) event: &'static str,
    /// Which of its kind: a bit, a link.
    pub(super) which: i64,
    /// Severity of the start; an end is info.
    pub(super) severity: &'static str,
    /// Whether it is so.
    pub(super) so: bool,
    /// How long (µs) no row must show it until it has ended.
    pub(super) hold: i64,
    pub(super) code: Option<i64>,
    /// In words.
    pub(super) what: String,
    pub(super) details: Map<String, Value>,
}

/// Counters that have risen since the row before.
#[derive(Debug)]
pub(super) struct Rise {
    pub(super) event: &'static str,
    pub(super) severity: &'static str,
    pub(super) what: &'static str,
    /// `{"counter": {"before": 1, "now": 2}}`.
    pub(super) details: Map<String, Value>,
}

/// Why clocks are held back: bit of NVML's clocks event reasons, name, severity, how long it may flicker, words.
const THROTTLE_REASONS: [(i64, &str, &str, i64, &str); 5] = [
    (0x8, "hw_slowdown", "warning", 10 * SECOND, "hardware slowdown"),
    (0x40, "hw_thermal", "warning", 10 * SECOND, "hardware thermal slowdown"),
    (0x80, "hw_power_brake", "warning", 10 * SECOND, "power brake of the system"),
    (0x20, "sw_thermal", "warning", 10 * SECOND, "software thermal slowdown"),
    // A busy GPU meets its limit every few seconds; that is how it should be.
    (0x4, "power_cap", "info", MINUTE, "power limit"),
];

/// Columns of `gpu_health` that are 1 where something is wrong: column, event, severity, words.
const FLAGS: [(usize, &str, &str, &str); 9] = [
    (h::ROW_REMAP_PENDING, "remap_pending", "warning", "a row of the memory waits for a reset to be remapped"),
    (h::BANK_REMAP_PENDING, "remap_pending", "warning", "a bank of the memory waits for a reset to be remapped"),
    (h::ROW_REMAP_FAILED, "remap_failed", "critical", "a row of the memory could not be remapped"),
    (h::SRAM_THRESHOLD_EXCEEDED, "sram_threshold_exceeded", "critical", "more SRAM errors than NVIDIA allows"),
    (h::PAGE_RETIREMENT_PENDING, "page_retirement_pending", "warning", "a page waits for a reset to be retired"),
    (h::CHANNEL_REPAIR_PENDING, "repair_pending", "warning", "a memory channel waits for a reset to be repaired"),
    (h::TPC_REPAIR_PENDING, "repair_pending", "warning", "a processing cluster waits for a reset to be repaired"),
    (h::MEMORY_UNREPAIRABLE, "memory_unrepairable", "critical", "the memory has a fault that cannot be repaired"),
    (h::INFOROM_CORRUPTED, "inforom_corrupted", "error", "the InfoROM cannot be read"),
];

/// Columns of `gpu_health` whose rise is an event: event, severity, words, columns.
const RISES: [(&str, &str, &str, &[usize]); 3] = [
    (
        "ecc_uncorrected",
        "error",
        "ECC errors were not corrected",
        &[
            h::ECC_UNCORRECTED_VOLATILE,
            h::ECC_UNCORRECTED_AGGREGATE,
            h::ECC_SRAM_UNCORRECTED_VOLATILE,
            h::ECC_SRAM_UNCORRECTED_AGGREGATE,
        ],
    ),
    (
        "rows_remapped",
        "warning",
        "parts of the memory were remapped",
        &[
            h::ROWS_REMAPPED_CORRECTED,
            h::ROWS_REMAPPED_UNCORRECTED,
            h::ROWS_REMAPPED_CORRECTED_INACTIVE,
            h::ROWS_REMAPPED_UNCORRECTED_INACTIVE,
            h::BANKS_REMAPPED,
        ],
    ),
    (
        "pages_retired",
        "warning",
        "pages of the memory were retired",
        &[h::PAGES_RETIRED_CORRECTED, h::PAGES_RETIRED_UNCORRECTED],
    ),
];

/// Counters of corrected errors, which rise in storms: those no further apart than [`STORM_HOLD`] are one episode.
const CORRECTED: [usize; 4] = [
    h::ECC_CORRECTED_VOLATILE,
    h::ECC_CORRECTED_AGGREGATE,
    h::ECC_SRAM_CORRECTED_VOLATILE,
    h::ECC_SRAM_CORRECTED_AGGREGATE,
];
const STORM_HOLD: i64 = 10 * MINUTE;

/// All counters whose last values are remembered.
const COUNTERS: [usize; 15] = {
    let mut all = [0; 15];
    let (mut filled, mut list) = (0, 0);
    while list <= RISES.len() {
        let columns: &[usize] = if list < RISES.len() { RISES[list].3 } else { &CORRECTED };
        let mut i = 0;
        while i < columns.len() {
            all[filled] = columns[i];
            (filled, i) = (filled + 1, i + 1);
        }
        list += 1;
    }
    assert!(filled == all.len());
    all
};

/// Values of `link_state` that are no loss: active, asleep, active without traffic.
const LINK_IS_UP: [i64; 3] = [1, 2, 3];
/// A GPU that has been busy for so long (µs) runs its PCIe link at full speed.
const BUSY: i64 = 10 * SECOND;

/// Whether rows of a table are looked at.
pub(super) fn is_watched(table: &'static Table) -> bool {
    [&GPU_SAMPLE, &GPU_HEALTH, &GPU_LINK_SAMPLE].into_iter().any(|watched| std::ptr::eq(table, watched))
}

/// Columns of a table whose last values are remembered.
pub(super) fn counters(table: &'static Table) -> &'static [usize] {
    if std::ptr::eq(table, &GPU_HEALTH) { &COUNTERS } else { &[] }
}

/// The link that a row shows as up.
pub(super) fn link_up(row: &Row) -> Option<i64> {
    if !std::ptr::eq(row.table(), &GPU_LINK_SAMPLE) {
        return None;
    }
    let state = number(row, gpu_link_sample::LINK_STATE)?;
    number(row, gpu_link_sample::LINK).filter(|_| LINK_IS_UP.contains(&state))
}

/// The states that a row says something about.
pub(super) fn states(row: &Row, ts: i64, known: &Known, last: &Baseline) -> Vec<Judged> {
    if std::ptr::eq(row.table(), &GPU_SAMPLE) {
        return throttles(row);
    }
    if std::ptr::eq(row.table(), &GPU_LINK_SAMPLE) {
        return link(row, last).into_iter().collect();
    }
    let mut states: Vec<Judged> = FLAGS.iter().filter_map(|flag| self::flag(row, flag)).collect();
    states.extend(remap_availability(row));
    states.extend(recovery_action(row));
    states.extend(pcie_width(row, known));
    states.extend(pcie_generation(row, ts, known));
    states.extend(corrected(row, last));
    states
}

/// The counters of a row that are higher than before.
pub(super) fn rises(row: &Row, last: &Baseline) -> Vec<Rise> {
    if !std::ptr::eq(row.table(), &GPU_HEALTH) {
        return Vec::new();
    }
    let risen = |(event, severity, what, columns): (&'static str, &'static str, &'static str, &[usize])| {
        let details = higher(row, last, columns);
        (!details.is_empty()).then_some(Rise { event, severity, what, details })
    };
    RISES.into_iter().filter_map(risen).collect()
}

/// The cell of a column, where it is a number.
pub(super) fn number(row: &Row, column: usize) -> Option<i64> {
    match row.cell(column) {
        Cell::I64(value) => Some(*value),
        _ => None,
    }
}

fn name(column: usize) -> &'static str {
    GPU_HEALTH.columns[column].name
}

/// Which of these counters are higher than before, from what to what.
fn higher(row: &Row, last: &Baseline, columns: &[usize]) -> Map<String, Value> {
    let risen = |column: &usize| {
        let (before, now) = (last.counter(name(*column))?, number(row, *column)?);
        (now > before).then(|| (name(*column).to_owned(), json!({"before": before, "now": now})))
    };
    columns.iter().filter_map(risen).collect()
}

fn throttles(row: &Row) -> Vec<Judged> {
    let Some(mask) = number(row, gpu_sample::THROTTLE_REASONS_MASK) else { return Vec::new() };
    let judged = |(bit, name, severity, hold, words): (i64, &str, &'static str, i64, &str)| Judged {
        event: "throttled",
        which: bit,
        severity,
        so: mask & bit != 0,
        hold,
        code: Some(bit),
        what: format!("clocks are held back: {words}"),
        details: Map::from_iter([("throttle_reason".to_owned(), json!(name))]),
    };
    THROTTLE_REASONS.into_iter().map(judged).collect()
}

fn flag(row: &Row, (column, event, severity, what): &(usize, &'static str, &'static str, &str)) -> Option<Judged> {
    let so = number(row, *column)? != 0;
    let details = Map::from_iter([("column".to_owned(), json!(name(*column)))]);
    Some(Judged { details, ..state(event, *column as i64, severity, so, *what) })
}

/// A bank without spare rows: the next error in it cannot be mended.
fn remap_availability(row: &Row) -> Option<Judged> {
    let banks = number(row, h::REMAP_BANKS_NONE)?;
    let what = format!("{banks} banks of the memory have no spare row left");
    let details = Map::from_iter([("remap_banks_none".to_owned(), json!(banks))]);
    Some(Judged { details, ..state("remap_rows_used_up", 0, "error", banks > 0, what) })
}

fn recovery_action(row: &Row) -> Option<Judged> {
    const ACTIONS: [&str; 8] = [
        "none",
        "GPU reset",
        "node reboot",
        "drain P2P",
        "drain and reset",
        "recover IMEX domain",
        "bus reset",
        "system reboot",
    ];
    let action = number(row, h::RECOVERY_ACTION)?;
    let words = usize::try_from(action).ok().and_then(|action| ACTIONS.get(action)).unwrap_or(&"an unknown action");
    let judged = state("recovery_action", 0, "critical", action != 0, format!("the driver asks for: {words}"));
    let details = Map::from_iter([("recovery_action".to_owned(), json!(words))]);
    Some(Judged { code: Some(action), details, ..judged })
}

fn pcie_width(row: &Row, known: &Known) -> Option<Judged> {
    let (lanes, max) = (number(row, h::PCIE_WIDTH)?, known.pcie_width_max?);
    let what = format!("PCIe runs with {lanes} of {max} lanes");
    let details = Map::from_iter([("pcie_width".to_owned(), json!(lanes)), ("pcie_width_max".to_owned(), json!(max))]);
    Some(Judged { details, ..state("pcie_width_reduced", 0, "error", lanes < max, what) })
}

/// An idle GPU lowers its generation, so only that of a busy one says something.
fn pcie_generation(row: &Row, ts: i64, known: &Known) -> Option<Judged> {
    let (generation, max) = (number(row, h::PCIE_GENERATION)?, known.pcie_generation_max?);
    if known.busy_since.is_none_or(|since| ts - since < BUSY) {
        return None;
    }
    let what = format!("PCIe runs at generation {generation} instead of {max} under load");
    let members = [("pcie_generation", generation), ("pcie_generation_max", max)];
    let details = members.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    Some(Judged { details, ..state("pcie_generation_reduced", 0, "warning", generation < max, what) })
}

/// Corrected errors that have come since the row before.
fn corrected(row: &Row, last: &Baseline) -> Option<Judged> {
    CORRECTED.iter().find_map(|column| number(row, *column))?;
    let details = higher(row, last, &CORRECTED);
    let what = "ECC errors were corrected";
    let judged = state("ecc_corrected", 0, "warning", !details.is_empty(), what);
    Some(Judged { details, hold: STORM_HOLD, ..judged })
}

/// A link that was up, in any session, and is not.
fn link(row: &Row, last: &Baseline) -> Option<Judged> {
    let link = number(row, gpu_link_sample::LINK)?;
    let link_state = number(row, gpu_link_sample::LINK_STATE)?;
    let so = !LINK_IS_UP.contains(&link_state) && last.was_up(link);
    let details = Map::from_iter([("link".to_owned(), json!(link)), ("link_state".to_owned(), json!(link_state))]);
    Some(Judged { details, ..state("nvlink_down", link, "error", so, format!("NVLink {link} is down")) })
}

/// A state that ends as soon as a row does not show it, without code and details.
fn state(event: &'static str, which: i64, severity: &'static str, so: bool, what: impl Into<String>) -> Judged {
    Judged { event, which, severity, so, hold: 0, code: None, what: what.into(), details: Map::new() }
}
