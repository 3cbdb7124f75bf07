//! What a fuzzer may call: everything of the miners that is a function of bytes from the network.
//!
//! Only there with the feature `fuzzing`, so that the targets in `collector/fuzz` reach what is private, and in tests.

use super::exchange;
use super::identify::marks;
use super::json::Json;
use super::reader::Replies;
use super::readers::reader;
use crate::config::Make;

/// Parses bytes in every way in which answers are parsed.
pub fn json(bytes: &[u8]) {
    let _ = Json::parse(bytes);
    let all = Json::parse_all(bytes);
    assert_eq!(Json::parse_joined(bytes).is_some(), !all.is_empty(), "an answer is its documents");
}

/// Reads an answer on the cgminer port that comes in one part and in two, and looks for a make in it.
pub fn answer(bytes: &[u8]) {
    let (cut, bytes) = bytes.split_first().map_or((0, bytes), |(cut, bytes)| (usize::from(*cut), bytes));
    let (one, other) = bytes.split_at(cut.min(bytes.len()));
    let _ = (exchange::read_parts(&[bytes]), exchange::read_parts(&[one, other]));
    let _ = (marks::of_page(bytes), marks::of_capabilities(bytes));
    if let Some(reply) = Json::parse(bytes) {
        let _ = (marks::of_reply(&reply), marks::of_framed(&reply));
    }
}

/// Has a reader read replies, twice, as two polls would: `@command`, a line end and the reply, and so on.
///
/// Panics where a row holds what no row may hold.
pub fn read(make: Make, bytes: &[u8]) {
    let Some(reader) = reader(make) else { return };
    let mut replies = Replies::default();
    for part in split(bytes) {
        let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let command = String::from_utf8_lossy(&part[..end]);
        let text = part.get(end + 1..).unwrap_or_default();
        replies.add(command, exchange::read_parts(&[text]));
    }
    let mut memory = reader.memory();
    for _ in 0..2 {
        let told = reader.read(&replies, &mut memory);
        let rows = told.miner.iter().chain(&told.boards).chain(told.identity.iter().map(|identity| &identity.row));
        for row in rows {
            let columns = row.table().columns.iter().enumerate();
            for (column, spec) in columns.filter(|(_, spec)| spec.bit.is_some()) {
                let has_value = *row.cell(column) != racklake_schemas::Cell::Null;
                let has_reason = row.has_failed(column) || row.is_unsupported(column);
                assert!(!has_value || !has_reason, "{} has a value and a reason to have none", spec.name);
            }
        }
    }
}

/// The parts that begin with `@` at the beginning of a line.
fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes.strip_prefix(b"@");
    std::iter::from_fn(move || {
        let part = rest?;
        let end = part.windows(2).position(|pair| pair == b"\n@");
        rest = end.map(|end| &part[end + 2..]);
        Some(end.map_or(part, |end| &part[..end]))
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// All recorded replies below a folder.
    fn recordings(folder: &Path, into: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                recordings(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                into.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
    }

    /// Each reader is given each recorded reply, its own and those of others, as it is and damaged in some places.
    #[test]
    fn no_reader_panics_at_a_reply_that_is_damaged_or_of_another_make() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/miner-sim/recordings");
        let mut replies = Vec::new();
        recordings(&folder, &mut replies);
        assert!(replies.len() > 20);
        for (path, text) in &replies {
            let command = path.file_stem().unwrap().to_str().unwrap();
            let step = text.len() / 8 + 1;
            for at in (0..text.len()).step_by(step) {
                let mut damaged = format!("@{command}\n").into_bytes();
                damaged.extend_from_slice(text);
                let place = command.len() + 2 + at;
                damaged[place] = [b'"', b'{', b'-', b'9', 0xff][at % 5];
                for make in Make::ALL {
                    read(make, &damaged);
                }
                json(&damaged[command.len() + 2..]);
                answer(&damaged);
            }
        }
    }

    /// Numbers that come out the same every time.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit.max(1) as u64) as usize
        }
    }

    const WORDS: [&str; 14] = [
        "-1",
        "0",
        "255",
        "65535",
        "9223372036854775807",
        "-9223372036854775808",
        "1e308",
        "nan",
        "\"\"",
        "\"-\"",
        "[]",
        "{}",
        "null",
        "\",",
    ];

    fn damage(text: &mut Vec<u8>, dice: &mut Dice) {
        for _ in 0..=dice.below(4) {
            let at = dice.below(text.len());
            let end = (at + 1 + dice.below(24)).min(text.len());
            let part = text[at..end].to_vec();
            let word = WORDS[dice.below(WORDS.len())].bytes();
            match dice.below(5) {
                // A value in place of another one.
                0 => match text[at..].iter().position(|byte| *byte == b':').map(|colon| at + colon + 1) {
                    Some(begin) => {
                        let length =
                            text[begin..].iter().position(|byte| matches!(byte, b',' | b'}' | b']')).unwrap_or(0);
                        text.splice(begin..begin + length, word);
                    }
                    None => text.truncate(at),
                },
                1 => drop(text.drain(at..end)),
                2 => drop(text.splice(at..at, part)),
                3 => drop(text.splice(at..end, word)),
                _ => text[at] = dice.below(256) as u8,
            }
            if text.is_empty() {
                text.push(b'{');
            }
        }
    }

    /// Whole polls of recorded replies, damaged by chance: for a second, or as long as RACKLAKE_FUZZ_SECONDS says.
    #[test]
    fn no_reader_panics_at_polls_that_are_damaged_by_chance() {
        let seconds = std::env::var("RACKLAKE_FUZZ_SECONDS").map_or(1, |text| text.parse().unwrap());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/miner-sim/recordings");
        let mut replies = Vec::new();
        recordings(&folder, &mut replies);
        replies.sort();
        let mut polls: Vec<Vec<u8>> = Vec::new();
        for (path, text) in &replies {
            let of_this = replies.iter().filter(|(other, _)| other.parent() == path.parent());
            let poll: Vec<Vec<u8>> = of_this
                .map(|(other, text)| {
                    let name = other.file_stem().unwrap().to_str().unwrap();
                    [b"@", name.as_bytes(), b"\n", text.as_slice()].concat()
                })
                .collect();
            polls.push(poll.join(&b'\n'));
            polls.push([b"@", path.file_stem().unwrap().to_str().unwrap().as_bytes(), b"\n", text].concat());
        }
        let (end, mut count) = (std::time::Instant::now() + std::time::Duration::from_secs(seconds), 0_u64);
        while std::time::Instant::now() < end {
            count += 1;
            let mut dice = Dice(count.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let mut poll = polls[dice.below(polls.len())].clone();
            damage(&mut poll, &mut dice);
            for make in Make::ALL {
                let told = std::panic::catch_unwind(|| read(make, &poll));
                assert!(told.is_ok(), "{} at input {count}: {}", make.name(), String::from_utf8_lossy(&poll));
            }
            json(&poll);
            answer(&poll);
        }
        println!("{count} damaged polls, each read as every make");
    }
}
