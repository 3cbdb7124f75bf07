//! Readings that the descendants of cgminer tell alike: `summary` and `pools`.

use racklake_schemas::fail_code;
use racklake_schemas::tables::miner_sample as miner;

use super::exchange::Trouble;
use super::filler::Filler;
use super::json::Json;
use super::pool_url::without_secrets;
use super::recipe::Form::{Float, Integer};
use super::recipe::{Place, at, text_at, truth_at, walk};

/// Columns of the pool in use, which are empty where none is.
pub(super) const POOL_COLUMNS: [usize; 3] = [miner::POOL_URL, miner::POOL_STATUS, miner::POOL_DIFFICULTY];

/// What `summary` tells.
pub(super) const SUMMARY: &[Place] = &[
    at(miner::ACCEPTED_SHARES, "summary", "SUMMARY/0/Accepted", Integer(0)),
    at(miner::REJECTED_SHARES, "summary", "SUMMARY/0/Rejected", Integer(0)),
    at(miner::STALE_SHARES, "summary", "SUMMARY/0/Stale", Integer(0)),
    at(miner::HARDWARE_ERRORS, "summary", "SUMMARY/0/Hardware Errors", Integer(0)),
    at(miner::ACCEPTED_DIFFICULTY, "summary", "SUMMARY/0/Difficulty Accepted", Float),
    at(miner::REJECTED_DIFFICULTY, "summary", "SUMMARY/0/Difficulty Rejected", Float),
    at(miner::STALE_DIFFICULTY, "summary", "SUMMARY/0/Difficulty Stale", Float),
    at(miner::DISCARDED_WORK, "summary", "SUMMARY/0/Discarded", Integer(0)),
    at(miner::BLOCKS_FOUND, "summary", "SUMMARY/0/Found Blocks", Integer(0)),
    at(miner::BEST_SHARE_DIFFICULTY, "summary", "SUMMARY/0/Best Share", Float),
    at(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS av", Integer(6)),
    at(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, "summary", "SUMMARY/0/GHS av", Integer(9)),
    at(miner::HASHRATE_5S_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 5s", Integer(6)),
    at(miner::HASHRATE_5S_HASHES_PER_SECOND, "summary", "SUMMARY/0/GHS 5s", Integer(9)),
    at(miner::HASHRATE_1M_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 1m", Integer(6)),
    at(miner::HASHRATE_1M_HASHES_PER_SECOND, "summary", "SUMMARY/0/GHS 1m", Integer(9)),
    at(miner::HASHRATE_5M_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 5m", Integer(6)),
    at(miner::HASHRATE_5M_HASHES_PER_SECOND, "summary", "SUMMARY/0/GHS 5m", Integer(9)),
    at(miner::HASHRATE_15M_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 15m", Integer(6)),
    at(miner::HASHRATE_15M_HASHES_PER_SECOND, "summary", "SUMMARY/0/GHS 15m", Integer(9)),
    at(miner::HASHRATE_30M_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 30m", Integer(6)),
    at(miner::HASHRATE_30M_HASHES_PER_SECOND, "summary", "SUMMARY/0/GHS 30m", Integer(9)),
    at(miner::HASHRATE_24H_HASHES_PER_SECOND, "summary", "SUMMARY/0/MHS 24h", Integer(6)),
    at(miner::HASHRATE_24H_HASHES_PER_SECOND, "summary", "SUMMARY/0/GHS 24h", Integer(9)),
    at(miner::UPTIME_SECONDS, "summary", "SUMMARY/0/Elapsed", Integer(0)),
];

/// One pool in the words of the firmware that lists it.
pub(super) struct Words {
    /// Member with the URL.
    pub(super) url: &'static str,
    /// Member that says in a word, or by being true, how it is.
    pub(super) status: &'static str,
    /// What that word is where the pool answers.
    pub(super) alive: &'static [&'static str],
    /// Member that is true where the pool is in use.
    pub(super) active: &'static str,
    /// Way to the difficulty that it asks for.
    pub(super) difficulty: &'static str,
}

/// A pool as cgminer's descendants print it.
pub(super) const WORDS: Words = Words {
    url: "URL",
    status: "Status",
    alive: &["alive"],
    active: "Stratum Active",
    difficulty: "Stratum Difficulty",
};

impl Words {
    /// Whether a pool answers.
    pub(super) fn is_alive(&self, pool: &Json) -> bool {
        match walk(pool, self.status) {
            Some(Json::Bool(alive)) => *alive,
            other => other.and_then(Json::text).is_some_and(|word| self.alive.contains(&&*word.to_ascii_lowercase())),
        }
    }
}

/// Reads the pools. Gives how many answer; `None` where the reply does not say.
pub(super) fn fill_pools<'a>(
    filler: &mut Filler<'_>,
    pools: Result<Vec<&'a Json>, Trouble>,
    words: &Words,
) -> Option<usize> {
    let pools = match pools {
        Ok(pools) => pools,
        Err(trouble) => {
            filler.fail(&[miner::POOLS_ALIVE, miner::POOLS_CONFIGURED], trouble);
            filler.fail(&POOL_COLUMNS, trouble);
            return None;
        }
    };
    let alive = pools.iter().filter(|pool| words.is_alive(pool)).count();
    filler.read(miner::POOLS_ALIVE, alive as i64);
    filler.read(miner::POOLS_CONFIGURED, pools.len() as i64);
    if let Some(active) = pools.iter().find(|pool| truth_at(pool, words.active) == Some(true)) {
        match active.text_of(words.url).map(without_secrets) {
            None => filler.absent(miner::POOL_URL),
            Some(Some(url)) => filler.word(miner::POOL_URL, Some(&url)),
            Some(None) => filler.row.fail(miner::POOL_URL, fail_code::UNPARSABLE),
        }
        match walk(active, words.status) {
            Some(Json::Bool(alive)) => filler.word(miner::POOL_STATUS, Some(if *alive { "alive" } else { "dead" })),
            other => filler.word(miner::POOL_STATUS, other.and_then(Json::text)),
        }
        match text_at(active, words.difficulty) {
            Some(difficulty) => filler.float(miner::POOL_DIFFICULTY, Some(difficulty)),
            None => filler.absent(miner::POOL_DIFFICULTY),
        }
    }
    Some(alive)
}
