//! The thread that says which GPUs there are: it loads the library, and waits only a while for GPUs that do not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::gpu::Introduction;
use super::library::Library;
use super::{Shared, events, gpu};
use crate::nvml::calls::{Slot, idle};
use crate::nvml::pipe::Report;
use crate::nvml::raw::Handle;
use crate::place::locked;
use crate::source::{Found, Identity, SourceError};

/// What is about no GPU notes its calls under this name.
pub(in crate::nvml) const DISCOVERY: &str = "discovery";
/// How long GPUs are waited for until they have told their address, and then until they have said who they are. A hung one
/// is known by its address meanwhile, or left out until it has told that.
const PATIENCE: Duration = Duration::from_secs(3);

/// The GPUs that are known.
pub(super) struct Listing {
    shared: Arc<Shared>,
    library: Option<Arc<Library>>,
    /// The library, for whoever waits until nobody has it any more.
    loaded: Arc<Mutex<Weak<Library>>>,
    /// Address and handle of each index that has told them.
    named: BTreeMap<u32, (String, Handle)>,
    /// Those that have not yet: their threads wait for the library.
    nameless: BTreeSet<u32>,
    told: Sender<Introduction>,
    introductions: Receiver<Introduction>,
    /// Addresses of the MIG instances of each GPU, as it has last told.
    instances: BTreeMap<String, Vec<String>>,
    stop_events: Arc<AtomicBool>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.stop_events.store(true, Ordering::Relaxed);
    }
}

impl Listing {
    pub(super) fn new(shared: Arc<Shared>) -> Listing {
        let (told, introductions) = channel();
        Listing {
            shared,
            library: None,
            loaded: Arc::default(),
            named: BTreeMap::new(),
            nameless: BTreeSet::new(),
            told,
            introductions,
            instances: BTreeMap::new(),
            stop_events: Arc::default(),
        }
    }

    /// Where the library will be seen, once it is loaded, and no more, once nobody uses it.
    pub(super) fn library(&self) -> Arc<Mutex<Weak<Library>>> {
        Arc::clone(&self.loaded)
    }

    /// Answers discoveries until nobody can ask any more.
    pub(super) fn run(mut self, inbox: &Receiver<(u64, String)>) {
        let slot = Arc::new(Slot::default());
        slot.take_thread();
        locked(&self.shared.slots).insert(DISCOVERY.to_owned(), slot);
        while let Ok((id, path)) = inbox.recv() {
            let result = self.list(&path);
            idle();
            self.shared.report(&Report::Found { id, result });
        }
    }

    /// The GPUs there are now. One once found stays listed: its thread says how it is.
    fn list(&mut self, path: &str) -> Result<Vec<Found>, SourceError> {
        let library = match &self.library {
            Some(library) => Arc::clone(library),
            None => {
                let library = Arc::new(Library::load(path)?);
                *locked(&self.loaded) = Arc::downgrade(&library);
                Arc::clone(self.library.insert(library))
            }
        };
        for index in 0..library.count()? {
            if !self.named.contains_key(&index) && self.nameless.insert(index) {
                gpu::spawn(&self.shared, &library, index, &self.told);
            }
        }
        idle();
        let known = self.named.len();
        self.hear_introductions();
        if self.named.len() > known {
            self.stop_events.store(true, Ordering::Relaxed);
            let gpus = self.named.values().cloned().collect();
            self.stop_events = events::watch(&library, gpus, Arc::clone(&self.shared));
        }
        let mut identities = self.ask_identities();
        let instances = self.instances.values().flatten();
        let addresses = self.named.values().map(|(address, _)| address).chain(instances);
        let found = addresses.map(|address| Found {
            address: address.clone(),
            rack: None,
            identity: identities.remove(address),
        });
        Ok(found.collect())
    }

    fn hear_introductions(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.nameless.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok((index, named)) = self.introductions.recv_timeout(left) else { return };
            self.nameless.remove(&index);
            if let Some(named) = named {
                self.named.insert(index, named);
            }
        }
    }

    /// Asks all before any is waited for: a hung one costs the others nothing, and keeps the MIG instances it had.
    fn ask_identities(&mut self) -> BTreeMap<String, Identity> {
        let (reply, answers) = channel();
        let asked = {
            let gpus = locked(&self.shared.gpus);
            gpus.values().filter(|gpu| gpu.ask_identity(&reply)).count()
        };
        let until = Instant::now() + PATIENCE;
        let mut identities = BTreeMap::new();
        for _ in 0..asked {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(told) = answers.recv_timeout(left) else { break };
            let parts = told.identities.iter().map(|(address, _)| address);
            let instances = parts.filter(|address| **address != told.address).cloned().collect();
            self.instances.insert(told.address, instances);
            identities.extend(told.identities);
        }
        identities
    }
}
