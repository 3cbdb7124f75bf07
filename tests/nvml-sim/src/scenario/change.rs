//! Changes at a time: keys of a scenario or of a GPU that have another value from a second on.

use toml::Table;

use super::{Scenario, ScenarioError};

/// The key of a change that says when.
const AT: &str = "at";

/// Seconds after loading that a change is at.
fn at(change: &Table) -> Option<f64> {
    let at = change.get(AT)?;
    at.as_float().or_else(|| at.as_integer().map(|seconds| seconds as f64))
}

/// Puts the changes that have come by `now` over `base`, the earliest first. Tables are merged key by key.
fn overlay(base: &mut Table, changes: &[Table], now: f64) -> Result<(), ScenarioError> {
    let mut due = Vec::new();
    for change in changes {
        let at = at(change).ok_or_else(|| ScenarioError("scenario: change: at: the second is missing".to_owned()))?;
        if at <= now {
            due.push((at, change));
        }
    }
    due.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (_, change) in due {
        let named: Table =
            change.iter().filter(|(key, _)| *key != AT).map(|(key, value)| (key.clone(), value.clone())).collect();
        merge(base, &named);
    }
    Ok(())
}

fn merge(base: &mut Table, change: &Table) {
    for (key, value) in change {
        match (base.get_mut(key).and_then(toml::Value::as_table_mut), value.as_table()) {
            (Some(old), Some(new)) => merge(old, new),
            _ => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

/// The fields of a part as a table.
fn table<T: serde::Serialize>(part: &T) -> Result<Table, ScenarioError> {
    Table::try_from(part).map_err(|error| ScenarioError(format!("scenario: {error}")))
}

/// A part again from its table.
fn part<T: serde::de::DeserializeOwned>(table: Table) -> Result<T, ScenarioError> {
    table.try_into().map_err(|error| ScenarioError(format!("scenario: change: {error}")))
}

impl Scenario {
    /// Seconds that something changes at, sorted.
    pub(crate) fn change_times(&self) -> Vec<f64> {
        let changes = self.change.iter().chain(self.gpu.iter().flat_map(|gpu| &gpu.change));
        let mut times: Vec<f64> = changes.filter_map(at).collect();
        times.sort_by(f64::total_cmp);
        times
    }

    /// The scenario as it is `now` seconds after loading.
    ///
    /// # Errors
    /// When a change has no second, or gives something that is no scenario.
    pub(crate) fn at(&self, now: f64) -> Result<Scenario, ScenarioError> {
        let mut scenario = self.clone();
        if !self.change.is_empty() {
            let mut base = table(&Scenario { gpu: Vec::new(), change: Vec::new(), ..self.clone() })?;
            overlay(&mut base, &self.change, now)?;
            scenario = Scenario { gpu: self.gpu.clone(), change: self.change.clone(), ..part(base)? };
        }
        for gpu in scenario.gpu.iter_mut().filter(|gpu| !gpu.change.is_empty()) {
            let changes = std::mem::take(&mut gpu.change);
            let mut base = table(gpu)?;
            overlay(&mut base, &changes, now)?;
            *gpu = part(base)?;
        }
        Ok(scenario)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Counter;

    #[test]
    fn a_change_is_there_from_its_second_on() {
        let text = "[[change]]\nat = 4\ndriver_version = \"580.95.05\"\n[[gpu]]\nlatency_ms = 1\n\
                    [[gpu.change]]\nat = 2.5\nlost = true\n\
                    [[gpu.change]]\nat = 3\nlost = false\nper_hour = { dram_corrected = 60.0 }\n";
        let scenario = Scenario::parse(text).unwrap();
        assert_eq!(scenario.change_times(), [2.5, 3.0, 4.0]);
        let lost = |now| scenario.at(now).unwrap().gpu[0].lost;
        assert_eq!([lost(2.4), lost(2.5), lost(3.0)], [false, true, false]);
        let late = scenario.at(4.0).unwrap();
        assert_eq!((late.driver_version.as_str(), late.gpu[0].latency_ms), ("580.95.05", 1));
        assert_eq!(late.gpu[0].per_hour[&Counter::DramCorrected], 60.0);
        assert_eq!(Scenario::parse(&scenario.to_toml().unwrap()).unwrap(), scenario);
    }

    #[test]
    fn a_change_with_a_mistake_is_refused() {
        for text in ["[[gpu]]\n[[gpu.change]]\nlost = true\n", "[[gpu]]\n[[gpu.change]]\nat = 1\nlots = true\n"] {
            assert!(Scenario::parse(text).is_err(), "{text}");
        }
    }
}
