//! Rows of an Antminer's hash boards.

use std::collections::BTreeSet;

use racklake_schemas::tables::{HASHBOARD_SAMPLE, hashboard_sample as board};
use racklake_schemas::{Row, fail_code};

use super::super::filler::{Filler, Keys};
use super::stats::{self, Chain, Rate, Stats, celsius};

/// Chip temperatures that are readings.
const CHIP_CELSIUS: std::ops::RangeInclusive<i64> = 1..=200;

/// Columns that a sleeping miner leaves null.
const SENSORS: [usize; 7] = [
    board::CHIP_TEMP_MAX_CELSIUS,
    board::CHIP_TEMP_MIN_CELSIUS,
    board::CHIP_TEMP_AVERAGE_CELSIUS,
    board::PCB_TEMP_MAX_CELSIUS,
    board::PCB_TEMPS_CELSIUS,
    board::INLET_TEMP_CELSIUS,
    board::OUTLET_TEMP_CELSIUS,
];

/// What is known of the boards from earlier polls.
#[derive(Default)]
pub(super) struct Seen {
    /// Boards that answered once.
    boards: BTreeSet<usize>,
    /// Most chips of a board that were told.
    chips: usize,
}

/// Everything that the rows of the boards hang on.
pub(super) struct Boards<'a> {
    chains: Vec<Chain<'a>>,
    /// Boards that answer.
    pub(super) found: usize,
    /// Chips of a whole board, 0 where that is not known.
    pub(super) chips: usize,
}

impl<'a> Boards<'a> {
    /// The boards that the model has, whether they answer or not.
    pub(super) fn of(stats: &Stats<'a>, model: Option<usize>, seen: &mut Seen) -> Boards<'a> {
        let chains = stats.chains();
        let there = chains.values().filter(|chain| chain.is_there()).map(|chain| chain.index);
        let found: BTreeSet<usize> = there.collect();
        seen.boards.extend(&found);
        let letters = chains.values().map(|chain| chain.letters().len()).max().unwrap_or(0);
        seen.chips = seen.chips.max(letters);
        let expected = stats.boards_told().max(model.unwrap_or(0));
        let all = stats::boards(&seen.boards, expected);
        let chain = |index: &usize| chains.get(index).copied().unwrap_or(Chain::missing(*index));
        Boards { chains: all.iter().map(chain).collect(), found: found.len(), chips: seen.chips }
    }

    /// How many boards the model has.
    pub(super) fn count(&self) -> usize {
        self.chains.len()
    }

    /// Temperatures of all sensors at chips.
    pub(super) fn chip_sensors(&self) -> Vec<Option<i64>> {
        self.chains.iter().flat_map(Chain::chip_sensors).collect()
    }

    /// The hottest chip of each board, as far as the firmware says it.
    pub(super) fn hottest(&self) -> Vec<Option<i64>> {
        self.chains.iter().filter_map(|chain| chain.text("temp2_", "").map(celsius)).collect()
    }

    /// Temperatures of all other sensors on the boards.
    pub(super) fn board_sensors(&self) -> Vec<Option<i64>> {
        self.chains.iter().flat_map(Chain::board_sensors).collect()
    }

    /// The rows. A sleeping miner goes on telling sensors that measure nothing.
    pub(super) fn rows(&self, stats: &Stats<'a>, is_asleep: bool, keys: &mut Keys) -> Vec<Row> {
        self.chains.iter().map(|chain| self.row(chain, stats, is_asleep, keys)).collect()
    }

    fn row(&self, chain: &Chain<'a>, stats: &Stats<'a>, is_asleep: bool, keys: &mut Keys) -> Row {
        let mut filler = Filler::new(&HASHBOARD_SAMPLE, keys);
        filler.row.set(board::BOARD_INDEX, chain.index as i64);
        chain.rate(stats, "chain_rate", "rate_real").fill(&mut filler, board::HASHRATE_HASHES_PER_SECOND);
        let average = Rate::of_text(chain.text("CHAIN AVG HASHRATE", ""));
        average.fill(&mut filler, board::HASHRATE_AVERAGE_HASHES_PER_SECOND);
        let expected = chain.rate(stats, "chain_rateideal", "rate_ideal");
        expected.fill(&mut filler, board::HASHRATE_EXPECTED_HASHES_PER_SECOND);
        filler.integer(board::HARDWARE_ERRORS, chain.text("chain_hw", "hw"), 0);
        filler.integer(board::CHIPS_FOUND, chain.chips(), 0);
        match self.chips {
            0 => filler.absent(board::CHIPS_EXPECTED),
            chips => filler.read(board::CHIPS_EXPECTED, chips as i64),
        }
        filler.integer(board::FREQUENCY_KILOHERTZ, chain.text("freq", "freq_avg"), 3);
        filler.word(board::BOARD_SERIAL, chain.text("", "sn"));
        read_letters(&mut filler, &chain.letters());
        if !is_asleep {
            read_sensors(&mut filler, chain);
        }
        filler.finish(&[&SENSORS])
    }
}

/// `o` is a chip that answers well, `x` one that does not; anything else says nothing.
fn read_letters(filler: &mut Filler<'_>, letters: &[char]) {
    if letters.is_empty() {
        return filler.absent(board::CHIP_OK);
    }
    let chip = |letter: &char| match letter {
        'o' | 'O' => Some(1),
        'x' | 'X' => Some(0),
        _ => None,
    };
    let chips: Vec<Option<i32>> = letters.iter().take(10_000).map(chip).collect();
    filler.read(board::CHIP_OK, chips);
}

fn read_sensors(filler: &mut Filler<'_>, chain: &Chain<'_>) {
    let sensors = chain.chip_sensors();
    let hottest = chain.text("temp2_", "").map(celsius);
    let all: Vec<Option<i64>> = sensors.iter().copied().chain(hottest).collect();
    measured(filler, board::CHIP_TEMP_MAX_CELSIUS, &all, maximum);
    measured(filler, board::CHIP_TEMP_MIN_CELSIUS, &sensors, minimum);
    measured(filler, board::CHIP_TEMP_AVERAGE_CELSIUS, &sensors, mean);
    let around = chain.board_sensors();
    let hottest = chain.text("temp", "").map(celsius);
    let all: Vec<Option<i64>> = around.iter().copied().chain(hottest).collect();
    measured(filler, board::PCB_TEMP_MAX_CELSIUS, &all, maximum);
    if around.is_empty() {
        filler.absent(board::PCB_TEMPS_CELSIUS);
    } else {
        let list = around.iter().map(|sensor| sensor.and_then(|celsius| i32::try_from(celsius).ok()));
        filler.read(board::PCB_TEMPS_CELSIUS, list.collect::<Vec<_>>());
    }
    for (column, name) in [(board::INLET_TEMP_CELSIUS, "temp_in_pcb_"), (board::OUTLET_TEMP_CELSIUS, "temp_out_pcb_")] {
        match chain.text(name, "").map(celsius) {
            None => filler.absent(column),
            Some(None) => filler.row.fail(column, fail_code::OUT_OF_RANGE),
            Some(Some(celsius)) => filler.read(column, celsius),
        }
    }
}

/// One value of several sensors; where none of them measures, the reading has failed.
pub(super) fn measured(filler: &mut Filler<'_>, column: usize, sensors: &[Option<i64>], of: fn(&[i64]) -> Option<i64>) {
    let valid: Vec<i64> = sensors.iter().flatten().copied().filter(|celsius| CHIP_CELSIUS.contains(celsius)).collect();
    match of(&valid) {
        Some(value) => filler.read(column, value),
        None if sensors.is_empty() => filler.absent(column),
        None => filler.row.fail(column, fail_code::OUT_OF_RANGE),
    }
}

/// The hottest.
pub(super) fn maximum(values: &[i64]) -> Option<i64> {
    values.iter().copied().max()
}

fn minimum(values: &[i64]) -> Option<i64> {
    values.iter().copied().min()
}

/// The mean, cut to whole degrees.
pub(super) fn mean(values: &[i64]) -> Option<i64> {
    let count = i64::try_from(values.len()).ok().filter(|count| *count > 0)?;
    Some(values.iter().sum::<i64>() / count)
}
