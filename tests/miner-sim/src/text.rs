//! Avalon's `Key[value]` text: setting values within a recording.

/// Sets the value of a key that the text has; a key that it lacks is left alone.
pub(crate) fn set(text: &mut String, key: &str, value: &str) {
    let pattern = format!("{key}[");
    let mut from = 0;
    while let Some(found) = text[from..].find(&pattern).map(|at| at + from) {
        let begin = found + pattern.len();
        let whole_key = found == 0 || matches!(text.as_bytes()[found - 1], b' ' | b'{');
        if whole_key && let Some(length) = text[begin..].find(']') {
            text.replace_range(begin..begin + length, value);
            return;
        }
        from = begin;
    }
}

/// The numbers of a key's value.
pub(crate) fn numbers(text: &str, key: &str) -> Vec<i32> {
    let Some((_, rest)) = text.split_once(&format!("{key}[")) else { return Vec::new() };
    let value = rest.split_once(']').map_or("", |(value, _)| value);
    value.split_ascii_whitespace().filter_map(|item| item.parse().ok()).collect()
}

/// Values with single spaces, as the firmware prints most lists.
pub(crate) fn list<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_set_only_where_the_whole_key_matches() {
        let mut text = "'STATS':{MTmax[1] TMax[77] ITemp[26] Temp[30]}".to_owned();
        set(&mut text, "Temp", "31");
        set(&mut text, "MTmax", "2 3");
        set(&mut text, "Absent", "9");
        assert_eq!(text, "'STATS':{MTmax[2 3] TMax[77] ITemp[26] Temp[31]}");
    }
}
