//! One read of one GPU, every second: the calls behind each column of `gpu_sample`, in order.
//!
//! The energy counter comes first, so that the rest of a row was read after it. What a device has said it lacks is not
//! asked again for an hour. Of a MIG instance it reads what NVML gives for one; the rest is unsupported there.

use std::time::{Duration, Instant};

use racklake_schemas::Cell;
use racklake_schemas::Row;
use racklake_schemas::tables::{GPU_SAMPLE, gpu_sample as c};

use super::filler::{Filler, LACKING, LACKING_BY_NAME};
use super::memory::Memory;
use super::raw::{Answer, Calls, Field, GpmSample};
use crate::source::Reading;

/// NVML's metrics mean nothing over less.
const GPM_DISTANCE_MIN: Duration = Duration::from_millis(100);
/// More fans no board has.
const FANS_MAX: u32 = 32;

/// Parts of the device that power is told for.
const MODULE: u32 = 1;
const MEMORY: u32 = 2;

/// Columns that one field each gives.
const FIELDS: [(usize, Field); 16] = [
    (c::MEMORY_TEMP_CELSIUS, field(82, 0)),
    (c::POWER_INSTANT_MILLIWATTS, field(186, 0)),
    (c::THROTTLE_POWER_NANOSECONDS, field(74, 0)),
    (c::THROTTLE_THERMAL_NANOSECONDS, field(75, 0)),
    (c::THROTTLE_SYNC_BOOST_NANOSECONDS, field(76, 0)),
    (c::THROTTLE_BOARD_LIMIT_NANOSECONDS, field(77, 0)),
    (c::THROTTLE_LOW_UTILIZATION_NANOSECONDS, field(78, 0)),
    (c::THROTTLE_RELIABILITY_NANOSECONDS, field(79, 0)),
    (c::POWER_AVERAGE_MILLIWATTS, field(185, 0)),
    (c::MODULE_POWER_INSTANT_MILLIWATTS, field(186, MODULE)),
    (c::MODULE_POWER_AVERAGE_MILLIWATTS, field(185, MODULE)),
    (c::MEMORY_POWER_INSTANT_MILLIWATTS, field(186, MEMORY)),
    (c::MEMORY_POWER_AVERAGE_MILLIWATTS, field(185, MEMORY)),
    (c::THROTTLE_SW_THERMAL_NANOSECONDS, field(269, 0)),
    (c::THROTTLE_HW_THERMAL_NANOSECONDS, field(270, 0)),
    (c::THROTTLE_HW_POWER_BRAKE_NANOSECONDS, field(271, 0)),
];

/// Columns that one GPM metric each gives.
const GPM: [(usize, u32); 13] = [
    (c::GPM_GRAPHICS_ACTIVE_PERCENT, 1),
    (c::GPM_SM_ACTIVE_PERCENT, 2),
    (c::GPM_SM_OCCUPANCY_PERCENT, 3),
    (c::GPM_INTEGER_ACTIVE_PERCENT, 4),
    (c::GPM_TENSOR_ACTIVE_PERCENT, 5),
    (c::GPM_DRAM_ACTIVE_PERCENT, 10),
    (c::GPM_FP64_ACTIVE_PERCENT, 11),
    (c::GPM_FP32_ACTIVE_PERCENT, 12),
    (c::GPM_FP16_ACTIVE_PERCENT, 13),
    (c::GPM_PCIE_TX_MEBIBYTES_PER_SECOND, 20),
    (c::GPM_PCIE_RX_MEBIBYTES_PER_SECOND, 21),
    (c::GPM_NVLINK_RX_MEBIBYTES_PER_SECOND, 60),
    (c::GPM_NVLINK_TX_MEBIBYTES_PER_SECOND, 61),
];

const fn field(id: u32, scope: u32) -> Field {
    Field { id, scope }
}

/// Reads every column once.
pub(super) fn read<'a>(calls: &Calls<'a>, memory: &mut Memory<'a>) -> Reading {
    memory.age();
    let lacking = if calls.device.mig().is_some() { LACKING_BY_NAME } else { LACKING };
    let mut filler = Filler::new(&GPU_SAMPLE, None, lacking, memory);
    // Columns that only the driver of another make fills.
    let others = GPU_SAMPLE.columns.iter().enumerate().filter(|(_, spec)| spec.source.starts_with("amdgpu"));
    others.for_each(|(column, _)| filler.row.unsupported(column));
    filler.one(c::ENERGY_MILLIJOULES, || calls.energy());
    filler.one(c::GPU_TEMP_CELSIUS, || calls.temperature());
    filler.one(c::POWER_MILLIWATTS, || calls.power());
    filler.one(c::POWER_LIMIT_MILLIWATTS, || calls.power_limit());
    let clocks =
        [c::GRAPHICS_CLOCK_MEGAHERTZ, c::SM_CLOCK_MEGAHERTZ, c::MEMORY_CLOCK_MEGAHERTZ, c::VIDEO_CLOCK_MEGAHERTZ];
    for (domain, column) in (0..).zip(clocks) {
        filler.one(column, || calls.clock(domain));
    }
    filler.many([c::GPU_UTILIZATION_PERCENT, c::MEMORY_UTILIZATION_PERCENT], || calls.utilization());
    filler.one(c::ENCODER_UTILIZATION_PERCENT, || first(calls.encoder()));
    filler.one(c::DECODER_UTILIZATION_PERCENT, || first(calls.decoder()));
    filler.one(c::JPEG_UTILIZATION_PERCENT, || first(calls.jpeg()));
    filler.one(c::OFA_UTILIZATION_PERCENT, || first(calls.ofa()));
    filler.many([c::MEMORY_USED_BYTES, c::MEMORY_TOTAL_BYTES], || calls.memory());
    filler.one(c::BAR1_USED_BYTES, || first(calls.bar1()));
    filler.one(c::THROTTLE_REASONS_MASK, || calls.throttle_reasons());
    filler.one(c::PERFORMANCE_STATE, || calls.performance_state());
    filler.one(c::TEMP_MARGIN_CELSIUS, || calls.temperature_margin());
    filler.one(c::FAN_SPEED_PERCENT, || calls.fan_speed(0));
    fans(&mut filler, calls);
    filler.fields(calls, &FIELDS);
    gpm(&mut filler, calls);
    let (row, events) = filler.finish(c::FIELDS_LATENCY_US, c::FIELDS_READ_AT);
    let counters = [c::ENERGY_MILLIJOULES, c::THROTTLE_POWER_NANOSECONDS, c::THROTTLE_THERMAL_NANOSECONDS];
    // These begin anew with the driver alone; counts of ECC and NVLink errors can be cleared by an operator, and begin no
    // session. The last place in the list is that of the slow tier.
    let lifetime = counters.map(|column| integer(&row, column)).into_iter().chain([None]).collect();
    Reading { rows: vec![row], lifetime, events, ..Reading::default() }
}

fn first<T: Copy>(pair: Answer<[T; 2]>) -> Answer<T> {
    pair.map(|[first, _]| first)
}

/// A number of a row.
pub(super) fn integer(row: &Row, column: usize) -> Option<i64> {
    match row.cell(column) {
        Cell::I64(value) => Some(*value),
        _ => None,
    }
}

/// The speed of each fan. One that fails is null in the list; where all do, the reading has failed.
fn fans(filler: &mut Filler<'_, '_>, calls: &Calls<'_>) {
    if !filler.asks_for(c::FANS_RPM) {
        return;
    }
    let began = Instant::now();
    let speeds = calls.fans().map(|count| (0..count.min(FANS_MAX)).map(|fan| calls.fan_rpm(fan)).collect::<Vec<_>>());
    filler.timed(&[c::FANS_RPM], began);
    match speeds {
        Ok(speeds) if speeds.is_empty() => filler.refuse(c::FANS_RPM, LACKING[0], LACKING),
        Ok(speeds) => match speeds.iter().find_map(|speed| speed.err()) {
            Some(code) if speeds.iter().all(Result::is_err) => filler.take::<u32>(c::FANS_RPM, Err(code)),
            _ => {
                let items = speeds.into_iter().map(|speed| speed.ok().and_then(|speed| i32::try_from(speed).ok()));
                filler.row.read(c::FANS_RPM, items.collect::<Vec<_>>());
            }
        },
        Err(code) => filler.take::<u32>(c::FANS_RPM, Err(code)),
    }
}

/// What happened since the read before. The first read of a GPU, and one too soon after another, gives none.
fn gpm<'a>(filler: &mut Filler<'_, 'a>, calls: &Calls<'a>) {
    let wanted: Vec<(usize, u32)> = GPM.into_iter().filter(|(column, _)| filler.asks_for(*column)).collect();
    if wanted.is_empty() {
        return;
    }
    let before = filler.memory.gpm.take();
    let now = Instant::now();
    if before.as_ref().is_some_and(|(at, _)| now.duration_since(*at) < GPM_DISTANCE_MIN) {
        filler.memory.gpm = before;
        return;
    }
    // Whether there is GPM at all is asked with the first sample; a sample that fails begins anew.
    let support = if before.is_none() { calls.has_gpm() } else { Ok(()) };
    let sample = support.and_then(|()| calls.gpm_sample());
    let answers = match (&before, &sample) {
        (_, Err(code)) => Some(vec![Err(*code); wanted.len()]),
        (Some((_, before)), Ok(sample)) => Some(metrics(calls, before, sample, &wanted)),
        (None, Ok(_)) => None,
    };
    filler.timed(&wanted.iter().map(|(column, _)| *column).collect::<Vec<_>>(), now);
    for ((column, _), answer) in wanted.iter().zip(answers.into_iter().flatten()) {
        filler.float(*column, answer);
    }
    filler.memory.gpm = sample.ok().map(|sample| (now, sample));
}

fn metrics(calls: &Calls<'_>, from: &GpmSample<'_>, to: &GpmSample<'_>, wanted: &[(usize, u32)]) -> Vec<Answer<f64>> {
    let ids: Vec<u32> = wanted.iter().map(|(_, id)| *id).collect();
    match calls.gpm_metrics(from, to, &ids) {
        Ok(metrics) => metrics.into_iter().map(|metric| metric.value).collect(),
        Err(code) => vec![Err(code); ids.len()],
    }
}

/// Columns with the number of their field.
#[cfg(test)]
pub(super) fn field_numbers() -> Vec<(usize, u32)> {
    FIELDS.iter().map(|(column, field)| (*column, field.id)).collect()
}
