//! Sends dead letters again to the partition that they came from: the bytes and headers that the messages had, marked as
//! replayed.
//!
//! Nothing is removed: a letter stays in its topic until retention takes it. One that is a frame by now is stored once,
//! however often it is sent, since ingest recognises it; any other becomes a dead letter again. What was cut because it was
//! too large, or does not say where it was, is not sent.

use std::collections::VecDeque;
use std::time::Duration;

use racklake_schemas::wire;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::runtime::Handle;

use super::letters::{Letter, Origin};
use crate::client::{self, Logged, Role};
use crate::config::Config;
use crate::dead_letter::{self, HeaderOf};
use crate::failure::Failure;

/// Messages that wait for their acknowledgement.
const UNDER_WAY: usize = 512;
/// How long to wait for room in librdkafka's queue.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// What became of the chosen letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// Letters that were chosen.
    pub(super) chosen: u64,
    /// Those that Kafka has acknowledged.
    pub(super) sent: u64,
    /// Those that were not sent: where they were, and why.
    pub(super) not_sent: Vec<(String, String)>,
}

/// Sends letters again, and waits until they are acknowledged.
pub(super) struct Replay {
    producer: FutureProducer<Logged>,
    runtime: Handle,
    under_way: VecDeque<(String, DeliveryFuture)>,
    replayed: Replayed,
}

/// A message as it was before it was set aside.
#[derive(Debug)]
pub(super) struct Original<'m> {
    origin: Origin,
    key: Option<&'m [u8]>,
    headers: OwnedHeaders,
    payload: Option<&'m [u8]>,
}

impl Replay {
    /// A producer for the brokers of the config. Call it on a blocking thread of a runtime.
    ///
    /// # Errors
    /// Stop when the settings are not allowed.
    pub(super) fn new(config: &Config) -> Result<Replay, Failure> {
        let settings = client::settings(&config.kafka, Role::Letters).map_err(Failure::Stop)?;
        let producer = settings.create_with_context(Logged).map_err(|e| Failure::Stop(format!("kafka: {e}")))?;
        let (under_way, replayed) = (VecDeque::new(), Replayed::default());
        Ok(Replay { producer, runtime: Handle::current(), under_way, replayed })
    }

    /// Sends one letter, if it can be.
    pub(super) fn send(&mut self, letter: &Letter, message: &BorrowedMessage<'_>) {
        self.replayed.chosen += 1;
        match original(letter, message) {
            Ok(original) => self.hand_over(letter, original),
            Err(why) => self.replayed.not_sent.push((letter.place.clone(), why.to_owned())),
        }
    }

    fn hand_over(&mut self, letter: &Letter, original: Original<'_>) {
        while self.under_way.len() >= UNDER_WAY {
            self.wait_for_first();
        }
        loop {
            let record = FutureRecord {
                topic: &original.origin.topic,
                partition: Some(original.origin.partition),
                payload: original.payload,
                key: original.key,
                timestamp: None,
                headers: Some(original.headers.clone()),
            };
            match self.producer.send_result(record) {
                Ok(delivery) => return self.under_way.push_back((letter.place.clone(), delivery)),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.wait_for_first();
                    std::thread::sleep(QUEUE_PAUSE);
                }
                Err((error, _)) => return self.replayed.not_sent.push((letter.place.clone(), error.to_string())),
            }
        }
    }

    fn wait_for_first(&mut self) {
        let Some((place, delivery)) = self.under_way.pop_front() else { return };
        match self.runtime.block_on(delivery) {
            Ok(Ok(_)) => self.replayed.sent += 1,
            Ok(Err((error, _))) => self.replayed.not_sent.push((place, error.to_string())),
            Err(_) => self.replayed.not_sent.push((place, "the producer ended".to_owned())),
        }
    }

    /// Waits until all are acknowledged, or have failed.
    pub(super) fn finish(mut self) -> Replayed {
        while !self.under_way.is_empty() {
            self.wait_for_first();
        }
        self.replayed
    }
}

/// What would become of a letter, without sending it.
pub(super) fn try_out(replayed: &mut Replayed, letter: &Letter, message: &BorrowedMessage<'_>) {
    replayed.chosen += 1;
    if let Err(why) = original(letter, message) {
        replayed.not_sent.push((letter.place.clone(), why.to_owned()));
    }
}

/// The message as it was, and the mark of a replay.
fn original<'m>(letter: &Letter, message: &'m BorrowedMessage<'_>) -> Result<Original<'m>, &'static str> {
    let origin = letter.origin.clone().ok_or("it does not say where it was")?;
    letter.table.ok_or("it is of no table's topic")?;
    let all: Vec<HeaderOf<'m>> = message.headers().map(|all| all.iter().collect()).unwrap_or_default();
    let (own, added) = dead_letter::parted(&all);
    let added = |key: &str| added.iter().find(|header| header.key == key).map(|header| header.value);
    if added(dead_letter::TRUNCATED).is_some() {
        return Err("only its beginning was kept, since it was too large");
    }
    let mark = Header { key: wire::header::REPLAY, value: Some("1") };
    let kept = own.iter().filter(|header| header.key != wire::header::REPLAY);
    let headers = kept.fold(OwnedHeaders::new(), |all, header| all.insert(header.clone())).insert(mark);
    Ok(Original { origin, key: added("key").flatten(), headers, payload: message.payload() })
}
