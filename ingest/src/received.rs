//! Which frames of one Kafka partition have been received: the memory that tells a replay from a new frame.
//!
//! A frame is (stream, table, seq). A collector that replays its spool, or a producer that sends again, brings one twice,
//! at any age; so the lake keeps, beside the rows, which seqs of each stream are in it. The set is the text of a domain
//! of the table, `racklake.received.<topic>.<partition>`, which is replaced only by the commit that adds the rows and
//! moves the position. No topic id is in the name: a topic that is made anew is filled with replays of what was in it.
//!
//! Time is that of the partition, the newest time stamp of a message, so that readers of one log judge alike and a
//! process that was away for a month closes nothing that Kafka still holds.
//!
//! It is bounded: `STREAMS_MAX` streams and `INTERVALS_MAX` intervals beyond the first of each, about 25 MB, per
//! partition. What a bound costs is exactness in one direction only: a frame that could have been received before is
//! set aside as a dead letter, never added and never dropped.

mod encoding;
mod intervals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use intervals::Intervals;
use racklake_schemas::clock::DAY;
use racklake_storage::{DomainChange, LakeTable};

use crate::failure::Failure;

/// Streams that a partition's set remembers; frames of any more become dead letters.
pub(crate) const STREAMS_MAX: usize = 65_536;
/// Intervals that a partition's set keeps; a stream that makes another gap beyond it has its lowest gap closed.
pub(crate) const INTERVALS_MAX: usize = 131_072;
const DAY_SECONDS: u64 = 86_400;

/// The received set of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceivedSet {
    /// The text that the lake has, or will have once the flushes under way are committed.
    base: Option<Arc<str>>,
    /// Newest day of a message, since 1970.
    day: i64,
    streams: BTreeMap<[u8; 16], Stream>,
    /// Intervals of all streams, letters' too.
    intervals: usize,
    unnamed_letters: u64,
}

/// What has been received of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    received: Intervals,
    letters: Intervals,
    /// Day of its newest message.
    seen: i64,
    closed_to: i64,
    duplicates: u64,
    dead_letters: u64,
}

/// What a frame is to the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It has not been received.
    New,
    /// It has.
    Duplicate,
    /// It cannot be told any more.
    Closed {
        /// The highest seq of which this is so.
        closed_to: i64,
    },
    /// Its stream is one too many.
    TooMany,
}

/// A frame's name within its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameId {
    stream: [u8; 16],
    seq: i64,
}

/// Name of the domain that holds the set of a partition.
pub fn domain_name(topic: &str, partition: i32) -> String {
    format!("{DOMAIN_PREFIX}{topic}.{partition}")
}

/// What the names of all received sets begin with.
pub const DOMAIN_PREFIX: &str = "racklake.received.";

impl FrameId {
    /// The frame of that stream and seq, if they are ones.
    pub(crate) fn new(stream_id: &str, seq: i64) -> Option<FrameId> {
        if stream_id.len() != 32 || seq < 1 {
            return None;
        }
        let mut stream = [0; 16];
        for (byte, digits) in stream.iter_mut().zip(stream_id.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(FrameId { stream, seq })
    }
}

impl ReceivedSet {
    /// The set that a domain holds; an empty one where there is none.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn restore(text: Option<Arc<str>>) -> Result<ReceivedSet, String> {
        match text {
            None => Ok(ReceivedSet::default()),
            Some(text) => Ok(ReceivedSet { base: Some(Arc::clone(&text)), ..encoding::decode(&text)? }),
        }
    }

    /// The set in the version that the table is at.
    pub(crate) fn read(table: &LakeTable, name: &str) -> Result<ReceivedSet, Failure> {
        ReceivedSet::restore(table.domain(name)?).map_err(|error| {
            Failure::Stop(format!(
                "the received set {name} of the lake cannot be read: {error}. If it is damaged, take the table back to an \
                 older version: the frames since then are read again, as far as Kafka has them"
            ))
        })
    }

    /// The streams, by id.
    pub fn streams(&self) -> impl Iterator<Item = (String, &Stream)> {
        self.streams.iter().map(|(id, stream)| (racklake_schemas::identity::stream_id(*id), stream))
    }

    /// Dead letters that did not say which stream and seq they are.
    pub fn unnamed_letters(&self) -> u64 {
        self.unnamed_letters
    }

    /// What a frame is to the set as it stands.
    pub(crate) fn judge(&self, frame: FrameId) -> Admission {
        match self.streams.get(&frame.stream) {
            None if self.streams.len() >= STREAMS_MAX => Admission::TooMany,
            None => Admission::New,
            Some(stream) if frame.seq <= stream.closed_to => Admission::Closed { closed_to: stream.closed_to },
            Some(stream) if stream.received.contains(frame.seq) => Admission::Duplicate,
            Some(_) => Admission::New,
        }
    }

    /// Records a frame whose rows are added.
    pub(crate) fn add(&mut self, frame: FrameId, at_us: i64, stream_age_max: Duration) {
        let full = self.intervals >= INTERVALS_MAX;
        let Some(stream) = self.seen(frame, at_us) else { return };
        let before = stream.received.len();
        stream.received.insert(frame.seq);
        if full && stream.received.len() > before.max(1) {
            stream.closed_to = stream.received.take_lowest().map_or(stream.closed_to, |(_, last)| last);
        }
        let after = stream.received.len();
        self.intervals = self.intervals + after - before;
        self.advance_to(at_us, stream_age_max);
    }

    /// Counts a frame that is dropped, because it is in the set.
    pub(crate) fn add_duplicate(&mut self, frame: FrameId, at_us: i64, stream_age_max: Duration) {
        if let Some(stream) = self.seen(frame, at_us) {
            stream.duplicates += 1;
        }
        self.advance_to(at_us, stream_age_max);
    }

    /// Records a message that has been set aside, by its name where it has one.
    pub(crate) fn add_letter(&mut self, frame: Option<FrameId>, at_us: i64, stream_age_max: Duration) {
        let full = self.intervals >= INTERVALS_MAX;
        let Some(frame) = frame.filter(|frame| self.judge(*frame) != Admission::TooMany) else {
            self.unnamed_letters += 1;
            return;
        };
        let Some(stream) = self.seen(frame, at_us) else { return };
        stream.dead_letters += 1;
        // What is closed can no more be told; beyond the bound the count alone is kept.
        if !full && frame.seq > stream.closed_to {
            let before = stream.letters.len();
            stream.letters.insert(frame.seq);
            let after = stream.letters.len();
            self.intervals = self.intervals + after - before;
        }
        self.advance_to(at_us, stream_age_max);
    }

    /// The change from the text that the lake has to what has been received until now. What comes next changes that.
    pub(crate) fn take_change(&mut self, name: String) -> DomainChange {
        let now: Arc<str> = encoding::encode(self).into();
        let was = self.base.replace(Arc::clone(&now));
        DomainChange { name, was, now }
    }

    /// The stream of a frame, which is seen now.
    fn seen(&mut self, frame: FrameId, at_us: i64) -> Option<&mut Stream> {
        if self.judge(frame) == Admission::TooMany {
            return None;
        }
        let stream = self.streams.entry(frame.stream).or_default();
        stream.seen = stream.seen.max(at_us.div_euclid(DAY));
        Some(stream)
    }

    /// Goes on to the day of a message, and closes the streams that have not been seen for too long.
    fn advance_to(&mut self, at_us: i64, stream_age_max: Duration) {
        let day = at_us.div_euclid(DAY);
        if day <= self.day {
            return;
        }
        self.day = day;
        let days_max = i64::try_from(stream_age_max.as_secs().div_ceil(DAY_SECONDS)).unwrap_or(i64::MAX);
        for stream in self.streams.values_mut().filter(|stream| day.saturating_sub(stream.seen) > days_max) {
            self.intervals -= stream.received.len() + stream.letters.len();
            stream.close();
        }
    }
}

impl Stream {
    /// Intervals of the seqs whose rows are in the lake, inclusive, rising, all above [`Stream::closed_to`].
    pub fn received(&self) -> &[(i64, i64)] {
        self.received.spans()
    }

    /// Intervals of the seqs that were set aside, inclusive, rising. One that was sent again and was good then is among
    /// the received ones too.
    pub fn letters(&self) -> &[(i64, i64)] {
        self.letters.spans()
    }

    /// Up to this seq nothing is known of single frames; 0 where everything is.
    pub fn closed_to(&self) -> i64 {
        self.closed_to
    }

    /// Frames that were dropped because they had been received before.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Messages that were set aside, however often they came.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters
    }

    fn close(&mut self) {
        self.closed_to = self.received.last().unwrap_or(0).max(self.closed_to);
        self.received.clear();
        self.letters.clear();
    }
}

#[cfg(test)]
mod tests;
