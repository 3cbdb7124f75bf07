//! Elphapex: scrypt miners with a web interface like a stock Antminer's, behind HTTP digest.
//!
//! Chip temperatures are texts in thousandths of a degree, the clock is in kilohertz, and rates are in the unit that the
//! reply names.

use racklake_schemas::Row;
use racklake_schemas::tables::{self, device, hashboard_sample as board, miner_sample as miner};

use super::door::{Door, Lock};
use super::{Ask, Described, Read, board_filler, facts_of, in_order, set};
use crate::miner::cgminer::{POOL_COLUMNS, Words, fill_pools};
use crate::miner::exchange::Trouble;
use crate::miner::filler::{Filler, Keys};
use crate::miner::json::Json;
use crate::miner::judge::Facts;
use crate::miner::luxos::chip_marks;
use crate::miner::reader::{MinerError, Replies};
use crate::miner::recipe::Form::{Float, Integer, NonZero, Word};
use crate::miner::recipe::{Place, Views, at, error_code, fill, finish, integer_at, sensor, text_at, walk};
use crate::miner::who;
use crate::source::Identity;

/// Elphapex.
pub(in crate::miner) static ELPHAPEX: Described = Described {
    make: "elphapex",
    sample: &[Ask::Get("stats"), Ask::Get("summary"), Ask::Get("pools"), Ask::Get("get_power")],
    identity: &[Ask::Get("get_system_info")],
    chips: &[],
    door: Door { before: "/cgi-bin/", behind: ".cgi", lock: Lock::Digest },
    read,
    who,
};

/// The supply's power is an output, and its temperature is in no unit that is known, so that it is not read.
const MINER: &[Place] = &[
    at(miner::HARDWARE_ERRORS, "summary", "SUMMARY/0/hw_all", Integer(0)),
    at(miner::BEST_SHARE_DIFFICULTY, "summary", "SUMMARY/0/bestshare", Float),
    at(miner::UPTIME_SECONDS, "summary", "SUMMARY/0/elapsed", Integer(0)),
    at(miner::UPTIME_SECONDS, "stats", "STATS/0/elapsed", Integer(0)),
    at(miner::POWER_OUTPUT_MILLIWATTS, "get_power", "power_output", Integer(3)),
    at(miner::FAN_1_RPM, "stats", "STATS/0/fan/0", Integer(0)),
    at(miner::FAN_2_RPM, "stats", "STATS/0/fan/1", Integer(0)),
    at(miner::FAN_3_RPM, "stats", "STATS/0/fan/2", Integer(0)),
    at(miner::FAN_4_RPM, "stats", "STATS/0/fan/3", Integer(0)),
    at(miner::FAN_5_RPM, "stats", "STATS/0/fan/4", Integer(0)),
    at(miner::FAN_6_RPM, "stats", "STATS/0/fan/5", Integer(0)),
];

/// Rates of the whole miner, in the unit of the reply.
const RATES: [(usize, &str); 5] = [
    (miner::HASHRATE_HASHES_PER_SECOND, "rate_5s"),
    (miner::HASHRATE_5S_HASHES_PER_SECOND, "rate_5s"),
    (miner::HASHRATE_15M_HASHES_PER_SECOND, "rate_15m"),
    (miner::HASHRATE_30M_HASHES_PER_SECOND, "rate_30m"),
    (miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, "rate_avg"),
];

const BOARD_RATES: [(usize, &str); 3] = [
    (board::HASHRATE_HASHES_PER_SECOND, "rate_real"),
    (board::HASHRATE_15M_HASHES_PER_SECOND, "rate_15m"),
    (board::HASHRATE_EXPECTED_HASHES_PER_SECOND, "rate_ideal"),
];

const BOARD: &[Place] = &[
    at(board::CHIPS_FOUND, "board", "asic_num", Integer(0)),
    at(board::HARDWARE_ERRORS, "board", "hw", Integer(0)),
    at(board::FREQUENCY_KILOHERTZ, "board", "freq_avg", NonZero(0)),
    at(board::BOARD_SERIAL, "board", "sn", Word),
];

const POOL: Words = Words {
    url: "url",
    status: "status",
    alive: &["alive", "active", "connected", "working"],
    active: "in use",
    difficulty: "diff",
};

/// Exponent of ten of the unit that a reply names; none for a unit that is not known.
fn exponent(rates: &Json) -> Option<i32> {
    match text_at(rates, "rate_unit")? {
        "KH/s" => Some(3),
        "MH/s" => Some(6),
        "GH/s" => Some(9),
        "TH/s" => Some(12),
        _ => None,
    }
}

fn read(replies: &Replies, keys: &mut Keys) -> Read {
    let stats = replies.get("stats");
    let first = stats.and_then(Result::ok).and_then(|reply| walk(reply, "STATS/0"));
    let boards = first.map(|stats| board_rows(stats, keys)).unwrap_or_default();
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    fill(&mut filler, &Views::of(replies), MINER);
    let rate = |name: &str| first.and_then(|stats| integer_at(stats, name, exponent(stats)?));
    for (column, name) in RATES {
        set(&mut filler, column, stats, rate(name));
    }
    set(&mut filler, miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, stats, rate("rate_ideal"));
    set(&mut filler, miner::BOARDS_FOUND, stats, first.map(|_| boards.len() as i64));
    for (column, of_board) in [
        (miner::CHIP_TEMP_MAX_CELSIUS, board::CHIP_TEMP_MAX_CELSIUS),
        (miner::PCB_TEMP_MAX_CELSIUS, board::PCB_TEMP_MAX_CELSIUS),
    ] {
        let hottest = boards.iter().filter_map(|row| who::integer_of(row, of_board)).max();
        set(&mut filler, column, stats, hottest);
    }
    fill_shares_and_pools(&mut filler, replies.get("pools"));
    finish(&mut filler, &[POOL_COLUMNS[0], POOL_COLUMNS[1], POOL_COLUMNS[2], miner::STATE, miner::ERROR_CODES]);
    let errors = replies.ok("summary").map(errors);
    let is_hot = errors.iter().flatten().any(|error| error.component == "temperature");
    let rate = who::integer_of(&filler.row, miner::HASHRATE_HASHES_PER_SECOND);
    let works = |row: &Row| who::integer_of(row, board::HASHRATE_HASHES_PER_SECOND).map(|rate| rate > 0);
    let facts = Facts {
        fault: (is_hot && rate == Some(0)).then_some("overheat"),
        boards: boards.iter().map(works).collect(),
        lists_boards: first.is_some(),
        ..facts_of(&filler.row)
    };
    let mark = replies.ok("stats").and_then(|stats| text_at(stats, "INFO/dev_sn")).map(str::to_owned);
    Read { facts, row: filler.row, boards, errors, mark }
}

fn fill_shares_and_pools(filler: &mut Filler<'_>, pools: Option<Result<&Json, Trouble>>) {
    let reply = pools.unwrap_or(Err(Trouble::Unreadable));
    let all = reply.map(|reply| walk(reply, "POOLS").map(Json::items).unwrap_or_default());
    for (column, name) in [
        (miner::ACCEPTED_SHARES, "accepted"),
        (miner::REJECTED_SHARES, "rejected"),
        (miner::STALE_SHARES, "stale"),
        (miner::ACCEPTED_DIFFICULTY, "diffa"),
        (miner::REJECTED_DIFFICULTY, "diffr"),
        (miner::STALE_DIFFICULTY, "diffs"),
    ] {
        let sum = all.ok().filter(|all| !all.is_empty());
        let sum: Option<i64> = sum.and_then(|all| all.iter().map(|pool| integer_at(pool, name, 0)).sum());
        match (sum, name.starts_with("diff")) {
            (Some(sum), true) => filler.read(column, sum as f64),
            _ => set(filler, column, pools, sum),
        }
    }
    fill_pools(filler, all.map(|all| all.iter().collect()), &POOL);
    let alive = all.unwrap_or_default().iter().filter(|pool| POOL.is_alive(pool));
    let Some(first) = alive.min_by_key(|pool| integer_at(pool, "priority", 0).unwrap_or(i64::MAX)) else { return };
    let places: &[Place] = &[
        at(miner::POOL_URL, "pool", "url", crate::miner::recipe::Form::PoolUrl),
        at(miner::POOL_STATUS, "pool", "status", Word),
    ];
    fill(filler, &Views::parts(vec![("pool", Ok(first))]), places);
}

/// Chains without a serial number and a chip are connectors without a board.
fn board_rows(stats: &Json, keys: &mut Keys) -> Vec<Row> {
    let mut rows = Vec::new();
    for chain in walk(stats, "chain").map(Json::items).unwrap_or_default() {
        let has_serial = text_at(chain, "sn").is_some_and(|serial| !serial.trim().is_empty());
        let has_chips = integer_at(chain, "asic_num", 0).is_some_and(|chips| chips > 0);
        let Some(index) = integer_at(chain, "index", 0).filter(|_| has_serial || has_chips) else { continue };
        let mut filler = board_filler(&tables::HASHBOARD_SAMPLE, keys, board::BOARD_INDEX, index);
        fill(&mut filler, &Views::parts(vec![("board", Ok(chain))]), BOARD);
        for (column, name) in BOARD_RATES {
            let rate = exponent(stats).and_then(|exponent| integer_at(chain, name, exponent));
            set(&mut filler, column, Some(Ok(chain)), rate);
        }
        fill_temperatures(&mut filler, chain);
        if let Some(marks) = text_at(chain, "asic").map(chip_marks).filter(|marks| !marks.is_empty()) {
            filler.read(board::CHIP_OK, marks);
        }
        finish(&mut filler, &[]);
        rows.push((index, filler.row));
    }
    in_order(rows)
}

fn fill_temperatures(filler: &mut Filler<'_>, chain: &Json) {
    let chips = walk(chain, "temp_chip").map(Json::items).unwrap_or_default();
    let chips = chips.iter().filter_map(|chip| integer_at(chip, "", -3)).filter(|degrees| *degrees != 0);
    let chips: Vec<i64> = chips.collect();
    let board: Option<Vec<Option<i32>>> = walk(chain, "temp_pcb")
        .map(|sensors| sensors.items().iter().map(|value| value.text().and_then(sensor)).collect());
    // The sensors are four on the board's corners, so that they are no list by chip.
    set(filler, board::CHIP_TEMP_MAX_CELSIUS, Some(Ok(chain)), chips.iter().max().copied());
    set(filler, board::CHIP_TEMP_MIN_CELSIUS, Some(Ok(chain)), chips.iter().min().copied());
    let hottest = board.iter().flatten().flatten().max().map(|degrees| i64::from(*degrees));
    set(filler, board::PCB_TEMP_MAX_CELSIUS, Some(Ok(chain)), hottest);
    if let Some(sensors) = board {
        filler.read(board::PCB_TEMPS_CELSIUS, sensors);
    }
}

/// Each kind of error has a status, `s` where there is none.
fn errors(summary: &Json) -> Vec<MinerError> {
    let error = |status: &Json| {
        let word = status.text_of("status").unwrap_or_default().trim();
        if word.is_empty() || word.eq_ignore_ascii_case("s") {
            return None;
        }
        let kind = status.text_of("type").unwrap_or_default();
        let component = match kind {
            "rate" => "hashrate",
            "network" => "pool",
            "fans" => "fan",
            "temp" => "temperature",
            _ => "other",
        };
        let code = status.text_of("code").filter(|code| *code != "0").unwrap_or(kind);
        let message = format!("{kind}: {}", status.text_of("msg").unwrap_or_default());
        Some(MinerError { code: error_code(code), message, component, board: None })
    };
    walk(summary, "SUMMARY/0/status").map(Json::items).unwrap_or_default().iter().filter_map(error).collect()
}

fn who(replies: &Replies) -> Identity {
    let info = |path: &str| text_at(replies.ok("get_system_info")?, path);
    let stats = |path: &str| text_at(replies.ok("stats")?, path);
    let algorithm = info("Algorithm").map(str::to_ascii_lowercase);
    let told = [
        (device::MODEL, info("minertype").or_else(|| stats("INFO/type"))),
        (device::FIRMWARE_VERSION, info("system_filesystem_version").or_else(|| stats("INFO/miner_version"))),
        (device::HARDWARE_TYPE, stats("INFO/hw_version")),
        (device::HOSTNAME, info("hostname")),
        (device::API_VERSION, stats("STATUS/api_version")),
        (device::ALGORITHM, algorithm.as_deref()),
        (device::PSU_SERIAL, replies.ok("get_power").and_then(|power| text_at(power, "power_sn"))),
    ];
    let mut identity = who::identity("elphapex", stats("INFO/dev_sn"), info("macaddr"), &told);
    let fans = replies.ok("stats").and_then(|stats| integer_at(stats, "STATS/0/fan_num", 0));
    who::count(&mut identity, device::FANS_EXPECTED, fans);
    identity
}
