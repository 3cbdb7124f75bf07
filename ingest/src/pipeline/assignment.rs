//! What the loop does when partitions come and go.
//!
//! A partition that comes is read from the lake's position; one that goes takes its rows with it. The group's answer to
//! a revocation waits a little for a flush that holds the partition, so that the next owner sees its position; if it
//! cannot wait, the lake refuses one of the two.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::Offset;
use serde_json::json;
use tokio::time::Instant;

use super::{Finished, Pipeline};
use crate::consumer::{Command, Place, Start};
use crate::failure::{Failure, back_off};
use crate::metrics::OfPartition;
use crate::own_events::OwnEvent;
use crate::positions::{self, Position, Reading};

/// How long a revocation waits for a flush.
const GIVE_BACK: Duration = Duration::from_secs(5);
/// How long `/healthz` tells of records that nobody can bring back.
const TELL_OVERTAKEN: Duration = Duration::from_secs(15 * 60);

impl Pipeline {
    /// Looks up, in the background, where partitions are to be read from.
    pub(super) fn look_up(&mut self, places: Vec<Place>, attempt: u32) {
        let (lake, cluster, topics) = (self.lake.clone(), Arc::clone(&self.cluster), Arc::clone(&self.topics));
        let (consumer, ask_ids) = (self.consumers, self.config.kafka.topic_ids);
        let wait = if attempt == 1 { Duration::ZERO } else { back_off(attempt - 1) };
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let asked = places.clone();
            let ask = move || positions::look_up(&lake, &cluster, &topics, &asked, ask_ids);
            let result = tokio::task::spawn_blocking(ask).await?;
            Ok(Finished::Positions { consumer, places, attempt, result })
        });
    }

    pub(super) fn on_positions(
        &mut self,
        places: Vec<Place>,
        attempt: u32,
        result: Result<Vec<Position>, Failure>,
    ) -> anyhow::Result<()> {
        let positions = match result {
            Ok(positions) => positions,
            Err(Failure::Stop(text)) => anyhow::bail!(text),
            Err(failure) => {
                tracing::warn!(%failure, attempt, "positions are not known yet");
                self.health.set("positions", failure.to_string());
                self.look_up(places, attempt + 1);
                return Ok(());
            }
        };
        self.health.clear("positions");
        let changed = |position: &&Position| {
            let known = &self.tables[position.place.topic].topic_id;
            position.topic_id.is_some() && known.is_some() && position.topic_id != *known
        };
        if let Some(position) = positions.iter().find(changed) {
            let reason = format!("topic {} has been created again", self.topics[position.place.topic].name);
            self.renew(&reason);
            return Ok(());
        }
        self.epoch += 1;
        let mut ignored = Vec::new();
        let mut starts = Vec::with_capacity(positions.len());
        for position in positions {
            let place = position.place;
            let offset = self.begin(position);
            if offset.is_none() {
                ignored.push(place);
            }
            // Also an ignored one is assigned, so that librdkafka and the group are of one mind.
            starts.push(Start { place, offset: offset.unwrap_or(Offset::End), epoch: self.epoch });
        }
        self.command(Command::Assign(starts));
        if !ignored.is_empty() {
            self.command(Command::Pause(ignored));
        }
        Ok(())
    }

    /// Begins the partition, and gives the offset to read it from.
    fn begin(&mut self, position: Position) -> Option<Offset> {
        let Position { place, topic_id, next, reading, received } = position;
        if place.partition == 0 {
            self.owned.set(place.topic, true);
        }
        let topic = &self.topics[place.topic];
        let table = &mut self.tables[place.topic];
        if topic_id.is_some() {
            table.topic_id.clone_from(&topic_id);
        }
        let (Some(topic_id), Some(offset)) = (topic_id, reading.offset()) else {
            table.awaited |= reading == Reading::Missing;
            if let Reading::Ahead { high } = reading {
                let text = format!(
                    "the lake has all before offset {}, but the topic ends at {high}: the broker has lost records. Not \
                     read, since records up to there would be passed over. Delete and create the topic again (nothing \
                     in the lake is doubled by that), or restore the broker's data, and restart ingest",
                    next.unwrap_or_default()
                );
                tracing::error!(topic = topic.name, partition = place.partition, "{text}");
                self.health.set(&format!("partition {}/{}", topic.name, place.partition), text);
            }
            return None;
        };
        let app_id = positions::app_id(&topic.name, &topic_id, place.partition);
        tracing::debug!(position = %app_id, next, ?offset, "reading");
        table.buffer.begin(place.partition, app_id, self.epoch, next, received);
        if let (Reading::Overtaken { low }, Some(next)) = (reading, next) {
            let lost = low - next;
            let text = format!("kafka_retention_overtook: offsets {next} to {} are gone, {lost} records", low - 1);
            let what = format!("partition {}/{}", topic.name, place.partition);
            self.health.set_for(&what, text, TELL_OVERTAKEN);
            let labels = OfPartition { topic: topic.name.clone(), partition: place.partition };
            self.metrics.retention_overtook.get_or_create(&labels).inc_by(u64::try_from(lost).unwrap_or_default());
            self.events.tell(OwnEvent {
                event: "kafka_retention_overtook",
                severity: "error",
                message: format!(
                    "Kafka's retention has removed {lost} records of {}/{} that the lake did not have yet",
                    topic.name, place.partition
                ),
                details: json!({"topic": topic.name, "partition": place.partition, "table": topic.table.name,
                    "offset_first": next, "offset_last": low - 1}),
            });
        }
        Some(offset)
    }

    /// Throws away what was read of partitions that the group wants back.
    pub(super) fn revoke(&mut self, places: Vec<Place>) {
        for place in &places {
            self.tables[place.topic].buffer.give_up(place.partition);
            if place.partition == 0 {
                self.owned.set(place.topic, false);
            }
            let name = format!("{}/{}", self.topics[place.topic].name, place.partition);
            self.health.clear(&format!("partition {name}"));
            self.health.clear(&format!("dead letter {name}"));
            let labels = OfPartition { topic: self.topics[place.topic].name.clone(), partition: place.partition };
            self.metrics.lag.remove(&labels);
        }
        self.revoking = Some((places, Instant::now()));
    }

    /// Answers a revocation when no flush holds the partitions any more, or when it has waited long enough.
    pub(super) fn give_back(&mut self) {
        let flushing = |place: &Place| self.tables[place.topic].flushing.contains(&place.partition);
        let waits =
            |(places, since): &(Vec<Place>, Instant)| since.elapsed() < GIVE_BACK && places.iter().any(flushing);
        if self.revoking.as_ref().is_none_or(waits) {
            return;
        }
        if let Some((places, _)) = self.revoking.take() {
            self.command(Command::Unassign(places));
        }
    }

    pub(super) fn measure_lag(&self, ends: &[(Place, i64)]) {
        for (place, end) in ends {
            let Some(part) = self.tables[place.topic].buffer.part(place.partition) else { continue };
            let labels = OfPartition { topic: self.topics[place.topic].name.clone(), partition: place.partition };
            self.metrics.lag.get_or_create(&labels).set((end - part.committed.unwrap_or(0)).max(0));
        }
    }
}
