//! No bytes make the reader panic, take more memory than its limits, or leave half a frame behind.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use racklake_schemas::wire::{self, DECODED_BYTES_MAX, DecodeError, ROWS_MAX};
use racklake_schemas::{Origin, Rows, Table, tables};

use crate::random::{any_rows, frame, header, travelling};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_bytes_are_rows_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        check(&tables::EVENT, &bytes);
    }

    #[test]
    fn a_damaged_frame_is_rows_or_an_error(rows in any_rows(), damage in vec(any_damage(), 1..4)) {
        let table = rows[0].table();
        let mut bytes = frame(&header(table, 1), &rows);
        damage.iter().for_each(|damage| damage.apply(&mut bytes));
        check(table, &bytes);
    }

    #[test]
    fn a_frame_of_any_columns_is_rows_or_an_error((table, rows, columns) in any_columns()) {
        let mut bytes = envelope(table, rows as u64);
        columns.iter().for_each(|column| put(&mut bytes, 8, column));
        check(table, &bytes);
    }

    #[test]
    fn a_frame_that_is_cut_short_adds_nothing(rows in any_rows(), at: Index) {
        let table = rows[0].table();
        let bytes = frame(&header(table, 1), &rows);
        check(table, &bytes[..at.index(bytes.len())]);
    }
}

/// Decodes `bytes` on top of a good frame and sees that this one is untouched and the sizes are within bounds.
fn check(table: &'static Table, bytes: &[u8]) {
    let mut rows = Rows::new(table);
    let base = base(table);
    wire::decode(&base, 5, |_| &mut rows).unwrap();
    let (len, size) = (rows.len(), rows.bytes());
    // Damage may turn the name of a table into that of another one.
    let mut other = None;
    let result =
        wire::decode(
            bytes,
            6,
            |found| {
                if std::ptr::eq(found, table) { &mut rows } else { other.insert(Rows::new(found)) }
            },
        );
    let added = match result {
        Ok(received) if std::ptr::eq(received.header.table, table) => received.rows.len(),
        _ => 0,
    };
    assert_eq!(rows.len(), len + added);
    let grown = rows.bytes() - size;
    // A column's null bits may take a byte more where the rows meet.
    assert!(grown <= DECODED_BYTES_MAX + table.columns.len() * (added / 8 + 1), "{grown} bytes more");
    assert!(added > 0 || grown == 0, "{grown} bytes of a frame that was refused");
    wire::decode(&base, 5, |_| &mut rows).unwrap();
    let found = rows.into_batch().unwrap();
    let mut expected = Rows::new(table);
    wire::decode(&base, 5, |_| &mut expected).unwrap();
    let expected = expected.into_batch().unwrap();
    assert_eq!(found.slice(0, len), expected, "the rows before it");
    assert_eq!(found.slice(len + added, len), expected, "the rows after it");
}

/// A frame of a row with as much in it as the shape allows.
fn base(table: &'static Table) -> Vec<u8> {
    let mut bytes = envelope(table, 2);
    for spec in travelling(table) {
        let mut column = Vec::new();
        put_varint(&mut column, 1, u64::from(spec.id));
        match spec.value_type {
            racklake_schemas::ValueType::Text => put(&mut column, 3, &[0x22, 2, b'h', b'2']),
            racklake_schemas::ValueType::F32 => put(&mut column, 3, &[0x15, 0, 0, 0x80, 0x3f]),
            racklake_schemas::ValueType::F64 => put(&mut column, 3, &[0x19, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
            racklake_schemas::ValueType::ListI32 => {
                put(&mut column, 2, &[2]);
                put(&mut column, 3, &[0x08, 14]);
                put(&mut column, 8, &[3]);
                put(&mut column, 9, &[2]);
            }
            _ => put(&mut column, 4, &[0x0a, 2, 14, 1]),
        }
        put(&mut bytes, 8, &column);
    }
    bytes
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![Just(0u8), Just(0xff), Just(0x80), any::<u8>()];
    prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        (any::<Index>(), 1usize..9).prop_map(|(at, len)| Damage::Remove(at, len)),
        (any::<Index>(), vec(byte, 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Damage::Flip(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Damage::Remove(at, len) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + len).min(bytes.len()));
            }
            Damage::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Repeat(from, to) => {
                let (a, b) = (from.index(bytes.len()), to.index(bytes.len()));
                let part = bytes[a.min(b)..a.max(b)].to_vec();
                bytes.extend(part);
            }
        }
    }
}

/// Columns whose parts are each plausible and seldom fit together.
fn any_columns() -> impl Strategy<Value = (&'static Table, usize, Vec<Vec<u8>>)> {
    (proptest::sample::select(tables::ALL), 1usize..12).prop_flat_map(|(table, rows)| {
        let ids: Vec<u32> = travelling(table).iter().map(|column| column.id).chain([999]).collect();
        let bitmap = || option::of(vec(prop_oneof![Just(0u8), any::<u8>()], rows.div_ceil(8)));
        let packed = vec(prop_oneof![0u8..4, any::<u8>()], 0..3 * rows);
        let arm = prop_oneof![
            any::<u64>().prop_map(|v| (3, varint_field(1, v))),
            packed.clone().prop_map(|packed| (4, field(1, &packed))),
            vec(any::<u32>(), rows)
                .prop_map(|v| (5, field(1, &v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()))),
            vec(any::<u64>(), rows)
                .prop_map(|v| (6, field(1, &v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()))),
            vec(0u8..3, rows).prop_map(|v| (7, [field(1, b"a"), field(1, b""), field(2, &v)].concat())),
            vec(any::<u8>(), 0..20).prop_map(|bytes| (4, bytes)),
        ];
        let lengths = vec(0u8..4, rows);
        let column =
            (proptest::sample::select(ids), bitmap(), option::weighted(0.9, arm), option::of(lengths), bitmap())
                .prop_map(|(id, nulls, arm, lengths, item_nulls)| {
                    let mut column = varint_field(1, u64::from(id));
                    nulls.iter().for_each(|nulls| put(&mut column, 2, nulls));
                    arm.iter().for_each(|(number, arm)| put(&mut column, *number, arm));
                    lengths.iter().for_each(|lengths| put(&mut column, 8, lengths));
                    item_nulls.iter().for_each(|nulls| put(&mut column, 9, nulls));
                    column
                });
        vec(column, 0..6).prop_map(move |columns| (table, rows, columns))
    })
}

fn refusal(table: &'static Table, bytes: &[u8]) -> DecodeError {
    let mut rows = Rows::new(table);
    let error = wire::decode(bytes, 0, |_| &mut rows).expect_err("it was taken");
    assert_eq!((rows.len(), rows.bytes()), (0, 0));
    error
}

#[test]
fn a_frame_of_more_rows_than_the_limit_is_refused() {
    let error = refusal(&tables::EVENT, &envelope(&tables::EVENT, ROWS_MAX as u64 + 1));
    assert_eq!(error, DecodeError::TooLarge("65537 rows".into()));
    let error = refusal(&tables::EVENT, &envelope(&tables::EVENT, u64::MAX));
    assert_eq!(error.reason(), "too_large");
}

#[test]
fn a_small_frame_that_stands_for_gigabytes_of_text_is_refused() {
    let mut column = varint_field(1, u64::from(text_column().id));
    put(&mut column, 3, &field(4, &[b'x'; 20_000]));
    let mut bytes = envelope(&tables::EVENT, ROWS_MAX as u64);
    put(&mut bytes, 8, &column);
    assert_eq!(refusal(&tables::EVENT, &bytes).reason(), "too_large");
}

#[test]
fn a_small_frame_that_stands_for_gigabytes_of_list_items_is_refused() {
    let table = tables::ALL.iter().find(|table| list_column(table).is_some()).unwrap();
    let mut column = varint_field(1, u64::from(list_column(table).unwrap().id));
    put(&mut column, 3, &varint_field(1, 2));
    put(&mut column, 8, &[0xff, 0xff, 0xff, 0x7f].repeat(8));
    let mut bytes = envelope(table, 8);
    put(&mut bytes, 8, &column);
    assert_eq!(refusal(table, &bytes).reason(), "too_large");
}

#[test]
fn a_dictionary_with_more_entries_than_values_is_refused() {
    let mut column = varint_field(1, u64::from(text_column().id));
    put(&mut column, 7, &[field(1, b"a"), field(1, b"b"), field(1, b"c"), field(2, &[0, 1])].concat());
    let mut bytes = envelope(&tables::EVENT, 2);
    put(&mut bytes, 8, &column);
    assert_eq!(refusal(&tables::EVENT, &bytes), DecodeError::ColumnLength(text_column().id));
}

#[test]
fn a_column_that_comes_twice_is_refused() {
    let mut bytes = base(&tables::EVENT);
    let again = varint_field(1, 1);
    put(&mut bytes, 8, &[again, field(4, &field(1, &[14, 1]))].concat());
    assert_eq!(refusal(&tables::EVENT, &bytes), DecodeError::ColumnTwice(1));
}

#[test]
fn a_column_that_the_header_stands_for_is_refused() {
    let spec = tables::EVENT.columns.iter().find(|column| column.origin == Origin::FrameHeader).unwrap();
    let mut bytes = base(&tables::EVENT);
    put(&mut bytes, 8, &varint_field(1, u64::from(spec.id)));
    assert_eq!(refusal(&tables::EVENT, &bytes), DecodeError::BadValue(spec.id));
}

#[test]
fn a_newer_format_is_refused_and_unknown_fields_and_columns_are_passed_over() {
    let mut rows = Rows::new(&tables::EVENT);
    let mut bytes = base(&tables::EVENT);
    put(&mut bytes, 19, b"of a newer writer");
    put(&mut bytes, 8, &[varint_field(1, 70_000), field(4, b"?"), field(31, b"?")].concat());
    let received = wire::decode(&bytes, 0, |_| &mut rows).unwrap();
    assert_eq!((received.rows, received.unknown_columns), (0..2, vec![70_000]));
    bytes.extend(varint_field(1, 2));
    assert_eq!(refusal(&tables::EVENT, &bytes), DecodeError::UnknownFormat(2));
}

#[test]
fn a_site_that_names_another_directory_is_refused() {
    let site = &tables::EVENT.columns[tables::event::SITE];
    let mut bytes = envelope(&tables::EVENT, 1);
    put(&mut bytes, 8, &[varint_field(1, u64::from(site.id)), field(3, &field(4, b"../x"))].concat());
    assert_eq!(refusal(&tables::EVENT, &bytes), DecodeError::BadValue(site.id));
}

fn text_column() -> &'static racklake_schemas::Column {
    &tables::EVENT.columns[tables::event::DEVICE_ID]
}

fn list_column(table: &'static Table) -> Option<&'static racklake_schemas::Column> {
    table.columns.iter().find(|column| column.value_type == racklake_schemas::ValueType::ListI32)
}

/// The header of a frame, without columns.
fn envelope(table: &'static Table, rows: u64) -> Vec<u8> {
    let mut out = varint_field(1, 1);
    put(&mut out, 2, table.name.as_bytes());
    out.extend(varint_field(3, 1));
    put(&mut out, 4, b"0123456789abcdef0123456789abcdef");
    out.extend(varint_field(5, 9));
    put(&mut out, 6, b"n1");
    out.extend(varint_field(7, rows));
    out
}

fn put(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    out.extend(field(number, content));
}

fn put_varint(out: &mut Vec<u8>, number: u64, value: u64) {
    out.extend(varint_field(number, value));
}

fn field(number: u64, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn varint_field(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
