//! Fills a row from texts of a firmware, and remembers which columns a model has.
//!
//! A column that the model lacks is unsupported; one that it has told before, or is known to have, and that a reply lacks
//! is a failed read. What a text holds is judged here once for all firmwares: a number that is none is unparsable, a
//! counter below zero is out of range, and the catalog's range decides about the rest.

use std::collections::BTreeSet;

use racklake_schemas::{Cell, Kind, Row, Table, fail_code};

use super::decimal::{NoInteger, shifted};
use super::exchange::Trouble;

/// Most chips of a board that the catalog knows; more are no reading.
const CHIPS_MAX: usize = 10_000;
/// Longest text that is kept.
const TEXT_MAX: usize = 100;

/// Table number and column.
pub(super) type Place = (u32, usize);

/// What a model has, where that is known.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Columns without which the model is complete; `None` where nobody knows what the model has.
    lacks: Option<&'static [Place]>,
    /// Columns that were read once.
    seen: BTreeSet<Place>,
}

impl Keys {
    /// The columns that the model is known to lack: all others are missing where they are absent. `None` for a model
    /// whose replies are not known, which is learnt from what it tells.
    pub(super) fn set_lacks(&mut self, lacks: Option<&'static [Place]>) {
        self.lacks = lacks;
    }

    fn has(&self, place: Place) -> bool {
        match self.lacks {
            Some(lacks) => !lacks.contains(&place),
            None => self.seen.contains(&place),
        }
    }

    /// Whether the model is known to lack the column.
    pub(super) fn surely_lacks(&self, place: Place) -> bool {
        self.lacks.is_some_and(|lacks| lacks.contains(&place))
    }
}

/// A row that is being filled.
pub(super) struct Filler<'a> {
    /// The row so far.
    pub(super) row: Row,
    keys: &'a mut Keys,
}

impl<'a> Filler<'a> {
    /// An empty row of the table.
    pub(super) fn new(table: &'static Table, keys: &'a mut Keys) -> Filler<'a> {
        Filler { row: Row::new(table), keys }
    }

    fn place(&self, column: usize) -> Place {
        (self.row.table().number, column)
    }

    /// A reply has come and does not have it: missing where the model has it, or unsupported.
    pub(super) fn absent(&mut self, column: usize) {
        if self.keys.has(self.place(column)) {
            self.row.fail(column, fail_code::MISSING);
        } else {
            self.row.unsupported(column);
        }
    }

    /// Unsupported where the model is known to lack it; else neither read nor failed.
    pub(super) fn unsupported_if_lacking(&mut self, column: usize) {
        if self.keys.surely_lacks(self.place(column)) {
            self.row.unsupported(column);
        }
    }

    /// A value that needs no judging but that of its range.
    pub(super) fn read(&mut self, column: usize, value: impl Into<Cell>) {
        self.keys.seen.insert(self.place(column));
        self.row.read(column, value);
    }

    /// A printed decimal, shifted to the unit of the column: `shift` 3 makes milliwatts of watts.
    pub(super) fn integer(&mut self, column: usize, text: Option<&str>, shift: i32) {
        let Some(text) = text else { return self.absent(column) };
        let counts = self.row.table().columns[column].kind == Kind::Counter;
        match shifted(text.trim_end_matches('%'), shift) {
            Ok(value) if counts && value < 0 => self.row.fail(column, fail_code::OUT_OF_RANGE),
            Ok(value) => self.read(column, value),
            Err(NoInteger::TooLarge) => self.row.fail(column, fail_code::OUT_OF_RANGE),
            Err(NoInteger::NotANumber) => self.row.fail(column, fail_code::UNPARSABLE),
        }
    }

    /// A number that is not negative.
    pub(super) fn float(&mut self, column: usize, text: Option<&str>) {
        let Some(text) = text else { return self.absent(column) };
        match text.trim().parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => self.read(column, value),
            Ok(value) if value.is_nan() => self.row.fail(column, fail_code::UNPARSABLE),
            Ok(_) => self.row.fail(column, fail_code::OUT_OF_RANGE),
            Err(_) => self.row.fail(column, fail_code::UNPARSABLE),
        }
    }

    /// A text, in one line of bounded length.
    pub(super) fn word(&mut self, column: usize, text: Option<&str>) {
        match text {
            Some(text) => self.read(column, plain(text)),
            None => self.absent(column),
        }
    }

    /// A value per chip; one that is no number is unread.
    pub(super) fn chips(&mut self, column: usize, items: Option<&[&str]>) {
        match items {
            None => self.absent(column),
            Some(items) if items.len() > CHIPS_MAX => self.row.fail(column, fail_code::OUT_OF_RANGE),
            Some(items) => {
                let one = |text: &&str| shifted(text, 0).ok().and_then(|value| i32::try_from(value).ok());
                let values: Vec<Option<i32>> = items.iter().map(one).collect();
                self.read(column, values);
            }
        }
    }

    /// The row, where the firmware tells of these columns only: it has no support for any other.
    pub(super) fn finish(mut self, told: &[&[usize]]) -> Row {
        let told = |index: &usize| told.iter().any(|columns| columns.contains(index));
        let others: Vec<usize> = (0..self.row.table().columns.len()).filter(|index| !told(index)).collect();
        for index in others {
            let column = &self.row.table().columns[index];
            if column.bit.is_some() && *self.row.cell(index) == Cell::Null && !self.row.has_failed(index) {
                self.row.unsupported(index);
            }
        }
        self.row
    }

    /// Columns of a command that has failed, unless they have a value from elsewhere.
    pub(super) fn fail(&mut self, columns: &[usize], trouble: Trouble) {
        for &column in columns {
            if *self.row.cell(column) != Cell::Null {
                continue;
            }
            if self.keys.surely_lacks(self.place(column)) {
                self.row.unsupported(column);
            } else {
                self.row.fail(column, trouble.code());
            }
        }
    }
}

/// A text of a firmware in one line of bounded length.
pub(super) fn plain(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect()
}
