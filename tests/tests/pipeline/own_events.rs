//! What ingest tells itself: a wrong clock, columns of a newer catalog, records that retention removed, each as a row of
//! `event`, in streams without a hole, also where ingest is killed.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use racklake_schemas::catalog::CATALOG_VERSION;
use racklake_schemas::clock::{Clock, DAY};
use racklake_tests::sender::{ROWS, Sender};
use racklake_tests::site::{Ingest, PARTITIONS, Site};
use racklake_tests::{kafka, lake_tool, python, turn, wait_for};
use serde_json::{Value, json};

const GROUP: &str = "own-events";
/// Field 8 of a frame: a column with the id 900, of which this catalog knows nothing.
const NEWER_COLUMN: [u8; 5] = [0x42, 3, 0x08, 0x84, 0x07];

fn events(site: &Site) -> Vec<Value> {
    let printed = python::run("print_events.py", &[&site.lake().display().to_string()]).unwrap();
    serde_json::from_str(&printed).unwrap()
}

/// Waits until ingest has told an event of that name `count` times and reads them back from the lake.
fn wait_for_events(site: &Site, ingest: &Ingest, name: &str, count: usize) -> Vec<Value> {
    let found = wait_for(&format!("{count} events {name}"), 60, || {
        let mut found = events(site);
        found.retain(|event| event["event"] == name);
        (found.len() >= count).then_some(found)
    });
    found.unwrap_or_else(|error| panic!("{error}\n{}", ingest.process.tail()))
}

/// Frames whose rows are three days old, not marked as replayed.
fn send_with_a_wrong_clock(sender: &mut Sender, frames: usize) {
    for _ in 0..frames {
        let seq = sender.prepare_at(Clock::now_us() - 3 * DAY).unwrap();
        sender.resend(seq).unwrap();
    }
    sender.flush().unwrap();
}

/// Frames with a column of a newer catalog behind the others.
fn send_with_a_newer_column(sender: &mut Sender, frames: usize) {
    for _ in 0..frames {
        let seq = sender.prepare().unwrap();
        let payload = [sender.payload(seq).unwrap(), &NEWER_COLUMN].concat();
        sender.send_raw(&payload, sender.headers(seq)).unwrap();
    }
    sender.flush().unwrap();
}

/// Removes what a partition holds before an offset, as retention does.
fn remove_before(site: &Site, topic: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> = site.broker.client_config().create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    kafka::runtime().unwrap().block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
}

#[test]
fn what_ingest_tells_itself_is_in_the_lake_in_streams_without_a_hole() {
    let _turn = turn();
    let site = Site::new("own_events").unwrap();
    let lake = site.lake().display().to_string();
    let named = "[events]\nsite = \"hall-9\"\nnode = \"ingest-9\"\n";
    let start = |name: &str| site.start_ingest_into(name, GROUP, &lake, named).unwrap();
    let mut ingest = start("ingest-1");
    for table in ["gpu_sample", "event"] {
        site.wait_for_topic(&ingest, table).unwrap();
    }
    let sender = |node| Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, node).unwrap();
    let (mut late, mut newer) = (sender("node-late"), sender("node-newer"));
    send_with_a_wrong_clock(&mut late, 3);
    send_with_a_newer_column(&mut newer, 3);

    let told = wait_for_events(&site, &ingest, "columns_unknown", 1);
    let wanted = json!({"table": "gpu_sample", "node": "node-newer", "ids": [900], "columns": 1,
        "catalog_version": CATALOG_VERSION});
    assert_eq!((told.len(), &told[0]["details"]), (1, &wanted), "once for the set of columns");
    assert_eq!((&told[0]["site"], &told[0]["node"]), (&json!("hall-9"), &json!("ingest-9")));
    let told = wait_for_events(&site, &ingest, "clock_suspect", 1);
    assert_eq!(told.len(), 1, "once an hour");
    let details = &told[0]["details"];
    assert_eq!((&details["node"], &details["rows"]), (&json!("node-late"), &json!(ROWS)), "told at the first frame");
    let days = details["worst_difference_us"].as_f64().unwrap() / DAY as f64;
    assert!((-3.1..-2.9).contains(&days), "{details}");

    // A kill while events are on their way: what is in the lake of the stream has no hole.
    send_with_a_wrong_clock(&mut sender("node-late-2"), 1);
    ingest.process.kill().unwrap();
    let ingest = start("ingest-2");
    send_with_a_newer_column(&mut newer, 1);
    wait_for_events(&site, &ingest, "columns_unknown", 2);
    site.wait_until_drained(&ingest, &["gpu_sample", "event"], 60).unwrap();
    let streams: std::collections::BTreeSet<_> = events(&site).iter().map(|e| e["stream_id"].to_string()).collect();
    assert!(streams.len() >= 2, "each process has a stream of its own: {streams:?}");
    site.stop_ingest(ingest).unwrap();
    let (code, report) = lake_tool::verify(&site).unwrap();
    assert_eq!((code, &report["answer"]), (0, &json!("complete")), "{report:#}");

    // Six more, of which retention removes the first four while nobody reads.
    let topic = site.topic("gpu_sample");
    let partition = racklake_schemas::identity::partition_of("node-late", PARTITIONS);
    let position = site.broker.end_offsets(&topic).unwrap()[partition as usize];
    (0..6).for_each(|_| late.send().unwrap());
    late.flush().unwrap();
    remove_before(&site, &topic, partition, position + 4);
    let ingest = start("ingest-3");
    let told = wait_for_events(&site, &ingest, "kafka_retention_overtook", 1);
    let wanted = json!({"topic": topic, "partition": partition, "table": "gpu_sample", "offset_first": position,
        "offset_last": position + 3});
    assert_eq!(told[0]["details"], wanted);
    site.stop_ingest(ingest).unwrap();
}
