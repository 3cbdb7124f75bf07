//! Rows of an Avalon's replies: which column is read where, as the catalog says.
//!
//! A key that the model lacks is unsupported; one that it has and a reply lacks is a failed read. Which keys a model has
//! is known for those that were recorded, and is learnt from its replies for all others.

use std::collections::BTreeSet;

use racklake_schemas::tables::{self, hashboard_sample as board, miner_sample as miner};
use racklake_schemas::{Cell, Kind, Row, Table, fail_code};

use super::decimal::{NoInteger, shifted};
use super::exchange::Trouble;
use super::json::Json;
use super::key_text::KeyText;
use super::pool_url::without_secrets;
use super::state::State;

/// Most boards and chips that the catalog knows; more are no reading.
const BOARDS_MAX: usize = 64;
const CHIPS_MAX: usize = 10_000;
/// Longest text that is kept.
const TEXT_MAX: usize = 100;

/// Replies of one poll. A reply of `summary` is its one entry, one of `pools` the list.
pub(super) struct Replies {
    pub(super) summary: Result<Json, Trouble>,
    pub(super) stats: Result<Stats, Trouble>,
    pub(super) pools: Result<Json, Trouble>,
}

/// The part of `stats` that tells about the machine.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) text: KeyText,
}

impl Stats {
    /// The texts of the first entry that has an `MM ID` member; `None` where there is none.
    pub(super) fn of(list: &Json) -> Option<Stats> {
        let is_machine = |entry: &&Json| match entry {
            Json::Object(members) => members.iter().any(|(name, _)| name.starts_with("MM ID")),
            _ => false,
        };
        let Json::Object(members) = list.items().iter().find(is_machine)? else { return None };
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

/// Pools that answer.
pub(super) fn alive(pools: &Json) -> usize {
    pools.items().iter().filter(|pool| pool.text_of("Status") == Some("Alive")).count()
}

/// What a model has, where that is known.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Columns without which the model is complete; `None` for a model that was never recorded.
    lacks: Option<&'static [Place]>,
    /// Columns that were read once.
    seen: BTreeSet<Place>,
}

/// Table number and column.
type Place = (u32, usize);

/// The Avalon Q has one board and tells its temperatures for the whole machine.
const AVALON_Q_LACKS: [Place; 2] = [
    (tables::HASHBOARD_SAMPLE.number, board::CHIP_TEMP_MAX_CELSIUS),
    (tables::HASHBOARD_SAMPLE.number, board::CHIP_TEMP_AVERAGE_CELSIUS),
];

impl Keys {
    /// Takes the model from the firmware's name for itself.
    pub(super) fn learn_model(&mut self, stats: &Stats) {
        let version = stats.text.get("Ver").unwrap_or_default();
        if version.starts_with("1246-") {
            self.lacks = Some(&[]);
        } else if version.starts_with("Q-") {
            self.lacks = Some(&AVALON_Q_LACKS);
        } else if !version.is_empty() {
            self.lacks = None;
        }
    }

    fn has(&self, place: Place) -> bool {
        match self.lacks {
            Some(lacks) => !lacks.contains(&place),
            None => self.seen.contains(&place),
        }
    }

    /// Whether the model is known to lack the column.
    fn surely_lacks(&self, place: Place) -> bool {
        self.lacks.is_some_and(|lacks| lacks.contains(&place))
    }
}

/// A row that is being read.
struct Reader<'a> {
    row: Row,
    keys: &'a mut Keys,
}

impl<'a> Reader<'a> {
    fn new(table: &'static Table, keys: &'a mut Keys) -> Reader<'a> {
        Reader { row: Row::new(table), keys }
    }

    fn place(&self, column: usize) -> Place {
        (self.row.table().number, column)
    }

    /// Absent where it may be, or failed.
    fn absent(&mut self, column: usize) {
        if self.keys.has(self.place(column)) {
            self.row.fail(column, fail_code::MISSING);
        } else {
            self.row.unsupported(column);
        }
    }

    fn read(&mut self, column: usize, value: impl Into<Cell>) {
        self.keys.seen.insert(self.place(column));
        self.row.read(column, value);
    }

    /// A printed decimal, shifted to the unit of the column.
    fn integer(&mut self, column: usize, text: Option<&str>, shift: i32) {
        let Some(text) = text else { return self.absent(column) };
        let counts = self.row.table().columns[column].kind == Kind::Counter;
        match shifted(text.trim_end_matches('%'), shift) {
            Ok(value) if counts && value < 0 => self.row.fail(column, fail_code::OUT_OF_RANGE),
            Ok(value) => self.read(column, value),
            Err(NoInteger::TooLarge) => self.row.fail(column, fail_code::OUT_OF_RANGE),
            Err(NoInteger::NotANumber) => self.row.fail(column, fail_code::UNPARSABLE),
        }
    }

    fn float(&mut self, column: usize, text: Option<&str>) {
        let Some(text) = text else { return self.absent(column) };
        match text.trim().parse::<f64>() {
            Ok(value) if value.is_finite() && value >= 0.0 => self.read(column, value),
            Ok(value) if value.is_nan() => self.row.fail(column, fail_code::UNPARSABLE),
            Ok(_) => self.row.fail(column, fail_code::OUT_OF_RANGE),
            Err(_) => self.row.fail(column, fail_code::UNPARSABLE),
        }
    }

    fn word(&mut self, column: usize, text: Option<&str>) {
        match text {
            Some(text) => self.read(column, plain(text)),
            None => self.absent(column),
        }
    }

    /// A value per chip; one that is no number is unread.
    fn chips(&mut self, column: usize, items: Option<&[&str]>) {
        match items {
            None => self.absent(column),
            Some(items) if items.len() > CHIPS_MAX => self.row.fail(column, fail_code::OUT_OF_RANGE),
            Some(items) => {
                let one = |text: &&str| shifted(text, 0).ok().and_then(|value| i32::try_from(value).ok());
                let values: Vec<Option<i32>> = items.iter().map(one).collect();
                self.read(column, values);
            }
        }
    }

    /// Columns of a command that has failed, unless they have a value from elsewhere.
    fn fail(&mut self, columns: &[usize], trouble: Trouble) {
        for &column in columns {
            if *self.row.cell(column) != Cell::Null {
                continue;
            }
            if self.keys.surely_lacks(self.place(column)) {
                self.row.unsupported(column);
            } else {
                self.row.fail(column, trouble.code());
            }
        }
    }
}

const SUMMARY_COLUMNS: [usize; 12] = [
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
];

const STATS_COLUMNS: [usize; 20] = [
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
];

const POOLS_COLUMNS: [usize; 4] = [miner::POOL_URL, miner::POOL_STATUS, miner::POOLS_ALIVE, miner::POOL_DIFFICULTY];

/// The row of `miner_sample`, without state.
pub(super) fn miner_row(replies: &Replies, state: Option<State>, keys: &mut Keys) -> Row {
    let mut reader = Reader::new(&tables::MINER_SAMPLE, keys);
    if let Ok(summary) = &replies.summary {
        read_summary(&mut reader, summary, replies.stats.as_ref().ok());
    }
    match &replies.stats {
        Ok(stats) => read_stats(&mut reader, &stats.text, stats.boards_found(), state),
        Err(trouble) => reader.fail(&STATS_COLUMNS, *trouble),
    }
    match &replies.pools {
        Ok(pools) => read_pools(&mut reader, pools),
        Err(trouble) => reader.fail(&POOLS_COLUMNS, *trouble),
    }
    if let Err(trouble) = &replies.summary {
        // Two of them are told by `stats` as well.
        if let Ok(Stats { text }) = &replies.stats {
            reader.integer(miner::HARDWARE_ERRORS, text.get("HW"), 0);
            reader.integer(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, text.get("GHSavg"), 9);
        }
        reader.fail(&SUMMARY_COLUMNS, *trouble);
    }
    reader.row
}

fn read_summary(reader: &mut Reader<'_>, summary: &Json, stats: Option<&Stats>) {
    let or_stats = |name: &str, key: &str, shift: i32, shift_stats: i32| match summary.text_of(name) {
        Some(text) => (Some(text), shift),
        None => (stats.and_then(|stats| stats.text.get(key)), shift_stats),
    };
    reader.integer(miner::ACCEPTED_SHARES, summary.text_of("Accepted"), 0);
    reader.integer(miner::REJECTED_SHARES, summary.text_of("Rejected"), 0);
    reader.integer(miner::STALE_SHARES, summary.text_of("Stale"), 0);
    let (errors, shift) = or_stats("Hardware Errors", "HW", 0, 0);
    reader.integer(miner::HARDWARE_ERRORS, errors, shift);
    reader.float(miner::ACCEPTED_DIFFICULTY, summary.text_of("Difficulty Accepted"));
    reader.float(miner::REJECTED_DIFFICULTY, summary.text_of("Difficulty Rejected"));
    let (average, shift) = or_stats("MHS av", "GHSavg", 6, 9);
    reader.integer(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, average, shift);
    reader.integer(miner::HASHRATE_5S_HASHES_PER_SECOND, summary.text_of("MHS 5s"), 6);
    reader.integer(miner::HASHRATE_1M_HASHES_PER_SECOND, summary.text_of("MHS 1m"), 6);
    reader.integer(miner::HASHRATE_5M_HASHES_PER_SECOND, summary.text_of("MHS 5m"), 6);
    reader.integer(miner::HASHRATE_15M_HASHES_PER_SECOND, summary.text_of("MHS 15m"), 6);
    reader.integer(miner::UPTIME_SECONDS, summary.text_of("Elapsed"), 0);
}

fn read_stats(reader: &mut Reader<'_>, text: &KeyText, boards_found: Option<&str>, state: Option<State>) {
    reader.integer(miner::HASHRATE_HASHES_PER_SECOND, text.get("GHSspd"), 9);
    reader.integer(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, text.get("GHSmm"), 9);
    reader.integer(miner::PSU_ERROR_CODE, text.item("PS", 0), 0);
    reader.integer(miner::PSU_OUTPUT_MILLIVOLTS, text.item("PS", 2), 1);
    reader.integer(miner::PSU_OUTPUT_MILLIAMPERES, text.item("PS", 3), 3);
    reader.integer(miner::POWER_OUTPUT_MILLIWATTS, text.item("PS", 4), 3);
    reader.integer(miner::POWER_MILLIWATTS, text.item("PS", 6), 3);
    reader.integer(miner::POWER_LIMIT_MILLIWATTS, text.get("MPO"), 3);
    reader.integer(miner::INLET_TEMP_CELSIUS, text.get("ITemp").or_else(|| text.get("Temp")), 0);
    if !is_unmeasured(text, state) {
        reader.integer(miner::CHIP_TEMP_MAX_CELSIUS, text.get("TMax"), 0);
        reader.integer(miner::CHIP_TEMP_AVERAGE_CELSIUS, text.get("TAvg"), 0);
    }
    for (column, key) in
        [(miner::FAN_1_RPM, "Fan1"), (miner::FAN_2_RPM, "Fan2"), (miner::FAN_3_RPM, "Fan3"), (miner::FAN_4_RPM, "Fan4")]
    {
        reader.integer(column, text.get(key), 0);
    }
    reader.integer(miner::FAN_DUTY_PERCENT, text.get("FanR"), 0);
    reader.integer(miner::FREQUENCY_KILOHERTZ, text.get("Freq"), 3);
    reader.integer(miner::POOL_PING_MILLISECONDS, text.get("PING"), 0);
    reader.integer(miner::BOARDS_FOUND, boards_found, 0);
    reader.integer(miner::ERROR_MASK, text.get("ECMM"), 0);
}

/// Without a pool in use there is no URL, status or difficulty, and none of them has failed.
fn read_pools(reader: &mut Reader<'_>, pools: &Json) {
    reader.read(miner::POOLS_ALIVE, alive(pools) as i64);
    let is_active = |pool: &&Json| match pool.get("Stratum Active") {
        Some(Json::Bool(active)) => *active,
        other => other.and_then(Json::text) == Some("true"),
    };
    let Some(active) = pools.items().iter().find(is_active) else { return };
    match active.text_of("URL") {
        None => reader.absent(miner::POOL_URL),
        Some(url) => match without_secrets(url) {
            Some(url) => reader.read(miner::POOL_URL, url),
            None => reader.row.fail(miner::POOL_URL, fail_code::UNPARSABLE),
        },
    }
    reader.word(miner::POOL_STATUS, active.text_of("Status"));
    reader.float(miner::POOL_DIFFICULTY, active.text_of("Stratum Difficulty"));
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
    let mut reader = Reader::new(&tables::HASHBOARD_SAMPLE, keys);
    let list = |key: &str| text.list(&format!("{key}{index}"));
    reader.row.set(board::BOARD_INDEX, index as i64);
    reader.integer(board::HASHRATE_AVERAGE_HASHES_PER_SECOND, text.item("MGHS", index), 9);
    reader.integer(board::HARDWARE_ERRORS, text.item("MH", index), 0);
    match list("ASICCRC") {
        None => reader.integer(board::CRC_ERRORS, text.item("CRC", index), 0),
        Some(errors) => match sum(&errors) {
            Some(sum) => reader.read(board::CRC_ERRORS, sum),
            None => reader.row.fail(board::CRC_ERRORS, fail_code::UNPARSABLE),
        },
    }
    reader.integer(board::CHIPS_EXPECTED, chips_expected, 0);
    reader.integer(board::BOARD_ERROR_MASK, text.item("ECHU", index), 0);
    if unmeasured {
        for column in [board::CHIP_TEMP_MAX_CELSIUS, board::CHIP_TEMP_AVERAGE_CELSIUS] {
            if reader.keys.surely_lacks(reader.place(column)) {
                reader.row.unsupported(column);
            }
        }
        return reader.row;
    }
    reader.integer(board::CHIP_TEMP_MAX_CELSIUS, text.item("MTmax", index), 0);
    reader.integer(board::CHIP_TEMP_AVERAGE_CELSIUS, text.item("MTavg", index), 0);
    let temps = list("PVT_T");
    match &temps {
        None => reader.absent(board::CHIPS_FOUND),
        Some(temps) => reader.read(board::CHIPS_FOUND, temps.len() as i64),
    }
    reader.chips(board::CHIP_TEMPS_CELSIUS, temps.as_deref());
    reader.chips(board::CHIP_VOLTAGES_MILLIVOLTS, list("PVT_V").as_deref());
    reader.chips(board::CHIP_NONCES, list("MW").as_deref());
    reader.row
}

/// The sum of counters; `None` where one is none.
fn sum(items: &[&str]) -> Option<i64> {
    items.iter().try_fold(0i64, |sum, item| shifted(item, 0).ok().filter(|v| *v >= 0).and_then(|v| sum.checked_add(v)))
}

/// A text of the firmware in one line of bounded length.
pub(super) fn plain(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect()
}
