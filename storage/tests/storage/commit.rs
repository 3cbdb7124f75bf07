//! The position rule: a commit goes through only where the table stands exactly where the flush began.

use racklake_storage::{LakeTable, Outcome, StorageError};

use crate::support::{TestLake, batch, reading, span};

fn write(table: &LakeTable, seconds: std::ops::Range<i64>) -> Vec<racklake_storage::DataFile> {
    let readings: Vec<_> = seconds.map(|second| reading("d1", second)).collect();
    table.write(&[batch("gpu_sample", &readings)], &[]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_position_are_there_after_opening_again() {
    let test = TestLake::new();
    let mut table = test.table("gpu_sample");
    assert_eq!(table.position("t/0").unwrap(), None);
    let files = write(&table, 0..10);
    assert_eq!(test.rows("gpu_sample"), 0, "files alone are not visible");
    table.commit(&files, &[span("t/0", None, 10), span("t/1", None, 4)]).unwrap();
    drop(table);
    let again = test.table("gpu_sample");
    assert_eq!(again.position("t/0").unwrap(), Some(10));
    assert_eq!(again.position("t/1").unwrap(), Some(4));
    assert_eq!(again.position("t/2").unwrap(), None);
    assert_eq!((again.version(), test.rows("gpu_sample")), (1, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_with_a_longer_span_commits_nothing() {
    let test = TestLake::new();
    let mut zombie = test.table("gpu_sample");
    zombie.commit(&write(&zombie, 0..5), &[span("t/0", None, 5)]).unwrap();
    let its_files = write(&zombie, 5..20);
    let mut successor = test.table("gpu_sample");
    successor.commit(&write(&successor, 5..10), &[span("t/0", Some(5), 10)]).unwrap();
    let outcome = zombie.commit(&its_files, &[span("t/0", Some(5), 20)]).unwrap();
    assert_eq!(outcome, Outcome::Moved(vec!["t/0".to_owned()]));
    assert_eq!(test.rows("gpu_sample"), 10);
    assert_eq!(test.table("gpu_sample").position("t/0").unwrap(), Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_moved_partition_holds_back_the_whole_flush_and_is_named_alone() {
    let test = TestLake::new();
    let mut ours = test.table("gpu_sample");
    let files = write(&ours, 0..20);
    let mut other = test.table("gpu_sample");
    other.commit(&write(&other, 0..5), &[span("t/1", None, 5)]).unwrap();
    // It stands where this flush would have put it: the flush as a whole is still not in the table.
    let spans = [span("t/0", None, 15), span("t/1", None, 5)];
    assert_eq!(ours.commit(&files, &spans).unwrap(), Outcome::Moved(vec!["t/1".to_owned()]));
    assert_eq!(ours.position("t/0").unwrap(), None);
    assert_eq!(test.rows("gpu_sample"), 5);
    // What is left of it goes through.
    let outcome = ours.commit(&write(&ours, 5..20), &[span("t/0", None, 15)]).unwrap();
    assert_eq!(outcome, Outcome::Committed { version: 2 });
    assert_eq!(test.rows("gpu_sample"), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_made_again_after_its_own_success_is_recognised() {
    let test = TestLake::new();
    let mut table = test.table("gpu_sample");
    let mut unaware = test.table("gpu_sample");
    let files = write(&table, 0..10);
    let spans = [span("t/0", None, 10)];
    let first = table.commit(&files, &spans).unwrap();
    assert_eq!(first, Outcome::Committed { version: 1 });
    // With the version that it made, with an older one, and after opening anew.
    assert_eq!(table.commit(&files, &spans).unwrap(), first);
    assert_eq!(unaware.commit(&files, &spans).unwrap(), first);
    assert_eq!(test.table("gpu_sample").commit(&files, &spans).unwrap(), first);
    assert_eq!((test.adds("gpu_sample").len(), test.rows("gpu_sample")), (1, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_different_partitions_conflict_and_lose_nothing() {
    const WRITERS: i64 = 4;
    const COMMITS: i64 = 30; // past a checkpoint
    let test = TestLake::new();
    test.table("gpu_sample");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let mut table = test.table("gpu_sample");
            tokio::task::spawn_blocking(move || {
                let app_id = format!("t/{writer}");
                for commit in 0..COMMITS {
                    let files = write(&table, commit * 3..commit * 3 + 3);
                    let began_at = (commit > 0).then_some(commit * 3);
                    let outcome = table.commit(&files, &[span(&app_id, began_at, commit * 3 + 3)]).unwrap();
                    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let table = test.table("gpu_sample");
    for writer in 0..WRITERS {
        assert_eq!(table.position(&format!("t/{writer}")).unwrap(), Some(COMMITS * 3));
    }
    assert_eq!(table.version() as i64, WRITERS * COMMITS);
    assert_eq!(test.rows("gpu_sample"), WRITERS * COMMITS * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_of_one_partition_only_one_commits() {
    let test = TestLake::new();
    test.table("gpu_sample");
    let writers: Vec<_> = (1..=4)
        .map(|rows| {
            let mut table = test.table("gpu_sample");
            tokio::task::spawn_blocking(move || {
                let files = write(&table, 0..rows);
                match table.commit(&files, &[span("t/0", None, rows)]).unwrap() {
                    Outcome::Committed { .. } => rows,
                    Outcome::Moved(_) => 0,
                }
            })
        })
        .collect();
    let mut committed = Vec::new();
    for writer in writers {
        committed.push(writer.await.unwrap());
    }
    assert_eq!(committed.iter().filter(|rows| **rows > 0).count(), 1, "{committed:?}");
    assert_eq!(test.rows("gpu_sample"), committed.iter().sum::<i64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_moves_without_files() {
    let test = TestLake::new();
    let mut table = test.table("event");
    assert_eq!(table.commit(&[], &[span("t/0", None, 7)]).unwrap(), Outcome::Committed { version: 1 });
    assert_eq!(table.commit(&[], &[span("t/0", Some(7), 9)]).unwrap(), Outcome::Committed { version: 2 });
    assert_eq!(test.table("event").position("t/0").unwrap(), Some(9));
    assert!(test.adds("event").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_make_no_sense_are_refused() {
    let test = TestLake::new();
    let mut table = test.table("gpu_sample");
    let files = write(&table, 0..1);
    for (files, spans) in [(&files[..], vec![]), (&[], vec![span("t/0", Some(7), 7)])] {
        let error = table.commit(files, &spans).unwrap_err();
        assert!(matches!(error, StorageError::Stop { .. }), "{error}");
    }
    assert_eq!(table.version(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_250_commits_there_are_checkpoints_and_positions_are_right() {
    let test = TestLake::new();
    let mut table = test.table("miner_sample");
    let files = table.write(&[batch("miner_sample", &[reading("m1", 0)])], &[]).unwrap();
    table.commit(&files, &[span("t/0", None, 1), span("rare", None, 77)]).unwrap();
    for next in 2..=250 {
        table.commit(&[], &[span("t/0", Some(next - 1), next)]).unwrap();
    }
    let log = test.path("miner_sample/_delta_log");
    assert!(log.join("00000000000000000100.checkpoint.parquet").is_file());
    assert!(log.join("00000000000000000200.checkpoint.parquet").is_file());
    // A reader that has only the checkpoint and what follows it finds everything.
    for version in 0..=200 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let mut again = test.table("miner_sample");
    assert_eq!(again.version(), 250);
    assert_eq!(again.position("t/0").unwrap(), Some(250));
    assert_eq!(again.position("rare").unwrap(), Some(77));
    let outcome = again.commit(&[], &[span("t/0", Some(250), 251), span("rare", Some(77), 78)]).unwrap();
    assert_eq!(outcome, Outcome::Committed { version: 251 });
}
