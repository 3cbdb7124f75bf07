//! Finds out where each partition is to be read from: the lake's position, held against what Kafka still has. With it
//! comes the received set, from the same version of the table.
//!
//! Kafka's own group offsets are never asked. Everything here blocks; call it from `tokio::task::spawn_blocking`.

use std::collections::BTreeMap;
use std::time::Duration;

use racklake_storage::Lake;
use rdkafka::Offset;

use crate::config::Topics;
use crate::consumer::Place;
use crate::failure::Failure;
use crate::received::{self, ReceivedSet};
use crate::topic_id::TopicIds;
use crate::topics::Cluster;

/// The id of every topic where the broker tells none.
const NO_ID: &str = "-";
/// How long to wait before a position above a partition's end is looked at again.
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
    /// What the lake has received of it.
    pub(crate) received: ReceivedSet,
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
            let missing = |place| {
                let received = ReceivedSet::default();
                Position { place, topic_id: None, next: None, reading: Reading::Missing, received }
            };
            positions.extend(places.into_iter().map(missing));
            continue;
        };
        let table = lake.table(topic.table)?;
        for place in places {
            let next = table.position(&app_id(&topic.name, id, place.partition))?;
            let received = ReceivedSet::read(&table, &received::domain_name(&topic.name, place.partition))?;
            let topic_id = Some(id.clone());
            positions.push(Position { place, topic_id, next, reading: Reading::Beginning, received });
        }
    }
    let watermarks = |place: Place| cluster.watermarks(&topics[place.topic].name, place.partition);
    hold_against(&mut positions, SETTLE, watermarks)?;
    Ok(positions)
}

/// Ids of topics, the same stand-in for all where the broker tells none.
pub(crate) fn ids_of(cluster: &Cluster, names: &[&str], ask_ids: bool) -> Result<TopicIds, Failure> {
    if ask_ids && !names.is_empty() {
        return cluster.topic_ids(names);
    }
    Ok(names.iter().map(|name| ((*name).to_owned(), NO_ID.to_owned())).collect())
}

/// Holds the lake's positions against what Kafka still has. A broker that has just become leader may not know its end
/// yet, so a position above it is looked at again before it is believed.
fn hold_against(
    positions: &mut [Position],
    settle: Duration,
    watermarks: impl Fn(Place) -> Result<(i64, i64), Failure>,
) -> Result<(), Failure> {
    const LOOKS: u32 = 3;
    for look in 1..=LOOKS {
        let mut doubtful = false;
        for position in positions.iter_mut() {
            let (Some(next), Reading::Beginning | Reading::Ahead { .. }) = (position.next, position.reading) else {
                continue;
            };
            let (low, high) = watermarks(position.place)?;
            position.reading = match next {
                next if next < low => Reading::Overtaken { low },
                next if next > high => Reading::Ahead { high },
                next => Reading::Next(next),
            };
            doubtful |= next > high;
        }
        if !doubtful {
            break;
        }
        if look < LOOKS {
            std::thread::sleep(settle);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(next: Option<i64>, low: i64, ends: &[i64]) -> Reading {
        let place = Place { topic: 0, partition: 0 };
        let received = ReceivedSet::default();
        let mut positions = [Position { place, topic_id: None, next, reading: Reading::Beginning, received }];
        let asked = std::cell::Cell::new(0);
        let watermarks = |_| {
            let end = ends[asked.get().min(ends.len() - 1)];
            asked.set(asked.get() + 1);
            Ok((low, end))
        };
        hold_against(&mut positions, Duration::ZERO, watermarks).unwrap();
        positions[0].reading
    }

    #[test]
    fn a_position_within_the_partition_is_read_from_and_none_means_the_beginning() {
        assert_eq!(reading(Some(7), 3, &[9]), Reading::Next(7));
        assert_eq!(reading(Some(9), 3, &[9]), Reading::Next(9));
        assert_eq!(reading(None, 3, &[9]), Reading::Beginning);
    }

    #[test]
    fn records_that_retention_removed_are_told() {
        assert_eq!(reading(Some(2), 3, &[9]), Reading::Overtaken { low: 3 });
    }

    #[test]
    fn records_that_the_broker_lost_stop_the_partition_unless_it_finds_them_soon() {
        assert_eq!(reading(Some(10), 3, &[9]), Reading::Ahead { high: 9 });
        assert_eq!(reading(Some(10), 3, &[0, 12]), Reading::Next(10));
        assert_eq!(Reading::Ahead { high: 9 }.offset(), None);
    }
}
