//! The wire format: one Kafka message is one frame, a columnar protobuf message described in `proto/frame.proto`.
//!
//! `encode` and `decode` stand face to face in `frame` (the envelope), `column` (what all types share) and `column/*`
//! (the values of each type). Decoding is total: any byte string gives the rows of a frame or a named error, and a frame
//! that would take more than the limits below is refused before the memory for it is. Fields that a newer writer added
//! to a frame or a column are passed over; a newer `format`, which changes the meaning of known ones, is an error.

mod bitmap;
mod column;
mod frame;
mod protobuf;

pub use frame::{FrameHeader, Received, decode, encode, peek};

/// The format that this crate writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Most rows in a frame.
pub const ROWS_MAX: usize = 64 * 1024;
/// Most bytes that the decoded values of a frame may take, counted as [`crate::Rows::bytes`] counts them.
pub const DECODED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes that rows may hold for another frame to be added: texts and lists end at 32-bit offsets.
pub const ROWS_BYTES_MAX: usize = i32::MAX as usize - DECODED_BYTES_MAX;

/// Names of the Kafka headers of a frame, which repeat what a consumer needs to skip or deduplicate without decoding.
pub mod header {
    /// Table name.
    pub const TABLE: &str = "table";
    /// Format number in decimal.
    pub const FORMAT: &str = "format";
    /// Catalog version in decimal.
    pub const CATALOG_VERSION: &str = "catalog_version";
    /// Node.
    pub const NODE: &str = "node";
    /// Stream.
    pub const STREAM_ID: &str = "stream_id";
    /// Seq in decimal.
    pub const SEQ: &str = "seq";
    /// `1` on a frame that has waited in the spool: its rows are older than their arrival by right. Else absent.
    pub const REPLAY: &str = "replay";
}

/// Why a byte string is not a frame. Every variant is a dead letter; `reason` labels it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end in the middle of a field.
    #[error("the frame ends in the middle of a field")]
    Truncated,
    /// A varint is longer than 64 bits.
    #[error("a varint is longer than 64 bits")]
    BadVarint,
    /// A field tag is no protobuf tag, or a known field has another wire type.
    #[error("a field tag is not valid")]
    BadTag,
    /// The format is newer than this reader, or absent.
    #[error("format {0} is not known here (this reader knows up to {FORMAT}); upgrade ingest first")]
    UnknownFormat(u64),
    /// The table is not in the catalog.
    #[error("table {0:?} is not in the catalog")]
    UnknownTable(String),
    /// A field of the envelope is absent or not what it must be.
    #[error("the frame's {0} is missing or not valid")]
    BadHeader(&'static str),
    /// More rows, or more decoded bytes, than the limits.
    #[error("the frame would hold {0}, more than the limit")]
    TooLarge(String),
    /// The caller's rows hold more than [`ROWS_BYTES_MAX`]; one that flushes by `Rows::bytes` never sees this.
    #[error("the rows in memory take more than {ROWS_BYTES_MAX} bytes; flush them before adding a frame")]
    RowsFull,
    /// A column has another number of values than the frame has rows for it.
    #[error("column {0}: the number of values does not fit the rows")]
    ColumnLength(u32),
    /// A column comes twice.
    #[error("column {0} comes twice")]
    ColumnTwice(u32),
    /// A column's values are of another type than the catalog's, or out of its range.
    #[error("column {0}: a value is not of the column's type")]
    BadValue(u32),
    /// A column that must have a value has none.
    #[error("column {0} must have a value in every row")]
    MissingValue(u32),
}

impl DecodeError {
    /// A short label of the variant, for metrics and the header of a dead letter.
    pub fn reason(&self) -> &'static str {
        match self {
            DecodeError::Truncated => "truncated",
            DecodeError::BadVarint => "bad_varint",
            DecodeError::BadTag => "bad_tag",
            DecodeError::UnknownFormat(_) => "unknown_format",
            DecodeError::UnknownTable(_) => "unknown_table",
            DecodeError::BadHeader(_) => "bad_header",
            DecodeError::TooLarge(_) => "too_large",
            DecodeError::RowsFull => "rows_full",
            DecodeError::ColumnLength(_) => "column_length",
            DecodeError::ColumnTwice(_) => "column_twice",
            DecodeError::BadValue(_) => "bad_value",
            DecodeError::MissingValue(_) => "missing_value",
        }
    }
}
