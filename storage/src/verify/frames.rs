//! Counts the rows of every frame of one table, in memory that depends on what is not whole, not on how much there is.
//!
//! Rows come in parts, each what one batch has of one frame; nearly always that is all of it. A frame with fewer rows keeps
//! the hashes of their keys until the others have come. A stream's frames lie in pages of 256, which hold a bit for every
//! whole frame; a page of whole frames is forgotten but for its number. A row that still comes for a whole frame is one too
//! many. It does not say why a frame is missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Frames of one page.
const PAGE: usize = 256;
const WORD: usize = 64;

/// Rows of one frame that are in one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// The stream's number, from [`Frames::stream`].
    pub(crate) stream: u32,
    /// The frame.
    pub(crate) seq: i64,
    /// Rows that the frame had.
    pub(crate) due: i32,
    /// Rows that are here.
    pub(crate) rows: u32,
    /// Rows of these whose key another of them has, where all that are due are here; else `keys` tells.
    pub(crate) repeated: u64,
    /// Hashes of the rows' keys, where rows are missing and keys are compared.
    pub(crate) keys: Vec<u64>,
}

/// All frames of a table.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    numbers: HashMap<String, u32>,
    streams: Vec<Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    id: String,
    node: String,
    rows: u64,
    bounds: Option<(i64, i64)>,
    /// Ranges of whole pages, by their first; the end is exclusive.
    whole: BTreeMap<i64, i64>,
    open: HashMap<i64, Page>,
    doubled: BTreeMap<i64, u64>,
    contradictory: BTreeSet<i64>,
}

#[derive(Debug, Default)]
struct Page {
    /// A bit for each frame that has all its rows.
    whole: [u64; PAGE / WORD],
    /// Frames that have some of them, by their place in the page.
    begun: BTreeMap<usize, Begun>,
}

/// A frame that is not whole.
#[derive(Debug, Default)]
struct Begun {
    due: u32,
    seen: u32,
    keys: Vec<u64>,
}

/// What is to be said of one stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) stream_id: String,
    pub(crate) node: String,
    pub(crate) rows: u64,
    /// Frames that have a row.
    pub(crate) frames: u64,
    /// First and last frame that have a row.
    pub(crate) bounds: Option<(i64, i64)>,
    /// Frames between 1 and the last that have no row: first and last of each range.
    pub(crate) missing: Vec<(i64, i64)>,
    /// Frames with fewer rows than are due: frame, rows, due.
    pub(crate) short: Vec<(i64, u32, u32)>,
    /// Frames with rows too many, or with one row more than once: frame, such rows.
    pub(crate) doubled: Vec<(i64, u64)>,
    /// Frames whose rows do not agree on how many there are, or say what cannot be.
    pub(crate) contradictory: Vec<i64>,
}

impl Page {
    fn is_whole(&self, slot: usize) -> bool {
        self.whole[slot / WORD] >> (slot % WORD) & 1 == 1
    }

    fn set_whole(&mut self, slot: usize) {
        self.whole[slot / WORD] |= 1 << (slot % WORD);
    }
}

impl Begun {
    /// Rows too many.
    fn extra(&self) -> u64 {
        u64::from(self.seen.saturating_sub(self.due)).max(repeated(&self.keys))
    }
}

impl Frames {
    /// The number of a stream.
    pub(crate) fn stream(&mut self, id: &str, node: &str) -> u32 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = self.streams.len() as u32;
        self.streams.push(Stream { id: id.to_owned(), node: node.to_owned(), ..Stream::default() });
        self.numbers.insert(id.to_owned(), number);
        number
    }

    /// Counts the parts of a batch.
    pub(crate) fn count(&mut self, parts: Vec<Part>) {
        for part in parts {
            if let Some(stream) = self.streams.get_mut(part.stream as usize) {
                stream.count(part);
            }
        }
    }

    /// Whether a frame has a row.
    pub(crate) fn has(&self, stream_id: &str, seq: i64) -> bool {
        let stream = self.numbers.get(stream_id).and_then(|number| self.streams.get(*number as usize));
        stream.is_some_and(|stream| stream.has(seq))
    }

    /// What is to be said of each stream.
    pub(crate) fn accounts(self) -> Vec<Account> {
        self.streams.into_iter().map(Stream::account).collect()
    }
}

impl Stream {
    fn count(&mut self, part: Part) {
        self.rows += u64::from(part.rows);
        if part.seq < 1 || part.due < 1 {
            self.contradictory.insert(part.seq);
            return;
        }
        let (first, last) = self.bounds.unwrap_or((part.seq, part.seq));
        self.bounds = Some((first.min(part.seq), last.max(part.seq)));
        let (number, slot) = place(part.seq);
        let is_whole = match self.open.get(&number) {
            Some(page) => page.is_whole(slot),
            None => self.is_whole(number),
        };
        if is_whole {
            return self.add_doubled(part.seq, u64::from(part.rows));
        }
        let page = self.open.entry(number).or_default();
        let due = part.due.unsigned_abs();
        let extra = if part.rows >= due && !page.begun.contains_key(&slot) {
            u64::from(part.rows - due).max(part.repeated)
        } else {
            let begun = page.begun.entry(slot).or_default();
            if begun.due != 0 && begun.due != due {
                self.contradictory.insert(part.seq);
            }
            begun.due = begun.due.max(due);
            begun.seen = begun.seen.saturating_add(part.rows);
            begun.keys.extend(part.keys);
            if begun.seen < begun.due {
                return;
            }
            page.begun.remove(&slot).map_or(0, |begun| begun.extra().max(part.repeated))
        };
        page.set_whole(slot);
        if page.whole == [u64::MAX; PAGE / WORD] {
            self.open.remove(&number);
            self.forget(number);
        }
        self.add_doubled(part.seq, extra);
    }

    fn add_doubled(&mut self, seq: i64, rows: u64) {
        if rows > 0 {
            *self.doubled.entry(seq).or_default() += rows;
        }
    }

    /// Keeps of a whole page its number only, joined to its neighbours.
    fn forget(&mut self, number: i64) {
        let (mut first, mut end) = (number, number + 1);
        if let Some(next_end) = self.whole.remove(&end) {
            end = next_end;
        }
        if let Some((&before, &before_end)) = self.whole.range(..number).next_back()
            && before_end == number
        {
            first = before;
        }
        self.whole.insert(first, end);
    }

    fn is_whole(&self, number: i64) -> bool {
        self.whole.range(..=number).next_back().is_some_and(|(_, end)| *end > number)
    }

    fn has(&self, seq: i64) -> bool {
        let (number, slot) = place(seq);
        match self.open.get(&number) {
            Some(page) => page.is_whole(slot) || page.begun.contains_key(&slot),
            None => self.is_whole(number),
        }
    }

    fn account(mut self) -> Account {
        let mut open: Vec<_> = std::mem::take(&mut self.open).into_iter().collect();
        open.sort_unstable_by_key(|(number, _)| *number);
        let mut account = Account { bounds: self.bounds, ..Account::default() };
        let mut present = Present::default();
        let mut whole = self.whole.clone().into_iter().peekable();
        for (number, page) in open {
            while let Some((first, end)) = whole.next_if(|(first, _)| *first < number) {
                present.add(seq(first, 0), seq(end, 0) - 1);
            }
            for slot in 0..PAGE {
                let seq = seq(number, slot);
                if let Some(begun) = page.begun.get(&slot) {
                    account.short.push((seq, begun.seen, begun.due));
                    self.add_doubled(seq, begun.extra());
                } else if !page.is_whole(slot) {
                    continue;
                }
                present.add(seq, seq);
            }
        }
        for (first, end) in whole {
            present.add(seq(first, 0), seq(end, 0) - 1);
        }
        Account {
            stream_id: self.id,
            node: self.node,
            rows: self.rows,
            frames: present.frames,
            missing: present.missing,
            doubled: self.doubled.into_iter().collect(),
            contradictory: self.contradictory.into_iter().collect(),
            ..account
        }
    }
}

/// Frames that are there, told in rising order; what lies between them is missing.
#[derive(Default)]
struct Present {
    last: i64,
    frames: u64,
    missing: Vec<(i64, i64)>,
}

impl Present {
    fn add(&mut self, first: i64, last: i64) {
        if first - 1 > self.last {
            self.missing.push((self.last + 1, first - 1));
        }
        self.frames += (last - first + 1).unsigned_abs();
        self.last = last;
    }
}

/// Page and slot of a frame; frames count from 1.
fn place(seq: i64) -> (i64, usize) {
    ((seq - 1).div_euclid(PAGE as i64), (seq - 1).rem_euclid(PAGE as i64) as usize)
}

fn seq(page: i64, slot: usize) -> i64 {
    // A row may say any number; the last page ends where the numbers do.
    page.saturating_mul(PAGE as i64).saturating_add(slot as i64 + 1)
}

/// How many of the hashes are there already.
pub(crate) fn repeated(keys: &[u64]) -> u64 {
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seq: i64, due: i32, rows: u32) -> Part {
        Part { seq, due, rows, ..Part::default() }
    }

    fn account(parts: &[Part]) -> Account {
        let mut frames = Frames::default();
        frames.stream("s", "n");
        frames.count(parts.to_vec());
        frames.accounts().remove(0)
    }

    #[test]
    fn whole_pages_are_forgotten_in_any_order_and_nothing_is_missing() {
        let mut frames = Frames::default();
        frames.stream("s", "n");
        for seq in (1..=1024).rev() {
            frames.count(vec![run(seq, 2, 1), run(seq, 2, 1)]);
        }
        assert!(frames.streams[0].open.is_empty());
        assert_eq!(frames.streams[0].whole, BTreeMap::from([(0, 4)]));
        assert!(frames.has("s", 1024) && !frames.has("s", 1025) && !frames.has("t", 1));
        let account = frames.accounts().remove(0);
        assert_eq!((account.rows, account.frames, account.bounds), (2048, 1024, Some((1, 1024))));
        assert!(account.missing.is_empty() && account.short.is_empty() && account.doubled.is_empty(), "{account:?}");
    }

    #[test]
    fn a_row_too_many_is_found_in_an_open_and_in_a_forgotten_page() {
        let mut runs: Vec<Part> = (1..=256).map(|seq| run(seq, 1, 1)).collect();
        runs.extend([run(7, 1, 2), run(300, 1, 1), run(300, 1, 1)]);
        let account = account(&runs);
        assert_eq!(account.doubled, [(7, 2), (300, 1)]);
        assert_eq!(account.missing, [(257, 299)]);
    }

    #[test]
    fn a_whole_frame_keeps_no_keys() {
        let mut frames = Frames::default();
        frames.stream("s", "n");
        frames.count(vec![Part { keys: vec![1, 2], ..run(9, 3, 2) }]);
        assert_eq!(frames.streams[0].open[&0].begun[&8].keys.len(), 2);
        frames.count(vec![Part { keys: vec![3], ..run(9, 3, 1) }]);
        assert!(frames.streams[0].open[&0].begun.is_empty());
        frames.count(vec![run(9, 3, 1)]);
        assert_eq!(frames.accounts()[0].doubled, [(9, 1)]);
    }

    #[test]
    fn the_highest_number_that_a_row_can_say_is_a_frame_like_others() {
        let account = account(&[run(i64::MAX, 1, 1), run(i64::MAX, 1, 1)]);
        assert_eq!(account.missing, [(1, i64::MAX - 1)]);
        assert_eq!(account.doubled, [(i64::MAX, 1)]);
    }

    #[test]
    fn a_short_frame_and_missing_ones_are_told_apart() {
        let account = account(&[run(2, 8, 7), run(5, 8, 8)]);
        assert_eq!(account.short, [(2, 7, 8)]);
        assert_eq!(account.missing, [(1, 1), (3, 4)]);
    }

    #[test]
    fn a_row_twice_in_place_of_another_is_found_by_its_key() {
        let parted = |rows, keys: &[u64]| Part { keys: keys.to_vec(), ..run(2, 3, rows) };
        let in_one = Part { repeated: 1, ..run(4, 3, 3) };
        let account = account(&[run(1, 3, 3), parted(2, &[5, 4]), run(3, 3, 3), parted(1, &[5]), in_one]);
        assert_eq!(account.doubled, [(2, 1), (4, 1)]);
        assert!(account.short.is_empty());
    }

    #[test]
    fn rows_that_disagree_on_their_frame_or_have_none_are_contradictory() {
        let account = account(&[run(1, 3, 1), run(1, 2, 1), run(0, 1, 1), run(4, 0, 1)]);
        assert_eq!(account.contradictory, [0, 1, 4]);
    }
}
