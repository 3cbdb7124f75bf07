//! The envelope of a frame: `encode` and `decode` face to face.

use std::ops::Range;

use arrow::array::RecordBatch;

use super::protobuf::{Field, put_bytes_field, put_bytes_header, put_varint_field, take_field};
use super::{DECODED_BYTES_MAX, DecodeError, FORMAT, ROWS_MAX, column};
use crate::catalog::{self, CATALOG_VERSION, Origin, Table};
use crate::identity::{is_label, is_stream_id};
use crate::rows::{ColumnRows, Rows, Values};
use crate::tables::gpu_sample::{FRAME_ROWS, NODE, RECEIVED_AT, SEQ, STREAM_ID};

/// What a frame says once for all of its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameHeader {
    /// The table of the rows.
    pub table: &'static Table,
    /// Life of the spool that the frame was made in.
    pub stream_id: String,
    /// Number of the frame within stream and table, from 1.
    pub seq: i64,
    /// Host that made it.
    pub node: String,
}

/// What `decode` found beside the rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The envelope.
    pub header: FrameHeader,
    /// Catalog version of the writer.
    pub catalog_version: u32,
    /// Where the rows stand in the [`Rows`] that they were added to.
    pub rows: Range<usize>,
    /// Ids of columns that this catalog does not know; their values were passed over.
    pub unknown_columns: Vec<u32>,
}

/// Writes the rows of a batch, which must be in the catalog's order and best sorted by device, as one frame.
pub fn encode(header: &FrameHeader, batch: &RecordBatch) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + batch.num_rows() * header.table.columns.len());
    put_varint_field(&mut out, 1, u64::from(FORMAT));
    put_bytes_field(&mut out, 2, header.table.name.as_bytes());
    put_varint_field(&mut out, 3, u64::from(CATALOG_VERSION));
    put_bytes_field(&mut out, 4, header.stream_id.as_bytes());
    put_varint_field(&mut out, 5, header.seq as u64);
    put_bytes_field(&mut out, 6, header.node.as_bytes());
    put_varint_field(&mut out, 7, batch.num_rows() as u64);
    let mut scratch = column::Scratch::default();
    let mut body = Vec::new();
    for (spec, array) in header.table.columns.iter().zip(batch.columns()) {
        if spec.origin != Origin::Column || array.null_count() == array.len() {
            continue; // an absent column is all null
        }
        body.clear();
        column::encode(spec, array, &mut body, &mut scratch);
        put_bytes_header(&mut out, 8, body.len());
        out.extend_from_slice(&body);
    }
    out
}

/// Reads a frame and adds its rows to those of its table, which `rows_of` gives. Where it fails, nothing is added.
///
/// # Errors
/// A [`DecodeError`] that says what is wrong; never a panic, whatever the bytes.
pub fn decode<'r>(
    bytes: &[u8],
    received_at: i64,
    rows_of: impl FnOnce(&'static Table) -> &'r mut Rows,
) -> Result<Received, DecodeError> {
    let envelope = Envelope::read(bytes)?;
    let rows = rows_of(envelope.header.table);
    let before = rows.len();
    match envelope.add_to(rows, received_at) {
        Ok(unknown_columns) => {
            rows.set_len(before + envelope.rows);
            Ok(Received {
                header: envelope.header,
                catalog_version: envelope.catalog_version,
                rows: before..rows.len(),
                unknown_columns,
            })
        }
        Err(error) => {
            rows.roll_back();
            Err(error)
        }
    }
}

struct Envelope<'a> {
    header: FrameHeader,
    catalog_version: u32,
    rows: usize,
    columns: Vec<&'a [u8]>,
}

impl<'a> Envelope<'a> {
    fn read(mut bytes: &'a [u8]) -> Result<Envelope<'a>, DecodeError> {
        let (mut format, mut catalog_version, mut seq, mut rows) = (0, 0, 0, 0);
        let (mut table, mut stream_id, mut node) = (&b""[..], &b""[..], &b""[..]);
        let mut columns = Vec::new();
        while let Some((number, field)) = take_field(&mut bytes)? {
            match (number, field) {
                (1, Field::Varint(v)) => format = v,
                (2, Field::Bytes(v)) => table = v,
                (3, Field::Varint(v)) => catalog_version = v,
                (4, Field::Bytes(v)) => stream_id = v,
                (5, Field::Varint(v)) => seq = v,
                (6, Field::Bytes(v)) => node = v,
                (7, Field::Varint(v)) => rows = v,
                (8, Field::Bytes(v)) => columns.push(v),
                (1..=8, _) => return Err(DecodeError::BadTag),
                _ => {} // added by a newer writer
            }
        }
        if format == 0 || format > u64::from(FORMAT) {
            return Err(DecodeError::UnknownFormat(format));
        }
        let name = std::str::from_utf8(table).map_err(|_| DecodeError::BadHeader("table"))?;
        let table = catalog::table(name).ok_or_else(|| DecodeError::UnknownTable(name.chars().take(64).collect()))?;
        let text = |bytes: &[u8], valid: fn(&str) -> bool, field| {
            let text = std::str::from_utf8(bytes).ok().filter(|text| valid(text));
            text.map(str::to_owned).ok_or(DecodeError::BadHeader(field))
        };
        let header = FrameHeader {
            table,
            stream_id: text(stream_id, is_stream_id, "stream_id")?,
            seq: i64::try_from(seq).ok().filter(|seq| *seq > 0).ok_or(DecodeError::BadHeader("seq"))?,
            node: text(node, is_label, "node")?,
        };
        let catalog_version = u32::try_from(catalog_version).map_err(|_| DecodeError::BadHeader("catalog_version"))?;
        if rows == 0 {
            return Err(DecodeError::BadHeader("rows"));
        }
        let decoded = rows.saturating_mul(table.row_width() as u64);
        if rows > ROWS_MAX as u64 || decoded > DECODED_BYTES_MAX as u64 {
            return Err(DecodeError::TooLarge(format!("{rows} rows")));
        }
        Ok(Envelope { header, catalog_version, rows: rows as usize, columns })
    }

    fn add_to(&self, rows: &mut Rows, received_at: i64) -> Result<Vec<u32>, DecodeError> {
        let table = self.header.table;
        let end = rows.len() + self.rows;
        let mut room = DECODED_BYTES_MAX - self.rows * table.row_width();
        let mut unknown = Vec::new();
        let mut next = 0;
        for bytes in &self.columns {
            let id = column::id(bytes)?;
            // Columns come in catalog order, so the search seldom takes a second step.
            let Some(index) = find(table, id, next) else {
                unknown.push(id);
                continue;
            };
            next = index + 1;
            let spec = &table.columns[index];
            let target = &mut rows.columns[index];
            if spec.origin != Origin::Column {
                return Err(DecodeError::BadValue(id));
            }
            if target.len() == end {
                return Err(DecodeError::ColumnTwice(id));
            }
            column::decode(spec, bytes, self.rows, target, &mut room)?;
        }
        for (spec, target) in table.columns.iter().zip(&mut rows.columns) {
            if target.len() < end && spec.origin == Origin::Column {
                if !spec.nullable {
                    return Err(DecodeError::MissingValue(spec.id));
                }
                target.push_nulls(self.rows);
            }
        }
        self.fill(&mut rows.columns[RECEIVED_AT], Fill::I64(received_at));
        self.fill(&mut rows.columns[NODE], Fill::Text(&self.header.node));
        self.fill(&mut rows.columns[STREAM_ID], Fill::Text(&self.header.stream_id));
        self.fill(&mut rows.columns[SEQ], Fill::I64(self.header.seq));
        self.fill(&mut rows.columns[FRAME_ROWS], Fill::I32(self.rows as i32));
        Ok(unknown)
    }

    fn fill(&self, column: &mut ColumnRows, value: Fill<'_>) {
        let n = self.rows;
        column.validity.append_n_non_nulls(n);
        match (&mut column.values, value) {
            (Values::I64(values), Fill::I64(v)) => values.resize(values.len() + n, v),
            (Values::I32(values), Fill::I32(v)) => values.resize(values.len() + n, v),
            (Values::Text { ends, bytes }, Fill::Text(text)) => {
                for _ in 0..n {
                    bytes.extend_from_slice(text.as_bytes());
                    ends.push(bytes.len() as i32);
                }
            }
            _ => debug_assert!(false, "the common columns have these types in every table"),
        }
    }
}

enum Fill<'a> {
    I32(i32),
    I64(i64),
    Text(&'a str),
}

fn find(table: &Table, id: u32, from: usize) -> Option<usize> {
    let (before, after) = table.columns.split_at(from.min(table.columns.len()));
    let position = |columns: &[crate::Column]| columns.iter().position(|column| column.id == id);
    position(after).map(|i| i + before.len()).or_else(|| position(before))
}
