//! A lake on a local disk: what is committed is there once, sorted and encoded; what is not is invisible.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use parquet::basic::Encoding as ParquetEncoding;
use parquet::file::reader::{FileReader, SerializedFileReader};
use racklake_schemas::clock::{Clock, DAY};
use racklake_schemas::tables::{GPU_SAMPLE, HASHBOARD_SAMPLE, gpu_sample as c, hashboard_sample as h};
use racklake_schemas::{Encoding, Row, Rows, Table};
use racklake_storage::{Lake, LakeTable, Outcome, Span, StorageError};

/// Storage blocks, so tests run it where blocking is allowed, as ingest does.
fn on_a_lake(test: impl FnOnce(&Lake, &Path) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let lake = {
        let _within = runtime.enter();
        Lake::open(path.to_str().unwrap(), &BTreeMap::new()).unwrap()
    };
    runtime.block_on(async { tokio::task::spawn_blocking(move || test(&lake, &path)).await }).unwrap();
}

fn common(table: &'static Table, site: &str, device: &str, ts: i64, seq: i64) -> Row {
    let mut row = Row::new(table);
    row.set(c::TS, ts);
    row.set(c::RECEIVED_AT, Clock::now_us());
    row.set(c::SITE, site);
    row.set(c::NODE, "node-1");
    row.set(c::DEVICE_ID, device);
    row.set(c::STREAM_ID, "00112233445566778899aabbccddeeff");
    row.set(c::SEQ, seq);
    row.set(c::FRAME_ROWS, 2);
    row
}

fn batch(rows: Vec<Row>) -> RecordBatch {
    let mut all = Rows::new(rows[0].table());
    rows.into_iter().for_each(|row| all.push(row));
    all.into_batch().unwrap()
}

/// Two rows with the given energies.
fn two_rows(energy: i64) -> RecordBatch {
    let now = Clock::now_us();
    let row = |device: &str, energy: i64| {
        let mut row = common(&GPU_SAMPLE, "dc-1", device, now, 1);
        row.read(c::ENERGY_MILLIJOULES, energy);
        row
    };
    batch(vec![row("GPU-b", energy), row("GPU-a", energy + 1)])
}

fn span(began_at: Option<i64>, next: i64) -> Span {
    Span { app_id: "racklake.gpu_sample/id/0".to_owned(), began_at, next }
}

fn flush(table: &mut LakeTable, energy: i64, spans: &[Span]) -> Outcome {
    let files = table.write(&[two_rows(energy)]).unwrap();
    table.commit(&files, spans).unwrap()
}

fn energies(table: &LakeTable) -> Vec<i64> {
    let batches = table.read().unwrap();
    let mut found: Vec<i64> = batches
        .iter()
        .flat_map(|b| b.column_by_name("energy_millijoules").unwrap().as_primitive::<Int64Type>().values().to_vec())
        .collect();
    found.sort_unstable();
    found
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|e| e == "parquet") && !path.to_str().unwrap().contains("_delta_log") {
            found.push(path);
        }
    }
    found
}

#[test]
fn committed_rows_and_positions_are_there_after_a_restart() {
    on_a_lake(|lake, _| {
        let mut table = lake.table(&GPU_SAMPLE).unwrap();
        assert_eq!(table.position("racklake.gpu_sample/id/0").unwrap(), None);
        assert!(matches!(flush(&mut table, 10, &[span(None, 7)]), Outcome::Committed { .. }));
        assert!(matches!(flush(&mut table, 20, &[span(Some(7), 9)]), Outcome::Committed { .. }));
        let reopened = lake.table(&GPU_SAMPLE).unwrap();
        assert_eq!(reopened.position("racklake.gpu_sample/id/0").unwrap(), Some(9));
        assert_eq!(energies(&reopened), [10, 11, 20, 21]);
        assert_eq!(reopened.contents().unwrap().rows, 4);
    });
}

#[test]
fn written_rows_are_invisible_until_they_are_committed() {
    on_a_lake(|lake, path| {
        let table = lake.table(&GPU_SAMPLE).unwrap();
        let files = table.write(&[two_rows(10)]).unwrap();
        assert_eq!((files.len(), files[0].rows()), (1, 2));
        assert_eq!(parquet_files(path).len(), 1);
        assert_eq!(energies(&lake.table(&GPU_SAMPLE).unwrap()), [0i64; 0]);
    });
}

#[test]
fn a_replaced_writer_commits_nothing_even_with_a_longer_span() {
    on_a_lake(|lake, _| {
        let mut zombie = lake.table(&GPU_SAMPLE).unwrap();
        let files = zombie.write(&[two_rows(10)]).unwrap();
        let mut owner = lake.table(&GPU_SAMPLE).unwrap();
        flush(&mut owner, 10, &[span(None, 5)]);
        let outcome = zombie.commit(&files, &[span(None, 8)]).unwrap();
        assert_eq!(outcome, Outcome::Moved(vec![span(None, 8).app_id]));
        assert_eq!(energies(&lake.table(&GPU_SAMPLE).unwrap()), [10, 11]);
    });
}

#[test]
fn a_commit_that_went_through_unnoticed_is_not_repeated() {
    on_a_lake(|lake, _| {
        let mut table = lake.table(&GPU_SAMPLE).unwrap();
        let files = table.write(&[two_rows(10)]).unwrap();
        table.commit(&files, &[span(None, 5)]).unwrap();
        assert!(matches!(table.commit(&files, &[span(None, 5)]).unwrap(), Outcome::Committed { .. }));
        assert_eq!(energies(&lake.table(&GPU_SAMPLE).unwrap()), [10, 11]);
    });
}

#[test]
fn writers_of_different_partitions_conflict_and_both_commit() {
    on_a_lake(|lake, _| {
        let writer = |partition: i64| {
            let lake = lake.clone();
            std::thread::spawn(move || {
                let mut table = lake.table(&GPU_SAMPLE).unwrap();
                for next in 0..20 {
                    let began_at = (next > 0).then_some(next);
                    let span = Span { app_id: format!("t/id/{partition}"), began_at, next: next + 1 };
                    let outcome = flush(&mut table, 1000 * partition + 2 * next, &[span]);
                    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
                }
            })
        };
        // A thread of its own is no blocking thread of the runtime, and may wait all the same.
        let writers: Vec<_> = (0..2).map(writer).collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let wanted: Vec<i64> = (0..40).chain(1000..1040).collect();
        assert_eq!(energies(&lake.table(&GPU_SAMPLE).unwrap()), wanted);
    });
}

#[test]
fn one_moved_partition_keeps_the_whole_flush_out() {
    on_a_lake(|lake, _| {
        let mut table = lake.table(&GPU_SAMPLE).unwrap();
        let other = |began_at, next| Span { app_id: "t/id/1".to_owned(), began_at, next };
        table.commit(&[], &[other(None, 3)]).unwrap();
        let outcome = flush(&mut table, 10, &[span(None, 5), other(None, 4)]);
        assert_eq!(outcome, Outcome::Moved(vec!["t/id/1".to_owned()]));
        assert_eq!(table.position(&span(None, 5).app_id).unwrap(), None);
    });
}

#[test]
fn positions_move_without_rows_and_survive_checkpoints() {
    on_a_lake(|lake, path| {
        let mut table = lake.table(&GPU_SAMPLE).unwrap();
        flush(&mut table, 10, &[span(None, 1)]);
        for next in 2..=230 {
            let outcome = table.commit(&[], &[span(Some(next - 1), next)]).unwrap();
            assert!(matches!(outcome, Outcome::Committed { .. }));
        }
        assert!(path.join("gpu_sample/_delta_log/_last_checkpoint").exists());
        let reopened = lake.table(&GPU_SAMPLE).unwrap();
        assert_eq!(reopened.position(&span(None, 1).app_id).unwrap(), Some(230));
        assert_eq!(energies(&reopened), [10, 11]);
    });
}

#[test]
fn files_lie_in_the_hot_directory_of_their_site_and_day_sorted_by_the_key() {
    on_a_lake(|lake, path| {
        let table = lake.table(&HASHBOARD_SAMPLE).unwrap();
        let now = Clock::now_us();
        let row = |site: &str, device: &str, board: i32, ts: i64| {
            let mut row = common(&HASHBOARD_SAMPLE, site, device, ts, 1);
            row.set(h::BOARD_INDEX, board);
            row.read(h::CHIP_TEMPS_CELSIUS, vec![Some(60), None, Some(61)]);
            row
        };
        let rows = vec![
            row("dc-1", "b", 0, now),
            row("dc-1", "a", 1, now),
            row("dc-1", "a", 0, now),
            row("dc-1", "a", 0, now - 1),
            row("dc-2", "a", 0, now),
            row("dc-1", "a", 0, now - 40 * DAY),
        ];
        let files = table.write(&[batch(rows)]).unwrap();
        let folders: Vec<&str> = files.iter().map(|f| f.path().split("/hashboard_sample/").nth(1).unwrap()).collect();
        assert_eq!(folders.len(), 2, "{folders:?}");
        assert!(folders[0].starts_with("_hot/site=dc-1/dt=20") && folders[1].starts_with("_hot/site=dc-2/dt=20"));
        let file = parquet_files(path).into_iter().find(|p| p.to_str().unwrap().contains("dc-1")).unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(file).unwrap()).unwrap();
        let text = |row: &parquet::record::Row| {
            let column = |name: &str| {
                let found = row.get_column_iter().find(|(n, _)| *n == name).unwrap();
                found.1.to_string()
            };
            (column("device_id"), column("board_index"), column("ts"))
        };
        let keys: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| text(&row.unwrap())).collect();
        let mut sorted = keys.clone();
        sorted.sort();
        assert_eq!((keys.len(), &keys), (5, &sorted));
    });
}

#[test]
fn every_column_has_the_encoding_of_the_catalog() {
    on_a_lake(|lake, path| {
        let table = lake.table(&GPU_SAMPLE).unwrap();
        table.write(&[two_rows(10)]).unwrap();
        let reader = SerializedFileReader::new(std::fs::File::open(&parquet_files(path)[0]).unwrap()).unwrap();
        let group = reader.metadata().row_group(0);
        for column in GPU_SAMPLE.columns.iter().filter(|column| column.name != "site") {
            let chunk = group.columns().iter().find(|chunk| chunk.column_path().parts()[0] == column.name).unwrap();
            let wanted = match column.encoding() {
                Encoding::DeltaBinaryPacked => ParquetEncoding::DELTA_BINARY_PACKED,
                Encoding::ByteStreamSplit => ParquetEncoding::BYTE_STREAM_SPLIT,
                Encoding::Dictionary => ParquetEncoding::RLE_DICTIONARY,
            };
            let encodings: Vec<_> = chunk.encodings().collect();
            assert!(encodings.contains(&wanted), "{}: {encodings:?}", column.name);
            assert!(chunk.statistics().is_some(), "{} has statistics", column.name);
        }
        assert_eq!(group.sorting_columns().unwrap().len(), GPU_SAMPLE.sort_key.len());
    });
}

#[test]
fn a_table_that_forgets_positions_is_refused() {
    on_a_lake(|lake, path| {
        lake.table(&GPU_SAMPLE).unwrap();
        let log = path.join("gpu_sample/_delta_log/00000000000000000000.json");
        let text = std::fs::read_to_string(&log).unwrap();
        let more = "\"delta.setTransactionRetentionDuration\":\"interval 1 day\",\"delta.checkpointInterval\"";
        std::fs::write(&log, text.replacen("\"delta.checkpointInterval\"", more, 1)).unwrap();
        let error = lake.table(&GPU_SAMPLE).err().unwrap();
        assert!(matches!(error, StorageError::Stop { .. }), "{error}");
        assert!(error.to_string().contains("setTransactionRetentionDuration"), "{error}");
    });
}

#[test]
fn a_column_that_the_catalog_gained_is_added_to_an_old_table() {
    on_a_lake(|lake, path| {
        lake.table(&GPU_SAMPLE).unwrap();
        let log = path.join("gpu_sample/_delta_log/00000000000000000000.json");
        let text = std::fs::read_to_string(&log).unwrap();
        let field = "{\\\"name\\\":\\\"fan_speed_percent\\\",\\\"type\\\":\\\"integer\\\",\\\"nullable\\\":true,\\\"metadata\\\":{}},";
        assert!(text.contains(field), "{text}");
        std::fs::write(&log, text.replacen(field, "", 1)).unwrap();
        let mut table = lake.table(&GPU_SAMPLE).unwrap();
        assert_eq!(table.version(), 1, "one commit adds the column");
        flush(&mut table, 10, &[span(None, 1)]);
        assert_eq!(energies(&lake.table(&GPU_SAMPLE).unwrap()), [10, 11]);
    });
}

#[test]
fn the_dictionary_is_written_once_per_catalog() {
    on_a_lake(|lake, path| {
        assert!(lake.write_dictionary().unwrap());
        assert!(!lake.write_dictionary().unwrap());
        assert_eq!(parquet_files(&path.join("field_dictionary")).len(), 1);
    });
}

#[test]
fn a_lake_that_is_nowhere_is_named_with_what_is_allowed() {
    on_a_lake(|_, _| {
        let error = Lake::open("ftp://host/lake", &BTreeMap::new()).err().unwrap().to_string();
        assert!(error.contains("ftp://host/lake") && error.contains("s3://"), "{error}");
    });
}
