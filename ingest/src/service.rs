//! Starts ingest: lake, topics, metrics, then the loop. The same code runs as a service, in tests and in the demo.
//!
//! It waits for a lake or a Kafka that does not answer yet, and says so on `/healthz`; it ends only where waiting
//! cannot help.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use racklake_storage::{Lake, LakeTable};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, LakeConfig};
use crate::dead_letter::DeadLetters;
use crate::failure::{Failure, back_off};
use crate::health::Health;
use crate::http::{self, Served};
use crate::metrics::Metrics;
use crate::pipeline::{Parts, Pipeline};
use crate::topics::Cluster;

/// Runs until `shutdown`, then flushes, commits, and returns.
///
/// # Errors
/// When it cannot go on and waiting cannot help; the text is for the operator.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.validate().map_err(anyhow::Error::msg)?;
    let (metrics, health) = (Metrics::new(), Health::default());
    let serving = CancellationToken::new();
    let _served_until_the_end = serving.clone().drop_guard();
    http::serve(config.http.listen, Served { metrics: metrics.clone(), health: health.clone() }, serving).await?;
    let cluster = Arc::new(Cluster::new(&config.kafka)?);
    let letters = DeadLetters::new(&config)?;
    let start = Start { health: &health, shutdown: &shutdown };

    let wanted = config.lake.clone();
    let Some((lake, tables)) = start.until_ready("lake", open(wanted, config.clone())).await? else { return Ok(()) };
    tracing::info!(location = lake.location(), tables = tables.len(), "lake");
    let (asked, for_topics) = (Arc::clone(&cluster), config.clone());
    let prepare = move || {
        let survey = asked.survey()?;
        let created = if for_topics.kafka.topic_ids { asked.create_missing(&for_topics)? } else { Vec::new() };
        Ok((survey, created))
    };
    let Some((survey, created)) = start.until_ready("kafka", prepare).await? else { return Ok(()) };
    tracing::info!(brokers = survey.brokers.join(", "), ?created, "kafka");

    Pipeline::new(Parts { config, lake, tables, cluster, letters, metrics, health }).run(&shutdown).await
}

/// Opens the lake and every table, and writes the description of the tables where it has changed.
fn open(
    wanted: LakeConfig,
    config: Config,
) -> impl Fn() -> Result<(Lake, Vec<LakeTable>), Failure> + Clone + Send + 'static {
    move || {
        let lake = open_lake(&wanted)?;
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
