//! Searches ranges of addresses for miners, without haste: each address is asked one thing after another, new connections
//! come at a bounded rate, in no order, and an address whose miner is known is left alone.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use ipnet::IpNet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::MinerSource;
use super::exchange::Trouble;
use super::identify::{Patience, identify};
use crate::config::{Make, MinerConfig};
use crate::source::{EventDraft, EventSink};

/// Pause between two searches; a tenth is left to chance.
const PERIOD: Duration = Duration::from_secs(3600);
/// How soon what polls have found out is saved.
const SAVE_PERIOD: Duration = Duration::from_secs(10);
/// Time between the first connections to two addresses.
const STEP: Duration = Duration::from_millis(4);
/// How long a connection may take; on a network of miners it takes milliseconds.
const CONNECT: Duration = Duration::from_secs(1);
/// How long everything about one address may take.
const ADDRESS_TIME: Duration = Duration::from_secs(15);
/// Addresses that an event names.
const NAMED_MAX: usize = 100;

/// How fast a search goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Addresses at once; each has one connection at most.
    pub(crate) at_once: usize,
    /// How long one answer may take.
    pub(crate) answer: Duration,
}

/// What was found at an address.
#[derive(Debug)]
pub(crate) struct Searched {
    pub(crate) address: IpAddr,
    /// The make, or what was seen where none was recognised.
    pub(crate) make: Result<Make, Seen>,
}

/// What there is at an address that is no known miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nobody answers, or all ports are closed.
    Nothing,
    /// Something answers.
    Something,
}

/// All addresses of a range that a host can have.
pub(crate) fn addresses(range: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    range.hosts()
}

/// Asks each address what it is, and tells `found` of each as its answer comes.
pub(crate) async fn search(mut addresses: Vec<IpAddr>, pace: Pace, mut found: impl FnMut(Searched)) {
    shuffle(&mut addresses);
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let paced = futures::stream::unfold((addresses.into_iter(), steps), async |(mut addresses, mut steps)| {
        let address = addresses.next()?;
        steps.tick().await;
        Some((address, (addresses, steps)))
    });
    let asked = paced.map(|address| async move {
        let miner = MinerConfig::at(&address.to_string());
        let patience = Patience { connect: CONNECT, answer: pace.answer, end: Instant::now() + ADDRESS_TIME };
        let make = identify(&miner, patience).await.map_err(|trouble| match trouble {
            Trouble::NoConnection(_) => Seen::Nothing,
            _ => Seen::Something,
        });
        Searched { address, make }
    });
    let mut answers = std::pin::pin!(asked.buffer_unordered(pace.at_once.max(1)));
    while let Some(searched) = answers.next().await {
        found(searched);
    }
}

/// Searches the ranges of the config at the start, when they change, and every hour, until `stop`; and saves what was found.
pub(crate) async fn run(miners: Arc<MinerSource>, events: EventSink, stop: CancellationToken) {
    let mut ranges = miners.finds().ranges();
    loop {
        let wanted = ranges.borrow_and_update().clone();
        let networks: Vec<IpNet> = wanted.iter().map(|range| range.cidr).collect();
        let round = async {
            search_ranges(&miners, &networks, &events).await;
            sleep(PERIOD.mul_f64(0.95 + 0.1 * random())).await;
        };
        let saving = async {
            loop {
                sleep(SAVE_PERIOD).await;
                save(&miners).await;
            }
        };
        let mut is_over = false;
        tokio::select! {
            () = stop.cancelled() => is_over = true,
            // Whoever told the ranges lives as long as `miners`.
            _ = ranges.changed() => {}
            () = round => {}
            () = saving => {}
        }
        save(&miners).await;
        if is_over {
            return;
        }
    }
}

async fn save(miners: &Arc<MinerSource>) {
    let miners = Arc::clone(miners);
    // A disk may hang; this task then waits for it, and nothing else does.
    let _ = tokio::task::spawn_blocking(move || miners.finds().save()).await;
}

async fn search_ranges(miners: &Arc<MinerSource>, ranges: &[IpNet], events: &EventSink) {
    let finds = miners.finds();
    let wanted: Vec<IpAddr> = ranges.iter().flat_map(addresses).filter(|address| !finds.is_known(*address)).collect();
    if wanted.is_empty() {
        return;
    }
    let count = wanted.len();
    let mut new = Vec::new();
    search(wanted, miners.pace(), |searched| {
        if let Ok(make) = searched.make {
            let miner = MinerConfig::at(&searched.address.to_string());
            finds.tell(&miner, make, true);
            new.push(format!("{} {}", miner.endpoint(), make.name()));
        }
    })
    .await;
    tracing::info!(addresses = count, found = new.len(), "ranges were searched for miners");
    if new.is_empty() {
        return;
    }
    let message = format!("a search of {count} addresses has found {} miners that were not known", new.len());
    let details =
        serde_json::json!({"addresses": count, "found": new.len(), "miners": &new[..new.len().min(NAMED_MAX)]});
    let draft = EventDraft::new("miners_found", "miner", "info", message);
    // Where no more events fit, the log has it.
    let _ = events.try_send(EventDraft { details_json: Some(details.to_string()), ..draft });
}

/// Mixes the addresses, so that no switch and no row of racks has all the connections at once.
fn shuffle(addresses: &mut [IpAddr]) {
    for last in (1..addresses.len()).rev() {
        addresses.swap(last, (random() * (last + 1) as f64) as usize);
    }
}

/// A number from 0 to below 1; 0.5 where the system gives none.
fn random() -> f64 {
    getrandom::u64().map_or(0.5, |bits| (bits >> 11) as f64 / (1_u64 << 53) as f64)
}
