//! A topic is deleted and made anew, or the consumer group gets another name: 0 rows lost, 0 doubled.

use racklake_tests::sender::Sender;
use racklake_tests::site::{PARTITIONS, Site};
use racklake_tests::turn;

fn sender(site: &Site, node: &str) -> Sender {
    Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, node).unwrap()
}

fn send(sender: &mut Sender, frames: usize) {
    for _ in 0..frames {
        sender.send().unwrap();
    }
    sender.flush().unwrap();
}

fn check(site: &Site, senders: &[&Sender]) {
    let account = site.folder.join("sent.json");
    Sender::write_account(senders, &account).unwrap();
    println!("{}", site.check_sent(&account).unwrap());
}

/// `before` frames, then the topic is made anew with `after` frames while ingest is stopped, then ingest reads it.
fn recreate_while_stopped(name: &str, before: usize, after: usize) {
    let _turn = turn();
    let site = Site::new(name).unwrap();
    let ingest = site.start_ingest("ingest-1", name).unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let mut first = sender(&site, "node-1");
    send(&mut first, before);
    site.wait_until_drained(&ingest, &["gpu_sample"], 60).unwrap();
    site.stop_ingest(ingest).unwrap();

    site.broker.delete_topic(&site.topic("gpu_sample")).unwrap();
    site.broker.create_topic(&site.topic("gpu_sample"), PARTITIONS).unwrap();
    let mut second = sender(&site, "node-1");
    send(&mut second, after);
    let ingest = site.start_ingest("ingest-2", name).unwrap();
    site.wait_until_drained(&ingest, &["gpu_sample"], 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    check(&site, &[&first, &second]);
}

#[test]
fn a_recreated_topic_shorter_than_the_position_is_read_from_its_beginning() {
    recreate_while_stopped("recreated_shorter", 60, 10);
}

#[test]
fn a_recreated_topic_longer_than_the_position_is_read_from_its_beginning() {
    recreate_while_stopped("recreated_longer", 10, 60);
}

#[test]
fn a_topic_recreated_under_a_running_ingest_is_read_from_its_beginning() {
    let _turn = turn();
    let site = Site::new("recreated_running").unwrap();
    let ingest = site.start_ingest("ingest", "running").unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let mut sent = vec![sender(&site, "node-1")];
    send(&mut sent[0], 20);
    for after in [5, 50] {
        site.wait_until_drained(&ingest, &["gpu_sample"], 90).unwrap();
        site.broker.delete_topic(&site.topic("gpu_sample")).unwrap();
        site.broker.create_topic(&site.topic("gpu_sample"), PARTITIONS).unwrap();
        let mut next = sender(&site, "node-1");
        send(&mut next, after);
        sent.push(next);
        // The group's offset of the old topic may already lie above the new end, so the lake itself is waited for.
        let account = site.folder.join("sent.json");
        Sender::write_account(&sent.iter().collect::<Vec<_>>(), &account).unwrap();
        racklake_tests::wait_for("the rows of the new topic", 90, || site.check_sent(&account).ok()).unwrap();
    }
    site.stop_ingest(ingest).unwrap();
    check(&site, &sent.iter().collect::<Vec<_>>());
}

#[test]
fn a_renamed_group_reads_nothing_again() {
    let _turn = turn();
    let site = Site::new("renamed_group").unwrap();
    let ingest = site.start_ingest("ingest-1", "old-name").unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let mut sender = sender(&site, "node-1");
    send(&mut sender, 30);
    site.wait_until_drained(&ingest, &["gpu_sample"], 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    send(&mut sender, 5);
    let ingest = site.start_ingest("ingest-2", "new-name").unwrap();
    site.wait_until_drained(&ingest, &["gpu_sample"], 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    check(&site, &[&sender]);
}
