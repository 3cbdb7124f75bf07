//! Reads miners: whom to ask, how many at once, and what a poll says of a miner's past.
//!
//! Firmwares allow few clients and answer badly under load, so a miner never has more than one poll in flight and never
//! more than one connection. Every answer, and the lack of one, is a state of the miner; nothing here fails. It does not
//! promise values that belong to one instant: a poll is a few commands, some milliseconds apart.

mod avalon;
mod braiins;
mod cgminer;
mod decimal;
mod exchange;
mod filler;
mod identity;
mod json;
mod judge;
mod key_text;
mod luxos;
mod others;
mod poll;
mod pool_url;
mod reader;
mod readers;
mod recipe;
mod session;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod who;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::Table;
use racklake_schemas::tables::MINER_SAMPLE;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::config::{Make, MinerConfig, MinersConfig};
use crate::place::locked;
use crate::source::{BoxFuture, EventSink, Found, Reading, Source, SourceError};

use exchange::Trouble;
use poll::{Known, Poll};
use reader::Reader;
use readers::reader;
use session::Peer;
use state::State;

/// How many timeouts a poll may last.
const POLL_TIMEOUTS: u32 = 3;

/// All configured miners.
pub struct MinerSource {
    settings: std::sync::Mutex<Settings>,
}

/// What a changed config may change.
struct Settings {
    period: Duration,
    timeout: Duration,
    /// Permits for connections, to all miners together.
    connections: Arc<Semaphore>,
    /// By address.
    miners: BTreeMap<String, Arc<Miner>>,
}

struct Miner {
    config: MinerConfig,
    peer: Peer,
    reader: &'static dyn Reader,
    /// Held for the length of a poll.
    known: Arc<Mutex<Known>>,
}

impl MinerSource {
    /// The miners of a config. All that happens to them belongs to a read, so nothing goes into the sink.
    pub fn new(config: &MinersConfig, _events: EventSink) -> MinerSource {
        MinerSource { settings: std::sync::Mutex::new(Settings::of(config, &BTreeMap::new())) }
    }

    /// Takes over other settings and another list of miners. What is known of a miner that stays is kept.
    pub(crate) fn change(&self, config: &MinersConfig) {
        let mut settings = locked(&self.settings);
        *settings = Settings::of(config, &settings.miners);
    }

    async fn poll(&self, miner: &Miner) -> Reading {
        let (timeout, connections) = {
            let settings = locked(&self.settings);
            (settings.timeout, Arc::clone(&settings.connections))
        };
        let mut known = miner.known.lock().await;
        // Waiting for others must not use up this miner's time; the semaphore is never closed.
        let _permit = connections.acquire().await.ok();
        let end = Instant::now() + timeout * POLL_TIMEOUTS;
        Poll { peer: &miner.peer, reader: miner.reader, timeout, end }.run(&mut known).await
    }
}

impl Settings {
    fn of(config: &MinersConfig, before: &BTreeMap<String, Arc<Miner>>) -> Settings {
        let miner = |wanted: &MinerConfig| {
            let make = wanted.make.unwrap_or(Make::Avalon);
            let Some(reader) = reader(make) else {
                tracing::warn!(address = wanted.endpoint(), make = make.name(), "this build does not read such miners");
                return None;
            };
            let before = before.get(&wanted.endpoint()).filter(|miner| miner.config.make == wanted.make);
            let known = match before {
                Some(miner) => Arc::clone(&miner.known),
                None => Arc::new(Mutex::new(Known::new(reader))),
            };
            let peer = Peer {
                address: wanted.endpoint(),
                http_address: wanted.http_endpoint(make),
                credentials: config.credentials_named(wanted.credentials.as_deref()).cloned(),
            };
            Some((wanted.endpoint(), Arc::new(Miner { config: wanted.clone(), peer, reader, known })))
        };
        Settings {
            period: config.period,
            timeout: config.timeout,
            connections: Arc::new(Semaphore::new(config.connections_max)),
            miners: config.miners.iter().filter_map(miner).collect(),
        }
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
        let found = |(address, miner): (&String, &Arc<Miner>)| Found {
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
                Some(miner) => self.poll(&miner).await,
                None => {
                    let trouble = Trouble::NoConnection("no such miner is configured");
                    let row = poll::unreachable_row((State::Unreachable, Some(trouble.reason())), trouble, 0);
                    Reading { rows: vec![row], lifetime: vec![None], ..Reading::default() }
                }
            }
        })
    }
}
