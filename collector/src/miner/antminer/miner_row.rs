//! The row of an Antminer.

use racklake_schemas::tables::{MINER_SAMPLE, miner_sample as miner};
use racklake_schemas::{Row, fail_code};

use super::super::exchange::{Trouble, section};
use super::super::filler::{Filler, Keys};
use super::super::json::Json;
use super::super::pools;
use super::super::reader::Replies;
use super::boards::{Boards, maximum, mean, measured};
use super::stats::{Rate, Stats, window_of};
use super::web;

/// What one poll brought.
pub(super) struct Parts<'a> {
    /// The entry of `summary`.
    pub(super) summary: Option<&'a Json>,
    /// The entry of `summary.cgi`.
    pub(super) web_summary: Option<&'a Json>,
    pub(super) stats: Option<Stats<'a>>,
    pub(super) pools: Option<&'a [Json]>,
    /// `miner-mode`.
    pub(super) mode: Option<&'a str>,
    /// Why there is no `summary`, `stats`, `pools`, mode and list of errors.
    summary_trouble: Option<Trouble>,
    stats_trouble: Option<Trouble>,
    pools_trouble: Option<Trouble>,
    mode_trouble: Option<Trouble>,
    errors_trouble: Option<Trouble>,
}

impl<'a> Parts<'a> {
    /// The parts of all replies.
    pub(super) fn of(replies: &'a Replies) -> Parts<'a> {
        let entry = |command: &str| section(replies.ok(command)?, "SUMMARY").ok()?.first();
        let list = |command: &str| section(replies.ok(command)?, "POOLS").ok();
        let stats = Stats::of(replies);
        let conf = replies.ok(web::CONF);
        let mode = stats.and_then(|stats| stats.text("miner-mode", "miner-mode"));
        let mode = mode.or_else(|| web::MODES.iter().find_map(|name| conf?.text_of(name)));
        // A reply that came and has not what it should is as good as none.
        let trouble = |command: &str| match replies.get(command) {
            Some(Err(trouble)) => Some(trouble),
            Some(Ok(_)) => Some(Trouble::Unreadable),
            None => None,
        };
        let summary = entry("summary");
        let web_summary = entry(web::SUMMARY);
        let pools = list("pools").or_else(|| list(web::POOLS));
        Parts {
            summary,
            web_summary,
            stats,
            pools,
            mode,
            summary_trouble: if summary.is_none() { trouble("summary") } else { None },
            stats_trouble: if stats.is_none() { trouble("stats").or(trouble("summary")) } else { None },
            pools_trouble: if pools.is_none() { trouble("pools").or(trouble("summary")) } else { None },
            mode_trouble: if conf.is_none() { trouble(web::CONF) } else { None },
            errors_trouble: if web_summary.is_none() { trouble(web::SUMMARY) } else { None },
        }
    }

    /// Whether any reply can be read.
    pub(super) fn is_empty(&self) -> bool {
        self.summary.is_none() && self.web_summary.is_none() && self.stats.is_none() && self.pools.is_none()
    }

    /// The list `status` of `summary.cgi`.
    pub(super) fn status(&self) -> Option<&'a [Json]> {
        match self.web_summary?.get("status") {
            Some(Json::List(items)) => Some(items),
            _ => None,
        }
    }

    /// The hashrate over a window, from whichever reply has it.
    fn window(&self, window: &str) -> Rate<'a> {
        let names = self.stats.and_then(|stats| stats.unit_of_names());
        let summary = self.summary.map_or(Rate::Absent, |summary| window_of(summary, window, names));
        let stats = self.stats.map_or(Rate::Absent, |stats| stats.window(window));
        let web = if window == "av" { "rate_avg".to_owned() } else { format!("rate_{window}") };
        summary.or(stats).or(self.web_rate(&web))
    }

    fn web_rate(&self, name: &str) -> Rate<'a> {
        let Some(entry) = self.web_summary else { return Rate::Absent };
        let unit = entry.text_of("rate_unit").and_then(super::super::rate::exponent);
        super::stats::rate_of(Some((entry, name, unit)))
    }
}

/// A row that is being read.
struct Reading<'f, 'k, 'a> {
    filler: &'f mut Filler<'k>,
    parts: &'f Parts<'a>,
}

/// The row, without state, reason and error codes.
pub(super) fn miner_row(parts: &Parts<'_>, boards: Option<&Boards<'_>>, has_login: bool, keys: &mut Keys) -> Row {
    let mut filler = Filler::new(&MINER_SAMPLE, keys);
    let mut reading = Reading { filler: &mut filler, parts };
    reading.rates();
    reading.shares();
    reading.machine();
    reading.boards(boards);
    match parts.pools {
        Some(list) => pools::fill(reading.filler, list),
        None => reading.fail_or_absent(&pools::COLUMNS, parts.pools_trouble),
    }
    match (parts.mode, parts.mode_trouble) {
        (Some(mode), _) => filler.word(miner::POWER_MODE, Some(mode)),
        // The mode is told to those who have a password.
        (None, None) if !has_login => filler.row.fail(miner::POWER_MODE, fail_code::REFUSED),
        (None, Some(trouble)) => filler.fail(&[miner::POWER_MODE], trouble),
        (None, None) => filler.absent(miner::POWER_MODE),
    }
    match (parts.status(), parts.errors_trouble) {
        (Some(_), _) => {}
        (None, Some(trouble)) => filler.fail(&[miner::ERROR_CODES], trouble),
        (None, None) if !has_login => filler.row.fail(miner::ERROR_CODES, fail_code::REFUSED),
        (None, None) => filler.absent(miner::ERROR_CODES),
    }
    filler.finish(&[&NULLABLE])
}

impl Reading<'_, '_, '_> {
    fn fail_or_absent(&mut self, columns: &[usize], trouble: Option<Trouble>) {
        match trouble {
            Some(trouble) => self.filler.fail(columns, trouble),
            None => columns.iter().for_each(|column| self.filler.absent(*column)),
        }
    }

    /// A number, or why there is none.
    fn integer(&mut self, column: usize, text: Option<&str>, shift: i32, trouble: Option<Trouble>) {
        match text {
            Some(_) => self.filler.integer(column, text, shift),
            None => self.fail_or_absent(&[column], trouble),
        }
    }

    fn rate(&mut self, column: usize, rate: Rate<'_>, trouble: Option<Trouble>) {
        match rate {
            Rate::Absent => self.fail_or_absent(&[column], trouble),
            rate => rate.fill(self.filler, column),
        }
    }

    fn rates(&mut self) {
        let parts = self.parts;
        // Either reply has the windows, so one that failed is missed only where the other does not have them either.
        let trouble = parts.summary_trouble.or(parts.stats_trouble);
        let told = |name: &str| Rate::of_text(parts.summary.and_then(|summary| summary.text_of(name)));
        self.rate(miner::HASHRATE_5S_HASHES_PER_SECOND, parts.window("5s"), trouble);
        self.rate(miner::HASHRATE_AVERAGE_HASHES_PER_SECOND, parts.window("av"), trouble);
        self.rate(miner::HASHRATE_30M_HASHES_PER_SECOND, parts.window("30m"), trouble);
        self.rate(miner::HASHRATE_HASHES_PER_SECOND, told("RT HASHRATE"), None);
        let stats = parts.stats.map_or(Rate::Absent, |stats| stats.rate("total_rateideal", "rate_ideal"));
        let ideal = stats.or(told("THEORY HASHRATE")).or(parts.web_rate("rate_ideal"));
        self.rate(miner::HASHRATE_EXPECTED_HASHES_PER_SECOND, ideal, parts.stats_trouble);
    }

    /// Shares of the whole miner; without `summary` they are the sums over its pools.
    fn shares(&mut self) {
        let parts = self.parts;
        let trouble = parts.summary_trouble;
        let pools = |names: &[&str]| if parts.summary.is_none() { pools::sum(parts.pools?, names) } else { None };
        for (column, name, of_pool) in [
            (miner::ACCEPTED_SHARES, "Accepted", "accepted"),
            (miner::REJECTED_SHARES, "Rejected", "rejected"),
            (miner::STALE_SHARES, "Stale", "stale"),
            (miner::DISCARDED_WORK, "Discarded", "discarded"),
        ] {
            match pools(&[name, of_pool]) {
                Some(sum) => self.filler.read(column, sum),
                None => self.integer(column, parts.summary.and_then(|summary| summary.text_of(name)), 0, trouble),
            }
        }
        for (column, name, of_pool) in [
            (miner::ACCEPTED_DIFFICULTY, "Difficulty Accepted", "diffa"),
            (miner::REJECTED_DIFFICULTY, "Difficulty Rejected", "diffr"),
            (miner::STALE_DIFFICULTY, "Difficulty Stale", "diffs"),
        ] {
            match (pools(&[name, of_pool]), parts.summary) {
                (Some(sum), _) => self.filler.read(column, sum as f64),
                (None, Some(summary)) => self.filler.float(column, summary.text_of(name)),
                (None, None) => self.fail_or_absent(&[column], trouble),
            }
        }
        let found = parts.summary.and_then(|summary| summary.text_of("Found Blocks"));
        self.integer(miner::BLOCKS_FOUND, found, 0, trouble);
        // 0 beside shares is a firmware that does not follow it.
        let best = parts.summary.and_then(|summary| summary.text_of("Best Share"));
        let best = best.or_else(|| parts.web_summary.and_then(|summary| summary.text_of("bestshare")));
        match best.filter(|best| super::super::decimal::shifted(best, 0) != Ok(0)) {
            Some(best) => self.filler.float(miner::BEST_SHARE_DIFFICULTY, Some(best)),
            None => self.fail_or_absent(&[miner::BEST_SHARE_DIFFICULTY], trouble),
        }
    }

    fn machine(&mut self) {
        let parts = self.parts;
        let summary = |name: &str| parts.summary.and_then(|summary| summary.text_of(name));
        let web = |name: &str| parts.web_summary.and_then(|summary| summary.text_of(name));
        let stats = |flat: &str, nested: &str| parts.stats.and_then(|stats| stats.text(flat, nested));
        let errors =
            summary("Hardware Errors").or_else(|| stats("no_matching_work", "hw_all")).or_else(|| web("hw_all"));
        self.integer(miner::HARDWARE_ERRORS, errors, 0, parts.summary_trouble);
        let elapsed = summary("Elapsed").or_else(|| stats("Elapsed", "elapsed")).or_else(|| web("elapsed"));
        self.integer(miner::UPTIME_SECONDS, elapsed, 0, parts.summary_trouble);
        let frequency = stats("total_freqavg", "").or_else(|| stats("frequency", "frequency"));
        self.integer(miner::FREQUENCY_KILOHERTZ, frequency, 3, parts.stats_trouble);
        let watts = parts.stats.and_then(|stats| stats.watts());
        self.integer(miner::POWER_ESTIMATED_MILLIWATTS, watts, 3, parts.stats_trouble);
        let fans = parts.stats.map(|stats| stats.fans()).unwrap_or_default();
        for (at, column) in FANS.into_iter().enumerate() {
            self.integer(column, fans.get(at).copied().flatten(), 0, parts.stats_trouble);
        }
    }

    fn boards(&mut self, boards: Option<&Boards<'_>>) {
        let Some(boards) = boards else {
            return self.fail_or_absent(&BOARD_COLUMNS, self.parts.stats_trouble);
        };
        self.filler.read(miner::BOARDS_FOUND, boards.found as i64);
        if self.parts.mode.is_some_and(super::judge::is_sleep) {
            return;
        }
        let mut chips = boards.chip_sensors();
        measured(self.filler, miner::CHIP_TEMP_AVERAGE_CELSIUS, &chips, mean);
        chips.extend(boards.hottest());
        measured(self.filler, miner::CHIP_TEMP_MAX_CELSIUS, &chips, maximum);
        measured(self.filler, miner::PCB_TEMP_MAX_CELSIUS, &boards.board_sensors(), maximum);
    }
}

const BOARD_COLUMNS: [usize; 4] =
    [miner::BOARDS_FOUND, miner::CHIP_TEMP_MAX_CELSIUS, miner::CHIP_TEMP_AVERAGE_CELSIUS, miner::PCB_TEMP_MAX_CELSIUS];

const FANS: [usize; 6] =
    [miner::FAN_1_RPM, miner::FAN_2_RPM, miner::FAN_3_RPM, miner::FAN_4_RPM, miner::FAN_5_RPM, miner::FAN_6_RPM];

/// Columns that may be null without having failed, and those that are not read here. What is not read and not among
/// them stock firmware tells nowhere.
const NULLABLE: [usize; 8] = [
    miner::POOL_URL,
    miner::POOL_STATUS,
    miner::POOL_DIFFICULTY,
    miner::CHIP_TEMP_MAX_CELSIUS,
    miner::CHIP_TEMP_AVERAGE_CELSIUS,
    miner::PCB_TEMP_MAX_CELSIUS,
    miner::STATE,
    miner::ERROR_CODES,
];
