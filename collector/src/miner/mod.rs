//! Reads miners: whom to ask, how many at once, and what a poll says of a miner's past.
//!
//! Firmwares allow few clients and answer badly under load, so a miner never has more than one poll in flight and never
//! more than one connection. Every answer, and the lack of one, is a state of the miner; nothing here fails. It does not
//! promise values that belong to one instant: a poll is a few commands, some milliseconds apart.

mod antminer;
#[cfg(feature = "asic-rs")]
mod asic;
mod avalon;
mod braiins;
mod cgminer;
mod chip_lists;
mod decimal;
#[cfg(test)]
mod documented;
mod errors;
mod exchange;
mod filler;
mod finds;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod hostile;
mod identify;
mod identity;
mod json;
mod judge;
mod key_text;
mod look;
mod luxos;
mod others;
mod poll;
mod pool_url;
mod pools;
mod rate;
mod raw_reply;
mod reader;
mod readers;
mod recipe;
#[cfg(test)]
mod recorded;
mod search;
mod session;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod unidentified;
mod web;
mod whatsminer;
mod who;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::tables::{MINER_SAMPLE, miner_sample};
use racklake_schemas::{Cell, Row, Table};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::config::{Make, MinerConfig, MinersConfig};
use crate::place::locked;
use crate::source::{BoxFuture, EventSink, Found, Reading, Source, SourceError};

use exchange::Trouble;
use identify::Patience;
use poll::{Known, Poll};
use raw_reply::Shapes;
use reader::Reader;
use readers::reader;
use session::{Allowance, Peer, SHORT};
use state::State;
use unidentified::Unidentified;

pub(crate) use finds::Finds;
pub(crate) use look::{Look, look};
pub(crate) use search::{Pace, Seen, addresses, run as run_search, search};

/// How many timeouts a poll may last.
const POLL_TIMEOUTS: u32 = 3;
/// One connection of so many is for miners that have not answered for a while.
const SUSPECTS_PART: usize = 4;

/// All miners: those of the config, and those that its ranges have led to.
pub struct MinerSource {
    settings: std::sync::Mutex<Settings>,
    finds: Finds,
    shapes: Shapes,
}

/// What a changed config may change.
struct Settings {
    config: MinersConfig,
    budget: Budget,
    /// By address.
    miners: BTreeMap<String, Arc<Miner>>,
}

/// Permits for connections, to all miners together.
#[derive(Clone)]
struct Budget {
    all: Arc<Semaphore>,
    /// The part of them that miners may have which have not answered for a while, so that they take none from others.
    suspects: Arc<Semaphore>,
}

impl Budget {
    fn new(connections_max: usize) -> Budget {
        let suspects = (connections_max / SUSPECTS_PART).max(1);
        Budget { all: Arc::new(Semaphore::new(connections_max)), suspects: Arc::new(Semaphore::new(suspects)) }
    }
}

struct Miner {
    config: MinerConfig,
    peer: Peer,
    reader: &'static dyn Reader,
    /// Held for the length of a poll.
    known: Arc<Mutex<Known>>,
}

/// Whether this build reads miners of a make.
pub(crate) fn reads(make: Make) -> bool {
    reader(make).is_some()
}

impl MinerSource {
    /// The miners of a config. All that happens to them belongs to a read, so nothing goes into the sink.
    pub fn new(config: &MinersConfig, _events: EventSink) -> MinerSource {
        MinerSource::with_finds(config, Finds::open(None))
    }

    /// The same, with what is known of miners whose make the config does not name.
    pub(crate) fn with_finds(config: &MinersConfig, finds: Finds) -> MinerSource {
        finds.change(config);
        let settings = std::sync::Mutex::new(Settings::of(config, &finds, None));
        MinerSource { settings, finds, shapes: Shapes::default() }
    }

    /// Takes over other settings and another list of miners. What is known of a miner that stays is kept.
    pub(crate) fn change(&self, config: &MinersConfig) {
        self.finds.change(config);
        let mut settings = locked(&self.settings);
        *settings = Settings::of(config, &self.finds, Some(&settings));
    }

    /// What is found out about miners.
    pub(crate) fn finds(&self) -> &Finds {
        &self.finds
    }

    /// How fast ranges are searched, so that polls have half of the connections.
    pub(crate) fn pace(&self) -> Pace {
        let settings = locked(&self.settings);
        Pace { at_once: settings.config.connections_max / 2, answer: settings.config.timeout }
    }

    /// Takes over what was found since.
    fn relist(&self) {
        let mut settings = locked(&self.settings);
        *settings = Settings::of(&settings.config, &self.finds, Some(&settings));
    }

    /// The miner with what was just found out about it; the list of all is not made anew for that.
    fn renewed(&self, miner: Arc<Miner>) -> Arc<Miner> {
        let mut settings = locked(&self.settings);
        match Miner::of(&miner.config, &settings.config, &self.finds, Some(&miner)) {
            Some(renewed) if settings.miners.contains_key(&miner.peer.address) => {
                let renewed = Arc::new(renewed);
                settings.miners.insert(miner.peer.address.clone(), Arc::clone(&renewed));
                renewed
            }
            _ => miner,
        }
    }

    fn miner(&self, address: &str) -> Option<Arc<Miner>> {
        locked(&self.settings).miners.get(address).cloned()
    }

    async fn poll(&self, miner: Arc<Miner>) -> Reading {
        let (timeout, budget) = {
            let settings = locked(&self.settings);
            (settings.config.timeout, settings.budget.clone())
        };
        let known = Arc::clone(&miner.known);
        let mut known = known.lock().await;
        // Waiting for others must not use up this miner's time; the semaphores are never closed.
        let is_short = known.is_suspect();
        let _suspect = if is_short { budget.suspects.acquire().await.ok() } else { None };
        let _permit = budget.all.acquire().await.ok();
        let end = Instant::now() + timeout * POLL_TIMEOUTS;
        let is_named = miner.config.make.is_some();
        let miner = if is_named {
            miner
        } else {
            let answer = if is_short { timeout.min(SHORT) } else { timeout };
            let patience = Patience { connect: answer, answer, end };
            match self.identified(miner, patience).await {
                Ok(miner) => miner,
                Err((miner, trouble)) => {
                    known.fit(&Unidentified);
                    Unidentified::remember(&mut known.memory, trouble);
                    miner
                }
            }
        };
        known.fit(miner.reader);
        let allowance = Allowance { timeout, end, is_short };
        let poll = Poll { peer: &miner.peer, reader: miner.reader, allowance, shapes: &self.shapes };
        let reading = poll.run(&mut known).await;
        if !is_named {
            self.finds.answered(&miner.peer.address, reading.rows.first().is_some_and(is_alike));
        }
        reading
    }

    /// The miner with the reader of what it is; as it was and what was seen, where that is not known.
    async fn identified(&self, miner: Arc<Miner>, patience: Patience) -> Result<Arc<Miner>, (Arc<Miner>, Trouble)> {
        match self.finds.resolve(&miner.config, patience).await {
            Ok(make) if reader(make).is_some_and(|reader| reader.make() == miner.reader.make()) => Ok(miner),
            Ok(_) => Ok(self.renewed(miner)),
            Err(trouble) => Err((miner, trouble)),
        }
    }
}

/// Whether a miner has answered a poll as its make does, or not at all, or refused.
fn is_alike(row: &Row) -> bool {
    let unlike = [Trouble::Declined.reason(), Trouble::Unreadable.reason()];
    match (row.cell(miner_sample::STATE), row.cell(miner_sample::STATE_REASON)) {
        (Cell::Null, _) => false,
        (_, Cell::Text(reason)) => !unlike.contains(&reason.as_str()),
        _ => true,
    }
}

impl Settings {
    fn of(config: &MinersConfig, finds: &Finds, before: Option<&Settings>) -> Settings {
        let of_ranges = finds.miners();
        let wanted = config.miners.iter().chain(&of_ranges);
        let before_of = |address: &str| before.and_then(|before| before.miners.get(address));
        let miner = |wanted: &MinerConfig| {
            let miner = Miner::of(wanted, config, finds, before_of(&wanted.endpoint()))?;
            Some((miner.peer.address.clone(), Arc::new(miner)))
        };
        let miners = wanted.filter_map(miner).collect();
        let same = before.filter(|before| before.config.connections_max == config.connections_max);
        let budget = same.map_or_else(|| Budget::new(config.connections_max), |before| before.budget.clone());
        Settings { config: config.clone(), budget, miners }
    }
}

impl Miner {
    /// A miner as it is known now; `None` of a make that this build does not read, which a config may not name.
    fn of(wanted: &MinerConfig, config: &MinersConfig, finds: &Finds, before: Option<&Arc<Miner>>) -> Option<Miner> {
        let address = wanted.endpoint();
        let make = wanted.make.or_else(|| finds.make(&address));
        let reader = make.map_or(Some(&Unidentified as _), reader)?;
        let known = before.map_or_else(|| Arc::new(Mutex::new(Known::new(reader))), |miner| Arc::clone(&miner.known));
        let http_address = make.map_or_else(|| address.clone(), |make| wanted.http_endpoint(make));
        let credentials = config.credentials_named(wanted.credentials.as_deref()).cloned();
        let peer = Peer { address, http_address, credentials };
        Some(Miner { config: wanted.clone(), peer, reader, known })
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
        locked(&self.settings).config.period
    }

    fn deadline(&self, _table: &'static Table) -> Duration {
        locked(&self.settings).config.timeout * POLL_TIMEOUTS + Duration::from_secs(1)
    }

    fn is_listed_by_config(&self) -> bool {
        true
    }

    fn relisted(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.finds.changed())
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Found>, SourceError>> {
        self.relist();
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
            match self.miner(address) {
                Some(miner) => self.poll(miner).await,
                None => {
                    let trouble = Trouble::NoConnection("no such miner is configured");
                    let row = poll::unreachable_row((State::Unreachable, Some(trouble.reason())), trouble, 0);
                    Reading { rows: vec![row], lifetime: vec![None], ..Reading::default() }
                }
            }
        })
    }
}
