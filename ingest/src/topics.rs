//! What the Kafka cluster looks like: brokers, topics, watermarks, topic ids; and the topics that are missing, created.
//!
//! All calls block; call them from `tokio::task::spawn_blocking`. It never changes a topic that exists: differences from
//! what a topic should be are told, not mended.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;

use crate::client::{self, LETTER_BYTES_MAX, Logged, MESSAGE_BYTES_MAX, Role};
use crate::config::{Config, KafkaConfig};
use crate::failure::Failure;
use crate::topic_id::{self, TopicIds};

/// How long Kafka has to answer a question.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A client that asks the cluster.
pub(crate) struct Cluster {
    config: KafkaConfig,
    /// Behind a lock: librdkafka would take the calls side by side, but one question at a time is plenty.
    client: Mutex<BaseConsumer<Logged>>,
}

/// What the metadata says.
#[derive(Debug)]
pub(crate) struct Survey {
    /// `id host:port` of each broker.
    pub(crate) brokers: Vec<String>,
    /// Name and number of partitions of each topic.
    pub(crate) topics: Vec<(String, usize)>,
}

impl Cluster {
    /// A client with the config's settings; it connects when it is first asked.
    ///
    /// # Errors
    /// When the settings are not allowed.
    pub(crate) fn new(config: &KafkaConfig) -> Result<Cluster, Failure> {
        let settings = client::settings(config, Role::Look).map_err(Failure::Stop)?;
        let client = settings.create_with_context(Logged).map_err(|e| Failure::Stop(format!("kafka: {e}")))?;
        Ok(Cluster { config: config.clone(), client: Mutex::new(client) })
    }

    /// Brokers and topics.
    ///
    /// # Errors
    /// When no broker answers in time.
    pub(crate) fn survey(&self) -> Result<Survey, Failure> {
        let metadata = self.ask("metadata", |client| client.fetch_metadata(None, DEADLINE))?;
        let broker = |b: &rdkafka::metadata::MetadataBroker| format!("{} {}:{}", b.id(), b.host(), b.port());
        let present = metadata.topics().iter().filter(|topic| topic.error().is_none());
        Ok(Survey {
            brokers: metadata.brokers().iter().map(broker).collect(),
            topics: present.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect(),
        })
    }

    /// First offset that is kept, and the offset that the next record will get.
    ///
    /// # Errors
    /// When the partition's leader does not answer in time.
    pub(crate) fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64), Failure> {
        self.ask(&format!("watermarks of {topic}/{partition}"), |client| {
            client.fetch_watermarks(topic, partition, DEADLINE)
        })
    }

    /// Ids of the topics that exist.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub(crate) fn topic_ids(&self, topics: &[&str]) -> Result<TopicIds, Failure> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = topic_id::describe(client.client().native_ptr(), topics, DEADLINE);
        serve(&client);
        ids.map_err(Failure::Retry)
    }

    fn ask<T>(
        &self,
        what: &str,
        question: impl FnOnce(&BaseConsumer<Logged>) -> rdkafka::error::KafkaResult<T>,
    ) -> Result<T, Failure> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = question(&client);
        serve(&client);
        answer.map_err(|e| Failure::Retry(format!("kafka at {}: {what}: {e}", self.config.bootstrap_servers)))
    }

    /// Creates the topics that are missing, and gives their names.
    ///
    /// # Errors
    /// Retry where Kafka does not answer; stop, with the commands to run, where it refuses.
    pub(crate) fn create_missing(&self, config: &Config) -> Result<Vec<String>, Failure> {
        let survey = self.survey()?;
        let missing: Vec<_> =
            wanted_topics(config, survey.brokers.len()).into_iter().filter(|t| !survey.has(&t.name)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let admin = self.admin()?;
        let options = AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE));
        let new: Vec<NewTopic<'_>> = missing.iter().map(Wanted::to_new).collect();
        let results = block_on(admin.create_topics(&new, &options))
            .map_err(|e| Failure::Retry(format!("kafka at {}: creating topics: {e}", self.config.bootstrap_servers)))?;
        let refused = |result: &Result<String, (String, RDKafkaErrorCode)>| match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => None,
            Err((name, code)) => Some((name.clone(), *code)),
        };
        let refused: Vec<_> = results.iter().filter_map(refused).collect();
        let Some((name, code)) = refused.first() else {
            return Ok(missing.into_iter().map(|topic| topic.name).collect());
        };
        let text = format!("topic {name} cannot be created: {code}");
        if matches!(
            code,
            RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::NotController
        ) {
            return Err(Failure::Retry(text));
        }
        let to_run = missing.iter().filter(|topic| refused.iter().any(|(name, _)| *name == topic.name));
        let commands: Vec<_> = to_run.map(|topic| topic.command(&self.config.bootstrap_servers)).collect();
        Err(Failure::Stop(format!("{text}. Let somebody who may create topics run:\n{}", commands.join("\n"))))
    }

    /// In what the topics that exist differ from what they should be, one line each.
    ///
    /// # Errors
    /// When Kafka does not answer in time.
    pub(crate) fn differences(&self, config: &Config, survey: &Survey) -> Result<Vec<String>, Failure> {
        let present: Vec<_> =
            wanted_topics(config, survey.brokers.len()).into_iter().filter(|topic| survey.has(&topic.name)).collect();
        if present.is_empty() {
            return Ok(Vec::new());
        }
        let admin = self.admin()?;
        let options = AdminOptions::new().request_timeout(Some(DEADLINE));
        let asked: Vec<_> = present.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
        let described = block_on(admin.describe_configs(&asked, &options))
            .map_err(|e| Failure::Retry(format!("kafka at {}: topic settings: {e}", self.config.bootstrap_servers)))?;
        let mut lines = Vec::new();
        for topic in &present {
            let partitions = survey.topics.iter().find(|(name, _)| *name == topic.name).map_or(0, |(_, count)| *count);
            if partitions != topic.partitions as usize {
                lines.push(format!("{}: {partitions} partitions, config says {}", topic.name, topic.partitions));
            }
            // The answers come in an order of their own.
            let name = OwnedResourceSpecifier::Topic(topic.name.clone());
            let Some(resource) = described.iter().flatten().find(|resource| resource.specifier == name) else {
                lines.push(format!("{}: its settings may not be read", topic.name));
                continue;
            };
            for (key, should) in &topic.settings {
                let is = resource.get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
                if is != *should {
                    lines.push(format!("{}: {key} = {is}, should be {should}", topic.name));
                }
            }
        }
        Ok(lines)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Failure> {
        let settings = client::settings(&self.config, Role::Look).map_err(Failure::Stop)?;
        settings.create().map_err(|e| Failure::Stop(format!("kafka: {e}")))
    }
}

/// Takes the log lines and errors that wait in the client's queue, so that it does not grow.
fn serve(client: &BaseConsumer<Logged>) {
    for _ in 0..64 {
        if client.poll(Duration::ZERO).is_none() {
            break;
        }
    }
}

impl Survey {
    fn has(&self, name: &str) -> bool {
        self.topics.iter().any(|(present, _)| present == name)
    }

    /// The topics that are wanted and do not exist.
    pub(crate) fn missing(&self, config: &Config) -> Vec<String> {
        let all = wanted_topics(config, self.brokers.len()).into_iter().map(|topic| topic.name);
        all.filter(|name| !self.has(name)).collect()
    }
}

/// A topic as it should be.
#[derive(Debug)]
struct Wanted {
    name: String,
    partitions: i32,
    replication: i32,
    settings: Vec<(&'static str, String)>,
}

fn wanted_topics(config: &Config, brokers: usize) -> Vec<Wanted> {
    let replication = config.kafka.replication.unwrap_or(if brokers >= 3 { 3 } else { 1 });
    let wanted = |name: String, bytes_max: usize| {
        let mut settings = vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", (7 * 24 * 3600 * 1000_i64).to_string()),
            // With the producer's time, a clock that jumps ahead would have its records refused.
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("max.message.bytes", bytes_max.to_string()),
            ("compression.type", "producer".to_owned()),
        ];
        if replication >= 3 {
            settings.push(("min.insync.replicas", "2".to_owned()));
        }
        Wanted { name, partitions: config.kafka.partitions, replication, settings }
    };
    let tables = config.topics();
    let tables = tables.iter().map(|topic| wanted(topic.name.clone(), MESSAGE_BYTES_MAX));
    tables.chain([wanted(config.dead_letter_topic(), LETTER_BYTES_MAX)]).collect()
}

impl Wanted {
    fn to_new(&self) -> NewTopic<'_> {
        let new = NewTopic::new(&self.name, self.partitions, TopicReplication::Fixed(self.replication));
        self.settings.iter().fold(new, |new, (key, value)| new.set(key, value))
    }

    fn command(&self, bootstrap_servers: &str) -> String {
        let settings: String = self.settings.iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
        format!(
            "kafka-topics.sh --bootstrap-server {bootstrap_servers} --create --topic {} --partitions {} --replication-factor {}{settings}",
            self.name, self.partitions, self.replication
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_brokers_mean_three_replicas_of_which_two_must_answer() {
        let config = Config::new("k:9092", "/lake");
        let one = &wanted_topics(&config, 2)[0];
        assert_eq!(one.replication, 1);
        assert!(one.settings.iter().all(|(key, _)| *key != "min.insync.replicas"));
        let three = wanted_topics(&config, 3);
        assert!(three.iter().all(|topic| topic.replication == 3));
        assert!(three[0].settings.contains(&("min.insync.replicas", "2".to_owned())));
        assert_eq!(three.last().unwrap().name, "racklake.dead-letter");
    }

    #[test]
    fn the_command_to_create_a_topic_by_hand_is_whole() {
        let command = wanted_topics(&Config::new("k:9092", "/lake"), 1)[0].command("k:9092");
        assert!(
            command.starts_with("kafka-topics.sh --bootstrap-server k:9092 --create --topic racklake."),
            "{command}"
        );
        assert!(command.contains("--partitions 16 --replication-factor 1 --config cleanup.policy=delete"), "{command}");
        assert!(command.contains("message.timestamp.type=LogAppendTime"), "{command}");
    }
}
