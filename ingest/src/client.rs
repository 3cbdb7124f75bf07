//! librdkafka's settings for each role that ingest has towards Kafka, and its log lines.
//!
//! The one place that knows which settings exactly-once rests on; those cannot be changed from the config file.

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::KafkaConfig;

/// Largest message that a topic takes, bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest dead letter, bytes: a message at the limit and the headers that say why it is one.
pub(crate) const LETTER_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Reads frames as a member of the group.
    Consume,
    /// Asks for metadata, watermarks and topic ids, and creates topics.
    Look,
    /// Writes dead letters, and the events that ingest tells itself.
    Letters,
}

/// Settings that exactly-once rests on, or that have a key of their own in the config.
const OURS: [&str; 8] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.idempotence",
    "acks",
];

/// The settings of a client.
///
/// # Errors
/// When a property is one that cannot be changed, its file cannot be read, or librdkafka does not know it.
pub(crate) fn settings(config: &KafkaConfig, role: Role) -> Result<ClientConfig, String> {
    let mut client = ClientConfig::new();
    client.set("client.id", "racklake-ingest").set("reconnect.backoff.max.ms", "2000");
    match role {
        Role::Consume => {
            client
                .set("partition.assignment.strategy", "cooperative-sticky")
                // A killed member holds its partitions until its session ends.
                .set("session.timeout.ms", "6000")
                .set("heartbeat.interval.ms", "2000")
                .set("topic.metadata.refresh.interval.ms", "5000")
                .set("statistics.interval.ms", "5000")
                .set("queued.max.messages.kbytes", "65536")
                .set("fetch.message.max.bytes", MESSAGE_BYTES_MAX.to_string())
                .set("check.crcs", "true");
        }
        Role::Look => {}
        Role::Letters => {
            client.set("compression.type", "zstd").set("linger.ms", "0").set("message.timeout.ms", "10000");
        }
    }
    for (key, value) in &config.properties {
        if OURS.contains(&key.as_str()) {
            return Err(format!("kafka.properties.{key} cannot be set: ingest sets it itself"));
        }
        client.set(key, value.value(&format!("kafka.properties.{key}"))?);
    }
    client.set("bootstrap.servers", &config.bootstrap_servers);
    match role {
        Role::Consume => {
            client
                .set("group.id", &config.group)
                .set("enable.auto.commit", "false")
                .set("enable.auto.offset.store", "false")
                // Anything else would pass over records of a re-created topic in silence.
                .set("auto.offset.reset", "error")
                .set("allow.auto.create.topics", "false");
        }
        Role::Look => {}
        Role::Letters => {
            client
                .set("acks", "all")
                .set("enable.idempotence", "true")
                .set("message.max.bytes", LETTER_BYTES_MAX.to_string());
        }
    }
    client.create_native_config().map_err(|e| format!("kafka.properties: {e}"))?;
    Ok(client)
}

/// A client's log lines and global errors, as events of `tracing`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // One set of properties serves consumers and producers; each warns of the other's.
            _ if facility == "CONFWARN" => tracing::debug!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", facility, "{message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl rdkafka::consumer::ConsumerContext for Logged {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_property_that_exactly_once_rests_on_cannot_be_changed() {
        let mut config = Config::new("k:9092", "/lake").kafka;
        config.properties.insert("auto.offset.reset".to_owned(), "earliest".into());
        assert!(settings(&config, Role::Consume).unwrap_err().contains("auto.offset.reset"));
    }

    #[test]
    fn a_property_that_librdkafka_does_not_know_is_named() {
        let mut config = Config::new("k:9092", "/lake").kafka;
        config.properties.insert("session.timeout".to_owned(), "1".into());
        assert!(settings(&config, Role::Consume).unwrap_err().contains("session.timeout"));
        config.properties.clear();
        config.properties.insert("session.timeout.ms".to_owned(), "30000".into());
        assert_eq!(settings(&config, Role::Consume).unwrap().get("session.timeout.ms"), Some("30000"));
    }
}
