//! Reads the dead-letter topic from its beginning to its end, without joining a group or moving an offset.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use racklake_schemas::{catalog, wire};
use racklake_storage::verify::{Reason, Testimony};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{self, Logged, Role};
use crate::config::Config;
use crate::failure::Failure;
use crate::topics::Cluster;

/// How long the broker may give nothing before reading is given up.
const SILENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(200);

/// One dead letter, without the message that it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Letter {
    /// Where the message was: topic, partition and offset.
    pub(super) place: String,
    /// The same in parts, where it says so.
    pub(super) origin: Option<Origin>,
    /// Name of the table whose topic it was in, if it is one.
    pub(super) table: Option<&'static str>,
    /// Short label of what is wrong with it.
    pub(super) reason: String,
    /// What is wrong with it.
    pub(super) error: String,
    /// Node, stream and seq that the message says it is of.
    pub(super) node: Option<String>,
    pub(super) stream_id: Option<String>,
    pub(super) seq: Option<i64>,
    /// Size of the message, bytes.
    pub(super) bytes: usize,
}

/// Where a message was before it was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// Its topic.
    pub(super) topic: String,
    /// Kafka's number of its partition.
    pub(super) partition: i32,
    /// Its offset there.
    pub(super) offset: i64,
}

impl Letter {
    /// What it says of a frame, if it names one.
    pub(super) fn testimony(&self) -> Option<Testimony> {
        let seq = self.seq.filter(|seq| *seq > 0)?;
        Some(Testimony {
            table: self.table?.to_owned(),
            stream_id: self.stream_id.clone()?,
            seq_first: seq,
            seq_last: seq,
            reason: Reason::DeadLetter(self.reason.clone()),
        })
    }
}

/// Which letters are meant; all, where nothing is said.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    /// Short labels of what is wrong with them.
    pub(super) reasons: Vec<String>,
    /// Topics that they were in.
    pub(super) topics: Vec<String>,
    /// The partition that they were in.
    pub(super) partition: Option<i32>,
    /// First and last offset that they had there.
    pub(super) offsets: Option<(i64, i64)>,
}

impl Choice {
    /// Whether a letter is meant.
    pub(super) fn includes(&self, letter: &Letter) -> bool {
        let origin = letter.origin.as_ref();
        let is = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|wanted| wanted == found))
        };
        is(&self.reasons, Some(&letter.reason))
            && is(&self.topics, origin.map(|origin| origin.topic.as_str()))
            && self.partition.is_none_or(|wanted| origin.is_some_and(|origin| origin.partition == wanted))
            && self
                .offsets
                .is_none_or(|(first, last)| origin.is_some_and(|origin| (first..=last).contains(&origin.offset)))
    }
}

/// The chosen letters, in the order of the topic. A topic that does not exist has none. `visit` is called with each as it
/// comes, with its message.
///
/// # Errors
/// When Kafka does not answer, or stops answering before the end.
pub(super) fn read(
    config: &Config,
    choice: &Choice,
    mut visit: impl FnMut(&Letter, &BorrowedMessage<'_>),
) -> Result<Vec<Letter>, Failure> {
    let topic = config.dead_letter_topic();
    let cluster = Cluster::new(&config.kafka)?;
    let survey = cluster.survey()?;
    let Some((_, count)) = survey.topics.iter().find(|(name, _)| *name == topic) else { return Ok(Vec::new()) };
    let mut ends = BTreeMap::new();
    let mut wanted = TopicPartitionList::new();
    for partition in 0..*count as i32 {
        let (low, high) = cluster.watermarks(&topic, partition)?;
        if high > low {
            let added = wanted.add_partition_offset(&topic, partition, Offset::Offset(low));
            added.map_err(|error| Failure::Stop(format!("topic {topic}: {error}")))?;
            ends.insert(partition, high);
        }
    }
    let mut letters = Vec::new();
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let consumer = consumer(config)?;
    consumer.assign(&wanted).map_err(|error| Failure::Retry(format!("topic {topic}: {error}")))?;
    let mut heard = Instant::now();
    while !ends.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                // What has come in since is of another reading: a letter that was sent again may be one again by now.
                let is_new = ends.get(&message.partition()).is_none_or(|end| message.offset() >= *end);
                let letter = letter(&config.kafka.topic_prefix, &message);
                if !is_new && choice.includes(&letter) {
                    visit(&letter, &message);
                    letters.push((message.partition(), message.offset(), letter));
                }
            }
            Some(Err(error)) => tracing::debug!(%error, "reading dead letters"),
            None => {}
        }
        if heard.elapsed() > SILENCE {
            return Err(Failure::Retry(format!("topic {topic}: nothing came for {SILENCE:?}, before its end")));
        }
        // The last offsets may be of no message: a position says how far reading went.
        let position = consumer.position().map_err(|error| Failure::Retry(format!("topic {topic}: {error}")))?;
        for of in position.elements() {
            if let (Offset::Offset(next), Some(end)) = (of.offset(), ends.get(&of.partition()))
                && next >= *end
            {
                ends.remove(&of.partition());
            }
        }
    }
    letters.sort_by_key(|(partition, offset, _)| (*partition, *offset));
    Ok(letters.into_iter().map(|(_, _, letter)| letter).collect())
}

fn consumer(config: &Config) -> Result<BaseConsumer<Logged>, Failure> {
    let mut settings = client::settings(&config.kafka, Role::Look).map_err(Failure::Stop)?;
    // A name is asked for where partitions are read; nothing is written under it.
    settings.set("group.id", "racklake-lake").set("enable.auto.commit", "false");
    settings.set("auto.offset.reset", "earliest").set("fetch.message.max.bytes", client::LETTER_BYTES_MAX.to_string());
    settings.create_with_context(Logged).map_err(|error| Failure::Stop(format!("kafka: {error}")))
}

fn letter(prefix: &str, message: &BorrowedMessage<'_>) -> Letter {
    // Ours come behind the message's own.
    let text = |key: &str| {
        let headers = message.headers()?;
        let found = headers.iter().filter(|header| header.key == key).last()?;
        std::str::from_utf8(found.value?).ok().map(str::to_owned)
    };
    let origin = || {
        let number = |key| text(key)?.parse::<i64>().ok();
        let partition = i32::try_from(number("partition")?).ok()?;
        Some(Origin { topic: text("topic")?, partition, offset: number("offset")? })
    };
    let topic = text("topic").unwrap_or_default();
    let table = topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).and_then(catalog::table);
    let key = message.key().map(|key| String::from_utf8_lossy(key).into_owned());
    Letter {
        place: key.unwrap_or_else(|| format!("{}/{}", topic, text("offset").unwrap_or_default())),
        origin: origin(),
        table: table.map(|table| table.name),
        reason: text("reason").unwrap_or_default(),
        error: text("error").unwrap_or_default(),
        node: text(wire::header::NODE),
        stream_id: text(wire::header::STREAM_ID),
        seq: text(wire::header::SEQ).and_then(|seq| seq.parse().ok()),
        bytes: message.payload_len(),
    }
}
