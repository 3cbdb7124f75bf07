//! Printed decimals as exact integers.
//!
//! A miner prints `81072.68` GH/s and the lake holds hashes per second: the digits are shifted as text, since a float in
//! between would invent or lose some. What lies below the unit is cut off.

/// Why a text is no integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoInteger {
    /// It is no decimal number.
    NotANumber,
    /// It does not fit 64 bits.
    TooLarge,
}

/// Longest number that is looked at.
const LENGTH_MAX: usize = 64;

/// The decimal number times ten to the power of `shift`.
pub(super) fn shifted(text: &str, shift: i32) -> Result<i64, NoInteger> {
    let text = text.trim();
    if text.len() > LENGTH_MAX {
        return Err(NoInteger::NotANumber);
    }
    let (negative, unsigned) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().map_err(|_| NoInteger::NotANumber)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_number(whole) || !is_number(fraction) {
        return Err(NoInteger::NotANumber);
    }
    let digits: String = [whole, fraction].concat();
    // Where the decimal point ends up among the digits.
    let point = whole.len() as i64 + i64::from(exponent) + i64::from(shift);
    let kept = digits.get(..point.clamp(0, digits.len() as i64) as usize).unwrap_or_default();
    let zeros = (point - digits.len() as i64).max(0);
    let significant = kept.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    if significant.len() as i64 + zeros > 19 {
        return Err(NoInteger::TooLarge);
    }
    let value = significant.bytes().map(|digit| i128::from(digit - b'0')).fold(0, |sum, digit| sum * 10 + digit);
    let value = value * 10i128.pow(zeros as u32);
    i64::try_from(if negative { -value } else { value }).map_err(|_| NoInteger::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_the_exact_integer() {
        for (text, shift, value) in [
            ("81072.68", 9, 81_072_680_000_000),
            ("80911542.37", 6, 80_911_542_370_000),
            ("0.06", 6, 60_000),
            ("0.00", 9, 0),
            ("1316", 1, 13_160),
            ("-40", 0, -40),
            ("72.9", 0, 72),
            ("-0.5", 0, 0),
            ("1.5e3", 0, 1500),
            ("12E-1", 2, 120),
            ("000000000000000000000000007", 0, 7),
            ("9223372036854775807", 0, i64::MAX),
            ("-9223372036854775808", 0, i64::MIN),
            (" 5. ", 0, 5),
        ] {
            assert_eq!(shifted(text, shift), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_large_is_named() {
        for text in
            ["", "-", ".", "nan", "-nan", "inf", "0x10", "1.2.3", "1e", "1e99999999", "--1", "１", &"1".repeat(65)]
        {
            assert_eq!(shifted(text, 0), Err(NoInteger::NotANumber), "{text}");
        }
        for (text, shift) in [("9223372036854775808", 0), ("1e30000", 9), ("10000000000000000000", 0)] {
            assert_eq!(shifted(text, shift), Err(NoInteger::TooLarge), "{text}");
        }
        assert_eq!(shifted("0e30000", 9), Ok(0));
        assert_eq!(shifted("7e-30000", 9), Ok(0));
    }
}
