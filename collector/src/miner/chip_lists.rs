//! When the lists of values per chip are kept: every hour, and when other chips answer than before.
//!
//! They are most of what a miner tells. Between, a row has none of them; they are null and have not failed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use racklake_schemas::tables::hashboard_sample as board;
use racklake_schemas::{Cell, Row};
use tokio::time::Instant;

/// How often they are kept where nothing changes.
const PERIOD: Duration = Duration::from_secs(3600);

/// Lists by chip.
const LISTS: [usize; 7] = [
    board::CHIP_TEMPS_CELSIUS,
    board::CHIP_VOLTAGES_MILLIVOLTS,
    board::CHIP_NONCES,
    board::CHIP_OK,
    board::CHIP_FREQUENCIES_KILOHERTZ,
    board::CHIP_HASHRATES_MEGAHASHES_PER_SECOND,
    board::CHIP_HARDWARE_ERRORS,
];

/// What was kept of one miner.
#[derive(Debug, Default)]
pub(super) struct ChipLists {
    kept: Option<Instant>,
    answering: Option<u64>,
}

impl ChipLists {
    /// Whether the hour is over.
    pub(super) fn are_due(&self) -> bool {
        self.kept.is_none_or(|kept| kept.elapsed() >= PERIOD)
    }

    /// Takes the lists out of the rows unless they are to be kept.
    pub(super) fn thin(&mut self, boards: &mut [Row]) {
        if !boards.iter().any(has_list) {
            return;
        }
        let answering = answering(boards);
        if self.are_due() || self.answering != Some(answering) {
            self.kept = Some(Instant::now());
        } else {
            for row in boards {
                for column in LISTS {
                    row.set(column, Cell::Null);
                }
            }
        }
        self.answering = Some(answering);
    }
}

fn has_list(row: &Row) -> bool {
    LISTS.iter().any(|&column| matches!(row.cell(column), Cell::List(_)))
}

/// Which chips of which boards answer: the length of each list, where it has nulls, and which chips are well.
fn answering(boards: &[Row]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for row in boards {
        if let Cell::I64(index) = row.cell(board::BOARD_INDEX) {
            index.hash(&mut hasher);
        }
        for column in LISTS {
            let Cell::List(items) = row.cell(column) else { continue };
            (column, items.len()).hash(&mut hasher);
            for (chip, item) in items.iter().enumerate() {
                match item {
                    None => chip.hash(&mut hasher),
                    Some(0) if column == board::CHIP_OK => (chip, 0).hash(&mut hasher),
                    Some(_) => {}
                }
            }
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::HASHBOARD_SAMPLE;

    use super::*;

    fn rows(temps: &[Option<i32>], ok: &[Option<i32>]) -> Vec<Row> {
        let mut row = Row::new(&HASHBOARD_SAMPLE);
        row.set(board::BOARD_INDEX, 0);
        row.set(board::CHIP_TEMPS_CELSIUS, temps.to_vec());
        row.set(board::CHIP_OK, ok.to_vec());
        row.set(board::CHIPS_FOUND, 2);
        vec![row]
    }

    #[tokio::test(start_paused = true)]
    async fn lists_are_kept_hourly_and_when_a_chip_falls_silent_or_comes_back() {
        let mut lists = ChipLists::default();
        let mut kept = |temps: &[Option<i32>], ok: &[Option<i32>]| {
            let mut rows = rows(temps, ok);
            lists.thin(&mut rows);
            assert_ne!(*rows[0].cell(board::CHIPS_FOUND), Cell::Null);
            has_list(&rows[0])
        };
        let all = [Some(1), Some(1)];
        assert!(kept(&[Some(60), Some(61)], &all));
        assert!(!kept(&[Some(65), Some(70)], &all), "temperatures alone are no change");
        assert!(kept(&[Some(65), None], &all));
        assert!(!kept(&[Some(66), None], &all));
        assert!(kept(&[Some(65), None], &[Some(1), Some(0)]));
        assert!(kept(&[Some(65), Some(70)], &all));
        assert!(kept(&[Some(65)], &all));
        assert!(!kept(&[Some(66)], &all));
        tokio::time::advance(PERIOD).await;
        assert!(kept(&[Some(66)], &all));
        assert!(!kept(&[Some(66)], &all));
    }
}
