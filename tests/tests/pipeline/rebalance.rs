//! Several ingests in one group, started, stopped, killed and made zombies while senders send: partitions change hands, commits
//! conflict, and the lake holds exactly the rows sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use racklake_schemas::identity::partition_of;
use racklake_tests::sender::Sender;
use racklake_tests::site::{Ingest, PARTITIONS, Site, http_get};
use racklake_tests::{lake_tool, turn, wait_for};

const GROUP: &str = "rebalance";
const NODES: [&str; 8] = ["node-1", "node-2", "node-3", "node-4", "node-5", "node-6", "node-7", "node-8"];
/// Longer than the group waits for a member that says nothing, by enough for the others to take over and commit.
const ZOMBIE: Duration = Duration::from_secs(11);
const ZOMBIES: usize = 2;
const ZOMBIES_MAX: usize = 6;

/// The ingests that run, and what the ones that do not have said.
struct Group<'s> {
    site: &'s Site,
    members: Vec<Ingest>,
    started: usize,
    conflicts: usize,
    discards: usize,
}

impl Group<'_> {
    fn start(&mut self) {
        self.started += 1;
        let (name, lake) = (format!("ingest-{}", self.started), self.site.lake().display().to_string());
        // One topic, or the group could give all partitions that have frames to one member.
        let one_topic = "tables = [\"gpu_sample\"]\n";
        let member = self.site.start_ingest_with(&name, GROUP, &lake, [one_topic, ""]).unwrap();
        self.members.push(member);
    }

    /// Waits until the newest member has committed rows: the group has given it partitions.
    fn wait_for_newest(&self) {
        let newest = self.members.last().unwrap();
        wait_for_line(newest, 0, is_commit);
    }

    /// Takes a member out of the group's list, with what it has said.
    fn leave(&mut self, member: usize) -> Ingest {
        let member = self.members.remove(member);
        self.conflicts += count(&member, is_conflict);
        self.discards += count(&member, is_discard);
        member
    }

    fn kill(&mut self, member: usize) {
        self.members[member].process.kill().unwrap();
        self.leave(member);
    }

    fn stop(&mut self, member: usize) {
        let stopped = self.members[member].process.terminate(60).unwrap();
        assert!(stopped.success(), "{stopped}\n{}", self.members[member].process.tail());
        self.leave(member);
    }

    /// Stops a member's clock with a flush in its hands until others have its partitions, then lets it go on.
    fn make_a_zombie(&self, member: usize) {
        let of = &self.members[member];
        wait_for_line(of, of.process.line_count(), |line| is_about_rows(line, "writing"));
        of.process.signal("STOP").unwrap();
        std::thread::sleep(ZOMBIE);
        let woken = of.process.line_count();
        of.process.signal("CONT").unwrap();
        // It has found out, and works again.
        wait_for_line(of, woken, |line| line.contains(" revoked ") || is_discard(line));
        wait_for_line(of, woken, is_commit);
    }

    /// Partitions, by topic and number, and how many of the members have them.
    fn owners(&self) -> BTreeMap<(String, i32), usize> {
        let mut owners = BTreeMap::new();
        for member in &self.members {
            let metrics = http_get(&member.http, "/metrics").map(|(_, text)| text).unwrap_or_default();
            let owned: BTreeSet<_> = metrics.lines().filter_map(partition_of_line).collect();
            owned.into_iter().for_each(|partition| *owners.entry(partition).or_default() += 1);
        }
        owners
    }
}

fn wait_for_line(of: &Ingest, from: usize, wanted: impl Fn(&str) -> bool) {
    let found = wait_for("ingest to say so", 90, || of.process.find_line(from, &wanted));
    found.unwrap_or_else(|error| panic!("{error}\n{}", of.process.tail()));
}

fn count(of: &Ingest, wanted: impl Fn(&str) -> bool) -> usize {
    let mut count = 0;
    of.process.for_each_line(0, |line| count += usize::from(wanted(line)));
    count
}

fn is_about_rows(line: &str, word: &str) -> bool {
    line.contains("gpu_sample") && line.split_whitespace().any(|w| w == word)
}

fn is_commit(line: &str) -> bool {
    line.contains(" INFO ") && is_about_rows(line, "committed") && line.contains("took=")
}

fn is_conflict(line: &str) -> bool {
    line.contains("another writer was quicker")
}

fn is_discard(line: &str) -> bool {
    line.contains("others have committed these partitions")
}

/// `racklake_ingest_lag_records{topic="t",partition="3"} 0`: only a partition that is being read has a lag.
fn partition_of_line(line: &str) -> Option<(String, i32)> {
    let labels = line.strip_prefix("racklake_ingest_lag_records{topic=\"")?;
    let (topic, rest) = labels.split_once("\",partition=\"")?;
    Some((topic.to_owned(), rest.split_once('"')?.0.parse().ok()?))
}

#[test]
fn partitions_that_change_hands_lose_and_double_nothing() {
    let _turn = turn();
    let site = Site::new("rebalance").unwrap();
    let covered: BTreeSet<i32> = NODES.iter().map(|node| partition_of(node, PARTITIONS)).collect();
    assert_eq!(covered.len(), PARTITIONS as usize, "every partition has frames");
    let mut group = Group { site: &site, members: Vec::new(), started: 0, conflicts: 0, discards: 0 };
    group.start();
    site.wait_for_topic(&group.members[0], "gpu_sample").unwrap();
    let new = |node: &&str| Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, node).unwrap();
    let senders = Arc::new(Mutex::new(NODES.iter().map(new).collect::<Vec<_>>()));
    let stop = Arc::new(AtomicBool::new(false));
    let sending = {
        let (senders, stop) = (Arc::clone(&senders), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                senders.lock().unwrap().iter_mut().for_each(|sender| sender.send().unwrap());
                std::thread::sleep(Duration::from_millis(40));
            }
        })
    };
    group.wait_for_newest();
    group.start();
    group.wait_for_newest();
    // Three of them; one is killed, one stopped in order, and others come for them.
    group.start();
    group.wait_for_newest();
    group.kill(0);
    group.start();
    group.wait_for_newest();
    group.stop(0);
    group.start();
    group.wait_for_newest();

    let mut zombies = 0;
    let discards =
        |group: &Group<'_>| group.discards + group.members.iter().map(|of| count(of, is_discard)).sum::<usize>();
    while zombies < ZOMBIES || (discards(&group) == 0 && zombies < ZOMBIES_MAX) {
        group.make_a_zombie(zombies % group.members.len());
        zombies += 1;
    }
    stop.store(true, Ordering::Relaxed);
    sending.join().unwrap();
    let senders = senders.lock().unwrap();
    senders.iter().for_each(|sender| sender.flush().unwrap());
    site.wait_until_drained(&group.members[0], &["gpu_sample"], 120).unwrap();

    let all: BTreeMap<_, _> = (0..PARTITIONS).map(|number| ((site.topic("gpu_sample"), number), 1)).collect();
    let owned = wait_for("every partition to be read by one member", 60, || (group.owners() == all).then_some(()));
    owned.unwrap_or_else(|error| panic!("{error}: {:?}", group.owners()));
    while !group.members.is_empty() {
        group.stop(0);
    }
    println!(
        "{} ingests, {zombies} zombies: {} commits conflicted, {} flushes discarded",
        group.started, group.conflicts, group.discards
    );
    assert!(group.conflicts > 0, "no commit conflicted: the case was not met");
    assert!(group.discards > 0, "no zombie came back with a flush: the case was not met");
    let account = site.folder.join("sent.json");
    Sender::write_account(&senders.iter().collect::<Vec<_>>(), &account).unwrap();
    println!("{}", site.check_sent(&account).unwrap());
    let (code, report) = lake_tool::verify(&site).unwrap();
    assert_eq!((code, &report["answer"]), (0, &"complete".into()), "{report:#}");
}
