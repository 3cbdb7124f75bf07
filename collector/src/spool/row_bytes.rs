//! Rows as bytes, for the journal: written in the order of the columns, read back the same.
//!
//! Only the collector that wrote a journal reads it, at its next start, so columns are named by the catalog's id and one
//! that is no longer known is left out. It is no wire format.

use racklake_schemas::{Bits, Cell, Row, Table, catalog};

/// Appends values to bytes.
#[derive(Debug, Default)]
pub(crate) struct Out(pub(crate) Vec<u8>);

/// Takes values from bytes; `None` where they end too early or make no sense.
#[derive(Debug)]
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

fn mask_pairs(table: &Table) -> usize {
    if table.is_wide { 2 } else { 1 }
}

impl Out {
    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn row(&mut self, row: &Row) {
        self.text(row.table().name);
        self.byte(row.status() as u8);
        self.i64(row.fail_code().map_or(i64::MIN, i64::from));
        let (unsupported, failed) = (row.unsupported_bits().masks(), row.failed_bits().masks());
        for pair in 0..mask_pairs(row.table()) {
            self.i64(unsupported[pair]);
            self.i64(failed[pair]);
        }
        let columns = row.table().columns.iter().enumerate();
        let filled: Vec<_> = columns.filter(|(index, _)| *row.cell(*index) != Cell::Null).collect();
        self.u32(filled.len() as u32);
        for (index, column) in filled {
            self.u32(column.id);
            self.cell(row.cell(index));
        }
    }

    fn cell(&mut self, cell: &Cell) {
        match cell {
            Cell::Null => self.byte(0),
            Cell::I64(value) => {
                self.byte(1);
                self.i64(*value);
            }
            Cell::F32(value) => {
                self.byte(2);
                self.u32(value.to_bits());
            }
            Cell::F64(value) => {
                self.byte(3);
                self.i64(value.to_bits() as i64);
            }
            Cell::Text(text) => {
                self.byte(4);
                self.text(text);
            }
            Cell::List(items) => {
                self.byte(5);
                self.u32(items.len() as u32);
                items.iter().for_each(|item| self.i64(item.map_or(i64::MIN, i64::from)));
            }
        }
    }
}

impl In<'_> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    pub(crate) fn table(&mut self) -> Option<&'static Table> {
        catalog::table(&self.text()?)
    }

    pub(crate) fn row(&mut self) -> Option<Row> {
        let table = self.table()?;
        let status = self.byte()? as i8;
        let fail_code = i32::try_from(self.i64()?).ok();
        let (mut unsupported, mut failed) = ([0; 2], [0; 2]);
        for pair in 0..mask_pairs(table) {
            unsupported[pair] = self.i64()?;
            failed[pair] = self.i64()?;
        }
        let bits = Bits::from_masks;
        let (unsupported, failed) = (bits(unsupported[0], unsupported[1]), bits(failed[0], failed[1]));
        let mut row = Row::restored(table, status, fail_code, unsupported, failed);
        for _ in 0..self.u32()? {
            let id = self.u32()?;
            let cell = self.cell()?;
            if let Some(index) = table.columns.iter().position(|column| column.id == id) {
                row.set(index, cell);
            }
        }
        Some(row)
    }

    fn cell(&mut self) -> Option<Cell> {
        Some(match self.byte()? {
            0 => Cell::Null,
            1 => Cell::I64(self.i64()?),
            2 => Cell::F32(f32::from_bits(self.u32()?)),
            3 => Cell::F64(f64::from_bits(self.i64()? as u64)),
            4 => Cell::Text(self.text()?),
            5 => {
                let length = self.u32()?;
                Cell::List((0..length).map(|_| Some(i32::try_from(self.i64()?).ok())).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::{HASHBOARD_SAMPLE, hashboard_sample};

    use super::*;

    #[test]
    fn a_row_is_read_back_as_it_was_written() {
        let mut row = Row::new(&HASHBOARD_SAMPLE);
        let with_bit = HASHBOARD_SAMPLE.columns.iter().enumerate().filter(|(_, column)| column.bit.is_some());
        let columns: Vec<usize> = with_bit.map(|(index, _)| index).collect();
        row.unsupported(columns[0]);
        row.fail(columns[1], 7);
        row.set(hashboard_sample::DEVICE_ID, "avalon:ü");
        row.set(hashboard_sample::BOARD_INDEX, 2);
        row.set(columns[2], Cell::List(vec![Some(-5), None]));
        row.set(columns[3], f64::MIN_POSITIVE);
        let mut out = Out::default();
        out.row(&row);
        assert_eq!(In(&out.0).row(), Some(row));
        assert_eq!(In(&out.0[..out.0.len() - 1]).row(), None);
    }
}
