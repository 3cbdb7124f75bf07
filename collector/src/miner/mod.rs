//! Reads miners: whom to ask, how many at once, and what a poll says of a miner's past.
//!
//! Firmwares allow few clients and answer badly under load, so a miner never has more than one poll in flight and never
//! more than one connection. Every answer, and the lack of one, is a state of the miner; nothing here fails. It does not
//! promise values that belong to one instant: a poll is a few commands, some milliseconds apart.

mod avalon;
mod decimal;
mod exchange;
mod filler;
mod identity;
mod json;
mod key_text;
mod poll;
mod pool_url;
mod reader;
mod readers;
mod session;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::Table;
use racklake_schemas::tables::MINER_SAMPLE;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::config::{MinerConfig, MinersConfig};
use crate::place::locked;
use crate::source::{BoxFuture, EventSink, Found, Reading, Source, SourceError};

use exchange::Trouble;
use poll::{Known, Poll};
use readers::reader;
use state::State;

/// Connections at once, to all miners together.
const CONNECTIONS_MAX: usize = 256;
/// How many timeouts a poll may last.
const POLL_TIMEOUTS: u32 = 3;

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
    known: Arc<Mutex<Known>>,
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
            let before = before.remove(&config.endpoint()).filter(|miner| miner.config.make == config.make);
            let known = before.map_or_else(|| Arc::new(Mutex::new(Known::new(reader(config.make)))), |miner| miner.known);
            (config.endpoint(), Miner { config: config.clone(), known })
        };
        let miners = config.miners.iter().map(miner).collect();
        *settings = Settings { period: config.period, timeout: config.timeout, miners };
    }

    async fn poll(&self, address: &str, miner: &Miner) -> Reading {
        let timeout = locked(&self.settings).timeout;
        let mut known = miner.known.lock().await;
        // Waiting for others must not use up this miner's time; the semaphore is never closed.
        let _permit = self.connections.acquire().await.ok();
        let poll = Poll { address, reader: reader(miner.config.make), timeout, end: Instant::now() + timeout * POLL_TIMEOUTS };
        poll.run(&mut known).await
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
                    let row = poll::unreachable_row((State::Unreachable, Some(trouble.reason())), trouble, 0);
                    Reading { rows: vec![row], lifetime: vec![None], ..Reading::default() }
                }
            }
        })
    }
}
