//! The thread of one worker: it starts the worker, takes its reports, and sees to it that it ends.
//!
//! The thread lives as long as the worker does, since the kernel kills the worker when it ends.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{End, Supervisor};
use crate::nvml::pipe::{self, Report};
use crate::nvml::{signals, worker};
use crate::place::locked;
use crate::source::EventDraft;

/// How long a worker may take to end by itself, after SIGTERM and after SIGKILL.
const PATIENCE: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(5)];

/// Where workers run.
#[derive(Debug, Clone)]
pub(in crate::nvml) enum Host {
    /// In a process of that program, which has the subcommand `nvml-worker`.
    Process(PathBuf),
    /// On threads of this process: NVML is loaded here, and a hung call keeps its thread until the end.
    Threads,
}

/// Runs a worker until it ends.
pub(super) fn keep(supervisor: &Arc<Supervisor>, generation: u64, stream: &UnixStream, theirs: UnixStream) {
    let mut child = match &supervisor.host {
        Host::Process(program) => match start(program, theirs) {
            Ok(child) => Some(child),
            Err(error) => {
                let why = format!("{} nvml-worker cannot be started: {error}", program.display());
                return supervisor.worker_ended(generation, &why);
            }
        },
        Host::Threads => {
            let serving = std::thread::Builder::new().name("nvml orders".to_owned()).spawn(move || {
                if let Err(error) = worker::serve(theirs) {
                    tracing::error!("NVML worker: {error}");
                }
            });
            let serving = match serving {
                Ok(serving) => serving,
                Err(error) => return supervisor.worker_ended(generation, &format!("it gets no thread: {error}")),
            };
            let why = follow(supervisor, generation, stream);
            supervisor.worker_fails(generation, &why);
            // It ends when its orders do, and calls nothing itself.
            drop(serving.join());
            return supervisor.worker_ended(generation, &why);
        }
    };
    let pid = child.as_ref().map(Child::id);
    supervisor.worker_is(generation, pid);
    let mut why = follow(supervisor, generation, stream);
    if let Some(child) = &mut child {
        // One that was killed is gone already, and then its status says more than the end of the pipe.
        if let Some(status) = wait(child, PATIENCE[0]) {
            why = describe(status, &why);
            return supervisor.worker_ended(generation, &why);
        }
        // What was asked of it is answered now, not when it has ended.
        supervisor.worker_fails(generation, &why);
        end(supervisor, child);
    }
    supervisor.worker_ended(generation, &why);
    if let Some(mut child) = child {
        // An orphan is waited for, whenever that may be; anything else is gone.
        drop(child.wait());
    }
}

fn start(program: &Path, theirs: UnixStream) -> std::io::Result<Child> {
    Command::new(program)
        .arg("nvml-worker")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        // A library that prints must not disturb anybody; the worker's log goes where the collector's goes.
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        // Signals from a terminal are for the collector.
        .process_group(0)
        .spawn()
}

/// Takes reports until there are no more; gives the reason.
fn follow(supervisor: &Supervisor, generation: u64, stream: &UnixStream) -> String {
    loop {
        let body = match pipe::receive(stream) {
            Ok(Some(body)) => body,
            Ok(None) => return "it closed the pipe".to_owned(),
            Err(error) => return format!("its pipe broke: {error}"),
        };
        let taken = match Report::decode(&body) {
            Some(report) => supervisor.take(generation, report),
            None => Err("it reported something that cannot be read".to_owned()),
        };
        if let Err(why) = taken {
            return why;
        }
    }
}

/// Makes a worker end that does not by itself, or tells that it cannot be done.
fn end(supervisor: &Supervisor, child: &mut Child) {
    signals::terminate(child.id());
    if wait(child, PATIENCE[1]).is_some() {
        return;
    }
    // It is refused only for a process that has ended.
    drop(child.kill());
    if wait(child, PATIENCE[2]).is_some() {
        return;
    }
    let pid = child.id();
    let message = format!(
        "the NVML worker {pid} does not end: a call in the driver holds it, which no signal interrupts; it is left, and \
         ends when that call does"
    );
    let draft = EventDraft::new("nvml_worker_orphaned", "nvml", "error", message);
    supervisor.event(EventDraft { details_json: Some(json!({"pid": pid}).to_string()), ..draft });
}

/// Waits for the end of a child, at most so long.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// What the end of a process says: `signal: 9 (SIGKILL)` or `exit status: 1`.
fn describe(status: ExitStatus, why: &str) -> String {
    if status.success() { why.to_owned() } else { status.to_string() }
}

impl Supervisor {
    fn worker_is(&self, generation: u64, pid: Option<u32>) {
        let mut inner = locked(&self.inner);
        if let Some(worker) = inner.worker.as_mut().filter(|worker| worker.generation == generation) {
            worker.pid = pid;
        }
    }

    /// The worker is of no use any more, where it is still the one that is asked.
    fn worker_fails(&self, generation: u64, why: &str) {
        let mut inner = locked(&self.inner);
        if inner.worker.as_ref().is_some_and(|worker| worker.generation == generation) {
            self.let_go(&mut inner, End::Failed, why);
        }
    }

    /// The worker has ended, or is left.
    fn worker_ended(&self, generation: u64, why: &str) {
        self.worker_fails(generation, why);
        let mut inner = locked(&self.inner);
        inner.retiring = inner.retiring.saturating_sub(1);
    }
}
