//! A set of frame numbers, kept as the intervals that they form.
//!
//! Frames of a stream are numbered without holes, so what arrives is nearly always one interval, and a gap shows what
//! is missing. It sets no limit to the number of intervals; the received set does.

/// A set of numbers from 1 on, as inclusive intervals in rising order that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intervals {
    spans: Vec<(i64, i64)>,
}

impl Intervals {
    /// Whether the number is in the set.
    pub(crate) fn contains(&self, number: i64) -> bool {
        let after = self.spans.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).is_some_and(|at| number <= self.spans[at].1)
    }

    /// Adds a number. Says whether it was new.
    pub(crate) fn insert(&mut self, number: i64) -> bool {
        let after = self.spans.partition_point(|(first, _)| *first <= number);
        let before = after.checked_sub(1).filter(|at| self.spans[*at].1 >= number.saturating_sub(1));
        if before.is_some_and(|at| self.spans[at].1 >= number) {
            return false;
        }
        let follows = self.spans.get(after).is_some_and(|(first, _)| *first == number.saturating_add(1));
        match (before, follows) {
            (None, false) => self.spans.insert(after, (number, number)),
            (Some(at), false) => self.spans[at].1 = number,
            (None, true) => self.spans[after].0 = number,
            (Some(at), true) => {
                self.spans[at].1 = self.spans[after].1;
                self.spans.remove(after);
            }
        }
        true
    }

    /// Takes the lowest interval out.
    pub(crate) fn take_lowest(&mut self) -> Option<(i64, i64)> {
        if self.is_empty() { None } else { Some(self.spans.remove(0)) }
    }

    /// Adds an interval above all others, which it does not touch; for decoding. Says whether it is one.
    pub(crate) fn push(&mut self, first: i64, last: i64) -> bool {
        let fits = first <= last && self.last().is_none_or(|end| end.checked_add(1).is_some_and(|end| end < first));
        if fits {
            self.spans.push((first, last));
        }
        fits
    }

    /// The highest number.
    pub(crate) fn last(&self) -> Option<i64> {
        self.spans.last().map(|(_, last)| *last)
    }

    /// The intervals, rising.
    pub(crate) fn spans(&self) -> &[(i64, i64)] {
        &self.spans
    }

    /// How many intervals.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no number in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Takes everything out and gives the memory back.
    pub(crate) fn clear(&mut self) {
        self.spans = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The intervals of a set, found number by number.
    fn intervals_of(set: &BTreeSet<i64>) -> Vec<(i64, i64)> {
        let starts = set.iter().filter(|n| !set.contains(&(**n - 1)));
        let end = |first: i64| (first..).take_while(|n| set.contains(n)).last().unwrap();
        starts.map(|first| (*first, end(*first))).collect()
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_inserted(numbers in prop::collection::vec(1_i64..60, 0..120)) {
            let (mut set, mut intervals) = (BTreeSet::new(), Intervals::default());
            for number in numbers {
                prop_assert_eq!(intervals.insert(number), set.insert(number));
                prop_assert_eq!(intervals.spans(), intervals_of(&set));
            }
            for number in 0..62 {
                prop_assert_eq!(intervals.contains(number), set.contains(&number));
            }
            prop_assert_eq!(intervals.last(), set.last().copied());
        }
    }

    #[test]
    fn the_ends_of_the_number_range_are_numbers_like_others() {
        let mut intervals = Intervals::default();
        assert!(intervals.insert(i64::MAX) && intervals.insert(1) && intervals.insert(i64::MAX - 1));
        assert!(!intervals.insert(i64::MAX) && !intervals.insert(1));
        assert_eq!(intervals.spans(), [(1, 1), (i64::MAX - 1, i64::MAX)]);
        assert!(!intervals.push(i64::MAX, i64::MAX), "above the highest there is nothing");
    }
}
