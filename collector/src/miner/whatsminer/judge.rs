//! What a Whatsminer does, judged from its rows, from whether its mining program is stopped, and from its error codes.

use racklake_schemas::tables::{hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, Row};

use super::super::json::Json;
use super::super::reader::MinerError;
use super::super::state::{Judged, State};
use super::codes;
use super::parts::Parts;

/// Mining programs take minutes to tune; without a hash by then it is a fault.
const START_SECONDS: i64 = 600;
/// As long as the clock is still being raised, it may take longer.
const TUNING_SECONDS: i64 = 3600;

/// Hashrates of a board, the nearest to now first.
const BOARD_RATES: [usize; 4] = [
    board::HASHRATE_HASHES_PER_SECOND,
    board::HASHRATE_5S_HASHES_PER_SECOND,
    board::HASHRATE_1M_HASHES_PER_SECOND,
    board::HASHRATE_AVERAGE_HASHES_PER_SECOND,
];

/// Hashrates of the miner, the nearest to now first.
const RATES: [usize; 4] = [
    miner::HASHRATE_HASHES_PER_SECOND,
    miner::HASHRATE_5S_HASHES_PER_SECOND,
    miner::HASHRATE_1M_HASHES_PER_SECOND,
    miner::HASHRATE_AVERAGE_HASHES_PER_SECOND,
];

/// Whether somebody or something has stopped the mining program; `None` where the replies do not say.
pub(super) fn is_stopped(parts: &Parts<'_>) -> Option<bool> {
    let status = parts.status.json;
    let told = status.and_then(|status| status.get("mineroff").or_else(|| status.get("btmineroff")));
    let truth = |value: &Json| match value {
        Json::Bool(value) => *value,
        other => other.text().is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1"),
    };
    let works = parts.device.json.and_then(|device| device.get("working")).map(truth);
    told.map(truth).or(works.map(|works| !works))
}

/// The state; `None` where the replies tell neither a hashrate nor that it is stopped.
pub(super) fn judge(row: &Row, boards: &[Row], parts: &Parts<'_>, errors: &[MinerError]) -> Option<Judged> {
    let rate = RATES.iter().find_map(|column| integer(row, *column));
    let why = parts.status.text("mineroff_reason", "").unwrap_or_default().to_ascii_lowercase();
    let is_hot = errors.iter().any(|error| codes::is_too_hot(error.code))
        || ["temp", "heat", "hot"].iter().any(|word| why.contains(word));
    if is_stopped(parts) == Some(true) && rate.is_none_or(|rate| rate == 0 || !hashes_now(row)) {
        return Some(match () {
            () if is_hot => (State::Fault, Some("overheat")),
            () if ["curtail", "demand", "schedule"].iter().any(|word| why.contains(word)) => {
                (State::Sleeping, Some("curtailed"))
            }
            () => (State::Sleeping, Some("standby")),
        });
    }
    let uptime = integer(row, miner::UPTIME_SECONDS);
    let is_young = uptime.is_some_and(|seconds| seconds < START_SECONDS);
    if rate? > 0 {
        let is_missed = errors.iter().any(|error| codes::is_missing_board(error.code));
        let is_dead = boards.iter().any(is_dead) || is_missed;
        let is_one_alive = boards.iter().any(|row| !is_dead_board(row));
        let is_fault = is_dead && is_one_alive && !is_young;
        return Some(if is_fault { (State::Fault, Some("dead board")) } else { (State::Mining, None) });
    }
    let raised = |component: &str| errors.iter().any(|error| error.component == component);
    let is_tuning = is_young || is_tuning(parts) && uptime.is_some_and(|seconds| seconds < TUNING_SECONDS);
    let no_boards = parts.boards.json.is_some() && boards.iter().all(|row| integer(row, board::CHIPS_FOUND) == Some(0));
    Some(match () {
        () if is_hot => (State::Fault, Some("overheat")),
        () if raised("psu") => (State::Fault, Some("psu")),
        () if raised("fan") => (State::Fault, Some("fan")),
        () if is_tuning => (State::Mining, Some("starting")),
        () if no_boards => (State::Fault, Some("no hash boards")),
        () if integer(row, miner::POOLS_ALIVE) == Some(0) || raised("pool") => (State::Fault, Some("no pool")),
        () if errors.iter().any(|error| codes::is_firmware(error.code)) => (State::Fault, Some("firmware error")),
        () => (State::Fault, Some("no hashrate")),
    })
}

/// Whether it hashes at this moment; averages go on for a while after it has stopped.
fn hashes_now(row: &Row) -> bool {
    integer(row, miner::HASHRATE_HASHES_PER_SECOND).is_some_and(|rate| rate > 0)
}

/// Whether some board says that its clock is still being raised.
fn is_tuning(parts: &Parts<'_>) -> bool {
    let Some(Json::List(items)) = parts.boards.json else { return false };
    items.iter().any(|item| item.text_of("Upfreq Complete") == Some("0"))
        || parts.summary.text("", "up-freq-finish") == Some("0")
}

fn is_dead(row: &Row) -> bool {
    let says_so = matches!(row.cell(board::BOARD_STATUS), Cell::Text(status) if !status.eq_ignore_ascii_case("alive"));
    says_so || is_dead_board(row)
}

/// A board without a hash, or of which there is no word.
fn is_dead_board(row: &Row) -> bool {
    match BOARD_RATES.iter().find_map(|column| integer(row, *column)) {
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
