//! Settings of the sources that read the host's own files: its sensors.

use std::path::PathBuf;
use std::time::Duration;

use racklake_schemas::settings::duration;
use serde::Deserialize;

/// `[hwmon]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HwmonConfig {
    /// Whether to read the host's sensors. Default: true.
    pub enabled: bool,
    /// How often each sensor is read. Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub period: Duration,
    /// Below which folder `sys/class/hwmon` and `etc/machine-id` are. Default: `/`; another one where the host's files
    /// are mounted into a container.
    pub root: PathBuf,
}

impl Default for HwmonConfig {
    fn default() -> HwmonConfig {
        HwmonConfig { enabled: true, period: Duration::from_secs(10), root: PathBuf::from("/") }
    }
}
