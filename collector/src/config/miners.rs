//! Settings of the miners: what all have in common, and each one's address and make.

use std::time::Duration;

use racklake_schemas::settings::duration;
use serde::Deserialize;

/// `[miners]` and all `[[miner]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MinersConfig {
    /// How often each miner is read. Default: 30 s.
    #[serde(deserialize_with = "duration")]
    pub period: Duration,
    /// How long one command may take. Default: 5 s.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// The miners; filled in by `Config::miners`.
    #[serde(skip)]
    pub miners: Vec<MinerConfig>,
}

/// `[[miner]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinerConfig {
    /// IP address or name. Required.
    pub address: String,
    /// Port of the cgminer API. Default: 4028.
    #[serde(default = "miner_port")]
    pub port: u16,
    /// Make. Required.
    pub make: Make,
    /// Rack of the miner. Default: the host's.
    #[serde(default)]
    pub rack: Option<String>,
}

/// Makes of miners that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Make {
    /// Canaan Avalon.
    Avalon,
}

impl Make {
    /// The name in the config and in front of a device id.
    pub fn name(self) -> &'static str {
        match self {
            Make::Avalon => "avalon",
        }
    }
}

impl MinerConfig {
    /// `address:port`, the miner's address everywhere else; an IPv6 address is put in brackets.
    pub fn endpoint(&self) -> String {
        match self.address.parse::<std::net::Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", self.address, self.port),
        }
    }
}

impl Default for MinersConfig {
    fn default() -> MinersConfig {
        MinersConfig { period: Duration::from_secs(30), timeout: Duration::from_secs(5), miners: Vec::new() }
    }
}

fn miner_port() -> u16 {
    4028
}
