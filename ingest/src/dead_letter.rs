//! Sets messages aside that are no frames of their topic's table, whole, with the reason.
//!
//! A position passes such a message only when the broker has acknowledged its letter, so a crash between the two writes
//! the letter twice: the key tells. It never drops one; what is too large for the topic goes there cut, and says so.

use std::time::Duration;

use racklake_schemas::wire::DecodeError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::client::{self, Logged, Role};
use crate::config::Config;
use crate::failure::Failure;
use crate::own_events::OwnFrame;

/// How long a letter may wait for room in the producer's queue.
const QUEUE_WAIT: Duration = Duration::from_secs(10);
/// What is kept of a message that the topic does not take whole, bytes; tried in this order.
const CUTS: [usize; 2] = [512 * 1024, 16 * 1024];

/// The header that says how large a message was of which only the beginning was kept.
pub(crate) const TRUNCATED: &str = "truncated_from_bytes";
/// The headers that every letter has behind the message's own, in this order.
const FIRST: [&str; 5] = ["reason", "error", "topic", "partition", "offset"];

/// Why a message is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// It has no content.
    #[error("the message is empty")]
    Empty,
    /// It is a frame of another table than its topic's.
    #[error("the message says that it is of table {0:?}, which is not its topic's")]
    WrongTable(String),
    /// It may be a replay of a frame that is in the lake: nothing is known any more of single frames up to this seq.
    #[error(
        "its stream has not been seen for so long, or has so many gaps, that seqs up to {closed_to} cannot be told from \
         replays"
    )]
    StreamClosed {
        /// The seq.
        closed_to: i64,
    },
    /// Its stream is new, and the partition has as many as can be remembered.
    #[error("its partition has {} streams already; take a new topic prefix", crate::received::STREAMS_MAX)]
    TooManyStreams,
    /// It is no frame.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
}

impl Refusal {
    /// A short label, for metrics and the header of the letter.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Refusal::Empty => "empty",
            Refusal::WrongTable(_) => "wrong_table",
            Refusal::StreamClosed { .. } => "stream_closed",
            Refusal::TooManyStreams => "too_many_streams",
            Refusal::Undecodable(error) => error.reason(),
        }
    }
}

/// A message on its way to the dead-letter topic.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    /// The message as it came.
    pub(crate) message: OwnedMessage,
    /// Why it is one.
    pub(crate) refusal: Refusal,
}

/// Writes dead letters.
#[derive(Clone)]
pub(crate) struct DeadLetters {
    producer: FutureProducer<Logged>,
    topic: String,
}

impl DeadLetters {
    /// A producer for the config's dead-letter topic; it connects when it is first used.
    ///
    /// # Errors
    /// Stop when the settings are not allowed.
    pub(crate) fn new(config: &Config) -> Result<DeadLetters, Failure> {
        let settings = client::settings(&config.kafka, Role::Letters).map_err(Failure::Stop)?;
        let producer = settings.create_with_context(Logged).map_err(|e| Failure::Stop(format!("kafka: {e}")))?;
        Ok(DeadLetters { producer, topic: config.dead_letter_topic() })
    }

    /// Writes a letter and waits until the broker has acknowledged it.
    ///
    /// # Errors
    /// Why it is not written; try again.
    pub(crate) async fn send(&self, letter: &Letter) -> Result<(), String> {
        let payload = letter.message.payload();
        let mut result = self.send_part(letter, payload, None).await;
        for cut in CUTS {
            let (Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)), Some(whole)) =
                (&result, payload)
            else {
                break;
            };
            result = self.send_part(letter, Some(&whole[..whole.len().min(cut)]), Some(whole.len())).await;
        }
        result.map_err(|e| format!("topic {}: {e}", self.topic))
    }

    /// Writes a frame of ingest's own and waits until the broker has acknowledged it.
    ///
    /// # Errors
    /// Why it is not known to be written; try the same again.
    pub(crate) async fn send_frame(&self, frame: &OwnFrame) -> Result<(), String> {
        let record = FutureRecord::to(&frame.topic).partition(frame.partition).key(&frame.node);
        let record = record.payload(&frame.payload).headers(frame.headers.clone());
        let sent = self.producer.send(record, QUEUE_WAIT).await;
        sent.map(drop).map_err(|(error, _)| format!("topic {}/{}: {error}", frame.topic, frame.partition))
    }

    async fn send_part(
        &self,
        letter: &Letter,
        payload: Option<&[u8]>,
        cut_from: Option<usize>,
    ) -> Result<(), KafkaError> {
        let key = key(&letter.message);
        let mut record = FutureRecord::to(&self.topic).key(&key).headers(headers(letter, cut_from));
        record.payload = payload;
        self.producer.send(record, QUEUE_WAIT).await.map(drop).map_err(|(error, _)| error)
    }
}

/// A header as a message lends it.
pub(crate) type HeaderOf<'v> = Header<'v, &'v [u8]>;

/// The headers that a message had of its own, and those that say where it was and why it is a letter. All are its own
/// where none of ours are behind them.
pub(crate) fn parted<'h, 'v>(headers: &'h [HeaderOf<'v>]) -> (&'h [HeaderOf<'v>], &'h [HeaderOf<'v>]) {
    let is_first =
        |at: &usize| headers[*at..].iter().zip(FIRST).filter(|(header, key)| header.key == *key).count() == FIRST.len();
    let begin = (0..headers.len()).rev().find(is_first).unwrap_or(headers.len());
    headers.split_at(begin)
}

fn key(message: &OwnedMessage) -> String {
    format!("{}/{}/{}", message.topic(), message.partition(), message.offset())
}

/// The message's own headers, and those that say where it comes from and why it is here.
fn headers(letter: &Letter, cut_from: Option<usize>) -> OwnedHeaders {
    let message = &letter.message;
    let mut headers = OwnedHeaders::new();
    for header in message.headers().into_iter().flat_map(|own| own.iter()) {
        headers = headers.insert(header);
    }
    let add = |headers: OwnedHeaders, key: &str, value: &str| headers.insert(Header { key, value: Some(value) });
    headers = add(headers, "reason", letter.refusal.reason());
    headers = add(headers, "error", &letter.refusal.to_string());
    headers = add(headers, "topic", message.topic());
    headers = add(headers, "partition", &message.partition().to_string());
    headers = add(headers, "offset", &message.offset().to_string());
    if let Some(key) = message.key() {
        headers = headers.insert(Header { key: "key", value: Some(key) });
    }
    if let Some(bytes) = cut_from {
        headers = add(headers, TRUNCATED, &bytes.to_string());
    }
    headers
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;

    use super::*;

    #[test]
    fn a_letter_says_where_it_comes_from_and_why_and_keeps_its_own_headers() {
        let own = OwnedHeaders::new().insert(Header { key: "node", value: Some("n1") });
        let message = OwnedMessage::new(
            Some(b"junk".to_vec()),
            Some(b"n1".to_vec()),
            "racklake.event".to_owned(),
            Timestamp::NotAvailable,
            3,
            17,
            Some(own),
        );
        assert_eq!(key(&message), "racklake.event/3/17");
        let headers = headers(&Letter { message, refusal: DecodeError::Truncated.into() }, Some(9));
        let told: Vec<_> =
            headers.iter().map(|h| (h.key, std::str::from_utf8(h.value.unwrap()).unwrap().to_owned())).collect();
        let has = |key, value: &str| told.contains(&(key, value.to_owned()));
        assert!(has("node", "n1") && has("key", "n1"), "{told:?}");
        assert!(has("reason", "truncated") && has("topic", "racklake.event"), "{told:?}");
        assert!(has("partition", "3") && has("offset", "17") && has("truncated_from_bytes", "9"), "{told:?}");
    }

    #[test]
    fn headers_of_a_letter_that_was_set_aside_before_are_its_own() {
        let own = ["reason", "error", "topic", "partition", "offset", "reason"];
        let own = own.into_iter().fold(OwnedHeaders::new(), |all, key| all.insert(Header { key, value: Some("old") }));
        let (topic, time) = ("t".to_owned(), Timestamp::NotAvailable);
        let message = OwnedMessage::new(None, None, topic, time, 0, 1, Some(own));
        let headers = headers(&Letter { message, refusal: Refusal::Empty }, None);
        let all: Vec<_> = headers.iter().collect();
        let (own, ours) = parted(&all);
        assert_eq!((own.len(), ours.len()), (6, 5));
        assert_eq!(ours[0].value, Some(&b"empty"[..]));
        assert_eq!(parted(own).0.len(), 0, "so it can be taken back twice");
        assert_eq!(parted(&all[..3]), (&all[..3], &all[..0]));
    }
}
