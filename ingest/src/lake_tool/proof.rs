//! `verify`: gathers what is known of frames besides their rows, has the lake proven, and prints the answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use racklake_schemas::tables;
use racklake_storage::verify::{self, Progress, Question, Reason, Report, Testimony, Verdict};
use racklake_storage::{Lake, StorageError};

use super::waiting::{self, Waiting};
use super::{Answer, VerifyArguments, json, letters, print, show};
use crate::received::{DOMAIN_PREFIX, ReceivedSet};

/// Everything that is printed.
pub(super) struct Proof {
    /// What the lake's rows say.
    pub(super) report: Report,
    /// What Kafka holds, by partition; empty where it was not asked.
    pub(super) waiting: Vec<Waiting>,
    /// What the received sets have counted, by table.
    pub(super) received: BTreeMap<&'static str, Received>,
    /// How long it took.
    pub(super) took: Duration,
}

/// What the received sets of a table have counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// In all, with the messages set aside that name no stream.
    pub(super) all: Counted,
    /// By stream.
    pub(super) streams: BTreeMap<String, Counted>,
}

/// What did not become rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Frames that came again and were dropped.
    pub(super) duplicates: u64,
    /// Messages that were set aside.
    pub(super) dead_letters: u64,
}

impl Proof {
    pub(super) fn answer(&self) -> Answer {
        match self.report.verdict() {
            Verdict::Unknown => Answer::Unknown,
            Verdict::Incomplete => Answer::Incomplete,
            Verdict::Complete if self.waiting.iter().any(Waiting::is_missing) => Answer::Incomplete,
            Verdict::Complete => Answer::Complete,
        }
    }
}

pub(super) fn verify(arguments: VerifyArguments) -> anyhow::Result<Answer> {
    let begin = Instant::now();
    let value = |(key, value): &(String, crate::Property)| Ok((key.clone(), value.value(key)?));
    let options = arguments.options.iter().map(value).collect::<Result<_, String>>().map_err(anyhow::Error::msg)?;
    let lake = Lake::open(&arguments.lake, &options)?;
    let mut testimony = Vec::new();
    let mut waiting = Vec::new();
    if let Some(servers) = &arguments.bootstrap_servers {
        let config = arguments.kafka.config(servers)?;
        // Ends before positions, or what comes in meanwhile would seem to be missing.
        waiting = waiting::look(&config, &lake).context("comparing with Kafka")?;
        let letters = letters::read(&config, &letters::Choice::default(), |_, _| ())?;
        testimony.extend(letters.iter().filter_map(letters::Letter::testimony));
    }
    let mut doubts = Vec::new();
    let received = received(&lake, &mut testimony, &mut doubts);
    let bar = bar();
    let watch = |progress: Progress| {
        bar.set_length(progress.rows_all);
        bar.set_position(progress.rows);
    };
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or_else(cores);
    let mut report = verify::verify(&lake, Question { keys: !arguments.quick, threads, testimony, watch: &watch });
    bar.finish_and_clear();
    report.doubts.extend(doubts);
    let proof = Proof { report, waiting, received, took: begin.elapsed() };
    let text = if arguments.json { json::proof(&proof) } else { print::proof(lake.location(), &proof, arguments.all) };
    show(&text)?;
    Ok(proof.answer())
}

/// What the received sets know: frames that were received, and frames that were set aside.
fn received(lake: &Lake, testimony: &mut Vec<Testimony>, doubts: &mut Vec<String>) -> BTreeMap<&'static str, Received> {
    let mut counts = BTreeMap::new();
    for table in tables::ALL.iter().copied() {
        let domains = match verify::domains(lake, table, DOMAIN_PREFIX) {
            Ok(domains) => domains,
            // The proof meets the same log and says so.
            Err(error) => {
                note(&error);
                continue;
            }
        };
        for (name, text) in domains {
            let set = match ReceivedSet::restore(Some(text)) {
                Ok(set) => set,
                Err(error) => {
                    doubts.push(format!("table {}: the received set {name} cannot be read: {error}", table.name));
                    continue;
                }
            };
            let count: &mut Received = counts.entry(table.name).or_default();
            count.all.dead_letters += set.unnamed_letters();
            for (stream_id, stream) in set.streams() {
                // A stream is in one partition; in two only where a node's partition was changed, against the rules.
                for counted in [&mut count.all, count.streams.entry(stream_id.clone()).or_default()] {
                    counted.duplicates += stream.duplicates();
                    counted.dead_letters += stream.dead_letters();
                }
                let mut hear = |spans: &[(i64, i64)], reason: Reason| {
                    testimony.extend(spans.iter().map(|(seq_first, seq_last)| Testimony {
                        table: table.name.to_owned(),
                        stream_id: stream_id.clone(),
                        seq_first: *seq_first,
                        seq_last: *seq_last,
                        reason: reason.clone(),
                    }));
                };
                hear(stream.received(), Reason::Lost);
                hear(stream.letters(), Reason::DeadLetter("counted in the received set".to_owned()));
            }
        }
    }
    counts
}

fn note(error: &StorageError) {
    tracing::debug!(%error, "received sets not read");
}

/// On a terminal only.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} rows  {per_sec}  {eta}") {
        bar.set_style(style);
    }
    bar
}
