//! The settings of a collector: plain data, each key documented, with its default.
//!
//! A mistake stops the start and names the key; an unknown key is a mistake. Secrets are read from files, those of Kafka
//! when its client is made, those of miners with the config, and are never printed.

mod changes;
mod credentials;
mod host;
mod makes;
mod miners;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use racklake_schemas::identity::is_label;
use racklake_schemas::settings::{self, SettingsError, duration, duration_or_zero, label};
use racklake_schemas::wire;
use serde::Deserialize;

pub use credentials::{Credentials, CredentialsFile};
pub use host::{AmdConfig, HwmonConfig};
pub use makes::Make;
pub use miners::{MinerConfig, MinersConfig, RangeConfig, check_range};

/// Largest Kafka message; topics are made with the same limit.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Keys of librdkafka that the collector's promises rest on; they cannot be set in `[kafka.properties]`.
const RESERVED_PROPERTIES: [&str; 7] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "message.timeout.ms",
    "delivery.timeout.ms",
];

/// All settings of one collector.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Data center or hall; a directory level of the lake. Required.
    #[serde(deserialize_with = "label")]
    pub site: String,
    /// Name of this host. Default: the host name in lower case.
    #[serde(default = "host_name", deserialize_with = "label")]
    pub node: String,
    /// Rack of this host's devices. Default: none.
    #[serde(default)]
    pub rack: Option<String>,
    /// Folder of the spool and of what is remembered between starts: ids, sessions, last counters. Default:
    /// `/var/lib/racklake`.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// Where the collector tells about itself.
    #[serde(default)]
    pub http: HttpConfig,
    /// Where frames go. Required.
    pub kafka: KafkaConfig,
    /// When frames are closed.
    #[serde(default)]
    pub frames: FramesConfig,
    /// How much may wait on disk for Kafka.
    #[serde(default)]
    pub spool: SpoolConfig,
    /// NVIDIA GPUs of this host.
    #[serde(default)]
    pub nvml: NvmlConfig,
    /// What NVIDIA's driver says in the kernel log.
    #[serde(default)]
    pub kernel_log: KernelLogConfig,
    /// AMD GPUs of this host.
    #[serde(default)]
    pub amd: AmdConfig,
    /// Sensors of this host.
    #[serde(default)]
    pub hwmon: HwmonConfig,
    /// What all miners have in common.
    #[serde(default)]
    miners: MinersConfig,
    /// The miners, one table each.
    #[serde(default)]
    miner: Vec<MinerConfig>,
    /// Addresses that are searched for miners, one table each.
    #[serde(default)]
    miner_range: Vec<RangeConfig>,
}

/// `[http]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address and port of `/metrics` and `/healthz`. Default: `127.0.0.1:9464`; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// `[kafka]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers, `host:port`, separated by commas. Required.
    pub bootstrap_servers: String,
    /// Topics are `<prefix>.<table>`. Default: `racklake`.
    #[serde(default = "topic_prefix")]
    pub topic_prefix: String,
    /// Partitions of every topic; never changes for a prefix, and is the same in ingest's config. Default: 16.
    #[serde(default = "partitions")]
    pub partitions: i32,
    /// Further keys of librdkafka.
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
}

/// Value of a librdkafka key.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected text, or { file = \"/path\" } to read a secret from a file")]
pub enum Property {
    /// The value itself.
    Text(String),
    /// The value is the content of a file, without the white space at its end.
    File(SecretFile),
}

/// A file that holds a secret.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// Its path.
    pub file: PathBuf,
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Property::Text(_) => f.write_str("(not shown)"),
            Property::File(secret) => write!(f, "content of {}", secret.file.display()),
        }
    }
}

/// `[frames]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FramesConfig {
    /// A frame is closed when its first row is this old. Default: 10 s. Rows of `event` and `device` never wait.
    #[serde(deserialize_with = "duration")]
    pub age_max: Duration,
    /// A frame is closed before it would take more encoded bytes. Default: 256 KiB.
    pub bytes_max: usize,
    /// A frame is closed when it has this many rows. Default: 65,536.
    pub rows_max: usize,
    /// Bytes of closed frames in memory. Frames that are on disk are read back from there; only where the disk takes
    /// nothing are the oldest dropped. Default: 64 MiB.
    pub queue_bytes_max: usize,
}

/// `[spool]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// Bytes of frames that may wait on disk for Kafka; beyond it the oldest are dropped. The file can be twice as
    /// large, and does not shrink. Default: 1 GiB.
    pub bytes_max: usize,
    /// A frame that could not be sent for this long is dropped. Default: 7 days.
    #[serde(deserialize_with = "duration")]
    pub age_max: Duration,
    /// The longest that anything waits to be made durable; a power loss may cost as much. Default: 1 s.
    #[serde(deserialize_with = "duration")]
    pub fsync_period: Duration,
}

/// `[nvml]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NvmlConfig {
    /// Whether to read NVIDIA GPUs. Default: true.
    pub enabled: bool,
    /// The NVML library: a name for the loader's path, or a file. Default: `libnvidia-ml.so.1`.
    pub library: String,
    /// How often each GPU is read. Default: 1 s.
    #[serde(deserialize_with = "duration")]
    pub period: Duration,
    /// A read that takes longer gives a stale row. Default: 1 s.
    #[serde(deserialize_with = "duration")]
    pub deadline: Duration,
    /// How often the health of each GPU is read: errors, links, limits. Default: 60 s.
    #[serde(deserialize_with = "duration")]
    pub health_period: Duration,
    /// A GPU whose read has not come back so long after it was due is called stalled. Default: 10 s.
    #[serde(deserialize_with = "duration")]
    pub hard_deadline: Duration,
    /// How often a GPU is read after an event. Default: 100 ms.
    #[serde(deserialize_with = "duration")]
    pub burst_period: Duration,
    /// For how long it is read so after the last event, five times as long at most; then it has a rest that is as long. 0 is
    /// not at all. Default: 60 s.
    #[serde(deserialize_with = "duration_or_zero")]
    pub burst_for: Duration,
    /// Rack of the GPUs, where it differs from the host's.
    pub rack: Option<String>,
    /// The program whose subcommand `nvml-worker` loads NVML; no key. `None`: NVML is loaded into this process.
    #[serde(skip)]
    pub worker: Option<PathBuf>,
}

/// `[kernel_log]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelLogConfig {
    /// Whether to read it. Default: where NVIDIA GPUs are read.
    pub enabled: Option<bool>,
    /// The log, in the format of the kernel's device. Default: `/dev/kmsg`.
    pub path: PathBuf,
}

impl Config {
    /// Reads and checks a config file.
    ///
    /// # Errors
    /// When the file cannot be read or says something that is not allowed.
    pub fn load(path: &Path) -> Result<Config, SettingsError> {
        let mut config: Config = settings::load(path)?;
        let place = |error: SettingsError| SettingsError(format!("{}: {error}", path.display()));
        config.validate().map_err(place)?;
        let mut miners = config.miners();
        miners.read_credentials().map_err(place)?;
        config.miners.credentials = miners.credentials;
        Ok(config)
    }

    /// Settings of the miner source: what all miners have in common, the miners, and where others may be.
    pub fn miners(&self) -> MinersConfig {
        MinersConfig { miners: self.miner.clone(), ranges: self.miner_range.clone(), ..self.miners.clone() }
    }

    /// The kernel log to read, where one is to be read.
    pub fn kernel_log_path(&self) -> Option<&Path> {
        self.kernel_log.enabled.unwrap_or(self.nvml.enabled).then_some(self.kernel_log.path.as_path())
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// Names the key and what is allowed.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let refuse = |text: String| Err(SettingsError(text));
        if !is_label(&self.node) {
            return refuse(format!(
                "node: the host name {:?} is no name of 1 to 63 of a-z, 0-9, '.', '_' and '-'; set node",
                self.node
            ));
        }
        let no_miner = self.miner.is_empty() && self.miner_range.is_empty();
        if !self.nvml.enabled && !self.amd.enabled && !self.hwmon.enabled && no_miner {
            let remedy = "set enabled = true in [nvml], [amd] or [hwmon], or add a [[miner]] or [[miner_range]] table";
            return refuse(format!("nothing to read: {remedy}"));
        }
        self.kafka.validate()?;
        self.frames.validate()?;
        self.spool.validate(&self.frames)?;
        self.miners().validate()
    }
}

impl KafkaConfig {
    /// Name of the topic of a table.
    pub fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.topic_prefix)
    }

    fn validate(&self) -> Result<(), SettingsError> {
        if self.bootstrap_servers.trim().is_empty() {
            return Err(SettingsError("kafka.bootstrap_servers: is empty; give brokers as host:port".to_owned()));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(1..=200).contains(&self.topic_prefix.len()) || !self.topic_prefix.bytes().all(allowed) {
            let prefix = &self.topic_prefix;
            return Err(SettingsError(format!(
                "kafka.topic_prefix: {prefix:?} is no prefix of 1 to 200 of letters, digits, '.', '_' and '-'"
            )));
        }
        if !(1..=100_000).contains(&self.partitions) {
            let partitions = self.partitions;
            return Err(SettingsError(format!("kafka.partitions: {partitions} is not within 1 to 100000")));
        }
        match self.properties.keys().find(|key| RESERVED_PROPERTIES.contains(&key.as_str())) {
            Some(key) => Err(SettingsError(format!(
                "kafka.properties: {key} cannot be set here, delivery without loss depends on it; remove the line"
            ))),
            None => Ok(()),
        }
    }
}

impl FramesConfig {
    fn validate(&self) -> Result<(), SettingsError> {
        let bytes_limit = MESSAGE_BYTES_MAX / 2; // the rest is room for a row that was estimated too small
        if !(4096..=bytes_limit).contains(&self.bytes_max) {
            let bytes = self.bytes_max;
            return Err(SettingsError(format!("frames.bytes_max: {bytes} is not within 4096 to {bytes_limit}")));
        }
        if !(1..=wire::ROWS_MAX).contains(&self.rows_max) {
            let (rows, limit) = (self.rows_max, wire::ROWS_MAX);
            return Err(SettingsError(format!("frames.rows_max: {rows} is not within 1 to {limit}")));
        }
        if self.queue_bytes_max < 4 * self.bytes_max {
            let (queue, least) = (self.queue_bytes_max, 4 * self.bytes_max);
            return Err(SettingsError(format!("frames.queue_bytes_max: {queue} is below 4 frames, {least}")));
        }
        Ok(())
    }
}

impl SpoolConfig {
    fn validate(&self, frames: &FramesConfig) -> Result<(), SettingsError> {
        let least = 4 * frames.bytes_max;
        if self.bytes_max < least {
            let bytes = self.bytes_max;
            return Err(SettingsError(format!("spool.bytes_max: {bytes} is below 4 frames, {least}")));
        }
        if self.age_max < Duration::from_secs(60) {
            return Err(SettingsError(format!("spool.age_max: {:?} is below 1min", self.age_max)));
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&self.fsync_period) {
            return Err(SettingsError(format!(
                "spool.fsync_period: {:?} is not within 1ms to 1min",
                self.fsync_period
            )));
        }
        Ok(())
    }
}

impl Default for SpoolConfig {
    fn default() -> SpoolConfig {
        SpoolConfig {
            bytes_max: 1024 * 1024 * 1024,
            age_max: Duration::from_secs(7 * 24 * 3600),
            fsync_period: Duration::from_secs(1),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig { listen: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9464)) }
    }
}

impl Default for FramesConfig {
    fn default() -> FramesConfig {
        FramesConfig {
            age_max: Duration::from_secs(10),
            bytes_max: 256 * 1024,
            rows_max: wire::ROWS_MAX,
            queue_bytes_max: 64 * 1024 * 1024,
        }
    }
}

impl Default for NvmlConfig {
    fn default() -> NvmlConfig {
        NvmlConfig {
            enabled: true,
            library: "libnvidia-ml.so.1".to_owned(),
            period: Duration::from_secs(1),
            deadline: Duration::from_secs(1),
            health_period: Duration::from_secs(60),
            hard_deadline: Duration::from_secs(10),
            burst_period: Duration::from_millis(100),
            burst_for: Duration::from_secs(60),
            rack: None,
            worker: None,
        }
    }
}

impl Default for KernelLogConfig {
    fn default() -> KernelLogConfig {
        KernelLogConfig { enabled: None, path: PathBuf::from("/dev/kmsg") }
    }
}

/// The kernel's host name in lower case, up to 63 letters; empty where it cannot be read, which `validate` refuses.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase()
}

fn state_dir() -> PathBuf {
    PathBuf::from("/var/lib/racklake")
}

fn topic_prefix() -> String {
    "racklake".to_owned()
}

fn partitions() -> i32 {
    16
}
