//! Errors that an Antminer raises now: the list `status` of `summary.cgi`.

use super::super::decimal::shifted;
use super::super::filler::plain;
use super::super::json::Json;
use super::super::reader::MinerError;

/// The firmware's short codes, which stand in a message: letter, board, number.
const SHORT_CODES: [(char, &str, i64, &str, &str); 13] = [
    ('R', "", 1, "hashrate", "the hashrate is too low"),
    ('N', "", 1, "hashrate", "the hashrate is too high"),
    ('V', "", 1, "psu", "the power supply does not start"),
    ('V', "", 2, "psu", "the power supply is not calibrated"),
    ('P', "", 1, "temperature", "too hot, mining has stopped"),
    ('P', "", 2, "temperature", "too cold, mining has stopped"),
    ('M', "", 1, "controller", "no memory is left"),
    ('J', "", 2, "chip", "too few chips"),
    ('J', "", 4, "board", "the board's EEPROM cannot be read"),
    ('J', "", 6, "temperature", "a temperature sensor cannot be read"),
    ('J', "0", 8, "board", "too few hash boards"),
    ('L', "", 1, "board", "voltage or frequency is above the limit"),
    ('L', "", 2, "board", "voltage and frequency do not fit"),
];

/// The errors in the list. An entry that says `s` is well.
pub(super) fn raised(status: &[Json]) -> Vec<MinerError> {
    let is_raised = |entry: &&Json| {
        entry.text_of("status").is_some_and(|status| !status.is_empty() && !status.eq_ignore_ascii_case("s"))
    };
    status.iter().filter(is_raised).map(error).collect()
}

fn error(entry: &Json) -> MinerError {
    let kind = entry.text_of("type").unwrap_or_default();
    let message = plain(entry.text_of("msg").unwrap_or_default());
    let code = entry.text_of("code").and_then(|code| shifted(code, 0).ok()).unwrap_or(0);
    let component = match kind {
        "rate" => "hashrate",
        "network" => "pool",
        "fans" => "fan",
        "temp" => "temperature",
        _ => "other",
    };
    let short = message.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != ':').find_map(short_code);
    match short {
        Some((component, meaning)) => {
            MinerError { code, message: format!("{message}: {meaning}"), component, board: None }
        }
        None if message.is_empty() => MinerError { code, message: plain(kind), component, board: None },
        None => MinerError { code, message, component, board: None },
    }
}

/// `J1:4` and the like: which part, and what it means. Firmwares count boards from 0 or from 1, so the number after the
/// letter is left to the message.
fn short_code(word: &str) -> Option<(&'static str, &'static str)> {
    let (place, number) = word.split_once(':')?;
    let letter = place.chars().next()?;
    let board = place.get(letter.len_utf8()..)?;
    if !board.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: i64 = number.parse().ok()?;
    let is_it = |known: &&(char, &str, i64, &str, &str)| {
        known.0 == letter && known.2 == number && (known.1.is_empty() || known.1 == board)
    };
    SHORT_CODES.iter().find(is_it).map(|(_, _, _, component, meaning)| (*component, *meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_is_no_error_and_short_codes_are_explained() {
        let list = br#"[{"type":"rate","status":"s","code":0,"msg":""},
            {"type":"network","status":"e","code":3,"msg":"no pool answers"},
            {"type":"temp","status":"e","code":21,"msg":"ERROR_TEMP_TOO_HIGH P:1"},
            {"type":"hash","status":"w","code":"14","msg":"J2:4"},
            {"type":"hash","status":"e","code":18,"msg":"J0:8"},
            {"type":"fans","status":"E"},
            {"type":7},3,{}]"#;
        let list = Json::parse(list).unwrap();
        let error =
            |code, message: &str, component| MinerError { code, message: message.to_owned(), component, board: None };
        assert_eq!(
            raised(list.items()),
            [
                error(3, "no pool answers", "pool"),
                error(21, "ERROR_TEMP_TOO_HIGH P:1: too hot, mining has stopped", "temperature"),
                error(14, "J2:4: the board's EEPROM cannot be read", "board"),
                error(18, "J0:8: too few hash boards", "board"),
                error(0, "fans", "fan"),
            ]
        );
        for word in ["", ":", ":4", "J1:99999999999999999999", "é:1", "Jx:4", "Q:1"] {
            assert_eq!(short_code(word), None, "{word}");
        }
    }
}
