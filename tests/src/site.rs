//! One test's site: its folder, its topics, and the services that run for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::{Broker, free_port};
use crate::process::Process;
use crate::{binaries, cache, kafka, python, wait_for};

/// Partitions of every topic in tests.
pub const PARTITIONS: i32 = 4;

/// A folder, a prefix of topics, and the broker.
pub struct Site {
    /// The broker, mostly the one that all tests share.
    pub broker: Arc<Broker>,
    /// Where its collectors find the broker, and where ingest does: for a test that puts a proxy before either.
    pub collector_servers: String,
    /// See `collector_servers`.
    pub ingest_servers: String,
    /// Logs, configs and the lake; it stays after the test, until the test runs again.
    pub folder: PathBuf,
    /// Prefix of the topics.
    pub prefix: String,
}

/// A running ingest.
pub struct Ingest {
    /// The process.
    pub process: Process,
    /// Where it serves `/metrics` and `/healthz`.
    pub http: String,
    /// Its consumer group.
    pub group: String,
}

impl Site {
    /// An empty site of that name.
    ///
    /// # Errors
    /// When Kafka cannot be started.
    pub fn new(name: &str) -> Result<Site> {
        Site::with_broker(name, kafka::shared()?)
    }

    /// An empty site of that name with a broker of its own.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn with_broker(name: &str, broker: Arc<Broker>) -> Result<Site> {
        let folder = cache().join("runs").join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        Ok(Site {
            collector_servers: broker.bootstrap().to_owned(),
            ingest_servers: broker.bootstrap().to_owned(),
            broker,
            folder,
            prefix: format!("{}-{}", name.replace('_', "-"), std::process::id()),
        })
    }

    /// The lake of the site.
    pub fn lake(&self) -> PathBuf {
        self.folder.join("lake")
    }

    /// Name of a table's topic.
    pub fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.prefix)
    }

    /// Starts ingest, which flushes every 200 ms.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_ingest(&self, name: &str, group: &str) -> Result<Ingest> {
        self.start_ingest_into(name, group, &self.lake().display().to_string(), "")
    }

    /// The same into another lake, with more lines of config.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_ingest_into(&self, name: &str, group: &str, lake: &str, more: &str) -> Result<Ingest> {
        self.start_ingest_with(name, group, lake, ["", more])
    }

    /// The same with more lines of config in the section `kafka`, and after all others.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_ingest_with(&self, name: &str, group: &str, lake: &str, [kafka, more]: [&str; 2]) -> Result<Ingest> {
        let http = format!("127.0.0.1:{}", free_port()?);
        let config = self.folder.join(format!("{name}.toml"));
        let text = format!(
            "[kafka]\nbootstrap_servers = {bootstrap:?}\ntopic_prefix = {prefix:?}\npartitions = {PARTITIONS}\n\
             group = {group:?}\n{kafka}[lake]\nlocation = {lake:?}\n[flush]\nage_max = \"200ms\"\n[http]\nlisten = {http:?}\n{more}",
            bootstrap = self.ingest_servers,
            prefix = self.prefix,
        );
        std::fs::write(&config, text)?;
        let program = binaries::path("racklake-ingest")?;
        let arguments = ["--config", &config.display().to_string()];
        let log = [("RUST_LOG", "info,racklake_ingest=debug,racklake_storage=debug"), ("NO_COLOR", "1")];
        let process = Process::start_in(name, &program, &arguments, &self.folder, &log)?;
        Ok(Ingest { process, http, group: group.to_owned() })
    }

    /// Starts a collector with the given lines of config beyond site, node, Kafka and HTTP.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_collector(&self, node: &str, top: &str, tables: &str) -> Result<Process> {
        let config = self.folder.join(format!("{node}.toml"));
        let text = format!(
            "site = \"test\"\nnode = {node:?}\nstate_dir = {state:?}\n{top}\n[kafka]\nbootstrap_servers = {bootstrap:?}\n\
             topic_prefix = {prefix:?}\npartitions = {PARTITIONS}\n[http]\nlisten = \"127.0.0.1:{port}\"\n{log}{tables}",
            state = self.folder.join(format!("{node}-state")).display().to_string(),
            bootstrap = self.collector_servers,
            prefix = self.prefix,
            port = free_port()?,
            // What this host logs and feels is no part of a test.
            log = ["kernel_log", "amd", "hwmon"]
                .into_iter()
                .filter(|key| !tables.contains(&format!("[{key}]")))
                .map(|key| format!("[{key}]\nenabled = false\n"))
                .collect::<String>(),
        );
        std::fs::write(&config, text)?;
        let program = binaries::path("racklake-collector")?;
        let log = [("NO_COLOR", "1")];
        Process::start_in(node, &program, &["--config", &config.display().to_string()], &self.folder, &log)
    }

    /// Waits until the group's offsets, which move only after a durable commit, have reached the ends of the topics.
    ///
    /// # Errors
    /// When that takes more than `seconds`.
    pub fn wait_until_drained(&self, ingest: &Ingest, tables: &[&str], seconds: u64) -> Result<()> {
        let mut client = self.broker.client_config();
        client.set("group.id", &ingest.group);
        let consumer: BaseConsumer = client.create()?;
        for table in tables {
            let topic = self.topic(table);
            let drained = wait_for(&format!("ingest to drain {topic}"), seconds, || {
                let ends = self.broker.end_offsets(&topic).ok()?;
                let mut wanted = TopicPartitionList::new();
                wanted.add_partition_range(&topic, 0, ends.len() as i32 - 1);
                let stored = consumer.committed_offsets(wanted, Duration::from_secs(5)).ok()?;
                let reached = |(partition, end): (usize, &i64)| {
                    let stored = stored.find_partition(&topic, partition as i32).map(|p| p.offset());
                    *end == 0 || matches!(stored, Some(Offset::Offset(offset)) if offset >= *end)
                };
                (!ends.is_empty() && ends.iter().enumerate().all(reached)).then_some(())
            });
            drained.with_context(|| ingest.process.tail())?;
        }
        Ok(())
    }

    /// Waits until ingest has created the topic of a table.
    ///
    /// # Errors
    /// When it is not there after a minute.
    pub fn wait_for_topic(&self, ingest: &Ingest, table: &str) -> Result<()> {
        let topic = self.topic(table);
        let created = wait_for(&format!("{topic} to be created"), 60, || {
            self.broker.end_offsets(&topic).ok().filter(|ends| ends.len() == PARTITIONS as usize)
        });
        created.map(|_| ()).with_context(|| ingest.process.tail())
    }

    /// Stops ingest with SIGTERM, which must end it with 0.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop_ingest(&self, mut ingest: Ingest) -> Result<()> {
        let status = ingest.process.terminate(60)?;
        ensure!(status.success(), "ingest ended with {status}\n{}", ingest.process.tail());
        Ok(())
    }

    /// Compares `gpu_sample` with what senders remember; gives what the check printed.
    ///
    /// # Errors
    /// When rows are lost, doubled or different.
    pub fn check_sent(&self, account: &Path) -> Result<String> {
        python::run("check_sent.py", &[&self.lake().display().to_string(), &account.display().to_string()])
    }
}

/// The answer of an HTTP path: status and body.
///
/// # Errors
/// When nobody answers.
pub fn http_get(address: &str, path: &str) -> Result<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: racklake\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
    Ok((status, body.to_owned()))
}
