//! What is remembered of a GPU from read to read. It is new with every loaded library, so that a driver that comes back is
//! asked for everything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use racklake_schemas::Table;

use super::raw::GpmSample;

/// After so long a device is asked again for what it lacked, since a driver may have changed beneath us, and told again
/// what cannot be.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// A column of a table, and of a link where the table is about links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    table: u32,
    link: Option<u32>,
    column: usize,
}

impl Place {
    pub(super) fn new(table: &Table, link: Option<u32>, column: usize) -> Place {
        Place { table: table.number, link, column }
    }
}

/// What is remembered of one GPU. It must not outlive the library, whose memory it holds.
#[derive(Default)]
pub(super) struct Memory<'a> {
    /// What the device does not support, and since when that is known.
    unsupported: HashMap<Place, Instant>,
    /// What could not be a value, and when that was told.
    implausible: HashMap<Place, Instant>,
    /// Versions of structs that the library knows, by their place among those that are tried.
    pub(super) remaps_version: usize,
    pub(super) fabric_version: usize,
    /// The last sample of GPM, and when it was taken.
    pub(super) gpm: Option<(Instant, GpmSample<'a>)>,
    /// State of each link when it was last read.
    link_states: HashMap<u32, i64>,
    /// How long the call behind each column took, where that is wanted.
    timings: Option<HashMap<Place, Duration>>,
    /// Why a column has no value, likewise.
    codes: HashMap<Place, i32>,
}

impl Memory<'_> {
    /// From now on keeps how long the call behind each column took.
    pub(super) fn time_columns(&mut self) {
        self.timings.get_or_insert_default();
    }

    /// How long the call behind a column took; columns of one call took it together.
    pub(super) fn timing(&self, place: Place) -> Option<Duration> {
        self.timings.as_ref().and_then(|timings| timings.get(&place).copied())
    }

    /// The call behind these columns began then and has ended now.
    pub(super) fn took(&mut self, places: &[Place], began: Instant) {
        if let Some(timings) = &mut self.timings {
            let took = began.elapsed();
            timings.extend(places.iter().map(|place| (*place, took)));
        }
    }

    /// Why a column had no value when it was last asked for.
    pub(super) fn code(&self, place: Place) -> Option<i32> {
        self.codes.get(&place).copied()
    }

    /// A column has no value, because of that code.
    pub(super) fn refused(&mut self, place: Place, code: i32) {
        if self.timings.is_some() {
            self.codes.insert(place, code);
        }
    }

    /// Forgets what is an hour old.
    pub(super) fn age(&mut self) {
        self.unsupported.retain(|_, since| since.elapsed() < FORGET_AFTER);
        self.implausible.retain(|_, since| since.elapsed() < FORGET_AFTER);
    }

    pub(super) fn is_unsupported(&self, place: Place) -> bool {
        self.unsupported.contains_key(&place)
    }

    pub(super) fn set_unsupported(&mut self, place: Place) {
        self.unsupported.insert(place, Instant::now());
    }

    /// Whether an implausible value is to be told: once an hour.
    pub(super) fn tells_implausible(&mut self, place: Place) -> bool {
        let first = !self.implausible.contains_key(&place);
        if first {
            self.implausible.insert(place, Instant::now());
        }
        first
    }

    /// Takes note of a link's state; where it has changed, what the link lacked before is asked for again.
    pub(super) fn link_state(&mut self, link: u32, state: i64) {
        if self.link_states.insert(link, state).is_some_and(|before| before != state) {
            self.unsupported.retain(|place, _| place.link != Some(link));
        }
    }
}

#[cfg(test)]
mod tests {
    use racklake_schemas::tables::GPU_LINK_SAMPLE;

    use super::*;

    #[test]
    fn a_link_that_comes_up_is_asked_for_what_it_lacked() {
        let mut memory = Memory::default();
        let places = [3, 4].map(|link| Place::new(&GPU_LINK_SAMPLE, Some(link), 20));
        memory.link_state(3, 0);
        places.into_iter().for_each(|place| memory.set_unsupported(place));
        memory.link_state(3, 0);
        assert!(memory.is_unsupported(places[0]));
        memory.link_state(3, 1);
        assert_eq!(places.map(|place| memory.is_unsupported(place)), [false, true]);
    }
}
