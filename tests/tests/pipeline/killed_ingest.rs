//! kill -9 of ingest at random moments: the lake holds exactly the rows sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use racklake_tests::sender::Sender;
use racklake_tests::site::{Ingest, PARTITIONS, Site};
use racklake_tests::{turn, wait_for};

/// Kills asked for; more follow until each state of `WANTED` has been hit.
const KILLS: usize = 20;
const KILLS_MAX: usize = 80;
const WANTED: [&str; 2] = ["between file and commit", "between commit and group offset"];

#[test]
fn kills_of_ingest_lose_and_double_nothing() {
    let _turn = turn();
    let site = Site::new("killed_ingest").unwrap();
    let mut ingest = site.start_ingest("ingest", "killed-ingest").unwrap();
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let nodes = ["node-1", "node-2", "node-3", "node-4", "node-5"];
    let new = |node: &&str| Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, node).unwrap();
    let senders = Arc::new(Mutex::new(nodes.iter().map(new).collect::<Vec<_>>()));
    let stop = Arc::new(AtomicBool::new(false));
    let sending = {
        let (senders, stop) = (Arc::clone(&senders), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                senders.lock().unwrap().iter_mut().for_each(|sender| sender.send().unwrap());
                std::thread::sleep(Duration::from_millis(10));
            }
        })
    };

    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    let mut kills = 0;
    while kills < KILLS || (kills < KILLS_MAX && WANTED.iter().any(|state| !states.contains_key(state))) {
        wait_for_progress(&ingest);
        aim(&ingest, kills);
        ingest.process.kill().unwrap();
        *states.entry(state_at_death(&site, &ingest)).or_default() += 1;
        kills += 1;
        ingest = site.start_ingest("ingest", "killed-ingest").unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    sending.join().unwrap();
    println!("{kills} kills: {states:?}");
    for state in WANTED {
        assert!(states.contains_key(state), "no kill fell {state}: {states:?}");
    }

    let senders = senders.lock().unwrap();
    senders.iter().for_each(|sender| sender.flush().unwrap());
    site.wait_until_drained(&ingest, &["gpu_sample"], 120).unwrap();
    site.stop_ingest(ingest).unwrap();
    let account = site.folder.join("sent.json");
    Sender::write_account(&senders.iter().collect::<Vec<_>>(), &account).unwrap();
    println!("{}", site.check_sent(&account).unwrap());
    let (code, report) = racklake_tests::lake_tool::verify(&site).unwrap();
    assert_eq!((code, &report["answer"]), (0, &"complete".into()), "{report:#}");
}

/// The next kill only after ingest has committed something.
fn wait_for_progress(ingest: &Ingest) {
    let committed =
        wait_for("ingest to commit", 60, || ingest.process.find_line(0, |line| state_of(line) == Some(COMMITTED)));
    committed.unwrap_or_else(|error| panic!("{error}\n{}", ingest.process.tail()));
}

/// Waits for the moment of the kill: any moment, right after a file is written, right after a commit, by turns.
fn aim(ingest: &Ingest, kill: usize) {
    let from = ingest.process.line_count();
    let wanted = match kill % 3 {
        0 => return std::thread::sleep(Duration::from_millis(kill as u64 * 37 % 400)),
        1 => WRITTEN,
        _ => COMMITTED,
    };
    let start = std::time::Instant::now();
    while ingest.process.find_line(from, |line| state_of(line) == Some(wanted)).is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "no flush in 20 s\n{}", ingest.process.tail());
        std::thread::sleep(Duration::from_micros(50));
    }
}

const WRITTEN: &str = "written";
const COMMITTED: &str = "committed";
const ACKNOWLEDGED: &str = "acknowledged";

/// The state of the straight path that a log line of the table tells.
fn state_of(line: &str) -> Option<&'static str> {
    let about_table = line.contains("gpu_sample");
    [WRITTEN, COMMITTED, ACKNOWLEDGED]
        .into_iter()
        .find(|state| about_table && line.split_whitespace().any(|w| w == *state))
}

/// Where the kill fell, by the last line of the log and by what the Delta log holds.
fn state_at_death(site: &Site, ingest: &Ingest) -> &'static str {
    let Some(last) = ingest.process.last_line(|line| state_of(line).is_some()) else { return "before the first flush" };
    let committed = ingest.process.last_line(|line| state_of(line) == Some(COMMITTED));
    let told = committed.and_then(|line| version_in(&line)).unwrap_or(0);
    match (state_of(&last), newest_version(site) > told) {
        (Some(WRITTEN), false) => WANTED[0],
        (Some(WRITTEN), true) | (Some(COMMITTED), _) => WANTED[1],
        _ => "consuming",
    }
}

fn version_in(line: &str) -> Option<u64> {
    line.split("version=").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The version of the newest commit on disk, told without racklake's own code.
fn newest_version(site: &Site) -> u64 {
    let entries = std::fs::read_dir(site.lake().join("gpu_sample/_delta_log")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).max().unwrap_or(0)
}
