//! What was found to be at which address, remembered in the state folder.
//!
//! A miner is identified once. It is asked again after a day, and when it answers unlike its make; while it cannot be
//! identified anew the make of before stays. A miner of a range stays as long as its range is in the config, whether it
//! answers or not. The file is replaced as a whole; without it everything is found out again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use racklake_schemas::clock::{Clock, DAY};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::exchange::Trouble;
use super::identify::{Patience, identify};
use super::reads;
use crate::config::{Make, MinerConfig, MinersConfig, RangeConfig};
use crate::place::locked;
use crate::state::replace;

const FILE: &str = "miners.json";
/// Version of the file; another one is not read.
const VERSION: u32 = 1;
/// Polls in a row that are answered unlike the make before the miner is identified again.
const UNLIKE_MAX: u32 = 3;
/// The longest that number grows to, where the miner turns out to be of its make all the same.
const UNLIKE_LIMIT: u32 = 96;
/// Pauses before something that is of no known make is asked again: the first, and the longest.
const STRANGER_PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// What was found, and where it is kept.
#[derive(Debug)]
pub(crate) struct Finds {
    file: Option<PathBuf>,
    inner: Mutex<Inner>,
    /// Told when `miners` gives other miners, or another make.
    changed: watch::Sender<()>,
    /// What of that was heard.
    heard: tokio::sync::Mutex<watch::Receiver<()>>,
    /// The ranges in force.
    ranges: watch::Sender<Vec<RangeConfig>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By address.
    finds: BTreeMap<String, Find>,
    /// What answered and is of no known make, by address.
    strangers: BTreeMap<String, Stranger>,
    /// Addresses that the config lists.
    listed: BTreeSet<String>,
    /// Those of them that are no names.
    listed_hosts: BTreeSet<IpAddr>,
    is_unsaved: bool,
}

/// A miner that was identified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Find {
    address: String,
    port: u16,
    make: Make,
    /// When it was identified last, µs UTC.
    identified_at: i64,
    /// Whether a range led to it.
    #[serde(default)]
    of_range: bool,
    /// Polls in a row that were answered unlike the make.
    #[serde(skip)]
    unlike: u32,
    /// So many of them call for another look.
    #[serde(skip, default = "unlike_max")]
    unlike_max: u32,
}

#[derive(Debug)]
struct Stranger {
    trouble: Trouble,
    again_at: Instant,
    pause: Duration,
}

#[derive(Serialize, Deserialize)]
struct FindsFile {
    version: u32,
    miners: Vec<Find>,
}

/// What to do about an address.
enum Plan {
    Known(Make),
    /// It was asked a while ago.
    Wait(Trouble),
    Ask {
        known: Option<Make>,
    },
}

impl Finds {
    /// What the state folder remembers; without one nothing is remembered beyond this process.
    pub(crate) fn open(state_dir: Option<&Path>) -> Finds {
        let file = state_dir.map(|folder| folder.join(FILE));
        let finds = file.as_deref().map(load).unwrap_or_default();
        let finds = finds.into_iter().map(|find| (find.config().endpoint(), find)).collect();
        let (changed, heard) = watch::channel(());
        Finds {
            file,
            inner: Mutex::new(Inner { finds, ..Inner::default() }),
            changed,
            heard: tokio::sync::Mutex::new(heard),
            ranges: watch::Sender::new(Vec::new()),
        }
    }

    /// Takes over the miners and ranges of a config.
    pub(crate) fn change(&self, config: &MinersConfig) {
        let listed: BTreeSet<String> = config.miners.iter().map(MinerConfig::endpoint).collect();
        {
            let mut inner = locked(&self.inner);
            let before = inner.finds.len();
            inner.finds.retain(|endpoint, find| listed.contains(endpoint) || find.range(&config.ranges).is_some());
            inner.is_unsaved |= inner.finds.len() != before;
            inner.strangers.clear();
            inner.listed = listed;
            inner.listed_hosts = config.miners.iter().filter_map(|miner| miner.address.parse().ok()).collect();
        }
        let is_other = |ranges: &mut Vec<RangeConfig>| {
            let is_other = *ranges != config.ranges;
            ranges.clone_from(&config.ranges);
            is_other
        };
        self.ranges.send_if_modified(is_other);
    }

    /// The miners that ranges have led to; their makes are in [`Finds::make`].
    pub(crate) fn miners(&self) -> Vec<MinerConfig> {
        let ranges = self.ranges.borrow();
        let inner = locked(&self.inner);
        let of_range = |(endpoint, find): (&String, &Find)| {
            let range = find.range(&ranges).filter(|_| find.of_range && reads(find.make))?;
            if inner.listed.contains(endpoint) {
                return None;
            }
            let (rack, credentials) = (range.rack.clone(), range.credentials.clone());
            Some(MinerConfig { rack, credentials, ..find.config() })
        };
        inner.finds.iter().filter_map(of_range).collect()
    }

    /// The make that was found at an address.
    pub(crate) fn make(&self, endpoint: &str) -> Option<Make> {
        locked(&self.inner).finds.get(endpoint).map(|find| find.make).filter(|make| reads(*make))
    }

    /// Whether an address needs no search: a miner is known there, or the config says what is there.
    pub(super) fn is_known(&self, address: IpAddr) -> bool {
        let endpoint = MinerConfig::at(&address.to_string()).endpoint();
        let inner = locked(&self.inner);
        // One that this build does not read may have another firmware by now.
        inner.finds.get(&endpoint).is_some_and(|find| reads(find.make)) || inner.listed_hosts.contains(&address)
    }

    /// The make of a miner whose config names none: the one that is known, or that it is found to be now.
    ///
    /// # Errors
    /// When nothing that can be read answers there, and nothing is known of before.
    pub(super) async fn resolve(&self, miner: &MinerConfig, patience: Patience) -> Result<Make, Trouble> {
        let endpoint = miner.endpoint();
        let known = match self.plan(&endpoint) {
            Plan::Known(make) => return Ok(make),
            Plan::Wait(trouble) => return Err(trouble),
            Plan::Ask { known } => known,
        };
        match identify(miner, patience).await {
            Ok(make) => {
                let of_range = locked(&self.inner).finds.get(&endpoint).is_some_and(|find| find.of_range);
                self.tell(miner, make, of_range);
                if reads(make) { Ok(make) } else { Err(Trouble::Unreadable) }
            }
            Err(trouble) => {
                self.no_answer(&endpoint, trouble);
                known.ok_or(trouble)
            }
        }
    }

    fn plan(&self, endpoint: &str) -> Plan {
        let inner = locked(&self.inner);
        let Some(find) = inner.finds.get(endpoint) else {
            return match inner.strangers.get(endpoint).filter(|stranger| Instant::now() < stranger.again_at) {
                Some(stranger) => Plan::Wait(stranger.trouble),
                None => Plan::Ask { known: None },
            };
        };
        let known = Some(find.make).filter(|make| reads(*make));
        let age = Clock::now_us() - find.identified_at;
        let is_due = !(0..DAY).contains(&age) || find.unlike >= find.unlike_max;
        match known {
            _ if is_due => Plan::Ask { known },
            Some(make) => Plan::Known(make),
            None => Plan::Wait(Trouble::Unreadable),
        }
    }

    /// Remembers what an address was found to be.
    pub(super) fn tell(&self, miner: &MinerConfig, make: Make, of_range: bool) {
        let endpoint = miner.endpoint();
        let mut inner = locked(&self.inner);
        inner.strangers.remove(&endpoint);
        let before = inner.finds.get(&endpoint);
        let was = before.map(|find| find.make);
        let fruitless = before.filter(|find| find.make == make && find.unlike >= find.unlike_max);
        let unlike_max = fruitless.map_or(UNLIKE_MAX, |find| (find.unlike_max * 2).min(UNLIKE_LIMIT));
        let (address, port, identified_at) = (miner.address.clone(), miner.port, Clock::now_us());
        let find = Find { address, port, make, identified_at, of_range, unlike: 0, unlike_max };
        inner.finds.insert(endpoint.clone(), find);
        inner.is_unsaved = true;
        drop(inner);
        if was != Some(make) {
            let name = make.name();
            if reads(make) {
                tracing::info!(address = endpoint, make = name, "a miner was identified");
            } else {
                tracing::warn!(address = endpoint, make = name, "a miner was identified that this build does not read");
            }
            self.changed.send_replace(());
        }
    }

    /// Remembers that nothing was found out, so that it is not asked all the time.
    fn no_answer(&self, endpoint: &str, trouble: Trouble) {
        let mut inner = locked(&self.inner);
        if let Some(find) = inner.finds.get_mut(endpoint) {
            // An hour until the next look.
            find.identified_at = Clock::now_us() - DAY + DAY / 24;
            find.unlike = 0;
            return;
        }
        // Who does not answer may be about to start, and to ask costs little.
        if matches!(trouble, Trouble::NoConnection(_)) {
            inner.strangers.remove(endpoint);
            return;
        }
        let before = inner.strangers.get(endpoint).map(|stranger| stranger.pause);
        let pause = before.map_or(STRANGER_PAUSES.0, |pause| (pause * 2).min(STRANGER_PAUSES.1));
        inner.strangers.insert(endpoint.to_owned(), Stranger { trouble, again_at: Instant::now() + pause, pause });
    }

    /// Takes note of whether a poll was answered as the make answers.
    pub(super) fn answered(&self, endpoint: &str, is_alike: bool) {
        if let Some(find) = locked(&self.inner).finds.get_mut(endpoint) {
            find.unlike = if is_alike { 0 } else { find.unlike.saturating_add(1) };
            find.unlike_max = if is_alike { UNLIKE_MAX } else { find.unlike_max };
        }
    }

    /// Comes back when there are other miners or other makes than when it last came back.
    pub(super) async fn changed(&self) {
        // The sender lives as long as this.
        let _ = self.heard.lock().await.changed().await;
    }

    /// The ranges in force, as they change.
    pub(super) fn ranges(&self) -> watch::Receiver<Vec<RangeConfig>> {
        self.ranges.subscribe()
    }

    /// Writes what was found to the state folder, where it has changed.
    pub(super) fn save(&self) {
        let Some(file) = &self.file else { return };
        let miners = {
            let mut inner = locked(&self.inner);
            if !std::mem::take(&mut inner.is_unsaved) {
                return;
            }
            inner.finds.values().cloned().collect()
        };
        let text = serde_json::to_vec_pretty(&FindsFile { version: VERSION, miners });
        let saved = text.map_err(anyhow::Error::from).and_then(|text| replace(file, &text));
        if let Err(error) = saved {
            locked(&self.inner).is_unsaved = true;
            tracing::warn!("what miners were found to be cannot be remembered: {error:#}");
        }
    }
}

impl Find {
    fn config(&self) -> MinerConfig {
        MinerConfig { port: self.port, ..MinerConfig::at(&self.address) }
    }

    fn range<'a>(&self, ranges: &'a [RangeConfig]) -> Option<&'a RangeConfig> {
        let address: IpAddr = self.address.parse().ok()?;
        ranges.iter().find(|range| range.cidr.contains(&address))
    }
}

fn load(file: &Path) -> Vec<Find> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "{} cannot be read; miners are identified anew", file.display());
            return Vec::new();
        }
    };
    match serde_json::from_slice::<FindsFile>(&text) {
        Ok(finds) if finds.version == VERSION => finds.miners,
        Ok(finds) => {
            let version = finds.version;
            tracing::warn!("{} has version {version}, not {VERSION}; miners are identified anew", file.display());
            Vec::new()
        }
        Err(error) => {
            tracing::warn!(%error, "{} is damaged; miners are identified anew", file.display());
            Vec::new()
        }
    }
}

fn unlike_max() -> u32 {
    UNLIKE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> MinersConfig {
        let least = "site = \"s\"\nnode = \"n\"\n[kafka]\nbootstrap_servers = \"k:9092\"\n";
        let config: crate::Config = racklake_schemas::settings::parse(&format!("{least}{text}"), "c.toml").unwrap();
        config.miners()
    }

    fn endpoints(finds: &Finds) -> Vec<String> {
        finds.miners().iter().map(MinerConfig::endpoint).collect()
    }

    const RANGE: &str = "[[miner_range]]\ncidr = \"10.0.0.0/24\"\nrack = \"m1\"\n";

    #[test]
    fn what_a_range_has_led_to_is_remembered_until_the_range_goes() {
        let folder = tempfile::tempdir().unwrap();
        let finds = Finds::open(Some(folder.path()));
        finds.change(&config(RANGE));
        finds.tell(&MinerConfig::at("10.0.0.7"), Make::Avalon, true);
        assert!(finds.is_known("10.0.0.7".parse().unwrap()) && !finds.is_known("10.0.0.8".parse().unwrap()));
        finds.save();
        let finds = Finds::open(Some(folder.path()));
        finds.change(&config(RANGE));
        let miners = finds.miners();
        assert_eq!(
            (endpoints(&finds), finds.make("10.0.0.7:4028")),
            (vec!["10.0.0.7:4028".to_owned()], Some(Make::Avalon))
        );
        assert_eq!((miners[0].rack.as_deref(), miners[0].make), (Some("m1"), None));
        finds.change(&config(&format!("{RANGE}[[miner]]\naddress = \"10.0.0.7\"\n")));
        assert_eq!(endpoints(&finds), Vec::<String>::new(), "the config lists it now");
        finds.change(&config(""));
        finds.change(&config(RANGE));
        assert_eq!((endpoints(&finds), finds.make("10.0.0.7:4028")), (Vec::new(), None), "the range was gone");
    }

    #[test]
    fn a_make_is_asked_for_again_when_it_answers_unlike_itself_and_after_a_day() {
        let finds = Finds::open(None);
        finds.change(&config(RANGE));
        let miner = MinerConfig::at("10.0.0.7");
        let endpoint = miner.endpoint();
        let is_due = |finds: &Finds| matches!(finds.plan(&endpoint), Plan::Ask { .. });
        assert!(is_due(&finds));
        finds.tell(&miner, Make::Avalon, true);
        let polls_until_due = || {
            (1..1000).find(|_| {
                finds.answered(&endpoint, false);
                is_due(&finds)
            })
        };
        assert_eq!(polls_until_due(), Some(3));
        finds.tell(&miner, Make::Avalon, true);
        assert_eq!(polls_until_due(), Some(6), "it was of its make all the same");
        finds.no_answer(&endpoint, Trouble::Unreadable);
        assert!(!is_due(&finds) && finds.make(&endpoint) == Some(Make::Avalon), "the make of before stays");
        finds.answered(&endpoint, true);
        locked(&finds.inner).finds.get_mut(&endpoint).unwrap().identified_at -= DAY;
        assert!(is_due(&finds));
    }

    #[test]
    fn what_is_no_miner_is_asked_less_and_less_often_and_what_does_not_answer_at_every_poll() {
        let finds = Finds::open(None);
        finds.no_answer("10.0.0.7:4028", Trouble::Unreadable);
        assert!(matches!(finds.plan("10.0.0.7:4028"), Plan::Wait(Trouble::Unreadable)));
        finds.no_answer("10.0.0.8:4028", Trouble::NoConnection("the port is closed"));
        assert!(matches!(finds.plan("10.0.0.8:4028"), Plan::Ask { known: None }));
    }

    #[test]
    fn a_damaged_file_is_nothing_known() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{\"version\": 1, \"mi", "{\"version\": 9, \"miners\": []}", "\u{1}"] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            assert!(Finds::open(Some(folder.path())).miners().is_empty());
        }
    }
}
