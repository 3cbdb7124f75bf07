//! Settings of the miners: what all have in common, each one's address and make, and ranges of addresses to search.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use racklake_schemas::settings::{SettingsError, duration};
use serde::Deserialize;

use super::credentials::{Credentials, CredentialsFile};
use super::makes::Make;

/// Port of the cgminer API, where `port` says nothing.
const PORT: u16 = 4028;
/// Most addresses of one range, those of an IPv4 /16.
const RANGE_BITS_MAX: u8 = 16;
/// Most connections to miners at once that may be asked for; sockets of a process are limited.
const CONNECTIONS_LIMIT: usize = 4096;

/// `[miners]`, all `[[miner]]` and all `[[miner_range]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MinersConfig {
    /// How often each miner is read. Default: 30 s.
    #[serde(deserialize_with = "duration")]
    pub period: Duration,
    /// How long one command may take. Default: 5 s.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Connections at once, to all miners together; one miner never has more than one. Default: 256.
    pub connections_max: usize,
    /// File of the users and passwords of miners. Default: none.
    pub credentials_file: Option<PathBuf>,
    /// The miners; filled in by `Config::miners`.
    #[serde(skip)]
    pub miners: Vec<MinerConfig>,
    /// The ranges; filled in by `Config::miners`.
    #[serde(skip)]
    pub ranges: Vec<RangeConfig>,
    /// What `credentials_file` holds; read by `Config::load`.
    #[serde(skip)]
    pub credentials: CredentialsFile,
}

/// `[[miner]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinerConfig {
    /// IP address or name. Required.
    pub address: String,
    /// Port of the cgminer API; part of the miner's address whatever its make is. Default: 4028.
    #[serde(default = "miner_port")]
    pub port: u16,
    /// Port of the web interface. Default: that of the make, mostly 80.
    #[serde(default)]
    pub http_port: Option<u16>,
    /// Make. Default: what the miner is found to be.
    #[serde(default)]
    pub make: Option<Make>,
    /// Rack of the miner. Default: the host's.
    #[serde(default)]
    pub rack: Option<String>,
    /// Name of its user and password in `credentials_file`. Default: none; nothing that wants a password is read.
    #[serde(default)]
    pub credentials: Option<String>,
}

/// `[[miner_range]]`: addresses that are searched for miners.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeConfig {
    /// The addresses, `10.20.0.0/22`. Required.
    #[serde(deserialize_with = "network")]
    pub cidr: IpNet,
    /// Rack of the miners in it. Default: the host's.
    #[serde(default)]
    pub rack: Option<String>,
    /// As in `[[miner]]`.
    #[serde(default)]
    pub credentials: Option<String>,
}

impl MinerConfig {
    /// A miner at an address, of which nothing else is said.
    pub fn at(address: &str) -> MinerConfig {
        let address = address.to_owned();
        MinerConfig { address, port: PORT, http_port: None, make: None, rack: None, credentials: None }
    }

    /// `address:port`, the miner's address everywhere else; an IPv6 address is put in brackets.
    pub fn endpoint(&self) -> String {
        endpoint(&self.address, self.port)
    }

    /// Where its web interface listens, if it is of that make.
    pub fn http_endpoint(&self, make: Make) -> String {
        endpoint(&self.address, self.http_port.unwrap_or(make.http_port()))
    }

    fn validate(&self, miners: &MinersConfig) -> Result<(), SettingsError> {
        if self.address.is_empty() || self.address.contains(char::is_whitespace) {
            return refuse(format!("miner.address: {:?} is no IP address or name", self.address));
        }
        if self.port == 0 || self.http_port == Some(0) {
            return refuse(format!("miner.port and miner.http_port: 0 is no port ({})", self.address));
        }
        if let Some(make) = self.make.filter(|make| !make.is_read()) {
            let read: Vec<&str> = Make::ALL.iter().filter(|make| make.is_read()).map(|make| make.name()).collect();
            return refuse(format!(
                "miner.make: this build does not read {:?} ({}); it reads {}: remove the miner",
                make.name(),
                self.address,
                read.join(", ")
            ));
        }
        miners.knows("miner.credentials", self.credentials.as_deref())
    }
}

impl MinersConfig {
    /// User and password of a miner or a range, where it has any.
    pub fn credentials_named(&self, name: Option<&str>) -> Option<&Credentials> {
        self.credentials.get(name?)
    }

    /// Checks what the types cannot say.
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        if !(1..=CONNECTIONS_LIMIT).contains(&self.connections_max) {
            let wanted = self.connections_max;
            return refuse(format!("miners.connections_max: {wanted} is not within 1 to {CONNECTIONS_LIMIT}"));
        }
        let mut endpoints = std::collections::BTreeSet::new();
        for miner in &self.miners {
            let endpoint = miner.endpoint();
            miner.validate(self)?;
            if endpoints.contains(&endpoint) {
                return refuse(format!("miner: {endpoint} is configured twice; remove one"));
            }
            endpoints.insert(endpoint);
        }
        for (index, range) in self.ranges.iter().enumerate() {
            check_range(&range.cidr).map_err(|text| SettingsError(format!("miner_range.cidr: {text}")))?;
            self.knows("miner_range.credentials", range.credentials.as_deref())?;
            let others = &self.ranges[..index];
            let overlaps = |other: &&RangeConfig| other.cidr.contains(&range.cidr) || range.cidr.contains(&other.cidr);
            if let Some(other) = others.iter().find(overlaps) {
                let (range, other) = (range.cidr, other.cidr);
                return refuse(format!("miner_range.cidr: {range} and {other} overlap; remove one"));
            }
        }
        Ok(())
    }

    /// Whether credentials of that name can be there; whether they are is known once the file was read.
    fn knows(&self, key: &str, name: Option<&str>) -> Result<(), SettingsError> {
        match (name, &self.credentials_file) {
            (Some(name), None) => {
                refuse(format!("{key}: {name:?} is in no file; set miners.credentials_file, or remove the line"))
            }
            _ => Ok(()),
        }
    }

    /// Reads `credentials_file`.
    pub(super) fn read_credentials(&mut self) -> Result<(), SettingsError> {
        let Some(path) = &self.credentials_file else { return Ok(()) };
        self.credentials =
            CredentialsFile::read(path).map_err(|error| SettingsError(format!("miners.credentials_file: {error}")))?;
        let of_miners = self.miners.iter().map(|miner| ("miner.credentials", &miner.credentials));
        let of_ranges = self.ranges.iter().map(|range| ("miner_range.credentials", &range.credentials));
        for (key, name) in of_miners.chain(of_ranges) {
            if let Some(name) = name.as_deref().filter(|name| self.credentials.get(name).is_none()) {
                let path = path.display();
                return refuse(format!("{key}: {path} has no [[credentials]] with the name {name:?}; add it there"));
            }
        }
        Ok(())
    }
}

/// Whether the addresses of a range are few enough to be searched; the text says what to do otherwise.
///
/// # Errors
/// When there are more than 65,536.
pub fn check_range(range: &IpNet) -> Result<(), String> {
    let bits = range.max_prefix_len() - range.prefix_len();
    if bits <= RANGE_BITS_MAX {
        return Ok(());
    }
    let longest = range.max_prefix_len() - RANGE_BITS_MAX;
    Err(format!("{range} has more than 65536 addresses; name the parts of it that have miners, /{longest} or smaller"))
}

impl Default for MinersConfig {
    fn default() -> MinersConfig {
        MinersConfig {
            period: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            connections_max: 256,
            credentials_file: None,
            miners: Vec::new(),
            ranges: Vec::new(),
            credentials: CredentialsFile::default(),
        }
    }
}

impl fmt::Display for RangeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rack = self.rack.as_deref().map_or(String::new(), |rack| format!(", rack {rack}"));
        write!(f, "{}{rack}", self.cidr)
    }
}

fn endpoint(address: &str, port: u16) -> String {
    match address.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{address}:{port}"),
    }
}

/// A network, without the bits of a host.
fn network<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    let refuse = |_| serde::de::Error::custom(format!("{text:?} is no range of addresses like \"10.20.0.0/22\""));
    text.parse::<IpNet>().map(|range| range.trunc()).map_err(refuse)
}

fn refuse<T>(text: String) -> Result<T, SettingsError> {
    Err(SettingsError(text))
}

fn miner_port() -> u16 {
    PORT
}
