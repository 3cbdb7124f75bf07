//! Units of hashrates as firmwares write them: `GH/s`, `MHS`, `KSol/s`.

/// Units with the power of ten that makes hashes per second of them, and their names in front of a window in cgminer's
/// replies: `GHS 5s`.
pub(super) const NAMES: [(&str, i32); 6] = [("THS", 12), ("GHS", 9), ("MHS", 6), ("KHS", 3), ("HS", 0), ("PHS", 15)];

/// Ends of a unit, the longest first. A solution of equihash is what a hash is elsewhere.
const ENDS: [&str; 6] = ["sol/s", "h/s", "sols", "sol", "hs", "h"];

/// The power of ten that makes hashes per second of a unit; `None` for a text that is no such unit.
pub(super) fn exponent(unit: &str) -> Option<i32> {
    let unit = unit.trim().to_ascii_lowercase();
    let prefix = ENDS.iter().find_map(|end| unit.strip_suffix(end))?;
    Some(match prefix {
        "" => 0,
        "k" => 3,
        "m" => 6,
        "g" => 9,
        "t" => 12,
        "p" => 15,
        "e" => 18,
        _ => return None,
    })
}

/// A number with its unit, `6804.97 MH/s`, as the number and the power of ten.
pub(super) fn with_unit(text: &str) -> Option<(&str, i32)> {
    let (number, unit) = text.trim().split_once(' ')?;
    Some((number, exponent(unit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_apart_and_what_is_none_is_none() {
        for (unit, power) in [
            ("GH", Some(9)),
            ("GH/s", Some(9)),
            ("MHS", Some(6)),
            ("kH/s", Some(3)),
            ("TH/s", Some(12)),
            ("H/s", Some(0)),
            ("KSol/s", Some(3)),
            ("Sol/s", Some(0)),
            ("", None),
            ("W", None),
            ("XH/s", None),
            ("%", None),
        ] {
            assert_eq!(exponent(unit), power, "{unit}");
        }
        assert_eq!(with_unit("6804.97 MH/s"), Some(("6804.97", 6)));
        assert_eq!(with_unit("6804.97"), None);
        for (name, power) in NAMES {
            assert_eq!(exponent(name), Some(power), "{name}");
        }
    }
}
