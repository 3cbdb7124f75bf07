//! Rows of the replies of Braiins OS+' REST interface.

use racklake_schemas::Row;
use racklake_schemas::tables::{self, hashboard_sample as board, miner_sample as miner};

use super::{ERRORS, SUSPENDED, board_index, first_connector, hashing, highest};
use crate::miner::cgminer::{POOL_COLUMNS, Words, fill_pools};
use crate::miner::exchange::Trouble;
use crate::miner::filler::{Filler, Keys};
use crate::miner::json::Json;
use crate::miner::judge::Facts;
use crate::miner::reader::Replies;
use crate::miner::recipe::Form::{Float, Integer, NonZero, Word};
use crate::miner::recipe::{Place, Views, at, fill, finish, integer_at, truth_at, walk};
use crate::miner::who::integer_of;

/// A chip this hot has stopped the miner.
const OVERHEAT_CELSIUS: i64 = 95;

const STATS: &str = "miner/stats";
const COOLING: &str = "cooling/state";
const TUNER: &str = "performance/tuner-state";

const MINER: &[Place] = &[
    at(miner::HASHRATE_HASHES_PER_SECOND, STATS, "miner_stats/real_hashrate/last_5s/gigahash_per_second", Integer(9)),
    at(
        miner::HASHRATE_AVERAGE_HASHES_PER_SECOND,
        STATS,
        "miner_stats/real_hashrate/since_restart/gigahash_per_second",
        Integer(9),
    ),
    at(
        miner::HASHRATE_5S_HASHES_PER_SECOND,
        STATS,
        "miner_stats/real_hashrate/last_5s/gigahash_per_second",
        Integer(9),
    ),
    at(
        miner::HASHRATE_1M_HASHES_PER_SECOND,
        STATS,
        "miner_stats/real_hashrate/last_1m/gigahash_per_second",
        Integer(9),
    ),
    at(
        miner::HASHRATE_5M_HASHES_PER_SECOND,
        STATS,
        "miner_stats/real_hashrate/last_5m/gigahash_per_second",
        Integer(9),
    ),
    at(
        miner::HASHRATE_15M_HASHES_PER_SECOND,
        STATS,
        "miner_stats/real_hashrate/last_15m/gigahash_per_second",
        Integer(9),
    ),
    at(
        miner::HASHRATE_30M_HASHES_PER_SECOND,
        STATS,
        "miner_stats/real_hashrate/last_30m/gigahash_per_second",
        Integer(9),
    ),
    at(
        miner::HASHRATE_1H_HASHES_PER_SECOND,
        STATS,
        "miner_stats/real_hashrate/last_1h/gigahash_per_second",
        Integer(9),
    ),
    at(
        miner::HASHRATE_24H_HASHES_PER_SECOND,
        STATS,
        "miner_stats/real_hashrate/last_24h/gigahash_per_second",
        Integer(9),
    ),
    at(
        miner::HASHRATE_EXPECTED_HASHES_PER_SECOND,
        STATS,
        "miner_stats/nominal_hashrate/gigahash_per_second",
        Integer(9),
    ),
    at(miner::BLOCKS_FOUND, STATS, "miner_stats/found_blocks", Integer(0)),
    at(miner::BEST_SHARE_DIFFICULTY, STATS, "miner_stats/best_share", Float),
    at(miner::ACCEPTED_SHARES, STATS, "pool_stats/accepted_shares", Integer(0)),
    at(miner::REJECTED_SHARES, STATS, "pool_stats/rejected_shares", Integer(0)),
    at(miner::STALE_SHARES, STATS, "pool_stats/stale_shares", Integer(0)),
    at(miner::POWER_ESTIMATED_MILLIWATTS, STATS, "power_stats/approximated_consumption/watt", Integer(3)),
    at(miner::POWER_LIMIT_MILLIWATTS, TUNER, "mode_state/powertargetmodestate/current_target/watt", Integer(3)),
    at(miner::FAN_1_RPM, COOLING, "fans/0/rpm", Integer(0)),
    at(miner::FAN_2_RPM, COOLING, "fans/1/rpm", Integer(0)),
    at(miner::FAN_3_RPM, COOLING, "fans/2/rpm", Integer(0)),
    at(miner::FAN_4_RPM, COOLING, "fans/3/rpm", Integer(0)),
    at(miner::FAN_5_RPM, COOLING, "fans/4/rpm", Integer(0)),
    at(miner::FAN_6_RPM, COOLING, "fans/5/rpm", Integer(0)),
    at(miner::FAN_DUTY_PERCENT, COOLING, "fans/0/target_speed_ratio", Integer(2)),
    at(miner::UPTIME_SECONDS, "miner/details", "bosminer_uptime_s", Integer(0)),
];

const BOARD: &[Place] = &[
    at(board::HASHRATE_HASHES_PER_SECOND, "board", "stats/real_hashrate/last_5s/gigahash_per_second", Integer(9)),
    at(
        board::HASHRATE_AVERAGE_HASHES_PER_SECOND,
        "board",
        "stats/real_hashrate/since_restart/gigahash_per_second",
        Integer(9),
    ),
    at(board::HASHRATE_5S_HASHES_PER_SECOND, "board", "stats/real_hashrate/last_5s/gigahash_per_second", Integer(9)),
    at(board::HASHRATE_1M_HASHES_PER_SECOND, "board", "stats/real_hashrate/last_1m/gigahash_per_second", Integer(9)),
    at(board::HASHRATE_5M_HASHES_PER_SECOND, "board", "stats/real_hashrate/last_5m/gigahash_per_second", Integer(9)),
    at(board::HASHRATE_15M_HASHES_PER_SECOND, "board", "stats/real_hashrate/last_15m/gigahash_per_second", Integer(9)),
    at(board::HASHRATE_EXPECTED_HASHES_PER_SECOND, "board", "stats/nominal_hashrate/gigahash_per_second", Integer(9)),
    at(board::CHIPS_FOUND, "board", "chips_count", Integer(0)),
    at(board::CHIP_TEMP_MAX_CELSIUS, "board", "highest_chip_temp/temperature/degree_c", NonZero(0)),
    at(board::PCB_TEMP_MAX_CELSIUS, "board", "board_temp/degree_c", NonZero(0)),
    at(board::INLET_TEMP_CELSIUS, "board", "lowest_inlet_temp/degree_c", NonZero(0)),
    at(board::OUTLET_TEMP_CELSIUS, "board", "highest_outlet_temp/degree_c", NonZero(0)),
    at(board::VOLTAGE_MILLIVOLTS, "board", "current_voltage/volt", NonZero(3)),
    at(board::FREQUENCY_KILOHERTZ, "board", "current_frequency/hertz", NonZero(-3)),
    at(board::BOARD_SERIAL, "board", "serial_number", Word),
];

const POOL: Words =
    Words { url: "url", status: "alive", alive: &["true"], active: "active", difficulty: "stats/last_difficulty" };

/// The row of the miner, those of its boards, and what the state is judged from.
pub(super) fn rows(replies: &Replies, keys: &mut Keys) -> (Row, Vec<Row>, Facts) {
    let hashboards = replies.get("miner/hw/hashboards").unwrap_or(Err(Trouble::Unreadable));
    let listed = hashboards.map(|reply| walk(reply, "hashboards").map(Json::items).unwrap_or_default());
    let boards = listed.map(|boards| board_rows(boards, keys)).unwrap_or_default();
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    fill(&mut filler, &Views::of(replies), MINER);
    fill_pool_groups(&mut filler, replies);
    fill_of_boards(&mut filler, listed.map(<[Json]>::len), &boards);
    if let Some(mode) = replies.ok(TUNER).and_then(|tuner| walk(tuner, "mode_state")).and_then(first_member) {
        filler.word(miner::POWER_MODE, Some(mode.trim_end_matches("modestate")));
    }
    let [url, status, difficulty] = POOL_COLUMNS;
    finish(&mut filler, &[url, status, difficulty, miner::STATE, miner::ERROR_CODES]);
    let facts = facts(replies, &filler.row, listed.ok(), &boards);
    (filler.row, boards, facts)
}

fn first_member(json: &Json) -> Option<&str> {
    match json {
        Json::Object(members) => members.first().map(|(name, _)| name.as_str()),
        _ => None,
    }
}

/// Pools stand in groups.
fn fill_pool_groups(filler: &mut Filler<'_>, replies: &Replies) {
    let groups = replies.get("pools").unwrap_or(Err(Trouble::Unreadable));
    let pools = |group| walk(group, "pools").map(Json::items).unwrap_or_default();
    fill_pools(filler, groups.map(|groups| groups.items().iter().flat_map(pools).collect()), &POOL);
}

/// What the miner's row says of all boards together.
fn fill_of_boards(filler: &mut Filler<'_>, listed: Result<usize, Trouble>, boards: &[Row]) {
    match listed {
        Ok(count) => filler.read(miner::BOARDS_FOUND, count as i64),
        Err(trouble) => filler.fail(&[miner::BOARDS_FOUND], trouble),
    }
    for (column, of_board) in [
        (miner::CHIP_TEMP_MAX_CELSIUS, board::CHIP_TEMP_MAX_CELSIUS),
        (miner::PCB_TEMP_MAX_CELSIUS, board::PCB_TEMP_MAX_CELSIUS),
    ] {
        match (highest(boards, of_board), listed) {
            (Some(hottest), _) => filler.read(column, hottest),
            (None, Ok(_)) => filler.absent(column),
            (None, Err(trouble)) => filler.fail(&[column], trouble),
        }
    }
}

fn board_rows(boards: &[Json], keys: &mut Keys) -> Vec<Row> {
    let name = |board: &'_ Json| -> Option<String> { board.text_of("id").map(str::to_owned) };
    let names: Vec<String> = boards.iter().filter_map(name).collect();
    let base = first_connector(names.iter().map(String::as_str));
    let mut rows: Vec<(i64, Row)> = Vec::new();
    for json in boards {
        let Some(index) = json.text_of("id").and_then(|name| board_index(name, base)) else { continue };
        if rows.iter().any(|(known, _)| *known == index) {
            continue;
        }
        let mut filler = Filler::new(&tables::HASHBOARD_SAMPLE, keys);
        filler.row.set(board::BOARD_INDEX, index);
        fill(&mut filler, &Views::parts(vec![("board", Ok(json))]), BOARD);
        if let Some(enabled) = truth_at(json, "enabled") {
            filler.word(board::BOARD_STATUS, Some(if enabled { "enabled" } else { "disabled" }));
        }
        finish(&mut filler, &[]);
        rows.push((index, filler.row));
    }
    rows.sort_by_key(|(index, _)| *index);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Whether the last message of the log is about heat.
fn ends_hot(log: &Json) -> bool {
    let last = walk(log, "errors").and_then(|errors| errors.items().last());
    let message = last.and_then(|error| error.text_of("message")).unwrap_or_default().to_ascii_lowercase();
    ["overheat", "temperature", "too hot", "thermal"].iter().any(|word| message.contains(word))
}

/// The firmware's numbers: 1 not started, 2 mining, 3 paused by its owner, 4 suspended by itself, 5 restricted.
fn facts(replies: &Replies, row: &Row, listed: Option<&[Json]>, boards: &[Row]) -> Facts {
    let status = replies.ok("miner/details").and_then(|details| integer_at(details, "status", 0));
    let is_hot = integer_of(row, miner::CHIP_TEMP_MAX_CELSIUS).is_some_and(|hottest| hottest >= OVERHEAT_CELSIUS)
        || replies.ok(ERRORS).is_some_and(ends_hot);
    let asleep = match status {
        Some(1) => Some("standby"),
        Some(3) => Some("curtailed"),
        Some(SUSPENDED) => Some("idle"),
        _ => None,
    };
    let enabled = |index: usize| listed.and_then(|boards| truth_at(boards.get(index)?, "enabled"));
    let works = hashing(boards).into_iter().enumerate();
    Facts {
        fault: (is_hot && status == Some(SUSPENDED)).then_some("overheat"),
        asleep: asleep.filter(|_| !(is_hot && status == Some(SUSPENDED))),
        is_starting: false,
        rate: integer_of(row, miner::HASHRATE_HASHES_PER_SECOND),
        uptime: integer_of(row, miner::UPTIME_SECONDS),
        pools_alive: integer_of(row, miner::POOLS_ALIVE).map(|alive| alive as usize),
        boards: works.map(|(index, works)| works.map(|works| works && enabled(index) != Some(false))).collect(),
        boards_expected: None,
        lists_boards: listed.is_some(),
    }
}
