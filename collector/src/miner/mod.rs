//! Reads miners over their cgminer API: JSON on a TCP connection per command, one command after another.
//!
//! Firmwares allow few clients and answer badly under load, so a miner never has more than one poll in flight and never
//! more than one connection. Every answer, and the lack of one, is a state of the miner; nothing here fails. It does not
//! promise values that belong to one instant: a poll is three commands, some milliseconds apart.

mod avalon;
mod decimal;
mod exchange;
mod identity;
mod json;
mod key_text;
mod pool_url;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::tables::{MINER_SAMPLE, miner_sample};
use racklake_schemas::{Cell, Row, Table, fail_code, row_status};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::config::{Make, MinerConfig, MinersConfig};
use crate::place::locked;
use crate::source::{BoxFuture, EventDraft, EventSink, Found, Identity, Reading, Source, SourceError};

use avalon::{Keys, Replies, Stats};
use exchange::{Trouble, ask};
use identity::{Beside, identity};
use json::Json;
use state::{Judged, State};

/// Connections at once, to all miners together.
const CONNECTIONS_MAX: usize = 256;
/// How many timeouts a poll may last; it has this many commands.
const POLL_TIMEOUTS: u32 = 3;
/// How often the identity is read again while nothing calls for it.
const IDENTITY_PERIOD: Duration = Duration::from_secs(3600);

/// All configured miners.
pub struct MinerSource {
    settings: std::sync::Mutex<Settings>,
    connections: Semaphore,
}

/// What a changed config may change.
struct Settings {
    period: Duration,
    timeout: Duration,
    /// By address.
    miners: BTreeMap<String, Miner>,
}

#[derive(Clone)]
struct Miner {
    config: MinerConfig,
    /// Held for the length of a poll.
    memory: Arc<Mutex<Memory>>,
}

/// What is known from earlier polls.
#[derive(Default)]
struct Memory {
    state: Option<State>,
    /// When `version` was last read.
    identified: Option<Instant>,
    /// Something has happened since that calls for reading it again.
    is_doubtful: bool,
    dna: Option<String>,
    uptime: Option<i64>,
    /// The firmware tells about the machine in `estats` only.
    wants_estats: bool,
    keys: Keys,
    /// Bits that the last good row had no support for.
    unsupported_mask: i64,
}

impl MinerSource {
    /// The miners of a config. All that happens to them belongs to a read, so nothing goes into the sink.
    pub fn new(config: &MinersConfig, _events: EventSink) -> MinerSource {
        let settings = Settings { period: config.period, timeout: config.timeout, miners: BTreeMap::new() };
        let source =
            MinerSource { settings: std::sync::Mutex::new(settings), connections: Semaphore::new(CONNECTIONS_MAX) };
        source.change(config);
        source
    }

    /// Takes over other settings and another list of miners. What is known of a miner that stays is kept.
    pub(crate) fn change(&self, config: &MinersConfig) {
        let mut settings = locked(&self.settings);
        let mut before = std::mem::take(&mut settings.miners);
        let miner = |config: &MinerConfig| {
            let memory = before.remove(&config.endpoint()).map(|miner| miner.memory).unwrap_or_default();
            (config.endpoint(), Miner { config: config.clone(), memory })
        };
        let miners = config.miners.iter().map(miner).collect();
        *settings = Settings { period: config.period, timeout: config.timeout, miners };
    }

    async fn poll(&self, address: &str, miner: &Miner) -> Reading {
        let timeout = locked(&self.settings).timeout;
        let mut memory = miner.memory.lock().await;
        // Waiting for others must not use up this miner's time; the semaphore is never closed.
        let _permit = self.connections.acquire().await.ok();
        let poll = Poll { address, end: Instant::now() + timeout * POLL_TIMEOUTS, timeout };
        let replies = poll.replies(&mut memory).await;
        let judged = match (&replies.summary, &replies.stats, &replies.pools) {
            (Err(summary), Err(stats), Err(pools)) => Some(state::without_replies([*summary, *stats, *pools])),
            (summary, stats, pools) => {
                state::from_replies(summary.as_ref().ok(), stats.as_ref().ok(), pools.as_ref().ok())
            }
        };
        let rows = rows(&replies, judged, &mut memory);
        let uptime = rows.first().and_then(|row| integer(row, miner_sample::UPTIME_SECONDS));
        let identity = poll.identity(miner, &replies, judged, uptime, &mut memory).await;
        let events = memory.follow(address, judged, &replies).into_iter().collect();
        Reading { rows, identity, lifetime: vec![uptime], events, ..Reading::default() }
    }
}

impl Source for MinerSource {
    fn name(&self) -> &'static str {
        "miner"
    }

    fn tiers(&self) -> &'static [&'static Table] {
        const TIERS: [&Table; 1] = [&MINER_SAMPLE];
        &TIERS
    }

    fn period(&self, _table: &'static Table) -> Duration {
        locked(&self.settings).period
    }

    fn deadline(&self, _table: &'static Table) -> Duration {
        locked(&self.settings).timeout * POLL_TIMEOUTS + Duration::from_secs(1)
    }

    fn is_listed_by_config(&self) -> bool {
        true
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Found>, SourceError>> {
        let found = |(address, miner): (&String, &Miner)| Found {
            address: address.clone(),
            rack: miner.config.rack.clone(),
            identity: None,
        };
        let miners = locked(&self.settings).miners.iter().map(found).collect();
        Box::pin(std::future::ready(Ok(miners)))
    }

    fn read<'a>(&'a self, address: &'a str, _table: &'static Table) -> BoxFuture<'a, Reading> {
        Box::pin(async move {
            let miner = locked(&self.settings).miners.get(address).cloned();
            match miner {
                Some(miner) => self.poll(address, &miner).await,
                None => {
                    let trouble = Trouble::NoConnection("no such miner is configured");
                    let row = unreachable_row((State::Unreachable, Some(trouble.reason())), trouble, 0);
                    Reading { rows: vec![row], lifetime: vec![None], ..Reading::default() }
                }
            }
        })
    }
}

/// One poll of one miner.
struct Poll<'a> {
    address: &'a str,
    /// The poll is over by then.
    end: Instant,
    /// What one command may take.
    timeout: Duration,
}

impl Poll<'_> {
    async fn ask(&self, command: &str, section: &str) -> Result<Json, Trouble> {
        let left = self.end.saturating_duration_since(Instant::now());
        ask(self.address, command, section, left.min(self.timeout)).await
    }

    /// The first entry of a reply.
    async fn ask_entry(&self, command: &str, section: &str) -> Result<Json, Trouble> {
        match self.ask(command, section).await? {
            Json::List(items) => items.into_iter().next().ok_or(Trouble::Unreadable),
            _ => Err(Trouble::Unreadable),
        }
    }

    async fn replies(&self, memory: &mut Memory) -> Replies {
        let summary = self.ask_entry("summary", "SUMMARY").await;
        if let Err(trouble @ Trouble::NoConnection(_)) = summary {
            return Replies { summary, stats: Err(trouble), pools: Err(trouble) };
        }
        let stats = self.stats(memory).await;
        let pools = self.ask("pools", "POOLS").await;
        Replies { summary, stats, pools }
    }

    /// `stats`, or `estats` where the firmware tells about the machine only there.
    async fn stats(&self, memory: &mut Memory) -> Result<Stats, Trouble> {
        let commands = if memory.wants_estats { ["estats", "stats"] } else { ["stats", "estats"] };
        let first = match self.ask(commands[0], "STATS").await {
            Ok(list) => Stats::of(&list).ok_or(Trouble::Declined),
            Err(trouble) => Err(trouble),
        };
        if !matches!(first, Err(Trouble::Declined)) {
            return first;
        }
        let list = self.ask(commands[1], "STATS").await?;
        let stats = Stats::of(&list).ok_or(Trouble::Unreadable)?;
        memory.wants_estats = !memory.wants_estats;
        Ok(stats)
    }

    /// The identity where there is a reason to read it: none yet, an hour ago, unreachable since, restarted, or another
    /// serial number.
    async fn identity(
        &self,
        miner: &Miner,
        replies: &Replies,
        judged: Option<Judged>,
        uptime: Option<i64>,
        memory: &mut Memory,
    ) -> Option<Identity> {
        if judged.is_some_and(|(state, _)| state == State::Unreachable) {
            memory.is_doubtful = true;
            return None;
        }
        let stats = replies.stats.as_ref().ok();
        let dna = stats.and_then(|stats| stats.text.get("DNA"));
        let restarted = matches!((uptime, memory.uptime), (Some(now), Some(last)) if now < last);
        let other = matches!((dna, &memory.dna), (Some(now), Some(last)) if now != last);
        memory.uptime = uptime.or(memory.uptime);
        memory.dna = dna.map(str::to_owned).or_else(|| memory.dna.take());
        memory.is_doubtful |= restarted || other;
        if memory.identified.is_some_and(|when| when.elapsed() < IDENTITY_PERIOD) && !memory.is_doubtful {
            return None;
        }
        let version = self.ask_entry("version", "VERSION").await.ok();
        let beside = Beside {
            make: miner.config.make.unwrap_or(Make::Avalon).name(),
            address: self.address,
            dna,
            chips: stats.and_then(avalon::chips),
        };
        let read = identity(version.as_ref(), &beside);
        if version.is_some() {
            memory.identified = Some(Instant::now());
            memory.is_doubtful = false;
        } else if read.device_id.is_none() || memory.identified.is_some() && !other {
            // What `stats` alone says is better than nothing, and worse than what was read before.
            return None;
        }
        Some(read)
    }
}

impl Memory {
    /// The event that tells of another state than that of before. The first one is told unless it is mining.
    fn follow(&mut self, address: &str, judged: Option<Judged>, replies: &Replies) -> Option<EventDraft> {
        let (state, reason) = judged?;
        let before = self.state.replace(state);
        if before.unwrap_or(State::Mining) == state {
            return None;
        }
        let cause = replies.summary.as_ref().err().and_then(|trouble| trouble.cause());
        let words: Vec<&str> = [reason, cause].into_iter().flatten().collect();
        let why = if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) };
        let details = serde_json::json!({
            "from": before.map(State::name), "to": state.name(), "reason": reason, "cause": cause,
        });
        let message = format!("the miner at {address} is {}{why}", state.name());
        let draft = EventDraft::new("miner_state", "miner", state.severity(), message).about(address);
        Some(EventDraft { details_json: Some(details.to_string()), ..draft })
    }
}

/// The row of the miner, then those of its boards.
fn rows(replies: &Replies, judged: Option<Judged>, memory: &mut Memory) -> Vec<Row> {
    if let (Some(judged), Err(summary), Err(_), Err(_)) = (judged, &replies.summary, &replies.stats, &replies.pools) {
        return vec![unreachable_row(judged, *summary, memory.unsupported_mask)];
    }
    if let Ok(stats) = &replies.stats {
        memory.keys.learn_model(stats);
    }
    let state = judged.map(|(state, _)| state);
    let mut row = avalon::miner_row(replies, state, &mut memory.keys);
    if replies.stats.is_ok() {
        memory.unsupported_mask = row.unsupported_mask();
    }
    match judged {
        Some((state, reason)) => {
            row.set(miner_sample::STATE, state.name());
            row.set(miner_sample::STATE_REASON, reason);
        }
        None => {
            let code = replies.stats.as_ref().err().map_or(fail_code::UNPARSABLE, |trouble| trouble.code());
            row.fail(miner_sample::STATE, code);
        }
    }
    let mut rows = vec![row];
    if let Ok(stats) = &replies.stats {
        rows.extend(avalon::board_rows(stats, state, &mut memory.keys));
    }
    rows
}

/// The row of a miner that told nothing.
fn unreachable_row((state, reason): Judged, trouble: Trouble, unsupported_mask: i64) -> Row {
    let mut row = Row::new(&MINER_SAMPLE);
    for (index, column) in MINER_SAMPLE.columns.iter().enumerate() {
        if column.bit.is_some_and(|bit| unsupported_mask & (1 << bit) != 0) {
            row.unsupported(index);
        }
    }
    row.set(miner_sample::STATE, state.name());
    row.set(miner_sample::STATE_REASON, reason);
    row.fail_all(if state == State::Refused { fail_code::REFUSED } else { trouble.code() });
    if state == State::Unreachable {
        row.set_status(row_status::UNREACHABLE);
    }
    row
}

fn integer(row: &Row, column: usize) -> Option<i64> {
    match row.cell(column) {
        Cell::I64(value) => Some(*value),
        _ => None,
    }
}
