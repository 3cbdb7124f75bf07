//! Starts ingest: lake, topics, metrics, then the loop. The same code runs as a service, in tests and in the demo.
//!
//! It waits for a lake or a Kafka that does not answer yet, and says so on `/healthz`; it ends only where waiting
//! cannot help. For a changed config the loop ends in order, with everything committed, and a new one begins where it
//! ended: what a restart of the process would do, without one. A config that is not allowed changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use racklake_schemas::settings::SettingsError;
use racklake_storage::{Lake, LakeTable};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, LakeConfig};
use crate::dead_letter::DeadLetters;
use crate::failure::{Failure, back_off};
use crate::health::Health;
use crate::http::{self, Served};
use crate::metrics::Metrics;
use crate::own_events::{Outbox, OwnEvents};
use crate::pipeline::{Parts, Pipeline};
use crate::topics::Cluster;
use crate::upkeep::{Owned, Upkeep};

/// How long the upkeep may take to stop.
const LAST_UPKEEP: std::time::Duration = std::time::Duration::from_secs(3);
/// How long the last events of ingest itself may take.
const LAST_EVENTS: std::time::Duration = std::time::Duration::from_secs(3);

/// A config that was read again, or why it is not allowed.
pub type Reload = Result<Config, SettingsError>;

/// Runs until `shutdown`, then flushes, commits, and returns.
///
/// # Errors
/// When it cannot go on and waiting cannot help; the text is for the operator.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (_nobody, reloads) = mpsc::channel(1);
    run_with_reloads(config, reloads, shutdown).await
}

/// The same; takes over what `reloads` brings of a changed config.
///
/// # Errors
/// As for [`run`]; a config that comes later and is not allowed is told and changes nothing.
pub async fn run_with_reloads(
    mut config: Config,
    mut reloads: mpsc::Receiver<Reload>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.validate().map_err(anyhow::Error::msg)?;
    let (metrics, health) = (Metrics::new(), Health::default());
    let serving = CancellationToken::new();
    let _served_until_the_end = serving.clone().drop_guard();
    http::serve(config.http.listen, Served { metrics: metrics.clone(), health: health.clone() }, serving).await?;
    let cluster = Arc::new(Cluster::new(&config.kafka)?);
    let start = Start { health: &health, shutdown: &shutdown };

    let Some(mut opened) = start.until_ready("lake", open(&config)).await? else { return Ok(()) };
    tracing::info!(location = opened.0.location(), tables = opened.1.len(), "lake");
    let (asked, for_topics) = (Arc::clone(&cluster), config.clone());
    let prepare = move || {
        let survey = asked.survey()?;
        let created = if for_topics.kafka.topic_ids { asked.create_missing(&for_topics)? } else { Vec::new() };
        Ok((survey, created))
    };
    let Some((survey, created)) = start.until_ready("kafka", prepare).await? else { return Ok(()) };
    tracing::info!(brokers = survey.brokers.join(", "), ?created, "kafka");

    loop {
        let ((lake, tables), letters) = (opened, DeadLetters::new(&config)?);
        let (cluster, metrics, health) = (Arc::clone(&cluster), metrics.clone(), health.clone());
        let (events, outbox) = OwnEvents::new(&config, letters.clone());
        let owned = Owned::default();
        let (rules, topics) = (config.upkeep.clone(), config.topics());
        let upkeep = Upkeep::new(rules, lake.clone(), topics, owned.clone(), events.clone(), health.clone());
        let parts = Parts { config: config.clone(), lake, tables, cluster, letters, events, owned, metrics, health };
        let round = shutdown.child_token();
        let mut running = std::pin::pin!(run_pipeline(Pipeline::new(parts), upkeep, outbox, &round));
        let next = tokio::select! {
            ended = &mut running => return ended,
            next = changed(&config, &mut reloads, start.health) => next,
        };
        round.cancel();
        running.await?;
        ["partition ", "dead letter ", "flush ", "upkeep "].iter().for_each(|what| start.health.clear_all(what));
        config = next;
        match start.until_ready("lake", open(&config)).await? {
            Some(again) => opened = again,
            None => return Ok(()),
        }
    }
}

/// Runs a pipeline, and the upkeep beside it, until `shutdown`, and then sends what they still have to tell.
async fn run_pipeline(
    pipeline: Pipeline,
    upkeep: Upkeep,
    outbox: Outbox,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let outbox = tokio::spawn(outbox.run());
    let stop_upkeep = CancellationToken::new();
    let upkeep = tokio::spawn(upkeep.run(stop_upkeep.clone()));
    let ended = pipeline.run(shutdown).await;
    stop_upkeep.cancel();
    let abandon = upkeep.abort_handle();
    if tokio::time::timeout(LAST_UPKEEP, upkeep).await.is_err() {
        // What it is doing is refused by the lake or done; either way nobody needs to know.
        abandon.abort();
    }
    let stop = outbox.abort_handle();
    if tokio::time::timeout(LAST_EVENTS, outbox).await.is_err() {
        tracing::warn!("events of ingest itself could not be written in time and are lost");
        stop.abort();
    }
    ended
}

/// Waits for a config that changes something, and gives the one that is in force then.
async fn changed(config: &Config, reloads: &mut mpsc::Receiver<Reload>, health: &Health) -> Config {
    const REMEDY: &str = "the config before it stays in force; correct the file and send SIGHUP again";
    loop {
        let wanted = match reloads.recv().await {
            Some(Ok(wanted)) => wanted,
            Some(Err(error)) => {
                // Further lines show the text of the file, which is for the log alone.
                let text = error.to_string();
                tracing::error!("{REMEDY}: {text}");
                health.set("config", format!("{}; {REMEDY}", text.lines().next().unwrap_or_default()));
                continue;
            }
            None => return std::future::pending().await,
        };
        health.clear("config");
        let (next, waiting) = config.changed_to(&wanted);
        match waiting.as_slice() {
            [] => tracing::info!("the config was read again and is in force"),
            keys => {
                let keys = keys.join(", ");
                tracing::warn!("the config was read again and is in force but for {keys}: restart to change these");
            }
        }
        if (&next.flush, &next.received, &next.upkeep) != (&config.flush, &config.received, &config.upkeep) {
            return next;
        }
    }
}

/// Opens the lake and every table, and writes the description of the tables where it has changed.
fn open(config: &Config) -> impl Fn() -> Result<(Lake, Vec<LakeTable>), Failure> + Clone + Send + 'static {
    let config = config.clone();
    move || {
        let lake = open_lake(&config.lake)?;
        let tables = config.topics().iter().map(|topic| lake.table(topic.table)).collect::<Result<_, _>>()?;
        if lake.write_dictionary()? {
            tracing::info!("field_dictionary written");
        }
        Ok((lake, tables))
    }
}

/// Opens the lake.
pub(crate) fn open_lake(config: &LakeConfig) -> Result<Lake, Failure> {
    let value = |(key, property): (&String, &crate::config::Property)| {
        Ok((key.clone(), property.value(&format!("lake.options.{key}")).map_err(Failure::Stop)?))
    };
    let options: BTreeMap<String, String> = config.options.iter().map(value).collect::<Result<_, Failure>>()?;
    Ok(Lake::open(&config.location, &options)?)
}

/// What waiting for the start needs.
struct Start<'a> {
    health: &'a Health,
    shutdown: &'a CancellationToken,
}

impl Start<'_> {
    /// Does the work on a blocking thread, again and again until it succeeds; `None` on shutdown.
    async fn until_ready<T: Send + 'static>(
        &self,
        what: &str,
        work: impl Fn() -> Result<T, Failure> + Clone + Send + 'static,
    ) -> anyhow::Result<Option<T>> {
        let mut attempt = 1;
        loop {
            let once = tokio::task::spawn_blocking(work.clone());
            let result = tokio::select! {
                () = self.shutdown.cancelled() => return Ok(None),
                result = once => result?,
            };
            match result {
                Ok(ready) => {
                    self.health.clear(what);
                    return Ok(Some(ready));
                }
                Err(Failure::Stop(text)) => return Err(anyhow::anyhow!(text)).context(what.to_owned()),
                Err(failure) => {
                    let wait = back_off(attempt);
                    tracing::warn!(%failure, attempt, ?wait, "{what} is not ready");
                    self.health.set(what, failure.to_string());
                    tokio::select! {
                        () = self.shutdown.cancelled() => return Ok(None),
                        () = tokio::time::sleep(wait) => attempt += 1,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use racklake_schemas::wire::{FrameHeader, encode, header};
    use racklake_schemas::{Cell, Row, Rows, ValueType, tables};
    use rdkafka::ClientConfig;
    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{FutureProducer, FutureRecord};

    use super::*;
    use crate::received::{self, ReceivedSet};

    fn frame(seq: i64) -> Vec<u8> {
        let table = &tables::COVERAGE;
        let mut row = Row::new(table);
        for (index, column) in table.columns.iter().enumerate().filter(|(_, column)| !column.nullable) {
            row.set(index, if column.value_type == ValueType::Text { Cell::from("a") } else { Cell::I64(seq) });
        }
        let mut rows = Rows::new(table);
        rows.push(row);
        let stream_id = "0123456789abcdef0123456789abcdef".to_owned();
        encode(&FrameHeader { table, stream_id, seq, node: "n1".to_owned() }, &rows.into_batch().unwrap())
    }

    fn headers(seq: &str) -> OwnedHeaders {
        let named = OwnedHeaders::new().insert(Header { key: header::SEQ, value: Some(seq) });
        named.insert(Header { key: header::STREAM_ID, value: Some("0123456789abcdef0123456789abcdef") })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_embedded_broker_that_knows_no_topic_ids_is_read_across_a_restart_and_replays_are_dropped() {
        let broker = MockCluster::new(1).unwrap();
        for topic in ["racklake.coverage", "racklake.dead-letter"] {
            broker.create_topic(topic, 1, 1).unwrap();
        }
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().unwrap();
        let lake = tempfile::tempdir().unwrap();
        let mut config = Config::new(broker.bootstrap_servers(), lake.path().display().to_string());
        config.kafka.topic_ids = false;
        config.kafka.tables = vec!["coverage".to_owned()];
        config.flush.age_max = Duration::from_millis(100);
        config.http.listen = ([127, 0, 0, 1], 0).into();

        // Every frame comes twice or thrice, some again after the restart, some out of order; one is no good.
        let mut sent = 0;
        for run_of in [&[1, 2, 1, 3, 2, 1][..], &[5, 3, 4, 5, 1]] {
            for seq in run_of {
                let payload = frame(*seq);
                let record = FutureRecord::<str, _>::to("racklake.coverage").payload(&payload);
                producer.send(record, Duration::from_secs(5)).await.unwrap();
                sent += 1;
            }
            let damaged = &frame(9)[..60];
            let record = FutureRecord::<str, _>::to("racklake.coverage").payload(damaged).headers(headers("9"));
            producer.send(record, Duration::from_secs(5)).await.unwrap();
            sent += 1;
            let last = sent;
            let shutdown = CancellationToken::new();
            let ingest = tokio::spawn(run(config.clone(), shutdown.clone()));
            let position = crate::positions::app_id("racklake.coverage", "-", 0);
            let open = config.lake.clone();
            tokio::time::timeout(Duration::from_secs(60), async {
                loop {
                    let (open, position) = (open.clone(), position.clone());
                    let read = move || -> Result<_, Failure> {
                        Ok(open_lake(&open)?.table(&tables::COVERAGE)?.position(&position)?)
                    };
                    let next = tokio::task::spawn_blocking(read).await.unwrap();
                    if next == Ok(Some(last)) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
            .await
            .unwrap();
            shutdown.cancel();
            ingest.await.unwrap().unwrap();
        }

        let wanted = config.lake.clone();
        let read = move || {
            let table = open_lake(&wanted).unwrap().table(&tables::COVERAGE).unwrap();
            let set = ReceivedSet::read(&table, &received::domain_name("racklake.coverage", 0)).unwrap();
            let (_, stream) = set.streams().next().unwrap();
            let told = (stream.received().to_vec(), stream.letters().to_vec());
            (table.contents().unwrap().rows, told, stream.duplicates(), stream.dead_letters())
        };
        let found = tokio::task::spawn_blocking(read).await.unwrap();
        assert_eq!(found, (5, (vec![(1, 5)], vec![(9, 9)]), 6, 2));
    }
}
