//! Reading a TOML config file, with errors that name file, line, key and what is allowed.
//!
//! Both services read their settings here, so that a mistake looks the same in both. It knows no setting itself.

use std::path::Path;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};

/// Why a config cannot be used. The text is for the operator: file, line, key, what is allowed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// Reads a config file into its settings. Unknown keys are refused where the settings say `deny_unknown_fields`.
///
/// # Errors
/// When the file cannot be read or its content is not allowed; the text names file, line and key.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| SettingsError(format!("{}: cannot read the config file: {e}", path.display())))?;
    parse(&text, &path.display().to_string())
}

/// Reads the text of a config; `name` stands for the file in errors.
///
/// # Errors
/// When the content is not allowed.
pub fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map(|span| 1 + text.as_bytes()[..span.start.min(text.len())].iter().filter(|b| **b == b'\n').count());
        let place = line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"));
        let shown = line.and_then(|line| text.lines().nth(line - 1)).filter(|line| !may_hold_secret(line));
        let shown = shown.map(|line| format!("\n  {}", line.trim())).unwrap_or_default();
        SettingsError(format!("{place}: {}{shown}", error.message()))
    })
}

/// Whether a line is about a secret, by the words in it; such a line is not shown.
fn may_hold_secret(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["password", "secret", "token", "credential"].iter().any(|word| line.contains(word))
}

/// A duration in a config: `"500ms"`, `"10s"`, `"2h"`. For `#[serde(deserialize_with = "settings::duration")]`.
///
/// # Errors
/// When the text is no duration, or is zero.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A duration as in a config, for an argument.
///
/// # Errors
/// When the text is no duration, or is zero.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("{text:?} is no duration above zero; write one like \"500ms\", \"10s\" or \"2h\"")),
    }
}

/// A duration in a config that may be zero: `"0s"`. For `#[serde(deserialize_with = "settings::duration_or_zero")]`.
///
/// # Errors
/// When the text is no duration.
pub fn duration_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let refuse =
        |_| D::Error::custom(format!("{text:?} is no duration; write one like \"60s\", or \"0s\" for not at all"));
    humantime::parse_duration(&text).map_err(refuse)
}

/// A site or node name in a config. For `#[serde(deserialize_with = "settings::label")]`.
///
/// # Errors
/// When the text is no label.
pub fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if crate::identity::is_label(&text) {
        return Ok(text);
    }
    Err(D::Error::custom(format!("{text:?} is no name; allowed are 1 to 63 of a-z, 0-9, '.', '_' and '-'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[serde(deserialize_with = "duration")]
        #[allow(dead_code)]
        period: Duration,
    }

    #[test]
    fn a_mistake_is_named_with_file_line_and_key() {
        let unknown = parse::<Example>("period = \"1s\"\nperoid = 2\n", "c.toml").unwrap_err().to_string();
        assert!(unknown.starts_with("c.toml:2: ") && unknown.contains("peroid"), "{unknown}");
        let secret = parse::<Example>("password = \"hunter2\"\n", "c.toml").unwrap_err().to_string();
        assert!(secret.starts_with("c.toml:1: ") && !secret.contains("hunter2"), "{secret}");
        let wrong = parse::<Example>("\nperiod = \"soon\"", "c.toml").unwrap_err().to_string();
        assert!(wrong.starts_with("c.toml:2: ") && wrong.contains("500ms"), "{wrong}");
    }
}
