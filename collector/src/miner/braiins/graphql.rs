//! Rows of the replies of Braiins OS+' GraphQL interface, and of BOSminer's cgminer API beside it.

use racklake_schemas::Row;
use racklake_schemas::tables::{self, hashboard_sample as board, miner_sample as miner};

use super::{board_index, first_connector, hashing, highest};
use crate::miner::cgminer::{POOL_COLUMNS, Words, fill_pools};
use crate::miner::exchange::Trouble;
use crate::miner::filler::{Filler, Keys};
use crate::miner::json::Json;
use crate::miner::judge::Facts;
use crate::miner::reader::Replies;
use crate::miner::recipe::Form::{Float, Integer, NonZero, Word};
use crate::miner::recipe::{Place, Views, at, fill, finish, integer_at, walk};
use crate::miner::who::integer_of;

/// Way to the list of boards.
pub(super) const BOARDS: &str = "data/bosminer/info/workSolver/childSolvers";

/// What both interfaces tell. GraphQL goes first, and the cgminer API has what GraphQL lacks.
const MINER: &[Place] = &[
    at(miner::HASHRATE_HASHES_PER_SECOND, "system", "data/bosminer/info/workSolver/realHashrate/mhs5S", Integer(6)),
    at(miner::HASHRATE_5S_HASHES_PER_SECOND, "system", "data/bosminer/info/workSolver/realHashrate/mhs5S", Integer(6)),
    at(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, "system", "data/bosminer/info/workSolver/nominalMhs", Integer(6)),
    at(miner::POWER_ESTIMATED_MILLIWATTS, "system", "data/bosminer/info/summary/power/approxConsumptionW", Integer(3)),
    at(miner::POWER_LIMIT_MILLIWATTS, "system", "data/bosminer/info/summary/power/limitW", Integer(3)),
    at(miner::FAN_1_RPM, "system", "data/bosminer/info/fans/0/rpm", Integer(0)),
    at(miner::FAN_2_RPM, "system", "data/bosminer/info/fans/1/rpm", Integer(0)),
    at(miner::FAN_3_RPM, "system", "data/bosminer/info/fans/2/rpm", Integer(0)),
    at(miner::FAN_4_RPM, "system", "data/bosminer/info/fans/3/rpm", Integer(0)),
    at(miner::FAN_5_RPM, "system", "data/bosminer/info/fans/4/rpm", Integer(0)),
    at(miner::FAN_6_RPM, "system", "data/bosminer/info/fans/5/rpm", Integer(0)),
    at(miner::FAN_DUTY_PERCENT, "system", "data/bosminer/info/fans/0/speed", Integer(0)),
    at(miner::UPTIME_SECONDS, "system", "data/bos/uptime/durationS", Integer(0)),
    at(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS av", Integer(6)),
    at(miner::HASHRATE_1M_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 1m", Integer(6)),
    at(miner::HASHRATE_5M_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 5m", Integer(6)),
    at(miner::HASHRATE_15M_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 15m", Integer(6)),
    at(miner::HASHRATE_24H_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 24h", Integer(6)),
    at(miner::STALE_SHARES, "summary", "SUMMARY/0/Stale", Integer(0)),
    at(miner::HARDWARE_ERRORS, "summary", "SUMMARY/0/Hardware Errors", Integer(0)),
    at(miner::ACCEPTED_DIFFICULTY, "summary", "SUMMARY/0/Difficulty Accepted", Float),
    at(miner::REJECTED_DIFFICULTY, "summary", "SUMMARY/0/Difficulty Rejected", Float),
    at(miner::STALE_DIFFICULTY, "summary", "SUMMARY/0/Difficulty Stale", Float),
    at(miner::BLOCKS_FOUND, "summary", "SUMMARY/0/Found Blocks", Integer(0)),
    at(miner::BEST_SHARE_DIFFICULTY, "summary", "SUMMARY/0/Best Share", Float),
];

const BOARD: &[Place] = &[
    at(board::HASHRATE_HASHES_PER_SECOND, "board", "realHashrate/mhs5S", Integer(6)),
    at(board::HASHRATE_5S_HASHES_PER_SECOND, "board", "realHashrate/mhs5S", Integer(6)),
    at(board::HASHRATE_EXPECTED_HASHES_PER_SECOND, "board", "nominalMhs", Integer(6)),
    at(board::CHIPS_FOUND, "board", "hwDetails/chips", Integer(0)),
    at(board::FREQUENCY_KILOHERTZ, "board", "hwDetails/frequencyMhz", NonZero(3)),
    at(board::VOLTAGE_MILLIVOLTS, "board", "hwDetails/voltageV", NonZero(3)),
    at(board::BOARD_SERIAL, "board", "hwDetails/hbSerialNumber", Word),
    at(board::CHIP_TEMP_MAX_CELSIUS, "MAX_CHIP", "degreesC", NonZero(0)),
    at(board::CHIP_TEMP_MAX_CELSIUS, "Chip", "degreesC", NonZero(0)),
    at(board::PCB_TEMP_MAX_CELSIUS, "MAX_BOARD", "degreesC", NonZero(0)),
    at(board::PCB_TEMP_MAX_CELSIUS, "Board", "degreesC", NonZero(0)),
    at(board::INLET_TEMP_CELSIUS, "INLET", "degreesC", NonZero(0)),
    at(board::OUTLET_TEMP_CELSIUS, "OUTLET", "degreesC", NonZero(0)),
];

const POOL: Words =
    Words { url: "url", status: "status", alive: &["alive"], active: "active", difficulty: "difficulty" };

/// The row of the miner, those of its boards, and what the state is judged from.
pub(super) fn rows(replies: &Replies, keys: &mut Keys) -> (Row, Vec<Row>, Facts) {
    let solvers = replies.get("boards").unwrap_or(Err(Trouble::Unreadable));
    let solvers = solvers.map(|reply| walk(reply, BOARDS).map(Json::items).unwrap_or_default());
    let boards = solvers.map(|solvers| board_rows(solvers, keys)).unwrap_or_default();
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    fill(&mut filler, &Views::of(replies), MINER);
    fill_pool_groups(&mut filler, replies);
    match solvers {
        Ok(solvers) => filler.read(miner::BOARDS_FOUND, solvers.len() as i64),
        Err(trouble) => filler.fail(&[miner::BOARDS_FOUND], trouble),
    }
    for (column, of_board) in [
        (miner::CHIP_TEMP_MAX_CELSIUS, board::CHIP_TEMP_MAX_CELSIUS),
        (miner::PCB_TEMP_MAX_CELSIUS, board::PCB_TEMP_MAX_CELSIUS),
    ] {
        match (highest(&boards, of_board), solvers) {
            (Some(hottest), _) => filler.read(column, hottest),
            (None, Ok(_)) => filler.absent(column),
            (None, Err(trouble)) => filler.fail(&[column], trouble),
        }
    }
    let [url, status, difficulty] = POOL_COLUMNS;
    finish(&mut filler, &[url, status, difficulty, miner::STATE, miner::ERROR_CODES]);
    let row = filler.row;
    let facts = Facts {
        rate: integer_of(&row, miner::HASHRATE_HASHES_PER_SECOND),
        uptime: integer_of(&row, miner::UPTIME_SECONDS),
        pools_alive: integer_of(&row, miner::POOLS_ALIVE).map(|alive| alive as usize),
        boards: hashing(&boards),
        lists_boards: solvers.is_ok(),
        ..Facts::default()
    };
    (row, boards, facts)
}

/// Pools stand in groups, and the counters of shares with them.
fn fill_pool_groups(filler: &mut Filler<'_>, replies: &Replies) {
    let groups = replies.get("pools").unwrap_or(Err(Trouble::Unreadable));
    let groups = groups.map(|reply| walk(reply, "data/bosminer/info/poolGroups").map(Json::items).unwrap_or_default());
    let pools: Result<Vec<&Json>, Trouble> =
        groups.map(|groups| groups.iter().filter_map(|group| walk(group, "pools")).flat_map(Json::items).collect());
    for (column, path) in
        [(miner::ACCEPTED_SHARES, "shares/acceptedSolutions"), (miner::REJECTED_SHARES, "shares/rejectedSolutions")]
    {
        match &pools {
            Ok(pools) => match pools.iter().map(|pool| integer_at(pool, path, 0)).sum::<Option<i64>>() {
                Some(sum) if sum >= 0 && !pools.is_empty() => filler.read(column, sum),
                _ => filler.absent(column),
            },
            Err(trouble) => filler.fail(&[column], *trouble),
        }
    }
    fill_pools(filler, pools, &POOL);
}

fn board_rows(solvers: &[Json], keys: &mut Keys) -> Vec<Row> {
    let base = first_connector(solvers.iter().filter_map(|solver| solver.text_of("name")));
    let mut rows: Vec<(i64, Row)> = Vec::new();
    for solver in solvers {
        let Some(index) = solver.text_of("name").and_then(|name| board_index(name, base)) else { continue };
        if rows.iter().any(|(known, _)| *known == index) {
            continue;
        }
        let mut filler = Filler::new(&tables::HASHBOARD_SAMPLE, keys);
        filler.row.set(board::BOARD_INDEX, index);
        let temperatures = walk(solver, "temperatures").map(Json::items).unwrap_or_default();
        let mut parts = vec![("board", Ok(solver))];
        parts.extend(temperatures.iter().filter_map(|sensor| Some((sensor.text_of("name")?, Ok(sensor)))));
        fill(&mut filler, &Views::parts(parts), BOARD);
        finish(&mut filler, &[]);
        rows.push((index, filler.row));
    }
    rows.sort_by_key(|(index, _)| *index);
    rows.into_iter().map(|(_, row)| row).collect()
}
