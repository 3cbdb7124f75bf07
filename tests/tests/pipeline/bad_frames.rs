//! Frames that cannot be decoded: each ends as a dead letter with its reason and place, and no good row is lost.

use std::time::{Duration, Instant};

use racklake_tests::sender::Sender;
use racklake_tests::site::{PARTITIONS, Site, http_get};
use racklake_tests::turn;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedHeaders};

/// What is sent, and the reason that its dead letter must give.
fn bad_payloads() -> Vec<(Vec<u8>, &'static str)> {
    let field = |number: u8, bytes: &[u8]| {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    };
    let envelope = |format: u8, table: &str, rows: &[u8]| {
        let mut out = vec![1 << 3, format];
        out.extend(field(2, table.as_bytes()));
        out.extend([3 << 3, 1]);
        out.extend(field(4, b"0123456789abcdef0123456789abcdef"));
        out.extend([5 << 3, 1]);
        out.extend(field(6, b"bad-node"));
        out.push(7 << 3);
        out.extend(rows);
        out
    };
    vec![
        (vec![0xff; 40], "bad_varint"),
        (envelope(1, "gpu_sample", &[1])[..20].to_vec(), "truncated"),
        (envelope(9, "gpu_sample", &[1]), "unknown_format"),
        (envelope(1, "no_such_table", &[1]), "unknown_table"),
        (envelope(1, "gpu_sample", &[0xff, 0xff, 0xff, 0xff, 0x7f]), "too_large"),
        (envelope(1, "gpu_sample", &[1]), "missing_value"),
    ]
}

#[test]
fn undecodable_frames_become_dead_letters_and_good_rows_pass() {
    let _turn = turn();
    let site = Site::new("bad_frames").unwrap();
    let ingest = site.start_ingest("ingest", "bad-frames").unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let mut sender = Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, "node-1").unwrap();
    let bad = bad_payloads();
    for (payload, _) in &bad {
        sender.send().unwrap();
        sender.send_raw(payload, OwnedHeaders::new()).unwrap();
    }
    sender.send().unwrap();
    sender.flush().unwrap();
    site.wait_until_drained(&ingest, &["gpu_sample"], 60).unwrap();

    let mut found = read_dead_letters(&site, bad.len());
    let mut wanted: Vec<(String, Vec<u8>)> = bad.iter().map(|(p, reason)| ((*reason).to_owned(), p.clone())).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let listed = racklake_tests::lake_tool::dead_letters(&site).unwrap();
    let mut reasons: Vec<&str> = listed.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    reasons.sort();
    assert_eq!(reasons, wanted.iter().map(|(reason, _)| reason.as_str()).collect::<Vec<_>>());
    assert!(listed.iter().all(|letter| letter["table"] == "gpu_sample"), "{listed:?}");

    let metrics = http_get(&ingest.http, "/metrics").unwrap().1;
    assert!(metrics.contains("unknown_format"), "dead letters are counted by reason:\n{metrics}");
    site.stop_ingest(ingest).unwrap();
    let account = site.folder.join("sent.json");
    Sender::write_account(&[&sender], &account).unwrap();
    println!("{}", site.check_sent(&account).unwrap());
}

/// Reason and original bytes of each dead letter.
fn read_dead_letters(site: &Site, count: usize) -> Vec<(String, Vec<u8>)> {
    let mut config = site.broker.client_config();
    config.set("group.id", "dead-letter-reader").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[&site.topic("dead-letter")]).unwrap();
    let mut found = Vec::new();
    let start = Instant::now();
    while found.len() < count && start.elapsed() < Duration::from_secs(30) {
        let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
        let message = message.unwrap();
        let place =
            format!("{}/{}/{}", header(&message, "topic"), header(&message, "partition"), header(&message, "offset"));
        assert_eq!(message.key().map(String::from_utf8_lossy).unwrap(), place, "the key is the place");
        assert!(place.starts_with(&site.topic("gpu_sample")), "{place}");
        found.push((header(&message, "reason"), message.payload().unwrap_or_default().to_vec()));
    }
    found
}

fn header(message: &BorrowedMessage<'_>, name: &str) -> String {
    let headers = message.headers().expect("a dead letter has headers");
    let found = headers.iter().find(|header| header.key == name).unwrap_or_else(|| panic!("no header {name}"));
    String::from_utf8_lossy(found.value.unwrap_or_default()).into_owned()
}
