//! The commands of `racklake-lake`: `verify` proves a lake, `dead-letters` lists what was set aside and sends it again;
//! `seal`, `expire`, `vacuum` and `checkpoint` do by hand what ingest does in its background.
//!
//! The first two write nothing to the lake. The proof itself is in `racklake_storage::verify`; here it gets what Kafka and the received sets know
//! besides, and is printed.

mod json;
mod letters;
mod print;
mod proof;
mod replay;
mod upkeep;
mod waiting;

pub(crate) use upkeep::name as seal_name;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Property};
use letters::Choice;
use replay::{Replay, Replayed};
use upkeep::{CheckpointArguments, ExpireArguments, SealArguments, VacuumArguments};

/// Proves a lake complete, and lists what was set aside on the way into it.
#[derive(Debug, Parser)]
#[command(name = "racklake-lake", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Counts the rows of every frame in the lake. Exit code: 0 complete, 1 something missing or doubled, 2 could not tell.
    Verify(VerifyArguments),
    /// Lists the dead letters in Kafka: messages that are no frames of their table, kept whole with the reason. With
    /// --replay sends them again to where they were, for an ingest that can read them by now. Exit code: 0 all chosen ones
    /// were listed or sent, 1 some were not sent, 2 could not tell.
    DeadLetters(LettersArguments),
    /// Merges the files of quiet hours into few large sorted ones, and the small ones of quiet days. Exit code: 0 all was
    /// sealed, 1 a row is there twice and its hour was left as it is, 2 it could not be done.
    Seal(SealArguments),
    /// Removes whole days that are past an age from the newest version of the tables. Their files stay until a vacuum.
    Expire(ExpireArguments),
    /// Deletes files that no version of the tables has wanted for a while.
    Vacuum(VacuumArguments),
    /// Writes a checkpoint of each table's log, and deletes what old checkpoints have made superfluous.
    Checkpoint(CheckpointArguments),
}

#[derive(Debug, Args)]
struct VerifyArguments {
    /// The lake: a directory, or a URL such as s3://bucket/lake.
    lake: String,
    /// Prints one JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Lists every stream, also where there are many and nothing is wrong with them.
    #[arg(long)]
    all: bool,
    /// Compares no row keys: quicker, but a row that is there twice in the place of another is not found.
    #[arg(long)]
    quick: bool,
    /// Files to read at a time; by default one for each core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// A setting of the lake's store; @FILE stands for the file's content.
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = property)]
    options: Vec<(String, Property)>,
    /// Also compares the lake's positions with what Kafka holds at these brokers.
    #[arg(long, value_name = "HOST:PORT,...")]
    bootstrap_servers: Option<String>,
    #[command(flatten)]
    kafka: KafkaArguments,
}

#[derive(Debug, Args)]
struct LettersArguments {
    /// Brokers to start from.
    #[arg(long, value_name = "HOST:PORT,...")]
    bootstrap_servers: String,
    /// Prints one JSON object per letter; of a replay, one in all.
    #[arg(long)]
    json: bool,
    /// Only letters of this reason, such as unknown_format; may be given more than once.
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// Only letters that were in this topic; may be given more than once.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only letters that were in this partition of their topic.
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// Only letters that were at these offsets of their partition.
    #[arg(long, value_name = "FIRST..LAST", value_parser = offsets)]
    offsets: Option<(i64, i64)>,
    /// Sends the messages again to where they were, with the header replay, and waits until Kafka has them. One that is
    /// sent twice is stored once.
    #[arg(long)]
    replay: bool,
    /// With --replay: lists what would be sent, and sends nothing.
    #[arg(long, requires = "replay")]
    dry_run: bool,
    #[command(flatten)]
    kafka: KafkaArguments,
}

#[derive(Debug, Args)]
struct KafkaArguments {
    /// A table's topic is PREFIX.TABLE.
    #[arg(long, value_name = "PREFIX", default_value = "racklake")]
    topic_prefix: String,
    /// A setting of librdkafka; @FILE stands for the file's content.
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = property)]
    properties: Vec<(String, Property)>,
}

/// What a command has found, for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// All is there, once; or what was asked for is listed.
    Complete,
    /// Something is missing or there twice.
    Incomplete,
    /// It could not be told.
    Unknown,
}

impl Answer {
    /// 0 complete, 1 something missing or doubled, 2 could not tell.
    pub fn exit_code(self) -> u8 {
        match self {
            Answer::Complete => 0,
            Answer::Incomplete => 1,
            Answer::Unknown => 2,
        }
    }
}

/// Does what the arguments say and prints it. Call it inside a multi-thread runtime.
///
/// # Errors
/// What kept it from telling.
pub async fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    tokio::task::spawn_blocking(move || match arguments.command {
        Command::Verify(arguments) => proof::verify(arguments),
        Command::DeadLetters(arguments) if arguments.replay => replay_letters(&arguments),
        Command::DeadLetters(arguments) => list_letters(&arguments),
        Command::Seal(arguments) => upkeep::seal(&arguments),
        Command::Expire(arguments) => upkeep::expire(&arguments),
        Command::Vacuum(arguments) => upkeep::vacuum(&arguments),
        Command::Checkpoint(arguments) => upkeep::checkpoint(&arguments),
    })
    .await?
}

fn list_letters(arguments: &LettersArguments) -> anyhow::Result<Answer> {
    let config = arguments.kafka.config(&arguments.bootstrap_servers)?;
    let letters = letters::read(&config, &arguments.choice(), |_, _| ())?;
    let text = if arguments.json { json::letters(&letters) } else { print::letters(&letters) };
    show(&text)?;
    Ok(Answer::Complete)
}

fn replay_letters(arguments: &LettersArguments) -> anyhow::Result<Answer> {
    let config = arguments.kafka.config(&arguments.bootstrap_servers)?;
    let choice = arguments.choice();
    let (letters, replayed) = if arguments.dry_run {
        let mut replayed = Replayed::default();
        let letters =
            letters::read(&config, &choice, |letter, message| replay::try_out(&mut replayed, letter, message))?;
        (letters, replayed)
    } else {
        let mut replay = Replay::new(&config)?;
        let read = letters::read(&config, &choice, |letter, message| replay.send(letter, message));
        // What was handed over before an error is waited for and told all the same.
        let replayed = replay.finish();
        match read {
            Ok(_) => (Vec::new(), replayed),
            Err(error) => {
                show(&print::replayed(&replayed, false))?;
                return Err(error.into());
            }
        }
    };
    let text = match arguments.json {
        true => json::replayed(&replayed, arguments.dry_run),
        false if arguments.dry_run => print::letters(&letters) + &print::replayed(&replayed, true),
        false => print::replayed(&replayed, false),
    };
    show(&text)?;
    Ok(if replayed.not_sent.is_empty() { Answer::Complete } else { Answer::Incomplete })
}

/// Prints; that nobody reads to the end is no error.
fn show(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("printing"),
    }
}

impl LettersArguments {
    fn choice(&self) -> Choice {
        let (reasons, topics) = (self.reasons.clone(), self.topics.clone());
        Choice { reasons, topics, partition: self.partition, offsets: self.offsets }
    }
}

impl KafkaArguments {
    /// The config of an ingest that these arguments describe.
    fn config(&self, bootstrap_servers: &str) -> anyhow::Result<Config> {
        let mut config = Config::new(bootstrap_servers, "none");
        config.kafka.topic_prefix.clone_from(&self.topic_prefix);
        config.kafka.properties = self.properties.iter().cloned().collect();
        config.validate().map_err(anyhow::Error::msg)?;
        Ok(config)
    }
}

fn offsets(text: &str) -> Result<(i64, i64), String> {
    let number = |text: &str| text.parse::<i64>().map_err(|_| "write FIRST..LAST, or one offset".to_owned());
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    Ok((number(first)?, number(last)?))
}

fn property(text: &str) -> Result<(String, Property), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let value = match value.strip_prefix('@') {
        Some(file) => Property::File { file: PathBuf::from(file) },
        None => Property::Text(value.to_owned()),
    };
    Ok((key.to_owned(), value))
}

#[cfg(test)]
pub(crate) mod tests;
