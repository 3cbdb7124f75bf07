//! Avalon's `Key[value] Key[value]` text within a reply of `stats`.

use std::collections::BTreeMap;

/// The values by key; of a key that comes twice the first counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct KeyText(BTreeMap<String, String>);

impl KeyText {
    /// Adds what a text holds. A value ends at the first `]`; a key begins after the value before it, or after `{`.
    pub(super) fn add(&mut self, text: &str) {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('[') {
            let Some((value, next)) = after.split_once(']') else { return };
            let key = before.rsplit('{').next().unwrap_or_default().trim();
            if !key.is_empty() {
                self.0.entry(key.to_owned()).or_insert_with(|| value.trim().to_owned());
            }
            rest = next;
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The items of a list; `None` where the key is absent.
    pub(super) fn list(&self, key: &str) -> Option<Vec<&str>> {
        self.get(key).map(|value| value.split_ascii_whitespace().collect())
    }

    /// An item of a list; `None` where the key or the item is absent.
    pub(super) fn item(&self, key: &str, index: usize) -> Option<&str> {
        self.get(key).and_then(|value| value.split_ascii_whitespace().nth(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_told_apart() {
        let mut text = KeyText::default();
        text.add("'STATS':{Ver[Q-25] SSID[] SYSTEMSTATU[Work: In Work, Hash Board: 3 ]\n Nonce Mask[25]}");
        text.add("'HB0':{PVT_T0[ 58  -1 255] Ver[later]} cut[");
        assert_eq!(text.get("Ver"), Some("Q-25"));
        assert_eq!(text.get("SSID"), Some(""));
        assert_eq!(text.get("SYSTEMSTATU"), Some("Work: In Work, Hash Board: 3"));
        assert_eq!(text.get("Nonce Mask"), Some("25"));
        assert_eq!(text.list("PVT_T0"), Some(vec!["58", "-1", "255"]));
        assert_eq!((text.item("PVT_T0", 2), text.item("PVT_T0", 3), text.list("cut")), (Some("255"), None, None));
    }
}
