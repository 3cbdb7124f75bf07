//! Bitdeer's Sealminer: bdminer's cgminer API, whose `stats` has keys with the number of a board or a fan in front, and
//! a web interface behind a login that says who the miner is.

use racklake_schemas::tables::{self, device, hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Row, fail_code};

use super::door::{Door, Lock};
use super::{Ask, BOARDS_MAX, Described, Read, board_filler, facts_of, in_order, set};
use crate::miner::cgminer::{POOL_COLUMNS, SUMMARY, WORDS, fill_pools};
use crate::miner::exchange::{Trouble, section};
use crate::miner::filler::{Filler, Keys};
use crate::miner::json::Json;
use crate::miner::judge::Facts;
use crate::miner::reader::{MinerError, Replies};
use crate::miner::recipe::Form::{Integer, NonZero, Word};
use crate::miner::recipe::{Place, Views, at, error_code, fill, finish, integer_at, sensor, text_at, truth_at, walk};
use crate::miner::who;
use crate::source::Identity;

/// The supply's own reply, for firmwares whose `stats` does not have it.
const SUPPLY: &str = "miner-psu-status";

/// Sealminer.
pub(in crate::miner) static SEALMINER: Described = Described {
    make: "sealminer",
    sample: &[Ask::Rpc("summary"), Ask::Rpc("stats"), Ask::Rpc("pools"), Ask::Get(SUPPLY)],
    identity: &[Ask::Rpc("version"), Ask::Get("get_system_info")],
    chips: &[],
    door: Door { before: "/cgi-bin/", behind: ".php", lock: Lock::Cookie { login: "/cgi-bin/login.php" } },
    read,
    who,
};

const MINER: &[Place] = &[
    at(miner::HASHRATE_HASHES_PER_SECOND, "stats", "STATS/0/MHS(Sample)", Integer(6)),
    at(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, "stats", "STATS/0/MHS(Ideal)", Integer(6)),
    at(miner::HASHRATE_1H_HASHES_PER_SECOND, "stats", "STATS/0/MHS(1h)", Integer(6)),
    at(miner::HASHRATE_30M_HASHES_PER_SECOND, "stats", "STATS/0/MHS(30m)", Integer(6)),
    at(miner::POWER_MILLIWATTS, "stats", "STATS/0/PSU Input Power", Integer(3)),
    at(miner::POWER_OUTPUT_MILLIWATTS, "stats", "STATS/0/PSU Output Power", Integer(3)),
    at(miner::POWER_LIMIT_MILLIWATTS, "stats", "STATS/0/Power Limit", Integer(3)),
    at(miner::PSU_INPUT_MILLIVOLTS, "stats", "STATS/0/PSU Input Voltage", NonZero(3)),
    at(miner::PSU_OUTPUT_MILLIVOLTS, "stats", "STATS/0/PSU Output Voltage", Integer(3)),
    at(miner::PSU_OUTPUT_MILLIVOLTS, SUPPLY, "Voltage", Integer(3)),
    at(miner::PSU_OUTPUT_MILLIAMPERES, "stats", "STATS/0/PSU Output Current", Integer(3)),
    at(miner::PSU_OUTPUT_MILLIAMPERES, SUPPLY, "Current", Integer(3)),
    at(miner::PSU_TEMP_CELSIUS, "stats", "STATS/0/PSU Temp AMB", NonZero(0)),
    at(miner::PSU_TEMP_CELSIUS, SUPPLY, "Temp", NonZero(0)),
    at(miner::PSU_FAN_RPM, "stats", "STATS/0/PSU Fan Speed", Integer(0)),
    at(miner::FREQUENCY_KILOHERTZ, "stats", "STATS/0/Freq", Integer(3)),
    at(miner::BOARDS_FOUND, "stats", "STATS/0/Board Count", Integer(0)),
    at(miner::FAN_1_RPM, "stats", "STATS/0/0 Speed", Integer(0)),
    at(miner::FAN_2_RPM, "stats", "STATS/0/1 Speed", Integer(0)),
    at(miner::FAN_3_RPM, "stats", "STATS/0/2 Speed", Integer(0)),
    at(miner::FAN_4_RPM, "stats", "STATS/0/3 Speed", Integer(0)),
    at(miner::FAN_5_RPM, "stats", "STATS/0/4 Speed", Integer(0)),
    at(miner::FAN_6_RPM, "stats", "STATS/0/5 Speed", Integer(0)),
    at(miner::POWER_MODE, "stats", "STATS/0/Mining Mode", Word),
];

fn read(replies: &Replies, keys: &mut Keys) -> Read {
    let stats = replies.get("stats");
    let first = stats.and_then(Result::ok).and_then(|reply| walk(reply, "STATS/0"));
    let boards = first.map(|stats| board_rows(stats, keys)).unwrap_or_default();
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    let views = Views::of(replies);
    fill(&mut filler, &views, MINER);
    fill(&mut filler, &views, SUMMARY);
    let hottest = boards.iter().filter_map(|row| who::integer_of(row, board::PCB_TEMP_MAX_CELSIUS)).max();
    set(&mut filler, miner::PCB_TEMP_MAX_CELSIUS, stats, hottest);
    match first.map(|stats| text_at(stats, "PSU Error").or_else(|| supply_code(replies))) {
        Some(Some(code)) => match i32::from_str_radix(code.trim_start_matches("0x"), 16) {
            Ok(code) => filler.read(miner::PSU_ERROR_CODE, code),
            Err(_) => filler.row.fail(miner::PSU_ERROR_CODE, fail_code::UNPARSABLE),
        },
        _ => set(&mut filler, miner::PSU_ERROR_CODE, stats, None),
    }
    let pools = replies.get("pools").unwrap_or(Err(Trouble::Unreadable)).and_then(|reply| section(reply, "POOLS"));
    fill_pools(&mut filler, pools.map(|pools| pools.iter().collect()), &WORDS);
    finish(&mut filler, &[POOL_COLUMNS[0], POOL_COLUMNS[1], POOL_COLUMNS[2], miner::STATE, miner::ERROR_CODES]);
    let facts = first.map(|stats| facts(stats, &filler.row, boards.len())).unwrap_or_else(|| facts_of(&filler.row));
    let mark = first.and_then(|stats| text_at(stats, "Ctrl Board SN")).map(str::to_owned);
    Read { facts, row: filler.row, boards, errors: first.map(errors), mark }
}

fn supply_code(replies: &Replies) -> Option<&str> {
    text_at(replies.ok(SUPPLY)?, "StatusCode")
}

fn board_count(stats: &Json) -> i64 {
    integer_at(stats, "Board Count", 0).unwrap_or(0).clamp(0, BOARDS_MAX as i64)
}

fn board_rows(stats: &Json, keys: &mut Keys) -> Vec<Row> {
    in_order((0..board_count(stats)).map(|index| (index, board_row(stats, index, keys))).collect())
}

fn board_row(stats: &Json, index: i64, keys: &mut Keys) -> Row {
    let mut filler = board_filler(&tables::HASHBOARD_SAMPLE, keys, board::BOARD_INDEX, index);
    let told = |name: &str| text_at(stats, &format!("{index} {name}"));
    let number = |name: &str| integer_at(stats, &format!("{index} {name}"), 0);
    filler.integer(board::HASHRATE_HASHES_PER_SECOND, told("MHS(Sample)"), 6);
    filler.integer(board::HASHRATE_EXPECTED_HASHES_PER_SECOND, told("MHS(Ideal)"), 6);
    filler.integer(board::FREQUENCY_KILOHERTZ, told("Freq"), 3);
    filler.integer(board::CHIPS_EXPECTED, told("Chip Count"), 0);
    let found = number("Chip Count").zip(number("Bad Chip Count")).map(|(all, bad)| all.saturating_sub(bad));
    set(&mut filler, board::CHIPS_FOUND, Some(Ok(stats)), found);
    filler.word(board::BOARD_SERIAL, told("SN"));
    filler.word(board::BOARD_STATUS, told("Tune Status"));
    let sensors: Vec<Option<i32>> = (0..8).map_while(|number| told(&format!("Temp {number}"))).map(sensor).collect();
    let hottest = sensors.iter().flatten().max().map(|degrees| i64::from(*degrees));
    set(&mut filler, board::PCB_TEMP_MAX_CELSIUS, Some(Ok(stats)), hottest);
    if !sensors.is_empty() {
        filler.read(board::PCB_TEMPS_CELSIUS, sensors);
    }
    finish(&mut filler, &[]);
    filler.row
}

/// `Error Code` is empty where there is none.
fn errors(stats: &Json) -> Vec<MinerError> {
    let codes = text_at(stats, "Error Code").unwrap_or_default();
    let codes = codes.split([',', ' ', ';']).map(str::trim).filter(|code| !code.is_empty());
    let error = |code: &str| MinerError {
        code: error_code(code),
        message: format!("error code {code}"),
        component: "other",
        board: None,
    };
    codes.map(error).collect()
}

fn facts(stats: &Json, row: &Row, boards: usize) -> Facts {
    let state = text_at(stats, "PM State").unwrap_or_default().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| state.contains(word));
    let works = |index: usize| {
        let is_online = truth_at(stats, &format!("{index} Online"))?;
        let rate = integer_at(stats, &format!("{index} MHS(Sample)"), 6);
        Some(is_online && rate.is_none_or(|rate| rate > 0))
    };
    Facts {
        asleep: says(&["sleep", "standby", "suspend", "idle"]).then_some("standby"),
        fault: says(&["overheat", "over temp", "overtemp"]).then_some("overheat"),
        is_starting: says(&["boot", "init", "start"]),
        boards: (0..boards).map(works).collect(),
        lists_boards: walk(stats, "Board Count").is_some(),
        ..facts_of(row)
    }
}

fn who(replies: &Replies) -> Identity {
    let stats = |name: &str| text_at(replies.ok("stats")?, &format!("STATS/0/{name}"));
    let info = |name: &str| text_at(replies.ok("get_system_info")?, name);
    let version = |name: &str| text_at(replies.ok("version")?, &format!("VERSION/0/{name}"));
    let told = [
        (device::MODEL, info("miner_type").or_else(|| stats("Model"))),
        (device::FIRMWARE_VERSION, info("firmware_version").or_else(|| stats("Firmware"))),
        (device::API_VERSION, version("API")),
        (device::CONTROL_BOARD, info("ctrl_version").or_else(|| stats("Ctrl Board"))),
        (device::PSU_MODEL, stats("PSU Model").or_else(|| info("psu_model"))),
        (device::PSU_SERIAL, stats("PSU SN")),
        (device::PSU_FIRMWARE_VERSION, stats("PSU Firmware")),
        (device::ALGORITHM, Some("sha256")),
    ];
    let serial = stats("Ctrl Board SN").or_else(|| info("crtl_sn"));
    let mut identity = who::identity("sealminer", serial, stats("MAC").or_else(|| info("macaddr")), &told);
    let count = |name: &str| replies.ok("stats").and_then(|reply| integer_at(reply, &format!("STATS/0/{name}"), 0));
    who::count(&mut identity, device::CHIPS_EXPECTED, count("Chip Count"));
    who::count(&mut identity, device::FANS_EXPECTED, count("Fan Count"));
    identity
}
