//! The settings of what keeps the lake in order: `[upkeep]`.

use std::collections::BTreeMap;
use std::time::Duration;

use racklake_schemas::{Table, catalog, settings, tables};
use racklake_storage::{SWEEP_AGE_MIN, SealRules};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::unknown_table;

const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// Keys of `retention` that are no table.
const DEFAULT: &str = "default";

/// How the lake is kept in order in the background.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpkeepConfig {
    /// Whether it is done at all by this process.
    pub enabled: bool,
    /// How often a table is looked through for what can be sealed.
    #[serde(deserialize_with = "settings::duration")]
    pub period: Duration,
    /// An hour is sealed when it has been over, and no row of it has come, for so long.
    #[serde(deserialize_with = "settings::duration")]
    pub quiet: Duration,
    /// Small sealed files of a day are merged when it has been over, and no row of it has come, for so long.
    #[serde(deserialize_with = "settings::duration")]
    pub day_quiet: Duration,
    /// Bytes of a merge's input that may be in memory, as they are in the files.
    pub memory_bytes: u64,
    /// How long days are kept, by table; `default` stands for the others.
    #[serde(deserialize_with = "retention")]
    pub retention: BTreeMap<String, Duration>,
    /// Files that no version of a table has wanted for so long are deleted.
    #[serde(deserialize_with = "settings::duration")]
    pub vacuum_age: Duration,
    /// Commits of a table's log before a checkpoint that is so old are deleted.
    #[serde(deserialize_with = "settings::duration")]
    pub log_age: Duration,
}

impl Default for UpkeepConfig {
    fn default() -> UpkeepConfig {
        let rules = SealRules::default();
        UpkeepConfig {
            enabled: true,
            period: Duration::from_secs(60),
            quiet: rules.quiet,
            day_quiet: rules.day_quiet,
            memory_bytes: rules.memory_bytes,
            retention: BTreeMap::new(),
            vacuum_age: 7 * A_DAY,
            log_age: 7 * A_DAY,
        }
    }
}

impl UpkeepConfig {
    /// How long the days of a table are kept.
    pub fn retention_of(&self, table: &Table) -> Duration {
        let named = self.retention.get(table.name);
        named.copied().unwrap_or_else(|| match outlives_others(table.name) {
            true => (1200 * A_DAY).max(self.longest_named()),
            false => self.retention.get(DEFAULT).copied().unwrap_or(400 * A_DAY),
        })
    }

    /// When files are merged.
    pub(crate) fn rules(&self) -> SealRules {
        let (quiet, day_quiet, memory_bytes) = (self.quiet, self.day_quiet, self.memory_bytes);
        SealRules { quiet, day_quiet, memory_bytes, ..SealRules::default() }
    }

    /// Checks what the types alone do not say.
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.vacuum_age < SWEEP_AGE_MIN {
            return Err("upkeep.vacuum_age must be two days or more: a flush may hold its files for a day".to_owned());
        }
        if self.log_age < A_DAY {
            return Err("upkeep.log_age must be a day or more: readers may be at an older version".to_owned());
        }
        if let Some((name, _)) = self.retention.iter().find(|(_, age)| **age < A_DAY) {
            return Err(format!("upkeep.retention.{name} must be a day or more"));
        }
        let longest =
            tables::ALL.iter().filter(|table| !outlives_others(table.name)).map(|table| self.retention_of(table));
        let longest = longest.max().unwrap_or_default();
        match tables::ALL.iter().find(|table| outlives_others(table.name) && self.retention_of(table) < longest) {
            Some(table) => Err(format!(
                "upkeep.retention.{} must not be below that of other tables: it says what is missing in them",
                table.name
            )),
            None => Ok(()),
        }
    }

    fn longest_named(&self) -> Duration {
        self.retention.values().max().copied().unwrap_or_default()
    }
}

/// Tables that say of others what is missing, and what the devices were.
fn outlives_others(name: &str) -> bool {
    matches!(name, "coverage" | "event" | "device")
}

fn retention<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Duration>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let age = |(name, text): (String, String)| {
        if name != DEFAULT && catalog::table(&name).is_none() {
            return Err(D::Error::custom(format!("{}, and {DEFAULT:?}", unknown_table(&name))));
        }
        settings::parse_duration(&text).map(|age| (name, age)).map_err(D::Error::custom)
    };
    texts.into_iter().map(age).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<UpkeepConfig, String> {
        let config: UpkeepConfig = settings::parse(text, "f").map_err(|error| error.to_string())?;
        config.validate().map(|()| config)
    }

    #[test]
    fn what_tells_of_others_is_kept_longest() {
        let days = |config: &UpkeepConfig, table| config.retention_of(table).as_secs() / 86_400;
        let plain = parse("").unwrap();
        assert_eq!((days(&plain, &tables::GPU_SAMPLE), days(&plain, &tables::EVENT)), (400, 1200));
        let config = parse("[retention]\ndefault = \"30d\"\ngpu_health = \"2000d\"\n").unwrap();
        assert_eq!((days(&config, &tables::GPU_SAMPLE), days(&config, &tables::GPU_HEALTH)), (30, 2000));
        assert_eq!(days(&config, &tables::COVERAGE), 2000);
        let error = parse("[retention]\nevent = \"300d\"\n").unwrap_err();
        assert!(error.contains("upkeep.retention.event"), "{error}");
    }

    #[test]
    fn ages_that_would_take_files_from_those_who_need_them_are_refused() {
        for (text, key) in [
            ("vacuum_age = \"1d\"", "upkeep.vacuum_age"),
            ("log_age = \"1h\"", "upkeep.log_age"),
            ("[retention]\ngpu_sample = \"1h\"", "upkeep.retention.gpu_sample"),
            ("[retention]\ngpu = \"9d\"", "is no table"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }
}
