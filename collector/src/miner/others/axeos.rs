//! AxeOS and what descends from it: small miners of a chip or a few, which tell everything in one document.
//!
//! The document of a Bitaxe and that of a Forgeaxe are recorded. A NerdAxe's is of the same kind by all that is known.

use racklake_schemas::tables::{self, device, hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Row, fail_code};

use super::door::{Door, Lock};
use super::{Ask, Described, Read, board_filler, facts_of, set};
use crate::miner::cgminer::POOL_COLUMNS;
use crate::miner::filler::{Filler, Keys};
use crate::miner::json::Json;
use crate::miner::judge::Facts;
use crate::miner::pool_url::without_secrets;
use crate::miner::reader::Replies;
use crate::miner::recipe::Form::{Float, Integer, NonZero};
use crate::miner::recipe::{Place, Views, at, fill, finish, integer_at, text_at, truth_at};
use crate::miner::who;
use crate::source::Identity;

const INFO: &str = "system/info";
const OPEN: Door = Door { before: "/api/", behind: "", lock: Lock::Open };

/// Bitaxe.
pub(in crate::miner) static BITAXE: Described = described("bitaxe", who_bitaxe);
/// Forgeaxe.
pub(in crate::miner) static FORGEAXE: Described = described("forgeaxe", who_forgeaxe);
/// NerdAxe and NerdQAxe.
pub(in crate::miner) static NERDAXE: Described = described("nerdaxe", who_nerdaxe);

const fn described(make: &'static str, who: fn(&Replies) -> Identity) -> Described {
    Described { make, sample: &[Ask::Get(INFO)], identity: &[], chips: &[], door: OPEN, read, who }
}

/// The power is that of the board behind its plug, so that it is none at the wall.
const MINER: &[Place] = &[
    at(miner::HASHRATE_HASHES_PER_SECOND, INFO, "hashRate", Integer(9)),
    at(miner::HASHRATE_1M_HASHES_PER_SECOND, INFO, "hashRate_1m", Integer(9)),
    at(miner::HASHRATE_1H_HASHES_PER_SECOND, INFO, "hashRate_1h", Integer(9)),
    at(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, INFO, "expectedHashrate", Integer(9)),
    at(miner::ACCEPTED_SHARES, INFO, "sharesAccepted", Integer(0)),
    at(miner::REJECTED_SHARES, INFO, "sharesRejected", Integer(0)),
    at(miner::POWER_ESTIMATED_MILLIWATTS, INFO, "power", Integer(3)),
    at(miner::PSU_OUTPUT_MILLIVOLTS, INFO, "voltage", Integer(0)),
    at(miner::PSU_OUTPUT_MILLIAMPERES, INFO, "current", Integer(0)),
    at(miner::CHIP_TEMP_MAX_CELSIUS, INFO, "temp", NonZero(0)),
    at(miner::PCB_TEMP_MAX_CELSIUS, INFO, "vrTemp", NonZero(0)),
    at(miner::FAN_1_RPM, INFO, "fanrpm", Integer(0)),
    at(miner::FAN_2_RPM, INFO, "fan2rpm", Integer(0)),
    at(miner::FAN_DUTY_PERCENT, INFO, "fanspeed", Integer(0)),
    at(miner::FREQUENCY_KILOHERTZ, INFO, "frequency", Integer(3)),
    at(miner::POOL_PING_MILLISECONDS, INFO, "responseTime", Integer(0)),
    at(miner::POOL_DIFFICULTY, INFO, "stratumDiff", Float),
    at(miner::POOL_DIFFICULTY, INFO, "poolDifficulty", Float),
    at(miner::UPTIME_SECONDS, INFO, "uptimeSeconds", Integer(0)),
];

const BOARD: &[Place] = &[
    at(board::HASHRATE_HASHES_PER_SECOND, INFO, "hashRate", Integer(9)),
    at(board::HASHRATE_1M_HASHES_PER_SECOND, INFO, "hashRate_1m", Integer(9)),
    at(board::HASHRATE_EXPECTED_HASHES_PER_SECOND, INFO, "expectedHashrate", Integer(9)),
    at(board::CHIP_TEMP_MAX_CELSIUS, INFO, "temp", NonZero(0)),
    at(board::PCB_TEMP_MAX_CELSIUS, INFO, "vrTemp", NonZero(0)),
    at(board::CHIPS_EXPECTED, INFO, "asicCount", Integer(0)),
    at(board::VOLTAGE_MILLIVOLTS, INFO, "voltage", Integer(0)),
    at(board::CURRENT_MILLIAMPERES, INFO, "current", Integer(0)),
    at(board::POWER_MILLIWATTS, INFO, "power", Integer(3)),
    at(board::FREQUENCY_KILOHERTZ, INFO, "frequency", Integer(3)),
];

fn read(replies: &Replies, keys: &mut Keys) -> Read {
    let views = Views::of(replies);
    let boards = replies.ok(INFO).map(|info| board_row(info, &views, keys)).into_iter().collect();
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    fill(&mut filler, &views, MINER);
    let info = replies.get(INFO);
    let of = |read: &dyn Fn(&Json) -> Option<i64>| info.and_then(Result::ok).and_then(read);
    set(&mut filler, miner::POOLS_CONFIGURED, info, of(&pools_configured));
    if let Some(info) = replies.ok(INFO) {
        fill_best_share(&mut filler, info);
        fill_pool(&mut filler, info);
    }
    finish(&mut filler, &[POOL_COLUMNS[0], miner::STATE, miner::ERROR_CODES]);
    let facts = replies.ok(INFO).map(|info| facts(info, &filler.row)).unwrap_or_default();
    Read { facts, row: filler.row, boards, errors: None, mark: mark(replies) }
}

fn facts(info: &Json, row: &Row) -> Facts {
    let says = |name: &str| truth_at(info, name) == Some(true);
    let is_paused = says("miningPaused") || says("isPaused");
    Facts {
        fault: says("overheat_mode").then_some("overheat"),
        asleep: is_paused.then_some("curtailed"),
        ..facts_of(row)
    }
}

fn board_row(info: &Json, views: &Views<'_>, keys: &mut Keys) -> Row {
    let mut filler = board_filler(&tables::HASHBOARD_SAMPLE, keys, board::BOARD_INDEX, 0);
    fill(&mut filler, views, BOARD);
    // One rail feeds all chips, so it is a chip's voltage where there is one chip.
    let voltage = integer_at(info, "coreVoltageActual", 0).and_then(|voltage| i32::try_from(voltage).ok());
    if integer_at(info, "asicCount", 0) == Some(1) && voltage.is_some_and(|voltage| voltage > 0) {
        filler.read(board::CHIP_VOLTAGES_MILLIVOLTS, vec![voltage]);
    }
    finish(&mut filler, &[]);
    filler.row
}

/// The best share since the start, which is printed with a letter for thousands, millions and so on.
fn fill_best_share(filler: &mut Filler<'_>, info: &Json) {
    let Some(text) = text_at(info, "bestSessionDiff") else {
        return filler.absent(miner::BEST_SHARE_DIFFICULTY);
    };
    match lettered(text) {
        Some(value) => filler.read(miner::BEST_SHARE_DIFFICULTY, value),
        None => filler.row.fail(miner::BEST_SHARE_DIFFICULTY, fail_code::UNPARSABLE),
    }
}

/// `33M` as 33,000,000.
pub(super) fn lettered(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, letter) = match text.char_indices().last()? {
        (at, letter) if letter.is_ascii_alphabetic() => (&text[..at], letter.to_ascii_uppercase()),
        _ => (text, ' '),
    };
    let factor = match letter {
        ' ' => 1.0,
        'K' => 1e3,
        'M' => 1e6,
        'G' => 1e9,
        'T' => 1e12,
        'P' => 1e15,
        _ => return None,
    };
    let value = number.trim().parse::<f64>().ok()? * factor;
    (value.is_finite() && value >= 0.0).then_some(value)
}

fn pools_configured(info: &Json) -> Option<i64> {
    let named = |name: &str| text_at(info, name).map(|url| i64::from(!url.trim().is_empty()));
    Some(named("stratumURL")? + named("fallbackStratumURL").unwrap_or(0))
}

/// The pool in use, host and port.
fn fill_pool(filler: &mut Filler<'_>, info: &Json) {
    let is_fallback = truth_at(info, "isUsingFallbackStratum") == Some(true);
    let (host, port) =
        if is_fallback { ("fallbackStratumURL", "fallbackStratumPort") } else { ("stratumURL", "stratumPort") };
    let Some(host) = text_at(info, host).filter(|host| !host.trim().is_empty()) else { return };
    let url = match text_at(info, port) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    match without_secrets(&url) {
        Some(url) => filler.word(miner::POOL_URL, Some(&url)),
        None => filler.row.fail(miner::POOL_URL, fail_code::UNPARSABLE),
    }
}

fn mark(replies: &Replies) -> Option<String> {
    replies.ok(INFO).and_then(|info| text_at(info, "macAddr")).map(str::to_owned)
}

fn who_bitaxe(replies: &Replies) -> Identity {
    who_of("bitaxe", replies)
}

fn who_forgeaxe(replies: &Replies) -> Identity {
    who_of("forgeaxe", replies)
}

fn who_nerdaxe(replies: &Replies) -> Identity {
    who_of("nerdaxe", replies)
}

fn who_of(make: &str, replies: &Replies) -> Identity {
    let info = |name: &str| text_at(replies.ok(INFO)?, name);
    let told = [
        (device::MODEL, info("deviceModel").or_else(|| info("ASICModel"))),
        (device::HARDWARE_TYPE, info("boardVersion")),
        (device::FIRMWARE_VERSION, info("version")),
        (device::HOSTNAME, info("hostname")),
        (device::ALGORITHM, Some("sha256")),
    ];
    let mut identity = who::identity(make, None, info("macAddr"), &told);
    let chips = replies.ok(INFO).and_then(|info| integer_at(info, "asicCount", 0));
    who::count(&mut identity, device::CHIPS_EXPECTED, chips);
    who::count(&mut identity, device::BOARDS_EXPECTED, Some(1));
    identity
}
