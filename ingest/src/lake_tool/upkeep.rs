//! `seal`, `expire`, `vacuum`, `checkpoint`: a lake is kept in order by hand, one table after the other.
//!
//! Each has a dry run that changes nothing and lists what would be done. Ingest may run meanwhile, and so may others of
//! these: who comes second finds less to do.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use racklake_schemas::clock::Clock;
use racklake_schemas::{Table, catalog, settings, tables};
use racklake_storage::{Lake, LakeTable, Seal, SealRules, Sealed, Swept};

use super::{Answer, property, show};
use crate::config::{Property, UpkeepConfig};

/// Paths of one table that are listed of a sweep.
const PATHS_LISTED: usize = 20;

/// Which lake, and which of its tables.
#[derive(Debug, Args)]
struct Place {
    /// The lake: a directory, or a URL such as s3://bucket/lake.
    lake: String,
    /// Only this table; may be given more than once.
    #[arg(long = "table", value_name = "TABLE", value_parser = table)]
    tables: Vec<&'static Table>,
    /// Lists what would be done, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// A setting of the lake's store; @FILE stands for the file's content.
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = property)]
    options: Vec<(String, Property)>,
}

#[derive(Debug, Args)]
pub(super) struct SealArguments {
    #[command(flatten)]
    place: Place,
    /// An hour is sealed when it has been over, and no row of it has come, for so long.
    #[arg(long, value_name = "AGE", default_value = "10m", value_parser = age)]
    quiet: Duration,
    /// Small sealed files of a day are merged when it has been over, and no row of it has come, for so long.
    #[arg(long, value_name = "AGE", default_value = "6h", value_parser = age)]
    day_quiet: Duration,
    /// Bytes of a merge's input that may be in memory.
    #[arg(long, value_name = "BYTES", default_value_t = SealRules::default().memory_bytes)]
    memory: u64,
}

#[derive(Debug, Args)]
pub(super) struct ExpireArguments {
    #[command(flatten)]
    place: Place,
    /// Days older than this are removed, such as 400d; by default what ingest's defaults say of each table.
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct VacuumArguments {
    #[command(flatten)]
    place: Place,
    /// How long no version may have wanted a file; two days or more.
    #[arg(long, value_name = "AGE", default_value = "7d", value_parser = age)]
    age: Duration,
}

#[derive(Debug, Args)]
pub(super) struct CheckpointArguments {
    #[command(flatten)]
    place: Place,
    /// Commits before the newest checkpoint that is older than this are deleted.
    #[arg(long, value_name = "AGE", default_value = "7d", value_parser = age)]
    log_age: Duration,
}

pub(super) fn seal(arguments: &SealArguments) -> anyhow::Result<Answer> {
    let (quiet, day_quiet, memory_bytes) = (arguments.quiet, arguments.day_quiet, arguments.memory);
    let rules = SealRules { quiet, day_quiet, memory_bytes, ..SealRules::default() };
    let place = &arguments.place;
    let lake = place.open()?;
    let mut answer = Answer::Complete;
    for table in place.tables(&lake)? {
        let mut opened = lake.table(table)?;
        // A day is merged only when all of its hours are sealed, so there may be more to do afterwards.
        loop {
            let seals = opened.plan_seals(&rules, Clock::now_us())?;
            if seals.is_empty() {
                break;
            }
            let mut text = String::new();
            let bar = bar(seals.iter().map(Seal::rows).sum(), "rows");
            let mut progressed = false;
            for seal in &seals {
                let line = name(table, seal);
                if place.dry_run {
                    writeln!(text, "{line} would be sealed")?;
                    continue;
                }
                let end = match opened.seal(seal, &|rows| count(&bar, rows))? {
                    Sealed::Committed { version, path, bytes, .. } => {
                        progressed = true;
                        format!("sealed in version {version}: {path}, {bytes} bytes")
                    }
                    Sealed::Abandoned => "left: another has changed its files".to_owned(),
                    Sealed::Repeated { key } => {
                        answer = Answer::Incomplete;
                        format!("left as it is, since a row is there twice: {key}")
                    }
                };
                writeln!(text, "{line} {end}")?;
            }
            bar.finish_and_clear();
            show(&text)?;
            if !progressed {
                break;
            }
        }
    }
    Ok(answer)
}

pub(super) fn expire(arguments: &ExpireArguments) -> anyhow::Result<Answer> {
    let place = &arguments.place;
    let lake = place.open()?;
    for table in place.tables(&lake)? {
        let mut opened = lake.table(table)?;
        let age = arguments.older_than.unwrap_or_else(|| UpkeepConfig::default().retention_of(table));
        let Some(floor) = opened.floor(whole_days(age)?)? else { continue };
        let days = opened.expiring(floor)?;
        let mut text = String::new();
        for day in &days {
            let what = if place.dry_run { "would expire" } else { "expires" };
            let (site, date) = (&day.site, date(day.day));
            writeln!(text, "{} {site} {date}: {} files, {} rows {what}", table.name, day.files, day.rows)?;
        }
        show(&text)?;
        if !place.dry_run && !days.is_empty() {
            let bar = bar(days.iter().map(|day| day.rows).sum(), "rows");
            let expired = opened.expire(floor, &|rows| bar.inc(rows))?;
            bar.finish_and_clear();
            if let Some(expired) = expired {
                show(&format!("{}: {} rows removed in version {}\n", table.name, expired.rows, expired.version))?;
            }
        }
    }
    Ok(Answer::Complete)
}

pub(super) fn vacuum(arguments: &VacuumArguments) -> anyhow::Result<Answer> {
    let place = &arguments.place;
    let lake = place.open()?;
    for table in place.tables(&lake)? {
        let bar = bar(0, "files");
        let swept = lake.vacuum(table, arguments.age, place.dry_run, &|| count(&bar, 1));
        bar.finish_and_clear();
        show(&list(table, &swept?, place.dry_run, "no version wants"))?;
    }
    Ok(Answer::Complete)
}

pub(super) fn checkpoint(arguments: &CheckpointArguments) -> anyhow::Result<Answer> {
    let place = &arguments.place;
    let lake = place.open()?;
    for table in place.tables(&lake)? {
        if !place.dry_run {
            let mut opened: LakeTable = lake.table(table)?;
            let what = if opened.checkpoint()? { "checkpoint written" } else { "has a checkpoint" };
            show(&format!("{} version {}: {what}\n", table.name, opened.version()))?;
        }
        let swept = lake.clean_log(table, arguments.log_age, place.dry_run)?;
        show(&list(table, &swept, place.dry_run, "a checkpoint has made superfluous"))?;
    }
    Ok(Answer::Complete)
}

impl Place {
    fn open(&self) -> anyhow::Result<Lake> {
        let value = |(key, value): &(String, Property)| Ok((key.clone(), value.value(key)?));
        let options = self.options.iter().map(value).collect::<Result<_, String>>().map_err(anyhow::Error::msg)?;
        Ok(Lake::open(&self.lake, &options)?)
    }

    /// The tables that are meant and there: none is made.
    fn tables(&self, lake: &Lake) -> anyhow::Result<Vec<&'static Table>> {
        let chosen = if self.tables.is_empty() { tables::ALL } else { &self.tables };
        let mut there = Vec::new();
        for table in chosen.iter().copied() {
            if lake.has(table)? {
                there.push(table);
            }
        }
        anyhow::ensure!(!there.is_empty(), "{}: there is no such table of a lake here", lake.location());
        Ok(there)
    }
}

/// How a seal is named to a human.
pub(crate) fn name(table: &Table, seal: &Seal) -> String {
    let hour = seal.hour().map_or_else(String::new, |hour| format!(" {hour:02}h"));
    let (site, date) = (seal.site(), date(seal.day()));
    format!("{} {site} {date}{hour}: {} files, {} rows, {} bytes", table.name, seal.files(), seal.rows(), seal.bytes())
}

fn list(table: &Table, swept: &Swept, dry_run: bool, why: &str) -> String {
    if swept.files.is_empty() {
        return String::new();
    }
    let what = if dry_run { "would be deleted" } else { "deleted" };
    let mut text = String::new();
    for (path, bytes) in swept.files.iter().take(PATHS_LISTED) {
        text += &format!("{}: {path}, {bytes} bytes, {what}\n", table.name);
    }
    text + &format!("{}: {} files, {} bytes, which {why}, {what}\n", table.name, swept.files.len(), swept.bytes())
}

fn count(bar: &ProgressBar, done: u64) -> ControlFlow<()> {
    bar.inc(done);
    ControlFlow::Continue(())
}

/// On a terminal only.
fn bar(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:40}} {{human_pos}}/{{human_len}} {what}  {{eta}}"))
    {
        bar.set_style(style);
    }
    bar
}

/// A day since 1970 as a date.
fn date(day: i32) -> String {
    arrow::temporal_conversions::date32_to_datetime(day).map_or_else(|| day.to_string(), |at| at.date().to_string())
}

fn whole_days(age: Duration) -> anyhow::Result<i32> {
    i32::try_from(age.as_secs() / (24 * 3600)).ok().filter(|days| *days > 0).context("give an age of a day or more")
}

fn age(text: &str) -> Result<Duration, String> {
    settings::parse_duration(text)
}

fn table(name: &str) -> Result<&'static Table, String> {
    let known = || tables::ALL.iter().map(|table| table.name).collect::<Vec<_>>().join(", ");
    catalog::table(name).ok_or_else(|| format!("no table; there are {}", known()))
}
