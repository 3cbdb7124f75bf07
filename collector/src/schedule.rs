//! When each device is due next: what a host that loses power would have read, as far as anybody can know it.
//!
//! Samplers tell it at every tick. It promises nothing: a device that is gone by then was not read.

use std::collections::BTreeMap;
use std::time::Duration;

use racklake_schemas::Table;

use crate::coverage::minute_of;

/// A device that was due so long ago (µs) and has told no further tick is read no more.
const FORGOTTEN_AFTER: i64 = 10_000_000;

/// The next tick of every device and table.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    ticks: BTreeMap<(&'static str, String), Tick>,
}

#[derive(Debug, Clone, Copy)]
struct Tick {
    table: &'static Table,
    /// µs UTC.
    next: i64,
    /// µs.
    period: i64,
}

/// Due rows of one table and minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Due {
    pub(crate) table: &'static Table,
    pub(crate) minute: i64,
    pub(crate) rows: i64,
}

impl Schedule {
    /// The next tick of a device is at `next` (µs UTC), further ones follow by the period.
    pub(crate) fn note(&mut self, table: &'static Table, address: &str, next: i64, period: Duration) {
        let period = i64::try_from(period.as_micros()).unwrap_or(i64::MAX).max(1);
        self.ticks.insert((table.name, address.to_owned()), Tick { table, next, period });
    }

    /// What is due from now, `at`, to `until`, both µs UTC.
    pub(crate) fn due(&mut self, at: i64, until: i64) -> Vec<Due> {
        self.ticks.retain(|_, tick| tick.next > at - FORGOTTEN_AFTER);
        let mut due: BTreeMap<(&'static str, i64), Due> = BTreeMap::new();
        for tick in self.ticks.values() {
            let mut next = tick.next;
            while next <= until {
                let minute = minute_of(next);
                let of = due.entry((tick.table.name, minute)).or_insert(Due { table: tick.table, minute, rows: 0 });
                of.rows += 1;
                next = next.saturating_add(tick.period);
            }
        }
        due.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::{GPU_SAMPLE, MINER_SAMPLE};

    use super::*;

    #[test]
    fn what_is_due_is_counted_by_table_and_minute() {
        let (second, minute) = (1_000_000, 60_000_000);
        let mut schedule = Schedule::default();
        schedule.note(&GPU_SAMPLE, "a", minute, Duration::from_secs(30));
        // The tick that it was due for has come.
        schedule.note(&GPU_SAMPLE, "a", minute - second, Duration::from_millis(500));
        schedule.note(&MINER_SAMPLE, "m", minute + 2 * second, Duration::from_secs(30));
        schedule.note(&MINER_SAMPLE, "gone", minute - 20 * second, Duration::from_secs(1));
        let due = |table, minute, rows| Due { table, minute, rows };
        assert_eq!(schedule.due(minute - 2 * second, minute - 2 * second), []);
        let within = schedule.due(minute - 2 * second, minute + second);
        assert_eq!(within, [due(&GPU_SAMPLE, 0, 2), due(&GPU_SAMPLE, minute, 3)]);
        let longer = schedule.due(minute - 2 * second, minute + 2 * second);
        assert_eq!(longer[2], due(&MINER_SAMPLE, minute, 1));
    }
}
