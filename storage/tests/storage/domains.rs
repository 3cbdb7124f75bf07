//! A text beside a position: it is written with it, kept with it, and fenced with it.

use std::sync::Arc;

use racklake_storage::{DomainChange, LakeTable, Outcome, Span};

use crate::support::{TestLake, batch, reading, span};

const NAME: &str = "racklake.received.t.0";

fn changing(app_id: &str, began_at: Option<i64>, next: i64, name: &str, was: Option<&str>, now: &str) -> Span {
    let change = DomainChange { name: name.to_owned(), was: was.map(Arc::from), now: now.into() };
    Span { domain: Some(change), ..span(app_id, began_at, next) }
}

fn text(table: &LakeTable, name: &str) -> Option<String> {
    table.domain(name).unwrap().map(|text| (*text).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_replaced_with_its_position_and_the_others_stay() {
    let test = TestLake::new();
    let mut table = test.table("gpu_sample");
    assert_eq!(text(&table, NAME), None);
    let files = table.write(&[batch("gpu_sample", &[reading("g", 0)])], &[]).unwrap();
    let first = [changing("t/a/0", None, 5, NAME, None, "one"), changing("t/a/1", None, 7, "other", None, "x")];
    assert_eq!(table.commit(&files, &first).unwrap(), Outcome::Committed { version: 1 });
    table.commit(&[], &[changing("t/a/0", Some(5), 9, NAME, Some("one"), "two")]).unwrap();
    for table in [table, test.table("gpu_sample")] {
        assert_eq!((text(&table, NAME).as_deref(), text(&table, "other").as_deref()), (Some("two"), Some("x")));
        assert_eq!(table.position("t/a/0").unwrap(), Some(9));
        assert_eq!(table.domains("racklake.").unwrap(), [(NAME.to_owned(), Arc::from("two"))]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_cannot_write_a_domain_whatever_span_it_has() {
    let test = TestLake::new();
    let (mut zombie, mut successor) = (test.table("gpu_sample"), test.table("gpu_sample"));
    successor.commit(&[], &[changing("t/a/0", None, 5, NAME, None, "successor")]).unwrap();
    for next in [3, 5, 20] {
        let outcome = zombie.commit(&[], &[changing("t/a/0", None, next, NAME, None, "zombie")]).unwrap();
        assert_eq!(outcome, Outcome::Moved(vec!["t/a/0".to_owned()]));
    }
    assert_eq!(text(&test.table("gpu_sample"), NAME).as_deref(), Some("successor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_the_topic_as_it_was_cannot_write_the_set_of_the_topic_made_anew() {
    let test = TestLake::new();
    let (mut before, mut anew) = (test.table("gpu_sample"), test.table("gpu_sample"));
    anew.commit(&[], &[changing("t/new/0", None, 5, NAME, None, "anew")]).unwrap();
    // Nobody has moved its own position: only the domain tells.
    let outcome = before.commit(&[], &[changing("t/old/0", None, 9, NAME, None, "before")]).unwrap();
    assert_eq!(outcome, Outcome::Moved(vec!["t/old/0".to_owned()]));
    assert_eq!(before.position("t/old/0").unwrap(), None);
    assert_eq!(text(&before, NAME).as_deref(), Some("anew"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_a_domain_made_again_is_recognised() {
    let test = TestLake::new();
    let mut table = test.table("gpu_sample");
    let spans = [changing("t/a/0", None, 5, NAME, None, "one")];
    table.commit(&[], &spans).unwrap();
    assert_eq!(table.commit(&[], &spans).unwrap(), Outcome::Committed { version: 1 });
    assert_eq!(test.table("gpu_sample").commit(&[], &spans).unwrap(), Outcome::Committed { version: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_survive_checkpoints() {
    let test = TestLake::new();
    let mut table = test.table("miner_sample");
    table.commit(&[], &[changing("t/a/1", None, 1, "rare", None, "kept")]).unwrap();
    table.commit(&[], &[changing("t/a/0", None, 2, NAME, None, "2")]).unwrap();
    for next in 3..=120 {
        let was = (next - 1).to_string();
        let change = changing("t/a/0", Some(next - 1), next, NAME, Some(&was), &next.to_string());
        table.commit(&[], &[change]).unwrap();
    }
    let log = test.path("miner_sample/_delta_log");
    assert!(log.join("00000000000000000100.checkpoint.parquet").is_file());
    for version in 0..=100 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let again = test.table("miner_sample");
    assert_eq!((text(&again, NAME).as_deref(), text(&again, "rare").as_deref()), (Some("120"), Some("kept")));
}
