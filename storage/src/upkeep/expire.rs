//! Removes whole days of a table from its newest version, in one commit that says which frames had rows there.
//!
//! The files stay in the store until a vacuum takes them. Which frames had rows in them is read from the files themselves
//! before they go, so that a proof of the lake can tell what is missing by age from what is lost.

use std::collections::{BTreeMap, BTreeSet};

use racklake_schemas::clock::{Clock, DAY};

use super::{EXPIRED, ExpiredFrames};
use crate::delta::{Change, Live};
use crate::error::StorageError;
use crate::exchange::Exchanged;
use crate::table::LakeTable;
use crate::verify::{columns, rows};

/// How often an expiry begins anew, because the files or the domain were changed by others.
const ROUNDS_MAX: u32 = 10;
const DAMAGED: &str = "report it: the domain racklake.expired is not what racklake writes";

/// A day of one site that is past its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiringDay {
    /// The site.
    pub site: String,
    /// The day, in days since 1970.
    pub day: i32,
    /// Its files.
    pub files: u64,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// What has been removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Version of the table.
    pub version: u64,
    /// Files.
    pub files: u64,
    /// Rows.
    pub rows: u64,
}

impl LakeTable {
    /// The first day (since 1970) that is kept of rows that live for `days`. Told by this host's clock or by the newest
    /// arrival in the table, whichever is earlier: neither alone may remove anything.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the table is damaged.
    pub fn floor(&mut self, days: i32) -> Result<Option<i32>, StorageError> {
        self.refresh()?;
        let newest = self.delta.live()?.iter().map(|file| file.received).max();
        let day = |time: i64| (time.div_euclid(DAY)).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
        Ok(newest.map(|newest| day(newest.min(Clock::now_us())).saturating_sub(days)))
    }

    /// Days before `floor` that are in the newest version.
    ///
    /// # Errors
    /// Retry as the store says; Stop, when the table is damaged.
    pub fn expiring(&mut self, floor: i32) -> Result<Vec<ExpiringDay>, StorageError> {
        self.refresh()?;
        let mut days: BTreeMap<(i32, String), ExpiringDay> = BTreeMap::new();
        for file in self.delta.live()?.into_iter().filter(|file| file.day < floor) {
            let (site, day) = (file.site.clone(), file.day);
            let of_day = days.entry((day, site.clone()));
            let of_day = of_day.or_insert(ExpiringDay { site, day, files: 0, rows: 0, bytes: 0 });
            of_day.files += 1;
            of_day.rows += file.rows;
            of_day.bytes += file.bytes;
        }
        Ok(days.into_values().collect())
    }

    /// Removes all days before `floor`; nothing where there are none. `watch` is told of rows as they are looked through.
    ///
    /// # Errors
    /// Retry and NoRoom as the store says; Stop, when a file of these days cannot be read or the table is damaged.
    pub fn expire(&mut self, floor: i32, watch: &dyn Fn(u64)) -> Result<Option<Expired>, StorageError> {
        let mut known: BTreeMap<String, Vec<(String, Vec<i64>)>> = BTreeMap::new();
        let mut rounds = 0;
        loop {
            self.refresh()?;
            let old: Vec<Live> = self.delta.live()?.into_iter().filter(|file| file.day < floor).collect();
            if old.is_empty() {
                return Ok(None);
            }
            rounds += 1;
            if rounds > ROUNDS_MAX {
                return Err(StorageError::retry(&self.place, "others removed files of the same days again and again"));
            }
            let damaged = |cause: String| StorageError::stop(&self.place, cause, DAMAGED);
            let mut expired = ExpiredFrames::read(self.domain(EXPIRED)?.as_deref()).map_err(damaged)?;
            expired.floor = expired.floor.max(floor);
            for file in &old {
                if !known.contains_key(&file.path) {
                    known.insert(file.path.clone(), self.frames_of(file, watch)?);
                }
                let frames = known.get(&file.path).map_or(&[][..], Vec::as_slice);
                frames.iter().for_each(|(stream, seqs)| expired.add(stream, seqs));
            }
            let text = expired.text().map_err(damaged)?;
            let gone: BTreeSet<String> = old.iter().map(|file| file.path.clone()).collect();
            let change = Change { gone: &gone, adds: &[], changes_rows: true, domain: Some((EXPIRED, &text)) };
            if self.exchange(&change, None, &|| true)? == Exchanged::Committed {
                let (version, files) = (self.version(), old.len() as u64);
                return Ok(Some(Expired { version, files, rows: old.iter().map(|file| file.rows).sum() }));
            }
        }
    }

    /// The frames that have rows in a file, by stream.
    fn frames_of(&self, file: &Live, watch: &dyn Fn(u64)) -> Result<Vec<(String, Vec<i64>)>, StorageError> {
        let path = self.path_of(&file.path)?;
        let mut frames: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        columns::read(&self.lake, &path, file.bytes, &rows::columns(self.table, false), |batch| {
            let mut streams = Vec::new();
            let parts = rows::parts(path.as_ref(), batch, |id, _| {
                streams.push(id.to_owned());
                streams.len() as u32 - 1
            })?;
            for part in parts {
                if let Some(stream) = streams.get(part.stream as usize) {
                    frames.entry(stream.clone()).or_default().insert(part.seq);
                }
            }
            watch(batch.num_rows() as u64);
            Ok(())
        })?;
        Ok(frames.into_iter().map(|(stream, seqs)| (stream, seqs.into_iter().collect())).collect())
    }
}
