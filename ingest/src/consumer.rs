//! Polls librdkafka on a thread of its own and turns what it says into events of the loop.
//!
//! A rebalance is not answered here: it becomes an event, and the loop answers with a command once it knows the
//! positions. A frame carries the epoch of the assignment that it was fetched under, so that none from before a seek
//! is taken for one from after it. A consumer is never mended: whatever is doubtful is an event, and the loop makes a
//! new one. Nothing is promised about positions of the group; they are written for lag tools and never read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as commands};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, Statistics, TopicPartitionList};
use tokio::sync::mpsc;

use crate::client::{self, Logged, Role};
use crate::config::{KafkaConfig, Topics};
use crate::failure::Failure;

/// Frames that wait between the thread and the loop.
const QUEUE: usize = 32;
/// How long the thread waits for a frame before it looks for a command.
const POLL: Duration = Duration::from_millis(20);
/// The group is told all offsets again this often: what it was told may be lost, and an idle partition has nothing new.
const TELL_AGAIN: Duration = Duration::from_secs(15);
/// How long a seek may take.
const SEEK: Duration = Duration::from_secs(10);

/// A partition of one of the process's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Index of the topic in [`Topics`].
    pub(crate) topic: usize,
    /// Kafka's number of the partition.
    pub(crate) partition: i32,
}

/// What the thread has to say.
#[derive(Debug)]
pub(crate) enum Polled {
    /// A message.
    Frame {
        /// Where it comes from.
        place: Place,
        /// The assignment that it was fetched under.
        epoch: u64,
        /// The message.
        message: OwnedMessage,
    },
    /// The group gives partitions; answer with [`Command::Assign`].
    Assigned(Vec<Place>),
    /// The group takes partitions away; answer with [`Command::Unassign`].
    Revoked(Vec<Place>),
    /// Ends of partitions, for the lag.
    Ends(Vec<(Place, i64)>),
    /// A topic is not there; it may come back under another id.
    TopicMissing,
    /// This consumer cannot be trusted to go on where it should: make a new one.
    Doubtful(String),
}

/// Where a partition is to be read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// The partition.
    pub(crate) place: Place,
    /// First offset to read.
    pub(crate) offset: Offset,
    /// The assignment that its frames will carry.
    pub(crate) epoch: u64,
}

/// What the loop wants of the thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Read these partitions, each from its own offset.
    Assign(Vec<Start>),
    /// Read these partitions no more.
    Unassign(Vec<Place>),
    /// Read an assigned partition again from another offset.
    Rewind(Start),
    /// Fetch nothing of these partitions.
    Pause(Vec<Place>),
    /// Fetch these partitions again.
    Resume(Vec<Place>),
    /// Tell the group these next offsets, for lag tools.
    Acknowledge(Vec<(Place, i64)>),
    /// Leave the group and end.
    Stop,
}

/// One consumer: its thread, its events, its commands. Dropping it makes the thread leave the group and end.
pub(crate) struct Consumer {
    /// What it says.
    pub(crate) events: mpsc::Receiver<Polled>,
    commands: commands::Sender<Command>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Consumer {
    /// Joins the group and starts the thread.
    ///
    /// # Errors
    /// Stop when the settings are not allowed.
    pub(crate) fn start(config: &KafkaConfig, topics: &Topics) -> Result<Consumer, Failure> {
        let (sender, events) = mpsc::channel(QUEUE);
        let (commands, receiver) = commands::channel();
        let closing = Arc::new(AtomicBool::new(false));
        let indexes = topics.iter().enumerate().map(|(index, topic)| (topic.name.clone(), index)).collect();
        let context = Context {
            topics: indexes,
            events: sender.clone(),
            closing: Arc::clone(&closing),
            waiting: Mutex::default(),
        };
        let stop = |e: KafkaError| Failure::Stop(format!("kafka: {e}"));
        let settings = client::settings(config, Role::Consume).map_err(Failure::Stop)?;
        let consumer: BaseConsumer<Context> = settings.create_with_context(context).map_err(stop)?;
        let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
        consumer.subscribe(&names).map_err(stop)?;
        let worker = Worker {
            consumer,
            topics: Arc::clone(topics),
            events: sender,
            epochs: HashMap::new(),
            durable: HashMap::new(),
            told_at: std::time::Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("kafka-consumer".to_owned())
            .spawn(move || worker.run(&receiver))
            .map_err(|e| Failure::Stop(format!("no thread for the consumer: {e}")))?;
        Ok(Consumer { events, commands, closing, thread: Some(thread) })
    }

    /// Hands a command to the thread. One that has ended needs none.
    pub(crate) fn command(&self, command: Command) {
        let _ended = self.commands.send(command);
    }

    /// Takes no more frames; commands are still carried out. For the last flush.
    pub(crate) fn close_events(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.events.close();
        while self.events.try_recv().is_ok() {}
    }

    /// Leaves the group. Blocks until the thread has ended, `patience` at most.
    pub(crate) fn stop(mut self, patience: Duration) {
        self.close_events();
        self.command(Command::Stop);
        let Some(thread) = self.thread.take() else { return };
        let begin = std::time::Instant::now();
        while !thread.is_finished() && begin.elapsed() < patience {
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.close_events();
        self.command(Command::Stop);
    }
}

/// The thread.
struct Worker {
    consumer: BaseConsumer<Context>,
    topics: Topics,
    events: mpsc::Sender<Polled>,
    epochs: HashMap<Place, u64>,
    /// The next offset of each assigned partition that is known to be durable.
    durable: HashMap<Place, i64>,
    told_at: std::time::Instant,
}

impl Worker {
    fn run(mut self, commands: &commands::Receiver<Command>) {
        loop {
            if self.told_at.elapsed() > TELL_AGAIN {
                self.told_at = std::time::Instant::now();
                self.tell(&self.durable.iter().map(|(place, next)| (*place, *next)).collect::<Vec<_>>());
            }
            let closing = self.consumer.context().closing.load(Ordering::Acquire);
            // While closing nothing is polled, so that only commands can come.
            let wait = if closing { POLL } else { Duration::ZERO };
            match commands.recv_timeout(wait) {
                Ok(Command::Stop) | Err(commands::RecvTimeoutError::Disconnected) => break,
                Ok(command) => {
                    if let Err(error) = self.carry_out(command) {
                        self.say(Polled::Doubtful(error));
                    }
                }
                Err(commands::RecvTimeoutError::Timeout) if closing => {}
                Err(commands::RecvTimeoutError::Timeout) => self.poll(),
            }
        }
        self.answer_what_waits();
        // Dropping the consumer leaves the group.
    }

    fn poll(&self) {
        let event = match self.consumer.poll(POLL) {
            None => return,
            Some(Ok(message)) => {
                let Some(topic) = self.consumer.context().topics.get(message.topic()) else { return };
                let place = Place { topic: *topic, partition: message.partition() };
                let Some(epoch) = self.epochs.get(&place) else { return };
                Polled::Frame { place, epoch: *epoch, message: message.detach() }
            }
            Some(Err(error)) => match judge(&error) {
                Some(event) => event,
                None => return,
            },
        };
        self.say(event);
    }

    /// The loop may be gone; then there is nobody to tell.
    fn say(&self, event: Polled) {
        let _gone = self.events.blocking_send(event);
    }

    fn carry_out(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Assign(starts) => self.assign(&starts).map_err(|e| format!("assigning partitions: {e}")),
            Command::Unassign(places) => {
                self.epochs.retain(|place, _| !places.contains(place));
                self.durable.retain(|place, _| !places.contains(place));
                self.unassign(&places).map_err(|e| format!("giving partitions up: {e}"))
            }
            Command::Rewind(start) => {
                self.epochs.remove(&start.place);
                self.durable.remove(&start.place);
                let name = &self.topics[start.place.topic].name;
                self.consumer
                    .seek(name, start.place.partition, start.offset, SEEK)
                    .map_err(|e| format!("seeking {name}/{} to {:?}: {e}", start.place.partition, start.offset))?;
                self.epochs.insert(start.place, start.epoch);
                Ok(())
            }
            Command::Pause(places) => {
                self.consumer.pause(&self.list(&places)).map_err(|e| format!("pausing partitions: {e}"))
            }
            Command::Resume(places) => {
                self.consumer.resume(&self.list(&places)).map_err(|e| format!("resuming partitions: {e}"))
            }
            Command::Acknowledge(positions) => {
                self.acknowledge(&positions);
                Ok(())
            }
            Command::Stop => Ok(()),
        }
    }

    fn acknowledge(&mut self, positions: &[(Place, i64)]) {
        self.durable.extend(positions.iter().filter(|(place, _)| self.epochs.contains_key(place)).copied());
        self.tell(positions);
        for (place, next) in positions {
            tracing::debug!(topic = self.topics[place.topic].name, partition = place.partition, next, "acknowledged");
        }
    }

    /// librdkafka sends the offsets in its own time; where it cannot, the lag looks larger than it is.
    fn tell(&self, positions: &[(Place, i64)]) {
        if positions.is_empty() {
            return;
        }
        let offsets = positions.iter().map(|(place, next)| (*place, Offset::Offset(*next)));
        if let Err(error) = self.consumer.commit(&self.list_with(offsets), CommitMode::Async) {
            tracing::debug!(%error, "the group's offsets were not written; only lag tools read them");
        }
    }

    fn assign(&mut self, starts: &[Start]) -> KafkaResult<()> {
        let list = self.list_with(starts.iter().map(|start| (start.place, start.offset)));
        self.epochs.extend(starts.iter().map(|start| (start.place, start.epoch)));
        // Where a partition begins is durable too: the process before this one may not have come to tell it.
        self.durable.extend(starts.iter().filter_map(|start| match start.offset {
            Offset::Offset(next) => Some((start.place, next)),
            _ => None,
        }));
        self.consumer.context().answered();
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&list)?,
            RebalanceProtocol::Eager | RebalanceProtocol::None => self.consumer.assign(&list)?,
        }
        // A pause outlives the assignment that it was made in.
        self.consumer.resume(&list)
    }

    fn unassign(&self, places: &[Place]) -> KafkaResult<()> {
        self.consumer.context().answered();
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_unassign(&self.list(places)),
            RebalanceProtocol::Eager | RebalanceProtocol::None => self.consumer.unassign(),
        }
    }

    /// Closing would wait for ever for the answer to a rebalance that the loop no longer gives.
    fn answer_what_waits(&self) {
        let waiting = self.consumer.context().waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let answer = match waiting {
            None => Ok(()),
            Some(Waiting::Assign(list)) => match self.consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&list),
                RebalanceProtocol::Eager | RebalanceProtocol::None => self.consumer.unassign(),
            },
            Some(Waiting::Revoke(list)) => match self.consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => self.consumer.incremental_unassign(&list),
                RebalanceProtocol::Eager | RebalanceProtocol::None => self.consumer.unassign(),
            },
        };
        if let Err(error) = answer {
            tracing::debug!(%error, "a rebalance was not answered before the consumer closed");
        }
    }

    fn list(&self, places: &[Place]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(places.len());
        for place in places {
            list.add_partition(&self.topics[place.topic].name, place.partition);
        }
        list
    }

    fn list_with(&self, offsets: impl Iterator<Item = (Place, Offset)>) -> TopicPartitionList {
        offsets.map(|(place, offset)| (self.topics[place.topic].name.clone(), place.partition, offset)).collect()
    }
}

/// What an error of the consumer means; `None` where librdkafka mends it itself.
fn judge(error: &KafkaError) -> Option<Polled> {
    use RDKafkaErrorCode::{
        AutoOffsetReset, OffsetOutOfRange, UnknownPartition, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition,
    };
    match error {
        KafkaError::MessageConsumptionFatal(_) => Some(Polled::Doubtful(error.to_string())),
        KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange) => Some(Polled::Doubtful(error.to_string())),
        KafkaError::MessageConsumption(UnknownTopic | UnknownPartition | UnknownTopicId | UnknownTopicOrPartition) => {
            tracing::debug!(%error, "a topic is not there");
            Some(Polled::TopicMissing)
        }
        _ => {
            tracing::info!(%error, "kafka consumer");
            None
        }
    }
}

/// A rebalance that the loop has not answered yet.
enum Waiting {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// The callbacks of librdkafka, all made from within `poll` on the thread.
struct Context {
    topics: HashMap<String, usize>,
    events: mpsc::Sender<Polled>,
    closing: Arc<AtomicBool>,
    waiting: Mutex<Option<Waiting>>,
}

impl Context {
    fn places(&self, list: &TopicPartitionList) -> Vec<Place> {
        let place = |topic: &str, partition| self.topics.get(topic).map(|topic| Place { topic: *topic, partition });
        list.elements().iter().filter_map(|element| place(element.topic(), element.partition())).collect()
    }

    fn answered(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn wait_for_answer(&self, waiting: Waiting) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiting);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Context>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            // A closing consumer takes any answer for "give all up".
            if let Err(error) = consumer.unassign() {
                tracing::debug!(%error, "giving partitions up while closing");
            }
            return;
        }
        let places = self.places(list);
        tracing::info!(
            partitions = places.len(),
            lost = consumer.assignment_lost(),
            "{}",
            if assign { "assigned" } else { "revoked" }
        );
        let event = if assign {
            self.wait_for_answer(Waiting::Assign(list.clone()));
            Polled::Assigned(places)
        } else {
            self.wait_for_answer(Waiting::Revoke(list.clone()));
            Polled::Revoked(places)
        };
        let _gone = self.events.blocking_send(event);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Logged.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Logged.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let mut ends = Vec::new();
        for (name, topic) in &statistics.topics {
            let Some(index) = self.topics.get(name) else { continue };
            let known =
                topic.partitions.values().filter(|partition| partition.partition >= 0 && partition.hi_offset >= 0);
            ends.extend(known.map(|p| (Place { topic: *index, partition: p.partition }, p.hi_offset)));
        }
        // The lag may be late; it must not make the thread wait.
        let _full = self.events.try_send(Polled::Ends(ends));
    }
}
