//! ePIC's UMC OS (PowerPlay), on Antminers and Whatsminers: HTTP on port 4028, readings without a login.
//!
//! A supply or a board without a sensor prints 0, which is no reading where power flows.

use racklake_schemas::Row;
use racklake_schemas::tables::{self, device, hashboard_sample as board, miner_sample as miner};

use super::door::{Door, Lock};
use super::{Ask, Described, Read, board_filler, facts_of, in_order, set};
use crate::miner::cgminer::POOL_COLUMNS;
use crate::miner::exchange::Trouble;
use crate::miner::filler::{Filler, Keys};
use crate::miner::json::Json;
use crate::miner::judge::Facts;
use crate::miner::reader::{MinerError, Replies};
use crate::miner::recipe::Form::{Float, Integer, NonZero, PoolUrl};
use crate::miner::recipe::{
    Place, Views, at, error_code, fill, finish, integer_at, per_chip, sensor, text_at, truth_at, walk,
};
use crate::miner::who;
use crate::source::Identity;

const SUMMARY: &str = "summary";

/// ePIC.
pub(in crate::miner) static EPIC: Described = Described {
    make: "epic",
    sample: &[Ask::Get(SUMMARY), Ask::Get("temps")],
    identity: &[Ask::Get("capabilities"), Ask::Get("network")],
    chips: &[Ask::Get("temps/chip"), Ask::Get("voltages"), Ask::Get("clocks"), Ask::Get("hashrate")],
    door: Door { before: "/", behind: "", lock: Lock::Open },
    read,
    who,
};

const MINER: &[Place] = &[
    at(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, SUMMARY, "Session/Average MHs", Integer(6)),
    at(miner::ACCEPTED_SHARES, SUMMARY, "Session/Accepted", Integer(0)),
    at(miner::REJECTED_SHARES, SUMMARY, "Session/Rejected", Integer(0)),
    at(miner::POOL_DIFFICULTY, SUMMARY, "Session/Difficulty", Float),
    at(miner::UPTIME_SECONDS, SUMMARY, "Session/Uptime", Integer(0)),
    at(miner::POWER_MILLIWATTS, SUMMARY, "Power Supply Stats/Input Power", Integer(3)),
    at(miner::POWER_OUTPUT_MILLIWATTS, SUMMARY, "Power Supply Stats/Output Power", NonZero(3)),
    at(miner::PSU_INPUT_MILLIVOLTS, SUMMARY, "Power Supply Stats/Input Voltage", NonZero(3)),
    at(miner::PSU_INPUT_MILLIAMPERES, SUMMARY, "Power Supply Stats/Input Current", NonZero(3)),
    at(miner::PSU_OUTPUT_MILLIVOLTS, SUMMARY, "Power Supply Stats/Output Voltage", NonZero(3)),
    at(miner::PSU_OUTPUT_MILLIAMPERES, SUMMARY, "Power Supply Stats/Output Current", NonZero(3)),
    at(miner::POWER_LIMIT_MILLIWATTS, SUMMARY, "PresetInfo/Target Power", Integer(3)),
    at(miner::FAN_1_RPM, SUMMARY, "Fans Rpm/Fans Speed 1", Integer(0)),
    at(miner::FAN_2_RPM, SUMMARY, "Fans Rpm/Fans Speed 2", Integer(0)),
    at(miner::FAN_3_RPM, SUMMARY, "Fans Rpm/Fans Speed 3", Integer(0)),
    at(miner::FAN_4_RPM, SUMMARY, "Fans Rpm/Fans Speed 4", Integer(0)),
    at(miner::FAN_5_RPM, SUMMARY, "Fans Rpm/Fans Speed 5", Integer(0)),
    at(miner::FAN_6_RPM, SUMMARY, "Fans Rpm/Fans Speed 6", Integer(0)),
    at(miner::FAN_DUTY_PERCENT, SUMMARY, "Fans/Fans Speed", Integer(0)),
    at(miner::POOL_URL, SUMMARY, "Stratum/Current Pool", PoolUrl),
    at(miner::POOL_PING_MILLISECONDS, SUMMARY, "Stratum/Average Latency", Integer(3)),
];

const BOARD: &[Place] = &[
    at(board::HASHRATE_HASHES_PER_SECOND, "board", "Hashrate/0", Integer(6)),
    at(board::FREQUENCY_KILOHERTZ, "board", "Core Clock Avg", Integer(3)),
    at(board::VOLTAGE_MILLIVOLTS, "board", "Input Voltage", NonZero(3)),
    at(board::CURRENT_MILLIAMPERES, "board", "Input Current", NonZero(3)),
    at(board::POWER_MILLIWATTS, "board", "Input Power", NonZero(3)),
    at(board::PCB_TEMP_MAX_CELSIUS, "board", "Temperature", NonZero(0)),
];

/// A column per chip, the reply that has it, the way to one chip's value, and its exponent.
const CHIPS: [(usize, &str, &str, i32); 4] = [
    (board::CHIP_TEMPS_CELSIUS, "temps/chip", "", 0),
    (board::CHIP_VOLTAGES_MILLIVOLTS, "voltages", "", 3),
    (board::CHIP_FREQUENCIES_KILOHERTZ, "clocks", "", 3),
    (board::CHIP_HASHRATES_MEGAHASHES_PER_SECOND, "hashrate", "0", 0),
];

fn read(replies: &Replies, keys: &mut Keys) -> Read {
    let summary = replies.get(SUMMARY);
    let boards = board_rows(replies, keys);
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    fill(&mut filler, &Views::of(replies), MINER);
    let of = |read: &dyn Fn(&Json) -> Option<i64>| summary.and_then(Result::ok).and_then(read);
    set(
        &mut filler,
        miner::HASHRATE_HASHES_PER_SECOND,
        summary,
        of(&|summary| list(summary, "HBs").iter().map(|board| integer_at(board, "Hashrate/0", 6)).sum()),
    );
    set(
        &mut filler,
        miner::PCB_TEMP_MAX_CELSIUS,
        summary,
        of(&|summary| {
            list(summary, "HBs")
                .iter()
                .filter_map(|board| board.text_of("Temperature").and_then(sensor))
                .max()
                .map(i64::from)
        }),
    );
    set(
        &mut filler,
        miner::BOARDS_FOUND,
        summary,
        of(&|summary| {
            let found = list(summary, "HBStatus").iter().filter(|board| truth_at(board, "Detected") == Some(true));
            walk(summary, "HBStatus").map(|_| found.count() as i64)
        }),
    );
    set(
        &mut filler,
        miner::POOLS_CONFIGURED,
        summary,
        of(&|summary| walk(summary, "StratumConfigs").map(|pools| pools.items().len() as i64)),
    );
    if let Some(summary) = replies.ok(SUMMARY) {
        let connected = truth_at(summary, "Stratum/IsPoolConnected");
        let word = connected.map(|connected| if connected { "connected" } else { "disconnected" });
        filler.word(miner::POOL_STATUS, word);
        if let Some(Json::Object(members)) = walk(summary, "PerpetualTune/Algorithm") {
            filler.word(miner::POWER_MODE, members.first().map(|(name, _)| name.as_str()));
        }
    }
    finish(&mut filler, &[POOL_COLUMNS[0], POOL_COLUMNS[2], miner::STATE, miner::ERROR_CODES]);
    let facts = replies.ok(SUMMARY).map(|summary| facts(summary, &filler.row)).unwrap_or_default();
    let errors = replies.ok(SUMMARY).map(errors);
    Read { facts, row: filler.row, boards, errors, mark: None }
}

fn list<'a>(json: &'a Json, name: &str) -> &'a [Json] {
    walk(json, name).map(Json::items).unwrap_or_default()
}

/// One row per board that the controller knows of; those that it does not use have no readings.
fn board_rows(replies: &Replies, keys: &mut Keys) -> Vec<Row> {
    let Some(summary) = replies.ok(SUMMARY) else { return Vec::new() };
    let known = list(summary, "HBStatus").iter().chain(list(summary, "HBs"));
    let mut numbers: Vec<i64> = known.filter_map(|board| integer_at(board, "Index", 0)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let rows = numbers.into_iter().map(|number| (number, board_row(replies, summary, number, keys)));
    in_order(rows.collect())
}

fn numbered<'a>(boards: &'a [Json], number: i64) -> Option<&'a Json> {
    boards.iter().find(|board| integer_at(board, "Index", 0) == Some(number))
}

fn board_row(replies: &Replies, summary: &Json, number: i64, keys: &mut Keys) -> Row {
    let mut filler = board_filler(&tables::HASHBOARD_SAMPLE, keys, board::BOARD_INDEX, number);
    let in_use = numbered(list(summary, "HBs"), number);
    if let Some(json) = in_use {
        fill(&mut filler, &Views::parts(vec![("board", Ok(json))]), BOARD);
    }
    let sensors = replies.get("temps").map(|reply| reply.map(|all| numbered(all.items(), number)));
    match sensors {
        Some(Ok(Some(sensors))) => {
            let values: Vec<Option<i32>> =
                list(sensors, "Data").iter().map(|value| value.text().and_then(sensor)).collect();
            filler.read(board::PCB_TEMPS_CELSIUS, values);
        }
        Some(Err(trouble)) if trouble != Trouble::Declined => filler.fail(&[board::PCB_TEMPS_CELSIUS], trouble),
        _ => {}
    }
    let status = numbered(list(summary, "HBStatus"), number).map(|status| {
        match (truth_at(status, "Detected"), truth_at(status, "Enabled")) {
            (Some(false), _) => "not detected",
            (_, Some(false)) => "disabled",
            _ => "enabled",
        }
    });
    filler.word(board::BOARD_STATUS, status);
    let mut empty = vec![board::PCB_TEMPS_CELSIUS];
    for (column, reply, path, shift) in CHIPS {
        if stays_empty(&mut filler, replies.get(reply), number, (column, path, shift)) {
            empty.push(column);
        }
    }
    // A board that is not in use is not measured, which is no failure of its readings.
    if in_use.is_none() {
        empty.extend((0..filler.row.table().columns.len()).filter(|column| *column != board::BOARD_STATUS));
    }
    finish(&mut filler, &empty);
    filler.row
}

/// Reads the values of a board's chips; whether they stay empty because nothing was asked for or no chip is in use.
/// A list of zeros is of chips without such a sensor.
fn stays_empty(
    filler: &mut Filler<'_>,
    reply: Option<Result<&Json, Trouble>>,
    number: i64,
    (column, path, shift): (usize, &str, i32),
) -> bool {
    let chips = match reply {
        None => return true,
        Some(Err(trouble)) => {
            filler.fail(&[column], trouble);
            return false;
        }
        Some(Ok(reply)) => numbered(reply.items(), number).map(|board| list(board, "Data")).unwrap_or_default(),
    };
    let values = per_chip(chips, path, shift).unwrap_or_default();
    let values: Vec<Option<i32>> = values.into_iter().map(|value| value.filter(|value| *value != 0)).collect();
    if values.iter().flatten().next().is_some() {
        filler.read(column, values);
        return false;
    }
    values.is_empty()
}

/// The last error is one that is raised as long as it keeps the miner from mining.
fn errors(summary: &Json) -> Vec<MinerError> {
    if is_mining(summary) {
        return Vec::new();
    }
    let (name, message) = match walk(summary, "Status/Last Error") {
        Some(Json::Object(members)) => match members.first() {
            Some((name, text)) => (name.clone(), format!("{name}: {}", text.text().unwrap_or_default())),
            None => return Vec::new(),
        },
        other => match other.and_then(Json::text).filter(|text| !text.trim().is_empty()) {
            Some(text) => (text.to_owned(), text.to_owned()),
            None => return Vec::new(),
        },
    };
    let component = if is_hot(&message) { "temperature" } else { "other" };
    vec![MinerError { code: error_code(&name), message, component, board: None }]
}

fn is_mining(summary: &Json) -> bool {
    text_at(summary, "Status/Operating State").is_some_and(|state| state.eq_ignore_ascii_case("mining"))
}

fn is_hot(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["temp", "heat", "hot"].iter().any(|word| message.contains(word))
}

fn facts(summary: &Json, row: &Row) -> Facts {
    let state = text_at(summary, "Status/Operating State").unwrap_or_default().to_ascii_lowercase();
    let error = errors(summary).into_iter().next();
    let is_connected = truth_at(summary, "Stratum/IsPoolConnected");
    let fault = match (&error, state.as_str()) {
        (Some(error), _) if error.component == "temperature" => Some("overheat"),
        (_, "error") => Some("firmware error"),
        (None, "idling") if is_connected == Some(false) && truth_at(summary, "IdleOnConnectionLost") == Some(true) => {
            Some("no pool")
        }
        (Some(_), "idling") => Some("firmware error"),
        _ => None,
    };
    let is_asleep = ["idling", "stopped", "paused"].contains(&state.as_str()) && fault.is_none();
    let works = |status: &Json| {
        let number = integer_at(status, "Index", 0)?;
        let is_used = truth_at(status, "Detected")? && truth_at(status, "Enabled")?;
        let rate = numbered(list(summary, "HBs"), number).and_then(|board| integer_at(board, "Hashrate/0", 6));
        Some(is_used && rate.is_none_or(|rate| rate > 0))
    };
    Facts {
        asleep: is_asleep.then_some("standby"),
        fault,
        is_starting: ["starting", "initializing", "tuning", "restarting"].contains(&state.as_str()),
        pools_alive: is_connected.map(usize::from),
        boards: list(summary, "HBStatus").iter().map(works).collect(),
        lists_boards: walk(summary, "HBStatus").is_some(),
        ..facts_of(row)
    }
}

fn who(replies: &Replies) -> Identity {
    let capabilities = |path: &str| text_at(replies.ok("capabilities")?, path);
    let summary = |path: &str| text_at(replies.ok(SUMMARY)?, path);
    let network = |path: &str| text_at(replies.ok("network")?, path);
    let model = capabilities("Model");
    let algorithm = summary("Mining/Algorithm").map(|name| name.to_ascii_lowercase().replace('-', ""));
    let told = [
        (device::MODEL, model),
        (device::HARDWARE_TYPE, capabilities("Model Subtype")),
        (device::FIRMWARE_VERSION, summary("Software")),
        (device::HOSTNAME, summary("Hostname")),
        (device::CONTROL_BOARD, capabilities("Control Board Version/cpuHardware")),
        (device::PSU_FIRMWARE_VERSION, capabilities("Psu Info/FW")),
        (device::ALGORITHM, algorithm.as_deref()),
    ];
    let mac = network("dhcp/mac_address").or_else(|| network("static/mac_address"));
    let mut identity = who::identity(who::maker(model, "epic"), None, mac, &told);
    let number = |path: &str| replies.ok("capabilities").and_then(|reply| integer_at(reply, path, 0));
    let boards = number("Max HBs");
    who::count(&mut identity, device::BOARDS_EXPECTED, boards);
    let chips =
        number("Performance Estimator/Chip Count").zip(boards).and_then(|(chips, boards)| chips.checked_mul(boards));
    who::count(&mut identity, device::CHIPS_EXPECTED, chips);
    identity
}
