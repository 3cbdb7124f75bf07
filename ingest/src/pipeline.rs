//! The one loop of ingest: consumed, decoded, buffered, flushed, acknowledged.
//!
//! All branching is here and in the files below it; whatever blocks or waits runs as a task whose end is an event. What
//! the loop holds in memory can be thrown away at any moment: nothing is trusted but the positions in the lake. When in
//! doubt it gives its consumer up and begins again from there.

mod assignment;
mod flushing;
mod intake;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use racklake_schemas::clock::StepWatch;
use racklake_storage::{Lake, LakeTable};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::buffer::Buffer;
use crate::config::{Config, Topics};
use crate::consumer::{Command, Consumer, Place, Polled};
use crate::dead_letter::{DeadLetters, Letter};
use crate::failure::Failure;
use crate::flush;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::own_events::{Notable, OwnEvents};
use crate::positions::{self, Position};
use crate::topic_id::TopicIds;
use crate::topics::Cluster;
use crate::upkeep::Owned;

/// How often Kafka is asked whether the topics are still the same.
const IDS_PERIOD: Duration = Duration::from_secs(3);
/// A consumer that has lived so long was not given up for the same reason as the one before it.
const SETTLED: Duration = Duration::from_secs(60);

/// What can happen.
enum Event {
    Shutdown,
    Tick,
    Polled(Polled),
    ConsumerEnded,
    Finished(Finished),
}

/// A task that has come to its end.
enum Finished {
    /// A flush was tried.
    Flush(Box<flush::Done>),
    /// Positions of an assignment were looked up.
    Positions { consumer: u64, places: Vec<Place>, attempt: u32, result: Result<Vec<Position>, Failure> },
    /// Kafka was asked for the topics' ids.
    Ids(Result<TopicIds, Failure>),
    /// A dead letter was tried.
    Letter { place: Place, epoch: u64, letter: Letter, attempt: u32, result: Result<(), String> },
}

/// What the loop needs of others.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) lake: Lake,
    pub(crate) tables: Vec<LakeTable>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) letters: DeadLetters,
    pub(crate) events: OwnEvents,
    pub(crate) owned: Owned,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
}

/// The loop and all that it holds.
pub(crate) struct Pipeline {
    config: Config,
    topics: Topics,
    lake: Lake,
    cluster: Arc<Cluster>,
    letters: DeadLetters,
    events: OwnEvents,
    /// The tables whose first partition is read here.
    owned: Owned,
    notable: Notable,
    metrics: Metrics,
    health: Health,
    /// One per topic, in their order.
    tables: Vec<TableState>,
    consumer: Option<Consumer>,
    /// How many consumers there have been; answers that are meant for an earlier one are passed over.
    consumers: u64,
    /// When the consumer was made, or when the next one is due.
    consumer_at: Instant,
    /// How many consumers in a row did not live long.
    renewals: u32,
    clock: StepWatch,
    /// Last assignment of a partition.
    epoch: u64,
    /// Partitions that the group wants back, and since when.
    revoking: Option<(Vec<Place>, Instant)>,
    tasks: JoinSet<anyhow::Result<Finished>>,
    /// When the topics' ids are to be asked next; `None` while they are being asked.
    ids_due: Option<Instant>,
    no_room: bool,
    /// Since when there is too much in memory.
    full_since: Option<Instant>,
}

/// One table on its way into the lake.
struct TableState {
    /// Id of the topic that the partitions in `buffer` were assigned under.
    topic_id: Option<String>,
    /// Whether partitions are assigned whose topic was missing.
    awaited: bool,
    buffer: Buffer,
    /// The lake's table; `None` while a flush has it.
    lake: Option<LakeTable>,
    /// Bytes of the flush that is under way.
    flushing_bytes: usize,
    /// Partitions of the flush that is under way.
    flushing: Vec<i32>,
}

impl Pipeline {
    /// A loop that has not begun.
    pub(crate) fn new(parts: Parts) -> Pipeline {
        let topics = parts.config.topics();
        let state = |(lake, topic): (LakeTable, &crate::config::Topic)| TableState {
            topic_id: None,
            awaited: false,
            buffer: Buffer::new(topic.table, topic.name.clone()),
            lake: Some(lake),
            flushing_bytes: 0,
            flushing: Vec::new(),
        };
        Pipeline {
            tables: parts.tables.into_iter().zip(topics.iter()).map(state).collect(),
            topics,
            config: parts.config,
            lake: parts.lake,
            cluster: parts.cluster,
            letters: parts.letters,
            events: parts.events,
            owned: parts.owned,
            notable: Notable::default(),
            metrics: parts.metrics,
            health: parts.health,
            consumer: None,
            consumers: 0,
            consumer_at: Instant::now(),
            renewals: 0,
            clock: StepWatch::new(),
            epoch: 0,
            revoking: None,
            tasks: JoinSet::new(),
            ids_due: Some(Instant::now()),
            no_room: false,
            full_since: None,
        }
    }

    /// Runs until `shutdown`, then writes what is in memory.
    ///
    /// # Errors
    /// When nothing here can help; the text is for the operator.
    pub(crate) async fn run(mut self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let period = (self.config.flush.age_max / 4).clamp(Duration::from_millis(20), Duration::from_millis(250));
        let mut ticker = tokio::time::interval(period);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let tick = ticker.tick();
            match self.next_event(shutdown, tick).await? {
                Event::Shutdown => return self.shut_down().await,
                Event::Tick => self.on_tick()?,
                Event::Polled(polled) => self.on_polled(polled),
                Event::ConsumerEnded => self.renew("the consumer's thread has ended"),
                Event::Finished(finished) => self.on_finished(finished)?,
            }
            self.flush_what_is_due()?;
            self.pause_what_must_wait();
            self.give_back();
        }
    }

    async fn next_event(
        &mut self,
        shutdown: &CancellationToken,
        tick: impl Future<Output = Instant>,
    ) -> anyhow::Result<Event> {
        let waits = self.full_since.is_some_and(|since| since.elapsed() < flushing::HOLD_BACK);
        let consumer = self.consumer.as_mut().filter(|_| !waits);
        let polled = async {
            match consumer {
                Some(consumer) => consumer.events.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(Event::Shutdown),
            Some(finished) = self.tasks.join_next() => {
                Ok(Event::Finished(finished.context("a task of ingest")??))
            }
            _ = tick => Ok(Event::Tick),
            polled = polled => Ok(polled.map_or(Event::ConsumerEnded, Event::Polled)),
        }
    }

    fn on_tick(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        // librdkafka waits until a time of the wall clock: set back by an hour, it would send no heartbeat for an hour.
        if self.clock.step().is_some_and(|step| step < 0) {
            self.renew("the wall clock was set back");
        }
        if self.consumer.is_none() && now >= self.consumer_at {
            self.consumer = Some(Consumer::start(&self.config.kafka, &self.topics)?);
            self.consumers += 1;
            self.consumer_at = now;
        }
        if self.ids_due.is_some_and(|due| now >= due) {
            self.ids_due = None;
            self.ask_ids();
        }
        self.notable.due(now).into_iter().for_each(|event| self.events.tell(event));
        self.metrics.buffered_bytes.set(self.bytes() as i64);
        Ok(())
    }

    fn on_polled(&mut self, polled: Polled) {
        match polled {
            Polled::Frame { place, epoch, message } => self.take_in(place, epoch, message),
            Polled::Assigned(places) => self.look_up(places, 1),
            Polled::Revoked(places) => self.revoke(places),
            Polled::Ends(ends) => self.measure_lag(&ends),
            // Not at once: librdkafka says so again and again while the topic is gone.
            Polled::TopicMissing => self.ids_due = self.ids_due.map(|due| due.min(Instant::now() + IDS_PERIOD / 3)),
            Polled::Doubtful(reason) => self.renew(&reason),
        }
    }

    fn on_finished(&mut self, finished: Finished) -> anyhow::Result<()> {
        match finished {
            Finished::Flush(done) => self.on_flushed(*done)?,
            Finished::Positions { consumer, places, attempt, result } => {
                if consumer == self.consumers && self.consumer.is_some() {
                    self.on_positions(places, attempt, result)?;
                }
            }
            Finished::Ids(result) => self.on_ids(result),
            Finished::Letter { place, epoch, letter, attempt, result } => {
                self.on_letter(place, epoch, letter, attempt, result);
            }
        }
        Ok(())
    }

    /// Gives the consumer up, and with it all that was read and is not being written. The next one reads it again.
    fn renew(&mut self, reason: &str) {
        if self.consumer.take().is_none() {
            return;
        }
        if self.consumer_at.elapsed() > SETTLED {
            self.renewals = 0;
        }
        self.renewals += 1;
        let wait = crate::failure::back_off(self.renewals);
        tracing::warn!(reason, ?wait, "giving this consumer up for a new one, which reads from the lake's positions");
        self.metrics.renewals.inc();
        self.consumer_at = Instant::now() + wait;
        self.revoking = None;
        for table in &mut self.tables {
            table.buffer.clear();
            table.topic_id = None;
            table.awaited = false;
        }
        self.metrics.lag.clear();
        self.health.clear_all("partition ");
        self.health.clear_all("dead letter ");
    }

    /// Asks, in the background, whether the topics are still the same and whether Kafka answers at all.
    fn ask_ids(&mut self) {
        let (cluster, topics, ask_ids) =
            (Arc::clone(&self.cluster), Arc::clone(&self.topics), self.config.kafka.topic_ids);
        let ask = move || {
            let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
            if !ask_ids {
                cluster.survey()?;
            }
            positions::ids_of(&cluster, &names, ask_ids)
        };
        self.tasks.spawn(async { Ok(Finished::Ids(tokio::task::spawn_blocking(ask).await?)) });
    }

    fn on_ids(&mut self, result: Result<TopicIds, Failure>) {
        self.ids_due = Some(Instant::now() + IDS_PERIOD);
        let ids = match result {
            Ok(ids) => ids,
            Err(failure) => {
                tracing::warn!(%failure, "kafka does not answer");
                return self.health.set("kafka", failure.to_string());
            }
        };
        self.health.clear("kafka");
        let mut changed = None;
        for (topic, table) in self.topics.iter().zip(&self.tables) {
            let what = format!("topic {}", topic.name);
            let Some(id) = ids.get(&topic.name) else {
                self.health.set(&what, "it is missing; it is read again when it is back");
                continue;
            };
            self.health.clear(&what);
            if table.topic_id.as_ref().is_some_and(|known| known != id) {
                changed = Some(format!("topic {} has been created again", topic.name));
            } else if table.awaited {
                changed = Some(format!("topic {} is there now", topic.name));
            }
        }
        if let Some(reason) = changed {
            self.renew(&reason);
        }
    }

    /// Bytes of rows in memory, flushes under way included.
    fn bytes(&self) -> usize {
        self.tables.iter().map(|table| table.buffer.bytes() + table.flushing_bytes).sum()
    }

    fn command(&self, command: Command) {
        if let Some(consumer) = &self.consumer {
            consumer.command(command);
        }
    }
}
