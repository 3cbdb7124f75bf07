//! What an Antminer does, judged from its rows, its mode and the errors that it raises.

use racklake_schemas::tables::{hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, Row};

use super::super::reader::MinerError;
use super::super::state::{Judged, State};

/// A stopped chip this hot has stopped for that.
const OVERHEAT_CELSIUS: i64 = 95;
/// Mining programs take minutes to tune; without a hash by then it is a fault.
const START_SECONDS: i64 = 600;

/// The state; `None` where the replies do not tell a hashrate.
pub(super) fn judge(row: &Row, boards: &[Row], mode: Option<&str>, errors: &[MinerError]) -> Option<Judged> {
    let rate = integer(row, miner::HASHRATE_5S_HASHES_PER_SECOND)
        .or_else(|| integer(row, miner::HASHRATE_HASHES_PER_SECOND))
        .or_else(|| {
            boards.iter().filter_map(|row| integer(row, board::HASHRATE_HASHES_PER_SECOND)).reduce(|a, b| a + b)
        });
    let is_young = integer(row, miner::UPTIME_SECONDS).is_some_and(|seconds| seconds < START_SECONDS);
    if rate.is_none_or(|rate| rate == 0) && mode.is_some_and(is_sleep) {
        return Some((State::Sleeping, Some("standby")));
    }
    if rate? > 0 {
        let is_dead = boards.iter().any(is_dead) && boards.iter().any(hashes);
        return Some(if is_dead && !is_young { (State::Fault, Some("dead board")) } else { (State::Mining, None) });
    }
    let raised = |component: &str| errors.iter().any(|error| error.component == component);
    let no_pool = integer(row, miner::POOLS_ALIVE) == Some(0);
    let no_boards = !boards.is_empty() && boards.iter().all(|row| integer(row, board::CHIPS_FOUND) == Some(0));
    Some(match () {
        () if is_hot(row, errors) => (State::Fault, Some("overheat")),
        () if raised("fan") => (State::Fault, Some("fan")),
        () if raised("psu") => (State::Fault, Some("psu")),
        () if is_young => (State::Mining, Some("starting")),
        () if no_boards => (State::Fault, Some("no hash boards")),
        () if no_pool || raised("pool") => (State::Fault, Some("no pool")),
        () => (State::Fault, Some("no hashrate")),
    })
}

/// Whether a `miner-mode` is that of a sleeping miner.
pub(super) fn is_sleep(mode: &str) -> bool {
    let mode = mode.trim().to_ascii_lowercase();
    matches!(mode.as_str(), "1" | "5" | "sleep" | "idle" | "stopped")
}

/// Whether heat has stopped it. A miner that is too cold raises an error of temperature too.
fn is_hot(row: &Row, errors: &[MinerError]) -> bool {
    let is_cold = |message: &str| ["P:2", "cold", "low", "under"].iter().any(|word| message.contains(word));
    let says = errors.iter().any(|error| error.component == "temperature" && !is_cold(&error.message));
    says || integer(row, miner::CHIP_TEMP_MAX_CELSIUS).is_some_and(|celsius| celsius >= OVERHEAT_CELSIUS)
}

fn hashes(row: &Row) -> bool {
    integer(row, board::HASHRATE_HASHES_PER_SECOND).is_some_and(|rate| rate > 0)
}

/// A board that tells neither hashes nor chips.
fn is_dead(row: &Row) -> bool {
    match integer(row, board::HASHRATE_HASHES_PER_SECOND) {
        Some(rate) => rate == 0,
        None => integer(row, board::CHIPS_FOUND).unwrap_or(0) == 0,
    }
}

fn integer(row: &Row, column: usize) -> Option<i64> {
    match row.cell(column) {
        Cell::I64(value) => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::{HASHBOARD_SAMPLE, MINER_SAMPLE};

    use super::*;

    fn row(cells: &[(usize, i64)]) -> Row {
        let mut row = Row::new(&MINER_SAMPLE);
        cells.iter().for_each(|(column, value)| row.set(*column, *value));
        row
    }

    fn boards(cells: &[(i64, Option<i64>)]) -> Vec<Row> {
        let board = |(chips, rate): &(i64, Option<i64>)| {
            let mut row = Row::new(&HASHBOARD_SAMPLE);
            row.set(board::CHIPS_FOUND, *chips);
            row.set(board::HASHRATE_HASHES_PER_SECOND, *rate);
            row
        };
        cells.iter().map(board).collect()
    }

    fn error(component: &'static str, message: &str) -> MinerError {
        MinerError { code: 1, message: message.to_owned(), component, board: None }
    }

    #[test]
    fn hashing_sleeping_and_the_faults_are_told_apart() {
        use State::{Fault, Mining, Sleeping};
        let rate = miner::HASHRATE_5S_HASHES_PER_SECOND;
        let old = (miner::UPTIME_SECONDS, 5000);
        let alive = (miner::POOLS_ALIVE, 3);
        let whole = boards(&[(110, Some(5)), (110, Some(5)), (25, Some(1))]);
        let dead = boards(&[(110, Some(5)), (110, Some(5)), (0, None)]);
        let still = boards(&[(110, Some(0)), (110, Some(0))]);
        let none = boards(&[(0, Some(0)), (0, None)]);
        let hot = (miner::CHIP_TEMP_MAX_CELSIUS, 97);
        for (cells, boards, mode, errors, state) in [
            (vec![(rate, 9), old], &whole, None, vec![], Some((Mining, None))),
            (vec![(rate, 9), old], &dead, None, vec![], Some((Fault, Some("dead board")))),
            (vec![(rate, 9), (miner::UPTIME_SECONDS, 99)], &dead, None, vec![], Some((Mining, None))),
            (vec![(rate, 9), old], &whole, Some("1"), vec![], Some((Mining, None))),
            (vec![(rate, 0), old, alive], &still, Some("1"), vec![], Some((Sleeping, Some("standby")))),
            (vec![(rate, 0), old, alive], &still, Some("0"), vec![], Some((Fault, Some("no hashrate")))),
            (vec![(rate, 0), (miner::UPTIME_SECONDS, 99)], &still, None, vec![], Some((Mining, Some("starting")))),
            (vec![(rate, 0), old, (miner::POOLS_ALIVE, 0)], &still, None, vec![], Some((Fault, Some("no pool")))),
            (vec![(rate, 0), old, alive], &none, None, vec![], Some((Fault, Some("no hash boards")))),
            (vec![(rate, 0), old, alive, hot], &still, None, vec![], Some((Fault, Some("overheat")))),
            (vec![(rate, 9), old, alive, hot], &whole, None, vec![], Some((Mining, None))),
            (vec![(rate, 0), old], &still, None, vec![error("temperature", "P:1")], Some((Fault, Some("overheat")))),
            (vec![(rate, 0), old], &still, None, vec![error("temperature", "P:2")], Some((Fault, Some("no hashrate")))),
            (vec![(rate, 0), old], &still, None, vec![error("fan", "")], Some((Fault, Some("fan")))),
            (vec![(rate, 0), old], &still, None, vec![error("psu", "V:1")], Some((Fault, Some("psu")))),
            (vec![old], &vec![], None, vec![], None),
            (vec![old], &vec![], Some("1"), vec![], Some((Sleeping, Some("standby")))),
            (vec![old], &whole, None, vec![], Some((Mining, None))),
        ] {
            assert_eq!(judge(&row(&cells), boards, mode, &errors), state, "{cells:?} {mode:?} {errors:?}");
        }
    }
}
