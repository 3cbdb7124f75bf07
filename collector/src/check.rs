//! `check`: says whether a config is allowed, what would be collected from what, and whether all of it answers now.
//!
//! It changes nothing: no topic, no state. Each device is read at most once.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use racklake_schemas::tables::{self, device};
use racklake_schemas::{Cell, Row, Table, row_status};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::{Config, Make, MinersConfig};
use crate::health::Health;
use crate::kafka_client::{self, Producer};
use crate::kernel_log;
use crate::service::sources;
use crate::source::{Found, Identity, Source};

/// How long Kafka may take to answer.
const KAFKA_PATIENCE: Duration = Duration::from_secs(5);
/// How long a source may take to say which devices there are.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(30);

/// What was found; its text is for the operator.
#[derive(Debug, Default)]
pub struct Findings {
    text: String,
    /// How many things are wrong.
    pub problems: usize,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Findings {
    fn line(&mut self, what: &str, text: impl fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{what:<8} {text}");
    }

    fn problem(&mut self, what: &str, text: impl fmt::Display) {
        self.problems += 1;
        self.line(what, format_args!("PROBLEM: {text}"));
    }
}

/// Checks a config that has been read; `offline` asks neither devices nor Kafka.
pub async fn check(config: &Config, offline: bool) -> Findings {
    let mut findings = Findings::default();
    let rack = config.rack.as_deref().unwrap_or("none");
    findings.line("node", format_args!("{} at site {}, rack {rack}", config.node, config.site));
    findings.line("http", format_args!("/metrics and /healthz on {}", config.http.listen));
    let (age, bytes) = (config.frames.age_max, config.frames.bytes_max);
    let queue = config.frames.queue_bytes_max;
    findings.line("frames", format_args!("every {age:?} or {bytes} bytes; {queue} bytes in memory"));
    let spool = &config.spool;
    findings.line("spool", format_args!("{} bytes or {:?} may wait on disk", spool.bytes_max, spool.age_max));
    match kafka_client::check_properties(&config.kafka) {
        Ok(()) => findings.line("kafka", format_args!("{}", config.kafka.bootstrap_servers)),
        Err(error) => findings.problem("kafka", format_args!("{error:#}")),
    }
    if !offline {
        check_state(config, &mut findings);
        check_kafka(config, &mut findings).await;
    }
    if let Some(path) = config.kernel_log_path() {
        match if offline { Ok(()) } else { kernel_log::check(path) } {
            Ok(()) => findings.line("kernel", format_args!("XIDs from {}", path.display())),
            Err(reason) => findings.line("kernel", format_args!("note: {reason}")),
        }
    }
    let (sink, _events) = mpsc::channel(64);
    for source in sources(config, &sink) {
        for &table in source.tiers() {
            let tables = tables_of(source.as_ref(), table).join(" and ");
            let (period, deadline) = (source.period(table), source.deadline(table));
            let text = format_args!("{}: {tables} every {period:?}, deadline {deadline:?}", source.name());
            findings.line("source", text);
        }
        if !offline {
            check_devices(source, &mut findings).await;
        }
    }
    check_miners(&config.miners(), offline, &mut findings);
    findings.line(
        "result",
        match findings.problems {
            0 => "ok".to_owned(),
            1 => "1 problem".to_owned(),
            n => format!("{n} problems"),
        },
    );
    findings
}

/// The miners of a config as far as no miner is asked: all of them where none will be, and where others may be.
fn check_miners(miners: &MinersConfig, offline: bool, findings: &mut Findings) {
    if let Some(path) = &miners.credentials_file {
        findings
            .line("secrets", format_args!("{} credentials of miners in {}", miners.credentials.len(), path.display()));
    }
    let with = |credentials: &Option<String>| {
        credentials.as_deref().map_or(String::new(), |name| format!(", credentials {name:?}"))
    };
    for miner in miners.miners.iter().filter(|_| offline) {
        let make = miner.make.map_or("make to be found out", Make::name);
        findings.line("device", format_args!("{}  {make}{}", miner.endpoint(), with(&miner.credentials)));
    }
    for range in &miners.ranges {
        findings.line("range", format_args!("{range}{}: searched at start and every hour", with(&range.credentials)));
    }
}

fn tables_of(source: &dyn Source, table: &'static Table) -> Vec<&'static str> {
    let boards = (source.name() == "miner").then_some(tables::HASHBOARD_SAMPLE.name);
    [table.name].into_iter().chain(boards).collect()
}

fn check_state(config: &Config, findings: &mut Findings) {
    let path = &config.state_dir;
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(folder) if folder.is_dir() => findings.line("state", format_args!("{shown}")),
        Ok(_) => findings.problem("state", format_args!("state_dir: {shown} is no folder")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            findings.line("state", format_args!("{shown} (made at the first start)"));
        }
        Err(error) => findings.problem("state", format_args!("state_dir: {shown}: {error}")),
    }
}

async fn check_kafka(config: &Config, findings: &mut Findings) {
    let producer = match Producer::new(&config.kafka, Arc::new(Health::default())) {
        Ok(producer) => producer,
        Err(_) => return, // told already
    };
    let answer = tokio::task::spawn_blocking(producer.topics(KAFKA_PATIENCE)).await;
    producer.end();
    let topics = match answer.map_err(|error| error.to_string()).and_then(|answer| answer) {
        Ok(topics) => topics,
        Err(reason) => {
            let brokers = &config.kafka.bootstrap_servers;
            return findings.problem("kafka", format_args!("no answer from {brokers}: {reason}"));
        }
    };
    for table in tables::ALL.iter().filter(|table| !table.bench) {
        let topic = config.kafka.topic(table.name);
        let wanted = config.kafka.partitions;
        match topics.get(&topic) {
            Some(partitions) if *partitions == wanted as usize => {
                findings.line("topic", format_args!("{topic}: {partitions} partitions"));
            }
            Some(partitions) => {
                let text = format_args!("{topic} has {partitions} partitions, kafka.partitions says {wanted}");
                findings.problem("topic", text);
            }
            None => findings.line("topic", format_args!("{topic}: missing, ingest creates it")),
        }
    }
}

async fn check_devices(source: Arc<dyn Source>, findings: &mut Findings) {
    let found = match timeout(DISCOVERY_PATIENCE, source.discover()).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return findings.problem("source", format_args!("{}: {error}", source.name())),
        Err(_) => {
            let seconds = DISCOVERY_PATIENCE.as_secs();
            return findings.problem("source", format_args!("{}: no answer for {seconds} s", source.name()));
        }
    };
    if found.is_empty() {
        findings.line("device", format_args!("{}: none", source.name()));
    }
    let reads = found.into_iter().map(|found| {
        let source = Arc::clone(&source);
        tokio::spawn(async move { read_once(source.as_ref(), found).await })
    });
    for read in reads.collect::<Vec<_>>() {
        match read.await {
            Ok((address, Ok(text))) => findings.line("device", format_args!("{address}  {text}")),
            Ok((address, Err(text))) => findings.problem("device", format_args!("{address}  {text}")),
            Err(error) => findings.problem("device", error),
        }
    }
}

/// Who is at the address, or what is wrong there.
async fn read_once(source: &dyn Source, found: Found) -> (String, Result<String, String>) {
    let Some(&table) = source.tiers().first() else { return (found.address, Ok("is not read".to_owned())) };
    let deadline = source.deadline(table);
    let Ok(reading) = timeout(deadline, source.read(&found.address, table)).await else {
        return (found.address, Err(format!("no answer within {deadline:?}")));
    };
    let status = reading.rows.first().map_or(row_status::OK, Row::status);
    let code = reading.rows.first().and_then(Row::fail_code);
    let who = reading.identity.or(found.identity).map_or_else(|| "not identified".to_owned(), |who| describe(&who));
    let result = match status {
        row_status::UNREACHABLE => Err(format!("{who}: unreachable, code {}", code.unwrap_or(0))),
        row_status::LOST => Err(format!("{who}: lost, code {}", code.unwrap_or(0))),
        _ => Ok(who),
    };
    (found.address, result)
}

fn describe(identity: &Identity) -> String {
    let id = identity.device_id.as_deref().unwrap_or("without serial or MAC");
    let text = |column: usize| match identity.row.cell(column) {
        Cell::Text(text) => Some(text.as_str()),
        _ => None,
    };
    let model = text(device::MODEL).unwrap_or("model unknown");
    let version = text(device::DRIVER_VERSION).or(text(device::FIRMWARE_VERSION)).unwrap_or("version unknown");
    format!("{id}  {model}  {version}")
}
