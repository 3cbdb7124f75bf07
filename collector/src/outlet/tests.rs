//! Rows and events on their way through the door.

use racklake_schemas::tables::{event, gpu_sample};

use super::*;
use crate::testing::{Account, gpu_row, outlet};

fn full_queue() -> Arc<Outlet> {
    let limits = FramesConfig { rows_max: 20, queue_bytes_max: 40_000, ..FramesConfig::default() };
    let outlet = outlet(limits);
    for ts in 1..=1000 {
        outlet.rows(vec![gpu_row(&format!("{ts:0>100}"), ts)], 0, "a", false);
    }
    outlet
}

#[test]
fn what_a_full_queue_drops_is_counted_and_named() {
    let outlet = full_queue();
    outlet.tell_everything();
    let account = Account::of(&outlet);
    let kept = account.rows("gpu_sample") as i64;
    assert!(kept > 0 && kept < 1000, "{kept}");
    let sum = account.coverage("gpu_sample");
    assert_eq!((sum.expected, sum.collected, sum.failed, sum.dropped), (1000, kept, 0, 1000 - kept));
    let named = account.texts("event", event::DETAILS_JSON).into_iter().map(|details| {
        let details: serde_json::Value = serde_json::from_str(&details).unwrap();
        assert_eq!((&details["table"], &details["reason"]), (&json!("gpu_sample"), &json!("spool_full")));
        (details["seq_first"].as_i64().unwrap(), details["seq_last"].as_i64().unwrap())
    });
    let named: Vec<i64> = named.flat_map(|(first, last)| first..=last).collect();
    let missing: Vec<i64> = (1..=50).filter(|seq| !account.seqs("gpu_sample").contains(seq)).collect();
    assert_eq!(named, missing);
}

#[test]
fn a_refused_frame_is_counted_and_named() {
    let outlet = outlet(FramesConfig { rows_max: 2, ..FramesConfig::default() });
    outlet.rows(vec![gpu_row("a", 1), gpu_row("a", 2)], 0, "a", false);
    let queued = outlet.take(|_| true, usize::MAX).unwrap();
    outlet.refused(&queued, "MSG_SIZE_TOO_LARGE");
    outlet.tell_everything();
    let account = Account::of(&outlet);
    let sum = account.coverage("gpu_sample");
    assert_eq!((sum.expected, sum.collected, sum.dropped), (2, 0, 2));
    assert_eq!(account.texts("event", event::EVENT), ["frame_refused"]);
}

#[tokio::test(start_paused = true)]
async fn old_frames_are_closed_by_the_timer() {
    let outlet = outlet(FramesConfig::default());
    let stop = CancellationToken::new();
    let timers = tokio::spawn({
        let (outlet, stop) = (Arc::clone(&outlet), stop.clone());
        async move { outlet.run_timers(stop).await }
    });
    outlet.rows(vec![gpu_row("a", 1)], 0, "a", false);
    tokio::time::sleep(std::time::Duration::from_millis(9_900)).await;
    assert_eq!(outlet.waiting(), 0);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(outlet.waiting(), 1);
    stop.cancel();
    timers.await.unwrap();
    assert_eq!(Account::of(&outlet).texts("gpu_sample", gpu_sample::DEVICE_ID), ["a"]);
}
