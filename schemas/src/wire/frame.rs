//! The envelope of a frame: `encode` and `decode` face to face.

use std::ops::Range;

use arrow::array::RecordBatch;

use super::protobuf::{Field, put_bytes_field, put_bytes_header, put_varint_field, take_field};
use super::{DECODED_BYTES_MAX, DecodeError, FORMAT, ROWS_BYTES_MAX, ROWS_MAX, column};
use crate::catalog::{self, CATALOG_VERSION, Origin, Table};
use crate::identity::{is_label, is_stream_id};
use crate::rows::{ColumnRows, Rows, Values};
use crate::tables::gpu_sample::{FRAME_ROWS, NODE, RECEIVED_AT, SEQ, STREAM_ID};

/// Field number of the columns.
const COLUMN: u32 = 8;

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
        put_bytes_header(&mut out, COLUMN, body.len());
        out.extend_from_slice(&body);
    }
    out
}

/// Reads what a frame says of itself and not its rows, which may still be no good.
///
/// # Errors
/// A [`DecodeError`] that says what is wrong.
pub fn peek(bytes: &[u8]) -> Result<FrameHeader, DecodeError> {
    Ok(Envelope::read(bytes)?.header)
}

/// Reads a frame and adds its rows to those of its table, which `rows_of` gives. Where it fails, nothing is added.
///
/// The rows must be flushed before they pass [`ROWS_BYTES_MAX`]; above it every frame is [`DecodeError::RowsFull`].
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
    /// Bytes that texts and lists may take.
    room: usize,
    bytes: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Envelope<'a>, DecodeError> {
        let (mut format, mut catalog_version, mut seq, mut rows) = (0, 0, 0, 0);
        let (mut table, mut stream_id, mut node) = (&b""[..], &b""[..], &b""[..]);
        let mut rest = bytes;
        while let Some((number, field)) = take_field(&mut rest)? {
            match (number, field) {
                (1, Field::Varint(v)) => format = v,
                (2, Field::Bytes(v)) => table = v,
                (3, Field::Varint(v)) => catalog_version = v,
                (4, Field::Bytes(v)) => stream_id = v,
                (5, Field::Varint(v)) => seq = v,
                (6, Field::Bytes(v)) => node = v,
                (7, Field::Varint(v)) => rows = v,
                (COLUMN, Field::Bytes(_)) => {}
                (1..=COLUMN, _) => return Err(DecodeError::BadTag),
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
        let too_large = || DecodeError::TooLarge(format!("{rows} rows"));
        let rows = match usize::try_from(rows) {
            Ok(0) => return Err(DecodeError::BadHeader("rows")),
            Ok(rows) if rows <= ROWS_MAX => rows,
            _ => return Err(too_large()),
        };
        let row = table.row_width() + header.node.len() + header.stream_id.len();
        let known = rows * row + rows.div_ceil(8) * table.columns.len();
        let room = DECODED_BYTES_MAX.checked_sub(known).ok_or_else(too_large)?;
        Ok(Envelope { header, catalog_version, rows, room, bytes })
    }

    fn add_to(&self, rows: &mut Rows, received_at: i64) -> Result<Vec<u32>, DecodeError> {
        let table = self.header.table;
        if rows.table() != table {
            return Err(DecodeError::UnknownTable(table.name.to_owned()));
        }
        if rows.bytes() > ROWS_BYTES_MAX {
            return Err(DecodeError::RowsFull);
        }
        let end = rows.len() + self.rows;
        let mut room = self.room;
        let mut unknown = Vec::new();
        let mut next = 0;
        let mut rest = self.bytes;
        while let Some((number, field)) = take_field(&mut rest)? {
            let (COLUMN, Field::Bytes(bytes)) = (number, field) else { continue };
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
            (Values::Text { ends, bytes }, Fill::Text(text)) => column::push_repeated(ends, bytes, text, n),
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
