//! Asks a source every minute which devices are there, and keeps one sampler for each.
//!
//! A source that fails is asked again with growing pauses, told once per message; its known devices are read on. A
//! device that is no longer found keeps its sampler, which sends rows that say so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::event::own;
use crate::metrics::{one, two};
use crate::sampler::{Presence, Sampler, Sampling};
use crate::source::{EventDraft, Found, Source, SourceError};

/// Pause between two discoveries that succeed.
const PERIOD: Duration = Duration::from_secs(60);
/// Pauses after one that failed: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How often a source that has paused is looked at.
const PAUSED: Duration = Duration::from_secs(1);
/// A discovery that takes longer counts as failing while it goes on.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages of one failure that are told.
const MESSAGES_MAX: usize = 16;

/// Runs one source until `stop`; returns when its samplers have ended.
pub(crate) async fn run(source: Arc<dyn Source>, sampling: Sampling, stop: CancellationToken) {
    let mut discovery = Discovery {
        source,
        sampling,
        known: BTreeMap::new(),
        samplers: JoinSet::new(),
        failure: None,
        stop: stop.clone(),
    };
    let mut back_off = BACK_OFF.0;
    let mut relisted = discovery.sampling.relisted.clone();
    // Whether the source has paused since it was last asked: its devices return then.
    let mut has_paused = false;
    while !stop.is_cancelled() {
        relisted.mark_unchanged();
        has_paused |= discovery.source.pause().is_some();
        let result = if discovery.source.pause().is_some() { Ok(None) } else { discovery.ask().await.transpose() };
        has_paused |= discovery.source.pause().is_some();
        let pause = match result {
            Ok(Some(found)) => {
                back_off = BACK_OFF.0;
                let returned = discovery.recovered() || has_paused;
                has_paused = false;
                discovery.update(found, returned);
                PERIOD
            }
            Ok(None) => PAUSED,
            Err(_) if discovery.source.pause().is_some() => PAUSED,
            Err(error) => {
                discovery.failed(&error);
                let pause = back_off;
                back_off = (back_off * 2).min(BACK_OFF.1);
                pause
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(pause) => {}
            () = changed(&mut relisted) => {}
            () = discovery.source.relisted() => {}
        }
    }
    while discovery.samplers.join_next().await.is_some() {}
}

struct Discovery {
    source: Arc<dyn Source>,
    sampling: Sampling,
    known: BTreeMap<String, Known>,
    samplers: JoinSet<()>,
    failure: Option<Failure>,
    stop: CancellationToken,
}

/// A device with a sampler.
struct Known {
    presence: watch::Sender<Presence>,
    stop: CancellationToken,
}

struct Failure {
    episode: String,
    /// Whether counters may have begun anew meanwhile.
    devices_absent: bool,
    messages: BTreeSet<String>,
}

impl Discovery {
    /// The answer of the source, however long it takes; `None` at the end.
    async fn ask(&mut self) -> Option<Result<Vec<Found>, SourceError>> {
        let source = Arc::clone(&self.source);
        let mut asked = tokio::spawn(async move { source.discover().await });
        let patience = self.source.hard_deadline().unwrap_or(PATIENCE);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                answer = &mut asked => {
                    let message = "discovery ended without an answer".to_owned();
                    let ended = |_| SourceError { message, code: None, devices_absent: false };
                    return Some(answer.map_err(ended).and_then(|result| result));
                }
                () = sleep(patience) => self.failed(&self.too_slow(patience)),
            }
        }
    }

    fn too_slow(&self, patience: Duration) -> SourceError {
        let call =
            self.source.call_in_progress(None).map_or(String::new(), |call| format!(" (it is in {})", call.name));
        let message = format!("discovery has not answered for {} s{call}", patience.as_secs());
        SourceError { message, code: None, devices_absent: false }
    }

    fn update(&mut self, found: Vec<Found>, returned: bool) {
        let addresses: BTreeSet<String> = found.iter().map(|found| found.address.clone()).collect();
        for found in found {
            match self.known.get(&found.address) {
                Some(known) => {
                    known.presence.send_replace(Presence::Present { found, returned });
                }
                None => self.start(found),
            }
        }
        if self.source.is_listed_by_config() {
            // Its sampler ends once the read in flight has.
            let unlisted = self.known.extract_if(.., |address, _| !addresses.contains(address));
            unlisted.for_each(|(_, known)| known.stop.cancel());
        }
        let gone = self.known.iter().filter(|(address, _)| !addresses.contains(*address));
        for (_, known) in gone {
            known.presence.send_if_modified(|presence| match presence {
                Presence::Gone => false,
                Presence::Present { .. } => {
                    *presence = Presence::Gone;
                    true
                }
            });
        }
        let name = self.source.name();
        let gauge = |state| self.sampling.metrics.devices.get_or_create_owned(&two(("source", name), ("state", state)));
        gauge("present").set(addresses.len() as i64);
        gauge("gone").set((self.known.len() - addresses.len()) as i64);
    }

    fn start(&mut self, found: Found) {
        let address = found.address.clone();
        let (sender, receiver) = watch::channel(Presence::Present { found: found.clone(), returned: false });
        let sampler = Sampler::new(Arc::clone(&self.source), self.sampling.clone(), found);
        let stop = self.stop.child_token();
        self.samplers.spawn(sampler.run(receiver, stop.clone()));
        self.known.insert(address, Known { presence: sender, stop });
    }

    fn failed(&mut self, error: &SourceError) {
        let name = self.source.name();
        self.sampling.metrics.discoveries_failed.get_or_create(&one("source", name)).inc();
        self.sampling.health.fails(&format!("source {name}"), &error.message);
        let outlet = &self.sampling.outlet;
        let failure = self.failure.get_or_insert_with(|| Failure {
            episode: outlet.episode(),
            devices_absent: false,
            messages: BTreeSet::new(),
        });
        failure.devices_absent |= error.devices_absent;
        if failure.messages.len() < MESSAGES_MAX && failure.messages.insert(error.message.clone()) {
            let draft = EventDraft {
                code: error.code,
                phase: Some("start"),
                episode_id: Some(failure.episode.clone()),
                ..EventDraft::new("source_failed", name, "error", error.message.clone())
            };
            outlet.event(draft, None);
        }
    }

    /// Ends a failure, and says whether devices were absent in it.
    fn recovered(&mut self) -> bool {
        let name = self.source.name();
        self.sampling.health.works(&format!("source {name}"));
        let Some(failure) = self.failure.take() else { return false };
        let draft = own("source_recovered", "info", format!("source {name} works again"));
        let draft = EventDraft { source: name, phase: Some("end"), episode_id: Some(failure.episode), ..draft };
        self.sampling.outlet.event(draft, None);
        failure.devices_absent
    }
}

/// Waits until there may be another list; for ever where nobody tells.
async fn changed(relisted: &mut watch::Receiver<()>) {
    if relisted.changed().await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
