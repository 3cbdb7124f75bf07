//! A lake in an object store that is busy, and that does what it is asked without saying so: nothing is lost or doubled.

use std::time::Duration;

use racklake_tests::object_store::{Fault, ObjectStore, Shares, Target};
use racklake_tests::sender::Sender;
use racklake_tests::site::{Ingest, PARTITIONS, Site};
use racklake_tests::{lake_tool, python, turn, wait_for};

/// One request of eight is refused, and one write of four is done without an answer that says so.
const FAULTS: Shares = Shares { busy: 12, done_but_busy: 10, unanswered: 10, silent: 5 };
const KINDS: [Fault; 4] = [Fault::Busy, Fault::DoneButBusy, Fault::Unanswered, Fault::Silent];
/// How often each fault must have met a commit of the log.
const MET_MIN: u64 = 5;
/// Beyond a checkpoint, which comes after a hundred commits.
const VERSIONS: u64 = 110;
const NODES: [&str; 5] = ["node-1", "node-2", "node-3", "node-4", "node-5"];

#[test]
fn a_busy_store_that_loses_answers_loses_and_doubles_no_rows() {
    let _turn = turn();
    let seed = std::process::id();
    println!("seed {seed}");
    let site = Site::new("object_store").unwrap();
    let store = ObjectStore::start(&site.folder.join("store"), seed.into(), FAULTS).unwrap();
    // Two that read and commit the same, as after a network was split: lost races and lost answers come together.
    let ingests = ["ingest-1", "ingest-2"].map(|name| start_ingest(&site, &store, name));
    site.wait_for_topic(&ingests[0], "gpu_sample").unwrap();
    let new = |node| Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, node).unwrap();
    let mut senders = NODES.map(new);
    let sent = wait_for("enough commits under faults", 240, || {
        senders.iter_mut().for_each(|sender| sender.send().unwrap());
        std::thread::sleep(Duration::from_millis(20));
        let met = |fault| store.met(fault, Target::Commit) >= MET_MIN;
        let are_met = KINDS.into_iter().all(met);
        (are_met && newest_version(&store) >= VERSIONS).then_some(())
    });
    println!("version {}, faults {}", newest_version(&store), store.all_met());
    sent.unwrap_or_else(|error| panic!("{error}\n{}\n{}", ingests[0].process.tail(), ingests[1].process.tail()));
    senders.iter().for_each(|sender| sender.flush().unwrap());
    wait_until_sent_is_there(&site, &store, &senders);
    ingests.into_iter().for_each(|ingest| site.stop_ingest(ingest).unwrap());
    let (code, report) = lake_tool::verify_at(&site, &store.lake(), &store.options()).unwrap();
    assert_eq!((code, &report["answer"]), (0, &"complete".into()), "{report:#}");
}

fn start_ingest(site: &Site, store: &ObjectStore, name: &str) -> Ingest {
    let option = |(key, value)| format!("{key} = {value:?}\n");
    let options = format!("[lake.options]\n{}", store.options().into_iter().map(option).collect::<String>());
    site.start_ingest_into(name, name, &store.lake(), &options).unwrap()
}

/// Waits until the lake holds exactly what was sent. The group's offsets would not tell: whoever loses the race for a
/// partition moves none.
fn wait_until_sent_is_there(site: &Site, store: &ObjectStore, senders: &[Sender]) {
    let account = site.folder.join("sent.json");
    Sender::write_account(&senders.iter().collect::<Vec<_>>(), &account).unwrap();
    let arguments = [store.lake_on_disk().display().to_string(), account.display().to_string()];
    let check = || python::run("check_sent.py", &[&arguments[0], &arguments[1]]);
    let checked = wait_for("the lake to hold what was sent", 120, || check().ok());
    println!("{}", checked.unwrap_or_else(|error| panic!("{error}: {:?}", check())));
}

/// The version of the newest commit of `gpu_sample`, told without racklake's own code.
fn newest_version(store: &ObjectStore) -> u64 {
    let Ok(entries) = std::fs::read_dir(store.lake_on_disk().join("gpu_sample/_delta_log")) else { return 0 };
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).max().unwrap_or(0)
}
