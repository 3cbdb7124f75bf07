//! Hands frames to Kafka and waits for each to be acknowledged.
//!
//! All branching is in the one loop. A bounded number of bytes is in the producer at a time; a frame that was not
//! delivered goes back to its place in the queue and is tried again, for ever, unless Kafka says that it will never take
//! it. Payloads that are only on disk are read here, one at a time, as there is room for them. A topic that is missing holds up its own frames only. A delivery that was reported as failed may have happened:
//! such a frame is sent twice with the same seq, by which ingest knows it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use racklake_schemas::Table;
use racklake_schemas::clock::StepWatch;
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::KafkaConfig;
use crate::event::own;
use crate::health::Health;
use crate::kafka_client::{IN_FLIGHT_MAX, Producer, Report};
use crate::metrics::{Metrics, one};
use crate::outlet::Outlet;
use crate::queue::Queued;
use crate::route::Route;
use crate::spool::StoreError;

/// Bytes in the producer at a time.
const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long the last frames may take at the end; what is left then stays in the spool.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long Kafka may take to say which topics there are.
const TOPICS_PATIENCE: Duration = Duration::from_secs(5);
/// How often the loop looks at itself where nothing happens.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses after a failed delivery, per table: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// The last step of a frame in the collector.
pub(crate) struct Publisher {
    config: KafkaConfig,
    /// The topics that `tables` is about.
    route: Arc<Route>,
    outlet: Arc<Outlet>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    producer: Producer,
    in_flight: HashMap<u64, InFlight>,
    in_flight_bytes: usize,
    in_flight_bytes_max: usize,
    tables: BTreeMap<&'static str, TableState>,
    asking: Option<JoinHandle<Result<BTreeMap<String, usize>, String>>>,
    ask_again: Instant,
    clock: StepWatch,
}

struct InFlight {
    queued: Queued,
    since: Instant,
}

/// Whether frames of a table may be handed over.
#[derive(Debug, Default)]
struct TableState {
    /// The topic exists.
    known: bool,
    blocked_until: Option<Instant>,
    back_off: Duration,
}

impl Publisher {
    /// A publisher with a producer of its own.
    ///
    /// # Errors
    /// When the Kafka settings are not allowed.
    pub(crate) fn new(
        config: &KafkaConfig,
        outlet: Arc<Outlet>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        queue_bytes_max: usize,
    ) -> Result<Publisher> {
        let producer = Producer::new(config, Arc::clone(&health))?;
        Ok(Publisher {
            config: config.clone(),
            route: outlet.route(),
            outlet,
            health,
            metrics,
            producer,
            in_flight: HashMap::new(),
            in_flight_bytes: 0,
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX.min(queue_bytes_max / 2),
            tables: BTreeMap::new(),
            asking: None,
            ask_again: Instant::now(),
            clock: StepWatch::new(),
        })
    }

    /// Publishes until `drain`, then what is left, for ten seconds at most. Gives the number of frames left over.
    pub(crate) async fn run(mut self, drain: CancellationToken) -> usize {
        let mut end: Option<Instant> = None;
        loop {
            self.hand_over();
            if let Some(end) = end {
                if self.in_flight.is_empty() && self.outlet.waiting() == 0 {
                    self.outlet.tell_everything(); // a refusal has been counted since
                    if self.outlet.waiting() == 0 {
                        break;
                    }
                }
                if end <= Instant::now() {
                    break;
                }
            }
            let look = self.next_look().min(end.unwrap_or_else(|| Instant::now() + LOOK));
            tokio::select! {
                report = self.producer.report() => self.report(report),
                topics = answer(&mut self.asking) => self.topics(topics),
                () = drain.cancelled(), if end.is_none() => end = Some(Instant::now() + DRAIN_MAX),
                () = self.outlet.ready() => {}
                () = sleep_until(look) => self.look(),
            }
        }
        let left = self.in_flight.len() + self.outlet.waiting();
        self.producer.end();
        left
    }

    /// Hands frames to the producer while there is room; asks for topics where one is not known yet.
    fn hand_over(&mut self) {
        let now = Instant::now();
        self.follow_route();
        let waiting = self.outlet.waiting_tables();
        let unknown = waiting.iter().any(|table| self.tables.get(table.name).is_none_or(|state| !state.known));
        if unknown && self.asking.is_none() && self.ask_again <= now {
            self.asking = Some(tokio::task::spawn_blocking(self.producer.topics(TOPICS_PATIENCE)));
        }
        while self.in_flight.len() < IN_FLIGHT_MAX {
            let open = |table: &'static Table| self.tables.get(table.name).is_some_and(|state| state.is_open(now));
            let room = self.in_flight_bytes_max.saturating_sub(self.in_flight_bytes);
            let Some(queued) = self.outlet.take(open, room) else { return };
            let payload = match self.outlet.payload(&queued) {
                Ok(payload) => payload,
                Err(error) => {
                    self.not_read(queued, &error);
                    continue;
                }
            };
            let topic = queued.frame.route.topic(queued.frame.table.name);
            let replay = queued.is_replay(now);
            match self.producer.send(&topic, &queued.frame, &payload, replay, queued.order) {
                Ok(()) => {
                    tracing::debug!(topic, seq = queued.frame.seq, replay, "publishing");
                    self.in_flight_bytes += queued.frame.bytes;
                    self.in_flight.insert(queued.order, InFlight { queued, since: now });
                }
                Err(code) => self.not_delivered(queued, code),
            }
        }
    }

    /// What is known of topics is forgotten when frames go to others; nothing waits or is in flight then.
    fn follow_route(&mut self) {
        let route = self.outlet.route();
        if route != self.route {
            self.tables.keys().for_each(|table| self.health.topic_works(&self.route.topic(table)));
            self.tables.clear();
            self.route = route;
            self.ask_again = Instant::now();
        }
    }

    /// The spool did not give the payload of a frame: one that is damaged is lost, a disk that refuses is asked again.
    fn not_read(&mut self, queued: Queued, error: &StoreError) {
        let (table, seq) = (queued.frame.table.name, queued.frame.seq);
        tracing::error!(table, seq, %error, "a frame cannot be read from the spool");
        if matches!(error, StoreError::Damaged(_)) {
            return self.outlet.damaged(&queued);
        }
        let state = self.tables.entry(table).or_default();
        state.back_off = (state.back_off * 2).clamp(BACK_OFF.0, BACK_OFF.1);
        state.blocked_until = Some(Instant::now() + state.back_off);
        self.outlet.put_back(queued);
    }

    fn report(&mut self, report: Report) {
        let Some(InFlight { queued, .. }) = self.in_flight.remove(&report.order) else { return };
        self.in_flight_bytes -= queued.frame.bytes;
        match report.result {
            Ok(()) => {
                let table = queued.frame.table.name;
                let topic = queued.frame.route.topic(table);
                tracing::debug!(topic, seq = queued.frame.seq, "published");
                if let Some(state) = self.tables.get_mut(table) {
                    state.back_off = Duration::ZERO;
                    state.blocked_until = None;
                }
                self.health.kafka_is_up();
                self.health.topic_works(&topic);
                self.outlet.published(&queued);
            }
            Err(code) => self.not_delivered(queued, code),
        }
    }

    /// Decides what becomes of a frame that was not delivered.
    fn not_delivered(&mut self, queued: Queued, code: Code) {
        let reason = format!("{code:?}");
        if is_refusal(code) {
            return self.outlet.refused(&queued, &reason);
        }
        self.metrics.deliveries_failed.get_or_create(&one("reason", &reason)).inc();
        let (table, now) = (queued.frame.table.name, Instant::now());
        let state = self.tables.entry(table).or_default();
        // Frames of a table fail together; that is one failure.
        if state.is_open(now) {
            state.back_off = (state.back_off * 2).clamp(BACK_OFF.0, BACK_OFF.1);
            state.blocked_until = Some(now + state.back_off);
            tracing::warn!(table, reason, "a frame was not delivered and is tried again");
        }
        if matches!(code, Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) {
            state.known = false;
            self.ask_again = self.ask_again.max(now + BACK_OFF.0);
        }
        if !matches!(code, Code::QueueFull) {
            self.health.topic_waits(&queued.frame.route.topic(table), &reason);
        }
        self.outlet.put_back(queued);
        self.replace_dead_producer();
    }

    /// The answer to the question which topics there are.
    fn topics(&mut self, answer: Result<BTreeMap<String, usize>, String>) {
        self.asking = None;
        self.ask_again = Instant::now() + LOOK;
        let topics = match answer {
            Ok(topics) => topics,
            Err(reason) => {
                self.health.kafka_is_down(&reason);
                return tracing::info!(reason, "Kafka does not say which topics there are; asking again");
            }
        };
        self.health.kafka_is_up();
        let partition = self.route.partition(&self.outlet.place.node);
        for table in self.outlet.waiting_tables() {
            let topic = self.route.topic(table.name);
            let partitions = topics.get(&topic).copied().unwrap_or(0);
            let state = self.tables.entry(table.name).or_default();
            if partitions > partition as usize {
                state.known = true;
                self.health.topic_works(&topic);
            } else if partitions == 0 {
                self.health.topic_waits(&topic, "is missing; ingest creates it, or create it by hand");
            } else {
                self.health.topic_waits(&topic, "has fewer partitions than kafka.partitions; set the same number");
            }
            if partitions > 0 && partitions != self.route.partitions as usize {
                let configured = self.route.partitions;
                tracing::warn!(
                    topic,
                    partitions,
                    configured,
                    "the topic has another number of partitions than configured"
                );
            }
        }
    }

    /// Looks for what no report tells: a producer that is dead, a broker that does not answer.
    fn look(&mut self) {
        if let Some(oldest) = self.in_flight.values().map(|frame| frame.since).min()
            && oldest.elapsed() > Duration::from_secs(10)
        {
            self.health.kafka_is_down("no frame is acknowledged");
        }
        // librdkafka waits until a time of the wall clock: set back by an hour, it would wait for an hour more.
        if self.clock.step().is_some_and(|step| step < 0) {
            self.replace_producer("the wall clock was set back");
        }
        self.replace_dead_producer();
    }

    fn next_look(&self) -> Instant {
        let blocked = self.tables.values().filter_map(|state| state.blocked_until);
        let now = Instant::now();
        blocked.filter(|until| *until > now).chain([now + LOOK]).min().unwrap_or(now)
    }

    /// An idempotent producer that lost count of its sequence can send no more. Another takes over what it held.
    fn replace_dead_producer(&mut self) {
        if let Some(reason) = self.producer.fatal_error() {
            self.replace_producer(&reason);
        }
    }

    fn replace_producer(&mut self, reason: &str) {
        // What has been reported until now needs no second delivery.
        let mut known = Vec::new();
        self.producer.look();
        while let Some(report) = self.producer.reported() {
            if report.result.is_ok() {
                known.push(report);
            }
        }
        known.into_iter().for_each(|report| self.report(report));
        let producer = match Producer::new(&self.config, Arc::clone(&self.health)) {
            Ok(producer) => producer,
            Err(error) => return self.health.kafka_is_down(&format!("{error:#}")),
        };
        std::mem::replace(&mut self.producer, producer).end();
        let frames = self.in_flight.len();
        for (_, InFlight { queued, .. }) in self.in_flight.drain() {
            self.outlet.put_back(queued);
        }
        self.in_flight_bytes = 0;
        self.asking = None;
        let message = format!("a new Kafka producer takes over {frames} frames from one that cannot go on: {reason}");
        self.outlet.event(own("producer_replaced", "warning", message), None);
    }
}

impl TableState {
    fn is_open(&self, now: Instant) -> bool {
        self.known && self.blocked_until.is_none_or(|until| until <= now)
    }
}

/// Whether Kafka will never take this message, however often it is sent.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::InvalidTimestamp
            | Code::InvalidRecord
    )
}

async fn answer(
    asking: &mut Option<JoinHandle<Result<BTreeMap<String, usize>, String>>>,
) -> Result<BTreeMap<String, usize>, String> {
    match asking {
        Some(asking) => asking.await.unwrap_or_else(|error| Err(error.to_string())),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::event;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use rdkafka::{ClientConfig, Offset, TopicPartitionList};

    use super::*;
    use crate::config::FramesConfig;
    use crate::testing::{Account, gpu_row, outlet};

    const PARTITIONS: i32 = 4;

    /// A publisher on librdkafka's mock cluster.
    struct Published {
        cluster: MockCluster<'static, DefaultProducerContext>,
        outlet: Arc<Outlet>,
        drain: CancellationToken,
        task: JoinHandle<usize>,
    }

    impl Published {
        fn start(topics: &[&str]) -> Published {
            let cluster = MockCluster::new(1).unwrap();
            for topic in topics.iter().chain(&["t.coverage"]) {
                cluster.create_topic(topic, PARTITIONS, 1).unwrap();
            }
            let config = KafkaConfig {
                bootstrap_servers: cluster.bootstrap_servers(),
                topic_prefix: "t".to_owned(),
                partitions: PARTITIONS,
                properties: std::collections::BTreeMap::new(),
            };
            let limits = FramesConfig { rows_max: 1, ..FramesConfig::default() };
            let (outlet, drain) = (outlet(limits), CancellationToken::new());
            let (health, metrics) = (Arc::new(Health::default()), Arc::new(Metrics::new()));
            let publisher = Publisher::new(&config, Arc::clone(&outlet), health, metrics, 1 << 20).unwrap();
            let task = tokio::spawn(publisher.run(drain.clone()));
            Published { cluster, outlet, drain, task }
        }

        fn send(&self, rows: std::ops::RangeInclusive<i64>) {
            rows.for_each(|ts| self.outlet.rows(vec![gpu_row("a", ts)], 0, "a", false));
        }

        /// Messages of a topic, until `count` have come.
        fn read(&self, topic: &str, count: usize) -> Vec<OwnedMessage> {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", self.cluster.bootstrap_servers()).set("group.id", "test");
            let consumer: BaseConsumer = config.create().unwrap();
            let mut all = TopicPartitionList::new();
            for partition in 0..PARTITIONS {
                all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            }
            consumer.assign(&all).unwrap();
            let polled = std::iter::from_fn(|| consumer.poll(Duration::from_secs(20)));
            polled.take(count).map(|message| message.unwrap().detach()).collect()
        }

        async fn end(self) -> usize {
            self.drain.cancel();
            self.task.await.unwrap()
        }
    }

    fn header(message: &OwnedMessage, name: &str) -> String {
        let found = message.headers().unwrap().iter().find(|header| header.key == name).unwrap();
        String::from_utf8(found.value.unwrap().to_vec()).unwrap()
    }

    fn seqs(messages: &[OwnedMessage]) -> Vec<i64> {
        messages.iter().map(|message| header(message, "seq").parse().unwrap()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_frame_travels_with_key_partition_and_headers() {
        let published = Published::start(&["t.gpu_sample"]);
        published.send(1..=3);
        let messages = tokio::task::block_in_place(|| published.read("t.gpu_sample", 3));
        assert_eq!(seqs(&messages), [1, 2, 3]);
        assert_eq!(messages[0].key().unwrap(), b"n1");
        assert_eq!(messages[0].partition(), racklake_schemas::identity::partition_of("n1", PARTITIONS));
        assert_eq!((header(&messages[0], "table"), header(&messages[0], "node")), ("gpu_sample".into(), "n1".into()));
        assert_eq!(header(&messages[0], "stream_id"), published.outlet.place.stream_id);
        assert_eq!(published.end().await, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_missing_topic_is_waited_for_and_holds_up_only_its_own_frames() {
        let published = Published::start(&["t.event"]);
        published.send(1..=2);
        published.outlet.event(own("collector_start", "info", "started"), None);
        assert_eq!(tokio::task::block_in_place(|| published.read("t.event", 1)).len(), 1);
        assert_eq!(published.outlet.waiting(), 2);
        published.cluster.create_topic("t.gpu_sample", PARTITIONS, 1).unwrap();
        assert_eq!(seqs(&tokio::task::block_in_place(|| published.read("t.gpu_sample", 2))), [1, 2]);
        assert_eq!(published.end().await, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_delivery_that_fails_is_tried_again() {
        let published = Published::start(&["t.gpu_sample"]);
        let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 2];
        published.cluster.request_errors(RDKafkaApiKey::Produce, &errors);
        published.send(1..=3);
        let messages = tokio::task::block_in_place(|| published.read("t.gpu_sample", 3));
        assert_eq!(seqs(&messages).into_iter().collect::<std::collections::BTreeSet<_>>(), [1, 2, 3].into());
        assert_eq!(published.end().await, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_frame_that_kafka_never_takes_is_named_and_the_next_goes_on() {
        let published = Published::start(&["t.gpu_sample"]); // without a topic of events they wait here
        let error = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE];
        published.cluster.request_errors(RDKafkaApiKey::Produce, &error);
        published.send(1..=1);
        while published.outlet.waiting_tables().iter().all(|table| table.name != "event") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        published.send(2..=2);
        assert_eq!(seqs(&tokio::task::block_in_place(|| published.read("t.gpu_sample", 1))), [2]);
        assert_eq!(Account::of(&published.outlet).texts("event", event::EVENT), ["frame_refused"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_producer_that_lost_count_is_replaced_and_nothing_is_missing() {
        let published = Published::start(&["t.gpu_sample", "t.event"]);
        published.send(1..=2);
        tokio::task::block_in_place(|| published.read("t.gpu_sample", 2));
        let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER];
        published.cluster.request_errors(RDKafkaApiKey::Produce, &errors);
        published.send(3..=6);
        let messages = tokio::task::block_in_place(|| published.read("t.gpu_sample", 6));
        assert_eq!(seqs(&messages).into_iter().collect::<std::collections::BTreeSet<_>>(), (1..=6).collect());
        assert_eq!(tokio::task::block_in_place(|| published.read("t.event", 1)).len(), 1);
        assert_eq!(published.end().await, 0);
    }
}
