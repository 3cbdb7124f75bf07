//! The settings of ingest, as they stand in its TOML file.
//!
//! Plain data with a default for every key that can have one; unknown keys are refused. What it does not promise: that
//! Kafka or the lake can be reached with them; `check` finds that out.

mod upkeep;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::settings::{self, SettingsError};
use racklake_schemas::{Table, catalog, tables};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub use upkeep::UpkeepConfig;

/// Rows of one partition must stay well below what their 32-bit offsets can reach (`wire::ROWS_BYTES_MAX`).
const BUFFER_BYTES_LIMIT: usize = 1 << 30;

/// All settings of ingest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the frames come from.
    pub kafka: KafkaConfig,
    /// Where the rows go to.
    pub lake: LakeConfig,
    /// When rows are written.
    #[serde(default)]
    pub flush: FlushConfig,
    /// What is remembered of received frames.
    #[serde(default)]
    pub received: ReceivedConfig,
    /// How the lake is kept in order.
    #[serde(default)]
    pub upkeep: UpkeepConfig,
    /// Who ingest is in the events that it tells itself.
    #[serde(default)]
    pub events: EventsConfig,
    /// Where metrics and health are served.
    #[serde(default)]
    pub http: HttpConfig,
}

/// Where the frames come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to start from, `host:port,host:port`.
    pub bootstrap_servers: String,
    /// A table's topic is `<topic_prefix>.<table>`.
    #[serde(default = "topic_prefix")]
    pub topic_prefix: String,
    /// Partitions of a topic that is created. They never change for a topic; to grow, take a new prefix.
    #[serde(default = "partitions")]
    pub partitions: i32,
    /// Replicas of a topic that is created; by default 3 where there are 3 brokers or more, else 1.
    #[serde(default)]
    pub replication: Option<i32>,
    /// The consumer group. It divides the partitions; it holds no position, so renaming it re-reads nothing.
    #[serde(default = "group")]
    pub group: String,
    /// Topic of messages that cannot be decoded; by default `<topic_prefix>.dead-letter`.
    #[serde(default)]
    pub dead_letter_topic: Option<String>,
    /// Whether topics are told apart by their id. Off only for a broker that cannot answer DescribeTopics: then a
    /// re-created topic is not noticed, and no topic is created.
    #[serde(default = "yes")]
    pub topic_ids: bool,
    /// Names of the tables to ingest; empty means all but those for benches.
    #[serde(default, deserialize_with = "known_tables")]
    pub tables: Vec<String>,
    /// Any setting of librdkafka, as text or as `{ file = "/path" }` whose content is the value.
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
}

/// Where the rows go to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LakeConfig {
    /// A directory, or a URL of an object store: `s3://bucket/lake`.
    pub location: String,
    /// Settings of the object store, as text or as `{ file = "/path" }`.
    #[serde(default)]
    pub options: BTreeMap<String, Property>,
}

/// When the rows of a table are written: whichever comes first.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlushConfig {
    /// The oldest row has waited so long.
    #[serde(deserialize_with = "settings::duration")]
    pub age_max: Duration,
    /// The table has so many rows.
    pub rows_max: usize,
    /// The table's rows take so many bytes of memory.
    pub bytes_max: usize,
    /// All rows of the process take so many bytes: the largest table is written, and fetching pauses meanwhile.
    pub buffer_bytes_max: usize,
}

/// What is remembered of received frames, so that a replay is told from a new frame.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceivedConfig {
    /// A stream that was not seen for so long is closed: of it, only frames above its highest are taken, and others
    /// become dead letters. Not less than a spool keeps frames, and the topics keep them, and a day.
    #[serde(deserialize_with = "settings::duration")]
    pub stream_age_max: Duration,
}

/// Who ingest is in the events that it tells itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// Their `site`.
    #[serde(deserialize_with = "settings::label")]
    pub site: String,
    /// Their `node`, by default the host's name.
    #[serde(deserialize_with = "settings::label")]
    pub node: String,
}

/// Where metrics and health are served.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address of `/metrics` and `/healthz`.
    pub listen: SocketAddr,
}

/// A value that may be kept out of the config file. Never printed.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Property {
    /// The value itself.
    Text(String),
    /// A file whose content, without white space at its end, is the value.
    File {
        /// The file.
        file: PathBuf,
    },
}

impl Default for FlushConfig {
    fn default() -> FlushConfig {
        FlushConfig {
            age_max: Duration::from_secs(5),
            rows_max: 1_000_000,
            bytes_max: 64 * 1024 * 1024,
            buffer_bytes_max: 256 * 1024 * 1024,
        }
    }
}

impl Default for ReceivedConfig {
    fn default() -> ReceivedConfig {
        ReceivedConfig { stream_age_max: Duration::from_secs(15 * 24 * 3600) }
    }
}

impl Default for EventsConfig {
    fn default() -> EventsConfig {
        EventsConfig { site: "ingest".to_owned(), node: host_name() }
    }
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig { listen: SocketAddr::from(([127, 0, 0, 1], 9465)) }
    }
}

impl Config {
    /// The settings with defaults everywhere but in what has none.
    pub fn new(bootstrap_servers: impl Into<String>, location: impl Into<String>) -> Config {
        Config {
            kafka: KafkaConfig {
                bootstrap_servers: bootstrap_servers.into(),
                topic_prefix: topic_prefix(),
                partitions: partitions(),
                replication: None,
                group: group(),
                dead_letter_topic: None,
                topic_ids: yes(),
                tables: Vec::new(),
                properties: BTreeMap::new(),
            },
            lake: LakeConfig { location: location.into(), options: BTreeMap::new() },
            flush: FlushConfig::default(),
            received: ReceivedConfig::default(),
            upkeep: UpkeepConfig::default(),
            events: EventsConfig::default(),
            http: HttpConfig::default(),
        }
    }

    /// Reads and validates a config file.
    ///
    /// # Errors
    /// When the file cannot be read or a value is not allowed; the text names file and key.
    pub fn load(path: &Path) -> Result<Config, SettingsError> {
        let config: Config = settings::load(path)?;
        config.validate().map_err(|what| SettingsError(format!("{}: {what}", path.display())))?;
        Ok(config)
    }

    /// Checks what the types alone do not say.
    ///
    /// # Errors
    /// Which key is wrong, and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        let kafka = &self.kafka;
        let given = |key: &str, text: &str| {
            if text.trim().is_empty() { Err(format!("{key} is empty")) } else { Ok(()) }
        };
        given("kafka.bootstrap_servers", &kafka.bootstrap_servers)?;
        given("kafka.group", &kafka.group)?;
        given("lake.location", &self.lake.location)?;
        for (key, name) in
            [("kafka.topic_prefix", &kafka.topic_prefix), ("kafka.dead_letter_topic", &self.dead_letter_topic())]
        {
            if !is_topic_name(name) {
                return Err(format!(
                    "{key} = {name:?} is no topic name; allowed are 1 to 200 of a-z, A-Z, 0-9, '.', '_', '-'"
                ));
            }
        }
        if kafka.partitions < 1 {
            return Err(format!("kafka.partitions = {} must be 1 or more", kafka.partitions));
        }
        if kafka.replication.is_some_and(|n| !(1..=i32::from(i16::MAX)).contains(&n)) {
            return Err("kafka.replication must be 1 or more".to_owned());
        }
        let flush = &self.flush;
        for (key, value) in [("rows_max", flush.rows_max), ("bytes_max", flush.bytes_max)] {
            if value == 0 {
                return Err(format!("flush.{key} must be above 0"));
            }
        }
        if flush.buffer_bytes_max > BUFFER_BYTES_LIMIT {
            return Err(format!(
                "flush.buffer_bytes_max = {} must not be above {BUFFER_BYTES_LIMIT} (1 GiB)",
                flush.buffer_bytes_max
            ));
        }
        if flush.buffer_bytes_max < flush.bytes_max {
            return Err(format!(
                "flush.buffer_bytes_max = {} must not be below flush.bytes_max = {}",
                flush.buffer_bytes_max, flush.bytes_max
            ));
        }
        self.upkeep.validate()?;
        if let Some(name) = kafka.tables.iter().find(|name| catalog::table(name).is_none()) {
            return Err(format!("kafka.tables: {}", unknown_table(name)));
        }
        Ok(())
    }

    /// The config that is in force once a running ingest was given `wanted`, and the keys of `wanted` that differ and
    /// wait for a restart.
    pub(crate) fn changed_to(&self, wanted: &Config) -> (Config, Vec<&'static str>) {
        let (kafka, kafka_wanted) = (&self.kafka, &wanted.kafka);
        let differ = [
            ("kafka.bootstrap_servers", kafka.bootstrap_servers != kafka_wanted.bootstrap_servers),
            ("kafka.topic_prefix", kafka.topic_prefix != kafka_wanted.topic_prefix),
            ("kafka.partitions", kafka.partitions != kafka_wanted.partitions),
            ("kafka.replication", kafka.replication != kafka_wanted.replication),
            ("kafka.group", kafka.group != kafka_wanted.group),
            ("kafka.dead_letter_topic", kafka.dead_letter_topic != kafka_wanted.dead_letter_topic),
            ("kafka.topic_ids", kafka.topic_ids != kafka_wanted.topic_ids),
            ("kafka.tables", kafka.tables != kafka_wanted.tables),
            ("kafka.properties", kafka.properties != kafka_wanted.properties),
            ("lake.location", self.lake.location != wanted.lake.location),
            ("lake.options", self.lake.options != wanted.lake.options),
            ("events.site", self.events.site != wanted.events.site),
            ("events.node", self.events.node != wanted.events.node),
            ("http.listen", self.http.listen != wanted.http.listen),
        ];
        let (flush, received, upkeep) = (wanted.flush.clone(), wanted.received.clone(), wanted.upkeep.clone());
        let next = Config { flush, received, upkeep, ..self.clone() };
        (next, differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect())
    }

    /// The topic of messages that cannot be decoded.
    pub fn dead_letter_topic(&self) -> String {
        let derived = || format!("{}.dead-letter", self.kafka.topic_prefix);
        self.kafka.dead_letter_topic.clone().unwrap_or_else(derived)
    }

    /// The tables to ingest, and the topic of each.
    pub fn topics(&self) -> Topics {
        let wanted = |table: &&'static Table| match self.kafka.tables.as_slice() {
            [] => !table.bench,
            names => names.iter().any(|name| name == table.name),
        };
        let topic =
            |table: &'static Table| Topic { name: format!("{}.{}", self.kafka.topic_prefix, table.name), table };
        tables::ALL.iter().copied().filter(wanted).map(topic).collect()
    }
}

/// A table and the topic that its frames come from.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Name of the topic.
    pub name: String,
    /// The table.
    pub table: &'static Table,
}

/// The topics of one process, in an order that never changes while it runs.
pub type Topics = Arc<[Topic]>;

impl Property {
    /// The value.
    ///
    /// # Errors
    /// When its file cannot be read; the text names key and file, never the value.
    pub fn value(&self, key: &str) -> Result<String, String> {
        match self {
            Property::Text(text) => Ok(text.clone()),
            Property::File { file } => std::fs::read_to_string(file)
                .map(|text| text.trim_end().to_owned())
                .map_err(|e| format!("{key}: cannot read {}: {e}", file.display())),
        }
    }
}

impl From<&str> for Property {
    fn from(text: &str) -> Property {
        Property::Text(text.to_owned())
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Property::Text(_) => f.write_str("(hidden)"),
            Property::File { file } => write!(f, "(content of {})", file.display()),
        }
    }
}

fn topic_prefix() -> String {
    "racklake".to_owned()
}

fn partitions() -> i32 {
    16
}

fn group() -> String {
    "racklake-ingest".to_owned()
}

/// The kernel's host name in lower case, as collectors have it; where that is no name of a node, `ingest`.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_ascii_lowercase();
    if racklake_schemas::identity::is_label(&name) { name } else { "ingest".to_owned() }
}

fn yes() -> bool {
    true
}

fn is_topic_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=200).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

fn unknown_table(name: &str) -> String {
    let known: Vec<_> = tables::ALL.iter().map(|table| table.name).collect();
    format!("{name:?} is no table; allowed are {}", known.join(", "))
}

fn known_tables<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    match names.iter().find(|name| catalog::table(name).is_none()) {
        Some(name) => Err(D::Error::custom(unknown_table(name))),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "[kafka]\nbootstrap_servers = \"k:9092\"\n[lake]\nlocation = \"/lake\"\n";

    fn parse(text: &str) -> Result<Config, String> {
        settings::parse::<Config>(text, "ingest.toml").map_err(|e| e.to_string())
    }

    #[test]
    fn the_smallest_file_gets_every_default() {
        let config = parse(SMALLEST).unwrap();
        config.validate().unwrap();
        assert_eq!(config.dead_letter_topic(), "racklake.dead-letter");
        assert_eq!((config.kafka.partitions, config.kafka.group.as_str()), (16, "racklake-ingest"));
        assert_eq!((config.flush.age_max, config.flush.rows_max), (Duration::from_secs(5), 1_000_000));
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:9465");
        assert!(config.topics().iter().all(|topic| !topic.table.bench));
        assert!(config.topics().iter().any(|topic| topic.name == "racklake.gpu_sample"));
    }

    #[test]
    fn a_mistake_is_refused_with_its_place_and_what_is_allowed() {
        let unknown = parse(&format!("{SMALLEST}[flush]\nage_mx = \"5s\"\n")).unwrap_err();
        assert!(unknown.starts_with("ingest.toml:6: ") && unknown.contains("age_mx"), "{unknown}");
        let table = parse("[kafka]\nbootstrap_servers = \"k:9092\"\ntables = [\"gpu\"]\n").unwrap_err();
        assert!(table.starts_with("ingest.toml:3: ") && table.contains("gpu_sample"), "{table}");
        let small = parse(&format!("{SMALLEST}[flush]\nbuffer_bytes_max = 10\n")).unwrap().validate().unwrap_err();
        assert!(small.contains("flush.buffer_bytes_max"), "{small}");
        let large = format!("{SMALLEST}[flush]\nbuffer_bytes_max = 2000000000\n");
        let large = parse(&large).unwrap().validate().unwrap_err();
        assert!(large.contains("flush.buffer_bytes_max") && large.contains("1 GiB"), "{large}");
    }

    #[test]
    fn a_running_ingest_takes_over_its_limits_and_names_what_waits() {
        let before = parse(SMALLEST).unwrap();
        let text = SMALLEST.replace("/lake", "/other").replace("[lake]", "group = \"g\"\n[lake]");
        let wanted =
            parse(&format!("{text}[flush]\nage_max = \"1s\"\n[received]\nstream_age_max = \"30d\"\n")).unwrap();
        let (next, waiting) = before.changed_to(&wanted);
        assert_eq!(waiting, ["kafka.group", "lake.location"]);
        assert_eq!((next.flush, next.received), (wanted.flush.clone(), wanted.received.clone()));
        assert_eq!((next.lake.location, next.kafka.group), (before.lake.location.clone(), before.kafka.group.clone()));
    }

    #[test]
    fn a_secret_comes_from_its_file_and_is_never_printed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "s3cret\n").unwrap();
        let text = format!("{SMALLEST}[lake.options]\nkey = {{ file = {file:?} }}\nother = \"pl4in\"\n");
        let config = parse(&text).unwrap();
        assert_eq!(config.lake.options["key"].value("key").unwrap(), "s3cret");
        let shown = format!("{config:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("pl4in"), "{shown}");
    }
}
