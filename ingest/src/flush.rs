//! Brings the taken parts of one table into the lake: written, proven, committed.
//!
//! Files first, then one commit that makes them visible together with the positions. Between the two the topic's id is
//! asked once more: it is still the one that the rows were fetched under, so none of them can come from a topic that
//! was created again under the same name. (Ids are never reused.) A flush that fails keeps its rows and is done again
//! as it is. It blocks; call it from `tokio::task::spawn_blocking`.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use racklake_schemas::{Rows, Table};
use racklake_storage::{DataFile, LakeTable, Outcome, Span};

use crate::buffer::Taken;
use crate::failure::Failure;
use crate::received::{self, ReceivedSet};
use crate::topics::Cluster;

/// Files older than this are written again before they are committed: the lake's clean-up takes old orphans away.
const FILES_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A flush of one table.
pub(crate) struct Job {
    /// The table.
    pub(crate) table: &'static Table,
    /// Index of its topic.
    pub(crate) index: usize,
    /// Name of its topic.
    pub(crate) topic: String,
    /// Id that the rows were fetched under; `None` where the broker tells none.
    pub(crate) topic_id: Option<String>,
    /// What is to be committed.
    pub(crate) parts: Vec<Part>,
    /// How often it has failed.
    pub(crate) failures: u32,
    files: Option<(Vec<DataFile>, Instant)>,
}

/// What is to be committed of one partition.
pub(crate) struct Part {
    /// The partition.
    pub(crate) partition: i32,
    /// The assignment that it was read under.
    pub(crate) epoch: u64,
    /// The offsets that it covers.
    pub(crate) span: Span,
    rows: Option<RecordBatch>,
    /// Rows of frames that are marked as replayed.
    replayed: Option<RecordBatch>,
}

/// How a flush went.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The rows are in the lake.
    Committed {
        /// Version of the table that they are in.
        version: u64,
        /// Time that the commit took.
        took: Duration,
    },
    /// Others have committed these partitions meanwhile. Nothing was committed.
    Moved(Vec<Moved>),
    /// The topic has been created again; the rows may be of either. Nothing was committed.
    TopicChanged,
    /// It failed. Nothing was committed, or the lake will know when it is done again.
    Failed(Failure),
}

/// Where the lake stands with a partition that others have committed, all in one version.
#[derive(Debug)]
pub(crate) struct Moved {
    /// The partition.
    pub(crate) partition: i32,
    /// Its position.
    pub(crate) position: Option<i64>,
    /// Its received set.
    pub(crate) received: ReceivedSet,
}

/// A flush that has come back, with what it took along.
pub(crate) struct Done {
    /// The flush.
    pub(crate) job: Job,
    /// The table.
    pub(crate) table: LakeTable,
    /// How it went.
    pub(crate) verdict: Verdict,
}

impl Job {
    /// A flush of the parts.
    ///
    /// # Errors
    /// Stop when rows are no batch, which decoding rules out.
    pub(crate) fn new(
        table: &'static Table,
        index: usize,
        topic: String,
        topic_id: Option<String>,
        taken: Vec<Taken>,
    ) -> Result<Job, Failure> {
        let batch = |rows: Rows| match rows.is_empty() {
            true => Ok(None),
            false => rows.into_batch().map(Some).map_err(|e| Failure::Stop(format!("table {}: {e}", table.name))),
        };
        let part = |taken: Taken| {
            let Taken { partition, epoch, span, rows, replayed } = taken;
            Ok(Part { partition, epoch, span, rows: batch(rows)?, replayed: batch(replayed)? })
        };
        let parts = taken.into_iter().map(part).collect::<Result<_, Failure>>()?;
        Ok(Job { table, index, topic, topic_id, parts, failures: 0, files: None })
    }

    /// How many rows.
    pub(crate) fn rows(&self) -> usize {
        let batches = self.parts.iter().flat_map(|part| [&part.rows, &part.replayed]);
        batches.flatten().map(RecordBatch::num_rows).sum()
    }

    /// Leaves partitions out; the others' files must be written anew.
    pub(crate) fn leave_out(&mut self, partitions: &[i32]) {
        self.parts.retain(|part| !partitions.contains(&part.partition));
        self.files = None;
    }

    /// Tries once.
    pub(crate) fn run(mut self, mut table: LakeTable, cluster: Option<&Cluster>) -> Done {
        let verdict = self.attempt(&mut table, cluster).unwrap_or_else(Verdict::Failed);
        Done { job: self, table, verdict }
    }

    fn attempt(&mut self, table: &mut LakeTable, cluster: Option<&Cluster>) -> Result<Verdict, Failure> {
        if self.files.as_ref().is_none_or(|(_, written_at)| written_at.elapsed() > FILES_AGE_MAX) {
            self.files = Some((self.write(table)?, Instant::now()));
        }
        if !self.is_proven(cluster)? {
            return Ok(Verdict::TopicChanged);
        }
        let files = self.files.as_ref().map_or(&[][..], |(files, _)| files);
        let spans: Vec<Span> = self.parts.iter().map(|part| part.span.clone()).collect();
        let begin = Instant::now();
        match table.commit(files, &spans)? {
            Outcome::Committed { version } => {
                let took = begin.elapsed();
                for span in &spans {
                    tracing::debug!(table = self.table.name, version, position = %span.app_id, next = span.next, "committed");
                }
                Ok(Verdict::Committed { version, took })
            }
            Outcome::Moved(app_ids) => {
                table.refresh()?;
                let moved = self.parts.iter().filter(|part| app_ids.contains(&part.span.app_id));
                let standing = |part: &Part| {
                    let position = table.position(&part.span.app_id)?;
                    let received = ReceivedSet::read(table, &received::domain_name(&self.topic, part.partition))?;
                    Ok(Moved { partition: part.partition, position, received })
                };
                let moved: Vec<_> = moved.map(standing).collect::<Result<_, Failure>>()?;
                if moved.is_empty() {
                    return Err(Failure::Stop(format!(
                        "table {}: a commit was refused for positions that it did not move: {app_ids:?}",
                        self.table.name
                    )));
                }
                Ok(Verdict::Moved(moved))
            }
        }
    }

    fn write(&self, table: &LakeTable) -> Result<Vec<DataFile>, Failure> {
        let fresh: Vec<RecordBatch> = self.parts.iter().filter_map(|part| part.rows.clone()).collect();
        let replayed: Vec<RecordBatch> = self.parts.iter().filter_map(|part| part.replayed.clone()).collect();
        if fresh.is_empty() && replayed.is_empty() {
            return Ok(Vec::new());
        }
        tracing::debug!(table = self.table.name, rows = self.rows(), "writing");
        let files = table.write(&fresh, &replayed)?;
        tracing::debug!(table = self.table.name, rows = self.rows(), files = files.len(), "written");
        Ok(files)
    }

    fn is_proven(&self, cluster: Option<&Cluster>) -> Result<bool, Failure> {
        let (Some(cluster), Some(topic_id)) = (cluster, &self.topic_id) else { return Ok(true) };
        let ids = cluster.topic_ids(&[&self.topic])?;
        match ids.get(&self.topic) {
            Some(id) => Ok(id == topic_id),
            // Perhaps only this broker does not know it yet; whether the rows are its own is told when it is back.
            None => Err(Failure::Retry(format!("topic {} is missing", self.topic))),
        }
    }
}

#[cfg(test)]
mod tests;
