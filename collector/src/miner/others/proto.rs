//! Proto Rig: a REST interface on port 80 behind a login, with telemetry of boards and of each power supply.

use racklake_schemas::Row;
use racklake_schemas::tables::{self, device, hashboard_sample as board, miner_sample as miner};

use super::door::{Body, Door, Lock};
use super::{Ask, Described, Read, board_filler, facts_of, in_order, set};
use crate::miner::cgminer::{POOL_COLUMNS, Words, fill_pools};
use crate::miner::exchange::Trouble;
use crate::miner::filler::{Filler, Keys};
use crate::miner::json::Json;
use crate::miner::judge::Facts;
use crate::miner::reader::{MinerError, Replies};
use crate::miner::recipe::Form::{Float, Integer, NonZero, Word};
use crate::miner::recipe::{Place, Views, at, error_code, fill, finish, integer_at, text_at, walk};
use crate::miner::who;
use crate::source::Identity;

const LOGIN: Lock = Lock::Token {
    login: "/api/v1/auth/login",
    body: Body::Password,
    token: "access_token",
    header: "Authorization",
    scheme: "Bearer ",
};

/// Proto.
pub(in crate::miner) static PROTO: Described = Described {
    make: "proto",
    sample: &[Ask::Get("mining"), Ask::Get("telemetry"), Ask::Get("cooling"), Ask::Get("pools"), Ask::Get("errors")],
    identity: &[Ask::Get("system"), Ask::Get("hardware"), Ask::Get("network")],
    chips: &[],
    door: Door { before: "/api/v1/", behind: "", lock: LOGIN },
    read,
    who,
};

/// The firmware says of the power in `mining` not where it is measured; what the supplies take in is in `telemetry`.
const MINER: &[Place] = &[
    at(miner::HASHRATE_HASHES_PER_SECOND, "mining", "mining-status/hashrate_ghs", Integer(9)),
    at(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, "mining", "mining-status/average_hashrate_ghs", Integer(9)),
    at(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, "mining", "mining-status/ideal_hashrate_ghs", Integer(9)),
    at(miner::HARDWARE_ERRORS, "mining", "mining-status/hw_errors", Integer(0)),
    at(miner::POWER_ESTIMATED_MILLIWATTS, "mining", "mining-status/power_usage_watts", Integer(3)),
    at(miner::POWER_LIMIT_MILLIWATTS, "mining", "mining-status/power_target_watts", Integer(3)),
    at(miner::CHIP_TEMP_AVERAGE_CELSIUS, "mining", "mining-status/average_asic_temp_c", NonZero(0)),
    at(miner::BOARDS_FOUND, "mining", "mining-status/hashboards_installed", Integer(0)),
    at(miner::UPTIME_SECONDS, "mining", "mining-status/mining_uptime_s", Integer(0)),
    at(miner::PSU_INPUT_MILLIVOLTS, "telemetry", "psus/0/voltage/input", Integer(3)),
    at(miner::PSU_OUTPUT_MILLIVOLTS, "telemetry", "psus/0/voltage/output", Integer(3)),
    at(miner::FAN_1_RPM, "cooling", "cooling-status/fans/0/rpm", Integer(0)),
    at(miner::FAN_2_RPM, "cooling", "cooling-status/fans/1/rpm", Integer(0)),
    at(miner::FAN_3_RPM, "cooling", "cooling-status/fans/2/rpm", Integer(0)),
    at(miner::FAN_4_RPM, "cooling", "cooling-status/fans/3/rpm", Integer(0)),
    at(miner::FAN_5_RPM, "cooling", "cooling-status/fans/4/rpm", Integer(0)),
    at(miner::FAN_6_RPM, "cooling", "cooling-status/fans/5/rpm", Integer(0)),
    at(miner::FAN_DUTY_PERCENT, "cooling", "cooling-status/speed_percentage", Integer(0)),
];

const BOARD: &[Place] = &[
    at(board::CURRENT_MILLIAMPERES, "board", "current/value", Integer(3)),
    at(board::POWER_MILLIWATTS, "board", "power/value", Integer(3)),
    at(board::VOLTAGE_MILLIVOLTS, "board", "voltage/value", Integer(3)),
    at(board::INLET_TEMP_CELSIUS, "board", "temperature/inlet", NonZero(0)),
    at(board::OUTLET_TEMP_CELSIUS, "board", "temperature/outlet", NonZero(0)),
    at(board::BOARD_SERIAL, "board", "serial_number", Word),
];

/// Columns that add up over the supplies.
const SUPPLIES: [(usize, &str); 4] = [
    (miner::POWER_MILLIWATTS, "power/input"),
    (miner::POWER_OUTPUT_MILLIWATTS, "power/output"),
    (miner::PSU_INPUT_MILLIAMPERES, "current/input"),
    (miner::PSU_OUTPUT_MILLIAMPERES, "current/output"),
];

const POOL: Words =
    Words { url: "url", status: "status", alive: &["active", "alive"], active: "in use", difficulty: "difficulty" };

fn read(replies: &Replies, keys: &mut Keys) -> Read {
    let telemetry = replies.get("telemetry");
    let boards = board_rows(telemetry, keys);
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    fill(&mut filler, &Views::of(replies), MINER);
    let supplies = telemetry.and_then(Result::ok).and_then(|reply| walk(reply, "psus")).map(Json::items);
    for (column, path) in SUPPLIES {
        let all = supplies.filter(|all| !all.is_empty());
        let sum = all.and_then(|all| all.iter().map(|supply| integer_at(supply, path, 3)).sum());
        set(&mut filler, column, telemetry, sum);
    }
    let hottest = supplies.unwrap_or_default().iter().filter_map(|supply| integer_at(supply, "temperature/hotspot", 0));
    set(&mut filler, miner::PSU_TEMP_CELSIUS, telemetry, hottest.max());
    fill_shares_and_pools(&mut filler, replies.get("pools"));
    finish(&mut filler, &[POOL_COLUMNS[0], POOL_COLUMNS[1], POOL_COLUMNS[2], miner::STATE, miner::ERROR_CODES]);
    let facts = facts(replies, &filler.row, &boards);
    Read { facts, row: filler.row, boards, errors: replies.ok("errors").map(errors), mark: None }
}

/// Each pool has counters of its own. Which of several active ones is in use is told by their priority.
fn fill_shares_and_pools(filler: &mut Filler<'_>, pools: Option<Result<&Json, Trouble>>) {
    let reply = pools.unwrap_or(Err(Trouble::Unreadable));
    let all = reply.map(|reply| walk(reply, "pools").map(Json::items).unwrap_or_default());
    for (column, name) in [(miner::ACCEPTED_SHARES, "accepted"), (miner::REJECTED_SHARES, "rejected")] {
        let sum = all.ok().filter(|all| !all.is_empty());
        let sum = sum.and_then(|all| all.iter().map(|pool| integer_at(pool, name, 0)).sum());
        set(filler, column, pools, sum);
    }
    let Ok(all) = all else {
        fill_pools(filler, all.map(|_| Vec::new()), &POOL);
        return;
    };
    fill_pools(filler, Ok(all.iter().collect()), &POOL);
    let alive = all.iter().filter(|pool| POOL.is_alive(pool));
    let Some(first) = alive.min_by_key(|pool| integer_at(pool, "priority", 0).unwrap_or(i64::MAX)) else { return };
    let places: &[Place] = &[
        at(miner::POOL_URL, "pool", "url", crate::miner::recipe::Form::PoolUrl),
        at(miner::POOL_STATUS, "pool", "status", Word),
        at(miner::POOL_DIFFICULTY, "pool", "difficulty", Float),
    ];
    fill(filler, &Views::parts(vec![("pool", Ok(first))]), places);
}

fn board_rows(telemetry: Option<Result<&Json, Trouble>>, keys: &mut Keys) -> Vec<Row> {
    let Some(Ok(telemetry)) = telemetry else { return Vec::new() };
    let mut rows = Vec::new();
    for json in walk(telemetry, "hashboards").map(Json::items).unwrap_or_default() {
        let Some(index) = integer_at(json, "index", 0) else { continue };
        let mut filler = board_filler(&tables::HASHBOARD_SAMPLE, keys, board::BOARD_INDEX, index);
        fill(&mut filler, &Views::parts(vec![("board", Ok(json))]), BOARD);
        let exponent = match text_at(json, "hashrate/unit") {
            Some("TH/s") => Some(12),
            Some("GH/s") => Some(9),
            Some("MH/s") => Some(6),
            _ => None,
        };
        let rate = exponent.and_then(|exponent| integer_at(json, "hashrate/value", exponent));
        set(&mut filler, board::HASHRATE_HASHES_PER_SECOND, Some(Ok(json)), rate);
        finish(&mut filler, &[]);
        rows.push((index, filler.row));
    }
    in_order(rows)
}

/// What the firmware lists now.
fn errors(reply: &Json) -> Vec<MinerError> {
    let error = |item: &Json| {
        let name = item.text_of("error_code")?;
        let source = item.text_of("source").unwrap_or_default();
        let (component, is_board) = match source {
            "hashboard" => ("board", true),
            "psu" => ("psu", false),
            "fan" => ("fan", false),
            _ => ("controller", false),
        };
        let message = match name.parse::<i64>() {
            Ok(_) => item.text_of("message").unwrap_or_default().to_owned(),
            Err(_) => format!("{name}: {}", item.text_of("message").unwrap_or_default()),
        };
        let slot = integer_at(item, "slot", 0).and_then(|slot| i32::try_from(slot).ok());
        Some(MinerError { code: error_code(name), message, component, board: slot.filter(|_| is_board) })
    };
    reply.items().iter().filter_map(error).collect()
}

fn facts(replies: &Replies, row: &Row, boards: &[Row]) -> Facts {
    let status = replies.ok("mining").and_then(|mining| text_at(mining, "mining-status/status"));
    let status = status.unwrap_or_default().to_ascii_lowercase();
    let errors = replies.ok("errors").map(errors).unwrap_or_default();
    let is_hot = errors.iter().any(|error| error.message.to_ascii_lowercase().contains("temperature"));
    let rate = |row: &Row| who::integer_of(row, board::HASHRATE_HASHES_PER_SECOND).map(|rate| rate > 0);
    let installed = replies.ok("mining").and_then(|mining| integer_at(mining, "mining-status/hashboards_installed", 0));
    Facts {
        asleep: ["stopped", "paused", "poweringoff", "idle", "idling"].contains(&status.as_str()).then_some("standby"),
        fault: match status.as_str() {
            "degradedmining" => Some("dead board"),
            "nopools" => Some("no pool"),
            "error" if is_hot => Some("overheat"),
            "error" => Some("firmware error"),
            _ => None,
        },
        is_starting: status == "poweringon",
        boards: boards.iter().map(rate).collect(),
        boards_expected: installed.and_then(|count| usize::try_from(count).ok()),
        lists_boards: replies.ok("telemetry").is_some(),
        ..facts_of(row)
    }
}

fn who(replies: &Replies) -> Identity {
    let of = |command: &str, path: &str| text_at(replies.ok(command)?, path).map(str::to_owned);
    let model = of("system", "system-info/product_name").or_else(|| of("system", "system-info/model"));
    let os = of("system", "system-info/os/version");
    let board = of("system", "system-info/board");
    let hostname = of("network", "network-info/hostname");
    let serial = of("hardware", "hardware-info/cb-info/serial_number").or_else(|| of("system", "system-info/cb_sn"));
    let (psu, psu_serial) =
        (of("hardware", "hardware-info/psus-info/0/model"), of("hardware", "hardware-info/psus-info/0/psu_sn"));
    let psu_firmware = of("hardware", "hardware-info/psus-info/0/firmware/app_version");
    let told = [
        (device::MODEL, model.as_deref()),
        (device::FIRMWARE_VERSION, os.as_deref()),
        (device::CONTROL_BOARD, board.as_deref()),
        (device::HOSTNAME, hostname.as_deref()),
        (device::PSU_MODEL, psu.as_deref()),
        (device::PSU_SERIAL, psu_serial.as_deref()),
        (device::PSU_FIRMWARE_VERSION, psu_firmware.as_deref()),
        (device::ALGORITHM, Some("sha256")),
    ];
    let mac = of("network", "network-info/mac");
    let mut identity = who::identity("proto", serial.as_deref(), mac.as_deref(), &told);
    let list = |path: &str| replies.ok("hardware").and_then(|reply| walk(reply, path)).map(Json::items);
    let boards = list("hardware-info/hashboards-info");
    let chips = boards.and_then(|all| all.iter().map(|board| integer_at(board, "mining_asic_count", 0)).sum());
    who::count(&mut identity, device::CHIPS_EXPECTED, chips);
    who::count(&mut identity, device::BOARDS_EXPECTED, boards.map(|all| all.len() as i64));
    let fans = list("hardware-info/fans-info");
    who::count(&mut identity, device::FANS_EXPECTED, fans.map(|all| all.len() as i64));
    identity
}
