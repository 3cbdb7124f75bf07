//! The state of a miner from facts that its firmware tells, for the makes that tell them alike.

use super::state::{Judged, State};

/// Mining programs take minutes to tune; without a hash by then it is a fault.
const START_SECONDS: i64 = 600;

/// What a firmware tells about what its miner does; `None` and empty is what it does not tell.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Sent to sleep, and why.
    pub(super) asleep: Option<&'static str>,
    /// Stopped, or about to be, for this reason.
    pub(super) fault: Option<&'static str>,
    /// The firmware says that it is on its way to mining.
    pub(super) is_starting: bool,
    /// Hashes per second of the whole miner.
    pub(super) rate: Option<i64>,
    /// Seconds since the mining program started.
    pub(super) uptime: Option<i64>,
    /// Pools that answer.
    pub(super) pools_alive: Option<usize>,
    /// Whether each board that the firmware tells of works.
    pub(super) boards: Vec<Option<bool>>,
    /// Boards that the model has.
    pub(super) boards_expected: Option<usize>,
    /// The firmware lists its boards, so that none in the list is none in the miner.
    pub(super) lists_boards: bool,
}

/// The state; `None` where the facts do not tell.
pub(super) fn judge(facts: &Facts) -> Option<Judged> {
    if let Some(reason) = facts.asleep {
        return Some((State::Sleeping, Some(reason)));
    }
    if let Some(reason) = facts.fault {
        return Some((State::Fault, Some(reason)));
    }
    let is_young = facts.uptime.is_some_and(|seconds| seconds < START_SECONDS);
    let is_hashing = facts.rate.is_some_and(|rate| rate > 0);
    if facts.lists_boards && facts.boards.is_empty() && !is_young {
        return Some((State::Fault, Some("no hash boards")));
    }
    if is_hashing {
        let works = facts.boards.iter().filter(|works| **works == Some(true)).count();
        let is_dead = facts.boards.contains(&Some(false));
        let is_gone = !facts.boards.is_empty() && facts.boards_expected.is_some_and(|all| facts.boards.len() < all);
        return Some(match () {
            () if facts.is_starting => (State::Mining, Some("starting")),
            () if (is_dead || is_gone) && works > 0 && !is_young => (State::Fault, Some("dead board")),
            () => (State::Mining, None),
        });
    }
    if facts.is_starting {
        return Some((State::Mining, Some("starting")));
    }
    facts.rate.map(|_| match () {
        () if is_young => (State::Mining, Some("starting")),
        () if facts.pools_alive == Some(0) => (State::Fault, Some("no pool")),
        () => (State::Fault, Some("no hashrate")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_told_apart() {
        let mining = || Facts { rate: Some(9), uptime: Some(9000), ..Facts::default() };
        let boards = |boards: &[Option<bool>]| Facts { boards: boards.to_vec(), lists_boards: true, ..mining() };
        for (facts, state) in [
            (mining(), Some((State::Mining, None))),
            (Facts { asleep: Some("curtailed"), ..mining() }, Some((State::Sleeping, Some("curtailed")))),
            (Facts { fault: Some("overheat"), rate: Some(0), ..mining() }, Some((State::Fault, Some("overheat")))),
            (boards(&[]), Some((State::Fault, Some("no hash boards")))),
            (boards(&[Some(true), Some(false)]), Some((State::Fault, Some("dead board")))),
            (boards(&[Some(true), None]), Some((State::Mining, None))),
            (Facts { boards_expected: Some(3), ..boards(&[Some(true)]) }, Some((State::Fault, Some("dead board")))),
            (Facts { uptime: Some(9), ..boards(&[Some(true), Some(false)]) }, Some((State::Mining, None))),
            (Facts { rate: Some(0), uptime: Some(9), ..mining() }, Some((State::Mining, Some("starting")))),
            (Facts { rate: Some(0), ..mining() }, Some((State::Fault, Some("no hashrate")))),
            (Facts { rate: Some(0), pools_alive: Some(0), ..mining() }, Some((State::Fault, Some("no pool")))),
            (Facts { rate: Some(0), is_starting: true, ..mining() }, Some((State::Mining, Some("starting")))),
            (Facts::default(), None),
        ] {
            assert_eq!(judge(&facts), state, "{facts:?}");
        }
    }
}
