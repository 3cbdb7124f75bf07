//! One read of one GPU: the calls behind each column of `gpu_sample`, in order, and what their codes mean.
//!
//! The energy counter comes first, so that the rest of a row was read after it. What a device has said it lacks is not
//! asked again for an hour.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use racklake_schemas::tables::{GPU_SAMPLE, gpu_sample as c};
use racklake_schemas::{Row, fail_code, row_status};

use super::raw::{Answer, Calls, FUNCTION_NOT_FOUND, FieldValue, GPU_IS_LOST, NOT_SUPPORTED};
use crate::source::{EventDraft, Reading};

/// After so long a device is asked again for what it lacked: a driver may have changed beneath us.
const ASK_AGAIN: Duration = Duration::from_secs(3600);

/// Columns that one field each gives: (column, field id, scope).
const FIELDS: [(usize, u32, u32); 8] = [
    (c::MEMORY_TEMP_CELSIUS, 82, 0),
    (c::POWER_INSTANT_MILLIWATTS, 186, 0),
    (c::THROTTLE_POWER_NANOSECONDS, 74, 0),
    (c::THROTTLE_THERMAL_NANOSECONDS, 75, 0),
    (c::THROTTLE_SYNC_BOOST_NANOSECONDS, 76, 0),
    (c::THROTTLE_BOARD_LIMIT_NANOSECONDS, 77, 0),
    (c::THROTTLE_LOW_UTILIZATION_NANOSECONDS, 78, 0),
    (c::THROTTLE_RELIABILITY_NANOSECONDS, 79, 0),
];

/// What is remembered of a GPU from read to read.
#[derive(Default)]
pub(super) struct Memory {
    /// Columns that the device does not support, and since when that is known.
    unsupported: HashMap<usize, Instant>,
    lost: bool,
}

/// Reads every column once.
pub(super) fn read(calls: &Calls<'_>, memory: &mut Memory, address: &str) -> Reading {
    memory.unsupported.retain(|_, since| since.elapsed() < ASK_AGAIN);
    let mut sample = Sample { row: Row::new(&GPU_SAMPLE), memory };
    sample.one(c::ENERGY_MILLIJOULES, || calls.energy());
    if sample.row.fail_code() == Some(GPU_IS_LOST) {
        return sample.lost(address);
    }
    sample.one(c::GPU_TEMP_CELSIUS, || calls.temperature().map(u64::from));
    sample.one(c::POWER_MILLIWATTS, || calls.power().map(u64::from));
    sample.one(c::POWER_LIMIT_MILLIWATTS, || calls.power_limit().map(u64::from));
    let clocks =
        [c::GRAPHICS_CLOCK_MEGAHERTZ, c::SM_CLOCK_MEGAHERTZ, c::MEMORY_CLOCK_MEGAHERTZ, c::VIDEO_CLOCK_MEGAHERTZ];
    for (domain, column) in clocks.into_iter().enumerate() {
        sample.one(column, || calls.clock(domain as u32).map(u64::from));
    }
    let utilization = [c::GPU_UTILIZATION_PERCENT, c::MEMORY_UTILIZATION_PERCENT];
    sample.two(utilization, || calls.utilization().map(|(gpu, memory)| (gpu.into(), memory.into())));
    sample.one(c::ENCODER_UTILIZATION_PERCENT, || calls.encoder().map(u64::from));
    sample.one(c::DECODER_UTILIZATION_PERCENT, || calls.decoder().map(u64::from));
    sample.two([c::MEMORY_USED_BYTES, c::MEMORY_TOTAL_BYTES], || calls.memory());
    sample.one(c::THROTTLE_REASONS_MASK, || calls.throttle_reasons());
    sample.one(c::PERFORMANCE_STATE, || calls.performance_state().map(u64::from));
    sample.one(c::FAN_SPEED_PERCENT, || calls.fan_speed().map(u64::from));
    sample.fields(calls);
    sample.finish(address)
}

struct Sample<'a> {
    row: Row,
    memory: &'a mut Memory,
}

impl Sample<'_> {
    /// A column with a call of its own.
    fn one(&mut self, column: usize, call: impl FnOnce() -> Answer<u64>) {
        if self.is_supported(column) {
            let answer = call();
            self.take(column, answer);
        }
    }

    /// Two columns of one call.
    fn two(&mut self, columns: [usize; 2], call: impl FnOnce() -> Answer<(u64, u64)>) {
        if columns.iter().all(|column| self.is_supported(*column)) {
            let answer = call();
            self.take(columns[0], answer.map(|(first, _)| first));
            self.take(columns[1], answer.map(|(_, second)| second));
        }
    }

    /// All fields in one call.
    fn fields(&mut self, calls: &Calls<'_>) {
        let wanted: Vec<_> = FIELDS.into_iter().filter(|(column, ..)| self.is_supported(*column)).collect();
        let ids: Vec<(u32, u32)> = wanted.iter().map(|(_, field, scope)| (*field, *scope)).collect();
        let answers = calls.fields(&ids).unwrap_or_else(|code| vec![Err(code); ids.len()]);
        for ((column, ..), answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(FieldValue::Integer(value)) => self.row.read(column, value),
                // No field of this table is a float, so such a type is as unreadable as an unknown one.
                Ok(FieldValue::Float(_) | FieldValue::Unreadable) => self.row.fail(column, fail_code::UNPARSABLE),
                Err(code) => self.take(column, Err(code)),
            }
        }
    }

    /// Marks a column that is known to be unsupported, and says whether to ask.
    fn is_supported(&mut self, column: usize) -> bool {
        let known = self.memory.unsupported.contains_key(&column);
        if known {
            self.row.unsupported(column);
        }
        !known
    }

    fn take(&mut self, column: usize, answer: Answer<u64>) {
        match answer {
            Ok(value) => match i64::try_from(value) {
                Ok(value) => self.row.read(column, value),
                Err(_) => self.row.fail(column, fail_code::OUT_OF_RANGE),
            },
            Err(NOT_SUPPORTED | FUNCTION_NOT_FOUND) => {
                self.memory.unsupported.insert(column, Instant::now());
                self.row.unsupported(column);
            }
            Err(code) => self.row.fail(column, code),
        }
    }

    /// The reading of a GPU that has fallen off the bus: no further call is made to it.
    fn lost(mut self, address: &str) -> Reading {
        self.row.fail_all(GPU_IS_LOST);
        self.row.set_status(row_status::LOST);
        let first = !std::mem::replace(&mut self.memory.lost, true);
        let message = format!("GPU {address} is lost: it has fallen off the bus or needs a reset");
        let event = EventDraft::new("gpu_lost", "nvml", "critical", message);
        let event = EventDraft { phase: Some("start"), ..event.about(address).with_code(i64::from(GPU_IS_LOST)) };
        Reading {
            rows: vec![self.row],
            identity: None,
            lifetime: vec![None],
            events: first.then_some(event).into_iter().collect(),
        }
    }

    fn finish(self, address: &str) -> Reading {
        let returned = std::mem::replace(&mut self.memory.lost, false);
        let event = EventDraft::new("gpu_lost", "nvml", "info", format!("GPU {address} answers again"));
        let event = EventDraft { phase: Some("end"), ..event.about(address) };
        let energy = match self.row.cell(c::ENERGY_MILLIJOULES) {
            racklake_schemas::Cell::I64(energy) => Some(*energy),
            _ => None,
        };
        Reading {
            rows: vec![self.row],
            identity: None,
            lifetime: vec![energy],
            events: returned.then_some(event).into_iter().collect(),
        }
    }
}
