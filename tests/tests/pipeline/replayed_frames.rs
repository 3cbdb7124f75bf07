//! Frames that come twice and thrice and in any order, as a collector that replays its spool sends them, across kills of
//! ingest and a topic that is made anew: every row is in the lake once.

use racklake_schemas::clock::{Clock, DAY};
use racklake_tests::sender::{ROWS, Sender};
use racklake_tests::site::{Ingest, PARTITIONS, Site, http_get};
use racklake_tests::{turn, wait_for};

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const GROUP: &str = "replayed-frames";

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// New frames of every sender, each twice, in any order, with `replays` old ones among them.
fn send_twice(senders: &mut [Sender], dice: &mut Dice, frames: usize, replays: usize) {
    let mut due = Vec::new();
    for (of, sender) in senders.iter_mut().enumerate() {
        for _ in 0..frames {
            let seq = sender.prepare().unwrap();
            due.extend([(of, seq), (of, seq)]);
        }
        due.extend((0..replays).map(|_| (of, 1 + dice.below(sender.last_seq() as usize) as i64)));
    }
    send(senders, dice, due);
}

/// Every frame there has been, once more.
fn replay_all(senders: &[Sender], dice: &mut Dice) {
    let all = senders.iter().enumerate().flat_map(|(of, sender)| (1..=sender.last_seq()).map(move |seq| (of, seq)));
    send(senders, dice, all.collect());
}

fn send(senders: &[Sender], dice: &mut Dice, mut due: Vec<(usize, i64)>) {
    dice.shuffle(&mut due);
    due.iter().for_each(|(of, seq)| senders[*of].resend(*seq).unwrap());
    senders.iter().for_each(|sender| sender.flush().unwrap());
}

/// One more frame of each sender comes after all that it has sent, so when that is in the lake all has been read.
fn wait_until_read(site: &Site, ingest: &Ingest, senders: &mut [Sender]) {
    for sender in senders.iter_mut() {
        sender.send().unwrap();
        sender.flush().unwrap();
    }
    let account = site.folder.join("sent.json");
    Sender::write_account(&senders.iter().collect::<Vec<_>>(), &account).unwrap();
    let read = wait_for("all rows, each once", 90, || site.check_sent(&account).ok());
    match read {
        Ok(said) => println!("{said}"),
        Err(error) => panic!("{error}: {:?}\n{}", site.check_sent(&account), ingest.process.tail()),
    }
}

fn duplicates(ingest: &Ingest) -> u64 {
    let metrics = http_get(&ingest.http, "/metrics").unwrap().1;
    let counts = metrics.lines().filter(|line| line.starts_with("racklake_ingest_duplicate_frames_total"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn frames_sent_again_in_any_order_are_stored_once_across_kills_and_a_recreated_topic() {
    let _turn = turn();
    let site = Site::new("replayed_frames").unwrap();
    let mut dice = Dice(7);
    let mut ingest = site.start_ingest("ingest", GROUP).unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let new = |node: &&str| Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, node).unwrap();
    let mut senders: Vec<Sender> = NODES.iter().map(new).collect();

    for kill in 0..4_u64 {
        let committed = ingest.process.line_count();
        for _ in 0..5 {
            send_twice(&mut senders, &mut dice, 8, 6);
            std::thread::sleep(std::time::Duration::from_millis(70 + kill * 31));
        }
        let progress = || ingest.process.find_line(committed, |line| line.contains("committed"));
        wait_for("ingest to commit", 60, progress).unwrap();
        ingest.process.kill().unwrap();
        ingest = site.start_ingest("ingest", GROUP).unwrap();
    }
    replay_all(&senders, &mut dice);
    wait_until_read(&site, &ingest, &mut senders);
    assert!(duplicates(&ingest) > 0, "replays are counted");

    // What the old topic still had unread is lost with it; the collector's spool has it.
    send_twice(&mut senders, &mut dice, 8, 0);
    site.broker.delete_topic(&site.topic("gpu_sample")).unwrap();
    site.broker.create_topic(&site.topic("gpu_sample"), PARTITIONS).unwrap();
    senders.iter_mut().for_each(|sender| sender.restart(&site.broker.client_config()).unwrap());
    replay_all(&senders, &mut dice);
    replay_all(&senders, &mut dice);
    wait_until_read(&site, &ingest, &mut senders);
    ingest.process.kill().unwrap();
    let ingest = site.start_ingest("ingest", GROUP).unwrap();
    replay_all(&senders, &mut dice);
    wait_until_read(&site, &ingest, &mut senders);
    let frames: i64 = senders.iter().map(Sender::last_seq).sum();
    assert!(duplicates(&ingest) >= frames as u64 - senders.len() as u64, "the last replay was all of duplicates");
    site.stop_ingest(ingest).unwrap();
}

/// Rows of the table by the date of their directory, told by the log.
fn rows_by_date(site: &Site) -> std::collections::BTreeMap<String, u64> {
    let mut rows = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(site.lake().join("gpu_sample/_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let action: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(date) = action["add"]["partitionValues"]["dt"].as_str() else { continue };
            let stats: serde_json::Value = serde_json::from_str(action["add"]["stats"].as_str().unwrap()).unwrap();
            *rows.entry(date.to_owned()).or_default() += stats["numRecords"].as_u64().unwrap();
        }
    }
    rows
}

/// A day, as directories are named by it.
fn date(us: i64) -> String {
    let output = std::process::Command::new("date").args(["-u", "+%F", "-d", &format!("@{}", us / 1_000_000)]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn rows_that_waited_in_a_spool_go_to_the_day_of_their_reading_and_rows_of_a_wrong_clock_to_that_of_their_arrival() {
    let _turn = turn();
    let site = Site::new("old_frames").unwrap();
    let ingest = site.start_ingest("ingest", "old-frames").unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let mut sender = Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, "node-1").unwrap();
    let now = Clock::now_us();
    for _ in 0..3 {
        let fresh = sender.prepare_at(now).unwrap();
        sender.resend(fresh).unwrap();
        let waited = sender.prepare_at(now - 3 * DAY).unwrap();
        sender.replay(waited).unwrap();
        let of_a_wrong_clock = sender.prepare_at(now - 3 * DAY).unwrap();
        sender.resend(of_a_wrong_clock).unwrap();
    }
    sender.flush().unwrap();
    site.wait_until_drained(&ingest, &["gpu_sample"], 60).unwrap();
    site.stop_ingest(ingest).unwrap();
    let frames = |frames: u64| frames * ROWS as u64;
    assert_eq!(rows_by_date(&site), [(date(now - 3 * DAY), frames(3)), (date(now), frames(6))].into());
    let account = site.folder.join("sent.json");
    Sender::write_account(&[&sender], &account).unwrap();
    println!("{}", site.check_sent(&account).unwrap());
}
