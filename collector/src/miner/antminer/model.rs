//! What an Antminer's name says: its algorithm, and how many boards it has.

/// Models with another algorithm than SHA-256, by the beginning of their name without the make; longer ones first.
const ALGORITHMS: [(&str, &str); 21] = [
    ("al", "blake3"),
    ("dr3", "blake256r14"),
    ("dr5", "blake256r14"),
    ("hs", "handshake"),
    ("ka", "kadena"),
    ("ks", "kheavyhash"),
    ("a3", "blake2b"),
    ("b3", "tensority"),
    ("b7", "tensority"),
    ("d1", "x11"),
    ("d3", "x11"),
    ("d5", "x11"),
    ("d7", "x11"),
    ("d9", "x11"),
    ("e3", "ethash"),
    ("e7", "ethash"),
    ("e9", "ethash"),
    ("k", "eaglesong"),
    ("l", "scrypt"),
    ("x", "randomx"),
    ("z", "equihash"),
];

/// Air-cooled families, all of which have three boards.
const THREE_BOARDS: [&str; 11] = ["s17", "s19", "s21", "s23", "t17", "t19", "t21", "l7", "l9", "l11", "ks5"];

/// The name without the make, in lower case.
fn short(model: &str) -> String {
    let model = model.trim().to_ascii_lowercase();
    model.strip_prefix("antminer").map_or(model.as_str(), str::trim_start).to_owned()
}

/// The hash algorithm; `None` for a name that says nothing.
pub(super) fn algorithm(model: &str) -> Option<&'static str> {
    let name = short(model);
    if let Some((_, algorithm)) = ALGORITHMS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        return Some(algorithm);
    }
    let is_bitcoin = ["s", "t", "v9", "r4"].iter().any(|prefix| name.starts_with(prefix));
    is_bitcoin.then_some("sha256")
}

/// The boards that the model has; `None` where nobody knows.
pub(super) fn boards(model: &str) -> Option<usize> {
    let name = short(model);
    let is_known = THREE_BOARDS.iter().any(|family| {
        name.strip_prefix(family).is_some_and(|rest| !rest.starts_with(|letter: char| letter.is_ascii_digit()))
    });
    (is_known && !name.contains("hyd")).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_algorithm_and_boards() {
        for (model, expected, count) in [
            ("Antminer S19 Pro", Some("sha256"), Some(3)),
            ("Antminer S19j Pro", Some("sha256"), Some(3)),
            ("Antminer S21+ Hyd.", Some("sha256"), None),
            ("Antminer T21", Some("sha256"), Some(3)),
            ("Antminer L9", Some("scrypt"), Some(3)),
            ("Antminer L11", Some("scrypt"), Some(3)),
            ("Antminer L3+", Some("scrypt"), None),
            ("Antminer KS5 Pro", Some("kheavyhash"), Some(3)),
            ("Antminer K7", Some("eaglesong"), None),
            ("Antminer Z15", Some("equihash"), None),
            ("Antminer AL1", Some("blake3"), None),
            ("Antminer S9", Some("sha256"), None),
            ("", None, None),
            ("Q", None, None),
        ] {
            assert_eq!((algorithm(model), boards(model)), (expected, count), "{model}");
        }
    }
}
