//! What an Antminer tells of its boards and fans, in the two shapes that its firmwares have.
//!
//! `stats` over the cgminer port is flat: `chain_acn1`, `chain_acn2`, ... in one entry. With `new_api`, and over the web,
//! each board is an entry of the list `chain`. Neither has all that the other has, so a value is looked for in both.

use std::collections::{BTreeMap, BTreeSet};

use racklake_schemas::fail_code;

use super::super::decimal::shifted;
use super::super::exchange::section;
use super::super::filler::Filler;
use super::super::json::Json;
use super::super::rate;
use super::super::reader::Replies;

/// `stats` with the parameter that asks for the newer shape.
pub(super) const NEW_STATS: &str = "stats new_api";
/// The same over the web.
pub(super) const WEB_STATS: &str = "stats.cgi";

/// Chains that a flat reply can have.
const CHAINS_MAX: usize = 16;
/// Most boards that the catalog knows.
const BOARDS_MAX: usize = 64;
/// Fans that a flat reply can have.
const FANS_MAX: usize = 8;
/// Models of before `rate_unit` that say `GHS` and mean megahashes.
const MEGAHASH_MODELS: [&str; 4] = ["antminer l3", "antminer l3+", "antminer l3++", "antminer d3"];
/// Values above are thousandths of a degree.
const MILLIDEGREES: i64 = 1000;

/// The entries of all `stats` replies of one poll.
#[derive(Clone, Copy, Default)]
pub(super) struct Stats<'a> {
    flat: Option<&'a Json>,
    nested: Option<&'a Json>,
    /// The entry that tells a power.
    power: Option<&'a Json>,
    /// The model, as a header says it.
    pub(super) model: Option<&'a str>,
}

/// A hashrate as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate<'a> {
    /// It is not told.
    Absent,
    /// The number and the power of ten that makes hashes per second of it.
    Told(&'a str, i32),
    /// It has a unit that nobody knows.
    UnknownUnit,
}

impl<'a> Rate<'a> {
    /// This one, or the other where this one is not told.
    pub(super) fn or(self, other: Rate<'a>) -> Rate<'a> {
        if self == Rate::Absent { other } else { self }
    }

    /// A text that has its unit in it: `6804.97 MH/s`.
    pub(super) fn of_text(text: Option<&'a str>) -> Rate<'a> {
        match text.map(rate::with_unit) {
            None => Rate::Absent,
            Some(Some((number, power))) => Rate::Told(number, power),
            Some(None) => Rate::UnknownUnit,
        }
    }

    /// Reads it into a column of hashes per second.
    pub(super) fn fill(self, filler: &mut Filler<'_>, column: usize) {
        match self {
            Rate::Absent => filler.absent(column),
            Rate::Told(text, power) => filler.integer(column, Some(text), power),
            Rate::UnknownUnit => filler.row.fail(column, fail_code::UNPARSABLE),
        }
    }
}

impl<'a> Stats<'a> {
    /// The entries; `None` where no reply has one.
    pub(super) fn of(replies: &'a Replies) -> Option<Stats<'a>> {
        let mut found = Stats::default();
        for command in ["stats", NEW_STATS, WEB_STATS] {
            let Some(reply) = replies.ok(command) else { continue };
            let info = reply.get("INFO").and_then(|info| info.text_of("type"));
            found.model = found.model.or(info);
            for entry in section(reply, "STATS").unwrap_or_default() {
                found.add(entry);
            }
        }
        (found.flat.is_some() || found.nested.is_some()).then_some(found)
    }

    fn add(&mut self, entry: &'a Json) {
        let has = |names: &[&str]| names.iter().any(|name| entry.get(name).is_some());
        self.model = self.model.or_else(|| entry.text_of("Type"));
        if matches!(entry.get("chain"), Some(Json::List(_))) || has(&["rate_5s", "rate_avg"]) {
            self.nested.get_or_insert(entry);
        } else if has(&["chain_acn1", "miner_count", "fan1", "GHS 5s", "MHS 5s"]) {
            self.flat.get_or_insert(entry);
        }
        if POWER_KEYS.iter().any(|name| entry.text_of(name).is_some()) {
            self.power.get_or_insert(entry);
        }
    }

    /// A text, by its name in either shape.
    pub(super) fn text(&self, flat: &str, nested: &str) -> Option<&'a str> {
        let told = |entry: Option<&'a Json>, name: &str| entry.and_then(|entry| entry.text_of(name));
        told(self.flat, flat).or_else(|| told(self.nested, nested))
    }

    /// Whether the newer shape says something that the older one does not.
    pub(super) fn has_new(&self) -> bool {
        self.nested.is_some() || self.power.is_some()
    }

    /// Whether the flat shape is there, without which the newer one is all there is.
    pub(super) fn has_flat(&self) -> bool {
        self.flat.is_some()
    }

    /// Watts, as the firmware puts them.
    pub(super) fn watts(&self) -> Option<&'a str> {
        let entry = self.power?;
        let text = POWER_KEYS.iter().find_map(|name| entry.text_of(name))?;
        Some(text.trim().trim_end_matches(['W', 'w']).trim_end())
    }

    /// The hashrate over a window: `5s`, `av`, `30m`; the newer shape says `avg`.
    pub(super) fn window(&self, window: &str) -> Rate<'a> {
        let flat = self.flat.map_or(Rate::Absent, |flat| window_of(flat, window, self.unit_of_names()));
        if flat != Rate::Absent {
            return flat;
        }
        let plain = format!("rate_{window}");
        self.rate(&plain, if window == "av" { "rate_avg" } else { &plain })
    }

    /// A hashrate whose name has no unit.
    pub(super) fn rate(&self, flat: &str, nested: &str) -> Rate<'a> {
        rate_of(self.flat.map(|entry| (entry, flat, self.flat_unit())))
            .or(rate_of(self.nested.map(|entry| (entry, nested, self.nested_unit()))))
    }

    /// The unit of the flat shape: told, or that of the model, or the one in the names of its windows. `None` where it is
    /// not known.
    pub(super) fn flat_unit(&self) -> Option<i32> {
        let flat = self.flat?;
        if let Some(told) = flat.text_of("rate_unit") {
            return rate::exponent(told);
        }
        let named = || rate::NAMES.iter().find(|(name, _)| flat.get(&format!("{name} 5s")).is_some());
        self.model_unit().or_else(|| named().map(|(_, power)| *power))
    }

    /// The unit of the newer shape.
    pub(super) fn nested_unit(&self) -> Option<i32> {
        rate::exponent(self.nested?.text_of("rate_unit")?)
    }

    /// What `GHS` in the name of a window stands for, where it is something else: names are fixed in these firmwares.
    pub(super) fn unit_of_names(&self) -> Option<i32> {
        match self.flat.and_then(|flat| flat.text_of("rate_unit")) {
            Some(told) => rate::exponent(told),
            None => self.model_unit(),
        }
    }

    fn model_unit(&self) -> Option<i32> {
        let model = self.model?.trim().to_ascii_lowercase();
        MEGAHASH_MODELS.contains(&model.as_str()).then_some(6)
    }

    /// Boards that the model has, as far as it says.
    pub(super) fn boards_told(&self) -> usize {
        let told = self.number("miner_count", "chain_num").unwrap_or(0);
        usize::try_from(told).unwrap_or(0).min(CHAINS_MAX)
    }

    /// The number in either shape.
    pub(super) fn number(&self, flat: &str, nested: &str) -> Option<i64> {
        shifted(self.text(flat, nested)?, 0).ok()
    }

    /// The speed of each fan by position, where there is one. A position beyond the fans that the model has says 0.
    pub(super) fn fans(&self) -> Vec<Option<&'a str>> {
        let list: Vec<Option<&str>> = match self.nested.and_then(|nested| nested.get("fan")) {
            Some(Json::List(items)) if self.flat.is_none() => items.iter().map(Json::text).collect(),
            _ => {
                let told = |n: usize| self.flat.and_then(|flat| flat.text_of(&format!("fan{n}")));
                (1..=FANS_MAX).map(told).collect()
            }
        };
        let turns = |fan: &Option<&str>| fan.is_some_and(|rpm| shifted(rpm, 0) != Ok(0));
        let expected = self.number("fan_num", "fan_num").and_then(|fans| usize::try_from(fans).ok());
        let is_complete = expected.is_some_and(|fans| list.iter().filter(|fan| turns(fan)).count() >= fans);
        let is_fan = |at: usize, fan: &Option<&str>| turns(fan) || !is_complete && expected.is_none_or(|n| at < n);
        list.into_iter().enumerate().map(|(at, fan)| fan.filter(|_| is_fan(at, &fan))).collect()
    }

    /// All chains that the replies have keys of.
    pub(super) fn chains(&self) -> BTreeMap<usize, Chain<'a>> {
        let mut chains = BTreeMap::new();
        if let Some(flat) = self.flat {
            for index in (0..CHAINS_MAX).filter(|index| flat.get(&format!("chain_acn{}", index + 1)).is_some()) {
                chains.insert(index, Chain { index, flat: Some(flat), nested: None });
            }
        }
        let items = self.nested.and_then(|nested| nested.get("chain")).map(Json::items).unwrap_or_default();
        for (at, item) in items.iter().enumerate().take(BOARDS_MAX) {
            let told = item.text_of("index").and_then(|text| shifted(text, 0).ok());
            let index = told.and_then(|index| usize::try_from(index).ok()).unwrap_or(at);
            if index < BOARDS_MAX {
                let chain = chains.entry(index).or_insert(Chain { index, flat: None, nested: None });
                chain.nested = Some(item);
            }
        }
        chains
    }
}

const POWER_KEYS: [&str; 4] = ["watt", "power", "Power", "chain_power"];

/// The hashrate over a window in an entry whose names have the unit: `GHS 5s`.
pub(super) fn window_of<'a>(entry: &'a Json, window: &str, unit: Option<i32>) -> Rate<'a> {
    for (name, power) in rate::NAMES {
        if let Some(text) = entry.text_of(&format!("{name} {window}")) {
            return Rate::Told(text, unit.unwrap_or(power));
        }
    }
    Rate::Absent
}

/// A hashrate in an entry, with the unit that the entry has.
pub(super) fn rate_of<'a>(place: Option<(&'a Json, &str, Option<i32>)>) -> Rate<'a> {
    let Some((entry, name, unit)) = place else { return Rate::Absent };
    match (entry.text_of(name).filter(|text| !text.trim().is_empty()), unit) {
        (None, _) => Rate::Absent,
        (Some(text), Some(power)) => Rate::Told(text, power),
        (Some(_), None) => Rate::UnknownUnit,
    }
}

/// The boards that the model has: those that tell something, those of earlier polls, and as many more as it should have.
pub(super) fn boards(there: &BTreeSet<usize>, expected: usize) -> BTreeSet<usize> {
    let mut boards = there.clone();
    let gap = there.first().copied().unwrap_or(0)..there.last().copied().unwrap_or(0);
    for index in gap.chain(0..BOARDS_MAX) {
        if boards.len() >= expected {
            break;
        }
        boards.insert(index);
    }
    boards
}

/// One board.
#[derive(Clone, Copy)]
pub(super) struct Chain<'a> {
    pub(super) index: usize,
    flat: Option<&'a Json>,
    nested: Option<&'a Json>,
}

impl<'a> Chain<'a> {
    /// A board of which there is no word.
    pub(super) fn missing(index: usize) -> Chain<'a> {
        Chain { index, flat: None, nested: None }
    }

    /// A text by the beginning of its flat name, and its nested one. An empty one is none.
    pub(super) fn text(&self, flat: &str, nested: &str) -> Option<&'a str> {
        let told = |entry: Option<&'a Json>, name: &str| {
            entry.and_then(|entry| entry.text_of(name)).filter(|text| !text.trim().is_empty())
        };
        told(self.flat, &format!("{flat}{}", self.index + 1)).or_else(|| told(self.nested, nested))
    }

    /// Whether there is a board: something on it answers.
    pub(super) fn is_there(&self) -> bool {
        let positive = |text: Option<&str>| text.is_some_and(|text| shifted(text, 0).is_ok_and(|value| value > 0));
        positive(self.chips())
            || positive(self.text("chain_rate", "rate_real"))
            || !self.letters().is_empty()
            || self.nested.is_some_and(|nested| nested.text_of("sn").is_some_and(|serial| !serial.is_empty()))
    }

    /// A hashrate whose name has no unit.
    pub(super) fn rate(&self, stats: &Stats<'_>, flat: &str, nested: &str) -> Rate<'a> {
        let name = format!("{flat}{}", self.index + 1);
        rate_of(self.flat.map(|entry| (entry, name.as_str(), stats.flat_unit())))
            .or(rate_of(self.nested.map(|entry| (entry, nested, stats.nested_unit()))))
    }

    /// Chips that answer.
    pub(super) fn chips(&self) -> Option<&'a str> {
        self.text("chain_acn", "asic_num")
    }

    /// A letter per chip.
    pub(super) fn letters(&self) -> Vec<char> {
        let text = self.text("chain_acs", "asic").unwrap_or_default();
        text.chars().filter(|letter| !letter.is_whitespace()).collect()
    }

    /// Sensors at chips.
    pub(super) fn chip_sensors(&self) -> Vec<Option<i64>> {
        self.sensors("temp_chip", &["temp_in_chip_", "temp_out_chip_"])
    }

    /// Other sensors on the board: those of the circuit board, then those of its microcontrollers.
    pub(super) fn board_sensors(&self) -> Vec<Option<i64>> {
        let mut sensors = self.sensors("temp_pcb", &["temp_in_pcb_", "temp_out_pcb_"]);
        sensors.extend(self.sensors("temp_pic", &[]));
        sensors
    }

    /// The sensors of one kind: one string, a value each at the inlet and the outlet, or a list.
    fn sensors(&self, name: &str, sides: &[&str]) -> Vec<Option<i64>> {
        if let Some(text) = self.flat.and_then(|flat| flat.text_of(&format!("{name}{}", self.index + 1))) {
            return run_together(text);
        }
        let side = |side: &&str| self.flat.and_then(|flat| flat.text_of(&format!("{side}{}", self.index + 1)));
        let told: Vec<&str> = sides.iter().filter_map(side).collect();
        if !told.is_empty() {
            return told.into_iter().map(celsius).collect();
        }
        let list = self.nested.and_then(|nested| nested.get(name)).map(Json::items).unwrap_or_default();
        list.iter().take(BOARDS_MAX).map(|item| item.text().and_then(celsius)).collect()
    }
}

/// Temperatures in one string, `78-50-69-70`; a sign stands where a number should.
fn run_together(text: &str) -> Vec<Option<i64>> {
    let mut parts: Vec<String> = vec![String::new()];
    for letter in text.trim().chars().take(1000) {
        match parts.last_mut() {
            Some(part) if letter != '-' || part.is_empty() => part.push(letter),
            _ => parts.push(String::new()),
        }
    }
    if parts.len() == 1 && parts[0].is_empty() { Vec::new() } else { parts.iter().map(|part| celsius(part)).collect() }
}

/// Degrees; none that is a sensor's way of saying nothing.
pub(super) fn celsius(text: &str) -> Option<i64> {
    let value = shifted(text, 0).ok()?;
    let value = if value.abs() > MILLIDEGREES { value / MILLIDEGREES } else { value };
    ((-39..=200).contains(&value) && value != 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperatures_in_one_string_are_sensors_and_a_sign_is_a_sign() {
        assert_eq!(run_together("78-50-69-70"), [Some(78), Some(50), Some(69), Some(70)]);
        assert_eq!(run_together("-12--40-0-255"), [Some(-12), None, None, None]);
        assert_eq!(run_together("63"), [Some(63)]);
        assert_eq!(run_together("a--b"), [None, None]);
        assert_eq!(run_together(""), []);
        assert_eq!((celsius("47125"), celsius("")), (Some(47), None));
    }

    #[test]
    fn a_board_that_is_missing_fills_a_gap_before_it_goes_to_the_front() {
        let set = |boards: &[usize]| boards.iter().copied().collect::<BTreeSet<usize>>();
        assert_eq!(boards(&set(&[0, 1, 2]), 3), set(&[0, 1, 2]));
        assert_eq!(boards(&set(&[0, 2]), 3), set(&[0, 1, 2]));
        assert_eq!(boards(&set(&[5, 7]), 3), set(&[5, 6, 7]));
        assert_eq!(boards(&set(&[1, 2]), 3), set(&[0, 1, 2]));
        assert_eq!(boards(&set(&[]), 2), set(&[0, 1]));
        assert_eq!(boards(&set(&[0, 1, 2, 3]), 3).len(), 4);
    }
}
