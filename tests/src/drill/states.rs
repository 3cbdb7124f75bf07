//! In which state of the straight path a service was when it was killed, told by its log and by what lies on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::process::Process;

/// A state in which a kill can fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The collector reads sensors.
    Sampling,
    /// The collector makes frames durable.
    Spooling,
    /// The collector waits for Kafka's acknowledgement.
    Publishing,
    /// The collector's worker, which alone calls NVML, at any moment.
    CallingNvml,
    /// Ingest reads frames.
    Consuming,
    /// Ingest writes a row file.
    Writing,
    /// A row file is whole, but no commit names it.
    BetweenFileAndCommit,
    /// The commit is there, but the group's offset does not tell of it.
    BetweenCommitAndOffset,
    /// The broker serves.
    Serving,
}

impl State {
    /// All that a drill must have hit.
    pub const ALL: [State; 9] = [
        State::Sampling,
        State::Spooling,
        State::Publishing,
        State::CallingNvml,
        State::Consuming,
        State::Writing,
        State::BetweenFileAndCommit,
        State::BetweenCommitAndOffset,
        State::Serving,
    ];

    /// What a report calls it.
    pub fn name(self) -> &'static str {
        match self {
            State::Sampling => "collector, sampling",
            State::Spooling => "collector, spooling",
            State::Publishing => "collector, publishing",
            State::CallingNvml => "collector's worker, calling NVML",
            State::Consuming => "ingest, consuming",
            State::Writing => "ingest, writing",
            State::BetweenFileAndCommit => "ingest, between file and commit",
            State::BetweenCommitAndOffset => "ingest, between commit and Kafka offset",
            State::Serving => "broker, serving",
        }
    }

    /// The word at whose appearance in the log the kill is let fall; `None`: at any moment.
    pub(crate) fn aim(self) -> Option<&'static str> {
        match self {
            State::Sampling => Some("sampling"),
            State::Spooling => Some("spooling"),
            State::Publishing => Some("publishing"),
            State::Writing => Some("writing"),
            State::BetweenFileAndCommit => Some("written"),
            State::BetweenCommitAndOffset => Some("committed"),
            State::CallingNvml | State::Consuming | State::Serving => None,
        }
    }
}

/// Whether the log line says that word as its message.
pub(crate) fn says(line: &str, word: &str) -> bool {
    line.split_whitespace().any(|part| part == word)
}

/// The state of a collector that has just been killed.
pub(crate) fn of_collector(process: &Process) -> State {
    const WORDS: [&str; 5] = ["sampling", "spooling", "spooled", "publishing", "published"];
    let told = |line: &str| WORDS.iter().any(|word| says(line, word));
    let Some(last) = process.last_line(told) else { return State::Sampling };
    match WORDS.iter().find(|word| says(&last, word)) {
        Some(&"spooling") => State::Spooling,
        Some(&"publishing" | &"spooled") => State::Publishing,
        _ => State::Sampling,
    }
}

/// The table that a line of ingest is about.
pub(crate) fn table_in(line: &str) -> Option<String> {
    let named = line.split("table=").nth(1)?;
    Some(named.trim_start_matches('"').split(|c: char| c == '"' || c.is_whitespace()).next()?.to_owned())
}

fn version_in(line: &str) -> Option<u64> {
    line.split("version=").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Which commits some ingest process has said to be its own.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    versions: BTreeMap<String, BTreeSet<u64>>,
}

impl Claims {
    /// Takes what a process has said since line `from`; gives the number of its lines.
    pub(crate) fn listen(&mut self, process: &Process, from: usize) -> usize {
        process.for_each_line(from, |line| {
            if says(line, "committed")
                && let (Some(table), Some(version)) = (table_in(line), version_in(line))
            {
                self.versions.entry(table).or_default().insert(version);
            }
        })
    }

    /// Takes the commits of a table that nobody has claimed: the process that has just died made them. Gives their number.
    pub(crate) fn settle(&mut self, lake: &Path, table: &str) -> usize {
        let claimed = self.versions.entry(table.to_owned()).or_default();
        let known_from = claimed.first().copied().unwrap_or(u64::MAX);
        let Ok(entries) = std::fs::read_dir(lake.join(table).join("_delta_log")) else { return 0 };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let versions = names.filter_map(|name| name.strip_suffix(".json")?.parse::<u64>().ok());
        let before = claimed.len();
        claimed.extend(versions.filter(|version| *version > known_from));
        claimed.len() - before
    }
}

/// The state of an ingest process that has just been killed, when the claims have heard all processes.
pub(crate) fn of_ingest(process: &Process, table: &str, claims: &mut Claims, lake: &Path) -> State {
    const WORDS: [&str; 4] = ["writing", "written", "committed", "acknowledged"];
    let about = |line: &str| line.contains(table) && WORDS.iter().any(|word| says(line, word));
    let unclaimed = claims.settle(lake, table);
    let Some(last) = process.last_line(about) else { return State::Consuming };
    match WORDS.iter().find(|word| says(&last, word)) {
        Some(&"writing") => State::Writing,
        Some(&"written") if unclaimed > 0 => State::BetweenCommitAndOffset,
        Some(&"written") => State::BetweenFileAndCommit,
        Some(&"committed") => State::BetweenCommitAndOffset,
        _ => State::Consuming,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_its_table_and_its_version() {
        let line =
            "2026-11-24T12:00:00Z DEBUG racklake_ingest::flush: committed table=\"gpu_sample\" version=17 next=3";
        assert!(says(line, "committed"));
        assert_eq!((table_in(line).as_deref(), version_in(line)), (Some("gpu_sample"), Some(17)));
    }
}
