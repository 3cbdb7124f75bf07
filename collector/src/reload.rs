//! Takes over a changed config while the collector runs.
//!
//! A config that is not allowed changes nothing: the one in force stays, and log, `/metrics`, `/healthz` and an event say
//! so until an allowed one comes. What only a restart can change is named in one warning; the rest is in force at once,
//! periods from each device's next tick on.

use std::sync::Arc;

use racklake_schemas::settings::SettingsError;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::amd::AmdSource;
use crate::config::Config;
use crate::event::{detailed, own};
use crate::health::Health;
use crate::hwmon::HwmonSource;
use crate::metrics::{Metrics, one};
use crate::miner::MinerSource;
use crate::nvml::NvmlSource;
use crate::outlet::Outlet;

/// A config that was read again, or why it is not allowed.
pub type Reload = Result<Config, SettingsError>;

/// Part of the collector that `/healthz` names while the config file is not allowed.
const PART: &str = "config";

/// The config in force and all that depends on it.
pub(crate) struct Reloading {
    pub(crate) config: Config,
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) nvml: Option<Arc<NvmlSource>>,
    pub(crate) amd: Option<Arc<AmdSource>>,
    pub(crate) hwmon: Option<Arc<HwmonSource>>,
    pub(crate) miners: Arc<MinerSource>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    /// Tells those who list devices that the list may be another one.
    pub(crate) relisted: watch::Sender<()>,
}

impl Reloading {
    /// Takes over what comes, until `stop`.
    pub(crate) async fn run(mut self, mut reloads: mpsc::Receiver<Reload>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                reload = reloads.recv() => match reload {
                    Some(Ok(wanted)) => self.take_over(&wanted),
                    Some(Err(error)) => self.refuse(&error),
                    // Nobody reloads any more; samplers still wait for `relisted`.
                    None => return stop.cancelled().await,
                },
            }
        }
    }

    fn take_over(&mut self, wanted: &Config) {
        let (config, waiting) = self.config.changed_to(wanted);
        self.outlet.limit(&config.frames, &config.spool);
        if let Some(nvml) = &self.nvml {
            nvml.change(&config.nvml);
        }
        if let Some(amd) = &self.amd {
            amd.change(&config.amd);
        }
        if let Some(hwmon) = &self.hwmon {
            hwmon.change(&config.hwmon);
        }
        self.miners.change(&config.miners());
        self.config = config;
        self.relisted.send_replace(());
        self.health.works(PART);
        self.metrics.reloads.get_or_create(&one("result", "taken_over")).inc();
        let details = json!({"waiting_for_a_restart": waiting});
        let (severity, message) = match waiting.as_slice() {
            [] => ("info", "the config was read again and is in force".to_owned()),
            keys => {
                let keys = keys.join(", ");
                (
                    "warning",
                    format!("the config was read again and is in force but for {keys}: restart to change these"),
                )
            }
        };
        self.outlet.event(detailed("config_reloaded", severity, message, &details), None);
    }

    fn refuse(&self, error: &SettingsError) {
        // Further lines show the text of the file, which is for the log alone.
        let text = error.to_string();
        let place = text.lines().next().unwrap_or_default();
        let remedy = "the config before it stays in force; correct the file and send SIGHUP again";
        tracing::error!("{remedy}: {text}");
        self.health.fails(PART, &format!("{place}; {remedy}"));
        self.metrics.reloads.get_or_create(&one("result", "refused")).inc();
        self.outlet.event(own("config_refused", "error", format!("{place}; {remedy}")), None);
    }
}
