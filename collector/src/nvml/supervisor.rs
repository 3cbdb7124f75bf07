//! Keeps one NVML worker running, asks it, and answers for it where it cannot.
//!
//! It never loads NVML. What was asked of a worker that ends is answered at once: reads as unreachable. A worker that ended
//! is followed by another when the next discovery asks for one, after a pause that grows while workers do not last. One
//! that cannot be made to end (a call in the driver that no signal interrupts) is told, and left.

mod child;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use racklake_schemas::Table;
use serde_json::json;
use tokio::sync::{Notify, oneshot};

use super::pipe::{self, Hello, Order, Report};
use super::unreachable;
use crate::health::Health;
use crate::place::locked;
use crate::source::{Call, EventDraft, EventSink, Found, Reading, SourceError};
pub(super) use child::Host;

/// Pauses before another worker is started: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A worker that has run so long is no sign of trouble when it ends.
const GOOD: Duration = Duration::from_secs(60);
/// How long a worker that is ending is waited for before the next one is started.
const RETIRING_MAX: Duration = Duration::from_secs(12);
/// How long the pipe may take nothing; a worker reads it all the time.
const WRITE_MAX: Duration = Duration::from_secs(2);
/// What notes of GPUs begin with that have not told their address; their index follows.
pub(super) const NAMELESS: &str = "number ";
/// What `/healthz` calls the worker.
const PART: &str = "nvml worker";
/// Reads that are named when a worker ends.
const READS_NAMED_MAX: usize = 256;

/// The worker and all that waits for it.
pub(super) struct Supervisor {
    pub(super) host: Host,
    events: EventSink,
    /// Where troubles that are no device's are told; nobody listens in a check.
    health: OnceLock<Arc<Health>>,
    inner: Mutex<Inner>,
    /// There may be other GPUs.
    relisted: Notify,
}

#[derive(Default)]
struct Inner {
    worker: Option<Worker>,
    /// Workers so far.
    generation: u64,
    next_id: u64,
    /// Workers that have been given up and have not ended yet.
    retiring: usize,
    not_before: Option<Instant>,
    back_off: Duration,
    hard_deadline: Duration,
    released: bool,
    ended: bool,
}

/// A worker that is asked.
struct Worker {
    generation: u64,
    stream: Arc<UnixStream>,
    pid: Option<u32>,
    since: Instant,
    /// It has said hello.
    is_ready: bool,
    reads: HashMap<u64, Read>,
    discoveries: HashMap<u64, (Instant, oneshot::Sender<Discovered>)>,
    /// Calls that have taken long, by what they are about.
    calls: BTreeMap<String, Call>,
    known: BTreeSet<String>,
    /// Those that have told who they are.
    identified: BTreeSet<String>,
}

struct Read {
    address: String,
    table: &'static Table,
    since: Instant,
    reply: oneshot::Sender<Reading>,
}

/// The GPUs there are, or why that cannot be said.
type Discovered = Result<Vec<Found>, SourceError>;

/// How much a worker's end is to be held against it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// It was wanted: NVML is let go, or another library is to be loaded.
    Wanted,
    /// It was not.
    Failed,
}

impl Supervisor {
    /// A supervisor without a worker.
    pub(super) fn new(host: Host, events: EventSink) -> Arc<Supervisor> {
        let supervisor = Arc::new(Supervisor {
            host,
            events,
            health: OnceLock::new(),
            inner: Mutex::new(Inner { back_off: BACK_OFF.0, ..Inner::default() }),
            relisted: Notify::new(),
        });
        watch::start(&supervisor);
        supervisor
    }

    /// Tells `/healthz` from now on.
    pub(super) fn tell_health(&self, health: Arc<Health>) {
        // It is told once, at the start.
        let _ = self.health.set(health);
    }

    /// Ends the worker, for good.
    pub(super) fn end(&self) {
        let mut inner = locked(&self.inner);
        inner.ended = true;
        self.let_go(&mut inner, End::Wanted, "the collector ends");
    }

    /// Ends the worker, and starts no other one until `resume`.
    pub(super) fn release(&self) {
        let mut inner = locked(&self.inner);
        inner.released = true;
        self.let_go(&mut inner, End::Wanted, "NVML is let go");
    }

    /// Starts workers again.
    pub(super) fn resume(&self) {
        let mut inner = locked(&self.inner);
        inner.released = false;
        inner.not_before = None;
        drop(inner);
        self.relisted.notify_one();
    }

    /// Whether `release` is in force.
    pub(super) fn is_released(&self) -> bool {
        locked(&self.inner).released
    }

    /// Whether no worker has NVML loaded.
    pub(super) fn is_let_go(&self) -> bool {
        let inner = locked(&self.inner);
        inner.worker.is_none() && inner.retiring == 0
    }

    /// How long a GPU that has not told its address may take before it is called stalled.
    pub(super) fn limit(&self, hard_deadline: Duration) {
        locked(&self.inner).hard_deadline = hard_deadline;
    }

    /// Waits until there may be other GPUs.
    pub(super) async fn relisted(&self) {
        self.relisted.notified().await;
    }

    /// The call that a GPU, or discovery, has been in for a while.
    pub(super) fn call_in_progress(&self, subject: &str) -> Option<Call> {
        locked(&self.inner).worker.as_ref()?.calls.get(gpu_of(subject)).cloned()
    }

    /// Reads a GPU; unreachable where no worker can be asked, or it ends meanwhile.
    pub(super) async fn read(&self, address: &str, table: &'static Table) -> Reading {
        let (reply, answer) = oneshot::channel();
        {
            let mut inner = locked(&self.inner);
            let id = inner.take_id();
            let Some(worker) = &mut inner.worker else { return unreachable(table) };
            let read = Read { address: address.to_owned(), table, since: Instant::now(), reply };
            worker.reads.insert(id, read);
            worker.order(&Order::Read { id, address: address.to_owned(), table });
        }
        answer.await.unwrap_or_else(|_| unreachable(table))
    }

    /// Asks which GPUs are there, of a new worker where there is none.
    pub(super) async fn discover(self: &Arc<Self>, library: &str) -> Discovered {
        let answer = self.ask(library).await?;
        let failed = |_| failure("the NVML worker ended while it listed the GPUs; another one is started".to_owned());
        let result = answer.await.map_err(failed)?;
        if let Err(error) = &result {
            // Its library answers no more, or never did: the next one loads the library anew.
            let mut inner = locked(&self.inner);
            let known = inner.worker.as_ref().map_or(0, |worker| worker.known.len());
            if error.devices_absent || known == 0 {
                self.let_go(&mut inner, End::Wanted, &error.message);
            }
        }
        result
    }

    /// Gives a discovery to the worker, as soon as there is one.
    async fn ask(self: &Arc<Self>, library: &str) -> Result<oneshot::Receiver<Discovered>, SourceError> {
        let asked = Instant::now();
        loop {
            let pause = {
                let mut inner = locked(&self.inner);
                if inner.released || inner.ended {
                    return Err(failure("NVML is released".to_owned()));
                }
                match inner.pause(asked) {
                    None => return self.give(&mut inner, library),
                    Some(pause) => pause,
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn give(self: &Arc<Self>, inner: &mut Inner, library: &str) -> Result<oneshot::Receiver<Discovered>, SourceError> {
        let id = inner.take_id();
        if inner.worker.is_none() {
            let worker = self.start(inner)?;
            inner.worker = Some(worker);
        }
        let (reply, answer) = oneshot::channel();
        if let Some(worker) = &mut inner.worker {
            worker.discoveries.insert(id, (Instant::now(), reply));
            worker.order(&Order::Discover { id, library: library.to_owned() });
        }
        Ok(answer)
    }

    fn start(self: &Arc<Self>, inner: &mut Inner) -> Result<Worker, SourceError> {
        let failed = |error: std::io::Error| failure(format!("the NVML worker cannot be started: {error}"));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_write_timeout(Some(WRITE_MAX)).map_err(failed)?;
        inner.generation += 1;
        let generation = inner.generation;
        let worker = Worker {
            generation,
            stream: Arc::new(ours),
            pid: None,
            since: Instant::now(),
            is_ready: false,
            reads: HashMap::new(),
            discoveries: HashMap::new(),
            calls: BTreeMap::new(),
            known: BTreeSet::new(),
            identified: BTreeSet::new(),
        };
        let (supervisor, stream) = (Arc::clone(self), Arc::clone(&worker.stream));
        let keeper = std::thread::Builder::new().name("nvml worker".to_owned());
        keeper.spawn(move || child::keep(&supervisor, generation, &stream, theirs)).map_err(failed)?;
        worker.order(&Order::Hello(Hello::own()));
        Ok(worker)
    }

    /// Asks nothing more of the worker; what was asked is answered for it. Its thread makes it end.
    fn let_go(&self, inner: &mut Inner, end: End, why: &str) {
        let Some(worker) = inner.worker.take() else { return };
        inner.retiring += 1;
        if end == End::Failed {
            if worker.since.elapsed() >= GOOD {
                inner.back_off = BACK_OFF.0;
            }
            inner.not_before = Some(Instant::now() + inner.back_off);
            inner.back_off = (inner.back_off * 2).min(BACK_OFF.1);
        }
        if end == End::Failed && !inner.ended {
            self.tell_end(&worker, why);
            if let Some(health) = self.health.get() {
                health.fails(PART, &format!("it has ended ({why}); another one is started"));
            }
            self.relisted.notify_one();
        }
        // It is closed for both: the worker ends when it reads the end of its orders.
        drop(worker.stream.shutdown(std::net::Shutdown::Both));
    }

    /// Tells that a worker was lost, with the reads that it owed.
    fn tell_end(&self, worker: &Worker, why: &str) {
        let reads = worker.reads.values().take(READS_NAMED_MAX).map(|read| {
            let call = worker.calls.get(gpu_of(&read.address));
            json!({"table": read.table.name, "address": read.address, "call": call.map(|call| &call.name),
                "waited_us": read.since.elapsed().as_micros() as i64})
        });
        let reads: Vec<_> = reads.collect();
        let details = json!({"pid": worker.pid, "reason": why, "reads_in_flight": worker.reads.len(), "reads": reads});
        let message = format!("the NVML worker has ended: {why}; another one is started");
        let draft = EventDraft::new("nvml_worker_ended", "nvml", "error", message);
        self.event(EventDraft { details_json: Some(details.to_string()), ..draft });
    }

    /// Sends an event; what does not fit is logged, which no drill has seen.
    fn event(&self, draft: EventDraft) {
        if let Err(error) = self.events.try_send(draft) {
            let (tokio::sync::mpsc::error::TrySendError::Full(draft)
            | tokio::sync::mpsc::error::TrySendError::Closed(draft)) = error;
            tracing::warn!(event = draft.event, "no room for an event: {}", draft.message);
        }
    }

    /// Takes what a worker reports. Says whether it may go on.
    fn take(&self, generation: u64, report: Report) -> Result<(), String> {
        let mut inner = locked(&self.inner);
        let Some(worker) = inner.worker.as_mut().filter(|worker| worker.generation == generation) else {
            return Ok(());
        };
        match report {
            Report::Hello(hello) => match hello.objection() {
                Some(objection) => return Err(objection),
                None => worker.is_ready = true,
            },
            _ if !worker.is_ready => return Err("it does not say hello".to_owned()),
            Report::Found { id, result } => {
                if let Ok(found) = &result {
                    if let Some(health) = self.health.get() {
                        health.works(PART);
                    }
                    worker.known.extend(found.iter().map(|found| found.address.clone()));
                    let identified = found.iter().filter(|found| found.identity.is_some());
                    worker.identified.extend(identified.map(|found| found.address.clone()));
                }
                if let Some((_, reply)) = worker.discoveries.remove(&id) {
                    // Whoever asked may have given up.
                    drop(reply.send(result));
                }
            }
            Report::Reading { id, reading } => {
                if let Some(read) = worker.reads.remove(&id) {
                    drop(read.reply.send(reading));
                }
            }
            Report::Call { subject, call } => match call {
                Some(call) => drop(worker.calls.insert(subject, call)),
                None => {
                    worker.calls.remove(&subject);
                    // A GPU that can tell its address or its name at last.
                    let is_known = worker.known.contains(&subject) && !worker.identified.contains(&subject);
                    if subject.starts_with(NAMELESS) || is_known {
                        self.relisted.notify_one();
                    }
                }
            },
            Report::Event(draft) => {
                drop(inner);
                self.event(draft);
            }
        }
        Ok(())
    }
}

impl Inner {
    /// How long whoever asked then has to wait for a worker still.
    fn pause(&self, asked: Instant) -> Option<Duration> {
        if self.worker.is_some() {
            return None;
        }
        if self.retiring > 0 && asked.elapsed() < RETIRING_MAX {
            return Some(Duration::from_millis(20));
        }
        self.not_before.map(|at| at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Worker {
    /// Writes an order. Where that fails the worker is about to end, and its thread sees it.
    fn order(&self, order: &Order) {
        if let Err(error) = pipe::send(&self.stream, &order.encode()) {
            tracing::warn!("the NVML worker takes no orders: {error}");
            drop(self.stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

/// The GPU that an address belongs to: its own, or that of a MIG instance, `0000:9b:00.0/gi3/ci0`.
fn gpu_of(address: &str) -> &str {
    address.split('/').next().unwrap_or(address)
}

fn failure(message: String) -> SourceError {
    SourceError { message, code: None, devices_absent: false }
}
