//! Sealing: quiet hours become few sorted files, every row stays, and nobody who writes meanwhile is held up or undone.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use racklake_schemas::clock::{DAY, MINUTE};
use racklake_storage::{LakeTable, Outcome, Seal, SealRules, Sealed, StorageError};

use crate::support::{Reading, SECOND, TEN_O_CLOCK, TestLake, batch, read, reading, span};

pub(crate) const HOUR: i64 = 60 * MINUTE;
const TABLE: &str = "gpu_sample";
const GO: ControlFlow<()> = ControlFlow::Continue(());
/// When the hour of the readings is quiet.
const NOON: i64 = TEN_O_CLOCK + 2 * HOUR;

/// Commits one flush of each of these, from the position where the table is.
fn flush(test: &TestLake, name: &str, flushes: &[Vec<Reading>]) {
    let mut table = test.table(name);
    for readings in flushes {
        let files = table.write(&[batch(name, readings)], &[]).unwrap();
        let at = table.position("t/0").unwrap();
        let next = at.unwrap_or(0) + 1;
        table.commit(&files, &[span("t/0", at, next)]).unwrap();
    }
}

/// Flushes in each of which every device has a few readings, as they come in.
fn hour_of(devices: &[&'static str], flushes: i64) -> Vec<Vec<Reading>> {
    let of_flush = |flush: i64| {
        let seconds = flush * 5..flush * 5 + 5;
        seconds.flat_map(|second| devices.iter().map(move |device| reading(device, second))).collect()
    };
    (0..flushes).map(of_flush).collect()
}

/// What a reader finds, in the order of the rows' keys: device, time, seq.
fn rows(table: &LakeTable) -> Vec<(String, i64, i64)> {
    let mut rows: Vec<_> = table.read().unwrap().iter().flat_map(keys).collect();
    rows.sort();
    rows
}

fn keys(batch: &RecordBatch) -> Vec<(String, i64, i64)> {
    let devices = batch.column_by_name("device_id").unwrap().as_string::<i32>();
    let times = batch.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
    let seqs = batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>();
    (0..batch.num_rows()).map(|row| (devices.value(row).to_owned(), times.value(row), seqs.value(row))).collect()
}

fn seal_all(table: &mut LakeTable, rules: &SealRules, now_us: i64) -> Vec<Sealed> {
    let seals = table.plan_seals(rules, now_us).unwrap();
    seals.iter().map(|seal| table.seal(seal, &|_| GO).unwrap()).collect()
}

fn is_committed(sealed: &Sealed) -> bool {
    matches!(sealed, Sealed::Committed { .. })
}

/// Files of readers, hot ones and sealed ones, as they lie on the disk.
fn files(test: &TestLake, name: &str) -> (usize, usize) {
    fn walk(folder: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        let count = |path: std::path::PathBuf| if path.is_dir() { walk(&path) } else { 1 };
        entries.map(count).sum()
    }
    let sites = std::fs::read_dir(test.path(name)).unwrap().map(|entry| entry.unwrap().path());
    let sealed =
        sites.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("site=")).map(|p| walk(&p));
    (walk(&test.path(name).join("_hot")), sealed.sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_becomes_one_sorted_file_with_every_row_and_position() {
    let test = TestLake::new();
    flush(&test, TABLE, &hour_of(&["d2", "d1", "d3"], 20));
    let mut table = test.table(TABLE);
    let before = rows(&table);
    let early = table.plan_seals(&SealRules::default(), TEN_O_CLOCK + HOUR).unwrap();
    assert_eq!(early, [], "the hour may still be going on");
    let seals = table.plan_seals(&SealRules::default(), NOON).unwrap();
    let seal = seals.first().unwrap();
    assert_eq!((seals.len(), seal.files(), seal.rows(), seal.hour()), (1, 20, 300, Some(10)));
    let merged = std::cell::Cell::new(0);
    let sealed = table
        .seal(seal, &|rows| {
            merged.set(merged.get() + rows);
            GO
        })
        .unwrap();
    let Sealed::Committed { version, path, rows: count, .. } = sealed else { panic!("{sealed:?}") };
    assert_eq!((version, count, merged.get()), (21, 300, 300));
    assert!(path.starts_with("site=a/dt=2026-11-24/"), "{path}");

    let file = test.path(TABLE).join(&path);
    assert_eq!(keys(&read(&file)), before, "the file is in the order of the keys");
    for mut table in [table, test.table(TABLE)] {
        assert_eq!(rows(&table), before);
        assert_eq!(table.position("t/0").unwrap(), Some(20));
        assert_eq!((table.contents().unwrap().files, table.contents().unwrap().rows), (1, 300));
        assert_eq!(table.plan_seals(&SealRules::default(), NOON + HOUR).unwrap(), []);
    }
    let log = test.log(TABLE);
    let of_seal: Vec<_> = log.iter().filter(|action| action.get("remove").is_some()).collect();
    assert!(of_seal.iter().all(|action| action["remove"]["dataChange"] == false) && of_seal.len() == 20);
    assert_eq!(test.adds(TABLE).last().unwrap()["dataChange"], false);
    assert!(test.adds(TABLE).last().unwrap()["stats"].as_str().unwrap().contains("\"numRecords\":300"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_file_is_read_faster_by_what_it_says_of_itself() {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    let test = TestLake::new();
    flush(&test, TABLE, &hour_of(&["d2", "d1"], 3));
    let mut table = test.table(TABLE);
    let Sealed::Committed { path, .. } = seal_all(&mut table, &SealRules::default(), NOON).remove(0) else { panic!() };
    let reader = SerializedFileReader::new(std::fs::File::open(test.path(TABLE).join(path)).unwrap()).unwrap();
    let group = reader.metadata().row_group(0);
    let device = group.columns().iter().find(|column| column.column_path().string() == "device_id").unwrap();
    assert!(device.bloom_filter_offset().is_some() && device.statistics().is_some());
    assert_eq!(group.sorting_columns().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_sealed_with_what_it_holds() {
    let test = TestLake::new();
    for table in racklake_schemas::tables::ALL.iter().filter(|table| !table.bench) {
        let flushes = [vec![reading("d1", 0), reading("d2", 1)], vec![reading("d1", 2)], vec![reading("d1", 7)]];
        flush(&test, table.name, &flushes);
        let mut opened = test.table(table.name);
        let before = sorted_batch(&opened);
        let sealed = seal_all(&mut opened, &SealRules::default(), NOON);
        assert!(sealed.len() == 1 && is_committed(&sealed[0]), "{}: {sealed:?}", table.name);
        assert_eq!(sorted_batch(&opened), before, "{}", table.name);
    }
}

/// All rows of a table by their seq.
fn sorted_batch(table: &LakeTable) -> RecordBatch {
    let batches = table.read().unwrap();
    let whole = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let order = arrow::compute::sort_to_indices(whole.column_by_name("seq").unwrap(), None, None).unwrap();
    arrow::compute::take_record_batch(&whole, &order).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_is_sealed_into_a_file_of_its_own_and_merged_when_the_day_is_quiet() {
    let test = TestLake::new();
    flush(&test, TABLE, &hour_of(&["d1", "d2"], 4));
    let mut table = test.table(TABLE);
    assert_eq!(seal_all(&mut table, &SealRules::default(), NOON).len(), 1);
    let late = Reading("a", "d1", TEN_O_CLOCK + 1700 * SECOND, NOON, 5000);
    flush(&test, TABLE, &[vec![late]]);
    let all = rows(&test.table(TABLE));
    assert_eq!(table.plan_seals(&SealRules::default(), NOON + MINUTE).unwrap(), [], "more may come");
    assert!(is_committed(&seal_all(&mut table, &SealRules::default(), NOON + HOUR)[0]));
    assert_eq!((table.contents().unwrap().files, rows(&table)), (2, all.clone()));
    let next_day = TEN_O_CLOCK + DAY + 10 * HOUR;
    let merged = table.plan_seals(&SealRules::default(), next_day).unwrap();
    assert_eq!((merged.len(), merged[0].files(), merged[0].hour()), (1, 2, None));
    assert!(is_committed(&table.seal(&merged[0], &|_| GO).unwrap()));
    assert_eq!((table.contents().unwrap().files, rows(&table)), (1, all));
    assert_eq!(table.plan_seals(&SealRules::default(), next_day).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_seal_the_same_one_goes_through_and_the_other_leaves_nothing() {
    let test = TestLake::new();
    flush(&test, TABLE, &hour_of(&["d1", "d2"], 6));
    let before = rows(&test.table(TABLE));
    let planned: Vec<(LakeTable, Vec<Seal>)> = (0..4)
        .map(|_| {
            let mut table = test.table(TABLE);
            let seals = table.plan_seals(&SealRules::default(), NOON).unwrap();
            (table, seals)
        })
        .collect();
    let seal = |(mut table, seals): (LakeTable, Vec<Seal>)| {
        tokio::task::spawn_blocking(move || table.seal(&seals[0], &|_| GO).unwrap())
    };
    let mut ends = Vec::new();
    for sealing in planned.into_iter().map(seal).collect::<Vec<_>>() {
        ends.push(sealing.await.unwrap());
    }
    assert_eq!(ends.iter().filter(|end| is_committed(end)).count(), 1, "{ends:?}");
    assert_eq!(ends.iter().filter(|end| **end == Sealed::Abandoned).count(), 3, "{ends:?}");
    assert_eq!(rows(&test.table(TABLE)), before);
    assert_eq!(files(&test, TABLE), (6, 1), "the others' files are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_whose_plan_is_out_of_date_changes_nothing() {
    let test = TestLake::new();
    flush(&test, TABLE, &hour_of(&["d1"], 4));
    let mut slow = test.table(TABLE);
    let stale = slow.plan_seals(&SealRules::default(), NOON).unwrap();
    let mut quick = test.table(TABLE);
    // It has merged other files than the slow one wants to: two of its four.
    let rules = SealRules { files_max: 2, ..SealRules::default() };
    assert!(seal_all(&mut quick, &rules, NOON).iter().all(is_committed));
    let before = rows(&quick);
    assert_eq!(slow.seal(&stale[0], &|_| GO).unwrap(), Sealed::Abandoned);
    assert_eq!((rows(&test.table(TABLE)), test.table(TABLE).contents().unwrap().files), (before, 2));
    // Nor when the files themselves are gone.
    std::fs::remove_dir_all(test.path(TABLE).join("_hot")).unwrap();
    assert_eq!(slow.seal(&stale[0], &|_| GO).unwrap(), Sealed::Abandoned);
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_commits_while_hours_are_sealed_and_nothing_is_lost_or_doubled() {
    const COMMITS: i64 = 40;
    let test = TestLake::new();
    let hours: Vec<Vec<Reading>> = (0..8)
        .flat_map(|hour| {
            (0..3).map(move |flush| vec![reading("d1", hour * 3600 + flush), reading("d2", hour * 3600 + flush)])
        })
        .collect();
    flush(&test, TABLE, &hours);
    let mut table = test.table(TABLE);
    let writer = tokio::task::spawn_blocking(move || {
        for commit in 0..COMMITS {
            let now = Reading("a", "d9", TEN_O_CLOCK + 12 * HOUR + commit, TEN_O_CLOCK + 12 * HOUR, 9000 + commit);
            let files = table.write(&[batch(TABLE, &[now])], &[]).unwrap();
            let at = (commit > 0).then_some(commit);
            let outcome = table.commit(&files, &[span("t/1", at, commit + 1)]).unwrap();
            assert!(matches!(outcome, Outcome::Committed { .. }));
        }
    });
    let mut sealer = test.table(TABLE);
    let sealed = tokio::task::spawn_blocking(move || {
        let rules = SealRules { files_max: 2, ..SealRules::default() };
        seal_all(&mut sealer, &rules, TEN_O_CLOCK + 11 * HOUR)
    });
    let sealed = sealed.await.unwrap();
    writer.await.unwrap();
    assert!(sealed.len() == 16 && sealed.iter().all(is_committed), "{sealed:?}");
    let table = test.table(TABLE);
    let found = rows(&table);
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "no key twice");
    assert_eq!(found.len() as i64, 48 + COMMITS);
    assert_eq!((table.position("t/0").unwrap(), table.position("t/1").unwrap()), (Some(24), Some(COMMITS)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_there_twice_stops_its_seal_and_stays_for_all_to_see() {
    let test = TestLake::new();
    flush(&test, TABLE, &[vec![reading("d1", 0), reading("d1", 1)], vec![reading("d1", 1), reading("d1", 2)]]);
    let mut table = test.table(TABLE);
    let before = rows(&table);
    let sealed = seal_all(&mut table, &SealRules::default(), NOON);
    let [Sealed::Repeated { key }] = &sealed[..] else { panic!("{sealed:?}") };
    assert!(key.contains("device_id d1") && key.contains("seq 2"), "{key}");
    assert_eq!((rows(&test.table(TABLE)), files(&test, TABLE)), (before, (2, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_readings_of_one_time_from_two_streams_are_both_kept() {
    let test = TestLake::new();
    let at = |seq| Reading("a", "d1", TEN_O_CLOCK, TEN_O_CLOCK + SECOND, seq);
    flush(&test, TABLE, &[vec![at(3)], vec![at(1)], vec![at(2)]]);
    let mut table = test.table(TABLE);
    let sealed = seal_all(&mut table, &SealRules::default(), NOON);
    let [Sealed::Committed { path, rows: 3, .. }] = &sealed[..] else { panic!("{sealed:?}") };
    let seqs: Vec<i64> = keys(&read(&test.path(TABLE).join(path))).into_iter().map(|key| key.2).collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_sorted_or_has_lost_rows_is_left_as_it_is() {
    for (kept, what) in [(vec![1, 0, 2], "order of their keys"), (vec![0, 2], "the log says 4")] {
        let test = TestLake::new();
        flush(&test, TABLE, &[vec![reading("d1", 0), reading("d2", 0), reading("d3", 0)], vec![reading("d4", 0)]]);
        let path = test.path(TABLE).join(test.adds(TABLE)[0]["path"].as_str().unwrap());
        let order = arrow::array::UInt64Array::from(kept);
        let changed = arrow::compute::take_record_batch(&read(&path), &order).unwrap();
        // As long as the file was, so that only its rows tell.
        let length = std::fs::metadata(&path).unwrap().len();
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), changed.schema(), None).unwrap();
        writer.write(&changed).unwrap();
        let bytes = writer.into_inner().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let log = test.path(TABLE).join("_delta_log/00000000000000000001.json");
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::write(&log, text.replace(&format!("\"size\":{length}"), &format!("\"size\":{}", bytes.len())))
            .unwrap();
        let mut table = test.table(TABLE);
        let seals = table.plan_seals(&SealRules::default(), NOON).unwrap();
        let error = table.seal(&seals[0], &|_| GO).unwrap_err();
        assert!(matches!(error, StorageError::Stop { .. }) && error.to_string().contains(what), "{error}");
        assert_eq!((test.table(TABLE).version(), files(&test, TABLE)), (2, (2, 0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_that_needs_much_memory_is_sealed_in_parts_and_readers_find_the_same() {
    let test = TestLake::new();
    flush(&test, TABLE, &hour_of(&["d1", "d2"], 9));
    let mut table = test.table(TABLE);
    let before = rows(&table);
    let rules = SealRules { memory_bytes: 1, ..SealRules::default() };
    assert_eq!(seal_all(&mut table, &rules, NOON).iter().filter(|sealed| is_committed(sealed)).count(), 9);
    assert_eq!(rows(&table), before);
    let rules = SealRules { day_quiet: Duration::ZERO, ..SealRules::default() };
    assert_eq!(seal_all(&mut table, &rules, TEN_O_CLOCK + DAY).len(), 1);
    assert_eq!((rows(&table), table.contents().unwrap().files), (before, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_after_a_checkpoint_finds_the_times_of_files_in_it() {
    let test = TestLake::new();
    flush(&test, TABLE, &hour_of(&["d1"], 110));
    let mut table = test.table(TABLE);
    let before = rows(&table);
    let sealed = seal_all(&mut table, &SealRules::default(), NOON);
    assert!(sealed.len() == 1 && is_committed(&sealed[0]), "{sealed:?}");
    assert_eq!((rows(&test.table(TABLE)), test.table(TABLE).position("t/0").unwrap()), (before, Some(110)));
}
