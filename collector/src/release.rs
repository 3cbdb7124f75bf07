//! Lets go of NVML for a while, so that its driver can be upgraded, and takes it up again.
//!
//! `racklake-collector release` puts a file into the state folder; the running collector sees it, ends the NVML worker and
//! says so in the file. It takes NVML up again when the file is removed (`--resume`), when the driver was unloaded and is
//! loaded again, or when the time in the file is over. A file needs no port and no signal, whoever may write the state
//! folder may do it, and a collector that is started anew meanwhile keeps its hands off NVML too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use racklake_schemas::clock::Clock;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::event::own;
use crate::health::Health;
use crate::nvml::NvmlSource;
use crate::outlet::Outlet;
use crate::source::EventDraft;

/// The file's name in the state folder.
const FILE: &str = "nvml-release";
/// How often the collector looks for it.
const LOOK: Duration = Duration::from_millis(500);
/// The longest that the collector may take to answer: one that is hung needs its signals and their pauses.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// There while NVIDIA's driver is loaded.
const DRIVER: &str = "/sys/module/nvidia";
/// The file's last line once NVML is let go.
const DONE: &str = "released";
/// Part of the collector that `/healthz` notes.
const PART: &str = "nvml";

/// What the file says.
#[derive(Debug, PartialEq)]
struct Request {
    /// When NVML is taken up again at the latest, µs UTC.
    until: i64,
    is_done: bool,
}

impl Request {
    /// What the file says; `None` where there is none, or one that cannot be read, which then counts as none.
    fn read(path: &Path) -> Option<Request> {
        let text = std::fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let until = lines.next()?.strip_prefix("until ")?.parse().ok()?;
        Some(Request { until, is_done: lines.next() == Some(DONE) })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let done = if self.is_done { format!("{DONE}\n") } else { String::new() };
        let new = path.with_extension("new");
        std::fs::write(&new, format!("until {}\n{done}", self.until))?;
        std::fs::rename(new, path)
    }
}

/// The collector's side: follows the file.
pub(crate) struct Release {
    path: PathBuf,
    nvml: Arc<NvmlSource>,
    outlet: Arc<Outlet>,
    health: Arc<Health>,
    driver: PathBuf,
    /// The episode that is open, whether the driver has been away in it, and until when it lasts.
    open: Option<Open>,
}

struct Open {
    episode: String,
    driver_was_away: bool,
    until: i64,
}

impl Release {
    /// Looks for the file for the first time, before anything asks for GPUs.
    pub(crate) fn new(state: &Path, nvml: Arc<NvmlSource>, outlet: Arc<Outlet>, health: Arc<Health>) -> Release {
        let path = state.join(FILE);
        let mut release = Release { path, nvml, outlet, health, driver: PathBuf::from(DRIVER), open: None };
        release.look();
        release
    }

    /// Follows the file until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => self.look(),
            }
        }
    }

    fn look(&mut self) {
        let (request, now) = (Request::read(&self.path), Clock::now_us());
        match (&mut self.open, request) {
            (None, Some(request)) if request.until <= now => self.remove(),
            (None, Some(request)) => self.let_go(&request),
            (None, None) => {}
            (Some(_), None) => self.take_up("told to"),
            (Some(open), Some(request)) => {
                open.until = request.until;
                let is_there = self.driver.exists();
                let is_back = is_there && open.driver_was_away;
                open.driver_was_away |= !is_there;
                if is_back {
                    self.remove();
                    self.take_up("the driver was unloaded and is back");
                } else if request.until <= now {
                    self.remove();
                    self.take_up("the time is over");
                } else if !request.is_done && self.nvml.is_let_go() {
                    let done = Request { is_done: true, ..request };
                    if let Err(error) = done.write(&self.path) {
                        tracing::warn!("{} cannot be written: {error}", self.path.display());
                    }
                }
            }
        }
    }

    fn let_go(&mut self, request: &Request) {
        self.nvml.release();
        let seconds = (request.until - Clock::now_us()) / 1_000_000;
        let text = format!("NVML is let go for {seconds} s at most, so that its driver can be upgraded");
        self.health.note(PART, &text);
        let episode = self.outlet.episode();
        let draft = EventDraft {
            phase: Some("start"),
            episode_id: Some(episode.clone()),
            details_json: Some(json!({"until_us": request.until}).to_string()),
            ..own("nvml_released", "warning", text)
        };
        self.outlet.event(draft, None);
        self.open = Some(Open { episode, driver_was_away: false, until: request.until });
    }

    fn take_up(&mut self, why: &str) {
        let Some(open) = self.open.take() else { return };
        self.nvml.resume();
        self.health.unnote(PART);
        let draft = EventDraft {
            phase: Some("end"),
            episode_id: Some(open.episode),
            details_json: Some(json!({"reason": why, "until_us": open.until}).to_string()),
            ..own("nvml_resumed", "info", format!("NVML is taken up again: {why}"))
        };
        self.outlet.event(draft, None);
    }

    fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("{} cannot be removed: {error}", self.path.display());
        }
    }
}

/// Has the collector of that state folder let go of NVML, and waits until it has.
///
/// # Errors
/// When the folder cannot be written, or no collector answers.
pub fn release(state: &Path, length: Duration) -> Result<()> {
    let path = state.join(FILE);
    let until = Clock::now_us() + i64::try_from(length.as_micros()).unwrap_or(i64::MAX / 2);
    let request = Request { until, is_done: false };
    request.write(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    let asked = Instant::now();
    while asked.elapsed() < ANSWER_MAX {
        if Request::read(&path).is_some_and(|request| request.is_done) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
    bail!(
        "no collector has let go of NVML within {} s: look whether it runs with this state_dir ({}), and at its /healthz; \
         nothing is changed",
        ANSWER_MAX.as_secs(),
        state.display()
    )
}

/// Has the collector of that state folder take NVML up again. Says whether it was let go.
///
/// # Errors
/// When the folder cannot be written.
pub fn resume(state: &Path) -> Result<bool> {
    let path = state.join(FILE);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("{} cannot be removed", path.display())),
    }
}
