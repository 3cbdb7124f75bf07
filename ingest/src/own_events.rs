//! What ingest itself has to tell, as rows of `event`: it is a source of its own, with a stream of its own.
//!
//! The frames go to `<prefix>.event` like those of a collector, and come back from there like all others. The stream
//! begins with the process. One frame is on its way at a time, and the same one is tried until Kafka has acknowledged it;
//! only then the next seq is used, so that the stream has no hole, wherever it ends. Telling never waits: what finds the
//! queue full is counted, and the next event says how many there were.
//!
//! Not promised: that an event survives a kill, or a stop while Kafka is away; or that it is told once, since what is read
//! again is told again.

mod notable;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use racklake_schemas::catalog::CATALOG_VERSION;
use racklake_schemas::clock::Clock;
use racklake_schemas::tables::{EVENT, event as c};
use racklake_schemas::wire::{self, FrameHeader, header};
use racklake_schemas::{Row, Rows, identity};
use rdkafka::message::{Header, OwnedHeaders};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::config::{Config, EventsConfig};
use crate::dead_letter::DeadLetters;
use crate::failure::back_off;
pub(crate) use notable::{Notable, Suspects};

/// Events that wait to be sent.
const QUEUE: usize = 1024;
/// Events of one frame.
const FRAME_EVENTS: usize = 256;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OwnEvent {
    /// Its name; `docs/events.md` has them all.
    pub(crate) event: &'static str,
    /// info, warning, error or critical.
    pub(crate) severity: &'static str,
    /// One sentence for a human.
    pub(crate) message: String,
    /// What else is known, an object.
    pub(crate) details: Value,
}

/// Where events are told; clones tell the same outbox.
#[derive(Debug, Clone)]
pub(crate) struct OwnEvents {
    queue: mpsc::Sender<(i64, OwnEvent)>,
    untold: Arc<AtomicU64>,
}

/// Sends what is told; ends when nobody can tell any more and all is sent.
pub(crate) struct Outbox {
    queue: mpsc::Receiver<(i64, OwnEvent)>,
    untold: Arc<AtomicU64>,
    post: DeadLetters,
    source: Source,
}

/// The stream, and where it is.
struct Source {
    labels: EventsConfig,
    topic: String,
    partition: i32,
    stream_id: String,
    events: u64,
}

/// A frame of events, as it goes to Kafka.
pub(crate) struct OwnFrame {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) node: String,
    pub(crate) headers: OwnedHeaders,
    pub(crate) payload: Vec<u8>,
}

impl OwnEvents {
    /// A new stream of events; nothing is sent unless the outbox runs.
    pub(crate) fn new(config: &Config, post: DeadLetters) -> (OwnEvents, Outbox) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let untold = Arc::new(AtomicU64::new(0));
        let source = Source::new(config);
        (OwnEvents { queue: sender, untold: Arc::clone(&untold) }, Outbox { queue, untold, post, source })
    }

    /// Tells an event. It does not wait.
    pub(crate) fn tell(&self, event: OwnEvent) {
        tracing::warn!(event = event.event, details = %event.details, "{}", event.message);
        if self.queue.try_send((Clock::now_us(), event)).is_err() {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Outbox {
    /// Sends until the end.
    pub(crate) async fn run(mut self) {
        let mut seq = 1;
        let mut events = Vec::new();
        while self.queue.recv_many(&mut events, FRAME_EVENTS).await > 0 {
            let untold = self.untold.swap(0, Ordering::Relaxed);
            let Some(frame) = self.source.frame(seq, untold, events.drain(..)) else { continue };
            let mut attempt = 0;
            while let Err(error) = self.post.send_frame(&frame).await {
                attempt += 1;
                tracing::warn!(seq, attempt, error, "an event of ingest itself is not written; it is tried again");
                tokio::time::sleep(back_off(attempt)).await;
            }
            seq += 1;
        }
    }
}

impl Source {
    fn new(config: &Config) -> Source {
        Source {
            labels: config.events.clone(),
            topic: format!("{}.{}", config.kafka.topic_prefix, EVENT.name),
            partition: identity::partition_of(&config.events.node, config.kafka.partitions),
            stream_id: identity::stream_id(Uuid::new_v4().into_bytes()),
            events: 0,
        }
    }

    fn frame(&mut self, seq: i64, untold: u64, events: impl Iterator<Item = (i64, OwnEvent)>) -> Option<OwnFrame> {
        let mut rows = Rows::new(&EVENT);
        for (index, (ts, mut event)) in events.enumerate() {
            if let (0, 1.., Some(details)) = (index, untold, event.details.as_object_mut()) {
                details.insert("events_untold_before".to_owned(), json!(untold));
            }
            rows.push(self.row(ts, event));
        }
        let node = self.labels.node.clone();
        let header = FrameHeader { table: &EVENT, stream_id: self.stream_id.clone(), seq, node };
        match rows.into_wire_batch() {
            Ok(batch) => Some(self.addressed(&header, wire::encode(&header, &batch))),
            Err(error) => {
                tracing::error!(%error, "events of ingest itself are no rows; report it");
                None
            }
        }
    }

    fn row(&mut self, ts: i64, event: OwnEvent) -> Row {
        self.events += 1;
        let mut row = Row::new(&EVENT);
        row.set(c::TS, ts);
        row.set(c::SITE, self.labels.site.as_str());
        row.set(c::EVENT_ID, format!("{}-{}", self.stream_id, self.events));
        row.set(c::EVENT, event.event);
        row.set(c::SOURCE, "ingest");
        row.set(c::SEVERITY, event.severity);
        row.set(c::MESSAGE, event.message);
        row.set(c::DETAILS_JSON, event.details.to_string());
        row
    }

    fn addressed(&self, frame: &FrameHeader, payload: Vec<u8>) -> OwnFrame {
        let (format, catalog, seq) = (wire::FORMAT.to_string(), CATALOG_VERSION.to_string(), frame.seq.to_string());
        let headers = [
            (header::TABLE, frame.table.name),
            (header::FORMAT, &format),
            (header::CATALOG_VERSION, &catalog),
            (header::NODE, &frame.node),
            (header::STREAM_ID, &frame.stream_id),
            (header::SEQ, &seq),
        ];
        let add = |all: OwnedHeaders, (key, value)| all.insert(Header { key, value: Some(value) });
        OwnFrame {
            topic: self.topic.clone(),
            partition: self.partition,
            node: frame.node.clone(),
            headers: headers.into_iter().fold(OwnedHeaders::new(), add),
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::AsArray as _;
    use racklake_schemas::Rows;
    use rdkafka::mocking::MockCluster;

    use super::*;

    fn event(message: &str) -> OwnEvent {
        OwnEvent { event: "columns_unknown", severity: "info", message: message.to_owned(), details: json!({}) }
    }

    fn config(servers: &str) -> Config {
        let mut config = Config::new(servers, "none");
        config.kafka.partitions = 1;
        config.events = EventsConfig { site: "a".to_owned(), node: "i1".to_owned() };
        config
    }

    #[test]
    fn a_frame_of_events_is_one_that_ingest_reads_and_says_what_could_not_be_told() {
        let mut source = Source::new(&config("k:9092"));
        let frame = source.frame(7, 3, [(10, event("one")), (20, event("two"))].into_iter()).unwrap();
        assert_eq!((frame.topic.as_str(), frame.partition, frame.node.as_str()), ("racklake.event", 0, "i1"));
        let mut rows = Rows::new(&EVENT);
        let read = wire::decode(&frame.payload, 30, |_| &mut rows).unwrap();
        assert_eq!((read.header.seq, read.header.node.as_str(), rows.len()), (7, "i1", 2));
        let batch = rows.into_batch().unwrap();
        let texts = |name: &str| -> Vec<String> {
            batch.column_by_name(name).unwrap().as_string::<i32>().iter().map(|t| t.unwrap().to_owned()).collect()
        };
        assert_eq!(texts("message"), ["one", "two"]);
        assert_eq!(texts("details_json"), ["{\"events_untold_before\":3}", "{}"]);
        assert_eq!(texts("event_id"), [1, 2].map(|n| format!("{}-{n}", source.stream_id)));
        assert_eq!((texts("source"), texts("site")), (vec!["ingest".to_owned(); 2], vec!["a".to_owned(); 2]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_that_was_told_is_in_kafka_when_the_outbox_has_ended() {
        let broker = MockCluster::new(1).unwrap();
        broker.create_topic("racklake.event", 1, 1).unwrap();
        let config = config(&broker.bootstrap_servers());
        let (events, outbox) = OwnEvents::new(&config, DeadLetters::new(&config).unwrap());
        (0..3).for_each(|_| events.tell(event("it is so")));
        drop(events);
        tokio::time::timeout(Duration::from_secs(30), outbox.run()).await.unwrap();
        let cluster = crate::topics::Cluster::new(&config.kafka).unwrap();
        let marks = tokio::task::spawn_blocking(move || cluster.watermarks("racklake.event", 0)).await.unwrap();
        assert_eq!(marks, Ok((0, 1)), "events that wait go in one frame");
    }

    #[test]
    fn every_event_is_in_the_list() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let list = std::fs::read_to_string(root.join("../docs/events.md")).unwrap();
        for name in ["clock_suspect", "kafka_retention_overtook", "columns_unknown", "seal_row_repeated"] {
            assert!(list.contains(&format!("| `{name}` |")), "add {name} to docs/events.md");
        }
    }
}
