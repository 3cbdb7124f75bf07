//! A lake is proven complete, and every damage done to one is found and named.

use std::cell::RefCell;
use std::collections::BTreeMap;

use racklake_schemas::{Cell, Row, Rows, catalog};
use racklake_storage::DataFile;
use racklake_storage::verify::{Question, Reason, Report, StreamReport, TableReport, Testimony, Verdict, verify};

use crate::support::{SECOND, TEN_O_CLOCK, TestLake, read, span};

pub(crate) const STREAM: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const DEVICES: [&str; 3] = ["d1", "d2", "d3"];

/// A lake that is written frame by frame.
pub(crate) struct Written {
    pub(crate) test: TestLake,
    positions: RefCell<BTreeMap<String, i64>>,
}

impl Written {
    pub(crate) fn new() -> Written {
        Written { test: TestLake::new(), positions: RefCell::default() }
    }

    /// Frames 1 to 3 of `gpu_sample` in a commit each, and coverage that knows of them.
    pub(crate) fn whole() -> Written {
        let lake = Written::new();
        for seq in 1..=3 {
            lake.commit("gpu_sample", &frame(seq, &DEVICES));
        }
        lake.commit("coverage", &[coverage(1, 3)]);
        lake
    }

    pub(crate) fn commit(&self, table: &str, rows: &[Row]) -> Vec<DataFile> {
        let mut batch = Rows::new(catalog::table(table).unwrap());
        rows.iter().for_each(|row| batch.push(row.clone()));
        let files = self.test.table(table).write(&[batch.into_batch().unwrap()], &[]).unwrap();
        self.commit_files(table, &files);
        files
    }

    fn commit_files(&self, table: &str, files: &[DataFile]) {
        let mut positions = self.positions.borrow_mut();
        let before = positions.get(table).copied();
        let next = before.unwrap_or(0) + 1;
        self.test.table(table).commit(files, &[span("t/0", before, next)]).unwrap();
        positions.insert(table.to_owned(), next);
    }

    /// Writes a file of the table anew without the rows that `kept` refuses, by their number.
    fn rewrite(&self, table: &str, file: &DataFile, kept: impl Fn(usize) -> bool) {
        let path = self.test.path(table).join(file.path());
        let rows = read(&path);
        let kept: arrow::array::BooleanArray = (0..rows.num_rows()).map(|row| Some(kept(row))).collect();
        let rest = arrow::compute::filter_record_batch(&rows, &kept).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, rest.schema(), None).unwrap();
        writer.write(&rest).unwrap();
        writer.close().unwrap();
    }

    pub(crate) fn proven(&self) -> Report {
        self.proven_with(true, Vec::new())
    }

    fn proven_with(&self, keys: bool, testimony: Vec<Testimony>) -> Report {
        verify(&self.test.lake, Question { keys, threads: 2, testimony, watch: &|_| {} })
    }
}

pub(crate) fn row(table: &str, seq: i64, frame_rows: i64, device: Option<&str>) -> Row {
    let table = catalog::table(table).unwrap();
    let mut row = Row::new(table);
    let mut set = |name: &str, cell: Cell| {
        let column = table.column(name).unwrap();
        row.set(column, cell);
    };
    let ts = TEN_O_CLOCK + seq * SECOND;
    set("ts", Cell::I64(ts));
    set("received_at", Cell::I64(ts + SECOND));
    set("site", Cell::from("a"));
    set("node", Cell::from("n1"));
    set("device_id", device.map_or(Cell::Null, Cell::from));
    set("stream_id", Cell::from(STREAM));
    set("seq", Cell::I64(seq));
    set("frame_rows", Cell::I64(frame_rows));
    row
}

/// The rows of one frame of `gpu_sample` of these devices; three are due.
pub(crate) fn frame(seq: i64, devices: &[&str]) -> Vec<Row> {
    devices.iter().map(|device| row("gpu_sample", seq, DEVICES.len() as i64, Some(device))).collect()
}

pub(crate) fn coverage(seq: i64, seq_last: i64) -> Row {
    let mut row = row("coverage", seq, 1, None);
    let column = |name| catalog::table("coverage").unwrap().column(name).unwrap();
    row.set(column("table"), "gpu_sample");
    row.set(column("minute"), TEN_O_CLOCK);
    row.set(column("seq_last"), seq_last);
    row
}

fn dropped(seq: i64, first: i64, last: i64) -> Row {
    let mut row = row("event", seq, 1, None);
    let column = |name| catalog::table("event").unwrap().column(name).unwrap();
    row.set(column("event_id"), format!("{STREAM}-{seq}"));
    row.set(column("event"), "frames_dropped");
    let details = serde_json::json!({"table": "gpu_sample", "stream_id": STREAM, "seq_first": first, "seq_last": last,
        "reason": "queue_full"});
    row.set(column("details_json"), details.to_string());
    row
}

pub(crate) fn table<'a>(report: &'a Report, name: &str) -> &'a TableReport {
    report.tables.iter().find(|table| table.table == name).unwrap()
}

/// The stream of `gpu_sample`.
pub(crate) fn stream(report: &Report) -> &StreamReport {
    let streams = &table(report, "gpu_sample").streams;
    assert_eq!(streams.len(), 1, "{report:?}");
    &streams[0]
}

pub(crate) fn gaps(report: &Report) -> Vec<(i64, i64, Reason)> {
    stream(report).gaps.iter().map(|gap| (gap.seq_first, gap.seq_last, gap.reason.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_with_every_frame_is_complete() {
    let report = Written::whole().proven();
    assert_eq!(report.verdict(), Verdict::Complete, "{report:?}");
    let stream = stream(&report);
    assert_eq!((stream.node.as_str(), stream.stream_id.as_str()), ("n1", STREAM));
    assert_eq!((stream.rows, stream.frames, stream.seq_known), (9, 3, 3));
    assert_eq!((stream.seq_first, stream.seq_last), (Some(1), Some(3)));
    assert_eq!((table(&report, "gpu_sample").files, table(&report, "coverage").rows), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_file_that_was_deleted_is_named_and_so_are_its_frames() {
    let lake = Written::whole();
    let file = &lake.commit("gpu_sample", &frame(4, &DEVICES))[0];
    lake.commit("gpu_sample", &frame(5, &DEVICES));
    std::fs::remove_file(lake.test.path("gpu_sample").join(file.path())).unwrap();
    let report = lake.proven();
    assert_eq!(report.verdict(), Verdict::Incomplete);
    let missing = &table(&report, "gpu_sample").files_missing;
    assert!(missing.len() == 1 && missing[0].ends_with(file.path().rsplit('/').next().unwrap()), "{missing:?}");
    assert_eq!(gaps(&report), [(4, 4, Reason::Unexplained)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_second_commit_brings_again_are_doubled() {
    let lake = Written::whole();
    lake.commit("gpu_sample", &frame(2, &DEVICES));
    let report = lake.proven();
    assert_eq!(report.verdict(), Verdict::Incomplete);
    assert_eq!(stream(&report).doubled, [(2, 3)]);
    assert!(gaps(&report).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_two_commits_name_is_read_once_as_by_every_reader() {
    let lake = Written::whole();
    let files = lake.commit("gpu_sample", &frame(4, &DEVICES));
    lake.commit_files("gpu_sample", &files);
    let rows: usize = lake.test.table("gpu_sample").read().unwrap().iter().map(|batch| batch.num_rows()).sum();
    let report = lake.proven();
    assert_eq!((report.verdict(), table(&report, "gpu_sample").rows, rows), (Verdict::Complete, 12, 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_taken_out_of_a_file_leaves_a_short_frame_and_an_altered_file() {
    let lake = Written::whole();
    let file = &lake.commit("gpu_sample", &frame(4, &DEVICES))[0];
    lake.rewrite("gpu_sample", file, |row| row != 1);
    let report = lake.proven();
    assert_eq!(report.verdict(), Verdict::Incomplete);
    assert_eq!(stream(&report).short, [(4, 2, 3)]);
    let altered = &table(&report, "gpu_sample").files_altered[0];
    assert_eq!((altered.rows_told, altered.rows), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_device_that_are_missing_leave_every_frame_short() {
    let lake = Written::new();
    for seq in 1..=3 {
        lake.commit("gpu_sample", &frame(seq, &["d1", "d3"]));
    }
    let report = lake.proven();
    assert_eq!(report.verdict(), Verdict::Incomplete);
    assert_eq!(stream(&report).short, [(1, 2, 3), (2, 2, 3), (3, 2, 3)]);
    assert!(table(&report, "gpu_sample").files_altered.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_withheld_in_the_middle_is_a_gap_that_an_event_may_explain() {
    let lake = Written::new();
    lake.commit("gpu_sample", &[frame(1, &DEVICES), frame(5, &DEVICES)].concat());
    let report = lake.proven();
    assert_eq!((report.verdict(), gaps(&report)), (Verdict::Incomplete, vec![(2, 4, Reason::Unexplained)]));
    lake.commit("event", &[dropped(1, 3, 4)]);
    let report = lake.proven();
    let explained = Reason::Dropped("queue_full".to_owned());
    assert_eq!(gaps(&report), [(2, 2, Reason::Unexplained), (3, 4, explained)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_frame_of_a_stream_shows_by_what_coverage_knows_even_if_it_is_the_only_one() {
    let lake = Written::new();
    lake.commit("coverage", &[coverage(1, 1)]);
    let report = lake.proven();
    assert_eq!((report.verdict(), gaps(&report)), (Verdict::Incomplete, vec![(1, 1, Reason::Unexplained)]));
    assert_eq!(stream(&report).node, "n1");
    lake.commit("gpu_sample", &frame(1, &DEVICES));
    assert_eq!(lake.proven().verdict(), Verdict::Complete);
    lake.commit("coverage", &[coverage(2, 2)]);
    let report = lake.proven();
    assert_eq!((gaps(&report), stream(&report).seq_last), (vec![(2, 2, Reason::Unexplained)], Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_was_received_and_has_no_rows_is_lost() {
    let lake = Written::whole();
    let testimony = Testimony {
        table: "gpu_sample".to_owned(),
        stream_id: STREAM.to_owned(),
        seq_first: 1,
        seq_last: 5,
        reason: Reason::Lost,
    };
    let report = lake.proven_with(true, vec![testimony]);
    assert_eq!((report.verdict(), gaps(&report)), (Verdict::Incomplete, vec![(4, 5, Reason::Lost)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_taken_out_of_the_log_is_no_proof() {
    let lake = Written::whole();
    std::fs::remove_file(lake.test.path("gpu_sample/_delta_log/00000000000000000002.json")).unwrap();
    let report = lake.proven();
    assert_eq!(report.verdict(), Verdict::Unknown);
    assert!(table(&report, "gpu_sample").doubts[0].contains("gpu_sample"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_last_commit_that_was_taken_out_of_the_log_are_found_in_its_files() {
    let lake = Written::new();
    lake.commit("gpu_sample", &frame(1, &DEVICES));
    let file = &lake.commit("gpu_sample", &frame(2, &DEVICES))[0];
    std::fs::remove_file(lake.test.path("gpu_sample/_delta_log/00000000000000000002.json")).unwrap();
    let report = lake.proven();
    assert_eq!((report.verdict(), gaps(&report)), (Verdict::Incomplete, vec![(2, 2, Reason::Uncommitted)]));
    let orphans = &table(&report, "gpu_sample").orphans;
    assert!(orphans.len() == 1 && orphans[0].0.ends_with(file.path().rsplit('/').next().unwrap()), "{orphans:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_never_committed_and_has_nothing_new_is_no_fault() {
    let lake = Written::whole();
    let mut again = Rows::new(catalog::table("gpu_sample").unwrap());
    frame(3, &DEVICES).into_iter().for_each(|row| again.push(row));
    lake.test.table("gpu_sample").write(&[again.into_batch().unwrap()], &[]).unwrap();
    let report = lake.proven();
    assert_eq!((report.verdict(), table(&report, "gpu_sample").orphans.len()), (Verdict::Complete, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_twice_in_the_place_of_another_is_found_by_its_key_alone() {
    let lake = Written::new();
    lake.commit("gpu_sample", &frame(1, &["d1", "d1", "d3"]));
    let report = lake.proven();
    assert_eq!((report.verdict(), stream(&report).doubled.clone()), (Verdict::Incomplete, vec![(1, 1)]));
    assert_eq!(lake.proven_with(false, Vec::new()).verdict(), Verdict::Complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_and_a_log_that_is_gone_are_no_proof() {
    let lake = Written::whole();
    let file = &lake.commit("gpu_sample", &frame(4, &DEVICES))[0];
    std::fs::write(lake.test.path("gpu_sample").join(file.path()), "junk that is no Parquet file").unwrap();
    let report = lake.proven();
    assert_eq!(report.verdict(), Verdict::Unknown);
    assert!(table(&report, "gpu_sample").doubts[0].contains(".parquet"), "{report:?}");
    std::fs::remove_dir_all(lake.test.path("gpu_sample/_delta_log")).unwrap();
    let report = lake.proven();
    assert_eq!(report.verdict(), Verdict::Unknown);
    assert!(table(&report, "gpu_sample").doubts[0].contains("no log"), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_lake_is_nothing_can_be_told_and_nothing_is_made() {
    let lake = Written::new();
    let report = lake.proven();
    assert_eq!(report.verdict(), Verdict::Unknown);
    assert!(report.doubts[0].contains("no table of a lake"), "{report:?}");
    assert!(!lake.test.path("").exists());
}
