//! One read of one GPU: the calls behind each column of `gpu_sample`, in order, and what their codes mean.
//!
//! The energy counter comes first, so that the rest of a row was read after it. What a device has said it lacks is not
//! asked again for an hour.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use racklake_schemas::tables::{GPU_SAMPLE, gpu_sample as c};
use racklake_schemas::{Cell, Row, fail_code, row_status};

use super::raw::{Answer, Calls, DRIVER_IS_GONE, FUNCTION_NOT_FOUND, FieldValue, GPU_IS_LOST, NOT_SUPPORTED};
use crate::source::Reading;

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
}

/// Reads every column once.
pub(super) fn read(calls: &Calls<'_>, memory: &mut Memory) -> Reading {
    memory.unsupported.retain(|_, since| since.elapsed() < ASK_AGAIN);
    let mut sample = Sample { row: Row::new(&GPU_SAMPLE), memory, ended: None };
    sample.one(c::ENERGY_MILLIJOULES, || calls.energy());
    sample.one(c::GPU_TEMP_CELSIUS, || calls.temperature());
    sample.one(c::POWER_MILLIWATTS, || calls.power());
    sample.one(c::POWER_LIMIT_MILLIWATTS, || calls.power_limit());
    let clocks =
        [c::GRAPHICS_CLOCK_MEGAHERTZ, c::SM_CLOCK_MEGAHERTZ, c::MEMORY_CLOCK_MEGAHERTZ, c::VIDEO_CLOCK_MEGAHERTZ];
    for (domain, column) in clocks.into_iter().enumerate() {
        sample.one(column, || calls.clock(domain as u32));
    }
    sample.two([c::GPU_UTILIZATION_PERCENT, c::MEMORY_UTILIZATION_PERCENT], || calls.utilization());
    sample.one(c::ENCODER_UTILIZATION_PERCENT, || calls.encoder());
    sample.one(c::DECODER_UTILIZATION_PERCENT, || calls.decoder());
    sample.two([c::MEMORY_USED_BYTES, c::MEMORY_TOTAL_BYTES], || calls.memory());
    sample.one(c::THROTTLE_REASONS_MASK, || calls.throttle_reasons());
    sample.one(c::PERFORMANCE_STATE, || calls.performance_state());
    sample.one(c::FAN_SPEED_PERCENT, || calls.fan_speed());
    sample.fields(calls);
    sample.finish()
}

struct Sample<'a> {
    row: Row,
    memory: &'a mut Memory,
    /// The code after which no further call is made: the GPU or its driver is gone.
    ended: Option<i32>,
}

impl Sample<'_> {
    /// A column with a call of its own.
    fn one<T: Into<i128>>(&mut self, column: usize, call: impl FnOnce() -> Answer<T>) {
        if self.asks_for(column) {
            let answer = call();
            self.take(column, answer);
        }
    }

    /// Two columns of one call.
    fn two<T: Into<i128>>(&mut self, columns: [usize; 2], call: impl FnOnce() -> Answer<(T, T)>) {
        // Not short-circuited: both are marked. They are learnt to be unsupported together.
        if columns.map(|column| self.asks_for(column)) == [true, true] {
            match call() {
                Ok((first, second)) => {
                    self.take(columns[0], Ok(first));
                    self.take(columns[1], Ok(second));
                }
                Err(code) => columns.into_iter().for_each(|column| self.take::<T>(column, Err(code))),
            }
        }
    }

    /// All fields in one call.
    fn fields(&mut self, calls: &Calls<'_>) {
        let wanted: Vec<_> = FIELDS.into_iter().filter(|(column, ..)| self.asks_for(*column)).collect();
        let ids: Vec<(u32, u32)> = wanted.iter().map(|(_, field, scope)| (*field, *scope)).collect();
        let answers = calls.fields(&ids).unwrap_or_else(|code| vec![Err(code); ids.len()]);
        for ((column, ..), answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(FieldValue::Integer(value)) => self.row.read(column, value),
                // No field of this table is a float, so such a type is as unreadable as an unknown one.
                Ok(FieldValue::Float(_) | FieldValue::Unreadable) => self.row.fail(column, fail_code::UNPARSABLE),
                Err(code) => self.take::<i64>(column, Err(code)),
            }
        }
    }

    /// Whether to ask for a column; marks one that is known to be unsupported.
    fn asks_for(&mut self, column: usize) -> bool {
        let known = self.memory.unsupported.contains_key(&column);
        if known {
            self.row.unsupported(column);
        }
        !known && self.ended.is_none()
    }

    fn take<T: Into<i128>>(&mut self, column: usize, answer: Answer<T>) {
        match answer.map(Into::into) {
            Ok(value) => match i64::try_from(value) {
                Ok(value) => self.row.read(column, value),
                Err(_) => self.row.fail(column, fail_code::OUT_OF_RANGE),
            },
            Err(NOT_SUPPORTED | FUNCTION_NOT_FOUND) => {
                self.memory.unsupported.insert(column, Instant::now());
                self.row.unsupported(column);
            }
            Err(code) => {
                self.row.fail(column, code);
                if code == GPU_IS_LOST || DRIVER_IS_GONE.contains(&code) {
                    self.ended = Some(code);
                }
            }
        }
    }

    fn finish(mut self) -> Reading {
        if let Some(code) = self.ended {
            self.row.fail_all(code);
            self.row.set_status(if code == GPU_IS_LOST { row_status::LOST } else { row_status::UNREACHABLE });
        }
        let energy = match self.row.cell(c::ENERGY_MILLIJOULES) {
            Cell::I64(energy) => Some(*energy),
            _ => None,
        };
        Reading { rows: vec![self.row], lifetime: vec![energy], ..Reading::default() }
    }
}
