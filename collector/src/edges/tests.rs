//! Rows of a device as they come, and the events that they tell.

use racklake_schemas::Table;
use racklake_schemas::tables::{GPU_SAMPLE, gpu_sample};

use super::*;
use crate::config::FramesConfig;
use crate::place::DeviceLabels;
use crate::testing::outlet;

/// A device, and what has been told of it.
struct Told {
    outlet: std::sync::Arc<Outlet>,
    edges: Edges,
    labels: DeviceLabels,
    drafts: Vec<EventDraft>,
}

impl Told {
    fn new() -> Told {
        let labels = DeviceLabels { device_id: "GPU-1".to_owned(), session_id: 1, rack: None };
        Told { outlet: outlet(FramesConfig::default()), edges: Edges::default(), labels, drafts: Vec::new() }
    }

    /// A row of a table at a second.
    fn row(&mut self, table: &'static Table, second: i64, fill: impl FnOnce(&mut Row)) -> &mut Told {
        let mut row = Row::new(table);
        fill(&mut row);
        self.outlet.place.stamp(&mut row, second * SECOND, Some(&self.labels));
        let drafts = self.edges.observe(&row, &self.outlet);
        let told = (drafts.clone(), Some(&self.labels));
        self.outlet.rows_and_events(vec![row], told, second, "a", false);
        self.drafts.extend(drafts);
        self
    }

    /// The same of a GPU whose clocks are held back for these reasons.
    fn throttled(&mut self, second: i64, mask: i64) -> &mut Told {
        self.row(&GPU_SAMPLE, second, |row| row.read(gpu_sample::THROTTLE_REASONS_MASK, mask))
    }

    /// What was told since the last time: event, phase, code, second.
    fn take(&mut self) -> Vec<(&'static str, &'static str, i64, i64)> {
        let short =
            |draft: EventDraft| (draft.event, draft.phase.unwrap_or("-"), draft.code.unwrap_or(-1), draft.ts / SECOND);
        std::mem::take(&mut self.drafts).into_iter().map(short).collect()
    }
}

fn details(draft: &EventDraft) -> Value {
    serde_json::from_str(draft.details_json.as_deref().unwrap()).unwrap()
}

#[test]
fn a_throttle_episode_begins_with_its_first_row_and_ends_with_the_first_without() {
    let mut told = Told::new();
    told.throttled(0, 0).throttled(1, 0x20).throttled(2, 0x20).throttled(3, 0x1);
    assert_eq!(told.take(), [("throttled", "start", 0x20, 1)]);
    for second in 4..=12 {
        told.throttled(second, 0);
    }
    assert_eq!(told.take(), []);
    told.throttled(13, 0);
    let end = details(&told.drafts[0]);
    assert_eq!(
        (&end["throttle_reason"], &end["seconds"], &end["rows"]),
        (&"sw_thermal".into(), &2.0.into(), &2.into())
    );
    assert_eq!(told.take(), [("throttled", "end", 0x20, 3)]);
}

#[test]
fn both_rows_of_an_episode_have_its_id() {
    let mut told = Told::new();
    told.throttled(1, 0x40).throttled(2, 0).throttled(20, 0).throttled(21, 0x40);
    let ids: Vec<_> = told.drafts.iter().map(|draft| draft.episode_id.clone().unwrap()).collect();
    assert_eq!((ids.len(), &ids[0] == &ids[1], &ids[1] == &ids[2]), (3, true, false));
}

#[test]
fn a_reason_that_flickers_is_one_episode() {
    let mut told = Told::new();
    for second in 0..600 {
        told.throttled(second, if second % 2 == 0 { 0x8 | 0x80 } else { 0 });
    }
    assert_eq!(told.take(), [("throttled", "start", 0x8, 0), ("throttled", "start", 0x80, 0)]);
    told.throttled(650, 0);
    assert_eq!(told.take(), [("throttled", "end", 0x8, 599), ("throttled", "end", 0x80, 599)]);
}

#[test]
fn the_power_limit_is_told_as_information_and_other_reasons_not_at_all() {
    let mut told = Told::new();
    told.throttled(0, 0x4 | 0x1 | 0x2 | 0x10 | 0x100);
    assert_eq!(told.drafts[0].severity, "info");
    assert_eq!(told.take(), [("throttled", "start", 0x4, 0)]);
}

#[test]
fn a_value_that_is_absent_is_no_edge() {
    let mut told = Told::new();
    told.throttled(0, 0x20);
    told.take();
    for second in 1..100 {
        told.row(&GPU_SAMPLE, second, |row| row.fail_all(999));
    }
    told.row(&GPU_SAMPLE, 100, |row| row.unsupported(gpu_sample::THROTTLE_REASONS_MASK));
    assert_eq!(told.take(), []);
}

#[test]
fn a_clock_that_is_set_back_neither_ends_an_episode_nor_keeps_it_for_ever() {
    let mut told = Told::new();
    told.throttled(10_000, 0x20).throttled(10_001, 0).throttled(5, 0).throttled(6, 0);
    assert_eq!(told.take(), [("throttled", "start", 0x20, 10_000)]);
    told.throttled(15, 0);
    assert_eq!(told.take(), [("throttled", "end", 0x20, 5)]);
}

#[test]
fn another_device_at_the_address_ends_what_was_so_of_the_one_before() {
    let mut told = Told::new();
    told.throttled(0, 0x20);
    told.take();
    told.labels.device_id = "GPU-2".to_owned();
    told.throttled(1, 0x20);
    assert_eq!(details(&told.drafts[0])["reason"], "device_replaced");
    assert_eq!(told.take(), [("throttled", "end", 0x20, 1), ("throttled", "start", 0x20, 1)]);
}
