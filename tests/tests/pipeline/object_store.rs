//! A lake in an object store that is busy, and that does what it is asked without saying so: nothing is lost or doubled.

use std::time::{Duration, Instant};

use racklake_tests::object_store::{Fault, ObjectStore, Shares, Target};
use racklake_tests::sender::Sender;
use racklake_tests::site::{Ingest, PARTITIONS, Site, http_get};
use racklake_tests::{lake_tool, python, turn, wait_for};

/// One request of twenty-five is refused, one answer of a hundred breaks off, and one write of four is done without an answer
/// that says so.
const FAULTS: Shares = Shares { busy: 4, done_but_busy: 10, unanswered: 10, silent: 5, torn: 1 };
const KINDS: [Fault; 4] = [Fault::Busy, Fault::DoneButBusy, Fault::Unanswered, Fault::Silent];
/// How often each fault must have met a commit of the log.
const MET_MIN: u64 = 3;
/// Beyond a checkpoint, which comes after a hundred commits.
const VERSIONS: u64 = 110;
/// A third each: at any moment, before a commit, after one that was not answered.
const KILLS: usize = 6;
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
        let is_torn = store.met(Fault::Torn, Target::Reading) >= MET_MIN;
        (are_met && is_torn && newest_version(&store) >= VERSIONS).then_some(())
    });
    println!("version {}, faults {}", newest_version(&store), store.all_met());
    sent.unwrap_or_else(|error| panic!("{error}\n{}\n{}", ingests[0].process.tail(), ingests[1].process.tail()));
    senders.iter().for_each(|sender| sender.flush().unwrap());
    wait_until_sent_is_there(&site, &store, &senders);
    ingests.into_iter().for_each(|ingest| site.stop_ingest(ingest).unwrap());
    let (code, report) = lake_tool::verify_at(&site, &store.lake(), &store.options()).unwrap();
    assert_eq!((code, &report["answer"]), (0, &"complete".into()), "{report:#}");
}

#[test]
fn kills_of_ingest_on_such_a_store_lose_and_double_no_rows() {
    let _turn = turn();
    let seed = std::process::id();
    println!("seed {seed}");
    let site = Site::new("object_store_kills").unwrap();
    let store = ObjectStore::start(&site.folder.join("store"), seed.into(), FAULTS).unwrap();
    let mut ingest = start_ingest(&site, &store, "ingest");
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let new = |node| Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, node).unwrap();
    let mut senders = NODES.map(new);
    let unknown = || store.met(Fault::Unanswered, Target::Commit) + store.met(Fault::Silent, Target::Commit);
    for kill in 0..KILLS {
        let mut wait = |what: &str, wanted: &dyn Fn() -> bool| {
            let reached = wait_for(what, 90, || {
                senders.iter_mut().for_each(|sender| sender.send().unwrap());
                wanted().then_some(())
            });
            reached.unwrap_or_else(|error| panic!("{error}\n{}", ingest.process.tail()));
        };
        let tells = |from, word| ingest.process.find_line(from, |line| is_about(line, word)).is_some();
        wait("ingest to commit", &|| tells(0, "committed"));
        let (from, before, began) = (ingest.process.line_count(), unknown(), Instant::now());
        match kill % 3 {
            0 => wait("any moment", &|| began.elapsed() > Duration::from_millis(kill as u64 * 83 % 500)),
            1 => wait("files without a commit", &|| tells(from, "written")),
            _ => wait("a commit that ingest does not know of", &|| unknown() > before),
        }
        ingest.process.kill().unwrap();
        ingest = start_ingest(&site, &store, "ingest");
    }
    println!("version {}, faults {}", newest_version(&store), store.all_met());
    senders.iter().for_each(|sender| sender.flush().unwrap());
    wait_until_sent_is_there(&site, &store, &senders);
    site.stop_ingest(ingest).unwrap();
    let (code, report) = lake_tool::verify_at(&site, &store.lake(), &store.options()).unwrap();
    assert_eq!((code, &report["answer"]), (0, &"complete".into()), "{report:#}");
}

#[test]
fn a_store_that_is_away_is_told_and_ingest_ends_in_time_and_goes_on_later() {
    let _turn = turn();
    let site = Site::new("object_store_away").unwrap();
    let store = ObjectStore::start(&site.folder.join("store"), 1, Shares::default()).unwrap();
    let ingest = start_ingest(&site, &store, "ingest");
    site.wait_for_topic(&ingest, "gpu_sample").unwrap();
    let mut sender = Sender::new(&site.broker.client_config(), &site.prefix, PARTITIONS, NODES[0]).unwrap();
    let health = |ingest: &Ingest, wanted| {
        let seen = wait_for(&format!("/healthz to answer {wanted}"), 30, || {
            http_get(&ingest.http, "/healthz").ok().filter(|(status, _)| *status == wanted)
        });
        seen.unwrap_or_else(|error| panic!("{error}\n{}", ingest.process.tail())).1
    };
    let mut send = || {
        (0..50).for_each(|_| sender.send().unwrap());
        sender.flush().unwrap();
    };
    send();
    site.wait_until_drained(&ingest, &["gpu_sample"], 60).unwrap();
    store.set(Shares { busy: 100, ..Shares::default() });
    send();
    let told = health(&ingest, 503);
    assert!(told.contains("s3://racklake/lake/gpu_sample") && told.contains("SlowDown"), "{told}");
    site.stop_ingest(ingest).unwrap();
    let ingest = start_ingest(&site, &store, "ingest");
    health(&ingest, 503);
    store.set(Shares::default());
    health(&ingest, 200);
    send();
    wait_until_sent_is_there(&site, &store, &[sender]);
    site.stop_ingest(ingest).unwrap();
}

/// Whether a line of ingest's log tells of that step of a flush of `gpu_sample`.
fn is_about(line: &str, step: &str) -> bool {
    line.contains("racklake_ingest") && line.contains("gpu_sample") && line.split_whitespace().any(|word| word == step)
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
