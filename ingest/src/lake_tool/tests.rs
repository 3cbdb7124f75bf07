//! The commands as they are typed, on lakes made with the code that ships, and a broker in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use racklake_schemas::clock::{Clock, DAY};
use racklake_schemas::{Cell, Row, Rows, tables};
use racklake_storage::verify::{Gap, Reason, Report, StreamReport, TableReport};
use racklake_storage::{Lake, Span};
use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
use rdkafka::mocking::MockCluster;

use super::*;
use crate::dead_letter::{DeadLetters, Refusal};

const STREAM: &str = "0123456789abcdef0123456789abcdef";

/// A lake of one event, frame `seq` of its stream.
async fn lake_with_event(folder: &std::path::Path, seq: i64) {
    lake_with_event_at(folder, seq, 1_795_514_400_000_000).await;
}

/// The same, of that time (µs UTC).
pub(crate) async fn lake_with_event_at(folder: &std::path::Path, seq: i64, time: i64) {
    let location = folder.display().to_string();
    let write = move || {
        let table = &tables::EVENT;
        let mut row = Row::new(table);
        let mut set = |name: &str, cell: Cell| row.set(table.column(name).unwrap(), cell);
        for name in ["ts", "received_at"] {
            set(name, Cell::I64(time));
        }
        for (name, value) in [("site", "a"), ("node", "n1"), ("stream_id", STREAM), ("event", "e"), ("event_id", "1")] {
            set(name, Cell::from(value));
        }
        set("seq", Cell::I64(seq));
        set("frame_rows", Cell::I64(1));
        let mut rows = Rows::new(table);
        rows.push(row);
        let mut table = Lake::open(&location, &BTreeMap::new()).unwrap().table(table).unwrap();
        let files = table.write(&[rows.into_batch().unwrap()], &[]).unwrap();
        let span = Span { app_id: "t/-/0".to_owned(), began_at: None, next: 1, domain: None };
        table.commit(&files, &[span]).unwrap();
    };
    tokio::task::spawn_blocking(write).await.unwrap();
}

async fn answer(arguments: &[&str]) -> anyhow::Result<Answer> {
    run(Arguments::try_parse_from([&["racklake-lake"], arguments].concat())?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().display().to_string();
    assert_eq!(answer(&["verify", &lake]).await.unwrap().exit_code(), 2, "there is no lake");
    lake_with_event(folder.path(), 1).await;
    assert_eq!(answer(&["verify", &lake]).await.unwrap().exit_code(), 0);
    let other = tempfile::tempdir().unwrap();
    lake_with_event(other.path(), 2).await;
    assert_eq!(answer(&["verify", "--json", &other.path().display().to_string()]).await.unwrap().exit_code(), 1);
    assert!(answer(&["verify", "ftp://host/lake"]).await.is_err());
    assert!(answer(&["verify", &lake, "--option", "no value"]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_read_to_the_end_and_name_their_frames() {
    let broker = MockCluster::new(1).unwrap();
    for topic in ["racklake.event", "racklake.dead-letter"] {
        broker.create_topic(topic, 1, 1).unwrap();
    }
    let config = Config::new(broker.bootstrap_servers(), "none");
    let post = DeadLetters::new(&config).unwrap();
    for offset in [3, 4] {
        let own = [("node", "n1"), ("stream_id", STREAM), ("seq", "17")];
        let own = own
            .into_iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let topic = "racklake.event".to_owned();
        let time = rdkafka::Timestamp::NotAvailable;
        let message = OwnedMessage::new(Some(b"junk".to_vec()), None, topic, time, 0, offset, Some(own));
        post.send(&crate::dead_letter::Letter { message, refusal: Refusal::Empty }).await.unwrap();
    }
    let read = move || letters::read(&config, &letters::Choice::default(), |_, _| ()).unwrap();
    let found =
        tokio::time::timeout(Duration::from_secs(30), tokio::task::spawn_blocking(read)).await.unwrap().unwrap();
    let places: Vec<_> = found.iter().map(|letter| letter.place.as_str()).collect();
    assert_eq!(places, ["racklake.event/0/3", "racklake.event/0/4"]);
    let testimony = found[0].testimony().unwrap();
    assert_eq!((testimony.table.as_str(), testimony.stream_id.as_str()), ("event", STREAM));
    assert_eq!((testimony.seq_first, testimony.reason), (17, Reason::DeadLetter("empty".to_owned())));
    let printed = print::letters(&found);
    assert!(printed.contains("empty: the message is empty") && printed.contains("seq 17"), "{printed}");
    assert_eq!(json::letters(&found).lines().count(), 2);
}

#[test]
fn a_proof_names_every_finding_and_says_what_it_is() {
    let gap = |seq_first, seq_last, reason| Gap { seq_first, seq_last, reason };
    let stream = StreamReport {
        node: "n1".to_owned(),
        stream_id: STREAM.to_owned(),
        rows: 7,
        frames: 2,
        seq_first: Some(1),
        seq_last: Some(5),
        seq_known: 6,
        gaps: vec![gap(2, 4, Reason::Dropped("spool_full".to_owned())), gap(6, 6, Reason::Unexplained)],
        short: vec![(5, 3, 4)],
        doubled: vec![(1, 2)],
        contradictory: Vec::new(),
    };
    let table = TableReport {
        table: "event".to_owned(),
        rows: 7,
        streams: vec![stream],
        files_missing: vec!["event/x.parquet".to_owned()],
        ..TableReport::default()
    };
    let report = Report { tables: vec![table], doubts: Vec::new() };
    let counted = proof::Counted { duplicates: 12, dead_letters: 3 };
    let received = proof::Received { all: counted, streams: BTreeMap::from([(STREAM.to_owned(), counted)]) };
    let received = BTreeMap::from([("event", received)]);
    let proof = proof::Proof { report, waiting: Vec::new(), received, took: Duration::from_millis(1500) };
    assert_eq!(proof.answer(), Answer::Incomplete);
    let printed = print::proof("/lake", &proof, false);
    for wanted in [
        "event: 12 frames came again and were dropped, 3 dead letters",
        "seq 2..4 missing: dropped by the collector: spool_full",
        "seq 6 missing: unexplained",
        "seq 5 short: 3 of 4 rows",
        "seq 1 doubled: 2 rows",
        "file missing: event/x.parquet",
        "1..5 of 6",
        "not complete: 4 frames missing, 1 short, 1 doubled",
    ] {
        assert!(printed.contains(wanted), "{wanted} is not in\n{printed}");
    }
    let told: serde_json::Value = serde_json::from_str(&json::proof(&proof)).unwrap();
    let stream = &told["tables"][0]["streams"][0];
    assert_eq!((stream["duplicates"].as_u64(), stream["dead_letters"].as_u64()), (Some(12), Some(3)));
    let gaps = &stream["gaps"];
    assert_eq!(
        (told["exit_code"].as_i64(), gaps[0]["frames"].as_i64(), &gaps[1]["reason"]),
        (Some(1), Some(3), &"unexplained".into())
    );
}

/// Data files of the events, hot and sealed.
pub(crate) fn event_files(folder: &std::path::Path) -> (usize, usize) {
    fn count(folder: std::path::PathBuf) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| if entry.path().is_dir() { count(entry.path()) } else { 1 }).sum()
    }
    let events = folder.join("event");
    (count(events.join("_hot")), count(events.join("site=a")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_is_kept_in_order_by_hand_and_a_dry_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().display().to_string();
    lake_with_event_at(folder.path(), 1, Clock::now_us() - 10 * DAY).await;
    let done = async |command: &[&str]| answer(&[command, &[&lake]].concat()).await.unwrap();
    assert_eq!(done(&["seal", "--dry-run"]).await, Answer::Complete);
    assert_eq!(event_files(folder.path()), (1, 0));
    assert_eq!(done(&["seal", "--table", "event"]).await, Answer::Complete);
    assert_eq!(event_files(folder.path()), (1, 1));
    assert_eq!(done(&["vacuum"]).await, Answer::Complete);
    assert_eq!(event_files(folder.path()), (1, 1), "what was merged just now stays for those who read it");
    assert_eq!(done(&["checkpoint"]).await, Answer::Complete);
    assert!(folder.path().join("event/_delta_log/_last_checkpoint").is_file());
    assert_eq!(done(&["verify"]).await, Answer::Complete);

    let rows = || Lake::open(&lake, &BTreeMap::new()).unwrap().table(&tables::EVENT).unwrap().contents().unwrap().rows;
    assert_eq!(done(&["expire"]).await, Answer::Complete);
    assert_eq!(tokio::task::block_in_place(rows), 1, "it is younger than events may get");
    // Its day is told by the newest arrival, which is its own.
    assert_eq!(done(&["expire", "--older-than", "2d"]).await, Answer::Complete);
    assert_eq!(tokio::task::block_in_place(rows), 1);
    assert!(answer(&["expire", "--older-than", "2h", &lake]).await.is_err());
    assert!(answer(&["vacuum", "--age", "1h", &lake]).await.is_err());
    assert!(answer(&["seal", "--table", "device", &lake]).await.is_err(), "there is no such table in it");
    assert!(!folder.path().join("device").exists());
}
