//! Whether the collector does its work, and if not, why: what `/healthz` says.
//!
//! It judges nothing that is normal in a data center: an unreachable miner is a row, not a fault of the collector.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::place::locked;
use crate::queue::drop_reason;

/// Kafka may be away this long before it counts.
const KAFKA_GRACE: Duration = Duration::from_secs(30);
/// A drop counts this long.
const DROP_MEMORY: Duration = Duration::from_secs(60);

/// What is wrong now.
#[derive(Debug, Default)]
pub(crate) struct Health {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    kafka_down: Option<(Instant, String)>,
    topics: BTreeMap<String, (Instant, String)>,
    /// When frames were last dropped for a reason.
    dropped: BTreeMap<&'static str, Instant>,
    failing: BTreeMap<String, String>,
    /// Devices that do not answer at all: since when, and in what.
    stalled: BTreeMap<String, (Instant, String)>,
    notes: BTreeMap<&'static str, String>,
}

impl Health {
    /// Kafka cannot be reached; the first call of a row of calls starts the time.
    pub(crate) fn kafka_is_down(&self, reason: &str) {
        let mut inner = locked(&self.inner);
        let since = inner.kafka_down.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        inner.kafka_down = Some((since, reason.to_owned()));
    }

    /// Kafka has answered.
    pub(crate) fn kafka_is_up(&self) {
        locked(&self.inner).kafka_down = None;
    }

    /// A topic cannot be written to; the first call of a row of calls starts the time.
    pub(crate) fn topic_waits(&self, topic: &str, reason: &str) {
        let mut inner = locked(&self.inner);
        let since = inner.topics.get(topic).map_or_else(Instant::now, |(since, _)| *since);
        inner.topics.insert(topic.to_owned(), (since, reason.to_owned()));
    }

    /// A topic takes frames.
    pub(crate) fn topic_works(&self, topic: &str) {
        locked(&self.inner).topics.remove(topic);
    }

    /// Frames have been dropped, for one of the reasons of the queue.
    pub(crate) fn dropped(&self, reason: &'static str) {
        locked(&self.inner).dropped.insert(reason, Instant::now());
    }

    /// A part does not work: a source, the state folder.
    pub(crate) fn fails(&self, part: &str, reason: &str) {
        locked(&self.inner).failing.insert(part.to_owned(), reason.to_owned());
    }

    /// A part works.
    pub(crate) fn works(&self, part: &str) {
        let mut inner = locked(&self.inner);
        inner.failing.remove(part);
        inner.stalled.remove(part);
    }

    /// A part has not come back from something for so long.
    pub(crate) fn stalls(&self, part: &str, reason: &str, waited: Duration) {
        let since = Instant::now().checked_sub(waited).unwrap_or_else(Instant::now);
        locked(&self.inner).stalled.insert(part.to_owned(), (since, reason.to_owned()));
    }

    /// A part that the collector can do without does not work; said, but no fault.
    pub(crate) fn note(&self, part: &'static str, text: &str) {
        locked(&self.inner).notes.insert(part, text.to_owned());
    }

    /// Nothing more to say about a part.
    pub(crate) fn unnote(&self, part: &'static str) {
        locked(&self.inner).notes.remove(part);
    }

    /// What is said, wrong or not.
    pub(crate) fn notes(&self) -> Vec<String> {
        locked(&self.inner).notes.iter().map(|(part, text)| format!("note: {part}: {text}")).collect()
    }

    /// What is wrong; empty where nothing is.
    pub(crate) fn problems(&self) -> Vec<String> {
        let inner = locked(&self.inner);
        let mut problems = Vec::new();
        let kafka = inner.kafka_down.as_ref().map(|down| ("kafka".to_owned(), down));
        let topics = inner.topics.iter().map(|(topic, waits)| (format!("topic {topic}"), waits));
        for (what, (since, reason)) in kafka.into_iter().chain(topics) {
            if since.elapsed() > KAFKA_GRACE {
                problems.push(format!("{what}: {reason}, for {} s", since.elapsed().as_secs()));
            }
        }
        let now_dropped = inner.dropped.iter().filter(|(_, at)| at.elapsed() < DROP_MEMORY);
        problems.extend(now_dropped.map(|(reason, _)| format!("spool: frames are dropped, {}", remedy(reason))));
        problems.extend(inner.failing.iter().map(|(part, reason)| format!("{part}: {reason}")));
        let stalled = inner.stalled.iter();
        problems.extend(
            stalled.map(|(part, (since, reason))| format!("{part}: {reason}, for {} s", since.elapsed().as_secs())),
        );
        problems
    }
}

/// Why frames are dropped, and what helps.
fn remedy(reason: &str) -> &'static str {
    match reason {
        drop_reason::FULL => "spool.bytes_max is reached: bring Kafka back, or raise it",
        drop_reason::AGE => "spool.age_max is reached: bring Kafka back, or raise it",
        drop_reason::UNWRITABLE => "the disk takes nothing and memory is full: make room in state_dir",
        _ => "the disk gave back something else than was stored: look at the disk of state_dir",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn kafka_counts_as_away_after_half_a_minute() {
        let health = Health::default();
        health.kafka_is_down("no broker answers");
        tokio::time::sleep(Duration::from_secs(29)).await;
        health.kafka_is_down("no broker answers");
        assert!(health.problems().is_empty());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(health.problems(), ["kafka: no broker answers, for 31 s"]);
        health.kafka_is_up();
        assert!(health.problems().is_empty());
    }
}
