//! Settings of the sources that read the kernel's own files: the host's sensors, and AMD GPUs.

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

/// `[amd]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AmdConfig {
    /// Whether to read AMD GPUs. Default: true.
    pub enabled: bool,
    /// How often each GPU is read. Default: 1 s.
    #[serde(deserialize_with = "duration")]
    pub period: Duration,
    /// How often error counts, links and limits of each GPU are read. Default: 1 min.
    #[serde(deserialize_with = "duration")]
    pub health_period: Duration,
    /// A read that takes longer gives a stale row. Default: 1 s.
    #[serde(deserialize_with = "duration")]
    pub deadline: Duration,
    /// A GPU that has not answered for so long is told as stalled. Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub hard_deadline: Duration,
    /// Below which folder `sys/class/drm` is. Default: `/`.
    pub root: PathBuf,
    /// Rack of the GPUs, where it differs from the host's.
    pub rack: Option<String>,
}

impl Default for AmdConfig {
    fn default() -> AmdConfig {
        AmdConfig {
            enabled: true,
            period: Duration::from_secs(1),
            health_period: Duration::from_secs(60),
            deadline: Duration::from_secs(1),
            hard_deadline: Duration::from_secs(10),
            root: PathBuf::from("/"),
            rack: None,
        }
    }
}
