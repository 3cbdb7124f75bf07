//! The broker of the demo: librdkafka's mock cluster inside this process, or a real Kafka elsewhere.
//!
//! The mock keeps nothing on disk and forgets the oldest records beyond a few megabytes, which the demo's output says.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Partitions of each topic of the demo.
pub(crate) const PARTITIONS: i32 = 4;

/// Where frames go.
pub(crate) enum Broker {
    /// Lives as long as this value.
    Embedded(MockCluster<'static, DefaultProducerContext>),
    /// Somebody else's.
    Real(String),
}

impl Broker {
    /// The embedded one, with its topics made, unless an address is given.
    pub(crate) fn start(bootstrap_servers: Option<String>, topics: &[String]) -> Result<Broker> {
        if let Some(address) = bootstrap_servers {
            return Ok(Broker::Real(address));
        }
        let cluster = MockCluster::new(1).context("starting the embedded broker")?;
        for topic in topics {
            cluster.create_topic(topic, PARTITIONS, 1).with_context(|| format!("creating topic {topic}"))?;
        }
        Ok(Broker::Embedded(cluster))
    }

    pub(crate) fn bootstrap_servers(&self) -> String {
        match self {
            Broker::Embedded(cluster) => cluster.bootstrap_servers(),
            Broker::Real(address) => address.clone(),
        }
    }

    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self, Broker::Embedded(_))
    }

    /// Waits until the group's offsets, which move only after a commit, have reached the ends of the topics; a minute
    /// at most, since the lake is right in any case.
    pub(crate) async fn wait_until_drained(&self, group: &str, topics: &[String]) {
        let (bootstrap, group, topics) = (self.bootstrap_servers(), group.to_owned(), topics.to_vec());
        let waiting = tokio::task::spawn_blocking(move || {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", bootstrap).set("group.id", group);
            let Ok(consumer) = config.create::<BaseConsumer>() else { return };
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(60) && !topics.iter().all(|t| is_drained(&consumer, t)) {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let _ = waiting.await;
    }
}

fn is_drained(consumer: &BaseConsumer, topic: &str) -> bool {
    let patience = Duration::from_secs(5);
    let Ok(metadata) = consumer.fetch_metadata(Some(topic), patience) else { return false };
    let partitions = metadata.topics().first().map_or(0, |t| t.partitions().len()) as i32;
    (0..partitions).all(|partition| {
        let Ok((_, end)) = consumer.fetch_watermarks(topic, partition, patience) else { return false };
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(topic, partition);
        let stored = consumer.committed_offsets(wanted, patience).ok();
        let offset = stored.and_then(|list| list.find_partition(topic, partition).map(|p| p.offset()));
        end == 0 || matches!(offset, Some(Offset::Offset(offset)) if offset >= end)
    })
}
