//! Rows of LuxOS' replies.

use racklake_schemas::tables::{self, hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, Row};

use crate::miner::cgminer::{POOL_COLUMNS, SUMMARY, WORDS, fill_pools};
use crate::miner::exchange::{Trouble, section};
use crate::miner::filler::{Filler, Keys};
use crate::miner::json::Json;
use crate::miner::judge::Facts;
use crate::miner::reader::Replies;
use crate::miner::recipe::Form::{Integer, NonZero, Word};
use crate::miner::recipe::{Place, Views, at, fill, finish, integer_at, put_chips, sensor, text_at, truth_at, walk};

const BOARDS_MAX: usize = 64;

const MINER: &[Place] = &[
    at(miner::HASHRATE_HASHES_PER_SECOND, "summary", "SUMMARY/0/GHS 5s", Integer(9)),
    at(miner::HASHRATE_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 5s", Integer(6)),
    at(miner::FREQUENCY_KILOHERTZ, "stats", "STATS/1/total_freqavg", Integer(3)),
    at(miner::FAN_1_RPM, "fans", "FANS/0/RPM", Integer(0)),
    at(miner::FAN_2_RPM, "fans", "FANS/1/RPM", Integer(0)),
    at(miner::FAN_3_RPM, "fans", "FANS/2/RPM", Integer(0)),
    at(miner::FAN_4_RPM, "fans", "FANS/3/RPM", Integer(0)),
    at(miner::FAN_5_RPM, "fans", "FANS/4/RPM", Integer(0)),
    at(miner::FAN_6_RPM, "fans", "FANS/5/RPM", Integer(0)),
    at(miner::FAN_DUTY_PERCENT, "fans", "FANS/0/Speed", Integer(0)),
    at(miner::POWER_MODE, "config", "CONFIG/0/Profile", Word),
];

/// `PSU` says whether the supply has measured the power. Where it has not, it is what the firmware reckons.
const POWER_MEASURED: &[Place] = &[at(miner::POWER_MILLIWATTS, "power", "POWER/0/Watts", Integer(3))];
const POWER_ESTIMATED: &[Place] = &[at(miner::POWER_ESTIMATED_MILLIWATTS, "power", "POWER/0/Watts", Integer(3))];

const BOARD: &[Place] = &[
    at(board::HASHRATE_HASHES_PER_SECOND, "board", "MHS 5s", Integer(6)),
    at(board::HASHRATE_AVERAGE_HASHES_PER_SECOND, "board", "MHS av", Integer(6)),
    at(board::HASHRATE_5S_HASHES_PER_SECOND, "board", "MHS 5s", Integer(6)),
    at(board::HASHRATE_1M_HASHES_PER_SECOND, "board", "MHS 1m", Integer(6)),
    at(board::HASHRATE_5M_HASHES_PER_SECOND, "board", "MHS 5m", Integer(6)),
    at(board::HASHRATE_15M_HASHES_PER_SECOND, "board", "MHS 15m", Integer(6)),
    at(board::HASHRATE_EXPECTED_HASHES_PER_SECOND, "board", "Nominal MHS", Integer(6)),
    at(board::HARDWARE_ERRORS, "board", "Hardware Errors", Integer(0)),
    at(board::ACCEPTED_NONCES, "board", "Accepted", Integer(0)),
    at(board::REJECTED_NONCES, "board", "Rejected", Integer(0)),
    at(board::BOARD_STATUS, "board", "Status", Word),
    at(board::BOARD_SERIAL, "board", "SerialNumber", Word),
    at(board::VOLTAGE_MILLIVOLTS, "voltage", "VOLTAGE/0/Voltage", NonZero(3)),
];

const CHIP_COLUMNS: [usize; 2] = [board::CHIP_FREQUENCIES_KILOHERTZ, board::CHIP_HASHRATES_MEGAHASHES_PER_SECOND];

/// The row of `miner_sample`, without what the source sets.
pub(super) fn miner_row(replies: &Replies, keys: &mut Keys) -> Row {
    let views = Views::of(replies);
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    fill(&mut filler, &views, SUMMARY);
    fill(&mut filler, &views, MINER);
    let is_measured = replies.ok("power").and_then(|power| truth_at(power, "POWER/0/PSU")) == Some(true);
    fill(&mut filler, &views, if is_measured { POWER_MEASURED } else { POWER_ESTIMATED });
    let pools = replies.get("pools").unwrap_or(Err(Trouble::Unreadable)).and_then(|reply| section(reply, "POOLS"));
    fill_pools(&mut filler, pools.map(|pools| pools.iter().collect()), &WORDS);
    match replies.get("devs").map(|reply| reply.and_then(|reply| section(reply, "DEVS"))) {
        Some(Ok(devs)) => {
            filler.read(miner::BOARDS_FOUND, devs.len() as i64);
            let expected = devs.iter().map(|board| integer_at(board, "Nominal MHS", 6));
            match expected.sum::<Option<i64>>() {
                Some(sum) => filler.read(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, sum),
                None => filler.absent(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND),
            }
        }
        Some(Err(trouble)) => {
            filler.fail(&[miner::BOARDS_FOUND, miner::HASHRATE_EXPECTED_HASHES_PER_SECOND], trouble);
        }
        None => {}
    }
    match replies.get("temps") {
        Some(Ok(temps)) => match walk(temps, "TEMPS").map(Json::items).and_then(|boards| hottest(boards)) {
            Some(hottest) => filler.read(miner::PCB_TEMP_MAX_CELSIUS, hottest),
            None => filler.absent(miner::PCB_TEMP_MAX_CELSIUS),
        },
        Some(Err(trouble)) => filler.fail(&[miner::PCB_TEMP_MAX_CELSIUS], trouble),
        None => {}
    }
    let [url, status, difficulty] = POOL_COLUMNS;
    finish(&mut filler, &[url, status, difficulty, miner::STATE, miner::ERROR_CODES]);
    filler.row
}

/// Names of the four corners of a board in `temps`.
const CORNERS: [&str; 4] = ["TopLeft", "TopRight", "BottomLeft", "BottomRight"];

fn hottest(boards: &[Json]) -> Option<i32> {
    boards.iter().flat_map(|board| CORNERS.map(|corner| board.text_of(corner).and_then(sensor))).flatten().max()
}

/// The rows of `hashboard_sample`, one per board that `devs` lists.
pub(super) fn board_rows(replies: &Replies, keys: &mut Keys) -> Vec<Row> {
    let Some(Ok(devs)) = replies.ok("devs").map(|reply| section(reply, "DEVS")) else { return Vec::new() };
    let mut boards: Vec<(i64, &Json)> =
        devs.iter().filter_map(|board| Some((integer_at(board, "ID", 0)?, board))).collect();
    boards.sort_by_key(|(number, _)| *number);
    boards.dedup_by_key(|(number, _)| *number);
    boards.retain(|(number, _)| (0..BOARDS_MAX as i64).contains(number));
    boards.into_iter().map(|(number, json)| board_row(replies, number, json, keys)).collect()
}

fn board_row(replies: &Replies, number: i64, json: &Json, keys: &mut Keys) -> Row {
    let mut filler = Filler::new(&tables::HASHBOARD_SAMPLE, keys);
    filler.row.set(board::BOARD_INDEX, number);
    let mut parts = vec![("board", Ok(json))];
    parts.extend(replies.get(&format!("voltageget {number}")).map(|reply| ("voltage", reply)));
    fill(&mut filler, &Views::parts(parts), BOARD);
    fill_chain(&mut filler, replies.get("stats"), number);
    fill_corners(&mut filler, replies.get("temps"), number);
    let health = replies.get(&format!("healthchipget {number}"));
    match health {
        Some(Ok(reply)) => {
            let chips = walk(reply, "CHIPS").map(Json::items);
            put_chips(&mut filler, board::CHIP_FREQUENCIES_KILOHERTZ, chips, "Frequency", 3);
            put_chips(&mut filler, board::CHIP_HASHRATES_MEGAHASHES_PER_SECOND, chips, "GHS 1m", 3);
        }
        Some(Err(trouble)) => filler.fail(&CHIP_COLUMNS, trouble),
        None => {}
    }
    finish(&mut filler, if health.is_none() { &CHIP_COLUMNS } else { &[] });
    filler.row
}

/// What `stats` tells of a board, whose chain has a number that is greater by one.
fn fill_chain(filler: &mut Filler<'_>, stats: Option<Result<&Json, Trouble>>, number: i64) {
    const COLUMNS: [usize; 4] = [board::CHIPS_FOUND, board::CHIPS_EXPECTED, board::CHIP_OK, board::FREQUENCY_KILOHERTZ];
    let stats = match stats {
        Some(Ok(stats)) => stats,
        Some(Err(trouble)) => return filler.fail(&COLUMNS, trouble),
        None => return,
    };
    let chain = |name: &str| text_at(stats, &format!("STATS/1/{name}{}", number + 1));
    filler.integer(board::CHIPS_FOUND, chain("chain_acn"), 0);
    filler.integer(board::FREQUENCY_KILOHERTZ, chain("freq"), 3);
    let marks = chain("chain_acs").map(chip_marks).filter(|marks| !marks.is_empty());
    match marks {
        Some(marks) => {
            filler.read(board::CHIPS_EXPECTED, marks.len() as i64);
            filler.read(board::CHIP_OK, marks);
        }
        None => {
            filler.absent(board::CHIPS_EXPECTED);
            filler.absent(board::CHIP_OK);
        }
    }
}

/// The map of chips that firmwares for Antminers print: `o` for a chip that answers, `x` for one that does not.
pub(in crate::miner) fn chip_marks(text: &str) -> Vec<Option<i32>> {
    let mark = |letter: char| match letter {
        'o' => Some(Some(1)),
        'x' => Some(Some(0)),
        letter if letter.is_whitespace() => None,
        _ => Some(None),
    };
    text.chars().filter_map(mark).take(10_000).collect()
}

/// The sensors of a board: which of them lie where air comes in is in the labels beside them.
fn fill_corners(filler: &mut Filler<'_>, temps: Option<Result<&Json, Trouble>>, number: i64) {
    const COLUMNS: [usize; 4] =
        [board::PCB_TEMP_MAX_CELSIUS, board::PCB_TEMPS_CELSIUS, board::INLET_TEMP_CELSIUS, board::OUTLET_TEMP_CELSIUS];
    let temps = match temps {
        Some(Ok(temps)) => temps,
        Some(Err(trouble)) => return filler.fail(&COLUMNS, trouble),
        None => return,
    };
    let boards = walk(temps, "TEMPS").map(Json::items).unwrap_or_default();
    let Some(corners) = boards.iter().find(|board| integer_at(board, "ID", 0) == Some(number)) else {
        return COLUMNS.iter().for_each(|column| filler.absent(*column));
    };
    let told: Vec<&str> = CORNERS.into_iter().filter(|corner| corners.text_of(corner).is_some()).collect();
    let values: Vec<Option<i32>> = told.iter().map(|corner| corners.text_of(corner).and_then(sensor)).collect();
    let labelled = |word: &str| {
        let label = |corner: &str| text_at(temps, &format!("METADATA/0/{corner}/Label")).unwrap_or_default();
        told.iter()
            .zip(&values)
            .filter(|(corner, _)| label(corner).contains(word))
            .filter_map(|(_, value)| *value)
            .max()
    };
    let set = |filler: &mut Filler<'_>, column: usize, value: Option<i32>| match value {
        Some(value) => filler.read(column, value),
        None => filler.absent(column),
    };
    set(filler, board::PCB_TEMP_MAX_CELSIUS, values.iter().flatten().max().copied());
    set(filler, board::INLET_TEMP_CELSIUS, labelled("Intake"));
    set(filler, board::OUTLET_TEMP_CELSIUS, labelled("Exhaust"));
    match values.is_empty() {
        false => filler.read(board::PCB_TEMPS_CELSIUS, values),
        true => filler.absent(board::PCB_TEMPS_CELSIUS),
    }
}

/// What the state is judged from.
pub(super) fn facts(replies: &Replies, row: &Row) -> Facts {
    let integer = |column: usize| match row.cell(column) {
        Cell::I64(value) => Some(*value),
        _ => None,
    };
    let config = |name: &str| text_at(replies.ok("config")?, &format!("CONFIG/0/{name}"));
    let rate = integer(miner::HASHRATE_HASHES_PER_SECOND);
    let curtailed = config("CurtailMode").is_some_and(|mode| mode.eq_ignore_ascii_case("sleep"));
    let events = replies.ok("events").map(super::errors).unwrap_or_default();
    let is_hot = events.iter().any(|event| event.component == "temperature");
    let devs = replies.ok("devs").and_then(|reply| section(reply, "DEVS").ok());
    Facts {
        asleep: curtailed.then_some("curtailed"),
        fault: (is_hot && rate == Some(0)).then_some("overheat"),
        is_starting: false,
        rate,
        uptime: integer(miner::UPTIME_SECONDS),
        pools_alive: integer(miner::POOLS_ALIVE).map(|alive| alive as usize),
        boards: devs.unwrap_or_default().iter().map(works).collect(),
        boards_expected: None,
        lists_boards: devs.is_some(),
    }
}

/// Whether a board works. One that was shut down by its owner, or whose clock is still rising, is no fault.
fn works(board: &Json) -> Option<bool> {
    if truth_at(board, "IsUserShutdown") == Some(true) || truth_at(board, "IsRamping") == Some(true) {
        return None;
    }
    let is_alive = board.text_of("Status").map(|status| status.eq_ignore_ascii_case("alive"))?;
    let is_enabled = truth_at(board, "Enabled").unwrap_or(true);
    let hashes = integer_at(board, "MHS 5m", 6).or_else(|| integer_at(board, "MHS 5s", 6)).is_none_or(|rate| rate > 0);
    Some(is_alive && is_enabled && hashes)
}
