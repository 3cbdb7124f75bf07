//! AMD GPUs through the files of their driver in sysfs: found, read, and never woken.
//!
//! A read is made on a thread of its own, since the driver may take its time; a GPU's reads never overlap. It reads below a
//! root path, so that a tree of files can stand in for a host. It does not load AMD's libraries, which can hang when they
//! are merely opened.

mod card;
mod health;
mod metrics;
mod sample;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use racklake_schemas::tables::{GPU_HEALTH, GPU_SAMPLE};
use racklake_schemas::{Row, Table, fail_code, row_status};

use crate::config::AmdConfig;
use crate::place::locked;
use crate::source::{BoxFuture, Found, Reading, Source, SourceError};
use crate::sysfs;
use card::Card;
use sample::Memory;

/// Deadline of the health tier: its files are many.
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);

/// The AMD GPUs of this host.
pub struct AmdSource {
    config: Mutex<AmdConfig>,
    gpus: Mutex<BTreeMap<String, Arc<Gpu>>>,
}

struct Gpu {
    card: Mutex<Card>,
    /// Held for the length of a read.
    memory: Mutex<Memory>,
}

impl AmdSource {
    /// A source that has touched nothing yet.
    pub fn new(config: &AmdConfig) -> AmdSource {
        AmdSource { config: Mutex::new(config.clone()), gpus: Mutex::default() }
    }

    /// Takes over other periods and another rack.
    pub(crate) fn change(&self, config: &AmdConfig) {
        *locked(&self.config) = config.clone();
    }

    /// Takes over the cards that are there now; one that is gone is forgotten.
    fn take_over(&self, cards: Vec<Card>) {
        let mut gpus = locked(&self.gpus);
        let mut before = std::mem::take(&mut *gpus);
        for card in cards {
            let address = card.address.clone();
            let gpu = match before.remove(&address) {
                Some(gpu) => {
                    *locked(&gpu.card) = card;
                    gpu
                }
                None => Arc::new(Gpu { card: Mutex::new(card), memory: Mutex::default() }),
            };
            gpus.insert(address, gpu);
        }
    }
}

impl Source for AmdSource {
    fn name(&self) -> &'static str {
        "amd"
    }

    fn tiers(&self) -> &'static [&'static Table] {
        const TIERS: [&Table; 2] = [&GPU_SAMPLE, &GPU_HEALTH];
        &TIERS
    }

    fn period(&self, table: &'static Table) -> Duration {
        let config = locked(&self.config);
        if *table == GPU_SAMPLE { config.period } else { config.health_period }
    }

    fn deadline(&self, table: &'static Table) -> Duration {
        let deadline = locked(&self.config).deadline;
        if *table == GPU_SAMPLE { deadline } else { HEALTH_DEADLINE.max(deadline) }
    }

    fn hard_deadline(&self) -> Option<Duration> {
        Some(locked(&self.config).hard_deadline)
    }

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Found>, SourceError>> {
        let AmdConfig { root, rack, .. } = locked(&self.config).clone();
        Box::pin(async move {
            let found = sysfs::on_a_thread("amd", move || {
                let cards = card::find(&root);
                let identities: Vec<_> = cards.iter().map(|card| card.identity(&root)).collect();
                (cards, identities)
            });
            let (cards, identities) = found.await?;
            let found = cards.iter().zip(identities).map(|(card, identity)| Found {
                address: card.address.clone(),
                rack: rack.clone(),
                identity: Some(identity),
            });
            let found = found.collect();
            self.take_over(cards);
            Ok(found)
        })
    }

    fn read<'a>(&'a self, address: &'a str, table: &'static Table) -> BoxFuture<'a, Reading> {
        let gpu = locked(&self.gpus).get(address).cloned();
        Box::pin(async move {
            let Some(gpu) = gpu else { return unreachable(table) };
            let read = sysfs::on_a_thread("amd", move || {
                // A file that blocks must not keep discovery from the card.
                let card = locked(&gpu.card).clone();
                let mut memory = locked(&gpu.memory);
                if *table == GPU_SAMPLE { sample::read(&card, &mut memory) } else { health::read(&card) }
            });
            read.await.unwrap_or_else(|error| {
                tracing::error!("{error}");
                unreachable(table)
            })
        })
    }
}

/// The reading of a GPU that cannot be read at all.
fn unreachable(table: &'static Table) -> Reading {
    let mut row = Row::new(table);
    row.fail_all(fail_code::UNREACHABLE);
    row.set_status(row_status::UNREACHABLE);
    Reading { rows: vec![row], lifetime: vec![None], ..Reading::default() }
}

/// A GPU for a probe, which reads it once without a collector around it.
pub(crate) struct ProbedCard {
    /// PCI address.
    pub(crate) address: String,
    /// Its id, where it tells one.
    pub(crate) device_id: Option<String>,
    card: Card,
}

impl AmdSource {
    /// The AMD GPUs below a root, for a probe.
    pub(crate) fn probe(root: &std::path::Path) -> Vec<ProbedCard> {
        let card =
            |card: Card| ProbedCard { address: card.address.clone(), device_id: card.identity(root).device_id, card };
        card::find(root).into_iter().map(card).collect()
    }
}

impl ProbedCard {
    /// A read of each tier.
    pub(crate) fn readings(&self) -> [Reading; 2] {
        [sample::read(&self.card, &mut Memory::default()), health::read(&self.card)]
    }
}
