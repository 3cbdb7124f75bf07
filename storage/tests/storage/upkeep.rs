//! What is removed of a lake, and when: days past their age, files that nobody wants, and the old part of a log.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use racklake_schemas::Cell;
use racklake_schemas::catalog;
use racklake_schemas::clock::{Clock, DAY};
use racklake_storage::verify::{Reason, Verdict};
use racklake_storage::{SealRules, Sealed};

use crate::support::{Reading, TEN_O_CLOCK, TestLake, ago, batch, reading, span};
use crate::verify::{Written, coverage, frame, gaps, stream, table};

const TABLE: &str = "gpu_sample";
const GO: ControlFlow<()> = ControlFlow::Continue(());
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const FIRST_DAY: i32 = (TEN_O_CLOCK / DAY) as i32;

/// Frames 1 to 4 on the first day but for two rows of frame 4; those, and 5 and 7, on the second.
fn two_days() -> Written {
    let lake = Written::new();
    let day = |seq: i64, second: &[usize]| {
        let mut rows = frame(seq, &["d1", "d2", "d3"]);
        for (index, row) in rows.iter_mut().enumerate() {
            let later = if second.contains(&index) { DAY } else { 0 };
            for name in ["ts", "received_at"] {
                let column = catalog::table(TABLE).unwrap().column(name).unwrap();
                row.set(column, Cell::I64(TEN_O_CLOCK + seq + later));
            }
        }
        lake.commit(TABLE, &rows);
    };
    for seq in 1..=3 {
        day(seq, &[]);
    }
    day(4, &[1, 2]);
    day(5, &[0, 1, 2]);
    day(7, &[0, 1, 2]);
    lake.commit("coverage", &[coverage(1, 7)]);
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_expires_is_gone_for_readers_and_no_loss_for_a_proof() {
    let lake = two_days();
    let mut opened = lake.test.table(TABLE);
    let today = (Clock::now_us() / DAY) as i32;
    assert_eq!(opened.floor(30).unwrap(), Some(today.min(FIRST_DAY + 1) - 30), "by the earlier of arrivals and clock");
    assert_eq!(opened.expiring(FIRST_DAY).unwrap(), []);
    let days = opened.expiring(FIRST_DAY + 1).unwrap();
    assert_eq!((days.len(), days[0].rows, days[0].files, days[0].day), (1, 10, 4, FIRST_DAY));
    let expired = opened.expire(FIRST_DAY + 1, &|_| ()).unwrap().unwrap();
    assert_eq!((expired.rows, expired.files, expired.version), (10, 4, 7));
    assert_eq!(opened.contents().unwrap().rows, 8);
    assert_eq!(opened.position("t/0").unwrap(), Some(6), "positions stay");
    assert_eq!(opened.expire(FIRST_DAY + 1, &|_| ()).unwrap(), None);

    let report = lake.proven();
    assert_eq!(gaps(&report), [(1, 3, Reason::Expired), (6, 6, Reason::Unexplained)]);
    assert_eq!(stream(&report).short, [], "of frame 4 the rest is expired");
    assert_eq!(report.verdict(), Verdict::Incomplete, "frame 6 is missing all the same");
    assert_eq!((table(&report, TABLE).files_removed, table(&report, TABLE).orphans.len()), (4, 0));
    let removed = lake.test.log(TABLE).into_iter().filter(|action| action.get("remove").is_some());
    assert!(removed.into_iter().all(|action| action["remove"]["dataChange"] == true));

    // When all is expired, the proof still knows what there was.
    opened.expire(FIRST_DAY + 2, &|_| ()).unwrap().unwrap();
    let report = lake.proven();
    let frames = [(1, 5, Reason::Expired), (6, 6, Reason::Unexplained), (7, 7, Reason::Expired)];
    assert_eq!(gaps(&report), frames);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_which_days_expired_and_others_were_sealed_is_complete() {
    let lake = Written::whole();
    let mut opened = lake.test.table(TABLE);
    let now = TEN_O_CLOCK + DAY;
    for seal in opened.plan_seals(&SealRules::default(), now).unwrap() {
        assert!(matches!(opened.seal(&seal, &|_| GO).unwrap(), Sealed::Committed { .. }));
    }
    let report = lake.proven();
    assert_eq!(report.verdict(), Verdict::Complete, "{report:?}");
    assert_eq!((stream(&report).rows, table(&report, TABLE).files, table(&report, TABLE).files_removed), (9, 1, 3));
    opened.expire(FIRST_DAY + 1, &|_| ()).unwrap().unwrap();
    let report = lake.proven();
    assert_eq!((report.verdict(), gaps(&report)), (Verdict::Complete, vec![(1, 3, Reason::Expired)]));
}

fn made(at: &Path, days_ago: u64) {
    let time = ago(Duration::from_secs(days_ago * 24 * 3600));
    std::fs::File::options().append(true).open(at).unwrap().set_modified(time).unwrap();
}

/// All files below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(below(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn data_files(test: &TestLake) -> Vec<PathBuf> {
    below(&test.path(TABLE)).into_iter().filter(|path| !path.to_string_lossy().contains("_delta_log")).collect()
}

/// A lake whose sites have names that are encoded in paths, with a sealed hour and an open one, all of it old.
fn sealed() -> TestLake {
    let test = TestLake::new();
    let mut opened = test.table(TABLE);
    for (flush, site) in ["be ta", "gå%20mma", "a", "be ta", "a"].into_iter().enumerate() {
        let flush = flush as i64;
        let Reading(_, device, ts, received, seq) = reading("d1", flush + 7200 * (flush / 4));
        let files = opened.write(&[batch(TABLE, &[Reading(site, device, ts, received, seq)])], &[]).unwrap();
        opened.commit(&files, &[span("t/0", (flush > 0).then_some(flush), flush + 1)]).unwrap();
    }
    for seal in opened.plan_seals(&SealRules::default(), TEN_O_CLOCK + 2 * crate::seal::HOUR).unwrap() {
        assert!(matches!(opened.seal(&seal, &|_| GO).unwrap(), Sealed::Committed { .. }));
    }
    assert_eq!((opened.contents().unwrap().files, data_files(&test).len()), (4, 8));
    data_files(&test).iter().for_each(|path| made(path, 30));
    test
}

fn vacuum(test: &TestLake, dry_run: bool) -> Vec<String> {
    let table = catalog::table(TABLE).unwrap();
    let swept = test.lake.vacuum(table, WEEK, dry_run, &|| GO).unwrap();
    swept.files.into_iter().map(|(path, _)| path.rsplit('/').next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_no_version_has_wanted_for_long_is_swept_whatever_its_path_looks_like() {
    let test = sealed();
    let opened = test.table(TABLE);
    let rows = opened.contents().unwrap().rows;
    assert_eq!(vacuum(&test, true), Vec::<String>::new(), "old files that were merged just now may still be read");

    let hot = data_files(&test).into_iter().find(|path| path.to_string_lossy().contains("_hot/site=be")).unwrap();
    let beside = |name: &str, days_ago| {
        std::fs::copy(&hot, hot.with_file_name(name)).unwrap();
        made(&hot.with_file_name(name), days_ago);
    };
    beside("orphan.parquet", 8);
    beside("flushing.parquet", 1);
    beside("killed.parquet#1", 8);
    beside("writing.parquet#2", 1);
    beside("of somebody.txt", 8);
    let before = data_files(&test);
    assert_eq!(vacuum(&test, true), ["orphan.parquet", "killed.parquet#1"]);
    assert_eq!(data_files(&test), before, "a dry run changes nothing");
    assert_eq!(vacuum(&test, false), ["orphan.parquet", "killed.parquet#1"]);
    assert_eq!(vacuum(&test, false), Vec::<String>::new());

    // As if the hour had been sealed eight days ago.
    let week_ago = ago(Duration::from_secs(8 * 24 * 3600));
    let week_ago = week_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    for commit in below(&test.path(TABLE).join("_delta_log")) {
        let text = std::fs::read_to_string(&commit).unwrap();
        let change = |line: &str| {
            let mut action: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(remove) = action.get_mut("remove") {
                remove["deletionTimestamp"] = serde_json::json!(week_ago as u64);
            }
            format!("{action}\n")
        };
        std::fs::write(&commit, text.lines().map(change).collect::<String>()).unwrap();
    }
    assert_eq!(vacuum(&test, false).len(), 4);
    let left = data_files(&test);
    assert_eq!(left.len(), 4 + 3, "live ones, and what is young or not ours: {left:?}");
    assert_eq!(test.table(TABLE).read().unwrap().iter().map(|batch| batch.num_rows() as u64).sum::<u64>(), rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_age_at_which_a_flush_may_still_want_its_files_is_refused() {
    let test = sealed();
    let table = catalog::table(TABLE).unwrap();
    let error = test.lake.vacuum(table, Duration::from_secs(24 * 3600), false, &|| GO).unwrap_err();
    assert!(error.to_string().contains("two days"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_cut_at_an_old_checkpoint_and_forgets_nothing_that_counts() {
    let test = sealed();
    let mut opened = test.table(TABLE);
    for next in 6..=230 {
        opened.commit(&[], &[span("t/0", Some(next - 1), next)]).unwrap();
    }
    let log = test.path(TABLE).join("_delta_log");
    let (version, rows) = (opened.version(), opened.contents().unwrap().rows);
    assert!(version > 220);
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let of = |path: &Path| name(path).get(..20).and_then(|name| name.parse::<u64>().ok()).unwrap_or(u64::MAX);
    below(&log).iter().filter(|path| of(path) <= 150).for_each(|path| made(path, 9));
    let table = catalog::table(TABLE).unwrap();
    let would = test.lake.clean_log(table, WEEK, true).unwrap();
    assert_eq!(would.files.len(), 100, "commits 0 to 99");
    assert_eq!(test.lake.clean_log(table, WEEK, false).unwrap(), would);
    assert_eq!(below(&log).iter().map(|path| of(path)).min(), Some(100));
    assert_eq!(test.lake.clean_log(table, WEEK, false).unwrap().files, []);

    let mut again = test.table(TABLE);
    assert_eq!((again.version(), again.contents().unwrap().rows), (version, rows));
    assert_eq!(again.position("t/0").unwrap(), Some(230));
    assert_eq!(vacuum(&test, true), Vec::<String>::new(), "the checkpoint knows what was removed lately");
    assert!(again.checkpoint().unwrap() && !again.checkpoint().unwrap());
}
