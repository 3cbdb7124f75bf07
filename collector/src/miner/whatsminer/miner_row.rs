//! The row of a Whatsminer.

use racklake_schemas::Row;
use racklake_schemas::tables::{MINER_SAMPLE, miner_sample as miner};

use super::super::decimal::shifted;
use super::super::exchange::Trouble;
use super::super::filler::{Filler, Keys};
use super::super::json::Json;
use super::super::pools;
use super::boards::temperature;
use super::parts::{Part, Parts};
use super::shape::{CHIP_TEMPS, Line, PSU, SUMMARY};

/// What is known of the model.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Model {
    /// The documents of its interface say that `Power` is what is drawn at the wall.
    pub(super) is_power_of_wall: bool,
    /// A liquid cools it, and what is called environment is that liquid.
    pub(super) is_liquid_cooled: bool,
    /// Sensors measure nothing.
    pub(super) is_asleep: bool,
}

/// Columns that may be null without having failed, and those that are not read here.
const NULLABLE: [usize; 8] = [
    miner::POOL_URL,
    miner::POOL_STATUS,
    miner::POOL_DIFFICULTY,
    miner::CHIP_TEMP_MAX_CELSIUS,
    miner::CHIP_TEMP_AVERAGE_CELSIUS,
    miner::PCB_TEMP_MAX_CELSIUS,
    miner::STATE,
    miner::ERROR_CODES,
];

/// The row, without state, reason and error codes.
pub(super) fn miner_row(parts: &Parts<'_>, model: Model, keys: &mut Keys) -> Row {
    let mut filler = Filler::new(&MINER_SAMPLE, keys);
    let summary = &parts.summary;
    for line in SUMMARY {
        integer(&mut filler, summary, line);
    }
    word_or_fail(&mut filler, miner::POWER_MODE, power_mode(parts), summary.trouble);
    read_power(&mut filler, parts, model);
    read_psu(&mut filler, parts);
    read_shares(&mut filler, parts);
    read_temperatures(&mut filler, parts, model);
    match parts.pools.json {
        Some(Json::List(list)) => pools::fill(&mut filler, list),
        _ => fail_or_absent(&mut filler, &pools::COLUMNS, parts.pools.trouble),
    }
    match parts.boards.json {
        Some(Json::List(items)) => filler.read(miner::BOARDS_FOUND, found(items, parts.boards.is_framed)),
        _ => fail_or_absent(&mut filler, &[miner::BOARDS_FOUND], parts.boards.trouble),
    }
    filler.finish(&[&NULLABLE])
}

/// Boards with chips that answer; a firmware that does not count chips lists boards that are there.
fn found(items: &[Json], is_framed: bool) -> i64 {
    let name = if is_framed { "effective-chips" } else { "Effective Chips" };
    let answers = |item: &&Json| item.text_of(name).is_none_or(|chips| shifted(chips, 0) != Ok(0));
    items.iter().filter(answers).count() as i64
}

fn fail_or_absent(filler: &mut Filler<'_>, columns: &[usize], trouble: Option<Trouble>) {
    match trouble {
        Some(trouble) => filler.fail(columns, trouble),
        None => columns.iter().for_each(|column| filler.absent(*column)),
    }
}

fn integer_or_fail(filler: &mut Filler<'_>, column: usize, text: Option<&str>, power: i32, trouble: Option<Trouble>) {
    match text {
        Some(_) => filler.integer(column, text, power),
        None => fail_or_absent(filler, &[column], trouble),
    }
}

fn word_or_fail(filler: &mut Filler<'_>, column: usize, text: Option<&str>, trouble: Option<Trouble>) {
    match text.filter(|text| !text.trim().is_empty()) {
        Some(text) => filler.word(column, Some(text)),
        None => fail_or_absent(filler, &[column], trouble),
    }
}

fn integer(filler: &mut Filler<'_>, part: &Part<'_>, line: Line) {
    let (column, plain, power, framed, framed_power) = line;
    let power = if part.is_framed { framed_power } else { power };
    integer_or_fail(filler, column, part.text(plain, framed), power, part.trouble);
}

/// `Normal`, `low`, or the number of the mode on port 4433.
fn power_mode<'a>(parts: &Parts<'a>) -> Option<&'a str> {
    if parts.psu.is_framed { parts.psu.text("", "mode") } else { parts.summary.text("Power Mode", "") }
}

fn read_power(filler: &mut Filler<'_>, parts: &Parts<'_>, model: Model) {
    let summary = &parts.summary;
    let watts = summary.text("Power", "power-realtime");
    let (column, other) = if model.is_power_of_wall {
        (miner::POWER_MILLIWATTS, miner::POWER_ESTIMATED_MILLIWATTS)
    } else {
        (miner::POWER_ESTIMATED_MILLIWATTS, miner::POWER_MILLIWATTS)
    };
    integer_or_fail(filler, column, watts, 3, summary.trouble);
    filler.absent(other);
}

fn read_psu(filler: &mut Filler<'_>, parts: &Parts<'_>) {
    let (summary, psu) = (&parts.summary, &parts.psu);
    for line in PSU {
        integer(filler, psu, line);
    }
    // Hundredths of a volt, in either place.
    let volts = summary.text("Voltage", "").or_else(|| psu.text("", "vout"));
    integer_or_fail(filler, miner::PSU_OUTPUT_MILLIVOLTS, volts, 1, summary.trouble);
    let fan = psu.text("fan_speed", "fanspeed").or_else(|| summary.text("Power Fanspeed", ""));
    integer_or_fail(filler, miner::PSU_FAN_RPM, fan, 0, psu.trouble);
    match psu.text("temp0", "temp0") {
        None => fail_or_absent(filler, &[miner::PSU_TEMP_CELSIUS], psu.trouble),
        text => temperature(filler, miner::PSU_TEMP_CELSIUS, text),
    }
}

/// Shares of the whole miner; a firmware that does not tell them in `summary` tells them of each pool.
fn read_shares(filler: &mut Filler<'_>, parts: &Parts<'_>) {
    let summary = &parts.summary;
    let list = match parts.pools.json {
        Some(Json::List(list)) if !parts.pools.is_framed => list.as_slice(),
        _ => &[],
    };
    for (column, name) in
        [(miner::ACCEPTED_SHARES, "Accepted"), (miner::REJECTED_SHARES, "Rejected"), (miner::STALE_SHARES, "Stale")]
    {
        match (summary.text(name, ""), pools::sum(list, &[name])) {
            (Some(text), _) => filler.integer(column, Some(text), 0),
            (None, Some(sum)) => filler.read(column, sum),
            (None, None) => fail_or_absent(filler, &[column], summary.trouble),
        }
    }
    for (column, name) in [
        (miner::ACCEPTED_DIFFICULTY, "Difficulty Accepted"),
        (miner::REJECTED_DIFFICULTY, "Difficulty Rejected"),
        (miner::STALE_DIFFICULTY, "Difficulty Stale"),
        (miner::BEST_SHARE_DIFFICULTY, "Best Share"),
    ] {
        match summary.text(name, "") {
            Some(text) => filler.float(column, Some(text)),
            None => fail_or_absent(filler, &[column], summary.trouble),
        }
    }
}

fn read_temperatures(filler: &mut Filler<'_>, parts: &Parts<'_>, model: Model) {
    let summary = &parts.summary;
    let around = ["environment-temperature", "environment-tempurature"];
    let around = around.iter().find_map(|name| summary.text("Env Temp", name));
    let (column, other) = if model.is_liquid_cooled {
        (miner::COOLANT_INLET_TEMP_CELSIUS, miner::INLET_TEMP_CELSIUS)
    } else {
        (miner::INLET_TEMP_CELSIUS, miner::COOLANT_INLET_TEMP_CELSIUS)
    };
    match around {
        None => fail_or_absent(filler, &[column], summary.trouble),
        text => temperature(filler, column, text),
    }
    filler.absent(other);
    if model.is_asleep {
        return;
    }
    for (column, plain, _, framed, _) in CHIP_TEMPS {
        match summary.text(plain, framed) {
            None => fail_or_absent(filler, &[column], summary.trouble),
            text => temperature(filler, column, text),
        }
    }
    match summary.text("Temperature", "").map(str::to_owned).or_else(|| hottest(summary)) {
        None => fail_or_absent(filler, &[miner::PCB_TEMP_MAX_CELSIUS], summary.trouble),
        Some(text) => temperature(filler, miner::PCB_TEMP_MAX_CELSIUS, Some(&text)),
    }
}

/// The hottest of the boards' sensors.
fn hottest(summary: &Part<'_>) -> Option<String> {
    let items = summary.json?.get("board-temperature")?.items();
    items.iter().filter_map(|item| shifted(item.text()?, 0).ok()).max().map(|celsius| celsius.to_string())
}
