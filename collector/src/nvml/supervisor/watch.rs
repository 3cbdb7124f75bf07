//! Looks every quarter of a second whether the worker does its work: whether it answers, and whether all GPUs hang.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use racklake_schemas::clock::Clock;
use serde_json::json;

use super::{End, Inner, NAMELESS, Supervisor};
use crate::place::locked;
use crate::source::{Call, EventDraft};

const LOOK: Duration = Duration::from_millis(250);
/// A worker that has not answered for so long, or whose GPUs have not, is replaced.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the thread that looks, while the supervisor lives.
pub(super) fn start(supervisor: &Arc<Supervisor>) {
    let watched = Arc::downgrade(supervisor);
    let spawned = std::thread::Builder::new().name("nvml watch".to_owned()).spawn(move || run(&watched));
    if let Err(error) = spawned {
        tracing::error!("the NVML worker is not watched, since there is no thread for it: {error}");
    }
}

fn run(watched: &Weak<Supervisor>) {
    let mut stalled = BTreeMap::new();
    while let Some(supervisor) = watched.upgrade() {
        supervisor.replace_if_stuck();
        supervisor.tell_nameless(&mut stalled);
        drop(supervisor);
        std::thread::sleep(LOOK);
    }
}

impl Supervisor {
    fn replace_if_stuck(&self) {
        let mut inner = locked(&self.inner);
        if let Some(why) = inner.fault() {
            self.let_go(&mut inner, End::Failed, &why);
        }
    }

    /// GPUs that hang before they have told who they are have no row that could say so.
    fn tell_nameless(&self, stalled: &mut BTreeMap<String, String>) {
        let now = Clock::now_us();
        let nameless: BTreeMap<String, Call> = {
            let inner = locked(&self.inner);
            let patience = inner.hard_deadline.as_micros() as i64;
            let calls = inner.worker.iter().flat_map(|worker| &worker.calls);
            let long = calls.filter(|(subject, call)| subject.starts_with(NAMELESS) && now - call.since > patience);
            long.map(|(subject, call)| (subject.clone(), call.clone())).collect()
        };
        for (subject, call) in &nameless {
            if stalled.contains_key(subject) {
                continue;
            }
            let (name, since) = (&call.name, call.since);
            let episode = format!("nvml-{since}-{}", subject.replace(' ', "-"));
            let seconds = (now - since) / 1_000_000;
            let message = format!(
                "GPU {subject} is stalled: {name} has not come back for {seconds} s, so its address is not known and it \
                 has no rows"
            );
            let details = json!({"call": name, "call_since_us": since, "gpu": subject});
            let draft = EventDraft::new("gpu_stalled", "nvml", "critical", message);
            let (phase, episode_id) = (Some("start"), Some(episode.clone()));
            self.event(EventDraft { phase, episode_id, details_json: Some(details.to_string()), ..draft });
            if let Some(health) = self.health.get() {
                let waited = Duration::from_micros((now - since).max(0) as u64);
                health.stalls(&format!("nvml GPU {subject}"), &format!("it has not come back from {name}"), waited);
            }
            stalled.insert(subject.clone(), episode);
        }
        let over: Vec<_> = stalled.extract_if(.., |subject, _| !nameless.contains_key(subject)).collect();
        for (subject, episode) in over {
            let draft = EventDraft::new(
                "gpu_stalled",
                "nvml",
                "info",
                format!("GPU {subject} has come back, or its worker is gone"),
            );
            self.event(EventDraft { phase: Some("end"), episode_id: Some(episode), ..draft });
            if let Some(health) = self.health.get() {
                health.works(&format!("nvml GPU {subject}"));
            }
        }
    }
}

impl Inner {
    /// Why the worker is to be replaced, if so.
    fn fault(&self) -> Option<String> {
        let worker = self.worker.as_ref()?;
        let now = Instant::now();
        let late = |since: Instant| now - since > PATIENCE;
        let seconds = PATIENCE.as_secs();
        if worker.discoveries.values().any(|(since, _)| late(*since)) {
            let call = worker.calls.get(crate::nvml::DISCOVERY).map_or("NVML", |call| call.name.as_str());
            return Some(format!("{call} has not come back for {seconds} s"));
        }
        let hangs = |address: &String| worker.reads.values().any(|read| read.address == *address && late(read.since));
        let all = !worker.known.is_empty() && worker.known.iter().all(hangs);
        all.then(|| format!("no GPU has answered for {seconds} s"))
    }
}
