//! When the loop flushes, what it does with the outcome, and what waits meanwhile.
//!
//! At most one flush of a table is under way. What is read meanwhile begins where that flush ends, as if it had gone
//! well; if it has not, the lake refuses the next one and the partition is read again.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::Offset;
use tokio::time::Instant;

use super::{Finished, Pipeline};
use crate::consumer::{Command, Place, Start};
use crate::failure::{Failure, back_off};
use crate::flush::{Done, Job, Moved, Verdict};
use crate::metrics::{OfFlush, OfTable};

/// How often it is tried whether there is room again.
const ROOM_PERIOD: Duration = Duration::from_secs(1);
/// Messages of one partition that wait for a dead letter before fetching pauses.
const HELD_MAX: usize = 16;
/// How long frames are left in librdkafka's queue while there is too much in memory, before fetching pauses: a pause
/// throws that queue away, and what was in it is fetched again.
pub(super) const HOLD_BACK: Duration = Duration::from_secs(2);
/// How long the last flush may take.
const LAST_FLUSH: Duration = Duration::from_secs(20);
/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(5);

impl Pipeline {
    /// Begins a flush of each table that is due, and at the budget of the largest.
    pub(super) fn flush_what_is_due(&mut self) -> anyhow::Result<()> {
        if self.no_room {
            return Ok(());
        }
        let limits = self.config.flush.clone();
        let due = |table: &super::TableState| {
            table.buffer.since().is_some_and(|since| since.elapsed() >= limits.age_max)
                || table.buffer.rows() >= limits.rows_max
                || table.buffer.bytes() >= limits.bytes_max
        };
        for index in 0..self.tables.len() {
            if due(&self.tables[index]) {
                self.begin_flush(index)?;
            }
        }
        if self.bytes() >= limits.buffer_bytes_max {
            let idle = (0..self.tables.len()).filter(|index| self.tables[*index].lake.is_some());
            if let Some(largest) = idle.max_by_key(|index| self.tables[*index].buffer.bytes()) {
                self.begin_flush(largest)?;
            }
        }
        Ok(())
    }

    fn begin_flush(&mut self, index: usize) -> anyhow::Result<()> {
        let table = &mut self.tables[index];
        if table.lake.is_none() || !table.buffer.has_progress() {
            return Ok(());
        }
        table.flushing_bytes = table.buffer.bytes();
        let taken = table.buffer.take();
        let topic = &self.topics[index];
        let topic_id = table.topic_id.clone().filter(|_| self.config.kafka.topic_ids);
        let job = Job::new(topic.table, index, topic.name.clone(), topic_id, taken)?;
        self.spawn_flush(job, Duration::ZERO);
        Ok(())
    }

    fn spawn_flush(&mut self, job: Job, wait: Duration) {
        let table = &mut self.tables[job.index];
        let Some(lake) = table.lake.take() else { return };
        table.flushing = job.parts.iter().map(|part| part.partition).collect();
        let cluster = Arc::clone(&self.cluster);
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let done = tokio::task::spawn_blocking(move || job.run(lake, Some(&cluster))).await?;
            Ok(Finished::Flush(Box::new(done)))
        });
    }

    pub(super) fn on_flushed(&mut self, done: Done) -> anyhow::Result<()> {
        let Done { mut job, table, verdict } = done;
        self.tables[job.index].lake = Some(table);
        self.tables[job.index].flushing.clear();
        let name = job.table.name;
        if matches!(verdict, Verdict::Committed { .. } | Verdict::Moved(_) | Verdict::TopicChanged) {
            self.there_is_room();
        }
        let count = |outcome| self.metrics.flushes.get_or_create(&OfFlush { table: name, outcome }).inc();
        match verdict {
            Verdict::Committed { version, took } => {
                count("committed");
                self.on_committed(&job, version, took);
            }
            Verdict::Moved(moved) => {
                count("moved");
                let partitions: Vec<_> = moved.iter().map(|moved| moved.partition).collect();
                tracing::warn!(
                    table = name,
                    ?partitions,
                    "others have committed these partitions; they are read again"
                );
                self.rewind(&job, moved);
                job.leave_out(&partitions);
                if job.parts.is_empty() {
                    self.tables[job.index].flushing_bytes = 0;
                } else {
                    self.spawn_flush(job, Duration::ZERO);
                }
            }
            Verdict::TopicChanged => {
                count("topic_changed");
                self.tables[job.index].flushing_bytes = 0;
                let reason = format!("topic {} has been created again", job.topic);
                tracing::warn!(
                    table = name,
                    rows = job.rows(),
                    "{reason}; rows that may be of either are not committed"
                );
                if self.tables[job.index].topic_id == job.topic_id {
                    self.renew(&reason);
                }
            }
            Verdict::Failed(Failure::Stop(text)) => anyhow::bail!("table {name}: {text}"),
            Verdict::Failed(Failure::NoRoom(text)) => {
                count("no_room");
                if !self.no_room {
                    tracing::error!(table = name, "no room in the lake, nothing is fetched until there is: {text}");
                }
                self.no_room = true;
                self.health.set("lake", format!("no room: {text}"));
                self.spawn_flush(job, ROOM_PERIOD);
            }
            Verdict::Failed(Failure::Retry(text)) => {
                count("failed");
                job.failures += 1;
                let wait = back_off(job.failures);
                tracing::warn!(table = name, failures = job.failures, ?wait, "flush failed and is done again: {text}");
                self.health.set(&format!("flush {name}"), text);
                self.spawn_flush(job, wait);
            }
        }
        Ok(())
    }

    fn there_is_room(&mut self) {
        if self.no_room {
            tracing::info!("there is room in the lake again");
            self.no_room = false;
            self.health.clear("lake");
        }
    }

    fn on_committed(&mut self, job: &Job, version: u64, took: Duration) {
        let name = job.table.name;
        self.metrics.commit_seconds.get_or_create(&OfTable { table: name }).observe(took.as_secs_f64());
        tracing::info!(table = name, version, rows = job.rows(), partitions = job.parts.len(), ?took, "committed");
        self.health.clear(&format!("flush {name}"));
        let state = &mut self.tables[job.index];
        state.flushing_bytes = 0;
        let mut acknowledged = Vec::with_capacity(job.parts.len());
        for part in &job.parts {
            let same = state.buffer.part_mut(part.partition).filter(|now| now.epoch == part.epoch);
            let Some(now) = same else { continue };
            now.committed = Some(part.span.next);
            acknowledged.push((Place { topic: job.index, partition: part.partition }, part.span.next));
        }
        if !acknowledged.is_empty() {
            self.command(Command::Acknowledge(acknowledged));
        }
    }

    /// Throws away what was read of partitions that others have committed, and reads them from where those ended.
    fn rewind(&mut self, job: &Job, moved: Vec<Moved>) {
        self.epoch += 1;
        for Moved { partition, position, received } in moved {
            let Some(part) = job.parts.iter().find(|part| part.partition == partition) else { continue };
            let buffer = &mut self.tables[job.index].buffer;
            if buffer.part(partition).is_none_or(|now| now.epoch != part.epoch) {
                continue; // given up, or assigned anew, since
            }
            buffer.begin(partition, part.span.app_id.clone(), self.epoch, position, received);
            let place = Place { topic: job.index, partition };
            let offset = position.map_or(Offset::Beginning, Offset::Offset);
            self.command(Command::Rewind(Start { place, offset, epoch: self.epoch }));
            self.command(Command::Resume(vec![place]));
            self.health.clear(&format!("dead letter {}/{partition}", job.topic));
        }
    }

    /// Pauses the partitions that have nowhere to go, and resumes the others.
    pub(super) fn pause_what_must_wait(&mut self) {
        let limits = &self.config.flush;
        let over_budget = self.bytes() >= limits.buffer_bytes_max;
        let is_full = |table: &super::TableState| {
            table.lake.is_none() && table.buffer.bytes() >= limits.bytes_max.saturating_mul(2)
        };
        if !over_budget && !self.tables.iter().any(is_full) {
            self.full_since = None;
        } else if self.full_since.is_none() {
            tracing::debug!(bytes = self.bytes(), over_budget, "too much in memory, frames wait");
            self.full_since = Some(Instant::now());
        }
        let long = self.full_since.is_some_and(|since| since.elapsed() >= HOLD_BACK);
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (topic, table) in self.tables.iter_mut().enumerate() {
            let full = long && (over_budget || is_full(table));
            for (partition, part) in table.buffer.parts_mut() {
                let held = part.letter.is_some() && (part.paused || part.held.len() >= HELD_MAX);
                let wait = self.no_room || full || held;
                if wait != part.paused {
                    part.paused = wait;
                    let changed = if wait { &mut pause } else { &mut resume };
                    changed.push(Place { topic, partition });
                }
            }
        }
        if !pause.is_empty() {
            self.command(Command::Pause(pause));
        }
        if !resume.is_empty() {
            self.command(Command::Resume(resume));
        }
    }

    /// Fetches no more, writes what is in memory, leaves the group. What cannot be written in time is still in Kafka.
    pub(super) async fn shut_down(mut self) -> anyhow::Result<()> {
        tracing::info!("shutting down: the last flush");
        if let Some(consumer) = &mut self.consumer {
            consumer.close_events();
        }
        let deadline = Instant::now() + LAST_FLUSH;
        loop {
            for index in 0..self.tables.len() {
                self.begin_flush(index)?;
            }
            if self.tables.iter().all(|table| table.lake.is_some()) {
                break;
            }
            match tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
                Ok(Some(finished)) => {
                    if let Finished::Flush(done) = finished?? {
                        self.on_flushed(*done)?;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    tracing::warn!(
                        "the last flush did not end in time; its rows are still in Kafka and are read again"
                    );
                    break;
                }
            }
        }
        if let Some(consumer) = self.consumer.take() {
            tokio::task::spawn_blocking(move || consumer.stop(LEAVE)).await?;
        }
        tracing::info!("stopped");
        Ok(())
    }
}
