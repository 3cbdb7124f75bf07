//! Rows of a Whatsminer's hash boards.

use std::collections::{BTreeMap, BTreeSet};

use racklake_schemas::tables::{HASHBOARD_SAMPLE, hashboard_sample as board};
use racklake_schemas::{Row, fail_code};

use super::super::decimal::shifted;
use super::super::filler::{Filler, Keys};
use super::super::json::Json;
use super::parts::Parts;
use super::shape::{BOARD, BOARD_RATES, BOARD_TEMPS, Line};

/// Most boards that the catalog knows.
const BOARDS_MAX: usize = 64;

/// Columns that a sleeping miner leaves null.
const SENSORS: [usize; 4] = [
    board::CHIP_TEMP_MAX_CELSIUS,
    board::CHIP_TEMP_AVERAGE_CELSIUS,
    board::CHIP_TEMP_MIN_CELSIUS,
    board::PCB_TEMP_MAX_CELSIUS,
];

/// The rows of all boards that the model has: those of the reply, those of earlier polls, and as many as it says.
pub(super) fn rows(parts: &Parts<'_>, is_asleep: bool, seen: &mut BTreeSet<usize>, keys: &mut Keys) -> Vec<Row> {
    let Some(Json::List(items)) = parts.boards.json else { return Vec::new() };
    let mut told = BTreeMap::new();
    for (at, item) in items.iter().enumerate().take(BOARDS_MAX) {
        let names = if parts.boards.is_framed { ["slot", "id", "id"] } else { ["Slot", "ASC", "ID"] };
        let number = names.iter().find_map(|name| shifted(item.text_of(name)?, 0).ok());
        let index = number.and_then(|index| usize::try_from(index).ok()).filter(|index| *index < BOARDS_MAX);
        told.entry(index.unwrap_or(at)).or_insert(item);
    }
    seen.extend(told.keys());
    let expected = parts.device.number("", "board-num").and_then(|boards| usize::try_from(boards).ok()).unwrap_or(0);
    for index in 0..expected.min(BOARDS_MAX) {
        if seen.len() >= expected {
            break;
        }
        seen.insert(index);
    }
    let power = rate_power(parts, told.values().copied());
    let reader = Boards { parts, power, is_asleep };
    seen.iter().map(|index| reader.row(*index, told.get(index).copied(), keys)).collect()
}

/// What the rows of all boards have in common.
struct Boards<'p, 'a> {
    parts: &'p Parts<'a>,
    /// What makes hashes per second of a rate that is called megahashes.
    power: i32,
    is_asleep: bool,
}

impl Boards<'_, '_> {
    fn row(&self, index: usize, item: Option<&Json>, keys: &mut Keys) -> Row {
        let mut filler = Filler::new(&HASHBOARD_SAMPLE, keys);
        filler.row.set(board::BOARD_INDEX, index as i64);
        for (column, plain, _, framed, power) in BOARD_RATES {
            self.integer(&mut filler, item, (column, plain, self.power, framed, power));
        }
        for line in BOARD {
            self.integer(&mut filler, item, line);
        }
        // Some say it by another name.
        if self.text(item, "Chip Frequency", "freq").is_none() {
            filler.integer(board::FREQUENCY_KILOHERTZ, self.text(item, "Frequency", ""), 3);
        }
        filler.word(board::BOARD_STATUS, self.text(item, "Status", "status"));
        let serial = format!("pcbsn{index}");
        let serial = self.text(item, "PCB SN", "").or_else(|| self.parts.device.text("", &serial));
        filler.word(board::BOARD_SERIAL, serial.filter(|serial| !serial.trim().is_empty()));
        if !self.is_asleep {
            for (column, plain, _, framed, _) in BOARD_TEMPS {
                temperature(&mut filler, column, self.text(item, plain, framed));
            }
            let temps = self.parts.summary.json.and_then(|summary| summary.get("board-temperature")).map(Json::items);
            let of_list = temps.and_then(|temps| temps.get(index)).and_then(Json::text);
            temperature(&mut filler, board::PCB_TEMP_MAX_CELSIUS, self.text(item, "Temperature", "").or(of_list));
        }
        filler.finish(&[&SENSORS])
    }

    fn text<'j>(&self, item: Option<&'j Json>, plain: &str, framed: &str) -> Option<&'j str> {
        item?.text_of(if self.parts.boards.is_framed { framed } else { plain })
    }

    fn integer(&self, filler: &mut Filler<'_>, item: Option<&Json>, line: Line) {
        let (column, plain, power, framed, framed_power) = line;
        let power = if self.parts.boards.is_framed { framed_power } else { power };
        filler.integer(column, self.text(item, plain, framed), power);
    }
}

/// What makes hashes per second of the boards' `MHS`. Some firmwares write terahashes there, a millionth of what they
/// write for the whole miner; which of the two it is, the factory's rate of the board tells, or else that of the miner.
fn rate_power<'j>(parts: &Parts<'_>, boards: impl Iterator<Item = &'j Json>) -> i32 {
    let (mut rates, mut factory) = (0.0, 0.0);
    for item in boards {
        let number = |name: &str| item.text_of(name).and_then(|text| text.parse::<f64>().ok()).filter(|n| *n > 0.0);
        rates += number("HS RT").or_else(|| number("MHS av")).unwrap_or(0.0);
        factory += number("Factory GHS").unwrap_or(0.0) * 1000.0;
    }
    let of_miner = || ["HS RT", "MHS av"].iter().find_map(|name| parts.summary.text(name, "")?.parse::<f64>().ok());
    let whole = if factory > 0.0 { factory } else { of_miner().unwrap_or(0.0) };
    let ratio = whole / rates;
    if (1e5..1e7).contains(&ratio) { 12 } else { 6 }
}

/// A temperature; 0, -40 and 255 are a sensor's ways of saying nothing.
pub(super) fn temperature(filler: &mut Filler<'_>, column: usize, text: Option<&str>) {
    match text.map(|text| shifted(text, 0)) {
        Some(Ok(0 | -40 | 255)) => filler.row.fail(column, fail_code::OUT_OF_RANGE),
        _ => filler.integer(column, text, 0),
    }
}
