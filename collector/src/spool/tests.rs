//! What the spool gives back after an end, a kill and damage. A kill is a copy of the folder taken while it is in use:
//! what a dead process leaves behind.

use std::collections::BTreeSet;
use std::time::Duration;

use racklake_schemas::Row;
use racklake_schemas::tables::{GPU_HEALTH, GPU_SAMPLE, coverage, event, gpu_health, gpu_sample};
use tempfile::TempDir;

use super::*;
use crate::config::{FramesConfig, SpoolConfig};
use crate::event::own;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::outlet::Outlet;
use crate::place::{DeviceLabels, Place};
use crate::source::EventDraft;
use crate::testing::{Account as Sent, gpu_row, place, place_of};

const MINUTE: i64 = 60_000_000;

/// The part of a collector that has to do with its spool, without the thread.
struct Collector {
    folder: PathBuf,
    store: Arc<Store>,
    outlet: Outlet,
}

impl Collector {
    fn start(state_dir: &TempDir) -> Collector {
        Collector::start_with(
            state_dir,
            FramesConfig { rows_max: 3, ..FramesConfig::default() },
            SpoolConfig::default(),
        )
    }

    fn start_with(state_dir: &TempDir, frames: FramesConfig, config: SpoolConfig) -> Collector {
        Collector::start_for(state_dir, frames, config, &place().route)
    }

    fn start_for(state_dir: &TempDir, frames: FramesConfig, config: SpoolConfig, route: &Arc<Route>) -> Collector {
        Collector::start_on("boot-1", state_dir, frames, config, route)
    }

    fn start_on(
        boot_id: &str,
        state_dir: &TempDir,
        frames: FramesConfig,
        config: SpoolConfig,
        route: &Arc<Route>,
    ) -> Collector {
        let spool = Spool::open_on(state_dir.path(), "n1", ("host-1", boot_id), route).unwrap();
        let (folder, store) = (spool.folder.clone(), Arc::clone(&spool.store));
        let place = Place { route: Arc::clone(route), ..place_of(&spool.account.stream_id) };
        let limits = (&frames, &config);
        let (bell, metrics, health) = (Arc::default(), Arc::new(Metrics::new()), Arc::new(Health::default()));
        Collector { folder, store, outlet: Outlet::with_spool(place, limits, spool, bell, metrics, health) }
    }

    fn read(&self, ts: i64) {
        self.outlet.begun(&GPU_SAMPLE, ts, "address");
        self.outlet.rows(vec![gpu_row("a", ts)], ts, "address", false);
    }

    /// What the writer does.
    fn write(&self, end: bool) {
        let Some(batch) = self.outlet.cut(end, Duration::from_secs(1)).unwrap() else { return };
        self.store.commit(&batch).unwrap();
        self.outlet.written();
        journal::remove_before(&self.folder, batch.account.journal).unwrap();
    }

    /// The state folder as a kill at this moment leaves it.
    fn killed(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join(FOLDER)).unwrap();
        let entries = std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap());
        // A link stands for a file that takes nothing.
        for entry in entries.filter(|entry| entry.file_type().unwrap().is_file()) {
            std::fs::copy(entry.path(), copy.path().join(FOLDER).join(entry.file_name())).unwrap();
        }
        copy
    }

    /// Everything that is there, sent.
    fn sent(&self) -> Sent {
        self.outlet.tell_everything();
        self.write(false);
        Sent::of(&self.outlet)
    }

    fn stream(&self) -> String {
        self.outlet.place.stream_id.clone()
    }
}

fn times(sent: &Sent) -> Vec<i64> {
    let mut times: Vec<i64> = sent.ints("gpu_sample", gpu_sample::TS).into_iter().map(Option::unwrap).collect();
    times.sort_unstable();
    times
}

#[test]
fn the_next_start_goes_on_with_the_stream_and_sends_what_was_not_acknowledged() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    (1..=3).for_each(|ts| first.read(ts));
    assert_eq!(first.sent().seqs("gpu_sample"), [1].into());
    (4..=5).for_each(|ts| first.read(ts));
    first.outlet.tell_everything();
    first.write(true);
    let stream = first.stream();
    drop(first);
    let second = Collector::start(&state_dir);
    assert_eq!(second.stream(), stream);
    (6..=8).for_each(|ts| second.read(ts));
    let sent = second.sent();
    assert_eq!((sent.seqs("gpu_sample"), times(&sent)), ([2, 3].into(), vec![4, 5, 6, 7, 8]));
    assert!(sent.texts("event", event::EVENT).is_empty());
    // What the first start left has waited, and is told so once it is acknowledged.
    assert_eq!((sent.coverage("gpu_sample").spooled, second.sent().coverage("gpu_sample").spooled), (0, 2));
}

#[test]
fn the_place_in_the_kernel_log_outlives_a_kill_together_with_the_row_from_it() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    let tell = |seq: i64| {
        let details = Some(format!("{{\"boot_id\":\"b\",\"seq\":{seq}}}"));
        let draft = EventDraft { details_json: details, ..EventDraft::new("xid", "kmsg", "error", "an XID") };
        first.outlet.event(draft, None);
    };
    let place = |left: &TempDir| Collector::start(left).outlet.kernel_log_position().map(|position| position.seq);
    assert_eq!(place(&first.killed()), None);
    tell(7);
    assert_eq!(place(&first.killed()), Some(7));
    first.write(false);
    assert_eq!(place(&first.killed()), Some(7));
    tell(9);
    assert_eq!(place(&first.killed()), Some(9));
}

#[test]
fn a_kill_costs_the_read_in_flight_and_nothing_else() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    (1..=3).for_each(|ts| first.read(ts));
    first.outlet.skipped(&GPU_SAMPLE, 4, 2, "tick_skipped");
    first.outlet.event(own("collector_start", "info", "started"), None);
    first.write(false);
    (5..=6).for_each(|ts| first.read(ts));
    first.outlet.begun(&GPU_SAMPLE, MINUTE, "address");
    let left = first.killed();
    let second = Collector::start(&left);
    assert_eq!(second.stream(), first.stream());
    let sent = second.sent();
    assert_eq!((sent.seqs("gpu_sample"), times(&sent)), ([1, 2].into(), vec![1, 2, 3, 5, 6]));
    let sums = sent.coverage("gpu_sample");
    assert_eq!((sums.expected, sums.collected, sums.dropped, sums.lost_in_flight), (8, 5, 2, 1));
    assert_eq!(sent.texts("event", event::EVENT), ["collector_start", "collector_killed"]);
    let ids: BTreeSet<String> = sent.texts("event", event::EVENT_ID).into_iter().collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_kill_while_the_disk_is_full_loses_nothing_that_is_not_counted() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    // The journal to which it goes on is on a device that is always full.
    std::os::unix::fs::symlink("/dev/full", first.folder.join("journal-2")).unwrap();
    first.outlet.cut(true, Duration::ZERO).unwrap();
    (1..=2).for_each(|ts| first.read(ts));
    first.outlet.skipped(&GPU_SAMPLE, 3, 2, "tick_skipped");
    first.outlet.begun(&GPU_SAMPLE, MINUTE, "address");
    let sent = Collector::start(&first.killed()).sent();
    let sums = sent.coverage("gpu_sample");
    assert_eq!((sums.expected, sums.collected, sums.dropped, sums.lost_in_flight), (5, 0, 5, 0));
    let reasons = sent.texts("coverage", coverage::DROP_REASONS_JSON);
    assert!(reasons.iter().any(|reasons| reasons.contains("spool_not_written")), "{reasons:?}");
    let details: serde_json::Value = serde_json::from_str(&sent.texts("event", event::DETAILS_JSON)[0]).unwrap();
    assert_eq!(details["rows_unwritten"]["gpu_sample"], 5);
    // The next journal is on a disk that has room.
    first.write(false);
    let sent = Collector::start(&first.killed()).sent();
    let sums = sent.coverage("gpu_sample");
    assert_eq!((sums.expected, sums.collected, sums.dropped, sums.lost_in_flight), (5, 2, 2, 1));
    assert_eq!(times(&sent), [1, 2]);
}

#[test]
fn a_host_that_goes_down_has_lost_at_most_what_was_due_since_its_disk_was_last_waited_for() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    let next = Clock::now_us() + 100_000;
    first.outlet.scheduled(&GPU_SAMPLE, "address", next, Duration::from_millis(300));
    first.outlet.event(own("collector_start", "info", "started"), None);
    first.write(false); // for a second, in which four reads are due
    first.outlet.begun(&GPU_SAMPLE, next, "address");
    first.outlet.rows(vec![gpu_row("a", next)], next, "address", false);
    first.outlet.skipped(&GPU_SAMPLE, next + 300_000, 1, "tick_skipped");
    let lost = |boot_id| {
        let (frames, config) = (FramesConfig::default(), SpoolConfig::default());
        let sent = Collector::start_on(boot_id, &first.killed(), frames, config, &place().route).sent();
        let sums = sent.coverage("gpu_sample");
        assert_eq!(sums.expected, sums.collected + sums.dropped + sums.lost_in_flight);
        let details = sent.texts("event", event::DETAILS_JSON).into_iter().find(|text| text.contains("ticks")).unwrap();
        let details: serde_json::Value = serde_json::from_str(&details).unwrap();
        (sums.lost_in_flight, details["lost_at_most"]["gpu_sample"].as_i64())
    };
    assert_eq!((lost("boot-1"), lost("boot-2")), ((0, None), (2, Some(2))));
}

#[test]
fn an_episode_that_a_restart_cuts_off_is_closed_once() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    let device = DeviceLabels { device_id: "GPU-1".to_owned(), session_id: 7, rack: None };
    let tell = |of: &Collector, name, phase, episode: &str| {
        let (phase, episode_id) = (Some(phase), Some(episode.to_owned()));
        of.outlet.event(EventDraft { phase, episode_id, ..own(name, "critical", "told") }, Some(&device));
    };
    let episodes: Vec<String> = (0..3).map(|_| first.outlet.episode()).collect();
    tell(&first, "device_lost", "start", &episodes[0]);
    tell(&first, "device_lost", "start", &episodes[1]);
    first.write(false);
    tell(&first, "device_returned", "end", &episodes[1]);
    tell(&first, "source_failed", "start", &episodes[2]); // in the journal alone
    let left = first.killed();
    let second = Collector::start(&left);
    let left = second.killed();
    let third = Collector::start(&left);
    let sent = third.sent();
    let rows = |column| sent.texts("event", column);
    let told = rows(event::EVENT).into_iter().zip(rows(event::PHASE)).zip(rows(event::EPISODE_ID));
    let closed: Vec<_> = told
        .zip(rows(event::DETAILS_JSON).into_iter().zip(rows(event::DEVICE_ID)))
        .filter(|(_, (details, _))| details.contains("collector_restart"))
        .map(|(((name, phase), episode), (_, device_id))| (name, phase, episode, device_id))
        .collect();
    let of = |name: &str, i: usize| (name.to_owned(), "end".to_owned(), episodes[i].clone(), "GPU-1".to_owned());
    assert_eq!(closed, [of("device_lost", 0), of("source_failed", 2)]);
    assert_ne!(third.outlet.episode(), episodes[2]);
}

#[test]
fn a_kill_within_a_transaction_doubles_nothing() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    let close_a_frame = || first.outlet.event(own("collector_start", "info", "started"), None);
    first.read(1);
    close_a_frame();
    first.write(false);
    first.read(2);
    close_a_frame();
    let batch = first.outlet.cut(false, Duration::ZERO).unwrap().unwrap();
    first.read(3); // closes the frame
    first.read(4);
    first.outlet.tell_coverage(None);
    let before = Collector::start(&first.killed()).sent();
    first.store.commit(&batch).unwrap();
    let after = Collector::start(&first.killed()).sent();
    for sent in [before, after] {
        assert_eq!(times(&sent), [1, 2, 3, 4]);
        assert_eq!(sent.coverage("gpu_sample").expected, 4);
        assert_eq!(sent.seqs("gpu_sample"), (1..=sent.seqs("gpu_sample").len() as i64).collect());
    }
}

#[test]
fn a_kill_at_a_restart_does_not_double_what_it_recovers() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    (1..=2).for_each(|ts| first.read(ts));
    let left = first.killed();
    let second = Collector::start(&left);
    second.read(3);
    let sent = Collector::start(&second.killed()).sent();
    assert_eq!((times(&sent), sent.coverage("gpu_sample").collected), (vec![1, 2, 3], 3));
}

#[test]
fn what_a_full_spool_drops_is_counted_and_named_even_after_a_kill() {
    let state_dir = tempfile::tempdir().unwrap();
    let frames = FramesConfig { rows_max: 20, bytes_max: 4096, ..FramesConfig::default() };
    let config = SpoolConfig { bytes_max: 40_000, ..SpoolConfig::default() };
    let first = Collector::start_with(&state_dir, frames.clone(), config.clone());
    for ts in 1..=1000 {
        first.outlet.rows(vec![gpu_row(&format!("{ts:0>100}"), ts)], ts, "address", false);
        if ts % 50 == 0 {
            first.write(false);
        }
    }
    let sent = Collector::start_with(&first.killed(), frames, config).sent();
    let kept = sent.rows("gpu_sample") as i64;
    assert!(kept > 0 && kept < 1000, "{kept}");
    let sums = sent.coverage("gpu_sample");
    assert_eq!((sums.expected, sums.collected, sums.dropped), (1000, kept, 1000 - kept));
    let dropped = sent.texts("event", event::DETAILS_JSON).into_iter().filter_map(|details| {
        let details: serde_json::Value = serde_json::from_str(&details).unwrap();
        Some((details.get("seq_first")?.as_i64()?, details["seq_last"].as_i64()?))
    });
    let named: BTreeSet<i64> = dropped.flat_map(|(first, last)| first..=last).collect();
    let seqs = sent.seqs("gpu_sample");
    let last = *seqs.last().unwrap();
    assert_eq!(named, (1..=last).filter(|seq| !seqs.contains(seq)).collect());
}

#[test]
fn what_was_dropped_or_delivered_and_told_before_a_kill_is_not_told_or_sent_again() {
    let state_dir = tempfile::tempdir().unwrap();
    let frames = FramesConfig { rows_max: 20, bytes_max: 4096, ..FramesConfig::default() };
    let config = SpoolConfig { bytes_max: 40_000, ..SpoolConfig::default() };
    let first = Collector::start_with(&state_dir, frames.clone(), config.clone());
    let read = |from: i64, to: i64| {
        for ts in from..=to {
            first.outlet.rows(vec![gpu_row(&format!("{ts:0>100}"), ts)], ts, "address", false);
        }
    };
    read(1, 100);
    first.write(false);
    let queued = first.outlet.take(|_| true, usize::MAX).unwrap();
    let delivered = queued.frame.rows as i64;
    first.outlet.put_back(queued);
    first.outlet.published(&first.outlet.take(|_| true, usize::MAX).unwrap());
    read(101, 1000);
    first.outlet.tell_everything();
    // No transaction since: the store still has the frame that was delivered, and those that were dropped.
    let left = first.killed();
    let second = Collector::start_with(&left, frames.clone(), config.clone());
    let left = second.killed();
    let third = Collector::start_with(&left, frames, config);
    let sent = third.sent();
    let (kept, sums) = (sent.rows("gpu_sample") as i64, sent.coverage("gpu_sample"));
    assert_eq!((sums.expected, sums.collected, sums.spooled), (1000, kept + delivered, delivered));
    assert!(sums.dropped > 0 && sums.dropped == 1000 - kept - delivered, "{sums:?}");
    let dropped = sent.texts("event", event::DETAILS_JSON).into_iter().filter_map(|details| {
        let details: serde_json::Value = serde_json::from_str(&details).unwrap();
        Some((details.get("seq_first")?.as_i64()?, details["rows"].as_i64()?))
    });
    assert_eq!(dropped.map(|(_, rows)| rows).sum::<i64>(), sums.dropped);
}

#[test]
fn a_damaged_spool_is_set_aside_and_told() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    (1..=3).for_each(|ts| first.read(ts));
    first.write(true);
    let stream = first.stream();
    drop(first);
    let file = state_dir.path().join(FOLDER).join("frames.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096..].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let second = Collector::start(&state_dir);
    assert_ne!(second.stream(), stream);
    second.read(4);
    let sent = second.sent();
    assert_eq!((times(&sent), sent.texts("event", event::EVENT)), (vec![4], vec!["spool_quarantined".to_owned()]));
    let names = std::fs::read_dir(state_dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().starts_with("spool.quarantined-")).count(), 1);
}

#[test]
fn a_frame_that_kafka_refuses_is_kept() {
    let state_dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(&state_dir);
    (1..=3).for_each(|ts| collector.read(ts));
    collector.write(false);
    let queued = collector.outlet.take(|_| true, usize::MAX).unwrap();
    collector.outlet.refused(&queued, "MSG_SIZE_TOO_LARGE");
    let name = format!("gpu_sample.{}.1", collector.stream());
    let kept = std::fs::read(state_dir.path().join(FOLDER).join("refused").join(name)).unwrap();
    assert_eq!(kept.len(), queued.frame.bytes);
}

#[test]
fn the_spool_of_another_host_is_sent_but_not_continued() {
    let state_dir = tempfile::tempdir().unwrap();
    let first = Collector::start(&state_dir);
    (1..=4).for_each(|ts| first.read(ts));
    first.write(false);
    let left = first.killed();
    let cloned = Spool::open_on(left.path(), "n1", ("host-2", "boot-1"), &place().route).unwrap();
    assert_ne!(cloned.account.stream_id, first.stream());
    assert!(cloned.account.seq_last.is_empty() && cloned.records.is_empty());
    assert_eq!(cloned.frames.iter().map(|(_, frame)| frame.stream_id.as_str()).collect::<Vec<_>>(), [first.stream()]);
    drop(cloned);
    let renamed = Spool::open_on(first.killed().path(), "n2", ("host-1", "boot-1"), &place().route).unwrap();
    assert_ne!(renamed.account.stream_id, first.stream());
    assert!(!renamed.records.is_empty());
}

#[test]
fn other_topics_are_adopted_when_nothing_waits_for_those_of_before() {
    let frames = FramesConfig { rows_max: 1, ..FramesConfig::default() };
    let [old, new] =
        [("old", 4), ("new", 7)].map(|(prefix, partitions)| Arc::new(Route { prefix: prefix.to_owned(), partitions }));
    let start =
        |state_dir: &TempDir, route| Collector::start_for(state_dir, frames.clone(), SpoolConfig::default(), route);
    let state_dir = tempfile::tempdir().unwrap();
    let first = start(&state_dir, &old);
    first.read(1);
    first.write(false);
    // A kill with a frame in the spool: it and what is read meanwhile go to the old topics, also after another kill.
    let left = first.killed();
    let second = start(&left, &new);
    second.read(2);
    second.write(false);
    let left = second.killed();
    let third = start(&left, &new);
    let mut routes = Vec::new();
    let mut publish_next = |last: bool| {
        let queued = third.outlet.take(|table| std::ptr::eq(table, &GPU_SAMPLE), usize::MAX).unwrap();
        let frame = &queued.frame;
        routes.push((frame.seq, frame.route.prefix.clone(), frame.partition == frame.route.partition("n1")));
        third.outlet.published(&queued);
        if last {
            // Events and what else is there.
            while let Some(queued) = third.outlet.take(|_| true, usize::MAX) {
                assert_eq!(queued.frame.route.prefix, "old");
                third.outlet.published(&queued);
            }
        }
    };
    third.write(false);
    publish_next(false);
    publish_next(true);
    third.read(3);
    third.write(false);
    publish_next(false);
    assert_eq!(routes, [(1, "old".to_owned(), true), (2, "old".to_owned(), true), (3, "new".to_owned(), true)]);
    third.write(false);
    assert_eq!(*start(&third.killed(), &old).outlet.route(), *old); // nothing waits for the new ones
}

#[test]
fn what_counters_were_last_is_known_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(&folder);
    let read = |ts, errors: i64| {
        let mut row = Row::new(&GPU_HEALTH);
        row.read(gpu_health::ECC_UNCORRECTED_VOLATILE, errors);
        let labels = DeviceLabels { device_id: "GPU-1".to_owned(), session_id: 1, rack: None };
        collector.outlet.place.stamp(&mut row, ts, Some(&labels));
        collector.outlet.rows(vec![row], ts, "a", false);
    };
    read(1, 7);
    let first = collector.outlet.baseline("GPU-1");
    collector.write(false);
    assert_eq!(Collector::start(&collector.killed()).outlet.baseline("GPU-1"), first);
    // The second row is in the journal alone.
    read(2, 9);
    let second = collector.outlet.baseline("GPU-1");
    assert_ne!(first, second);
    assert_eq!(Collector::start(&collector.killed()).outlet.baseline("GPU-1"), second);
}
