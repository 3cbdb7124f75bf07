//! Reads recorded replies and compares whole rows, for the tests of readers.

use std::collections::BTreeSet;

use proptest::prelude::*;
use racklake_schemas::{Cell, Row};

use super::exchange::Trouble;
use super::json::Json;
use super::reader::{Memory, Reader, Replies, Told};

/// Replies to commands, as they came.
pub(super) fn replies(recorded: &[(&str, &[u8])]) -> Replies {
    let mut replies = Replies::default();
    for (command, bytes) in recorded {
        replies.add(*command, Json::parse(bytes).ok_or(Trouble::Unreadable));
    }
    replies
}

/// What a reader that knows nothing yet makes of them.
pub(super) fn told(reader: &dyn Reader, recorded: &[(&str, &[u8])]) -> Told {
    told_after(reader, recorded, &mut reader.memory())
}

/// What a reader makes of them after earlier polls.
pub(super) fn told_after(reader: &dyn Reader, recorded: &[(&str, &[u8])], memory: &mut Memory) -> Told {
    reader.read(&replies(recorded), memory)
}

/// Checks every column of a row: those that are read and their values, those that have failed, those that are null for
/// another reason; all others are unsupported.
pub(super) fn check(row: &Row, read: &[(usize, Cell)], failed: &[usize], null: &[usize]) {
    let columns = row.table().columns;
    for (column, cell) in read {
        assert_eq!(row.cell(*column), cell, "{}", columns[*column].name);
    }
    let named: BTreeSet<usize> = read.iter().map(|(column, _)| *column).collect();
    for (index, column) in columns.iter().enumerate() {
        if column.bit.is_none() {
            continue;
        }
        let is_null = !named.contains(&index);
        assert_eq!(*row.cell(index) == Cell::Null, is_null, "{} is {:?}", column.name, row.cell(index));
        assert_eq!(row.has_failed(index), failed.contains(&index), "{} has failed", column.name);
        let is_unsupported = is_null && !failed.contains(&index) && !null.contains(&index);
        assert_eq!(row.is_unsupported(index), is_unsupported, "{} is unsupported", column.name);
    }
}

/// The text of a reply with something in it replaced, which must be there.
pub(super) fn changed(recorded: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(recorded);
    assert!(text.contains(from), "{from}");
    text.replace(from, to).into_bytes()
}

/// Any JSON, with the keys that a reader knows among its keys.
pub(super) fn any_json(keys: &'static [&'static str]) -> impl Strategy<Value = Json> {
    let key = prop_oneof![prop::sample::select(keys).prop_map(str::to_owned), "[a-z0-9_]{0,6}"];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        any::<i64>().prop_map(|number| Json::Number(number.to_string())),
        any::<f64>().prop_map(|number| Json::Number(number.to_string())),
        "[-0-9oxX.é]{0,20}".prop_map(Json::Text),
        ".{0,12}".prop_map(Json::Text),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::List),
            prop::collection::vec((key.clone(), inner), 0..8).prop_map(Json::Object),
        ]
    })
}
