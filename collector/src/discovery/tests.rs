//! Devices that come, go, hang and change, and the rows that come of them.

use racklake_schemas::row_status;
use racklake_schemas::tables::{coverage, device, event, gpu_sample};

use super::*;
use crate::config::FramesConfig;
use crate::device_registry::Devices;
use crate::metrics::Metrics;
use crate::testing::{Account, FakeSource, outlet};
use tokio::time::Instant;

/// A source that is read while the test sleeps.
struct Running {
    source: Arc<FakeSource>,
    sampling: Sampling,
    relisted: watch::Sender<()>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(source: Arc<FakeSource>) -> Running {
        let (relisted, listening) = watch::channel(());
        let sampling = Sampling {
            outlet: outlet(FramesConfig::default()),
            devices: Arc::new(Devices::new("n1", "boot".to_owned(), Vec::new())),
            metrics: Arc::new(Metrics::new()),
            health: Arc::default(),
            origin: Instant::now(),
            relisted: listening,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(source.clone(), sampling.clone(), stop.clone()));
        Running { source, sampling, relisted, stop, task }
    }

    async fn sleep(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    async fn end(self) -> Account {
        self.stop.cancel();
        self.task.await.unwrap();
        self.sampling.outlet.tell_everything();
        Account::of(&self.sampling.outlet)
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_read_gives_stale_rows_while_others_go_on() {
    let source = FakeSource::with(&["a", "b"]);
    source.takes("a", &[10, 3500, 10]);
    let running = Running::start(source);
    running.sleep(10).await;
    let account = running.end().await;
    // The second read of a hangs from tick 1 to 4.5: ticks 1, 2, 3 and 4 are stale, then its values come.
    let (ok, stale, late) = (0, 2, 3);
    assert_eq!(account.statuses("GPU-a"), [ok, stale, stale, stale, stale, late, ok, ok, ok, ok, ok]);
    assert_eq!(account.statuses("GPU-b"), [ok; 10]);
    let sums = account.coverage("gpu_sample");
    assert_eq!((sums.expected, sums.collected, sums.stale, sums.late, sums.dropped), (20, 16, 4, 1, 0));
    // What the device does not have is not called failed in a row without values.
    let stale_row = account.ints("gpu_sample", gpu_sample::ROW_STATUS).iter().position(|s| *s == Some(2)).unwrap();
    assert_ne!(account.ints("gpu_sample", gpu_sample::UNSUPPORTED_MASK)[stale_row], Some(0));
}

#[tokio::test(start_paused = true)]
async fn tiers_have_periods_and_outcomes_of_their_own() {
    let source = FakeSource::with(&["a"]);
    source.state.lock().unwrap().slow_period = Some(Duration::from_secs(4));
    // Reads of both tiers take from this list; one of them hangs past the deadline.
    source.takes("a", &[10, 10, 10, 10, 10, 10, 10, 1500]);
    let running = Running::start(source);
    running.sleep(20).await;
    let account = running.end().await;
    let (fast, slow) = (account.coverage("gpu_sample"), account.coverage("miner_sample"));
    assert_eq!((fast.expected, slow.expected), (20, 5));
    assert_eq!((fast.late + slow.late, fast.dropped + slow.dropped), (1, 0));
    assert_eq!(account.rows("miner_sample") as i64, slow.expected + slow.late);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_past_the_hard_deadline_is_an_episode_of_its_device() {
    let source = FakeSource::with(&["a", "b"]);
    source.takes("a", &[10, 14_000]);
    let running = Running::start(source);
    running.sleep(14).await;
    let problems = running.sampling.health.problems();
    assert!(matches!(problems.as_slice(), [one] if one.contains("device a: GPU-a") && one.contains("PowerUsage")));
    running.sleep(6).await;
    assert!(running.sampling.health.problems().is_empty());
    let account = running.end().await;
    assert_eq!(account.texts("event", event::EVENT), ["gpu_stalled", "gpu_stalled"]);
    assert_eq!(account.texts("event", event::PHASE), ["start", "end"]);
    assert!(account.texts("event", event::DETAILS_JSON)[0].contains("nvmlDeviceGetPowerUsage"));
    assert_eq!(account.statuses("GPU-b"), [0; 20]);
}

#[tokio::test(start_paused = true)]
async fn a_device_is_read_ten_times_a_second_for_a_minute_after_an_event() {
    let source = FakeSource::with(&["a", "b"]);
    {
        let mut state = source.state.lock().unwrap();
        state.slow_period = Some(Duration::from_secs(100_000));
        let (period, length) = (Duration::from_millis(100), Duration::from_secs(60));
        state.burst = Some(crate::source::BurstSettings { period, length });
    }
    let running = Running::start(source);
    running.sleep(20).await;
    let labels = running.sampling.devices.lookup("a").unwrap();
    let xid = crate::source::EventDraft::new("xid", "kmsg", "critical", "XID 79");
    running.sampling.outlet.event(xid.clone(), Some(&labels));
    running.sleep(5).await;
    // Ten more at once change nothing; one after half a minute makes it longer.
    (0..10).for_each(|_| running.sampling.outlet.event(xid.clone(), Some(&labels)));
    running.sleep(30).await;
    running.sampling.outlet.event(xid, Some(&labels));
    running.sleep(200).await;
    let account = running.end().await;
    let (a, b) = (account.statuses("GPU-a").len(), account.statuses("GPU-b").len());
    // 95 s of ten rows and 160 s of one; the other is read as ever.
    assert!((1100..=1120).contains(&a) && (254..=256).contains(&b), "{a} {b}");
    let sums = account.coverage("gpu_sample");
    assert_eq!((sums.expected, sums.dropped), ((a + b) as i64, 0));
    // What is read once a day was read after the first, ten seconds later, and after the last.
    let devices = account.texts("miner_sample", gpu_sample::DEVICE_ID);
    assert_eq!(devices.iter().filter(|device| *device == "GPU-a").count(), 3, "{devices:?}");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_hangs_after_an_event_gives_no_more_stale_rows_than_ever() {
    let source = FakeSource::with(&["a"]);
    let (period, length) = (Duration::from_millis(100), Duration::from_secs(60));
    source.state.lock().unwrap().burst = Some(crate::source::BurstSettings { period, length });
    let running = Running::start(source);
    running.sleep(5).await;
    running.source.takes("a", &[10, 10, 30_000]);
    let labels = running.sampling.devices.lookup("a").unwrap();
    running.sampling.outlet.event(own("xid", "critical", "XID 79"), Some(&labels));
    running.sleep(25).await;
    let account = running.end().await;
    let stale = account.statuses("GPU-a").iter().filter(|status| **status == 2).count();
    assert!((20..=27).contains(&stale), "{stale}");
}

#[tokio::test(start_paused = true)]
async fn ticks_of_a_paused_source_are_counted_with_the_reason() {
    let running = Running::start(FakeSource::with(&["a"]));
    running.sleep(3).await;
    running.source.state.lock().unwrap().pause = Some("released");
    running.sleep(4).await;
    running.source.state.lock().unwrap().pause = None;
    running.sleep(3).await;
    let account = running.end().await;
    let sums = account.coverage("gpu_sample");
    assert_eq!((sums.expected, sums.collected, sums.dropped), (10, 6, 4));
    assert_eq!(account.statuses("GPU-a"), [0; 6]);
}

#[tokio::test(start_paused = true)]
async fn a_tick_within_the_deadline_of_a_read_is_counted_as_skipped() {
    let source = FakeSource::with(&["a"]);
    source.state.lock().unwrap().deadline = Some(Duration::from_secs(5));
    source.takes("a", &[10, 2500]);
    let running = Running::start(source);
    running.sleep(6).await;
    let account = running.end().await;
    assert_eq!(account.statuses("GPU-a"), [0; 4]);
    let sums = account.coverage("gpu_sample");
    assert_eq!((sums.expected, sums.collected, sums.dropped), (6, 4, 2));
    let reasons = account.texts("coverage", coverage::DROP_REASONS_JSON);
    assert!(reasons.iter().any(|reasons| reasons.contains("tick_skipped")), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn every_answer_of_a_device_is_sent_also_the_one_in_flight_at_the_end() {
    let source = FakeSource::with(&["a"]);
    source.takes("a", &[900; 40]);
    let running = Running::start(source.clone());
    running.sleep(7).await;
    let account = running.end().await;
    let reads = source.state.lock().unwrap().reads;
    assert_eq!((account.rows("gpu_sample") as u64, source.state.lock().unwrap().in_flight.len()), (reads, 0));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_vanishes_is_lost_and_begins_a_new_session_when_it_returns() {
    let running = Running::start(FakeSource::with(&["a"]));
    running.sleep(5).await;
    let found = std::mem::take(&mut running.source.state.lock().unwrap().found);
    running.sleep(60).await;
    running.source.state.lock().unwrap().found = found;
    running.sleep(61).await;
    let account = running.end().await;
    let events = account.texts("event", event::EVENT);
    assert_eq!(events, ["device_lost", "device_returned", "session_started"]);
    assert!(account.statuses("GPU-a").contains(&i64::from(row_status::LOST)));
    let sessions: BTreeSet<_> = account.ints("gpu_sample", gpu_sample::SESSION_ID).into_iter().collect();
    assert_eq!(sessions.len(), 2);
    assert!(account.coverage("gpu_sample").failed >= 55);
}

#[tokio::test(start_paused = true)]
async fn a_failing_source_is_told_once_and_asked_again() {
    let source = FakeSource::with(&["a"]);
    source.state.lock().unwrap().failure = Some("libnvidia-ml.so.1 is missing".to_owned());
    let running = Running::start(source);
    running.sleep(20).await;
    assert_eq!(running.sampling.health.problems(), ["source nvml: libnvidia-ml.so.1 is missing"]);
    running.source.state.lock().unwrap().failure = None;
    running.sleep(20).await;
    assert!(running.sampling.health.problems().is_empty());
    let account = running.end().await;
    assert_eq!(account.texts("event", event::EVENT), ["source_failed", "source_recovered"]);
    assert!(account.rows("gpu_sample") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_a_read_calls_lost_is_read_on_and_returns_with_a_good_read() {
    let running = Running::start(FakeSource::with(&["a"]));
    running.sleep(3).await;
    running.source.state.lock().unwrap().statuses.insert("a".to_owned(), row_status::LOST);
    running.sleep(3).await;
    running.source.state.lock().unwrap().statuses.clear();
    running.sleep(3).await;
    let account = running.end().await;
    assert_eq!(account.statuses("GPU-a"), [0, 0, 0, 5, 5, 5, 0, 0, 0]);
    assert_eq!(account.texts("event", event::EVENT), ["device_lost", "device_returned", "session_started"]);
    let sessions = account.ints("gpu_sample", gpu_sample::SESSION_ID);
    assert!(sessions[5] == sessions[0] && sessions[6] > sessions[5], "{sessions:?}");
    let times = account.ints("gpu_sample", gpu_sample::TS);
    assert!(sessions.iter().zip(&times).all(|(session, ts)| session <= ts), "{sessions:?} {times:?}");
    let sums = account.coverage("gpu_sample");
    assert_eq!((sums.expected, sums.collected, sums.failed), (9, 6, 3));
}

#[tokio::test(start_paused = true)]
async fn devices_are_read_on_while_discovery_fails_and_have_a_new_session_after_it() {
    let running = Running::start(FakeSource::with(&["a"]));
    running.sleep(50).await;
    running.source.state.lock().unwrap().failure = Some("no answer".to_owned());
    running.sleep(13).await;
    running.source.state.lock().unwrap().failure = None;
    running.sleep(10).await;
    let account = running.end().await;
    assert_eq!(account.texts("event", event::EVENT), ["source_failed", "source_recovered", "session_started"]);
    assert_eq!(account.statuses("GPU-a"), [0; 73]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_period_loses_no_tick_and_the_next_comes_within_both_periods() {
    let running = Running::start(FakeSource::with(&["a", "b"]));
    let mut changes = Vec::new();
    for (millis, seconds) in [(1000, 5), (100, 2), (3000, 12), (700, 6), (701, 6)] {
        let period = Duration::from_millis(millis);
        changes.push((Instant::now(), period));
        running.source.state.lock().unwrap().period = Some(period);
        running.sleep(seconds).await;
    }
    let begun = std::mem::take(&mut running.source.state.lock().unwrap().begun);
    let in_force = |at: Instant| changes.iter().rev().find(|(since, _)| *since < at).unwrap().1;
    for device in ["a", "b"] {
        let ticks: Vec<Instant> = begun.iter().filter(|(address, _)| address == device).map(|b| b.1).collect();
        for three in ticks.windows(3) {
            let (before, period) = (in_force(three[0]), in_force(three[1]));
            let (gap, timer) = (three[2] - three[1], Duration::from_millis(2));
            assert!(
                gap + timer >= before.min(period) && gap <= before.max(period) + timer,
                "{gap:?} {before:?} {period:?}"
            );
        }
    }
    let account = running.end().await;
    let sums = account.coverage("gpu_sample");
    assert_eq!((sums.collected, sums.expected), (begun.len() as i64, begun.len() as i64));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_no_longer_listed_is_read_no_more_and_is_not_lost() {
    let source = FakeSource::with(&["a", "b"]);
    source.state.lock().unwrap().is_listed_by_config = true;
    let running = Running::start(source);
    running.sleep(5).await;
    let unlisted = running.source.state.lock().unwrap().found.remove(0);
    running.relisted.send_replace(());
    running.sleep(5).await;
    running.source.state.lock().unwrap().found.push(unlisted);
    running.relisted.send_replace(());
    running.sleep(5).await;
    let account = running.end().await;
    assert_eq!((account.statuses("GPU-a"), account.statuses("GPU-b")), (vec![0; 10], vec![0; 15]));
    assert!(account.texts("event", event::EVENT).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_told_at_the_start_on_change_and_every_hour() {
    let running = Running::start(FakeSource::with(&["a"]));
    running.sleep(3601).await;
    running.source.state.lock().unwrap().found[0].1 = "GPU-z".to_owned();
    running.sleep(61).await;
    let account = running.end().await;
    let because = account.texts("device", device::OBSERVED_BECAUSE);
    assert_eq!(because, ["start", "hourly", "change"]);
    assert!(account.texts("event", event::EVENT).contains(&"device_replaced".to_owned()));
}
