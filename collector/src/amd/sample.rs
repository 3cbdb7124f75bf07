//! One read of one AMD GPU for `gpu_sample`: hwmon and the driver's own files first, `gpu_metrics` for what they lack.
//!
//! `pcie_bw` is never read: the driver sleeps for a second to measure it.

use std::collections::BTreeSet;

use racklake_schemas::tables::{GPU_SAMPLE, gpu_sample as c};
use racklake_schemas::{Bits, Cell, Row, fail_code, row_status};
use serde_json::json;

use super::card::Card;
use super::metrics::{Header, Metrics, Quantity as Q};
use crate::source::{EventDraft, Reading};
use crate::sysfs::{self, Answer, Trouble};

/// What is remembered of a GPU from read to read.
#[derive(Debug, Default)]
pub(super) struct Memory {
    suspended: bool,
    /// Headers of tables that could not be read, so that each is told once.
    told: BTreeSet<[u16; 3]>,
    /// What the GPU does not have, for rows of the time in which it is not read.
    unsupported: Bits,
}

/// Reads every column once.
pub(super) fn read(card: &Card, memory: &mut Memory) -> Reading {
    let mut row = Row::new(&GPU_SAMPLE);
    let mut events: Vec<EventDraft> = memory.follow_sleep(card).into_iter().collect();
    if !card.is_there() {
        row.unsupported_where(memory.unsupported);
        row.fail_all(fail_code::MISSING);
        row.set_status(row_status::LOST);
    } else if memory.suspended {
        row.unsupported_where(memory.unsupported);
    } else {
        let metrics = metrics_of(card);
        events.extend(metrics.as_ref().ok().and_then(|metrics| memory.follow_metrics(card, metrics)));
        fill(&mut row, card, &metrics);
        rest_is_unsupported(&mut row);
        memory.unsupported = row.unsupported_bits();
    }
    let energy = match row.cell(c::ENERGY_MILLIJOULES) {
        Cell::I64(energy) => Some(*energy),
        _ => None,
    };
    Reading { rows: vec![row], lifetime: vec![energy], events, ..Reading::default() }
}

/// The table of the driver.
pub(super) fn metrics_of(card: &Card) -> Answer<Metrics> {
    sysfs::bytes(&card.path("gpu_metrics")).and_then(Metrics::of)
}

/// A quantity of a table that may not have been read.
pub(super) fn quantity(metrics: &Answer<Metrics>, quantity: Q) -> Answer<i64> {
    metrics.as_ref().map_err(|trouble| *trouble)?.get(quantity)
}

/// One answer, or another where the first has no value.
pub(super) fn either(one: Answer<i64>, other: impl FnOnce() -> Answer<i64>) -> Answer<i64> {
    match one {
        Ok(value) => Ok(value),
        Err(Trouble::Absent | Trouble::Unsupported) => other(),
        Err(failed) => other().map_err(|_| failed),
    }
}

/// Marks what neither has a value nor failed as something that the GPU does not have.
pub(super) fn rest_is_unsupported(row: &mut Row) {
    let table = row.table();
    for column in 0..table.columns.len() {
        if table.columns[column].bit.is_some() && *row.cell(column) == Cell::Null && !row.has_failed(column) {
            row.unsupported(column);
        }
    }
}

fn fill(row: &mut Row, card: &Card, metrics: &Answer<Metrics>) {
    let thousandth = |answer: Answer<i64>| answer.map(|value| value.div_euclid(1000));
    let megahertz = |answer: Answer<i64>| answer.map(|hertz| hertz / 1_000_000);
    let table = |wanted: Q| quantity(metrics, wanted);
    let mut put = |column: usize, answer: Answer<i64>| sysfs::put(row, column, answer);
    // A unit is 2^-16 J.
    put(c::ENERGY_MILLIJOULES, table(Q::Energy).map(|units| (i128::from(units) * 1000 / 65536) as i64));
    for (column, label, in_table) in [
        (c::GPU_TEMP_CELSIUS, "edge", Q::EdgeTemp),
        (c::JUNCTION_TEMP_CELSIUS, "junction", Q::HotspotTemp),
        (c::MEMORY_TEMP_CELSIUS, "mem", Q::MemoryTemp),
    ] {
        put(column, either(thousandth(card.labelled(label, "input")), || table(in_table)));
    }
    let average = either(thousandth(card.hwmon("power1_average")), || table(Q::Power).map(|watts| watts * 1000));
    let now = thousandth(card.hwmon("power1_input"));
    put(c::POWER_MILLIWATTS, either(average, || now));
    put(c::POWER_INSTANT_MILLIWATTS, now);
    put(c::POWER_LIMIT_MILLIWATTS, thousandth(card.hwmon("power1_cap")));
    put(c::GRAPHICS_CLOCK_MEGAHERTZ, either(megahertz(card.labelled("sclk", "input")), || table(Q::GraphicsClock)));
    put(c::MEMORY_CLOCK_MEGAHERTZ, either(megahertz(card.labelled("mclk", "input")), || table(Q::MemoryClock)));
    put(c::VIDEO_CLOCK_MEGAHERTZ, table(Q::VideoClock));
    put(c::GPU_UTILIZATION_PERCENT, either(card.integer("gpu_busy_percent"), || table(Q::GraphicsActivity)));
    put(c::MEMORY_UTILIZATION_PERCENT, either(card.integer("mem_busy_percent"), || table(Q::MemoryActivity)));
    put(c::MEMORY_USED_BYTES, card.integer("mem_info_vram_used"));
    put(c::MEMORY_TOTAL_BYTES, card.integer("mem_info_vram_total"));
    put(c::FAN_SPEED_PERCENT, card.hwmon("pwm1").map(|of_255| of_255 * 100 / 255));
    put(c::CORE_VOLTAGE_MILLIVOLTS, card.labelled("vddgfx", "input"));
    let throttled = either(table(Q::IndependentThrottleStatus), || table(Q::ThrottleStatus));
    put(c::AMD_THROTTLE_STATUS_MASK, throttled);
    for (column, ticks) in [
        (c::AMD_RESIDENCY_TICKS, Q::ResidencyTicks),
        (c::AMD_THROTTLE_PROCHOT_TICKS, Q::ProchotTicks),
        (c::AMD_THROTTLE_POWER_TICKS, Q::PowerTicks),
        (c::AMD_THROTTLE_SOCKET_THERMAL_TICKS, Q::SocketThermalTicks),
        (c::AMD_THROTTLE_REGULATOR_THERMAL_TICKS, Q::RegulatorThermalTicks),
        (c::AMD_THROTTLE_MEMORY_THERMAL_TICKS, Q::MemoryThermalTicks),
    ] {
        put(column, table(ticks));
    }
    match card.hwmon("fan1_input").map(i32::try_from) {
        Ok(Ok(rpm)) => row.read(c::FANS_RPM, vec![Some(rpm)]),
        Ok(Err(_)) => row.fail(c::FANS_RPM, fail_code::OUT_OF_RANGE),
        Err(trouble) => sysfs::put(row, c::FANS_RPM, Err(trouble)),
    }
}

impl Memory {
    /// Tells when the GPU falls asleep and wakes: its rows are without values meanwhile.
    fn follow_sleep(&mut self, card: &Card) -> Option<EventDraft> {
        let suspended = card.is_suspended();
        if std::mem::replace(&mut self.suspended, suspended) == suspended {
            return None;
        }
        let address = &card.address;
        let draft = if suspended {
            let message = format!("the GPU at {address} sleeps; it is not read, since that would wake it");
            EventDraft::new("gpu_suspended", "amd", "info", message)
        } else {
            EventDraft::new("gpu_resumed", "amd", "info", format!("the GPU at {address} is awake and read again"))
        };
        Some(draft.about(address))
    }

    /// Tells of a table that cannot be read, once.
    fn follow_metrics(&mut self, card: &Card, metrics: &Metrics) -> Option<EventDraft> {
        let Header { size, format, content } = metrics.header;
        if metrics.is_known() || !self.told.insert([u16::from(format), u16::from(content), size]) {
            return None;
        }
        let message = format!(
            "the GPU at {} has gpu_metrics {format}.{content} of {size} bytes, which is not known; only hwmon and the \
             driver's other files are read",
            card.address
        );
        let details = json!({"format_revision": format, "content_revision": content, "structure_size": size});
        let draft = EventDraft::new("gpu_metrics_unknown", "amd", "warning", message).about(&card.address);
        Some(EventDraft { details_json: Some(details.to_string()), ..draft })
    }
}
