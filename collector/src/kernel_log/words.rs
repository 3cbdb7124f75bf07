//! The small parts that lines of NVIDIA's driver are made of: addresses, codes, fields, registers.
//!
//! Every function takes any text and says `None` where it does not find what it looks for.

/// A PCI address in lower case: `0000:9b:00.0`, or `0000:9b:00` where it has no function. A `PCI:` before it and
/// punctuation around it are passed over, a domain of eight digits is brought to four.
pub(crate) fn pci_address(word: &str) -> Option<String> {
    let word = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
    let word = word.strip_prefix("PCI:").unwrap_or(word);
    let mut parts = word.split(':');
    let (domain, bus, slot) = (parts.next()?, parts.next()?, parts.next()?);
    let (slot, function) = slot.split_once('.').map_or((slot, None), |(slot, function)| (slot, Some(function)));
    let number = |digits: &str| {
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let has_lengths = (4..=8).contains(&domain.len()) && bus.len() == 2 && slot.len() == 2;
    if !has_lengths || parts.next().is_some() {
        return None;
    }
    let (domain, bus, slot) = (number(domain)?, number(bus)?, number(slot)?);
    let address = format!("{domain:04x}:{bus:02x}:{slot:02x}");
    match function {
        None => Some(address),
        Some(function) if function.len() == 1 => Some(format!("{address}.{:x}", number(function)?)),
        Some(_) => None,
    }
}

/// The code after the place, `: 119, rest`, and the rest.
pub(crate) fn code(text: &str) -> Option<(i64, &str)> {
    let text = text.strip_prefix(':')?.trim_start();
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if rest.starts_with(|letter: char| letter.is_alphanumeric()) {
        return None;
    }
    Some((digits.parse().ok()?, rest.trim_start_matches([',', ':', ' ', '\t'])))
}

/// The value of a field at the beginning, `pid=17, rest`, without quotes, and the rest.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> (Option<&'a str>, &'a str) {
    let Some(value) = text.strip_prefix(key) else { return (None, text) };
    let (value, rest) = value.split_once(", ").unwrap_or((value.trim_end_matches(','), ""));
    (Some(value.trim_matches('\'').trim()), rest.trim_start())
}

/// Whether an error is called fatal.
pub(crate) fn fatal(word: &str) -> Option<bool> {
    match word.trim().to_ascii_lowercase().as_str() {
        "fatal" => Some(true),
        "nonfatal" | "non-fatal" => Some(false),
        _ => None,
    }
}

/// The word that follows another one, without punctuation around it.
pub(crate) fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let mut words = text.split_whitespace();
    words.find(|found| *found == word)?;
    words.next().map(bare)
}

/// The number in hexadecimal that follows a word.
pub(crate) fn hex_after(text: &str, word: &str) -> Option<i64> {
    after(text, word).and_then(hex)
}

/// The number of an NVLink: `Link 09 (`, `link 6(0x10000,`.
pub(crate) fn link(text: &str) -> Option<i64> {
    let mut words = text.split_whitespace();
    words.find(|word| word.eq_ignore_ascii_case("link"))?;
    let number = words.next()?;
    let end = number.find(|letter: char| !letter.is_ascii_digit() && letter != '-').unwrap_or(number.len());
    number[..end].parse().ok()
}

/// A channel, as printed: `Ch 00000008`, `ChID 0008`, `Channel ID 0000000d`, `Channel (0x9)`, `channel 0x00000002`.
pub(crate) fn channel(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    words.find(|word| ["ch", "chid", "channel"].contains(&word.to_ascii_lowercase().as_str()))?;
    let number = words.find(|word| *word != "ID").map(bare)?;
    hex(number).map(|_| number.to_owned())
}

/// Registers and data words: pairs `0x504730=0x10e`, or the last brackets that hold nothing else, or a text of nothing else.
pub(crate) fn registers(text: &str) -> Vec<String> {
    let is_pair = |word: &&str| word.split_once('=').is_some_and(|(a, b)| hex(a).is_some() && hex(b).is_some());
    let pairs: Vec<String> = text.split([' ', ',']).filter(is_pair).map(str::to_owned).collect();
    if !pairs.is_empty() {
        return pairs;
    }
    let all_words = |text: &str, least: usize| -> Option<Vec<String>> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let words: Option<Vec<String>> = words.map(|word| hex(word).map(|_| word.to_owned())).collect();
        words.filter(|words| words.len() >= least)
    };
    let inside = |group: &str| all_words(group.split([')', '}', ']']).next()?, 1);
    let groups = text.split(['(', '{', '[']).skip(1).filter_map(inside);
    groups.last().or_else(|| all_words(text, 2)).unwrap_or_default()
}

/// A number in hexadecimal: with `0x`, or of exactly four or eight digits, as the driver prints words.
pub(crate) fn hex(word: &str) -> Option<i64> {
    let digits = match word.strip_prefix("0x") {
        Some(digits) => digits,
        None if word.len() == 4 || word.len() == 8 => word,
        None => return None,
    };
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Whether it is a number counts; the bits of one above i64::MAX are never asked for.
    is_hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten().map(|bits| bits as i64)
}

/// A text of at most so many bytes.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn bare(word: &str) -> &str {
    word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_brought_to_one_form() {
        for (word, expected) in [
            ("PCI:0000:9b:00", Some("0000:9b:00")),
            ("00000000:9B:00.0", Some("0000:9b:00.0")),
            ("(PCI:0018:01:00)", Some("0018:01:00")),
            ("10000:e1:00.3", Some("10000:e1:00.3")),
            ("0000:05:00.0:", Some("0000:05:00.0")),
            ("16:24:18", None),
            ("0000:9b", None),
            ("0000:9b:00:01", None),
            ("0000:9b:00.10", None),
            ("0000:9g:00", None),
            ("0000:+1:00", None),
        ] {
            assert_eq!(pci_address(word).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn registers_are_taken_from_where_the_driver_puts_them() {
        for (text, expected) in [
            ("Graphics Exception: ESR 0x504730=0x10e 0x504734=0x4", &["0x504730=0x10e", "0x504734=0x4"][..]),
            ("fatal error detected on link 6(0x10000, 0x0, 0x0)", &["0x10000", "0x0", "0x0"]),
            ("Data {0x50610002, 0x10610002}", &["0x50610002", "0x10610002"]),
            ("32260b5e 00000154 00000000", &["32260b5e", "00000154", "00000000"]),
            ("Expected function 103 (GSP_RM_ALLOC) (0x2081 0x4).", &["0x2081", "0x4"]),
            ("NETIR_LINK_EVT Fatal XC 1 i 2 Link 01 [0x0000000a]", &["0x0000000a"]),
            ("GPU has fallen off the bus.", &[]),
            ("face", &[]),
        ] {
            assert_eq!(registers(text), expected, "{text}");
        }
    }
}
