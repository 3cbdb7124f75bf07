//! The committed files that are derived from the catalog are what the catalog says.

use racklake_schemas::catalog::CATALOG_VERSION;
use racklake_schemas::{docs, tables};

use crate::{blessing, file};

#[test]
fn the_proto_file_names_the_columns_of_the_catalog() {
    check("schemas/proto/frame.proto", &docs::frame_proto());
}

#[test]
fn the_data_dictionary_is_that_of_the_catalog() {
    check("docs/data-dictionary.md", &docs::data_dictionary());
}

#[test]
fn the_catalog_version_is_that_of_its_newest_column() {
    let newest = tables::ALL.iter().flat_map(|table| table.columns).map(|column| column.since).max();
    assert_eq!(newest, Some(CATALOG_VERSION));
}

fn check(path: &str, derived: &str) {
    if blessing() {
        std::fs::write(file(path), derived).unwrap();
    }
    let committed = std::fs::read_to_string(file(path)).unwrap_or_default();
    let differs = committed.lines().zip(derived.lines()).position(|(a, b)| a != b);
    assert!(
        committed == derived,
        "{path} is stale (line {}): run RACKLAKE_BLESS=1 cargo test -p racklake-schemas and commit it",
        differs.map_or(committed.lines().count().min(derived.lines().count()), |line| line) + 1
    );
}
