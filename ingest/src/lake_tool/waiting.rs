//! Holds the lake's positions against what Kafka holds: messages that wait, and messages that are gone.

use racklake_storage::Lake;
use racklake_storage::verify;

use crate::config::Config;
use crate::failure::Failure;
use crate::positions::{app_id, ids_of};
use crate::topics::Cluster;

/// A partition, as Kafka and the lake see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its topic.
    pub(super) topic: String,
    /// Kafka's number of it.
    pub(super) partition: i32,
    /// Next offset that the lake does not have; `None` where it has none of it.
    pub(super) next: Option<i64>,
    /// First offset that Kafka keeps.
    pub(super) low: i64,
    /// The offset that the next message will get.
    pub(super) high: i64,
}

impl Waiting {
    /// Messages that are in Kafka and not in the lake.
    pub(super) fn waiting(&self) -> i64 {
        (self.high - self.next.unwrap_or(self.low).max(self.low)).max(0)
    }

    /// Messages that Kafka's retention has removed before they were in the lake.
    pub(super) fn overtaken(&self) -> i64 {
        (self.low - self.next.unwrap_or(self.low)).max(0)
    }

    /// Offsets that the lake has and Kafka has not: the broker has lost messages.
    pub(super) fn ahead(&self) -> i64 {
        (self.next.unwrap_or(self.low) - self.high).max(0)
    }

    /// Whether the lake lacks any.
    pub(super) fn is_missing(&self) -> bool {
        self.waiting() > 0 || self.overtaken() > 0
    }
}

/// Asks Kafka, then the lake.
///
/// # Errors
/// When one of them does not answer.
pub(super) fn look(config: &Config, lake: &Lake) -> Result<Vec<Waiting>, Failure> {
    let cluster = Cluster::new(&config.kafka)?;
    let survey = cluster.survey()?;
    let topics = config.topics();
    let present = |name: &str| survey.topics.iter().find(|(present, _)| present == name).map(|(_, count)| *count);
    let names: Vec<&str> =
        topics.iter().map(|topic| topic.name.as_str()).filter(|name| present(name).is_some()).collect();
    if names.is_empty() {
        return Err(Failure::Stop(format!(
            "kafka at {} has no topic {}.*; give --topic-prefix",
            config.kafka.bootstrap_servers, config.kafka.topic_prefix
        )));
    }
    let ids = ids_of(&cluster, &names, true)?;
    let mut all = Vec::new();
    for topic in topics.iter() {
        let (Some(id), Some(count)) = (ids.get(&topic.name), present(&topic.name)) else { continue };
        let mut partitions = Vec::with_capacity(count);
        for partition in 0..count as i32 {
            let (low, high) = cluster.watermarks(&topic.name, partition)?;
            partitions.push(Waiting { topic: topic.name.clone(), partition, next: None, low, high });
        }
        let app_ids: Vec<_> = partitions.iter().map(|of| app_id(&topic.name, id, of.partition)).collect();
        let positions = verify::positions(lake, topic.table, &app_ids)?.unwrap_or_default();
        for (partition, next) in partitions.iter_mut().zip(positions) {
            partition.next = next;
        }
        all.extend(partitions);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(next: Option<i64>, low: i64, high: i64) -> (i64, i64, i64) {
        let of = Waiting { topic: "t".to_owned(), partition: 0, next, low, high };
        (of.waiting(), of.overtaken(), of.ahead())
    }

    #[test]
    fn messages_wait_or_are_overtaken_or_were_lost_by_the_broker() {
        assert_eq!(partition(Some(9), 3, 9), (0, 0, 0));
        assert_eq!(partition(Some(7), 3, 9), (2, 0, 0));
        assert_eq!(partition(None, 3, 9), (6, 0, 0));
        assert_eq!(partition(Some(1), 3, 9), (6, 2, 0));
        assert_eq!(partition(Some(12), 3, 9), (0, 0, 3));
    }
}
