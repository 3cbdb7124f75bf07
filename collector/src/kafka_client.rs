//! The one place that names librdkafka: makes the producer, hands it frames, asks it which topics there are.
//!
//! The producer is idempotent and never lets a frame expire; what it was given is either acknowledged, refused for good,
//! or handed back. Topics are never created from here: ingest makes them with the right settings.
//!
//! No thread waits in librdkafka for reports: the crate's own wakes ten times a second and spins through the last
//! millisecond of each wait, which costs more than reading eight GPUs. They are looked for soon after a frame was handed
//! over, and ever less often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use racklake_schemas::catalog::CATALOG_VERSION;
use racklake_schemas::wire::{self, header};
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::config::{KafkaConfig, MESSAGE_BYTES_MAX, Property};
use crate::frames::Frame;
use crate::health::Health;

/// Most frames in the producer at a time; also the room for their reports.
pub(crate) const IN_FLIGHT_MAX: usize = 4096;
/// Pauses between two looks for reports: the first after a frame was handed over, the longest while one is in flight,
/// and the one while there is none, when only errors are to be noticed.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// What became of a frame that was handed to the producer.
#[derive(Debug)]
pub(crate) struct Report {
    /// Which frame.
    pub(crate) order: u64,
    /// Acknowledged, or why not.
    pub(crate) result: Result<(), RDKafkaErrorCode>,
}

/// A producer and the reports of its deliveries.
pub(crate) struct Producer {
    client: Arc<BaseProducer<Delivery>>,
    reports: mpsc::Receiver<Report>,
    in_flight: usize,
    pause: Duration,
    next_look: Instant,
}

/// Receives librdkafka's callbacks, on the thread that looks for reports.
struct Delivery {
    reports: mpsc::Sender<Report>,
    health: Arc<Health>,
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Authentication | RDKafkaErrorCode::Resolve) => {
                self.health.kafka_is_down(reason);
            }
            _ => tracing::debug!(%error, reason, "Kafka client"),
        }
    }
}

impl ProducerContext<NoCustomPartitioner> for Delivery {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, order: usize) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        // There is room for every frame in flight; only a producer that was given up has no receiver.
        let _ = self.reports.try_send(Report { order: order as u64, result });
    }
}

fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(facility, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Warning => tracing::info!(facility, "librdkafka: {message}"),
        _ => tracing::debug!(facility, "librdkafka: {message}"),
    }
}

/// All properties of the client, with those of the config and secrets read from their files.
///
/// # Errors
/// When a file of a secret cannot be read; the secret is in no error.
fn properties(config: &KafkaConfig) -> Result<ClientConfig> {
    let mut client = ClientConfig::new();
    client
        .set("client.id", "racklake-collector")
        .set("compression.type", "zstd")
        .set("compression.level", "1")
        .set("linger.ms", "20")
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
        .set("reconnect.backoff.max.ms", "2000")
        .set("socket.keepalive.enable", "true")
        .set("allow.auto.create.topics", "false");
    for (key, value) in &config.properties {
        let value = match value {
            Property::Text(text) => text.clone(),
            Property::File(secret) => {
                let place = || format!("kafka.properties.\"{key}\": cannot read {}", secret.file.display());
                std::fs::read_to_string(&secret.file).with_context(place)?.trim_end().to_owned()
            }
        };
        client.set(key, value);
    }
    client
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "0"); // never: the queue decides what is dropped
    Ok(client)
}

impl Producer {
    /// A producer. It connects by itself, now or when there is a broker.
    ///
    /// # Errors
    /// When a property is not known or not allowed, or a secret cannot be read.
    pub(crate) fn new(config: &KafkaConfig, health: Arc<Health>) -> Result<Producer> {
        let properties = properties(config)?;
        let (sender, reports) = mpsc::channel(IN_FLIGHT_MAX);
        let client: BaseProducer<Delivery> = properties
            .create_with_context(Delivery { reports: sender, health })
            .map_err(|error| anyhow::anyhow!(without_value(error)))?;
        let (pause, next_look) = (FIRST_PAUSE, Instant::now());
        Ok(Producer { client: Arc::new(client), reports, in_flight: 0, pause, next_look })
    }

    /// Hands a frame over. A report with this `order` follows unless this is an error.
    pub(crate) fn send(
        &mut self,
        topic: &str,
        frame: &Frame,
        payload: &[u8],
        replay: bool,
        order: u64,
    ) -> Result<(), RDKafkaErrorCode> {
        let record = BaseRecord::with_opaque_to(topic, order as usize)
            .partition(frame.partition)
            .key(frame.node.as_bytes())
            .payload(payload)
            .headers(headers(frame, replay));
        let sent = self.client.send(record);
        sent.map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))?;
        self.in_flight += 1;
        self.pause = FIRST_PAUSE;
        self.next_look = self.next_look.min(Instant::now() + FIRST_PAUSE);
        Ok(())
    }

    /// The next report. Nothing is lost where it is dropped before it comes back.
    pub(crate) async fn report(&mut self) -> Report {
        loop {
            if let Some(report) = self.reported() {
                return report;
            }
            sleep_until(self.next_look).await;
            self.look();
        }
    }

    /// A report that is there already.
    pub(crate) fn reported(&mut self) -> Option<Report> {
        let report = self.reports.try_recv().ok()?;
        self.in_flight = self.in_flight.saturating_sub(1);
        Some(report)
    }

    /// Runs librdkafka's callbacks for all that has happened.
    pub(crate) fn look(&mut self) {
        let before = self.reports.len();
        let mut seen = before;
        loop {
            self.client.poll(Duration::ZERO); // one event: the reports of one answer, or an error
            if self.reports.len() == seen {
                break;
            }
            seen = self.reports.len();
        }
        let longest = if self.in_flight == 0 { IDLE_PAUSE } else { LONGEST_PAUSE };
        self.pause = if seen > before { FIRST_PAUSE } else { (self.pause * 2).min(longest) };
        self.next_look = Instant::now() + self.pause;
    }

    /// Why this producer can send no more, where it cannot.
    pub(crate) fn fatal_error(&self) -> Option<String> {
        self.client.client().fatal_error().map(|(code, reason)| format!("{code:?}: {reason}"))
    }

    /// Partitions of each topic that exists. Blocks for up to `patience`.
    pub(crate) fn topics(
        &self,
        patience: Duration,
    ) -> impl FnOnce() -> Result<BTreeMap<String, usize>, String> + use<> {
        let client = Arc::clone(&self.client);
        move || {
            let metadata = client.client().fetch_metadata(None, patience).map_err(|error| error.to_string())?;
            Ok(partitions_by_topic(&metadata))
        }
    }

    /// Ends the producer off the async threads, since that blocks; frames that it still held count as not sent.
    pub(crate) fn end(self) {
        let client = self.client;
        tokio::task::spawn_blocking(move || drop(client));
    }
}

/// Checks the properties without connecting to anybody.
///
/// # Errors
/// When one is not known or not allowed, or a secret cannot be read.
pub(crate) fn check_properties(config: &KafkaConfig) -> Result<()> {
    properties(config)?.create_native_config().map(|_| ()).map_err(|error| anyhow::anyhow!(without_value(error)))
}

fn partitions_by_topic(metadata: &rdkafka::metadata::Metadata) -> BTreeMap<String, usize> {
    let whole = metadata.topics().iter().filter(|topic| topic.error().is_none());
    whole.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect()
}

/// The error without the value of the property that is wrong, which may be a secret.
fn without_value(error: KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, key, _) => format!("kafka.properties.\"{key}\": {description}"),
        other => format!("kafka: {other}"),
    }
}

fn headers(frame: &Frame, replay: bool) -> OwnedHeaders {
    let (format, catalog, seq) = (wire::FORMAT.to_string(), CATALOG_VERSION.to_string(), frame.seq.to_string());
    let headers = [
        (header::TABLE, frame.table.name),
        (header::FORMAT, &format),
        (header::CATALOG_VERSION, &catalog),
        (header::NODE, &frame.node),
        (header::STREAM_ID, &frame.stream_id),
        (header::SEQ, &seq),
    ];
    let replay = replay.then_some((header::REPLAY, "1"));
    headers.into_iter().chain(replay).fold(OwnedHeaders::new_with_capacity(headers.len() + 1), |all, (key, value)| {
        all.insert(Header { key, value: Some(value) })
    })
}
