//! Auradine's Teraflux (FluxOS): a cgminer API on port 4028 for anyone, and on port 8080 a web interface behind a token
//! with supply, fans, temperatures, and voltage and clock of each chip.

use racklake_schemas::Row;
use racklake_schemas::tables::{self, device, hashboard_sample as board, miner_sample as miner};

use super::door::{Body, Door, Lock};
use super::{Ask, Described, Read, board_filler, facts_of, in_order, set};
use crate::miner::cgminer::{POOL_COLUMNS, SUMMARY, WORDS, fill_pools};
use crate::miner::exchange::{Trouble, section};
use crate::miner::filler::{Filler, Keys};
use crate::miner::json::Json;
use crate::miner::judge::Facts;
use crate::miner::reader::Replies;
use crate::miner::recipe::Form::{Integer, Measure, Word};
use crate::miner::recipe::{Place, Views, at, fill, finish, integer_at, put_chips, sensor, text_at, truth_at, walk};
use crate::miner::who;
use crate::source::Identity;

const LOGIN: Lock =
    Lock::Token { login: "/token", body: Body::Command, token: "Token/0/Token", header: "Token", scheme: "" };

/// Auradine.
pub(in crate::miner) static AURADINE: Described = Described {
    make: "auradine",
    sample: &[
        Ask::Rpc("summary"),
        Ask::Rpc("devs"),
        Ask::Rpc("pools"),
        Ask::Rpc("asccount"),
        Ask::Get("mode"),
        Ask::Get("psu"),
        Ask::Get("fan"),
        Ask::Get("temperature"),
        Ask::Get("voltage"),
        Ask::Get("frequency"),
    ],
    identity: &[Ask::Rpc("version"), Ask::Get("ipreport")],
    chips: &[],
    door: Door { before: "/", behind: "", lock: LOGIN },
    read,
    who,
};

const MINER: &[Place] = &[
    at(miner::HASHRATE_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 5s", Integer(6)),
    at(miner::BOARDS_FOUND, "asccount", "ASCCount/0/BoardCount", Integer(0)),
    at(miner::POWER_MILLIWATTS, "psu", "PSU/0/PowerIn", Measure(3)),
    at(miner::POWER_OUTPUT_MILLIWATTS, "psu", "PSU/0/PowerOut", Measure(3)),
    at(miner::PSU_INPUT_MILLIVOLTS, "psu", "PSU/0/Vin", Measure(3)),
    at(miner::PSU_INPUT_MILLIAMPERES, "psu", "PSU/0/Iin", Measure(3)),
    at(miner::PSU_OUTPUT_MILLIVOLTS, "psu", "PSU/0/Vout", Measure(3)),
    at(miner::PSU_OUTPUT_MILLIAMPERES, "psu", "PSU/0/Iout", Measure(3)),
    at(miner::PSU_FAN_RPM, "psu", "PSU/0/FanSpeed1", Measure(0)),
    at(miner::POWER_LIMIT_MILLIWATTS, "mode", "Mode/0/Power", Integer(3)),
    at(miner::POWER_MODE, "mode", "Mode/0/Mode", Word),
    at(miner::FAN_1_RPM, "fan", "Fan/0/Speed", Integer(0)),
    at(miner::FAN_2_RPM, "fan", "Fan/1/Speed", Integer(0)),
    at(miner::FAN_3_RPM, "fan", "Fan/2/Speed", Integer(0)),
    at(miner::FAN_4_RPM, "fan", "Fan/3/Speed", Integer(0)),
    at(miner::FAN_5_RPM, "fan", "Fan/4/Speed", Integer(0)),
    at(miner::FAN_6_RPM, "fan", "Fan/5/Speed", Integer(0)),
];

const BOARD: &[Place] = &[
    at(board::HASHRATE_HASHES_PER_SECOND, "board", "MHS 5s", Integer(6)),
    at(board::HASHRATE_5S_HASHES_PER_SECOND, "board", "MHS 5s", Integer(6)),
    at(board::BOARD_STATUS, "board", "Status", Word),
];

fn read(replies: &Replies, keys: &mut Keys) -> Read {
    let boards = board_rows(replies, keys);
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    let views = Views::of(replies);
    fill(&mut filler, &views, SUMMARY);
    fill(&mut filler, &views, MINER);
    let temperature = replies.get("temperature");
    for (column, of_board) in [
        (miner::CHIP_TEMP_MAX_CELSIUS, board::CHIP_TEMP_MAX_CELSIUS),
        (miner::PCB_TEMP_MAX_CELSIUS, board::PCB_TEMP_MAX_CELSIUS),
    ] {
        let hottest = boards.iter().filter_map(|row| who::integer_of(row, of_board)).max();
        set(&mut filler, column, temperature, hottest);
    }
    let pools = replies.get("pools").unwrap_or(Err(Trouble::Unreadable)).and_then(|reply| section(reply, "POOLS"));
    fill_pools(&mut filler, pools.map(|pools| pools.iter().collect()), &WORDS);
    finish(&mut filler, &[POOL_COLUMNS[0], POOL_COLUMNS[1], POOL_COLUMNS[2], miner::STATE, miner::ERROR_CODES]);
    let facts = facts(replies, &filler.row);
    Read { facts, row: filler.row, boards, errors: None, mark: None }
}

/// The boards of a list are numbered from 1; number 0 is the control board.
fn numbered<'a>(reply: Result<&'a Json, Trouble>, list: &str, number: i64) -> Result<Option<&'a Json>, Trouble> {
    let items = walk(reply?, list).map(Json::items).unwrap_or_default();
    Ok(items.iter().find(|item| integer_at(item, "ID", 0) == Some(number)))
}

fn board_rows(replies: &Replies, keys: &mut Keys) -> Vec<Row> {
    let mut numbers: Vec<i64> = Vec::new();
    for (command, list) in [("devs", "DEVS"), ("temperature", "Temperature"), ("voltage", "Voltage")] {
        let items = replies.ok(command).and_then(|reply| walk(reply, list)).map(Json::items).unwrap_or_default();
        numbers.extend(items.iter().filter_map(|item| integer_at(item, "ID", 0)).filter(|number| *number > 0));
    }
    numbers.sort_unstable();
    numbers.dedup();
    in_order(numbers.into_iter().map(|number| (number - 1, board_row(replies, number, keys))).collect())
}

fn board_row(replies: &Replies, number: i64, keys: &mut Keys) -> Row {
    let mut filler = board_filler(&tables::HASHBOARD_SAMPLE, keys, board::BOARD_INDEX, number - 1);
    let part = |command: &str, list: &str| replies.get(command).map(|reply| numbered(reply, list, number));
    match part("devs", "DEVS") {
        Some(Ok(Some(json))) => fill(&mut filler, &Views::parts(vec![("board", Ok(json))]), BOARD),
        Some(Err(trouble)) => fill(&mut filler, &Views::parts(vec![("board", Err(trouble))]), BOARD),
        _ => {}
    }
    fill_temperatures(&mut filler, part("temperature", "Temperature"));
    for (column, command, list, chips, path) in [
        (board::CHIP_VOLTAGES_MILLIVOLTS, "voltage", "Voltage", "ChipVoltage", "Voltage"),
        (board::CHIP_FREQUENCIES_KILOHERTZ, "frequency", "Frequency", "ChipFrequency", "Frequency"),
    ] {
        match part(command, list) {
            Some(Ok(json)) => {
                let items = json.and_then(|json| walk(json, chips)).map(Json::items);
                put_chips(&mut filler, column, items.filter(|items| !items.is_empty()), path, 3);
            }
            Some(Err(trouble)) => filler.fail(&[column], trouble),
            None => {}
        }
    }
    finish(&mut filler, &[]);
    filler.row
}

fn fill_temperatures(filler: &mut Filler<'_>, reply: Option<Result<Option<&Json>, Trouble>>) {
    const COLUMNS: [usize; 5] = [
        board::CHIP_TEMPS_CELSIUS,
        board::CHIP_TEMP_MAX_CELSIUS,
        board::CHIP_TEMP_MIN_CELSIUS,
        board::PCB_TEMPS_CELSIUS,
        board::PCB_TEMP_MAX_CELSIUS,
    ];
    let json = match reply {
        Some(Ok(Some(json))) => json,
        Some(Err(trouble)) if trouble != Trouble::Declined => return filler.fail(&COLUMNS, trouble),
        _ => return,
    };
    let values = |list: &str| -> Vec<Option<i32>> {
        let items = walk(json, list).map(Json::items).unwrap_or_default();
        items.iter().take(10_000).map(|item| item.text_of("Temperature").and_then(sensor)).collect()
    };
    let (chips, sensors) = (values("ChipTemp"), values("BoardTemp"));
    let degrees = |value: Option<&i32>| value.map(|value| i64::from(*value));
    let told = Some(Ok(json));
    set(filler, board::CHIP_TEMP_MAX_CELSIUS, told, degrees(chips.iter().flatten().max()));
    set(filler, board::CHIP_TEMP_MIN_CELSIUS, told, degrees(chips.iter().flatten().min()));
    set(filler, board::PCB_TEMP_MAX_CELSIUS, told, degrees(sensors.iter().flatten().max()));
    for (column, list) in [(board::CHIP_TEMPS_CELSIUS, chips), (board::PCB_TEMPS_CELSIUS, sensors)] {
        if !list.is_empty() {
            filler.read(column, list);
        }
    }
}

fn facts(replies: &Replies, row: &Row) -> Facts {
    let is_asleep = replies.ok("mode").and_then(|mode| truth_at(mode, "Mode/0/Sleep")) == Some(true);
    let devs = replies.ok("devs").and_then(|reply| section(reply, "DEVS").ok());
    let works = |json: &Json| {
        let is_alive = json.text_of("Status").map(|status| status.eq_ignore_ascii_case("alive"))?;
        let rate = integer_at(json, "MHS 5s", 6);
        Some(is_alive && truth_at(json, "Enabled") != Some(false) && rate.is_none_or(|rate| rate > 0))
    };
    Facts {
        asleep: is_asleep.then_some("standby"),
        boards: devs.unwrap_or_default().iter().map(works).collect(),
        lists_boards: devs.is_some(),
        ..facts_of(row)
    }
}

fn who(replies: &Replies) -> Identity {
    let report = |name: &str| text_at(replies.ok("ipreport")?, &format!("IPReport/0/{name}"));
    let version = |name: &str| text_at(replies.ok("version")?, &format!("VERSION/0/{name}"));
    let told = [
        (device::MODEL, report("model")),
        (device::FIRMWARE_VERSION, report("version").or_else(|| version("GCMiner"))),
        (device::API_VERSION, version("API")),
        (device::HOSTNAME, report("hostname")),
        (device::CHASSIS_SERIAL, report("ChassisSerialNo")),
        (device::ALGORITHM, Some("sha256")),
    ];
    let mut identity = who::identity("auradine", report("SerialNo"), report("mac"), &told);
    let chips = replies.ok("asccount").and_then(|reply| integer_at(reply, "ASCCount/0/AsicCount", 0));
    who::count(&mut identity, device::CHIPS_EXPECTED, chips);
    let serials = replies.ok("ipreport").and_then(|reply| walk(reply, "IPReport/0/HBSerialNo")).map(Json::items);
    who::count(&mut identity, device::BOARDS_EXPECTED, serials.map(|serials| serials.len() as i64));
    identity
}
