//! Kills: each class of service has a thread that waits for progress, takes aim at a state, and sends SIGKILL.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::chance::Chance;
use super::fleet::Service;
use super::states::{self, Claims, State};
use super::{Drill, locked};
use crate::process::Process;

/// The longest that a service may take from its start until it has done something, faults included.
const PROGRESS_MAX: Duration = Duration::from_secs(180);
/// An ingest that was given only partitions in which nothing comes has nothing to commit; so long after it was given them
/// it may be killed all the same.
const IDLE: Duration = Duration::from_secs(10);
/// The longest that a kill waits for the state it aims at.
const AIM_MAX: Duration = Duration::from_secs(3);
/// Of a hundred kills of collectors, how many are of the worker that calls NVML for one.
const WORKER_PERCENT: u32 = 20;
/// Shares of collector, ingest and broker, of a hundred.
pub(crate) const SHARES: [usize; 3] = [40, 45, 15];

/// What has been killed so far, and where it struck.
#[derive(Debug, Default)]
pub struct Tally {
    states: Mutex<BTreeMap<State, usize>>,
    per_service: Mutex<BTreeMap<String, usize>>,
    classes: [AtomicUsize; 3],
    over: AtomicBool,
}

impl Tally {
    fn count(&self, class: usize, name: &str, state: State) {
        *locked(&self.states).entry(state).or_default() += 1;
        *locked(&self.per_service).entry(name.to_owned()).or_default() += 1;
        self.classes[class].fetch_add(1, Ordering::Relaxed);
    }

    /// All kills.
    pub fn total(&self) -> usize {
        self.classes.iter().map(|class| class.load(Ordering::Relaxed)).sum()
    }

    /// Kills per state.
    pub fn states(&self) -> BTreeMap<State, usize> {
        locked(&self.states).clone()
    }

    /// Kills per service.
    pub fn services(&self) -> BTreeMap<String, usize> {
        locked(&self.per_service).clone()
    }

    /// Ends all threads after the kill that they are at.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether it is the end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether a class is ahead of its share, so that it waits for the others.
    fn is_ahead(&self, class: usize) -> bool {
        self.classes[class].load(Ordering::Relaxed) * 100 > (self.total() + 5) * SHARES[class]
    }

    /// Whether the class has another kill to make.
    fn goes_on(&self, class: usize) -> bool {
        while !self.is_over() {
            if !self.is_ahead(class) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

/// Kills collectors.
pub(crate) fn collectors(drill: &Drill, mut chance: Chance) -> Result<()> {
    const AIMS: [State; 3] = [State::Sampling, State::Spooling, State::Publishing];
    while drill.tally.goes_on(0) {
        let service = chance.pick(&drill.fleet.collectors);
        let aim = *chance.pick(&AIMS);
        // Some kills do not wait for Kafka, so that a collector is also killed while it is away.
        let progress = if chance.percent(30) { "spooled" } else { "published" };
        let pause = chance.pause(0, 400);
        let mut slot = service.hold();
        let process = slot.as_mut().context("the collector does not run")?;
        wait_for_progress(drill, service, process, progress)?;
        std::thread::sleep(pause);
        if chance.percent(WORKER_PERCENT) {
            // Just after a worker was killed there is none for a while; the collector starts another one by itself.
            if process.kill_child("nvml-worker")? {
                drill.tally.count(0, &format!("{} worker", service.name), State::CallingNvml);
            }
            continue;
        }
        wait_for_aim(process, aim, "");
        process.kill()?;
        drill.tally.count(0, &service.name, states::of_collector(process));
        service.start(&mut slot)?;
    }
    Ok(())
}

/// Kills ingest processes.
pub(crate) fn ingests(drill: &Drill, mut chance: Chance) -> Result<()> {
    const AIMS: [State; 4] =
        [State::Consuming, State::Writing, State::BetweenFileAndCommit, State::BetweenCommitAndOffset];
    const TABLES: [&str; 2] = ["gpu_sample", "miner_sample"];
    let mut claims = Claims::default();
    while drill.tally.goes_on(1) {
        // The one that is a new member each time holds the group up for a session, so it comes less often.
        let service = &drill.fleet.ingests[chance.weighted(&[4, 4, 1])];
        let (aim, table, pause) = (*chance.pick(&AIMS), *chance.pick(&TABLES), chance.pause(0, 400));
        let mut slot = service.hold();
        let process = slot.as_mut().context("ingest does not run")?;
        wait_for_progress(drill, service, process, "committed")?;
        std::thread::sleep(pause);
        wait_for_aim(process, aim, table);
        process.kill()?;
        claims.listen(process, 0);
        drill.listen_to_others(&mut claims, &service.name);
        let state = states::of_ingest(process, table, &mut claims, &drill.lake);
        drill.tally.count(1, &service.name, state);
        service.start(&mut slot)?;
    }
    Ok(())
}

/// Kills the broker.
pub(crate) fn broker(drill: &Drill, mut chance: Chance) -> Result<()> {
    drill.pause(chance.pause(5000, 10_000));
    while drill.tally.goes_on(2) {
        let pause = chance.pause(200, 1500);
        {
            let _turn = locked(&drill.broker_turn);
            drill.broker.kill()?;
            drill.tally.count(2, "broker", State::Serving);
            drill.broker.restart()?;
        }
        // Progress is that more is published; while a fault keeps the broker away, nobody can tell.
        let (mut from, start) = (None, Instant::now());
        while !drill.tally.is_over() {
            let ends = drill.ends_of("gpu_sample").ok();
            from = from.or(ends);
            if ends > from {
                break;
            }
            ensure!(start.elapsed() < PROGRESS_MAX, "nothing is published since the broker is back");
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(pause);
    }
    Ok(())
}

/// The next kill only after the service has done something.
fn wait_for_progress(drill: &Drill, service: &Service, process: &mut Process, word: &str) -> Result<()> {
    let (start, name) = (Instant::now(), &service.name);
    let mut given: Option<Instant> = None;
    while process.find_line(0, |line| states::says(line, word)).is_none() {
        if drill.tally.is_over() || given.is_some_and(|at| at.elapsed() > IDLE) {
            return Ok(());
        }
        if given.is_none() && process.find_line(0, |line| states::says(line, "reading")).is_some() {
            given = Some(Instant::now());
        }
        ensure!(process.is_running(), "{name} has ended by itself\n{}", process.tail());
        let late = start.elapsed() > PROGRESS_MAX;
        ensure!(!late, "{name} has not said {word:?} in {} s\n{}", PROGRESS_MAX.as_secs(), process.tail());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Waits until the log says that the state begins, where it does so soon.
fn wait_for_aim(process: &Process, aim: State, about: &str) {
    let Some(word) = aim.aim() else { return };
    let (from, start) = (process.line_count(), Instant::now());
    while start.elapsed() < AIM_MAX {
        if process.find_line(from, |line| line.contains(about) && states::says(line, word)).is_some() {
            return;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}
