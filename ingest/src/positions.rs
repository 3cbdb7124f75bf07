//! Finds out where each partition is to be read from: the lake's position, held against what Kafka still has.
//!
//! Kafka's own group offsets are never asked. Everything here blocks; call it from `tokio::task::spawn_blocking`.

use std::collections::BTreeMap;
use std::time::Duration;

use racklake_storage::Lake;
use rdkafka::Offset;

use crate::config::Topics;
use crate::consumer::Place;
use crate::failure::Failure;
use crate::topic_id::TopicIds;
use crate::topics::Cluster;

/// The id of every topic where the broker tells none.
const NO_ID: &str = "-";
/// How long a broker that has just become leader may need to know its end.
const SETTLE: Duration = Duration::from_secs(1);

/// A partition and how it is to be read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Position {
    /// The partition.
    pub(crate) place: Place,
    /// Id of its topic; `None` where the topic is missing.
    pub(crate) topic_id: Option<String>,
    /// Next offset that the lake does not have, if it has any.
    pub(crate) next: Option<i64>,
    /// How to read it.
    pub(crate) reading: Reading,
}

/// How a partition is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// From its first record: the lake has none of it.
    Beginning,
    /// From the lake's position.
    Next(i64),
    /// Kafka's retention has removed records that the lake does not have: from the first that is left.
    Overtaken {
        /// First offset that is left.
        low: i64,
    },
    /// Not at all: the lake is ahead of the partition's end, so records would be passed over.
    Ahead {
        /// The partition's end.
        high: i64,
    },
    /// Not yet: the topic does not exist.
    Missing,
}

impl Reading {
    /// The offset to give to the consumer; `None` where its frames must be ignored.
    pub(crate) fn offset(self) -> Option<Offset> {
        match self {
            Reading::Beginning => Some(Offset::Beginning),
            Reading::Next(offset) | Reading::Overtaken { low: offset } => Some(Offset::Offset(offset)),
            Reading::Ahead { .. } | Reading::Missing => None,
        }
    }
}

/// The name under which the lake keeps a partition's position. No consumer group in it: renaming one re-reads nothing.
pub(crate) fn app_id(topic: &str, topic_id: &str, partition: i32) -> String {
    format!("{topic}/{topic_id}/{partition}")
}

/// Finds out how to read each of the partitions.
///
/// # Errors
/// When lake or Kafka do not answer. That a topic is missing is an answer.
pub(crate) fn look_up(
    lake: &Lake,
    cluster: &Cluster,
    topics: &Topics,
    places: &[Place],
    ask_ids: bool,
) -> Result<Vec<Position>, Failure> {
    let mut by_topic: BTreeMap<usize, Vec<Place>> = BTreeMap::new();
    for place in places {
        by_topic.entry(place.topic).or_default().push(*place);
    }
    let names: Vec<_> = by_topic.keys().map(|topic| topics[*topic].name.as_str()).collect();
    let ids = ids_of(cluster, &names, ask_ids)?;
    let mut positions = Vec::with_capacity(places.len());
    for (index, places) in by_topic {
        let topic = &topics[index];
        let Some(id) = ids.get(&topic.name) else {
            let missing = |place| Position { place, topic_id: None, next: None, reading: Reading::Missing };
            positions.extend(places.into_iter().map(missing));
            continue;
        };
        let table = lake.table(topic.table)?;
        for place in places {
            let next = table.position(&app_id(&topic.name, id, place.partition))?;
            let reading = match next {
                None => Reading::Beginning,
                Some(next) => hold_against(next, SETTLE, || cluster.watermarks(&topic.name, place.partition))?,
            };
            positions.push(Position { place, topic_id: Some(id.clone()), next, reading });
        }
    }
    Ok(positions)
}

/// Ids of topics, the same stand-in for all where the broker tells none.
pub(crate) fn ids_of(cluster: &Cluster, names: &[&str], ask_ids: bool) -> Result<TopicIds, Failure> {
    if ask_ids && !names.is_empty() {
        return cluster.topic_ids(names);
    }
    Ok(names.iter().map(|name| ((*name).to_owned(), NO_ID.to_owned())).collect())
}

fn hold_against(
    next: i64,
    settle: Duration,
    watermarks: impl Fn() -> Result<(i64, i64), Failure>,
) -> Result<Reading, Failure> {
    const TRIES: u32 = 3;
    let mut end = 0;
    for attempt in 1..=TRIES {
        let (low, high) = watermarks()?;
        if next < low {
            return Ok(Reading::Overtaken { low });
        }
        if next <= high {
            return Ok(Reading::Next(next));
        }
        end = high;
        if attempt < TRIES {
            std::thread::sleep(settle);
        }
    }
    Ok(Reading::Ahead { high: end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_within_the_partition_is_read_from() {
        assert_eq!(hold_against(7, Duration::ZERO, || Ok((3, 9))), Ok(Reading::Next(7)));
        assert_eq!(hold_against(9, Duration::ZERO, || Ok((3, 9))), Ok(Reading::Next(9)));
    }

    #[test]
    fn records_that_retention_removed_are_told_and_records_that_the_broker_lost_stop_the_partition() {
        assert_eq!(hold_against(2, Duration::ZERO, || Ok((3, 9))), Ok(Reading::Overtaken { low: 3 }));
        assert_eq!(hold_against(10, Duration::ZERO, || Ok((3, 9))), Ok(Reading::Ahead { high: 9 }));
        assert_eq!(Reading::Ahead { high: 9 }.offset(), None);
    }
}
