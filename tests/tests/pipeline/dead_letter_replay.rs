//! Dead letters sent again: a frame that can be read by now is stored once, however often it is sent; what is still no frame
//! becomes a letter again.

use racklake_tests::sender::Sender;
use racklake_tests::site::{Ingest, PARTITIONS, Site};
use racklake_tests::{lake_tool, turn};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::{Value, json};

const NODE: &str = "node-1";

/// A frame of a format that this ingest cannot read yet, under the name of one that is good: what an ingest sees that is
/// older than a collector.
fn send_unreadable(sender: &Sender, seq: i64) {
    sender.send_raw(&[0x08, 99], sender.headers(seq)).unwrap();
    sender.flush().unwrap();
}

/// Writes the letter that the older ingest would have written of the good frame: what is upgraded between the two is the
/// reader, which the test cannot do, so it is the message that becomes good.
fn write_letter(site: &Site, sender: &Sender, seq: i64, offset: i64) {
    let producer: ThreadedProducer<DefaultProducerContext> = site.broker.client_config().create().unwrap();
    let partition = racklake_schemas::identity::partition_of(NODE, PARTITIONS).to_string();
    let (topic, offset) = (site.topic("gpu_sample"), offset.to_string());
    let headers = [
        ("reason", "newer_format"),
        ("error", "format 2 is not known here"),
        ("topic", &topic),
        ("partition", &partition),
        ("offset", &offset),
        ("key", NODE),
    ];
    let add = |all: OwnedHeaders, (key, value): (&str, &str)| all.insert(Header { key, value: Some(value) });
    let headers = headers.into_iter().fold(sender.headers(seq), add);
    let (to, key) = (site.topic("dead-letter"), format!("{topic}/{partition}/{offset}"));
    let record = BaseRecord::to(&to).key(&key).payload(sender.payload(seq).unwrap()).headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(std::time::Duration::from_secs(30)).unwrap();
}

fn replay(site: &Site, more: &[&str]) -> Value {
    let (code, text) = lake_tool::run_on(site, &[&["dead-letters", "--json", "--replay"], more].concat()).unwrap();
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn proof(site: &Site, ingest: &Ingest) -> (i32, Value) {
    site.wait_until_drained(ingest, &["gpu_sample"], 60).unwrap();
    lake_tool::verify(site).unwrap()
}

#[test]
fn a_dead_letter_that_is_a_frame_by_now_is_stored_once_however_often_it_is_sent() {
    let _turn = turn();
    let site = Site::new("dead_letter_replay").unwrap();
    let ingest = site.start_ingest("ingest", "dead-letter-replay").unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let mut sender = Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, NODE).unwrap();
    sender.send().unwrap();
    sender.flush().unwrap();
    let unread = sender.prepare().unwrap();
    send_unreadable(&sender, unread);
    sender.send().unwrap();
    sender.flush().unwrap();
    let (code, report) = proof(&site, &ingest);
    assert_eq!(code, 1, "{report:#}");
    write_letter(&site, &sender, unread, 1);

    let chosen = ["--reason", "newer_format", "--topic", &site.topic("gpu_sample"), "--offsets", "1"];
    assert_eq!(replay(&site, &[&chosen[..], &["--dry-run"]].concat())["chosen"], 1);
    assert_eq!(replay(&site, &["--reason", "newer_format", "--offsets", "2..9"])["chosen"], 0);
    assert_eq!(proof(&site, &ingest).0, 1, "a dry run sends nothing");
    let sent = json!({"chosen": 1, "sent": 1, "dry_run": false, "not_sent": []});
    assert_eq!(replay(&site, &chosen), sent);
    let (code, report) = proof(&site, &ingest);
    assert_eq!((code, &report["answer"]), (0, &json!("complete")), "{report:#}");
    let counted = json!({"duplicates": 0, "dead_letters": 1});
    assert_eq!(report["received"]["gpu_sample"], counted, "it is still told that it was set aside");

    // Once more: it is in the lake by now. The other letter is what it was.
    assert_eq!(replay(&site, &chosen), sent);
    assert_eq!(replay(&site, &["--reason", "unknown_format"]), sent);
    let (code, report) = proof(&site, &ingest);
    assert_eq!((code, &report["answer"]), (0, &json!("complete")), "{report:#}");
    assert_eq!(report["received"]["gpu_sample"], json!({"duplicates": 1, "dead_letters": 2}));
    let letters = lake_tool::dead_letters(&site).unwrap();
    assert_eq!(letters.iter().filter(|letter| letter["reason"] == "unknown_format").count(), 2, "{letters:?}");
    site.stop_ingest(ingest).unwrap();
    let account = site.folder.join("sent.json");
    Sender::write_account(&[&sender], &account).unwrap();
    println!("{}", site.check_sent(&account).unwrap());
}
