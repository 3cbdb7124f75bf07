//! What becomes of lines and events that tell the same, and of those that do not.

use std::collections::BTreeMap;

use racklake_schemas::tables::event;
use tokio::time::{advance, sleep};

use super::*;
use crate::config::FramesConfig;
use crate::testing::{Account, outlet};

struct Merging {
    merger: Arc<Merger>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Merging {
    fn start() -> Merging {
        let devices = Devices::new("n1", "boot".to_owned(), Vec::new());
        let merger = Merger::new(outlet(FramesConfig::default()), Arc::new(devices), Arc::new(Metrics::new()));
        let (merger, stop) = (Arc::new(merger), CancellationToken::new());
        let running = tokio::spawn({
            let (merger, stop) = (Arc::clone(&merger), stop.clone());
            async move { merger.run(stop).await }
        });
        Merging { merger, stop, running }
    }

    fn line(&self, address: &str, code: i64) {
        self.merger.line(draft("kmsg", address, code), Duration::ZERO);
    }

    fn event(&self, address: &str, code: i64) {
        self.merger.nvml(draft("nvml", &format!("{address}.0"), code));
    }

    /// Rows by source, address and code, and how many events were dropped.
    async fn end(self) -> (BTreeMap<(String, String, i64), usize>, i64) {
        self.stop.cancel();
        self.running.await.unwrap();
        self.merger.end();
        self.merger.outlet.tell_everything();
        let account = Account::of(&self.merger.outlet);
        let sources = account.texts("event", event::SOURCE);
        let addresses = account.texts("event", event::PCI_BUS_ID);
        let codes = account.ints("event", event::CODE);
        let mut rows = BTreeMap::new();
        for ((source, address), code) in sources.into_iter().zip(addresses).zip(codes) {
            *rows.entry((source, address, code.unwrap())).or_insert(0) += 1;
        }
        let dropped = account.coverage("event").dropped;
        assert_eq!(self.merger.metrics.nvml_events_merged.get() as i64, dropped);
        (rows, dropped)
    }
}

fn draft(source: &'static str, address: &str, code: i64) -> EventDraft {
    let draft = EventDraft::new("xid", source, "error", "an XID").with_code(code);
    EventDraft { pci_bus_id: Some(address.to_owned()), ..draft }
}

fn rows<const N: usize>(expected: [(&str, &str, i64, usize); N]) -> BTreeMap<(String, String, i64), usize> {
    expected.into_iter().map(|(source, address, code, n)| ((source.to_owned(), address.to_owned(), code), n)).collect()
}

const GPU: &str = "0000:9b:00";

#[tokio::test(start_paused = true)]
async fn five_equal_lines_and_their_events_are_five_rows_whoever_comes_first() {
    for events_first in [true, false] {
        let merging = Merging::start();
        for _ in 0..5 {
            if events_first {
                merging.event(GPU, 79);
            }
            merging.line(GPU, 79);
            if !events_first {
                merging.event(GPU, 79);
            }
            advance(Duration::from_millis(200)).await;
        }
        sleep(Duration::from_secs(10)).await;
        assert_eq!(merging.end().await, (rows([("kmsg", GPU, 79, 5)]), 5));
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_line_is_a_row_after_two_seconds() {
    let merging = Merging::start();
    merging.event(GPU, 48);
    merging.line(GPU, 63);
    merging.line("0000:9c:00", 48);
    sleep(Duration::from_millis(1900)).await;
    assert_eq!(merging.merger.outlet.waiting(), 2);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(merging.merger.outlet.waiting(), 3);
    let expected = [("nvml", "0000:9b:00.0", 48, 1), ("kmsg", GPU, 63, 1), ("kmsg", "0000:9c:00", 48, 1)];
    assert_eq!(merging.end().await, (rows(expected), 0));
}

#[tokio::test(start_paused = true)]
async fn a_line_is_the_twin_of_one_event_and_only_within_five_seconds() {
    let merging = Merging::start();
    merging.line(GPU, 79);
    sleep(Duration::from_millis(4900)).await;
    merging.event(GPU, 79);
    merging.event(GPU, 79);
    merging.line(GPU, 31);
    sleep(Duration::from_millis(5100)).await;
    merging.event(GPU, 31);
    merging.merger.line(draft("kmsg", GPU, 13), Duration::from_secs(6));
    merging.event(GPU, 13);
    let nvml = "0000:9b:00.0";
    let expected = [
        ("kmsg", GPU, 79, 1),
        ("nvml", nvml, 79, 1),
        ("kmsg", GPU, 31, 1),
        ("nvml", nvml, 31, 1),
        ("kmsg", GPU, 13, 1),
        ("nvml", nvml, 13, 1),
    ];
    assert_eq!(merging.end().await, (rows(expected), 1));
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_ten_thousand_lines_with_twins_gives_exactly_the_right_rows() {
    let merging = Merging::start();
    let gpus: Vec<String> = (0..8).map(|gpu| format!("0000:{gpu:02x}:00")).collect();
    let codes = [13, 31, 48, 79, 94];
    let mut random = 7_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut lines, mut alone, mut held, mut twins) = (BTreeMap::new(), BTreeMap::new(), Vec::new(), 0);
    for number in 0..10_000 {
        let (gpu, code) = (&gpus[next(8)], codes[next(5)]);
        match next(4) {
            // NVML tells it first, NVML tells it later, NVML does not tell it, NVML tells something else.
            0 => merging.event(gpu, code),
            1 => held.push((gpu.clone(), code)),
            2 => twins -= 1,
            _ => {
                twins -= 1;
                merging.event(gpu, 200 + code);
                *alone.entry(("nvml".to_owned(), format!("{gpu}.0"), 200 + code)).or_insert(0) += 1;
            }
        }
        twins += 1;
        merging.line(gpu, code);
        *lines.entry(("kmsg".to_owned(), gpu.clone(), code)).or_insert(0) += 1;
        if number % 500 == 499 {
            held.drain(..).for_each(|(gpu, code)| merging.event(&gpu, code));
            advance(Duration::from_millis(50)).await;
        }
    }
    sleep(Duration::from_secs(3)).await;
    lines.extend(alone);
    assert_eq!(merging.end().await, (lines, twins));
}

#[test]
fn events_that_come_one_after_another_for_longer_than_the_window_find_their_lines() {
    let (mut twins, start) = (Twins::default(), Instant::now());
    let key = || ("0000:9b:00".to_owned(), 31);
    let draft = || EventDraft::new("xid", "nvml", "warning", "XID 31").with_code(31);
    (0..100).for_each(|_| assert!(!twins.line(key(), start, start)));
    for number in 0..100 {
        // Twenty seconds for what the log told at once.
        let now = start + Duration::from_millis(200) * number;
        assert!(twins.event(key(), draft(), now).0, "{number}");
        twins.forget_lines(now);
    }
    // After a pause an event is of its own time.
    let later = start + Duration::from_secs(30);
    assert!(!twins.line(key(), start + Duration::from_secs(20), later));
    assert!(!twins.event(key(), draft(), later).0);
}
