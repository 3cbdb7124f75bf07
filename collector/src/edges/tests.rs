//! Rows of a device as they come, and the events that they tell.

use racklake_schemas::Table;
use racklake_schemas::tables::{
    DEVICE, GPU_HEALTH, GPU_LINK_SAMPLE, GPU_SAMPLE, gpu_health, gpu_link_sample, gpu_sample,
};

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
    assert_eq!((ids.len(), ids[0] == ids[1], ids[1] == ids[2]), (3, true, false));
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

/// A row of `gpu_health` with these values, a minute after the last.
fn health(told: &mut Told, minute: i64, values: &[(usize, i64)]) -> Vec<(&'static str, &'static str)> {
    told.row(&GPU_HEALTH, 60 * minute, |row| values.iter().for_each(|(column, value)| row.read(*column, *value)));
    told.take().into_iter().map(|(event, phase, ..)| (event, phase)).collect()
}

#[test]
fn errors_that_were_not_corrected_are_told_each_time_they_rise_and_never_at_first_sight() {
    use gpu_health::{ECC_UNCORRECTED_AGGREGATE as AGGREGATE, ECC_UNCORRECTED_VOLATILE as VOLATILE};
    let mut told = Told::new();
    assert_eq!(health(&mut told, 0, &[(VOLATILE, 3), (AGGREGATE, 40)]), []);
    assert_eq!(health(&mut told, 1, &[(VOLATILE, 3), (AGGREGATE, 40)]), []);
    told.row(&GPU_HEALTH, 120, |row| {
        row.read(VOLATILE, 5);
        row.read(AGGREGATE, 40);
    });
    let counters = details(&told.drafts[0]);
    assert_eq!(counters, json!({"ecc_uncorrected_volatile": {"before": 3, "now": 5}}));
    assert_eq!(told.take(), [("ecc_uncorrected", "-", -1, 0)]);
    // A value in between that was not read hides nothing.
    assert_eq!(health(&mut told, 3, &[(AGGREGATE, 40)]), []);
    assert_eq!(health(&mut told, 4, &[(VOLATILE, 6), (AGGREGATE, 40)]), [("ecc_uncorrected", "-")]);
}

#[test]
fn counters_of_another_session_are_not_compared() {
    let mut told = Told::new();
    health(&mut told, 0, &[(gpu_health::ECC_UNCORRECTED_VOLATILE, 3)]);
    told.labels.session_id = 2;
    assert_eq!(health(&mut told, 1, &[(gpu_health::ECC_UNCORRECTED_VOLATILE, 9)]), []);
    assert_eq!(health(&mut told, 2, &[(gpu_health::ECC_UNCORRECTED_VOLATILE, 10)]), [("ecc_uncorrected", "-")]);
}

#[test]
fn a_storm_of_corrected_errors_is_one_episode_with_counts() {
    let column = gpu_health::ECC_CORRECTED_VOLATILE;
    let mut told = Told::new();
    health(&mut told, 0, &[(column, 10)]);
    assert_eq!(health(&mut told, 1, &[(column, 11)]), [("ecc_corrected", "start")]);
    for minute in 2..60 {
        assert_eq!(health(&mut told, minute, &[(column, 1000 * minute / 7 * 7)]), []);
    }
    for minute in 60..70 {
        assert_eq!(health(&mut told, minute, &[(column, 59_000 / 7 * 7 + 3)]), [], "{minute}");
    }
    told.row(&GPU_HEALTH, 71 * 60, |row| row.read(column, 59_000 / 7 * 7 + 3));
    let end = details(&told.drafts[0]);
    assert_eq!(end["ecc_corrected_volatile"], json!({"before": 10, "now": 59_000 / 7 * 7 + 3}));
    assert_eq!(told.take(), [("ecc_corrected", "end", -1, 61 * 60)]);
}

#[test]
fn a_flag_is_an_episode_and_each_has_its_own() {
    use gpu_health::{BANK_REMAP_PENDING, ROW_REMAP_FAILED, ROW_REMAP_PENDING};
    let mut told = Told::new();
    assert_eq!(health(&mut told, 0, &[(ROW_REMAP_PENDING, 0), (ROW_REMAP_FAILED, 0), (BANK_REMAP_PENDING, 0)]), []);
    let both = health(&mut told, 1, &[(ROW_REMAP_PENDING, 1), (ROW_REMAP_FAILED, 0), (BANK_REMAP_PENDING, 1)]);
    assert_eq!(both, [("remap_pending", "start"), ("remap_pending", "start")]);
    let failed = health(&mut told, 2, &[(ROW_REMAP_PENDING, 1), (ROW_REMAP_FAILED, 1)]);
    assert_eq!(failed, [("remap_failed", "start")]);
    let reset = health(&mut told, 3, &[(ROW_REMAP_PENDING, 0), (ROW_REMAP_FAILED, 1), (BANK_REMAP_PENDING, 0)]);
    assert_eq!(reset, [("remap_pending", "end"), ("remap_pending", "end")]);
}

#[test]
fn remapped_rows_retired_pages_and_banks_without_spare_rows_are_told() {
    use gpu_health::{PAGES_RETIRED_CORRECTED, REMAP_BANKS_NONE, ROWS_REMAPPED_UNCORRECTED};
    let mut told = Told::new();
    let columns = [ROWS_REMAPPED_UNCORRECTED, PAGES_RETIRED_CORRECTED, REMAP_BANKS_NONE];
    assert_eq!(health(&mut told, 0, &columns.map(|column| (column, 0))), []);
    let events = health(&mut told, 1, &columns.map(|column| (column, 1)));
    assert_eq!(events, [("rows_remapped", "-"), ("pages_retired", "-"), ("remap_rows_used_up", "start")]);
    assert_eq!(health(&mut told, 2, &columns.map(|column| (column, 1))), []);
}

#[test]
fn another_recovery_action_ends_the_one_before() {
    let mut told = Told::new();
    let action = |told: &mut Told, minute: i64, action: i64| {
        told.row(&GPU_HEALTH, minute * 60, |row| row.read(gpu_health::RECOVERY_ACTION, action));
        told.take().into_iter().map(|(_, phase, code, _)| (phase, code)).collect::<Vec<_>>()
    };
    assert_eq!(action(&mut told, 0, 0), []);
    assert_eq!(action(&mut told, 1, 1), [("start", 1)]);
    assert_eq!(action(&mut told, 2, 4), [("end", 1), ("start", 4)]);
    assert_eq!(action(&mut told, 3, 0), [("end", 4)]);
}

#[test]
fn a_pcie_link_is_narrow_at_any_time_and_slow_only_under_load() {
    use gpu_health::{PCIE_GENERATION, PCIE_WIDTH};
    let mut told = Told::new();
    let mut identity = Row::new(&DEVICE);
    identity.set(device::PCIE_WIDTH_MAX, 16);
    identity.set(device::PCIE_GENERATION_MAX, 5);
    assert_eq!(health(&mut told, 0, &[(PCIE_WIDTH, 8), (PCIE_GENERATION, 1)]), []);
    told.edges.identified(&identity);
    let busy = |told: &mut Told, minute: i64, percent| {
        (0..30).for_each(|second| {
            told.row(&GPU_SAMPLE, minute * 60 - 30 + second, |row| {
                row.read(gpu_sample::GPU_UTILIZATION_PERCENT, percent);
            });
        });
    };
    busy(&mut told, 1, 0);
    assert_eq!(health(&mut told, 1, &[(PCIE_WIDTH, 16), (PCIE_GENERATION, 1)]), []);
    busy(&mut told, 2, 90);
    let slow = health(&mut told, 2, &[(PCIE_WIDTH, 8), (PCIE_GENERATION, 1)]);
    assert_eq!(slow, [("pcie_width_reduced", "start"), ("pcie_generation_reduced", "start")]);
    busy(&mut told, 3, 0);
    assert_eq!(health(&mut told, 3, &[(PCIE_WIDTH, 8), (PCIE_GENERATION, 1)]), []);
    busy(&mut told, 4, 90);
    let mended = health(&mut told, 4, &[(PCIE_WIDTH, 16), (PCIE_GENERATION, 5)]);
    assert_eq!(mended, [("pcie_width_reduced", "end"), ("pcie_generation_reduced", "end")]);
}

#[test]
fn a_link_that_was_up_and_is_not_is_told_and_one_that_never_was_is_not() {
    let mut told = Told::new();
    let link = |told: &mut Told, second, link: i64, state: i64| {
        told.row(&GPU_LINK_SAMPLE, second, |row| {
            row.set(gpu_link_sample::LINK, link);
            row.read(gpu_link_sample::LINK_STATE, state);
        });
        told.take().into_iter().map(|(_, phase, ..)| phase).collect::<Vec<_>>()
    };
    assert_eq!((link(&mut told, 0, 3, 1), link(&mut told, 0, 17, 0)), (vec![], vec![]));
    // A driver that was loaded anew does not bring the link back.
    told.labels.session_id = 2;
    assert_eq!((link(&mut told, 60, 3, 0), link(&mut told, 60, 17, 0)), (vec!["start"], vec![]));
    assert_eq!(link(&mut told, 120, 3, 2), ["end"]);
}

#[test]
fn what_rose_while_the_collector_was_restarted_is_told_once() {
    let column = gpu_health::ECC_UNCORRECTED_VOLATILE;
    let mut told = Told::new();
    health(&mut told, 0, &[(column, 1)]);
    // The door keeps what it has seen; a new start has new edges.
    told.edges = Edges::default();
    assert_eq!(health(&mut told, 1, &[(column, 2)]), [("ecc_uncorrected", "-")]);
    told.edges = Edges::default();
    assert_eq!(health(&mut told, 2, &[(column, 2)]), []);
}
