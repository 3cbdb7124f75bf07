//! One row on its way from a sensor into a frame: cells by column, and the masks that say why one is empty.

use crate::catalog::{Table, ValueType};

/// One reading, or the absence of one.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Cell {
    /// Absent; the masks say why.
    #[default]
    Null,
    /// Any integer, also a timestamp in µs UTC.
    I64(i64),
    /// A float whose source is 32 bits wide.
    F32(f32),
    /// A float.
    F64(f64),
    /// Text.
    Text(String),
    /// One value per position; `None` is unread.
    List(Vec<Option<i32>>),
}

/// Values of `row_status`.
#[allow(missing_docs, reason = "the catalog says what they mean")]
pub mod row_status {
    pub const OK: i8 = 0;
    pub const PARTIAL: i8 = 1;
    pub const STALE: i8 = 2;
    pub const LATE: i8 = 3;
    pub const UNREACHABLE: i8 = 4;
    pub const LOST: i8 = 5;
}

/// Values of `fail_code` that are racklake's own; smaller ones are the source's return codes.
pub mod fail_code {
    /// The value lies outside of what the catalog calls plausible.
    pub const OUT_OF_RANGE: i32 = 1000;
    /// The reply cannot be read.
    pub const UNPARSABLE: i32 = 1001;
    /// The collector may not read it.
    pub const NO_PERMISSION: i32 = 1002;
    /// The deadline passed.
    pub const DEADLINE: i32 = 1003;
    /// Nobody answers at the address.
    pub const UNREACHABLE: i32 = 1004;
    /// The device answers and declines.
    pub const REFUSED: i32 = 1005;
    /// The reply lacks a field that this model has.
    pub const MISSING: i32 = 1006;

    /// What a code of racklake's own says, in words; `None` for those of devices and drivers.
    pub fn name(code: i32) -> Option<&'static str> {
        Some(match code {
            OUT_OF_RANGE => "out of range",
            UNPARSABLE => "unparsable",
            NO_PERMISSION => "no permission",
            DEADLINE => "deadline",
            UNREACHABLE => "unreachable",
            REFUSED => "refused",
            MISSING => "missing",
            _ => return None,
        })
    }
}

/// Bits of readings: 0 to 62 are those of a table's first mask, 63 to 125 those of the second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bits([i64; 2]);

impl Bits {
    /// Bits that one mask holds.
    const A_MASK: u8 = 63;

    /// The bits that these two masks say.
    pub const fn from_masks(first: i64, second: i64) -> Bits {
        Bits([first, second])
    }

    /// The first mask and the second.
    pub const fn masks(self) -> [i64; 2] {
        self.0
    }

    /// Whether that bit is set.
    pub fn contains(self, bit: u8) -> bool {
        self.0.get(usize::from(bit / Bits::A_MASK)).is_some_and(|mask| mask & (1 << (bit % Bits::A_MASK)) != 0)
    }

    fn insert(&mut self, bit: u8) {
        if let Some(mask) = self.0.get_mut(usize::from(bit / Bits::A_MASK)) {
            *mask |= 1 << (bit % Bits::A_MASK);
        }
    }

    fn remove(&mut self, bit: u8) {
        if let Some(mask) = self.0.get_mut(usize::from(bit / Bits::A_MASK)) {
            *mask &= !(1 << (bit % Bits::A_MASK));
        }
    }
}

/// One row of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    table: &'static Table,
    cells: Vec<Cell>,
    unsupported: Bits,
    failed: Bits,
    fail_code: Option<i32>,
    status: i8,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Row {
    /// A row with every cell empty.
    pub fn new(table: &'static Table) -> Row {
        Row {
            table,
            cells: vec![Cell::Null; table.columns.len()],
            unsupported: Bits::default(),
            failed: Bits::default(),
            fail_code: None,
            status: row_status::OK,
        }
    }

    /// A row without cells that says of itself what an earlier one did; for rows that were kept on disk.
    pub fn restored(table: &'static Table, status: i8, fail_code: Option<i32>, unsupported: Bits, failed: Bits) -> Row {
        Row { status, fail_code, unsupported, failed, ..Row::new(table) }
    }

    /// The table that the row belongs to.
    pub fn table(&self) -> &'static Table {
        self.table
    }

    /// Sets a cell as it is: identities, states and texts.
    pub fn set(&mut self, column: usize, value: impl Into<Cell>) {
        self.cells[column] = value.into();
    }

    /// Sets a reading; one outside of the catalog's range or type is a failed read, never a value. In a list the
    /// items that are out of range become null.
    pub fn read(&mut self, column: usize, value: impl Into<Cell>) {
        let spec = &self.table.columns[column];
        let min = spec.min.unwrap_or(i64::MIN);
        let max = spec.max.unwrap_or(i64::MAX);
        let within = |v: i64| v >= min && v <= max;
        let mut value = value.into();
        let plausible = match (&mut value, spec.value_type) {
            (Cell::Null, _) | (Cell::Text(_), ValueType::Text) => true,
            (Cell::I64(v), ValueType::I8) => within(*v) && i8::try_from(*v).is_ok(),
            (Cell::I64(v), ValueType::I32) => within(*v) && i32::try_from(*v).is_ok(),
            (Cell::I64(v), ValueType::I64 | ValueType::Timestamp) => within(*v),
            (Cell::F32(v), ValueType::F32) => v.is_finite(),
            (Cell::F64(v), ValueType::F64) => v.is_finite() && *v >= min as f64 && *v <= max as f64,
            (Cell::List(items), ValueType::ListI32) => {
                for item in items.iter_mut() {
                    *item = item.filter(|v| within(i64::from(*v)));
                }
                true
            }
            _ => false,
        };
        if plausible {
            if value != Cell::Null {
                self.reason_gone(column);
            }
            self.cells[column] = value;
        } else {
            self.fail(column, fail_code::OUT_OF_RANGE);
        }
    }

    /// A value has come after all, from elsewhere: what was said of its absence no longer holds.
    fn reason_gone(&mut self, column: usize) {
        let Some(bit) = self.table.columns[column].bit else { return };
        self.unsupported.remove(bit);
        self.failed.remove(bit);
        if self.failed == Bits::default() && self.status == row_status::PARTIAL {
            self.status = row_status::OK;
            self.fail_code = None;
        }
    }

    /// Marks a reading as failed; the first code of the row is kept.
    pub fn fail(&mut self, column: usize, code: i32) {
        self.cells[column] = Cell::Null;
        if let Some(bit) = self.table.columns[column].bit {
            self.unsupported.remove(bit);
            self.failed.insert(bit);
        }
        self.fail_code.get_or_insert(code);
        if self.status == row_status::OK {
            self.status = row_status::PARTIAL;
        }
    }

    /// Marks a reading as something that the device does not have.
    pub fn unsupported(&mut self, column: usize) {
        self.cells[column] = Cell::Null;
        if let Some(bit) = self.table.columns[column].bit {
            self.unsupported.insert(bit);
        }
    }

    /// Marks the readings of these bits as things that the device does not have.
    pub fn unsupported_where(&mut self, bits: Bits) {
        for column in 0..self.cells.len() {
            if self.table.columns[column].bit.is_some_and(|bit| bits.contains(bit)) {
                self.unsupported(column);
            }
        }
    }

    /// Marks every reading that has no value yet and is not unsupported as failed.
    pub fn fail_all(&mut self, code: i32) {
        for column in 0..self.cells.len() {
            let Some(bit) = self.table.columns[column].bit else { continue };
            if self.cells[column] == Cell::Null && !self.unsupported.contains(bit) {
                self.failed.insert(bit);
            }
        }
        self.fail_code.get_or_insert(code);
        if self.status == row_status::OK {
            self.status = row_status::PARTIAL;
        }
    }

    /// Sets `row_status`.
    pub fn set_status(&mut self, status: i8) {
        self.status = status;
    }

    /// The row status, see [`row_status`].
    pub fn status(&self) -> i8 {
        self.status
    }

    /// Code of the first reading that failed.
    pub fn fail_code(&self) -> Option<i32> {
        self.fail_code
    }

    /// Which readings the device does not have.
    pub fn unsupported_bits(&self) -> Bits {
        self.unsupported
    }

    /// Which readings failed.
    pub fn failed_bits(&self) -> Bits {
        self.failed
    }

    /// The first mask of the readings that the device does not have.
    pub fn unsupported_mask(&self) -> i64 {
        self.unsupported.0[0]
    }

    /// The first mask of the readings that failed.
    pub fn failed_mask(&self) -> i64 {
        self.failed.0[0]
    }

    /// Whether the device does not have the reading of a column.
    pub fn is_unsupported(&self, column: usize) -> bool {
        self.table.columns[column].bit.is_some_and(|bit| self.unsupported.contains(bit))
    }

    /// Whether the reading of a column failed.
    pub fn has_failed(&self, column: usize) -> bool {
        self.table.columns[column].bit.is_some_and(|bit| self.failed.contains(bit))
    }

    /// The cell of a column.
    pub fn cell(&self, column: usize) -> &Cell {
        &self.cells[column]
    }

    /// The cells, with status, code and masks written to the columns that hold them.
    pub(crate) fn into_cells(mut self) -> Vec<Cell> {
        if self.table.is_sample {
            use crate::tables::gpu_sample::{FAIL_CODE, FAILED_MASK, ROW_STATUS, UNSUPPORTED_MASK};
            self.cells[ROW_STATUS] = Cell::I64(i64::from(self.status));
            self.cells[FAIL_CODE] = self.fail_code.map_or(Cell::Null, |code| Cell::I64(i64::from(code)));
            self.cells[UNSUPPORTED_MASK] = Cell::I64(self.unsupported.0[0]);
            self.cells[FAILED_MASK] = Cell::I64(self.failed.0[0]);
        }
        if self.table.is_wide {
            use crate::tables::gpu_health::{FAILED_MASK_2, UNSUPPORTED_MASK_2};
            self.cells[UNSUPPORTED_MASK_2] = Cell::I64(self.unsupported.0[1]);
            self.cells[FAILED_MASK_2] = Cell::I64(self.failed.0[1]);
        }
        self.cells
    }
}

macro_rules! cell_from {
    ($($source:ty => |$value:ident| $cell:expr;)*) => {$(
        impl From<$source> for Cell {
            fn from($value: $source) -> Cell {
                $cell
            }
        }
    )*};
}

cell_from! {
    i8 => |v| Cell::I64(i64::from(v));
    i32 => |v| Cell::I64(i64::from(v));
    u32 => |v| Cell::I64(i64::from(v));
    i64 => |v| Cell::I64(v);
    f32 => |v| Cell::F32(v);
    f64 => |v| Cell::F64(v);
    String => |v| Cell::Text(v);
    &str => |v| Cell::Text(v.to_owned());
    Vec<Option<i32>> => |v| Cell::List(v);
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{MINER_SAMPLE, miner_sample};

    #[test]
    fn a_value_that_comes_from_elsewhere_takes_back_why_there_was_none() {
        let mut row = Row::new(&MINER_SAMPLE);
        row.unsupported(miner_sample::ACCEPTED_SHARES);
        row.read(miner_sample::ACCEPTED_SHARES, 7_i64);
        row.fail(miner_sample::REJECTED_SHARES, fail_code::MISSING);
        row.read(miner_sample::REJECTED_SHARES, 1_i64);
        assert_eq!((row.unsupported_mask(), row.failed_mask(), row.fail_code()), (0, 0, None));
        assert_eq!(row.status(), row_status::OK);
        row.unsupported(miner_sample::STALE_SHARES);
        row.fail(miner_sample::STALE_SHARES, fail_code::MISSING);
        assert!(row.has_failed(miner_sample::STALE_SHARES) && !row.is_unsupported(miner_sample::STALE_SHARES));
    }
}
