//! Decides which files are merged with which: those of quiet hours, and small sealed ones of quiet days.
//!
//! A file belongs to the hour of its latest reading, so one that was flushed across the hour belongs to the later one, and
//! a seal never has to split it. An hour is quiet when all of its files are; what comes later for it is merged by itself,
//! into one more file. Nothing here reads a file: the log tells their times.

use std::collections::BTreeMap;
use std::time::Duration;

use racklake_schemas::clock::{DAY, MINUTE};

use crate::delta::Live;
use crate::table::HOT;

/// Hours of a day.
const HOURS: i64 = 24;
const HOUR: i64 = 60 * MINUTE;
/// Rows of a row group, of which one per file is in memory during a merge.
const GROUP_ROWS: u64 = 128 * 1024;

/// When files are merged, and how many at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SealRules {
    /// An hour is sealed when it has been over, and no row of it has arrived, for so long.
    pub quiet: Duration,
    /// The small files of a day are merged when it has been over, and no row of it has arrived, for so long.
    pub day_quiet: Duration,
    /// Bytes of one merge's input that may be in memory at a time, as they are in the files. Decoding takes about as much
    /// again, and some 50 MB are always needed.
    pub memory_bytes: u64,
    /// Files of one merge.
    pub files_max: usize,
    /// Bytes of one merge's input, and so about the largest file that it makes.
    pub file_bytes_max: u64,
    /// Sealed files below so many bytes are merged when their day is quiet.
    pub small_bytes: u64,
}

impl Default for SealRules {
    fn default() -> SealRules {
        SealRules {
            quiet: Duration::from_secs(10 * 60),
            day_quiet: Duration::from_secs(6 * 3600),
            memory_bytes: 48 * 1024 * 1024,
            files_max: 1024,
            file_bytes_max: 512 * 1024 * 1024,
            small_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Files that are to be merged into one.
#[derive(Debug, Clone, PartialEq)]
pub struct Seal {
    pub(crate) site: String,
    pub(crate) day: i32,
    pub(crate) hour: Option<u8>,
    pub(crate) inputs: Vec<Live>,
}

impl Seal {
    /// The site of the rows.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// The date of the rows, days since 1970.
    pub fn day(&self) -> i32 {
        self.day
    }

    /// The hour of that day; nothing where sealed files of a whole day are merged.
    pub fn hour(&self) -> Option<u8> {
        self.hour
    }

    /// How many files are merged.
    pub fn files(&self) -> usize {
        self.inputs.len()
    }

    /// Their rows.
    pub fn rows(&self) -> u64 {
        self.inputs.iter().map(|file| file.rows).sum()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|file| file.bytes).sum()
    }
}

/// What is to be merged at `now_us`, oldest first.
pub(crate) fn plan(files: Vec<Live>, rules: &SealRules, now_us: i64) -> Vec<Seal> {
    let mut hours: BTreeMap<(String, i32, u8), Vec<Live>> = BTreeMap::new();
    let mut days: BTreeMap<(String, i32), Vec<Live>> = BTreeMap::new();
    for file in files {
        if file.path.starts_with(HOT) {
            hours.entry((file.site.clone(), file.day, hour_of(&file))).or_default().push(file);
        } else {
            days.entry((file.site.clone(), file.day)).or_default().push(file);
        }
    }
    // A day with rows that are still to be sealed is not quiet.
    days.retain(|(site, day), _| hours.range((site.clone(), *day, 0)..=(site.clone(), *day, u8::MAX)).next().is_none());
    let mut seals = Vec::new();
    for ((site, day, hour), files) in hours {
        let end = i64::from(day) * DAY + (i64::from(hour) + 1) * HOUR;
        if is_quiet(&files, end, rules.quiet, now_us) {
            let seal = |inputs| Seal { site: site.clone(), day, hour: Some(hour), inputs };
            seals.extend(groups(files, rules).into_iter().map(seal));
        }
    }
    for ((site, day), files) in days {
        let small: Vec<Live> = files.into_iter().filter(|file| file.bytes < rules.small_bytes).collect();
        if is_quiet(&small, (i64::from(day) + 1) * DAY, rules.day_quiet, now_us) {
            let merged = groups(small, rules).into_iter().filter(|inputs| inputs.len() > 1);
            seals.extend(merged.map(|inputs| Seal { site: site.clone(), day, hour: None, inputs }));
        }
    }
    seals.sort_by_key(|seal| (seal.day, seal.hour.is_none(), seal.hour));
    seals
}

/// The hour of the latest reading; that of the arrival where the clock of the reading was wrong, and not of that day.
fn hour_of(file: &Live) -> u8 {
    let of_day = |time: i64| (time.div_euclid(DAY) == i64::from(file.day)).then(|| time.rem_euclid(DAY) / HOUR);
    let hour = file.read.and_then(|(_, latest)| of_day(latest)).or_else(|| of_day(file.received));
    hour.unwrap_or(HOURS - 1) as u8
}

fn is_quiet(files: &[Live], end: i64, quiet: Duration, now_us: i64) -> bool {
    let last = files.iter().map(|file| file.received).max().unwrap_or(end).max(end);
    last.saturating_add(quiet.as_micros() as i64) <= now_us
}

/// Divides files, by the time of their readings, so that each group can be merged within the limits.
fn groups(mut files: Vec<Live>, rules: &SealRules) -> Vec<Vec<Live>> {
    files.sort_by(|a, b| (a.read, &a.path).cmp(&(b.read, &b.path)));
    let mut groups: Vec<Vec<Live>> = Vec::new();
    let (mut memory, mut bytes) = (0, 0);
    for file in files {
        let of_file = in_memory(&file);
        memory += of_file;
        bytes += file.bytes;
        match groups.last_mut() {
            Some(group)
                if memory <= rules.memory_bytes && bytes <= rules.file_bytes_max && group.len() < rules.files_max =>
            {
                group.push(file);
            }
            _ => {
                (memory, bytes) = (of_file, file.bytes);
                groups.push(vec![file]);
            }
        }
    }
    groups
}

/// Bytes of a file that are in memory at a time: those of a row group.
fn in_memory(file: &Live) -> u64 {
    file.bytes.checked_mul(GROUP_ROWS).map_or(file.bytes, |bytes| bytes / file.rows.max(GROUP_ROWS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: i64 = 1_795_514_400_000_000;
    const DAY_OF_TEN: i32 = (TEN / DAY) as i32;

    fn file(path: &str, read: (i64, i64), received: i64, bytes: u64) -> Live {
        let (path, site) = (path.to_owned(), "a".to_owned());
        Live { path, bytes, rows: 1000, site, day: DAY_OF_TEN, read: Some(read), received }
    }

    fn names(files: &[Live], rules: &SealRules, now_us: i64) -> Vec<(Option<u8>, Vec<String>)> {
        let name = |seal: Seal| (seal.hour, seal.inputs.into_iter().map(|file| file.path).collect());
        plan(files.to_vec(), rules, now_us).into_iter().map(name).collect()
    }

    #[test]
    fn an_hour_is_sealed_when_it_is_over_and_nothing_has_come_for_a_while() {
        let rules = SealRules::default();
        let quiet = rules.quiet.as_micros() as i64;
        let across = file("_hot/b", (TEN + HOUR - 5, TEN + HOUR + 5), TEN + HOUR + 9, 1);
        let files = [file("_hot/a", (TEN, TEN + 5), TEN + 9, 1), across];
        assert_eq!(names(&files, &rules, TEN + HOUR + quiet - 1), []);
        let ten = (Some(10), vec!["_hot/a".to_owned()]);
        let found = names(&files, &rules, TEN + HOUR + quiet);
        assert_eq!(found, std::slice::from_ref(&ten));
        // What comes late keeps the hour open; what lay across is of the later hour.
        let mut late = files.to_vec();
        late.push(file("_hot/c", (TEN, TEN + 1), TEN + 3 * HOUR, 1));
        let eleven = (Some(11), vec!["_hot/b".to_owned()]);
        let found = names(&late, &rules, TEN + 3 * HOUR);
        assert_eq!(found, std::slice::from_ref(&eleven));
        assert_eq!(names(&files, &rules, TEN + 3 * HOUR), [ten, eleven]);
    }

    #[test]
    fn a_reading_of_a_wrong_clock_is_of_the_hour_of_its_arrival() {
        let rules = SealRules::default();
        let wrong = file("_hot/a", (0, TEN + 400 * DAY), TEN + 1, 1);
        assert_eq!(
            names(std::slice::from_ref(&wrong), &rules, TEN + 2 * HOUR),
            [(Some(10), vec!["_hot/a".to_owned()])]
        );
    }

    #[test]
    fn small_sealed_files_are_merged_when_the_day_is_quiet_and_nothing_is_left_to_seal() {
        let rules = SealRules::default();
        let end = (i64::from(DAY_OF_TEN) + 1) * DAY;
        let at = |path, bytes| file(path, (TEN, TEN + 1), TEN + 2, bytes);
        let mut files = vec![at("site=a/1", 5), at("site=a/2", 6), at("site=a/3", rules.small_bytes)];
        let quiet = rules.day_quiet.as_micros() as i64;
        assert_eq!(names(&files, &rules, end + quiet - 1), []);
        let merged = vec!["site=a/1".to_owned(), "site=a/2".to_owned()];
        assert_eq!(names(&files, &rules, end + quiet), [(None, merged)]);
        files.push(at("_hot/4", 1));
        assert_eq!(names(&files, &rules, end + quiet), [(Some(10), vec!["_hot/4".to_owned()])]);
        assert_eq!(names(&files[..1], &rules, end + quiet), [], "one file is merged already");
    }

    #[test]
    fn what_does_not_fit_into_memory_is_merged_in_several_files_by_time() {
        let rules = SealRules { memory_bytes: 10, files_max: 3, ..SealRules::default() };
        let at = |path, second: i64, bytes| file(path, (TEN + second, TEN + second), TEN + 99, bytes);
        let files = [at("_hot/c", 3, 4), at("_hot/a", 1, 4), at("_hot/b", 2, 6), at("_hot/d", 4, 20)];
        let found: Vec<_> = names(&files, &rules, TEN + 9 * HOUR).into_iter().map(|(_, paths)| paths).collect();
        assert_eq!(found, [vec!["_hot/a", "_hot/b"], vec!["_hot/c"], vec!["_hot/d"]]);
        let many: Vec<_> = (0..7).map(|second| at("_hot/x", second, 1)).collect();
        let sizes: Vec<_> = names(&many, &rules, TEN + 9 * HOUR).iter().map(|(_, paths)| paths.len()).collect();
        assert_eq!(sizes, [3, 3, 1]);
    }
}
