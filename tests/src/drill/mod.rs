//! The fault drill: the shipped binaries and a real Kafka, killed and hindered at will, and the proof that nothing was lost.
//!
//! Simulated devices keep an account of what they served; the lake must hold exactly that, but for the reads in flight at
//! a kill, which coverage must name. What it does not promise: that two runs with one seed are alike to the microsecond;
//! the choices are, the processes are real.

mod chance;
pub mod disks;
pub mod faults;
pub mod fleet;
pub mod kills;
mod proof;
pub mod states;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::chance::Chance;
use self::disks::Disk;
use self::faults::Made;
use self::fleet::{Addresses, Fleet, TABLES};
use self::kills::Tally;
use self::states::{Claims, State};
use crate::fault_proxy::FaultProxy;
use crate::kafka::Broker;

pub use proof::Summary;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// All choices follow from it.
    pub seed: u64,
    /// How long, at most.
    pub minutes: f64,
    /// How many kills, at most.
    pub kills: Option<usize>,
    /// Where the lake, the accounts and the logs are left.
    pub folder: PathBuf,
    /// Also faults that lose rows: a spool bound that is reached, a full spool disk.
    pub lossy: bool,
    /// Simulated nodes.
    pub nodes: usize,
}

/// The disks that can be filled up.
pub(crate) struct Disks {
    pub(crate) lake: Disk,
    pub(crate) broker: Disk,
}

/// A drill that runs.
pub(crate) struct Drill {
    pub(crate) options: Options,
    pub(crate) fleet: Fleet,
    pub(crate) broker: Arc<Broker>,
    /// Who holds it may stop the broker.
    pub(crate) broker_turn: Mutex<()>,
    /// In front of the broker: the collectors', and ingest's.
    pub(crate) proxies: [FaultProxy; 2],
    pub(crate) disks: Disks,
    pub(crate) lake: PathBuf,
    pub(crate) prefix: String,
    pub(crate) tally: Tally,
    pub(crate) made: Made,
}

/// The content of a mutex, also when a thread that held it has failed.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a drill to its end. Gives what it found; the lake is whole when [`Summary::is_proof`] says so.
///
/// # Errors
/// When a service does not come back, a check cannot be run, or the machine lacks something.
pub fn run(options: Options) -> Result<Summary> {
    let begin = Instant::now();
    let drill = Drill::prepare(options)?;
    drill.start_services()?;
    let seed = drill.options.seed;
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        type Part = fn(&Drill, Chance) -> Result<()>;
        let parts: [(&str, Part); 4] = [
            ("collector kills", kills::collectors),
            ("ingest kills", kills::ingests),
            ("broker kills", kills::broker),
            ("faults", faults::run),
        ];
        let drill = &drill;
        let threads = (0..).zip(parts).map(|(number, (name, part))| {
            scope.spawn(move || {
                let result = part(drill, Chance::new(seed, number)).with_context(|| name.to_owned());
                if let Err(error) = &result {
                    eprintln!("{name}: {error:#}");
                    drill.tally.end();
                }
                result
            })
        });
        let threads: Vec<_> = threads.collect();
        drill.watch(begin);
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panic")))).collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    proof::prove(drill, begin)
}

impl Drill {
    fn prepare(options: Options) -> Result<Drill> {
        let folder = &options.folder;
        ensure!(
            !folder.exists() || std::fs::read_dir(folder)?.next().is_none(),
            "{} is not empty; name another folder with --lake",
            folder.display()
        );
        std::fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let disk = |name: &str| Disk::mount(folder.join("disks").join(name));
        let disks = Disks { lake: disk("lake")?, broker: disk("broker")? };
        let (broker, collectors, ingests) = Broker::start_with_proxies(&disks.broker.path().join("broker"))?;
        let lake = disks.lake.path().join("lake");
        let prefix = format!("drill-{}", options.seed);
        let addresses =
            Addresses { collectors: collectors.address().to_string(), ingests: ingests.address().to_string() };
        let fleet = Fleet::new(&folder, &lake, &prefix, &addresses, options.nodes, options.lossy)?;
        let options = Options { folder, ..options };
        let (tally, made, broker_turn) = (Tally::default(), Made::default(), Mutex::new(()));
        let (broker, proxies) = (Arc::new(broker), [collectors, ingests]);
        Ok(Drill { options, fleet, broker, broker_turn, proxies, disks, lake, prefix, tally, made })
    }

    /// Ingest first: it creates the topics.
    fn start_services(&self) -> Result<()> {
        let ingests = &self.fleet.ingests;
        for service in ingests {
            service.start(&mut service.hold())?;
        }
        for table in TABLES {
            let topic = self.topic(table);
            crate::wait_for(&format!("{topic} to be created"), 120, || {
                let ends = self.broker.end_offsets(&topic).ok()?;
                (ends.len() == crate::site::PARTITIONS as usize).then_some(())
            })?;
        }
        for service in &self.fleet.collectors {
            service.start(&mut service.hold())?;
        }
        Ok(())
    }

    pub(crate) fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.prefix)
    }

    /// Sum of the end offsets of a table's topic.
    pub(crate) fn ends_of(&self, table: &str) -> Result<i64> {
        Ok(self.broker.end_offsets(&self.topic(table))?.iter().sum())
    }

    /// Hears which commits the ingest processes but one claim.
    pub(crate) fn listen_to_others(&self, claims: &mut Claims, but: &str) {
        // What they commit at this moment is in their logs a moment later.
        std::thread::sleep(Duration::from_millis(150));
        let all = self.fleet.ingests.iter().chain([&self.fleet.guest]);
        for service in all.filter(|service| service.name != but) {
            if let Some(process) = service.hold().as_ref() {
                claims.listen(process, 0);
            }
        }
    }

    /// Sleeps, but not beyond the end.
    pub(crate) fn pause(&self, pause: Duration) {
        let start = Instant::now();
        while start.elapsed() < pause && !self.tally.is_over() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Tells how it goes, and when it is over.
    fn watch(&self, begin: Instant) {
        let mut told = Instant::now();
        let end = Duration::from_secs_f64(self.options.minutes * 60.0);
        let enough = || {
            let states = self.tally.states();
            let hit = || State::ALL.iter().all(|state| states.contains_key(state));
            self.options.kills.is_some_and(|kills| self.tally.total() >= kills) && hit()
        };
        while !self.tally.is_over() {
            if begin.elapsed() >= end || enough() {
                self.tally.end();
            }
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                let (kills, faults) = (self.tally.total(), self.made.counts().values().sum::<usize>());
                eprintln!("{:.0} s: {kills} kills, {faults} other faults", begin.elapsed().as_secs_f64());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Copies a folder; what a mount holds is gone when the process ends.
pub(crate) fn copy_out(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp -a {} {}", from.display(), to.display());
    Ok(())
}
