//! Rows of an Avalon's replies: which column is read where, as the catalog says.
//!
//! Which keys a model has is known for those that were recorded, and is learnt from its replies for all others.

use racklake_schemas::tables::{self, hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, Row, fail_code};

use super::decimal::shifted;
use super::exchange::{Trouble, section};
use super::filler::{Filler, Keys, Place};
use super::identity::{Beside, identity};
use super::json::Json;
use super::key_text::KeyText;
use super::pool_url::without_secrets;
use super::reader::{Memory, Reader, Replies, Told, Wants};
use super::session::Session;
use super::state::{self, State};
use crate::source::BoxFuture;

/// Most boards that the catalog knows; more are no reading.
const BOARDS_MAX: usize = 64;

/// Reads Canaan's firmware for the Avalon.
pub(super) struct Avalon;

/// What is known of one Avalon from earlier polls.
#[derive(Default)]
struct Known {
    /// The firmware tells about the machine in `estats` only.
    wants_estats: bool,
    keys: Keys,
}

impl Reader for Avalon {
    fn make(&self) -> &'static str {
        "avalon"
    }

    fn memory(&self) -> Memory {
        Box::new(Known::default())
    }

    fn ask<'a>(&'a self, session: &'a mut Session<'_>, wants: Wants, memory: &'a mut Memory) -> BoxFuture<'a, Replies> {
        Box::pin(async move {
            let mut replies = Replies::default();
            let Some(known) = memory.downcast_mut::<Known>() else { return replies };
            if wants.sample && !ask_sample(session, known, &mut replies).await {
                return replies;
            }
            if wants.identity {
                replies.add("version", session.rpc("version").await);
            }
            replies
        })
    }

    fn read(&self, replies: &Replies, memory: &mut Memory) -> Told {
        let Some(known) = memory.downcast_mut::<Known>() else { return Told::default() };
        let parts = Parts::of(replies);
        let stats = parts.stats.as_ref().ok();
        if parts.summary.is_err() && stats.is_none() && parts.pools.is_err() {
            return Told::default();
        }
        if let Some(stats) = stats {
            learn_model(&mut known.keys, stats);
        }
        let judged = state::from_replies(parts.summary.ok(), stats, parts.pools.ok());
        let state = judged.map(|(state, _)| state);
        let row = miner_row(&parts, state, &mut known.keys);
        let boards = stats.map(|stats| board_rows(stats, state, &mut known.keys)).unwrap_or_default();
        let mark = stats.and_then(|stats| stats.text.get("DNA")).map(str::to_owned);
        let version = replies.get("version");
        let entry = version.and_then(|reply| entry(reply, "VERSION").ok());
        let identity = version
            .is_some()
            .then(|| identity(entry, &Beside { make: "avalon", dna: mark.as_deref(), chips: stats.and_then(chips) }));
        let uptime = match row.cell(miner::UPTIME_SECONDS) {
            Cell::I64(seconds) => Some(*seconds),
            _ => None,
        };
        Told {
            miner: Some(row),
            boards,
            judged,
            uptime,
            identity,
            is_identity_partial: entry.is_none(),
            mark,
            ..Told::default()
        }
    }
}

/// Asks for the sample; false where the miner has answered nothing.
async fn ask_sample(session: &mut Session<'_>, known: &mut Known, replies: &mut Replies) -> bool {
    let summary = session.rpc("summary").await;
    let is_connected = !matches!(summary, Err(Trouble::NoConnection(_)));
    replies.add("summary", summary);
    if !is_connected {
        return false;
    }
    let commands = if known.wants_estats { ["estats", "stats"] } else { ["stats", "estats"] };
    let mut tells_elsewhere = false;
    for (attempt, command) in commands.into_iter().enumerate() {
        let reply = session.rpc(command).await;
        let has_machine = reply.as_ref().is_ok_and(|reply| section(reply, "STATS").is_ok_and(has_machine));
        tells_elsewhere = attempt > 0 && has_machine;
        let is_other_needed = !has_machine && reply.as_ref().map_or_else(|t| *t == Trouble::Declined, |_| true);
        replies.add(command, reply);
        if !is_other_needed {
            break;
        }
    }
    known.wants_estats ^= tells_elsewhere;
    replies.add("pools", session.rpc("pools").await);
    replies.iter().any(|(_, reply)| reply.is_ok())
}

impl<'a> Parts<'a> {
    fn of(replies: &'a Replies) -> Parts<'a> {
        let reply = |command: &str| replies.get(command).unwrap_or(Err(Trouble::Unreadable));
        let of_stats = |reply: Result<&Json, Trouble>| Stats::of(section(reply?, "STATS")?).ok_or(Trouble::Unreadable);
        let is_stats = |(command, _): &(&str, Result<&Json, Trouble>)| matches!(*command, "stats" | "estats");
        // Where the first one does not tell about the machine, the second one says why there is nothing.
        let stats = replies.iter().filter(is_stats).map(|(_, reply)| of_stats(reply));
        let stats = stats.reduce(|first, second| if first.is_ok() { first } else { second });
        Parts {
            summary: entry(reply("summary"), "SUMMARY"),
            stats: stats.unwrap_or(Err(Trouble::Unreadable)),
            pools: reply("pools").and_then(|reply| section(reply, "POOLS")),
        }
    }
}

/// The first entry of a reply.
fn entry<'a>(reply: Result<&'a Json, Trouble>, name: &str) -> Result<&'a Json, Trouble> {
    section(reply?, name)?.first().ok_or(Trouble::Unreadable)
}

/// What the replies of one poll hold: of `summary` its one entry, of `pools` the list.
pub(super) struct Parts<'a> {
    pub(super) summary: Result<&'a Json, Trouble>,
    pub(super) stats: Result<Stats, Trouble>,
    pub(super) pools: Result<&'a [Json], Trouble>,
}

/// The part of `stats` that tells about the machine.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) text: KeyText,
}

impl Stats {
    /// The texts of the first entry that has an `MM ID` member; `None` where there is none.
    fn of(list: &[Json]) -> Option<Stats> {
        let Json::Object(members) = list.iter().find(|entry| is_machine(entry))? else { return None };
        let mut text = KeyText::default();
        members.iter().filter_map(|(_, value)| value.text()).for_each(|value| text.add(value));
        Some(Stats { text })
    }

    #[cfg(test)]
    pub(super) fn of_text(text: &str) -> Stats {
        let mut keys = KeyText::default();
        keys.add(text);
        Stats { text: keys }
    }

    /// What it says it does: `In Work` and so on.
    pub(super) fn work(&self) -> Option<&str> {
        self.system("Work:")
    }

    /// Boards that the controller sees.
    pub(super) fn boards_found(&self) -> Option<&str> {
        self.system("Hash Board:")
    }

    fn system(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.text.get("SYSTEMSTATU")?.split_once(name)?;
        rest.split(',').next().map(str::trim)
    }

    /// Boards that it has values of.
    fn boards(&self) -> usize {
        let length = |key: &str| self.text.list(key).map_or(0, |items| items.len());
        ["MGHS", "MTmax", "MH", "ECHU"].into_iter().map(length).max().unwrap_or(0).min(BOARDS_MAX)
    }
}

/// Whether an entry of `stats` tells about the machine.
fn is_machine(entry: &Json) -> bool {
    match entry {
        Json::Object(members) => members.iter().any(|(name, _)| name.starts_with("MM ID")),
        _ => false,
    }
}

fn has_machine(list: &[Json]) -> bool {
    list.iter().any(is_machine)
}

/// Pools that answer.
pub(super) fn alive(pools: &[Json]) -> usize {
    pools.iter().filter(|pool| pool.text_of("Status") == Some("Alive")).count()
}

/// The 1246 tells no temperature of the air that goes out.
const AVALON_1246_LACKS: [Place; 1] = [(tables::MINER_SAMPLE.number, miner::OUTLET_TEMP_CELSIUS)];

/// The Avalon Q has one board and tells its temperatures for the whole machine.
const AVALON_Q_LACKS: [Place; 2] = [
    (tables::HASHBOARD_SAMPLE.number, board::CHIP_TEMP_MAX_CELSIUS),
    (tables::HASHBOARD_SAMPLE.number, board::CHIP_TEMP_AVERAGE_CELSIUS),
];

/// Takes the model from the firmware's name for itself.
pub(super) fn learn_model(keys: &mut Keys, stats: &Stats) {
    let version = stats.text.get("Ver").unwrap_or_default();
    if version.starts_with("1246-") {
        keys.set_lacks(Some(&AVALON_1246_LACKS));
    } else if version.starts_with("Q-") {
        keys.set_lacks(Some(&AVALON_Q_LACKS));
    } else if !version.is_empty() {
        keys.set_lacks(None);
    }
}

const SUMMARY_COLUMNS: [usize; 16] = [
    miner::ACCEPTED_SHARES,
    miner::REJECTED_SHARES,
    miner::STALE_SHARES,
    miner::HARDWARE_ERRORS,
    miner::ACCEPTED_DIFFICULTY,
    miner::REJECTED_DIFFICULTY,
    miner::HASHRATE_AVERAGE_HASHES_PER_SECOND,
    miner::HASHRATE_5S_HASHES_PER_SECOND,
    miner::HASHRATE_1M_HASHES_PER_SECOND,
    miner::HASHRATE_5M_HASHES_PER_SECOND,
    miner::HASHRATE_15M_HASHES_PER_SECOND,
    miner::UPTIME_SECONDS,
    miner::STALE_DIFFICULTY,
    miner::DISCARDED_WORK,
    miner::BLOCKS_FOUND,
    miner::BEST_SHARE_DIFFICULTY,
];

const STATS_COLUMNS: [usize; 22] = [
    miner::HASHRATE_HASHES_PER_SECOND,
    miner::HASHRATE_EXPECTED_HASHES_PER_SECOND,
    miner::POWER_MILLIWATTS,
    miner::POWER_OUTPUT_MILLIWATTS,
    miner::POWER_LIMIT_MILLIWATTS,
    miner::PSU_OUTPUT_MILLIVOLTS,
    miner::PSU_OUTPUT_MILLIAMPERES,
    miner::PSU_ERROR_CODE,
    miner::INLET_TEMP_CELSIUS,
    miner::CHIP_TEMP_MAX_CELSIUS,
    miner::CHIP_TEMP_AVERAGE_CELSIUS,
    miner::FAN_1_RPM,
    miner::FAN_2_RPM,
    miner::FAN_3_RPM,
    miner::FAN_4_RPM,
    miner::FAN_DUTY_PERCENT,
    miner::FREQUENCY_KILOHERTZ,
    miner::POOL_PING_MILLISECONDS,
    miner::BOARDS_FOUND,
    miner::ERROR_MASK,
    miner::OUTLET_TEMP_CELSIUS,
    miner::POWER_MODE,
];

const POOLS_COLUMNS: [usize; 5] =
    [miner::POOL_URL, miner::POOL_STATUS, miner::POOLS_ALIVE, miner::POOLS_CONFIGURED, miner::POOL_DIFFICULTY];

/// What is judged of all replies.
const JUDGED_COLUMNS: [usize; 2] = [miner::STATE, miner::STATE_REASON];

const BOARD_COLUMNS: [usize; 12] = [
    board::BOARD_INDEX,
    board::HASHRATE_AVERAGE_HASHES_PER_SECOND,
    board::HARDWARE_ERRORS,
    board::CRC_ERRORS,
    board::CHIP_TEMP_MAX_CELSIUS,
    board::CHIP_TEMP_AVERAGE_CELSIUS,
    board::CHIPS_FOUND,
    board::CHIPS_EXPECTED,
    board::BOARD_ERROR_MASK,
    board::CHIP_TEMPS_CELSIUS,
    board::CHIP_VOLTAGES_MILLIVOLTS,
    board::CHIP_NONCES,
];

/// The row of `miner_sample`, without state.
pub(super) fn miner_row(parts: &Parts<'_>, state: Option<State>, keys: &mut Keys) -> Row {
    let mut filler = Filler::new(&tables::MINER_SAMPLE, keys);
    if let Ok(summary) = parts.summary {
        read_summary(&mut filler, summary, parts.stats.as_ref().ok());
    }
    match &parts.stats {
        Ok(stats) => read_stats(&mut filler, &stats.text, stats.boards_found(), state),
        Err(trouble) => filler.fail(&STATS_COLUMNS, *trouble),
    }
    match parts.pools {
        Ok(pools) => read_pools(&mut filler, pools),
        Err(trouble) => filler.fail(&POOLS_COLUMNS, trouble),
    }
    if let Err(trouble) = parts.summary {
        // Two of them are told by `stats` as well.
        if let Ok(Stats { text }) = &parts.stats {
            filler.integer(miner::HARDWARE_ERRORS, text.get("HW"), 0);
            filler.integer(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, text.get("GHSavg"), 9);
        }
        filler.fail(&SUMMARY_COLUMNS, trouble);
    }
    filler.finish(&[&SUMMARY_COLUMNS, &STATS_COLUMNS, &POOLS_COLUMNS, &JUDGED_COLUMNS])
}

fn read_summary(filler: &mut Filler<'_>, summary: &Json, stats: Option<&Stats>) {
    let or_stats = |name: &str, key: &str, shift: i32, shift_stats: i32| match summary.text_of(name) {
        Some(text) => (Some(text), shift),
        None => (stats.and_then(|stats| stats.text.get(key)), shift_stats),
    };
    filler.integer(miner::ACCEPTED_SHARES, summary.text_of("Accepted"), 0);
    filler.integer(miner::REJECTED_SHARES, summary.text_of("Rejected"), 0);
    filler.integer(miner::STALE_SHARES, summary.text_of("Stale"), 0);
    let (errors, shift) = or_stats("Hardware Errors", "HW", 0, 0);
    filler.integer(miner::HARDWARE_ERRORS, errors, shift);
    filler.float(miner::ACCEPTED_DIFFICULTY, summary.text_of("Difficulty Accepted"));
    filler.float(miner::REJECTED_DIFFICULTY, summary.text_of("Difficulty Rejected"));
    let (average, shift) = or_stats("MHS av", "GHSavg", 6, 9);
    filler.integer(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, average, shift);
    filler.integer(miner::HASHRATE_5S_HASHES_PER_SECOND, summary.text_of("MHS 5s"), 6);
    filler.integer(miner::HASHRATE_1M_HASHES_PER_SECOND, summary.text_of("MHS 1m"), 6);
    filler.integer(miner::HASHRATE_5M_HASHES_PER_SECOND, summary.text_of("MHS 5m"), 6);
    filler.integer(miner::HASHRATE_15M_HASHES_PER_SECOND, summary.text_of("MHS 15m"), 6);
    filler.integer(miner::UPTIME_SECONDS, summary.text_of("Elapsed"), 0);
    filler.float(miner::STALE_DIFFICULTY, summary.text_of("Difficulty Stale"));
    filler.integer(miner::DISCARDED_WORK, summary.text_of("Discarded"), 0);
    filler.integer(miner::BLOCKS_FOUND, summary.text_of("Found Blocks"), 0);
    filler.float(miner::BEST_SHARE_DIFFICULTY, summary.text_of("Best Share"));
}

fn read_stats(filler: &mut Filler<'_>, text: &KeyText, boards_found: Option<&str>, state: Option<State>) {
    filler.integer(miner::HASHRATE_HASHES_PER_SECOND, text.get("GHSspd"), 9);
    filler.integer(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, text.get("GHSmm"), 9);
    filler.integer(miner::PSU_ERROR_CODE, text.item("PS", 0), 0);
    filler.integer(miner::PSU_OUTPUT_MILLIVOLTS, text.item("PS", 2), 1);
    filler.integer(miner::PSU_OUTPUT_MILLIAMPERES, text.item("PS", 3), 3);
    filler.integer(miner::POWER_OUTPUT_MILLIWATTS, text.item("PS", 4), 3);
    filler.integer(miner::POWER_MILLIWATTS, text.item("PS", 6), 3);
    filler.integer(miner::POWER_LIMIT_MILLIWATTS, text.get("MPO"), 3);
    filler.integer(miner::INLET_TEMP_CELSIUS, text.get("ITemp").or_else(|| text.get("Temp")), 0);
    if !is_unmeasured(text, state) {
        filler.integer(miner::CHIP_TEMP_MAX_CELSIUS, text.get("TMax"), 0);
        filler.integer(miner::CHIP_TEMP_AVERAGE_CELSIUS, text.get("TAvg"), 0);
    }
    for (column, key) in
        [(miner::FAN_1_RPM, "Fan1"), (miner::FAN_2_RPM, "Fan2"), (miner::FAN_3_RPM, "Fan3"), (miner::FAN_4_RPM, "Fan4")]
    {
        filler.integer(column, text.get(key), 0);
    }
    filler.integer(miner::FAN_DUTY_PERCENT, text.get("FanR"), 0);
    filler.integer(miner::FREQUENCY_KILOHERTZ, text.get("Freq"), 3);
    filler.integer(miner::POOL_PING_MILLISECONDS, text.get("PING"), 0);
    filler.integer(miner::BOARDS_FOUND, boards_found, 0);
    filler.integer(miner::ERROR_MASK, text.get("ECMM"), 0);
    filler.integer(miner::OUTLET_TEMP_CELSIUS, text.get("HBOTemp"), 0);
    filler.word(miner::POWER_MODE, text.get("WORKMODE"));
}

/// Without a pool in use there is no URL, status or difficulty, and none of them has failed.
fn read_pools(filler: &mut Filler<'_>, pools: &[Json]) {
    filler.read(miner::POOLS_ALIVE, alive(pools) as i64);
    filler.read(miner::POOLS_CONFIGURED, pools.len() as i64);
    let is_active = |pool: &&Json| match pool.get("Stratum Active") {
        Some(Json::Bool(active)) => *active,
        other => other.and_then(Json::text) == Some("true"),
    };
    let Some(active) = pools.iter().find(is_active) else { return };
    match active.text_of("URL") {
        None => filler.absent(miner::POOL_URL),
        Some(url) => match without_secrets(url) {
            Some(url) => filler.read(miner::POOL_URL, url),
            None => filler.row.fail(miner::POOL_URL, fail_code::UNPARSABLE),
        },
    }
    filler.word(miner::POOL_STATUS, active.text_of("Status"));
    filler.float(miner::POOL_DIFFICULTY, active.text_of("Stratum Difficulty"));
}

/// Whether the chips are not measured now: asleep, the firmware says 0 for the hottest one and goes on telling the
/// lists of the time before. Such cells are null and have not failed.
fn is_unmeasured(text: &KeyText, state: Option<State>) -> bool {
    state == Some(State::Sleeping) && text.get("TMax").is_none_or(|hottest| shifted(hottest, 0) == Ok(0))
}

/// The rows of `hashboard_sample`.
pub(super) fn board_rows(stats: &Stats, state: Option<State>, keys: &mut Keys) -> Vec<Row> {
    let (text, boards) = (&stats.text, stats.boards());
    let unmeasured = is_unmeasured(text, state);
    let chips_expected = chips(stats).map(|all| (all / boards.max(1) as i64).to_string());
    (0..boards).map(|index| board_row(text, index, chips_expected.as_deref(), unmeasured, keys)).collect()
}

/// Chips of the whole miner.
pub(super) fn chips(stats: &Stats) -> Option<i64> {
    stats.text.get("TA").and_then(|text| shifted(text, 0).ok())
}

fn board_row(text: &KeyText, index: usize, chips_expected: Option<&str>, unmeasured: bool, keys: &mut Keys) -> Row {
    let mut filler = Filler::new(&tables::HASHBOARD_SAMPLE, keys);
    let list = |key: &str| text.list(&format!("{key}{index}"));
    filler.row.set(board::BOARD_INDEX, index as i64);
    filler.integer(board::HASHRATE_AVERAGE_HASHES_PER_SECOND, text.item("MGHS", index), 9);
    filler.integer(board::HARDWARE_ERRORS, text.item("MH", index), 0);
    match list("ASICCRC") {
        None => filler.integer(board::CRC_ERRORS, text.item("CRC", index), 0),
        Some(errors) => match sum(&errors) {
            Some(sum) => filler.read(board::CRC_ERRORS, sum),
            None => filler.row.fail(board::CRC_ERRORS, fail_code::UNPARSABLE),
        },
    }
    filler.integer(board::CHIPS_EXPECTED, chips_expected, 0);
    filler.integer(board::BOARD_ERROR_MASK, text.item("ECHU", index), 0);
    if unmeasured {
        for column in [board::CHIP_TEMP_MAX_CELSIUS, board::CHIP_TEMP_AVERAGE_CELSIUS] {
            filler.unsupported_if_lacking(column);
        }
        return filler.finish(&[&BOARD_COLUMNS]);
    }
    filler.integer(board::CHIP_TEMP_MAX_CELSIUS, text.item("MTmax", index), 0);
    filler.integer(board::CHIP_TEMP_AVERAGE_CELSIUS, text.item("MTavg", index), 0);
    let temps = list("PVT_T");
    match &temps {
        None => filler.absent(board::CHIPS_FOUND),
        Some(temps) => filler.read(board::CHIPS_FOUND, temps.len() as i64),
    }
    filler.chips(board::CHIP_TEMPS_CELSIUS, temps.as_deref());
    filler.chips(board::CHIP_VOLTAGES_MILLIVOLTS, list("PVT_V").as_deref());
    filler.chips(board::CHIP_NONCES, list("MW").as_deref());
    filler.finish(&[&BOARD_COLUMNS])
}

/// The sum of counters; `None` where one is none.
fn sum(items: &[&str]) -> Option<i64> {
    items.iter().try_fold(0i64, |sum, item| shifted(item, 0).ok().filter(|v| *v >= 0).and_then(|v| sum.checked_add(v)))
}
