//! What has expired of a table: the day below which it was removed, and the frames whose rows were.
//!
//! It is the text of a domain, written in the commit that removes the rows. Frames are kept as ranges per stream, so it
//! grows with streams and not with frames.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Frames that lost rows to age, and the first day that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExpiredFrames {
    /// Days (since 1970) before it were removed.
    pub(crate) floor: i32,
    /// By stream: first and last of each range of frames, rising.
    pub(crate) frames: BTreeMap<String, Vec<(i64, i64)>>,
}

impl ExpiredFrames {
    /// Reads the text of the domain; nothing has expired where there is none.
    pub(crate) fn read(text: Option<&str>) -> Result<ExpiredFrames, String> {
        text.map_or_else(|| Ok(ExpiredFrames::default()), |text| serde_json::from_str(text).map_err(|e| e.to_string()))
    }

    /// The text of the domain.
    pub(crate) fn text(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }

    /// Adds frames of a stream.
    pub(crate) fn add(&mut self, stream_id: &str, seqs: &[i64]) {
        let ranges = self.frames.entry(stream_id.to_owned()).or_default();
        ranges.extend(seqs.iter().map(|seq| (*seq, *seq)));
        ranges.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(ranges.len());
        for &(first, last) in ranges.iter() {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        *ranges = joined;
    }

    /// Whether rows of a frame have expired.
    pub(crate) fn has(&self, stream_id: &str, seq: i64) -> bool {
        let ranges = self.frames.get(stream_id).map_or(&[][..], Vec::as_slice);
        let after = ranges.partition_point(|(first, _)| *first <= seq);
        after > 0 && ranges[after - 1].1 >= seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_join_into_ranges_in_any_order_and_come_back_from_the_text() {
        let mut expired = ExpiredFrames { floor: 20_000, ..ExpiredFrames::default() };
        expired.add("s", &[5, 3, 4]);
        expired.add("s", &[9, 2, 4]);
        expired.add("t", &[i64::MAX]);
        assert_eq!(expired.frames["s"], [(2, 5), (9, 9)]);
        assert!(expired.has("s", 5) && !expired.has("s", 6) && !expired.has("s", 1) && !expired.has("u", 5));
        assert!(expired.has("t", i64::MAX));
        assert_eq!(ExpiredFrames::read(Some(&expired.text().unwrap())).unwrap(), expired);
        assert_eq!(ExpiredFrames::read(None).unwrap(), ExpiredFrames::default());
        assert!(ExpiredFrames::read(Some("{")).is_err());
    }
}
