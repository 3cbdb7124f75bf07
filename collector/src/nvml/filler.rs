//! Fills one row of a GPU: whether a column is asked for, and what an answer means.
//!
//! A value is kept only if it can be one: what the catalog calls implausible, the all-ones that NVML has for "not
//! available", and types that nobody knows are failed reads, told once an hour as an event with the raw value.

use std::time::Instant;

use racklake_schemas::{Row, Table, fail_code, row_status};
use serde_json::json;

use super::memory::{Memory, Place};
use super::raw::{
    Answer, Calls, DRIVER_IS_GONE, FUNCTION_NOT_FOUND, Field, FieldAnswer, FieldValue, GPU_IS_LOST, INVALID_ARGUMENT,
    NOT_SUPPORTED,
};
use crate::source::EventDraft;

/// Codes that say that a GPU has no such thing.
pub(super) const LACKING: &[i32] = &[NOT_SUPPORTED, FUNCTION_NOT_FOUND];
/// The same where an argument names the thing: a field, a link, a location, a MIG instance.
pub(super) const LACKING_BY_NAME: &[i32] = &[NOT_SUPPORTED, FUNCTION_NOT_FOUND, INVALID_ARGUMENT];

/// How the catalog names the source of columns that GPUs of another make have.
const OTHER_DRIVER: &str = "amdgpu";

/// A number as NVML gives it, wide enough for all its types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    value: i128,
    /// All bits are ones, which stands for no value.
    is_none: bool,
}

impl From<u32> for Number {
    fn from(value: u32) -> Number {
        Number { value: i128::from(value), is_none: value == u32::MAX }
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number { value: i128::from(value), is_none: value == u64::MAX }
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number { value: i128::from(value), is_none: false }
    }
}

impl From<i32> for Number {
    fn from(value: i32) -> Number {
        Number::from(i64::from(value))
    }
}

/// A row on its way, and what is known of the device meanwhile.
pub(super) struct Filler<'m, 'a> {
    pub(super) row: Row,
    pub(super) memory: &'m mut Memory<'a>,
    link: Option<u32>,
    lacking: &'static [i32],
    /// The code after which no further call is made: the GPU or its driver is gone.
    pub(super) ended: Option<i32>,
    pub(super) events: Vec<EventDraft>,
    timing: Timing,
}

/// What NVML says of its own reading of fields.
#[derive(Default)]
struct Timing {
    answered: bool,
    /// Why a field has none, where it should have.
    failed: Option<i32>,
    latency_us: i64,
    earliest: Option<i64>,
}

impl<'m, 'a> Filler<'m, 'a> {
    /// An empty row of a table; `link` where its rows are about links.
    pub(super) fn new(
        table: &'static Table,
        link: Option<u32>,
        lacking: &'static [i32],
        memory: &'m mut Memory<'a>,
    ) -> Filler<'m, 'a> {
        let mut row = Row::new(table);
        for (column, spec) in table.columns.iter().enumerate() {
            if spec.source.starts_with(OTHER_DRIVER) {
                row.unsupported(column);
            }
        }
        Filler { row, memory, link, lacking, ended: None, events: Vec::new(), timing: Timing::default() }
    }

    fn place(&self, column: usize) -> Place {
        Place::new(self.row.table(), self.link, column)
    }

    /// Whether to ask for a column; marks one that is known to be unsupported.
    pub(super) fn asks_for(&mut self, column: usize) -> bool {
        let known = self.memory.is_unsupported(self.place(column));
        if known {
            self.row.unsupported(column);
        }
        !known && self.ended.is_none()
    }

    /// The calls behind these columns began then and have ended now.
    pub(super) fn timed(&mut self, columns: &[usize], began: Instant) {
        let places: Vec<Place> = columns.iter().map(|column| self.place(*column)).collect();
        self.memory.took(&places, began);
    }

    /// A column with a call of its own.
    pub(super) fn one<T: Into<Number>>(&mut self, column: usize, call: impl FnOnce() -> Answer<T>) {
        if self.asks_for(column) {
            let began = Instant::now();
            let answer = call();
            self.memory.took(&[self.place(column)], began);
            self.take(column, answer);
        }
    }

    /// Columns of one call.
    pub(super) fn many<T: Into<Number>, const N: usize>(
        &mut self,
        columns: [usize; N],
        call: impl FnOnce() -> Answer<[T; N]>,
    ) {
        let wanted = columns.map(|column| self.asks_for(column));
        if !wanted.contains(&true) {
            return;
        }
        let began = Instant::now();
        let answer = call();
        self.memory.took(&columns.map(|column| self.place(column)), began);
        let answers = match answer {
            Ok(values) => values.map(|value| Ok(value.into())),
            Err(code) => [Err(code); N],
        };
        let wanted = columns.into_iter().zip(answers).zip(wanted).filter(|(_, wanted)| *wanted);
        wanted.for_each(|((column, answer), _)| self.take::<Number>(column, answer));
    }

    /// Columns of one field each, all in one call.
    pub(super) fn fields(&mut self, calls: &Calls<'_>, fields: &[(usize, Field)]) {
        let wanted: Vec<_> = fields.iter().copied().filter(|(column, _)| self.asks_for(*column)).collect();
        let ids: Vec<Field> = wanted.iter().map(|(_, field)| *field).collect();
        let began = Instant::now();
        let answer = calls.fields(&ids);
        let places: Vec<_> = wanted.iter().map(|(column, _)| self.place(*column)).collect();
        self.memory.took(&places, began);
        match answer {
            Ok(answers) => {
                wanted.into_iter().zip(answers).for_each(|((column, _), answer)| self.field(column, &answer))
            }
            Err(code) => {
                self.timing.failed = Some(code).filter(|code| !self.lacking.contains(code));
                wanted.into_iter().for_each(|(column, _)| self.refuse(column, code, self.lacking));
            }
        }
    }

    /// The answer to one field.
    pub(super) fn field(&mut self, column: usize, answer: &FieldAnswer) {
        self.took(answer);
        match answer.value {
            Ok(FieldValue::Unsigned32(value)) => self.number(column, value.into()),
            Ok(FieldValue::Unsigned64(value)) => self.number(column, value.into()),
            Ok(FieldValue::Signed(value)) => self.number(column, value.into()),
            // No field of a table is a float: those that are ratios come as bits of a coding.
            Ok(FieldValue::Float(value)) => self.unreadable(column, &value.to_string()),
            Ok(FieldValue::Unknown(kind, bits)) => self.unreadable(column, &format!("{bits:#x} of type {kind}")),
            Err(code) => self.refuse(column, code, LACKING_BY_NAME),
        }
    }

    /// Counts in what NVML says of its own reading.
    pub(super) fn took(&mut self, answer: &FieldAnswer) {
        if let Err(code) = answer.value {
            self.timing.failed = Some(code).filter(|code| !LACKING_BY_NAME.contains(code)).or(self.timing.failed);
        } else {
            self.timing.answered = true;
            self.timing.latency_us = self.timing.latency_us.saturating_add(answer.latency_us.max(0));
            let timestamp = Some(answer.timestamp).filter(|timestamp| *timestamp != 0);
            self.timing.earliest = self.timing.earliest.into_iter().chain(timestamp).min();
        }
    }

    /// What a call gave for a column.
    pub(super) fn take<T: Into<Number>>(&mut self, column: usize, answer: Answer<T>) {
        match answer {
            Ok(value) => self.number(column, value.into()),
            Err(code) => self.refuse(column, code, self.lacking),
        }
    }

    fn number(&mut self, column: usize, number: Number) {
        match i64::try_from(number.value) {
            Ok(value) if !number.is_none => self.row.read(column, value),
            _ => self.row.fail(column, fail_code::OUT_OF_RANGE),
        }
        if self.row.has_failed(column) {
            self.memory.refused(self.place(column), fail_code::OUT_OF_RANGE);
            self.tell(column, &number.value.to_string());
        }
    }

    /// A float for a column.
    pub(super) fn float(&mut self, column: usize, answer: Answer<f64>) {
        match answer {
            Ok(value) => {
                self.row.read(column, value);
                if self.row.has_failed(column) {
                    self.memory.refused(self.place(column), fail_code::OUT_OF_RANGE);
                    self.tell(column, &value.to_string());
                }
            }
            Err(code) => self.refuse(column, code, self.lacking),
        }
    }

    /// A value that cannot be read as what it says it is.
    pub(super) fn unreadable(&mut self, column: usize, raw: &str) {
        self.row.fail(column, fail_code::UNPARSABLE);
        self.memory.refused(self.place(column), fail_code::UNPARSABLE);
        self.tell(column, raw);
    }

    /// A code in place of a value; one of `lacking` says that the device has no such thing.
    pub(super) fn refuse(&mut self, column: usize, code: i32, lacking: &[i32]) {
        self.memory.refused(self.place(column), code);
        if lacking.contains(&code) {
            self.memory.set_unsupported(self.place(column));
            self.row.unsupported(column);
            return;
        }
        self.row.fail(column, code);
        if code == GPU_IS_LOST || DRIVER_IS_GONE.contains(&code) {
            self.ended = Some(code);
        }
    }

    /// Keeps a raw value that cannot be one, as an event.
    fn tell(&mut self, column: usize, raw: &str) {
        if !self.memory.tells_implausible(self.place(column)) {
            return;
        }
        let table = self.row.table();
        let name = table.columns[column].name;
        let message = format!("{}.{name} was read as {raw}, which cannot be: it counts as a failed read", table.name);
        let details = json!({"table": table.name, "column": name, "raw": raw, "link": self.link});
        let draft = EventDraft::new("value_implausible", "nvml", "warning", message);
        self.events.push(EventDraft { details_json: Some(details.to_string()), ..draft });
    }

    /// The row, with what NVML says of its own reading in these two columns; its status where the GPU is gone.
    pub(super) fn finish(mut self, latency: usize, read_at: usize) -> (Row, Vec<EventDraft>) {
        let timing = std::mem::take(&mut self.timing);
        match self.ended {
            None if timing.answered => {
                self.take(latency, Ok(timing.latency_us));
                match timing.earliest {
                    Some(earliest) => self.take(read_at, Ok(earliest)),
                    None => self.row.unsupported(read_at),
                }
            }
            None => [latency, read_at].into_iter().for_each(|column| match timing.failed {
                Some(code) => self.row.fail(column, code),
                None => self.row.unsupported(column),
            }),
            Some(code) => {
                self.row.fail_all(code);
                self.row.set_status(if code == GPU_IS_LOST { row_status::LOST } else { row_status::UNREACHABLE });
            }
        }
        (self.row, self.events)
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::Cell;
    use racklake_schemas::tables::{GPU_HEALTH, GPU_SAMPLE, gpu_health as h, gpu_sample as c};

    use super::*;

    #[test]
    fn what_cannot_be_is_a_failed_read_and_told_once_with_its_raw_value() {
        let mut memory = Memory::default();
        let mut told = Vec::new();
        for _ in 0..2 {
            let mut filler = Filler::new(&GPU_SAMPLE, None, LACKING, &mut memory);
            filler.many([c::GPU_UTILIZATION_PERCENT, c::MEMORY_UTILIZATION_PERCENT], || Ok([808_334_905u32, 7]));
            filler.one(c::ENERGY_MILLIJOULES, || Ok(u64::MAX));
            filler.one(c::THROTTLE_REASONS_MASK, || Ok(4u64));
            filler.float(c::GPM_SM_ACTIVE_PERCENT, Ok(f64::NAN));
            let (row, events) = filler.finish(c::FIELDS_LATENCY_US, c::FIELDS_READ_AT);
            let failed = [c::GPU_UTILIZATION_PERCENT, c::ENERGY_MILLIJOULES, c::GPM_SM_ACTIVE_PERCENT];
            assert_eq!(failed.map(|column| (row.has_failed(column), row.cell(column))), [(true, &Cell::Null); 3]);
            assert_eq!(row.fail_code(), Some(fail_code::OUT_OF_RANGE));
            assert_eq!(
                (row.cell(c::MEMORY_UTILIZATION_PERCENT), row.has_failed(c::THROTTLE_REASONS_MASK)),
                (&7.into(), false)
            );
            told.push(events.into_iter().map(|event| event.details_json.unwrap()).collect::<Vec<_>>());
        }
        assert_eq!((told[0].len(), told[1].len()), (3, 0));
        assert!(told[0][0].contains("\"raw\":\"808334905\"") && told[0][0].contains("gpu_utilization_percent"));
    }

    #[test]
    fn all_ones_are_no_value_even_where_they_would_fit() {
        let mut memory = Memory::default();
        let mut filler = Filler::new(&GPU_HEALTH, None, LACKING, &mut memory);
        let answer = |value| FieldAnswer { value: Ok(value), timestamp: 5, latency_us: 3 };
        filler.field(h::PCIE_REPLAYS, &answer(FieldValue::Unsigned32(u32::MAX)));
        filler.field(h::PCIE_TX_BYTES, &answer(FieldValue::Unsigned64(u64::from(u32::MAX))));
        filler.field(h::NVLINKS, &answer(FieldValue::Unknown(9, 1)));
        let (row, events) = filler.finish(h::FIELDS_LATENCY_US, h::FIELDS_READ_AT);
        assert_eq!(
            [h::PCIE_REPLAYS, h::PCIE_TX_BYTES, h::NVLINKS].map(|column| row.has_failed(column)),
            [true, false, true]
        );
        assert_eq!((row.cell(h::FIELDS_LATENCY_US), row.cell(h::FIELDS_READ_AT)), (&9.into(), &5.into()));
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn what_is_unsupported_is_not_asked_again_and_a_lost_gpu_is_asked_nothing() {
        let mut memory = Memory::default();
        let mut filler = Filler::new(&GPU_SAMPLE, None, LACKING, &mut memory);
        filler.one::<u32>(c::POWER_MILLIWATTS, || Err(NOT_SUPPORTED));
        filler.one::<u32>(c::POWER_LIMIT_MILLIWATTS, || Err(INVALID_ARGUMENT));
        let mut filler = Filler::new(&GPU_SAMPLE, None, LACKING, filler.memory);
        filler.one::<u32>(c::POWER_MILLIWATTS, || panic!("asked again"));
        filler.one::<u32>(c::POWER_LIMIT_MILLIWATTS, || Err(GPU_IS_LOST));
        filler.one::<i32>(c::GPU_TEMP_CELSIUS, || panic!("a lost GPU was asked"));
        let (row, _) = filler.finish(c::FIELDS_LATENCY_US, c::FIELDS_READ_AT);
        assert!(row.is_unsupported(c::POWER_MILLIWATTS) && !row.has_failed(c::POWER_MILLIWATTS));
        assert!(row.has_failed(c::POWER_LIMIT_MILLIWATTS) && row.has_failed(c::GPU_TEMP_CELSIUS));
        assert_eq!((row.status(), row.fail_code()), (row_status::LOST, Some(GPU_IS_LOST)));
    }
}
