//! Columns that the catalog gains reach a table that is there, beside a writer that does not know them yet.

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use racklake_schemas::{Row, Rows, Table, tables};
use racklake_storage::LakeTable;

use crate::support::{TEN_O_CLOCK, TestLake, span};

/// The table `device` as it was in the catalog's first version.
fn device_of_version_1() -> &'static Table {
    let now = &tables::DEVICE;
    let columns = now.columns.iter().take_while(|column| column.since == 1).count();
    assert!(columns < now.columns.len(), "the table has gained nothing");
    Box::leak(Box::new(Table {
        columns: &now.columns[..columns],
        name: now.name,
        number: now.number,
        meaning: now.meaning,
        sort_key: now.sort_key,
        is_sample: now.is_sample,
        is_wide: now.is_wide,
        bench: now.bench,
    }))
}

/// One device; `chassis` is a column that came later.
fn device(table: &'static Table, id: &str, chassis: Option<&str>) -> RecordBatch {
    let mut row = Row::new(table);
    for column in ["ts", "received_at", "observed_at"] {
        row.set(table.column(column).unwrap(), TEN_O_CLOCK);
    }
    for (column, value) in [("site", "hall"), ("node", "n1"), ("stream_id", "s"), ("device_kind", "gpu")] {
        row.set(table.column(column).unwrap(), value);
    }
    row.set(table.column("device_id").unwrap(), id);
    row.set(table.column("seq").unwrap(), 1i64);
    row.set(table.column("frame_rows").unwrap(), 1i32);
    if let Some(chassis) = chassis {
        row.set(table.column("chassis_serial").unwrap(), chassis);
    }
    let mut rows = Rows::new(table);
    rows.push(row);
    rows.into_batch().unwrap()
}

fn commit(table: &mut LakeTable, rows: RecordBatch, began_at: Option<i64>) {
    let files = table.write(&[rows], &[]).unwrap();
    table.commit(&files, &[span("t/0", began_at, began_at.unwrap_or(0) + 1)]).unwrap();
}

/// Device and chassis of every row, sorted.
fn contents(table: &LakeTable) -> Vec<(String, Option<String>)> {
    let text = |batch: &RecordBatch, column: &str, row: usize| {
        let column = batch.column_by_name(column)?.as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    let batches = table.read().unwrap();
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
    let mut found: Vec<_> =
        rows.map(|(batch, row)| (text(batch, "device_id", row).unwrap(), text(batch, "chassis_serial", row))).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_gains_the_columns_of_a_newer_catalog_while_an_older_writer_goes_on() {
    let test = TestLake::new();
    let older = device_of_version_1();
    let mut old = test.lake.table(older).unwrap();
    commit(&mut old, device(older, "before", None), None);

    let mut new = test.lake.table(&tables::DEVICE).unwrap();
    commit(&mut new, device(&tables::DEVICE, "newer", Some("rack-7")), Some(1));
    // It holds the version before, and what it has written is already in a file when it looks again.
    let files = old.write(&[device(older, "meanwhile", None)], &[]).unwrap();
    old.refresh().unwrap();
    old.commit(&files, &[span("t/0", Some(2), 3)]).unwrap();
    commit(&mut old, device(older, "after", None), Some(3));

    new.refresh().unwrap();
    let row = |id: &str, chassis: Option<&str>| (id.to_owned(), chassis.map(str::to_owned));
    let wanted = [row("after", None), row("before", None), row("meanwhile", None), row("newer", Some("rack-7"))];
    assert_eq!(contents(&new), wanted);
    // Whoever opens it with the older catalog neither refuses it nor takes a column away.
    assert_eq!(contents(&test.lake.table(older).unwrap()), wanted);
}
