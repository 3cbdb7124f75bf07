//! MicroBT's error codes: what a number means, and which board and chip it is about.
//!
//! The table is data, `data/whatsminer_error_codes.csv`; where that comes from is in `data/README.md`. In its patterns `n`
//! stands for a board, pool or level of one digit and `c` for a chip.

use std::sync::LazyLock;

use super::super::reader::MinerError;

const CSV: &str = include_str!("../../../data/whatsminer_error_codes.csv");

/// Codes of a miner that heat has stopped: of boards, of the hash board as a whole, of chips, of the room.
const TOO_HOT: [&str; 9] = ["35n", "360", "361", "362", "363", "505n", "54nc", "600", "610"];

/// One line of the table.
struct Line {
    pattern: &'static str,
    class: &'static str,
    message: String,
}

/// What a pattern's letters stand for in a code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Parts<'a> {
    place: Option<&'a str>,
    chip: Option<&'a str>,
}

fn table() -> &'static [Line] {
    static TABLE: LazyLock<Vec<Line>> = LazyLock::new(|| CSV.lines().skip(1).filter_map(line).collect());
    &TABLE
}

/// Only the last cell holds commas, in quotes.
fn line(text: &'static str) -> Option<Line> {
    let mut cells = text.splitn(6, ',').skip(3);
    let (pattern, class, message) = (cells.next()?, cells.next()?, cells.next()?);
    Some(Line { pattern, class, message: message.trim_matches('"').to_owned() })
}

/// The line of a code: one that has it digit by digit, or else the pattern with the fewest letters.
fn find(code: &str) -> Option<(&'static Line, Parts<'_>)> {
    let letters = |line: &Line| line.pattern.bytes().filter(u8::is_ascii_alphabetic).count();
    let matching = table().iter().filter_map(|line| Some((line, parts(line.pattern, code)?)));
    matching.min_by_key(|(line, _)| letters(line))
}

/// The parts of a code that a pattern's letters stand for; `None` where it is another code.
fn parts<'a>(pattern: &str, code: &'a str) -> Option<Parts<'a>> {
    let mut parts = Parts::default();
    let mut rest = code;
    for letter in pattern.chars() {
        if letter == 'c' {
            parts.chip = Some(rest).filter(|chip| (1..=3).contains(&chip.len()));
            return parts.chip.map(|_| parts);
        }
        let digit = rest.get(..1)?;
        if letter == 'n' {
            parts.place = Some(digit);
        } else if !digit.starts_with(letter) {
            return None;
        }
        rest = rest.get(1..)?;
    }
    rest.is_empty().then_some(parts)
}

/// The error of a code, with the firmware's own reason where it tells one. `None` for a text that is no number.
pub(super) fn error(code: &str, reason: Option<&str>) -> Option<MinerError> {
    let code = code.trim();
    let number: i64 = code.parse().ok().filter(|number| *number >= 0)?;
    let reason = reason.map(super::super::filler::plain).filter(|reason| !reason.is_empty());
    let Some((line, parts)) = find(code) else {
        let message = reason.unwrap_or_else(|| "not in the catalogue".to_owned());
        return Some(MinerError { code: number, message, component: "other", board: None });
    };
    let mut message = line.message.clone();
    for (name, value) in [("{n}", parts.place), ("{c}", parts.chip)] {
        if let Some(value) = value {
            message = message.replace(name, value);
        }
    }
    let is_board = line.message.contains("lot {n}");
    let board = parts.place.filter(|_| is_board).and_then(|place| place.parse().ok());
    Some(MinerError { code: number, message: reason.unwrap_or(message), component: component(line.class), board })
}

fn component(class: &str) -> &'static str {
    match class {
        "fan" => "fan",
        "psu" | "power_rate" => "psu",
        "temperature" | "environment" | "chip temp" => "temperature",
        "eeprom/board" | "hashboard" => "board",
        "pool(network)" => "pool",
        "hashrate" => "hashrate",
        "control_board" => "controller",
        class if class.starts_with("chip") => "chip",
        _ => "other",
    }
}

/// Whether the code says that heat has stopped something.
pub(super) fn is_too_hot(code: i64) -> bool {
    find(&code.to_string()).is_some_and(|(line, _)| TOO_HOT.contains(&line.pattern))
}

/// Whether the code says that a board is not there.
pub(super) fn is_missing_board(code: i64) -> bool {
    find(&code.to_string()).is_some_and(|(line, _)| line.pattern == "53n")
}

/// Whether the code says that the firmware itself is broken.
pub(super) fn is_firmware(code: i64) -> bool {
    find(&code.to_string()).is_some_and(|(line, _)| line.class.starts_with("firmware"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_explains_its_own_codes() {
        assert_eq!(table().len(), 201);
        for line in table() {
            let code = line.pattern.replace('n', "1").replace('c', "42");
            let error = error(&code, None).unwrap();
            assert_ne!(error.message, "not in the catalogue", "{code}");
            assert!(!error.message.contains('{'), "{}", error.message);
        }
    }

    #[test]
    fn a_code_tells_its_board_and_its_chip() {
        for (code, message, component, board) in [
            ("110", "Intake fan speed error.", "fan", None),
            ("218", "Power input voltage is lower than 230V for high power mode.", "psu", None),
            ("212", "Power vout error, reach vout border. Border: [1150, 1500]", "psu", None),
            ("352", "Slot 2 temperature protecting.", "temperature", Some(2)),
            // 329 has a line of its own among those of the boards.
            ("329", "Control board temperature sensor communication error.", "temperature", None),
            ("531", "Slot 1 not found.", "board", Some(1)),
            ("5310", "Slot 1 chip 0 too few nonce.", "chip", Some(1)),
            ("52077", "Slot 0 chip 77 error nonce.", "chip", Some(0)),
            ("542113", "Slot 2 chip 113 temp protected.", "temperature", Some(2)),
            ("5110", "Slot 0 frequency up timeout.", "chip", Some(0)),
            ("2021", "Pool 1 connection failed.", "pool", None),
            ("720", "Control board slot 0 frame error.", "controller", Some(0)),
            ("8523", "Fan speed substandard L2.", "other", None),
            ("600", "Environment temperature is too high.", "temperature", None),
            ("77777", "not in the catalogue", "other", None),
        ] {
            let error = error(code, None).unwrap();
            assert_eq!((error.message.as_str(), error.component, error.board), (message, component, board), "{code}");
            assert_eq!(error.code.to_string(), code);
        }
        assert_eq!(error("264", Some("Power xfer error.")).unwrap().message, "Power xfer error.");
        for text in ["", "reason", "-1", "1.5", "99999999999999999999", "é"] {
            assert_eq!(error(text, None), None, "{text}");
        }
        assert!(is_too_hot(351) && is_too_hot(5051) && is_too_hot(540077) && !is_too_hot(301) && !is_too_hot(-1));
        assert!(is_missing_board(532) && !is_missing_board(552));
        assert!(is_firmware(8410) && is_firmware(800) && !is_firmware(110));
    }
}
